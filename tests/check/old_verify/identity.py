"""Identity: that a node, and each variable of it, says where it comes from and of what type that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import xarray as xr

from tests.check.old_verify.findings import Difference, Equal, Finding
from tests.check.old_verify.sides import Sides


def compare_identity(path: str, shown: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    """Compare ``nwb_path`` and ``neurodata_type`` of a node and its variables with the file.

    Parameters
    ----------
    path
        Where the object is in the file.
    shown
        The Dataset that shows it.
    sides
        Both sides.

    Yields
    ------
    Finding
        One for the node, and one for each variable that says what is not so.
    """
    kind = sides.kind(path)
    # The root is the session: it has no need to say so.
    if path:
        says = (shown.attrs.get("nwb_path"), shown.attrs.get("neurodata_type"))
        expected = (sides.own_path(path), kind)
        yield (
            Equal(path, "neurodata_type", kind)
            if says == expected
            else Difference(path, "neurodata_type", kind, str(expected), str(says))
        )
    # What another file holds says its place there.
    for name, variable in () if sides.is_elsewhere(path) else shown.variables.items():
        wrong = _is_wrong(variable.attrs, kind, sides)
        if wrong is not None:
            yield Difference(path, f"identity of {name}", kind, *wrong)


def _is_wrong(attributes: Mapping[Any, Any], kind: str, sides: Sides) -> tuple[str, str] | None:
    """What the file has and what a variable says, where they differ; labels of our own say nothing."""
    place = attributes.get("nwb_path")
    says = attributes.get("neurodata_type")
    if place is None:
        return None if says is None else ("no path", str(says))
    if sides.stored(str(place)) is None:
        return "no such object", str(place)
    expected = _nearest_type(str(place), sides)
    # Timestamps that are another series' lie at its path, and are of the type of the one that shows them.
    return None if says in {None, expected, kind} else (expected, str(says))


def _nearest_type(path: str, sides: Sides) -> str:
    """The type of an object, or of the one that it is a part of."""
    while path and not sides.kind(path):
        path = path.rpartition("/")[0]
    return sides.kind(path)
