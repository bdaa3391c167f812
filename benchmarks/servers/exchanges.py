"""What a server saw: each request with its start and end, and how many round trips they were."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

METADATA = ("zarr.json", ".zmetadata", ".zgroup", ".zarray", ".zattrs")


@dataclass(frozen=True)
class Exchange:
    """One request and its answer.

    Parameters
    ----------
    method, path
        As on the wire.
    status
        Of the answer.
    start, end
        Seconds since 1970, when the request had arrived and when the answer had been sent.
    size
        Bytes of the answer's body.
    range
        The Range header, empty if there was none.
    """

    method: str
    path: str
    status: int
    start: float
    end: float
    size: int
    range: str = ""

    @property
    def is_metadata(self) -> bool:
        """Whether it asked for a metadata document."""
        return self.path.rpartition("/")[2] in METADATA


class Server(Protocol):
    """Serves a folder over HTTP on 127.0.0.1, as slowly as asked, and remembers what it was asked."""

    kind: str
    """What it is, for the table."""

    def url(self, latency: int) -> str:
        """The address of the folder where each answer takes so many more milliseconds."""

    def exchanges(self, begin: float, end: float) -> list[Exchange]:
        """The requests that started between two times, in order."""


def round_trips(exchanges: Sequence[Exchange], latency: float) -> int:
    """Sequential levels of requests: the longest chain in which each started after the one before had ended.

    A client that asks for a hundred things at once needs one; one that holds back some until others are
    answered, for whatever reason, needs more.

    Parameters
    ----------
    exchanges
        In any order.
    latency
        Seconds that each takes at least; clocks are trusted to a tenth of that.

    Examples
    --------
    >>> def seen(start, end):
    ...     return Exchange("GET", "/", 200, start, end, 0)
    >>> round_trips([seen(0.0, 0.03), seen(0.001, 0.031), seen(0.032, 0.062)], 0.03)
    2
    """
    slack = latency / 10
    ends: list[float] = []
    # The deepest level among those that had ended by each of these ends.
    depths: list[int] = []
    deepest = 0
    for exchange in sorted(exchanges, key=lambda exchange: exchange.start):
        ended = bisect_right(ends, exchange.start + slack)
        level = 1 + (depths[ended - 1] if ended else 0)
        place = bisect_right(ends, exchange.end)
        ends.insert(place, exchange.end)
        depths.insert(place, max(level, depths[place - 1] if place else 0))
        for later in range(place + 1, len(depths)):
            depths[later] = max(depths[later], level)
        deepest = max(deepest, level)
    return deepest
