"""The work on one session, on a worker or a thread: open it, call the function, store the result."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from time import monotonic
from typing import Any, Final

from intake_nwbzarr import __version__
from intake_nwbzarr.errors import NWBZarrError, OptionError
from intake_nwbzarr.location.credentials import mask_secrets
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.selected import Give, Selected, forget, open_selected

LONGEST_MESSAGE: Final = 2000
_MOST_FRAMES: Final = 6
# Of errors that are not ours; the class says that the same call may succeed.
_PASSING: Final = (ConnectionError, TimeoutError)


@dataclass(frozen=True)
class Job:
    """What is done with every session."""

    function: Callable[..., Any]
    give: Give = "objects"
    # Seconds for the session.
    timeout: float | None = None
    # The folder of the results' files; None: they are returned.
    folder: Location | None = None
    # Whether each session has a process of its own, and how many bytes that may take.
    isolated: bool = False
    memory_limit: int | None = None
    # Identifies the call of map(), whose processes end with it.
    run: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a session has no result."""

    error: str
    message: str
    transient: bool
    traceback: str | None = None
    # Whether it may be another session's fault, which took the memory or the process.
    suspected: bool = False


@dataclass(frozen=True)
class Outcome:
    """How one attempt at a session ended, which is all that a worker sends back."""

    rows: int = 0
    failure: Failure | None = None
    seconds: float = 0.0
    requests: int = 0
    received: int = 0
    # The result's file, where it is not stored.
    data: bytes | None = None


@dataclass(frozen=True, repr=False)
class Sealed:
    """A pickle that is only opened where the work is done, and that no log shows."""

    data: bytes
    # Of the package that has pickled it.
    version: str = __version__

    def __repr__(self) -> str:
        return f"Sealed({len(self.data):,} bytes)"

    @classmethod
    def of(cls, content: object) -> Sealed:
        """Pickle something, functions of a notebook included."""
        from cloudpickle import dumps

        return cls(dumps(content))

    @classmethod
    def of_job(cls, job: Job) -> Sealed:
        """Pickle a job; raise `OptionError` where its function cannot be pickled."""
        try:
            return cls.of(job)
        except NWBZarrError:
            raise
        except Exception as error:
            found = mask_secrets(f"{type(error).__name__}: {text_of(error)}")
            raise OptionError(
                f"The function cannot be sent to another process: {found:.300}.",
                found=found,
                next_step="Create open files, connections, locks and the like inside the function.",
            ) from error


@lru_cache(maxsize=4)
def job_of(data: bytes) -> Job:
    """Return a sealed job, loaded once for all sessions of a run."""
    job: Job = pickle.loads(data)  # noqa: S301 (of the user's own process)
    return job


def attempt(job: Job, selected: Selected, key: str) -> Outcome:
    """Open a session, call the function and store its result under a key, in this process."""
    from intake_nwbzarr.transport.request_log import track_requests

    began = monotonic()
    rows, data, failure = 0, None, None
    with track_requests() as log:
        try:
            data, rows = _result(job, selected, key)
            if job.folder is not None:
                _store(job.folder, selected.key, data)
                data = None
        except BaseException as error:
            # Also SystemExit, and KeyboardInterrupt: that of Ctrl-C is raised in the main thread.
            failure, data, rows = failure_of(error), None, 0
        finally:
            forget(selected, job.timeout)
    counts = log.locations.get(selected.location.url)
    return Outcome(
        rows,
        failure,
        round(monotonic() - began, 3),
        0 if counts is None else counts.requests,
        0 if counts is None else counts.received,
        data,
    )


def _result(job: Job, selected: Selected, key: str) -> tuple[bytes, int]:
    from intake_nwbzarr.sessions.map.results import encode

    opened = open_selected(selected, job.give, job.timeout)
    if job.give == "nwb":
        with opened:
            return encode(job.function(opened), selected.key, selected.labels, key)
    value = job.function(**opened) if job.give == "objects" else job.function(opened)
    return encode(value, selected.key, selected.labels, key)


def _store(folder: Location, session: str, data: bytes) -> None:
    """Write a result's file, so that it is there whole or not at all."""
    from intake_nwbzarr.sessions.tables.tables import write_file

    write_file(replace(folder, url=f"{folder.url}/{file_name(session)}"), data)


def file_name(session: str) -> str:
    """Return the name of the file of a session's result: a later state of the session replaces it."""
    return f"{sha256(session.encode()).hexdigest()[:32]}.parquet"


def failure_of(error: BaseException) -> Failure:
    """Return an exception as a row shows it, without the secrets that this process knows; never raises."""
    trace: str | None
    try:
        message, trace = mask_secrets(text_of(error)), mask_secrets(_traceback(error))
    except Exception:
        # Unmasked, it is not shown: map() waits for an outcome of every session.
        message, trace = "(its message cannot be shown)", None
    return Failure(
        type(error).__name__,
        message[:LONGEST_MESSAGE],
        _is_transient(error),
        None if trace is None else trace[: 4 * LONGEST_MESSAGE],
        # Another session on this worker may have taken the memory.
        isinstance(error, MemoryError),
    )


def text_of(error: BaseException) -> str:
    """Return an exception's message, without what Parquet cannot store; never raises."""
    try:
        message = str(error)
    except Exception:
        message = f"(its message cannot be shown: str() of a {type(error).__name__} raises an error)"
    return _encodable(message) or type(error).__name__


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _is_transient(error: BaseException) -> bool:
    cause: BaseException | None = error
    seen: set[int] = set()
    # `raise error from error` is a circle.
    while cause is not None and not isinstance(cause, NWBZarrError) and id(cause) not in seen:
        seen.add(id(cause))
        cause = cause.__cause__
    return cause.transient if isinstance(cause, NWBZarrError) else isinstance(error, _PASSING)


def _traceback(error: BaseException) -> str:
    """Return the last frames of an exception, from the function on, without variables."""
    try:
        frames = traceback.TracebackException.from_exception(error, compact=True)
        theirs = [frame for frame in frames.stack if frame.filename != __file__]
        frames.stack = traceback.StackSummary.from_list(theirs[-_MOST_FRAMES:])
        return _encodable("".join(frames.format(chain=False)))
    except Exception:
        # Such as of notes that are no texts.
        return ""
