"""The two tables of many sessions, `sessions` and `objects`: one pair of files, or a folder of pairs."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

import pyarrow as pa

from intake_nwbzarr.copies.local_files import write_local, write_together
from intake_nwbzarr.errors import ListingError, LocationNotFoundError, ObjectChangedError, TableError
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.tables.table_file import TableFile, encoded, folder_to_pass, open_table
from intake_nwbzarr.sessions.tables.table_schema import (
    SCHEMAS,
    Kind,
    conformed,
    plain_table,
)
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport

_ENDING: Final = ".parquet"
# How long the two files of a part may differ, while a writer replaces them.
_ATTEMPTS: Final = 8
_PAUSE: Final = 0.25


@dataclass(frozen=True)
class Part:
    """A part of both tables: the sessions of one prefix or dandiset."""

    name: str
    # Identifies the scan, and is the same in both files of a part.
    scan: str
    # What was scanned, without secrets.
    source: str
    # Of the table sessions.
    rows: int
    # Of the table objects.
    objects: int = 0
    # The columns of each table that the schema does not have.
    more_columns: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict, hash=False)
    # Whether there may be snapshots.
    has_snapshots: bool = False


@dataclass(frozen=True)
class Tables:
    """The tables at a location: one pair of files, ``NAME.parquet``, or a folder with a pair for each part.

    A file ``sessions.parquet`` has its objects beside it, in ``sessions.objects.parquet``. A folder has
    ``sessions/PART.parquet`` and ``objects/PART.parquet``, which other engines read as
    ``sessions/*.parquet`` and ``objects/*.parquet``.
    """

    place: Location
    # As they were when the tables were opened; empty for tables that are only written.
    parts: tuple[Part, ...] = field(default=())

    @property
    def is_folder(self) -> bool:
        """Return whether the tables are a folder of parts."""
        return not self.place.url.endswith(_ENDING)

    @property
    def digest(self) -> str:
        """Return a digest of the state in which the tables were opened."""
        return sha256("\n".join(sorted(part.scan for part in self.parts)).encode()).hexdigest()[:16]

    def columns(self, kind: Kind) -> list[str]:
        """Return the names of a table's columns, those that the schema does not have last."""
        more = (name for part in self.parts for name in part.more_columns.get(kind, ()))
        return list(dict.fromkeys((*SCHEMAS[kind].names, *more)))

    def rows(self, kind: Kind) -> int:
        """Return the number of rows of a table."""
        return sum(part.rows if kind == "sessions" else part.objects for part in self.parts)

    @property
    def has_snapshots(self) -> bool:
        """Return whether there may be snapshots in the table sessions."""
        return any(part.has_snapshots for part in self.parts)

    def opened(self) -> Tables:
        """Return these tables in their present state, after reading the footers of their files."""
        names = self._part_names()
        with ThreadPoolExecutor(8) as threads:
            parts = list(threads.map(self._footer, names))
        return Tables(self.place, tuple(parts))

    def read(
        self, kind: Kind, columns: Sequence[str] | None = None, parts: Iterable[Part] | None = None
    ) -> pa.Table:
        """Read columns of one table, all by default, over all or some of its parts.

        Raises `TableError` where a part was rewritten since the tables were opened.
        """
        chosen = list(self.parts if parts is None else parts)
        with ThreadPoolExecutor(8) as threads:
            tables = list(threads.map(lambda part: self._read(kind, part, columns), chosen))
        if not tables:
            schema = SCHEMAS[kind]
            return (
                schema if columns is None else pa.schema([schema.field(name) for name in columns])
            ).empty_table()
        if any(table.schema != tables[0].schema for table in tables):
            # Arrow combines dictionaries with dictionaries only.
            tables = [plain_table(table) for table in tables]
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            what = str(error).splitlines()[0]
            raise TableError(
                f"The parts of the table of {kind} {self.place} do not fit together: {what:.200}.",
                location=self.place,
                found=type(error).__name__,
                next_step="Make them again with: nwbzarr catalog scan.",
            ) from error

    def snapshots(self, rows: Sequence[int]) -> Iterator[bytes | None]:
        """Yield the snapshots in ascending rows of the table sessions, reading one row group at a time."""
        # Snapshots are far larger than all other columns, so that only the row groups of the rows are read.
        wanted = deque(rows)
        start = 0
        for part in self.parts:
            if not wanted:
                return
            if wanted[0] < start + part.rows:
                yield from self._snapshots_of(part, start, wanted)
            start += part.rows

    def _snapshots_of(self, part: Part, start: int, wanted: deque[int]) -> Iterator[bytes | None]:
        file = self._opened_part("sessions", part)
        for number, length in enumerate(file.groups):
            stop = start + length
            if wanted and wanted[0] < stop:
                column = file.read(["snapshot"], [number])["snapshot"]
                while wanted and wanted[0] < stop:
                    yield column[wanted.popleft() - start].as_py()
            start = stop

    def write(
        self,
        name: str,
        source: str,
        sessions: pa.Table,
        objects: pa.Table,
        state: dict[Kind, str | None] | None = None,
    ) -> Part:
        """Replace a part of both tables; `name` is ignored for a single pair of files.

        On S3, files that are no longer in the `state` of `etags` are left unchanged, with a `TableError`;
        their new ETags replace those in it.
        """
        state = {} if state is None else state
        scan = secrets.token_hex(8)
        # The objects first: a reader in between sees files of two scans, and waits.
        tables: Mapping[Kind, pa.Table] = {"objects": objects, "sessions": sessions}
        more: dict[Kind, tuple[str, ...]] = {
            kind: tuple(name for name in table.column_names if name not in SCHEMAS[kind].names)
            for kind, table in tables.items()
        }
        place = name if self.is_folder else ""
        part = Part(place, scan, source, len(sessions), len(objects), more, _any_snapshot(sessions))
        files = {kind: encoded(kind, table, scan, source) for kind, table in tables.items()}
        places = {kind: self.location_of(kind, part.name) for kind in files}
        if self.place.path is not None:
            write_together({where.path: files[kind] for kind, where in places.items() if where.path})
            return part
        for kind, where in places.items():
            etag = state.get(kind)
            try:
                new = write_file(where, files[kind], etag, is_new=kind in state and etag is None)
            except ObjectChangedError as error:
                raise TableError(
                    f"The tables {self.place} were written by another scan since this one has read them.",
                    location=self.place,
                    path=part.name or None,
                    next_step="Run it again when the other one has ended; it adds to those tables.",
                    transient=True,
                ) from error
            if kind in state:
                state.pop(kind) if new is None else state.update({kind: new})
        return part

    def etags(self, name: str = "") -> dict[Kind, str | None]:
        """Return the ETags of both files of a part on S3, None for one that does not exist."""
        found: dict[Kind, str | None] = {}
        for kind in SCHEMAS if self.place.path is None else ():
            transport = open_transport(self.location_of(kind, name if self.is_folder else ""))
            answer = run(transport.get("", start=0, stop=1))
            # Without an ETag, nothing can be compared.
            if answer is None or answer.etag:
                found[kind] = None if answer is None else answer.etag
        return found

    def remains(self, name: str = "") -> tuple[pa.Table, pa.Table] | None:
        """Return both tables of a part for another scan of it, None if the part does not exist.

        The two may be of different scans if a writer was killed between its two files: sessions without all
        of their objects are left out. A file of sessions without its file of objects is an error.
        """
        name = name if self.is_folder else ""
        files: dict[Kind, TableFile] = {}
        for kind in SCHEMAS:
            with suppress(LocationNotFoundError):
                files[kind] = self._file(kind, name)
        if "sessions" not in files:
            return None
        if "objects" not in files:
            where, sessions = self.location_of("objects", name), self.location_of("sessions", name)
            raise TableError(
                f"The table {sessions} lacks its table of objects, {where}.",
                location=where,
                next_step=f"Restore that file. Without it, delete {sessions}, and scan everything again that "
                "was in it.",
            )
        # The objects, of which there are many, stay dictionary-encoded.
        sessions, objects = conformed("sessions", files["sessions"].read()), files["objects"].read()
        counts = {each["values"]: each["counts"] for each in objects["location"].value_counts().to_pylist()}
        rows = zip(sessions["location"].to_pylist(), sessions["object_count"].to_pylist(), strict=True)
        complete = [counts.get(location, 0) == (count or 0) for location, count in rows]
        return sessions.filter(pa.array(complete, pa.bool_())), objects

    def location_of(self, kind: Kind, part: str = "") -> Location:
        """Return the location of a part's file of one table."""
        if self.is_folder:
            return replace(self.place, url=f"{self.place.url}/{kind}/{part}{_ENDING}")
        if kind == "sessions":
            return self.place
        return replace(self.place, url=f"{self.place.url.removesuffix(_ENDING)}.objects{_ENDING}")

    def _part_names(self) -> list[str]:
        if not self.is_folder:
            return [""]
        try:
            names = run(open_transport(self.place).list_folder("sessions")).names
        except ListingError as error:
            raise TableError(
                f"The folder of tables {self.place} cannot be listed.",
                location=self.place,
                next_step=f"Pass the URL of one table instead, such as {self.place}/sessions.parquet.",
            ) from error
        except LocationNotFoundError:
            names = ()
        parts = sorted(name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING))
        if not parts:
            make = f"Make them with: nwbzarr catalog scan PREFIX -o {self.place}"
            raise LocationNotFoundError(
                f"{self.place} has no tables of sessions.",
                location=self.place,
                expected="sessions/*.parquet and objects/*.parquet",
                next_step=folder_to_pass(self.place) or make,
            )
        return [name for name in parts if not name.startswith(".")]

    def _footer(self, name: str) -> Part:
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE)
            sessions, objects = self._file("sessions", name), self._file("objects", name)
            if sessions.scan == objects.scan:
                return Part(
                    name,
                    sessions.scan,
                    sessions.source,
                    sessions.rows,
                    objects.rows,
                    {"sessions": sessions.more_columns, "objects": objects.more_columns},
                    sessions.has_snapshots,
                )
        raise TableError(
            f"The tables {self.place}{f' (part {name})' if name else ''} are of two different scans.",
            location=self.place,
            path=name or None,
            found=[sessions.scan, objects.scan],
            next_step="Scan again; a scan that was writing them was interrupted.",
        )

    def _opened_part(self, kind: Kind, part: Part) -> TableFile:
        """Return a part's file, which must be in the state in which the tables were opened."""
        file = self._file(kind, part.name)
        if file.scan != part.scan:
            raise TableError(
                f"The tables {self.place} were rewritten since they were opened.",
                location=self.place,
                path=part.name or None,
                next_step="Open them again.",
                transient=True,
            )
        return file

    def _read(self, kind: Kind, part: Part, columns: Sequence[str] | None) -> pa.Table:
        file = self._opened_part(kind, part)
        known = set(file.names)
        # A table of no columns would have no rows.
        wanted = None if columns is None else [name for name in columns if name in known] or ["location"]
        table = file.read(wanted)
        # A minor version may have added columns.
        for name in () if columns is None else columns:
            if name not in known:
                kind_of = SCHEMAS[kind].field(name).type if name in SCHEMAS[kind].names else pa.null()
                missing = pa.nulls(part.rows if kind == "sessions" else part.objects, kind_of)
                table = table.append_column(name, missing)
        return table if columns is None else table.select(list(columns))

    def _file(self, kind: Kind, part: str) -> TableFile:
        return open_table(kind, self.location_of(kind, part), self.place)


def write_file(where: Location, data: bytes, etag: str | None = None, *, is_new: bool = False) -> str | None:
    """Write a file, local or on S3, so that it is there whole or not at all; return its ETag on S3.

    On S3, one that must have an ETag, or must not exist, is left as it is if another has written it.
    """
    if where.path is not None:
        write_local(where.path, data)
        return None
    transport = open_transport(where)
    if not transport.writable:
        raise transport.unwritable()
    return run(transport.put("", data, if_match=etag, if_none_match=is_new))


def _any_snapshot(sessions: pa.Table) -> bool:
    return "snapshot" in sessions.column_names and sessions["snapshot"].null_count < len(sessions)
