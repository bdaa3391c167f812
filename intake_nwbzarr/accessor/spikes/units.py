"""The spikes of a Dataset's units, and when each unit was observed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.ragged import RaggedColumn, ragged
from intake_nwbzarr.accessor.ragged_bounds import find_places, run_positions
from intake_nwbzarr.accessor.time.window import merged
from intake_nwbzarr.accessor.times import in_seconds, seconds_variable
from intake_nwbzarr.errors import NodeNotFoundError, SelectionError

SPIKE_TIMES = "spike_times"
EVENT_TIMES = "event_times"
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
        return self.name.removesuffix("times").rstrip("_") + "_counts"


def has_spikes(dataset: xr.Dataset) -> bool:
    """Whether there are spike times, or times of events, that something divides among units or kinds."""
    return bool(_divided_times(dataset))


def _divided_times(dataset: xr.Dataset) -> list[str]:
    """Which of the columns of times that are divided into rows there are."""
    divided = {path.rpartition("/")[2] for path in find_places(dataset)}
    return [name for name in (SPIKE_TIMES, EVENT_TIMES) if name in divided]


def unit_table(dataset: xr.Dataset) -> UnitTable:
    """The units of a Dataset; where each one's spikes are is read.

    Raises
    ------
    NodeNotFoundError
        When it has no spike times, or several tables of them.
    SelectionError
        When they were selected along their own dimension, or one unit was selected as a scalar.
    """
    column = ragged(dataset, next(iter(_divided_times(dataset)), SPIKE_TIMES))
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
    return [merged(in_seconds(each, dataset.attrs, repr(name))) for each in intervals]


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


def ends_of_rows(spikes: Spikes) -> NDArray[np.float64]:
    """The first and last times of all rows, and all times of rows in which one of these is NaN."""
    rows = np.flatnonzero(spikes.counts > 0)
    starts = spikes.starts[rows]
    # Ascending, for the sake of what is stored.
    positions, inverse = np.unique(np.stack([starts, starts + spikes.counts[rows] - 1]), return_inverse=True)
    (along,) = spikes.values.dims
    ends = spikes.values.isel({along: positions}).values[inverse].reshape(2, -1)
    missing = rows[np.isnan(ends).any(axis=0)]
    return np.concatenate([ends.ravel(), spikes.take(missing).read().values])
