"""The hierarchy of a session: its groups, arrays, links and object references, in one form."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final, Literal

import msgspec
from zarr.abc.store import Store

from intake_nwbzarr.arguments import describe_value, takes_storage_options
from intake_nwbzarr.bounds import LARGEST_DOCUMENT, LONGEST_KEY, MOST_LINK_HOPS, MOST_LOOKED_UP, safe_path
from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    LinkError,
    ListingError,
    LocationError,
    MetadataError,
    NodeNotFoundError,
    NotNWBError,
    StaleMetadataWarning,
    TransportError,
    UnconsolidatedWarning,
    warn_caller,
)
from intake_nwbzarr.hierarchy.documents import (
    Documents,
    find_documents,
    find_groups,
    how_to_consolidate,
    list_documents,
    load_documents,
    missing_groups,
    parse_documents,
)
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, Node
from intake_nwbzarr.hierarchy.zarr2.metadata import translate_array, translate_group
from intake_nwbzarr.hierarchy.zarr3 import check_array, check_group, check_shape
from intake_nwbzarr.kept.memory import Memory
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.location.urls import is_encodable
from intake_nwbzarr.transport.answers import Unchanged
from intake_nwbzarr.transport.base import Transport, begin_session
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import Opener, StoredFile, open_transport

UNREACHABLE: Final = (
    NodeNotFoundError,
    LocationError,
    AccessError,
    TransportError,
    ListingError,
    MetadataError,
    LimitError,
)
"""Why a link or reference may lead nowhere: another file may be missing, refused, out of reach or damaged."""


@dataclass(frozen=True)
class Reference:
    """What a link or an object reference says.

    Parameters
    ----------
    source
        The file it leads to, relative to the file that holds it; ``"."`` is that file itself.
    path
        The object's path inside that file.
    """

    source: str
    path: str


@dataclass(frozen=True)
class Target:
    """Where a path, link or reference ends: an object of this or of another file.

    Parameters
    ----------
    hierarchy
        The file that holds the object.
    path
        The object's own path there, free of links.
    """

    hierarchy: Hierarchy
    path: str

    @property
    def node(self) -> Node:
        """The object's node."""
        return self.hierarchy[self.path]


def parse_reference(value: str | Mapping[str, Any] | Reference, *, where: str) -> Reference:
    """An object reference in any of the forms hdmf-zarr 0.14 stores.

    Parameters
    ----------
    value
        A path, a JSON object as text, or a mapping with ``source`` and ``path``, bare or under
        ``_REFERENCE``.
    where
        What holds it, for the error.

    Raises
    ------
    LinkError
        When it is none of these.
    """
    if isinstance(value, Reference):
        return value
    if isinstance(value, str):
        if not value.startswith("{"):
            return Reference(".", value)
        try:
            value = msgspec.json.decode(value, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise LinkError(f"{where} is not an object reference: {value!r}.") from error
    inner = value.get("_REFERENCE", value)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("path"), str):
        raise LinkError(f"{where} is not an object reference: {value!r}.")
    return Reference(str(inner.get("source") or "."), inner["path"])


def group_links(node: Node, *, where: str) -> dict[str, Reference]:
    """The links a group holds, by name.

    Raises
    ------
    LinkError
        When ``_LINKS`` is not a list of named references.
    """
    links: dict[str, Reference] = {}
    for entry in node.attributes.get("_LINKS") or ():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise LinkError(f"{where} holds a link without a name: {entry!r}.")
        links[entry["name"]] = parse_reference(entry, where=f"The link {entry['name']!r} of {where}")
    return links


def resolve(hierarchy: Hierarchy, path: str, *, look_up: bool = False) -> Target:
    """Follow a path, and every link it passes through, to the object it ends at.

    The storage is asked for what the consolidated metadata do not list where a link leads, and at the path
    itself if `look_up`: many are only tried.

    Raises
    ------
    NodeNotFoundError
        When a part of the path is neither a stored object nor a link.
    LinkError
        When a link leads nowhere, in a circle (more than 32 hops), or where it may not.
    """
    current, here = hierarchy, ""
    pending = _parts(path, where=str(hierarchy.location))
    hops = 0
    while pending:
        name, *pending = pending
        child = f"{here}/{name}" if here else name
        if child in current:
            here = child
            continue
        node = current.get(here)
        link = current.links(here).get(name) if isinstance(node, GroupNode) else None
        if link is None:
            # The consolidated metadata may be stale: what the rest of the path names is asked for.
            if (look_up or hops) and current.look_up("/".join([child, *pending])):
                here = child
                continue
            if hops:
                raise LinkError(
                    f"A link on the way to {path!r} in {hierarchy.location} leads to {child!r} in "
                    f"{current.location}, where there is no such object. The file is incomplete."
                )
            raise hierarchy.not_found(path)
        hops += 1
        if hops > MOST_LINK_HOPS:
            raise LinkError(
                f"The path {path!r} in {hierarchy.location} passes through more than {MOST_LINK_HOPS} links; "
                "they may form a circle."
            )
        current = current.follow(link.source)
        pending = _parts(link.path, where=f"A link in {current.location}") + pending
        here = ""
    return Target(current, here)


def _parts(path: str, *, where: str) -> list[str]:
    checked = safe_path(path, where=where)
    return checked.split("/") if checked else []


MOST_BYTES: Final = 256 * 2**20
"""Bytes of metadata documents that a process remembers; what was not opened for longest is forgotten."""

_NAMES: Final[Mapping[Literal[2, 3], str]] = {3: "zarr.json", 2: ".zmetadata"}


memory: Memory[Documents] = Memory(MOST_BYTES)


async def load_remembered(transport: Transport) -> Documents:
    """A store's metadata documents, from this process' memory if they are unchanged.

    Over HTTP and S3, with consolidated metadata that have an ETag: one conditional GET instead of two
    requests and their bytes; with ``storage_options={"revalidate": False}`` no request, and no look at
    whether the session has changed. Otherwise as `intake_nwbzarr.hierarchy.documents.load_documents`.
    """
    if not transport.conditional or transport.location.option("consolidated") is False:
        return await load_documents(transport)
    key = transport.location.uncached.cache_key
    asks = transport.location.option("revalidate") is not False
    known = memory.get(key)
    if known is None and not asks:
        known = await _from_copies(transport)
    documents = known if known is not None and not asks else await _asked(transport, known)
    if documents.consolidated and documents.etag and not documents.etag.startswith("W/"):
        memory.put(key, documents, _size(documents))
    else:
        memory.forget(key)
    return documents


async def _asked(transport: Transport, known: Documents | None) -> Documents:
    if known is None or known.etag is None:
        return await load_documents(transport)
    found = await transport.get_unless(_NAMES[known.zarr_format], known.etag, limit=LARGEST_DOCUMENT)
    if isinstance(found, Unchanged):
        return known
    # Gone, or not consolidated any more: then everything is asked for.
    documents = None if found is None else parse_documents(transport.location, known.zarr_format, found)
    return documents or await load_documents(transport)


async def _from_copies(transport: Transport) -> Documents | None:
    """What a chunk cache keeps of the metadata, however old."""
    for zarr_format, name in _NAMES.items():
        kept = await transport.kept(name)
        # A stray document of the other format may have been kept as well.
        with suppress(MetadataError):
            documents = kept and parse_documents(transport.location, zarr_format, kept)
            if documents and documents.is_nwb:
                return documents
    return None


def _size(documents: Documents) -> int:
    return sum(memoryview(raw).nbytes for node in documents.nodes.values() for raw in node.values())


MOST_COMPARED: Final = 2000
"""How many names the closest to a missing one are looked for among."""


@takes_storage_options
def open_hierarchy(
    location: str | os.PathLike[str] | Location | Store,
    storage_options: Mapping[str, Any] | None = None,
    *,
    consolidated: bool | None = None,
) -> Hierarchy:
    """Read the metadata of an NWB Zarr file: every group and array, whichever release wrote it.

    With consolidated metadata this takes one round of two concurrent requests, and over HTTP and S3 one
    conditional request when it is done again in the same process. Without, the store is listed
    and every metadata document fetched, and an `UnconsolidatedWarning` says so.

    Parameters
    ----------
    location
        A path, a URL (``https``, ``s3``, or any that fsspec knows), or an open Zarr store.
    storage_options
        Credentials and the like, in the vocabulary of s3fs and fsspec.
    consolidated
        Whether consolidated metadata are used: None, where there are any; True, they are required; False, the
        session is listed, and every document read as it is stored now.

    Returns
    -------
    Hierarchy
        Nodes in the Zarr 3 form that hdmf-zarr 0.14 writes; Zarr 2 metadata is translated.

    Raises
    ------
    LocationNotFoundError, NotZarrError, HDF5FileError, NotNWBError
        When there is no NWB Zarr file at the location.
    AccessError, CredentialsError
        When access is refused.
    TransportError, HostNotFoundError
        When the wire fails for good.
    MetadataError, LimitError
        When the metadata is damaged or beyond the limits.

    Examples
    --------
    >>> hierarchy = open_hierarchy("sub-1.nwb.zarr")  # doctest: +SKIP
    >>> hierarchy["acquisition/ElectricalSeries/data"].shape  # doctest: +SKIP
    (108000000, 384)
    """
    return load_hierarchy(locate(location, storage_options).read_consolidated(consolidated))


def load_hierarchy(where: Location, opener: Opener | None = None) -> Hierarchy:
    """Open the hierarchy of a location as `open_hierarchy` does, with the transports that an opener gives."""
    begin_session(where)
    transport = (opener or open_transport)(where)
    documents = run(load_remembered(transport))
    hierarchy = Hierarchy(where, transport, documents, opener)
    root = hierarchy[""]
    if not _is_session(root):
        raise NotNWBError(
            f"{where} is a Zarr {documents.zarr_format} store, but not an NWB file: "
            + (
                'it holds what xarray shows of one, as to_zarr() writes it. Open it with engine="zarr", of '
                "xr.open_dataset or xr.open_datatree, or give the location of the session itself."
                if "nwb_version" in root.attributes
                else f"its root has the neurodata_type {root.neurodata_type!r} where 'NWBFile' was expected. "
                "Give the root of an NWB file, not a group in it; open other Zarr stores with xarray's "
                'engine="zarr".'
            )
        )
    if not documents.consolidated and where.option("consolidated") is not False:
        warn_caller(
            f"{where} has no consolidated metadata: reading the metadata took {documents.requests} requests "
            f"instead of 2. {how_to_consolidate(transport)}",
            UnconsolidatedWarning,
        )
    return hierarchy


def _is_session(root: GroupNode | ArrayNode) -> bool:
    """Whether a store's root is that of an NWB file, and not of a Dataset that xarray has saved."""
    attributes = root.attributes
    if root.neurodata_type == "NWBFile":
        return True
    # Extensions derive types of their own from NWBFile. hdmf writes a type and its namespace with every
    # object; what a Dataset is given for attributes has no namespace.
    return root.neurodata_type is not None and {"nwb_version", "namespace"} <= attributes.keys()


class Hierarchy(Mapping[str, Node]):
    """Every group and array of an NWB Zarr file, by path, decoded when asked for.

    A mapping from paths without a leading slash (the root is ``""``) to `GroupNode` and `ArrayNode`. Paths
    are those of stored objects; `resolve` also follows links.

    Parameters
    ----------
    location
        Where the file is.
    transport
        How its objects are fetched.
    documents
        Its metadata documents.
    opener
        Gives the transports of files that it links to, and what its arrays are read through while a session
        is opened; None: each location's own.
    """

    def __init__(
        self,
        location: Location,
        transport: Transport,
        documents: Documents,
        opener: Opener | None = None,
    ) -> None:
        self.location = location
        self.transport = transport.at(documents.etag)
        self.opener = opener
        self.file = StoredFile(location, documents.etag)
        self._documents = documents
        self._nodes: dict[str, Node] = {}
        self._children: dict[str, tuple[str, ...]] | None = None
        self._others: dict[str, Hierarchy] = {}
        self._looked_up: dict[str, bool] = {}
        missing = missing_groups(documents.nodes)
        if missing:
            self._add(run(find_groups(self.transport, documents.zarr_format, missing)))
            self._warn_of_stale(f"The group {missing[0]!r} is not listed, but what is in it is,")

    def __getstate__(self) -> dict[str, Any]:
        # A transport stays in its process; another one opens the location's own.
        return {**vars(self), "transport": self.transport.state, "opener": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.transport = open_transport(self.location).at(state["transport"])

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """The Zarr format the file is stored in."""
        return self._documents.zarr_format

    @property
    def consolidated(self) -> bool:
        """Whether the metadata came from one consolidated document."""
        return self._documents.consolidated

    @property
    def etag(self) -> str | None:
        """The consolidated document's ETag, None where the store has none."""
        return self._documents.etag

    @property
    def specifications(self) -> str:
        """The path of the group that schemas are cached in; see `load_specifications`."""
        return str(self[""].attributes.get(".specloc") or "specifications").strip("/")

    def __repr__(self) -> str:
        return (
            f"<Hierarchy {self.location}: {len(self)} groups and arrays, Zarr {self.zarr_format}, "
            f"{'' if self.consolidated else 'not '}consolidated>"
        )

    def __getitem__(self, path: str) -> Node:
        path = self._checked(path).strip("/")
        node: Node | None = self.get(path)
        if node is None and self.look_up(path):
            node = self.get(path)
        if node is None:
            raise self.not_found(path)
        return node

    def get(self, path: str, default: Any = None) -> Any:
        """The node at a path, or a default."""
        if not isinstance(path, str):
            return default
        if path not in self._nodes and path in self._documents.nodes:
            self._nodes[path] = self._decode(path, self._documents.nodes[path])
        return self._nodes.get(path, default)

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and path in self._documents.nodes

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._documents.nodes))

    def __len__(self) -> int:
        return len(self._documents.nodes)

    def understood(self) -> Iterator[Node]:
        """Every node, in the order of their paths, but for those whose metadata are damaged."""
        for path in self:
            with suppress(MetadataError):
                yield self[path]

    def children(self, path: str) -> tuple[str, ...]:
        """The names of the groups and arrays stored in a group, sorted; links are not among them."""
        if self._children is None:
            collected: dict[str, list[str]] = {}
            for child in sorted(self._documents.nodes):
                if child:
                    parent, _, name = child.rpartition("/")
                    collected.setdefault(parent, []).append(name)
            self._children = {parent: tuple(names) for parent, names in collected.items()}
        return self._children.get(self._checked(path), ())

    def links(self, path: str) -> dict[str, Reference]:
        """The links a group holds, by name."""
        return group_links(self[path], where=f"{path!r} in {self.location}")

    def members(self, path: str) -> tuple[str, ...]:
        """The names of everything in a group: stored children first, then links."""
        children = self.children(path)
        return children + tuple(name for name in self.links(path) if name not in children)

    def resolve(self, path: str, *, look_up: bool = False) -> Target:
        """Follow a path and the links it passes through.

        Parameters
        ----------
        path
            From the root.
        look_up
            Whether the storage is asked for an object that the consolidated metadata do not list; where a
            link leads it always is.

        Raises
        ------
        NodeNotFoundError
            When there is nothing of that name; the closest are named.
        LinkError
            When a link leads nowhere, in a circle, or where it may not.
        """
        return resolve(self, self._checked(path), look_up=look_up)

    def reference(self, value: str | Mapping[str, Any] | Reference) -> Target:
        """The object that a stored reference (a path, JSON text, or a mapping) leads to."""
        reference = parse_reference(value, where=f"A reference in {self.location}")
        return resolve(self.follow(reference.source), reference.path, look_up=True)

    def follow(self, source: str) -> Hierarchy:
        """The hierarchy of the file that a link's source names; this one for ``"."``.

        Raises
        ------
        LinkError
            When the file may not be followed to, or cannot be opened.
        """
        if source == "." or self._was_this_file(source):
            return self
        if source not in self._others:
            self._others[source] = load_hierarchy(self.location.sibling(source), self.opener)
        return self._others[source]

    def _was_this_file(self, source: str) -> bool:
        """Whether an absolute path is where this file was written, before it was moved or uploaded."""
        writer = PureWindowsPath(source) if "\\" in source else PurePosixPath(source)
        return writer.is_absolute() and writer.name == str(self.location).rpartition("/")[2]

    def load_specifications(self) -> bool:
        """Make sure that the schemas cached in the file are among its nodes.

        hdmf-zarr before 0.14 cached them after it had consolidated the metadata, so that of those files they
        have to be listed.

        Returns
        -------
        bool
            Whether the file holds any, and they could be listed.
        """
        folder = self.specifications
        if folder not in self:
            try:
                found = run(list_documents(self.transport, self.zarr_format, folder))
            except ListingError:
                return False
            self._documents = self._documents.with_nodes(found.nodes)
            self._children = None
            if folder in self:
                self._nodes[""] = GroupNode("", {**self[""].attributes, ".specloc": folder})
        return folder in self

    def look_up(self, path: str) -> bool:
        """Ask the storage for an object that the consolidated metadata do not list, which may be stale.

        One request, of Zarr 2 a round of two; a path is asked for once. An object that is found becomes one
        of the hierarchy, with what is in it, and a `StaleMetadataWarning` says so.

        Raises
        ------
        ListingError
            When it is a group, whose contents have to be listed, and that cannot be done.
        """
        if path in self or path in self._looked_up or not self._may_be_hidden(path):
            return path in self
        self._looked_up[path] = False
        found = run(find_documents(self.transport, self.zarr_format, path, self._documents.nodes))
        if found is None:
            return False
        self._looked_up[path] = True
        self._add(found)
        self._warn_of_stale(f"{path!r} is stored and not listed")
        return True

    def _add(self, nodes: Mapping[str, Mapping[str, msgspec.Raw]]) -> None:
        """Add nodes that are not of the state that the consolidated document's ETag names."""
        self._documents = replace(self._documents.with_nodes(nodes), etag=None)
        self.file = StoredFile(self.location)
        self._children = None

    def _warn_of_stale(self, what: str) -> None:
        warn_caller(
            f"{what} by the consolidated metadata of {self.location}: they are stale, and may hide more. "
            f"consolidated=False opens everything that is stored. {how_to_consolidate(self.transport)}",
            StaleMetadataWarning,
        )

    def _may_be_hidden(self, path: str) -> bool:
        """Whether a request may find an object: once for each of so many paths, and not below an array."""
        if not self.consolidated or not path or len(self._looked_up) >= MOST_LOOKED_UP:
            return False
        # No storage has a longer name, nor one with half of a character.
        if len(path) > LONGEST_KEY or not is_encodable(path):
            return False
        try:
            if safe_path(path, where=str(self.location)) != path:
                return False
            while path and path not in self:
                path = path.rpartition("/")[0]
            return isinstance(self.get(path), GroupNode)
        except MetadataError:
            return False

    def _checked(self, path: object) -> str:
        if isinstance(path, str):
            return path
        raise NodeNotFoundError(
            f"Objects in {self.location} have paths that are text, not {describe_value(path)}."
        )

    def not_found(self, path: str) -> NodeNotFoundError:
        """The error for a path that is not there, naming the closest that are."""
        parent, _, name = path.rpartition("/")
        close = [known for known in self._documents.nodes if known and known.rpartition("/")[2] == name]
        if not close:
            # Comparing texts is slow, and damaged files name many things that are not there.
            beside = [f"{parent}/{child}".lstrip("/") for child in self.children(parent)]
            names = islice(beside or self._documents.nodes, MOST_COMPARED)
            close = difflib.get_close_matches(path, names, n=3)
        hint = f"; the closest are {', '.join(map(repr, close[:3]))}" if close else ""
        asked = self._looked_up.get(path) is False
        agree = " What is stored and its consolidated metadata agree in that." if asked else ""
        return NodeNotFoundError(f"No object {path!r:.400} in {self.location}{hint}.{agree}")

    def salvage(self, path: str) -> dict[str, Any] | None:
        """The shape and the attributes of an array whose metadata are damaged, as far as they can be told.

        Returns
        -------
        dict or None
            With ``shape`` and ``attributes``; None where it is a group, or nobody knows what.
        """
        documents: dict[str, dict[str, Any]] = {}
        for name, raw in self._documents.nodes[path].items():
            with suppress(MetadataError):
                documents[name] = self._documents.decode(path, name, raw)
        found = documents.get("zarr.json", {})
        if self.zarr_format == 2:
            if ".zarray" not in self._documents.nodes[path]:
                return None
            found = {**documents.get(".zarray", {}), "node_type": "array"}
            with suppress(MetadataError):
                found["attributes"] = translate_group(path, documents.get(".zattrs", {})).attributes
        if found.get("node_type") != "array":
            return None
        kept: dict[str, Any] = {"shape": [1], "attributes": {}}
        with suppress(MetadataError):
            check_group({"attributes": found.get("attributes")}, where=path)
            kept["attributes"] = found.get("attributes") or {}
        with suppress(MetadataError):
            check_shape(found.get("shape"), where=path)
            kept["shape"] = found["shape"]
        return kept

    def _decode(self, path: str, raw: Mapping[str, msgspec.Raw]) -> Node:
        documents = {name: self._documents.decode(path, name, value) for name, value in raw.items()}
        where = f"{path!r} in {self.location}"
        if self.zarr_format == 3:
            document = documents["zarr.json"]
            match document.get("node_type"):
                case "array":
                    check_array(document, where=where)
                    return ArrayNode(path, document)
                case "group":
                    check_group(document, where=where)
                    return GroupNode(path, document.get("attributes") or {})
                case other:
                    raise MetadataError(
                        f"The metadata of {where} describe a {other!r:.80}; 'group' or 'array' was expected."
                    )
        if ".zgroup" not in documents and ".zarray" not in documents:
            raise MetadataError(
                f"{where} has attributes but neither .zgroup nor .zarray: the file is incomplete, or its "
                "consolidated metadata are damaged."
            )
        attributes = documents.get(".zattrs", {})
        if ".zarray" in documents:
            array = translate_array(path, documents[".zarray"], attributes)
            check_array(array.metadata, where=where)
            return array
        group = translate_group(path, attributes)
        check_group({"attributes": group.attributes}, where=where)
        return group
