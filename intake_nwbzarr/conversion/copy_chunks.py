"""Read encoded chunks of a stored array: objects of their own, or ranges of shards."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from functools import partial
from itertools import product

import numpy as np

from intake_nwbzarr.arrays.decode import ChunkName
from intake_nwbzarr.arrays.layout import Layout
from intake_nwbzarr.arrays.shards import ByteRange, Sharding, byte_ranges, locate_chunks, parse_index
from intake_nwbzarr.errors import ChunkError, ObjectChangedError
from intake_nwbzarr.transport.answers import Bytes
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather
from intake_nwbzarr.untrusted_input import LARGEST_OBJECT

type Cell = tuple[int, ...]
"""The coordinates of a chunk in its array's grid of chunks."""


async def read_encoded(
    transport: Transport, layout: Layout, cells: Iterable[Cell], stored: Container[str] | None
) -> dict[Cell, Bytes]:
    """Return the encoded bytes of chunks, without those that are not stored.

    `stored` has the keys of all objects where they are known.
    """
    if layout.sharding is None:
        keys = {cell: layout.key(cell) for cell in cells}
        wanted = [cell for cell, key in keys.items() if stored is None or key in stored]
        fetched = await transport.get_all([keys[cell] for cell in wanted])
        return {cell: found.data for cell, found in zip(wanted, fetched, strict=True) if found is not None}
    shards: dict[Cell, list[Cell]] = {}
    for cell in cells:
        shards.setdefault(_shard(cell, layout.sharding), []).append(cell)
    parts = await gather(
        [
            partial(_of_shard, transport, layout, shard, own)
            for shard, own in shards.items()
            if stored is None or layout.key(shard) in stored
        ]
    )
    return {cell: data for part in parts for cell, data in part.items()}


def _shard(cell: Cell, sharding: Sharding) -> Cell:
    return tuple(at // count for at, count in zip(cell, sharding.counts, strict=True))


async def _of_shard(
    transport: Transport, layout: Layout, shard: Cell, cells: list[Cell]
) -> Mapping[Cell, Bytes]:
    sharding = layout.sharding
    assert sharding is not None  # noqa: S101 - for the type checker
    key, size = layout.key(shard), sharding.index_bytes
    where = ChunkName(layout.path, key, str(transport.location))
    if sharding.at_end:
        tail = await transport.get(key, suffix=size)
    else:
        tail = await transport.get(key, start=0, stop=size)
    if tail is None:
        return {}
    index = parse_index(sharding, tail.data, where)
    numbers = {_number(cell, sharding): cell for cell in cells}
    places = {
        number: extent for number, extent in locate_chunks(index, numbers).items() if extent is not None
    }
    if any(stop - start > LARGEST_OBJECT or (tail.size or stop) < stop for start, stop in places.values()):
        raise ChunkError(
            f"{where} is a shard whose index refers to bytes beyond its end.",
            location=where.location,
            path=key,
            next_step="The shard is truncated or damaged; compare it with the original file.",
        )

    async def fetch(each: ByteRange) -> dict[int, Bytes]:
        found = await transport.get(key, start=each.start, stop=each.stop, etag=tail.etag)
        if found is None:
            raise ObjectChangedError(
                f"{where} was removed while it was being read.", location=where.location, path=key
            )
        data = memoryview(found.data)
        return {
            number: data[start - each.start : stop - each.start]
            for number, (start, stop) in each.chunks.items()
        }

    # A chunk of no bytes cannot be decoded, but is copied like any other.
    present = {number: extent for number, extent in places.items() if extent[1] > extent[0]}
    parts = await gather([partial(fetch, each) for each in byte_ranges(present)])
    empty = {numbers[number]: b"" for number in places.keys() - present.keys()}
    return empty | {numbers[number]: data for part in parts for number, data in part.items()}


def _number(cell: Cell, sharding: Sharding) -> int:
    within = tuple(at % count for at, count in zip(cell, sharding.counts, strict=True))
    return int(np.ravel_multi_index(within, sharding.counts)) if within else 0


def cells_of(coordinates: Cell, counts: Cell, grid: Cell) -> dict[int, Cell]:
    """Return the chunks of a stored object within the grid of an array's chunks, by their number in it."""
    ranges = [
        range(at * count, min((at + 1) * count, total))
        for at, count, total in zip(coordinates, counts, grid, strict=True)
    ]
    found: dict[int, Cell] = {}
    for cell in product(*ranges):
        within = tuple(at % count for at, count in zip(cell, counts, strict=True))
        found[int(np.ravel_multi_index(within, counts)) if within else 0] = cell
    return found
