"""A made-up recording of units and LFP in the cortex of a mouse that is cued to lick left or right."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

import numpy as np
from hdmf.common import DynamicTableRegion
from hdmf_zarr.utils import ZarrDataIO
from numpy.typing import NDArray
from pynwb import NWBFile
from pynwb.ecephys import LFP, ElectricalSeries
from pynwb.file import Subject

from intake_nwbzarr.demo.sessions import add_electrodes

CONTRASTS: Final = (0.1, 0.3, 1.0)
TRIALS: Final = 72
CHANNELS: Final = 16
UNITS: Final = (6, 7, 12, 19, 23, 40)
LFP_RATE: Final = 500.0

type Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trials:
    """What happened when: times in seconds, all of them (trial,)."""

    start: Floats
    cue: Floats
    """NaN where the animal licked too early, and was never cued."""
    left: NDArray[np.bool_]
    contrast: Floats

    @property
    def end_of_session(self) -> float:
        """In seconds."""
        return float(self.start[-1]) + 5.0


def trials_session() -> NWBFile:
    """Trials that begin with a grating; about a second later a cue tells the mouse to lick.

    Returns
    -------
    pynwb.NWBFile
        Trials with ``type``, ``contrast`` and ``cue_start_time``, which is NaN in every eighth; units that
        prepare for the cue, of which one was lost half-way, as its ``obs_intervals`` say; LFP in int16,
        (time, channel), which the gratings evoke. Every call gives the same.
    """
    random = np.random.default_rng(27)
    nwbfile = NWBFile(
        session_description="Mouse licks left or right after a cue",
        identifier="example-trials",
        session_start_time=dt.datetime(2023, 3, 8, 10, 30, tzinfo=dt.UTC),
        experiment_description="Made-up data: no animal was recorded",
        subject=Subject(subject_id="E1", species="Mus musculus", sex="F", age="P80D"),
    )
    trials = _trials(random)
    for name, description in (
        ("type", "which side the mouse should lick at"),
        ("contrast", "of the grating, 0 to 1"),
        ("cue_start_time", "of the sound that tells the mouse to lick, in seconds"),
    ):
        nwbfile.add_trial_column(name, description)
    for start, cue, left, contrast in zip(
        trials.start, trials.cue, trials.left, trials.contrast, strict=True
    ):
        nwbfile.add_trial(
            start_time=float(start),
            stop_time=float(start) + 2.8,
            type="lick left" if left else "lick right",
            contrast=float(contrast),
            cue_start_time=float(cue),
        )
    electrodes = add_electrodes(
        nwbfile,
        CHANNELS,
        "ALM",
        probe="Probe",
        shank="shank0",
        rel_x=0.0,
        rel_y=100.0 * np.arange(CHANNELS),
    )
    _add_units(nwbfile, trials, random)
    _add_lfp(nwbfile, trials, electrodes, random)
    return nwbfile


def _trials(random: np.random.Generator) -> Trials:
    start = 3.0 + np.cumsum(random.uniform(3.2, 3.8, TRIALS))
    cue = start + random.uniform(1.1, 1.4, TRIALS)
    cue[4::8] = np.nan
    return Trials(start, cue, random.uniform(size=TRIALS) < 0.5, random.choice(np.array(CONTRASTS), TRIALS))


def _add_units(nwbfile: NWBFile, trials: Trials, random: np.random.Generator) -> None:
    nwbfile.add_unit_column("quality", "sorting label")
    for number, unit in enumerate(UNITS):
        spikes = _spikes(trials, random, prefers_left=number % 2 == 0, strength=4.0 + 6.0 * number)
        lost = trials.end_of_session / 2 if number == 0 else trials.end_of_session
        nwbfile.add_unit(
            id=unit,
            spike_times=spikes[spikes < lost],
            obs_intervals=[[0.0, lost]],
            electrodes=[2 * number],
            quality="good",
        )


def _spikes(trials: Trials, random: np.random.Generator, *, prefers_left: bool, strength: float) -> Floats:
    """A Poisson train in bins of a millisecond: it ramps up to the cue, and answers it with a burst."""
    times = np.arange(0.0, trials.end_of_session, 0.001)
    rate = np.full(times.size, 3.0 + 0.1 * strength)
    for start, cue, left in zip(trials.start, trials.cue, trials.left, strict=True):
        gain = strength * (1.0 if left == prefers_left else 0.2)
        end = cue if np.isfinite(cue) else start + 0.6
        ramp = (times >= start) & (times < end)
        rate[ramp] += gain * ((times[ramp] - start) / 1.25) ** 2
        after = (times >= cue + 0.05) & (times < cue + 1.0)
        rate[after] += 3.0 * gain * np.exp(-(times[after] - cue - 0.05) / 0.12)
    return times[random.uniform(size=times.size) < 0.001 * rate]


def _add_lfp(
    nwbfile: NWBFile, trials: Trials, electrodes: DynamicTableRegion, random: np.random.Generator
) -> None:
    ecephys = nwbfile.create_processing_module("ecephys", "filtered and downsampled recordings")
    container = LFP(name="LFP")
    ecephys.add(container)
    series = ElectricalSeries(
        name="ElectricalSeries",
        data=ZarrDataIO(np.round(_lfp(trials, random) / 0.2).astype("i2"), chunks=(16384, CHANNELS)),
        electrodes=electrodes,
        starting_time=0.0,
        rate=LFP_RATE,
        conversion=2e-7,
    )
    container.add_electrical_series(series)


def _lfp(trials: Trials, random: np.random.Generator) -> Floats:
    """Microvolts, (time, channel): slow noise that channels share, and a sink that gratings evoke."""
    size = int(trials.end_of_session * LFP_RATE)
    depth = np.linspace(0.0, 1.0, CHANNELS)
    shared, own = random.normal(size=(size, 1)), random.normal(size=(size, CHANNELS))
    # Filtered by hand, as white noise that each sample forgets a little of: dark noise, as LFP has it.
    kernel = np.exp(-np.arange(250) / 25.0)
    noise = np.apply_along_axis(lambda white: np.convolve(white, kernel)[:size], 0, 9.0 * shared + 4.0 * own)
    since = np.arange(0.0, 0.6, 1.0 / LFP_RATE)
    sink = np.outer(_bump(since, 0.07, 0.018), _bump(depth, 0.4, 0.12) - 0.5 * _bump(depth, 0.75, 0.15))
    slow = np.outer(_bump(since, 0.2, 0.06), _bump(depth, 0.15, 0.2) - 0.6 * _bump(depth, 0.55, 0.2))
    for start, contrast in zip(trials.start, trials.contrast, strict=True):
        first = int(np.searchsorted(np.arange(size) / LFP_RATE, start))
        noise[first : first + since.size] += contrast**0.5 * (130.0 * slow - 260.0 * sink)
    return noise


def _bump(values: Floats, center: float, width: float) -> Floats:
    return np.exp(-(((values - center) / width) ** 2) / 2.0)
