"""How a series is aligned: at which lags, and by which samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.lags import checked_positive, sample_steps
from intake_nwbzarr.accessor.peri_event.grid_samples import on_grid
from intake_nwbzarr.accessor.peri_event.samples import METHODS, AlignMethod, Samples
from intake_nwbzarr.accessor.peri_event.timed_samples import TimedSamples
from intake_nwbzarr.accessor.times import TimeAxis
from intake_nwbzarr.arguments import check_choice
from intake_nwbzarr.errors import OptionError


@dataclass(frozen=True)
class SeriesLags:
    """The lags of a series, and how its samples are found; made by `series_lags`.

    Parameters
    ----------
    axis
        The time of the series.
    rate
        Lags per second.
    steps
        The lags in units of ``1 / rate``, (lag,).
    method
        How samples are found.
    gap
        The longest time between neighbouring samples that is bridged, in seconds.
    """

    axis: TimeAxis
    rate: float
    steps: NDArray[np.int64]
    method: AlignMethod
    gap: float

    @property
    def lags(self) -> NDArray[np.float64]:
        """In seconds, (lag,)."""
        return self.steps / self.rate

    def samples(self, times: NDArray[np.float64]) -> tuple[Samples, NDArray[np.float64] | None]:
        """The samples around events, and how much later than each event the one at lag 0 is.

        Of samples that are looked up one by one, there is no one number that says so: None.
        """
        if self.rate == self.axis.rate:
            return on_grid(times, self.axis, self.rate, self.steps, self.method)
        return TimedSamples(times, self.lags, self.axis, self.method, self.gap), None


def series_lags(
    axis: TimeAxis,
    window: tuple[float, float],
    rate: float | None,
    method: AlignMethod | None,
    gap: float | None,
) -> SeriesLags:
    """Choose the lags of a series, and how its samples are found.

    Raises
    ------
    OptionError
        When a keyword is not valid for the series, or what an irregular series needs is not given.
    """
    check_choice("method", method, (None, *METHODS))
    if axis.rate is None and (rate is None or method is None):
        raise OptionError(
            f"The samples along {axis.dimension!r} are irregular: say at which rate= (per second) and by "
            f"which method= ({', '.join(METHODS)}) they are to be taken."
        )
    wanted = axis.rate if rate is None else checked_positive(rate, "rate", "a number of lags per second")
    assert wanted is not None  # noqa: S101 - for the type checker: of an irregular series it was given
    if gap is not None:
        gap = checked_positive(gap, "gap", "the longest time between samples that is bridged, in seconds")
        if axis.rate is not None:
            raise OptionError(f"gap={gap!r} means nothing for a regular series: it has no gaps.")
    # Twice as far apart as they are asked for, irregular samples have one missing between them.
    bridged = gap or (2 / wanted if axis.rate is None else np.inf)
    return SeriesLags(axis, wanted, sample_steps(window, wanted), method or "nearest", bridged)
