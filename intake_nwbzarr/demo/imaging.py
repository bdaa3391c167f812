"""A made-up imaging session, laid out as DANDI's dandiset 000719 has its."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import numpy.typing as npt
from hdmf_zarr.utils import ZarrDataIO
from pynwb import NWBFile, TimeSeries
from pynwb.base import Images
from pynwb.behavior import BehavioralTimeSeries
from pynwb.file import Subject
from pynwb.image import GrayscaleImage
from pynwb.ophys import (
    Fluorescence,
    ImageSegmentation,
    OpticalChannel,
    PlaneSegmentation,
    RoiResponseSeries,
    TwoPhotonSeries,
)

FRAME_RATE = 15.46
BEHAVIOR_RATE = 50.0
NEUROPIL_SHARE = 0.7

type Floats = npt.NDArray[np.float64]


def imaging_session(*, frames: int = 3000, rois: int = 24, pixels: int = 32) -> NWBFile:
    """A mouse that licks while it is imaged, with every array that dandiset 000719's sub-R6 session has.

    Parameters
    ----------
    frames, rois
        Size of the fluorescence arrays, (time, roi).
    pixels
        Width and height of the movie, a multiple of four.

    Returns
    -------
    pynwb.NWBFile
        Licking raises the fluorescence of two thirds of the cells, a quarter of a second later, on top of a
        neuropil signal that they all share. Equal arguments give equal sessions.
    """
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
    plane = nwbfile.create_imaging_plane(
        name="ImagingPlane",
        optical_channel=OpticalChannel(name="channel_0", description="green channel", emission_lambda=510.0),
        description="hippocampus, pyramidal layer",
        device=nwbfile.create_device(name="Microscope"),
        excitation_lambda=920.0,
        indicator="GCaMP6f",
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
    """Round cells, (roi, x, y)."""
    centers = random.uniform(2, pixels - 2, (rois, 2))
    axis = np.arange(pixels)
    x = (axis[None, :, None] - centers[:, 0, None, None]) ** 2
    y = (axis[None, None, :] - centers[:, 1, None, None]) ** 2
    masks: Floats = np.exp(-(x + y) / 4.0)
    return np.where(masks > 0.2, masks, 0.0)


def _fluorescence(
    random: np.random.Generator, frames: int, rois: int, bouts: Floats
) -> tuple[Floats, Floats, Floats]:
    """Neuropil, events and fluorescence, each (time, roi)."""
    times = np.arange(frames) / FRAME_RATE
    events = (random.uniform(size=(frames, rois)) < 0.01) * random.gamma(2.0, 60.0, (frames, rois))
    responsive = np.arange(rois) % 3 != 0
    onsets = np.searchsorted(times, bouts + 0.25)
    for onset in onsets[onsets < frames - 4]:
        answers = responsive & (random.uniform(size=rois) < 0.7)
        delays = random.integers(0, 4, rois)
        events[onset + delays[answers], np.flatnonzero(answers)] += random.gamma(4.0, 50.0)
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
        behavior.add_timeseries(_halved(name, values, unit, rate))
    nwbfile.create_processing_module("behavior", "what the mouse does").add(behavior)
    for name in ("bckgndJitter", "morph", "reward", "towerJitter", "wallJitter"):
        nwbfile.add_stimulus(_halved(name, random.uniform(size=size), "n.a.", BEHAVIOR_RATE))


def _halved(name: str, values: npt.NDArray[Any], unit: str, rate: float) -> TimeSeries:
    """A series stored in two chunks, as the asset's are."""
    data = ZarrDataIO(values, chunks=(-(-len(values) // 2),))
    return TimeSeries(name=name, data=data, unit=unit, rate=rate, starting_time=0.0)
