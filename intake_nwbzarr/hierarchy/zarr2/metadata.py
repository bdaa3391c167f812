"""Translation of Zarr 2 metadata to the Zarr 3 form that hdmf-zarr 0.14 writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from zarr.registry import register_chunk_key_encoding

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hierarchy.decompress import COMPRESSORS
from intake_nwbzarr.hierarchy.nodes import FIRST_COLUMN, ArrayNode, GroupNode
from intake_nwbzarr.hierarchy.zarr2.objects import REPEATED_RECORDS
from intake_nwbzarr.hierarchy.zarr2.types import (
    JSON,
    StoredType,
    byte_codecs,
    codecs,
    fill_value,
    stored_type,
    structured,
)
from intake_nwbzarr.zarr_internals import ChunkKeyEncoding

OBJECT_CODECS: Final = frozenset({"pickle", "json2", "vlen-utf8", "vlen-bytes"})
"""Supported Zarr 2 filters that store Python objects."""

TEXT_FIELD_BYTES: Final = 2048
"""The width of strings and references in compound types, 512 UTF-32 characters as in hdmf-zarr 0.14."""

_TEXT_FIELD: Final = StoredType(
    {"name": "fixed_length_utf32", "configuration": {"length_bytes": TEXT_FIELD_BYTES}}, "little"
)

# The types of a compound's fields in the attribute zarr_dtype, where the dtype of the array is "|O".
_FIELD_TYPES: Final = {
    **{f"{kind}{bits}": f"<{kind[0]}{bits // 8}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    "int": "<i8",
    "uint": "<u8",
    "float": "<f8",
    "bool": "|b1",
    "bool_": "|b1",
}


def object_metadata(path: str, zarray: Mapping[str, Any], declared: Any, chunks: list[int]) -> dict[str, Any]:
    """Return the Zarr 3 metadata of an array of strings, references or compounds that contain them."""
    filters = zarray.get("filters") or ()
    object_codec = filters[0]["id"] if filters else None
    if object_codec not in OBJECT_CODECS:
        raise MetadataError(
            f"The array {path!r} has Python objects stored with {object_codec!r}, which is not supported.",
            path=path,
            found=object_codec,
            expected=sorted(OBJECT_CODECS),
            next_step=f"Supported are {', '.join(sorted(OBJECT_CODECS))}.",
        )
    compressors = byte_codecs(zarray, filters[1:], 1, path)
    fields = _fields(zarray["dtype"], declared, path)
    configuration: dict[str, Any] = {
        "array": path,
        "shape": [*chunks],
        "order": zarray.get("order", "C"),
        "object_codec": object_codec,
        "compressors": compressors,
    }
    if fields is not None:
        return _records_metadata(path, fields, configuration)
    is_reference = declared == "object"
    if (
        object_codec == "vlen-utf8"
        and not is_reference
        and (configuration["order"] == "C" or len(chunks) < 2)
    ):
        chain: list[JSON] = [{"name": "vlen-utf8", "configuration": {}}, *compressors]
    else:
        configuration["content"] = "reference" if is_reference else "text"
        chain = [{"name": "vlen-utf8", "configuration": {}}, _legacy_objects(configuration)]
    fill = zarray.get("fill_value")
    return {
        "data_type": "string",
        "fill_value": fill if isinstance(fill, str) else "",
        "codecs": chain,
        "attributes": {"_DTYPE": "object_reference" if is_reference else "str"},
    }


def has_repeated_records(
    zarray: Mapping[str, Any], declared: Any, shape: list[int], chunks: list[int]
) -> bool:
    """Return whether hdmf-zarr, up to 0.11, wrote each field of a row as a record: (row, field) for (row)."""
    # If the second dimension is divided into chunks, no chunk has whole rows: the array is not changed.
    dtype = zarray["dtype"]
    return (
        isinstance(dtype, list)
        and isinstance(declared, list)
        and len(declared) == len(dtype) > 1
        and shape[1:] == chunks[1:] == [len(dtype)]
        and zarray.get("order", "C") == "C"
        and not zarray.get("filters")
    )


def repeated_records_metadata(path: str, zarray: Mapping[str, Any], chunks: list[int]) -> dict[str, Any]:
    """Return the Zarr 3 metadata of a compound array whose fields were each written as a record."""
    stored = stored_type(zarray["dtype"], path)
    configuration: dict[str, Any] = {
        "array": path,
        "shape": [*chunks],
        "object_codec": REPEATED_RECORDS,
        "compressors": byte_codecs(zarray, (), stored.dtype.itemsize, path),
        "endian": stored.endian,
        "content": [
            {"name": name, "kind": stored_type(declared, path).document} for name, declared in zarray["dtype"]
        ],
    }
    return {
        "data_type": stored.document,
        "fill_value": fill_value(zarray.get("fill_value"), stored, path),
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, _legacy_objects(configuration)],
        "attributes": {},
    }


def _records_metadata(
    path: str, fields: list[tuple[str, StoredType | str]], configuration: dict[str, Any]
) -> dict[str, Any]:
    stored = structured(
        [(name, kind if isinstance(kind, StoredType) else _TEXT_FIELD) for name, kind in fields], path
    )
    configuration["content"] = [
        {"name": name, "kind": kind if isinstance(kind, str) else kind.document} for name, kind in fields
    ]
    references = [name for name, kind in fields if kind == "reference"]
    return {
        "data_type": stored.document,
        # hdmf-zarr wrote a pickled 0 (gAVLAC4=), which zarr-python 2 read as zeros in every field.
        "fill_value": fill_value(None, stored, path),
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, _legacy_objects(configuration)],
        "attributes": {"_REFERENCE_FIELDS": references} if references else {},
    }


def _fields(dtype: Any, declared: Any, path: str) -> list[tuple[str, StoredType | str]] | None:
    """Return a compound's fields, each with a type, ``"text"`` or ``"reference"``; None for other arrays."""
    described = {entry["name"]: entry["dtype"] for entry in declared} if isinstance(declared, list) else {}
    if not isinstance(dtype, list):
        # Up to hdmf-zarr 0.3, the dtype is only "|O", and each row is a list.
        dtype = [[name, _FIELD_TYPES.get(kind, "|O")] for name, kind in described.items()]
        if not dtype:
            return None
    fields: list[tuple[str, StoredType | str]] = []
    for name, field_type, *rest in dtype:
        if field_type == "|O":
            fields.append((name, "reference" if described.get(name) == "object" else "text"))
        elif rest:
            raise MetadataError(
                f"The array {path!r} has a field {name!r} that is itself an array, {rest[0]!r}.",
                path=path,
                found=rest[0],
            )
        else:
            # The codec encodes all fields again, in one byte order.
            fields.append((name, replace(stored_type(field_type, path), endian="little")))
    return fields


def _legacy_objects(configuration: dict[str, Any]) -> JSON:
    for compressor in configuration["compressors"]:
        if compressor["name"] not in COMPRESSORS:
            raise MetadataError(
                f"The array {configuration['array']!r} has Python objects and the filter "
                f"{compressor['name']!r}, which is not supported for objects.",
                path=configuration["array"],
                found=compressor["name"],
                expected=sorted(COMPRESSORS),
                next_step=f"Supported are {', '.join(sorted(COMPRESSORS))}.",
            )
    return {"name": "nwbzarr.legacy_objects", "configuration": configuration}


def has_objects(dtype: Any) -> bool:
    """Return whether the elements, or fields of them, are Python objects."""
    return dtype == "|O" or (isinstance(dtype, list) and any(field[1] == "|O" for field in dtype))


# hdmf-zarr caches schemas here, in arrays without _DTYPE.
_SCHEMAS: Final = "specifications/"


def translate_group(path: str, zattrs: Mapping[str, Any]) -> GroupNode:
    """Return a Zarr 2 group as a node."""
    return GroupNode(path, translate_attributes(zattrs, path))


def translate_array(path: str, zarray: Mapping[str, Any], zattrs: Mapping[str, Any]) -> ArrayNode:
    """Return a Zarr 2 array as a node whose metadata zarr-python 3 can use to read the stored chunks."""
    # Objects are read as strings by the codec nwbzarr.legacy_objects; references as the path of the target,
    # or as JSON where it is in another file. Compounds that hdmf-zarr up to 0.11 wrote with every field
    # repeated along a second dimension get one dimension.
    try:
        return _translate_array(path, zarray, zattrs)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, MetadataError):
            raise
        raise MetadataError(
            f"The Zarr 2 metadata of the array {path!r} are damaged: {type(error).__name__}: {error}.",
            path=path,
            next_step="Compare them with the original file.",
        ) from error


def translate_attributes(zattrs: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return attributes with links and references as in hdmf-zarr 0.14, without ``zarr_dtype``."""
    attributes: dict[str, Any] = {}
    for name, value in zattrs.items():
        where = f"The attribute {name!r} of {path!r}"
        if name == "zarr_link":
            attributes["_LINKS"] = _links(value, where, path)
        elif isinstance(value, Mapping) and "zarr_dtype" in value:
            if value["zarr_dtype"] != "object":
                raise MetadataError(
                    f"{where} is of type {value['zarr_dtype']!r}; only object references are supported.",
                    path=path,
                    found=value["zarr_dtype"],
                    expected="object",
                )
            attributes[name] = {"_REFERENCE": _reference(value.get("value"), where, path)}
        elif name != "zarr_dtype":
            attributes[name] = value
    return attributes


def _translate_array(path: str, zarray: Mapping[str, Any], zattrs: Mapping[str, Any]) -> ArrayNode:
    if zarray.get("zarr_format", 2) != 2:
        raise MetadataError(
            f"The array {path!r} has a .zarray of Zarr {zarray['zarr_format']!r}, not 2.",
            path=path,
            found=zarray["zarr_format"],
            expected=2,
        )
    shape = [_length(length) for length in zarray["shape"]]
    chunks = [max(_length(length), 1) for length in zarray["chunks"]]
    if len(shape) != len(chunks):
        raise MetadataError(
            f"The array {path!r} has the shape {shape} but chunks of shape {chunks}.",
            path=path,
            found=chunks,
            expected=shape,
        )
    declared = zattrs.get("zarr_dtype")
    if declared == "scalar" and shape == chunks == [1]:
        shape, chunks = [], []  # the chunk key is "0" in both formats
    metadata: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {
            "name": "v2",
            "configuration": {"separator": zarray.get("dimension_separator") or "."},
        },
        "storage_transformers": [],
    }
    if has_objects(zarray["dtype"]):
        described = object_metadata(path, zarray, declared, chunks)
    elif has_repeated_records(zarray, declared, shape, chunks):
        metadata["shape"], chunks = shape[:1], chunks[:1]
        metadata["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": chunks}}
        metadata["chunk_key_encoding"]["name"] = FIRST_COLUMN
        described = repeated_records_metadata(path, zarray, chunks)
    else:
        described = _plain_metadata(path, {**zarray, "shape": shape})
    metadata.update(described)
    attributes = described["attributes"]
    if path.startswith(_SCHEMAS):
        attributes.pop("_DTYPE", None)
    metadata["attributes"] = {**attributes, **translate_attributes(zattrs, path)}
    return ArrayNode(path, metadata)


def _plain_metadata(path: str, zarray: Mapping[str, Any]) -> dict[str, Any]:
    stored = stored_type(zarray["dtype"], path)
    dtype = stored.dtype
    names = {"U": "str", "S": "bytes"}
    return {
        "data_type": stored.document,
        "fill_value": fill_value(zarray.get("fill_value"), stored, path),
        "codecs": codecs(zarray, stored, path),
        # hdmf-zarr 0.14 gives compounds no _DTYPE: the data type describes them.
        "attributes": {} if dtype.names else {"_DTYPE": names.get(dtype.kind, dtype.type.__name__)},
    }


def _length(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a length")
    return value


def _reference(value: Any, where: str, path: str) -> dict[str, str]:
    """Return source and path of a reference, without object ids, which hdmf-zarr 0.14 does not write."""
    if not isinstance(value, Mapping) or not isinstance(value.get("path"), str):
        raise MetadataError(
            f"{where} is not a reference with a path: {value!r}.", path=path, expected="a reference"
        )
    return {"source": _normalized_source(value.get("source")), "path": value["path"]}


def _links(value: Any, where: str, path: str) -> list[dict[str, str]]:
    named = isinstance(value, list) and all(isinstance(entry, Mapping) and "name" in entry for entry in value)
    if not named:
        raise MetadataError(
            f"{where} is not a list of named links: {value!r}.", path=path, expected="a list of links"
        )
    return [{**_reference(entry, where, path), "name": str(entry["name"])} for entry in value]


def _normalized_source(source: Any) -> str:
    """Return a reference's source, with ``"."`` for its own file."""
    return "." if source in (None, "", ".", "./") else str(source)


@dataclass(frozen=True)
class FirstColumnKeys(ChunkKeyEncoding):
    """The chunk key encoding ``nwbzarr.first_column``: chunk *i* has the key ``i.0``."""

    name: ClassVar[str] = FIRST_COLUMN
    # The dimension_separator of the .zarray, "." or "/".
    separator: str = "."

    def encode_chunk_key(self, chunk_coords: tuple[int, ...]) -> str:
        """Return the key of a chunk."""
        return self.separator.join(map(str, (*chunk_coords, 0)))


register_chunk_key_encoding(FIRST_COLUMN, FirstColumnKeys)
