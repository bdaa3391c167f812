"""What the demo computes: fluorescence around licks, spikes around trials."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from intake_nwbzarr.demo.imaging import NEUROPIL_SHARE

type Floats = npt.NDArray[np.float64]

LICK_WINDOW = (-1.5, 3.0)
TRIAL_WINDOW = (-0.5, 1.0)


def corrected_fluorescence(session: xr.Dataset) -> xr.DataArray:
    """Fluorescence minus its share of neuropil, relative to each cell's mean: (time, cell), on dask."""
    fluorescence = session["RoiResponseSeries"] - NEUROPIL_SHARE * session["Neuropil"]
    mean = fluorescence.mean([fluorescence.dims[0]])
    return (fluorescence - mean) / mean


def lick_bouts(session: xr.Dataset) -> Floats:
    """Times in seconds of the licks that follow a pause of more than a second."""
    lick = session["lick"]
    times = lick[lick.dims[0]].values[lick.values > 0]
    return np.asarray(times[np.diff(times, prepend=-np.inf) > 1.0], dtype=np.float64)


def around(session: xr.Dataset, dff: xr.DataArray, events: Floats) -> xr.DataArray:
    """Fluorescence around events that have all of their window in the recording: (event, lag, cell)."""
    aligned: xr.Dataset = session.assign(dff=dff)[["dff"]].nwb.align(events, LICK_WINDOW, on_missing="drop")
    return aligned["dff"]


def spikes_around(session: xr.Dataset, window: tuple[float, float]) -> list[list[Floats]]:
    """Each unit's spikes around the start of each trial, in seconds from it: by unit, then by trial."""
    starts = session["trials_start_time"].values
    return [
        [_between(train, start + window[0], start + window[1]) - start for start in starts]
        for train in session.nwb.ragged("units_spike_times")
    ]


def most_responsive_unit(spikes: list[list[Floats]]) -> int:
    """The position of the unit whose rate rises most in the 0.3 s after a trial's start."""

    def rise(unit: int) -> int:
        lags = np.concatenate(spikes[unit])
        return int(_between(lags, 0.0, 0.3).size - _between(lags, -0.3, 0.0).size)

    return max(range(len(spikes)), key=rise)


def _between(times: Floats, begin: float, end: float) -> Floats:
    return times[(times >= begin) & (times < end)]
