"""Raster plots: spikes of many units over time, or of one unit around events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import ShownObject, no_such_label, row_ids, several_labels
from intake_nwbzarr.accessor.events import Events, event_times, events_named
from intake_nwbzarr.accessor.lags import checked_window
from intake_nwbzarr.accessor.plot.axes import (
    ACCENT,
    INK,
    axes_or_new,
    checked_color,
    label_rows,
    without_frame,
)
from intake_nwbzarr.accessor.spikes import rows_of, spikes_of, spiking_table
from intake_nwbzarr.accessor.times import Time, stretch
from intake_nwbzarr.errors import OptionError, warn_caller

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EventCollection

# Number of spikes above which they are rasterized in vector graphics.
_MANY = 20_000

# Spikes in a line above which some share a pixel; the more there are, the more transparent each is.
_DENSE = 800


def draw_raster(
    dataset: xr.Dataset,
    units: int | Sequence[int] | None,
    start: Time | None,
    stop: Time | None,
    name: str | None,
    color: str | None,
    ax: Axes | None,
) -> Axes:
    """Draw a line of spikes for each unit; see `Plots.raster`."""
    table = spiking_table(dataset, name)
    rows, ids = _rows(dataset, table, units)
    low, high = stretch(start, stop, dataset.attrs)
    trains = [train[(train >= low) & (train <= high)] for train in _trains(dataset, table, rows)]
    ax = axes_or_new(ax)
    _draw_lines(ax, trains, color)
    label_rows(ax, range(len(ids)), ids.tolist())
    ax.set(xlabel="time [s]", ylabel="unit")
    if np.isfinite(low):
        ax.set_xlim(left=low)
    if np.isfinite(high):
        ax.set_xlim(right=high)
    return ax


def draw_raster_around(
    dataset: xr.Dataset,
    units: int | Sequence[int] | None,
    events: Events | str | None,
    window: tuple[float, float] | None,
    on: str | None,
    name: str | None,
    color: str | None,
    ax: Axes | None,
) -> Axes:
    """Draw a line of one unit's spikes for each event; see `Plots.raster`."""
    if events is None or window is None:
        raise OptionError(
            "A raster around events requires both events= and window=.",
            found="window" if events is None else "events",
            expected=("events", "window"),
            next_step="Pass events=, and window=(before, after) in seconds.",
        )
    before, after = checked_window(window)
    table = spiking_table(dataset, name)
    rows, ids = _rows(dataset, table, units)
    if len(rows) != 1:
        raise OptionError(
            f"A raster around events is of one unit, not of {len(rows)}.",
            found=ids.tolist(),
            next_step="Pass the id of one unit: raster(id, events=..., window=...).",
        )
    times, names = _event_times(dataset, events, on)
    (train,) = (np.sort(each) for each in _trains(dataset, table, rows))
    first = np.searchsorted(train, times + before)
    last = np.searchsorted(train, times + after)
    lags = [train[a:b] - time for a, b, time in zip(first, last, times, strict=True)]
    ax = axes_or_new(ax)
    _draw_lines(ax, lags, color)
    ax.axvline(0, color=ACCENT, linewidth=1, zorder=0)
    label_rows(ax, range(len(lags)), names.values.tolist())
    ax.set(xlabel="time from event [s]", ylabel=str(names.name), xlim=(before, after))
    ax.set_title(f"unit {ids[0]}")
    return ax


def _rows(
    dataset: xr.Dataset, table: ShownObject, units: int | Sequence[int] | None
) -> tuple[list[int], NDArray[np.generic]]:
    """Return the positions and ids of the selected units, in the order in which they were passed."""
    ids = row_ids(dataset, table)
    if units is None:
        return list(range(len(ids))), ids
    wanted = several_labels(units, "units", "the id of a unit, or a list of ids")
    missing = [unit for unit in wanted if unit not in ids]
    if missing:
        raise no_such_label("unit", missing[0], table, ids)
    # Every row with a repeated id is drawn.
    positions = [int(row) for unit in wanted for row in np.flatnonzero(ids == unit)]
    return positions, ids[positions]


def _trains(dataset: xr.Dataset, table: ShownObject, rows: list[int]) -> list[NDArray[np.float64]]:
    column = spikes_of(dataset, table)
    assert column is not None  # noqa: S101 - for the type checker; `spiking_table` checked this
    return rows_of(dataset, column, rows)


def _event_times(
    dataset: xr.Dataset, events: Events | str, on: str | None
) -> tuple[NDArray[np.float64], xr.DataArray]:
    """Return the times of the events that have one, and their labels."""
    found = event_times(*events_named(dataset, events, on), dataset.attrs)
    known = np.isfinite(found.times)
    if not known.all():
        warn_caller(f"{np.count_nonzero(~known)} of {len(known)} events have no time and are not drawn.")
    names = found.columns[found.dimension][known]
    return found.times[known], names


def _draw_lines(ax: Axes, lines: Sequence[NDArray[np.float64]], color: str | None) -> None:
    ink = checked_color(color)
    many = sum(map(len, lines)) > _MANY
    if lines:
        width = 0.5 if many else 0.8
        alpha = min(1.0, max(0.1, _DENSE / max(map(len, lines)))) if many else 1.0
        drawn: list[EventCollection] = list(
            ax.eventplot(  # type: ignore[call-overload]
                lines, linelengths=0.8, linewidths=width, colors=ink or INK, alpha=alpha
            )
        )
        for line in drawn:
            line.set_rasterized(many)
    # The first row is at the top, as in a table.
    ax.set_ylim(max(len(lines), 1) - 0.5, -0.5)
    without_frame(ax, "left")
