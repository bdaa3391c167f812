"""Join and concatenate time coordinates, lazily where they are slices of one recording."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import reduce

import numpy as np
import pandas as pd

from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.indexes.timestamps import (
    IN_MEMORY_LIMIT,
    TimestampView,
    in_memory,
    is_in_memory,
    load,
    take,
)


def join(left: TimestampView, right: TimestampView, how: str, name: Hashable) -> TimestampView:
    """Return the intersection (``inner``) or union (``outer``) of two views' times, ordered as by pandas."""
    # Lazy for slices of one recording, and for a union with times that the longer view already has. Of two
    # recordings, the times of the shorter are searched in the longer, which is not read as a whole.
    if not len(left) or not len(right):
        empty, other = (left, right) if not len(left) else (right, left)
        return empty if how == "inner" else other
    slices = _slices_of_one_recording(left, right, how)
    if slices is not None:
        return slices
    longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
    if not is_in_memory(longer):
        found = _found_in_longer(longer, shorter, left, how, name)
        if found is not None:
            return found
    one, other_one = (pd.Index(load(view, name), copy=False) for view in (left, right))
    together = one.union(other_one) if how == "outer" else one.intersection(other_one)
    return in_memory(together.to_numpy(np.float64))


def concatenate(views: Sequence[TimestampView], name: Hashable) -> TimestampView:
    """Return views one after the other: lazily where they continue one recording, in memory otherwise."""
    first: TimestampView | None = views[0]
    view = reduce(_continued, views[1:], first)
    if view is not None:
        return view
    total = sum(len(view) for view in views)
    if total > IN_MEMORY_LIMIT and not all(is_in_memory(view) for view in views):
        raise SelectionError(
            f"Concatenating {len(views)} indexes along '{name}' that do not continue one recording needs "
            f"their {total} timestamps in memory, more than {IN_MEMORY_LIMIT}.",
            found=total,
            expected=IN_MEMORY_LIMIT,
            next_step="Select a slice of time first.",
        )
    return in_memory(np.concatenate([view.values() for view in views]))


def _found_in_longer(
    longer: TimestampView, shorter: TimestampView, left: TimestampView, how: str, name: Hashable
) -> TimestampView | None:
    """Join by searching the shorter view's times in the longer; None where that is not the union."""
    positions = longer.locate(load(shorter, name))
    found = positions >= 0
    if how == "outer":
        ascending = longer if longer.samples.step > 0 else longer[::-1]
        return ascending if found.all() else None
    if longer is left:
        return take(longer, np.unique(positions[found]))
    _, first_of_each = np.unique(positions[found], return_index=True)
    return take(shorter, np.flatnonzero(found)[np.sort(first_of_each)])


def _slices_of_one_recording(left: TimestampView, right: TimestampView, how: str) -> TimestampView | None:
    """Join the sample numbers of two slices; None where the result is not a slice."""
    a, b = left.samples, right.samples
    if a.step != b.step or not left.timestamps.ascending or left.timestamps != right.timestamps:
        return None
    if a.step < 0:
        # pandas keeps the order of what two descending indexes share, and sorts their union.
        shared = _slices_of_one_recording(left[::-1], right[::-1], how) if how == "inner" else None
        return None if shared is None else shared[::-1]
    if (a.start - b.start) % a.step:
        return None
    if how == "inner":
        return TimestampView(left.timestamps, range(max(a[0], b[0]), min(a[-1], b[-1]) + a.step, a.step))
    if max(a[0], b[0]) > min(a[-1], b[-1]) + a.step:
        return None
    return TimestampView(left.timestamps, range(min(a[0], b[0]), max(a[-1], b[-1]) + a.step, a.step))


def _continued(left: TimestampView | None, right: TimestampView) -> TimestampView | None:
    """Join two slices where the second continues the first with the same stride, or None."""
    if left is None or not len(left) or not len(right):
        return left if left is None or not len(right) else right
    if left.timestamps != right.timestamps:
        return None
    a, b = left.samples, right.samples
    step = b[0] - a[-1]
    if not step:
        return None
    whole = range(a[0], b[-1] + (1 if step > 0 else -1), step)
    together = len(whole) == len(a) + len(b) and whole[: len(a)] == a and whole[len(a) :] == b
    return TimestampView(left.timestamps, whole) if together else None
