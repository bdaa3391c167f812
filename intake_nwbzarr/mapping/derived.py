"""Lazy arrays that are computed from stored ones: bounds of ragged rows, look-ups by position, functions."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import Computed, Readable, StoredArray, read_many, read_source
from intake_nwbzarr.arrays.selection import Axes, as_key
from intake_nwbzarr.errors import ChunkError


@dataclass(frozen=True, eq=False)
class InMemory(Computed):
    """Values that have been read already."""

    values: NDArray[Any]

    @property
    def sources(self) -> tuple[NDArray[Any]]:
        """Return the values."""
        return (self.values,)

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the selected values."""
        return read_source(self.values, axes)


@dataclass(frozen=True)
class RaggedBounds(Computed):
    """Where each row's values begin, or how many there are: int64, one for each row.

    NWB stores where they end. Here a row's start and count stay with it in any selection of rows.
    """

    index: Readable  # the VectorIndex: the end of each row's values, ascending
    bound: Literal["start", "count"]
    length: int  # of the array that holds the values
    path: str  # of the index, for errors

    @property
    def sources(self) -> tuple[Readable]:
        """Return the index."""
        return (self.index,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return int64, whatever the index is stored as."""
        return np.dtype(np.int64)

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the bounds of the selected rows; raise `ChunkError` where the index is damaged."""
        rows = np.asarray(axes[0], np.int64)
        # A row begins where the row before it ends.
        needed = np.unique(np.concatenate([rows, np.maximum(rows - 1, 0)]))
        ends = read_source(self.index, (needed,)).astype(np.int64)
        stops = ends[np.searchsorted(needed, rows)]
        starts = np.where(rows == 0, 0, ends[np.searchsorted(needed, np.maximum(rows - 1, 0))])
        if np.any(stops < starts) or np.any(starts < 0) or np.any(stops > self.length):
            raise ChunkError(
                f"The index {self.path!r} should rise from 0 to at most {self.length}, the number of values "
                f"it divides into rows, but in rows {rows.min()} to {rows.max()} it does not. The file is "
                "damaged; open it with drop_variables to do without this column."
            )
        return starts if self.bound == "start" else stops - starts


@dataclass(frozen=True, eq=False)
class Lookup(Computed):
    """``values[positions]`` along the first axis: rows of a table's column, elements of an enumeration."""

    values: Readable
    positions: Readable | NDArray[Any]
    path: str  # of the positions, for errors

    @property
    def sources(self) -> tuple[Readable, Readable | NDArray[Any]]:
        """Return the values and the positions."""
        return self.values, self.positions

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the positions, then that of one of the values."""
        return self.positions.shape + self.values.shape[1:]

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the chunks of the positions, then those of one of the values."""
        first = self.positions.shape if isinstance(self.positions, np.ndarray) else self.positions.chunks
        return first + self.values.chunks[1:]

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the values at the selected positions; raise `ChunkError` where one is not a row."""
        depth = len(self.positions.shape)
        positions = read_source(self.positions, axes[:depth])
        if not are_positions(positions):
            raise ChunkError(
                f"{self.path!r} holds values of {positions.dtype} that are no positions, where whole numbers "
                "were expected. The file is damaged; open it with drop_variables to do without what is "
                "looked up."
            )
        wanted, inverse = np.unique(positions, return_inverse=True)
        if wanted[0] < 0 or wanted[-1] >= self.values.shape[0]:
            outside = wanted[0] if wanted[0] < 0 else wanted[-1]
            raise ChunkError(
                f"{self.path!r} holds {outside}, which is none of the {self.values.shape[0]} rows it points "
                "at. The file is damaged; open it with drop_variables to do without what is looked up."
            )
        found = read_source(self.values, (wanted.astype(np.intp), *axes[depth:]))
        return found[inverse.reshape(positions.shape)]


@dataclass(frozen=True)
class Elementwise(Computed):
    """A function of the values of arrays of one shape, applied when they are read.

    The function is a module's, so that it can be pickled, and is called as ``function(*arguments, *values)``
    with arrays of any one shape, which its result has too.
    """

    function: Callable[..., NDArray[Any]]
    arrays: tuple[Readable, ...]
    result: np.dtype[Any]
    arguments: tuple[Hashable, ...] = ()

    @property
    def sources(self) -> tuple[Readable, ...]:
        """Return the arrays."""
        return self.arrays

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of what the function returns."""
        return self.result

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the function of the selected values, which one gather reads where all are stored."""
        stored = [array for array in self.arrays if isinstance(array, StoredArray)]
        if len(stored) == len(self.arrays):
            key = tuple(map(as_key, axes))
            values = read_many([(array, key) for array in stored])
        else:
            values = [read_source(array, axes) for array in self.arrays]
        return np.asarray(self.function(*self.arguments, *values), self.dtype)


def are_positions(values: NDArray[Any]) -> bool:
    """Return whether values are whole numbers, also where they are stored as floats."""
    whole = values.dtype.kind in "iu"
    return whole or (values.dtype.kind == "f" and bool(np.all(np.mod(values, 1) == 0)))
