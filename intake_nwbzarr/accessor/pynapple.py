"""Convert series, events, units and intervals to pynapple."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import (
    INTERVAL,
    ShownObject,
    find_object,
    plain_columns,
    row_ids,
    shown_columns,
    shown_objects,
)
from intake_nwbzarr.accessor.slices import united
from intake_nwbzarr.accessor.spikes import SPIKE_TIMES, ragged_of, rows_of, spikes_of
from intake_nwbzarr.accessor.times import SessionTime, event_time, in_seconds, seconds_variable, session_times
from intake_nwbzarr.errors import BoundsError, SelectionError, import_optional, warn_caller
from intake_nwbzarr.mapping.assembly import safe_name
from intake_nwbzarr.mapping.model import free_name

# The resolution of pynapple's intervals, in seconds.
_GAP = 1e-6

_CONVERTIBLE = "objects that pynapple can represent"


def time_support(
    dataset: xr.Dataset, table: ShownObject, trains: list[NDArray[np.float64]]
) -> tuple[Any, list[Any]]:
    """Return the time support of all units together, and of each."""
    # A unit's time support are its obs_intervals; if it has none, those of all units; without the column,
    # from the first to the last of all spikes.
    interval_set = import_module("pynapple").IntervalSet
    column = ragged_of(dataset, table, "obs_intervals")
    if column is None:
        edges = np.array([edge for train in trains for edge in train[[0, -1] if len(train) else []]])
        first, last = (edges.min(), edges.max()) if len(edges) else (0.0, 0.0)
        # A single spike has no duration, which a time support must have.
        bounds = [(first, max(last, first + _GAP))] if len(edges) else np.empty((0, 2))
        whole = interval_set(bounds)
        return whole, [whole] * len(trains)
    of_units = [np.reshape(each, (-1, 2)) for each in rows_of(dataset, column)]
    everything = joined(np.concatenate(of_units) if of_units else np.empty((0, 2)))
    return everything, [joined(each) if len(each) else everything for each in of_units]


def instant_support(seconds: NDArray[np.float64]) -> Any:
    """Return the time support of samples that all have one time, or None for others."""
    # pynapple would make it of the first and last time, and drop it because it has no duration.
    if not len(seconds) or seconds[0] < seconds[-1]:
        return None
    first = float(seconds[0])
    return import_module("pynapple").IntervalSet(first, max(first + _GAP, np.nextafter(first, np.inf)))


def joined(bounds: NDArray[np.float64]) -> Any:
    """Return an IntervalSet of (interval, 2) bounds in seconds, without overlaps and empty intervals."""
    interval_set = import_module("pynapple").IntervalSet
    bounds = bounds[np.isfinite(bounds).all(axis=1) & (bounds[:, 1] > bounds[:, 0])]
    return interval_set(*united(*bounds.T))


class LazyValues:
    """An array with time first, of which pynapple reads only what it selects."""

    def __init__(self, variable: xr.Variable, time: str) -> None:
        self._variable = variable
        self._dims = (time, *(dim for dim in variable.dims if dim != time))

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape, with time first."""
        return tuple(self._variable.sizes[dim] for dim in self._dims)

    @property
    def ndim(self) -> int:
        """Return the number of dimensions."""
        return len(self._dims)

    @property
    def size(self) -> int:
        """Return the number of values."""
        return self._variable.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of the values that are read."""
        dtype: np.dtype[Any] = self._variable.dtype
        return dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        entries = _expand_key(key if isinstance(key, tuple) else (key,), self.ndim)
        if entries is None:
            return np.asarray(self)[key]
        axes = iter(zip(self._dims, self.shape, strict=True))
        read: dict[Any, Any] = {}
        rest: list[Any] = []
        for entry in entries:
            if entry is None:
                rest.append(None)
                continue
            dim, size = next(axes)
            read[dim], within = _split(entry, size)
            rest.append(within)
        values = self._variable.isel(read).transpose(*self._dims).to_numpy()
        return values[tuple(rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = self._variable.transpose(*self._dims).to_numpy()
        return np.array(values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"<LazyValues {self.dtype} {self.shape}>"


def _expand_key(key: tuple[Any, ...], ndim: int) -> tuple[Any, ...] | None:
    """Return a key with one entry per axis and new axis; None for masks of several axes and invalid keys."""
    whole = [at for at, entry in enumerate(key) if entry is Ellipsis]
    present = sum(entry is not None for entry in key) - len(whole)
    masks = any(np.ndim(entry) != 1 and np.asarray(entry).dtype == bool for entry in key if entry is not None)
    if masks or len(whole) > 1 or present > ndim:
        return None
    at = whole[0] if whole else len(key)
    return (*key[:at], *(slice(None),) * (ndim - present), *key[at + len(whole) :])


def _split(entry: Any, size: int) -> tuple[Any, Any]:
    """Return the part of an axis to read, and the index within it that gives the requested values."""
    if isinstance(entry, slice):
        first, stop, step = entry.indices(size)
        chosen = range(first, stop, step)
        if step > 0 or not chosen:
            return slice(first, max(first, stop), abs(step)), slice(None)
        return slice(chosen[-1], chosen[0] + 1, -step), slice(None, None, -1)
    positions = np.asarray(entry)
    if positions.dtype == bool:
        if positions.shape != (size,):
            raise BoundsError(
                f"A mask of shape {positions.shape} does not fit an axis of {size}.",
                found=positions.shape,
                expected=(size,),
            )
        positions = np.flatnonzero(positions)
    if positions.size == 0:
        positions = positions.astype(np.intp)
    if positions.dtype.kind not in "iu":
        raise BoundsError(f"{entry!r} is not a position, a slice or a mask.", found=entry)
    if positions.size and (positions.min() < -size or positions.max() >= size):
        raise BoundsError(
            f"Position {entry!r} is out of bounds for an axis of {size}.",
            found=entry,
            expected=range(-size, size),
        )
    unique, inverse = np.unique(np.where(positions < 0, positions + size, positions), return_inverse=True)
    within = inverse.reshape(positions.shape)
    return unique.astype(np.intp), int(within) if within.ndim == 0 else within


def to_pynapple(dataset: xr.Dataset, name: str | None = None) -> Any:
    """Convert one object of a Dataset, or all, to pynapple; see `NWBAccessor.to_pynapple`."""
    _pynapple()
    known = {each.path: each for each in shown_objects(dataset) if _converter(dataset, each) is not None}
    alone = dataset.attrs.get("nwb_path")
    if name is None and alone not in known:
        return PynappleObjects(dataset, list(known.values()))
    if name is None:
        return _convert(dataset, known[str(alone)])
    return _convert(dataset, find_object(dataset, name, known.values(), _CONVERTIBLE))


def _pynapple() -> Any:
    """Import pynapple, which is optional and takes a second to import."""
    return import_optional("pynapple", "pynapple", "ds.nwb.to_pynapple()")


class PynappleObjects(Mapping[str, Any]):
    """The objects of a session that pynapple can represent, by name; each is converted on first use."""

    def __init__(self, dataset: xr.Dataset, objects: list[ShownObject]) -> None:
        self._dataset = dataset
        self._objects: dict[str, ShownObject] = {}
        for each in objects:
            self._objects[each.path if each.name in self._objects else each.name] = each
        self._converted: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._converted:
            found = self._objects.get(name)
            if found is None:
                found = find_object(self._dataset, name, self._objects.values(), _CONVERTIBLE)
            self._converted[name] = _convert(self._dataset, found)
        return self._converted[name]

    def __contains__(self, name: object) -> bool:
        return name in self._objects

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def __repr__(self) -> str:
        kinds = {name: _kind_name(self._dataset, each) for name, each in self._objects.items()}
        lines = [f"    {name}: {kind}" for name, kind in kinds.items()]
        return "\n".join([f"<{len(self)} objects for pynapple>", *lines])


def _kind_name(dataset: xr.Dataset, found: ShownObject) -> str:
    if found.main is not None:
        return {1: "Tsd", 2: "TsdFrame"}.get(dataset.variables[found.main].ndim, "TsdTensor")
    kinds: Mapping[Any, str] = {_units: "TsGroup", _intervals: "IntervalSet", _events: "Ts"}
    return kinds[_converter(dataset, found)]


def _convert(dataset: xr.Dataset, found: ShownObject) -> Any:
    converter = _converter(dataset, found)
    assert converter is not None  # noqa: S101 - for the type checker; callers pass convertible objects only
    return converter(dataset, found)


def _converter(dataset: xr.Dataset, found: ShownObject) -> Callable[[xr.Dataset, ShownObject], Any] | None:
    """Return the function that converts an object, None if pynapple cannot represent it."""
    if found.kind == "series" and found.main is not None:
        numeric = dataset.variables[found.main].dtype.kind in "biufc"
        return _series if numeric and _time_of(dataset, found.main) is not None else None
    if found.kind != "table":
        return _events if found.main is None and event_time(dataset, found) is not None else None
    if spikes_of(dataset, found) is not None:
        return _units
    names = plain_columns(dataset, found).keys()
    if set(INTERVAL) <= names:
        return _intervals
    return _events if "timestamp" in names else None


def _time_of(dataset: xr.Dataset, name: str) -> SessionTime | None:
    """Return the time of a series; of a stimulus template, that since the start of the stimulus."""
    dims = dataset.variables[name].dims
    own = dataset[[name]]
    return next((time for time in session_times(own) if time.dim in dims), None)


def _series(dataset: xr.Dataset, found: ShownObject) -> Any:
    pynapple = _pynapple()

    assert found.main is not None  # noqa: S101 - for the type checker; `_converter` checked this
    time = _time_of(dataset, found.main)
    assert time is not None  # noqa: S101
    seconds = _seconds(dataset, time, found)
    support = instant_support(seconds)
    values = LazyValues(dataset.variables[found.main], time.dim)
    if values.ndim == 1:
        return pynapple.Tsd(t=seconds, d=values, time_support=support, load_array=False)
    if values.ndim > 2:
        return pynapple.TsdTensor(t=seconds, d=values, time_support=support, load_array=False)
    channel = next(str(dim) for dim in dataset.variables[found.main].dims if dim != time.dim)
    labels = dataset[channel].to_numpy() if channel in dataset.coords else None
    made = pynapple.TsdFrame(t=seconds, d=values, columns=labels, time_support=support, load_array=False)
    made.set_info(_metadata(_coordinates_along(dataset, channel), {*dir(made), *made.columns}))
    return made


def _seconds(dataset: xr.Dataset, time: SessionTime, found: ShownObject) -> NDArray[np.float64]:
    seconds = in_seconds(dataset.variables[time.name].to_numpy(), dataset.attrs, repr(time.name))
    if not np.isfinite(seconds).all() or np.any(np.diff(seconds) < 0):
        # pynapple sorts timestamps without the values that belong to them.
        raise SelectionError(
            f"The timestamps of {found.path!r} do not ascend, or some are missing, which pynapple cannot "
            "represent.",
            path=found.path,
            next_step=f"Sort them first: dataset.sortby({time.name!r}).",
        )
    return seconds


def _coordinates_along(dataset: xr.Dataset, dim: str) -> dict[str, NDArray[Any]]:
    """Return the coordinates along a dimension, without the prefix of a flat Dataset in their names."""
    prefixes = [f"{dim}_"] + ([f"{dim.rpartition('_')[0]}_"] if "_" in dim else [])
    columns = {}
    for name, coordinate in dataset.coords.items():
        if coordinate.dims == (dim,) and name != dim:
            prefix = next((each for each in prefixes if str(name).startswith(each)), "")
            columns[str(name).removeprefix(prefix)] = coordinate.to_numpy()
    return columns


def _plain_columns(dataset: xr.Dataset, table: ShownObject, hidden: set[str]) -> dict[str, NDArray[Any]]:
    """Return a table's columns of one value per row; those of times in seconds, as in pynapple."""
    return {
        each.label: seconds_variable(
            dataset.variables[each.variable], dataset.attrs, repr(each.variable)
        ).to_numpy()
        for each in shown_columns(dataset, table)
        if each.label not in hidden and dataset.variables[each.variable].dims == (table.rows,)
    }


def _metadata(columns: Mapping[str, NDArray[Any]], taken: set[Any]) -> dict[str, NDArray[Any]]:
    """Return columns under names that are valid as pynapple's attributes, and not used by it."""
    found: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        found[free_name(safe_name(name), taken | set(found))] = values
    return found


def _units(dataset: xr.Dataset, found: ShownObject) -> Any:
    pynapple = _pynapple()

    column = spikes_of(dataset, found)
    assert column is not None  # noqa: S101 - for the type checker; `_converter` checked this
    ids = row_ids(dataset, found)
    if len(np.unique(ids)) < len(ids) or ids.dtype.kind not in "iu":
        raise SelectionError(
            f"The ids of {found.path!r} are not integers, or some repeat, and pynapple uses them as keys.",
            path=found.path,
            found=ids,
            next_step="Select units first, or assign other ids with assign_coords.",
        )
    trains = [np.sort(train[np.isfinite(train)]) for train in rows_of(dataset, column)]
    support, of_units = time_support(dataset, found, trains)
    spikes = {
        int(unit): pynapple.Ts(t=train, time_support=own)
        for unit, train, own in zip(ids, trains, of_units, strict=True)
    }
    lost = sum(map(len, trains)) - sum(map(len, spikes.values()))
    if lost:
        warn_caller(
            f"{lost} spikes of {found.path!r} are outside of their unit's obs_intervals and are dropped from "
            "pynapple's TsGroup."
        )
    group = pynapple.TsGroup(spikes, time_support=support, bypass_check=True)
    if spikes:
        order = np.argsort(ids, kind="stable")
        columns = _plain_columns(dataset, found, {SPIKE_TIMES})
        group.set_info({name: each[order] for name, each in _metadata(columns, set(dir(group))).items()})
    return group


def _intervals(dataset: xr.Dataset, found: ShownObject) -> Any:
    pynapple = _pynapple()

    columns = {"id": row_ids(dataset, found), **_plain_columns(dataset, found, {"id"})}
    start, stop = (
        in_seconds(columns.pop(name), dataset.attrs, f"{name!r} of {found.path!r}") for name in INTERVAL
    )
    valid = np.isfinite(start) & np.isfinite(stop) & (stop > start)
    if not valid.all():
        warn_caller(
            f"{np.count_nonzero(~valid)} of the {len(valid)} intervals of {found.path!r} have no start, no "
            "stop, or do not stop after they start; they are dropped from pynapple's IntervalSet."
        )
    rows = np.flatnonzero(valid)[np.argsort(start[valid], kind="stable")]
    start, stop = start[rows], stop[rows]
    overlaps = np.count_nonzero(start[1:] < np.maximum.accumulate(stop)[:-1])
    touches = np.count_nonzero(start[1:] == stop[:-1])
    if overlaps:
        warn_caller(
            f"{overlaps} intervals of {found.path!r} start before an earlier one stops: pynapple's "
            "IntervalSet joins them, and the table's other columns are dropped. ds.nwb.intervals() has all "
            "of them."
        )
        return joined(np.stack([start, stop], axis=1))
    if touches:
        warn_caller(
            f"{touches} intervals of {found.path!r} stop where the next starts; in pynapple's IntervalSet "
            "they stop a microsecond earlier."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some starts and ends are equal")
        made = pynapple.IntervalSet(start, stop)
    if len(rows):
        taken = {*dir(made), *made.columns}
        made.set_info(_metadata({name: each[rows] for name, each in columns.items()}, taken))
    return made


def _events(dataset: xr.Dataset, found: ShownObject) -> Any:
    pynapple = _pynapple()

    if found.kind == "table":
        stored = _plain_columns(dataset, found, set())["timestamp"]
    else:
        time = event_time(dataset, found)
        assert time is not None  # noqa: S101 - for the type checker; `_converter` checked this
        stored = dataset.variables[time.name].to_numpy()
    times = in_seconds(stored, dataset.attrs, f"the times of {found.path!r}")
    known = np.isfinite(times)
    if not known.all():
        warn_caller(
            f"{np.count_nonzero(~known)} of the {len(times)} events of {found.path!r} have no time and are "
            "dropped from pynapple's Ts."
        )
    seconds = np.sort(times[known])
    return pynapple.Ts(t=seconds, time_support=instant_support(seconds))
