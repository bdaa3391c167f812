"""Open sessions from a snapshot, after comparing it with the stored session."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arguments import check_choice
from intake_nwbzarr.copies.snapshot import (
    CONSOLIDATED,
    KeptFile,
    KeptObject,
    KeptSession,
    Snapshots,
    listing_digest,
    open_snapshots,
)
from intake_nwbzarr.errors import (
    LimitError,
    ObjectChangedError,
    OptionError,
    ResponseError,
    SnapshotWarning,
    StaleSnapshotError,
    warn_caller,
)
from intake_nwbzarr.hierarchy.documents import load_documents
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import Fetched, Folder, Listed, Part, Unchanged
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.hdf5 import FILE
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import readable_size

type Verify = Literal["metadata", "all", False]

# RFC 9110, 8.8.3. Nothing else goes into a request: neither `*`, which every object matches, nor a header.
_ENTITY_TAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')
_LISTING = "the listing of its metadata documents"


def changed_since(file: KeptFile, location: Location, verify: Verify) -> str | None:
    """Return what has changed in a file since its snapshot, such as a key; None if nothing has."""
    # One conditional GET for consolidated metadata, or else a listing; with "all", also a conditional GET for
    # each further object. Where the storage has no ETags, the objects are read and compared.
    # The URL in the snapshot is not used.
    transport = open_transport(location.uncached)
    if file.hdf5:
        # All of it has the ETag of one file.
        verify = "metadata"
    try:
        return run(_first_change(file, transport, verify))
    except ObjectChangedError:
        # A zip file was replaced since this process read its directory, which is read again now.
        return run(_first_change(file, transport, verify))


async def _first_change(file: KeptFile, transport: Transport, verify: Verify) -> str | None:
    keys = [key for key in file.objects if _is_worth_asking(file, key)] if verify == "all" else file.documents
    same = await gather([partial(_is_same, file, key, transport) for key in keys])
    changed = next((key for key, is_same in zip(keys, same, strict=True) if not is_same), None)
    if changed is None and not file.consolidated and file.listing is not None:
        # Where it could be listed once and cannot any more, that is the error.
        return None if listing_digest(await transport.list()) == file.listing else _LISTING
    return changed


def _is_worth_asking(file: KeptFile, key: str) -> bool:
    # A bucket that may not be listed refuses the one of two documents that is not there.
    return key not in CONSOLIDATED or key in file.documents


async def _is_same(file: KeptFile, key: str, transport: Transport) -> bool:
    kept = file.objects[key]
    if transport.conditional and kept.etag is not None and _ENTITY_TAG.fullmatch(kept.etag):
        found = await transport.get_unless(key, kept.etag)
    else:
        found = await transport.get(key)
    if isinstance(found, Unchanged):
        return True
    if (None if found is None else found.data) != kept.data:
        return False
    # An object that was stored again may have another ETag and the same bytes.
    if found is not None and found.etag != kept.etag:
        file.objects[key] = KeptObject(kept.data, found.etag)
    return True


class SnapshotTransport(Transport):
    """Returns the objects that a snapshot has of a file without requests, and requests all others."""

    # A snapshot is data: the location alone determines where requests go, and with which credentials. Unlike
    # a cache, it also knows which objects are absent and which names a folder has, in one state of a session.

    def __init__(self, location: Location, file: KeptFile) -> None:
        super().__init__(location)
        self.file = file
        if file.hdf5:
            # Where chunks are is known for this state only.
            self.state = file.objects["zarr.json"].etag

    @property
    def own(self) -> Transport:
        """Return the location's own transport."""
        return open_transport(self.location)

    def at(self, etag: str | None) -> Transport:  # noqa: ARG002 (what a snapshot holds is of one state)
        """Return this transport: objects that the location returns are not compared with a state."""
        return self

    async def fetch(self, key: str, part: Part | None, limit: int, etag: str | None = None) -> Fetched | None:
        """Fetch an object; those in the snapshot take no request and are not counted."""
        if key == FILE and part is not None and part.stop is not None:
            data = self.file.part(part.start or 0, part.stop)
            if data is not None:
                return Fetched(data, self.file.objects["zarr.json"].etag, None, len(data))
        if key not in self.file.objects:
            return await self.own.fetch(key, part, limit, etag)
        kept = self.file.objects[key]
        if kept.data is None:
            return None
        where, size = f"Cannot read {self.location}/{key} from the snapshot", len(kept.data)
        bounds = (0, size) if part is None else part.bounds(size)
        if bounds is None:
            raise ResponseError(
                f"{where}: it ends at {size} bytes, before the requested range.",
                location=self.location,
                path=key,
                found=size,
            )
        data = kept.data[slice(*bounds)]
        if len(data) > limit:
            raise LimitError(
                f"{where}: it has {readable_size(len(data))}, and {readable_size(limit)} are allowed.",
                location=self.location,
                path=key,
                found=len(data),
                expected=limit,
            )
        return Fetched(data, kept.etag, size, len(data))

    async def get_table(self, key: str, chunks: NDArray[np.int64] | None) -> Fetched | None:
        """Get a table of chunks; all of it if the snapshot has it."""
        return await (self.get(key) if key in self.file.objects else self.own.get_table(key, chunks))

    async def check_presence(self, key: str) -> None:
        """Check that the session of an absent chunk exists, unless the chunk is absent in the snapshot."""
        if key not in self.file.objects:
            await self.own.check_presence(key)

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | None:
        return await self.fetch(key, part, limit)

    async def _list(self, prefix: str) -> Sequence[Listed]:
        return await self.own.list(prefix)

    async def _list_folder(self, folder: str) -> Folder:
        # The caller checks names, as it does those of a listing.
        kept = self.file.folders.get(folder)
        return Folder(tuple(kept.names), tuple(kept.folders)) if kept else await self.own.list_folder(folder)


@dataclass
class SnapshotOpener:
    """Opens the files of a session from a snapshot, and compares each with the stored file once."""

    snapshots: Snapshots
    session: KeptSession
    verify: Verify
    _transports: dict[Location, Transport] = field(default_factory=dict)
    _unverifiable: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """Return the attributes of a Dataset whose snapshot was not compared with the stored session."""
        made = f"snapshot of {self.session.made}"
        if self.verify is False:
            return {"nwb_snapshot": f"not verified: {made}"}
        return {"nwb_snapshot": f"unverifiable: {made}"} if self._unverifiable else {}

    def __call__(self, location: Location) -> Transport:
        """Return the transport of a file: the snapshot's, or its location's if the snapshot lacks it."""
        # A snapshot does not determine where links lead; only files that links lead to are looked up.
        file = self.session.file(location.url)
        if file is None:
            return open_transport(location)
        if file.hdf5:
            location = location.as_hdf5
        if location not in self._transports:
            self._check(file, location)
            self._transports[location] = SnapshotTransport(location, file)
        return self._transports[location]

    def _check(self, file: KeptFile, location: Location) -> None:
        if self.verify is False:
            return
        changed = changed_since(file, location, self.verify)
        if changed is not None:
            raise StaleSnapshotError(
                f"The snapshot {self.snapshots.path} of {self.session.url}, made {self.session.made}, is "
                f"stale: {changed!r} in {location} has been changed or removed since.",
                location=location,
                path=None if changed == _LISTING else changed,
                found=changed,
                next_step=self.snapshots.remade(self.session.url),
            )
        if not file.is_verifiable:
            self._unverifiable = True
            warn_caller(
                f"The snapshot {self.snapshots.path} of {location} cannot be compared with the stored "
                "session, which has neither consolidated metadata nor a listing with ETags. If the session "
                "has changed since, wrong data are opened. Consolidate its metadata, or pass verify=False to "
                "accept this.",
                SnapshotWarning,
                code="unverified-snapshot",
            )


def open_from_snapshot(
    snapshot: str | os.PathLike[str] | Snapshots, location: Location, verify: Verify = "metadata"
) -> tuple[Hierarchy, SnapshotOpener]:
    """Open the hierarchy of a session from a snapshot file, with only the requests that `verify` implies."""
    # "metadata": one conditional GET for each metadata document; "all": one for each object; False: none.
    check_choice("verify", verify, get_args(Verify.__value__))
    if location.option("consolidated") is False:
        raise OptionError(
            "consolidated=False and snapshot= exclude each other: without consolidated metadata, "
            f"{location} is read as it is stored now.",
            location=location,
            found=False,
            next_step="Omit one of them.",
        )
    snapshots = open_snapshots(snapshot)
    opener = SnapshotOpener(snapshots, snapshots.session(location.url), verify)
    transport = opener(location)
    return Hierarchy(transport.location, transport, run(load_documents(transport)), opener), opener
