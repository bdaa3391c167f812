"""The hierarchy as a read-only Zarr store: canonical metadata from memory, chunks from the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Buffer, Iterable, Sequence
from math import prod
from typing import Any, TypedDict

from zarr.abc.buffer import Buffer as ZarrBuffer
from zarr.abc.buffer import BufferPrototype
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.buffer import default_buffer_prototype

from intake_nwbzarr.errors import ChunkError, ClosedError
from intake_nwbzarr.hierarchy.decompress import check_expansion, undo_bytes
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.hierarchy.objects import CODEC_NAME as LEGACY_OBJECTS
from intake_nwbzarr.hierarchy.variable_length import VARIABLE_LENGTH, check_count, text_limit
from intake_nwbzarr.hierarchy.zarr3 import Codec, named
from intake_nwbzarr.transport.answers import Bytes
from intake_nwbzarr.transport.contract import LARGEST_OBJECT
from intake_nwbzarr.transport.requests import fetch_many


class HierarchyStore(Store):
    """What zarr-python and NWBZarrIO read: the file as hdmf-zarr 0.14 would have written it.

    The root document holds everything consolidated, so opening it takes no request. After `close`, reading
    raises.

    Parameters
    ----------
    hierarchy
        The file.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        super().__init__(read_only=True)
        self.hierarchy = hierarchy
        self.closed = False
        self._prefetched: dict[str, Bytes | None] = {}

    def __str__(self) -> str:
        return str(self.hierarchy.location)

    def __repr__(self) -> str:
        return f"HierarchyStore({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HierarchyStore) and other.hierarchy is self.hierarchy

    def __hash__(self) -> int:
        return hash(id(self.hierarchy))

    def close(self) -> None:
        """Refuse all further reading."""
        self.closed = True
        self._prefetched = {}
        super().close()

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> ZarrBuffer | None:
        """A metadata document or a chunk, None where there is none."""
        if self.closed:
            raise ClosedError(
                f"The file {self} was closed; read its data before the end of the `with` block, or reopen it."
            )
        buffers = prototype or default_buffer_prototype()
        document = self._document(key)
        if document is not None:
            return buffers.buffer.from_bytes(document)
        if key.rpartition("/")[2] in {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}:
            return None
        if byte_range is None and key in self._prefetched:
            data = self._prefetched[key]
        else:
            fetched = await self.hierarchy.transport.get(key, **_range(byte_range))
            data = None if fetched is None else fetched.data
        if data is None:
            return None
        if byte_range is None:
            self._check(key, data)
        return buffers.buffer.from_bytes(data)

    def prefetch(self, keys: Sequence[str]) -> None:
        """Fetch small chunks side by side that will be read one after the other; kept until `close`."""
        fetched = fetch_many(self.hierarchy.transport.while_opening(), keys)
        self._prefetched = {
            key: None if found is None else found.data for key, found in zip(keys, fetched, strict=True)
        }

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[ZarrBuffer | None]:
        """Parts of chunks, one for each key and range."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is a document or chunk of that name."""
        return await self.get(key) is not None

    @property
    def supports_writes(self) -> bool:
        """Never."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """Never."""
        return False

    @property
    def supports_listing(self) -> bool:
        """Groups and arrays can be listed; chunks cannot."""
        return True

    async def set(self, key: str, value: ZarrBuffer) -> None:  # noqa: ARG002 (the interface's)
        """Refuse: the store is read-only."""
        raise ClosedError(f"{self} is opened for reading; {key!r} cannot be written.")

    async def delete(self, key: str) -> None:
        """Refuse: the store is read-only."""
        raise ClosedError(f"{self} is opened for reading; {key!r} cannot be deleted.")

    async def list(self) -> AsyncIterator[str]:
        """The keys of all metadata documents."""
        for path in self.hierarchy:
            yield f"{path}/zarr.json".lstrip("/")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """The keys of metadata documents that start with a prefix."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names of what is directly in a group."""
        path = prefix.strip("/")
        if path in self.hierarchy:
            yield "zarr.json"
        for name in self.hierarchy.children(path):
            yield name

    def _check(self, key: str, data: Bytes) -> None:
        """Refuse a chunk that would expand far beyond its array's chunks: zarr's codecs know no limit."""
        path = key
        while path and path not in self.hierarchy:
            path = path.rpartition("/")[0]
        node = self.hierarchy.get(path)
        if isinstance(node, ArrayNode):
            where = f"{key!r} in {self.hierarchy.location}"
            codecs = [named(codec) for codec in node.metadata["codecs"]]
            if codecs[0][0] in VARIABLE_LENGTH:
                _check_items(node, codecs[1:], data, where)
            else:
                # Filters may widen what they decode.
                limit = min(prod(node.chunks) * node.dtype.itemsize * 16 + 2**20, LARGEST_OBJECT)
                check_expansion(node.metadata["codecs"][-1], data, limit, where=where)

    def _document(self, key: str) -> bytes | None:
        path, _, name = key.rpartition("/")
        if name != "zarr.json" or path not in self.hierarchy:
            return None
        document = self._node_document(path)
        if path == "":
            document["consolidated_metadata"] = {
                "kind": "inline",
                "must_understand": False,
                "metadata": {child: self._node_document(child) for child in self.hierarchy if child},
            }
        # As zarr-python writes them: NaN and infinity, which attributes may hold, are not null.
        return json.dumps(document, separators=(",", ":")).encode()

    def _node_document(self, path: str) -> dict[str, Any]:
        node = self.hierarchy[path]
        if isinstance(node, ArrayNode):
            return dict(node.metadata)
        return {"zarr_format": 3, "node_type": "group", "attributes": dict(node.attributes)}


def _check_items(node: ArrayNode, codecs: Sequence[Codec], data: Bytes, where: str) -> None:
    """Refuse strings that are more, or longer, than the metadata of their array allow."""
    if any(name == LEGACY_OBJECTS for name, _ in codecs):
        return  # the codec has limits of its own
    content: Buffer = data
    for name, configuration in reversed(codecs):
        codec = {"name": name, "configuration": configuration}
        content = undo_bytes(codec, content, text_limit(node.chunks), where=where)
    try:
        check_count(content, prod(node.chunks))
    except ValueError as error:
        raise ChunkError(
            f"{where} cannot be decoded: {error}. The chunk is damaged, or does not belong to this array."
        ) from error


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
