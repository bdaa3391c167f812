"""Spike times of a Dataset's units, row by row, and the intervals in which each unit was observed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import (
    ShownColumn,
    ShownObject,
    find_object,
    listed,
    one_label,
    selected_as_scalar,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.ragged import Bounds, RaggedColumn, bound_pairs, ragged, read_rows
from intake_nwbzarr.accessor.slices import united
from intake_nwbzarr.accessor.times import in_seconds, seconds_variable
from intake_nwbzarr.errors import NodeNotFoundError, SelectionError

SPIKE_TIMES: Final = "spike_times"
OBS_INTERVALS: Final = "obs_intervals"

RAGGED_TIMES: Final = (SPIKE_TIMES, "event_times")
"""The ragged columns of times: those of units, and of kinds of events."""


@dataclass(frozen=True, eq=False)
class Spikes:
    """Spike times of units, which are read when they are asked for."""

    values: xr.Variable  # of all units of the file in seconds, (spike,)
    starts: NDArray[np.int64]  # which of them are whose, (unit,)
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, units: NDArray[Any]) -> Self:
        """Return those of some units, by position."""
        return replace(self, starts=self.starts[units], counts=self.counts[units])

    def trains(self) -> list[NDArray[np.float64]]:
        """Read each unit's spike times, ascending and without NaN, all in one gather."""
        return [ascending(train) for train in read_rows(self.values, self.starts, self.counts)]


@dataclass(frozen=True, eq=False)
class UnitTable:
    """A table of units."""

    dimension: Hashable  # its rows
    name: str  # of the variable that holds the spike times
    spikes: Spikes  # of all rows
    attributes: dict[str, Any]  # of that variable

    @property
    def counts_name(self) -> str:
        """Return the name of counts of these spikes, ``spike_counts`` with the table's name before it."""
        return self.name.removesuffix("times").rstrip("_") + "_counts"


def spike_times(dataset: xr.Dataset, unit: int) -> NDArray[np.float64]:
    """The spike times of a unit; see `intake_nwbzarr.accessor.NWBAccessor.spike_times`."""
    unit = one_label(unit, "unit", "the id of one unit")
    column = ragged(dataset, "spike_times")
    ids, path = _row_ids(dataset, column.levels[0]), column.values.attrs.get("nwb_path")
    if ids is None:
        raise NodeNotFoundError(
            f"The rows of {column.name!r} have no ids in this Dataset, so unit {unit!r} cannot be found.",
            path=path,
            found=unit,
            next_step=f"Use ds.nwb.ragged({column.name!r})[i] with the position of a row.",
        )
    rows = np.flatnonzero(ids == unit)
    if len(rows) > 1:
        raise SelectionError(
            f"{len(rows)} units have the id {unit!r}, in the rows {rows.tolist()}.",
            path=path,
            found=rows.tolist(),
            expected="one row",
            next_step=f"Use ds.nwb.ragged({column.name!r})[i] with the position of a row.",
        )
    if not len(rows):
        known = ids.tolist()
        raise NodeNotFoundError(
            f"No unit {unit!r} in this Dataset; the ids of its {len(ids)} units are {listed(known)}.",
            path=path,
            found=unit,
            expected=known,
        )
    times = np.asarray(column[int(rows[0])])
    return in_seconds(times, dataset.attrs, repr(column.name))


def _row_ids(dataset: xr.Dataset, level: Bounds) -> NDArray[Any] | None:
    """Return the ids of a level's rows, (row,); None where the Dataset has none."""
    if level.count.ndim:
        (rows,) = level.count.dims
        return np.asarray(dataset[rows].values) if rows in dataset.coords else None
    # One row selected as a scalar: its id is a coordinate that no dimension leads to any more.
    table = str(level.count.attrs.get("nwb_path", "")).rpartition("/")[0]
    for coordinate in dataset.coords.values():
        if coordinate.ndim == 0 and coordinate.attrs.get("nwb_path") == f"{table}/id":
            return np.asarray(np.atleast_1d(coordinate.values))
    return None


def has_spikes(dataset: xr.Dataset) -> bool:
    """Return whether there are times of spikes or events that are divided among units or kinds."""
    return bool(_divided_times(dataset))


def _divided_times(dataset: xr.Dataset) -> list[str]:
    """Return which of the columns of times that are divided into rows there are."""
    divided = {path.rpartition("/")[2] for path in bound_pairs(dataset.variables)}
    return [name for name in RAGGED_TIMES if name in divided]


def unit_table(dataset: xr.Dataset) -> UnitTable:
    """Find the units of a Dataset; where each one's spikes are is read."""
    column = ragged(dataset, next(iter(_divided_times(dataset)), SPIKE_TIMES))
    if not isinstance(column, RaggedColumn) or len(column.levels) != 1 or column.values.ndim != 1:
        raise SelectionError(
            f"{column.name!r} has the dimensions {column.values.dims} and {len(column.levels)} levels of "
            "rows; spike times have one of each.",
            path=column.values.attrs.get("nwb_path"),
            found=(column.values.dims, len(column.levels)),
            expected="one dimension and one level of rows",
        )
    rows = column.levels[0].count.dims
    if not rows:
        raise selected_as_scalar(str(column.values.attrs.get("nwb_path", column.name)).rpartition("/")[0])
    starts, counts = column.bounds()
    values = seconds_variable(column.values, dataset.attrs, repr(column.name))
    return UnitTable(rows[0], column.name, Spikes(values, starts, counts), dict(column.values.attrs))


def observed_intervals(dataset: xr.Dataset, units: UnitTable) -> list[NDArray[np.float64]] | None:
    """Read when each unit was observed, (interval, 2) in seconds, ascending and apart; None where unknown.

    A unit without an interval in a table that has them was never observed.
    """
    path = str(units.attributes.get("nwb_path", "")).rpartition("/")[0] + f"/{OBS_INTERVALS}"
    named = (str(name) for name, each in dataset.variables.items() if each.attrs.get("nwb_path") == path)
    name = next(named, None)
    if name is None:
        return None
    intervals = ragged(dataset, name).read()
    if len(intervals) != len(units.spikes):
        raise NodeNotFoundError(
            f"{name!r} has intervals for {len(intervals)} units of {len(units.spikes)}.",
            path=path,
            found=len(intervals),
            expected=len(units.spikes),
            next_step=f"Drop it, with ds.drop_vars({name!r}), to treat units as observed at all times.",
        )
    return [_merged(in_seconds(each, dataset.attrs, repr(name))) for each in intervals]


def _merged(intervals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the union of intervals, (interval, 2), without those that hold NaN."""
    intervals = intervals.reshape(-1, 2)
    return np.column_stack(united(*intervals[~np.isnan(intervals).any(axis=1)].T))


def unit_columns(dataset: xr.Dataset, units: UnitTable) -> xr.Dataset:
    """Return the plain columns of a table of units, as coordinates on its rows."""
    plain = [
        name
        for name, variable in dataset.variables.items()
        if variable.dims == (units.dimension,) and "ragged_values" not in variable.attrs
    ]
    return dataset[plain].set_coords(plain)


def ascending(times: NDArray[Any]) -> NDArray[np.float64]:
    """Return times in their order, without those that are NaN."""
    ordered: NDArray[np.float64] = np.sort(np.asarray(times, np.float64))
    return ordered[~np.isnan(ordered)]


def ends_of_rows(spikes: Spikes) -> NDArray[np.float64]:
    """Read the first and last times of all rows, and all times of rows in which one of these is NaN."""
    rows = np.flatnonzero(spikes.counts > 0)
    starts = spikes.starts[rows]
    # Ascending, for the sake of what is stored.
    positions, inverse = np.unique(np.stack([starts, starts + spikes.counts[rows] - 1]), return_inverse=True)
    (along,) = spikes.values.dims
    ends = spikes.values.isel({along: positions}).values[inverse].reshape(2, -1)
    missing = rows[np.isnan(ends).any(axis=0)]
    others = read_rows(spikes.values, spikes.starts[missing], spikes.counts[missing])
    return np.concatenate([ends.ravel(), *others])


def spiking_table(dataset: xr.Dataset, name: str | None = None) -> ShownObject:
    """Return the table of units with spike times of that name, or the only one."""
    tables = [each for each in shown_objects(dataset) if each.kind == "table"]
    spiking = [each for each in tables if spikes_of(dataset, each) is not None]
    if not spiking and has_spikes(dataset):
        # One unit as a scalar, or bounds that were left out: this says which.
        unit_table(dataset)
    return find_object(dataset, name, spiking, "tables of units with spike times")


def spikes_of(dataset: xr.Dataset, table: ShownObject) -> ShownColumn | None:
    """Find a table's column of spike times, None where it has none that is divided into rows."""
    return ragged_of(dataset, table, SPIKE_TIMES)


def ragged_of(dataset: xr.Dataset, table: ShownObject, name: str) -> ShownColumn | None:
    """Find a table's ragged column of that name, None where it has none."""
    columns = (each for each in shown_columns(dataset, table) if each.label == name)
    return next((each for each in columns if len(each.bounds) == 1), None)


def rows_of(
    dataset: xr.Dataset, column: ShownColumn, rows: Sequence[int] | None = None
) -> list[NDArray[np.float64]]:
    """Read the times of a ragged column in seconds, by row: of all rows, or of those at some positions."""
    read = ragged(dataset, column.variable).read(None if rows is None else np.asarray(rows, np.intp))
    return [in_seconds(values, dataset.attrs, repr(column.variable)) for values in read]
