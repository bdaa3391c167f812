"""One column of a table as variables: plain, ragged, compound, references, regions, enumerations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import Readable, StoredArray
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.links import Target
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.neurodata.derived import Elementwise, InMemory, Lookup, RaggedBounds
from intake_nwbzarr.neurodata.metadata import object_attributes
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.pieces import Dimension, Part
from intake_nwbzarr.neurodata.table_layout import (
    Column,
    Table,
    array_node,
    no_ids,
    place,
    reference_of,
    stored_at,
)
from intake_nwbzarr.neurodata.texts import as_text, path_text, short_name, valid_path
from intake_nwbzarr.neurodata.types import is_a

SECONDS = "s"

# The schema's names for the axes after the first.
_AXES = {
    "waveform_mean": ("sample", "electrode"),
    "waveform_sd": ("sample", "electrode"),
    "waveforms": ("sample",),
    "obs_intervals": ("bound",),
    "band_limits": ("bound",),
    "image_mask": ("x", "y", "z"),
}

# What one value of a ragged column is called, where there is a word; others are "<column>_value".
_VALUES = {
    "spike_times": "spike",
    "waveforms": "waveform",
    "waveforms_index": "waveform_event",
    "obs_intervals": "obs_interval",
    "pixel_mask": "pixel",
    "voxel_mask": "voxel",
}

# Units that the schema fixes, for files that do not repeat them. Positions of electrodes are not among them:
# the schema recommends microns, real files hold millimetres.
_UNITS_OF_UNITS = {
    "spike_times": SECONDS,
    "obs_intervals": SECONDS,
    "waveform_mean": "volts",
    "waveform_sd": "volts",
    "waveforms": "volts",
}
# Samples of one waveform; real ones have a few hundred.
_LONGEST_WAVEFORM = 10**6

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
) -> Iterator[Part]:
    """A column's variables.

    Parameters
    ----------
    table
        The table's layout.
    column
        One of its columns.
    options
        The caller's choices.
    read_indexes
        VectorIndexes that have been read, by their place: where a row's values begin then takes no request.

    Yields
    ------
    Part
        For a ragged column ``<column>_start`` and ``<column>_count`` first: int64, along the rows. Then the
        values, as ``<column>``; the fields of a compound as ``<column>_<field>``; a reference to samples of
        a TimeSeries as ``<column>_sample_start``, ``<column>_sample_count`` and ``<column>_path``, whose
        names differ from those of bounds because such a column may be ragged too.

    Warns
    -----
    MappingWarning
        When the column's length is not the table's; it is then shown on a dimension of its own.
    """
    dimension = table.rows
    for depth, (index, divided) in enumerate(pairwise((*column.indexes, column.values)), start=1):
        name = column.name + "_index" * (len(column.indexes) - depth)
        dimension = _fitted(table, dimension, index, column.name)
        known = read_indexes.get(place(index))
        ends = stored_at(index) if known is None else InMemory(known)
        yield from _bounds(table, name, index, ends, divided, dimension)
        values = _free(table, _VALUES.get(name, ""), f"{name}_value")
        dimension = table.dimension(values, _length(divided), ("values", *place(divided)))
    first = _fitted(table, dimension, column.values, column.name)
    for part in _values(table, column, first, options):
        yield _saying_whose(table, part) if column.indexes and part.dimensions[:1] == (first,) else part


def _saying_whose(table: Table, part: Part) -> Part:
    """Values of a ragged column that say they are of all rows: selecting rows leaves them alone."""
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
    # CF conventions 2.6.2: what says more about the data. One that the file has is kept.
    return replace(part, attributes={"comment": comment, **part.attributes})


def _bounds(
    table: Table, name: str, index: Target, ends: Readable, divided: Target, dimension: Dimension
) -> Iterator[Part]:
    attributes = object_attributes(index.hierarchy, index.path)
    attributes.pop("target", None)
    # What they bound, by path: names of variables depend on the view.
    attributes |= {"ragged_values": divided.path, "ragged_length": _length(divided)}
    for bound, meaning in _BOUNDS:
        array = RaggedBounds(ends, bound, _length(divided), index.path)
        described = attributes | {"description": f"{meaning} {name!r}"}
        yield Part(table.derived(f"{name}_{bound}"), (dimension,), array, described)


def _values(table: Table, column: Column, first: Dimension, options: MappingOptions) -> Iterator[Part]:
    array, node = stored_at(column.values), array_node(column.values)
    dimensions = (first, *_further_axes(table, column, options)) if node.ndim else ()
    plain = Part(f"{table.prefix}{column.name}", dimensions, array, _attributes(table, column))
    if node.dtype.names is not None:
        yield from _fields(table, column, plain, array, options)
    elif node.is_reference:
        yield replace(plain, array=path_text(array))
        if not any(other.name == f"{column.name}_name" for other in table.columns):
            yield replace(plain, name=f"{plain.name}_name", array=short_name(array))
    elif _is(column, "DynamicTableRegion") and _are_numbers(table, column):
        yield from _region(table, column, plain, array)
    elif _is(column, "EnumData") and options.mask_and_scale and _are_numbers(table, column):
        yield replace(plain, array=_enumeration(table, column, array))
    elif plain.attributes.get("units") == SECONDS and node.dtype.kind in "iuf":
        # The schema has float32 for intervals: after two hours, steps of half a millisecond.
        widened = _widened(array) if node.dtype.kind == "f" and options.mask_and_scale else array
        yield replace(plain, array=widened, is_time=not _is(column, "DurationVectorData"))
    else:
        yield replace(plain, array=as_text(array))
        yield from _waveform_time(column, plain)


def _fields(
    table: Table, column: Column, plain: Part, array: StoredArray, options: MappingOptions
) -> Iterator[Part]:
    node = array.node
    names = node.dtype.names or ()
    if set(names) == set(_REFERENCE_FIELDS) and all(
        node.dtype[name].kind in "iu" for name in _REFERENCE_FIELDS[:2]
    ):
        start, count, path = (array.field(name) for name in _REFERENCE_FIELDS)
        yield replace(plain, name=table.derived(f"{column.name}_sample_start"), array=start)
        yield replace(plain, name=table.derived(f"{column.name}_sample_count"), array=count)
        text = valid_path(path, start, count) if options.mask_and_scale else path_text(path)
        yield replace(plain, name=table.derived(f"{column.name}_path"), array=text)
        return
    for name in names:
        field = array.field(name)
        made = path_text(field) if name in node.reference_fields else as_text(field)
        yield replace(plain, name=table.derived(f"{column.name}_{name}"), array=made)


def _region(table: Table, column: Column, plain: Part, array: StoredArray) -> Iterator[Part]:
    yield plain
    target = reference_of(column.values, "table")
    ids = None if target is None else target.hierarchy.get(f"{target.path}/id")
    if target is None or not isinstance(ids, ArrayNode) or no_ids(ids):
        warn_caller(
            f"The column {column.name!r} of the table {table.path!r} in {table.hierarchy.location} points at "
            "rows of a table that is not in the file, or has no ids: row numbers are shown."
        )
        return
    labels = Lookup(stored_at(Target(target.hierarchy, ids.path)), array, column.values.path)
    attributes = dict(plain.attributes) | {"description": f"ids of the rows of {target.path!r}"}
    yield replace(plain, name=table.derived(f"{column.name}_id"), array=labels, attributes=attributes)


def _are_numbers(table: Table, column: Column) -> bool:
    """Whether a column that stands for rows or elements holds numbers of them."""
    kind = array_node(column.values).dtype
    if kind.kind in "iuf":
        return True
    warn_caller(
        f"The column {column.name!r} of the table {table.path!r} in {table.hierarchy.location} is of {kind}, "
        "where numbers of rows were expected: what is stored is shown."
    )
    return False


def enumerated_elements(column: Column) -> StoredArray | None:
    """What the numbers of an EnumData column stand for; None for other columns, and where it is missing."""
    elements = reference_of(column.values, "elements") if _is(column, "EnumData") else None
    if elements is None or not isinstance(elements.node, ArrayNode) or elements.node.ndim != 1:
        return None
    return stored_at(elements)


def _enumeration(table: Table, column: Column, array: StoredArray) -> Readable:
    elements = enumerated_elements(column)
    if elements is None:
        warn_caller(
            f"The column {column.name!r} of the table {table.path!r} in {table.hierarchy.location} "
            "enumerates elements that are not in the file, or not a list: the stored numbers are shown."
        )
        return array
    return Lookup(as_text(elements), array, column.values.path)


def _waveform_time(column: Column, plain: Part) -> Iterator[Part]:
    """When each sample of a waveform was, relative to the spike."""
    rate = plain.attributes.get("sampling_rate")
    before = plain.attributes.get("time_before_peak_in_ms")
    if column.name not in _UNITS_OF_UNITS or len(plain.dimensions) < 2:
        return
    if not isinstance(rate, int | float) or not isinstance(before, int | float) or not rate:
        return
    sample = plain.dimensions[1]
    if sample.size > _LONGEST_WAVEFORM:
        warn_caller(
            f"The column {column.name!r} of {plain.attributes['nwb_path']!r} declares waveforms of "
            f"{sample.size:,} samples: they get no times."
        )
        return
    time = np.arange(sample.size) / float(rate) - float(before) / 1000
    attributes = {
        "units": SECONDS,
        "description": "time from the peak of the waveform",
        "nwb_path": plain.attributes["nwb_path"],
    }
    name = sample.name.removesuffix("sample") + "waveform_time"
    yield Part(name, (sample,), time, attributes, role="coordinate")


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


def _further_axes(table: Table, column: Column, options: MappingOptions) -> Iterator[Dimension]:
    names = _AXES.get(column.name, ())
    if column.name == "image_mask" and options.image_axes == "yx":
        names = ("y", "x", "z")
    for axis, size in enumerate(array_node(column.values).shape[1:], start=1):
        own = f"{column.name}_dim_{axis}"
        if axis > len(names):
            yield table.dimension(own, size, ("axis", *place(column.values), axis))
            continue
        word = names[axis - 1]
        name = _free(table, word, f"{column.name}_{word}")
        if name == word and len(_lengths(table, word)) > 1:
            # Mean and single waveforms of different lengths have nothing in common.
            name = f"{column.name}_{word}"
        yield table.dimension(name, size, ("axis", *place(Target(table.hierarchy, table.path)), name))


def _lengths(table: Table, word: str) -> set[int]:
    """The lengths of a table's axes of one name."""
    return {
        size
        for column in table.columns
        for name, size in zip(_AXES.get(column.name, ()), array_node(column.values).shape[1:], strict=False)
        if name == word
    }


def _free(table: Table, name: str, otherwise: str) -> str:
    """A dimension's name, unless a column or the rows have it: xarray makes such a variable a coordinate."""
    taken = {"", table.rows.name, *(column.name for column in table.columns)}
    return otherwise if name in taken else name


def _fitted(table: Table, dimension: Dimension, target: Target, name: str) -> Dimension:
    """The dimension of an array's first axis: the one it should have, or its own where the length differs."""
    node = array_node(target)
    if node.ndim == 0 or node.shape[0] == dimension.size:
        return dimension
    warn_caller(
        f"The column {name!r} of the table {table.path!r} in {table.hierarchy.location} has "
        f"{node.shape[0]} entries where {dimension.size} were expected: it gets a dimension of its own."
    )
    return table.dimension(f"{target.node.name}_dim_0", node.shape[0], ("axis", *place(target), 0))


def _widened(array: StoredArray) -> Readable:
    wide = np.dtype(np.float64)
    return array if array.dtype == wide else Elementwise(np.asarray, (array,), wide)


def _length(target: Target) -> int:
    shape = array_node(target).shape
    return shape[0] if shape else 1


def _is(column: Column, ancestor: str) -> bool:
    node = column.values.node
    return node.neurodata_type is not None and is_a(column.values.hierarchy, node, ancestor)
