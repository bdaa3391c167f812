"""The event loop of this package: one thread a process, for sync callers and other event loops alike."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from intake_nwbzarr.errors import ForkError

# Blocking reads: local files, fsspec, decompression.
THREADS = 32


@dataclass
class _Running:
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    process: int
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


_lock = threading.Lock()
_running: _Running | None = None


def run[T](coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the package's event loop and wait for its result, from any thread.

    Raises
    ------
    ForkError
        In a forked child of a process that has used the loop.
    """
    try:
        running = _start()
        if threading.current_thread() is running.thread:
            raise RuntimeError("run() would wait for itself on the package's own event loop; await instead.")
    except BaseException:
        coroutine.close()
        raise
    future = asyncio.run_coroutine_threadsafe(coroutine, running.loop)
    try:
        return future.result()
    except BaseException:
        # Ctrl-C: nobody waits for the rest any more.
        future.cancel()
        raise


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
    """Refuse to go on in a forked child.

    Raises
    ------
    ForkError
        When the loop was started by the parent process: its thread did not survive the fork.
    """
    if _running is not None and _running.process != os.getpid():
        raise ForkError(
            "This process was forked after intake_nwbzarr had opened connections, which do not survive. "
            "Start processes with multiprocessing's 'spawn' or 'forkserver' method."
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
