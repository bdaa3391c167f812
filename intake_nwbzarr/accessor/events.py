"""Events to align to: their times, and the columns of their table as coordinates."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from intake_nwbzarr.accessor.inputs import EVENT, ROW_TIMES, as_dataset, named
from intake_nwbzarr.accessor.sessions import check_same_session
from intake_nwbzarr.accessor.times import SessionTime, in_seconds, is_irregular, session_times
from intake_nwbzarr.errors import NodeNotFoundError, OptionError, SelectionError, warn_caller
from intake_nwbzarr.indexes import LazyTimeIndex

type Events = xr.Dataset | xr.DataTree | xr.DataArray | pd.DataFrame | ArrayLike
"""A table, also as a DataFrame or of pynapple, times along one dimension, or what NumPy makes an array of."""


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
        raise OptionError(f"events={events!r} names a column, and so does on={on!r}: give one of them.")
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
        raise OptionError(f"on={on!r} names a column of a table, but the events are {type(events).__name__}.")
    if isinstance(events, xr.DataArray):
        return _of_array(events, attributes)
    try:
        values = np.asarray(events)
    except ValueError as error:
        raise _not_one_dimension(f"the {type(events).__name__} makes no array: {error}") from error
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
            f"The events count from {zeros[0]}, and what is aligned to them from {zeros[1]}: they are of "
            "different sessions. Their seconds are compared as they are."
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
        f"Events are times along one dimension; {found}. Give a table, a column of one, or a list of times."
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
                f"The events have several columns {wanted!r}: {', '.join(map(repr, found))}. Say which with "
                f"on={found[0]!r}."
            )
    wanted = " or ".join(map(repr, ROW_TIMES)) if on is None else repr(on)
    times = [
        str(name)
        for name, variable in table.variables.items()
        if variable.ndim == 1 and variable.dtype.kind == "f" and "ragged_values" not in variable.attrs
    ]
    raise NodeNotFoundError(
        f"The events have no column {wanted}; name the one with their times with on=. Columns of numbers: "
        f"{', '.join(times) or 'none'}."
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
