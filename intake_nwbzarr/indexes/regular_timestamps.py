"""The times of samples taken at a rate: computed, and found again exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, override

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.indexes.interface import Floats, Positions, Timestamps

# How far from even spacing times may be that are evenly spaced all the same. Averaging, shifting and scaling
# move them by a few units in the last place of the largest times they were made of, which are 1.5e-11 s for
# times of a day; decoding rounds them to whole nanoseconds. Clocks tick in nanoseconds at best, so that the
# times of samples that really were taken irregularly are further off.
_TOLERANCE = 0.6e-9
_UNITS_IN_LAST_PLACE = 4

# Where that is more than this part of the sampling interval, the times are too coarse to tell.
_PART_OF_INTERVAL = 1e-3

# Any two times are evenly spaced.
_FEWEST = 3

# Rates and intervals that people choose have no more digits.
_DIGITS = 9


@dataclass(frozen=True)
class RegularTimestamps(Timestamps):
    """The times of samples taken at a rate, without end: sample k is at ``starting_time + k / rate`` seconds.

    Division and addition round monotonically, so these numbers never decrease, though neighbours can be equal
    where the starting time is too large to tell them apart.
    """

    starting_time: float
    rate: float
    computed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (np.isfinite(self.rate) and self.rate > 0 and np.isfinite(self.starting_time)):
            raise MetadataError(
                f"Regular time needs a finite starting time and a positive finite rate, found starting_time="
                f"{self.starting_time!r} s and rate={self.rate!r} Hz."
            )

    @override
    def at(self, positions: Positions) -> Floats:
        times: Floats = self.starting_time + positions / self.rate
        return times

    @override
    def read(self, positions: range) -> Floats:
        return self.at(np.arange(positions.start, positions.stop, positions.step, dtype=np.int64))

    @override
    def insertion_points(self, labels: Floats, after: NDArray[np.bool_], within: range) -> Positions:
        # Bisection, all labels at once. It starts around the sample that division gives, where the timestamps
        # there confirm that the rounded quotient is near enough, and from the whole range elsewhere.
        first, end = within.start, within[-1] + 1
        with np.errstate(all="ignore"):
            guess = np.nan_to_num(np.clip((labels - self.starting_time) * self.rate, first, end), nan=first)
        low = np.clip(guess.astype(np.int64) - 2, first, end)
        high = np.clip(low + 4, first, end)
        low = np.where(self.at(low) < labels, low, first)
        high = np.where(self.at(high) > labels, high, end)
        while np.any(low < high):
            middle = (low + high) // 2
            times = self.at(middle)
            precedes = (low < high) & ((times < labels) | (after & (times == labels)))
            low = np.where(precedes, middle + 1, low)
            high = np.where(precedes, high, middle)
        return low


def evenly_spaced(times: Floats) -> RegularTimestamps | None:
    """The starting time and the rate of ascending times that are evenly spaced but for rounding.

    Parameters
    ----------
    times
        In seconds, (time,).

    Returns
    -------
    RegularTimestamps
        Of which sample k is at ``times[k]``, within the rounding. Where the rate or the interval is a number
        of few digits within it, it is that one. None for times that are irregular, fewer than three, or too
        coarse to tell.

    Examples
    --------
    >>> evenly_spaced(np.arange(0, 1000).reshape(-1, 10).mean(axis=1) / 1250)
    RegularTimestamps(starting_time=0.0036, rate=125.0)
    >>> evenly_spaced(np.array([0.1, 0.2, 0.300001])) is None
    True
    """
    if len(times) < _FEWEST or not np.isfinite(times).all() or not times[-1] > times[0]:
        return None
    intervals, duration = len(times) - 1, float(times[-1] - times[0])
    last_place = _UNITS_IN_LAST_PLACE * float(np.spacing(np.abs(times[[0, -1]]).max()))
    tolerance = max(_TOLERANCE, last_place)
    apart = _apart(times, intervals / duration)
    if tolerance > _PART_OF_INTERVAL * duration / intervals or np.ptp(apart) > 2 * tolerance:
        return None
    rate = _rounded(intervals / duration, max(float(np.ptp(apart)), last_place) / duration)
    apart = _apart(times, rate)
    first = float(times[0])
    # Of times that were rounded, the first was too.
    if np.abs(apart).max() > last_place:
        first += float(apart.max() + apart.min()) / 2
    return RegularTimestamps(first, rate)


def _apart(times: Floats, rate: float) -> Floats:
    """By how much times are later than at a rate from the first on."""
    apart: Floats = times - times[0] - np.arange(len(times)) / rate
    return apart


def _rounded(rate: float, tolerance: float) -> float:
    """A rate, or the one of few digits, or of an interval of few digits, that is as good."""
    for digits in range(1, _DIGITS + 1):
        for candidate in (float(f"{rate:.{digits}g}"), 1 / float(f"{1 / rate:.{digits}g}")):
            if abs(candidate / rate - 1) <= tolerance:
                return candidate
    return rate
