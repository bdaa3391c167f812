"""Of every type: intracellular recordings, their tables, and the sweep table of older files."""

from typing import Any

import numpy as np
from pynwb import NWBFile
from pynwb.icephys import (
    CurrentClampSeries,
    CurrentClampStimulusSeries,
    IntracellularElectrode,
    PatchClampSeries,
    SweepTable,
    VoltageClampSeries,
    VoltageClampStimulusSeries,
)
from pynwb.misc import AnnotationSeries

from tests.mapping.construct_mode import constructed

_random = np.random.default_rng(5)


def add_icephys(nwbfile: NWBFile) -> None:
    """Add described electrodes, two recordings, and the five tables that group them."""
    electrode = nwbfile.create_icephys_electrode(
        name="described electrode",
        description="a pipette",
        device=nwbfile.devices["amplifier"],
        cell_id="cell 7",
        seal="1.2 GOhm",
        location="V1 L5",
        slice="300 um",
        resistance="5 MOhm",
        filtering="10 kHz",
        initial_access_resistance="20 MOhm",
    )
    _other_series(nwbfile, electrode)
    _recordings(nwbfile, electrode)
    _groups(nwbfile)
    _sweeps(nwbfile)


def _samples() -> np.ndarray[Any, Any]:
    return _random.integers(-99, 99, 8).astype("int16")


def _other_series(nwbfile: NWBFile, electrode: IntracellularElectrode) -> None:
    """The general type itself, and one series with every setting."""
    nwbfile.add_acquisition(
        PatchClampSeries(
            name="patch",
            data=_samples(),
            unit="volts",
            electrode=electrode,
            gain=1.5,
            rate=1000.0,
            stimulus_description="ramp",
            sweep_number=8,
        )
    )
    nwbfile.add_acquisition(
        VoltageClampSeries(
            name="every setting",
            data=_samples(),
            electrode=electrode,
            gain=0.02,
            rate=1000.0,
            capacitance_fast=1e-12,
            capacitance_slow=2e-12,
            resistance_comp_bandwidth=3.0,
            resistance_comp_correction=4.0,
            resistance_comp_prediction=5.0,
            whole_cell_capacitance_comp=6.0,
            whole_cell_series_resistance_comp=7.0,
        )
    )
    nwbfile.add_stimulus(AnnotationSeries(name="remarks", data=["in", "out"], timestamps=[0.5, 9.0]))


def _recordings(nwbfile: NWBFile, electrode: IntracellularElectrode) -> None:
    template = CurrentClampStimulusSeries(
        name="step template", data=_samples(), electrode=electrode, rate=1000.0
    )
    nwbfile.add_stimulus_template(template)
    for number in range(2):
        stimulus = CurrentClampStimulusSeries(
            name=f"step {number}",
            data=_samples(),
            electrode=electrode,
            rate=1000.0,
            starting_time=number * 1.0,
            stimulus_description="N/A",
        )
        response = CurrentClampSeries(
            name=f"response {number}",
            data=_samples(),
            electrode=electrode,
            rate=1000.0,
            starting_time=number * 1.0,
            bias_current=1e-12,
            bridge_balance=2e6,
            capacitance_compensation=3e-12,
            conversion=1e-3,
        )
        nwbfile.add_stimulus(stimulus)
        nwbfile.add_acquisition(response)
        nwbfile.add_intracellular_recording(
            electrode=electrode,
            stimulus=stimulus,
            stimulus_start_index=1,
            stimulus_index_count=4,
            response=response,
            stimulus_template=template,
            stimulus_template_start_index=1,
            stimulus_template_index_count=4,
            id=10 + number,
        )
    only_stimulus = VoltageClampStimulusSeries(
        name="without response", data=_samples(), electrode=electrode, rate=1000.0
    )
    nwbfile.add_stimulus(only_stimulus)
    nwbfile.add_intracellular_recording(electrode=electrode, stimulus=only_stimulus, id=12)
    recordings = nwbfile.intracellular_recordings
    recordings.add_column(name="quality", description="by eye", data=["good", "good", "bad"])
    recordings.add_column(
        name="voltage", description="of the stimulus", data=[0.1, 0.2, 0.3], category="stimuli"
    )


def _groups(nwbfile: NWBFile) -> None:
    first = nwbfile.add_icephys_simultaneous_recording(recordings=[0, 1], id=100)
    second = nwbfile.add_icephys_simultaneous_recording(recordings=[2], id=101)
    steps = nwbfile.add_icephys_sequential_recording(
        simultaneous_recordings=[first], stimulus_type="square", id=1000
    )
    ramps = nwbfile.add_icephys_sequential_recording(
        simultaneous_recordings=[second], stimulus_type="ramp", id=1001
    )
    repetition = nwbfile.add_icephys_repetition(sequential_recordings=[steps, ramps], id=10000)
    nwbfile.add_icephys_experimental_condition(repetitions=[repetition], id=100000)
    nwbfile.icephys_experimental_conditions.add_column(name="drug", description="applied", data=["none"])


def _sweeps(nwbfile: NWBFile) -> None:
    table = constructed(SweepTable, name="sweep_table")
    for name in ("current_clamp", "voltage_clamp", "patch"):
        table.add_entry(nwbfile.acquisition[name])
    nwbfile.sweep_table = table
