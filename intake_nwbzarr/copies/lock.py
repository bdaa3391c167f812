"""A lock file that one process or thread holds at a time, and removes when it is done."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


def acquire(path: Path) -> FileLock | None:
    """Return the lock of a file, None if another process or thread holds it."""
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def release(lock: FileLock) -> None:
    """Release a lock, and remove its file."""
    # Removed before it is released, so that no process locks a removed file.
    path = Path(lock.lock_file)
    with suppress(OSError):
        path.unlink()
    lock.release()
    if sys.platform == "win32":
        # Windows cannot remove open files.
        with suppress(OSError):
            path.unlink()
