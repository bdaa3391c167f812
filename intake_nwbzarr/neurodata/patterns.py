"""Groups by pattern: ``acquisition/*``, ``**/Position/*``, or a list of paths and patterns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from intake_nwbzarr.arguments import shown
from intake_nwbzarr.errors import NodeNotFoundError, OptionError
from intake_nwbzarr.hierarchy.links import UNREACHABLE
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.neurodata.objects import Objects, find_objects

type Group = str | Sequence[str]


def checked_group(group: Any) -> str | list[str]:
    """A group as a caller may give it: the path of an object, a pattern, or a list of these.

    Raises
    ------
    OptionError
        When it is none of them.
    """
    if isinstance(group, str):
        return group
    if isinstance(group, list | tuple) and all(isinstance(each, str) for each in group):
        return list(group)
    raise OptionError(
        f'group must be the path of an object in the file, a pattern ("acquisition/*"), or a list of these, '
        f"not {shown(group)}."
    )


def is_pattern(hierarchy: Hierarchy, group: str) -> bool:
    """Whether a group is a pattern, and not the path of something whose name holds such characters."""
    return re.search(r"[*?\[]", group) is not None and group.strip("/") not in hierarchy


def matching_objects(hierarchy: Hierarchy, groups: Sequence[str]) -> Objects:
    """Find the objects that paths and patterns name, and those within them.

    Parameters
    ----------
    hierarchy
        The file.
    groups
        Paths, which must exist, and patterns, each of which must match something. In a pattern ``*`` and
        ``?`` stand for characters of one name, ``[ab]`` for one of some, ``**`` for any number of names.

    Raises
    ------
    NodeNotFoundError
        When one of them names nothing.
    OptionError
        When one of them is no text, or there are none.
    """
    if not groups:
        raise OptionError("group=[] names nothing; give paths or patterns, or None for the whole session.")
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
    # One object under several paths is shown once.
    known = {(id(each.target.hierarchy), each.target.path) for each in wanted.found}
    wanted.found += [
        each for each in more.found if (id(each.target.hierarchy), each.target.path) not in known
    ]
    wanted.unmapped += [path for path in more.unmapped if path not in wanted.unmapped]


def _matches(everything: Objects, pattern: str, hierarchy: Hierarchy) -> Objects:
    parts = pattern.strip("/").split("/")

    def named(path: str) -> bool:
        names = path.split("/")
        # What matches, and what is in a container that does.
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
            f"No object in {hierarchy.location} matches {pattern!r}. A * stands for characters of one name, "
            "** for any number of names."
        )
    return found


def _match(pattern: Sequence[str], names: Sequence[str]) -> bool:
    if not pattern:
        return not names
    first, *rest = pattern
    if first == "**":
        return any(_match(rest, names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], first) and _match(rest, names[1:])
