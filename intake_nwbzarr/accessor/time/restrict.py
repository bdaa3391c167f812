"""A session between two times: series, intervals, events and spikes, each by its own kind of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.columns import ShownColumn, shown_columns
from intake_nwbzarr.accessor.contents.kinds import ShownObject, shown_objects
from intake_nwbzarr.accessor.contents.seconds import Time, in_seconds, number
from intake_nwbzarr.accessor.contents.time_axis import seconds_index
from intake_nwbzarr.accessor.contents.times import SessionTime, is_template, session_times
from intake_nwbzarr.accessor.time.restrict_rows import restricted_bounds
from intake_nwbzarr.accessor.time.window import Window, window_of
from intake_nwbzarr.errors import SelectionError, warn_caller
from intake_nwbzarr.indexes.lazy import LazyTimeIndex

_INTERVAL = ("start_time", "stop_time")


def restrict(dataset: xr.Dataset, start: Time, stop: Time) -> xr.Dataset:
    """Keep what a session holds from one time on and before another; see `NWBAccessor.restrict`."""
    window = window_of(start, stop, dataset.attrs)
    shown = shown_objects(dataset)
    times = session_times(dataset)
    _check_series(dataset, shown, times)
    chosen: dict[str, slice | NDArray[np.int64]] = {}
    for time in times:
        chosen[time.dim] = _samples(dataset, time, window)
    bounds: dict[str, xr.Variable] = {}
    for table in (each for each in shown if each.kind == "table"):
        columns = shown_columns(dataset, table)
        rows = _rows(dataset, table, columns, window)
        if rows is not None and table.rows is not None:
            chosen[table.rows] = _positions(rows)
        bounds |= restricted_bounds(dataset, table, columns, window)
    if not chosen and not bounds:
        raise SelectionError(
            f"{dataset.attrs.get('nwb_location', 'This Dataset')}: there is no series, interval, event or "
            f"spike with a time among {[each.name for each in shown]}, so nothing can be restricted to one."
        )
    # The bounds first: rows of units all stay, unless the same table says when its rows were.
    return dataset.assign(bounds).isel(chosen)


def _check_series(dataset: xr.Dataset, shown: list[ShownObject], times: list[SessionTime]) -> None:
    """Refuse what has a time that this view left out; warn of what has none."""
    timed = {time.dim for time in times}
    whole = []
    for series in shown:
        if series.kind != "series" or series.main is None or is_template(series.path):
            continue
        variable = dataset.variables[series.main]
        if variable.size == 0 or not timed.isdisjoint(map(str, variable.dims)):
            continue
        if variable.ndim and _has_times(variable.attrs):
            raise SelectionError(
                f"The times of {series.path!r} are not in this Dataset, so it cannot be restricted. Open it, "
                f"or its container, with group=, or leave it out with ds.drop_vars({series.main!r})."
            )
        whole.append(series.path)
    if whole:
        shortened = ", ".join(map(repr, whole[:3])) + (", ..." if len(whole) > 3 else "")
        warn_caller(f"restrict left {shortened} whole: no time is known along any of its dimensions.")


def _has_times(attributes: Mapping[Any, Any]) -> bool:
    """Whether the file gives a series times, as its attributes tell in place of a coordinate."""
    rate, starting_time = (number(attributes.get(name)) for name in ("rate", "starting_time"))
    regular = rate is not None and rate > 0 and starting_time is not None and isfinite(rate + starting_time)
    return regular or "timestamps" in attributes


def _samples(dataset: xr.Dataset, time: SessionTime, window: Window) -> slice | NDArray[np.int64]:
    """The positions of samples within the window, found without reading all times."""
    if isinstance(time.index, LazyTimeIndex):
        if not time.index.view.timestamps.ascending:
            # In memory already; without an order, or with NaN among them, they can only be compared.
            return _positions(window.holds(time.index.view.values()))
        # Slices include both ends: the last number before `stop` makes that half-open, exactly.
        ends = (window.start, float(np.nextafter(window.stop, -np.inf)))
        label = slice(*(ends if time.index.samples.step > 0 else ends[::-1]))
        try:
            found: slice = time.index.sel({time.name: label}).dim_indexers[time.dim]
            return found
        except SelectionError as error:
            raise SelectionError(
                f"{error} Samples in any order are compared one by one once their times are in memory, which "
                f"ds.sortby({time.name!r}) sees to. Or leave out what lies along it, with "
                f"ds.drop_dims({time.dim!r})."
            ) from error
    return _positions(window.holds(seconds_index(dataset, time).view.values()))


def _rows(
    dataset: xr.Dataset, table: ShownObject, columns: list[ShownColumn], window: Window
) -> NDArray[np.bool_] | None:
    """Which rows of a table of intervals or events to keep; None for a table whose rows have no time."""
    plain = {column.label: column.variable for column in columns if not column.bounds}
    interval = [plain[name] for name in _INTERVAL if name in plain]
    if len(interval) == 2:
        starts, stops = (_column(dataset, table, name) for name in interval)
        return window.overlaps(starts, stops)
    if table.is_a("TimeIntervals") or table.path.startswith("intervals/"):
        missing = next(name for name in _INTERVAL if name not in plain)
        raise SelectionError(
            f"The column {missing!r} of {table.path!r} is not in this Dataset, so its rows cannot be "
            "restricted: keep both start_time and stop_time."
        )
    events = next(_event_times(dataset, plain), None)
    if events is None:
        return None
    return window.holds(_column(dataset, table, events))


def _column(dataset: xr.Dataset, table: ShownObject, name: str) -> NDArray[np.float64]:
    """A column of one time a row."""
    variable = dataset.variables[name]
    told = f"Leave the table out, with ds.drop_vars({list(table.variables)!r})."
    if variable.ndim != 1:
        raise SelectionError(f"{name!r} has the dimensions {variable.dims}, not one time a row. {told}")
    try:
        return in_seconds(variable.values, dataset.attrs, repr(name))
    except SelectionError as error:
        raise SelectionError(f"{error} {told}") from error


def _event_times(dataset: xr.Dataset, plain: dict[str, str]) -> Iterator[str]:
    """The column that says when each event was: `timestamp`, in an EventsTable."""
    for label, name in plain.items():
        variable = dataset.variables[name]
        if label == "timestamp" and (variable.attrs.get("units") == "s" or variable.dtype.kind == "M"):
            yield name


def _positions(mask: NDArray[np.bool_]) -> slice | NDArray[np.int64]:
    """A mask as positions, as a slice where they are consecutive, which keeps indexes lazy."""
    positions = np.flatnonzero(mask).astype(np.int64)
    if not positions.size:
        return slice(0, 0)
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == positions.size else positions
