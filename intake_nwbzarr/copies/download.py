"""Download a whole session to a local folder, resumed or updated when run again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from intake_nwbzarr.arguments import invalid_argument, local_path, takes_storage_options
from intake_nwbzarr.checks.chunks import ChunkCounts, count_chunks
from intake_nwbzarr.copies.download_file import download_file
from intake_nwbzarr.copies.inventory import (
    ROOTS,
    FetchedObject,
    Inventory,
    Journal,
    Wanted,
    Workspace,
    local_errors,
    read_record,
    take_inventory,
)
from intake_nwbzarr.errors import (
    DownloadError,
    DownloadWarning,
    NWBZarrError,
    ObjectChangedError,
    OptionError,
    ResponseError,
    warn_caller,
)
from intake_nwbzarr.hierarchy.documents import Documents
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, open_hierarchy
from intake_nwbzarr.hierarchy.recognize import load_recognized
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.transport.answers import Bytes, Fetched, Unchanged
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import readable_size


@dataclass(frozen=True)
class Progress:
    """The progress of a download, as passed to its function `progress`.

    Parameters
    ----------
    doing
        ``"fetching"`` or ``"verifying"``.
    objects, of_objects
        Objects that are done, and their total; objects that do not exist count as done.
    bytes, of_bytes
        Bytes that are done, and their total, None if unknown.
    """

    doing: str
    objects: int
    of_objects: int
    bytes: int
    of_bytes: int | None


@dataclass(frozen=True)
class Download:
    """The result of a download.

    Parameters
    ----------
    location
        The location of the session, without secrets.
    folder
        The folder of the downloaded session, or the downloaded HDF5 file.
    objects, bytes
        The number of objects in the folder, and their total size.
    fetched
        The number of objects that were fetched this time; the others had been downloaded before.
    removed
        The number of objects that were removed, because the session no longer has them.
    listed
        Whether the objects were found by listing the session, or else from its consolidated metadata.
    chunks
        The number of chunks that the session's arrays may have, and of those in the folder; None where its
        metadata cannot be read.
    """

    location: str
    folder: Path
    objects: int
    bytes: int
    fetched: int
    removed: int
    listed: bool
    chunks: ChunkCounts | None = None

    def __str__(self) -> str:
        kept = self.objects - self.fetched
        news = [f"{self.fetched:,} fetched"] + ([f"{kept:,} kept"] if kept else [])
        news += [f"{self.removed:,} removed"] if self.removed else []
        return (
            f"{self.location}: {self.objects:,} objects, {readable_size(self.bytes)}, verified, in "
            f"{self.folder} ({', '.join(news)})." + (f"\nChunks: {self.chunks}" if self.chunks else "")
        )


class Reporter:
    """Counts objects and bytes and calls `progress` with them; used on the package's event loop only."""

    def __init__(
        self, doing: str, objects: int, size: int | None, tell: Callable[[Progress], None] | None
    ) -> None:
        self._doing, self._of_objects, self._of_bytes, self._tell = doing, objects, size, tell
        self._objects = self._bytes = 0

    def received(self, size: int) -> None:
        """Count bytes that were written, or taken back where the number is negative."""
        self._bytes += size

    def finished(self) -> None:
        """Count an object that is done."""
        self._objects += 1
        self.show()

    def show(self) -> None:
        """Call `progress` with the counts."""
        if self._tell is not None:
            self._tell(Progress(self._doing, self._objects, self._of_objects, self._bytes, self._of_bytes))


PIECE: Final = 16 * 2**20
"""Bytes of an object that one request fetches."""

RESTARTS: Final = 3
"""How often the fetch of an object that changes meanwhile is restarted."""

_BLOCK = 2**20


async def fetch_object(
    transport: Transport, wanted: Wanted, folder: Path, received: Callable[[int], None]
) -> FetchedObject | None:
    """Fetch an object into a folder, again if it changes meanwhile; None if it does not exist."""
    # `received` is called with the number of bytes written, and with its negative when a fetch is restarted.
    for restart in range(RESTARTS + 1):
        path = folder / wanted.key
        aside = path.with_name(f".{secrets.token_hex(6)}.partial")
        writing = _Writing(aside)
        try:
            entry = await _fetch(transport, wanted, writing, received)
            if entry is not None:
                await asyncio.to_thread(aside.replace, path)
            return entry
        except ObjectChangedError:
            received(-writing.size)
            if restart == RESTARTS:
                raise
        finally:
            aside.unlink(missing_ok=True)
    return None


async def _fetch(
    transport: Transport, wanted: Wanted, writing: _Writing, received: Callable[[int], None]
) -> FetchedObject | None:
    first = await _first_piece(transport, wanted)
    if first is None:
        return None
    await asyncio.to_thread(writing.write, first.data)
    received(len(first.data))
    size = len(first.data) if first.size is None else first.size
    while writing.size < size:
        stop = min(writing.size + PIECE, size)
        piece = await transport.get(wanted.key, start=writing.size, stop=stop, etag=first.etag)
        if piece is None:
            raise ObjectChangedError(
                f"{transport.location}/{wanted.key} was removed while it was being read.",
                location=transport.location,
                path=wanted.key,
                next_step="Run the download again.",
            )
        await asyncio.to_thread(writing.write, piece.data)
        received(len(piece.data))
    return FetchedObject(wanted.key, writing.size, first.etag, writing.digest.hexdigest())


async def _first_piece(transport: Transport, wanted: Wanted) -> Fetched | None:
    if wanted.size is not None and wanted.size > PIECE:
        try:
            return await transport.get(wanted.key, start=0, stop=PIECE)
        except ResponseError:
            # It may have become shorter, or the server does not support Range requests.
            pass
    whole = await transport.get(wanted.key)
    return None if whole is None else Fetched(whole.data, whole.etag, len(whole.data))


class _Writing:
    """A file that is being written, open only during a write: tasks that await one may be cancelled."""

    def __init__(self, aside: Path) -> None:
        self._aside = aside
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: Bytes) -> None:
        self._aside.parent.mkdir(parents=True, exist_ok=True)
        with self._aside.open("ab" if self.size else "xb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        self.digest.update(data)
        self.size += len(data)


def is_intact(folder: Path, entry: FetchedObject) -> bool:
    """Return whether a file has the size and checksum that were recorded when it was written."""
    path = folder / entry.key
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != entry.size:
            return False
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return False
    return digest.hexdigest() == entry.sha256


_DOCUMENTS: Final = {2: (".zgroup", ".zarray", ".zattrs"), 3: ("zarr.json",)}

AT_ONCE: Final = 64
"""Objects that are fetched or checked concurrently; the transport's budget may allow fewer requests."""


@takes_storage_options
def download(
    location: str | os.PathLike[str] | Location,
    folder: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Download:
    """Download a whole session to a local folder.

    The session is written to a second folder, ``<folder>.partial``, whose files are verified by checksum. It
    then replaces the folder, which is thus never incomplete. After an error or interruption, the same call
    resumes the download. Called again later, it fetches the objects whose size or ETag has changed.

    If a server cannot be listed, every chunk that the consolidated metadata allow is requested. Links to
    other files are not followed.

    An HDF5 file is downloaded as it is, in pieces, to ``<folder>.partial``, which then becomes the file
    `folder`. A record of the pieces' checksums is kept beside it.

    Parameters
    ----------
    location
        The location of the session: anything that can be opened.
    folder
        The folder to write the session to, such as ``sub-1.nwb.zarr``; of an HDF5 file, the path of the
        file, such as ``sub-1.nwb``. It must not exist, or be an earlier download of the same location.
    storage_options
        Credentials and other options, named as in s3fs and fsspec. A chunk cache is not used.
    progress
        A function that is called with a `Progress` as objects arrive, from another thread.

    Returns
    -------
    Download
        Counts of the objects in the folder, and of those that were fetched.

    Raises
    ------
    DownloadError
        When the folder has other contents, the disk is full, or files cannot be read back as written.
    OptionError
        When `folder` is not a local path, or a root folder, or `progress` is not a function.
    LimitError
        When the session has more than two million objects.
    NWBZarrError
        When the session cannot be read, as `intake_nwbzarr.open_hierarchy`.

    Examples
    --------
    >>> print(download("s3://bucket/sub-1.nwb.zarr", "sub-1.nwb.zarr"))  # doctest: +SKIP
    s3://bucket/sub-1.nwb.zarr: 1,204 objects, 3.2 GB, verified, in /data/sub-1.nwb.zarr (1,204 fetched).
    """
    where = locate(location, storage_options).uncached
    target = local_path(folder, "The download folder")
    if not target.name:
        raise OptionError(
            f"{target} is a root folder, to which no session can be downloaded.",
            found=str(target),
            next_step="Pass a folder in it, such as a.nwb.zarr.",
        )
    if progress is not None and not callable(progress):
        raise invalid_argument("progress", progress, "a function")
    if where.path is not None and (where.path == target or target.is_relative_to(where.path)):
        raise DownloadError(
            f"{target} is the session itself, or a folder in it.",
            location=where,
            found=str(target),
            next_step="Pass another folder.",
        )
    transport, inventory = load_recognized(where, open_transport, take_inventory)
    if transport.location.is_hdf5:
        return _download_file(transport, target, progress)
    workspace = Workspace(target)
    with local_errors(target):
        workspace.prepare(where.url)
        with Journal(workspace.partial, where.url) as journal:
            return _Downloading(transport, inventory, workspace, journal, progress).run()


def _download_file(
    transport: Transport, target: Path, progress: Callable[[Progress], None] | None
) -> Download:
    """Download an HDF5 file."""

    def received(there: int, size: int) -> None:
        if progress is not None:
            progress(Progress("fetching", int(there == size), 1, there, size))

    with local_errors(target):
        done = download_file(open_transport(transport.location.as_file), target, received)
    try:
        chunks = count_chunks(open_hierarchy(target, {"hdf5": True}))
    except NWBZarrError as error:
        # Damaged files are downloaded as they are.
        chunks = None
        warn_caller(
            f"{transport.location} was downloaded, but cannot be opened. {error}",
            DownloadWarning,
            code="incomplete-download",
        )
    return Download(
        location=str(transport.location),
        folder=target,
        objects=1,
        bytes=done.size,
        fetched=int(done.fetched),
        removed=0,
        listed=True,
        chunks=chunks,
    )


@dataclass
class _Downloading:
    """One download, and the objects that it has fetched or kept so far."""

    transport: Transport
    inventory: Inventory
    workspace: Workspace
    journal: Journal
    progress: Callable[[Progress], None] | None
    entries: dict[str, FetchedObject] = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)

    def run(self) -> Download:
        """Fetch the missing objects, verify all, and replace the folder."""
        before, self.entries = _entries(self.workspace.folder), _entries(self.workspace.partial)
        self._adopt(before)
        missing = run(self._changed())
        self._check_room(missing)
        self._fetch(missing)
        damaged = self._damaged()
        if damaged:
            self._fetch([self.inventory.objects[key] for key in damaged])
            self._refuse_damaged(self._damaged(damaged))
        kept = set(self.entries)
        removed = len(before.keys() - kept)
        self.workspace.keep_only(kept)
        self._refuse_mixture()
        self.journal.replace(self.entries.values())
        if before == self.entries and not self.fetched:
            self.workspace.discard_partial()
        else:
            self.workspace.exchange()
        return Download(
            location=str(self.transport.location),
            folder=self.workspace.folder,
            objects=len(kept),
            bytes=sum(entry.size for entry in self.entries.values()),
            fetched=len(self.fetched),
            removed=removed,
            listed=self.inventory.listed,
            chunks=self._chunks(kept),
        )

    def _chunks(self, keys: Iterable[str]) -> ChunkCounts | None:
        """Count the downloaded chunks, by the downloaded metadata."""
        folder = self.workspace.folder
        names = _DOCUMENTS[2 if any(key.endswith("/.zarray") for key in keys) else 3]
        nodes: dict[str, dict[str, msgspec.Raw]] = {}
        for key in keys:
            path, _, name = key.rpartition("/")
            if name in names:
                nodes.setdefault(path, {})[name] = msgspec.Raw((folder / key).read_bytes())
        location = locate(folder)
        documents = Documents(location, 3 if names == _DOCUMENTS[3] else 2, nodes, False, None, 0)
        try:
            return count_chunks(Hierarchy(location, open_transport(location), documents), keys=keys)
        except NWBZarrError:
            # Damaged sessions are downloaded as they are.
            return None

    def _adopt(self, before: Mapping[str, FetchedObject]) -> None:
        """Take over from the earlier download the objects that may be current."""
        for key, entry in before.items():
            wanted = self.inventory.objects.get(key)
            if key in self.entries or wanted is None or not _may_be_current(wanted, entry):
                continue
            try:
                self.workspace.adopt(key)
            except FileNotFoundError:
                continue
            self._note(entry)

    def _note(self, entry: FetchedObject) -> None:
        self.entries[entry.key] = entry
        self.journal.add(entry)

    async def _changed(self) -> list[Wanted]:
        """Return the objects that are missing, or have changed since they were fetched."""
        self.entries = {key: entry for key, entry in self.entries.items() if key in self.inventory.objects}
        limited = asyncio.Semaphore(AT_ONCE)

        async def is_missing(wanted: Wanted) -> bool:
            entry = self.entries.get(wanted.key)
            if entry is None or not _may_be_current(wanted, entry) or not self._has_file(entry):
                return True
            if wanted.etag is not None:
                return False
            # Without an ETag in a listing, a conditional request tells whether the object has changed.
            async with limited:
                asked = await self.transport.get_unless(entry.key, entry.etag or "")
            return not isinstance(asked, Unchanged)

        answers = await gather([partial(is_missing, wanted) for wanted in self.inventory.objects.values()])
        missing = [
            wanted for wanted, answer in zip(self.inventory.objects.values(), answers, strict=True) if answer
        ]
        for wanted in missing:
            self.entries.pop(wanted.key, None)
        return missing

    def _has_file(self, entry: FetchedObject) -> bool:
        try:
            return (self.workspace.partial / entry.key).stat().st_size == entry.size
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _check_room(self, missing: Iterable[Wanted]) -> None:
        needed, room = sum(wanted.size or 0 for wanted in missing), self.workspace.room()
        if needed > room:
            raise DownloadError(
                f"The download to {self.workspace.folder} needs {readable_size(needed)} more, but only "
                f"{readable_size(room)} are free on the disk.",
                location=self.transport.location,
                found=room,
                expected=needed,
                next_step=f"Free some space, or pass a folder on another disk. {self._kept}",
            )

    def _fetch(self, missing: list[Wanted]) -> None:
        sizes = [wanted.size for wanted in missing]
        report = Reporter("fetching", len(missing), _sum(sizes), self.progress)
        run(self._fetch_all(missing, report))

    async def _fetch_all(self, missing: list[Wanted], report: Reporter) -> None:
        limited = asyncio.Semaphore(AT_ONCE)

        async def fetch(wanted: Wanted) -> None:
            async with limited:
                entry = await fetch_object(self.transport, wanted, self.workspace.partial, report.received)
            if entry is not None:
                self._note(entry)
                self.fetched.add(entry.key)
            report.finished()

        report.show()
        # The metadata first: if they are unchanged at the end, the data belong to them.
        ordered = sorted(missing, key=lambda wanted: wanted.key not in ROOTS)
        await gather([partial(fetch, wanted) for wanted in ordered])

    def _damaged(self, keys: Iterable[str] | None = None) -> list[str]:
        """Read the files back, and return the keys of those that differ from the received objects."""
        entries = [
            self.entries[key] for key in (self.entries if keys is None else keys) if key in self.entries
        ]
        report = Reporter("verifying", len(entries), sum(entry.size for entry in entries), self.progress)
        limited = asyncio.Semaphore(os.cpu_count() or 2)

        async def check(entry: FetchedObject) -> str | None:
            async with limited:
                intact = await asyncio.to_thread(is_intact, self.workspace.partial, entry)
            report.received(entry.size)
            report.finished()
            return None if intact else entry.key

        found = run(gather([partial(check, entry) for entry in entries]))
        damaged = [key for key in found if key is not None]
        for key in damaged:
            (self.workspace.partial / key).unlink(missing_ok=True)
            del self.entries[key]
        return damaged

    def _refuse_damaged(self, damaged: list[str]) -> None:
        if damaged:
            raise DownloadError(
                f"{len(damaged)} files in {self.workspace.partial}, such as {damaged[0]!r}, differ from what "
                "was written, after 2 attempts.",
                location=self.transport.location,
                path=damaged[0],
                found=damaged,
                next_step="The disk may be failing; pass a folder on another one.",
            )

    def _refuse_mixture(self) -> None:
        """Check that the session's metadata are still those that were fetched before its data."""
        for key in sorted(ROOTS & self.entries.keys()):
            entry = self.entries[key]
            if entry.etag is None:
                continue
            asked = run(self.transport.get_unless(key, entry.etag))
            if asked is None or (isinstance(asked, Fetched) and asked.etag != entry.etag):
                raise ObjectChangedError(
                    f"{self.transport.location}/{key} was changed while the session was being downloaded.",
                    location=self.transport.location,
                    path=key,
                    found=None if asked is None else asked.etag,
                    expected=entry.etag,
                    next_step=f"Run the download again. {self._kept}",
                )

    @property
    def _kept(self) -> str:
        return f"The objects fetched so far are kept in {self.workspace.partial}."


def _entries(folder: Path) -> dict[str, FetchedObject]:
    """Return the objects in a folder, by its record."""
    record = read_record(folder)
    return dict(record.entries) if record is not None else {}


def _may_be_current(wanted: Wanted, entry: FetchedObject) -> bool:
    """Return whether an object fetched earlier may be current; without a strong ETag, that is unknown."""
    return (
        entry.etag is not None
        and not entry.etag.startswith("W/")
        and wanted.size in {None, entry.size}
        and wanted.etag in {None, entry.etag}
    )


def _sum(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
