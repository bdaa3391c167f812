"""Timestamps in memory: single samples picked from a recording, and times that were given as numbers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import override

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.indexes.interface import Floats, Positions, Timestamps
from intake_nwbzarr.indexes.timestamps import TimestampView

IN_MEMORY_LIMIT = 10**7
"""The most timestamps (80 MB of them) that an operation may bring into memory by itself."""


@dataclass(frozen=True, eq=False)
class TimestampsInMemory(Timestamps):
    """Times in any order, (time,), which nothing else may change."""

    values: Floats

    def __post_init__(self) -> None:
        frozen = self.values.view()
        frozen.flags.writeable = False
        object.__setattr__(self, "values", frozen)

    @cached_property
    def ascending(self) -> bool:
        """Whether labels can be found by bisection."""
        return not (np.isnan(self.values).any() or (self.values[1:] < self.values[:-1]).any())

    @override
    def at(self, positions: Positions) -> Floats:
        times: Floats = self.values[positions]
        return times

    @override
    def read(self, positions: range) -> Floats:
        if not positions:
            return self.values[:0]
        stop = positions.stop if positions.stop >= 0 else None
        return self.values[slice(positions.start, stop, positions.step)]

    @override
    def insertion_points(self, labels: Floats, after: NDArray[np.bool_], within: range) -> Positions:
        left = np.searchsorted(self.values, labels, side="left")
        return np.where(after, np.searchsorted(self.values, labels, side="right"), left)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimestampsInMemory) and (
            self.values is other.values or np.array_equal(self.values, other.values, equal_nan=True)
        )

    def __hash__(self) -> int:
        return hash((type(self).__qualname__, len(self.values)))

    def __deepcopy__(self, memo: object) -> TimestampsInMemory:
        return self

    def __reduce__(self) -> tuple[type[TimestampsInMemory], tuple[Floats]]:
        return type(self), (self.values,)


def in_memory(values: Floats) -> TimestampView:
    """View times in memory; descending ones are kept ascending, and viewed backwards."""
    timestamps = TimestampsInMemory(values)
    size = len(values)
    if size > 1 and not timestamps.ascending and not (values[1:] > values[:-1]).any():
        backwards = TimestampsInMemory(values[::-1])
        if backwards.ascending:
            return TimestampView(backwards, range(size - 1, -1, -1))
    return TimestampView(timestamps, range(size))


def is_in_memory(view: TimestampView) -> bool:
    """Whether reading a view costs nothing."""
    return isinstance(view.timestamps, TimestampsInMemory)


def pick(view: TimestampView, positions: ArrayLike) -> TimestampView:
    """View single samples: lazily where they are evenly spaced and computed anyway, in memory otherwise.

    Evenly spaced samples of stored timestamps are read too: whoever leaves out samples without a time, by a
    boolean array, has the rest in memory and needs no block that holds a NaN again.

    Raises
    ------
    BoundsError
        For a position outside of the view.
    """
    samples = view.samples_at(positions)
    if view.timestamps.computed:
        evenly = _evenly_spaced(samples)
        if evenly is not None:
            return TimestampView(view.timestamps, evenly)
    return in_memory(view.timestamps.at(samples))


def cut(view: TimestampView, selected: slice) -> TimestampView:
    """View a slice of a view; where times in memory are in no order, part of them may be in one."""
    part = view[selected]
    return part if view.timestamps.ascending else in_memory(part.values())


def bring(view: TimestampView, name: Hashable) -> Floats:
    """Read every timestamp of a view that was not made for that.

    Raises
    ------
    SelectionError
        For more than `IN_MEMORY_LIMIT` timestamps that are not in memory yet.
    """
    if len(view) > IN_MEMORY_LIMIT and not is_in_memory(view):
        raise SelectionError(
            f"This needs all {len(view)} timestamps of '{name}' in memory as a pandas index, more than "
            f"{IN_MEMORY_LIMIT}: select a slice of time first, or bring them into memory on purpose with "
            f"ds.drop_indexes({name!r}).set_xindex({name!r})."
        )
    return view.values()


def _evenly_spaced(samples: Positions) -> range | None:
    if len(samples) < 2:
        return range(int(samples[0]), int(samples[0]) + 1) if len(samples) else range(0)
    first, step = int(samples[0]), int(samples[1] - samples[0])
    if not step or (np.diff(samples) != step).any():
        return None
    return range(first, first + step * len(samples), step)
