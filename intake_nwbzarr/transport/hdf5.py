"""A transport that presents an HDF5 file as the objects of a Zarr store, from byte ranges of the file.

| key | object |
|---|---|
| ``zarr.json`` | the consolidated metadata, with the ETag of the file |
| ``@/GROUP/zarr.json`` | those that one object needs, see `intake_nwbzarr.hierarchy.documents.load_part` |
| ``ARRAY/c/0/0`` | a chunk: numbers without filters, or texts and references in the encoding of Zarr |
| ``ARRAY/c/index`` | the table of an array's chunks, see `intake_nwbzarr.hdf5.chunk_table` |
| ``@`` | the file itself, of which ranges are read |
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from copy import copy
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
from numcodecs import VLenUTF8
from numpy.typing import NDArray

from intake_nwbzarr.errors import (
    ChunkError,
    LimitError,
    MetadataError,
    NotZarrError,
    NWBZarrError,
    ObjectChangedError,
    ResponseError,
    TransportError,
)
from intake_nwbzarr.hdf5 import filters
from intake_nwbzarr.hdf5.chunk_index import ChunkIndex
from intake_nwbzarr.hdf5.chunk_nodes import read_index
from intake_nwbzarr.hdf5.chunk_table import ChunkTable, contiguous_table, grid, pack
from intake_nwbzarr.hdf5.documents import UNREAD, UNREADABLE, ArraySource, Translated, translate
from intake_nwbzarr.hdf5.elements import Address, Budget
from intake_nwbzarr.hdf5.messages import Datatype
from intake_nwbzarr.hdf5.objects import Object, Objects
from intake_nwbzarr.hdf5.source import AROUND, BLOCK, LONG_BEFORE, Source
from intake_nwbzarr.hdf5.walk import Walk
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import Bytes, Failure, Fetched, Folder, Listed, Part, Unchanged
from intake_nwbzarr.transport.base import Transport, is_document, too_large
from intake_nwbzarr.transport.cache import Memory
from intake_nwbzarr.transport.loop import await_all, on_loop
from intake_nwbzarr.transport.request_log import record
from intake_nwbzarr.untrusted_input import LARGEST_OBJECT, LEAST_TEXT, TEXT_PER_VALUE

FIRST: Final = 256 * 2**10
"""Bytes that are requested first of the beginning and of the end of a file.

A small file is read whole; of others, objects that were written last, and their texts, are at the end.
"""

MOST_KEPT: Final = 256 * 2**20
"""Bytes of the metadata of files, as they were received and as documents, that a process keeps."""

MOST_GROUPS: Final = 64
"""Objects of a file for which parts of its metadata are kept."""

FILE: Final = "@"
INDEX: Final = "index"


@dataclass
class _Opened:
    """A file whose metadata were read."""

    etag: str | None
    source: Source
    objects: Objects
    translated: Translated
    document: bytes = b""
    tables: dict[str, _Table] = field(default_factory=dict)


@dataclass
class _Table:
    """What is known of where the chunks of an array are; one reader at a time reads more of it."""

    index: ChunkIndex
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    # All of it, as it is carried in pickles.
    packed: bytes | None = None


# By transport and group. What is read again after it was evicted must still have the same ETag.
_kept: Memory[_Opened] = Memory(MOST_KEPT)


class HDF5Transport(Transport):
    """The objects of a Zarr store that an HDF5 file is presented as."""

    # Requests count in the budget of the inner transport; counting them twice could deadlock.
    budgeted = False
    presence_lasts = 0.0

    # `inner` reads the file, by the key "".
    def __init__(self, location: Location, inner: Transport) -> None:
        super().__init__(location)
        self._inner = inner
        self.conditional = inner.conditional
        inner.count_for(location.url)
        # By the object for which metadata are read, "" for all; and the objects for which some are kept.
        self._reading: dict[str, asyncio.Task[_Opened | None]] = {}
        self._groups: dict[str, None] = {}

    @property
    def refused(self) -> bool:
        """Return whether the storage refused access last."""
        return self._refused or self._inner.refused

    async def check_presence(self, key: str) -> None:
        """Do nothing: the file's own index says which chunks are not stored."""

    async def fetch(self, key: str, part: Part | None, limit: int, etag: str | None = None) -> Fetched | None:
        """Fetch an object, or a part of the file, which must be in the state that is known."""
        if key == FILE:
            return await on_loop(self._get_file(part, limit, etag))
        return await super().fetch(key, part, limit, etag)

    async def _get_file(self, part: Part | None, limit: int, etag: str | None) -> Fetched | None:
        known = next(iter(self._known()), None)
        return self.received(part, limit) or await self._of_file(part, limit, known, etag)

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        group = _group_of(key)
        if group is None and is_document(key):
            # All metadata are in one document.
            return None
        opened = await (self._open_for(key) if group is None else self._current(group))
        if opened is None:
            return None
        if group is not None:
            return _cut(opened.document, part, limit, opened.etag)
        path, chunk = _parsed(key, opened.translated)
        source = self._array(opened, path)
        if source is None:
            return None
        if chunk == INDEX:
            packed = await self._packed(opened, path, source, None)
            return None if packed is None else _cut(packed, part, limit, opened.etag)
        coordinates = _coordinates(chunk, source)
        data = None if coordinates is None else await self._chunk(opened, path, source, coordinates)
        return None if data is None else _cut(data, part, limit, opened.etag)

    async def get_table(self, key: str, chunks: NDArray[np.int64] | None) -> Fetched | None:
        """Get the table of an array's chunks; of a large one that is not known, only of some."""
        safe = self._safe(key)
        found = await on_loop(self._persist("get", safe, lambda: self._get_table(safe, chunks)))
        if found is not None:
            record(self.counted, "get", used=len(found.data))
        return found

    async def _get_table(self, key: str, chunks: NDArray[np.int64] | None) -> Fetched | Failure | None:
        opened = await self._open_for(key)
        path = None if opened is None else _parsed(key, opened.translated)[0]
        source = None if opened is None or path is None else self._array(opened, path)
        if opened is None or path is None or source is None:
            return None
        data = await self._packed(opened, path, source, chunks)
        return None if data is None else Fetched(data, opened.etag, len(data))

    async def _get_unless(
        self, key: str, part: Part | None, limit: int, etag: str
    ) -> Fetched | Unchanged | Failure | None:
        if _group_of(key) is None:
            return await super()._get_unless(key, part, limit, etag)
        found = await self._inner.fetch_unless("", Part(0, 8), 8, etag)
        if isinstance(found, Unchanged):
            return found
        self._forget()
        return await self._get(key, part, limit)

    async def _find(self, key: str, etag: str | None) -> Fetched | Unchanged | Failure | None:
        if key != "zarr.json":
            return None
        found = await self._inner.fetch("", Part(0, 8), 8)
        if found is None:
            return None
        return Unchanged() if etag in {None, found.etag} else found

    async def _list(self, prefix: str) -> list[Listed]:
        opened = await self._open()
        if opened is None or prefix:
            return []
        return [Listed("zarr.json", len(opened.document), opened.etag or "")]

    async def _list_folder(self, folder: str) -> Folder:
        opened = await self._open()
        return Folder((), ()) if opened is None or folder else Folder(("zarr.json",), ())

    def received(self, part: Part | None, limit: int) -> Fetched | None:
        """Return a part of the file that came with the metadata, as small arrays do."""
        if part is None or part.start is None or part.stop is None or part.stop - part.start > limit:
            return None
        for opened in self._known():
            if part.start < part.stop <= opened.source.size:
                data = opened.source.part(part.start, part.stop - part.start)
                if data is not None:
                    return Fetched(data, opened.etag, opened.source.size)
        return None

    # Opening

    def _known(self) -> list[_Opened]:
        """Return what was read of the file and is kept, all of it first."""
        found = [_kept.get((self, group)) for group in ("", *self._groups)]
        return [opened for opened in found if opened is not None]

    async def _open_for(self, key: str) -> _Opened | None:
        """Return the file with the metadata of the array that a key of a chunk belongs to, or with all."""
        path = f"/{key}".rpartition("/c")[0].strip("/")
        for opened in self._known():
            if path in opened.translated.arrays:
                return opened
        return await self._open(path)

    async def _current(self, group: str) -> _Opened | None:
        """Return the file as it is stored now: it may have been replaced since its metadata were read."""
        known = _kept.get((self, "")) or _kept.get((self, group))
        if known is not None:
            found = await self._inner.fetch("", Part(0, 8, lenient=True), 8)
            if found is None or found.etag is None or found.etag != known.etag:
                self._forget()
        return await self._open(group)

    async def _open(self, group: str = "") -> _Opened | None:
        """Return the file with all metadata, or with those that one object needs."""
        known = _kept.get((self, "")) or _kept.get((self, group))
        if known is not None:
            return known
        # Many readers at once share one reading; one that failed, or found nothing, is not remembered.
        reading = self._reading.get(group)
        if reading is None or reading.done():
            reading = self._reading[group] = asyncio.create_task(self._read_metadata(group))
        try:
            return await asyncio.shield(reading)
        except NWBZarrError as error:
            raise copy(error) from None
        finally:
            if reading.done() and self._reading.get(group) is reading:
                # What it returned is kept for as long as there is room.
                del self._reading[group]

    async def _read_metadata(self, group: str) -> _Opened | None:
        first, last = await await_all(
            [self._inner.fetch("", Part(0, FIRST, lenient=True), FIRST), self._end_of_file()]
        )
        if first is None:
            return None
        if first.size is None:
            raise ResponseError(
                f"The server does not say how large {self.location} is, so that it cannot be read in ranges.",
                location=self.location,
            )
        source = Source(first.size, LONG_BEFORE if group else AROUND, AROUND)
        source.put(0, first.data)
        if last is not None and last.etag == first.etag and last.size == first.size:
            start = -(-(first.size - len(last.data)) // BLOCK) * BLOCK
            source.put(start, memoryview(last.data)[start - first.size :] if start < first.size else b"")
        opened = _Opened(first.etag, source, Objects(source), Translated())
        try:
            walk = Walk(opened.objects, group)
            await self._complete(opened, walk.run())
            walk.check()
            if walk.has_several_names:
                return await self._open()
            opened.translated = await asyncio.to_thread(_translated, opened, walk.found, self.location)
            if group and opened.translated.unknown:
                return await self._open()
            opened.document = await asyncio.to_thread(_consolidated, opened.translated)
        except NWBZarrError as error:
            raise self._named(error) from None
        opened.translated.nodes.clear()
        if group:
            self._groups[group] = None
            while len(self._groups) > MOST_GROUPS:
                self._groups.pop(next(iter(self._groups)))
        _kept.put((self, group), opened, source.received + 2 * len(opened.document))
        return opened

    def _forget(self) -> None:
        """Have the metadata read again when they are needed next."""
        self._reading.clear()
        for group in ("", *self._groups):
            _kept.forget((self, group))
        self._groups.clear()

    async def _end_of_file(self) -> Fetched | None:
        """Return the last bytes of the file, None from a server that does not count from the end."""
        try:
            return await self._inner.fetch("", Part(suffix=FIRST), FIRST)
        except (LimitError, TransportError):
            return None

    def _named(self, error: NWBZarrError, path: str | None = None) -> NWBZarrError:
        """Return an error of the parser with the name of the file, and of the array that was read."""
        if error.location is not None:
            return error
        if isinstance(error, NotZarrError):
            return NotZarrError(f"{self.location} is not an HDF5 file.", location=self.location)
        what = f"{self.location}" if path is None else f"The array {path!r} in {self.location}"
        return type(error)(
            f"{what} cannot be read as HDF5. {error.args[0]}",
            location=self.location,
            path=path,
            found=error.found,
            expected=error.expected,
            next_step=error.next_step or "It may be damaged: compare it with the original, or try h5dump.",
        )

    async def _complete(self, opened: _Opened, work: Coroutine[Any, None, None]) -> None:
        """Run a coroutine of the parser to its end, fetching what it and what it starts wait for."""
        source = opened.source
        source.start(work)
        try:
            while ranges := await asyncio.to_thread(source.step):
                await await_all(self._fetch_block(opened, start, stop) for start, stop in ranges)
        finally:
            source.close()

    async def _fetch_block(self, opened: _Opened, start: int, stop: int) -> None:
        opened.source.put(start, await self._bytes(opened, start, stop))

    async def _bytes(self, opened: _Opened, start: int, stop: int) -> Bytes:
        fetched = await self._of_file(Part(start, stop), stop - start, opened)
        if fetched is None or len(fetched.data) != stop - start:
            received = 0 if fetched is None else len(fetched.data)
            raise ResponseError(
                f"{received} bytes of {self.location} were received instead of {stop - start}.",
                location=self.location,
                found=received,
                expected=stop - start,
            )
        return fetched.data

    async def _of_file(
        self, part: Part | None, limit: int, known: _Opened | None, etag: str | None = None
    ) -> Fetched | None:
        """Fetch a part of the file, which must be the one whose metadata are known."""
        try:
            # A cache answers by itself what it has of the file in this state.
            found = await self._inner.fetch("", part, limit, etag if known is None else known.etag)
        except ResponseError:
            # It may have become shorter.
            found = None if known is None else await self._inner.fetch("", Part(0, 8, lenient=True), 8)
            if known is None or _is_same(known, found):
                raise
        if known is not None and not _is_same(known, found):
            self._forget()
            raise ObjectChangedError(
                f"{self.location} was replaced or removed while it was being read.",
                location=self.location,
                found=None if found is None else found.etag,
                expected=known.etag,
                next_step="Open it again.",
            )
        return found

    # Chunks

    def _array(self, opened: _Opened, path: str) -> ArraySource | None:
        """Return where an array is in the file, None if there is no such array."""
        source = opened.translated.arrays.get(path)
        if source is not None and source.kind == "unsupported":
            raise ChunkError(
                f"The array {path!r} in {self.location} cannot be read: {source.reason}.",
                location=self.location,
                path=path,
                found=source.reason,
                next_step="Read it with h5py.",
            )
        return source

    async def _packed(
        self, opened: _Opened, path: str, source: ArraySource, wanted: NDArray[np.int64] | None
    ) -> bytes | None:
        """Return the table of an array's chunks, or of those that are wanted, None if it has no chunks."""
        if source.dataset.layout.kind not in {"chunked", "contiguous"}:
            return None
        table = await self._table(opened, path, source, wanted)
        if table.numbers is not None or path not in opened.tables:
            return pack(table)
        known = opened.tables[path]
        if known.packed is None:
            # A million chunks take half a second.
            known.packed = await asyncio.to_thread(pack, table)
        return known.packed

    async def _table(
        self, opened: _Opened, path: str, source: ArraySource, wanted: NDArray[np.int64] | None
    ) -> ChunkTable:
        """Return the table of an array's chunks, or of those that are wanted; what is missing is read."""
        dataset, base = source.dataset, opened.objects.addressing.base
        try:
            if dataset.layout.kind == "contiguous":
                layout, size = dataset.layout, dataset.datatype.size
                start = None if layout.address is None else base + layout.address
                if start is not None:
                    opened.source.check(start, layout.size)
                shape = dataset.dataspace.shape or ()
                return contiguous_table(shape, source.chunks, size, start, layout.size)
            known = opened.tables.get(path) or opened.tables.setdefault(path, _Table(ChunkIndex(dataset)))
            if wanted is not None and wanted.max() >= known.index.total:
                # They are chunks of a file that was replaced by this one, as its ETag tells.
                wanted = None
            async with known.reading:
                if not known.index.knows(wanted):
                    # A parser of its own over the blocks that are here: tables are read side by side.
                    own = self._beside(opened)
                    await self._complete(own, read_index(known.index, own.objects.heaps, wanted))
            return known.index.table(wanted)
        except NWBZarrError as error:
            raise self._named(error, path) from None

    def _beside(self, opened: _Opened) -> _Opened:
        """Return another parser of the same file, which shares its blocks."""
        source = opened.source.beside()
        objects = Objects(source)
        objects.heaps.addressing = opened.objects.addressing
        return _Opened(opened.etag, source, objects, opened.translated)

    async def _chunk(
        self, opened: _Opened, path: str, source: ArraySource, coordinates: tuple[int, ...]
    ) -> Bytes | None:
        """Return a chunk as Zarr stores it, None if it is not stored."""
        dataset = source.dataset
        raw = await self._raw(opened, path, source, coordinates)
        if raw is None:
            return None
        if source.kind != "elements":
            return raw
        shape = dataset.dataspace.shape or ()
        start = tuple(at * width for at, width in zip(coordinates, source.chunks, strict=True))
        stop = tuple(min(a + w, n) for a, w, n in zip(start, source.chunks, shape, strict=True))
        valid = tuple(slice(0, b - a) for a, b in zip(start, stop, strict=True))
        items = np.frombuffer(raw, np.dtype((np.void, dataset.datatype.size))).reshape(source.chunks)[valid]
        values = await self._values(opened, path, dataset.datatype, items.tobytes(), items.size)
        if opened.translated.unread and _refers_elsewhere(values, opened.translated):
            opened = await self._open() or opened
        texts = [_path_of(value, opened.translated) for value in values]
        if dataset.datatype.kind == "compound":
            empty = [_empty(each.datatype) for each in dataset.datatype.members]
            flat = _placed(texts, items.shape, source.chunks, empty).tolist()
            return json.dumps([*flat, "|O", [len(flat)]]).encode()
        return bytes(VLenUTF8().encode(_placed(texts, items.shape, source.chunks, "")))

    async def _values(self, opened: _Opened, path: str, kind: Datatype, data: bytes, count: int) -> list[Any]:
        found: list[Any] = []
        own = self._beside(opened)
        budget = Budget(min(LARGEST_OBJECT, LEAST_TEXT + TEXT_PER_VALUE * count))

        async def read() -> None:
            found.extend(await own.objects.elements(kind, data, count, budget))

        try:
            await self._complete(own, read())
        except NWBZarrError as error:
            raise self._named(error, path) from None
        return found

    async def _raw(
        self, opened: _Opened, path: str, source: ArraySource, coordinates: tuple[int, ...]
    ) -> Bytes | None:
        """Return the elements of a chunk, without filters and padded to its shape."""
        dataset = source.dataset
        where = f"A chunk of the array {path!r} in {self.location}"
        size = dataset.datatype.size
        nbytes = filters.check_size(source.chunks, size, LARGEST_OBJECT, where)
        if dataset.layout.kind == "compact":
            data: Bytes = dataset.layout.data[: dataset.dataspace.count * size]
            if len(data) < dataset.dataspace.count * size:
                raise ChunkError(
                    f"{where} has {len(data)} bytes; expected {dataset.dataspace.count * size}.",
                    location=self.location,
                    path=path,
                    found=len(data),
                    expected=dataset.dataspace.count * size,
                    next_step="It may be damaged: compare it with the original.",
                )
            return bytes(data).ljust(nbytes, b"\0")
        counts = grid(dataset.dataspace.shape or (), source.chunks)
        number = int(np.ravel_multi_index(coordinates, counts)) if coordinates else 0
        wanted = np.array([number])
        table = await self._table(opened, path, source, wanted)
        start, length = (int(each[0]) for each in table.places(wanted))
        if not length:
            return None
        known = opened.source.part(start, length)
        data = known if known is not None else await self._bytes(opened, start, start + length)
        if dataset.layout.kind == "contiguous":
            return bytes(data).ljust(nbytes, b"\0") if length < nbytes else data
        dtype = dataset.datatype.dtype or np.dtype((np.void, size))
        mask = table.masks.get(number, 0)
        try:
            return await asyncio.to_thread(
                filters.undo, data, dataset.filters, mask, source.chunks, dtype, where
            )
        except NWBZarrError as error:
            error.location, error.path = str(self.location), path
            raise


def _parsed(key: str, translated: Translated) -> tuple[str, str]:
    """Return the path of an array and the name of one of its chunks; "" is that of a scalar's."""
    scalar = key.removesuffix("c").removesuffix("/")
    if scalar != key and scalar in translated.arrays and not translated.arrays[scalar].chunks:
        return scalar, ""
    path, _, chunk = f"/{key}".rpartition("/c/")
    return path.removeprefix("/"), chunk


def _group_of(key: str) -> str | None:
    """Return the path of the object whose metadata a key stands for, "" for all, None for other keys."""
    if key == "zarr.json":
        return ""
    if key.startswith(f"{FILE}/") and key.endswith("/zarr.json"):
        return key.removeprefix(f"{FILE}/").removesuffix("/zarr.json")
    return None


def _translated(
    opened: _Opened, found: Mapping[int, Object | MetadataError], location: Location
) -> Translated:
    return translate(opened.objects.root or 0, found, opened.objects.addressing.base, location)


def _coordinates(text: str, source: ArraySource) -> tuple[int, ...] | None:
    """Return the coordinates of a chunk in its key, None if there is no such chunk."""
    parts = text.split("/") if text else []
    if not all(part.isdecimal() and len(part) < 20 for part in parts) or len(parts) != len(source.chunks):
        return None
    shape = source.dataset.dataspace.shape or (0,) * len(source.chunks)
    found = tuple(int(part) for part in parts)
    inside = all(at * width < length for at, width, length in zip(found, source.chunks, shape, strict=True))
    return found if inside else None


def _path_of(value: Any, translated: Translated) -> Any:
    match value:
        case Address(None):
            return ""
        case Address(address):
            return f"/{translated.paths[address]}" if address in translated.paths else ""
        case list():
            return [_path_of(item, translated) for item in value]
    return value


def _refers_elsewhere(values: list[Any], translated: Translated) -> bool:
    """Return whether a reference is to an object whose path is not known."""
    return any(
        _refers_elsewhere(value, translated)
        if isinstance(value, list)
        else isinstance(value, Address) and value.value is not None and value.value not in translated.paths
        for value in values
    )


def _empty(kind: Datatype) -> Any:
    return "" if kind.dtype is None else False if kind.is_bool else np.zeros((), kind.dtype).item()


def _placed(values: list[Any], shape: tuple[int, ...], chunks: tuple[int, ...], empty: Any) -> NDArray[Any]:
    """Return the elements of a chunk in C order: values at its beginning along every axis, and empty ones."""
    inner, whole = np.empty(len(values), object), np.empty(prod(chunks), object)
    for at, value in enumerate(values):
        inner[at] = value
    if shape == chunks:
        return inner
    for at in range(len(whole)):
        whole[at] = empty
    whole.reshape(chunks)[tuple(slice(0, length) for length in shape)] = inner.reshape(shape)
    return whole


def _consolidated(translated: Translated) -> bytes:
    root, *others = sorted(translated.nodes)
    whole = {
        **translated.nodes[root],
        **({UNREADABLE: translated.unreadable} if translated.unreadable else {}),
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {path: translated.nodes[path] for path in others},
        },
        **({UNREAD: translated.unread} if translated.unread else {}),
    }
    return json.dumps(whole, separators=(",", ":")).encode()


def _cut(data: Bytes, part: Part | None, limit: int, etag: str | None) -> Fetched | Failure:
    bounds = (0, len(data)) if part is None else part.bounds(len(data))
    if bounds is None:
        return Failure(ResponseError, f"the object ends at {len(data)} bytes, before the requested range")
    if bounds[1] - bounds[0] > limit:
        return too_large(bounds[1] - bounds[0], limit)
    return Fetched(data[slice(*bounds)], etag, len(data))


def _is_same(known: _Opened, found: Fetched | None) -> bool:
    """Return whether a file is the one that is known: servers without ETags only tell its size."""
    return found is not None and found.etag == known.etag and found.size in {None, known.source.size}
