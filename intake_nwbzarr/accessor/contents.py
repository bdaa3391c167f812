"""The neurodata objects that a Dataset has, with their variables."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Number
from typing import Any, Literal

import numpy as np
import xarray as xr

from intake_nwbzarr.accessor.ragged_bounds import SAMPLE_DIMENSION, which_bound
from intake_nwbzarr.errors import NodeNotFoundError, OptionError
from intake_nwbzarr.mapping.assembly import safe_name
from intake_nwbzarr.mapping.schema import ancestry, definition_of

type Kind = Literal["series", "table", "other"]

# What times are stored as; the path of a time coordinate ends in one of these.
_TIMES = frozenset({"timestamps", "starting_time", "times"})


@dataclass(frozen=True)
class ShownObject:
    """A neurodata object, as one Dataset shows it.

    Parameters
    ----------
    path
        In the file.
    kind
        ``series``, ``table`` (dynamic tables of every type) or ``other``.
    name
        What the Dataset calls it: of a series, its data's variable; of a table, what its columns' names
        begin with. In the Dataset of one object, the object's own name.
    neurodata_type
        Its type; None for a table whose attributes the Dataset has lost: only its columns' types are known.
    variables
        Its variables and coordinates, in the Dataset's order.
    main
        Of a series: the variable with its data. None where that is not in the Dataset.
    rows
        Of a table: the dimension of its rows. None where one row was selected as a scalar.
    """

    path: str
    kind: Kind
    name: str
    neurodata_type: str | None
    variables: tuple[str, ...]
    main: str | None = None
    rows: str | None = None

    def is_a(self, ancestor: str) -> bool:
        """Whether the object is of a type of the core schema, or of one that extends it."""
        return self.neurodata_type is not None and ancestor in ancestry(self.neurodata_type)


@dataclass(frozen=True)
class SortedVariables:
    """A Dataset, and what its variables' attributes say of all of them together.

    Parameters
    ----------
    dataset
        The Dataset.
    paths
        Where each variable comes from in the file.
    objects
        The object that each is of.
    tables
        The paths of the tables that any column comes from.
    divided
        The paths of arrays that bounds divide into rows: their first axis is not their table's rows.
    timed
        The dimensions that have the time of a series.
    """

    dataset: xr.Dataset
    paths: Mapping[str, str]
    objects: Mapping[str, str]
    tables: frozenset[str]
    divided: frozenset[str]
    timed: frozenset[str]

    @classmethod
    def of(cls, dataset: xr.Dataset) -> SortedVariables:
        """Look at every variable once."""
        attributes = {str(name): variable.attrs for name, variable in dataset.variables.items()}
        paths = {name: str(own["nwb_path"]) for name, own in attributes.items() if "nwb_path" in own}
        objects = {name: str(attributes[name].get("nwb_object", path)) for name, path in paths.items()}
        return cls(
            dataset,
            paths,
            objects,
            frozenset(path for name, path in objects.items() if "nwb_column" in attributes[name]),
            frozenset(str(own["ragged_values"]) for own in attributes.values() if "ragged_values" in own),
            frozenset(
                str(dim)
                for name, path in paths.items()
                if is_time(attributes[name]) and path != objects[name]
                for dim in dataset.variables[name].dims
            ),
        )

    def dims(self, name: str) -> tuple[str, ...]:
        """The dimensions of a variable."""
        return tuple(str(dim) for dim in self.dataset.variables[name].dims)

    def is_alone(self, path: str) -> bool:
        """Whether the Dataset is of this one object."""
        return bool(self.dataset.attrs.get("nwb_path") == path)

    def other(self, path: str, names: Sequence[str]) -> ShownObject | None:
        """A series, or an object of another type; None where only its time is there, for others to share."""
        own_data = (name for name in names if "nwb_object" not in self.dataset.variables[name].attrs)
        main = next(own_data, None)
        dims = {dim for name in names for dim in self.dims(name)}
        if main is None and all(name in self.dataset.coords for name in names):
            others = (name for name in self.paths if name not in names)
            if any(not dims.isdisjoint(self.dims(name)) for name in others):
                return None
        kind = str(self.dataset.variables[main or names[0]].attrs.get("neurodata_type"))
        # The second tells series of a type that only an extension knows.
        unknown = definition_of(kind) is None
        is_series = "TimeSeries" in ancestry(kind) or (unknown and not self.timed.isdisjoint(dims))
        own = path.rpartition("/")[2] if main is None or self.is_alone(path) else main
        return ShownObject(path, "series" if is_series else "other", own, kind, tuple(names), main)

    def table(self, path: str, names: Sequence[str]) -> ShownObject | None:
        """A table; None where its columns are only joined to something else."""
        rows = self.rows(path, names)
        if rows is None and not self.is_one_row(path, names):
            return None
        own = tuple(
            name
            for name in names
            if rows in self.dims(name)[:1]
            or self.paths[name] in self.divided
            or name not in self.dataset.coords
        )
        if self.is_alone(path):
            kind = self.dataset.attrs.get("neurodata_type")
            return ShownObject(path, "table", path.rpartition("/")[2], kind, own, rows=rows)
        name = self._prefix(own).removesuffix("_") or str(rows)
        kind = attributes_of(self.dataset, path).get("neurodata_type")
        return ShownObject(path, "table", name, kind, own, rows=rows)

    def is_one_row(self, path: str, names: Sequence[str]) -> bool:
        """Whether one row of a table was selected as a scalar, as its id then is."""
        return any(self.paths[name] == f"{path}/id" and not self.dims(name) for name in names)

    def rows(self, path: str, names: Sequence[str]) -> str | None:
        """The dimension of a table's own rows: variables that are no coordinates lie along no other."""
        along = {
            name: self.dims(name)[0]
            for name in names
            if self.dims(name) and self.paths[name] not in self.divided
        }
        if self.is_one_row(path, names):
            return None
        labelled = {dim for name, dim in along.items() if self.paths[name] == f"{path}/id"}
        own = Counter(dim for name, dim in along.items() if name not in self.dataset.coords)
        if own:
            return max(own, key=lambda dim: (dim in labelled, own[dim]))
        if self.is_alone(path):
            return next(iter(along.values()), None)
        # All columns are joined to something, perhaps on the table's own rows: these are named for it.
        parts = path.split("/")
        tables = {"_".join(parts[depth:]) for depth in range(len(parts))}
        tables |= {safe_name(name) for name in tables}
        return next((dim for dim in along.values() if not tables.isdisjoint({dim, dim.rstrip("_")})), None)

    def _prefix(self, names: Sequence[str]) -> str:
        """What the names of a table's variables begin with, before the names of its columns."""
        found: Counter[str] = Counter()
        for name in names:
            # Names that something else has already are given underscores more.
            column = str(self.dataset.variables[name].attrs.get("nwb_column", "")).rstrip("_")
            for form in dict.fromkeys((column, safe_name(column))):
                if form and name.rstrip("_").endswith(form) and name not in self.dataset.dims:
                    found[name.rstrip("_").removesuffix(form)] += 1
        return max(found, key=lambda prefix: (found[prefix], -len(prefix)), default="")


def is_time(attributes: Mapping[Any, Any]) -> bool:
    """Whether a coordinate with these attributes is an object's time."""
    path = str(attributes.get("nwb_path"))
    # The labels of a series that is called ``times`` are at its own path.
    return path.rpartition("/")[2] in _TIMES and path != attributes.get("nwb_object")


def attributes_of(dataset: xr.Dataset, path: str) -> dict[str, Any]:
    """The attributes of an object that no one variable carries, such as a table; empty where there are none.

    Those of the object that a Dataset is of are the Dataset's own. In a flat one their names begin with the
    object's path, with dots for slashes.
    """
    if dataset.attrs.get("nwb_path") == path:
        return {str(name): value for name, value in dataset.attrs.items()}
    prefix = f"{path.replace('/', '.')}."
    found = {
        str(name).removeprefix(prefix): value
        for name, value in dataset.attrs.items()
        if str(name).startswith(prefix)
    }
    # What is left of the others names an object within this one.
    return {name: value for name, value in found.items() if "." not in name}


def column_name(table: str, path: str) -> str:
    """A column's name by its path; those of the categories of an aligned table begin with the category's."""
    return path.removeprefix(f"{table}/").replace("/", "_")


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


type Pair = tuple[str | None, str]
"""The names of a column's ``_start``, which a compact Dataset does without, and ``_count``."""


@dataclass(frozen=True)
class ShownColumn:
    """One variable of a table that holds values of a column.

    Parameters
    ----------
    column
        The column's name in the file; after the category's name in an aligned table.
    label
        What the table's own view calls it: the same for the column's values; of what is derived from a
        column, its own name (``electrodes_id``, ``pixel_mask_x``, ``timeseries_path``).
    variable
        The variable's name in the Dataset.
    bounds
        The names of the variables that say where rows start and how many values they have, from the table's
        rows inwards: none for a plain column, one pair for a ragged, two for a doubly ragged one. A compact
        Dataset has counts alone.
    """

    column: str
    label: str
    variable: str
    bounds: tuple[Pair, ...] = ()


def shown_columns(dataset: xr.Dataset, table: ShownObject) -> list[ShownColumn]:
    """List a table's columns, reading nothing.

    Parameters
    ----------
    dataset
        The Dataset.
    table
        One of its tables.

    Returns
    -------
    list of ShownColumn
        In the Dataset's order, without the ids of rows, the bounds themselves, and whatever lies neither
        along the rows nor along values that bounds divide.
    """
    bounds = _bounds(dataset, table)
    found = (_column(dataset, table, name, bounds) for name in table.variables if name != table.rows)
    return [column for column in found if column is not None]


def _bounds(dataset: xr.Dataset, table: ShownObject) -> dict[str, tuple[str, Pair]]:
    """What is divided: the path of the index that divides it, and the names of starts and counts."""
    pairs: dict[str, dict[str, str]] = {}
    indexes: dict[str, str] = {}
    for name in table.variables:
        attributes = dataset.variables[name].attrs
        if "ragged_values" in attributes:
            divided = str(attributes["ragged_values"])
            pairs.setdefault(divided, {})[which_bound(name, dataset.variables[name])] = name
            indexes[divided] = str(attributes["nwb_path"])
    return {
        divided: (indexes[divided], (pair.get("start"), pair["count"]))
        for divided, pair in pairs.items()
        if "count" in pair
        if "start" in pair or SAMPLE_DIMENSION in dataset.variables[pair["count"]].attrs
    }


def _column(
    dataset: xr.Dataset, table: ShownObject, name: str, bounds: Mapping[str, tuple[str, Pair]]
) -> ShownColumn | None:
    variable = dataset.variables[name]
    path, label = str(variable.attrs["nwb_path"]), variable.attrs.get("nwb_column")
    if label is None or "ragged_values" in variable.attrs:
        return None
    divisions = tuple(_chain(path, bounds))
    along: tuple[Hashable, ...] = (table.rows,)
    if divisions:
        if dataset.variables[divisions[0][1]].dims != along:
            return None
        # Of several variables of one column, such as the fields of a compound, all lie along its values.
        along = dataset.variables[_first(dataset, table, path)].dims[:1]
    if variable.dims[:1] != along:
        return None
    return ShownColumn(column_name(table.path, path), str(label), name, divisions)


def _first(dataset: xr.Dataset, table: ShownObject, path: str) -> str:
    attributes = {name: dataset.variables[name].attrs for name in table.variables}
    return next(
        name for name, own in attributes.items() if own["nwb_path"] == path and "ragged_values" not in own
    )


def _chain(path: str, bounds: Mapping[str, tuple[str, Pair]]) -> Iterator[Pair]:
    """The bounds of an array, outermost first: an index may be divided too."""
    if path in bounds:
        index, pair = bounds[path]
        yield from _chain(index, {divided: each for divided, each in bounds.items() if divided != path})
        yield pair


def one_label(value: object, keyword: str, meaning: str) -> Any:
    """One label; of an array without dimensions, what it holds.

    Parameters
    ----------
    value
        What a caller gives.
    keyword, meaning
        What it was given as, and what that means, for errors: ``unit``, ``the id of a unit``.

    Raises
    ------
    OptionError
        When it is no label: a list, a truth value, nothing.
    """
    found = several_labels(value, keyword, meaning) if np.ndim(_plain(value)) == 0 else []
    if len(found) != 1:
        raise _no_label(value, keyword, meaning)
    return found[0]


def several_labels(value: object, keyword: str, meaning: str) -> list[Any]:
    """Labels from one of them, or from a list or an array along one dimension.

    Parameters
    ----------
    value, keyword, meaning
        As of `one_label`.

    Raises
    ------
    OptionError
        When it is none of these. A mask is not: its truth values would pass for the labels 0 and 1.
    """
    array = _plain(value)
    labels: list[Any] = np.atleast_1d(array).tolist()
    if array.ndim > 1 or not all(_is_label(label) for label in labels):
        raise _no_label(value, keyword, meaning)
    return labels


def _plain(value: object) -> np.ndarray[Any, Any]:
    # As objects, numbers and text of one list stay what they are.
    try:
        return np.asarray(value, object)
    except (TypeError, ValueError):
        return np.empty((0, 0), object)


def _is_label(label: object) -> bool:
    return isinstance(label, Number | str | datetime | np.generic) and not isinstance(label, bool | np.bool_)


def _no_label(value: object, keyword: str, meaning: str) -> OptionError:
    return OptionError(f"{keyword}={value!r} means nothing here; it is {meaning}.")
