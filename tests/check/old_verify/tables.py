"""Tables: ids, every column, what describes each, and the categories of aligned tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from hdmf.common import AlignedDynamicTable, DynamicTable

from tests.check.old_verify.columns import Column, columns_of, compare_column
from tests.check.old_verify.findings import Difference, Equal, Finding, Unshown, shortened
from tests.check.old_verify.objects import compare_object
from tests.check.old_verify.sides import Sides
from tests.check.old_verify.values import unlike

_COMPARED = ("colnames", "columns", "id", "category_tables", "categories", "meanings_tables")


def compare_table(table: DynamicTable, path: str, shown: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    """Compare a table: the ids of its rows, every column row by row, and its attributes.

    Parameters
    ----------
    table
        As pynwb read it.
    path
        Where it is in the file.
    shown
        The Dataset that shows it.
    sides
        Both sides.
    """
    yield from _compare_rows(table, path, shown, sides)
    yield from compare_object(table, path, shown, sides, compared=_COMPARED)
    if isinstance(table, AlignedDynamicTable):
        for name, category in table.category_tables.items():
            yield from compare_category(category, f"{path}/{name}", shown, sides, f"{name}_")


def compare_category(
    table: DynamicTable, path: str, shown: xr.Dataset, sides: Sides, prefix: str
) -> Iterator[Finding]:
    """Compare a table whose columns are shown in another's Dataset, behind a prefix."""
    yield from _compare_rows(table, path, shown, sides, prefix)
    described = xr.Dataset(
        attrs={
            str(name).removeprefix(prefix): value
            for name, value in shown.attrs.items()
            if str(name).startswith(prefix)
        }
    )
    yield from compare_object(table, path, described, sides, compared=_COMPARED)


def compare_bands(table: DynamicTable, path: str, series: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    """Compare the bands of a DecompositionSeries, which are labels and coordinates of the series.

    Their names are the labels of its dimension ``band``, so that their ids are shown only where they say more
    than the position.
    """
    kind = sides.kind(path)
    for column in columns_of(table, path, kind, series):
        if column.name == "band_name":
            labels = (each for name, each in series.variables.items() if str(name).endswith("band"))
            yield _compare_values("band_name", column.values.data, next(labels, None), path, sides)
        else:
            yield from compare_column(column, sides)
        yield from _compare_description(column, sides)
    ids = np.asarray(table.id.data[:])
    if np.array_equal(ids, np.arange(ids.size)):
        yield Equal(path, "id", kind)
    else:
        yield Unshown(path, "id", kind, shortened(ids))
    yield from compare_object(table, path, xr.Dataset(), sides, compared=_COMPARED)


def _compare_rows(
    table: DynamicTable, path: str, shown: xr.Dataset, sides: Sides, prefix: str = ""
) -> Iterator[Finding]:
    columns = list(columns_of(table, path, sides.kind(path), shown, prefix))
    name = f"{prefix}id" if prefix else _row_dimension(shown, columns)
    yield _compare_values("id", table.id.data, shown.variables.get(name), path, sides)
    for column in columns:
        yield from compare_column(column, sides)
        yield from _compare_description(column, sides)


def _compare_values(name: str, raw: Any, variable: xr.Variable | None, path: str, sides: Sides) -> Finding:
    kind = sides.kind(path)
    if variable is None:
        return Unshown(path, name, kind, shortened(raw))
    difference = unlike(raw, variable)
    return Equal(path, name, kind) if difference is None else Difference(path, name, kind, *difference)


def _row_dimension(shown: xr.Dataset, columns: list[Column]) -> str:
    """The dimension along the rows: the first of any column's first variable."""
    for column in columns:
        first = (
            f"{column.name}{'_index' * (len(column.indexes) - 1)}_start" if column.indexes else column.name
        )
        for name in (first, f"{column.name}_path", f"{column.name}_sample_start"):
            variable = column.variable(name)
            if variable is not None and variable.dims:
                return str(variable.dims[0])
    return next((str(name) for name in shown.indexes), "")


def _compare_description(column: Column, sides: Sides) -> Iterator[Finding]:
    """What describes a column's values: attributes of the variables that show them."""
    path = sides.path(column.values)
    if path is None:
        return
    names = (column.name, *(f"{column.name}_{part}" for part in _parts(column)))
    variables = [each for each in map(column.variable, names) if each is not None]
    if variables:
        attributes = xr.Dataset(attrs=variables[0].attrs)
        yield from compare_object(column.values, path, attributes, sides, compared=("elements",))


def _parts(column: Column) -> tuple[str, ...]:
    names = getattr(getattr(column.values.data, "dtype", None), "names", None) or ()
    return ("path", *names)
