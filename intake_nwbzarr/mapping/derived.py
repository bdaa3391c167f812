"""Lazy arrays that are computed from others."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import Readable, StoredArray, read_many
from intake_nwbzarr.arrays.selection import Key, select
from intake_nwbzarr.errors import ChunkError


class _Derived:
    """Reading from any event loop, for arrays whose own `read` waits."""

    async def read_async(self: Readable, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)


@dataclass(frozen=True, eq=False)
class InMemory(_Derived):
    """Values that have been read, where an array is expected that is read when it is asked to be.

    Parameters
    ----------
    values
        All of them.
    """

    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the values."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the values."""
        return self.values.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """All at once."""
        return self.values.shape

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """The selected values."""
        selection = select(key, self.shape)
        read = _read(self.values, tuple(_as_key(axis) for axis in selection.axes))
        return read.reshape(selection.final_shape)

    def __dask_tokenize__(self) -> Hashable:
        return ("InMemory", _token(self.values))


@dataclass(frozen=True)
class RaggedBounds(_Derived):
    """Where each row's values begin, or how many there are: int64, one for each row.

    NWB stores where they end. Here a row's start and count stay with it in any selection of rows.

    Parameters
    ----------
    index
        The VectorIndex: the end of each row's values, ascending.
    bound
        ``start`` or ``count``.
    length
        Of the array that holds the values.
    path
        Of the index, for errors.
    """

    index: Readable
    bound: Literal["start", "count"]
    length: int
    path: str

    @property
    def shape(self) -> tuple[int, ...]:
        """One entry for each row."""
        return self.index.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always int64, whatever the index is stored as."""
        return np.dtype(np.int64)

    @property
    def chunks(self) -> tuple[int, ...]:
        """As the index is stored."""
        return self.index.chunks

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """The bounds of the selected rows.

        Raises
        ------
        ChunkError
            When the index runs backwards or past the values: the file is damaged.
        """
        selection = select(key, self.shape)
        (rows,) = (np.asarray(axis, np.int64) for axis in selection.axes)
        if rows.size == 0:
            return np.empty(selection.final_shape, np.int64)
        # A row begins where the row before it ends.
        needed = np.unique(np.concatenate([rows, np.maximum(rows - 1, 0)]))
        ends = np.asarray(self.index.read((_compact(needed),))).astype(np.int64)
        stops = ends[np.searchsorted(needed, rows)]
        starts = np.where(rows == 0, 0, ends[np.searchsorted(needed, np.maximum(rows - 1, 0))])
        if np.any(stops < starts) or np.any(starts < 0) or np.any(stops > self.length):
            raise ChunkError(
                f"The index {self.path!r} should rise from 0 to at most {self.length}, the number of values "
                f"it divides into rows, but in rows {rows.min()} to {rows.max()} it does not. The file is "
                "damaged; open it with drop_variables to do without this column."
            )
        return (starts if self.bound == "start" else stops - starts).reshape(selection.final_shape)

    def __dask_tokenize__(self) -> Hashable:
        return ("RaggedBounds", self.bound, self.length, _token(self.index))


@dataclass(frozen=True, eq=False)
class Lookup(_Derived):
    """``values[positions]`` along the first axis, read when asked for.

    Parameters
    ----------
    values
        What is looked up: a table's column, the elements of an enumeration.
    positions
        Which rows: stored, or in memory.
    path
        Of the positions, for errors.
    """

    values: Readable
    positions: Readable | NDArray[Any]
    path: str

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the positions, then that of one of the values."""
        return self.positions.shape + self.values.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the values."""
        return self.values.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Those of the positions, then those of the values."""
        first = self.positions.shape if isinstance(self.positions, np.ndarray) else self.positions.chunks
        return first + self.values.chunks[1:]

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """The values at the selected positions.

        Raises
        ------
        ChunkError
            When a position is not one of the values': the file is damaged.
        """
        selection = select(key, self.shape)
        axes = tuple(_as_key(axis) for axis in selection.axes)
        if 0 in selection.shape:
            return np.empty(selection.final_shape, self.dtype)
        depth = len(self.positions.shape)
        positions = _read(self.positions, axes[:depth])
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
        found = self.values.read((_compact(wanted.astype(np.int64)), *axes[depth:]))
        return found[inverse.reshape(positions.shape)].reshape(selection.final_shape)

    def __dask_tokenize__(self) -> Hashable:
        return ("Lookup", _token(self.values), _token(self.positions))


@dataclass(frozen=True)
class Elementwise(_Derived):
    """A function of the values of arrays of one shape, applied when they are read.

    Parameters
    ----------
    function
        Of a module, so that it can be pickled. Called as ``function(*arguments, *values)`` with arrays of
        any shape, it returns an array of that shape.
    sources
        Arrays of one shape.
    dtype
        Of what the function returns.
    arguments
        What the function is given before the values.
    """

    function: Callable[..., NDArray[Any]]
    sources: tuple[Readable, ...]
    dtype: np.dtype[Any]
    arguments: tuple[Hashable, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """That of every source."""
        return self.sources[0].shape

    @property
    def chunks(self) -> tuple[int, ...]:
        """Those of the first source."""
        return self.sources[0].chunks

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """The function of the selected values, all sources read in one gather where they are stored."""
        key = key if isinstance(key, tuple) else (key,)
        stored = [source for source in self.sources if isinstance(source, StoredArray)]
        if len(stored) == len(self.sources):
            values: Sequence[NDArray[Any]] = read_many([(source, key) for source in stored])
        else:
            values = [source.read(key) for source in self.sources]
        return np.asarray(self.function(*self.arguments, *values), self.dtype)

    def __dask_tokenize__(self) -> Hashable:
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        return (
            "Elementwise",
            name,
            self.arguments,
            self.dtype.str,
            *(_token(source) for source in self.sources),
        )


def are_positions(values: NDArray[Any]) -> bool:
    """Whether values are whole numbers, also where they are stored as floats."""
    whole = values.dtype.kind in "iu"
    return whole or (values.dtype.kind == "f" and bool(np.all(np.mod(values, 1) == 0)))


def _read(array: Readable | NDArray[Any], key: tuple[slice | NDArray[np.int64], ...]) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        for axis, entry in enumerate(key):
            array = array[(slice(None),) * axis + (entry,)]
        return array
    return array.read(key)


def _as_key(positions: range | NDArray[np.intp]) -> slice | NDArray[np.int64]:
    """A checked selection along one axis as a key again, none of it dropping the axis."""
    if not isinstance(positions, range):
        return positions.astype(np.int64)
    stop = positions[-1] + (1 if positions.step > 0 else -1) if len(positions) else positions.start
    return slice(positions.start, stop if stop >= 0 else None, positions.step)


def _compact(ascending: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Ascending positions as a slice where they are consecutive."""
    first, last = int(ascending[0]), int(ascending[-1])
    return slice(first, last + 1) if last - first + 1 == len(ascending) else ascending


def _token(array: Readable | NDArray[Any]) -> Hashable:
    if isinstance(array, np.ndarray):
        return (
            array.shape,
            array.dtype.str,
            hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
        )
    token: Hashable = array.__dask_tokenize__()
    return token
