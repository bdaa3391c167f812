"""The spikes of a Dataset's units, and when each unit was observed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.lazy_seconds import seconds_variable
from intake_nwbzarr.accessor.contents.seconds import in_seconds
from intake_nwbzarr.accessor.ragged.bounds import find_places, run_positions
from intake_nwbzarr.accessor.ragged.column import RaggedColumn, ragged
from intake_nwbzarr.errors import NodeNotFoundError, SelectionError

SPIKE_TIMES = "spike_times"
SPIKE_COUNTS = "spike_counts"
OBS_INTERVALS = "obs_intervals"


@dataclass(frozen=True, eq=False)
class Spikes:
    """Spike times of units, which are read when they are asked for.

    Parameters
    ----------
    values
        Spike times of all units of the file in seconds, (spike,).
    starts, counts
        Which of them are whose, (unit,).
    """

    values: xr.Variable
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, units: NDArray[Any]) -> Self:
        """Those of some units, by position."""
        return replace(self, starts=self.starts[units], counts=self.counts[units])

    def trains(self) -> list[NDArray[np.float64]]:
        """Each unit's spike times, ascending and without NaN, all read in one gather."""
        values = self.read()
        parts = np.split(values.values, np.cumsum(self.counts)[:-1]) if len(self) else []
        return [ascending(part) for part in parts]

    def read(self) -> xr.Variable:
        """The spike times of these units, one unit after the other."""
        (spike,) = self.values.dims
        return self.values.isel({spike: run_positions(self.starts, self.counts)}).load()


@dataclass(frozen=True, eq=False)
class UnitTable:
    """A table of units.

    Parameters
    ----------
    dimension
        Its rows.
    name
        Of the variable that holds the spike times.
    spikes
        Of all rows.
    attributes
        Of that variable.
    """

    dimension: Hashable
    name: str
    spikes: Spikes
    attributes: dict[str, Any]

    @property
    def counts_name(self) -> str:
        """What counts of these spikes are called: ``spike_counts``, or with the table's name before it."""
        return self.name.removesuffix(SPIKE_TIMES) + SPIKE_COUNTS

    def count_attributes(self, description: str) -> dict[str, Any]:
        """The attributes of counts."""
        named = ("neurodata_type", "nwb_path", "nwb_object")
        kept: dict[str, Any] = {key: self.attributes[key] for key in named if key in self.attributes}
        return {**kept, "units": "1", "description": description}


def has_spikes(dataset: xr.Dataset) -> bool:
    """Whether there are spike times that something divides among units."""
    return any(path.rpartition("/")[2] == SPIKE_TIMES for path in find_places(dataset))


def unit_table(dataset: xr.Dataset) -> UnitTable:
    """The units of a Dataset; where each one's spikes are is read.

    Raises
    ------
    NodeNotFoundError
        When it has no spike times, or several tables of them.
    SelectionError
        When they were selected along their own dimension, or one unit was selected as a scalar.
    """
    column = ragged(dataset, SPIKE_TIMES)
    if not isinstance(column, RaggedColumn) or len(column.levels) != 1 or column.values.ndim != 1:
        raise SelectionError(
            f"{column.name!r} has spike times along {column.values.dims} in {len(column.levels)} levels of "
            "rows; one of each was expected."
        )
    rows = column.levels[0].count.dims
    if not rows:
        raise SelectionError(
            f"One unit was selected as a scalar, which leaves {column.name!r} without a dimension of units; "
            "select it with a list, such as isel(unit=[0]) or sel(unit=[191])."
        )
    starts, counts = column.bounds()
    values = seconds_variable(column.values, dataset.attrs, repr(column.name))
    return UnitTable(rows[0], column.name, Spikes(values, starts, counts), dict(column.values.attrs))


def observed_intervals(dataset: xr.Dataset, units: UnitTable) -> list[NDArray[np.float64]] | None:
    """When each unit was observed, (interval, 2) in seconds, ascending and apart; None where nothing says it.

    A unit without an interval in a table that has them was never observed.

    Raises
    ------
    SelectionError, NodeNotFoundError
        When the intervals cannot be told apart by unit any more.
    """
    path = str(units.attributes.get("nwb_path", "")).rpartition("/")[0] + f"/{OBS_INTERVALS}"
    named = (str(name) for name, each in dataset.variables.items() if each.attrs.get("nwb_path") == path)
    name = next(named, None)
    if name is None:
        return None
    column = ragged(dataset, name)
    intervals = column.read(np.arange(len(column)))
    if len(intervals) != len(units.spikes):
        raise NodeNotFoundError(
            f"{name!r} has intervals for {len(intervals)} units of {len(units.spikes)}; leave it out to "
            "count all time as observed."
        )
    return [_merged(in_seconds(each, dataset.attrs, repr(name))) for each in intervals]


def unit_columns(dataset: xr.Dataset, units: UnitTable) -> xr.Dataset:
    """The plain columns of a table of units, as coordinates on its rows."""
    plain = [
        name
        for name, variable in dataset.variables.items()
        if variable.dims == (units.dimension,) and "ragged_values" not in variable.attrs
    ]
    return dataset[plain].set_coords(plain)


def ascending(times: NDArray[Any]) -> NDArray[np.float64]:
    """Times in their order, without those that are NaN."""
    ordered: NDArray[np.float64] = np.sort(np.asarray(times, np.float64))
    return ordered[~np.isnan(ordered)]


def _merged(intervals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intervals in their order, those that touch made one."""
    intervals = intervals.reshape(-1, 2)
    intervals = intervals[~np.isnan(intervals).any(axis=1)]
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    if not len(intervals):
        return intervals
    reach = np.maximum.accumulate(intervals[:, 1])
    first = np.flatnonzero(np.concatenate([[True], intervals[1:, 0] > reach[:-1]]))
    last = np.concatenate([first[1:] - 1, [len(reach) - 1]])
    return np.column_stack([intervals[first, 0], reach[last]])
