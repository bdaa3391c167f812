"""A session with a series of every type, written by pynwb."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from hdmf.common import DynamicTableRegion
from pynwb import NWBFile, TimeSeries
from pynwb.base import Images
from pynwb.behavior import SpatialSeries
from pynwb.ecephys import ElectricalSeries, SpikeEventSeries
from pynwb.icephys import (
    CurrentClampSeries,
    CurrentClampStimulusSeries,
    IZeroClampSeries,
    VoltageClampSeries,
    VoltageClampStimulusSeries,
)
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries, OpticalSeries
from pynwb.misc import AbstractFeatureSeries, AnnotationSeries, DecompositionSeries, IntervalSeries
from pynwb.ogen import OptogeneticSeries
from pynwb.ophys import (
    ImageSegmentation,
    OnePhotonSeries,
    RoiResponseSeries,
    TwoPhotonSeries,
)

from intake_nwbzarr.demo.sessions import add_electrodes, add_imaging_plane, add_pipette
from tests.session_files import consolidate, empty_session, write

REGULAR: dict[str, Any] = {"rate": 10.0, "starting_time": 0.5}
TIMES = np.array([0.0, 0.1, 0.25, 0.7, 1.5])
_random = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return _random.integers(-100, 100, shape).astype("int16")


def every_series(folder: Path) -> Path:
    """Write the session; every series lies in `acquisition`."""
    nwbfile = empty_session()
    add_every_series(nwbfile)
    path = write(folder, nwbfile, "every_series.nwb.zarr")
    lengthen_timestamps(path)
    return path


def add_every_series(nwbfile: NWBFile) -> None:
    """Put a series of every type into `acquisition`, with the devices, tables and images they need."""
    # pynwb warns of some of the oddities that real files have and these tests are about.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for series in (
            *_plain(),
            *_ecephys(nwbfile),
            *_ophys(nwbfile),
            *_images(nwbfile),
            *_icephys(nwbfile),
        ):
            nwbfile.add_acquisition(series)


def lengthen_timestamps(path: Path) -> None:
    """Give one frame ten timestamps: today's pynwb refuses to write that, and reads it from older files."""
    frame = zarr.open_group(path, mode="r+", use_consolidated=False)["acquisition/frame"]
    assert isinstance(frame, zarr.Group)
    attributes = dict(frame["timestamps"].attrs)
    frame.create_array("timestamps", data=np.arange(10.0), attributes=attributes, overwrite=True)
    consolidate(path)


def _plain() -> list[TimeSeries]:
    owner = TimeSeries(name="owner", data=numbers(5), unit="V", timestamps=TIMES, conversion=0.5, offset=3.0)
    return [
        owner,
        TimeSeries(name="linked", data=numbers(5, 2), unit="m", timestamps=owner),
        TimeSeries(name="regular", data=numbers(5), unit="m", **REGULAR),
        TimeSeries(name="regular too", data=numbers(5), unit="m", **REGULAR),
        TimeSeries(name="text", data=["a", "b"], unit="n/a", rate=3.0),
        TimeSeries(name="empty", data=np.zeros((0, 3)), unit="V", rate=7.0),
        TimeSeries(
            name="controlled",
            data=numbers(5),
            unit="V",
            rate=2.0,
            control=np.array([0, 1, 1, 0, 1], "uint8"),
            control_description=["off", "on"],
        ),
        SpatialSeries(name="position", data=numbers(5, 3), timestamps=TIMES, reference_frame="corner"),
        AnnotationSeries(name="notes", data=["one", "two"], timestamps=[1.0, 2.0]),
        IntervalSeries(name="on_off", data=np.array([1, -1], "int8"), timestamps=[1.0, 2.0]),
        AbstractFeatureSeries(
            name="features",
            feature_units=["degrees", "Hz"],
            features=["orientation", "frequency"],
            data=numbers(5, 2),
            rate=1.0,
        ),
    ]


def _ecephys(nwbfile: NWBFile) -> list[TimeSeries]:
    add_electrodes(nwbfile, 4, x=np.arange(4.0), y=0.0, z=0.0)

    def region(*rows: int, name: str = "electrodes") -> DynamicTableRegion:
        return nwbfile.create_electrode_table_region(list(rows), "some", name)

    decomposition = DecompositionSeries(
        name="decomposition",
        data=numbers(5, 4, 2),
        metric="power",
        rate=4.0,
        source_channels=region(0, 1, 2, 3, name="source_channels"),
    )
    decomposition.add_band(band_name="theta", band_limits=(4.0, 8.0), band_mean=6.0, band_stdev=1.0)
    decomposition.add_band(band_name="gamma", band_limits=(30.0, 90.0), band_mean=60.0, band_stdev=9.0)
    return [
        ElectricalSeries(
            name="electrical",
            data=numbers(6, 4),
            electrodes=region(0, 1, 2, 3),
            channel_conversion=[1.0, 2.0, 3.0, 4.0],
            conversion=1e-6,
            offset=0.25,
            rate=100.0,
        ),
        ElectricalSeries(name="waveforms", data=numbers(6, 2, 3), electrodes=region(3, 1), rate=100.0),
        ElectricalSeries(name="single", data=numbers(6), electrodes=region(3, 1), rate=100.0),
        SpikeEventSeries(name="spikes", data=numbers(5, 2, 8), electrodes=region(3, 1), timestamps=TIMES),
        decomposition,
    ]


def _ophys(nwbfile: NWBFile) -> list[TimeSeries]:
    plane = add_imaging_plane(nwbfile, microscope="scope")
    segmentation = ImageSegmentation().create_plane_segmentation(
        name="cells", description="d", imaging_plane=plane
    )
    for _ in range(3):
        segmentation.add_roi(image_mask=np.ones((4, 5)))
    module = nwbfile.create_processing_module(name="ophys", description="d")
    module.add(segmentation.parent)
    rois = segmentation.create_roi_table_region(region=[0, 1, 2], description="all")
    return [
        RoiResponseSeries(name="fluorescence", data=numbers(7, 3), rois=rois, unit="n.a.", rate=20.0),
        RoiResponseSeries(name="rois_first", data=numbers(3, 7), rois=rois, unit="n.a.", rate=20.0),
        TwoPhotonSeries(
            name="two_photon", imaging_plane=plane, data=numbers(5, 4, 6), unit="n.a.", rate=20.0
        ),
        OnePhotonSeries(
            name="one_photon", imaging_plane=plane, data=numbers(5, 4, 6, 2), unit="n.a.", rate=20.0
        ),
        OptogeneticSeries(
            name="laser",
            data=numbers(5),
            rate=30.0,
            site=nwbfile.create_ogen_site(
                name="site", device=plane.device, description="d", excitation_lambda=600.0, location="V1"
            ),
        ),
    ]


def _images(nwbfile: NWBFile) -> list[TimeSeries]:
    templates = Images(name="templates", images=[GrayscaleImage(name="dot", data=np.ones((2, 2)))])
    nwbfile.add_stimulus_template(templates)
    return [
        ImageSeries(name="movie", data=numbers(5, 4, 6), unit="n.a.", rate=20.0),
        ImageSeries(
            name="external",
            external_file=["a.avi", "b.avi"],
            starting_frame=[0, 2],
            format="external",
            unit="n.a.",
            timestamps=TIMES,
        ),
        ImageSeries(name="frame", data=numbers(1, 4, 6), unit="n.a.", timestamps=[0.0]),
        OpticalSeries(
            name="colours",
            distance=0.7,
            field_of_view=[0.1, 0.2],
            orientation="up",
            data=numbers(5, 4, 6, 3),
            unit="n.a.",
            rate=20.0,
        ),
        IndexSeries(
            name="shown",
            data=np.array([0, 0], "uint32"),
            unit="N/A",
            indexed_images=templates,
            timestamps=[1.0, 2.0],
            conversion=5.0,
        ),
    ]


def _icephys(nwbfile: NWBFile) -> list[TimeSeries]:
    shared: dict[str, Any] = {
        "electrode": add_pipette(nwbfile, "elec0"),
        "gain": 2.0,
        "rate": 1000.0,
        "data": numbers(8),
        "sweep_number": 3,
    }
    return [
        CurrentClampSeries(name="current_clamp", conversion=1e-3, bias_current=1e-12, **shared),
        IZeroClampSeries(name="zero_clamp", **shared),
        CurrentClampStimulusSeries(name="current_stimulus", **shared),
        VoltageClampSeries(name="voltage_clamp", capacitance_fast=1e-12, **shared),
        VoltageClampStimulusSeries(name="voltage_stimulus", **shared),
    ]
