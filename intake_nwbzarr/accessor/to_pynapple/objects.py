"""A Dataset's objects as pynapple's: series, spikes, intervals and events."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.columns import shown_columns
from intake_nwbzarr.accessor.contents.kinds import ShownObject, find_object, shown_objects
from intake_nwbzarr.accessor.contents.lazy_seconds import seconds_variable
from intake_nwbzarr.accessor.contents.seconds import in_seconds
from intake_nwbzarr.accessor.contents.times import SessionTime, event_time, session_times
from intake_nwbzarr.accessor.spikes.trains import SPIKE_TIMES, rows_of, spikes_of
from intake_nwbzarr.accessor.to_pynapple.support import joined, observed, of_an_instant
from intake_nwbzarr.accessor.to_pynapple.values import LazyValues
from intake_nwbzarr.errors import MissingPackageError, SelectionError, warn_caller
from intake_nwbzarr.neurodata.names import free_name, safe_name


def to_pynapple(dataset: xr.Dataset, name: str | None = None) -> Any:
    """One object of a Dataset, or all, as pynapple's; see `NWBAccessor.to_pynapple`."""
    _pynapple()
    known = {each.path: each for each in shown_objects(dataset) if _converter(dataset, each) is not None}
    alone = dataset.attrs.get("nwb_path")
    if name is None and alone not in known:
        return PynappleObjects(dataset, list(known.values()))
    if name is None:
        return _convert(dataset, known[str(alone)])
    return _convert(
        dataset, find_object(dataset, name, known.values(), "objects that pynapple has something for")
    )


def _pynapple() -> Any:
    """The package, which is optional and takes a second to import."""
    try:
        return import_module("pynapple")
    except ModuleNotFoundError as error:
        if error.name != "pynapple":
            raise
        raise MissingPackageError(
            'The package pynapple is missing; install it with: pip install "intake-nwbzarr[pynapple]"'
        ) from None


class PynappleObjects(Mapping[str, Any]):
    """What pynapple has something for in a session, by name; each is made when it is asked for, and kept.

    Parameters
    ----------
    dataset
        The session.
    objects
        Those of its objects that can be made.
    """

    def __init__(self, dataset: xr.Dataset, objects: list[ShownObject]) -> None:
        self._dataset = dataset
        self._objects: dict[str, ShownObject] = {}
        for each in objects:
            self._objects[each.path if each.name in self._objects else each.name] = each
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            found = self._objects.get(name)
            if found is None:
                what = "objects that pynapple has something for"
                found = find_object(self._dataset, name, self._objects.values(), what)
            self._made[name] = _convert(self._dataset, found)
        return self._made[name]

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
    assert converter is not None  # noqa: S101 - for the type checker; only such objects come here.
    return converter(dataset, found)


def _converter(dataset: xr.Dataset, found: ShownObject) -> Callable[[xr.Dataset, ShownObject], Any] | None:
    """What makes an object pynapple's, None where pynapple has nothing for it."""
    if found.kind == "series" and found.main is not None:
        numeric = dataset.variables[found.main].dtype.kind in "biufc"
        return _series if numeric and _time_of(dataset, found.main) is not None else None
    if found.kind != "table":
        return _events if found.main is None and event_time(dataset, found) is not None else None
    if spikes_of(dataset, found) is not None:
        return _units
    names = {each.label for each in shown_columns(dataset, found) if not each.bounds}
    if {"start_time", "stop_time"} <= names:
        return _intervals
    return _events if "timestamp" in names else None


def _time_of(dataset: xr.Dataset, name: str) -> SessionTime | None:
    """The time of a series; of a stimulus template, that since the stimulus began."""
    dims = dataset.variables[name].dims
    own = dataset[[name]]
    return next((time for time in session_times(own) if time.dim in dims), None)


def _series(dataset: xr.Dataset, found: ShownObject) -> Any:
    pynapple = _pynapple()

    assert found.main is not None  # noqa: S101 - for the type checker; `_converter` looked.
    time = _time_of(dataset, found.main)
    assert time is not None  # noqa: S101
    seconds = _seconds(dataset, time, found)
    support = of_an_instant(seconds)
    values = LazyValues(dataset.variables[found.main], time.dim)
    if values.ndim == 1:
        return pynapple.Tsd(t=seconds, d=values, time_support=support, load_array=False)
    if values.ndim > 2:
        return pynapple.TsdTensor(t=seconds, d=values, time_support=support, load_array=False)
    channel = next(str(dim) for dim in dataset.variables[found.main].dims if dim != time.dim)
    labels = dataset[channel].to_numpy() if channel in dataset.coords else None
    made = pynapple.TsdFrame(t=seconds, d=values, columns=labels, time_support=support, load_array=False)
    made.set_info(_metadata(_joined(dataset, channel), {*dir(made), *made.columns}))
    return made


def _seconds(dataset: xr.Dataset, time: SessionTime, found: ShownObject) -> NDArray[np.float64]:
    seconds = in_seconds(dataset.variables[time.name].to_numpy(), dataset.attrs, repr(time.name))
    if not np.isfinite(seconds).all() or np.any(np.diff(seconds) < 0):
        # pynapple sorts timestamps without the values that belong to them.
        raise SelectionError(
            f"The timestamps of {found.path!r} do not ascend, or some are missing, which pynapple cannot "
            f"represent. Sort them first: dataset.sortby({time.name!r})."
        )
    return seconds


def _joined(dataset: xr.Dataset, dim: str) -> dict[str, NDArray[Any]]:
    """The coordinates along a dimension, without what a flat Dataset puts before their names."""
    prefixes = [f"{dim}_"] + ([f"{dim.rpartition('_')[0]}_"] if "_" in dim else [])
    columns = {}
    for name, coordinate in dataset.coords.items():
        if coordinate.dims == (dim,) and name != dim:
            prefix = next((each for each in prefixes if str(name).startswith(each)), "")
            columns[str(name).removeprefix(prefix)] = coordinate.to_numpy()
    return columns


def _plain(dataset: xr.Dataset, table: ShownObject, hidden: set[str]) -> dict[str, NDArray[Any]]:
    """A table's columns of one value a row; those of times in seconds, as pynapple counts."""
    return {
        each.label: seconds_variable(
            dataset.variables[each.variable], dataset.attrs, repr(each.variable)
        ).to_numpy()
        for each in shown_columns(dataset, table)
        if each.label not in hidden and dataset.variables[each.variable].dims == (table.rows,)
    }


def _metadata(columns: Mapping[str, NDArray[Any]], taken: set[Any]) -> dict[str, NDArray[Any]]:
    """Columns under names that pynapple can take as attributes, and does not use itself."""
    found: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        found[free_name(safe_name(name), taken | set(found))] = values
    return found


def _ids(dataset: xr.Dataset, table: ShownObject) -> NDArray[Any]:
    rows = table.rows
    if rows is not None and rows in dataset.coords:
        return dataset[rows].to_numpy()
    return np.arange(dataset.sizes[rows])


def _units(dataset: xr.Dataset, found: ShownObject) -> Any:
    pynapple = _pynapple()

    column = spikes_of(dataset, found)
    assert column is not None  # noqa: S101 - for the type checker; `_converter` looked.
    ids = _ids(dataset, found)
    if len(np.unique(ids)) < len(ids) or ids.dtype.kind not in "iu":
        raise SelectionError(
            f"The ids of {found.path!r} are no integers, or some repeat, and pynapple keys units by them: "
            "select units first, or give them other ids with assign_coords."
        )
    trains = [np.sort(train[np.isfinite(train)]) for train in rows_of(dataset, column)]
    support, of_units = observed(dataset, found, trains)
    spikes = {
        int(unit): pynapple.Ts(t=train, time_support=own)
        for unit, train, own in zip(ids, trains, of_units, strict=True)
    }
    lost = sum(map(len, trains)) - sum(map(len, spikes.values()))
    if lost:
        warn_caller(
            f"{lost} spikes of {found.path!r} lie outside of their unit's obs_intervals: pynapple's TsGroup "
            "is without them."
        )
    group = pynapple.TsGroup(spikes, time_support=support, bypass_check=True)
    if spikes:
        order = np.argsort(ids, kind="stable")
        columns = _plain(dataset, found, {SPIKE_TIMES})
        group.set_info({name: each[order] for name, each in _metadata(columns, set(dir(group))).items()})
    return group


def _intervals(dataset: xr.Dataset, found: ShownObject) -> Any:
    pynapple = _pynapple()

    columns = {"id": _ids(dataset, found), **_plain(dataset, found, {"id"})}
    start, stop = (
        in_seconds(columns.pop(name), dataset.attrs, f"{name!r} of {found.path!r}")
        for name in ("start_time", "stop_time")
    )
    valid = np.isfinite(start) & np.isfinite(stop) & (stop > start)
    if not valid.all():
        warn_caller(
            f"{np.count_nonzero(~valid)} of the {len(valid)} intervals of {found.path!r} have no start, no "
            "stop, or do not stop after they start: pynapple's IntervalSet is without them."
        )
    rows = np.flatnonzero(valid)[np.argsort(start[valid], kind="stable")]
    start, stop = start[rows], stop[rows]
    overlaps = np.count_nonzero(start[1:] < np.maximum.accumulate(stop)[:-1])
    touches = np.count_nonzero(start[1:] == stop[:-1])
    if overlaps:
        warn_caller(
            f"{overlaps} intervals of {found.path!r} start before another has stopped: pynapple's "
            "IntervalSet joins such intervals, and is without the table's other columns. ds.nwb.intervals() "
            "has them all."
        )
        return joined(np.stack([start, stop], axis=1))
    if touches:
        warn_caller(
            f"{touches} intervals of {found.path!r} stop where the next starts: pynapple's IntervalSet stops "
            "them a microsecond earlier."
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
        stored = _plain(dataset, found, set())["timestamp"]
    else:
        time = event_time(dataset, found)
        assert time is not None  # noqa: S101 - for the type checker; `_converter` looked.
        stored = dataset.variables[time.name].to_numpy()
    times = in_seconds(stored, dataset.attrs, f"the times of {found.path!r}")
    known = np.isfinite(times)
    if not known.all():
        warn_caller(
            f"{np.count_nonzero(~known)} of the {len(times)} events of {found.path!r} have no time: "
            "pynapple's Ts is without them."
        )
    seconds = np.sort(times[known])
    return pynapple.Ts(t=seconds, time_support=of_an_instant(seconds))
