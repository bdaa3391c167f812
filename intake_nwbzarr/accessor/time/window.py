"""A stretch of time, half-open, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.seconds import Time, as_given, one_time
from intake_nwbzarr.errors import OptionError


class Window(NamedTuple):
    """Times from `start` on and before `stop`, in seconds."""

    start: float
    stop: float

    def holds(self, times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which times lie within; NaN does not."""
        return np.asarray((times >= self.start) & (times < self.stop))

    def overlaps(self, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which intervals reach into it; one without an end, or that ends before it starts, is an instant."""
        ends = np.fmax(starts, stops)
        reaches = (starts < self.stop) & (ends > self.start)
        return np.asarray(np.where(ends > starts, reaches, self.holds(starts)))


def window_of(start: Time, stop: Time, attributes: Mapping[Any, Any]) -> Window:
    """The window between two times that a caller gives.

    Raises
    ------
    OptionError
        When they are no times, or the first is not before the second.
    """
    ends = (("start", start), ("stop", stop))
    window = Window(*(one_time(value, keyword, attributes, finite=False) for keyword, value in ends))
    if not window.start < window.stop:
        raise OptionError(
            f"start={as_given(start)} is not before stop={as_given(stop)}, so there is no time between them."
        )
    return window
