"""Dask tokens of lazy variables, computed from the stored object and the selection without reading data.

xarray hashes ``variable.data``, which reads all of a lazy variable (and caches it): dask's
``client.submit(function, dataset)`` would read a whole session only to name the task (xarray 2026.9). dask
looks up the type in a registry before it asks the object, so this module registers the types there.
Variables that hold no array of this package keep the token that they have without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import xarray as xr
from dask.base import normalize_token

from intake_nwbzarr.xarray_internals import (
    CoordinateTransformIndexingAdapter,
    CopyOnWriteArray,
    LazilyIndexedArray,
    LazilyVectorizedIndexedArray,
    MemoryCachedArray,
    lazy_data,
    transform_of,
)


class Identified:
    """Base class of lazy data of a variable that have a dask token without being read."""

    def __dask_tokenize__(self) -> object:
        """Return an object that identifies the values, equal in every process."""
        raise NotImplementedError


def token_of_data(data: Any) -> object:
    """Return the token of lazy data of this package inside xarray's wrappers, None for other data."""
    match data:
        case Identified():
            return normalize_token(data)
        case MemoryCachedArray() | CopyOnWriteArray():
            return token_of_data(data.array)
        case LazilyIndexedArray() | LazilyVectorizedIndexedArray():
            inner = token_of_data(data.array)
            selected = _selection(data.key.tuple, data.array.shape)
            if inner is None or selected is None:
                return inner
            return type(data).__name__, inner, normalize_token(selected)
        case CoordinateTransformIndexingAdapter():
            transform, *others = transform_of(data)
            inner = token_of_data(transform)
            return None if inner is None else (inner, normalize_token(others))
        case _:
            return None


def _selection(key: tuple[Any, ...], shape: tuple[int, ...]) -> list[Any] | None:
    """Return a selection with normalized slices, None where it selects everything."""
    selected = [
        part.indices(size) if isinstance(part, slice) else part
        for part, size in zip(key, shape, strict=False)  # a key of points may have fewer axes
    ]
    whole = all(
        isinstance(part, slice) and part.indices(size) == (0, size, 1)
        for part, size in zip(key, shape, strict=False)
    )
    return None if whole else selected


def _register(kind: type, token: Callable[[Any], object]) -> None:
    """Register a token function for a type; where it returns None, the earlier function is used."""
    before = normalize_token.dispatch(kind)  # type: ignore[no-untyped-call]

    def normalize(item: Any) -> object:
        found = token(item)
        return before(item) if found is None else found

    normalize_token.register(kind, normalize)  # type: ignore[no-untyped-call]


def _variable_token(variable: xr.Variable) -> object:
    data = token_of_data(lazy_data(variable))
    if data is None:
        return None
    return normalize_token(("intake_nwbzarr.lazy_variable", variable.dims, data, variable.attrs))


def _coordinates_token(coordinates: xr.Coordinates) -> object:
    dataset = coordinates.to_dataset()
    return normalize_token(dataset) if _has_lazy_data([dataset]) else None


def _tree_token(tree: xr.DataTree) -> object:
    nodes = {
        path: node.to_dataset(inherit=node is tree)  # child nodes inherit coordinates
        for path, node in tree.subtree_with_keys
    }
    return (
        normalize_token(("intake_nwbzarr.tree", tree.name, nodes)) if _has_lazy_data(nodes.values()) else None
    )


def _has_lazy_data(datasets: Iterable[xr.Dataset]) -> bool:
    variables = (each for dataset in datasets for each in dataset.variables.values())
    return any(token_of_data(lazy_data(each)) is not None for each in variables)


_register(xr.Variable, _variable_token)
# Without these, dask pickles them, to different bytes in every process.
_register(xr.Coordinates, _coordinates_token)
_register(xr.DataTree, _tree_token)
