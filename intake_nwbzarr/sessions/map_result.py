"""What became of mapped sessions: `MapResult`, with one table of results and one of failures."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Self

from intake_nwbzarr.arguments import takes_storage_options
from intake_nwbzarr.errors import (
    LocationNotFoundError,
    NWBZarrError,
    OptionError,
    TableError,
    did_you_mean,
)
from intake_nwbzarr.location.location import Location, Place, locate
from intake_nwbzarr.sessions.provenance import Provenance
from intake_nwbzarr.sessions.tasks import file_name
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
    # Of its result; the name of the file.
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
    ended
        What became of each session, in the order of the search.
    provenance
        How the results came about: name, function, tables, versions, when, and counts.
    place
        The folder with this map's files, None where results are in memory.
    files
        Results in memory, by key.
    """

    ended: tuple[Ended, ...]
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
            The folder that was passed to map.
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
        place = results_place(locate(folder, storage_options), _one_name(folder, storage_options, name))
        data, about = (_read(place, each) for each in (SESSIONS, PROVENANCE))
        if data is None or about is None:
            raise TableError(
                f"The map whose results are in {place} was ended before it noted what it had done.",
                location=place,
                found=PROVENANCE if about is not None else None,
                expected=SESSIONS,
                next_step="Run it again with the same folder and name: it resumes.",
            )
        try:
            return cls(tuple(_decoded(data)), Provenance.decode(about), place)
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
        import pandas as pd

        rows = [asdict(each) for each in self.ended if each.state == "failed"]
        return pd.DataFrame(rows, columns=list(_FAILURE))

    @property
    def sessions(self) -> list[str]:
        """Return the locations of the sessions that have a result."""
        return [each.session for each in self.ended if each.state == "done"]

    @property
    def cancelled(self) -> list[str]:
        """Return the locations of the sessions that were cancelled, and have neither result nor failure."""
        return [each.session for each in self.ended if each.state == "cancelled"]

    @property
    def folder(self) -> str | None:
        """Return where the results' files are, None where they are in memory."""
        return None if self.place is None else f"{self.place}/{RESULTS}"

    def result(self, session: str) -> Any:
        """Return the result of one session as the function returned it.

        Parameters
        ----------
        session
            Its location, as `sessions` has it.
        """
        from intake_nwbzarr.sessions.results import restore

        chosen = [each for each in self.ended if each.session == session and each.state == "done"]
        if not chosen:
            raise OptionError(
                f"There is no result for {session!r}.",
                found=session,
                next_step=did_you_mean(session, self.sessions) or "See .failures.",
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

        results = self._results()
        return concatenate(
            ((each.session, each.labels, layout, table) for each, layout, table in results), dim
        )

    def _results(self, chosen: Sequence[Ended] | None = None) -> Iterator[tuple[Ended, Layout, pa.Table]]:
        from intake_nwbzarr.sessions.results import decode

        done = [each for each in (chosen or self.ended) if each.state == "done"]
        for start in range(0, len(done), _BATCH):
            batch = done[start : start + _BATCH]
            for each, data in zip(batch, self._data([each.key for each in batch]), strict=True):
                if data is None:
                    raise TableError(
                        f"The result of {each.session} in {self.folder} is missing.",
                        location=self.folder,
                        path=file_name(each.key),
                        next_step=_ANEW,
                    )
                try:
                    layout, table = decode(data)
                except (ValueError, KeyError, TypeError, OSError) as error:
                    raise TableError(
                        f"The result of {each.session} in {self.folder} is damaged.",
                        location=self.folder,
                        path=file_name(each.key),
                        next_step="Delete its file, and run the same map again: it resumes.",
                    ) from error
                yield each, layout, table

    def _data(self, keys: Sequence[str]) -> list[bytes | None]:
        if self.place is None:
            return [self.files.get(key) for key in keys]
        return _read_many(results_folder(self.place), [file_name(key) for key in keys])

    def __repr__(self) -> str:
        return f"<MapResult {self._summary()}>"

    def _repr_html_(self) -> str:
        failures = self.failures
        table = failures.drop(columns="traceback").to_html(max_rows=10) if len(failures) else ""
        return f"<div>{html.escape(repr(self))}</div>{table}"

    def _summary(self) -> str:
        states = [each.state for each in self.ended]
        failed = [each for each in self.ended if each.state == "failed"]
        again = sum(bool(each.transient) for each in failed)
        parts = [f"{states.count('done'):,} of {len(states):,} sessions"]
        if failed:
            parts.append(f"{len(failed):,} failed")
        if again:
            parts.append(f"{again:,} of these may succeed if run again")
        if "cancelled" in states:
            parts.append(f"{states.count('cancelled'):,} cancelled")
        if self.provenance.status != "complete":
            parts.append(self.provenance.status)
        rows = sum(each.rows for each in self.ended)
        return f"{self.provenance.name}: {', '.join(parts)}; {rows:,} rows in {self.folder or 'memory'}"


_ANEW: Final = "Run the same map again with the same folder and name."


def results_place(folder: Location, name: str) -> Location:
    """Return the folder, in a user's folder, of the files of one map."""
    return replace(folder, url=f"{folder.url}/{name}")


def results_folder(place: Location) -> Location:
    """Return the folder of the results' own files."""
    return replace(place, url=f"{place.url}/{RESULTS}")


def encoded(ended: Sequence[Ended]) -> bytes:
    """Return what became of sessions as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "rows": pa.int64(),
        "transient": pa.bool_(),
        "attempts": pa.int32(),
        "seconds": pa.float64(),
        "requests": pa.int64(),
        "received": pa.int64(),
    }
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in Ended.__dataclass_fields__])
    columns = {name: [getattr(each, name) for each in ended] for name in schema.names}
    output = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), output, compression="zstd")
    return output.getvalue()


def _decoded(data: bytes) -> Iterator[Ended]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(pa.BufferReader(data), columns=list(Ended.__dataclass_fields__)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    return (Ended(**row) for row in rows)


def _one_name(folder: Place, storage_options: Mapping[str, Any] | None, name: str | None) -> str:
    """Return the name of the map whose results a folder has."""
    from intake_nwbzarr.transport.loop import run
    from intake_nwbzarr.transport.open import open_transport

    if name is not None:
        return checked_name(name)
    place = locate(folder, storage_options)
    try:
        names = sorted(run(open_transport(place).list_folder("")).folders)
    except LocationNotFoundError:
        names = []
    if len(names) == 1:
        return names[0]
    if not names:
        raise LocationNotFoundError(
            f"{place} has no results.", location=place, next_step="Pass the folder that was passed to map()."
        )
    raise OptionError(
        f"{place} has results of several maps: {', '.join(names[:5])}.",
        location=place,
        found=names,
        next_step="Pass name=, one of them.",
    )


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


def _read_many(place: Location, names: Sequence[str]) -> list[bytes | None]:
    """Read files of a folder; None for those that do not exist."""
    from intake_nwbzarr.transport.loop import gather, run
    from intake_nwbzarr.transport.open import open_transport

    transport = open_transport(place)

    async def read(name: str) -> bytes | None:
        found = await transport.fetch(name, None, LARGEST_TABLE)
        return None if found is None else bytes(found.data)

    return run(gather([partial(read, name) for name in names]))


def earlier_provenance(place: Location) -> Provenance | None:
    """Return the provenance that a folder of results has, None without one that can be read."""
    try:
        data = _read(place, PROVENANCE)
        return None if data is None else Provenance.decode(data)
    except (NWBZarrError, ValueError, json.JSONDecodeError):
        return None


def earlier_sessions(place: Location) -> list[Ended]:
    """Return what an earlier map noted of its sessions, as far as that can be read."""
    try:
        data = _read(place, SESSIONS)
        return [] if data is None else list(_decoded(data))
    except (NWBZarrError, ValueError, TypeError):
        return []
