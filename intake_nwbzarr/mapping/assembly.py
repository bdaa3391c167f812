"""Assemble mapped objects into one Dataset: names of variables, and shared dimensions and times."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.indexes import Index, PandasIndex

from intake_nwbzarr.arrays import lazy_variable, read_at_open, xarray_dtype
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.mapping.model import (
    TEMPLATES,
    ArrayPart,
    Dimension,
    IrregularTime,
    Labels,
    MappedObject,
    RegularTime,
    free_name,
)
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.time_coordinates import ReferenceTime, decoded, time_coordinates
from intake_nwbzarr.transport.open import Opener


def object_names(
    paths: Iterable[str], style: Literal["short", "path", "safe"] = "short", root: str = ""
) -> dict[str, str]:
    """Return a unique name for each object of a view.

    >>> list(object_names(["a/Fluorescence/Series", "a/Neuropil/Series", "b/lick rate"]).values())
    ['Fluorescence_Series', 'Neuropil_Series', 'lick rate']
    """
    # short: an object's own name; objects of the same name are all qualified by the shortest trailing part of
    # their paths that is unique. path: the whole path relative to `root`. safe: short, in letters, digits and
    # underscores.
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
        # Lengthen each name that is shared, as long as its path has parts left.
        shared = [path for path in paths if uses[names[path]] > 1 and depths[path] < path.count("/") + 1]
        if not shared:
            return names
        for path in shared:
            depths[path] += 1


def safe_name(name: str) -> str:
    """Return a name of letters, digits and underscores that does not start with a digit.

    >>> safe_name("lick rate"), safe_name("+x"), safe_name("2p")
    ('lick_rate', '_x', '_2p')
    """
    safe = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{safe}" if safe[:1].isdigit() or not safe else safe


def flat_dimension_name(flat_name: str, owner: str, names: Mapping[str, str]) -> str:
    """Return a dimension's flat name, with its owner's own name replaced by that in the view.

    >>> flat_dimension_name("Series_time", "a/Neuropil/Series", {"a/Neuropil/Series": "Neuropil_Series"})
    'Neuropil_Series_time'
    """
    own = owner.rpartition("/")[2]
    return names[owner] + flat_name.removeprefix(own) if flat_name.startswith(own) else flat_name


# xarray passes over all coordinates for each index: 300 take 0.2 s, 2,000 take 7 s.
MOST_TIME_BASES = 300


def share_equal_times(mapped_objects: Sequence[MappedObject], opener: Opener | None) -> list[MappedObject]:
    """Give series with equal stored timestamps one dimension, though the file does not link them."""
    # Timestamps of equal length are read, in one gather, and compared.
    times: dict[Hashable, IrregularTime] = {}
    for neurodata in mapped_objects:
        for index in neurodata.indexes:
            if isinstance(index, IrregularTime):
                times.setdefault(index.dimension.identity, index)
    lengths = Counter(time.dimension.size for time in times.values())
    compared = [time for time in times.values() if lengths[time.dimension.size] > 1]
    values = read_at_open([time.timestamps for time in compared], opener)
    first: dict[bytes, IrregularTime] = {}
    same = {
        time.dimension.identity: first.setdefault(np.asarray(read, np.float64).tobytes(), time)
        for time, read in zip(compared, values, strict=True)
    }
    return [_with_times(neurodata, same) for neurodata in mapped_objects]


def _with_times(neurodata: MappedObject, same: Mapping[Hashable, IrregularTime]) -> MappedObject:
    def dimension(own: Dimension) -> Dimension:
        return same[own.identity].dimension if own.identity in same else own

    if not neurodata.parts:
        return neurodata  # it has nothing but its time
    parts = tuple(
        replace(part, dimensions=tuple(dimension(own) for own in part.dimensions)) for part in neurodata.parts
    )
    indexes = tuple(same.get(index.dimension.identity, index) for index in neurodata.indexes)
    return replace(neurodata, parts=parts, indexes=indexes)


def have_one_time(mapped_objects: Sequence[MappedObject]) -> bool:
    """Return whether all series and events lie along the same time."""
    times = {
        neurodata.path: next(
            (each.dimension.identity for each in neurodata.indexes if not isinstance(each, Labels)), None
        )
        for neurodata in mapped_objects
    }
    series = {
        neurodata.path for neurodata in mapped_objects if any(part.role == "main" for part in neurodata.parts)
    }
    found = {time for path, time in times.items() if time is not None or path in series}
    return len(found) == 1 and None not in found


def name_shared_times(mapped_objects: Sequence[MappedObject]) -> list[MappedObject]:
    """Name a regular time that several series share after their container."""
    users: dict[Hashable, list[MappedObject]] = {}
    for neurodata in mapped_objects:
        for index in neurodata.indexes:
            if isinstance(index, RegularTime):
                users.setdefault(index.dimension.identity, []).append(neurodata)
    containers = {
        identity: _common_container(sharing) for identity, sharing in users.items() if len(sharing) > 1
    }
    # If a container has several such times, each is named after its first series.
    uses = Counter(containers.values())
    renamed = {identity: container for identity, container in containers.items() if uses[container] == 1}
    return [
        replace(neurodata, indexes=tuple(_named_for(index, renamed) for index in neurodata.indexes))
        for neurodata in mapped_objects
    ]


def _common_container(mapped_objects: Sequence[MappedObject]) -> str:
    parents = [neurodata.path.split("/")[:-1] for neurodata in mapped_objects]
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


def limit_times(mapped_objects: list[MappedObject]) -> list[MappedObject]:
    """Drop the times if they are too many for xarray; their starting_time and rate become attributes."""
    bases = {
        index.dimension.identity
        for neurodata in mapped_objects
        for index in neurodata.indexes
        if not isinstance(index, Labels)
    }
    if len(bases) <= MOST_TIME_BASES:
        return mapped_objects
    warn_caller(
        f"There are {len(bases)} distinct times, more than the {MOST_TIME_BASES} that xarray can index in "
        "reasonable time: they are dropped, and starting_time and rate are attributes. Open single objects "
        "or containers with group= to have them.",
        code="many-times",
    )
    return [_without_time(neurodata) for neurodata in mapped_objects]


def _without_time(neurodata: MappedObject) -> MappedObject:
    known: dict[str, Any] = {}
    for index in neurodata.indexes:
        if isinstance(index, RegularTime):
            known |= {"starting_time": index.starting_time, "rate": index.rate}
        elif isinstance(index, IrregularTime):
            known |= {"timestamps": index.attributes.get("nwb_path", "")}
    parts = tuple(
        replace(part, attributes={**part.attributes, **known}) if part.role == "main" else part
        for part in neurodata.parts
    )
    labels = tuple(index for index in neurodata.indexes if isinstance(index, Labels))
    return replace(neurodata, parts=parts, indexes=labels, attributes={**neurodata.attributes, **known})


# Attributes of every object, which need no repetition among those of the Dataset.
_IDENTITY = {"neurodata_type", "nwb_core_type", "nwb_path"}


def dataset_of_one(
    neurodata: MappedObject,
    options: MappingOptions,
    reference: ReferenceTime | None,
    attributes: Mapping[str, Any],
    *,
    opener: Opener | None = None,
    cache: bool = False,
) -> xr.Dataset:
    """Return the Dataset of a single object, with plain names: ``data`` on (``time``, ``channel``)."""
    # `reference` is the zero of decoded times, None for seconds; with `cache`, values that were read whole
    # are kept, which `xarray.open_dataset` does for the Datasets that it returns.
    view = _View(options, reference, opener, cache=cache)
    neurodata = _labelled(neurodata, {neurodata.path: neurodata.name})
    for dimension in _dimensions([neurodata]):
        view.add_dimension(dimension, dimension.name)
    for part in neurodata.parts:
        view.add_part(part, part.name)
    return view.dataset([neurodata], dict(neurodata.attributes) | dict(attributes))


def dataset_of_many(
    mapped_objects: Sequence[MappedObject],
    options: MappingOptions,
    reference: ReferenceTime | None,
    attributes: Mapping[str, Any],
    opener: Opener | None,
    container: str = "",
) -> xr.Dataset:
    """Return the flat Dataset of a session or container, with variables named after their objects."""
    # Names are relative to `container`. If all its series have one time, that is plain `time`, and other
    # dimensions have plain names where these are unique.
    mapped_objects = limit_times(name_shared_times(mapped_objects))
    metadata = _metadata(mapped_objects, container)
    # An object may have a time or labels without arrays along them: the times of licks.
    mapped_objects = [neurodata for neurodata in mapped_objects if neurodata.parts or neurodata.indexes]
    dimensions = list(_dimensions(mapped_objects))
    owners = [dimension.owner for dimension in dimensions if dimension.owner is not None]
    view = _View(options, reference, opener, container)
    view.objects = object_names(
        [*(neurodata.path for neurodata in mapped_objects), *owners], options.names, container
    )
    uses = Counter(dimension.name for dimension in dimensions)
    # A variable named after its object never has the name of a dimension.
    objects = set(view.objects.values())
    one_time = bool(container) and have_one_time(mapped_objects)
    for dimension in dimensions:
        own = bool(container) and dimension.owner == container
        if (one_time or own) and uses[dimension.name] == 1 and dimension.name not in objects:
            view.plain.add(dimension.identity)
            view.add_dimension(dimension, dimension.name)
        else:
            view.add_dimension(dimension, view.flat_dimension(dimension))
    tables = view.tables(dimensions, mapped_objects)
    mapped_objects = [_labelled(neurodata, tables) for neurodata in mapped_objects]
    for neurodata in mapped_objects:
        for part in neurodata.parts:
            view.add_part(part, view.flat_part(neurodata, part))
    # The session's attributes first, its location last.
    location = {name: value for name, value in attributes.items() if name.startswith("nwb_")}
    session = {name: value for name, value in attributes.items() if name not in location}
    return view.dataset(mapped_objects, session | metadata | location)


def _labelled(neurodata: MappedObject, tables: Mapping[str, str]) -> MappedObject:
    """Add each array's object, role, column and table to its attributes, for `ds.nwb` and other tools."""
    # Names and paths of variables are not enough: a container may hold arrays beside objects, and a column
    # joined to a series remains its table's. Attributes survive selecting, renaming, merging and saving.
    parts = tuple(
        replace(part, attributes=_origin_attributes(part, part.dimensions[:1], neurodata, tables))
        for part in neurodata.parts
    )
    indexes = tuple(
        replace(index, attributes=_origin_attributes(index, (index.dimension,), neurodata, tables))
        for index in neurodata.indexes
    )
    return replace(neurodata, parts=parts, indexes=indexes)


def _origin_attributes(
    array: ArrayPart | RegularTime | IrregularTime | Labels,
    along: tuple[Dimension, ...],
    neurodata: MappedObject,
    tables: Mapping[str, str],
) -> Mapping[str, Any]:
    """Return an array's attributes with its object, role, column and table; docs/mapping.md lists them."""
    own = array.attributes
    if "nwb_path" not in own:
        return own
    path = array.object or neurodata.path
    found: dict[str, Any] = {}
    if isinstance(array, ArrayPart) and (array.role == "main" or array.object == own["nwb_path"]):
        found["nwb_role"] = "data"
    else:
        found["nwb_object"] = path
        if isinstance(array, RegularTime | IrregularTime) or (isinstance(array, Labels) and array.is_time):
            found["nwb_role"] = "time"
    core = neurodata.attributes.get("nwb_core_type")
    if core is not None and own.get("neurodata_type") == neurodata.neurodata_type:
        found["nwb_core_type"] = core
    if array.column is not None:
        found["nwb_column"] = array.column
    if path in tables and any(dimension.is_rows and dimension.owner == path for dimension in along):
        found["nwb_table"] = tables[path]
    return {**own, **found}


def _metadata(mapped_objects: Sequence[MappedObject], container: str) -> dict[str, Any]:
    """Return the attributes of objects that have no variable of their own name, by dotted path."""
    holders = {
        str(parent) for neurodata in mapped_objects for parent in PurePosixPath(neurodata.path).parents
    }
    found: dict[str, Any] = {}
    for neurodata in mapped_objects:
        if neurodata.path == container or any(part.role == "main" for part in neurodata.parts):
            continue
        # The type alone is only included for objects that appear nowhere else: a device with nothing but a
        # name.
        shown = bool(neurodata.parts or neurodata.indexes) or neurodata.path in holders
        if shown and neurodata.attributes.keys() <= _IDENTITY:
            continue
        dotted = neurodata.path.replace("/", ".")
        attributes = {**neurodata.attributes, **({} if neurodata.parts else _times_of_another(neurodata))}
        found |= {f"{dotted}.{name}": value for name, value in attributes.items() if name != "nwb_path"}
    return found


def _times_of_another(neurodata: MappedObject) -> dict[str, Any]:
    """Return the path of another object's times that an object without times of its own uses."""
    theirs = (index for index in neurodata.indexes if index.dimension.owner not in {None, neurodata.path})
    first = next(theirs, None)
    return {} if first is None else {"timestamps": str(first.attributes.get("nwb_path", ""))}


@dataclass
class _View:
    """The names in a Dataset that is being assembled."""

    options: MappingOptions
    reference: ReferenceTime | None
    opener: Opener | None
    container: str = ""
    objects: Mapping[str, str] = field(default_factory=dict)
    plain: set[Hashable] = field(default_factory=set)
    dimensions: dict[Hashable, str] = field(default_factory=dict)
    owners: dict[Hashable, str] = field(default_factory=dict)
    parts: dict[str, ArrayPart] = field(default_factory=dict)
    coordinates: dict[str, None] = field(default_factory=dict)
    cache: bool = False

    def add_dimension(self, dimension: Dimension, name: str) -> None:
        """Name a dimension."""
        name = safe_name(name) if self.options.names == "safe" else name
        self.dimensions[dimension.identity] = free_name(name, self.dimensions.values())
        if dimension.owner is not None:
            self.owners[dimension.identity] = dimension.owner

    def flat_dimension(self, dimension: Dimension) -> str:
        """Return a dimension's name among many objects."""
        if dimension.owner is None:
            return dimension.flat_name
        return flat_dimension_name(dimension.flat_name, dimension.owner, self.objects)

    def tables(
        self, dimensions: Iterable[Dimension], mapped_objects: Iterable[MappedObject]
    ) -> dict[str, str]:
        """Return the names of the tables whose rows are a dimension of this view, by path."""
        paths = {neurodata.path for neurodata in mapped_objects}
        return {
            each.owner: self.objects[each.owner]
            for each in dimensions
            if each.is_rows and each.owner is not None
            # A series' own name for the rows, such as `channel`, does not name the table.
            if each.owner in paths or each.identity not in self.plain
        }

    def flat_part(self, neurodata: MappedObject, part: ArrayPart) -> str:
        """Return the name of an object's array among many objects."""
        if part.role == "main":
            return self.objects[neurodata.path]
        if neurodata.path == self.container:
            return part.name
        owner = neurodata.path
        if part.role == "coordinate" and part.dimensions:
            along = part.dimensions[0].identity
            if along in self.plain:
                return part.name
            owner = self.owners.get(along, owner)
        return f"{self.objects[owner]}_{part.name}"

    def add_part(self, part: ArrayPart, name: str) -> None:
        """Name an array; a column joined by several series is added once."""
        name = safe_name(name) if self.options.names == "safe" else name
        known = self.parts.get(name)
        joined = "coordinate" in {part.role, known.role if known else None}
        if known is not None and joined and _identities(known) == _identities(part):
            self.coordinates[name] = None
            return
        name = free_name(name, {*self.dimensions.values(), *self.parts})
        self.parts[name] = part
        if part.role == "coordinate":
            self.coordinates[name] = None

    def dataset(self, mapped_objects: Iterable[MappedObject], attributes: Mapping[str, Any]) -> xr.Dataset:
        """Return the Dataset of all named arrays."""
        indexed: dict[Hashable, xr.Variable] = {}
        indexes: dict[Hashable, Index] = {}
        for name, index in self._indexes(mapped_objects):
            if name not in self.options.drop_variables:
                # Not `Coordinates.update`, which aligns all coordinates on every call.
                own = self._index_coordinates(name, index)
                indexed |= own.variables
                indexes |= own.xindexes
        variables = {
            name: self._variable(part)
            for name, part in self.parts.items()
            if name not in self.options.drop_variables
        }
        coordinates = {name: variables.pop(name) for name in self.coordinates if name in variables}
        coords = xr.Coordinates({**indexed, **coordinates}, indexes)
        return xr.Dataset(variables, coords, attributes)

    def _variable(self, part: ArrayPart) -> xr.Variable:
        dimensions = [self.dimensions[each.identity] for each in part.dimensions]
        if part.is_time and self.reference is not None:
            part = decoded(part, self.reference)
        if isinstance(part.array, np.ndarray):
            # `astype` keeps the dtype's metadata; `numpy.array` does not.
            values = part.array.astype(xarray_dtype(part.array.dtype))
            return xr.Variable(dimensions, values, part.attributes)
        return lazy_variable(dimensions, part.array, part.attributes, cache=self.cache)

    def _indexes(
        self, mapped_objects: Iterable[MappedObject]
    ) -> Iterator[tuple[str, RegularTime | IrregularTime | Labels]]:
        """Yield the index of each dimension that has one, with the name of its coordinate."""
        seen: set[Hashable] = set()
        for neurodata in mapped_objects:
            for index in neurodata.indexes:
                if index.dimension.identity not in seen:
                    seen.add(index.dimension.identity)
                    yield self._index_name(index), index

    def _index_name(self, index: RegularTime | IrregularTime | Labels) -> str:
        name = self.dimensions[index.dimension.identity]
        # The dimension of events is `event`, its coordinate a time.
        if not isinstance(index, Labels) and index.dimension.name == "event" and name.endswith("event"):
            return free_name(f"{name.removesuffix('event')}time", {*self.dimensions.values(), *self.parts})
        return name

    def _index_coordinates(self, name: str, index: RegularTime | IrregularTime | Labels) -> xr.Coordinates:
        dimension = self.dimensions[index.dimension.identity]
        if isinstance(index, Labels):
            labels = PandasIndex(index.values, dimension)
            variable = xr.Variable(dimension, index.values, index.attributes)
            return xr.Coordinates(labels.create_variables({dimension: variable}), {dimension: labels})
        of_template = str(index.attributes.get("nwb_path")).startswith(TEMPLATES)
        reference = None if of_template else self.reference
        return time_coordinates(index, dimension, name, reference, self.opener)


def _identities(part: ArrayPart) -> tuple[Hashable, ...]:
    return tuple(dimension.identity for dimension in part.dimensions)


def _dimensions(mapped_objects: Iterable[MappedObject]) -> Iterator[Dimension]:
    """Return every dimension once: those with an index first, because the index is named after them."""
    mapped_objects = list(mapped_objects)
    indexed = [index.dimension for neurodata in mapped_objects for index in neurodata.indexes]
    others = [
        dimension for neurodata in mapped_objects for part in neurodata.parts for dimension in part.dimensions
    ]
    found: dict[Hashable, Dimension] = {}
    for dimension in indexed + others:
        found.setdefault(dimension.identity, dimension)
    return iter(found.values())
