"""The time of a series as numbers of seconds that can be searched, whichever index its coordinate has."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.times import session_times
from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex, LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import TimestampView
from intake_nwbzarr.neurodata.time_coordinates import reference_time


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

    Timestamps that pandas indexes, such as decoded ones, are irregular, whatever they were made of.
    """
    along = {dimension for variable in dataset.data_vars.values() for dimension in variable.dims}
    for time in session_times(dataset):
        if time.dim not in along:
            continue
        if isinstance(time.index, LazyTimeIndex):
            index, rate = time.index, time.index.rate
        else:
            seconds = in_seconds(time.index.index.to_numpy(), dataset.attrs, f"the coordinate {time.name!r}")
            index, rate = IrregularTimeIndex.from_array(seconds, time.dim, time.name), None
        step = index.samples.step
        view = index.view if step > 0 else index.view[::-1]
        yield TimeAxis(time.dim, view, step < 0, None if rate is None else rate / abs(step))


def in_seconds(times: NDArray[Any], attributes: Mapping[Any, Any], what: str) -> NDArray[np.float64]:
    """Times as seconds from the session's zero of time: float64, NaN where they are missing.

    Parameters
    ----------
    times
        Numbers of seconds, or datetimes in UTC.
    attributes
        The Dataset's, whose ``timestamps_reference_time`` datetimes are counted from.
    what
        What they are called in errors.

    Raises
    ------
    SelectionError
        When they are not times.
    MetadataError
        When they are datetimes and the attributes do not say what to count from.
    """
    if times.dtype.kind in "iuf":
        return times.astype(np.float64)
    if times.dtype.kind != "M":
        raise SelectionError(
            f"Times are numbers of seconds or datetimes; {what} holds {times.dtype}, such as "
            f"{times.ravel()[:1].tolist()}."
        )
    zero = reference_time(attributes, "The Dataset").instant.replace(tzinfo=None)
    # Counted as whole nanoseconds: datetimes as float64 seconds since 1970 would keep tenths of microseconds.
    elapsed = times.astype("datetime64[ns]") - np.datetime64(zero, "ns")
    seconds: NDArray[np.float64] = elapsed / np.timedelta64(1, "s")
    return seconds
