"""The event loop of this package, and the limits on concurrent requests."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from intake_nwbzarr.errors import ForkError
from intake_nwbzarr.limits import Limits, limits


async def await_all[T](awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """Await all at once; the first failure cancels the others, and is raised when they have ended."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def gather[T](calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Await many calls, a bounded number at a time; the first failure cancels the rest and is raised."""
    results: list[T | None] = [None] * len(calls)
    turns = iter(range(len(calls)))

    async def work() -> None:
        for turn in turns:
            results[turn] = await calls[turn]()

    # More than may be in flight at once only cost memory.
    await await_all(work() for _ in range(min(len(calls), limits().requests)))
    return results  # type: ignore[return-value]


# Blocking reads: local files, fsspec, decompression.
THREADS = 32

CLEANUP = 10.0
"""Seconds that `run` waits, after Ctrl-C, for a coroutine that was cancelled to end."""


@dataclass
class _Running:
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    process: int
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


_lock = threading.Lock()
_running: _Running | None = None


def run[T](coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the package's event loop and wait for its result, from any other thread."""
    try:
        running = _start()
        if threading.current_thread() is running.thread:
            raise RuntimeError("run() would wait for itself on the package's own event loop; await instead.")
    except BaseException:
        coroutine.close()
        raise
    ended = threading.Event()
    future = asyncio.run_coroutine_threadsafe(_until_end(coroutine, ended), running.loop)
    try:
        return future.result()
    except BaseException:
        if not future.done():
            # Ctrl-C: nobody waits for the rest any more, but what it cleans up needs the threads of the loop,
            # which end with the interpreter.
            future.cancel()
            ended.wait(CLEANUP)
        raise


async def _until_end[T](coroutine: Coroutine[Any, Any, T], ended: threading.Event) -> T:
    """Await a coroutine, and tell when it has ended, cancelled too."""
    try:
        return await coroutine
    except Exception as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # It failed while it cleaned up, and nobody retrieves that.
            raise asyncio.CancelledError from error
        raise
    finally:
        ended.set()


async def on_loop[T](coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the package's event loop, awaited from any other one."""
    try:
        running = _start()
    except BaseException:
        coroutine.close()
        raise
    if asyncio.get_running_loop() is running.loop:
        return await coroutine
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, running.loop))


def when_closing(closer: Callable[[], Awaitable[None]]) -> None:
    """Have something closed, on the loop, before the interpreter exits."""
    _start().closers.append(closer)


def check_process() -> None:
    """Raise `ForkError` in a forked child: the loop's thread, if the parent started it, exists only there."""
    if _running is not None and _running.process != os.getpid():
        raise ForkError(
            "This process was forked after intake_nwbzarr had opened connections, which do not survive.",
            found="fork",
            expected="spawn or forkserver",
            next_step="Start processes with multiprocessing's 'spawn' or 'forkserver' method.",
        )


def _start() -> _Running:
    global _running
    check_process()
    if _running is None:
        with _lock:
            if _running is None:
                _running = _new()
    return _running


def _new() -> _Running:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="nwbzarr-read"))
    thread = threading.Thread(target=loop.run_forever, name="nwbzarr-loop", daemon=True)
    thread.start()
    atexit.register(_close)
    return _Running(loop, thread, os.getpid())


def _close() -> None:
    running = _running
    if running is None or running.process != os.getpid() or not running.thread.is_alive():
        return

    async def close() -> None:
        for closer in running.closers:
            await closer()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        await running.loop.shutdown_asyncgens()

    asyncio.run_coroutine_threadsafe(close(), running.loop).result(timeout=5)
    running.loop.call_soon_threadsafe(running.loop.stop)
    running.thread.join(timeout=5)
    running.loop.close()


FEWEST_REQUESTS = 4


class Budget:
    """Limits requests and bytes in flight, in order of arrival; used on the package's event loop only."""

    # Status 503 or 429 halves the requests in flight, and responses raise them again one by one. A body
    # larger than the limit of bytes is received alone.

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
        """Return how many requests may be in flight now."""
        most = self._limits().requests
        return max(int(self._share * most), min(FEWEST_REQUESTS, most))

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Count one request in flight."""
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
        """Count the bytes of a body in flight while it is received."""
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
        """Halve the requests in flight, at most once a second: one overload causes many error responses."""
        if monotonic() - self._slowed >= 1.0:
            self._slowed = monotonic()
            self._share = self.limit / 2 / self._limits().requests

    def speed_up(self) -> None:
        """Allow one more request after as many responses as requests are allowed."""
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
