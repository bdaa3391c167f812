"""Read the chunk indexes of HDF5 datasets: B-trees, fixed and extensible arrays (section IV.A.2.i)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import LimitError, MetadataError
from intake_nwbzarr.hdf5.chunk_index import ChunkIndex, IndexReader, filtered_entries, numbers_of
from intake_nwbzarr.hdf5.heaps import Heaps, check_distinct, verify_checksum
from intake_nwbzarr.hdf5.source import BLOCK, Cursor
from intake_nwbzarr.untrusted_input import DEEPEST_TREE, MOST_CHUNKS

# Children of a node of a B-tree of version 1, unless the file was created with another number.
_CHILDREN: Final = 64

SMALL: Final = 64 * _CHILDREN
"""Chunks of a dataset up to which its index is read whole: about 64 nodes, which take one round trip."""

SHARE: Final = 4
"""The index is read whole when what was read and is wanted of it is one part of so many."""

MORE_PARTS: Final = 256
"""Parts of an index are read one by one, at least four times and once for so many of its nodes; then all."""

NODE_GAP: Final = 16
"""Blocks between nodes up to which one request fetches both; mostly chunks, which are not needed."""

AT_ONCE: Final = 32 * 2**20
"""Bytes of nodes, with what lies between them, that are received before they are taken apart."""


async def read_index(index: ChunkIndex, heaps: Heaps, wanted: NDArray[np.int64] | None) -> None:
    """Read what of an index leads to chunks; all of it if they are many, or parts were read often."""
    heaps.source.gap = NODE_GAP
    if wanted is not None and _is_worth_a_part(index, wanted):
        try:
            await _read(index, heaps, wanted)
        except _KeysDisagreeError:
            # It is read whole, as if it had no keys.
            pass
        else:
            index.note_known(wanted, received=heaps.source.received > 0)
            return
    await _read(index, heaps, None)
    index.note_known(None)


def _is_worth_a_part(index: ChunkIndex, wanted: NDArray[np.int64]) -> bool:
    if index.layout.index not in {"tree 1", "fixed", "extensible"} or index.total <= SMALL:
        return False
    nodes = index.total // _CHILDREN
    touched = len(index.taken) + len(np.unique(wanted // _CHILDREN))
    return SHARE * touched <= nodes and index.parts < max(4, nodes // MORE_PARTS)


async def _read(index: ChunkIndex, heaps: Heaps, wanted: NDArray[np.int64] | None) -> None:
    reader = IndexReader(index, heaps, wanted)
    address = index.layout.address or 0
    match index.layout.index:
        case "tree 1":
            await _tree_1(reader, address)
        case "tree 2":
            await _tree_2(reader, address)
        case "single":
            size = index.nbytes if index.layout.chunk_size is None else index.layout.chunk_size
            reader.put(np.zeros((1, index.rank), np.uint64), [address], [size], [index.layout.mask])
        case "implicit":
            places = np.stack(index.cells(np.arange(index.total)), axis=1)
            reader.put(places, address + index.elements(places) * np.uint64(index.nbytes), None, None)
        case "fixed":
            await _fixed_array(reader, address)
        case "extensible":
            await _extensible_array(reader, address)


class _KeysDisagreeError(Exception):
    """The keys of a node are not those that its parent has for it, so that a search may miss chunks."""


class _Node(NamedTuple):
    """A node of a B-tree of version 1, and its first and last key in its parent, if they are of interest."""

    address: int
    keys: tuple[bytes, bytes] | None = None


async def _tree_1(reader: IndexReader, root: int) -> None:
    """Read a B-tree of version 1, level by level (section III.A.1)."""
    rank, offsets = reader.rank, reader.heaps.addressing.offsets
    key: list[Any] = [("size", "<u4"), ("mask", "<u4"), ("place", "<u8", (rank + 1,))]
    entry = np.dtype([*key, ("child", f"<u{offsets}")])
    usual = 8 + 2 * offsets + (_CHILDREN + 1) * entry.itemsize - offsets
    wanted = None
    if reader.wanted is not None:
        places = np.zeros((len(reader.wanted), rank + 1), np.uint64)
        places[:, :rank] = reader.wanted * np.array(reader.index.layout.chunks, np.int64)
        wanted = _sortable(places)
    level, seen = [_Node(root)], {root}
    expected: int | None = None
    for _ in range(DEEPEST_TREE):
        below: list[_Node] = []
        depth = 0
        last = np.zeros(0, entry)
        for number, nodes in enumerate(_batches(level, usual)):
            if number:
                reader.heaps.source.forget()
            reader.want((node.address, usual) for node in nodes)
            leaves = [last]
            for node in nodes:
                depth, entries = await _node_1(reader, node, entry)
                if expected not in {None, depth}:
                    raise MetadataError("A B-tree of chunks is damaged: its levels do not descend.")
                if wanted is None:
                    found = [_Node(child) for child in entries["child"].tolist()] if depth else []
                else:
                    found = _leading_to(wanted, node, entries)
                    entries = entries[:-1]
                if depth:
                    below += found
                else:
                    leaves.append(entries)
            if not depth:
                # Chunks are in order from one node to the next.
                joined = np.concatenate(leaves)
                _put_leaves(reader, joined)
                reader.index.taken.update(node.address for node in nodes)
                last = joined[-1:]
        below = [node for node in below if depth > 1 or node.address not in reader.index.taken]
        if not below:
            return
        if len(below) > MOST_CHUNKS:
            raise LimitError(f"A B-tree has more than {MOST_CHUNKS:,} nodes.", expected=MOST_CHUNKS)
        check_distinct([node.address for node in below], seen)
        level, expected = below, depth - 1
    raise MetadataError("A B-tree of chunks is damaged: it has no leaves.")


def _batches(level: list[_Node], size: int) -> Iterator[list[_Node]]:
    """Yield nodes of some bytes, as many at a time as memory allows."""
    batch: list[_Node] = []
    total = 0
    for node in level:
        gap = abs(node.address - batch[-1].address) if batch else 0
        total += size + BLOCK + (gap if gap <= NODE_GAP * BLOCK else 0)
        if total > AT_ONCE:
            yield batch
            batch, total = [], size
        batch.append(node)
    yield batch


async def _node_1(reader: IndexReader, node: _Node, entry: np.dtype[Any]) -> tuple[int, NDArray[Any]]:
    """Return how far a node is above the leaves, and its entries; if some are wanted, also its last key."""
    offsets = reader.heaps.addressing.offsets
    known = reader.index.inner.get(node.address)
    if known is not None:
        return known[0], known[1] if reader.wanted is not None else known[1][:-1]
    head = 8 + 2 * offsets
    cursor = reader.heaps.cursor(await reader.heaps.read(node.address, head))
    cursor.expect(b"TREE")
    if cursor.number(1) != 1:
        raise MetadataError("A B-tree of chunks is of another kind.")
    depth, used = cursor.number(1), cursor.number(2)
    if reader.wanted is None:
        data = await reader.heaps.read(node.address, head + used * entry.itemsize)
        return depth, np.frombuffer(data[head:], entry, used)
    data = await reader.heaps.read(node.address, head + (used + 1) * entry.itemsize - offsets)
    entries = np.frombuffer(bytes(data[head:]) + bytes(offsets), entry)
    if depth:
        reader.index.inner[node.address] = depth, entries
    return depth, entries


def _sortable(places: NDArray[np.uint64]) -> NDArray[np.bytes_]:
    """Return places as texts, which are in the same order."""
    return np.ascontiguousarray(places, ">u8").view(f"S{8 * places.shape[1]}").reshape(-1)


def _leading_to(wanted: NDArray[np.bytes_], node: _Node, entries: NDArray[Any]) -> list[_Node]:
    """Return the children of a node that lead to chunks, which are between the keys before and after each."""
    keys = _sortable(entries["place"])
    if not (keys[:-1] <= keys[1:]).all() or node.keys not in {None, (keys[0], keys[-1])}:
        raise _KeysDisagreeError
    at = np.searchsorted(wanted, keys)
    return [
        _Node(int(entries["child"][place]), (keys[place], keys[place + 1]))
        for place in np.flatnonzero(at[1:] > at[:-1]).tolist()
    ]


def _put_leaves(reader: IndexReader, entries: NDArray[Any]) -> None:
    """Add the chunks of a B-tree of version 1, which must be in order, as HDF5 searches for them."""
    rank = reader.rank
    places = entries["place"][:, :rank]
    is_less, is_equal = np.zeros(max(len(entries) - 1, 0), bool), np.ones(max(len(entries) - 1, 0), bool)
    for axis in range(rank):
        column = places[:, axis]
        is_less |= is_equal & (column[:-1] < column[1:])
        is_equal &= column[:-1] == column[1:]
    widths = np.array(reader.index.layout.chunks, np.uint64)
    if not is_less.all() or (places % widths).any() or entries["place"][:, rank:].any():
        raise MetadataError("A B-tree of chunks is damaged: they are not in order.")
    if not entries["size"].all():
        raise MetadataError("A B-tree of chunks is damaged: one has no bytes.")
    reader.put(places // widths, entries["child"], entries["size"], entries["mask"])


async def _tree_2(reader: IndexReader, address: int) -> None:
    """Read a B-tree of version 2 (records of kind 10 and 11)."""
    kind, size, records = await reader.heaps.joined_records(address, frozenset({10, 11}))
    offsets, rank = reader.heaps.addressing.offsets, reader.rank
    plain_size = offsets + 8 * rank
    wide = size - plain_size - 4
    if size != plain_size if kind == 10 else not 0 < wide <= 8:
        raise MetadataError(f"The index of a dataset has entries of {size} bytes.", found=size)
    if kind == 11:
        entries = filtered_entries(records, offsets, wide, rank)
        places, sizes = entries["place"].reshape(-1, rank), numbers_of(entries["size"])
        reader.put(places, entries["address"], sizes, entries["mask"])
        return
    entry = np.dtype([("address", f"<u{offsets}"), ("place", "<u8", (rank,))])
    plain = np.frombuffer(records, entry)
    reader.put(plain["place"].reshape(-1, rank), plain["address"], None, None)


def _entry_size(reader: IndexReader, cursor: Cursor, signature: bytes) -> tuple[bool, int]:
    cursor.expect(signature)
    version, client, entry = cursor.number(1), cursor.number(1), cursor.number(1)
    least = reader.heaps.addressing.offsets + (5 if client else 0)
    if version or client not in {0, 1} or not least <= entry <= least + (7 if client else 0):
        raise MetadataError("The index of a dataset has an unknown version, or entries of an unknown size.")
    return client == 1, entry


async def _fixed_array(reader: IndexReader, address: int) -> None:
    """Read a fixed array (section VII.C)."""
    heaps = reader.heaps
    offsets, lengths = heaps.addressing.offsets, heaps.addressing.lengths
    data = await reader.kept(address, 8 + lengths + offsets + 4)
    verify_checksum(data)
    cursor = heaps.cursor(data)
    filtered, entry = _entry_size(reader, cursor, b"FAHD")
    page_bits, count, block = cursor.number(1), cursor.length(), cursor.address()
    if block is None:
        return
    if count > MOST_CHUNKS or page_bits > 40:
        raise LimitError(f"A dataset has an index of {count:,} chunks.", found=count, expected=MOST_CHUNKS)
    head = 6 + offsets
    page = 1 << page_bits
    if count <= page:
        data = await reader.kept(block, head + count * entry + 4)
        verify_checksum(data)
        heaps.cursor(data).expect(b"FADB")
        reader.put_elements(0, data[head : head + count * entry], entry, filtered=filtered)
        return
    pages = -(-count // page)
    bitmap = -(-pages // 8)
    data = await reader.kept(block, head + bitmap + 4)
    verify_checksum(data)
    heaps.cursor(data).expect(b"FADB")
    written = np.unpackbits(np.frombuffer(data[head : head + bitmap], np.uint8))[:pages]
    parts = []
    for number in np.flatnonzero(written).tolist():
        elements = min(page, count - number * page)
        start = block + head + bitmap + 4 + number * (page * entry + 4)
        parts.append(_Part(start, elements * entry + 4, number * page, elements))
    await _put_parts(reader, parts, entry, filtered=filtered)


class _Part(NamedTuple):
    """A page or block of an array: where it is, its elements, and how many bytes are before these."""

    address: int
    size: int
    first: int
    elements: int
    head: int = 0


async def _put_parts(reader: IndexReader, parts: list[_Part], entry: int, *, filtered: bool) -> None:
    """Read the parts of an array that have chunks that are wanted and not known."""
    taken = reader.index.taken
    wanted = [
        part for part in parts if part.address not in taken and reader.is_wanted(part.first, part.elements)
    ]
    reader.heaps.want((part.address, part.size) for part in wanted)
    for part in wanted:
        data = await reader.heaps.read(part.address, part.size)
        verify_checksum(data)
        if part.head:
            reader.heaps.cursor(data).expect(b"EADB")
        reader.put_elements(part.first, data[part.head : -4], entry, filtered=filtered)
        taken.add(part.address)


async def _extensible_array(reader: IndexReader, address: int) -> None:
    """Read an extensible array (section VII.D)."""
    heaps = reader.heaps
    offsets, lengths = heaps.addressing.offsets, heaps.addressing.lengths
    data = await reader.kept(address, 12 + 6 * lengths + offsets + 4)
    verify_checksum(data)
    cursor = heaps.cursor(data)
    filtered, entry = _entry_size(reader, cursor, b"EAHD")
    bits, in_index, least, pointers, page_bits = (cursor.number(1) for _ in range(5))
    cursor.take(4 * lengths)
    cursor.length()
    cursor.length()
    index = cursor.address()
    if index is None:
        return
    if (
        not 0 < bits <= 64
        or least < 1
        or least & (least - 1)
        or pointers < 1
        or pointers & (pointers - 1)
        or page_bits > 40
    ):
        raise MetadataError("The index of a dataset is damaged: an extensible array has impossible sizes.")
    # Super block n has 2**(n//2) data blocks of least * 2**((n+1)//2) elements each.
    supers = 1 + bits - (least.bit_length() - 1)
    in_index_supers = 2 * (pointers.bit_length() - 1)
    direct = 2 * (pointers - 1)
    indirect = max(supers - in_index_supers, 0)
    size = 6 + offsets + in_index * entry + (direct + indirect) * offsets + 4
    data = await reader.kept(index, size)
    verify_checksum(data)
    cursor = heaps.cursor(data)
    cursor.expect(b"EAIB")
    cursor.take(2 + offsets)
    reader.put_elements(0, cursor.take(in_index * entry), entry, filtered=filtered)
    array = _ExtensibleArray(entry, filtered, -(-bits // 8), 1 << page_bits)
    first = in_index
    blocks: list[_DataBlock] = []
    for number in range(min(in_index_supers, supers)):
        elements = least << (number + 1) // 2
        for _ in range(1 << number // 2):
            child = cursor.address()
            if child is not None:
                blocks.append(_DataBlock(child, first, elements, None))
            first += elements
    super_blocks = []
    for number in range(in_index_supers, supers):
        child = cursor.address()
        elements = least << (number + 1) // 2
        count = (1 << number // 2) * elements
        if child is not None and reader.is_wanted(first, count):
            super_blocks.append((child, number, first))
        first += count
    blocks += await _super_blocks(reader, array, super_blocks, least)
    await _data_blocks(reader, array, blocks)


@dataclass(frozen=True)
class _ExtensibleArray:
    entry: int
    filtered: bool
    # Bytes of a block's offset into the array.
    wide: int
    # Elements of a page.
    page: int


@dataclass(frozen=True)
class _DataBlock:
    address: int
    # The number of its first element, and how many it has.
    first: int
    elements: int
    # Which of its pages were written; None for all.
    written: NDArray[np.uint8] | None


async def _super_blocks(
    reader: IndexReader, array: _ExtensibleArray, wanted: list[tuple[int, int, int]], least: int
) -> list[_DataBlock]:
    heaps, offsets = reader.heaps, reader.heaps.addressing.offsets
    blocks: list[_DataBlock] = []
    sized = []
    for address, number, first in wanted:
        count, elements = 1 << number // 2, least << (number + 1) // 2
        pages = elements // array.page if elements > array.page else 0
        bitmap = -(-pages // 8)
        size = 6 + offsets + array.wide + count * bitmap + count * offsets + 4
        sized.append((address, size, first, count, elements, pages, bitmap))
    reader.want((address, size) for address, size, *_ in sized)
    check_distinct([address for address, *_ in sized], set())
    for address, size, first, count, elements, pages, bitmap in sized:
        data = await reader.kept(address, size)
        verify_checksum(data)
        cursor = heaps.cursor(data)
        cursor.expect(b"EASB")
        cursor.take(2 + offsets + array.wide)
        bitmaps = [np.frombuffer(cursor.take(bitmap), np.uint8) for _ in range(count)]
        for at in range(count):
            child = cursor.address()
            if child is not None:
                written = np.unpackbits(bitmaps[at])[:pages] if pages else None
                blocks.append(_DataBlock(child, first + at * elements, elements, written))
    return blocks


async def _data_blocks(reader: IndexReader, array: _ExtensibleArray, blocks: list[_DataBlock]) -> None:
    head = 6 + reader.heaps.addressing.offsets + array.wide
    check_distinct([block.address for block in blocks], set())
    parts: list[_Part] = []
    for block in blocks:
        if block.written is None:
            size = head + block.elements * array.entry + 4
            parts.append(_Part(block.address, size, block.first, block.elements, head))
            continue
        size = array.page * array.entry + 4
        start = block.address + head + 4
        parts += [
            _Part(start + number * size, size, block.first + number * array.page, array.page)
            for number in np.flatnonzero(block.written).tolist()
        ]
    await _put_parts(reader, parts, array.entry, filtered=array.filtered)
