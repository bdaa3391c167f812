"""Made-up sessions of animals that run on a wheel, as different as sessions of several labs are."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

import numpy as np
from hdmf_zarr.utils import ZarrDataIO
from numpy.typing import NDArray
from pynwb import NWBFile, TimeSeries
from pynwb.behavior import BehavioralTimeSeries
from pynwb.file import Subject

from intake_nwbzarr.demo.sessions import write_zarr3

DURATION: Final = 60.0
RATE: Final = 30.0

# As labs write it.
MICE: Final = (
    "Mus musculus",
    "mouse",
    "Mouse",
    "Mus musculus - House mouse",
    "http://purl.obolibrary.org/obo/NCBITaxon_10090",
    "mus musculus",
)
# Where labs put the speed, and its unit.
PLACES: Final = (
    ("processing/behavior/BehavioralTimeSeries", "running_speed", "cm/s"),
    ("processing/running", "running_speed", "m/s"),
    ("acquisition", "speed", "cm/s"),
    ("acquisition", "wheel_speed", "m/s"),
)

type Floats = NDArray[np.float64]


def running_session(number: int) -> NWBFile:
    """Return one session: units whose rates depend on the running speed, which some sessions lack.

    Parameters
    ----------
    number
        Which one: every fifth is of a rat, every seventh has no speed, every ninth no units; spelling of the
        species, path and unit of the speed take turns. Every call gives the same.

    Returns
    -------
    pynwb.NWBFile
        A minute: 3 to 5 units, and the speed at 30 Hz with an unrelated ``speed_limit`` in other units.
    """
    random = np.random.default_rng(number)
    nwbfile = NWBFile(
        session_description="An animal runs on a wheel",
        identifier=f"running-{number}",
        session_id=f"day-{number}",
        session_start_time=dt.datetime(2024, 1, 1, 9, tzinfo=dt.UTC) + dt.timedelta(days=number),
        experiment_description="Made-up data: no animal was recorded",
        subject=Subject(
            subject_id=f"R{number % 20}",
            species="Rattus norvegicus" if number % 5 == 4 else MICE[number % len(MICE)],
            sex="FM"[number % 2],
            age=f"P{60 + number % 40}D",
        ),
    )
    speed = _speed(random)
    if number % 7 != 6:
        _add_speed(nwbfile, number, speed)
    if number % 9 != 8:
        for unit in range(3 + number % 3):
            nwbfile.add_unit(spike_times=_spikes(random, speed, prefers=5.0 + 8.0 * unit))
    return nwbfile


def write_running_sessions(folder: Path, count: int) -> None:
    """Write sessions to a folder, those that it does not have yet: ``folder/sub-R1/day-1.nwb.zarr``."""
    for number in range(count):
        session = folder / f"sub-R{number % 20}" / f"day-{number}.nwb.zarr"
        if not session.exists():
            unfinished = session.with_suffix(".unfinished")
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            write_zarr3(running_session(number), unfinished)
            unfinished.rename(session)


def _speed(random: np.random.Generator) -> Floats:
    """Return a speed in cm/s that wanders between rest and 30, (time,)."""
    steps = random.normal(size=int(DURATION * RATE)).cumsum()
    speed: Floats = np.abs(steps) / max(1.0, np.abs(steps).max()) * 30.0
    return speed


def _add_speed(nwbfile: NWBFile, number: int, speed: Floats) -> None:
    place, name, unit = PLACES[number % len(PLACES)]
    stored = speed if unit == "cm/s" else speed / 100.0
    series = _series(name, stored, unit)
    match place.split("/"):
        case ["acquisition"]:
            nwbfile.add_acquisition(series)
        case [_, module]:
            nwbfile.create_processing_module(module, "the wheel").add(series)
        case [_, module, container]:
            container = BehavioralTimeSeries(name=container)
            nwbfile.create_processing_module(module, "the wheel").add(container)
            container.add_timeseries(series)
    nwbfile.add_acquisition(_series("speed_limit", np.full(3, 2.0), "rad/s"))


def _series(name: str, values: Floats, unit: str) -> TimeSeries:
    data = ZarrDataIO(values, chunks=(len(values),))
    return TimeSeries(name=name, data=data, unit=unit, starting_time=0.0, rate=RATE)


def _spikes(random: np.random.Generator, speed: Floats, *, prefers: float) -> Floats:
    """Return Poisson spike times: 2 Hz, and up to 20 Hz more near the preferred speed in cm/s."""
    times = np.arange(0.0, DURATION, 0.001)
    now = speed[np.minimum((times * RATE).astype(int), len(speed) - 1)]
    rate = 2.0 + 20.0 * np.exp(-0.5 * ((now - prefers) / 4.0) ** 2)
    spikes: Floats = times[random.uniform(size=times.size) < 0.001 * rate]
    spikes += random.uniform(0.0, 0.001, size=spikes.size)
    return spikes
