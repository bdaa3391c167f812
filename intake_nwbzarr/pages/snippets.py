"""Pictures of short pieces: mean waveforms of units, and events cut out of recordings; and of bands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import ShownObject, plain_columns, row_ids
from intake_nwbzarr.accessor.plot.axes import ticks_with_units, without_frame
from intake_nwbzarr.pages.budget import evenly
from intake_nwbzarr.pages.figures import DATA
from intake_nwbzarr.pages.lines import SAMPLES, check_values, line
from intake_nwbzarr.pages.plans import Drawing, PageSession, Plan, seconds, short
from intake_nwbzarr.transport.request_log import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_UNITS = 24
_MOST_EVENTS = 100
_MOST_CHANNELS = 8
_MOST_BANDS = 8
_MOST_PICTURES = 3
_COLUMNS = 8


@dataclass(frozen=True)
class _Piece:
    """One small picture of several: a title, and samples along x, one line after the other."""

    title: str
    x: NDArray[np.float64]
    lines: NDArray[np.float64]  # (line, sample)


def plan_snippets(session: PageSession) -> Iterator[Plan]:
    """Plan pictures of mean waveforms, of events that were cut out of a recording, and of bands."""
    for table in session.shown:
        has_rows = table.kind == "table" and table.rows is not None and session.dataset.sizes[table.rows] > 0
        if has_rows and "waveform_mean" in plain_columns(session.dataset, table):
            title = f"Mean waveforms of {table.name}"
            yield Plan("waveforms", title, (table.path,), partial(_means, session, table))
    cut_out = [each for each in session.series if each.is_a("SpikeEventSeries")]
    for series in cut_out[:_MOST_PICTURES]:
        yield Plan("waveforms", f"Events of {series.name}", (series.path,), partial(_events, session, series))
    spectra = [each for each in session.series if each.is_a("DecompositionSeries")]
    for series in spectra[:_MOST_PICTURES]:
        if session.timed.variables[str(series.main)].ndim == 3:
            yield Plan("traces", f"Bands of {series.name}", (series.path,), partial(_bands, session, series))


def _means(session: PageSession, table: ShownObject) -> Drawing:
    dataset, rows = session.dataset, str(table.rows)
    name = plain_columns(dataset, table)["waveform_mean"]
    variable = dataset.variables[name]
    if variable.ndim not in {2, 3} or variable.dims[0] != rows:
        raise ValueError(f"mean waveforms have the dimensions {variable.dims}")
    chosen = evenly(variable.sizes[rows], _MOST_UNITS)
    session.budget.check(session.budget.cost(variable, {rows: chosen}), "the mean waveforms")
    values = variable.isel({rows: chosen}).to_numpy().astype(np.float64)
    values = values.reshape(*values.shape[:2], -1)
    along = str(variable.dims[1])
    times = (each for each, known in dataset.coords.items() if known.dims == (along,) and "time" in str(each))
    coordinate = next(times, None)
    x = np.arange(values.shape[1], dtype=np.float64)
    if coordinate is not None:
        x = dataset[coordinate].to_numpy().astype(np.float64) * 1000
    ids = row_ids(dataset, table)[chosen].tolist()
    pieces = []
    for each, waveform in zip(ids, values, strict=True):
        spread = np.where(np.isfinite(waveform), waveform, 0.0)
        largest = int(np.ptp(spread, axis=0).argmax()) if waveform.shape[1] else 0
        pieces.append(_Piece(str(each), x, waveform[:, largest : largest + 1].T))
    check_values(values)
    total = counted(variable.sizes[rows], "unit")
    shown = total if len(chosen) == variable.sizes[rows] else f"{len(chosen)} of {total}"
    what = "" if values.shape[2] < 2 else ", each on the channel where it is largest"
    label = "time [ms]" if coordinate is not None else "sample"
    units = str(variable.attrs.get("units", ""))
    return _grid(pieces, label, units, f"{shown}{what}")


def _events(session: PageSession, series: ShownObject) -> Drawing:
    variable = session.timed.variables[str(series.main)]
    time = session.time_of(series)
    assert time is not None  # noqa: S101 - of `series`, all have one
    window = session.window(series, _MOST_EVENTS)
    if variable.ndim not in {2, 3} or variable.dims[0] != time.dim:
        raise ValueError(f"its events have the dimensions {variable.dims}")
    session.budget.check(session.budget.cost(variable, {time.dim: window}), repr(series.name))
    values = variable.isel({time.dim: window}).to_numpy().astype(np.float64)
    values = values.reshape(len(values), -1, values.shape[-1])
    check_values(values)
    channels = evenly(values.shape[1], _MOST_CHANNELS)
    x = np.arange(values.shape[2], dtype=np.float64)
    pieces = [_Piece(f"channel {channel}", x, values[:, channel]) for channel in channels]
    total = counted(variable.shape[0], "event")
    shown = total if len(values) == variable.shape[0] else f"the first {len(values)} of {total}"
    return _grid(pieces, "sample", str(variable.attrs.get("units", "")), shown)


def _grid(pieces: list[_Piece], xlabel: str, units: str, caption: str) -> Drawing:
    """Return a drawing of small pictures beside one another, on the same scales."""
    columns = min(len(pieces), _COLUMNS)
    rows = -(-len(pieces) // columns)

    def draw(figure: Figure) -> None:
        """Draw each piece in its own axes; the first one of the last row has the scales."""
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for axes, piece in zip(grid.ravel(), pieces, strict=False):
            alpha = 1.0 if len(piece.lines) < 3 else 0.35
            for values in piece.lines:
                axes.plot(piece.x, values, color=DATA, linewidth=0.9, alpha=alpha)
            axes.set_title(short(piece.title, 12), fontsize=8, pad=2)
        scale = grid[-1, 0]
        scale.set_axis_on()
        without_frame(scale)
        known = ticks_with_units(scale.yaxis, units)
        scale.locator_params(nbins=3)
        scale.set(xlabel=xlabel, ylabel="" if known or not units else f"[{short(units)}]")

    return Drawing(draw, 0.75 + 0.75 * rows, caption)


def _bands(session: PageSession, series: ShownObject) -> Drawing:
    dataset = session.timed
    variable = dataset.variables[str(series.main)]
    time = session.time_of(series)
    assert time is not None  # noqa: S101 - of `series`, all have one
    window = session.window(series, SAMPLES)
    session.budget.check(session.budget.cost(variable, {time.dim: window}), repr(series.name))
    across, band = (str(dim) for dim in variable.dims if dim != time.dim)
    values = variable.isel({time.dim: window}).transpose(time.dim, across, band).to_numpy()
    check_values(values)
    means = np.nanmean(values.astype(np.float64), axis=1) if values.shape[1] else values[:, 0]
    times = dataset[time.name].isel({time.dim: window}).to_numpy()
    names = dataset[band].to_numpy() if band in dataset.coords else np.arange(means.shape[1])
    chosen = evenly(means.shape[1], _MOST_BANDS)
    labels = [_band(names[number]) for number in chosen]
    units = str(variable.attrs.get("units", ""))
    known = "" if units in {"", "no unit", "n.a."} else f" in {short(units)}"
    caption = f"mean of {counted(values.shape[1], 'channel')}{known}, {seconds(times[0], times[-1])}"

    def draw(figure: Figure) -> None:
        """Draw each band under the one before."""
        panels = np.atleast_1d(figure.subplots(len(chosen), 1, sharex=True))
        for axes, number, label in zip(panels, chosen, labels, strict=True):
            line(axes, times, means[:, number])
            axes.set_ylabel(label, rotation=0, ha="right", va="center")
            axes.margins(x=0)
            axes.locator_params(axis="y", nbins=3)
            without_frame(axes)
        panels[-1].set_xlabel("time [s]")

    return Drawing(draw, 0.6 + 0.55 * len(chosen), caption)


def _band(name: Any) -> str:
    return short(f"band {name}" if isinstance(name, int | np.integer) else str(name), 16)
