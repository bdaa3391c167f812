"""A session with everything that has a time, written by pynwb, and the numbers that it was made of."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from hdmf.common import VectorData
from pynwb import TimeSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.event import EventsTable, TimestampVectorData
from pynwb.misc import AnnotationSeries, IntervalSeries

from intake_nwbzarr.demo.sessions import add_electrodes
from tests.session_files import empty_session, write

random = np.random.default_rng(7)

# Two samples share a time, as in real files.
LICK_TIMES = np.sort(np.append(random.uniform(0, 10, 98), [4.0, 4.0]))
RATE, SIZE, START = 50.0, 400, 0.7
NOTES = [0.5, 3.0, 7.25]
TRIALS = [(0.0, 1.0), (1.0, 1.5), (1.25, 4.0), (4.0, 4.0), (6.0, np.nan), (np.nan, 7.0), (9.0, 8.0)]
EVENTS = [5.0, 0.25, np.nan, 9.0, 2.0]
SPIKES = [np.sort(random.uniform(0, 10, count)) for count in (40, 0, 1, 25)]
OBSERVED = [[(0.0, 4.0), (5.0, 10.0)], [(0.0, 10.0)], [(2.0, 3.0)], [(0.0, 1.0), (1.0, 2.0), (8.0, 9.0)]]


def timed_session(folder: Path) -> Path:
    """Write the session."""
    nwbfile = empty_session()
    with warnings.catch_warnings():
        # Real files have series that pynwb would rather have as tables.
        warnings.filterwarnings("ignore", message=".* is deprecated")
        _add_series(nwbfile)
    nwbfile.add_trial_column("cue", "label")
    for number, (start, stop) in enumerate(TRIALS):
        nwbfile.add_trial(start_time=start, stop_time=stop, cue="ab"[number % 2], tags=["x"] * (number % 3))
    nwbfile.add_events_table(
        EventsTable(
            name="stimuli",
            description="in no order, one without a time",
            columns=[
                TimestampVectorData(name="timestamp", description="when", data=EVENTS),
                VectorData(name="kind", description="which", data=list("abcde")),
            ],
        )
    )
    _add_units(nwbfile)
    return write(folder, nwbfile, "timed.nwb.zarr")


def _add_series(nwbfile: Any) -> None:
    nwbfile.add_acquisition(
        TimeSeries(name="lick", data=np.arange(len(LICK_TIMES)), unit="V", timestamps=LICK_TIMES)
    )
    nwbfile.add_acquisition(
        TimeSeries(
            name="voltage",
            data=np.arange(SIZE * 2.0).reshape(SIZE, 2),
            unit="V",
            rate=RATE,
            starting_time=START,
        )
    )
    nwbfile.add_acquisition(AnnotationSeries(name="notes", data=["a", "b", "c"], timestamps=NOTES))
    nwbfile.add_acquisition(
        IntervalSeries(
            name="on_off", data=np.array([1, 2, -1, -2, 1], "int8"), timestamps=[1.0, 2.0, 3.0, 4.0, 5.0]
        )
    )
    nwbfile.add_stimulus_template(TimeSeries(name="chirp", data=np.arange(20), unit="V", rate=10.0))


def _add_units(nwbfile: Any) -> None:
    region = add_electrodes(nwbfile, 3, id=range(10, 13))
    nwbfile.add_acquisition(
        ElectricalSeries(name="probe data", data=np.zeros((10, 3)), electrodes=region, rate=1.0)
    )
    nwbfile.add_unit_column("amplitudes", "one for each spike", index=True)
    nwbfile.add_unit_column("quality", "label")
    for number, (spikes, observed) in enumerate(zip(SPIKES, OBSERVED, strict=True)):
        nwbfile.add_unit(
            id=100 + number,
            spike_times=spikes,
            obs_intervals=observed,
            amplitudes=-spikes,
            waveforms=np.repeat(spikes, 3).reshape(-1, 1, 3),
            electrodes=[number % 3, (number + 1) % 3],
            quality="good",
        )
