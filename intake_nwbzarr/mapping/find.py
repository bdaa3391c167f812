"""Find neurodata objects in a hierarchy, by path, name or pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from intake_nwbzarr.arguments import describe_value
from intake_nwbzarr.errors import (
    LinkError,
    LocationError,
    MetadataError,
    NodeNotFoundError,
    OptionError,
    code_of_skipped,
    warn_caller,
)
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy, Target
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, Node
from intake_nwbzarr.mapping.attributes import describes_session, own_names
from intake_nwbzarr.mapping.schema import is_a
from intake_nwbzarr.mapping.table_layout import as_names

type Group = str | Sequence[str]


def checked_group(group: Any) -> str | list[str]:
    """Return the `group` of a call as a path or pattern, or a list of these."""
    if isinstance(group, str):
        return group
    if isinstance(group, list | tuple) and all(isinstance(each, str) for each in group):
        return list(group)
    raise OptionError(
        f'group must be the path of an object in the file, a pattern ("acquisition/*"), or a list of these, '
        f"not {describe_value(group)}.",
        found=group,
    )


def is_pattern(hierarchy: Hierarchy, group: str) -> bool:
    """Return whether a group is a pattern, and not the path of an object with such characters in its name."""
    return re.search(r"[*?\[]", group) is not None and group.strip("/") not in hierarchy


def matching_objects(hierarchy: Hierarchy, groups: Sequence[str]) -> Objects:
    """Find the objects that paths and patterns match, and those within them."""
    if not groups:
        raise OptionError(
            "group must not be an empty list.",
            found=groups,
            next_step="Pass paths or patterns, or None for the whole session.",
        )
    # In a pattern, * and ? stand for characters of one name, [ab] for one of several characters, ** for any
    # number of names.
    everything = find_objects(hierarchy)
    wanted = Objects()
    for group in groups:
        if is_pattern(hierarchy, group):
            _take(wanted, _matches(everything, group, hierarchy))
        else:
            _take(wanted, _at(hierarchy, group.strip("/"), look_up=True))
    return wanted


def _at(hierarchy: Hierarchy, path: str, *, look_up: bool = False) -> Objects:
    target = hierarchy.resolve(path, look_up=look_up)
    return find_objects(target.hierarchy, target.path, path)


def _take(wanted: Objects, more: Objects) -> None:
    # An object with several paths is included once.
    known = {(id(each.target.hierarchy), each.target.path) for each in wanted.found}
    wanted.found += [
        each for each in more.found if (id(each.target.hierarchy), each.target.path) not in known
    ]
    wanted.unmapped += [path for path in more.unmapped if path not in wanted.unmapped]


def _matches(everything: Objects, pattern: str, hierarchy: Hierarchy) -> Objects:
    parts = pattern.strip("/").split("/")

    def named(path: str) -> bool:
        names = path.split("/")
        # Objects that match, and objects in a container that matches.
        return any(_match(parts, names[:depth]) for depth in range(1, len(names) + 1))

    found = Objects(
        [each for each in everything.found if named(each.shown_at)],
        [path for path in everything.unmapped if named(path)],
    )
    for path in filter(named, everything.links):
        try:
            _take(found, _at(hierarchy, path))
        except UNREACHABLE:
            found.unmapped.append(path)
    if not found.found and not found.unmapped:
        raise NodeNotFoundError(
            f"No object in {hierarchy.location} matches {pattern!r}.",
            location=hierarchy.location,
            path=pattern,
            next_step="In a pattern, * matches characters within a name, ** any number of names.",
        )
    return found


def _match(pattern: Sequence[str], names: Sequence[str]) -> bool:
    if not pattern:
        return not names
    first, *rest = pattern
    if first == "**":
        return any(_match(rest, names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], first) and _match(rest, names[1:])


# Groups whose arrays are metadata of the session: `map_session` maps all but large ones.
_OF_SESSION = frozenset({"", "general"})

# The table within a DecompositionSeries, which its mapper maps to coordinates.
_OWN_TABLE = "bands"


class Kind(Enum):
    """The mapper of an object."""

    SERIES = "TimeSeries"
    TABLE = "DynamicTable"
    IMAGES = "Images"
    ARRAY = "a dataset with a neurodata type"
    OBJECT = "any other: devices, containers, groups with arrays"
    SESSION = "metadata too large for the session's attributes"


@dataclass(frozen=True)
class Found:
    """One neurodata object of a file."""

    target: Target  # the object, links resolved
    kind: Kind
    shown_at: str  # its path in the opened file; where another file holds it, that of the link


@dataclass
class Objects:
    """The objects to map."""

    found: list[Found] = field(default_factory=list)  # each followed by those within it
    unmapped: list[str] = field(default_factory=list)  # paths of damaged and unreachable objects
    # paths of soft links that were not followed: their targets are found where they are stored
    links: list[str] = field(default_factory=list)


def kind_of(hierarchy: Hierarchy, node: Node) -> Kind | None:
    """Return how a node is mapped; None for a part of another object, and for a plain container."""
    if isinstance(node, ArrayNode):
        return None if node.neurodata_type is None else Kind.ARRAY
    for kind in (Kind.SERIES, Kind.TABLE, Kind.IMAGES):
        if is_a(hierarchy, node, kind.value):
            return kind
    # Attributes, and datasets without a type, in a group without one, are mapped as the group's.
    own = (
        node.neurodata_type is not None
        or any(own_names(node))
        or any(array.neurodata_type is None for array in _arrays(hierarchy, node.path))
    )
    return Kind.OBJECT if own else None


def find_objects(hierarchy: Hierarchy, root: str = "", shown_at: str | None = None) -> Objects:
    """Find the objects in a container, the whole session by default, and in the containers within it."""
    # Soft links in a session are not followed: their targets are found where they are stored. Those in a
    # single container are, because its linked objects belong to it; and links to other files always are.
    walk = _Walk(hierarchy, soft_links=bool(root))
    walk.visit(Target(hierarchy, root), root if shown_at is None else shown_at)
    return walk.objects


@dataclass
class _Walk:
    """A walk through a file, which collects its objects."""

    hierarchy: Hierarchy
    soft_links: bool
    objects: Objects = field(default_factory=Objects)
    seen: set[tuple[str, str]] = field(default_factory=set)

    def visit(self, target: Target, shown_at: str) -> None:
        """Add an object, then the objects within it."""
        hierarchy, node = target.hierarchy, target.node
        key = (str(hierarchy.location), target.path)
        if key in self.seen or target.path == hierarchy.specifications:
            return
        self.seen.add(key)
        kind = _kind_of_session(target) if target.path in _OF_SESSION else kind_of(hierarchy, node)
        if kind is not None:
            self.objects.found.append(Found(target, kind, shown_at))
        if isinstance(node, GroupNode):
            self._children(target, shown_at, kind)
            if _is_container(hierarchy, node):
                self._links(target, shown_at)

    def _children(self, target: Target, shown_at: str, kind: Kind | None) -> None:
        hierarchy, path = target.hierarchy, target.path
        own = {_OWN_TABLE} if kind is Kind.SERIES else set(as_names(target.node.attributes.get("categories")))
        # The datasets of an object are parts of it, whatever their own types.
        datasets = kind in {None, Kind.SESSION} or target.node.neurodata_type is None
        for name in sorted(hierarchy.children(path), key=_natural_order):
            child = Target(hierarchy, _join(path, name))
            try:
                if name not in own and (datasets or isinstance(child.node, GroupNode)):
                    self.visit(child, _join(shown_at, name))
            except (MetadataError, LinkError) as error:
                # Damage within an object is reported by its mapper.
                if datasets:
                    self._skip(_join(shown_at, name), error)

    def _links(self, target: Target, shown_at: str) -> None:
        for name, reference in target.hierarchy.links(target.path).items():
            if not self.soft_links and reference.source == ".":
                self.objects.links.append(_join(shown_at, name))
                continue
            try:
                self.visit(target.hierarchy.resolve(_join(target.path, name)), _join(shown_at, name))
            except (NodeNotFoundError, LocationError):
                self.objects.unmapped.append(_join(shown_at, name))
            except UNREACHABLE as error:
                self._skip(_join(shown_at, name), error)

    def _skip(self, path: str, error: Exception) -> None:
        """Skip a damaged or unreachable object with a warning."""
        self.objects.unmapped.append(path)
        warn_caller(
            f"{path!r} in {self.hierarchy.location} is skipped. {error}",
            code=code_of_skipped(error),
            path=path,
        )


def _kind_of_session(target: Target) -> Kind | None:
    """Return SESSION for the root or ``general`` if an extension stores large arrays there, else None."""
    arrays = _arrays(target.hierarchy, target.path)
    large = any(each.neurodata_type is None and not describes_session(each) for each in arrays)
    return Kind.SESSION if large else None


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _natural_order(name: str) -> list[tuple[str, int]]:
    """Return a sort key with which sweep 2 precedes sweep 10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _arrays(hierarchy: Hierarchy, path: str) -> Iterator[ArrayNode]:
    """Yield the undamaged datasets in a group."""
    for name in hierarchy.children(path):
        with suppress(MetadataError):
            node = hierarchy[_join(path, name)]
            if isinstance(node, ArrayNode):
                yield node


def _is_container(hierarchy: Hierarchy, node: GroupNode) -> bool:
    """Return whether a group only contains objects: ``acquisition``, ``LFP``, a processing module."""
    # Objects linked from such a group belong to it; links of a device, a series or a table are references.
    if node.path == "":
        return True
    if node.neurodata_type is None:
        # A group within an object, such as the reference images of a segmentation, is a part of that.
        holder = hierarchy.get(node.path.rpartition("/")[0])
        return isinstance(holder, GroupNode) and _is_container(hierarchy, holder)
    if any(is_a(hierarchy, node, kind) for kind in ("TimeSeries", "DynamicTable")):
        return False
    holds = any(is_a(hierarchy, node, kind) for kind in ("NWBDataInterface", "ProcessingModule"))
    return holds and not any(_arrays(hierarchy, node.path))
