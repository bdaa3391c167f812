"""What was fetched, with its size, ETag and checksum: a file of JSON lines in the download itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec
from filelock import FileLock, Timeout

from intake_nwbzarr.errors import DownloadError

NAME: Final = ".nwbzarr-download.jsonl"
FORMAT: Final = "intake-nwbzarr download"
VERSION: Final = 1


class Entry(msgspec.Struct, frozen=True):
    """An object that was written whole.

    Parameters
    ----------
    size
        In bytes.
    etag
        As the server gave it, None where it gave none.
    sha256
        Of its bytes, in hexadecimal.
    """

    key: str
    size: int
    etag: str | None
    sha256: str


class _Head(msgspec.Struct, frozen=True):
    format: str
    version: int
    location: str


@dataclass(frozen=True)
class Record:
    """What a folder says of itself: where it was downloaded from, and what it holds."""

    location: str
    entries: Mapping[str, Entry]


def read_record(folder: Path) -> Record | None:
    """The record in a folder; None when there is none.

    Raises
    ------
    DownloadError
        When there is one that cannot be read.
    """
    try:
        lines = (folder / NAME).read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(lines) == 1:
        # Not even its first line was written when the process died.
        return None
    try:
        head = msgspec.json.decode(lines[0], type=_Head)
        if (head.format, head.version) != (FORMAT, VERSION):
            raise ValueError("another format, or a later version of it")
        entries: dict[str, Entry] = {}
        # What follows the last line feed was being written when the process died.
        for line in lines[1:-1]:
            entry = msgspec.json.decode(line, type=Entry)
            entries[entry.key] = entry
    except (msgspec.MsgspecError, ValueError) as error:
        raise DownloadError(
            f"{folder / NAME}, which says what was downloaded there, is damaged ({error}). Delete {folder}, "
            "or give another folder."
        ) from error
    return Record(head.location, entries)


class Journal:
    """A record that is being written, by one process at a time.

    Parameters
    ----------
    folder
        Of the download.
    location
        Without secrets.

    Raises
    ------
    DownloadError
        When another process is downloading to that folder.
    """

    def __init__(self, folder: Path, location: str) -> None:
        path = folder / NAME
        self._path, self._location = path, location
        # Beside the folder, which is renamed in the end.
        self._lock = FileLock(folder.with_name(f"{folder.name}.lock"), blocking=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise DownloadError(
                f"Another process is downloading to {folder} just now; wait for it, or give another folder."
            ) from None
        try:
            self._file = self._opened(path)
            if self._file.tell() == 0:
                self._write(_head(location))
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._release()

    def add(self, entry: Entry) -> None:
        """Note an object that is whole."""
        self._write(msgspec.to_builtins(entry))

    def replace(self, entries: Iterable[Entry]) -> None:
        """Write anew, with nothing but these; the last thing that is done with it."""
        self._file.close()
        aside = self._path.with_name(f"{NAME}.partial")
        with aside.open("wb") as file:
            for line in (_head(self._location), *map(msgspec.to_builtins, entries)):
                file.write(_line(line))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)

    def _opened(self, path: Path) -> BinaryIO:
        """The file, at the end of its last whole line."""
        if path.is_symlink():
            raise DownloadError(
                f"{path} is a link, through which a download would write elsewhere; delete it."
            )
        path.touch()
        file = path.open("r+b")
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        return file

    def _release(self) -> None:
        # Removed before it is released, so that nobody locks a file that is not there any more.
        lock = Path(self._lock.lock_file)
        with suppress(OSError):
            lock.unlink()
        self._lock.release()
        if sys.platform == "win32":
            # What is open cannot be removed there.
            with suppress(OSError):
                lock.unlink()

    def _write(self, line: object) -> None:
        self._file.write(_line(line))
        self._file.flush()


def _head(location: str) -> dict[str, object]:
    return {"format": FORMAT, "version": VERSION, "location": location}


def _line(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"
