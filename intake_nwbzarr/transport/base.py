"""The base class of transports: get, list, put and delete stored objects, with checks, counts and retries."""

from __future__ import annotations

import asyncio
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from time import monotonic
from typing import Final, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    LocationError,
    NWBZarrError,
    ObjectChangedError,
    SessionTimeoutError,
    TransportError,
    UnsafePathError,
)
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.location.options import Timeouts, timeouts
from intake_nwbzarr.transport.answers import (
    Bytes,
    Failure,
    Fetched,
    Folder,
    Identity,
    Listed,
    Part,
    Unchanged,
)
from intake_nwbzarr.transport.loop import budget, gather, on_loop
from intake_nwbzarr.transport.request_log import readable_size, record
from intake_nwbzarr.untrusted_input import LARGEST_OBJECT, safe_path

REMEMBERED: Final = 3.0
"""Seconds that a session is taken to be still there after it was seen."""

_MOST_ASKED: Final = 1024
# A chunk of Zarr 3, by its usual name: c/0/0.
_ZARR_3_CHUNK: Final = re.compile(r"(?:.*/)?c(?:[/.]\d+)*")


class _Look(NamedTuple):
    """A pending or completed check of a session's presence."""

    since: float
    lasts: float
    answer: asyncio.Task[None]


looks: dict[Hashable, _Look] = {}


async def check_presence(transport: Transport, key: str) -> None:
    """Check that the session of an absent chunk is there and unchanged; awaited on the package's loop."""
    # Its metadata document is asked for, once for all arrays of a session and a while.
    if transport.opening and monotonic() - transport.seen <= transport.presence_lasts:
        return
    name = transport.presence_key
    look = looks.get(name)
    if look is None or _is_over(look):
        _forget_old()
        look = looks[name] = _Look(
            monotonic(), transport.presence_lasts, asyncio.ensure_future(_look(transport, key))
        )
    # Concurrent callers share one check, even if one is cancelled; each raises a copy of the error.
    try:
        await asyncio.shield(look.answer)
    except NWBZarrError as error:
        raise copy(error) from None


async def _look(transport: Transport, key: str) -> None:
    is_changed = False
    denied: AccessError | None = None
    for document in _documents(key, transport.state):
        try:
            found = await transport.find(document)
        except AccessError as error:
            # Buckets that deny listing also return 403 for documents that do not exist.
            denied = error
            continue
        if found is None:
            continue
        if transport.state is None or isinstance(found, Unchanged):
            return
        is_changed = True
    if is_changed:
        raise ObjectChangedError(
            f"{transport.location} was replaced, or its metadata were, since it was opened; its chunk "
            f"{key!r} does not exist.",
            location=transport.location,
            path=key,
            next_step="Open it again.",
        )
    if denied is not None:
        raise denied
    raise TransportError(
        f"Cannot read {transport.location}/{key}: {transport.location} no longer exists, or is not mounted.",
        location=transport.location,
        path=key,
        next_step="Restore it, or open it where it is now.",
    )


def _documents(key: str, state: str | None) -> Sequence[str]:
    """Return the names of a session's metadata documents, the likeliest first."""
    # A session that was opened from consolidated metadata has a state, wherever ETags are known.
    older = (".zmetadata", ".zgroup") if state is not None else (".zgroup", ".zmetadata")
    return ("zarr.json", *older) if _ZARR_3_CHUNK.fullmatch(key) else (*older[:1], "zarr.json", *older[1:])


def _is_over(look: _Look) -> bool:
    if not look.answer.done():
        return False
    failed = look.answer.cancelled() or look.answer.exception() is not None
    return failed or monotonic() - look.since > look.lasts


def _forget_old() -> None:
    if len(looks) >= _MOST_ASKED:
        for name in [name for name, look in looks.items() if _is_over(look)]:
            del looks[name]


LONGEST_BACKOFF = 10.0
_LONGEST_SESSION = 86_400.0
# What is asked for to learn whether there is a store at all; the key "" is the location itself.
DOCUMENTS = frozenset({"", "zarr.json", ".zmetadata", ".zgroup", ".zattrs", ".zarray"})


class Transport(ABC):
    """Gets, lists and puts the objects of one location; its methods may be awaited on any event loop."""

    # Whether attempts take one of the requests in flight; what costs none of its own must not wait for one.
    budgeted = True
    # Whether `put` can store anything at all.
    writable = False
    # Whether an ETag can be asked about without the object being sent.
    conditional = False
    # Seconds for which a session that was seen is taken to be there.
    presence_lasts = REMEMBERED
    # The ETag of the session's metadata document, where whoever reads knows it.
    state: str | None = None
    # Whether a metadata document that was received a moment ago says that the session is there.
    opening = False

    def __init__(self, location: Location) -> None:
        self.location = location
        # Whose requests are counted; see `count_for`.
        self.counted = location.url
        self.timeouts = timeouts(location.public)
        self._seen = -inf
        self._refused = False

    def count_for(self, url: str) -> None:
        """Have requests counted for another location, such as an archive's that is read through this one."""
        self.counted = url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} contains secrets and cannot be pickled; pickle its location instead.")

    async def get(
        self,
        key: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        suffix: int | None = None,
        limit: int | None = None,
        etag: str | None = None,
    ) -> Fetched | None:
        """Get an object, its bytes ``[start, stop)`` or its last `suffix` bytes; None where there is none.

        At most `limit` bytes, by default 2 GiB. With the `etag` of an earlier part, another ETag is an error.
        So is an absent chunk of an absent session, which would be read as fill values otherwise.
        """
        part = _part(start, stop, suffix)
        fetched = await self.fetch(key, part, LARGEST_OBJECT if limit is None else limit, etag)
        if fetched is None:
            if not is_document(key):
                await self.check_presence(key)
            return None
        if etag is not None and fetched.etag != etag:
            raise ObjectChangedError(
                f"{self.location}/{key} was replaced while it was being read.",
                location=self.location,
                path=key,
                found=fetched.etag,
                expected=etag,
                next_step="Open the file again.",
            )
        if used := len(fetched.data) - fetched.cached:
            record(self.counted, "get", used=used)
        return fetched

    async def get_all(self, keys: Sequence[str]) -> list[Fetched | None]:
        """Get whole objects that are wanted together, as `get` does each."""
        return await gather([partial(self.get, key) for key in keys])

    async def get_table(self, key: str, chunks: NDArray[np.int64] | None) -> Fetched | None:  # noqa: ARG002
        """Get the table of an HDF5 dataset's chunks; if only some are of interest, perhaps only of these."""
        return await self.get(key)

    async def fetch(
        self,
        key: str,
        part: Part | None,
        limit: int,
        etag: str | None = None,  # noqa: ARG002 (a cache may answer by itself if it knows the state)
    ) -> Fetched | None:
        """Fetch as `get` does, for a transport that does more with the bytes and checks the ETag itself."""
        safe = self._safe(key)
        found = await on_loop(self._persist("get", safe, lambda: self._get(safe, part, limit)))
        self._note_seen(key, found)
        return found

    async def get_unless(
        self, key: str, etag: str, *, part: Part | None = None, limit: int = LARGEST_OBJECT
    ) -> Fetched | Unchanged | None:
        """Get an object unless it still has a known ETag: one conditional GET over HTTP and S3."""
        found = await self.fetch_unless(key, part, limit, etag)
        if isinstance(found, Fetched):
            record(self.counted, "get", used=len(found.data))
        return found

    async def fetch_unless(
        self, key: str, part: Part | None, limit: int, etag: str
    ) -> Fetched | Unchanged | None:
        """Fetch as `get_unless` does, for a transport that does more with the answer."""
        safe = self._safe(key)
        found = await on_loop(self._persist("get", safe, lambda: self._get_unless(safe, part, limit, etag)))
        self._note_seen(key, found)
        return found

    async def find(self, key: str) -> Fetched | Unchanged | None:
        """Look for a metadata document without receiving it; Unchanged where its ETag is the session's state.

        The bytes of another result may not be the document's.
        """
        safe = self._safe(key)
        return await on_loop(self._persist("get", safe, lambda: self._find(safe, self.state)))

    async def check_presence(self, key: str) -> None:
        """Check that the session of an absent chunk is still there, so that the chunk holds fill values."""
        await on_loop(check_presence(self, self._safe(key)))

    @property
    def presence_key(self) -> Hashable:
        """Return what identifies the session in the state that is known here."""
        return self.location.uncached.cache_key, self.state

    def at(self, etag: str | None) -> Transport:
        """Return this transport for the session in the state whose metadata document has this ETag.

        What is cached from that state is current, and an absent chunk is an error in any other.
        """
        return self if etag == self.state else OverTransport(self, etag)

    def while_opening(self) -> Transport:
        """Return this transport for what is read just after the metadata, which need not be checked again."""
        opening = OverTransport(self, self.state)
        opening.opening = True
        return opening

    async def kept(self, key: str) -> Fetched | None:  # noqa: ARG002 (a cache's)
        """Return a whole object that a cache holds, however old, without a request; None where none does."""
        return None

    async def identity(self) -> Identity:
        """Return the credentials and the server of requests, by which caches separate objects."""
        return Identity()

    async def list(self, prefix: str = "") -> list[Listed]:
        """List every object whose key is under `prefix`, a folder relative to the location, sorted by key."""
        listed = await on_loop(self._list(self._safe(prefix)))
        for entry in listed:
            self._check_listed(entry.key)
        return sorted(listed, key=lambda entry: entry.key)

    async def list_folder(self, folder: str) -> Folder:
        """List what is directly in a folder, in as few requests as the storage allows.

        Of a Zarr 2 array's folder, which may hold 100,000 chunks, only the first page is listed: its
        documents' names sort before the chunks'.
        """
        found = await on_loop(self._list_folder(self._safe(folder)))
        for name in (*found.names, *found.folders):
            self._check_listed(f"{folder}/{name}" if folder else name)
        return found

    async def browse(self, folder: str) -> tuple[Folder, tuple[UnsafePathError, ...]]:
        """List a folder as `list_folder` does, and return names that are not valid as errors."""
        found = await on_loop(self._list_folder(self._safe(folder)))
        refused: list[UnsafePathError] = []

        def is_valid(name: str) -> bool:
            try:
                self._check_listed(f"{folder}/{name}" if folder else name)
            except UnsafePathError as error:
                refused.append(error)
                return False
            return True

        names, folders = tuple(filter(is_valid, found.names)), tuple(filter(is_valid, found.folders))
        return replace(found, names=names, folders=folders), tuple(refused)

    def _check_listed(self, key: str) -> None:
        """Raise for a listed key that is not a valid path; in a bucket, names can be empty (``a//b``)."""
        if not key or self._safe(key) != key:
            raise UnsafePathError(
                f"{self.location} has an object whose name is not valid in Zarr, {key!r:.400}.",
                location=self.location,
                path=key,
                next_step="Rename or delete it, or compare the session with the original.",
            )

    async def put(
        self, key: str, data: bytes, *, if_match: str | None = None, if_none_match: bool = False
    ) -> str | None:
        """Store an object whole or not at all, and return its new ETag.

        Only if the stored one has the ETag `if_match`, or only if there is none; otherwise nothing is written
        and `ObjectChangedError` is raised.
        """
        return await on_loop(self._put(self._safe(key), data, if_match, if_none_match))

    @property
    def region(self) -> str | None:
        """Return the region of the bucket, as far as requests have told; None for other storage."""
        return None

    async def put_pieces(self, key: str, pieces: Sequence[Bytes]) -> None:
        """Store an object of several pieces as `put` does; for a local file they are not joined before."""
        await on_loop(self._put_pieces(self._safe(key), pieces))

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        await on_loop(self._delete(self._safe(key)))

    def settled(self, location: Location) -> Location:
        """Return another location on the same server, with what requests have taught about that."""
        return location

    def unwritable(self) -> LocationError:
        """Return the error to raise instead of writing where `writable` is false."""
        return LocationError(
            f"{self.location} cannot be written.",
            location=self.location,
            next_step="Only local folders and s3:// locations can be written.",
        )

    def _note_seen(self, key: str, found: object) -> None:
        if found is not None and is_document(key):
            self._seen = monotonic()

    @property
    def seen(self) -> float:
        """Return when a metadata document was received last, by `time.monotonic`."""
        return self._seen

    @property
    def refused(self) -> bool:
        """Return whether access was denied last; other credentials may have been set since."""
        return self._refused

    @abstractmethod
    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        """Make one attempt; count its requests and received bytes."""

    async def _get_unless(
        self, key: str, part: Part | None, limit: int, etag: str
    ) -> Fetched | Unchanged | Failure | None:
        """Make one attempt; without conditional requests, read the object and compare it."""
        found = await self._get(key, part, limit)
        return Unchanged() if isinstance(found, Fetched) and found.etag == etag else found

    async def _find(self, key: str, etag: str | None) -> Fetched | Unchanged | Failure | None:
        """Make one attempt to check whether an object exists, and whether it has an ETag."""
        found = await self._get(key, Part(0, 1), 1)
        return Unchanged() if isinstance(found, Fetched) and same_etag(found.etag, etag) else found

    @abstractmethod
    async def _list(self, prefix: str) -> Sequence[Listed]: ...

    async def _list_folder(self, folder: str) -> Folder:
        start = len(folder) + 1 if folder else 0
        keys = [entry.key[start:] for entry in await self._list(folder)]
        return Folder(
            tuple(key for key in keys if "/" not in key),
            tuple(sorted({key.partition("/")[0] for key in keys if "/" in key})),
        )

    async def _put(self, key: str, data: bytes, if_match: str | None, if_none_match: bool) -> str | None:  # noqa: ARG002
        raise self.unwritable()

    async def _put_pieces(self, key: str, pieces: Sequence[Bytes]) -> None:
        await self._put(key, b"".join(pieces), None, False)

    async def _delete(self, key: str) -> None:  # noqa: ARG002
        raise self.unwritable()

    async def _persist[T](self, method: str, key: str, attempt: Callable[[], Awaitable[T | Failure]]) -> T:
        """Retry attempts that may succeed, within the allowed number and time."""
        session = session_deadline(self.location, self.timeouts)
        deadline = min(_now() + self.timeouts.total, session)
        number = 0
        while True:
            number += 1
            outcome = await self._in_time(attempt, deadline, session)
            if not isinstance(outcome, Failure):
                budget.speed_up()
                note_used(self.location, session)
                self._refused = False
                return outcome
            if outcome.overload:
                budget.slow_down()
            allowed = self.timeouts.attempts if outcome.attempts is None else outcome.attempts
            pause = self._pause(number, outcome.wait)
            if number >= min(allowed, self.timeouts.attempts):
                break
            if _now() + pause >= deadline:
                if deadline == session:
                    outcome = replace(outcome, advice=self._spent, transient=True)
                break
            await asyncio.sleep(pause)
            record(self.counted, method, retries=1)
        note_used(self.location, session)
        self._refused = issubclass(outcome.error, AccessError)
        raise outcome.raised(_message(self.location, method, key, outcome, number), self.location, key)

    async def _in_time[T](
        self, attempt: Callable[[], Awaitable[T | Failure]], deadline: float, session: float
    ) -> T | Failure:
        if _now() < session:
            try:
                async with budget.request() if self.budgeted else nullcontext(), asyncio.timeout_at(deadline):
                    return await attempt()
            except SessionTimeoutError:
                raise
            except TimeoutError:
                pass
        if _now() >= session:
            return Failure(TransportError, "no complete response in time", 1, self._spent, transient=True)
        return Failure(
            TransportError, f"no complete response within {self.timeouts.total:g} s", transient=True
        )

    @property
    def _spent(self) -> str:
        return (
            f"The session's timeout of {self.timeouts.session:g} s, timeouts={{'session': ...}}, has "
            "expired. Open it again, or pass a longer one."
        )

    def _pause(self, number: int, wanted: float | None) -> float:
        longest = min(self.timeouts.backoff * 2 ** (number - 1), LONGEST_BACKOFF)
        pause = random.uniform(longest / 2, longest)  # noqa: S311
        return pause if wanted is None else max(pause, min(wanted, 3 * LONGEST_BACKOFF))

    def _safe(self, key: str) -> str:
        return safe_path(key, self.location)


_sessions: dict[Hashable, _SessionClock] = {}


@dataclass
class _SessionClock:
    """The times of the first and the last request of a session in this process."""

    began: float
    used: float


def begin_session(location: Location) -> None:
    """Let the time that a session has as a whole begin now: it is opened."""
    # Its key takes a look at the environment.
    if _sessions:
        _sessions.pop(location.uncached.cache_key, None)


def session_deadline(location: Location, allowed: Timeouts) -> float:
    """Return when the time of a session ends, by the event loop's clock; see `Timeouts`."""
    if allowed.session == inf:
        return inf
    now = _now()
    for name in [name for name, known in _sessions.items() if now - known.used > _LONGEST_SESSION]:
        del _sessions[name]
    session = _sessions.setdefault(location.uncached.cache_key, _SessionClock(now, now))
    if now - session.used > allowed.session:
        session.began = now
    session.used = now
    return session.began + allowed.session


def note_used(location: Location, deadline: float) -> None:
    """Note that a request to a session, which has a time of its own, has just ended."""
    if deadline < inf and (session := _sessions.get(location.uncached.cache_key)) is not None:
        session.used = _now()


def is_document(key: str) -> bool:
    """Return whether a key is that of a metadata document, or the location itself, and not of a chunk."""
    return key.rpartition("/")[2] in DOCUMENTS


def same_etag(found: str | None, known: str | None) -> bool:
    """Return whether two ETags are equal by weak comparison, or one of them is unknown."""
    return None in {found, known} or (found or "").removeprefix("W/") == (known or "").removeprefix("W/")


def too_large(size: int | None, limit: int) -> Failure:
    """Return the failure of an object with more bytes than allowed."""
    found = "more" if size is None else readable_size(size)
    return Failure(LimitError, f"it has {found}, and {readable_size(limit)} are allowed")


def _part(start: int | None, stop: int | None, suffix: int | None) -> Part | None:
    if start is None and stop is None and suffix is None:
        return None
    if suffix is not None:
        if start is not None or stop is not None or suffix <= 0:
            raise ValueError("A suffix is a positive number of bytes, without start and stop.")
        return Part(suffix=suffix)
    start = 0 if start is None else start
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(f"The part [{start}, {stop}) of an object has no bytes.")
    return Part(start, stop)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _message(location: Location, method: str, key: str, failure: Failure, number: int) -> str:
    verb = {"get": "read", "list": "list", "put": "write", "delete": "remove"}[method]
    place = f"{location}/{key}" if key else str(location)
    attempts = "" if number == 1 else f", after {number} attempts"
    return f"Cannot {verb} {place}: {failure.cause}{attempts}."


class OverTransport(Transport):
    """Base class for transports that wrap another transport; itself adds the state of the session."""

    def __init__(self, inner: Transport, state: str | None = None) -> None:
        super().__init__(inner.location)
        self.budgeted = inner.budgeted
        self.conditional = inner.conditional
        self.counted = inner.counted
        self.presence_lasts = inner.presence_lasts
        self.writable = inner.writable
        self.state = state
        self._inner = inner

    @property
    def seen(self) -> float:
        """Return when a metadata document was received last, by `time.monotonic`."""
        return self._inner.seen

    def count_for(self, url: str) -> None:
        """Have requests counted for another location."""
        super().count_for(url)
        self._inner.count_for(url)

    @property
    def refused(self) -> bool:
        """Return whether the storage refused access last."""
        return self._refused or self._inner.refused

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and (other._inner, other.state) == (self._inner, self.state)

    def __hash__(self) -> int:
        return hash((self._inner, self.state))

    def at(self, etag: str | None) -> Transport:
        """Return this transport for the session in the state whose metadata document has this ETag."""
        return type(self)(self._inner, etag)

    @property
    def region(self) -> str | None:
        """Return the region that the inner transport has learnt."""
        return self._inner.region

    def settled(self, location: Location) -> Location:
        """Return another location on the same server, with what the inner transport has learnt."""
        return self._inner.settled(location)

    async def fetch(self, key: str, part: Part | None, limit: int, etag: str | None = None) -> Fetched | None:
        """Fetch as the inner transport does."""
        return await self._inner.fetch(key, part, limit, etag)

    async def get_table(self, key: str, chunks: NDArray[np.int64] | None) -> Fetched | None:
        """Get a table of chunks as the inner transport does."""
        return await self._inner.get_table(key, chunks)

    async def fetch_unless(
        self, key: str, part: Part | None, limit: int, etag: str
    ) -> Fetched | Unchanged | None:
        """Fetch as the inner transport does, unless the ETag is still the same."""
        return await self._inner.fetch_unless(key, part, limit, etag)

    async def kept(self, key: str) -> Fetched | None:
        """Return what a cache of the inner transport holds of an object."""
        return await self._inner.kept(key)

    async def identity(self) -> Identity:
        """Return who asks, and where."""
        return await self._inner.identity()

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        return await self._inner._get(key, part, limit)

    async def _find(self, key: str, etag: str | None) -> Fetched | Unchanged | Failure | None:
        return await self._inner._find(key, etag)

    async def _list(self, prefix: str) -> Sequence[Listed]:
        return await self._inner._list(prefix)

    async def _list_folder(self, folder: str) -> Folder:
        return await self._inner._list_folder(folder)

    async def _put(self, key: str, data: bytes, if_match: str | None, if_none_match: bool) -> str | None:
        return await self._inner._put(key, data, if_match, if_none_match)

    async def _put_pieces(self, key: str, pieces: Sequence[Bytes]) -> None:
        await self._inner._put_pieces(key, pieces)

    async def _delete(self, key: str) -> None:
        await self._inner._delete(key)
