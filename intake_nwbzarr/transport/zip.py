"""A transport that reads the members of a zip file by ranges of it; the key "" is that of a single member."""

from __future__ import annotations

import asyncio
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property

from intake_nwbzarr.errors import LimitError, NotZarrError, ObjectChangedError, ResponseError
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import Bytes, Failure, Fetched, Folder, Listed, Part, Unchanged
from intake_nwbzarr.transport.base import Transport, same_etag, too_large
from intake_nwbzarr.transport.ranged_file import SeekableFile
from intake_nwbzarr.untrusted_input import LARGEST_DIRECTORY, LARGEST_RATIO, SMALL_MEMBER

# The directory is at the end; that of a small session arrives with the first request.
FIRST_TAIL = 128 * 2**10


_LOCAL_HEADER = 30


@dataclass(frozen=True)
class _Directory:
    members: dict[str, zipfile.ZipInfo]
    etag: str | None
    size: int

    @property
    def file(self) -> zipfile.ZipInfo | None:
        """Return the only file of an archive without a Zarr store, such as an HDF5 file."""
        return next(iter(self.members.values())) if len(self.members) == 1 else None

    @cached_property
    def folders(self) -> dict[str, Folder]:
        names: dict[str, list[str]] = {}
        inner: dict[str, set[str]] = {}
        for key in self.members:
            folder, _, name = key.rpartition("/")
            names.setdefault(folder, []).append(name)
            while folder:
                parent, _, own = folder.rpartition("/")
                inner.setdefault(parent, set()).add(own)
                folder = parent
        paths = names.keys() | inner.keys()
        return {
            path: Folder(tuple(sorted(names.get(path, ()))), tuple(sorted(inner.get(path, ()))))
            for path in paths
        }


class ZipTransport(Transport):
    """The members of an archive, with the store at its root or in one single folder."""

    # Requests count in the budget of the inner transport; counting them twice could deadlock.
    budgeted = False
    presence_lasts = 0.0

    # `inner` reads the archive, by its key `name` there.
    def __init__(self, location: Location, inner: Transport, name: str) -> None:
        super().__init__(location)
        self._inner = inner
        self._name = name
        inner.count_for(location.url)
        self._opening: asyncio.Task[_Directory | None] | None = None
        # Offsets in the archive at which members that are read in ranges begin.
        self._starts: dict[str, int] = {}

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        directory = await self._directory()
        member = None
        if directory is not None:
            member = directory.members.get(key) if key else directory.file
        if directory is None or member is None:
            return None
        start, stop = (0, member.file_size) if part is None else part.bounds(member.file_size) or (0, -1)
        if stop < 0:
            return Failure(
                ResponseError, f"the member ends at {member.file_size} bytes, before the requested range"
            )
        if stop - start > limit:
            return too_large(stop - start, limit)
        if member.file_size > SMALL_MEMBER and member.file_size > LARGEST_RATIO * max(
            member.compress_size, 1
        ):
            return Failure(
                LimitError, f"it is compressed more than {LARGEST_RATIO}:1, so it is damaged or malicious"
            )
        if not key:
            return await self._range(member, start, stop, directory)
        data = await self._member(member, directory)
        if isinstance(data, Failure):
            return data
        return Fetched(
            data[start:stop] if part is not None else data,
            _etag(member),
            member.file_size,
        )

    async def _list(self, prefix: str) -> list[Listed]:
        directory = await self._directory()
        start = f"{prefix}/" if prefix else ""
        return [
            Listed(key, member.file_size, _etag(member))
            for key, member in (directory.members if directory is not None else {}).items()
            if key.startswith(start)
        ]

    async def _list_folder(self, folder: str) -> Folder:
        directory = await self._directory()
        return directory.folders.get(folder, Folder((), ())) if directory is not None else Folder((), ())

    async def _member(self, member: zipfile.ZipInfo, directory: _Directory) -> Bytes | Failure:
        """Return a member's bytes, decompressed and verified by their checksum."""
        # The header before a member repeats its name, and an extra field that is often a little longer there.
        begin = member.header_offset
        room = _LOCAL_HEADER + len(member.filename.encode()) + len(member.extra) + 64
        packed = await self._bytes(begin, begin + room + member.compress_size, directory)
        skip = _header_length(packed)
        if skip + member.compress_size > len(packed):
            packed = await self._bytes(begin, begin + skip + member.compress_size, directory)
        body = packed[skip : skip + member.compress_size]
        return await asyncio.to_thread(_unpack, body, member)

    async def _range(
        self, member: zipfile.ZipInfo, start: int, stop: int, directory: _Directory
    ) -> Fetched | Failure:
        """Return bytes of a member that is stored without compression, of which ranges can be read."""
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            return Failure(
                ResponseError,
                f"its member {member.filename!r:.200} is compressed or encrypted",
                advice="Unpack it, or store it in the zip file without compression (zip -0).",
            )
        if member.filename not in self._starts:
            begin = member.header_offset
            head = await self._bytes(begin, begin + _LOCAL_HEADER, directory)
            self._starts[member.filename] = begin + _header_length(head)
        begin = self._starts[member.filename]
        data = await self._bytes(begin + start, begin + stop, directory) if stop > start else b""
        return Fetched(data, _etag(member), member.file_size)

    async def _bytes(self, start: int, stop: int, directory: _Directory) -> Bytes:
        end = min(stop, directory.size)
        if start >= end:
            raise NotZarrError(
                f"{self.location} is a damaged zip file: its directory refers to bytes beyond its end.",
                location=self.location,
                found=start,
                expected=directory.size,
            )
        try:
            fetched = await self._inner.fetch(self._name, Part(start, end), end - start, directory.etag)
        except ResponseError:
            # It may have become shorter.
            self._opening = None
            raise
        # Servers without ETags only tell the size.
        is_same = fetched is not None and fetched.size in {None, directory.size}
        if fetched is None or not is_same or fetched.etag != directory.etag:
            self._opening = None
            raise ObjectChangedError(
                f"{self.location} was replaced or removed while it was being read.",
                location=self.location,
                found=None if fetched is None else fetched.etag,
                expected=directory.etag,
                next_step="Open it again.",
            )
        return fetched.data

    async def _find(self, key: str, etag: str | None) -> Fetched | Unchanged | Failure | None:
        directory = await self._directory()
        member = directory.members.get(key) if directory is not None else None
        if member is None:
            return None
        found = _etag(member)
        return Unchanged() if same_etag(found, etag) else Fetched(b"", found)

    async def _directory(self) -> _Directory | None:
        # Many readers at once share one reading; one that failed, or found nothing, is not remembered.
        if self._opening is None or (
            self._opening.done()
            and (self._opening.cancelled() or self._opening.exception() or self._opening.result() is None)
        ):
            self._opening = asyncio.create_task(self._read_directory())
        return await asyncio.shield(self._opening)

    async def _read_directory(self) -> _Directory | None:
        self._starts = {}
        wanted = FIRST_TAIL
        while True:
            fetched = await self._inner.fetch(self._name, Part(suffix=wanted), LARGEST_DIRECTORY)
            if fetched is None:
                return None
            size = fetched.size if fetched.size is not None else len(fetched.data)
            tail = _Tail(bytes(fetched.data), size)
            try:
                with zipfile.ZipFile(tail) as archive:
                    members = archive.infolist()
                break
            except _NeedsMoreError as more:
                wanted = more.size
            except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
                wanted = 0
            if wanted == 0 or wanted > LARGEST_DIRECTORY:
                raise NotZarrError(
                    f"{self.location} is not a zip file, or is damaged.",
                    location=self.location,
                    expected="a zip file",
                )
        return _Directory(
            _under_one_folder({member.filename: member for member in members if not member.is_dir()}),
            fetched.etag,
            size,
        )


def _header_length(head: Bytes) -> int:
    return _LOCAL_HEADER + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")


def _etag(member: zipfile.ZipInfo) -> str:
    return f"{member.CRC:08x}-{member.file_size:x}"


class _NeedsMoreError(Exception):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class _Tail(SeekableFile):
    """The end of a file, for zipfile, which reads an archive from its end."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(size)
        self._data = data
        self._start = size - len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        if self._position < self._start:
            raise _NeedsMoreError(self._size - self._position)
        begin = self._position - self._start
        data = self._data[begin:] if size is None or size < 0 else self._data[begin : begin + size]
        self._position += len(data)
        return data


def _unpack(body: Bytes, member: zipfile.ZipInfo) -> Bytes | Failure:
    data: Bytes
    if member.compress_type == zipfile.ZIP_DEFLATED:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            # At most one byte more than declared.
            data = unpacker.decompress(body, member.file_size + 1)
        except zlib.error:
            data = b""
    elif member.compress_type == zipfile.ZIP_STORED:
        data = body
    else:
        return Failure(ResponseError, f"its compression (zip method {member.compress_type}) is not supported")
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        return Failure(
            ResponseError, "the member does not have the length and checksum that the archive declares"
        )
    return data


def _under_one_folder(members: dict[str, zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    kept = {name: member for name, member in members.items() if not name.startswith("__MACOSX/")}
    tops = {name.partition("/")[0] for name in kept}
    if len(tops) != 1 or any("/" not in name for name in kept):
        return kept
    start = f"{tops.pop()}/"
    return {name.removeprefix(start): member for name, member in kept.items()}
