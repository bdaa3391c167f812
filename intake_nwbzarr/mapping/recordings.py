"""Intracellular recordings: samples of series, from tables of recordings or from sweep numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.arrays.computed import Elementwise
from intake_nwbzarr.errors import ChunkError, NodeNotFoundError, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy, Reference, Target, parse_reference
from intake_nwbzarr.hierarchy.nodes import GroupNode
from intake_nwbzarr.mapping.attributes import as_strings, identity
from intake_nwbzarr.mapping.model import ArrayPart, Mapper, both, run_together, values_of
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

_RECORDINGS: Final = f"{ICEPHYS}/intracellular_recordings"

# From the recordings upwards: each table, its column that refers to rows of the table below, and the name of
# its rows. NWB schema, section 'Intracellular electrophysiology'.
_ABOVE: Final = (
    ("simultaneous_recordings", "recordings", "simultaneous_recording"),
    ("sequential_recordings", "simultaneous_recordings", "sequential_recording"),
    ("repetitions", "sequential_recordings", "repetition"),
    ("experimental_conditions", "repetitions", "experimental_condition"),
)

_REFERENCE: Final = ("idx_start", "count", "timeseries")

_SERIES_GROUPS: Final = ("acquisition", "stimulus/presentation")

_STIMULI: Final = ("CurrentClampStimulusSeries", "VoltageClampStimulusSeries")


@dataclass(frozen=True)
class Extent:
    """Samples of a series, as a table of recordings refers to them."""

    reference: Reference
    start: int = 0
    count: int | None = None  # None: all of them


@dataclass(frozen=True)
class Recordings:
    """The recordings of a session: each field has one entry per recording."""

    labels: NDArray[Any]
    attributes: Mapping[str, Any]  # of the labels
    responses: Sequence[Extent | None]
    stimuli: Sequence[Extent | None]
    columns: Mapping[str, ArrayPart]  # of the tables, in memory
    path: str = ""  # of the table, where there is one


def map_recordings(hierarchy: Hierarchy) -> Mapper[Recordings]:
    """Return the recordings, from the newest form of table that the session has."""
    if _RECORDINGS in hierarchy:
        return (yield from _of_table(hierarchy))
    for name in hierarchy.children(ICEPHYS):
        path = f"{ICEPHYS}/{name}"
        node = hierarchy[path]
        if isinstance(node, GroupNode) and is_a(hierarchy, node, "SweepTable"):  # deprecated since NWB 2.4
            return (yield from _of_sweep_table(hierarchy, path))
    numbered = _of_sweep_numbers(hierarchy)
    if not len(numbered.labels):
        raise NodeNotFoundError(
            f"{hierarchy.location} has no sweeps: neither {_RECORDINGS}, nor a SweepTable, nor patch-clamp "
            "series with a sweep_number in acquisition and stimulus/presentation.",
            location=hierarchy.location,
            expected=_RECORDINGS,
            next_step="Open its series with group=.",
        )
    return numbered


def _of_table(hierarchy: Hierarchy) -> Mapper[Recordings]:
    """Return the recordings of a table, with its columns and those of the tables that group them."""
    table = table_layout(hierarchy, _RECORDINGS)
    tables = [table, *category_layouts(table)]
    found = {name: _reference_column(tables, name) for name in ("response", "stimulus")}
    references = {name: column for name, column in found.items() if column is not None}
    mappers: list[Mapper[Any]] = [
        run_together([_plain_columns(each, references) for each in tables]),
        run_together([_level(hierarchy, *each) for each in _levels_above(hierarchy)]),
        run_together([_extents(column, hierarchy) for column in references.values()]),
        values_of([] if table.ids is None else [table.ids]),
    ]
    columns, levels, read, ids = yield from run_together(mappers)
    size = table.rows.size
    extents: dict[str, list[Extent | None]] = dict(zip(references, read, strict=True))
    parts: dict[str, ArrayPart] = {part.name: part for of_table in columns for part in of_table}
    rows = np.arange(size)
    for name, owners, of_level in levels:
        rows = owners[np.minimum(rows, len(owners) - 1)]
        taken = {*parts, name}
        for part in of_level:
            free = f"{name}_{part.name}" if part is not of_level[0] and part.name in taken else part.name
            parts[free] = replace(part, array=_take_or_missing(np.asarray(part.array), rows))
    return Recordings(
        as_strings(ids[0]) if ids else np.arange(size),
        {} if table.ids is None else identity(table.ids.node),
        extents.get("response", [None] * size),
        extents.get("stimulus", [None] * size),
        parts,
        table.path,
    )


def _reference_column(tables: Sequence[Table], name: str) -> Column | None:
    """Return the column of references to samples, in whichever category it is."""
    for table in tables:
        for column in table.columns:
            if column.name == name and array_node(column.values).dtype.names == _REFERENCE:
                return column
    return None


def _extents(column: Column, hierarchy: Hierarchy) -> Mapper[list[Extent | None]]:
    array = stored_at(column.values)
    starts, counts, series = yield from values_of([array.field(name) for name in _REFERENCE])
    # In the schema, a start and count of -1 mean that nothing was recorded.
    return [
        Extent(_reference(value, hierarchy), int(start), int(count)) if start >= 0 and count >= 0 else None
        for start, count, value in zip(starts, counts, series, strict=True)
    ]


def _plain_columns(table: Table, hidden: Mapping[str, Column]) -> Mapper[list[ArrayPart]]:
    """Read a table's columns of one value per row, except `hidden` ones."""
    parts = [
        replace(part, column=part.name)
        for column in table.columns
        if column.name not in hidden and not column.indexes and not _is_region(column)
        for part in column_parts(table, column, MappingOptions())
        if part.dimensions == (table.rows,)
    ]
    sources = [
        source
        for part in parts
        for source in (part.array.sources if isinstance(part.array, Elementwise) else (part.array,))
        if isinstance(source, StoredArray)
    ]
    read = dict(zip(map(id, sources), (yield from values_of(sources)), strict=True))
    return [replace(part, array=_value(part.array, read)) for part in parts]


def _value(array: Any, read: Mapping[int, NDArray[Any]]) -> NDArray[Any]:
    """Return the values of an array from those already read, or read it."""
    if id(array) in read:
        return read[id(array)]
    if isinstance(array, Elementwise) and all(id(source) in read for source in array.sources):
        values = [read[id(source)] for source in array.sources]
        return np.asarray(array.function(*array.arguments, *values), array.dtype)
    found: NDArray[Any] = array if isinstance(array, np.ndarray) else array.read()
    return found


def _is_region(column: Column) -> bool:
    return is_a(column.values.hierarchy, column.values.node, "DynamicTableRegion")


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


def _level(
    hierarchy: Hierarchy, table: Table, below: Column, name: str
) -> Mapper[tuple[str, NDArray[np.int64], list[ArrayPart]]]:
    """Return the name of a table's rows, the row that holds each row of the table below, and its columns."""
    wanted = [stored_at(each) for each in (below.values, *below.indexes)]
    ids = [] if table.ids is None else [table.ids]
    values, columns = yield from both(values_of([*wanted, *ids]), _plain_columns(table, {}))
    labels = values[-1] if ids else np.arange(table.rows.size)
    own = ArrayPart(name, (), labels, {"nwb_path": f"{table.path}/id"}, column="id")
    ends = values[1] if below.indexes else np.arange(1, len(values[0]) + 1)
    where = f"the column {below.name!r} of the table {table.path!r} in {hierarchy.location}"
    parts = [replace(part, object=table.path) for part in (own, *columns)]
    return name, _owners(values[0], ends, where), parts


def _owners(rows: NDArray[Any], ends: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return the row that holds each row of the table below, -1 for none, followed by -1."""
    rows, counts = rows.astype(np.int64), np.diff(ends.astype(np.int64), prepend=0).astype(np.int64)
    if np.any(counts < 0) or counts.sum() != len(rows) or np.any(rows < 0):
        raise ChunkError(
            f"{where[0].upper()}{where[1:]} does not divide its {len(rows)} values into rows: its index ends "
            f"at {int(ends[-1]) if len(ends) else 0}, or it contains negative row numbers.",
            next_step="The file is damaged; open its series with group= instead.",
        )
    owners = np.full(int(rows.max(initial=-1)) + 2, -1, np.int64)
    # In reverse order, so that of several rows the first is used.
    owners[rows[::-1]] = np.repeat(np.arange(len(counts)), counts)[::-1]
    repeated = len(rows) - len(np.unique(rows))
    if repeated:
        warn_caller(
            f"In {where}, {repeated} rows occur repeatedly; the first row that contains them is used.",
            code="incomplete-sweeps",
        )
    return owners


def _take_or_missing(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return ``values[rows]``, missing where a row is -1: empty text, otherwise NaN."""
    missing = (rows < 0) | (rows >= len(values))
    if not missing.any():
        return values[rows]
    if values.dtype.kind == "O":
        found = np.full(len(rows), "", object)
    else:
        found = np.full(len(rows), np.nan, np.result_type(values.dtype, np.float64))
    found[~missing] = values[rows[~missing]]
    return found


@dataclass(frozen=True)
class _Numbered:
    """A series and the sweep it belongs to."""

    sweep_number: int
    electrode: str
    path: str
    reference: Reference
    is_stimulus: bool


def _of_sweep_table(hierarchy: Hierarchy, path: str) -> Mapper[Recordings]:
    """Return the recordings of a SweepTable, whose rows are a sweep number and series."""
    columns = {column.name: column for column in table_layout(hierarchy, path).columns}
    series = columns.get("series")
    if series is None or "sweep_number" not in columns:
        return _paired([], hierarchy)
    wanted = [stored_at(each) for each in (columns["sweep_number"].values, series.values, *series.indexes)]
    numbers, references, *ends = yield from values_of(wanted)
    counts = np.diff(ends[0].astype(np.int64), prepend=0) if ends else np.ones(len(numbers), np.int64)
    of_series = np.repeat(numbers, np.maximum(counts, 0))
    found = []
    for sweep_number, value in zip(of_series, references, strict=False):
        reference = _reference(value, hierarchy)
        target = target_of(hierarchy, reference)
        if target is not None:
            found.append(_numbered(target, int(sweep_number), reference))
    return _paired(found, hierarchy)


def _of_sweep_numbers(hierarchy: Hierarchy) -> Recordings:
    """Return the recordings of a file without tables, by the sweep numbers of its patch-clamp series."""
    found, without = [], 0
    for target in _patch_clamp_series(hierarchy):
        sweep_number = target.node.attributes.get("sweep_number")
        if isinstance(sweep_number, int | float) and sweep_number >= 0:
            here = target.hierarchy is hierarchy
            reference = Reference("." if here else str(target.hierarchy.location), target.path)
            found.append(_numbered(target, int(sweep_number), reference))
        else:
            without += 1
    if found and without:
        warn_caller(
            f"{without} patch-clamp series in {hierarchy.location} have no sweep_number, and are not among "
            "the sweeps.",
            code="incomplete-sweeps",
        )
    return _paired(found, hierarchy)


def _patch_clamp_series(hierarchy: Hierarchy) -> Iterator[Target]:
    for group in _SERIES_GROUPS:
        for name in hierarchy.children(group) if group in hierarchy else ():
            try:
                target = Target(hierarchy, f"{group}/{name}")
                if is_a(hierarchy, target.node, "PatchClampSeries"):
                    yield target
            except UNREACHABLE as error:
                warn_caller(
                    f"{group}/{name} in {hierarchy.location} is not among the sweeps: {error}",
                    code="incomplete-sweeps",
                )


def _numbered(target: Target, sweep_number: int, reference: Reference) -> _Numbered:
    link = target.hierarchy.links(target.path).get("electrode")
    return _Numbered(
        sweep_number=sweep_number,
        electrode="" if link is None else link.path.rstrip("/").rpartition("/")[2],
        path=target.path,
        reference=reference,
        is_stimulus=any(is_a(target.hierarchy, target.node, kind) for kind in _STIMULI)
        or target.path.startswith("stimulus/"),
    )


def _paired(series: Sequence[_Numbered], hierarchy: Hierarchy) -> Recordings:
    """Return one recording for each sweep and electrode, more where these have several series of a kind."""
    ordered = sorted(series, key=lambda each: (each.sweep_number, each.electrode, each.path))
    pairs: list[tuple[_Numbered | None, _Numbered | None]] = []
    several = 0
    for _, sweep in groupby(ordered, key=lambda each: (each.sweep_number, each.electrode)):
        of_sweep = list(sweep)
        responses = [each for each in of_sweep if not each.is_stimulus]
        stimuli = [each for each in of_sweep if each.is_stimulus]
        several += len(responses) > 1 or len(stimuli) > 1
        pairs.extend(zip_longest(responses, stimuli))
    if several:
        warn_caller(
            f"{several} sweeps in {hierarchy.location} have several responses or stimuli of one electrode, "
            "which are paired in the order of their names.",
            code="incomplete-sweeps",
        )
    known = [each for response, stimulus in pairs if (each := response or stimulus)]
    numbers = np.array([each.sweep_number for each in known], np.int64)
    electrodes = np.array([each.electrode for each in known], object)
    return Recordings(
        np.arange(len(pairs)),
        {"description": "number of the recording, by sweep number and electrode"},
        [None if response is None else Extent(response.reference) for response, _ in pairs],
        [None if stimulus is None else Extent(stimulus.reference) for _, stimulus in pairs],
        {
            name: ArrayPart(name, (), each)
            for name, each in (("sweep_number", numbers), ("electrode", electrodes))
        },
    )


def target_of(hierarchy: Hierarchy, reference: Reference) -> Target | None:
    """Return the series that a reference refers to, or None with a warning."""
    try:
        target = hierarchy.reference(reference)
        _ = target.node
    except UNREACHABLE as error:
        warn_caller(
            f"The series {reference.path!r} in {hierarchy.location} is not among the sweeps: {error}",
            code="incomplete-sweeps",
        )
        return None
    return target


def _reference(value: object, hierarchy: Hierarchy) -> Reference:
    return parse_reference(str(value), where=f"A reference in {hierarchy.location}")
