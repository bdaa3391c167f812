"""Times of variables in seconds, read or lazy."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.indexes import Index, PandasIndex

from intake_nwbzarr.accessor.contents import ShownObject
from intake_nwbzarr.accessor.roles import roles
from intake_nwbzarr.accessor.sessions import check_same_session
from intake_nwbzarr.arrays import Computed, lazy_variable, read_source
from intake_nwbzarr.arrays.selection import Axes
from intake_nwbzarr.errors import OptionError, SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex, LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import RegularTimestamps, TimestampView
from intake_nwbzarr.mapping.model import TEMPLATES
from intake_nwbzarr.mapping.time_coordinates import reference_time


@dataclass(frozen=True)
class SessionTime:
    """A time coordinate that counts from the session's zero of time."""

    name: str  # of the coordinate
    dim: str  # which for events has another name
    # Lazy as opened; of pandas after single samples were selected, or where times are datetimes.
    index: LazyTimeIndex | PandasIndex


def session_times(data: xr.Dataset | xr.DataArray) -> list[SessionTime]:
    """Return the times of series among the indexed coordinates, without those of stimulus templates."""
    # By the schema, those of stimulus templates count from the beginning of the stimulus.
    return [time for time in indexed_times(data) if not is_template(_path(data, time.name))]


def indexed_times(data: xr.Dataset | xr.DataArray) -> list[SessionTime]:
    """Return the times of series among the indexed coordinates, reading nothing."""
    found = []
    said = roles(data.coords.variables)
    for name, index in data.xindexes.items():
        if isinstance(index, LazyTimeIndex):
            found.append(SessionTime(str(name), index.dim, index))
        elif isinstance(index, PandasIndex) and _is_time(str(name), index, said[str(name)]):
            found.append(SessionTime(str(name), str(index.dim), index))
    return found


def event_time(dataset: xr.Dataset, events: ShownObject) -> SessionTime | None:
    """Return the time that an object itself has; None where another's, or none, is along its dimensions."""
    return next((time for time in indexed_times(dataset) if time.name in events.variables), None)


def event_time_of(dataset: xr.Dataset, series: ShownObject) -> SessionTime | None:
    """Return the time of an irregular series, whose samples are events; None for any other."""
    dims = {dim for name in series.variables for dim in dataset.variables[name].dims}
    times = [time for time in session_times(dataset) if time.dim in dims]
    return times[0] if len(times) == 1 and is_irregular(dataset, times[0]) else None


def _is_time(name: str, index: PandasIndex, said: Mapping[Any, Any]) -> bool:
    if "nwb_path" in said:
        return bool(said.get("nwb_role") == "time")
    # Times that were computed from a coordinate's bare values say nothing any more, but for their name.
    return (name == "time" or name.endswith("_time")) and index.index.dtype.kind in "fM"


def _path(data: xr.Dataset | xr.DataArray, name: str) -> str:
    return str(data.coords.variables[name].attrs.get("nwb_path", ""))


def is_template(path: str) -> bool:
    """Return whether an object is a stimulus template, whose time counts from the stimulus' start."""
    return path.startswith(TEMPLATES)


def is_decoded(index: Index) -> bool:
    """Return whether an index holds datetimes, as `decode_times=True` gives, rather than seconds."""
    return isinstance(index, PandasIndex) and index.index.dtype.kind == "M"


def is_irregular(data: xr.Dataset | xr.DataArray, time: SessionTime) -> bool:
    """Return whether a time is of samples that have timestamps each, as events have, and no rate."""
    stored = _path(data, time.name)
    regular = isinstance(time.index, LazyTimeIndex) and time.index.rate is not None
    return not regular and not stored.endswith("/starting_time")


type Time = float | datetime | np.datetime64 | xr.DataArray | np.ndarray[Any, Any]
"""A time as it may be given: seconds or a datetime, also in an array or DataArray without dimensions."""


def in_seconds(times: NDArray[Any], attributes: Mapping[Any, Any], what: str) -> NDArray[np.float64]:
    """Return times as seconds from the session's zero of time: float64, NaN where they are missing."""
    if times.dtype.kind in "iuf":
        return times.astype(np.float64)
    if not _are_datetimes(times):
        raise SelectionError(
            f"Times must be numbers of seconds or datetimes; {what} is of type {times.dtype}, such as "
            f"{times.ravel()[:1].tolist()}.",
            found=str(times.dtype),
            expected="numbers of seconds, or datetimes",
        )
    import pandas as pd

    zero = pd.Timestamp(reference_time(attributes).instant)
    try:
        instants = pd.DatetimeIndex(pd.to_datetime(times.ravel(), utc=True)).as_unit("ns")
        elapsed = (instants - zero).to_numpy()
    except (TypeError, ValueError, OverflowError) as error:
        # Before 1678 and after 2262; a TypeError of NumPy's datetimes that have no unit.
        raise SelectionError(
            f"{what} has datetimes without a unit, or too far from {zero} for nanoseconds: {error}.",
            found=str(times.dtype),
            expected="datetimes from 1678 to 2262",
        ) from error
    # As whole nanoseconds: a time that was stored to the nanosecond comes back bit for bit within 104 days of
    # the zero. Seconds since 1970, as float64, would keep no more than tenths of microseconds.
    seconds: NDArray[np.float64] = (elapsed / np.timedelta64(1, "s")).reshape(times.shape)
    return seconds


def one_time(value: object, keyword: str, attributes: Mapping[Any, Any], *, finite: bool = True) -> float:
    """Return a time that a caller passes, in seconds; raise `OptionError` where it is not one."""
    check_same_session(attributes, value, keyword)
    scalar = np.asarray(value) if _is_datetime(value) else None
    seconds = number(value) if scalar is None else float(in_seconds(scalar, attributes, keyword))
    if seconds is None or np.isnan(seconds) or (finite and np.isinf(seconds)):
        expected = f"a {'finite ' if finite else ''}number of seconds or a datetime"
        raise OptionError(
            f"{keyword} must be {expected}, not {as_given(value):.100}.",
            found=as_given(value),
            expected=expected,
        )
    return seconds


def stretch(start: object, stop: object, attributes: Mapping[Any, Any]) -> tuple[float, float]:
    """Return the two ends of a time range in seconds; an end that is None is infinite."""
    low = -np.inf if start is None else one_time(start, "start", attributes, finite=False)
    high = np.inf if stop is None else one_time(stop, "stop", attributes, finite=False)
    if low > high:
        raise OptionError(
            f"start={as_given(start)} is after stop={as_given(stop)}.",
            found=(as_given(start), as_given(stop)),
            expected="a start before the stop",
        )
    return low, high


def number(value: object) -> float | None:
    """Return a real number, also from an array without dimensions; None for all else, as a timedelta.

    Examples
    --------
    >>> number(np.array(0.5)), number(True), number(np.timedelta64(1, "ns"))
    (0.5, None, None)
    """
    if isinstance(value, np.ndarray | xr.DataArray | xr.Variable):
        return float(value) if value.ndim == 0 and value.dtype.kind in "iuf" else None
    # NumPy's timedeltas pass for integers, which would be a number of whatever they count.
    if not isinstance(value, Real) or isinstance(value, bool | np.timedelta64):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def datetimes_refused(what: str, why: str) -> OptionError:
    """Return the error for an operation that decoded times do not support."""
    return OptionError(
        f"{what} are datetimes, but {why}.",
        found="datetimes",
        expected="seconds",
        next_step="Open the session without decode_times=True.",
    )


def no_times(
    dataset: xr.Dataset, why: str, what: str = "series, events, intervals or spikes"
) -> SelectionError:
    """Return the error for a Dataset in which nothing has a time."""
    return SelectionError(
        f"{dataset.attrs.get('nwb_location', 'This Dataset')} has no {what} with times, so {why}.",
        path=dataset.attrs.get("nwb_path"),
        found=list(map(str, dataset.variables)),
        expected=what,
        next_step="ds.nwb.describe() lists the objects of a Dataset.",
    )


def _are_datetimes(times: NDArray[Any]) -> bool:
    if times.dtype.kind != "O":
        return times.dtype.kind == "M"
    known = [each for each in times.ravel() if each is not None]
    return bool(known) and all(isinstance(each, datetime | np.datetime64) for each in known)


def _is_datetime(value: object) -> bool:
    if isinstance(value, np.ndarray | xr.DataArray | xr.Variable):
        return value.ndim == 0 and _are_datetimes(np.asarray(value))
    return isinstance(value, datetime | np.datetime64)


def as_given(value: object) -> str:
    """Return what a caller passed as errors show it: of an array, its type and shape."""
    if isinstance(value, np.ndarray | xr.DataArray | xr.Variable) and value.ndim:
        return f"<{type(value).__name__} of {value.dtype} and shape {value.shape}>"
    return repr(value.item() if isinstance(value, np.ndarray | xr.DataArray) else value)


_FLOAT = np.dtype(np.float64)

# What datetimes are counted from.
_ZERO = ("timestamps_reference_time", "session_start_time")


def seconds_variable(variable: xr.Variable, attributes: Mapping[Any, Any], what: str) -> xr.Variable:
    """Return a variable of times in seconds: itself, or a lazy or dask one made of its datetimes."""
    if variable.dtype.kind != "M":
        return variable
    in_seconds(np.empty(0, variable.dtype), attributes, what)  # Better now than once they are read.
    zero = {key: attributes[key] for key in _ZERO if key in attributes}
    own = {key: value for key, value in variable.attrs.items() if key != "time_zone"} | {"units": "s"}
    if variable.chunks is not None:
        convert = partial(in_seconds, attributes=zero, what=what)
        return xr.Variable(variable.dims, variable.data.map_blocks(convert, dtype=_FLOAT), own)
    return lazy_variable(variable.dims, _Seconds(variable, zero, what), own, cache=True)


@dataclass(frozen=True, eq=False)
class _Seconds(Computed):
    """Seconds, converted from the datetimes that a selection reads."""

    source: xr.Variable
    attributes: dict[Any, Any]
    what: str

    @property
    def sources(self) -> tuple[xr.Variable]:
        """Return the datetimes."""
        return (self.source,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return float64."""
        return _FLOAT

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the seconds of a selection."""
        return in_seconds(read_source(self.source, axes), self.attributes, self.what)


@dataclass(frozen=True)
class TimeAxis:
    """The time along a dimension."""

    dimension: Hashable
    view: TimestampView  # its timestamps, ascending
    backwards: bool  # whether the Dataset has them in the opposite order
    rate: float | None  # samples per second, None of an irregular axis


def time_axes(dataset: xr.Dataset) -> Iterator[TimeAxis]:
    """Yield the session's time along each dimension that data variables lie along and that has one."""
    # Times that pandas indexes, such as averaged or decoded ones, are regular where they are evenly spaced.
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
    """Return the samples per second of a regular view."""
    assert isinstance(regular.timestamps, RegularTimestamps)  # noqa: S101 - for the type checker.
    return regular.timestamps.rate / abs(regular.samples.step)


def seconds_index(dataset: xr.Dataset, time: SessionTime) -> LazyTimeIndex:
    """Return the index of a time in seconds: its own, or one of what pandas has of it, in memory."""
    if isinstance(time.index, LazyTimeIndex):
        return time.index
    seconds = in_seconds(time.index.index.to_numpy(), dataset.attrs, f"the coordinate {time.name!r}")
    attributes = {**dataset.coords.variables[time.name].attrs, "units": "s"}
    return IrregularTimeIndex.from_array(seconds, time.dim, time.name, attributes)


def with_seconds(dataset: xr.Dataset, time: SessionTime) -> xr.Dataset:
    """Return the same Dataset, in which one time is indexed in seconds."""
    if isinstance(time.index, LazyTimeIndex):
        return dataset
    return dataset.drop_vars(time.name).assign_coords(seconds_index(dataset, time).coordinates())
