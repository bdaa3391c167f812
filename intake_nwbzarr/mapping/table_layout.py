"""The layout of a DynamicTable: its columns, and the indexes and elements that belong to them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import NodeNotFoundError, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy, Target
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, trimmed
from intake_nwbzarr.mapping.model import Dimension, stored
from intake_nwbzarr.mapping.schema import is_a

ELECTRODES = "general/extracellular_ephys/electrodes"

# The dimension of a table's rows, by its type or else by its name.
_ROW_OF_TYPE = {
    "Units": "unit",
    "ElectrodesTable": "electrode",
    "PlaneSegmentation": "roi",
    "FrequencyBandsTable": "band",
    "EventsTable": "event",
    "IntracellularRecordingsTable": "recording",
}
_ROW_OF_NAME = {"trials": "trial", "epochs": "epoch", "units": "unit", "electrodes": "electrode"}


@dataclass(frozen=True)
class Column:
    """One column: its values, and the indexes that divide them into rows."""

    name: str  # as in colnames
    values: Target
    # VectorIndexes, outermost (one entry per row) first: none for a plain column, one if ragged, two if
    # doubly ragged
    indexes: tuple[Target, ...] = ()


@dataclass(frozen=True)
class Table:
    """The layout of a table, from metadata alone."""

    hierarchy: Hierarchy
    path: str
    columns: tuple[Column, ...]  # in the order of colnames, then columns that are not listed
    rows: Dimension  # the dimension of the rows
    ids: StoredArray | None  # None if the table has none
    prefix: str = ""  # of variables' names: empty, or for a category of an aligned table its name
    unmapped: tuple[str, ...] = ()  # paths of damaged datasets, which are skipped

    def is_of(self, *ancestors: str) -> bool:
        """Return whether the table is of one of these types, or of a subtype."""
        node = self.hierarchy[self.path]
        return any(is_a(self.hierarchy, node, ancestor) for ancestor in ancestors)

    @property
    def has_electrodes(self) -> bool:
        """Return whether the rows are electrodes; before NWB 2.8 only the table's path tells."""
        return self.path == ELECTRODES or self.is_of("ElectrodesTable")

    def dimension(self, name: str, size: int, identity: Hashable) -> Dimension:
        """Return a dimension of the table other than its rows."""
        return Dimension(
            identity=identity,
            name=f"{self.prefix}{name}",
            flat_name=f"{self.rows.flat_name}_{self.prefix}{name}",
            size=size,
            owner=self.rows.owner,
        )

    def variable_name(self, name: str) -> str:
        """Return the name of a variable made from a column, with underscores if a column has it."""
        while any(name == column.name for column in self.columns):
            name += "_"
        return f"{self.prefix}{name}"


def table_layout(hierarchy: Hierarchy, path: str) -> Table:
    """Return the layout of a DynamicTable, or of a group with ``colnames``."""
    unmapped: list[str] = []
    arrays = dict(_arrays(hierarchy, path, unmapped))
    columns = tuple(_columns(hierarchy, path, arrays, unmapped))
    ids = arrays.get("id")
    if ids is not None and (reason := no_ids(array_node(ids))):
        _skip(ids, reason, unmapped)
        ids = None
    size = _row_count(ids, columns)
    rows = Dimension(
        identity=("table", *object_key(Target(hierarchy, path))),
        name=_row_name(hierarchy, path, {column.name for column in columns}),
        flat_name=path.rpartition("/")[2],
        size=size,
        owner=path,
        is_rows=True,
    )
    unread = None if ids is None else stored_at(ids)
    return Table(hierarchy, path, columns, rows, unread, unmapped=tuple(dict.fromkeys(unmapped)))


def category_layouts(table: Table) -> Iterator[Table]:
    """Yield the layouts of an aligned table's categories, on its rows."""
    members = _by_trimmed_name(table.hierarchy, table.path)
    for name in as_names(table.hierarchy[table.path].attributes.get("categories")):
        try:
            target = table.hierarchy.resolve(f"{table.path}/{members.get(name, name)}")
        except UNREACHABLE:
            warn_caller(
                f"The table {table.path!r} in {table.hierarchy.location} lists a category {name!r} that is "
                "not in the file, and is skipped.",
                code="missing-column",
                path=table.path,
            )
            continue
        category = table_layout(target.hierarchy, target.path)
        if category.rows.size == table.rows.size:
            rows = table.rows
        else:
            warn_caller(
                f"The category {name!r} of the table {table.path!r} in {table.hierarchy.location} has "
                f"{category.rows.size} rows, the table {table.rows.size}: it has a dimension of its own.",
                code="column-length",
                path=table.path,
            )
            rows = table.dimension(f"{name}_row", category.rows.size, category.rows.identity)
        yield replace(category, rows=rows, prefix=f"{name}_")


def object_key(target: Target) -> tuple[str, str]:
    """Return the location and path of an object, which identify it among several files."""
    return (str(target.hierarchy.location), target.path)


def stored_at(target: Target) -> StoredArray:
    """Return the stored array of a target."""
    return stored(target.hierarchy, array_node(target))


def array_node(target: Target) -> ArrayNode:
    """Return a target's node, which must be an array."""
    node = target.node
    if not isinstance(node, ArrayNode):
        raise NodeNotFoundError(
            f"{target.path!r} in {target.hierarchy.location} is a group; expected an array.",
            location=target.hierarchy.location,
            path=target.path,
            found="group",
            expected="array",
        )
    return node


def reference_of(target: Target, attribute: str) -> Target | None:
    """Return the target of an object's attribute that is a reference; None if it cannot be resolved."""
    value = target.node.attributes.get(attribute)
    if not isinstance(value, str | Mapping):
        return None
    try:
        return target.hierarchy.reference(value)
    except UNREACHABLE:
        return None


def as_names(value: object) -> tuple[str, ...]:
    """Return the names in an attribute, a list or a single one, without padding to equal length."""
    match value:
        case None:
            return ()
        case list() | tuple():
            return tuple(trimmed(str(name)) for name in value)
        case _:
            return (trimmed(str(value)),)


def _by_trimmed_name(hierarchy: Hierarchy, path: str) -> dict[str, str]:
    """Return the members of a group by their names without padding."""
    return {trimmed(name): name for name in hierarchy.members(path)}


def _arrays(hierarchy: Hierarchy, path: str, unmapped: list[str]) -> Iterator[tuple[str, Target]]:
    """Yield the arrays in a group by name, also linked ones."""
    links = hierarchy.links(path)
    for name, member in _by_trimmed_name(hierarchy, path).items():
        try:
            target = hierarchy.resolve(f"{path}/{member}")
            node = target.node
            if isinstance(node, ArrayNode):
                stored_at(target).dtype  # noqa: B018 - raises for an unknown dtype
                yield name, target
        except UNREACHABLE as error:
            # A link that cannot be followed is a missing column, about which `_columns` warns.
            if member not in links:
                _skip(Target(hierarchy, f"{path}/{member}"), str(error), unmapped)


def _skip(target: Target, reason: str, unmapped: list[str]) -> None:
    unmapped.append(target.path)
    warn_caller(
        f"{target.path!r} in {target.hierarchy.location} is skipped. {reason}",
        code="damaged-object",
        path=target.path,
    )


def no_ids(node: ArrayNode) -> str:
    """Return why a dataset cannot hold the ids of rows; empty if it can."""
    if node.ndim == 1 and node.dtype.kind not in "VcmM":
        return ""
    return f"It is of {node.dtype} and shape {node.shape}; expected one id for each row."


def _no_index(node: ArrayNode) -> str:
    """Return why a dataset cannot divide others into rows; empty if it can."""
    if node.ndim == 1 and node.dtype.kind in "iu":
        return ""
    return f"Its index {node.path!r} is of {node.dtype} and shape {node.shape}; expected one integer per row."


def _columns(
    hierarchy: Hierarchy, path: str, arrays: dict[str, Target], unmapped: list[str]
) -> Iterator[Column]:
    index_of = dict(_indexes(arrays))
    hidden = {"id", *index_of.values(), *_elements(arrays)}
    listed = as_names(hierarchy[path].attributes.get("colnames"))
    for name in dict.fromkeys((*listed, *arrays)):
        if name in hidden:
            continue
        if name not in arrays:
            if f"{path}/{name}" in unmapped:
                continue  # after a warning
            warn_caller(
                f"The table {path!r} in {hierarchy.location} lists a column {name!r} that is not in the "
                "file, or is a link that cannot be followed; it is skipped.",
                code="missing-column",
                path=path,
            )
            continue
        indexes: list[Target] = []
        level = name
        while level in index_of and len(indexes) < len(arrays):
            level = index_of[level]
            indexes.insert(0, arrays[level])
        reasons = [_no_index(array_node(index)) for index in indexes]
        if indexes and array_node(arrays[name]).ndim == 0:
            reasons.append("It is a scalar with an index.")
        if reason := next(filter(None, reasons), ""):
            _skip(arrays[name], reason, unmapped)
            continue
        yield Column(name, arrays[name], tuple(indexes))


def _indexes(arrays: dict[str, Target]) -> Iterator[tuple[str, str]]:
    """Yield the dataset that each VectorIndex divides, and the index, by name."""
    names: dict[str | None, str] = {target.path: name for name, target in arrays.items()}
    for name, target in arrays.items():
        if target.node.neurodata_type is None or not is_a(target.hierarchy, target.node, "VectorIndex"):
            continue
        divided = names.get(_path(reference_of(target, "target")))
        # By the schema the index is named after what it divides, which is used where the reference is
        # missing.
        divided = divided or name.removesuffix("_index")
        if divided in arrays and divided != name:
            yield divided, name


def _elements(arrays: dict[str, Target]) -> Iterator[str]:
    """Yield the datasets with the elements of EnumData columns, which are not columns themselves."""
    names: dict[str | None, str] = {target.path: name for name, target in arrays.items()}
    for target in arrays.values():
        if target.node.neurodata_type is not None and is_a(target.hierarchy, target.node, "EnumData"):
            name = names.get(_path(reference_of(target, "elements")))
            if name is not None:
                yield name


def _path(target: Target | None) -> str | None:
    return None if target is None else target.path


def _row_count(ids: Target | None, columns: tuple[Column, ...]) -> int:
    outermost = [(*column.indexes, column.values)[0] for column in columns]
    for target in (ids, *outermost):
        if target is not None and array_node(target).ndim > 0:
            return array_node(target).shape[0]
    return 0


def _row_name(hierarchy: Hierarchy, path: str, taken: Collection[str]) -> str:
    """Return the name of the rows' dimension, which differs from all columns: trials may have a ``trial``."""
    singular = _singular(hierarchy, path)
    name = "row" if singular in taken else singular
    while name in taken:
        name += "_"
    return name


def _singular(hierarchy: Hierarchy, path: str) -> str:
    node = hierarchy[path]
    for ancestor, singular in _ROW_OF_TYPE.items():
        if isinstance(node, GroupNode) and is_a(hierarchy, node, ancestor):
            return singular
    known = path.startswith("intervals/") or path in {"units", ELECTRODES}
    return _ROW_OF_NAME.get(path.rpartition("/")[2], "row") if known else "row"
