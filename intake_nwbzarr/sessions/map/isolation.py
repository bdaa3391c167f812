"""Sessions in processes of their own, which end on a deadline, over a limit of memory, or by themselves."""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue
from time import monotonic
from typing import Any, BinaryIO, Final

from intake_nwbzarr.errors import SessionCrashError, SessionMemoryError, SessionTimeoutError
from intake_nwbzarr.limits import limits, set_limits
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.map.tasks import Failure, Job, Outcome, Sealed, attempt, failure_of, job_of
from intake_nwbzarr.sessions.selected import Selected

# Seconds between two looks at memory and time.
_LOOK: Final = 0.1
# Seconds that the transport's own, more telling error of a session's time has before the process ends.
_GRACE: Final = 2.0
# Seconds for a process to import what it needs.
_START: Final = 120.0


def attempt_isolated(job: Job, selected: Selected, key: str, threads: int, *, again: bool = False) -> Outcome:
    """Do what `attempt` does in a process that nothing else runs in; `threads` have one each."""
    child = _borrow(job.run)
    try:
        outcome = child.run(job, selected, key, threads)
    except (SessionCrashError, SessionTimeoutError) as error:
        _end(child)
        if isinstance(error, SessionTimeoutError) and child.is_new and not again:
            # A process's first session reads what later ones find in memory, and connects.
            return attempt_isolated(job, selected, key, threads, again=True)
        failure = failure_of(error)
        return Outcome(
            failure=Failure(failure.error, failure.message, failure.transient),
            seconds=round(monotonic() - child.began, 3),
        )
    except BaseException:
        _end(child)
        raise
    _give_back(child)
    return outcome


# Processes without work, those that work on a session of a run of map(), and runs that have ended.
_idle: list[_Child] = []
_busy: dict[_Child, str] = {}
_ended: set[str] = set()
_lock = threading.Lock()


def _borrow(run: str) -> _Child:
    while True:
        with _lock:
            child = _idle.pop() if _idle else None
        child = _Child() if child is None else child
        with _lock:
            if run in _ended:
                break
            if child.process.poll() is None:
                _busy[child] = run
                return child
        child.kill()
    child.kill()
    raise SessionCrashError("The map has ended.")


def _give_back(child: _Child) -> None:
    with _lock:
        if _busy.pop(child) not in _ended:
            _idle.append(child)
            return
    child.kill()


def _end(child: _Child) -> None:
    with _lock:
        _busy.pop(child)
    child.kill()


def end_processes(run: str) -> None:
    """End the processes that wait for work, and those that work for a run of map(), which has ended."""
    with _lock:
        _ended.add(run)
        children, _idle[:] = list(_idle), []
        # The threads that wait for these clear up.
        busy = [child for child, own in _busy.items() if own == run]
    for child in busy:
        child.stop()
    for child in children:
        child.kill()


class _Child:
    """A process for one session at a time; it ends when its parent does."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        try:
            # A group of its own: Ctrl-C is for the parent, which then ends this one.
            self.process = subprocess.Popen(  # noqa: S603 (this package's own module)
                [sys.executable, "-m", "intake_nwbzarr.sessions.map.isolation", str(writing)],
                stdin=subprocess.PIPE,
                pass_fds=[writing],
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        assert self.process.stdin is not None  # noqa: S101 (a pipe was asked for)
        self._to: BinaryIO = self.process.stdin  # type: ignore[assignment]
        self._back = os.fdopen(reading, "rb")
        self._job: Job | None = None
        # Whether it has done no session yet, and when the current one began.
        self.is_new = True
        self.began = monotonic()

    def run(self, job: Job, selected: Selected, key: str, threads: int) -> Outcome:
        """Have a session worked on, and wait for its outcome or its end."""
        session = selected.key
        if job is not self._job:
            # The secrets go through a pipe to the same user's process, which ends with this one.
            sent = job if job.folder is None else replace(job, folder=_with_secrets(job.folder))
            with suppress(BrokenPipeError):
                _send(self._to, (sys.path, Sealed.of_job(sent)))
            # No session's time runs while the process starts, and loads the function.
            late = f"The process for {session} did not start within {_START:g} s."
            self._await(session, _START, None, late)
            if _receive(self._back) is None:
                raise self._crash(session)
            self._job = job
        requests = max(1, limits().requests // threads)
        located = replace(selected, location=_with_secrets(selected.location))
        self.began = monotonic()
        with suppress(BrokenPipeError):
            _send(self._to, (requests, located, key))
        self._await(
            session,
            None if job.timeout is None else job.timeout + _GRACE,
            job.memory_limit,
            f"{session} was not finished within {job.timeout} s; its process was ended.",
        )
        outcome: Outcome | None = _receive(self._back)
        if outcome is None:
            raise self._crash(session)
        self.is_new = False
        return outcome

    def _await(self, session: str, seconds: float | None, memory_limit: int | None, late: str) -> None:
        """Wait until the process answers or ends; raise where it takes too long or too much memory."""
        import psutil

        deadline = None if seconds is None else monotonic() + seconds
        about = psutil.Process(self.process.pid)
        while not select.select([self._back], [], [], _LOOK)[0]:
            if self.process.poll() is not None and not select.select([self._back], [], [], 0)[0]:
                # Processes that the function has started hold its end of the pipe open.
                raise self._crash(session)
            if deadline is not None and monotonic() > deadline:
                raise SessionTimeoutError(
                    late,
                    location=session,
                    expected=seconds,
                    next_step="Pass a longer timeout=, if the function needs more time.",
                )
            taken = 0
            with suppress(psutil.Error):
                taken = about.memory_info().rss
            if memory_limit is not None and taken > memory_limit:
                raise SessionMemoryError(
                    f"The process of {session} took {taken:,} bytes of memory; {memory_limit:,} are allowed. "
                    "It was ended.",
                    location=session,
                    found=taken,
                    expected=memory_limit,
                    next_step="Read less at once in the function, or pass a larger memory_limit=.",
                )

    def _crash(self, session: str) -> SessionCrashError:
        code = self.process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        killed = ", which is how the system ends processes when memory is short" if code == -9 else ""
        if self._job is None:
            return SessionCrashError(
                f"A process for {session} {how}{killed} while it started, before it opened the session.",
                location=session,
                found=code,
                next_step="Its standard error says why.",
            )
        return SessionCrashError(
            f"The process of {session} {how}{killed}.",
            location=session,
            found=code,
            next_step="Run the function on this session alone to debug it.",
        )

    def stop(self) -> None:
        """End the process, and those that the function has started in its group."""
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process, and wait until it is gone."""
        self.stop()
        for file in (self._to, self._back):
            with suppress(OSError):
                file.close()
        self.process.wait()


def _with_secrets(location: Location) -> Location:
    secrets = location.secrets
    return location if secrets is None else replace(location, secrets=replace(secrets, ships=True))


def _send(file: BinaryIO, content: object) -> None:
    data = Sealed.of(content).data
    file.write(struct.pack("<Q", len(data)) + data)
    file.flush()


def _receive(file: BinaryIO) -> Any:
    """Return what the other side sent, None at its end."""
    head = file.read(8)
    if len(head) < 8:
        return None
    length = struct.unpack("<Q", head)[0]
    data = file.read(length)
    return pickle.loads(data) if len(data) == length else None  # noqa: S301 (a process of one's own)


def main(writing: int) -> None:
    """Work on the sessions that the parent sends, until it ends."""
    import faulthandler

    faulthandler.enable()
    commands = os.fdopen(os.dup(0), "rb")
    # The function has no business with the pipe.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.set_inheritable(writing, False)
    back = os.fdopen(writing, "wb")
    queue: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
    threading.Thread(target=_read_on, args=(commands, queue), daemon=True).start()
    _prepare()
    job: Job | Failure | None = None
    while True:
        match queue.get():
            case list(path), Sealed() as sealed:
                sys.path[:] = path
                try:
                    job = job_of(sealed.data)
                except Exception as error:
                    job = failure_of(error)
                _send(back, "ready")
            case int(requests), Selected() as selected, str(key):
                set_limits(requests=requests)
                _send(back, attempt(job, selected, key) if isinstance(job, Job) else Outcome(failure=job))


def _prepare() -> None:
    """Import what every session needs, before the time of the first one begins."""
    import intake_nwbzarr.backend
    import intake_nwbzarr.mapping.views
    import intake_nwbzarr.transport.s3
    import intake_nwbzarr.transport.web  # noqa: F401
    from intake_nwbzarr.sessions.map.results import decode, encode

    decode(encode(0.0, "", {})[0])


def _read_on(commands: BinaryIO, queue: SimpleQueue[tuple[Any, ...]]) -> None:
    while (received := _receive(commands)) is not None:
        queue.put(received)
    # Nobody waits for the session that is being worked on, nor for what its function has started.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
