"""Synthetic sessions: the parts that they are built from, and the two of the demonstration."""

from __future__ import annotations

import datetime as dt
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hdmf.common import DynamicTableRegion
from hdmf_zarr.nwb import NWBZarrIO
from hdmf_zarr.utils import ZarrDataIO
from pynwb import NWBFile, TimeSeries
from pynwb.base import Images
from pynwb.behavior import BehavioralTimeSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.file import Subject
from pynwb.icephys import IntracellularElectrode
from pynwb.image import GrayscaleImage
from pynwb.ophys import (
    Fluorescence,
    ImageSegmentation,
    ImagingPlane,
    OpticalChannel,
    PlaneSegmentation,
    RoiResponseSeries,
    TwoPhotonSeries,
)

FRAME_RATE = 15.46
BEHAVIOR_RATE = 50.0
NEUROPIL_SHARE = 0.7

type Floats = npt.NDArray[np.float64]


def add_electrodes(
    nwbfile: NWBFile,
    count: int,
    location: str = "CA1",
    *,
    probe: str = "probe",
    shank: str = "shank",
    **columns: Any,
) -> DynamicTableRegion:
    """Add a probe and electrodes, with columns of one value or a value each; return a region of all."""
    group = nwbfile.create_electrode_group(
        shank, description="one shank", location=location, device=nwbfile.create_device(name=probe)
    )
    for row in range(count):
        values = {name: values[row] if np.ndim(values) else values for name, values in columns.items()}
        nwbfile.add_electrode(location=location, group=group, **values)
    return nwbfile.create_electrode_table_region(list(range(count)), "every channel")


def add_imaging_plane(
    nwbfile: NWBFile, name: str = "plane", microscope: str = "microscope", **fields: Any
) -> ImagingPlane:
    """Add a microscope and a plane that it images; the fields are added to, or replace, those set here."""
    described = {
        "description": "layer 2/3",
        "excitation_lambda": 920.0,
        "indicator": "GCaMP6f",
        "location": "V1",
    }
    return nwbfile.create_imaging_plane(
        name=name,
        optical_channel=OpticalChannel(name="channel_0", description="green channel", emission_lambda=510.0),
        device=nwbfile.create_device(name=microscope),
        **(described | fields),
    )


def add_pipette(
    nwbfile: NWBFile, name: str = "electrode", amplifier: str = "amplifier"
) -> IntracellularElectrode:
    """Add a patch pipette, and the amplifier that it shares with others."""
    if amplifier not in nwbfile.devices:
        nwbfile.create_device(name=amplifier)
    return nwbfile.create_icephys_electrode(
        name=name, description="patch pipette", device=nwbfile.devices[amplifier]
    )


def imaging_session(*, frames: int = 3000, rois: int = 24, pixels: int = 32) -> NWBFile:
    """Return a two-photon session of a licking mouse, the same for the same arguments."""
    # It has the arrays of sub-R6 in dandiset 000719. Fluorescence (time, roi) of two thirds of the cells
    # rises 0.25 s after licks, on top of a shared neuropil signal. `pixels` is a multiple of four.
    random = np.random.default_rng(719)
    duration = frames / FRAME_RATE
    bouts = np.arange(3.0, duration - 2.0, 6.0)
    bouts += random.uniform(-1.0, 1.0, bouts.size)
    nwbfile = NWBFile(
        session_description="Mouse licks for water in a virtual corridor",
        identifier="demo-imaging",
        session_start_time=dt.datetime(2019, 10, 2, 15, 30, tzinfo=dt.UTC),
        experimenter=["Doe, Jane"],
        experiment_description="Made-up data: no animal was imaged",
        institution="Institute of Examples",
        lab="Demonstration Lab",
        surgery="none",
        virus="none",
        subject=Subject(
            subject_id="R6",
            species="Mus musculus",
            sex="M",
            genotype="wild type",
            weight="0.025 kg",
            date_of_birth=dt.datetime(2019, 6, 1, tzinfo=dt.UTC),
        ),
    )
    plane = add_imaging_plane(
        nwbfile,
        "ImagingPlane",
        "Microscope",
        description="hippocampus, pyramidal layer",
        location="CA1",
        imaging_rate=FRAME_RATE,
    )
    masks = _masks(random, rois, pixels)
    neuropil, deconvolved, fluorescence = _fluorescence(random, frames, rois, bouts)
    movie = 200.0 + np.tensordot(fluorescence, masks, axes=1)
    movie += random.normal(0.0, 20.0, movie.shape)
    nwbfile.add_acquisition(
        TwoPhotonSeries(
            name="TwoPhotonSeries",
            data=ZarrDataIO(movie.clip(0).astype("u2"), chunks=(-(-frames // 6), pixels, pixels)),
            dimension=[pixels, pixels],
            imaging_plane=plane,
            rate=FRAME_RATE,
            starting_time=0.0,
            unit="a.u.",
        )
    )
    ophys = nwbfile.create_processing_module("ophys", "regions of interest and their fluorescence")
    cells = PlaneSegmentation(name="PlaneSegmentation", description="cells", imaging_plane=plane)
    _add_rois(cells, masks, random)
    ophys.add(ImageSegmentation(plane_segmentations=[cells]))
    region = cells.create_roi_table_region("every cell", region=list(range(rois)))
    container = Fluorescence(name="Fluorescence")
    ophys.add(container)
    for name, values in (
        ("RoiResponseSeries", fluorescence),
        ("Neuropil", neuropil),
        ("Deconvolved", deconvolved),
    ):
        container.add_roi_response_series(
            RoiResponseSeries(
                name=name,
                data=ZarrDataIO(values.astype("f4"), chunks=(-(-frames // 4), -(-rois // 2))),
                rois=region,
                rate=FRAME_RATE,
                starting_time=0.0,
                unit="a.u.",
            )
        )
    ophys.add(_images(movie.mean(axis=0), masks.max(axis=0)))
    _add_behavior(nwbfile, random, duration, bouts)
    return nwbfile


def _masks(random: np.random.Generator, rois: int, pixels: int) -> Floats:
    """Return masks of round cells, (roi, x, y)."""
    centers = random.uniform(2, pixels - 2, (rois, 2))
    axis = np.arange(pixels)
    x = (axis[None, :, None] - centers[:, 0, None, None]) ** 2
    y = (axis[None, None, :] - centers[:, 1, None, None]) ** 2
    masks: Floats = np.exp(-(x + y) / 4.0)
    return np.where(masks > 0.2, masks, 0.0)


def _fluorescence(
    random: np.random.Generator, frames: int, rois: int, bouts: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return neuropil, calcium events and fluorescence, each (time, roi)."""
    times = np.arange(frames) / FRAME_RATE
    events = (random.uniform(size=(frames, rois)) < 0.01) * random.gamma(2.0, 60.0, (frames, rois))
    responsive = np.arange(rois) % 3 != 0
    onsets = np.searchsorted(times, bouts + 0.25)
    for onset in onsets[onsets < frames - 4]:
        responds = responsive & (random.uniform(size=rois) < 0.7)
        delays = random.integers(0, 4, rois)
        events[onset + delays[responds], np.flatnonzero(responds)] += random.gamma(4.0, 50.0)
    decay = np.exp(-np.arange(40) / (0.6 * FRAME_RATE))
    calcium = np.apply_along_axis(lambda row: np.convolve(row, decay)[:frames], 0, events)
    swell = 60.0 * np.sin(2 * np.pi * times / 23.0) + 40.0 * np.sin(2 * np.pi * times / 7.3)
    neuropil = 400.0 + swell[:, None] * random.uniform(0.7, 1.3, rois) + random.normal(0, 8.0, (frames, rois))
    noise = random.normal(0.0, 15.0, (frames, rois))
    return neuropil, events, 300.0 + calcium + NEUROPIL_SHARE * neuropil + noise


def _add_rois(table: PlaneSegmentation, masks: Floats, random: np.random.Generator) -> None:
    rois, pixels = masks.shape[0], masks.shape[1]
    accepted = np.less(random.uniform(size=rois), 0.9)
    centroids = np.stack([np.unravel_index(mask.argmax(), mask.shape) for mask in masks]).astype("f8")
    for _ in range(rois):
        table.add_row(id=len(table.id), enforce_unique_id=True)
    for name, description, values, chunks in (
        ("image_mask", "weight of each pixel", masks, (-(-rois // 4), -(-pixels // 2), -(-pixels // 2))),
        ("RoiCentroid", "position of the peak in pixels", centroids, (rois, 2)),
        ("Accepted", "whether it is a cell", accepted.astype("i8"), (rois,)),
        ("Rejected", "whether it is not", (~accepted).astype("i8"), (rois,)),
    ):
        table.add_column(name=name, description=description, data=ZarrDataIO(values, chunks=chunks))


def _images(mean: Floats, correlation: Floats) -> Images:
    width, height = mean.shape
    return Images(
        name="SegmentationImages",
        description="what the cells were found on",
        images=[
            GrayscaleImage(name=name, data=ZarrDataIO(image, chunks=chunks))
            for name, image, chunks in (
                ("mean", mean, (width // 4, height // 2)),
                ("correlation", correlation, (width // 2, height // 2)),
            )
        ],
    )


def _add_behavior(nwbfile: NWBFile, random: np.random.Generator, duration: float, bouts: Floats) -> None:
    size = int(duration * BEHAVIOR_RATE)
    times = np.arange(size) / BEHAVIOR_RATE
    lick = np.zeros(size)
    for bout in bouts:
        licks = bout + np.arange(random.integers(4, 9)) / 7.0
        lick[np.searchsorted(times, licks[licks < times[-1]])] = 1.0
    speed = 25.0 + 8.0 * np.sin(2 * np.pi * times / 11.0) + random.normal(0, 1.0, size)
    position = np.cumsum(speed) / BEHAVIOR_RATE % 450.0
    lap = (np.diff(position, prepend=position[0]) < 0).astype("f8")
    behavior = BehavioralTimeSeries(name="BehavioralTimeSeries")
    for name, values, unit, rate in (
        ("dz", speed / BEHAVIOR_RATE, "cm", BEHAVIOR_RATE),
        ("lick", lick, "licks", BEHAVIOR_RATE),
        ("lick rate", lick[: size // 5 * 5].reshape(-1, 5).sum(axis=1) * 10.0, "Hz", BEHAVIOR_RATE / 5),
        ("pos", position, "cm", BEHAVIOR_RATE),
        ("rzone", (position > 300.0).astype("f8"), "n.a.", BEHAVIOR_RATE),
        ("speed", speed, "cm/s", BEHAVIOR_RATE),
        ("teleport", lap, "n.a.", BEHAVIOR_RATE),
        ("tstart", np.roll(lap, 1), "n.a.", BEHAVIOR_RATE),
    ):
        behavior.add_timeseries(_series_in_two_chunks(name, values, unit, rate))
    nwbfile.create_processing_module("behavior", "what the mouse does").add(behavior)
    for name in ("bckgndJitter", "morph", "reward", "towerJitter", "wallJitter"):
        nwbfile.add_stimulus(_series_in_two_chunks(name, random.uniform(size=size), "n.a.", BEHAVIOR_RATE))


def _series_in_two_chunks(name: str, values: npt.NDArray[Any], unit: str, rate: float) -> TimeSeries:
    """Return a time series stored in two chunks, as in the DANDI asset."""
    data = ZarrDataIO(values, chunks=(-(-len(values) // 2),))
    return TimeSeries(name=name, data=data, unit=unit, rate=rate, starting_time=0.0)


SAMPLING_RATE = 30000.0
CHANNELS, UNITS, TRIALS = 16, 14, 60


def spiking_session() -> NWBFile:
    """Return an ecephys session whose units respond to trial starts, more at higher contrast."""
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
    depths = 20.0 * np.arange(CHANNELS)
    electrodes = add_electrodes(
        nwbfile, CHANNELS, "VISp", probe="Probe", shank="shank0", x=0.0, y=depths, z=0.0, filtering="none"
    )
    nwbfile.add_acquisition(
        ElectricalSeries(
            name="ElectricalSeries",
            data=ZarrDataIO(random.integers(-400, 400, (15000, CHANNELS), dtype="i2"), chunks=(5000, 8)),
            electrodes=electrodes,
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
            electrode_group=nwbfile.electrode_groups["shank0"],
            quality="good" if unit % 5 else "mua",
        )
    return nwbfile


def _spikes(
    random: np.random.Generator, starts: Floats, contrasts: Floats, *, baseline: float, gain: float
) -> Floats:
    """Return Poisson spike times in 1 ms bins, with a rate that rises 50 ms after each trial start."""
    times = np.arange(0.0, starts[-1] + 3.0, 0.001)
    rate = np.full(times.size, baseline)
    since = np.arange(0.0, 1.0, 0.001)
    response = gain * np.exp(-since / 0.15) * (1.0 - np.exp(-since / 0.02))
    for start, contrast in zip(np.searchsorted(times, starts + 0.05), contrasts, strict=True):
        rate[start : start + since.size] += contrast * response
    return times[random.uniform(size=times.size) < rate.clip(0) * 0.001]


def write_zarr3(nwbfile: NWBFile, folder: Path, *, schemas: bool = False) -> None:
    """Write a session with the installed hdmf-zarr: Zarr 3, consolidated, with or without its schemas."""
    with warnings.catch_warnings():
        # Warnings of pynwb and zarr about what they write are of no use to users of the demo.
        warnings.simplefilter("ignore")
        with NWBZarrIO(str(folder), mode="w") as io:
            io.write(nwbfile, cache_spec=schemas)
