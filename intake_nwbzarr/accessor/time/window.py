"""A stretch of time, half-open, in seconds or as the instants that decoded times are compared with."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.errors import OptionError

# Two centuries: datetimes to the nanosecond end in 2262.
_LONGEST = 6e9


class Window(NamedTuple):
    """Times from `start` on and before `stop`: seconds, or datetimes in UTC."""

    start: Any
    stop: Any

    def holds(self, times: NDArray[Any]) -> NDArray[np.bool_]:
        """Which times lie within; NaN and NaT do not."""
        return np.asarray((times >= self.start) & (times < self.stop))

    def overlaps(self, starts: NDArray[Any], stops: NDArray[Any]) -> NDArray[np.bool_]:
        """Which intervals reach into it; one without an end, or that ends before it starts, is an instant."""
        ends = np.fmax(starts, stops)
        reaches = (starts < self.stop) & (ends > self.start)
        return np.asarray(np.where(ends > starts, reaches, self.holds(starts)))

    def like(self, times: NDArray[Any] | xr.Variable, dataset: xr.Dataset) -> Window:
        """The same window as times of some kind can be compared with.

        Parameters
        ----------
        times
            Seconds, or datetimes that a session was opened with.
        dataset
            Says what these count from.
        """
        if times.dtype.kind != "M":
            return self
        return Window(*(_instant(float(seconds), dataset) for seconds in self))


def window_of(start: float, stop: float) -> Window:
    """Check two times.

    Raises
    ------
    OptionError
        When they are not numbers of seconds, or the first is not before the second.
    """
    for name, value in (("start", start), ("stop", stop)):
        if not isinstance(value, Real) or isinstance(value, bool) or np.isnan(value):
            raise OptionError(f"{name}={value!r} is not a time; it is a number of seconds.")
    if not start < stop:
        raise OptionError(f"start={start!r} is not before stop={stop!r}, so there is no time between them.")
    return Window(float(start), float(stop))


def _instant(seconds: float, dataset: xr.Dataset) -> np.datetime64:
    """A time as decoded times hold it; times beyond what these can hold are their first or last."""
    # Brings in what a session is opened with, as one whose times are decoded has been.
    from intake_nwbzarr.neurodata.time_coordinates import datetimes, reference_time

    if abs(seconds) > _LONGEST:
        limits = np.iinfo(np.int64)
        return np.datetime64(limits.max if seconds > 0 else limits.min + 1, "ns")
    reference = reference_time(dataset.attrs, str(dataset.attrs.get("nwb_location")))
    instant: np.datetime64 = datetimes(np.array([seconds]), reference)[0]
    return instant
