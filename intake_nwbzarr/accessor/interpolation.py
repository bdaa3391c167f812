"""Samples of a series taken at positions: one, or a value between two by weight, NaN where there is none."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, Final, Literal, Protocol, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.slices import Runs, grouped, sliced
from intake_nwbzarr.arrays import Computed, lazy_variable
from intake_nwbzarr.arrays.computed import WIDTH, widths
from intake_nwbzarr.arrays.lazy import target
from intake_nwbzarr.arrays.selection import Axes, as_key
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.indexes.timestamps import TimestampView, is_in_memory

type Floats = NDArray[np.float64]
type Positions = NDArray[np.int64]

type AlignMethod = Literal["nearest", "ffill", "linear"]
"""The nearest sample, the one before, or a value between the two on either side."""

METHODS: Final = ("nearest", "ffill", "linear")

AT_ONCE: Final = 2**20
"""Events times lags that are located at once."""


class Samples(Protocol):
    """Which samples are taken: along events and lags, or along other times."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return how many values there are along each axis."""

    @property
    def interpolates(self) -> bool:
        """Return whether values are taken from between samples."""

    def at(self, *axes: NDArray[Any]) -> Taken:
        """Return the samples at some positions along each axis."""

    def take(self, events: NDArray[Any]) -> Samples:
        """Return the samples of some events."""

    def located(self) -> Samples:
        """Return the same samples for a task of its own: small, and without timestamps to read."""


@dataclass(frozen=True, eq=False)
class Taken:
    """Samples that were found: positions along the series, -1 where there is none."""

    first: Positions
    second: Positions | None = None  # what interpolation ends at
    weight: Floats | None = None  # how much of the second is taken, from 0 to 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Return how many values there are along each axis."""
        return self.first.shape

    @property
    def interpolates(self) -> bool:
        """Return whether values are taken from between samples."""
        return self.weight is not None

    @property
    def sides(self) -> list[Positions]:
        """Return the positions, and those that interpolation ends at."""
        return [side for side in (self.first, self.second) if side is not None]

    def at(self, *axes: NDArray[Any]) -> Taken:
        """Return the samples at some positions along each axis."""
        parts = (self.first, self.second, self.weight)
        return Taken(*(None if part is None else part[np.ix_(*axes)] for part in parts))  # type: ignore[arg-type]

    def take(self, events: NDArray[Any]) -> Taken:
        """Return the samples of some events."""
        return self.at(events, *map(np.arange, self.shape[1:]))

    def located(self) -> Self:
        """Return the same."""
        return self


@dataclass(frozen=True, eq=False)
class TimedSamples:
    """Samples looked up at times, in timestamps that are read when this is asked."""

    times: TimestampView  # the times in seconds, or those of events
    lags: Floats | None  # in seconds from each event, (lag,)
    series: TimestampView  # the timestamps of the series, ascending
    backwards: bool  # whether the series has its samples in the opposite order
    method: AlignMethod
    reach: float  # the largest distance from a time to a sample, in seconds
    bridged: float = np.inf  # the longest time between two samples that is interpolated over

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of times, or of events and lags."""
        return (len(self.times),) if self.lags is None else (len(self.times), len(self.lags))

    @property
    def interpolates(self) -> bool:
        """Return whether values are taken from between samples."""
        return self.method == "linear"

    def at(self, *axes: NDArray[Any]) -> Taken:
        """Return the samples at some positions along each axis."""
        wanted = self.times.at(axes[0])
        if self.lags is not None:
            wanted = wanted[:, np.newaxis] + self.lags[axes[1]]
        flat = wanted.ravel()
        parts = [self._locate(flat[begin : begin + AT_ONCE]) for begin in range(0, flat.size or 1, AT_ONCE)]
        first, second, weight = (
            np.concatenate(side).reshape(wanted.shape) for side in zip(*parts, strict=True)
        )
        return Taken(first, second, weight) if self.interpolates else Taken(first)

    def take(self, events: NDArray[Any]) -> Taken:
        """Return the samples of some events, found now."""
        return self.located().take(events)

    def located(self) -> Taken:
        """Return the same as positions, found now."""
        return self.at(*map(np.arange, self.shape))

    def _locate(self, wanted: Floats) -> tuple[Positions, Positions, Floats]:
        view = self.series
        first = np.full(wanted.shape, -1, np.int64)
        second, weight = first.copy(), np.zeros(wanted.shape)
        if not len(view) or not wanted.size:
            return first, second, weight
        inside = self._inside(wanted)
        found, following, share = self._between(wanted[inside])
        if self.backwards:
            found, following = (np.where(side < 0, -1, len(view) - 1 - side) for side in (found, following))
        first[inside], second[inside], weight[inside] = found, following, share
        return first, second, weight

    def _inside(self, wanted: Floats) -> Positions:
        """Return which times are from the first to the last sample."""
        view = self.series
        if not view.timestamps.ascending:  # looking for any time says so
            return np.arange(wanted.size)
        if view.timestamps.computed or is_in_memory(view):
            first, last = view.at([0, -1])
            return np.flatnonzero((wanted >= first) & (wanted <= last))
        # Searching keeps the blocks that it reads, in which the samples are looked up next.
        before, through = view.bounds(wanted)
        return np.flatnonzero((through > 0) & (before < len(view)) & ~np.isnan(wanted))

    def _between(self, wanted: Floats) -> tuple[Positions, Positions, Floats]:
        """Look up times from the first to the last sample: one sample, or that before and that after."""
        view, weight = self.series, np.zeros(wanted.shape)
        if not self.interpolates:
            found = view.locate(wanted, self.method, self.reach)
            return found, found, weight
        found = view.locate(wanted, "ffill", self.reach)
        before = view.at(found)
        following = np.where(wanted > before, np.minimum(found + 1, len(view) - 1), found)
        after = view.at(following)
        near = (found >= 0) & (after - wanted <= self.reach) & (after - before <= self.bridged)
        np.divide(wanted - before, after - before, out=weight, where=near & (after > before))
        return np.where(near, found, -1), np.where(near, following, -1), weight


@dataclass(frozen=True, eq=False)
class GridSamples:
    """Samples of a regular series: whole numbers of them from the one at the event; made by `on_grid`."""

    anchors: Positions  # the sample at lag 0, (event,): any whole number, as if the series had no ends
    present: NDArray[np.bool_]  # whether an event has one, (event,)
    steps: Positions  # each lag in samples, (lag,)
    size: int  # of the series
    backwards: bool  # whether positions count from its end
    weights: Floats | None = None  # how far the event is to the next sample, (event,), to interpolate

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of events and of lags."""
        return len(self.anchors), len(self.steps)

    @property
    def interpolates(self) -> bool:
        """Return whether values are taken from between samples."""
        return self.weights is not None

    def at(self, *axes: NDArray[Any]) -> Taken:
        """Return the samples of some events and lags, by position."""
        events, lags = axes
        first = self.anchors[events][:, np.newaxis] + self.steps[lags]
        inside = self.present[events][:, np.newaxis] & (first >= 0) & (first < self.size)
        if self.weights is None:
            return Taken(self._positions(first, inside))
        weight = np.broadcast_to(self.weights[events][:, np.newaxis], first.shape)
        second = np.where(weight > 0, first + 1, first)
        inside &= second < self.size
        return Taken(self._positions(first, inside), self._positions(second, inside), weight)

    def take(self, events: NDArray[Any]) -> Self:
        """Return the samples of some events."""
        weights = None if self.weights is None else self.weights[events]
        return replace(self, anchors=self.anchors[events], present=self.present[events], weights=weights)

    def located(self) -> Self:
        """Return the same, which is small and needs no timestamps."""
        return self

    def _positions(self, ascending: Positions, inside: NDArray[np.bool_]) -> Positions:
        return np.where(inside, self.size - 1 - ascending if self.backwards else ascending, -1)


def on_grid(
    times: Floats,
    series: TimestampView,
    rate: float,
    steps: Positions,
    method: AlignMethod,
    *,
    backwards: bool,
) -> tuple[GridSamples, Floats]:
    """Find the samples of a regular series around events, whole numbers of samples from the one at each.

    Also return by how much the sample at lag 0 is later than the event, in seconds: NaN where nothing of the
    window lies in the recording, and 0 where values are interpolated to the event's own lags. ``nearest``:
    lag 0 is the sample nearest to the event, of two equally near ones the later; ``ffill``: the last one at
    or before it; ``linear``: between that and the next.
    """
    size, timestamps, samples = len(series), series.timestamps, series.samples
    anchors, offsets = np.zeros(times.shape, np.int64), np.full(times.shape, np.nan)
    weights = np.zeros(times.shape) if method == "linear" else None
    with np.errstate(invalid="ignore", over="ignore"):
        roughly = (times - timestamps.at(np.array([samples.start]))) * rate
        # Far from the recording no lag is in it, and sample numbers would be without bound.
        present = (roughly + steps[-1] > -2) & (roughly + steps[0] < size + 2)
    if present.any():
        low = int(np.floor(roughly[present].min())) - 2
        high = int(np.ceil(roughly[present].max())) + 2
        begin, step = samples.start + low * samples.step, samples.step
        endless = TimestampView(timestamps, range(begin, begin + (high - low + 1) * step, step))
        found = endless.locate(times[present], "nearest" if method == "nearest" else "ffill")
        anchors[present] = found + low
        offsets[present] = endless.at(found) - times[present]
        if weights is not None:
            length = endless.at(found + 1) - endless.at(found)
            weights[present], offsets[present] = -offsets[present] / length, 0.0
    made = GridSamples(anchors, present, steps, size, backwards, weights)
    offsets[(anchors + steps[0] >= size) | (anchors + steps[-1] < 0)] = np.nan
    return made, offsets


def incomplete(samples: Samples) -> NDArray[np.bool_]:
    """Return whether an event has lags without a sample, (event,)."""
    lags = np.arange(samples.shape[1])
    parts = [np.any(samples.at(events, lags).first < 0, axis=1) for events in _batches(samples)]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _batches(samples: Samples) -> Iterator[NDArray[np.int64]]:
    """Iterate over events, by position, a few at a time."""
    events, lags = samples.shape
    many = max(1, AT_ONCE // lags)
    for begin in range(0, events, many):
        yield np.arange(begin, min(begin + many, events))


def aligned_variable(
    source: xr.Variable, along: Hashable, dims: tuple[Hashable, Hashable], samples: Samples, *, whole: bool
) -> xr.Variable:
    """Return a series around events: of dask where the source is, and lazy where it is not.

    `dims`, events and lags, stand first in place of the dimension `along`. Where none is missing, which
    `whole` says, integers need not become floats to have NaN among them.
    """
    array = TakenArray(source, along, samples, 0, whole)
    names = (*dims, *(dim for dim in source.dims if dim != along))
    if source.chunks is None:
        return lazy_variable(names, array, source.attrs, cache=True)
    return xr.Variable(names, _of_dask(source.transpose(along, ...).data, samples, array.dtype), source.attrs)


@dataclass(frozen=True, eq=False)
class TakenArray(Computed):
    """Samples of a series as a lazy array: those that a selection takes are found and read, in one gather."""

    source: xr.Variable  # not transposed: xarray would index lazy values point by point from then on
    along: Hashable  # its dimension of time
    samples: Samples
    axis: int  # where in the result the axes of the samples are
    whole: bool = False  # whether none is missing

    def __post_init__(self) -> None:
        if self.samples.interpolates and self.source.dtype.kind not in "biufc":
            raise OptionError(
                f"method='linear' cannot interpolate values of {self.source.dtype}.",
                path=self.source.attrs.get("nwb_path"),
                found=str(self.source.dtype),
                expected="numbers",
                next_step="Pass 'nearest' or 'ffill', or drop such variables.",
            )

    @property
    def sources(self) -> tuple[xr.Variable]:
        """Return the series."""
        return (self.source,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the source's shape, with the axes of the samples for its time."""
        return self._with(self.samples.shape, self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return a dtype that holds what can be missing, or what lies between samples."""
        own: np.dtype[Any] = self.source.dtype
        return own if self.whole and not self.samples.interpolates else with_missing(own)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return one event with all its lags, or some times, and the other axes as they are best read."""
        own = widths(self.source)
        first, *lags = self.samples.shape
        many = 1 if lags else max(1, min(first, WIDTH // (prod(self._with((), own)) or 1)))
        return self._with((many, *lags), own)

    def _with(self, taken: tuple[int, ...], lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Put lengths of the samples' axes among those of the source's others."""
        at = self.source.dims.index(self.along)
        others = (*lengths[:at], *lengths[at + 1 :])
        return (*others[: self.axis], *taken, *others[self.axis :])

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Take the samples of a selection."""
        begin, end = self.axis, self.axis + len(self.samples.shape)
        positions, taken = _needed(self.samples.at(*(np.asarray(axis, np.intp) for axis in axes[begin:end])))
        others = (dim for dim in self.source.dims if dim != self.along)
        key = {dim: as_key(axis) for dim, axis in zip(others, axes[:begin] + axes[end:], strict=True)}
        read = values_of(self.source.isel({self.along: positions, **key}))
        values = np.moveaxis(read, self.source.dims.index(self.along), 0)
        return np.moveaxis(_placed(values, taken, self.dtype), range(end - begin), range(begin, end))


def values_of(variable: xr.Variable) -> NDArray[Any]:
    """Read a variable, also where it is of dask and this runs in one of dask's tasks already."""
    read: NDArray[Any] = (
        variable.values if variable.chunks is None else variable.compute(scheduler="threads").values
    )
    return read


def _placed(values: NDArray[Any], taken: Taken, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Put samples, (sample, ...), where they are taken; where one is missing is NaN."""
    missing = taken.first < 0
    if not len(values):
        return np.full((*missing.shape, *values.shape[1:]), missing_value(dtype), dtype)
    found = values[np.where(missing, 0, taken.first)]
    if taken.second is not None and taken.weight is not None:
        weight = taken.weight.reshape(*missing.shape, *(1 for _ in values.shape[1:]))
        following = values[np.where(missing, 0, taken.second)]
        # In 64 bits. An unweighted NaN or infinity does not spread, and what is constant stays that.
        between = found.astype(np.result_type(found, np.float64))
        with np.errstate(invalid="ignore"):
            uneven = (weight > 0) & (following != found)
            np.copyto(between, between * (1 - weight) + following * weight, where=uneven)
        found = between
    found = found.astype(dtype, copy=False)
    if missing.any():
        found[missing] = missing_value(dtype)
    return found


def _needed(taken: Taken) -> tuple[slice | Positions, Taken]:
    """Return the samples to read, ascending and each once, and what is taken counted among them."""
    runs = Runs.of(*_extents(taken))
    if runs.size > 2 * taken.first.size:
        # Few samples, far apart: those between them are not worth their memory.
        each = np.concatenate([side[side >= 0] for side in taken.sides])
        runs = Runs.of(each, each + 1)
    return runs.positions(), _moved(taken, runs)


def _moved(taken: Taken, runs: Runs) -> Taken:
    """Return samples as positions among runs that hold all of them."""
    if not runs.size:
        return Taken(taken.first)
    first, *second = (np.where(side < 0, -1, runs.places(side)) for side in taken.sides)
    return Taken(first, second[0] if second else None, taken.weight)


def _extents(taken: Taken) -> tuple[Positions, Positions]:
    """Return the starts and stops of the samples that each event or time takes, equal where none."""
    sides = [side.reshape(len(side), -1) for side in taken.sides]
    highest = np.max([side.max(axis=1, initial=-1) for side in sides], axis=0)
    far = np.iinfo(np.int64).max
    lowest = np.min([np.where(side < 0, far, side).min(axis=1, initial=far) for side in sides], axis=0)
    return np.where(highest < 0, 0, lowest), highest + 1


def _of_dask(data: Any, samples: Samples, dtype: np.dtype[Any]) -> Any:
    """Return a dask array of blocks that each are a group of events."""
    import dask.array as da

    samples = samples.located()
    events, lags = samples.shape
    starts, stops = np.zeros((2, events), np.int64)
    for some in _batches(samples):
        starts[some], stops[some] = _extents(samples.at(some, np.arange(lags)))
    others = data.chunks[1:]
    sample = max(dtype.itemsize, data.dtype.itemsize) * prod(max(widths, default=1) for widths in others)
    groups = grouped(np.maximum(stops - starts, lags) * sample, target())
    blocks = [_block(data, samples.take(group), starts[group], stops[group], dtype) for group in groups]
    if blocks:
        return da.concatenate(blocks)  # type: ignore[no-untyped-call]
    return da.zeros((events, lags, *data.shape[1:]), dtype=dtype, chunks=(1, lags, *others))


def _block(data: Any, samples: Samples, starts: Positions, stops: Positions, dtype: np.dtype[Any]) -> Any:
    import dask.array as da

    others = data.chunks[1:]
    found = sliced(data, starts, stops)
    if found is None:
        shape = (*samples.shape, *data.shape[1:])
        return da.full(shape, missing_value(dtype), dtype=dtype, chunks=(*samples.shape, *others))  # type: ignore[no-untyped-call]
    values, runs = found
    return da.map_blocks(  # type: ignore[no-untyped-call]
        partial(_taken_of_block, samples=samples, runs=runs, dtype=dtype),
        values,
        dtype=dtype,
        chunks=(*((length,) for length in samples.shape), *others),
        new_axis=1,
        meta=np.empty((0,) * (data.ndim + 1), dtype),
    )


def _taken_of_block(values: NDArray[Any], samples: Samples, runs: Runs, dtype: np.dtype[Any]) -> NDArray[Any]:
    return _placed(values, _moved(samples.at(*map(np.arange, samples.shape)), runs), dtype)


def with_missing(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of values some of which are missing: float64 for integers, objects for text."""
    if dtype.kind in "fcOmM":
        return dtype
    return np.dtype(np.float64) if dtype.kind in "biu" else np.dtype(object)


def missing_value(dtype: np.dtype[Any]) -> Any:
    """Return what stands for a missing value: NaN, or NaT of datetimes."""
    return np.array("NaT", dtype) if dtype.kind in "mM" else np.nan
