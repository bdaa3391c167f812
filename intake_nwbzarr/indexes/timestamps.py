"""Views of evenly spaced timestamps, and labels to positions along them, as pandas finds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from intake_nwbzarr.errors import BoundsError, SelectionError
from intake_nwbzarr.indexes import unordered
from intake_nwbzarr.indexes.interface import Floats, Positions, Timestamps

__all__ = ["Floats", "Positions", "TimestampView", "Timestamps"]

METHODS = {"nearest": "nearest", "pad": "pad", "ffill": "pad", "backfill": "backfill", "bfill": "backfill"}
COMPARED_AT_ONCE = 2**20


@dataclass(frozen=True)
class TimestampView:
    """Evenly spaced samples of timestamps, forwards or backwards: what a slice of a time coordinate holds."""

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
        """Read every timestamp of this view."""
        return self.timestamps.read(self.samples)

    def at(self, positions: ArrayLike) -> Floats:
        """Read the timestamps at positions of this view; negative ones count from its end."""
        return self.timestamps.at(self.samples_at(positions))

    def samples_at(self, positions: ArrayLike) -> Positions:
        """Give the sample numbers at positions of this view; negative ones count from its end.

        Raises
        ------
        BoundsError
            For a position outside of the view.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        if wanted.size and (wanted.min() < -len(self) or wanted.max() >= len(self)):
            outside = wanted[(wanted < -len(self)) | (wanted >= len(self))]
            raise BoundsError(f"Position {outside.flat[0]} is outside of {len(self)} timestamps.")
        counted = np.where(wanted < 0, wanted + len(self), wanted)
        samples: Positions = self.samples.start + self.samples.step * counted
        return samples

    def equals(self, other: TimestampView) -> bool:
        """Compare the timestamps exactly, and as few of them as it takes."""
        if len(self) != len(other):
            return False
        if not len(self) or (self.timestamps == other.timestamps and self.samples == other.samples):
            return True
        # Different recordings nearly always differ here: two samples each decide it.
        if not np.array_equal(self.at([0, -1]), other.at([0, -1]), equal_nan=True):
            return False
        pieces = range(0, len(self), COMPARED_AT_ONCE)
        parts = (slice(start, start + COMPARED_AT_ONCE) for start in pieces)
        return all(
            np.array_equal(self[part].values(), other[part].values(), equal_nan=True) for part in parts
        )

    def positions_of(self, other: TimestampView) -> Positions | None:
        """Give the positions of another view's samples, -1 where absent; None for other timestamps."""
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
        """Find the position of each label, -1 where there is none, like `pandas.Index.get_indexer`.

        Parameters
        ----------
        labels
            Times in seconds, (label,).
        method
            None for exactly equal times only; ``nearest`` (the later time wins a tie), ``pad`` or ``ffill``
            (the sample before the label), ``backfill`` or ``bfill`` (the sample after it).
        tolerance
            The largest distance in seconds from a label to the sample found by a method; one, or one per
            label.

        Raises
        ------
        SelectionError
            When a label is found at a time that several samples share: which one is meant is unknown; for a
            method where the timestamps, in memory, are in no order.
        """
        if method is not None and (not isinstance(method, str) or method not in METHODS):
            raise SelectionError(f"method={method!r} is not known; use one of {sorted(METHODS)}.")
        if tolerance is not None and method is None:
            raise SelectionError(
                f"tolerance={tolerance!r} has a meaning only with a method; add method='nearest'."
            )
        if not len(self) or not labels.size:
            return np.full(labels.shape, -1, dtype=np.int64)
        limits = None if tolerance is None else _tolerances(tolerance, labels)
        if not self.timestamps.ascending:
            if method is not None:
                raise unordered.refuse_method(method)
            found = unordered.locate_exactly(self.values(), labels)
            return np.where(np.isnan(labels), -1, found)
        before, through = self.bounds(labels)
        if method is None:
            found, shared = np.where(before < through, before, -1), through - before > 1
        else:
            found, shared = self._beside(labels, before, before < through, METHODS[method], limits)
        found = np.where(np.isnan(labels), -1, found)
        if np.any(shared & (found >= 0)):
            self._refuse(int(found[shared & (found >= 0)][0]))
        return found

    def locate_one(self, label: float) -> int | slice | Positions | None:
        """Find the samples at exactly a time: a position, a slice where several share it, or None."""
        if not len(self) or np.isnan(label):
            return None
        if not self.timestamps.ascending:
            return unordered.locate_one(self.values(), label)
        before, through = (int(bound[0]) for bound in self.bounds(np.array([label])))
        if before == through:
            return None
        return before if through == before + 1 else slice(before, through)

    def locate_slice(self, start: float | None, stop: float | None, step: int | None) -> slice:
        """Find the positions from one label to another, both included, every `step`-th of them."""
        if not self.timestamps.ascending:
            return unordered.locate_slice(self.values(), start, stop, step)
        backwards = step is not None and step < 0
        low, high = (stop, start) if backwards else (start, stop)
        labels = [label for label in (low, high) if label is not None]
        first, last = 0, len(self)
        if labels and len(self):
            # Times that are all one ascend as well as they descend, and pandas takes them to ascend.
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

    def _beside(
        self,
        labels: Floats,
        before: Positions,
        exact: NDArray[np.bool_],
        method: str,
        limits: Floats | None,
    ) -> tuple[Positions, NDArray[np.bool_]]:
        """Choose between the samples on either side of each label; tell whether others share the time."""
        # The two samples before each label and the two from it on decide everything, and take one read.
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
            # Of two equally near samples the later in time is taken, whichever way the view runs.
            compare = np.less if self.samples.step > 0 else np.less_equal
            nearer = compare(to_previous, distances[:, 2]) & (previous >= 0)
            found = np.where(nearer | (following < 0), previous, following)

        at_following = found == before
        if limits is not None:
            distance = np.where(at_following, distances[:, 2], distances[:, 1])
            found = np.where(distance <= limits, found, -1)
        shared = np.where(at_following, times[:, 2] == times[:, 3], times[:, 0] == times[:, 1])
        return found, shared

    def _refuse(self, position: int) -> NoReturn:
        """Say that a position's time is not its own."""
        time = self.at([position])
        (before,), (through,) = self.bounds(time)
        raise SelectionError(
            f"{through - before} samples share the time {float(time[0])!r} s, so a list of labels or a "
            "method cannot tell them apart; select a slice of times, or with isel the positions "
            f"{before} to {through - 1}."
        )


def _tolerances(tolerance: ArrayLike, labels: Floats) -> Floats:
    values = np.asarray(tolerance)
    if values.dtype.kind not in "iuf" or values.size not in (1, labels.size):
        raise SelectionError(
            f"tolerance={tolerance!r} is not a number of seconds, nor one for each of {labels.size} labels."
        )
    return np.broadcast_to(values.astype(np.float64).ravel(), labels.shape)
