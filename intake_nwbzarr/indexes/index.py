"""`LazyTimeIndex`: an xarray index of time coordinates that are computed or read on demand."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, override

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from xarray.indexes import Index, PandasIndex

from intake_nwbzarr.errors import BoundsError, MetadataError, SelectionError
from intake_nwbzarr.indexes import combine
from intake_nwbzarr.indexes.coordinate import time_variable
from intake_nwbzarr.indexes.stored import ReadableArray, StoredTimestamps
from intake_nwbzarr.indexes.timestamps import (
    IN_MEMORY_LIMIT,
    Floats,
    Positions,
    RegularTimestamps,
    TimestampView,
    evenly_spaced,
    in_memory,
    is_in_memory,
    load,
    take,
    take_slice,
)
from intake_nwbzarr.xarray_internals import IndexSelResult


class TimeIndexKind(type):
    """The metaclass of `RegularTimeIndex` and `IrregularTimeIndex`, which make `LazyTimeIndex` objects.

    xarray aligns indexes of exactly the same class only (`MatchingIndexKey` in
    ``xarray.structure.alignment``, 2026.9), so that instances of two classes could not be aligned.
    """

    regular: bool

    def __call__(cls, *arguments: object, **keywords: object) -> LazyTimeIndex:
        """Return a `LazyTimeIndex`."""
        return LazyTimeIndex(*arguments, **keywords)  # type: ignore[arg-type]

    def __instancecheck__(cls, instance: object) -> bool:
        """Return whether an index has this kind of timestamps."""
        return isinstance(instance, LazyTimeIndex) and cls.regular == isinstance(
            instance.view.timestamps, RegularTimestamps
        )


def positions_of_label(
    view: TimestampView, label: Any, name: Hashable, method: str | None, tolerance: ArrayLike | None
) -> Any:
    """Return the positions of a label, in the form that xarray expects of an index for this form of label."""
    if isinstance(label, slice):
        if method is not None or tolerance is not None:
            raise SelectionError(
                f"A slice of '{name}' includes both ends and takes neither method nor tolerance, not "
                f"method={method!r}, tolerance={tolerance!r}.",
                found=(method, tolerance),
            )
        return _positions_of_slice(view, label, name)
    raw = label.values if isinstance(label, xr.Variable | xr.DataArray) else np.asarray(label)
    if raw.dtype.kind == "b" and raw.ndim == 1:
        return label  # a mask, as for every index of xarray
    positions = _positions(view, as_labels(raw), name, method, tolerance)
    if isinstance(positions, slice) or np.ndim(positions) != raw.ndim:
        return positions  # one label that several samples share
    if isinstance(label, xr.Variable):
        return xr.Variable(label.dims, positions)
    if isinstance(label, xr.DataArray):
        return xr.DataArray(positions, coords=label.coords, dims=label.dims)
    return positions


def as_labels(label: Any) -> Floats:
    """Return labels as float64 seconds, or raise for what is not a number."""
    values = np.asarray(label)
    # NumPy makes an empty list float64; casting what is not a number would be a guess.
    if values.dtype.kind not in "iuf":
        raise SelectionError(
            f"{label!r} is not a time: labels along this coordinate must be numbers of seconds, not "
            f"{values.dtype}.",
            found=label,
        )
    return values.astype(np.float64)


def _positions_of_slice(view: TimestampView, label: slice, name: Hashable) -> slice:
    ends = [None if end is None else as_labels(end) for end in (label.start, label.stop)]
    if any(end is not None and (end.ndim or np.isnan(end)) for end in ends):
        raise SelectionError(
            f"{label!r} is not a slice of '{name}': its ends must be single numbers of seconds.", found=label
        )
    step = label.step
    if step is not None and (not isinstance(step, int | np.integer) or step == 0):
        raise SelectionError(
            f"The step of a slice of '{name}' must be an integer other than zero, not {step!r}.", found=step
        )
    start, stop = (None if end is None else float(end) for end in ends)
    return view.locate_slice(start, stop, None if step is None else int(step))


def _positions(
    view: TimestampView, labels: Floats, name: Hashable, method: str | None, tolerance: ArrayLike | None
) -> int | slice | Positions:
    if labels.ndim == 0 and method is None and tolerance is None:
        position = view.locate_one(float(labels))
        if position is None:
            raise _not_found(view, labels.reshape(1), name, method, tolerance)
        return position
    flat = labels.ravel()
    found = view.locate(flat, method, tolerance)
    if np.any(found < 0):
        raise _not_found(view, flat[found < 0], name, method, tolerance)
    return int(found[0]) if labels.ndim == 0 else found.reshape(labels.shape)


def _not_found(
    view: TimestampView, labels: Floats, name: Hashable, method: str | None, tolerance: ArrayLike | None
) -> SelectionError:
    shown = ", ".join(repr(float(label)) for label in labels[:3]) + (", ..." if len(labels) > 3 else "")
    if not len(view):
        return SelectionError(f"There is no {shown} s along '{name}', which has no samples.", found=labels)
    if method is None:
        return SelectionError(
            f"No sample along '{name}' is at exactly {shown} s.",
            found=labels,
            next_step="Add method='nearest', or select a slice.",
        )
    limit = "" if tolerance is None else f" within {tolerance} s"
    return SelectionError(
        f"method={method!r} finds no sample along '{name}' for {shown} s{limit}.", found=labels
    )


class LazyTimeIndex(Index):
    """An xarray index of a time coordinate: at a constant rate, of stored timestamps, or of times in memory.

    Made by `RegularTimeIndex.from_rate` and `IrregularTimeIndex.from_array`, which `isinstance` tells apart.
    There is one class because xarray aligns indexes of one class only: any selection from a recording aligns
    with the whole of it, and with the time of any other recording.

    Selection by label follows pandas on a sorted index: slices include both ends and every repeated time, and
    a scalar that several samples share selects all of them. A list of labels, or a method, that meets a
    repeated time raises. Selecting a slice of positions gives an index of the same kind and reads nothing; so
    do evenly spaced positions of a regular time. Other positions, integers or booleans, read their timestamps
    into memory. Alignment and concatenation stay lazy for slices of one recording. Those of different
    recordings give timestamps in memory, at most `IN_MEMORY_LIMIT` of them.

    With a `PandasIndex` of other timestamps, such as that of labels passed to ``reindex``, xarray raises
    `AlignmentError`. Give the labels this index (``IrregularTimeIndex.from_array(labels).coordinates()``), or
    load all timestamps: ``dataset.drop_indexes("time").set_xindex("time")``.
    """

    def __init__(
        self, view: TimestampView, dim: str, name: Hashable, attributes: Mapping[str, Any] | None = None
    ) -> None:
        self.view = view
        self.dim = dim
        self.name = name
        self.attributes = dict(attributes or {})
        self.sessions: frozenset[tuple[str | None, str | None]] = frozenset()
        """The sessions of these times, by identifier and location, where known."""

    def coordinates(self) -> xr.Coordinates:
        """Return the time coordinate, with this index, for `xarray.Dataset(coords=...)`."""
        return xr.Coordinates.from_xindex(self)

    @property
    def size(self) -> int:
        """Return the number of samples along time."""
        return len(self.view)

    @property
    def starting_time(self) -> float | None:
        """Return the time of sample 0 of a regular recording in seconds; None where irregular."""
        times = self.view.timestamps
        return times.starting_time if isinstance(times, RegularTimestamps) else None

    @property
    def rate(self) -> float | None:
        """Samples per second of a regular recording, whatever the stride; None where irregular."""
        times = self.view.timestamps
        return times.rate if isinstance(times, RegularTimestamps) else None

    @property
    def as_regular(self) -> TimestampView | None:
        """These times at a constant rate, also times in memory that are evenly spaced except for rounding.

        None where they are irregular, and where they are stored, because all of them would have to be read.
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
        """Return the sample numbers of this index: of the recording, or of the timestamps in memory."""
        return self.view.samples

    @property
    def index(self) -> pd.Index:
        """Return the timestamps as a pandas index."""
        # `PandasIndex.concat` needs `dim`, `index` and `coord_dtype` of every index, of whatever class.
        return self.to_pandas_index()

    @property
    def coord_dtype(self) -> np.dtype[Any]:
        """Return the type of every timestamp: float64."""
        return np.dtype(np.float64)

    @classmethod
    def from_variables(
        cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]
    ) -> LazyTimeIndex:
        """Index a coordinate whose values are read into memory, for `Dataset.set_xindex`.

        Raises
        ------
        MetadataError
            When the coordinate is not one-dimensional, or not numeric.
        """
        ((name, variable),) = variables.items()
        (dim,) = variable.dims if variable.ndim == 1 else (str(name),)
        return IrregularTimeIndex.from_array(variable.values, str(dim), name, variable.attrs, **options)

    def create_variables(
        self, variables: Mapping[Any, xr.Variable] | None = None
    ) -> dict[Hashable, xr.Variable]:
        """Return the time coordinate, whose values are computed or read on demand."""
        known = None if variables is None else variables.get(self.name)
        attributes = self.attributes if known is None else known.attrs
        encoding = {} if known is None else known.encoding
        return {self.name: time_variable(self.view, self.dim, self.name, attributes, encoding)}

    def to_pandas_index(self) -> pd.Index:
        """Read every timestamp into a pandas index.

        Raises
        ------
        SelectionError
            For more than `IN_MEMORY_LIMIT` timestamps.
        """
        return pd.Index(load(self.view, self.name), name=self.name, copy=False)

    def isel(self, indexers: Mapping[Any, int | slice | np.ndarray[Any, Any] | xr.Variable]) -> Self | None:
        """Select by position: a slice, or an array of positions or of booleans.

        Raises
        ------
        BoundsError
            For a position out of bounds, or booleans of another number than there are samples.
        """
        indexer = indexers[self.dim]
        if isinstance(indexer, xr.Variable):
            if indexer.dims != (self.dim,):
                return None
            indexer = indexer.data
        if isinstance(indexer, slice):
            return self._replace(view=take_slice(self.view, indexer))
        positions = np.asarray(indexer)
        if positions.ndim != 1:
            return None
        if positions.dtype.kind == "b":
            if len(positions) != self.size:
                raise BoundsError(
                    f"{len(positions)} booleans cannot select from {self.size} samples along '{self.name}'.",
                    found=len(positions),
                    expected=self.size,
                )
            positions = np.flatnonzero(positions)
        return self._replace(view=take(self.view, positions))

    def sel(
        self, labels: dict[Any, Any], method: str | None = None, tolerance: ArrayLike | None = None
    ) -> IndexSelResult:
        """Select by time in seconds: a number, an array of any shape, or a slice that includes its ends.

        Raises
        ------
        SelectionError
            For a label that is not a number, is not there, or is the time of several samples where only one
            is allowed; and where the stored timestamps that are read do not ascend.
        """
        (label,) = labels.values()
        return IndexSelResult({self.dim: positions_of_label(self.view, label, self.name, method, tolerance)})

    def equals(self, other: Index, *, exclude: frozenset[Hashable] | None = None) -> bool:  # noqa: ARG002
        """Return whether the dimension and every timestamp are equal."""
        return isinstance(other, LazyTimeIndex) and self.dim == other.dim and self.view.equals(other.view)

    def join(self, other: Index, how: str = "inner") -> Self:
        """Return the intersection or union of two indexes, for alignment."""
        joined = self._replace(view=combine.join(self.view, _view_of(other), how, self.name))
        joined.sessions |= _sessions_of(other)
        return joined

    def reindex_like(
        self, other: Index, method: str | None = None, tolerance: ArrayLike | None = None
    ) -> dict[Hashable, Positions]:
        """Return the positions of another index's timestamps in this one, -1 where absent."""
        wanted = _view_of(other)
        if method is tolerance is None and len(wanted) <= IN_MEMORY_LIMIT:
            positions = self.view.positions_of(wanted)
            if positions is not None:
                return {self.dim: positions}
        return {self.dim: self.view.locate(load(wanted, self.name), method, tolerance)}

    @classmethod
    def concat(
        cls, indexes: Sequence[Index], dim: Hashable, positions: Iterable[Iterable[int]] | None = None
    ) -> LazyTimeIndex:
        """Concatenate indexes: lazily where they continue one recording, in memory otherwise."""
        first = next(index for index in indexes if isinstance(index, LazyTimeIndex))
        if any(getattr(index, "dim", dim) != dim for index in indexes):
            raise SelectionError(
                f"Time indexes along different dimensions cannot be concatenated along '{dim}'.",
                found=indexes,
            )
        view = combine.concatenate([_view_of(index) for index in indexes], first.name)
        if positions is not None:
            order = np.argsort(np.concatenate([np.asarray(list(part)) for part in positions]), kind="stable")
            view = take(view, order)
        whole = first._replace(view=view)
        whole.sessions = frozenset().union(*map(_sessions_of, indexes))
        return whole

    def roll(self, shifts: Mapping[Any, int]) -> Self:
        """Rotate the timestamps, in memory."""
        return self._replace(view=in_memory(np.roll(load(self.view, self.name), shifts[self.dim])))

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Self:
        """Rename the coordinate or its dimension."""
        return self._replace(
            name=name_dict.get(self.name, self.name), dim=str(dims_dict.get(self.dim, self.dim))
        )

    def copy(self, deep: bool = True) -> Self:  # noqa: ARG002
        """Return another index of the same timestamps, which are read-only and shared."""
        return self._replace()

    def __copy__(self) -> Self:
        return self._replace()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self._replace()

    def __repr__(self) -> str:
        return one_line_repr(self.view, self.dim)

    def _repr_inline_(self, max_width: int) -> str:
        return inline_repr(self.view)[:max_width]

    def _repr_html_(self) -> str:
        return html_repr(self.view, self.dim)

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
    raise SelectionError(f"A time index cannot be combined with {index!r}.", found=index)


class IrregularTimeIndex(LazyTimeIndex, metaclass=TimeIndexKind):
    """Time from timestamps, stored or in memory; of stored ones, only the blocks needed are read.

    Creating, displaying, copying and pickling an index of stored timestamps read nothing. A label is searched
    between the first and last timestamps of few blocks. Timestamps must ascend, as NWB requires; where a
    block that is read does not, or holds a NaN, selection by label raises a `SelectionError` that says where,
    and `isel` still works. Timestamps of other numeric types are converted to float64, so that float32 ones
    are found by their exact value or by ``method="nearest"``. Made by `from_array`, always as a
    `LazyTimeIndex`.
    """

    regular: ClassVar[bool] = False

    @classmethod
    def from_array(
        cls,
        array: ReadableArray | Any,
        dim: str = "time",
        name: Hashable | None = None,
        attrs: Mapping[str, Any] | None = None,
        source: str | None = None,
    ) -> LazyTimeIndex:
        """Index the time of an irregularly sampled series, or times of your own.

        Parameters
        ----------
        array
            Timestamps in seconds, (time,). Either an object with ``shape``, ``dtype``, ``chunks`` and
            ``read(key)``, whose timestamps ascend and are read on demand, or anything that NumPy makes an
            array of, which is copied and may be in any order.
        dim
            The dimension that is indexed.
        name
            The name of the coordinate; by default that of the dimension.
        attrs
            Attributes of the coordinate.
        source
            Names the array in errors, such as by its path and location.

        Raises
        ------
        MetadataError
            When the array is not one-dimensional, or not numeric.

        Examples
        --------
        >>> import xarray as xr
        >>> index = IrregularTimeIndex.from_array([0.0, 0.5, 2.0])
        >>> xr.Dataset(coords=index.coordinates()).sel(time=slice(0.5, 9)).time.values
        array([0.5, 2. ])
        """
        readable = array if isinstance(array, ReadableArray) else np.asarray(array)
        named = source or f"'{dim if name is None else name}'"
        if len(readable.shape) != 1 or np.dtype(readable.dtype).kind not in "iuf":
            raise MetadataError(
                f"Timestamps of {named} must be numbers along one dimension, not {readable.dtype} of shape "
                f"{tuple(readable.shape)}.",
                found=(readable.dtype, tuple(readable.shape)),
            )
        if isinstance(readable, np.ndarray):
            view = in_memory(readable.astype(np.float64))
        else:
            timestamps = StoredTimestamps(readable, named)
            view = TimestampView(timestamps, range(timestamps.size))
        return LazyTimeIndex(view, dim, dim if name is None else name, attrs)


class RegularTimeIndex(LazyTimeIndex, metaclass=TimeIndexKind):
    """Time from a starting time and a rate: every timestamp equals ``starting_time + k / rate`` bit for bit.

    Labels are compared with these numbers, never divided by the rate and rounded, so that every timestamp of
    the coordinate can be selected again, whatever the rate. Made by `from_rate`, as a `LazyTimeIndex`.
    """

    regular: ClassVar[bool] = True

    if TYPE_CHECKING:  # what `isinstance` tells of a `LazyTimeIndex`

        @property
        @override
        def starting_time(self) -> float: ...

        @property
        @override
        def rate(self) -> float: ...

    @classmethod
    def from_rate(
        cls,
        starting_time: float,
        rate: float,
        size: int,
        dim: str = "time",
        name: Hashable | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> LazyTimeIndex:
        """Index the time of a regularly sampled series.

        Parameters
        ----------
        starting_time
            The time of the first sample in seconds.
        rate
            Samples per second.
        size
            The number of samples.
        dim
            The dimension that is indexed.
        name
            The name of the coordinate; by default that of the dimension.
        attrs
            Attributes of the coordinate.

        Raises
        ------
        MetadataError
            When the rate is not a positive finite number, the starting time not finite, or the size negative.

        Examples
        --------
        >>> import xarray as xr
        >>> index = RegularTimeIndex.from_rate(0.0, 30000.0, 108_000_000)
        >>> dataset = xr.Dataset(coords=index.coordinates())
        >>> dataset.sel(time=slice(10, 20)).sizes["time"]
        300001
        """
        timestamps = RegularTimestamps(float(starting_time), float(rate))
        if size < 0:
            raise MetadataError(f"A series along '{dim}' cannot have {size} samples.", found=size)
        return LazyTimeIndex(
            TimestampView(timestamps, range(size)), dim, dim if name is None else name, attrs
        )

    @classmethod
    @override
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> NoReturn:
        """Raise: a rate is not guessed from timestamps."""
        raise MetadataError(
            f"RegularTimeIndex cannot be made from the timestamps of {list(variables)}.",
            next_step="Use RegularTimeIndex.from_rate(starting_time, rate, size).coordinates().",
        )


def kind(view: TimestampView) -> str:
    """Return the name of the class whose constructor makes such an index."""
    return "RegularTimeIndex" if isinstance(view.timestamps, RegularTimestamps) else "IrregularTimeIndex"


def inline_repr(view: TimestampView) -> str:
    """Describe a view in few words, for a line of xarray's repr."""
    if isinstance(view.timestamps, RegularTimestamps):
        step = "" if view.samples.step == 1 else f", step {view.samples.step}"
        return f"{kind(view)} ({view.timestamps.rate:g} Hz{step})"
    return f"{kind(view)} ({'in memory' if is_in_memory(view) else 'stored'})"


def one_line_repr(view: TimestampView, dim: str) -> str:
    """Describe a view in one line."""
    known = [f"size={len(view)}", f"dim={dim!r}"]
    if isinstance(view.timestamps, RegularTimestamps):
        stride = [] if view.samples.step == 1 else [f"stride={view.samples.step}"]
        first = [f"first={view.samples.start}"] if view.samples.start else []
        times = view.timestamps
        known = [f"starting_time={times.starting_time!r}", f"rate={times.rate!r}", *first, *stride, *known]
    elif isinstance(view.timestamps, StoredTimestamps):
        known.append(f"source={view.timestamps.source!r}")
    return f"{kind(view)}({', '.join(known)})"


def html_repr(view: TimestampView, dim: str) -> str:
    """Describe a view as a small table, for notebooks."""
    rows = {"samples": f"{len(view):,} along {dim}"}
    if isinstance(view.timestamps, RegularTimestamps):
        rows["rate"] = f"{view.timestamps.rate!r} Hz"
    if view.samples.step != 1:
        rows["stride"] = f"every {view.samples.step} samples of the recording"
    if isinstance(view.timestamps, StoredTimestamps):
        rows["timestamps"] = f"of {view.timestamps.source}, read on demand"
    elif len(view):
        first, last = (float(time) for time in view.at([0, -1]))
        rows["span"] = f"{first!r} s to {last!r} s"
    cells = "".join(f"<tr><td>{escape(row)}</td><td>{escape(value)}</td></tr>" for row, value in rows.items())
    return f"<table><tbody><tr><th colspan='2'>{kind(view)}</th></tr>{cells}</tbody></table>"
