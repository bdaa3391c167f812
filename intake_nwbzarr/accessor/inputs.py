"""What callers pass: Datasets, trees, DataFrames, pynapple objects and names, as one form."""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from intake_nwbzarr.accessor.contents import ShownObject, find_object, shown_columns, shown_objects
from intake_nwbzarr.accessor.times import SessionTime, is_irregular, session_times
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.mapping.model import free_name

EVENT: Final = "event"
"""What the dimension of events without a table is called."""

ROW_TIMES: Final = ("start_time", "timestamp")
"""The columns that say when a row of a table was."""


def as_dataset(given: Any, rows: str = EVENT) -> Any:
    """Return nodes of trees, DataFrames and pynapple's objects as Datasets; anything else as it is."""
    # pynapple's times are seconds in the session, as `NWBAccessor.to_pynapple` makes them.
    if isinstance(given, xr.DataTree):
        return given.to_dataset(inherit=False)
    frame = given if isinstance(given, pd.DataFrame) else _of_pynapple(given)
    return given if frame is None else _of_frame(frame, rows)


def _of_frame(frame: pd.DataFrame, rows: str) -> xr.Dataset:
    """Return a DataFrame's columns of one value a row, and its index, which may be their times."""
    columns = {}
    for name in frame.columns.unique():
        column = frame[name]
        if not isinstance(column, pd.DataFrame) and not _is_ragged(column):
            columns[str(name)] = _values(column)
    labels: Any = np.arange(len(frame))
    if not isinstance(frame.index, pd.MultiIndex):
        labels = _values(frame.index.to_series())
    if labels.dtype.kind in "fM" and columns.keys().isdisjoint(ROW_TIMES):
        columns["timestamp"], labels = labels, np.arange(len(frame))
    rows = free_name(rows, columns)
    attributes = {str(name): value for name, value in frame.attrs.items()}
    return xr.Dataset({name: (rows, each) for name, each in columns.items()}, {rows: labels}, attributes)


def _is_ragged(column: pd.Series[Any]) -> bool:
    return column.dtype.kind == "O" and any(isinstance(each, list | tuple | np.ndarray) for each in column)


def _values(column: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Return a column as NumPy has it: datetimes without a zone, which is UTC."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(column)


def _of_pynapple(given: Any) -> pd.DataFrame | None:
    """Return an object of pynapple's as a DataFrame; None for anything else."""
    # Without importing it: nobody has an object of a package that is not imported.
    pynapple = sys.modules.get("pynapple")
    if pynapple is None:
        return None
    if isinstance(given, pynapple.IntervalSet):
        frame: pd.DataFrame = given.as_dataframe()
        return frame.rename(columns={"start": "start_time", "end": "stop_time"})
    if isinstance(given, pynapple.TsGroup):
        pooled = given.to_tsd()
        return pd.DataFrame({"timestamp": pooled.times(), "unit": np.asarray(pooled.values)})
    if isinstance(given, pynapple.Tsd):
        return pd.DataFrame({"timestamp": given.times(), "value": np.asarray(given.values)})
    if isinstance(given, pynapple.Ts | pynapple.TsdFrame | pynapple.TsdTensor):
        return pd.DataFrame({"timestamp": given.times()})
    return None


def named(dataset: xr.Dataset, name: str, what: str) -> tuple[xr.Dataset, str | None]:
    """Find a table or irregular series of a Dataset by name, or a table by one of its columns of times."""
    shown = shown_objects(dataset)
    tables = [each for each in shown if each.kind == "table" and each.rows is not None]
    found = [
        (table, column.variable)
        for table in tables
        for column in shown_columns(dataset, table)
        if name in {column.variable, column.label} and not column.bounds
    ]
    found = [each for each in found if each[1] == name] or found
    if len(found) > 1:
        variables = ", ".join(repr(variable) for _, variable in found)
        raise OptionError(f"Several tables have a column {name!r}; pass one of {variables}.")
    for table, variable in found:
        return part_of(dataset, table), variable
    series = [each for each in shown if each.kind == "series" and event_time_of(dataset, each) is not None]
    return part_of(dataset, find_object(dataset, name, [*tables, *series], what)), None


def event_time_of(dataset: xr.Dataset, series: ShownObject) -> SessionTime | None:
    """Return the time of an irregular series, whose samples are events; None for any other."""
    dims = {dim for name in series.variables for dim in dataset.variables[name].dims}
    times = [time for time in session_times(dataset) if time.dim in dims]
    return times[0] if len(times) == 1 and is_irregular(dataset, times[0]) else None


def part_of(dataset: xr.Dataset, shown: ShownObject) -> xr.Dataset:
    """Return one object of a Dataset, with the coordinates that belong to it."""
    return dataset[list(shown.variables)]
