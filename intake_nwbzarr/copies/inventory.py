"""The objects that a download has to fetch, and the folder, record and journal it writes them to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from intake_nwbzarr.arrays.layout import layout
from intake_nwbzarr.checks.chunks import chunk_grid
from intake_nwbzarr.copies.local_files import acquire, release
from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    DownloadError,
    DownloadWarning,
    LimitError,
    ListingError,
    warn_caller,
)
from intake_nwbzarr.hdf5.objects import SIGNATURE
from intake_nwbzarr.hierarchy.documents import Documents, load_documents
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.transport.answers import Part
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.untrusted_input import MOST_OBJECTS

NAME: Final = ".nwbzarr-download.jsonl"
FORMAT: Final = "intake-nwbzarr download"
VERSION: Final = 1


class FetchedObject(msgspec.Struct, frozen=True):
    """An object that was written completely: its size, ETag, if any, and the SHA-256 of its bytes."""

    key: str
    size: int
    etag: str | None
    sha256: str


class _Header(msgspec.Struct, frozen=True):
    format: str
    version: int
    location: str


@dataclass(frozen=True)
class Record:
    """The location that a folder was downloaded from, and the objects in it."""

    location: str
    entries: Mapping[str, FetchedObject]


def read_record(folder: Path) -> Record | None:
    """Read the record in a folder; None if there is none."""
    try:
        lines = (folder / NAME).read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(lines) == 1:
        # The process was killed before the first line was complete.
        return None
    try:
        head = msgspec.json.decode(lines[0], type=_Header)
        if (head.format, head.version) != (FORMAT, VERSION):
            raise ValueError("another format, or a later version of it")
        entries: dict[str, FetchedObject] = {}
        # After the last line feed, there may be an incomplete line of a process that was killed.
        for line in lines[1:-1]:
            entry = msgspec.json.decode(line, type=FetchedObject)
            entries[entry.key] = entry
    except (msgspec.MsgspecError, ValueError) as error:
        raise DownloadError(
            f"{folder / NAME}, the record of a download, is damaged ({error}).",
            location=folder / NAME,
            found=str(error),
            next_step=f"Delete {folder}, or pass another folder.",
        ) from error
    return Record(head.location, entries)


class Journal:
    """The record of a download in progress, locked by one process at a time."""

    def __init__(self, folder: Path, location: str) -> None:
        path = folder / NAME
        self._path, self._location = path, location
        # Next to the folder, which is renamed at the end.
        lock = acquire(folder.with_name(f"{folder.name}.lock"))
        if lock is None:
            raise DownloadError(
                f"Another process is downloading to {folder}.",
                location=location,
                found=str(folder),
                next_step="Wait for it, or pass another folder.",
                transient=True,
            )
        self._lock = lock
        try:
            self._file = self._opened(path)
            if self._file.tell() == 0:
                self._write(_head(location))
        except BaseException:
            release(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        release(self._lock)

    def add(self, entry: FetchedObject) -> None:
        """Add an object that was written completely."""
        self._write(msgspec.to_builtins(entry))

    def replace(self, entries: Iterable[FetchedObject]) -> None:
        """Rewrite the record with only these entries, and close it."""
        self._file.close()
        aside = self._path.with_name(f"{NAME}.partial")
        with aside.open("wb") as file:
            for line in (_head(self._location), *map(msgspec.to_builtins, entries)):
                file.write(_line(line))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)

    def _opened(self, path: Path) -> BinaryIO:
        """Open the file at the end of its last complete line."""
        if path.is_symlink():
            raise _symbolic_link(path, path, self._location)
        path.touch()
        file = path.open("r+b")
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        return file

    def _write(self, line: object) -> None:
        self._file.write(_line(line))
        self._file.flush()


def _symbolic_link(link: Path, to_delete: Path, location: str) -> DownloadError:
    return DownloadError(
        f"{link} is a symbolic link, so a download would write outside its folder.",
        location=location,
        found=str(link),
        next_step=f"Delete {to_delete}.",
    )


def _head(location: str) -> dict[str, object]:
    return {"format": FORMAT, "version": VERSION, "location": location}


def _line(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"


ROOTS: Final = frozenset({"zarr.json", ".zgroup", ".zmetadata"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object to be downloaded, with its size and ETag if known."""

    key: str
    size: int | None
    etag: str | None


@dataclass(frozen=True)
class Inventory:
    """All objects of a session, by key."""

    objects: dict[str, Wanted]
    # Whether they were listed; otherwise some may not exist, such as chunks of fill values.
    listed: bool


def take_inventory(transport: Transport) -> Inventory:
    """List a session's objects, or derive them from consolidated metadata where it cannot be listed.

    An HDF5 file has none but itself.
    """
    if transport.location.is_hdf5:
        _check_hdf5(transport)
        return Inventory({}, listed=True)
    try:
        listed = run(transport.list())
    except CredentialsError:
        raise
    except (ListingError, AccessError):
        # A bucket may allow reading objects and deny listing.
        return Inventory(_from_metadata(transport), listed=False)
    # A zarr Store lists only names.
    knows_sizes = transport.location.store is None
    found = {
        entry.key: Wanted(entry.key, entry.size if knows_sizes else None, entry.etag)
        for entry in listed
        if entry.key != NAME
    }
    if not ROOTS & found.keys():
        # Raises an error that names what is there instead.
        run(load_documents(transport))
    _check_number(len(found), transport)
    return Inventory(found, listed=True)


def _check_hdf5(transport: Transport) -> None:
    """Check that a file is HDF5, by its signature: damaged files are downloaded as they are."""
    file = open_transport(transport.location.as_file)
    first = run(file.fetch("", Part(0, 8, lenient=True), 8))
    if first is None or bytes(first.data) != SIGNATURE:
        # There is nothing, or a user block before the signature.
        run(load_documents(transport))


def _from_metadata(transport: Transport) -> dict[str, Wanted]:
    documents = run(load_documents(transport))
    hierarchy = Hierarchy(transport.location, transport, documents)
    arrays = [node for path in hierarchy if isinstance(node := hierarchy[path], ArrayNode)]
    names = _document_keys(documents)
    _check_number(len(names) + sum(prod(chunk_grid(node)) for node in arrays), transport)
    if hierarchy.specifications not in hierarchy:
        warn_caller(
            f"{transport.location} cannot be listed, so only the objects in its consolidated metadata are "
            f"downloaded, without the schemas in {hierarchy.specifications!r}, if there are any. Types of "
            "NWB extensions are then mapped by their contents.",
            DownloadWarning,
            code="incomplete-download",
        )
    keys = [*names, *(key for node in arrays for key in chunk_keys(node))]
    return {key: Wanted(key, None, None) for key in keys}


def _document_keys(documents: Documents) -> list[str]:
    keys = [f"{path}/{name}".lstrip("/") for path, names in documents.nodes.items() for name in names]
    return keys if documents.zarr_format == 3 else [".zmetadata", *keys]


def chunk_keys(node: ArrayNode) -> Iterator[str]:
    """Yield the keys of all chunks, or shards, that an array may have."""
    stored = layout(node)
    for coordinates in product(*map(range, chunk_grid(node))):
        yield stored.key(coordinates)


def _check_number(number: int, transport: Transport) -> None:
    if number > MOST_OBJECTS:
        raise LimitError(
            f"{transport.location} declares {number:,} objects; at most {MOST_OBJECTS:,} can be downloaded.",
            location=transport.location,
            found=number,
            expected=MOST_OBJECTS,
        )


@dataclass(frozen=True)
class Workspace:
    """The folder of a download, which is not changed until the session next to it is complete."""

    folder: Path

    @property
    def partial(self) -> Path:
        """Return the folder that is written to; after a failure, the next download resumes there."""
        return self.folder.with_name(f"{self.folder.name}.partial")

    @property
    def replaced(self) -> Path:
        """Return the name of the earlier folder while it is replaced."""
        return self.folder.with_name(f"{self.folder.name}.replaced")

    def prepare(self, location: str) -> None:
        """Check that both folders are, or may become, downloads of a location."""
        if self.replaced.exists():
            # A process was killed between the two renames of `exchange`, or while it removed this folder.
            self.discard_replaced() if self.folder.exists() else self.replaced.rename(self.folder)
        for folder in (self.folder, self.partial):
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise DownloadError(
                    f"{folder} is not a folder, or is a link to one.",
                    location=location,
                    found=str(folder),
                    next_step="Pass another path.",
                )
            record = read_record(folder)
            if record is None and folder.is_dir() and any(path.name != NAME for path in folder.iterdir()):
                raise DownloadError(
                    f"{folder} already exists and is not an earlier download of {location}.",
                    location=location,
                    next_step="Nothing in it was changed. Pass a folder that does not exist yet.",
                )
            if record is not None and record.location != location:
                raise DownloadError(
                    f"{folder} is a download of {record.location}, not of {location}.",
                    location=location,
                    found=record.location,
                    next_step="Pass another folder.",
                )
        for parent, folders, names in os.walk(self.partial):
            link = next((name for name in (*folders, *names) if Path(parent, name).is_symlink()), None)
            if link is not None:
                raise _symbolic_link(Path(parent, link), self.partial, location)
        self.partial.mkdir(parents=True, exist_ok=True)

    def exchange(self) -> None:
        """Replace the folder with the one that was written to."""
        self.discard_replaced()
        if self.folder.exists():
            self.folder.rename(self.replaced)
        self.partial.rename(self.folder)
        self.discard_replaced()

    def discard_replaced(self) -> None:
        """Remove the replaced folder, and its record last, which shows that it may be removed."""
        if not self.replaced.exists():
            return
        if self.replaced.is_dir() and not any(self.replaced.iterdir()):
            self.replaced.rmdir()
            return
        if read_record(self.replaced) is None:
            raise DownloadError(
                f"{self.replaced} already exists and is not an earlier download.",
                found=str(self.replaced),
                next_step="Move it elsewhere.",
            )
        for path in self.replaced.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != NAME:
                path.unlink()
        shutil.rmtree(self.replaced)

    def discard_partial(self) -> None:
        """Remove the folder that was written to."""
        shutil.rmtree(self.partial)

    def room(self) -> int:
        """Return how many bytes are free on the disk."""
        return shutil.disk_usage(self.partial).free

    def adopt(self, key: str) -> None:
        """Create a hard link to an object in the folder, or a copy if links are not supported."""
        source, target = self.folder / key, self.partial / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    def keep_only(self, keys: set[str]) -> int:
        """Remove all written files but these, and return the number of files removed."""
        removed = 0
        for parent, folders, names in os.walk(self.partial, topdown=False):
            for name in names:
                path = Path(parent, name)
                key = path.relative_to(self.partial).as_posix()
                if key not in keys and key != NAME:
                    path.unlink()
                    removed += 1
            for name in folders:
                with suppress(OSError):
                    Path(parent, name).rmdir()
        return removed


@contextmanager
def local_errors(folder: Path) -> Iterator[None]:
    """Raise errors of the operating system as a `DownloadError`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, DownloadError):
            raise
        at = f" ({error.filename})" if error.filename else ""
        raise DownloadError(
            f"The download to {folder} cannot be written: {os.strerror(error.errno)}{at}.",
            location=error.filename or folder,
            found=os.strerror(error.errno),
            next_step="The folder is unchanged. Run the download again to resume it.",
        ) from error
