"""The time base of a series: regular, irregular, scalar or none, and the dimension it lies along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.neurodata.pieces import Dimension, IrregularTime, Labels, Part, RegularTime
from intake_nwbzarr.neurodata.series_members import SeriesMembers

TEMPLATES = "stimulus/templates/"
"""Where series have a time of their own, by the schema: "relative to the beginning of the stimulus"."""

# Seconds since 1970, of 1985: no recording lasts that long, so such timestamps count from another zero.
_EPOCH_LIKE = 5e8


@dataclass(frozen=True)
class TimeBase:
    """How the samples of a series lie in time.

    Parameters
    ----------
    dimension
        That of the data's time axis, None where the data have no samples to place.
    indexes
        What gives it its timestamps.
    parts
        A scalar time.
    attributes
        What is known of time when there is no coordinate to carry it.
    renamed
        What the data's time axis is called when `dimension` is not it.
    """

    dimension: Dimension | None = None
    indexes: tuple[RegularTime | IrregularTime | Labels, ...] = ()
    parts: tuple[Part, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def axis_name(self, name: str) -> str:
        """The name of an axis of the data that is not `dimension`."""
        return self.renamed.get(name, name)


def time_base(
    members: SeriesMembers,
    starting_time: NDArray[Any] | None,
    name: str,
    length: int | None,
    frames: int | None = None,
) -> TimeBase:
    """The time base of a series.

    Parameters
    ----------
    members
        The series.
    starting_time
        The value of the dataset of that name, if there is one.
    name
        Of the data's time axis: ``time`` or ``event``.
    length
        Of that axis, None where the data have none.
    frames
        How many frames an external movie has, where the file says it: its own data are empty.

    Warns
    -----
    MappingWarning
        When the timestamps are not as many as the samples, or look like seconds since 1970.
    """
    if members.timestamps is not None:
        return _irregular(members, name, length)
    if starting_time is not None:
        if frames is not None and 0 in members.shape:
            outside = _regular(members, float(starting_time.item()), name, frames)
            return replace(outside, dimension=None, renamed={name: "frame"})
        return _regular(members, float(starting_time.item()), name, length)
    return TimeBase()


def _irregular(members: SeriesMembers, name: str, length: int | None) -> TimeBase:
    timestamps = members.timestamps
    assert timestamps is not None  # noqa: S101 - for the type checker; the caller looked.
    attributes = _attributes(members, timestamps.node.path)
    if timestamps.ndim == 0:
        return TimeBase(parts=(Part(name, (), timestamps, attributes, "coordinate", is_time=True),))
    # Linked timestamps lie where their owner has them: the dimension is the owner's.
    owner = timestamps.node.path.rpartition("/")[0]
    where = ("timestamps", str(timestamps.location), timestamps.node.path)
    size = timestamps.size

    def dimension(called: str) -> Dimension:
        return Dimension((*where, called), called, f"{owner.rpartition('/')[2]}_{called}", size, owner)

    if length is None or length == size:
        own = dimension(name)
        return TimeBase(own, (IrregularTime(own, timestamps, attributes, owner),))
    # An external movie has an empty dataset for data, and a timestamp for each frame of its files.
    if 0 in members.shape and "external_file" in members.small:
        return TimeBase(
            None, (IrregularTime(dimension(name), timestamps, attributes, owner),), renamed={name: "frame"}
        )
    warn_caller(
        f"{members.where} has {size} timestamps for data of shape {members.shape}. The timestamps are shown "
        "on a dimension of their own, and the data without them."
    )
    return TimeBase(None, (IrregularTime(dimension("timestamps"), timestamps, attributes, owner),))


def _regular(members: SeriesMembers, starting_time: float, name: str, length: int | None) -> TimeBase:
    rate = members.rate
    if length is None:
        return TimeBase(attributes={"starting_time": starting_time, "rate": rate})
    if rate is None or not isfinite(starting_time):
        return _without_rate(members, starting_time, name, length)
    warn_of_epoch(starting_time, members.where)
    where = (str(members.hierarchy.location), _home(members))
    dimension = Dimension(
        ("regular", *where, starting_time, rate, length),
        name,
        f"{members.name}_{name}",
        length,
        members.path,
    )
    assert members.starting_time is not None  # noqa: S101 - it has a rate.
    attributes = _attributes(members, members.starting_time.node.path)
    return TimeBase(dimension, (RegularTime(dimension, starting_time, rate, attributes),))


def _without_rate(members: SeriesMembers, starting_time: float, name: str, length: int) -> TimeBase:
    """Of one sample, the time is known all the same; of more, what is stored is told."""
    assert members.starting_time is not None  # noqa: S101 - the caller read it.
    stored_rate = members.starting_time.node.attributes.get("rate")
    known = {"starting_time": starting_time, "rate": stored_rate}
    if length == 1 and isfinite(starting_time):
        where = ("regular", str(members.hierarchy.location), members.path)
        dimension = Dimension(where, name, f"{members.name}_{name}", 1, members.path)
        attributes = _attributes(members, members.starting_time.node.path)
        labels = Labels(dimension, np.array([starting_time]), attributes)
        return TimeBase(dimension, (labels,), attributes={"rate": stored_rate})
    if length:
        warn_caller(
            f"{members.where} has the starting_time {starting_time!r} and the rate {stored_rate!r}, which "
            f"give its {length} samples no times. Both are among its attributes."
        )
    return TimeBase(attributes=known)


def warn_of_epoch(first: float, where: str) -> None:
    """Warn of times that seem to count from 1970, as some converters write them."""
    if first >= _EPOCH_LIKE:
        warn_caller(
            f"{where} starts at {first!r} s, which looks like seconds since 1970 rather than since the "
            "session's reference time. It is shown as stored."
        )


def _home(members: SeriesMembers) -> str:
    """Within what equal regular times are one: a processing module, where F and neuropil meet, or a group."""
    parts = members.path.split("/")
    return "/".join(parts[:2]) if parts[0] == "processing" else members.path.rpartition("/")[0]


def _attributes(members: SeriesMembers, path: str) -> dict[str, Any]:
    # "s", not "seconds": xarray reads the latter back from a written file as time differences.
    return {"units": "s", "neurodata_type": members.neurodata_type, "nwb_path": path}
