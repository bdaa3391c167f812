"""Pages of many and of odd objects: each is drawn as what it is, or in a line that says why it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pynwb import NWBFile, TimeSeries
from pynwb.behavior import BehavioralEpochs, BehavioralTimeSeries, PupilTracking
from pynwb.icephys import CurrentClampSeries, VoltageClampSeries
from pynwb.image import ImageSeries
from pynwb.ogen import OptogeneticSeries

import intake_nwbzarr
from intake_nwbzarr.pages.ephys import _window
from intake_nwbzarr.pages.lines import draw_series, gaps
from intake_nwbzarr.pages.page import Page
from tests.session_files import empty_session, write


def drawn(page: Page) -> set[str]:
    return {path for picture in page.pictures for path in picture.paths}


def reasons(page: Page) -> dict[str, str]:
    return {each.title: each.reason for each in page.left_out}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Return the page of a session of 24 series that are alike, and a few of other types, units and kinds."""
    nwbfile = empty_session()
    behavior = nwbfile.create_processing_module("behavior", "b")
    for number in range(14):
        behavior.add(TimeSeries(name=f"mod{number:02}", data=np.arange(50.0), rate=10.0, unit="V"))
    for number in range(10):
        container = BehavioralTimeSeries(name=f"c{number}")
        container.create_timeseries(name=f"sig{number}", data=np.arange(50.0), rate=10.0, unit="V")
        behavior.add(container)
    pupil = PupilTracking()
    pupil.create_timeseries(name="zz_diameter", data=np.sin(np.arange(50.0)), rate=10.0, unit="mm")
    behavior.add(pupil)
    _add_odd(nwbfile)
    return intake_nwbzarr.page(write(tmp_path_factory.mktemp("many"), nwbfile))


def _add_odd(nwbfile: NWBFile) -> None:
    behavior = nwbfile.processing["behavior"]
    events = BehavioralTimeSeries(name="events")
    times = np.sort(np.random.default_rng(0).uniform(0, 5, 40))
    events.create_timeseries(name="licks", data=np.ones(40), timestamps=times, unit="n.a.")
    behavior.add(events)
    epochs = BehavioralEpochs()
    epochs.create_interval_series(name="running", data=np.tile([1, -1], 5), timestamps=np.arange(10.0) / 2)
    behavior.add(epochs)
    site = nwbfile.create_ogen_site(
        "site", device=nwbfile.create_device("laser"), description="d", excitation_lambda=470.0, location="V1"
    )
    nwbfile.add_stimulus(OptogeneticSeries(name="laser", data=np.arange(50) % 10 / 1e3, site=site, rate=10.0))
    for name, data in (("cube", np.ones((50, 3, 4))), ("empty", np.zeros(0)), ("texts", ["a", "b", "c"])):
        nwbfile.add_acquisition(TimeSeries(name=name, data=data, rate=10.0, unit="V"))
    nwbfile.add_acquisition(
        ImageSeries(name="camera", external_file=["a.mp4"], format="external", rate=30.0, starting_frame=[0],
                    num_samples=9, unit="n.a.")
    )  # fmt: skip


@pytest.mark.slow
def test_every_series_is_in_a_picture_or_in_a_line_that_says_why_not(many: Page) -> None:
    left = {path for each in many.left_out for path in each.paths}
    assert drawn(many).isdisjoint(left)
    names = {path.rpartition("/")[2] for path in drawn(many) | left}
    alike = {f"mod{number:02}" for number in range(14)} | {f"sig{number}" for number in range(10)}
    assert alike | {"zz_diameter", "licks", "running", "laser", "cube", "empty", "texts", "camera"} <= names
    found = reasons(many)
    assert found["cube"] == "its data have 3 dimensions, of which lines show two at most"
    assert found["empty"] == "it is empty"
    assert found["texts"] == "its values are not numbers"
    assert "its frames are in files of their own" in found["camera"]
    (more,) = [title for title in found if "more series" in title]
    assert more.endswith("more series in processing/behavior")
    assert "at most 8 series" in found[more]
    assert f"{more}: " in many.html


def test_series_of_other_types_and_units_are_drawn_before_more_that_are_alike(many: Page) -> None:
    names = {path.rpartition("/")[2] for path in drawn(many)}
    assert {"zz_diameter", "laser", "licks"} <= names


def test_a_series_of_intervals_is_bars_in_the_time_line(many: Page) -> None:
    (time_line,) = [picture for picture in many.pictures if picture.kind == "timeline"]
    assert "5 intervals in running" in time_line.caption
    assert "processing/behavior/BehavioralEpochs/running" in time_line.paths


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def test_a_constant_at_irregular_times_is_marks_without_a_scale(axes: Axes) -> None:
    times = np.array([1.0, 2.5, 2.7, 9.0])
    assert draw_series(axes, times, np.ones(4), regular=False) is False
    assert axes.lines[:] == []
    (marks,) = axes.collections
    assert [path.vertices[0, 0] for path in marks.get_paths()] == times.tolist()


def test_a_signal_that_is_on_or_off_is_steps(axes: Axes) -> None:
    draw_series(axes, np.array([0.0, 1.0, 5.0, 6.0]), np.array([0.0, 1.0, 1.0, 0.0]), regular=False)
    (line,) = axes.lines
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata().tolist() == [0.0, 1.0, 6.0]  # type: ignore[union-attr]


@pytest.mark.parametrize("samples", [500, 5000])
def test_a_line_does_not_cross_gaps(axes: Axes, samples: int) -> None:
    times = np.concatenate([np.arange(samples) * 0.02, 1000 + np.arange(samples) * 0.02])
    assert gaps(times).tolist() == [samples]
    draw_series(axes, times, np.sin(times), regular=False)
    x = np.asarray(axes.lines[0].get_xdata(), float)
    assert np.isnan(x).sum() == 1
    assert x[np.flatnonzero(np.isnan(x)) + 1].tolist() == [1000.0]


def test_one_sample_is_a_dot(axes: Axes) -> None:
    draw_series(axes, np.array([1.0]), np.array([3.0]), regular=True)
    assert axes.lines[0].get_marker() == "o"


def of_values(folder: Path, **series: NDArray[np.float64]) -> Page:
    nwbfile = empty_session()
    for name, data in series.items():
        nwbfile.add_acquisition(TimeSeries(name=name, data=data, rate=10.0, unit="V"))
    return intake_nwbzarr.page(write(folder, nwbfile))


def test_what_is_not_finite_or_too_large_has_a_line_and_no_axes(tmp_path: Path) -> None:
    page = of_values(
        tmp_path,
        fine=np.arange(100.0),
        missing=np.full(100, np.nan),
        infinite=np.where(np.arange(100) % 2, np.inf, np.nan),
        huge=np.linspace(-1e305, 1e305, 100),
        columns=np.full((100, 4), np.nan),
    )
    assert reasons(page) == {
        "missing": "all values read are NaN",
        "infinite": "all values read are NaN or infinite",
        "huge": "the values read reach 1e+305, which axes cannot show",
        "columns": "all values read are NaN",
    }
    (traces,) = [picture for picture in page.pictures if picture.kind == "traces"]
    assert traces.paths == ("acquisition/fine",)


def test_sweeps_of_unequal_lengths_of_both_clamps_have_two_pictures(tmp_path: Path) -> None:
    nwbfile = empty_session()
    electrode = nwbfile.create_icephys_electrode(
        name="e0", device=nwbfile.create_device("amp"), description="d"
    )
    for number in range(3):
        for kind in (CurrentClampSeries, VoltageClampSeries):
            series = kind(
                name=f"{kind.__name__}{number}", data=np.arange(100.0 * (number + 1)), electrode=electrode,
                rate=100.0, gain=1.0,
            )  # fmt: skip
            nwbfile.add_acquisition(series)
    page = intake_nwbzarr.page(write(tmp_path, nwbfile))
    captions = {picture.title: picture.caption for picture in page.pictures}
    of_each = "3 of 3 responses of 0.99 to 2.99 s, 100 to 300 samples"
    assert captions["Current-clamp sweeps"] == captions["Voltage-clamp sweeps"] == of_each
    assert page.left_out == ()


def test_times_of_spikes_that_are_not_finite_and_far_times_are_said(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_unit(spike_times=[1e9, 1e9 + 20, np.inf])
    page = intake_nwbzarr.page(write(tmp_path, nwbfile))
    (raster,) = page.pictures
    assert raster.caption == "1 unit, 2 spikes, all that have finite times; 1 stored time not finite"
    assert "time [s] + 1,000,000,000" in raster.svg


def test_the_window_of_a_raster_begins_at_the_first_trial_with_spikes() -> None:
    trains = [np.linspace(0.01, 100, 30_000)]
    assert _window(trains, 0.01, 100.0, np.array([0.0, 50.0]))[0] == 0.0
    late = [np.linspace(60.0, 100, 30_000)]
    assert _window(late, 60.0, 100.0, np.array([0.0, 10.0, 70.0]))[0] == 10.0


def test_probes_whose_positions_coincide_are_side_by_side(tmp_path: Path) -> None:
    nwbfile = empty_session()
    device = nwbfile.create_device("probes")
    for name in ("left", "right"):
        group = nwbfile.create_electrode_group(name, description="d", location="CA1", device=device)
        for number in range(4):
            nwbfile.add_electrode(
                rel_x=10.0 * (number % 2), rel_y=20.0 * number, rel_z=0.0, location="CA1", group=group
            )
    (probes,) = intake_nwbzarr.page(write(tmp_path, nwbfile)).pictures
    assert probes.caption.endswith("(groups are beside one another, as their positions coincide)")
