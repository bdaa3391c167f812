"""Snapshot files: the metadata needed to open sessions, in one zip file; read, written and checked."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from intake_nwbzarr.arguments import local_path
from intake_nwbzarr.copies.local_files import write_local
from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    LocationNotFoundError,
    NotInSnapshotError,
    OptionError,
    SnapshotError,
)
from intake_nwbzarr.location.urls import check_path
from intake_nwbzarr.transport.answers import Listed
from intake_nwbzarr.transport.request_log import readable_size
from intake_nwbzarr.untrusted_input import (
    LARGEST_RATIO,
    LARGEST_SNAPSHOT_INDEX,
    LARGEST_SNAPSHOT_SESSION,
    SMALL_MEMBER,
)

CONSOLIDATED: Final = ("zarr.json", ".zmetadata")
"""The documents at a file's root that may hold all of its metadata."""

DOCUMENTS: Final = frozenset({"zarr.json", ".zmetadata", ".zgroup", ".zarray", ".zattrs"})
"""Names of metadata documents."""

# Shown to people, and so nothing but a date.
Date = Annotated[str, msgspec.Meta(pattern="^[0-9T:+-]{0,40}$")]


class KeptObject(msgspec.Struct, frozen=True):
    """An object as it was stored, with its ETag, if any."""

    # None where there was no such object, which is the array's fill value.
    data: bytes | None
    etag: str | None = None


class KeptRange(msgspec.Struct, frozen=True):
    """Bytes of an HDF5 file, and the offset in it at which they begin."""

    start: int
    data: bytes


class KeptFolder(msgspec.Struct, frozen=True):
    """The names directly in a folder, of a store that had to be listed."""

    names: list[str]
    folders: list[str]


class KeptFile(msgspec.Struct):
    """What opening reads of one NWB file: objects by key and, if it is not consolidated, folders by path."""

    # Without secrets.
    url: str
    consolidated: bool = True
    # Of a file that is not consolidated, the `listing_digest`; None where the storage has no ETags.
    listing: str | None = None
    objects: dict[str, KeptObject] = msgspec.field(default_factory=dict)
    folders: dict[str, KeptFolder] = msgspec.field(default_factory=dict)
    # Of an HDF5 file, the ranges of it that opening reads as chunks; its metadata are among the objects.
    hdf5: bool = False
    ranges: list[KeptRange] = msgspec.field(default_factory=list)

    def part(self, start: int, stop: int) -> bytes | None:
        """Return a range of an HDF5 file, None if it was not kept."""
        for kept in self.ranges:
            if kept.start <= start and stop <= kept.start + len(kept.data):
                return kept.data[start - kept.start : stop - kept.start]
        return None

    @property
    def documents(self) -> list[str]:
        """Return the keys of the documents whose change makes the snapshot stale."""
        return [key for key in CONSOLIDATED if key in self.objects and self.objects[key].data is not None]

    @property
    def is_verifiable(self) -> bool:
        """Return whether a change of the file's metadata can be detected."""
        return self.listing is not None or (self.consolidated and bool(self.documents))


class KeptSession(msgspec.Struct, frozen=True):
    """A session: its own file first, then those that it links to."""

    # Without secrets.
    url: str
    # When it was recorded, in UTC, as ISO 8601.
    made: Date
    files: list[KeptFile]

    @property
    def document(self) -> dict[str, Any]:
        """Return what ``nwbzarr snapshot --json`` prints."""
        objects = [kept for file in self.files for kept in file.objects.values()]
        ranges = [kept for file in self.files for kept in file.ranges]
        nbytes = sum(len(kept.data or b"") for kept in objects) + sum(len(kept.data) for kept in ranges)
        verifiable = self.files[0].is_verifiable
        return {"location": self.url, "objects": len(objects), "bytes": nbytes, "verifiable": verifiable}

    def __str__(self) -> str:
        document = self.document
        first = self.files[0]
        state = "listing" if not first.consolidated else ", ".join(first.documents)
        state = "ETag" if first.hdf5 else state
        checked = f"verifiable by its {state}" if first.is_verifiable else "unverifiable"
        size = readable_size(document["bytes"])
        return f"{self.url}: {document['objects']:,} objects, {size}, {checked}"

    def file(self, url: str) -> KeptFile | None:
        """Return the file at a URL, None if the session has no such file."""
        return next((file for file in self.files if file.url == url), None)


def encode(session: KeptSession) -> bytes:
    """Serialise a session as a msgpack document."""
    return msgspec.msgpack.encode(session)


def decode(document: bytes) -> KeptSession:
    """Parse a session, the inverse of `encode`; raise ValueError or RecursionError for other documents."""
    return msgspec.msgpack.decode(document, type=KeptSession)


def listing_digest(listed: Iterable[Listed]) -> str | None:
    """Return a digest of the metadata documents in a listing; None where the storage has no ETags."""
    # The hexadecimal SHA-256 of one UTF-8 line for each of them, sorted by key: key, tab, ETag, newline.
    digest = hashlib.sha256()
    for entry in sorted(listed, key=lambda entry: entry.key):
        if entry.key.rpartition("/")[2] not in DOCUMENTS:
            continue
        if entry.etag is None:
            return None
        digest.update(f"{entry.key}\t{entry.etag}\n".encode())
    return digest.hexdigest()


FORMAT: Final = "nwbzarr-snapshot"
VERSION: Final = 1
INDEX: Final = "index.json"


_ANEW: Final = "Make it again with `nwbzarr snapshot`."


class Entry(msgspec.Struct, frozen=True):
    """A session's entry in the index: the member that contains it, its SHA-256, and when it was made."""

    member: str
    sha256: str
    made: Date


class Index(msgspec.Struct, frozen=True):
    """The member ``index.json``."""

    format: str
    version: int
    sessions: dict[str, Entry]


class Snapshots(Mapping[str, Entry]):
    """A snapshot file: a mapping from the URLs of its sessions to their entries in the index.

    Sessions are read on demand. `open_snapshots` and `snapshot` return it; it pickles as its path.
    """

    def __init__(self, path: Path, state: tuple[int, ...]) -> None:
        self.path = path
        # Tells this file from another one of the same name.
        self._state = state
        # zipfile reads members from several threads, one at a time.
        self._archive = _reading(path, lambda: zipfile.ZipFile(path))
        self._index = self._read_index()

    def __getitem__(self, url: str) -> Entry:
        return self._index.sessions[url]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.sessions)

    def __len__(self) -> int:
        return len(self._index.sessions)

    def __hash__(self) -> int:
        return hash((self.path, self._state))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshots) and (self.path, self._state) == (other.path, other._state)

    def __repr__(self) -> str:
        return f"<Snapshots {self}>"

    def __str__(self) -> str:
        noun = "session" if len(self) == 1 else "sessions"
        return f"{self.path}: {len(self):,} {noun}, {readable_size(self._state[1])}"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_snapshots, (self.path,)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "intake_nwbzarr.Snapshots", str(self.path), self._state

    def remade(self, url: str) -> str:
        """Return the advice of how to make the snapshot of a session again."""
        return f"Make it again with: nwbzarr snapshot {url}{' --add' if len(self) > 1 else ''} -o {self.path}"

    def session(self, url: str) -> KeptSession:
        """Return the session at a URL."""
        entry = self.get(url)
        if entry is None:
            held = ", ".join(f"{known!r:.200}" for known in list(self)[:3])
            held += " and more" if len(self) > 3 else ""
            raise NotInSnapshotError(
                f"The snapshot {self.path} has no session at {url}; it has {held or 'none'}.",
                location=url,
                found=list(self),
                next_step=f"Add it with: nwbzarr snapshot {url} --add -o {self.path}",
            )
        session = self._decoded(self.document(entry), entry.member)
        if session.url != url or not session.files or session.files[0].url != url:
            raise self._damaged(f"its member {entry.member!r} is not the session {url}", entry.member)
        return session

    def document(self, entry: Entry) -> bytes:
        """Return a session's document, compared with its checksum."""
        document = self._member(entry.member, LARGEST_SNAPSHOT_SESSION)
        if hashlib.sha256(document).hexdigest() != entry.sha256:
            raise self._damaged(f"the checksum of its member {entry.member!r} is wrong", entry.member)
        return document

    def _read_index(self) -> Index:
        text = self._member(INDEX, LARGEST_SNAPSHOT_INDEX)
        try:
            head = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            name = msgspec.json.decode(head["format"], type=str)
            version = msgspec.json.decode(head["version"], type=int)
        except (ValueError, KeyError, RecursionError) as error:
            raise self._damaged(f"{INDEX} is not the index of a snapshot", INDEX) from error
        if name != FORMAT or version != VERSION:
            raise SnapshotError(
                f"{self.path} has the format {name!r:.40}, version {version}; this release reads {FORMAT!r}, "
                f"version {VERSION}.",
                location=self.path,
                found=version if name == FORMAT else name,
                expected=VERSION if name == FORMAT else FORMAT,
                next_step="Use another release of intake-nwbzarr, or make the snapshot again.",
            )
        try:
            return msgspec.json.decode(text, type=Index)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{INDEX} is not the index of a snapshot ({error})", INDEX) from error

    def _member(self, name: str, limit: int) -> bytes:
        try:
            member = self._archive.getinfo(name)
        except KeyError:
            raise self._damaged(f"it has no member {name!r:.80}", name) from None
        size, packed = member.file_size, member.compress_size
        if size > limit or (size > SMALL_MEMBER and size > LARGEST_RATIO * max(packed, 1)):
            raise LimitError(
                f"{self.path} declares {readable_size(size)} for its member {name!r:.80}, compressed to "
                f"{readable_size(packed)}; {readable_size(limit)}, compressed up to {LARGEST_RATIO}:1, are "
                "allowed. It is damaged or malicious.",
                location=self.path,
                path=name,
                found=size,
                expected=limit,
                next_step=_ANEW,
            )

        def read() -> bytes:
            # zipfile decompresses no more than declared, and compares the CRC at the end.
            with self._archive.open(member) as file:
                return file.read()

        data = _reading(self.path, read)
        if len(data) != size:
            raise self._damaged(f"its member {name!r:.80} is truncated", name)
        return data

    def _decoded(self, document: bytes, member: str) -> KeptSession:
        try:
            return decode(document)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its member {member!r} is not a session ({error})", member) from error

    def _damaged(self, cause: str, member: str) -> SnapshotError:
        return SnapshotError(
            f"The snapshot {self.path} is damaged: {cause}.",
            location=self.path,
            path=member,
            next_step=_ANEW,
        )


class SnapshotInTable(Snapshots):
    """The snapshot of one session that stands in a table of sessions, as `encode` has serialised it."""

    def __init__(self, document: bytes, key: str) -> None:
        self.path = Path("in the table")
        self._document, self.key = document, key
        if len(document) > LARGEST_SNAPSHOT_SESSION:
            raise LimitError(
                f"The snapshot of {key} {self.path} has {readable_size(len(document))}; "
                f"{readable_size(LARGEST_SNAPSHOT_SESSION)} are allowed.",
                location=key,
                found=len(document),
                expected=LARGEST_SNAPSHOT_SESSION,
            )
        digest = hashlib.sha256(document).hexdigest()
        self._state = (len(document), len(document), int(digest[:15], 16))
        session = self._decoded(document, "snapshot")
        self._index = Index(FORMAT, VERSION, {session.url: Entry("snapshot", digest, session.made)})

    def __reduce__(self) -> tuple[Any, ...]:
        return SnapshotInTable, (self._document, self.key)

    def remade(self, url: str) -> str:  # noqa: ARG002
        """Return the advice of how to make the snapshot again."""
        return "Make it again with: nwbzarr catalog scan --snapshots"

    def _member(self, name: str, limit: int) -> bytes:  # noqa: ARG002
        return self._document

    def _damaged(self, cause: str, member: str) -> SnapshotError:
        return SnapshotError(
            f"The snapshot of {self.key} {self.path} is damaged: {cause}.",
            location=self.key,
            path=member,
            next_step=f"{self.remade(self.key)}.",
        )


def open_snapshots(path: str | os.PathLike[str] | Snapshots) -> Snapshots:
    """Open a snapshot file; a process caches the indexes of the last four, until their files change.

    Parameters
    ----------
    path
        A local path, or a ``file://`` URL.

    Raises
    ------
    LocationNotFoundError
        When the file does not exist.
    AccessError
        When it cannot be read.
    SnapshotError
        When it is damaged, or not a snapshot.
    LimitError
        When its index is larger than allowed.
    OptionError
        When `path` is not a local path.
    """
    if isinstance(path, Snapshots):
        return path
    place = local_path(path, "The snapshot path")
    check_path(str(place))
    try:
        status = place.stat()
    except FileNotFoundError:
        raise LocationNotFoundError(
            f"The snapshot {place} does not exist.", location=place, next_step=_ANEW
        ) from None
    except OSError as error:
        raise _unreadable(place, error) from None
    if not place.is_file():
        raise SnapshotError(
            f"{place} is not a file, so not a snapshot.", location=place, next_step="Pass the path of a file."
        )
    return _opened(place, (status.st_mtime_ns, status.st_size, status.st_ino))


@lru_cache(maxsize=4)
def _opened(path: Path, state: tuple[int, ...]) -> Snapshots:
    return Snapshots(path, state)


def _reading[T](path: Path, read: Callable[[], T]) -> T:
    """Read from a zip file; raise `SnapshotError` where it is damaged."""
    try:
        return read()
    except PermissionError as error:
        raise _unreadable(path, error) from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OSError,
        EOFError,
        MemoryError,
        LookupError,
    ) as error:
        # The message of some of them is empty.
        found = str(error) or type(error).__name__
        raise SnapshotError(
            f"{path} cannot be read as a snapshot, or is damaged: {found}.",
            location=path,
            found=found,
            next_step=_ANEW,
        ) from error


def _unreadable(path: Path, error: OSError) -> AccessError:
    return AccessError(
        f"The snapshot {path} cannot be read: {error.strerror}.", location=path, found=error.strerror
    )


def write_snapshots(path: Path, sessions: Iterable[KeptSession], *, add: bool = False) -> Snapshots:
    """Write a snapshot file atomically, replacing an existing one; `add` keeps the sessions of that one."""
    before = replaced(path)
    documents: dict[str, tuple[str, bytes]] = {}
    if add and before is not None:
        documents = {url: (entry.made, before.document(entry)) for url, entry in before.items()}
    documents |= {session.url: (session.made, encode(session)) for session in sessions}
    for url, (_, document) in documents.items():
        if len(document) > LARGEST_SNAPSHOT_SESSION:
            raise LimitError(
                f"Opening {url} reads {readable_size(len(document))}; a snapshot has at most "
                f"{readable_size(LARGEST_SNAPSHOT_SESSION)} for one session.",
                location=url,
                found=len(document),
                expected=LARGEST_SNAPSHOT_SESSION,
                next_step="Open it without a snapshot.",
            )
    write_local(path, _zipped(documents))
    return open_snapshots(path)


def replaced(path: Path) -> Snapshots | None:
    """Return the snapshot that writing to a path would replace; raise `OptionError` for other files."""
    # False for a name that is too long.
    if not os.path.exists(path):  # noqa: PTH110
        return None
    try:
        return open_snapshots(path)
    except SnapshotError as error:
        raise OptionError(
            f"{path} already exists and is not a snapshot that this release can replace.",
            location=path,
            found=str(error),
            next_step="Pass another path.",
        ) from error


def _zipped(documents: Mapping[str, tuple[str, bytes]]) -> bytes:
    entries: dict[str, Entry] = {}
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (url, (made, document)) in enumerate(sorted(documents.items())):
            member = f"sessions/{number}.msgpack"
            archive.writestr(member, document)
            entries[url] = Entry(member, hashlib.sha256(document).hexdigest(), made)
        index = msgspec.json.encode(Index(FORMAT, VERSION, entries))
        archive.writestr(INDEX, msgspec.json.format(index, indent=1))
    return output.getvalue()
