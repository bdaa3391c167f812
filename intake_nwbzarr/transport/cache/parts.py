"""Parts of an object put together from those that are kept and those that are not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from intake_nwbzarr.transport.cache.files import PartName


class Piece(NamedTuple):
    """A stretch ``[start, stop)`` of an object, and the part that is kept and holds it; None for a gap."""

    start: int
    stop: int
    kept: PartName | None


def cover(start: int, stop: int, parts: Iterable[PartName]) -> list[Piece]:
    """The pieces that make up ``[start, stop)``, as few and as long as the parts allow.

    Examples
    --------
    >>> parts = [PartName(0, 40, 100, "a"), PartName(30, 60, 100, "a")]
    >>> [(piece.start, piece.stop, piece.kept is None) for piece in cover(20, 80, parts)]
    [(20, 40, False), (40, 60, False), (60, 80, True)]
    """
    ordered = sorted(part for part in parts if part.stop > start and part.start < stop)
    pieces: list[Piece] = []
    position, following = start, 0
    longest: PartName | None = None
    while position < stop:
        while following < len(ordered) and ordered[following].start <= position:
            if longest is None or ordered[following].stop > longest.stop:
                longest = ordered[following]
            following += 1
        if longest is not None and longest.stop > position:
            end, kept = min(longest.stop, stop), longest
        else:
            end, kept = (ordered[following].start if following < len(ordered) else stop), None
        pieces.append(Piece(position, end, kept))
        position = end
    return pieces
