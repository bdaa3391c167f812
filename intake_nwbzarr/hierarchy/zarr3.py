"""Validation of Zarr 3 metadata documents, which any tool may have written or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Final

from intake_nwbzarr.bounds import DEEPEST_PATH, LARGEST_ELEMENT, LARGEST_LENGTH, MOST_DIMENSIONS
from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hierarchy.nodes import FIRST_COLUMN, Codec, numpy_dtype, parse_named_configuration


def check_group(document: Mapping[str, Any], *, where: str) -> None:
    """Check the metadata document of a group; `where` names it and its file in the error."""
    _check(_check_attributes, document, where)


def check_array(document: Mapping[str, Any], *, where: str) -> None:
    """Check all parts of an array's metadata document that reading depends on."""
    checks = (_check_attributes, _check_shape, _check_data_type, _check_codecs, _check_keys)
    for check in (*checks, _check_extensions):
        _check(check, document, where)


def check_shape(shape: Any, *, where: str) -> None:
    """Check the shape only, as `check_array` does."""
    _check(_shape, {"shape": shape}, where)


def _check(check: Any, document: Mapping[str, Any], where: str) -> None:
    try:
        check(document)
    except Exception as error:  # np.dtype raises many kinds of errors
        reason = (
            f"{error}" if isinstance(error, (ValueError, KeyError)) else f"{type(error).__name__}: {error}"
        )
        raise MetadataError(
            f"The metadata of {where} are damaged: {reason.rstrip('.')}.",
            found=reason.rstrip("."),
            next_step="Compare them with the original file.",
        ) from error


def _check_attributes(document: Mapping[str, Any]) -> None:
    attributes = document.get("attributes")
    if attributes is None:
        return
    if not isinstance(attributes, Mapping):
        raise ValueError(f"the attributes are {attributes!r:.80}, not an object")
    if not isinstance(attributes.get("_LINKS") or [], list):
        raise ValueError(f"the attribute _LINKS is {attributes['_LINKS']!r:.80}, not a list")
    fields = attributes.get("_REFERENCE_FIELDS", [])
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        raise ValueError(f"the attribute _REFERENCE_FIELDS is {fields!r:.80}, not a list of names")
    level: list[Any] = [attributes]
    for _ in range(DEEPEST_PATH + 1):
        inner = [(part.values() if isinstance(part, Mapping) else part) for part in level]
        level = [item for part in inner for item in part if isinstance(item, (Mapping, list, tuple))]
        if not level:
            return
    raise ValueError(f"an attribute is nested deeper than {DEEPEST_PATH} levels")


def _lengths(value: Any, least: int, what: str) -> list[int]:
    if not isinstance(value, list) or not all(
        type(length) is int and least <= length <= LARGEST_LENGTH for length in value
    ):
        raise ValueError(f"the {what} is {value!r:.80}, not a list of integers from {least} to 2**63 - 1")
    if prod(value) > LARGEST_LENGTH:
        raise ValueError(f"the {what} {value!r:.80} has more elements than a 64-bit integer can count")
    return value


def _shape(document: Mapping[str, Any]) -> list[int]:
    shape = _lengths(document.get("shape"), 0, "shape")
    # Also where another dimension is empty, since single dimensions are used on their own.
    if len(shape) > MOST_DIMENSIONS or prod(length or 1 for length in shape) > LARGEST_LENGTH:
        raise ValueError(
            f"the shape {shape!r:.80} is beyond {MOST_DIMENSIONS} dimensions of 2**63 - 1 elements"
        )
    return shape


def _check_shape(document: Mapping[str, Any]) -> None:
    shape = _shape(document)
    name, configuration = parse_named_configuration(document.get("chunk_grid"))
    if name != "regular":
        raise ValueError(f"the chunk grid is {name!r:.80}; only 'regular' can be read")
    chunks = _lengths(configuration.get("chunk_shape"), 1 if 0 not in shape else 0, "shape of a chunk")
    if len(chunks) != len(shape) or any(c < 1 <= s for c, s in zip(chunks, shape, strict=True)):
        raise ValueError(f"chunks of {chunks!r:.80} do not fit the shape {shape!r:.80}")


def _check_data_type(document: Mapping[str, Any]) -> None:
    if "data_type" not in document:
        raise ValueError("there is no data_type")
    itemsize = numpy_dtype(document["data_type"]).itemsize
    if not 0 <= itemsize <= LARGEST_ELEMENT:
        raise ValueError(f"the data type {document['data_type']!r:.80} has elements of {itemsize} bytes")


def _check_codecs(document: Mapping[str, Any]) -> None:
    codecs = _codecs(document.get("codecs"), "codecs")
    for name, configuration in codecs:
        if name != "sharding_indexed":
            continue
        _lengths(configuration.get("chunk_shape"), 1, "shape of a chunk in a shard")
        if "index_codecs" in configuration:
            _codecs(configuration["index_codecs"], "index_codecs")
        if any(inner == name for inner, _ in _codecs(configuration.get("codecs"), "codecs of a shard")):
            raise ValueError("shards inside shards are not supported")


def _codecs(entries: Any, what: str) -> list[Codec]:
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"the {what} are {entries!r:.80}, not a list of at least one")
    return [parse_named_configuration(entry) for entry in entries]


def _check_keys(document: Mapping[str, Any]) -> None:
    name, configuration = parse_named_configuration(document.get("chunk_key_encoding", "default"))
    if name not in {"default", "v2", FIRST_COLUMN}:
        raise ValueError(f"the chunk key encoding is {name!r:.80}; supported are 'default' and 'v2'")
    if configuration.get("separator", "/") not in ("/", "."):
        raise ValueError(
            f"chunk coordinates are separated by {configuration['separator']!r:.80}, not by '/' or '.'"
        )


def _check_extensions(document: Mapping[str, Any]) -> None:
    """Refuse unknown extensions, which may change the meaning of the metadata."""
    if document.get("storage_transformers"):
        raise ValueError(f"there are storage transformers, {document['storage_transformers']!r:.80}")
    for name, value in document.items():
        if name not in _CORE_FIELDS and isinstance(value, Mapping) and value.get("must_understand") is True:
            raise ValueError(f"{name!r:.80} is not supported, but must be understood to read the array")


_CORE_FIELDS: Final = frozenset({"attributes", "chunk_grid", "chunk_key_encoding", "data_type", "fill_value"})
