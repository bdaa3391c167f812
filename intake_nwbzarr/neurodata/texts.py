"""Stored texts and object references as Python strings, made when they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import Readable
from intake_nwbzarr.errors import LinkError
from intake_nwbzarr.hierarchy.links import parse_reference
from intake_nwbzarr.neurodata.derived import Elementwise
from intake_nwbzarr.neurodata.metadata import linked

_STRINGS = np.dtype(object)


def as_text(array: Readable) -> Readable:
    """Fixed-width text as Python strings, which xarray computes with; anything else as it is."""
    return Elementwise(_strings, (array,), _STRINGS) if array.dtype.kind in "SU" else array


def path_text(array: Readable) -> Readable:
    """Object references as the paths of what they refer to, without a leading slash; empty where missing."""
    return Elementwise(paths_of, (array,), _STRINGS)


def short_name(array: Readable) -> Readable:
    """Object references as the names of what they refer to."""
    return Elementwise(_names, (array,), _STRINGS)


def valid_path(path: Readable, start: Readable, count: Readable) -> Readable:
    """The paths of references to samples; empty where start and count are negative: nothing was recorded."""
    return Elementwise(_valid_paths, (path, start, count), _STRINGS)


def translated(array: Readable, pairs: tuple[tuple[str, str], ...]) -> Readable:
    """Object references as what each path stands for by `pairs`; empty where it is none of them."""
    return Elementwise(_translated, (array,), _STRINGS, (pairs,))


def as_strings(values: NDArray[Any]) -> NDArray[Any]:
    """What `as_text` makes of values that have been read."""
    return _strings(values) if values.dtype.kind in "SU" else values


def _strings(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return values.astype(object)


def paths_of(values: NDArray[Any]) -> NDArray[Any]:
    """What `path_text` makes of values that have been read."""
    return _each(_path, values)


def _names(values: NDArray[Any]) -> NDArray[Any]:
    return _each(lambda value: _path(value).rpartition("/")[2], values)


def _valid_paths(paths: NDArray[Any], starts: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
    recorded = (np.asarray(starts) >= 0) & (np.asarray(counts) >= 0)
    return np.where(recorded, paths_of(paths), "").astype(object)


def _translated(pairs: tuple[tuple[str, str], ...], values: NDArray[Any]) -> NDArray[Any]:
    meaning = dict(pairs)
    return _each(lambda value: meaning.get(_path(value), ""), values)


def _each(function: Callable[[object], str], values: NDArray[Any]) -> NDArray[Any]:
    result = np.empty(np.shape(values), object)
    for position, value in np.ndenumerate(values):
        result[position] = function(value)
    return result


def _path(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if not text:
        return ""
    try:
        return linked(parse_reference(text, where="An object reference"))
    except LinkError:
        return text
