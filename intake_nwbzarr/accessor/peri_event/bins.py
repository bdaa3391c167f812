"""Bins around events, and whether what is counted in them was observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Bins:
    """Bins around events, and in which of them each unit was observed.

    Parameters
    ----------
    times
        Of the events in seconds, (event,); NaN where an event has none.
    edges
        Of the bins in seconds from the event, (lag + 1,).
    observed
        When each unit was observed, (interval, 2) of each; None: whenever an event has a time.
    """

    times: NDArray[np.float64]
    edges: NDArray[np.float64]
    observed: tuple[NDArray[np.float64], ...] | None

    @property
    def shape(self) -> tuple[int, int]:
        """Events and lags."""
        return len(self.times), len(self.edges) - 1

    def of_rows(self, rows: NDArray[Any]) -> Self:
        """The bins of some units, by position."""
        if self.observed is None:
            return self
        return replace(self, observed=tuple(self.observed[row] for row in rows))

    def count(
        self, trains: list[NDArray[np.float64]], axes: Sequence[NDArray[Any]], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Count spikes, (unit, event, lag), with NaN where they are not known.

        Parameters
        ----------
        trains
            The spike times of each unit, ascending.
        axes
            Which events, and which bins around them, by position.
        dtype
            Of the result: float64, or int64 where nothing is missing.
        """
        events, lags = axes
        times = self.times[events][:, np.newaxis]
        starts, stops = times + self.edges[lags], times + self.edges[lags + 1]
        counts = np.empty((len(trains), *starts.shape), dtype)
        for unit, train in enumerate(trains):
            # Half-open: a spike at an edge is in the bin that begins there.
            counts[unit] = np.searchsorted(train, stops) - np.searchsorted(train, starts)
            if dtype.kind == "f":
                counts[unit][~self._known(unit, starts, stops)] = np.nan
        return counts

    def incomplete(self, units: int) -> NDArray[np.bool_]:
        """Whether an event has bins in which some unit was not observed, (event,)."""
        starts = self.times[:, np.newaxis] + self.edges[:-1]
        stops = self.times[:, np.newaxis] + self.edges[1:]
        missing = ~np.isfinite(self.times)
        for unit in range(units if self.observed is not None else 0):
            missing |= ~np.all(self._known(unit, starts, stops), axis=1)
        return missing

    def _known(self, unit: int, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a unit was observed through whole bins."""
        known = np.isfinite(starts)
        if self.observed is None:
            return known
        intervals = self.observed[unit]
        if not len(intervals):
            return np.zeros_like(known)
        place = np.searchsorted(intervals[:, 0], starts, side="right") - 1
        observed: NDArray[np.bool_] = known & (place >= 0) & (stops <= intervals[place, 1])
        return observed
