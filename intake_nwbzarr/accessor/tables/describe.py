"""What a Dataset holds, one row for each neurodata object, from what is known without reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.accessor.contents.kinds import ShownObject, attributes_of, shown_objects
from intake_nwbzarr.accessor.contents.time_axis import rate_of
from intake_nwbzarr.accessor.contents.times import SessionTime, indexed_times, is_decoded
from intake_nwbzarr.indexes import IrregularTimeIndex
from intake_nwbzarr.indexes.in_memory import is_in_memory
from intake_nwbzarr.indexes.lazy import LazyTimeIndex

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
    """What is known of one object, by the names of the columns; what is not known is not among them."""
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
    """The dimensions of whatever else an object has: of an external movie, the times of its frames."""
    return tuple(str(dim) for name in shown.variables for dim in dataset.variables[name].dims)


def _time(time: SessionTime) -> dict[str, Any]:
    """What is known of a time without reading it."""
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
