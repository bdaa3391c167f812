"""The copies of one location's objects, for whoever reads it: named so that nobody else finds them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from intake_nwbzarr.transport.cache.files import Copy, PartName
from intake_nwbzarr.transport.cache.store import CacheStore
from intake_nwbzarr.transport.contract import Fetched, Identity, Part, Transport

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
