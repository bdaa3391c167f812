"""A process that works for this one and ends with it; a crash, a deadline or its memory end it alone."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

import numpy as np
import psutil

LONGEST_START: Final = 120.0
"""Seconds for a process to import what it needs."""

# Seconds between two looks at memory and time, and at whether the parent is there.
_LOOK: Final = 0.1
_LOOK_AT_PARENT: Final = 1.0
# Bytes of the two parts of a message: its head, and data that follow as they are.
_SIZES: Final = struct.Struct("<QQ")

type Data = bytes | memoryview
type Trouble = Literal["ended", "late", "memory"]
"""Why nothing is received: the process ended, takes too long, or takes too much memory."""


class ChildProcess:
    """A process that runs a module of this package, whose main function makes a `ParentProcess`."""

    def __init__(self, module: str) -> None:
        reading, writing = os.pipe()
        try:
            # A group of its own: Ctrl-C is for the parent, which then ends this one.
            self.process = subprocess.Popen(  # noqa: S603 (this package's own module)
                [sys.executable, "-m", module, str(writing), str(os.getpid())],
                stdin=subprocess.PIPE,
                pass_fds=[writing],
                start_new_session=True,
                bufsize=0,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        assert self.process.stdin is not None  # noqa: S101 (a pipe was asked for)
        self._to = self.process.stdin.fileno()
        self._back = reading
        self._answers = select.poll()
        self._answers.register(reading, select.POLLIN)
        self._sending = threading.Lock()
        self._looked = 0.0
        # Bytes of memory that the process took when `wait` looked last.
        self.memory = 0
        self._about = psutil.Process(self.process.pid)

    def send(self, head: Data, data: Data = b"") -> None:
        """Send a message; one that the process has ended before is dropped."""
        with self._sending, suppress(OSError):
            _write(self._to, head, data)

    @property
    def is_running(self) -> bool:
        """Return whether the process has not ended."""
        return self.process.poll() is None

    def wait(self, memory_limit: int | None, is_late: Callable[[], bool]) -> Trouble | None:
        """Wait until there is something to receive, or until there is trouble."""
        while True:
            has_answered = bool(self._answers.poll(1000 * _LOOK))
            if has_answered and time.monotonic() < self._looked + _LOOK:
                return None
            self._looked = time.monotonic()
            if not has_answered and not self.is_running and not self._answers.poll(0):
                # Processes that it has started hold its end of the pipe open.
                return "ended"
            if is_late():
                return "late"
            with suppress(psutil.Error):
                self.memory = self._about.memory_info().rss
            if memory_limit is not None and self.memory > memory_limit:
                return "memory"
            if has_answered:
                return None

    def receive(self, most: int | None = None) -> tuple[memoryview, int] | None:
        """Return the head of a message, and the size of its data, which are received next; None at the end.

        A head of more than `most` bytes is none that was sent in order.
        """
        sizes = _read(self._back, _SIZES.size)
        if sizes is None:
            return None
        head_size, data_size = _SIZES.unpack(sizes)
        head = None if most is not None and head_size > most else _read(self._back, head_size)
        return None if head is None else (head, data_size)

    def receive_into(self, place: memoryview) -> bool:
        """Receive the data of a message, and return whether there was as much."""
        return _read_into(self._back, place)

    def ending(self) -> str:
        """Return how the process ended, as an error says it."""
        code = self.process.wait()
        if code >= 0:
            return f"exited with status {code}"
        killed = ", which is how the system ends processes when memory is short" if code == -9 else ""
        return f"was ended by {signal.Signals(-code).name}{killed}"

    def stop(self) -> None:
        """End the process, and those that it has started in its group."""
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process, and wait until it is gone."""
        self.stop()
        self.process.wait()
        # Whoever is sending to it has got an error by now.
        with self._sending, suppress(OSError):
            assert self.process.stdin is not None  # noqa: S101 (as above)
            self.process.stdin.close()
            self._to = -1
        back, self._back = self._back, -1
        if back >= 0:
            os.close(back)

    def abandon(self) -> None:
        """Close this side in a forked child, which has a copy of it; the process is not its own."""
        assert self.process.stdin is not None  # noqa: S101 (as above)
        self.process.stdin.close()
        os.close(self._back)
        self.process.returncode = 0


class ParentProcess:
    """The process that this one works for, and ends with.

    Messages are given to `received` in another thread, as they arrive.
    """

    def __init__(self, writing: str, parent: str, received: Callable[[memoryview, memoryview], None]) -> None:
        self._commands = os.dup(0)
        # What is called here has no business with the pipes.
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._back = int(writing)
        os.set_inheritable(self._back, False)
        self._sending = threading.Lock()
        threading.Thread(target=self._read_on, args=(received,), daemon=True).start()
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()

    def send(self, head: Data, data: Data = b"") -> None:
        """Send a message."""
        with self._sending:
            _write(self._back, head, data)

    def _read_on(self, received: Callable[[memoryview, memoryview], None]) -> None:
        while (sizes := _read(self._commands, _SIZES.size)) is not None:
            parts = [_read(self._commands, size) for size in _SIZES.unpack(sizes)]
            if None in parts:
                break
            received(*parts)  # type: ignore[arg-type]
        _end_group()


def _end_with(parent: int) -> None:
    # Processes that the parent has forked hold the pipe open after it has ended.
    while os.getppid() == parent:
        time.sleep(_LOOK_AT_PARENT)
    _end_group()


def _end_group() -> None:
    # Nobody waits for what is worked on, nor for what it has started.
    os.killpg(0, signal.SIGKILL)


def _write(file: int, head: Data, data: Data) -> None:
    for part in (_SIZES.pack(len(head), len(data)) + head, data):
        view = memoryview(part)
        while len(view):
            view = view[os.write(file, view) :]


def _read(file: int, size: int) -> memoryview | None:
    place = memoryview(np.empty(size, np.uint8))
    return place if _read_into(file, place) else None


def _read_into(file: int, place: memoryview) -> bool:
    """Fill memory from a pipe, and return whether there was as much."""
    done = 0
    while done < len(place):
        count = os.readv(file, [place[done:]])
        if not count:
            return False
        done += count
    return True
