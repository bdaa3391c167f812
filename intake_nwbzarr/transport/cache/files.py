"""The files of a chunk cache: a copy of an object or of a part of it, under a checksum of everything.

A file holds a magic line, the SHA-256 of all that follows and of its own path in the cache, a line of JSON
(``etag``, ``size``, ``start``, ``state``), and the bytes as they were received.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from intake_nwbzarr.transport.answers import Bytes

_MAGIC = b"nwbzarr chunk 1\n"
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Copy:
    """A copy of an object, or of a part of it.

    Parameters
    ----------
    etag
        The object's.
    size
        The whole object's, in bytes.
    start
        Where in the object the copy begins.
    state
        The ETag of the session's metadata document when the copy was made or last found unchanged; None where
        that was not known.
    """

    etag: str
    size: int
    start: int
    state: str | None
    data: Bytes = field(repr=False)

    @property
    def stop(self) -> int:
        """Where in the object the copy ends."""
        return self.start + len(self.data)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the object."""
        return len(self.data) == self.size


class PartName(NamedTuple):
    """What the name of a part's file says: where it lies, in an object of which size, with which ETag."""

    start: int
    stop: int
    size: int
    tag: str

    @property
    def text(self) -> str:
        """As the name of a file."""
        return "-".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The inverse of `text`; None for any other file."""
        fields = text.split("-")
        if len(fields) != 4 or not all(number.isdecimal() for number in fields[:3]):
            return None
        start, stop, size = (int(number) for number in fields[:3])
        return cls(start, stop, size, fields[3]) if start < stop <= size else None


def tag(etag: str) -> str:
    """An ETag as a part of a file's name."""
    return hashlib.sha256(etag.encode()).hexdigest()[:16]


def serialise(copy: Copy, path: str) -> tuple[bytes, Bytes]:
    """A file's head and its data: a magic line, a checksum of all that follows, a JSON line, the data."""
    described = {"etag": copy.etag, "size": copy.size, "start": copy.start, "state": copy.state}
    line = json.dumps(described).encode() + b"\n"
    return _MAGIC + _checksum(path, line, copy.data) + line, copy.data


def parse(content: bytes, path: str) -> Copy | None:
    """The copy in a file, None when anything of it is damaged or it is not in its place."""
    start = len(_MAGIC) + _DIGEST
    end = content.find(b"\n", start) + 1
    if not content.startswith(_MAGIC) or end == 0:
        return None
    line, data = content[start:end], content[end:]
    if content[len(_MAGIC) : start] != _checksum(path, line, data):
        return None
    described = json.loads(line)
    return Copy(described["etag"], described["size"], described["start"], described["state"], data)


def _checksum(path: str, line: bytes, data: Bytes) -> bytes:
    # The path is covered as well: a file under another's name is as bad as a damaged one.
    digest = hashlib.sha256(path.encode() + b"\0" + line)
    digest.update(data)
    return digest.digest()
