"""Tables of chunks: where the chunks of an HDF5 dataset are in its file, also packed in few bytes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from math import prod

import msgspec
import numpy as np
from msgspec import DecodeError, msgpack
from numpy.typing import NDArray

from intake_nwbzarr.errors import LimitError, MetadataError
from intake_nwbzarr.untrusted_input import LARGEST_LENGTH, MOST_CHUNKS


@dataclass(frozen=True)
class ChunkTable:
    """The places of a dataset's chunks in the file, in the order of the grid of chunks."""

    # Of the grid.
    counts: tuple[int, ...]
    # In the file, from its first byte on; 0 for a chunk that is not stored.
    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    # Bit i of a chunk's mask says that filter i was skipped; of most chunks it is 0.
    masks: dict[int, int] = field(default_factory=dict)
    # Which chunks these are, in order; None for all.
    numbers: NDArray[np.int64] | None = None

    def places(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the offsets and sizes of chunks by their numbers."""
        at = numbers if self.numbers is None else np.searchsorted(self.numbers, numbers)
        if self.numbers is not None and not np.array_equal(self.numbers.take(at, mode="clip"), numbers):
            raise MetadataError("A part of a table of chunks is not that of the chunks that are read.")
        return self.offsets[at], self.sizes[at]


class _Packed(msgspec.Struct, array_like=True):
    counts: tuple[int, ...]
    columns: bytes
    masks: dict[int, int]
    numbers: bytes | None = None


def pack(table: ChunkTable) -> bytes:
    """Return a table as bytes, about two for each chunk."""
    # A column of a large table has megabytes: few are made.
    sizes, offsets = table.sizes.view(np.int64), table.offsets.view(np.int64)
    # Chunks mostly follow one another; of those that are not stored, the end of the last one is kept.
    gaps = np.where(sizes > 0, offsets + sizes, 0)
    np.maximum.accumulate(gaps, out=gaps)
    gaps[1:] = offsets[1:] - gaps[:-1]
    gaps[:1] = offsets[:1]
    gaps[sizes <= 0] = 0
    deflate = zlib.compressobj(6)
    columns = b"".join(
        deflate.compress(np.ascontiguousarray(column[:, byte]))
        for column in (each.view(np.uint8).reshape(-1, 8) for each in (sizes, gaps))
        for byte in range(8)
    )
    numbers = None if table.numbers is None else table.numbers.astype("<i8").tobytes()
    return msgpack.encode(_Packed(table.counts, columns + deflate.flush(), table.masks, numbers))


def unpack(data: bytes | memoryview) -> ChunkTable:
    """Return the table of bytes that `pack` has made."""
    try:
        packed = msgpack.decode(data, type=_Packed)
        total = prod(packed.counts)
        if total > MOST_CHUNKS or any(count < 0 for count in packed.counts):
            raise ValueError(f"{total} chunks")
        numbers = None if packed.numbers is None else np.frombuffer(packed.numbers, "<i8").astype(np.int64)
        if numbers is not None:
            if (np.diff(numbers, prepend=-1, append=total) <= 0).any():
                raise ValueError("its chunks are not in order")
            total = len(numbers)
        columns = zlib.decompressobj().decompress(packed.columns, 16 * total + 1)
        sizes, gaps = (
            np.ascontiguousarray(each.T).view(np.int64).reshape(-1)
            for each in np.frombuffer(columns, np.uint8).reshape(2, 8, total)
        )
    except (DecodeError, ValueError, zlib.error) as error:
        raise MetadataError(f"A table of chunks is damaged: {error}.") from error
    stored = sizes > 0
    # Each offset is the largest end before it and a gap: ends only grow where no gap is negative.
    if (gaps >= 0).all():
        offsets = np.where(stored, gaps + sizes, 0)
        np.cumsum(offsets, out=offsets)
        offsets -= sizes
        offsets[~stored] = 0
    else:
        offsets = np.zeros(total, np.int64)
        end = 0
        for number in np.flatnonzero(stored).tolist():
            offsets[number] = end + gaps[number]
            end = max(end, int(offsets[number] + sizes[number]))
    return ChunkTable(packed.counts, offsets.view(np.uint64), sizes.view(np.uint64), packed.masks, numbers)


def contiguous_table(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int, start: int | None, size: int
) -> ChunkTable:
    """Return the table of a contiguous dataset's pieces, each of which is one range; None starts nowhere."""
    counts, total = checked_grid(shape, chunks)
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


def checked_grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return how many chunks there are along each dimension, and in all, which may not be too many."""
    counts = grid(shape, chunks)
    total = prod(counts)
    if total > MOST_CHUNKS:
        raise LimitError(
            f"A dataset has {total:,} chunks; at most {MOST_CHUNKS:,} are allowed.",
            found=total,
            expected=MOST_CHUNKS,
        )
    return counts, total
