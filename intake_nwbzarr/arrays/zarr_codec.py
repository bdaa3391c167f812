"""The zarr codec with which pynwb decodes chunks through this package, bounded and with its errors.

zarr's codecs have no limits, raise their libraries' errors, and one array with unknown codecs makes zarr
refuse the whole file. So zarr gets metadata in which one codec of this package replaces all codecs of an
array; those of a shard are replaced within ``sharding_indexed``, so that parts of shards are still read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self

from zarr.abc.buffer import Buffer as ZarrBuffer
from zarr.abc.codec import ArrayBytesCodec
from zarr.buffer.cpu import Buffer as CpuBuffer
from zarr.buffer.cpu import NDBuffer
from zarr.registry import register_codec

from intake_nwbzarr.arrays.decode import (
    CHUNK,
    TEXTS,
    ChunkName,
    CodecChain,
    bounded_decoding,
    bounded_sharding,
    codec_chain,
    decode,
    spelled_out,
)
from intake_nwbzarr.arrays.gather import INLINE
from intake_nwbzarr.arrays.layout import fill_value
from intake_nwbzarr.arrays.shards import parse_sharding
from intake_nwbzarr.hierarchy.nodes import ArrayNode, numpy_dtype, parse_named_configuration
from intake_nwbzarr.zarr_internals import ArraySpec


class NamedBuffer(CpuBuffer):
    """The bytes of a stored object, or of a part of it, with its key for errors."""

    name: str | None = None

    @classmethod
    def named(cls, data: bytes | memoryview, name: str) -> NamedBuffer:
        """Return a buffer with a key."""
        buffer = cls.from_bytes(data)
        buffer.name = name
        return buffer


@dataclass(frozen=True)
class ChunkCodec(ArrayBytesCodec):
    """The codec ``nwbzarr.chunk``, which decodes a chunk as `decode` does; it cannot encode."""

    # `array` (its path) and `location`, for errors; `data_type`, `fill_value` and `codecs` as in Zarr 3
    # metadata
    configuration: Mapping[str, Any]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the codec of a codec document in array metadata."""
        return cls(data["configuration"])

    def to_dict(self) -> dict[str, Any]:
        """Return the codec document."""
        return {"name": CHUNK, "configuration": dict(self.configuration)}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> NoReturn:
        """Raise: the encoded size is not known, as for any compressor."""
        raise NotImplementedError

    def _chain(self, chunk_spec: ArraySpec) -> CodecChain:
        array = self.configuration["array"]
        dtype = numpy_dtype(self.configuration["data_type"], array)
        return codec_chain(self.configuration, chunk_spec.shape, dtype, array)

    def _decode_sync(self, chunk_data: ZarrBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        array, location = self.configuration["array"], self.configuration["location"]
        where = ChunkName(array, getattr(chunk_data, "name", None), location)
        decoded = decode(self._chain(chunk_spec), memoryview(chunk_data.as_numpy_array()), where)
        return NDBuffer.from_numpy_array(decoded.astype(chunk_spec.dtype.to_native_dtype(), copy=False))

    async def _decode_single(self, chunk_data: ZarrBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        codecs = self._chain(chunk_spec)
        if codecs.is_plain and codecs.nbytes <= INLINE:
            return self._decode_sync(chunk_data, chunk_spec)
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)


@dataclass(frozen=True)
class VLenUTF8Codec(ChunkCodec):
    """The codec ``nwbzarr.texts``: `ChunkCodec` for strings; zarr 3.4 requires a class of this name."""

    def to_dict(self) -> dict[str, Any]:
        """Return the codec document."""
        return {"name": TEXTS, "configuration": dict(self.configuration)}


register_codec(CHUNK, ChunkCodec)
register_codec(TEXTS, VLenUTF8Codec)


def zarr_document(node: ArrayNode, location: str) -> dict[str, Any]:
    """Return an array's metadata for zarr, with all its codecs replaced by one of this package."""
    metadata = node.metadata
    fill_value(metadata.get("fill_value"), node.dtype, node.path)
    names = metadata.get("dimension_names")
    codecs = metadata["codecs"]
    if len(codecs) == 1 and parse_named_configuration(codecs[0])[0] == "sharding_indexed":
        decoding = bounded_sharding(codecs[0], metadata, node.path, location)
        parse_sharding(parse_named_configuration(codecs[0])[1], node.chunks, 1, node.path)
    else:
        decoding = bounded_decoding(codecs, metadata, node.path, location)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(node.shape),
        "data_type": metadata["data_type"],
        "chunk_grid": metadata["chunk_grid"],
        "chunk_key_encoding": spelled_out(metadata.get("chunk_key_encoding", "default")),
        "fill_value": metadata.get("fill_value"),
        "codecs": [decoding],
        "attributes": dict(node.attributes),
        **({"dimension_names": names} if _are_names(names, node.ndim) else {}),
    }


def _are_names(names: Any, ndim: int) -> bool:
    return (
        isinstance(names, list) and len(names) == ndim and all(isinstance(name, str | None) for name in names)
    )
