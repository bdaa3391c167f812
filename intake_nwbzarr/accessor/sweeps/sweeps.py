"""Patch-clamp sweeps as (recording, time): one Dataset for each rate and length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from xarray.indexes import PandasIndex

from intake_nwbzarr.accessor.sessions import with_origin
from intake_nwbzarr.accessor.sweeps.arrays import SettingArray, SweepArray
from intake_nwbzarr.accessor.sweeps.numbers import (
    numbered_recordings,
    sweep_table_path,
    sweep_table_recordings,
)
from intake_nwbzarr.accessor.sweeps.recordings import ICEPHYS, RECORDING, Recordings, table_recordings
from intake_nwbzarr.accessor.sweeps.series import Side, read_sides
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.errors import NodeNotFoundError, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, open_hierarchy
from intake_nwbzarr.indexes import RegularTimeIndex
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.mapping.attributes import map_session
from intake_nwbzarr.mapping.model import free_name, read_pieces

# As attributes or in the descriptions of the schema, nwb.icephys.yaml; files do not all repeat them.
_UNITS: Final[Mapping[str, str]] = {
    "bias_current": "amperes",
    "bridge_balance": "ohms",
    "capacitance_compensation": "farads",
    "capacitance_fast": "farads",
    "capacitance_slow": "farads",
    "resistance_comp_bandwidth": "hertz",
    "resistance_comp_correction": "percent",
    "resistance_comp_prediction": "percent",
    "whole_cell_capacitance_comp": "farads",
    "whole_cell_series_resistance_comp": "ohms",
}


def sweeps(location: Location) -> xr.DataTree:
    """The sweeps of a session; see `NWBAccessor.sweeps`, which documents the result.

    Parameters
    ----------
    location
        The session.

    Raises
    ------
    NodeNotFoundError
        When the session has no intracellular recordings: no table of them, no SweepTable, and no patch-clamp
        series with a sweep number.
    """
    hierarchy = open_hierarchy(location)
    recordings = _recordings(hierarchy)
    sides = read_sides(hierarchy, [*recordings.responses, *recordings.stimuli])
    size = len(recordings.labels)
    rows = [
        _Row(number, response, stimulus)
        for number, (response, stimulus) in enumerate(zip(sides[:size], sides[size:], strict=True))
        if response is not None or stimulus is not None
    ]
    if len(rows) < size:
        warn_caller(
            f"{size - len(rows)} of {size} recordings in {hierarchy.location} have neither a response nor a "
            "stimulus: they are left out of the sweeps."
        )
    (session,) = read_pieces([map_session(hierarchy, whole=False)])
    attributes = {**session, **hierarchy.location.attributes()}
    groups = _by_shape(rows)
    names = _names(groups)
    datasets = {
        name: _dataset(recordings, shape, members, attributes)
        for name, (shape, members) in zip(names, groups, strict=True)
    }
    datasets = {"/": xr.Dataset(attrs=attributes)} | datasets
    for dataset in datasets.values():
        with_origin(dataset, hierarchy.location, session)
    return xr.DataTree.from_dict(datasets)


@dataclass(frozen=True)
class _Row:
    """One recording: its number among all, and what was recorded."""

    number: int
    response: Side | None
    stimulus: Side | None

    @property
    def first(self) -> Side:
        """What places the recording in time: its response, or a stimulus alone."""
        side = self.response or self.stimulus
        assert side is not None  # noqa: S101 - for the type checker; rows without either are left out.
        return side

    @property
    def units(self) -> tuple[str | None, str | None]:
        """Of response and stimulus, None where there is none."""
        response, stimulus = self.response, self.stimulus
        return response.series.unit if response else None, stimulus.series.unit if stimulus else None


@dataclass(frozen=True)
class _Shape:
    """What recordings of one Dataset have in common.

    Parameters
    ----------
    rate, length
        Samples a second (None: stored timestamps) and in a recording, those of a longer stimulus included.
    stimulus_rate, stimulus_length
        Of stimuli with a rate of their own; None where they share the responses'.
    """

    rate: float | None
    length: int
    stimulus_rate: float | None = None
    stimulus_length: int | None = None

    @property
    def name(self) -> str:
        """As the name of a node."""
        name = f"{_rate_text(self.rate)}_length_{self.length}"
        if self.stimulus_length is None:
            return name
        return f"{name}_stimulus_{_rate_text(self.stimulus_rate)}_length_{self.stimulus_length}"


def _recordings(hierarchy: Hierarchy) -> Recordings:
    """From the newest form of table that the session has."""
    if f"{ICEPHYS}/intracellular_recordings" in hierarchy:
        return read_pieces([table_recordings(hierarchy)])[0]
    path = sweep_table_path(hierarchy)
    if path is not None:
        return read_pieces([sweep_table_recordings(hierarchy, path)])[0]
    recordings = numbered_recordings(hierarchy)
    if not len(recordings.labels):
        raise NodeNotFoundError(
            f"{hierarchy.location} has no sweeps: neither {ICEPHYS}/intracellular_recordings, nor a "
            "SweepTable, nor patch-clamp series with a sweep_number in acquisition and "
            "stimulus/presentation. Its series can be opened one by one, with group=."
        )
    return recordings


def _by_shape(rows: Sequence[_Row]) -> list[tuple[_Shape, list[_Row]]]:
    """Recordings of one shape, and of units that do not contradict each other."""
    shapes: dict[_Shape, list[_Row]] = {}
    for row in rows:
        shapes.setdefault(_shape(row), []).append(row)
    return [(shape, group) for shape, members in shapes.items() for group in _by_units(members)]


def _shape(row: _Row) -> _Shape:
    response, stimulus = row.response, row.stimulus
    if response is None or stimulus is None:
        return _Shape(row.first.series.rate, row.first.count)
    if response.series.rate == stimulus.series.rate:
        return _Shape(response.series.rate, max(response.count, stimulus.count))
    return _Shape(response.series.rate, response.count, stimulus.series.rate, stimulus.count)


def _by_units(rows: Sequence[_Row]) -> list[list[_Row]]:
    """One group where all agree; a recording without stimulus joins the first group it can."""
    groups: dict[tuple[str | None, str | None], list[_Row]] = {}
    for row in sorted(rows, key=lambda row: row.units.count(None)):
        fitting = (units for units in groups if _agree(units, row.units))
        groups.setdefault(next(fitting, row.units), []).append(row)
    return [sorted(group, key=lambda row: row.number) for group in groups.values()]


def _agree(one: tuple[str | None, ...], other: tuple[str | None, ...]) -> bool:
    return all(a == b or a is None or b is None for a, b in zip(one, other, strict=True))


def _names(groups: Sequence[tuple[_Shape, list[_Row]]]) -> list[str]:
    """The nodes' names: rate and length, and units where these alone tell two apart."""
    uses = Counter(shape.name for shape, _ in groups)
    names: list[str] = []
    for shape, rows in groups:
        name = shape.name
        if uses[name] > 1:
            units = dict.fromkeys(unit for row in rows for unit in row.units[:1] if unit)
            name = "_".join([name, *units]).replace("/", "_")
        names.append(free_name(name, names))
    return names


def _rate_text(rate: float | None) -> str:
    if rate is None:
        return "irregular"
    return f"rate_{int(rate) if rate.is_integer() else rate!r}"


def _dataset(
    recordings: Recordings, shape: _Shape, rows: Sequence[_Row], attributes: Mapping[str, Any]
) -> xr.Dataset:
    responses, stimuli = [row.response for row in rows], [row.stimulus for row in rows]
    own_time = shape.stimulus_length is not None
    variables = {
        "response": _samples(responses, "time", shape.length),
        "stimulus": _samples(stimuli, "stimulus_time", shape.stimulus_length or 0)
        if own_time
        else _samples(stimuli, "time", shape.length),
        **_settings("response", responses),
        **_settings("stimulus", stimuli),
    }
    times = [row.first.timestamps for row in rows]
    if shape.rate is None and any(times):
        described = {"units": "s", "description": "when each sample was taken"}
        array = SweepArray(tuple(times), shape.length)
        variables["timestamps"] = lazy_variable((RECORDING, "time"), array, described, cache=True)
    numbers = np.array([row.number for row in rows], np.intp)
    labels = xr.Variable(RECORDING, recordings.labels[numbers], recordings.attributes)
    index = PandasIndex(labels.values, RECORDING)
    coordinates = xr.Coordinates(index.create_variables({RECORDING: labels}), {RECORDING: index})
    for rate, length, name in (
        (shape.rate, shape.length, "time"),
        (shape.stimulus_rate, shape.stimulus_length, "stimulus_time"),
    ):
        if rate is not None and length is not None:
            described = {
                "units": "s",
                "long_name": "time in the sweep",
                "description": "time from the first sample of the sweep",
            }
            coordinates.update(
                RegularTimeIndex.from_rate(0.0, rate, length, name, name, described).coordinates()
            )
    beside = {name: variable[numbers] for name, variable in recordings.coordinates.items()}
    for name, variable in _where_from(rows).items():
        beside[free_name(name, beside)] = variable
    together = xr.Coordinates({**coordinates.variables, **beside}, coordinates.xindexes)
    of_shape = {"length": shape.length} | ({} if shape.rate is None else {"rate": shape.rate})
    return xr.Dataset(variables, together, {**attributes, **of_shape})


def _samples(sides: Sequence[Side | None], dimension: str, length: int) -> xr.Variable:
    units = next((side.series.unit for side in sides if side and side.series.unit), None)
    array = SweepArray(tuple(side.segment if side else None for side in sides), length)
    attributes = {} if units is None else {"units": units}
    return lazy_variable((RECORDING, dimension), array, attributes, cache=True)


def _settings(whose: str, sides: Sequence[Side | None]) -> dict[str, xr.Variable]:
    """The amplifier's settings, which are stored with each series: lazily, for each is a request."""
    stored = [side.series.settings if side is not None else {} for side in sides]
    variables = {}
    for name in dict.fromkeys(name for settings in stored for name in settings):
        scalars = tuple(settings.get(name) for settings in stored)
        attributes = {"units": _UNITS[name]} if name in _UNITS else {}
        variables[f"{whose}_{name}"] = lazy_variable(
            (RECORDING,), SettingArray(scalars), attributes, cache=True
        )
    return variables


def _where_from(rows: Sequence[_Row]) -> dict[str, xr.Variable]:
    """When each recording began, and which samples of which series it is."""
    started = np.array([row.first.starting_time for row in rows], np.float64)
    found = {}
    if not np.isnan(started).all():
        found["starting_time"] = xr.Variable(RECORDING, started, {"units": "s"})
    for whose in ("response", "stimulus"):
        sides: list[Side | None] = [getattr(row, whose) for row in rows]
        found[f"{whose}_path"] = _column([side.series.path if side else "" for side in sides], object)
        types = [side.series.neurodata_type if side else "" for side in sides]
        found[f"{whose}_neurodata_type"] = _column(types, object)
        found[f"{whose}_sample_start"] = _column([side.start if side else 0 for side in sides], np.int64)
        found[f"{whose}_sample_count"] = _column([side.count if side else 0 for side in sides], np.int64)
    began = np.array([row.stimulus.starting_time if row.stimulus else np.nan for row in rows])
    if np.any(np.abs(began - started) * np.array([row.first.series.rate or 0.0 for row in rows]) > 0.5):
        # The tables pair samples, not times; where these differ, both are told.
        found["stimulus_starting_time"] = xr.Variable(RECORDING, began, {"units": "s"})
    return found


def _column(values: Sequence[Any], dtype: Any) -> xr.Variable:
    return xr.Variable(RECORDING, np.array(values, dtype))
