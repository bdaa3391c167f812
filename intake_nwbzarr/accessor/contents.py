"""The neurodata objects that a Dataset has, with their variables and columns."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Number
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.ragged import SAMPLE_DIMENSION, Pair, bound_pairs
from intake_nwbzarr.accessor.roles import roles
from intake_nwbzarr.arguments import invalid_argument
from intake_nwbzarr.errors import NodeNotFoundError, OptionError, SelectionError, did_you_mean
from intake_nwbzarr.mapping.schema import ancestry

type Kind = Literal["series", "table", "other"]

INTERVAL: Final = ("start_time", "stop_time")
"""The columns of a table of intervals."""

ROW_TIMES: Final = ("start_time", "timestamp")
"""The columns that say when a row of a table was."""


@dataclass(frozen=True)
class ShownObject:
    """A neurodata object, as one Dataset shows it."""

    path: str  # in the file
    kind: Kind  # series are whatever has times of its own, tables are dynamic tables of every type
    # What the Dataset calls it: of a series its data's variable, of a table what its columns' names began
    # with when opened; in the Dataset of one object, the object's own name.
    name: str
    neurodata_type: str | None  # None for a table whose attributes the Dataset has lost
    variables: tuple[str, ...]  # and coordinates, in the Dataset's order
    main: str | None = None  # of a series: the variable with its data, None where that is not in the Dataset
    # Of a table: the dimension of its rows; None where one row was selected as a scalar.
    rows: str | None = None
    core_type: str | None = None  # the core type that the type of an extension extends

    def is_a(self, ancestor: str) -> bool:
        """Return whether the object is of a type of the core schema, or of one that extends it."""
        known = self.core_type or self.neurodata_type
        return known is not None and ancestor in ancestry(known)


def shown_objects(dataset: xr.Dataset) -> list[ShownObject]:
    """List the neurodata objects of a Dataset in the order of their first variables, reading nothing.

    Columns of a table that are only joined to another object, as the electrodes' are to an ElectricalSeries,
    do not make that table one of the objects.
    """
    said = roles(dataset.variables)
    members: dict[str, dict[str, Mapping[Any, Any]]] = {}
    for name, own in said.items():
        if "nwb_path" in own:
            members.setdefault(str(own.get("nwb_object", own["nwb_path"])), {})[name] = own
    tables = {path for path, named in members.items() if any("nwb_column" in own for own in named.values())}
    divided = {own["ragged_values"] for own in said.values() if "ragged_values" in own}
    shown = [
        _table(dataset, path, named, divided) if path in tables else _object(dataset, path, named)
        for path, named in members.items()
    ]
    return [each for each in shown if each is not None]


def _object(dataset: xr.Dataset, path: str, named: Mapping[str, Mapping[Any, Any]]) -> ShownObject | None:
    """Return a series or an object of another type; None of one that has only a time that others share."""
    main = next((name for name, own in named.items() if own.get("nwb_role") == "data"), None)
    if main is None and all(name in dataset.coords for name in named):
        dims = {dim for name in named for dim in dataset.variables[name].dims}
        for name, variable in dataset.variables.items():
            if name not in named and "nwb_path" in variable.attrs and not dims.isdisjoint(variable.dims):
                return None
    own = named[main or next(iter(named))]
    alone = main is None or dataset.attrs.get("nwb_path") == path
    timed = any(each.get("nwb_role") == "time" for each in named.values())
    kind: Kind = "series" if timed or is_of(own, "TimeSeries") else "other"
    name = path.rpartition("/")[2] if alone else str(main)
    core = own.get("nwb_core_type")
    return ShownObject(path, kind, name, str(own.get("neurodata_type")), tuple(named), main, core_type=core)


def _table(
    dataset: xr.Dataset, path: str, named: Mapping[str, Mapping[Any, Any]], divided: set[Any]
) -> ShownObject | None:
    """Return a table; None where its columns are only joined to something else."""
    along = [name for name, own in named.items() if "nwb_table" in own]
    variables = tuple(
        name
        for name, own in named.items()
        if name in along or own["nwb_path"] in divided or name not in dataset.coords
    )
    if not variables:
        return None
    # What lies along further dimensions may have been transposed.
    first = min(along, key=lambda name: dataset.variables[name].ndim, default=None)
    dims = dataset.variables[variables[0] if first is None else first].dims
    rows = str(dims[0]) if dims else None
    name = path.rpartition("/")[2] if first is None else str(named[first]["nwb_table"])
    own = attributes_of(dataset, path)
    kind, core = own.get("neurodata_type"), own.get("nwb_core_type")
    return ShownObject(path, "table", name, kind, variables, rows=rows, core_type=core)


def is_of(attributes: Mapping[Any, Any], ancestor: str) -> bool:
    """Return whether a variable's attributes say a core type, or one that extends it."""
    return ancestor in ancestry(str(attributes.get("nwb_core_type", attributes.get("neurodata_type"))))


def attributes_of(dataset: xr.Dataset, path: str) -> dict[str, Any]:
    """Return the attributes of an object that no one variable carries, such as a table."""
    # Those of the object that a Dataset is of are its own; in a flat Dataset they begin with the object's
    # path, with dots for slashes.
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


def find_object(
    dataset: xr.Dataset, name: str | None, kinds: Iterable[ShownObject], what: str
) -> ShownObject:
    """Return the one of `kinds` that a caller means by a name or path; None means the only one."""
    candidates = list(kinds)
    if not isinstance(name, str | None):
        raise invalid_argument("name", name, f"the name or path of one of the {what}")
    view = f"this view of {dataset.attrs.get('nwb_location', 'a session')}"
    if not candidates:
        raise NodeNotFoundError(
            f"There are no {what} in {view}.",
            found=name,
            next_step="ds.nwb.describe() lists the objects of a Dataset.",
        )
    found = candidates if name is None else _named(candidates, name)
    if len(found) == 1:
        return found[0]
    known = [each.name for each in candidates]
    if name is None or found:
        choices = known if name is None else [each.path for each in found]
        raise OptionError(
            f"There are several {what}{'' if name is None else f' named {name!r}'} in {view}.",
            found=name,
            expected=choices,
            next_step=f"Pass {'name=' if name is None else 'the path'}, one of {listed(choices, 20)}.",
        )
    other = next(iter(_named(shown_objects(dataset), name)), None)
    close = did_you_mean(name, [*known, *(each.path for each in candidates)], most=3)
    raise NodeNotFoundError(
        f"No {name!r} among the {what} in {view}"
        + ("." if other is None else f": it is a {other.neurodata_type or 'DynamicTable'}."),
        path=None if other is None else other.path,
        found=name,
        expected=known,
        next_step=close if close and other is None else f"Pass one of {listed(known, 20)}.",
    )


def listed(names: Iterable[object], most: int = 10) -> str:
    """Return names or labels as errors list them: the first ones, and how many follow."""
    known = list(names)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return f"{', '.join(map(repr, known[:most])) or 'none'}{more}"


def no_such_label(what: str, label: object, shown: ShownObject, labels: NDArray[Any]) -> SelectionError:
    """Return the error for a label of a unit, ROI or channel that an object does not have."""
    known = labels.tolist()
    return SelectionError(
        f"There is no {what} {label!r} in {shown.name!r}; its labels are {listed(known)}.",
        path=shown.path,
        found=label,
        expected=known,
    )


def selected_as_scalar(path: str) -> SelectionError:
    """Return the error for a table of which one row was selected, which dropped the dimension of rows."""
    return SelectionError(
        f"One row of {path!r} was selected as a scalar, which drops the dimension of its rows.",
        path=path,
        next_step="Select a list of one row instead, such as isel(unit=[3]).",
    )


def _named(candidates: Sequence[ShownObject], name: str) -> list[ShownObject]:
    """Return the objects of a name: their name in the Dataset, else their path, else their own name."""
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


def part_of(dataset: xr.Dataset, shown: ShownObject) -> xr.Dataset:
    """Return one object of a Dataset, with the coordinates that belong to it."""
    return dataset[list(shown.variables)]


def part_named(dataset: xr.Dataset, name: str | None) -> xr.Dataset:
    """Return one series or table of a Dataset, by its name or path; the whole Dataset for None."""
    if name is None:
        return dataset
    timed = [each for each in shown_objects(dataset) if each.kind in {"series", "table"}]
    return part_of(dataset, find_object(dataset, name, timed, "series and tables"))


def row_ids(dataset: xr.Dataset, table: ShownObject) -> NDArray[Any]:
    """Return the ids of a table's rows, or their positions where the Dataset has no ids."""
    if table.rows in dataset.coords:
        return np.asarray(dataset.coords[table.rows].values)
    return np.arange(dataset.sizes[table.rows])


@dataclass(frozen=True)
class ShownColumn:
    """One variable of a table that holds values of a column."""

    column: str  # in the file; after the category's name in an aligned table
    # In the table's own view: the same for the column's values; of what is derived from a column, its own
    # name (``electrodes_id``, ``pixel_mask_x``, ``timeseries_path``).
    label: str
    variable: str  # in the Dataset
    # What divides the values, from the table's rows inwards: none for a plain column, one pair for a ragged,
    # two for a doubly ragged one.
    bounds: tuple[Pair, ...] = ()


def shown_columns(dataset: xr.Dataset, table: ShownObject) -> list[ShownColumn]:
    """List a table's columns in the Dataset's order, reading nothing.

    Left out are the ids of rows, the bounds, and what lies neither along the rows nor along values that
    bounds divide.
    """
    pairs = bound_pairs({name: dataset.variables[name] for name in table.variables})
    found = (_column(dataset, table, name, pairs) for name in table.variables if name != table.rows)
    return [column for column in found if column is not None]


def plain_columns(dataset: xr.Dataset, table: ShownObject) -> dict[str, str]:
    """Return the variables of a table's columns that are not ragged, by label."""
    return {each.label: each.variable for each in shown_columns(dataset, table) if not each.bounds}


def row_time(dataset: xr.Dataset, table: ShownObject) -> str | None:
    """Return the variable that says when each row of a table was, None where there is none."""
    plain = plain_columns(dataset, table)
    name = next((plain[wanted] for wanted in ROW_TIMES if wanted in plain), None)
    return name if name is not None and dataset.variables[name].ndim == 1 else None


def _column(
    dataset: xr.Dataset, table: ShownObject, name: str, pairs: Mapping[str, Pair]
) -> ShownColumn | None:
    variable = dataset.variables[name]
    path, label = str(variable.attrs["nwb_path"]), variable.attrs.get("nwb_column")
    if label is None or "ragged_values" in variable.attrs:
        return None
    bounds = tuple(_chain(dataset, path, pairs))
    along: tuple[Hashable, ...] = (table.rows,)
    if bounds:
        if dataset.variables[bounds[0]["count"]].dims != along:
            return None
        # Of several variables of one column, such as the fields of a compound, all lie along its values.
        values = (dataset.variables[each] for each in table.variables)
        named = (each for each in values if each.attrs["nwb_path"] == path)
        along = next(each.dims[:1] for each in named if "ragged_values" not in each.attrs)
    if variable.dims[:1] != along:
        return None
    # The columns of the categories of an aligned table begin with the category's name.
    column = path.removeprefix(f"{table.path}/").replace("/", "_")
    return ShownColumn(column, str(label), name, bounds)


def _chain(dataset: xr.Dataset, path: str, pairs: Mapping[str, Pair]) -> Iterator[Pair]:
    """Return the bounds of an array, outermost first: an index may itself be indexed."""
    pair = pairs.get(path, {})
    if "count" not in pair:
        return
    count = dataset.variables[pair["count"]]
    if "start" in pair or SAMPLE_DIMENSION in count.attrs:
        index = str(count.attrs["nwb_path"])
        yield from _chain(
            dataset, index, {divided: each for divided, each in pairs.items() if divided != path}
        )
        yield pair


def one_label(value: object, keyword: str, meaning: str) -> Any:
    """Return one label, also from an array without dimensions; raise `OptionError` for anything else."""
    found = several_labels(value, keyword, meaning) if np.ndim(_plain(value)) == 0 else []
    if len(found) != 1:
        raise invalid_argument(keyword, value, meaning)
    return found[0]


def several_labels(value: object, keyword: str, meaning: str) -> list[Any]:
    """Return the labels in a list or an array along one dimension; of one label, that."""
    # A mask is refused: its truth values would pass for the labels 0 and 1.
    array = _plain(value)
    labels: list[Any] = np.atleast_1d(array).tolist()
    if array.ndim > 1 or not all(_is_label(label) for label in labels):
        raise invalid_argument(keyword, value, meaning)
    return labels


def _plain(value: object) -> np.ndarray[Any, Any]:
    # As objects, numbers and text of one list stay what they are.
    try:
        return np.asarray(value, object)
    except (TypeError, ValueError):
        return np.empty((0, 0), object)


def _is_label(label: object) -> bool:
    return isinstance(label, Number | str | datetime | np.generic) and not isinstance(label, bool | np.bool_)
