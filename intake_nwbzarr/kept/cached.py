"""A transport that answers from the chunk cache what is known to be current."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from intake_nwbzarr.kept.disk import CacheStore, Copy, PartName, open_store, tag
from intake_nwbzarr.location.options import DEFAULT_SIZE, default_folder, expand_home
from intake_nwbzarr.transport.answers import Bytes, Fetched, Identity, Part, Unchanged
from intake_nwbzarr.transport.base import OverTransport, Transport, is_document
from intake_nwbzarr.transport.loop import on_loop
from intake_nwbzarr.transport.request_log import record


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


# What makes guessing a password from the names of files expensive: 50 ms and 16 MiB a guess.
_SCRYPT: Final = {"n": 2**14, "r": 8, "p": 1, "dklen": 16}


class Copies:
    """What is kept of a location; its methods run on the package's event loop, and their reading on threads.

    Parameters
    ----------
    transport
        Says whose requests it makes; it is not asked for objects.
    store
        Where they are kept.
    """

    def __init__(self, transport: Transport, store: CacheStore) -> None:
        self._transport = transport
        self._store = store
        self._owner: str | None = None
        self._naming = asyncio.Lock()

    async def whole(self, key: str) -> Copy | None:
        """The copy of a whole object."""
        return await asyncio.to_thread(self._store.read, await self._name(key))

    async def parts(self, key: str) -> list[PartName]:
        """What is kept of an object's parts."""
        return await asyncio.to_thread(self._store.parts, await self._name(key))

    async def read(self, key: str, part: PartName) -> Copy | None:
        """The copy of a part."""
        return await asyncio.to_thread(self._store.read, await self._name(key), part)

    async def keep(self, key: str, part: Part | None, fetched: Fetched, state: str | None) -> None:
        """Keep what was fetched, and nothing of another version of the object."""
        copy = _copy(part, fetched, state)
        if copy is None:
            # What was kept is of another version.
            await self.forget(key)
        else:
            await asyncio.to_thread(self._store.write, await self._name(key), copy)

    async def confirm(self, key: str, copies: Iterable[Copy], state: str | None) -> None:
        """Note that copies are current in this state of the session."""
        for copy in copies:
            if state is not None and copy.state != state:
                name = await self._name(key)
                await asyncio.to_thread(self._store.write, name, replace(copy, state=state))

    async def forget(self, key: str) -> None:
        """Remove what is kept of an object."""
        await asyncio.to_thread(self._store.forget, await self._name(key))

    async def _name(self, key: str) -> str:
        if self._owner is None:
            # Of many readers at once, one finds out.
            async with self._naming:
                if self._owner is None:
                    identity = await self._transport.identity()
                    self._owner = await asyncio.to_thread(_owner, identity, self._store.salt)
        named = [self._transport.location.url, self._owner, key]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _owner(identity: Identity, salt: bytes) -> str:
    """A name for an identity, from which its secret cannot be told."""
    if identity.secret is None:
        return f"anonymous {identity.endpoint}"
    return f"{hashlib.scrypt(identity.secret.encode(), salt=salt, **_SCRYPT).hex()} {identity.endpoint}"


def _copy(part: Part | None, fetched: Fetched, state: str | None) -> Copy | None:
    """What is worth keeping: bytes of a known place, of a version that has a name."""
    # A weak ETag may be the same for other bytes.
    if not fetched.etag or fetched.etag.startswith("W/") or fetched.size is None or not fetched.data:
        return None
    start, stop = (0, fetched.size) if part is None else part.bounds(fetched.size) or (0, 0)
    if stop - start != len(fetched.data):
        return None
    return Copy(fetched.etag, fetched.size, start, state, fetched.data)


def cached(inner: Transport) -> Transport:
    """The transport with the cache that its location asks for.

    Raises
    ------
    CacheError
        When the folder cannot, or must not, hold a cache.
    """
    option = inner.location.option("chunk_cache") or {}
    folder = expand_home(option["folder"]) if "folder" in option else default_folder()
    store = open_store(folder, option.get("size", DEFAULT_SIZE))
    return CachedTransport(_Shared(inner, Copies(inner, store))) if store.usable else inner


@dataclass(frozen=True, eq=False)
class _Shared:
    """What the views of one location, in different states, have in common."""

    inner: Transport
    copies: Copies
    # Whoever asks for what is being fetched waits for it.
    turns: WeakValueDictionary[tuple[str, Part | None], asyncio.Lock] = field(
        default_factory=WeakValueDictionary
    )


class CachedTransport(OverTransport):
    """Answers from copies of the same object, for the same identity, that are known to be current.

    A copy is current without being asked for when it was made, or last found unchanged, while the session's
    metadata document had the ETag that the caller knows (see `at`), or when the caller has just seen the
    object's own ETag. Otherwise one conditional GET decides. What is not there, and what failed, is asked for
    every time; so is what has no ETag, or a weak one.

    Parameters
    ----------
    shared
        The transport that fetches, over HTTP or S3, and what is kept.
    state
        The ETag of the session's metadata document, where the caller knows it.
    """

    def __init__(self, shared: _Shared, state: str | None = None) -> None:
        super().__init__(shared.inner, state)
        self._shared = shared
        self._copies = shared.copies
        self._revalidate: bool | None = self.location.option("revalidate")

    def at(self, etag: str | None) -> Transport:
        """The same, for the state of the session whose metadata document has this ETag."""
        return CachedTransport(self._shared, etag)

    def count_for(self, url: str) -> None:
        """Have requests counted for another location."""
        super().count_for(url)
        self._inner.count_for(url)

    async def fetch(self, key: str, part: Part | None, limit: int, etag: str | None = None) -> Fetched | None:
        """As `get`; for an object that is known to have `etag`, a copy that has it is current."""
        safe = self._safe(key)

        async def answer() -> Fetched | None:
            async with self._shared.turns.setdefault((safe, part), asyncio.Lock()):
                if part is None:
                    return await self._whole(safe, limit, etag)
                return await self._part(safe, part, limit, etag)

        fetched = await on_loop(answer())
        if fetched is not None:
            record(self.counted, "get", cached=fetched.cached)
        return fetched

    async def fetch_unless(
        self, key: str, part: Part | None, limit: int, etag: str
    ) -> Fetched | Unchanged | None:
        """As `get_unless`; always asks."""
        found = await self._inner.fetch_unless(key, part, limit, etag)
        if not isinstance(found, Unchanged):
            await on_loop(self._note(self._safe(key), part, found))
        return found

    async def kept(self, key: str) -> Fetched | None:
        """A whole object as it is kept, without any request, however old it is."""
        copy = await on_loop(self._copies.whole(self._safe(key)))
        if copy is None:
            return None
        record(self.counted, "get", cached=len(copy.data))
        return _answer(copy)

    async def _whole(self, key: str, limit: int, etag: str | None) -> Fetched | None:
        copy = await self._copies.whole(key)
        if copy is None or len(copy.data) > limit or etag not in {None, copy.etag}:
            return await self._fetch(key, None, limit, etag)
        if etag is not None or self._is_current(key, copy):
            return _answer(copy)
        found = await self._inner.fetch_unless(key, None, limit, copy.etag)
        if isinstance(found, Unchanged):
            await self._copies.confirm(key, [copy], self.state)
            return _answer(copy)
        return await self._note(key, None, found)

    async def _part(self, key: str, part: Part, limit: int, etag: str | None) -> Fetched | None:
        found = await self._covering(key, part, etag)
        if found is None or found.stop - found.start > limit:
            return await self._fetch(key, part, limit, etag)
        copies = list(found.copies.values())
        gaps = [piece for piece in found.pieces if piece.kept is None]
        if gaps:
            return await self._fill(key, part, limit, found, gaps)
        if etag is None and not all(self._is_current(key, copy) for copy in copies):
            asked = await self._inner.fetch_unless(key, part, limit, copies[0].etag)
            if not isinstance(asked, Unchanged):
                return await self._note(key, part, asked)
            await self._copies.confirm(key, copies, self.state)
        return found.joined({})

    async def _fill(
        self, key: str, part: Part, limit: int, found: _Covering, gaps: Sequence[Piece]
    ) -> Fetched | None:
        """Fetch what is missing of a part; its ETag says whether the rest is current."""
        parts = [Part(gap.start, gap.stop) for gap in gaps]
        fetched = await asyncio.gather(*(self._inner.fetch(key, gap, limit) for gap in parts))
        filled: dict[int, Bytes] = {}
        for gap, piece in zip(parts, fetched, strict=True):
            if piece is None or piece.etag != found.etag or piece.size != found.size:
                return await self._fetch(key, part, limit, None)
            await self._copies.keep(key, gap, piece, self.state)
            filled[gap.start or 0] = piece.data
        return found.joined(filled)

    async def _covering(self, key: str, part: Part, etag: str | None) -> _Covering | None:
        """What is kept of a part of an object, all of one version of it; None for nothing at all."""
        whole = await self._copies.whole(key)
        if whole is not None and etag in {None, whole.etag} and (bounds := part.bounds(whole.size)):
            name = PartName(0, whole.size, whole.size, tag(whole.etag))
            return _Covering(*bounds, whole.etag, whole.size, [Piece(*bounds, name)], {name: whole})
        names = await self._copies.parts(key)
        if etag is not None:
            names = [name for name in names if name.tag == tag(etag)]
        # There is one version, but for a moment in which another process learns of a new one.
        names = [name for name in names if (name.tag, name.size) == (names[0].tag, names[0].size)]
        if not names or (bounds := part.bounds(names[0].size)) is None:
            return None
        pieces = cover(*bounds, names)
        needed = {piece.kept for piece in pieces if piece.kept is not None}
        copies = {name: copy for name in needed if (copy := await self._copies.read(key, name)) is not None}
        if not copies or len(copies) != len(needed) or len({copy.etag for copy in copies.values()}) != 1:
            return None
        return _Covering(*bounds, next(iter(copies.values())).etag, names[0].size, pieces, copies)

    async def _fetch(self, key: str, part: Part | None, limit: int, etag: str | None) -> Fetched | None:
        return await self._note(key, part, await self._inner.fetch(key, part, limit, etag))

    async def _note(self, key: str, part: Part | None, fetched: Fetched | None) -> Fetched | None:
        if fetched is None:
            await self._copies.forget(key)
        else:
            await self._copies.keep(key, part, fetched, self.state)
        return fetched

    def _is_current(self, key: str, copy: Copy) -> bool:
        """Whether a copy needs no question."""
        if self._revalidate is not None:
            return not self._revalidate
        return not is_document(key) and self.state is not None and copy.state == self.state

    async def _put(self, key: str, data: bytes, if_match: str | None, if_none_match: bool) -> str | None:
        try:
            return await self._inner._put(key, data, if_match, if_none_match)
        finally:
            await self._copies.forget(key)


@dataclass(frozen=True)
class _Covering:
    """The pieces that make up a part of one version of an object, and the copies that are kept."""

    start: int
    stop: int
    etag: str
    size: int
    pieces: list[Piece]
    copies: dict[PartName, Copy]

    def joined(self, filled: dict[int, Bytes]) -> Fetched:
        """The part, with what was fetched to fill its gaps."""
        data, from_copies = [], 0
        for piece in self.pieces:
            if piece.kept is None:
                data.append(filled[piece.start])
            else:
                copy = self.copies[piece.kept]
                data.append(copy.data[piece.start - copy.start : piece.stop - copy.start])
                from_copies += piece.stop - piece.start
        return Fetched(b"".join(data), self.etag, self.size, from_copies)


def _answer(copy: Copy) -> Fetched:
    return Fetched(copy.data, copy.etag, copy.size, len(copy.data))
