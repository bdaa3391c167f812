"""Snapshot files: what opening sessions reads, in one zip file; read, written and checked."""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from intake_nwbzarr.arguments import local_path
from intake_nwbzarr.bounds import (
    LARGEST_RATIO,
    LARGEST_SNAPSHOT_INDEX,
    LARGEST_SNAPSHOT_SESSION,
    SMALL_MEMBER,
)
from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    LocationNotFoundError,
    NotInSnapshotError,
    OptionError,
    SnapshotError,
    TransportError,
)
from intake_nwbzarr.location.urls import check_path
from intake_nwbzarr.transport.answers import Listed
from intake_nwbzarr.transport.request_log import readable_size

CONSOLIDATED: Final = ("zarr.json", ".zmetadata")
"""The documents at a file's root that may hold all of its metadata."""

DOCUMENTS: Final = frozenset({"zarr.json", ".zmetadata", ".zgroup", ".zarray", ".zattrs"})
"""Names of metadata documents."""

# Shown to people, and so nothing but a date.
Date = Annotated[str, msgspec.Meta(pattern="^[0-9T:+-]{0,40}$")]


class KeptObject(msgspec.Struct, frozen=True):
    """An object as it was stored, with the ETag that it had, if any."""

    # None where there was no such object, which is the array's fill value.
    data: bytes | None
    etag: str | None = None


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

    @property
    def documents(self) -> list[str]:
        """Return the keys of the documents whose change makes the snapshot stale."""
        return [key for key in CONSOLIDATED if key in self.objects and self.objects[key].data is not None]

    @property
    def is_verifiable(self) -> bool:
        """Whether a change of the file's metadata can be found out."""
        return self.listing is not None or (self.consolidated and bool(self.documents))


class KeptSession(msgspec.Struct, frozen=True):
    """A session: its own file first, then those that it links to."""

    # Without secrets.
    url: str
    # When it was recorded, in UTC, as ISO 8601.
    made: Date
    files: list[KeptFile]

    def __str__(self) -> str:
        objects = [kept for file in self.files for kept in file.objects.values()]
        size = readable_size(sum(len(kept.data or b"") for kept in objects))
        first = self.files[0]
        state = "listing" if not first.consolidated else ", ".join(first.documents)
        checked = f"verifiable by its {state}" if first.is_verifiable else "unverifiable"
        return f"{self.url}: {len(objects):,} objects, {size}, {checked}"

    def file(self, url: str) -> KeptFile | None:
        """Return the file at a URL, None where it is none of these."""
        return next((file for file in self.files if file.url == url), None)


def encode(session: KeptSession) -> bytes:
    """Serialise a session as a msgpack document."""
    return msgspec.msgpack.encode(session)


def decode(document: bytes) -> KeptSession:
    """Parse a session, the inverse of `encode`; a ValueError or RecursionError says that it is none."""
    return msgspec.msgpack.decode(document, type=KeptSession)


def listing_digest(listed: Iterable[Listed]) -> str | None:
    """Return a digest of the metadata documents in a listing; None where the storage has no ETags.

    It is the SHA-256, in hexadecimal, of one line for each of them, sorted by key: key, tab, ETag, newline,
    in UTF-8.
    """
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


_ANEW: Final = "Make it anew with `nwbzarr snapshot`."


class Entry(msgspec.Struct, frozen=True):
    """A session's line in the index: the member that holds it, its SHA-256, and when it was made."""

    member: str
    sha256: str
    made: Date


class Index(msgspec.Struct, frozen=True):
    """The member ``index.json``."""

    format: str
    version: int
    sessions: dict[str, Entry]


class Snapshots(Mapping[str, Entry]):
    """A snapshot file: the index, and the sessions in it, read when they are asked for.

    A mapping from the URLs of sessions to their lines in the index. Made by `open_snapshots`; it pickles as
    its path.

    Parameters
    ----------
    path
        Of the file.
    state
        What tells this file from another one of its name.
    """

    def __init__(self, path: Path, state: tuple[int, ...]) -> None:
        self.path = path
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

    def session(self, url: str) -> KeptSession:
        """Return what is kept of the session at a URL."""
        entry = self.get(url)
        if entry is None:
            held = ", ".join(f"{known!r:.200}" for known in list(self)[:3])
            held += " and more" if len(self) > 3 else ""
            raise NotInSnapshotError(
                f"The snapshot {self.path} holds no session at {url}; it holds {held or 'none at all'}. "
                f"Add it with: nwbzarr snapshot {url} --add -o {self.path}"
            )
        document = self.document(entry)
        try:
            session = decode(document)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its member {entry.member!r} is no session ({error})") from error
        if session.url != url or not session.files or session.files[0].url != url:
            raise self._damaged(f"what it holds for {url} is another session")
        return session

    def document(self, entry: Entry) -> bytes:
        """Return a session's document, compared with its checksum."""
        document = self._member(entry.member, LARGEST_SNAPSHOT_SESSION)
        if hashlib.sha256(document).hexdigest() != entry.sha256:
            raise self._damaged(f"its member {entry.member!r} has another checksum than its index says")
        return document

    def _read_index(self) -> Index:
        text = self._member(INDEX, LARGEST_SNAPSHOT_INDEX)
        try:
            head = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            name = msgspec.json.decode(head["format"], type=str)
            version = msgspec.json.decode(head["version"], type=int)
        except (ValueError, KeyError, RecursionError) as error:
            raise self._damaged(f"{INDEX} is no index of a snapshot") from error
        if name != FORMAT or version != VERSION:
            raise SnapshotError(
                f"{self.path} has the format {name!r:.40}, version {version}; this release reads {FORMAT!r}, "
                f"version {VERSION}. Use another release of intake-nwbzarr, or make it anew."
            )
        try:
            return msgspec.json.decode(text, type=Index)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{INDEX} is no index of a snapshot ({error})") from error

    def _member(self, name: str, limit: int) -> bytes:
        try:
            member = self._archive.getinfo(name)
        except KeyError:
            raise self._damaged(f"it has no member {name!r:.80}") from None
        size, packed = member.file_size, member.compress_size
        if size > limit or (size > SMALL_MEMBER and size > LARGEST_RATIO * max(packed, 1)):
            raise LimitError(
                f"{self.path} declares {readable_size(size)} for its member {name!r:.80}, packed into "
                f"{readable_size(packed)}; {readable_size(limit)}, packed up to {LARGEST_RATIO} times, are "
                f"allowed. It is damaged or malicious. {_ANEW}"
            )

        def read() -> bytes:
            # zipfile unpacks no further than declared, and compares the CRC at the end.
            with self._archive.open(member) as file:
                return file.read()

        data = _reading(self.path, read)
        if len(data) != size:
            raise self._damaged(f"its member {name!r:.80} is cut short")
        return data

    def _damaged(self, cause: str) -> SnapshotError:
        return SnapshotError(f"The snapshot {self.path} is damaged: {cause}. {_ANEW}")


def open_snapshots(path: str | os.PathLike[str] | Snapshots) -> Snapshots:
    """Open a snapshot file; a process keeps the indexes of the last few, as long as the files are the same.

    Parameters
    ----------
    path
        A local path, or a ``file://`` URL.

    Raises
    ------
    LocationNotFoundError
        When there is no such file.
    AccessError
        When it may not be read.
    SnapshotError
        When it is damaged, or no snapshot.
    LimitError
        When its index is larger than allowed.
    OptionError
        When it is elsewhere.
    """
    if isinstance(path, Snapshots):
        return path
    place = local_path(path, "The snapshot path")
    check_path(str(place))
    try:
        status = place.stat()
    except FileNotFoundError:
        raise LocationNotFoundError(f"There is no snapshot {place}. {_ANEW}") from None
    except OSError as error:
        raise AccessError(f"The snapshot {place} cannot be read: {error.strerror}.") from None
    if not place.is_file():
        raise SnapshotError(f"{place} is a folder; a snapshot is one file. {_ANEW}")
    return _opened(place, (status.st_mtime_ns, status.st_size, status.st_ino))


@lru_cache(maxsize=4)
def _opened(path: Path, state: tuple[int, ...]) -> Snapshots:
    return Snapshots(path, state)


def _reading[T](path: Path, read: Callable[[], T]) -> T:
    """Read from a zip file; whatever fails means that the file is damaged."""
    try:
        return read()
    except PermissionError as error:
        raise AccessError(f"The snapshot {path} cannot be read: {error.strerror}.") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise SnapshotError(f"The snapshot {path} is damaged, or no snapshot: {error}. {_ANEW}") from error
    except (OSError, EOFError, MemoryError, LookupError) as error:
        raise SnapshotError(
            f"The snapshot {path} is damaged, or cannot be read: {error or type(error).__name__}. {_ANEW}"
        ) from error


def write_snapshots(path: Path, sessions: Iterable[KeptSession], *, add: bool = False) -> Snapshots:
    """Write a snapshot file in one step, in place of one that is there; `add` keeps that one's sessions."""
    before = replaced(path)
    documents: dict[str, tuple[str, bytes]] = {}
    if add and before is not None:
        documents = {url: (entry.made, before.document(entry)) for url, entry in before.items()}
    documents |= {session.url: (session.made, encode(session)) for session in sessions}
    for url, (_, document) in documents.items():
        if len(document) > LARGEST_SNAPSHOT_SESSION:
            raise LimitError(
                f"What opening {url} reads has {readable_size(len(document))}; a snapshot holds at most "
                f"{readable_size(LARGEST_SNAPSHOT_SESSION)} of a session. Open it without one."
            )
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        try:
            _write(aside, documents)
            aside.replace(path)
        finally:
            with suppress(OSError):
                aside.unlink()
    except OSError as error:
        kind = AccessError if isinstance(error, PermissionError) else TransportError
        raise kind(f"The snapshot {path} cannot be written: {error.strerror or error}.") from error
    return open_snapshots(path)


def replaced(path: Path) -> Snapshots | None:
    """Return the snapshot that writing to a path would replace; anything else is not replaced."""
    # A name that is too long is none that exists.
    if not os.path.exists(path):  # noqa: PTH110
        return None
    try:
        return open_snapshots(path)
    except SnapshotError as error:
        raise OptionError(
            f"{path} is there already, and is no snapshot that could be replaced. {error}"
        ) from error


def _write(path: Path, documents: Mapping[str, tuple[str, bytes]]) -> None:
    entries: dict[str, Entry] = {}
    with path.open("xb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, (url, (made, document)) in enumerate(sorted(documents.items())):
                member = f"sessions/{number}.msgpack"
                archive.writestr(member, document)
                entries[url] = Entry(member, hashlib.sha256(document).hexdigest(), made)
            index = msgspec.json.encode(Index(FORMAT, VERSION, entries))
            archive.writestr(INDEX, msgspec.json.format(index, indent=1))
        file.flush()
        os.fsync(file.fileno())
