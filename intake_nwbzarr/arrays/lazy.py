"""Lazy xarray variables over arrays that outer selections read, and the dask chunks that suit them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from math import ceil, prod
from typing import Any, Final

import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from xarray.backends import BackendArray

from intake_nwbzarr.arrays.computed import ScaledArray
from intake_nwbzarr.arrays.dask_tokens import Identified
from intake_nwbzarr.arrays.stored import Readable, StoredArray
from intake_nwbzarr.limits import limits
from intake_nwbzarr.xarray_internals import (
    ExplicitIndexer,
    LazilyIndexedArray,
    MemoryCachedArray,
    outer_indexed,
    outer_indexed_async,
)


class LazyArray(Identified, BackendArray):
    """An xarray backend array over a stored or scaled array, which reads when it is indexed."""

    def __init__(self, array: Readable) -> None:
        # Not called `array`: xarray takes an attribute of that name as a wrapped array.
        self.source = array
        self.shape = array.shape
        self.dtype = xarray_dtype(array.dtype)

    def __getitem__(self, key: ExplicitIndexer) -> NDArray[Any]:
        result: NDArray[Any] = outer_indexed(key, self.shape, self.source.read)
        return result

    async def async_getitem(self, key: ExplicitIndexer) -> NDArray[Any]:
        """Read a selection for ``load_async``, on any event loop."""
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
    """Return a variable that reads data when it is indexed, computed or loaded.

    Parameters
    ----------
    dims
        A name for each axis.
    array
        The array to read.
    attributes
        Attributes of the variable, of types that netCDF and Zarr can store.
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
    """A variable whose dask array is named after the stored data, not only after the call that opened it.

    xarray names it for the file, the call's keywords and the variable: `xarray.open_groups` gives the
    ``data`` of two groups one name, and dask then computes one in place of the other (xarray 2026.9); of a
    file that was replaced at the same URL it knows nothing.
    """

    def chunk(self, chunks: Any = {}, *arguments: Any, **keywords: Any) -> Any:  # noqa: B006 - as xarray's
        """Chunk as `xarray.Variable.chunk`."""
        given = dict(keywords.get("from_array_kwargs") or {})
        if str(given.get("name", "")).startswith("open_dataset-"):
            # Blocks of two shapes need two names: the limit on them may have changed between two calls.
            given["name"] = f"{given['name']}-{tokenize(_innermost(self._data), str(chunks))}"
            keywords["from_array_kwargs"] = given
        return super().chunk(chunks, *arguments, **keywords)


def _innermost(data: Any) -> Any:
    """Return the array inside xarray's wrappers of a variable just opened: dask would pickle each wrapper."""
    while not isinstance(data, LazyArray) and hasattr(data, "array"):
        data = data.array
    return data


def xarray_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of what is handed to xarray: Python strings are objects that say so."""
    # Marked as text, as xarray marks it: otherwise writing a dask array of objects loads it to find out.
    return np.dtype("O", metadata={"element_type": str}) if dtype.kind == "O" else dtype


LARGE: Final = 100 * 10**9
"""Bytes of an array beyond which its blocks are larger, for the sake of fewer tasks."""

STRING_BYTES: Final = 128
"""What a variable-length string is taken to occupy: a pointer, Python's object, and about 60 characters."""

TASKS: Final = 1.4
"""Tasks that a mean may take for every half of the largest block; dask's trees add a third at best."""

MORE_TASKS: Final = 8
"""And these once, which decide when there are only a few blocks."""

# By how much blocks may exceed half of the limit, in steps; and rows of stored chunks that blocks begin with.
_EXCESSES: Final = tuple(1 + step / 8 for step in range(9))
# Three quarters of the limit: a filter holds about seven blocks, for which a worker of 1 GB has room.
_EXCESSES_OF_LARGE: Final = _EXCESSES[4:]
_ROWS: Final = (1, 2, 3, 4)


def target() -> int:
    """Return the bytes in memory that a block has unless more keep tasks few: half the limit."""
    return limits().block_bytes // 2


def preferred_chunks(array: Readable) -> tuple[int, ...]:
    """Return the shape of dask's blocks: whole stored chunks, by a rule that keeps reductions small.

    Blocks are measured by what a task keeps in memory, the values that reading gives: int16 samples that are
    scaled to float64 count eight bytes each. A block has at most ``block_bytes`` of
    `intake_nwbzarr.set_limits`, 128 MiB, or is one stored chunk that is larger. Shards that are larger are
    divided into equal parts.

    An array of up to half the limit is one block. Of a larger one, chunks are joined over the other axes
    first, then over time: neighbouring channels of one time lie closer together, in every way of using them,
    than times that are hours apart. A block has half the limit if that is enough for the means over
    everything, over the first axis and over all the others to take at most 1.4 tasks for every half;
    otherwise as little more as is enough. (Where all channels are in one block, dask's mean of everything
    takes two tasks a block, and blocks have about 0.7 of the limit.) Only where that cannot be reached do
    blocks begin with several rows of chunks, and if that does not help either, they are those that take the
    fewest tasks. Blocks of arrays beyond 100 GB begin with three quarters of the limit.

    Selecting directly from the dask array fetches only the chunks needed, whatever the blocks are: dask
    passes such selections on to the array that it reads.

    Parameters
    ----------
    array
        The array to divide into blocks.

    Returns
    -------
    tuple of int
        A block's length along each axis.
    """
    most = limits().block_bytes
    itemsize = STRING_BYTES if array.dtype.kind == "O" else array.dtype.itemsize
    size = prod(array.shape) * itemsize
    if size <= target() or not array.shape:
        return array.shape
    chunks = _parts_of_shards(array, most // itemsize)
    allowed = TASKS * ceil(size / target()) + MORE_TASKS
    tried = []
    for rows, excess in product(_ROWS, _EXCESSES_OF_LARGE if size > LARGE else _EXCESSES):
        widths = _joined(array.shape, chunks, rows, int(target() * excess) // itemsize)
        tasks = _most_tasks(array.shape, widths)
        if tasks <= allowed:
            return widths
        tried.append((tasks, widths))
    return min(tried)[1]


def _parts_of_shards(array: Readable, elements: int) -> tuple[int, ...]:
    """Return the shape of the stored chunks; where shards hold more elements, of equal parts of them."""
    widths = list(array.chunks)
    if isinstance(array, StoredArray | ScaledArray):
        # Chunks of no length are left to reading to complain about.
        for axis, part in enumerate(max(length, 1) for length in array.node.inner_chunks):
            # What an array that is shorter than its shards has of them.
            held = min(widths[axis], ceil(array.shape[axis] / part) * part) // part
            needed = min(held, ceil(prod(map(min, widths, array.shape)) / elements))
            if needed > 1:
                widths[axis] = part * max(d for d in range(1, held // needed + 1) if held % d == 0)
    return tuple(widths)


def _joined(shape: tuple[int, ...], chunks: tuple[int, ...], rows: int, elements: int) -> tuple[int, ...]:
    """Join chunks up to so many elements, evenly along each axis: some rows, the other axes, the first."""
    widths = [max(1, min(chunk, length)) for chunk, length in zip(chunks, shape, strict=True)]
    widths[0] = min(widths[0] * min(rows, max(1, elements // prod(widths))), shape[0])
    for axis in (*range(1, len(shape)), 0):
        count = ceil(shape[axis] / widths[axis])
        parts = ceil(count / max(1, elements // prod(widths)))
        widths[axis] = min(widths[axis] * ceil(count / parts), shape[axis])
    return tuple(widths)


def _most_tasks(shape: tuple[int, ...], widths: tuple[int, ...]) -> int:
    """Return the number of tasks of the largest of the three means."""
    grid = tuple(ceil(length / width) for length, width in zip(shape, widths, strict=True))
    first, others = (0,), tuple(range(1, len(shape)))
    return max(_tasks(grid, axes) for axes in {first, first + others, others or first})


def _tasks(grid: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """Return the number of tasks of dask's reduction of a grid of blocks over some axes."""
    # The blocks, and a tree that joins four of them along one axis, or two along each of several
    # (`split_every`).
    joined = 4 if len(axes) == 1 else 2
    tasks = prod(grid)
    while any(grid[axis] > 1 for axis in axes):
        grid = tuple(ceil(count / joined) if axis in axes else count for axis, count in enumerate(grid))
        tasks += prod(grid)
    return tasks
