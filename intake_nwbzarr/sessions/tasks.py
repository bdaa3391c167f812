"""The work on one session, on a worker or a thread: open it, call the function, store the result."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from intake_nwbzarr.errors import NWBZarrError
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
    # How many processes a worker has for sessions at once, one for each of them; 0: they share the worker's.
    processes: int = 0
    # Bytes that such a process may take.
    memory_limit: int | None = None


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
    """What became of a session, which is all that a worker sends back."""

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

    def __repr__(self) -> str:
        return f"Sealed({len(self.data):,} bytes)"

    @classmethod
    def of(cls, content: object) -> Sealed:
        """Pickle something, functions of a notebook included."""
        from cloudpickle import dumps

        return cls(dumps(content))


def attempt(job: Job, selected: Selected, key: str) -> Outcome:
    """Open a session, call the function and store its result under a key, in this process."""
    from intake_nwbzarr.transport.request_log import track_requests

    began = monotonic()
    rows, data, failure = 0, None, None
    with track_requests() as log:
        try:
            data, rows = _result(job, selected)
            if job.folder is not None:
                store(job.folder, key, data)
                data = None
        except (Exception, SystemExit) as error:
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


def _result(job: Job, selected: Selected) -> tuple[bytes, int]:
    from intake_nwbzarr.sessions.results import encode

    opened = open_selected(selected, job.give, job.timeout)
    if job.give == "nwb":
        with opened:
            return encode(job.function(opened), selected.key, selected.labels)
    value = job.function(**opened) if job.give == "objects" else job.function(opened)
    return encode(value, selected.key, selected.labels)


def store(folder: Location, key: str, data: bytes) -> None:
    """Write a result's file, so that it is there whole or not at all."""
    from intake_nwbzarr.sessions.tables import write_local
    from intake_nwbzarr.transport.loop import run
    from intake_nwbzarr.transport.open import open_transport

    name = file_name(key)
    if folder.path is not None:
        write_local(folder.path / name, data)
    else:
        run(open_transport(folder).put(name, data))


def file_name(key: str) -> str:
    """Return the name of a result's file."""
    return f"{key}.parquet"


def failure_of(error: BaseException) -> Failure:
    """Return an exception as a row shows it, without the secrets that this process knows."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, NWBZarrError):
        cause = cause.__cause__
    transient = cause.transient if isinstance(cause, NWBZarrError) else isinstance(error, _PASSING)
    # Of arguments that are shown, only their text: no frame's variables.
    frames = traceback.TracebackException.from_exception(error, compact=True)
    # From the function on.
    theirs = [frame for frame in frames.stack if frame.filename != __file__]
    frames.stack = traceback.StackSummary.from_list(theirs[-_MOST_FRAMES:])
    message = str(error) or type(error).__name__
    return Failure(
        type(error).__name__,
        mask_secrets(message)[:LONGEST_MESSAGE],
        transient,
        mask_secrets("".join(frames.format(chain=False)))[: 4 * LONGEST_MESSAGE],
        # Another session on this worker may have taken the memory.
        isinstance(error, MemoryError),
    )
