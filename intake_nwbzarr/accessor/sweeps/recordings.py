"""Recordings as the intracellular recordings table lists them, and the tables that group them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.sweeps.series import Extent, reference_to
from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import ChunkError, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.mapping.attributes import identity
from intake_nwbzarr.mapping.derived import Elementwise
from intake_nwbzarr.mapping.model import Mapper, Part, together, values_of
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.schema import is_a
from intake_nwbzarr.mapping.table_layout import (
    Column,
    Table,
    array_node,
    category_layouts,
    stored_at,
    table_layout,
)
from intake_nwbzarr.mapping.tables import column_parts

ICEPHYS: Final = "general/intracellular_ephys"

RECORDING: Final = "recording"

# From the recordings upwards: each table, the column that refers to rows of the one below, and what one row
# is called. NWB schema, section 'Intracellular electrophysiology'.
_ABOVE: Final = (
    ("simultaneous_recordings", "recordings", "simultaneous_recording"),
    ("sequential_recordings", "simultaneous_recordings", "sequential_recording"),
    ("repetitions", "sequential_recordings", "repetition"),
    ("experimental_conditions", "repetitions", "experimental_condition"),
)

_REFERENCE = ("idx_start", "count", "timeseries")


@dataclass(frozen=True)
class Recordings:
    """What was recorded: one entry for each recording in everything here.

    Parameters
    ----------
    labels
        Their ids.
    responses, stimuli
        Which samples; None where there are none.
    coordinates
        What else is known of them, along ``recording``.
    attributes
        Of the labels.
    """

    labels: NDArray[Any]
    responses: Sequence[Extent | None]
    stimuli: Sequence[Extent | None]
    coordinates: Mapping[str, xr.Variable]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def table_recordings(hierarchy: Hierarchy) -> Mapper[Recordings]:
    """The recordings of ``general/intracellular_ephys/intracellular_recordings``; everything in one round.

    Returns
    -------
    Recordings
        Labelled by the table's ids. Coordinates are its plain columns and its categories', the ids of the
        simultaneous, sequential, repeated and conditional recordings that each belongs to, and the plain
        columns of those tables.
    """
    table = table_layout(hierarchy, f"{ICEPHYS}/intracellular_recordings")
    tables = [table, *category_layouts(table)]
    responses, stimuli = _reference_column(tables, "response"), _reference_column(tables, "stimulus")
    columns, below, extents, ids = yield from _everything(tables, hierarchy, (responses, stimuli), table)
    size = table.rows.size
    coordinates: dict[str, xr.Variable] = {}
    for of_table in columns:
        coordinates |= of_table
    rows = np.arange(size)
    for level in below:
        rows = level.rows_above(rows)
        coordinates |= level.coordinates(rows, coordinates)
    labels = ids if ids is not None else np.arange(size)
    attributes = {} if table.ids is None else identity(table.ids.node)
    nothing: list[Extent | None] = [None] * size
    found, presented = (extents[column.name] if column else nothing for column in (responses, stimuli))
    return Recordings(labels, found, presented, coordinates, attributes)


@dataclass(frozen=True)
class _Level:
    """A table whose rows group rows of the one below it, read."""

    table: Table
    name: str
    ids: NDArray[Any]
    owners: NDArray[np.int64]
    columns: Mapping[str, xr.Variable]

    def rows_above(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row here that each row below belongs to, -1 for none."""
        known = (rows >= 0) & (rows < len(self.owners))
        return np.where(known, self.owners[np.where(known, rows, 0)] if len(self.owners) else -1, -1)

    def coordinates(self, rows: NDArray[np.int64], taken: Mapping[str, Any]) -> dict[str, xr.Variable]:
        """The ids of those rows, and their columns."""
        attributes = {"nwb_path": f"{self.table.path}/id"}
        found = {self.name: xr.Variable(RECORDING, _taken(self.ids, rows), attributes)}
        for name, column in self.columns.items():
            free = f"{self.name}_{name}" if name in taken or name in found else name
            found[free] = xr.Variable(RECORDING, _taken(column.values, rows), column.attrs)
        return found


def _everything(
    tables: Sequence[Table], hierarchy: Hierarchy, references: tuple[Column | None, ...], table: Table
) -> Mapper[tuple[Any, Any, Any, Any]]:
    names = [column.name for column in references if column is not None]
    mappers: list[Mapper[Any]] = [
        together([_plain_columns(each, RECORDING, names) for each in tables]),
        together([_level(hierarchy, *each) for each in _levels_above(hierarchy)]),
        together([_extents(column, hierarchy) for column in references if column is not None]),
        values_of([] if table.ids is None else [table.ids]),
    ]
    columns, below, extents, ids = yield from together(mappers)
    return columns, below, dict(zip(names, extents, strict=True)), ids[0] if ids else None


def _reference_column(tables: Sequence[Table], name: str) -> Column | None:
    """The column of references to samples, in whichever category it is."""
    for table in tables:
        for column in table.columns:
            if column.name == name and array_node(column.values).dtype.names == _REFERENCE:
                return column
    return None


def _extents(column: Column, hierarchy: Hierarchy) -> Mapper[list[Extent | None]]:
    array = stored_at(column.values)
    starts, counts, series = yield from values_of([array.field(name) for name in _REFERENCE])
    # The schema has -1 for start and count where nothing was recorded.
    return [
        Extent(reference_to(value, hierarchy), int(start), int(count)) if start >= 0 and count >= 0 else None
        for start, count, value in zip(starts, counts, series, strict=True)
    ]


def _plain_columns(
    table: Table, dimension: str, hidden: Sequence[str] = ()
) -> Mapper[dict[str, xr.Variable]]:
    """A table's columns of one value a row, read; `hidden` ones left out."""
    parts = [
        part
        for column in table.columns
        if column.name not in hidden and not column.indexes and not _is_region(column)
        for part in column_parts(table, column, MappingOptions())
        if part.dimensions == (table.rows,)
    ]
    values = yield from _part_values(parts)
    return {
        part.name: xr.Variable(dimension, array, part.attributes)
        for part, array in zip(parts, values, strict=True)
    }


def _part_values(parts: Sequence[Part]) -> Mapper[list[NDArray[Any]]]:
    """The values of parts, in one round where they are stored or made of what is."""
    sources = [
        source
        for part in parts
        for source in (part.array.sources if isinstance(part.array, Elementwise) else (part.array,))
        if isinstance(source, StoredArray)
    ]
    read = dict(zip(map(id, sources), (yield from values_of(sources)), strict=True))
    return [_value(part.array, read) for part in parts]


def _value(array: Any, read: Mapping[int, NDArray[Any]]) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        return array
    if id(array) in read:
        return read[id(array)]
    if isinstance(array, Elementwise) and all(id(source) in read for source in array.sources):
        values = [read[id(source)] for source in array.sources]
        return np.asarray(array.function(*array.arguments, *values), array.dtype)
    values_read: NDArray[Any] = array.read()
    return values_read


def _is_region(column: Column) -> bool:
    node = column.values.node
    return is_a(column.values.hierarchy, node, "DynamicTableRegion")


def _levels_above(hierarchy: Hierarchy) -> Iterator[tuple[Table, Column, str]]:
    for name, below, singular in _ABOVE:
        path = f"{ICEPHYS}/{name}"
        if path not in hierarchy:
            return
        table = table_layout(hierarchy, path)
        columns = {column.name: column for column in table.columns}
        if below not in columns:
            return
        yield table, columns[below], singular


def _level(hierarchy: Hierarchy, table: Table, below: Column, name: str) -> Mapper[_Level]:
    wanted = [stored_at(each) for each in (below.values, *below.indexes)]
    if table.ids is not None:
        wanted.append(table.ids)
    mappers: list[Mapper[Any]] = [values_of(wanted), _plain_columns(table, "row")]
    values, columns = yield from together(mappers)
    ids = values[-1] if table.ids is not None else np.arange(table.rows.size)
    ends = values[1] if below.indexes else np.arange(1, len(values[0]) + 1)
    where = f"the column {below.name!r} of the table {table.path!r} in {hierarchy.location}"
    return _Level(table, name, ids, _owners(values[0], ends, where), columns)


def _owners(rows: NDArray[Any], ends: NDArray[Any], where: str) -> NDArray[np.int64]:
    """For each row of the table below, the row that holds it; -1 where none does."""
    rows, counts = rows.astype(np.int64), _counts(ends)
    if np.any(counts < 0) or counts.sum() != len(rows) or np.any(rows < 0):
        raise ChunkError(
            f"{where[0].upper()}{where[1:]} does not divide its {len(rows)} values into rows: its index ends "
            f"at {int(ends[-1]) if len(ends) else 0}, or it holds negative row numbers. The file is damaged; "
            "open its series with group= instead."
        )
    owners = np.full(int(rows.max(initial=-1)) + 1, -1, np.int64)
    holders = np.repeat(np.arange(len(counts)), counts)
    # In reverse, so that the first of several holders stays.
    owners[rows[::-1]] = holders[::-1]
    repeated = len(rows) - len(np.unique(rows))
    if repeated:
        warn_caller(f"In {where}, {repeated} rows occur again: sweeps show the first that each belongs to.")
    return owners


def _counts(ends: NDArray[Any]) -> NDArray[np.int64]:
    """How many values each row of a ragged column has, by where they end."""
    counts: NDArray[np.int64] = np.diff(ends.astype(np.int64), prepend=0).astype(np.int64)
    return counts


def _taken(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """``values[rows]``, missing where a row is -1: empty text, else NaN."""
    missing = (rows < 0) | (rows >= len(values))
    if not missing.any():
        return values[rows]
    if values.dtype.kind == "O":
        found = np.full(len(rows), "", object)
    else:
        found = np.full(len(rows), np.nan, np.result_type(values.dtype, np.float64))
    found[~missing] = values[rows[~missing]]
    return found
