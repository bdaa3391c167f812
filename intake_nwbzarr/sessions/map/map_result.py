"""The results of a map over sessions: `MapResult`, with one table of results and one of failures."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

from intake_nwbzarr.arguments import invalid_argument, takes_storage_options
from intake_nwbzarr.errors import (
    LocationNotFoundError,
    OptionError,
    ResultError,
    TableError,
)
from intake_nwbzarr.location.location import Location, Place, locate
from intake_nwbzarr.sessions.map.ended import Ended, decoded
from intake_nwbzarr.sessions.map.provenance import Provenance
from intake_nwbzarr.sessions.map.result_files import (
    BATCH,
    PROVENANCE,
    RESULTS,
    SESSIONS,
    checked_name,
    read,
    read_many,
    results_folder,
    results_place,
)
from intake_nwbzarr.sessions.map.tasks import file_name
from intake_nwbzarr.transport.request_log import counted

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import xarray as xr

    from intake_nwbzarr.sessions.map.results import Layout

_FAILURE: Final = ("session", "error", "message", "transient", "attempts", "seconds", "traceback")


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
        data, about = (read(place, each) for each in (SESSIONS, PROVENANCE))
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
            return cls(decoded(data), Provenance.decode(about), place)
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
        from intake_nwbzarr.sessions.map.combined_results import rows_of

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

        from intake_nwbzarr.sessions.map.results import restore

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
        from intake_nwbzarr.sessions.map.combined_results import concatenate

        if len(self.table) and not self.sessions:
            raise ResultError("No session has a result to combine.", found=0, next_step="See .failures.")
        results = self._results()
        return concatenate(
            ((each.session, each.labels, layout, table) for each, layout, table in results), dim
        )

    def _results(self, chosen: pa.Table | None = None) -> Iterator[tuple[Ended, Layout, pa.Table]]:
        from intake_nwbzarr.sessions.map.results import NOT_A_RESULT, decode

        done = self._of("done") if chosen is None else chosen
        for start in range(0, len(done), BATCH):
            batch = [Ended(**row) for row in done.slice(start, BATCH).to_pylist()]
            for each, data in zip(batch, self._data(batch), strict=True):
                if data is None:
                    raise self._unreadable(each, "is missing", _ANEW)
                try:
                    layout, table = decode(data)
                except NOT_A_RESULT as error:
                    delete = "Delete its file, and run the same map again: it resumes."
                    raise self._unreadable(each, "is damaged", delete) from error
                if layout.key != each.key:
                    anew = "Run the map again with resume=False."
                    raise self._unreadable(each, "was replaced by another map of the same name", anew)
                yield each, layout, table

    def _data(self, batch: Sequence[Ended]) -> list[bytes | None]:
        if self.place is None:
            return [self.files.get(each.key) for each in batch]
        return read_many(results_folder(self.place), [file_name(each.session) for each in batch])

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
    if folder.url.endswith(f"/{RESULTS}") and read(_parent(folder), PROVENANCE) is not None:
        return _parent(folder)
    # There may be others beside them.
    candidates = sorted(listed.folders)
    found = read_many(folder, [f"{each}/{PROVENANCE}" for each in candidates])
    names = [each for each, data in zip(candidates, found, strict=True) if data is not None]
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
