"""Datasets of dask arrays, in chunks that lie well on the stored ones."""

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

# Values of a coordinate, at most, that are cheaper to read at once than to hand out as tasks.
SMALL_COORDINATE = 100_000


def open_dask(
    location: Location, group: Group | None, chunks: Any, keywords: Mapping[str, Any]
) -> xr.Dataset:
    """The session, or some of its objects, as a Dataset of dask arrays.

    What `xarray.open_dataset` does with ``chunks``, with these differences. Coordinates with an index stay as
    they are (a time index computes or bisects its times, which tasks could only slow down), and so do the
    labels along a dimension, unless there are very many: they are read when they are used, as ``groupby`` and
    masks want them. Smaller chunks than the preferred ones are no reason for a warning (those are multiples
    of the stored chunks). The names of tasks are the same wherever and whenever the session is opened.

    Parameters
    ----------
    location, group, keywords
        What to open, and how.
    chunks
        By dimension, or one for all: a length, -1 for the whole dimension, or bytes such as ``"64MB"``, by
        which the first dimension of numeric arrays is cut. Dimensions not named get whole multiples of the
        stored chunks, and so do all with ``{}`` and ``"auto"``, and strings where bytes are given. None: no
        dask arrays; variables are read as NumPy arrays when they are used, as tasks on a cluster want them.

    Raises
    ------
    OptionError
        When `chunks` is none of these.
    """
    import xarray as xr

    wanted = _checked(chunks)
    dataset = xr.open_dataset(location, engine="nwbzarr", group=group, **keywords)  # type: ignore[arg-type]
    if chunks is None:
        return dataset
    opened = _token(location, dataset, group, keywords)
    return _chunked(dataset, wanted, opened)


def open_dask_tree(
    location: Location, group: Group | None, chunks: Any, keywords: Mapping[str, Any]
) -> xr.DataTree:
    """The session, or a part of it, as a DataTree of dask arrays.

    Parameters
    ----------
    location, group, chunks, keywords
        As for `open_dask`.

    Raises
    ------
    OptionError
        When `chunks` is none of what `open_dask` takes.
    """
    import xarray as xr
    from dask.base import tokenize

    wanted = _checked(chunks)
    tree = xr.open_datatree(location, engine="nwbzarr", group=group, **keywords)  # type: ignore[arg-type]
    if chunks is None:
        return tree
    opened = _token(location, tree, group, keywords)
    datasets = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    return xr.DataTree.from_dict(
        {path: _chunked(dataset, wanted, tokenize(opened, path)) for path, dataset in datasets.items()}
    )


def _token(
    location: Location, opened: xr.Dataset | xr.DataTree, group: Group | None, keywords: Mapping[str, Any]
) -> str:
    """What names the tasks: what was opened, and not how its metadata were had."""
    from dask.base import tokenize

    shown = {name: value for name, value in keywords.items() if name not in {"snapshot", "verify"}}
    token: str = tokenize(location, opened.encoding.get("etag"), group, shown)
    return token


def _chunked(dataset: xr.Dataset, wanted: Any, opened: str) -> xr.Dataset:
    """A Dataset's lazy variables as dask arrays, but for indexes and labels; named for what was opened."""
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
        sizes = _sizes(variable, wanted)
        try:
            chunked[name] = variable.chunk(sizes, name=f"{name}-{tokenize(opened, name, str(sizes))}")
        except ValueError as error:
            raise OptionError(
                f"{name!r}, with {dict(variable.sizes)}, cannot be divided into chunks of {sizes}: lengths "
                "of chunks that are listed must add up to the dimension's."
            ) from error
    return dataset.assign(chunked)


def _checked(chunks: Any) -> Mapping[Hashable, Any] | Any:
    """What `chunks` asks for, by dimension or for all, bytes as a float; None for the preferred chunks."""
    if isinstance(chunks, Mapping):
        return {dim: _checked_one(size) for dim, size in chunks.items()}
    return _checked_one(chunks)


def _checked_one(size: Any) -> Any:
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
    raise OptionError(
        f"chunks holds {describe_value(size)}; it should be a length, -1 for a whole dimension, bytes such "
        "as '64MB', 'auto', or a dict of these by dimension. "
        "{} is whole multiples of the stored chunks, None no dask."
    )


def _sizes(variable: xr.Variable, wanted: Any) -> dict[Hashable, Any]:
    """The chunks of one variable, by dimension."""
    preferred: dict[Hashable, int] = variable.encoding["preferred_chunks"]
    asked = {dim: wanted.get(dim) if isinstance(wanted, Mapping) else wanted for dim in variable.dims}
    sizes = preferred | {dim: size for dim, size in asked.items() if isinstance(size, int | tuple)}
    cut = [dim for dim, size in asked.items() if isinstance(size, float)]
    if cut and variable.dtype.kind != "O":
        dim, lengths = cut[0], variable.sizes
        others = [_longest(sizes[other], lengths[other]) for other in variable.dims if other != dim]
        width = int(asked[dim] / max(1, prod(others) * variable.dtype.itemsize))
        if width > preferred[dim]:
            width -= width % preferred[dim]
        sizes[dim] = max(1, min(width, lengths[dim]))
    return sizes


def _longest(size: int | tuple[int, ...], length: int) -> int:
    longest = max(size) if isinstance(size, tuple) else size
    return length if longest == -1 else min(longest, length)
