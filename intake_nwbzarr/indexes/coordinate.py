"""Time coordinates as xarray variables: computed, read from the file, or in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import normalize_token
from xarray.backends import BackendArray
from xarray.indexes import CoordinateTransform, CoordinateTransformIndex, PandasIndex

from intake_nwbzarr.arrays.dask_tokens import Identified
from intake_nwbzarr.indexes.timestamps import Floats, TimestampView, is_in_memory
from intake_nwbzarr.xarray_internals import (
    ExplicitIndexer,
    LazilyIndexedArray,
    outer_indexed,
    outer_indexed_async,
)


def time_variable(
    view: TimestampView,
    dim: str,
    name: Hashable,
    attributes: Mapping[str, Any],
    encoding: Mapping[str, Any],
) -> xr.Variable:
    """Return the variable of a time coordinate: float64 seconds, read-only, lazy unless in memory."""
    variable: xr.Variable
    if view.timestamps.computed:
        (made,) = CoordinateTransformIndex(_ViewTransform(view, dim, name)).create_variables().values()
        variable = _TimeVariable((dim,), made)
    elif is_in_memory(view):
        index = PandasIndex(pd.Index(view.values(), name=name, copy=False), dim, np.dtype(np.float64))
        (variable,) = index.create_variables().values()
    else:
        variable = _TimeVariable((dim,), LazilyIndexedArray(_StoredTimes(view)))
    variable.attrs = dict(attributes)
    variable.encoding = dict(encoding)
    return variable


class _TimeVariable(xr.Variable):
    """A lazy time coordinate that `Dataset.chunk` leaves unchanged."""

    # Like every coordinate of a pandas index. As a dask array it would be computed again with each use, and
    # `xarray.open_groups` gives the times of different groups one name in the graph (xarray 2026.9).

    def chunk(self, chunks: Any = {}, *arguments: Any, **keywords: Any) -> Any:  # noqa: ARG002, B006
        """Return itself, as `xarray.IndexVariable.chunk` does."""
        return self.copy(deep=False)


class _ViewTransform(Identified, CoordinateTransform):
    """A view of regular timestamps, as the transform of a lazy xarray coordinate."""

    def __init__(self, view: TimestampView, dim: str, name: Hashable) -> None:
        super().__init__((name,), {dim: len(view)}, dtype=np.dtype(np.float64))
        self.view = view

    def forward(self, dim_positions: dict[str, Any]) -> dict[Hashable, Any]:
        (positions,) = dim_positions.values()
        return {self.coord_names[0]: _read_only(self.view.at(positions))}

    def __dask_tokenize__(self) -> object:
        return normalize_token(self.view)


class _StoredTimes(Identified, BackendArray):
    """A view of stored timestamps, as an xarray backend array."""

    def __init__(self, view: TimestampView) -> None:
        self.view = view
        self.shape = (len(view),)
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, key: ExplicitIndexer) -> Floats:
        result: Floats = outer_indexed(key, self.shape, self._read)
        return result

    async def async_getitem(self, key: ExplicitIndexer) -> Floats:
        result: Floats = await outer_indexed_async(key, self.shape, self._read_async)
        return result

    def __dask_tokenize__(self) -> object:
        return normalize_token(self.view)

    def _read(self, key: tuple[Any, ...]) -> Any:
        (selected,) = key
        part = self.view[selected].values() if isinstance(selected, slice) else self.view.at(selected)
        return _read_only(part)

    async def _read_async(self, key: tuple[Any, ...]) -> Any:
        return await asyncio.to_thread(self._read, key)


def _read_only(times: Any) -> Any:
    """Make times read-only, as pandas does: a coordinate changed in place would not match its index."""
    if isinstance(times, np.ndarray):
        times.flags.writeable = False
    return times
