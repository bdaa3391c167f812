"""Image plots: images, frames of movies, and masks of ROIs, with x to the right and y downwards."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import (
    ShownColumn,
    ShownObject,
    find_object,
    no_such_label,
    one_label,
    row_ids,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.plot.axes import axes_or_new, with_units
from intake_nwbzarr.accessor.ragged import ragged
from intake_nwbzarr.accessor.times import Time, one_time, session_times, with_seconds
from intake_nwbzarr.arguments import invalid_argument
from intake_nwbzarr.errors import SelectionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = "color"

# Mask values read at once.
_AT_ONCE = 2**23


def draw_image(
    dataset: xr.Dataset, name: str | None, time: Time | None, plane: int, roi: int | None, ax: Axes | None
) -> Axes:
    """Draw one image; see `Plots.image`."""
    images = list(shown_images(dataset))
    shown = [image.shown for image in images]
    found = find_object(dataset, name, shown, "images, movies and masks")
    image = next(image for image in images if image.shown is found)
    plane = _position(plane)
    if roi is not None:
        roi = one_label(roi, "roi", "the id of one ROI")
    if roi is not None and image.column is None:
        raise SelectionError(
            f"{found.name!r} is not a table of masks, so it has no ROI {roi!r}.",
            path=found.path,
            found=roi,
            next_step="Omit roi=.",
        )
    title = found.name
    if image.column is not None:
        values, what = _masks(dataset, image, plane, roi)
        title = f"{title}, {what}"
    else:
        variable = dataset.variables[image.variable]
        if image.time is not None:
            position, label = _frame(dataset, image, time)
            variable = variable.isel({image.time[1]: position})
            title = f"{title}, {label:.3f} s" if isinstance(label, float) else f"{title}, {label}"
        values = _upright(variable, plane, image)
    ax = axes_or_new(ax)
    has_colors = values.ndim == 3
    extent = _extent(dataset, image)
    drawn = ax.imshow(
        _colors(values) if has_colors else values, cmap=None if has_colors else "gray", extent=extent
    )
    ax.set_title(title)
    names = ("x", "y") if extent is None else _labels(dataset, image)
    ax.set(xlabel=names[0], ylabel=names[1], aspect="equal")
    if not has_colors:
        label = with_units("", dataset.variables[image.variable]).strip()
        ax.figure.colorbar(drawn, ax=ax, label=label.strip("[]"), shrink=0.8)
    return ax


@dataclass(frozen=True)
class ShownImage:
    """A variable that can be drawn as an image."""

    shown: ShownObject  # its name and path
    variable: str  # the name of the variable
    x: str  # the names of the dimensions along x, y, z and color; None without one
    y: str
    z: str | None = None
    colors: str | None = None
    time: tuple[str, str] | None = None  # of a movie: the coordinate of its time, and its dimension
    column: ShownColumn | None = None  # of masks: the table's column


def shown_images(dataset: xr.Dataset) -> Iterator[ShownImage]:
    """Yield everything in a Dataset that can be drawn as an image."""
    for found in shown_objects(dataset):
        if found.kind == "table":
            for column in shown_columns(dataset, found):
                yield from _of_column(dataset, found, column)
            continue
        for name in found.variables:
            variable = dataset.variables[name]
            axes = _axes(variable)
            others = [str(dim) for dim in variable.dims if dim not in axes.values()]
            if not {"x", "y"} <= set(axes) or variable.dtype.kind not in "biuf" or len(others) > 1:
                continue
            own = dataset[[name]]
            time = next(((each.name, each.dim) for each in session_times(own) if each.dim in others), None)
            if others and time is None:
                time = (others[0], others[0]) if others[0] in dataset.coords else None
            if others and time is None:
                continue
            called = found.name if name == found.main else name
            shown = ShownObject(
                f"{variable.attrs.get('nwb_path', name)}", "other", called, None, (name,), name
            )
            yield ShownImage(shown, name, axes["x"], axes["y"], axes.get("z"), axes.get(_COLORS), time)


def _of_column(dataset: xr.Dataset, table: ShownObject, column: ShownColumn) -> Iterator[ShownImage]:
    variable = dataset.variables[column.variable]
    shown = ShownObject(
        table.path, "table", table.name, None, (column.variable,), column.variable, table.rows
    )
    if column.label == "image_mask" and not column.bounds:
        axes = _axes(variable)
        if {"x", "y"} <= set(axes):
            yield ShownImage(shown, column.variable, axes["x"], axes["y"], axes.get("z"), column=column)
    elif column.label == "pixel_mask_weight" and len(column.bounds) == 1:
        x, y = (column.variable.removesuffix("weight") + axis for axis in "xy")
        if x in dataset.variables and y in dataset.variables:
            yield ShownImage(shown, column.variable, x, y, column=column)


def _axes(variable: xr.Variable) -> dict[str, str]:
    """Return the dimension of each axis; in a flat Dataset the object's name precedes it."""
    words = ("x", "y", "z", _COLORS)
    return {
        word: str(dim)
        for dim in variable.dims
        for word in words
        if str(dim) == word or str(dim).endswith(f"_{word}")
    }


def _extent(dataset: xr.Dataset, image: ShownImage) -> tuple[float, float, float, float] | None:
    """Return the edges of an image from its pixels' coordinates; None where these are not evenly spaced."""
    # Pixel masks have x and y as variables of numbers, and images may have no coordinates.
    if not {image.x, image.y} <= set(dataset.coords) & set(dataset.dims):
        return None
    sides = [dataset.coords[dim].to_numpy() for dim in (image.x, image.y)]
    steps = [_step(positions) for positions in sides]
    widths = [step for step in steps if step]
    if None in steps or not widths:
        return None
    edges: list[float] = []
    # A single pixel along an axis is as wide as along the other.
    for positions, step in zip(sides, steps, strict=True):
        half = (step or abs(widths[0])) / 2
        edges += [float(positions[0]) - half, float(positions[-1]) + half]
    left, right, top, bottom = edges
    return left, right, bottom, top


def _step(positions: NDArray[Any]) -> float | None:
    """Return the distance of pixels, 0 for a single one, None where they are not evenly spaced numbers."""
    if positions.dtype.kind not in "iuf" or not len(positions) or not np.isfinite(positions).all():
        return None
    if len(positions) == 1:
        return 0.0
    steps = np.diff(positions.astype(np.float64))
    even = steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-6, atol=0)
    return float(positions[-1] - positions[0]) / len(steps) if even else None


def _labels(dataset: xr.Dataset, image: ShownImage) -> tuple[str, str]:
    x, y = (with_units(name, dataset.coords.variables[dim]) for name, dim in (("x", image.x), ("y", image.y)))
    return x, y


def _frame(dataset: xr.Dataset, image: ShownImage, time: Time | None) -> tuple[int, Any]:
    """Return the position of a movie's frame, and its time."""
    assert image.time is not None  # noqa: S101 - for the type checker; the caller checked this
    name, dim = image.time
    if dataset.sizes[dim] == 0:
        raise SelectionError(f"{image.shown.name!r} has no frames.", path=image.shown.path)
    numbered = dataset[[name]].drop_vars([each for each in dataset.coords if each != name], errors="ignore")
    for each in session_times(numbered):
        numbered = with_seconds(numbered, each)
    numbered["frame"] = (dim, np.arange(dataset.sizes[dim]))
    chosen = numbered.isel({dim: 0})
    if time is not None:
        wanted = one_time(time, "time", dataset.attrs)
        chosen = numbered.sel({name: wanted}, method="nearest")
    return int(chosen["frame"]), chosen[name].item()


def _position(plane: object) -> int:
    try:
        return operator.index(plane)  # type: ignore[arg-type]
    except TypeError:
        raise invalid_argument("plane", plane, "a position along z") from None


def _upright(variable: xr.Variable, plane: int, image: ShownImage) -> NDArray[Any]:
    """Return values as (y, x), or (y, x, color); of a volume, one plane."""
    if image.z is not None:
        size = variable.sizes[image.z]
        if not -size <= plane < size:
            raise SelectionError(
                f"There is no plane {plane} in {image.shown.name!r}, which has {size}.",
                path=image.shown.path,
                found=plane,
                expected=range(-size, size),
            )
        variable = variable.isel({image.z: plane})
    order = [dim for dim in (image.y, image.x, image.colors) if dim is not None]
    return variable.transpose(..., *order).to_numpy()


def _colors(values: NDArray[Any]) -> NDArray[Any]:
    """Return colors as matplotlib expects them: 8 bits, or floats from 0 to 1."""
    if values.dtype == np.uint8:
        return values
    largest = values.max(initial=0)
    scale = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else max(float(largest), 1.0)
    return np.clip(values / scale, 0, 1)


def _masks(dataset: xr.Dataset, image: ShownImage, plane: int, roi: int | None) -> tuple[NDArray[Any], str]:
    """Return the masks of all ROIs, or of one, as (y, x)."""
    rows = image.shown.rows
    assert rows is not None  # noqa: S101 - for the type checker; masks are in tables.
    assert image.column is not None  # noqa: S101
    ids = row_ids(dataset, image.shown)
    chosen = np.arange(len(ids)) if roi is None else np.flatnonzero(ids == roi)
    if not len(ids):
        raise SelectionError(f"{image.shown.name!r} has no ROIs in this Dataset.", path=image.shown.path)
    if not len(chosen):
        raise no_such_label("ROI", roi, image.shown, ids)
    what = f"{len(ids)} ROIs" if roi is None else f"ROI {roi}"
    if image.column.bounds:
        return _from_pixels(dataset, image, chosen), what
    variable = dataset.variables[image.variable]
    step = max(_AT_ONCE // max(variable.size // max(len(ids), 1), 1), 1)
    parts = (variable.isel({rows: chosen[first : first + step]}) for first in range(0, len(chosen), step))
    largest: NDArray[Any] | None = None
    for part in parts:
        values = _upright(part, plane, image).max(axis=0)
        largest = values if largest is None else np.maximum(largest, values)
    assert largest is not None  # noqa: S101 - at least one ROI was chosen.
    return largest, what


def _from_pixels(dataset: xr.Dataset, image: ShownImage, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return an image of pixel masks, large enough for the pixels of all ROIs."""
    assert image.column is not None  # noqa: S101 - for the type checker; the caller checked this
    weight = image.variable
    starts, counts = ragged(dataset, weight).bounds()
    x, y = (dataset.variables[name].to_numpy().astype(np.intp) for name in (image.x, image.y))
    drawn = np.zeros((int(y.max(initial=0)) + 1, int(x.max(initial=0)) + 1))
    weights = dataset.variables[weight].to_numpy()
    of_rois = [np.arange(starts[row], starts[row] + counts[row]) for row in chosen]
    pixels = np.concatenate(of_rois) if of_rois else np.empty(0, np.intp)
    np.maximum.at(drawn, (y[pixels], x[pixels]), weights[pixels])
    return drawn
