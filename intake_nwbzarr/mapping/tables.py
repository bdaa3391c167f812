"""Map a DynamicTable, of any subtype, to variables along its rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import Readable, StoredArray
from intake_nwbzarr.arrays.computed import Elementwise, InMemory, Lookup, RaggedBounds
from intake_nwbzarr.errors import LimitError, MetadataError, NodeNotFoundError, code_of_skipped, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, Target
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode
from intake_nwbzarr.mapping.attributes import (
    as_strings,
    as_text,
    identity,
    linked,
    object_attributes,
    path_text,
    short_name,
    storable,
    valid_path,
)
from intake_nwbzarr.mapping.model import (
    ArrayPart,
    Dimension,
    Labels,
    MappedObject,
    Mapper,
    both,
    stored,
    values_or_none,
    whole_values,
)
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.pixel_grid import map_grid
from intake_nwbzarr.mapping.schema import is_a
from intake_nwbzarr.mapping.table_layout import (
    Column,
    Table,
    array_node,
    category_layouts,
    no_ids,
    object_key,
    reference_of,
    stored_at,
    table_layout,
)
from intake_nwbzarr.mapping.time_coordinates import instant_of
from intake_nwbzarr.untrusted_input import LONGEST_ATTRIBUTE, LONGEST_WAVEFORM

SECONDS = "s"

# The schema's names for the dimensions after the first.
_AXES = {
    "waveform_mean": ("sample", "electrode"),
    "waveform_sd": ("sample", "electrode"),
    "waveforms": ("sample",),
    "obs_intervals": ("bound",),
    "band_limits": ("bound",),
    "image_mask": ("x", "y", "z"),
}

# The dimension of a ragged column's values; that of other columns is "<column>_value".
_VALUES = {
    "spike_times": "spike",
    "waveforms": "waveform",
    "waveforms_index": "waveform_event",
    "obs_intervals": "obs_interval",
    "pixel_mask": "pixel",
    "voxel_mask": "voxel",
}

# Units that the schema fixes, for files that do not store them. Positions of electrodes are omitted: the
# schema recommends microns, real files hold millimetres.
_UNITS_OF_UNITS = {
    "spike_times": SECONDS,
    "obs_intervals": SECONDS,
    "waveform_mean": "volts",
    "waveform_sd": "volts",
    "waveforms": "volts",
}


_UNITS_OF_BANDS = {"band_limits": "Hz", "band_mean": "Hz", "band_stdev": "Hz"}

_BOUNDS: Final[tuple[tuple[Literal["start", "count"], str], ...]] = (
    ("start", "position of each row's first value in"),
    ("count", "number of each row's values in"),
)

_REFERENCE_FIELDS = ("idx_start", "count", "timeseries")


def column_parts(
    table: Table,
    column: Column,
    options: MappingOptions,
    read_indexes: Mapping[tuple[str, str], NDArray[Any]] = MappingProxyType({}),
) -> Iterator[ArrayPart]:
    """Yield a column's variables."""
    # A ragged column: <column>_start and <column>_count along the rows, then the values as <column>. A
    # compound: <column>_<field>. A reference to samples of a series: <column>_sample_start,
    # <column>_sample_count and <column>_path, which differ from the names of bounds because such a column may
    # be ragged too. A short index that was read already (`read_indexes`, by `object_key`) is kept in memory.
    dimension = table.rows
    for depth, (index, divided) in enumerate(pairwise((*column.indexes, column.values)), start=1):
        name = column.name + "_index" * (len(column.indexes) - depth)
        dimension = _first_dimension(table, dimension, index, column.name)
        known = read_indexes.get(object_key(index))
        ends = stored_at(index) if known is None else InMemory(known)
        yield from _bounds(table, name, index, ends, divided, dimension)
        values = _free_dimension_name(table, _VALUES.get(name, ""), f"{name}_value")
        dimension = table.dimension(values, _length(divided), ("values", *object_key(divided)))
    first = _first_dimension(table, dimension, column.values, column.name)
    for part in _values(table, column, first, options):
        yield _with_comment(table, part) if column.indexes and part.dimensions[:1] == (first,) else part


def _with_comment(table: Table, part: ArrayPart) -> ArrayPart:
    """Add a comment to a ragged column's values: they are of all rows, whichever rows are selected."""
    # xarray's own to_dataframe() would repeat every value for every row.
    whole = f"ds.nwb.to_dataframe({table.path.rpartition('/')[2]!r}) has a cell for each"
    if table.is_of("Units") and part.name == "spike_times":
        comment = (
            "spike times of all units, one unit after the other, whichever units are selected: "
            f"ds.nwb.spike_times(id) gives those of one unit, {whole}"
        )
    else:
        comment = (
            "values of all rows, one row after the other, whichever rows are selected: "
            f"ds.nwb.ragged({part.name!r})[i] gives those of row i, {whole}"
        )
    # CF conventions 2.6.2; a comment in the file takes precedence.
    return replace(part, attributes={"comment": comment, **part.attributes})


def _bounds(
    table: Table, name: str, index: Target, ends: Readable, divided: Target, dimension: Dimension
) -> Iterator[ArrayPart]:
    attributes = object_attributes(index.hierarchy, index.path)
    attributes.pop("target", None)
    # By path, because names of variables depend on the view.
    attributes |= {"ragged_values": divided.path, "ragged_length": _length(divided)}
    for bound, meaning in _BOUNDS:
        array = RaggedBounds(ends, bound, _length(divided), index.path)
        described = attributes | {"ragged_bound": bound, "description": f"{meaning} {name!r}"}
        yield ArrayPart(table.variable_name(f"{name}_{bound}"), (dimension,), array, described)


def _values(table: Table, column: Column, first: Dimension, options: MappingOptions) -> Iterator[ArrayPart]:
    array, node = stored_at(column.values), array_node(column.values)
    dimensions = (first, *_other_dimensions(table, column, options)) if node.ndim else ()
    plain = ArrayPart(f"{table.prefix}{column.name}", dimensions, array, _attributes(table, column))
    if node.dtype.names is not None:
        yield from _fields(table, column, plain, array, options)
    elif node.is_reference:
        yield replace(plain, array=path_text(array))
        if not any(other.name == f"{column.name}_name" for other in table.columns):
            named = dict(plain.attributes) | {"nwb_derived": "name"}
            yield replace(plain, name=f"{plain.name}_name", array=short_name(array), attributes=named)
    elif _is(column, "DynamicTableRegion") and _has_numbers(table, column):
        yield from _region(table, column, plain, array)
    elif _is(column, "EnumData") and options.mask_and_scale and _has_numbers(table, column):
        yield replace(plain, array=_enumeration(table, column, array))
    elif plain.attributes.get("units") == SECONDS and node.dtype.kind in "iuf":
        # Intervals are float32 in the schema, which after two hours has steps of half a millisecond.
        widened = _widened(array) if node.dtype.kind == "f" and options.mask_and_scale else array
        yield replace(plain, array=widened, is_time=not _is(column, "DurationVectorData"))
    else:
        yield replace(plain, array=as_text(array))
        yield from _waveform_time(column, plain)


def _fields(
    table: Table, column: Column, plain: ArrayPart, array: StoredArray, options: MappingOptions
) -> Iterator[ArrayPart]:
    node = array.node
    names = node.dtype.names or ()
    if set(names) == set(_REFERENCE_FIELDS) and all(
        node.dtype[name].kind in "iu" for name in _REFERENCE_FIELDS[:2]
    ):
        start, count, path = (array.field(name) for name in _REFERENCE_FIELDS)
        text = valid_path(path, start, count) if options.mask_and_scale else path_text(path)
        mapped: Mapping[str, tuple[str, Readable]] = {
            "idx_start": ("sample_start", start),
            "count": ("sample_count", count),
            "timeseries": ("path", text),
        }
    else:
        fields = {name: array.field(name) for name in names}
        mapped = {
            name: (name, path_text(field) if name in node.reference_fields else as_text(field))
            for name, field in fields.items()
        }
    for name, (suffix, made) in mapped.items():
        attributes = dict(plain.attributes) | {"nwb_field": name}
        variable = table.variable_name(f"{column.name}_{suffix}")
        yield replace(plain, name=variable, array=made, attributes=attributes)


def _region(table: Table, column: Column, plain: ArrayPart, array: StoredArray) -> Iterator[ArrayPart]:
    yield plain
    target = reference_of(column.values, "table")
    ids = None if target is None else target.hierarchy.get(f"{target.path}/id")
    if target is None or not isinstance(ids, ArrayNode) or no_ids(ids):
        warn_caller(
            f"The column {column.name!r} of the table {table.path!r} in {table.hierarchy.location} refers to "
            "rows of a table that is not in the file, or has no ids; it is mapped as row numbers.",
            code="region-without-table",
            path=table.path,
        )
        return
    labels = Lookup(stored_at(Target(target.hierarchy, ids.path)), array, column.values.path)
    described = {"description": f"ids of the rows of {target.path!r}", "nwb_derived": "id"}
    attributes = dict(plain.attributes) | described
    yield replace(plain, name=table.variable_name(f"{column.name}_id"), array=labels, attributes=attributes)


def _has_numbers(table: Table, column: Column) -> bool:
    """Return whether a column of row numbers, or of numbers of elements, is numeric."""
    kind = array_node(column.values).dtype
    if kind.kind in "iuf":
        return True
    warn_caller(
        f"The column {column.name!r} of the table {table.path!r} in {table.hierarchy.location} is of {kind} "
        "instead of row numbers; it is mapped as stored.",
        code="invalid-region",
        path=table.path,
    )
    return False


def enumerated_elements(column: Column) -> StoredArray | None:
    """Return the elements that the numbers of an EnumData column refer to, or None."""
    elements = reference_of(column.values, "elements") if _is(column, "EnumData") else None
    if elements is None or not isinstance(elements.node, ArrayNode) or elements.node.ndim != 1:
        return None
    return stored_at(elements)


def _enumeration(table: Table, column: Column, array: StoredArray) -> Readable:
    elements = enumerated_elements(column)
    if elements is None:
        warn_caller(
            f"The column {column.name!r} of the table {table.path!r} in {table.hierarchy.location} "
            "refers to elements that are not in the file, or not a list; it is mapped as the stored numbers.",
            code="dangling-reference",
            path=table.path,
        )
        return array
    return Lookup(as_text(elements), array, column.values.path)


def _waveform_time(column: Column, plain: ArrayPart) -> Iterator[ArrayPart]:
    """Yield the time of each sample of a waveform relative to the spike."""
    rate = plain.attributes.get("sampling_rate")
    before = plain.attributes.get("time_before_peak_in_ms")
    if column.name not in _UNITS_OF_UNITS or len(plain.dimensions) < 2:
        return
    if not isinstance(rate, int | float) or not isinstance(before, int | float) or not rate:
        return
    sample = plain.dimensions[1]
    if sample.size > LONGEST_WAVEFORM:
        warn_caller(
            f"The column {column.name!r} of {plain.attributes['nwb_path']!r} declares waveforms of "
            f"{sample.size:,} samples, which have no times.",
            code="implausible-waveform-rate",
            path=str(plain.attributes["nwb_path"]),
        )
        return
    time = np.arange(sample.size) / float(rate) - float(before) / 1000
    attributes = {
        "units": SECONDS,
        "description": "time from the peak of the waveform",
        "nwb_path": plain.attributes["nwb_path"],
        "nwb_derived": "time",
    }
    name = sample.name.removesuffix("sample") + "waveform_time"
    yield ArrayPart(name, (sample,), time, attributes, role="coordinate")


def _attributes(table: Table, column: Column) -> dict[str, Any]:
    attributes = object_attributes(column.values.hierarchy, column.values.path)
    if attributes.get("resolution") == -1:
        del attributes["resolution"]
    units = attributes.pop("unit", None) or _schema_units(table, column)
    units = SECONDS if units == "seconds" else units
    return attributes if units is None else attributes | {"units": units}


def _schema_units(table: Table, column: Column) -> str | None:
    fixed: Mapping[str, str] = {}
    if table.is_of("Units"):
        fixed = _UNITS_OF_UNITS
    elif table.is_of("FrequencyBandsTable"):
        fixed = _UNITS_OF_BANDS
    elif table.is_of("TimeIntervals"):
        # The schema names start_time and stop_time; by NWB's convention further times end in the same word.
        is_time = column.name.endswith("_time") and array_node(column.values).dtype.kind in "iuf"
        return SECONDS if is_time else None
    if _is(column, "TimestampVectorData") or _is(column, "DurationVectorData"):
        return SECONDS
    return fixed.get(column.name)


def _other_dimensions(table: Table, column: Column, options: MappingOptions) -> Iterator[Dimension]:
    names = _AXES.get(column.name, ())
    if column.name == "image_mask" and options.image_axes == "yx":
        names = ("y", "x", "z")
    for axis, size in enumerate(array_node(column.values).shape[1:], start=1):
        own = f"{column.name}_dim_{axis}"
        if axis > len(names):
            yield table.dimension(own, size, ("axis", *object_key(column.values), axis))
            continue
        word = names[axis - 1]
        name = _free_dimension_name(table, word, f"{column.name}_{word}")
        if name == word and len(_lengths(table, word)) > 1:
            # Mean and single waveforms of different lengths have different dimensions.
            name = f"{column.name}_{word}"
        yield table.dimension(name, size, ("axis", *object_key(Target(table.hierarchy, table.path)), name))


def _lengths(table: Table, word: str) -> set[int]:
    """Return the lengths of a table's dimensions of one name."""
    return {
        size
        for column in table.columns
        for name, size in zip(_AXES.get(column.name, ()), array_node(column.values).shape[1:], strict=False)
        if name == word
    }


def _free_dimension_name(table: Table, name: str, otherwise: str) -> str:
    """Return a dimension's name, or `otherwise` if a column or the rows have it."""
    # xarray makes a variable named like its dimension a coordinate.
    taken = {"", table.rows.name, *(column.name for column in table.columns)}
    return otherwise if name in taken else name


def _first_dimension(table: Table, dimension: Dimension, target: Target, name: str) -> Dimension:
    """Return the dimension of an array's first axis: that of the rows, or its own if the length differs."""
    node = array_node(target)
    if node.ndim == 0 or node.shape[0] == dimension.size:
        return dimension
    warn_caller(
        f"The column {name!r} of the table {table.path!r} in {table.hierarchy.location} has "
        f"{node.shape[0]} entries instead of {dimension.size}: it has a dimension of its own.",
        code="column-length",
        path=table.path,
    )
    return table.dimension(f"{target.node.name}_dim_0", node.shape[0], ("axis", *object_key(target), 0))


def _widened(array: StoredArray) -> Readable:
    wide = np.dtype(np.float64)
    return array if array.dtype == wide else Elementwise(np.asarray, (array,), wide)


def _length(target: Target) -> int:
    shape = array_node(target).shape
    return shape[0] if shape else 1


def _is(column: Column, ancestor: str) -> bool:
    node = column.values.node
    return node.neurodata_type is not None and is_a(column.values.hierarchy, node, ancestor)


# Longer indexes stay lazy: every pickle of a variable would include them.
_SHORT_INDEX = 10_000

_SESSION_START = "session_start_time"
_REFERENCE_TIME = "timestamps_reference_time"


def map_table(
    hierarchy: Hierarchy,
    path: str,
    options: MappingOptions,
    columns: Collection[str] | None = None,
    table: Table | None = None,
) -> Mapper[MappedObject]:
    """Map a DynamicTable, a subtype, or a group with ``colnames``; all of its columns, or those named.

    With its layout, if that is known already.
    """
    # The ids, which are labels and need not be positions, and short indexes are read; everything else is
    # lazy. The columns of an aligned table's categories are <category>_<column>, their ids <category>_id.
    table = table_layout(hierarchy, path) if table is None else table
    clocks = _clocks(table)
    wanted = ({} if table.ids is None else {"id": table.ids}) | clocks
    layouts = (table, *category_layouts(table))
    if columns is not None:
        layouts = tuple(_with_columns(layout, columns) for layout in layouts)
    elements = {name: array for layout in layouts for name, array in _enumerations(layout)}
    indexes = {name: array for layout in layouts for name, array in _short_indexes(layout)}
    (((read, lost), meanings), ends), grid = yield from both(
        both(
            both(whole_values(wanted), values_or_none(list(elements.values()))),
            values_or_none(list(indexes.values())),
        ),
        map_grid(hierarchy, path),
    )
    read_indexes = {key: each for key, each in zip(indexes, ends, strict=True) if each is not None}
    unmapped = [path for layout in layouts for path in layout.unmapped] + list(lost)
    labels = [] if table.ids is None or "id" not in read else [_labels(table, table.ids, read["id"])]
    parts = [part for layout in layouts for part in _parts(layout, options, read_indexes, unmapped)]
    found = dict(zip(elements, meanings, strict=True))
    parts = [_with_meanings(part, found.get(part.name)) for part in parts]
    if clocks and clocks.keys() <= read.keys() and options.mask_and_scale:
        offset = _offset(table, [read[name] for name in clocks])
        parts = [_shifted(part, offset) for part in parts] if offset else parts
    if grid is not None:
        # The masks of a segmentation have the pixels of its imaging plane.
        dimensions = {dimension: None for part in parts for dimension in part.dimensions}
        labels.extend(grid.labels(dimensions))
    # Several kinds of waveforms along the same samples have the same time.
    distinct = {(part.name, part.dimensions): replace(part, column=part.name) for part in parts}
    kind = hierarchy[path].neurodata_type or "DynamicTable"
    return MappedObject(
        path,
        kind,
        tuple(distinct.values()),
        tuple(labels),
        _table_attributes(table, layouts[1:]),
        tuple(dict.fromkeys(unmapped)),
    )


def _with_columns(table: Table, names: Collection[str]) -> Table:
    kept = tuple(column for column in table.columns if f"{table.prefix}{column.name}" in names)
    return replace(table, columns=kept)


def _labels(table: Table, stored_ids: StoredArray, ids: NDArray[Any]) -> Labels:
    if len(np.unique(ids)) < len(ids):
        warn_caller(
            f"The table {table.path!r} in {table.hierarchy.location} has rows of the same id: select them "
            "with isel, because sel finds several rows or none.",
            code="repeated-ids",
            path=table.path,
        )
    return Labels(table.rows, as_strings(ids), identity(stored_ids.node), column="id")


def _short_indexes(table: Table) -> Iterator[tuple[tuple[str, str], StoredArray]]:
    """Yield the VectorIndexes that are read together with the ids."""
    for column in table.columns:
        for index in column.indexes:
            array = stored_at(index)
            if array.ndim == 1 and array.size <= _SHORT_INDEX:
                yield object_key(index), array


def _parts(
    table: Table,
    options: MappingOptions,
    read_indexes: Mapping[tuple[str, str], NDArray[Any]],
    unmapped: list[str],
) -> Iterator[ArrayPart]:
    """Yield the variables of a table or of a category; damaged columns are skipped with a warning."""
    if table.prefix and table.ids is not None:
        yield ArrayPart(f"{table.prefix}id", (table.rows,), table.ids, identity(table.ids.node))
    for column in table.columns:
        try:
            yield from list(column_parts(table, column, options, read_indexes))
        except (MetadataError, NodeNotFoundError, LimitError) as error:
            path = column.values.path
            unmapped.append(path)
            warn_caller(
                f"{path!r} in {column.values.hierarchy.location} is skipped. {error}",
                code=code_of_skipped(error),
                path=path,
            )


def _clocks(table: Table) -> dict[str, StoredArray]:
    """Return the session's start and reference time, for a table whose times count from the start."""
    nodes = {name: table.hierarchy.get(name) for name in (_SESSION_START, _REFERENCE_TIME)}
    arrays = {
        name: stored(table.hierarchy, node) for name, node in nodes.items() if isinstance(node, ArrayNode)
    }
    return arrays if len(arrays) == 2 and table.is_of("EventsTable") else {}


def _offset(table: Table, clocks: Sequence[NDArray[Any]]) -> float:
    """Return the seconds from the session's reference time to its start."""
    try:
        start, zero = (instant_of(value.item(), str(table.hierarchy.location))[0] for value in clocks)
        return (start - zero).total_seconds()
    except ValueError:
        warn_caller(
            f"The times of the table {table.path!r} in {table.hierarchy.location} count from the session's "
            f"start, but {_SESSION_START} or {_REFERENCE_TIME} is not a date: they are not shifted.",
            code="invalid-date",
            path=table.path,
        )
        return 0.0


def _shifted(part: ArrayPart, offset: float) -> ArrayPart:
    """Shift a column of timestamps to the session's reference time, as all other times."""
    of_events = part.is_time and part.attributes.get("neurodata_type") == "TimestampVectorData"
    if not of_events or isinstance(part.array, np.ndarray):
        return part
    shifted = Elementwise(np.add, (part.array,), np.dtype(np.float64), (offset,))
    return replace(part, array=shifted, attributes={**part.attributes, "time_offset": offset})


def _enumerations(table: Table) -> Iterator[tuple[str, StoredArray]]:
    """Yield the elements of each EnumData column, by the variable's name."""
    for column in table.columns:
        elements = enumerated_elements(column)
        if elements is not None and elements.size <= LONGEST_ATTRIBUTE:
            yield f"{table.prefix}{column.name}", elements


def _with_meanings(part: ArrayPart, elements: NDArray[Any] | None) -> ArrayPart:
    """Add all elements of an enumeration to a column's attributes: rows need not use each."""
    if elements is None:
        return part
    return replace(part, attributes={**part.attributes, **storable({"meanings": elements})})


def _table_attributes(table: Table, categories: Sequence[Table]) -> dict[str, Any]:
    """Return the table's attributes and links, and the descriptions of its categories."""
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
