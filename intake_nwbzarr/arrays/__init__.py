"""Lazy arrays: the chunks a selection touches, fetched in one gather, decoded on threads, scaled."""

from intake_nwbzarr.arrays.blocks import preferred_chunks
from intake_nwbzarr.arrays.lazy import LazyArray, lazy_variable, xarray_dtype
from intake_nwbzarr.arrays.scaled import ScaledArray, scaled
from intake_nwbzarr.arrays.stored import Readable, StoredArray, read_many

__all__ = [
    "LazyArray",
    "Readable",
    "ScaledArray",
    "StoredArray",
    "lazy_variable",
    "preferred_chunks",
    "read_many",
    "scaled",
    "xarray_dtype",
]
