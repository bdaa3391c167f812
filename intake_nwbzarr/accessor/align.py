"""Peri-event alignment: series and spike counts around events."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import find_object, shown_objects
from intake_nwbzarr.accessor.counts import Countable, countable
from intake_nwbzarr.accessor.events import Events, EventTimes, event_times, events_named
from intake_nwbzarr.accessor.inputs import part_of
from intake_nwbzarr.accessor.lags import bin_edges, checked_positive, checked_window
from intake_nwbzarr.accessor.peri_event.bins import Bins
from intake_nwbzarr.accessor.peri_event.samples import AlignMethod, incomplete
from intake_nwbzarr.accessor.peri_event.series_lags import SeriesLags, series_lags
from intake_nwbzarr.accessor.spikes.counts import count_variable
from intake_nwbzarr.accessor.spikes.units import has_spikes
from intake_nwbzarr.accessor.taken import peri_event_variable
from intake_nwbzarr.accessor.times import TimeAxis, time_axes
from intake_nwbzarr.arguments import check_choice
from intake_nwbzarr.errors import OptionError, SelectionError
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
        width = checked_positive(bin, "bin", "the width of a bin in seconds")
        for value, keyword in ((rate, "rate"), (method, "method"), (gap, "gap")):
            _unused(value, keyword, "is of series' samples, and bin= counts: leave out one of them")
        counted = countable(dataset, name, by)
        found = event_times(events, on, dataset.attrs)
        return _align_counts(counted, found, bin_edges(window, width), width, on_missing, dataset.coords)
    _unused(by, "by", "is of what is counted: give the width of a bin with bin=")
    if name is not None:
        timed = [each for each in shown_objects(dataset) if each.kind in {"series", "table"}]
        dataset = part_of(dataset, find_object(dataset, name, timed, "series and tables"))
    axis = _time_axis(dataset)
    found = event_times(events, on, dataset.attrs)
    return _align_series(dataset, series_lags(axis, window, rate, method, gap), found, on_missing)


def _time_axis(dataset: xr.Dataset) -> TimeAxis:
    """The one time of a Dataset's series."""
    axes = list(time_axes(dataset))
    if len(axes) == 1:
        return axes[0]
    if has_spikes(dataset) and not axes:
        raise OptionError(
            "Units are aligned as spike counts: give the width of a bin in seconds, such as bin=0.01."
        )
    if not axes:
        raise SelectionError(
            "There is nothing to align: no variable of this Dataset lies along an indexed time of the "
            "session, and it has no ragged spike times. Open a series or the units with group=; when "
            "selecting variables, keep the '_start' and '_count' of spike times, and the time of a series. "
            "To count events, give the width of a bin in seconds with bin=."
        )
    series = [each.name for each in shown_objects(dataset) if each.kind == "series" and each.main is not None]
    raise OptionError(
        f"This Dataset has series along several times, {', '.join(repr(axis.dimension) for axis in axes)}; "
        f"pass name=, one of {', '.join(map(repr, series))}. To count spikes or events, pass bin=."
    )


def _unused(value: Any, keyword: str, why: str) -> None:
    if value is not None:
        raise OptionError(f"{keyword}={value!r} {why}.")


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
        name: peri_event_variable(
            dataset.variables[name], along, (events.dimension, LAG), samples, whole=whole
        )
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
    bins = Bins(events.times, edges, None if observed is None else tuple(observed))
    if on_missing != "nan":
        unknown = bins.incomplete(len(counted.spikes))
        events = _complete(events, unknown, on_missing, "a time at which every unit was observed")
        bins = Bins(events.times, edges, bins.observed)
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
    """The events of which nothing is missing, or an error that names the first one that is not."""
    if on_missing == "raise" and missing.any():
        first = int(np.flatnonzero(missing)[0])
        raise SelectionError(
            f"{int(missing.sum())} of {len(missing)} events lack {what} at some lag: the first is "
            f"{events.name(first)}. Use on_missing='drop' to leave them out, 'nan' to keep them, or a "
            "narrower window."
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
    """The aligned variables with everything that is known along their dimensions.

    Parameters
    ----------
    rest
        What the Dataset holds beside them.
    variables
        Along events and lags.
    events
        With their table's columns.
    lags
        The coordinate.
    offsets
        From each event to the sample at lag 0.
    coordinates
        Those that the Dataset had.
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
                f"What is aligned lies along {dimension!r}, and so would the {what} of the result. Rename "
                f"one, such as with .rename({{{dimension!r}: {f'{dimension}_'!r}}})."
            )


def _named_apart(events: EventTimes, names_taken: Iterable[Hashable]) -> xr.Dataset:
    """The events' columns, those renamed that have a name or a dimension of what is aligned."""
    taken = set(map(str, names_taken))
    names = {
        name: free_name(f"{events.dimension}_{name}", taken | set(map(str, events.columns.variables)))
        for name in (*events.columns.variables, *events.columns.dims)
        if name != events.dimension and name in taken
    }
    return events.columns.rename(names)
