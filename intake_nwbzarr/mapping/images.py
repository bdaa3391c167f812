"""Map Images containers and the images, external files and indexed images of series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.arrays.computed import Elementwise, Lookup
from intake_nwbzarr.errors import ChunkError, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, Node
from intake_nwbzarr.mapping.attributes import array_parts, as_strings, identity, object_attributes, paths_of
from intake_nwbzarr.mapping.model import (
    ArrayPart,
    Dimension,
    IrregularTime,
    Labels,
    MappedObject,
    Mapper,
    RegularTime,
    stored,
    values_of,
)
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.schema import dimension_names
from intake_nwbzarr.mapping.series_layout import Axes, SeriesMembers, rows_first, schema_axes
from intake_nwbzarr.mapping.series_parts import TimeBase

ORDER = "order_of_images"


def map_images(hierarchy: Hierarchy, path: str, options: MappingOptions) -> Mapper[MappedObject]:
    """Map an Images container: a variable for each image, ``(x, y)`` or ``(x, y, color)``."""
    # Colors are labelled r, g, b and a; an ExternalImage is its path, a scalar. Images of different sizes
    # have dimensions of their own, <image>_x; `order_of_images` has the images' paths in order, on `image`.
    yield from values_of([])
    nodes = [hierarchy[f"{path}/{name}"] for name in hierarchy.children(path)]
    arrays = [stored(hierarchy, node) for node in nodes if isinstance(node, ArrayNode)]
    images = [(array, _axes(hierarchy, array, options)) for array in arrays]
    sizes: defaultdict[str, set[int]] = defaultdict(set)
    for array, axes in images:
        for axis, size in zip(axes.names, array.shape, strict=True):
            sizes[axis].add(size)
    unequal = {axis for axis, found in sizes.items() if len(found) > 1}
    # If images differ in width or height, they share neither x nor y.
    unequal |= {"x", "y"} if unequal & {"x", "y"} else set()
    parts: list[ArrayPart] = []
    labels: list[Labels] = []
    for array, axes in images:
        dimensions = _dimensions(array, axes, unequal, hierarchy[path])
        made = array_parts(hierarchy[path], array.node.name, array, dimensions)
        parts.extend(replace(part, object=array.node.path) for part in made)
        labels.extend(_labels(hierarchy[path], axes, dimensions))
    kind = hierarchy[path].neurodata_type or "Images"
    return MappedObject(path, kind, tuple(parts), tuple(labels), object_attributes(hierarchy, path))


def map_array(hierarchy: Hierarchy, path: str, options: MappingOptions) -> Mapper[MappedObject]:
    """Map a dataset that is an object itself: ScratchData, or an image outside of an Images container."""
    yield from values_of([])
    node = hierarchy[path]
    assert isinstance(node, ArrayNode)  # noqa: S101 - for the type checker; `kind_of` checked this
    array = stored(hierarchy, node)
    axes = _axes(hierarchy, array, options)
    dimensions = _dimensions(array, axes, set(), node)
    parts = tuple(array_parts(node, "data", array, dimensions, "main"))
    labels = tuple(_labels(node, axes, dimensions))
    return MappedObject(path, node.neurodata_type or "", parts, labels, object_attributes(hierarchy, path))


def _axes(hierarchy: Hierarchy, array: StoredArray, options: MappingOptions) -> Axes:
    """Return the names of an array's axes by its own type, otherwise ``dim_<k>``."""
    names = dimension_names(array.node.neurodata_type or "", "", hierarchy)
    known = any(len(option) == array.ndim for alternatives in names for option in alternatives)
    if not known:
        return Axes(tuple(f"dim_{axis}" for axis in range(array.ndim)))
    axes = schema_axes(names, array.shape, series=False)
    return rows_first(axes) if options.image_axes == "yx" else axes


def _dimensions(
    array: StoredArray, axes: Axes, unequal: Container[str], owner: Node
) -> tuple[Dimension, ...]:
    """Return an image's dimensions, which images of equal size in a container share."""

    def dimension(axis: str, size: int) -> Dimension:
        name = f"{array.node.name}_{axis}" if axis in unequal else axis
        identity = ("axis", str(array.location), owner.path, name, size)
        return Dimension(identity, name, f"{owner.name}_{name}", size, owner.path)

    return tuple(dimension(axis, size) for axis, size in zip(axes.names, array.shape, strict=True))


def _labels(owner: Node, axes: Axes, dimensions: Sequence[Dimension]) -> Iterator[Labels]:
    whose = identity(owner) | {"nwb_derived": "axis"}
    for axis, dimension in zip(axes.names, dimensions, strict=True):
        if axis in axes.labels:
            yield Labels(dimension, np.asarray(axes.labels[axis], object), whose)


_FILES = "external_file"
_FIRST_FRAMES = "starting_frame"


def external_files(
    members: SeriesMembers, values: Mapping[str, NDArray[Any]], time: TimeBase
) -> tuple[ArrayPart, ...]:
    """Map the files with the frames of an ImageSeries to a table; they are never opened."""
    # `external_file` is the path as stored, `starting_frame` the number of a file's first frame,
    # `external_file_time` the time of that frame in seconds.
    if _FILES not in values:
        return ()
    files = as_strings(np.atleast_1d(values[_FILES])).astype(object)
    node = members.small[_FILES].node
    where = (str(members.hierarchy.location), members.path, "file")
    dimension = Dimension(("axis", *where), "file", f"{members.name}_file", files.size, members.path)
    own = {"neurodata_type": members.neurodata_type} | identity(node)
    table: tuple[ArrayPart, ...] = (ArrayPart(_FILES, (dimension,), files, own),)
    first = node.attributes.get(_FIRST_FRAMES, [0] if files.size == 1 else [])
    # NumPy raises for lists of unequal lengths.
    frames = np.atleast_1d(np.asarray(first if _is_flat(first) else None))
    if frames.shape != files.shape or frames.dtype.kind not in "iu":
        warn_caller(
            f"{members.where} has {files.size} external files but the first frames {first}, which are "
            "ignored.",
            code="invalid-external-files",
            path=members.path,
        )
        return table
    first_frames = own | {"nwb_field": _FIRST_FRAMES}
    table += (ArrayPart(_FIRST_FRAMES, (dimension,), frames.astype(np.int64), first_frames),)
    times = _times_of(frames.astype(np.int64), members, time)
    if times is not None:
        described = own | {
            "units": "s",
            "description": "time of each file's first frame",
            "nwb_derived": "time",
        }
        table += (ArrayPart(f"{_FILES}_time", (dimension,), times, described, is_time=True),)
    return table


def _is_flat(value: Any) -> bool:
    return not isinstance(value, list | tuple) or not any(isinstance(each, list | dict) for each in value)


def _times_of(
    frames: NDArray[np.int64], members: SeriesMembers, time: TimeBase
) -> NDArray[np.float64] | Lookup | None:
    base = next(iter(time.indexes), None)
    if isinstance(base, RegularTime):
        return base.starting_time + frames / base.rate
    if isinstance(base, IrregularTime):
        if frames.size and not 0 <= frames.min() <= frames.max() < base.timestamps.size:
            warn_caller(
                f"{members.where} has files that begin at frames {frames.tolist()}, but only "
                f"{base.timestamps.size} timestamps: the files have no times.",
                code="invalid-external-files",
                path=members.path,
            )
            return None
        return Lookup(base.timestamps, frames, base.timestamps.node.path)
    return None


def order_of_images(members: SeriesMembers) -> StoredArray | None:
    """Return the references to the images that an IndexSeries numbers, or None."""
    link = members.links.get("indexed_images")
    if link is None:
        return None
    try:
        target = members.hierarchy.resolve(f"{members.path}/indexed_images")
        order = target.hierarchy.get(f"{target.path}/{ORDER}")
    except UNREACHABLE:
        return None
    return stored(target.hierarchy, order) if isinstance(order, ArrayNode) else None


def indexed_images(
    members: SeriesMembers, order: NDArray[Any] | None, dimensions: tuple[Dimension, ...]
) -> tuple[ArrayPart, ...]:
    """Map the data of an IndexSeries to the names of images: ``image``, along its time."""
    if order is None or members.data is None or members.data.dtype.kind not in "iu":
        return ()
    # Missing images have an empty name.
    container = members.hierarchy.resolve(f"{members.path}/indexed_images").hierarchy
    paths = paths_of(order).ravel().tolist()
    names = tuple(path.rpartition("/")[2] if path in container else "" for path in paths)
    if missing := [path for path in paths if path not in container]:
        warn_caller(
            f"{members.where} refers to {len(missing)} images that are not in the file, such as "
            f"{missing[0]!r}; their samples have an empty name.",
            code="dangling-reference",
            path=members.path,
        )
    array = Elementwise(_names_at, (members.data,), np.dtype(object), (names, members.data.node.path))
    named = f"name of the image in {members.links['indexed_images']!r}"
    described = {"description": named, "nwb_derived": "image"}
    whose = {"neurodata_type": members.neurodata_type} | identity(members.data.node)
    return (ArrayPart("image", dimensions, array, whose | described),)


def _names_at(names: tuple[str, ...], path: str, positions: NDArray[Any]) -> NDArray[Any]:
    if positions.size and (positions.min() < 0 or positions.max() >= len(names)):
        outside = positions[(positions < 0) | (positions >= len(names))].flat[0]
        raise ChunkError(
            f"{path!r} contains {outside}, which is not the number of one of its {len(names)} images.",
            path=path,
            found=int(outside),
            expected=range(len(names)),
            next_step="The file is damaged; the stored numbers are in the series' data.",
        )
    return np.asarray(names, object)[positions.astype(np.int64)]
