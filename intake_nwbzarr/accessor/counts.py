"""What can be counted in a Dataset: the spikes of units, events of tables, intervals' starts, timestamps."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import ShownObject, find_object, shown_columns, shown_objects
from intake_nwbzarr.accessor.inputs import ROW_TIMES, event_time_of, part_of
from intake_nwbzarr.accessor.spikes.trains import ragged_of
from intake_nwbzarr.accessor.spikes.units import (
    EVENT_TIMES,
    SPIKE_TIMES,
    Spikes,
    has_spikes,
    observed_intervals,
    unit_columns,
    unit_table,
)
from intake_nwbzarr.accessor.times import SessionTime, seconds_variable
from intake_nwbzarr.errors import NodeNotFoundError, OptionError

EVENT_COUNTS: Final = "event_counts"

_WHAT: Final = "spikes, events, intervals and timestamps that can be counted"


@dataclass(frozen=True, eq=False)
class Countable:
    """Times to be counted, and what is known of them.

    Parameters
    ----------
    name
        Of their counts: ``spike_counts`` or ``event_counts``, with what a flat Dataset puts before names.
    spikes
        The times, in one row or several.
    rows
        The dimension of the rows; None for one row without a dimension.
    columns
        What is known along the rows, as coordinates, with the Dataset's attributes.
    attributes
        Of the counts.
    observed
        What reads when each row was observed, (interval, 2) of each; it gives None where nothing says it.
    ascending
        Whether the last time of each row is its latest; if not, all times are one object's.
    """

    name: str
    spikes: Spikes
    rows: Hashable | None
    columns: xr.Dataset
    attributes: dict[str, Any]
    observed: Callable[[], list[NDArray[np.float64]] | None] = lambda: None
    ascending: bool = True

    def counted(self, counts: xr.Variable) -> xr.Variable:
        """Counts, rows first, without the dimension of a single row."""
        return counts if self.rows is not None else counts.isel({counts.dims[0]: 0})


def countable(dataset: xr.Dataset, name: str | None, by: str | None) -> Countable:
    """Find what to count.

    Parameters
    ----------
    dataset
        Flat, or of one object.
    name
        The table or series, or a column of times of a table. None for the units with spike times, or, where
        there are none, for the only thing here that can be counted.
    by
        Of events and timestamps: the column of one value each that they are counted apart by.

    Raises
    ------
    NodeNotFoundError
        When there is no such thing.
    OptionError
        When several would do and `name` does not say which, or it or `by` names what cannot be counted.
    SelectionError
        When spike times were selected along their own dimension, or one unit was selected as a scalar.
    """
    shown = shown_objects(dataset)
    ragged = [each for each in shown if _ragged_times(dataset, each) is not None]
    if name is None and len(ragged) < 2 and has_spikes(dataset):
        return _of_units(dataset, by)
    if name is None and ragged:
        units = find_object(dataset, None, ragged, "tables of units with spike times")
        return _of_units(part_of(dataset, units), by)
    times = {each.path: own for each in shown if (own := _times(dataset, each)) is not None}
    column = _named_column(dataset, shown, name)
    if column is not None:
        return _of_events(dataset, *column, by)
    # A regular series is found where it is named, to say why it cannot be counted.
    candidates = [each for each in shown if each.path in times or each in ragged]
    regular = [each for each in shown if each.kind == "series" and each not in candidates]
    if name is not None or not candidates:
        candidates += regular
    if not candidates:
        raise NodeNotFoundError(
            f"There are no {_WHAT} in this view of {dataset.attrs.get('nwb_location', 'this Dataset')}. The "
            "'_start' and '_count' of spike times belong to them, as does the time of a series: keep them "
            "when selecting variables."
        )
    found = find_object(dataset, name, candidates, _WHAT)
    if found in ragged:
        return _of_units(part_of(dataset, found), by)
    if found.path not in times:
        raise OptionError(
            f"{found.name!r} has no timestamps of its own, so its samples are no events to be counted: bin= "
            "and bin() count spikes, events and timestamps. To align a series' values, call align() without "
            "bin=; for means in bins, use resample_like(..., 'mean')."
        )
    return _of_events(dataset, found, times[found.path], by)


def _ragged_times(dataset: xr.Dataset, shown: ShownObject) -> str | None:
    """A table's ragged column of times: the spikes of units, or each kind of events of a table of kinds."""
    if shown.kind != "table":
        return None
    return next((each for each in (SPIKE_TIMES, EVENT_TIMES) if ragged_of(dataset, shown, each)), None)


def _of_units(dataset: xr.Dataset, by: str | None) -> Countable:
    if by is not None:
        raise OptionError(
            f"by={by!r} is of events; units are counted one by one. Sum their counts instead, such as "
            f"counts.groupby({by!r}).sum()."
        )
    units = unit_table(dataset)
    return Countable(
        units.counts_name,
        units.spikes,
        units.dimension,
        unit_columns(dataset, units),
        {"units": "1", "counted": str(units.attributes.get("nwb_path", units.name))},
        partial(observed_intervals, dataset, units),
    )


def _times(dataset: xr.Dataset, shown: ShownObject) -> str | SessionTime | None:
    """When the events of an object were: a column of a table, the timestamps of an irregular series."""
    if shown.kind == "table":
        columns = shown_columns(dataset, shown)
        plain = {each.label: each.variable for each in columns if not each.bounds}
        found = (plain[wanted] for wanted in ROW_TIMES if wanted in plain)
        return next((name for name in found if dataset.variables[name].ndim == 1), None)
    return event_time_of(dataset, shown)


def _named_column(
    dataset: xr.Dataset, shown: list[ShownObject], name: str | None
) -> tuple[ShownObject, str] | None:
    """The column of times of a table, by the name of its variable."""
    if not isinstance(name, str):
        return None
    for table in (each for each in shown if each.kind == "table" and name in each.variables):
        for column in shown_columns(dataset, table):
            variable = dataset.variables[column.variable]
            is_time = variable.attrs.get("units") == "s" or variable.dtype.kind == "M"
            if column.variable == name and not column.bounds and is_time and variable.dims == (table.rows,):
                return table, column.variable
    return None


def _of_events(
    dataset: xr.Dataset, shown: ShownObject, times: str | SessionTime, by: str | None
) -> Countable:
    variable = dataset.variables[times if isinstance(times, str) else times.name]
    values = seconds_variable(variable, dataset.attrs, repr(times))
    (along,) = values.dims
    size = values.sizes[along]
    alone = dataset.attrs.get("nwb_path") == shown.path
    prefix = "" if alone else f"{shown.name}_"
    described = {"units": "1", "counted": variable.attrs.get("nwb_path", shown.path)}
    rest = dataset.drop_vars(list(dataset.variables))  # what says where it is from
    is_series = not isinstance(times, str)
    if by is None:
        spikes = Spikes(values, np.zeros(1, np.int64), np.array([size]))
        return Countable(prefix + EVENT_COUNTS, spikes, None, rest, described, ascending=is_series)
    label, kinds = _kinds(dataset, shown, by, along)
    codes, found = pd.factorize(kinds, sort=True)
    order = np.argsort(codes, kind="stable")
    # Events without a kind come first, and are of none.
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    starts = np.count_nonzero(codes < 0) + np.cumsum(counts) - counts
    spikes = Spikes(values.isel({along: order}), starts, counts)
    columns = rest.assign_coords({label: (label, np.asarray(found))})
    return Countable(prefix + EVENT_COUNTS, spikes, label, columns, described, ascending=False)


def _kinds(dataset: xr.Dataset, shown: ShownObject, by: str, along: Hashable) -> tuple[str, NDArray[Any]]:
    """What kind each event is of, and the name of that: of a table's column, or of a series' own values."""
    if shown.kind == "table":
        columns = shown_columns(dataset, shown)
        labels = {each.label: each.variable for each in columns if not each.bounds}
    else:
        labels = {name: name for name in shown.variables if name not in dataset.xindexes}
    known = {label: name for label, name in labels.items() if dataset.variables[name].dims == (along,)}
    name = known.get(by, by if by in known.values() else None)
    if name is None:
        raise OptionError(
            f"by={by!r} is no column of one value for each event of {shown.name!r}; there is "
            f"{', '.join(map(repr, known)) or 'none'}."
        )
    return by, dataset.variables[name].values
