"""Sharded chunks: a shard's index, and which byte ranges to fetch for the chunks that are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final, NamedTuple

import numcodecs
import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import ChunkError
from intake_nwbzarr.hierarchy.zarr3 import named

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
    order
        The index's byte order, ``<`` or ``>``.
    has_checksum
        Whether a CRC32C follows the index.
    """

    counts: tuple[int, ...]
    chunk_bytes: int
    at_end: bool
    order: str
    has_checksum: bool

    @property
    def index_bytes(self) -> int:
        """The size of the stored index."""
        return prod(self.counts) * 16 + (4 if self.has_checksum else 0)

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
    configuration: Mapping[str, Any], shard_shape: tuple[int, ...], chunk_bytes: int
) -> Sharding | None:
    """Understand the configuration of ``sharding_indexed``; None if its index is encoded unusually."""
    codecs = [named(entry) for entry in configuration.get("index_codecs", ())]
    if [name for name, _ in codecs] not in (["bytes"], ["bytes", "crc32c"]):
        return None
    counts = tuple(
        shard // chunk for shard, chunk in zip(shard_shape, configuration["chunk_shape"], strict=True)
    )
    return Sharding(
        counts=counts,
        chunk_bytes=chunk_bytes,
        at_end=configuration.get("index_location", "end") == "end",
        order=">" if codecs[0][1].get("endian") == "big" else "<",
        has_checksum=len(codecs) == 2,
    )


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
    if made.has_checksum:
        try:
            data = bytes(numcodecs.get_codec({"id": "crc32c"}).decode(data))
        except RuntimeError as error:
            raise ChunkError(f"{where} is a shard whose index is damaged: {error}.") from error
    return np.frombuffer(data, np.dtype(np.uint64).newbyteorder(made.order)).reshape(-1, 2)  # type: ignore[arg-type]


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
