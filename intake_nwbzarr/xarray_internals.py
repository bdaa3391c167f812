"""The private parts of xarray that this package stands on, in one place.

xarray documents most of these names for authors of backends and of indexes, but keeps them in modules that it
calls internal: `explicit_indexing_adapter`, `IndexingSupport` and `LazilyIndexedArray` in "How to add a new
backend", `IndexSelResult` in "How to create a custom index"; `MemoryCachedArray` is what ``cache=True`` wraps
arrays in. The other wrappers are what lazy data are found in, to be told apart without reading them. Nothing
else of this package imports from `xarray.core`. `tests/test_xarray_internals.py` checks the behaviour that is
relied on, and fails when a release of xarray changes it.
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
    """What a variable holds, with xarray's wrappers: ``variable.data`` would read it."""
    return variable._data


def transform_of(adapter: CoordinateTransformIndexingAdapter) -> tuple[Any, ...]:
    """What a computed coordinate is computed by: its transform, the coordinate's name, and its dimensions."""
    return adapter._transform, adapter._coord_name, adapter._dims


def is_lazy(variable: xr.Variable) -> bool:
    """Whether a variable's values are still to be read, and are not dask's.

    xarray has no public name for that: `Variable.data` reads.
    """
    return variable.chunks is None and not variable._in_memory


def outer_indexed(key: ExplicitIndexer, shape: tuple[int, ...], read: Callable[[Any], Any]) -> Any:
    """Index, by whatever key xarray gives, an array that is read by outer keys."""
    return explicit_indexing_adapter(_forwards(key, shape), shape, IndexingSupport.OUTER, read)


async def outer_indexed_async(
    key: ExplicitIndexer, shape: tuple[int, ...], read: Callable[[Any], Awaitable[Any]]
) -> Any:
    """Like `outer_indexed`, for a reader that is awaited."""
    return await async_explicit_indexing_adapter(_forwards(key, shape), shape, IndexingSupport.OUTER, read)


def _forwards(key: ExplicitIndexer, shape: tuple[int, ...]) -> ExplicitIndexer:
    """A key whose empty slices run forwards: xarray 2026.9 raises IndexError for those that run backwards."""
    if isinstance(key, VectorizedIndexer):
        return key
    empty = [
        isinstance(entry, slice) and (entry.step or 1) < 0 and not len(range(*entry.indices(length)))
        for entry, length in zip(key.tuple, shape, strict=True)
    ]
    plain = tuple(slice(0, 0) if none else entry for none, entry in zip(empty, key.tuple, strict=True))
    return type(key)(plain) if any(empty) else key
