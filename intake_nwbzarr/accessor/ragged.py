"""Ragged columns: the start and count of each row's values, and the values of selected rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, overload

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.roles import roles
from intake_nwbzarr.arguments import describe_value, invalid_argument
from intake_nwbzarr.errors import BoundsError, NodeNotFoundError, SelectionError
from intake_nwbzarr.xarray_internals import lazy_data

SAMPLE_DIMENSION: Final = "sample_dimension"
"""CF conventions 9.3.3: the attribute of a count that names the dimension it divides, contiguously."""

# The attribute of a compact count that tells whether its rows are still those it was made of.
_ROWS: Final = "compact_rows"

# Rows up to which bounds are read at once and kept; of more, only those asked for.
_READ_WHOLE = 2**20

# Bytes of values that are read at once, unless one row has more.
_BATCH = 64 * 2**20

# Values between two rows that are read along, where they are few beside those of the rows.
_BRIDGED = 2**14

type Pair = Mapping[Literal["start", "count"], str]
"""The names of a column's ``_start``, which a compact Dataset does without, and ``_count``."""

type Starts = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class RaggedColumn:
    """The rows of a ragged column, each read on demand; returned by `ds.nwb.ragged`.

    ``len(column)`` is the number of rows. ``column[i]`` is the values of row `i`: a numpy array of shape
    (value, ...), or, in a doubly ragged column, a `RaggedColumn` of that row's own rows. ``column[2:5]`` is a
    `RaggedColumn` of those rows. Rows are those that the Dataset has, in its order.

    Parameters
    ----------
    name
        Of the variable with the values.
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
    rows: range | NDArray[np.int64]

    @property
    def _path(self) -> str | None:
        return self.values.attrs.get("nwb_path")

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
            raise BoundsError(
                f"Row {row} is outside of the {len(self)} rows of {self.name!r}.",
                path=self._path,
                found=row,
                expected=range(-len(self), len(self)),
            ) from None
        except (TypeError, ValueError):
            raise SelectionError(
                f"Rows of {self.name!r} must be selected by an integer or a slice, not by "
                f"{describe_value(row)}.",
                path=self._path,
                found=describe_value(row),
                expected="an integer or a slice",
            ) from None
        (start,), (count,) = self.levels[0].read(range(position, position + 1))
        if len(self.levels) > 1:
            return replace(self, levels=self.levels[1:], rows=range(start, start + count))
        return read_rows(self.values, np.array([start]), np.array([count]))[0]

    def __iter__(self) -> Iterator[NDArray[Any] | RaggedColumn]:
        if len(self.levels) > 1:
            yield from (self[row] for row in range(len(self)))
            return
        for rows in self._batches(np.arange(len(self))):
            yield from self.read(rows)

    def bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the start and count of each row in what the outermost level divides, (row,)."""
        return self._bounds

    @cached_property
    def _bounds(self) -> Starts:
        return self.levels[0].read(self.rows)

    def read(self, rows: NDArray[np.integer[Any]] | None = None) -> list[Any]:
        """Read the values of several rows, in one gather.

        Parameters
        ----------
        rows
            Their positions among this column's rows, (row,); None for all.

        Returns
        -------
        list
            One numpy array for each, as ``column[i]``; in a doubly ragged column, a list of them.
        """
        starts, counts = self._bounds if rows is None else (bound[rows] for bound in self._bounds)
        if len(self.levels) == 1:
            return read_rows(self.values, starts, counts)
        inner = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        made = replace(self, levels=self.levels[1:], rows=inner).read()
        return [made[end - count : end] for end, count in zip(np.cumsum(counts), counts, strict=True)]

    def read_each(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Read the rows of a singly ragged column, each with its position, in the order of storage."""
        for rows in self._batches(np.argsort(self._bounds[0], kind="stable")):
            yield from zip(rows.tolist(), self.read(rows), strict=True)

    def _batches(self, rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        """Divide rows into batches that are read at once."""
        one = max(self.values.dtype.itemsize, 1) * max(1, self.values.size // max(1, self.values.shape[0]))
        batches = np.cumsum(self._bounds[1][rows] * one) // _BATCH
        return (rows[batches == batch] for batch in np.unique(batches))

    def __repr__(self) -> str:
        depth = "" if len(self.levels) == 1 else f", {len(self.levels)} levels deep"
        return f"<RaggedColumn {self.name!r} of {len(self)} rows, {self.values.dtype}{depth}>"


def read_rows(
    values: xr.Variable, starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> list[NDArray[Any]]:
    """Read the values of rows, given where each starts and how many it has, in one gather."""
    held = counts > 0
    order = np.argsort(starts[held], kind="stable")
    begins, ends = starts[held][order], np.maximum.accumulate((starts + counts)[held][order])
    first, last = (int(begins[0]), int(ends[-1])) if len(begins) else (0, 0)
    near = (begins[1:] - ends[:-1]).max(initial=0) <= _BRIDGED and last - first <= 1.5 * counts.sum()
    if near:
        # A slice is read several times faster than as many positions.
        read = values.isel({values.dims[0]: slice(first, last)}).values
        return [read[start : start + count] for start, count in zip(starts - first, counts, strict=True)]
    read = values.isel({values.dims[0]: run_positions(starts, counts)}).values
    return np.split(read, np.cumsum(counts)[:-1])


def ragged(dataset: xr.Dataset, name: str) -> RaggedColumn:
    """The rows of a ragged column; see `intake_nwbzarr.accessor.NWBAccessor.ragged`."""
    if not isinstance(name, str):
        raise invalid_argument("name", name, "the name of a ragged column")
    pairs = bound_pairs(dataset.variables)
    found = _values_name(dataset, name, pairs)
    values = dataset.variables[found]
    levels = _levels(dataset, found, pairs)
    return RaggedColumn(found, values, levels, range(_along_one(levels[0].count).size))


def _along_one(count: xr.Variable) -> xr.Variable:
    """Return a count, which must have at most one dimension of rows."""
    if count.ndim <= 1:
        return count
    path = count.attrs.get("ragged_values")
    raise SelectionError(
        f"The rows of {path!r} have the dimensions {count.dims} instead of one: they were rearranged.",
        path=path,
        found=count.dims,
        expected="one dimension",
        next_step="Use ds.nwb before rearranging rows, or stack them to one dimension.",
    )


def _values_name(dataset: xr.Dataset, name: str, pairs: Mapping[str, Pair]) -> str:
    """Return the variable of a column's values, given its name or the column's name in the file."""
    columns = {
        variable: own
        for variable, own in roles(dataset.variables).items()
        if own.get("nwb_path") in pairs and "ragged_values" not in own
    }
    if name in columns:
        return name
    # What a variable of a column is called in the table's own view, such as ``electrodes_id``, is its alone.
    candidates = [known for known, own in columns.items() if name == own.get("nwb_column")]
    if not candidates:
        stored = {known: str(own["nwb_path"]).rpartition("/")[2] for known, own in columns.items()}
        candidates = [known for known, column in stored.items() if column == name]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise NodeNotFoundError(
            f"Several variables belong to a column {name!r}.",
            found=name,
            expected=candidates,
            next_step=f"Pass one of {', '.join(map(repr, candidates))}.",
        )
    known = sorted(columns)
    is_variable = name in dataset.variables
    raise NodeNotFoundError(
        (
            f"{name!r} is not a ragged column, or its '_start' and '_count' are not in this Dataset"
            if is_variable
            else f"No ragged column {name!r} in this Dataset"
        )
        + f"; the ragged columns are {', '.join(map(repr, known)) or 'none'}.",
        path=dataset.variables[name].attrs.get("nwb_path") if is_variable else None,
        found=name,
        expected=known,
        next_step="When selecting variables, keep the '_start' and '_count' of a column.",
    )


@dataclass(frozen=True, eq=False)
class Bounds:
    """One level of a ragged column: the start and count of each row in the dimension that it divides."""

    name: str  # of the variable with the counts, for errors
    start: xr.Variable | None  # None where rows follow one another without gaps
    count: xr.Variable
    length: int  # of the dimension that is divided
    # Of the same rows, labels first, as far as they are in memory: these tell one row that was taken twice
    # from two that claim the same values.
    columns: tuple[NDArray[Any], ...] = ()

    @property
    def path(self) -> str | None:
        """Return the path of what the rows divide."""
        return self.count.attrs.get("ragged_values")

    def read(self, rows: range | NDArray[np.int64]) -> Starts:
        """Return the starts and counts of some rows; raise `SelectionError` where they cannot be right."""
        selected = np.asarray(rows, np.int64)
        if self.start is None or self.count.size <= _READ_WHOLE:
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
                f"{self.name!r} and its starts point outside of the {self.length} values: they belong to "
                "other values.",
                path=self.path,
                found=int(np.max(starts + counts)),
                expected=self.length,
                next_step="Take the values and their '_start' and '_count' from one Dataset.",
            )
        return starts, counts

    def _check_apart(
        self, starts: NDArray[np.int64], counts: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> None:
        pair = self.clash(starts, counts, rows)
        if pair is not None:
            raise SelectionError(
                f"The rows {pair[0]} and {pair[1]} of {self.name!r} claim the same values, although they are "
                "different rows: concatenating tables of several sessions along their rows keeps the values "
                "of the first.",
                path=self.path,
                found=pair,
                next_step="Compute results for each session, such as with ds.nwb.bin(...), ds.nwb.align(...) "
                "or ds.nwb.to_dataframe(...), and concatenate those.",
            )

    def clash(
        self, starts: NDArray[np.int64], counts: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> tuple[int, int] | None:
        """Return two different rows that claim the same values, which no two do in a file."""
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
                "aligning added them.",
                path=self.path,
                found=int(np.sum(~np.isfinite(read))),
                next_step="Drop these rows first, with isel or dropna.",
            )
        return read.astype(np.int64)


def bound_pairs(variables: Mapping[Any, xr.Variable]) -> dict[str, Pair]:
    """Return the variables that divide others into rows, by the path of what they divide.

    Raises
    ------
    SelectionError
        When two pairs divide objects of one path: of a file and of another that it links to.
    """
    pairs: dict[str, dict[Literal["start", "count"], str]] = {}
    for name, attributes in roles(variables).items():
        divided = attributes.get("ragged_values")
        if divided is None:
            continue
        known = pairs.setdefault(str(divided), {}).setdefault(attributes["ragged_bound"], name)
        if known != name:
            raise SelectionError(
                f"{known!r} and {name!r} both divide {divided!r} into rows, so that its values cannot be "
                "assigned to rows.",
                path=str(divided),
                found=(known, name),
                next_step="Open the tables one by one, with group=.",
            )
    return dict(pairs)


def _levels(dataset: xr.Dataset, name: str, pairs: Mapping[str, Pair]) -> tuple[Bounds, ...]:
    """Return what divides a variable into rows, from the outermost level inwards."""
    levels: list[Bounds] = []
    divided, remaining = name, dict(pairs)
    while (path := str(dataset.variables[divided].attrs.get("nwb_path"))) in remaining:
        level = _level(dataset, divided, remaining.pop(path))
        levels.insert(0, level)
        divided = level.name
    return tuple(levels)


def divided_by(dataset: xr.Dataset, path: str) -> str | None:
    """Return a variable that a pair of bounds divides; all lie on one dimension. None where none is left."""
    named = (name for name, variable in dataset.variables.items() if variable.attrs.get("nwb_path") == path)
    return next((str(name) for name in named), None)


def _level(dataset: xr.Dataset, divided: str, pair: Pair) -> Bounds:
    """Return the bounds that divide a variable; raise an error where they are not whole, or not its own."""
    values = dataset.variables[divided]
    if "count" not in pair:
        raise _left_out(divided, values, "count")
    count = dataset.variables[pair["count"]]
    contiguous = SAMPLE_DIMENSION in count.attrs
    if "start" not in pair and not contiguous:
        raise _left_out(divided, values, "start")
    stored = int(count.attrs.get("ragged_length", -1))
    length = values.shape[0] if values.ndim else 1
    if not values.ndim or length != stored:
        along = repr(values.dims[0]) if values.ndim else "its first dimension"
        raise SelectionError(
            f"Of {divided!r}, {length} of {stored} values are left along {along}, so rows can no longer be "
            "told apart.",
            path=values.attrs.get("nwb_path"),
            found=length,
            expected=stored,
            next_step=f"Select rows instead, and keep all values along {along}; for a part of one row, index "
            "the values that ds.nwb.ragged(...)[i] returns.",
        )
    start = None if contiguous else dataset.variables[pair["start"]]
    if contiguous:
        _check_unselected(dataset, pair["count"], count, length)
    return Bounds(pair["count"], start, count, length, tuple(_columns_in_memory(dataset, count)))


def _columns_in_memory(dataset: xr.Dataset, count: xr.Variable) -> Iterator[NDArray[Any]]:
    """Return what tells the rows of a count apart without reading: labels, and columns from the file."""
    if count.ndim == 1 and count.dims[0] in dataset.xindexes:
        yield dataset.coords[count.dims[0]].values
    for variable in dataset.variables.values():
        data = lazy_data(variable)
        from_file = not variable.attrs.keys().isdisjoint({"nwb_path", "ragged_values"})
        if from_file and variable.dims == count.dims and isinstance(data, np.ndarray):
            yield data


def has_clashing_rows(dataset: xr.Dataset) -> bool:
    """Return whether rows of a table claim the same values, as far as bounds in memory tell."""
    bounds = {
        (str(own["ragged_values"]), own["ragged_bound"]): name
        for name, own in roles(dataset.variables).items()
        if "ragged_values" in own
    }
    for (divided, bound), name in bounds.items():
        start, count = dataset.variables[bounds.get((divided, "start"), name)], dataset.variables[name]
        if bound == "start" or start is count or start.dims != count.dims or count.ndim != 1:
            continue
        pair = lazy_data(start), lazy_data(count)
        if all(isinstance(each, np.ndarray) and each.dtype.kind in "iu" for each in pair):
            level = Bounds(name, start, count, 0, tuple(_columns_in_memory(dataset, count)))
            if level.clash(*pair, np.arange(count.size)) is not None:
                return True
    return False


def _left_out(divided: str, values: xr.Variable, bound: str) -> NodeNotFoundError:
    return NodeNotFoundError(
        f"{divided!r} is divided into rows by a '_start' and a '_count', of which the '_{bound}' is not in "
        "this Dataset.",
        path=values.attrs.get("nwb_path"),
        expected=f"_{bound}",
        next_step="Keep both when selecting variables.",
    )


def _check_unselected(dataset: xr.Dataset, name: str, count: xr.Variable, length: int) -> None:
    """Refuse counts whose rows are no longer all there in their order: CF has them add up from the first."""
    counts = np.atleast_1d(count.values)
    expected = count.attrs.get(_ROWS)
    if int(counts.sum()) != length or (expected is not None and _rows_digest(dataset, count) != expected):
        raise SelectionError(
            f"Rows were selected, sorted or relabelled after ds.nwb.compact(), and {name!r} alone does not "
            "determine where the values of each row begin.",
            path=count.attrs.get("ragged_values"),
            found=name,
            next_step="Select rows first, then call ds.nwb.compact().",
        )


def _rows_digest(dataset: xr.Dataset, count: xr.Variable) -> str:
    """Return a digest of the rows of a count in their order: of their counts and, if there are any, ids."""
    digest = hashlib.sha256(np.atleast_1d(count.values).astype("<i8").tobytes())
    for rows in count.dims:
        if rows in dataset.coords:
            digest.update("\n".join(map(str, dataset[rows].values)).encode())
    return digest.hexdigest()[:16]


def run_positions(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return the concatenated positions of ranges, as a slice if these are contiguous.

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


def compact(dataset: xr.Dataset) -> xr.Dataset:
    """A Dataset with CF's contiguous ragged arrays; see `intake_nwbzarr.accessor.NWBAccessor.compact`."""
    pairs = bound_pairs(dataset.variables)
    named = {path: divided_by(dataset, path) for path in pairs}
    # Bounds that were kept without what they divide have nothing to follow.
    depths = {path: len(_levels(dataset, name, pairs)) for path, name in named.items() if name is not None}
    # Outer levels first: what they select are the rows of the inner ones.
    for path in sorted(depths, key=depths.__getitem__):
        dataset = _with_contiguous(dataset, str(named[path]), pairs[path])
    return dataset


def _with_contiguous(dataset: xr.Dataset, divided: str, pair: Pair) -> xr.Dataset:
    """Return a Dataset in which the values of a variable are those of its rows, one after the other."""
    level = _level(dataset, divided, pair)
    starts, counts = level.read(range(_along_one(level.count).size))
    dimension = dataset.variables[divided].dims[0]
    dataset = dataset.isel({dimension: run_positions(starts, counts)})
    dataset = dataset.drop_vars(pair.get("start", []))
    attributes = {**level.count.attrs, SAMPLE_DIMENSION: dimension, "ragged_length": int(counts.sum())}
    count = xr.Variable(level.count.dims, counts.reshape(level.count.shape), attributes)
    dataset = dataset.assign({level.name: count})
    dataset[level.name].attrs[_ROWS] = _rows_digest(dataset, count)
    return dataset
