"""Stored timestamps, searched by reading few blocks, each checked as it is read."""

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, override, runtime_checkable

import numpy as np
from dask.base import normalize_token
from numpy.typing import NDArray

from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.indexes.timestamps import Floats, Positions, Timestamps

SMALLEST_BLOCK = 4096
"""The fewest timestamps in a block: several smaller chunks are read at once, in fewer round trips."""

CACHED_TIMESTAMPS = 2**24
"""The most timestamps (128 MiB) that an index caches; one block is cached whatever its size."""


@runtime_checkable
class ReadableArray(Protocol):
    """An array that is read by key, such as one stored in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the size along each dimension."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the elements."""
        ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the size of a chunk along each dimension."""
        ...

    def read(self, key: tuple[Any, ...], /) -> np.ndarray[Any, Any]:
        """Read an outer selection, with one entry of the key for each dimension."""
        ...


class StoredTimestamps(Timestamps):
    """Ascending timestamps of a stored array, with the blocks read last cached."""

    # Reading values is unchecked and caches nothing. Searching labels reads whole blocks and checks that each
    # ascends, holds no NaN and follows the blocks before it. Threads share one instance; a pickle holds the
    # array only.

    def __init__(self, array: ReadableArray, source: str) -> None:
        self.array = array
        self.source = source
        self.size = int(array.shape[0])
        chunk = max(1, int(array.chunks[0]) if array.chunks else self.size)
        self.block = chunk * -(-min(SMALLEST_BLOCK, self.size) // chunk) if chunk < SMALLEST_BLOCK else chunk
        self.block = max(1, self.block)
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, Floats] = OrderedDict()
        # The blocks read so far, ascending, and the first and last timestamp of each.
        self._numbers: list[int] = []
        self._firsts: list[float] = []
        self._lasts: list[float] = []

    @override
    def at(self, positions: Positions) -> Floats:
        flat = positions.ravel()
        times = np.empty(flat.shape)
        missing = np.ones(flat.shape, dtype=bool)
        order = np.argsort(flat, kind="stable")
        ascending = flat[order]
        for number, values in self._cached(np.unique(flat // self.block)).items():
            start = number * self.block
            inside = order[slice(*np.searchsorted(ascending, [start, start + len(values)]))]
            times[inside] = values[flat[inside] - start]
            missing[inside] = False
        if missing.any():
            times[missing] = self._read(flat[missing])
        return times.reshape(positions.shape)

    @override
    def read(self, positions: range) -> Floats:
        if not positions:
            return np.empty(0)
        ascending = positions if positions.step > 0 else positions[::-1]
        times = self._read(slice(ascending.start, ascending[-1] + 1, ascending.step))
        return times if positions.step > 0 else times[::-1]

    @override
    def insertion_points(self, labels: Floats, after: NDArray[np.bool_], within: range) -> Positions:
        order = np.argsort(labels, kind="stable")
        points = np.zeros(labels.shape, dtype=np.int64)
        points[order] = self._search(labels[order], after[order])
        return points

    def _search(self, labels: Floats, after: NDArray[np.bool_]) -> Positions:
        """Return the insertion points of ascending labels."""
        points = np.zeros(labels.shape, dtype=np.int64)
        last_block = (self.size - 1) // self.block
        if not self._numbers:
            self._load(np.unique([0, last_block]))
        pending = np.flatnonzero(~np.isnan(labels))
        attempt = 0
        while pending.size:
            low, high, inside, share = self._brackets(labels[pending], after[pending], last_block + 1)
            between = ~inside & (high == low + 1)
            points[pending[between]] = np.minimum(high[between] * self.block, self.size)
            # Timestamps are usually nearly evenly spaced, so that interpolation finds the block at once;
            # where they are not, every third attempt bisects.
            share = np.full(share.shape, 0.5) if attempt % 3 == 2 else share
            guesses = np.clip(low + 1 + (share * (high - low - 1)).astype(np.int64), low + 1, high - 1)
            targets = np.where(inside, low, guesses)[~between]
            pending = pending[~between]
            for batch in _batches(np.unique(targets), max(1, CACHED_TIMESTAMPS // self.block)):
                waiting = labels[pending]
                settled = np.zeros(pending.shape, dtype=bool)
                for number, values in self._load(batch).items():
                    near = slice(
                        np.searchsorted(waiting, values[0], side="left"),
                        np.searchsorted(waiting, values[-1], side="right"),
                    )
                    chosen = pending[near]
                    offsets, found = _offsets(values, labels[chosen], after[chosen])
                    points[chosen[found]] = number * self.block + offsets
                    settled[near] |= found
                pending = pending[~settled]
            attempt += 1
        return points

    def _brackets(
        self, labels: Floats, after: NDArray[np.bool_], end: int
    ) -> tuple[Positions, Positions, NDArray[np.bool_], Floats]:
        """Return the known blocks around each label, whether it is inside the first, and how far between."""
        with self._lock:
            numbers = np.array([-1, *self._numbers, end], dtype=np.int64)
            firsts = np.array([-np.inf, *self._firsts, np.inf])
            lasts = np.array([-np.inf, *self._lasts, np.inf])
        known = firsts[1:-1]
        right = np.searchsorted(known, labels, side="right")
        lower = np.where(after, right, np.searchsorted(known, labels, side="left"))
        low, high = numbers[lower], numbers[lower + 1]
        inside = (low >= 0) & np.where(after, labels < lasts[lower], labels <= lasts[lower])
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            share = (labels - lasts[lower]) / (firsts[lower + 1] - lasts[lower])
        return low, high, inside, np.where((share >= 0) & (share <= 1), share, 0.5)

    def _cached(self, numbers: Positions) -> dict[int, Floats]:
        with self._lock:
            found = {
                int(number): self._blocks[number] for number in numbers.tolist() if number in self._blocks
            }
            for number in found:
                self._blocks.move_to_end(number)
        return found

    def _load(self, numbers: Positions) -> dict[int, Floats]:
        """Return whole blocks, checked; those not cached are read at once."""
        blocks = self._cached(numbers)
        missing = [number for number in numbers.tolist() if number not in blocks]
        for number, values in zip(missing, self._read_blocks(missing), strict=True):
            self._check_inside(number, values)
            with self._lock:
                self._remember(number, values)
            blocks[number] = values
        return blocks

    def _read_blocks(self, numbers: Sequence[int]) -> list[Floats]:
        if not numbers:
            return []
        extents = [(number * self.block, min((number + 1) * self.block, self.size)) for number in numbers]
        if len(extents) == 1:
            return [self._read(slice(*extents[0], 1))]
        together = self._read(np.concatenate([np.arange(*extent, dtype=np.int64) for extent in extents]))
        return np.split(together, np.cumsum([stop - start for start, stop in extents])[:-1])

    def _read(self, key: slice | Positions) -> Floats:
        return np.asarray(self.array.read((key,))).astype(np.float64, copy=False)

    def _remember(self, number: int, values: Floats) -> None:
        """Cache a block, and its first and last timestamp; called with the lock held."""
        place = bisect_left(self._numbers, number)
        if place == len(self._numbers) or self._numbers[place] != number:
            self._check_between(place, number, values)
            self._numbers.insert(place, number)
            self._firsts.insert(place, float(values[0]))
            self._lasts.insert(place, float(values[-1]))
        self._blocks[number] = values
        while len(self._blocks) > 1 and len(self._blocks) * self.block > CACHED_TIMESTAMPS:
            self._blocks.popitem(last=False)

    def _check_inside(self, number: int, values: Floats) -> None:
        missing = np.flatnonzero(np.isnan(values))
        if missing.size:
            position = number * self.block + int(missing[0])
            raise SelectionError(
                f"The timestamps of {self.source} cannot be searched: position {position} is NaN.",
                found=position,
                next_step="Select the samples that have a time: ds.isel(time=ds.time.notnull().values).",
            )
        falls = np.flatnonzero(values[1:] < values[:-1])
        if falls.size:
            offset = int(falls[0])
            position = number * self.block + offset
            self._unsorted(position, float(values[offset]), position + 1, float(values[offset + 1]))

    def _check_between(self, place: int, number: int, values: Floats) -> None:
        start = number * self.block
        if place and self._lasts[place - 1] > values[0]:
            earlier = (self._numbers[place - 1] + 1) * self.block - 1
            self._unsorted(earlier, self._lasts[place - 1], start, float(values[0]))
        if place < len(self._numbers) and self._firsts[place] < values[-1]:
            later = self._numbers[place] * self.block
            self._unsorted(start + len(values) - 1, float(values[-1]), later, self._firsts[place])

    def _unsorted(self, position: int, time: float, later: int, earlier_time: float) -> None:
        raise SelectionError(
            f"The timestamps of {self.source} do not ascend, so they cannot be searched: position {position} "
            f"is at {time!r} s and position {later} at {earlier_time!r} s.",
            found=(position, later),
            next_step="Select by position with isel, or sort by them, in memory, with sortby.",
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredTimestamps) and (
            self.array is other.array
            or (type(self.array) is type(other.array) and bool(self.array == other.array))
        )

    def __hash__(self) -> int:
        return hash((type(self).__qualname__, self.size))

    def __deepcopy__(self, memo: dict[int, Any]) -> "StoredTimestamps":
        return self

    def __reduce__(self) -> tuple[type["StoredTimestamps"], tuple[ReadableArray, str]]:
        return type(self), (self.array, self.source)

    def __dask_tokenize__(self) -> object:
        return (type(self).__qualname__, normalize_token(self.array))

    def __repr__(self) -> str:
        return f"StoredTimestamps(size={self.size}, source={self.source!r})"


def _offsets(values: Floats, labels: Floats, after: NDArray[np.bool_]) -> tuple[Positions, NDArray[np.bool_]]:
    """Return the insertion points in one block, and the labels for which they are surely inside of it."""
    first, last = values[0], values[-1]
    found = np.where(after, (first <= labels) & (labels < last), (first < labels) & (labels <= last))
    within, past = labels[found], after[found]
    left = np.searchsorted(values, within, side="left")
    return np.where(past, np.searchsorted(values, within, side="right"), left), found


def _batches(numbers: Positions, count: int) -> Iterator[Positions]:
    """Yield the numbers in batches of at most `count`."""
    for start in range(0, len(numbers), count):
        yield numbers[start : start + count]
