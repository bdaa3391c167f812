"""The columns of a DynamicTable, and which index and elements belong to them."""

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

# What one row is called, by the table's type where that says it, else by its name.
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
    """One column: its name, its values, and what divides these into rows.

    Parameters
    ----------
    name
        As in ``colnames``.
    values
        The dataset of that name.
    indexes
        Its VectorIndexes, from the one with an entry for each row of the table inwards: none for a plain
        column, one for a ragged, two for a doubly ragged.
    """

    name: str
    values: Target
    indexes: tuple[Target, ...] = ()


@dataclass(frozen=True)
class Table:
    """What the metadata say about a table.

    Parameters
    ----------
    hierarchy
        The file that holds it.
    path
        The table.
    columns
        In the order of ``colnames``; columns of the type that it leaves out follow.
    rows
        The row dimension.
    ids
        The row identifiers, None in a table that has none.
    prefix
        What the names of its variables start with: empty, or the name of a category of an aligned table.
    unmapped
        Paths of its datasets that are left out, for they are damaged.
    """

    hierarchy: Hierarchy
    path: str
    columns: tuple[Column, ...]
    rows: Dimension
    ids: StoredArray | None
    prefix: str = ""
    unmapped: tuple[str, ...] = ()

    def is_of(self, *ancestors: str) -> bool:
        """Whether the table is of one of these types, or of one that extends it."""
        node = self.hierarchy[self.path]
        return any(is_a(self.hierarchy, node, ancestor) for ancestor in ancestors)

    @property
    def has_electrodes(self) -> bool:
        """Whether the rows are electrodes; before NWB 2.8 only the table's place said so."""
        return self.path == ELECTRODES or self.is_of("ElectrodesTable")

    def dimension(self, name: str, size: int, identity: Hashable) -> Dimension:
        """A dimension of the table's own, beside its rows; its name gives way to columns of that name."""
        return Dimension(
            identity=identity,
            name=f"{self.prefix}{name}",
            flat_name=f"{self.rows.flat_name}_{self.prefix}{name}",
            size=size,
            owner=self.rows.owner,
        )

    def derived(self, name: str) -> str:
        """A name for what is made from a column, with an underscore more where a column has it already."""
        while any(name == column.name for column in self.columns):
            name += "_"
        return f"{self.prefix}{name}"


def table_layout(hierarchy: Hierarchy, path: str) -> Table:
    """Lay out a DynamicTable.

    Parameters
    ----------
    hierarchy
        The file.
    path
        The table: a group that is a DynamicTable, or has ``colnames``.

    Warns
    -----
    MappingWarning
        When ``colnames`` names a column that is not in the file, or a dataset is damaged: it is left out.
    """
    unmapped: list[str] = []
    arrays = dict(_arrays(hierarchy, path, unmapped))
    columns = tuple(_columns(hierarchy, path, arrays, unmapped))
    ids = arrays.get("id")
    if ids is not None and (reason := no_ids(array_node(ids))):
        _leave_out(ids, reason, unmapped)
        ids = None
    size = _row_count(ids, columns)
    rows = Dimension(
        identity=("table", *place(Target(hierarchy, path))),
        name=_row_name(hierarchy, path, {column.name for column in columns}),
        flat_name=path.rpartition("/")[2],
        size=size,
        owner=path,
        is_rows=True,
    )
    unread = None if ids is None else stored_at(ids)
    return Table(hierarchy, path, columns, rows, unread, unmapped=tuple(dict.fromkeys(unmapped)))


def category_layouts(table: Table) -> Iterator[Table]:
    """The tables that are an aligned table's categories, laid out on its rows.

    Warns
    -----
    MappingWarning
        When a category is not in the file, or has another number of rows.
    """
    members = _by_trimmed_name(table.hierarchy, table.path)
    for name in as_names(table.hierarchy[table.path].attributes.get("categories")):
        try:
            target = table.hierarchy.resolve(f"{table.path}/{members.get(name, name)}")
        except UNREACHABLE:
            warn_caller(
                f"The table {table.path!r} in {table.hierarchy.location} lists a category {name!r} that is "
                "not in the file; it is left out."
            )
            continue
        category = table_layout(target.hierarchy, target.path)
        if category.rows.size == table.rows.size:
            rows = table.rows
        else:
            warn_caller(
                f"The category {name!r} of the table {table.path!r} in {table.hierarchy.location} has "
                f"{category.rows.size} rows, the table {table.rows.size}: it is shown on rows of its own."
            )
            rows = table.dimension(f"{name}_row", category.rows.size, category.rows.identity)
        yield replace(category, rows=rows, prefix=f"{name}_")


def place(target: Target) -> tuple[str, str]:
    """What identifies an object among those of several files."""
    return (str(target.hierarchy.location), target.path)


def stored_at(target: Target) -> StoredArray:
    """The array that a target is."""
    return stored(target.hierarchy, array_node(target))


def array_node(target: Target) -> ArrayNode:
    """A target's node, which is known to be an array."""
    node = target.node
    if not isinstance(node, ArrayNode):
        raise NodeNotFoundError(
            f"{target.path!r} in {target.hierarchy.location} is a group; an array was expected there."
        )
    return node


def reference_of(target: Target, attribute: str) -> Target | None:
    """Where an object's attribute refers to, None where it does not or leads nowhere."""
    value = target.node.attributes.get(attribute)
    if not isinstance(value, str | Mapping):
        return None
    try:
        return target.hierarchy.reference(value)
    except UNREACHABLE:
        return None


def as_names(value: object) -> tuple[str, ...]:
    """An attribute that holds names: a list of them, or one alone; without what pads them to one length."""
    match value:
        case None:
            return ()
        case list() | tuple():
            return tuple(trimmed(str(name)) for name in value)
        case _:
            return (trimmed(str(value)),)


def _by_trimmed_name(hierarchy: Hierarchy, path: str) -> dict[str, str]:
    """What is in a group, by names without padding."""
    return {trimmed(name): name for name in hierarchy.members(path)}


def _arrays(hierarchy: Hierarchy, path: str, unmapped: list[str]) -> Iterator[tuple[str, Target]]:
    """The arrays in a group by name, links to arrays included."""
    links = hierarchy.links(path)
    for name, member in _by_trimmed_name(hierarchy, path).items():
        try:
            target = hierarchy.resolve(f"{path}/{member}")
            node = target.node
            if isinstance(node, ArrayNode):
                stored_at(target).dtype  # noqa: B018 - an error where it is not known
                yield name, target
        except UNREACHABLE as error:
            # A link that leads nowhere, or not where allowed, is a missing column: `_columns` says so.
            if member not in links:
                _leave_out(Target(hierarchy, f"{path}/{member}"), str(error), unmapped)


def _leave_out(target: Target, reason: str, unmapped: list[str]) -> None:
    unmapped.append(target.path)
    warn_caller(f"{target.path!r} in {target.hierarchy.location} is left out. {reason}")


def no_ids(node: ArrayNode) -> str:
    """Why a dataset cannot hold the identifiers of rows; empty where it can."""
    if node.ndim == 1 and node.dtype.kind not in "VcmM":
        return ""
    return f"It is of {node.dtype} and shape {node.shape}, where one id for each row was expected."


def _no_index(node: ArrayNode) -> str:
    """Why a dataset cannot divide others into rows; empty where it can."""
    if node.ndim == 1 and node.dtype.kind in "iu":
        return ""
    return (
        f"Its index {node.path!r} is of {node.dtype} and shape {node.shape}, where one whole number for each "
        "row was expected."
    )


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
                continue  # as has been said
            warn_caller(
                f"The table {path!r} in {hierarchy.location} lists a column {name!r} that is not in the "
                "file, or is a link that cannot be followed; it is left out."
            )
            continue
        indexes: list[Target] = []
        level = name
        while level in index_of and len(indexes) < len(arrays):
            level = index_of[level]
            indexes.insert(0, arrays[level])
        reasons = [_no_index(array_node(index)) for index in indexes]
        if indexes and array_node(arrays[name]).ndim == 0:
            reasons.append("It is a single value, and yet has an index.")
        if reason := next(filter(None, reasons), ""):
            _leave_out(arrays[name], reason, unmapped)
            continue
        yield Column(name, arrays[name], tuple(indexes))


def _indexes(arrays: dict[str, Target]) -> Iterator[tuple[str, str]]:
    """What each VectorIndex divides: the dataset's name and the index's."""
    names: dict[str | None, str] = {target.path: name for name, target in arrays.items()}
    for name, target in arrays.items():
        if target.node.neurodata_type is None or not is_a(target.hierarchy, target.node, "VectorIndex"):
            continue
        divided = names.get(_path(reference_of(target, "target")))
        # The schema expects the index to be named for what it divides: that serves where no reference does.
        divided = divided or name.removesuffix("_index")
        if divided in arrays and divided != name:
            yield divided, name


def _elements(arrays: dict[str, Target]) -> Iterator[str]:
    """The datasets that hold the elements of EnumData columns, which are no columns themselves."""
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
    """The name of the rows' dimension, which gives way to columns: real tables of trials have a ``trial``."""
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
