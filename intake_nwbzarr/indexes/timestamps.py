"""Timestamps of samples by position: computed from a rate, or in memory, sorted or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NoReturn, override

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from intake_nwbzarr.errors import BoundsError, MetadataError, SelectionError

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


class Timestamps(ABC):
    """Times in seconds by position, some possibly equal; ascending, unless `ascending` is false."""

    computed: ClassVar[bool] = False
    """Whether the times are computed from their positions, so that nothing is stored or read."""

    @property
    def ascending(self) -> bool:
        """Return whether labels can be found by bisection; assumed for stored timestamps until read."""
        return True

    @abstractmethod
    def at(self, positions: Positions) -> Floats:
        """Return the times at positions."""

    @abstractmethod
    def read(self, positions: range) -> Floats:
        """Return the times at evenly spaced positions, in either direction."""

    @abstractmethod
    def insertion_points(self, labels: Floats, after: NDArray[np.bool_], within: range) -> Positions:
        """Count the times before each label, and those equal to it where `after` is true."""
        # Only the positions between the first and the last of `within`, which ascends, have to be searched:
        # for a label outside of them, any position on the same side is right.


METHODS = {"nearest": "nearest", "pad": "pad", "ffill": "pad", "backfill": "backfill", "bfill": "backfill"}
COMPARED_AT_ONCE = 2**20


@dataclass(frozen=True)
class TimestampView:
    """Evenly spaced samples of timestamps, in either direction: a time coordinate or a slice of it."""

    timestamps: Timestamps
    samples: range

    def __post_init__(self) -> None:
        # One sample or none runs forwards, as in pandas, whatever slice it came from.
        if len(self.samples) < 2:
            first = self.samples.start
            object.__setattr__(self, "samples", range(first, first + len(self.samples)))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, selected: slice) -> TimestampView:
        return TimestampView(self.timestamps, self.samples[selected])

    def values(self) -> Floats:
        """Read every timestamp."""
        return self.timestamps.read(self.samples)

    def at(self, positions: ArrayLike) -> Floats:
        """Read the timestamps at positions; negative ones count from the end."""
        return self.timestamps.at(self.samples_at(positions))

    def samples_at(self, positions: ArrayLike) -> Positions:
        """Return the sample numbers at positions; negative ones count from the end."""
        wanted = np.asarray(positions, dtype=np.int64)
        if wanted.size and (wanted.min() < -len(self) or wanted.max() >= len(self)):
            outside = wanted[(wanted < -len(self)) | (wanted >= len(self))]
            raise BoundsError(
                f"Position {outside.flat[0]} is out of bounds for {len(self)} timestamps.",
                found=int(outside.flat[0]),
                expected=range(-len(self), len(self)),
            )
        counted = np.where(wanted < 0, wanted + len(self), wanted)
        samples: Positions = self.samples.start + self.samples.step * counted
        return samples

    def equals(self, other: TimestampView) -> bool:
        """Return whether all timestamps are exactly equal, reading as few as possible."""
        if len(self) != len(other):
            return False
        if not len(self) or (self.timestamps == other.timestamps and self.samples == other.samples):
            return True
        # Different recordings nearly always differ at their ends.
        if not np.array_equal(self.at([0, -1]), other.at([0, -1]), equal_nan=True):
            return False
        starts = range(0, len(self), COMPARED_AT_ONCE)
        parts = (slice(start, start + COMPARED_AT_ONCE) for start in starts)
        return all(
            np.array_equal(self[part].values(), other[part].values(), equal_nan=True) for part in parts
        )

    def positions_of(self, other: TimestampView) -> Positions | None:
        """Return the positions of another view's samples, -1 where absent; None for other timestamps."""
        if self.timestamps != other.timestamps:
            return None
        if not len(self):
            return np.full(len(other), -1, dtype=np.int64)
        samples = np.arange(other.samples.start, other.samples.stop, other.samples.step, dtype=np.int64)
        positions, between = np.divmod(samples - self.samples.start, self.samples.step)
        return np.where((between == 0) & (positions >= 0) & (positions < len(self)), positions, -1)

    def locate(
        self, labels: Floats, method: str | None = None, tolerance: ArrayLike | None = None
    ) -> Positions:
        """Return the position of each label, -1 where absent, like `pandas.Index.get_indexer`."""
        # Of two equally near samples, ``nearest`` takes the later. A tolerance is in seconds, one or one per
        # label.
        if method is not None and (not isinstance(method, str) or method not in METHODS):
            raise SelectionError(
                f"method must be one of {sorted(METHODS)}, not {method!r}.",
                found=method,
                expected=sorted(METHODS),
            )
        if tolerance is not None and method is None:
            raise SelectionError(
                f"tolerance={tolerance!r} is only valid with a method.",
                found=tolerance,
                next_step="Add method='nearest'.",
            )
        if not len(self) or not labels.size:
            return np.full(labels.shape, -1, dtype=np.int64)
        limits = None if tolerance is None else _tolerances(tolerance, labels)
        if not self.timestamps.ascending:
            if method is not None:
                raise unordered_error(method)
            found = locate_exactly(self.values(), labels)
            return np.where(np.isnan(labels), -1, found)
        before, through = self.bounds(labels)
        if method is None:
            found, shared = np.where(before < through, before, -1), through - before > 1
        else:
            found, shared = self._neighbours(labels, before, before < through, METHODS[method], limits)
        found = np.where(np.isnan(labels), -1, found)
        if np.any(shared & (found >= 0)):
            self._raise_shared(int(found[shared & (found >= 0)][0]))
        return found

    def locate_one(self, label: float) -> int | slice | Positions | None:
        """Return the position of the sample at exactly a time, several if they share it, or None."""
        if not len(self) or np.isnan(label):
            return None
        if not self.timestamps.ascending:
            return locate_one(self.values(), label)
        before, through = (int(bound[0]) for bound in self.bounds(np.array([label])))
        if before == through:
            return None
        return before if through == before + 1 else slice(before, through)

    def locate_slice(self, start: float | None, stop: float | None, step: int | None) -> slice:
        """Return the positions from one label to another, both included, every `step`-th of them."""
        if not self.timestamps.ascending:
            return locate_slice(self.values(), start, stop, step)
        backwards = step is not None and step < 0
        low, high = (stop, start) if backwards else (start, stop)
        labels = [label for label in (low, high) if label is not None]
        first, last = 0, len(self)
        if labels and len(self):
            # Times that are all equal both ascend and descend; pandas treats them as ascending.
            backwards_at_one = self.samples.step < 0 and np.ptp(self.at([0, -1])) == 0
            view = self[::-1] if backwards_at_one else self
            before, through = view.bounds(np.array(labels))
            first = int(before[0]) if low is not None else first
            last = int(through[-1]) if high is not None else last
        if not backwards:
            return slice(first, last, step)
        if last <= first:
            return slice(0, 0, step)
        return slice(last - 1, first - 1 if first else None, step)

    def bounds(self, labels: Floats) -> tuple[Positions, Positions]:
        """Count, in this view's order, the samples before each label, and those before or equal to it."""
        ascending = self.samples if self.samples.step > 0 else self.samples[::-1]
        both = np.concatenate([labels, labels])
        after = np.repeat([False, True], len(labels))
        points = self.timestamps.insertion_points(both, after, ascending)
        counts = np.clip(-((ascending.start - points) // ascending.step), 0, len(self))
        smaller, not_larger = np.split(counts, 2)
        if self.samples.step > 0:
            return smaller, not_larger
        return len(self) - not_larger, len(self) - smaller

    def _neighbours(
        self,
        labels: Floats,
        before: Positions,
        exact: NDArray[np.bool_],
        method: str,
        limits: Floats | None,
    ) -> tuple[Positions, NDArray[np.bool_]]:
        """Return the sample beside each label that `method` selects, and whether others share its time."""
        # The two samples before each label and the two from it on are enough, and take one read.
        around = before[:, np.newaxis] + np.arange(-2, 2)
        present = (around >= 0) & (around < len(self))
        times = np.full(around.shape, np.nan)
        times[present] = self.at(around[present])
        distances = np.where(present, np.abs(times - labels[:, np.newaxis]), np.inf)

        previous = np.where(exact, before, before - 1)
        following = np.where(before < len(self), before, -1)
        if method == "pad":
            found = previous
        elif method == "backfill":
            found = following
        else:
            to_previous = np.where(exact, distances[:, 2], distances[:, 1])
            # Of two equally near samples the later is taken, in either direction of the view.
            compare = np.less if self.samples.step > 0 else np.less_equal
            nearer = compare(to_previous, distances[:, 2]) & (previous >= 0)
            found = np.where(nearer | (following < 0), previous, following)

        at_following = found == before
        if limits is not None:
            distance = np.where(at_following, distances[:, 2], distances[:, 1])
            found = np.where(distance <= limits, found, -1)
        shared = np.where(at_following, times[:, 2] == times[:, 3], times[:, 0] == times[:, 1])
        return found, shared

    def _raise_shared(self, position: int) -> NoReturn:
        """Raise for a label at a time that several samples share."""
        time = self.at([position])
        (before,), (through,) = self.bounds(time)
        raise SelectionError(
            f"{through - before} samples share the time {float(time[0])!r} s, so a list of labels or a "
            "method cannot tell them apart.",
            found=float(time[0]),
            next_step=f"Select a slice of times, or the positions {before} to {through - 1} with isel.",
        )


def _tolerances(tolerance: ArrayLike, labels: Floats) -> Floats:
    values = np.asarray(tolerance)
    if values.dtype.kind not in "iuf" or values.size not in (1, labels.size):
        raise SelectionError(
            f"tolerance must be a number of seconds, or one for each of {labels.size} labels, not "
            f"{tolerance!r}.",
            found=tolerance,
        )
    return np.broadcast_to(values.astype(np.float64).ravel(), labels.shape)


UNORDERED_NEXT_STEP = (
    "Drop samples without a time, sort the others with ds.sortby, or select by position with isel."
)


def locate_exactly(values: Floats, labels: Floats) -> Positions:
    """Return the position of each label among unordered unique times, -1 where absent."""
    index = pd.Index(values, copy=False)
    if not index.is_unique:
        raise SelectionError(
            "Some samples share a time and they are not in order of time, so a list of labels cannot tell "
            "them apart.",
            next_step=UNORDERED_NEXT_STEP,
        )
    return index.get_indexer(pd.Index(labels)).astype(np.int64, copy=False)


def locate_one(values: Floats, label: float) -> int | slice | Positions | None:
    """Return the position, slice or positions of the samples at exactly a time, or None."""
    try:
        found: Any = pd.Index(values, copy=False).get_loc(label)
    except KeyError:
        return None
    if isinstance(found, slice):
        return found
    return np.flatnonzero(found) if isinstance(found, np.ndarray) else int(found)


def locate_slice(values: Floats, start: float | None, stop: float | None, step: int | None) -> slice:
    """Return the positions between two samples, both included, given by their times."""
    try:
        return pd.Index(values, copy=False).slice_indexer(start, stop, step)
    except KeyError as error:
        raise SelectionError(
            f"A slice from {start!r} to {stop!r} s cannot be selected: the samples are not in order of time, "
            "and an end is not the time of exactly one sample.",
            found=(start, stop),
            next_step=UNORDERED_NEXT_STEP,
        ) from error


def unordered_error(method: str) -> SelectionError:
    """Return the error of a method along times that are not in order."""
    return SelectionError(
        f"method={method!r} needs samples in order of time, ascending or descending; these are not in order, "
        "or some have no time (NaN).",
        found=method,
        next_step=UNORDERED_NEXT_STEP,
    )


# How far evenly spaced times may deviate because of rounding, in seconds. Averaging, shifting and scaling
# move them by a few units in the last place of the largest times, which is 1.5e-11 s for times of a day;
# decoding rounds them to whole nanoseconds. Clocks tick in nanoseconds at best, so that samples which really
# were taken irregularly deviate by more.
_TOLERANCE = 0.6e-9
_UNITS_IN_LAST_PLACE = 4

# If that is more than this part of the sampling interval, the times are too coarse to decide.
_PART_OF_INTERVAL = 1e-3

# Any two times are evenly spaced.
_FEWEST = 3

# Rates and intervals that are set by people have no more digits.
_DIGITS = 9


@dataclass(frozen=True)
class RegularTimestamps(Timestamps):
    """The times of samples at a constant rate: sample k is at ``starting_time + k / rate`` seconds."""

    # Division and addition round monotonically, so that these times never decrease; neighbours can be equal
    # where the starting time is too large to tell them apart.
    starting_time: float
    rate: float
    computed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (np.isfinite(self.rate) and self.rate > 0 and np.isfinite(self.starting_time)):
            raise MetadataError(
                "A regular time needs a finite starting time and a positive finite rate, not starting_time="
                f"{self.starting_time!r} s and rate={self.rate!r} Hz.",
                found=(self.starting_time, self.rate),
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
    """Return the starting time and rate of times that are evenly spaced except for rounding, or None.

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
    deviations = _deviations(times, intervals / duration)
    if tolerance > _PART_OF_INTERVAL * duration / intervals or np.ptp(deviations) > 2 * tolerance:
        return None
    rate = _rounded(intervals / duration, max(float(np.ptp(deviations)), last_place) / duration)
    deviations = _deviations(times, rate)
    first = float(times[0])
    # If the times were rounded, the first one was too.
    if np.abs(deviations).max() > last_place:
        first += float(deviations.max() + deviations.min()) / 2
    return RegularTimestamps(first, rate)


def _deviations(times: Floats, rate: float) -> Floats:
    """Return by how much times are later than at a constant rate from the first on."""
    deviations: Floats = times - times[0] - np.arange(len(times)) / rate
    return deviations


def _rounded(rate: float, tolerance: float) -> float:
    """Return the rate, or one with few digits, or whose interval has few digits, within the tolerance."""
    for digits in range(1, _DIGITS + 1):
        for candidate in (float(f"{rate:.{digits}g}"), 1 / float(f"{1 / rate:.{digits}g}")):
            if abs(candidate / rate - 1) <= tolerance:
                return candidate
    return rate


IN_MEMORY_LIMIT = 10**7
"""The most timestamps (80 MB) that an operation reads into memory by itself."""


@dataclass(frozen=True, eq=False)
class TimestampsInMemory(Timestamps):
    """Read-only times in memory, in any order."""

    values: Floats

    def __post_init__(self) -> None:
        frozen = self.values.view()
        frozen.flags.writeable = False
        object.__setattr__(self, "values", frozen)

    @cached_property
    def ascending(self) -> bool:
        """Return whether labels can be found by bisection."""
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
    """Return a view of times in memory; descending ones are stored ascending and viewed in reverse."""
    timestamps = TimestampsInMemory(values)
    size = len(values)
    if size > 1 and not timestamps.ascending and not (values[1:] > values[:-1]).any():
        backwards = TimestampsInMemory(values[::-1])
        if backwards.ascending:
            return TimestampView(backwards, range(size - 1, -1, -1))
    return TimestampView(timestamps, range(size))


def is_in_memory(view: TimestampView) -> bool:
    """Return whether a view is read without storage access or computing."""
    return isinstance(view.timestamps, TimestampsInMemory)


def take(view: TimestampView, positions: ArrayLike) -> TimestampView:
    """Return a view of samples at positions: lazy if computed and evenly spaced, otherwise in memory."""
    samples = view.samples_at(positions)
    # Evenly spaced stored timestamps are read too: after samples without a time were dropped with a boolean
    # array, no block that holds a NaN is searched again.
    if view.timestamps.computed:
        evenly = _evenly_spaced(samples)
        if evenly is not None:
            return TimestampView(view.timestamps, evenly)
    return in_memory(view.timestamps.at(samples))


def take_slice(view: TimestampView, selected: slice) -> TimestampView:
    """Return a slice of a view; a part of unordered times in memory may be ordered."""
    part = view[selected]
    return part if view.timestamps.ascending else in_memory(part.values())


def load(view: TimestampView, name: Hashable) -> Floats:
    """Read every timestamp of a view, unless they are too many to do so implicitly."""
    if len(view) > IN_MEMORY_LIMIT and not is_in_memory(view):
        raise SelectionError(
            f"This operation needs all {len(view)} timestamps of '{name}' in memory, more than "
            f"{IN_MEMORY_LIMIT}.",
            found=len(view),
            expected=IN_MEMORY_LIMIT,
            next_step="Select a slice of time first, or load them explicitly with "
            f"ds.drop_indexes({name!r}).set_xindex({name!r}).",
        )
    return view.values()


def _evenly_spaced(samples: Positions) -> range | None:
    if len(samples) < 2:
        return range(int(samples[0]), int(samples[0]) + 1) if len(samples) else range(0)
    first, step = int(samples[0]), int(samples[1] - samples[0])
    if not step or (np.diff(samples) != step).any():
        return None
    return range(first, first + step * len(samples), step)
