"""What an array's metadata say about where its chunks are stored and how they are encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.decode import Chain, chain
from intake_nwbzarr.arrays.fill import fill_value
from intake_nwbzarr.arrays.shards import Sharding, sharding
from intake_nwbzarr.errors import MetadataError, NodeNotFoundError
from intake_nwbzarr.hierarchy.first_column import FIRST_COLUMN
from intake_nwbzarr.hierarchy.nodes import ArrayNode

_KEY_ENCODINGS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...], str]]] = {
    "default": (("c",), (), "/"),
    "v2": ((), (), "."),
    FIRST_COLUMN: ((), ("0",), "."),
}


@dataclass(frozen=True)
class Layout:
    """How an array, or one field of it, is stored; made by `layout`.

    Parameters
    ----------
    path, shape
        The array's.
    dtype
        What reading gives.
    chain
        How a chunk is decoded; its shape is that of the smallest part that can be.
    sharding
        How several chunks share a stored object, None if each has its own.
    fill_document
        The fill value as in the metadata.
    key_prefix, key_suffix, separator
        A stored object's name is its coordinates between prefix and suffix, with the separator between all.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chain: Chain
    sharding: Sharding | None
    fill_document: object
    key_prefix: tuple[str, ...]
    key_suffix: tuple[str, ...]
    separator: str

    def key(self, coordinates: tuple[int, ...]) -> str:
        """The name of a stored object by its coordinates in the grid of chunks (of shards, if sharded)."""
        name = self.separator.join((*self.key_prefix, *map(str, coordinates), *self.key_suffix)) or "0"
        return f"{self.path}/{name}" if self.path else name

    def chunks_in(self, coordinates: tuple[int, ...]) -> int:
        """How many chunks of a stored object lie within the array: at the edges fewer than it could have."""
        counts = (1,) * len(self.shape) if self.sharding is None else self.sharding.counts
        axes = zip(self.shape, self.chain.shape, counts, coordinates, strict=True)
        return prod(min(count, ceil(length / width) - at * count) for length, width, count, at in axes)

    @cached_property
    def fill(self) -> NDArray[Any]:
        """What is in a chunk that is not stored, zero-dimensional."""
        value = fill_value(self.fill_document, self.chain.dtype, self.path)
        return (value if self.chain.field is None else value[self.chain.field]).astype(self.dtype)


def layout(node: ArrayNode, field: str | None = None) -> Layout:
    """Understand an array's metadata.

    Raises
    ------
    MetadataError
        When the grid of chunks or their names follow no rule known here.
    NodeNotFoundError
        When the array has no such `field`.
    """
    document = node.metadata
    key_prefix, key_suffix, separator = _key_encoding(node)
    shape = _chunk_shape(node)
    found = _sharding(document, shape, node)
    if found is not None:
        inner, codecs = found[0], found[1]
        document, shape = {**document, "codecs": codecs}, inner
    made = chain(document, shape, node.dtype, node.path, field)
    return Layout(
        path=node.path,
        shape=node.shape,
        dtype=field_dtype(node, field),
        chain=made,
        sharding=None if found is None else found[2],
        fill_document=document.get("fill_value"),
        key_prefix=key_prefix,
        key_suffix=key_suffix,
        separator=separator,
    )


def field_dtype(node: ArrayNode, field: str | None) -> np.dtype[Any]:
    """What reading gives: of an array, or of one field of a compound, whose texts become Python strings."""
    if field is None:
        return node.dtype
    if node.dtype.names is None or field not in node.dtype.names:
        raise NodeNotFoundError(
            f"The array {node.path!r} of {node.dtype} has no field {field!r}; it has "
            f"{', '.join(map(repr, node.dtype.names or ())) or 'none'}."
        )
    # Fixed-width text in a compound is padding for paths of any length, 2 kB an element.
    dtype = node.dtype[field]
    return np.dtype(object) if dtype.kind == "U" else dtype


def _key_encoding(node: ArrayNode) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """What comes before and after the coordinates in a stored object's name, and between them all."""
    encoding = node.metadata.get("chunk_key_encoding", "default")
    if isinstance(encoding, str):
        encoding = {"name": encoding}
    name = encoding["name"]
    if name not in _KEY_ENCODINGS:
        raise MetadataError(
            f"The array {node.path!r} names its chunks by {name!r}; known are "
            f"{', '.join(map(repr, _KEY_ENCODINGS))}."
        )
    before, after, separator = _KEY_ENCODINGS[name]
    separator = (encoding.get("configuration") or {}).get("separator", separator)
    if separator not in {"/", "."}:
        raise MetadataError(
            f"The array {node.path!r} separates chunk coordinates by {separator!r}, not by '/' or '.'."
        )
    return before, after, separator


def _chunk_shape(node: ArrayNode) -> tuple[int, ...]:
    grid = node.metadata["chunk_grid"]
    if grid["name"] != "regular":
        raise MetadataError(
            f"The array {node.path!r} has a chunk grid {grid['name']!r}; only 'regular' can be read."
        )
    if len(node.chunks) != node.ndim or any(
        width < 1 and length > 0 for width, length in zip(node.chunks, node.shape, strict=True)
    ):
        raise MetadataError(
            f"The array {node.path!r} of shape {node.shape} has impossible chunks: {node.chunks}."
        )
    return node.chunks


def _sharding(
    document: Mapping[str, Any], shape: tuple[int, ...], node: ArrayNode
) -> tuple[tuple[int, ...], Any, Sharding] | None:
    """The shape and codecs of the chunks in a shard; None if not sharded, or in a way left to zarr."""
    codecs = document["codecs"]
    if len(codecs) != 1 or isinstance(codecs[0], str) or codecs[0]["name"] != "sharding_indexed":
        return None
    configuration = codecs[0]["configuration"]
    inner = tuple(int(length) for length in configuration["chunk_shape"])
    decoded = int(np.prod(inner, dtype=object)) * node.dtype.itemsize
    return inner, configuration["codecs"], sharding(configuration, shape, decoded, node.path)
