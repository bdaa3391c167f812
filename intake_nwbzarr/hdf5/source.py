"""The bytes of an HDF5 file that were received so far, and coroutines that wait for others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Coroutine, Generator, Iterable, Iterator
from types import coroutine
from typing import Any, Final

from intake_nwbzarr.errors import LimitError, MetadataError
from intake_nwbzarr.untrusted_input import MOST_RECEIVED, MOST_ROUNDS

BLOCK: Final = 2**10
"""Bytes of the blocks in which a file is received: nodes of B-trees have about two thousand."""

AROUND: Final = 16 * 2**10
"""Bytes before and after an object that are read with it: what belongs to it mostly lies beside it."""

LONG_BEFORE: Final = 64 * 2**10
"""Bytes before an object that is looked up alone: it shares a heap of texts with those before it."""

GAP: Final = 64
"""Blocks that are not needed between two that are, up to which one request fetches both."""

LARGEST_RANGE: Final = 4 * 2**20
"""Bytes of one request."""

type Task = Coroutine[Any, None, None]


class Source:
    """A file of which some blocks are here. Coroutines `read` from it, and wait where a block is missing.

    `step` runs all that can go on and returns the ranges that the others wait for; `put` adds them. So what
    many objects need is fetched side by side, whatever order they are read in.
    """

    # `before`, `after`: bytes by which what is read is widened, where its neighbours are read next.
    def __init__(self, size: int, before: int = 0, after: int = 0) -> None:
        self.size = size
        self.received = 0
        self._before, self._after = before // BLOCK, after // BLOCK
        self.gap = GAP
        # The bytes that each block came with, and where it begins in them.
        self._blocks: dict[int, tuple[memoryview, int]] = {}
        # Those of the source that this one was made beside.
        self._shared: dict[int, tuple[memoryview, int]] = {}
        # Numbers of blocks that are fetched next, and of those whose neighbours are as well.
        self._missing: set[int] = set()
        self._widened: set[int] = set()
        self._ready: deque[Task] = deque()
        self._waiting: list[Task] = []
        self._rounds = 0
        # Steps run in threads, and a reader that is cancelled closes a source from another one.
        self._stepping = threading.Lock()
        self._closed = False

    def beside(self) -> Source:
        """Return a source of the same file with coroutines of its own, which begins with the same blocks."""
        other = Source(self.size)
        other._shared = self._blocks
        return other

    def put(self, start: int, data: bytes | memoryview) -> None:
        """Add bytes from the start of a block on, up to the end of a block or of the file."""
        view = memoryview(data)
        whole = len(view) if start + len(view) == self.size else len(view) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            self._blocks[(start + at) // BLOCK] = view, at
        self.received += len(view)
        if self.received > MOST_RECEIVED:
            raise _too_many_bytes()

    def forget(self) -> None:
        """Drop the bytes that were put, when what they hold is known, so that they take no more memory."""
        self._blocks.clear()

    def part(self, start: int, size: int) -> memoryview | None:
        """Return bytes that are here, None if some are missing."""
        self.check(start, size)
        if not size:
            return memoryview(b"")
        first, last = start // BLOCK, (start + size - 1) // BLOCK
        found = self._block(first)
        if found is None:
            return None
        at = found[1] + start - first * BLOCK
        if at + size <= len(found[0]):
            return found[0][at : at + size]
        blocks = []
        for number in range(first, last + 1):
            found = self._block(number)
            if found is None:
                return None
            blocks.append(found[0][found[1] : found[1] + BLOCK])
        return memoryview(b"".join(blocks))[start - first * BLOCK : start - first * BLOCK + size]

    def check(self, start: int, size: int) -> None:
        """Check that bytes are in the file."""
        if start < 0 or size < 0 or start + size > self.size:
            raise MetadataError(
                f"It refers to the bytes {start} to {start + size} of a file of {self.size} bytes.",
                found=(start, start + size),
                expected=self.size,
            )

    def _block(self, number: int) -> tuple[memoryview, int] | None:
        return self._blocks.get(number) or self._shared.get(number)

    def want(self, start: int, size: int) -> None:
        """Have bytes fetched in the next round, if they are in the file and missing."""
        first, last = start // BLOCK, (min(start + size, self.size) - 1) // BLOCK
        if first >= 0 and last - first <= LARGEST_RANGE // BLOCK:
            self._missing.update(self._absent(range(first, last + 1)))

    async def read(self, start: int, size: int, *, alone: bool = False) -> memoryview:
        """Return bytes of the file, after waiting for missing ones, with their neighbours unless `alone`."""
        while (data := self.part(start, size)) is None:
            if size > MOST_RECEIVED - self.received:
                raise _too_many_bytes()
            absent = self._absent(range(start // BLOCK, (start + size - 1) // BLOCK + 1))
            (self._missing if alone else self._widened).update(absent)
            await _pause()
        return data

    def _absent(self, numbers: Iterable[int]) -> Iterator[int]:
        return (number for number in numbers if self._block(number) is None)

    def start(self, task: Task) -> None:
        """Let a coroutine run in this step or the next; what it returns is dropped."""
        self._ready.append(task)

    def step(self) -> list[tuple[int, int]]:
        """Run coroutines until all have ended or wait, and return the ranges that they wait for."""
        with self._stepping:
            self._rounds += 1
            if self._rounds > MOST_ROUNDS:
                raise LimitError(
                    f"Its metadata take more than {MOST_ROUNDS:,} round trips.", expected=MOST_ROUNDS
                )
            self._ready.extend(self._waiting)
            self._waiting.clear()
            while self._ready and not self._closed:
                task = self._ready.popleft()
                try:
                    task.send(None)
                except StopIteration:
                    continue
                self._waiting.append(task)
            if self._closed:
                self._end()
            if not self._waiting:
                self._missing.clear()
                self._widened.clear()
            return self._ranges()

    def close(self) -> None:
        """End all coroutines where they are, those of a step that another thread runs when they wait next."""
        self._closed = True
        if self._stepping.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._stepping.release()

    def _end(self) -> None:
        for task in (*self._ready, *self._waiting):
            task.close()
        self._ready.clear()
        self._waiting.clear()

    def _ranges(self) -> list[tuple[int, int]]:
        """Return the ranges of missing blocks: neighbours joined, and small gaps between them included."""
        ranges: list[list[int]] = []
        for number in sorted(self._missing | self._neighbours()):
            last = ranges[-1] if ranges else None
            if (
                last is not None
                and number - last[1] <= self.gap
                and (number + 1 - last[0]) * BLOCK <= LARGEST_RANGE
            ):
                last[1] = number + 1
            else:
                ranges.append([number, number + 1])
        self._missing.clear()
        self._widened.clear()
        return [(first * BLOCK, min(stop * BLOCK, self.size)) for first, stop in ranges]

    def _neighbours(self) -> set[int]:
        """Return the blocks that are widened and those around them, as far as they are not here."""
        end = -(-self.size // BLOCK)
        found: set[int] = set()
        done = 0
        for number in sorted(self._widened):
            start, stop = max(number - self._before, done), min(number + self._after + 1, end)
            found.update(self._absent(range(start, stop)))
            done = max(done, stop)
        return found


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


def _too_many_bytes() -> LimitError:
    return LimitError(f"Its metadata have more than {MOST_RECEIVED:,} bytes.", expected=MOST_RECEIVED)


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
        # Nearly all names are short, and what they are taken from may be long.
        for most in (256, 2**16):
            data = bytes(self.data[self.at : self.at + most])
            stop = data.find(0)
            if stop >= 0:
                self.at += stop + 1
                return data[:stop]
        raise MetadataError("A name has no end.")

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
