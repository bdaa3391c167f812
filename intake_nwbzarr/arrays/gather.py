"""One gather: the chunks that selections touch, fetched at once, decoded on threads while others arrive."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.decode import CHUNK_LIMIT, decode
from intake_nwbzarr.arrays.layout import Layout
from intake_nwbzarr.arrays.selection import Index, Selection, chunk_projections, most_cells, outer
from intake_nwbzarr.arrays.shards import Sharding, Span, locate_chunks, parse_index, spans
from intake_nwbzarr.bounds import MOST_CHUNKS
from intake_nwbzarr.errors import ChunkError, LimitError, ObjectChangedError
from intake_nwbzarr.limits import limits
from intake_nwbzarr.transport.base import Transport

UNDECODED: Final = 512 * 2**20
"""Decoded bytes of the chunks that may be on their way, or wait to be decoded, at a time."""


INLINE: Final = 16 * 2**10
"""Decoded bytes below which a chunk is not worth handing to a thread."""


class Place(Protocol):
    """Puts a part of a decoded chunk where it belongs in the result."""

    def __call__(self, out: NDArray[Any], outside: tuple[Index, ...], part: NDArray[Any]) -> None:
        """Put `part` at the index `outside` of `out`."""


def copy(out: NDArray[Any], outside: tuple[Index, ...], part: NDArray[Any]) -> None:
    """Place values as they are, in the result's byte order."""
    out[outer(outside, out.shape)] = part


@dataclass(frozen=True)
class Reading:
    """One selection from one array, and the result that it fills.

    Parameters
    ----------
    transport
        Where the array is.
    layout
        How it is stored.
    selection
        What of it is wanted.
    out
        The result, with every axis still there.
    place
        How decoded values get into it.
    """

    transport: Transport
    layout: Layout
    selection: Selection
    out: NDArray[Any]
    place: Place = copy

    @property
    def result(self) -> NDArray[Any]:
        """The result, without the axes that were indexed with a number."""
        return self.out.reshape(self.selection.final_shape)


class _Want(NamedTuple):
    """The part of one chunk that one reading wants."""

    reading: Reading
    chunk: int  # within the shard
    inside: tuple[Index, ...]
    outside: tuple[Index, ...]


@dataclass
class _Stored:
    """One stored object to fetch, and all that is wanted from it."""

    transport: Transport
    key: str
    layout: Layout
    coordinates: tuple[int, ...]
    wants: list[_Want] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"The chunk {self.key!r} of the array {self.layout.path!r} in {self.transport.location}"


async def gather(readings: Sequence[Reading]) -> list[NDArray[Any]]:
    """Fill the results of all readings; to be run on the package's event loop.

    Every stored object that is touched is fetched once, whatever touches it.

    Raises
    ------
    ChunkError, LimitError
        When a chunk cannot be decoded. A chunk that is not stored holds the fill value, as Zarr defines.
    """
    objects = _objects(readings)
    if objects:
        largest = max(stored.layout.chain.nbytes for stored in objects)
        slots = min(max(UNDECODED // max(largest, 1), 8), 1024)
        await _all(
            [_work(queue, slots) for queue in [iter(objects)] for _ in range(min(slots, len(objects)))]
        )
    return [reading.result for reading in readings]


def _check_number(readings: Sequence[Reading]) -> None:
    """Refuse more chunks than can be kept account of, before they are listed."""
    total = 0
    for reading in readings:
        axes = zip(reading.selection.axes, reading.layout.chain.shape, strict=True)
        total += prod(most_cells(positions, width) for positions, width in axes)
        if total > MOST_CHUNKS:
            raise LimitError(
                f"A selection from the array {reading.layout.path!r} in {reading.transport.location} touches "
                f"{total:,} chunks; {MOST_CHUNKS:,} are read at once. Select less of it at a time."
            )


def _objects(readings: Sequence[Reading]) -> list[_Stored]:
    _check_number(readings)
    found: dict[tuple[Transport, str], _Stored] = {}
    for reading in readings:
        layout = reading.layout
        for coordinates, want in _wants(reading):
            identity = reading.transport, layout.key(coordinates)
            if (stored := found.get(identity)) is None:
                stored = found[identity] = _Stored(*identity, layout, coordinates)
            stored.wants.append(want)
    return list(found.values())


def _wants(reading: Reading) -> Iterator[tuple[tuple[int, ...], _Want]]:
    """What a reading wants of each chunk, with the coordinates of the stored object."""
    chunk_shape, sharding = reading.layout.chain.shape, reading.layout.sharding
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
        inside, outside = tuple(part.inside for part in parts), tuple(part.outside for part in parts)
        yield cells, _Want(reading, chunk, inside, outside)


async def _all(coroutines: Iterable[Awaitable[None]]) -> None:
    """Run all; at the first failure stop the others and raise it alone."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _work(queue: Iterator[_Stored], slots: int) -> None:
    for stored in queue:
        sharding = stored.layout.sharding
        if sharding is None:
            fetched = await stored.transport.get(stored.key, limit=CHUNK_LIMIT)
            await _finish(stored, {0: None if fetched is None else fetched.data})
        else:
            await _read_shard(stored, sharding, slots)


async def _read_shard(stored: _Stored, sharding: Sharding, slots: int) -> None:
    wanted = {want.chunk for want in stored.wants}
    whole = sharding.is_whole(len(wanted), stored.layout.chunks_in(stored.coordinates))
    size = sharding.index_bytes
    if whole:
        fetched = await stored.transport.get(stored.key, limit=CHUNK_LIMIT)
    elif sharding.at_end:
        fetched = await stored.transport.get(stored.key, suffix=size)
    else:
        fetched = await stored.transport.get(stored.key, start=0, stop=size)
    if fetched is None:
        await _finish(stored, dict.fromkeys(wanted))
        return
    data = memoryview(fetched.data)
    index = parse_index(sharding, data[-size:] if sharding.at_end else data[:size], stored.where)
    found = locate_chunks(index, wanted)
    missing = [chunk for chunk, extent in found.items() if extent is None]
    await _finish(stored, dict.fromkeys(missing))
    present = {chunk: extent for chunk, extent in found.items() if extent is not None}
    if whole:
        everything = Span(0, len(data), present)
        await _finish(stored, _cut(everything, data, stored))
        return
    limited = asyncio.Semaphore(slots)
    await _all([_read_span(stored, span, fetched.etag, limited) for span in spans(present)])


async def _read_span(stored: _Stored, span: Span, etag: str | None, limited: asyncio.Semaphore) -> None:
    async with limited:
        fetched = await stored.transport.get(stored.key, start=span.start, stop=span.stop, etag=etag)
        if fetched is None:
            raise ObjectChangedError(f"{stored.where} was removed while it was being read.")
        await _finish(stored, _cut(span, memoryview(fetched.data), stored))


def _cut(span: Span, data: memoryview, stored: _Stored) -> dict[int, memoryview]:
    for start, stop in span.chunks.values():
        if stop > span.start + len(data) or stop - start > CHUNK_LIMIT:
            raise ChunkError(
                f"{stored.where} is a shard of {len(data)} bytes, but its index names the bytes {start} to "
                f"{stop}; it is truncated or damaged."
            )
    return {
        chunk: data[start - span.start : stop - span.start] for chunk, (start, stop) in span.chunks.items()
    }


async def _finish(stored: _Stored, encoded: Mapping[int, bytes | memoryview | None]) -> None:
    """Decode and place; on a thread, unless it is a trifle."""
    chain = stored.layout.chain
    if not encoded:
        return
    if chain.is_plain and chain.nbytes * len(encoded) <= INLINE:
        _decode_and_place(stored, encoded)
    else:
        await asyncio.get_running_loop().run_in_executor(
            _threads(os.getpid(), limits().decoding_threads), _decode_and_place, stored, encoded
        )


def _decode_and_place(stored: _Stored, encoded: Mapping[int, bytes | memoryview | None]) -> None:
    decoded: dict[tuple[int, str | None], NDArray[Any]] = {}
    for want in stored.wants:
        if want.chunk not in encoded:
            continue
        layout = want.reading.layout
        identity = want.chunk, layout.chain.field
        if identity not in decoded:
            data = encoded[want.chunk]
            if data is None:
                decoded[identity] = np.broadcast_to(layout.fill, layout.chain.shape)
            else:
                destination = _destination(want)
                chunk = decoded[identity] = decode(layout.chain, data, stored.where, destination)
                if destination is not None and np.may_share_memory(chunk, destination):
                    continue
        chunk = decoded[identity]
        want.reading.place(want.reading.out, want.outside, chunk[outer(want.inside, chunk.shape)])


def _destination(want: _Want) -> NDArray[Any] | None:
    """The part of the result that is to be the whole chunk, as it is and in one piece, if there is one."""
    out, shape = want.reading.out, want.reading.layout.chain.shape
    if want.reading.place is not copy or out.dtype != want.reading.layout.chain.dtype or out.dtype.hasobject:
        return None
    if not all(isinstance(entry, slice) for entry in want.outside):
        return None
    part = out[want.outside]
    return part if part.shape == shape and part.flags.c_contiguous and _is_whole(want.inside, shape) else None


def _is_whole(inside: tuple[Index, ...], shape: tuple[int, ...]) -> bool:
    return all(
        isinstance(entry, slice) and (entry.start, entry.stop, entry.step or 1) == (0, length, 1)
        for entry, length in zip(inside, shape, strict=True)
    )


@lru_cache(maxsize=1)
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """The process's decoding threads, of which a forked child has none."""
    return ThreadPoolExecutor(count, f"nwbzarr-decode-{process}")
