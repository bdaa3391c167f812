"""Sessions as HDF5 files: of a hundred objects, of many series, and series of many chunks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from hdmf.data_utils import DataChunkIterator
from numpy.typing import NDArray
from pynwb import NWBHDF5IO, H5DataIO, NWBFile, TimeSeries
from pynwb.ecephys import LFP, ElectricalSeries

START = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
CHANNELS = 32
BLOCK = 50_000
"""Samples that are written at a time."""

SERIES = "acquisition/raw"
SMALL_CHUNK = 32_000
"""Bytes of the chunks that a whole series is read in."""


def write_hundred(file: Path) -> None:
    """Raw data, LFP, units, trials and eight series with timestamps: 100 objects, 42 MB."""
    session = _session("hundred")
    rng = np.random.default_rng(0)
    electrodes = _electrodes(session, CHANNELS)
    data = DataChunkIterator(
        data=_samples(400_000, CHANNELS), maxshape=(None, CHANNELS), dtype=np.dtype("i2"), buffer_size=BLOCK
    )
    raw = H5DataIO(
        data,
        compression="gzip",
        shuffle=True,
        chunks=(10_000, CHANNELS),
        maxshape=(None, CHANNELS),
    )
    session.add_acquisition(
        ElectricalSeries(name="raw", data=raw, electrodes=electrodes, rate=30_000.0, conversion=1e-6)
    )
    module = session.create_processing_module(name="ecephys", description="filtered")
    lfp = H5DataIO(_noise(rng, 13_333, CHANNELS), compression="gzip", chunks=(2048, 16))
    module.add(
        LFP(electrical_series=[ElectricalSeries(name="lfp", data=lfp, electrodes=electrodes, rate=1000.0)])
    )
    session.add_unit_column(name="quality", description="as sorted")
    for number in range(100):
        times = np.sort(rng.random(int(rng.integers(10, 4000))) * 30)
        session.add_unit(spike_times=times, quality="good" if number % 2 else "mua")
    session.add_trial_column(name="correct", description="whether it was")
    for number in range(300):
        session.add_trial(start_time=0.1 * number, stop_time=0.1 * number + 0.05, correct=bool(number % 2))
    for number in range(8):
        values = H5DataIO(rng.random(200_000), compression="gzip", chunks=(10_000,))
        session.add_acquisition(
            TimeSeries(name=f"aux{number}", data=values, unit="V", timestamps=np.arange(200_000) * 1e-3)
        )
    _write(session, file)


def write_series(file: Path, series: int) -> None:
    """Many short series, every second one compressed."""
    session = _session("many")
    rng = np.random.default_rng(0)
    for number in range(series):
        values = rng.random(200)
        data = H5DataIO(values, compression="gzip") if number % 2 else values
        session.add_acquisition(
            TimeSeries(name=series_name(number), data=data, unit="V", rate=100.0, description=str(number))
        )
    _write(session, file)


def series_name(number: int) -> str:
    """Return the name of one of many series."""
    return f"series{number:05d}"


def write_gzip(file: Path, size: int = 100_000_000) -> None:
    """A series with gzip and shuffle, in chunks of 32 kB of all channels."""
    rows = SMALL_CHUNK // (2 * CHANNELS)
    _write_recording(file, size // (2 * CHANNELS), (rows, CHANNELS))


def write_chunks(file: Path, chunks: int) -> None:
    """A series of many small chunks, of 64 samples of one channel each."""
    channels = min(CHANNELS, chunks)
    _write_recording(file, chunks // channels * 64, (64, 1), channels)


def write_table(file: Path, chunks: int = 12_000) -> None:
    """A series of many chunks of about 9 kB when compressed, so that the nodes of their index lie apart."""
    rows = 256
    _write_recording(file, chunks * rows, (rows, CHANNELS))


def _write_recording(file: Path, samples: int, chunks: tuple[int, int], channels: int = CHANNELS) -> None:
    session = _session("recording")
    electrodes = _electrodes(session, channels)
    data = DataChunkIterator(
        data=_samples(samples, channels), maxshape=(None, channels), dtype=np.dtype("i2"), buffer_size=BLOCK
    )
    stored = H5DataIO(data, compression="gzip", shuffle=True, chunks=chunks, maxshape=(None, channels))
    session.add_acquisition(
        ElectricalSeries(name="raw", data=stored, electrodes=electrodes, rate=30_000.0, conversion=1e-6)
    )
    _write(session, file)


def _session(name: str) -> NWBFile:
    return NWBFile(session_description="for measuring", identifier=name, session_start_time=START)


def _electrodes(session: NWBFile, channels: int) -> object:
    device = session.create_device(name="probe")
    group = session.create_electrode_group(name="shank", description="all", location="CA1", device=device)
    for _ in range(channels):
        session.add_electrode(location="CA1", group=group)
    return session.create_electrode_table_region(region=list(range(channels)), description="all")


def _noise(rng: np.random.Generator, samples: int, channels: int) -> NDArray[np.int16]:
    return (rng.standard_normal((samples, channels)) * 60).astype("i2")


def _samples(samples: int, channels: int) -> Iterator[NDArray[np.int16]]:
    block = _noise(np.random.default_rng(1), BLOCK, channels)
    for start in range(0, samples, BLOCK):
        yield from np.roll(block, start // BLOCK, axis=1)[: min(BLOCK, samples - start)]


def _write(session: NWBFile, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(file, "w") as io:
            io.write(session)
