"""The neurodata objects of a session, from its metadata, as rows of the table `objects`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from intake_nwbzarr.errors import AccessError, LimitError, ListingError, MetadataError
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, Node
from intake_nwbzarr.mapping.schema import ancestry, core_type, definition_of
from intake_nwbzarr.mapping.table_layout import as_names
from intake_nwbzarr.untrusted_input import LARGEST_LENGTH, LONGEST_CELL, MOST_OBJECT_ROWS

type Row = dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """The valid nodes of a session, and which arrays belong to which object."""

    hierarchy: Hierarchy
    nodes: Mapping[str, Node]
    # Paths of the neurodata objects, without the file itself.
    typed: tuple[str, ...]
    # The arrays of each of them, and of the file itself as "", by path of the object.
    arrays: Mapping[str, Sequence[ArrayNode]]
    lineages: Mapping[str, tuple[str, ...]]

    def array(self, path: str) -> ArrayNode | None:
        """Return the array at a path, None if there is none."""
        node = self.nodes.get(path)
        return node if isinstance(node, ArrayNode) else None

    def is_a(self, path: str, ancestor: str) -> bool:
        """Return whether an object is of a type, or of one that extends it."""
        return ancestor in self.lineages.get(path, ())


# Datasets that are parts of a table, or of a series.
_PARTS: Final = frozenset({"VectorData", "VectorIndex", "ElementIdentifiers"})


def read_contents(hierarchy: Hierarchy) -> Contents:
    """Return the valid nodes of a session, without the schemas that are cached in it."""
    nodes: dict[str, Node] = {}
    typed: list[str] = []
    arrays: dict[str, list[ArrayNode]] = {"": []}
    owners: dict[str, str] = {"": ""}
    lineages: dict[str, tuple[str, ...]] = {}
    schemas = f"{hierarchy.specifications}/"
    for path in hierarchy:
        if f"{path}/".startswith(schemas):
            continue
        parent = path.rpartition("/")[0]
        owner = owners.get(parent, "")
        with suppress(MetadataError):
            node = nodes[path] = hierarchy[path]
            if path and node.neurodata_type is not None:
                lineage = _lineage(hierarchy, node)
                if isinstance(node, GroupNode) or _PARTS.isdisjoint(lineage):
                    lineages[path], owner = lineage, path
                    typed.append(path)
            if isinstance(node, ArrayNode):
                arrays.setdefault(owner, []).append(node)
        owners[path] = owner
    if len(typed) > MOST_OBJECT_ROWS:
        raise LimitError(
            f"{hierarchy.location} has {len(typed):,} neurodata objects; a table has up to "
            f"{MOST_OBJECT_ROWS:,} of one session.",
            location=hierarchy.location,
            found=len(typed),
            expected=MOST_OBJECT_ROWS,
        )
    return Contents(hierarchy, nodes, tuple(typed), arrays, lineages)


def _lineage(hierarchy: Hierarchy, node: Node) -> tuple[str, ...]:
    """Return a type and all types that it extends, by the file's schemas or else by its members."""
    own = node.neurodata_type or ""
    try:
        lineage = ancestry(own, hierarchy)
        known = definition_of(lineage[-1], hierarchy) is not None
        inferred = None if known else core_type(hierarchy, node)
    except (AccessError, ListingError, MetadataError):
        # Schemas that the metadata do not list, in a store that cannot be listed.
        return (own,)
    return lineage if inferred is None else (*lineage, *ancestry(inferred))


def object_row(contents: Contents, path: str) -> Row:
    """Return the row of a neurodata object."""
    node = contents.nodes[path]
    arrays = contents.arrays.get(path, ())
    row: Row = {
        "location": contents.hierarchy.location.url,
        "path": path,
        "name": path.rpartition("/")[2],
        "type": as_text(node.neurodata_type),
        "namespace": as_text(node.attributes.get("namespace")),
        "types": [as_cell(each) for each in contents.lineages[path]],
        "description": as_text(node.attributes.get("description")),
        "nbytes": as_count(sum(map(nbytes_of, arrays))),
        "chunks": as_count(sum(map(chunks_of, arrays))),
    }
    if isinstance(node, ArrayNode):
        return row | _array_columns(node)
    if contents.is_a(path, "TimeSeries"):
        return row | _series_columns(contents, path)
    if contents.is_a(path, "DynamicTable"):
        return row | _table_columns(contents, path)
    data = contents.array(f"{path}/data")
    return row if data is None else row | _array_columns(data)


def _array_columns(node: ArrayNode) -> Row:
    return {"shape": list(node.shape), "dtype": node.dtype.name}


def _series_columns(contents: Contents, path: str) -> Row:
    data, start = contents.array(f"{path}/data"), contents.array(f"{path}/starting_time")
    row: Row = {} if data is None else _array_columns(data)
    if data is not None:
        row["unit"] = as_text(data.attributes.get("unit"))
    rate = None if start is None else _number(start.attributes.get("rate"))
    if rate is not None and rate > 0:
        row["rate"] = rate
        if data is not None and data.shape and data.shape[0]:
            row["duration"] = data.shape[0] / rate
    return row


def _table_columns(contents: Contents, path: str) -> Row:
    columns = as_names(contents.nodes[path].attributes.get("colnames"))[:LONGEST_CELL]
    rows = _row_count(contents, path, columns)
    return {"columns": [as_cell(name) for name in columns], "shape": None if rows is None else [rows]}


def _row_count(contents: Contents, path: str, columns: Sequence[str]) -> int | None:
    # A ragged column has a row for each entry of its outermost index.
    names = ("id", *(f"{name}{index}" for name in columns for index in ("_index_index", "_index", "")))
    arrays = (contents.array(f"{path}/{name}") for name in names)
    return next((array.shape[0] for array in arrays if array is not None and array.shape), None)


def nbytes_of(node: ArrayNode) -> int:
    """Return the decompressed bytes of an array; strings are counted as pointers."""
    return node.size * node.dtype.itemsize


def chunks_of(node: ArrayNode) -> int:
    """Return how many objects an array is stored in at most."""
    return prod(-(-length // max(width, 1)) for length, width in zip(node.shape, node.chunks, strict=True))


def typed_members(contents: Contents, folder: str) -> list[str]:
    """Return the names of the neurodata objects in a group."""
    members = contents.hierarchy.children(folder)[:LONGEST_CELL]
    return [as_cell(name) for name in members if f"{folder}/{name}" in contents.lineages]


def as_text(value: Any) -> str | None:
    """Return a stored scalar as text, None if it is empty or not a scalar."""
    if isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or isinstance(value, Mapping | list | tuple):
        return None
    return as_cell(str(value)) or None


def as_cell(text: str) -> str:
    """Return a text that Arrow can store: without lone surrogates, and not too long."""
    return text[:LONGEST_CELL].encode("utf-8", "replace").decode()


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_count(number: int) -> int:
    """Return a number that Arrow can store."""
    return min(number, LARGEST_LENGTH)
