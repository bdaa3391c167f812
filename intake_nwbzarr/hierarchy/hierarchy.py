"""The hierarchy of an NWB file: its groups, arrays, links and object references."""

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
from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    LinkError,
    ListingError,
    LocationError,
    MetadataError,
    NodeNotFoundError,
    NotNWBError,
    ObjectChangedError,
    StaleMetadataWarning,
    TransportError,
    UnconsolidatedWarning,
    UnreadableWarning,
    warn_caller,
)
from intake_nwbzarr.hdf5.documents import ERROR
from intake_nwbzarr.hierarchy.documents import (
    Documents,
    find_documents,
    find_groups,
    how_to_consolidate,
    list_documents,
    load_part,
    load_remembered,
    missing_groups,
)
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, Node, check_array, check_group, check_shape
from intake_nwbzarr.hierarchy.recognize import load_recognized
from intake_nwbzarr.hierarchy.zarr2.metadata import translate_array, translate_group
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.location.urls import is_encodable
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import Opener, StoredFile, open_transport
from intake_nwbzarr.untrusted_input import (
    LONGEST_KEY,
    MOST_COMPARED,
    MOST_LINK_HOPS,
    MOST_LOOKED_UP,
    safe_path,
)

MOST_NAMED: Final = 5
"""Parts of an HDF5 file that cannot be read and are named in a warning."""

UNREACHABLE: Final = (
    NodeNotFoundError,
    LocationError,
    AccessError,
    TransportError,
    ListingError,
    MetadataError,
    LimitError,
)
"""Errors of a link or reference that cannot be followed: its file may be missing, denied or damaged."""


@dataclass(frozen=True)
class Reference:
    """The stored target of a link or an object reference."""

    # The target's file, relative to the file that contains the reference, which is ".".
    source: str
    # The path inside the target's file.
    path: str


@dataclass(frozen=True)
class Target:
    """An object that a path, link or reference resolves to, in this or another file."""

    hierarchy: Hierarchy
    # The path of the stored object, without links.
    path: str

    @property
    def node(self) -> Node:
        """Return the node of the object."""
        return self.hierarchy[self.path]


def parse_reference(value: str | Mapping[str, Any] | Reference, *, where: str) -> Reference:
    """Parse an object reference: a path, JSON text, or a mapping with ``source`` and ``path``."""
    if isinstance(value, Reference):
        return value
    if isinstance(value, str):
        if not value.startswith("{"):
            return Reference(".", value)
        try:
            value = msgspec.json.decode(value, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise LinkError(f"{where} is not an object reference: {value!r}.", found=value) from error
    inner = value.get("_REFERENCE", value)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("path"), str):
        raise LinkError(f"{where} is not an object reference: {value!r}.", found=value)
    return Reference(str(inner.get("source") or "."), inner["path"])


def group_links(node: Node, *, where: str) -> dict[str, Reference]:
    """Return the links in a group by name."""
    links: dict[str, Reference] = {}
    for entry in node.attributes.get("_LINKS") or ():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise LinkError(f"{where} has a link without a name: {entry!r}.", path=node.path, found=entry)
        links[entry["name"]] = parse_reference(entry, where=f"The link {entry['name']!r} of {where}")
    return links


def resolve(hierarchy: Hierarchy, path: str, *, look_up: bool = False) -> Target:
    """Resolve a path and the links in it to a stored object."""
    # Objects that the consolidated metadata do not list are requested where a link leads to them, and with
    # `look_up` at the path itself, which callers often only try.
    current, here = hierarchy, ""
    pending = _parts(path, hierarchy.location)
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
            # The consolidated metadata may be stale, so the object at the rest of the path is requested.
            if (look_up or hops) and current.look_up("/".join([child, *pending])):
                here = child
                continue
            if hops:
                raise LinkError(
                    f"A link in the path {path!r} in {hierarchy.location} leads to {child!r} in "
                    f"{current.location}, which does not exist. The file is incomplete.",
                    location=hierarchy.location,
                    path=path,
                    found=child,
                )
            raise hierarchy.not_found(path)
        hops += 1
        if hops > MOST_LINK_HOPS:
            raise LinkError(
                f"The path {path!r} in {hierarchy.location} passes through more than {MOST_LINK_HOPS} links, "
                "which may form a circle.",
                location=hierarchy.location,
                path=path,
                expected=MOST_LINK_HOPS,
            )
        pending = _parts(link.path, current.location) + pending
        current = current.follow(link.source)
        here = ""
    return Target(current, here)


def _parts(path: str, location: Location) -> list[str]:
    checked = safe_path(path, location)
    return checked.split("/") if checked else []


@takes_storage_options
def open_hierarchy(
    location: str | os.PathLike[str] | Location | Store,
    storage_options: Mapping[str, Any] | None = None,
    *,
    consolidated: bool | None = None,
) -> Hierarchy:
    """Read the metadata of an NWB file, Zarr of any hdmf-zarr release or HDF5: all groups and arrays.

    Consolidated metadata take two concurrent requests, and over HTTP and S3 one conditional request when the
    file is opened again in the same process. Without consolidated metadata, the store is listed and every
    metadata document is fetched, with an `UnconsolidatedWarning`.

    Parameters
    ----------
    location
        A path, a URL (``https``, ``s3``, or any that fsspec supports), or an open Zarr store.
    storage_options
        Credentials and other options, named as in s3fs and fsspec.
    consolidated
        Whether consolidated metadata are used: None, if they exist; True, they are required; False, the store
        is listed instead.

    Returns
    -------
    Hierarchy
        Nodes in the Zarr 3 form that hdmf-zarr 0.14 writes; Zarr 2 metadata are translated.

    Raises
    ------
    LocationNotFoundError, NotZarrError, NotNWBError
        When the location is not an NWB file.
    AccessError, CredentialsError
        When access is denied.
    TransportError, HostNotFoundError
        When requests fail after retries.
    MetadataError, LimitError
        When the metadata are damaged or exceed the limits.

    Examples
    --------
    >>> hierarchy = open_hierarchy("sub-1.nwb.zarr")  # doctest: +SKIP
    >>> hierarchy["acquisition/ElectricalSeries/data"].shape  # doctest: +SKIP
    (108000000, 384)
    """
    return load_hierarchy(locate(location, storage_options).read_consolidated(consolidated))


def load_hierarchy(where: Location, opener: Opener | None = None, group: str | None = None) -> Hierarchy:
    """Open the hierarchy of a location with transports from an opener.

    Of an HDF5 file, the metadata that a `group` needs are read, and all when others are asked for.
    """

    def load(transport: Transport) -> Documents:
        if group and transport.location.is_hdf5:
            return run(load_part(transport, group))
        return run(load_remembered(transport))

    transport, documents = load_recognized(where, opener or open_transport, load)
    where = transport.location
    hierarchy = session_hierarchy(where, transport, documents, opener)
    if not documents.consolidated and where.option("consolidated") is not False:
        warn_caller(
            f"{where} has no consolidated metadata: reading the metadata took {documents.requests} requests "
            f"instead of 2. {how_to_consolidate(transport)}",
            UnconsolidatedWarning,
            code="not-consolidated",
        )
    # To open one object, what other objects have that cannot be read does not matter.
    own = {
        path: reason
        for path, reason in documents.unreadable.items()
        if not group or path == group or path.startswith((f"{group}/", f"{group}@"))
    }
    if own:
        warn_caller(_not_read(where, own), UnreadableWarning, code="unreadable-part")
    return hierarchy


def _not_read(where: Location, unreadable: Mapping[str, str]) -> str:
    """Return a warning of objects and attributes of an HDF5 file that cannot be read."""
    named = "; ".join(f"{path!r}: {reason}" for path, reason in islice(unreadable.items(), MOST_NAMED))
    more = len(unreadable) - MOST_NAMED
    return f"{where} has parts that cannot be read: {named}{f'; and {more} more' if more > 0 else ''}."


def session_hierarchy(
    where: Location, transport: Transport, documents: Documents, opener: Opener | None = None
) -> Hierarchy:
    """Return the hierarchy of metadata documents that must be those of an NWB file."""
    hierarchy = Hierarchy(where, transport, documents, opener)
    root = hierarchy[""]
    if not _is_session(root):
        raise _not_nwb(where, documents, root)
    return hierarchy


def _not_nwb(location: Location, documents: Documents, root: Node) -> NotNWBError:
    is_saved_dataset = "nwb_version" in root.attributes
    reason = (
        "it was written by to_zarr() of xarray."
        if is_saved_dataset
        else f"its root has the neurodata_type {root.neurodata_type!r}, not 'NWBFile'."
    )
    if location.is_hdf5:
        return NotNWBError(
            f"{location} is an HDF5 file, but not an NWB file: {reason}",
            location=location,
            found=root.neurodata_type,
            expected="NWBFile",
            next_step='Open it with engine="h5netcdf" of xarray, or with h5py.',
        )
    return NotNWBError(
        f"{location} is a Zarr {documents.zarr_format} store, but not an NWB file: {reason}",
        location=location,
        found=root.neurodata_type,
        expected="NWBFile",
        next_step='Open it with engine="zarr" of xr.open_dataset or xr.open_datatree, or pass the session.'
        if is_saved_dataset
        else "Pass the root of an NWB file, not a group in it, or open other Zarr stores with "
        'engine="zarr" of xarray.',
    )


def _is_session(root: GroupNode | ArrayNode) -> bool:
    """Return whether a root is that of an NWB file, and not of a Dataset that xarray saved."""
    attributes = root.attributes
    if root.neurodata_type == "NWBFile":
        return True
    # Extensions may derive types from NWBFile. hdmf writes a type and a namespace for every object, but the
    # attributes of a Dataset have no namespace.
    return root.neurodata_type is not None and {"nwb_version", "namespace"} <= attributes.keys()


class Hierarchy(Mapping[str, Node]):
    """A mapping from the paths of an NWB Zarr file to its groups and arrays, decoded on demand.

    Paths of stored objects, without a leading slash (the root is ``""``), map to `GroupNode` and `ArrayNode`.
    `resolve` also follows links.

    Parameters
    ----------
    location
        The location of the file.
    transport
        The transport that fetches its objects.
    documents
        Its metadata documents.
    opener
        Opens the transports of linked files, and of arrays while a session is opened; by default
        `open_transport`.
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
            self._warn_of_stale(f"The group {missing[0]!r} is not listed, but its members are,")

    def __getstate__(self) -> dict[str, Any]:
        # A transport stays in its process; another one opens the location's own.
        return {**vars(self), "transport": self.transport.state, "opener": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.transport = open_transport(self.location).at(state["transport"])

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Return the Zarr format of the file, 2 or 3."""
        return self._documents.zarr_format

    @property
    def consolidated(self) -> bool:
        """Return whether the metadata were read from a consolidated document."""
        return self._documents.consolidated

    @property
    def etag(self) -> str | None:
        """Return the ETag of the consolidated document, None if there is none."""
        return self._documents.etag

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Return why objects and attributes (``path@name``) of an HDF5 file cannot be read, by path."""
        return self._documents.unreadable

    @property
    def specifications(self) -> str:
        """Return the path of the group with cached schemas; see `load_specifications`."""
        return str(self[""].attributes.get(".specloc") or "specifications").strip("/")

    def __repr__(self) -> str:
        form = (
            "HDF5"
            if self.location.is_hdf5
            else f"Zarr {self.zarr_format}, {'' if self.consolidated else 'not '}consolidated"
        )
        return f"<Hierarchy {self.location}: {len(self._documents.nodes)} groups and arrays, {form}>"

    def __getitem__(self, path: str) -> Node:
        path = self._checked(path).strip("/")
        node: Node | None = self.get(path)
        if node is None and self.look_up(path):
            node = self.get(path)
        if node is None:
            raise self.not_found(path)
        return node

    def get(self, path: str, default: Any = None) -> Any:
        """Return the node at a path, or a default."""
        if not isinstance(path, str):
            return default
        if path not in self._nodes and self._is_read(path):
            self._nodes[path] = self._decode(path, self._documents.nodes[path])
        return self._nodes.get(path, default)

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str):
            return False
        group, _, name = path.rpartition("/")
        return name in (self._documents.unread.get(group) or ()) or self._is_read(path)

    def __iter__(self) -> Iterator[str]:
        self._read_all()
        return iter(sorted(self._documents.nodes))

    def __len__(self) -> int:
        self._read_all()
        return len(self._documents.nodes)

    def _is_read(self, path: str) -> bool:
        """Return whether an object exists, after reading its metadata if they were left out."""
        if path in self._documents.nodes:
            return True
        if not self._documents.unread:
            return False
        group, name = path, ""
        while group and group not in self._documents.nodes:
            group, _, name = group.rpartition("/")
        unread = self._documents.unread.get(group, ())
        if name and (unread is None or name in unread):
            self._read_all()
        return path in self._documents.nodes

    def _read_all(self) -> None:
        """Read all metadata of a file of which only those of one object were read."""
        if not self._documents.unread:
            return
        known = self._documents
        self._documents = run(load_remembered((self.opener or open_transport)(self.location)))
        self._children = None
        if self._documents.etag != known.etag:
            raise ObjectChangedError(
                f"{self.location} was replaced while it was being read.",
                location=self.location,
                found=self._documents.etag,
                expected=known.etag,
                next_step="Open it again.",
            )

    def valid_nodes(self) -> Iterator[Node]:
        """Yield the nodes in the order of their paths, without those with damaged metadata."""
        for path in self:
            with suppress(MetadataError):
                yield self[path]

    def children(self, path: str) -> tuple[str, ...]:
        """Return the sorted names of the groups and arrays stored in a group, without links."""
        if self._is_read(self._checked(path)) and self._documents.unread.get(path, ()) is None:
            self._read_all()
        if self._children is None:
            collected: dict[str, list[str]] = {}
            for child in self._documents.nodes:
                if child:
                    parent, _, name = child.rpartition("/")
                    collected.setdefault(parent, []).append(name)
            for parent, unread in self._documents.unread.items():
                collected.setdefault(parent, []).extend(unread or ())
            self._children = {parent: tuple(sorted(names)) for parent, names in collected.items()}
        return self._children.get(path, ())

    def links(self, path: str) -> dict[str, Reference]:
        """Return the links in a group by name."""
        return group_links(self[path], where=f"{path!r} in {self.location}")

    def members(self, path: str) -> tuple[str, ...]:
        """Return the names of everything in a group: stored children first, then links."""
        children = self.children(path)
        return children + tuple(name for name in self.links(path) if name not in children)

    def resolve(self, path: str, *, look_up: bool = False) -> Target:
        """Resolve a path and the links in it.

        Parameters
        ----------
        path
            The path from the root.
        look_up
            Whether an object that the consolidated metadata do not list is requested; targets of links always
            are.

        Raises
        ------
        NodeNotFoundError
            When the object does not exist.
        LinkError
            When a link has no target, is circular, or must not be followed.
        """
        return resolve(self, self._checked(path), look_up=look_up)

    def reference(self, value: str | Mapping[str, Any] | Reference) -> Target:
        """Resolve a stored reference: a path, JSON text, or a mapping."""
        reference = parse_reference(value, where=f"A reference in {self.location}")
        return resolve(self.follow(reference.source), reference.path, look_up=True)

    def follow(self, source: str) -> Hierarchy:
        """Return the hierarchy of the file that a link's source names, this one for ``"."``."""
        if source == "." or self.is_itself(source):
            return self
        if source not in self._others:
            self._others[source] = load_hierarchy(self.location.sibling(source), self.opener)
        return self._others[source]

    def is_itself(self, source: str) -> bool:
        """Return whether a link's source is an absolute path of this file, before it was moved."""
        writer = PureWindowsPath(source) if "\\" in source else PurePosixPath(source)
        return writer.is_absolute() and writer.name == str(self.location).rpartition("/")[2]

    def load_specifications(self) -> bool:
        """Add the schemas cached in the file to its nodes; return whether there are any."""
        # hdmf-zarr before 0.14 cached them after consolidating the metadata, so they must be listed.
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
        """Request an object that is not in the consolidated metadata; return whether it exists."""
        # Each path is requested once. An object that exists is added with its members, with a
        # StaleMetadataWarning.
        if path in self or path in self._looked_up or not self._may_be_hidden(path):
            return path in self
        self._looked_up[path] = False
        found = run(find_documents(self.transport, self.zarr_format, path, self._documents.nodes))
        if found is None:
            return False
        self._looked_up[path] = True
        self._add(found)
        self._warn_of_stale(f"{path!r} is stored, but not listed")
        return True

    def _add(self, nodes: Mapping[str, Mapping[str, msgspec.Raw]]) -> None:
        """Add nodes that are not in the consolidated document, and drop its ETag."""
        self._documents = replace(self._documents.with_nodes(nodes), etag=None)
        self.file = StoredFile(self.location)
        self._children = None

    def _warn_of_stale(self, what: str) -> None:
        warn_caller(
            f"{what} by the consolidated metadata of {self.location}, which are stale and may lack more. "
            f"consolidated=False opens all stored objects. {how_to_consolidate(self.transport)}",
            StaleMetadataWarning,
            code="stale-metadata",
        )

    def _may_be_hidden(self, path: str) -> bool:
        """Return whether to request an unlisted object: a limited number of valid paths, not below arrays."""
        if not self.consolidated or not path or len(self._looked_up) >= MOST_LOOKED_UP:
            return False
        # No storage has longer keys, or keys that cannot be encoded.
        if len(path) > LONGEST_KEY or not is_encodable(path):
            return False
        try:
            if safe_path(path, self.location) != path:
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
            f"Paths of objects in {self.location} are strings, not {describe_value(path)}.",
            location=self.location,
            found=describe_value(path),
            expected="a string",
        )

    def not_found(self, path: str) -> NodeNotFoundError:
        """Return the error for a path that does not exist, with the closest existing ones."""
        parent, _, name = path.rpartition("/")
        close = [known for known in self._documents.nodes if known and known.rpartition("/")[2] == name]
        if not close:
            # Comparing strings is slow, and damaged files refer to many missing objects.
            siblings = [f"{parent}/{child}".lstrip("/") for child in self.children(parent)]
            names = islice(siblings or self._documents.nodes, MOST_COMPARED)
            close = difflib.get_close_matches(path, names, n=3)
        requested = self._looked_up.get(path) is False and not self.location.is_hdf5
        extent = ", neither stored nor in its consolidated metadata" if requested else ""
        return NodeNotFoundError(
            f"No object {path!r:.400} in {self.location}{extent}.",
            location=self.location,
            path=path,
            expected=close[:3],
            next_step=f"Did you mean {' or '.join(map(repr, close[:3]))}?" if close else None,
        )

    def recover_array(self, path: str) -> dict[str, Any] | None:
        """Return ``shape`` and ``attributes`` of an array with damaged metadata, None if not an array."""
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
        recovered: dict[str, Any] = {"shape": [1], "attributes": {}}
        with suppress(MetadataError):
            check_group({"attributes": found.get("attributes")}, where=path)
            recovered["attributes"] = found.get("attributes") or {}
        with suppress(MetadataError):
            check_shape(found.get("shape"), where=path)
            recovered["shape"] = found["shape"]
        return recovered

    def _decode(self, path: str, raw: Mapping[str, msgspec.Raw]) -> Node:
        try:
            return self._checked_node(path, raw)
        except MetadataError as error:
            error.location, error.path = str(self.location), path
            raise

    def _checked_node(self, path: str, raw: Mapping[str, msgspec.Raw]) -> Node:
        documents = {name: self._documents.decode(path, name, value) for name, value in raw.items()}
        where = f"{path!r} in {self.location}"
        if self.zarr_format == 3:
            document = documents["zarr.json"]
            match document.get("node_type"):
                case "damaged" if isinstance(reason := document.get(ERROR), str):
                    raise MetadataError(
                        f"{where} cannot be read as HDF5. {reason}",
                        next_step="It may be damaged: compare it with the original, or try h5dump.",
                    )
                case "array":
                    check_array(document, where=where)
                    return ArrayNode(path, document)
                case "group":
                    check_group(document, where=where)
                    return GroupNode(path, document.get("attributes") or {})
                case other:
                    raise MetadataError(
                        f"The metadata of {where} describe a {other!r:.80}, not a group or array.",
                        found=other,
                        expected=("group", "array"),
                    )
        if ".zgroup" not in documents and ".zarray" not in documents:
            raise MetadataError(
                f"{where} has attributes, but neither .zgroup nor .zarray: the file is incomplete, or its "
                "consolidated metadata are damaged.",
                expected=(".zgroup", ".zarray"),
            )
        attributes = documents.get(".zattrs", {})
        if ".zarray" in documents:
            array = translate_array(path, documents[".zarray"], attributes)
            check_array(array.metadata, where=where)
            return array
        group = translate_group(path, attributes)
        check_group({"attributes": group.attributes}, where=where)
        return group
