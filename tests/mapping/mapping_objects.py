"""What opened example objects show: rows of names, dimensions, types and units, as a page can print them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import xarray as xr

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.indexes import LazyTimeIndex
from intake_nwbzarr.mapping.attributes import OF_WHOM, SUBJECT
from intake_nwbzarr.mapping.find import Kind, kind_of
from intake_nwbzarr.mapping.schema import ancestry
from tests.mapping.schema_words import Words, defined_datasets

# What every object says of itself and its session: the page's introduction explains it once.
_EVERYWHERE = {
    "neurodata_type",
    "nwb_path",
    "nwb_object",
    "nwb_role",
    "nwb_column",
    "nwb_table",
    "nwb_core_type",
    "nwb_group",
    "nwb_location",
    "nwb_version",
    "session_start_time",
    "timestamps_reference_time",
    "identifier",
    *OF_WHOM,
}

# Of ragged columns, and of references to samples.
_BOUNDS = ("_start", "_count")

_SHOWN_AS = {
    Kind.SERIES: "time series",
    Kind.TABLE: "table",
    Kind.IMAGES: "images",
    Kind.ARRAY: "array",
}


@dataclass(frozen=True)
class Row:
    """Variables of one kind that have their dimensions, type and units in common.

    Parameters
    ----------
    kind
        ``time index``, ``labels``, ``coordinate``, ``variable``; ``own coordinate`` and ``own column`` where
        the schema does not name them.
    names
        In the Dataset's order.
    dims, dtype, units
        Of each of them.
    """

    kind: str
    names: tuple[str, ...]
    dims: tuple[str, ...]
    dtype: str
    units: str


@dataclass(frozen=True)
class Example:
    """One object of an example session, opened as a reader would open it.

    Parameters
    ----------
    session
        The file.
    path
        The object, empty for the whole session.
    words
        Of the schema.
    """

    session: "Session"
    path: str
    words: Mapping[str, Words]

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The object alone."""
        return xr.open_dataset(self.session.path, engine="nwbzarr", group=self.path or None)

    @property
    def neurodata_type(self) -> str:
        """Of the object."""
        return self.session.hierarchy[self.path].neurodata_type or ""

    def shown_as(self) -> str:
        """What becomes of the object, in few words."""
        if not self.path:
            return "the session"
        hierarchy = self.session.hierarchy
        kind = kind_of(hierarchy, hierarchy[self.path])
        if kind in _SHOWN_AS:
            return _SHOWN_AS[kind]
        if self.session.own_variables[self.path]:
            return "arrays"
        return "container" if self.dataset.variables else "attributes"

    def holds(self) -> list[str]:
        """The types of the objects directly within."""
        hierarchy = self.session.hierarchy
        children = (hierarchy[f"{self.path}/{name}"] for name in hierarchy.children(self.path))
        return sorted({child.neurodata_type for child in children if child.neurodata_type is not None})

    def rows(self, neurodata_type: str | None = None) -> list[Row]:
        """What the Dataset holds, or only what is made of objects of a type, in few rows."""
        if not self.path:
            return []
        paths = None if neurodata_type is None else self.session.paths_of(neurodata_type)
        found: dict[tuple[str, tuple[str, ...], str, str], list[str]] = {}
        for name, variable in self._variables():
            if paths is not None and not any(_is_within(variable, path) for path in paths):
                continue
            dims = tuple(str(dim) for dim in variable.dims)
            units = str(variable.attrs.get("units", ""))
            found.setdefault((self._kind(name), dims, str(variable.dtype), units), []).append(name)
        return [Row(kind, tuple(names), *rest) for (kind, *rest), names in found.items()]  # type: ignore[arg-type]

    def attributes(self) -> list[str]:
        """The names of the Dataset's attributes, but for those that every Dataset has."""
        if not self.path:
            # Metadata of what the session holds have a dotted path, and are its own rows'.
            return [name for name in map(str, self.dataset.attrs) if "." not in name]
        everywhere = _EVERYWHERE - ({"subject_id"} if self.path == SUBJECT else set())
        here = [name for name in map(str, self.dataset.attrs) if name not in everywhere]
        return [name for name in here if name not in self.data_attributes() and "." not in name]

    def data_attributes(self) -> list[str]:
        """The names of the attributes of ``data``, where the object has such a variable."""
        data = self.dataset.data_vars.get("data")
        # Units are in the rows.
        known = _EVERYWHERE | {"units"}
        return [] if data is None else [str(name) for name in data.attrs if name not in known]

    def flat(self) -> str | None:
        """The name in the whole session's Dataset of one of the object's variables, or of an attribute."""
        flat = self.session.flat
        # A coordinate is the object's where it has variables: those of an imaging plane are its images'.
        shown = [*flat.data_vars, *(flat.coords if self.session.own_variables[self.path] else ())]
        names = [str(name) for name in shown if _is_within(flat.variables[name], self.path)]
        # What the schema names says more than what the example adds to it.
        names.sort(key=lambda name: self._is_own_column(flat.variables[name]) or name.endswith(_BOUNDS))
        if names:
            return names[0]
        place = self.path.replace("/", ".") + "."
        own = (str(key) for key in flat.attrs if str(key).startswith(place))
        return next((key for key in own if not key.endswith(".neurodata_type")), None)

    def _variables(self) -> Iterator[tuple[str, xr.Variable]]:
        """Indexes first, then coordinates, then variables, each in the Dataset's order."""
        variables, indexes = self.dataset.variables, self.dataset.xindexes
        names = [str(name) for name in variables]
        order = sorted(names, key=lambda name: (name not in indexes, name not in self.dataset.coords))
        return ((name, variables[name]) for name in order)

    def _kind(self, name: str) -> str:
        if name in self.dataset.xindexes:
            return "time index" if isinstance(self.dataset.xindexes[name], LazyTimeIndex) else "labels"
        kind = "coordinate" if name in self.dataset.coords else "variable"
        own = "own coordinate" if kind == "coordinate" else "own column"
        return own if self._is_own_column(self.dataset.variables[name]) else kind

    def _is_own_column(self, variable: xr.Variable) -> bool:
        """Whether a variable is a column that the schema does not name."""
        path = str(variable.attrs.get("nwb_path", ""))
        node = self.session.hierarchy.get(path)
        parent, _, column = path.rpartition("/")
        if not isinstance(node, ArrayNode) or "VectorData" not in ancestry(node.neurodata_type or ""):
            return False
        while column.endswith("_index"):
            column = column.removesuffix("_index")
        table = self.session.hierarchy[parent].neurodata_type or ""
        return column not in defined_datasets(self.words, table)


def _is_within(variable: xr.Variable, path: str) -> bool:
    made_of = str(variable.attrs.get("nwb_path", ""))
    return made_of == path or made_of.startswith(f"{path}/")


@dataclass(frozen=True)
class Session:
    """One example session.

    Parameters
    ----------
    path
        The file.
    """

    path: Path

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """Its objects by path."""
        return open_hierarchy(self.path)

    @cached_property
    def flat(self) -> xr.Dataset:
        """The whole of it."""
        return xr.open_dataset(self.path, engine="nwbzarr")

    @cached_property
    def own_variables(self) -> dict[str, bool]:
        """Whether an object itself has variables, beside those of what it holds."""
        groups = xr.open_groups(self.path, engine="nwbzarr").values()
        return {
            group.attrs["nwb_path"]: bool(group.variables) for group in groups if "nwb_path" in group.attrs
        }

    @cached_property
    def by_type(self) -> dict[str, list[str]]:
        """The paths of its objects by type."""
        found: dict[str, list[str]] = {}
        for path in self.hierarchy:
            node = self.hierarchy[path]
            if node.neurodata_type is not None and not path.startswith(self.hierarchy.specifications):
                found.setdefault(node.neurodata_type, []).append(path)
        return found

    def paths_of(self, neurodata_type: str) -> list[str]:
        """The paths of its objects of one type."""
        return self.by_type.get(neurodata_type, [])


def find_example(sessions: Iterable[Session], path: str, words: Mapping[str, Words]) -> Example:
    """The object at a path, in the first of some sessions that has one."""
    for session in sessions:
        if path in session.hierarchy:
            return Example(session, path, words)
    raise LookupError(f"No example session holds {path!r}.")
