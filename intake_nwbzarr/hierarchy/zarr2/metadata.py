"""Zarr 2 metadata, translated to the Zarr 3 form that hdmf-zarr 0.14 writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

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

OBJECT_CODECS: Final = frozenset({"pickle", "json2", "vlen-utf8", "vlen-bytes"})
"""The Zarr 2 filters that store Python objects, as far as they are read here."""

TEXT_FIELD_BYTES: Final = 2048
"""The width of text and references in compounds: the 512 characters, in UTF-32, that hdmf-zarr 0.14 gives."""

_TEXT_FIELD: Final = StoredType(
    {"name": "fixed_length_utf32", "configuration": {"length_bytes": TEXT_FIELD_BYTES}}, "little"
)

# How hdmf-zarr wrote the types of a compound's fields where the array's own type is "|O".
_FIELD_TYPES: Final = {
    **{f"{kind}{bits}": f"<{kind[0]}{bits // 8}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    "int": "<i8",
    "uint": "<u8",
    "float": "<f8",
    "bool": "|b1",
    "bool_": "|b1",
}


def python_objects(path: str, zarray: Mapping[str, Any], declared: Any, chunks: list[int]) -> dict[str, Any]:
    """What Zarr 3 metadata say of strings, references and compounds of them.

    Raises
    ------
    MetadataError
        When they were stored in a way not known here.
    """
    filters = zarray.get("filters") or ()
    object_codec = filters[0]["id"] if filters else None
    if object_codec not in OBJECT_CODECS:
        raise MetadataError(
            f"The array {path!r} holds Python objects stored by {object_codec!r}; known here are "
            f"{', '.join(sorted(OBJECT_CODECS))}."
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


def is_repeated(zarray: Mapping[str, Any], declared: Any, shape: list[int], chunks: list[int]) -> bool:
    """Whether hdmf-zarr, up to 0.11, wrote each field of a row as a record: (row, field) for (row).

    Where the second dimension is divided into chunks, no chunk has whole rows; such an array stays as it is.
    """
    dtype = zarray["dtype"]
    return (
        isinstance(dtype, list)
        and isinstance(declared, list)
        and len(declared) == len(dtype) > 1
        and shape[1:] == chunks[1:] == [len(dtype)]
        and zarray.get("order", "C") == "C"
        and not zarray.get("filters")
    )


def repeated_records(path: str, zarray: Mapping[str, Any], chunks: list[int]) -> dict[str, Any]:
    """What Zarr 3 metadata say of rows whose fields were written as records of their own."""
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
        # hdmf-zarr wrote a pickled 0 (gAVLAC4=) here, which Zarr 2 reads as zeros in every field.
        "fill_value": fill_value(None, stored, path),
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, _legacy_objects(configuration)],
        "attributes": {"_REFERENCE_FIELDS": references} if references else {},
    }


def _fields(dtype: Any, declared: Any, path: str) -> list[tuple[str, StoredType | str]] | None:
    """A compound's fields, each with its type, ``"text"`` or ``"reference"``; None when it is no compound."""
    described = {entry["name"]: entry["dtype"] for entry in declared} if isinstance(declared, list) else {}
    if not isinstance(dtype, list):
        # Up to hdmf-zarr 0.3 the array itself says only "|O", and each row is a list.
        dtype = [[name, _FIELD_TYPES.get(kind, "|O")] for name, kind in described.items()]
        if not dtype:
            return None
    fields: list[tuple[str, StoredType | str]] = []
    for name, field_type, *rest in dtype:
        if field_type == "|O":
            fields.append((name, "reference" if described.get(name) == "object" else "text"))
        elif rest:
            raise MetadataError(
                f"The array {path!r} has a field {name!r} that is itself an array, {rest[0]!r}."
            )
        else:
            # The codec writes all fields anew, in one byte order.
            fields.append((name, replace(stored_type(field_type, path), endian="little")))
    return fields


def _legacy_objects(configuration: dict[str, Any]) -> JSON:
    for compressor in configuration["compressors"]:
        if compressor["name"] not in COMPRESSORS:
            raise MetadataError(
                f"The array {configuration['array']!r} has Python objects and the filter "
                f"{compressor['name']!r}; known for objects are {', '.join(sorted(COMPRESSORS))}."
            )
    return {"name": "nwbzarr.legacy_objects", "configuration": configuration}


def holds_objects(dtype: Any) -> bool:
    """Whether elements, or fields of them, are Python objects."""
    return dtype == "|O" or (isinstance(dtype, list) and any(field[1] == "|O" for field in dtype))


# Where hdmf-zarr caches the schemas; it gives these arrays no _DTYPE.
_SCHEMAS: Final = "specifications/"


def translate_group(path: str, zattrs: Mapping[str, Any]) -> GroupNode:
    """A Zarr 2 group in canonical form.

    Raises
    ------
    MetadataError
        When an attribute cannot be understood.
    """
    return GroupNode(path, translate_attributes(zattrs, path))


def translate_array(path: str, zarray: Mapping[str, Any], zattrs: Mapping[str, Any]) -> ArrayNode:
    """A Zarr 2 array in canonical form.

    Parameters
    ----------
    path
        From the root, without a leading slash.
    zarray, zattrs
        The documents ``.zarray`` and ``.zattrs``, the latter possibly empty.

    Returns
    -------
    ArrayNode
        ``zarr.Array.from_dict(StorePath(store, path), dict(node.metadata))`` reads the stored chunks. Objects
        are read by the codec ``nwbzarr.legacy_objects`` (see `hierarchy.zarr2.objects`) as strings;
        object references as the target's path, or as JSON where the target is in another file.
        Compounds of numbers that hdmf-zarr up to 0.11 wrote with every field repeated along a second
        dimension are given their one dimension back.

    Raises
    ------
    MetadataError
        When the metadata cannot be understood, or has no counterpart in Zarr 3.
    """
    try:
        return _translate_array(path, zarray, zattrs)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, MetadataError):
            raise
        raise MetadataError(
            f"The Zarr 2 metadata of the array {path!r} are damaged: {type(error).__name__}: {error}."
        ) from error


def translate_attributes(zattrs: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Attributes in canonical form, without those that describe the data type.

    Parameters
    ----------
    zattrs
        As stored in ``.zattrs``.
    path
        The object's, for errors.

    Raises
    ------
    MetadataError
        When a link or reference cannot be understood.
    """
    attributes: dict[str, Any] = {}
    for name, value in zattrs.items():
        where = f"The attribute {name!r} of {path!r}"
        if name == "zarr_link":
            attributes["_LINKS"] = _links(value, where)
        elif isinstance(value, Mapping) and "zarr_dtype" in value:
            if value["zarr_dtype"] != "object":
                raise MetadataError(
                    f"{where} is a {value['zarr_dtype']!r}; only object references are known here."
                )
            attributes[name] = {"_REFERENCE": _reference(value.get("value"), where)}
        elif name != "zarr_dtype":
            attributes[name] = value
    return attributes


def _translate_array(path: str, zarray: Mapping[str, Any], zattrs: Mapping[str, Any]) -> ArrayNode:
    if zarray.get("zarr_format", 2) != 2:
        raise MetadataError(
            f"The array {path!r} has a .zarray of Zarr {zarray['zarr_format']!r}; expected is 2."
        )
    shape = [_length(length) for length in zarray["shape"]]
    chunks = [max(_length(length), 1) for length in zarray["chunks"]]
    if len(shape) != len(chunks):
        raise MetadataError(f"The array {path!r} has the shape {shape} but chunks of shape {chunks}.")
    declared = zattrs.get("zarr_dtype")
    if declared == "scalar" and shape == chunks == [1]:
        shape, chunks = [], []  # both versions call the chunk "0"
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
    if holds_objects(zarray["dtype"]):
        described = python_objects(path, zarray, declared, chunks)
    elif is_repeated(zarray, declared, shape, chunks):
        metadata["shape"], chunks = shape[:1], chunks[:1]
        metadata["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": chunks}}
        metadata["chunk_key_encoding"]["name"] = FIRST_COLUMN
        described = repeated_records(path, zarray, chunks)
    else:
        described = _numbers(path, {**zarray, "shape": shape})
    metadata.update(described)
    attributes = described["attributes"]
    if path.startswith(_SCHEMAS):
        attributes.pop("_DTYPE", None)
    metadata["attributes"] = {**attributes, **translate_attributes(zattrs, path)}
    return ArrayNode(path, metadata)


def _numbers(path: str, zarray: Mapping[str, Any]) -> dict[str, Any]:
    stored = stored_type(zarray["dtype"], path)
    dtype = stored.dtype
    names = {"U": "str", "S": "bytes"}
    return {
        "data_type": stored.document,
        "fill_value": fill_value(zarray.get("fill_value"), stored, path),
        "codecs": codecs(zarray, stored, path),
        # Of a compound, hdmf-zarr 0.14 leaves the description to the data type.
        "attributes": {} if dtype.names else {"_DTYPE": names.get(dtype.kind, dtype.type.__name__)},
    }


def _length(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a length")
    return value


def _reference(value: Any, where: str) -> dict[str, str]:
    """Where a reference leads; since 0.5 it also held object ids, which 0.14 no longer writes."""
    if not isinstance(value, Mapping) or not isinstance(value.get("path"), str):
        raise MetadataError(f"{where} is not a reference with a path: {value!r}.")
    return {"source": _own_source(value.get("source")), "path": value["path"]}


def _links(value: Any, where: str) -> list[dict[str, str]]:
    named = isinstance(value, list) and all(isinstance(entry, Mapping) and "name" in entry for entry in value)
    if not named:
        raise MetadataError(f"{where} is not a list of named links: {value!r}.")
    return [{**_reference(entry, where), "name": str(entry["name"])} for entry in value]


def _own_source(source: Any) -> str:
    """A reference's source, with one name for the file that holds it: ``"."``."""
    return "." if source in (None, "", ".", "./") else str(source)
