"""The rows of a part of the tables during a scan: existing rows, and new rows that replace them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from intake_nwbzarr.arguments import check_bool, invalid_argument
from intake_nwbzarr.copies.local_files import acquire, not_written, release
from intake_nwbzarr.errors import TableError
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.scan.contents import Row
from intake_nwbzarr.sessions.scan.find import as_folder
from intake_nwbzarr.sessions.scan.harvest import KNOWN, FoundSession, allowed_requests
from intake_nwbzarr.sessions.scan.scan_report import ScanFailure, ScanProgress
from intake_nwbzarr.sessions.tables.table_schema import Kind, conformed, table_of
from intake_nwbzarr.sessions.tables.tables import Tables

CHECKPOINT = 30.0
"""Seconds after which the new rows are written, so that a scan that is killed resumes from there."""

# A checkpoint takes at most this part of the time, however large the tables are.
_SHARE: Final = 0.1


@dataclass(frozen=True)
class ScanOptions:
    """How sessions are scanned; see `scan`."""

    threads: int = 16
    requests: int = 10
    snapshots: bool = False
    check: bool = False
    progress: Callable[[ScanProgress], None] | None = None

    def __post_init__(self) -> None:
        counts: dict[str, object] = {"threads": self.threads, "requests": self.requests}
        for name, given in counts.items():
            if not isinstance(given, int) or isinstance(given, bool) or given < 1:
                raise invalid_argument(name, given, "a whole number of at least 1")
        check_bool("snapshots", self.snapshots)
        check_bool("check", self.check)
        if self.progress is not None and not callable(self.progress):
            raise invalid_argument("progress", self.progress, "a function that takes a ScanProgress, or None")


@dataclass(frozen=True)
class Before:
    """The columns of an existing row that decide whether its session is scanned again."""

    etag: str | None
    zip_etag: str | None
    zarr_format: int | None
    failed: bool
    requests_for_all: int | None
    has_snapshot: bool
    stale: bool | None
    # The columns in _LABELS.
    labels: Mapping[str, Any]

    def is_complete(self, found: FoundSession, options: ScanOptions) -> bool:
        """Return whether scanning the session again would add nothing, if it has not changed."""
        allowed = allowed_requests(found, options.requests)
        more = self.requests_for_all is not None and allowed >= self.requests_for_all
        lacks = options.snapshots and not self.has_snapshot
        return not (self.failed or more or lacks or options.check)

    def is_current(self, found: FoundSession, options: ScanOptions) -> bool:
        """Return whether the session has the ETag of its listing, and scanning it again would add nothing."""
        return self.is_complete(found, options) and found.etag == (
            self.zip_etag if found.is_zip else self.etag
        )


# Columns of `Before`, apart from the snapshot and labels.
_COMPARED: Final = (
    "location", "etag", "zip_etag", "zarr_format", "error_type", "requests_for_all", "stale",
)  # fmt: skip
# Columns that may change though the session has not.
_LABELS: Final = ("storage", "source", *KNOWN)


@dataclass
class PartRows:
    """The rows of a part during a scan: existing rows, and new rows that replace them."""

    tables: Tables
    name: str
    source: str
    old: dict[Kind, pa.Table]
    before: dict[str, Before]
    # ETags of the files on S3 as they were read; files with other ETags are not replaced.
    state: dict[Kind, str | None] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    objects: list[Row] = field(default_factory=list)
    new: dict[Kind, list[pa.Table]] = field(default_factory=lambda: {"sessions": [], "objects": []})
    replaced: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    # New values of the columns in _LABELS, for existing rows that are kept.
    labels: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: list[ScanFailure] = field(default_factory=list)
    written: float = field(default_factory=time.monotonic)
    pause: float = field(default_factory=lambda: CHECKPOINT)

    @classmethod
    @contextmanager
    def opened(cls, tables: Tables, name: str, source: str) -> Iterator[PartRows]:
        """Yield a part with its existing rows, locked against other scans."""
        with _locked(tables.location_of("sessions", name)):
            yield cls._read(tables, name, source)

    @classmethod
    def _read(cls, tables: Tables, name: str, source: str) -> PartRows:
        # Read before the rows, so that a write in between is noticed.
        state = tables.etags(name)
        found = tables.remains(name)
        sessions, objects = found or (table_of("sessions", ()), table_of("objects", ()))
        columns = sessions.select([*_COMPARED, *_LABELS]).append_column(
            "has_snapshot", pc.is_valid(sessions["snapshot"])
        )
        before = {
            row["location"]: Before(
                row["etag"],
                row["zip_etag"],
                row["zarr_format"],
                row["error_type"] is not None,
                row["requests_for_all"],
                row["has_snapshot"],
                row["stale"],
                {name: row[name] for name in _LABELS},
            )
            for row in columns.to_pylist()
            # All sessions below a prefix belong to it, also those found by another prefix or list.
            if row["source"] in {source, None} or as_folder(row["location"]).startswith(as_folder(source))
        }
        return cls(tables, name, source, {"sessions": sessions, "objects": objects}, before, state)

    def expect(self, found: Mapping[str, object], unlisted: Sequence[str]) -> None:
        """Record which existing sessions are gone: not found, and not below a folder that was not listed."""
        folders = tuple(map(as_folder, unlisted))
        self.gone = {url for url in self.before if url not in found and not url.startswith(folders)}

    def add(self, row: Row, objects: Sequence[Row]) -> None:
        """Add the new rows of a session, which replace the existing ones."""
        self.rows.append(row | {"source": self.source})
        self.objects += objects
        self.replaced.add(row["location"])
        if row.get("error_type") is not None:
            self.failures.append(
                ScanFailure(row["location"], row["error_type"], row["error"], row["transient"])
            )

    def keep(self, found: FoundSession) -> None:
        """Keep the existing row of a session, with the present values of the columns in _LABELS."""
        url = found.location.url
        ours = {"storage": found.storage, "source": self.source}
        labels = {**self.before[url].labels, **ours, **found.known}
        if labels != self.before[url].labels:
            self.labels[url] = labels

    def checkpoint(self) -> None:
        """Write the rows so far, if enough time has passed."""
        if time.monotonic() - self.written >= self.pause:
            began = time.monotonic()
            self.write()
            self.written = time.monotonic()
            self.pause = max(CHECKPOINT, (self.written - began) / _SHARE)

    def finish(self) -> int:
        """Write the part without sessions that are gone, if it has changed; return the number of these."""
        gone = self.gone - self.replaced
        if self.replaced or self.labels or gone or not len(self.old["sessions"]):
            self.write(gone, final=True)
        return len(gone)

    def write(self, gone: Iterable[str] = (), *, final: bool = False) -> None:
        """Write the existing rows that are not replaced, and the new ones."""
        self._pack()
        dropped = pa.array(sorted(self.replaced | set(gone)), pa.string())
        whole: dict[Kind, pa.Table] = {}
        for kind, old in self.old.items():
            kept = old.filter(pc.invert(pc.is_in(old["location"], dropped)))
            if kind == "sessions" and self.labels:
                kept = self._labelled(kept)
            whole[kind] = pa.concat_tables(
                [conformed(kind, kept), *self.new[kind]], promote_options="default"
            )
        if final:
            order = {"sessions": ["location"], "objects": ["location", "path"]}
            whole = {
                kind: table.sort_by([(name, "ascending") for name in order[kind]])
                for kind, table in whole.items()
            }
        self.tables.write(self.name, self.source, whole["sessions"], whole["objects"], self.state)

    def _labelled(self, kept: pa.Table) -> pa.Table:
        locations = kept["location"].to_pylist()
        for name in _LABELS:
            values = zip(locations, kept[name].to_pylist(), strict=True)
            column = [self.labels.get(location, {name: value})[name] for location, value in values]
            kept = kept.set_column(kept.column_names.index(name), name, pa.array(column, pa.string()))
        return kept

    def _pack(self) -> None:
        """Turn the new rows into tables, which take less memory."""
        rows: dict[Kind, list[Row]] = {"sessions": self.rows, "objects": self.objects}
        for kind, each in rows.items():
            if each:
                self.new[kind].append(conformed(kind, table_of(kind, each)))
        self.rows, self.objects = [], []


@contextmanager
def _locked(where: Location) -> Iterator[None]:
    """Hold the lock file of a local part; on S3, its files' ETags are compared when they are written."""
    if where.path is None:
        yield
        return
    lock_file = where.path.with_name(f".{where.path.name}.lock")
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = acquire(lock_file)
    except OSError as error:
        raise not_written(where, error) from error
    if lock is None:
        raise TableError(
            f"Another scan is writing {where}: it holds {lock_file}.",
            location=where,
            found=str(lock_file),
            next_step="Run this one when the other has ended, or scan to other tables.",
            transient=True,
        )
    try:
        yield
    finally:
        release(lock)
