"""Requests, bytes, retries and seconds, counted by location: `track_requests`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

_lock = threading.Lock()
_open: list[RequestLog] = []


@dataclass
class Counts:
    """Counts of one location, or of all.

    Parameters
    ----------
    requests
        Requests that were sent, including retries; for local files, reads.
    retries
        Requests that were retries.
    received
        Bytes of response bodies.
    used
        Bytes of these that were returned to callers; the rest belonged to rejected responses.
    cached
        Bytes from a local cache, which no other count includes.
    """

    requests: int = 0
    retries: int = 0
    received: int = 0
    used: int = 0
    cached: int = 0

    def add(self, other: Counts) -> None:
        """Add another's counts."""
        for count in fields(Counts):
            setattr(self, count.name, getattr(self, count.name) + getattr(other, count.name))


@dataclass
class RequestLog:
    """The counts of `track_requests`; logs of several processes can be pickled and added.

    Parameters
    ----------
    counts
        Counts by location, without secrets, and by ``get``, ``list``, ``put`` or ``delete``.
    """

    counts: dict[tuple[str, str], Counts] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """Return the number of all requests, including retries."""
        return self.total.requests

    @property
    def retries(self) -> int:
        """Return the number of all retries."""
        return self.total.retries

    @property
    def bytes(self) -> int:
        """Return the bytes received."""
        return self.total.received

    @property
    def bytes_used(self) -> int:
        """Return the bytes that were returned to callers."""
        return self.total.used

    @property
    def bytes_cached(self) -> int:
        """Return the bytes that came from a local cache."""
        return self.total.cached

    @property
    def total(self) -> Counts:
        """Return the sum of all counts."""
        return self._sum(lambda key: "all").get("all", Counts())  # noqa: ARG005

    @property
    def locations(self) -> dict[str, Counts]:
        """Return the counts by location."""
        return self._sum(lambda key: key[0])

    @property
    def methods(self) -> dict[str, Counts]:
        """Return the counts by ``get``, ``list``, ``put`` and ``delete``."""
        return self._sum(lambda key: key[1])

    def add(self, other: RequestLog) -> None:
        """Add what was counted elsewhere, for example by a worker."""
        with _lock:
            for key, counts in other.counts.items():
                self.counts.setdefault(key, Counts()).add(counts)

    def _sum(self, name_of: Callable[[tuple[str, str]], str]) -> dict[str, Counts]:
        sums: dict[str, Counts] = {}
        with _lock:
            for key, counts in self.counts.items():
                sums.setdefault(name_of(key), Counts()).add(counts)
        return sums

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("location", "requests", "retries", "received", "used", "cached")]
        rows += [_row(url, counts) for url, counts in sorted(self.locations.items())]
        if len(rows) != 2:
            rows.append(_row("total", self.total))
        # Without a cache, its count is not shown.
        columns = 6 if self.bytes_cached else 5
        widths = [max(len(row[column]) for row in rows) for column in range(columns)]
        return "\n".join(
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(text.rjust(width) for text, width in zip(row[1:columns], widths[1:], strict=True)),
                ]
            )
            for row in rows
        )


@contextmanager
def track_requests() -> Iterator[RequestLog]:
    """Count the requests and bytes of this process while open, whichever thread they are made for.

    Yields
    ------
    RequestLog
        Filled as requests are made; `print` shows it as a table.

    Examples
    --------
    >>> with track_requests() as log:
    ...     pass
    >>> log.requests
    0
    """
    log = RequestLog()
    with _lock:
        _open.append(log)
    try:
        yield log
    finally:
        with _lock:
            # By identity: two logs that counted the same are equal.
            _open[:] = [other for other in _open if other is not log]


def record(
    url: str,
    method: str,
    *,
    requests: int = 0,
    retries: int = 0,
    received: int = 0,
    used: int = 0,
    cached: int = 0,
) -> None:
    """Count something in every open log."""
    if not _open:
        return
    with _lock:
        for log in _open:
            counts = log.counts.setdefault((url, method), Counts())
            counts.requests += requests
            counts.retries += retries
            counts.received += received
            counts.used += used
            counts.cached += cached


def counted(number: int, noun: str) -> str:
    """Return a number of things as text, such as ``1 session`` or ``2,000 sessions``."""
    # The plural of series is series.
    return f"{number:,} {noun}{'' if number == 1 or noun.endswith('s') else 's'}"


def readable_size(size: int) -> str:
    """Return a number of bytes as text, such as ``1.5 MB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _row(name: str, counts: Counts) -> tuple[str, ...]:
    return (
        name,
        f"{counts.requests:,}",
        f"{counts.retries:,}",
        readable_size(counts.received),
        readable_size(counts.used),
        readable_size(counts.cached),
    )
