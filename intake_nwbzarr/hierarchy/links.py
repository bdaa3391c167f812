"""Links and object references: where they lead, within the file and beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    LinkError,
    ListingError,
    LocationError,
    MetadataError,
    NodeNotFoundError,
    TransportError,
)
from intake_nwbzarr.hierarchy.nodes import GroupNode, Node, safe_path

if TYPE_CHECKING:
    from intake_nwbzarr.hierarchy.load import Hierarchy

MAXIMUM_HOPS = 32

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
        if hops > MAXIMUM_HOPS:
            raise LinkError(
                f"The path {path!r} in {hierarchy.location} passes through more than {MAXIMUM_HOPS} links; "
                "they may form a circle."
            )
        current = current.follow(link.source)
        pending = _parts(link.path, where=f"A link in {current.location}") + pending
        here = ""
    return Target(current, here)


def _parts(path: str, *, where: str) -> list[str]:
    checked = safe_path(path, where=where)
    return checked.split("/") if checked else []
