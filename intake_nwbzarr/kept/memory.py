"""Objects kept in memory: small objects that opening reads, and values by key, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import AbstractContextManager
from typing import Any, Final

from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import Fetched
from intake_nwbzarr.transport.base import OverTransport, Transport, is_document
from intake_nwbzarr.transport.open import open_transport, standing_in


class Memory[T]:
    """Values by key; from any thread.

    Parameters
    ----------
    size
        Bytes at most, as whoever puts something in counts them.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        """What is remembered under a key."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Remember, and forget what was not used for longest if that is too much."""
        with self._lock:
            self._drop(key)
            if size > self.size:
                return
            self._values[key] = value, size
            self.total += size
            while self.total > self.size:
                self._drop(next(iter(self._values)))

    def forget(self, key: Hashable) -> None:
        """Forget one."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.total = 0

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self.total -= self._values.pop(key)[1]


MOST_BYTES: Final = 64 * 2**20
"""Bytes that are remembered of all sessions together."""

LARGEST: Final = 256 * 2**10
"""Bytes of an object that is remembered; opening reads small ones."""

# What an entry takes beside its bytes.
_OVERHEAD = 500

memory: Memory[Fetched] = Memory(MOST_BYTES)


def remembering() -> AbstractContextManager[None]:
    """Have what is read meanwhile, in this thread, remembered, and answered from memory.

    That is done over HTTP and S3, for whole small objects of sessions with consolidated metadata, and as long
    as these have the same ETag: to open a session again then takes one conditional request for them. An
    object that is replaced without the metadata changing is not noticed by this process, unless it asks for
    ``storage_options={"revalidate": True}``.
    """
    return standing_in(_stand_in)


def _stand_in(location: Location) -> Transport | None:
    with standing_in(None):
        own = open_transport(location)
    if not own.conditional or location.option("revalidate") is True:
        return None
    return RememberingTransport(own, location.uncached.cache_key)


class RememberingTransport(OverTransport):
    """Answers from memory, and remembers what it fetches, for a known state of the session.

    Parameters
    ----------
    own
        The location's own transport, which everything else is left to.
    scope
        The location and the identity.
    state
        The ETag of the session's metadata document, where the caller knows it.
    """

    opening = True

    def __init__(self, own: Transport, scope: Hashable, state: str | None = None) -> None:
        super().__init__(own, state)
        self._scope = scope

    def __reduce__(self) -> tuple[Any, ...]:
        return self._inner.__reduce__()

    def at(self, etag: str | None) -> Transport:
        """The same, for the state of the session whose metadata document has this ETag."""
        return RememberingTransport(self._inner.at(etag), self._scope, etag)

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
        """As `Transport.get`; what is remembered costs no request, and is in no count."""
        is_whole = start is None and stop is None and suffix is None
        name = (self._scope, self.state, key)
        if self.state is None or is_document(key) or not is_whole:
            return await super().get(key, start=start, stop=stop, suffix=suffix, limit=limit, etag=etag)
        known = memory.get(name)
        if known is not None and etag in {None, known.etag} and (limit is None or len(known.data) <= limit):
            return known
        fetched = await super().get(key, limit=limit, etag=etag)
        if fetched is not None and len(fetched.data) <= LARGEST:
            memory.put(name, fetched, len(fetched.data) + _OVERHEAD)
        return fetched
