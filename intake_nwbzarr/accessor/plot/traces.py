"""Trace plots: a series over time, reduced to the minima and maxima of pixels, with channels stacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import (
    ShownObject,
    find_object,
    no_such_label,
    several_labels,
    shown_objects,
)
from intake_nwbzarr.accessor.lags import checked_positive
from intake_nwbzarr.accessor.plot.axes import (
    INK,
    axes_or_new,
    label_rows,
    quantity,
    with_units,
    without_frame,
)
from intake_nwbzarr.accessor.times import SessionTime, Time, session_times, stretch, with_seconds
from intake_nwbzarr.errors import SelectionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Values drawn unless `stop` is passed, and values read at once.
_MOST_VALUES = 2**22

_MOST_CHANNELS = 32

# Samples per pixel above which only their minimum and maximum are drawn.
_SAMPLES_IN_PIXEL = 4


def draw_traces(
    dataset: xr.Dataset,
    name: str | None,
    start: Time | None,
    stop: Time | None,
    channels: object,
    spacing: float | None,
    ax: Axes | None,
) -> Axes:
    """Draw a line for each channel; see `Plots.traces`."""
    if spacing is not None:
        spacing = checked_positive(spacing, "spacing", "data units")
    low, high = stretch(start, stop, dataset.attrs)
    what = "series over time of at most two dimensions"
    found = find_object(
        dataset, name, [each for each in shown_objects(dataset) if _fits(dataset, each)], what
    )
    assert found.main is not None  # noqa: S101 - for the type checker; `_fits` checked this
    time = _time_of(dataset, found.main)
    assert time is not None  # noqa: S101
    series = dataset[[found.main]]
    across = [str(dim) for dim in series[found.main].dims if dim != time.dim]
    labels: list[Any] = []
    total = 1
    if across:
        series, labels, total = _select_channels(series, across[0], channels, found)
    elif channels is not None:
        raise SelectionError(
            f"{found.name!r} has no dimension of channels.", path=found.path, next_step="Omit channels=."
        )
    series = with_seconds(series, time)
    series = _between(series, time, low, high, found)
    ax = axes_or_new(ax)
    pixels = max(int(ax.get_window_extent().width), 100)
    lines = _reduced(series, found.main, time, pixels)
    variable = dataset.variables[found.main]
    if len(lines) == 1:
        ax.set_ylabel(with_units(found.name if not labels else f"{found.name} {labels[0]}", variable))
        ax.plot(*lines[0], color=INK, linewidth=0.6)
        without_frame(ax)
    else:
        _stack(ax, lines, labels, spacing, str(variable.attrs.get("units", "")))
        shown = f"{across[0].rpartition('_')[2] if across else ''}"
        ax.set_ylabel(shown if len(labels) == total else f"{shown} ({len(labels)} of {total})")
        ax.set_title(found.name)
    ax.set_xlabel(with_units("time", series.variables[time.name]))
    ax.margins(x=0)
    return ax


def _fits(dataset: xr.Dataset, found: ShownObject) -> bool:
    if found.kind != "series" or found.main is None:
        return False
    variable = dataset.variables[found.main]
    return variable.ndim <= 2 and variable.dtype.kind in "biuf" and _time_of(dataset, found.main) is not None


def _time_of(dataset: xr.Dataset, name: str) -> SessionTime | None:
    return next(iter(session_times(dataset[[name]])), None)


def _select_channels(
    series: xr.Dataset, dim: str, channels: object, found: ShownObject
) -> tuple[xr.Dataset, list[Any], int]:
    """Return the channels to draw, their labels, and the number of all channels."""
    size = series.sizes[dim]
    if not size:
        raise SelectionError(f"{found.name!r} has no channels left along {dim!r}.", path=found.path)
    labels = series[dim].to_numpy() if dim in series.coords else np.arange(size)
    if channels is None:
        rows = np.unique(np.linspace(0, size - 1, min(size, _MOST_CHANNELS)).round().astype(int))
        total = size
    else:
        wanted = several_labels(channels, "channels", "the label of a channel, or a list of labels")
        missing = [channel for channel in wanted if channel not in labels]
        if missing or not wanted:
            raise no_such_label("channel", missing[0] if missing else channels, found, labels)
        rows = np.array([int(np.flatnonzero(labels == channel)[0]) for channel in wanted])
        total = len(rows)
    whole = len(rows) == size and np.array_equal(rows, np.arange(size))
    return series if whole else series.isel({dim: rows}), labels[rows].tolist(), total


def _between(
    series: xr.Dataset, time: SessionTime, start: float, stop: float, found: ShownObject
) -> xr.Dataset:
    if np.isfinite(start) or np.isfinite(stop):
        ends = (end if np.isfinite(end) else None for end in (start, stop))
        series = (
            series.sel({time.name: slice(*ends)})
            if time.name == time.dim
            else _events_between(series, time, start, stop)
        )
    across = max(series[found.main].size // max(series.sizes[time.dim], 1), 1)
    if stop == np.inf:
        series = series.isel({time.dim: slice(0, max(_MOST_VALUES // across, 1))})
    if series.sizes[time.dim] == 0:
        first = f"start={start!r}" if start > -np.inf else "its beginning"
        last = f"stop={stop!r}" if stop < np.inf else "its end"
        between = f" between {first} and {last}" if np.isfinite(start) or np.isfinite(stop) else " here"
        raise SelectionError(f"{found.name!r} has no samples{between}.", path=found.path, found=(start, stop))
    return series


def _events_between(series: xr.Dataset, time: SessionTime, start: float, stop: float) -> xr.Dataset:
    """Select events, whose coordinate of times has another name than their dimension."""
    seconds = series[time.name].to_numpy()
    return series.isel({time.dim: np.flatnonzero((seconds >= start) & (seconds <= stop))})


def _reduced(
    series: xr.Dataset, name: str, time: SessionTime, pixels: int
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the times and values to draw of each channel."""
    size = series.sizes[time.dim]
    bins = pixels if size > _SAMPLES_IN_PIXEL * pixels else 0
    reduced: list[list[tuple[NDArray[Any], NDArray[Any]]]] = []
    for block, begins in _blocks(series, name, time.dim, bins):
        times = block[time.name].to_numpy()
        values = block[name].variable.transpose(time.dim, ...).to_numpy().reshape(len(times), -1)
        # Booleans are drawn as 0 and 1.
        columns = values.astype(np.float64).T
        reduced.append([extremes(times, column, begins) if bins else (times, column) for column in columns])
    return [
        (np.concatenate([times for times, _ in parts]), np.concatenate([values for _, values in parts]))
        for parts in zip(*reduced, strict=True)
    ]


def _blocks(
    series: xr.Dataset, name: str, dim: str, bins: int
) -> Iterator[tuple[xr.Dataset, NDArray[np.intp]]]:
    """Yield blocks that fit into memory, and the first sample of each pixel in them."""
    size = series.sizes[dim]
    edges = np.linspace(0, size, (bins or 1) + 1).astype(np.intp)
    across = max(series[name].size // size, 1)
    at_once = max(int(_MOST_VALUES // (across * max(size / (bins or 1), 1))), 1)
    for first in range(0, len(edges) - 1, at_once):
        last = min(first + at_once, len(edges) - 1)
        yield series.isel({dim: slice(int(edges[first]), int(edges[last]))}), edges[first:last] - edges[first]


def extremes(
    times: NDArray[Any], values: NDArray[np.float64], begins: NDArray[np.intp]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the minimum and maximum of each pixel, in order of time; NaN where a pixel has nothing else."""
    positions: list[int] = []
    for begin, end in zip(begins, [*begins[1:], len(values)], strict=True):
        part = values[begin:end]
        if np.isnan(part).all():
            positions.append(int(begin))
            continue
        positions.extend(sorted({int(begin + np.nanargmin(part)), int(begin + np.nanargmax(part))}))
    return times[positions], values[positions]


def _stack(
    ax: Axes,
    lines: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    labels: Sequence[Any],
    spacing: float | None,
    units: str,
) -> None:
    centred = [(times, values - _finite(np.nanmedian, values)) for times, values in lines]
    if spacing is None:
        # Most of the drawn values, of the channels with the largest spread except for outliers.
        spreads = [_finite(lambda v: np.subtract(*np.nanpercentile(v, [99, 1])), v) for _, v in centred]
        spacing = float(np.percentile(spreads, 90)) * 1.2 or 1.0
    offsets = [-spacing * row for row in range(len(lines))]
    for offset, (times, values) in zip(offsets, centred, strict=True):
        ax.plot(times, values + offset, color=INK, linewidth=0.6)
    label_rows(ax, offsets, labels)
    # Spacing ignores outliers, so the limits of the axis include them.
    drawn = [values + offset for offset, (_, values) in zip(offsets, centred, strict=True)]
    lowest = min(_finite(np.min, values) for values in drawn)
    highest = max(_finite(np.max, values) for values in drawn)
    ax.set_ylim(min(offsets[-1], lowest) - spacing / 2, max(0.0, highest) + spacing / 2)
    without_frame(ax, "left")
    _scale_bar(ax, spacing, units)


def _finite(function: Any, values: NDArray[np.float64]) -> float:
    """Return a statistic of the finite values, 0 where there are none."""
    known = values[np.isfinite(values)]
    return float(function(known)) if len(known) else 0.0


def _scale_bar(ax: Axes, spacing: float, units: str) -> None:
    """Draw a bar of a round length beside the first channel."""
    # 1, 2 or 5 times a power of ten.
    exponent = np.floor(np.log10(spacing))
    length = (
        max(step for step in (1.0, 2.0, 5.0) if step * 10**exponent <= spacing * 1.0000001) * 10**exponent
    )
    beside = ax.get_yaxis_transform()
    ax.plot([1.01, 1.01], [-length / 2, length / 2], transform=beside, color=INK, linewidth=2, clip_on=False)
    ax.text(1.02, 0, quantity(length, units), transform=beside, va="center", rotation=90, fontsize="small")
