"""Lazy xarray variables over arrays that are read by outer selections."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import ceil, prod
from typing import Any, Final

import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from xarray.backends import BackendArray

from intake_nwbzarr.arrays.scaled import ScaledArray
from intake_nwbzarr.arrays.stored import Readable
from intake_nwbzarr.xarray_internals import (
    ExplicitIndexer,
    IndexingSupport,
    LazilyIndexedArray,
    MemoryCachedArray,
    async_explicit_indexing_adapter,
    explicit_indexing_adapter,
)

TARGET: Final = 64 * 2**20
"""Decoded bytes that a dask chunk should have: fewer make too many tasks, more too few to share out."""

LARGE_TARGET: Final = 4 * TARGET
LARGE: Final = 100 * 10**9
"""Decoded bytes of an array beyond which its dask chunks are larger."""

STRING_BYTES: Final = 64
"""What a variable-length string is taken to occupy."""


class LazyArray(BackendArray):
    """xarray's view of a stored or scaled array; nothing is read before it is indexed.

    Parameters
    ----------
    array
        What is read.
    """

    def __init__(self, array: Readable) -> None:
        # Not called `array`: xarray would take an attribute of that name for what is wrapped.
        self.source = array
        self.shape = array.shape
        self.dtype = xarray_dtype(array.dtype)

    def __getitem__(self, key: ExplicitIndexer) -> NDArray[Any]:
        result: NDArray[Any] = explicit_indexing_adapter(
            key, self.shape, IndexingSupport.OUTER, self.source.read
        )
        return result

    async def async_getitem(self, key: ExplicitIndexer) -> NDArray[Any]:
        """What ``load_async`` calls, on whatever event loop the caller has."""
        result: NDArray[Any] = await async_explicit_indexing_adapter(
            key, self.shape, IndexingSupport.OUTER, self.source.read_async
        )
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source,)

    def __dask_tokenize__(self) -> tuple[Hashable, ...]:
        return "intake_nwbzarr.LazyArray", self.source.__dask_tokenize__()

    def __repr__(self) -> str:
        return f"LazyArray({self.source!r})"


def lazy_variable(
    dims: Sequence[Hashable],
    array: Readable,
    attributes: Mapping[str, Any] | None = None,
    encoding: Mapping[str, Any] | None = None,
    *,
    cache: bool = False,
) -> xr.Variable:
    """A variable that reads when it is indexed, computed or loaded.

    Parameters
    ----------
    dims
        A name for each axis.
    array
        What is read.
    attributes
        The variable's; only what netCDF and Zarr can store.
    encoding
        Added to ours, which is ``preferred_chunks``: what dask's chunks are with ``chunks={}``.
        There is no ``chunks``: it would make `to_zarr` refuse any selection that does not begin at a chunk.
    cache
        Keep values that were read whole once, as xarray does for what `xarray.open_dataset` returns.
    """
    preferred = dict(zip(dims, preferred_chunks(array), strict=True))
    lazy = LazilyIndexedArray(LazyArray(array))
    data: Any = MemoryCachedArray(lazy) if cache else lazy  # type: ignore[no-untyped-call]
    return LazyVariable(
        dims, data, dict(attributes or {}), {"preferred_chunks": preferred, **(encoding or {})}, fastpath=True
    )


class LazyVariable(xr.Variable):
    """A variable whose dask array is named for what is stored, not only for the call that opened it.

    xarray names it for the file, the call's keywords and the variable: `xarray.open_groups` gives the
    ``data`` of two groups one name, and dask then computes one in place of the other (xarray 2026.9); of a
    file that was replaced at the same URL it knows nothing.
    """

    def chunk(self, chunks: Any = {}, *arguments: Any, **keywords: Any) -> Any:  # noqa: B006 - as xarray's
        """As `xarray.Variable.chunk`."""
        given = dict(keywords.get("from_array_kwargs") or {})
        if str(given.get("name", "")).startswith("open_dataset-"):
            given["name"] = f"{given['name']}-{tokenize(_innermost(self._data))}"
            keywords["from_array_kwargs"] = given
        return super().chunk(chunks, *arguments, **keywords)


def _innermost(data: Any) -> Any:
    """What xarray's wrappers of a variable that has just been opened hold: dask would pickle each of them."""
    while not isinstance(data, LazyArray) and hasattr(data, "array"):
        data = data.array
    return data


def preferred_chunks(array: Readable) -> tuple[int, ...]:
    """Whole multiples of the stored chunks, towards 64 MiB decoded (256 MiB for arrays beyond 100 GB).

    Chunks are merged over the other axes before the first: neighbouring channels of one time lie closer
    together, in every way of using them, than times that are hours apart.
    """
    # What is decoded, not what scaling makes of it: that is what decides how many tasks there are.
    decoded = array.stored.dtype if isinstance(array, ScaledArray) else array.dtype
    itemsize = STRING_BYTES if decoded.kind == "O" else decoded.itemsize
    target = LARGE_TARGET if prod(array.shape) * itemsize > LARGE else TARGET
    widths = [min(chunk, length) for chunk, length in zip(array.chunks, array.shape, strict=True)]
    for axis in (*range(1, len(array.shape)), *range(min(len(array.shape), 1))):
        length, width = array.shape[axis], max(widths[axis], 1)
        chunk_bytes = max(prod(max(width, 1) for width in widths) * itemsize, 1)
        multiple = _balanced(ceil(length / width), target / chunk_bytes)
        widths[axis] = min(width * multiple, length)
    return tuple(widths)


def _balanced(count: int, ideal: float) -> int:
    """How many of `count` chunks to join, about `ideal` at a time and in parts of nearly equal size."""
    parts = max(1, round(count / ideal))
    multiple = ceil(count / parts)
    if multiple > 1.5 * ideal:
        parts = ceil(count / max(1, int(1.5 * ideal)))
        multiple = ceil(count / parts)
    return max(1, multiple)


def xarray_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of what is handed to xarray: Python strings are objects that say so."""
    # Marked as text, as xarray marks it: otherwise writing a dask array of objects loads it to find out.
    return np.dtype("O", metadata={"element_type": str}) if dtype.kind == "O" else dtype
