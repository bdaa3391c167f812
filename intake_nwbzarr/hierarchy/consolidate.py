"""Write or repair the consolidated metadata of a session."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import msgspec
import zarr
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.buffer import cpu
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from intake_nwbzarr.arguments import check_bool, takes_storage_options
from intake_nwbzarr.errors import HDF5FileError, MetadataError, ObjectChangedError, UnsafePathError
from intake_nwbzarr.hierarchy.documents import (
    Documents,
    documents_among,
    list_documents,
    load_documents,
    load_json,
)
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport


@dataclass(frozen=True)
class Consolidation:
    """The changes that consolidating a file made, or would make.

    Parameters
    ----------
    location
        The file.
    zarr_format
        2 or 3.
    document
        The consolidated document: ``.zmetadata`` for Zarr 2, ``zarr.json`` for Zarr 3.
    nodes
        The number of groups and arrays in it.
    added, removed, changed
        Paths of groups and arrays that were missing from the document, no longer exist, or have changed.
    written
        Whether the document was written.
    """

    location: str
    zarr_format: Literal[2, 3]
    document: str
    nodes: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    written: bool

    @property
    def up_to_date(self) -> bool:
        """Return whether the document already matches the file."""
        return not (self.added or self.removed or self.changed)

    def __str__(self) -> str:
        if self.up_to_date:
            return f"{self.location}: {self.document} is up to date, {self.nodes} groups and arrays."
        counts = ", ".join(
            f"{len(paths)} {word}"
            for word, paths in (("added", self.added), ("removed", self.removed), ("changed", self.changed))
            if paths
        )
        verb = "written" if self.written else "would be written"
        return f"{self.location}: {self.document} {verb}, {self.nodes} groups and arrays ({counts})."


@takes_storage_options
def consolidate(
    location: str | os.PathLike[str] | Location | Store,
    storage_options: Mapping[str, Any] | None = None,
    *,
    dry_run: bool = False,
) -> Consolidation:
    """Write or repair the consolidated metadata of an NWB Zarr file, so that opening it takes two requests.

    Reads the metadata documents of all groups and arrays, and replaces the consolidated document in one
    atomic step, on S3 only if it has not changed since it was read. Nothing else is changed. The result is
    verified by opening the file.

    Parameters
    ----------
    location
        A local folder, or an ``s3`` URL that can be listed and written.
    storage_options
        Credentials and other options, named as in s3fs.
    dry_run
        Only return what would change.

    Returns
    -------
    Consolidation
        The changes. A document that is up to date is not written.

    Raises
    ------
    LocationError
        When the location cannot be written (``https``, a zip file).
    OptionError
        When `dry_run` is neither True nor False.
    ObjectChangedError
        When the document was changed by others in the meantime, twice.
    NWBZarrError
        Other errors as in `intake_nwbzarr.open_hierarchy`.
    """
    check_bool("dry_run", dry_run)
    where = locate(location, storage_options).uncached
    if where.is_hdf5:
        raise _needless(where)
    transport = open_transport(where)
    # Also for a dry run, whose plan could never be carried out.
    if not transport.writable:
        raise transport.unwritable()
    for last_try in (False, True):
        try:
            plan, stored, etag = run(_plan(transport))
        except HDF5FileError:
            raise _needless(where) from None
        if dry_run or plan.up_to_date:
            return plan
        data = zarr_3_document(stored) if stored.zarr_format == 3 else _zarr_2_document(stored)
        try:
            run(transport.put(plan.document, data, if_match=etag, if_none_match=etag is None))
        except ObjectChangedError:
            if last_try:
                raise
        else:
            break
    _verify(transport, plan)
    return replace(plan, written=True)


def _needless(location: Location) -> HDF5FileError:
    return HDF5FileError(
        f"{location} is an HDF5 file, whose metadata need not be consolidated.",
        location=location,
        found="an HDF5 file",
        expected="a Zarr store",
        next_step="Open it as it is.",
    )


@takes_storage_options
def is_fresh(
    location: str | os.PathLike[str] | Location | Store,
    storage_options: Mapping[str, Any] | None = None,
) -> bool:
    """Return whether the consolidated metadata of a session equal the stored ones.

    They do not after groups or arrays were added, removed, resized or given other attributes, as with zarr:
    readers then see the session as it was. `consolidate` mends that, and with ``dry_run=True`` tells what
    differs. Reads all metadata documents, and nothing else.

    Parameters
    ----------
    location
        A path, or a URL that can be listed; it need not be writable.
    storage_options
        Credentials and other options, named as in s3fs and fsspec.

    Returns
    -------
    bool
        True for HDF5 files as well, which have one copy of their metadata; False without consolidated ones.

    Raises
    ------
    ListingError, AccessError
        When the storage cannot be listed.
    MetadataError
        When a stored document is damaged.
    NWBZarrError
        Other errors as in `intake_nwbzarr.open_hierarchy`.

    Examples
    --------
    >>> group = zarr.open_group("sub-1.nwb.zarr", mode="r+")  # doctest: +SKIP
    >>> group["units"].attrs["description"] = "sorted again"  # doctest: +SKIP
    >>> is_fresh("sub-1.nwb.zarr")  # doctest: +SKIP
    False
    """
    where = locate(location, storage_options)
    try:
        return where.is_hdf5 or compare(where).up_to_date
    except HDF5FileError:
        return True


def compare(location: Location, keys: Iterable[str] | None = None) -> Consolidation:
    """Return what consolidating would change, also of a file that cannot be written.

    `keys` are those of a complete listing, if that is known.
    """
    return run(_plan(open_transport(location.uncached), keys))[0]


def without_schemas(found: Consolidation, schemas: str) -> Consolidation:
    """Return the changes apart from cached schemas, which hdmf-zarr before 0.14 wrote after consolidating."""

    def kept(paths: tuple[str, ...]) -> tuple[str, ...]:
        # It then named their group in the root.
        return tuple(path for path in paths if path and not f"{path}/".startswith(f"{schemas}/"))

    return replace(found, added=kept(found.added), removed=kept(found.removed), changed=kept(found.changed))


async def _plan(
    transport: Transport, keys: Iterable[str] | None = None
) -> tuple[Consolidation, Documents, str | None]:
    """Return the planned changes, the stored documents, and the ETag of the document they would replace."""
    before = await _documents_now(transport)
    stored = before
    if before.consolidated and keys is not None:
        nodes = await documents_among(transport, before.zarr_format, keys)
        stored = replace(before, nodes=nodes, consolidated=False, etag=None)
    elif before.consolidated:
        stored = await list_documents(transport, before.zarr_format)
    name = "zarr.json" if stored.zarr_format == 3 else ".zmetadata"
    current = await transport.get(name)
    known = before.nodes if before.consolidated else {}
    contents = _contents(stored)
    plan = Consolidation(
        location=str(transport.location),
        zarr_format=stored.zarr_format,
        document=name,
        nodes=len(stored.nodes),
        added=tuple(sorted(stored.nodes.keys() - known.keys())),
        removed=tuple(sorted(known.keys() - stored.nodes.keys())),
        changed=tuple(
            path
            for path in sorted(known.keys() & stored.nodes.keys())
            if not _is_same(known[path], contents[path])
        ),
        written=False,
    )
    return plan, stored, current.etag if current else None


async def _documents_now(transport: Transport) -> Documents:
    """Return the documents of a store, listed where its ``.zmetadata`` are damaged and will be replaced."""
    try:
        return await load_documents(transport)
    except UnsafePathError:
        raise
    except MetadataError:
        # A damaged zarr.json is not only a copy of other documents, so that nothing can replace it.
        if await transport.get(".zgroup") is None:
            raise
        return await list_documents(transport, 2)


def _content(document: msgspec.Raw) -> str | None:
    """Return what a document says apart from consolidated metadata; None if it is not a JSON object."""
    try:
        decoded = load_json(document)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, dict):
        return None
    kept = {
        key: value if key == "attributes" else _named(value)
        for key, value in decoded.items()
        if key != "consolidated_metadata" and not (key in _OPTIONAL and not value)
    }
    # As text, so that NaN equals NaN.
    return json.dumps(kept, sort_keys=True)


# Fields of Zarr 3 that zarr-python writes into consolidated metadata, and other writers may leave out.
_OPTIONAL: Final = frozenset({"attributes", "storage_transformers", "dimension_names"})


def _named(value: Any) -> Any:
    """Return codecs and the like without configurations that are empty, which may be left out."""
    if isinstance(value, list):
        return [_named(each) for each in value]
    if isinstance(value, dict):
        return {key: _named(each) for key, each in value.items() if key != "configuration" or each}
    return value


def _is_same(known: Mapping[str, msgspec.Raw], stored: Mapping[str, str]) -> bool:
    return known.keys() == stored.keys() and all(_content(known[name]) == stored[name] for name in known)


def _contents(stored: Documents) -> dict[str, dict[str, str]]:
    """Return what the stored documents say, which must be JSON objects: others are not consolidated."""
    found: dict[str, dict[str, str]] = {}
    for path, documents in stored.nodes.items():
        for name, document in documents.items():
            key = f"{path}/{name}".lstrip("/")
            content = _content(document)
            if content is None:
                raise MetadataError(
                    f"The stored document {key!r} of {stored.location} is damaged: it is not a JSON object.",
                    location=stored.location,
                    path=key,
                    next_step="Upload it again, or compare it with the original file.",
                )
            found.setdefault(path, {})[name] = content
    return found


def _zarr_2_document(stored: Documents) -> bytes:
    """Return a ``.zmetadata`` document; zarr-python 3 cannot parse the metadata of pickled arrays."""
    metadata = {
        f"{path}/{name}".lstrip("/"): raw
        for path in sorted(stored.nodes)
        for name, raw in sorted(stored.nodes[path].items())
    }
    return msgspec.json.encode({"metadata": metadata, "zarr_consolidated_format": 1})


def zarr_3_document(stored: Documents) -> bytes:
    """Return a ``zarr.json`` that zarr itself consolidates, in a memory store of the documents."""
    contents: dict[str, Buffer] = {
        f"{path}/zarr.json".lstrip("/"): cpu.Buffer.from_bytes(bytes(documents["zarr.json"]))
        for path, documents in stored.nodes.items()
    }
    with warnings.catch_warnings():
        # zarr-python warns that consolidated metadata are not in the Zarr 3 specification.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(MemoryStore(contents))
    return contents["zarr.json"].to_bytes()


def _verify(transport: Transport, plan: Consolidation) -> None:
    """Open the file, decode every node, and compare their number with the plan."""
    documents = run(load_documents(transport))
    hierarchy = Hierarchy(transport.location, transport, documents)
    nodes = [hierarchy[path] for path in hierarchy]
    if not documents.consolidated or len(nodes) != plan.nodes:
        raise ObjectChangedError(
            f"{plan.document} of {plan.location} was written, but contains {len(nodes)} groups and arrays "
            f"instead of {plan.nodes}: something else is writing to this file.",
            location=plan.location,
            path=plan.document,
            found=len(nodes),
            expected=plan.nodes,
            next_step="Consolidate it again.",
        )
