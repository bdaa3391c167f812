"""Make a snapshot: open sessions in every way and record the objects that are read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from intake_nwbzarr.arguments import check_bool, local_path, takes_storage_options
from intake_nwbzarr.arrays.layout import layout
from intake_nwbzarr.copies.from_snapshot import SnapshotTransport
from intake_nwbzarr.copies.snapshot import (
    CONSOLIDATED,
    DOCUMENTS,
    KeptFile,
    KeptFolder,
    KeptObject,
    KeptRange,
    KeptSession,
    Snapshots,
    listing_digest,
    replaced,
    write_snapshots,
)
from intake_nwbzarr.errors import (
    AccessError,
    ChunkError,
    CredentialsError,
    LimitError,
    ListingError,
    LocationError,
    MetadataError,
    NWBZarrError,
    ObjectChangedError,
    OptionError,
)
from intake_nwbzarr.hierarchy.documents import load_documents
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, load_hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.location.location import Location, Place, locate
from intake_nwbzarr.transport.answers import Fetched, Folder, Part
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.hdf5 import FILE
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.open import Opener
from intake_nwbzarr.untrusted_input import LARGEST_DOCUMENT, LARGEST_SNAPSHOT_OBJECT

ENDING: Final = ".snapshot.zip"


@takes_storage_options
def snapshot(
    location: Place | Iterable[Place],
    storage_options: Mapping[str, Any] | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    add: bool = False,
) -> Snapshots:
    """Save the metadata needed to open sessions to one small file, so that they open without any requests.

    Parameters
    ----------
    location
        The location of one session, or an iterable of several.
    storage_options
        Credentials and other options, for all sessions. They are not saved.
    path
        The path of the file. Default: ``<name of the session>.snapshot.zip`` in the working directory, or
        ``sessions.snapshot.zip`` for several sessions. An existing snapshot is replaced.
    add
        Whether to keep the other sessions that the file already has.

    Returns
    -------
    Snapshots
        The file; it, or its path, can be passed to ``xarray.open_dataset(..., snapshot=...)``.

    Raises
    ------
    NWBZarrError
        When a session cannot be opened, as `intake_nwbzarr.open_hierarchy`; nothing is written then.
    OptionError
        When `path` is not a local path, or another file than a snapshot exists there.
    ObjectChangedError
        When a session changes while it is read.

    Examples
    --------
    >>> saved = snapshot("s3://bucket/sub-1.nwb.zarr", path="sub-1.snapshot.zip")  # doctest: +SKIP
    >>> xr.open_dataset(  # doctest: +SKIP
    ...     "s3://bucket/sub-1.nwb.zarr", engine="nwbzarr", snapshot="sub-1.snapshot.zip"
    ... )
    """
    single = isinstance(location, str | os.PathLike | Location) or not isinstance(location, Iterable)
    places: list[Any] = [location] if single else list(location)  # type: ignore[arg-type]
    check_bool("add", add)
    if not places:
        raise OptionError(
            "snapshot() needs at least one location.", found=0, next_step="Pass the location of a session."
        )
    located = [locate(place, storage_options) for place in places]
    target = snapshot_path(located, path)
    return write_snapshots(target, [record_session(each) for each in located], add=add)


def snapshot_path(locations: Sequence[Location], path: str | os.PathLike[str] | None) -> Path:
    """Return the path of a snapshot of some sessions, checked; see `snapshot`."""
    name = locations[0].url.rpartition("/")[2].removesuffix(".zip") if len(locations) == 1 else ""
    target = local_path(
        f"{unquote(name) or 'sessions'}{ENDING}" if path is None else path, "The snapshot path"
    )
    # Checked before minutes are spent on sessions.
    replaced(target)
    return target


def record_session(location: Location) -> KeptSession:
    """Open a session flat and as a tree, scaled and as stored, and record the objects that are read."""
    if location.store is not None:
        # Sessions in a snapshot are found by URL.
        raise LocationError(
            f"{location} is an open zarr Store, of which no snapshot can be made.",
            location=location,
            next_step="Pass its path or URL.",
        )
    # As it is stored now, not as a chunk cache has it.
    location = location.uncached
    recorders: dict[Location, RecordingTransport] = {}

    def opener(location: Location) -> RecordingTransport:
        return recorders.setdefault(location, RecordingTransport(location))

    made = datetime.now(UTC).isoformat(timespec="seconds")
    hierarchy = _open_in_every_way(location, opener)
    if hierarchy.location.is_hdf5:
        _read_chunk_tables(hierarchy, opener(hierarchy.location))
    files = [_finished(recorded) for recorded in recorders.values()]
    return KeptSession(location.url, made, [file for file in files if file is not None])


def _open_in_every_way(location: Location, opener: Opener) -> Hierarchy:
    from intake_nwbzarr.mapping.options import MappingOptions
    from intake_nwbzarr.mapping.views import open_session, open_tree

    hierarchy = load_hierarchy(location, opener)
    open_tree(hierarchy, MappingOptions())
    with warnings.catch_warnings():
        # Opening the tree has issued them.
        warnings.simplefilter("ignore")
        open_session(hierarchy, MappingOptions())
        open_session(hierarchy, MappingOptions(mask_and_scale=False))
    return hierarchy


def _read_chunk_tables(hierarchy: Hierarchy, transport: Transport) -> None:
    """Read where all chunks of an HDF5 file are, so that they can be read without its own indexes."""

    async def read(key: str) -> None:
        # A damaged one is an error where its array is read.
        with suppress(ChunkError, MetadataError, LimitError):
            await transport.get(key)

    found = [layout(node).ranges for node in hierarchy.valid_nodes() if isinstance(node, ArrayNode)]
    run(gather([partial(read, ranges.index) for ranges in found if ranges and ranges.contiguous is None]))


def _finished(recorder: RecordingTransport) -> KeptFile | None:
    """Return the recorded file; None for the target of a link that could not be opened."""
    try:
        documents = run(load_documents(recorder))
        Hierarchy(recorder.location, recorder, documents)[""]
    except NWBZarrError:
        return None
    file = recorder.file
    file.hdf5 = recorder.location.is_hdf5
    file.consolidated = documents.consolidated
    if not documents.consolidated:
        file.listing = run(_listing(recorder))
    return file


async def _listing(recorder: RecordingTransport) -> str | None:
    """Return the digest of a file's listing, after checking that its ETags are those of the objects read."""
    try:
        listed = await recorder.own.list()
    except ListingError:
        return None
    digest = listing_digest(listed)
    if digest is not None:
        etags = {entry.key: entry.etag for entry in listed}
        for key, kept in recorder.file.objects.items():
            is_document = key.rpartition("/")[2] in DOCUMENTS and kept.data is not None
            if is_document and etags.get(key) != kept.etag:
                raise ObjectChangedError(
                    f"{recorder.location}/{key} changed while the snapshot was made.",
                    location=recorder.location,
                    path=key,
                    found=etags.get(key),
                    expected=kept.etag,
                    next_step="Make the snapshot again.",
                )
    return digest


class RecordingTransport(SnapshotTransport):
    """Records the objects that are read through it, and returns them from there when read again."""

    def __init__(self, location: Location) -> None:
        super().__init__(location, KeptFile(location.url))

    async def fetch(self, key: str, part: Part | None, limit: int, etag: str | None = None) -> Fetched | None:
        """Fetch an object; unless it is too large, all of it is read and recorded."""
        if key == FILE:
            return await self._fetch_range(part, limit, etag)
        if key and key not in self.file.objects:
            await self._keep(key)
        return await super().fetch(key, part, limit, etag)

    async def _fetch_range(self, part: Part | None, limit: int, etag: str | None) -> Fetched | None:
        """Fetch a range of an HDF5 file; it is recorded unless it is too large."""
        fetched = await super().fetch(FILE, part, limit, etag)
        state = self.file.objects["zarr.json"].etag
        if fetched is None or fetched.etag != state:
            raise ObjectChangedError(
                f"{self.location} changed while the snapshot was made.",
                location=self.location,
                found=None if fetched is None else fetched.etag,
                expected=state,
                next_step="Make the snapshot again.",
            )
        if part is not None and not fetched.cached and len(fetched.data) <= LARGEST_SNAPSHOT_OBJECT:
            self.file.ranges.append(KeptRange(part.start or 0, bytes(fetched.data)))
        return fetched

    async def _keep(self, key: str) -> None:
        is_document = key.rpartition("/")[2] in DOCUMENTS
        try:
            found = await self.own.get(
                key, limit=LARGEST_DOCUMENT if is_document else LARGEST_SNAPSHOT_OBJECT
            )
        except LimitError:
            return
        except AccessError as error:
            # A bucket that denies listing returns 403 for the one of both documents that does not exist.
            if key in CONSOLIDATED and not isinstance(error, CredentialsError):
                self.file.objects[key] = KeptObject(None)
            raise
        kept = KeptObject(None) if found is None else KeptObject(bytes(found.data), found.etag)
        self.file.objects[key] = kept

    async def _list_folder(self, folder: str) -> Folder:
        if folder not in self.file.folders:
            found = await self.own.list_folder(folder)
            self.file.folders[folder] = KeptFolder(list(found.names), list(found.folders))
        return await super()._list_folder(folder)
