"""The private parts of xarray that this package stands on, in one place.

xarray documents most of these names for authors of backends and of indexes, but keeps them in modules that it
calls internal: `explicit_indexing_adapter`, `IndexingSupport` and `LazilyIndexedArray` in "How to add a new
backend", `IndexSelResult` in "How to create a custom index"; `MemoryCachedArray` is what ``cache=True`` wraps
arrays in. The other wrappers are what lazy data are found in, to be told apart without reading them. Nothing
else of this package imports from `xarray.core`. `tests/test_xarray_internals.py` checks the behaviour that is
relied on, and fails when a release of xarray changes it.
"""

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
    "async_explicit_indexing_adapter",
    "explicit_indexing_adapter",
    "is_lazy",
    "lazy_data",
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
