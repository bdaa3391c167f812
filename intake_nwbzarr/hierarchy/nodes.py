"""Group and array nodes of an NWB file, in the Zarr 3 form that hdmf-zarr 0.14 writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Final

import numpy as np

from intake_nwbzarr.errors import MetadataError


@dataclass(frozen=True)
class GroupNode:
    """A group of an NWB file."""

    # From the root, without a leading slash; the root is "".
    path: str
    # Soft links are in _LINKS, references are {"_REFERENCE": {"source", "path"}}, as in hdmf-zarr 0.14.
    attributes: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def neurodata_type(self) -> str | None:
        """The NWB type, None for an untyped group such as ``acquisition``."""
        return _neurodata_type(self.attributes)


@dataclass(frozen=True)
class ArrayNode:
    """An array of an NWB file; with a location, it is all that reading needs."""

    # From the root, without a leading slash.
    path: str
    # The Zarr 3 metadata document. Chunks of a translated Zarr 2 array keep their keys and bytes.
    metadata: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes as hdmf-zarr 0.14 writes them (``_DTYPE``, ``_REFERENCE_FIELDS``, …)."""
        value: Mapping[str, Any] = self.metadata.get("attributes") or {}
        return value

    @property
    def neurodata_type(self) -> str | None:
        """The NWB type, None for an untyped dataset such as ``data``."""
        return _neurodata_type(self.attributes)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape, ``()`` for a scalar."""
        return tuple(int(length) for length in self.metadata["shape"])

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """The shape of a stored object: a chunk, or a shard of a sharded array."""
        return tuple(int(length) for length in self.metadata["chunk_grid"]["configuration"]["chunk_shape"])

    @property
    def inner_chunks(self) -> tuple[int, ...]:
        """The shape of the smallest readable part: a chunk, also of a shard that contains whole chunks."""
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
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of read values; object for variable-length strings and references, read as strings."""
        return numpy_dtype(self.metadata["data_type"], self.path)

    @property
    def is_reference(self) -> bool:
        """Whether the elements are object references, read as the target's path."""
        return self.attributes.get("_DTYPE") == "object_reference"

    @property
    def reference_fields(self) -> tuple[str, ...]:
        """The fields of a compound type that are object references."""
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
