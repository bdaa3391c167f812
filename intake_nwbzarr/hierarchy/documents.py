"""Metadata documents: which of them a store has, fetched in as few round trips as it allows."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

import msgspec

from intake_nwbzarr.bounds import LARGEST_DOCUMENT, MOST_NODES, safe_path
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
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import Bytes, Fetched
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather


@dataclass(frozen=True)
class Documents:
    """The metadata documents of a store, undecoded.

    Parameters
    ----------
    location
        Where the store is, for errors.
    zarr_format
        2 or 3.
    nodes
        From a node's path to its documents by name: ``zarr.json``, or ``.zgroup``, ``.zarray``, ``.zattrs``.
    consolidated
        Whether they came in one consolidated document.
    etag
        That document's ETag.
    requests
        How many requests it took.
    """

    location: Location
    zarr_format: Literal[2, 3]
    nodes: Mapping[str, Mapping[str, msgspec.Raw]] = field(repr=False)
    consolidated: bool
    etag: str | None
    requests: int

    def with_nodes(self, nodes: Mapping[str, Mapping[str, msgspec.Raw]]) -> Documents:
        """These, and those of more nodes."""
        return replace(self, nodes={**self.nodes, **nodes})

    def decode(self, path: str, name: str, raw: msgspec.Raw) -> dict[str, Any]:
        """One document as a dictionary.

        Raises
        ------
        MetadataError
            When it is not a JSON object.
        """
        return _decode(raw, dict[str, Any], f"{path}/{name}".lstrip("/"), self.location)

    @property
    def is_nwb(self) -> bool:
        """Whether the root's attributes are those of an NWB file; one that is damaged may be."""
        root, attributes = self.nodes.get("", {}), None
        try:
            if self.zarr_format == 3:
                attributes = _decode(root["zarr.json"], _Attributes, "zarr.json", self.location).attributes
            elif ".zattrs" in root:
                attributes = self.decode("", ".zattrs", root[".zattrs"])
        except MetadataError:
            return True
        return not {"nwb_version", "neurodata_type"}.isdisjoint(attributes or {})


async def load_documents(transport: Transport) -> Documents:
    """Fetch a store's metadata documents.

    One round of two requests (``zarr.json`` and ``.zmetadata``, side by side) where they are consolidated;
    otherwise, or where the location's option ``consolidated`` is False, folder after folder is listed, all of
    a level side by side, and every document fetched. A ``zarr.json`` that is no NWB file's, beside a whole
    Zarr 2 store, is ignored, as is a web page where a document was asked for.

    Raises
    ------
    LocationNotFoundError, NotZarrError, HDF5FileError
        When there is no Zarr store.
    MetadataError, LimitError
        When a document is damaged, or beyond 256 MiB or a million nodes; when it is not consolidated and had
        to be.
    ListingError
        When the store is not consolidated and cannot be listed.
    """
    asked = transport.location.option("consolidated")
    names = ("zarr.json", ".zgroup" if asked is False else ".zmetadata")
    newer, older = await asyncio.gather(*(_unless_denied(transport, name) for name in names))
    # A bucket that denies listing answers 403 for the one that is not there: the other one decides.
    documents = await _chosen(transport, newer, older)
    if documents is None:
        for denied in (newer, older):
            if isinstance(denied, AccessError):
                raise denied
        raise await _what_else_is_there(transport)
    if asked is True and not documents.consolidated:
        raise MetadataError(
            f"{transport.location} has no consolidated metadata, and consolidated=True was asked for. Leave "
            f"that out to open it by listing it. {how_to_consolidate(transport)}"
        )
    return documents


def how_to_consolidate(transport: Transport) -> str:
    """A sentence that says who can write consolidated metadata, and how, ending in the command."""
    where = shlex.quote(str(transport.location))
    if transport.writable:
        return f"Its owner can fix this with: nwbzarr consolidate {where}"
    return (
        "Its owner can write them with `nwbzarr consolidate` where it is stored as a folder or on S3. A "
        f"snapshot opens it without listing it again: nwbzarr snapshot {where}"
    )


type _Answer = Fetched | AccessError | None


async def _chosen(transport: Transport, newer: _Answer, older: _Answer) -> Documents | None:
    """The documents of the Zarr 3 or the Zarr 2 store at a location, of the NWB file where both are there."""
    location, root, damage = transport.location, None, None
    if isinstance(newer, Fetched):
        try:
            root = parse_documents(location, 3, newer) or _root_alone(location, newer)
        except UnsafePathError:
            raise
        except MetadataError as error:
            damage = error
    if newer is not None and not isinstance(newer, Fetched) and not isinstance(older, Fetched):
        return None
    if root is None or not ((older is None and len(root.nodes) > 1) or root.is_nwb):
        found = await _zarr_2(transport, older, required=root is None and damage is None)
        if found is not None:
            return found
    if damage is not None:
        raise damage
    if root is None:
        return None
    lists = not root.consolidated or location.option("consolidated") is False
    return await list_documents(transport, 3) if lists else root


async def _zarr_2(transport: Transport, older: _Answer, *, required: bool) -> Documents | None:
    """The documents of a Zarr 2 store; None where there is none, or a damaged one that is not required."""
    if transport.location.option("consolidated") is not False:
        try:
            if isinstance(older, Fetched):
                return parse_documents(transport.location, 2, older)
        except MetadataError as error:
            if required or isinstance(error, UnsafePathError):
                raise
        older = await _unless_denied(transport, ".zgroup")
    return await list_documents(transport, 2) if isinstance(older, Fetched) else None


def parse_documents(location: Location, zarr_format: Literal[2, 3], fetched: Fetched) -> Documents | None:
    """The documents in a consolidated one (``zarr.json``, or ``.zmetadata``); None if it is not consolidated.

    Raises
    ------
    MetadataError, LimitError
        As `load_documents`.
    """
    if zarr_format == 3:
        return _consolidated_zarr_3(location, fetched)
    return _consolidated_zarr_2(location, fetched)


async def _unless_denied(transport: Transport, key: str) -> _Answer:
    try:
        fetched = await transport.get(key, limit=LARGEST_DOCUMENT)
    except CredentialsError:
        raise
    except AccessError as error:
        return error
    return None if fetched is not None and is_page(fetched.data) else fetched


def is_page(data: Bytes) -> bool:
    """Whether an answer is HTML or XML, which some servers send with status 200 for what is missing."""
    return bytes(data[:64]).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


class _Consolidated(msgspec.Struct):
    metadata: dict[str, msgspec.Raw]


class _Attributes(msgspec.Struct):
    attributes: dict[str, Any] | None = None


class _Root(msgspec.Struct):
    node_type: str
    zarr_format: int
    consolidated_metadata: _Consolidated | None = None


def _consolidated_zarr_3(location: Location, fetched: Fetched) -> Documents | None:
    root = _decode(fetched.data, _Root, "zarr.json", location)
    if root.zarr_format != 3 or root.node_type != "group":
        raise MetadataError(
            f"The document zarr.json of {location} describes a Zarr {root.zarr_format} {root.node_type}; an "
            "NWB file is a Zarr 3 group."
        )
    if root.consolidated_metadata is None:
        return None
    # The root's own attributes stand beside the consolidated part: decoded with it, once, when asked for.
    nodes = {"": {"zarr.json": msgspec.Raw(fetched.data)}}
    for path, raw in root.consolidated_metadata.metadata.items():
        nodes[_node_path(path, location)] = {"zarr.json": raw}
    _check_number(nodes, location)
    return Documents(location, 3, nodes, True, fetched.etag, 2)


def _root_alone(location: Location, fetched: Fetched) -> Documents:
    return Documents(location, 3, {"": {"zarr.json": msgspec.Raw(fetched.data)}}, False, fetched.etag, 2)


class _ZMetadata(msgspec.Struct):
    metadata: dict[str, msgspec.Raw]


def _consolidated_zarr_2(location: Location, fetched: Fetched) -> Documents:
    nodes: dict[str, dict[str, msgspec.Raw]] = {}
    for key, raw in _decode(fetched.data, _ZMetadata, ".zmetadata", location).metadata.items():
        path, _, name = key.rpartition("/")
        nodes.setdefault(_node_path(path, location), {})[name] = raw
    _check_number(nodes, location)
    return Documents(location, 2, nodes, True, fetched.etag, 2)


async def list_documents(transport: Transport, zarr_format: Literal[2, 3], root: str = "") -> Documents:
    """Find and fetch every metadata document of a group and what is in it, without the consolidated one.

    Raises
    ------
    ListingError
        When the store cannot be listed.
    """
    location = transport.location
    nodes: dict[str, dict[str, msgspec.Raw]] = {}
    requests = 2 if zarr_format == 3 else 3
    names = ("zarr.json",) if zarr_format == 3 else (".zgroup", ".zarray", ".zattrs")

    async def visit(folder: str) -> None:
        """Fetch a folder's documents; where they make it a group, visit the folders in it.

        Of an array's folder, which may hold 100,000 chunks, one page is listed: document names sort first.
        """
        nonlocal requests
        prefix = f"{folder}/" if folder else ""
        page = await transport.list_folder(folder)
        found = [name for name in names if name in page.names]
        requests += 1 + len(found)
        documents = await asyncio.gather(*(_document(transport, prefix + name) for name in found))
        if not documents:
            return
        nodes[folder] = dict(zip(found, documents, strict=True))
        _check_number(nodes, location)
        if ".zarray" in found or (zarr_format == 3 and _is_array(documents[0], prefix, location)):
            return
        folders = [prefix + name for name in page.folders]
        await asyncio.gather(*(visit(_node_path(child, location)) for child in folders))

    try:
        await visit(root)
    except ListingError as error:
        missing = f"list {root!r}" if root else "can be used"
        raise ListingError(
            f"{location} has no consolidated metadata that {missing}, so that its objects would have to be "
            f"found by listing it. {error}"
        ) from error
    return Documents(location, zarr_format, nodes, False, None, requests)


async def find_documents(
    transport: Transport, zarr_format: Literal[2, 3], path: str, known: Container[str]
) -> Mapping[str, Mapping[str, msgspec.Raw]] | None:
    """Fetch the documents of an object that the consolidated metadata do not list, and of what is in it.

    Where nothing is stored at its path, that takes one request, of Zarr 2 a round of two.

    Parameters
    ----------
    known
        Paths of which the documents are known already.

    Returns
    -------
    Mapping or None
        From paths to documents, with those of the groups on the way; None when there is no such object.

    Raises
    ------
    ListingError
        When it is a group and cannot be listed.
    """
    names = ("zarr.json",) if zarr_format == 3 else (".zgroup", ".zarray")
    answers = await asyncio.gather(*(_unless_denied(transport, f"{path}/{name}") for name in names))
    found = {
        name: msgspec.Raw(answer.data)
        for name, answer in zip(names, answers, strict=True)
        if isinstance(answer, Fetched)
    }
    if not found:
        return None
    nodes: dict[str, Mapping[str, msgspec.Raw]] = {}
    document = found.get("zarr.json")
    if ".zarray" in found or (document and _is_array(document, f"{path}/", transport.location)):
        nodes[path] = found | await _optional(transport, path, () if zarr_format == 3 else (".zattrs",))
    else:
        nodes |= (await list_documents(transport, zarr_format, path)).nodes
    above = [group for group in _groups_above(path) if group not in known]
    return nodes | await find_groups(transport, zarr_format, above)


async def find_groups(
    transport: Transport, zarr_format: Literal[2, 3], paths: Sequence[str]
) -> dict[str, Mapping[str, msgspec.Raw]]:
    """Fetch the documents of groups that must be there, for there is something in them.

    One that is not stored is a group without attributes.
    """
    names = ("zarr.json",) if zarr_format == 3 else (".zgroup", ".zattrs")
    found = await gather([partial(_optional, transport, path, names) for path in paths])
    return {path: documents or _EMPTY[zarr_format] for path, documents in zip(paths, found, strict=True)}


_EMPTY: Final[Mapping[int, Mapping[str, msgspec.Raw]]] = {
    2: {".zgroup": msgspec.Raw(b'{"zarr_format": 2}')},
    3: {"zarr.json": msgspec.Raw(b'{"zarr_format": 3, "node_type": "group"}')},
}


def missing_groups(nodes: Collection[str]) -> list[str]:
    """Paths of groups that hold something and are not among the nodes."""
    missing: set[str] = set()
    for path in nodes:
        parent = path.rpartition("/")[0]
        while parent and parent not in nodes and parent not in missing:
            missing.add(parent)
            parent = parent.rpartition("/")[0]
    return sorted(missing)


def _groups_above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


async def _optional(transport: Transport, path: str, names: Sequence[str]) -> dict[str, msgspec.Raw]:
    answers = await asyncio.gather(*(_unless_denied(transport, f"{path}/{name}") for name in names))
    pairs = zip(names, answers, strict=True)
    return {name: msgspec.Raw(answer.data) for name, answer in pairs if isinstance(answer, Fetched)}


async def _document(transport: Transport, key: str) -> msgspec.Raw:
    fetched = await transport.get(key, limit=LARGEST_DOCUMENT)
    if fetched is None:
        raise MetadataError(
            f"{transport.location} is changing: its document {key!r} was listed and is gone. Open it again."
        )
    return msgspec.Raw(fetched.data)


def _is_array(document: msgspec.Raw, prefix: str, location: Location) -> bool:
    try:
        return _decode(document, _Root, f"{prefix}zarr.json", location).node_type == "array"
    except MetadataError:
        # A damaged document is reported when its node is asked for; there may be groups below it.
        return False


def _node_path(path: str, location: Location) -> str:
    return safe_path(path, where=f"The metadata of {location}")


def _check_number(nodes: Any, location: Location) -> None:
    if len(nodes) > MOST_NODES:
        raise LimitError(f"{location} has more than {MOST_NODES:,} groups and arrays, which is the limit.")


def load_json(data: Bytes | msgspec.Raw) -> Any:
    """JSON, also with the bare NaN and Infinity that zarr-python 2 writes into attributes.

    Raises
    ------
    ValueError
        When it is not JSON.
    """
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
            f"The metadata document {name!r} of {location} is damaged or not what it should be: {error}."
        ) from error


def _with_bare_nan[T](value: Any, form: type[T]) -> T:
    """A document that msgspec refuses for its NaN, its nodes encoded again to be decoded when asked for."""
    if form is _ZMetadata:
        value = _nodes_encoded(value)
    elif form is _Root and isinstance(value, dict):
        value = {**value, "consolidated_metadata": _nodes_encoded(value.get("consolidated_metadata"))}
    return msgspec.convert(value, form)


def _nodes_encoded(value: Any) -> Any:
    nodes = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(nodes, dict):
        return value
    return {**value, "metadata": {key: msgspec.Raw(json.dumps(node).encode()) for key, node in nodes.items()}}


async def _what_else_is_there(transport: Transport) -> Exception:
    """The error that says what is at a location where there is no Zarr store."""
    location = transport.location
    try:
        head = await transport.get("", start=0, stop=8)
    except ResponseError:
        # Shorter than that, or a server that shows folders as pages.
        head = None
    if head is not None and bytes(head.data).startswith(b"\x89HDF\r\n\x1a\n"):
        return HDF5FileError(
            f"{location} is an HDF5 file; this package reads NWB files stored as Zarr. Read it with "
            "pynwb.NWBHDF5IO, or write it as Zarr with hdmf_zarr.NWBZarrIO.export."
        )
    if head is not None:
        return NotZarrError(
            f"{location} is a file, not a Zarr store: it holds neither zarr.json, .zmetadata nor .zgroup. "
            "Give the folder, prefix or .zip of a store."
        )
    try:
        page = await transport.list_folder("")
    except ListingError:
        return LocationNotFoundError(
            f"No Zarr store at {location}: the server has neither zarr.json, .zmetadata nor .zgroup there. "
            "Check the address; it should end with the folder that holds one of them."
        )
    if page.names or page.folders:
        return NotZarrError(
            f"{location} exists but is not a Zarr store: it holds neither zarr.json, .zmetadata nor .zgroup. "
            f"It holds {', '.join(map(repr, (*page.folders, *page.names)[:5]))}; give the root of the store."
        )
    return LocationNotFoundError(f"Nothing is stored at {location}. Check the address for misspellings.")
