"""A series' data in units, or as stored with what it would take to convert them."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from intake_nwbzarr.arrays import ScaledArray, StoredArray, scaled
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.neurodata.axes import Axes
from intake_nwbzarr.neurodata.metadata import storable
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.series_members import SeriesMembers

# The schema fixes their conversion, or their values are codes.
_NEVER_SCALED = frozenset({"IndexSeries", "AnnotationSeries", "IntervalSeries"})


@dataclass(frozen=True)
class Values:
    """A series' data as they are shown.

    Parameters
    ----------
    array
        Lazy.
    attributes
        ``units`` and ``resolution``, or ``conversion``, ``offset`` and ``target_unit``.
    factors
        Of the channels, where they are not applied and so are shown beside the data.
    channel
        The axis that these lie along; None where they fit none.
    """

    array: StoredArray | ScaledArray
    attributes: dict[str, Any]
    factors: StoredArray | None = None
    channel: int | None = None


def series_values(members: SeriesMembers, data: StoredArray, axes: Axes, options: MappingOptions) -> Values:
    """The data of a series, as ``data * conversion * channel_conversion + offset`` or as stored.

    Parameters
    ----------
    members
        The series.
    data
        Its data.
    axes
        Their names.
    options
        The caller's choices.

    Warns
    -----
    MappingWarning
        When channel_conversion fits no channel axis of the data; they are shown without it, and it beside.
    """
    own = data.node.attributes
    unit = own.get("unit")
    conversion = _number(own.get("conversion"), 1.0)
    offset = _number(own.get("offset"), 0.0)
    resolution = _number(own.get("resolution"), -1.0)
    known: dict[str, Any] = {"resolution": resolution} if resolution > 0 else {}
    factors = members.channel_conversion
    channel = _channel_axis(members, factors, axes)
    if not options.mask_and_scale:
        known |= {"conversion": conversion, "offset": offset, "target_unit": unit}
        return Values(data, storable(known), factors, channel)
    beside = factors if channel is None else None
    attributes = storable({"units": unit} | known)
    if data.dtype.kind not in "biuf" or not _NEVER_SCALED.isdisjoint(members.lineage):
        return Values(data, attributes, beside)
    applied = None if channel is None else factors
    array = scaled(data, conversion, offset, applied, channel or 0, options.dtype or "float64")
    return Values(array, attributes, beside)


def _channel_axis(members: SeriesMembers, factors: StoredArray | None, axes: Axes) -> int | None:
    """The axis that channel_conversion lies along: the channels', which is axis 1 in the schema."""
    if factors is None or members.data is None:
        return None
    axis = axes.names.index("channel") if "channel" in axes.names else 1
    if factors.ndim == 1 and axis < len(members.shape) and members.shape[axis] == factors.size:
        return axis
    warn_caller(
        f"The channel_conversion of {members.where} has the shape {factors.shape}, which fits no channel "
        f"axis of its data, of shape {members.shape}. The values are shown without it, and it beside them."
    )
    return None


def _number(value: Any, default: float) -> float:
    """A numeric attribute; what is missing, or no number, is the default."""
    if isinstance(value, int | float) and isfinite(value):
        return float(value)
    return default
