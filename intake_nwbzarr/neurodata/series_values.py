"""A series' data in units, or as stored with what it would take to convert them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from intake_nwbzarr.arrays import ScaledArray, StoredArray, scaled
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.neurodata.axes import Axes
from intake_nwbzarr.neurodata.metadata import scalar, storable
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
    unit = scalar(own.get("unit"))
    conversion = number(own, "conversion", 1.0, members.where)
    offset = number(own, "offset", 0.0, members.where)
    resolution = number(own, "resolution", -1.0, members.where)
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
    fits = factors.ndim == 1 and axis < len(members.shape) and members.shape[axis] == factors.size
    if fits and factors.dtype.kind in "iuf":
        return axis
    warn_caller(
        f"The channel_conversion of {members.where} is of {factors.dtype} and has the shape {factors.shape}, "
        f"where numbers along a channel axis of its data, of shape {members.shape}, were expected. The "
        "values are shown without it, and it beside them."
    )
    return None


def number(attributes: Mapping[str, Any], name: str, default: float, where: str) -> float:
    """A numeric attribute, NaN and infinity included; the default where it is missing.

    Parameters
    ----------
    attributes
        Of the dataset.
    name
        ``conversion``, ``offset`` or ``resolution``.
    default
        The schema's.
    where
        The series, for the warning.

    Warns
    -----
    MappingWarning
        When it is no number: values are then shown without it.
    """
    value = scalar(attributes.get(name))
    if value is None:
        return default
    if isinstance(value, int | float):
        return float(value)
    warn_caller(f"{where} has the {name} {value!r}, which is no number: values are shown without it.")
    return default
