"""The columns of a table that a Dataset shows: their names in the file, and what bounds their rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

import xarray as xr

from intake_nwbzarr.accessor.contents.shown import ShownObject, column_name
from intake_nwbzarr.accessor.ragged.bounds import SAMPLE_DIMENSION, which_bound

type Pair = tuple[str | None, str]
"""The names of a column's ``_start``, which a compact Dataset does without, and ``_count``."""


@dataclass(frozen=True)
class ShownColumn:
    """One variable of a table that holds values of a column.

    Parameters
    ----------
    column
        The column's name in the file; after the category's name in an aligned table.
    label
        What the table's own view calls it: the same for the column's values; of what is derived from a
        column, its own name (``electrodes_id``, ``pixel_mask_x``, ``timeseries_path``).
    variable
        The variable's name in the Dataset.
    bounds
        The names of the variables that say where rows start and how many values they have, from the table's
        rows inwards: none for a plain column, one pair for a ragged, two for a doubly ragged one. A compact
        Dataset has counts alone.
    """

    column: str
    label: str
    variable: str
    bounds: tuple[Pair, ...] = ()


def shown_columns(dataset: xr.Dataset, table: ShownObject) -> list[ShownColumn]:
    """List a table's columns, reading nothing.

    Parameters
    ----------
    dataset
        The Dataset.
    table
        One of its tables.

    Returns
    -------
    list of ShownColumn
        In the Dataset's order, without the ids of rows, the bounds themselves, and whatever lies neither
        along the rows nor along values that bounds divide.
    """
    bounds = _bounds(dataset, table)
    found = (_column(dataset, table, name, bounds) for name in table.variables if name != table.rows)
    return [column for column in found if column is not None]


def _bounds(dataset: xr.Dataset, table: ShownObject) -> dict[str, tuple[str, Pair]]:
    """What is divided: the path of the index that divides it, and the names of starts and counts."""
    pairs: dict[str, dict[str, str]] = {}
    indexes: dict[str, str] = {}
    for name in table.variables:
        attributes = dataset.variables[name].attrs
        if "ragged_values" in attributes:
            divided = str(attributes["ragged_values"])
            pairs.setdefault(divided, {})[which_bound(name, dataset.variables[name])] = name
            indexes[divided] = str(attributes["nwb_path"])
    return {
        divided: (indexes[divided], (pair.get("start"), pair["count"]))
        for divided, pair in pairs.items()
        if "count" in pair
        if "start" in pair or SAMPLE_DIMENSION in dataset.variables[pair["count"]].attrs
    }


def _column(
    dataset: xr.Dataset, table: ShownObject, name: str, bounds: Mapping[str, tuple[str, Pair]]
) -> ShownColumn | None:
    variable = dataset.variables[name]
    path, label = str(variable.attrs["nwb_path"]), variable.attrs.get("nwb_column")
    if label is None or "ragged_values" in variable.attrs:
        return None
    divisions = tuple(_chain(path, bounds))
    along: tuple[Hashable, ...] = (table.rows,)
    if divisions:
        if dataset.variables[divisions[0][1]].dims != along:
            return None
        # Of several variables of one column, such as the fields of a compound, all lie along its values.
        along = dataset.variables[_first(dataset, table, path)].dims[:1]
    if variable.dims[:1] != along:
        return None
    return ShownColumn(column_name(table.path, path), str(label), name, divisions)


def _first(dataset: xr.Dataset, table: ShownObject, path: str) -> str:
    attributes = {name: dataset.variables[name].attrs for name in table.variables}
    return next(
        name for name, own in attributes.items() if own["nwb_path"] == path and "ragged_values" not in own
    )


def _chain(path: str, bounds: Mapping[str, tuple[str, Pair]]) -> Iterator[Pair]:
    """The bounds of an array, outermost first: an index may be divided too."""
    if path in bounds:
        index, pair = bounds[path]
        yield from _chain(index, {divided: each for divided, each in bounds.items() if divided != path})
        yield pair
