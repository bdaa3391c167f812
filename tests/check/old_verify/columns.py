"""Columns: plain, ragged to any depth, compound, references, regions and enumerations, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from hdmf.common import DynamicTable, DynamicTableRegion, VectorData, VectorIndex
from hdmf.common.table import EnumData
from hdmf.container import AbstractContainer
from pynwb import NWBFile
from pynwb.base import TimeSeriesReferenceVectorData
from pynwb.event import TimestampVectorData

from tests.check.old_verify.fields import shown_variable
from tests.check.old_verify.findings import Difference, Equal, Finding, Unshown, shortened
from tests.check.old_verify.sides import Sides
from tests.check.old_verify.values import Conversion, OneField, same, unlike


@dataclass(frozen=True)
class Column:
    """A column of a table, and what shows it.

    Parameters
    ----------
    name
        As in ``colnames``.
    indexes
        Its VectorIndexes, from the one with an entry for each row inwards.
    values
        The VectorData at the end of them.
    path, kind
        The table's.
    shown
        The Dataset of the table.
    prefix
        What names of variables begin with: the category's, in an aligned table.
    elements_of
        The enumeration that these are the elements of.
    """

    name: str
    indexes: tuple[VectorIndex, ...]
    values: VectorData
    path: str
    kind: str
    shown: xr.Dataset
    prefix: str = ""
    elements_of: str = ""

    def variable(self, name: str) -> xr.Variable | None:
        """The variable of a name that begins with the column's."""
        return shown_variable(self.shown, f"{self.prefix}{name}")


def columns_of(
    table: DynamicTable, path: str, kind: str, shown: xr.Dataset, prefix: str = ""
) -> Iterator[Column]:
    """The columns of a table, and the datasets that its columns point at and ``colnames`` leaves out."""
    inside: set[int] = set()
    enumerations: dict[int, str] = {}
    for name in table.colnames:
        indexes: list[VectorIndex] = []
        values = table[name]
        while isinstance(values, VectorIndex):
            indexes.append(values)
            values = values.target
        inside |= {id(values), *map(id, indexes)}
        if isinstance(values, EnumData):
            enumerations[id(values.elements)] = name
        yield Column(name, tuple(indexes), values, path, kind, shown, prefix)
    for other in table.columns:
        if id(other) not in inside and not isinstance(other, VectorIndex):
            enumeration = enumerations.get(id(other), "")
            yield Column(other.name, (), other, path, kind, shown, prefix, enumeration)


def compare_column(column: Column, sides: Sides) -> Iterator[Finding]:
    """Compare a column: the bounds of its rows, then all values.

    Yields
    ------
    Finding
        One for each array that shows it.
    """
    for depth, index in enumerate(column.indexes, start=1):
        name = column.name + "_index" * (len(column.indexes) - depth)
        yield _compare_bounds(column, name, index, sides)
        yield from _compare_index_description(column, name, index)
    for suffix, raw, conversion in _expected(column, sides):
        name = f"{column.name}{suffix}"
        variable = column.variable(name)
        if variable is None:
            yield _as_attribute(column, name, raw)
        else:
            yield _finding(column, name, unlike(raw, variable, conversion))


def _as_attribute(column: Column, name: str, raw: Any) -> Finding:
    """The elements of an enumeration may be an attribute of what shows it; nothing else may."""
    enumeration = column.variable(column.elements_of) if column.elements_of else None
    if enumeration is not None and any(same(raw, value) for value in enumeration.attrs.values()):
        return Equal(column.path, name, column.kind)
    return Unshown(column.path, name, column.kind, shortened(raw))


def _finding(column: Column, name: str, difference: tuple[str, str] | None) -> Finding:
    if difference is None:
        return Equal(column.path, name, column.kind)
    return Difference(column.path, name, column.kind, *difference)


def _compare_bounds(column: Column, name: str, index: VectorIndex, sides: Sides) -> Finding:
    """Where each row's values begin and how many they are; the former says nothing of an empty row."""
    ends = np.asarray(index.data[:], np.int64)
    starts = np.concatenate([[0], ends[:-1]]) if ends.size else ends
    counts = ends - starts
    start, count = column.variable(f"{name}_start"), column.variable(f"{name}_count")
    label = f"{name}_start, {name}_count"
    if start is None or count is None:
        return Unshown(column.path, label, column.kind, shortened(ends))
    difference = unlike(counts, count)
    if difference is None:
        begins = np.asarray(start.values)
        filled = counts > 0 if begins.shape == counts.shape else slice(None)
        difference = unlike(starts[filled], xr.Variable(start.dims, begins[filled]))
    for bound in (start, count):
        # What the bounds are of: it is checked before rows are cut out.
        says = {name: bound.attrs.get(name) for name in ("ragged_values", "ragged_length")}
        expected = {"ragged_values": sides.path(index.target), "ragged_length": len(index.target.data)}
        if difference is None and says != expected:
            difference = shortened(expected), shortened(says)
    return _finding(column, label, difference)


def _compare_index_description(column: Column, name: str, index: VectorIndex) -> Iterator[Finding]:
    """What an index says of itself, unless it is what hdmf says of every index."""
    described = index.description
    start = column.variable(f"{name}_start")
    if start is None or described in {"", None, f"Index for VectorData {index.target.name!r}"}:
        return
    label = f"{index.name}.description"
    if described in start.attrs.values():
        yield Equal(column.path, label, column.kind)
    else:
        yield Unshown(column.path, label, column.kind, shortened(described))


type Expected = tuple[str, Any, Conversion | None]


def _expected(column: Column, sides: Sides) -> Iterator[Expected]:
    """What shows a column's values: what each name adds to the column's, the values, what is made of them."""
    values, data = column.values, column.values.data
    if isinstance(values, TimeSeriesReferenceVectorData):
        yield from _sample_references(data, sides)
    elif isinstance(values, DynamicTableRegion):
        yield "", data, None
        if values.table is not None:
            yield "_id", data, _looked_up(values.table.id.data)
    elif isinstance(values, EnumData):
        yield "", data, _looked_up(values.elements.data)
    elif isinstance(values, TimestampVectorData):
        yield "", data, _from_start_of(sides.nwbfile)
    elif _holds_objects(data):
        yield "", np.asarray([_path(sides, each) for each in _every(data)], object), None
    elif names := getattr(getattr(data, "dtype", None), "names", None):
        for name in names:
            yield f"_{name}", OneField(data, name), None
    else:
        yield "", data, None


def _looked_up(table: Any) -> Conversion:
    """Positions as what is there."""
    values = np.asarray(table[:])
    return lambda block, _: (values[np.asarray(block, np.int64)], 0.0)


def _from_start_of(nwbfile: NWBFile) -> Conversion:
    """Times that count from the session's start, from the zero that all other times count from."""
    offset = (nwbfile.session_start_time - nwbfile.timestamps_reference_time).total_seconds()
    return lambda block, _: (np.asarray(block, np.float64) + offset, 0.0)


def _sample_references(data: Any, sides: Sides) -> Iterator[Expected]:
    """References to samples of series; start and count of -1 say that nothing was recorded."""
    references = [tuple(each) for each in _every(data)]
    starts, counts = (np.asarray([each[at] for each in references], np.int32) for at in (0, 1))
    paths = ["" if start < 0 or count < 0 else _path(sides, series) for start, count, series in references]
    yield "_sample_start", starts, None
    yield "_sample_count", counts, None
    yield "_path", np.asarray(paths, object), None


def _every(data: Any) -> list[Any]:
    return [data[position] for position in range(len(data))]


def _holds_objects(data: Any) -> bool:
    return len(data) > 0 and np.ndim(data) <= 1 and isinstance(data[0], AbstractContainer)


def _path(sides: Sides, container: AbstractContainer) -> str:
    return sides.path(container) or container.name
