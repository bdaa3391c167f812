"""Group and array nodes of an NWB file, in hdmf-zarr 0.14's Zarr 3 form, and validation of their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Final

import numpy as np

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.untrusted_input import DEEPEST_PATH, LARGEST_ELEMENT, LARGEST_LENGTH, MOST_DIMENSIONS


@dataclass(frozen=True)
class GroupNode:
    """A group of an NWB file."""

    # From the root, without a leading slash; the root is "".
    path: str
    # Soft links are in _LINKS, references are {"_REFERENCE": {"source", "path"}}, as in hdmf-zarr 0.14.
    attributes: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def neurodata_type(self) -> str | None:
        """Return the NWB type, None for an untyped group such as ``acquisition``."""
        return _neurodata_type(self.attributes)


@dataclass(frozen=True)
class ArrayNode:
    """An array of an NWB file; with a location, sufficient to read it."""

    # From the root, without a leading slash.
    path: str
    # The Zarr 3 metadata document. Chunks of a translated Zarr 2 array keep their keys and bytes.
    metadata: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Return the attributes as hdmf-zarr 0.14 writes them (``_DTYPE``, ``_REFERENCE_FIELDS``, …)."""
        value: Mapping[str, Any] = self.metadata.get("attributes") or {}
        return value

    @property
    def neurodata_type(self) -> str | None:
        """Return the NWB type, None for an untyped dataset such as ``data``."""
        return _neurodata_type(self.attributes)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Return the shape, ``()`` for a scalar."""
        return tuple(int(length) for length in self.metadata["shape"])

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Return the shape of a stored object: a chunk, or a shard of a sharded array."""
        return tuple(int(length) for length in self.metadata["chunk_grid"]["configuration"]["chunk_shape"])

    @property
    def inner_chunks(self) -> tuple[int, ...]:
        """Return the shape of the smallest readable part: a chunk, also in a shard of whole chunks."""
        match self.metadata.get("codecs"):
            case [{"name": "sharding_indexed", "configuration": {"chunk_shape": [*inner]}}] if len(
                inner
            ) == len(self.chunks) and all(
                isinstance(part, int) and part > 0 and width % part == 0
                for part, width in zip(inner, self.chunks, strict=True)
            ):
                return tuple(inner)
        return self.chunks

    @property
    def ndim(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return prod(self.shape)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of read values; object for variable-length strings, and references as strings."""
        return numpy_dtype(self.metadata["data_type"], self.path)

    @property
    def is_reference(self) -> bool:
        """Return whether the elements are object references, read as the target's path."""
        return self.attributes.get("_DTYPE") == "object_reference"

    @property
    def reference_fields(self) -> tuple[str, ...]:
        """Return the fields of a compound type that are object references."""
        return tuple(self.attributes.get("_REFERENCE_FIELDS", ()))


type Node = GroupNode | ArrayNode


def trimmed(name: str) -> str:
    """Return a name without the trailing spaces and NULs that some writers pad names with."""
    return name.rstrip(" \0")


def _neurodata_type(attributes: Mapping[str, Any]) -> str | None:
    value = attributes.get("neurodata_type")
    if isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    # An empty string is not a type.
    return None if value is None else trimmed(str(value)) or None


def numpy_dtype(data_type: Any, path: str = "") -> np.dtype[Any]:
    """Return the NumPy dtype of a Zarr 3 data type; `path` is that of the array, for errors."""
    document: Mapping[str, Any] = {"name": data_type} if isinstance(data_type, str) else data_type
    name, configuration = document["name"], document.get("configuration", {})
    match name:
        case "string" | "variable_length_bytes":
            return np.dtype(object)
        case "fixed_length_utf32":
            return np.dtype(f"U{configuration['length_bytes'] // 4}")
        case "null_terminated_bytes":
            return np.dtype(f"S{configuration['length_bytes']}")
        case "raw_bytes":
            return np.dtype(f"V{configuration['length_bytes']}")
        case "numpy.datetime64" | "numpy.timedelta64":
            unit, scale = configuration["unit"], configuration.get("scale_factor", 1)
            kind = name.removeprefix("numpy.")
            return np.dtype(kind if unit == "generic" else f"{kind}[{scale}{unit}]")
        case "struct" | "structured":
            return np.dtype([_field(entry, path) for entry in configuration["fields"]])
        case _:
            try:
                plain: np.dtype[Any] = np.dtype(name)
            except TypeError:
                raise MetadataError(
                    f"The Zarr data type {data_type!r}{f' of {path!r}' if path else ''} is not supported.",
                    path=path,
                    found=data_type,
                ) from None
            return plain


def _field(entry: Any, path: str) -> tuple[str, np.dtype[Any]]:
    # zarr-python 3.4 writes {"name", "data_type"} for `struct`, pairs for the older `structured`.
    name, data_type = (entry["name"], entry["data_type"]) if isinstance(entry, Mapping) else entry
    return str(name), numpy_dtype(data_type, path)


FIRST_COLUMN: Final = "nwbzarr.first_column"


type Codec = tuple[str, Mapping[str, Any]]


def parse_named_configuration(entry: Any) -> Codec:
    """Return the name and configuration of a codec, chunk grid or other named configuration of Zarr 3."""
    document = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
        raise ValueError(f"{entry!r:.80} has no name")
    configuration = document.get("configuration")
    if configuration is None:
        return document["name"], {}
    if not isinstance(configuration, Mapping):
        raise ValueError(f"the configuration of {document['name']!r} is {configuration!r:.80}, not an object")
    return document["name"], configuration


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
        raise ValueError("data_type is missing")
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
