"""Outer selections, and their projections onto the chunks of a regular grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import BoundsError

type Key = int | np.integer[Any] | slice | NDArray[Any] | Sequence[int] | EllipsisType
"""A key for one axis."""

type Index = slice | NDArray[np.intp]
"""A key with bounds checked, and nothing negative except a slice's step."""

type Axes = tuple[range | NDArray[np.intp], ...]
"""The positions of an outer selection along every axis."""


class ChunkProjection(NamedTuple):
    """The part of one axis's selection that is within one chunk of the grid."""

    cell: int  # the number of the chunk along the axis
    inside: Index  # the index within the chunk
    outside: Index  # the index in the result


class Selection(NamedTuple):
    """A checked outer selection from an array."""

    axes: Axes  # the selected positions along every axis
    kept: tuple[bool, ...]  # False for axes indexed with an integer, which the result does not have

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the result's shape before axes are dropped."""
        return tuple(len(positions) for positions in self.axes)

    @property
    def final_shape(self) -> tuple[int, ...]:
        """Return the result's shape."""
        return tuple(len(positions) for positions, kept in zip(self.axes, self.kept, strict=True) if kept)


def select(key: Key | tuple[Key, ...], shape: tuple[int, ...]) -> Selection:
    """Check an outer (orthogonal) key against a shape, and return the selection."""
    # One entry per axis: an integer, a slice, or a 1-d array of integers or booleans; missing axes are whole.
    entries = _expand_key(key if isinstance(key, tuple) else (key,), shape)
    axes = [
        _positions(entry, axis, length)
        for axis, (entry, length) in enumerate(zip(entries, shape, strict=True))
    ]
    return Selection(tuple(axes), tuple(np.ndim(entry) > 0 or isinstance(entry, slice) for entry in entries))


def _expand_key(key: tuple[Key, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    whole = [position for position, entry in enumerate(key) if entry is Ellipsis]
    present = len(key) - len(whole)
    if present > len(shape) or len(whole) > 1:
        raise BoundsError(
            f"A key of {len(key)} entries does not fit an array of shape {shape}.", found=key, expected=shape
        )
    at = whole[0] if whole else len(key)
    return (*key[:at], *(slice(None),) * (len(shape) - present), *key[at + 1 :])


def _positions(entry: Any, axis: int, length: int) -> range | NDArray[np.intp]:
    if isinstance(entry, slice):
        return range(*entry.indices(length))
    array = np.asarray(entry)
    if array.dtype == bool and array.shape == (length,):
        return np.flatnonzero(array)
    if array.size == 0 and array.ndim == 1:
        return range(0)
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise BoundsError(
            f"Axis {axis} of length {length} cannot be indexed with an array of {array.dtype} and shape "
            f"{array.shape}.",
            found=(array.dtype, array.shape),
            next_step=f"Use integers, or {length} booleans.",
        )
    smallest, largest = int(array.min()), int(array.max())
    if smallest < -length or largest >= length:
        raise BoundsError(
            f"Position {largest if largest >= length else smallest} is out of bounds for axis {axis} of "
            f"length {length}.",
            found=largest if largest >= length else smallest,
            expected=range(-length, length),
        )
    if array.ndim == 0:
        return range(smallest % length, smallest % length + 1)
    positions = array.astype(np.intp)
    return np.where(positions < 0, positions + length, positions) if smallest < 0 else positions


def as_key(positions: range | NDArray[np.integer[Any]]) -> Index:
    """Return positions along an axis as a key: a slice where they are evenly spaced, which is read faster.

    >>> as_key(range(4, -1, -2)), as_key(np.array([3, 5, 7])), as_key(np.array([5, 3]))
    (slice(4, None, -2), slice(3, 8, 2), array([5, 3]))
    """
    if isinstance(positions, range):
        stop = positions[-1] + (1 if positions.step > 0 else -1) if len(positions) else positions.start
        return slice(positions.start, stop if stop >= 0 else None, positions.step)
    if len(positions):
        first = int(positions[0])
        step = int(positions[1]) - first if len(positions) > 1 else 1
        if step > 0 and bool(np.all(np.diff(positions) == step)):
            return slice(first, int(positions[-1]) + 1, step)
    return positions.astype(np.intp, copy=False)


def most_cells(positions: range | NDArray[np.intp], width: int) -> int:
    """Return the largest possible number of chunks of `width` that one axis's selection touches."""
    if not len(positions):
        return 0
    ends = (
        (positions[0], positions[-1]) if isinstance(positions, range) else (positions.min(), positions.max())
    )
    return min(len(positions), int(max(ends)) // width - int(min(ends)) // width + 1)


def chunk_projections(positions: range | NDArray[np.intp], width: int) -> Iterator[ChunkProjection]:
    """Divide one axis's selection into the chunks of `width` that it touches, each chunk once.

    >>> list(chunk_projections(range(3, 10, 2), 5))
    [ChunkProjection(cell=0, inside=slice(3, 4, 2), outside=slice(0, 1, None)), \
ChunkProjection(cell=1, inside=slice(0, 5, 2), outside=slice(1, 4, None))]
    """
    if isinstance(positions, range):
        return _projections_of_range(positions, width)
    return _projections_of_array(positions, width)


def _projections_of_range(positions: range, width: int) -> Iterator[ChunkProjection]:
    ascending = positions if positions.step > 0 else positions[::-1]
    first, step, count = ascending.start, ascending.step, len(ascending)
    begin = 0
    while begin < count:
        cell = ascending[begin] // width
        origin = cell * width
        end = min(count, -((first - origin - width) // step))
        inside = slice(ascending[begin] - origin, ascending[end - 1] - origin + 1, step)
        if positions.step > 0:
            outside = slice(begin, end)
        else:
            outside = slice(count - 1 - begin, count - 1 - end if end < count else None, -1)
        yield ChunkProjection(cell, inside, outside)
        begin = end


def _projections_of_array(positions: NDArray[np.intp], width: int) -> Iterator[ChunkProjection]:
    cells = positions // width
    order = None
    if np.any(cells[1:] < cells[:-1]):
        order = np.argsort(cells, kind="stable")
        positions, cells = positions[order], cells[order]
    edges = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), len(cells)] if len(cells) else []
    for begin, end in pairwise(edges):
        cell = int(cells[begin])
        inside = as_key(positions[begin:end] - cell * width)
        yield ChunkProjection(cell, inside, slice(begin, end) if order is None else order[begin:end])


def outer(index: tuple[Index, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return an index that NumPy applies axis by axis, to read from or write to an array of `shape`."""
    if sum(isinstance(entry, np.ndarray) for entry in index) < 2:
        return index
    open_mesh = [
        np.arange(length)[entry] if isinstance(entry, slice) else entry
        for entry, length in zip(index, shape, strict=True)
    ]
    return np.ix_(*open_mesh)
