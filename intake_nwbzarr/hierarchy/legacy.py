"""Zarr 2 metadata, translated to the Zarr 3 form that hdmf-zarr 0.14 writes.

Only metadata is touched: chunks keep their names and their bytes. What hdmf-zarr up to 0.13 said in
``zarr_dtype`` and ``zarr_link``, 0.14 says in ``_DTYPE``, ``_LINKS``, ``_REFERENCE`` and
``_REFERENCE_FIELDS``
(https://hdmf-zarr.readthedocs.io/en/stable/storage.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hierarchy.first_column import FIRST_COLUMN
from intake_nwbzarr.hierarchy.legacy_codecs import codecs
from intake_nwbzarr.hierarchy.legacy_objects import (
    holds_objects,
    is_repeated,
    python_objects,
    repeated_records,
)
from intake_nwbzarr.hierarchy.legacy_types import fill_value, stored_type
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode

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
        are read by the codec ``nwbzarr.legacy_objects`` (see `intake_nwbzarr.hierarchy.objects`) as strings;
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
