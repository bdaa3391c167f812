"""The samples of many short series as one lazy array, a row for each recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import Computed, ScaledArray, StoredArray, read_many
from intake_nwbzarr.arrays.selection import Axes, as_key


@dataclass(frozen=True)
class Segment:
    """A range of one series' samples."""

    array: StoredArray | ScaledArray  # the series' data, (time,), in units
    start: int
    count: int


@dataclass(frozen=True, eq=False)
class SweepArray(Computed):
    """Segments of many series, one a row: float64, ``(recording, time)``.

    A selection of rows reads the chunks of those series only, all in one gather. A row without a segment is
    NaN, and so is what lies beyond the end of a shorter one.
    """

    segments: tuple[Segment | None, ...]
    length: int  # samples in a row

    @property
    def sources(self) -> tuple[StoredArray | ScaledArray, ...]:
        """Return the series' data."""
        return tuple(segment.array for segment in self.segments if segment is not None)

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of recordings and of samples."""
        return len(self.segments), self.length

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return float64."""
        return np.dtype(np.float64)

    @property
    def chunks(self) -> tuple[int, int]:
        """Return one recording, and as many samples as the first series stores together."""
        widths = (segment.array.chunks[0] for segment in self.segments if segment is not None)
        return 1, max(min(next(widths, self.length), self.length), 1)

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the selected samples of the selected recordings."""
        out = np.full([len(axis) for axis in axes], np.nan)
        samples = np.asarray(axes[1], np.int64)
        requests, places = [], []
        for position, row in enumerate(axes[0]):
            segment = self.segments[int(row)]
            recorded = samples < (0 if segment is None else segment.count)
            if segment is not None and recorded.any():
                requests.append((segment.array, (as_key(samples[recorded] + segment.start),)))
                places.append((position, recorded))
        for (position, recorded), values in zip(places, read_many(requests), strict=True):
            out[position, recorded] = values
        return out


@dataclass(frozen=True, eq=False)
class SettingArray(Computed):
    """One scalar setting of many series: float64, ``(recording,)``, NaN where a series has none."""

    scalars: tuple[StoredArray | None, ...]

    @property
    def sources(self) -> tuple[StoredArray, ...]:
        """Return the settings."""
        return tuple(scalar for scalar in self.scalars if scalar is not None)

    @property
    def shape(self) -> tuple[int]:
        """Return the number of recordings."""
        return (len(self.scalars),)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return float64."""
        return np.dtype(np.float64)

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the setting of the selected recordings, read in one gather."""
        wanted = [self.scalars[int(row)] for row in axes[0]]
        values = iter(read_many([scalar for scalar in wanted if scalar is not None]))
        found = [np.nan if scalar is None else float(next(values).item()) for scalar in wanted]
        return np.array(found, np.float64)
