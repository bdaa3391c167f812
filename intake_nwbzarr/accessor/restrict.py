"""A session between two times: series, intervals, events and spikes, each by its own kind of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from math import isfinite
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import (
    ShownColumn,
    ShownObject,
    find_object,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.epochs import Epochs, epoch_table
from intake_nwbzarr.accessor.inputs import part_of
from intake_nwbzarr.accessor.peri_event.runs import Runs
from intake_nwbzarr.accessor.runs import pieces_of
from intake_nwbzarr.accessor.time.restrict_rows import restricted_rows
from intake_nwbzarr.accessor.time.window import Windows, window_of
from intake_nwbzarr.accessor.times import (
    SessionTime,
    Time,
    as_given,
    in_seconds,
    is_template,
    number,
    seconds_index,
    session_times,
)
from intake_nwbzarr.errors import OptionError, SelectionError, warn_caller
from intake_nwbzarr.indexes.index import LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import TimestampView, is_in_memory

_INTERVAL = ("start_time", "stop_time")


def restrict(
    dataset: xr.Dataset, start: Time | Epochs, stop: Time | None = None, *, name: str | None = None
) -> xr.Dataset:
    """Keep what a session holds between two times, or within epochs; see `NWBAccessor.restrict`."""
    windows = _windows(dataset, start, stop)
    if name is not None:
        dataset = part_of(dataset, find_object(dataset, name, _timed(dataset), "series and tables"))
    shown = shown_objects(dataset)
    times = session_times(dataset)
    _check_series(dataset, shown, times)
    chosen: dict[str, slice | NDArray[np.int64]] = {}
    tables = [each for each in shown if each.kind == "table"]
    restricted = dataset
    for table in tables:
        columns = shown_columns(dataset, table)
        rows = _rows(dataset, table, columns, windows)
        if rows is not None and table.rows is not None:
            chosen[table.rows] = _positions(rows)
        restricted = restricted_rows(restricted, table, columns, windows)
    if not chosen and not times and restricted is dataset:
        raise SelectionError(
            f"{dataset.attrs.get('nwb_location', 'This Dataset')}: there is no series, interval, event or "
            f"spike with a time among {[each.name for each in shown]}, so nothing can be restricted to one."
        )
    for time in times:
        restricted = _restricted_series(restricted, time, windows, alone=len(times) == 1)
    # The bounds came first: rows of units all stay, unless the same table says when its rows were.
    return restricted.isel(chosen)


def _windows(dataset: xr.Dataset, start: Time | Epochs, stop: Time | None) -> Windows:
    """What is kept: between two times, or the union of epochs."""
    if stop is not None:
        return window_of(start, stop, dataset.attrs)
    if number(start) is not None or isinstance(start, datetime | np.datetime64):
        raise OptionError(
            f"restrict({as_given(start)}) lacks a stop: pass start and stop, or epochs, such as a table of "
            "intervals."
        )
    epochs = epoch_table(start, dataset)
    return Windows.union(epochs.starts, epochs.stops)


def _timed(dataset: xr.Dataset) -> list[ShownObject]:
    return [each for each in shown_objects(dataset) if each.kind in {"series", "table"}]


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


def _restricted_series(
    dataset: xr.Dataset, time: SessionTime, windows: Windows, *, alone: bool
) -> xr.Dataset:
    """Keep the samples within the windows, found without reading all times."""
    index = time.index
    if not isinstance(index, LazyTimeIndex) or not index.view.timestamps.ascending:
        # In memory already; without an order, or with NaN among them, they can only be compared.
        times = seconds_index(dataset, time).view.values()
        return dataset.isel({time.dim: _positions(windows.holds(times))})
    backwards = index.samples.step < 0
    try:
        runs = _samples(index.view[::-1] if backwards else index.view, windows)
    except SelectionError as error:
        if not alone:
            # One series without an order does not stop what is done to a whole session.
            warn_caller(
                f"{error} All times along {time.name!r} were read and compared one by one; samples without a "
                "time are left out."
            )
            return dataset.isel({time.dim: _positions(windows.holds(index.view.values()))})
        raise SelectionError(
            f"{error} Samples in any order are compared one by one once their times are in memory, which "
            f"ds.sortby({time.name!r}) sees to. Or leave out what lies along it, with "
            f"ds.drop_dims({time.dim!r})."
        ) from error
    if backwards:
        runs = Runs(index.size - (runs.starts + runs.lengths)[::-1], runs.lengths[::-1])
    if len(runs.starts) > 1 and not backwards and not is_in_memory(index.view):
        return pieces_of(dataset, time, index, runs)
    return dataset.isel({time.dim: runs.positions()})


def _samples(view: TimestampView, windows: Windows) -> Runs:
    """The samples of an ascending view that lie in the windows, all looked for together."""
    if not len(view):
        return Runs(np.empty(0, np.int64), np.empty(0, np.int64))
    # Half-open, exactly: through the last number before a window's stop.
    labels = np.concatenate([windows.starts, np.nextafter(windows.stops, -np.inf)])
    before, through = view.bounds(labels)
    return Runs.of(before[: len(windows.starts)], through[len(windows.starts) :])


def _rows(
    dataset: xr.Dataset, table: ShownObject, columns: list[ShownColumn], windows: Windows
) -> NDArray[np.bool_] | None:
    """Which rows of a table of intervals or events to keep; None for a table whose rows have no time."""
    plain = {column.label: column.variable for column in columns if not column.bounds}
    interval = [plain[name] for name in _INTERVAL if name in plain]
    if len(interval) == 2:
        starts, stops = (_column(dataset, table, name) for name in interval)
        return windows.overlaps(starts, stops)
    if table.is_a("TimeIntervals") or table.path.startswith("intervals/"):
        missing = next(name for name in _INTERVAL if name not in plain)
        raise SelectionError(
            f"The column {missing!r} of {table.path!r} is not in this Dataset, so its rows cannot be "
            "restricted: keep both start_time and stop_time."
        )
    events = next(_event_times(dataset, plain), None)
    if events is None:
        return None
    return windows.holds(_column(dataset, table, events))


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
