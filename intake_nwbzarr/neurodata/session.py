"""Opening: one object, a container, several of them, or the whole session as one Dataset."""

from __future__ import annotations

from typing import Any

import xarray as xr

from intake_nwbzarr.errors import NodeNotFoundError, warn_caller
from intake_nwbzarr.hierarchy.links import Target
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.neurodata.assembly import dataset_of_many, dataset_of_one
from intake_nwbzarr.neurodata.mapped import map_alone, map_many
from intake_nwbzarr.neurodata.metadata import SUBJECT
from intake_nwbzarr.neurodata.objects import Found, Kind, find_objects, kind_of
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.patterns import Group, checked_group, is_pattern, matching_objects


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
        Every object, lazily; session and subject as attributes; those of objects that have no variable of
        their own name by dotted path (``general.devices.probe.manufacturer``); the paths of what is damaged
        or out of reach under ``nwb_unmapped``.
    """
    mapped = map_many(hierarchy, find_objects(hierarchy), options, whole=True)
    # The subject is among the session's own attributes.
    pieces = [piece for piece in mapped.pieces if piece.path != SUBJECT or piece.parts or piece.indexes]
    attributes = {**mapped.attributes, **hierarchy.location.attributes()}
    return dataset_of_many(pieces, options, mapped.reference, attributes)


def open_group(hierarchy: Hierarchy, group: Group, options: MappingOptions) -> xr.Dataset:
    """One neurodata object, what a container holds, or several of them, as a Dataset.

    Parameters
    ----------
    hierarchy
        The file.
    group
        A path in it; links are followed. A leading slash is tolerated, ``/`` alone is the whole session. Or a
        pattern, or a list of paths and patterns: then the objects that these name, as in the flat Dataset.
    options
        How it is shown.

    Raises
    ------
    NodeNotFoundError
        When there is no such group; the closest are named.
    LinkError
        When a link on the way leads nowhere, or not where allowed.
    OptionError
        When the group is neither text nor a list of texts.
    """
    group = checked_group(group)
    if not isinstance(group, str) or is_pattern(hierarchy, group):
        return _open_several(hierarchy, [group] if isinstance(group, str) else group, options)
    path = group.strip("/")
    if not path:
        return open_session(hierarchy, options)
    target = find_group(hierarchy, path)
    # `nwb_group` is the path that was asked for: with the location, it opens this Dataset again.
    where = {"nwb_group": path, **hierarchy.location.attributes()}
    objects = find_objects(target.hierarchy, target.path)
    kind = kind_of(target.hierarchy, target.node)
    if kind is not None and (kind is not Kind.OBJECT or len(objects.found) <= 1):
        mapped = map_alone(target.hierarchy, Found(target, kind, path), options)
        return dataset_of_one(mapped.pieces[0], options, mapped.reference, {**mapped.attributes, **where})
    if not (objects.found or objects.unmapped):
        warn_caller(f"{path!r} in {hierarchy.location} holds nothing: the Dataset has no variables.")
    mapped = map_many(target.hierarchy, objects, options, whole=False)
    own = next((piece.attributes for piece in mapped.pieces if piece.path == target.path), {})
    attributes = {**own, **mapped.attributes, **where}
    return dataset_of_many(mapped.pieces, options, mapped.reference, attributes, target.path)


def find_group(hierarchy: Hierarchy, path: str) -> Target:
    """Where a path leads, if that is something to open.

    Raises
    ------
    NodeNotFoundError
        When nothing is there, or the dataset of an object.
    """
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise hierarchy.not_found(path)
    target = hierarchy.resolve(path, look_up=True)
    parent = target.path.rpartition("/")[0]
    is_part = target.hierarchy[parent].neurodata_type is not None or target.node.neurodata_type is None
    if isinstance(target.node, ArrayNode) and is_part and parent:
        raise NodeNotFoundError(
            f"{path!r} in {hierarchy.location} is an array; a group was expected. It belongs to "
            f"{path.rpartition('/')[0]!r}: open that."
        )
    return target


def _open_several(hierarchy: Hierarchy, groups: list[Any], options: MappingOptions) -> xr.Dataset:
    mapped = map_many(hierarchy, matching_objects(hierarchy, groups), options, whole=False)
    attributes = {**mapped.attributes, "nwb_group": groups, **hierarchy.location.attributes()}
    return dataset_of_many(mapped.pieces, options, mapped.reference, attributes)
