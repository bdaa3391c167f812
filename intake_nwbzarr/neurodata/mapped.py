"""Mapping the objects of a view, and the session's metadata, in as few rounds as the longest takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, NodeNotFoundError, warn_caller
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.neurodata.any_object import map_large_metadata, map_object
from intake_nwbzarr.neurodata.equal_times import share_equal_times
from intake_nwbzarr.neurodata.images import map_array, map_images
from intake_nwbzarr.neurodata.metadata import OF_WHOM, map_session
from intake_nwbzarr.neurodata.objects import Found, Kind, Objects
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.pieces import Mapper, Piece, both, read_pieces, together
from intake_nwbzarr.neurodata.tables import map_table
from intake_nwbzarr.neurodata.time_coordinates import ReferenceTime, reference_time, with_zone
from intake_nwbzarr.neurodata.timeseries import map_series

_MAPPERS: Mapping[Kind, Callable[[Hierarchy, str, MappingOptions], Mapper[Piece]]] = {
    Kind.SERIES: map_series,
    Kind.TABLE: map_table,
    Kind.IMAGES: map_images,
    Kind.ARRAY: map_array,
    Kind.OBJECT: map_object,
    Kind.SESSION: map_large_metadata,
}


@dataclass(frozen=True)
class Mapped:
    """The objects of a view, mapped.

    Parameters
    ----------
    found
        The objects, in the file's order.
    pieces
        One for each of them.
    session
        Attributes that the session gives the view.
    unmapped
        Paths of what is left out, for it is damaged or out of reach.
    reference
        What decoded times count from; None leaves them in seconds.
    """

    found: tuple[Found, ...]
    pieces: tuple[Piece, ...]
    session: Mapping[str, Any]
    unmapped: tuple[str, ...]
    reference: ReferenceTime | None

    @property
    def attributes(self) -> dict[str, Any]:
        """The session's attributes, and what is left out."""
        return {**self.session, **({"nwb_unmapped": list(self.unmapped)} if self.unmapped else {})}


def map_alone(hierarchy: Hierarchy, found: Found, options: MappingOptions) -> Mapped:
    """Map a single object; what is wrong with it as a whole is an error.

    Parameters
    ----------
    hierarchy
        The file that holds the session.
    found
        The object.
    options
        How it is shown.
    """
    mapper = _mapper(found, options)
    ((piece, session),) = read_pieces([both(mapper, map_session(hierarchy, whole=False))])
    reference = _reference(hierarchy, session, options)
    # What an object says of itself is not replaced by what the session lends to it.
    lent = {
        name: each for name, each in session.items() if name not in OF_WHOM or name not in piece.attributes
    }
    return Mapped((found,), (piece,), with_zone(lent, reference), piece.unmapped, reference)


def map_many(hierarchy: Hierarchy, objects: Objects, options: MappingOptions, *, whole: bool) -> Mapped:
    """Map objects; what is damaged is left out of the view, with a warning.

    Parameters
    ----------
    hierarchy
        The file that holds the session.
    objects
        What was found in it.
    options
        How they are shown.
    whole
        Whether all of the session's metadata are wanted, or only those that tell sessions apart.
    """
    unmapped = list(objects.unmapped)
    mappers = together([_or_none(found, options, unmapped) for found in objects.found])
    ((mapped, session),) = read_pieces([both(mappers, map_session(hierarchy, whole=whole))])
    shown = [(found, piece) for found, piece in zip(objects.found, mapped, strict=True) if piece is not None]
    pieces: Sequence[Piece] = [piece for _, piece in shown]
    unmapped += [path for piece in pieces for path in piece.unmapped if path not in unmapped]
    if options.share_time:
        pieces = share_equal_times(pieces)
    reference = _reference(hierarchy, session, options)
    return Mapped(
        tuple(found for found, _ in shown),
        tuple(pieces),
        with_zone(session, reference),
        tuple(unmapped),
        reference,
    )


def _mapper(found: Found, options: MappingOptions) -> Mapper[Piece]:
    return _MAPPERS[found.kind](found.target.hierarchy, found.target.path, options)


def _or_none(found: Found, options: MappingOptions, unmapped: list[str]) -> Mapper[Piece | None]:
    try:
        return (yield from _mapper(found, options))
    except (MetadataError, NodeNotFoundError, LimitError, ChunkError) as error:
        unmapped.append(found.target.path)
        warn_caller(f"{found.target.path!r} in {found.target.hierarchy.location} is left out. {error}")
        return None


def _reference(
    hierarchy: Hierarchy, session: Mapping[str, Any], options: MappingOptions
) -> ReferenceTime | None:
    return reference_time(session, str(hierarchy.location)) if options.decode_times else None
