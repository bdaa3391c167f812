"""The private parts of xarray that this package uses, in one place.

xarray documents most of these names for authors of backends and of indexes, but keeps them in modules that it
calls internal: `explicit_indexing_adapter`, `IndexingSupport` and `LazilyIndexedArray` in "How to add a new
backend", `IndexSelResult` in "How to create a custom index". `MemoryCachedArray` is what ``cache=True`` wraps
arrays in; the other wrappers are recognized so that lazy data can be described without reading them. Nothing
else in this package imports from `xarray.core`. `tests/test_xarray_internals.py` checks the behaviour that is
used, and fails when a release of xarray changes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import xarray as xr
from xarray.core.indexing import (
    BasicIndexer,
    CoordinateTransformIndexingAdapter,
    CopyOnWriteArray,
    ExplicitIndexer,
    IndexingSupport,
    IndexSelResult,
    LazilyIndexedArray,
    LazilyVectorizedIndexedArray,
    MemoryCachedArray,
    OuterIndexer,
    VectorizedIndexer,
    async_explicit_indexing_adapter,
    explicit_indexing_adapter,
)

__all__ = [
    "BasicIndexer",
    "CoordinateTransformIndexingAdapter",
    "CopyOnWriteArray",
    "ExplicitIndexer",
    "IndexSelResult",
    "IndexingSupport",
    "LazilyIndexedArray",
    "LazilyVectorizedIndexedArray",
    "MemoryCachedArray",
    "OuterIndexer",
    "VectorizedIndexer",
    "is_lazy",
    "lazy_data",
    "outer_indexed",
    "outer_indexed_async",
    "transform_of",
]


def lazy_data(variable: xr.Variable) -> Any:
    """Return a variable's data with xarray's lazy wrappers; ``variable.data`` would read them."""
    return variable._data


def transform_of(adapter: CoordinateTransformIndexingAdapter) -> tuple[Any, ...]:
    """Return the transform, coordinate name and dimensions of a computed coordinate."""
    return adapter._transform, adapter._coord_name, adapter._dims


def is_lazy(variable: xr.Variable) -> bool:
    """Return whether a variable's values are still to be read, and are not a dask array."""
    # xarray has no public name for this: `Variable.data` reads.
    return variable.chunks is None and not variable._in_memory


def outer_indexed(key: ExplicitIndexer, shape: tuple[int, ...], read: Callable[[Any], Any]) -> Any:
    """Index an array that is read by outer keys, with any key of xarray."""
    return explicit_indexing_adapter(_forwards(key, shape), shape, IndexingSupport.OUTER, read)


async def outer_indexed_async(
    key: ExplicitIndexer, shape: tuple[int, ...], read: Callable[[Any], Awaitable[Any]]
) -> Any:
    """Like `outer_indexed`, for a reader that is awaited."""
    return await async_explicit_indexing_adapter(_forwards(key, shape), shape, IndexingSupport.OUTER, read)


def _forwards(key: ExplicitIndexer, shape: tuple[int, ...]) -> ExplicitIndexer:
    """Return a key whose empty slices have a positive step: xarray 2026.9 raises IndexError for others."""
    if isinstance(key, VectorizedIndexer):
        return key
    empty = [
        isinstance(entry, slice) and (entry.step or 1) < 0 and not len(range(*entry.indices(length)))
        for entry, length in zip(key.tuple, shape, strict=True)
    ]
    plain = tuple(slice(0, 0) if none else entry for none, entry in zip(empty, key.tuple, strict=True))
    return type(key)(plain) if any(empty) else key
