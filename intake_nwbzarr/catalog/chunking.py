"""Dask-backed Datasets and DataTrees, with dask chunks aligned to the stored chunks."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from math import prod
from numbers import Integral
from typing import TYPE_CHECKING, Any

from intake_nwbzarr.arguments import describe_value
from intake_nwbzarr.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

    from intake_nwbzarr.location.location import Location
    from intake_nwbzarr.mapping.find import Group

# Up to this many values, reading a whole coordinate is cheaper than dividing it into dask tasks.
SMALL_COORDINATE = 100_000


def open_dask(
    location: Location, group: Group | None, chunks: Any, keywords: Mapping[str, Any]
) -> xr.Dataset:
    """Open a session, or some of its objects, as a Dataset of dask arrays.

    Works like `xarray.open_dataset` with ``chunks``, except that

    - indexed coordinates are not chunked (a time index computes or bisects its times without reading), nor
      are one-dimensional labels, unless they are very long: they are read when used, as ``groupby`` needs;
    - chunks smaller than the preferred ones, which are multiples of the stored chunks, give no warning;
    - task names do not depend on when, or in which process, the session is opened.

    Parameters
    ----------
    location, group, keywords
        The session, the objects in it, and other keywords of `xarray.open_dataset`.
    chunks
        One value, or a dict of values by dimension: a length; -1 for the whole dimension; or bytes such as
        ``"64MB"``, which set the length of the first dimension of numeric arrays. Other dimensions, string
        arrays where bytes are given, and all dimensions with ``{}`` or ``"auto"`` get whole multiples of the
        stored chunks. With None, variables are lazy without dask, and read as NumPy arrays when used.

    Raises
    ------
    OptionError
        When `chunks` is not valid.
    """
    import xarray as xr

    parsed = _parse_chunks(chunks)
    dataset = xr.open_dataset(location, engine="nwbzarr", group=group, **keywords)  # type: ignore[arg-type]
    if chunks is None:
        return dataset
    opened = _token(location, dataset, group, keywords)
    return _chunked(dataset, parsed, opened)


def open_dask_tree(
    location: Location, group: Group | None, chunks: Any, keywords: Mapping[str, Any]
) -> xr.DataTree:
    """Open a session, or some of its objects, as a DataTree of dask arrays; arguments as for `open_dask`."""
    import xarray as xr
    from dask.base import tokenize

    parsed = _parse_chunks(chunks)
    tree = xr.open_datatree(location, engine="nwbzarr", group=group, **keywords)  # type: ignore[arg-type]
    if chunks is None:
        return tree
    opened = _token(location, tree, group, keywords)
    datasets = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    return xr.DataTree.from_dict(
        {path: _chunked(dataset, parsed, tokenize(opened, path)) for path, dataset in datasets.items()}
    )


def _token(
    location: Location, opened: xr.Dataset | xr.DataTree, group: Group | None, keywords: Mapping[str, Any]
) -> str:
    """Return a token of the opened session, the same whether its metadata came from a snapshot or not."""
    from dask.base import tokenize

    identifying = {name: value for name, value in keywords.items() if name not in {"snapshot", "verify"}}
    token: str = tokenize(location, opened.encoding.get("etag"), group, identifying)
    return token


def _chunked(dataset: xr.Dataset, chunks: Any, opened: str) -> xr.Dataset:
    """Return a Dataset with its lazy variables as dask arrays, except for indexes and labels."""
    from dask.base import tokenize

    chunked = {}
    for name, variable in dataset.variables.items():
        if (
            "preferred_chunks" not in variable.encoding
            or variable.ndim == 0
            or name in dataset.xindexes
            or (name in dataset.coords and variable.ndim == 1 and variable.size <= SMALL_COORDINATE)
        ):
            continue
        sizes = _chunk_sizes(variable, chunks)
        try:
            chunked[name] = variable.chunk(sizes, name=f"{name}-{tokenize(opened, name, str(sizes))}")
        except ValueError as error:
            raise OptionError(
                f"{name!r} of shape {dict(variable.sizes)} cannot be divided into chunks of {sizes}.",
                path=str(name),
                found=sizes,
                expected=dict(variable.sizes),
                next_step="Listed chunk lengths must add up to the length of the dimension.",
            ) from error
    return dataset.assign(chunked)


def _parse_chunks(chunks: Any) -> Mapping[Hashable, Any] | Any:
    """Return `chunks` with bytes as floats and None for the preferred chunks, per dimension or for all."""
    if isinstance(chunks, Mapping):
        return {dim: _parse_chunk(size) for dim, size in chunks.items()}
    return _parse_chunk(chunks)


def _parse_chunk(size: Any) -> Any:
    from dask.utils import parse_bytes

    size = int(size) if isinstance(size, Integral) and not isinstance(size, bool) else size
    match size:
        case None:
            return None
        case str() if size == "auto":
            return None
        case bool():
            pass
        case int() if size == -1 or size > 0:
            return min(size, sys.maxsize)
        case list() | tuple() if size and all(isinstance(part, int) and part > 0 for part in size):
            return tuple(size)
        case str() if size.strip():
            try:
                parsed = float(parse_bytes(size))
            except ValueError:
                parsed = 0.0
            if parsed > 0:
                return parsed
    expected = (
        "a length, -1 for a whole dimension, bytes such as '64MB', 'auto', or a dict of these by dimension"
    )
    raise OptionError(
        f"chunks must be {expected}, not {describe_value(size)}.",
        found=describe_value(size),
        expected=expected,
        next_step="Pass {} for whole multiples of the stored chunks, or None for no dask arrays.",
    )


def _chunk_sizes(variable: xr.Variable, chunks: Any) -> dict[Hashable, Any]:
    """Return the chunk lengths of a variable by dimension."""
    preferred: dict[Hashable, int] = variable.encoding["preferred_chunks"]
    by_dim = {dim: chunks.get(dim) if isinstance(chunks, Mapping) else chunks for dim in variable.dims}
    sizes = preferred | {dim: size for dim, size in by_dim.items() if isinstance(size, int | tuple)}
    in_bytes = [dim for dim, size in by_dim.items() if isinstance(size, float)]
    if in_bytes and variable.dtype.kind != "O":
        dim, lengths = in_bytes[0], variable.sizes
        others = [_longest(sizes[other], lengths[other]) for other in variable.dims if other != dim]
        width = int(by_dim[dim] / max(1, prod(others) * variable.dtype.itemsize))
        if width > preferred[dim]:
            width -= width % preferred[dim]
        sizes[dim] = max(1, min(width, lengths[dim]))
    return sizes


def _longest(size: int | tuple[int, ...], length: int) -> int:
    longest = max(size) if isinstance(size, tuple) else size
    return length if longest == -1 else min(longest, length)
