"""Counts of spikes, events, intervals and timestamps, in bins along time or around events."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, Final, Protocol, Self

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import (
    ShownObject,
    find_object,
    listed,
    part_of,
    plain_columns,
    row_time,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.lags import checked_positive, whole_bins
from intake_nwbzarr.accessor.slices import Runs, grouped, sliced
from intake_nwbzarr.accessor.spikes import (
    RAGGED_TIMES,
    Spikes,
    ascending,
    ends_of_rows,
    has_spikes,
    observed_intervals,
    ragged_of,
    unit_columns,
    unit_table,
)
from intake_nwbzarr.accessor.times import (
    SessionTime,
    Time,
    as_given,
    event_time_of,
    one_time,
    seconds_variable,
)
from intake_nwbzarr.arrays import Computed, lazy_variable
from intake_nwbzarr.arrays.lazy import target
from intake_nwbzarr.arrays.selection import Axes
from intake_nwbzarr.errors import NodeNotFoundError, OptionError, SelectionError, did_you_mean
from intake_nwbzarr.indexes import RegularTimeIndex
from intake_nwbzarr.indexes.timestamps import TimestampView

TIME: Final = "time"

EVENT_COUNTS: Final = "event_counts"

_WHAT: Final = "spikes, events, intervals and timestamps that can be counted"


def bin_events(
    dataset: xr.Dataset,
    width: float,
    *,
    start: Time | None = None,
    stop: Time | None = None,
    name: str | None = None,
    by: str | None = None,
) -> xr.Dataset:
    """Count events in bins; see `NWBAccessor.bin`."""
    width = checked_positive(width, "width", "seconds")
    begin = 0.0 if start is None else one_time(start, "start", dataset.attrs)
    end = None if stop is None else one_time(stop, "stop", dataset.attrs)
    counted = countable(dataset, name, by)
    # Where the last time is, no attribute says.
    last = _last(counted) if end is None else None
    end = (begin if last is None else last) if end is None else end
    if stop is not None and end < begin:
        raise OptionError(
            f"stop={as_given(stop)} is before the start of the bins, {begin!r} s.",
            found=as_given(stop),
            expected=f"a time from {begin!r} s on",
        )
    size = max(0, whole_bins(end - begin, width))
    if size > sys.maxsize:
        raise OptionError(
            f"A width of {width:g} s would make {size:.2g} bins.",
            found=size,
            expected=sys.maxsize,
            next_step="Pass a larger width, or an earlier stop=.",
        )
    index = RegularTimeIndex.from_rate(begin, 1 / width, size, TIME, attrs=_described(width))
    rows = "row" if counted.rows is None else counted.rows
    if rows == TIME:
        raise OptionError(
            f"The rows to be counted have the dimension {TIME!r}, which is that of the bins.",
            path=counted.attributes["counted"],
            found=rows,
            next_step=f"Rename it first, such as with .rename({{{TIME!r}: 'unit'}}).",
        )
    attributes = {**counted.attributes, "description": "number of events in each bin"}
    bins = TimeBins(index.view, last if counted.ascending else None)
    counts = count_variable(counted.spikes, bins, (rows, TIME), attributes, whole=True)
    table = counted.columns.drop_vars(TIME, errors="ignore").assign_coords(index.coordinates())
    return table.assign({counted.name: counted.counted(counts)})


def _last(counted: Countable) -> float | None:
    """Return the last time of all rows, read from their ends where times ascend; None where there is none."""
    spikes = counted.spikes
    times = ends_of_rows(spikes) if counted.ascending else spikes.values.values
    known = times[np.isfinite(times)]
    return float(known.max()) if known.size else None


def _described(width: float) -> dict[str, Any]:
    return {
        "units": "s",
        "description": "left edge of each bin; a bin is [time, time + bin_width)",
        "bin_width": width,
    }


@dataclass(frozen=True, eq=False)
class Countable:
    """Times to be counted, and what is known of them."""

    name: str  # of their counts, with what a flat Dataset puts before names
    spikes: Spikes  # the times, in one row or several
    rows: Hashable | None  # the dimension of the rows; None for one row without a dimension
    columns: xr.Dataset  # what is known along the rows, as coordinates, with the Dataset's attributes
    attributes: dict[str, Any]  # of the counts
    # Reads when each row was observed, (interval, 2) of each; None where nothing says it.
    observed: Callable[[], list[NDArray[np.float64]] | None] = lambda: None
    ascending: bool = True  # whether the last time of each row is its latest; else all are one object's

    def counted(self, counts: xr.Variable) -> xr.Variable:
        """Return counts, rows first, without the dimension of a single row."""
        return counts if self.rows is not None else counts.isel({counts.dims[0]: 0})


def countable(dataset: xr.Dataset, name: str | None, by: str | None) -> Countable:
    """Return what to count: `name`, the units with spike times, or the only countable object.

    `by` is the column of one value each that events and timestamps are counted apart by.
    """
    shown = shown_objects(dataset)
    ragged = [each for each in shown if _ragged_times(dataset, each) is not None]
    if name is None and len(ragged) < 2 and has_spikes(dataset):
        return _of_units(dataset, by)
    if name is None and ragged:
        units = find_object(dataset, None, ragged, "tables of units with spike times")
        return _of_units(part_of(dataset, units), by)
    times = {each.path: own for each in shown if (own := _times(dataset, each)) is not None}
    column = _named_column(dataset, shown, name)
    if column is not None:
        return _of_events(dataset, *column, by)
    # A regular series is found where it is named, to say why it cannot be counted.
    candidates = [each for each in shown if each.path in times or each in ragged]
    regular = [each for each in shown if each.kind == "series" and each not in candidates]
    if name is not None or not candidates:
        candidates += regular
    if not candidates:
        raise NodeNotFoundError(
            f"There are no {_WHAT} in this view of {dataset.attrs.get('nwb_location', 'a session')}.",
            found=[each.name for each in shown],
            next_step="When selecting variables, keep the '_start' and '_count' of spike times, and the time "
            "of a series.",
        )
    found = find_object(dataset, name, candidates, _WHAT)
    if found in ragged:
        return _of_units(part_of(dataset, found), by)
    if found.path not in times:
        raise OptionError(
            f"{found.name!r} is a series without timestamps, so its samples cannot be counted as events.",
            path=found.path,
            found=found.name,
            expected=_WHAT,
            next_step="To align the values of a series, call align() without bin=; for means in bins, use "
            "resample_like(..., 'mean').",
        )
    return _of_events(dataset, found, times[found.path], by)


def _ragged_times(dataset: xr.Dataset, shown: ShownObject) -> str | None:
    """Return a table's ragged column of times: spike times of units, or times of kinds of events."""
    if shown.kind != "table":
        return None
    return next((each for each in RAGGED_TIMES if ragged_of(dataset, shown, each)), None)


def _of_units(dataset: xr.Dataset, by: str | None) -> Countable:
    if by is not None:
        raise OptionError(
            f"by={by!r} is not valid for units, which are counted separately.",
            found=by,
            next_step=f"Sum the counts of units, such as counts.groupby({by!r}).sum().",
        )
    units = unit_table(dataset)
    return Countable(
        units.counts_name,
        units.spikes,
        units.dimension,
        unit_columns(dataset, units),
        {"units": "1", "counted": str(units.attributes.get("nwb_path", units.name))},
        partial(observed_intervals, dataset, units),
    )


def _times(dataset: xr.Dataset, shown: ShownObject) -> str | SessionTime | None:
    """Return the times of an object's events: a table's column, or the timestamps of an irregular series."""
    if shown.kind == "table":
        return row_time(dataset, shown)
    return event_time_of(dataset, shown)


def _named_column(
    dataset: xr.Dataset, shown: list[ShownObject], name: str | None
) -> tuple[ShownObject, str] | None:
    """Find the column of times of a table, by the name of its variable."""
    if not isinstance(name, str):
        return None
    for table in (each for each in shown if each.kind == "table" and name in each.variables):
        for column in shown_columns(dataset, table):
            variable = dataset.variables[column.variable]
            is_time = variable.attrs.get("units") == "s" or variable.dtype.kind == "M"
            if column.variable == name and not column.bounds and is_time and variable.dims == (table.rows,):
                return table, column.variable
    return None


def _of_events(
    dataset: xr.Dataset, shown: ShownObject, times: str | SessionTime, by: str | None
) -> Countable:
    variable = dataset.variables[times if isinstance(times, str) else times.name]
    values = seconds_variable(variable, dataset.attrs, repr(times))
    (along,) = values.dims
    size = values.sizes[along]
    alone = dataset.attrs.get("nwb_path") == shown.path
    prefix = "" if alone else f"{shown.name}_"
    described = {"units": "1", "counted": variable.attrs.get("nwb_path", shown.path)}
    rest = dataset.drop_vars(list(dataset.variables))  # what says where it is from
    is_series = not isinstance(times, str)
    if by is None:
        spikes = Spikes(values, np.zeros(1, np.int64), np.array([size]))
        return Countable(prefix + EVENT_COUNTS, spikes, None, rest, described, ascending=is_series)
    label, kinds = _kinds(dataset, shown, by, along)
    codes, found = pd.factorize(kinds, sort=True)
    order = np.argsort(codes, kind="stable")
    # Events without a kind come first, and are of none.
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    starts = np.count_nonzero(codes < 0) + np.cumsum(counts) - counts
    spikes = Spikes(values.isel({along: order}), starts, counts)
    columns = rest.assign_coords({label: (label, np.asarray(found))})
    return Countable(prefix + EVENT_COUNTS, spikes, label, columns, described, ascending=False)


def _kinds(dataset: xr.Dataset, shown: ShownObject, by: str, along: Hashable) -> tuple[str, NDArray[Any]]:
    """Return what kind each event is of, by a column or a series' own values, and the name of that."""
    if shown.kind == "table":
        labels = plain_columns(dataset, shown)
    else:
        labels = {name: name for name in shown.variables if name not in dataset.xindexes}
    known = {label: name for label, name in labels.items() if dataset.variables[name].dims == (along,)}
    name = known.get(by, by if by in known.values() else None)
    if name is None:
        raise OptionError(
            f"{shown.name!r} has no column by={by!r} with one value per event; its columns are "
            f"{listed(known)}.",
            path=shown.path,
            found=by,
            expected=list(known),
            next_step=did_you_mean(str(by), known),
        )
    return by, dataset.variables[name].values


class Bins(Protocol):
    """Bins that times are counted in, along one or several axes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return how many there are along each axis."""

    def of_rows(self, rows: NDArray[Any]) -> Bins:
        """Return the bins of some rows of what is counted, by position."""

    def count(
        self, trains: list[NDArray[np.float64]], axes: Sequence[NDArray[Any]], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Count the times of each row in some of the bins, by position along each axis: (row, ...)."""


def count_variable(
    spikes: Spikes,
    bins: Bins,
    dims: tuple[Hashable, ...],
    attributes: dict[str, Any],
    *,
    whole: bool,
) -> xr.Variable:
    """Return counts along rows and bins, as a dask array if the times are one, otherwise lazy.

    They are integers where every count is known, which `whole` says.
    """
    array = CountArray(spikes, bins, whole)
    if spikes.values.chunks is not None:
        return xr.Variable(dims, _of_dask(spikes, bins, array.dtype), attributes)
    return lazy_variable(dims, array, attributes, cache=True)


@dataclass(frozen=True, eq=False)
class CountArray(Computed):
    """Lazy counts; a selection reads the times of its rows, in one gather."""

    spikes: Spikes  # of every row
    bins: Bins
    whole: bool  # whether every count is known

    @property
    def sources(self) -> tuple[xr.Variable]:
        """Return the times."""
        return (self.spikes.values,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of rows and of bins."""
        return (len(self.spikes), *self.bins.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return int64, or float64 where counts may be missing."""
        return np.dtype(np.int64 if self.whole else np.float64)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return one row and all bins."""
        return (1, *(max(1, size) for size in self.bins.shape))

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Count the times of a selection."""
        rows, *places = (np.asarray(axis, np.int64) for axis in axes)
        return self.bins.of_rows(rows).count(self.spikes.take(rows).trains(), places, self.dtype)


def _of_dask(spikes: Spikes, bins: Bins, dtype: np.dtype[Any]) -> Any:
    """Return a dask array of blocks that each are a group of rows."""
    import dask.array as da

    sizes = np.maximum(spikes.counts, max(prod(bins.shape), 1)) * dtype.itemsize
    blocks = [_block(spikes.take(group), bins.of_rows(group), dtype) for group in grouped(sizes, target())]
    return da.concatenate(blocks) if blocks else da.zeros((0, *bins.shape), dtype=dtype)  # type: ignore[no-untyped-call]


def _block(spikes: Spikes, bins: Bins, dtype: np.dtype[Any]) -> Any:
    import dask.array as da

    shape = (len(spikes), *bins.shape)
    found = sliced(spikes.values.data, spikes.starts, spikes.starts + spikes.counts)
    values, runs = found or (da.zeros(0), Runs(np.zeros(1, np.int64), np.zeros(1, np.int64)))
    return da.map_blocks(  # type: ignore[no-untyped-call]
        partial(_counted, starts=spikes.starts, counts=spikes.counts, runs=runs, bins=bins, dtype=dtype),
        values,
        dtype=dtype,
        chunks=tuple((length,) for length in shape),
        new_axis=list(range(1, len(shape))),
        meta=np.empty((0,) * len(shape), dtype),
    )


def _counted(
    values: NDArray[Any],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    runs: Runs,
    bins: Bins,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    begins = np.where(counts > 0, runs.places(starts), 0)
    trains = [ascending(values[begin : begin + count]) for begin, count in zip(begins, counts, strict=True)]
    return bins.count(trains, [np.arange(size) for size in bins.shape], dtype)


@dataclass(frozen=True, eq=False)
class TimeBins:
    """Contiguous bins of equal width."""

    view: TimestampView  # where each begins
    last: float | None = None  # the last time, by the ends of rows; None where nothing relies on that

    @property
    def shape(self) -> tuple[int, ...]:
        """Return how many there are."""
        return (len(self.view),)

    def of_rows(self, rows: NDArray[Any]) -> Self:  # noqa: ARG002 - the same for all
        """Return the same bins."""
        return self

    def count(
        self, trains: list[NDArray[np.float64]], axes: Sequence[NDArray[Any]], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Count times in some of the bins, (row, time); raise `SelectionError` where a row falls."""
        (bins,) = axes
        timestamps, samples = self.view.timestamps, self.view.samples_at(bins)
        starts, stops = timestamps.at(samples), timestamps.at(samples + 1)
        counts = np.zeros((len(trains), len(bins)), dtype)
        for row, train in enumerate(trains):
            if self.last is not None and len(train) and self.last < train[-1] < np.inf:
                raise SelectionError(
                    f"Times do not ascend, so that the last bin is too early: the last times of all rows are "
                    f"at most {self.last!r} s, but one row has a time of {float(train[-1])!r} s.",
                    found=float(train[-1]),
                    expected=f"times up to {self.last!r} s",
                    next_step="Pass stop=.",
                )
            counts[row] = np.searchsorted(train, stops) - np.searchsorted(train, starts)
        return counts


@dataclass(frozen=True, eq=False)
class EventBins:
    """Bins around events, and in which of them each unit was observed."""

    times: NDArray[np.float64]  # of the events in seconds, (event,); NaN where an event has none
    edges: NDArray[np.float64]  # of the bins in seconds from the event, (lag + 1,)
    observed: tuple[NDArray[np.float64], ...] | None  # of each unit, (interval, 2); None: at all times

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of events and of lags."""
        return len(self.times), len(self.edges) - 1

    def of_rows(self, rows: NDArray[Any]) -> Self:
        """Return the bins of some units, by position."""
        if self.observed is None:
            return self
        return replace(self, observed=tuple(self.observed[row] for row in rows))

    def count(
        self, trains: list[NDArray[np.float64]], axes: Sequence[NDArray[Any]], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Count ascending spike times, (unit, event, lag), with NaN in floats where they are not known."""
        events, lags = axes
        times = self.times[events][:, np.newaxis]
        starts, stops = times + self.edges[lags], times + self.edges[lags + 1]
        counts = np.empty((len(trains), *starts.shape), dtype)
        for unit, train in enumerate(trains):
            # Half-open: a spike at an edge is in the bin that begins there.
            counts[unit] = np.searchsorted(train, stops) - np.searchsorted(train, starts)
            if dtype.kind == "f":
                counts[unit][~self._known(unit, starts, stops)] = np.nan
        return counts

    def incomplete(self, units: int) -> NDArray[np.bool_]:
        """Return whether an event has bins in which some unit was not observed, (event,)."""
        starts = self.times[:, np.newaxis] + self.edges[:-1]
        stops = self.times[:, np.newaxis] + self.edges[1:]
        missing = ~np.isfinite(self.times)
        for unit in range(units if self.observed is not None else 0):
            missing |= ~np.all(self._known(unit, starts, stops), axis=1)
        return missing

    def _known(self, unit: int, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return whether a unit was observed through whole bins."""
        known = np.isfinite(starts)
        if self.observed is None:
            return known
        intervals = self.observed[unit]
        if not len(intervals):
            return np.zeros_like(known)
        place = np.searchsorted(intervals[:, 0], starts, side="right") - 1
        observed: NDArray[np.bool_] = known & (place >= 0) & (stops <= intervals[place, 1])
        return observed
