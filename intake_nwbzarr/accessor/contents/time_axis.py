"""The time of a series as numbers of seconds that can be searched, whichever index its coordinate has."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import xarray as xr

from intake_nwbzarr.accessor.contents.seconds import in_seconds
from intake_nwbzarr.accessor.contents.times import SessionTime, is_decoded, session_times
from intake_nwbzarr.indexes import IrregularTimeIndex, LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import TimestampView


@dataclass(frozen=True)
class TimeAxis:
    """The time along a dimension.

    Parameters
    ----------
    dimension
        Of the Dataset.
    view
        Its timestamps, ascending.
    backwards
        Whether the Dataset has them in the opposite order.
    rate
        Samples per second of a regular axis, None of an irregular.
    lost_rate
        Whether they are datetimes that were made of a regular time, whose rate they do not tell any more.
    """

    dimension: Hashable
    view: TimestampView
    backwards: bool
    rate: float | None
    lost_rate: bool = False


def time_axes(dataset: xr.Dataset) -> Iterator[TimeAxis]:
    """The session's time along each dimension that data variables lie along and that has one.

    Timestamps that pandas indexes, such as decoded ones, are irregular, whatever they were made of.
    """
    along = {dimension for variable in dataset.data_vars.values() for dimension in variable.dims}
    for time in session_times(dataset):
        if time.dim not in along:
            continue
        index = seconds_index(dataset, time)
        rate, step = index.rate, index.samples.step
        view = index.view if step > 0 else index.view[::-1]
        stored = str(dataset.coords.variables[time.name].attrs.get("nwb_path", ""))
        yield TimeAxis(
            time.dim,
            view,
            step < 0,
            None if rate is None else rate / abs(step),
            lost_rate=is_decoded(time.index) and stored.endswith("/starting_time"),
        )


def seconds_index(dataset: xr.Dataset, time: SessionTime) -> LazyTimeIndex:
    """The index of a time in seconds: its own, or one of what pandas has of it, in memory.

    Raises
    ------
    SelectionError, MetadataError
        As `in_seconds`.
    """
    if isinstance(time.index, LazyTimeIndex):
        return time.index
    seconds = in_seconds(time.index.index.to_numpy(), dataset.attrs, f"the coordinate {time.name!r}")
    attributes = {**dataset.coords.variables[time.name].attrs, "units": "s"}
    return IrregularTimeIndex.from_array(seconds, time.dim, time.name, attributes)


def with_seconds(dataset: xr.Dataset, time: SessionTime) -> xr.Dataset:
    """The same Dataset, in which one time is indexed in seconds.

    Raises
    ------
    SelectionError, MetadataError
        As `in_seconds`.
    """
    if isinstance(time.index, LazyTimeIndex):
        return dataset
    return dataset.drop_vars(time.name).assign_coords(seconds_index(dataset, time).coordinates())
