"""The samples of many short series as one lazy array, a row for each recording."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import ScaledArray, StoredArray, read_many
from intake_nwbzarr.arrays.selection import Key, select


@dataclass(frozen=True)
class Segment:
    """A range of one series' samples.

    Parameters
    ----------
    array
        The series' data, ``(time,)``, in units.
    start, count
        Which of its samples.
    """

    array: StoredArray | ScaledArray
    start: int
    count: int


@dataclass(frozen=True, eq=False)
class SweepArray:
    """Segments of many series, one a row: float64, ``(recording, time)``.

    A selection of rows reads the chunks of those series only, all in one gather.

    Parameters
    ----------
    segments
        One for each row. None is a row of NaN, and so is what lies beyond the end of a shorter segment.
    length
        Samples in a row.
    """

    segments: tuple[Segment | None, ...]
    length: int

    @property
    def shape(self) -> tuple[int, int]:
        """Recordings and samples."""
        return len(self.segments), self.length

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float64."""
        return np.dtype(np.float64)

    @property
    def chunks(self) -> tuple[int, int]:
        """One recording, and as many samples as the first series stores together."""
        widths = (segment.array.chunks[0] for segment in self.segments if segment is not None)
        return 1, max(min(next(widths, self.length), self.length), 1)

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """The selected samples of the selected recordings."""
        selection = select(key, self.shape)
        out = np.full(selection.shape, np.nan)
        samples = np.asarray(selection.axes[1], np.int64)
        requests, places = [], []
        for position, row in enumerate(selection.axes[0]):
            segment = self.segments[int(row)]
            recorded = samples < (0 if segment is None else segment.count)
            if segment is not None and recorded.any():
                requests.append((segment.array, (_consecutive(samples[recorded] + segment.start),)))
                places.append((position, recorded))
        for (position, recorded), values in zip(places, read_many(requests), strict=True):
            out[position, recorded] = values
        return out.reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        parts = [
            segment and (segment.array.__dask_tokenize__(), segment.start, segment.count)
            for segment in self.segments
        ]
        return "intake_nwbzarr.SweepArray", self.length, hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class SettingArray:
    """One scalar setting of many series: float64, ``(recording,)``.

    Parameters
    ----------
    scalars
        The stored setting of each recording's series; NaN where it has none.
    """

    scalars: tuple[StoredArray | None, ...]

    @property
    def shape(self) -> tuple[int]:
        """Recordings."""
        return (len(self.scalars),)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float64."""
        return np.dtype(np.float64)

    @property
    def chunks(self) -> tuple[int]:
        """All of them: each is a few bytes."""
        return (max(len(self.scalars), 1),)

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """The selected recordings' setting, read in one gather."""
        selection = select(key, self.shape)
        wanted = [self.scalars[int(row)] for row in selection.axes[0]]
        stored = [scalar for scalar in wanted if scalar is not None]
        values = iter(read_many(stored))
        found = [np.nan if scalar is None else float(next(values).item()) for scalar in wanted]
        return np.array(found, np.float64).reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        parts = [scalar and scalar.__dask_tokenize__() for scalar in self.scalars]
        return "intake_nwbzarr.SettingArray", hashlib.sha256(repr(parts).encode()).hexdigest()


def _consecutive(positions: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Positions as a slice where they follow each other, which costs nothing to keep account of."""
    first, last = int(positions[0]), int(positions[-1])
    is_run = last - first + 1 == len(positions) and bool(np.all(np.diff(positions) == 1))
    return slice(first, last + 1) if is_run else positions
