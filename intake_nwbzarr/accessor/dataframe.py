"""Tables as pandas DataFrames, and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.indexes import PandasIndex

from intake_nwbzarr.accessor.contents import (
    INTERVAL,
    ShownColumn,
    ShownObject,
    find_object,
    is_of,
    plain_columns,
    row_ids,
    selected_as_scalar,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.ragged import ragged
from intake_nwbzarr.accessor.times import event_time, indexed_times, is_decoded
from intake_nwbzarr.errors import SelectionError, warn_caller

if TYPE_CHECKING:
    import pandas as pd


def to_dataframe(dataset: xr.Dataset, name: str | None = None) -> pd.DataFrame:
    """Give a table or a series as a DataFrame; see `NWBAccessor.to_dataframe`."""
    shown = [each for each in shown_objects(dataset) if _has_rows(dataset, each)]
    found = find_object(dataset, name, shown, "tables and series")
    if found.kind == "table":
        return table_dataframe(dataset, found)
    return _events_dataframe(dataset, found) if found.main is None else _series_dataframe(dataset, found)


def _has_rows(dataset: xr.Dataset, shown: ShownObject) -> bool:
    if shown.kind == "table":
        return True
    if shown.main is None:
        return event_time(dataset, shown) is not None
    return not shown.is_a("BaseImage")


def _events_dataframe(dataset: xr.Dataset, events: ShownObject) -> pd.DataFrame:
    """Return events that have no data of their own, with a row for each: times, values beside them."""
    import pandas as pd

    time = event_time(dataset, events)
    assert time is not None  # noqa: S101 - for the type checker; `_has_rows` looked.
    columns = {"timestamp": dataset.variables[time.name].values}
    for name in events.variables:
        if name != time.name and dataset.variables[name].dims == (time.dim,):
            path = str(dataset.variables[name].attrs["nwb_path"])
            columns[path.removeprefix(f"{events.path}/")] = dataset.variables[name].values
    return pd.DataFrame(columns, index=pd.RangeIndex(dataset.sizes[time.dim], name="event"))


def table_dataframe(dataset: xr.Dataset, table: ShownObject) -> pd.DataFrame:
    """Return a table as a DataFrame: one row for each of the table's, by ``id``."""
    import pandas as pd

    if table.rows is None:
        raise selected_as_scalar(table.path)
    columns = shown_columns(dataset, table)
    _warn_of_others(dataset, table, columns)
    series = {
        column.label: _column(dataset, column)
        for column in _regions_as_ids(dataset, columns)
        if column.label != "id"
    }
    return pd.DataFrame(series, index=pd.Index(row_ids(dataset, table), name="id"))


def _warn_of_others(dataset: xr.Dataset, table: ShownObject, columns: list[ShownColumn]) -> None:
    """Warn of what is no column of the rows: columns of another length, values without bounds."""
    known = {column.variable for column in columns}
    others = [
        name
        for name in table.variables
        if name not in known
        and name not in dataset.coords
        and "ragged_values" not in dataset.variables[name].attrs
    ]
    if others:
        warn_caller(
            f"{', '.join(map(repr, others))} of {table.path!r} do not have the dimension of its rows, "
            f"{table.rows!r}, or lack their _start and _count; they are omitted from the DataFrame."
        )


def _regions_as_ids(dataset: xr.Dataset, columns: list[ShownColumn]) -> list[ShownColumn]:
    """Replace the row numbers of a region by the ids of its rows, where they are known."""
    ids = {
        column.column: column
        for column in columns
        if column.label == f"{column.column}_id" and _is_region(dataset, column)
    }
    found = []
    for column in columns:
        if column.column not in ids or not _is_region(dataset, column):
            found.append(column)
        elif column.label == column.column or column.column not in {each.label for each in columns}:
            known = ids[column.column]
            found.append(ShownColumn(known.column, known.column, known.variable, known.bounds))
    return found


def _is_region(dataset: xr.Dataset, column: ShownColumn) -> bool:
    return is_of(dataset.variables[column.variable].attrs, "DynamicTableRegion")


def _column(dataset: xr.Dataset, column: ShownColumn) -> Any:
    """Return a column's values, one per row; several values of a row become an array in one cell."""
    import pandas as pd

    if column.bounds:
        rows = ragged(dataset, column.variable).read()
    else:
        values = dataset.variables[column.variable].values
        if values.ndim == 1:
            return values
        rows = list(values)
    cells = np.empty(len(rows), object)
    # One by one: pandas and numpy would make one array of rows of equal length.
    for place, row in enumerate(rows):
        cells[place] = row
    return pd.Series(cells, dtype=object).to_numpy()


def _series_dataframe(dataset: xr.Dataset, series: ShownObject) -> pd.DataFrame:
    """Return a series as a DataFrame: a row for each sample, a column for each channel."""
    import pandas as pd

    variable = dataset.variables[str(series.main)]
    if not variable.ndim:
        raise SelectionError(
            f"{series.path!r} is a single value in this Dataset: one sample was selected as a scalar, or all "
            "were reduced.",
            path=series.path,
            found=variable.dims,
            next_step="For a DataFrame of one row, select a list of one sample, such as isel(time=[3]).",
        )
    if variable.ndim > 2:
        raise SelectionError(
            f"{series.path!r} has the dimensions {variable.dims}; a DataFrame has at most two.",
            path=series.path,
            found=variable.dims,
            next_step=f"Select from the others first, such as with isel({{{variable.dims[-1]!r}: 0}}).",
        )
    timed = [dim for dim in variable.dims if _time_name(dataset, str(dim)) is not None]
    rows = str(timed[0] if timed else variable.dims[0])
    index = _labels(dataset, rows)
    if variable.ndim == 1:
        return pd.DataFrame({series.name: variable.values}, index=index)
    across = str(next(dim for dim in variable.dims if dim != rows))
    values = variable.transpose(rows, across).values
    return pd.DataFrame(values, index=index, columns=_labels(dataset, across))


def _labels(dataset: xr.Dataset, dim: str) -> pd.Index:
    """Return a dimension's labels: times, ids; positions where it has none."""
    import pandas as pd

    name = _time_name(dataset, dim) or dim
    values = dataset.coords[name].values if name in dataset.coords else np.arange(dataset.sizes[dim])
    return pd.Index(values, name=name)


def _time_name(dataset: xr.Dataset, dim: str) -> str | None:
    """Return the time coordinate along a dimension, which for events has another name than that."""
    indexes: Mapping[Any, Any] = dataset.xindexes
    for name in indexes:
        variable = dataset.coords.variables[name]
        is_label = isinstance(indexes[name], PandasIndex) and variable.attrs.get("units") != "s"
        if variable.dims == (dim,) and (not is_label or variable.dtype.kind == "M"):
            return str(name)
    return None


def intervals(dataset: xr.Dataset, name: str | None = None) -> pd.DataFrame:
    """Give intervals as a DataFrame; see `NWBAccessor.intervals`."""
    shown = [each for each in shown_objects(dataset) if _has_intervals(dataset, each)]
    found = find_object(dataset, name, shown, "tables of intervals and IntervalSeries")
    if found.kind == "series":
        return _of_series(dataset, found)
    frame = table_dataframe(dataset, found)
    ragged = {column.label for column in shown_columns(dataset, found) if column.bounds}
    ragged |= {column.column for column in shown_columns(dataset, found) if column.bounds}
    plain = [label for label in frame.columns if label not in {*ragged, *INTERVAL}]
    return frame[[*INTERVAL, *plain]]


def _has_intervals(dataset: xr.Dataset, shown: ShownObject) -> bool:
    if shown.kind == "series":
        return shown.is_a("IntervalSeries") and shown.main is not None
    if shown.kind != "table" or shown.rows is None:
        return False
    return set(INTERVAL) <= plain_columns(dataset, shown).keys()


def _of_series(dataset: xr.Dataset, series: ShownObject) -> pd.DataFrame:
    import pandas as pd

    variable = dataset.variables[str(series.main)]
    times = [time for time in indexed_times(dataset) if (time.dim,) == variable.dims]
    if not times:
        raise SelectionError(
            f"The times of {series.path!r} are not in this Dataset, so its intervals are unknown.",
            path=series.path,
            next_step=f"Open it with group={series.path!r}.",
        )
    codes, when = variable.values, dataset.coords.variables[times[0].name].values
    if codes.dtype.kind not in "iuf" or not np.array_equal(codes, np.trunc(codes)):
        raise SelectionError(
            f"The {codes.dtype} values of {series.path!r} are not all integers, so they are not codes of "
            "intervals.",
            path=series.path,
            found=str(codes.dtype),
            expected="integers",
            next_step="ds.nwb.nwbfile has the values as they are stored.",
        )
    if np.any(np.isnat(when) if is_decoded(times[0].index) else np.isnan(when)):
        raise SelectionError(
            f"Some changes of {series.path!r} have no time, so its intervals are unknown.",
            path=series.path,
            next_step=f"Select the changes that have a time, with isel({times[0].dim}=...).",
        )
    # Of int8 codes, -128 has no counterpart.
    codes = codes.astype(np.int64)
    if np.any(codes == 0):
        warn_caller(
            f"{int(np.sum(codes == 0))} values of {series.path!r} are 0, which neither starts nor ends an "
            "interval; they are ignored."
        )
    opened, closed, kinds = paired(codes, when)
    missing = np.datetime64("NaT", "ns") if when.dtype.kind == "M" else np.nan
    known = np.append(when, np.array([missing], when.dtype))
    return pd.DataFrame({"start_time": known[opened], "stop_time": known[closed], "code": kinds})


def paired(
    codes: NDArray[np.int64], times: NDArray[np.generic]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pair the starts and the ends of intervals, each kind of interval by itself.

    Parameters
    ----------
    codes
        Positive where an interval of that kind starts, negative where it ends, (change,).
    times
        Of the changes, (change,); those of one time stay in their order.

    Returns
    -------
    tuple of ndarray
        The positions of each interval's start and end, -1 where there is none, and its kind; in the order in
        which the intervals are first seen, (interval,). A start that follows a start of its kind leaves the
        earlier one without an end; an end that follows no start has none.

    Examples
    --------
    >>> opened, closed, kinds = paired(np.array([1, 2, -1, -2, 1]), np.arange(5.0))
    >>> opened.tolist(), closed.tolist(), kinds.tolist()
    ([0, 1, 4], [2, 3, -1], [1, 2, 1])
    """
    order = np.argsort(times, kind="stable")
    order = order[codes[order] != 0]
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(order))
    # Changes of one kind one after the other, each kind in the order of time.
    order = order[np.argsort(np.abs(codes[order]), kind="stable")]
    kinds, starts = np.abs(codes[order]), codes[order] > 0
    is_last = np.append(kinds[1:] != kinds[:-1], True)[: len(order)]
    is_closed = starts & ~is_last & ~np.append(starts, True)[1:]
    following = np.append(order, -1)[1:]
    # An end that closes the start before it is part of that one's interval.
    whole = starts | ~np.append(False, is_closed)[:-1]
    opened = np.where(starts, order, -1)[whole]
    closed = np.where(starts, np.where(is_closed, following, -1), order)[whole]
    first = np.argsort(rank[np.where(opened >= 0, opened, closed)], kind="stable")
    return opened[first], closed[first], kinds[whole][first]
