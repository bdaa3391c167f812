"""Compact Datasets: CF's contiguous ragged arrays, with the values of the selected rows and no others."""

from __future__ import annotations

import xarray as xr

from intake_nwbzarr.accessor.ragged.bounds import (
    ROWS,
    SAMPLE_DIMENSION,
    Places,
    divided_by,
    find_places,
    level_of,
    levels_of,
    rows_digest,
    run_positions,
)
from intake_nwbzarr.errors import SelectionError


def compact(dataset: xr.Dataset) -> xr.Dataset:
    """A Dataset with CF's contiguous ragged arrays; see `intake_nwbzarr.accessor.NWBAccessor.compact`."""
    places = find_places(dataset)
    # Outer levels first: what they select are the rows of the inner ones.
    for path in sorted(places, key=lambda path: _depth(dataset, path, places)):
        dataset = _with_contiguous(dataset, path, places)
    return dataset


def _depth(dataset: xr.Dataset, path: str, places: Places) -> int:
    divided = divided_by(dataset, path)
    return len(levels_of(dataset, divided, places)) if divided is not None else 0


def _with_contiguous(dataset: xr.Dataset, path: str, places: Places) -> xr.Dataset:
    divided = divided_by(dataset, path)
    if divided is None:  # its bounds were kept without it, and have nothing to follow
        return dataset
    level = level_of(dataset, divided, places[path])
    if level.count.ndim > 1:
        raise SelectionError(
            f"{level.name!r} lies along {level.count.dims}, where one dimension of rows was expected: they "
            "were rearranged. Make the Dataset compact before, or stack them to one dimension."
        )
    starts, counts = level.read(range(level.count.size))
    dimension = dataset.variables[divided].dims[0]
    dataset = dataset.isel({dimension: run_positions(starts, counts)})
    dataset = dataset.drop_vars(places[path].get("start", []))
    attributes = {**level.count.attrs, SAMPLE_DIMENSION: dimension, "ragged_length": int(counts.sum())}
    count = xr.Variable(level.count.dims, counts.reshape(level.count.shape), attributes)
    dataset = dataset.assign({level.name: count})
    dataset[level.name].attrs[ROWS] = rows_digest(dataset, count)
    return dataset
