"""Labels to positions along timestamps in memory that are in no order, or hold NaN, as pandas finds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.indexes.interface import Floats, Positions

REMEDY = "Leave out samples without a time, sort the others with ds.sortby, or select by position with isel."


def locate_exactly(values: Floats, labels: Floats) -> Positions:
    """Find the position of each label among times of which each occurs once; -1 where it is absent.

    Raises
    ------
    SelectionError
        When a time occurs more than once.
    """
    index = pd.Index(values, copy=False)
    if not index.is_unique:
        raise SelectionError(
            "Some of these samples share a time and they are not in the order of time, so a list of labels "
            f"cannot tell them apart. {REMEDY}"
        )
    return index.get_indexer(pd.Index(labels)).astype(np.int64, copy=False)


def locate_one(values: Floats, label: float) -> int | slice | Positions | None:
    """Find every sample at exactly a time, or None."""
    try:
        found: Any = pd.Index(values, copy=False).get_loc(label)
    except KeyError:
        return None
    if isinstance(found, slice):
        return found
    return np.flatnonzero(found) if isinstance(found, np.ndarray) else int(found)


def locate_slice(values: Floats, start: float | None, stop: float | None, step: int | None) -> slice:
    """Find the positions from the sample at one time to the sample at another, both included.

    Raises
    ------
    SelectionError
        When an end is not itself the time of exactly one sample: without an order, nothing is before or
        after it.
    """
    try:
        return pd.Index(values, copy=False).slice_indexer(start, stop, step)
    except KeyError as error:
        raise SelectionError(
            f"A slice from {start!r} to {stop!r} s has no meaning along samples that are not in the order of "
            f"time, unless both ends are times of one sample each. {REMEDY}"
        ) from error


def refuse_method(method: str) -> SelectionError:
    """Say that nothing is near along times without an order."""
    return SelectionError(
        f"method={method!r} needs samples in the order of time, forwards or backwards; these are in no "
        f"order, or some have no time (NaN). {REMEDY}"
    )
