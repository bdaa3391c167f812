"""Opening: one object, a container, or the whole session as a Dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import xarray as xr

from intake_nwbzarr.errors import LimitError, MetadataError, NodeNotFoundError, OptionError, warn_caller
from intake_nwbzarr.hierarchy.links import Target
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.neurodata.assembly import dataset_of_many, dataset_of_one
from intake_nwbzarr.neurodata.equal_times import share_equal_times
from intake_nwbzarr.neurodata.metadata import map_session, object_attributes
from intake_nwbzarr.neurodata.objects import Objects, find_objects, is_series, is_table
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.pieces import Mapper, Piece, both, read_pieces, together
from intake_nwbzarr.neurodata.tables import map_table
from intake_nwbzarr.neurodata.time_coordinates import ReferenceTime, reference_time
from intake_nwbzarr.neurodata.timeseries import map_series


def open_session(hierarchy: Hierarchy, options: MappingOptions) -> xr.Dataset:
    """The whole session as one flat Dataset.

    Parameters
    ----------
    hierarchy
        The file.
    options
        How it is shown.

    Returns
    -------
    xarray.Dataset
        Every series and table, lazily; session and subject as attributes; the paths of objects that are not
        shown under ``nwb_unmapped``.
    """
    found = find_objects(hierarchy)
    pieces, session = _read(hierarchy, found, options, whole=True)
    attributes = {**session, **hierarchy.location.attributes(), **_unmapped(found)}
    return dataset_of_many(pieces, options, _reference(hierarchy, session, options), attributes)


def open_object(hierarchy: Hierarchy, group: str, options: MappingOptions) -> xr.Dataset:
    """One neurodata object, or what a container holds, as a Dataset.

    Parameters
    ----------
    hierarchy
        The file.
    group
        A path in it; links are followed. A leading slash is tolerated, ``/`` alone is the whole session.
    options
        How it is shown.

    Raises
    ------
    NodeNotFoundError
        When there is no such group; the closest are named.
    LinkError
        When a link on the way leads nowhere, or not where allowed.
    OptionError
        When the group is no text.
    """
    if not isinstance(group, str):
        raise OptionError(f"group={group!r} means nothing here; it is the path of an object in the file.")
    path = group.strip("/")
    if not path:
        return open_session(hierarchy, options)
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise hierarchy.not_found(path)
    target = hierarchy.resolve(path)
    if isinstance(target.node, ArrayNode):
        raise NodeNotFoundError(
            f"{path!r} in {hierarchy.location} is an array; a group was expected. It belongs to "
            f"{path.rpartition('/')[0]!r}: open that."
        )
    alone = is_series(target.hierarchy, target.node) or is_table(target.hierarchy, target.node)
    found = _alone(target) if alone else find_objects(target.hierarchy, target.path)
    pieces, session = _read(target.hierarchy, found, options, whole=False)
    # `nwb_group` is the path that was asked for: with the location, it opens this Dataset again.
    attributes = {**session, "nwb_group": path, **hierarchy.location.attributes(), **_unmapped(found)}
    reference = _reference(target.hierarchy, session, options)
    if alone:
        return dataset_of_one(pieces[0], options, reference, attributes)
    if not (pieces or found.unmapped):
        attributes["nwb_unmapped"] = [target.path]
        warn_caller(
            f"{path!r} in {hierarchy.location} holds no series and no table: the Dataset has its attributes "
            "only. What it holds is in the raw object, ds.nwb.nwbfile."
        )
    own = object_attributes(target.hierarchy, target.path)
    return dataset_of_many(pieces, options, reference, own | attributes, target.path)


def _alone(target: Target) -> Objects:
    if is_series(target.hierarchy, target.node):
        return Objects(series=[target])
    return Objects(tables=[target])


def _read(
    hierarchy: Hierarchy, found: Objects, options: MappingOptions, *, whole: bool
) -> tuple[list[Piece], Mapping[str, Any]]:
    """Map all objects, and the session's metadata beside them, in as few rounds as the longest takes."""
    mappers = list(_mappers(found, options))
    if len(mappers) > 1:
        objects = together([_or_unmapped(target, mapper, found) for target, mapper in mappers])
    else:
        objects = together([mapper for _, mapper in mappers])
    ((mapped, session),) = read_pieces([both(objects, map_session(hierarchy, whole=whole))])
    pieces = [piece for piece in mapped if piece is not None]
    return share_equal_times(pieces) if options.share_time else pieces, session


def _mappers(found: Objects, options: MappingOptions) -> Iterator[tuple[Target, Mapper[Piece]]]:
    for target in found.series:
        yield target, map_series(target.hierarchy, target.path, options)
    for target in found.tables:
        yield target, map_table(target.hierarchy, target.path, options)


def _or_unmapped(target: Target, mapper: Mapper[Piece], found: Objects) -> Mapper[Piece | None]:
    """One object of many: damaged metadata cost that object, not the session."""
    try:
        return (yield from mapper)
    except (MetadataError, NodeNotFoundError, LimitError) as error:
        found.unmapped.append(target.path)
        warn_caller(f"{target.path!r} in {target.hierarchy.location} is left out. {error}")
        return None


def _reference(
    hierarchy: Hierarchy, session: Mapping[str, Any], options: MappingOptions
) -> ReferenceTime | None:
    return reference_time(session, str(hierarchy.location)) if options.decode_times else None


def _unmapped(found: Objects) -> dict[str, Any]:
    return {"nwb_unmapped": found.unmapped} if found.unmapped else {}
