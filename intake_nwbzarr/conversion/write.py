"""Write the arrays of a converted session shard by shard, in bounded memory, and read them again."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import AsyncIterator, Callable, Container, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.decode import ChunkName, decode
from intake_nwbzarr.arrays.gather import gather as read_arrays
from intake_nwbzarr.arrays.stored import StoredArray
from intake_nwbzarr.conversion.copy_chunks import Cell, cells_of, read_encoded
from intake_nwbzarr.conversion.encode import encode_chunk, stored_object
from intake_nwbzarr.conversion.journal import Journal
from intake_nwbzarr.conversion.layout import ArrayPlan
from intake_nwbzarr.errors import ConversionError, NWBZarrError, ResponseError
from intake_nwbzarr.hdf5.chunk_table import grid
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.transport.answers import Bytes, Part
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import await_all
from intake_nwbzarr.untrusted_input import MIB

AT_ONCE: Final = 64
"""Blocks of arrays that are worked on concurrently, if they are small."""

MEMORY: Final = 64 * MIB
"""Decoded bytes of the blocks that are worked on; each takes about three times as many."""

READ_AGAIN: Final = 8 * MIB
"""Bytes that are read again at a time, of several small chunks or of one that may be larger."""

LEAST: Final = MIB
"""Bytes that a block counts at least."""


@dataclass
class Writing:
    """One conversion's arrays, and what has been written of them."""

    hierarchy: Hierarchy
    destination: Transport
    journal: Journal
    # The keys of the source's objects, if they are known.
    stored: Container[str] | None
    shard_bytes: int
    verify: bool
    # Changes a reference in an array, as `Relinked.text`.
    relinked: Callable[[str], str]
    # Called with an array's path and decoded bytes that are done.
    told: Callable[[str, int], None]
    objects: int = 0
    kept: int = 0
    size: int = 0
    _since_trim: int = 0
    _room: _Room = field(default_factory=lambda: _Room(MEMORY))

    async def run(self, plans: Sequence[ArrayPlan]) -> None:
        """Write all arrays; the first failure ends it."""
        queue = self._blocks(plans)
        await await_all(self._work(queue) for _ in range(AT_ONCE))

    def _blocks(self, plans: Sequence[ArrayPlan]) -> Iterator[tuple[ArrayPlan, list[Cell]]]:
        for plan in plans:
            for block in plan.blocks(self.shard_bytes):
                yield plan, block

    async def _work(self, queue: Iterator[tuple[ArrayPlan, list[Cell]]]) -> None:
        for plan, block in queue:
            region = plan.region(block)
            size = prod(part.stop - part.start for part in region) * plan.itemsize
            wanted = [cell for cell in block if plan.layout.key(cell) not in self.journal.done]
            self.kept += len(block) - len(wanted)
            if wanted:
                # What is copied is not decoded, or chunk by chunk.
                memory = size // 3 if plan.copied else size
                async with self._room.taken(memory):
                    try:
                        await (
                            self._copy(plan, wanted) if plan.copied else self._encode(plan, wanted, region)
                        )
                    except NWBZarrError as error:
                        error.path = error.path or plan.target.path
                        raise
                self._since_trim += memory
            if self._since_trim > MEMORY // 2:
                self._since_trim = 0
                await asyncio.to_thread(trim_memory)
            self.told(plan.target.path, size)

    async def _copy(self, plan: ArrayPlan, block: Sequence[Cell]) -> None:
        """Write stored objects of the source's encoded chunks."""
        source = plan.source_layout
        total = grid(plan.target.shape, plan.chunk_shape)
        for coordinates in block:
            cells = cells_of(coordinates, plan.counts, total)
            read = await read_encoded(self.hierarchy.transport, source, cells.values(), self.stored)
            chunks = {number: read[cell] for number, cell in cells.items() if cell in read}
            await self._put(plan, coordinates, chunks, None)

    async def _encode(self, plan: ArrayPlan, block: Sequence[Cell], region: tuple[slice, ...]) -> None:
        """Write stored objects of chunks that are encoded anew."""
        values = await self._values(plan, region)
        total = grid(plan.target.shape, plan.chunk_shape)
        chain, fill = plan.layout.chain, plan.layout.fill

        def part(cell: Cell) -> NDArray[Any]:
            """Return the values of a chunk."""
            places = zip(cell, chain.shape, plan.target.shape, region, strict=True)
            own: list[Any] = [
                slice(at * width - within.start, min((at + 1) * width, length) - within.start)
                for at, width, length, within in places
            ]
            own.append(...)
            found: NDArray[Any] = values[tuple(own)]
            return found

        for coordinates in block:
            cells = cells_of(coordinates, plan.counts, total)
            encoded = await await_all(
                asyncio.to_thread(encode_chunk, chain, part(cell), fill) for cell in cells.values()
            )
            chunks = {number: data for number, data in zip(cells, encoded, strict=True) if data is not None}
            parts = {number: part(cell) for number, cell in cells.items()}
            await self._put(plan, coordinates, chunks, parts)

    async def _values(self, plan: ArrayPlan, region: tuple[slice, ...]) -> NDArray[Any]:
        array = StoredArray(self.hierarchy.file, plan.source)
        if plan.source_has_fields:
            values = await _columns(array, region, plan.target.dtype)
        else:
            (values,) = await read_arrays([array.reading(region)])
        if plan.relinked and values.dtype.names is None:
            flat = [self.relinked(str(text)) for text in values.flat]
            values = np.array([*flat, None], dtype=object)[:-1].reshape(values.shape)
        elif plan.relinked:
            for name in plan.source.reference_fields:
                values[name] = [self.relinked(str(text)) for text in values[name].flat]
        return values

    async def _put(
        self,
        plan: ArrayPlan,
        coordinates: Cell,
        chunks: Mapping[int, Bytes],
        values: Mapping[int, NDArray[Any]] | None,
    ) -> None:
        """Write a stored object of encoded chunks, and read it again."""
        pieces = stored_object(plan.layout, chunks)
        if not pieces:
            return
        key = plan.layout.key(coordinates)
        await self.destination.put_pieces(key, pieces)
        if self.verify:
            await self._check(key, pieces)
            where = ChunkName(plan.target.path, key, str(self.hierarchy.location))
            # One after the other: other shards are worked on meanwhile.
            for number in chunks if values is None else values:
                own = None if values is None else values[number]
                await asyncio.to_thread(_check_chunk, plan, where, chunks.get(number), own)
        self.objects += 1
        self.size += sum(map(len, pieces))
        await self.journal.add(key)

    async def _check(self, key: str, pieces: Sequence[Bytes]) -> None:
        """Read an object again: its bytes are those that were written."""
        start, size = 0, None
        for group in _groups(pieces):
            stop = start + sum(map(len, group))
            try:
                found = await self.destination.fetch(key, Part(start, stop), stop - start)
            except ResponseError:
                # It is shorter.
                found = None
            if found is None or not await asyncio.to_thread(_is_same, found.data, group):
                raise ConversionError(
                    f"{self.destination.location}/{key} is not read as it was written.",
                    location=self.destination.location,
                    path=key,
                    next_step="The storage may be failing, or something else writes to it.",
                )
            start, size = stop, found.size
        if size not in {None, start}:
            raise ConversionError(
                f"{self.destination.location}/{key} has {size} bytes; {start} were written.",
                location=self.destination.location,
                path=key,
                found=size,
                expected=start,
                next_step="Something else writes to it.",
            )

    async def put_document(self, key: str, document: bytes) -> None:
        """Write a metadata document, unless an earlier run has."""
        if key in self.journal.done:
            self.kept += 1
            return
        await self.destination.put(key, document)
        self.objects += 1
        self.size += len(document)
        await self.journal.add(key)


async def _columns(array: StoredArray, region: tuple[slice, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read a compound field by field: texts and references in it are Python strings until they are stored."""
    names = dtype.names or ()
    fields = await read_arrays([array.field(name).reading(region) for name in names])
    values = np.empty(fields[0].shape, dtype)
    for name, column in zip(names, fields, strict=True):
        width = dtype[name].itemsize // 4 if dtype[name].kind == "U" else None
        longest = max((len(text) for text in column.flat), default=0) if width is not None else 0
        if width is not None and longest > width:
            raise ConversionError(
                f"The field {name!r} of {array.node.path!r} has a text of {longest} characters; compounds "
                f"have at most {width}.",
                location=array.location,
                path=array.node.path,
                found=longest,
                expected=width,
            )
        values[name] = column
    return values


def _groups(pieces: Sequence[Bytes]) -> Iterator[list[Bytes]]:
    """Yield pieces together that are read again by one request."""
    group: list[Bytes] = []
    for piece in pieces:
        if group and sum(map(len, group)) + len(piece) > READ_AGAIN:
            yield group
            group = []
        group.append(piece)
    yield group


def _is_same(data: Bytes, pieces: Sequence[Bytes]) -> bool:
    # Views of memory are compared byte by byte, arrays many bytes at a time.
    found, at = np.frombuffer(data, np.uint8), 0
    for piece in pieces:
        if not np.array_equal(found[at : at + len(piece)], np.frombuffer(piece, np.uint8)):
            return False
        at += len(piece)
    return at == len(found)


def _check_chunk(plan: ArrayPlan, where: ChunkName, data: Bytes | None, values: NDArray[Any] | None) -> None:
    """Decode a chunk of the destination; one that was encoded anew must have the source's values."""
    layout = plan.layout
    decoded = (
        np.broadcast_to(layout.fill, layout.chain.shape)
        if data is None
        else decode(layout.chain, data, where)
    )
    if values is None:
        return
    inside: list[Any] = [*map(slice, values.shape), ...]
    own = decoded[tuple(inside)]
    if not _is_equal(own, values):
        raise ConversionError(
            f"A chunk of {plan.target.path!r} has other values in the destination than in {where.location}.",
            location=where.location,
            path=plan.target.path,
            next_step="Please report this.",
        )


def _is_equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether values are equal, NaN in the same places included."""
    if other.dtype.kind == "O":
        return bool(np.array_equal(one, other))
    first, second = (
        np.ascontiguousarray(each, other.dtype.newbyteorder("=")).reshape(-1).view(np.uint8)
        for each in (one, other)
    )
    return bool(np.array_equal(first, second))


def trim_memory() -> None:
    """Give memory that was freed back to the system, where the C library is glibc."""
    # It keeps up to 64 MiB for each of many threads, which of chunks of megabytes add up to a gigabyte.
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class _Room:
    """Memory that several blocks share; one that is larger than all of it is worked on alone."""

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Wait for room, and have it while the block is worked on."""
        size = min(max(size, LEAST), self._size)
        async with self._changed:
            await self._changed.wait_for(lambda: self._taken + size <= self._size)
            self._taken += size
        try:
            yield
        finally:
            async with self._changed:
                self._taken -= size
                self._changed.notify_all()
