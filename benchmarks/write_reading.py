"""Sessions for measuring what reading costs: 256 MB in chunks and in shards, and an hour of 384 channels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numcodecs
import numpy as np
from hdmf.common import ElementIdentifiers, VectorData, VectorIndex
from hdmf_zarr.utils import ZarrDataIO
from pynwb import TimeSeries
from pynwb.misc import Units
from zarr.codecs import BloscCodec

from benchmarks.enlarge import enlarge
from benchmarks.write_opening import noise, recording
from intake_nwbzarr.demo.sessions import write_zarr3
from intake_nwbzarr.demo.zarr2 import COMPRESSOR, write_zarr2

SERIES = "acquisition/ElectricalSeries"
CHANNELS = 64
SIZE = 256 * 10**6
"""Decoded bytes of the series that is read whole."""

SMALL_CHUNK = 265_000
SHARD_CHUNKS = 64
"""Of 265 kB each: a shard of about 16 MiB."""

RATE = 30000
HOUR_CHANNELS = 384
HOUR_CHUNKS = (RATE, 64)
UNITS = 200
SPIKES = 10**7
TIMESTAMPS = 10**7


def write_series(folder: Path, chunk_bytes: int, *, size: int = SIZE) -> None:
    """A recording of 64 channels in chunks of about so many stored bytes; Zarr 2, blosc, as public assets.

    Parameters
    ----------
    folder
        Where it goes.
    chunk_bytes
        Of a chunk as stored, that is, compressed.
    size
        Decoded bytes of all.
    """
    rows, total = _rows(chunk_bytes, size)
    nwbfile = recording(CHANNELS, "a series read whole", starting=(total, CHANNELS), chunks=(rows, CHANNELS))
    newer = folder.with_name(f"{folder.name}.zarr3")
    shutil.rmtree(newer, ignore_errors=True)
    write_zarr3(nwbfile, newer)
    write_zarr2(newer, folder)
    shutil.rmtree(newer)


def write_shards(folder: Path, *, size: int = SIZE) -> None:
    """The same values in the same chunks of 265 kB, kept in shards; Zarr 3, as hdmf-zarr writes it."""
    rows, total = _rows(SMALL_CHUNK, size)
    compressor = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    nwbfile = recording(
        CHANNELS,
        "a series read whole",
        starting=(total, CHANNELS),
        chunks=(rows, CHANNELS),
        shards=(SHARD_CHUNKS * rows, CHANNELS),
        compressors=compressor,
    )
    write_zarr3(nwbfile, folder)


def _rows(chunk_bytes: int, size: int) -> tuple[int, int]:
    """Samples in a chunk of so many stored bytes, and in all chunks."""
    sample = noise(np.random.default_rng(1), (100_000, CHANNELS))
    ratio = sample.nbytes / len(numcodecs.get_codec(COMPRESSOR).encode(sample))
    rows = round(chunk_bytes * ratio / 2 / CHANNELS)
    return rows, max(round(size / (2 * CHANNELS) / rows), 1) * rows


def write_hour(folder: Path, *, spikes: int = SPIKES, timestamps: int = TIMESTAMPS) -> None:
    """An hour of 384 channels at 30 kHz, 200 units, and a series with irregular timestamps; Zarr 3.

    The 83 GB of the recording are one chunk, which the benchmark's server gives for all 21,600.
    """
    random = np.random.default_rng(11)
    shape = (RATE, HOUR_CHANNELS)
    nwbfile = recording(HOUR_CHANNELS, "an hour", starting=shape, chunks=HOUR_CHUNKS)
    nwbfile.units = _units(random, spikes)
    times = np.cumsum(random.exponential(3600.0 / timestamps, timestamps))
    width = max(timestamps // 100, 1)
    nwbfile.add_acquisition(
        TimeSeries(
            name="licks",
            data=ZarrDataIO(random.integers(0, 5, timestamps, dtype="i2"), chunks=(width,)),
            timestamps=ZarrDataIO(times, chunks=(width,)),
            unit="n.a.",
        )
    )
    write_zarr3(nwbfile, folder)
    enlarge(folder, f"{SERIES}/data", (3600 * RATE, HOUR_CHANNELS), repeat=True)


def _units(random: np.random.Generator, spikes: int) -> Units:
    """Units of equally many spikes, in 128 chunks as the ecephys asset has them."""
    each = spikes // UNITS
    times = np.sort(random.uniform(0, 3600, (UNITS, each)), axis=1).reshape(-1)
    column = VectorData(
        name="spike_times", description="seconds", data=ZarrDataIO(times, chunks=(max(times.size // 128, 1),))
    )
    index = VectorIndex(name="spike_times_index", target=column, data=np.arange(1, UNITS + 1) * each)
    identifiers = ElementIdentifiers(name="id", data=np.arange(UNITS))
    return Units(name="units", description="sorted", id=identifiers, columns=[column, index])
