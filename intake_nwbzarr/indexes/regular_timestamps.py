"""The times of samples taken at a rate: computed, and found again exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, override

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.indexes.interface import Floats, Positions, Timestamps


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
