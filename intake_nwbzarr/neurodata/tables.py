"""Dynamic tables of every type: rows as a dimension, ids as its labels, columns as variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode
from intake_nwbzarr.neurodata.derived import Elementwise
from intake_nwbzarr.neurodata.metadata import LONGEST_ATTRIBUTE, identity, linked, object_attributes, storable
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.pieces import Labels, Mapper, Part, Piece, both, stored, values_of
from intake_nwbzarr.neurodata.pixel_positions import map_grid
from intake_nwbzarr.neurodata.table_columns import column_parts, enumerated_elements
from intake_nwbzarr.neurodata.table_layout import Table, category_layouts, place, stored_at, table_layout

# Of a longer index, rows are looked up where it is stored: every pickled variable would carry it.
_SHORT_INDEX = 10_000

_SESSION_START = "session_start_time"
_REFERENCE_TIME = "timestamps_reference_time"


def map_table(hierarchy: Hierarchy, path: str, options: MappingOptions) -> Mapper[Piece]:
    """Map a DynamicTable, or anything that extends it or looks like one.

    The ids are read, and short indexes of ragged columns; everything else is lazy.

    Parameters
    ----------
    hierarchy
        The file that holds it.
    path
        Where, free of links.
    options
        How it is shown.

    Returns
    -------
    Piece
        The columns in the order of ``colnames``, as `column_parts` makes them. The rows' dimension has the
        table's name in the view of a session; their ids are its labels, and need not be their positions. The
        columns of an aligned table's categories are ``<category>_<column>``, their ids ``<category>_id``.

    Warns
    -----
    MappingWarning
        When ids repeat, a column is missing, or lengths differ. All of these open.
    """
    table = table_layout(hierarchy, path)
    wanted = [*([] if table.ids is None else [table.ids]), *_clocks(table)]
    layouts = (table, *category_layouts(table))
    elements = {name: array for layout in layouts for name, array in _elements(layout)}
    indexes = {name: array for layout in layouts for name, array in _short_indexes(layout)}
    ((read, meanings), ends), grid = yield from both(
        both(both(values_of(wanted), values_of(list(elements.values()))), values_of(list(indexes.values()))),
        map_grid(hierarchy, path),
    )
    values = list(read)
    read_indexes = dict(zip(indexes, ends, strict=True))
    labels = [] if table.ids is None else [_labels(table, table.ids, values.pop(0))]
    parts = [part for column in table.columns for part in column_parts(table, column, options, read_indexes)]
    for category in layouts[1:]:
        parts += _category_parts(category, options, read_indexes)
    found = dict(zip(elements, meanings, strict=True))
    parts = [_with_meanings(part, found.get(part.name)) for part in parts]
    if values and options.mask_and_scale:
        offset = _offset(table, values)
        parts = [_shifted(part, offset) for part in parts] if offset else parts
    if grid is not None:
        # The masks of a segmentation have the pixels of the plane.
        dimensions = {dimension: None for part in parts for dimension in part.dimensions}
        labels.extend(grid.labels(dimensions))
    # Several kinds of waveforms along the same samples say the same time.
    distinct = {(part.name, part.dimensions): replace(part, column=part.name) for part in parts}
    kind = hierarchy[path].neurodata_type or "DynamicTable"
    return Piece(path, kind, tuple(distinct.values()), tuple(labels), _attributes(table, layouts[1:]))


def _labels(table: Table, stored_ids: StoredArray, ids: NDArray[Any]) -> Labels:
    if len(np.unique(ids)) < len(ids):
        warn_caller(
            f"The table {table.path!r} in {table.hierarchy.location} has rows of the same id: select with "
            "isel, since sel finds several rows or none."
        )
    return Labels(table.rows, ids, identity(stored_ids.node), column="id")


def _short_indexes(table: Table) -> Iterator[tuple[tuple[str, str], StoredArray]]:
    """The VectorIndexes that are worth reading beside the ids, by their place."""
    for column in table.columns:
        for index in column.indexes:
            array = stored_at(index)
            if array.ndim == 1 and array.size <= _SHORT_INDEX:
                yield place(index), array


def _category_parts(
    category: Table, options: MappingOptions, read_indexes: Mapping[tuple[str, str], NDArray[Any]]
) -> Iterator[Part]:
    if category.ids is not None:
        yield Part(f"{category.prefix}id", (category.rows,), category.ids, identity(category.ids.node))
    for column in category.columns:
        yield from column_parts(category, column, options, read_indexes)


def _clocks(table: Table) -> list[StoredArray]:
    """The session's start and its zero of time, for a table whose times count from the start."""
    nodes = [table.hierarchy.get(name) for name in (_SESSION_START, _REFERENCE_TIME)]
    arrays = [stored(table.hierarchy, node) for node in nodes if isinstance(node, ArrayNode)]
    return arrays if len(arrays) == 2 and table.is_of("EventsTable") else []


def _offset(table: Table, clocks: Sequence[NDArray[Any]]) -> float:
    """Seconds from the session's zero of time to its start."""
    try:
        start, zero = (datetime.fromisoformat(str(value.item())) for value in clocks)
        return (start - zero).total_seconds()
    except (TypeError, ValueError):
        warn_caller(
            f"The times of the table {table.path!r} in {table.hierarchy.location} count from the session's "
            f"start, but {_SESSION_START} or {_REFERENCE_TIME} is not a date with a time zone: "
            "they are not shifted."
        )
        return 0.0


def _shifted(part: Part, offset: float) -> Part:
    """A column of timestamps, counted from the zero of time that all other times of a session count from."""
    if part.attributes.get("neurodata_type") != "TimestampVectorData" or isinstance(part.array, np.ndarray):
        return part
    shifted = Elementwise(np.add, (part.array,), np.dtype(np.float64), (offset,))
    return replace(part, array=shifted, attributes={**part.attributes, "time_offset": offset})


def _elements(table: Table) -> Iterator[tuple[str, StoredArray]]:
    """What the numbers of each EnumData column mean, by the column's name."""
    for column in table.columns:
        elements = enumerated_elements(column)
        if elements is not None and elements.size <= LONGEST_ATTRIBUTE:
            yield f"{table.prefix}{column.name}", elements


def _with_meanings(part: Part, elements: NDArray[Any] | None) -> Part:
    """A column of an enumeration, with all that it could hold: rows need not use every element."""
    if elements is None:
        return part
    return replace(part, attributes={**part.attributes, **storable({"meanings": elements})})


def _attributes(table: Table, categories: Sequence[Table]) -> dict[str, Any]:
    """The table's own attributes, where its links lead, and what its categories are."""
    hierarchy, path = table.hierarchy, table.path
    columns = {column.name for column in table.columns}
    links: dict[str, Any] = {
        name: linked(reference) for name, reference in hierarchy.links(path).items() if name not in columns
    }
    images = f"{path}/reference_images"
    if isinstance(hierarchy.get(images), GroupNode):
        inside = [f"{images}/{name}" for name in hierarchy.children(images)]
        inside += [linked(reference) for reference in hierarchy.links(images).values()]
        links |= {"reference_images": inside} if inside else {}
    described = {
        f"{category.prefix}description": category.hierarchy[category.path].attributes.get("description")
        for category in categories
    }
    return object_attributes(hierarchy, path) | links | storable(described)
