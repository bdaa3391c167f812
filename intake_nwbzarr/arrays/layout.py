"""The layout of an array: shape, chunks, shards, dtype, fill value and keys of its chunks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.decode import CodecChain, codec_chain
from intake_nwbzarr.arrays.shards import Sharding, parse_sharding
from intake_nwbzarr.errors import MetadataError, NodeNotFoundError
from intake_nwbzarr.hdf5.chunk_table import ChunkTable, contiguous_table, grid
from intake_nwbzarr.hdf5.documents import EXTENSION
from intake_nwbzarr.hdf5.messages import Filter
from intake_nwbzarr.hierarchy.nodes import FIRST_COLUMN, ArrayNode, parse_named_configuration


def fill_value(document: object, dtype: np.dtype[Any], path: str) -> NDArray[Any]:
    """Return the fill value of array metadata, in any of the JSON forms of Zarr 2 and 3, as a 0-d array."""
    result = np.zeros((), dtype)
    if dtype.kind == "O":
        result[()] = document if isinstance(document, str) else ""
    elif document is not None:
        try:
            result[()] = _value(document, dtype, path)
        except (TypeError, ValueError, KeyError, OverflowError, binascii.Error) as error:
            raise MetadataError(
                f"The array {path!r} of {dtype} has an invalid fill value, {document!r}: {error}.",
                path=path,
                found=document,
                expected=dtype,
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


@dataclass
class PackedTable:
    """The table of an array's chunks, as bytes, once it was read."""

    data: bytes | None = None
    # Of the file that it was read from.
    etag: str | None = None


@dataclass(frozen=True)
class RangedChunks:
    """Chunks that are ranges of one file, as those of an HDF5 dataset."""

    # The key of the table of chunks.
    index: str
    # Of the grid of chunks, and of a chunk.
    counts: tuple[int, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    filters: tuple[Filter, ...]
    # Of stored elements.
    dtype: np.dtype[Any]
    # Where contiguous elements start, None if they are not stored, and their bytes; None if there is a table.
    contiguous: tuple[int | None, int] | None = None
    table: PackedTable = field(default_factory=PackedTable, compare=False, repr=False)

    @cached_property
    def pieces(self) -> ChunkTable:
        """Return the table of a contiguous dataset's pieces."""
        start, size = self.contiguous or (None, 0)
        return contiguous_table(self.shape, self.chunks, self.dtype.itemsize, start, size)

    def undo(
        self,
        data: bytes | memoryview,
        mask: int,
        nbytes: int,
        where: str,
        out: NDArray[Any] | None,
        undo: Callable[..., bytes | memoryview],
    ) -> bytes | memoryview:
        """Return a chunk without filters, in `out` if possible, and the last contiguous piece padded.

        `undo` is what undoes filters, here or in another process.
        """
        if not self.filters:
            return bytes(data).ljust(nbytes, b"\0") if len(data) < nbytes else data
        place = out.reshape(-1).view(np.uint8) if out is not None and self.dtype.isnative else None
        return undo(data, self.filters, mask, self.chunks, self.dtype, where, place)


_KEY_ENCODINGS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...], str]]] = {
    "default": (("c",), (), "/"),
    "v2": ((), (), "."),
    FIRST_COLUMN: ((), ("0",), "."),
}


@dataclass(frozen=True)
class Layout:
    """The storage of an array, or of one field of it, as `layout` returns it."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of what is read
    chain: CodecChain  # how a chunk is decoded; has the shape of a chunk inside a shard
    sharding: Sharding | None  # None if each chunk is a stored object of its own
    fill_document: object  # the fill value as in the metadata
    # a chunk's key is its coordinates between prefix and suffix, joined by the separator
    key_prefix: tuple[str, ...]
    key_suffix: tuple[str, ...]
    separator: str
    # how the chunks of an HDF5 dataset are stored, which are ranges of its file
    ranges: RangedChunks | None = None

    def key(self, coordinates: tuple[int, ...]) -> str:
        """Return the key of a stored object by its coordinates in the grid of chunks, or of shards."""
        name = self.separator.join((*self.key_prefix, *map(str, coordinates), *self.key_suffix)) or "0"
        return f"{self.path}/{name}" if self.path else name

    def chunks_in(self, coordinates: tuple[int, ...]) -> int:
        """Return how many chunks of a stored object lie within the array: fewer at its edges."""
        counts = (1,) * len(self.shape) if self.sharding is None else self.sharding.counts
        axes = zip(self.shape, self.chain.shape, counts, coordinates, strict=True)
        return prod(min(count, ceil(length / width) - at * count) for length, width, count, at in axes)

    @cached_property
    def fill(self) -> NDArray[Any]:
        """Return the 0-d fill value, which chunks that are not stored hold."""
        value = fill_value(self.fill_document, self.chain.dtype, self.path)
        return (value if self.chain.field is None else value[self.chain.field]).astype(self.dtype)


def layout(node: ArrayNode, field: str | None = None) -> Layout:
    """Return the layout of an array, or of one field of its compound dtype, from its metadata."""
    document = node.metadata
    key_prefix, key_suffix, separator = _key_encoding(node)
    shape = _chunk_shape(node)
    found = _sharding(document, shape, node)
    if found is not None:
        shape, document = found[0], {**document, "codecs": found[1]}
    codecs = codec_chain(document, shape, node.dtype, node.path, field)
    return Layout(
        path=node.path,
        shape=node.shape,
        dtype=field_dtype(node, field),
        chain=codecs,
        sharding=None if found is None else found[2],
        fill_document=document.get("fill_value"),
        key_prefix=key_prefix,
        key_suffix=key_suffix,
        separator=separator,
        ranges=_ranges(node),
    )


def _ranges(node: ArrayNode) -> RangedChunks | None:
    """Return how the chunks of an HDF5 dataset are stored, None for other arrays."""
    described = node.metadata.get(EXTENSION)
    if described is None or described.get("is_object"):
        return None
    try:
        filters = tuple(
            Filter(int(number), tuple(map(int, values)), str(name))
            for number, name, values in described["filters"]
        )
        contiguous = None
        if "size" in described:
            start = described["start"]
            contiguous = None if start is None else int(start), int(described["size"])
    except (LookupError, TypeError, ValueError) as error:
        raise MetadataError(
            f"The array {node.path!r} has an invalid description of its chunks, {described!r:.400}: {error}.",
            path=node.path,
            found=described,
        ) from error
    dtype = np.dtype(np.uint8) if node.dtype.kind == "b" else node.dtype
    if (
        node.dtype.names is None
        and parse_named_configuration(node.metadata["codecs"][0])[1].get("endian") == "big"
    ):
        dtype = dtype.newbyteorder(">")
    counts = grid(node.shape, node.chunks)
    index = f"{node.path}/c/index".lstrip("/")
    return RangedChunks(index, counts, node.shape, node.chunks, filters, dtype, contiguous)


def field_dtype(node: ArrayNode, field: str | None) -> np.dtype[Any]:
    """Return the dtype of what is read: of an array, or of one field of a compound, with text as objects."""
    if field is None:
        return node.dtype
    if node.dtype.names is None or field not in node.dtype.names:
        raise NodeNotFoundError(
            f"The array {node.path!r} of {node.dtype} has no field {field!r}; it has "
            f"{', '.join(map(repr, node.dtype.names or ())) or 'none'}.",
            path=node.path,
            found=field,
            expected=node.dtype.names,
        )
    # The fixed width of text in a compound has room for paths of any length: 2 kB an element.
    dtype = node.dtype[field]
    return np.dtype(object) if dtype.kind == "U" else dtype


def _key_encoding(node: ArrayNode) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return what precedes and follows the coordinates in a chunk's key, and what separates them all."""
    encoding = node.metadata.get("chunk_key_encoding", "default")
    if isinstance(encoding, str):
        encoding = {"name": encoding}
    name = encoding["name"]
    if name not in _KEY_ENCODINGS:
        raise MetadataError(
            f"The array {node.path!r} has the chunk key encoding {name!r}; known encodings are "
            f"{', '.join(map(repr, _KEY_ENCODINGS))}.",
            path=node.path,
            found=name,
            expected=tuple(_KEY_ENCODINGS),
        )
    before, after, separator = _KEY_ENCODINGS[name]
    separator = (encoding.get("configuration") or {}).get("separator", separator)
    if separator not in {"/", "."}:
        raise MetadataError(
            f"The array {node.path!r} separates chunk coordinates by {separator!r}, not by '/' or '.'.",
            path=node.path,
            found=separator,
            expected=("/", "."),
        )
    return before, after, separator


def _chunk_shape(node: ArrayNode) -> tuple[int, ...]:
    grid = node.metadata["chunk_grid"]
    if grid["name"] != "regular":
        raise MetadataError(
            f"The array {node.path!r} has the chunk grid {grid['name']!r}; only 'regular' can be read.",
            path=node.path,
            found=grid["name"],
            expected="regular",
        )
    if len(node.chunks) != node.ndim or any(
        width < 1 and length > 0 for width, length in zip(node.chunks, node.shape, strict=True)
    ):
        raise MetadataError(
            f"The array {node.path!r} of shape {node.shape} has invalid chunks: {node.chunks}.",
            path=node.path,
            found=node.chunks,
        )
    return node.chunks


def _sharding(
    document: Mapping[str, Any], shape: tuple[int, ...], node: ArrayNode
) -> tuple[tuple[int, ...], Any, Sharding] | None:
    """Return the shape and codecs of the chunks in a shard, or None if the array is not sharded."""
    codecs = document["codecs"]
    if len(codecs) != 1 or isinstance(codecs[0], str) or codecs[0]["name"] != "sharding_indexed":
        return None
    configuration = codecs[0]["configuration"]
    inner = tuple(int(length) for length in configuration["chunk_shape"])
    decoded = int(np.prod(inner, dtype=object)) * node.dtype.itemsize
    return inner, configuration["codecs"], parse_sharding(configuration, shape, decoded, node.path)
