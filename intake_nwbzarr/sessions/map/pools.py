"""Where sessions are worked on: threads of this process, or the workers of a dask cluster."""

from __future__ import annotations

import asyncio
import pickle
import re
import socket
import uuid
from abc import ABC, abstractmethod
from concurrent.futures import CancelledError, wait
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, Final, Literal

from intake_nwbzarr import __version__
from intake_nwbzarr.errors import (
    ClusterError,
    MapError,
    MapWarning,
    MissingPackageError,
    OptionError,
    import_optional,
    warn_caller,
)
from intake_nwbzarr.limits import limits
from intake_nwbzarr.location.credentials import mask_secrets
from intake_nwbzarr.sessions.map.isolation import attempt_isolated, end_processes
from intake_nwbzarr.sessions.map.tasks import Job, Outcome, Sealed, attempt, failure_of, job_of, text_of
from intake_nwbzarr.sessions.selected import Selected

# Seconds without any worker until that is an error; nannies need a few to restart one.
PATIENCE: Final = 60.0
# Seconds without a first worker until that is an error, as a queue may take a while; it is said meanwhile.
FIRST_PATIENCE: Final = 300.0
_WAITING: Final = 30.0
# Seconds between two looks at how many workers there are.
_LOOK: Final = 2.0

type Lost = Literal["died", "cancelled"]
"""Why an attempt has no outcome."""


@dataclass(frozen=True)
class Work:
    """One attempt at a session."""

    number: int
    selected: Selected
    key: str
    attempts: int = 1
    # How many of them ended with their worker.
    deaths: int = 0


class Pool(ABC):
    """Works on sessions side by side."""

    # How many at once.
    threads: int
    # How many may wait for their turn beside these.
    queued: int

    @property
    def window(self) -> int:
        """Return how many sessions are submitted at a time; more where workers have come."""
        return max(2 * self.threads, self.queued)

    @abstractmethod
    def submit(self, work: Work) -> None:
        """Begin an attempt, or put it in a queue."""

    @abstractmethod
    def completed(self, seconds: float) -> list[tuple[Work, Outcome | Lost]]:
        """Return the attempts that have ended since, after waiting for the first so long."""

    @abstractmethod
    def close(self) -> None:
        """Cancel what was submitted and has not ended."""


class ThreadPool(Pool):
    """Threads of this process, in which what waits takes memory."""

    queued = 0

    def __init__(self, job: Job, threads: int) -> None:
        if job.isolated:
            Sealed.of_job(job)
        self.threads = threads
        self._job = job
        self._works: SimpleQueue[Work | None] = SimpleQueue()
        self._started = 0
        self._ended: SimpleQueue[tuple[Work, Outcome | Lost]] = SimpleQueue()

    def submit(self, work: Work) -> None:
        """Put an attempt in the queue."""
        self._works.put(work)
        if self._started < self.threads:
            self._started += 1
            # Python waits for other threads before it exits, also after Ctrl-C.
            Thread(target=self._run, name=f"nwbzarr-map-{self._started}", daemon=True).start()

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            self._ended.put((work, run_job(self._job, work.selected, work.key, self.threads)))

    def completed(self, seconds: float) -> list[tuple[Work, Outcome | Lost]]:
        """Return the attempts that have ended."""
        return _drained(self._ended, seconds)

    def close(self) -> None:
        """Cancel what has not ended."""
        _drained(self._works, 0)
        for _ in range(self._started):
            self._works.put(None)
        if self._job.isolated:
            end_processes(self._job.run)


class ClusterPool(Pool):
    """The workers of a dask cluster, which share this process's limit on requests among them."""

    def __init__(self, client: Any, job: Job, label: str, window: int) -> None:
        self._client = client
        self._job: Any = Sealed.of_job(job)
        self.queued = window
        self._run = job.run
        self._numbers = count()
        self._label = re.sub(r"[^A-Za-z0-9_]", "_", label)
        # By the key of a task, its sessions and its future; and sessions that wait for others of their task.
        self._works: dict[str, tuple[list[Work], Any]] = {}
        self._pending: list[Work] = []
        self._seconds: float | None = None
        self._ended: SimpleQueue[Any] = SimpleQueue()
        self._processes = 0
        self._looked = self._seen = monotonic()
        self._plugin: str | None = None
        self.threads = max(1, self._first_workers())
        if len(self._job.data) > _LARGE:
            # Sent to each worker once, and to the scheduler only now.
            self._job = client.submit(_same, self._job, key=f"{self._label}-function-{uuid.uuid4().hex}")

    def submit(self, work: Work) -> None:
        """Put an attempt in the queue."""
        self._pending.append(work)

    def completed(self, seconds: float) -> list[tuple[Work, Outcome | Lost]]:
        """Return the attempts that have ended."""
        self._send()
        futures = _drained(self._ended, seconds)
        self._check()
        outcomes: list[tuple[Work, Outcome | Lost]] = []
        finished = [future for future in futures if future.status == "finished"]
        for future in futures:
            if future.status in {"lost", "pending"} and future.key in self._works:
                # It ended, and what it returned went with its worker before it was fetched: it is done again.
                self._pending += self._works.pop(future.key)[0]
            elif future.status != "finished" and future.key in self._works:
                lost = self._what_happened(future)
                outcomes += [(work, lost) for work in self._works.pop(future.key)[0]]
        for future, result in zip(finished, self._gathered(finished), strict=True):
            if isinstance(result, Unfit):
                raise MapError(result.message, found=result.found, next_step=result.next_step)
            outcomes += zip(self._works.pop(future.key)[0], result, strict=True)
            self._note_seconds(result)
        return outcomes

    def _send(self) -> None:
        """Submit tasks of so many sessions as are done in a moment: a task costs dask some milliseconds."""
        # How long they take is learnt from the first ones.
        known = self._seconds is not None
        enough = self.window // (2 * self.threads)
        size = max(1, min(_MOST_IN_TASK, enough, int(_MOMENT / max(self._seconds or _MOMENT, 0.001))))
        while (known and len(self._pending) >= size) or (
            self._pending and len(self._works) < 2 * self.threads
        ):
            works, self._pending = self._pending[:size], self._pending[size:]
            self._submit_task(works)

    def _submit_task(self, works: list[Work]) -> None:
        try:
            future = self._client.submit(
                run_sealed,
                self._job,
                Sealed(pickle.dumps([(work.selected, work.key) for work in works])),
                self._per_worker,
                # Without anything of the sessions, as keys are shown everywhere.
                key=f"{self._label}-{self._run}-{next(self._numbers)}",
                pure=False,
            )
            self._works[future.key] = works, future
            future.add_done_callback(self._ended.put)
        except Exception as error:
            raise self._lost(error) from error

    def _note_seconds(self, outcomes: list[Outcome]) -> None:
        """Learn how long a session takes, of late more than before."""
        for outcome in outcomes:
            before = outcome.seconds if self._seconds is None else self._seconds
            self._seconds = 0.9 * before + 0.1 * outcome.seconds

    def close(self) -> None:
        """Cancel what has not ended."""
        futures = [future for _, future in self._works.values()]
        self._works.clear()
        if self._client.status != "running":
            return
        try:
            from intake_nwbzarr.sessions.map.plugins import plugin_name

            self._client.cancel(futures)
            if self._plugin is not None:
                self._client.unregister_worker_plugin(self._plugin)
            self._client.unregister_scheduler_plugin(plugin_name(self._run))
        except Exception:
            # The cluster is going; there is nothing left to tidy.
            return

    def _gathered(self, finished: list[Any]) -> list[Any]:
        if not finished:
            return []
        try:
            # If their worker has just died, this waits until they were done again, which may be never.
            gathering = asyncio.run_coroutine_threadsafe(
                self._client.gather(finished, asynchronous=True), self._client.loop.asyncio_loop
            )
        except Exception as error:
            raise self._lost(error) from error
        try:
            while not wait([gathering], _LOOK).done:
                self._check()
            return list(gathering.result())
        except (Exception, CancelledError) as error:
            raise error if isinstance(error, ClusterError) else self._lost(error) from error
        finally:
            gathering.cancel()

    def _what_happened(self, future: Any) -> Lost:
        """Return why a future has no result; raise where that concerns all of them."""
        if future.status == "cancelled":
            if self._client.status == "running":
                return "cancelled"
            raise self._lost(None)
        from distributed.scheduler import KilledWorker

        error = future.exception()
        if isinstance(error, KilledWorker):
            return "died"
        raise self._lost(error)

    def _check(self) -> None:
        """Raise where nothing will be worked on any more; share the requests anew where workers came."""
        if self._client.status not in {"running", "connecting"}:
            raise self._lost(None)
        now = monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        try:
            threads = self._share_requests()
            if threads:
                self.threads, self._seen = threads, now
        except Exception:
            # A worker, or the scheduler, has just gone: the next looks will show.
            self._processes = 0
        if now - self._seen > PATIENCE:
            raise ClusterError(
                f"The cluster has had no workers for {PATIENCE:g} s.",
                found=0,
                next_step="Start workers, and run the same map again: with folder= it resumes. If sessions "
                "crash or take all memory, pass isolate='process', which keeps the workers.",
                transient=True,
            )

    def _first_workers(self) -> int:
        """Wait for workers, and share the requests among them; return how many threads there are."""
        try:
            self._await_workers()
            from intake_nwbzarr.sessions.map.plugins import OneDeath, plugin_name

            plugin = OneDeath(self._run, self._client.id)
            self._client.register_plugin(plugin, name=plugin_name(self._run))
            return self._share_requests()
        except ClusterError:
            raise
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f"The workers cannot import what map() needs: {error}.",
                found=str(error),
                next_step="Install intake-nwbzarr in the environment of scheduler and workers.",
            ) from error
        except Exception as error:
            raise self._lost(error) from error

    def _await_workers(self) -> None:
        began = monotonic()
        while (waited := monotonic() - began) < FIRST_PATIENCE:
            try:
                self._client.wait_for_workers(1, timeout=min(_WAITING, FIRST_PATIENCE - waited))
                return
            except TimeoutError:
                warn_caller(
                    f"The cluster has no workers yet; map() waits for them, {FIRST_PATIENCE:g} s at most.",
                    MapWarning,
                )
        raise ClusterError(
            f"The cluster has had no workers for {FIRST_PATIENCE:g} s.",
            found=0,
            next_step="Start workers; where a queue takes longer, call client.wait_for_workers(1) first.",
            transient=True,
        )

    def _share_requests(self) -> int:
        """Give each worker process its part of the limit on requests; return how many threads there are."""
        from intake_nwbzarr.sessions.map.plugins import RequestShare, plugin_name

        workers: dict[str, int] = self._client.nthreads()
        # As many as there have been: one that died comes back, with the same share.
        if len(workers) > self._processes:
            self._processes = len(workers)
            self._per_worker = max(workers.values())
            share = max(1, limits().requests // len(workers))
            before, self._plugin = self._plugin, f"{plugin_name(self._run)}-{next(self._numbers)}"
            self._client.register_plugin(RequestShare(self._run, share), name=self._plugin)
            if before is not None:
                # Only now, as a run ends on a worker with the last of its plugins.
                self._client.unregister_worker_plugin(before)
        return sum(workers.values())

    def _lost(self, error: BaseException | None) -> ClusterError:
        found = self._client.status if error is None else f"{type(error).__name__}: {error}"
        closed = "was closed" if error is None else f"cannot be used any more ({found:.200})"
        return ClusterError(
            f"The cluster, or its client, {closed}.",
            found=found,
            next_step="Run the same map again with a running cluster: with folder= it resumes.",
            transient=True,
        )


# Sessions in one task at most, and seconds that they take together, about.
_MOST_IN_TASK: Final = 8
_MOMENT: Final = 0.5
# Bytes of a pickled function that go with every task.
_LARGE: Final = 64 * 1024


def _same(job: Sealed) -> Sealed:
    return job


@dataclass(frozen=True)
class Unfit:
    """Why a worker can do nothing for any session."""

    found: str
    message: str
    next_step: str


def run_sealed(job: Sealed, sessions: Sealed, threads: int) -> list[Outcome] | Unfit:
    """Run a job on sessions as they are sent to workers; nothing is raised, as distributed would log it."""
    from intake_nwbzarr.sessions.map.plugins import settle

    settle()
    if job.version != __version__:
        return Unfit(
            __version__,
            f"A worker has intake-nwbzarr {__version__}, and this process {job.version}.",
            "Install the same version on all workers.",
        )
    try:
        opened = job_of(job.data)
    except Exception as error:
        found = mask_secrets(f"{type(error).__name__}: {text_of(error)}")
        return Unfit(
            found,
            f"The function cannot be loaded on a worker: {found}.",
            "Install what it imports on the workers, or send a file with client.upload_file.",
        )
    place = None if opened.folder is None else opened.folder.path
    # Whoever called map() has made it.
    if place is not None and not place.parent.is_dir():
        return Unfit(
            str(place.parent),
            f"The folder {place.parent} does not exist on the worker {socket.gethostname()}.",
            "Pass a folder that you and all workers share, or an s3:// location.",
        )
    works: list[tuple[Selected, str]] = pickle.loads(sessions.data)  # noqa: S301 (of the user's own process)
    return [run_job(opened, selected, key, threads) for selected, key in works]


def run_job(job: Job, selected: Selected, key: str, threads: int) -> Outcome:
    """Run a job on a session, in a process of its own if the job says so; nothing is raised.

    `threads` is how many sessions are worked on here side by side.
    """
    try:
        return attempt_isolated(job, selected, key, threads) if job.isolated else attempt(job, selected, key)
    except BaseException as error:
        # Such as a process that cannot be started: map() waits for an outcome of every session.
        return Outcome(failure=failure_of(error))


def pool_of(client: object, job: Job, label: str, threads: int, window: int) -> Pool:
    """Return the pool of a client, or of threads without one."""
    if client is None:
        return ThreadPool(job, threads)
    cluster: Any = client
    if not isinstance(client, import_optional("distributed", "cluster", "A client").Client):
        raise OptionError(
            f"client must be a distributed.Client, or None for threads, not {type(client).__name__}.",
            found=type(client).__name__,
            expected="distributed.Client",
        )
    if cluster.asynchronous:
        raise OptionError(
            "map() waits for its sessions, which an asynchronous client cannot do.",
            found="asynchronous=True",
            next_step="Pass a Client that was made without asynchronous=True.",
        )
    if cluster.status != "running":
        raise ClusterError(
            f"The client is {cluster.status}.", found=cluster.status, next_step="Pass a running one."
        )
    return ClusterPool(cluster, job, label, window)


def _drained[T](queue: SimpleQueue[T], seconds: float) -> list[T]:
    """Return all that is in a queue, after waiting for the first."""
    found: list[T] = []
    try:
        found.append(queue.get(timeout=max(seconds, 0.001)))
        while True:
            found.append(queue.get_nowait())
    except Empty:
        return found
