"""Scaled arrays: stored values in the unit they were measured in, as NWB's TimeSeries defines it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.gather import Reading, gather
from intake_nwbzarr.arrays.selection import Index, Key, outer, select
from intake_nwbzarr.arrays.stored import StoredArray, read_many
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.transport.loop import on_loop


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
        A factor for each channel, ``(channel,)``; a stored array is read when it is first needed.
    channel_axis
        The axis of `stored` that has the channels; 1 in NWB's schema.
    dtype
        What the results are rounded to.

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
    """Channel factors that are known already, comparable and hashable: float64 in native order."""

    data: bytes

    def read(self) -> NDArray[Any]:
        """The factors."""
        return np.frombuffer(self.data)


@dataclass(frozen=True)
class ScaledArray:
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
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.stored.shape

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.stored.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.stored.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `read` gives: float64, or float32 where that was asked for."""
        return np.dtype(self.dtype_name)

    @property
    def chunks(self) -> tuple[int, ...]:
        """As the stored array's."""
        return self.stored.chunks

    @property
    def node(self) -> ArrayNode:
        """As the stored array's."""
        return self.stored.node

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Read and scale a selection; see `StoredArray.read`."""
        return read_many([(self, key)])[0]

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        if isinstance(self.channel_conversion, StoredArray) and "_factors" not in self.__dict__:
            self.__dict__["_factors"] = self._scale_by(await self.channel_conversion.read_async())
        return (await on_loop(gather([self.reading(key)])))[0]

    def reading(self, key: Key | tuple[Key, ...]) -> Reading:
        """Prepare to read a selection; reads the channel factors if they are not known yet."""
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

    def __dask_tokenize__(self) -> tuple[Hashable, ...]:
        factors = self.channel_conversion
        of_channels = (
            factors.__dask_tokenize__() if isinstance(factors, StoredArray) else factors and factors.data
        )
        scale = self.conversion, self.offset, of_channels, self.channel_axis, self.dtype_name
        return "intake_nwbzarr.ScaledArray", self.stored.__dask_tokenize__(), scale

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
    """Scale a part of a chunk on its way into the result."""
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
