"""The time of a series as numbers of seconds that can be searched, whichever index its coordinate has."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import xarray as xr

from intake_nwbzarr.accessor.contents.seconds import in_seconds
from intake_nwbzarr.accessor.contents.times import SessionTime, session_times
from intake_nwbzarr.indexes import IrregularTimeIndex, LazyTimeIndex
from intake_nwbzarr.indexes.regular_timestamps import RegularTimestamps
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
    """

    dimension: Hashable
    view: TimestampView
    backwards: bool
    rate: float | None


def time_axes(dataset: xr.Dataset) -> Iterator[TimeAxis]:
    """The session's time along each dimension that data variables lie along and that has one.

    Times that pandas indexes, such as averaged or decoded ones, are regular where they are evenly spaced.
    """
    along = {dimension for variable in dataset.data_vars.values() for dimension in variable.dims}
    for time in session_times(dataset):
        if time.dim not in along:
            continue
        index = seconds_index(dataset, time)
        regular = index.as_regular
        view = index.view if regular is None else regular
        rate = None if regular is None else rate_of(regular)
        backwards = view.samples.step < 0
        yield TimeAxis(time.dim, view[::-1] if backwards else view, backwards, rate)


def rate_of(regular: TimestampView) -> float:
    """The samples per second of a regular view."""
    assert isinstance(regular.timestamps, RegularTimestamps)  # noqa: S101 - for the type checker.
    return regular.timestamps.rate / abs(regular.samples.step)


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
