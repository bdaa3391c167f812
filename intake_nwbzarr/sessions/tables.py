"""The two Parquet tables of many sessions, `sessions` and `objects`: their columns, and their files."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from intake_nwbzarr import __version__
from intake_nwbzarr.errors import (
    AccessError,
    ListingError,
    LocationNotFoundError,
    ObjectChangedError,
    TableError,
    TransportError,
)
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.untrusted_input import LARGEST_TABLE

type Kind = Literal["sessions", "objects"]

MAJOR: Final = 1
MINOR: Final = 0

_TEXTS: Final = pa.list_(pa.string())
_INSTANT: Final = pa.timestamp("us", "UTC")


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"description": text}) for name, kind, text in columns])


SESSIONS: Final = _schema(
    ("location", pa.string(), "URL or path of the file, without secrets: the key of both tables"),
    ("storage", pa.string(), "Name of the entry of storage_options with which it is opened; null for none"),
    ("source", pa.string(), "Prefix, list of locations or dandiset in which it was found"),
    ("dandiset", pa.string(), "Identifier of its dandiset, such as 000719"),
    ("version", pa.string(), "Version of the dandiset, such as draft or 0.240409.1542"),
    ("asset_path", pa.string(), "Path of the asset in the dandiset"),
    ("asset_id", pa.string(), "Identifier of the asset"),
    ("title", pa.string(), "Name of the dandiset"),
    ("identifier", pa.string(), "identifier of the NWB file"),
    ("session_id", pa.string(), "session_id"),
    ("session_description", pa.string(), "session_description"),
    ("start", _INSTANT, "session_start_time in UTC; null if it is stored without a time zone"),
    ("start_text", pa.string(), "session_start_time as stored, with its time zone"),
    ("subject_id", pa.string(), "subject_id"),
    ("species", pa.string(), "species of the subject as stored"),
    ("taxon", pa.string(), "Scientific name of the species, such as Mus musculus; null if not recognised"),
    ("age", pa.string(), "age of the subject as stored, an ISO 8601 duration such as P90D"),
    ("age_days", pa.float64(), "Age in days; the middle of a range; null if not recognised"),
    ("sex", pa.string(), "sex of the subject as stored"),
    ("sex_code", pa.string(), "F, M, O (other) or U (unknown); null if not recognised"),
    ("genotype", pa.string(), "genotype of the subject"),
    ("strain", pa.string(), "strain of the subject"),
    ("date_of_birth", pa.string(), "date_of_birth of the subject as stored"),
    ("weight", pa.string(), "weight of the subject as stored"),
    ("institution", pa.string(), "institution"),
    ("lab", pa.string(), "lab"),
    ("experimenter", _TEXTS, "experimenter"),
    ("keywords", _TEXTS, "keywords"),
    ("devices", _TEXTS, "Names of the devices"),
    ("brain_regions", _TEXTS, "Distinct locations of electrodes, imaging planes and the like, sorted"),
    ("unit_count", pa.int64(), "Rows of the table units; null without one"),
    ("electrode_count", pa.int64(), "Rows of the electrodes table; null without one"),
    ("roi_count", pa.int64(), "Rows of all PlaneSegmentation tables; null without one"),
    ("trial_count", pa.int64(), "Rows of the table trials; null without one"),
    ("object_count", pa.int64(), "Rows of this session in the table objects"),
    ("nbytes", pa.int64(), "Bytes of all arrays, decompressed"),
    ("zarr_format", pa.int8(), "2 or 3"),
    ("consolidated", pa.bool_(), "Whether the metadata are consolidated"),
    ("nwb_version", pa.string(), "nwb_version"),
    ("namespaces", _TEXTS, "Cached extension schemas, such as ndx-pose 0.2.0; null if not listed"),
    ("etag", pa.string(), "ETag of the consolidated metadata: the state that was scanned"),
    ("zip_etag", pa.string(), "ETag of the zip file, if it is one"),
    ("stale", pa.bool_(), "Whether the consolidated metadata differ from the stored; null if not compared"),
    ("not_read", _TEXTS, "Columns that were not filled, to stay within the requests per session"),
    ("requests", pa.int32(), "Requests that scanning it took, without listing"),
    ("requests_for_all", pa.int32(), "Requests that would fill the columns in not_read as well, or null"),
    ("scanned", _INSTANT, "When it was scanned"),
    ("error", pa.string(), "Why it could not be read, without secrets; null where it could"),
    ("error_type", pa.string(), "Name of the error's class"),
    ("transient", pa.bool_(), "Whether scanning it again may succeed; null without an error"),
    (
        "snapshot",
        pa.binary(),
        "Snapshot, a msgpack document, from which it opens without reading its metadata; mostly null",
    ),
)
"""The columns of the table `sessions`: one row for each file."""

OBJECTS: Final = _schema(
    ("location", pa.string(), "The file's key in the table sessions"),
    ("path", pa.string(), "Path of the object in the file, as group= takes it"),
    ("name", pa.string(), "Last part of the path"),
    ("type", pa.string(), "neurodata_type"),
    ("namespace", pa.string(), "Namespace of the type: core, hdmf-common, or an extension's"),
    ("types", _TEXTS, "The type and all types that it extends, nearest first"),
    ("description", pa.string(), "description, if it is an attribute"),
    ("unit", pa.string(), "unit of the data of a TimeSeries"),
    ("rate", pa.float64(), "rate of a TimeSeries in Hz; null for one with timestamps"),
    ("duration", pa.float64(), "Samples divided by rate, in seconds; null for a TimeSeries with timestamps"),
    ("shape", pa.list_(pa.int64()), "Shape of the data of a TimeSeries or image; (rows,) of a table"),
    ("dtype", pa.string(), "Stored dtype of the data, as NumPy names it; null for a table"),
    ("columns", _TEXTS, "Columns of a table, in its order"),
    ("nbytes", pa.int64(), "Bytes of its arrays, decompressed"),
    ("chunks", pa.int64(), "Stored chunks (or shards) of its arrays: requests to read all of it"),
)
"""The columns of the table `objects`: one row for each neurodata object of each file."""

SCHEMAS: Final[Mapping[Kind, pa.Schema]] = {"sessions": SESSIONS, "objects": OBJECTS}

# Columns with few distinct values in many rows, which are read dictionary-encoded.
_REPEATED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "sessions": ("storage", "source", "dandiset", "species", "taxon", "sex", "sex_code", "nwb_version"),
    "objects": ("location", "path", "name", "type", "namespace", "types.list.element", "unit", "dtype"),
}

_KEY: Final = b"nwbzarr"
# Columns without which a row is none.
_KEYS: Final[Mapping[Kind, tuple[str, ...]]] = {"sessions": ("location",), "objects": ("location", "path")}
_ENDING: Final = ".parquet"
_ROWS_IN_GROUP: Final = 250_000
# Bytes of the snapshots of one row group, and how many groups there are at most.
_SNAPSHOTS_IN_GROUP: Final = 2**22
_MOST_GROUPS: Final = 500
# How long the two files of a part may differ, while a writer replaces them.
_ATTEMPTS: Final = 8
_PAUSE: Final = 0.25


@dataclass(frozen=True)
class Part:
    """A part of both tables: what one scan of one prefix or dandiset has found."""

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
    # In the state in which the tables were opened; none for tables that are only written.
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
            tables = [_plain(table) for table in tables]
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
        for number in range(file.num_row_groups):
            stop = start + file.metadata.row_group(number).num_rows
            if wanted and wanted[0] < stop:
                column = self._checked("sessions", file.read_row_group(number, ["snapshot"]), part.name)[
                    "snapshot"
                ]
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

        On S3, files that are no longer in the `state` of `etags` are left as they are, with a `TableError`;
        their new ETags replace those in it.
        """
        state = {} if state is None else state
        scan = secrets.token_hex(8)
        more: dict[Kind, tuple[str, ...]] = {
            "sessions": _more(sessions.column_names, SESSIONS),
            "objects": _more(objects.column_names, OBJECTS),
        }
        place = name if self.is_folder else ""
        part = Part(place, scan, source, len(sessions), len(objects), more, _any_snapshot(sessions))
        # The objects first: whoever reads in between sees two scans, and waits.
        tables: Mapping[Kind, pa.Table] = {"objects": objects, "sessions": sessions}
        files: dict[Kind, bytes] = {}
        for kind, table in tables.items():
            about = {
                "format": f"nwbzarr-{kind}",
                "version": f"{MAJOR}.{MINOR}",
                "scan": scan,
                "source": source,
                "written_by": f"intake-nwbzarr {__version__}",
            }
            files[kind] = _encoded(conformed(kind, table), about)
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
        """Return both tables of a part for whoever scans it again, None if there is no such part.

        The two may be of different scans if a writer was killed between its two files: sessions without all
        of their objects are left out. One of the two files without the other may be somebody's own.
        """
        name = name if self.is_folder else ""
        files: dict[Kind, pq.ParquetFile] = {}
        tables: dict[Kind, pa.Table] = {}
        for kind in SCHEMAS:
            with suppress(LocationNotFoundError):
                files[kind] = self._file(kind, name)
                self._about(kind, files[kind], name)
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
        for kind, file in files.items():
            try:
                tables[kind] = _whole(file)
            except (pa.ArrowException, OSError) as error:
                raise self._damaged(kind, error, name) from error
            tables[kind] = self._checked(kind, tables[kind], name)
        # The objects, of which there are many, stay dictionary-encoded.
        sessions, objects = conformed("sessions", tables["sessions"]), tables["objects"]
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
                next_step=self._pass_the_folder or make,
            )
        return [name for name in parts if not name.startswith(".")]

    @property
    def _pass_the_folder(self) -> str | None:
        """Return what to pass instead of a part of a folder of tables, None for what is no part of one."""
        above = self.place.url.split("/")[: None if self.is_folder else -1]
        if above[-1] not in SCHEMAS:
            return None
        return f"Of a folder of tables, pass the folder itself: {'/'.join(above[:-1])}."

    def _footer(self, name: str) -> Part:
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE)
            # The sessions first: a table of objects may have been passed instead.
            sessions = self._file("sessions", name)
            about_sessions = self._about("sessions", sessions, name)
            objects = self._file("objects", name)
            about = about_sessions, self._about("objects", objects, name)
            if about[0]["scan"] == about[1]["scan"]:
                more: dict[Kind, tuple[str, ...]] = {
                    "sessions": _more(sessions.schema_arrow.names, SESSIONS),
                    "objects": _more(objects.schema_arrow.names, OBJECTS),
                }
                rows = sessions.metadata.num_rows, objects.metadata.num_rows
                return Part(
                    name, about[0]["scan"], str(about[0].get("source")), *rows, more, _has_snapshots(sessions)
                )
        raise TableError(
            f"The tables {self.place}{f' (part {name})' if name else ''} are of two different scans.",
            location=self.place,
            path=name or None,
            found=[each["scan"] for each in about],
            next_step="Scan again; a scan that was writing them was interrupted.",
        )

    def _opened_part(self, kind: Kind, part: Part) -> pq.ParquetFile:
        """Return a part's file, which must be in the state in which the tables were opened."""
        file = self._file(kind, part.name)
        if self._about(kind, file, part.name)["scan"] != part.scan:
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
        known = set(file.schema_arrow.names)
        # A table of no columns would have no rows.
        wanted = None if columns is None else [name for name in columns if name in known] or ["location"]
        try:
            table = _whole(file, wanted)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(kind, error, part.name) from error
        table = self._checked(kind, table, part.name)
        # A minor version may have added columns.
        for name in () if columns is None else columns:
            if name not in known:
                kind_of = SCHEMAS[kind].field(name).type if name in SCHEMAS[kind].names else pa.null()
                missing = pa.nulls(part.rows if kind == "sessions" else part.objects, kind_of)
                table = table.append_column(name, missing)
        return table if columns is None else table.select(list(columns))

    def _checked(self, kind: Kind, table: pa.Table, part: str) -> pa.Table:
        """Return a table that any program may have written with columns in the types of the schema."""
        for place, name in enumerate(table.column_names):
            column = table[name]
            if name in _KEYS[kind] and column.null_count:
                raise self._unlike(kind, f"Rows have no {name}.", part)
            own, wanted = without_dictionaries(column.type), _type_of(kind, name, column.type)
            if own == wanted:
                continue
            try:
                if pa.types.is_string(wanted) != _is_text(own) and not pa.types.is_null(own):
                    raise pa.ArrowTypeError("not text")
                table = table.set_column(place, name, column.cast(wanted))
            except pa.ArrowException as error:
                what = f"The column {name} has the type {column.type}, not {wanted}."
                raise self._unlike(kind, what, part) from error
        return table

    def _unlike(self, kind: Kind, what: str, part: str) -> TableError:
        where = self.location_of(kind, part)
        return TableError(
            f"The table of {kind} {where} is not as nwbzarr catalog scan writes it. {what}",
            location=where,
            found=what,
            next_step="Make it again with: nwbzarr catalog scan.",
        )

    def _file(self, kind: Kind, part: str) -> pq.ParquetFile:
        where = self.location_of(kind, part)
        try:
            source: Any = (
                pa.PythonFile(StoredBytes(where), "r")
                if where.path is None
                else pa.memory_map(str(where.path))
            )
            about = pq.read_metadata(source)
            stored = {about.schema.column(number).path for number in range(about.num_columns)}
            # Texts that repeat are read as dictionaries, so that a condition is tried once for each text.
            return pq.ParquetFile(
                source,
                metadata=about,
                read_dictionary=[name for name in _REPEATED[kind] if name in stored],
                pre_buffer=True,
            )
        except FileNotFoundError as error:
            make = f"nwbzarr catalog scan PREFIX -o {self.place}"
            raise LocationNotFoundError(
                f"The table {where} does not exist.",
                location=where,
                next_step=f"Make it with: {make}"
                if kind == "sessions"
                else self._pass_the_folder
                or f"Restore it beside the table of sessions. Without it, delete that one as well, and "
                f"scan everything again that was in it: {make}",
            ) from error
        except PermissionError as error:
            raise AccessError(
                f"The table {where} cannot be read: access was denied.", location=where
            ) from error
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, TransportError):
                raise
            raise self._damaged(kind, error, part) from error

    def _about(self, kind: Kind, file: pq.ParquetFile, part: str = "") -> dict[str, Any]:
        about: Any = None
        with suppress(ValueError, RecursionError):
            about = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"null"))
        if (
            not isinstance(about, dict)
            or about.get("format") != f"nwbzarr-{kind}"
            or not isinstance(about.get("scan"), str)
        ):
            where = self.location_of(kind, part)
            advice = "Pass a table that nwbzarr catalog scan has written."
            if kind == "sessions" and isinstance(about, dict) and about.get("format") == "nwbzarr-objects":
                sessions = f"{where.url.removesuffix(_ENDING).removesuffix('.objects')}{_ENDING}"
                advice = (
                    self._pass_the_folder or f"It is a table of objects: pass that of sessions, {sessions}"
                )
            raise TableError(
                f"{where} is a Parquet file, but not a table of {kind}.",
                location=where,
                found=sorted(file.schema_arrow.names)[:10],
                next_step=advice,
            )
        major = str(about.get("version", "")).partition(".")[0]
        if re.fullmatch("[0-9]{1,9}", major) is None or int(major) > MAJOR:
            raise TableError(
                f"The tables {self.place} have the format {about.get('version')!r:.40}; this release reads "
                f"up to {MAJOR}.",
                location=self.place,
                found=about.get("version"),
                expected=f"{MAJOR}.x",
                next_step="Update intake-nwbzarr.",
            )
        names = file.schema_arrow.names
        for name in (*_KEYS[kind], *names):
            if names.count(name) != 1:
                raise self._unlike(kind, f"It has {names.count(name) or 'no'} columns {name}.", part)
        return about

    def _damaged(self, kind: Kind, error: Exception, part: str = "") -> TableError:
        where = self.location_of(kind, part)
        return TableError(
            f"The table of {kind} {where} cannot be read as Parquet: {str(error).splitlines()[0]:.200}.",
            location=where,
            found=type(error).__name__,
            next_step="Make it again with: nwbzarr catalog scan.",
        )


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


def write_local(path: Path, data: bytes) -> None:
    """Write a local file aside and rename it, so that it is there whole or not at all."""
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write local files aside and rename them together, so that all are there whole or none is."""
    asides = {path: path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial") for path in files}
    path = next(iter(files))
    try:
        try:
            for path, data in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with asides[path].open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            for path, aside in asides.items():
                aside.replace(path)
        finally:
            for aside in asides.values():
                with suppress(OSError):
                    aside.unlink()
    except OSError as error:
        kind = AccessError if isinstance(error, PermissionError) else TransportError
        found = error.strerror or str(error)
        raise kind(f"{path} cannot be written: {found}.", location=path, found=found) from error


def table_of(kind: Kind, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows, whose missing values are null, as a table."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS[kind])


def conformed(kind: Kind, table: pa.Table) -> pa.Table:
    """Return a table with all columns in order, in their types; unknown columns follow them unchanged."""
    schema = SCHEMAS[kind]
    columns = [
        table[each.name].cast(each.type)
        if each.name in table.column_names
        else pa.nulls(len(table), each.type)
        for each in schema
    ]
    others = [name for name in table.column_names if name not in schema.names]
    fields = [*schema, *(table.schema.field(name) for name in others)]
    return pa.table([*columns, *(table[name] for name in others)], schema=pa.schema(fields))


def _plain(table: pa.Table) -> pa.Table:
    return table.cast(
        pa.schema([field.with_type(without_dictionaries(field.type)) for field in table.schema])
    )


def without_dictionaries(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same values, where they are not dictionary-encoded."""
    if pa.types.is_list(kind):
        return pa.list_(without_dictionaries(kind.value_type))
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _type_of(kind: Kind, name: str, stored: pa.DataType) -> pa.DataType:
    """Return the type in which a column is read."""
    return SCHEMAS[kind].field(name).type if name in SCHEMAS[kind].names else _plain_type(stored)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same values without dictionaries, views and 64-bit offsets."""
    types = pa.types
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return pa.list_(_plain_type(kind.value_type))
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    return pa.string() if _is_text(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _encoded(table: pa.Table, about: Mapping[str, str]) -> bytes:
    output = io.BytesIO()
    table = table.replace_schema_metadata({_KEY: json.dumps(about).encode()})
    pq.write_table(table, output, compression="zstd", row_group_size=_rows_in_group(table))
    return output.getvalue()


def _whole(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a file, all by default."""
    # Arrow does not read dictionary-encoded lists from several row groups at once.
    groups = [file.read_row_group(number, columns) for number in range(file.num_row_groups)]
    return pa.concat_tables(groups) if groups else file.read(columns)


def _rows_in_group(table: pa.Table) -> int:
    """Return the length of a row group: shorter with snapshots, of which single ones are read."""
    size = table["snapshot"].nbytes if "snapshot" in table.column_names else 0
    groups = max(1, min(size // _SNAPSHOTS_IN_GROUP, _MOST_GROUPS))
    return int(min(_ROWS_IN_GROUP, max(1, -(-len(table) // groups))))


def _any_snapshot(sessions: pa.Table) -> bool:
    return "snapshot" in sessions.column_names and sessions["snapshot"].null_count < len(sessions)


def _has_snapshots(file: pq.ParquetFile) -> bool:
    """Return whether the column of snapshots may have values, by the footer alone."""
    about = file.metadata
    names = [about.schema.column(number).path for number in range(about.num_columns)]
    if "snapshot" not in names:
        return False
    column = names.index("snapshot")
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    known = [(group.num_rows, group.column(column).statistics) for group in groups]
    return any(each is None or each.null_count is None or each.null_count < rows for rows, each in known)


def _more(names: Iterable[str], schema: pa.Schema) -> tuple[str, ...]:
    return tuple(name for name in names if name not in schema.names)


class StoredBytes(io.RawIOBase):
    """A stored object as a file, which pyarrow reads in ranges; another object of that key is an error."""

    def __init__(self, location: Location) -> None:
        super().__init__()
        self._location, self._transport = location, open_transport(location)
        # The footer, which is read first, is at the end; of a small object, the end is all of it.
        found = run(self._transport.get("", suffix=1 << 16, limit=LARGEST_TABLE))
        if found is None:
            raise FileNotFoundError(str(location))
        self._etag, self._size = found.etag, found.size or len(found.data)
        self._end = bytes(found.data)
        self._position = 0

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Read a range with one request, or none for the end of the object."""
        stop = self._size if size is None or size < 0 else min(self._size, self._position + size)
        start = self._position
        if stop <= start:
            return b""
        known = self._size - len(self._end)
        if start >= known:
            data = self._end[start - known : stop - known]
        else:
            try:
                found = run(self._transport.get("", start=start, stop=stop, etag=self._etag))
            except ObjectChangedError as error:
                raise TableError(
                    f"The table {self._location} was rewritten since it was opened.",
                    location=self._location,
                    next_step="Open it again.",
                    transient=True,
                ) from error
            data = b"" if found is None else bytes(found.data)
        self._position = start + len(data)
        return data
