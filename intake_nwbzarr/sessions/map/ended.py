"""How the work on each session of a map ended: the rows of ``sessions.parquet``."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa

# Rows that are packed at once.
_BATCH: Final = 1000
_OWN: Final = ("subject_id", "species", "session_id")


@dataclass(frozen=True, slots=True)
class Ended:
    """How the work on one session ended: a row of ``sessions.parquet``."""

    session: str
    # Of its result, see `result_key`.
    key: str
    # "done", "failed" or "cancelled".
    state: str
    # Rows of its result; none where the function returned None.
    rows: int = 0
    error: str | None = None
    message: str | None = None
    transient: bool | None = None
    attempts: int = 0
    seconds: float = 0.0
    requests: int = 0
    received: int = 0
    traceback: str | None = None
    subject_id: str | None = None
    species: str | None = None
    session_id: str | None = None

    @property
    def labels(self) -> dict[str, str | None]:
        """Return whose session it is."""
        return {name: getattr(self, name) for name in _OWN}


@dataclass
class EndedRows:
    """Collects how the work on sessions ended, in little memory: of most, a row of a table."""

    _new: list[tuple[int, Ended]] = field(default_factory=list)
    _tables: list[pa.Table] = field(default_factory=list)

    def add(self, number: int, ended: Ended) -> None:
        """Add how the work on the session of a number in the search ended."""
        self._new.append((number, ended))
        if len(self._new) >= _BATCH:
            self._tables.append(self._packed())

    def table(self) -> pa.Table:
        """Return a row for each session, in the order of the search."""
        import pyarrow as pa

        tables = [*self._tables, self._packed()]
        return pa.concat_tables(tables).sort_by(_NUMBER).drop_columns([_NUMBER])

    def _packed(self) -> pa.Table:
        import pyarrow as pa

        rows, self._new = self._new, []
        columns = {name: [getattr(ended, name) for _, ended in rows] for name in Ended.__dataclass_fields__}
        table = pa.table(columns, schema=_schema())
        return table.append_column(_NUMBER, pa.array([number for number, _ in rows], pa.int64()))


_NUMBER: Final = "number"


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "rows": pa.int64(),
        "transient": pa.bool_(),
        "attempts": pa.int32(),
        "seconds": pa.float64(),
        "requests": pa.int64(),
        "received": pa.int64(),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in Ended.__dataclass_fields__])


def encoded(table: pa.Table) -> bytes:
    """Return the rows of sessions as a Parquet file."""
    import pyarrow.parquet as pq

    output = io.BytesIO()
    pq.write_table(table, output, compression="zstd")
    return output.getvalue()


def decoded(data: bytes) -> pa.Table:
    """Return the rows in a Parquet file; raise ValueError for any other file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    try:
        return pq.read_table(pa.BufferReader(data)).select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error
