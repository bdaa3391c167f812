"""A session of units, trials and series to align, written by pynwb, and tables of units made in memory."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from hdmf_zarr import ZarrDataIO
from numpy.typing import NDArray
from pynwb import TimeSeries
from pynwb.behavior import SpatialSeries
from pynwb.ecephys import ElectricalSeries

import intake_nwbzarr.accessor  # noqa: F401 - registers ds.nwb
from intake_nwbzarr.demo.sessions import add_electrodes
from tests.session_files import empty_session, write

RATE = 1000.0
START = 1.5
SAMPLES = 20_000
CHUNK = 500
VOLTAGE = np.random.default_rng(1).integers(-500, 500, (SAMPLES, 4)).astype("int16")
COUNTER = np.arange(SAMPLES, dtype="int32")
POSITION_TIMES = np.cumsum(np.random.default_rng(2).uniform(0.005, 0.02, 1500))
POSITION = np.random.default_rng(3).random((1500, 2))

UNITS = [6, 191, 206, 7, 40]
TRAINS = [
    np.sort(np.random.default_rng(unit).uniform(0, 20, count))
    for unit, count in zip(UNITS, (300, 0, 200, 5, 50), strict=True)
]
OBSERVED = [[[0.0, 20.0]], [[0.0, 5.0], [5.0, 9.0]], [[2.0, 6.0]], [], [[0.0, 4.0], [8.0, 20.0]]]
TAGS = [["a"], [], ["b", "c"], ["d"], ["e", "f", "g"]]

TRIALS = [2.0, 3.25, 4.0004, 9.5, 15.0]
CUES = [2.1, np.nan, 4.1, 9.6, np.nan]
STIMULI = ["left", "right", "left", "right", "left"]


def waveforms() -> list[list[NDArray[np.float64]]]:
    """For each unit, the waveforms of some spikes: (electrode, sample) of each, of some from no electrode."""
    random = np.random.default_rng(4)
    return [[random.random((number % 3, 6)) for number in range(1, 2 + row)] for row in range(len(UNITS))]


def peri_event_session(folder: Path) -> Path:
    """Write the session."""
    nwbfile = empty_session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _add_series(nwbfile)
        _add_units(nwbfile)
        nwbfile.add_trial_column("stim", "what was shown")
        nwbfile.add_trial_column("cue_start_time", "when the cue began")
        nwbfile.add_trial_column("notes", "any number of them", index=True)
        for start, stimulus, cue in zip(TRIALS, STIMULI, CUES, strict=True):
            nwbfile.add_trial(
                start_time=start,
                stop_time=start + 1,
                stim=stimulus,
                cue_start_time=cue,
                notes=["x"] * int(start),
            )
    return write(folder, nwbfile, "peri_event.nwb.zarr")


def _add_series(nwbfile: Any) -> None:
    nwbfile.add_acquisition(
        ElectricalSeries(
            name="voltage",
            data=ZarrDataIO(VOLTAGE, chunks=(CHUNK, 4)),
            electrodes=add_electrodes(nwbfile, 4),
            rate=RATE,
            starting_time=START,
            conversion=1e-6,
        )
    )
    nwbfile.add_acquisition(
        TimeSeries(name="counter", data=COUNTER, unit="1", rate=RATE, starting_time=START)
    )
    nwbfile.add_acquisition(
        SpatialSeries(name="position", data=POSITION, timestamps=POSITION_TIMES, reference_frame="corner")
    )
    nwbfile.add_acquisition(
        TimeSeries(name="words", data=["a", "b", "c"], unit="n/a", timestamps=[2.0, 3.0, 4.0])
    )


def _add_units(nwbfile: Any) -> None:
    nwbfile.add_unit_column("quality", "how good")
    nwbfile.add_unit_column("tags", "any number of them", index=True)
    for number, unit in enumerate(UNITS):
        nwbfile.add_unit(
            id=unit,
            spike_times=TRAINS[number],
            obs_intervals=np.reshape(OBSERVED[number], (-1, 2)),
            waveforms=[each.tolist() for each in waveforms()[number]],
            quality="good" if number % 2 else "poor",
            tags=TAGS[number],
        )


def units_in_memory(
    trains: Sequence[Sequence[float]], observed: Sequence[Sequence[Sequence[float]]] | None = None
) -> xr.Dataset:
    """A table of units as opening one gives it, with its values in memory."""
    variables = _ragged("spike_times", "spike", [np.asarray(train, float) for train in trains])
    if observed is not None:
        intervals = [np.reshape(np.asarray(each, float), (-1, 2)) for each in observed]
        variables |= _ragged("obs_intervals", "obs_interval", intervals)
    ids = {"nwb_path": "units/id", "nwb_object": "units", "nwb_column": "id"}
    return xr.Dataset(variables, {"unit": ("unit", np.arange(len(trains)) * 10, ids)})


def _ragged(name: str, dimension: str, rows: list[NDArray[Any]]) -> dict[str, xr.Variable]:
    counts = np.array([len(row) for row in rows], int)
    values = np.concatenate(rows)
    path = f"units/{name}"
    bounds = {"nwb_path": f"{path}_index", "ragged_values": path, "ragged_length": len(values)}
    start, count = ({"nwb_object": "units", "nwb_column": f"{name}_{bound}"} for bound in ("start", "count"))
    own = {"nwb_path": path, "nwb_object": "units", "nwb_column": name}
    return {
        f"{name}_start": xr.Variable("unit", np.cumsum(counts) - counts, bounds | start),
        f"{name}_count": xr.Variable("unit", counts, bounds | count),
        name: xr.Variable([dimension, "bound"][: values.ndim], values, own),
    }
