"""Series on another series' time (`ds.nwb.resample_like`): samples, values between them, or means."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from numpy.typing import ArrayLike, NDArray
from xarray.indexes import PandasIndex

from intake_nwbzarr.accessor.contents import listed
from intake_nwbzarr.accessor.events import event_times
from intake_nwbzarr.accessor.interpolation import TakenArray, TimedSamples, values_of, with_missing
from intake_nwbzarr.accessor.sessions import check_same_session
from intake_nwbzarr.accessor.times import (
    SessionTime,
    datetimes_refused,
    is_decoded,
    no_times,
    number,
    session_times,
)
from intake_nwbzarr.arguments import check_choice, invalid_argument
from intake_nwbzarr.arrays import Computed, lazy_variable
from intake_nwbzarr.arrays.computed import WIDTH
from intake_nwbzarr.arrays.selection import Axes, as_key
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.indexes import IrregularTimeIndex
from intake_nwbzarr.indexes.index import LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import Floats, TimestampView, take_slice

type ResampleMethod = Literal["nearest", "ffill", "linear", "mean"]
"""The methods of `resample_like`: how a value at a time without a sample is computed."""

type Times = xr.Dataset | xr.DataTree | xr.DataArray | pd.DataFrame | ArrayLike
"""A series, also as a node, as a DataFrame or of pynapple, or times."""

# Decoded bytes of a series that are averaged at once.
_AT_ONCE = 64 * 2**20

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
        raise no_times(dataset, "it cannot be resampled", "series")
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
        raise invalid_argument("tolerance", tolerance, "a number of seconds, 0 or more")
    if method == "mean":
        raise OptionError(
            "tolerance is not valid with method='mean', which averages the samples of each interval.",
            found=tolerance,
            next_step="Omit tolerance=.",
        )


def _with_time(other: Times, dataset: xr.Dataset) -> xr.Dataset | xr.DataArray:
    """Return what has the time: times that were given as such become the index of one."""
    if isinstance(other, xr.DataTree):
        return other.to_dataset(inherit=False)
    if isinstance(other, xr.Dataset | xr.DataArray):
        return other
    times = event_times(other, None, dataset.attrs).times
    return xr.Dataset(coords=IrregularTimeIndex.from_array(times, attrs={"units": "s"}).coordinates())


def _time_of(other: xr.Dataset | xr.DataArray) -> SessionTime:
    """Return the one time of what is resampled like."""
    found = session_times(other) or [
        SessionTime(str(name), str(index.dim), index)
        for name, index in other.xindexes.items()
        if isinstance(index, PandasIndex) and _is_seconds(str(name), other.coords.variables[name])
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise OptionError(
            f"other has no time: none of its indexes, {listed(map(str, other.xindexes))}, is the time of a "
            "series.",
            found=list(map(str, other.xindexes)),
            expected="the index of a series' time",
            next_step="Pass a series with a time, such as ds['name'] of a flat Dataset.",
        )
    raise OptionError(
        f"other has several times, {listed(time.name for time in found)}.",
        found=[time.name for time in found],
        expected="one time",
        next_step="Pass one series, such as ds['name'].",
    )


def _is_seconds(name: str, variable: xr.Variable) -> bool:
    named = name == "time" or name.endswith("_time") or variable.attrs.get("units") in _SECONDS
    return named and variable.dtype.kind in "iuf"


def _lazy(time: SessionTime) -> LazyTimeIndex:
    """Return the index in the form that finds samples and says what is wrong with timestamps."""
    if is_decoded(time.index):
        raise datetimes_refused(f"The times {time.name!r}", "samples are compared in seconds")
    if isinstance(time.index, LazyTimeIndex):
        return time.index
    return IrregularTimeIndex.from_array(time.index.index.to_numpy(), time.dim, time.name)


def _is_same(time: SessionTime, target: SessionTime, labels: LazyTimeIndex) -> bool:
    """Return whether a series lies on the wanted time already, as far as can be told without reading."""
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
            f"method={method!r} is not valid for {name!r}, which holds {variable.dtype}.",
            path=variable.attrs.get("nwb_path"),
            found=str(variable.dtype),
            expected="numbers",
            next_step="Select the numeric series first, or pass 'nearest' or 'ffill'.",
        )
    view, source = _lazy(time).view, variable
    if view.samples.step < 0:
        # What a reversed selection shows: before and after are meant in time.
        source, view = (
            variable.isel({time.dim: slice(None, None, -1)}),
            take_slice(view, slice(None, None, -1)),
        )
    if method == "mean":
        array: Computed = MeanArray(source, time.dim, view, labels.view, _next_time(labels))
    else:
        reach = np.inf if tolerance is None else float(tolerance)
        samples = TimedSamples(labels.view, None, view, False, method, reach)
        array = TakenArray(source, time.dim, samples, source.dims.index(time.dim))
    dims = tuple(target.dim if dim == time.dim else dim for dim in variable.dims)
    made = lazy_variable(dims, array, variable.attrs, cache=True)
    if variable.chunks is None:
        return made
    # Blocks as long as the other time's would be, whole along what was one chunk before.
    widths = {target.dim: made.encoding["preferred_chunks"][target.dim]}
    kept = {dim: variable.chunksizes[dim] for dim in variable.dims if dim != time.dim}
    return made.chunk({**widths, **kept}, name=f"resampled-{tokenize(array)}")


def _next_time(labels: LazyTimeIndex) -> float:
    """Return the time at which a regular time's next sample would be; NaN of an irregular one."""
    if (regular := labels.as_regular) is None or not labels.size:
        return np.nan
    return float(regular.timestamps.at(np.array([regular.samples[-1] + regular.samples.step]))[0])


@dataclass(frozen=True, eq=False)
class MeanArray(Computed):
    """Means of a series' samples from each of other times on and before the next, lazy along these times."""

    source: xr.Variable
    along: Hashable  # its dimension of time
    times: TimestampView  # of the source
    labels: TimestampView  # the other times
    end: float  # of the last interval; NaN where it is unknown

    @property
    def sources(self) -> tuple[xr.Variable]:
        """Return the series."""
        return (self.source,)

    @property
    def axis(self) -> int:
        """Return the axis of time."""
        return self.source.dims.index(self.along)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the source's shape, as long as the other times."""
        shape = self.source.shape
        return (*shape[: self.axis], len(self.labels), *shape[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return a dtype that can hold NaN: of integers and booleans float64."""
        return with_missing(self.source.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return about as many values as the source prefers, along the whole of its other axes."""
        width = max(1, min(len(self.labels), WIDTH // (prod(_without(self.shape, self.axis)) or 1)))
        return (*self.shape[: self.axis], width, *self.shape[self.axis + 1 :])

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the means of a selection; NaN where an interval has no samples."""
        keys = {dim: as_key(axis) for dim, axis in zip(self.source.dims, axes, strict=True)}
        source = self.source.isel({dim: key for dim, key in keys.items() if dim != self.along})
        wanted = np.asarray(axes[self.axis], np.int64)
        result = np.full((*_without(source.shape, self.axis), len(wanted)), np.nan, self.dtype)
        first, last = self._edges(wanted)
        for places, samples in _read_together(first, last, source, self.axis):
            read = np.moveaxis(values_of(source.isel({self.along: samples})), self.axis, -1)
            exact = np.result_type(read.dtype, np.float64)
            # One more at the end, for the last interval to end before.
            padded = np.concatenate([read, np.zeros((*read.shape[:-1], 1))], axis=-1, dtype=exact)
            edges = np.stack([first[places], last[places]], axis=-1).ravel() - samples.start
            sums = np.add.reduceat(padded, edges, axis=-1)[..., ::2]
            result[..., places] = sums / (last[places] - first[places])
        return np.moveaxis(result, -1, self.axis)

    def _edges(self, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions of the first sample of each interval, and of the first one after it."""
        if not len(self.times):
            return np.zeros_like(wanted), np.zeros_like(wanted)
        starts, stops = self.labels.at(wanted), np.full(len(wanted), self.end)
        followed = wanted + 1 < len(self.labels)
        stops[followed] = self.labels.at(wanted[followed] + 1)
        return self._count_before(starts), self._count_before(stops)

    def _count_before(self, times: Floats) -> NDArray[np.int64]:
        found = self.times.locate(times, "backfill")
        # No sample from there on: all come before. Without an end there is no interval: none do.
        return np.where(np.isnan(times), 0, np.where(found < 0, len(self.times), found))


def _read_together(
    first: NDArray[np.int64], last: NDArray[np.int64], source: xr.Variable, axis: int
) -> Iterator[tuple[NDArray[np.int64], slice]]:
    """Divide intervals into groups whose samples are read together, and say where those lie."""
    width = max(1, prod(_without(source.shape, axis))) * max(1, source.dtype.itemsize)
    places = np.flatnonzero(last > first)
    places = places[np.argsort(first[places], kind="stable")]
    start, begin, end = 0, 0, 0
    for at, place in enumerate(places.tolist()):
        opens, closes = int(first[place]), int(last[place])
        if at > start and (opens > end or (closes - begin) * width > _AT_ONCE):
            yield places[start:at], slice(begin, end)
            start = at
        begin, end = (opens, closes) if at == start else (begin, max(end, closes))
    if places.size:
        yield places[start:], slice(begin, end)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])
