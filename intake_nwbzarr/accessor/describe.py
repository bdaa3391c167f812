"""Describe the contents of a Dataset, as a table and as text: `describe` and the repr of `ds.nwb`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.accessor.contents import ShownObject, attributes_of, shown_objects
from intake_nwbzarr.accessor.times import SessionTime, indexed_times, is_decoded, rate_of
from intake_nwbzarr.indexes import IrregularTimeIndex
from intake_nwbzarr.indexes.index import LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import is_in_memory
from intake_nwbzarr.untrusted_input import printable_line

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    "type",
    "name",
    "variables",
    "dims",
    "shape",
    "dtype",
    "units",
    "rate",
    "timestamps",
    "start",
    "duration",
    "description",
)


def describe(dataset: xr.Dataset) -> pd.DataFrame:
    """List the neurodata objects of a Dataset; see `NWBAccessor.describe`."""
    import pandas as pd

    times = {time.dim: time for time in indexed_times(dataset)}
    shown = shown_objects(dataset)
    rows = [object_row(dataset, each, times) for each in shown]
    index = pd.Index([each.path for each in shown], name="path", dtype=object)
    frame = pd.DataFrame(rows, index=index, columns=list(_COLUMNS))
    return frame.astype({"timestamps": "Int64", "rate": "float64"})


def object_row(dataset: xr.Dataset, shown: ShownObject, times: dict[str, SessionTime]) -> dict[str, Any]:
    """Return the known properties of an object, by column name."""
    row: dict[str, Any] = {
        "type": shown.neurodata_type or "DynamicTable",
        "name": shown.name,
        "variables": shown.variables,
    }
    if shown.kind == "table":
        rows = () if shown.rows is None else (shown.rows,)
        row |= {"dims": rows, "shape": tuple(dataset.sizes[dim] for dim in rows)}
        return row | {"description": attributes_of(dataset, shown.path).get("description")}
    described = attributes_of(dataset, shown.path)
    data = [name for name in shown.variables if name not in dataset.coords] or list(shown.variables)
    data = data if shown.main is None else [shown.main]
    dims = tuple(dict.fromkeys(str(dim) for name in data for dim in dataset.variables[name].dims))
    row |= {"dims": dims, "shape": tuple(dataset.sizes[dim] for dim in dims)}
    if len(data) == 1:
        variable = dataset.variables[data[0]]
        described |= variable.attrs
        row |= {"dtype": variable.dtype, "units": described.get("units", described.get("target_unit"))}
    row |= {"description": described.get("description")}
    along = next((times[dim] for dim in (*dims, *_own_dims(dataset, shown)) if dim in times), None)
    return row | ({} if along is None else _time(along))


def _own_dims(dataset: xr.Dataset, shown: ShownObject) -> tuple[str, ...]:
    """Return the dimensions of an object's other variables, such as the times of a movie's frames."""
    return tuple(str(dim) for name in shown.variables for dim in dataset.variables[name].dims)


def _time(time: SessionTime) -> dict[str, Any]:
    """Return the properties of a time coordinate that are known without reading it."""
    index = time.index
    if not isinstance(index, LazyTimeIndex):
        values: Any = index.index
        if not len(values):
            return {"timestamps": 0}
        seconds = (values - values[0]).total_seconds() if is_decoded(index) else values
        lazy = IrregularTimeIndex.from_array(seconds.to_numpy())
        return {"timestamps": len(values), **_rate(lazy), **_from_to(values[0], values[-1])}
    known: dict[str, Any] = {"timestamps": index.size, **_rate(index)}
    if index.size and (index.view.timestamps.computed or is_in_memory(index.view)):
        first, last = index.view.at([0, -1])
        known |= _from_to(first, last)
    return known


def _rate(index: LazyTimeIndex) -> dict[str, float]:
    return {} if index.as_regular is None else {"rate": rate_of(index.as_regular)}


def _from_to(first: Any, last: Any) -> dict[str, Any]:
    if isinstance(first, float):
        return {"start": float(first), "duration": float(last - first)}
    return {"start": first, "duration": (last - first).total_seconds()}


# Of more objects than this, the first are listed and the others counted.
_MOST_OBJECTS = 24

# Longer names and lists of dimensions are cut.
_WIDEST = 60


def as_text(dataset: xr.Dataset) -> str:
    """Return a line for each object, without reading data."""
    shown = shown_objects(dataset)
    cells = _cells(dataset, shown)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)] if cells else []
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([f"<ds.nwb{_where(dataset)}>", *_before(shown), *lines, *_after(shown)])


def _where(dataset: xr.Dataset) -> str:
    if "nwb_location" not in dataset.attrs:
        return ": no session (attribute nwb_location is missing)"
    group = dataset.attrs.get("nwb_group")
    return f" of {dataset.attrs['nwb_location']}{'' if group is None else f', group {group!r}'}"


def _before(shown: Sequence[ShownObject]) -> list[str]:
    if not shown:
        return ["no neurodata objects in this Dataset itself"]
    if len(shown) <= _MOST_OBJECTS:
        return []
    kinds = Counter(each.neurodata_type or "DynamicTable" for each in shown)
    counted = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(8))
    return [f"{len(shown):,} objects: {counted}{', ...' if len(kinds) > 8 else ''}"]


def _after(shown: Sequence[ShownObject]) -> list[str]:
    more = len(shown) - _MOST_OBJECTS
    return [f"... and {more:,} more; ds.nwb.describe() lists all"] if more > 0 else []


def _cells(dataset: xr.Dataset, shown: Sequence[ShownObject]) -> list[tuple[str, ...]]:
    times = {time.dim: time for time in indexed_times(dataset)}
    rows = (object_row(dataset, each, times) for each in shown[:_MOST_OBJECTS])
    return [
        tuple(
            _cut(cell)
            for cell in (row["name"], row["type"], _dims(row), _time_text(row), str(row.get("units") or ""))
        )
        for row in rows
    ]


def _dims(row: dict[str, Any]) -> str:
    pairs = zip(row["dims"], row["shape"], strict=True)
    return f"({', '.join(f'{dim}: {size:,}' for dim, size in pairs)})"


def _time_text(row: dict[str, Any]) -> str:
    if "timestamps" not in row:
        return ""
    duration = f", {row['duration']:.6g} s" if "duration" in row else ""
    return (
        f"{row['rate']:.6g} Hz{duration}" if "rate" in row else f"{row['timestamps']:,} timestamps{duration}"
    )


def _cut(text: str) -> str:
    return printable_line(text, _WIDEST)
