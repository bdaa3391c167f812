"""Which neurodata objects no picture shows, and why: a line for each reason in each group of a session."""

from __future__ import annotations

from collections.abc import Iterable

from intake_nwbzarr.accessor.contents import ShownObject
from intake_nwbzarr.accessor.plot.images import shown_images
from intake_nwbzarr.pages.imaging import MOST_IMAGES, MOST_MOVIES, MOST_TABLES
from intake_nwbzarr.pages.picture import LeftOut, own_name, parent
from intake_nwbzarr.pages.plans import PageSession, short
from intake_nwbzarr.pages.traces import MOST_OF_KIND, MOST_PANELS
from intake_nwbzarr.transport.request_log import counted

# Objects that one line names; of more, their number.
_MOST_NAMED = 3


def unpictured(session: PageSession, pictured: Iterable[str]) -> list[LeftOut]:
    """Return lines for series, images and segmentations that are in no picture and in no line yet.

    Parameters
    ----------
    session
        Whose objects are looked at.
    pictured
        Paths of the objects that are in a picture, or in a line.
    """
    known = set(pictured)
    images = {image.shown.path for image in shown_images(session.timed)}
    lines: dict[tuple[str, str, str], list[ShownObject]] = {}
    for each in session.shown:
        if each.path in known:
            continue
        what = _what(each, images)
        if what is not None:
            reason = _reason(session, each)
            lines.setdefault((_place(each.path), what, reason), []).append(each)
    return [
        LeftOut("object", _title(group, what, members, known), tuple(each.path for each in members), reason)
        for (group, what, reason), members in lines.items()
    ]


def _place(path: str) -> str:
    """Return the group of an object, of one in a processing module the module."""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "processing" else parent(path)


def _what(each: ShownObject, images: set[str]) -> str | None:
    """Return what kind of object ought to have a picture; None of one that is not expected to."""
    if each.kind == "series":
        return "series"
    if each.is_a("Image") or each.path in images:
        return "image"
    if each.is_a("PlaneSegmentation"):
        return "segmentation"
    return None


def _reason(session: PageSession, each: ShownObject) -> str:
    if each.kind == "table":
        if each.rows is None or not session.dataset.sizes[each.rows]:
            return "it has no ROIs"
        if any("voxel_mask" in name for name in each.variables):
            return "its masks are lists of voxels, which are not drawn"
        has_masks = any("_mask" in name for name in each.variables)
        return f"a page draws ROIs of at most {MOST_TABLES} tables" if has_masks else "it has no masks"
    if each.main is None:
        return "its data are not in the session"
    variable = session.dataset.variables[each.main]
    if not variable.size:
        has_frames = each.is_a("ImageSeries") and variable.ndim > 2
        return "its frames are in files of their own, or there are none" if has_frames else "it is empty"
    if variable.dtype.kind not in "biuf":
        return "its values are not numbers"
    if each.kind == "series" and not each.is_a("ImageSeries"):
        if variable.ndim > 2 and not each.is_a("SpikeEventSeries") and not each.is_a("DecompositionSeries"):
            return f"its data have {variable.ndim} dimensions, of which lines show two at most"
        if session.timed is session.dataset and session.time_of(each) is None:
            return "it has no times"
    if each.kind != "series":
        return f"a page draws at most {MOST_IMAGES} images of a group, of {MOST_TABLES} groups"
    if each.is_a("ImageSeries"):
        return f"a page draws frames of at most {MOST_MOVIES} movies"
    if variable.ndim > 1:
        return f"a page draws at most {MOST_OF_KIND} series of a group that are alike, and of some groups"
    return f"a page draws at most {MOST_PANELS} series of a group, those of other types and units first"


def _title(group: str, what: str, members: list[ShownObject], known: set[str]) -> str:
    """Return the names of a few objects, or the number of many and the group that they are in."""
    if len(members) <= _MOST_NAMED:
        return ", ".join(short(own_name(each.path), 40) for each in members)
    number = counted(len(members), what)
    first, _, rest = number.partition(" ")
    more = " more" if any(path.startswith(f"{group}/") for path in known) else ""
    return f"{first}{more} {rest} in {group or '/'}"
