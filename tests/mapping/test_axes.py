"""Axes: the schema's names, and what lengths do to them."""

import pytest

from intake_nwbzarr.mapping.schema import series_dimensions
from intake_nwbzarr.mapping.series_layout import Axes, fit_lengths, schema_axes


@pytest.mark.parametrize(
    ("neurodata_type", "shape", "names"),
    [
        ("TimeSeries", (9,), ("time",)),
        ("TimeSeries", (9, 2), ("time", "dim_1")),
        ("TimeSeries", (9, 2, 3, 4, 5), ("time", "dim_1", "dim_2", "dim_3", "dim_4")),
        ("TimeSeries", (), ()),
        ("ElectricalSeries", (9, 4), ("time", "channel")),
        ("ElectricalSeries", (9, 4, 32), ("time", "channel", "sample")),
        ("SpikeEventSeries", (9, 32), ("event", "sample")),
        ("SpikeEventSeries", (9, 4, 32), ("event", "channel", "sample")),
        ("SpikeEventSeries", (9,), ("time",)),
        ("TwoPhotonSeries", (9, 5, 6), ("time", "x", "y")),
        ("OnePhotonSeries", (9, 5, 6, 7), ("time", "x", "y", "z")),
        ("ImageMaskSeries", (9, 5, 6), ("time", "x", "y")),
        ("OpticalSeries", (9, 5, 6, 3), ("time", "x", "y", "color")),
        ("OpticalSeries", (9, 5, 6, 8), ("time", "x", "y", "z")),
        ("DecompositionSeries", (9, 4, 2), ("time", "channel", "band")),
        ("RoiResponseSeries", (9, 4), ("time", "roi")),
        ("CurrentClampSeries", (9,), ("time",)),
        ("CurrentClampSeries", (9, 2), ("time", "dim_1")),
        ("SpatialSeries", (9,), ("time",)),
        ("SpatialSeries", (9, 4), ("time", "dim_1")),
    ],
)
def test_each_type_has_the_names_of_its_schema(
    neurodata_type: str, shape: tuple[int, ...], names: object
) -> None:
    assert schema_axes(series_dimensions(neurodata_type), shape).names == names


@pytest.mark.parametrize(("size", "labels"), [(1, ("x",)), (2, ("x", "y")), (3, ("x", "y", "z"))])
def test_a_spatial_series_has_labelled_axes(size: int, labels: tuple[str, ...]) -> None:
    axes = schema_axes(series_dimensions("SpatialSeries"), (9, size))
    assert (axes.names, axes.labels) == (("time", "axis"), {"axis": labels})


def test_an_extension_names_its_axes_and_never_two_alike() -> None:
    assert schema_axes([(("num_frames", "num_keypoints", "space"),)], (9, 4, 2)).names == (
        "time",
        "keypoint",
        "space",
    )
    assert schema_axes([(("time", "pixel", "pixel"),)], (9, 4, 4)).names == ("time", "pixel", "pixel_2")


def test_what_fits_the_schema_is_left_alone() -> None:
    axes = Axes(("time", "roi"))
    assert fit_lengths(axes, (2000, 219), {"time": 2000, "roi": 219}) is axes
    assert fit_lengths(axes, (219, 219), {"roi": 219}) is axes


def test_a_region_that_fits_only_the_other_axis_names_that_axis() -> None:
    fitted = fit_lengths(Axes(("time", "roi")), (219, 2000), {"time": 2000, "roi": 219})
    assert fitted.names == ("roi", "time")
    assert fitted.schema_order == ("time", "roi")


def test_timestamps_alone_can_tell_the_axes_apart() -> None:
    assert fit_lengths(Axes(("time", "dim_1")), (3, 500), {"time": 500}).names == ("dim_1", "time")


def test_a_length_that_fits_nowhere_changes_nothing() -> None:
    axes = Axes(("time", "x", "y"))
    assert fit_lengths(axes, (1, 5, 6), {"time": 10}) is axes


def test_an_axis_that_already_fits_is_not_taken_from_its_owner() -> None:
    axes = Axes(("time", "channel"))
    assert fit_lengths(axes, (7, 10), {"time": 10, "channel": 10}) is axes
