"""Dynamic tables of every type: rows as a dimension, ids as its labels, columns as variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import LimitError, MetadataError, NodeNotFoundError, warn_caller
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode
from intake_nwbzarr.neurodata.derived import Elementwise
from intake_nwbzarr.neurodata.metadata import LONGEST_ATTRIBUTE, identity, linked, object_attributes, storable
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.pieces import (
    Labels,
    Mapper,
    Part,
    Piece,
    both,
    stored,
    values_or_none,
    whole_values,
)
from intake_nwbzarr.neurodata.pixel_positions import map_grid
from intake_nwbzarr.neurodata.table_columns import column_parts, enumerated_elements
from intake_nwbzarr.neurodata.table_layout import Table, category_layouts, place, stored_at, table_layout
from intake_nwbzarr.neurodata.texts import as_strings
from intake_nwbzarr.neurodata.time_coordinates import instant_of

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
    clocks = _clocks(table)
    wanted = ({} if table.ids is None else {"id": table.ids}) | clocks
    layouts = (table, *category_layouts(table))
    elements = {name: array for layout in layouts for name, array in _elements(layout)}
    indexes = {name: array for layout in layouts for name, array in _short_indexes(layout)}
    (((read, lost), meanings), ends), grid = yield from both(
        both(
            both(whole_values(wanted), values_or_none(list(elements.values()))),
            values_or_none(list(indexes.values())),
        ),
        map_grid(hierarchy, path),
    )
    read_indexes = {place: each for place, each in zip(indexes, ends, strict=True) if each is not None}
    unmapped = [path for layout in layouts for path in layout.unmapped] + list(lost)
    labels = [] if table.ids is None or "id" not in read else [_labels(table, table.ids, read["id"])]
    parts = [part for layout in layouts for part in _parts(layout, options, read_indexes, unmapped)]
    found = dict(zip(elements, meanings, strict=True))
    parts = [_with_meanings(part, found.get(part.name)) for part in parts]
    if clocks and clocks.keys() <= read.keys() and options.mask_and_scale:
        offset = _offset(table, [read[name] for name in clocks])
        parts = [_shifted(part, offset) for part in parts] if offset else parts
    if grid is not None:
        # The masks of a segmentation have the pixels of the plane.
        dimensions = {dimension: None for part in parts for dimension in part.dimensions}
        labels.extend(grid.labels(dimensions))
    # Several kinds of waveforms along the same samples say the same time.
    distinct = {(part.name, part.dimensions): replace(part, column=part.name) for part in parts}
    kind = hierarchy[path].neurodata_type or "DynamicTable"
    return Piece(
        path,
        kind,
        tuple(distinct.values()),
        tuple(labels),
        _attributes(table, layouts[1:]),
        tuple(dict.fromkeys(unmapped)),
    )


def _labels(table: Table, stored_ids: StoredArray, ids: NDArray[Any]) -> Labels:
    if len(np.unique(ids)) < len(ids):
        warn_caller(
            f"The table {table.path!r} in {table.hierarchy.location} has rows of the same id: select with "
            "isel, since sel finds several rows or none."
        )
    return Labels(table.rows, as_strings(ids), identity(stored_ids.node), column="id")


def _short_indexes(table: Table) -> Iterator[tuple[tuple[str, str], StoredArray]]:
    """The VectorIndexes that are worth reading beside the ids, by their place."""
    for column in table.columns:
        for index in column.indexes:
            array = stored_at(index)
            if array.ndim == 1 and array.size <= _SHORT_INDEX:
                yield place(index), array


def _parts(
    table: Table,
    options: MappingOptions,
    read_indexes: Mapping[tuple[str, str], NDArray[Any]],
    unmapped: list[str],
) -> Iterator[Part]:
    """The variables of a table, or of a category of one; what a damaged column would be is left out."""
    if table.prefix and table.ids is not None:
        yield Part(f"{table.prefix}id", (table.rows,), table.ids, identity(table.ids.node))
    for column in table.columns:
        try:
            yield from list(column_parts(table, column, options, read_indexes))
        except (MetadataError, NodeNotFoundError, LimitError) as error:
            path = column.values.path
            unmapped.append(path)
            warn_caller(f"{path!r} in {column.values.hierarchy.location} is left out. {error}")


def _clocks(table: Table) -> dict[str, StoredArray]:
    """The session's start and its zero of time, for a table whose times count from the start."""
    nodes = {name: table.hierarchy.get(name) for name in (_SESSION_START, _REFERENCE_TIME)}
    arrays = {
        name: stored(table.hierarchy, node) for name, node in nodes.items() if isinstance(node, ArrayNode)
    }
    return arrays if len(arrays) == 2 and table.is_of("EventsTable") else {}


def _offset(table: Table, clocks: Sequence[NDArray[Any]]) -> float:
    """Seconds from the session's zero of time to its start."""
    try:
        start, zero = (instant_of(value.item(), str(table.hierarchy.location))[0] for value in clocks)
        return (start - zero).total_seconds()
    except ValueError:
        warn_caller(
            f"The times of the table {table.path!r} in {table.hierarchy.location} count from the session's "
            f"start, but {_SESSION_START} or {_REFERENCE_TIME} is not a date: "
            "they are not shifted."
        )
        return 0.0


def _shifted(part: Part, offset: float) -> Part:
    """A column of timestamps, counted from the zero of time that all other times of a session count from."""
    of_events = part.is_time and part.attributes.get("neurodata_type") == "TimestampVectorData"
    if not of_events or isinstance(part.array, np.ndarray):
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
