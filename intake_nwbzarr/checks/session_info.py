"""What a session contains: its metadata, neurodata objects and arrays, and how these are stored."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from intake_nwbzarr.arguments import takes_storage_options
from intake_nwbzarr.checks.chunks import ChunkCount, ChunkCounts, count_chunks, counted_chunks
from intake_nwbzarr.hdf5.documents import EXTENSION
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, load_hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.hierarchy.zarr2.objects import CODEC_NAME
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.transport.request_log import counted, readable_size, track_requests
from intake_nwbzarr.untrusted_input import printable, printable_line

if TYPE_CHECKING:
    from zarr.abc.store import Store

# Namespaces of schemas that every session has.
_CORE: Final = frozenset({"core", "hdmf-common", "hdmf-experimental"})

# Attributes of a Dataset that lead back to its session, and are not the session's own.
_MADE: Final = frozenset(
    {"nwb_location", "nwb_storage_options", "nwb_group", "nwb_unmapped", "neurodata_type", "nwb_path"}
)

# Encodings of values, which are no compression.
_ENCODINGS: Final = frozenset({"bytes", "vlen-utf8", "vlen-bytes", "transpose", "crc32c", "sharding_indexed"})

# Longer values are cut in the text.
_WIDEST: Final = 100

MOST_ALIKE: Final = 3
"""Objects of the same kind in one group that are listed each; of more, one line tells their number."""


@dataclass(frozen=True)
class ArrayInfo:
    """An array, and how it is stored.

    Parameters
    ----------
    path
        In the file.
    shape, dtype
        As stored; ``object`` for texts and references, and ``name: dtype, ...`` for a compound type.
    chunk_shape, chunk_bytes
        Of a chunk before compression; in a shard, of the smallest part of it that can be read.
    compression
        The names of codecs or filters, in the order in which they were applied.
    expected, stored
        How many chunks (or shards) its shape has room for, and how many there are; None where not counted.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    chunk_shape: tuple[int, ...]
    chunk_bytes: int
    compression: tuple[str, ...]
    expected: int
    stored: int | None

    @property
    def nbytes(self) -> int:
        """Return the bytes of all values without compression; of texts, those of pointers to them."""
        return math.prod(self.shape) * (self.chunk_bytes // max(math.prod(self.chunk_shape), 1))


@dataclass(frozen=True)
class ObjectInfo:
    """A neurodata object.

    Parameters
    ----------
    path, type
        In the file, and its neurodata type.
    dims, shape, dtype, units
        Of the data of a series, or of the rows of a table, as xarray shows them; None where there are none.
    rate, timestamps, start, duration
        Of its times: Hz, a number, and seconds; None where they would have to be read.
    description
        As stored.
    arrays
        Those of the object itself, and not of objects in it.
    """

    path: str
    type: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str | None
    units: str | None
    rate: float | None
    timestamps: int | None
    start: float | None
    duration: float | None
    description: str | None
    arrays: tuple[ArrayInfo, ...]

    @property
    def main(self) -> ArrayInfo | None:
        """Return the array ``data``, or without one the largest array."""
        data = f"{self.path}/data"
        return max(self.arrays, key=lambda array: (array.path == data, array.nbytes), default=None)


@dataclass(frozen=True)
class SessionInfo:
    """The contents of a session, as `session_info` returns them; its text is what ``nwbzarr info`` prints.

    Parameters
    ----------
    location
        Without secrets.
    format
        ``HDF5``, ``Zarr 2`` or ``Zarr 3``.
    consolidated
        Whether one document has all metadata; None for HDF5.
    nwb_version
        Of the schema.
    session, subject
        Metadata of the session and of its subject, by the names of NWB.
    extensions
        The versions of schemas other than NWB's own that are cached in the file, by name.
    objects
        In the order of their paths; the first is the session itself, with arrays of metadata.
    unreadable
        Why objects and attributes cannot be read, by path.
    group
        The path that was asked for; None for all.
    requests, received
        How many requests, and bytes, opening and counting took.
    chunks
        How many chunks are stored, those of cached schemas included; None where they were not counted.
    counted
        Whether they were to be counted; some storage cannot be listed.
    """

    location: str
    format: str
    consolidated: bool | None
    nwb_version: str | None
    session: Mapping[str, Any]
    subject: Mapping[str, Any]
    extensions: Mapping[str, str]
    objects: tuple[ObjectInfo, ...]
    unreadable: Mapping[str, str]
    group: str | None
    requests: int
    received: int
    chunks: ChunkCounts | None
    counted: bool

    @property
    def document(self) -> dict[str, Any]:
        """Return what ``nwbzarr info --json`` prints."""
        # Each array has its own number of chunks.
        own = {name: value for name, value in asdict(self).items() if name not in {"chunks", "counted"}}
        return {"document": "nwbzarr-info 1.0", **own}

    def __str__(self) -> str:
        return "\n".join(printable(line, keep="") for line in _text(self))


@takes_storage_options
def session_info(
    location: str | os.PathLike[str] | Location | Store,
    storage_options: Mapping[str, Any] | None = None,
    *,
    group: str | None = None,
    consolidated: bool | None = None,
    chunks: bool = True,
) -> SessionInfo:
    """List what a session contains, and how its arrays are stored, without reading its data.

    Parameters
    ----------
    location, storage_options, consolidated
        As for `open_hierarchy`.
    group
        The path of an object: list it, and the objects in it, only.
    chunks
        Whether stored chunks are counted: by one listing of the storage, or by the index of every dataset of
        an HDF5 file.

    Returns
    -------
    SessionInfo

    Raises
    ------
    NodeNotFoundError
        When the group does not exist.
    LocationNotFoundError, NotZarrError, NotNWBError, AccessError, TransportError, MetadataError
        As for `open_hierarchy`.
    """
    with track_requests() as log:
        where = locate(location, storage_options).read_consolidated(consolidated)
        hierarchy = load_hierarchy(where)
        within = "" if group is None else hierarchy.resolve(group.strip("/"), look_up=True).path
        rows, attributes = _shown(hierarchy.location)
        extensions = extension_versions(hierarchy)
        counts = count_chunks(hierarchy, within) if chunks else None
    session = {name: value for name, value in attributes.items() if name not in _MADE}
    subject = {name: session.pop(name) for name in [*session] if name.startswith("subject_")}
    version = session.pop("nwb_version", None)
    return SessionInfo(
        location=str(hierarchy.location),
        format="HDF5" if hierarchy.location.is_hdf5 else f"Zarr {hierarchy.zarr_format}",
        consolidated=None if hierarchy.location.is_hdf5 else hierarchy.consolidated,
        nwb_version=None if version is None else str(version),
        session=session,
        subject={name.removeprefix("subject_"): value for name, value in subject.items()},
        extensions=extensions,
        objects=tuple(_objects(hierarchy, rows, within, counts)),
        unreadable=dict(hierarchy.unreadable),
        group=None if group is None else within,
        requests=log.requests,
        received=log.bytes,
        chunks=counts,
        counted=chunks,
    )


def _shown(location: Location) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the objects that xarray shows, by path, and the attributes of the session."""
    from intake_nwbzarr.accessor.contents import shown_objects
    from intake_nwbzarr.accessor.describe import object_row
    from intake_nwbzarr.accessor.times import indexed_times
    from intake_nwbzarr.backend import NWBZarrBackendEntrypoint

    datasets = NWBZarrBackendEntrypoint().open_groups_as_dict(location)
    rows: dict[str, dict[str, Any]] = {}
    for dataset in datasets.values():
        times = {time.dim: time for time in indexed_times(dataset)}
        for each in shown_objects(dataset):
            rows.setdefault(each.path, object_row(dataset, each, times))
    return rows, {str(name): value for name, value in datasets["/"].attrs.items()}


def extension_versions(hierarchy: Hierarchy) -> dict[str, str]:
    """Return the versions of cached schemas by name, the last of each."""
    folder = hierarchy.specifications
    if folder not in hierarchy:
        return {}
    names = [name for name in hierarchy.children(folder) if name not in _CORE]
    found = {name: hierarchy.children(f"{folder}/{name}") for name in names}
    return {name: versions[-1] for name, versions in found.items() if versions}


def _objects(
    hierarchy: Hierarchy, shown: Mapping[str, dict[str, Any]], within: str, counts: ChunkCounts | None
) -> Iterator[ObjectInfo]:
    """Yield the objects that xarray shows, and all typed groups, with the arrays of each."""
    stored = {} if counts is None else {count.path: count for count in counts.arrays}
    nodes = {node.path: node for node in hierarchy.valid_nodes()}
    schemas = f"{hierarchy.specifications}/"
    arrays: dict[str, list[ArrayNode]] = {}
    types: dict[str, str] = {path: str(row["type"]) for path, row in shown.items()}
    types[""] = "NWBFile"
    for path, node in nodes.items():
        if not isinstance(node, ArrayNode) and node.neurodata_type and not path.startswith(schemas):
            types.setdefault(path, node.neurodata_type)
    for path, node in nodes.items():
        if isinstance(node, ArrayNode):
            owner = path
            if path.startswith(schemas):
                continue
            while owner and owner not in types:
                owner = owner.rpartition("/")[0]
            arrays.setdefault(owner, []).append(node)
    for path in sorted(types):
        if within and not f"{path}/".startswith(f"{within}/"):
            continue
        row = shown.get(path, {})
        found = nodes.get(path)
        description = row.get("description") or (found.attributes.get("description") if found else None)
        yield ObjectInfo(
            path=path,
            type=types[path],
            dims=row.get("dims", ()),
            shape=row.get("shape", ()),
            dtype=None if row.get("dtype") is None else str(row["dtype"]),
            units=None if row.get("units") is None else str(row["units"]),
            rate=row.get("rate"),
            timestamps=row.get("timestamps"),
            start=row.get("start"),
            duration=row.get("duration"),
            description=description if isinstance(description, str) else None,
            arrays=tuple(_array(node, stored.get(node.path)) for node in arrays.get(path, ())),
        )


def _array(node: ArrayNode, count: ChunkCount | None) -> ArrayInfo:
    chunks = node.inner_chunks
    grid = (-(-length // max(width, 1)) for length, width in zip(node.shape, node.chunks, strict=True))
    return ArrayInfo(
        path=node.path,
        shape=node.shape,
        dtype=_dtype(node.dtype),
        chunk_shape=chunks,
        chunk_bytes=math.prod(chunks) * node.dtype.itemsize,
        compression=tuple(codec_names(node.metadata)),
        expected=math.prod(grid),
        stored=None if count is None else count.stored,
    )


def _dtype(dtype: np.dtype[Any]) -> str:
    """Return a dtype as text: of texts and references ``object``, of a compound type those of its fields."""
    if dtype.names is not None:
        return ", ".join(f"{name}: {_dtype(dtype[name])}" for name in dtype.names)
    return "object" if dtype.kind in "OUS" else str(dtype)


def codec_names(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of an array's codecs that compress, or of its filters in an HDF5 file."""
    if EXTENSION in document:
        yield from (name for _, name, _ in document[EXTENSION]["filters"])
        return
    for codec in document.get("codecs") or ():
        name = str(codec.get("name"))
        if name == "sharding_indexed":
            yield from codec_names(codec.get("configuration") or {})
        elif name == CODEC_NAME:
            yield from (
                each["name"].removeprefix("numcodecs.") for each in codec["configuration"]["compressors"]
            )
        elif name not in _ENCODINGS:
            yield name.removeprefix("numcodecs.")


def _text(info: SessionInfo) -> Iterator[str]:
    """Yield the lines of a session's contents."""
    state = "" if info.format == "HDF5" else ", consolidated" if info.consolidated else ", not consolidated"
    yield info.location
    yield f"{info.format}{state}, NWB {info.nwb_version or 'of unknown version'}"
    for heading, values in (("session", info.session), ("subject", info.subject)):
        if values:
            yield ""
            yield heading
            width = max(map(len, values))
            yield from (f"  {name:{width}}  {_plain(value)}" for name, value in values.items())
    groups: dict[str, list[ObjectInfo]] = {}
    for each in info.objects:
        if each.path:
            groups.setdefault(each.path.rpartition("/")[0], []).append(each)
    for parent, members in sorted(groups.items()):
        yield ""
        yield parent or "/"
        yield from _table([_cells(alike) for alike in _alike(members)])
        if info.group is not None:
            yield from _table([_array_cells(array) for each in members for array in each.arrays])
    if info.extensions:
        yield ""
        yield "extensions"
        yield from (f"  {name} {version}" for name, version in info.extensions.items())
    if info.unreadable:
        yield ""
        yield "cannot be read"
        yield from (f"  {path}: {reason}" for path, reason in info.unreadable.items())
    yield ""
    arrays = [array for each in info.objects for array in each.arrays]
    size = readable_size(sum(array.nbytes for array in arrays))
    found = (
        f"{counted(sum(each.path != '' for each in info.objects), 'object')}, {counted(len(arrays), 'array')}"
    )
    yield f"{found} of {size} without compression"
    yield f"{counted(info.requests, 'request')}, {readable_size(info.received)} received"
    if info.counted:
        yield from counted_chunks(info.chunks).splitlines()


def _alike(objects: Sequence[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    """Yield objects one by one, or in a list those of one kind of which there are many."""
    kinds: dict[object, list[ObjectInfo]] = {}
    for each in objects:
        main = each.main
        kind = each.type, each.dims, each.dtype, each.units, each.rate, main and main.compression
        kinds.setdefault(kind, []).append(each)
    for members in kinds.values():
        if len(members) > MOST_ALIKE:
            yield members
        else:
            yield from ([each] for each in members)


def _cells(alike: Sequence[ObjectInfo]) -> tuple[str, ...]:
    first, last = alike[0], alike[-1]
    name = first.path.rpartition("/")[2]
    if len(alike) > 1:
        name = f"{name} … {last.path.rpartition('/')[2]} ({len(alike):,})"
    sizes = [_range([each.shape[axis] for each in alike]) for axis in range(len(first.shape))]
    dims = ", ".join(f"{dim}: {size}" for dim, size in zip(first.dims, sizes, strict=True))
    kind = " ".join(part for part in (first.dtype, first.units) if part)
    main = first.main
    stored = ""
    if main is not None and main.shape:
        own = main.path.removeprefix(first.path).strip("/")
        stored = f"{'' if own in {'', 'data'} else f'{own} '}{_stored(main)}"
    return name, first.type, f"({dims})" if dims else "", kind, _time(alike), stored


def _array_cells(array: ArrayInfo) -> tuple[str, ...]:
    return f"  {array.path}", f"({_lengths(array.shape)})", array.dtype, _stored(array)


def _stored(array: ArrayInfo) -> str:
    parts = [f"({_lengths(array.chunk_shape)})", readable_size(array.chunk_bytes), *array.compression]
    return f"chunks {' '.join(parts)}"


def _lengths(shape: Sequence[int]) -> str:
    return ", ".join(f"{length:,}" for length in shape)


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,}…{most:,}"


def _time(alike: Sequence[ObjectInfo]) -> str:
    first = alike[0]
    if first.timestamps is None:
        return ""
    duration = f", {first.duration:.6g} s" if first.duration is not None and len(alike) == 1 else ""
    return f"{first.rate:,.6g} Hz{duration}" if first.rate is not None else f"irregular{duration}"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield (
            "  "
            + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip()
        )


def _plain(value: Any) -> str:
    text = "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return printable_line(text, _WIDEST)
