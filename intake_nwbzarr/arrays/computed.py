"""Lazy arrays computed from others when they are read: scaled samples, ragged bounds, look-ups, functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from intake_nwbzarr.arrays.gather import Reading, gather
from intake_nwbzarr.arrays.selection import Axes, Index, Key, as_key, outer, select
from intake_nwbzarr.arrays.stored import Readable, StoredArray, read_many
from intake_nwbzarr.errors import ChunkError
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.transport.loop import on_loop

type Source = Readable | xr.Variable | NDArray[Any]
"""What an array is computed from."""

# Elements along an axis of a variable that says nothing about how it is best read.
WIDTH = 2**20


@dataclass(frozen=True, eq=False)
class Computed:
    """Base class of lazy arrays that are computed from others: dataclasses with `sources` and `read_axes`.

    A `Readable` with a small pickle. Its token is computed from its fields; shape, dtype and chunks are those
    of the first source, unless a subclass overrides them.
    """

    @property
    def sources(self) -> tuple[Source, ...]:
        """Return the arrays that this one is computed from."""
        return ()

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Compute the values at some positions along every axis, at least one along each."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the array's shape."""
        return self.sources[0].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of what is read."""
        dtype: np.dtype[Any] = self.sources[0].dtype
        return dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the chunks of the first source, or the whole array if its shape differs."""
        if not self.sources or len(self.sources[0].shape) != len(self.shape):
            return self.shape
        source = self.sources[0]
        if isinstance(source, xr.Variable):
            return tuple(
                max(1, min(width, size)) for width, size in zip(widths(source), self.shape, strict=True)
            )
        return source.shape if isinstance(source, np.ndarray) else source.chunks

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Compute a selection; see `StoredArray.read`."""
        selection = select(key, self.shape)
        if 0 in selection.shape:
            return np.empty(selection.final_shape, self.dtype)
        return self.read_axes(selection.axes).reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Compute a selection on a thread, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        values = [getattr(self, field.name) for field in fields(self)]
        return f"intake_nwbzarr.{type(self).__qualname__}", tokenize(*values)


def read_source(source: Source, axes: Axes) -> NDArray[Any]:
    """Read positions along every axis of an array that another one is computed from."""
    key = tuple(map(as_key, axes))
    if isinstance(source, xr.Variable):
        values: NDArray[Any] = source[key].values
        return values
    return source[outer(key, source.shape)] if isinstance(source, np.ndarray) else source.read(key)


def widths(variable: xr.Variable) -> tuple[int, ...]:
    """Return how many elements of a variable are best read at once along each of its axes."""
    preferred = variable.encoding.get("preferred_chunks", {})
    return tuple(preferred.get(dim, min(size, WIDTH)) for dim, size in variable.sizes.items())


def scaled(
    stored: StoredArray,
    conversion: float = 1.0,
    offset: float = 0.0,
    channel_conversion: StoredArray | NDArray[Any] | None = None,
    channel_axis: int = 1,
    dtype: Literal["float64", "float32"] = "float64",
) -> StoredArray | ScaledArray:
    """``data * conversion * channel_conversion + offset``; the stored array itself if that changes nothing.

    Parameters
    ----------
    stored
        The values as stored.
    conversion, offset
        The attributes of a TimeSeries' ``data``.
    channel_conversion
        Factors, ``(channel,)``; a stored array is read when it is first needed.
    channel_axis
        The axis of `stored` that has the channels; 1 in NWB's schema.
    dtype
        The dtype of the results.

    Returns
    -------
    StoredArray or ScaledArray
        The stored array, with its own dtype, if conversion is 1, offset 0 and there are no channel factors.
    """
    if conversion == 1 and offset == 0 and channel_conversion is None:
        return stored
    if channel_conversion is None or isinstance(channel_conversion, StoredArray):
        factors: StoredArray | Factors | None = channel_conversion
    else:
        factors = Factors(np.asarray(channel_conversion, np.float64).tobytes())
    return ScaledArray(stored, float(conversion), float(offset), factors, channel_axis, dtype)


@dataclass(frozen=True)
class Factors:
    """Channel factors in memory, comparable and hashable: float64 in native byte order."""

    data: bytes

    def read(self) -> NDArray[Any]:
        """Return the factors."""
        return np.frombuffer(self.data)


@dataclass(frozen=True)
class ScaledArray(Computed):
    """A stored array times its factors plus its offset; made by `scaled`.

    Computed in float64 as pynwb does, ``data * (conversion * channel_conversion) + offset``, chunk by chunk
    on the threads that decode.
    """

    stored: StoredArray
    conversion: float
    offset: float
    channel_conversion: StoredArray | Factors | None
    channel_axis: int
    dtype_name: Literal["float64", "float32"]

    @property
    def sources(self) -> tuple[StoredArray]:
        """Return the stored array."""
        return (self.stored,)

    @property
    def ndim(self) -> int:
        """Return the number of dimensions."""
        return self.stored.ndim

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return self.stored.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return float64, or float32 where that was asked for."""
        return np.dtype(self.dtype_name)

    @property
    def node(self) -> ArrayNode:
        """Return the stored array's metadata."""
        return self.stored.node

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Read and scale a selection."""
        return read_many([(self, tuple(map(as_key, axes)))])[0]

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Read and scale a selection, for any event loop."""
        if isinstance(self.channel_conversion, StoredArray) and "_factors" not in self.__dict__:
            self.__dict__["_factors"] = self._scale_by(await self.channel_conversion.read_async())
        return (await on_loop(gather([self.reading(key)])))[0]

    def reading(self, key: Key | tuple[Key, ...]) -> Reading:
        """Prepare to read a selection; read the channel factors unless they are in memory."""
        factors = self._factors
        if isinstance(factors, np.ndarray):
            positions = select(key, self.shape).axes[self.channel_axis]
            factors = factors[np.asarray(positions, dtype=np.intp)]
        place = partial(_place, factors, self.offset, self.channel_axis)
        return self.stored.reading(key, self.dtype, place)

    @cached_property
    def _factors(self) -> float | NDArray[np.float64]:
        if self.channel_conversion is None:
            return self.conversion
        return self._scale_by(self.channel_conversion.read())

    def _scale_by(self, channel_conversion: NDArray[Any]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = self.conversion * channel_conversion.astype(np.float64)
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_factors"}


def _place(
    factors: float | NDArray[np.float64],
    offset: float,
    axis: int,
    out: NDArray[Any],
    outside: tuple[Index, ...],
    part: NDArray[Any],
) -> None:
    """Scale a part of a chunk while it is copied into the result."""
    if isinstance(factors, np.ndarray):
        of_part = factors[outside[axis]]
        factors = of_part.reshape([-1 if at == axis else 1 for at in range(part.ndim)])
    # In 64 bits to the end, whatever is asked for, in place where possible; `dtype` because float32 samples
    # times a Python number would stay float32.
    where = (*outer(outside, out.shape), ...)  # with an ellipsis slices are a view, of a scalar too
    is_view = not any(isinstance(entry, np.ndarray) for entry in where)
    # Adding 0 changes nothing but negative zeros, and takes as long as all the rest.
    adds = offset != 0 or part.dtype.kind not in "iu" or not np.all(np.greater(factors, 0))
    in_place = is_view and (out.dtype == np.float64 or not adds)
    target = out[where] if in_place else np.empty(part.shape)
    np.multiply(part, factors, out=target, dtype=np.float64, casting="same_kind")
    if adds:
        np.add(target, offset, out=target)
    if not in_place:
        out[where] = target


@dataclass(frozen=True, eq=False)
class InMemory(Computed):
    """Values in memory."""

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
    """The start or the count of each row's values, int64, computed from the ends that NWB stores."""

    # Unlike ends, they remain valid in any selection of rows.

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
                f"The index {self.path!r} is damaged: in rows {rows.min()} to {rows.max()}, it does not "
                f"increase from 0 to at most {self.length}, the number of values.",
                path=self.path,
                expected=self.length,
                next_step="Open the file with drop_variables to omit this column.",
            )
        return starts if self.bound == "start" else stops - starts


_OMIT: Final = "Open the file with drop_variables to omit the variables that are looked up."


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
                f"{self.path!r} is damaged: it has values of {positions.dtype} that are not row numbers.",
                path=self.path,
                found=positions.dtype.name,
                expected="whole numbers",
                next_step=_OMIT,
            )
        wanted, inverse = np.unique(positions, return_inverse=True)
        if wanted[0] < 0 or wanted[-1] >= self.values.shape[0]:
            outside = wanted[0] if wanted[0] < 0 else wanted[-1]
            raise ChunkError(
                f"{self.path!r} is damaged: it has the row number {outside} of a table of "
                f"{self.values.shape[0]} rows.",
                path=self.path,
                found=int(outside),
                expected=self.values.shape[0],
                next_step=_OMIT,
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
