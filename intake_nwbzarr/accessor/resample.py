"""One series on another's time: what is asked for, and what the result is made of."""

from __future__ import annotations

from typing import get_args

import pandas as pd
import xarray as xr
from dask.base import tokenize
from numpy.typing import ArrayLike
from xarray.indexes import PandasIndex

from intake_nwbzarr.accessor.events import event_times
from intake_nwbzarr.accessor.sessions import check_same_session
from intake_nwbzarr.accessor.time.resampled_array import ResampledArray, ResampleMethod
from intake_nwbzarr.accessor.times import SessionTime, datetimes_refused, is_decoded, number, session_times
from intake_nwbzarr.arguments import check_choice
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.errors import OptionError, SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex
from intake_nwbzarr.indexes.index import LazyTimeIndex

__all__ = ["ResampleMethod", "resample_like"]

type Times = xr.Dataset | xr.DataTree | xr.DataArray | pd.DataFrame | ArrayLike
"""A series, also as a node, as a DataFrame or of pynapple, or times."""

_SECONDS = frozenset({"s", "sec", "second", "seconds"})


def resample_like(
    dataset: xr.Dataset,
    other: Times,
    method: ResampleMethod,
    *,
    tolerance: float | None = None,
) -> xr.Dataset:
    """Put every series on another's time; see `NWBAccessor.resample_like`."""
    _check(method, tolerance)
    check_same_session(dataset, other, "other")
    other = _with_time(other, dataset)
    target = _time_of(other)
    labels = _lazy(target)
    moved = {time.dim: time for time in session_times(dataset) if not _is_same(time, target, labels)}
    if not moved and not any(time.name == target.name for time in session_times(dataset)):
        raise SelectionError(
            f"{dataset.attrs.get('nwb_location', 'This Dataset')}: no series here has a time, so none can be "
            "put on another's."
        )
    arrays = {}
    for name, variable in dataset.variables.items():
        along = [str(dim) for dim in variable.dims if str(dim) in moved]
        if along and name not in dataset.xindexes:
            (dim,) = along
            arrays[name] = _resampled(str(name), variable, moved[dim], target, labels, method, tolerance)
    left = dataset.drop_dims(list(moved))
    labelled = {target.name: other.coords.variables[target.name]}
    times = xr.Coordinates(labelled, {target.name: other.xindexes[target.name]})
    coordinates = {name: arrays.pop(name) for name in list(arrays) if name in dataset.coords}
    return left.assign_coords(times).assign(arrays).assign_coords(coordinates)


def _check(method: str, tolerance: float | None) -> None:
    check_choice("method", method, get_args(ResampleMethod.__value__))
    if tolerance is None:
        return
    seconds = number(tolerance)
    if seconds is None or not seconds >= 0:
        raise OptionError(f"tolerance={tolerance!r} is not a time; it is a number of seconds, 0 or more.")
    if method == "mean":
        raise OptionError(
            "tolerance has no meaning with method='mean': its intervals say what is near enough."
        )


def _with_time(other: Times, dataset: xr.Dataset) -> xr.Dataset | xr.DataArray:
    """What has the time: times that were given as such become the index of one."""
    if isinstance(other, xr.DataTree):
        return other.to_dataset(inherit=False)
    if isinstance(other, xr.Dataset | xr.DataArray):
        return other
    times = event_times(other, None, dataset.attrs).times
    return xr.Dataset(coords=IrregularTimeIndex.from_array(times, attrs={"units": "s"}).coordinates())


def _time_of(other: xr.Dataset | xr.DataArray) -> SessionTime:
    """The one time of what is resampled like."""
    found = session_times(other) or [
        SessionTime(str(name), str(index.dim), index)
        for name, index in other.xindexes.items()
        if isinstance(index, PandasIndex) and _is_seconds(str(name), other.coords.variables[name])
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise OptionError(
            f"other has no time: none of its indexes, of {list(map(str, other.xindexes))}, is the time of a "
            "series. Give one that has, as ds['name'] of a flat Dataset."
        )
    raise OptionError(
        f"other has several times, {', '.join(repr(time.name) for time in found)}: give one series, as "
        "ds['name']."
    )


def _is_seconds(name: str, variable: xr.Variable) -> bool:
    named = name == "time" or name.endswith("_time") or variable.attrs.get("units") in _SECONDS
    return named and variable.dtype.kind in "iuf"


def _lazy(time: SessionTime) -> LazyTimeIndex:
    """The index in the form that finds samples and says what is wrong with timestamps."""
    if is_decoded(time.index):
        raise datetimes_refused(f"The times {time.name!r}", "samples are compared in seconds")
    if isinstance(time.index, LazyTimeIndex):
        return time.index
    return IrregularTimeIndex.from_array(time.index.index.to_numpy(), time.dim, time.name)


def _is_same(time: SessionTime, target: SessionTime, labels: LazyTimeIndex) -> bool:
    """Whether a series lies on the wanted time already, as far as can be told without reading."""
    if (time.name, time.dim) != (target.name, target.dim) or is_decoded(time.index):
        return False
    if not isinstance(time.index, LazyTimeIndex):
        return bool(time.index.equals(target.index))
    view = time.index.view
    return view.samples == labels.view.samples and view.timestamps == labels.view.timestamps


def _resampled(
    name: str,
    variable: xr.Variable,
    time: SessionTime,
    target: SessionTime,
    labels: LazyTimeIndex,
    method: ResampleMethod,
    tolerance: float | None,
) -> xr.Variable:
    if method in {"linear", "mean"} and variable.dtype.kind not in "iufc":
        raise OptionError(
            f"method={method!r} means nothing for {name!r}, which holds {variable.dtype}: select the numeric "
            "series first, or use 'nearest' or 'ffill'."
        )
    index = _lazy(time)
    source = variable
    if index.view.samples.step < 0:
        # What a reversed selection shows: before and after are meant in time.
        backwards = {time.dim: slice(None, None, -1)}
        source, turned = variable.isel(backwards), index.isel(backwards)
        index = index if turned is None else turned
    array = ResampledArray(source, variable.dims.index(time.dim), index, labels, method, tolerance)
    dims = tuple(target.dim if dim == time.dim else dim for dim in variable.dims)
    made = lazy_variable(dims, array, variable.attrs, cache=True)
    if variable.chunks is None:
        return made
    # Pieces as long as the other time's would be, whole along what was one chunk before.
    widths = {target.dim: made.encoding["preferred_chunks"][target.dim]}
    kept = {dim: variable.chunksizes[dim] for dim in variable.dims if dim != time.dim}
    return made.chunk({**widths, **kept}, name=f"resampled-{tokenize(array)}")
