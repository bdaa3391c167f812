"""The epoch that each sample, spike or event lies in, as coordinates that are found when they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import find_object, shown_columns, shown_objects
from intake_nwbzarr.accessor.epochs import Epochs, EpochTable, epoch_table
from intake_nwbzarr.accessor.inputs import ROW_TIMES, part_of
from intake_nwbzarr.accessor.taken import missing_value, with_missing
from intake_nwbzarr.accessor.time.window import Windows
from intake_nwbzarr.accessor.times import seconds_variable, session_times
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.arrays.selection import Key, select
from intake_nwbzarr.errors import NodeNotFoundError, SelectionError
from intake_nwbzarr.mapping.model import free_name

_RAGGED_TIMES = ("spike_times", "event_times")


def label(
    dataset: xr.Dataset, epochs: Epochs, column: str | None = None, *, name: str | None = None
) -> xr.Dataset:
    """Label everything that has a time with the epoch it lies in; see `NWBAccessor.label`."""
    table = epoch_table(epochs, dataset)
    _check_apart(table)
    values, word = _values(table, column)
    if name is not None:
        timed = [each for each in shown_objects(dataset) if each.kind in {"series", "table"}]
        dataset = part_of(dataset, find_object(dataset, name, timed, "series and tables"))
    found = dict(_times(dataset))
    if isinstance(epochs, str):
        found.pop(table.rows, None)
    if not found:
        raise SelectionError(
            f"{dataset.attrs.get('nwb_location', 'This Dataset')}: there is no series, event or spike with a "
            "time here, so nothing can be labelled with the epoch it lies in."
        )
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
    """Refuse epochs that overlap: a sample in several of them has no one label."""
    reach = np.maximum.accumulate(table.stops)
    overlapping = np.flatnonzero(table.starts[1:] < reach[:-1])
    if overlapping.size:
        second = int(overlapping[0]) + 1
        first = int(np.argmax(table.stops[:second]))
        raise SelectionError(
            f"{overlapping.size} epochs start before another has stopped, so samples would have several "
            f"labels: the first are {table.name(first)} and {table.name(second)}. Select epochs that do not "
            "overlap, such as those of one kind. (restrict() takes epochs that overlap.)"
        )


def _values(table: EpochTable, column: str | None) -> tuple[NDArray[Any], str]:
    if column is None:
        return table.labels, str(table.rows)
    if not isinstance(column, str) or column not in table.columns:
        known = ", ".join(map(repr, table.columns)) or "none"
        raise NodeNotFoundError(
            f"The epochs have no column {column!r:.100} of one value each; their columns are {known}."
        )
    return table.columns[column], column


def _times(dataset: xr.Dataset) -> Iterator[tuple[Hashable, xr.Variable]]:
    """The times along each dimension: of samples, events, intervals (their starts) and spikes."""
    for time in session_times(dataset):
        yield time.dim, dataset.variables[time.name]
    for table in (each for each in shown_objects(dataset) if each.kind == "table"):
        columns = shown_columns(dataset, table)
        plain = {column.label: column.variable for column in columns if not column.bounds}
        own = next((plain[wanted] for wanted in ROW_TIMES if wanted in plain), None)
        if own is not None and dataset.variables[own].ndim == 1:
            yield dataset.variables[own].dims[0], dataset.variables[own]
        for column in columns:
            values = dataset.variables[column.variable]
            if column.bounds and column.label in _RAGGED_TIMES and values.ndim == 1:
                yield values.dims[0], values


@dataclass(frozen=True, eq=False)
class EpochLabels:
    """Labels of the epochs that times lie in, for whatever part of the times is selected.

    Parameters
    ----------
    times
        In seconds, along one dimension, as lazy as they are.
    epochs
        Half-open, ascending and apart.
    values
        What each epoch is labelled with, (epoch,).
    """

    times: xr.Variable
    epochs: Windows
    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The times'."""
        return self.times.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """What can be missing: integers and booleans become float64."""
        return with_missing(self.values.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """As the times are best read."""
        preferred = self.times.encoding.get("preferred_chunks", {})
        return tuple(max(1, preferred.get(dim, min(size, 2**20))) for dim, size in self.times.sizes.items())

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """The labels of a selection."""
        selection = select(key, self.shape)
        (positions,) = selection.axes
        if isinstance(positions, range) and positions.step == 1:
            times = self.times[positions.start : positions.stop]
        else:
            times = self.times[np.asarray(positions, np.intp)]
        place = self.epochs.place(np.asarray(times.values, np.float64))
        labels = np.full(place.shape, missing_value(self.dtype), self.dtype)
        labels[place >= 0] = self.values[place[place >= 0]]
        return labels.reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        from dask.base import tokenize

        return ("EpochLabels", tokenize(self.times, self.epochs.starts, self.epochs.stops, self.values))
