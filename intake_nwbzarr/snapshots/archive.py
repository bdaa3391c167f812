"""Snapshot files: any number of sessions in one zip archive, each of them found and read by itself."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from intake_nwbzarr.arguments import local_path
from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    LocationNotFoundError,
    NotInSnapshotError,
    SnapshotError,
)
from intake_nwbzarr.snapshots.records import Date, KeptSession, decode
from intake_nwbzarr.transport.log import readable_size
from intake_nwbzarr.urls import check_path

FORMAT: Final = "nwbzarr-snapshot"
VERSION: Final = 1
INDEX: Final = "index.json"

LARGEST_SESSION: Final = 512 * 2**20
"""Bytes of a session's document, unpacked."""

LARGEST_INDEX: Final = 64 * 2**20

# As of archives of sessions: a small member may be all zeros, a large one that expands so is an attack.
SMALL_MEMBER: Final = 64 * 2**20
LARGEST_RATIO: Final = 200

_ANEW: Final = "Make it anew with `nwbzarr snapshot`."


class Entry(msgspec.Struct, frozen=True):
    """A session's line in the index: the archive's member that holds it, that one's SHA-256, and its age."""

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
        """What is kept of one session.

        Raises
        ------
        NotInSnapshotError
            When there is no such session in the file.
        SnapshotError
            When what is there is damaged.
        LimitError
            When it is larger than allowed.
        """
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
        """A session's document, compared with its checksum."""
        document = self._member(entry.member, LARGEST_SESSION)
        if hashlib.sha256(document).hexdigest() != entry.sha256:
            raise self._damaged(f"its member {entry.member!r} has another checksum than its index says")
        return document

    def _read_index(self) -> Index:
        text = self._member(INDEX, LARGEST_INDEX)
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
                f"allowed. It is damaged or hostile. {_ANEW}"
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
    place = local_path(path, "A snapshot is a local file")
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
    """What reading a zip file gives; whatever else happens on the way means that it is damaged."""
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
