"""The budget: how many requests, and how many bytes of answers, are in flight at once in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

# Hundreds of small reads, as S3 serves them best; of large ones, their bytes let fewer at once.
REQUESTS = 256
FEWEST_REQUESTS = 4
BYTES = 512 * 2**20


class Budget:
    """First come, first served; used on the package's event loop only.

    Parameters
    ----------
    requests
        In flight at most. A server that says 503 or 429 halves it, answers win it back one by one.
    size
        Bytes of announced bodies that are being received at most. A larger body goes alone.
    """

    def __init__(self, requests: int = REQUESTS, size: int = BYTES) -> None:
        self._most = float(requests)
        self._limit = float(requests)
        self._size = size
        self._requests = 0
        self._bytes = 0
        self._slowed = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._bodies: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._limit)

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Hold one of the requests in flight."""
        if self._requests >= self.limit or self._waiting:
            await self._queue(self._waiting)
        else:
            self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._admit()

    @asynccontextmanager
    async def body(self, size: int) -> AsyncIterator[None]:
        """Hold the bytes of a body while it is received."""
        if self._bodies or not self._fits(size):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._bodies.append((future, size))
            try:
                await future
            except asyncio.CancelledError:
                self._abandon_body(future, size)
                raise
        else:
            self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size
            self._admit_bodies()

    def slow_down(self) -> None:
        """Halve the requests in flight, at most once a second: one overload makes many complaints."""
        if monotonic() - self._slowed >= 1.0:
            self._slowed = monotonic()
            self._limit = max(self._limit / 2, float(min(FEWEST_REQUESTS, self._most)))

    def speed_up(self) -> None:
        """Allow a little more after an answer: one request more for as many answers as are allowed."""
        if self._limit < self._most:
            self._limit = min(self._limit + 1 / self._limit, self._most)
            self._admit()

    async def _queue(self, waiting: deque[asyncio.Future[None]]) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # Admitted and cancelled in one turn of the loop: hand it on.
                self._requests -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._requests < self.limit:
            future = self._waiting.popleft()
            if not future.done():
                self._requests += 1
                future.set_result(None)

    def _fits(self, size: int) -> bool:
        return self._bytes == 0 or self._bytes + size <= self._size

    def _admit_bodies(self) -> None:
        while self._bodies and (self._bodies[0][0].done() or self._fits(self._bodies[0][1])):
            future, size = self._bodies.popleft()
            if not future.done():
                self._bytes += size
                future.set_result(None)

    def _abandon_body(self, future: asyncio.Future[None], size: int) -> None:
        if future.done() and not future.cancelled():
            self._bytes -= size
        self._admit_bodies()


budget = Budget()
