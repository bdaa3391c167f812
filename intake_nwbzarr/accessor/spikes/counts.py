"""Counts of spikes, and of other events, in bins of any kind: lazy, or of dask."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.peri_event.dask_slices import grouped, sliced
from intake_nwbzarr.accessor.peri_event.runs import Runs
from intake_nwbzarr.accessor.spikes.units import Spikes, ascending
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.arrays.blocks import target
from intake_nwbzarr.arrays.selection import Key, select


class AnyBins(Protocol):
    """Bins that times are counted in, along one or several axes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How many there are along each axis."""

    def of_rows(self, rows: NDArray[Any]) -> AnyBins:
        """The bins of some rows of what is counted, by position."""

    def count(
        self, trains: list[NDArray[np.float64]], axes: Sequence[NDArray[Any]], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Count the times of each row in some of the bins, by position along each axis: (row, ...)."""


def count_variable(
    spikes: Spikes,
    bins: AnyBins,
    dims: tuple[Hashable, ...],
    attributes: dict[str, Any],
    *,
    whole: bool,
) -> xr.Variable:
    """Counts of spikes, or of other events.

    Parameters
    ----------
    spikes
        Of every row.
    bins
        Where they are counted.
    dims
        The rows, and what the bins lie along.
    attributes
        Of the counts.
    whole
        Whether every count is known, so that they are integers.

    Returns
    -------
    xarray.Variable
        Of dask where the times are, and lazy where they are not.
    """
    dtype = np.dtype(np.int64 if whole else np.float64)
    if spikes.values.chunks is not None:
        return xr.Variable(dims, _of_dask(spikes, bins, dtype), attributes)
    return lazy_variable(dims, LazyCounts(spikes, bins, dtype), attributes, cache=True)


@dataclass(frozen=True, eq=False)
class LazyCounts:
    """Lazy counts, read by outer selections: the times of the selected rows, in one gather.

    Parameters
    ----------
    spikes
        Of every row.
    bins
        Where they are counted.
    dtype
        Of the counts.
    """

    spikes: Spikes
    bins: AnyBins
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and bins."""
        return (len(self.spikes), *self.bins.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """One row and all bins."""
        return (1, *(max(1, size) for size in self.bins.shape))

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Count the times of a selection."""
        selection = select(key, self.shape)
        if 0 in selection.shape:
            return np.empty(selection.final_shape, self.dtype)
        rows, *axes = (np.asarray(axis, np.int64) for axis in selection.axes)
        trains = self.spikes.take(rows).trains()
        return self.bins.of_rows(rows).count(trains, axes, self.dtype).reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        from dask.base import tokenize

        return ("LazyCounts", tokenize(self.spikes, self.bins, self.dtype.str))


def _of_dask(spikes: Spikes, bins: AnyBins, dtype: np.dtype[Any]) -> Any:
    """A dask array of blocks that each are a group of rows."""
    import dask.array as da

    sizes = np.maximum(spikes.counts, max(prod(bins.shape), 1)) * dtype.itemsize
    blocks = [_block(spikes.take(group), bins.of_rows(group), dtype) for group in grouped(sizes, target())]
    return da.concatenate(blocks) if blocks else da.zeros((0, *bins.shape), dtype=dtype)  # type: ignore[no-untyped-call]


def _block(spikes: Spikes, bins: AnyBins, dtype: np.dtype[Any]) -> Any:
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
    bins: AnyBins,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    begins = np.where(counts > 0, runs.places(starts), 0)
    trains = [ascending(values[begin : begin + count]) for begin, count in zip(begins, counts, strict=True)]
    return bins.count(trains, [np.arange(size) for size in bins.shape], dtype)
