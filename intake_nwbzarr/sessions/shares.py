"""The limit on requests, of which each worker has a part while sessions are mapped."""

from __future__ import annotations

import threading
from typing import Any

from distributed import WorkerPlugin

from intake_nwbzarr.limits import limits, set_limits
from intake_nwbzarr.sessions.isolation import close_idle

_lock = threading.Lock()
# By run of map(): several may use one cluster, and several workers may be threads of one process.
_shares: dict[str, tuple[int, int]] = {}
_before: list[int] = []


class RequestShare(WorkerPlugin):
    """Lowers the limit on requests of a worker to its part, and restores it at the end."""

    def __init__(self, run: str, requests: int) -> None:
        self.run = run
        self.requests = requests

    def setup(self, worker: Any) -> None:  # noqa: ARG002
        """Lower the limit of this process."""
        with _lock:
            if not _shares:
                _before[:] = [limits().requests]
            users = _shares[self.run][1] if self.run in _shares else 0
            _shares[self.run] = self.requests, users + 1
            _set()

    def teardown(self, worker: Any) -> None:  # noqa: ARG002
        """Restore the limit after the last run, and end the processes of isolated sessions."""
        with _lock:
            requests, users = _shares.pop(self.run, (0, 1))
            if users > 1:
                _shares[self.run] = requests, users - 1
            if _before:
                _set()
        close_idle()


def _set() -> None:
    set_limits(requests=min([_before[0], *(requests for requests, _ in _shares.values())]))
