"""Samples of a regular series around events: whole numbers of them from the one at each event."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.peri_event.samples import AlignMethod, Floats, Positions, Taken
from intake_nwbzarr.accessor.times import TimeAxis
from intake_nwbzarr.indexes.timestamps import TimestampView


def on_grid(
    times: Floats, axis: TimeAxis, rate: float, steps: Positions, method: AlignMethod
) -> tuple[GridSamples, Floats]:
    """Samples of a regular series around events, whole numbers of samples from the one at each.

    Parameters
    ----------
    times
        Of the events in seconds, (event,); NaN where an event has none.
    axis
        A regular one.
    rate
        Its samples per second.
    steps
        The lags in samples, (lag,).
    method
        ``nearest``: lag 0 is the sample nearest to the event, of two equally near ones the later. ``ffill``:
        the last one at or before it. ``linear``: between that and the next.

    Returns
    -------
    samples
        Which ones.
    offsets
        By how much the sample at lag 0 is later than the event in seconds, (event,); NaN where nothing of the
        window lies in the recording, and 0 where values are interpolated to the event's own lags.
    """
    size, timestamps, samples = len(axis.view), axis.view.timestamps, axis.view.samples
    anchors, offsets = np.zeros(times.shape, np.int64), np.full(times.shape, np.nan)
    weights = np.zeros(times.shape) if method == "linear" else None
    with np.errstate(invalid="ignore", over="ignore"):
        roughly = (times - timestamps.at(np.array([samples.start]))) * rate
        # Far from the recording no lag is in it, and sample numbers would be without bound.
        present = (roughly + steps[-1] > -2) & (roughly + steps[0] < size + 2)
    if present.any():
        low = int(np.floor(roughly[present].min())) - 2
        high = int(np.ceil(roughly[present].max())) + 2
        begin, step = samples.start + low * samples.step, samples.step
        endless = TimestampView(timestamps, range(begin, begin + (high - low + 1) * step, step))
        found = endless.locate(times[present], "nearest" if method == "nearest" else "ffill")
        anchors[present] = found + low
        offsets[present] = endless.at(found) - times[present]
        if weights is not None:
            length = endless.at(found + 1) - endless.at(found)
            weights[present], offsets[present] = -offsets[present] / length, 0.0
    made = GridSamples(anchors, present, steps, size, axis.backwards, weights)
    offsets[(anchors + steps[0] >= size) | (anchors + steps[-1] < 0)] = np.nan
    return made, offsets


@dataclass(frozen=True, eq=False)
class GridSamples:
    """Samples of a regular series: whole numbers of them from the one at the event.

    Parameters
    ----------
    anchors
        The sample at lag 0, (event,): any whole number, as if the series had no ends.
    present
        Whether an event has one, (event,).
    steps
        Each lag in samples, (lag,).
    size
        Of the series.
    backwards
        Whether positions count from its end.
    weights
        How far the event is to the next sample, (event,); None where nothing is interpolated.
    """

    anchors: Positions
    present: NDArray[np.bool_]
    steps: Positions
    size: int
    backwards: bool
    weights: Floats | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Events and lags."""
        return len(self.anchors), len(self.steps)

    @property
    def interpolates(self) -> bool:
        """Whether values are taken from between samples."""
        return self.weights is not None

    def at(self, events: NDArray[Any], lags: NDArray[Any]) -> Taken:
        """The samples of some events and lags, by position."""
        first = self.anchors[events][:, np.newaxis] + self.steps[lags]
        inside = self.present[events][:, np.newaxis] & (first >= 0) & (first < self.size)
        if self.weights is None:
            return Taken(self._positions(first, inside))
        weight = np.broadcast_to(self.weights[events][:, np.newaxis], first.shape)
        second = np.where(weight > 0, first + 1, first)
        inside &= second < self.size
        return Taken(self._positions(first, inside), self._positions(second, inside), weight)

    def take(self, events: NDArray[Any]) -> Self:
        """Those of some events."""
        weights = None if self.weights is None else self.weights[events]
        return replace(self, anchors=self.anchors[events], present=self.present[events], weights=weights)

    def located(self) -> Self:
        """The same, which is small and needs no timestamps."""
        return self

    def _positions(self, ascending: Positions, inside: NDArray[np.bool_]) -> Positions:
        return np.where(inside, self.size - 1 - ascending if self.backwards else ascending, -1)
