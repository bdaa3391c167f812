"""The folder of a chunk cache: made for its owner alone, or refused."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from intake_nwbzarr.errors import CacheError

MARKER: Final = "nwbzarr-cache.json"
PARTIAL: Final = ".partial"
FORMAT: Final = "intake-nwbzarr chunk cache"
VERSION: Final = 1

# The disk, the user's quota, or the process' own limit.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# On Windows a folder in the user's profile is theirs alone by access lists, and modes say nothing.
_HAS_OWNERS = hasattr(os, "geteuid")

_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Copies of objects that intake-nwbzarr has read; deleting this folder loses nothing but time.\n"
    "# See https://bford.info/cachedir/\n"
)


def open_folder(folder: Path) -> bytes:
    """Make the folder, or make sure that it is a chunk cache of this user and of nobody else.

    Parameters
    ----------
    folder
        Absolute.

    Returns
    -------
    bytes
        The cache's salt: what names of identities are derived with.

    Raises
    ------
    CacheError
        When it is a symbolic link or no folder, belongs to somebody else or can be read or written by others,
        lies where others may exchange it, holds something else, or cannot be made.
    OSError
        When the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise _refuse(folder, f"cannot be made ({os.strerror(error.errno or 0)})") from error
    _check_owner(folder)
    _check_way(folder)
    names = {entry.name for entry in os.scandir(folder)}
    if MARKER not in names:
        foreign = sorted(name for name in names if not name.endswith(PARTIAL))
        # Another process may be making the same cache right now.
        if foreign and MARKER not in os.listdir(folder):  # noqa: PTH208 (names)
            raise _refuse(folder, f"holds other things ({foreign[0]!r})")
        folder.chmod(0o700)
        _write_once(folder, MARKER, json.dumps(_marker()))
        _write_once(folder, "CACHEDIR.TAG", _TAG)
    elif _HAS_OWNERS and folder.stat().st_mode & 0o077:
        raise _refuse(
            folder, "is open to others, who may have changed what it holds; empty it, then chmod 700"
        )
    return _salt(folder)


def _marker() -> dict[str, object]:
    return {"format": FORMAT, "version": VERSION, "salt": secrets.token_hex(16)}


def _salt(folder: Path) -> bytes:
    try:
        marker = json.loads((folder / MARKER).read_text())
        if (marker["format"], marker["version"]) == (FORMAT, VERSION):
            return bytes.fromhex(marker["salt"])
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        pass
    raise _refuse(folder, f"holds a {MARKER} of another version, or a damaged one; delete the folder")


def _check_owner(folder: Path) -> None:
    status = folder.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise _refuse(folder, "is a symbolic link, which somebody else may have put there; name its target")
    if not stat.S_ISDIR(status.st_mode):
        raise _refuse(folder, "is no folder")
    if _HAS_OWNERS and status.st_uid != os.geteuid():
        raise _refuse(folder, "belongs to somebody else")


def _check_way(folder: Path) -> None:
    """Refuse a folder that others could exchange: one on the way to it that everybody may write to."""
    if not _HAS_OWNERS:
        return
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise _refuse(folder, f"lies in {parent}, which everybody may change")


def _write_once(folder: Path, name: str, text: str) -> None:
    """Write a file unless there is one; with all its contents from the moment it is there."""
    aside = folder / f"{name}.{secrets.token_hex(6)}{PARTIAL}"
    try:
        with open(aside, "x", opener=private) as file:
            file.write(text)
        os.link(aside, folder / name)
    except FileExistsError:
        pass
    finally:
        aside.unlink(missing_ok=True)


def private(path: str, flags: int) -> int:
    """Open a file for its owner alone, and no link; where there are no such flags, the folder is private."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _refuse(folder: Path, why: str) -> CacheError:
    return CacheError(
        f"The chunk cache cannot be kept in {folder}: it {why}. Give a folder of your own that is new, or "
        "empty, as storage_options={'chunk_cache': ...}."
    )
