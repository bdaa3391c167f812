"""Responses of a transport as plain data (bytes, listings, failures), and what an HTTP status means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    LocationNotFoundError,
    NWBZarrError,
    ObjectChangedError,
    ResponseError,
    TransportError,
)

type Bytes = bytes | memoryview
"""Bytes that were received; many of them are a read-only view of where they were received."""

# Codes of S3's error documents.
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_WRONG_CREDENTIALS = frozenset(
    {
        "AuthFailure", "AuthorizationHeaderMalformed", "InvalidAccessKeyId", "InvalidSecurity",
        "InvalidToken", "InvalidClientTokenId", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Fetched:
    """The bytes of an object, or of a part of it, as stored: no content encoding is undone."""

    data: Bytes = field(repr=False)
    # Tells versions of the object apart; None where the storage has none.
    etag: str | None
    # Of the whole object, where it is known.
    size: int | None = None
    # How many of the bytes come from a cache or a snapshot.
    cached: int = 0


@dataclass(frozen=True)
class Unchanged:
    """The object still has the ETag of a conditional request; its bytes were not sent."""


@dataclass(frozen=True)
class Identity:
    """The credentials and the server of requests; a location may have other objects for others."""

    # The server, where the URL does not name it.
    endpoint: str = ""
    # What requests are signed or sent with, as text; None for anonymous ones.
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Listed:
    """A stored object: its key relative to the location, its size in bytes and its ETag."""

    key: str
    size: int
    etag: str | None


@dataclass(frozen=True)
class Folder:
    """The names of objects and of folders directly in a folder."""

    names: tuple[str, ...]
    folders: tuple[str, ...]
    # Of objects that tell versions of a session apart, where the listing has ETags.
    etags: Mapping[str, str] = field(default_factory=dict, compare=False)


def tells_versions_apart(name: str) -> bool:
    """Return whether the ETag of an object of this name tells versions of a session apart."""
    return name in {"zarr.json", ".zmetadata"} or name.lower().endswith((".zip", *HDF5_NAMES))


HDF5_NAMES: Final = (".nwb", ".h5", ".hdf5", ".he5", ".hdf")
"""Endings of the names of HDF5 files; a Zarr store may have one as well."""


@dataclass(frozen=True)
class Part:
    """The requested part of an object: bytes ``[start, stop)``, from `start` on, or the last `suffix`."""

    start: int | None = None
    stop: int | None = None
    suffix: int | None = None
    # Whether an object that ends before `stop` is given to its end.
    lenient: bool = False

    @property
    def header(self) -> str:
        """Return the part as an HTTP Range header."""
        if self.suffix is not None:
            return f"bytes=-{self.suffix}"
        return f"bytes={self.start}-{'' if self.stop is None else self.stop - 1}"

    def bounds(self, size: int) -> tuple[int, int] | None:
        """Return the part as offsets into an object of a size, None where the object is too short."""
        if self.suffix is not None:
            return max(0, size - self.suffix), size
        start = self.start or 0
        stop = size if self.stop is None else min(self.stop, size) if self.lenient else self.stop
        return (start, stop) if start <= stop <= size else None


@dataclass(frozen=True)
class Failure:
    """The cause of a failed attempt, and the next step."""

    # The error to raise when nothing helps.
    error: type[NWBZarrError]
    # For people: "the server responded with 503 (SlowDown)".
    cause: str
    # How often this kind of failure is worth a request; None for as often as the timeouts allow.
    attempts: int | None = 1
    # The next step, a sentence.
    advice: str = ""
    # Seconds that the server asked for.
    wait: float | None = None
    # Whether fewer requests should be in flight.
    overload: bool = False
    # Whether trying again later may help; None: if the failure is worth several attempts.
    transient: bool | None = None

    def raised(self, message: str, location: object, path: str | None) -> NWBZarrError:
        """Return the error to raise."""
        transient = self.attempts != 1 if self.transient is None else self.transient
        return self.error(
            message,
            location=location,
            path=path or None,
            found=self.cause,
            next_step=self.advice or ("Check the connection, and try again." if transient else None),
            transient=transient,
        )


def failure_of_status(status: int, code: str, retry_after: str, *, is_signed: bool) -> Failure:
    """Return the failure that an HTTP error status means, with the code of S3's error document."""
    said = f"the server responded with {status}" + (f" ({code})" if code else "")
    if status == 404 and code == "NoSuchBucket":
        return Failure(LocationNotFoundError, "the bucket does not exist", advice="Check the spelling.")
    if code in EXPIRED:
        return Failure(CredentialsError, f"the credentials have expired: {said}", advice="Get new ones.")
    if code in _WRONG_CREDENTIALS or status == 401:
        return Failure(
            CredentialsError,
            said,
            advice="Check the credentials: they are unknown to the server, or not valid for this bucket.",
        )
    if status == 403:
        remedy = "" if is_signed else " The request was anonymous; credentials may be needed."
        return Failure(
            AccessError,
            said,
            advice="Buckets that deny listing also return 403 for objects that do not exist. Check the URL "
            f"and your permissions.{remedy}",
        )
    if status == 410:
        return Failure(TransportError, "it was removed permanently: the server responded with 410")
    if status == 412:
        return Failure(ObjectChangedError, "it was changed or created since it was read")
    if status in {408, 429} or status >= 500:
        return Failure(
            TransportError,
            said,
            attempts=None,
            advice="Try again later.",
            wait=float(retry_after) if retry_after.isdecimal() else None,
            overload=status in {429, 503},
        )
    return Failure(ResponseError, said)
