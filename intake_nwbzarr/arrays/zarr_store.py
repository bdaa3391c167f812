"""A read-only zarr-python Store of a hierarchy, which NWBZarrIO reads, and the codecs that it names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, Self, TypedDict

import zarr
from zarr.abc.buffer import Buffer as ZarrBuffer
from zarr.abc.buffer import BufferPrototype
from zarr.abc.codec import ArrayBytesCodec
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.buffer import default_buffer_prototype
from zarr.buffer.cpu import Buffer as CpuBuffer
from zarr.buffer.cpu import NDBuffer
from zarr.registry import register_codec
from zarr.storage import StorePath

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
from intake_nwbzarr.arrays.layout import fill_value, layout
from intake_nwbzarr.arrays.shards import Sharding, parse_index, parse_sharding
from intake_nwbzarr.errors import ClosedError, MetadataError, NWBZarrError, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, numpy_dtype, parse_named_configuration
from intake_nwbzarr.transport.answers import Bytes
from intake_nwbzarr.transport.open import fetch_many
from intake_nwbzarr.zarr_internals import ArraySpec


class HierarchyStore(Store):
    """A read-only store of a file in the form that hdmf-zarr 0.14 writes, with consolidated metadata."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        super().__init__(read_only=True)
        self.hierarchy = hierarchy
        self.closed = False
        self._prefetched: dict[str, Bytes | None] = {}
        self._unreadable: dict[str, NWBZarrError] = {}

    def __str__(self) -> str:
        return str(self.hierarchy.location)

    def __repr__(self) -> str:
        return f"HierarchyStore({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HierarchyStore) and other.hierarchy is self.hierarchy

    def __hash__(self) -> int:
        return hash(id(self.hierarchy))

    def __contains__(self, path: str) -> bool:
        return path in self._documents

    def close(self) -> None:
        """Make all further reads raise an error."""
        self.closed = True
        self._prefetched = {}
        super().close()

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> ZarrBuffer | None:
        """Return a metadata document or chunk, None if there is none."""
        if self.closed:
            raise ClosedError(
                f"The file {self} was closed.",
                location=str(self),
                next_step="Read its data inside the `with` block, or open it again.",
            )
        buffers = prototype or default_buffer_prototype()
        document = self._document(key)
        if document is not None:
            return buffers.buffer.from_bytes(document)
        if key.rpartition("/")[2] in {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}:
            return None
        if (error := self._unreadable.get(self._array_of(key))) is not None:
            raise error
        if byte_range is None and key in self._prefetched:
            data = self._prefetched[key]
        else:
            fetched = await self.hierarchy.transport.get(key, **_range(byte_range))
            data = None if fetched is None else fetched.data
        if data is None:
            return None
        self._check_index(key, byte_range, data)
        return NamedBuffer.named(data, key)

    def prefetch(self, keys: Sequence[str]) -> None:
        """Fetch small chunks concurrently that are read one by one later; they are kept until `close`."""
        fetched = fetch_many(self.hierarchy.transport.while_opening(), keys)
        self._prefetched = {
            key: None if found is None else found.data for key, found in zip(keys, fetched, strict=True)
        }

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[ZarrBuffer | None]:
        """Return a part of a chunk for each key and byte range."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Return whether a document or chunk exists."""
        return await self.get(key) is not None

    @property
    def supports_writes(self) -> bool:
        """Return False."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """Return False."""
        return False

    @property
    def supports_listing(self) -> bool:
        """Return True: metadata documents can be listed, chunks cannot."""
        return True

    async def set(self, key: str, value: ZarrBuffer) -> None:  # noqa: ARG002 (zarr's signature)
        """Refuse: the store is read-only."""
        raise self._not_writable("written", key)

    async def delete(self, key: str) -> None:
        """Refuse: the store is read-only."""
        raise self._not_writable("deleted", key)

    def _not_writable(self, verb: str, key: str) -> ClosedError:
        message = f"{self} is open for reading only; {key!r} cannot be {verb}."
        return ClosedError(message, location=str(self), path=key)

    async def list(self) -> AsyncIterator[str]:
        """Yield the keys of all metadata documents."""
        for path in self._documents:
            yield f"{path}/zarr.json".lstrip("/")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys of metadata documents that start with a prefix."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names of a group's members."""
        path = prefix.strip("/")
        if path in self._documents:
            yield "zarr.json"
        for name in self.hierarchy.children(path):
            if f"{path}/{name}".lstrip("/") in self._documents:
                yield name

    def replace_refused(self) -> bool:
        """Replace arrays that zarr refuses, so that it reads the others; return whether there were any."""
        refused = dict(self._refused())
        self._documents |= {path: _placeholder(self._documents[path]) for path in refused}
        self._unreadable |= refused
        return bool(refused)

    def _refused(self) -> Iterator[tuple[str, NWBZarrError]]:
        for path, document in self._documents.items():
            if document["node_type"] == "array" and path not in self._unreadable:
                try:
                    zarr.Array.from_dict(StorePath(self, path), document)
                except Exception as error:  # zarr raises many kinds
                    location = self.hierarchy.location
                    yield (
                        path,
                        MetadataError(
                            f"zarr refused the array {path!r} in {location}: "
                            f"{type(error).__name__}: {error}.",
                            location=location,
                            path=path,
                        ),
                    )

    def _array_of(self, key: str) -> str:
        """Return the path of the array that a chunk key belongs to."""
        path = key
        while path and path not in self.hierarchy:
            path = path.rpartition("/")[0]
        return path

    def _check_index(self, key: str, byte_range: ByteRequest | None, data: Bytes) -> None:
        """Raise a `ChunkError` for a shard with a damaged index, for which zarr raises various errors."""
        node = self.hierarchy.get(self._array_of(key))
        if (
            not isinstance(node, ArrayNode)
            or parse_named_configuration(node.metadata["codecs"][0])[0] != "sharding_indexed"
        ):
            return
        sharding = layout(node).sharding
        if sharding is None or not (byte_range is None or _is_index(byte_range, sharding)):
            return
        view = memoryview(data)
        index = view[-sharding.index_bytes :] if sharding.at_end else view[: sharding.index_bytes]
        parse_index(sharding, index, ChunkName(node.path, key, str(self.hierarchy.location)))

    def _document(self, key: str) -> bytes | None:
        path, _, name = key.rpartition("/")
        if name != "zarr.json" or path not in self._documents:
            return None
        document = self._documents[path]
        if path == "":
            document = {
                **document,
                "consolidated_metadata": {
                    "kind": "inline",
                    "must_understand": False,
                    "metadata": {child: each for child, each in self._documents.items() if child},
                },
            }
        # As in zarr-python, NaN and infinity in attributes are kept.
        return json.dumps(document, separators=(",", ":")).encode()

    @cached_property
    def _documents(self) -> dict[str, dict[str, Any]]:
        """Return the metadata document of each node; for a damaged array, only its shape and attributes."""
        documents: dict[str, dict[str, Any]] = {}
        location = str(self.hierarchy.location)
        for path in self.hierarchy:
            parent = path.rpartition("/")[0]
            if path and documents.get(parent, {}).get("node_type") != "group":
                continue  # the parent was skipped, or is an array
            try:
                node = self.hierarchy[path]
                document = _group(node) if isinstance(node, GroupNode) else zarr_document(node, location)
                if not isinstance(document["attributes"].get("object_id", ""), str):
                    del document["attributes"]["object_id"]  # pynwb finds objects by it, and creates another
                documents[path] = document
            except NWBZarrError as error:
                recovered = self.hierarchy.recover_array(path)
                if recovered is None:
                    warn_caller(
                        f"{path!r} in {location} is skipped. {error}", code="damaged-object", path=path
                    )
                else:
                    documents[path] = _placeholder(recovered)
                    self._unreadable[path] = error
        return documents


def _group(node: GroupNode) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(node.attributes)}


def _placeholder(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document for an unreadable array, with its shape and attributes, that zarr accepts."""
    shape = document["shape"]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(each, 1) for each in shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        "attributes": document["attributes"],
    }


def _is_index(byte_range: ByteRequest, sharding: Sharding) -> bool:
    if sharding.at_end:
        return isinstance(byte_range, SuffixByteRequest) and byte_range.suffix == sharding.index_bytes
    return byte_range == RangeByteRequest(0, sharding.index_bytes)


class _Range(TypedDict, total=False):
    start: int
    stop: int
    suffix: int


def _range(byte_range: ByteRequest | None) -> _Range:
    match byte_range:
        case None:
            return {}
        case RangeByteRequest(start, end):
            return {"start": start, "stop": end}
        case OffsetByteRequest(offset):
            return {"start": offset}
        case SuffixByteRequest(suffix):
            return {"suffix": suffix}
    raise TypeError(f"Unknown byte request {byte_range!r}.")


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
