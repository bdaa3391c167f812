"""Read selections of many arrays at once: fetch the chunks concurrently, decode them on threads meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from itertools import product
from math import prod
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.decode import ChunkName, decode
from intake_nwbzarr.arrays.layout import Layout, RangedChunks
from intake_nwbzarr.arrays.selection import Index, Selection, chunk_projections, most_cells, outer
from intake_nwbzarr.arrays.shards import ByteRange, Sharding, byte_ranges, locate_chunks, parse_index
from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, NWBZarrError, ObjectChangedError
from intake_nwbzarr.hdf5.chunk_table import ChunkTable, unpack
from intake_nwbzarr.hdf5.filters import undo
from intake_nwbzarr.limits import limits
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.cache import Memory
from intake_nwbzarr.transport.loop import await_all
from intake_nwbzarr.untrusted_input import LARGEST_OBJECT, MOST_CHUNKS

UNDECODED: Final = 512 * 2**20
"""Decoded bytes of the chunks that are fetched, or wait to be decoded, at a time."""


INLINE: Final = 16 * 2**10
"""Decoded bytes up to which a chunk is decoded without a thread."""


_tables: Memory[ChunkTable] = Memory(64 * 2**20)
"""Tables of chunks by the bytes that they are packed in: each task of a computation brings these."""


class Place(Protocol):
    """Writes a part of a decoded chunk into the result."""

    def __call__(self, out: NDArray[Any], outside: tuple[Index, ...], part: NDArray[Any]) -> None:
        """Write `part` at the index `outside` of `out`."""


def copy(out: NDArray[Any], outside: tuple[Index, ...], part: NDArray[Any]) -> None:
    """Write values unchanged, in the result's byte order."""
    out[outer(outside, out.shape)] = part


@dataclass(frozen=True)
class Reading:
    """One selection from one array, and the result that it fills."""

    transport: Transport
    layout: Layout
    selection: Selection
    out: NDArray[Any]  # the result, before axes indexed with an integer are dropped
    place: Place = copy  # how decoded values are written into `out`

    @property
    def result(self) -> NDArray[Any]:
        """Return the result, without the axes that were indexed with an integer."""
        return self.out.reshape(self.selection.final_shape)


class _ChunkPart(NamedTuple):
    """The part of one chunk that one reading selects."""

    reading: Reading
    chunk: int  # the chunk's number within its shard
    inside: tuple[Index, ...]
    outside: tuple[Index, ...]


@dataclass
class _StoredObject:
    """One stored object to fetch: a chunk or a shard, and the parts of it that are selected."""

    transport: Transport
    key: str
    layout: Layout
    coordinates: tuple[int, ...]
    parts: list[_ChunkPart] = field(default_factory=list)
    masks: Mapping[int, int] = field(default_factory=dict)  # filters of HDF5 that single chunks skip

    @cached_property
    def by_chunk(self) -> Mapping[int, Sequence[_ChunkPart]]:
        """Return the parts by the number of their chunk."""
        found: dict[int, list[_ChunkPart]] = {}
        for part in self.parts:
            found.setdefault(part.chunk, []).append(part)
        return found

    @property
    def where(self) -> ChunkName:
        return ChunkName(self.layout.path, self.key, str(self.transport.location))


async def gather(readings: Sequence[Reading]) -> list[NDArray[Any]]:
    """Fill and return the results of all readings; each stored object is fetched once. Runs on the loop."""
    objects = _objects(readings)
    if objects:
        largest = max(stored.layout.chain.nbytes for stored in objects)
        # More than can be requested or decoded at once only cost memory.
        most = limits().requests + limits().decoding_threads
        slots = min(max(UNDECODED // max(largest, 1), 8), most)
        await await_all(
            [_work(queue, slots) for queue in [iter(objects)] for _ in range(min(slots, len(objects)))]
        )
    return [reading.result for reading in readings]


def _check_number(readings: Sequence[Reading]) -> None:
    """Refuse selections of more chunks than fit in memory, before they are listed."""
    total = 0
    for reading in readings:
        axes = zip(reading.selection.axes, reading.layout.chain.shape, strict=True)
        total += prod(most_cells(positions, width) for positions, width in axes)
        if total > MOST_CHUNKS:
            raise LimitError(
                f"A selection from the array {reading.layout.path!r} in {reading.transport.location} touches "
                f"{total:,} chunks; at most {MOST_CHUNKS:,} are read at once.",
                location=reading.transport.location,
                path=reading.layout.path,
                found=total,
                expected=MOST_CHUNKS,
                next_step="Select less at a time.",
            )


def _objects(readings: Sequence[Reading]) -> list[_StoredObject]:
    _check_number(readings)
    found: dict[tuple[Transport, str], _StoredObject] = {}
    for reading in readings:
        layout = reading.layout
        for coordinates, want in _chunk_parts(reading):
            key = layout.key(coordinates) if layout.ranges is None else layout.ranges.index
            identity = reading.transport, key
            if (stored := found.get(identity)) is None:
                stored = found[identity] = _StoredObject(*identity, layout, coordinates)
            stored.parts.append(want)
    return list(found.values())


def _chunk_parts(reading: Reading) -> Iterator[tuple[tuple[int, ...], _ChunkPart]]:
    """Yield the part of each chunk that a reading selects, with the coordinates of its stored object."""
    chunk_shape, sharding = reading.layout.chain.shape, reading.layout.sharding
    ranges = reading.layout.ranges
    axes = (
        list(chunk_projections(positions, width))
        for positions, width in zip(reading.selection.axes, chunk_shape, strict=True)
    )
    for parts in product(*axes):
        cells = tuple(part.cell for part in parts)
        chunk = 0
        if sharding is not None:
            within = tuple(cell % count for cell, count in zip(cells, sharding.counts, strict=True))
            cells = tuple(cell // count for cell, count in zip(cells, sharding.counts, strict=True))
            chunk = int(np.ravel_multi_index(within, sharding.counts)) if within else 0
        elif ranges is not None:
            chunk = int(np.ravel_multi_index(cells, ranges.counts)) if cells else 0
        inside, outside = tuple(part.inside for part in parts), tuple(part.outside for part in parts)
        yield cells, _ChunkPart(reading, chunk, inside, outside)


async def _work(queue: Iterator[_StoredObject], slots: int) -> None:
    for stored in queue:
        sharding = stored.layout.sharding
        if stored.layout.ranges is not None:
            await _read_ranges(stored, stored.layout.ranges, slots)
        elif sharding is None:
            fetched = await stored.transport.get(stored.key, limit=LARGEST_OBJECT)
            await _decode_chunks(stored, {0: None if fetched is None else fetched.data})
        else:
            await _read_shard(stored, sharding, slots)


async def _read_shard(stored: _StoredObject, sharding: Sharding, slots: int) -> None:
    wanted = {part.chunk for part in stored.parts}
    whole = sharding.is_whole(len(wanted), stored.layout.chunks_in(stored.coordinates))
    size = sharding.index_bytes
    if whole:
        fetched = await stored.transport.get(stored.key, limit=LARGEST_OBJECT)
    elif sharding.at_end:
        fetched = await stored.transport.get(stored.key, suffix=size)
    else:
        fetched = await stored.transport.get(stored.key, start=0, stop=size)
    if fetched is None:
        await _decode_chunks(stored, dict.fromkeys(wanted))
        return
    data = memoryview(fetched.data)
    index = parse_index(sharding, data[-size:] if sharding.at_end else data[:size], stored.where)
    found = locate_chunks(index, wanted)
    missing = [chunk for chunk, extent in found.items() if extent is None]
    await _decode_chunks(stored, dict.fromkeys(missing))
    present = {chunk: extent for chunk, extent in found.items() if extent is not None}
    if whole:
        everything = ByteRange(0, len(data), present)
        await _decode_chunks(stored, _slice_chunks(everything, data, stored))
        return
    limited = asyncio.Semaphore(slots)
    await await_all(
        [_read_range(stored, byte_range, fetched.etag, limited) for byte_range in byte_ranges(present)]
    )


async def read_table(transport: Transport, layout: Layout) -> None:
    """Read the table of all chunks of an HDF5 dataset, unless that is known, for what has this layout."""
    if layout.ranges is not None and layout.ranges.contiguous is None:
        await _chunk_table(_StoredObject(transport, layout.ranges.index, layout, ()), layout.ranges, None)


async def _read_ranges(stored: _StoredObject, ranges: RangedChunks, slots: int) -> None:
    """Read chunks that are ranges of one file, after the table of them."""
    wanted = np.array(sorted(stored.by_chunk))
    table, etag = await _chunk_table(stored, ranges, wanted)
    stored.masks = table.masks
    offsets, sizes = table.places(wanted)
    await _decode_chunks(stored, dict.fromkeys(wanted[sizes == 0].tolist()))
    places = zip(wanted.tolist(), offsets.tolist(), sizes.tolist(), strict=True)
    present = {chunk: (start, start + size) for chunk, start, size in places if size}
    limited = asyncio.Semaphore(slots)
    file = replace(stored, key="@")
    await await_all([_read_range(file, each, etag, limited) for each in byte_ranges(present)])


async def _chunk_table(
    stored: _StoredObject, ranges: RangedChunks, wanted: NDArray[np.int64] | None
) -> tuple[ChunkTable, str | None]:
    """Return the table of an array's chunks, or of some, and the ETag of the file in which they are there."""
    if ranges.contiguous is not None:
        try:
            return ranges.pieces, stored.transport.state
        except NWBZarrError as error:
            error.location, error.path = str(stored.transport.location), stored.layout.path
            error.next_step = error.next_step or "It may be damaged: compare it with the original."
            raise
    known = ranges.table
    data, etag = known.data, known.etag
    if data is None:
        fetched = await stored.transport.get_table(stored.key, wanted)
        state = stored.transport.state
        if fetched is None or state not in {None, fetched.etag}:
            raise ObjectChangedError(
                f"{stored.where} was replaced or removed since it was opened.",
                location=stored.transport.location,
                path=stored.layout.path,
                found=None if fetched is None else fetched.etag,
                expected=state,
                next_step="Open it again.",
            )
        data, etag = bytes(fetched.data), fetched.etag
    table = _tables.get(data)
    if table is None:
        # A million chunks take a tenth of a second.
        table = unpack(data) if len(data) < INLINE else await asyncio.to_thread(unpack, data)
    if table.counts != ranges.counts:
        raise MetadataError(
            f"{stored.where} has a table of {table.counts} chunks; expected {ranges.counts}.",
            location=stored.transport.location,
            path=stored.layout.path,
            found=table.counts,
            expected=ranges.counts,
        )
    if table.numbers is None:
        known.data, known.etag = data, etag
        _tables.put(data, table, len(data) + table.offsets.nbytes + table.sizes.nbytes)
    return table, etag


async def _read_range(
    stored: _StoredObject, byte_range: ByteRange, etag: str | None, limited: asyncio.Semaphore
) -> None:
    async with limited:
        fetched = await stored.transport.get(
            stored.key, start=byte_range.start, stop=byte_range.stop, etag=etag
        )
        if fetched is None:
            raise ObjectChangedError(
                f"{stored.where} was removed while it was being read.",
                location=stored.transport.location,
                path=stored.key,
            )
        await _decode_chunks(stored, _slice_chunks(byte_range, memoryview(fetched.data), stored))


def _slice_chunks(byte_range: ByteRange, data: memoryview, stored: _StoredObject) -> dict[int, memoryview]:
    for start, stop in byte_range.chunks.values():
        if stop > byte_range.start + len(data) or stop - start > LARGEST_OBJECT:
            raise ChunkError(
                f"{stored.where} is a shard of {byte_range.start + len(data)} bytes, but its index refers "
                f"to the bytes {start} to {stop}.",
                location=stored.transport.location,
                path=stored.key,
                found=(start, stop),
                next_step="The shard is truncated or damaged; compare it with the original file.",
            )
    return {
        chunk: data[start - byte_range.start : stop - byte_range.start]
        for chunk, (start, stop) in byte_range.chunks.items()
    }


async def _decode_chunks(stored: _StoredObject, encoded: Mapping[int, bytes | memoryview | None]) -> None:
    """Decode chunks into the results: on a thread, unless they are small."""
    chain = stored.layout.chain
    if not encoded:
        return
    if chain.is_plain and chain.nbytes * len(encoded) <= INLINE:
        _decode_and_place(stored, encoded)
    else:
        await asyncio.get_running_loop().run_in_executor(
            _threads(os.getpid(), limits().decoding_threads), _decode_and_place, stored, encoded
        )


def _decode_and_place(stored: _StoredObject, encoded: Mapping[int, bytes | memoryview | None]) -> None:
    for number, data in encoded.items():
        decoded: dict[str | None, NDArray[Any]] = {}
        for part in stored.by_chunk[number]:
            layout = part.reading.layout
            field = layout.chain.field
            if field not in decoded:
                destination = _destination(part) if data is not None else None
                decoded[field] = _decoded(stored, layout, number, data, destination)
                if destination is not None and np.may_share_memory(decoded[field], destination):
                    continue
            chunk = decoded[field]
            part.reading.place(part.reading.out, part.outside, chunk[outer(part.inside, chunk.shape)])


def _decoded(
    stored: _StoredObject,
    layout: Layout,
    number: int,
    data: bytes | memoryview | None,
    destination: NDArray[Any] | None,
) -> NDArray[Any]:
    """Return a decoded chunk, in the destination where that is possible."""
    if data is None:
        return np.broadcast_to(layout.fill, layout.chain.shape)
    if layout.ranges is not None:
        where = stored.where._replace(key=None)
        try:
            mask, undo = stored.masks.get(number, 0), _undoing(stored.transport.location)
            data = layout.ranges.undo(data, mask, layout.chain.nbytes, str(where), destination, undo)
        except NWBZarrError as error:
            error.location, error.path = where.location, where.path
            raise
    return decode(layout.chain, data, stored.where, destination)


def _undoing(location: Location) -> Callable[..., bytes | memoryview]:
    """Return what undoes the filters of HDF5 for a location: in this process, or in the file's own."""
    if location.option("isolate") is None:
        return undo
    from intake_nwbzarr.transport import isolated

    return partial(isolated.undo, location)


def _destination(part: _ChunkPart) -> NDArray[Any] | None:
    """Return the part of the result that a whole chunk can be decoded into without a copy, or None."""
    out, shape = part.reading.out, part.reading.layout.chain.shape
    if part.reading.place is not copy or out.dtype != part.reading.layout.chain.dtype or out.dtype.hasobject:
        return None
    if not all(isinstance(entry, slice) for entry in part.outside):
        return None
    found = out[part.outside]
    return (
        found if found.shape == shape and found.flags.c_contiguous and _is_whole(part.inside, shape) else None
    )


def _is_whole(inside: tuple[Index, ...], shape: tuple[int, ...]) -> bool:
    return all(
        isinstance(entry, slice) and (entry.start, entry.stop, entry.step or 1) == (0, length, 1)
        for entry, length in zip(inside, shape, strict=True)
    )


@lru_cache(maxsize=1)
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Return the thread pool for decoding, a new one in a forked child, which has no threads."""
    return ThreadPoolExecutor(count, f"nwbzarr-decode-{process}")
