"""Sharded arrays (``sharding_indexed``): a shard's index, and the byte ranges of chunks inside a shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.decode import ChunkName, CodecChain, codec_chain, decode
from intake_nwbzarr.errors import ChunkError, MetadataError
from intake_nwbzarr.hierarchy.decompress import CHECKSUMS
from intake_nwbzarr.hierarchy.nodes import parse_named_configuration

GAP: Final = 64 * 2**10
"""Unneeded bytes between two chunks up to which one request fetches both."""

RANGE: Final = 4 * 2**20
"""Bytes up to which neighbouring chunks share a request; more is faster over several connections."""

SMALL: Final = 2**20
"""Decoded bytes of a shard up to which it is always fetched whole."""

LARGE: Final = 32 * 2**20
"""Decoded bytes of a shard up to which it is fetched whole if half of its chunks are wanted."""


@dataclass(frozen=True)
class Sharding:
    """The chunks inside a stored object (``sharding_indexed``)."""

    counts: tuple[int, ...]  # chunks in a shard, along every axis
    chunk_bytes: int  # the decoded size of one chunk
    at_end: bool  # whether the index is at the end of the shard
    index: CodecChain  # how the index is decoded, to (*counts, 2) offsets and lengths

    @property
    def index_bytes(self) -> int:
        """Return the size of the stored index in bytes."""
        return self.index.nbytes + 4 * sum(stage.name in CHECKSUMS for stage in self.index.stages)

    def is_whole(self, wanted: int, of: int) -> bool:
        """Return whether to fetch a whole shard when `wanted` of its `of` chunks are selected."""
        decoded = of * self.chunk_bytes
        return decoded <= SMALL or (2 * wanted >= of and decoded <= LARGE)


class ByteRange(NamedTuple):
    """A byte range to fetch, and the byte ranges of the chunks in it."""

    start: int
    stop: int
    chunks: dict[int, tuple[int, int]]


def parse_sharding(
    configuration: Mapping[str, Any], shard_shape: tuple[int, ...], chunk_bytes: int, path: str
) -> Sharding:
    """Return the sharding that the configuration of ``sharding_indexed`` describes."""
    inner = tuple(int(length) for length in configuration["chunk_shape"])
    if len(inner) != len(shard_shape) or any(b < 1 or a % b for a, b in zip(shard_shape, inner, strict=True)):
        raise MetadataError(
            f"The array {path!r} has shards of shape {shard_shape} with chunks of shape {inner}, which do "
            "not divide them.",
            path=path,
            found=inner,
        )
    if any(parse_named_configuration(codec)[0] == "sharding_indexed" for codec in configuration["codecs"]):
        raise MetadataError(
            f"The array {path!r} has shards inside shards, which are not supported.",
            path=path,
            next_step="Rewrite the array with one level of shards.",
        )
    codecs = configuration.get("index_codecs", ())
    names = [parse_named_configuration(entry)[0] for entry in codecs]
    if not {"bytes", "transpose", *CHECKSUMS}.issuperset(names):
        raise MetadataError(
            f"The array {path!r} has a shard index with the codecs {', '.join(names)}; supported are bytes, "
            "transpose and checksums.",
            path=path,
            found=tuple(names),
            expected=("bytes", "transpose", *CHECKSUMS),
            next_step="Rewrite the array.",
        )
    counts = tuple(shard // chunk for shard, chunk in zip(shard_shape, inner, strict=True))
    index = codec_chain({"codecs": codecs}, (*counts, 2), np.dtype(np.uint64), path)
    if index.for_zarr is not None:
        raise MetadataError(
            f"The array {path!r} has a shard index without the codec 'bytes'.", path=path, found=tuple(names)
        )
    at_end = configuration.get("index_location", "end") == "end"
    return Sharding(counts, chunk_bytes, at_end, index)


def parse_index(shards: Sharding, data: bytes | memoryview, where: ChunkName) -> NDArray[np.uint64]:
    """Return the ``(chunk, 2)`` offsets and lengths of a shard's index."""
    if len(data) != shards.index_bytes:
        raise ChunkError(
            f"{where} is a shard with an index of {len(data)} bytes; expected {shards.index_bytes}.",
            location=where.location,
            path=where.key or where.path,
            found=len(data),
            expected=shards.index_bytes,
            next_step="The shard is truncated, or does not belong to this array.",
        )
    try:
        return decode(shards.index, data, where).reshape(-1, 2)
    except ChunkError as error:
        raise ChunkError(
            f"The index of a shard is damaged: {error.args[0]}",
            location=where.location,
            path=where.key or where.path,
            next_step=error.next_step,
        ) from error


def locate_chunks(index: NDArray[np.uint64], wanted: Iterable[int]) -> dict[int, tuple[int, int] | None]:
    """Return the byte range of each wanted chunk inside its shard, None for one that is not stored."""
    missing = 2**64 - 1
    found: dict[int, tuple[int, int] | None] = {}
    for chunk in wanted:
        offset, length = (int(value) for value in index[chunk])
        found[chunk] = None if offset == length == missing else (offset, offset + length)
    return found


def byte_ranges(found: Mapping[int, tuple[int, int]]) -> list[ByteRange]:
    """Return the byte ranges to fetch: those of neighbouring chunks joined where that saves time."""
    result: list[ByteRange] = []
    for chunk, (start, stop) in sorted(found.items(), key=lambda item: item[1]):
        last = result[-1] if result else None
        if last is not None and start - last.stop <= GAP and max(stop, last.stop) - last.start <= RANGE:
            last.chunks[chunk] = (start, stop)
            result[-1] = last._replace(stop=max(stop, last.stop))
        else:
            result.append(ByteRange(start, stop, {chunk: (start, stop)}))
    return result
