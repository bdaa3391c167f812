"""Metadata that this process has read before: one conditional GET tells whether they are still the same."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hierarchy.documents import (
    MAXIMUM_DOCUMENT_BYTES,
    Documents,
    load_documents,
    parse_documents,
)
from intake_nwbzarr.transport.contract import Unchanged
from intake_nwbzarr.transport.memory import Memory
from intake_nwbzarr.transport.requests import Transport

MOST_BYTES: Final = 256 * 2**20
"""Bytes of metadata documents that a process remembers; what was not opened for longest is forgotten."""

_NAMES: Final[Mapping[Literal[2, 3], str]] = {3: "zarr.json", 2: ".zmetadata"}


memory: Memory[Documents] = Memory(MOST_BYTES)


async def load_remembered(transport: Transport) -> Documents:
    """A store's metadata documents, from this process' memory if they are unchanged.

    Over HTTP and S3, with consolidated metadata that have an ETag: one conditional GET instead of two
    requests and their bytes; with ``storage_options={"revalidate": False}`` no request, and no look at
    whether the session has changed. Otherwise as `intake_nwbzarr.hierarchy.documents.load_documents`.
    """
    if not transport.conditional or transport.location.option("consolidated") is False:
        return await load_documents(transport)
    key = transport.location.uncached.cache_key
    asks = transport.location.option("revalidate") is not False
    known = memory.get(key)
    if known is None and not asks:
        known = await _from_copies(transport)
    documents = known if known is not None and not asks else await _asked(transport, known)
    if documents.consolidated and documents.etag and not documents.etag.startswith("W/"):
        memory.put(key, documents, _size(documents))
    else:
        memory.forget(key)
    return documents


async def _asked(transport: Transport, known: Documents | None) -> Documents:
    if known is None or known.etag is None:
        return await load_documents(transport)
    found = await transport.get_unless(_NAMES[known.zarr_format], known.etag, limit=MAXIMUM_DOCUMENT_BYTES)
    if isinstance(found, Unchanged):
        return known
    # Gone, or not consolidated any more: then everything is asked for.
    documents = None if found is None else parse_documents(transport.location, known.zarr_format, found)
    return documents or await load_documents(transport)


async def _from_copies(transport: Transport) -> Documents | None:
    """What a chunk cache keeps of the metadata, however old."""
    for zarr_format, name in _NAMES.items():
        kept = await transport.kept(name)
        # A stray document of the other format may have been kept as well.
        with suppress(MetadataError):
            documents = kept and parse_documents(transport.location, zarr_format, kept)
            if documents and documents.is_nwb:
                return documents
    return None


def _size(documents: Documents) -> int:
    return sum(memoryview(raw).nbytes for node in documents.nodes.values() for raw in node.values())
