"""Time coordinates and columns of times: seconds since the session's reference time, or datetimes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.indexes import PandasIndex

from intake_nwbzarr.arrays import read_at_open
from intake_nwbzarr.arrays.computed import Elementwise
from intake_nwbzarr.errors import LimitError, MetadataError, warn_caller
from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex
from intake_nwbzarr.mapping.model import ArrayPart, IrregularTime, RegularTime
from intake_nwbzarr.transport.open import Opener
from intake_nwbzarr.untrusted_input import LARGEST_AT_OPEN, MOST_DECODED_TIMES

# Seconds since 1970 of the year 1985: no recording is that long, so such timestamps have another zero.
_EPOCH_LIKE = 5e8


def warn_of_epoch(first: float, where: str, path: str) -> None:
    """Warn of times that seem to be seconds since 1970, as some converters write them."""
    if first >= _EPOCH_LIKE:
        warn_caller(
            f"{where} starts at {first!r} s, which looks like seconds since 1970 instead of since the "
            "session's reference time. The times are kept as stored.",
            code="unix-times",
            path=path,
        )


# The range of datetime64[ns] in seconds since 1970, except half a day.
_EARLIEST, _LATEST = -9_223_300_000.0, 9_223_300_000.0


@dataclass(frozen=True)
class ReferenceTime:
    """The zero of a session's timestamps."""

    instant: datetime  # in UTC
    zone: str  # the UTC offset it was recorded with, -08:00; empty if none, when it is taken as local time


def reference_time(attributes: Mapping[Any, Any], location: object = None) -> ReferenceTime:
    """Return the reference time of a session, timestamps_reference_time or session_start_time."""
    location = location or attributes.get("nwb_location")
    where = str(location or "This Dataset")
    text = attributes.get("timestamps_reference_time") or attributes.get("session_start_time")
    try:
        instant, has_zone = instant_of(text, where)
    except ValueError as error:
        raise MetadataError(
            f"{where} has the reference time {text!r}, which is not a date in ISO 8601.",
            location=location,
            found=text,
            expected="a date in ISO 8601",
            next_step="Open it without decode_times=True to have times in seconds.",
        ) from error
    return ReferenceTime(instant.astimezone(UTC), instant.strftime("%:z") if has_zone else "")


def instant_of(text: object, where: str) -> tuple[datetime, bool]:
    """Return the instant of an ISO 8601 date, and whether it has a time zone."""
    # Without a zone it is local time, as in pynwb. Raises ValueError for other text.
    instant = datetime.fromisoformat(text.decode() if isinstance(text, bytes) else str(text))
    if instant.tzinfo is not None:
        return instant, True
    local = instant.astimezone()
    warn_caller(
        f"{where} has the time {str(text)!r} without a time zone. It is taken as local time on this machine "
        f"(UTC{local.strftime('%:z')}), as in pynwb; a machine in another zone reads another instant. The "
        "environment variable TZ sets the zone.",
        code="no-time-zone",
    )
    return local, False


def with_zone(attributes: Mapping[str, Any], reference: ReferenceTime | None) -> Mapping[str, Any]:
    """Return a session's metadata with the time zone of its decoded times, if the file has none."""
    # Attributes and decoded times then agree on any machine.
    if reference is None or reference.zone:
        return attributes
    names = ("timestamps_reference_time", "session_start_time")
    name = next(each for each in names if attributes.get(each))
    return {**attributes, name: reference.instant.astimezone().isoformat()}


def time_coordinates(
    time: RegularTime | IrregularTime,
    dimension: str,
    name: str,
    reference: ReferenceTime | None,
    opener: Opener | None,
) -> xr.Coordinates:
    """Return the coordinate and index of a time: lazy seconds, or datetimes from a reference time."""
    if reference is not None:
        if time.dimension.size <= MOST_DECODED_TIMES:
            return _decoded(time, dimension, name, reference, opener)
        warn_caller(
            f"The {time.dimension.size} times of {name!r} are not decoded but stay in seconds; at most "
            f"{MOST_DECODED_TIMES} are decoded on opening.",
            code="times-not-decoded",
        )
    if isinstance(time, RegularTime):
        regular = RegularTimeIndex.from_rate(
            time.starting_time, time.rate, time.dimension.size, dimension, name, time.attributes
        )
        return regular.coordinates()
    irregular = IrregularTimeIndex.from_array(
        time.timestamps, dimension, name, time.attributes, source=str(time.attributes.get("nwb_path", name))
    )
    return irregular.coordinates()


def _decoded(
    time: RegularTime | IrregularTime,
    dimension: str,
    name: str,
    reference: ReferenceTime,
    opener: Opener | None,
) -> xr.Coordinates:
    if time.dimension.size > LARGEST_AT_OPEN // 8:
        raise LimitError(
            f"{time.attributes.get('nwb_path', name)!r} has {time.dimension.size:,} times, too many to "
            "decode.",
            path=time.attributes.get("nwb_path"),
            found=time.dimension.size,
            expected=LARGEST_AT_OPEN // 8,
            next_step="Open the session with decode_times=False.",
        )
    if isinstance(time, RegularTime):
        seconds = time.starting_time + np.arange(time.dimension.size) / time.rate
    else:
        (read,) = read_at_open([time.timestamps], opener)
        seconds = np.asarray(read, np.float64)
        # Regular times are checked when they are mapped, stored ones when they are read.
        if seconds.size:
            warn_of_epoch(float(seconds[0]), repr(time.timestamps.node.path), time.timestamps.node.path)
    attributes = {key: value for key, value in time.attributes.items() if key != "units"}
    attributes |= {"time_zone": reference.zone} if reference.zone else {}
    variable = xr.Variable(dimension, datetimes(seconds, reference), attributes)
    index = PandasIndex(variable.values, dimension, coord_dtype=variable.dtype)
    index.index.name = name
    return xr.Coordinates(index.create_variables({name: variable}), {name: index})


def decoded(part: ArrayPart, reference: ReferenceTime) -> ArrayPart:
    """Return a part whose values are times with UTC ``datetime64[ns]``, decoded on reading."""
    attributes = {key: value for key, value in part.attributes.items() if key != "units"}
    attributes |= {"time_zone": reference.zone} if reference.zone else {}
    if isinstance(part.array, np.ndarray):
        return replace(part, array=datetimes(part.array, reference), attributes=attributes)
    array = Elementwise(_datetimes_from, (part.array,), np.dtype("datetime64[ns]"), (reference,))
    return replace(part, array=array, attributes=attributes)


def _datetimes_from(reference: ReferenceTime, seconds: NDArray[Any]) -> NDArray[np.datetime64]:
    return datetimes(np.asarray(seconds, np.float64), reference)


def datetimes(seconds: NDArray[np.float64], reference: ReferenceTime) -> NDArray[np.datetime64]:
    """Return seconds after the reference time as datetimes, to the nanosecond; NaN becomes NaT."""
    epoch = (reference.instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    missing = ~np.isfinite(seconds)
    outside = ~missing & ~((seconds + epoch / 1e6 > _EARLIEST) & (seconds + epoch / 1e6 < _LATEST))
    if outside.any():
        warn_caller(
            f"{np.count_nonzero(outside)} times are outside of the years of datetime64[ns], 1678 to 2261, "
            f"the first at {float(seconds[outside][0])!r} s, and become NaT. Open the session with "
            "decode_times=False to have them in seconds.",
            code="times-not-decoded",
        )
        missing |= outside
    # Whole seconds apart from their fraction: one product would be rounded to a neighbouring nanosecond.
    known = np.where(missing, 0.0, seconds)
    whole = np.floor(known)
    nanoseconds = whole.astype(np.int64) * 10**9 + np.rint((known - whole) * 1e9).astype(np.int64)
    result = np.asarray(np.int64(epoch * 1000) + nanoseconds).view("datetime64[ns]")
    result[missing] = np.datetime64("NaT", "ns")
    return result
