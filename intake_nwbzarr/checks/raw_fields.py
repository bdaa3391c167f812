"""Raw fields: what pynwb reads from a file, and what it omits, with the paths where they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from hdmf.common import DynamicTable, DynamicTableRegion, VectorData, VectorIndex
from hdmf.common.table import EnumData
from hdmf.container import AbstractContainer, Data
from numpy.typing import NDArray
from pynwb import NWBFile, TimeSeries
from pynwb.base import TimeSeriesReferenceVectorData

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import ChunkError, MetadataError, NodeNotFoundError
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, Node
from intake_nwbzarr.mapping.attributes import linked, paths_of

# Attributes that identify an object, compared with the node's own, and those that list a table's columns and
# categories, each of which is compared.
_IDENTITY: Final = frozenset(
    # `help` is a text of the schema, which NWB 2.0 repeated in every object.
    {"namespace", "object_id", "neurodata_type", ".specloc", "colnames", "categories", "help"}
)

# Attributes that pynwb 4.2 gives wrongly, by type and field. What the file stores is compared instead.
PYNWB_MISTAKES: Final = {
    ("IndexSeries", "unit"): "always 'N/A', set in __init__",
    ("ElectricalSeries", "unit"): "always 'volts', set in __init__",
    ("OptogeneticSeries", "unit"): "always 'watts', set in __init__",
    **{
        (name, "unit"): "always that of the schema, set in __init__"
        for name in (
            "CurrentClampSeries",
            "CurrentClampStimulusSeries",
            "VoltageClampSeries",
            "VoltageClampStimulusSeries",
        )
    },
    **{
        (name, "description"): "always its own text, set in __init__"
        for name in (
            "ElectrodesTable",
            "ExperimentalConditionsTable",
            "FrequencyBandsTable",
            "IntracellularElectrodesTable",
            "IntracellularRecordingsTable",
            "IntracellularResponsesTable",
            "IntracellularStimuliTable",
            "RepetitionsTable",
            "SequentialRecordingsTable",
            "SimultaneousRecordingsTable",
        )
    },
}

# A column of more numbers in a row is not joined to a series.
_LONGEST_JOINED = 4


@dataclass(frozen=True)
class RawField:
    """A value, and the array, group or attribute that stores it."""

    path: str  # of the object that has the field
    name: str  # as pynwb calls it
    neurodata_type: str  # of the object
    at: str  # path of the array or group that stores the value, through the links that lead there
    attribute: str | None  # that stores the value; None for the values of an array, a link or a group
    value: Any  # as pynwb gives it
    container: AbstractContainer | None = None  # that has the field; None where pynwb has no field for it
    shown_by: str = ""  # path of the object whose Dataset shows the value, where `at` is elsewhere
    is_joined: bool = False  # by a region, to the object that has the region
    is_optional: bool = False  # no finding where it is not shown


@dataclass(frozen=True)
class RawFile:
    """A file as pynwb reads it, and its hierarchy, which says where each object is stored."""

    nwbfile: NWBFile
    hierarchy: Hierarchy

    @cached_property
    def paths(self) -> Mapping[str, str]:
        """Return each object's path by its ``object_id``; the path of the link to it in another file."""
        found: dict[str, str] = {}
        nodes = list(self.hierarchy.valid_nodes())
        for node in nodes:
            _add_path(found, node, node.path)
        for node in nodes:
            for name, link in self.hierarchy.links(node.path).items() if isinstance(node, GroupNode) else ():
                if link.source != ".":
                    self._add_linked(found, join(node.path, name))
        return found

    def _add_linked(self, found: dict[str, str], path: str) -> None:
        with suppress(*UNREACHABLE):
            target = self.hierarchy.resolve(path)
            for node in target.hierarchy.valid_nodes():
                if node.path == target.path or node.path.startswith(f"{target.path}/"):
                    _add_path(found, node, path + node.path.removeprefix(target.path))

    def path(self, container: AbstractContainer) -> str | None:
        """Return the path of an object; None when it is not in this file."""
        found = self.paths.get(container.object_id)
        return self._path_without_id(container) if found is None else found

    def _path_without_id(self, container: AbstractContainer) -> str | None:
        """Return the path of an object that was written before NWB 2.1, where pynwb makes up its ID."""
        builder = self.nwbfile.read_io.manager.get_builder(container)
        path = None if builder is None else str(builder.path).partition("/")[2]
        node = None if path is None else self.hierarchy.get(path)
        return None if node is None or "object_id" in node.attributes else path

    def path_or_name(self, container: AbstractContainer) -> str:
        """Return the path of an object, or its name when it is not in this file."""
        return self.path(container) or str(container.name)

    def node(self, path: str) -> Node | None:
        """Return the group or array at a path, through links; None when there is none."""
        try:
            return self.hierarchy.resolve(path).node
        except (NodeNotFoundError, MetadataError):
            return None

    def stored_path(self, path: str) -> str:
        """Return the path of an object in the file that holds it, free of links."""
        try:
            return self.hierarchy.resolve(path).path
        except (NodeNotFoundError, MetadataError):
            return path

    def link(self, path: str) -> str | None:
        """Return a link into another file as xarray shows it; None where a path is not such a link."""
        parent, _, name = path.rpartition("/")
        links = self.hierarchy.links(parent) if isinstance(self.hierarchy.get(parent), GroupNode) else {}
        return linked(links[name]) if name in links and links[name].source != "." else None

    def neurodata_type(self, path: str) -> str:
        """Return the neurodata type at a path, empty for a group or dataset without one."""
        node = self.node(path)
        return "" if node is None else node.neurodata_type or ""

    def is_elsewhere(self, path: str) -> bool:
        """Return whether another file holds an object, to which a link leads."""
        try:
            return self.hierarchy.resolve(path).hierarchy is not self.hierarchy
        except (NodeNotFoundError, MetadataError):
            return False

    def is_stored(self, path: str, attribute: str | None) -> bool:
        """Return whether the file has a dataset, group or link at a path, or such an attribute of it."""
        node = self.node(path)
        if attribute is not None:
            return node is not None and attribute in node.attributes
        parent, _, name = path.rpartition("/")
        return node is not None or (
            isinstance(self.hierarchy.get(parent), GroupNode) and name in self.hierarchy.links(parent)
        )


def join(path: str, name: str) -> str:
    """Return the path of a member of a group; of the group itself when the name is empty."""
    return f"{path}/{name}".strip("/")


def _add_path(found: dict[str, str], node: Node, path: str) -> None:
    identifier = node.attributes.get("object_id")
    if isinstance(identifier, str):
        found.setdefault(identifier, path)


def raw_fields(raw: RawFile) -> Iterator[RawField]:
    """Yield every field of every object, then what the file stores that pynwb has no field for."""
    known: set[tuple[str, str | None]] = set()
    for container in raw.nwbfile.objects.values():
        path = raw.path(container)
        if path is None or is_region_of_object(container):
            continue
        for field in _fields_of(container, path, raw):
            known.add((field.at, field.attribute))
            if isinstance(field.container, DynamicTableRegion):
                known.add((field.at, None))
            if field.attribute not in _IDENTITY:
                yield field
    yield from _without_field(known, raw)


def is_region_of_object(container: AbstractContainer | None) -> bool:
    """Return whether a region is a field of another object, which shows it, and not a table's column."""
    return isinstance(container, DynamicTableRegion) and not isinstance(container.parent, DynamicTable)


def _fields_of(container: AbstractContainer, path: str, raw: RawFile) -> Iterator[RawField]:
    """Yield an object's fields that the file stores, and that are not None.

    pynwb adds defaults of the schema (``conversion`` 1.0, ``bias_current`` 0.0 of an IZeroClampSeries) and
    references back; neither is in the file, nor compared.
    """
    if isinstance(container, Data):
        yield from _values_of(container, path, raw)
    mapper = raw.nwbfile.read_io.manager.type_map.get_map(container)
    for name, value in container.fields.items():
        if value is None or (isinstance(container, Data) and name == "data"):
            continue
        dataset, attribute = _place(mapper.get_attr_spec(name), name)
        at = join(path, dataset)
        if not raw.is_stored(at, attribute):
            if dataset != name or not raw.is_stored(path, name):
                continue
            at, attribute = path, name
        if isinstance(container, TimeSeries) and name in {"data", "timestamps"}:
            value = getattr(container, name)  # that of another series where it is a link
        field = RawField(path, name, raw.neurodata_type(path), at, attribute, value, container)
        if isinstance(value, DynamicTableRegion) and not isinstance(container, Data | DynamicTable):
            yield from _region_fields(field, value, raw)
        elif isinstance(container, DynamicTable) and name == "columns":
            others = (column for column in value if column.parent is not container)
            for column in others:
                yield from _of_table(column, path, raw)
        elif attribute is not None and _is_mistaken(container, name):
            node = raw.node(at)
            yield replace(field, value=None if node is None else node.attributes[attribute])
        else:
            yield field


def _values_of(data: Data, path: str, raw: RawFile) -> Iterator[RawField]:
    """Yield the values of a dataset with a type; those of a table's column are the table's field."""
    if isinstance(data.parent, DynamicTable):
        yield from _of_table(data, path.rpartition("/")[0], raw)
    elif not is_region_of_object(data):
        # A dataset that is an object by itself has a Dataset, whose variable is called `data`.
        name = "data" if isinstance(data.parent, NWBFile) else data.name
        yield RawField(path, name, raw.neurodata_type(path), path, None, data.data, data)


def _of_table(column: Data, path: str, raw: RawFile) -> Iterator[RawField]:
    at, kind = raw.path(column), raw.neurodata_type(path)
    if at is not None:
        yield RawField(path, column.name, kind, at, None, column.data, column, shown_by=path)
        if isinstance(column, VectorIndex):
            # Checked before rows are cut out.
            length, name = len(column.target.data), f"{column.name}.ragged_length"
            yield RawField(path, name, kind, at, "ragged_length", length, column, shown_by=path)


def _place(spec: Any, name: str) -> tuple[str, str | None]:
    """Return the dataset and the attribute that the schema stores a field in."""
    if spec is None:
        return name, None
    parts: list[str] = []
    attribute = None
    while spec is not None and getattr(spec, "data_type_def", None) is None:
        if type(spec).__name__.endswith("AttributeSpec"):
            attribute = spec.name
        elif spec.name is not None:
            parts.insert(0, spec.name)
        spec = spec.parent
    return "/".join(parts), attribute


def _is_mistaken(container: AbstractContainer, name: str) -> bool:
    return any((kind.__name__, name) in PYNWB_MISTAKES for kind in type(container).__mro__)


@dataclass(frozen=True)
class _TableRows:
    """Rows of a table's column, read when indexed."""

    column: Any
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows.size, *np.shape(self.column)[1:])

    def __len__(self) -> int:
        return self.rows.size

    def __getitem__(self, key: Any) -> Any:
        values = self.column[:]
        if len(values) and isinstance(values[0], AbstractContainer):
            return [values[row] for row in self.rows][key]
        return np.asarray(values)[self.rows][key]


def _region_fields(field: RawField, region: DynamicTableRegion, raw: RawFile) -> Iterator[RawField]:
    """Yield a region as the object that has it shows it: ids of its rows, and the table's columns joined."""
    for own in _fields_of(region, field.at, raw):
        yield replace(own, container=region)
    table, ids = region.table, None if region.table is None else raw.path(region.table.id)
    try:
        stored = np.atleast_1d(np.asarray(region.data[:]))
        is_row = np.isin(stored, np.arange(stored.size if table is None else len(table.id)))
        if table is not None and not (stored.dtype.kind in "iuf" and np.all(is_row)):
            raise ChunkError(
                f"{field.at!r} has numbers that are not rows of a table of {len(table.id)}.",
                path=field.at,
                expected=len(table.id),
            )
    except ChunkError as error:
        yield replace(field, value=error)
        return
    if table is None or ids is None or stored.ndim != 1:
        yield replace(field, value=stored, container=None)
        return
    rows = stored.astype(np.int64)
    joined = replace(field, shown_by=field.path, is_joined=True)
    yield replace(joined, at=ids, value=_TableRows(table.id.data, rows), container=None)
    for column in filter(_is_plain, map(table.__getitem__, table.colnames)):
        at, name = raw.path(column), f"{field.name}.{column.name}"
        if at is not None:
            yield replace(joined, name=name, at=at, value=_TableRows(column.data, rows), container=column)
            for own in _fields_of(column, at, raw):
                if own.attribute is not None:
                    yield replace(
                        own,
                        path=field.path,
                        name=f"{name}.{own.name}",
                        neurodata_type=field.neurodata_type,
                        shown_by=field.path,
                        is_optional=True,
                    )


def _is_plain(column: VectorData) -> bool:
    compound = getattr(getattr(column.data, "dtype", None), "names", None)
    apart = isinstance(column, VectorIndex | DynamicTableRegion | TimeSeriesReferenceVectorData)
    shape = np.shape(column.data)
    return (
        not apart and not compound and len(shape) <= 2 and all(size <= _LONGEST_JOINED for size in shape[1:])
    )


@dataclass(frozen=True)
class _Lazy:
    """A stored array that is read by indexing, as pynwb's are; object references as paths."""

    array: StoredArray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return self.array.chunks

    def __getitem__(self, key: Any) -> NDArray[Any]:
        values = self.array.read(() if key is ... else key)
        return paths_of(values) if self.array.node.is_reference else values


def _without_field(known: set[tuple[str, str | None]], raw: RawFile) -> Iterator[RawField]:
    """Yield stored arrays, attributes and links that pynwb has no field for."""
    schemas = raw.hierarchy.specifications
    inside = {
        node.path for node in raw.hierarchy.valid_nodes() if not f"{node.path}/".startswith(f"{schemas}/")
    }
    read = {raw.path(container) for container in raw.nwbfile.objects.values()}
    for path in sorted(inside | {path for path in read if path is not None}):
        node = raw.node(path)
        if node is None:
            continue
        if isinstance(node, GroupNode) and path in raw.hierarchy:
            for name, link in raw.hierarchy.links(path).items():
                if (join(path, name), None) not in known:
                    # What a link of a container leads to is shown where it is stored.
                    kind, at = raw.neurodata_type(path), join(path, name)
                    yield RawField(path, name, kind, at, None, linked(link), shown_by=path, is_optional=True)
        holder, _, name = path.rpartition("/")
        is_part = isinstance(node, ArrayNode) and node.neurodata_type is None
        kind = raw.neurodata_type(holder if is_part else path)
        for attribute, value in node.attributes.items():
            if (path, attribute) not in known and attribute not in _IDENTITY and attribute[:1] != "_":
                label = f"{name}.{attribute}" if is_part else attribute
                yield RawField(holder if is_part else path, label, kind, path, attribute, _followed(value))
        if isinstance(node, ArrayNode) and (path, None) not in known:
            hierarchy = raw.hierarchy.resolve(path).hierarchy
            array = StoredArray(hierarchy.file, node)
            yield RawField(holder, name, raw.neurodata_type(holder), path, None, _Lazy(array))


def _followed(value: Any) -> Any:
    """Return an object reference as the path it leads to."""
    if isinstance(value, Mapping) and set(value) == {"_REFERENCE"}:
        return str(value["_REFERENCE"].get("path", "")).strip("/")
    return value


def enumerated_columns(raw: RawFile) -> dict[str, str]:
    """Return the path of each EnumData column by the path of the dataset that holds its elements."""
    columns = (each for each in raw.nwbfile.objects.values() if isinstance(each, EnumData))
    return {raw.path_or_name(column.elements): raw.path_or_name(column) for column in columns}
