"""The values of many rows of a ragged column, read in few pieces, none of them large."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.ragged.bounds import level_of
from intake_nwbzarr.accessor.ragged.column import RaggedColumn

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
