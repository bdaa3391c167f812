"""A series' values at another series' times: samples found and read when a selection asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from intake_nwbzarr.arrays.selection import Key, select
from intake_nwbzarr.indexes.index import LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import Floats

type ResampleMethod = Literal["nearest", "ffill", "linear", "mean"]
"""How `resample_like` makes a value at a time at which there is no sample."""

# Decoded bytes of the source that are averaged at once.
_AT_ONCE = 64 * 2**20


@dataclass(frozen=True, eq=False)
class ResampledArray:
    """Values along another time, computed for whatever part of them is selected.

    Parameters
    ----------
    source
        The series; stays as lazy as it is.
    axis
        Of its time.
    times
        The source's time.
    labels
        The other time.
    method, tolerance
        As of `NWBAccessor.resample_like`.
    """

    source: xr.Variable
    axis: int
    times: LazyTimeIndex
    labels: LazyTimeIndex
    method: ResampleMethod
    tolerance: float | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The source's, as long as the other time."""
        shape = self.source.shape
        return (*shape[: self.axis], self.labels.size, *shape[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype[Any]:
        """What can hold NaN: integers and booleans become float64."""
        own = self.source.dtype
        return own if own.kind in "fcO" else np.dtype(np.float64)

    @property
    def chunks(self) -> tuple[int, ...]:
        """About as many values at once as the source prefers, along the whole of its other axes."""
        rest = prod((*self.shape[: self.axis], *self.shape[self.axis + 1 :])) or 1
        width = max(1, min(self.labels.size, 2**20 // rest))
        return (*self.shape[: self.axis], width, *self.shape[self.axis + 1 :])

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """The values at the selected times, reading the samples that they are made of.

        Raises
        ------
        SelectionError
            When the source's timestamps, or with ``mean`` the other's, cannot be searched.
        """
        selection = select(key, self.shape)
        wanted = np.asarray(selection.axes[self.axis], np.int64)
        others = {
            dim: np.asarray(positions)
            for dim, positions in zip(self.source.dims, selection.axes, strict=True)
            if dim != self.dim
        }
        # Whole axes stay slices: the source then reads them as it is stored.
        others = {
            dim: positions
            for dim, positions in others.items()
            if not np.array_equal(positions, np.arange(self.source.sizes[dim]))
        }
        source = self.source.isel(others)
        values = self._means(source, wanted) if self.method == "mean" else self._samples(source, wanted)
        return values.astype(self.dtype, copy=False).reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    @property
    def dim(self) -> Hashable:
        """The source's time dimension."""
        return self.source.dims[self.axis]

    def __dask_tokenize__(self) -> Hashable:
        parts = (self.source, self.axis, self.times.view, self.labels.view, self.method, self.tolerance)
        return ("ResampledArray", tokenize(*parts))

    def _samples(self, source: xr.Variable, wanted: NDArray[np.int64]) -> NDArray[Any]:
        """One sample, or two of them, for each wanted time."""
        times = self.labels.view.at(wanted)
        result = np.full((*_without(source.shape, self.axis), len(times)), np.nan, self.dtype)
        if len(self.times.view) and len(times):
            if self.method == "linear":
                self._interpolate(source, times, result)
            else:
                self._copy(source, times, result)
        return np.moveaxis(result, -1, self.axis)

    def _copy(self, source: xr.Variable, times: Floats, result: NDArray[Any]) -> None:
        """Fill in the sample that is nearest to each time, or the last one before it."""
        method = "nearest" if self.method == "nearest" else "pad"
        # Looked for first: that is what finds out whether the source's times are in order.
        found = self.times.view.locate(times, method, self.tolerance)
        first, last = self._ends
        inside = np.flatnonzero((found >= 0) & (times >= first) & (times <= last))
        result[..., inside] = self._take(source, found[inside])

    @cached_property
    def _ends(self) -> tuple[float, float]:
        """The source's first and last time."""
        first, last = self.times.view.at([0, -1])
        return float(first), float(last)

    def _interpolate(self, source: xr.Variable, times: Floats, result: NDArray[Any]) -> None:
        """Fill in what lies on the straight line between two samples."""
        view = self.times.view
        before = view.locate(times, "pad", self.tolerance)
        after = view.locate(times, "backfill", self.tolerance)
        inside = np.flatnonzero((before >= 0) & (after >= 0))
        before, after = before[inside], after[inside]
        if not inside.size:
            return
        both = self._take(source, np.concatenate([before, after])).astype(self.dtype, copy=False)
        left, right = both[..., : len(before)], both[..., len(before) :]
        start, stop = view.at(before), view.at(after)
        # Where a sample is at the very time, it is the value, whatever its neighbour holds.
        apart = np.where(stop > start, stop - start, 1.0)
        share = ((times[inside] - start) / apart).astype(left.real.dtype)
        with np.errstate(invalid="ignore"):
            result[..., inside] = np.where(before == after, left, left + (right - left) * share)

    def _take(self, source: xr.Variable, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Samples at positions, time last; each is read once, consecutive ones as a slice."""
        if not positions.size:
            return np.empty((*_without(source.shape, self.axis), 0), source.dtype)
        unique, inverse = np.unique(positions, return_inverse=True)
        span = slice(int(unique[0]), int(unique[-1]) + 1)
        consecutive = span.stop - span.start == unique.size
        read = _values(source.isel({self.dim: span if consecutive else unique}))
        return np.asarray(np.moveaxis(read, self.axis, -1)[..., inverse])

    def _means(self, source: xr.Variable, wanted: NDArray[np.int64]) -> NDArray[Any]:
        """The mean of the samples from each wanted time on and before the next; NaN where there is none."""
        result = np.full((*_without(source.shape, self.axis), len(wanted)), np.nan, self.dtype)
        first, last = self._edges(wanted)
        for places, span in self._pieces(first, last, source):
            read = np.moveaxis(_values(source.isel({self.dim: span})), self.axis, -1)
            exact = np.result_type(read.dtype, np.float64)
            # One more at the end, for the last interval to end before.
            padded = np.concatenate([read, np.zeros((*read.shape[:-1], 1))], axis=-1, dtype=exact)
            edges = np.stack([first[places], last[places]], axis=-1).ravel() - span.start
            sums = np.add.reduceat(padded, edges, axis=-1)[..., ::2]
            result[..., places] = sums / (last[places] - first[places])
        return np.moveaxis(result, -1, self.axis)

    def _edges(self, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The positions of the first sample of each interval, and of the first one after it."""
        if not len(self.times.view) or not wanted.size:
            return np.zeros_like(wanted), np.zeros_like(wanted)
        starts, stops = self.labels.view.at(wanted), np.full(len(wanted), np.nan)
        followed = wanted + 1 < self.labels.size
        stops[followed] = self.labels.view.at(wanted[followed] + 1)
        if (regular := self.labels.as_regular) is not None:
            samples = regular.samples
            stops[~followed] = regular.timestamps.at(np.array([samples[-1] + samples.step]))
        return self._count_before(starts), self._count_before(stops)

    def _count_before(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        found = self.times.view.locate(times, "backfill")
        # No sample from there on: all come before. Without an end there is no interval: none do.
        return np.where(np.isnan(times), 0, np.where(found < 0, len(self.times.view), found))

    def _pieces(
        self, first: NDArray[np.int64], last: NDArray[np.int64], source: xr.Variable
    ) -> Iterator[tuple[NDArray[np.int64], slice]]:
        """Wanted times whose samples are read together, and where those lie."""
        width = max(1, prod(_without(source.shape, self.axis))) * max(1, source.dtype.itemsize)
        places = np.flatnonzero(last > first)
        places = places[np.argsort(first[places], kind="stable")]
        start, begin, end = 0, 0, 0
        for at, place in enumerate(places.tolist()):
            opens, closes = int(first[place]), int(last[place])
            if at > start and (opens > end or (closes - begin) * width > _AT_ONCE):
                yield places[start:at], slice(begin, end)
                start = at
            begin, end = (opens, closes) if at == start else (begin, max(end, closes))
        if places.size:
            yield places[start:], slice(begin, end)


def _values(variable: xr.Variable) -> NDArray[Any]:
    """A variable's values, also where it is of dask and this runs in a task of dask's already."""
    read: NDArray[Any] = (
        variable.values if variable.chunks is None else variable.compute(scheduler="threads").values
    )
    return read


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])
