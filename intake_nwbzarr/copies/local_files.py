"""Local files that are written completely or not at all, and lock files for one writer at a time."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from intake_nwbzarr.errors import AccessError, NWBZarrError, TransportError


def write_local(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it, so that it is never there in part."""
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files beside their places and rename them together, so that none is there in part."""
    asides = {path: path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial") for path in files}
    path = next(iter(files))
    try:
        try:
            for path, data in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with asides[path].open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            for path, aside in asides.items():
                aside.replace(path)
        finally:
            for aside in asides.values():
                with suppress(OSError):
                    aside.unlink()
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: object, error: OSError) -> NWBZarrError:
    """Return the error for a file that cannot be written."""
    kind = AccessError if isinstance(error, PermissionError) else TransportError
    found = error.strerror or str(error)
    return kind(f"{path} cannot be written: {found}.", location=path, found=found)


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
