"""The columns of a table that a Dataset shows: their names in the file, and what bounds their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import xarray as xr

from intake_nwbzarr.accessor.contents.kinds import ShownObject, column_name
from intake_nwbzarr.accessor.ragged.bounds import SAMPLE_DIMENSION
from intake_nwbzarr.neurodata.names import safe_name

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
        The same for the column's own values; for what is derived from a column (``electrodes_id``,
        ``pixel_mask_x``, ``timeseries_path``) the variable's name without the table's.
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
    paths: dict[str, list[str]] = {}
    for name in table.variables:
        if "ragged_values" not in dataset.variables[name].attrs and name != table.rows:
            paths.setdefault(str(dataset.variables[name].attrs["nwb_path"]), []).append(name)
    found = {
        each.variable: each
        for path, names in paths.items()
        for each in _of_path(dataset, table, path, names, tuple(_chain(path, bounds)))
    }
    return [found[name] for name in table.variables if name in found]


def _bounds(dataset: xr.Dataset, table: ShownObject) -> dict[str, tuple[str, Pair]]:
    """What is divided: the path of the index that divides it, and the names of starts and counts."""
    pairs: dict[str, dict[str, str]] = {}
    indexes: dict[str, str] = {}
    for name in table.variables:
        attributes = dataset.variables[name].attrs
        if "ragged_values" in attributes:
            divided = str(attributes["ragged_values"])
            # Names made from a column's get underscores where a column has them already.
            bound = name.rstrip("_").rpartition("_")[2]
            pairs.setdefault(divided, {})[bound] = name
            indexes[divided] = str(attributes["nwb_path"])
    return {
        divided: (indexes[divided], (pair.get("start"), pair["count"]))
        for divided, pair in pairs.items()
        if "count" in pair
        if "start" in pair or SAMPLE_DIMENSION in dataset.variables[pair["count"]].attrs
    }


def _chain(path: str, bounds: Mapping[str, tuple[str, Pair]]) -> Iterator[Pair]:
    """The bounds of an array, outermost first: an index may be divided too."""
    if path in bounds:
        index, pair = bounds[path]
        yield from _chain(index, {divided: each for divided, each in bounds.items() if divided != path})
        yield pair


def _of_path(
    dataset: xr.Dataset, table: ShownObject, path: str, names: list[str], bounds: tuple[Pair, ...]
) -> Iterator[ShownColumn]:
    column = column_name(table.path, path)
    along = table.rows
    if bounds:
        along = str(dataset.variables[names[0]].dims[0])
        if dataset.variables[bounds[0][1]].dims != (table.rows,):
            return
    for name in names:
        if tuple(dataset.variables[name].dims[:1]) != (along,):
            continue
        label = name.removeprefix(table.prefix)
        form = next((form for form in (column, safe_name(column)) if label.startswith(form)), None)
        if form is not None:
            yield ShownColumn(column, column + label.removeprefix(form), name, bounds)
        elif len(names) == 1:
            # Joined to a series that needs the name for itself: `electrode_time`.
            yield ShownColumn(column, column, name, bounds)
