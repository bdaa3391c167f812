"""Of every type: optical physiology."""

import numpy as np
from pynwb import NWBFile, ProcessingModule, TimeSeries
from pynwb.image import ImageSeries
from pynwb.ophys import (
    CorrectedImageStack,
    DfOverF,
    Fluorescence,
    ImageSegmentation,
    ImagingPlane,
    MotionCorrection,
    OpticalChannel,
    PlaneSegmentation,
    RoiResponseSeries,
    TwoPhotonSeries,
)

from tests.mapping.construct_mode import constructed

_random = np.random.default_rng(2)


def add_ophys(nwbfile: NWBFile) -> None:
    """Add planes with all that describes them, masks of every kind, corrected stacks and responses."""
    plane = _plane(nwbfile)
    nwbfile.add_imaging_plane(_old_plane(nwbfile))
    module = nwbfile.processing["ophys"]
    movie = TwoPhotonSeries(
        name="described movie",
        imaging_plane=plane,
        data=_random.integers(0, 99, (4, 5, 6)).astype("uint16"),
        unit="n.a.",
        format="raw",
        field_of_view=[2e-4, 3e-4],
        pmt_gain=1.5,
        scan_line_rate=8000.0,
        dimension=[5, 6],
        resolution=0.5,
        timestamps=[0.0, 0.1, 0.3, 0.4],
        device=nwbfile.devices["scope"],
    )
    nwbfile.add_acquisition(movie)
    _corrected(module, movie)
    segmentations = _segmentations(plane, movie)
    module.add(segmentations)
    _responses(module, segmentations["pixels"])


def _plane(nwbfile: NWBFile) -> ImagingPlane:
    return nwbfile.create_imaging_plane(
        name="described plane",
        optical_channel=[
            OpticalChannel(name="green", description="GCaMP", emission_lambda=510.0),
            OpticalChannel(name="red", description="tdTomato", emission_lambda=581.0),
        ],
        description="layer 2/3",
        device=nwbfile.devices["scope"],
        excitation_lambda=920.0,
        indicator="GCaMP6f",
        location="V1",
        imaging_rate=30.0,
        reference_frame="bregma",
        origin_coords=[1.0, 2.0, 3.0],
        origin_coords_unit="millimeters",
        grid_spacing=[0.5, 0.25, 1.0],
        grid_spacing_unit="micrometers",
    )


def _old_plane(nwbfile: NWBFile) -> ImagingPlane:
    """A plane as files before NWB 2.1 describe it: the place of each pixel."""
    return constructed(
        ImagingPlane,
        name="old plane",
        optical_channel=OpticalChannel(name="blue", description="d", emission_lambda=450.0),
        description="with a manifold",
        device=nwbfile.devices["scope"],
        excitation_lambda=800.0,
        indicator="OGB",
        location="A1",
        manifold=_random.random((3, 4, 3)).astype("float32"),
        conversion=1e-6,
        unit="meters",
    )


def _corrected(module: ProcessingModule, original: TwoPhotonSeries) -> None:
    corrected = ImageSeries(
        name="corrected",
        data=_random.integers(0, 99, (4, 5, 6)).astype("uint16"),
        unit="n.a.",
        timestamps=original,
    )
    shift = TimeSeries(
        name="xy_translation", data=_random.random((4, 2)), unit="pixels", timestamps=[0.0, 0.1, 0.3, 0.4]
    )
    stack = CorrectedImageStack(corrected=corrected, original=original, xy_translation=shift, name="stack")
    module.add(MotionCorrection(corrected_image_stacks=[stack]))


def _segmentations(plane: ImagingPlane, movie: TwoPhotonSeries) -> ImageSegmentation:
    pixels = PlaneSegmentation(
        name="pixels", description="pixel masks", imaging_plane=plane, reference_images=movie
    )
    pixels.add_column(name="accepted", description="whether it is a cell")
    for mask in ([(0, 1, 1.0), (1, 2, 0.5)], [(3, 3, 1.0)], [(1, 1, 0.25), (2, 2, 0.5), (3, 4, 1.0)]):
        pixels.add_roi(pixel_mask=mask, accepted=len(mask) > 1)
    voxels = PlaneSegmentation(name="voxels", description="voxel masks", imaging_plane=plane)
    for voxel_mask in ([(0, 1, 2, 1.0)], [(1, 2, 3, 0.5), (3, 3, 3, 1.0)]):
        voxels.add_roi(voxel_mask=voxel_mask)
    volumes = PlaneSegmentation(name="volumes", description="three-dimensional", imaging_plane=plane)
    for _ in range(2):
        volumes.add_roi(image_mask=_random.random((3, 4, 2)))
    return ImageSegmentation(name="segmentations", plane_segmentations=[pixels, voxels, volumes])


def _responses(module: ProcessingModule, cells: PlaneSegmentation) -> None:
    def series(name: str, rows: list[int]) -> RoiResponseSeries:
        return RoiResponseSeries(
            name=name,
            data=_random.random((6, len(rows))).astype("float32"),
            rois=cells.create_roi_table_region(region=rows, description="cells"),
            unit="lumens",
            rate=30.0,
        )

    module.add(Fluorescence(roi_response_series=[series("raw", [0, 1, 2]), series("neuropil", [0, 1, 2])]))
    module.add(DfOverF(roi_response_series=series("raw", [2, 0])))
