"""Ragged columns: the values of chosen rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import one_label
from intake_nwbzarr.accessor.ragged_bounds import (
    ROWS,
    SAMPLE_DIMENSION,
    Bounds,
    Places,
    divided_by,
    find_places,
    level_of,
    levels_of,
    rows_digest,
    run_positions,
)
from intake_nwbzarr.accessor.times import in_seconds
from intake_nwbzarr.arguments import describe_value
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
                f"by {describe_value(row)}."
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


type Pair = Mapping[Literal["start", "count"], str]

# Values read at once, unless one row has more: 32 MiB of spike times.
MOST_AT_ONCE = 2**22

# Values between two rows that are rather read along than left for another request.
_BRIDGED = 2**14


def bounds_of_rows(
    dataset: xr.Dataset, bounds: tuple[str | None, str], values: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read where each row's values start, and how many there are.

    Parameters
    ----------
    dataset
        Holds the variables.
    bounds
        The names of ``<column>_start``, None in a compact Dataset, and of ``<column>_count``.
    values
        The name of what they bound.

    Raises
    ------
    SelectionError
        When the values were selected along their own dimension: no row finds its own any more.
    """
    start, count = bounds
    pair: Pair = {"count": count} if start is None else {"start": start, "count": count}
    level = level_of(dataset, values, pair)
    return level.read(range(level.count.size))


def rows_of_column(column: RaggedColumn) -> list[Any]:
    """Every row of a ragged column: an array each, or a list of them where it is doubly ragged.

    Parameters
    ----------
    column
        As `ragged` makes it.
    """
    return _rows_of_level(column, 0, np.asarray(column.rows, np.int64))


def _rows_of_level(column: RaggedColumn, depth: int, rows: NDArray[np.int64]) -> list[Any]:
    if not rows.size:
        return []
    level, first = column.levels[depth], int(rows.min())
    starts, counts = (bound[rows - first] for bound in level.read(range(first, int(rows.max()) + 1)))
    if depth + 1 == len(column.levels):
        found: list[Any] = [None] * rows.size
        for row, values in each_row(column.values, starts, counts):
            found[row] = values
        return found
    before = np.cumsum(counts) - counts
    inner = np.arange(counts.sum()) + np.repeat(starts - before, counts)
    made = _rows_of_level(column, depth + 1, inner)
    return [made[begin : begin + count] for begin, count in zip(before, counts, strict=True)]


def each_row(
    values: xr.Variable, starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read rows of a ragged column, those that lie near each other together.

    Parameters
    ----------
    values
        Of all rows, along the first dimension.
    starts, counts
        Of the rows that are wanted, (row,).

    Yields
    ------
    tuple of int and ndarray
        A row's position, and its values; in the order in which they are stored.
    """
    piece: list[int] = []
    first = last = 0
    for row in np.argsort(starts, kind="stable").tolist():
        start, stop = int(starts[row]), int(starts[row] + counts[row])
        if piece and (start > last + _BRIDGED or max(stop, last) - first > MOST_AT_ONCE):
            yield from _read(values, piece, first, last, starts, counts)
            piece = []
        first, last = (min(first, start), max(last, stop)) if piece else (start, stop)
        piece.append(row)
    if piece:
        yield from _read(values, piece, first, last, starts, counts)


def _read(
    values: xr.Variable,
    rows: list[int],
    first: int,
    last: int,
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> Iterator[tuple[int, NDArray[Any]]]:
    read = values[first:last].values
    for row in rows:
        start = int(starts[row]) - first
        yield row, read[start : start + int(counts[row])]


def compact(dataset: xr.Dataset) -> xr.Dataset:
    """A Dataset with CF's contiguous ragged arrays; see `intake_nwbzarr.accessor.NWBAccessor.compact`."""
    places = find_places(dataset)
    # Outer levels first: what they select are the rows of the inner ones.
    for path in sorted(places, key=lambda path: _depth(dataset, path, places)):
        dataset = _with_contiguous(dataset, path, places)
    return dataset


def _depth(dataset: xr.Dataset, path: str, places: Places) -> int:
    divided = divided_by(dataset, path)
    return len(levels_of(dataset, divided, places)) if divided is not None else 0


def _with_contiguous(dataset: xr.Dataset, path: str, places: Places) -> xr.Dataset:
    divided = divided_by(dataset, path)
    if divided is None:  # its bounds were kept without it, and have nothing to follow
        return dataset
    level = level_of(dataset, divided, places[path])
    if level.count.ndim > 1:
        raise SelectionError(
            f"{level.name!r} lies along {level.count.dims}, where one dimension of rows was expected: they "
            "were rearranged. Make the Dataset compact before, or stack them to one dimension."
        )
    starts, counts = level.read(range(level.count.size))
    dimension = dataset.variables[divided].dims[0]
    dataset = dataset.isel({dimension: run_positions(starts, counts)})
    dataset = dataset.drop_vars(places[path].get("start", []))
    attributes = {**level.count.attrs, SAMPLE_DIMENSION: dimension, "ragged_length": int(counts.sum())}
    count = xr.Variable(level.count.dims, counts.reshape(level.count.shape), attributes)
    dataset = dataset.assign({level.name: count})
    dataset[level.name].attrs[ROWS] = rows_digest(dataset, count)
    return dataset
