"""`ds.nwb.plot`: what is drawn is where it should be, and only that is read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.collections import EventCollection
from pynwb import NWBFile, TimeSeries
from pynwb.ophys import OnePhotonSeries

import intake_nwbzarr
from intake_nwbzarr.demo.sessions import add_imaging_plane
from intake_nwbzarr.errors import MappingWarning, NodeNotFoundError, OptionError, SelectionError
from tests.session_files import empty_session, opened, write


@pytest.fixture(autouse=True)
def without_a_screen() -> Iterator[None]:
    with mpl.rc_context({"backend": "Agg"}):
        yield
    plt.close("all")


def spikes_on(ax: Any) -> dict[float, list[float]]:
    """Positions of spikes by the line they are on."""
    lines = [each for each in ax.collections if isinstance(each, EventCollection)]
    return {each.get_lineoffset(): each.get_positions() for each in lines}


def test_a_raster_has_each_units_spikes_on_a_line(ecephys: xr.Dataset) -> None:
    ax = ecephys.nwb.plot.raster()
    units = ecephys.nwb.nwbfile.units
    assert spikes_on(ax) == {row: units.get_unit_spike_times(row).tolist() for row in range(6)}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2", "3", "4", "5"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time [s]", "unit")
    low, high = ax.get_ylim()
    assert low > high  # the first at the top


def test_units_and_times_can_be_chosen(ecephys: xr.Dataset) -> None:
    _, ax = plt.subplots()
    with intake_nwbzarr.track_requests() as log:
        assert ecephys.nwb.plot.raster([4, 2], start=2.0, stop=7.0, ax=ax) is ax
    assert log.requests == 1  # the spikes: where each unit's are was read at open
    units = ecephys.nwb.nwbfile.units
    assert spikes_on(ax) == {
        line: [time for time in units.get_unit_spike_times(row) if 2 <= time <= 7]
        for line, row in enumerate((4, 2))
    }
    assert [label.get_text() for label in ax.get_yticklabels()] == ["4", "2"]
    assert ax.get_xlim() == (2, 7)
    with pytest.raises(SelectionError, match=r"no unit 99 .*0, 1, 2, 3, 4, 5"):
        ecephys.nwb.plot.raster(99)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_raster_around_events_has_lags_in_a_half_open_window(tmp_path: Path, by_name: bool) -> None:
    nwbfile = empty_session()
    nwbfile.add_unit(spike_times=[0.5, 1.0, 1.25, 3.0, 9.0], id=5)
    nwbfile.add_unit(spike_times=[2.0], id=6)
    for start in (1.0, np.nan, 2.0):
        nwbfile.add_trial(start_time=start, stop_time=20.0)
    dataset = opened(write(tmp_path, nwbfile))
    with pytest.warns(MappingWarning, match="1 of 3 events have no time"):
        ax = dataset.nwb.plot.raster(
            5, events="trials_start_time" if by_name else dataset.trials_start_time, window=(-0.5, 1.0)
        )
    assert spikes_on(ax) == {0: [-0.5, 0.0, 0.25], 1: []}
    assert ax.get_title() == "unit 5"
    # Events keep the ids of their table.
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "2"]
    assert ax.get_ylabel() == "trials"
    assert ax.get_xlim() == (-0.5, 1.0)
    assert ax.get_xlabel() == "time from event [s]"


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"events": [1.0]}, OptionError, "window="),
        ({"window": (0, 1)}, OptionError, "events="),
        ({"events": [1.0], "window": (1, 1)}, OptionError, "window must be two numbers"),
        (
            {"units": 1, "events": [1.0], "window": "ab"},
            OptionError,
            "window must be .*, not 'ab'",
        ),
        ({"units": 1, "events": [1.0], "window": (1, 2, 3)}, OptionError, "window must be two numbers"),
        ({"units": 1, "events": [1.0], "window": (None, 1)}, OptionError, "window must be two numbers"),
        ({"units": 1, "events": [1.0], "window": (-np.inf, 1)}, OptionError, "window must be two numbers"),
        (
            {"start": np.nan},
            OptionError,
            "start must be .*seconds or a datetime, not nan",
        ),
        ({"start": "a"}, OptionError, "start must be .*seconds or a datetime, not 'a'"),
        ({"start": 3, "stop": 2}, OptionError, "start=3 is after stop=2"),
        ({"units": [[1], [2, 3]]}, OptionError, "units must be the id of a unit, or a list of ids, not"),
        ({"units": True}, OptionError, "units must be .*, not True"),
        ({"events": [1.0], "window": (0, 1)}, OptionError, "one unit, not of 6"),
        ({"units": 1, "events": "nothing", "window": (0, 1)}, NodeNotFoundError, "'nothing'"),
        ({"units": 1, "events": "start_time", "window": (0, 1)}, OptionError, "one of .*trials_start_time"),
        (
            {"units": 1, "events": "trials_start_time", "on": "x", "window": (0, 1)},
            OptionError,
            "both name a column of times",
        ),
    ],
)
def test_a_raster_that_makes_no_sense_says_why(
    ecephys: xr.Dataset, arguments: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        ecephys.nwb.plot.raster(**arguments)


def test_rows_are_labelled_as_far_as_there_is_room(ecephys: xr.Dataset) -> None:
    _, ax = plt.subplots(figsize=(4, 1))
    ecephys.nwb.plot.raster(ax=ax, color="C1")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "2", "4"]
    assert mpl.colors.same_color(ax.collections[0].get_color(), "C1")


def test_a_session_without_units_says_so(ophys: xr.Dataset) -> None:
    with pytest.raises(NodeNotFoundError, match="units with spike times"):
        ophys.nwb.plot.raster()


def test_traces_are_stacked_around_their_medians(ecephys: xr.Dataset) -> None:
    ax = ecephys.nwb.plot.traces("ElectricalSeriesLFP", start=0.02, stop=0.05, spacing=0.01)
    expected = ecephys.ElectricalSeriesLFP.sel(ElectricalSeriesLFP_time=slice(0.02, 0.05))
    *lines, bar = ax.get_lines()
    assert len(lines) == 4
    for channel, line in enumerate(lines):
        values = expected[:, channel].values
        np.testing.assert_array_equal(line.get_xdata(), expected.ElectricalSeriesLFP_time)
        np.testing.assert_allclose(line.get_ydata(), values - np.median(values) - 0.01 * channel)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "3", "5", "7"]
    np.testing.assert_allclose(np.diff(bar.get_ydata()), 0.01)
    assert [text.get_text() for text in ax.texts] == ["10 mV"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time [s]", "channel")
    assert ax.get_title() == "ElectricalSeriesLFP"


def test_a_single_channel_keeps_its_values_and_units(ecephys: xr.Dataset) -> None:
    ax = ecephys.nwb.plot.traces("ElectricalSeriesLFP", channels=[5])
    (line,) = ax.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), ecephys.ElectricalSeriesLFP[:, 2])
    assert ax.get_ylabel() == "ElectricalSeriesLFP 5 [volts]"
    with pytest.raises(SelectionError, match=r"no channel 2 .*1, 3, 5, 7"):
        ecephys.nwb.plot.traces("ElectricalSeriesLFP", channels=[2])


def test_only_the_times_and_channels_drawn_are_read(ecephys: xr.Dataset) -> None:
    # Chunks of 1000 samples and 4 channels at 30 kHz, from 1.5 s.
    with intake_nwbzarr.track_requests() as log:
        ax = ecephys.nwb.plot.traces("ElectricalSeriesAP", start=1.51, stop=1.52, channels=[0, 3])
    read = ax.get_lines()[0]
    assert len(read.get_xdata()) == 301
    assert log.requests <= 2  # the chunk, and the channels' conversion


def test_more_samples_than_pixels_are_drawn_as_extremes(tmp_path: Path) -> None:
    nwbfile = empty_session()
    values = np.random.default_rng(1).normal(size=50_000)
    values[[123, 40_000]] = [50.0, -60.0]
    values[10_000:20_000] = np.nan
    nwbfile.add_acquisition(TimeSeries(name="long", data=values, unit="V", rate=1000.0, starting_time=5.0))
    (line,) = opened(write(tmp_path, nwbfile)).nwb.plot.traces().get_lines()
    times, drawn = line.get_xdata(), line.get_ydata()
    assert len(drawn) < 5_000
    # Every point is a sample at its own time, in order, and none of the extremes is missing.
    np.testing.assert_array_equal(drawn, values[np.round((times - 5.0) * 1000).astype(int)])
    assert np.all(np.diff(times) > 0)
    assert (np.nanmax(drawn), np.nanmin(drawn)) == (50, -60)
    assert np.isnan(drawn[(times > 15.2) & (times < 24.8)]).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_extremes_are_those_of_each_bin(data: st.DataObject) -> None:
    from intake_nwbzarr.accessor.plot.traces import extremes

    values = np.array(data.draw(st.lists(st.floats(-9, 9) | st.just(np.nan), min_size=1, max_size=30)))
    cuts = data.draw(st.sets(st.integers(1, len(values) - 1)) if len(values) > 1 else st.just(set()))
    begins = np.array([0, *sorted(cuts)])
    times, drawn = extremes(np.arange(len(values)), values, begins)
    for begin, end in zip(begins, [*begins[1:], len(values)], strict=True):
        part, inside = values[begin:end], drawn[(times >= begin) & (times < end)]
        if np.isnan(part).all():
            assert np.isnan(inside).all()
        else:
            assert (np.min(inside), np.max(inside)) == (np.nanmin(part), np.nanmax(part))


def test_no_sample_of_a_stack_is_cut_off(tmp_path: Path) -> None:
    nwbfile = empty_session()
    data = np.random.default_rng(0).normal(size=(500, 3))
    data[100, 0], data[200, 2], data[300, 1] = 60, -80, np.inf
    nwbfile.add_acquisition(TimeSeries(name="F", data=data, unit="a.u.", rate=20.0))
    ax = opened(write(tmp_path, nwbfile)).nwb.plot.traces()
    low, high = sorted(ax.get_ylim())
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.get_lines()[:3]])
    assert low < drawn[np.isfinite(drawn)].min() < -80
    assert high > drawn[np.isfinite(drawn)].max() >= 59


def test_many_channels_are_thinned_out_and_said_to_be(tmp_path: Path) -> None:
    nwbfile = empty_session()
    data = np.arange(1000.0).reshape(10, 100)
    nwbfile.add_acquisition(TimeSeries(name="many", data=data, unit="V", rate=1.0))
    dataset = opened(write(tmp_path, nwbfile))
    ax = dataset.nwb.plot.traces("many")
    assert len(ax.get_lines()) == 32 + 1
    assert ax.get_ylabel().endswith("(32 of 100)")
    assert len(ax.get_yticks()) <= 16


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({}, OptionError, "Pass name=, one of"),
        ({"name": "nothing"}, NodeNotFoundError, "'nothing'"),
        ({"name": "sync", "start": 100.0}, SelectionError, "no samples between start=100.0"),
        ({"name": "sync", "channels": [1]}, SelectionError, "no dimension of channels"),
        ({"name": "sync", "spacing": 0}, OptionError, "spacing must be .*, not 0"),
        ({"name": "sync", "spacing": "a"}, OptionError, "spacing must be .*, not 'a'"),
        (
            {"name": "sync", "start": "a"},
            OptionError,
            "start must be .*seconds or a datetime, not 'a'",
        ),
        ({"name": "ElectricalSeriesAP", "channels": "a"}, SelectionError, "no channel 'a'"),
        ({"name": "ElectricalSeriesAP", "channels": []}, SelectionError, r"no channel \[\]"),
        (
            {"name": "ElectricalSeriesAP", "channels": np.array([True] * 8)},
            OptionError,
            "channels must be the label of a channel",
        ),
        (
            {"name": "ElectricalSeriesAP", "channels": [[0], [1, 2]]},
            OptionError,
            "channels must be the label of a channel",
        ),
    ],
)
def test_traces_that_make_no_sense_say_why(
    ecephys: xr.Dataset, arguments: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        ecephys.nwb.plot.traces(**arguments)


def shown_image(ax: Any) -> np.ndarray[Any, Any]:
    (image,) = ax.images
    return np.asarray(image.get_array())


def test_a_frame_is_upright_and_the_nearest(ophys: xr.Dataset) -> None:
    with intake_nwbzarr.track_requests() as log:
        ax = ophys.nwb.plot.image("TwoPhotonSeries", time=1.0)
    assert log.requests == 1
    np.testing.assert_array_equal(shown_image(ax), ophys.TwoPhotonSeries[15].values.T)
    assert ax.get_title() == f"TwoPhotonSeries, {15 / 15.46:.3f} s"
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    first = ophys.nwb.plot.image("TwoPhotonSeries")
    np.testing.assert_array_equal(shown_image(first), ophys.TwoPhotonSeries[0].values.T)


def in_a_plane(**grid: Any) -> NWBFile:
    nwbfile = empty_session()
    plane = add_imaging_plane(nwbfile, **grid)
    data = np.arange(5 * 8 * 6.0).reshape(5, 8, 6)
    nwbfile.add_acquisition(
        OnePhotonSeries(name="movie", data=data, imaging_plane=plane, rate=20.0, unit="n.a.")
    )
    return nwbfile


def test_images_are_drawn_where_their_coordinates_are(tmp_path: Path) -> None:
    grid = {"grid_spacing": [2.0, 4.0], "grid_spacing_unit": "um", "origin_coords": [10.0, 100.0]}
    movie = opened(write(tmp_path, in_a_plane(**grid, origin_coords_unit="um")), group="acquisition/movie")
    ax = movie.nwb.plot.image()
    assert (ax.get_xlim(), ax.get_ylim()) == ((9.0, 25.0), (122.0, 98.0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x [um]", "y [um]")
    part = movie.isel(x=slice(4, 6), y=[3])
    ax = part.nwb.plot.image()
    assert (ax.get_xlim(), ax.get_ylim()) == ((17.0, 21.0), (113.0, 111.0))
    np.testing.assert_array_equal(ax.images[0].get_array(), [[27.0, 33.0]])
    backwards = movie.isel(x=slice(None, None, -1)).nwb.plot.image()
    assert backwards.get_xlim() == (25.0, 9.0)
    # Pixels that are no grid any more have no other place than their number.
    apart = movie.isel(x=[0, 1, 5]).nwb.plot.image()
    assert (apart.get_xlim(), apart.get_xlabel()) == ((-0.5, 2.5), "x")


def test_pictures_are_drawn_in_grey_or_in_their_colours(ophys: xr.Dataset) -> None:
    np.testing.assert_array_equal(
        shown_image(ophys.nwb.plot.image("snapshots_mean")), ophys.snapshots_mean.values.T
    )
    np.testing.assert_array_equal(
        shown_image(ophys.nwb.plot.image("snapshots_overlay")),
        ophys.snapshots_overlay.values.transpose(1, 0, 2),
    )


def test_masks_of_one_roi_or_the_largest_of_all(ophys: xr.Dataset) -> None:
    masks = ophys.ImageMasks_image_mask.values
    np.testing.assert_array_equal(shown_image(ophys.nwb.plot.image("ImageMasks")), masks.max(axis=0).T)
    ax = ophys.nwb.plot.image("ImageMasks", roi=3)
    np.testing.assert_array_equal(shown_image(ax), masks[3].T)
    assert ax.get_title() == "ImageMasks, ROI 3"
    with pytest.raises(SelectionError, match=r"no ROI 17 .*0, 1, 2, 3, 4") as caught:
        ophys.nwb.plot.image("ImageMasks", roi=17)
    assert caught.value.found == 17
    assert caught.value.path.endswith("/ImageMasks")


def test_pixel_masks_are_drawn_pixel_by_pixel(ophys: xr.Dataset) -> None:
    image = shown_image(ophys.nwb.plot.image("PixelMasks", roi=2))
    pixels = ophys.nwb.nwbfile.processing["ophys"]["ImageSegmentation"]["PixelMasks"]["pixel_mask"][2]
    expected = np.zeros(image.shape)
    for x, y, weight in pixels:
        expected[int(y), int(x)] = weight
    np.testing.assert_array_equal(image, expected)


def test_files_with_rows_first_are_upright_when_opened_so(corpus_dir: Callable[[str, str], Path]) -> None:
    path = corpus_dir("ophys", "0.14.0")
    dataset = xr.open_dataset(path, engine="nwbzarr", group="acquisition/TwoPhotonSeries", image_axes="yx")
    np.testing.assert_array_equal(shown_image(dataset.nwb.plot.image()), dataset.data[0])


def test_a_volume_is_drawn_plane_by_plane(tmp_path: Path) -> None:
    nwbfile = empty_session()
    plane = add_imaging_plane(nwbfile)
    data = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    nwbfile.add_acquisition(
        OnePhotonSeries(name="volume", imaging_plane=plane, data=data, unit="n.a.", rate=1.0)
    )
    dataset = opened(write(tmp_path, nwbfile))
    np.testing.assert_array_equal(
        shown_image(dataset.nwb.plot.image(time=0.9, plane=-1)), data[1, :, :, -1].T
    )
    with pytest.raises(SelectionError) as caught:
        dataset.nwb.plot.image(plane=5)
    assert (caught.value.found, caught.value.expected) == (5, range(-5, 5))


def test_an_image_that_is_not_there_is_named(ophys: xr.Dataset) -> None:
    with pytest.raises(NodeNotFoundError, match="'nothing' among the images"):
        ophys.nwb.plot.image("nothing")
    with pytest.raises(OptionError, match="Pass name=, one of"):
        ophys.nwb.plot.image()
    with pytest.raises(SelectionError) as caught:
        ophys.nwb.plot.image("TwoPhotonSeries", roi=1)
    assert caught.value.path == "acquisition/TwoPhotonSeries"
    assert (caught.value.found, caught.value.next_step) == (1, "Omit roi=.")


def test_an_open_end_is_open(ecephys: xr.Dataset) -> None:
    ax = ecephys.nwb.plot.raster(start=-np.inf, stop=np.inf)
    assert spikes_on(ax) == spikes_on(ecephys.nwb.plot.raster())
    (line,) = ecephys.nwb.plot.traces("sync", start=-np.inf).get_lines()
    np.testing.assert_array_equal(line.get_ydata(), ecephys.sync)


def test_one_unit_as_a_scalar_is_told_from_no_units(ecephys: xr.Dataset) -> None:
    with pytest.raises(SelectionError, match="One row of 'units' was selected as a scalar"):
        ecephys.isel(units=0).nwb.plot.raster()


def test_channels_may_be_an_array_of_labels_or_one(ecephys: xr.Dataset) -> None:
    def drawn(channels: Any) -> list[str]:
        ax = ecephys.nwb.plot.traces("ElectricalSeriesLFP", channels=channels)
        return [label.get_text() for label in ax.get_yticklabels()]

    labels = ecephys.ElectricalSeriesLFP_channel
    assert drawn(labels.values[1:3]) == drawn(labels[1:3]) == drawn([3, 5]) == ["3", "5"]
    for one in (5, labels[2], np.int64(5)):
        ax = ecephys.nwb.plot.traces("ElectricalSeriesLFP", channels=one)
        np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), ecephys.ElectricalSeriesLFP[:, 2])
    with pytest.raises(SelectionError, match="has no channels left along 'ElectricalSeriesLFP_channel'"):
        ecephys.isel(ElectricalSeriesLFP_channel=[]).nwb.plot.traces("ElectricalSeriesLFP")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "ImageMasks", "roi": [0, 1]}, r"roi must be the id of one ROI, not"),
        ({"name": "ImageMasks", "plane": 0.5}, "plane must be a position along z, not 0.5"),
        (
            {"name": "TwoPhotonSeries", "time": np.nan},
            "time must be .*seconds or a datetime, not nan",
        ),
        (
            {"name": "TwoPhotonSeries", "time": "a"},
            "time must be .*seconds or a datetime, not 'a'",
        ),
    ],
)
def test_images_that_make_no_sense_say_why(ophys: xr.Dataset, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        ophys.nwb.plot.image(**arguments)
