"""Peri-event alignment (`ds.nwb.align`): series, and counts of spikes or events, around events."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import listed, part_named, shown_objects
from intake_nwbzarr.accessor.counts import Countable, EventBins, count_variable, countable
from intake_nwbzarr.accessor.events import Events, EventTimes, event_times, events_named
from intake_nwbzarr.accessor.interpolation import (
    METHODS,
    AlignMethod,
    Samples,
    TimedSamples,
    aligned_variable,
    incomplete,
    on_grid,
)
from intake_nwbzarr.accessor.lags import NEAR, bin_edges, checked_positive, checked_window, sample_steps
from intake_nwbzarr.accessor.spikes import has_spikes
from intake_nwbzarr.accessor.times import TimeAxis, time_axes
from intake_nwbzarr.arguments import check_choice
from intake_nwbzarr.errors import OptionError, SelectionError
from intake_nwbzarr.indexes.timestamps import in_memory
from intake_nwbzarr.mapping.model import free_name

__all__ = ["AlignMethod", "Events", "OnMissing", "align"]

type OnMissing = Literal["nan", "drop", "raise"]
"""What becomes of events of which something is missing."""

LAG: Final = "lag"
LAG_OFFSET: Final = "lag_offset"

# What xarray's plots write on their axes.
_LAG: Final = "time from the event"

_ON_MISSING = ("nan", "drop", "raise")


def align(
    dataset: xr.Dataset,
    events: Events | str,
    window: tuple[float, float],
    *,
    on: str | None = None,
    bin: float | None = None,  # noqa: A002 - the word that everybody uses
    rate: float | None = None,
    method: AlignMethod | None = None,
    gap: float | None = None,
    on_missing: OnMissing = "nan",
    name: str | None = None,
    by: str | None = None,
) -> xr.Dataset:
    """Align a series, or counts of spikes or events, to events; see `NWBAccessor.align`."""
    window = checked_window(window)
    check_choice("on_missing", on_missing, _ON_MISSING)
    events, on = events_named(dataset, events, on)
    if bin is not None:
        width = checked_positive(bin, "bin", "seconds")
        for value, keyword in ((rate, "rate"), (method, "method"), (gap, "gap")):
            _refuse(value, keyword, "with bin=, which counts events", f"Omit {keyword}=, or bin=.")
        counted = countable(dataset, name, by)
        found = event_times(events, on, dataset.attrs)
        return _align_counts(counted, found, bin_edges(window, width), width, on_missing, dataset.coords)
    _refuse(by, "by", "without bin=", "Pass the width of a bin in seconds with bin=.")
    dataset = part_named(dataset, name)
    axis = _time_axis(dataset)
    found = event_times(events, on, dataset.attrs)
    return _align_series(dataset, series_lags(axis, window, rate, method, gap), found, on_missing)


def _time_axis(dataset: xr.Dataset) -> TimeAxis:
    """Return the one time of a Dataset's series."""
    axes = list(time_axes(dataset))
    if len(axes) == 1:
        return axes[0]
    if has_spikes(dataset) and not axes:
        raise OptionError(
            "Units are aligned as spike counts, which requires bin=.",
            expected="bin=",
            next_step="Pass the width of a bin in seconds, such as bin=0.01.",
        )
    if not axes:
        raise SelectionError(
            "There is nothing to align: this Dataset has no variable along an indexed time of the session, "
            "and no ragged spike times.",
            found=list(map(str, dataset.variables)),
            next_step="Open a series or the units with group=; when selecting variables, keep the '_start' "
            "and '_count' of spike times, and the time of a series. To count events, pass bin=.",
        )
    series = [each.name for each in shown_objects(dataset) if each.kind == "series" and each.main is not None]
    raise OptionError(
        f"This Dataset has series along several times, {listed(axis.dimension for axis in axes)}.",
        expected=series,
        next_step=f"Pass name=, one of {listed(series, 20)}. To count spikes or events, pass bin=.",
    )


def _refuse(value: Any, keyword: str, condition: str, next_step: str) -> None:
    if value is not None:
        raise OptionError(f"{keyword}={value!r} is not valid {condition}.", found=value, next_step=next_step)


@dataclass(frozen=True)
class SeriesLags:
    """The lags of a series, and how its samples are found; made by `series_lags`."""

    axis: TimeAxis  # the time of the series
    rate: float  # lags per second
    steps: NDArray[np.int64]  # the lags in units of 1 / rate, (lag,)
    method: AlignMethod
    gap: float  # the longest time between neighbouring samples that is bridged, in seconds

    @property
    def lags(self) -> NDArray[np.float64]:
        """Return the lags in seconds, (lag,)."""
        return self.steps / self.rate

    def samples(self, times: NDArray[np.float64]) -> tuple[Samples, NDArray[np.float64] | None]:
        """Return the samples around events, and how much later than each event the one at lag 0 is.

        Of samples that are looked up one by one, there is no one number that says so: None.
        """
        series, backwards = self.axis.view, self.axis.backwards
        if self.rate == self.axis.rate:
            return on_grid(times, series, self.rate, self.steps, self.method, backwards=backwards)
        bridged = self.gap * (1 + NEAR)
        reach = {"nearest": bridged / 2, "ffill": bridged, "linear": np.inf}[self.method]
        events = in_memory(times)
        return TimedSamples(events, self.lags, series, backwards, self.method, reach, bridged), None


def series_lags(
    axis: TimeAxis,
    window: tuple[float, float],
    rate: float | None,
    method: AlignMethod | None,
    gap: float | None,
) -> SeriesLags:
    """Choose the lags of a series, and how its samples are found; check the keywords that say so."""
    check_choice("method", method, (None, *METHODS))
    if axis.rate is None and (rate is None or method is None):
        raise OptionError(
            f"The samples along {axis.dimension!r} are irregularly spaced.",
            found=(rate, method),
            expected=("rate", "method"),
            next_step=f"Pass rate= (Hz) and method= ({', '.join(map(repr, METHODS))}).",
        )
    wanted = axis.rate if rate is None else checked_positive(rate, "rate", "lags per second")
    assert wanted is not None  # noqa: S101 - for the type checker: of an irregular series it was given
    if gap is not None:
        gap = checked_positive(gap, "gap", "seconds")
        if axis.rate is not None:
            raise OptionError(
                f"gap={gap!r} is not valid for a series at a regular rate, which has no gaps.",
                found=gap,
                next_step="Omit gap=.",
            )
    # Twice as far apart as they are asked for, irregular samples have one missing between them.
    bridged = gap or (2 / wanted if axis.rate is None else np.inf)
    return SeriesLags(axis, wanted, sample_steps(window, wanted), method or "nearest", bridged)


def _align_series(
    dataset: xr.Dataset, chosen: SeriesLags, events: EventTimes, on_missing: OnMissing
) -> xr.Dataset:
    along = chosen.axis.dimension
    aligned = [
        name
        for name, variable in dataset.variables.items()
        if along in variable.dims and name not in dataset.xindexes
    ]
    _check_dimensions({dim for name in aligned for dim in dataset[name].dims} - {along}, events)
    samples, offsets = chosen.samples(events.times)
    whole = on_missing != "nan"
    if whole:
        events = _complete(events, incomplete(samples), on_missing, "samples in the recording")
        samples, offsets = chosen.samples(events.times)
    variables = {
        name: aligned_variable(dataset.variables[name], along, (events.dimension, LAG), samples, whole=whole)
        for name in aligned
    }
    described = {"units": "s", "long_name": _LAG, "description": _LAG, "rate": chosen.rate}
    lags = xr.Variable(LAG, chosen.lags, described)
    return _assembled(dataset.drop_dims([along]), variables, events, lags, offsets, dataset.coords)


def _align_counts(
    counted: Countable,
    events: EventTimes,
    edges: NDArray[np.float64],
    width: float,
    on_missing: OnMissing,
    coordinates: Mapping[Any, Any],
) -> xr.Dataset:
    rows = "row" if counted.rows is None else counted.rows
    if counted.rows is not None:
        _check_dimensions([rows], events)
    observed = counted.observed()
    bins = EventBins(events.times, edges, None if observed is None else tuple(observed))
    if on_missing != "nan":
        unknown = bins.incomplete(len(counted.spikes))
        events = _complete(events, unknown, on_missing, "a time at which every unit was observed")
        bins = EventBins(events.times, edges, bins.observed)
    attributes = {**counted.attributes, "description": "number of events in each bin around the event"}
    dims = (rows, events.dimension, LAG)
    counts = count_variable(counted.spikes, bins, dims, attributes, whole=on_missing != "nan")
    lags = xr.Variable(
        LAG,
        edges[:-1],
        {
            "units": "s",
            "long_name": _LAG,
            "description": "time from the event to the left edge of each bin [lag, lag + bin_width)",
            "bin_width": width,
        },
    )
    variables: dict[Hashable, xr.Variable] = {counted.name: counted.counted(counts)}
    return _assembled(counted.columns, variables, events, lags, None, coordinates)


def _complete(events: EventTimes, missing: NDArray[np.bool_], on_missing: OnMissing, what: str) -> EventTimes:
    """Return the events of which nothing is missing, or raise an error that names the first other."""
    if on_missing == "raise" and missing.any():
        first = int(np.flatnonzero(missing)[0])
        raise SelectionError(
            f"{int(missing.sum())} of {len(missing)} events lack {what} at some lag; the first is "
            f"{events.name(first)}.",
            found=int(missing.sum()),
            next_step="Pass on_missing='drop' to drop them, 'nan' to keep them, or a narrower window.",
        )
    return events.take(np.flatnonzero(~missing))


def _assembled(
    rest: xr.Dataset,
    variables: Mapping[Hashable, xr.Variable],
    events: EventTimes,
    lags: xr.Variable,
    offsets: NDArray[np.float64] | None,
    coordinates: Mapping[Any, Any],
) -> xr.Dataset:
    """Return the aligned variables with everything that is known along their dimensions.

    `rest` is what the Dataset holds beside them, `coordinates` are those that it had, `offsets` are from each
    event to its sample at lag 0.
    """
    dims = {dimension for variable in variables.values() for dimension in variable.dims}
    others = dims - {events.dimension, LAG}
    kept = rest.drop_vars([name for name in rest.variables if name not in rest.coords])
    kept = kept.drop_vars([name for name in kept.coords if not others.issuperset(kept[name].dims)])
    aligned = kept.assign(variables)
    aligned = aligned.set_coords([name for name in variables if name in coordinates])
    aligned = aligned.assign_coords({LAG: lags})
    if offsets is not None:
        described = {"units": "s", "description": "time from the event to its sample at lag 0"}
        aligned = aligned.assign_coords({LAG_OFFSET: (events.dimension, offsets, described)})
    return aligned.assign_coords(_named_apart(events, {*aligned.variables, *dims}).coords)


def _check_dimensions(dims: Iterable[Hashable], events: EventTimes) -> None:
    """Refuse a result that would have two dimensions of one name."""
    for dimension, what in ((events.dimension, "events"), (LAG, "lags")):
        if dimension in dims:
            raise OptionError(
                f"The aligned variables have the dimension {dimension!r}, which is also that of the {what}.",
                found=dimension,
                next_step=f"Rename one, such as with .rename({{{dimension!r}: {f'{dimension}_'!r}}}).",
            )


def _named_apart(events: EventTimes, names_taken: Iterable[Hashable]) -> xr.Dataset:
    """Return the events' columns, those renamed that have a name or a dimension of what is aligned."""
    taken = set(map(str, names_taken))
    names = {
        name: free_name(f"{events.dimension}_{name}", taken | set(map(str, events.columns.variables)))
        for name in (*events.columns.variables, *events.columns.dims)
        if name != events.dimension and name in taken
    }
    return events.columns.rename(names)
