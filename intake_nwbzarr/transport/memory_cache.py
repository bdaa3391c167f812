"""Objects cached in memory: a cache bounded in bytes, and the small objects that opening reads."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final

from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import Part
from intake_nwbzarr.transport.base import Transport, is_document
from intake_nwbzarr.transport.cache import CachedRange, CacheEntry, CachingTransport, Memory
from intake_nwbzarr.transport.open import Opener, open_transport

MOST_BYTES: Final = 64 * 2**20
"""Bytes that are kept of all sessions together."""

LARGEST: Final = 256 * 2**10
"""Bytes of an object that is kept; opening reads small ones."""

# What an entry takes beside its bytes.
_OVERHEAD = 500

memory: Memory[CacheEntry] = Memory(MOST_BYTES)


def forget_session(scope: Hashable) -> None:
    """Remove the objects of a session, which its location and identity tell from others."""
    for key in memory.keys():  # noqa: SIM118 (a list of them, as others are added)
        if isinstance(key, tuple) and key[0] == scope:
            memory.forget(key)


def keeping_in_memory() -> Opener:
    """Return an opener for one opening of a session, which keeps in memory what that reads.

    That is done over HTTP and S3, for whole small objects of sessions with consolidated metadata, and as long
    as these have the same ETag: to open a session again then takes one conditional request for them. An
    object that is replaced without the metadata changing is not noticed by this process, unless it asks for
    ``storage_options={"revalidate": True}``.
    """

    @cache
    def opener(location: Location) -> Transport:
        own = open_transport(location)
        if not own.conditional or location.option("revalidate") is True:
            return own
        transport = CachingTransport(own, MemoryCache(location.uncached.cache_key), "state")
        transport.opening = True
        return transport

    return opener


@dataclass(frozen=True)
class MemoryCache:
    """Caches whole small objects of a session whose state is known, for a location and identity."""

    scope: Hashable
    counted: ClassVar[bool] = False

    def keeps(self, key: str, part: Part | None, state: str | None) -> bool:
        """Return whether this is a whole object of a known state, and not a metadata document."""
        return state is not None and part is None and not is_document(key)

    async def ranges(self, key: str) -> list[CachedRange]:  # noqa: ARG002 (there are none)
        """Return no byte ranges: objects are cached whole."""
        return []

    async def read(self, key: str, part: CachedRange | None = None) -> CacheEntry | None:  # noqa: ARG002
        """Return a whole object."""
        return memory.get((self.scope, key))

    async def write(self, key: str, entry: CacheEntry) -> None:
        """Cache an object unless it is large."""
        if len(entry.data) > LARGEST:
            memory.forget((self.scope, key))
        else:
            memory.put((self.scope, key), entry, len(entry.data) + _OVERHEAD)

    async def forget(self, key: str) -> None:
        """Remove an object."""
        memory.forget((self.scope, key))
