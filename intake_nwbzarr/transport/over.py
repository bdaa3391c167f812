"""Base class of transports that wrap another one and override some of its methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from intake_nwbzarr.location import Location
from intake_nwbzarr.transport.contract import (
    Failure,
    Fetched,
    Folder,
    Identity,
    Listed,
    Part,
    Transport,
    Unchanged,
)


class OverTransport(Transport):
    """Passes everything on; by itself, a transport that knows the state that the session is in.

    Parameters
    ----------
    inner
        What is asked in the end.
    state
        The ETag of the session's metadata document, where the caller knows it.
    """

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
        """Of the other transport."""
        return self._inner.seen

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and (other._inner, other.state) == (self._inner, self.state)

    def __hash__(self) -> int:
        return hash((self._inner, self.state))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.location, self.state)

    def at(self, etag: str | None) -> Transport:
        """The same, for the state of the session whose metadata document has this ETag."""
        return type(self)(self._inner, etag)

    async def fetch(self, key: str, part: Part | None, limit: int, etag: str | None = None) -> Fetched | None:
        """As the other transport does."""
        return await self._inner.fetch(key, part, limit, etag)

    async def fetch_unless(
        self, key: str, part: Part | None, limit: int, etag: str
    ) -> Fetched | Unchanged | None:
        """As the other transport does."""
        return await self._inner.fetch_unless(key, part, limit, etag)

    async def kept(self, key: str) -> Fetched | None:
        """As the other transport does."""
        return await self._inner.kept(key)

    async def identity(self) -> Identity:
        """As the other transport does."""
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


def _reopened(location: Location, state: str | None) -> Transport:
    from intake_nwbzarr.transport.requests import open_transport

    return open_transport(location).at(state)
