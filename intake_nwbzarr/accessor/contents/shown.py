"""The variables of a Dataset sorted by the neurodata object they are of, from their attributes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import xarray as xr

from intake_nwbzarr.neurodata.names import safe_name
from intake_nwbzarr.neurodata.types import ancestry, definition_of

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
