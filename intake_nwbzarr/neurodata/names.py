"""Names of variables and dimensions: short where the file allows, qualified where two objects share one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Literal


def object_names(
    paths: Iterable[str], style: Literal["short", "path", "safe"] = "short", root: str = ""
) -> dict[str, str]:
    """Names for the objects of one view, no two alike.

    Parameters
    ----------
    paths
        The objects.
    style
        ``short``: an object's own name; objects of one name are all qualified by the shortest distinguishing
        trailing part of their paths. ``path``: the whole path, whatever else the file holds. ``safe``: short,
        in letters, digits and underscores.
    root
        The container that paths are relative to.

    Examples
    --------
    >>> list(object_names(["a/Fluorescence/Series", "a/Neuropil/Series", "b/lick rate"]).values())
    ['Fluorescence_Series', 'Neuropil_Series', 'lick rate']
    """
    unique = list(dict.fromkeys(paths))
    names = _whole(unique, root) if style == "path" else _short(unique)
    if style == "safe":
        names = {path: safe_name(name) for path, name in names.items()}
    taken: set[str] = set()
    for path, name in names.items():
        names[path] = free_name(name, taken)
        taken.add(names[path])
    return names


def _whole(paths: list[str], root: str) -> dict[str, str]:
    prefix = f"{root}/" if root else ""
    return {path: path.removeprefix(prefix).replace("/", "_") for path in paths}


def _short(paths: list[str]) -> dict[str, str]:
    depths = dict.fromkeys(paths, 1)
    while True:
        names = {path: "_".join(path.split("/")[-depth:]) for path, depth in depths.items()}
        uses = Counter(names.values())
        # A name is lengthened as long as it is shared and its path has parts left to tell it apart.
        shared = [path for path in paths if uses[names[path]] > 1 and depths[path] < path.count("/") + 1]
        if not shared:
            return names
        for path in shared:
            depths[path] += 1


def safe_name(name: str) -> str:
    """A name of letters, digits and underscores that starts with none of the digits.

    Examples
    --------
    >>> safe_name("lick rate"), safe_name("+x"), safe_name("2p")
    ('lick_rate', '_x', '_2p')
    """
    safe = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{safe}" if safe[:1].isdigit() or not safe else safe


def free_name(name: str, taken: Container[str]) -> str:
    """A name that is not taken: itself, or with underscores after it."""
    while name in taken:
        name += "_"
    return name


def flat_dimension_name(flat_name: str, owner: str, names: Mapping[str, str]) -> str:
    """A dimension's flat name, with its owner's own name replaced by the name it has in the view.

    Examples
    --------
    >>> flat_dimension_name("Series_time", "a/Neuropil/Series", {"a/Neuropil/Series": "Neuropil_Series"})
    'Neuropil_Series_time'
    """
    own = owner.rpartition("/")[2]
    return names[owner] + flat_name.removeprefix(own) if flat_name.startswith(own) else flat_name
