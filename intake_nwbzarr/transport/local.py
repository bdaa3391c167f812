"""Local folders; nothing outside of them is read."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from intake_nwbzarr.errors import (
    AccessError,
    ObjectChangedError,
    ResponseError,
    TransportError,
    UnsafePathError,
)
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import (
    Bytes,
    Failure,
    Fetched,
    Folder,
    Listed,
    Part,
    Unchanged,
    tells_versions_apart,
)
from intake_nwbzarr.transport.base import Transport, too_large
from intake_nwbzarr.transport.loop import on_loop
from intake_nwbzarr.transport.request_log import record
from intake_nwbzarr.untrusted_input import LARGEST_OBJECT

# Taken for absent, a chunk that git-annex has not fetched would be read as its array's fill value.
_DANGLING = Failure(
    TransportError,
    "it is a symbolic link to a file that does not exist",
    advice="Fetch the content first, for example by `datalad get` or `git annex get`.",
)

_NO_FILE = Failure(
    TransportError,
    "it is a folder, a pipe, a socket or a device, not a file",
    advice="Compare the session with the original.",
)

# Of network filesystems, and of a process with too many files open.
_PASSING = frozenset({errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT})


class LocalTransport(Transport):
    """The files of a folder; symbolic links are followed if they lead to the same folder."""

    budgeted = False
    writable = True
    presence_lasts = 0.0

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        path = location.path
        if path is None:
            raise TypeError(f"{location} is not a local folder")
        self._root = os.path.realpath(path)
        self._within = os.path.join(self._root, "")  # noqa: PTH118 (with a separator at its end)

    async def get_all(self, keys: Sequence[str]) -> list[Fetched | None]:
        """Get whole files one after the other in one thread: to hand each to another takes longer."""
        found = await on_loop(asyncio.to_thread(self._read_all, [self._safe(key) for key in keys]))
        # What is not there, or fails, is asked for again alone.
        return [
            each if isinstance(each, Fetched) else await self.get(key)
            for key, each in zip(keys, found, strict=True)
        ]

    def _read_all(self, keys: Sequence[str]) -> list[Fetched | Failure | None]:
        folders: dict[str, str] = {}
        found = [self._read(key, None, LARGEST_OBJECT, folders) for key in keys]
        record(self.counted, "get", used=sum(len(each.data) for each in found if isinstance(each, Fetched)))
        return found

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        return await asyncio.to_thread(self._read, key, part, limit)

    def _read(
        self, key: str, part: Part | None, limit: int, folders: dict[str, str] | None = None
    ) -> Fetched | Failure | None:
        path = self._inside(key, folders)
        record(self.counted, "get", requests=1)
        try:
            with open(path, "rb", buffering=0, opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return _NO_FILE
                size, tag = status.st_size, _etag(status)
                start, stop = (0, size) if part is None else part.bounds(size) or (0, -1)
                if stop < 0:
                    return Failure(
                        ResponseError, f"the file ends at {size} bytes, before the requested range"
                    )
                if stop - start > limit:
                    return too_large(stop - start, limit)
                data = _read_exactly(file, start, stop)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return _DANGLING if self._dangles(key) else None
        except OSError as error:
            return _failure(error)
        record(self.counted, "get", received=len(data))
        if len(data) != stop - start:
            return Failure(
                ResponseError, f"the file was cut short to {start + len(data)} bytes while it was read"
            )
        return Fetched(data, tag, size)

    def _dangles(self, key: str) -> bool:
        """Return whether the file, or a folder in its path, is a broken link."""
        trail = [Path(self._root, part) for part in (key, *map(str, Path(key).parents))]
        trail += [] if self.location.path is None else [self.location.path]
        return any(path.is_symlink() and not path.exists() for path in trail)

    async def _find(self, key: str, etag: str | None) -> Fetched | Unchanged | Failure | None:
        return await asyncio.to_thread(self._stat, key, etag)

    def _stat(self, key: str, etag: str | None) -> Fetched | Unchanged | Failure | None:
        # In no count, as nothing is read.
        try:
            found = _etag(Path(self._inside(key)).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return _failure(error)
        # Another machine may have a copy of its own, with the same bytes and other times.
        same = etag is None or _size_of(found) == _size_of(etag)
        return Unchanged() if same else Fetched(b"", found)

    async def _list(self, prefix: str) -> list[Listed]:
        async def attempt() -> list[Listed] | Failure:
            return await asyncio.to_thread(self._walk, prefix)

        return await self._persist("list", prefix, attempt)

    async def _list_folder(self, folder: str) -> Folder:
        async def attempt() -> Folder | Failure:
            return await asyncio.to_thread(self._scan, folder)

        return await self._persist("list", folder, attempt)

    def _scan(self, folder: str) -> Folder | Failure:
        names: list[str] = []
        folders: list[str] = []
        etags: dict[str, str] = {}
        record(self.counted, "list", requests=1)
        try:
            with os.scandir(self._inside(folder)) as entries:
                for entry in entries:
                    (folders if entry.is_dir() else names).append(entry.name)
                    if tells_versions_apart(entry.name) and entry.is_file():
                        etags[entry.name] = _etag(entry.stat())
        except (FileNotFoundError, NotADirectoryError):
            return _DANGLING if self._dangles(folder) else Folder((), ())
        except OSError as error:
            return _failure(error)
        return Folder(tuple(sorted(names)), tuple(sorted(folders)), etags)

    def _walk(self, prefix: str) -> list[Listed] | Failure:
        found: list[Listed] = []
        folders: list[tuple[str, tuple[str, ...]]] = [(prefix, (self._inside(prefix),))]
        try:
            while folders:
                folder, trail = folders.pop()
                record(self.counted, "list", requests=1)
                try:
                    entries = list(os.scandir(trail[-1]))
                except (FileNotFoundError, NotADirectoryError):
                    continue
                for entry in entries:
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    target = self._inside(key) if entry.is_symlink() else entry.path
                    if not entry.is_dir():
                        try:
                            status = entry.stat()
                        except FileNotFoundError:
                            status = entry.stat(follow_symlinks=False)
                        found.append(Listed(key, status.st_size, _etag(status)))
                    elif target not in trail:
                        # A link to a folder that it lies in would go on for ever.
                        folders.append((key, (*trail, target)))
        except OSError as error:
            return _failure(error)
        return found

    async def _put(self, key: str, data: bytes, if_match: str | None, if_none_match: bool) -> str | None:
        return await self._put_all(key, [data], if_match, if_none_match)

    async def _put_pieces(self, key: str, pieces: Sequence[Bytes]) -> None:
        await self._put_all(key, pieces, None, False)

    async def _put_all(
        self, key: str, pieces: Sequence[Bytes], if_match: str | None, if_none_match: bool
    ) -> str:
        async def attempt() -> str | Failure:
            return await asyncio.to_thread(self._write, key, pieces, if_match, if_none_match)

        return await self._persist("put", key, attempt)

    def _write(
        self, key: str, pieces: Sequence[Bytes], if_match: str | None, if_none_match: bool
    ) -> str | Failure:
        path = Path(self._inside(key))
        aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
        record(self.counted, "put", requests=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            found = _etag(path.stat()) if path.exists() else None
            if if_match is not None and found != if_match:
                return Failure(ObjectChangedError, "the file was changed, or removed, since it was read")
            try:
                with aside.open("xb") as file:
                    if found is not None:
                        aside.chmod(path.stat().st_mode & 0o7777)
                    file.writelines(pieces)
                    file.flush()
                    os.fsync(file.fileno())
                    tag = _etag(os.fstat(file.fileno()))
                if if_none_match:
                    # A hard link fails where the name is taken, in one step; a rename would replace it.
                    os.link(aside, path)
                else:
                    aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)
        except FileExistsError:
            return Failure(ObjectChangedError, "a file of this name was created meanwhile")
        except OSError as error:
            return _failure(error)
        return tag

    async def _delete(self, key: str) -> None:
        async def attempt() -> Failure | None:
            return await asyncio.to_thread(self._remove, key)

        await self._persist("delete", key, attempt)

    def _remove(self, key: str) -> Failure | None:
        record(self.counted, "delete", requests=1)
        try:
            Path(self._inside(key)).unlink(missing_ok=True)
        except OSError as error:
            return _failure(error)
        return None

    def _inside(self, key: str, folders: dict[str, str] | None = None) -> str:
        """Return the path of a file; `folders` has those of folders that were found a moment ago."""
        folder, _, name = key.rpartition("/")
        folders = {} if folders is None else folders
        if folder not in folders:
            folders[folder] = os.path.realpath(self._within + folder)
        path = f"{folders[folder]}{os.sep}{name}" if key else self._root
        if os.path.islink(path):  # noqa: PTH114 (of many files)
            path = os.path.realpath(path)
        if path != self._root and not path.startswith(self._within):
            raise UnsafePathError(
                f"{key!r} in {self.location} is a symbolic link that leads out of the folder.",
                location=self.location,
                path=key,
                next_step="Replace it with a copy of its target.",
            )
        return path


def _open_at_once(path: str, flags: int) -> int:
    # Opening a pipe would block until another process writes to it; Windows has neither pipes nor this flag.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_exactly(file: FileIO, start: int, stop: int) -> bytes:
    if start:
        file.seek(start)
    data = file.read(stop - start) or b""
    # One call gives two gigabytes at most.
    while len(data) < stop - start and (more := file.read(stop - start - len(data))):
        data += more
    return data


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _size_of(etag: str) -> list[str]:
    return etag.split("-")[1:2]


def _failure(error: OSError) -> Failure:
    cause = (
        f"the operating system reports {os.strerror(error.errno) if error.errno else type(error).__name__!r}"
    )
    if isinstance(error, PermissionError):
        return Failure(AccessError, cause, advice="Check its permissions.")
    return Failure(TransportError, cause, transient=error.errno in _PASSING)
