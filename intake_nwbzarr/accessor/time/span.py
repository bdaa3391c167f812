"""When a Dataset begins and ends in time, from as few timestamps as say so."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import shown_columns, shown_objects
from intake_nwbzarr.accessor.inputs import ROW_TIMES
from intake_nwbzarr.accessor.spikes.units import ends_of_rows, has_spikes, unit_table
from intake_nwbzarr.accessor.times import (
    SessionTime,
    is_irregular,
    seconds_index,
    seconds_variable,
    session_times,
)
from intake_nwbzarr.errors import SelectionError

_COLUMNS = frozenset({*ROW_TIMES, "stop_time"})


def span(dataset: xr.Dataset) -> tuple[float, float]:
    """When a Dataset begins and ends; see `NWBAccessor.start` and `NWBAccessor.stop`."""
    series = [_of_series(dataset, time) for time in session_times(dataset)]
    times = np.concatenate([np.empty(0), *(series or _of_tables(dataset))])
    known = times[np.isfinite(times)]
    if not known.size:
        raise SelectionError(
            f"{dataset.attrs.get('nwb_location', 'This Dataset')}: no series, event, interval or spike here "
            "has a time, so it has no start and no stop."
        )
    return float(known.min()), float(known.max())


def _of_series(dataset: xr.Dataset, time: SessionTime) -> NDArray[np.float64]:
    """The first time of a series, and where its last sample ends, or of an irregular one is."""
    index = seconds_index(dataset, time)
    if not index.size or not index.view.timestamps.ascending:
        return index.view.values()
    ends = index.view.at([0, -1])
    if np.isnan(ends).any():
        return index.view.values()
    regular = None if is_irregular(dataset, time) else index.as_regular
    if regular is not None:
        samples = regular.samples if regular.samples.step > 0 else regular.samples[::-1]
        after = regular.timestamps.at(np.array([samples[-1] + samples.step]))
        ends = np.concatenate([ends, after])
    return ends


def _of_tables(dataset: xr.Dataset) -> Iterator[NDArray[np.float64]]:
    for table in (each for each in shown_objects(dataset) if each.kind == "table"):
        for column in shown_columns(dataset, table):
            variable = dataset.variables[column.variable]
            if not column.bounds and column.label in _COLUMNS and variable.ndim == 1:
                yield seconds_variable(variable, dataset.attrs, repr(column.variable)).values
    if has_spikes(dataset):
        yield ends_of_rows(unit_table(dataset).spikes)
