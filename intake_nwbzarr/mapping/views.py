"""Open a session as one flat Dataset, or as a DataTree of its objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from intake_nwbzarr.errors import (
    ChunkError,
    LimitError,
    MetadataError,
    NodeNotFoundError,
    code_of_skipped,
    warn_caller,
)
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
from intake_nwbzarr.mapping.model import MappedObject, Mapper, both, free_name, run_mappers, run_together
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.series import map_series
from intake_nwbzarr.mapping.tables import map_table
from intake_nwbzarr.mapping.time_coordinates import ReferenceTime, reference_time, with_zone

_MAPPERS: Mapping[Kind, Callable[[Hierarchy, str, MappingOptions], Mapper[MappedObject]]] = {
    Kind.SERIES: map_series,
    Kind.TABLE: map_table,
    Kind.IMAGES: map_images,
    Kind.ARRAY: map_array,
    Kind.OBJECT: map_object,
    Kind.SESSION: map_large_metadata,
}


@dataclass(frozen=True)
class Mapped:
    """The mapped objects of a view."""

    found: tuple[Found, ...]  # the objects, in the file's order
    mapped_objects: tuple[MappedObject, ...]  # one for each of them
    session: Mapping[str, Any]  # the session's attributes in this view
    unmapped: tuple[str, ...]  # paths of damaged and unreachable objects, which are skipped
    reference: ReferenceTime | None  # the zero of decoded times; None for seconds

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the session's attributes, and the paths of skipped objects."""
        return {**self.session, **({"nwb_unmapped": list(self.unmapped)} if self.unmapped else {})}


def map_many(hierarchy: Hierarchy, objects: Objects, options: MappingOptions, *, whole: bool) -> Mapped:
    """Map objects, skipping damaged ones with a warning; `whole` adds all of the session's metadata."""
    session = map_session(hierarchy, whole=whole)
    ((several, attributes),) = run_mappers([both(_map_several(objects, options), session)], hierarchy.opener)
    return _mapped(hierarchy, several, attributes, options)


@dataclass(frozen=True)
class _Several:
    """Objects as they were mapped; None for those that are damaged."""

    objects: Objects
    mapped: list[MappedObject | None]
    unmapped: list[str]


def _map_several(objects: Objects, options: MappingOptions) -> Mapper[_Several]:
    unmapped = list(objects.unmapped)
    mapped = yield from run_together([_or_none(found, options, unmapped) for found in objects.found])
    return _Several(objects, mapped, unmapped)


def _mapped(
    hierarchy: Hierarchy, several: _Several, session: Mapping[str, Any], options: MappingOptions
) -> Mapped:
    unmapped = several.unmapped
    shown = [
        (found, neurodata)
        for found, neurodata in zip(several.objects.found, several.mapped, strict=True)
        if neurodata is not None
    ]
    mapped_objects: Sequence[MappedObject] = [neurodata for _, neurodata in shown]
    unmapped += [path for neurodata in mapped_objects for path in neurodata.unmapped if path not in unmapped]
    if options.share_time:
        mapped_objects = share_equal_times(mapped_objects, hierarchy.opener)
    reference = _reference(hierarchy, session, options)
    return Mapped(
        tuple(found for found, _ in shown),
        tuple(mapped_objects),
        with_zone(session, reference),
        tuple(unmapped),
        reference,
    )


def _mapper(found: Found, options: MappingOptions) -> Mapper[MappedObject]:
    return _MAPPERS[found.kind](found.target.hierarchy, found.target.path, options)


def _or_none(found: Found, options: MappingOptions, unmapped: list[str]) -> Mapper[MappedObject | None]:
    try:
        return (yield from _mapper(found, options))
    except (MetadataError, NodeNotFoundError, LimitError, ChunkError) as error:
        unmapped.append(found.target.path)
        warn_caller(
            f"{found.target.path!r} in {found.target.hierarchy.location} is skipped. {error}",
            code=code_of_skipped(error),
            path=found.target.path,
        )
        return None


def _reference(
    hierarchy: Hierarchy, session: Mapping[str, Any], options: MappingOptions
) -> ReferenceTime | None:
    return reference_time(session, hierarchy.location) if options.decode_times else None


def open_session(hierarchy: Hierarchy, options: MappingOptions) -> xr.Dataset:
    """Return the whole session as one flat Dataset."""
    # Attributes of objects without a variable of their own name have a dotted path
    # (general.devices.probe.manufacturer); the paths of skipped objects are nwb_unmapped.
    mapped = map_many(hierarchy, find_objects(hierarchy), options, whole=True)
    # The subject's metadata are attributes of the session.
    mapped_objects = [
        neurodata
        for neurodata in mapped.mapped_objects
        if neurodata.path != SUBJECT or neurodata.parts or neurodata.indexes
    ]
    attributes = {**mapped.attributes, **hierarchy.location.attributes()}
    return dataset_of_many(mapped_objects, options, mapped.reference, attributes, hierarchy.opener)


def open_group(hierarchy: Hierarchy, group: Group, options: MappingOptions) -> xr.Dataset:
    """Return the Dataset of one object, of a container, or of the objects that patterns or a list match."""
    group = checked_group(group)
    if not isinstance(group, str) or is_pattern(hierarchy, group):
        return _open_several(hierarchy, [group] if isinstance(group, str) else group, options)
    path = group.strip("/")
    return open_each(hierarchy, [path], options)[path] if path else open_session(hierarchy, options)


def open_each(hierarchy: Hierarchy, paths: Sequence[str], options: MappingOptions) -> dict[str, xr.Dataset]:
    """Return the Datasets of objects or containers by path, each as `open_group` gives it, in one gather."""
    places = {path: _Place.of(hierarchy, path) for path in paths}
    files = {id(place.hierarchy): place.hierarchy for place in places.values()}
    mapping = run_together([place.map(options) for place in places.values()])
    sessions = run_together([map_session(file, whole=False) for file in files.values()])
    ((mapped, attributes),) = run_mappers([both(mapping, sessions)], hierarchy.opener)
    session_of = dict(zip(files, attributes, strict=True))
    return {
        path: place.dataset(each, session_of[id(place.hierarchy)], options)
        for (path, place), each in zip(places.items(), mapped, strict=True)
    }


@dataclass(frozen=True)
class _Place:
    """An object, or a container of several, that is opened by its path."""

    opened: Hierarchy  # of the session, which may link to another file
    path: str
    target: Target
    objects: Objects
    alone: Found | None  # the object, unless several are shown

    @classmethod
    def of(cls, opened: Hierarchy, path: str) -> _Place:
        target = find_group(opened, path)
        objects = find_objects(target.hierarchy, target.path)
        kind = kind_of(target.hierarchy, target.node)
        single = kind is not None and (kind is not Kind.OBJECT or len(objects.found) <= 1)
        if not (single or objects.found or objects.unmapped):
            warn_caller(
                f"{path!r} in {opened.location} is empty: the Dataset has no variables.",
                code="empty-group",
                path=path,
            )
        alone = Found(target, kind, path) if kind is not None and single else None
        return cls(opened, path, target, objects, alone)

    @property
    def hierarchy(self) -> Hierarchy:
        """Return the hierarchy of the file that the object is stored in."""
        return self.target.hierarchy

    def map(self, options: MappingOptions) -> Mapper[MappedObject | _Several]:
        """Map the object, whose damage is an error, or those of the container that are not damaged."""
        if self.alone is not None:
            return (yield from _mapper(self.alone, options))
        return (yield from _map_several(self.objects, options))

    def dataset(
        self, mapped: MappedObject | _Several, session: Mapping[str, Any], options: MappingOptions
    ) -> xr.Dataset:
        """Return the Dataset of what was mapped, with the session's attributes."""
        opener = self.opened.opener
        # `nwb_group` is the path as passed: with the location, it opens this Dataset again.
        where = {"nwb_group": self.path, **self.opened.location.attributes()}
        if isinstance(mapped, MappedObject):
            reference = _reference(self.hierarchy, session, options)
            # The object's own attributes take precedence over the session's.
            own = {name for name in OF_WHOM if name in mapped.attributes}
            kept = with_zone({name: each for name, each in session.items() if name not in own}, reference)
            unmapped = {"nwb_unmapped": list(mapped.unmapped)} if mapped.unmapped else {}
            return dataset_of_one(mapped, options, reference, {**kept, **unmapped, **where}, opener=opener)
        several = _mapped(self.hierarchy, mapped, session, options)
        attributes = next(
            (each.attributes for each in several.mapped_objects if each.path == self.target.path), {}
        )
        return dataset_of_many(
            several.mapped_objects,
            options,
            several.reference,
            {**attributes, **several.attributes, **where},
            opener,
            self.target.path,
        )


def find_group(hierarchy: Hierarchy, path: str) -> Target:
    """Return the target of a path, which must be an object or a group."""
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise hierarchy.not_found(path)
    target = hierarchy.resolve(path, look_up=True)
    parent = target.path.rpartition("/")[0]
    is_part = target.hierarchy[parent].neurodata_type is not None or target.node.neurodata_type is None
    if isinstance(target.node, ArrayNode) and is_part and parent:
        raise NodeNotFoundError(
            f"{path!r} in {hierarchy.location} is an array; expected a group.",
            location=hierarchy.location,
            path=path,
            found="array",
            expected="group",
            next_step=f"Open the object it belongs to, {path.rpartition('/')[0]!r}.",
        )
    return target


def _open_several(hierarchy: Hierarchy, groups: list[Any], options: MappingOptions) -> xr.Dataset:
    mapped = map_many(hierarchy, matching_objects(hierarchy, groups), options, whole=False)
    attributes = {**mapped.attributes, "nwb_group": groups, **hierarchy.location.attributes()}
    return dataset_of_many(mapped.mapped_objects, options, mapped.reference, attributes, hierarchy.opener)


def open_tree(
    hierarchy: Hierarchy, options: MappingOptions, group: Group | None = None
) -> dict[str, xr.Dataset]:
    """Return the Datasets of a session's objects by path, parents first."""
    # A path becomes the root, `/`. Objects without arrays, and the file's own groups, have attributes only,
    # so that child nodes do not inherit coordinates from them. An object with the name of a variable of its
    # parent is renamed with an underscore; its attribute nwb_path is its path in the file.
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
    nodes = {root: "/"}
    for found, neurodata in zip(mapped.found, mapped.mapped_objects, strict=True):
        path = found.shown_at
        # Every object's Dataset can be opened again from its attributes.
        known = {"nwb_group": path, **where} if path else where
        if path == root:
            known = {**attributes, **known, **where}
        dataset = dataset_of_one(neurodata, options, mapped.reference, known, opener=hierarchy.opener)
        node, ancestors = _node_path(path, nodes, datasets, safe=options.names == "safe")
        datasets[node] = _without_shared_dimensions(dataset, node.rpartition("/")[2], ancestors)
    return datasets


def _node_path(
    path: str, nodes: dict[str, str], datasets: Mapping[str, xr.Dataset], *, safe: bool
) -> tuple[str, list[xr.Dataset]]:
    """Return an object's path in the tree, and the Datasets above it."""
    if path not in nodes:
        parent, _, name = path.rpartition("/")
        above, _ = _node_path(parent, nodes, datasets, safe=safe)
        variables = set(map(str, datasets[above].variables)) if above in datasets else set()
        own = f"{above.rstrip('/')}/"
        # Safe names of siblings may be equal.
        beside = (
            {each.removeprefix(own) for each in nodes.values() if each.startswith(own)} if safe else set()
        )
        name = free_name(safe_name(name) if safe else name, variables | beside)
        nodes[path] = f"{own}{name}"
    node = nodes[path]
    steps = node.split("/")[1:-1]
    holders = ["/", *("/" + "/".join(steps[: depth + 1]) for depth in range(len(steps)))]
    return node, [datasets[each] for each in holders if each in datasets and each != node]


def _without_shared_dimensions(dataset: xr.Dataset, name: str, ancestors: list[xr.Dataset]) -> xr.Dataset:
    """Rename dimensions that an ancestor has too, which xarray would align."""
    taken = {dimension for ancestor in ancestors for dimension in ancestor.dims}
    renamed = {dimension: f"{name}_{dimension}" for dimension in dataset.dims if dimension in taken}
    return dataset.rename(renamed) if renamed else dataset
