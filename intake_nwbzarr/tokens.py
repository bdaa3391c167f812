"""Dask tokens of lazy variables: made of what is stored and selected, without reading any of it.

xarray hashes ``variable.data``, which for lazy data reads everything, and keeps it where it caches: dask's
``client.submit(function, dataset)`` would read a whole session only to name the task (xarray 2026.9). dask
looks a type up in a registry before it asks the object, so variables over this package's arrays are
recognised there; all others get the token that they have without this package.
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
    """Data of a variable that have a token without being read: a base for what xarray's wrappers hold."""

    def __dask_tokenize__(self) -> object:
        """What identifies the values, the same in every process."""
        raise NotImplementedError


def token_of_data(data: Any) -> object:
    """Identify lazy data of this package, as xarray wraps and selects them; None for any others."""
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
    """The same for the same selection, however its slices are written; None for everything."""
    selected = [
        part.indices(size) if isinstance(part, slice) else part
        for part, size in zip(key, shape, strict=False)  # a key of points may have axes fewer
    ]
    whole = all(
        isinstance(part, slice) and part.indices(size) == (0, size, 1)
        for part, size in zip(key, shape, strict=False)
    )
    return None if whole else selected


def _register(kind: type, token: Callable[[Any], object]) -> None:
    """Have dask ask `token` about objects of a type; what gives None is tokenized as before."""
    before = normalize_token.dispatch(kind)  # type: ignore[no-untyped-call]

    def normalize(item: Any) -> object:
        found = token(item)
        return before(item) if found is None else found

    normalize_token.register(kind, normalize)  # type: ignore[no-untyped-call]


def _of_variable(variable: xr.Variable) -> object:
    data = token_of_data(lazy_data(variable))
    if data is None:
        return None
    return normalize_token(("intake_nwbzarr.lazy_variable", variable.dims, data, variable.attrs))


def _of_coordinates(coordinates: xr.Coordinates) -> object:
    dataset = coordinates.to_dataset()
    return normalize_token(dataset) if _holds_ours([dataset]) else None


def _of_tree(tree: xr.DataTree) -> object:
    nodes = {
        path: node.to_dataset(inherit=node is tree)  # a branch has its parents' coordinates
        for path, node in tree.subtree_with_keys
    }
    return normalize_token(("intake_nwbzarr.tree", tree.name, nodes)) if _holds_ours(nodes.values()) else None


def _holds_ours(datasets: Iterable[xr.Dataset]) -> bool:
    variables = (each for dataset in datasets for each in dataset.variables.values())
    return any(token_of_data(lazy_data(each)) is not None for each in variables)


_register(xr.Variable, _of_variable)
# xarray gives these no token, and dask pickles them, to other bytes in every process.
_register(xr.Coordinates, _of_coordinates)
_register(xr.DataTree, _of_tree)
