"""Counts in bins of equal width, along time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.counts import Countable, countable
from intake_nwbzarr.accessor.lags import checked_positive, whole_bins
from intake_nwbzarr.accessor.spikes.counts import count_variable
from intake_nwbzarr.accessor.spikes.units import ends_of_rows
from intake_nwbzarr.accessor.times import Time, as_given, one_time
from intake_nwbzarr.errors import OptionError, SelectionError
from intake_nwbzarr.indexes import RegularTimeIndex
from intake_nwbzarr.indexes.timestamps import TimestampView

TIME = "time"


def bin_events(
    dataset: xr.Dataset,
    width: float,
    *,
    start: Time | None = None,
    stop: Time | None = None,
    name: str | None = None,
    by: str | None = None,
) -> xr.Dataset:
    """Counts in bins; see `intake_nwbzarr.accessor.NWBAccessor.bin`."""
    width = checked_positive(width, "width", "a number of seconds")
    begin = 0.0 if start is None else one_time(start, "start", dataset.attrs)
    end = None if stop is None else one_time(stop, "stop", dataset.attrs)
    counted = countable(dataset, name, by)
    # Where the last time is, no attribute says.
    last = _last(counted) if end is None else None
    end = (begin if last is None else last) if end is None else end
    if stop is not None and end < begin:
        raise OptionError(f"stop={as_given(stop)} is before the start, {begin!r} s.")
    size = max(0, whole_bins(end - begin, width))
    if size > sys.maxsize:
        raise OptionError(
            f"There would be {size:.2g} bins of {width:g} s; take wider ones, or an earlier stop."
        )
    index = RegularTimeIndex.from_rate(begin, 1 / width, size, TIME, attrs=_described(width))
    rows = "row" if counted.rows is None else counted.rows
    if rows == TIME:
        raise OptionError(
            f"What is counted lies along {TIME!r}, which the result needs for the bins; rename it, such as "
            f"with .rename({{{TIME!r}: 'unit'}})."
        )
    attributes = {**counted.attributes, "description": "number of events in each bin"}
    bins = TimeBins(index.view, last if counted.ascending else None)
    counts = count_variable(counted.spikes, bins, (rows, TIME), attributes, whole=True)
    table = counted.columns.drop_vars(TIME, errors="ignore").assign_coords(index.coordinates())
    return table.assign({counted.name: counted.counted(counts)})


def _last(counted: Countable) -> float | None:
    """The last time of all rows, read from their ends where times ascend; None where there is none."""
    spikes = counted.spikes
    times = ends_of_rows(spikes) if counted.ascending else spikes.values.values
    known = times[np.isfinite(times)]
    return float(known.max()) if known.size else None


@dataclass(frozen=True, eq=False)
class TimeBins:
    """Bins one after the other.

    Parameters
    ----------
    view
        Where each begins; the next one begins where it ends.
    last
        The last time there is, as the last value of each row says; None where nothing relies on that.
    """

    view: TimestampView
    last: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """How many there are."""
        return (len(self.view),)

    def of_rows(self, rows: NDArray[Any]) -> Self:  # noqa: ARG002 - the same for all
        """The same bins."""
        return self

    def count(
        self, trains: list[NDArray[np.float64]], axes: Sequence[NDArray[Any]], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Count times in some of the bins, (row, time).

        Raises
        ------
        SelectionError
            When there are times after the last value of a row: it does not ascend.
        """
        (bins,) = axes
        timestamps, samples = self.view.timestamps, self.view.samples_at(bins)
        starts, stops = timestamps.at(samples), timestamps.at(samples + 1)
        counts = np.zeros((len(trains), len(bins)), dtype)
        for row, train in enumerate(trains):
            if self.last is not None and len(train) and self.last < train[-1] < np.inf:
                raise SelectionError(
                    f"Times do not ascend: the last values of all rows are at most {self.last!r} s, and "
                    f"{float(train[-1])!r} s is among the others, so bin() ended too early. Pass stop=."
                )
            counts[row] = np.searchsorted(train, stops) - np.searchsorted(train, starts)
        return counts


def _described(width: float) -> dict[str, Any]:
    return {
        "units": "s",
        "description": "left edge of each bin; a bin is [time, time + bin_width)",
        "bin_width": width,
    }
