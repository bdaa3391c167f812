"""Spike counts in bins of equal width, (unit, time)."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.seconds import Time, one_time
from intake_nwbzarr.accessor.peri_event.lags import checked_positive, whole_bins
from intake_nwbzarr.accessor.spikes.units import Spikes, unit_columns, unit_table
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.arrays.selection import Key, select
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.indexes import RegularTimeIndex
from intake_nwbzarr.indexes.timestamps import TimestampView

TIME = "time"


def bin_spikes(
    dataset: xr.Dataset, width: float, *, start: Time | None = None, stop: Time | None = None
) -> xr.DataArray:
    """Spike counts in bins; see `intake_nwbzarr.accessor.NWBAccessor.bin`."""
    width = checked_positive(width, "width", "a number of seconds")
    begin = 0.0 if start is None else one_time(start, "start", dataset.attrs)
    units = unit_table(dataset)
    spikes = units.spikes
    if stop is None:
        # Where the last spike is, no attribute says: they are read now, and kept.
        spikes = _loaded(spikes)
        times = spikes.values.values
        last = float(np.nanmax(times)) if times.size and not np.isnan(times).all() else begin
    else:
        last = one_time(stop, "stop", dataset.attrs)
        if last < begin:
            raise OptionError(f"stop={stop!r} is before the start, {begin!r} s.")
    size = max(0, whole_bins(last - begin, width))
    index = RegularTimeIndex.from_rate(begin, 1 / width, size, TIME, attrs=_described(width))
    if TIME in dataset.dims and units.dimension == TIME:
        raise OptionError(f"The units lie along {TIME!r}, which the result needs for the bins; rename it.")
    counts = lazy_variable(
        (units.dimension, TIME),
        SpikeCounts(spikes, index.view),
        units.count_attributes("number of spikes in each bin"),
        cache=True,
    )
    table = unit_columns(dataset, units)
    table = table.drop_vars([name for name in table.coords if name == TIME])
    return table.assign_coords(index.coordinates()).assign({units.counts_name: counts})[units.counts_name]


@dataclass(frozen=True, eq=False)
class SpikeCounts:
    """Lazy counts, read by outer selections: of the selected units and bins only.

    Parameters
    ----------
    spikes
        Of every unit.
    bins
        Where each begins; the next one begins where it ends.
    """

    spikes: Spikes
    bins: TimestampView

    @property
    def shape(self) -> tuple[int, ...]:
        """Units and bins."""
        return len(self.spikes), len(self.bins)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always int64."""
        return np.dtype(np.int64)

    @property
    def chunks(self) -> tuple[int, ...]:
        """One unit and all bins."""
        return 1, len(self.bins)

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Count the spikes of a selection."""
        selection = select(key, self.shape)
        units, bins = (np.asarray(axis, np.int64) for axis in selection.axes)
        counts = np.zeros((len(units), len(bins)), np.int64)
        if not counts.size:
            return counts.reshape(selection.final_shape)
        timestamps = self.bins.timestamps
        starts, stops = timestamps.at(bins), timestamps.at(bins + 1)
        for row, train in enumerate(self.spikes.take(units).trains()):
            counts[row] = np.searchsorted(train, stops) - np.searchsorted(train, starts)
        return counts.reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        from dask.base import tokenize

        return ("SpikeCounts", tokenize(self.spikes, self.bins.timestamps, len(self.bins)))


def _loaded(spikes: Spikes) -> Spikes:
    return Spikes(spikes.read(), np.cumsum(spikes.counts) - spikes.counts, spikes.counts)


def _described(width: float) -> dict[str, Any]:
    return {
        "units": "s",
        "description": "left edge of each bin; a bin is [time, time + bin_width)",
        "bin_width": width,
    }
