"""Images: a container's pictures as variables, and a dataset that has a type of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

import numpy as np

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, Node
from intake_nwbzarr.neurodata.array_parts import array_parts
from intake_nwbzarr.neurodata.axes import Axes, rows_first, schema_axes
from intake_nwbzarr.neurodata.metadata import object_attributes
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.pieces import Dimension, Labels, Mapper, Part, Piece, stored, values_of
from intake_nwbzarr.neurodata.types import dimension_names

ORDER = "order_of_images"


def map_images(hierarchy: Hierarchy, path: str, options: MappingOptions) -> Mapper[Piece]:
    """Map an Images container.

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
        One variable for each image, of its name: ``(x, y)`` for grey ones, ``(x, y, color)`` with ``color``
        labelled ``r``, ``g``, ``b`` and ``a`` for coloured ones, the path in a scalar for an ExternalImage.
        Where images differ in size, each has dimensions of its own, ``<image>_x``. ``order_of_images``, where
        the file says it, holds the images' paths in order, on ``image``.
    """
    yield from values_of([])
    nodes = [hierarchy[f"{path}/{name}"] for name in hierarchy.children(path)]
    arrays = [stored(hierarchy, node) for node in nodes if isinstance(node, ArrayNode)]
    images = [(array, _axes(hierarchy, array, options)) for array in arrays]
    sizes: defaultdict[str, set[int]] = defaultdict(set)
    for array, axes in images:
        for axis, size in zip(axes.names, array.shape, strict=True):
            sizes[axis].add(size)
    unequal = {axis for axis, found in sizes.items() if len(found) > 1}
    # A pixel is a place in both directions: one that differs parts the other.
    unequal |= {"x", "y"} if unequal & {"x", "y"} else set()
    parts: list[Part] = []
    labels: list[Labels] = []
    for array, axes in images:
        dimensions = _dimensions(array, axes, unequal, hierarchy[path])
        made = array_parts(hierarchy[path], array.node.name, array, dimensions)
        parts.extend(replace(part, object=array.node.path) for part in made)
        labels.extend(_labels(axes, dimensions))
    kind = hierarchy[path].neurodata_type or "Images"
    return Piece(path, kind, tuple(parts), tuple(labels), object_attributes(hierarchy, path))


def map_array(hierarchy: Hierarchy, path: str, options: MappingOptions) -> Mapper[Piece]:
    """Map a dataset that is an object by itself: ScratchData, or an image outside of an Images container.

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
        ``data``, on the dimensions of its type where that has some, else ``dim_<k>``.
    """
    yield from values_of([])
    node = hierarchy[path]
    assert isinstance(node, ArrayNode)  # noqa: S101 - for the type checker; objects.py looked.
    array = stored(hierarchy, node)
    axes = _axes(hierarchy, array, options)
    dimensions = _dimensions(array, axes, set(), node)
    parts = tuple(array_parts(node, "data", array, dimensions, "main"))
    labels = tuple(_labels(axes, dimensions))
    return Piece(path, node.neurodata_type or "", parts, labels, object_attributes(hierarchy, path))


def _axes(hierarchy: Hierarchy, array: StoredArray, options: MappingOptions) -> Axes:
    """The names of an array's axes, by its own type."""
    names = dimension_names(array.node.neurodata_type or "", "", hierarchy)
    known = any(len(option) == array.ndim for alternatives in names for option in alternatives)
    if not known:
        return Axes(tuple(f"dim_{axis}" for axis in range(array.ndim)))
    axes = schema_axes(names, array.shape, series=False)
    return rows_first(axes) if options.image_axes == "yx" else axes


def _dimensions(
    array: StoredArray, axes: Axes, unequal: Container[str], owner: Node
) -> tuple[Dimension, ...]:
    """An image's dimensions: shared with the others of its container where these are of its size."""

    def dimension(axis: str, size: int) -> Dimension:
        name = f"{array.node.name}_{axis}" if axis in unequal else axis
        identity = ("axis", str(array.location), owner.path, name, size)
        return Dimension(identity, name, f"{owner.name}_{name}", size, owner.path)

    return tuple(dimension(axis, size) for axis, size in zip(axes.names, array.shape, strict=True))


def _labels(axes: Axes, dimensions: Sequence[Dimension]) -> Iterator[Labels]:
    for axis, dimension in zip(axes.names, dimensions, strict=True):
        if axis in axes.labels:
            yield Labels(dimension, np.asarray(axes.labels[axis], object))
