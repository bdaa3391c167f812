"""The session that the documentation's pages open: `sub-1.nwb.zarr`, and `sub-1.nwb` in HDF5."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
from hdmf.common import DynamicTableRegion
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.base import VectorData
from pynwb.behavior import Position, SpatialSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.event import EventsTable, TimestampVectorData
from pynwb.file import Subject
from pynwb.ophys import TwoPhotonSeries

from intake_nwbzarr.demo.sessions import add_electrodes, add_imaging_plane, write_zarr3

LAST = 30.0


def documented_session(
    identifier: str = "sub-1", species: str = "Mus musculus", speed_unit: str = "cm/s"
) -> NWBFile:
    """Return a session of 30 seconds with the objects that the pages name."""
    random = np.random.default_rng(1)
    nwbfile = NWBFile(
        session_description="A mouse runs, licks and looks",
        identifier=identifier,
        session_start_time=dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC),
        session_id="1",
        subject=Subject(subject_id=identifier, species=species, age="P90D", sex="F"),
        keywords=["running"],
    )
    electrodes = add_electrodes(nwbfile, 8)
    nwbfile.electrodes["location"].data[4:] = ["CA3"] * 4
    nwbfile.devices["probe"].fields["serial_number"] = "18194819132"
    nwbfile.add_acquisition(_recording(random, electrodes))
    _add_tables(nwbfile, random)
    _add_behavior(nwbfile, random, speed_unit)
    plane = add_imaging_plane(
        nwbfile,
        grid_spacing=[2.0, 2.0],
        grid_spacing_unit="micrometers",
        origin_coords=[0.0, 0.0],
        origin_coords_unit="micrometers",
    )
    pixels = random.integers(0, 1000, (20, 32, 32)).astype("u2")
    movie = TwoPhotonSeries(name="movie", data=pixels, imaging_plane=plane, rate=15.0, unit="a.u.")
    nwbfile.create_processing_module("ophys", "of the movie").add(
        TimeSeries(name="brightness", data=pixels.mean(axis=(1, 2)), unit="a.u.", rate=15.0)
    )
    nwbfile.add_acquisition(movie)
    return nwbfile


def write_both(folder: Path) -> None:
    """Write the session to a folder, as Zarr and as HDF5."""
    write_zarr3(documented_session(), folder / "sub-1.nwb.zarr")
    with NWBHDF5IO(folder / "sub-1.nwb", "w") as io:
        io.write(documented_session())


def _recording(random: np.random.Generator, electrodes: DynamicTableRegion) -> ElectricalSeries:
    return ElectricalSeries(
        name="ElectricalSeriesAP",
        data=random.integers(-500, 500, (3000, 8)).astype("i2"),
        electrodes=electrodes,
        rate=30_000.0,
        starting_time=1.5,
        conversion=1e-6,
    )


def _add_tables(nwbfile: NWBFile, random: np.random.Generator) -> None:
    nwbfile.add_unit_column("quality", "of the sorting")
    for unit in (191, 192, 195, 207):
        spikes = np.sort(random.uniform(0.0, LAST, 60))
        nwbfile.add_unit(id=unit, spike_times=spikes, quality="noise" if unit == 195 else "good")
    nwbfile.add_trial_column("stim", "what was shown")
    nwbfile.add_trial_column("cue_start_time", "of the cue, in seconds")
    for number in range(8):
        start = 2.0 + 3.0 * number
        nwbfile.add_trial(
            start_time=start,
            stop_time=start + 2.0,
            stim=("grating", "blank")[number % 2],
            cue_start_time=start + 0.5,
        )
    nwbfile.add_epoch_column("label", "what the animal did")
    for start, label in ((0.0, "running"), (10.0, "resting"), (20.0, "running")):
        nwbfile.add_epoch(start, start + 8.0, label=label)
    times = np.sort(random.uniform(0.0, LAST, 12))
    columns = [
        TimestampVectorData(name="timestamp", description="when", data=times),
        VectorData(name="event_type", description="what", data=["reward", "tone"] * 6),
    ]
    nwbfile.add_events_table(EventsTable(name="events", description="of the task", columns=columns))


def _add_behavior(nwbfile: NWBFile, random: np.random.Generator, speed_unit: str) -> None:
    licks = np.sort(random.uniform(0.0, LAST, 40))
    speed = random.uniform(0.0, 25.0, int(60 * LAST)) * (0.01 if speed_unit == "m/s" else 1.0)
    places = random.uniform(0.0, 1.0, (int(60 * LAST), 2))
    position = SpatialSeries(name="SpatialSeries", data=places, reference_frame="corner", rate=60.0)
    behavior = nwbfile.create_processing_module("behavior", "of a running mouse")
    behavior.add(TimeSeries(name="lick", data=np.ones(licks.size), unit="n/a", timestamps=licks))
    behavior.add(TimeSeries(name="running_speed", data=speed, unit=speed_unit, rate=60.0))
    behavior.add(Position(spatial_series=position))
