"""A transport over another one: what it does not do in its own way, the other does."""

from __future__ import annotations

from collections.abc import Sequence

from intake_nwbzarr.transport.contract import Failure, Fetched, Folder, Listed, Part, Transport


class OverTransport(Transport):
    """Passes everything on.

    Parameters
    ----------
    inner
        What is asked in the end.
    """

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner.location)
        self.conditional = inner.conditional
        self.writable = inner.writable
        self._inner = inner

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        return await self._inner._get(key, part, limit)

    async def _is_gone(self) -> bool:
        return await self._inner._is_gone()

    async def _list(self, prefix: str) -> Sequence[Listed]:
        return await self._inner._list(prefix)

    async def _list_folder(self, folder: str) -> Folder:
        return await self._inner._list_folder(folder)

    async def _put(self, key: str, data: bytes, if_match: str | None, if_none_match: bool) -> str | None:
        return await self._inner._put(key, data, if_match, if_none_match)
