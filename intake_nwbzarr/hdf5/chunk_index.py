"""What is known of a dataset's chunk index, and the reader that parts of it are put in with."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import LimitError, MetadataError
from intake_nwbzarr.hdf5.chunk_table import ChunkTable, checked_grid
from intake_nwbzarr.hdf5.heaps import Heaps
from intake_nwbzarr.hdf5.objects import Dataset
from intake_nwbzarr.untrusted_input import LARGEST_OBJECT


class ChunkIndex:
    """The index of a dataset's chunks, of which parts are read when they are wanted, and once."""

    def __init__(self, dataset: Dataset) -> None:
        layout, shape = dataset.layout, dataset.dataspace.shape or ()
        self.dataset, self.layout = dataset, layout
        self.counts, self.total = checked_grid(shape, layout.chunks)
        self.rank = len(self.counts)
        self.nbytes = prod(layout.chunks) * dataset.datatype.size
        if self.nbytes > LARGEST_OBJECT:
            raise LimitError(
                f"Chunks of a dataset have {self.nbytes:,} bytes; at most {LARGEST_OBJECT:,} are allowed.",
                found=self.nbytes,
                expected=LARGEST_OBJECT,
            )
        self.offsets = np.zeros(self.total, np.uint64)
        self.sizes = np.zeros(self.total, np.uint64)
        self.masks: dict[int, int] = {}
        # The grid of the largest shape, in which the elements of arrays are numbered.
        largest = dataset.dataspace.largest
        unlimited = [axis for axis, length in enumerate(largest) if length is None]
        most = [
            0 if length is None else -(-length // width)
            for length, width in zip(largest, layout.chunks, strict=True)
        ]
        # The order of axes in numbering elements, an unlimited one first, and the chunks of each.
        self._axes = list(range(self.rank))
        if len(unlimited) == 1:
            self._axes = [unlimited[0], *(axis for axis in self._axes if axis != unlimited[0])]
        self._most = [most[axis] for axis in self._axes]
        # Which chunks are known, None for all; nodes whose chunks are, and how often some were missing.
        self.known: NDArray[np.bool_] | None = np.zeros(self.total, bool)
        self.taken: set[int] = set()
        self.parts = 0
        # What leads to these nodes: those of B-trees by address, and other parts by address and size.
        self.inner: dict[int, tuple[int, NDArray[Any]]] = {}
        self.kept: dict[tuple[int, int], bytes] = {}
        if layout.address is None or not self.total:
            self.known = None

    def knows(self, wanted: NDArray[np.int64] | None) -> bool:
        """Return whether the places of chunks are known, by their numbers in the grid; None for all."""
        return self.known is None or (wanted is not None and bool(self.known[wanted].all()))

    def table(self, wanted: NDArray[np.int64] | None) -> ChunkTable:
        """Return the table of all chunks if it is known, or of those that are wanted."""
        if self.known is None:
            wanted, offsets, sizes = None, self.offsets, self.sizes
        else:
            offsets, sizes = self.offsets[wanted], self.sizes[wanted]
        stored = np.flatnonzero(sizes > 0)
        numbers = stored if wanted is None else wanted[stored]
        masks = self.masks if wanted is None else {n: m for n in numbers.tolist() if (m := self.masks.get(n))}
        if self.layout.partial_unfiltered and self.dataset.filters:
            all_skipped = (1 << len(self.dataset.filters)) - 1
            masks = masks | dict.fromkeys(self._at_edges(numbers), all_skipped)
        return ChunkTable(self.counts, offsets, sizes, masks, wanted)

    def _at_edges(self, numbers: NDArray[np.int64]) -> list[int]:
        """Return which chunks extend beyond the shape."""
        partial = np.zeros(len(numbers), bool)
        lengths = zip(self.dataset.dataspace.shape or (), self.layout.chunks, strict=True)
        for places, count, (length, width) in zip(self.cells(numbers), self.counts, lengths, strict=True):
            if length % width:
                partial |= places == count - 1
        found: list[int] = numbers[partial].tolist()
        return found

    def cells(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return the coordinates of chunks in the grid, for each axis."""
        return np.unravel_index(numbers, self.counts) if self.counts else ()

    def note_known(self, wanted: NDArray[np.int64] | None, *, received: bool = False) -> None:
        """Note that chunks are known, None for all; if a part had to be received for them, it is counted."""
        self.parts += received
        if self.known is not None and wanted is not None:
            self.known[wanted] = True
        if wanted is None:
            self.known = None
            for unneeded in (self.kept, self.inner, self.taken):
                unneeded.clear()

    def elements(self, places: NDArray[Any]) -> NDArray[np.uint64]:
        """Return the numbers of chunks in an array, from their places in the grid."""
        number = np.zeros(len(places), np.uint64)
        for axis, length in zip(self._axes, self._most, strict=True):
            number = number * np.uint64(length) + places[:, axis].astype(np.uint64)
        return number

    def places(self, elements: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the places of chunks in the grid, from their numbers in an array."""
        places = np.zeros((len(elements), self.rank), np.uint64)
        left = elements.astype(np.uint64)
        for axis, length in list(zip(self._axes, self._most, strict=True))[:0:-1]:
            places[:, axis] = left % np.uint64(max(length, 1))
            left = left // np.uint64(max(length, 1))
        places[:, self._axes[0]] = left
        return places


class IndexReader:
    """Reads an index, or what of it leads to some chunks, and puts what it finds into it."""

    def __init__(self, index: ChunkIndex, heaps: Heaps, wanted: NDArray[np.int64] | None) -> None:
        self.index, self.heaps, self.rank = index, heaps, index.rank
        # The places of chunks that are wanted, None for all; and their numbers in an array, in order.
        self.wanted = None if wanted is None else np.stack(index.cells(wanted), axis=1)
        self._elements = None if self.wanted is None else np.sort(index.elements(self.wanted))

    async def kept(self, address: int, size: int) -> bytes:
        """Return bytes at an address, which are kept for when other chunks are wanted."""
        known = self.index.kept.get((address, size))
        if known is None:
            known = bytes(await self.heaps.read(address, size))
            self.index.kept[address, size] = known
        return known

    def want(self, parts: Iterable[tuple[int, int]]) -> None:
        """Have parts of the file fetched along with what is read next, unless they are kept."""
        index = self.index
        self.heaps.want(part for part in parts if part[0] not in index.inner and part not in index.kept)

    def is_wanted(self, first: int, count: int) -> bool:
        """Return whether some of the elements of an array from a number on are of chunks that are wanted."""
        if self._elements is None:
            return True
        bounds = [min(each, 2**64 - 1) for each in (first, first + count)]
        at, stop = np.searchsorted(self._elements, np.array(bounds, np.uint64))
        return bool(at < stop)

    def put_elements(self, first: int, data: Any, entry: int, *, filtered: bool) -> None:
        """Add the elements of a fixed or extensible array from a number on."""
        if first >= 2**63:
            raise MetadataError("The index of a dataset has impossible numbers of chunks.", found=first)
        offsets = self.heaps.addressing.offsets
        addresses: NDArray[Any]
        sizes = masks = None
        if filtered:
            entries = filtered_entries(data, offsets, entry - offsets - 4)
            addresses, sizes, masks = entries["address"], numbers_of(entries["size"]), entries["mask"]
        else:
            addresses = np.frombuffer(data, f"<u{offsets}")
        elements = first + np.arange(len(addresses), dtype=np.uint64)
        self.put(self.index.places(elements), addresses, sizes, masks)

    def put(self, places: NDArray[Any], offsets: Any, sizes: Any, masks: Any) -> None:
        """Add chunks at places of the grid, without those outside of a dataset that has become smaller."""
        index = self.index
        offsets = np.asarray(offsets, np.uint64)
        sizes = (
            np.full(len(offsets), index.nbytes, np.uint64) if sizes is None else np.asarray(sizes, np.uint64)
        )
        undefined = np.uint64((1 << 8 * self.heaps.addressing.offsets) - 1)
        inside = (offsets != undefined) & (sizes > 0)
        for axis, count in enumerate(index.counts):
            inside &= places[:, axis] < count
        if not inside.any():
            return
        places, offsets, sizes = places[inside].astype(np.int64), offsets[inside], sizes[inside]
        start = offsets + np.uint64(self.heaps.addressing.base)
        end = np.uint64(self.heaps.source.size)
        if (offsets > end).any() or (start > end).any() or (sizes > end - start).any():
            raise MetadataError("The index of a dataset refers to chunks beyond the end of the file.")
        self._check_sizes(sizes)
        numbers = np.ravel_multi_index(tuple(places.T), index.counts) if self.rank else np.zeros(1, np.int64)
        index.offsets[numbers], index.sizes[numbers] = start, sizes
        if index.known is not None:
            index.known[numbers] = True
        if masks is not None:
            masks = np.asarray(masks)[inside]
            index.masks |= {int(numbers[at]): int(masks[at]) for at in np.flatnonzero(masks)}

    def _check_sizes(self, sizes: NDArray[np.uint64]) -> None:
        """Check that chunks without filters have their size, and that no other has far more."""
        nbytes = self.index.nbytes
        if not self.index.dataset.filters and (sizes != nbytes).any():
            raise MetadataError(
                f"The index of a dataset has chunks of other sizes than {nbytes} bytes.", expected=nbytes
            )
        # Filters make what does not compress slightly larger.
        if (sizes > 2 * nbytes + 2**16).any():
            raise MetadataError(
                f"The index of a dataset has chunks that are much larger than {nbytes} bytes.",
                found=int(sizes.max()),
                expected=nbytes,
            )


def filtered_entries(data: Any, offsets: int, wide: int, rank: int = 0) -> NDArray[Any]:
    """Return the entries of filtered chunks: address, size, mask, and place if the index has it."""
    fields: list[Any] = [("address", f"<u{offsets}"), ("size", "u1", (wide,)), ("mask", "<u4")]
    return np.frombuffer(data, np.dtype([*fields, ("place", "<u8", (rank,))] if rank else fields))


def numbers_of(columns: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return numbers of which each row has the bytes, the least first."""
    wide = columns.shape[1]
    padded = np.zeros((len(columns), 8), np.uint8)
    padded[:, :wide] = columns
    return padded.view("<u8").reshape(-1)
