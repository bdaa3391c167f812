"""Map neurodata objects of other types, also of extensions, by their datasets and the schema."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import code_of_skipped, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy, Target
from intake_nwbzarr.hierarchy.nodes import ArrayNode, Node
from intake_nwbzarr.mapping.attributes import (
    array_attributes,
    array_parts,
    describes_session,
    identity,
    linked,
    object_attributes,
    scalar_attributes,
    storable,
)
from intake_nwbzarr.mapping.model import (
    ArrayPart,
    Dimension,
    IrregularTime,
    Labels,
    MappedObject,
    Mapper,
    Region,
    both,
    run_together,
    stored,
    values_of,
    whole_values,
)
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.regions import is_region, map_region
from intake_nwbzarr.mapping.schema import dimension_names, is_scalar
from intake_nwbzarr.mapping.series_layout import Axes, schema_axes

# Datasets with the times of an object's events, in seconds.
_TIMES = ("times", "timestamps")

# Types whose datasets have unrelated dimensions of the same names.
_UNRELATED = frozenset({"HERD"})

# The dimension of a region's rows.
_REGION_AXES = {"electrodes": "channel", "rois": "roi"}


def map_object(hierarchy: Hierarchy, path: str, options: MappingOptions) -> Mapper[MappedObject]:
    """Map an object of any type, or a group without a type that holds datasets."""
    # Scalars, links and short vectors of a fixed length (grid_spacing) become attributes, every other dataset
    # a variable with the schema's dimensions. Events with `times` have a time index.
    members = _members(hierarchy, path)
    (values, lost), regions = yield from both(
        whole_values(members.small),
        run_together([_map_region(members, name, options) for name in members.regions]),
    )
    values = {
        name: each.reshape(()) if each.shape == (1,) and name in members.scalars else each
        for name, each in values.items()
    }
    lost += tuple(path for _, region in regions for path in region.unmapped)
    neurodata = _Object(members, values, tuple(regions), options).mapped()
    return replace(neurodata, unmapped=(*members.unmapped, *lost))


def map_large_metadata(hierarchy: Hierarchy, path: str, options: MappingOptions) -> Mapper[MappedObject]:
    """Map the datasets of the session's groups that are too large for attributes, or of extensions."""
    yield from values_of([])
    every = _members(hierarchy, path)
    own = {name: each for name, each in every.arrays.items() if each.node.neurodata_type is None}
    large = {name: each for name, each in own.items() if not describes_session(each.node)}
    axes = {name: every.axes[name] for name in large if name in every.axes}
    return replace(
        _Object(_Members(hierarchy, path, arrays=large, axes=axes), {}, (), options).mapped(),
        attributes={},
    )


@dataclass
class _Members:
    """The datasets, regions and links of an object."""

    hierarchy: Hierarchy
    path: str
    small: dict[str, StoredArray] = field(default_factory=dict)
    arrays: dict[str, StoredArray] = field(default_factory=dict)
    axes: dict[str, Axes] = field(default_factory=dict)
    regions: dict[str, Target] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    scalars: set[str] = field(default_factory=set)
    unmapped: list[str] = field(default_factory=list)

    @property
    def neurodata_type(self) -> str:
        """Return the object's type, empty for a group without one."""
        return self.hierarchy[self.path].neurodata_type or ""


def _members(hierarchy: Hierarchy, path: str) -> _Members:
    found = _Members(hierarchy, path)
    own_type = found.neurodata_type
    for name in hierarchy.members(path):
        link = hierarchy.links(path).get(name)
        try:
            target = hierarchy.resolve(f"{path}/{name}")
            node = target.node
        except UNREACHABLE as error:
            if link is None:
                found.unmapped.append(f"{path}/{name}".strip("/"))
                warn_caller(
                    f"{found.unmapped[-1]!r} in {hierarchy.location} is skipped. {error}",
                    code=code_of_skipped(error),
                    path=found.unmapped[-1],
                )
                continue
            found.links[name] = linked(link)
            if link.source != ".":
                warn_caller(
                    f"{path!r} in {hierarchy.location} is mapped without its {name!r}: {error}",
                    code="dangling-link",
                    path=path,
                )
            continue
        if link is not None:
            found.links[name] = linked(link)
        if isinstance(node, ArrayNode) and (own_type or (node.neurodata_type is None and link is None)):
            _sort(found, name, target, stored(target.hierarchy, node))
    return found


def _sort(found: _Members, name: str, target: Target, array: StoredArray) -> None:
    node = array.node
    names = dimension_names(found.neurodata_type, name, found.hierarchy) if found.neurodata_type else ()
    if not names and node.neurodata_type is not None:
        names = dimension_names(node.neurodata_type, "", target.hierarchy)
    axes = schema_axes(names, array.shape, series=False) if names else Axes(())
    # The schema fixes its length: grid_spacing has values for x, y and z.
    fixed = array.ndim == 1 and bool(axes.labels)
    one = bool(found.neurodata_type) and is_scalar(found.neurodata_type, name, node, found.hierarchy)
    if is_region(target):
        found.regions[name] = target
    elif array.ndim == 0 or fixed or one:
        found.small[name] = array
        found.scalars |= {name} if one else set()
    else:
        found.arrays[name] = array
        if len(axes.names) == array.ndim:
            found.axes[name] = axes


def _map_region(members: _Members, name: str, options: MappingOptions) -> Mapper[tuple[str, Region]]:
    target = members.regions[name]
    axis = _REGION_AXES.get(name, name.removesuffix("s"))
    region = yield from map_region(target.hierarchy, target.path, options, name=axis, owner=members.path)
    return axis, region


@dataclass(frozen=True)
class _Object:
    """An object whose small values have been read."""

    members: _Members
    values: Mapping[str, NDArray[Any]]
    regions: tuple[tuple[str, Region], ...]
    options: MappingOptions

    def mapped(self) -> MappedObject:
        """Return the mapped object."""
        axes = {name: self._axes(name, array) for name, array in self.members.arrays.items()}
        sizes: defaultdict[str, set[int]] = defaultdict(set)
        for name, array in self.members.arrays.items():
            for word, size in zip(axes[name].names, array.shape, strict=True):
                sizes[word].add(size)
        shared = {word for word, lengths in sizes.items() if len(lengths) == 1}
        if self.members.neurodata_type in _UNRELATED:
            shared = set()
        parts: list[ArrayPart] = []
        indexes: list[IrregularTime | Labels] = []
        for name, array in self.members.arrays.items():
            dimensions = tuple(
                self._dimension(word, size, shared, name)
                for word, size in zip(axes[name].names, array.shape, strict=True)
            )
            if self._is_time(name):
                attributes = array_attributes(self._node, array) | {"units": "s"}
                indexes.append(IrregularTime(dimensions[0], array, attributes))
            else:
                parts.extend(array_parts(self._node, name, array, dimensions))
                indexes.extend(self._labels(axes[name], dimensions))
        for _, region in self.regions:
            parts.extend(region.parts)
            indexes.extend([] if region.labels is None else [region.labels])
        return MappedObject(
            self.members.path, self.members.neurodata_type, tuple(parts), tuple(indexes), self._attributes()
        )

    @property
    def _node(self) -> Node:
        return self.members.hierarchy[self.members.path]

    def _axes(self, name: str, array: StoredArray) -> Axes:
        if name in self.members.axes:
            return self.members.axes[name]
        own = tuple(f"{name}_dim_{axis}" for axis in range(array.ndim))
        if self._is_time(name):
            return Axes(("event",))
        times = [time for time in _TIMES if self._is_time(time)]
        if len(times) == 1 and self._is_unnamed(name, array):
            # No schema names its dimensions, so they are compared by length.
            time = self.members.arrays[times[0]]
            if array.shape[0] == time.size:
                return Axes((*self._axes(times[0], time).names, *own[1:]))
        return Axes(own)

    def _is_unnamed(self, name: str, array: StoredArray) -> bool:
        """Return whether no schema names the dimensions of an array."""
        hierarchy, own = self.members.hierarchy, self.members.neurodata_type
        typed = array.node.neurodata_type
        return not (own and dimension_names(own, name, hierarchy)) and not (
            typed and dimension_names(typed, "", hierarchy)
        )

    def _is_time(self, name: str) -> bool:
        array = self.members.arrays.get(name)
        return name in _TIMES and array is not None and array.ndim == 1 and array.dtype.kind in "iuf"

    def _dimension(self, word: str, size: int, shared: set[str], array: str) -> Dimension:
        for axis, region in self.regions:
            if axis == word and region.dimension.size == size:
                return region.dimension
        name = word if word in shared or word.startswith(f"{array}_") else f"{array}_{word}"
        # A variable named like a dimension would become its coordinate.
        name = f"{name}_" if name in self.members.arrays else name
        own_name = self.members.path.rpartition("/")[2]
        where = (str(self.members.hierarchy.location), self.members.path, name, size)
        return Dimension(
            ("axis", *where), name, f"{own_name}_{name}".removeprefix("_"), size, self.members.path
        )

    def _labels(self, axes: Axes, dimensions: tuple[Dimension, ...]) -> Iterator[Labels]:
        whose = identity(self._node) | {"nwb_derived": "axis"}
        for word, dimension in zip(axes.names, dimensions, strict=True):
            if word in axes.labels:
                yield Labels(dimension, np.asarray(axes.labels[word], object), whose)

    def _attributes(self) -> dict[str, Any]:
        own = object_attributes(self.members.hierarchy, self.members.path)
        described = {
            f"{name}_description": target.node.attributes.get("description")
            for name, target in self.members.regions.items()
        }
        scalars = scalar_attributes(self.values, self.members.small)
        return own | self.members.links | storable(described) | scalars
