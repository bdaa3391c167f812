"""A picture of a page, and why one was left out; without what draws them, which needs matplotlib."""

from __future__ import annotations

from dataclasses import dataclass

from intake_nwbzarr.accessor.html import cut


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Parameters
    ----------
    kind
        Such as ``raster``, ``traces``, ``rois`` or ``timeline``.
    title, caption
        What it shows, and which part of it was read.
    paths
        Of the neurodata objects that it shows.
    svg
        The picture.
    """

    kind: str
    title: str
    caption: str
    paths: tuple[str, ...]
    svg: str


@dataclass(frozen=True)
class LeftOut:
    """A picture that was not drawn.

    Parameters
    ----------
    kind, title, paths
        Of the picture.
    reason
        Why it was left out, in one line.
    """

    kind: str
    title: str
    paths: tuple[str, ...]
    reason: str


class NothingToDrawError(ValueError):
    """What was read for a picture has nothing that can be drawn; the message says why."""


@dataclass(frozen=True)
class PageProgress:
    """How far a page is.

    Parameters
    ----------
    done, total
        Pictures that are done, and all.
    title
        Of the next one.
    """

    done: int
    total: int
    title: str


def reason_of(error: Exception) -> str:
    """Return an error as one line."""
    text = " ".join(str(error).split())
    return cut(text or type(error).__name__)


def own_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def parent(path: str) -> str:
    """Return the path of the group that an object is in."""
    return path.rpartition("/")[0]
