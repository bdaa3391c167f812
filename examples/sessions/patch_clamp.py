"""A made-up patch-clamp session: a neuron under current steps, simulated as leaky integrate-and-fire."""

from __future__ import annotations

import datetime as dt
from typing import Final

import numpy as np
from hdmf_zarr.utils import ZarrDataIO
from numpy.typing import NDArray
from pynwb import NWBFile
from pynwb.file import Subject
from pynwb.icephys import CurrentClampSeries, CurrentClampStimulusSeries, IntracellularElectrode

from intake_nwbzarr.demo.sessions import add_pipette

STEPS: Final = (-100.0, -50.0, 0.0, 50.0, 100.0, 150.0, 200.0, 250.0)
"""Injected currents in pA, in the order of the picture rather than of the experiment."""
RATE: Final = 10000.0
ONSET: Final = 0.1
OFFSET: Final = 0.6
DURATION: Final = 0.75

type Floats = NDArray[np.float64]


def patch_clamp_session() -> NWBFile:
    """Current-clamp sweeps with every table of recordings that the schema has.

    Returns
    -------
    pynwb.NWBFile
        A sweep every two seconds, in shuffled order: stimulus and response of 0.75 s at 10 kHz, in int16.
        Every call gives the same.
    """
    random = np.random.default_rng(9)
    nwbfile = NWBFile(
        session_description="Pyramidal cell under current steps",
        identifier="example-patch-clamp",
        session_start_time=dt.datetime(2022, 6, 14, 13, 0, tzinfo=dt.UTC),
        experiment_description="Made-up data: no cell was recorded",
        subject=Subject(subject_id="E2", species="Rattus norvegicus", sex="M", age="P21D"),
    )
    electrode = add_pipette(nwbfile, "Electrode", "Amplifier")
    rows = [
        _add_sweep(nwbfile, electrode, number, float(step), random)
        for number, step in enumerate(random.permutation(STEPS))
    ]
    simultaneous = [nwbfile.add_icephys_simultaneous_recording(recordings=[row]) for row in rows]
    sequence = nwbfile.add_icephys_sequential_recording(
        simultaneous_recordings=simultaneous, stimulus_type="Step"
    )
    repetition = nwbfile.add_icephys_repetition(sequential_recordings=[sequence])
    nwbfile.add_icephys_experimental_condition(repetitions=[repetition])
    return nwbfile


def _add_sweep(
    nwbfile: NWBFile,
    electrode: IntracellularElectrode,
    number: int,
    step: float,
    random: np.random.Generator,
) -> int:
    current = np.zeros(round(DURATION * RATE))
    current[round(ONSET * RATE) : round(OFFSET * RATE)] = step
    millivolts = _membrane_potential(current, random)
    stimulus = CurrentClampStimulusSeries(
        name=f"stimulus_{number}",
        data=ZarrDataIO(current.astype("i2"), chunks=current.shape),
        conversion=1e-12,
        electrode=electrode,
        gain=1.0,
        rate=RATE,
        starting_time=2.0 * number,
    )
    response = CurrentClampSeries(
        name=f"response_{number}",
        data=ZarrDataIO(np.round(millivolts / 0.025).astype("i2"), chunks=millivolts.shape),
        conversion=2.5e-5,
        electrode=electrode,
        gain=1.0,
        rate=RATE,
        starting_time=2.0 * number,
    )
    row: int = nwbfile.add_intracellular_recording(electrode=electrode, stimulus=stimulus, response=response)
    return row


def _membrane_potential(current: Floats, random: np.random.Generator) -> Floats:
    """Millivolts of a leaky integrate-and-fire neuron that adapts, for a current in pA."""
    rest, threshold, reset, peak = -70.0, -50.0, -60.0, 35.0
    resistance, time_constant, step = 0.16, 15.0, 1000.0 / RATE  # GOhm, ms, ms
    noise = random.normal(0.0, 0.25, current.size)
    potential, adaptation = rest, 0.0
    millivolts = np.empty(current.size)
    refractory = 0
    for sample, injected in enumerate(current):
        refractory -= 1
        adaptation -= adaptation * step / 120.0
        drive = resistance * (injected - adaptation) + noise[sample]
        if refractory > 0:
            potential = peak + (reset - peak) * (1.0 - refractory / 20.0) ** 0.5
        else:
            potential += (rest - potential + drive) * step / time_constant
        if potential > threshold and refractory <= 0:
            potential, refractory, adaptation = peak, 20, adaptation + 18.0
        millivolts[sample] = potential
    return millivolts + random.normal(0.0, 0.08, current.size)
