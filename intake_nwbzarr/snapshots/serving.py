"""Serving: a transport that answers from a snapshot what it holds, and asks the location for the rest."""

from __future__ import annotations

from collections.abc import Sequence

from intake_nwbzarr.errors import LimitError, ResponseError
from intake_nwbzarr.location import Location
from intake_nwbzarr.snapshots.records import KeptFile
from intake_nwbzarr.transport.contract import (
    LARGEST_OBJECT,
    Failure,
    Fetched,
    Folder,
    Listed,
    Part,
    Transport,
)
from intake_nwbzarr.transport.log import readable_size
from intake_nwbzarr.transport.requests import open_transport, standing_in


class ServingTransport(Transport):
    """The objects of one file, as a snapshot has them, where it has them.

    A snapshot is data: it only answers for keys that it is asked for. Where requests go, and with which
    credentials, is the location's, and is found out with the first request that is needed.

    Parameters
    ----------
    location
        Of the file.
    file
        What the snapshot holds of it.
    """

    def __init__(self, location: Location, file: KeptFile) -> None:
        super().__init__(location)
        self.file = file

    @property
    def own(self) -> Transport:
        """The location's own transport."""
        with standing_in(None):
            return open_transport(self.location)

    def at(self, etag: str | None) -> Transport:  # noqa: ARG002 (what a snapshot holds is of one state)
        """The same; what the location itself is asked for in the end is compared with no state."""
        return self

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
        """As `Transport.get`; what the snapshot holds costs no request, and is in no count."""
        if key not in self.file.objects:
            return await self.own.get(key, start=start, stop=stop, suffix=suffix, limit=limit, etag=etag)
        whole = start is None and stop is None and suffix is None
        part = None if whole else Part(start, stop, suffix)
        found = self._from_snapshot(key, part, LARGEST_OBJECT if limit is None else limit)
        if isinstance(found, Failure):
            raise found.error(f"Cannot read {self.location}/{key} from the snapshot: {found.cause}.")
        return found

    def _from_snapshot(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        kept = self.file.objects[key]
        if kept.data is None:
            return None
        bounds = (0, len(kept.data)) if part is None else part.bounds(len(kept.data))
        if bounds is None:
            return Failure(ResponseError, f"it ends at {len(kept.data)} bytes, before the part asked for")
        data = kept.data[slice(*bounds)]
        if len(data) > limit:
            sizes = f"{readable_size(len(data))}, and {readable_size(limit)} are allowed"
            return Failure(LimitError, f"it has {sizes}")
        return Fetched(data, kept.etag, len(kept.data))

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        if key in self.file.objects:
            return self._from_snapshot(key, part, limit)
        return await self.own.fetch(key, part, limit)

    async def _list(self, prefix: str) -> Sequence[Listed]:
        return await self.own.list(prefix)

    async def _list_folder(self, folder: str) -> Folder:
        # Names are checked by whoever calls this, as those of a listing are.
        kept = self.file.folders.get(folder)
        return Folder(tuple(kept.names), tuple(kept.folders)) if kept else await self.own.list_folder(folder)
