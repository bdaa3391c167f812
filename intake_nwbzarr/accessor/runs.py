"""Pieces of a recording, one after the other, as lazy as the recording is: its values and its times."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, override

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.peri_event.runs import Runs
from intake_nwbzarr.accessor.times import SessionTime
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.arrays.selection import Key, select
from intake_nwbzarr.indexes.index import LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import Floats, Positions, Timestamps, TimestampView
from intake_nwbzarr.xarray_internals import is_lazy


def pieces_of(dataset: xr.Dataset, time: SessionTime, index: LazyTimeIndex, runs: Runs) -> xr.Dataset:
    """Keep pieces of a recording along its time.

    Neither values nor timestamps are read, and no position of a sample is kept: pickles stay small, however
    many samples there are.

    Parameters
    ----------
    dataset
        Holds the recording.
    time, index
        Its time, lazily indexed.
    runs
        The samples to keep.
    """
    view = TimestampView(PieceTimestamps(index.view, runs), range(runs.size))
    attributes = dataset.coords.variables[time.name].attrs
    times = LazyTimeIndex(view, time.dim, time.name, attributes)
    times.sessions = index.sessions
    return _cut(dataset, time.dim, runs, time.name).assign_coords(times.coordinates())


def pieces_along(dataset: xr.Dataset, dim: Hashable, runs: Runs) -> xr.Dataset:
    """Keep pieces along a dimension that no lazy index is on, as `pieces_of`."""
    if any(dim in dataset.variables[name].dims for name in dataset.xindexes):
        return dataset.isel({dim: runs.positions()})
    return _cut(dataset, dim, runs, None)


def _cut(dataset: xr.Dataset, dim: Hashable, runs: Runs, indexed: Hashable | None) -> xr.Dataset:
    parts = {
        name: _piece(variable, dim, runs)
        for name, variable in dataset.variables.items()
        if dim in variable.dims and name != indexed
    }
    coordinates = {name: parts.pop(name) for name in list(parts) if name in dataset.coords}
    # As long as the pieces are, and then these in place of it: everything stays in its order.
    cut = dataset.isel({dim: slice(runs.size)})
    return cut.assign(parts).assign_coords(coordinates)


def _piece(variable: xr.Variable, dim: Hashable, runs: Runs) -> xr.Variable:
    if not is_lazy(variable):
        return variable.isel({dim: runs.positions()})
    # Where it is from, and how it is written; not how the whole of it is best cut.
    encoding = {key: value for key, value in variable.encoding.items() if key != "preferred_chunks"}
    array = PieceArray(variable, dim, runs)
    return lazy_variable(variable.dims, array, variable.attrs, encoding, cache=True)


@dataclass(frozen=True, eq=False)
class PieceArray:
    """Pieces of a lazy variable, read by outer selections.

    Parameters
    ----------
    source
        The whole of it.
    dim
        What it is cut along.
    runs
        Where the pieces are.
    """

    source: xr.Variable
    dim: Hashable
    runs: Runs

    @property
    def shape(self) -> tuple[int, ...]:
        """The source's, as long as all pieces."""
        return tuple(self.runs.size if dim == self.dim else size for dim, size in self.source.sizes.items())

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source's."""
        dtype: np.dtype[Any] = self.source.dtype
        return dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """As the source is best read."""
        preferred = self.source.encoding.get("preferred_chunks", {})
        return tuple(
            max(1, min(preferred.get(dim, size), size))
            for dim, size in zip(self.source.dims, self.shape, strict=True)
        )

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Read a selection."""
        selection = select(key, self.shape)
        if 0 in selection.shape:
            return np.empty(selection.final_shape, self.dtype)
        axes = dict(zip(self.source.dims, selection.axes, strict=True))
        axes[self.dim] = self.runs.at(np.asarray(axes[self.dim], np.int64))
        read: NDArray[Any] = self.source.isel({dim: _as_key(axis) for dim, axis in axes.items()}).values
        return read.reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        from dask.base import tokenize

        return ("PieceArray", tokenize(self.source, self.dim, self.runs.starts, self.runs.lengths))


def _as_key(positions: range | NDArray[np.integer[Any]]) -> slice | NDArray[np.integer[Any]]:
    """Positions as a slice where they are consecutive, which the source reads as it is stored."""
    if len(positions) and np.array_equal(positions, np.arange(positions[0], positions[0] + len(positions))):
        return slice(int(positions[0]), int(positions[0]) + len(positions))
    return np.asarray(positions, np.intp)


@dataclass(frozen=True, eq=False)
class PieceTimestamps(Timestamps):
    """Times of pieces of a recording: found in it, and read from it, when they are asked for.

    Parameters
    ----------
    whole
        The recording's, ascending.
    runs
        Where the pieces are in it.
    """

    whole: TimestampView
    runs: Runs

    @override
    def at(self, positions: Positions) -> Floats:
        return self.whole.at(self.runs.at(positions))

    @override
    def read(self, positions: range) -> Floats:
        return self.at(np.asarray(positions, np.int64))

    @override
    def insertion_points(self, labels: Floats, after: NDArray[np.bool_], within: range) -> Positions:
        before, through = self.whole.bounds(labels)
        return self.runs.count_before(np.where(after, through, before))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PieceTimestamps)
            and (self.whole.timestamps, self.whole.samples) == (other.whole.timestamps, other.whole.samples)
            and np.array_equal(self.runs.starts, other.runs.starts)
            and np.array_equal(self.runs.lengths, other.runs.lengths)
        )

    def __hash__(self) -> int:
        return hash((type(self).__qualname__, self.runs.size))

    def __deepcopy__(self, memo: object) -> PieceTimestamps:
        return self

    def __dask_tokenize__(self) -> object:
        return (type(self).__qualname__, self.whole, self.runs.starts, self.runs.lengths)
