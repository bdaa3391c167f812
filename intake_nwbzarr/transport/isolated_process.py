"""What runs in the process of an HDF5 file with the option `isolate`; see `isolated`, which it works for."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from queue import SimpleQueue
from typing import Any

import msgspec

from intake_nwbzarr.child_process import ParentProcess
from intake_nwbzarr.errors import NWBZarrError, SessionCrashError
from intake_nwbzarr.hdf5 import filters
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import Bytes, Failure, Fetched, Part, Unchanged
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.hdf5 import FILE, HDF5Transport
from intake_nwbzarr.transport.isolated import (
    Absent,
    Cancel,
    Failed,
    Found,
    Get,
    Ready,
    Received,
    Start,
    Undo,
    Wanted,
)

_encode = msgspec.msgpack.Encoder().encode


class AskingTransport(Transport):
    """The bytes of the file, which the parent process reads."""

    def __init__(self, location: Location, worker: Worker, number: int) -> None:
        super().__init__(location)
        self._worker, self._number = worker, number

    async def fetch(self, key: str, part: Part | None, limit: int, etag: str | None = None) -> Fetched | None:  # noqa: ARG002
        """Have the parent fetch a part of the file."""
        found = await self._worker.fetch(self._number, part, limit, None)
        return None if isinstance(found, Unchanged) else found

    async def fetch_unless(
        self,
        key: str,  # noqa: ARG002 (that of the file)
        part: Part | None,
        limit: int,
        etag: str,
    ) -> Fetched | Unchanged | None:
        """Have the parent fetch a part of the file, unless it still has an ETag."""
        return await self._worker.fetch(self._number, part, limit, etag)

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | None:
        return await self.fetch(key, part, limit)

    async def _list(self, prefix: str) -> list[Any]:  # noqa: ARG002 (there is one file)
        return []


class Worker:
    """Answers the requests of the parent process."""

    def __init__(self, parent: ParentProcess, start: Start) -> None:
        self._parent = parent
        self._location = Location(start.url, start.options)
        self._threads = ThreadPoolExecutor(start.threads)
        self._transports: dict[int, HDF5Transport] = {}
        self._numbers = itertools.count()
        # On the loop: what is waited for, and what is worked on.
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def handle(self, message: Get | Cancel | Undo | Received, data: memoryview) -> None:
        """Begin what the parent asks for."""
        if isinstance(message, Undo):
            self._threads.submit(self._undo, message, data)
        else:
            self._loop.call_soon_threadsafe(self._handle, message, data)

    def _handle(self, message: Get | Cancel | Received, data: memoryview) -> None:
        match message:
            case Get(number):
                self._tasks[number] = self._loop.create_task(self._get(message))
            case Cancel(number):
                if (task := self._tasks.get(number)) is not None:
                    task.cancel()
            case Received(number, found):
                waiting = self._waiting.pop(number)
                if waiting.cancelled():
                    return
                if isinstance(found, Exception):
                    waiting.set_exception(found)
                elif isinstance(found, Fetched):
                    waiting.set_result(Fetched(data.toreadonly(), found.etag, found.size, found.cached))
                else:
                    waiting.set_result(found)

    async def fetch(
        self, transport: int, part: Part | None, limit: int, etag: str | None
    ) -> Fetched | Unchanged | None:
        """Have the parent fetch a part of the file."""
        number = next(self._numbers)
        waiting = self._waiting[number] = self._loop.create_future()
        self._parent.send(_encode(Wanted(number, transport, part, limit, etag)))
        found: Fetched | Unchanged | None = await waiting
        return found

    async def _get(self, get: Get) -> None:
        try:
            answer, data = _message(get.number, await self._found(get))
        except asyncio.CancelledError:
            return
        except BaseException as error:
            answer, data = _failed(get.number, error), b""
        finally:
            del self._tasks[get.number]
        await asyncio.to_thread(self._parent.send, _encode(answer), data)

    async def _found(self, get: Get) -> Fetched | Unchanged | Failure | None:
        transport = self._transports.get(get.transport)
        if transport is None:
            inner = AskingTransport(self._location, self, get.transport)
            transport = self._transports[get.transport] = HDF5Transport(self._location, inner)
        if get.key == FILE:
            return transport.received(get.part, get.limit)
        if get.is_table:
            return await transport._get_table(get.key, get.chunks)
        if get.etag is None:
            return await transport._get(get.key, get.part, get.limit)
        return await transport._get_unless(get.key, get.part, get.limit, get.etag)

    def _undo(self, undo: Undo, data: memoryview) -> None:
        content: Bytes = b""
        answer: Found | Failed = Found(undo.number)
        try:
            content = filters.undo(data, undo.filters, undo.mask, undo.chunks, undo.dtype, undo.where)
        except BaseException as error:
            answer = _failed(undo.number, error)
        self._parent.send(_encode(answer), content)


def _message(
    number: int, found: Fetched | Unchanged | Failure | None
) -> tuple[Found | Absent | Failed, Bytes]:
    match found:
        case Fetched(data, etag, size, cached):
            return Found(number, etag, size, cached), data
        case Failure(error, cause):
            return Failed(number, error.__name__, None, cause), b""
    return Absent(number, unchanged=found is not None), b""


def _failed(number: int, error: BaseException) -> Failed:
    """Return an error as the parent raises it again."""
    if not isinstance(error, NWBZarrError):
        traceback.print_exception(error)
        error = SessionCrashError(
            f"The process that reads the file failed with {type(error).__name__}: {error!s:.300}.",
            next_step="The file may be damaged or malicious: compare it with the original.",
        )
    return Failed(
        number,
        type(error).__name__,
        _text(str(error.args[0]) if error.args else ""),
        None,
        _text(error.location),
        _text(error.path),
        _plain(error.found),
        _plain(error.expected),
        _text(error.next_step),
        error.transient,
    )


def _text[T: (str, str | None)](text: T) -> T:
    return text if text is None else text[:100_000].encode(errors="backslashreplace").decode()


def _plain(value: object) -> str | int | float | None:
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return _text(value if isinstance(value, str) else repr(value))


def main(writing: str, parent: str) -> None:
    """Answer the requests of the parent process, until it ends."""
    # What the HDF5 library prints is no output of the caller's, and what crashes leaves no dump on the disk.
    os.dup2(2, 1)
    with suppress(ImportError):
        # Windows has neither these limits nor such dumps.
        resource = import_module("resource")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    messages: SimpleQueue[tuple[memoryview, memoryview]] = SimpleQueue()
    process = ParentProcess(writing, parent, lambda head, data: messages.put((head, data)))
    worker: Worker | None = None
    while True:
        head, data = messages.get()
        message = pickle.loads(head)  # noqa: S301 (of the parent)
        if worker is None:
            sys.path[:] = message.path
            worker = Worker(process, message)
            process.send(_encode(Ready()))
        else:
            worker.handle(message, data)


if __name__ == "__main__":
    main(*sys.argv[1:])
