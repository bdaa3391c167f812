"""Open sessions from a snapshot: is it current, and a transport that answers from it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, get_args

from intake_nwbzarr.arguments import check_choice
from intake_nwbzarr.bounds import LARGEST_OBJECT
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
from intake_nwbzarr.kept.snapshot import (
    CONSOLIDATED,
    KeptFile,
    KeptObject,
    KeptSession,
    Snapshots,
    listing_digest,
    open_snapshots,
)
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import Failure, Fetched, Folder, Listed, Part, Unchanged
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.open import open_transport, standing_in
from intake_nwbzarr.transport.request_log import readable_size

type Verify = Literal["metadata", "all", False]

# RFC 9110, 8.8.3. Nothing else goes into a request: neither `*`, which every object matches, nor a header.
_ENTITY_TAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')
_LISTING = "the listing of its metadata documents"


def changed_since(file: KeptFile, location: Location, verify: Verify) -> str | None:
    """What of a file is not what the snapshot holds.

    One conditional GET for its consolidated metadata; a listing, where it has none. ``"all"``: a conditional
    GET also for each further object. Storage without ETags gives the objects, which are compared.

    Parameters
    ----------
    file
        What the snapshot holds.
    location
        Where the file is; the snapshot has no say in that.
    verify
        What is compared.

    Returns
    -------
    str or None
        A key, or what else has changed; None where nothing has.

    Raises
    ------
    NWBZarrError
        As `intake_nwbzarr.transport.base.Transport.get`.
    """
    with standing_in(None):
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


@dataclass
class Opening:
    """One opening from a snapshot.

    Parameters
    ----------
    snapshots
        The file.
    session
        What it holds of the session.
    location
        Where the session is.
    verify
        What is compared with what is stored.
    """

    snapshots: Snapshots
    session: KeptSession
    location: Location
    verify: Verify
    _serving: dict[Location, ServingTransport] = field(default_factory=dict)
    _unverifiable: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """What a Dataset says of the snapshot: nothing, where it has been compared with what is stored."""
        made = f"snapshot of {self.session.made}"
        if self.verify is False:
            return {"nwb_snapshot": f"not verified: {made}"}
        return {"nwb_snapshot": f"unverifiable: {made}"} if self._unverifiable else {}

    def reading(self) -> AbstractContextManager[None]:
        """While open, what is read in this thread is read from the snapshot, where that has it."""
        return standing_in(self.stand_in)

    def hierarchy(self) -> Hierarchy:
        """The session's hierarchy; to be called, and used for opening, within `reading`."""
        transport = open_transport(self.location)
        return Hierarchy(self.location, transport, run(load_documents(transport)))

    def stand_in(self, location: Location) -> ServingTransport | None:
        """What serves a file that the snapshot holds; it is compared the first time that it is met."""
        if location in self._serving:
            return self._serving[location]
        # The snapshot has no say in where a link leads: only a file that one does lead to is looked up.
        file = self.session.file(location.url)
        if file is None:
            return None
        self._check(file, location)
        return self._serving.setdefault(location, ServingTransport(location, file))

    def _check(self, file: KeptFile, location: Location) -> None:
        if self.verify is False:
            return
        changed = changed_since(file, location, self.verify)
        if changed is not None:
            add = " --add" if len(self.snapshots) > 1 else ""
            raise StaleSnapshotError(
                f"The snapshot {self.snapshots.path} of {self.location}, made {self.session.made}, is stale: "
                f"{changed!r} in {location} has changed since, or is gone. Make it anew with: "
                f"nwbzarr snapshot {self.location}{add} -o {self.snapshots.path}"
            )
        if not file.is_verifiable:
            self._unverifiable = True
            warn_caller(
                f"The snapshot {self.snapshots.path} of {location} cannot be compared with what is stored: "
                "it has neither consolidated metadata nor a listing with ETags. What is opened is wrong if "
                "it has changed since. Have it consolidated, or give verify=False to accept that.",
                SnapshotWarning,
            )


def opening(
    snapshot: str | os.PathLike[str] | Snapshots, location: Location, verify: Verify = "metadata"
) -> Opening:
    """Prepare to open a session from a snapshot.

    Parameters
    ----------
    snapshot
        The snapshot file.
    location
        Of the session.
    verify
        ``"metadata"``: one conditional GET for each metadata document. ``"all"``: for each object that the
        snapshot holds. False: nothing is compared, and nothing requested.

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
    return Opening(snapshots, snapshots.session(location.url), location, verify)
