"""Count chunks: how many each array may have, and how many are stored.

In Zarr, a chunk that is not stored has the array's fill value, and hdmf-zarr 0.14 omits chunks of only that
value. So an absent chunk is not an error; but an incomplete upload looks the same, and only counts show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Final

from intake_nwbzarr.arrays.layout import Layout, layout
from intake_nwbzarr.errors import (
    AccessError,
    ChunkError,
    CredentialsError,
    LimitError,
    ListingError,
    MetadataError,
)
from intake_nwbzarr.hdf5.chunk_table import unpack
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.transport.answers import Listed
from intake_nwbzarr.transport.hdf5 import INDEX
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.request_log import counted

MOST_TOLD: Final = 10
"""Arrays that are named, of those of which chunks are not stored."""


@dataclass(frozen=True)
class ChunkCount:
    """The chunks, or shards, of one array.

    Parameters
    ----------
    path
        Of the array, in the file.
    expected, stored
        How many its shape has room for, and how many there are.
    nbytes
        Bytes of these, as they are stored; None where only their names are known.
    """

    path: str
    expected: int
    stored: int
    nbytes: int | None = field(default=None, compare=False)

    @property
    def absent(self) -> int:
        """Return how many chunks are absent, and read as the fill value."""
        return self.expected - self.stored

    def __str__(self) -> str:
        reads = "; it reads as its fill value" if not self.stored else ""
        return f"{self.path}: {self.stored:,} of {counted(self.expected, 'chunk')} stored{reads}"


@dataclass(frozen=True)
class ChunkCounts:
    """The chunks of a session, or of a part of it.

    Parameters
    ----------
    arrays
        Those that have chunks, in the order of their paths.
    """

    arrays: tuple[ChunkCount, ...]

    @property
    def expected(self) -> int:
        """Return how many chunks all arrays may have, by their shapes."""
        return sum(array.expected for array in self.arrays)

    @property
    def stored(self) -> int:
        """Return how many chunks are stored."""
        return sum(array.stored for array in self.arrays)

    @property
    def incomplete(self) -> tuple[ChunkCount, ...]:
        """Return the arrays with absent chunks: first those without any chunk, then by the number absent."""
        found = [array for array in self.arrays if array.absent]
        return tuple(sorted(found, key=lambda array: (array.stored > 0, -array.absent, array.path)))

    def __str__(self) -> str:
        text = f"{self.stored:,} of {counted(self.expected, 'chunk')} stored"
        if not self.incomplete:
            return f"{text}."
        missing = self.expected - self.stored
        text += (
            f"; the {missing:,} that are not stored are read as fill values. Writers may leave out chunks of "
            "fill values, and an incomplete upload loses others: compare with the original."
        )
        told = [f"  {array}" for array in self.incomplete[:MOST_TOLD]]
        more = len(self.incomplete) - len(told)
        return "\n".join([text, *told, *([f"  and {more:,} more arrays"] if more else [])])


def counted_chunks(counts: ChunkCounts | None) -> str:
    """Return a line that tells how many chunks are stored."""
    return f"Chunks: {counts or 'not counted, because the storage cannot be listed.'}"


def count_chunks(
    hierarchy: Hierarchy, path: str = "", keys: Iterable[str | Listed] | None = None
) -> ChunkCounts | None:
    """Count the chunks of all arrays, or of those in a group, by one listing.

    Parameters
    ----------
    hierarchy
        The hierarchy of the file; arrays in other files that it links to are not counted.
    path
        The path of the group or array.
    keys
        The stored objects, if they are known; otherwise the storage is listed.

    Returns
    -------
    ChunkCounts or None
        The counts, None where the storage cannot be listed.
    """
    if hierarchy.location.is_hdf5:
        return _in_tables(hierarchy, path)
    if keys is None:
        try:
            keys = run(hierarchy.transport.list(path))
        except CredentialsError:
            raise
        except (ListingError, AccessError):
            return None
    grids = _grids(hierarchy, path)
    stored = dict.fromkeys(grids, 0)
    sizes: dict[str, int | None] = dict.fromkeys(grids, 0)
    for entry in keys:
        key, size = (entry, None) if isinstance(entry, str) else (entry.key, entry.size)
        array, _, name = key.rpartition("/")
        while array and array not in grids:
            array, _, more = array.rpartition("/")
            name = f"{more}/{name}"
        if array in grids and grids[array].has(name):
            stored[array] += 1
            known = sizes[array]
            sizes[array] = None if known is None or size is None else known + size
    counts = (ChunkCount(array, grid.expected, stored[array], sizes[array]) for array, grid in grids.items())
    return ChunkCounts(tuple(count for count in counts if count.expected))


def _in_tables(hierarchy: Hierarchy, path: str) -> ChunkCounts:
    """Count the chunks of an HDF5 file by the tables of its arrays."""

    async def count(array: str, grid: _PossibleChunks) -> ChunkCount | None:
        # An array with a damaged table is not counted; one that is in its object's header has no table.
        with suppress(ChunkError, MetadataError, LimitError):
            fetched = await hierarchy.transport.get(f"{array}/c/{INDEX}")
            if fetched is None:
                return ChunkCount(array, grid.expected, grid.expected)
            sizes = unpack(fetched.data).sizes
            return ChunkCount(array, grid.expected, int((sizes > 0).sum()), int(sizes.sum()))
        return None

    calls = [partial(count, array, grid) for array, grid in _grids(hierarchy, path).items()]
    found = run(gather(calls))
    counts = [each for each in found if each is not None]
    return ChunkCounts(tuple(count for count in counts if count.expected))


@dataclass(frozen=True)
class _PossibleChunks:
    """The chunks that an array may have, by the names that they are stored under."""

    layout: Layout
    counts: tuple[int, ...]

    @property
    def expected(self) -> int:
        return prod(self.counts)

    def has(self, name: str) -> bool:
        """Return whether a name in the array's folder is that of one of its chunks."""
        found = self.layout
        if not self.counts:
            return name == (found.separator.join((*found.key_prefix, *found.key_suffix)) or "0")
        parts = name.split(found.separator)
        before, after = len(found.key_prefix), len(found.key_suffix)
        if (*parts[:before], *parts[len(parts) - after :]) != (*found.key_prefix, *found.key_suffix):
            return False
        places = parts[before : len(parts) - after]
        return len(places) == len(self.counts) and all(
            place.isascii() and place.isdigit() and int(place) < count and str(int(place)) == place
            for place, count in zip(places, self.counts, strict=True)
        )


def _grids(hierarchy: Hierarchy, path: str) -> Mapping[str, _PossibleChunks]:
    """Return the chunk grids of all valid arrays."""
    grids = {}
    for node in hierarchy.valid_nodes():
        if isinstance(node, ArrayNode) and (not path or f"{node.path}/".startswith(f"{path}/")):
            with suppress(MetadataError, LimitError):
                grids[node.path] = _PossibleChunks(layout(node), chunk_grid(node))
    return grids


def chunk_grid(node: ArrayNode) -> tuple[int, ...]:
    """Return the number of chunks, or shards, along each axis of an array."""
    pairs = zip(node.shape, node.chunks, strict=True)
    return tuple(-(-length // max(width, 1)) for length, width in pairs)
