"""Types by inheritance: what a neurodata type extends, core or of an extension, known or not."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

import msgspec

from intake_nwbzarr.arrays import StoredArray, read_many
from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, warn_caller
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, Node
from intake_nwbzarr.neurodata.core_types import DIMENSIONS, PARENTS
from intake_nwbzarr.neurodata.schema import DimensionNames, TypeDefinition, definitions

# The namespaces whose types the generated table holds.
_KNOWN_NAMESPACES = frozenset({"core", "hdmf-common", "hdmf-experimental"})

_CORE = {name: TypeDefinition(parent, DIMENSIONS.get(name, {})) for name, parent in PARENTS.items()}

# Extensions' types by file. A Hierarchy is a mapping, so not hashable: the key is its id, while it lives.
_extensions: dict[int, Mapping[str, TypeDefinition]] = {}


def ancestry(neurodata_type: str, hierarchy: Hierarchy | None = None) -> tuple[str, ...]:
    """A type and all that it extends, nearest first.

    Parameters
    ----------
    neurodata_type
        A type of the core schema, or of an extension.
    hierarchy
        The file that holds it: the schemas cached in it are read when the type is not a core one.

    Examples
    --------
    >>> ancestry("CurrentClampSeries")[:3]
    ('CurrentClampSeries', 'PatchClampSeries', 'TimeSeries')
    """
    # Core types extend core types: what holds for one file holds for all.
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
    """Whether an object is of a type or of one that extends it.

    An object of a type that neither the core schema nor the file's cached schemas know is judged by its
    shape: a group with ``data`` and a time base is a TimeSeries, one with ``colnames`` a DynamicTable.

    Parameters
    ----------
    hierarchy
        The file that holds the object.
    node
        The object.
    ancestor
        ``TimeSeries``, ``DynamicTable`` or any other type.
    """
    if node.neurodata_type is None:
        return False
    lineage = ancestry(node.neurodata_type, hierarchy)
    if ancestor in lineage:
        return True
    unknown = definition_of(lineage[-1], hierarchy) is None
    return unknown and ancestor == _type_by_shape(hierarchy, node)


def definition_of(neurodata_type: str, hierarchy: Hierarchy | None = None) -> TypeDefinition | None:
    """What the core schema or the schemas cached in a file say about a type; None when neither knows it."""
    definition = _CORE.get(neurodata_type)
    if definition is None and hierarchy is not None:
        definition = _extension_types(hierarchy).get(neurodata_type)
    return definition


def dimension_names(
    neurodata_type: str, dataset: str, hierarchy: Hierarchy | None = None
) -> tuple[DimensionNames, ...]:
    """The schema's names for the dimensions of a dataset: the type's own first, then its ancestors'.

    Parameters
    ----------
    neurodata_type
        What holds the dataset, or the dataset's own type.
    dataset
        Its name; empty for a type that is itself a dataset.
    hierarchy
        The file, for extensions.

    Returns
    -------
    tuple
        For each type that names them: one tuple of names for each number of dimensions it allows.

    Examples
    --------
    >>> dimension_names("RGBImage", "")
    ((('x', 'y', 'r, g, b'),), (('x', 'y'), ('x', 'y', 'r, g, b'), ('x', 'y', 'r, g, b, a')))
    """
    return tuple(
        definition.dimensions[dataset]
        for name in ancestry(neurodata_type, hierarchy)
        if (definition := definition_of(name, hierarchy)) is not None and dataset in definition.dimensions
    )


def is_scalar(neurodata_type: str, name: str, node: ArrayNode, hierarchy: Hierarchy | None = None) -> bool:
    """Whether a dataset is one value by the schema of what holds it, though it is stored with shape (1,).

    Parameters
    ----------
    neurodata_type
        What holds the dataset.
    name, node
        The dataset.
    hierarchy
        The file, for extensions.
    """
    return (
        node.shape == (1,)
        and node.neurodata_type is None
        and definition_of(neurodata_type, hierarchy) is not None
        and not dimension_names(neurodata_type, name, hierarchy)
        # A shape without names of its dimensions.
        and not any(
            name in definition.unnamed
            for each in ancestry(neurodata_type, hierarchy)
            if (definition := definition_of(each, hierarchy)) is not None
        )
    )


def series_dimensions(neurodata_type: str, hierarchy: Hierarchy | None = None) -> tuple[DimensionNames, ...]:
    """The schema's names for the dimensions of a series' ``data``; those of any series where it has none."""
    return dimension_names(neurodata_type, "data", hierarchy) or (DIMENSIONS["TimeSeries"]["data"],)


def _type_by_shape(hierarchy: Hierarchy, node: Node) -> str | None:
    if not isinstance(node, GroupNode):
        return None
    members = set(hierarchy.members(node.path))
    if "data" in members and members & {"timestamps", "starting_time"}:
        return "TimeSeries"
    return "DynamicTable" if "colnames" in node.attributes else None


def _extension_types(hierarchy: Hierarchy) -> Mapping[str, TypeDefinition]:
    """The types of the extensions whose schemas are cached in a file, read once, when first needed."""
    key = id(hierarchy)
    if key not in _extensions:
        _extensions[key] = _read_extension_types(hierarchy)
        weakref.finalize(hierarchy, _extensions.pop, key, None)
    return _extensions[key]


def _read_extension_types(hierarchy: Hierarchy) -> dict[str, TypeDefinition]:
    # specifications/<namespace>/<version>/<file>: JSON text in a scalar.
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
    # One of them is damaged: the others still say what their types are.
    found: dict[str, TypeDefinition] = {}
    for path in paths:
        try:
            found.update(_definitions_in(hierarchy, [path]))
        except _DAMAGED as error:
            warn_caller(
                f"The schema {path!r} cached in {hierarchy.location} is damaged ({error}); objects of its "
                "types are shown by what they hold."
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
    documents = [StoredArray(hierarchy.location, node, hierarchy.etag) for node in nodes]
    found: dict[str, TypeDefinition] = {}
    for text in read_many(documents):
        found.update(definitions(msgspec.json.decode(str(text.item()))))
    return found
