"""Pictures of images: contours of ROIs over a mean image, still images, and frames of movies."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import row_ids
from intake_nwbzarr.accessor.plot.images import ShownImage, shown_images
from intake_nwbzarr.accessor.ragged import ragged
from intake_nwbzarr.pages.budget import PICTURE_BYTES, PICTURE_CHUNKS, Cost, evenly
from intake_nwbzarr.pages.lines import check_values
from intake_nwbzarr.pages.picture import NothingToDrawError, own_name, parent
from intake_nwbzarr.pages.plans import Drawing, PageSession, Plan, short
from intake_nwbzarr.transport.request_log import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROIS = 120
_MOST_NAMED = 30
_MOST_MASK_CHUNKS = 1280
_MOST_PIXELS = 2_000_000
_LONGEST_SIDE = 8192
MOST_TABLES = 3
MOST_IMAGES = 6
MOST_MOVIES = 3

# Names of images that show where cells are, the best first.
_MEANS = ("mean", "average", "avg", "summary", "max", "correlation")

_CONTOUR = "#ffa21f"

_AXES = "x to the right, y down"


def plan_images(session: PageSession) -> Iterator[Plan]:
    """Plan contours of the ROIs of each plane, still images by their group, and a frame of each movie."""
    images = [each for each in shown_images(session.timed) if session.timed.variables[each.variable].size]
    masks = {each.shown.path: each for each in reversed(images) if each.column is not None}
    movies = [each for each in images if each.column is None and each.time is not None]
    still = [each for each in images if each.column is None and each.time is None]
    for image in [*masks.values()][::-1][:MOST_TABLES]:
        read = partial(_rois, session, image, still, movies)
        yield Plan("rois", f"ROIs of {image.shown.name}", (image.shown.path,), read)
    groups: dict[str, list[ShownImage]] = {}
    for image in still:
        groups.setdefault(parent(image.shown.path), []).append(image)
    for group, members in list(groups.items())[:MOST_TABLES]:
        paths = tuple(image.shown.path for image in members[:MOST_IMAGES])
        yield Plan("images", f"Images in {own_name(group) or '/'}", paths, partial(_stills, session, members))
    for image in movies[:MOST_MOVIES]:
        read = partial(_movie, session, image)
        yield Plan("movie", f"A frame of {image.shown.name}", (image.shown.path,), read)


def _rois(
    session: PageSession, image: ShownImage, still: list[ShownImage], movies: list[ShownImage]
) -> Drawing:
    table = image.shown
    total = session.timed.sizes[str(table.rows)]
    masks, rows = (
        _pixel_masks(session, image) if image.column and image.column.bounds else _image_masks(session, image)
    )
    if not any(mask[0].size for mask in masks):
        raise ValueError("its masks are empty")
    shape = _shape(session, image, masks)
    if max(shape) > _LONGEST_SIDE:
        raise ValueError(f"its masks have pixels at {max(shape):,}; at most {_LONGEST_SIDE:,} are drawn")
    background, below = _background(session, image, shape, still, movies)
    names = row_ids(session.timed, table)[rows].tolist()
    shown = counted(total, "ROI") if len(rows) == total else f"{len(rows)} of {counted(total, 'ROI')}"
    caption = f"{shown}, {below}"

    def draw(figure: Figure) -> None:
        """Draw the image, and a contour around the pixels of each ROI that are above half of its largest."""
        axes = figure.subplots()
        picture = _union(masks, shape) if background is None else background
        axes.imshow(picture, cmap="gray", interpolation="nearest")
        for (y, x, weight), name in zip(masks, names, strict=True):
            _contour(axes, y, x, weight, str(name) if len(masks) <= _MOST_NAMED else "")
        _framed(axes)
        # Contours at the edge do not widen the plane.
        height, width = picture.shape[:2]
        axes.set(
            xlabel="x [pixels]", ylabel="y [pixels]", xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5)
        )

    return Drawing(draw, 4.0, caption)


type _Mask = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]


def _image_masks(session: PageSession, image: ShownImage) -> tuple[list[_Mask], NDArray[np.intp]]:
    """Read masks that are images, of as many ROIs as may be read: the pixels of each."""
    table = str(image.shown.rows)
    variable = session.timed.variables[image.variable]
    total = variable.sizes[table]
    plane = {} if image.z is None else {image.z: np.array([variable.sizes[image.z] // 2])}
    one = session.budget.cost(variable, {table: np.array([0]), **plane})
    session.budget.check(one, "a mask")
    rows = evenly(total, min(_MOST_ROIS, max(_MOST_MASK_CHUNKS // max(one.chunks, 1), 1)))
    # Masks are mostly zeros, of which compressed chunks say nothing beforehand: more and more are read at
    # once, until they have received their share. An even part of the rows comes first.
    order = np.concatenate([rows[::4], rows[2::4], rows[1::4], rows[3::4]])
    masks: dict[int, _Mask] = {}
    before, size = session.budget.received, 1
    while len(masks) < len(order) and session.budget.received - before < 2 * PICTURE_BYTES:
        batch = order[len(masks) : len(masks) + size]
        cost = session.budget.cost(variable, {table: batch, **plane})
        if cost.bytes > session.budget.left:
            if size == 1:
                break
            size = 1
            continue
        part = variable.isel({table: batch, **plane})
        part = part if image.z is None else part.isel({image.z: 0})
        for row, mask in zip(batch.tolist(), part.transpose(table, image.y, image.x).to_numpy(), strict=True):
            y, x = np.nonzero(mask)
            masks[row] = y, x, mask[y, x].astype(np.float64)
        size *= 3
    return [masks[row] for row in sorted(masks)], np.array(sorted(masks), np.intp)


def _pixel_masks(session: PageSession, image: ShownImage) -> tuple[list[_Mask], NDArray[np.intp]]:
    """Read masks that are lists of pixels, of as many ROIs as may be read."""
    dataset = session.timed
    found = ragged(dataset, image.variable)
    if image.column is not None:
        bounds = dataset.variables[image.column.bounds[0]["count"]]
        session.budget.check(session.budget.cost(bounds), "which pixels are whose")
    starts, counts = found.bounds()
    rows = evenly(len(counts), _MOST_ROIS)
    (dim,) = found.values.dims
    # The counts are the file's, and may be of any size.
    while len(rows) > 1 and int(counts[rows].sum()) > _MOST_PIXELS:
        rows = rows[::2]
    if int(counts[rows].sum()) > _MOST_PIXELS:
        raise ValueError(f"one mask has {int(counts[rows].sum()):,} pixels")
    variables = [dataset.variables[name] for name in (image.y, image.x, image.variable)]
    while True:
        positions = np.concatenate(
            [np.arange(starts[row], starts[row] + counts[row]) for row in rows]
        ).astype(np.intp)
        cost = session.budget.cost(variables[2], {str(dim): positions})
        if (cost.bytes <= 2 * PICTURE_BYTES and cost.chunks <= PICTURE_CHUNKS) or len(rows) <= 1:
            break
        rows = rows[::2]
    session.budget.check(cost, "the masks")
    y, x, weight = (each.isel({dim: positions}).to_numpy() for each in variables)
    ends = np.cumsum(counts[rows])[:-1]
    parts = (
        np.split(y.astype(np.intp), ends),
        np.split(x.astype(np.intp), ends),
        np.split(weight.astype(np.float64), ends),
    )
    return list(zip(*parts, strict=True)), rows


def _shape(session: PageSession, image: ShownImage, masks: list[_Mask]) -> tuple[int, int]:
    """Return the shape of a plane, (y, x); of pixel masks, large enough for all pixels."""
    if image.column is None or not image.column.bounds:
        variable = session.timed.variables[image.variable]
        return variable.sizes[image.y], variable.sizes[image.x]
    y = max(int(mask[0].max(initial=0)) for mask in masks) + 1
    return y, max(int(mask[1].max(initial=0)) for mask in masks) + 1


def _background(
    session: PageSession,
    image: ShownImage,
    shape: tuple[int, int],
    still: list[ShownImage],
    movies: list[ShownImage],
) -> tuple[NDArray[Any] | None, str]:
    """Return the image below the contours, (y, x), and what it is; None where none can be read."""
    listed = bool(image.column and image.column.bounds)

    def fits(other: ShownImage) -> bool:
        """Return whether another image is of the same plane."""
        if other.colors is not None or other.z is not None:
            return False
        sizes = session.timed.variables[other.variable].sizes
        y, x = sizes[other.y], sizes[other.x]
        return (y >= shape[0] and x >= shape[1]) if listed else (y, x) == shape

    def rank(other: ShownImage) -> int:
        """Return how well an image shows where cells are, by its name."""
        name = own_name(other.shown.path).lower()
        return next((number for number, word in enumerate(_MEANS) if word in name), len(_MEANS))

    for other in sorted(filter(fits, still), key=rank):
        variable = session.timed.variables[other.variable]
        if session.budget.cost(variable).bytes <= min(2 * PICTURE_BYTES, session.budget.left):
            return _clipped(variable.transpose(other.y, other.x).to_numpy()), f"over {other.shown.name}"
    for other in filter(fits, movies):
        frames = _frames(session, other)
        if frames is not None:
            return _clipped(
                frames.mean(axis=0)
            ), f"over the mean of {counted(len(frames), 'frame')} of {other.shown.name}"
    return None, "over the masks themselves, as no image of the plane can be read"


def _frames(session: PageSession, image: ShownImage) -> NDArray[Any] | None:
    """Return frames of a movie from its first chunks, (frame, y, x), None where these are too large."""
    if image.time is None:
        return None
    variable, dim = session.timed.variables[image.variable], image.time[1]
    number = session.budget.longest(variable, dim, 0, 100)
    part = {dim: slice(0, number)}
    cost = session.budget.cost(variable, part)
    if not number or cost.bytes > session.budget.left or cost.chunks > PICTURE_CHUNKS:
        return None
    return variable.isel(part).transpose(dim, image.y, image.x).to_numpy()


def _clipped(values: NDArray[Any]) -> NDArray[Any]:
    """Return an image between its first and last hundredth, so that outliers do not hide the rest."""
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not known.size:
        return values
    low, high = np.percentile(known, [1, 99.5])
    return np.clip(values, low, high) if high > low else values


def _union(masks: list[_Mask], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the largest weight of each pixel."""
    drawn = np.zeros(shape)
    for y, x, weight in masks:
        np.maximum.at(drawn, (y, x), weight)
    return drawn


def _contour(
    axes: Axes, y: NDArray[np.intp], x: NDArray[np.intp], weight: NDArray[np.float64], name: str
) -> None:
    """Draw a contour at half of the largest weight, on the part of the plane that the mask is in."""
    if not len(weight) or not weight.max() > 0:
        return
    top, left = int(y.min()) - 1, int(x.min()) - 1
    part = np.zeros((int(y.max()) - top + 2, int(x.max()) - left + 2))
    np.maximum.at(part, (y - top, x - left), weight)
    axes.contour(
        np.arange(part.shape[1]) + left, np.arange(part.shape[0]) + top, part,
        levels=[float(weight.max()) / 2], colors=_CONTOUR, linewidths=0.9,
    )  # fmt: skip
    if name:
        # Beside the contour, which is small where the plane is large.
        axes.annotate(
            short(name, 8), (float(x.max()) + 0.5, float(np.average(y, weights=weight))), (2, 0),
            textcoords="offset points", color=_CONTOUR, fontsize=7, ha="left", va="center",
            annotation_clip=True, clip_on=True,
        )  # fmt: skip


def _stills(session: PageSession, members: list[ShownImage]) -> Drawing:
    chosen: list[tuple[ShownImage, Any]] = []
    total = Cost(0, 0)
    without: dict[str, str] = {}
    for image in members[:MOST_IMAGES]:
        variable = session.timed.variables[image.variable]
        total += session.budget.cost(variable)
        if total.bytes > min(2 * PICTURE_BYTES, session.budget.left) or total.chunks > PICTURE_CHUNKS:
            without[image.shown.path] = "it is larger than a picture may be"
            continue
        loaded = session.budget.load(session.timed[[image.variable]])
        try:
            check_values(loaded[image.variable].to_numpy())
        except NothingToDrawError as error:
            without[image.shown.path] = str(error)
            continue
        chosen.append((image, loaded))
    if not chosen:
        session.budget.check(total, "the images")
        if without:
            raise NothingToDrawError("; ".join(dict.fromkeys(without.values())))
        raise ValueError("its images are larger than a picture may be")
    caption = ", ".join(short(own_name(image.shown.path), 30) for image, _ in chosen)
    number = len(members) - len(chosen)
    caption += f"; {counted(number, 'more image')} not shown" if number else ""
    caption += f"; {_AXES}"
    columns = min(len(chosen), 3)
    rows = -(-len(chosen) // columns)

    def draw(figure: Figure) -> None:
        """Draw the images beside one another, as `ds.nwb.plot.image` does."""
        grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axes, (image, loaded) in zip(grid, chosen, strict=False):
            _as_plotted(axes, loaded, image, short(own_name(image.shown.path), 24))
            axes.set(xlabel="", ylabel="", xticks=[], yticks=[])
        for axes in grid[len(chosen) :]:
            axes.set_axis_off()

    return Drawing(draw, {1: 3.6, 2: 2.6, 3: 2.0}[columns] * rows, caption, without)


def _movie(session: PageSession, image: ShownImage) -> Drawing:
    assert image.time is not None  # noqa: S101 - for the type checker; movies have times
    name, dim = image.time
    variable = session.timed.variables[image.variable]
    middle = 0 if variable.sizes[dim] < 3 else session.window(image.shown, 1).start if image.shown.main else 0
    part = {dim: slice(middle, middle + 1)}
    session.budget.check(session.budget.cost(variable, part), f"a frame of {image.shown.name!r}")
    wanted = [each for each in (image.variable, name) if each in session.timed.variables]
    loaded = session.budget.load(session.timed[wanted].isel(part))
    time = loaded[name].to_numpy() if name in loaded.coords else None
    at = "" if time is None or not len(time) else f" at {float(time[0]):,.3f} s"
    caption = f"1 of {counted(variable.sizes[dim], 'frame')}{at}{_plane(session, image)}; {_AXES}"

    def draw(figure: Figure) -> None:
        """Draw the frame as `ds.nwb.plot.image` does."""
        _as_plotted(figure.subplots(), loaded, image, "")

    return Drawing(draw, 3.6, caption)


def _plane(session: PageSession, image: ShownImage) -> str:
    """Return which plane of a volume is shown: the first one, as `ds.nwb.plot.image` does."""
    return "" if image.z is None else f", plane 1 of {session.timed.variables[image.variable].sizes[image.z]}"


def _framed(axes: Axes) -> None:
    """Draw a thin frame, so that white parts do not look like the page."""
    for side in axes.spines.values():
        side.set(visible=True, linewidth=0.5)


def _as_plotted(axes: Axes, loaded: Any, image: ShownImage, title: str) -> None:
    loaded.nwb.plot.image(image.variable, ax=axes)
    axes.set_title(title)
    _framed(axes)
    if not axes.get_xlabel().endswith("]"):
        axes.set(xlabel=f"{axes.get_xlabel()} [pixels]", ylabel=f"{axes.get_ylabel()} [pixels]")
