"""Events to align to: their times, and the columns of their table as coordinates."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from intake_nwbzarr.accessor.contents import (
    ROW_TIMES,
    find_object,
    listed,
    part_of,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.sessions import check_same_session
from intake_nwbzarr.accessor.times import (
    SessionTime,
    event_time_of,
    in_seconds,
    is_irregular,
    session_times,
)
from intake_nwbzarr.arguments import describe_value
from intake_nwbzarr.errors import NodeNotFoundError, OptionError, SelectionError, warn_caller
from intake_nwbzarr.indexes import LazyTimeIndex
from intake_nwbzarr.mapping.model import free_name

type Events = xr.Dataset | xr.DataTree | xr.DataArray | pd.DataFrame | ArrayLike
"""A table, also as a DataFrame or of pynapple, times along one dimension, or what NumPy makes an array of."""


EVENT: Final = "event"
"""What the dimension of events without a table is called."""


@dataclass(frozen=True)
class EventTimes:
    """Events and what is known of them."""

    dimension: Hashable  # the table's rows
    times: NDArray[np.float64]  # in seconds, (event,); NaN where an event has none
    columns: xr.Dataset  # everything along the events, as coordinates

    def take(self, chosen: NDArray[np.integer[Any]]) -> EventTimes:
        """Return some of the events, by position."""
        return EventTimes(self.dimension, self.times[chosen], self.columns.isel({self.dimension: chosen}))

    def name(self, position: int) -> str:
        """Return what an event is called in errors."""
        label = ""
        if self.dimension in self.columns.coords:
            label = f" ({self.dimension} {self.columns[self.dimension].values[position]})"
        return f"event {position}{label} at {self.times[position]} s"


def events_named(dataset: xr.Dataset, events: Events | str, on: str | None) -> tuple[Events, str | None]:
    """Return events, and the column of their times, where they may be given by a name in a Dataset.

    Raises `SessionMismatchError` where the events are of another session than the Dataset.
    """
    if not isinstance(events, str):
        check_same_session(dataset, events, "events")
        return events, on
    table, column = named(dataset, events, "tables of events")
    if column is not None and on is not None:
        raise OptionError(
            f"events={events!r} and on={on!r} both name a column of times.",
            found=(events, on),
            next_step="Pass the name of the table as events=, or omit on=.",
        )
    return table, on if column is None else column


def event_times(events: Events, on: str | None, attributes: Mapping[Any, Any]) -> EventTimes:
    """Read the times of events, given in any of the forms that `align` takes.

    `on` is the column of the times, by its name in the table or in the Dataset; `attributes` say what
    datetimes are counted by where the events do not. Warns of events that count from another time.
    """
    events = as_dataset(events)
    if isinstance(events, xr.Dataset):
        _warn_of_another_zero(events.attrs, attributes)
        series = _series_time(events) if on is None else None
        attributes = {**attributes, **events.attrs}
        if series is not None:
            return _of_series(events, series, attributes)
        return _of_table(events, _column(events, on), attributes)
    if on is not None:
        raise OptionError(
            f"on={on!r} names a column of a table, but events is {describe_value(events)}.",
            found=type(events).__name__,
            expected="a table",
            next_step="Omit on=, or pass a table.",
        )
    if isinstance(events, xr.DataArray):
        return _of_array(events, attributes)
    try:
        values = np.asarray(events)
    except ValueError as error:
        raise _not_one_dimension(
            f"the {type(events).__name__} cannot be converted to an array: {error}"
        ) from error
    if values.ndim != 1:
        raise _not_one_dimension(f"the {type(events).__name__} has the shape {values.shape}")
    times = in_seconds(values, attributes, "the array of events") if values.size else np.empty(0)
    return EventTimes(EVENT, times, _labelled(times))


def _labelled(times: NDArray[np.float64]) -> xr.Dataset:
    return xr.Dataset(coords={EVENT: np.arange(len(times)), "event_time": (EVENT, times, _SECONDS)})


def _series_time(dataset: xr.Dataset) -> SessionTime | None:
    """Return the time of the one irregular series that a Dataset without a table of events has."""
    times = session_times(dataset)
    if any(True for wanted in ROW_TIMES for _ in columns_named(dataset, wanted)):
        return None
    return times[0] if len(times) == 1 and is_irregular(dataset, times[0]) else None


def _of_series(series: xr.Dataset, time: SessionTime, attributes: Mapping[Any, Any]) -> EventTimes:
    """Return the samples of a series as events, with their values."""
    times = in_seconds(series.variables[time.name].values, attributes, f"the coordinate {time.name!r}")
    along = [
        name
        for name, each in series.variables.items()
        if each.dims == (time.dim,) and name not in series.xindexes
    ]
    # Along the events' own dimension: along the series', they would pass for a time.
    columns = {name: series.variables[name].copy(deep=False) for name in along}
    for column in columns.values():
        column.dims = (EVENT,)
    return EventTimes(EVENT, times, xr.Dataset(coords=columns).assign_coords(_labelled(times).coords))


_ZERO = "timestamps_reference_time"


def _warn_of_another_zero(own: Mapping[Any, Any], of_aligned: Mapping[Any, Any]) -> None:
    """Warn of events that count from another time than what is aligned to them: those of another session."""
    zeros = [attributes.get(_ZERO) for attributes in (own, of_aligned)]
    if None not in zeros and zeros[0] != zeros[1]:
        warn_caller(
            f"The times of the events count from {zeros[0]}, and those of the aligned Dataset from "
            f"{zeros[1]}: they are from different sessions. Their seconds are compared unchanged."
        )


_SECONDS = {"units": "s", "description": "time of the event"}


def _of_table(table: xr.Dataset, name: str, attributes: Mapping[Any, Any]) -> EventTimes:
    column = table.variables[name]
    if column.ndim != 1:
        raise _not_one_dimension(f"the column {name!r} has the dimensions {column.dims}")
    (rows,) = column.dims
    along = [
        name
        for name, variable in table.variables.items()
        if rows in variable.dims and "ragged_values" not in variable.attrs
    ]
    columns = table[along]
    columns = columns.drop_vars([name for name in columns.coords if rows not in columns[name].dims])
    columns = columns.set_coords(list(columns.data_vars)).drop_attrs(deep=False)
    times = in_seconds(column.values, attributes, f"the column {name!r}")
    return EventTimes(rows, times, columns)


def _of_array(events: xr.DataArray, attributes: Mapping[Any, Any]) -> EventTimes:
    if events.ndim != 1:
        raise _not_one_dimension(f"the DataArray has the dimensions {events.dims}")
    (along,) = events.dims
    times = in_seconds(events.values, attributes, f"the DataArray {events.name!r}")
    if isinstance(events.xindexes.get(along), LazyTimeIndex):
        # Their own times are what was selected from; as a dimension they would pass for a series' time.
        named = "event_time" if events.name == along else events.name
        events, along = events.rename(named).rename({along: EVENT}), EVENT
        events = events.drop_indexes(EVENT).reset_coords(EVENT, drop=True)
    coordinates = events.coords
    columns = coordinates.to_dataset()
    columns = columns.drop_vars([name for name in columns.coords if along not in columns[name].dims])
    name = "event_time" if events.name is None or events.name in coordinates else events.name
    columns = columns.assign_coords({name: (along, times, {**_SECONDS, **events.attrs, "units": "s"})})
    if along not in columns.coords:
        columns = columns.assign_coords({along: np.arange(len(times))})
    return EventTimes(along, times, columns)


def _not_one_dimension(found: str) -> OptionError:
    return OptionError(
        f"Events must be times along one dimension; {found}.",
        found=found,
        expected="times along one dimension",
        next_step="Pass a table, a column of a table, or a list of times.",
    )


def _column(table: xr.Dataset, on: str | None) -> str:
    """Find the variable with the times of a table's events."""
    if on is not None and on in table.variables:
        return on
    for wanted in ROW_TIMES if on is None else (on,):
        found = list(columns_named(table, wanted))
        if len(found) == 1:
            return found[0]
        if found:
            raise SelectionError(
                f"The events have several columns {wanted!r}: {listed(found)}.",
                found=found,
                expected=f"one column {wanted!r}",
                next_step=f"Pass one of them, such as on={found[0]!r}.",
            )
    wanted = " or ".join(map(repr, ROW_TIMES)) if on is None else repr(on)
    times = [
        str(name)
        for name, variable in table.variables.items()
        if variable.ndim == 1 and variable.dtype.kind == "f" and "ragged_values" not in variable.attrs
    ]
    raise NodeNotFoundError(
        f"The events have no column {wanted}; their columns of numbers are {listed(times)}.",
        path=table.attrs.get("nwb_path"),
        found=times,
        expected=wanted,
        next_step="Pass the name of the column of times with on=.",
    )


def columns_named(table: xr.Dataset, wanted: str) -> Iterator[str]:
    """Find the variables that are a column of that name in the file, or, where nothing says it, here."""
    for name, variable in table.variables.items():
        if stored_name(str(name), variable) == wanted and "ragged_values" not in variable.attrs:
            yield str(name)


def stored_name(name: str, variable: xr.Variable) -> str:
    """Return the name of a variable's column in the file; where nothing says it, the variable's."""
    path = variable.attrs.get("nwb_path")
    return name if path is None else str(path).rpartition("/")[2]


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
        variables = [variable for _, variable in found]
        raise OptionError(
            f"Several tables have a column {name!r}.",
            found=name,
            expected=variables,
            next_step=f"Pass the name of its variable, one of {listed(variables)}.",
        )
    for table, variable in found:
        return part_of(dataset, table), variable
    series = [each for each in shown if each.kind == "series" and event_time_of(dataset, each) is not None]
    return part_of(dataset, find_object(dataset, name, [*tables, *series], what)), None


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
