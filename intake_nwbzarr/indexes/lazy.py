"""The index of a time coordinate: an xarray index over timestamps that stay where they are."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from xarray.indexes import Index, PandasIndex

from intake_nwbzarr.errors import BoundsError, SelectionError
from intake_nwbzarr.indexes import combine, presentation
from intake_nwbzarr.indexes.coordinate import time_variable
from intake_nwbzarr.indexes.in_memory import (
    IN_MEMORY_LIMIT,
    bring,
    cut,
    in_memory,
    is_in_memory,
    pick,
)
from intake_nwbzarr.indexes.interface import Floats, Positions
from intake_nwbzarr.indexes.labels import as_labels, positions_of_label
from intake_nwbzarr.indexes.regular_timestamps import RegularTimestamps, evenly_spaced
from intake_nwbzarr.indexes.timestamps import TimestampView
from intake_nwbzarr.xarray_internals import IndexSelResult


class LazyTimeIndex(Index):
    """An index of one time coordinate: over a regular time, stored timestamps, or timestamps in memory.

    `RegularTimeIndex.from_rate` and `IrregularTimeIndex.from_array` make them, and `isinstance` tells these
    kinds apart. The class is one, because xarray aligns indexes of one class only: whatever was selected from
    a recording aligns with the whole of it, and with any other recording's time.

    Selection by label follows pandas on a sorted index: slices include both ends and every repeated time, a
    scalar that several samples share selects them all. A list of labels, or a method, that meets a repeated
    time raises. Selecting a slice of positions gives an index of the same kind, and reads nothing; so do
    evenly spaced positions of a regular time. Other positions, by integers or booleans, bring their
    timestamps into memory. Alignment and concatenation stay lazy for pieces of one recording. Those of
    different recordings give timestamps in memory, at most `IN_MEMORY_LIMIT` of them.

    With a `PandasIndex` of other timestamps, such as that of labels given to ``reindex``, xarray raises
    `AlignmentError`. Give the labels this index (``IrregularTimeIndex.from_array(labels).coordinates()``), or
    bring all timestamps into memory: ``dataset.drop_indexes("time").set_xindex("time")``.
    """

    def __init__(
        self, view: TimestampView, dim: str, name: Hashable, attributes: Mapping[str, Any] | None = None
    ) -> None:
        self.view = view
        self.dim = dim
        self.name = name
        self.attributes = dict(attributes or {})
        self.sessions: frozenset[tuple[str | None, str | None]] = frozenset()
        """The sessions whose times these are, by identifier and location, where that was noted."""

    def coordinates(self) -> xr.Coordinates:
        """Give the time coordinate, with this index, for `xarray.Dataset(coords=...)`."""
        return xr.Coordinates.from_xindex(self)

    @property
    def size(self) -> int:
        """The number of samples along time."""
        return len(self.view)

    @property
    def starting_time(self) -> float | None:
        """The seconds at which a regular time's sample 0 is; None where there is no rate."""
        times = self.view.timestamps
        return times.starting_time if isinstance(times, RegularTimestamps) else None

    @property
    def rate(self) -> float | None:
        """Samples per second of a regular recording, whatever stride of it this is; None where irregular."""
        times = self.view.timestamps
        return times.rate if isinstance(times, RegularTimestamps) else None

    @property
    def as_regular(self) -> TimestampView | None:
        """These times as a rate gives them: also of times in memory that are evenly spaced but for rounding.

        None where they are irregular, or stored, for telling would take reading all of them.
        """
        if self.rate is not None:
            return self.view
        if not is_in_memory(self.view) or not self.view.timestamps.ascending:
            return None
        forwards = self.view.samples.step > 0
        even = evenly_spaced((self.view if forwards else self.view[::-1]).values())
        ahead = range(self.size)
        return None if even is None else TimestampView(even, ahead if forwards else ahead[::-1])

    @property
    def samples(self) -> range:
        """The sample numbers that this index holds: of the recording, or of what was picked from it."""
        return self.view.samples

    @property
    def index(self) -> pd.Index:
        """The timestamps as pandas holds them."""
        # `PandasIndex.concat` asks every piece for `dim`, `index` and `coord_dtype`, whatever class it has.
        return self.to_pandas_index()

    @property
    def coord_dtype(self) -> np.dtype[Any]:
        """The type of every timestamp: float64."""
        return np.dtype(np.float64)

    @classmethod
    def from_variables(
        cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]
    ) -> LazyTimeIndex:
        """Index a coordinate whose values are brought into memory, for `Dataset.set_xindex`.

        Raises
        ------
        MetadataError
            When the coordinate is not one-dimensional, or not of numbers.
        """
        from intake_nwbzarr.indexes.irregular import IrregularTimeIndex

        ((name, variable),) = variables.items()
        (dim,) = variable.dims if variable.ndim == 1 else (str(name),)
        return IrregularTimeIndex.from_array(variable.values, str(dim), name, variable.attrs, **options)

    def create_variables(
        self, variables: Mapping[Any, xr.Variable] | None = None
    ) -> dict[Hashable, xr.Variable]:
        """Give the time coordinate; its values are computed or read when asked for."""
        known = None if variables is None else variables.get(self.name)
        attributes = self.attributes if known is None else known.attrs
        encoding = {} if known is None else known.encoding
        return {self.name: time_variable(self.view, self.dim, self.name, attributes, encoding)}

    def to_pandas_index(self) -> pd.Index:
        """Bring every timestamp into memory.

        Raises
        ------
        SelectionError
            For more than `IN_MEMORY_LIMIT` timestamps.
        """
        return pd.Index(bring(self.view, self.name), name=self.name, copy=False)

    def isel(self, indexers: Mapping[Any, int | slice | np.ndarray[Any, Any] | xr.Variable]) -> Self | None:
        """Select by position: a slice, or an array of positions or of booleans.

        Raises
        ------
        BoundsError
            For a position outside of this time, or booleans that are fewer or more than its samples.
        """
        indexer = indexers[self.dim]
        if isinstance(indexer, xr.Variable):
            if indexer.dims != (self.dim,):
                return None
            indexer = indexer.data
        if isinstance(indexer, slice):
            return self._replace(view=cut(self.view, indexer))
        positions = np.asarray(indexer)
        if positions.ndim != 1:
            return None
        if positions.dtype.kind == "b":
            if len(positions) != self.size:
                raise BoundsError(
                    f"{len(positions)} booleans cannot select among {self.size} samples along '{self.name}'."
                )
            positions = np.flatnonzero(positions)
        return self._replace(view=pick(self.view, positions))

    def sel(
        self, labels: dict[Any, Any], method: str | None = None, tolerance: ArrayLike | None = None
    ) -> IndexSelResult:
        """Select by time in seconds: a number, an array of any shape, or a slice that includes its ends.

        Raises
        ------
        SelectionError
            For a label that is no number of seconds, is not there, or is the time of several samples where it
            may be of one only; and where stored timestamps that are met do not ascend.
        """
        (label,) = labels.values()
        return IndexSelResult({self.dim: positions_of_label(self.view, label, self.name, method, tolerance)})

    def equals(self, other: Index, *, exclude: frozenset[Hashable] | None = None) -> bool:  # noqa: ARG002
        """Compare exactly: the same dimension, and every timestamp equal."""
        return isinstance(other, LazyTimeIndex) and self.dim == other.dim and self.view.equals(other.view)

    def join(self, other: Index, how: str = "inner") -> Self:
        """Combine two indexes, for alignment; see `intake_nwbzarr.indexes.combine.join`."""
        joined = self._replace(view=combine.join(self.view, _view_of(other), how, self.name))
        joined.sessions |= _sessions_of(other)
        return joined

    def reindex_like(
        self, other: Index, method: str | None = None, tolerance: ArrayLike | None = None
    ) -> dict[Hashable, Positions]:
        """Find another index's timestamps in this one: positions, -1 where absent."""
        wanted = _view_of(other)
        if method is tolerance is None and len(wanted) <= IN_MEMORY_LIMIT:
            positions = self.view.positions_of(wanted)
            if positions is not None:
                return {self.dim: positions}
        return {self.dim: self.view.locate(bring(wanted, self.name), method, tolerance)}

    @classmethod
    def concat(
        cls, indexes: Sequence[Index], dim: Hashable, positions: Iterable[Iterable[int]] | None = None
    ) -> LazyTimeIndex:
        """Put indexes one after the other: lazily where they continue one recording, in memory otherwise."""
        first = next(index for index in indexes if isinstance(index, LazyTimeIndex))
        if any(getattr(index, "dim", dim) != dim for index in indexes):
            raise SelectionError(f"Not all of {list(indexes)} are along '{dim}', so they make no one time.")
        view = combine.concatenate([_view_of(index) for index in indexes], first.name)
        if positions is not None:
            order = np.argsort(np.concatenate([np.asarray(list(part)) for part in positions]), kind="stable")
            view = pick(view, order)
        whole = first._replace(view=view)
        whole.sessions = frozenset().union(*map(_sessions_of, indexes))
        return whole

    def roll(self, shifts: Mapping[Any, int]) -> Self:
        """Rotate the timestamps, in memory."""
        return self._replace(view=in_memory(np.roll(bring(self.view, self.name), shifts[self.dim])))

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

    def __repr__(self) -> str:
        return presentation.in_full(self.view, self.dim)

    def _repr_inline_(self, max_width: int) -> str:
        return presentation.in_brief(self.view)[:max_width]

    def _repr_html_(self) -> str:
        return presentation.as_html(self.view, self.dim)

    def _replace(
        self, *, view: TimestampView | None = None, dim: str | None = None, name: Hashable | None = None
    ) -> Self:
        replaced = type(self)(
            self.view if view is None else view,
            self.dim if dim is None else dim,
            self.name if name is None else name,
            self.attributes,
        )
        replaced.sessions = self.sessions
        return replaced


def _sessions_of(index: Index) -> frozenset[tuple[str | None, str | None]]:
    return index.sessions if isinstance(index, LazyTimeIndex) else frozenset()


def _view_of(index: Index) -> TimestampView:
    if isinstance(index, LazyTimeIndex):
        return index.view
    if isinstance(index, PandasIndex):
        labels: Floats = as_labels(index.index)
        return in_memory(labels)
    raise SelectionError(f"A time index cannot be combined with {index!r}.")
