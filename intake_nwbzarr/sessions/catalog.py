"""The catalog of many sessions that users search, open and map; the Intake 1 driver ``nwbzarr_sessions``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

import numpy as np
import pyarrow as pa
from intake.source.base import DataSource

from intake_nwbzarr.arguments import (
    check_bool,
    check_choice,
    describe_value,
    invalid_argument,
    local_path,
)
from intake_nwbzarr.copies.local_files import write_local
from intake_nwbzarr.errors import (
    NWBZarrError,
    OptionError,
)
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.sessions.frames import chosen_rows, frame_of, objects_frame
from intake_nwbzarr.sessions.intake_catalog import TablesCatalog
from intake_nwbzarr.sessions.overview import plain_catalog
from intake_nwbzarr.sessions.search import Found, Rows, distinct
from intake_nwbzarr.sessions.selected import Give, Selected, open_selected
from intake_nwbzarr.sessions.session_table import check_columns, of_table, read_table, wanted_rows

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

    from intake_nwbzarr.location.location import Place
    from intake_nwbzarr.pages.index import PageIndex
    from intake_nwbzarr.pages.page import Page
    from intake_nwbzarr.sessions.map.estimate import Estimate
    from intake_nwbzarr.sessions.map.map_result import MapResult

# How many sessions are looked up at a time when iterating over all of them.
_AT_ONCE: Final = 2000


class SessionCatalog(TablesCatalog):
    """Sessions in the tables that ``nwbzarr catalog scan`` writes: all of them, or those that a search found.

    A mapping from locations to sources of the driver ``nwbzarr``. The tables are opened on first use, and
    only the columns that are needed are read.

    Parameters
    ----------
    urlpath
        The tables: ``NAME.parquet``, or a folder of parts; a local path, or a URL.
    storage_options
        By the names in the column ``storage``: ``{"public": {"anon": True}, "lab": {"profile": "lab"}}``,
        each with storage options of `intake_nwbzarr.location.location.locate`, and optionally ``prefix``, a
        URL or a list of URLs that it is used for and no other. Or plain storage options for all sessions.
    table_options
        Storage options of the tables themselves. By default, those of the entry whose prefix they are in, or
        plain `storage_options`.
    search
        Conditions of a search, as for `search`, or a list of these: for catalog files.
    name, description, metadata
        Of the catalog entry.
    **keywords
        Keywords of the sources: ``chunks``, ``names``, ``dtype``, ...

    Examples
    --------
    >>> import intake
    >>> options = {"lab": {"profile": "lab", "prefix": "s3://lab"}}
    >>> lab = intake.open_nwbzarr_sessions("s3://lab/sessions", options)
    >>> mice = lab.search(species="mouse", units=Find("Units"))  # doctest: +SKIP
    """

    def search(self, /, *texts: Any, **conditions: Any) -> Self:
        """Return the sessions that meet all conditions, as a catalog.

        Sessions that could not be scanned are left out, unless there is a condition on ``error``.

        Parameters
        ----------
        **conditions
            By column of the table ``sessions``:

            - a value: equal to it. A text with ``*``, ``?`` or ``[...]`` is a pattern, which ignores case. A
              date such as ``"2024-05"`` is all times in it.
            - a list of values: one of them.
            - ``(low, high)``: of numbers and times, from low to high, both included; None leaves an end
              open. In YAML, ``{range: [low, high]}``.
            - None: no value.
            - a `Find`: an object of the session meets all conditions in it. The keyword names the objects
              that are found. In YAML, ``{find: Units}`` or ``{find: {type: TimeSeries, name: "*speed*"}}``.

            In a column of lists, one element has to meet the condition. ``species`` and ``sex`` find all
            spellings: ``species="mouse"`` also finds ``Mus musculus``.

        Returns
        -------
        SessionCatalog

        Raises
        ------
        OptionError
            When there is no such column, or a condition is not valid for it.

        Warns
        -----
        SessionsWarning
            When nothing is found, and no session or object in the tables has one of the values, such as a
            misspelled one.

        Examples
        --------
        >>> lab.search(species="mouse", age_days=(60, None), speed=Find("TimeSeries", name="*speed*"))
        ... # doctest: +SKIP
        """
        if texts:
            raise OptionError(
                f"search() takes conditions by column, not {describe_value(texts[0])}.",
                found=describe_value(texts[0]),
                next_step="Pass keywords, such as search(species='mouse').",
            )
        return self._searched(conditions)

    def filter(self, chosen: Any) -> Self:
        """Return those sessions that a frame or list names, such as the result of a query in SQL.

        Parameters
        ----------
        chosen
            A pandas or polars DataFrame, a pyarrow Table, a DuckDB relation or the like with the column
            ``location``, or ``session`` as in what `table` and `map` return; with ``path`` as well, these
            objects are found, under the names in the column ``find``, or ``"found"``: of several names, a
            session must have an object of each. Or an iterable of locations. Or a boolean Series of pandas
            that is indexed by location, such as ``catalog.df["unit_count"] > 10``. Or, as for other Intake
            catalogs, a function of an entry.

        Raises
        ------
        SessionNotFoundError
            When a location is not in the tables.
        """
        if callable(chosen) and not hasattr(chosen, "columns") and not isinstance(chosen, type | DataSource):
            chosen = [key for key, entry in self._entries.items() if chosen(entry)]
        return self._derived(chosen_rows(self._opened, self.selection, chosen))

    def sample(self, n: int, seed: int = 0) -> Self:
        """Return `n` of the sessions, or all if there are fewer, chosen at random but the same for a seed."""
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
            raise invalid_argument("n", n, "a number of sessions")
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise invalid_argument("seed", seed, "a whole number")
        rows = self.selection.rows
        taken = np.random.default_rng(seed).choice(rows, min(int(n), len(rows)), replace=False)
        mask = np.zeros(self.tables.rows("sessions"), np.bool_)
        mask[taken] = True
        return self._derived(self.selection.within(mask))

    def unique(self, column: str) -> list[Any]:
        """Return the distinct values of a column, sorted; of lists, their elements.

        A column that only the table ``objects`` has is looked up in the found objects, or in all objects of
        the sessions if none were searched for.
        """
        return distinct(self._opened, self.selection, column)

    @property
    def df(self) -> pd.DataFrame:
        """Return the table ``sessions`` of these sessions, indexed by location, without snapshots."""
        return frame_of(self._opened, self.selection.rows)

    @property
    def objects(self) -> pd.DataFrame:
        """Return the found objects, named in the column ``find``, or else all objects of the sessions."""
        return objects_frame(self._opened, self.selection)

    def open(self, key: str, give: Give = "objects") -> Any:
        """Open the found objects of one session, or all of it, as `map` does for its function.

        Parameters
        ----------
        key
            The session's location.
        give
            ``"objects"``, ``"dataset"``, ``"datatree"`` or ``"nwb"``, as for `map`.

        Returns
        -------
        dict, xarray.Dataset, xarray.DataTree or pynwb.NWBFile
            Of the objects, a dict by the names of the Finds: Datasets of lazy arrays without dask, or a dict
            of these by path where ``multiple="all"``.

        Raises
        ------
        SessionNotFoundError
            When the catalog has no such session.
        StaleTableError
            When the session has changed since it was scanned.
        OptionError
            When a Find has found several objects, and does not say which is meant; or when there is no Find.
        """
        check_choice("give", give, get_args(Give.__value__))
        row = self._row(key)
        if give == "objects" and not self.selection.found:
            raise OptionError(
                "These sessions were searched without a Find, so there are no found objects to open.",
                found=give,
                next_step="Search with a condition such as units=Find('Units'), or pass give='dataset' for "
                "the whole session; catalog[key].read() opens it as dask arrays.",
            )
        (selected,) = self._selected(np.array([row]))
        return open_selected(selected, give)

    def table(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        threads: int = 32,
    ) -> pd.DataFrame:
        """Read one table, such as the units, from all sessions concurrently.

        Parameters
        ----------
        table
            The name of a Find of the search, or else the path (``"intervals/trials"``) or name (``"trials"``)
            of a table. Sessions without it have no rows.
        columns
            Names of columns; only their chunks are read. All by default.
        where
            Conditions on columns, as for `search`: these columns are read first, and then the others for the
            rows that meet all conditions.
        threads
            How many sessions are read at a time.

        Returns
        -------
        pandas.DataFrame
            A row for each of the tables' rows, indexed by (session, id), with the columns ``subject_id``,
            ``species`` and ``session_id`` before those of the table. Cells are as in
            ``ds.nwb.to_dataframe()``: of ragged columns, arrays. ``frame.attrs`` has ``failures``, a dict for
            each session that could not be read, and ``missing``, the sessions that lack a column, by column;
            a `SessionsWarning` reports both.

        Raises
        ------
        NodeNotFoundError
            When no session has the table.
        OptionError
            When no session has a column, or a condition is not valid.
        NWBZarrError
            When no session could be read.
        """
        wanted = wanted_rows(columns, where)
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise invalid_argument("threads", threads, "a number of threads")
        name, selection = of_table(self._opened, self.selection, table)
        check_columns(self._opened, selection, wanted)
        return read_table(self._derived(selection).selected(), name, wanted, threads)

    def selected(self) -> Iterator[Selected]:
        """Yield each session as it is sent to a worker, using little memory."""
        rows = self.selection.rows
        for start in range(0, len(rows), _AT_ONCE):
            yield from self._selected(rows[start : start + _AT_ONCE])

    def map(
        self,
        function: Callable[..., Any],
        *,
        client: Client | None = None,
        name: str | None = None,
        folder: Place | None = None,
        storage_options: Mapping[str, Any] | None = None,
        give: Give = "objects",
        timeout: float | None = None,
        retries: int = 2,
        isolate: Literal["process"] | None = None,
        memory_limit: float | str | None = None,
        on_error: Literal["collect", "raise"] = "collect",
        resume: bool = True,
        window: int = 200,
        threads: int = 8,
        progress: bool | None = None,
        dry_run: bool = False,
    ) -> MapResult | Estimate:
        """Call a function with each session, on threads or the workers of a dask cluster.

        A session may run more than once, such as after an interruption; in a folder, exactly one result is
        kept for each session in its state, found objects, `name` and version of this package, and a map that
        is run again continues with the sessions that have none.

        Parameters
        ----------
        function
            Called with the Datasets of the found objects as keywords, named like the conditions of the
            search: ``function(units=..., speed=...)``. They are lazy, and read as NumPy arrays. It returns a
            number or text, a dict of these, a Series, DataFrame, DataArray or Dataset; or None.
        client
            Where it runs: the workers of a `distributed.Client`; None for threads of this process.
        name
            The name of the results, by which they are found again; by default, that of the function.
        folder
            A local folder or ``s3://`` location, which all workers can write, for the results. With None,
            they are returned, for small ones, and there is nothing to resume.
        storage_options
            Storage options of the folder; by default, of a folder on S3, the catalog's plain ones or those of
            the entry whose prefix it is below. Those of the sessions are the catalog's.
        give
            What the function is called with: ``"objects"``; or as its one argument the whole session,
            ``"dataset"`` (flat), ``"datatree"`` or ``"nwb"`` (a `pynwb.NWBFile`, closed afterwards).
        timeout
            Seconds for all requests to a session together; with `isolate`, for all that is done with it.
        retries
            How often a session is tried again if its failure may pass, such as status 503 or a timeout.
        isolate
            ``"process"``: each session in a process of its own, whose end ends nothing else, such as by
            `timeout`, `memory_limit`, or a crash.
        memory_limit
            Bytes that such a process may take: a number, or a string such as ``"4 GB"``.
        on_error
            ``"collect"``: failures are rows of `MapResult.failures`. ``"raise"``: the first one ends the map.
        resume
            Whether results that the folder has are kept; False begins anew.
        window
            How many sessions a cluster is sent at a time, if it has no more threads than half of these.
        threads
            Threads without a client. Workers have their own.
        progress
            Whether a progress bar is shown; by default, in a terminal, or a notebook with ipywidgets.
        dry_run
            Whether to estimate requests, bytes, time and cost from the tables, and send no request.

        Returns
        -------
        MapResult or Estimate
            The results as a table, and the failures as another; with `dry_run`, an estimate.

        Raises
        ------
        OptionError
            When an argument is not valid, or the function cannot be called with what was found.
        SessionFailedError
            When a session fails, with ``on_error="raise"``.
        ClusterError
            When the cluster is closed, or has no workers left.
        MapError
            When the function cannot be loaded on the workers.

        Examples
        --------
        >>> done = mice.map(tuning, client=client, name="tuning-1", folder="s3://me/tuning")
        ... # doctest: +SKIP
        >>> done.frame, done.failures  # doctest: +SKIP
        """
        from intake_nwbzarr.sessions.map.map import check_map, map_sessions

        if isinstance(folder, str) and folder.startswith("s3://") and storage_options is None:
            folder = self.storages.results(folder)
        settings: dict[str, Any] = {
            "client": client,
            "name": name,
            "folder": folder,
            "storage_options": storage_options,
            "give": give,
            "timeout": timeout,
            "retries": retries,
            "isolate": isolate,
            "memory_limit": memory_limit,
            "on_error": on_error,
            "resume": resume,
            "window": window,
            "threads": threads,
        }
        if check_bool("dry_run", dry_run):
            check_map(self.selected(), function, **settings)
            return self._estimate(give, folder)
        return map_sessions(
            self.selected(),
            function,
            tables=self.tables.digest,
            count=len(self),
            progress=progress,
            **settings,
        )

    def _estimate(self, give: Give, folder: Any) -> Estimate:
        from intake_nwbzarr.sessions.map.estimate import Estimate, load_of

        selection = self.selection
        if give == "objects" and selection.found:
            rows = np.concatenate([self._given(each) for each in selection.found])
        else:
            rows = np.flatnonzero(np.isin(self._opened.session_of_object, selection.rows))
        nbytes, chunks = (
            column.take(pa.array(rows)).to_pylist()
            for column in self._opened.get("objects", ["nbytes", "chunks"])
        )
        on_s3 = folder is not None and locate(folder).scheme == "s3"
        return Estimate(load_of(self.selected(), {"nbytes": nbytes, "chunks": chunks}), results_on_s3=on_s3)

    def _given(self, found: Found) -> Rows:
        """Return the found objects that a function is given: of several in a session, those of its Find."""
        if found.find.multiple != "first":
            return found.objects
        (paths,) = self._opened.get("objects", ["path"])
        order = np.argsort(np.array(paths.take(pa.array(found.objects)).to_pylist(), object), kind="stable")
        _, first = np.unique(found.sessions[order], return_index=True)
        return found.objects[order][first]

    def page(
        self, folder: str | os.PathLike[str], *, pictures: bool = True, progress: bool | None = None
    ) -> PageIndex:
        """Write a page of each session, and an index of them with small pictures; see `intake_nwbzarr.page`.

        Sessions are read one after the other, at most 20 MB of each. Those that cannot be read are listed in
        the index, with the reason.

        Parameters
        ----------
        folder
            A local folder for ``index.html`` and the pages; files of the same names are replaced.
        pictures
            Whether there are pictures; without them, nothing but metadata is read.
        progress
            Whether a progress bar is shown; by default, in a terminal, or a notebook with ipywidgets.

        Returns
        -------
        PageIndex
            The sessions with a page, and the failures.

        Raises
        ------
        OptionError
            When `folder` is not a local path.

        Examples
        --------
        >>> lab.search(species="mouse").page("pages")  # doctest: +SKIP
        """
        from intake_nwbzarr.pages.index import write_index
        from intake_nwbzarr.sessions.progress import shown_progress

        check_bool("pictures", pictures)
        target = local_path(folder, "The folder of the pages")
        with shown_progress(progress, len(self), "pages") as shown:
            made = ((each.key, partial(_write_page, each, pictures)) for each in self.selected())
            return write_index(target, made, shown.note)

    def to_yaml(self, path: Any = None) -> str:
        """Return the sessions as a plain Intake catalog, with the found objects as ``group``; never secrets.

        Parameters
        ----------
        path
            A local path that it is written to as well.
        """
        text = plain_catalog(self._opened, self.selection, self.selected())
        if path is not None:
            write_local(local_path(path, "The path of the catalog"), text.encode())
        return text

    serialize = to_yaml

    def _selected(self, rows: Rows) -> Iterator[Selected]:
        names = ["location", "storage", "source", "etag", "subject_id", "taxon", "species", "session_id"]
        columns = [column.take(pa.array(rows)).to_pylist() for column in self._opened.get("sessions", names)]
        paths = {each.name: self._paths(each.sessions, each.objects, rows) for each in self.selection.found}
        multiple = {each.name: each.find.multiple for each in self.selection.found}
        snapshots = self.tables.snapshots(rows.tolist()) if self.tables.has_snapshots else iter(())
        for row, (key, storage, source, etag, subject, taxon, species, session) in zip(
            rows.tolist(), zip(*columns, strict=True), strict=True
        ):
            try:
                location, refused = self.storages.location(key, storage, source), None
            except NWBZarrError as error:
                location, refused = Location(key), error
            yield Selected(
                key=key,
                location=location,
                etag=etag,
                paths={name: of[row] for name, of in paths.items()},
                multiple=multiple,
                labels={"subject_id": subject, "species": taxon or species, "session_id": session},
                snapshot=next(snapshots, None),
                refused=refused,
                advice=self.storages.advice(key, storage),
            )

    def _paths(self, sessions: Rows, objects: Rows, rows: Rows) -> dict[int, tuple[str, ...]]:
        """Return the paths of found objects by session, sorted."""
        mask = np.isin(sessions, rows)
        (column,) = self._opened.get("objects", ["path"])
        paths = column.take(pa.array(objects[mask])).to_pylist()
        found: dict[int, list[str]] = {}
        for row, path in zip(sessions[mask].tolist(), paths, strict=True):
            found.setdefault(row, []).append(path)
        return {row: tuple(sorted(each)) for row, each in found.items()}


def _write_page(selected: Selected, pictures: bool, target: Path) -> Page:
    """Write the page of one session."""
    from intake_nwbzarr.errors import with_advice
    from intake_nwbzarr.pages.page import page

    if selected.refused is not None:
        raise selected.refused
    with with_advice(selected.advice):
        return page(selected.location, target, pictures=pictures)
