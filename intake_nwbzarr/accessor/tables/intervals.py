"""Intervals as a DataFrame: those of a table, and those that an IntervalSeries opens and closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.columns import shown_columns
from intake_nwbzarr.accessor.contents.kinds import ShownObject, find_object, shown_objects
from intake_nwbzarr.accessor.contents.times import indexed_times, is_decoded
from intake_nwbzarr.accessor.tables.dataframe import table_dataframe
from intake_nwbzarr.errors import SelectionError, warn_caller

if TYPE_CHECKING:
    import pandas as pd

_ENDS = ("start_time", "stop_time")


def intervals(dataset: xr.Dataset, name: str | None = None) -> pd.DataFrame:
    """Give intervals as a DataFrame; see `NWBAccessor.intervals`."""
    shown = [each for each in shown_objects(dataset) if _has_intervals(dataset, each)]
    found = find_object(dataset, name, shown, "tables of intervals and IntervalSeries")
    if found.kind == "series":
        return _of_series(dataset, found)
    frame = table_dataframe(dataset, found)
    ragged = {column.label for column in shown_columns(dataset, found) if column.bounds}
    ragged |= {column.column for column in shown_columns(dataset, found) if column.bounds}
    plain = [label for label in frame.columns if label not in {*ragged, *_ENDS}]
    return frame[[*_ENDS, *plain]]


def _has_intervals(dataset: xr.Dataset, shown: ShownObject) -> bool:
    if shown.kind == "series":
        return shown.is_a("IntervalSeries") and shown.main is not None
    if shown.kind != "table" or shown.rows is None:
        return False
    return set(_ENDS) <= {column.label for column in shown_columns(dataset, shown) if not column.bounds}


def _of_series(dataset: xr.Dataset, series: ShownObject) -> pd.DataFrame:
    import pandas as pd

    variable = dataset.variables[str(series.main)]
    times = [time for time in indexed_times(dataset) if (time.dim,) == variable.dims]
    if not times:
        raise SelectionError(
            f"{series.path!r} is here without its times, so its intervals have no start and no end: open it "
            f"with group={series.path!r}."
        )
    codes, when = variable.values, dataset.coords.variables[times[0].name].values
    if codes.dtype.kind not in "iuf" or not np.array_equal(codes, np.trunc(codes)):
        raise SelectionError(
            f"{series.path!r} holds {codes.dtype} that are not whole numbers, as codes of intervals are: "
            "ds.nwb.nwbfile has what is stored."
        )
    if np.any(np.isnat(when) if is_decoded(times[0].index) else np.isnan(when)):
        raise SelectionError(
            f"{series.path!r} has changes without a time, so its intervals are not known: leave these out "
            f"with isel({times[0].dim}=...)."
        )
    # Of int8 codes, -128 has no counterpart.
    codes = codes.astype(np.int64)
    if np.any(codes == 0):
        warn_caller(
            f"{int(np.sum(codes == 0))} values of {series.path!r} are 0, which neither starts nor ends an "
            "interval: they are left out."
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
