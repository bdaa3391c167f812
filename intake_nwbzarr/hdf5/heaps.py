"""Heaps of an HDF5 file and B-trees of version 2: where links, attributes and variable-length values are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numcodecs.checksum32 import JenkinsLookup3

from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError
from intake_nwbzarr.hdf5.filters import undo
from intake_nwbzarr.hdf5.messages import Filter, filters
from intake_nwbzarr.hdf5.source import Cursor, Source, together
from intake_nwbzarr.untrusted_input import DEEPEST_TREE, MOST_CHUNKS, MOST_DECODED, MOST_NODES

# Bytes of a global heap collection, unless one of its objects needs more.
_COLLECTION: Final = 4096


MOST_GUESSED: Final = 8
"""Parts of a group's index that are fetched before it is known which of them is needed."""


@dataclass
class Addressing:
    """How addresses and lengths are stored in a file."""

    # Bytes of an address, and of a length.
    offsets: int
    lengths: int
    # What addresses are counted from: the end of the user block.
    base: int

    def defined(self, address: int) -> int | None:
        """Return an address, None for the undefined one."""
        return None if address == (1 << 8 * self.offsets) - 1 else address


@dataclass(frozen=True)
class Collection:
    """A global heap collection: its objects by index, as ranges of its bytes."""

    data: memoryview = field(repr=False)
    objects: dict[int, tuple[int, int]]

    def get(self, index: int) -> memoryview:
        """Return an object."""
        if index not in self.objects:
            raise MetadataError(f"A global heap has no object {index}.", found=index)
        start, stop = self.objects[index]
        return self.data[start:stop]


class Heaps:
    """Reads heaps and trees from a source; what is read several times is kept."""

    def __init__(self, source: Source, addressing: Addressing) -> None:
        self.source = source
        self.addressing = addressing
        self._collections: dict[int, Collection] = {}
        self._heaps: dict[int, FractalHeap] = {}
        # Bytes that compressed heaps may still be decoded to.
        self.left = MOST_DECODED

    def cursor(self, data: bytes | memoryview) -> Cursor:
        """Return a cursor that takes addresses and lengths of this file."""
        return Cursor(data, self.addressing.offsets, self.addressing.lengths)

    async def read(self, address: int, size: int, *, alone: bool = False) -> memoryview:
        """Return bytes at an address, with `alone` without having their neighbours fetched as well."""
        return await self.source.read(self.addressing.base + address, size, alone=alone)

    async def read_at_most(self, address: int, size: int) -> memoryview:
        """Return bytes at an address, fewer at the end of the file."""
        start = self.addressing.base + address
        return await self.source.read(start, max(1, min(size, self.source.size - start)))

    def want(self, parts: Iterable[tuple[int, int]]) -> None:
        """Have parts of the file fetched along with what is read next."""
        for address, size in parts:
            self.source.want(self.addressing.base + address, size)

    # The global heap (section III.E)

    def known_collection(self, address: int) -> Collection | None:
        """Return a global heap collection, None if it was not read yet."""
        return self._collections.get(address)

    async def collection(self, address: int) -> Collection:
        """Return a global heap collection."""
        known = self._collections.get(address)
        if known is not None:
            return known
        self.want([(address, _COLLECTION)])
        cursor = self.cursor(await self.read(address, 8 + self.addressing.lengths))
        cursor.expect(b"GCOL")
        if cursor.number(1) != 1:
            raise MetadataError("A global heap has an unknown version.")
        cursor.take(3)
        data = await self.read(address, cursor.length())
        cursor = self.cursor(data)
        cursor.take(8 + self.addressing.lengths)
        objects: dict[int, tuple[int, int]] = {}
        while cursor.at + 8 + self.addressing.lengths <= len(data):
            index = cursor.number(2)
            cursor.take(6)
            size = cursor.length()
            if index == 0:
                break
            objects[index] = cursor.at, cursor.at + size
            cursor.take(size)
            cursor.take(min(-size % 8, len(data) - cursor.at))
        return self._collections.setdefault(address, Collection(data, objects))

    # B-trees of version 2 (section III.A.2)

    async def records(
        self, address: int, kind: int, least: int, only: int | None = None
    ) -> list[bytes | memoryview]:
        """Return the records of a B-tree of version 2, in no order, after checking their kind and size.

        With `only`, a hash with which records begin, those with that one and some beside them.
        """
        _, size, joined = await self.joined_records(address, frozenset({kind}), only)
        if joined and size < least:
            raise MetadataError(f"The records of a B-tree have {size} bytes; expected {least}.", found=size)
        if len(joined) > MOST_NODES * size:
            raise LimitError(f"An object has more than {MOST_NODES:,} members.", expected=MOST_NODES)
        return [joined[at : at + size] for at in range(0, len(joined), size or 1)]

    async def joined_records(
        self, address: int, kinds: frozenset[int], only: int | None = None
    ) -> tuple[int, int, bytes]:
        """Return the kind and size of a version 2 B-tree's records, and all of them, level by level."""
        offsets, lengths = self.addressing.offsets, self.addressing.lengths
        data = await self.read(address, 16 + offsets + 2 + lengths + 4)
        verify_checksum(data)
        cursor = self.cursor(data)
        cursor.expect(b"BTHD")
        version, kind = cursor.number(1), cursor.number(1)
        if version != 0 or kind not in kinds:
            raise MetadataError(f"A B-tree has the version {version} and the kind {kind}; expected {kinds}.")
        node_size, record_size, depth = cursor.number(4), cursor.number(2), cursor.number(2)
        cursor.take(2)
        root, count, total = cursor.address(), cursor.number(2), cursor.length()
        if root is None:
            return kind, record_size, b""
        if depth > DEEPEST_TREE or record_size < 1 or node_size < 16 or total > MOST_CHUNKS:
            raise MetadataError(f"A B-tree of {depth} levels with {total} records is damaged.")
        tree = _Tree(kind, node_size, record_size, offsets, depth)
        level = [(root, count)]
        found: list[bytes | memoryview] = []
        visited = {root}
        seen = 0
        for below in range(depth, -1, -1):
            nodes = [(address, tree.used(count, below) + 4, count) for address, count in level]
            self.want([(address, size) for address, size, _ in nodes])
            level = []
            for address, size, count in nodes:
                records, children = self._node(tree, await self.read(address, size, alone=True), count, below)
                found.append(records)
                if only is not None and children:
                    # Records and children are in the order of the hashes; equal ones may be on both sides.
                    hashes = [
                        int.from_bytes(records[at : at + 4], "little")
                        for at in range(0, len(records), record_size)
                    ]
                    children = children[bisect_left(hashes, only) : bisect_right(hashes, only) + 1]
                level += children
                seen += count
                if seen > total:
                    raise MetadataError(f"A B-tree has more than its {total} records.")
            check_distinct([child for child, _ in level], visited)
        if seen != total and only is None:
            raise MetadataError(f"A B-tree has {seen} records; expected {total}.", found=seen, expected=total)
        return kind, record_size, b"".join(found)

    def _node(
        self, tree: _Tree, data: memoryview, count: int, depth: int
    ) -> tuple[bytes | memoryview, list[tuple[int, int]]]:
        """Return the records of a node, and its children with the number of records in each."""
        verify_checksum(data)
        cursor = self.cursor(data)
        cursor.expect(b"BTIN" if depth else b"BTLF")
        if cursor.number(1) != 0 or cursor.number(1) != tree.kind:
            raise MetadataError("A node of a B-tree is of another kind or version.")
        records = cursor.take(count * tree.record_size)
        children = []
        for _ in range(count + 1 if depth else 0):
            child, inner = cursor.address(), cursor.number(tree.count_size)
            cursor.take(tree.pointer(depth) - self.addressing.offsets - tree.count_size)
            if child is not None:
                children.append((child, inner))
        return records, children

    # The table of messages that objects share (sections III.H and IV.A.2.p)

    async def shared(self, message: bytes | memoryview) -> dict[int, FractalHeap]:
        """Return the heap of each kind of shared messages, of a message that tells where their table is."""
        cursor = self.cursor(message)
        version, address, count = cursor.number(1), cursor.address(), cursor.number(1)
        if version or address is None:
            raise MetadataError("A table of shared messages has an unknown version or no address.")
        table = await self.read(address, 8 + count * (14 + 2 * self.addressing.offsets))
        verify_checksum(table)
        cursor = self.cursor(table)
        cursor.expect(b"SMTB")
        heaps: dict[int, FractalHeap] = {}
        for _ in range(count):
            cursor.take(2)
            kinds = cursor.number(2)
            # Sizes and counts, and an index by their contents that only writers use.
            cursor.take(10 + self.addressing.offsets)
            heap = cursor.address()
            if heap is not None:
                found = await self.whole_heap(heap)
                heaps |= {kind: found for kind in range(16) if kinds >> kind & 1}
        return heaps

    # The fractal heap (section III.G)

    async def fractal_heap(self, address: int) -> FractalHeap:
        """Return a fractal heap by the address of its header."""
        known = self._heaps.get(address)
        if known is None:
            known = self._heaps.setdefault(address, await self._fractal_heap(address))
        return known

    async def whole_heap(self, address: int, most: int = MOST_NODES) -> FractalHeap:
        """Return a fractal heap after having its last blocks fetched, which are the largest."""
        heap = await self.fractal_heap(address)
        await heap.fetch_all(most)
        return heap

    async def _fractal_heap(self, address: int) -> FractalHeap:
        offsets, lengths = self.addressing.offsets, self.addressing.lengths
        size = 22 + 3 * offsets + 12 * lengths
        data = await self.read(address, size)
        cursor = self.cursor(data)
        cursor.expect(b"FRHP")
        if cursor.number(1) != 0:
            raise MetadataError("A fractal heap has an unknown version.")
        id_length, filtered, flags, largest_managed = (
            cursor.number(2), cursor.number(2), cursor.number(1), cursor.number(4)
        )  # fmt: skip
        cursor.length()
        huge_tree = cursor.address()
        cursor.length()
        cursor.address()
        cursor.take(4 * lengths)
        cursor.take(4 * lengths)
        width, start_size, largest_block, bits = (
            cursor.number(2), cursor.length(), cursor.length(), cursor.number(2)
        )  # fmt: skip
        cursor.take(2)
        root, rows = cursor.address(), cursor.number(2)
        if filtered:
            size += lengths + 4 + filtered
        data = await self.read(address, size + 4)
        verify_checksum(data)
        cursor = self.cursor(data[cursor.at : size])
        root_size, mask = (cursor.length(), cursor.number(4)) if filtered else (start_size, 0)
        pipeline = filters(cursor.data[cursor.at :]) if filtered else ()
        powers = all(
            0 < value <= 2**40 and value & (value - 1) == 0 for value in (width, start_size, largest_block)
        )
        if not powers or not 0 < bits <= 64 or largest_block < start_size or rows > 64:
            raise MetadataError("A fractal heap is damaged: its blocks have impossible sizes.")
        return FractalHeap(
            self, id_length, largest_managed, huge_tree, width, start_size, largest_block, bits,
            _Block(root, start_size, rows, root_size, mask), bool(flags & 2), pipeline,
        )  # fmt: skip


@dataclass(frozen=True)
class _Tree:
    """The sizes of nodes of a B-tree of version 2."""

    kind: int
    node_size: int
    record_size: int
    offsets: int
    depth: int
    # The most records of a node, and of it with all below, by depth.
    most: list[int] = field(default_factory=list)
    total: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.most.append((self.node_size - 10) // self.record_size)
        self.total.append(self.most[0])
        for depth in range(1, self.depth + 1):
            pointer = self.pointer(depth)
            self.most.append(max((self.node_size - 10 - pointer) // (self.record_size + pointer), 0))
            self.total.append((self.most[depth] + 1) * self.total[depth - 1] + self.most[depth])

    @property
    def count_size(self) -> int:
        """Return the bytes of the number of records in a child."""
        return _bytes_for(self.most[0])

    def used(self, count: int, depth: int) -> int:
        """Return the bytes of a node with some records, without its checksum."""
        if count > self.most[depth]:
            raise MetadataError(f"A node of a B-tree has {count} records; {self.most[depth]} fit.")
        return 6 + count * self.record_size + ((count + 1) * self.pointer(depth) if depth else 0)

    def pointer(self, depth: int) -> int:
        """Return the bytes of a pointer from a node at a depth to its child."""
        below = _bytes_for(self.total[depth - 1]) if depth > 1 else 0
        return self.offsets + self.count_size + below


@dataclass(frozen=True)
class _Block:
    """Where a block of a fractal heap is stored."""

    address: int | None
    # Bytes of the heap that it holds, or that all below it hold.
    size: int
    # Rows of an indirect block, 0 of a direct one.
    rows: int
    # Bytes as stored, and which filters were skipped: of a direct block.
    stored: int
    mask: int = 0


@dataclass(frozen=True)
class FractalHeap:
    """A fractal heap, of which objects are read by their IDs."""

    heaps: Heaps = field(repr=False)
    id_length: int
    largest_managed: int
    huge_tree: int | None
    width: int
    start_size: int
    largest_block: int
    # Bits of an offset into the heap.
    bits: int
    root: _Block
    has_checksums: bool
    # Of direct blocks and huge objects.
    filters: tuple[Filter, ...] = ()
    # Blocks that were read and whose checksums were verified.
    blocks: dict[_Block, memoryview] = field(default_factory=dict, repr=False)
    # Where huge objects are: address, length, mask and length without filters by number, once read.
    huge: dict[int, tuple[int, int, int, int]] = field(default_factory=dict, repr=False)

    async def get(self, identifier: bytes | memoryview) -> bytes | memoryview:
        """Return an object by its heap ID."""
        cursor = self.heaps.cursor(identifier)
        kind = cursor.number(1)
        match kind >> 4 & 3:
            case 0:
                offset = cursor.number(self.offset_size)
                return await self._managed(offset, cursor.number(self._length_size))
            case 1:
                return await self._huge(cursor)
            case 2 if self.id_length <= 18:
                return cursor.take((kind & 15) + 1)
            case 2:
                return cursor.take(((kind & 15) << 8 | cursor.number(1)) + 1)
        raise MetadataError(f"An object of a fractal heap is of the unknown kind {kind}.")

    @property
    def offset_size(self) -> int:
        """Return the bytes of an offset into the heap."""
        return -(-self.bits // 8)

    @property
    def _length_size(self) -> int:
        # Of the block, HDF5 counts the bits of an offset into it.
        return min(_bytes_for(self.largest_block - 1), _bytes_for(self.largest_managed))

    def _row_size(self, row: int) -> int:
        return self.start_size << max(row - 1, 0)

    @property
    def _direct_rows(self) -> int:
        return self.largest_block.bit_length() - self.start_size.bit_length() + 2

    async def _managed(self, offset: int, length: int) -> memoryview:
        """Return a part of the blocks of the heap, which lies in one of them."""
        block, start = self.root, 0
        for _ in range(DEEPEST_TREE):
            if block.address is None:
                break
            data = await self._block(block)
            if not block.rows:
                if not start <= offset <= offset + length <= start + block.size:
                    break
                return data[offset - start : offset - start + length]
            # The row that the offset is in, and the block of that row.
            row, first = 0, start
            while row < block.rows and offset >= first + self.width * self._row_size(row):
                first += self.width * self._row_size(row)
                row += 1
            if row >= block.rows:
                break
            column = (offset - first) // self._row_size(row)
            start = first + column * self._row_size(row)
            block = self._child(data, row * self.width + column)
        raise MetadataError(f"A fractal heap has nothing at its offset {offset}.", found=offset)

    async def fetch_all(self, most: int) -> None:
        """Have blocks fetched in the next round, the last ones of each level."""
        level = [self.root]
        seen = 0
        for _ in range(DEEPEST_TREE):
            direct = [(each.address, each.stored) for each in level if each.address and not each.rows]
            self.heaps.want(direct[-most:])
            level = [each for each in level if each.address is not None and each.rows]
            found = await together(*map(self._block, level))
            level = [
                child
                for block, data in zip(level, found, strict=True)
                for number in range(block.rows * self.width)
                if (child := self._child(data, number)).address is not None
            ]
            seen += len(level)
            if not level or seen > MOST_NODES:
                return

    @property
    def _head(self) -> int:
        return 5 + self.heaps.addressing.offsets + self.offset_size

    def _place(self, number: int) -> int:
        """Return where an indirect block has its entry of a number, or ends."""
        direct = min(number, self._direct_rows * self.width)
        filtered = self.heaps.addressing.lengths + 4 if self.filters else 0
        return self._head + number * self.heaps.addressing.offsets + direct * filtered

    def _child(self, data: memoryview, number: int) -> _Block:
        """Return a child of an indirect block."""
        cursor = self.heaps.cursor(data)
        cursor.at = self._place(number)
        address, size = cursor.address(), self._row_size(number // self.width)
        if number // self.width >= self._direct_rows:
            # An indirect block has as many rows as fill its size.
            return _Block(address, size, (size // self.start_size // self.width).bit_length(), 0)
        if not self.filters:
            return _Block(address, size, 0, size)
        return _Block(address, size, 0, cursor.length(), cursor.number(4))

    async def _block(self, block: _Block) -> memoryview:
        """Return a direct or indirect block after checking it once."""
        known = self.blocks.get(block)
        if known is not None:
            return known
        assert block.address is not None  # noqa: S101 - for the type checker
        size = self._place(block.rows * self.width) + 4 if block.rows else block.stored
        data = await self.heaps.read(block.address, size)
        if not block.rows:
            data = self._unfiltered(data, block.mask, block.size)
        if bytes(data[:5]) != (b"FHIB\0" if block.rows else b"FHDB\0"):
            raise MetadataError("A block of a fractal heap has another signature or version.")
        if block.rows:
            verify_checksum(data)
        elif self.has_checksums:
            # The checksum is in the middle, and is that of the block with zeros in its place.
            head = self._head
            verify_checksum(
                bytes(data[:head]) + bytes(4) + bytes(data[head + 4 :]) + bytes(data[head : head + 4])
            )
        return self.blocks.setdefault(block, data)

    def _unfiltered(self, data: memoryview, mask: int, size: int) -> memoryview:
        """Return a direct block or a huge object as it is without filters."""
        if not self.filters:
            return data
        self.heaps.left -= size
        if self.heaps.left < 0:
            raise LimitError("Its compressed heaps are longer than allowed when they are decoded.")
        try:
            return memoryview(undo(data, self.filters, mask, (size,), np.dtype("u1"), "A fractal heap"))
        except ChunkError as error:
            raise MetadataError(str(error)) from error

    async def _huge(self, cursor: Cursor) -> bytes | memoryview:
        """Return an object that is stored outside of the heap's blocks."""
        offsets, lengths = self.heaps.addressing.offsets, self.heaps.addressing.lengths
        # IDs have at most eight bytes, which no address with lengths and a mask fits.
        if self.id_length >= 1 + offsets + lengths and not self.filters:
            address, length, mask, size = cursor.address(), cursor.length(), 0, 0
        else:
            wanted = cursor.number(max(min(self.id_length - 1, lengths), 0))
            if not self.huge and self.huge_tree is not None:
                await self._read_huge(self.huge_tree)
            address, length, mask, size = self.huge.get(wanted, (None, 0, 0, 0))
        if address is None:
            raise MetadataError("A huge object of a fractal heap is missing.")
        return self._unfiltered(await self.heaps.read(address, length), mask, size)

    async def _read_huge(self, tree: int) -> None:
        least = self.heaps.addressing.offsets + 2 * self.heaps.addressing.lengths
        kind, least = (2, least + 4 + self.heaps.addressing.lengths) if self.filters else (1, least)
        for record in await self.heaps.records(tree, kind, least):
            entry = self.heaps.cursor(record)
            start, length = entry.address(), entry.length()
            mask, size = (entry.number(4), entry.length()) if self.filters else (0, 0)
            number = entry.length()
            if start is not None:
                self.huge[number] = start, length, mask, size


def check_distinct(addresses: Iterable[int], seen: set[int]) -> None:
    """Check that nodes or blocks were not seen before, and add them to those that were."""
    # Otherwise a small file could describe an endless tree, or one of a billion nodes.
    for address in addresses:
        if address in seen:
            raise MetadataError("A tree is damaged: it refers to one of its parts twice.", found=address)
        seen.add(address)


def _bytes_for(largest: int) -> int:
    """Return how many bytes a number takes, as HDF5 counts them."""
    return max(1, (largest.bit_length() + 7) // 8)


def hash_of(name: bytes) -> int:
    """Return the hash by which HDF5 finds names in a B-tree of version 2."""
    return int.from_bytes(bytes(_LOOKUP3.encode(name))[-4:], "little")


def verify_checksum(data: bytes | memoryview) -> None:
    """Check that bytes end with the checksum of all before it."""
    try:
        _LOOKUP3.decode(data)
    except RuntimeError as error:
        raise MetadataError("A structure does not have its checksum: the file is damaged.") from error


_LOOKUP3: Final = JenkinsLookup3()
