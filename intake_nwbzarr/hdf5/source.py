"""The bytes of an HDF5 file that were received so far, and coroutines that wait for others."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, Final

from intake_nwbzarr.errors import LimitError, MetadataError

BLOCK: Final = 2**10
"""Bytes of the blocks in which a file is received: nodes of B-trees have about two thousand."""

AROUND: Final = 16 * 2**10
"""Bytes that are read together while objects are found: what belongs to one mostly lies beside it."""

GAP: Final = 64
"""Blocks that are not needed between two that are, up to which one request fetches both."""

LARGEST_RANGE: Final = 4 * 2**20
"""Bytes of one request."""

MOST_RECEIVED: Final = 1024 * 2**20
"""Bytes of metadata that are received of one file; 8,000 objects take 50 MB."""

MOST_ROUNDS: Final = 10_000
"""Times that what is missing is fetched; real files take about ten."""

type Task = Coroutine[Any, None, None]


class Source:
    """A file of which some blocks are here. Coroutines `read` from it, and wait where a block is missing.

    `step` runs all that can go on and returns the ranges that the others wait for; `put` adds them. So what many
    objects need is fetched side by side, whatever order they are read in.
    """

    # `around`: bytes up to whose multiples what is read is widened, where neighbours are read next.
    def __init__(self, size: int, around: int = BLOCK) -> None:
        self.size = size
        self.received = 0
        self.around = around
        # The bytes that each block came with, and where it begins in them.
        self._blocks: dict[int, tuple[memoryview, int]] = {}
        self._missing: set[int] = set()
        self._ready: deque[Task] = deque()
        self._waiting: list[Task] = []
        self._rounds = 0

    def beside(self) -> Source:
        """Return a source of the same file with coroutines of its own, which shares the blocks."""
        other = Source(self.size)
        other._blocks = self._blocks
        return other

    def put(self, start: int, data: bytes | memoryview) -> None:
        """Add bytes from the start of a block on, up to the end of a block or of the file."""
        view = memoryview(data)
        whole = len(view) if start + len(view) == self.size else len(view) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            self._blocks[(start + at) // BLOCK] = view, at
        self.received += len(view)
        if self.received > MOST_RECEIVED:
            raise LimitError(
                f"Its metadata have more than {MOST_RECEIVED:,} bytes.", expected=MOST_RECEIVED, path=""
            )

    def part(self, start: int, size: int) -> memoryview | None:
        """Return bytes that are here, None if some are missing."""
        if start < 0 or size < 0 or start + size > self.size:
            raise MetadataError(
                f"It refers to the bytes {start} to {start + size} of a file of {self.size} bytes.",
                found=(start, start + size),
                expected=self.size,
            )
        first, last = start // BLOCK, (start + max(size, 1) - 1) // BLOCK
        found = self._blocks.get(first)
        if found is None:
            return None
        at = found[1] + start - first * BLOCK
        if at + size <= len(found[0]):
            return found[0][at : at + size]
        blocks = [self._blocks.get(number) for number in range(first, last + 1)]
        if any(each is None for each in blocks):
            return None
        joined = b"".join(each[0][each[1] : each[1] + BLOCK] for each in blocks if each is not None)
        return memoryview(joined)[start - first * BLOCK : start - first * BLOCK + size]

    def want(self, start: int, size: int) -> None:
        """Have bytes fetched in the next round, if they are in the file and missing."""
        first, last = start // BLOCK, (min(start + size, self.size) - 1) // BLOCK
        if first >= 0 and last - first <= LARGEST_RANGE // BLOCK:
            self._missing.update(number for number in range(first, last + 1) if number not in self._blocks)

    async def read(self, start: int, size: int) -> memoryview:
        """Return bytes of the file, after waiting for those that are missing."""
        while (data := self.part(start, size)) is None:
            first, last = start // BLOCK, (start + size - 1) // BLOCK
            self._missing.update(number for number in range(first, last + 1) if number not in self._blocks)
            await _pause()
        return data

    def start(self, task: Task) -> None:
        """Let a coroutine run in this step or the next; what it returns is dropped."""
        self._ready.append(task)

    def step(self) -> list[tuple[int, int]]:
        """Run coroutines until all have ended or wait, and return the ranges that they wait for."""
        self._rounds += 1
        if self._rounds > MOST_ROUNDS:
            raise LimitError(
                f"Its metadata take more than {MOST_ROUNDS:,} round trips.", expected=MOST_ROUNDS
            )
        self._ready.extend(self._waiting)
        self._waiting.clear()
        while self._ready:
            task = self._ready.popleft()
            try:
                task.send(None)
            except StopIteration:
                continue
            self._waiting.append(task)
        if not self._waiting:
            self._missing.clear()
        return self._ranges()

    def close(self) -> None:
        """End all coroutines where they are."""
        for task in (*self._ready, *self._waiting):
            task.close()
        self._ready.clear()
        self._waiting.clear()

    def _ranges(self) -> list[tuple[int, int]]:
        """Return the ranges of missing blocks: neighbours joined, and small gaps between them included."""
        ranges: list[list[int]] = []
        for number in sorted(self._widened()):
            last = ranges[-1] if ranges else None
            if (
                last is not None
                and number - last[1] <= GAP
                and (number + 1 - last[0]) * BLOCK <= LARGEST_RANGE
            ):
                last[1] = number + 1
            else:
                ranges.append([number, number + 1])
        self._missing.clear()
        return [(first * BLOCK, min(stop * BLOCK, self.size)) for first, stop in ranges]

    def _widened(self) -> set[int]:
        """Return the missing blocks, and those around them that are not here either."""
        count = self.around // BLOCK
        end = -(-self.size // BLOCK)
        widened: set[int] = set()
        for number in {missing // count for missing in self._missing}:
            widened.update(range(number * count, min((number + 1) * count, end)))
        return widened - self._blocks.keys()


async def together(*coroutines: Coroutine[Any, None, Any]) -> list[Any]:
    """Run coroutines side by side, so that all wait for the same round, and return their results."""
    results: dict[int, Any] = {}
    pending = dict(enumerate(coroutines))
    try:
        while pending:
            for number, each in list(pending.items()):
                try:
                    each.send(None)
                except StopIteration as end:
                    results[number] = end.value
                    del pending[number]
            if pending:
                await _pause()
    finally:
        for each in pending.values():
            each.close()
    return [results[number] for number in range(len(coroutines))]


@coroutine
def _pause() -> Generator[None]:
    yield


class Cursor:
    """Unsigned numbers, texts and addresses, taken one after the other from bytes."""

    __slots__ = ("at", "data", "lengths", "offsets")

    def __init__(self, data: bytes | memoryview, offsets: int = 8, lengths: int = 8, at: int = 0) -> None:
        # How many bytes addresses and lengths have in this file.
        self.data, self.offsets, self.lengths, self.at = data, offsets, lengths, at

    def take(self, size: int) -> bytes | memoryview:
        """Take bytes."""
        stop = self.at + size
        if size < 0 or stop > len(self.data):
            raise MetadataError(
                f"A structure of {len(self.data)} bytes ends before its byte {stop}.",
                found=len(self.data),
                expected=stop,
            )
        taken = self.data[self.at : stop]
        self.at = stop
        return taken

    def number(self, size: int) -> int:
        """Take an unsigned number of some bytes, little-endian."""
        stop = self.at + size
        if stop > len(self.data):
            self.take(size)
        value = int.from_bytes(self.data[self.at : stop], "little")
        self.at = stop
        return value

    def length(self) -> int:
        """Take a length."""
        return self.number(self.lengths)

    def address(self) -> int | None:
        """Take an address, None for one that is undefined."""
        value = self.number(self.offsets)
        return None if value == (1 << 8 * self.offsets) - 1 else value

    def text(self) -> bytes:
        """Take bytes up to a NUL, which is skipped."""
        data = bytes(self.data[self.at : self.at + 65_536])
        stop = data.find(0)
        if stop < 0:
            raise MetadataError("A name has no end.")
        self.at += stop + 1
        return data[:stop]

    def align(self, start: int, to: int = 8) -> None:
        """Skip padding to a multiple of some bytes after a start."""
        self.at = start + -(-(self.at - start) // to) * to

    def expect(self, signature: bytes) -> None:
        """Take a signature that must be there."""
        found = bytes(self.take(len(signature)))
        if found != signature:
            raise MetadataError(
                f"A structure begins with {found!r} instead of {signature!r}.",
                found=found,
                expected=signature,
            )
