"""Chunk indexes of HDF5 datasets: B-trees, fixed and extensible arrays (section IV.A.2.i)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
from msgspec import DecodeError, msgpack
from numpy.typing import NDArray

from intake_nwbzarr.errors import LimitError, MetadataError
from intake_nwbzarr.hdf5.heaps import Heaps, check_distinct, verify_checksum
from intake_nwbzarr.hdf5.objects import Dataset
from intake_nwbzarr.hdf5.source import Cursor
from intake_nwbzarr.untrusted_input import DEEPEST_TREE, LARGEST_LENGTH, LARGEST_OBJECT, MOST_CHUNKS

# Children of a node of a B-tree of version 1, unless the file was created with another number.
_CHILDREN: Final = 64


@dataclass(frozen=True)
class ChunkTable:
    """The places of all chunks of a dataset in the file, in the order of the grid of chunks."""

    # Of the grid.
    counts: tuple[int, ...]
    # In the file, from its first byte on; 0 for a chunk that is not stored.
    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    # Bit i of a chunk's mask says that filter i was skipped; of most chunks it is 0.
    masks: dict[int, int] = field(default_factory=dict)


def pack(table: ChunkTable) -> bytes:
    """Return a table as bytes, about two for each chunk."""
    sizes = table.sizes.astype(np.int64)
    ends = np.where(sizes > 0, table.offsets.astype(np.int64) + sizes, 0)
    # Chunks mostly follow one another; of those that are not stored, the end of the last one is kept.
    before = np.maximum.accumulate(np.concatenate([[0], ends[:-1]])) if len(ends) else ends
    gaps = np.where(sizes > 0, table.offsets.astype(np.int64) - before, 0)
    columns = b"".join(
        np.ascontiguousarray(each.view(np.uint8).reshape(-1, 8).T).tobytes() for each in (sizes, gaps)
    )
    return msgpack.encode((table.counts, zlib.compress(columns, 6), table.masks))


def unpack(data: bytes | memoryview) -> ChunkTable:
    """Return the table of bytes that `pack` has made."""
    try:
        counts, packed, masks = msgpack.decode(data, type=tuple[tuple[int, ...], bytes, dict[int, int]])
        total = prod(counts)
        if total > MOST_CHUNKS or any(count < 0 for count in counts):
            raise ValueError(f"{total} chunks")
        columns = zlib.decompressobj().decompress(packed, 16 * total + 1)
        sizes, gaps = (
            np.ascontiguousarray(each.T).view(np.int64).reshape(-1)
            for each in np.frombuffer(columns, np.uint8).reshape(2, 8, total)
        )
    except (DecodeError, ValueError, zlib.error) as error:
        raise MetadataError(f"A table of chunks is damaged: {error}.") from error
    offsets = np.zeros(total, np.int64)
    stored = sizes > 0
    # Each offset is the largest end before it and a gap: ends only grow where no gap is negative.
    if (gaps >= 0).all():
        ends = np.cumsum(np.where(stored, gaps + sizes, 0))
        offsets[stored] = (ends - sizes)[stored]
    else:
        end = 0
        for number in np.flatnonzero(stored).tolist():
            offsets[number] = end + gaps[number]
            end = max(end, int(offsets[number] + sizes[number]))
    return ChunkTable(counts, offsets.astype(np.uint64), sizes.astype(np.uint64), masks)


def contiguous_table(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int, start: int | None, size: int
) -> ChunkTable:
    """Return the table of a contiguous dataset's pieces, each of which is one range; None starts nowhere."""
    counts, total = _checked_grid(shape, chunks)
    if start is None:
        return ChunkTable(counts, np.zeros(total, np.uint64), np.zeros(total, np.uint64))
    if size < prod(shape) * itemsize or start + size > LARGEST_LENGTH:
        raise MetadataError(f"A dataset of the shape {shape} has {size} bytes.", found=size)
    places = (
        np.stack(np.unravel_index(np.arange(total), counts), axis=1) if counts else np.zeros((1, 0), np.int64)
    )
    strides = [prod(shape[axis + 1 :]) * itemsize for axis in range(len(shape))]
    offsets = np.full(total, start, np.int64)
    sizes = np.full(total, itemsize, np.int64)
    for axis, (length, width, stride) in enumerate(zip(shape, chunks, strides, strict=True)):
        first = places[:, axis] * width
        offsets += first * stride
        sizes *= np.minimum(width, length - first)
    return ChunkTable(counts, offsets.astype(np.uint64), sizes.astype(np.uint64))


def grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many chunks there are along each dimension."""
    return tuple(-(-length // width) for length, width in zip(shape, chunks, strict=True))


async def chunk_table(heaps: Heaps, dataset: Dataset) -> ChunkTable:
    """Read the chunk index of a dataset."""
    layout, shape = dataset.layout, dataset.dataspace.shape or ()
    counts, total = _checked_grid(shape, layout.chunks)
    nbytes = prod(layout.chunks) * dataset.datatype.size
    if nbytes > LARGEST_OBJECT:
        raise LimitError(
            f"The chunks of a dataset have {nbytes:,} bytes; at most {LARGEST_OBJECT:,} are allowed.",
            found=nbytes,
            expected=LARGEST_OBJECT,
        )
    found = _Collected(heaps, dataset, counts)
    if layout.address is not None and total:
        match layout.index:
            case "tree 1":
                await _tree_1(found, layout.address)
            case "tree 2":
                await _tree_2(found, layout.address)
            case "single":
                size = found.nbytes if layout.chunk_size is None else layout.chunk_size
                found.put(np.zeros((1, len(shape)), np.uint64), [layout.address], [size], [layout.mask])
            case "implicit":
                numbers = np.arange(total, dtype=np.uint64)
                places = np.stack(np.unravel_index(numbers.astype(np.int64), counts), axis=1)
                linear = found.linear_of(places)
                found.put(places, layout.address + linear * np.uint64(found.nbytes), None, None)
            case "fixed":
                await _fixed_array(found, layout.address)
            case "extensible":
                await _extensible_array(found, layout.address)
    if layout.partial_unfiltered and dataset.filters and total:
        all_skipped = (1 << len(dataset.filters)) - 1
        found.masks |= dict.fromkeys(_partial(shape, layout.chunks, found.sizes), all_skipped)
    _check_sizes(found, dataset)
    return ChunkTable(counts, found.offsets, found.sizes, found.masks)


def _checked_grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    counts = grid(shape, chunks)
    total = prod(counts)
    if total > MOST_CHUNKS:
        raise LimitError(
            f"A dataset has {total:,} chunks; at most {MOST_CHUNKS:,} are allowed.",
            found=total,
            expected=MOST_CHUNKS,
        )
    return counts, total


def _partial(shape: tuple[int, ...], chunks: tuple[int, ...], sizes: NDArray[np.uint64]) -> list[int]:
    """Return the numbers of chunks that are stored and extend beyond the shape."""
    counts = grid(shape, chunks)
    partial = np.zeros(counts, bool)
    for axis, (length, width) in enumerate(zip(shape, chunks, strict=True)):
        if length % width:
            partial[(slice(None),) * axis + (-1,)] = True
    numbers: list[int] = np.flatnonzero(partial.reshape(-1) & (sizes > 0)).tolist()
    return numbers


def _check_sizes(found: _Collected, dataset: Dataset) -> None:
    """Check that chunks without filters have their size, and that no other has far more."""
    stored = found.sizes > 0
    if not dataset.filters and (found.sizes[stored] != found.nbytes).any():
        raise MetadataError(
            f"The index of a dataset has chunks of other sizes than {found.nbytes} bytes.",
            expected=found.nbytes,
        )
    # Filters make what does not compress slightly larger.
    if (found.sizes > 2 * found.nbytes + 2**16).any():
        raise MetadataError(
            f"The index of a dataset has chunks that are much larger than {found.nbytes} bytes.",
            found=int(found.sizes.max()),
            expected=found.nbytes,
        )


class _Collected:
    """Chunks that were found, as they become a table."""

    def __init__(self, heaps: Heaps, dataset: Dataset, counts: tuple[int, ...]) -> None:
        self.heaps, self.counts, self.layout = heaps, counts, dataset.layout
        self.rank = len(counts)
        self.nbytes = prod(dataset.layout.chunks) * dataset.datatype.size
        self.offsets = np.zeros(prod(counts), np.uint64)
        self.sizes = np.zeros(prod(counts), np.uint64)
        self.masks: dict[int, int] = {}
        # The grid of the largest shape, in which the elements of arrays are numbered.
        largest = dataset.dataspace.largest
        self.unlimited = [axis for axis, length in enumerate(largest) if length is None]
        self.most = tuple(
            0 if length is None else -(-length // width)
            for length, width in zip(largest, dataset.layout.chunks, strict=True)
        )

    def _strides(self) -> tuple[list[int], list[int]]:
        """Return the order of axes in numbering chunks, an unlimited one first, and the chunks of each."""
        axes = list(range(self.rank))
        if len(self.unlimited) == 1:
            axes = [self.unlimited[0], *(axis for axis in axes if axis != self.unlimited[0])]
        return axes, [self.most[axis] for axis in axes]

    def linear_of(self, places: NDArray[Any]) -> NDArray[np.uint64]:
        """Return the numbers of chunks in an array, from their places in the grid."""
        axes, most = self._strides()
        number = np.zeros(len(places), np.uint64)
        for axis, length in zip(axes, most, strict=True):
            number = number * np.uint64(length) + places[:, axis].astype(np.uint64)
        return number

    def put_linear(self, numbers: NDArray[np.uint64], offsets: Any, sizes: Any, masks: Any) -> None:
        """Add chunks by their numbers in an array."""
        axes, most = self._strides()
        places = np.zeros((len(numbers), self.rank), np.uint64)
        left = numbers.astype(np.uint64)
        for axis, length in list(zip(axes, most, strict=True))[:0:-1]:
            places[:, axis] = left % np.uint64(max(length, 1))
            left = left // np.uint64(max(length, 1))
        places[:, axes[0]] = left
        self.put(places, offsets, sizes, masks)

    def put(self, places: NDArray[Any], offsets: Any, sizes: Any, masks: Any) -> None:
        """Add chunks at places of the grid, without those outside of a dataset that has become smaller."""
        offsets = np.asarray(offsets, np.uint64)
        sizes = (
            np.full(len(offsets), self.nbytes, np.uint64) if sizes is None else np.asarray(sizes, np.uint64)
        )
        undefined = np.uint64((1 << 8 * self.heaps.addressing.offsets) - 1)
        inside = (offsets != undefined) & (sizes > 0)
        for axis, count in enumerate(self.counts):
            inside &= places[:, axis] < count
        if not inside.any():
            return
        places, offsets, sizes = places[inside].astype(np.int64), offsets[inside], sizes[inside]
        base = self.heaps.addressing.base
        start = offsets + np.uint64(base)
        end = np.uint64(self.heaps.source.size)
        if (offsets > end).any() or (start > end).any() or (sizes > end - start).any():
            raise MetadataError("The index of a dataset refers to chunks beyond the end of the file.")
        numbers = np.ravel_multi_index(tuple(places.T), self.counts) if self.counts else np.zeros(1, np.int64)
        self.offsets[numbers], self.sizes[numbers] = start, sizes
        if masks is not None:
            masks = np.asarray(masks)[inside]
            self.masks |= {int(numbers[at]): int(masks[at]) for at in np.flatnonzero(masks)}


async def _tree_1(found: _Collected, root: int) -> None:
    """Read a B-tree of version 1, level by level (section III.A.1)."""
    heaps, rank = found.heaps, found.rank
    offsets = heaps.addressing.offsets
    entry = np.dtype(
        [("size", "<u4"), ("mask", "<u4"), ("place", "<u8", (rank + 1,)), ("child", f"<u{offsets}")]
    )
    head = 8 + 2 * offsets
    usual = head + _CHILDREN * entry.itemsize + entry.itemsize - offsets
    level = [root]
    seen = {root}
    expected: int | None = None
    for _ in range(DEEPEST_TREE):
        heaps.want((node, usual) for node in level)
        children: list[int] = []
        leaves = [np.zeros(0, entry)]
        depth = 0
        for node in level:
            cursor = heaps.cursor(await heaps.read(node, head))
            cursor.expect(b"TREE")
            if cursor.number(1) != 1:
                raise MetadataError("A B-tree of chunks is of another kind.")
            depth, used = cursor.number(1), cursor.number(2)
            if expected not in {None, depth}:
                raise MetadataError("A B-tree of chunks is damaged: its levels do not descend.")
            data = await heaps.read(node, head + used * entry.itemsize)
            entries = np.frombuffer(data[head:], entry, used)
            if depth:
                children += entries["child"].tolist()
            else:
                leaves.append(entries)
        if not depth:
            _put_leaves(found, np.concatenate(leaves))
            return
        if len(children) > MOST_CHUNKS:
            raise LimitError(f"A B-tree has more than {MOST_CHUNKS:,} nodes.", expected=MOST_CHUNKS)
        check_distinct(children, seen)
        level, expected = children, depth - 1
    raise MetadataError("A B-tree of chunks is damaged: it has no leaves.")


def _put_leaves(found: _Collected, entries: NDArray[Any]) -> None:
    """Add the chunks of a B-tree of version 1, which must be in order, as HDF5 searches for them."""
    places = entries["place"][:, : found.rank]
    is_less, is_equal = np.zeros(max(len(entries) - 1, 0), bool), np.ones(max(len(entries) - 1, 0), bool)
    for axis in range(found.rank):
        column = places[:, axis]
        is_less |= is_equal & (column[:-1] < column[1:])
        is_equal &= column[:-1] == column[1:]
    widths = np.array(found.layout.chunks, np.uint64)
    if not is_less.all() or (places % widths).any() or entries["place"][:, found.rank :].any():
        raise MetadataError("A B-tree of chunks is damaged: they are not in order.")
    if not entries["size"].all():
        raise MetadataError("A B-tree of chunks is damaged: one has no bytes.")
    found.put(places // widths, entries["child"], entries["size"], entries["mask"])


async def _tree_2(found: _Collected, address: int) -> None:
    """Read a B-tree of version 2 (records of kind 10 and 11)."""
    kind, size, records = await found.heaps.joined_records(address, frozenset({10, 11}))
    offsets = found.heaps.addressing.offsets
    plain_size = offsets + 8 * found.rank
    wide = size - plain_size - 4
    if size != plain_size if kind == 10 else not 0 < wide <= 8:
        raise MetadataError(f"The index of a dataset has entries of {size} bytes.", found=size)
    if kind == 11:
        entries = _filtered_entries(records, offsets, wide, found.rank)
        found.put(
            entries["place"].reshape(-1, found.rank),
            entries["address"],
            _number(entries["size"]),
            entries["mask"],
        )
        return
    entry = np.dtype([("address", f"<u{offsets}"), ("place", "<u8", (found.rank,))])
    plain = np.frombuffer(records, entry)
    found.put(plain["place"].reshape(-1, found.rank), plain["address"], None, None)


def _filtered_entries(data: Any, offsets: int, wide: int, rank: int = 0) -> NDArray[Any]:
    fields: list[Any] = [("address", f"<u{offsets}"), ("size", "u1", (wide,)), ("mask", "<u4")]
    return np.frombuffer(data, np.dtype([*fields, ("place", "<u8", (rank,))] if rank else fields))


def _number(columns: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return numbers of which each row has the bytes, the least first."""
    wide = columns.shape[1]
    padded = np.zeros((len(columns), 8), np.uint8)
    padded[:, :wide] = columns
    return padded.view("<u8").reshape(-1)


def _put_elements(found: _Collected, first: int, data: Any, entry: int, *, filtered: bool) -> None:
    """Add the elements of a fixed or extensible array from a number on."""
    offsets = found.heaps.addressing.offsets
    if filtered:
        entries = _filtered_entries(data, offsets, entry - offsets - 4)
        numbers = first + np.arange(len(entries), dtype=np.uint64)
        found.put_linear(numbers, entries["address"], _number(entries["size"]), entries["mask"])
        return
    addresses = np.frombuffer(data, f"<u{offsets}")
    found.put_linear(first + np.arange(len(addresses), dtype=np.uint64), addresses, None, None)


def _entry_size(found: _Collected, cursor: Cursor, signature: bytes) -> tuple[bool, int]:
    cursor.expect(signature)
    version, client, entry = cursor.number(1), cursor.number(1), cursor.number(1)
    least = found.heaps.addressing.offsets + (5 if client else 0)
    if version or client not in {0, 1} or not least <= entry <= least + (7 if client else 0):
        raise MetadataError("The index of a dataset has an unknown version, or entries of an unknown size.")
    return client == 1, entry


async def _fixed_array(found: _Collected, address: int) -> None:
    """Read a fixed array (section VII.C)."""
    heaps = found.heaps
    offsets, lengths = heaps.addressing.offsets, heaps.addressing.lengths
    data = await heaps.read(address, 8 + lengths + offsets + 4)
    verify_checksum(data)
    cursor = heaps.cursor(data)
    filtered, entry = _entry_size(found, cursor, b"FAHD")
    page_bits, count, block = cursor.number(1), cursor.length(), cursor.address()
    if block is None:
        return
    if count > MOST_CHUNKS or page_bits > 40:
        raise LimitError(f"A dataset has an index of {count:,} chunks.", found=count, expected=MOST_CHUNKS)
    head = 6 + offsets
    page = 1 << page_bits
    if count <= page:
        data = await heaps.read(block, head + count * entry + 4)
        verify_checksum(data)
        heaps.cursor(data).expect(b"FADB")
        _put_elements(found, 0, data[head : head + count * entry], entry, filtered=filtered)
        return
    pages = -(-count // page)
    bitmap = -(-pages // 8)
    data = await heaps.read(block, head + bitmap + 4)
    verify_checksum(data)
    heaps.cursor(data).expect(b"FADB")
    written = np.unpackbits(np.frombuffer(data[head : head + bitmap], np.uint8))[:pages]
    parts = []
    for number in np.flatnonzero(written).tolist():
        elements = min(page, count - number * page)
        parts.append((number, block + head + bitmap + 4 + number * (page * entry + 4), elements * entry + 4))
    heaps.want((start, size) for _, start, size in parts)
    for number, start, size in parts:
        data = await heaps.read(start, size)
        verify_checksum(data)
        _put_elements(found, number * page, data[:-4], entry, filtered=filtered)


async def _extensible_array(found: _Collected, address: int) -> None:
    """Read an extensible array (section VII.D)."""
    heaps = found.heaps
    offsets, lengths = heaps.addressing.offsets, heaps.addressing.lengths
    data = await heaps.read(address, 12 + 6 * lengths + offsets + 4)
    verify_checksum(data)
    cursor = heaps.cursor(data)
    filtered, entry = _entry_size(found, cursor, b"EAHD")
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
    data = await heaps.read(index, size)
    verify_checksum(data)
    cursor = heaps.cursor(data)
    cursor.expect(b"EAIB")
    cursor.take(2 + offsets)
    _put_elements(found, 0, cursor.take(in_index * entry), entry, filtered=filtered)
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
        if child is not None:
            super_blocks.append((child, number, first))
        first += (1 << number // 2) * elements
    blocks += await _super_blocks(found, array, super_blocks, least)
    await _data_blocks(found, array, blocks)


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
    found: _Collected, array: _ExtensibleArray, wanted: list[tuple[int, int, int]], least: int
) -> list[_DataBlock]:
    heaps, offsets = found.heaps, found.heaps.addressing.offsets
    blocks: list[_DataBlock] = []
    sized = []
    for address, number, first in wanted:
        count, elements = 1 << number // 2, least << (number + 1) // 2
        pages = elements // array.page if elements > array.page else 0
        bitmap = -(-pages // 8)
        size = 6 + offsets + array.wide + count * bitmap + count * offsets + 4
        sized.append((address, size, first, count, elements, pages, bitmap))
    heaps.want((address, size) for address, size, *_ in sized)
    check_distinct([address for address, *_ in sized], set())
    for address, size, first, count, elements, pages, bitmap in sized:
        data = await heaps.read(address, size)
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


async def _data_blocks(found: _Collected, array: _ExtensibleArray, blocks: list[_DataBlock]) -> None:
    heaps = found.heaps
    head = 6 + heaps.addressing.offsets + array.wide
    check_distinct([block.address for block in blocks], set())
    parts: list[tuple[int, int, int, int]] = []
    for block in blocks:
        if block.written is None:
            parts.append((block.address, head + block.elements * array.entry + 4, block.first, head))
            continue
        size = array.page * array.entry + 4
        start = block.address + head + 4
        parts += [
            (start + number * size, size, block.first + number * array.page, 0)
            for number in np.flatnonzero(block.written).tolist()
        ]
    heaps.want((start, size) for start, size, *_ in parts)
    for start, size, first, skip in parts:
        data = await heaps.read(start, size)
        verify_checksum(data)
        if skip:
            heaps.cursor(data).expect(b"EADB")
        _put_elements(found, first, data[skip:-4], array.entry, filtered=array.filtered)
