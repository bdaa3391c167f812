"""Time series of every type: data on named axes, a time base, joined labels, settings as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import ScaledArray, StoredArray, scaled
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.neurodata.axes import Axes, fit_lengths, schema_axes
from intake_nwbzarr.neurodata.metadata import identity, object_attributes, plain, storable
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.pieces import (
    Dimension,
    IrregularTime,
    Labels,
    Mapper,
    Part,
    Piece,
    Region,
    RegularTime,
    both,
    together,
    values_of,
)
from intake_nwbzarr.neurodata.regions import map_region
from intake_nwbzarr.neurodata.series_members import SeriesMembers, series_members
from intake_nwbzarr.neurodata.series_time import TimeBase, time_base
from intake_nwbzarr.neurodata.types import definition_of, series_dimensions

# The schema fixes their conversion, or their values are codes.
_NEVER_SCALED = frozenset({"IndexSeries", "AnnotationSeries", "IntervalSeries"})

# The axis that a region's rows lie along, and what they are called where the data have no such axis.
_REGION_AXES = {"electrodes": "channel", "source_channels": "channel", "rois": "roi"}
_REGION_ALONE = {"channel": "electrode"}

# Attributes of `data` that are shown under another name, or only while values are as stored.
_OF_VALUES = frozenset({"unit", "conversion", "offset", "resolution"})


def map_series(hierarchy: Hierarchy, path: str, options: MappingOptions) -> Mapper[Piece]:
    """Map a TimeSeries, or anything that extends it.

    Parameters
    ----------
    hierarchy
        The file that holds it.
    path
        Where, free of links.
    options
        How it is shown.

    Returns
    -------
    Piece
        ``data`` on the schema's axes, a regular or irregular time, the rows of its table joined, and whatever
        else is stored with it: scalars and short lists as attributes, arrays as variables.
    """
    members = series_members(hierarchy, path)
    axes = _axes(members, options)
    small = dict(members.small)
    if members.starting_time is not None:
        small["starting_time"] = members.starting_time
    values, regions = yield from both(
        values_of(list(small.values())),
        together([_map_region(members, axes, name, options) for name in members.regions]),
    )
    return _Series(members, axes, dict(zip(small, values, strict=True)), tuple(regions), options).piece()


def _axes(members: SeriesMembers, options: MappingOptions) -> Axes:
    """The names of the data's axes, by the schema and by the lengths of what belongs to them."""
    if members.data is None:
        return Axes(())
    shape = members.data.shape
    axes = schema_axes(series_dimensions(members.neurodata_type, members.hierarchy), shape)
    if options.image_axes == "yx" and {"x", "y"} <= set(axes.names):
        rows_first = {"x": "y", "y": "x"}
        axes = replace(axes, names=tuple(rows_first.get(name, name) for name in axes.names))
    lengths = {}
    if members.timestamps is not None and members.timestamps.ndim == 1:
        lengths[_time_axis(axes)] = members.timestamps.size
    for name in members.regions:
        lengths[_region_axis(name)] = members.region_length(name)
    fitted = fit_lengths(axes, shape, lengths)
    if fitted.schema_order is not None:
        warn_caller(
            f"The data of {members.where} have the shape {shape}; by the lengths of what belongs to them "
            f"their axes are {fitted.names}, where the schema has {fitted.schema_order}. They are labelled "
            "so, and not moved."
        )
    return fitted


def _time_axis(axes: Axes) -> str:
    return "event" if "event" in axes.names else "time"


def _region_axis(name: str) -> str:
    return _REGION_AXES.get(name, name.removesuffix("s"))


def _map_region(
    members: SeriesMembers, axes: Axes, name: str, options: MappingOptions
) -> Mapper[tuple[str, Region]]:
    """A region, along an axis of the data where its length allows, else on a dimension of its own."""
    axis, rows = _region_axis(name), members.region_length(name)
    fits = members.axis_length(axes, axis) == rows
    alone = _REGION_ALONE.get(axis, axis)
    if not fits and axis in axes.names:
        alone = "region" if alone in axes.names else alone
        warn_caller(
            f"The {name!r} of {members.where} are {rows}, and no axis of its data, of shape {members.shape}, "
            "has that length. They are shown on a dimension of their own."
        )
    target, called = members.regions[name], axis if fits else alone
    region = yield from map_region(target.hierarchy, target.path, options, name=called, owner=members.path)
    return (axis if fits else "", region)


@dataclass(frozen=True)
class _Series:
    """A series whose small values have been read."""

    members: SeriesMembers
    axes: Axes
    values: Mapping[str, NDArray[Any]]
    regions: tuple[tuple[str, Region], ...]
    options: MappingOptions

    def piece(self) -> Piece:
        """Put the parts together."""
        time = self._time()
        dimensions = self._dimensions(time)
        parts = [*self._data(time, dimensions), *time.parts, *self._control(time)]
        indexes: list[RegularTime | IrregularTime | Labels] = list(time.indexes)
        for _, region in self.regions:
            parts.extend(region.parts)
            indexes.extend([] if region.labels is None else [region.labels])
        indexes.extend(self._own_labels(dimensions))
        parts.extend(self._features(dimensions))
        parts.extend(self._bands(dimensions))
        parts.extend(self._further(time))
        return Piece(
            self.members.path,
            self.members.neurodata_type,
            tuple(parts),
            tuple(indexes),
            self._attributes(time),
        )

    def _time(self) -> TimeBase:
        length = self.members.axis_length(self.axes, _time_axis(self.axes))
        return time_base(self.members, self.values.get("starting_time"), _time_axis(self.axes), length)

    def _dimensions(self, time: TimeBase) -> tuple[Dimension, ...]:
        """One dimension for each axis of the data."""
        of_regions = {axis: region.dimension for axis, region in self.regions if axis}
        known = of_regions | ({} if time.dimension is None else {_time_axis(self.axes): time.dimension})
        return tuple(
            known[name] if name in known else self._own_dimension(time.axis_name(name), size)
            for name, size in zip(self.axes.names, self.members.shape, strict=True)
        )

    def _own_dimension(self, name: str, size: int) -> Dimension:
        where = (str(self.members.hierarchy.location), self.members.path, name, size)
        return Dimension(("axis", *where), name, f"{self.members.name}_{name}", size, self.members.path)

    def _data(self, time: TimeBase, dimensions: tuple[Dimension, ...]) -> list[Part]:
        data = self.members.data
        if data is None:
            return []
        array, of_values, beside = self._values(data, dimensions)
        attributes = object_attributes(self.members.hierarchy, self.members.path) | of_values
        attributes |= storable(
            {
                name: value
                for name, value in data.node.attributes.items()
                if not name.startswith("_") and name not in _OF_VALUES and name not in attributes
            }
        )
        attributes |= self._settings() | storable(time.attributes) | self.members.links
        if self.axes.schema_order is not None:
            attributes["nwb_axis_order"] = ",".join(self.axes.schema_order)
        return [Part("data", dimensions, array, attributes, "main"), *beside]

    def _values(
        self, data: StoredArray, dimensions: tuple[Dimension, ...]
    ) -> tuple[StoredArray | ScaledArray, dict[str, Any], list[Part]]:
        """The data in units or as stored, the attributes that say which, and factors not applied."""
        stored_attributes = data.node.attributes
        unit = stored_attributes.get("unit")
        conversion = _number(stored_attributes.get("conversion"), 1.0)
        offset = _number(stored_attributes.get("offset"), 0.0)
        resolution = _number(stored_attributes.get("resolution"), -1.0)
        attributes: dict[str, Any] = {}
        if resolution > 0:
            attributes["resolution"] = resolution
        factors = self.members.channel_conversion
        channel = self._channel_axis(factors, dimensions)
        beside = []
        if factors is not None and (channel is None or not self.options.mask_and_scale):
            along = (
                self._own_dimension("channel_conversion", factors.size)
                if channel is None
                else dimensions[channel]
            )
            beside = [Part("channel_conversion", (along,), factors, self._of_part(factors))]
        if not self.options.mask_and_scale:
            own = {"conversion": conversion, "offset": offset, "target_unit": unit}
            return data, storable(attributes | own), beside
        attributes = storable({"units": unit} | attributes)
        if data.dtype.kind not in "biuf" or not _NEVER_SCALED.isdisjoint(self.members.lineage):
            return data, attributes, beside
        array = scaled(
            data,
            conversion,
            offset,
            None if channel is None else factors,
            0 if channel is None else channel,
            self.options.dtype or "float64",
        )
        return array, attributes, beside

    def _channel_axis(self, factors: StoredArray | None, dimensions: tuple[Dimension, ...]) -> int | None:
        """The axis that channel_conversion lies along: the channels', which is axis 1 in the schema."""
        if factors is None or self.members.data is None:
            return None
        names = self.axes.names
        axis = names.index("channel") if "channel" in names else 1
        if factors.ndim == 1 and axis < len(dimensions) and dimensions[axis].size == factors.size:
            return axis
        warn_caller(
            f"The channel_conversion of {self.members.where} has the shape {factors.shape}, which fits no "
            f"channel axis of its data, of shape {self.members.shape}. The values are shown without it, and "
            "it beside them."
        )
        return None

    def _settings(self) -> dict[str, Any]:
        """Scalars and short lists that are stored as datasets: gain, bias_current, dimension."""
        found: dict[str, Any] = {}
        for name, value in self.values.items():
            if name in {"starting_time", "bands"}:
                continue
            found[name] = plain(value)
            for key, more in self.members.small[name].node.attributes.items():
                if not key.startswith("_") and key not in {"neurodata_type", "namespace", "object_id"}:
                    found[f"{name}_{key}"] = more
        return storable(found)

    def _control(self, time: TimeBase) -> list[Part]:
        control = self.members.control
        if control is None:
            return []
        fits = time.dimension is not None and control.shape == (time.dimension.size,)
        along = (
            (time.dimension,)
            if fits and time.dimension is not None
            else self._own_dimensions("control", control)
        )
        return [Part("control", along, control, self._of_part(control))]

    def _own_labels(self, dimensions: tuple[Dimension, ...]) -> list[Labels]:
        """Labels that the schema gives (x, y), or that are stored as a short list (features, bands)."""
        labels = {name: np.asarray(each, object) for name, each in self.axes.labels.items()}
        for stored_name, axis in (("features", "feature"), ("bands", "band")):
            if stored_name in self.values:
                labels[axis] = self.values[stored_name]
        whose = identity(self.members.hierarchy[self.members.path])
        return [
            Labels(dimension, labels[dimension.name], whose)
            for dimension in dimensions
            if dimension.name in labels and labels[dimension.name].shape == (dimension.size,)
        ]

    def _features(self, dimensions: tuple[Dimension, ...]) -> list[Part]:
        units = self.values.get("feature_units")
        whose = identity(self.members.hierarchy[self.members.path])
        return [
            Part("feature_units", (dimension,), units, whose, "coordinate")
            for dimension in dimensions
            if dimension.name == "feature" and units is not None and units.shape == (dimension.size,)
        ]

    def _bands(self, dimensions: tuple[Dimension, ...]) -> list[Part]:
        """The columns of a table of frequency bands, such as band_limits, ``(band, 2)``."""
        return [
            Part(
                column,
                (
                    dimension,
                    *(
                        self._own_dimension(f"{column}_{axis}", array.shape[axis])
                        for axis in range(1, array.ndim)
                    ),
                ),
                array,
                self._of_part(array),
                "coordinate",
            )
            for dimension in dimensions
            for column, array in self.members.bands.items()
            if dimension.name == "band" and array.shape[0] == dimension.size
        ]

    def _further(self, time: TimeBase) -> list[Part]:
        """Arrays that only an extension knows: along time where its schema, or else their length, says so."""
        return [
            Part(name, self._further_dimensions(name, array, time), array, self._of_part(array))
            for name, array in self.members.arrays.items()
        ]

    def _further_dimensions(self, name: str, array: StoredArray, time: TimeBase) -> tuple[Dimension, ...]:
        own = self._own_dimensions(name, array)
        if time.dimension is None or not array.shape or array.shape[0] != time.dimension.size:
            return own
        return (time.dimension, *own[1:]) if self._starts_with_time(name) else own

    def _starts_with_time(self, name: str) -> bool:
        """Whether the type that defines a dataset gives it the same first dimension as its data."""
        for ancestor in self.members.lineage:
            definition = definition_of(ancestor, self.members.hierarchy)
            if definition is not None and name in definition.dimensions:
                times = definition.dimensions.get("data", (("num_times",),))[0][0]
                return definition.dimensions[name][0][0] in {times, "num_times", "time"}
        # No schema defines it: its length is all there is to go by.
        return True

    def _own_dimensions(self, name: str, array: StoredArray) -> tuple[Dimension, ...]:
        return tuple(self._own_dimension(f"{name}_dim_{axis}", size) for axis, size in enumerate(array.shape))

    def _of_part(self, array: StoredArray) -> dict[str, Any]:
        """Attributes of an array beside the data."""
        own = {
            name: value
            for name, value in array.node.attributes.items()
            if not name.startswith("_") and name not in {"neurodata_type", "namespace", "object_id", "unit"}
        }
        units = {"units": array.node.attributes.get("unit")}
        return {"neurodata_type": self.members.neurodata_type} | identity(array.node) | storable(units | own)

    def _attributes(self, time: TimeBase) -> dict[str, Any]:
        """The object's own attributes, for its own Dataset; and for one that has no data to carry them."""
        return object_attributes(self.members.hierarchy, self.members.path) | storable(time.attributes)


def _number(value: Any, default: float) -> float:
    """A numeric attribute; what is missing, or no number, is the default."""
    if isinstance(value, int | float) and isfinite(value):
        return float(value)
    return default
