"""What a Dataset shows: its neurodata objects, listed and found by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import xarray as xr

from intake_nwbzarr.accessor.contents.shown import (
    ShownObject,
    SortedVariables,
    attributes_of,
)
from intake_nwbzarr.errors import NodeNotFoundError, OptionError

__all__ = ["ShownObject", "attributes_of", "find_object", "shown_objects"]

# Of more candidates than this, an error names the first.
_MOST_NAMES = 20


def shown_objects(dataset: xr.Dataset) -> list[ShownObject]:
    """List the neurodata objects of a Dataset, reading nothing.

    Columns of a table that are only joined to another object, as the electrodes' are to an ElectricalSeries,
    do not make that table one of the objects.

    Parameters
    ----------
    dataset
        Flat, of a container, or of one object; also after selections.

    Returns
    -------
    list of ShownObject
        In the order of their first variables.
    """
    view = SortedVariables.of(dataset)
    members: dict[str, list[str]] = {}
    for name, path in view.objects.items():
        members.setdefault(path, []).append(name)
    shown = [
        view.table(path, names) if path in view.tables else view.other(path, names)
        for path, names in members.items()
    ]
    return [each for each in shown if each is not None]


def find_object(
    dataset: xr.Dataset, name: str | None, kinds: Iterable[ShownObject], what: str
) -> ShownObject:
    """Find the object that a caller means.

    Parameters
    ----------
    dataset
        Where it is looked for.
    name
        What the Dataset calls it, or its path in the file; None for the only one there is.
    kinds
        The objects that would do.
    what
        What they are, for errors: ``tables``.

    Raises
    ------
    NodeNotFoundError
        When there is none, or none of that name; the closest are named.
    OptionError
        When `name` is None or ambiguous, and several would do; or is no text.
    """
    candidates = list(kinds)
    if not isinstance(name, str | None):
        raise OptionError(
            f"name={name!r} means nothing here; it is the name or the path of one of the {what}."
        )
    where = dataset.attrs.get("nwb_location", "this Dataset")
    known = [each.name for each in candidates]
    if not candidates:
        raise NodeNotFoundError(
            f"There are no {what} in this view of {where}; ds.nwb.describe() lists what there is."
        )
    found = candidates if name is None else _named(candidates, name)
    if len(found) == 1:
        return found[0]
    if not found:
        others = _named(shown_objects(dataset), name) if name else []
        if others:
            raise NodeNotFoundError(
                f"No {name!r} among the {what} in this view of {where}: it is a "
                f"{others[0].neurodata_type or 'DynamicTable'}. They are "
                f"{', '.join(map(repr, known[:_MOST_NAMES]))}{', ...' * (len(known) > _MOST_NAMES)}."
            )
        names = [*known, *(each.path for each in candidates)]
        close = difflib.get_close_matches(str(name), names, n=3) or known[:3]
        raise NodeNotFoundError(
            f"No {name!r} among the {what} in this view of {where}; did you mean "
            f"{' or '.join(map(repr, close))}?"
        )
    choices = [repr(each.name if name is None else each.path) for each in found]
    more = len(choices) - _MOST_NAMES
    raise OptionError(
        f"Several {what} would do in this view of {where}: name one of {', '.join(choices[:_MOST_NAMES])}"
        + (f", or of {more:,} more that ds.nwb.describe() lists." if more > 0 else ".")
    )


def _named(candidates: Sequence[ShownObject], name: str) -> list[ShownObject]:
    """The best of the ways in which a name may be meant: as shown, as a path, as the object's own."""
    ways: tuple[list[set[str | None]], ...] = (
        [{each.name, each.main, each.path} for each in candidates],
        [{f"/{each.path}", each.rows} for each in candidates],
        [{each.path.rpartition("/")[2]} for each in candidates],
    )
    for names in ways:
        found = [each for each, known in zip(candidates, names, strict=True) if name in known]
        if found:
            return found
    return []
