"""Sessions in processes of their own, which end on a deadline, over a limit of memory, or by themselves."""

from __future__ import annotations

import pickle
import sys
import threading
from dataclasses import replace
from math import inf
from queue import SimpleQueue
from time import monotonic
from typing import Any, Final

from intake_nwbzarr.child_process import LONGEST_START, ChildProcess, ParentProcess
from intake_nwbzarr.errors import SessionCrashError, SessionMemoryError, SessionTimeoutError
from intake_nwbzarr.limits import limits, set_limits
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.map.tasks import Failure, Job, Outcome, Sealed, attempt, failure_of, job_of
from intake_nwbzarr.sessions.selected import Selected

# Seconds that the transport's own, more telling error of a session's time has before the process ends.
_GRACE: Final = 2.0


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
            if child.process.is_running:
                _busy[child] = run
                return child
        child.process.kill()
    child.process.kill()
    raise SessionCrashError("The map has ended.")


def _give_back(child: _Child) -> None:
    with _lock:
        if _busy.pop(child) not in _ended:
            _idle.append(child)
            return
    child.process.kill()


def _end(child: _Child) -> None:
    with _lock:
        _busy.pop(child)
    child.process.kill()


def end_processes(run: str) -> None:
    """End the processes that wait for work, and those that work for a run of map(), which has ended."""
    with _lock:
        _ended.add(run)
        children, _idle[:] = list(_idle), []
        # The threads that wait for these clear up.
        busy = [child for child, own in _busy.items() if own == run]
    for child in busy:
        child.process.stop()
    for child in children:
        child.process.kill()


class _Child:
    """A process for one session at a time; it ends when its parent does."""

    def __init__(self) -> None:
        self.process = ChildProcess("intake_nwbzarr.sessions.map.isolation")
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
            self.process.send(Sealed.of((sys.path, Sealed.of_job(sent))).data)
            # No session's time runs while the process starts, and loads the function.
            late = f"The process for {session} did not start within {LONGEST_START:g} s."
            self._receive(session, LONGEST_START, None, late)
            self._job = job
        requests = max(1, limits().requests // threads)
        located = replace(selected, location=_with_secrets(selected.location))
        self.began = monotonic()
        self.process.send(Sealed.of((requests, located, key)).data)
        outcome: Outcome = self._receive(
            session,
            None if job.timeout is None else job.timeout + _GRACE,
            job.memory_limit,
            f"{session} was not finished within {job.timeout} s; its process was ended.",
        )
        self.is_new = False
        return outcome

    def _receive(self, session: str, seconds: float | None, memory_limit: int | None, late: str) -> Any:
        """Return what the process answers; raise where it ends, or takes too long or too much memory."""
        deadline = inf if seconds is None else monotonic() + seconds
        match self.process.wait(memory_limit, lambda: monotonic() > deadline):
            case "late":
                raise SessionTimeoutError(
                    late,
                    location=session,
                    expected=seconds,
                    next_step="Pass a longer timeout=, if the function needs more time.",
                )
            case "memory":
                raise SessionMemoryError(
                    f"The process of {session} took {self.process.memory:,} bytes of memory; "
                    f"{memory_limit:,} are allowed. It was ended.",
                    location=session,
                    found=self.process.memory,
                    expected=memory_limit,
                    next_step="Read less at once in the function, or pass a larger memory_limit=.",
                )
            case "ended":
                raise self._crash(session)
        received = self.process.receive()
        if received is None:
            raise self._crash(session)
        return pickle.loads(received[0])  # noqa: S301 (a process of one's own)

    def _crash(self, session: str) -> SessionCrashError:
        how = self.process.ending()
        if self._job is None:
            return SessionCrashError(
                f"A process for {session} {how} while it started, before it opened the session.",
                location=session,
                found=how,
                next_step="Its standard error says why.",
            )
        return SessionCrashError(
            f"The process of {session} {how}.",
            location=session,
            found=how,
            next_step="Run the function on this session alone to debug it.",
        )


def _with_secrets(location: Location) -> Location:
    secrets = location.secrets
    return location if secrets is None else replace(location, secrets=replace(secrets, ships=True))


def main(writing: str, parent: str) -> None:
    """Work on the sessions that the parent sends, until it ends."""
    import faulthandler

    faulthandler.enable()
    queue: SimpleQueue[memoryview] = SimpleQueue()
    process = ParentProcess(writing, parent, lambda head, _: queue.put(head))
    _prepare()
    job: Job | Failure | None = None
    while True:
        match pickle.loads(queue.get()):  # noqa: S301 (a process of one's own)
            case list(path), Sealed() as sealed:
                sys.path[:] = path
                try:
                    job = job_of(sealed.data)
                except Exception as error:
                    job = failure_of(error)
                process.send(pickle.dumps("ready"))
            case int(requests), Selected() as selected, str(key):
                set_limits(requests=requests)
                done = attempt(job, selected, key) if isinstance(job, Job) else Outcome(failure=job)
                process.send(pickle.dumps(done))


def _prepare() -> None:
    """Import what every session needs, before the time of the first one begins."""
    import intake_nwbzarr.backend
    import intake_nwbzarr.mapping.views
    import intake_nwbzarr.transport.s3
    import intake_nwbzarr.transport.web  # noqa: F401
    from intake_nwbzarr.sessions.map.results import decode, encode

    decode(encode(0.0, "", {})[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
