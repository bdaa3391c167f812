"""Epochs: tables of intervals or pairs of times that a caller gives, and the one that each sample lies in."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from intake_nwbzarr.accessor.contents import (
    INTERVAL,
    listed,
    part_named,
    row_time,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.events import as_dataset, columns_named, named, stored_name
from intake_nwbzarr.accessor.interpolation import missing_value, with_missing
from intake_nwbzarr.accessor.sessions import check_same_session
from intake_nwbzarr.accessor.slices import united
from intake_nwbzarr.accessor.spikes import RAGGED_TIMES
from intake_nwbzarr.accessor.times import (
    as_given,
    in_seconds,
    no_times,
    one_time,
    seconds_variable,
    session_times,
)
from intake_nwbzarr.arguments import describe_value
from intake_nwbzarr.arrays import Computed, lazy_variable, read_source
from intake_nwbzarr.arrays.selection import Axes
from intake_nwbzarr.errors import NodeNotFoundError, OptionError, SelectionError, did_you_mean, warn_caller
from intake_nwbzarr.mapping.model import free_name

type Epochs = xr.Dataset | xr.DataTree | pd.DataFrame | str | ArrayLike
"""A table with ``start_time`` and ``stop_time``, in any form or by its name; or pairs of times."""

EPOCH: Final = "epoch"
"""What the rows of epochs without a table are called."""


@dataclass(frozen=True, eq=False)
class EpochTable:
    """Epochs that hold any time, ascending by their starts."""

    starts: NDArray[np.float64]  # in seconds, (epoch,)
    stops: NDArray[np.float64]
    columns: Mapping[str, NDArray[Any]]  # of one value a row, by name in the file
    labels: NDArray[Any]  # ids, or positions
    rows: Hashable  # the dimension of their table

    def name(self, position: int) -> str:
        """Return what an epoch is called in errors."""
        return f"{self.labels[position]} ({self.starts[position]} to {self.stops[position]} s)"


def epoch_table(epochs: Epochs, dataset: xr.Dataset) -> EpochTable:
    """Read epochs, of the session of `dataset`, by whose attributes datetimes are counted.

    Warns of epochs that have no start, no stop, or stop before they start: they hold no time.
    """
    if isinstance(epochs, str):
        epochs, _ = named(dataset, epochs, "tables of intervals")
    check_same_session(dataset, epochs, "epochs")
    given = as_dataset(epochs, EPOCH)
    if isinstance(given, xr.Dataset):
        made = _of_table(given, {**dataset.attrs, **given.attrs})
    else:
        made = _of_pairs(given, dataset.attrs)
    valid = made.stops > made.starts
    if not valid.all():
        warn_caller(
            f"{np.count_nonzero(~valid)} of {len(valid)} epochs have no start, no stop, or do not stop after "
            "they start; they are ignored."
        )
    kept = np.flatnonzero(valid)[np.argsort(made.starts[valid], kind="stable")]
    columns = {name: values[kept] for name, values in made.columns.items()}
    return EpochTable(made.starts[kept], made.stops[kept], columns, made.labels[kept], made.rows)


def _of_table(table: xr.Dataset, attributes: Mapping[Any, Any]) -> EpochTable:
    start, stop = (_column(table, wanted) for wanted in INTERVAL)
    if table.variables[start].ndim != 1 or table.variables[start].dims != table.variables[stop].dims:
        dims = table.variables[start].dims, table.variables[stop].dims
        raise OptionError(
            f"The start and stop times of epochs must be columns of one table: {start!r} and {stop!r} have "
            f"the dimensions {dims[0]} and {dims[1]}.",
            found=dims,
            expected="one dimension",
        )
    (rows,) = table.variables[start].dims
    starts, stops = (
        in_seconds(table.variables[name].values, attributes, repr(name)) for name in (start, stop)
    )
    columns = {
        column: variable.values
        for name, variable in table.variables.items()
        if variable.dims == (rows,) and "ragged_values" not in variable.attrs
        for column in dict.fromkeys((str(name), stored_name(str(name), variable)))
    }
    labels = table[rows].values if rows in table.coords else np.arange(len(starts))
    return EpochTable(starts, stops, columns, labels, rows)


def _column(table: xr.Dataset, wanted: str) -> str:
    """Return the variable that is a column of that name in the file, or, where nothing says it, here."""
    found = list(columns_named(table, wanted))
    if len(found) == 1:
        return found[0]
    if not found:
        raise NodeNotFoundError(
            f"The epochs have no column {wanted!r}.",
            path=table.attrs.get("nwb_path"),
            found=list(map(str, table.variables)),
            expected=wanted,
            next_step="Pass a table with start_time and stop_time, such as trials, or an array of pairs of "
            "times.",
        )
    raise OptionError(
        f"The Dataset of epochs has several tables of intervals, with {listed(found)}.",
        found=found,
        expected="one table of intervals",
        next_step='Pass one of them, such as ds.nwb.intervals("trials"), or open it with group=.',
    )


def _of_pairs(given: Any, attributes: Mapping[Any, Any]) -> EpochTable:
    try:
        pairs = np.asarray(given)
    except ValueError:
        pairs = np.empty(0)
    if pairs.shape == (2,) and pairs.dtype.kind != "U":
        pairs = pairs.reshape(1, 2)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise OptionError(
            "Epochs must be a table with start_time and stop_time, or pairs of times of shape (epoch, 2), "
            f"not {describe_value(given)} of shape {pairs.shape}.",
            found=pairs.shape,
            expected="a table with start_time and stop_time, or times of shape (epoch, 2)",
            next_step="For one window, pass start and stop.",
        )
    try:
        starts, stops = in_seconds(pairs, attributes, "the array of epochs").T
    except SelectionError as error:
        raise OptionError(*error.args, found=error.found, expected=error.expected) from error
    return EpochTable(starts, stops, {}, np.arange(len(starts)), EPOCH)


@dataclass(frozen=True, eq=False)
class Windows:
    """Times from one of `starts` on and before its stop, in seconds: half-open, ascending, and apart."""

    starts: NDArray[np.float64]  # (window,)
    stops: NDArray[np.float64]

    @classmethod
    def union(cls, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> Self:
        """Unite the times that are in any of several intervals, which are in any order and may overlap."""
        known = ~(np.isnan(starts) | np.isnan(stops))
        return cls(*united(starts[known], stops[known]))

    def holds(self, times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which times lie within; NaN does not."""
        return self.place(times) >= 0

    def place(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the window that each time lies in, by position; -1 where there is none."""
        place = np.searchsorted(self.starts, times, side="right") - 1
        if not len(self.starts):
            return place
        return np.where((place >= 0) & (times < self.stops[place]), place, -1)

    def overlaps(self, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which intervals reach into one; one that does not end after it starts is an instant."""
        ends = np.fmax(starts, stops)
        # The first window that is not over when an interval starts is the one it reaches first.
        first = np.searchsorted(self.stops, starts, side="right")
        begins = np.append(self.starts, np.inf)[first]
        return np.asarray(np.where(ends > starts, begins < ends, self.holds(starts)))


def window_of(start: object, stop: object, attributes: Mapping[Any, Any]) -> Windows:
    """Return the window between two times that a caller gives, the first before the second."""
    ends = (("start", start), ("stop", stop))
    first, last = (one_time(value, keyword, attributes, finite=False) for keyword, value in ends)
    if not first < last:
        raise OptionError(
            f"start={as_given(start)} is not before stop={as_given(stop)}.",
            found=(as_given(start), as_given(stop)),
            expected="a start before the stop",
        )
    return Windows(np.array([first]), np.array([last]))


def label(
    dataset: xr.Dataset, epochs: Epochs, column: str | None = None, *, name: str | None = None
) -> xr.Dataset:
    """Label everything that has a time with the epoch it lies in; see `NWBAccessor.label`."""
    table = epoch_table(epochs, dataset)
    _check_apart(table)
    values, word = _label_values(table, column)
    dataset = part_named(dataset, name)
    found = dict(_times(dataset))
    if isinstance(epochs, str):
        found.pop(table.rows, None)
    if not found:
        raise no_times(dataset, "it cannot be labelled")
    attributes = {
        "description": f"{word!r} of the epoch in which each one lies; missing outside of all epochs"
    }
    taken = set(map(str, (*dataset.variables, *dataset.dims)))
    coordinates = {}
    for dim, times in found.items():
        source = seconds_variable(times, dataset.attrs, f"the times along {dim!r}")
        array = EpochLabels(source, Windows(table.starts, table.stops), values)
        own = word if len(found) == 1 else f"{str(dim).removesuffix('_time')}_{word}"
        own = free_name(own, taken)
        taken.add(own)
        coordinates[own] = lazy_variable((dim,), array, attributes, cache=True)
    return dataset.assign_coords(coordinates)


def _check_apart(table: EpochTable) -> None:
    """Raise if epochs overlap, because a sample in several of them has no single label."""
    reach = np.maximum.accumulate(table.stops)
    overlapping = np.flatnonzero(table.starts[1:] < reach[:-1])
    if overlapping.size:
        second = int(overlapping[0]) + 1
        first = int(np.argmax(table.stops[:second]))
        raise SelectionError(
            f"{overlapping.size} epochs start before another one stops, so that samples would have several "
            f"labels; the first two are {table.name(first)} and {table.name(second)}.",
            found=(table.name(first), table.name(second)),
            expected="epochs that do not overlap",
            next_step="Select epochs that do not overlap, such as those of one kind. (restrict() accepts "
            "overlapping epochs.)",
        )


def _label_values(table: EpochTable, column: str | None) -> tuple[NDArray[Any], str]:
    if column is None:
        return table.labels, str(table.rows)
    if not isinstance(column, str) or column not in table.columns:
        known = list(table.columns)
        raise NodeNotFoundError(
            f"The epochs have no column {column!r:.100} with one value per epoch; their columns are "
            f"{listed(known, 20)}.",
            found=column,
            expected=known,
            next_step=did_you_mean(str(column), known),
        )
    return table.columns[column], column


def _times(dataset: xr.Dataset) -> Iterator[tuple[Hashable, xr.Variable]]:
    """Return the times along each dimension: of samples, events, intervals (their starts) and spikes."""
    for time in session_times(dataset):
        yield time.dim, dataset.variables[time.name]
    for table in (each for each in shown_objects(dataset) if each.kind == "table"):
        own = row_time(dataset, table)
        if own is not None:
            yield dataset.variables[own].dims[0], dataset.variables[own]
        for column in shown_columns(dataset, table):
            values = dataset.variables[column.variable]
            if column.bounds and column.label in RAGGED_TIMES and values.ndim == 1:
                yield values.dims[0], values


@dataclass(frozen=True, eq=False)
class EpochLabels(Computed):
    """Labels of the epochs that times lie in, lazy along the times."""

    times: xr.Variable  # in seconds, along one dimension, as lazy as they are
    epochs: Windows
    values: NDArray[Any]  # what each epoch is labelled with, (epoch,)

    @property
    def sources(self) -> tuple[xr.Variable]:
        """Return the times."""
        return (self.times,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return a dtype that holds what can be missing: of integers and booleans float64."""
        return with_missing(self.values.dtype)

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the labels of a selection."""
        place = self.epochs.place(np.asarray(read_source(self.times, axes), np.float64))
        labels = np.full(place.shape, missing_value(self.dtype), self.dtype)
        labels[place >= 0] = self.values[place[place >= 0]]
        return labels
