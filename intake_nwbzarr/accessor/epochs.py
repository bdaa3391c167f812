"""Epochs that a caller gives: a table of intervals, in any of its forms, or pairs of times."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from intake_nwbzarr.accessor.inputs import as_dataset, named
from intake_nwbzarr.accessor.sessions import check_same_session
from intake_nwbzarr.accessor.times import in_seconds
from intake_nwbzarr.errors import NodeNotFoundError, OptionError, SelectionError, warn_caller

type Epochs = xr.Dataset | xr.DataTree | pd.DataFrame | str | ArrayLike
"""A table with ``start_time`` and ``stop_time``, in any form or by its name; or pairs of times."""

EPOCH: Final = "epoch"
"""What the rows of epochs without a table are called."""

_ENDS = ("start_time", "stop_time")


@dataclass(frozen=True, eq=False)
class EpochTable:
    """Epochs that hold any time, ascending by their starts.

    Parameters
    ----------
    starts, stops
        In seconds, (epoch,).
    columns
        Their table's columns of one value a row, by name in the file.
    labels
        Their ids, or positions.
    rows
        What one of them is called: the dimension of their table.
    """

    starts: NDArray[np.float64]
    stops: NDArray[np.float64]
    columns: Mapping[str, NDArray[Any]]
    labels: NDArray[Any]
    rows: Hashable

    def name(self, position: int) -> str:
        """What an epoch is called in errors."""
        return f"{self.labels[position]} ({self.starts[position]} to {self.stops[position]} s)"


def epoch_table(epochs: Epochs, dataset: xr.Dataset) -> EpochTable:
    """Read epochs.

    Parameters
    ----------
    epochs
        A Dataset that has one table of intervals, a node, a DataFrame, pynapple's IntervalSet, the name of a
        table in `dataset`, or an array of pairs of times, (epoch, 2).
    dataset
        What they are applied to, by whose attributes datetimes are counted.

    Raises
    ------
    OptionError
        When they are none of these, or a Dataset has several such tables.
    NodeNotFoundError
        When there is no such table, or it has no such columns.
    SelectionError
        When they hold no times.
    SessionMismatchError
        When they are of another session.

    Warns
    -----
    MappingWarning
        When epochs have no start, no stop, or stop before they start: they hold no time, and are left out.
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
            "they start: they hold no time, and are left out."
        )
    kept = np.flatnonzero(valid)[np.argsort(made.starts[valid], kind="stable")]
    columns = {name: values[kept] for name, values in made.columns.items()}
    return EpochTable(made.starts[kept], made.stops[kept], columns, made.labels[kept], made.rows)


def _of_table(table: xr.Dataset, attributes: Mapping[Any, Any]) -> EpochTable:
    start, stop = (_column(table, wanted) for wanted in _ENDS)
    if table.variables[start].ndim != 1 or table.variables[start].dims != table.variables[stop].dims:
        dims = table.variables[start].dims, table.variables[stop].dims
        raise OptionError(
            f"Epochs are rows of one table with a start_time and a stop_time; {start!r} and {stop!r} lie "
            f"along {dims[0]} and {dims[1]}."
        )
    (rows,) = table.variables[start].dims
    starts, stops = (
        in_seconds(table.variables[name].values, attributes, repr(name)) for name in (start, stop)
    )
    columns = {
        column: variable.values
        for name, variable in table.variables.items()
        if variable.dims == (rows,) and "ragged_values" not in variable.attrs
        for column in dict.fromkeys((str(name), _stored_name(str(name), variable)))
    }
    labels = table[rows].values if rows in table.coords else np.arange(len(starts))
    return EpochTable(starts, stops, columns, labels, rows)


def _column(table: xr.Dataset, wanted: str) -> str:
    """The variable that is a column of that name in the file, or, where nothing says it, here."""
    found = [
        str(name)
        for name, variable in table.variables.items()
        if _stored_name(str(name), variable) == wanted and "ragged_values" not in variable.attrs
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NodeNotFoundError(
            f"The epochs have no column {wanted!r}: pass a table that has start_time and stop_time, such as "
            "trials, or an array of pairs of times."
        )
    raise OptionError(
        f"This Dataset has several tables of intervals, with {', '.join(map(repr, found))}: pass one of "
        'them, such as ds.nwb.intervals("trials"), or open it with group=.'
    )


def _stored_name(name: str, variable: xr.Variable) -> str:
    path = variable.attrs.get("nwb_path")
    return name if path is None else str(path).rpartition("/")[2]


def _of_pairs(given: Any, attributes: Mapping[Any, Any]) -> EpochTable:
    try:
        pairs = np.asarray(given)
    except ValueError:
        pairs = np.empty(0)
    if pairs.shape == (2,) and pairs.dtype.kind != "U":
        pairs = pairs.reshape(1, 2)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise OptionError(
            f"Epochs are a table with start_time and stop_time, or pairs of times of shape (epoch, 2); the "
            f"{type(given).__name__} has the shape {pairs.shape}. For one window, pass start and stop."
        )
    try:
        starts, stops = in_seconds(pairs, attributes, "the array of epochs").T
    except SelectionError as error:
        raise OptionError(str(error)) from error
    return EpochTable(starts, stops, {}, np.arange(len(starts)), EPOCH)
