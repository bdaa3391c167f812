"""Runs of neighbouring positions along a dimension, put one after the other in lazy and dask arrays."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Self, override

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.ragged import run_positions
from intake_nwbzarr.accessor.times import SessionTime
from intake_nwbzarr.arrays import Computed, lazy_variable, read_source
from intake_nwbzarr.arrays.selection import Axes
from intake_nwbzarr.indexes.index import LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import Floats, Positions, Timestamps, TimestampView
from intake_nwbzarr.xarray_internals import is_lazy


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of positions, apart from each other; made by `of`."""

    starts: NDArray[np.int64]  # where each begins, ascending, (run,)
    lengths: NDArray[np.int64]  # how many positions it has, (run,)

    @classmethod
    def of(cls, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Self:
        """Unite intervals in any order; those that overlap or touch become one run, empty ones none.

        >>> Runs.of(np.array([5, 0, 9, 3]), np.array([7, 4, 9, 5]))
        Runs(starts=array([0]), lengths=array([7]))
        """
        starts, stops = united(starts[starts < stops], stops[starts < stops])
        return cls(starts, stops - starts)

    @property
    def size(self) -> int:
        """Return the number of positions."""
        return int(self.lengths.sum())

    def positions(self) -> slice | NDArray[np.int64]:
        """Return all positions, ascending."""
        return run_positions(self.starts, self.lengths)

    def places(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where positions are among all of them; any number for one that is in no run."""
        run = np.searchsorted(self.starts, positions, side="right") - 1
        return positions + (self._offsets - self.starts)[run]

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions at places among all of them, the inverse of `places`.

        >>> Runs.of(np.array([5, 0]), np.array([7, 2])).at(np.arange(4))
        array([0, 1, 5, 6])
        """
        offsets = self._offsets
        run = np.searchsorted(offsets, places, side="right") - 1
        return places + (self.starts - offsets)[run]

    def count_before(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many of them lie before each position.

        >>> Runs.of(np.array([5, 0]), np.array([7, 2])).count_before(np.array([0, 1, 3, 6, 9]))
        array([0, 1, 2, 3, 4])
        """
        if not self.size:
            return np.zeros_like(positions)
        run = np.maximum(np.searchsorted(self.starts, positions, side="right") - 1, 0)
        inside = np.clip(positions - self.starts[run], 0, self.lengths[run])
        return np.asarray(self._offsets[run] + inside)

    @property
    def _offsets(self) -> NDArray[np.int64]:
        """Return where each run begins among all positions."""
        return np.cumsum(self.lengths) - self.lengths


def united[T: np.generic](starts: NDArray[T], stops: NDArray[T]) -> tuple[NDArray[T], NDArray[T]]:
    """Return the union of intervals in any order, none of them NaN, as intervals that ascend and are apart.

    >>> united(np.array([5.0, 0.0, 3.0]), np.array([7.0, 4.0, 5.0]))
    (array([0.]), array([7.]))
    """
    if not len(starts):
        return starts, stops
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(stops[order])
    first = np.flatnonzero(np.concatenate([[True], starts[1:] > reach[:-1]]))
    last = np.concatenate([first[1:] - 1, [len(reach) - 1]])
    return starts[first], reach[last]


def sliced(data: Any, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> tuple[Any, Runs] | None:
    """Slice intervals out of a dask array's first axis, as one chunk along it, and say where they are in it.

    Slices reach down to what dask reads: chunks outside of all intervals are neither read nor computed, and
    of a lazily stored one only the part that is sliced is read. Where intervals overlap they are sliced once;
    None where all are empty.
    """
    import dask.array as da

    runs = Runs.of(starts, stops)
    if not runs.size:
        return None
    ends = runs.starts + runs.lengths
    parts = [data[start:stop] for start, stop in zip(runs.starts, ends, strict=True)]
    together = da.concatenate(parts)  # type: ignore[no-untyped-call]
    return together.rechunk({0: -1}), runs


def grouped(sizes: NDArray[np.int64], target: int) -> list[NDArray[np.int64]]:
    """Divide neighbours into groups of at most `target` bytes together, or of one that is larger.

    >>> [group.tolist() for group in grouped(np.array([3, 3, 9, 1, 1]), 6)]
    [[0, 1], [2], [3, 4]]
    """
    groups: list[list[int]] = []
    left = 0
    for position, size in enumerate(sizes.tolist()):
        if not groups or size > left:
            groups.append([])
            left = target
        groups[-1].append(position)
        left -= size
    return [np.array(group, np.int64) for group in groups]


def keep_samples(dataset: xr.Dataset, time: SessionTime, index: LazyTimeIndex, runs: Runs) -> xr.Dataset:
    """Keep runs of samples along a lazily indexed time.

    Neither values nor timestamps are read, and no position of a sample is kept: pickles stay small, however
    many samples there are.
    """
    view = TimestampView(RunsTimestamps(index.view, runs), range(runs.size))
    attributes = dataset.coords.variables[time.name].attrs
    times = LazyTimeIndex(view, time.dim, time.name, attributes)
    times.sessions = index.sessions
    return _keep(dataset, time.dim, runs, time.name).assign_coords(times.coordinates())


def keep_runs(dataset: xr.Dataset, dim: Hashable, runs: Runs) -> xr.Dataset:
    """Keep runs along a dimension that no lazy index is on, as lazily as `keep_samples`."""
    if any(dim in dataset.variables[name].dims for name in dataset.xindexes):
        return dataset.isel({dim: runs.positions()})
    return _keep(dataset, dim, runs, None)


def _keep(dataset: xr.Dataset, dim: Hashable, runs: Runs, indexed: Hashable | None) -> xr.Dataset:
    parts = {
        name: _runs_of_variable(variable, dim, runs)
        for name, variable in dataset.variables.items()
        if dim in variable.dims and name != indexed
    }
    coordinates = {name: parts.pop(name) for name in list(parts) if name in dataset.coords}
    # As long as the runs are, and then these in place of it: everything stays in its order.
    kept = dataset.isel({dim: slice(runs.size)})
    return kept.assign(parts).assign_coords(coordinates)


def _runs_of_variable(variable: xr.Variable, dim: Hashable, runs: Runs) -> xr.Variable:
    if not is_lazy(variable):
        return variable.isel({dim: runs.positions()})
    # Where it is from, and how it is written; not how the whole of it is best divided.
    encoding = {key: value for key, value in variable.encoding.items() if key != "preferred_chunks"}
    array = RunsArray(variable, dim, runs)
    return lazy_variable(variable.dims, array, variable.attrs, encoding, cache=True)


@dataclass(frozen=True, eq=False)
class RunsArray(Computed):
    """Runs along one dimension of a lazy variable, one after the other."""

    source: xr.Variable
    dim: Hashable
    runs: Runs

    @property
    def sources(self) -> tuple[xr.Variable]:
        """Return the whole variable."""
        return (self.source,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the variable's shape, as long as all runs."""
        return tuple(self.runs.size if dim == self.dim else size for dim, size in self.source.sizes.items())

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Read a selection from the variable."""
        at = self.source.dims.index(self.dim)
        positions = self.runs.at(np.asarray(axes[at], np.int64))
        return read_source(self.source, (*axes[:at], positions, *axes[at + 1 :]))


@dataclass(frozen=True, eq=False)
class RunsTimestamps(Timestamps):
    """Times of runs of samples: found in the whole recording, and read from it, when they are asked for."""

    whole: TimestampView  # the recording's, ascending
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
            isinstance(other, RunsTimestamps)
            and (self.whole.timestamps, self.whole.samples) == (other.whole.timestamps, other.whole.samples)
            and np.array_equal(self.runs.starts, other.runs.starts)
            and np.array_equal(self.runs.lengths, other.runs.lengths)
        )

    def __hash__(self) -> int:
        return hash((type(self).__qualname__, self.runs.size))

    def __deepcopy__(self, memo: object) -> RunsTimestamps:
        return self

    def __dask_tokenize__(self) -> object:
        return (type(self).__qualname__, self.whole, self.runs.starts, self.runs.lengths)
