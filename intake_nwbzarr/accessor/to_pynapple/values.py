"""The values of a variable, in the form that pynapple takes for an array: read when they are indexed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray


class LazyValues:
    """Values with time first, of which pynapple reads what it selects.

    Parameters
    ----------
    variable
        Lazy, in any order of dimensions; it is never moved, only what is read of it.
    time
        The dimension that comes first here.
    """

    def __init__(self, variable: xr.Variable, time: str) -> None:
        self._variable = variable
        self._dims = (time, *(dim for dim in variable.dims if dim != time))

    @property
    def shape(self) -> tuple[int, ...]:
        """With time first."""
        return tuple(self._variable.sizes[dim] for dim in self._dims)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._dims)

    @property
    def size(self) -> int:
        """The number of values."""
        return self._variable.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """What reading gives."""
        dtype: np.dtype[Any] = self._variable.dtype
        return dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        entries = _expanded(key if isinstance(key, tuple) else (key,), self.ndim)
        if entries is None:
            return np.asarray(self)[key]
        axes = iter(zip(self._dims, self.shape, strict=True))
        read: dict[Any, Any] = {}
        rest: list[Any] = []
        for entry in entries:
            if entry is None:
                rest.append(None)
                continue
            dim, size = next(axes)
            read[dim], within = _split(entry, size)
            rest.append(within)
        values = self._variable.isel(read).transpose(*self._dims).to_numpy()
        return values[tuple(rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = self._variable.transpose(*self._dims).to_numpy()
        return np.array(values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"<LazyValues {self.dtype} {self.shape}>"


def _expanded(key: tuple[Any, ...], ndim: int) -> tuple[Any, ...] | None:
    """One entry for each axis, beside those for new ones; None for a mask of several axes, or no such key."""
    whole = [at for at, entry in enumerate(key) if entry is Ellipsis]
    given = sum(entry is not None for entry in key) - len(whole)
    masks = any(np.ndim(entry) != 1 and np.asarray(entry).dtype == bool for entry in key if entry is not None)
    if masks or len(whole) > 1 or given > ndim:
        return None
    at = whole[0] if whole else len(key)
    return (*key[:at], *(slice(None),) * (ndim - given), *key[at + len(whole) :])


def _split(entry: Any, size: int) -> tuple[Any, Any]:
    """What is read along an axis, and how NumPy is to index that, so that the result is as of the whole."""
    if isinstance(entry, slice):
        first, stop, step = entry.indices(size)
        chosen = range(first, stop, step)
        if step > 0 or not chosen:
            return slice(first, max(first, stop), abs(step)), slice(None)
        return slice(chosen[-1], chosen[0] + 1, -step), slice(None, None, -1)
    positions = np.asarray(entry)
    if positions.dtype == bool:
        if positions.shape != (size,):
            raise IndexError(f"A mask of {positions.shape} does not fit an axis of {size}.")
        positions = np.flatnonzero(positions)
    if positions.size == 0:
        positions = positions.astype(np.intp)
    if positions.dtype.kind not in "iu":
        raise IndexError(f"{entry!r} is no position, slice or mask.")
    if positions.size and (positions.min() < -size or positions.max() >= size):
        raise IndexError(f"Position {entry!r} is out of bounds for an axis of {size}.")
    unique, inverse = np.unique(np.where(positions < 0, positions + size, positions), return_inverse=True)
    within = inverse.reshape(positions.shape)
    return unique.astype(np.intp), int(within) if within.ndim == 0 else within
