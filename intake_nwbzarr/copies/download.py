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

from intake_nwbzarr.arguments import describe_value, local_path, takes_storage_options
from intake_nwbzarr.check.chunks import ChunkCounts, count_chunks
from intake_nwbzarr.copies.inventory import (
    ROOTS,
    Entry,
    Inventory,
    Journal,
    Wanted,
    Workspace,
    local_errors,
    read_record,
    take_inventory,
)
from intake_nwbzarr.errors import DownloadError, NWBZarrError, ObjectChangedError, OptionError, ResponseError
from intake_nwbzarr.hierarchy.documents import Documents
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.transport.answers import Bytes, Fetched, Unchanged
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import readable_size


@dataclass(frozen=True)
class Progress:
    """How far a download is.

    Parameters
    ----------
    doing
        ``"fetching"`` or ``"verifying"``.
    objects, of_objects
        Done, and in all; those that turn out not to exist count as done.
    bytes, of_bytes
        Written, and in all, where that is known.
    """

    doing: str
    objects: int
    of_objects: int
    bytes: int
    of_bytes: int | None


@dataclass(frozen=True)
class Download:
    """What a download did.

    Parameters
    ----------
    location
        Of the session, without secrets.
    folder
        Where it is now.
    objects, bytes
        What the folder holds of it.
    fetched
        How many of the objects were fetched this time; the others had been before.
    removed
        Objects of an earlier download that the session does not have any more.
    listed
        Whether the objects were found by listing the session; else by its consolidated metadata.
    chunks
        How many chunks its arrays may have, and how many of them the folder holds; None where its metadata
        cannot be read.
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
        news = [f"{self.fetched:,} fetched"] + ([f"{kept:,} were there already"] if kept else [])
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
"""Bytes of an object that are fetched at once."""

RESTARTS: Final = 3
"""How often an object that changes while it is fetched is begun anew."""

_BLOCK = 2**20


async def fetch_object(
    transport: Transport, wanted: Wanted, folder: Path, received: Callable[[int], None]
) -> Entry | None:
    """Fetch an object into a folder, anew when it changes meanwhile; None when there is no such object."""
    # `received` is called with the bytes that were written, or with minus those of an object begun anew.
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
) -> Entry | None:
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
                f"{transport.location}/{wanted.key} was removed while it was being read; run this again."
            )
        await asyncio.to_thread(writing.write, piece.data)
        received(len(piece.data))
    return Entry(wanted.key, writing.size, first.etag, writing.digest.hexdigest())


async def _first_piece(transport: Transport, wanted: Wanted) -> Fetched | None:
    if wanted.size is not None and wanted.size > PIECE:
        try:
            return await transport.get(wanted.key, start=0, stop=PIECE)
        except ResponseError:
            # It may be shorter by now, or the server gives no parts.
            pass
    whole = await transport.get(wanted.key)
    return None if whole is None else Fetched(whole.data, whole.etag, len(whole.data))


class _Writing:
    """A file that is being written, open only while a piece is: whoever waits for that may be cancelled."""

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


def is_intact(folder: Path, entry: Entry) -> bool:
    """Whether a file has the size and the checksum that were noted when it was written."""
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
"""Objects that are being fetched, or checked, at a time; the transport's budget may allow fewer requests."""


@takes_storage_options
def download(
    location: str | os.PathLike[str] | Location,
    folder: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Download:
    """Download a whole session to a local folder.

    The session is written beside the folder (to ``<folder>.partial``), every file compared with the checksum
    of what was received, and then put in its place by renaming: the folder is never half of a session. When
    it fails or is killed, the same call goes on where it stopped. Called again later, it fetches what has
    changed, as size and ETag say.

    A server that cannot be listed is asked for every chunk that the consolidated metadata allow for. Links
    to other files are not followed.

    Parameters
    ----------
    location
        Of the session: anything that can be opened.
    folder
        That the session will be, such as ``sub-1.nwb.zarr``. It must not exist, or be an earlier download of
        the same location.
    storage_options
        Credentials and the like, in the vocabulary of s3fs and fsspec. A chunk cache is not used.
    progress
        Called as objects arrive, from another thread.

    Returns
    -------
    Download
        What was fetched, and what there is.

    Raises
    ------
    DownloadError
        When the folder holds something else, the disk is full, or what was written cannot be read back.
    OptionError
        When the folder is no local path, or the root of all folders, or `progress` is no function.
    LimitError
        When the session has more than two million objects.
    NWBZarrError
        Otherwise as `intake_nwbzarr.open_hierarchy`.

    Examples
    --------
    >>> print(download("s3://bucket/sub-1.nwb.zarr", "sub-1.nwb.zarr"))  # doctest: +SKIP
    s3://bucket/sub-1.nwb.zarr: 1,204 objects, 3.2 GB, verified, in /data/sub-1.nwb.zarr (1,204 fetched).
    """
    where = locate(location, storage_options).uncached
    target = local_path(folder, "The download folder")
    if not target.name:
        raise OptionError(f"{target} cannot become a session; give a folder in it, such as a.nwb.zarr.")
    if progress is not None and not callable(progress):
        raise OptionError(f"progress must be a function, not {describe_value(progress)}.")
    if where.path is not None and (where.path == target or target.is_relative_to(where.path)):
        raise DownloadError(f"{target} is the session itself, or lies in it; give another folder.")
    transport = open_transport(where)
    inventory = take_inventory(transport)
    workspace = Workspace(target)
    with local_errors(target):
        workspace.prepare(where.url)
        with Journal(workspace.partial, where.url) as journal:
            return _Downloading(transport, inventory, workspace, journal, progress).run()


@dataclass
class _Downloading:
    """One download, with what is known of each object so far."""

    transport: Transport
    inventory: Inventory
    workspace: Workspace
    journal: Journal
    progress: Callable[[Progress], None] | None
    entries: dict[str, Entry] = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)

    def run(self) -> Download:
        """Fetch what is missing, verify all, and put the folder in its place."""
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
        """Count the chunks that were downloaded, by the metadata beside them."""
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
            # A download is of what there is, damaged or not.
            return None

    def _adopt(self, before: Mapping[str, Entry]) -> None:
        """Take over from the earlier download what this one has not fetched anew."""
        for key, entry in before.items():
            wanted = self.inventory.objects.get(key)
            if key in self.entries or wanted is None or not _may_be_current(wanted, entry):
                continue
            try:
                self.workspace.adopt(key)
            except FileNotFoundError:
                continue
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        self.entries[entry.key] = entry
        self.journal.add(entry)

    async def _changed(self) -> list[Wanted]:
        """The objects that are not there, or have changed since they were fetched."""
        self.entries = {key: entry for key, entry in self.entries.items() if key in self.inventory.objects}
        limited = asyncio.Semaphore(AT_ONCE)

        async def is_missing(wanted: Wanted) -> bool:
            entry = self.entries.get(wanted.key)
            if entry is None or not _may_be_current(wanted, entry) or not self._has_file(entry):
                return True
            if wanted.etag is not None:
                return False
            # Not listed, or without its ETag: the object itself says whether it has changed.
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

    def _has_file(self, entry: Entry) -> bool:
        try:
            return (self.workspace.partial / entry.key).stat().st_size == entry.size
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _check_room(self, missing: Iterable[Wanted]) -> None:
        needed, room = sum(wanted.size or 0 for wanted in missing), self.workspace.room()
        if needed > room:
            raise DownloadError(
                f"The download to {self.workspace.folder} needs {readable_size(needed)} more, and the disk "
                f"has room for {readable_size(room)}. Make room, or give a folder on another disk; what has "
                f"been fetched so far is kept in {self.workspace.partial}."
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
        # The metadata first: that they are still the same at the end says that the data are theirs.
        ordered = sorted(missing, key=lambda wanted: wanted.key not in ROOTS)
        await gather([partial(fetch, wanted) for wanted in ordered])

    def _damaged(self, keys: Iterable[str] | None = None) -> list[str]:
        """Read back what was written; what is not as it was received."""
        entries = [
            self.entries[key] for key in (self.entries if keys is None else keys) if key in self.entries
        ]
        report = Reporter("verifying", len(entries), sum(entry.size for entry in entries), self.progress)
        limited = asyncio.Semaphore(os.cpu_count() or 2)

        async def check(entry: Entry) -> str | None:
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
                f"{damaged[0]!r} and {len(damaged) - 1} more files in {self.workspace.partial} cannot be "
                "read back as they were written, twice. The disk may be failing; give a folder on another."
            )

    def _refuse_mixture(self) -> None:
        """Make sure that the session's metadata are still those that were fetched before its data."""
        for key in sorted(ROOTS & self.entries.keys()):
            entry = self.entries[key]
            if entry.etag is None:
                continue
            asked = run(self.transport.get_unless(key, entry.etag))
            if asked is None or (isinstance(asked, Fetched) and asked.etag != entry.etag):
                raise ObjectChangedError(
                    f"{self.transport.location}/{key} was changed while the session was being downloaded. "
                    f"What has been fetched is kept in {self.workspace.partial}; the same download fetches "
                    "the rest."
                )


def _entries(folder: Path) -> dict[str, Entry]:
    """What a folder holds by its own record."""
    record = read_record(folder)
    return dict(record.entries) if record is not None else {}


def _may_be_current(wanted: Wanted, entry: Entry) -> bool:
    """Whether what was fetched may still be what is stored; where there was no ETag, nobody can tell."""
    return (
        entry.etag is not None
        and not entry.etag.startswith("W/")
        and wanted.size in {None, entry.size}
        and wanted.etag in {None, entry.etag}
    )


def _sum(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
