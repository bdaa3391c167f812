"""The spike times of a Dataset's units, all of them or some, read together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import (
    ShownColumn,
    ShownObject,
    find_object,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.ragged import bounds_of_rows, each_row
from intake_nwbzarr.accessor.spikes.units import has_spikes, unit_table
from intake_nwbzarr.accessor.times import in_seconds

SPIKE_TIMES = "spike_times"


def spiking_table(dataset: xr.Dataset, name: str | None = None) -> ShownObject:
    """Find the table of units that have spike times.

    Parameters
    ----------
    dataset
        Flat, or of the units alone.
    name
        Which, where there are several.

    Raises
    ------
    NodeNotFoundError
        When there is none.
    SelectionError
        When one unit was selected as a scalar.
    OptionError
        When there are several and `name` does not say which.
    """
    tables = [each for each in shown_objects(dataset) if each.kind == "table"]
    spiking = [each for each in tables if spikes_of(dataset, each) is not None]
    if not spiking and has_spikes(dataset):
        # One unit as a scalar, or bounds that were left out: this says which.
        unit_table(dataset)
    return find_object(dataset, name, spiking, "tables of units with spike times")


def spikes_of(dataset: xr.Dataset, table: ShownObject) -> ShownColumn | None:
    """A table's column of spike times, None where it has none that is divided into rows."""
    return ragged_of(dataset, table, SPIKE_TIMES)


def ragged_of(dataset: xr.Dataset, table: ShownObject, name: str) -> ShownColumn | None:
    """A table's ragged column of that name, None where it has none."""
    columns = (each for each in shown_columns(dataset, table) if each.label == name)
    return next((each for each in columns if len(each.bounds) == 1), None)


def rows_of(
    dataset: xr.Dataset, column: ShownColumn, rows: Sequence[int] | None = None
) -> list[NDArray[np.float64]]:
    """The times of a ragged column in seconds, row by row.

    Those of other rows are read only where they lie between.

    Parameters
    ----------
    dataset
        The Dataset.
    column
        The column.
    rows
        Positions of the rows that are wanted; None for all.

    Raises
    ------
    SelectionError
        When the values were selected along their own dimension, or are no times.
    """
    starts, counts = bounds_of_rows(dataset, column.bounds[0], column.variable)
    wanted = np.arange(len(starts)) if rows is None else np.asarray(rows, np.intp)
    starts, counts = starts[wanted], counts[wanted]
    found: list[NDArray[np.float64]] = [np.empty(0)] * len(wanted)
    for row, values in each_row(dataset.variables[column.variable], starts, counts):
        found[row] = in_seconds(values, dataset.attrs, repr(column.variable))
    return found
