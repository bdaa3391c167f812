"""A stored object as a binary file, for libraries that read files."""

from __future__ import annotations

import io
from typing import Any

from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import run


class SeekableFile(io.RawIOBase):
    """The positions of a binary file of known size, of which subclasses `read`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("before the start")
        self._position = base + offset
        return self._position


class RangedFile(SeekableFile):
    """A stored object as a binary file, of which each read is one request; an `end` that is here needs none.

    An object that was replaced since it had the ETag is an `ObjectChangedError`.
    """

    def __init__(self, transport: Transport, key: str, size: int, etag: str | None, end: bytes = b"") -> None:
        super().__init__(size)
        self._transport, self._key = transport, key
        self._etag, self._end = etag, end

    def readinto(self, buffer: Any, /) -> int:
        """Read a range into a buffer, and return its length."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a range with one request, or none for the end of the object."""
        start = self._position
        stop = self._size if size is None or size < 0 else min(self._size, start + size)
        if stop <= start:
            return b""
        known = self._size - len(self._end)
        if start >= known:
            data = self._end[start - known : stop - known]
        else:
            found = run(self._transport.get(self._key, start=start, stop=stop, etag=self._etag))
            data = b"" if found is None else bytes(found.data)
        self._position = start + len(data)
        return data
