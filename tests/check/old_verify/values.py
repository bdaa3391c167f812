"""Values: whether a small one, or an array block by block, is the same on both sides."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import isnan, prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

# Elements compared at once, at the least one chunk: 32 MiB of float64.
BLOCK = 4 * 2**20

type Slices = tuple[slice, ...]


def same(raw: Any, shown: Any) -> bool:
    """Whether an attribute holds a value of pynwb's.

    Attributes hold what netCDF and Zarr can store: booleans are 0 and 1 there, dates ISO texts, what is
    nested or mixed JSON, a single compound the list of its fields. pynwb, in turn, gives a single text as a
    tuple of one where it expects several.

    Examples
    --------
    >>> same(True, 1), same(float("nan"), float("nan")), same(("one",), "one"), same([[1]], "[[1]]")
    (True, True, True, True)
    >>> same(1, 2), same("1", 1), same([1, 2], [1])
    (False, False, False)
    """
    raw, shown = _plain(raw), _plain(shown)
    if isinstance(raw, dict) and isinstance(shown, list):
        # A single compound is a list of its fields.
        return same(list(raw.values()), shown)
    if isinstance(shown, str) and (isinstance(raw, list | dict) or _is_large(raw)):
        return _same_as_text(raw, shown)
    if isinstance(raw, list) and not isinstance(shown, list):
        return len(raw) == 1 and same(raw[0], shown)
    if isinstance(shown, list) and not isinstance(raw, list):
        return len(shown) == 1 and same(raw, shown[0])
    if isinstance(raw, list):
        return len(raw) == len(shown) and all(map(same, raw, shown))
    if isinstance(raw, dt.datetime | dt.date):
        return _same_date(raw, shown)
    if isinstance(raw, str) or isinstance(shown, str):
        return type(raw) is type(shown) and bool(raw == shown)
    if isinstance(raw, float) and isinstance(shown, float) and isnan(raw):
        return isnan(shown)
    return bool(raw == shown)


def _is_large(raw: Any) -> bool:
    """Whether an integer fits no attribute: such are texts."""
    return isinstance(raw, int) and not -(2**63) <= raw < 2**63


def _same_as_text(raw: Any, shown: str) -> bool:
    if isinstance(raw, list) and len(raw) == 1 and same(raw[0], shown):
        return True
    try:
        parsed = json.loads(shown)
    except ValueError:
        return False
    if isinstance(raw, dict):
        return (
            isinstance(parsed, dict)
            and raw.keys() == parsed.keys()
            and all(same(raw[name], parsed[name]) for name in raw)
        )
    return type(parsed) is type(raw) and same(raw, parsed)


def _same_date(raw: dt.datetime | dt.date, shown: Any) -> bool:
    if not isinstance(shown, str):
        return False
    try:
        if not isinstance(raw, dt.datetime):
            return raw == dt.date.fromisoformat(shown)
        parsed = dt.datetime.fromisoformat(shown)
    except ValueError:
        return False
    # Equal moments of different zones are not the same text. Without a zone, the time is local.
    zoned = parsed if parsed.tzinfo is not None or raw.tzinfo is None else parsed.astimezone()
    return zoned.replace(tzinfo=None) == raw.replace(tzinfo=None) and zoned.utcoffset() == raw.utcoffset()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.item() if value.ndim == 0 else value.tolist()
    elif hasattr(value, "shape") and hasattr(value, "__getitem__"):
        return _plain(np.asarray(value[...] if value.shape == () else value[:]))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value


def blocks(shape: Sequence[int], chunks: Sequence[int] | None = None) -> Iterator[Slices]:
    """Slices that cover an array, each of whole chunks, of about `BLOCK` elements.

    Examples
    --------
    >>> list(blocks((3, 2)))
    [(slice(0, 3, None), slice(0, 2, None))]
    """
    lengths = [min(max(chunk, 1), max(size, 1)) for chunk, size in zip(chunks or shape, shape, strict=True)]
    if chunks is None:
        lengths = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        others = prod(lengths) // lengths[axis]
        times = max(1, BLOCK // max(others * lengths[axis], 1))
        lengths[axis] = min(lengths[axis] * times, max(shape[axis], 1))
    starts = (range(0, size, length) for size, length in zip(shape, lengths, strict=True))
    for corner in product(*starts):
        yield tuple(
            slice(start, min(start + length, size))
            for start, length, size in zip(corner, lengths, shape, strict=True)
        )


type Conversion = Callable[[NDArray[Any], Slices], tuple[NDArray[Any], NDArray[Any] | float]]


def unlike(raw: Any, shown: xr.Variable, conversion: Conversion | None = None) -> tuple[str, str] | None:
    """Where an array and a variable differ: what each has there, None where they are equal.

    Parameters
    ----------
    raw
        An array as pynwb gives it, lazy or not, a list, or a scalar.
    shown
        The variable that shows it.
    conversion
        Gives, of a block, the values expected and how far floating point may be from them. None: the block
        itself, exactly.
    """
    array = raw if hasattr(raw, "shape") else _listed(raw)
    if tuple(array.shape) != shown.shape:
        return f"shape {tuple(array.shape)}", f"shape {shown.shape}"
    for place in blocks(shown.shape, _chunks(array, shown.ndim)):
        block = np.asarray(array[place]) if place else np.asarray(array[...] if _lazy(array) else array)
        allowed: NDArray[Any] | float = 0.0
        if conversion is not None:
            block, allowed = conversion(block, place)
        there = np.asarray(shown[place].values)
        found = _first_unlike(block, there, allowed)
        if found is not None:
            position = tuple(int(at) + part.start for at, part in zip(found, place, strict=True))
            where = f" at {list(position)}" if position else ""
            return f"{block[found]!r}{where}", f"{there[found]!r}{where}"
        mismatch = _type_mismatch(block.dtype, there.dtype)
        if mismatch:
            return mismatch
    return None


class OneField:
    """One field of an array of compounds, read where it is indexed.

    Parameters
    ----------
    compound
        The array.
    name
        The field.
    """

    def __init__(self, compound: Any, name: str) -> None:
        self.compound, self.name = compound, name
        self.shape, self.dtype = tuple(compound.shape), compound.dtype[name]
        self.chunks = getattr(compound, "chunks", None)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        values: NDArray[Any] = np.asarray(self.compound[key])[self.name]
        return values


def _lazy(array: Any) -> bool:
    return not isinstance(array, np.ndarray | np.generic)


def _listed(raw: Any) -> NDArray[Any]:
    array = np.asarray(raw)
    return array.astype(object) if array.dtype.kind in "SU" else array


def _chunks(array: Any, ndim: int) -> tuple[int, ...] | None:
    """The stored chunks, or shards, that a lazy array is best read in."""
    found = getattr(array, "shards", None) or getattr(array, "chunks", None)
    return tuple(found) if isinstance(found, tuple) and len(found) == ndim else None


def _first_unlike(raw: NDArray[Any], shown: NDArray[Any], allowed: NDArray[Any] | float) -> Any:
    if raw.dtype.kind in "OSUT" or shown.dtype.kind in "OSUT":
        unequal = texts(raw) != texts(shown)
    else:
        with np.errstate(invalid="ignore"):
            unequal = raw != shown
            if raw.dtype.kind in "fc" and shown.dtype.kind in "fc":
                unequal &= ~((raw != raw) & (shown != shown))
                if np.any(allowed):
                    unequal &= ~(np.abs(raw - shown) <= allowed)
    found = np.argwhere(np.asarray(unequal, bool))
    return tuple(found[0]) if len(found) else None


def _type_mismatch(raw: np.dtype[Any], shown: np.dtype[Any]) -> tuple[str, str] | None:
    """Types that differ where values are equal: only floats may be wider, and texts otherwise stored."""
    if raw.kind in "OSUT" and shown.kind in "OSUT":
        return None
    wider = raw.kind == "f" == shown.kind and shown.itemsize >= raw.itemsize
    return None if wider or raw.newbyteorder("=") == shown.newbyteorder("=") else (str(raw), str(shown))


def texts(array: NDArray[Any]) -> NDArray[Any]:
    """Texts of any kind as Python strings; what else an object array holds stays."""
    result = np.empty(array.shape, object)
    for position, value in np.ndenumerate(array):
        result[position] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return result
