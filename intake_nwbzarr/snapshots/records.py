"""What a snapshot holds of one session: stored objects as they are, by key, as one msgpack document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from intake_nwbzarr.transport.log import readable_size
from intake_nwbzarr.transport.requests import Listed

CONSOLIDATED: Final = ("zarr.json", ".zmetadata")
"""The documents at a file's root that may hold all of its metadata."""

DOCUMENTS: Final = frozenset({"zarr.json", ".zmetadata", ".zgroup", ".zarray", ".zattrs"})
"""Names of metadata documents."""

# Shown to people, and so nothing but a date.
Date = Annotated[str, msgspec.Meta(pattern="^[0-9T:+-]{0,40}$")]


class KeptObject(msgspec.Struct, frozen=True):
    """A stored object.

    Parameters
    ----------
    data
        Its bytes, as stored; None where there was no such object, which is the array's fill value.
    etag
        That it had; None where the storage has none.
    """

    data: bytes | None
    etag: str | None = None


class KeptFolder(msgspec.Struct, frozen=True):
    """What was directly in a folder, of a store that had to be listed."""

    names: list[str]
    folders: list[str]


class KeptFile(msgspec.Struct):
    """One NWB file.

    Parameters
    ----------
    url
        Where it is, without secrets.
    consolidated
        Whether one document holds all its metadata.
    listing
        Of a file that is not consolidated, the `listing_digest`; None where it cannot be had.
    objects
        By key, relative to the URL.
    folders
        Of a file that is not consolidated, by path.
    """

    url: str
    consolidated: bool = True
    listing: str | None = None
    objects: dict[str, KeptObject] = msgspec.field(default_factory=dict)
    folders: dict[str, KeptFolder] = msgspec.field(default_factory=dict)

    @property
    def documents(self) -> list[str]:
        """Keys of the documents whose change makes the snapshot stale."""
        return [key for key in CONSOLIDATED if key in self.objects and self.objects[key].data is not None]

    @property
    def is_verifiable(self) -> bool:
        """Whether a change of the file's metadata can be found out."""
        return self.listing is not None or (self.consolidated and bool(self.documents))


class KeptSession(msgspec.Struct, frozen=True):
    """A session: its own file first, then those that it links to.

    Parameters
    ----------
    url
        Where it is, without secrets.
    made
        When it was recorded, in UTC, as ISO 8601.
    files
        Its own, and those that links lead to.
    """

    url: str
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
        """The file at a URL, None where it is none of these."""
        return next((file for file in self.files if file.url == url), None)


def encode(session: KeptSession) -> bytes:
    """A session as a msgpack document."""
    return msgspec.msgpack.encode(session)


def decode(document: bytes) -> KeptSession:
    """The inverse of `encode`.

    Raises
    ------
    ValueError, RecursionError
        When the document is anything else.
    """
    return msgspec.msgpack.decode(document, type=KeptSession)


def listing_digest(listed: Iterable[Listed]) -> str | None:
    """The state of a file without consolidated metadata, from a listing of it.

    Returns
    -------
    str or None
        The SHA-256, in hexadecimal, of one line for each metadata document, sorted by key: key, tab, ETag,
        newline, in UTF-8. None where the storage has no ETags.
    """
    digest = hashlib.sha256()
    for entry in sorted(listed, key=lambda entry: entry.key):
        if entry.key.rpartition("/")[2] not in DOCUMENTS:
            continue
        if entry.etag is None:
            return None
        digest.update(f"{entry.key}\t{entry.etag}\n".encode())
    return digest.hexdigest()
