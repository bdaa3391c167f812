"""Cached objects: a transport that returns bytes cached in memory or on disk instead of requesting them."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol
from weakref import WeakValueDictionary

from intake_nwbzarr.transport.answers import Bytes, Fetched, Part, Unchanged
from intake_nwbzarr.transport.base import OverTransport, Transport, is_document
from intake_nwbzarr.transport.loop import await_all, on_loop
from intake_nwbzarr.transport.request_log import record

type Trust = Literal["etag", "state", "always"]
"""When a cached object is used without a request: if it has the ETag that the caller has just seen; also if
the session's metadata are those it was cached with; always."""


class Memory[T]:
    """A cache of values by key, bounded in bytes; used from any thread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        """Return the value of a key."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Keep a value that counts as so many bytes, and evict what was not used for longest."""
        with self._lock:
            self._drop(key)
            if size > self.size:
                return
            self._values[key] = value, size
            self.total += size
            while self.total > self.size:
                self._drop(next(iter(self._values)))

    def forget(self, key: Hashable) -> None:
        """Remove the value of a key."""
        with self._lock:
            self._drop(key)

    def keys(self) -> list[Hashable]:
        """Return the keys of all values."""
        with self._lock:
            return list(self._values)

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._values.clear()
            self.total = 0

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self.total -= self._values.pop(key)[1]


class CachedRange(NamedTuple):
    """The byte range of a cached part of an object, the object's size, and a digest of its ETag."""

    start: int
    stop: int
    size: int
    tag: str


def etag_digest(etag: str) -> str:
    """Return an ETag as a part of a file's name."""
    return hashlib.sha256(etag.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CacheEntry:
    """Cached bytes of an object, or of a part of it."""

    # Of the object; a cache on disk takes none that is weak or absent.
    etag: str | None
    # Of the whole object, in bytes.
    size: int
    # The offset of the bytes in the object.
    start: int
    # The ETag of the session's metadata document when the bytes were last known to be current.
    state: str | None
    data: Bytes = field(repr=False)

    @property
    def is_whole(self) -> bool:
        """Return whether these are all bytes of the object."""
        return len(self.data) == self.size

    @property
    def range(self) -> CachedRange:
        """Return the byte range of the bytes in the object."""
        return CachedRange(self.start, self.start + len(self.data), self.size, etag_digest(self.etag or ""))

    @property
    def is_strong(self) -> bool:
        """Return whether the ETag is strong: a weak one may be the same for other bytes."""
        return bool(self.etag) and not (self.etag or "").startswith("W/")


class CacheStorage(Protocol):
    """A cache of the objects of a location; its methods are awaited on the package's event loop."""

    @property
    def counted(self) -> bool:
        """Return whether bytes from this cache are counted as cached."""

    def keeps(self, key: str, part: Part | None, state: str | None) -> bool:
        """Return whether this cache stores such a part of an object."""

    async def ranges(self, key: str) -> list[CachedRange]:
        """Return the byte ranges of an object that are cached."""

    async def read(self, key: str, part: CachedRange | None = None) -> CacheEntry | None:
        """Return a whole object, or one of its `ranges`; None where it is not there any more."""

    async def write(self, key: str, entry: CacheEntry) -> None:
        """Cache an entry, in place of those of the object's other versions."""

    async def forget(self, key: str) -> None:
        """Remove all entries of an object."""


class CachingTransport(OverTransport):
    """Returns cached bytes that are known to be current, and caches others.

    Bytes that may not be current are validated by one conditional GET, as is every metadata document unless
    all are trusted. Absent objects and failures are not cached.
    """

    def __init__(
        self, inner: Transport, storage: CacheStorage, trust: Trust, state: str | None = None
    ) -> None:
        super().__init__(inner, state)
        self._storage = storage
        self._trust = trust
        # Whoever asks for what is being fetched waits for it.
        self._locks: WeakValueDictionary[tuple[str, Part | None], asyncio.Lock] = WeakValueDictionary()

    def at(self, etag: str | None) -> Transport:
        """Return this transport for the session in the state whose metadata document has this ETag."""
        transport = CachingTransport(self._inner.at(etag), self._storage, self._trust, etag)
        transport._locks = self._locks
        transport.opening = self.opening
        return transport

    async def fetch(self, key: str, part: Part | None, limit: int, etag: str | None = None) -> Fetched | None:
        """Fetch an object; bytes that are cached with the ETag that it is known to have are current."""
        safe = self._safe(key)
        if not self._storage.keeps(safe, part, self.state):
            return await self._inner.fetch(key, part, limit, etag)

        async def answer() -> Fetched | None:
            async with self._locks.setdefault((safe, part), asyncio.Lock()):
                if part is None:
                    return await self._whole(safe, limit, etag)
                return await self._part(safe, part, limit, etag)

        fetched = await on_loop(answer())
        if fetched is not None and self._storage.counted:
            record(self.counted, "get", cached=fetched.cached)
        return fetched

    async def fetch_unless(
        self, key: str, part: Part | None, limit: int, etag: str
    ) -> Fetched | Unchanged | None:
        """Fetch an object unless it still has an ETag, with a request in any case."""
        safe = self._safe(key)
        found = await self._inner.fetch_unless(key, part, limit, etag)
        if not isinstance(found, Unchanged) and self._storage.keeps(safe, part, self.state):
            await on_loop(self._keep(safe, part, found))
        return found

    async def kept(self, key: str) -> Fetched | None:
        """Return a whole object as it is cached, however old, without a request."""
        if not self._storage.keeps(key, None, self.state):
            return await self._inner.kept(key)
        entry = await on_loop(self._storage.read(self._safe(key)))
        if entry is None:
            return None
        record(self.counted, "get", cached=len(entry.data))
        return _fetched(entry)

    async def _whole(self, key: str, limit: int, etag: str | None) -> Fetched | None:
        entry = await self._storage.read(key)
        if entry is None or len(entry.data) > limit or etag not in {None, entry.etag}:
            return await self._fetch(key, None, limit, etag)
        if etag is None and not self._is_current(key, entry):
            if not entry.is_strong:
                return await self._fetch(key, None, limit, None)
            found = await self._inner.fetch_unless(key, None, limit, entry.etag or "")
            if not isinstance(found, Unchanged):
                return await self._keep(key, None, found)
            await self._confirm(key, [entry])
        return _fetched(entry)

    async def _part(self, key: str, part: Part, limit: int, etag: str | None) -> Fetched | None:
        found = await self._cached_part(key, part, etag)
        if found is None or found.stop - found.start > limit:
            return await self._fetch(key, part, limit, etag)
        gaps = [segment for segment in found.segments if segment.cached is None]
        if gaps:
            return await self._fill(key, part, limit, found, gaps)
        entries = list(found.entries.values())
        if etag is None and not all(self._is_current(key, entry) for entry in entries):
            asked = await self._inner.fetch_unless(key, part, limit, found.etag)
            if not isinstance(asked, Unchanged):
                return await self._keep(key, part, asked)
            await self._confirm(key, entries)
        return found.joined({})

    async def _fill(
        self, key: str, part: Part, limit: int, found: _CachedPart, gaps: Sequence[RangePiece]
    ) -> Fetched | None:
        """Fetch the gaps of a part; their ETag says whether the rest is current."""
        parts = [Part(gap.start, gap.stop) for gap in gaps]
        fetched = await await_all(self._inner.fetch(key, gap, limit) for gap in parts)
        filled: dict[int, Bytes] = {}
        for gap, data in zip(parts, fetched, strict=True):
            if data is None or data.etag != found.etag or data.size != found.size:
                return await self._fetch(key, part, limit, None)
            await self._keep(key, gap, data)
            filled[gap.start or 0] = data.data
        return found.joined(filled)

    async def _cached_part(self, key: str, part: Part, etag: str | None) -> _CachedPart | None:
        """Return what is cached of a part of an object, all of one version of it; None for nothing at all."""
        whole = await self._storage.read(key)
        if whole is not None and etag in {None, whole.etag} and (at := part.bounds(whole.size)):
            name = whole.range
            return _CachedPart(*at, whole.etag or "", whole.size, [RangePiece(*at, name)], {name: whole})
        ranges = await self._storage.ranges(key)
        if etag is not None:
            ranges = [cached for cached in ranges if cached.tag == etag_digest(etag)]
        # There is one version, but for a moment in which another process learns of a new one.
        ranges = [cached for cached in ranges if (cached.tag, cached.size) == (ranges[0].tag, ranges[0].size)]
        if not ranges or (at := part.bounds(ranges[0].size)) is None:
            return None
        segments = split_range(*at, ranges)
        needed = {segment.cached for segment in segments if segment.cached is not None}
        read = {name: await self._storage.read(key, name) for name in needed}
        entries = {name: entry for name, entry in read.items() if entry is not None}
        etags = {entry.etag or "" for entry in entries.values()}
        if len(entries) != len(needed) or len(etags) != 1:
            return None
        return _CachedPart(*at, etags.pop(), ranges[0].size, segments, entries)

    async def _fetch(self, key: str, part: Part | None, limit: int, etag: str | None) -> Fetched | None:
        return await self._keep(key, part, await self._inner.fetch(key, part, limit, etag))

    async def _keep(self, key: str, part: Part | None, fetched: Fetched | None) -> Fetched | None:
        """Cache what was fetched, and nothing of another version of the object."""
        entry = None if fetched is None else _entry(part, fetched, self.state)
        if entry is None:
            await self._storage.forget(key)
        else:
            await self._storage.write(key, entry)
        return fetched

    async def _confirm(self, key: str, entries: Iterable[CacheEntry]) -> None:
        """Note that entries are current in this state of the session."""
        for entry in entries:
            if self.state is not None and entry.state != self.state:
                await self._storage.write(key, replace(entry, state=self.state))

    def _is_current(self, key: str, entry: CacheEntry) -> bool:
        """Return whether an entry is used without a request."""
        if self._trust == "state":
            return not is_document(key) and self.state is not None and entry.state == self.state
        return self._trust == "always"

    async def _put(self, key: str, data: bytes, if_match: str | None, if_none_match: bool) -> str | None:
        try:
            return await self._inner._put(key, data, if_match, if_none_match)
        finally:
            await self._storage.forget(key)


def _entry(part: Part | None, fetched: Fetched, state: str | None) -> CacheEntry | None:
    """Return what to cache: bytes whose place in the object is known."""
    size = len(fetched.data) if part is None else fetched.size
    if not size or not fetched.data:
        return None
    start, stop = (0, size) if part is None else part.bounds(size) or (0, 0)
    if stop - start != len(fetched.data):
        return None
    return CacheEntry(fetched.etag, size, start, state, fetched.data)


def _fetched(entry: CacheEntry) -> Fetched:
    return Fetched(entry.data, entry.etag, entry.size, len(entry.data))


class RangePiece(NamedTuple):
    """A piece ``[start, stop)`` of a range of an object, and the cached range that has it; None for a gap."""

    start: int
    stop: int
    cached: CachedRange | None


def split_range(start: int, stop: int, ranges: Iterable[CachedRange]) -> list[RangePiece]:
    """Split ``[start, stop)`` into segments that are cached and gaps, as few and as long as possible.

    Examples
    --------
    >>> ranges = [CachedRange(0, 40, 100, "a"), CachedRange(30, 60, 100, "a")]
    >>> [(segment.start, segment.stop, segment.cached is None) for segment in split_range(20, 80, ranges)]
    [(20, 40, False), (40, 60, False), (60, 80, True)]
    """
    ordered = sorted(cached for cached in ranges if cached.stop > start and cached.start < stop)
    segments: list[RangePiece] = []
    position, following = start, 0
    longest: CachedRange | None = None
    while position < stop:
        while following < len(ordered) and ordered[following].start <= position:
            if longest is None or ordered[following].stop > longest.stop:
                longest = ordered[following]
            following += 1
        if longest is not None and longest.stop > position:
            end, cached = min(longest.stop, stop), longest
        else:
            end, cached = (ordered[following].start if following < len(ordered) else stop), None
        segments.append(RangePiece(position, end, cached))
        position = end
    return segments


@dataclass(frozen=True)
class _CachedPart:
    """The segments of a part of one version of an object, and the cache entries that have them."""

    start: int
    stop: int
    etag: str
    size: int
    segments: list[RangePiece]
    entries: dict[CachedRange, CacheEntry]

    def joined(self, filled: dict[int, Bytes]) -> Fetched:
        """Return the part, with what was fetched to fill its gaps."""
        data, from_cache = [], 0
        for segment in self.segments:
            if segment.cached is None:
                data.append(filled[segment.start])
            else:
                entry = self.entries[segment.cached]
                data.append(entry.data[segment.start - entry.start : segment.stop - entry.start])
                from_cache += segment.stop - segment.start
        return Fetched(b"".join(data), self.etag, self.size, from_cache)
