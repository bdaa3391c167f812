"""Zarr metadata documents, of Zarr 2 or 3: consolidated, listed or remembered, in few round trips."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

import msgspec

from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    HDF5FileError,
    LimitError,
    ListingError,
    LocationNotFoundError,
    MetadataError,
    NotZarrError,
    ResponseError,
    UnsafePathError,
)
from intake_nwbzarr.hdf5.documents import UNREAD, UNREADABLE
from intake_nwbzarr.hdf5.objects import SIGNATURE
from intake_nwbzarr.hierarchy.recognize import is_undecided
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import HDF5_NAMES, Bytes, Fetched, Part, Unchanged
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.cache import Memory
from intake_nwbzarr.transport.loop import await_all, gather
from intake_nwbzarr.untrusted_input import LARGEST_DOCUMENT, MOST_NODES, safe_path

JOURNAL: Final = ".nwbzarr-convert.json"
"""The object in which `convert` notes what it has written to its destination."""


@dataclass(frozen=True)
class Documents:
    """The undecoded metadata documents of a store."""

    location: Location
    zarr_format: Literal[2, 3]
    # From a node's path to its documents by name: zarr.json, or .zgroup, .zarray and .zattrs.
    nodes: Mapping[str, Mapping[str, msgspec.Raw]] = field(repr=False)
    consolidated: bool
    # The ETag of the consolidated document.
    etag: str | None
    # The number of requests that fetched them.
    requests: int
    # Of an HDF5 file of which one object is opened, the names of members that were not read, by their group;
    # None if some are not known.
    unread: Mapping[str, Sequence[str] | None] = field(default_factory=dict, repr=False)
    # Why objects and attributes of an HDF5 file cannot be read, by path.
    unreadable: Mapping[str, str] = field(default_factory=dict, repr=False)

    def with_nodes(self, nodes: Mapping[str, Mapping[str, msgspec.Raw]]) -> Documents:
        """Return these documents and those of further nodes."""
        return replace(self, nodes={**self.nodes, **nodes})

    def decode(self, path: str, name: str, raw: msgspec.Raw) -> dict[str, Any]:
        """Return a document as a dictionary."""
        return _decode(raw, dict[str, Any], f"{path}/{name}".lstrip("/"), self.location)

    @property
    def is_nwb(self) -> bool:
        """Return whether the root has the attributes of an NWB file; True also for a damaged document."""
        root, attributes = self.nodes.get("", {}), None
        try:
            if self.zarr_format == 3:
                attributes = _decode(root["zarr.json"], _Attributes, "zarr.json", self.location).attributes
            elif ".zattrs" in root:
                attributes = self.decode("", ".zattrs", root[".zattrs"])
        except MetadataError:
            return True
        return not {"nwb_version", "neurodata_type"}.isdisjoint(attributes or {})


MOST_DOCUMENT_BYTES: Final = 256 * 2**20
"""Bytes of metadata documents that a process caches; the least recently used are evicted."""

_NAMES: Final[Mapping[Literal[2, 3], str]] = {3: "zarr.json", 2: ".zmetadata"}


memory: Memory[Documents] = Memory(MOST_DOCUMENT_BYTES)


async def load_remembered(transport: Transport) -> Documents:
    """Return the metadata documents of a store, from the memory of this process if they are unchanged."""
    # Over HTTP and S3, consolidated metadata with an ETag take one conditional GET, or with the option
    # revalidate=False no request at all.
    if not transport.conditional or transport.location.option("consolidated") is False:
        return await load_documents(transport)
    key = transport.location.uncached.cache_key
    revalidate = transport.location.option("revalidate") is not False
    known = memory.get(key)
    if known is None and not revalidate:
        known = await _from_chunk_cache(transport)
    documents = known if known is not None and not revalidate else await _revalidated(transport, known)
    if documents.consolidated and documents.etag and not documents.etag.startswith("W/"):
        memory.put(key, documents, _size(documents))
    else:
        memory.forget(key)
    return documents


async def load_part(transport: Transport, group: str) -> Documents:
    """Return the metadata documents of an HDF5 file that one object needs, or all if these are remembered."""
    location = transport.location
    key = location.uncached.cache_key
    revalidate = location.option("revalidate") is not False
    known = memory.get((key, group)) if transport.conditional else None
    if memory.get(key) is not None:
        return await load_remembered(transport)
    if known is not None and (not revalidate or known.etag is None):
        return known
    name = f"@/{group}/zarr.json"
    if known is None or known.etag is None:
        found = await transport.get(name, limit=LARGEST_DOCUMENT)
    else:
        answer = await transport.get_unless(name, known.etag, limit=LARGEST_DOCUMENT)
        if isinstance(answer, Unchanged):
            return known
        found = answer
    documents = None if found is None else parse_documents(location, 3, found)
    if documents is None:
        return await load_remembered(transport)
    if transport.conditional and documents.etag and not documents.etag.startswith("W/"):
        memory.put((key, group), documents, _size(documents))
    return documents


async def _revalidated(transport: Transport, known: Documents | None) -> Documents:
    if known is None or known.etag is None:
        return await load_documents(transport)
    found = await transport.get_unless(_NAMES[known.zarr_format], known.etag, limit=LARGEST_DOCUMENT)
    if isinstance(found, Unchanged):
        return known
    # Removed, or no longer consolidated: then all documents are requested.
    documents = None if found is None else parse_documents(transport.location, known.zarr_format, found)
    return documents or await load_documents(transport)


async def _from_chunk_cache(transport: Transport) -> Documents | None:
    """Return the documents in the chunk cache, of any age."""
    for zarr_format, name in _NAMES.items():
        kept = await transport.kept(name)
        # A stray document of the other format may have been cached, too.
        with suppress(MetadataError):
            documents = kept and parse_documents(transport.location, zarr_format, kept)
            if documents and documents.is_nwb:
                return documents
    return None


def _size(documents: Documents) -> int:
    return sum(memoryview(raw).nbytes for node in documents.nodes.values() for raw in node.values())


async def load_documents(transport: Transport) -> Documents:
    """Fetch the metadata documents of a store."""
    # Two concurrent requests (zarr.json and .zmetadata) where they are consolidated. Otherwise, or with the
    # option consolidated=False, the folders of each level are listed concurrently and all documents fetched.
    # A zarr.json of something else beside a complete Zarr 2 store is ignored, as are web pages.
    consolidated = transport.location.option("consolidated")
    names = ("zarr.json", ".zgroup" if consolidated is False else ".zmetadata")
    # Where the name does not tell what is stored, the location itself is asked along with them.
    asks = is_undecided(transport.location)
    first = asyncio.create_task(_first_bytes(transport)) if asks else None
    head: bytes | None = None
    try:
        zarr_3, zarr_2 = await await_all(_get_or_denial(transport, name) for name in names)
        if first is not None and zarr_3 is None and zarr_2 is None:
            head = await first
            if head == SIGNATURE:
                raise _not_a_store(transport.location, is_hdf5=True)
    finally:
        if first is not None:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
    # A bucket that denies listing returns 403 for the missing document, so the other one decides.
    documents = await _of_either_format(transport, zarr_3, zarr_2)
    if documents is None:
        for denied in (zarr_3, zarr_2):
            if isinstance(denied, AccessError):
                raise denied
        raise await _no_store(transport, head)
    if consolidated is True and not documents.consolidated:
        raise MetadataError(
            f"{transport.location} has no consolidated metadata, which consolidated=True requires.",
            location=transport.location,
            next_step=f"Omit consolidated=True to open it by listing it. {how_to_consolidate(transport)}",
        )
    return documents


def how_to_consolidate(transport: Transport) -> str:
    """Return advice for writing consolidated metadata, which ends in a command."""
    where = shlex.quote(str(transport.location))
    if transport.writable:
        return f"Its owner can fix this with: nwbzarr consolidate {where}"
    return (
        "Its owner can write them with `nwbzarr consolidate` where it is stored in a folder or on S3. A "
        f"snapshot opens it without listing it again: nwbzarr snapshot {where}"
    )


type _Response = Fetched | AccessError | None


async def _of_either_format(transport: Transport, zarr_3: _Response, zarr_2: _Response) -> Documents | None:
    """Return the documents of the Zarr 3 or Zarr 2 store; if there are both, of the NWB file."""
    location, root, damage = transport.location, None, None
    if isinstance(zarr_3, Fetched):
        try:
            root = parse_documents(location, 3, zarr_3) or _root_only(location, zarr_3)
        except UnsafePathError:
            raise
        except MetadataError as error:
            damage = error
    if zarr_3 is not None and not isinstance(zarr_3, Fetched) and not isinstance(zarr_2, Fetched):
        return None
    if root is None or not ((zarr_2 is None and len(root.nodes) > 1) or root.is_nwb):
        found = await _zarr_2_documents(transport, zarr_2, required=root is None and damage is None)
        if found is not None:
            return found
    if damage is not None:
        raise damage
    if root is None:
        return None
    # The metadata of an HDF5 file are never copies of others.
    use_listing = not root.consolidated or (location.option("consolidated") is False and not location.is_hdf5)
    return await list_documents(transport, 3) if use_listing else root


async def _zarr_2_documents(transport: Transport, zarr_2: _Response, *, required: bool) -> Documents | None:
    """Return the documents of a Zarr 2 store, None without one, or a damaged one that is not required."""
    if transport.location.option("consolidated") is not False:
        try:
            if isinstance(zarr_2, Fetched):
                return parse_documents(transport.location, 2, zarr_2)
        except MetadataError as error:
            if required or isinstance(error, UnsafePathError):
                raise
        zarr_2 = await _get_or_denial(transport, ".zgroup")
    return await list_documents(transport, 2) if isinstance(zarr_2, Fetched) else None


def parse_documents(location: Location, zarr_format: Literal[2, 3], fetched: Fetched) -> Documents | None:
    """Return the documents in ``.zmetadata`` or a consolidated ``zarr.json``, None if not consolidated."""
    if zarr_format == 3:
        return _consolidated_zarr_3(location, fetched)
    return _consolidated_zarr_2(location, fetched)


async def _get_or_denial(transport: Transport, key: str) -> _Response:
    try:
        fetched = await transport.get(key, limit=LARGEST_DOCUMENT)
    except CredentialsError:
        raise
    except AccessError as error:
        return error
    return None if fetched is not None and is_page(fetched.data) else fetched


def is_page(data: Bytes) -> bool:
    """Return whether data are HTML or XML, which some servers send with status 200 for missing objects."""
    return bytes(data[:64]).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


class _Consolidated(msgspec.Struct):
    metadata: dict[str, msgspec.Raw]


class _Attributes(msgspec.Struct):
    attributes: dict[str, Any] | None = None


class _Root(msgspec.Struct):
    node_type: str
    zarr_format: int
    consolidated_metadata: _Consolidated | None = None
    unread: dict[str, list[str] | None] = msgspec.field(default_factory=dict, name=UNREAD)
    unreadable: dict[str, str] = msgspec.field(default_factory=dict, name=UNREADABLE)


def _consolidated_zarr_3(location: Location, fetched: Fetched) -> Documents | None:
    root = _decode(fetched.data, _Root, "zarr.json", location)
    if root.zarr_format != 3 or root.node_type != "group":
        raise MetadataError(
            f"The document zarr.json of {location} describes a Zarr {root.zarr_format} {root.node_type}; an "
            "NWB file is a Zarr 3 group.",
            location=location,
            path="",
            found=root.node_type,
            expected="group",
        )
    if root.consolidated_metadata is None:
        return None
    # The root's attributes are in the same document, which is decoded when the root is accessed.
    nodes = {"": {"zarr.json": msgspec.Raw(fetched.data)}}
    for path, raw in root.consolidated_metadata.metadata.items():
        nodes[_node_path(path, location)] = {"zarr.json": raw}
    _check_node_count(nodes, location)
    documents = Documents(location, 3, nodes, True, fetched.etag, 2)
    # A Zarr store cannot claim that parts of it were not read.
    return (
        replace(documents, unread=root.unread, unreadable=root.unreadable) if location.is_hdf5 else documents
    )


def _root_only(location: Location, fetched: Fetched) -> Documents:
    return Documents(location, 3, {"": {"zarr.json": msgspec.Raw(fetched.data)}}, False, fetched.etag, 2)


class _ZMetadata(msgspec.Struct):
    metadata: dict[str, msgspec.Raw]


def _consolidated_zarr_2(location: Location, fetched: Fetched) -> Documents:
    nodes: dict[str, dict[str, msgspec.Raw]] = {}
    for key, raw in _decode(fetched.data, _ZMetadata, ".zmetadata", location).metadata.items():
        path, _, name = key.rpartition("/")
        nodes.setdefault(_node_path(path, location), {})[name] = raw
    _check_node_count(nodes, location)
    return Documents(location, 2, nodes, True, fetched.etag, 2)


async def list_documents(transport: Transport, zarr_format: Literal[2, 3], root: str = "") -> Documents:
    """List and fetch the metadata documents of a group and everything in it, without consolidated ones."""
    location = transport.location
    nodes: dict[str, dict[str, msgspec.Raw]] = {}
    requests = 2 if zarr_format == 3 else 3
    names = ("zarr.json",) if zarr_format == 3 else (".zgroup", ".zarray", ".zattrs")

    async def visit(folder: str) -> None:
        """Fetch the documents of a folder and, if it is a group, visit its subfolders."""
        nonlocal requests
        # One page is enough: document names sort before chunks, of which an array may have 100,000.
        prefix = f"{folder}/" if folder else ""
        page = await transport.list_folder(folder)
        found = [name for name in names if name in page.names]
        requests += 1 + len(found)
        documents = await await_all(_document(transport, prefix + name) for name in found)
        if not documents:
            return
        nodes[folder] = dict(zip(found, documents, strict=True))
        _check_node_count(nodes, location)
        if ".zarray" in found or (zarr_format == 3 and _is_array(documents[0], prefix, location)):
            return
        folders = [prefix + name for name in page.folders]
        await await_all(visit(_node_path(child, location)) for child in folders)

    try:
        await visit(root)
    except ListingError as error:
        lacking = f"list {root!r}" if root else "can be used"
        raise ListingError(
            f"{location} has no consolidated metadata that {lacking}, and its objects cannot be found by "
            f"listing it. {error}",
            location=location,
            path=root,
        ) from error
    return Documents(location, zarr_format, nodes, False, None, requests)


async def documents_among(
    transport: Transport, zarr_format: Literal[2, 3], keys: Iterable[str]
) -> dict[str, dict[str, msgspec.Raw]]:
    """Fetch the metadata documents among the keys of a complete listing, by the path of their node."""
    names = {"zarr.json"} if zarr_format == 3 else {".zgroup", ".zarray", ".zattrs"}
    found = [key for key in keys if key.rpartition("/")[2] in names]
    _check_node_count(found, transport.location)
    fetched = await gather([partial(_document, transport, key) for key in found])
    nodes: dict[str, dict[str, msgspec.Raw]] = {}
    for key, document in zip(found, fetched, strict=True):
        folder, _, name = key.rpartition("/")
        nodes.setdefault(_node_path(folder, transport.location), {})[name] = document
    return nodes


async def find_documents(
    transport: Transport, zarr_format: Literal[2, 3], path: str, known: Container[str]
) -> Mapping[str, Mapping[str, msgspec.Raw]] | None:
    """Fetch documents of an object that is not in the consolidated metadata, its members and its parents."""
    # `known` are paths whose documents are not needed. None after one request, or two concurrent ones for
    # Zarr 2, if the object does not exist.
    names = ("zarr.json",) if zarr_format == 3 else (".zgroup", ".zarray")
    found = await _optional(transport, path, names)
    if not found:
        return None
    nodes: dict[str, Mapping[str, msgspec.Raw]] = {}
    document = found.get("zarr.json")
    if ".zarray" in found or (document and _is_array(document, f"{path}/", transport.location)):
        nodes[path] = found | await _optional(transport, path, () if zarr_format == 3 else (".zattrs",))
    else:
        nodes |= (await list_documents(transport, zarr_format, path)).nodes
    parents = [group for group in _parent_groups(path) if group not in known]
    return nodes | await find_groups(transport, zarr_format, parents)


async def find_groups(
    transport: Transport, zarr_format: Literal[2, 3], paths: Sequence[str]
) -> dict[str, Mapping[str, msgspec.Raw]]:
    """Fetch the documents of the parent groups of nodes; a missing document is a group without attributes."""
    names = ("zarr.json",) if zarr_format == 3 else (".zgroup", ".zattrs")
    found = await gather([partial(_optional, transport, path, names) for path in paths])
    return {path: documents or _EMPTY[zarr_format] for path, documents in zip(paths, found, strict=True)}


_EMPTY: Final[Mapping[int, Mapping[str, msgspec.Raw]]] = {
    2: {".zgroup": msgspec.Raw(b'{"zarr_format": 2}')},
    3: {"zarr.json": msgspec.Raw(b'{"zarr_format": 3, "node_type": "group"}')},
}


def missing_groups(nodes: Collection[str]) -> list[str]:
    """Return paths of parent groups that are not among the nodes."""
    missing: set[str] = set()
    for path in nodes:
        parent = path.rpartition("/")[0]
        while parent and parent not in nodes and parent not in missing:
            missing.add(parent)
            parent = parent.rpartition("/")[0]
    return sorted(missing)


def _parent_groups(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


async def _optional(transport: Transport, path: str, names: Sequence[str]) -> dict[str, msgspec.Raw]:
    responses = await await_all(_get_or_denial(transport, f"{path}/{name}") for name in names)
    pairs = zip(names, responses, strict=True)
    return {name: msgspec.Raw(response.data) for name, response in pairs if isinstance(response, Fetched)}


async def _document(transport: Transport, key: str) -> msgspec.Raw:
    fetched = await transport.get(key, limit=LARGEST_DOCUMENT)
    if fetched is None:
        raise MetadataError(
            f"{transport.location} is being changed: its document {key!r} was listed, but no longer exists.",
            location=transport.location,
            path=key,
            next_step="Open it again.",
        )
    return msgspec.Raw(fetched.data)


def _is_array(document: msgspec.Raw, prefix: str, location: Location) -> bool:
    try:
        return _decode(document, _Root, f"{prefix}zarr.json", location).node_type == "array"
    except MetadataError:
        # Damage is reported when the node is accessed; the folder may contain groups.
        return False


def _node_path(path: str, location: Location) -> str:
    return safe_path(path, location)


def _check_node_count(nodes: Any, location: Location) -> None:
    if len(nodes) > MOST_NODES:
        raise LimitError(
            f"{location} has more groups and arrays than the limit of {MOST_NODES:,}.",
            location=location,
            expected=MOST_NODES,
        )


def load_json(data: Bytes | msgspec.Raw) -> Any:
    """Return decoded JSON, which may contain the NaN and Infinity that zarr-python 2 writes."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return json.loads(bytes(data))


def _decode[T](data: Bytes | msgspec.Raw, form: type[T], name: str, location: Location) -> T:
    try:
        try:
            return msgspec.json.decode(data, type=form)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return _with_bare_nan(load_json(data), form)
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MetadataError(
            f"The metadata document {name!r} of {location} is damaged or not valid: {error}.",
            location=location,
            path=name,
            next_step=(
                "It may be written only in part. Its owner can write it again with `nwbzarr consolidate`; "
                "consolidated=False opens the session by listing it."
                if name == ".zmetadata"
                else "It may be written only in part: compare it with the original file."
            ),
        ) from error


def _with_bare_nan[T](value: Any, form: type[T]) -> T:
    """Convert a document with NaN, which msgspec refuses, and encode its nodes again to decode them later."""
    if form is _ZMetadata:
        value = _with_encoded_nodes(value)
    elif form is _Root and isinstance(value, dict):
        value = {**value, "consolidated_metadata": _with_encoded_nodes(value.get("consolidated_metadata"))}
    return msgspec.convert(value, form)


def _with_encoded_nodes(value: Any) -> Any:
    nodes = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(nodes, dict):
        return value
    return {**value, "metadata": {key: msgspec.Raw(json.dumps(node).encode()) for key, node in nodes.items()}}


async def _no_store(transport: Transport, head: bytes | None) -> Exception:
    """Return the error of a location without a Zarr store: what else exists there, or begins with `head`."""
    location = transport.location
    if location.is_hdf5:
        return LocationNotFoundError(
            f"There is no file at {location}.",
            location=location,
            expected="an HDF5 file",
            next_step="Check the path or URL for misspellings.",
        )
    if head is None:
        head = await _first_bytes(transport)
    if head is not None:
        return _not_a_store(location, is_hdf5=head == SIGNATURE)
    try:
        page = await transport.list_folder("")
    except ListingError:
        return LocationNotFoundError(
            f"No session at {location}: the server has neither an HDF5 file there, nor the zarr.json, "
            ".zmetadata or .zgroup of a Zarr store.",
            location=location,
            expected=_EXPECTED,
            next_step="Check the URL; that of a Zarr store ends with the folder that contains one of them.",
        )
    if JOURNAL in page.names:
        return NotZarrError(
            f"{location} is an unfinished conversion.",
            location=location,
            found=JOURNAL,
            expected=_EXPECTED,
            next_step="Run the same nwbzarr convert again: it goes on where it stopped.",
        )
    if page.names or page.folders:
        names = (*page.folders, *page.names)[:5]
        return NotZarrError(
            f"{location} exists, but is not a Zarr store: it contains neither zarr.json, .zmetadata nor "
            f".zgroup, but {', '.join(map(repr, names))}.",
            location=location,
            found=names,
            expected=_EXPECTED,
            next_step=f"Pass a file in it, such as {str(location).rstrip('/')}/{file}."
            if (file := next((name for name in page.names if name.lower().endswith(HDF5_NAMES)), None))
            else "Pass the root of the store.",
        )
    return LocationNotFoundError(
        f"Nothing is stored at {location}.",
        location=location,
        expected=_EXPECTED,
        next_step="Check the path or URL for misspellings.",
    )


async def _first_bytes(transport: Transport) -> bytes | None:
    """Return the first bytes of a file at the location, None if there is none."""
    try:
        found = await transport.fetch("", Part(0, len(SIGNATURE), lenient=True), len(SIGNATURE))
    except ResponseError:
        # A server that returns pages for folders.
        return None
    return None if found is None else bytes(found.data)


def _not_a_store(location: Location, *, is_hdf5: bool) -> NotZarrError:
    kind = "an HDF5 file" if is_hdf5 else "a file"
    return (HDF5FileError if is_hdf5 else NotZarrError)(
        f"{location} is {kind}, not a Zarr store."
        if is_hdf5
        else f"{location} is a file, but neither HDF5 nor a .zip file of a Zarr store.",
        location=location,
        found=kind,
        expected=_EXPECTED,
        next_step="Pass it without the option hdf5=False."
        if is_hdf5
        else "Pass an HDF5 file, or the folder, prefix or .zip file of a Zarr store.",
    )


_EXPECTED: Final = "an HDF5 file, or a Zarr store with zarr.json, .zmetadata or .zgroup"
