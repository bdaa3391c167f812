"""The file's hierarchy as xarray's: a Dataset for every object, at its own path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.neurodata.assembly import dataset_of_one
from intake_nwbzarr.neurodata.mapped import Mapped, map_many
from intake_nwbzarr.neurodata.names import free_name, safe_name
from intake_nwbzarr.neurodata.objects import find_objects
from intake_nwbzarr.neurodata.options import MappingOptions
from intake_nwbzarr.neurodata.patterns import Group, checked_group, is_pattern, matching_objects
from intake_nwbzarr.neurodata.session import find_group


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
        dataset = dataset_of_one(piece, options, mapped.reference, known)
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
