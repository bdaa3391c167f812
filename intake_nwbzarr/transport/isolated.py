"""HDF5 files that are parsed, and whose chunks are decoded, in a process of their own: the option `isolate`.

`isolated_process` is what runs in it. It gets bytes of the file from here, and opens no connections.
What it sends is decoded as data, of bounded size.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import prod
from time import monotonic
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr import errors
from intake_nwbzarr.child_process import LONGEST_START, ChildProcess
from intake_nwbzarr.errors import NWBZarrError, SessionCrashError, SessionMemoryError, SessionTimeoutError
from intake_nwbzarr.hdf5.messages import Filter
from intake_nwbzarr.limits import limits
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.location.options import Isolation, isolation
from intake_nwbzarr.transport.answers import Bytes, Failure, Fetched, Folder, Listed, Part, Unchanged
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.hdf5 import FILE, FIRST, HDF5Transport
from intake_nwbzarr.untrusted_input import LARGEST_DOCUMENT, LARGEST_OBJECT

MODULE: Final = "intake_nwbzarr.transport.isolated_process"

IDLE: Final = 60.0
"""Seconds after which a process without work is ended; it takes about 100 MB."""

MOST_IDLE: Final = 8
"""Processes without work; of more, those that had none for longest are ended."""

# Bytes of what a process sends beside data: an error with its message.
_LARGEST_HEAD: Final = 2**20


# What is sent to the process, as pickles.


@dataclass(frozen=True)
class Start:
    """The file, and what this process imports from and decodes with."""

    url: str
    options: str
    path: list[str]
    threads: int


@dataclass(frozen=True)
class Get:
    """A request for an object, a table of chunks, or a part of the file that came with its metadata."""

    number: int
    transport: int
    key: str
    part: Part | None
    limit: int
    etag: str | None = None
    # Whether it is a table of chunks, and of which ones.
    is_table: bool = False
    chunks: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for a request any more."""

    number: int


@dataclass(frozen=True)
class Undo:
    """A request to undo the filters of a chunk, which are its data: see `filters.undo`."""

    number: int
    filters: tuple[Filter, ...]
    mask: int
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    where: str


@dataclass(frozen=True)
class Received:
    """What was fetched of the file for the process; the bytes are sent beside it."""

    number: int
    found: Fetched | Unchanged | Exception | None


# What the process sends, as MessagePack.


class Wanted(msgspec.Struct, tag=True):
    """The process needs a part of the file, unless it still has an ETag."""

    number: int
    transport: int
    part: Part | None
    limit: int
    etag: str | None


class Found(msgspec.Struct, tag=True):
    """An object was found, and follows; or the elements of a chunk do."""

    number: int
    etag: str | None = None
    size: int | None = None
    cached: int = 0


class Absent(msgspec.Struct, tag=True):
    """An object is not there, or is unchanged."""

    number: int
    unchanged: bool = False


class Failed(msgspec.Struct, tag=True):
    """An error was raised, or a `Failure` returned, which has no message."""

    number: int
    error: str
    message: str | None
    cause: str | None = None
    location: str | None = None
    path: str | None = None
    found: str | int | float | None = None
    expected: str | int | float | None = None
    next_step: str | None = None
    transient: bool = False


class Ready(msgspec.Struct, tag=True):
    """The process has imported what it needs."""


_decoder: Final = msgspec.msgpack.Decoder(Wanted | Found | Absent | Failed | Ready)


@dataclass(eq=False)
class _Call:
    """A request to the process, and who waits for it."""

    # Where the elements of a chunk belong, and the bytes of another answer at most.
    place: memoryview | None = None
    most: int = 0
    answer: Future[Any] = field(default_factory=Future)
    since: float = field(default_factory=monotonic)


class _Process:
    """A process for one file, which ends when it has had no work for a while."""

    def __init__(self, location: Location) -> None:
        self.location = location
        allowed = isolation(location.public) or Isolation()
        self.memory_limit, self.timeout = allowed.memory_limit, allowed.timeout
        self.child = ChildProcess(MODULE)
        self.is_over = False
        # Of the last request or answer.
        self.used = monotonic()
        self._ready = False
        self._calls: dict[int, _Call] = {}
        # Transports whose file the process reads, and how many parts of files it waits for.
        self._sources: dict[int, tuple[Transport, asyncio.AbstractEventLoop]] = {}
        self._wanted = 0
        self.thread = threading.Thread(target=self._run, name="nwbzarr-isolated", daemon=True)
        self.thread.start()
        self.send(Start(location.url, location.options, sys.path, limits().decoding_threads))

    def send(self, message: object, data: Bytes = b"") -> None:
        """Send a message; where the process has ended, the thread that waits for answers says why."""
        self.child.send(pickle.dumps(message), data)

    @property
    def is_idle(self) -> bool:
        """Return whether nobody waits for it."""
        return not self._calls and not self._wanted

    # Called with the lock held.
    def add(self, number: int, call: _Call, source: tuple[int, Transport, Any] | None) -> None:
        """Have a call answered, for which parts of the file are read by a transport."""
        self.used = call.since
        self._calls[number] = call
        if source is not None:
            self._sources[source[0]] = source[1:]

    def drop(self, number: int) -> None:
        """Forget a call that nobody waits for any more."""
        with _lock:
            known = self._calls.pop(number, None) is not None
        if known:
            self.send(Cancel(number))

    def _run(self) -> None:
        """Receive what the process sends, until it ends or is ended."""
        problem: Callable[[], NWBZarrError] | None = None
        try:
            while problem is None:
                trouble = self.child.wait(self.memory_limit, self._is_late)
                problem = self._receive() if trouble is None else getattr(self, f"_{trouble}")
        finally:
            with _lock:
                self.is_over = True
                if _processes.get(self.location) is self:
                    del _processes[self.location]
                calls, self._calls = self._calls, {}
            self.child.kill()
            for call in calls.values():
                error = self._damaged() if problem is None else problem()
                with suppress(InvalidStateError):
                    call.answer.set_exception(error)

    def _receive(self) -> Callable[[], NWBZarrError] | None:
        """Receive a message; return what makes the error where it is not one that was sent in order."""
        received = self.child.receive(_LARGEST_HEAD)
        if received is None:
            return self._ended
        head, size = received
        try:
            message = _decoder.decode(head)
        except msgspec.MsgspecError:
            return self._damaged
        self.used = monotonic()
        match message:
            case Ready():
                self._ready = True
                with _lock:
                    for call in self._calls.values():
                        call.since = self.used
            case Wanted():
                return self._fetch(message)
            case Found() | Absent() | Failed():
                return self._pass_on(message, size)
        return None

    def _pass_on(self, message: Found | Absent | Failed, size: int) -> Callable[[], NWBZarrError] | None:
        # A dropped call may still be answered.
        call = self._calls.get(message.number, _Call(most=LARGEST_OBJECT))
        if call.place is None or not isinstance(message, Found):
            is_damaged = size > (call.most if isinstance(message, Found) else 0)
        else:
            is_damaged = size != len(call.place)
        if is_damaged:
            return self._damaged
        place = memoryview(np.empty(size, np.uint8)) if call.place is None else call.place[:size]
        if not self.child.receive_into(place):
            return self._ended
        with _lock:
            self._calls.pop(message.number, None)
        with suppress(InvalidStateError):
            _answer(call.answer, message, place.toreadonly())
        return None

    def _fetch(self, wanted: Wanted) -> Callable[[], NWBZarrError] | None:
        source = self._sources.get(wanted.transport)
        if source is None:
            return self._damaged
        transport, loop = source
        with _lock:
            self._wanted += 1
        with suppress(RuntimeError):  # at the interpreter's exit
            asyncio.run_coroutine_threadsafe(self._serve(transport, wanted), loop)
        return None

    async def _serve(self, transport: Transport, wanted: Wanted) -> None:
        found: Fetched | Unchanged | Exception | None
        data: Bytes = b""
        try:
            if wanted.etag is None:
                found = await transport.fetch("", wanted.part, wanted.limit)
            else:
                found = await transport.fetch_unless("", wanted.part, wanted.limit, wanted.etag)
            if isinstance(found, Fetched):
                data, found = found.data, replace(found, data=b"")
        except Exception as error:
            found = error
        try:
            await asyncio.to_thread(self.send, Received(wanted.number, found), data)
        finally:
            with _lock:
                self._wanted -= 1
                self.used = monotonic()

    def _is_late(self) -> bool:
        """Return whether the process computes for too long, or has nothing to do."""
        now = monotonic()
        with _lock:
            if self.is_idle:
                # Nobody can begin a call from now on.
                self.is_over = self.is_over or now - self.used > IDLE
                return self.is_over
            if not self._ready:
                return now - self.used > LONGEST_START
            calls = [call for call in self._calls.values() if call.place is not None or not self._wanted]
            # While bytes are fetched, the process has nothing to compute; a chunk needs none.
            began = [call.since if call.place is not None else max(call.since, self.used) for call in calls]
        return bool(began) and now - min(began) > self.timeout

    def _late(self) -> NWBZarrError:
        if not self._ready:
            return SessionTimeoutError(
                f"The process for {self.location} did not start within {LONGEST_START:g} s.",
                location=self.location,
                expected=LONGEST_START,
                transient=True,
            )
        return SessionTimeoutError(
            f"The process that reads {self.location} took more than {self.timeout:g} s. It was ended.",
            location=self.location,
            expected=self.timeout,
            next_step="The file may be damaged or malicious. If you trust it, pass a longer time: "
            "storage_options={'isolate': {'timeout': ...}}.",
        )

    def _memory(self) -> NWBZarrError:
        return SessionMemoryError(
            f"The process that reads {self.location} took {self.child.memory:,} bytes of memory; "
            f"{self.memory_limit:,} are allowed. It was ended.",
            location=self.location,
            found=self.child.memory,
            expected=self.memory_limit,
            next_step="The file may be damaged or malicious. If you trust it, allow more: "
            "storage_options={'isolate': {'memory_limit': '...'}}.",
        )

    def _ended(self) -> NWBZarrError:
        how = self.child.ending()
        if not self._ready:
            return SessionCrashError(
                f"The process for {self.location} {how} while it started, before it read the file.",
                location=self.location,
                found=how,
                next_step="Its standard error says why.",
            )
        return self._crash(how)

    def _damaged(self) -> NWBZarrError:
        return self._crash("sent an invalid response, and was ended")

    def _crash(self, how: str) -> NWBZarrError:
        return SessionCrashError(
            f"The process that reads {self.location} {how}.",
            location=self.location,
            found=how,
            next_step="The file may be damaged or malicious: compare it with the original.",
        )


def _answer(answer: Future[Any], message: Found | Absent | Failed, data: memoryview) -> None:
    match message:
        case Found(_, etag, size, cached):
            answer.set_result(Fetched(data, etag, size, cached))
        case Absent(_, unchanged):
            answer.set_result(Unchanged() if unchanged else None)
        case Failed():
            found = getattr(errors, message.error, None)
            kind = found if isinstance(found, type) and issubclass(found, NWBZarrError) else NWBZarrError
            if message.message is None:
                answer.set_result(Failure(kind, message.cause or ""))
                return
            names = ("location", "path", "found", "expected", "next_step", "transient")
            answer.set_exception(kind(message.message, **{name: getattr(message, name) for name in names}))


_processes: dict[Location, _Process] = {}
_lock = threading.Lock()
_starting = threading.Lock()
_numbers = itertools.count()


def _begin(
    location: Location,
    call: _Call,
    message: Callable[[int], object],
    data: Bytes = b"",
    source: tuple[int, Transport, Any] | None = None,
) -> tuple[_Process, int]:
    """Send a request to the process of a file, which is started if there is none."""
    number = next(_numbers)
    while True:
        with _lock:
            process = _processes.get(location)
            if process is not None and not process.is_over and process.child.is_running:
                process.add(number, call, source)
                break
        with _starting:
            if _processes.get(location) is process:
                _start(location)
    process.send(message(number), data)
    return process, number


def _start(location: Location) -> None:
    process = _Process(location)
    with _lock:
        idle = sorted((each for each in _processes.values() if each.is_idle), key=lambda each: each.used)
        for each in idle[: max(0, len(idle) + 1 - MOST_IDLE)]:
            each.is_over = True
        _processes[location] = process


def _end_all() -> None:
    """End all processes before the interpreter exits."""
    with _lock:
        processes = list(_processes.values())
    for process in processes:
        process.child.stop()
    for process in processes:
        process.thread.join(5)


def _after_fork() -> None:
    """Leave the processes to the parent, in a forked child."""
    global _lock, _starting
    _lock, _starting = threading.Lock(), threading.Lock()
    for process in _processes.values():
        process.child.abandon()
    _processes.clear()
    atexit.unregister(_end_all)


atexit.register(_end_all)
os.register_at_fork(after_in_child=_after_fork)


class IsolatedTransport(HDF5Transport):
    """The objects that an HDF5 file is presented as, by a process of its own."""

    def __init__(self, location: Location, inner: Transport) -> None:
        super().__init__(location, inner)
        self._number = next(_numbers)

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        found = await self._call(key, part, limit)
        return None if isinstance(found, Unchanged) else found

    async def _get_file(self, part: Part | None, limit: int, etag: str | None) -> Fetched | None:
        # What came with the metadata is in the process.
        asked = part is not None and part.start is not None and part.stop is not None
        if asked and part.stop - part.start <= FIRST and self.location in _processes:  # type: ignore[operator, union-attr]
            held = await self._call(FILE, part, limit)
            if isinstance(held, Fetched):
                return held
        return await self._inner.fetch("", part, limit, etag)

    async def _get_unless(
        self, key: str, part: Part | None, limit: int, etag: str
    ) -> Fetched | Unchanged | Failure | None:
        if key == FILE:
            return await super()._get_unless(key, part, limit, etag)
        return await self._call(key, part, limit, etag)

    async def _get_table(self, key: str, chunks: NDArray[np.int64] | None) -> Fetched | Failure | None:
        found = await self._call(key, None, LARGEST_OBJECT, is_table=True, chunks=chunks)
        return None if isinstance(found, Unchanged) else found

    async def _list(self, prefix: str) -> list[Listed]:
        found = None if prefix else await self._call("zarr.json", None, LARGEST_DOCUMENT)
        return [Listed("zarr.json", len(found.data), found.etag or "")] if isinstance(found, Fetched) else []

    async def _list_folder(self, folder: str) -> Folder:
        return Folder(tuple(entry.key for entry in await self._list(folder)), ())

    async def _call(
        self, key: str, part: Part | None, limit: int, etag: str | None = None, **table: Any
    ) -> Fetched | Unchanged | Failure | None:
        """Have the process get an object."""
        call = _Call(most=limit)
        process, number = await asyncio.to_thread(
            _begin,
            self.location,
            call,
            lambda number: Get(number, self._number, key, part, limit, etag, **table),
            source=(self._number, self._inner, asyncio.get_running_loop()),
        )
        try:
            found: Fetched | Unchanged | Failure | None = await asyncio.wrap_future(call.answer)
        except NWBZarrError as error:
            error.path = error.path or f"/{key}".rpartition("/c")[0].strip("/") or None
            raise
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.to_thread(process.drop, number))
            raise
        return found


def undo(
    location: Location,
    data: Bytes,
    filters: Sequence[Filter],
    mask: int,
    chunks: tuple[int, ...],
    dtype: np.dtype[Any],
    where: str,
    out: NDArray[np.uint8] | None = None,
) -> memoryview:
    """Do what `intake_nwbzarr.hdf5.filters.undo` does in the process of a file."""
    nbytes = prod(chunks) * dtype.itemsize
    place = memoryview(out if out is not None and out.nbytes == nbytes else np.empty(nbytes, np.uint8))
    call = _Call(place)
    _begin(location, call, lambda number: Undo(number, tuple(filters), mask, chunks, dtype, where), data)
    call.answer.result()
    return place
