"""The demo's picture: fluorescence around licks, spikes around trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

type Floats = npt.NDArray[np.float64]

GREEN, GREY, INK = "#2a9d8f", "#8d99ae", "#22223b"
CONTRAST_COLORS = {0.0: "#adb5bd", 0.25: "#f4a261", 1.0: "#d1495b"}


def draw(
    aligned: xr.DataArray, spikes: list[Floats], contrasts: Floats, window: tuple[float, float], path: Path
) -> None:
    """Draw both panels and save them as PNG.

    Parameters
    ----------
    aligned
        dF/F, (event, lag, cell), lags in seconds.
    spikes
        Of one unit, seconds from each trial's start.
    contrasts
        Of the trials, (trial).
    window
        Of the spikes, in seconds.
    path
        Of the PNG file.
    """
    layout = ConstrainedLayoutEngine(wspace=0.06)
    figure = Figure(figsize=(11, 4.6), dpi=150, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic([["licks", "raster"], ["licks", "rate"]], height_ratios=[2, 1])
    _draw_licks(axes["licks"], aligned)
    order = np.argsort(contrasts, kind="stable")
    _draw_raster(axes["raster"], [spikes[trial] for trial in order], contrasts[order])
    _draw_rate(axes["rate"], spikes, contrasts, window)
    axes["raster"].sharex(axes["rate"])
    axes["raster"].tick_params(labelbottom=False)
    for axis in axes.values():
        axis.spines[["top", "right"]].set_visible(False)
        axis.axvline(0.0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    figure.savefig(path)


def _draw_licks(axis: Axes, aligned: xr.DataArray) -> None:
    cells = 100.0 * aligned.mean(["event"])
    lags = aligned["lag"].values
    # The spread over bouts of the mean over cells: bouts are the repetitions.
    bouts = 100.0 * aligned.mean([aligned.dims[-1]])
    mean = bouts.mean("event").values
    error = bouts.std("event", ddof=1).values / np.sqrt(aligned.sizes["event"])
    axis.plot(lags, cells.values, color=GREY, linewidth=0.6, alpha=0.45)
    axis.fill_between(lags, mean - error, mean + error, color=GREEN, alpha=0.3, linewidth=0)
    axis.plot(lags, mean, color=GREEN, linewidth=2.2, label="mean ± s.e.m. over bouts")
    axis.plot([], [], color=GREY, linewidth=0.8, label="each cell")
    axis.set(
        xlabel="Time from first lick (s)",
        ylabel="ΔF/F, neuropil subtracted (%)",
        title=f"{aligned.sizes['event']} lick bouts, {aligned.shape[-1]} cells",
        xlim=(lags[0], lags[-1]),
    )
    axis.legend(frameon=False, loc="upper right")


def _draw_raster(axis: Axes, spikes: list[Floats], contrasts: Floats) -> None:
    colors = [CONTRAST_COLORS[contrast] for contrast in contrasts.tolist()]
    axis.eventplot(spikes, colors=colors, linelengths=0.85, linewidths=1.1)
    axis.set(
        ylabel="Trial, by contrast", title=f"One unit, {len(spikes)} trials", ylim=(-0.7, len(spikes) - 0.3)
    )
    axis.set_yticks([])


def _draw_rate(axis: Axes, spikes: list[Floats], contrasts: Floats, window: tuple[float, float]) -> None:
    edges = np.arange(window[0], window[1] + 1e-9, 0.05)
    for contrast, color in CONTRAST_COLORS.items():
        trials = np.flatnonzero(contrasts == contrast)
        counts, _ = np.histogram(np.concatenate([spikes[trial] for trial in trials]), edges)
        rate = counts / (0.05 * trials.size)
        axis.stairs(rate, edges, color=color, linewidth=1.6, label=f"{contrast:.0%} contrast")
    axis.set(xlabel="Time from trial start (s)", ylabel="Rate (spikes/s)", xlim=window)
    axis.legend(frameon=False, fontsize="small", loc="upper right")
