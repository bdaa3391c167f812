"""The objects of an HDF5 file as metadata documents of Zarr 3, in the form that hdmf-zarr 0.14 writes.

Numbers stay where they are: chunks of arrays are byte ranges of the file. Texts, references and compounds
with these are encoded anew, as Zarr does, when they are read.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, isnan, prod
from typing import Any, Final, Literal

import numpy as np

from intake_nwbzarr.errors import MetadataError, UnsafePathError
from intake_nwbzarr.hdf5.elements import Address, Unsupported
from intake_nwbzarr.hdf5.messages import Datatype, unsupported
from intake_nwbzarr.hdf5.objects import Dataset, Group, Object
from intake_nwbzarr.untrusted_input import LONGEST_KEY, safe_path

PIECE: Final = 2**20
"""Bytes of the pieces in which contiguous numbers are read."""

ELEMENTS: Final = 2**16
"""Elements of the pieces in which contiguous texts, references and compounds are read."""

TEXT_FIELD: Final = 2048
"""Bytes of a text or reference in a compound, as hdmf-zarr declares them."""

EXTENSION: Final = "nwbzarr_hdf5"
"""The field of an array's document that says how its chunks are stored in the HDF5 file."""

UNREAD: Final = "nwbzarr_unread"
"""The field of the root's document that names members that were not read, by the path of their group."""

SMALL: Final = 64 * 2**10
"""Bytes of an array of one chunk up to which that is an object of its own: opening a session reads many."""

# What a session's own metadata are, which every object's Dataset has.
_OF_SESSION: Final = frozenset(
    {"session_start_time", "timestamps_reference_time", "identifier", "session_description", "general"}
)

# Schemas that are not read from files.
_KNOWN_SCHEMAS: Final = frozenset({"core", "hdmf-common", "hdmf-experimental"})
ERROR: Final = "nwbzarr_error"
"""The field of a damaged object's document that says what is wrong with it."""

UNREADABLE: Final = "nwbzarr_unreadable"
"""The field of the root's document that says why objects and attributes cannot be read, by their path."""

# Of dimension scales and netCDF4, which NWB does not use.
_OMITTED: Final = frozenset(
    {
        "DIMENSION_LIST",
        "REFERENCE_LIST",
        "CLASS",
        "NAME",
        "_Netcdf4Dimid",
        "_Netcdf4Coordinates",
        "_NCProperties",
    }
)

type JSON = Any


@dataclass(frozen=True)
class ArraySource:
    """How the chunks of an array are made from a dataset."""

    dataset: Dataset
    # Stored numbers; numbers in the header or in pieces; elements that are encoded anew; or none.
    kind: Literal["chunks", "pieces", "compact", "elements", "unsupported"]
    # The shape of an array's chunks.
    chunks: tuple[int, ...]
    # Why it cannot be read.
    reason: str = ""


@dataclass
class Translated:
    """The documents of a file."""

    # From a path, without a leading slash, to its document; references to objects are paths.
    nodes: dict[str, dict[str, JSON]] = field(default_factory=dict)
    arrays: dict[str, ArraySource] = field(default_factory=dict)
    # From an object's address to its path.
    paths: dict[int, str] = field(default_factory=dict)
    # The names of members that were not read, by the path of their group; None if some are not known.
    unread: dict[str, list[str] | None] = field(default_factory=dict)
    # Whether attributes refer to objects that none of the groups has.
    unknown: bool = False
    # Why objects and attributes are left out or cannot be read, by path.
    unreadable: dict[str, str] = field(default_factory=dict)


def is_needed(path: str, group: str) -> bool:
    """Return whether metadata are read to open one object: its own, those in it, and the session's."""
    if f"{group}/".startswith(f"{path}/") or path.startswith(f"{group}/"):
        return True
    first, _, rest = path.partition("/")
    if first == "specifications":
        return rest.count("/") < 1 or rest.partition("/")[0] not in _KNOWN_SCHEMAS
    return first in _OF_SESSION


def translate(
    root: int, objects: Mapping[int, Object | MetadataError], base: int, location: object
) -> Translated:
    """Return the documents of all objects that are reached from the root group.

    Addresses count from a base: the end of the file's user block.
    """
    result = Translated(paths={root: ""})
    links: dict[str, list[JSON]] = {}
    pending = deque([(root, "")])
    # Level by level: an object with several hard links has its shortest path, the others become links.
    while pending:
        address, path = pending.popleft()
        item = objects.get(address)
        if not isinstance(item, Group):
            continue
        unread: list[str] = []
        for link in sorted(item.links, key=lambda each: each.name):
            child = f"{path}/{link.name}" if path else link.name
            try:
                safe_path(child, location)
            except UnsafePathError:
                result.unreadable[child[:LONGEST_KEY]] = "its name is not allowed, or its path is too deep"
                continue
            if link.address is None:
                links.setdefault(path, []).append(_link(link.name, link.path, link.file, path))
            elif link.address in result.paths:
                target = "/" + result.paths[link.address]
                links.setdefault(path, []).append({"name": link.name, "source": ".", "path": target})
            elif link.address not in objects:
                result.paths[link.address] = child
                unread.append(link.name)
            elif isinstance(objects[link.address], Group | Dataset | MetadataError):
                result.paths[link.address] = child
                pending.append((link.address, child))
        if unread or not item.whole:
            result.unread[path] = unread if item.whole else None
    for address, path in result.paths.items():
        if address not in objects:
            continue
        result.nodes[path] = _document(result, path, objects[address], links.get(path, []), base)
    return result


def _link(name: str, path: str, file: str | None, group: str) -> JSON:
    if file is None:
        # A soft link may have a path from its group.
        return {"name": name, "source": ".", "path": _absolute(path, group)}
    # HDF5 counts from the folder of the file; hdmf-zarr from the file, which is a folder there.
    is_relative = not file.startswith("/") and "://" not in file
    return {"name": name, "source": f"../{file}" if is_relative else file, "path": _absolute(path, "")}


def _absolute(path: str, group: str) -> str:
    parts = [] if path.startswith("/") else group.split("/")
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(part for part in parts if part)


def _document(
    result: Translated, path: str, item: Object | MetadataError, links: list[JSON], base: int
) -> dict[str, JSON]:
    if isinstance(item, MetadataError):
        return {"zarr_format": 3, "node_type": "damaged", ERROR: str(item)}
    assert isinstance(item, Group | Dataset)  # noqa: S101 - for the type checker
    attributes = {
        name: _attribute(value, result) for name, value in item.attributes.items() if name not in _OMITTED
    }
    for name, value in item.attributes.items():
        if isinstance(value, Unsupported):
            result.unreadable[f"{path}@{name}"] = f"attributes with {value.reason} are not read"
        elif isinstance(value, Address) and attributes.get(name) is None:
            result.unreadable[f"{path}@{name}"] = "the attribute refers to an object that is not in the file"
    attributes = {
        name: value for name, value in attributes.items() if not isinstance(value, Unsupported | None)
    }
    if isinstance(item, Group):
        if path == "" and isinstance(attributes.get(".specloc"), dict):
            attributes[".specloc"] = attributes[".specloc"]["_REFERENCE"]["path"].strip("/")
        if links:
            attributes["_LINKS"] = links
        return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    document, source = _array(path, item, base)
    result.arrays[path] = source
    if source.reason:
        result.unreadable[path] = source.reason
    return {**document, "attributes": {**document["attributes"], **attributes}}


def _attribute(value: Any, result: Translated) -> Any:
    match value:
        case Address(None):
            return {"_REFERENCE": {"source": ".", "path": ""}}
        case Address(address) if address not in result.paths:
            result.unknown = True
            return None
        case Address(int(address)):
            return {"_REFERENCE": {"source": ".", "path": "/" + result.paths[address]}}
        case list():
            return [_attribute(item, result) for item in value]
        case np.generic() | np.ndarray():
            return value.tolist()
        case bytes():
            return base64.b64encode(value).decode()
        case complex():
            return [value.real, value.imag]
    return value


def _array(path: str, dataset: Dataset, base: int) -> tuple[dict[str, JSON], ArraySource]:
    """Return the document of a dataset, and how its chunks are made."""
    kind, layout = dataset.datatype, dataset.layout
    # A null dataspace has no elements: hdmf-zarr writes an array of length 0.
    shape = (0,) if dataset.dataspace.shape is None else dataset.dataspace.shape
    reason = unsupported(kind) or _unreadable(dataset)
    dtype = _direct_dtype(kind)
    extension: JSON = None
    if reason:
        described: JSON = {
            "data_type": "string",
            "codecs": [{"name": "vlen-utf8"}],
            "fill_value": "",
            "attributes": {},
        }
        source = ArraySource(dataset, "unsupported", shape, reason)
    elif dtype is not None:
        described = _numbers(kind, dtype, dataset.fill)
        if layout.kind == "chunked":
            source = ArraySource(dataset, "chunks", layout.chunks)
            filters = [[each.number, each.name, [*each.parameters]] for each in dataset.filters]
            extension = {"must_understand": False, "filters": filters}
        elif layout.kind == "contiguous":
            source = ArraySource(dataset, "pieces", _pieces(shape, dtype.itemsize, PIECE))
            start = None if layout.address is None else base + layout.address
            extension = {"must_understand": False, "filters": [], "start": start, "size": layout.size}
        else:
            source = ArraySource(dataset, "compact", shape)
    else:
        chunks = layout.chunks if layout.kind == "chunked" else _pieces(shape, 1, ELEMENTS)
        described = _encoded(path, kind, chunks, dataset.fill_value)
        source = ArraySource(dataset, "elements", chunks)
    source = ArraySource(dataset, source.kind, tuple(max(each, 1) for each in source.chunks), source.reason)
    is_one = all(width >= length for width, length in zip(source.chunks, shape, strict=True))
    if extension is not None and is_one and prod(source.chunks) * kind.size <= SMALL:
        extension = {"must_understand": False, "filters": extension["filters"], "is_object": True}
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*shape],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*source.chunks]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "storage_transformers": [],
        **described,
    }
    return document | ({EXTENSION: extension} if extension is not None else {}), source


def _unreadable(dataset: Dataset) -> str:
    if dataset.external:
        return "its elements are in external files"
    if dataset.layout.kind == "virtual":
        return "it is a virtual dataset, made of other datasets"
    if dataset.datatype.kind == "array":
        return "its elements are arrays"
    if dataset.datatype.kind == "vlen" and not dataset.datatype.is_text:
        return "its elements are sequences of variable length"
    if dataset.datatype.kind == "compound" and any(
        each.datatype.kind in {"array", "compound", "complex", "opaque"}
        or (each.datatype.kind == "vlen" and not each.datatype.is_text)
        for each in dataset.datatype.members
    ):
        return "it is a compound of arrays, sequences or other compounds"
    return ""


def _direct_dtype(kind: Datatype) -> np.dtype[Any] | None:
    """Return the dtype of elements that are stored as Zarr stores them, None for others."""
    if kind.is_bool:
        return np.dtype(np.bool_)
    if kind.kind != "compound":
        return kind.dtype
    at = 0
    orders = set()
    fields = []
    for member in kind.members:
        own = member.datatype.dtype
        if own is None or own.kind not in "iufb" or member.offset != at or member.datatype.is_bool:
            return None
        at += own.itemsize
        orders |= {own.byteorder} - {"|"}
        fields.append((member.name, own))
    return np.dtype(fields) if at == kind.size and len(orders) <= 1 and fields else None


def _numbers(kind: Datatype, dtype: np.dtype[Any], fill: bytes | None) -> JSON:
    order = (
        dtype.byteorder
        if dtype.names is None
        else next((dtype[name].byteorder for name in dtype.names if dtype[name].byteorder != "|"), "|")
    )
    serializer: JSON = {"name": "bytes"}
    if (dtype.itemsize > 1 and dtype.kind != "V") or dtype.names is not None:
        serializer["configuration"] = {"endian": "big" if order == ">" else "little"}
    value = np.zeros((), dtype) if fill is None or len(fill) != kind.size else np.frombuffer(fill, dtype)[0]
    is_compound = dtype.names is not None
    return {
        "data_type": data_type(dtype),
        "fill_value": fill_document(np.asarray(value)[()]),
        "codecs": [serializer],
        "attributes": {} if is_compound else {"_DTYPE": dtype.newbyteorder("=").type.__name__.rstrip("_")},
    }


def data_type(dtype: np.dtype[Any]) -> JSON:
    """Return the Zarr 3 data type of a dtype."""
    if dtype.names is not None:
        fields = [{"name": name, "data_type": data_type(dtype[name])} for name in dtype.names]
        return {"name": "struct", "configuration": {"fields": fields}}
    match dtype.kind:
        case "V":
            return {"name": "raw_bytes", "configuration": {"length_bytes": dtype.itemsize}}
        case "M" | "m":
            unit, scale = np.datetime_data(dtype)
            kind = "datetime64" if dtype.kind == "M" else "timedelta64"
            return {"name": f"numpy.{kind}", "configuration": {"unit": unit, "scale_factor": scale}}
    return str(dtype.newbyteorder("=").name)


def fill_document(value: Any) -> JSON:
    """Return a NumPy scalar as Zarr 3 metadata have fill values."""
    dtype: np.dtype[Any] = value.dtype
    if dtype.names is not None:
        return {name: fill_document(value[name]) for name in dtype.names}
    match dtype.kind:
        case "V":
            return base64.b64encode(value.tobytes()).decode()
        case "M" | "m":
            return int(value.view(np.int64))
        case "c":
            return [_float(float(value.real)), _float(float(value.imag))]
        case "f":
            return _float(float(value))
        case "U":
            return ""
    return value.item()


def _float(value: float) -> JSON:
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _encoded(path: str, kind: Datatype, chunks: tuple[int, ...], fill: Any) -> JSON:
    """Return what a document says of elements that are encoded anew."""
    if kind.kind != "compound":
        is_reference = kind.kind == "reference"
        return {
            "data_type": "string",
            "fill_value": fill if isinstance(fill, str) else "",
            "codecs": [{"name": "vlen-utf8", "configuration": {}}],
            "attributes": {"_DTYPE": "object_reference" if is_reference else "str"},
        }
    content, fields, dtypes = [], [], []
    for member in kind.members:
        own = member.datatype.dtype
        if own is None:
            described: JSON = {"name": "fixed_length_utf32", "configuration": {"length_bytes": TEXT_FIELD}}
            content.append(
                {"name": member.name, "kind": "reference" if member.datatype.kind == "reference" else "text"}
            )
            dtypes.append((member.name, np.dtype(f"U{TEXT_FIELD // 4}")))
        else:
            native = np.dtype(np.bool_) if member.datatype.is_bool else own.newbyteorder("=")
            described = data_type(native)
            content.append({"name": member.name, "kind": described})
            dtypes.append((member.name, native))
        fields.append({"name": member.name, "data_type": described})
    references = [member.name for member in kind.members if member.datatype.kind == "reference"]
    configuration = {
        "array": path,
        "shape": [max(each, 1) for each in chunks],
        "order": "C",
        "object_codec": "json2",
        "compressors": [],
        "content": content,
    }
    return {
        "data_type": {"name": "struct", "configuration": {"fields": fields}},
        "fill_value": fill_document(np.zeros((), np.dtype(dtypes))[()]),
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "nwbzarr.legacy_objects", "configuration": configuration},
        ],
        "attributes": {"_REFERENCE_FIELDS": references} if references else {},
    }


def _pieces(shape: tuple[int, ...], itemsize: int, most: int) -> tuple[int, ...]:
    """Return the shape of pieces of a contiguous array, each of which is one range of about `most` bytes."""
    chunks = [*shape]
    for axis in range(len(shape)):
        row = prod(shape[axis + 1 :]) * itemsize
        if prod(chunks) * itemsize <= most or row == 0:
            break
        # Whole rows of the first axis whose rows are small enough; single ones of the axes before it.
        chunks[axis] = max(1, min(shape[axis], most // row)) if row <= most else 1
    return tuple(chunks)
