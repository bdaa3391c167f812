"""Restrict a session to a time range or epochs (`ds.nwb.restrict`); its start and stop time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import (
    INTERVAL,
    ROW_TIMES,
    ShownColumn,
    ShownObject,
    is_of,
    listed,
    part_named,
    selected_as_scalar,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.epochs import Epochs, Windows, epoch_table, window_of
from intake_nwbzarr.accessor.ragged import Pair, RaggedColumn, divided_by, ragged
from intake_nwbzarr.accessor.slices import Runs, keep_runs, keep_samples
from intake_nwbzarr.accessor.spikes import (
    OBS_INTERVALS,
    RAGGED_TIMES,
    SPIKE_TIMES,
    ends_of_rows,
    has_spikes,
    unit_table,
)
from intake_nwbzarr.accessor.times import (
    SessionTime,
    Time,
    as_given,
    in_seconds,
    is_irregular,
    is_template,
    no_times,
    number,
    seconds_index,
    seconds_variable,
    session_times,
)
from intake_nwbzarr.errors import OptionError, SelectionError, warn_caller
from intake_nwbzarr.indexes.index import LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import TimestampView, is_in_memory

_TIME_COLUMNS = frozenset({*ROW_TIMES, "stop_time"})


def restrict(
    dataset: xr.Dataset, start: Time | Epochs, stop: Time | None = None, *, name: str | None = None
) -> xr.Dataset:
    """Select the part of a session between two times, or within epochs; see `NWBAccessor.restrict`."""
    windows = _windows(dataset, start, stop)
    dataset = part_named(dataset, name)
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
        raise no_times(dataset, "it cannot be restricted")
    for time in times:
        restricted = _restricted_series(restricted, time, windows, alone=len(times) == 1)
    # The bounds came first: rows of units all stay, unless the same table says when its rows were.
    return restricted.isel(chosen)


def _windows(dataset: xr.Dataset, start: Time | Epochs, stop: Time | None) -> Windows:
    """Return what is kept: between two times, or the union of epochs."""
    if stop is not None:
        return window_of(start, stop, dataset.attrs)
    if number(start) is not None or isinstance(start, datetime | np.datetime64):
        raise OptionError(
            f"restrict({as_given(start)}) has a start and no stop.",
            found=as_given(start),
            expected="start and stop, or epochs",
            next_step="Pass start and stop, or epochs, such as a table of intervals.",
        )
    epochs = epoch_table(start, dataset)
    return Windows.union(epochs.starts, epochs.stops)


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
                f"The times of {series.path!r} are not in this Dataset, so it cannot be restricted.",
                path=series.path,
                found=list(map(str, variable.dims)),
                next_step="Open it, or its container, with group=, or drop it with "
                f"ds.drop_vars({series.main!r}).",
            )
        whole.append(series.path)
    if whole:
        warn_caller(
            f"restrict() returned {listed(whole, 3)} unchanged: none of the dimensions has a time coordinate."
        )


def _has_times(attributes: Mapping[Any, Any]) -> bool:
    """Return whether the file gives a series times, as its attributes tell in place of a coordinate."""
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
                f"{error.args[0]} All times along {time.name!r} were read and compared one by one; samples "
                "without a time are dropped."
            )
            return dataset.isel({time.dim: _positions(windows.holds(index.view.values()))})
        error.next_step = (
            f"Call ds.sortby({time.name!r}) first, which loads the times and sorts by them, or drop the "
            f"series with ds.drop_dims({time.dim!r})."
        )
        raise
    if backwards:
        runs = Runs(index.size - (runs.starts + runs.lengths)[::-1], runs.lengths[::-1])
    if len(runs.starts) > 1 and not backwards and not is_in_memory(index.view):
        return keep_samples(dataset, time, index, runs)
    return dataset.isel({time.dim: runs.positions()})


def _samples(view: TimestampView, windows: Windows) -> Runs:
    """Find the samples of an ascending view that lie in the windows, all together."""
    if not len(view):
        return Runs(np.empty(0, np.int64), np.empty(0, np.int64))
    # Half-open, exactly: through the last number before a window's stop.
    labels = np.concatenate([windows.starts, np.nextafter(windows.stops, -np.inf)])
    before, through = view.bounds(labels)
    return Runs.of(before[: len(windows.starts)], through[len(windows.starts) :])


def _rows(
    dataset: xr.Dataset, table: ShownObject, columns: list[ShownColumn], windows: Windows
) -> NDArray[np.bool_] | None:
    """Return which rows of a table of intervals or events to keep; None where rows have no time."""
    plain = {column.label: column.variable for column in columns if not column.bounds}
    interval = [plain[name] for name in INTERVAL if name in plain]
    if len(interval) == 2:
        starts, stops = (_column(dataset, table, name) for name in interval)
        return windows.overlaps(starts, stops)
    if table.is_a("TimeIntervals") or table.path.startswith("intervals/"):
        missing = next(name for name in INTERVAL if name not in plain)
        raise SelectionError(
            f"The column {missing!r} of {table.path!r} is not in this Dataset, so its rows cannot be "
            "restricted.",
            path=table.path,
            found=list(plain),
            expected=missing,
            next_step="Keep both start_time and stop_time when selecting variables.",
        )
    events = next(_event_times(dataset, plain), None)
    if events is None:
        return None
    return windows.holds(_column(dataset, table, events))


def _column(dataset: xr.Dataset, table: ShownObject, name: str) -> NDArray[np.float64]:
    """Read a column of one time a row."""
    variable = dataset.variables[name]
    try:
        if variable.ndim == 1:
            return in_seconds(variable.values, dataset.attrs, repr(name))
        raise SelectionError(
            f"{name!r} has the dimensions {variable.dims}, not one time per row.",
            found=variable.dims,
            expected="one dimension",
        )
    except SelectionError as error:
        error.path = table.path
        error.next_step = f"Drop the table, with ds.drop_vars({list(table.variables)!r})."
        raise


def _event_times(dataset: xr.Dataset, plain: dict[str, str]) -> Iterator[str]:
    """Find the column that says when each event was: `timestamp`, in an EventsTable."""
    for label, name in plain.items():
        variable = dataset.variables[name]
        if label == "timestamp" and (variable.attrs.get("units") == "s" or variable.dtype.kind == "M"):
            yield name


def _positions(mask: NDArray[np.bool_]) -> slice | NDArray[np.int64]:
    """Return a mask as positions, as a slice where they are consecutive, which keeps indexes lazy."""
    positions = np.flatnonzero(mask).astype(np.int64)
    if not positions.size:
        return slice(0, 0)
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == positions.size else positions


@dataclass(frozen=True)
class _Kept:
    """Which values of every row are kept."""

    skipped: NDArray[np.int64]  # values left out at the start of each row, (row,)
    counts: NDArray[np.int64]  # how many are kept, (row,)
    positions: tuple[NDArray[np.int64], ...] | None  # from the start of each row, None where without gaps


def restricted_rows(
    dataset: xr.Dataset, table: ShownObject, columns: list[ShownColumn], windows: Windows
) -> xr.Dataset:
    """Keep a table's spikes, what runs parallel to them, and observed intervals, within windows.

    Of one window, bounds are drawn in and no value moves. Between several, values are left out.
    """
    divided = {column.column: column for column in columns if column.bounds}
    _check_spikes(dataset, table, divided)
    restricted = dataset
    for column in (divided[name] for name in (*RAGGED_TIMES, OBS_INTERVALS) if name in divided):
        rows = ragged(dataset, column.variable)
        kept = _kept(dataset, table, column.column, rows, windows)
        others = _parallel(dataset, columns, rows.bounds()[1]) if column.column in RAGGED_TIMES else []
        for pair in (column.bounds[0], *others):
            restricted = _restricted_column(restricted, pair, kept)
    return restricted


def _check_spikes(dataset: xr.Dataset, table: ShownObject, divided: dict[str, ShownColumn]) -> None:
    path = f"{table.path}/{SPIKE_TIMES}"
    present = [
        name
        for name in table.variables
        if path in {dataset.variables[name].attrs.get(key) for key in ("nwb_path", "ragged_values")}
    ]
    if present and table.rows is None:
        raise selected_as_scalar(table.path)
    if present and SPIKE_TIMES not in divided:
        raise _undivided(dataset, table, path, present)
    for name in (*RAGGED_TIMES, OBS_INTERVALS):
        if name in divided and "start" not in divided[name].bounds[0]:
            raise SelectionError(
                f"{divided[name].variable!r} is compact: its rows are stored one after the other, so that no "
                "values can be left out between them.",
                path=f"{table.path}/{name}",
                found=divided[name].variable,
                next_step="Restrict first, then call ds.nwb.compact().",
            )


def _undivided(dataset: xr.Dataset, table: ShownObject, path: str, present: list[str]) -> SelectionError:
    counts = [
        dataset.variables[name] for name in present if dataset.variables[name].attrs.get("ragged_values")
    ]
    apart = next((each.dims for each in counts if each.dims != (table.rows,)), None)
    drop = f"ds.drop_vars({present!r})"
    if apart is not None:
        return SelectionError(
            f"The index of {path!r} has the dimensions {apart}, not that of the rows, {table.rows!r}: in the "
            "file its length differs from the table's, so that spikes cannot be assigned to units.",
            path=path,
            found=apart,
            expected=(table.rows,),
            next_step=f"Drop the spikes, with {drop}.",
        )
    return SelectionError(
        f"Of {path!r}, only {listed(present)} is in this Dataset, so spikes cannot be assigned to units.",
        path=path,
        found=present,
        expected="spike times with their _start and _count",
        next_step="Keep the spike times together with their _start and _count. Where the file has none, drop "
        f"the spikes, with {drop}.",
    )


def _kept(
    dataset: xr.Dataset, table: ShownObject, column: str, rows: RaggedColumn, windows: Windows
) -> _Kept:
    """Look at the values of every row."""
    found: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(rows)
    skipped = np.zeros(len(rows), np.int64)
    for row, values in rows.read_each():
        times = in_seconds(values, dataset.attrs, repr(rows.name))
        # Searching presumes order, in both columns of intervals.
        if np.isnan(times).any() or np.any(times[1:] < times[:-1]):
            unit = dataset.coords[table.rows].values[row] if table.rows in dataset.coords else row
            raise SelectionError(
                f"The {column!r} of row {unit} of {table.path!r} do not ascend or contain NaN, so they "
                "cannot be restricted.",
                path=f"{table.path}/{column}",
                found=unit,
                expected="ascending times",
                next_step=f"Drop this row, with ds.drop_isel({table.rows}={row}).",
            )
        found[row] = np.flatnonzero(windows.holds(times) if times.ndim == 1 else windows.overlaps(*times.T))
        if found[row].size:
            skipped[row] = found[row][0]
    lengths = np.array([len(each) for each in found], np.int64)
    gaps = any(each.size and each[-1] - each[0] + 1 != each.size for each in found)
    return _Kept(skipped, lengths, tuple(found) if gaps else None)


def _parallel(dataset: xr.Dataset, columns: list[ShownColumn], counts: NDArray[np.int64]) -> list[Pair]:
    """Return the outer bounds of other columns that have one value for each spike of every row.

    Regions, references and observed intervals never run along spikes, however many they are.
    """
    pairs: dict[str, Pair] = {}
    for column in columns:
        own = dataset.variables[column.variable].attrs
        apart = is_of(own, "DynamicTableRegion") or is_of(own, "TimeSeriesReferenceVectorData")
        if column.bounds and not apart and column.column not in {*RAGGED_TIMES, OBS_INTERVALS}:
            count = column.bounds[0]["count"]
            if np.array_equal(np.asarray(dataset.variables[count].values, np.int64), counts):
                pairs[count] = column.bounds[0]
    return list(pairs.values())


def _restricted_column(dataset: xr.Dataset, pair: Pair, kept: _Kept) -> xr.Dataset:
    """Draw in the bounds of a column; where values between are left out, the others follow one another."""
    start, count = (dataset.variables[pair[bound]] for bound in ("start", "count"))
    begins = np.asarray(start.values, np.int64) + kept.skipped
    divided, changed = divided_by(dataset, str(count.attrs.get("ragged_values"))), {}
    if kept.positions is not None and divided is not None:
        runs = _runs(np.asarray(start.values, np.int64), kept.positions)
        dataset = keep_runs(dataset, dataset.variables[divided].dims[0], runs)
        begins = np.where(kept.counts > 0, runs.count_before(begins), 0)
        changed = {"ragged_length": runs.size}
    bounds = {pair["start"]: (start, begins), pair["count"]: (count, kept.counts)}
    return dataset.assign(
        {
            name: xr.Variable(bound.dims, values, {**bound.attrs, **changed})
            for name, (bound, values) in bounds.items()
        }
    )


def _runs(starts: NDArray[np.int64], positions: tuple[NDArray[np.int64], ...]) -> Runs:
    """Return the values that are kept of all rows, where they are stored."""
    begins, ends = [], []
    for start, each in zip(starts, positions, strict=True):
        breaks = np.flatnonzero(np.diff(each) > 1)
        begins.append(start + each[np.concatenate([[0], breaks + 1])] if each.size else each)
        ends.append(start + each[np.concatenate([breaks, [-1]])] + 1 if each.size else each)
    return Runs.of(np.concatenate(begins), np.concatenate(ends))


def span(dataset: xr.Dataset) -> tuple[float, float]:
    """Return when a Dataset begins and ends, from as few timestamps as say so."""
    series = [_ends_of_series(dataset, time) for time in session_times(dataset)]
    times = np.concatenate([np.empty(0), *(series or _times_of_tables(dataset))])
    known = times[np.isfinite(times)]
    if not known.size:
        raise no_times(dataset, "it has no start and no stop")
    return float(known.min()), float(known.max())


def _ends_of_series(dataset: xr.Dataset, time: SessionTime) -> NDArray[np.float64]:
    """Return the first time of a series, and where its last sample ends, or of an irregular one is."""
    index = seconds_index(dataset, time)
    if not index.size or not index.view.timestamps.ascending:
        return index.view.values()
    ends = index.view.at([0, -1])
    if np.isnan(ends).any():
        return index.view.values()
    regular = None if is_irregular(dataset, time) else index.as_regular
    if regular is not None:
        samples = regular.samples if regular.samples.step > 0 else regular.samples[::-1]
        after = regular.timestamps.at(np.array([samples[-1] + samples.step]))
        ends = np.concatenate([ends, after])
    return ends


def _times_of_tables(dataset: xr.Dataset) -> Iterator[NDArray[np.float64]]:
    for table in (each for each in shown_objects(dataset) if each.kind == "table"):
        for column in shown_columns(dataset, table):
            variable = dataset.variables[column.variable]
            if not column.bounds and column.label in _TIME_COLUMNS and variable.ndim == 1:
                yield seconds_variable(variable, dataset.attrs, repr(column.variable)).values
    if has_spikes(dataset):
        yield ends_of_rows(unit_table(dataset).spikes)
