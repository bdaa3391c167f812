"""Times in seconds: the one place through which the calls of `ds.nwb` take times of any form."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.sessions import check_same_session
from intake_nwbzarr.errors import OptionError, SelectionError
from intake_nwbzarr.neurodata.time_coordinates import reference_time

type Time = float | datetime | np.datetime64 | xr.DataArray | np.ndarray[Any, Any]
"""A time as it may be given: seconds or a datetime, also in an array or DataArray without dimensions."""


def in_seconds(times: NDArray[Any], attributes: Mapping[Any, Any], what: str) -> NDArray[np.float64]:
    """Times as seconds from the session's zero of time: float64, NaN where they are missing.

    Datetimes are counted as whole nanoseconds, so that a time that was stored to the nanosecond comes back
    bit for bit, as long as it is within 104 days of the zero.

    Parameters
    ----------
    times
        Numbers of seconds; or datetimes, in UTC where they name no zone. Of any shape.
    attributes
        The Dataset's, whose ``timestamps_reference_time`` datetimes are counted from.
    what
        What they are called in errors.

    Raises
    ------
    SelectionError
        When they are not times, or datetimes that nanoseconds cannot count (before 1678, after 2262).
    MetadataError
        When they are datetimes and the attributes do not say what to count from.
    """
    if times.dtype.kind in "iuf":
        return times.astype(np.float64)
    if not _are_datetimes(times):
        raise SelectionError(
            f"Times are numbers of seconds or datetimes; {what} holds {times.dtype}, such as "
            f"{times.ravel()[:1].tolist()}."
        )
    import pandas as pd

    zero = pd.Timestamp(reference_time(attributes, "The Dataset").instant)
    try:
        instants = pd.DatetimeIndex(pd.to_datetime(times.ravel(), utc=True)).as_unit("ns")
        elapsed = (instants - zero).to_numpy()
    except (TypeError, ValueError, OverflowError) as error:
        # A TypeError of NumPy's datetimes that have no unit.
        raise SelectionError(
            f"{what} holds datetimes without a unit, or too far from {zero} to be counted in nanoseconds: "
            f"{error}."
        ) from error
    # Not as float64 seconds since 1970, which would keep no more than tenths of microseconds.
    seconds: NDArray[np.float64] = (elapsed / np.timedelta64(1, "s")).reshape(times.shape)
    return seconds


def one_time(value: object, keyword: str, attributes: Mapping[Any, Any], *, finite: bool = True) -> float:
    """One time that a caller gives, in seconds.

    Parameters
    ----------
    value
        A number of seconds or a datetime; also as an array or a DataArray without dimensions, as
        ``trials.start_time[3]`` is.
    keyword
        What it was given as.
    attributes
        As of `in_seconds`.
    finite
        Whether it must be; otherwise infinity is an open end.

    Raises
    ------
    OptionError
        When it is no time.
    SelectionError, MetadataError
        As `in_seconds`.
    SessionMismatchError
        When it is a DataArray of another session.
    """
    check_same_session(attributes, value, keyword)
    scalar = np.asarray(value) if _is_datetime(value) else None
    seconds = number(value) if scalar is None else float(in_seconds(scalar, attributes, keyword))
    if seconds is None or np.isnan(seconds) or (finite and np.isinf(seconds)):
        kind = "a finite number" if finite else "a number"
        raise OptionError(
            f"{keyword}={as_given(value)} is not a time; it is {kind} of seconds, or a datetime."
        )
    return seconds


def stretch(start: object, stop: object, attributes: Mapping[Any, Any]) -> tuple[float, float]:
    """The two ends of a stretch of time that a caller may leave open, in seconds.

    Parameters
    ----------
    start, stop
        As of `one_time`; None for an open end, which is infinite.
    attributes
        As of `in_seconds`.

    Raises
    ------
    OptionError
        When one is no time, or the first is after the second.
    """
    low = -np.inf if start is None else one_time(start, "start", attributes, finite=False)
    high = np.inf if stop is None else one_time(stop, "stop", attributes, finite=False)
    if low > high:
        raise OptionError(f"start={as_given(start)} is after stop={as_given(stop)}: nothing lies between.")
    return low, high


def number(value: object) -> float | None:
    """A real number, also one in an array without dimensions; None for anything else, such as a timedelta.

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
    """The error for what cannot be done where times are decoded, to be raised."""
    return OptionError(f"{what} are datetimes, and {why}: open the session without decode_times=True.")


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
    """What a caller gave, as errors show it: of an array, what it is."""
    if isinstance(value, np.ndarray | xr.DataArray | xr.Variable) and value.ndim:
        return f"<{type(value).__name__} of {value.dtype} and shape {value.shape}>"
    return repr(value.item() if isinstance(value, np.ndarray | xr.DataArray) else value)
