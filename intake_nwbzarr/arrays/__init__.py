"""Lazy arrays: fetch the chunks of a selection concurrently, decode them on threads, and scale the values."""

from intake_nwbzarr.arrays.computed import Computed, ScaledArray, read_source, scaled
from intake_nwbzarr.arrays.lazy import LazyArray, lazy_variable, preferred_chunks, xarray_dtype
from intake_nwbzarr.arrays.stored import Readable, StoredArray, read_at_open, read_many

__all__ = [
    "Computed",
    "LazyArray",
    "Readable",
    "ScaledArray",
    "StoredArray",
    "lazy_variable",
    "preferred_chunks",
    "read_at_open",
    "read_many",
    "read_source",
    "scaled",
    "xarray_dtype",
]
