"""Read one table, such as the units, from all sessions of a catalog as one DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from intake_nwbzarr.arguments import invalid_argument
from intake_nwbzarr.errors import (
    NodeNotFoundError,
    NWBZarrError,
    OptionError,
    SessionsWarning,
    did_you_mean,
    warn_caller,
)
from intake_nwbzarr.sessions.conditions import Find, exact_texts, matches
from intake_nwbzarr.sessions.search import (
    Columns,
    Found,
    Selection,
    distinct,
    distinct_values,
    flattened,
    no_such_value,
    search,
)
from intake_nwbzarr.sessions.selected import Selected, chosen_paths, open_hierarchy
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import counted

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from intake_nwbzarr.accessor.contents import ShownColumn, ShownObject
    from intake_nwbzarr.hierarchy.hierarchy import Hierarchy

_LABELS: Final = ("subject_id", "species", "session_id")
# The share of a ragged column's values from which all are read, with the other columns.
_MOST: Final = 0.5
# How many failures and columns a warning names.
_FIRST: Final = 3


@dataclass(frozen=True)
class Wanted:
    """What is read of the table in each session."""

    columns: tuple[str, ...] | None
    where: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...] | None:
        """Return the names of all columns that are read, None for all of the table's."""
        return None if self.columns is None else tuple(dict.fromkeys((*self.columns, *self.on_columns)))

    @property
    def on_columns(self) -> dict[str, Any]:
        """Return the conditions on columns, without that on ids."""
        return {name: condition for name, condition in self.where.items() if name != "id"}


@dataclass(frozen=True)
class _Read:
    """The rows of one session's table, or why they could not be read."""

    session: Selected
    frame: pd.DataFrame | None = None
    # The columns of all of its tables, and of each of them: of one table, the same.
    columns: tuple[str, ...] = ()
    common: tuple[str, ...] = ()
    # By column, the values of those whose condition no row of this session meets.
    unmet: Mapping[str, set[str]] = field(default_factory=dict)
    error: NWBZarrError | None = None


@dataclass
class _Outcome:
    read: list[_Read] = field(default_factory=list)

    @property
    def failed(self) -> list[_Read]:
        return [each for each in self.read if each.error is not None]

    @property
    def whole(self) -> list[_Read]:
        return [each for each in self.read if each.error is None]


def of_table(columns: Columns, selection: Selection, table: str) -> tuple[str, Selection]:
    """Return the name under which a table's objects are found, and the sessions that have them."""
    if not isinstance(table, str) or not table:
        raise invalid_argument("table", table, "the name of a Find, or the path or name of a table")
    if all(each.name != table for each in selection.found):
        bare = replace(selection, found=())
        known = distinct(columns, bare, "path")
        path = table.strip("/")
        by: dict[str, Any] = {"path": path} if path in known else {"name": path}
        selection = search(columns, bare, {"table": Find(None, **by), "error": [None, "*"]}, warn=False)
        if not len(selection.rows):
            names = {each for text in known for each in (text, text.rpartition("/")[2])}
            raise NodeNotFoundError(
                f"None of the sessions has an object {table!r}.",
                location=columns.tables.place,
                path=table,
                next_step=did_you_mean(table, names, most=3) or "See catalog.unique('path').",
            )
        found = replace(selection.found[0], name=table)
        _check_one_each(columns, found)
        selection = replace(selection, found=(found,))
    (found,) = [each for each in selection.found if each.name == table]
    (types,) = columns.get("objects", ["types"])
    of_tables = matches(types.take(pa.array(found.objects)), "DynamicTable", "types")
    if not of_tables.all():
        (kinds, paths) = columns.get("objects", ["type", "path"])
        row = int(found.objects[np.argmin(of_tables)])
        raise OptionError(
            f"{paths[row].as_py()!r} is a {kinds[row].as_py()}; table() reads tables.",
            path=paths[row].as_py(),
            found=kinds[row].as_py(),
            expected="a DynamicTable",
            next_step="Open the objects of a session with catalog.open(key), or use catalog.map().",
        )
    return table, replace(selection, found=(found,))


def _check_one_each(columns: Columns, found: Found) -> None:
    """Refuse a name that several objects of one session have."""
    sessions, counts = np.unique(found.sessions, return_counts=True)
    if not (counts > 1).any():
        return
    locations, paths = (*columns.get("sessions", ["location"]), *columns.get("objects", ["path"]))
    row = int(sessions[np.argmax(counts > 1)])
    key = locations[row].as_py()
    several = sorted(paths.take(pa.array(found.objects[found.sessions == row])).to_pylist())
    raise OptionError(
        f"{key} has {len(several)} objects named {found.name!r}: {', '.join(several[:5])}.",
        location=key,
        path=found.name,
        found=several,
        expected="one object",
        next_step="Pass the path of one, or the name of a Find of the search.",
    )


def wanted_rows(columns: Any, where: Any) -> Wanted:
    """Return the checked arguments `columns` and `where`."""
    listed = [columns] if isinstance(columns, str) else columns
    is_list = isinstance(listed, list | tuple) and all(isinstance(name, str) for name in listed)
    if not is_list and columns is not None:
        raise invalid_argument("columns", columns, "a list of names of columns, or None for all")
    is_mapping = isinstance(where, Mapping) and all(isinstance(name, str) for name in where)
    if not is_mapping and where is not None:
        raise invalid_argument("where", where, "a dictionary of conditions by column")
    names = None if columns is None else tuple(dict.fromkeys(name for name in listed if name != "id"))
    return Wanted(names, dict(where or {}))


def check_columns(columns: Columns, selection: Selection, wanted: Wanted) -> None:
    """Refuse names of columns that the table has in none of the sessions, as far as the tables say."""
    (found,) = selection.found
    known_lists, types = (
        column.take(pa.array(found.objects)) for column in columns.get("objects", ["columns", "types"])
    )
    # Columns of an aligned table's categories are not listed.
    if (
        not len(found.objects)
        or known_lists.null_count
        or matches(types, "AlignedDynamicTable", "types").any()
    ):
        return
    known = {name for names in known_lists.to_pylist() for name in names}
    for name in wanted.names or tuple(wanted.on_columns):
        if name not in known:
            raise _no_column(name, found.name, known)


def _no_column(name: str, table: str, known: Iterable[str]) -> OptionError:
    names = sorted(known)
    return OptionError(
        f"No session has a column {name!r} in {table!r}.",
        path=table,
        found=name,
        expected=names,
        next_step=did_you_mean(name, names, most=3) or f"Columns are {', '.join(names[:30])}.",
    )


def read_table(sessions: Iterable[Selected], name: str, wanted: Wanted, threads: int) -> pd.DataFrame:
    """Read the table of each session concurrently, and return all rows; see `SessionCatalog.table`."""
    outcome = _Outcome()
    listed = list(sessions)
    with suppress(NWBZarrError):
        # Certificates are loaded now, and not by each thread.
        open_transport(listed[0].location) if listed else None
    pool = ThreadPoolExecutor(threads, "nwbzarr-table")
    try:
        outcome.read.extend(pool.map(lambda each: _read_session(each, name, wanted), listed))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if outcome.failed and not outcome.whole:
        raise outcome.failed[0].error or AssertionError
    missing = _missing(outcome.whole, name, wanted)
    frame = _joined(outcome.whole, wanted)
    _report(frame, outcome, missing, wanted)
    return frame


def _read_session(session: Selected, name: str, wanted: Wanted) -> _Read:
    try:
        paths = chosen_paths(session)[name]
        hierarchy = open_hierarchy(session)
        tables = [_rows(hierarchy, path, wanted) for path in paths]
    except NWBZarrError as error:
        return _Read(session, error=error)
    if session.multiple.get(name) == "all":
        for path, (frame, _, _) in zip(paths, tables, strict=True):
            # A column of that name in the table is the table's.
            if "path" not in frame.columns:
                frame.insert(0, "path", path)
    if len(tables) == 1:
        frame, names, unmet = tables[0]
        return _Read(session, frame, names, names, unmet)
    import pandas as pd

    known = tuple(dict.fromkeys(name for _, names, _ in tables for name in names))
    common = tuple(name for name in known if all(name in names for _, names, _ in tables))
    return _Read(session, pd.concat([frame for frame, _, _ in tables]), known, common)


def _rows(
    hierarchy: Hierarchy, path: str, wanted: Wanted
) -> tuple[pd.DataFrame, tuple[str, ...], dict[str, set[str]]]:
    """Return the wanted rows and columns of a table, the names of all its columns, and `_Read.unmet`."""
    import pandas as pd

    from intake_nwbzarr.accessor.contents import shown_columns, shown_objects
    from intake_nwbzarr.accessor.dataframe import table_dataframe
    from intake_nwbzarr.mapping.assembly import dataset_of_one
    from intake_nwbzarr.mapping.model import run_mappers
    from intake_nwbzarr.mapping.options import MappingOptions
    from intake_nwbzarr.mapping.table_layout import category_layouts, table_layout
    from intake_nwbzarr.mapping.tables import map_table
    from intake_nwbzarr.mapping.views import find_group

    target = find_group(hierarchy, path)
    layout = table_layout(target.hierarchy, target.path)
    known = tuple(
        f"{each.prefix}{column.name}"
        for each in (layout, *category_layouts(layout))
        for column in each.columns
    )
    mapper = map_table(target.hierarchy, target.path, MappingOptions(), wanted.names, layout)
    (mapped,) = run_mappers([mapper], hierarchy.opener)
    dataset = dataset_of_one(mapped, MappingOptions(), None, {}, opener=hierarchy.opener)
    rows = layout.rows.name
    shown = next((each for each in shown_objects(dataset) if each.kind == "table"), None)
    met = np.ones(layout.rows.size, np.bool_)
    ids = dataset.coords[rows].values if rows in dataset.coords else np.arange(len(met))
    if "id" in wanted.where:
        met &= matches(pa.chunked_array([pa.array(ids)]), wanted.where["id"], "id")
    if shown is None or any(name not in known for name in wanted.on_columns):
        # Without the column of a condition, no row is known to meet it.
        met &= not wanted.on_columns
        return pd.DataFrame(index=pd.Index(ids[met], name="id")), known, {}
    unmet: dict[str, set[str]] = {}
    columns = shown_columns(dataset, shown)
    if wanted.on_columns:
        dataset, also_met, unmet = _matching(dataset, shown, columns, wanted.on_columns)
        met &= also_met
    if wanted.where:
        dataset = dataset.isel({rows: np.flatnonzero(met)})
    frame = table_dataframe(_loaded(dataset), shown)
    if wanted.columns is not None:
        column_of = {each.label: each.column for each in columns}
        labels = [
            label for name in wanted.columns for label in frame.columns if column_of.get(label, label) == name
        ]
        frame = frame if labels == list(frame.columns) else frame[labels]
    return frame, known, unmet


def _matching(
    dataset: xr.Dataset, shown: ShownObject, columns: Sequence[ShownColumn], where: Mapping[str, Any]
) -> tuple[xr.Dataset, NDArray[np.bool_], dict[str, set[str]]]:
    """Read columns with conditions; return the Dataset with them, which rows meet all, and `_Read.unmet`."""
    from intake_nwbzarr.accessor.dataframe import table_dataframe

    of_conditions = [each for each in columns if each.column in where]
    names = [name for each in of_conditions for name in _variables(each)]
    part = run(dataset[list(dict.fromkeys(names))].load_async())
    frame = table_dataframe(part, replace(shown, variables=tuple(map(str, part.variables))))
    met = np.ones(len(frame), np.bool_)
    unmet: dict[str, set[str]] = {}
    for name, condition in where.items():
        values = None
        with suppress(pa.ArrowException):
            # Neither several fields nor arrays of several dimensions have a type for conditions.
            cells = frame.get(name)
            values = None if cells is None else pa.array(_cells(cells), from_pandas=True)
        if values is None:
            raise OptionError(
                f"The column {name!r} of {shown.path!r} has several values in a row, on which conditions are "
                "not possible.",
                path=shown.path,
                found=name,
            )
        column = pa.chunked_array([values])
        meets = matches(column, condition, name)
        met &= meets
        if not meets.any() and exact_texts(condition):
            unmet[name] = distinct_values(flattened(column))
    return dataset.assign({name: part[name].variable for name in part.data_vars}), met, unmet


def _cells(column: pd.Series[Any]) -> Any:
    """Return a column for Arrow: numbers with their type, objects one by one."""
    return list(column) if column.dtype == object else column.to_numpy()


def _variables(column: ShownColumn) -> list[str]:
    """Return the variables that a column's cells are made of."""
    return [column.variable, *(name for pair in column.bounds for name in pair.values())]


def _loaded(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with its values in memory, but for ragged ones of which few rows are left."""
    counts = [name for name, each in dataset.variables.items() if each.attrs.get("ragged_bound") == "count"]
    if not counts:
        return run(dataset.load_async())
    read = run(dataset[counts].load_async())
    few: set[str] = set()
    for count in read.data_vars.values():
        # What divides the values of a column may itself be divided.
        if count.attrs["nwb_path"] in few or count.values.sum() < _MOST * count.attrs["ragged_length"]:
            few.add(count.attrs["ragged_values"])
    lazy = [
        name
        for name, each in dataset.variables.items()
        if each.attrs.get("nwb_path") in few and name not in dataset.coords
    ]
    loaded = run(dataset.drop_vars(lazy).load_async())
    return loaded.assign({name: dataset.variables[name] for name in lazy})


def _joined(read: Sequence[_Read], wanted: Wanted) -> pd.DataFrame:
    """Return the rows of all sessions, indexed by session and id, labelled with their subjects."""
    import pandas as pd

    frames = {each.session.key: each.frame for each in read if each.frame is not None}
    # Frames without rows have columns without a dtype.
    filled = {key: frame for key, frame in frames.items() if len(frame)} or frames
    index = pd.MultiIndex.from_arrays([[], []], names=["session", "id"])
    frame = pd.concat(filled, names=index.names) if filled else pd.DataFrame(index=index)
    if wanted.columns is not None and frame.columns.isin(wanted.columns).all():
        frame = frame.reindex(columns=list(wanted.columns))
    labels = {each.session.key: each.session.labels for each in read}
    keys = frame.index.get_level_values("session")
    for place, name in enumerate(name for name in _LABELS if name not in frame.columns):
        frame.insert(place, name, [labels[key].get(name) for key in keys])
    return frame


def _missing(read: Sequence[_Read], name: str, wanted: Wanted) -> dict[str, list[str]]:
    """Return the columns that some sessions lack, with these sessions; refuse one that all lack."""
    known = list(dict.fromkeys(column for each in read for column in each.columns))
    names = wanted.names
    if names is None:
        names = tuple(dict.fromkeys((*known, *wanted.on_columns)))
    for column in names if read else ():
        if column not in known:
            raise _no_column(column, name, known)
    lacking = {column: [each.session.key for each in read if column not in each.common] for column in names}
    return {column: sessions for column, sessions in lacking.items() if sessions}


def _report(frame: pd.DataFrame, outcome: _Outcome, missing: Mapping[str, list[str]], wanted: Wanted) -> None:
    """Record sessions that could not be read and columns that some lack in a frame, and warn of them."""
    failures = [
        {
            "session": each.session.key,
            "error": type(each.error).__name__,
            "message": str(each.error),
            "transient": each.error.transient,
        }
        for each in outcome.failed
        if each.error is not None
    ]
    frame.attrs["failures"] = failures
    total = len(outcome.read)
    if failures:
        first = " ".join(str(each["message"]) for each in failures[:_FIRST])
        # A condition may not be valid for the column's type in some session.
        compared = any(isinstance(each.error, OptionError) for each in outcome.failed)
        what = "read or compared" if compared else "read"
        warn_caller(
            f"{len(failures):,} of {counted(total, 'session')} could not be {what} "
            f"(frame.attrs['failures']): {first}",
            SessionsWarning,
        )
    _warn_of_unmet(outcome.whole, wanted)
    frame.attrs["missing"] = dict(missing)
    if missing:
        counts = {column: len(keys) for column, keys in list(missing.items())[:_FIRST]}
        shown = ", ".join(f"{column!r} in {n:,} of {len(outcome.whole):,}" for column, n in counts.items())
        more = f" and {len(missing) - _FIRST:,} more" if len(missing) > _FIRST else ""
        lost = [column for column in missing if column in wanted.where]
        warn_caller(
            f"Columns are missing in some sessions (frame.attrs['missing']): {shown}{more}. Their values are "
            "missing there"
            + (f", and no rows of sessions without {lost[0]!r} meet the condition." if lost else "."),
            SessionsWarning,
        )


def _warn_of_unmet(read: Sequence[_Read], wanted: Wanted) -> None:
    """Warn of conditions on texts that no row of any session has: they may be misspelled."""
    texts = []
    for name, condition in wanted.on_columns.items():
        with_column = [each for each in read if name in each.columns]
        values = {value for each in with_column for value in each.unmet.get(name, ())}
        if values and all(name in each.unmet for each in with_column):
            texts.append(no_such_value("row", name, condition, values))
    if texts:
        warn_caller(" ".join(texts), SessionsWarning)
