"""A memory that is bounded in bytes, and forgets what was not used for longest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


class Memory[T]:
    """Values by key; from any thread.

    Parameters
    ----------
    size
        Bytes at most, as whoever puts something in counts them.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        """What is remembered under a key."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Remember, and forget what was not used for longest if that is too much."""
        with self._lock:
            self._drop(key)
            if size > self.size:
                return
            self._values[key] = value, size
            self.total += size
            while self.total > self.size:
                self._drop(next(iter(self._values)))

    def forget(self, key: Hashable) -> None:
        """Forget one."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.total = 0

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self.total -= self._values.pop(key)[1]
