"""Finding the neurodata objects of a session or a container: series, tables, and what is neither."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from intake_nwbzarr.errors import LinkError, LocationError, MetadataError, NodeNotFoundError, warn_caller
from intake_nwbzarr.hierarchy.links import UNREACHABLE, Target
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, Node
from intake_nwbzarr.neurodata.metadata import SUBJECT
from intake_nwbzarr.neurodata.table_layout import as_names
from intake_nwbzarr.neurodata.types import is_a

# Groups whose arrays are the session's own metadata, and the schemas.
_METADATA = frozenset({"", "general", SUBJECT})

# Groups that are parts of a series or a table: its mapper has them.
_OWN_PARTS = frozenset({"bands", "reference_images"})


@dataclass
class Objects:
    """What there is to show.

    Parameters
    ----------
    series, tables
        Objects that have a mapper.
    unmapped
        Paths of objects that have none yet.
    """

    series: list[Target] = field(default_factory=list)
    tables: list[Target] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)


def is_series(hierarchy: Hierarchy, node: Node) -> bool:
    """Whether an object is a TimeSeries, by inheritance or by shape."""
    return isinstance(node, GroupNode) and is_a(hierarchy, node, "TimeSeries")


def is_table(hierarchy: Hierarchy, node: Node) -> bool:
    """Whether an object is a DynamicTable, by inheritance or by shape."""
    return isinstance(node, GroupNode) and is_a(hierarchy, node, "DynamicTable")


def find_objects(hierarchy: Hierarchy, root: str = "") -> Objects:
    """Find the objects in a container, and in the containers within it.

    Soft links of the whole session are not followed: what they lead to is found where it is stored. Those of
    a container are, for what it holds by link belongs to it; and links into other files always are.

    Parameters
    ----------
    hierarchy
        The file.
    root
        The container; the whole session if empty.
    """
    found = Objects()
    seen: set[tuple[str, str]] = set()
    _walk(hierarchy, root, found, seen, soft_links=bool(root))
    return found


def _walk(
    hierarchy: Hierarchy, path: str, found: Objects, seen: set[tuple[str, str]], *, soft_links: bool
) -> None:
    for name in sorted(hierarchy.children(path), key=_counting):
        child = f"{path}/{name}" if path else name
        try:
            _visit(hierarchy, child, found, seen, soft_links=soft_links)
        except (MetadataError, LinkError) as error:
            _leave_out(hierarchy, child, found, error)
    for name, reference in hierarchy.links(path).items():
        if not soft_links and reference.source == ".":
            continue
        child = f"{path}/{name}" if path else name
        try:
            target = hierarchy.resolve(child)
            _place(target.hierarchy, target, found, seen)
        except (NodeNotFoundError, LocationError):
            found.unmapped.append(child)
        except UNREACHABLE as error:
            _leave_out(hierarchy, child, found, error)


def _visit(
    hierarchy: Hierarchy, child: str, found: Objects, seen: set[tuple[str, str]], *, soft_links: bool
) -> None:
    node = hierarchy[child]
    if child == hierarchy.specifications or _place(hierarchy, Target(hierarchy, child), found, seen):
        return
    if isinstance(node, ArrayNode):
        if node.neurodata_type is not None or child.rpartition("/")[0] not in _METADATA:
            found.unmapped.append(child)
    elif node.neurodata_type is not None and not _is_container(hierarchy, node):
        found.unmapped.append(child)
    else:
        _walk(hierarchy, child, found, seen, soft_links=soft_links)


def _leave_out(hierarchy: Hierarchy, path: str, found: Objects, error: Exception) -> None:
    """One object, or what a link leads to, that cannot be looked at costs itself, not the session."""
    found.unmapped.append(path)
    warn_caller(f"{path!r} in {hierarchy.location} is left out. {error}")


def _counting(name: str) -> list[tuple[str, int]]:
    """A sort key that puts sweep 2 before sweep 10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _place(hierarchy: Hierarchy, target: Target, found: Objects, seen: set[tuple[str, str]]) -> bool:
    """Take an object up if it has a mapper."""
    node = target.node
    known = is_series(hierarchy, node), is_table(hierarchy, node)
    key = (str(hierarchy.location), target.path)
    if any(known) and key not in seen:
        seen.add(key)
        (found.series if known[0] else found.tables).append(target)
        _place_inner(target, found, seen)
    return any(known)


def _place_inner(target: Target, found: Objects, seen: set[tuple[str, str]]) -> None:
    """What a series or table holds beyond its own parts: tables of meanings, or an extension's objects."""
    own = set(as_names(target.node.attributes.get("categories"))) | _OWN_PARTS
    for name in target.hierarchy.children(target.path):
        inner = Target(target.hierarchy, f"{target.path}/{name}")
        try:
            if name in own or not isinstance(inner.node, GroupNode):
                continue
            if not _place(target.hierarchy, inner, found, seen):
                found.unmapped.append(inner.path)
        except (MetadataError, LinkError):
            continue  # a part of its owner, whose mapper says so


def _is_container(hierarchy: Hierarchy, node: GroupNode) -> bool:
    """Whether an object only holds others: ``LFP``, ``Position``, a processing module, a subject."""
    if node.path == SUBJECT:
        return True
    children = [hierarchy[f"{node.path}/{name}"] for name in hierarchy.children(node.path)]
    if any(isinstance(child, ArrayNode) for child in children):
        return False
    if children:
        return True
    return any(is_a(hierarchy, node, kind) for kind in ("NWBDataInterface", "ProcessingModule"))
