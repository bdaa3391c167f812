"""Check how a session is stored: its format, metadata, chunks, codecs and filters."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final

from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class

from intake_nwbzarr.arrays.layout import layout
from intake_nwbzarr.checks.checked import Checked, message
from intake_nwbzarr.checks.report import Finding
from intake_nwbzarr.checks.session_info import codec_names
from intake_nwbzarr.errors import AccessError, LimitError, ListingError, MetadataError
from intake_nwbzarr.hdf5 import filters
from intake_nwbzarr.hdf5.documents import EXTENSION
from intake_nwbzarr.hierarchy.consolidate import Consolidation, compare, without_schemas
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.hierarchy.zarr2.objects import CODEC_NAME
from intake_nwbzarr.mapping.schema import is_a
from intake_nwbzarr.transport.request_log import counted, readable_size

SMALL: Final = 256 * 2**10
"""Bytes of a stored chunk, on average, below which requests take longer than bytes."""

MANY: Final = 100
"""Chunks of an array up to which small ones do not matter."""

LARGE: Final = 64 * 2**20
"""Decoded bytes of a chunk above which reading a little takes long."""

LARGE_ARRAY: Final = 8 * 2**20
"""Decoded bytes of an array from which compression matters."""

MANY_REQUESTS: Final = 50
"""Requests to open an HDF5 file from which its metadata are called scattered."""

# Codecs and filters that do not make chunks smaller.
_NO_COMPRESSION: Final = frozenset(
    {"shuffle", "fletcher32", "delta", "fixedscaleoffset", "astype", "crc32", "crc32c", "adler32", "bytes"}
)
# Filters that come with HDF5, or, as lzf, with h5py.
_OF_HDF5: Final = frozenset(
    {
        filters.GZIP, filters.SHUFFLE, filters.FLETCHER32, filters.SZIP, filters.NBIT, filters.SCALEOFFSET,
        filters.LZF,
    }
)  # fmt: skip


def format_findings(session: Checked, requests: int) -> Iterator[Finding]:
    """Yield findings of the format; `requests` opened the session."""
    hierarchy = session.hierarchy
    if hierarchy.location.is_hdf5:
        yield session.finding("hdf5-file", "", f"Opening it took {counted(requests, 'request')}.")
        if requests > MANY_REQUESTS:
            yield session.finding("scattered-metadata", "", f"Opening it took {requests:,} requests.")
        yield from _plugins(session)
        return
    if hierarchy.zarr_format == 2:
        yield session.finding("zarr-2", "", f"It has {len(session.nodes):,} groups and arrays.")
        for node in session.arrays:
            if _is_pickled(node):
                yield session.finding("pickled-objects", node.path, f"{counted(node.size, 'element')}.")


def _plugins(session: Checked) -> Iterator[Finding]:
    for node in session.arrays:
        used = (node.metadata.get(EXTENSION) or {}).get("filters") or ()
        names = [
            filters.NAMES.get(number, name or f"filter {number}")
            for number, name, _ in used
            if number not in _OF_HDF5
        ]
        if names:
            yield session.finding("filter-plugin", node.path, f"Compressed with {', '.join(names)}.")


def _is_pickled(node: ArrayNode) -> bool:
    return any(
        codec.get("name") == CODEC_NAME and codec["configuration"].get("object_codec") == "pickle"
        for codec in node.metadata.get("codecs") or ()
        if isinstance(codec, dict)
    )


def damage_findings(session: Checked) -> Iterator[Finding]:
    """Yield groups and arrays whose metadata are damaged, or whose codecs are not known."""
    hierarchy = session.hierarchy
    for path in hierarchy:
        try:
            node = hierarchy[path]
            if isinstance(node, ArrayNode) and EXTENSION not in node.metadata:
                layout(node)
        except (MetadataError, LimitError) as error:
            yield session.finding("damaged-object", path, message(error))
            continue
        if isinstance(node, ArrayNode) and (unknown := list(_unknown_codecs(node.metadata))):
            yield session.finding("unknown-codec", path, f"Stored with {', '.join(map(repr, unknown))}.")


def _unknown_codecs(document: object) -> Iterator[str]:
    if not isinstance(document, dict):
        return
    for codec in document.get("codecs") or ():
        name = codec.get("name") if isinstance(codec, dict) else codec
        try:
            get_codec_class(str(name))
        except UnknownCodecError:
            yield str(name)
        if isinstance(codec, dict):
            yield from _unknown_codecs(codec.get("configuration"))


def compare_metadata(session: Checked) -> Consolidation | None:
    """Compare consolidated metadata with the stored ones; None where that cannot, or need not, be done."""
    hierarchy = session.hierarchy
    if hierarchy.location.is_hdf5 or not hierarchy.consolidated:
        return None
    keys = None if session.listed is None else [entry.key for entry in session.listed]
    if keys is None:
        session.unchecked.append("whether consolidated metadata are up to date: the storage cannot be listed")
        return None
    try:
        return compare(hierarchy.location, keys)
    except MetadataError as error:
        session.damaged.append(session.finding("damaged-object", error.path or "", message(error)))
        session.unchecked.append("whether consolidated metadata are up to date: stored ones are damaged")
        return None
    except (AccessError, ListingError) as error:
        session.unchecked.append(f"whether consolidated metadata are up to date: {message(error)}")
        return None


def freshness_findings(session: Checked, found: Consolidation | None) -> Iterator[Finding]:
    """Yield a finding where consolidated metadata differ from the stored ones."""
    if found is None or found.up_to_date:
        return
    stale = without_schemas(found, session.hierarchy.specifications)
    if stale.up_to_date:
        yield session.finding(
            "schemas-not-consolidated", "", f"{len(found.added):,} groups and arrays are not listed."
        )
        return
    kinds = (("missing", stale.added), ("gone", stale.removed), ("changed", stale.changed))
    texts = [f"{len(paths):,} {kind} ({_first(paths)})" for kind, paths in kinds if paths]
    yield session.finding("stale-metadata", "", f"Of {counted(found.nodes, 'object')}: {', '.join(texts)}.")


def _first(paths: tuple[str, ...]) -> str:
    return f"{paths[0]}, ..." if len(paths) > 1 else paths[0]


def chunk_findings(session: Checked) -> Iterator[Finding]:
    """Yield findings of the sizes of chunks, of compression, and of chunks that are not stored."""
    for node in session.arrays:
        yield from _sizes(session, node)
        nbytes = node.size * node.dtype.itemsize
        if nbytes >= LARGE_ARRAY and node.dtype.kind in "iufcb":
            used = {name.lower() for name in codec_names(node.metadata)} - _NO_COMPRESSION
            if not used:
                yield session.finding("uncompressed", node.path, f"{readable_size(nbytes)} of {node.dtype}.")
        yield from _absent(session, node)


def _sizes(session: Checked, node: ArrayNode) -> Iterator[Finding]:
    inner = prod(node.inner_chunks) * node.dtype.itemsize
    count = session.counted.get(node.path)
    grid = prod(-(-length // max(width, 1)) for length, width in zip(node.shape, node.chunks, strict=True))
    chunks = grid if count is None else count.stored
    stored = prod(node.chunks) * node.dtype.itemsize
    if count is not None and count.nbytes is not None and count.stored:
        stored = count.nbytes // count.stored
    if chunks > MANY and stored < SMALL:
        yield session.finding(
            "small-chunks", node.path, f"{chunks:,} chunks of {readable_size(stored)}, {node.inner_chunks}."
        )
    if min(inner, node.size * node.dtype.itemsize) > LARGE:
        yield session.finding(
            "large-chunks", node.path, f"Chunks of {readable_size(inner)}, {node.inner_chunks}."
        )


def _absent(session: Checked, node: ArrayNode) -> Iterator[Finding]:
    count = session.counted.get(node.path)
    if count is None or not count.absent:
        return
    # Of a sharded array, the objects that are stored are its shards.
    kind = "chunk" if node.inner_chunks == node.chunks else "shard"
    found = f"{count.absent:,} of {counted(count.expected, kind)} not stored."
    if not session.hierarchy.location.is_hdf5 and session.hierarchy.zarr_format == 2:
        yield session.finding("missing-chunks", node.path, found)
    # Of a single chunk, such as a starting time of 0, and of masks of few pixels, it says nothing that
    # writers leave out zeros.
    elif count.expected > 1 and (node.ndim == 1 or _is_of_series(session, node)):
        yield session.finding("absent-chunks", node.path, found)


def _is_of_series(session: Checked, node: ArrayNode) -> bool:
    group = session.nodes.get(node.path.rpartition("/")[0])
    return group is not None and is_a(session.hierarchy, group, "TimeSeries")
