"""Time supports for pynapple: when units were observed, in intervals that do not overlap."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.kinds import ShownObject
from intake_nwbzarr.accessor.spikes.trains import ragged_of, rows_of

# The smallest time that pynapple tells apart in intervals.
_GAP = 1e-6


def observed(
    dataset: xr.Dataset, table: ShownObject, trains: list[NDArray[np.float64]]
) -> tuple[Any, list[Any]]:
    """The time support of all units together, and of each.

    Parameters
    ----------
    dataset
        The Dataset.
    table
        The units.
    trains
        Their spike times.

    Returns
    -------
    tuple
        An IntervalSet, and one for each unit: its ``obs_intervals``; those of all for a unit that has none;
        for units without such a column, from the first to the last of all spikes.
    """
    interval_set = import_module("pynapple").IntervalSet
    column = ragged_of(dataset, table, "obs_intervals")
    if column is None:
        edges = np.array([edge for train in trains for edge in train[[0, -1] if len(train) else []]])
        first, last = (edges.min(), edges.max()) if len(edges) else (0.0, 0.0)
        # A single spike has no duration, which a time support must have.
        bounds = [(first, max(last, first + _GAP))] if len(edges) else np.empty((0, 2))
        whole = interval_set(bounds)
        return whole, [whole] * len(trains)
    of_units = [np.reshape(each, (-1, 2)) for each in rows_of(dataset, column)]
    everything = joined(np.concatenate(of_units) if of_units else np.empty((0, 2)))
    return everything, [joined(each) if len(each) else everything for each in of_units]


def of_an_instant(seconds: NDArray[np.float64]) -> Any:
    """The time support of samples that all have one time, of which there may be one; None for others.

    pynapple makes it of the first and the last time, and here would drop it for having no duration.
    """
    if not len(seconds) or seconds[0] < seconds[-1]:
        return None
    first = float(seconds[0])
    return import_module("pynapple").IntervalSet(first, max(first + _GAP, np.nextafter(first, np.inf)))


def joined(bounds: NDArray[np.float64]) -> Any:
    """An IntervalSet of ``(interval, 2)`` in seconds: overlapping ones joined, empty ones left out."""
    interval_set = import_module("pynapple").IntervalSet
    bounds = bounds[np.isfinite(bounds).all(axis=1) & (bounds[:, 1] > bounds[:, 0])]
    bounds = bounds[np.argsort(bounds[:, 0], kind="stable")]
    # Where an interval starts after all before it have ended, a new one begins.
    begins = np.flatnonzero(np.r_[True, bounds[1:, 0] > np.maximum.accumulate(bounds[:, 1])[:-1]])
    if not len(bounds):
        return interval_set(bounds)
    return interval_set(bounds[begins, 0], np.maximum.reduceat(bounds[:, 1], begins))
