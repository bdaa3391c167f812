"""What scheduler and workers do beside their own work while sessions are mapped."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import psutil
from distributed import SchedulerPlugin, WorkerPlugin

from intake_nwbzarr.limits import limits, set_limits
from intake_nwbzarr.sessions.map.isolation import end_processes
from intake_nwbzarr.sessions.map.tasks import job_of

_lock = threading.Lock()
# By run of map(): several may use one cluster, and several workers may be threads of one process.
_shares: dict[str, tuple[int, int]] = {}
_before: list[int] = []
# Seconds that a new worker waits with its first session: a nanny does not restart a worker that dies before
# it has heard that it is there. What was started longer ago than the other figure is not new.
_SETTLE: Final = 3.0
_NEW: Final = 60.0
_settled: list[float] = []


class OneDeath(SchedulerPlugin):
    """Has tasks of a run fail when their worker dies, instead of killing one worker after the other.

    When the client of the run disconnects without having ended it, this ends it on scheduler and workers.
    """

    def __init__(self, run: str, client: str) -> None:
        self.run = run
        self.client = client

    def update_graph(self, scheduler: Any, *, keys: set[Any], **_others: Any) -> None:
        """Count the deaths that the scheduler allows as if they had been, before a task begins."""
        for key in keys:
            if self.run in str(key):
                scheduler.tasks[key].suspicious = scheduler.allowed_failures

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Remove the plugins of the run."""
        if client != self.client:
            return
        for name in [each for each in scheduler.worker_plugins if each.startswith(plugin_name(self.run))]:
            scheduler.loop.add_callback(scheduler.unregister_worker_plugin, None, name)
        scheduler.remove_plugin(plugin_name(self.run))


def plugin_name(run: str) -> str:
    """Return the name of the plugins of a run, or how it begins."""
    return f"nwbzarr-map-{run}"


class RequestShare(WorkerPlugin):
    """Lowers the limit on requests of a worker to its part, and restores it at the end."""

    def __init__(self, run: str, requests: int) -> None:
        self.run = run
        self.requests = requests

    def setup(self, worker: Any) -> None:  # noqa: ARG002
        """Lower the limit of this process."""
        with _lock:
            if not _settled:
                new = time.time() - psutil.Process().create_time() < _NEW
                _settled.append(time.monotonic() + _SETTLE if new else 0.0)
            if not _shares:
                _before[:] = [limits().requests]
            users = _shares[self.run][1] if self.run in _shares else 0
            _shares[self.run] = self.requests, users + 1
            _set()

    def teardown(self, worker: Any) -> None:  # noqa: ARG002
        """Restore the limit after the last run, and end its processes and forget its function."""
        with _lock:
            requests, users = _shares.pop(self.run, (0, 1))
            if users > 1:
                _shares[self.run] = requests, users - 1
            if _before:
                _set()
        if users == 1:
            end_processes(self.run)
            # With all that the function encloses.
            job_of.cache_clear()


def settle() -> None:
    """Wait until a worker that has just been started is known to be there."""
    time.sleep(max(0.0, (_settled[0] if _settled else 0.0) - time.monotonic()))


def _set() -> None:
    set_limits(requests=min([_before[0], *(requests for requests, _ in _shares.values())]))
