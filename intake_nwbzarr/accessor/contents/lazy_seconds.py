"""A variable of times as one of seconds, as lazy as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.seconds import in_seconds
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.arrays.selection import Key, select

_FLOAT = np.dtype(np.float64)

# What datetimes are counted from.
_ZERO = ("timestamps_reference_time", "session_start_time")


def seconds_variable(variable: xr.Variable, attributes: Mapping[Any, Any], what: str) -> xr.Variable:
    """A variable of times in seconds: itself, unless it holds datetimes.

    Parameters
    ----------
    variable
        Of numbers, or of datetimes as `decode_times=True` gives them.
    attributes, what
        As of `in_seconds`.

    Returns
    -------
    xarray.Variable
        Of dask where `variable` is; else lazy where it is made.
    """
    if variable.dtype.kind != "M":
        return variable
    in_seconds(np.empty(0, variable.dtype), attributes, what)  # Better now than once they are read.
    zero = {key: attributes[key] for key in _ZERO if key in attributes}
    own = {key: value for key, value in variable.attrs.items() if key != "time_zone"} | {"units": "s"}
    if variable.chunks is not None:
        convert = partial(in_seconds, attributes=zero, what=what)
        return xr.Variable(variable.dims, variable.data.map_blocks(convert, dtype=_FLOAT), own)
    return lazy_variable(variable.dims, _Seconds(variable, zero, what), own, cache=True)


@dataclass(frozen=True, eq=False)
class _Seconds:
    """Seconds, converted from the datetimes that a selection reads."""

    source: xr.Variable
    attributes: dict[Any, Any]
    what: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The source's."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float64."""
        return _FLOAT

    @property
    def chunks(self) -> tuple[int, ...]:
        """As the source is best read."""
        preferred = self.source.encoding.get("preferred_chunks", {})
        return tuple(preferred.get(dim, size) for dim, size in self.source.sizes.items())

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """The seconds of a selection."""
        selection = select(key, self.shape)
        axes = zip(self.source.dims, selection.axes, strict=True)
        read = self.source.isel({dim: _as_key(positions) for dim, positions in axes}).values
        return in_seconds(read, self.attributes, self.what).reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        from dask.base import tokenize

        return ("Seconds", tokenize(self.source, self.attributes))


def _as_key(positions: range | NDArray[np.intp]) -> slice | NDArray[np.intp]:
    if isinstance(positions, range) and positions.step > 0:
        return slice(positions.start, positions.stop, positions.step)
    return np.asarray(positions, np.intp)
