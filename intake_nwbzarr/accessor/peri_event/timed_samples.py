"""Samples of a series looked up at times around events, in whatever timestamps it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.lags import NEAR
from intake_nwbzarr.accessor.peri_event.samples import AT_ONCE, AlignMethod, Floats, Positions, Taken
from intake_nwbzarr.accessor.times import TimeAxis
from intake_nwbzarr.indexes.timestamps import TimestampView


@dataclass(frozen=True, eq=False)
class TimedSamples:
    """Samples looked up at ``event time + lag``, in timestamps that are read when this is asked.

    Parameters
    ----------
    times
        Of the events in seconds, (event,).
    lags
        In seconds, (lag,).
    axis
        The time of the series.
    method
        How they are looked up.
    gap
        The longest time between two neighbouring samples that is bridged, in seconds, or a millionth more.
    """

    times: Floats
    lags: Floats
    axis: TimeAxis
    method: AlignMethod
    gap: float

    @property
    def shape(self) -> tuple[int, int]:
        """Events and lags."""
        return len(self.times), len(self.lags)

    @property
    def interpolates(self) -> bool:
        """Whether values are taken from between samples."""
        return self.method == "linear"

    def at(self, events: NDArray[Any], lags: NDArray[Any]) -> Taken:
        """The samples of some events and lags, by position."""
        wanted = (self.times[events][:, np.newaxis] + self.lags[lags]).ravel()
        parts = [self._located(wanted[begin : begin + AT_ONCE]) for begin in range(0, len(wanted), AT_ONCE)]
        shape = len(events), len(lags)
        first, second = (
            np.concatenate([part[side] for part in parts] or [np.empty(0, np.int64)]).reshape(shape)
            for side in (0, 1)
        )
        if not self.interpolates:
            return Taken(first)
        weight = np.concatenate([part[2] for part in parts] or [np.empty(0)]).reshape(shape)
        return Taken(first, second, weight)

    def take(self, events: NDArray[Any]) -> Self:
        """Those of some events."""
        return replace(self, times=self.times[events])

    def located(self) -> FoundSamples:
        """The same as positions, found now."""
        return FoundSamples(self.at(*(np.arange(length) for length in self.shape)))

    def _located(self, wanted: Floats) -> tuple[Positions, Positions, Floats]:
        view = self.axis.view
        before = np.full(wanted.shape, -1, np.int64)
        after, weight = before.copy(), np.zeros(wanted.shape)
        if not len(view):
            return before, after, weight
        first_time, last_time = view.at([0, -1])
        inside = np.flatnonzero((wanted >= first_time) & (wanted <= last_time))
        found, following, share = _between(view, wanted[inside], self.method, self.gap * (1 + NEAR))
        if self.axis.backwards:
            found, following = (np.where(side < 0, -1, len(view) - 1 - side) for side in (found, following))
        before[inside], after[inside], weight[inside] = found, following, share
        return before, after, weight


@dataclass(frozen=True, eq=False)
class FoundSamples:
    """Samples that were looked up.

    Parameters
    ----------
    taken
        All of them, (event, lag).
    """

    taken: Taken

    @property
    def shape(self) -> tuple[int, int]:
        """Events and lags."""
        events, lags = self.taken.first.shape
        return events, lags

    @property
    def interpolates(self) -> bool:
        """Whether values are taken from between samples."""
        return self.taken.weight is not None

    def at(self, events: NDArray[Any], lags: NDArray[Any]) -> Taken:
        """The samples of some events and lags, by position."""
        return Taken(*(None if part is None else part[np.ix_(events, lags)] for part in self.taken))  # type: ignore[arg-type]

    def take(self, events: NDArray[Any]) -> Self:
        """Those of some events."""
        return replace(self, taken=self.at(events, np.arange(self.shape[1])))

    def located(self) -> Self:
        """The same."""
        return self


def _between(
    view: TimestampView, wanted: Floats, method: AlignMethod, gap: float
) -> tuple[Positions, Positions, Floats]:
    """Look up times between the first and the last sample: one sample or the next, or what lies between."""
    none = np.full(wanted.shape, -1, np.int64)
    if method == "nearest":
        found = view.locate(wanted, "nearest")
        return np.where(np.abs(view.at(found) - wanted) <= gap / 2, found, -1), none, np.zeros(wanted.shape)
    found = view.locate(wanted, "ffill")
    elapsed = wanted - view.at(found)
    if method == "ffill":
        return np.where(elapsed <= gap, found, -1), none, np.zeros(wanted.shape)
    following = np.where(elapsed > 0, np.minimum(found + 1, len(view) - 1), found)
    length = view.at(following) - view.at(found)
    bridged = length <= gap
    weight = np.divide(elapsed, length, out=np.zeros(wanted.shape), where=length > 0)
    return np.where(bridged, found, -1), np.where(bridged, following, -1), weight
