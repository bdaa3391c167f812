"""Views of a session: one flat Dataset, or a DataTree of its objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, NodeNotFoundError, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, Target
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.mapping.assembly import dataset_of_many, dataset_of_one, safe_name, share_equal_times
from intake_nwbzarr.mapping.attributes import OF_WHOM, SUBJECT, map_session
from intake_nwbzarr.mapping.find import (
    Found,
    Group,
    Kind,
    Objects,
    checked_group,
    find_objects,
    is_pattern,
    kind_of,
    matching_objects,
)
from intake_nwbzarr.mapping.generic import map_large_metadata, map_object
from intake_nwbzarr.mapping.images import map_array, map_images
from intake_nwbzarr.mapping.model import Mapper, Piece, both, free_name, read_pieces, together
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.series import map_series
from intake_nwbzarr.mapping.tables import map_table
from intake_nwbzarr.mapping.time_coordinates import ReferenceTime, reference_time, with_zone

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
    ((piece, session),) = read_pieces([both(mapper, map_session(hierarchy, whole=False))], hierarchy.opener)
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
    ((mapped, session),) = read_pieces([both(mappers, map_session(hierarchy, whole=whole))], hierarchy.opener)
    shown = [(found, piece) for found, piece in zip(objects.found, mapped, strict=True) if piece is not None]
    pieces: Sequence[Piece] = [piece for _, piece in shown]
    unmapped += [path for piece in pieces for path in piece.unmapped if path not in unmapped]
    if options.share_time:
        pieces = share_equal_times(pieces, hierarchy.opener)
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
    return dataset_of_many(pieces, options, mapped.reference, attributes, hierarchy.opener)


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
        attributes = {**mapped.attributes, **where}
        return dataset_of_one(
            mapped.pieces[0], options, mapped.reference, attributes, opener=hierarchy.opener
        )
    if not (objects.found or objects.unmapped):
        warn_caller(f"{path!r} in {hierarchy.location} holds nothing: the Dataset has no variables.")
    mapped = map_many(target.hierarchy, objects, options, whole=False)
    own = next((piece.attributes for piece in mapped.pieces if piece.path == target.path), {})
    attributes = {**own, **mapped.attributes, **where}
    return dataset_of_many(
        mapped.pieces, options, mapped.reference, attributes, hierarchy.opener, target.path
    )


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
    return dataset_of_many(mapped.pieces, options, mapped.reference, attributes, hierarchy.opener)


def open_tree(
    hierarchy: Hierarchy, options: MappingOptions, group: Group | None = None
) -> dict[str, xr.Dataset]:
    """The Datasets of a session's objects by path, parents before what they hold.

    Parameters
    ----------
    hierarchy
        The file.
    options
        How they are shown.
    group
        What the tree is of: a path, which becomes the root, or a pattern, or a list of paths and patterns,
        for the tree of these objects alone. None: everything.

    Returns
    -------
    dict
        ``/`` is the root, with the session's attributes. Objects that hold no arrays, and the file's own
        groups, have attributes only, so that they lend no coordinates to what they hold. An object whose name
        a variable of its parent has is renamed, with an underscore; its attribute ``nwb_path`` is its path in
        the file.

    Raises
    ------
    NodeNotFoundError
        When there is no such group.
    """
    group = None if group is None else checked_group(group)
    if group is None or (isinstance(group, str) and not group.strip("/")):
        mapped = map_many(hierarchy, find_objects(hierarchy), options, whole=True)
        return _datasets(hierarchy, mapped, "", mapped.attributes, options)
    if isinstance(group, str) and not is_pattern(hierarchy, group):
        path = group.strip("/")
        target = find_group(hierarchy, path)
        mapped = map_many(target.hierarchy, find_objects(target.hierarchy, target.path), options, whole=False)
        attributes = {**mapped.attributes, "nwb_group": path}
        return _datasets(hierarchy, mapped, target.path, attributes, options)
    groups = [group] if isinstance(group, str) else group
    mapped = map_many(hierarchy, matching_objects(hierarchy, groups), options, whole=False)
    return _datasets(hierarchy, mapped, "", {**mapped.attributes, "nwb_group": groups}, options)


def _datasets(
    hierarchy: Hierarchy, mapped: Mapped, root: str, attributes: Mapping[str, Any], options: MappingOptions
) -> dict[str, xr.Dataset]:
    where = hierarchy.location.attributes()
    datasets = {"/": xr.Dataset(attrs={**attributes, **where})}
    places = {root: "/"}
    for found, piece in zip(mapped.found, mapped.pieces, strict=True):
        path = found.shown_at
        # Every object's Dataset knows the way back.
        known = {"nwb_group": path, **where} if path else where
        if path == root:
            known = {**attributes, **known, **where}
        dataset = dataset_of_one(piece, options, mapped.reference, known, opener=hierarchy.opener)
        place, ancestors = _place(path, places, datasets, safe=options.names == "safe")
        datasets[place] = _beside(dataset, place.rpartition("/")[2], ancestors)
    return datasets


def _place(
    path: str, places: dict[str, str], datasets: Mapping[str, xr.Dataset], *, safe: bool
) -> tuple[str, list[xr.Dataset]]:
    """Where an object stands in the tree, and what stands above it."""
    if path not in places:
        parent, _, name = path.rpartition("/")
        above, _ = _place(parent, places, datasets, safe=safe)
        variables = set(map(str, datasets[above].variables)) if above in datasets else set()
        own = f"{above.rstrip('/')}/"
        # Names that were made safe may be equal.
        beside = (
            {each.removeprefix(own) for each in places.values() if each.startswith(own)} if safe else set()
        )
        name = free_name(safe_name(name) if safe else name, variables | beside)
        places[path] = f"{own}{name}"
    place = places[path]
    steps = place.split("/")[1:-1]
    holders = ["/", *("/" + "/".join(steps[: depth + 1]) for depth in range(len(steps)))]
    return place, [datasets[each] for each in holders if each in datasets and each != place]


def _beside(dataset: xr.Dataset, name: str, ancestors: list[xr.Dataset]) -> xr.Dataset:
    """A Dataset whose dimensions differ from those above it, which xarray would align them with."""
    taken = {dimension for ancestor in ancestors for dimension in ancestor.dims}
    renamed = {dimension: f"{name}_{dimension}" for dimension in dataset.dims if dimension in taken}
    return dataset.rename(renamed) if renamed else dataset
