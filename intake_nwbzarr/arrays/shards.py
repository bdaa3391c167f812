"""Sharded chunks: a shard's index, and which byte ranges to fetch for the chunks that are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.decode import Chain, chain, decode
from intake_nwbzarr.errors import ChunkError, MetadataError
from intake_nwbzarr.hierarchy.decompress import CHECKSUMS
from intake_nwbzarr.hierarchy.nodes import named

GAP: Final = 64 * 2**10
"""Bytes that are rather fetched for nothing than skipped with a request of their own."""

RANGE: Final = 4 * 2**20
"""What neighbouring chunks are joined up to; more goes faster on several connections."""

SMALL: Final = 2**20
LARGE: Final = 32 * 2**20


@dataclass(frozen=True)
class Sharding:
    """How a stored object holds several chunks (``sharding_indexed``).

    Parameters
    ----------
    counts
        Chunks in a shard, along every axis.
    chunk_bytes
        The decoded size of one.
    at_end
        Whether the index is at the end of the shard.
    index
        How the index is decoded, to ``(*counts, 2)`` offsets and lengths.
    """

    counts: tuple[int, ...]
    chunk_bytes: int
    at_end: bool
    index: Chain

    @property
    def index_bytes(self) -> int:
        """The size of the stored index."""
        return self.index.nbytes + 4 * sum(stage.name in CHECKSUMS for stage in self.index.stages)

    def is_whole(self, wanted: int, of: int) -> bool:
        """Whether a shard is better fetched in one piece, if so many chunks are wanted `of` all."""
        decoded = of * self.chunk_bytes
        return decoded <= SMALL or (2 * wanted >= of and decoded <= LARGE)


class Span(NamedTuple):
    """A byte range to fetch, and the chunks in it with their own ranges."""

    start: int
    stop: int
    chunks: dict[int, tuple[int, int]]


def sharding(
    configuration: Mapping[str, Any], shard_shape: tuple[int, ...], chunk_bytes: int, path: str
) -> Sharding:
    """Understand the configuration of ``sharding_indexed``.

    Raises
    ------
    MetadataError
        When chunks do not fill a shard, or its index is encoded so that its size is not known beforehand.
    """
    inner = tuple(int(length) for length in configuration["chunk_shape"])
    if len(inner) != len(shard_shape) or any(b < 1 or a % b for a, b in zip(shard_shape, inner, strict=True)):
        raise MetadataError(
            f"The array {path!r} has shards of {shard_shape} that chunks of {inner} do not fill."
        )
    if any(named(codec)[0] == "sharding_indexed" for codec in configuration["codecs"]):
        raise MetadataError(
            f"The array {path!r} has shards in its shards, which is not read here. Rewrite it with one "
            "level of shards."
        )
    codecs = configuration.get("index_codecs", ())
    names = [named(entry)[0] for entry in codecs]
    if not {"bytes", "transpose", *CHECKSUMS}.issuperset(names):
        raise MetadataError(
            f"The array {path!r} has shards whose index is stored by {', '.join(names)}; known for an index "
            "are bytes, transpose and checksums. Rewrite the array."
        )
    counts = tuple(shard // chunk for shard, chunk in zip(shard_shape, inner, strict=True))
    index = chain({"codecs": codecs}, (*counts, 2), np.dtype(np.uint64), path)
    if index.for_zarr is not None:
        raise MetadataError(f"The array {path!r} has shards with an index that nothing makes bytes of.")
    at_end = configuration.get("index_location", "end") == "end"
    return Sharding(counts, chunk_bytes, at_end, index)


def parse_index(made: Sharding, data: bytes | memoryview, where: str) -> NDArray[np.uint64]:
    """The ``(chunk, 2)`` offsets and lengths in a shard's index.

    Raises
    ------
    ChunkError
        When the index is truncated or its checksum does not fit.
    """
    if len(data) != made.index_bytes:
        raise ChunkError(
            f"{where} is a shard whose index has {len(data)} bytes; {made.index_bytes} were expected. "
            "It is truncated, or does not belong to this array."
        )
    try:
        return decode(made.index, data, where).reshape(-1, 2)
    except ChunkError as error:
        raise ChunkError(f"{where} is a shard whose index is damaged. {error}") from error


def locate_chunks(index: NDArray[np.uint64], wanted: Iterable[int]) -> dict[int, tuple[int, int] | None]:
    """Where in the shard each wanted chunk lies, None for one that is not stored."""
    missing = 2**64 - 1
    found: dict[int, tuple[int, int] | None] = {}
    for chunk in wanted:
        offset, length = (int(value) for value in index[chunk])
        found[chunk] = None if offset == length == missing else (offset, offset + length)
    return found


def spans(found: Mapping[int, tuple[int, int]]) -> list[Span]:
    """Join neighbouring chunks into as few byte ranges as pays off."""
    result: list[Span] = []
    for chunk, (start, stop) in sorted(found.items(), key=lambda item: item[1]):
        last = result[-1] if result else None
        if last is not None and start - last.stop <= GAP and max(stop, last.stop) - last.start <= RANGE:
            last.chunks[chunk] = (start, stop)
            result[-1] = last._replace(stop=max(stop, last.stop))
        else:
            result.append(Span(start, stop, {chunk: (start, stop)}))
    return result
