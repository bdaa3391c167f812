"""Neurodata types: the core schema, the schemas cached in a file, and the inheritance of types."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from intake_nwbzarr.arrays import StoredArray, read_at_open
from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, Node

type DimensionNames = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class TypeDefinition:
    """What a schema defines about a type, as far as this package needs it."""

    parent: str | None  # the type that it extends, None for the roots Container and Data
    # The names of the dimensions of each dataset that it (re)defines: one tuple for each number of dimensions
    # allowed, in the schema's order. A type that is itself a dataset, such as RGBImage, has its own under the
    # empty name.
    dimensions: Mapping[str, DimensionNames] = field(default_factory=dict, hash=False)
    unnamed: frozenset[str] = frozenset()  # datasets that have dimensions without names in the schema


def definitions(document: Mapping[str, Any]) -> Iterator[tuple[str, TypeDefinition]]:
    """Yield the types that a document of the NWB schema language defines, nested ones included."""
    for kind in ("groups", "datasets"):
        for specification in document.get(kind) or ():
            yield from definitions(specification)
            name = _either(specification, "neurodata_type_def", "data_type_def")
            if name is not None:
                parent = _either(specification, "neurodata_type_inc", "data_type_inc")
                itself = {"name": "", "dims": specification.get("dims")}
                dimensions = {
                    str(dataset["name"]): names
                    for dataset in (itself, *(specification.get("datasets") or ()))
                    if dataset.get("name") is not None and (names := _dimension_names(dataset.get("dims")))
                }
                shaped = {
                    str(dataset["name"])
                    for dataset in specification.get("datasets") or ()
                    if dataset.get("name") is not None and (dataset.get("shape") or dataset.get("dims"))
                }
                yield name, TypeDefinition(parent, dimensions, frozenset(shaped - dimensions.keys()))


def _either(specification: Mapping[str, Any], *keys: str) -> str | None:
    return next((str(specification[key]) for key in keys if specification.get(key)), None)


def _dimension_names(dims: Any) -> DimensionNames:
    # The schema language allows one list of names, or a list of such lists for alternative shapes.
    if not dims:
        return ()
    options = dims if all(isinstance(option, list) for option in dims) else [dims]
    return tuple(tuple(map(str, option)) for option in options if not all(map(_is_dummy, option)))


def _is_dummy(name: object) -> bool:
    """Return whether a dimension's name has no meaning."""
    # hdmf's DatasetSpec writes dim_0, dim_1, ... into a schema that has a shape and no dims: one for each
    # axis, or for each of several alternative shapes.
    return re.fullmatch(r"(dim_?\d+|None|null|)", str(name)) is not None


CORE_TYPES: Final = Path(__file__).with_name("core_types.json")
"""The types of the NWB core schema and of hdmf-common, generated from those in pynwb."""

# The namespaces of those types.
_KNOWN_NAMESPACES = frozenset({"core", "hdmf-common", "hdmf-experimental"})

_CORE: Final = {
    name: TypeDefinition(
        definition["extends"],
        {
            dataset: tuple(map(tuple, dimensions))
            for dataset, dimensions in definition.get("dimensions", {}).items()
        },
    )
    for name, definition in json.loads(CORE_TYPES.read_bytes())["types"].items()
}

# Types of extensions by the id of their Hierarchy, while it exists; a Hierarchy is not hashable.
_extensions: dict[int, Mapping[str, TypeDefinition]] = {}


def ancestry(neurodata_type: str, hierarchy: Hierarchy | None = None) -> tuple[str, ...]:
    """Return a type and all types that it extends, nearest first.

    >>> ancestry("CurrentClampSeries")[:3]
    ('CurrentClampSeries', 'PatchClampSeries', 'TimeSeries')
    """
    # Core types only extend core types, so that their result does not depend on the file.
    return _of_core(neurodata_type) if neurodata_type in _CORE else _lineage(neurodata_type, hierarchy)


@cache
def _of_core(neurodata_type: str) -> tuple[str, ...]:
    return _lineage(neurodata_type, None)


def _lineage(neurodata_type: str, hierarchy: Hierarchy | None) -> tuple[str, ...]:
    lineage: list[str] = []
    name: str | None = neurodata_type
    while name is not None and name not in lineage:
        lineage.append(name)
        definition = definition_of(name, hierarchy)
        name = None if definition is None else definition.parent
    return tuple(lineage)


def is_a(hierarchy: Hierarchy, node: Node, ancestor: str) -> bool:
    """Return whether an object is of a type, or of one that extends it."""
    # The type of an object that no schema defines is inferred: a group with data and a time base is a
    # TimeSeries, one with colnames a DynamicTable.
    if node.neurodata_type is None:
        return False
    lineage = ancestry(node.neurodata_type, hierarchy)
    if ancestor in lineage:
        return True
    unknown = definition_of(lineage[-1], hierarchy) is None
    return unknown and ancestor == _inferred_type(hierarchy, node)


def core_type(hierarchy: Hierarchy, node: Node) -> str | None:
    """Return the core type that an extension's type extends; None for core types, and where unknown."""
    if node.neurodata_type is None or node.neurodata_type in _CORE:
        return None
    lineage = ancestry(node.neurodata_type, hierarchy)
    return next((name for name in lineage if name in _CORE), None) or _inferred_type(hierarchy, node)


def definition_of(neurodata_type: str, hierarchy: Hierarchy | None = None) -> TypeDefinition | None:
    """Return the definition of a type in the core schema or in those cached in a file, or None."""
    definition = _CORE.get(neurodata_type)
    if definition is None and hierarchy is not None:
        definition = _extension_types(hierarchy).get(neurodata_type)
    return definition


def dimension_names(
    neurodata_type: str, dataset: str, hierarchy: Hierarchy | None = None
) -> tuple[DimensionNames, ...]:
    """Return the schema's names for the dimensions of a dataset: those of the type, then of its ancestors.

    One tuple for each type that names them, of one tuple of names for each number of dimensions; `dataset` is
    empty for a type that is itself a dataset.

    >>> dimension_names("RGBImage", "")
    ((('x', 'y', 'r, g, b'),), (('x', 'y'), ('x', 'y', 'r, g, b'), ('x', 'y', 'r, g, b, a')))
    """
    return tuple(
        definition.dimensions[dataset]
        for name in ancestry(neurodata_type, hierarchy)
        if (definition := definition_of(name, hierarchy)) is not None and dataset in definition.dimensions
    )


def is_scalar(neurodata_type: str, name: str, node: ArrayNode, hierarchy: Hierarchy | None = None) -> bool:
    """Return whether a dataset of a type is a scalar in the schema, though it is stored with shape (1,)."""
    return (
        node.shape == (1,)
        and node.neurodata_type is None
        and definition_of(neurodata_type, hierarchy) is not None
        and not dimension_names(neurodata_type, name, hierarchy)
        # Datasets with a shape but no names of dimensions are not scalars.
        and not any(
            name in definition.unnamed
            for each in ancestry(neurodata_type, hierarchy)
            if (definition := definition_of(each, hierarchy)) is not None
        )
    )


def series_dimensions(neurodata_type: str, hierarchy: Hierarchy | None = None) -> tuple[DimensionNames, ...]:
    """Return the schema's names for the dimensions of a series' ``data``, or else of any series."""
    return dimension_names(neurodata_type, "data", hierarchy) or (_CORE["TimeSeries"].dimensions["data"],)


def _inferred_type(hierarchy: Hierarchy, node: Node) -> str | None:
    if not isinstance(node, GroupNode):
        return None
    members = set(hierarchy.members(node.path))
    if "data" in members and members & {"timestamps", "starting_time"}:
        return "TimeSeries"
    return "DynamicTable" if "colnames" in node.attributes else None


def _extension_types(hierarchy: Hierarchy) -> Mapping[str, TypeDefinition]:
    """Return the types of the extensions whose schemas are cached in a file, read once on demand."""
    key = id(hierarchy)
    if key not in _extensions:
        _extensions[key] = _read_extension_types(hierarchy)
        weakref.finalize(hierarchy, _extensions.pop, key, None)
    return _extensions[key]


def _read_extension_types(hierarchy: Hierarchy) -> dict[str, TypeDefinition]:
    # specifications/<namespace>/<version>/<file> are scalars of JSON text.
    hierarchy.load_specifications()
    folder = hierarchy.specifications
    paths = [
        f"{folder}/{namespace}/{version}/{name}"
        for namespace in hierarchy.children(folder)
        if namespace not in _KNOWN_NAMESPACES
        for version in hierarchy.children(f"{folder}/{namespace}")
        for name in hierarchy.children(f"{folder}/{namespace}/{version}")
        if name != "namespace"
    ]
    try:
        return _definitions_in(hierarchy, paths)
    except _DAMAGED:
        pass
    # Skip the damaged ones.
    found: dict[str, TypeDefinition] = {}
    for path in paths:
        try:
            found.update(_definitions_in(hierarchy, [path]))
        except _DAMAGED as error:
            warn_caller(
                f"The schema {path!r} cached in {hierarchy.location} is damaged ({error}); objects of its "
                "types are mapped by their contents.",
                code="damaged-schema",
                path=path,
            )
    return found


_DAMAGED: Final = (
    MetadataError,
    ChunkError,
    LimitError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)


def _definitions_in(hierarchy: Hierarchy, paths: Sequence[str]) -> dict[str, TypeDefinition]:
    nodes = [node for path in paths if isinstance(node := hierarchy[path], ArrayNode)]
    documents = [StoredArray(hierarchy.file, node) for node in nodes]
    found: dict[str, TypeDefinition] = {}
    for text in read_at_open(documents, hierarchy.opener):
        found.update(definitions(msgspec.json.decode(str(text.item()))))
    return found
