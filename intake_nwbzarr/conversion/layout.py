"""Chunks, shards and codecs of converted arrays, chosen for streaming."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil, prod
from typing import Any, Final

import numpy as np

from intake_nwbzarr.arguments import check_choice, invalid_argument
from intake_nwbzarr.arrays.decode import spelled_out
from intake_nwbzarr.arrays.layout import Layout, layout
from intake_nwbzarr.hdf5.documents import EXTENSION, fill_document
from intake_nwbzarr.hierarchy.nodes import ArrayNode, parse_named_configuration
from intake_nwbzarr.hierarchy.zarr2.objects import CODEC_NAME as LEGACY_OBJECTS
from intake_nwbzarr.untrusted_input import MIB

COMPRESSORS: Final = ("keep", "zstd", "blosc-zstd", "blosc-lz4", "gzip", "none")
"""What `convert` takes as `compressor`."""

LARGEST_SHARD: Final = 1024
"""MiB of a shard; several are in memory at once."""

CHANNELS: Final = 64
"""Columns of a chunk of a (time, channel) array: a reader of some channels does not fetch all."""

TEXT_BYTES: Final = 64
"""Bytes that a string is taken to have; only its chunk knows."""

# A chunk of the source is kept from a sixteenth to eight times of the wanted size: 256 KiB to 32 MiB.
_SMALLEST, _LARGEST = 1 / 16, 8

# What the Zarr 3 specification has, and every implementation reads.
_ZARR_3: Final = frozenset(
    {"bytes", "vlen-utf8", "vlen-bytes", "transpose", "blosc", "zstd", "gzip", "crc32c"}
)


@dataclass(frozen=True)
class LayoutOptions:
    """The chunks, shards and compressor that a conversion should use."""

    chunk_mib: float = 4
    shard_mib: float = 64
    compressor: str = "keep"

    def __post_init__(self) -> None:
        check_choice("compressor", self.compressor, COMPRESSORS)
        for name, most in (("chunk_mib", 256), ("shard_mib", LARGEST_SHARD)):
            given: Any = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int | float) or not 0.001 <= given <= most:
                raise invalid_argument(name, given, f"a number of MiB from 0.001 to {most}")
        if self.shard_mib < self.chunk_mib:
            raise invalid_argument("shard_mib", self.shard_mib, f"at least chunk_mib, {self.chunk_mib:g}")

    @property
    def chunk_bytes(self) -> int:
        """Return the decoded bytes of a chunk."""
        return int(self.chunk_mib * MIB)

    @property
    def shard_bytes(self) -> int:
        """Return the decoded bytes of a shard."""
        return int(self.shard_mib * MIB)


@dataclass(frozen=True)
class ArrayPlan:
    """How one array is converted."""

    source: ArrayNode
    # The array as it will be stored.
    target: ArrayNode
    # Whether encoded chunks of the source are copied as they are.
    copied: bool
    # Whether references in it may be to other files, whose place is written anew.
    relinked: bool = False

    @cached_property
    def layout(self) -> Layout:
        """Return the layout of the array as it will be stored."""
        return layout(self.target)

    @cached_property
    def source_layout(self) -> Layout:
        """Return the layout of the array as it is stored in the source."""
        return layout(self.source)

    @property
    def itemsize(self) -> int:
        """Return the decoded bytes of an element."""
        return _itemsize(self.source)

    @property
    def source_has_fields(self) -> bool:
        """Return whether it is a compound whose objects are read field by field, as by Zarr 2."""
        codecs = self.source.metadata["codecs"]
        return (
            self.source.dtype.names is not None and parse_named_configuration(codecs[-1])[0] == LEGACY_OBJECTS
        )

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Return the number of chunks in a stored object along each axis."""
        sharding = self.layout.sharding
        return (1,) * self.target.ndim if sharding is None else sharding.counts

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Return the shape of a chunk."""
        return self.layout.chain.shape

    @property
    def chunks(self) -> int:
        """Return how many chunks the array has room for."""
        return prod(_grid(self.target.shape, self.chunk_shape))

    @property
    def objects(self) -> int:
        """Return how many stored objects, shards or chunks, it has room for."""
        return prod(_grid(self.target.shape, self.target.chunks))

    @property
    def nbytes(self) -> int:
        """Return the decoded bytes of the array."""
        return self.target.size * _itemsize(self.target)

    @property
    def document(self) -> dict[str, Any]:
        """Return what a dry run says of the array."""
        return {
            "path": self.target.path,
            "dtype": str(self.target.dtype) if self.target.dtype.names is None else "compound",
            "shape": self.target.shape,
            "bytes": self.nbytes,
            "chunk_shape": self.chunk_shape,
            "chunks": self.chunks,
            "shard_shape": self.target.chunks if self.layout.sharding is not None else None,
            "objects": self.objects,
            "codecs": [stage.name for stage in self.layout.chain.stages],
            "copied": self.copied,
        }

    def blocks(self, shard_bytes: int) -> Iterator[list[tuple[int, ...]]]:
        """Yield the coordinates of stored objects, those together that one chunk of the source is needed for.

        A source's chunk that is larger than a shard is decoded once for all shards that begin in it.
        """
        grid = _grid(self.target.shape, self.target.chunks)
        own = _clipped(self.source.inner_chunks, self.source.shape)
        if self.copied or prod(own) * _itemsize(self.source) <= shard_bytes or _is_contiguous(self.source):
            yield from ([coordinates] for coordinates in product(*map(range, grid)))
            return
        groups = [
            [
                [cell for cell in range(count) if cell * step // width == first]
                for first in sorted({cell * step // width for cell in range(count)})
            ]
            for count, step, width in zip(grid, self.target.chunks, own, strict=True)
        ]
        for cells in product(*groups):
            yield [*product(*cells)]

    def region(self, coordinates: Sequence[tuple[int, ...]]) -> tuple[slice, ...]:
        """Return the region of the array that stored objects cover, which lie together."""
        return tuple(
            slice(min(cells) * step, min((max(cells) + 1) * step, length))
            for cells, step, length in zip(
                zip(*coordinates, strict=True), self.target.chunks, self.target.shape, strict=True
            )
        )


def plan_array(
    node: ArrayNode, options: LayoutOptions, attributes: Mapping[str, Any], *, is_hdf5: bool = False
) -> ArrayPlan:
    """Return how an array is converted, with the attributes that it gets."""
    relinked = node.is_reference or bool(node.reference_fields)
    itemsize = _itemsize(node)
    own_codecs = None if is_hdf5 else _kept_codecs(node, options.compressor)
    own = _clipped(node.inner_chunks, node.shape)
    chunk = _chunk_shape(node, own, itemsize, options)
    # Chunks are stored whole, so one that is kept may be longer than the array, but not by much.
    stored = tuple(max(length, 1) for length in node.inner_chunks)
    fits = prod(stored) * itemsize <= max(2 * prod(own) * itemsize, _SMALLEST * options.chunk_bytes)
    copied = own_codecs is not None and not relinked and chunk == own and fits
    codecs = own_codecs if copied and own_codecs is not None else _codecs(node, itemsize, options.compressor)
    stored = stored if copied else chunk
    shard = _shard_shape(node, stored, itemsize, options.shard_bytes)
    fill = node.metadata.get("fill_value")
    document = {
        "shape": list(node.shape),
        "data_type": node.metadata["data_type"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shard)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _default_fill(node) if fill is None else fill,
        "codecs": codecs if shard == stored else [_sharded(stored, codecs)],
        "attributes": dict(attributes),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    names = node.metadata.get("dimension_names")
    if isinstance(names, list) and len(names) == node.ndim:
        document["dimension_names"] = names
    return ArrayPlan(node, ArrayNode(node.path, document), copied, relinked)


def _default_fill(node: ArrayNode) -> Any:
    return "" if node.dtype.kind == "O" else fill_document(np.zeros((), node.dtype)[()])


def _itemsize(node: ArrayNode) -> int:
    return TEXT_BYTES if node.dtype.kind == "O" else max(node.dtype.itemsize, 1)


def _is_contiguous(node: ArrayNode) -> bool:
    """Return whether numbers are stored in one piece, as by HDF5, so that any chunks are as good."""
    return "size" in (node.metadata.get(EXTENSION) or {})


def _clipped(chunk: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(min(width, length), 1) for width, length in zip(chunk, shape, strict=True))


def _grid(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    return tuple(ceil(length / width) for length, width in zip(shape, chunk, strict=True))


# Codecs


def _kept_codecs(node: ArrayNode, compressor: str) -> list[Any] | None:
    """Return the codecs of the source's chunks if they stay, None if the chunks are encoded anew."""
    codecs = node.metadata["codecs"]
    match codecs:
        case [{"name": "sharding_indexed", "configuration": {"codecs": inner}}]:
            codecs = inner
    parsed = [parse_named_configuration(codec) for codec in codecs]
    if not {name for name, _ in parsed} <= _ZARR_3:
        return None
    if compressor != "keep":
        found = [
            f"blosc-{configuration.get('cname')}" if name == "blosc" else name
            for name, configuration in parsed[1:]
        ]
        if found != ([] if compressor == "none" else [compressor]):
            return None
    return [spelled_out(codec) for codec in codecs]


def _codecs(node: ArrayNode, itemsize: int, compressor: str) -> list[Any]:
    """Return the codecs of chunks that are encoded anew."""
    name = parse_named_configuration(node.metadata["data_type"])[0]
    serializer: dict[str, Any] = {"name": "bytes"}
    if name in {"string", "variable_length_bytes"}:
        serializer = {"name": "vlen-utf8" if name == "string" else "vlen-bytes", "configuration": {}}
    elif name not in {"null_terminated_bytes", "raw_bytes", "bool", "int8", "uint8"}:
        serializer["configuration"] = {"endian": "little"}
    blosc = {
        "typesize": 1 if node.dtype.kind == "O" else min(itemsize, 255),
        "clevel": 5,
        "shuffle": "bitshuffle" if itemsize == 1 or node.dtype.kind == "O" else "shuffle",
        "blocksize": 0,
    }
    match compressor:
        case "none":
            return [serializer]
        case "gzip":
            return [serializer, {"name": "gzip", "configuration": {"level": 5}}]
        case "blosc-zstd" | "blosc-lz4":
            cname = compressor.removeprefix("blosc-")
            return [serializer, {"name": "blosc", "configuration": {**blosc, "cname": cname}}]
    # As hdmf-zarr 0.14 writes by default.
    return [serializer, {"name": "zstd", "configuration": {"level": 0, "checksum": False}}]


def _sharded(chunk: tuple[int, ...], codecs: list[Any]) -> dict[str, Any]:
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(chunk),
            "codecs": codecs,
            "index_codecs": index,
            "index_location": "end",
        },
    }


# Shapes


def _chunk_shape(
    node: ArrayNode, own: tuple[int, ...], itemsize: int, options: LayoutOptions
) -> tuple[int, ...]:
    """Return the shape of chunks: the source's, if their size suits streaming, or multiples or parts of them.

    Shapes that go with the source's have each of its chunks decoded once.
    """
    whole = _clipped(node.shape, node.shape)
    size = options.chunk_bytes
    if prod(whole) * itemsize <= size:
        return whole
    if _is_contiguous(node):
        own = (1,) * node.ndim
    stored = prod(own) * itemsize
    if _SMALLEST * size <= stored <= _LARGEST * size:
        return own
    limits = [*whole]
    if node.ndim == 2:
        # Parts of about the same width.
        limits[1] = ceil(whole[1] / ceil(whole[1] / CHANNELS))
    if stored > _LARGEST * size:
        return _filled((1,) * node.ndim, _clipped(limits, own), size // itemsize)
    return _filled(own, limits, size // itemsize)


def _filled(unit: Sequence[int], limits: Sequence[int], elements: int) -> tuple[int, ...]:
    """Return multiples of a shape that have about so many elements: the last axes first, then along time."""
    shape = [*unit]
    for axis in reversed(range(len(shape))):
        room = max(elements // prod(shape), 1)
        shape[axis] *= max(min(room, ceil(limits[axis] / shape[axis])), 1)
    return tuple(shape)


def _shard_shape(node: ArrayNode, chunk: tuple[int, ...], itemsize: int, shard_bytes: int) -> tuple[int, ...]:
    """Return the shape of shards: whole rows of chunks, and as many along time as a shard takes."""
    limits: Sequence[int] = [max(length, 1) for length in node.shape]
    own = _clipped(node.inner_chunks, node.shape)
    if prod(own) * itemsize > shard_bytes and not _is_contiguous(node):
        # Shards of a part of one source's chunk, so that each of these is decoded once.
        limits = own
    return _filled(chunk, limits, shard_bytes // itemsize)
