"""Ragged columns: one row's values, found by what the variables say of their places in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.labels import one_label
from intake_nwbzarr.accessor.contents.seconds import in_seconds
from intake_nwbzarr.accessor.ragged.bounds import Bounds, Places, find_places, levels_of, run_positions
from intake_nwbzarr.arguments import shown
from intake_nwbzarr.errors import BoundsError, NodeNotFoundError, OptionError, SelectionError

BATCH = 64 * 2**20
"""Bytes of values that iterating reads at once."""


@dataclass(frozen=True, eq=False)
class RaggedColumn:
    """The rows of a ragged column, each read when it is asked for; made by `ds.nwb.ragged`.

    ``len(column)`` is the number of rows. ``column[i]`` is the values of row `i`: a numpy array of shape
    (value, ...), or, in a doubly ragged column, a `RaggedColumn` of that row's own rows. ``column[2:5]`` is a
    `RaggedColumn` of those rows. Rows are those that the Dataset has, in its order.

    Parameters
    ----------
    name
        Of the variable that holds the values.
    values
        The values of all rows of the file, the ragged dimension first.
    levels
        What divides them into rows, from the outermost inwards.
    rows
        The rows of the outermost level that this column has.
    """

    name: str
    values: xr.Variable
    levels: tuple[Bounds, ...]
    rows: range

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, row: int | np.integer[Any]) -> NDArray[Any] | RaggedColumn: ...
    @overload
    def __getitem__(self, row: slice) -> RaggedColumn: ...
    def __getitem__(self, row: int | np.integer[Any] | slice) -> NDArray[Any] | RaggedColumn:
        try:
            if isinstance(row, slice):
                return replace(self, rows=self.rows[row])
            position = self.rows[row]
        except IndexError:
            raise BoundsError(f"Row {row} is outside of the {len(self)} rows of {self.name!r}.") from None
        except (TypeError, ValueError):
            raise SelectionError(
                f"A row of {self.name!r} is chosen by its position, an integer, and several by a slice, not "
                f"by {shown(row)}."
            ) from None
        (start,), (count,) = self.levels[0].read(range(position, position + 1))
        if len(self.levels) > 1:
            return replace(self, levels=self.levels[1:], rows=range(start, start + count))
        return self._values(slice(start, start + count))

    def __iter__(self) -> Iterator[NDArray[Any] | RaggedColumn]:
        if len(self.levels) > 1:
            yield from (self[row] for row in range(len(self)))
            return
        _, counts = self.bounds()
        one = max(self.values.dtype.itemsize, 1) * max(1, self.values.size // max(1, self.values.shape[0]))
        batches = np.cumsum(counts * one) // BATCH
        for batch in np.unique(batches):
            yield from self.read(np.flatnonzero(batches == batch))

    def bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each row starts in what the outermost level divides, and how many of it there are, (row,)."""
        return self.levels[0].read(self.rows)

    def read(self, rows: NDArray[np.integer[Any]]) -> list[NDArray[Any]]:
        """The values of several rows of a singly ragged column, in one gather.

        Parameters
        ----------
        rows
            Their positions among this column's rows, (row,).

        Returns
        -------
        list of numpy.ndarray
            One for each, as ``column[i]``.
        """
        starts, counts = (bound[rows] for bound in self.bounds())
        together = self._values(run_positions(starts, counts))
        return np.split(together, np.cumsum(counts)[:-1]) if len(counts) else []

    def _values(self, positions: slice | NDArray[np.int64]) -> NDArray[Any]:
        read: NDArray[Any] = self.values.isel({self.values.dims[0]: positions}).values
        return read

    def __repr__(self) -> str:
        depth = "" if len(self.levels) == 1 else f", {len(self.levels)} levels deep"
        return f"<RaggedColumn {self.name!r} of {len(self)} rows, {self.values.dtype}{depth}>"


def ragged(dataset: xr.Dataset, name: str) -> RaggedColumn:
    """The rows of a ragged column; see `intake_nwbzarr.accessor.NWBAccessor.ragged`."""
    if not isinstance(name, str):
        raise OptionError(f"name={name!r} means nothing here; it is the name of a ragged column.")
    places = find_places(dataset)
    found = _values_name(dataset, name, places)
    values = dataset.variables[found]
    levels = levels_of(dataset, found, places)
    outermost = levels[0].count
    if outermost.ndim > 1:
        raise SelectionError(
            f"The rows of {found!r} lie along {outermost.dims}, where one dimension was expected: they were "
            "rearranged. Take ragged() of the Dataset before, or stack them to one dimension."
        )
    return RaggedColumn(found, values, levels, range(outermost.size))


def spike_times(dataset: xr.Dataset, unit: int) -> NDArray[np.float64]:
    """The spike times of a unit; see `intake_nwbzarr.accessor.NWBAccessor.spike_times`."""
    unit = one_label(unit, "unit", "the id of one unit")
    column = ragged(dataset, "spike_times")
    ids = row_ids(dataset, column.levels[0])
    if ids is None:
        raise NodeNotFoundError(
            f"The rows of {column.name!r} have no ids here, so unit {unit!r} cannot be found; use "
            f"ds.nwb.ragged({column.name!r})[i] with a row's position."
        )
    rows = np.flatnonzero(ids == unit)
    if len(rows) > 1:
        raise SelectionError(
            f"{len(rows)} units have the id {unit!r}, in the rows {rows.tolist()}: use "
            f"ds.nwb.ragged({column.name!r})[i]."
        )
    if not len(rows):
        known = ", ".join(str(known) for known in ids[:10]) + (", ..." if len(ids) > 10 else "")
        raise NodeNotFoundError(f"No unit {unit!r} in this Dataset; its {len(ids)} units are {known or '-'}.")
    times = np.asarray(column[int(rows[0])])
    return in_seconds(times, dataset.attrs, repr(column.name))


def row_ids(dataset: xr.Dataset, level: Bounds) -> NDArray[Any] | None:
    """The ids of a level's rows, (row,); None where the Dataset has none."""
    if level.count.ndim:
        (rows,) = level.count.dims
        return np.asarray(dataset[rows].values) if rows in dataset.coords else None
    # One row selected as a scalar: its id is a coordinate that no dimension leads to any more.
    table = str(level.count.attrs.get("nwb_path", "")).rpartition("/")[0]
    for coordinate in dataset.coords.values():
        if coordinate.ndim == 0 and coordinate.attrs.get("nwb_path") == f"{table}/id":
            return np.asarray(np.atleast_1d(coordinate.values))
    return None


def _values_name(dataset: xr.Dataset, name: str, places: Places) -> str:
    """The variable that holds a column's values: by its own name, or by the column's in the file."""
    columns = {
        str(variable_name): str(variable.attrs["nwb_path"]).rpartition("/")[2]
        for variable_name, variable in dataset.variables.items()
        if variable.attrs.get("nwb_path") in places and "ragged_values" not in variable.attrs
    }
    if name in columns:
        return name
    # In a flat view a table's name comes first.
    candidates = [known for known, column in columns.items() if name == column]
    candidates = candidates or [known for known, column in columns.items() if name.startswith(f"{column}_")]
    candidates = [known for known in candidates if known.endswith(f"_{name}")] or candidates
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise NodeNotFoundError(f"{name!r} is the column of several variables; name one of {candidates}.")
    if name in dataset.variables:
        raise NodeNotFoundError(
            f"{name!r} is not a ragged column of this Dataset, or the variables that divide it into rows, "
            f"its '_start' and '_count', were left out; keep them. Ragged here: {sorted(columns) or 'none'}."
        )
    raise NodeNotFoundError(
        f"No ragged column {name!r} in this Dataset; there is {', '.join(sorted(columns)) or 'none'}. A "
        "column's '_start' and '_count' belong to it; keep them when you select variables."
    )
