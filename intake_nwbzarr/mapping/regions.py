"""DynamicTableRegion: the rows of a table that a series or a column refers to, as labels of a dimension."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.computed import Lookup, are_positions
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy, Target
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode
from intake_nwbzarr.mapping.attributes import as_strings, identity, translated
from intake_nwbzarr.mapping.model import ArrayPart, Dimension, Labels, Mapper, Region, whole_values
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.schema import is_a
from intake_nwbzarr.mapping.table_layout import (
    ELECTRODES,
    Column,
    Table,
    array_node,
    object_key,
    reference_of,
    stored_at,
    table_layout,
)
from intake_nwbzarr.mapping.tables import column_parts

# Names of a series' own variables.
_OF_SERIES = frozenset(
    {"data", "time", "timestamps", "starting_time", "rate", "control", "event", "sample", "id"}
)

# Columns whose second axis is at most this long, such as centroids, are joined too.
_FEW = 4


def map_region(
    hierarchy: Hierarchy, path: str, options: MappingOptions, *, name: str, owner: str
) -> Mapper[Region]:
    """Map a DynamicTableRegion to a dimension, its labels, and the columns of its table as coordinates."""
    # `path` is the region, `name` the dimension's in the view of one object (channel, roi), `owner` the path
    # of the series or table that holds it. The region and the ids of its table are read in one round; the
    # joined columns are lazy. A region of a whole table in order is the table's row dimension. Columns of one
    # value and short pairs are joined, masks and ragged columns are not; for electrodes also the `device`. A
    # name that the series uses itself is prefixed: electrode_time, roi_data.
    region = Target(hierarchy, path)
    target = reference_of(region, "table")
    table = None if target is None or not isinstance(target.node, GroupNode) else _layout(target)
    wanted = {"rows": stored_at(region)} | ({} if table is None or table.ids is None else {"ids": table.ids})
    values, lost = yield from whole_values(wanted)
    if "rows" not in values:
        size = array_node(region).size
        alone = Dimension(
            ("rows", *object_key(region)), name, f"{owner.rpartition('/')[2]}_{name}", size, owner
        )
        return Region(alone, None, unmapped=lost)
    stored_rows = np.atleast_1d(values["rows"])
    if not are_positions(stored_rows):
        return _without_rows(region, as_strings(stored_rows), name, owner)
    rows = stored_rows.astype(np.int64)
    if table is None or (rows.size and (rows.min() < 0 or rows.max() >= table.rows.size)):
        return _without_table(region, table, rows, name, owner)
    whole = rows.size == table.rows.size and np.array_equal(rows, np.arange(table.rows.size))
    dimension = _dimension(table, None if whole else rows, name, owner)
    labels = None
    if table.ids is not None and "ids" in values:
        labels = Labels(
            dimension, as_strings(values["ids"])[rows], identity(table.ids.node), table.path, "id"
        )
    return Region(
        dimension, labels, tuple(_joined_parts(table, None if whole else rows, dimension, options)), lost
    )


def is_region(target: Target) -> bool:
    """Return whether a dataset is a DynamicTableRegion that can label a dimension."""
    node = target.node
    if node.neurodata_type is None or not is_a(target.hierarchy, node, "DynamicTableRegion"):
        return False
    if isinstance(node, ArrayNode) and node.ndim > 1:
        warn_caller(
            f"The region {target.path!r} in {target.hierarchy.location} has the shape {node.shape} instead "
            "of one dimension; it is mapped as stored and labels nothing.",
            code="invalid-region",
            path=target.path,
        )
        return False
    return True


def _layout(target: Target) -> Table | None:
    is_table = is_a(target.hierarchy, target.node, "DynamicTable") or "colnames" in target.node.attributes
    return table_layout(target.hierarchy, target.path) if is_table else None


def _without_table(
    region: Target, table: Table | None, rows: NDArray[np.int64], name: str, owner: str
) -> Region:
    if table is None:
        found = "is not in the file"
    elif rows.min() < 0:
        found = f"has no row {rows.min()}"
    else:
        found = f"has only {table.rows.size} rows"
    warn_caller(
        f"The region {region.path!r} in {region.hierarchy.location} refers to rows of a table that {found}: "
        "its row numbers are the labels, and no columns are joined.",
        code="region-without-table" if table is None else "region-out-of-range",
        path=region.path,
    )
    series = owner.rpartition("/")[2]
    described = {"description": "row numbers of the missing table", "nwb_derived": "row"}
    dimension = Dimension(("rows", *object_key(region)), name, f"{series}_{name}", rows.size, owner)
    return Region(dimension, Labels(dimension, rows, identity(region.node) | described))


def _without_rows(region: Target, values: NDArray[Any], name: str, owner: str) -> Region:
    """Return a region whose values are not row numbers but NaN, fractions or text."""
    warn_caller(
        f"The region {region.path!r} in {region.hierarchy.location} contains {values.dtype} "
        f"({', '.join(map(str, values[:3].tolist()))}, ...) instead of row numbers; no columns are joined.",
        code="invalid-region",
        path=region.path,
    )
    series = owner.rpartition("/")[2]
    dimension = Dimension(("rows", *object_key(region)), name, f"{series}_{name}", values.size, owner)
    # Values that pandas cannot index are not labels.
    labels = None if values.dtype.kind in "VcmM" else Labels(dimension, values, identity(region.node))
    return Region(dimension, labels)


def _dimension(table: Table, rows: NDArray[np.int64] | None, name: str, owner: str) -> Dimension:
    """Return the dimension of some rows, or of the whole table in order if `rows` is None."""
    if rows is None:
        return replace(table.rows, name=name)
    digest = hashlib.sha256(rows.tobytes()).hexdigest()
    series = owner.rpartition("/")[2]
    return Dimension(("region", table.rows.identity, digest), name, f"{series}_{name}", rows.size, owner)


def _joined_parts(
    table: Table, rows: NDArray[np.int64] | None, dimension: Dimension, options: MappingOptions
) -> Iterator[ArrayPart]:
    prefix = "electrode_" if table.has_electrodes else f"{dimension.name}_"
    for part in (*_plain_parts(table, options), *_devices(table)):
        array = (
            part.array
            if rows is None or isinstance(part.array, np.ndarray)
            else Lookup(part.array, rows, table.path)
        )
        taken = part.name in _OF_SERIES or part.name == dimension.name
        yield replace(
            part,
            name=f"{prefix}{part.name}" if taken else part.name,
            dimensions=(dimension, *part.dimensions[1:]),
            array=array,
            role="coordinate",
            object=table.path,
        )


def _plain_parts(table: Table, options: MappingOptions) -> Iterator[ArrayPart]:
    for column in table.columns:
        if _is_joinable(table, column):
            for part in column_parts(table, column, options):
                if part.dimensions[0] == table.rows:
                    yield replace(part, column=part.name)


def _is_joinable(table: Table, column: Column) -> bool:
    node = array_node(column.values)
    plain = not column.indexes and node.dtype.names is None and node.shape[:1] == (table.rows.size,)
    small = node.ndim == 1 or (node.ndim == 2 and node.shape[1] <= _FEW)
    return plain and small and not is_a(column.values.hierarchy, node, "DynamicTableRegion")


def _devices(table: Table) -> Iterator[ArrayPart]:
    """Yield the name of each electrode's device, found by the link of its group."""
    # The metadata of groups are read already, so that this needs no request.
    columns = {column.name: column for column in table.columns}
    if not table.has_electrodes or "device" in columns or "group" not in columns:
        return
    group = columns["group"].values
    if array_node(group).shape != (table.rows.size,) or not array_node(group).is_reference:
        return
    pairs = tuple(_device_of_groups(group.hierarchy))
    if pairs:
        described = identity(group.node) | {
            "description": "name of the device of each electrode's group",
            "nwb_derived": "device",
        }
        yield ArrayPart("device", (table.rows,), translated(stored_at(group), pairs), described)


def _device_of_groups(hierarchy: Hierarchy) -> Iterator[tuple[str, str]]:
    parent = ELECTRODES.rpartition("/")[0]
    for name in hierarchy.children(parent):
        node = hierarchy[f"{parent}/{name}"]
        if not isinstance(node, GroupNode) or "device" not in hierarchy.links(node.path):
            continue
        try:
            device = hierarchy.resolve(f"{node.path}/device")
        except UNREACHABLE as error:
            warn_caller(
                f"The electrodes of {node.path!r} in {hierarchy.location} have no device. {error}",
                code="dangling-link",
                path=node.path,
            )
            continue
        yield node.path, device.path.rpartition("/")[2]
