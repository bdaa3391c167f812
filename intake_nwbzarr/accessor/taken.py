"""A series around events, (event, lag, ...): read, or computed by dask, only where windows touch it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.peri_event.dask_slices import grouped, sliced
from intake_nwbzarr.accessor.peri_event.runs import Runs
from intake_nwbzarr.accessor.peri_event.samples import Samples, Taken, batches
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.arrays.blocks import target
from intake_nwbzarr.arrays.selection import Key, select
from intake_nwbzarr.errors import OptionError


def peri_event_variable(
    source: xr.Variable, along: Hashable, dims: tuple[Hashable, Hashable], samples: Samples, *, whole: bool
) -> xr.Variable:
    """A series around events.

    Parameters
    ----------
    source
        Its values, lazy, of dask or in memory.
    along
        Their dimension of time.
    dims
        What stands in its place: events and lags, which come first.
    samples
        Which samples are taken.
    whole
        Whether none is missing, so that integers need not become floats to have NaN among them.

    Returns
    -------
    xarray.Variable
        Of dask where the source is, and lazy where it is not.

    Raises
    ------
    OptionError
        When text is to be interpolated.
    """
    dtype = _dtype(source.dtype, samples.interpolates, whole)
    names = (*dims, *(dim for dim in source.dims if dim != along))
    if source.chunks is not None:
        return xr.Variable(names, _of_dask(source.transpose(along, ...).data, samples, dtype), source.attrs)
    return lazy_variable(names, PeriEventArray(source, along, samples, dtype), source.attrs, cache=True)


@dataclass(frozen=True, eq=False)
class PeriEventArray:
    """A lazy series around events, read by outer selections: what a selection needs, in one gather.

    Parameters
    ----------
    source
        Values, not transposed: xarray would index lazy ones point by point from then on.
    along
        Their dimension of time.
    samples
        Which ones are taken.
    dtype
        Of the result.
    """

    source: xr.Variable
    along: Hashable
    samples: Samples
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Events, lags, and the other axes of the source."""
        return (*self.samples.shape, *(self.source.sizes[dim] for dim in self._others))

    @property
    def chunks(self) -> tuple[int, ...]:
        """One event, all lags, and the other axes as they are best read."""
        preferred = self.source.encoding.get("preferred_chunks", {})
        others = (preferred.get(dim, self.source.sizes[dim]) for dim in self._others)
        return (1, self.samples.shape[1], *others)

    @property
    def _others(self) -> tuple[Hashable, ...]:
        return tuple(dim for dim in self.source.dims if dim != self.along)

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Read a selection."""
        selection = select(key, self.shape)
        events, lags, *others = selection.axes
        positions, taken = _needed(self.samples.at(np.asarray(events, np.intp), np.asarray(lags, np.intp)))
        indexers = dict(zip(self._others, map(_as_key, others), strict=True))
        read = self.source.isel({self.along: positions, **indexers}).values
        values = np.moveaxis(read, self.source.dims.index(self.along), 0)
        return placed(values, taken, self.dtype).reshape(selection.final_shape)

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""
        return await asyncio.to_thread(self.read, key)

    def __dask_tokenize__(self) -> Hashable:
        from dask.base import tokenize

        return ("PeriEventArray", tokenize(self.source, self.along, self.samples, self.dtype.str))


def placed(values: NDArray[Any], taken: Taken, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Put samples where they belong.

    Parameters
    ----------
    values
        Samples, (sample, ...).
    taken
        Which of them go where, (event, lag).
    dtype
        Of the result; where a sample is missing it is NaN.

    Returns
    -------
    numpy.ndarray
        (event, lag, ...).
    """
    missing = taken.first < 0
    if not len(values):
        return np.full((*missing.shape, *values.shape[1:]), missing_value(dtype), dtype)
    found = values[np.where(missing, 0, taken.first)]
    if taken.second is not None and taken.weight is not None:
        weight = taken.weight.reshape(*missing.shape, *(1 for _ in values.shape[1:]))
        following = values[np.where(missing, 0, taken.second)]
        # In 64 bits, and so that an unweighted NaN or infinity does not spread.
        between = found.astype(np.result_type(found, np.float64))
        with np.errstate(invalid="ignore"):
            np.copyto(between, between * (1 - weight) + following * weight, where=weight > 0)
        found = between
    found = found.astype(dtype, copy=False)
    if missing.any():
        found[missing] = missing_value(dtype)
    return found


def _needed(taken: Taken) -> tuple[slice | NDArray[np.int64], Taken]:
    """The samples to read, ascending and each once, and what is taken counted among them."""
    runs = Runs.of(*_extents(taken))
    if runs.size > 2 * taken.first.size:
        # Few samples, far apart: those between them are not worth their memory.
        sides = [side[side >= 0] for side in (taken.first, taken.second) if side is not None]
        each = np.concatenate(sides)
        runs = Runs.of(each, each + 1)
    return runs.positions(), _moved(taken, runs)


def _moved(taken: Taken, runs: Runs) -> Taken:
    """Samples as positions among runs that hold all of them."""
    first, second = (
        None if side is None or not runs.size else np.where(side < 0, -1, runs.places(side))
        for side in (taken.first, taken.second)
    )
    return Taken(taken.first if first is None else first, second, taken.weight)


def _extents(taken: Taken) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The interval of samples that each event takes: starts and stops, equal where it takes none."""
    sides = [side for side in (taken.first, taken.second) if side is not None]
    highest = np.max([side.max(axis=1, initial=-1) for side in sides], axis=0)
    far = np.iinfo(np.int64).max
    lowest = np.min([np.where(side < 0, far, side).min(axis=1, initial=far) for side in sides], axis=0)
    return np.where(highest < 0, 0, lowest), highest + 1


def _as_key(positions: range | NDArray[np.intp]) -> slice | NDArray[np.intp]:
    if isinstance(positions, range) and positions.step > 0:
        return slice(positions.start, positions.stop, positions.step)
    return np.asarray(positions, np.intp)


def _of_dask(data: Any, samples: Samples, dtype: np.dtype[Any]) -> Any:
    """A dask array of blocks that each are a group of events."""
    import dask.array as da

    samples = samples.located()
    events, lags = samples.shape
    starts, stops = np.zeros((2, events), np.int64)
    for some in batches(samples):
        starts[some], stops[some] = _extents(samples.at(some, np.arange(lags)))
    others = data.chunks[1:]
    sample = max(dtype.itemsize, data.dtype.itemsize) * prod(max(widths, default=1) for widths in others)
    groups = grouped(np.maximum(stops - starts, lags) * sample, target())
    blocks = [_block(data, samples.take(group), starts[group], stops[group], dtype) for group in groups]
    if blocks:
        return da.concatenate(blocks)  # type: ignore[no-untyped-call]
    return da.zeros((events, lags, *data.shape[1:]), dtype=dtype, chunks=(1, lags, *others))


def _block(
    data: Any, samples: Samples, starts: NDArray[np.int64], stops: NDArray[np.int64], dtype: np.dtype[Any]
) -> Any:
    import dask.array as da

    others = data.chunks[1:]
    found = sliced(data, starts, stops)
    if found is None:
        shape = (*samples.shape, *data.shape[1:])
        return da.full(shape, missing_value(dtype), dtype=dtype, chunks=(*samples.shape, *others))  # type: ignore[no-untyped-call]
    values, runs = found
    return da.map_blocks(  # type: ignore[no-untyped-call]
        partial(_aligned, samples=samples, runs=runs, dtype=dtype),
        values,
        dtype=dtype,
        chunks=(*((length,) for length in samples.shape), *others),
        new_axis=1,
        meta=np.empty((0,) * (data.ndim + 1), dtype),
    )


def _aligned(values: NDArray[Any], samples: Samples, runs: Runs, dtype: np.dtype[Any]) -> NDArray[Any]:
    taken = samples.at(*(np.arange(length) for length in samples.shape))
    return placed(values, _moved(taken, runs), dtype)


def _dtype(dtype: np.dtype[Any], interpolates: bool, whole: bool) -> np.dtype[Any]:
    if interpolates and dtype.kind not in "biufc":
        raise OptionError(
            f"method='linear' cannot interpolate values of {dtype}; use 'nearest' or 'ffill', or leave such "
            "variables out."
        )
    return dtype if whole and not interpolates else with_missing(dtype)


def with_missing(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of values some of which are missing: integers and booleans become float64, text objects."""
    if dtype.kind in "fcOmM":
        return dtype
    return np.dtype(np.float64) if dtype.kind in "biu" else np.dtype(object)


def missing_value(dtype: np.dtype[Any]) -> Any:
    """What stands for a missing value: NaN, or NaT of datetimes."""
    return np.array("NaT", dtype) if dtype.kind in "mM" else np.nan
