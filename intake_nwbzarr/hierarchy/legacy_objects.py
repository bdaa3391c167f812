"""Zarr 2 arrays of Python objects, and of compounds: what Zarr 3 metadata and the codec for them say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hierarchy.decompress import COMPRESSORS
from intake_nwbzarr.hierarchy.elements import REPEATED_RECORDS
from intake_nwbzarr.hierarchy.legacy_codecs import byte_codecs
from intake_nwbzarr.hierarchy.legacy_types import JSON, StoredType, fill_value, stored_type, structured

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
        return _records(path, fields, configuration)
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


def _records(
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
