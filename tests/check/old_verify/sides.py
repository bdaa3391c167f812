"""The two sides of a comparison: pynwb's objects, and the nodes of the DataTree that show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import xarray as xr
from hdmf.container import AbstractContainer
from pynwb import NWBFile

from intake_nwbzarr.errors import LinkError, NodeNotFoundError
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy
from intake_nwbzarr.hierarchy.nodes import GroupNode, Node

# Attributes that say what an object is, of which every node of the tree says the type.
_IDENTITY = frozenset({"namespace", "object_id", "neurodata_type", ".specloc"})


@dataclass(frozen=True)
class Sides:
    """A file's raw object and its DataTree, with the metadata that say what belongs together.

    Parameters
    ----------
    nwbfile
        What pynwb read.
    tree
        What xarray shows.
    hierarchy
        The file's groups and arrays.
    as_stored
        What xarray shows with ``mask_and_scale=False``; None: only values in units are compared.
    """

    nwbfile: NWBFile
    tree: xr.DataTree
    hierarchy: Hierarchy
    as_stored: xr.DataTree | None = None

    @cached_property
    def paths(self) -> Mapping[str, str]:
        """The path of each object, by its ``object_id``; of one in another file, that of the link to it."""
        found: dict[str, str] = {}
        nodes = list(self.hierarchy.understood())
        for node in nodes:
            _name(found, node, node.path)
        for node in nodes:
            path = node.path
            for name, link in self.hierarchy.links(path).items() if isinstance(node, GroupNode) else ():
                if link.source != ".":
                    self._name_linked(found, f"{path}/{name}".lstrip("/"))
        return found

    def _name_linked(self, found: dict[str, str], path: str) -> None:
        with suppress(*UNREACHABLE):
            target = self.hierarchy.resolve(path)
            for node in target.hierarchy.understood():
                inner = node.path
                if inner == target.path or inner.startswith(f"{target.path}/"):
                    _name(found, node, path + inner.removeprefix(target.path))

    def own_path(self, path: str) -> str:
        """Where an object is in the file that holds it."""
        try:
            return self.hierarchy.resolve(path).path
        except (NodeNotFoundError, LinkError):
            return path

    def is_elsewhere(self, path: str) -> bool:
        """Whether an object is in another file, that a link leads to."""
        try:
            return self.hierarchy.resolve(path).hierarchy is not self.hierarchy
        except (NodeNotFoundError, LinkError):
            return False

    def path(self, container: AbstractContainer) -> str | None:
        """Where an object is in the file; None when it is not in this one."""
        return self.paths.get(container.object_id)

    def kind(self, path: str) -> str:
        """The neurodata type of what the file has at a path, empty for a group without one."""
        node = self.stored(path)
        return "" if node is None else node.neurodata_type or ""

    def node(self, path: str) -> xr.Dataset | None:
        """What the tree shows at an object's path, or under another name that says this path."""
        return _node(self.tree, self._shown_paths, path)

    def stored_node(self, path: str) -> xr.Dataset | None:
        """The same, with values as stored."""
        return None if self.as_stored is None else _node(self.as_stored, self._shown_paths, path)

    @cached_property
    def _shown_paths(self) -> Mapping[str, str]:
        """Where in the tree each object is."""
        shown: dict[str, str] = {}
        for node in self.tree.subtree:
            place = node.path.strip("/")
            shown[place] = place
            says = node.attrs.get("nwb_path")
            if isinstance(says, str):
                shown.setdefault(says, place)
        return shown

    def stored(self, path: str) -> Node | None:
        """The group or array at a path, through links; None when there is none."""
        try:
            return self.hierarchy.resolve(path).node
        except (NodeNotFoundError, LinkError):
            return None

    def is_stored(self, path: str, attribute: str | None = None) -> bool:
        """Whether the file has a dataset, group or link there, or such an attribute of it."""
        if attribute is not None:
            node = self.stored(path)
            return node is not None and attribute in node.attributes
        parent, _, name = path.rpartition("/")
        node = self.stored(parent)
        has_link = (
            isinstance(node, GroupNode) and parent in self.hierarchy and name in self.hierarchy.links(parent)
        )
        return has_link or self.stored(path) is not None

    def own_attributes(self, path: str) -> Iterator[tuple[str, Any]]:
        """The attributes stored with an object, without those that say what it is."""
        node = self.stored(path)
        for name, value in ({} if node is None else node.attributes).items():
            if name not in _IDENTITY and not name.startswith("_"):
                yield name, value


def _name(found: dict[str, str], node: Node, path: str) -> None:
    identifier = node.attributes.get("object_id")
    if isinstance(identifier, str):
        found.setdefault(identifier, path)


def _node(tree: xr.DataTree, shown: Mapping[str, str], path: str) -> xr.Dataset | None:
    place = shown.get(path)
    if place is None:
        return None
    found = tree if not place else tree[place]
    return found.to_dataset(inherit=False) if isinstance(found, xr.DataTree) else None
