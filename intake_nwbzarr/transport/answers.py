"""What is asked of a transport, and what it answers: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from intake_nwbzarr.errors import NWBZarrError

type Bytes = bytes | memoryview
"""Bytes that were received; many of them are a read-only view of where they were received."""


@dataclass(frozen=True)
class Fetched:
    """An object's bytes, or the part that was asked for.

    Parameters
    ----------
    data
        As stored: no content encoding is undone.
    etag
        Tells versions of the object apart; None where the storage has none.
    size
        Of the whole object, where it is known.
    cached
        How many of the bytes come from a local cache.
    """

    data: Bytes = field(repr=False)
    etag: str | None
    size: int | None = None
    cached: int = 0


@dataclass(frozen=True)
class Unchanged:
    """The object still has the ETag that was asked about; its bytes were not sent."""


@dataclass(frozen=True)
class Identity:
    """Who asks, and where; the same location may hold other things for another identity.

    Parameters
    ----------
    endpoint
        The server, where the URL does not name it.
    secret
        What requests are signed or sent with, as text; None for anonymous ones.
    """

    endpoint: str = ""
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Listed:
    """A stored object: its key relative to the location, its size in bytes and its ETag."""

    key: str
    size: int
    etag: str | None


@dataclass(frozen=True)
class Folder:
    """What is directly in a folder: names of objects, and of folders."""

    names: tuple[str, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """The part of an object that is asked for: ``[start, stop)``, from `start` on, or the last `suffix`."""

    start: int | None = None
    stop: int | None = None
    suffix: int | None = None

    @property
    def header(self) -> str:
        """As an HTTP Range header."""
        if self.suffix is not None:
            return f"bytes=-{self.suffix}"
        return f"bytes={self.start}-{'' if self.stop is None else self.stop - 1}"

    def bounds(self, size: int) -> tuple[int, int] | None:
        """As offsets into an object of that size, None where the object is too short for it."""
        if self.suffix is not None:
            return max(0, size - self.suffix), size
        start = self.start or 0
        stop = size if self.stop is None else self.stop
        return (start, stop) if start <= stop <= size else None


@dataclass(frozen=True)
class Failure:
    """Why one attempt failed, and what to do about it.

    Parameters
    ----------
    error
        What to raise when nothing helps.
    cause
        For people: "the server answered 503 (SlowDown)".
    attempts
        How often this kind of failure is worth a request; None for as often as the timeouts allow.
    advice
        The next step, a sentence.
    wait
        Seconds that the server asked for.
    overload
        Whether fewer requests should be in flight.
    transient
        Whether trying again later may help; unless it is given, so it is with what is worth several attempts.
    """

    error: type[NWBZarrError]
    cause: str
    attempts: int | None = 1
    advice: str = ""
    wait: float | None = None
    overload: bool = False
    transient: bool | None = None

    def raised(self, sentence: str) -> NWBZarrError:
        """The error to raise, with a message."""
        error = self.error(sentence)
        error.transient = self.attempts != 1 if self.transient is None else self.transient
        return error
