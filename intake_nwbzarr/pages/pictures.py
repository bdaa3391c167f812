"""Which pictures a session has, in which order they are read, drawn and shown, and why some are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from intake_nwbzarr.accessor.html import cut
from intake_nwbzarr.pages.clamp import plan_sweeps
from intake_nwbzarr.pages.ephys import plan_probes, plan_raster
from intake_nwbzarr.pages.figures import as_svg, as_thumbnail, new_figure, offset_times, styled
from intake_nwbzarr.pages.imaging import plan_images
from intake_nwbzarr.pages.picture import (
    LeftOut,
    NothingToDrawError,
    PageProgress,
    Picture,
    own_name,
    reason_of,
)
from intake_nwbzarr.pages.plans import Drawing, PageSession, PictureKind, Plan
from intake_nwbzarr.pages.snippets import plan_snippets
from intake_nwbzarr.pages.time_line import plan_time_line
from intake_nwbzarr.pages.traces import plan_paths, plan_traces
from intake_nwbzarr.pages.unpictured import unpictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PICTURES: Final = 24
"""Pictures of one session."""

_PLANNERS: Final[tuple[Callable[[PageSession], Iterator[Plan]], ...]] = (
    plan_time_line,
    plan_probes,
    plan_raster,
    plan_snippets,
    plan_images,
    plan_sweeps,
    plan_paths,
    plan_traces,
)

# What matters most is read first, while the budget lasts.
_READ_ORDER: Final[tuple[PictureKind, ...]] = (
    "timeline", "probes", "raster", "sweeps", "rois", "pose", "path", "waveforms", "traces", "images",
    "movie",
)  # fmt: skip

# And shown in the order in which people look at them.
_SHOWN_ORDER: Final[tuple[PictureKind, ...]] = (
    "raster", "rois", "sweeps", "pose", "path", "probes", "timeline", "waveforms", "traces", "images",
    "movie",
)  # fmt: skip

# Kinds that look alike in all sessions: an index shows one only where a session has no other picture.
_ALIKE: Final[frozenset[PictureKind]] = frozenset({"timeline", "probes"})


def plan_pictures(session: PageSession) -> tuple[list[Plan], list[LeftOut]]:
    """Return the pictures that a session has something for, in the order of reading; and those too many."""
    plans: list[Plan] = []
    left_out: list[LeftOut] = []
    for planner in _PLANNERS:
        try:
            plans.extend(planner(session))
        except Exception as error:
            left_out.append(LeftOut(planner.__name__.removeprefix("plan_"), "", (), reason_of(error)))
    ordered = sorted(plans, key=lambda plan: _READ_ORDER.index(plan.kind))
    left_out += [
        LeftOut(plan.kind, cut(plan.title), plan.paths, f"A page has at most {MOST_PICTURES} pictures.")
        for plan in ordered[MOST_PICTURES:]
    ]
    return ordered[:MOST_PICTURES], left_out


def draw_pictures(
    session: PageSession, progress: Callable[[PageProgress], None] | None = None
) -> tuple[list[Picture], list[LeftOut], str]:
    """Read and draw all pictures; return them, those left out, and a thumbnail of the most telling one.

    One is drawn while the next is read.
    """
    plans, left_out = plan_pictures(session)
    pictures: list[Picture] = []
    first: tuple[int, Figure] | None = None
    # matplotlib catches warnings while it loads its styles, those of other threads as well.
    with styled():
        new_figure(1)
    with ThreadPoolExecutor(1) as pool:
        readings: list[tuple[Plan, Future[Drawing]]] = [(plan, pool.submit(plan.read)) for plan in plans]
        for number, (plan, reading) in enumerate(readings):
            if progress is not None:
                progress(PageProgress(number, len(plans), plan.title))
            try:
                drawing = reading.result()
                picture, figure = _drawn(plan, drawing, number)
            except Exception as error:
                left_out.append(LeftOut(plan.kind, cut(plan.title), plan.paths, reason_of(error)))
                continue
            left_out += [
                LeftOut(plan.kind, cut(own_name(path)), (path,), reason)
                for path, reason in drawing.without.items()
            ]
            pictures.append(picture)
            rank = _SHOWN_ORDER.index(plan.kind) + len(_SHOWN_ORDER) * (plan.kind in _ALIKE)
            if first is None or rank < first[0]:
                first = rank, figure
    pictured = [path for picture in pictures for path in picture.paths]
    pictured += [path for line in left_out for path in line.paths]
    left_out += unpictured(session, pictured)
    pictures.sort(key=lambda picture: [*_SHOWN_ORDER].index(picture.kind))  # type: ignore[arg-type]
    if first is None:
        return pictures, left_out, ""
    with styled():
        return pictures, left_out, as_thumbnail(first[1])


def _drawn(plan: Plan, drawing: Drawing, number: int) -> tuple[Picture, Figure]:
    title, caption = cut(plan.title), cut(drawing.caption)
    with styled(f"{plan.kind}-{number}"):
        figure = new_figure(drawing.height)
        try:
            drawing.draw(figure)
            offset_times(figure)
            svg = as_svg(figure, f"{title}: {caption}")
        except (ValueError, OverflowError, FloatingPointError) as error:
            # What matplotlib and numpy say then is of their own arguments.
            reason = "what was read of it cannot be drawn: it is not finite, or too large"
            raise NothingToDrawError(reason) from error
    paths = tuple(path for path in plan.paths if path not in drawing.without)
    return Picture(plan.kind, title, caption, paths, svg), figure
