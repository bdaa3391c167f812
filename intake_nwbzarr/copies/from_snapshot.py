"""Open sessions from a snapshot: compare it with what is stored, and answer from it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, get_args

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
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import readable_size

type Verify = Literal["metadata", "all", False]

# RFC 9110, 8.8.3. Nothing else goes into a request: neither `*`, which every object matches, nor a header.
_ENTITY_TAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')
_LISTING = "the listing of its metadata documents"


def changed_since(file: KeptFile, location: Location, verify: Verify) -> str | None:
    """Return a key, or what else of a file is not what the snapshot holds; None where all is.

    One conditional GET for its consolidated metadata; a listing, where it has none. ``"all"``: a conditional
    GET also for each further object. Storage without ETags gives the objects, which are compared.
    """
    # The snapshot has no say in where the file is.
    transport = open_transport(location.uncached)
    try:
        return run(_first_change(file, transport, verify))
    except ObjectChangedError:
        # An archive whose directory this process had read was replaced: it is read anew.
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
    # An object that was stored anew may have another ETag and be the same.
    if found is not None and found.etag != kept.etag:
        file.objects[key] = KeptObject(kept.data, found.etag)
    return True


class SnapshotTransport(Transport):
    """Answers from what a snapshot holds of a file, without a request, and passes everything else on.

    A snapshot is data: it only answers for keys that it is asked for. Where requests go, and with which
    credentials, is the location's, and is found out with the first request that is needed. It is no cache:
    it knows what is absent, and which names are in a folder, and belongs to one state of the session.
    """

    def __init__(self, location: Location, file: KeptFile) -> None:
        super().__init__(location)
        self.file = file

    @property
    def own(self) -> Transport:
        """Return the location's own transport."""
        return open_transport(self.location)

    def at(self, etag: str | None) -> Transport:  # noqa: ARG002 (what a snapshot holds is of one state)
        """Return this transport: what the location itself is asked for is compared with no state."""
        return self

    async def fetch(self, key: str, part: Part | None, limit: int, etag: str | None = None) -> Fetched | None:
        """Fetch an object; what the snapshot holds costs no request, and is in no count."""
        if key not in self.file.objects:
            return await self.own.fetch(key, part, limit, etag)
        kept = self.file.objects[key]
        if kept.data is None:
            return None
        where = f"Cannot read {self.location}/{key} from the snapshot"
        bounds = (0, len(kept.data)) if part is None else part.bounds(len(kept.data))
        if bounds is None:
            raise ResponseError(f"{where}: it ends at {len(kept.data)} bytes, before the part asked for.")
        data = kept.data[slice(*bounds)]
        if len(data) > limit:
            sizes = f"{readable_size(len(data))}, and {readable_size(limit)} are allowed"
            raise LimitError(f"{where}: it has {sizes}.")
        return Fetched(data, kept.etag, len(kept.data), len(data))

    async def check_presence(self, key: str) -> None:
        """Check that the session of an absent chunk is there, unless the snapshot says that there is none."""
        if key not in self.file.objects:
            await self.own.check_presence(key)

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | None:
        return await self.fetch(key, part, limit)

    async def _list(self, prefix: str) -> Sequence[Listed]:
        return await self.own.list(prefix)

    async def _list_folder(self, folder: str) -> Folder:
        # Names are checked by whoever calls this, as those of a listing are.
        kept = self.file.folders.get(folder)
        return Folder(tuple(kept.names), tuple(kept.folders)) if kept else await self.own.list_folder(folder)


@dataclass
class SnapshotOpener:
    """Opens the files of a session for reading from a snapshot, once each compared with what is stored."""

    snapshots: Snapshots
    session: KeptSession
    verify: Verify
    _transports: dict[Location, Transport] = field(default_factory=dict)
    _unverifiable: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """Return what a Dataset says of the snapshot: nothing, where it was compared with what is stored."""
        made = f"snapshot of {self.session.made}"
        if self.verify is False:
            return {"nwb_snapshot": f"not verified: {made}"}
        return {"nwb_snapshot": f"unverifiable: {made}"} if self._unverifiable else {}

    def __call__(self, location: Location) -> Transport:
        """Return what reads a file: from the snapshot, or from its location if the snapshot has it not."""
        if location not in self._transports:
            # The snapshot has no say in where a link leads: only a file that one does lead to is looked up.
            file = self.session.file(location.url)
            if file is not None:
                self._check(file, location)
            self._transports[location] = (
                open_transport(location) if file is None else SnapshotTransport(location, file)
            )
        return self._transports[location]

    def _check(self, file: KeptFile, location: Location) -> None:
        if self.verify is False:
            return
        changed = changed_since(file, location, self.verify)
        if changed is not None:
            add = " --add" if len(self.snapshots) > 1 else ""
            raise StaleSnapshotError(
                f"The snapshot {self.snapshots.path} of {self.session.url}, made {self.session.made}, is "
                f"stale: {changed!r} in {location} has changed since, or is gone. Make it anew with: "
                f"nwbzarr snapshot {self.session.url}{add} -o {self.snapshots.path}"
            )
        if not file.is_verifiable:
            self._unverifiable = True
            warn_caller(
                f"The snapshot {self.snapshots.path} of {location} cannot be compared with what is stored: "
                "it has neither consolidated metadata nor a listing with ETags. What is opened is wrong if "
                "it has changed since. Have it consolidated, or give verify=False to accept that.",
                SnapshotWarning,
            )


def open_from_snapshot(
    snapshot: str | os.PathLike[str] | Snapshots, location: Location, verify: Verify = "metadata"
) -> tuple[Hierarchy, SnapshotOpener]:
    """Open the hierarchy of a session from a snapshot file.

    Nothing is requested but what `verify` asks for: ``"metadata"``, one conditional GET for each metadata
    document; ``"all"``, one for each object that the snapshot holds; False, nothing.

    Raises
    ------
    SnapshotError, NotInSnapshotError, LimitError
        When the snapshot is damaged, is of other sessions, or larger than allowed.
    OptionError
        When `verify` is anything else.
    """
    check_choice("verify", verify, get_args(Verify.__value__))
    if location.option("consolidated") is False:
        raise OptionError(
            f"consolidated=False reads the metadata of {location} as they are stored now, and snapshot= as "
            "they were; give one of them."
        )
    snapshots = open_snapshots(snapshot)
    opener = SnapshotOpener(snapshots, snapshots.session(location.url), verify)
    transport = opener(location)
    return Hierarchy(location, transport, run(load_documents(transport)), opener), opener
