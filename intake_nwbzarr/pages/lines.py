"""How a series over time is drawn: a line, steps of a signal that is on or off, marks of events, gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.pages.figures import DATA
from intake_nwbzarr.pages.picture import NothingToDrawError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAMPLES: Final = 12_000
"""Samples over time that a picture shows at most; where chunks are large, fewer channels of them."""

LARGEST: Final = 1e300
"""Values above which the limits of axes are no longer finite."""

# Pixels across a trace: of each, the least and largest value are drawn.
_PIXELS = 360

# Of the median interval between samples: a longer one is a gap, which no line crosses.
_GAP = 10

# Events up to which each has a mark as high as its value.
_FEW = 500


def check_values(values: NDArray[Any]) -> None:
    """Raise `NothingToDrawError` unless some of the values that were read are numbers that axes can show."""
    if values.dtype.kind not in "fc" or not values.size:
        return
    known = values[np.isfinite(values)]
    if not known.size:
        every = "NaN" if np.isnan(values).all() else "NaN or infinite"
        raise NothingToDrawError(f"all values read are {every}")
    largest = float(np.abs(known).max())
    if largest > LARGEST:
        raise NothingToDrawError(f"the values read reach {largest:.0e}, which axes cannot show")


def draw_series(axes: Axes, times: NDArray[Any], values: NDArray[Any], regular: bool) -> bool:
    """Draw a series as what it is; return whether its values have a scale.

    One sample is a dot. Samples at irregular times with the same value are events, a mark each; a few with
    other values are marks as high as these. What is 0 or 1 is on or off until the next sample.
    """
    known = np.isfinite(values)
    if len(values) == 1:
        axes.plot(times, values, "o", color=DATA, markersize=4)
        return True
    if not regular and _constant(values[known]):
        axes.vlines(times[known], 0, 1, color=DATA, linewidth=0.7, rasterized=int(known.sum()) > _FEW)
        return False
    if known.all() and set(np.unique(values).tolist()) <= {0.0, 1.0}:
        edges = np.flatnonzero(np.diff(values, prepend=np.nan, append=np.nan) != 0)
        edges = np.union1d(edges[edges < len(values)], [len(values) - 1])
        axes.plot(times[edges], values[edges], color=DATA, linewidth=0.7, drawstyle="steps-post",
                  rasterized=len(edges) > 4 * _PIXELS)  # fmt: skip
        return True
    if not regular and len(values) <= _FEW and is_irregular(times):
        axes.vlines(times[known], np.minimum(values[known], 0), np.maximum(values[known], 0),
                    color=DATA, linewidth=0.5, alpha=0.6)  # fmt: skip
        axes.plot(times, values, "o", color=DATA, markersize=2)
        return True
    line(axes, times, values)
    return True


def _constant(values: NDArray[Any]) -> bool:
    return len(values) > 1 and float(values.min()) == float(values.max())


def is_irregular(times: NDArray[Any]) -> bool:
    """Return whether the times are those of events: their intervals differ by as much as they are long."""
    steps = np.diff(times[np.isfinite(times)])
    if len(steps) < 2 or not steps.sum() > 0:
        return False
    # Of samples with gaps, most intervals are alike.
    low, middle, high = np.percentile(steps, [25, 50, 75])
    return bool(high - low > 0.3 * middle)


def gaps(times: NDArray[Any]) -> NDArray[np.intp]:
    """Return the positions after gaps: after intervals that are far longer than the median one."""
    steps = np.diff(times)
    if len(steps) < 3:
        return np.array([], np.intp)
    middle = float(np.median(steps[np.isfinite(steps)])) if np.isfinite(steps).any() else 0.0
    if middle <= 0 or is_irregular(times):
        return np.array([], np.intp)
    return np.flatnonzero(steps > _GAP * middle) + 1


def line(
    axes: Axes, times: NDArray[Any], values: NDArray[Any], color: str = DATA, label: str | None = None
) -> None:
    """Draw a trace, of many samples in a pixel the least and largest; it does not cross gaps."""
    from intake_nwbzarr.accessor.plot.traces import extremes

    after = gaps(times)
    if len(values) > 4 * _PIXELS:
        begins = np.linspace(0, len(values), _PIXELS + 1).astype(np.intp)[:-1]
        # Not more parts than pixels, however many gaps there are.
        edges = after[: 2 * _PIXELS]
        begins = np.union1d(begins, edges)
        parts = times[edges]
        times, values = extremes(times, values, begins)
        after = np.searchsorted(times, parts)
    if len(after):
        times = np.insert(times.astype(np.float64), after, np.nan)
        values = np.insert(values.astype(np.float64), after, np.nan)
    axes.plot(times, values, color=color, linewidth=0.7, label=label)
