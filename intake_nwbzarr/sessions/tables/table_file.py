"""One Parquet file of a table of many sessions: opened, checked, read, and encoded."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from intake_nwbzarr import __version__
from intake_nwbzarr.errors import (
    AccessError,
    LocationNotFoundError,
    NWBZarrError,
    ObjectChangedError,
    TableError,
)
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.tables.table_schema import (
    KEYS,
    REPEATED,
    SCHEMAS,
    Kind,
    conformed,
    is_text,
    type_as_read,
    without_dictionaries,
)
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.ranged_file import RangedFile
from intake_nwbzarr.untrusted_input import LARGEST_TABLE

MAJOR: Final = 1
MINOR: Final = 1

_KEY: Final = b"nwbzarr"
_ROWS_IN_GROUP: Final = 250_000
# Bytes of the snapshots of one row group, and how many groups there are at most.
_SNAPSHOTS_IN_GROUP: Final = 2**22
_MOST_GROUPS: Final = 500


@dataclass(frozen=True)
class TableFile:
    """A Parquet file of a table, whose footer was read and checked."""

    kind: Kind
    where: Location
    parquet: pq.ParquetFile
    # Identifies the scan that wrote it, and is the same in both files of a part.
    scan: str
    # What was scanned.
    source: str

    @property
    def names(self) -> list[str]:
        """Return the names of its columns."""
        return list(self.parquet.schema_arrow.names)

    @property
    def more_columns(self) -> tuple[str, ...]:
        """Return the names of the columns that the schema does not have."""
        return tuple(name for name in self.names if name not in SCHEMAS[self.kind].names)

    @property
    def rows(self) -> int:
        """Return the number of its rows."""
        return int(self.parquet.metadata.num_rows)

    @property
    def groups(self) -> list[int]:
        """Return the number of rows of each row group."""
        about = self.parquet.metadata
        return [about.row_group(number).num_rows for number in range(about.num_row_groups)]

    @property
    def has_snapshots(self) -> bool:
        """Return whether the column of snapshots may have values, by the footer alone."""
        about = self.parquet.metadata
        names = [about.schema.column(number).path for number in range(about.num_columns)]
        if "snapshot" not in names:
            return False
        column = names.index("snapshot")
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        known = [(group.num_rows, group.column(column).statistics) for group in groups]
        return any(each is None or each.null_count is None or each.null_count < rows for rows, each in known)

    def read(self, columns: Sequence[str] | None = None, groups: Iterable[int] | None = None) -> pa.Table:
        """Read columns of row groups, all by default, in the types of the schema."""
        numbers = range(self.parquet.num_row_groups) if groups is None else groups
        with _as_parquet(self.kind, self.where):
            # Arrow does not read dictionary-encoded lists from several row groups at once.
            tables = [self.parquet.read_row_group(number, columns) for number in numbers]
            table = pa.concat_tables(tables) if tables else self.parquet.read(columns)
        return self._checked(table)

    def _checked(self, table: pa.Table) -> pa.Table:
        """Return a table that any program may have written with columns in the types of the schema."""
        for place, name in enumerate(table.column_names):
            column = table[name]
            if name in KEYS[self.kind] and column.null_count:
                raise _unlike(self.kind, self.where, f"Rows have no {name}.")
            own, wanted = without_dictionaries(column.type), type_as_read(self.kind, name, column.type)
            if own == wanted:
                continue
            try:
                if pa.types.is_string(wanted) != is_text(own) and not pa.types.is_null(own):
                    raise pa.ArrowTypeError("not text")
                table = table.set_column(place, name, column.cast(wanted))
            except pa.ArrowException as error:
                what = f"The column {name} has the type {column.type}, not {wanted}."
                raise _unlike(self.kind, self.where, what) from error
        return table


def open_table(kind: Kind, where: Location, tables: Location) -> TableFile:
    """Open a file of the tables at a location, which is the one that a scan writes."""
    try:
        with _as_parquet(kind, where):
            parquet = _parquet_file(kind, where)
    except FileNotFoundError as error:
        make = f"nwbzarr catalog scan PREFIX -o {tables}"
        raise LocationNotFoundError(
            f"The table {where} does not exist.",
            location=where,
            next_step=f"Make it with: {make}"
            if kind == "sessions"
            else folder_to_pass(tables)
            or f"Restore it beside the table of sessions. Without it, delete that one as well, and "
            f"scan everything again that was in it: {make}",
        ) from error
    except PermissionError as error:
        raise AccessError(f"The table {where} cannot be read: access was denied.", location=where) from error
    names = parquet.schema_arrow.names
    about: Any = None
    with suppress(ValueError, RecursionError):
        about = json.loads((parquet.schema_arrow.metadata or {}).get(_KEY, b"null"))
    if (
        not isinstance(about, dict)
        or about.get("format") != f"nwbzarr-{kind}"
        or not isinstance(about.get("scan"), str)
    ):
        advice = "Pass a table that nwbzarr catalog scan has written."
        if kind == "sessions" and isinstance(about, dict) and about.get("format") == "nwbzarr-objects":
            sessions = f"{where.url.removesuffix('.parquet').removesuffix('.objects')}.parquet"
            advice = folder_to_pass(tables) or f"It is a table of objects: pass that of sessions, {sessions}"
        raise TableError(
            f"{where} is a Parquet file, but not a table of {kind}.",
            location=where,
            found=sorted(names)[:10],
            next_step=advice,
        )
    major = str(about.get("version", "")).partition(".")[0]
    if re.fullmatch("[0-9]{1,9}", major) is None or int(major) > MAJOR:
        raise TableError(
            f"The tables {tables} have the format {about.get('version')!r:.40}; this release reads "
            f"up to {MAJOR}.",
            location=tables,
            found=about.get("version"),
            expected=f"{MAJOR}.x",
            next_step="Update intake-nwbzarr.",
        )
    for name in (*KEYS[kind], *names):
        if names.count(name) != 1:
            raise _unlike(kind, where, f"It has {names.count(name) or 'no'} columns {name}.")
    return TableFile(kind, where, parquet, about["scan"], str(about.get("source")))


def folder_to_pass(tables: Location) -> str | None:
    """Return the advice to pass a folder of tables, None if the location is not in one."""
    above = tables.url.split("/")[: -1 if tables.url.endswith(".parquet") else None]
    if above[-1] not in SCHEMAS:
        return None
    return f"Of a folder of tables, pass the folder itself: {'/'.join(above[:-1])}."


def _parquet_file(kind: Kind, where: Location) -> pq.ParquetFile:
    source: Any = pa.PythonFile(_stored(where), "r") if where.path is None else pa.memory_map(str(where.path))
    about = pq.read_metadata(source)
    stored = {about.schema.column(number).path for number in range(about.num_columns)}
    # Texts that repeat are read as dictionaries, so that a condition is tried once for each text.
    repeated = [name for name in REPEATED[kind] if name in stored]
    return pq.ParquetFile(source, metadata=about, read_dictionary=repeated, pre_buffer=True)


def _stored(where: Location) -> RangedFile:
    transport = open_transport(where)
    # The footer, which is read first, is at the end; of a small object, the end is all of it.
    found = run(transport.get("", suffix=1 << 16, limit=LARGEST_TABLE))
    if found is None:
        raise FileNotFoundError(str(where))
    return RangedFile(transport, "", found.size or len(found.data), found.etag, bytes(found.data))


@contextmanager
def _as_parquet(kind: Kind, where: Location) -> Iterator[None]:
    """Raise the errors of Arrow, and those of a disk, as an error that names the table."""
    try:
        yield
    except ObjectChangedError as error:
        raise TableError(
            f"The table {where} was rewritten since it was opened.",
            location=where,
            next_step="Open it again.",
            transient=True,
        ) from error
    except (NWBZarrError, FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            f"The table of {kind} {where} cannot be read as Parquet: {str(error).splitlines()[0]:.200}.",
            location=where,
            found=type(error).__name__,
            next_step="Make it again with: nwbzarr catalog scan.",
        ) from error


def _unlike(kind: Kind, where: Location, what: str) -> TableError:
    return TableError(
        f"The table of {kind} {where} is not as nwbzarr catalog scan writes it. {what}",
        location=where,
        found=what,
        next_step="Make it again with: nwbzarr catalog scan.",
    )


def encoded(kind: Kind, table: pa.Table, scan: str, source: str) -> bytes:
    """Return a table as the bytes of a Parquet file, with all columns of the schema."""
    about = {
        "format": f"nwbzarr-{kind}",
        "version": f"{MAJOR}.{MINOR}",
        "scan": scan,
        "source": source,
        "written_by": f"intake-nwbzarr {__version__}",
    }
    output = io.BytesIO()
    table = conformed(kind, table).replace_schema_metadata({_KEY: json.dumps(about).encode()})
    pq.write_table(table, output, compression="zstd", row_group_size=_rows_in_group(table))
    return output.getvalue()


def _rows_in_group(table: pa.Table) -> int:
    """Return the length of a row group: shorter with snapshots, which are read one at a time."""
    size = table["snapshot"].nbytes if "snapshot" in table.column_names else 0
    groups = max(1, min(size // _SNAPSHOTS_IN_GROUP, _MOST_GROUPS))
    return int(min(_ROWS_IN_GROUP, max(1, -(-len(table) // groups))))
