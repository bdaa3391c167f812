"""The parts of a TimeSeries: its time base, scaled values, and labels of axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import ScaledArray, StoredArray, scaled
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.mapping.attributes import array_attributes, identity, scalar, storable
from intake_nwbzarr.mapping.model import ArrayPart, Dimension, IrregularTime, Labels, RegularTime
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.series_layout import Axes, SeriesMembers
from intake_nwbzarr.mapping.time_coordinates import warn_of_epoch

# Short lists that are stored with a series, and the dimension that each labels.
_STORED_LABELS = (("features", "feature"), ("bands", "band"))


def axis_labels(
    members: SeriesMembers, axes: Axes, values: Mapping[str, NDArray[Any]], dimensions: Sequence[Dimension]
) -> Iterator[Labels]:
    """Yield labels that the schema defines (x, y), or that are stored as a short list (features, bands)."""
    node = members.hierarchy[members.path]
    by_schema = identity(node) | {"nwb_derived": "axis"}
    labels = {name: (np.asarray(each, object), by_schema) for name, each in axes.labels.items()}
    for name, axis in _STORED_LABELS:
        if name in values:
            labels[axis] = (values[name], array_attributes(node, members.small[name]))
    for dimension in dimensions:
        found, attributes = labels.get(dimension.name, (None, {}))
        if found is not None and found.shape == (dimension.size,):
            yield Labels(dimension, found, attributes)


def feature_units(
    members: SeriesMembers, values: Mapping[str, NDArray[Any]], dimensions: Sequence[Dimension]
) -> Iterator[ArrayPart]:
    """Yield the unit of each feature of an AbstractFeatureSeries."""
    units = values.get("feature_units")
    for dimension in dimensions:
        if dimension.name == "feature" and units is not None and units.shape == (dimension.size,):
            whose = array_attributes(members.hierarchy[members.path], members.small["feature_units"])
            yield ArrayPart("feature_units", (dimension,), units, whose, "coordinate")


def band_columns(
    members: SeriesMembers, dimensions: Sequence[Dimension], own_dimension: Callable[[str, int], Dimension]
) -> Iterator[ArrayPart]:
    """Yield the columns of a table of frequency bands, such as band_limits, ``(band, bound)``."""
    node = members.hierarchy[members.path]
    for dimension in dimensions:
        for column, array in members.bands.items():
            if dimension.name == "band" and array.shape[0] == dimension.size:
                words = ("bound", *(f"{column}_dim_{axis}" for axis in range(2, array.ndim)))
                other = (own_dimension(*pair) for pair in zip(words, array.shape[1:], strict=False))
                yield ArrayPart(
                    column, (dimension, *other), array, array_attributes(node, array), "coordinate"
                )


# Series whose conversion is fixed by the schema, or whose values are codes.
_NEVER_SCALED = frozenset({"IndexSeries", "AnnotationSeries", "IntervalSeries"})


@dataclass(frozen=True)
class Values:
    """A series' data, scaled or as stored."""

    array: StoredArray | ScaledArray
    attributes: dict[str, Any]  # units and resolution; or conversion, offset and target_unit
    factors: StoredArray | None = None  # conversion factors of the channels, if they are not applied
    channel: int | None = None  # the axis of the factors; None if they match none


def series_values(members: SeriesMembers, data: StoredArray, axes: Axes, options: MappingOptions) -> Values:
    """Return the data of a series, as ``data * conversion * channel_conversion + offset`` or as stored."""
    own = data.node.attributes
    unit = scalar(own.get("unit"))
    conversion = number(own, "conversion", 1.0, members)
    offset = number(own, "offset", 0.0, members)
    resolution = number(own, "resolution", -1.0, members)
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
    """Return the axis of channel_conversion: that of the channels, which is axis 1 in the schema."""
    if factors is None or members.data is None:
        return None
    axis = axes.names.index("channel") if "channel" in axes.names else 1
    fits = factors.ndim == 1 and axis < len(members.shape) and members.shape[axis] == factors.size
    if fits and factors.dtype.kind in "iuf":
        return axis
    warn_caller(
        f"The channel_conversion of {members.where}, of {factors.dtype} and shape {factors.shape}, matches "
        f"no channel axis of its data, of shape {members.shape}: it is not applied, and mapped as a "
        "variable.",
        code="channel-conversion-shape",
        path=members.path,
    )
    return None


def number(attributes: Mapping[str, Any], name: str, default: float, members: SeriesMembers) -> float:
    """Return a numeric attribute, also NaN and infinity, or the default if it is missing or not a number."""
    value = scalar(attributes.get(name))
    if value is None:
        return default
    if isinstance(value, int | float):
        return float(value)
    warn_caller(
        f"{members.where} has the {name} {value!r}, which is not a number and not applied.",
        code="attribute-not-a-number",
        path=members.path,
    )
    return default


@dataclass(frozen=True)
class TimeBase:
    """The time of a series' samples."""

    # that of the data's time axis; None if the data have no samples with a time
    dimension: Dimension | None = None
    indexes: tuple[RegularTime | IrregularTime | Labels, ...] = ()  # of its timestamps
    parts: tuple[ArrayPart, ...] = ()  # a scalar time
    # what is known of the time if there is no coordinate
    attributes: Mapping[str, Any] = field(default_factory=dict)
    # the name of the data's time axis if it is not `dimension`
    renamed: Mapping[str, str] = field(default_factory=dict)

    def axis_name(self, name: str) -> str:
        """Return the name of an axis of the data that is not `dimension`."""
        return self.renamed.get(name, name)


def time_base(
    members: SeriesMembers,
    starting_time: NDArray[Any] | None,
    name: str,
    length: int | None,
    frames: int | None = None,
) -> TimeBase:
    """Return the time base of a series, from its timestamps or its starting_time and rate."""
    # `name` and `length` are those of the data's time axis; `frames` is the number of frames of an external
    # movie, whose own data are empty.
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
    assert timestamps is not None  # noqa: S101 - for the type checker; the caller checked this
    attributes = _attributes(members, timestamps.node.path)
    if timestamps.ndim == 0:
        return TimeBase(parts=(ArrayPart(name, (), timestamps, attributes, "coordinate", is_time=True),))
    # Linked timestamps have the dimension of the series that owns them.
    owner = timestamps.node.path.rpartition("/")[0]
    where = ("timestamps", str(timestamps.location), timestamps.node.path)
    size = timestamps.size

    def dimension(called: str) -> Dimension:
        return Dimension((*where, called), called, f"{owner.rpartition('/')[2]}_{called}", size, owner)

    if length is None or length == size:
        own = dimension(name)
        return TimeBase(own, (IrregularTime(own, timestamps, attributes, owner),))
    # An external movie has empty data, and a timestamp for each frame of its files.
    if 0 in members.shape and "external_file" in members.small:
        return TimeBase(
            None, (IrregularTime(dimension(name), timestamps, attributes, owner),), renamed={name: "frame"}
        )
    warn_caller(
        f"{members.where} has {size} timestamps for data of shape {members.shape}: the timestamps have a "
        "dimension of their own, and the data have no times.",
        code="timestamps-length",
        path=members.path,
    )
    return TimeBase(None, (IrregularTime(dimension("timestamps"), timestamps, attributes, owner),))


def _regular(members: SeriesMembers, starting_time: float, name: str, length: int | None) -> TimeBase:
    rate = members.rate
    if length is None:
        return TimeBase(attributes={"starting_time": starting_time, "rate": rate})
    if rate is None or not isfinite(starting_time):
        return _without_rate(members, starting_time, name, length)
    warn_of_epoch(starting_time, members.where, members.path)
    where = (str(members.hierarchy.location), _sharing_group(members))
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
    """Return the time base without a valid rate: the time of a single sample, otherwise attributes."""
    assert members.starting_time is not None  # noqa: S101 - the caller read it.
    stored_rate = members.starting_time.node.attributes.get("rate")
    known = {"starting_time": starting_time, "rate": stored_rate}
    if length == 1 and isfinite(starting_time):
        where = ("regular", str(members.hierarchy.location), members.path)
        dimension = Dimension(where, name, f"{members.name}_{name}", 1, members.path)
        attributes = _attributes(members, members.starting_time.node.path)
        labels = Labels(dimension, np.array([starting_time]), attributes, is_time=True)
        return TimeBase(dimension, (labels,), attributes={"rate": stored_rate})
    if length:
        warn_caller(
            f"{members.where} has the starting_time {starting_time!r} and the rate {stored_rate!r}, so that "
            f"its {length} samples have no times. Both are attributes.",
            code="invalid-times",
            path=members.path,
        )
    return TimeBase(attributes=known)


def _sharing_group(members: SeriesMembers) -> str:
    """Return the group in which equal regular times are shared: a processing module, or the parent."""
    parts = members.path.split("/")
    return "/".join(parts[:2]) if parts[0] == "processing" else members.path.rpartition("/")[0]


def _attributes(members: SeriesMembers, path: str) -> dict[str, Any]:
    # Not "seconds": xarray decodes that from a written file as time differences.
    return {"units": "s", "neurodata_type": members.neurodata_type, "nwb_path": path}
