"""Labels by which a caller names units, channels and ROIs."""

from __future__ import annotations

from datetime import datetime
from numbers import Number
from typing import Any

import numpy as np

from intake_nwbzarr.errors import OptionError


def one_label(value: object, keyword: str, meaning: str) -> Any:
    """One label; of an array without dimensions, what it holds.

    Parameters
    ----------
    value
        What a caller gives.
    keyword, meaning
        What it was given as, and what that means, for errors: ``unit``, ``the id of a unit``.

    Raises
    ------
    OptionError
        When it is no label: a list, a truth value, nothing.
    """
    found = several_labels(value, keyword, meaning) if np.ndim(_plain(value)) == 0 else []
    if len(found) != 1:
        raise _no_label(value, keyword, meaning)
    return found[0]


def several_labels(value: object, keyword: str, meaning: str) -> list[Any]:
    """Labels from one of them, or from a list or an array along one dimension.

    Parameters
    ----------
    value, keyword, meaning
        As of `one_label`.

    Raises
    ------
    OptionError
        When it is none of these. A mask is not: its truth values would pass for the labels 0 and 1.
    """
    array = _plain(value)
    labels: list[Any] = np.atleast_1d(array).tolist()
    if array.ndim > 1 or not all(_is_label(label) for label in labels):
        raise _no_label(value, keyword, meaning)
    return labels


def _plain(value: object) -> np.ndarray[Any, Any]:
    # As objects, numbers and text of one list stay what they are.
    try:
        return np.asarray(value, object)
    except (TypeError, ValueError):
        return np.empty((0, 0), object)


def _is_label(label: object) -> bool:
    return isinstance(label, Number | str | datetime | np.generic) and not isinstance(label, bool | np.bool_)


def _no_label(value: object, keyword: str, meaning: str) -> OptionError:
    return OptionError(f"{keyword}={value!r} means nothing here; it is {meaning}.")
