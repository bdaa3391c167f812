"""Patch-clamp sweeps as (recording, time), from the tables of recordings or from sweep numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.arrays import Computed, ScaledArray, StoredArray, read_many, scaled
from intake_nwbzarr.arrays.selection import Axes, as_key
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, Reference
from intake_nwbzarr.mapping.assembly import dataset_of_one
from intake_nwbzarr.mapping.attributes import map_session
from intake_nwbzarr.mapping.model import (
    ArrayPart,
    Dimension,
    Labels,
    MappedObject,
    Mapper,
    RegularTime,
    both,
    free_name,
    run_mappers,
    values_of,
)
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.recordings import Extent, Recordings, map_recordings, target_of
from intake_nwbzarr.mapping.series_layout import SeriesMembers, series_layout
from intake_nwbzarr.mapping.series_parts import number

_RECORDING: Final = "recording"

# From the schema, nwb.icephys.yaml; not all files store them.
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

_TIME: Final[Mapping[str, str]] = {
    "units": "s",
    "long_name": "time in the sweep",
    "description": "time from the first sample of the sweep",
}


def open_sweeps(hierarchy: Hierarchy) -> dict[str, xr.Dataset]:
    """Return the Datasets of a session's sweeps by name, the root first; see `NWBAccessor.sweeps`."""
    ((mapped_objects, session),) = run_mappers(
        [both(map_sweeps(hierarchy), map_session(hierarchy, whole=False))]
    )
    attributes = {**session, **hierarchy.location.attributes()}
    datasets = {"/": xr.Dataset(attrs=attributes)}
    for name, neurodata in mapped_objects.items():
        datasets[name] = dataset_of_one(neurodata, MappingOptions(), None, attributes, cache=True)
        datasets[name].attrs = attributes | dict(neurodata.attributes)
    return datasets


def map_sweeps(hierarchy: Hierarchy) -> Mapper[dict[str, MappedObject]]:
    """Map the sweeps of a session: one object, by name, for all of one rate, length and units."""
    recordings = yield from map_recordings(hierarchy)
    sides = yield from _sides(hierarchy, [*recordings.responses, *recordings.stimuli])
    size = len(recordings.labels)
    sweeps = [
        _Sweep(number, response, stimulus)
        for number, (response, stimulus) in enumerate(zip(sides[:size], sides[size:], strict=True))
        if response is not None or stimulus is not None
    ]
    if len(sweeps) < size:
        warn_caller(
            f"{size - len(sweeps)} of {size} recordings in {hierarchy.location} have neither a response nor "
            "a stimulus, and are not among the sweeps.",
            code="incomplete-sweeps",
        )
    groups = _by_shape(sweeps)
    return {
        name: _mapped_sweeps(recordings, shape, members)
        for name, (shape, members) in zip(_names(groups), groups, strict=True)
    }


@dataclass(frozen=True)
class Segment:
    """A range of one series' samples."""

    array: StoredArray | ScaledArray  # the series' data, (time,), in units
    start: int
    count: int


@dataclass(frozen=True)
class _SweepSeries:
    """The arrays and attributes of a series that sweeps need."""

    members: SeriesMembers
    array: StoredArray | ScaledArray  # its data in units, (time,)
    unit: str | None
    timestamps: StoredArray | None  # of its samples, where it has no rate
    rate: float | None
    settings: Mapping[str, StoredArray]  # scalars that are stored with it: ``gain``, ``bias_current``


@dataclass(frozen=True)
class _Side:
    """The stimulus or the response of one recording."""

    series: _SweepSeries
    start: int
    count: int
    starting_time: float  # of its first sample, in seconds; NaN where there are timestamps instead

    @property
    def segment(self) -> Segment:
        """Return the samples."""
        return Segment(self.series.array, self.start, self.count)

    @property
    def timestamps(self) -> Segment | None:
        """Return the times of the samples, if these are stored."""
        times = self.series.timestamps
        return None if times is None else Segment(times, self.start, self.count)


@dataclass(frozen=True)
class _Sweep:
    """One recording: its number among all, its response and its stimulus."""

    number: int
    response: _Side | None
    stimulus: _Side | None

    @property
    def first(self) -> _Side:
        """Return the side that sets the recording's time: its response, or a stimulus alone."""
        side = self.response or self.stimulus
        assert side is not None  # noqa: S101 - for the type checker; recordings without either are skipped
        return side

    @property
    def units(self) -> tuple[str | None, str | None]:
        """Return the units of response and stimulus, None where there is none."""
        response, stimulus = self.response, self.stimulus
        return response.series.unit if response else None, stimulus.series.unit if stimulus else None


@dataclass(frozen=True)
class _Shape:
    """The rates and lengths that sweeps of one Dataset share."""

    rate: float | None  # samples a second, None: stored timestamps
    length: int  # samples in a sweep, those of a longer stimulus included
    stimulus_rate: float | None = None  # of stimuli with a rate of their own
    stimulus_length: int | None = None  # None where stimuli share the responses' time

    @property
    def name(self) -> str:
        """Return the shape as the name of a node."""
        name = f"{_rate_text(self.rate)}_length_{self.length}"
        if self.stimulus_length is None:
            return name
        return f"{name}_stimulus_{_rate_text(self.stimulus_rate)}_length_{self.stimulus_length}"


def _rate_text(rate: float | None) -> str:
    if rate is None:
        return "irregular"
    return f"rate_{int(rate) if rate.is_integer() else rate!r}"


def _by_shape(sweeps: Sequence[_Sweep]) -> list[tuple[_Shape, list[_Sweep]]]:
    """Group sweeps by shape, and by units where these differ."""
    shapes: dict[_Shape, list[_Sweep]] = {}
    for sweep in sweeps:
        shapes.setdefault(_shape(sweep), []).append(sweep)
    return [(shape, group) for shape, members in shapes.items() for group in _by_units(members)]


def _shape(sweep: _Sweep) -> _Shape:
    response, stimulus = sweep.response, sweep.stimulus
    if response is None or stimulus is None:
        return _Shape(sweep.first.series.rate, sweep.first.count)
    if response.series.rate == stimulus.series.rate:
        return _Shape(response.series.rate, max(response.count, stimulus.count))
    return _Shape(response.series.rate, response.count, stimulus.series.rate, stimulus.count)


def _by_units(sweeps: Sequence[_Sweep]) -> list[list[_Sweep]]:
    """Group sweeps by units; one without stimulus joins the first group it can."""
    groups: dict[tuple[str | None, str | None], list[_Sweep]] = {}
    for sweep in sorted(sweeps, key=lambda sweep: sweep.units.count(None)):
        fitting = (units for units in groups if _agree(units, sweep.units))
        groups.setdefault(next(fitting, sweep.units), []).append(sweep)
    return [sorted(group, key=lambda sweep: sweep.number) for group in groups.values()]


def _agree(one: tuple[str | None, ...], other: tuple[str | None, ...]) -> bool:
    return all(a == b or a is None or b is None for a, b in zip(one, other, strict=True))


def _names(groups: Sequence[tuple[_Shape, list[_Sweep]]]) -> list[str]:
    """Return the nodes' names: rate and length, and units where nodes differ in these alone."""
    uses = Counter(shape.name for shape, _ in groups)
    names: list[str] = []
    for shape, sweeps in groups:
        name = shape.name
        if uses[name] > 1:
            units = dict.fromkeys(unit for sweep in sweeps for unit in sweep.units[:1] if unit)
            name = "_".join([name, *units]).replace("/", "_")
        names.append(free_name(name, names))
    return names


def _mapped_sweeps(recordings: Recordings, shape: _Shape, sweeps: Sequence[_Sweep]) -> MappedObject:
    """Return the sweeps of one shape as a mapped object."""
    numbers = np.array([sweep.number for sweep in sweeps], np.intp)
    # Rows of the table of recordings, though not all of them.
    along = _dimension(_RECORDING, len(sweeps), recordings.path or None)
    labels = Labels(along, recordings.labels[numbers], recordings.attributes, column="id")
    time = _dimension("time", shape.length)
    own_time = time
    indexes: list[Labels | RegularTime] = [labels]
    if shape.rate is not None:
        indexes.append(RegularTime(time, 0.0, shape.rate, _TIME))
    if shape.stimulus_length is not None:
        own_time = _dimension("stimulus_time", shape.stimulus_length)
        if shape.stimulus_rate is not None:
            indexes.append(RegularTime(own_time, 0.0, shape.stimulus_rate, _TIME))
    responses, stimuli = [sweep.response for sweep in sweeps], [sweep.stimulus for sweep in sweeps]
    parts = [
        _samples("response", responses, (along, time)),
        _samples("stimulus", stimuli, (along, own_time)),
        *_settings("response", responses, along),
        *_settings("stimulus", stimuli, along),
    ]
    times = tuple(sweep.first.timestamps for sweep in sweeps)
    if shape.rate is None and any(times):
        described = {"units": "s", "description": "when each sample was taken"}
        parts.append(ArrayPart("timestamps", (along, time), SweepArray(times, shape.length), described))
    columns = {
        name: replace(part, dimensions=(along,), array=np.asarray(part.array)[numbers], role="coordinate")
        for name, part in recordings.columns.items()
    }
    for name, (values, attributes) in _provenance(sweeps).items():
        columns[free_name(name, columns)] = ArrayPart(name, (along,), values, attributes, "coordinate")
    parts += [replace(part, name=name) for name, part in columns.items()]
    of_shape = {"length": shape.length} | ({} if shape.rate is None else {"rate": shape.rate})
    return MappedObject(recordings.path, "", tuple(parts), tuple(indexes), of_shape)


def _dimension(name: str, size: int, table: str | None = None) -> Dimension:
    return Dimension(("sweeps", name), name, name, size, table, is_rows=table is not None)


def _samples(name: str, sides: Sequence[_Side | None], dimensions: tuple[Dimension, Dimension]) -> ArrayPart:
    units = next((side.series.unit for side in sides if side and side.series.unit), None)
    segments = tuple(side.segment if side else None for side in sides)
    array = SweepArray(segments, dimensions[1].size)
    return ArrayPart(name, dimensions, array, {} if units is None else {"units": units})


def _settings(whose: str, sides: Sequence[_Side | None], along: Dimension) -> Iterator[ArrayPart]:
    """Yield the amplifier's settings, lazily because reading each series' setting takes a request."""
    stored = [side.series.settings if side is not None else {} for side in sides]
    for name in dict.fromkeys(name for settings in stored for name in settings):
        array = SettingArray(tuple(settings.get(name) for settings in stored))
        yield ArrayPart(f"{whose}_{name}", (along,), array, {"units": _UNITS[name]} if name in _UNITS else {})


def _provenance(sweeps: Sequence[_Sweep]) -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    """Return the start of each recording, and the samples of the series that it consists of."""
    seconds = {"units": "s"}
    started = np.array([sweep.first.starting_time for sweep in sweeps], np.float64)
    found: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {}
    if not np.isnan(started).all():
        found["starting_time"] = started, seconds
    for whose in ("response", "stimulus"):
        sides: list[_Side | None] = [getattr(sweep, whose) for sweep in sweeps]
        paths = [side.series.members.path if side else "" for side in sides]
        types = [side.series.members.neurodata_type if side else "" for side in sides]
        found[f"{whose}_path"] = np.array(paths, object), {}
        found[f"{whose}_neurodata_type"] = np.array(types, object), {}
        found[f"{whose}_sample_start"] = np.array([side.start if side else 0 for side in sides], np.int64), {}
        found[f"{whose}_sample_count"] = np.array([side.count if side else 0 for side in sides], np.int64), {}
    began = np.array([sweep.stimulus.starting_time if sweep.stimulus else np.nan for sweep in sweeps])
    rates = np.array([sweep.first.series.rate or 0.0 for sweep in sweeps])
    if np.any(np.abs(began - started) * rates > 0.5):
        # The tables pair samples, not times.
        found["stimulus_starting_time"] = began, seconds
    return found


def _sides(hierarchy: Hierarchy, extents: Sequence[Extent | None]) -> Mapper[list[_Side | None]]:
    """Find the series that extents refer to, and read their starting times; None for those without sweeps."""
    wanted = dict.fromkeys(extent.reference for extent in extents if extent is not None)
    series = {
        reference: found for reference in wanted if (found := _series(hierarchy, reference)) is not None
    }
    starts = {reference: start for reference, each in series.items() if (start := each.members.starting_time)}
    values = yield from values_of(list(starts.values()))
    seconds = {reference: float(value.item()) for reference, value in zip(starts, values, strict=True)}
    return [
        _side(extent, series[extent.reference], seconds.get(extent.reference, float("nan")))
        if extent is not None and extent.reference in series
        else None
        for extent in extents
    ]


def _series(hierarchy: Hierarchy, reference: Reference) -> _SweepSeries | None:
    target = target_of(hierarchy, reference)
    if target is None:
        return None
    members = series_layout(target.hierarchy, target.path)
    data = members.data
    if data is None or data.ndim != 1 or data.dtype.kind not in "biuf":
        found = "no data" if data is None else f"data of shape {data.shape} and type {data.dtype}"
        warn_caller(
            f"{members.where} has {found} instead of one dimension of numbers, and is not among the sweeps.",
            code="incomplete-sweeps",
            path=members.path,
        )
        return None
    own = data.node.attributes
    conversion = number(own, "conversion", 1.0, members)
    offset = number(own, "offset", 0.0, members)
    unit, times = own.get("unit"), members.timestamps
    irregular = times is not None and times.shape == data.shape
    small = members.small.items()
    return _SweepSeries(
        members,
        scaled(data, conversion, offset),
        None if unit is None else str(unit),
        times if irregular else None,
        None if irregular else members.rate,
        {name: array for name, array in small if array.ndim == 0 and array.dtype.kind in "biuf"},
    )


def _side(extent: Extent, series: _SweepSeries, starting_time: float) -> _Side:
    size, rate = series.array.size, series.rate
    count = size - extent.start if extent.count is None else extent.count
    if extent.start + count > size:
        warn_caller(
            f"A recording refers to the samples {extent.start} to {extent.start + count} of "
            f"{series.members.path!r}, which has {size}; the others are dropped.",
            code="incomplete-sweeps",
        )
        count = max(size - extent.start, 0)
    return _Side(series, extent.start, count, starting_time + (extent.start / rate if rate else 0.0))


@dataclass(frozen=True, eq=False)
class SweepArray(Computed):
    """Segments of many series, one per row: float64, ``(recording, time)``, NaN beyond a segment."""

    # Reading a selection of rows fetches the chunks of those series only, in one gather.
    segments: tuple[Segment | None, ...]
    length: int  # samples in a row

    @property
    def sources(self) -> tuple[StoredArray | ScaledArray, ...]:
        """Return the series' data."""
        return tuple(segment.array for segment in self.segments if segment is not None)

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of recordings and of samples."""
        return len(self.segments), self.length

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return float64."""
        return np.dtype(np.float64)

    @property
    def chunks(self) -> tuple[int, int]:
        """Return one recording, and the first series' number of samples per chunk."""
        widths = (segment.array.chunks[0] for segment in self.segments if segment is not None)
        return 1, max(min(next(widths, self.length), self.length), 1)

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the selected samples of the selected recordings."""
        out = np.full([len(axis) for axis in axes], np.nan)
        samples = np.asarray(axes[1], np.int64)
        requests, places = [], []
        for position, row in enumerate(axes[0]):
            segment = self.segments[int(row)]
            recorded = samples < (0 if segment is None else segment.count)
            if segment is not None and recorded.any():
                requests.append((segment.array, (as_key(samples[recorded] + segment.start),)))
                places.append((position, recorded))
        for (position, recorded), values in zip(places, read_many(requests), strict=True):
            out[position, recorded] = values
        return out


@dataclass(frozen=True, eq=False)
class SettingArray(Computed):
    """One scalar setting of many series: float64, ``(recording,)``, NaN where a series has none."""

    scalars: tuple[StoredArray | None, ...]

    @property
    def sources(self) -> tuple[StoredArray, ...]:
        """Return the settings."""
        return tuple(scalar for scalar in self.scalars if scalar is not None)

    @property
    def shape(self) -> tuple[int]:
        """Return the number of recordings."""
        return (len(self.scalars),)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return float64."""
        return np.dtype(np.float64)

    def read_axes(self, axes: Axes) -> NDArray[Any]:
        """Return the setting of the selected recordings, read in one gather."""
        wanted = [self.scalars[int(row)] for row in axes[0]]
        values = iter(read_many([scalar for scalar in wanted if scalar is not None]))
        found = [np.nan if scalar is None else float(next(values).item()) for scalar in wanted]
        return np.array(found, np.float64)
