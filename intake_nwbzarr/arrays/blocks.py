"""The blocks that dask computes with by default: whole stored chunks, few enough for a mean of everything."""

from __future__ import annotations

from itertools import product
from math import ceil, prod
from typing import Final

from intake_nwbzarr.arrays.scaled import ScaledArray
from intake_nwbzarr.arrays.stored import Readable

TARGET: Final = 64 * 2**20
"""Decoded bytes that a block should have: fewer make too many tasks, more too few to share out."""

LARGE_TARGET: Final = 4 * TARGET
LARGE: Final = 100 * 10**9
"""Decoded bytes of an array beyond which its blocks are larger."""

STRING_BYTES: Final = 64
"""What a variable-length string is taken to occupy."""

TASKS: Final = 1.4
"""Tasks that a mean may take for every `TARGET` of decoded bytes; dask's trees add a third at best."""

MORE_TASKS: Final = 8
"""And these once, which decide when there are only a few blocks."""

# By how much blocks may exceed the target, in steps; and rows of stored chunks that blocks begin with.
_EXCESSES: Final = tuple(1 + step / 8 for step in range(9))
_ROWS: Final = (1, 2, 3, 4)


def preferred_chunks(array: Readable) -> tuple[int, ...]:
    """Whole multiples of the stored chunks (shards), by a rule that keeps reductions small.

    An array of up to 64 MiB, decoded, is one block. Of a larger one, chunks are joined over the other axes
    first, then over time: neighbouring channels of one time lie closer together, in every way of using them,
    than times that are hours apart. A block has at most 64 MiB if that is enough for the means over
    everything, over the first axis and over all the others to take at most 1.4 tasks for every 64 MiB;
    otherwise as little more as is enough, up to 128 MiB. (Where all channels are in one block, dask's mean of
    everything takes two tasks a block, and blocks have about 92 MiB.) Only where that cannot be reached do
    blocks begin with several rows of chunks, and if that does not help either, they are those that take the
    fewest tasks. Blocks of arrays beyond 100 GB have at most 256 MiB, which is enough always.

    A chunk larger than that is a block. What is selected straight from the dask array fetches the chunks that
    it touches, whatever the blocks are: dask passes such selections on to what it reads from.

    Parameters
    ----------
    array
        What the blocks are of.

    Returns
    -------
    tuple of int
        A block's length along each axis.
    """
    # What is decoded, not what scaling makes of it: that is what decides how many tasks there are.
    decoded = array.stored.dtype if isinstance(array, ScaledArray) else array.dtype
    itemsize = STRING_BYTES if decoded.kind == "O" else decoded.itemsize
    size = prod(array.shape) * itemsize
    if size <= TARGET or not array.shape:
        return array.shape
    target = LARGE_TARGET if size > LARGE else TARGET
    allowed = TASKS * ceil(size / TARGET) + MORE_TASKS
    tried = []
    for rows, excess in product(_ROWS, _EXCESSES):
        widths = _joined(array.shape, array.chunks, rows, int(target * excess) // itemsize)
        tasks = _most_tasks(array.shape, widths)
        if tasks <= allowed:
            return widths
        tried.append((tasks, widths))
    return min(tried)[1]


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
    """What the largest of the three means takes."""
    grid = tuple(ceil(length / width) for length, width in zip(shape, widths, strict=True))
    first, others = (0,), tuple(range(1, len(shape)))
    return max(_tasks(grid, axes) for axes in {first, first + others, others or first})


def _tasks(grid: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """What dask's reduction over some axes of a grid of blocks takes: the blocks and its tree over them.

    The tree joins four blocks along one axis, but two along each of several (``split_every``).
    """
    joined = 4 if len(axes) == 1 else 2
    tasks = prod(grid)
    while any(grid[axis] > 1 for axis in axes):
        grid = tuple(ceil(count / joined) if axis in axes else count for axis, count in enumerate(grid))
        tasks += prod(grid)
    return tasks
