"""Equal times: found, shared, named for their container, and left out where they are too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np

from intake_nwbzarr.arrays import read_many
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.neurodata.pieces import Dimension, IrregularTime, Labels, Piece, RegularTime

# Each index costs xarray a pass over all coordinates: 300 take 0.2 s, 2,000 take 7 s.
MOST_TIME_BASES = 300


def share_equal_times(pieces: Sequence[Piece]) -> list[Piece]:
    """Put series whose stored timestamps are equal on one dimension, though nothing in the file links them.

    All timestamps that have the length of others are read, in one gather, and compared.

    Parameters
    ----------
    pieces
        The objects of one view.

    Returns
    -------
    list of Piece
        The same, with the first of equal times in place of the others.
    """
    times: dict[Hashable, IrregularTime] = {}
    for piece in pieces:
        for index in piece.indexes:
            if isinstance(index, IrregularTime):
                times.setdefault(index.dimension.identity, index)
    lengths = Counter(time.dimension.size for time in times.values())
    compared = [time for time in times.values() if lengths[time.dimension.size] > 1]
    values = read_many([time.timestamps for time in compared])
    first: dict[bytes, IrregularTime] = {}
    same = {
        time.dimension.identity: first.setdefault(np.asarray(read, np.float64).tobytes(), time)
        for time, read in zip(compared, values, strict=True)
    }
    return [_with_times(piece, same) for piece in pieces]


def _with_times(piece: Piece, same: Mapping[Hashable, IrregularTime]) -> Piece:
    def dimension(own: Dimension) -> Dimension:
        return same[own.identity].dimension if own.identity in same else own

    if not piece.parts:
        return piece  # its time is all that it has
    parts = tuple(
        replace(part, dimensions=tuple(dimension(own) for own in part.dimensions)) for part in piece.parts
    )
    indexes = tuple(same.get(index.dimension.identity, index) for index in piece.indexes)
    return replace(piece, parts=parts, indexes=indexes)


def have_one_time(pieces: Sequence[Piece]) -> bool:
    """Whether the series and events among the pieces all lie along the same time."""
    times = {
        piece.path: next(
            (each.dimension.identity for each in piece.indexes if not isinstance(each, Labels)), None
        )
        for piece in pieces
    }
    series = {piece.path for piece in pieces if any(part.role == "main" for part in piece.parts)}
    found = {time for path, time in times.items() if time is not None or path in series}
    return len(found) == 1 and None not in found


def name_shared_times(pieces: Sequence[Piece]) -> list[Piece]:
    """Name a regular time for the container of the series that have it, where they are several."""
    users: dict[Hashable, list[Piece]] = {}
    for piece in pieces:
        for index in piece.indexes:
            if isinstance(index, RegularTime):
                users.setdefault(index.dimension.identity, []).append(piece)
    containers = {
        identity: _common_container(sharing) for identity, sharing in users.items() if len(sharing) > 1
    }
    # A container with several such times has no one time of its own: each keeps its first series' name.
    uses = Counter(containers.values())
    renamed = {identity: container for identity, container in containers.items() if uses[container] == 1}
    return [
        replace(piece, indexes=tuple(_named_for(index, renamed) for index in piece.indexes))
        for piece in pieces
    ]


def _common_container(pieces: Sequence[Piece]) -> str:
    parents = [piece.path.split("/")[:-1] for piece in pieces]
    return "/".join(
        parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*parents, strict=False))
    )


def _named_for(
    index: RegularTime | IrregularTime | Labels, containers: Mapping[Hashable, str]
) -> RegularTime | IrregularTime | Labels:
    container = containers.get(index.dimension.identity)
    if container is None:
        return index
    flat_name = f"{container.rpartition('/')[2]}_{index.dimension.name}"
    return replace(index, dimension=replace(index.dimension, flat_name=flat_name, owner=container))


def limit_times(pieces: list[Piece]) -> list[Piece]:
    """Leave the times out where they are too many for xarray; what is known of them stays as attributes."""
    bases = {
        index.dimension.identity
        for piece in pieces
        for index in piece.indexes
        if not isinstance(index, Labels)
    }
    if len(bases) <= MOST_TIME_BASES:
        return pieces
    warn_caller(
        f"There are {len(bases)} distinct times here, more than the {MOST_TIME_BASES} that xarray indexes in "
        "reasonable time: they are left out, with starting_time and rate as attributes. Open single objects "
        "or containers with group= to have them."
    )
    return [_without_time(piece) for piece in pieces]


def _without_time(piece: Piece) -> Piece:
    known: dict[str, Any] = {}
    for index in piece.indexes:
        if isinstance(index, RegularTime):
            known |= {"starting_time": index.starting_time, "rate": index.rate}
        elif isinstance(index, IrregularTime):
            known |= {"timestamps": index.attributes.get("nwb_path", "")}
    parts = tuple(
        replace(part, attributes={**part.attributes, **known}) if part.role == "main" else part
        for part in piece.parts
    )
    labels = tuple(index for index in piece.indexes if isinstance(index, Labels))
    return replace(piece, parts=parts, indexes=labels, attributes={**piece.attributes, **known})
