"""Time coordinates: seconds since the session started, or dates."""

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
from intake_nwbzarr.bounds import LARGEST_AT_OPEN, MOST_DECODED_TIMES
from intake_nwbzarr.errors import LimitError, MetadataError, warn_caller
from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex
from intake_nwbzarr.mapping.derived import Elementwise
from intake_nwbzarr.mapping.model import IrregularTime, Part, RegularTime
from intake_nwbzarr.transport.open import Opener

# Seconds since 1970, of 1985: no recording lasts that long, so such timestamps count from another zero.
_EPOCH_LIKE = 5e8


def warn_of_epoch(first: float, where: str) -> None:
    """Warn of times that seem to count from 1970, as some converters write them."""
    if first >= _EPOCH_LIKE:
        warn_caller(
            f"{where} starts at {first!r} s, which looks like seconds since 1970 rather than since the "
            "session's reference time. It is shown as stored."
        )


# Of datetime64[ns], in seconds from 1970, within half a day.
_EARLIEST, _LATEST = -9_223_300_000.0, 9_223_300_000.0


@dataclass(frozen=True)
class ReferenceTime:
    """The instant that a session's timestamps count from.

    Parameters
    ----------
    instant
        In UTC.
    zone
        The offset it was recorded with, ``-08:00``; empty where it was recorded without one, and so taken as
        local time.
    """

    instant: datetime
    zone: str


def reference_time(attributes: Mapping[str, Any], where: str) -> ReferenceTime:
    """The zero of time that a session's metadata give.

    Parameters
    ----------
    attributes
        With ``timestamps_reference_time`` or, in its absence, ``session_start_time``, in ISO 8601.
    where
        The file, for errors.

    Raises
    ------
    MetadataError
        When there is neither, or it is no time.

    Warns
    -----
    MappingWarning
        When it has no time zone: see `instant_of`.
    """
    text = attributes.get("timestamps_reference_time") or attributes.get("session_start_time")
    try:
        instant, has_zone = instant_of(text, where)
    except ValueError as error:
        raise MetadataError(
            f"{where} has the reference time {text!r}, where a time in ISO 8601 was expected. Open it "
            "without decode_times=True to have times in seconds."
        ) from error
    return ReferenceTime(instant.astimezone(UTC), instant.strftime("%:z") if has_zone else "")


def instant_of(text: object, where: str) -> tuple[datetime, bool]:
    """The instant that a date in ISO 8601 means, and whether it says its time zone.

    Without a zone it is local time on the machine that reads it, as pynwb takes it.

    Raises
    ------
    ValueError
        When it is no date.

    Warns
    -----
    MappingWarning
        When it has no zone.
    """
    instant = datetime.fromisoformat(text.decode() if isinstance(text, bytes) else str(text))
    if instant.tzinfo is not None:
        return instant, True
    local = instant.astimezone()
    warn_caller(
        f"{where} has the time {str(text)!r} without a time zone. It is taken as local time on this machine "
        f"(UTC{local.strftime('%:z')}), as pynwb does; on a machine in another zone it is another instant. "
        "The environment variable TZ sets the zone."
    )
    return local, False


def with_zone(attributes: Mapping[str, Any], reference: ReferenceTime | None) -> Mapping[str, Any]:
    """A session's metadata, with the zone that its decoded times were counted in where the file has none.

    Attributes and decoded times then agree wherever the Dataset is sent.
    """
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
    """The coordinate, and its index, of a time.

    Parameters
    ----------
    time
        Regular or irregular.
    dimension
        Its dimension's name in the view.
    name
        Its own.
    reference
        Decode to ``datetime64[ns]`` from here; None: seconds, lazily.
    opener
        Of the hierarchy that is opened.

    Warns
    -----
    MappingWarning
        When there are too many times to decode: they stay in seconds.
    """
    if reference is not None:
        if time.dimension.size <= MOST_DECODED_TIMES:
            return _decoded(time, dimension, name, reference, opener)
        warn_caller(
            f"The {time.dimension.size} times of {name!r} are too many to decode at open, "
            f"{MOST_DECODED_TIMES} being the most; they stay in seconds."
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
            "decode at once. Open it with decode_times=False."
        )
    if isinstance(time, RegularTime):
        seconds = time.starting_time + np.arange(time.dimension.size) / time.rate
    else:
        (read,) = read_at_open([time.timestamps], opener)
        seconds = np.asarray(read, np.float64)
        # Regular times are looked at when they are mapped, stored ones only where they are read.
        if seconds.size:
            warn_of_epoch(float(seconds[0]), repr(time.timestamps.node.path))
    attributes = {key: value for key, value in time.attributes.items() if key != "units"}
    attributes |= {"time_zone": reference.zone} if reference.zone else {}
    variable = xr.Variable(dimension, datetimes(seconds, reference), attributes)
    index = PandasIndex(variable.values, dimension, coord_dtype=variable.dtype)
    index.index.name = name
    return xr.Coordinates(index.create_variables({name: variable}), {name: index})


def decoded(part: Part, reference: ReferenceTime) -> Part:
    """A part whose values are times, in UTC ``datetime64[ns]``: made when they are read."""
    attributes = {key: value for key, value in part.attributes.items() if key != "units"}
    attributes |= {"time_zone": reference.zone} if reference.zone else {}
    if isinstance(part.array, np.ndarray):
        return replace(part, array=datetimes(part.array, reference), attributes=attributes)
    array = Elementwise(_datetimes_from, (part.array,), np.dtype("datetime64[ns]"), (reference,))
    return replace(part, array=array, attributes=attributes)


def _datetimes_from(reference: ReferenceTime, seconds: NDArray[Any]) -> NDArray[np.datetime64]:
    return datetimes(np.asarray(seconds, np.float64), reference)


def datetimes(seconds: NDArray[np.float64], reference: ReferenceTime) -> NDArray[np.datetime64]:
    """Seconds after the reference as datetimes, to the nanosecond; NaN becomes NaT.

    Warns
    -----
    MappingWarning
        When times lie beyond what datetimes reach: they become NaT too.
    """
    epoch = (reference.instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    missing = ~np.isfinite(seconds)
    beyond = ~missing & ~((seconds + epoch / 1e6 > _EARLIEST) & (seconds + epoch / 1e6 < _LATEST))
    if beyond.any():
        warn_caller(
            f"{np.count_nonzero(beyond)} times lie beyond the years that datetime64[ns] reaches, 1678 to "
            f"2261, the first at {float(seconds[beyond][0])!r} s: they are NaT. Open the session with "
            "decode_times=False to see them."
        )
        missing |= beyond
    nanoseconds = np.rint(np.where(missing, 0.0, seconds) * 1e9).astype(np.int64)
    result = np.asarray(np.int64(epoch * 1000) + nanoseconds).view("datetime64[ns]")
    result[missing] = np.datetime64("NaT", "ns")
    return result
