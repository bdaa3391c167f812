"""The layout of an array: shape, chunks, shards, dtype, fill value and keys of its chunks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.decode import Chain, chain
from intake_nwbzarr.arrays.shards import Sharding, sharding
from intake_nwbzarr.errors import MetadataError, NodeNotFoundError
from intake_nwbzarr.hierarchy.nodes import FIRST_COLUMN, ArrayNode


def fill_value(document: object, dtype: np.dtype[Any], path: str) -> NDArray[Any]:
    """A fill value's JSON form as a zero-dimensional array.

    Parameters
    ----------
    document
        As in the metadata: a number, ``"NaN"``, ``"Infinity"``, ``"-Infinity"``, the bits as ``"0x7fc0"``,
        ``[real, imaginary]``, a string, bytes as base64 or as a list of numbers, a mapping from the fields
        of a compound or its bytes as base64. None means zero, an empty string for strings.
    dtype
        What the array is read as.
    path
        The array's, for the error.

    Raises
    ------
    MetadataError
        When the document does not describe a value of that dtype.
    """
    result = np.zeros((), dtype)
    if dtype.kind == "O":
        result[()] = document if isinstance(document, str) else ""
    elif document is not None:
        try:
            result[()] = _value(document, dtype, path)
        except (TypeError, ValueError, KeyError, OverflowError, binascii.Error) as error:
            raise MetadataError(
                f"The array {path!r} of {dtype} has the fill value {document!r}, which is not of that type: "
                f"{error}."
            ) from error
    return result


def _value(document: Any, dtype: np.dtype[Any], path: str) -> Any:
    match dtype.kind:
        case "V" if dtype.names is not None and isinstance(document, Mapping):
            return tuple(fill_value(document.get(name), dtype[name], path)[()] for name in dtype.names)
        case "V" | "S" if isinstance(document, str):
            data = base64.b64decode(document, validate=True)
            if dtype.kind == "V" and len(data) != dtype.itemsize:
                raise ValueError(f"{len(data)} bytes for {dtype.itemsize}")
            return np.frombuffer(data, dtype.newbyteorder("<"))[0] if dtype.kind == "V" else data
        case "V" if dtype.names is None:
            return np.void(bytes(document))
        case "U":
            return document if isinstance(document, str) else ""
        case "M" | "m":
            return np.array(document, "i8").view(dtype) if isinstance(document, int) else document
        case "c" if isinstance(document, (list, tuple)):
            real, imaginary = (_number(part, np.dtype(f"f{dtype.itemsize // 2}")) for part in document)
            return complex(real, imaginary)
        case _:
            return _number(document, dtype)


def _number(document: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(document, str) and document.startswith("0x"):
        bits = bytes.fromhex(document[2:])
        return np.frombuffer(bits, dtype.newbyteorder(">"))[0]
    return float(document) if isinstance(document, str) else document


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
