"""Download one file, such as an HDF5 session, in pieces; resumed or updated when run again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final

import msgspec

from intake_nwbzarr.copies.local_files import acquire, release
from intake_nwbzarr.errors import DownloadError, LocationNotFoundError, ObjectChangedError
from intake_nwbzarr.transport.answers import Bytes, Fetched, Part
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.request_log import readable_size

PIECE: Final = 16 * 2**20
"""Bytes that one request fetches."""

AT_ONCE: Final = 8
"""Pieces that are fetched concurrently, and so are in memory."""

FORMAT: Final = "intake-nwbzarr download of a file"
VERSION: Final = 1


class Head(msgspec.Struct, frozen=True):
    """The first line of a record: the file that was downloaded, and its state."""

    format: str
    version: int
    location: str
    etag: str | None
    size: int

    @property
    def is_strong(self) -> bool:
        """Return whether another file would have another ETag."""
        return self.etag is not None and not self.etag.startswith("W/")


class Piece(msgspec.Struct, frozen=True):
    """A further line of a record: a piece that was written, by its number, and the SHA-256 of its bytes."""

    number: int
    sha256: str


@dataclass(frozen=True)
class FileDownload:
    """What `download_file` did."""

    size: int
    fetched: bool


def download_file(transport: Transport, target: Path, received: Callable[[int, int], None]) -> FileDownload:
    """Download the file at a transport's location to a local path, verified before it replaces an older one.

    The file is written to ``NAME.partial``, and the checksums of its pieces to a record beside it, by which
    the next call resumes. `received` is called with the bytes that are there, and all of them.
    """
    first = run(transport.fetch("", Part(0, 1, lenient=True), 1))
    if first is None or first.size is None:
        raise LocationNotFoundError(
            f"Nothing is stored at {transport.location}.", location=transport.location
        )
    head = Head(FORMAT, VERSION, transport.location.url, first.etag, first.size)
    with _locked(target, transport):
        return _Downloading(transport, target, head, received).run()


@dataclass
class _Downloading:
    transport: Transport
    target: Path
    head: Head
    received: Callable[[int, int], None]

    @property
    def record(self) -> Path:
        return self.target.with_name(f".{self.target.name}.nwbzarr-download.jsonl")

    @property
    def partial(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial")

    @property
    def journal(self) -> Path:
        return self.record.with_name(f"{self.record.name}.partial")

    def run(self) -> FileDownload:
        """Fetch the pieces that are missing, verify all, and replace the file."""
        before = _read(self.record)
        self._check_target(before)
        pieces = self._usable(before)
        if pieces is not None and self.target.exists() and not self._wrong(self.target, pieces):
            return FileDownload(self.head.size, fetched=False)
        pieces = self._resumed()
        for attempt in (1, 2):
            self._check_room(pieces)
            run(self._fetch([number for number in self._numbers if number not in pieces], pieces))
            wrong = self._wrong(self.partial, pieces)
            if not wrong:
                break
            if attempt == 2:
                raise DownloadError(
                    f"{self.partial} differs from what was written, after 2 attempts.",
                    location=self.transport.location,
                    found=wrong,
                    next_step="The disk may be failing; pass a path on another one.",
                )
            for number in wrong:
                del pieces[number]
        self.journal.replace(self.record)
        self.partial.replace(self.target)
        return FileDownload(self.head.size, fetched=True)

    @property
    def _numbers(self) -> range:
        return range(-(-self.head.size // PIECE))

    def _check_target(self, before: tuple[Head, Mapping[int, str]] | None) -> None:
        for path in (self.target, self.partial, self.record, self.journal):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise DownloadError(
                    f"{path} is not a file, or is a link to one.",
                    location=self.transport.location,
                    found=str(path),
                    next_step="Pass the path of the file to write, such as sub-1.nwb.",
                )
        if not self.target.exists():
            return
        if before is None:
            raise DownloadError(
                f"{self.target} already exists and is not an earlier download of {self.transport.location}.",
                location=self.transport.location,
                next_step="It was not changed. Pass the path of a file that does not exist yet.",
            )
        if before[0].location != self.head.location:
            raise DownloadError(
                f"{self.target} is a download of {before[0].location}, not of {self.transport.location}.",
                location=self.transport.location,
                found=before[0].location,
                next_step="Pass another path.",
            )

    def _usable(self, record: tuple[Head, Mapping[int, str]] | None) -> dict[int, str] | None:
        """Return the pieces of a record that is of the file as it is stored now."""
        if record is None or record[0] != self.head or not self.head.is_strong:
            return None
        return dict(record[1])

    def _resumed(self) -> dict[int, str]:
        """Return the pieces of an interrupted download that are on disk; begin a new one without any."""
        pieces = self._usable(_read(self.journal)) if self.partial.exists() else None
        if pieces is not None:
            for number in self._wrong(self.partial, pieces):
                pieces.pop(number, None)
        else:
            pieces = {}
            self.partial.unlink(missing_ok=True)
        # Also without the last line of a process that was killed.
        lines = [self.head, *(Piece(number, digest) for number, digest in pieces.items())]
        self.journal.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        return pieces

    def _wrong(self, path: Path, pieces: Mapping[int, str]) -> list[int]:
        """Return the numbers of all pieces that are not on disk as they were received."""
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > self.head.size:
                return list(self._numbers)
            return [number for number in self._numbers if _digest(file, number) != pieces.get(number)]

    def _check_room(self, pieces: Collection[int]) -> None:
        needed, room = self.head.size - self._bytes(pieces), shutil.disk_usage(self.target.parent).free
        if needed > room:
            raise DownloadError(
                f"The download to {self.target} needs {readable_size(needed)} more, but only "
                f"{readable_size(room)} are free on the disk.",
                location=self.transport.location,
                found=room,
                expected=needed,
                next_step="Free some space, or pass a path on another disk. What was fetched is kept.",
            )

    async def _fetch(self, missing: list[int], pieces: dict[int, str]) -> None:
        limited = asyncio.Semaphore(AT_ONCE)
        self.partial.touch()
        there = self._bytes(pieces)
        with self.journal.open("ab", buffering=0) as journal:

            async def fetch(number: int) -> None:
                nonlocal there
                start, stop = self._span(number)
                async with limited:
                    data = (await self._piece(start, stop)).data
                    await asyncio.to_thread(_write_at, self.partial, start, data)
                pieces[number] = hashlib.sha256(data).hexdigest()
                journal.write(msgspec.json.encode(Piece(number, pieces[number])) + b"\n")
                there += len(data)
                self.received(there, self.head.size)

            self.received(there, self.head.size)
            await gather([partial(fetch, number) for number in missing])

    async def _piece(self, start: int, stop: int) -> Fetched:
        piece = await self.transport.get("", start=start, stop=stop, etag=self.head.etag)
        if piece is None:
            raise ObjectChangedError(
                f"{self.transport.location} was removed while it was being read.",
                location=self.transport.location,
                next_step="Run the download again.",
            )
        return piece

    def _bytes(self, pieces: Collection[int]) -> int:
        return sum(stop - start for start, stop in map(self._span, pieces))

    def _span(self, number: int) -> tuple[int, int]:
        return number * PIECE, min((number + 1) * PIECE, self.head.size)


def _read(path: Path) -> tuple[Head, dict[int, str]] | None:
    """Return a record, None if there is none or it is not one."""
    try:
        # After the last line feed, there may be an incomplete line of a process that was killed.
        first, *others = path.read_bytes().split(b"\n")[:-1]
        head = msgspec.json.decode(first, type=Head)
        pieces = [msgspec.json.decode(line, type=Piece) for line in others]
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    if (head.format, head.version) != (FORMAT, VERSION):
        return None
    return head, {piece.number: piece.sha256 for piece in pieces}


def _digest(file: IO[bytes], number: int) -> str:
    file.seek(number * PIECE)
    digest, left = hashlib.sha256(), PIECE
    while left and (block := file.read(min(left, 2**20))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def _write_at(path: Path, start: int, data: Bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        file.seek(start)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


@contextmanager
def _locked(target: Path, transport: Transport) -> Iterator[None]:
    """Hold the lock of a download, so that another process does not write the same file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = acquire(target.with_name(f".{target.name}.lock"))
    if lock is None:
        raise DownloadError(
            f"Another process is downloading to {target}.",
            location=transport.location,
            found=str(target),
            next_step="Wait for it, or pass another path.",
            transient=True,
        )
    try:
        yield
    finally:
        release(lock)
