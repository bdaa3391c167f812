"""Assemble mapped objects into one Dataset: names, dimensions and times that are shared."""

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
    Dimension,
    IrregularTime,
    Labels,
    Part,
    Piece,
    RegularTime,
    free_name,
)
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.time_coordinates import ReferenceTime, decoded, time_coordinates
from intake_nwbzarr.transport.open import Opener


def object_names(
    paths: Iterable[str], style: Literal["short", "path", "safe"] = "short", root: str = ""
) -> dict[str, str]:
    """Names for the objects of one view, no two alike.

    Parameters
    ----------
    paths
        The objects.
    style
        ``short``: an object's own name; objects of one name are all qualified by the shortest distinguishing
        trailing part of their paths. ``path``: the whole path, whatever else the file holds. ``safe``: short,
        in letters, digits and underscores.
    root
        The container that paths are relative to.

    Examples
    --------
    >>> list(object_names(["a/Fluorescence/Series", "a/Neuropil/Series", "b/lick rate"]).values())
    ['Fluorescence_Series', 'Neuropil_Series', 'lick rate']
    """
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
        # A name is lengthened as long as it is shared and its path has parts left to tell it apart.
        shared = [path for path in paths if uses[names[path]] > 1 and depths[path] < path.count("/") + 1]
        if not shared:
            return names
        for path in shared:
            depths[path] += 1


def safe_name(name: str) -> str:
    """A name of letters, digits and underscores that starts with none of the digits.

    Examples
    --------
    >>> safe_name("lick rate"), safe_name("+x"), safe_name("2p")
    ('lick_rate', '_x', '_2p')
    """
    safe = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{safe}" if safe[:1].isdigit() or not safe else safe


def flat_dimension_name(flat_name: str, owner: str, names: Mapping[str, str]) -> str:
    """A dimension's flat name, with its owner's own name replaced by the name it has in the view.

    Examples
    --------
    >>> flat_dimension_name("Series_time", "a/Neuropil/Series", {"a/Neuropil/Series": "Neuropil_Series"})
    'Neuropil_Series_time'
    """
    own = owner.rpartition("/")[2]
    return names[owner] + flat_name.removeprefix(own) if flat_name.startswith(own) else flat_name


# Each index costs xarray a pass over all coordinates: 300 take 0.2 s, 2,000 take 7 s.
MOST_TIME_BASES = 300


def share_equal_times(pieces: Sequence[Piece], opener: Opener | None) -> list[Piece]:
    """Put series whose stored timestamps are equal on one dimension, though nothing in the file links them.

    All timestamps that have the length of others are read, in one gather, and compared.

    Parameters
    ----------
    pieces
        The objects of one view.
    opener
        Of the hierarchy that is opened.

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
    values = read_at_open([time.timestamps for time in compared], opener)
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


# What every object says of itself: no metadata beside its variables.
_IDENTITY = {"neurodata_type", "nwb_core_type", "nwb_path"}


def dataset_of_one(
    piece: Piece,
    options: MappingOptions,
    reference: ReferenceTime | None,
    attributes: Mapping[str, Any],
    *,
    opener: Opener | None = None,
    cache: bool = False,
) -> xr.Dataset:
    """The Dataset of a single object, with plain names: ``data`` on (``time``, ``channel``).

    Parameters
    ----------
    piece
        The object.
    options
        How it is shown.
    reference
        What decoded times count from; None leaves them in seconds.
    attributes
        Of the Dataset, after the object's own.
    opener
        Of the hierarchy that is opened.
    cache
        Keep values that were read whole, as `xarray.open_dataset` sees to for what it returns.
    """
    view = _View(options, reference, opener, cache=cache)
    piece = _labelled(piece, {piece.path: piece.name})
    for dimension in _dimensions([piece]):
        view.add_dimension(dimension, dimension.name)
    for part in piece.parts:
        view.add_part(part, part.name)
    return view.dataset([piece], dict(piece.attributes) | dict(attributes))


def dataset_of_many(
    pieces: Sequence[Piece],
    options: MappingOptions,
    reference: ReferenceTime | None,
    attributes: Mapping[str, Any],
    opener: Opener | None,
    container: str = "",
) -> xr.Dataset:
    """The flat Dataset of a session or container: variables named for their objects.

    Parameters
    ----------
    pieces
        Its objects.
    options
        How they are shown.
    reference
        What decoded times count from; None leaves them in seconds.
    attributes
        Of the Dataset.
    opener
        Of the hierarchy that is opened.
    container
        What names are relative to. In a container whose series all have one time, that is plain ``time``, and
        other dimensions have plain names where no two want the same.

    Warns
    -----
    MappingWarning
        When there are more than 300 distinct times, which are then left out.
    """
    pieces = limit_times(name_shared_times(pieces))
    metadata = _metadata(pieces, container)
    # An object may have a time, or labels, and nothing that lies along them: when each lick was.
    pieces = [piece for piece in pieces if piece.parts or piece.indexes]
    dimensions = list(_dimensions(pieces))
    owners = [dimension.owner for dimension in dimensions if dimension.owner is not None]
    view = _View(options, reference, opener, container)
    view.objects = object_names([*(piece.path for piece in pieces), *owners], options.names, container)
    uses = Counter(dimension.name for dimension in dimensions)
    # A variable that is named for its object never takes the name of a dimension.
    objects = set(view.objects.values())
    one_time = bool(container) and have_one_time(pieces)
    for dimension in dimensions:
        own = bool(container) and dimension.owner == container
        if (one_time or own) and uses[dimension.name] == 1 and dimension.name not in objects:
            view.plain.add(dimension.identity)
            view.add_dimension(dimension, dimension.name)
        else:
            view.add_dimension(dimension, view.flat_dimension(dimension))
    tables = view.tables(dimensions, pieces)
    pieces = [_labelled(piece, tables) for piece in pieces]
    for piece in pieces:
        for part in piece.parts:
            view.add_part(part, view.flat_part(piece, part))
    # The session's own first, where it came from last.
    place = {name: value for name, value in attributes.items() if name.startswith("nwb_")}
    session = {name: value for name, value in attributes.items() if name not in place}
    return view.dataset(pieces, session | metadata | place)


def _labelled(piece: Piece, tables: Mapping[str, str]) -> Piece:
    """Write in a piece's attributes what each array is of its object: `ds.nwb` and other tools read that.

    Names and paths of variables do not tell: a container may hold arrays beside objects, and a column that is
    joined to a series stays its table's. Attributes survive selecting, renaming, merging and saving.
    """
    parts = tuple(
        replace(part, attributes=_origin_attributes(part, part.dimensions[:1], piece, tables))
        for part in piece.parts
    )
    indexes = tuple(
        replace(index, attributes=_origin_attributes(index, (index.dimension,), piece, tables))
        for index in piece.indexes
    )
    return replace(piece, parts=parts, indexes=indexes)


def _origin_attributes(
    array: Part | RegularTime | IrregularTime | Labels,
    along: tuple[Dimension, ...],
    piece: Piece,
    tables: Mapping[str, str],
) -> Mapping[str, Any]:
    """Return an array's attributes with its object, role, column and table; docs/mapping.md lists them."""
    own = array.attributes
    if "nwb_path" not in own:
        return own
    path = array.object or piece.path
    found: dict[str, Any] = {}
    if isinstance(array, Part) and (array.role == "main" or array.object == own["nwb_path"]):
        found["nwb_role"] = "data"
    else:
        found["nwb_object"] = path
        if isinstance(array, RegularTime | IrregularTime) or (isinstance(array, Labels) and array.is_time):
            found["nwb_role"] = "time"
    core = piece.attributes.get("nwb_core_type")
    if core is not None and own.get("neurodata_type") == piece.neurodata_type:
        found["nwb_core_type"] = core
    if array.column is not None:
        found["nwb_column"] = array.column
    if path in tables and any(dimension.is_rows and dimension.owner == path for dimension in along):
        found["nwb_table"] = tables[path]
    return {**own, **found}


def _metadata(pieces: Sequence[Piece], container: str) -> dict[str, Any]:
    """What objects without a variable of their own name say of themselves, by dotted path."""
    holders = {str(parent) for piece in pieces for parent in PurePosixPath(piece.path).parents}
    found: dict[str, Any] = {}
    for piece in pieces:
        if piece.path == container or any(part.role == "main" for part in piece.parts):
            continue
        # The type alone is worth telling of what nothing else shows: a device that only has a name.
        shown = bool(piece.parts or piece.indexes) or piece.path in holders
        if shown and piece.attributes.keys() <= _IDENTITY:
            continue
        place = piece.path.replace("/", ".")
        attributes = {**piece.attributes, **({} if piece.parts else _times_of_another(piece))}
        found |= {f"{place}.{name}": value for name, value in attributes.items() if name != "nwb_path"}
    return found


def _times_of_another(piece: Piece) -> dict[str, Any]:
    """Whose times an object has that shows none of its own."""
    theirs = (index for index in piece.indexes if index.dimension.owner not in {None, piece.path})
    first = next(theirs, None)
    return {} if first is None else {"timestamps": str(first.attributes.get("nwb_path", ""))}


@dataclass
class _View:
    """The names given so far, and what has them."""

    options: MappingOptions
    reference: ReferenceTime | None
    opener: Opener | None
    container: str = ""
    objects: Mapping[str, str] = field(default_factory=dict)
    plain: set[Hashable] = field(default_factory=set)
    dimensions: dict[Hashable, str] = field(default_factory=dict)
    owners: dict[Hashable, str] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    coordinates: dict[str, None] = field(default_factory=dict)
    cache: bool = False

    def add_dimension(self, dimension: Dimension, name: str) -> None:
        """Give a dimension its name in this view."""
        name = safe_name(name) if self.options.names == "safe" else name
        self.dimensions[dimension.identity] = free_name(name, self.dimensions.values())
        if dimension.owner is not None:
            self.owners[dimension.identity] = dimension.owner

    def flat_dimension(self, dimension: Dimension) -> str:
        """A dimension's name among many objects."""
        if dimension.owner is None:
            return dimension.flat_name
        return flat_dimension_name(dimension.flat_name, dimension.owner, self.objects)

    def tables(self, dimensions: Iterable[Dimension], pieces: Iterable[Piece]) -> dict[str, str]:
        """Return the names of the tables whose rows are a dimension of this view, by path."""
        paths = {piece.path for piece in pieces}
        return {
            each.owner: self.objects[each.owner]
            for each in dimensions
            if each.is_rows and each.owner is not None
            # A series' own name for them, such as ``channel``, stands for all rows of a table, not for it.
            if each.owner in paths or each.identity not in self.plain
        }

    def flat_part(self, piece: Piece, part: Part) -> str:
        """A part's name among many objects."""
        if part.role == "main":
            return self.objects[piece.path]
        if piece.path == self.container:
            return part.name
        owner = piece.path
        if part.role == "coordinate" and part.dimensions:
            along = part.dimensions[0].identity
            if along in self.plain:
                return part.name
            owner = self.owners.get(along, owner)
        return f"{self.objects[owner]}_{part.name}"

    def add_part(self, part: Part, name: str) -> None:
        """Give a part its name in this view; a column joined by several series is there once."""
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

    def dataset(self, pieces: Iterable[Piece], attributes: Mapping[str, Any]) -> xr.Dataset:
        """Everything that has a name, as a Dataset."""
        indexed: dict[Hashable, xr.Variable] = {}
        indexes: dict[Hashable, Index] = {}
        for name, index in self._indexes(pieces):
            if name not in self.options.drop_variables:
                # Not `Coordinates.update`, which aligns all that there is with every addition.
                own = self._index_coordinates(name, index)
                indexed |= own.variables
                indexes |= own.xindexes
        variables = {
            name: self._variable(part)
            for name, part in self.parts.items()
            if name not in self.options.drop_variables
        }
        coordinates = {name: variables.pop(name) for name in self.coordinates if name in variables}
        together = xr.Coordinates({**indexed, **coordinates}, indexes)
        return xr.Dataset(variables, together, attributes)

    def _variable(self, part: Part) -> xr.Variable:
        dimensions = [self.dimensions[each.identity] for each in part.dimensions]
        if part.is_time and self.reference is not None:
            part = decoded(part, self.reference)
        if isinstance(part.array, np.ndarray):
            # `astype` keeps what the dtype says of its objects; `numpy.array` does not.
            values = part.array.astype(xarray_dtype(part.array.dtype))
            return xr.Variable(dimensions, values, part.attributes)
        return lazy_variable(dimensions, part.array, part.attributes, cache=self.cache)

    def _indexes(self, pieces: Iterable[Piece]) -> Iterator[tuple[str, RegularTime | IrregularTime | Labels]]:
        """The index of each dimension that has one, and the name of its coordinate."""
        seen: set[Hashable] = set()
        for piece in pieces:
            for index in piece.indexes:
                if index.dimension.identity not in seen:
                    seen.add(index.dimension.identity)
                    yield self._index_name(index), index

    def _index_name(self, index: RegularTime | IrregularTime | Labels) -> str:
        name = self.dimensions[index.dimension.identity]
        # Events are a dimension of their own; when they happened is a time all the same.
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


def _identities(part: Part) -> tuple[Hashable, ...]:
    return tuple(dimension.identity for dimension in part.dimensions)


def _dimensions(pieces: Iterable[Piece]) -> Iterator[Dimension]:
    """Every dimension once: those that have an index first, for it is named for them."""
    pieces = list(pieces)
    indexed = [index.dimension for piece in pieces for index in piece.indexes]
    others = [dimension for piece in pieces for part in piece.parts for dimension in part.dimensions]
    found: dict[Hashable, Dimension] = {}
    for dimension in indexed + others:
        found.setdefault(dimension.identity, dimension)
    return iter(found.values())
