"""Images: a container's pictures as variables, and a dataset that has a type of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
        Images of unequal size have dimensions of their own, ``<image>_x``. ``order_of_images``, where the
        file says it, holds the images' paths in order, on ``image``.
    """
    yield from values_of([])
    nodes = [hierarchy[f"{path}/{name}"] for name in hierarchy.children(path)]
    arrays = [stored(hierarchy, node) for node in nodes if isinstance(node, ArrayNode)]
    sizes = {array.shape[:2] for array in arrays if array.ndim > 1}
    parts: list[Part] = []
    labels: list[Labels] = []
    for array in arrays:
        prefix = "" if len(sizes) <= 1 or array.ndim <= 1 else f"{array.node.name}_"
        axes = _axes(hierarchy, array, options)
        dimensions = _dimensions(array, axes, prefix, hierarchy[path])
        parts.extend(array_parts(hierarchy[path], array.node.name, array, dimensions))
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
    dimensions = _dimensions(array, axes, "", node)
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


def _dimensions(array: StoredArray, axes: Axes, prefix: str, owner: Node) -> tuple[Dimension, ...]:
    where, name = str(array.location), owner.path.rpartition("/")[2]
    return tuple(
        Dimension(
            ("axis", where, owner.path, f"{prefix}{axis}", size),
            f"{prefix}{axis}",
            f"{name}_{prefix}{axis}",
            size,
            owner.path,
        )
        for axis, size in zip(axes.names, array.shape, strict=True)
    )


def _labels(axes: Axes, dimensions: Sequence[Dimension]) -> Iterator[Labels]:
    for axis, dimension in zip(axes.names, dimensions, strict=True):
        if axis in axes.labels:
            yield Labels(dimension, np.asarray(axes.labels[axis], object))
