"""A made-up recording of units during trials."""

from __future__ import annotations

import datetime as dt

import numpy as np
import numpy.typing as npt
from hdmf_zarr.utils import ZarrDataIO
from pynwb import NWBFile
from pynwb.ecephys import ElectricalSeries
from pynwb.file import Subject

SAMPLING_RATE = 30000.0
CHANNELS, UNITS, TRIALS = 16, 14, 60

type Floats = npt.NDArray[np.float64]


def spiking_session() -> NWBFile:
    """Units that fire at the start of trials, the more the higher the contrast shown.

    Returns
    -------
    pynwb.NWBFile
        With an int16 recording (time, electrode) of half a second, electrodes, units, and trials, which begin
        every two seconds or so. Every call gives the same.
    """
    random = np.random.default_rng(24)
    nwbfile = NWBFile(
        session_description="Mouse watches gratings",
        identifier="demo-spiking",
        session_start_time=dt.datetime(2021, 11, 22, 9, 15, tzinfo=dt.UTC),
        experimenter=["Roe, Richard"],
        institution="Institute of Examples",
        lab="Demonstration Lab",
        subject=Subject(subject_id="A8", species="Mus musculus", sex="F", age="P90D"),
    )
    probe = nwbfile.create_device(name="Probe")
    shank = nwbfile.create_electrode_group("shank0", description="one shank", location="VISp", device=probe)
    for channel in range(CHANNELS):
        nwbfile.add_electrode(x=0.0, y=20.0 * channel, z=0.0, location="VISp", filtering="none", group=shank)
    nwbfile.add_acquisition(
        ElectricalSeries(
            name="ElectricalSeries",
            data=ZarrDataIO(random.integers(-400, 400, (15000, CHANNELS), dtype="i2"), chunks=(5000, 8)),
            electrodes=nwbfile.create_electrode_table_region(list(range(CHANNELS)), "every channel"),
            starting_time=0.0,
            rate=SAMPLING_RATE,
            conversion=1.95e-7,
        )
    )
    starts: Floats = 2.0 + np.cumsum(random.uniform(1.8, 2.4, TRIALS), dtype=np.float64)
    contrasts: Floats = random.choice(np.array([0.0, 0.25, 1.0]), TRIALS)
    nwbfile.add_trial_column("contrast", "contrast of the grating, 0 to 1")
    for start, contrast in zip(starts, contrasts, strict=True):
        nwbfile.add_trial(start_time=float(start), stop_time=float(start) + 1.2, contrast=float(contrast))
    nwbfile.add_unit_column("quality", "sorting label")
    for unit in range(UNITS):
        gain = 60.0 * random.uniform(0.2, 1.0) if unit % 4 else -4.0
        nwbfile.add_unit(
            spike_times=_spikes(random, starts, contrasts, baseline=random.uniform(2.0, 9.0), gain=gain),
            electrodes=[unit % CHANNELS],
            electrode_group=shank,
            quality="good" if unit % 5 else "mua",
        )
    return nwbfile


def _spikes(
    random: np.random.Generator, starts: Floats, contrasts: Floats, *, baseline: float, gain: float
) -> Floats:
    """A Poisson train in bins of a millisecond, whose rate rises 50 ms after each trial's start."""
    times = np.arange(0.0, starts[-1] + 3.0, 0.001)
    rate = np.full(times.size, baseline)
    since = np.arange(0.0, 1.0, 0.001)
    answer = gain * np.exp(-since / 0.15) * (1.0 - np.exp(-since / 0.02))
    for start, contrast in zip(np.searchsorted(times, starts + 0.05), contrasts, strict=True):
        rate[start : start + since.size] += contrast * answer
    return times[random.uniform(size=times.size) < rate.clip(0) * 0.001]
