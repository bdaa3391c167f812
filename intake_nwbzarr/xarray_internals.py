"""The private parts of xarray that this package stands on, in one place.

xarray documents most of these names for authors of backends and of indexes, but keeps them in modules that it
calls internal: `explicit_indexing_adapter`, `IndexingSupport` and `LazilyIndexedArray` in "How to add a new
backend", `IndexSelResult` in "How to create a custom index"; `MemoryCachedArray` is what ``cache=True`` wraps
arrays in. Nothing else of this package imports from `xarray.core`. `tests/test_xarray_internals.py` checks
the behaviour that is relied on, and fails when a release of xarray changes it.
"""

from xarray.core.indexing import (
    BasicIndexer,
    ExplicitIndexer,
    IndexingSupport,
    IndexSelResult,
    LazilyIndexedArray,
    MemoryCachedArray,
    OuterIndexer,
    VectorizedIndexer,
    async_explicit_indexing_adapter,
    explicit_indexing_adapter,
)

__all__ = [
    "BasicIndexer",
    "ExplicitIndexer",
    "IndexSelResult",
    "IndexingSupport",
    "LazilyIndexedArray",
    "MemoryCachedArray",
    "OuterIndexer",
    "VectorizedIndexer",
    "async_explicit_indexing_adapter",
    "explicit_indexing_adapter",
]
