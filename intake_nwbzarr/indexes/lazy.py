"""What both time indexes share: an xarray index over timestamps that stay where they are."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, Self, cast

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from xarray.indexes import Index, PandasIndex

from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.indexes.timestamps import Positions, TimestampView, as_labels
from intake_nwbzarr.xarray_internals import IndexSelResult

IN_MEMORY_LIMIT = 10**7
"""The most timestamps (80 MB of them) that an operation may bring into memory as a pandas index by itself."""


class LazyTimeIndex(Index):
    """An index of one time coordinate, over a view of timestamps that are computed or read when needed.

    Selection by label follows pandas on a sorted index: slices include both ends and every repeated time, a
    scalar that several samples share selects them all. A list of labels, or a method, that meets a repeated
    time raises. Selecting a slice of positions gives an index of the same kind; selecting single positions,
    by integers or booleans, gives a `PandasIndex` of those timestamps in memory. Alignment and concatenation
    stay lazy for pieces of one recording, and go through pandas otherwise, for at most `IN_MEMORY_LIMIT`
    timestamps.

    xarray aligns indexes of one class only: with a `PandasIndex` of other timestamps it raises
    `AlignmentError`. ``dataset.drop_indexes("time").set_xindex("time")`` brings all timestamps into memory
    and serves everything.
    """

    def __init__(
        self, view: TimestampView, dim: str, name: Hashable, attributes: Mapping[str, Any] | None = None
    ) -> None:
        self.view = view
        self.dim = dim
        self.name = name
        self.attributes = dict(attributes or {})

    def coordinates(self) -> xr.Coordinates:
        """Give the time coordinate, with this index, for `xarray.Dataset(coords=...)`."""
        return xr.Coordinates.from_xindex(self)

    @property
    def size(self) -> int:
        """The number of samples along time."""
        return len(self.view)

    @property
    def index(self) -> pd.Index:
        """The timestamps as pandas holds them."""
        # `PandasIndex.concat` asks every piece for `dim`, `index` and `coord_dtype`, whatever class it has.
        return self.to_pandas_index()

    @property
    def coord_dtype(self) -> np.dtype[Any]:
        """The type of every timestamp: float64."""
        return np.dtype(np.float64)

    def to_pandas_index(self) -> pd.Index:
        """Bring every timestamp into memory.

        Raises
        ------
        SelectionError
            For more than `IN_MEMORY_LIMIT` timestamps.
        """
        if self.size > IN_MEMORY_LIMIT:
            raise SelectionError(
                f"This needs all {self.size} timestamps of '{self.name}' in memory as a pandas index, more "
                f"than {IN_MEMORY_LIMIT}: select a slice of time first, or bring them into memory on purpose "
                f"with ds.drop_indexes({self.name!r}).set_xindex({self.name!r})."
            )
        return pd.Index(self.view.values(), name=self.name)

    def isel(self, indexers: Mapping[Any, int | slice | np.ndarray[Any, Any] | xr.Variable]) -> Index | None:
        """Select by position: a slice stays lazy, an array of positions is brought into memory."""
        indexer = indexers[self.dim]
        if isinstance(indexer, xr.Variable):
            if indexer.dims != (self.dim,):
                return None
            indexer = indexer.data
        if isinstance(indexer, slice):
            return self._replace(view=self.view[indexer])
        positions = np.asarray(indexer)
        if positions.ndim != 1:
            return None
        if positions.dtype.kind == "b":
            positions = np.flatnonzero(positions)
        return self._pandas(pd.Index(self.view.at(positions), name=self.name))

    def sel(
        self, labels: dict[Any, Any], method: str | None = None, tolerance: ArrayLike | None = None
    ) -> IndexSelResult:
        """Select by time in seconds: a number, an array of any shape, or a slice that includes its ends."""
        (label,) = labels.values()
        if isinstance(label, slice):
            if method is not None or tolerance is not None:
                raise SelectionError(
                    f"A slice of '{self.name}' includes both ends and takes neither method nor tolerance; "
                    f"found method={method!r}, tolerance={tolerance!r}."
                )
            return IndexSelResult({self.dim: self._positions_of_slice(label)})
        raw = label.values if isinstance(label, xr.Variable | xr.DataArray) else np.asarray(label)
        if raw.dtype.kind == "b" and raw.ndim == 1:
            return IndexSelResult({self.dim: label})  # a mask, as for every index of xarray
        positions = self._positions(as_labels(raw), method, tolerance)
        if isinstance(positions, slice):
            return IndexSelResult({self.dim: positions})
        if isinstance(label, xr.Variable):
            return IndexSelResult({self.dim: xr.Variable(label.dims, positions)})
        if isinstance(label, xr.DataArray):
            return IndexSelResult({self.dim: xr.DataArray(positions, coords=label.coords, dims=label.dims)})
        return IndexSelResult({self.dim: positions})

    def equals(self, other: Index, *, exclude: frozenset[Hashable] | None = None) -> bool:  # noqa: ARG002
        """Compare exactly: the same dimension, and every timestamp equal."""
        return isinstance(other, LazyTimeIndex) and self.dim == other.dim and self.view.equals(other.view)

    def join(self, other: Index, how: str = "inner") -> Index:  # type: ignore[override]
        """Combine two indexes: lazily where both are slices of one recording, by pandas otherwise."""
        # xarray reduces over this function unbound, so `self` may be what an earlier join gave.
        if isinstance(self, LazyTimeIndex) and isinstance(other, LazyTimeIndex):
            joined = _joined(self.view, other.view, how)
            if joined is not None:
                return self._replace(view=joined)
        return in_memory(self).join(in_memory(other), how)

    def reindex_like(
        self, other: Index, method: str | None = None, tolerance: ArrayLike | None = None
    ) -> dict[Hashable, Positions]:
        """Find another index's timestamps in this one: positions, -1 where absent."""
        if isinstance(other, LazyTimeIndex) and other.size <= IN_MEMORY_LIMIT and method is tolerance is None:
            positions = self.view.positions_of(other.view)
            if positions is not None:
                return {self.dim: positions}
        wanted = as_labels(in_memory(other).index)
        return {self.dim: self.view.locate(wanted, method, tolerance)}

    @classmethod
    def concat(  # type: ignore[override]
        cls, indexes: Sequence[Index], dim: Hashable, positions: Iterable[Iterable[int]] | None = None
    ) -> Index:
        """Put indexes one after the other: lazily where they continue one recording, in memory otherwise."""
        pieces = [index for index in indexes if isinstance(index, LazyTimeIndex) and index.dim == dim]
        if len(pieces) == len(indexes) and positions is None:
            view = reduce(
                _continued, (piece.view for piece in pieces[1:]), cast("TimestampView | None", pieces[0].view)
            )
            if view is not None:
                return pieces[0]._replace(view=view)
        total = sum(in_memory_size(index) for index in indexes)
        if total > IN_MEMORY_LIMIT:
            raise SelectionError(
                f"Concatenating {len(indexes)} pieces along '{dim}' that do not continue one recording needs "
                f"their {total} timestamps in memory, more than {IN_MEMORY_LIMIT}: select slices of time "
                "first."
            )
        return PandasIndex.concat([in_memory(index) for index in indexes], dim, positions)

    def roll(self, shifts: Mapping[Any, int]) -> Index | None:  # type: ignore[override]
        """Rotate the timestamps, in memory."""
        return in_memory(self).roll(shifts)

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Self:
        """Give the coordinate or its dimension another name."""
        return self._replace(
            name=name_dict.get(self.name, self.name), dim=str(dims_dict.get(self.dim, self.dim))
        )

    def copy(self, deep: bool = True) -> Self:  # noqa: ARG002
        """Give another index of the same timestamps; they never change, so they are shared."""
        return self._replace()

    def __copy__(self) -> Self:
        return self._replace()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self._replace()

    def _replace(
        self, *, view: TimestampView | None = None, dim: str | None = None, name: Hashable | None = None
    ) -> Self:
        return type(self)(
            self.view if view is None else view,
            self.dim if dim is None else dim,
            self.name if name is None else name,
            self.attributes,
        )

    def _pandas(self, index: pd.Index) -> PandasIndex:
        return PandasIndex(index, self.dim, coord_dtype=self.coord_dtype)

    def _positions_of_slice(self, label: slice) -> slice:
        ends = [None if end is None else as_labels(end) for end in (label.start, label.stop)]
        if any(end is not None and (end.ndim or np.isnan(end)) for end in ends):
            raise SelectionError(
                f"{label!r} is not a slice of '{self.name}': its ends must be single numbers of seconds."
            )
        step = label.step
        if step is not None and (not isinstance(step, int | np.integer) or step == 0):
            raise SelectionError(
                f"A slice of '{self.name}' takes every step-th sample: its step must be a whole number other "
                f"than zero, found {step!r}."
            )
        start, stop = (None if end is None else float(end) for end in ends)
        return self.view.locate_slice(start, stop, None if step is None else int(step))

    def _positions(
        self, labels: np.ndarray[Any, np.dtype[np.float64]], method: str | None, tolerance: ArrayLike | None
    ) -> int | slice | Positions:
        if labels.ndim == 0 and method is None and tolerance is None:
            position = self.view.locate_one(float(labels))
            if position is None:
                raise self._not_found(labels.reshape(1), method, tolerance)
            return position
        flat = labels.ravel()
        found = self.view.locate(flat, method, tolerance)
        if np.any(found < 0):
            raise self._not_found(flat[found < 0], method, tolerance)
        return int(found[0]) if labels.ndim == 0 else found.reshape(labels.shape)

    def _not_found(
        self, labels: np.ndarray[Any, np.dtype[np.float64]], method: str | None, tolerance: ArrayLike | None
    ) -> SelectionError:
        shown = ", ".join(repr(float(label)) for label in labels[:3]) + (", ..." if len(labels) > 3 else "")
        if not self.size:
            return SelectionError(f"There is no {shown} s along '{self.name}': it holds no samples.")
        if method is None:
            return SelectionError(
                f"No sample along '{self.name}' is at exactly {shown} s; add method='nearest', or select a "
                "slice."
            )
        limit = "" if tolerance is None else f" within {tolerance} s"
        return SelectionError(f"method={method!r} finds no sample along '{self.name}' for {shown} s{limit}.")


def in_memory(index: Index) -> PandasIndex:
    """Give an index as pandas holds it, within `IN_MEMORY_LIMIT`."""
    if isinstance(index, PandasIndex):
        return index
    if isinstance(index, LazyTimeIndex):
        return index._pandas(index.to_pandas_index())
    raise SelectionError(f"A time index cannot be combined with {index!r}.")


def in_memory_size(index: Index) -> int:
    """Count the samples of an index."""
    return index.size if isinstance(index, LazyTimeIndex) else len(in_memory(index).index)


def _joined(left: TimestampView, right: TimestampView, how: str) -> TimestampView | None:
    """Intersect or unite two slices of one recording; None where the result is not such a slice."""
    a, b = left.samples, right.samples
    if left.timestamps != right.timestamps or not a or not b or a.step != b.step:
        return None
    if a.step < 0:
        # pandas keeps the order of what two descending indexes share, and sorts their union.
        shared = _joined(left[::-1], right[::-1], how) if how == "inner" else None
        return None if shared is None else shared[::-1]
    if (a.start - b.start) % a.step:
        return None
    if how == "inner":
        return TimestampView(left.timestamps, range(max(a[0], b[0]), min(a[-1], b[-1]) + a.step, a.step))
    if max(a[0], b[0]) > min(a[-1], b[-1]) + a.step:
        return None
    return TimestampView(left.timestamps, range(min(a[0], b[0]), max(a[-1], b[-1]) + a.step, a.step))


def _continued(left: TimestampView | None, right: TimestampView) -> TimestampView | None:
    """Join two slices where the second starts one stride after the first ends; None where it does not."""
    if left is None or left.timestamps != right.timestamps:
        return None
    a, b = left.samples, right.samples
    if not a or not b:
        return right if not a else left
    step = b[0] - a[-1]
    if not step:
        return None
    whole = range(a[0], b[-1] + (1 if step > 0 else -1), step)
    together = len(whole) == len(a) + len(b) and whole[: len(a)] == a and whole[len(a) :] == b
    return TimestampView(left.timestamps, whole) if together else None
