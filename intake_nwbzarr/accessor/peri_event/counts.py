"""Spike counts around events, (unit, event, lag)."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.peri_event.dask_slices import grouped, sliced
from intake_nwbzarr.accessor.peri_event.runs import Runs
from intake_nwbzarr.accessor.spikes.units import Spikes, ascending
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.arrays.blocks import TARGET
from intake_nwbzarr.arrays.selection import Key, select


@dataclass(frozen=True, eq=False)
class Bins:
    """Bins around events, and in which of them each unit was observed.

    Parameters
    ----------
    times
        Of the events in seconds, (event,); NaN where an event has none.
    edges
        Of the bins in seconds from the event, (lag + 1,).
    observed
        When each unit was observed, (interval, 2) of each; None: whenever an event has a time.
    """

    times: NDArray[np.float64]
    edges: NDArray[np.float64]
    observed: tuple[NDArray[np.float64], ...] | None

    @property
    def shape(self) -> tuple[int, int]:
        """Events and lags."""
        return len(self.times), len(self.edges) - 1

    def of_units(self, units: NDArray[Any]) -> Self:
        """The bins of some units, by position."""
        if self.observed is None:
            return self
        return replace(self, observed=tuple(self.observed[unit] for unit in units))

    def take(self, events: NDArray[Any]) -> Self:
        """Those of some events, by position."""
        return replace(self, times=self.times[events])

    def count(
        self, trains: list[NDArray[np.float64]], lags: NDArray[Any], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Count spikes, (unit, event, lag), with NaN where they are not known.

        Parameters
        ----------
        trains
            The spike times of each unit, ascending.
        lags
            Which bins, by position.
        dtype
            Of the result: float64, or int64 where nothing is missing.
        """
        starts = self.times[:, np.newaxis] + self.edges[lags]
        stops = self.times[:, np.newaxis] + self.edges[lags + 1]
        counts = np.empty((len(trains), *starts.shape), dtype)
        for unit, train in enumerate(trains):
            # Half-open: a spike at an edge is in the bin that begins there.
            counts[unit] = np.searchsorted(train, stops) - np.searchsorted(train, starts)
            if dtype.kind == "f":
                counts[unit][~self._known(unit, starts, stops)] = np.nan
        return counts

    def incomplete(self, units: int) -> NDArray[np.bool_]:
        """Whether an event has bins in which some unit was not observed, (event,)."""
        starts = self.times[:, np.newaxis] + self.edges[:-1]
        stops = self.times[:, np.newaxis] + self.edges[1:]
        missing = ~np.isfinite(self.times)
        for unit in range(units if self.observed is not None else 0):
            missing |= ~np.all(self._known(unit, starts, stops), axis=1)
        return missing

    def _known(self, unit: int, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a unit was observed through whole bins."""
        known = np.isfinite(starts)
        if self.observed is None:
            return known
        intervals = self.observed[unit]
        if not len(intervals):
            return np.zeros_like(known)
        place = np.searchsorted(intervals[:, 0], starts, side="right") - 1
        observed: NDArray[np.bool_] = known & (place >= 0) & (stops <= intervals[place, 1])
        return observed


def count_variable(
    spikes: Spikes,
    bins: Bins,
    dims: tuple[Hashable, Hashable, Hashable],
    attributes: dict[str, Any],
    *,
    whole: bool,
) -> xr.Variable:
    """Spike counts around events.

    Parameters
    ----------
    spikes
        Of every unit.
    bins
        Where they are counted.
    dims
        Units, events and lags.
    attributes
        Of the counts.
    whole
        Whether every count is known, so that they are integers.

    Returns
    -------
    xarray.Variable
        Of dask where the spike times are, and lazy where they are not.
    """
    dtype = np.dtype(np.int64 if whole else np.float64)
    if spikes.values.chunks is not None:
        return xr.Variable(dims, _of_dask(spikes, bins, dtype), attributes)
    return lazy_variable(dims, PeriEventCounts(spikes, bins, dtype), attributes, cache=True)


@dataclass(frozen=True, eq=False)
class PeriEventCounts:
    """Lazy counts, read by outer selections: the spikes of the selected units, in one gather.

    Parameters
    ----------
    spikes
        Of every unit.
    bins
        Where they are counted.
    dtype
        float64, or int64 where nothing is missing.
    """

    spikes: Spikes
    bins: Bins
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Units, events and lags."""
        return (len(self.spikes), *self.bins.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """One unit, all events and lags."""
        return (1, *self.bins.shape)

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Count the spikes of a selection."""
        selection = select(key, self.shape)
        if 0 in selection.shape:
            return np.empty(selection.final_shape, self.dtype)
        units, events, lags = (np.asarray(axis, np.int64) for axis in selection.axes)
        trains = self.spikes.take(units).trains()
        bins = self.bins.of_units(units).take(events)
        return bins.count(trains, lags, self.dtype).reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        from dask.base import tokenize

        return ("PeriEventCounts", tokenize(self.spikes, self.bins, self.dtype.str))


def _of_dask(spikes: Spikes, bins: Bins, dtype: np.dtype[Any]) -> Any:
    """A dask array of blocks that each are a group of units."""
    import dask.array as da

    events, lags = bins.shape
    sizes = np.maximum(spikes.counts, max(events * lags, 1)) * dtype.itemsize
    blocks = [_block(spikes.take(group), bins.of_units(group), dtype) for group in grouped(sizes, TARGET)]
    return da.concatenate(blocks) if blocks else da.zeros((0, events, lags), dtype=dtype)  # type: ignore[no-untyped-call]


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
        new_axis=[1, 2],
        meta=np.empty((0, 0, 0), dtype),
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
    return bins.count(trains, np.arange(bins.shape[1]), dtype)
