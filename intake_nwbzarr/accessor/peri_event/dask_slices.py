"""Parts of a dask array's first axis, sliced out and put together as one block."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.peri_event.runs import Runs


def sliced(data: Any, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> tuple[Any, Runs] | None:
    """Slice intervals out of a dask array's first axis.

    Slices reach down to what dask reads: chunks outside of all intervals are neither read nor computed, and
    of a lazily stored one only the part that is sliced is read.

    Parameters
    ----------
    data
        A dask array.
    starts, stops
        Of the intervals, in any order; where they overlap they are sliced once, and empty ones not at all.

    Returns
    -------
    array
        A dask array with one chunk along its first axis.
    runs
        Where everything in the intervals is along it.
    None
        When all intervals are empty.
    """
    import dask.array as da

    runs = Runs.of(starts, stops)
    if not runs.size:
        return None
    ends = runs.starts + runs.lengths
    parts = [data[start:stop] for start, stop in zip(runs.starts, ends, strict=True)]
    together = da.concatenate(parts)  # type: ignore[no-untyped-call]
    return together.rechunk({0: -1}), runs


def grouped(sizes: NDArray[np.int64], target: int) -> list[NDArray[np.int64]]:
    """Neighbours in groups of at most `target` bytes together, or of one that is larger.

    Parameters
    ----------
    sizes
        Bytes of each.

    Examples
    --------
    >>> [group.tolist() for group in grouped(np.array([3, 3, 9, 1, 1]), 6)]
    [[0, 1], [2], [3, 4]]
    """
    groups: list[list[int]] = []
    left = 0
    for position, size in enumerate(sizes.tolist()):
        if not groups or size > left:
            groups.append([])
            left = target
        groups[-1].append(position)
        left -= size
    return [np.array(group, np.int64) for group in groups]
