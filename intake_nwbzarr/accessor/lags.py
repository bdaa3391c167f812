"""Lags: the times around an event within a window, in samples or in bins."""

from __future__ import annotations

from math import ceil, floor, isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.times import number
from intake_nwbzarr.arguments import invalid_argument
from intake_nwbzarr.errors import LimitError, OptionError

NEAR: Final = 1e-6
"""The part of a sample or a bin by which the end of a window may miss it: 0.3 * 10 is not quite 3."""

MOST_LAGS: Final = 10**8
"""Lags of one window, whose numbers alone would take 800 MB."""

PICOSECONDS: Final = 12


def checked_window(window: Any) -> tuple[float, float]:
    """Return the two ends of a window, in seconds: two finite numbers that ascend."""
    try:
        start, stop = map(number, window)
    except (TypeError, ValueError):
        start = stop = None
    if start is None or stop is None or not (isfinite(start) and isfinite(stop) and start < stop):
        expected = "two numbers of seconds, the first one smaller, such as (-0.5, 1.0)"
        raise OptionError(f"window must be {expected}, not {window!r:.100}.", found=window, expected=expected)
    return start, stop


def checked_positive(value: Any, keyword: str, unit: str) -> float:
    """Return a keyword's positive finite number; `unit` is what it counts, such as "seconds"."""
    found = number(value)
    if found is None or not (isfinite(found) and found > 0):
        raise invalid_argument(keyword, value, f"a positive number of {unit}")
    return found


def sample_steps(window: tuple[float, float], rate: float) -> NDArray[np.int64]:
    """Return the samples of a window, counted from the one at the event: k for which ``a <= k / rate < b``.

    A window's end within a millionth of a sample is on it.

    >>> len(sample_steps((-0.5, 1.0), 30000.0)), sample_steps((-0.1, 0.3), 10.0)
    (45000, array([-1,  0,  1,  2]))
    """
    first, stop = (_ceiling(end * rate) for end in window)
    if stop <= first:
        raise OptionError(
            f"window={window!r} contains no sample at {rate:g} Hz, one every {1 / rate:g} s.",
            found=window,
            next_step="Pass a wider window.",
        )
    _check_count(stop - first, window)
    return np.arange(first, stop, dtype=np.int64)


def bin_edges(window: tuple[float, float], width: float) -> NDArray[np.float64]:
    """Return the edges of a window's bins, in seconds from the event: a, a + width, ..., of whole bins only.

    Rounded to picoseconds, so that -0.5 + 6 * 0.05 is -0.2.
    """
    start, stop = window
    count = whole_bins(stop - start, width)
    if count < 1:
        raise OptionError(
            f"bin={width!r} s is wider than the window {window!r}.",
            found=width,
            expected=f"at most {stop - start:g} s",
            next_step="Pass a wider window, or a smaller bin=.",
        )
    _check_count(count, window)
    edges: NDArray[np.float64] = np.round(start + np.arange(count + 1) * width, PICOSECONDS)
    return edges + 0.0  # minus zero is shown as such


def whole_bins(duration: float, width: float) -> int:
    """Return how many bins fit, the last of which may be short by a millionth.

    >>> whole_bins(0.3, 0.1), whole_bins(0.29, 0.1)
    (3, 2)
    """
    count = duration / width
    return round(count) if abs(count - round(count)) < NEAR else floor(count)


def _ceiling(samples: float) -> int:
    return round(samples) if abs(samples - round(samples)) < NEAR else ceil(samples)


def _check_count(count: int, window: tuple[float, float]) -> None:
    if count > MOST_LAGS:
        raise LimitError(
            f"window={window!r} (in seconds) would have {count:,} lags around each event; at most "
            f"{MOST_LAGS:,} are allowed.",
            found=count,
            expected=MOST_LAGS,
            next_step="Pass a narrower window, a lower rate or wider bins.",
        )
