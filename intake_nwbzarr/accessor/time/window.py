"""Stretches of time, half-open, in seconds: between two times, or those of epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.times import as_given, one_time
from intake_nwbzarr.errors import OptionError


@dataclass(frozen=True, eq=False)
class Windows:
    """Times from one of `starts` on and before its stop, in seconds.

    Parameters
    ----------
    starts, stops
        Of each window, (window,): ascending, and apart from each other.
    """

    starts: NDArray[np.float64]
    stops: NDArray[np.float64]

    @classmethod
    def union(cls, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> Self:
        """All times that are in any of several intervals, which are in any order and may overlap."""
        return cls(*merged(np.column_stack([starts, stops])).T)

    def holds(self, times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which times lie within; NaN does not."""
        return self.place(times) >= 0

    def place(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """The window that each time lies in, by position; -1 where there is none."""
        place = np.searchsorted(self.starts, times, side="right") - 1
        if not len(self.starts):
            return place
        return np.where((place >= 0) & (times < self.stops[place]), place, -1)

    def overlaps(self, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which intervals reach into one; an interval that does not end after it starts is an instant."""
        ends = np.fmax(starts, stops)
        # The first window that is not over when an interval starts is the one it reaches first.
        first = np.searchsorted(self.stops, starts, side="right")
        begins = np.append(self.starts, np.inf)[first]
        return np.asarray(np.where(ends > starts, begins < ends, self.holds(starts)))


def window_of(start: object, stop: object, attributes: Mapping[Any, Any]) -> Windows:
    """The window between two times that a caller gives.

    Raises
    ------
    OptionError
        When they are no times, or the first is not before the second.
    """
    ends = (("start", start), ("stop", stop))
    first, last = (one_time(value, keyword, attributes, finite=False) for keyword, value in ends)
    if not first < last:
        raise OptionError(
            f"start={as_given(start)} is not before stop={as_given(stop)}, so there is no time between them."
        )
    return Windows(np.array([first]), np.array([last]))


def merged(intervals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intervals, (interval, 2), in their order, those that touch made one; without those that hold NaN."""
    intervals = intervals.reshape(-1, 2)
    intervals = intervals[~np.isnan(intervals).any(axis=1)]
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    if not len(intervals):
        return intervals
    reach = np.maximum.accumulate(intervals[:, 1])
    first = np.flatnonzero(np.concatenate([[True], intervals[1:, 0] > reach[:-1]]))
    last = np.concatenate([first[1:] - 1, [len(reach) - 1]])
    return np.column_stack([intervals[first, 0], reach[last]])
