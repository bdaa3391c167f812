"""The chunk cache on disk: its files, folders and locks."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

from filelock import FileLock

from intake_nwbzarr.errors import CacheError, CacheWarning, warn_caller
from intake_nwbzarr.location.options import DEFAULT_SIZE, default_folder, expand_home
from intake_nwbzarr.transport.answers import Bytes, Identity, Part
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.cache import CachedRange, CacheEntry, CachingTransport, Trust

_MAGIC = b"nwbzarr chunk 1\n"
_DIGEST = hashlib.sha256().digest_size


# What makes guessing a password from the names of files expensive: 50 ms and 16 MiB a guess.
_SCRYPT: Final = {"n": 2**14, "r": 8, "p": 1, "dklen": 16}


def cached(inner: Transport) -> Transport:
    """Return a transport with the chunk cache on disk that the options of its location name."""
    option = inner.location.option("chunk_cache") or {}
    folder = expand_home(option["folder"]) if "folder" in option else default_folder()
    store = open_store(folder, option.get("size", DEFAULT_SIZE))
    revalidate: bool | None = inner.location.option("revalidate")
    trust: Trust = "state" if revalidate is None else "etag" if revalidate else "always"
    return CachingTransport(inner, DiskCache(inner, store), trust) if store.usable else inner


class DiskCache:
    """Caches the objects with a strong ETag that a transport fetches, in a folder, by identity."""

    counted = True

    def __init__(self, transport: Transport, store: CacheStore) -> None:
        self._transport = transport
        self._store = store
        self._owner: str | None = None
        self._naming = asyncio.Lock()

    def keeps(self, key: str, part: Part | None, state: str | None) -> bool:  # noqa: ARG002
        """Return True: every object is cached."""
        return True

    async def ranges(self, key: str) -> list[CachedRange]:
        """Return the byte ranges of an object that are cached."""
        return await asyncio.to_thread(self._store.ranges, await self._name(key))

    async def read(self, key: str, part: CachedRange | None = None) -> CacheEntry | None:
        """Return a whole object, or one of its `ranges`; None where it is not there any more."""
        return await asyncio.to_thread(self._store.read, await self._name(key), part)

    async def write(self, key: str, entry: CacheEntry) -> None:
        """Cache an entry, in place of those of the object's other versions."""
        if entry.is_strong:
            await asyncio.to_thread(self._store.write, await self._name(key), entry)
        else:
            await self.forget(key)

    async def forget(self, key: str) -> None:
        """Remove all entries of an object."""
        await asyncio.to_thread(self._store.forget, await self._name(key))

    async def _name(self, key: str) -> str:
        if self._owner is None:
            # Of many readers at once, one finds out.
            async with self._naming:
                if self._owner is None:
                    identity = await self._transport.identity()
                    self._owner = await asyncio.to_thread(_owner, identity, self._store.salt)
        named = [self._transport.location.url, self._owner, key]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _owner(identity: Identity, salt: bytes) -> str:
    """Return a name for an identity, from which its secret cannot be told."""
    if identity.secret is None:
        return f"anonymous {identity.endpoint}"
    return f"{hashlib.scrypt(identity.secret.encode(), salt=salt, **_SCRYPT).hex()} {identity.endpoint}"


def range_name(cached: CachedRange) -> str:
    """Return the name of the file that holds a part of an object."""
    return "-".join(map(str, cached))


def parse_range_name(text: str) -> CachedRange | None:
    """Return the byte range that a file's name says; None for any other file."""
    fields = text.split("-")
    if len(fields) != 4 or not all(number.isdecimal() for number in fields[:3]):
        return None
    start, stop, size = (int(number) for number in fields[:3])
    return CachedRange(start, stop, size, fields[3]) if start < stop <= size else None


def serialise(entry: CacheEntry, path: str) -> tuple[bytes, Bytes]:
    """Return a file's head and its data: a magic line, a checksum of what follows, a JSON line, the data."""
    described = {"etag": entry.etag, "size": entry.size, "start": entry.start, "state": entry.state}
    line = json.dumps(described).encode() + b"\n"
    return _MAGIC + _checksum(path, line, entry.data) + line, entry.data


def parse(content: bytes, path: str) -> CacheEntry | None:
    """Return the entry in a file, None when anything of it is damaged or it is not in its place."""
    start = len(_MAGIC) + _DIGEST
    end = content.find(b"\n", start) + 1
    if not content.startswith(_MAGIC) or end == 0:
        return None
    line, data = content[start:end], content[end:]
    if content[len(_MAGIC) : start] != _checksum(path, line, data):
        return None
    described = json.loads(line)
    return CacheEntry(described["etag"], described["size"], described["start"], described["state"], data)


def _checksum(path: str, line: bytes, data: Bytes) -> bytes:
    # The path is covered as well: a file under another's name is as bad as a damaged one.
    digest = hashlib.sha256(path.encode() + b"\0" + line)
    digest.update(data)
    return digest.digest()


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
    """Create a cache's folder, or check that it is private to this user; return its salt for identities."""
    # Raises CacheError, or OSError when the disk is full.
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise _refuse(folder, f"cannot be created ({os.strerror(error.errno or 0)})") from error
    _check_owner(folder)
    _check_way(folder)
    names = {entry.name for entry in os.scandir(folder)}
    if MARKER not in names:
        foreign = sorted(name for name in names if not name.endswith(PARTIAL))
        # Another process may be making the same cache right now.
        if foreign and MARKER not in os.listdir(folder):  # noqa: PTH208 (names)
            raise _refuse(folder, f"has other contents ({foreign[0]!r})")
        folder.chmod(0o700)
        _write_once(folder, MARKER, json.dumps(_marker()))
        _write_once(folder, "CACHEDIR.TAG", _TAG)
    elif _HAS_OWNERS and folder.stat().st_mode & 0o077:
        raise _refuse(
            folder, "can be accessed by other users, who may have changed it; empty it, then chmod 700"
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
    raise _refuse(folder, f"has a {MARKER} that is damaged or of another version; delete the folder")


def _check_owner(folder: Path) -> None:
    status = folder.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise _refuse(folder, "is a symbolic link, which another user may have created; pass its target")
    if not stat.S_ISDIR(status.st_mode):
        raise _refuse(folder, "is not a folder")
    if _HAS_OWNERS and status.st_uid != os.geteuid():
        raise _refuse(folder, "belongs to another user")


def _check_way(folder: Path) -> None:
    """Refuse a folder that others could replace, below one that everybody can write to."""
    if not _HAS_OWNERS:
        return
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise _refuse(folder, f"is in {parent}, which everybody can write to")


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
    """Open a file for its owner only, not through a link; otherwise, the folder is private."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _refuse(folder: Path, why: str) -> CacheError:
    return CacheError(
        f"The folder {folder} cannot be used as a chunk cache: it {why}.",
        location=folder,
        found=why,
        next_step="Pass a new or empty folder of your own, storage_options={'chunk_cache': ...}.",
    )


AFTER_EVICTION: Final = 0.8
"""How full a cache is left, so that the oldest copies are looked for now and then only."""

LARGEST_SHARE: Final = 0.25
"""What is larger than this share of a cache is not kept: it would displace too much."""

TOUCHED: Final = 60.0
"""Seconds in which a copy that is read often is noted as read once."""

PAUSE: Final = 60.0
"""Seconds without writing, after a disk was found full."""

ABANDONED: Final = 3600.0
"""Seconds after which a file that nobody has finished writing is removed."""

_BLOCK = 4096


class CacheStore:
    """A folder of cached bytes by object name, used from threads of any number of processes.

    Files are written under another name and renamed, and their checksum is verified when they are read:
    damaged or unfinished files count as absent. The size of all files, in blocks of 4 KiB, is kept in one
    file that processes lock in turn; above `size`, the least recently read files are evicted.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self.salt = b""
        self._paused = 0.0
        self._has_warned = False
        try:
            self.salt = open_folder(folder)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._pause(error)

    @property
    def usable(self) -> bool:
        """Return whether the folder exists."""
        return bool(self.salt)

    def read(self, name: str, part: CachedRange | None = None) -> CacheEntry | None:
        """Return a whole object or a part of it; None when there is none that is intact."""
        path = self._path(name, part)
        try:
            file = open(path, "rb", buffering=0, opener=_without_links)  # noqa: SIM115 (an opener)
        except OSError:
            return None
        with file:
            try:
                found = parse(file.readall(), path.relative_to(self.folder).as_posix())
                status = os.fstat(file.fileno())
                if found is not None and time.time() - status.st_mtime > TOUCHED:
                    os.utime(file.fileno() if os.utime in os.supports_fd else path)
            except OSError:
                return None
        if found is None:
            self._remove([path])
        return found

    def ranges(self, name: str) -> list[CachedRange]:
        """Return the byte ranges of an object that are cached, as the files' names say."""
        try:
            entries = [entry.name for entry in os.scandir(self._folder_of_parts(name))]
        except OSError:
            return []
        found = [parse_range_name(entry) for entry in entries]
        return sorted(cached for cached in found if cached is not None)

    def write(self, name: str, entry: CacheEntry) -> None:
        """Cache bytes, and nothing that they make useless: the object's own parts, or another version.

        Where the disk is full, warn once and cache nothing for a while.
        """
        part = None if entry.is_whole else entry.range
        others = [known for known in self.ranges(name) if part is None or known[2:] != part[2:]]
        self._remove([self._path(name, known) for known in others])
        if part is not None:
            self._remove([self._path(name, None)])
        if len(entry.data) > LARGEST_SHARE * self.size or time.monotonic() < self._paused:
            return
        try:
            path = self._path(name, part)
            content = serialise(entry, path.relative_to(self.folder).as_posix())
            self._reserve(_occupied(sum(map(len, content))))
            self._replace(path, content)
        except OSError as error:
            self._pause(error)

    def forget(self, name: str) -> None:
        """Remove all that is cached of an object."""
        self._remove([self._path(name, part) for part in (None, *self.ranges(name))])

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            # Another process may have removed it, and what cannot be removed is asked about when it is read.
            with suppress(OSError):
                path.unlink()

    def _path(self, name: str, part: CachedRange | None) -> Path:
        if part is None:
            return self.folder / name[:2] / name
        return self._folder_of_parts(name) / range_name(part)

    def _folder_of_parts(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.parts"

    def _replace(self, path: Path, content: tuple[bytes, Bytes]) -> None:
        # Written into the cache's own folder: that of the object may be removed meanwhile, when it is empty.
        aside = self.folder / f"{secrets.token_hex(8)}{PARTIAL}"
        try:
            with open(aside, "xb", opener=private) as file:
                file.writelines(content)
            for is_last in (False, False, True):
                try:
                    aside.replace(path)
                    break
                except FileNotFoundError:
                    # Not there yet; or, again, another process has just found it empty and removed it.
                    if is_last:
                        raise
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        finally:
            aside.unlink(missing_ok=True)

    def _pause(self, error: OSError) -> None:
        self._paused = time.monotonic() + PAUSE
        if not self._has_warned:
            self._has_warned = True
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            warn_caller(
                f"The chunk cache in {self.folder} cannot be written ({why}): what is read is not cached. "
                "Free some space there, or pass another folder or a smaller size.",
                CacheWarning,
                code="cache-not-written",
            )

    @contextmanager
    def _account(self) -> Iterator[BinaryIO]:
        """Lock the file that has the total size, as decimal digits."""
        with (
            _in_this_process,
            FileLock(self.folder / "total.lock", mode=0o600, poll_interval=0.005),
            open(self.folder / "total", "a+b", buffering=0, opener=private) as file,
        ):
            yield file

    def _reserve(self, wanted: int) -> None:
        """Make sure that so many bytes more are allowed, before they are written."""
        with self._account() as file:
            file.seek(0)
            text = file.read(32).strip()
            known = int(text) if text.isdigit() else None
            if known is None or known + wanted > self.size:
                known = self._evict(wanted)
            file.truncate(0)
            file.write(b"%-31d\n" % (known + wanted))

    def _evict(self, wanted: int) -> int:
        """Recount the files, evict the least recently read ones, and return the remaining bytes."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        if total + wanted <= self.size:
            # The account was wrong: copies were replaced or removed, or a writer was killed.
            return total
        goal = AFTER_EVICTION * self.size - wanted
        for _, size, path in files:
            if total <= goal:
                break
            # A reader that has it open reads on.
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 (a text, of which there may be a million)
            total -= size
        return total

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """Return when each file was read last, its bytes on disk, and its path; remove abandoned files."""
        folders = [str(self.folder)]
        while folders:
            folder = folders.pop()
            try:
                entries = list(os.scandir(folder))
            except FileNotFoundError:
                continue
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    folders.append(entry.path)
                elif not entry.name.endswith(PARTIAL):
                    if folder != str(self.folder):
                        yield status.st_mtime, _occupied(status.st_size), entry.path
                elif time.time() - status.st_mtime > ABANDONED:
                    Path(entry.path).unlink(missing_ok=True)
            if not entries and folder.endswith(".parts"):
                with suppress(OSError):
                    Path(folder).rmdir()


# Between processes, waiting for a lock is asking for it again and again.
_in_this_process = threading.Lock()


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


@cache
def open_store(folder: Path, size: int) -> CacheStore:
    """Return the store in a folder; one in a process for each folder and size."""
    return CacheStore(folder, size)


def _occupied(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
