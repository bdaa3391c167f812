"""Sessions for measuring what opening costs: dandiset 000719's two kinds, and an asset of 93,650 chunks."""

from __future__ import annotations

import datetime as dt
import shutil
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from hdmf_zarr.utils import ZarrDataIO
from pynwb import NWBFile
from pynwb.ecephys import ElectricalSeries
from pynwb.file import Subject
from pynwb.icephys import CurrentClampSeries, CurrentClampStimulusSeries

from benchmarks import write_legacy
from benchmarks.enlarge import enlarge
from benchmarks.environments import run_pinned
from benchmarks.layouts import ECEPHYS, OPHYS, layout
from intake_nwbzarr.demo.sessions import (
    add_electrodes,
    add_pipette,
    imaging_session,
    write_zarr3,
)
from intake_nwbzarr.demo.zarr2 import write_zarr2

ROIS = 2799
START = dt.datetime(2022, 3, 4, 10, 0, tzinfo=dt.UTC)

# How the large arrays of the imaging asset are cut: its listing gives the grid, not the chunks' shape.
_OPHYS_CHUNKS = {
    "acquisition/TwoPhotonSeries/data": (16, 512, 796),
    "processing/ophys/Fluorescence/Deconvolved/data": (2084, 175),
    "processing/ophys/Fluorescence/Neuropil/data": (2084, 175),
    "processing/ophys/Fluorescence/RoiResponseSeries/data": (2084, 175),
    "processing/ophys/ImageSegmentation/PlaneSegmentation/image_mask": (1, 64, 100),
}


def write_ophys_zarr3(folder: Path) -> None:
    """Dandiset 000719's sub-R6: a movie, 2,799 cells, behaviour; as hdmf-zarr writes it, schemas included."""
    write_zarr3(imaging_session(frames=240, rois=ROIS, pixels=16), folder, schemas=True)
    _enlarge_ophys(folder)


def write_ophys_zarr2(folder: Path) -> None:
    """The same, written by hdmf-zarr 0.13 in Zarr 2, the form that the archive holds."""
    run_pinned(write_legacy.__file__, write_legacy.ENVIRONMENT, str(folder), str(ROIS))
    _enlarge_ophys(folder)


def _enlarge_ophys(folder: Path) -> None:
    facts = layout(OPHYS)
    for path, chunks in _OPHYS_CHUNKS.items():
        shape = [count * width for count, width in zip(facts[path].grid, chunks, strict=True)]
        # The last chunk of the cells' axis is one short.
        axis = 0 if path.endswith("image_mask") else 1
        if shape[axis] in {ROIS, ROIS + 1}:
            shape[axis] = ROIS
        enlarge(folder, path, tuple(shape), chunks)


def write_many_chunks(folder: Path) -> None:
    """The ecephys asset of 93,650 chunks, each of one channel, without the chunks; Zarr 2."""
    stored = layout(ECEPHYS)["acquisition/ElectricalSeries/data"]
    channels = stored.grid[1]
    newer = folder.with_name(f"{folder.name}.zarr3")
    shutil.rmtree(newer, ignore_errors=True)
    nwbfile = recording(channels, "recording of many chunks", starting=(200, channels), chunks=(100, 1))
    write_zarr3(nwbfile, newer)
    write_zarr2(newer, folder)
    shutil.rmtree(newer)
    # Values of two bytes, compressed to half.
    chunks = (stored.chunk_bytes, 1)
    rows = -(-stored.chunks // channels)
    enlarge(folder, "acquisition/ElectricalSeries/data", (rows * chunks[0], channels), chunks)


def recording(
    channels: int, description: str, *, starting: tuple[int, int], chunks: tuple[int, int], **stored: Any
) -> NWBFile:
    """A session of one 30 kHz ElectricalSeries, int16, with its electrodes.

    Parameters
    ----------
    channels
        How many electrodes there are.
    description
        The session's.
    starting
        The shape that is stored.
    chunks
        The shape of its chunks.
    **stored
        How else it is stored, for `ZarrDataIO`.
    """
    random = np.random.default_rng(23)
    nwbfile = NWBFile(
        session_description=description,
        identifier="benchmark-ecephys",
        session_start_time=START,
        institution="Institute of Examples",
        lab="Benchmark Lab",
        subject=Subject(subject_id="mouse-1", species="Mus musculus"),
    )
    nwbfile.add_acquisition(
        ElectricalSeries(
            name="ElectricalSeries",
            data=ZarrDataIO(noise(random, starting), chunks=chunks, **stored),
            electrodes=add_electrodes(nwbfile, channels, "V1", shank="probe"),
            starting_time=0.0,
            rate=30000.0,
            conversion=2.34e-6,
        )
    )
    return nwbfile


def noise(
    random: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """What an amplifier gives, about ten microvolts around zero: it compresses about as recordings do."""
    return np.reshape(random.standard_normal(prod(shape), dtype="f4") * 30.0, shape).astype("i2")


def write_sweeps(folder: Path, pairs: int) -> None:
    """Stimulus and response pairs, as in dandiset 000719's icephys session, of which 1,600 series are 800."""
    nwbfile = _patch_session()
    electrode = nwbfile.icephys_electrodes["electrode_0"]
    values = np.random.default_rng(7).normal(size=400).astype("f4")
    for sweep in range(pairs):
        shared = {
            "electrode": electrode,
            "gain": 0.02,
            "rate": 50000.0,
            "starting_time": float(sweep),
            "sweep_number": np.uint64(sweep),
        }
        response = CurrentClampSeries(
            name=f"data_{sweep:05d}_AD0",
            data=values,
            bias_current=1e-12,
            bridge_balance=7e7,
            capacitance_compensation=4e-12,
            **shared,
        )
        nwbfile.add_acquisition(response)
        nwbfile.add_stimulus(CurrentClampStimulusSeries(name=f"data_{sweep:05d}_DA0", data=values, **shared))
    write_zarr3(nwbfile, folder)


def write_series(folder: Path, series: int) -> None:
    """So many stimuli of that session: a group, its data, gain and starting time each, so four nodes."""
    nwbfile = _patch_session()
    electrode = nwbfile.icephys_electrodes["electrode_0"]
    values = np.random.default_rng(7).normal(size=400).astype("f4")
    for number in range(series):
        nwbfile.add_acquisition(
            CurrentClampStimulusSeries(
                name=f"data_{number:05d}_DA0",
                data=values,
                electrode=electrode,
                gain=0.02,
                rate=50000.0,
                starting_time=float(number),
            )
        )
    write_zarr3(nwbfile, folder)


def _patch_session() -> NWBFile:
    nwbfile = NWBFile(
        session_description="patch clamp",
        identifier="benchmark-icephys",
        session_start_time=START,
        subject=Subject(subject_id="mouse-2", species="Mus musculus"),
    )
    add_pipette(nwbfile, "electrode_0")
    return nwbfile
