"""Bounds of ragged columns: where the values of each row start, and how many there are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.errors import NodeNotFoundError, SelectionError
from intake_nwbzarr.xarray_internals import lazy_data

SAMPLE_DIMENSION: Final = "sample_dimension"
"""CF conventions 9.3.3: the attribute of a count that names the dimension it divides, contiguously."""

ROWS: Final = "compact_rows"
"""The attribute of a compact count that tells whether its rows are still those it was made of."""

READ_WHOLE = 2**20
"""Rows up to which bounds are read at once and kept; of more, only those asked for."""

type Places = Mapping[str, Mapping[Literal["start", "count"], str]]
"""By the path of what is divided: the variables that divide it."""

type Starts = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Bounds:
    """One level of a ragged column: where its rows start in what it divides, and how long they are.

    Parameters
    ----------
    name
        Of the variable with the counts, for errors.
    start
        None where rows follow one another without gaps.
    count
        One for each row.
    length
        Of the dimension that is divided.
    columns
        Of the same rows, labels first, as far as they are in memory: by which one row that was taken twice is
        known from two that claim the same values.
    """

    name: str
    start: xr.Variable | None
    count: xr.Variable
    length: int
    columns: tuple[NDArray[Any], ...] = ()

    def read(self, rows: range) -> Starts:
        """The starts and counts of some rows, int64.

        Raises
        ------
        SelectionError
            When they are missing, lie outside of what they divide, or overlap.
        """
        selected = np.asarray(rows, np.int64)
        if self.start is None or self.count.size <= READ_WHOLE:
            starts, counts = self._whole
            return starts[selected], counts[selected]
        starts, counts = self._checked(self.start[selected], self.count[selected])
        self._check_apart(starts, counts, selected)
        return starts, counts

    @cached_property
    def _whole(self) -> Starts:
        if self.start is not None:
            starts, counts = self._checked(self.start, self.count)
            self._check_apart(starts, counts, np.arange(len(starts)))
            return starts, counts
        counts = self._whole_numbers(self.count)
        return np.cumsum(counts) - counts, counts

    def _checked(self, start: xr.Variable, count: xr.Variable) -> Starts:
        starts, counts = self._whole_numbers(start), self._whole_numbers(count)
        if np.any(starts < 0) or np.any(counts < 0) or np.any(starts + counts > self.length):
            raise SelectionError(
                f"{self.name!r} and its starts point outside of the {self.length} values they divide: they "
                "do not belong to these values. Take both from one Dataset."
            )
        return starts, counts

    def _check_apart(
        self, starts: NDArray[np.int64], counts: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> None:
        pair = self.clash(starts, counts, rows)
        if pair is not None:
            raise SelectionError(
                f"The rows {pair[0]} and {pair[1]} of {self.name!r} claim the same values, although they are "
                "different rows: tables of several sessions that are concatenated along their rows keep the "
                "values of the first. Compute what is wanted of each session, such as ds.nwb.bin(...), "
                "ds.nwb.align(...) or ds.nwb.to_dataframe(...), and concatenate the results."
            )

    def clash(
        self, starts: NDArray[np.int64], counts: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> tuple[int, int] | None:
        """Find two different rows that claim the same values: in a file, no two do."""
        held = np.flatnonzero(counts > 0)
        order = held[np.lexsort((counts[held], starts[held]))]
        first, end = starts[order], (starts + counts)[order]
        overlaps = first[1:] < np.maximum.accumulate(end)[:-1]
        if not overlaps.any():
            return None
        repeated = (first[1:] == first[:-1]) & (end[1:] == end[:-1])
        for column in self.columns:
            one, other = column[rows[order[:-1]]], column[rows[order[1:]]]
            repeated &= np.asarray((one == other) | ((one != one) & (other != other)))  # NaN is itself here
        wrong = np.flatnonzero(overlaps & ~repeated)
        if not len(wrong):
            return None
        claimed = int(np.argmax(end[: wrong[0] + 1]))
        low, high = sorted(rows[order[[claimed, wrong[0] + 1]]].tolist())
        return low, high

    def _whole_numbers(self, bounds: xr.Variable) -> NDArray[np.int64]:
        read = np.atleast_1d(bounds.values)
        # Aligning and reindexing make rows that are not in the file, of floats that are NaN.
        if read.dtype.kind == "f" and np.any(~np.isfinite(read)):
            raise SelectionError(
                f"{int(np.sum(~np.isfinite(read)))} of {len(read)} rows have no {self.name!r}: reindexing or "
                "aligning made them up. Drop them first, with isel or dropna."
            )
        return read.astype(np.int64)


def find_places(dataset: xr.Dataset) -> Places:
    """The variables that divide others into rows, which say so by the path of what they divide.

    Raises
    ------
    SelectionError
        When two pairs divide objects of one path: of a file and of another that it links to.
    """
    places: dict[str, dict[Literal["start", "count"], str]] = {}
    for name, variable in dataset.variables.items():
        divided = variable.attrs.get("ragged_values")
        if divided is None:
            continue
        bound = which_bound(name, variable)
        known = places.setdefault(str(divided), {}).setdefault(bound, str(name))
        if known != name:
            raise SelectionError(
                f"{known!r} and {name!r} both divide {divided!r}, so it cannot be told which values are "
                "whose; open the tables one by one, with group=."
            )
    return places


def which_bound(name: Any, variable: xr.Variable) -> Literal["start", "count"]:
    """Whether a variable says where rows start, or how long they are, by what its table alone calls it."""
    # A name that a column has already is given underscores more.
    called = str(variable.attrs.get("nwb_column", name)).rstrip("_")
    return "start" if called.endswith("_start") else "count"


def levels_of(dataset: xr.Dataset, name: str, places: Places) -> tuple[Bounds, ...]:
    """What divides a variable into rows, from the outermost level inwards.

    Raises
    ------
    NodeNotFoundError
        When a start or a count was left out.
    SelectionError
        When what is divided was selected from, or rows of a compact Dataset were.
    """
    levels: list[Bounds] = []
    divided, remaining = name, dict(places)
    while (path := str(dataset.variables[divided].attrs.get("nwb_path"))) in remaining:
        level = level_of(dataset, divided, remaining.pop(path))
        levels.insert(0, level)
        divided = level.name
    return tuple(levels)


def divided_by(dataset: xr.Dataset, path: str) -> str | None:
    """A variable that a pair of bounds divides; all lie on one dimension. None where none is left."""
    named = (name for name, variable in dataset.variables.items() if variable.attrs.get("nwb_path") == path)
    return next((str(name) for name in named), None)


def level_of(dataset: xr.Dataset, divided: str, pair: Mapping[Literal["start", "count"], str]) -> Bounds:
    """The bounds that divide a variable, checked to belong to it.

    Raises
    ------
    NodeNotFoundError, SelectionError
        As `levels_of`.
    """
    values = dataset.variables[divided]
    if "count" not in pair:
        raise _left_out(divided, "count")
    count = dataset.variables[pair["count"]]
    contiguous = SAMPLE_DIMENSION in count.attrs
    if "start" not in pair and not contiguous:
        raise _left_out(divided, "start")
    stored = int(count.attrs.get("ragged_length", -1))
    length = values.shape[0] if values.ndim else 1
    if not values.ndim or length != stored:
        along = repr(values.dims[0]) if values.ndim else "its first dimension"
        raise SelectionError(
            f"Of {divided!r}, {length} of {stored} values are left along {along}, so rows can no longer be "
            f"told apart. Choose rows instead, and leave {along} whole; for a part of one row, take its "
            "values with ds.nwb.ragged(...)[i], and index those."
        )
    start = None if contiguous else dataset.variables[pair["start"]]
    if contiguous:
        _check_unselected(dataset, pair["count"], count, length)
    return Bounds(pair["count"], start, count, length, tuple(_columns_in_memory(dataset, count)))


def _columns_in_memory(dataset: xr.Dataset, count: xr.Variable) -> Iterator[NDArray[Any]]:
    """What tells the rows of a count apart without reading: labels, and columns from the file."""
    if count.ndim == 1 and count.dims[0] in dataset.xindexes:
        yield dataset.coords[count.dims[0]].values
    for variable in dataset.variables.values():
        data = lazy_data(variable)
        from_file = not variable.attrs.keys().isdisjoint({"nwb_path", "ragged_values"})
        if from_file and variable.dims == count.dims and isinstance(data, np.ndarray):
            yield data


def has_clashing_rows(dataset: xr.Dataset) -> bool:
    """Whether rows of a table claim the same values, as far as bounds in memory tell."""
    starts = {
        str(variable.attrs.get("ragged_values")): variable
        for name, variable in dataset.variables.items()
        if "ragged_values" in variable.attrs and which_bound(name, variable) == "start"
    }
    for name, count in dataset.variables.items():
        start = starts.get(str(count.attrs.get("ragged_values")))
        if start is None or start is count or start.dims != count.dims or count.ndim != 1:
            continue
        pair = lazy_data(start), lazy_data(count)
        if all(isinstance(each, np.ndarray) and each.dtype.kind in "iu" for each in pair):
            level = Bounds(str(name), start, count, 0, tuple(_columns_in_memory(dataset, count)))
            if level.clash(*pair, np.arange(count.size)) is not None:
                return True
    return False


def _left_out(divided: str, bound: str) -> NodeNotFoundError:
    return NodeNotFoundError(
        f"{divided!r} is divided into rows by a '_start' and a '_count', of which the '_{bound}' is not in "
        "this Dataset; keep both when you select variables."
    )


def _check_unselected(dataset: xr.Dataset, name: str, count: xr.Variable, length: int) -> None:
    """Refuse counts whose rows are no longer all there in their order: CF has them add up from the first."""
    counts = np.atleast_1d(count.values)
    expected = count.attrs.get(ROWS)
    if int(counts.sum()) != length or (expected is not None and rows_digest(dataset, count) != expected):
        raise SelectionError(
            f"Rows were selected, sorted or relabelled after the Dataset was made compact, and {name!r} "
            "alone cannot tell where each row's values begin. Select rows first, then call ds.nwb.compact()."
        )


def rows_digest(dataset: xr.Dataset, count: xr.Variable) -> str:
    """What identifies the rows of a count and their order: their counts and, if they have any, their ids."""
    digest = hashlib.sha256(np.atleast_1d(count.values).astype("<i8").tobytes())
    for rows in count.dims:
        if rows in dataset.coords:
            digest.update("\n".join(map(str, dataset[rows].values)).encode())
    return digest.hexdigest()[:16]


def run_positions(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """The positions of runs, one after the other: a slice where each begins at the end of the one before.

    Examples
    --------
    >>> run_positions(np.array([2, 5]), np.array([3, 1]))
    slice(2, 6, None)
    >>> run_positions(np.array([5, 2]), np.array([1, 3]))
    array([5, 2, 3, 4])
    """
    starts, counts = starts[counts > 0], counts[counts > 0]
    if not len(starts):
        return slice(0, 0)
    if np.array_equal(starts[1:], (starts + counts)[:-1]):
        return slice(int(starts[0]), int(starts[-1] + counts[-1]))
    before = np.cumsum(counts) - counts
    positions: NDArray[np.int64] = np.arange(counts.sum()) + np.repeat(starts - before, counts)
    return positions
