"""Map a TimeSeries, of any subtype, to variables along time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import Node
from intake_nwbzarr.mapping.attributes import array_parts, object_attributes, scalar_attributes, storable
from intake_nwbzarr.mapping.images import external_files, indexed_images, order_of_images
from intake_nwbzarr.mapping.model import (
    ArrayPart,
    Dimension,
    IrregularTime,
    Labels,
    MappedObject,
    Mapper,
    Region,
    RegularTime,
    both,
    run_together,
    whole_values,
)
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.pixel_grid import PixelGrid, map_grid
from intake_nwbzarr.mapping.regions import map_region
from intake_nwbzarr.mapping.schema import definition_of, series_dimensions
from intake_nwbzarr.mapping.series_layout import (
    Axes,
    SeriesMembers,
    fit_lengths,
    rows_first,
    schema_axes,
    series_layout,
)
from intake_nwbzarr.mapping.series_parts import (
    TimeBase,
    Values,
    axis_labels,
    band_columns,
    feature_units,
    series_values,
    time_base,
)

# The axis of a region's rows, and the dimension's name if the data have no such axis.
_REGION_AXES = {"electrodes": "channel", "source_channels": "channel", "rois": "roi"}
_REGION_ALONE = {"channel": "electrode"}

# Names of the dimension of samples in schemas.
_NAMES_OF_TIME = frozenset(
    {"num_times", "num_timestamps", "num_frames", "time", "times", "timestamps", "frame", "frames"}
)

# The references to the images of an IndexSeries, among its small values.
_ORDER = "order_of_images"

# Small values that become coordinates, variables or labels.
_MAPPED_OTHERWISE = frozenset({"starting_time", "bands", "external_file", _ORDER})

# Attributes of `data` that are renamed, or only apply to stored values.
_OF_VALUES = frozenset({"unit", "conversion", "offset", "resolution"})


def map_series(hierarchy: Hierarchy, path: str, options: MappingOptions) -> Mapper[MappedObject]:
    """Map a TimeSeries or a subtype: data, time, joined table rows, and its other datasets."""
    members = series_layout(hierarchy, path)
    axes = _axes(members, options)
    small = dict(members.small)
    if members.starting_time is not None:
        small["starting_time"] = members.starting_time
    order = order_of_images(members)
    if order is not None:
        small[_ORDER] = order
    ((read, lost), regions), grid = yield from both(
        both(
            whole_values(small),
            run_together([_map_region(members, axes, name, options) for name in members.regions]),
        ),
        map_grid(hierarchy, path),
    )
    read = {
        name: each.reshape(()) if each.shape == (1,) and name in members.scalars else each
        for name, each in read.items()
    }
    neurodata = _Series(members, axes, read, tuple(regions), grid, options).mapped()
    return replace(
        neurodata, unmapped=lost + tuple(path for _, region in regions for path in region.unmapped)
    )


def _axes(members: SeriesMembers, options: MappingOptions) -> Axes:
    """Return the names of the data's axes, by the schema and by the lengths of times and regions."""
    if members.data is None:
        return Axes(())
    shape = members.data.shape
    axes = schema_axes(series_dimensions(members.neurodata_type, members.hierarchy), shape)
    if options.image_axes == "yx" and {"x", "y"} <= set(axes.names):
        axes = rows_first(axes)
    lengths = {}
    if members.timestamps is not None and members.timestamps.ndim == 1:
        lengths[_time_axis(axes)] = members.timestamps.size
    for name in members.regions:
        lengths[_region_axis(name)] = members.region_length(name)
    fitted = _with_only_region(members, fit_lengths(axes, shape, lengths))
    if fitted.schema_order is not None:
        warn_caller(
            f"The data of {members.where} have the shape {shape}: by the lengths of their times and regions, "
            f"their axes are {fitted.names} instead of {fitted.schema_order} as in the schema. They are "
            "labelled so, and not transposed.",
            code="axis-order",
            path=members.path,
        )
    return fitted


def _with_only_region(members: SeriesMembers, axes: Axes) -> Axes:
    """Return the axes, of which one without a name is named after the region that labels it."""
    found = {_axis_of_region(members, axes, name): _region_axis(name) for name in members.regions}
    return replace(
        axes, names=tuple(found.get(name, name) if name.startswith("dim_") else name for name in axes.names)
    )


def _axis_of_region(members: SeriesMembers, axes: Axes, region: str) -> str:
    """Return the axis that a region labels: by its name, else the axis beside time of equal length."""
    # Extensions use any name: the fibers of a FiberPhotometryResponseSeries are a
    # fiber_photometry_table_region.
    called = _region_axis(region)
    if called not in axes.names and len(members.regions) == 1:
        beside = next((axis for axis, name in enumerate(axes.names) if name != _time_axis(axes)), None)
        if beside is not None and members.shape[beside] == members.region_length(region):
            return called if axes.names[beside] in axes.labels else axes.names[beside]
    return called


def _time_axis(axes: Axes) -> str:
    return "event" if "event" in axes.names else "time"


def _region_axis(name: str) -> str:
    short = name.removesuffix("_region").removesuffix("_table").removesuffix("s")
    return _REGION_AXES.get(name, "row" if short in {"", "region", "table"} else short)


def _map_region(
    members: SeriesMembers, axes: Axes, name: str, options: MappingOptions
) -> Mapper[tuple[str, Region]]:
    """Map a region on an axis of the data of its length, or else on a dimension of its own."""
    axis, rows = _axis_of_region(members, axes, name), members.region_length(name)
    fits = members.axis_length(axes, axis) == rows
    alone = _REGION_ALONE.get(axis, axis)
    if not fits and axis in axes.names:
        alone = "region" if alone in axes.names else alone
        warn_caller(
            f"{members.where} has {rows} {name!r}, but no axis of its data, of shape {members.shape}, has "
            "that length: they have a dimension of their own.",
            code="region-length",
            path=members.path,
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
    grid: PixelGrid | None
    options: MappingOptions

    def mapped(self) -> MappedObject:
        """Return the mapped series."""
        time = self._time()
        dimensions = self._dimensions(time)
        parts = [*self._data(time, dimensions), *time.parts, *self._control(time)]
        indexes: list[RegularTime | IrregularTime | Labels] = list(time.indexes)
        for _, region in self.regions:
            parts.extend(region.parts)
            indexes.extend([] if region.labels is None else [region.labels])
        indexes.extend(axis_labels(self.members, self.axes, self.values, dimensions))
        indexes.extend([] if self.grid is None else self.grid.labels(dimensions))
        parts.extend(external_files(self.members, self.values, time))
        parts.extend(indexed_images(self.members, self.values.get(_ORDER), dimensions))
        parts.extend(feature_units(self.members, self.values, dimensions))
        parts.extend(band_columns(self.members, dimensions, self._own_dimension))
        parts.extend(self._other_arrays(time))
        return MappedObject(
            self.members.path,
            self.members.neurodata_type,
            tuple(parts),
            tuple(indexes),
            self._attributes(time),
        )

    @property
    def _node(self) -> Node:
        return self.members.hierarchy[self.members.path]

    def _time(self) -> TimeBase:
        length = self.members.axis_length(self.axes, _time_axis(self.axes))
        frames = self.values.get("num_samples")
        return time_base(
            self.members,
            None if self.members.starting_time is None else self.values.get("starting_time"),
            _time_axis(self.axes),
            length,
            None if frames is None or frames.dtype.kind not in "iu" else int(frames),
        )

    def _dimensions(self, time: TimeBase) -> tuple[Dimension, ...]:
        """Return a dimension for each axis of the data."""
        of_regions = {axis: region.dimension for axis, region in self.regions if axis}
        known = of_regions | ({} if time.dimension is None else {_time_axis(self.axes): time.dimension})
        return tuple(
            known[name] if name in known else self._own_dimension(time.axis_name(name), size)
            for name, size in zip(self.axes.names, self.members.shape, strict=True)
        )

    def _own_dimension(self, name: str, size: int) -> Dimension:
        where = (str(self.members.hierarchy.location), self.members.path, name, size)
        return Dimension(("axis", *where), name, f"{self.members.name}_{name}", size, self.members.path)

    def _data(self, time: TimeBase, dimensions: tuple[Dimension, ...]) -> list[ArrayPart]:
        data = self.members.data
        if data is None:
            return []
        values = series_values(self.members, data, self.axes, self.options)
        attributes = object_attributes(self.members.hierarchy, self.members.path) | values.attributes
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
        return [
            ArrayPart("data", dimensions, values.array, attributes, "main"),
            *self._factors(values, dimensions),
        ]

    def _factors(self, values: Values, dimensions: tuple[Dimension, ...]) -> Iterator[ArrayPart]:
        """Yield the conversion factors of channels that are not applied to the values."""
        if values.factors is not None:
            along = (
                self._own_dimensions("channel_conversion", values.factors)
                if values.channel is None
                else (dimensions[values.channel],)
            )
            yield from array_parts(self._node, "channel_conversion", values.factors, along)

    def _settings(self) -> dict[str, Any]:
        """Return scalars and short lists that are stored as datasets: gain, bias_current, dimension."""
        # A starting_time that is not a number is an attribute.
        hidden = _MAPPED_OTHERWISE - ({"starting_time"} & self.members.small.keys())
        own = {name: value for name, value in self.values.items() if name not in hidden}
        described = {
            f"{name}_description": target.node.attributes.get("description")
            for name, target in self.members.regions.items()
        }
        return scalar_attributes(own, self.members.small) | storable(described)

    def _control(self, time: TimeBase) -> list[ArrayPart]:
        control = self.members.control
        if control is None:
            return []
        fits = time.dimension is not None and control.shape == (time.dimension.size,)
        along = (
            (time.dimension,)
            if fits and time.dimension is not None
            else self._own_dimensions("control", control)
        )
        return list(array_parts(self._node, "control", control, along))

    def _other_arrays(self, time: TimeBase) -> list[ArrayPart]:
        """Return the arrays of an extension, along time if its schema, or else their length, says so."""
        return [
            part
            for name, array in self.members.arrays.items()
            for part in array_parts(self._node, name, array, self._other_dimensions(name, array, time))
        ]

    def _other_dimensions(self, name: str, array: StoredArray, time: TimeBase) -> tuple[Dimension, ...]:
        own = self._own_dimensions(name, array)
        if time.dimension is None or not array.shape or array.shape[0] != time.dimension.size:
            return own
        return (time.dimension, *own[1:]) if self._starts_with_time(name, array.ndim) else own

    def _starts_with_time(self, name: str, ndim: int) -> bool:
        """Return whether the type that defines a dataset gives it the same first dimension as its data."""
        for ancestor in self.members.lineage:
            definition = definition_of(ancestor, self.members.hierarchy)
            if definition is not None and name in definition.dimensions:
                times = {option[0] for option in definition.dimensions.get("data", ())}
                options = definition.dimensions[name]
                firsts = {option[0] for option in options if len(option) == ndim} or {options[0][0]}
                return not firsts.isdisjoint(times | _NAMES_OF_TIME)
        # No schema names its dimensions, so its length decides.
        return True

    def _own_dimensions(self, name: str, array: StoredArray) -> tuple[Dimension, ...]:
        return tuple(self._own_dimension(f"{name}_dim_{axis}", size) for axis, size in enumerate(array.shape))

    def _attributes(self, time: TimeBase) -> dict[str, Any]:
        """Return the object's own attributes, for the Dataset of the object alone."""
        return object_attributes(self.members.hierarchy, self.members.path) | storable(time.attributes)
