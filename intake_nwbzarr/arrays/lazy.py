"""Lazy xarray variables over arrays that are read by outer selections."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from xarray.backends import BackendArray

from intake_nwbzarr.arrays.blocks import preferred_chunks
from intake_nwbzarr.arrays.stored import Readable
from intake_nwbzarr.tokens import Identified
from intake_nwbzarr.xarray_internals import (
    ExplicitIndexer,
    LazilyIndexedArray,
    MemoryCachedArray,
    outer_indexed,
    outer_indexed_async,
)


class LazyArray(Identified, BackendArray):
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
        result: NDArray[Any] = outer_indexed(key, self.shape, self.source.read)
        return result

    async def async_getitem(self, key: ExplicitIndexer) -> NDArray[Any]:
        """What ``load_async`` calls, on whatever event loop the caller has."""
        result: NDArray[Any] = await outer_indexed_async(key, self.shape, self.source.read_async)
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
            # Blocks of two shapes need two names: the limit on them may have changed between two calls.
            given["name"] = f"{given['name']}-{tokenize(_innermost(self._data), str(chunks))}"
            keywords["from_array_kwargs"] = given
        return super().chunk(chunks, *arguments, **keywords)


def _innermost(data: Any) -> Any:
    """What xarray's wrappers of a variable that has just been opened hold: dask would pickle each of them."""
    while not isinstance(data, LazyArray) and hasattr(data, "array"):
        data = data.array
    return data


def xarray_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of what is handed to xarray: Python strings are objects that say so."""
    # Marked as text, as xarray marks it: otherwise writing a dask array of objects loads it to find out.
    return np.dtype("O", metadata={"element_type": str}) if dtype.kind == "O" else dtype
