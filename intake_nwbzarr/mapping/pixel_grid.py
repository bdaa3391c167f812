"""Pixel positions: the x, y and z of an imaging plane's pixels, as coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.mapping.attributes import scalar
from intake_nwbzarr.mapping.model import Dimension, Labels, Mapper, stored, values_of

_AXES = ("x", "y", "z")

# The units of files, as powers of ten of a metre.
_METRES = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 0),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetres"), -3),
    **dict.fromkeys(("um", "µm", "micrometer", "micrometers", "micrometres", "micron", "microns"), -6),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometres"), -9),
}


@dataclass(frozen=True)
class PixelGrid:
    """The grid of an imaging plane."""

    path: str  # of the imaging plane
    spacing: NDArray[np.float64]  # of pixels, (axis,)
    origin: NDArray[np.float64]  # of the first pixel, (axis,); zero by default
    unit: str  # of both

    def labels(self, dimensions: Iterable[Dimension]) -> Iterator[Labels]:
        """Yield the positions of pixels along the dimensions x, y and z of an image."""
        for dimension in dimensions:
            axis = _AXES.index(dimension.name) if dimension.name in _AXES else len(self.spacing)
            if axis < len(self.spacing):
                values = self.origin[axis] + np.arange(dimension.size) * self.spacing[axis]
                where = {"nwb_path": f"{self.path}/grid_spacing", "nwb_derived": "position"}
                yield Labels(dimension, values, {"units": self.unit} | where)


def map_grid(hierarchy: Hierarchy, path: str) -> Mapper[PixelGrid | None]:
    """Read the grid of the imaging plane that a series or segmentation links to, or None."""
    arrays = _arrays(hierarchy, path)
    values = yield from values_of(list(arrays.values()))
    found = dict(zip(arrays, values, strict=True))
    spacing = found.get("grid_spacing")
    if spacing is None or spacing.ndim != 1 or spacing.dtype.kind not in "iuf":
        return None
    unit = _unit(arrays["grid_spacing"])
    plane = arrays["grid_spacing"].node.path.rpartition("/")[0]
    origin = np.zeros(spacing.size)
    stored_origin = found.get("origin_coords")
    if stored_origin is not None and stored_origin.shape == spacing.shape:
        theirs = _unit(arrays["origin_coords"])
        if theirs != unit and not {theirs, unit} <= _METRES.keys():
            warn_caller(
                f"The imaging plane {plane!r} in {hierarchy.location} has its spacing in {unit!r} and its "
                f"origin in {theirs!r}, of which one unit is unknown: pixels have no positions.",
                code="unknown-unit",
                path=plane,
            )
            return None
        scale = 10.0 ** (_METRES[theirs] - _METRES[unit]) if theirs != unit else 1.0
        origin = stored_origin.astype(np.float64) * scale
    return PixelGrid(plane, spacing.astype(np.float64), origin, unit)


def _arrays(hierarchy: Hierarchy, path: str) -> dict[str, StoredArray]:
    if "imaging_plane" not in hierarchy.links(path):
        return {}
    try:
        plane = hierarchy.resolve(f"{path}/imaging_plane")
    except UNREACHABLE:
        return {}  # the link itself is an attribute
    nodes = {name: plane.hierarchy.get(f"{plane.path}/{name}") for name in ("grid_spacing", "origin_coords")}
    return {
        name: stored(plane.hierarchy, node) for name, node in nodes.items() if isinstance(node, ArrayNode)
    }


def _unit(array: StoredArray) -> str:
    # The schema's default.
    value: Any = scalar(array.node.attributes.get("unit"))
    return str(value) if value else "meters"
