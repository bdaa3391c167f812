"""The budget: how many requests, and how many bytes of answers, are in flight at once in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

from intake_nwbzarr.limits import Limits, limits

FEWEST_REQUESTS = 4


class Budget:
    """First come, first served; used on the package's event loop only.

    Parameters
    ----------
    limits
        What is allowed now, asked for whenever it matters. A server that says 503 or 429 halves the requests
        in flight, and answers win them back one by one. A body larger than all the bytes goes alone.
    """

    def __init__(self, limits: Callable[[], Limits] = limits) -> None:
        self._limits = limits
        self._share = 1.0  # of the requests that are allowed, what overloads have left
        self._requests = 0
        self._bytes = 0
        self._slowed = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._bodies: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        most = self._limits().requests
        return max(int(self._share * most), min(FEWEST_REQUESTS, most))

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
            self._share = self.limit / 2 / self._limits().requests

    def speed_up(self) -> None:
        """Allow a little more after an answer: one request more for as many answers as are allowed."""
        if self._share < 1:
            self._share = min(self._share + 1 / self.limit / self._limits().requests, 1.0)
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
        return self._bytes == 0 or self._bytes + size <= self._limits().bytes_in_flight

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
