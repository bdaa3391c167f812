"""The results of a map over sessions: `MapResult`, with one table of results and one of failures."""

from __future__ import annotations

import html
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Self

from intake_nwbzarr.arguments import invalid_argument, takes_storage_options
from intake_nwbzarr.errors import (
    LocationNotFoundError,
    NWBZarrError,
    OptionError,
    ResultError,
    TableError,
)
from intake_nwbzarr.location.location import Location, Place, locate
from intake_nwbzarr.sessions.provenance import Provenance
from intake_nwbzarr.sessions.tasks import file_name
from intake_nwbzarr.transport.request_log import counted
from intake_nwbzarr.untrusted_input import LARGEST_TABLE

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import xarray as xr

    from intake_nwbzarr.sessions.results import Layout

RESULTS: Final = "results"
PROVENANCE: Final = "provenance.json"
SESSIONS: Final = "sessions.parquet"
_FAILURE: Final = ("session", "error", "message", "transient", "attempts", "seconds", "traceback")
_OWN: Final = ("subject_id", "species", "session_id")
# Files that are read at once.
_BATCH: Final = 1000


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


@dataclass(frozen=True, eq=False)
class MapResult:
    """The results of a function for many sessions, and why others have none.

    `SessionCatalog.map` returns it, and `MapResult.load` reads it from the folder of the results later.

    Parameters
    ----------
    table
        How the work on each session ended, in the order of the search: `Ended` says what its columns are.
    provenance
        How the results came about: name, function, tables, versions, when, and counts.
    place
        The folder with this map's files, None where results are in memory.
    files
        Results in memory, by key.
    """

    table: pa.Table = field(repr=False)
    provenance: Provenance
    place: Location | None = None
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    @takes_storage_options
    def load(
        cls,
        folder: Place,
        storage_options: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> Self:
        """Read the results of an earlier map.

        Parameters
        ----------
        folder
            The folder that was passed to map, or in it that of the map's name, or the results in there.
        storage_options
            Credentials and other options for the folder.
        name
            The name that was passed to map; needed where the folder has results of several.

        Raises
        ------
        LocationNotFoundError
            When the folder has no results.
        TableError
            When they are damaged, or of a map that was killed before it could note what it had done. Run
            that map again with the same folder and name: it resumes.
        """
        place = _place_of(locate(folder, storage_options), name)
        data, about = (_read(place, each) for each in (SESSIONS, PROVENANCE))
        if data is None and about is None:
            raise _no_results(place)
        if data is None or about is None:
            raise TableError(
                f"The map whose results are in {place} was interrupted before its summary was written.",
                location=place,
                found=PROVENANCE if about is not None else None,
                expected=SESSIONS,
                next_step="Run it again with the same folder and name: it resumes.",
            )
        try:
            return cls(_decoded(data), Provenance.decode(about), place)
        except (ValueError, TypeError, KeyError) as error:
            raise TableError(
                f"The results in {place} cannot be read: {error!s:.200}.", location=place, next_step=_ANEW
            ) from error

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Return all results as one DataFrame, read when it is first used.

        Returns
        -------
        pandas.DataFrame
            Indexed by session (its location) and by the results' own index or dimensions; with columns
            ``subject_id``, ``species`` and ``session_id``, and those that the function returned.

        Raises
        ------
        ResultError
            When sessions returned different columns, which have no common table.
        """
        from intake_nwbzarr.sessions.results import rows_of

        return rows_of((layout, table) for _, layout, table in self._results())

    @cached_property
    def failures(self) -> pd.DataFrame:
        """Return why sessions have no result.

        Returns
        -------
        pandas.DataFrame
            With the columns ``session``, ``error`` (the class), ``message``, ``transient`` (whether trying
            again may help), ``attempts``, ``seconds`` (of the last attempt) and ``traceback``.
        """
        failed: pd.DataFrame = self._of("failed").select(list(_FAILURE)).to_pandas()
        return failed.astype({"transient": bool, "attempts": int})

    @property
    def ended(self) -> tuple[Ended, ...]:
        """Return how the work on each session ended, in the order of the search."""
        return tuple(Ended(**row) for row in self.table.to_pylist())

    @property
    def sessions(self) -> list[str]:
        """Return the locations of the sessions that have a result."""
        return self._of("done")["session"].to_pylist()  # type: ignore[no-any-return]

    @property
    def cancelled(self) -> list[str]:
        """Return the locations of the sessions that were cancelled, and have neither result nor failure."""
        return self._of("cancelled")["session"].to_pylist()  # type: ignore[no-any-return]

    def _of(self, state: str) -> pa.Table:
        import pyarrow.compute as pc

        return self.table.filter(pc.equal(self.table["state"], state))

    @property
    def folder(self) -> str | None:
        """Return the folder that was passed to map, None where results are in memory."""
        if self.place is None:
            return None
        folder = _parent(self.place)
        return str(folder.path or folder)

    def result(self, session: str) -> Any:
        """Return the result of one session as the function returned it.

        Parameters
        ----------
        session
            Its location, as `sessions` has it.
        """
        import pyarrow.compute as pc

        from intake_nwbzarr.sessions.results import restore

        if not isinstance(session, str):
            raise invalid_argument("session", session, "a location, such as those in .sessions")
        done = self._of("done")
        chosen = done.filter(pc.equal(done["session"], session))
        ended = self.table.filter(pc.equal(self.table["session"], session)).to_pylist()
        if ended and not len(chosen):
            why = f": {ended[0]['error']}: {ended[0]['message']}" if ended[0]["error"] else ""
            raise OptionError(
                f"{session!r} {'was cancelled' if not why else 'failed'}{why}",
                found=session,
                next_step="(See .failures.)" if why else "Run the same map again.",
            )
        if not len(chosen):
            raise OptionError(
                f"There is no result for {session!r}.",
                found=session,
                next_step="The locations are in .sessions.",
            )
        _, layout, table = next(self._results(chosen))
        return restore(layout, table)

    def to_xarray(self, dim: str = "session") -> xr.Dataset:
        """Return all results as one Dataset, if the function returned DataArrays, Datasets or numbers.

        Parameters
        ----------
        dim
            ``"session"``, a new dimension; or one that all results have, such as ``"unit"``, along which they
            are put one after the other, with a coordinate ``session``.

        Raises
        ------
        ResultError
            When other dimensions or coordinates differ, which would leave gaps; or for pandas objects.
        """
        from intake_nwbzarr.sessions.results import concatenate

        if len(self.table) and not self.sessions:
            raise ResultError("No session has a result to combine.", found=0, next_step="See .failures.")
        results = self._results()
        return concatenate(
            ((each.session, each.labels, layout, table) for each, layout, table in results), dim
        )

    def _results(self, chosen: pa.Table | None = None) -> Iterator[tuple[Ended, Layout, pa.Table]]:
        from intake_nwbzarr.sessions.results import UNREADABLE, decode

        done = self._of("done") if chosen is None else chosen
        for start in range(0, len(done), _BATCH):
            batch = [Ended(**row) for row in done.slice(start, _BATCH).to_pylist()]
            for each, data in zip(batch, self._data(batch), strict=True):
                if data is None:
                    raise self._unreadable(each, "is missing", _ANEW)
                try:
                    layout, table = decode(data)
                except UNREADABLE as error:
                    delete = "Delete its file, and run the same map again: it resumes."
                    raise self._unreadable(each, "is damaged", delete) from error
                if layout.key != each.key:
                    anew = "Run the map again with resume=False."
                    raise self._unreadable(each, "was replaced by another map of the same name", anew)
                yield each, layout, table

    def _data(self, batch: Sequence[Ended]) -> list[bytes | None]:
        if self.place is None:
            return [self.files.get(each.key) for each in batch]
        return _read_many(results_folder(self.place), [file_name(each.session) for each in batch])

    def _unreadable(self, each: Ended, why: str, next_step: str) -> TableError:
        file = file_name(each.session)
        where = "memory" if self.place is None else f"{results_folder(self.place)}/{file}"
        return TableError(
            f"The result of {each.session} in {where} {why}.",
            location=self.place,
            path=file,
            next_step=next_step,
        )

    def __repr__(self) -> str:
        return f"<MapResult {self._summary()}>"

    def _repr_html_(self) -> str:
        failures = self.failures
        table = failures.drop(columns="traceback").to_html(max_rows=10) if len(failures) else ""
        return f"<div>{html.escape(repr(self))}</div>{table}"

    def _summary(self) -> str:
        import pyarrow.compute as pc

        done, failed, cancelled = (self._of(state) for state in ("done", "failed", "cancelled"))
        again = pc.sum(failed["transient"]).as_py() or 0
        parts = [f"{len(done):,} of {counted(len(self.table), 'session')}"]
        if kept := self.provenance.counts.get("kept", 0):
            parts[0] += f" ({kept:,} kept)"
        if len(failed):
            classes = Counter(failed["error"].to_pylist()).most_common(3)
            shown = ", ".join(f"{name} {count:,}" for name, count in classes)
            parts.append(f"{len(failed):,} failed: {shown}")
        if again:
            parts.append(f"{again:,} of these may succeed if run again")
        if len(cancelled):
            parts.append(f"{len(cancelled):,} cancelled")
        if self.provenance.status != "complete":
            parts.append(self.provenance.status)
        rows = pc.sum(done["rows"]).as_py() or 0
        return (
            f"{self.provenance.name}: {', '.join(parts)}; {counted(rows, 'row')} in {self.place or 'memory'}"
        )


_ANEW: Final = "Run the same map again with the same folder and name."


def results_place(folder: Location, name: str) -> Location:
    """Return the folder, in a user's folder, of the files of one map."""
    return replace(folder, url=f"{folder.url}/{name}")


def results_folder(place: Location) -> Location:
    """Return the folder of the results' own files."""
    return replace(place, url=f"{place.url}/{RESULTS}")


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


def _decoded(data: bytes) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    try:
        return pq.read_table(pa.BufferReader(data)).select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error


def _place_of(folder: Location, name: str | None) -> Location:
    """Return the folder of one map's files: in a user's folder, or that folder itself."""
    from intake_nwbzarr.transport.loop import run
    from intake_nwbzarr.transport.open import open_transport

    if name is not None:
        return results_place(folder, checked_name(name))
    try:
        listed = run(open_transport(folder).list_folder(""))
    except LocationNotFoundError as error:
        raise _no_results(folder) from error
    if PROVENANCE in listed.names:
        return folder
    if folder.url.endswith(f"/{RESULTS}") and _read(_parent(folder), PROVENANCE) is not None:
        return _parent(folder)
    # There may be others beside them.
    candidates = sorted(listed.folders)
    read = _read_many(folder, [f"{each}/{PROVENANCE}" for each in candidates])
    names = [each for each, data in zip(candidates, read, strict=True) if data is not None]
    if len(names) > 1:
        raise OptionError(
            f"{folder} has results of several maps: {', '.join(names[:5])}.",
            location=folder,
            found=names,
            next_step="Pass name=, one of them.",
        )
    if not names:
        raise _no_results(folder)
    return results_place(folder, names[0])


def _no_results(place: Location) -> LocationNotFoundError:
    return LocationNotFoundError(
        f"{place} has no results.", location=place, next_step="Pass the folder that was passed to map()."
    )


def _parent(place: Location) -> Location:
    return replace(place, url=place.url.rpartition("/")[0])


def checked_name(name: object) -> str:
    """Return a map's name, which is that of a folder."""
    import re

    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        return name
    shown = repr(name)[:60] if isinstance(name, str) else f"an object of type {type(name).__name__}"
    raise OptionError(
        f"name must be letters, digits, '.', '_' and '-', not {shown}.",
        found=shown,
        expected="a name such as 'tuning-1'",
        next_step="It names the results, and a folder for them.",
    )


def _read(place: Location, name: str) -> bytes | None:
    return _read_many(place, [name])[0]


def _read_many(place: Location, names: Sequence[str], end: int | None = None) -> list[bytes | None]:
    """Read files of a folder, or their last bytes; None for those that do not exist."""
    from intake_nwbzarr.transport.answers import Part
    from intake_nwbzarr.transport.loop import gather, run
    from intake_nwbzarr.transport.open import open_transport

    transport = open_transport(place)

    async def read(name: str) -> bytes | None:
        part = None if end is None else Part(suffix=end)
        found = await transport.fetch(name, part, LARGEST_TABLE)
        return None if found is None else bytes(found.data)

    return run(gather([partial(read, name) for name in names]))


def earlier_provenance(place: Location) -> Provenance | None:
    """Return the provenance that a folder of results has, None without one that can be read."""
    try:
        data = _read(place, PROVENANCE)
        return None if data is None else Provenance.decode(data)
    except (NWBZarrError, ValueError, json.JSONDecodeError):
        return None


class EarlierResults:
    """The results that a folder has already, by their keys, with what is known of each."""

    def __init__(self, table: pa.Table | None = None, found: Mapping[str, int] | None = None) -> None:
        self._table = table
        keys = [] if table is None else table["key"].to_pylist()
        self._rows = {key: row for row, key in enumerate(keys)}
        # Rows of those that no table has noted.
        self._found = dict(found or {})

    @classmethod
    def of(cls, place: Location, *, is_noted: bool) -> Self:
        """List the results in a folder; what ``sessions.parquet`` does not say is read from their files.

        `is_noted` is whether the map that stored them last has ended, and could write that table.

        Raises
        ------
        LocationNotFoundError
            When the folder has none.
        """
        from intake_nwbzarr.transport.loop import run
        from intake_nwbzarr.transport.open import open_transport

        names = set(run(open_transport(results_folder(place)).list_folder("")).names)
        table = _noted(place, names) if is_noted else None
        noted = set() if table is None else {file_name(each) for each in table["session"].to_pylist()}
        others = sorted(name for name in names - noted if name.endswith(".parquet"))
        return cls(table, _found(results_folder(place), others))

    def __bool__(self) -> bool:
        return bool(self._rows or self._found)

    def take(self, key: str) -> Ended | None:
        """Return what is known of a result, None where there is none."""
        if key in self._rows and self._table is not None:
            return Ended(**self._table.slice(self._rows[key], 1).to_pylist()[0])
        return Ended("", key, "done", self._found[key]) if key in self._found else None


def _noted(place: Location, names: set[str]) -> pa.Table | None:
    """Return the rows of ``sessions.parquet`` whose results are there, None where it cannot be read."""
    import pyarrow as pa

    try:
        data = _read(place, SESSIONS)
        if data is None:
            return None
        table = _decoded(data)
        states, sessions = table["state"].to_pylist(), table["session"].to_pylist()
        there = [
            state == "done" and file_name(session) in names
            for state, session in zip(states, sessions, strict=True)
        ]
        return table.filter(pa.array(there, pa.bool_()))
    except (NWBZarrError, ValueError, TypeError):
        return None


def _found(folder: Location, names: Sequence[str]) -> dict[str, int]:
    """Return the keys of results, and how many rows each has, from the ends of their files."""
    from intake_nwbzarr.sessions.results import UNREADABLE, summary

    found = {}
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        for data in _read_many(folder, batch, _END):
            with suppress(*UNREADABLE):
                key, rows = summary(data or b"")
                found[key] = rows
    return found


# Bytes at the end of a Parquet file, in which its metadata nearly always are.
_END: Final = 256 * 2**10
