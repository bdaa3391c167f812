"""Sessions of patch-clamp recordings, with tables, with a SweepTable, or with sweep numbers alone."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pynwb import NWBFile
from pynwb.icephys import (
    CurrentClampSeries,
    CurrentClampStimulusSeries,
    IntracellularElectrode,
    IZeroClampSeries,
    SweepTable,
    VoltageClampSeries,
    VoltageClampStimulusSeries,
)

from intake_nwbzarr.demo.sessions import add_pipette
from tests.mapping.construct_mode import constructed
from tests.session_files import empty_session, write

_random = np.random.default_rng(3)


def samples(count: int) -> NDArray[np.int16]:
    return _random.integers(-1000, 1000, count).astype("int16")


def clamp(
    kind: type[Any], name: str, on: IntracellularElectrode, data: NDArray[Any], **arguments: Any
) -> Any:
    settings: dict[str, Any] = {"gain": 2.0, "rate": 1000.0, "starting_time": 0.0, "conversion": 1e-3}
    return kind(name=name, data=data, electrode=on, **(settings | arguments))


def with_tables(folder: Path) -> Path:
    """Eight recordings in five groups of rate, length and units, and every table above them."""
    nwbfile = empty_session()
    one, two = add_pipette(nwbfile, "one"), add_pipette(nwbfile, "two")
    recordings = nwbfile.get_intracellular_recordings()
    recordings.add_column(name="quality", description="a column of the table's own", data=[])

    def add(number: int, stimulus: Any, response: Any, **arguments: Any) -> int:
        row: int = nwbfile.add_intracellular_recording(
            electrode=(response or stimulus).electrode,
            stimulus=stimulus,
            response=response,
            id=100 + number,
            quality=f"q{number}",
            electrode_metadata={"depth": float(number)},
            response_metadata={"spikes": number},
            **arguments,
        )
        return row

    recordings.category_tables["electrodes"].add_column(name="depth", description="d", data=[])
    recordings.category_tables["responses"].add_column(name="spikes", description="d", data=[])
    current, current_stimulus = CurrentClampSeries, CurrentClampStimulusSeries
    long = clamp(current, "long", one, samples(100), starting_time=9.0, offset=0.5, bias_current=1e-12)
    long_stimulus = clamp(current_stimulus, "long stimulus", one, samples(100), starting_time=9.0)
    rows = [
        add(
            number,
            clamp(current_stimulus, f"stimulus{number}", on, samples(20), starting_time=2.0 + number),
            clamp(current, f"response{number}", on, samples(20), starting_time=2.0 + number, offset=0.25),
        )
        for number, on in enumerate((one, two))
    ]
    part = {"response_start_index": 30, "response_index_count": 20, "stimulus_start_index": 60}
    rows.append(add(2, long_stimulus, long, **part, stimulus_index_count=15))
    rows.append(add(3, None, clamp(IZeroClampSeries, "zero", one, samples(20), starting_time=20.0)))
    rows.append(add(4, clamp(current_stimulus, "alone", one, samples(20), starting_time=30.0), None))
    rows.append(add(5, None, clamp(current, "fast", one, samples(20), rate=2500.5, starting_time=40.0)))
    voltage = clamp(VoltageClampSeries, "voltage", two, samples(20), starting_time=50.0)
    rows.append(
        add(6, clamp(VoltageClampStimulusSeries, "command", two, samples(20), starting_time=50.0), voltage)
    )
    slow = clamp(current_stimulus, "slow", two, samples(4), rate=200.0, starting_time=60.0)
    rows.append(add(7, slow, clamp(current, "under slow", two, samples(20), starting_time=60.0)))
    _group(nwbfile, rows)
    return write(folder, nwbfile)


def _group(nwbfile: NWBFile, rows: list[int]) -> None:
    """Recordings 0 and 1 simultaneous, then 2, then the others but the last, which belongs nowhere."""
    nwbfile.get_icephys_simultaneous_recordings().add_column(name="tag", description="d", data=[])
    simultaneous = [
        nwbfile.add_icephys_simultaneous_recording(recordings=group, id=10 + number, tag=f"tag{number}")
        for number, group in enumerate((rows[:2], rows[2:3], rows[3:7]))
    ]
    sequential = [
        nwbfile.add_icephys_sequential_recording(
            simultaneous_recordings=group, stimulus_type=kind, id=20 + id_
        )
        for id_, (group, kind) in enumerate(((simultaneous[:2], "square"), (simultaneous[2:], "ramp")))
    ]
    nwbfile.get_icephys_repetitions().add_column(name="quality", description="of all", data=[])
    repetition = nwbfile.add_icephys_repetition(sequential_recordings=sequential[:1], id=30, quality=0.5)
    nwbfile.get_icephys_experimental_conditions().add_column(name="condition", description="d", data=[])
    nwbfile.add_icephys_experimental_condition(repetitions=[repetition], id=40, condition="drug")


def with_sweep_numbers(folder: Path, *, sweep_table: bool = False) -> Path:
    """Three sweeps of two electrodes; the second electrode has no stimulus in sweep 1, nor sweep 7 at all."""
    nwbfile = empty_session()
    if sweep_table:
        with warnings.catch_warnings(action="ignore"):
            nwbfile.sweep_table = constructed(SweepTable, name="sweep_table")
    electrodes = [add_pipette(nwbfile, name) for name in ("a", "b")]
    for sweep in (7, 1, 2):
        for on in electrodes[: 1 if sweep == 7 else 2]:
            name = f"{on.name}{sweep}"
            arguments: dict[str, Any] = {"sweep_number": np.uint64(sweep), "starting_time": float(sweep)}
            response = clamp(CurrentClampSeries, f"response {name}", on, samples(12), **arguments)
            stimulus = clamp(CurrentClampStimulusSeries, f"stimulus {name}", on, samples(12), **arguments)
            nwbfile.add_acquisition(response)
            if name != "b1":
                nwbfile.add_stimulus(stimulus)
            if sweep_table:
                nwbfile.sweep_table.add_entry(response)
                if name != "b1":
                    nwbfile.sweep_table.add_entry(stimulus)
    return write(folder, nwbfile)
