"""Pages of sessions: the pictures that each kind of session has, what they read, and that nothing gets in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import zarr
from hdmf_zarr.utils import ZarrDataIO
from pynwb import NWBHDF5IO, TimeSeries
from pynwb.ecephys import ElectricalSeries

import intake_nwbzarr
from intake_nwbzarr.demo.sessions import add_electrodes, imaging_session, spiking_session, write_zarr3
from intake_nwbzarr.errors import LocationNotFoundError, OptionError
from intake_nwbzarr.pages.budget import MOST_BYTES
from intake_nwbzarr.pages.page import Page
from tests.conftest import SESSIONS
from tests.mapping.extension_files import extension_files
from tests.servers.http_server import StaticServer
from tests.session_files import copy_of, empty_session, opened, write

VOID = {"meta", "br", "img", "link", "hr", "input"}

EXPECTED = {
    "ecephys": {"raster", "probes", "timeline", "waveforms", "traces"},
    "ophys": {"rois", "path", "timeline", "traces", "images", "movie"},
    "icephys": {"sweeps", "timeline"},
}


@pytest.fixture(scope="module")
def icephys(corpus_dir: Callable[[str, str], Path]) -> Path:
    return corpus_dir("icephys", "0.14.0")


class Checked(HTMLParser):
    """Checks that elements are closed in order, and collects what a browser would fetch or run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "data", "action", "poster"}:
                self.fetched.append(value or "")
            if name.startswith("on"):
                self.wrong.append(f"{tag} {name}")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def check(html: str) -> Checked:
    """Check that a document is well-formed and needs nothing from elsewhere."""
    found = Checked(html)
    assert found.wrong == []
    assert found.open == []
    assert [each for each in found.fetched if not each.startswith(("data:image/png", "#"))] == []
    assert {"script", "iframe", "object", "embed", "link", "base", "form"}.isdisjoint(found.tags)
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html
    assert len(set(found.ids)) == len(found.ids)
    return found


def kinds(page: Page) -> set[str]:
    return {picture.kind for picture in page.pictures}


@pytest.mark.parametrize(("kind", "release"), SESSIONS)
def test_every_session_of_the_corpus_has_the_pictures_that_it_has_something_for(
    corpus_dir: Callable[[str, str], Path], kind: str, release: str, tmp_path: Path
) -> None:
    page = intake_nwbzarr.page(corpus_dir(kind, release), tmp_path / "session.html")
    assert kinds(page) == EXPECTED[kind]
    # Videos of the corpus are in files of their own.
    assert [each.title for each in page.left_out] == ["behavior_video"] * (kind == "ophys")
    html = (tmp_path / "session.html").read_text()
    assert html == page.html
    assert len(html) < 1_000_000
    found = check(html)
    assert found.tags.count("figure") == len(page.pictures)
    text = " ".join(found.texts)
    assert f"{kind} corpus session" in text
    assert "Mus musculus" in text


def test_pictures_have_axes_with_units_and_captions_that_say_what_was_read(ecephys: Path) -> None:
    page = intake_nwbzarr.page(ecephys)
    assert all(picture.caption and "<text" in picture.svg for picture in page.pictures)
    assert all('role="img"' in picture.svg and 'aria-label="' in picture.svg for picture in page.pictures)
    by_title = {picture.title: picture for picture in page.pictures}
    assert "time [s]" in by_title["Spikes of units"].svg
    assert "mV" in by_title["ElectricalSeriesAP"].svg
    assert by_title["ElectricalSeriesAP"].caption == "8 channels, all 3,000 samples, 1.500 to 1.600 s"
    assert "µm" in by_title["Probes and channels"].svg
    assert by_title["Time line"].caption.endswith(
        "bars of series go from the first to the last sample, with any gaps between"
    )


def test_a_page_is_the_same_each_time(icephys: Path) -> None:
    assert intake_nwbzarr.page(icephys).body == intake_nwbzarr.page(icephys).body


def test_without_pictures_only_metadata_are_read(ecephys: Path) -> None:
    with intake_nwbzarr.track_requests() as log:
        opened(ecephys)
    page = intake_nwbzarr.page(ecephys, pictures=False)
    assert page.pictures == ()
    assert page.requests <= log.requests
    assert "ElectricalSeriesAP" in page.html
    check(page.html)


@pytest.fixture(scope="module")
def imaging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imaging") / "imaging.nwb.zarr"
    write_zarr3(imaging_session(frames=600), path)
    return path


@pytest.fixture(scope="module")
def spiking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spiking") / "spiking.nwb.zarr"
    write_zarr3(spiking_session(), path)
    return path


def test_rois_are_drawn_over_the_mean_image(imaging: Path) -> None:
    page = intake_nwbzarr.page(imaging)
    rois = next(picture for picture in page.pictures if picture.kind == "rois")
    assert rois.caption == "24 ROIs, over SegmentationImages_mean"
    # A contour for each.
    assert rois.svg.count("stroke: #ffa21f") >= 24 or rois.svg.count("#ffa21f") >= 24


def test_the_raster_is_of_a_window_around_the_first_trials(spiking: Path) -> None:
    page = intake_nwbzarr.page(spiking)
    raster = next(picture for picture in page.pictures if picture.kind == "raster")
    assert raster.caption.startswith("14 units, ")
    assert raster.caption.endswith("lines where trials start")


def test_an_hdf5_file_has_the_same_pictures(tmp_path: Path, http_server: StaticServer) -> None:
    with NWBHDF5IO(http_server.root / "imaging.nwb", "w") as io:
        io.write(imaging_session(frames=240, rois=6, pixels=16))
    http_server.latency = 0.03
    page = intake_nwbzarr.page(f"{http_server.url}/imaging.nwb")
    assert kinds(page) == {"rois", "timeline", "traces", "images", "movie"}
    assert page.left_out == ()
    assert "<dd>HDF5</dd>" in page.html


@pytest.mark.slow
def test_without_matplotlib_there_are_pages_without_pictures(icephys: Path) -> None:
    code = f"""
import sys
sys.modules["matplotlib"] = None
import intake_nwbzarr
print(len(intake_nwbzarr.page({str(icephys)!r}, pictures=False).html) > 1000)
try:
    intake_nwbzarr.page({str(icephys)!r})
except intake_nwbzarr.errors.MissingPackageError as error:
    print(error.next_step)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("True\n"), done.stderr
    assert "[plot]" in done.stdout


def test_a_page_over_the_network_is_bounded_in_bytes_and_time(
    spiking: Path, http_server: StaticServer
) -> None:
    shutil.copytree(spiking, http_server.root / "spiking.nwb.zarr")
    intake_nwbzarr.page(spiking)  # imports matplotlib
    http_server.latency = 0.03
    begin = monotonic()
    page = intake_nwbzarr.page(f"{http_server.url}/spiking.nwb.zarr")
    assert monotonic() - begin < 5
    assert kinds(page) == {"raster", "probes", "timeline", "traces"}
    assert page.left_out == ()
    assert page.received < MOST_BYTES


def large_chunks(folder: Path) -> Path:
    """Write series of 24 MB each: in chunks of 8 MB, and in one that is more than a page may read."""
    nwbfile = empty_session()
    electrodes = add_electrodes(nwbfile, 16)
    random = np.random.default_rng(0)
    noise = random.integers(-(2**15), 2**15, (750_000, 16), dtype="i2")
    for name, rows in (("parts", 250_000), ("whole", 750_000)):
        nwbfile.add_acquisition(
            ElectricalSeries(
                name=name, data=ZarrDataIO(noise, chunks=(rows, 16)), electrodes=electrodes,
                rate=30000.0, starting_time=0.0,
            )
        )  # fmt: skip
    return write(folder, nwbfile)


def test_pictures_for_which_the_budget_is_not_enough_are_left_out_with_the_reason(
    tmp_path: Path, http_server: StaticServer
) -> None:
    large_chunks(http_server.root)
    page = intake_nwbzarr.page(f"{http_server.url}/small.nwb.zarr")
    assert page.received <= MOST_BYTES
    left = {each.title: each.reason for each in page.left_out}
    assert "whole" in left
    assert "that can be read has up to 24.0 MB" in left["whole"]
    drawn = {picture.title for picture in page.pictures}
    assert "parts" in drawn
    assert "Not drawn" in page.html
    check(page.html)


def test_an_object_that_cannot_be_read_is_left_out_with_the_reason(ophys: Path, tmp_path: Path) -> None:
    copy = copy_of(ophys, tmp_path)
    for chunk in (copy / "processing/ophys/Fluorescence/RoiResponseSeries/data/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    page = intake_nwbzarr.page(copy)
    left, video = page.left_out
    assert video.title == "behavior_video"
    assert left.kind == "traces"
    assert left.title == "Fluorescence_RoiResponseSeries"
    assert "\n" not in left.reason
    assert "Neuropil_RoiResponseSeries" in {picture.title for picture in page.pictures}
    assert "Fluorescence_RoiResponseSeries: " in page.html


HOSTILE = "<script>alert(1)</script>\"'&$x^2$ ]]>"


def test_hostile_names_and_texts_are_text(tmp_path: Path) -> None:
    nwbfile = empty_session(experimenter=[HOSTILE], lab="</title>" + HOSTILE, notes="x" * 100_000)
    electrodes = add_electrodes(nwbfile, 3, HOSTILE, shank=HOSTILE.replace("/", "|"))
    name = HOSTILE.replace("/", "|")
    nwbfile.add_acquisition(
        ElectricalSeries(
            name=name, data=np.arange(300.0).reshape(100, 3), electrodes=electrodes, rate=10.0,
            description=HOSTILE,
        )
    )  # fmt: skip
    nwbfile.add_acquisition(TimeSeries(name="one", data=np.arange(9.0), unit=HOSTILE, rate=1.0))
    nwbfile.add_trial(start_time=1.0, stop_time=2.0)
    nwbfile.add_unit(spike_times=[1.0, 2.0])
    path = write(tmp_path, nwbfile)
    page = intake_nwbzarr.page(path)
    assert page.left_out == ()
    found = check(page.html)
    assert "alert(1)" in "".join(found.texts)
    assert len(page.html) < 300_000
    check(f"<p>default-src 'none'</p>{opened(path).nwb._repr_html_()}")


def test_masks_of_absurd_size_cost_their_picture_alone(ophys: Path, tmp_path: Path) -> None:
    copy = copy_of(ophys, tmp_path)
    pixels = "processing/ophys/ImageSegmentation/PixelMasks/pixel_mask"
    group = zarr.open_group(str(copy), mode="r+")
    masks = group[pixels][:]
    masks["x"][3] = 2**32 - 1
    group[pixels][:] = masks
    page = intake_nwbzarr.page(copy)
    left, video = page.left_out
    assert video.title == "behavior_video"
    assert left.title == "ROIs of PixelMasks"
    assert "at most 8,192 are drawn" in left.reason


def test_figures_of_the_user_and_their_style_stay_as_they_are(icephys: Path) -> None:
    from matplotlib import pyplot as plt
    from matplotlib import rcParams

    style, figures = dict(rcParams), plt.get_fignums()
    intake_nwbzarr.page(icephys)
    assert dict(rcParams) == style
    assert plt.get_fignums() == figures


@pytest.mark.slow
def test_a_pose_has_a_picture(tmp_path: Path) -> None:
    page = intake_nwbzarr.page(extension_files(tmp_path, "pose")["pose"])
    (pose,) = [picture for picture in page.pictures if picture.kind == "pose"]
    assert "nose" in pose.svg
    assert "tail" in pose.svg
    assert "[pixels]" in pose.svg


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_chromium_shows_a_page_that_fits_its_width_and_has_nothing_to_complain_about(
    imaging: Path, tmp_path: Path, width: int
) -> None:
    assert CHROMIUM is not None
    page = intake_nwbzarr.page(imaging, tmp_path / "session.html")
    # A script of the test's own measures the page, which forbids scripts.
    forbidden = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', page.html)
    assert forbidden is not None
    measure = (
        "<script>addEventListener('load', () => { const root = document.documentElement;"
        "document.title = [root.scrollWidth, innerWidth,"
        "[...document.querySelectorAll('svg')].every(e => e.getBoundingClientRect().width > 200)].join(' ')"
        "});</script>"
    )
    measured = tmp_path / "measured.html"
    # An own element as wide as the window: Chromium's own is 500 pixels wide at least.
    frame = f'<iframe src="inner.html" style="width: {width}px; height: 4000px; border: 0"></iframe>'
    (tmp_path / "inner.html").write_text(page.html.replace(forbidden[0], "") + measure)
    ask = (
        "<script>addEventListener('load', () => setTimeout(() => { document.title ="
        "document.querySelector('iframe').contentDocument.title }, 300));</script>"
    )
    measured.write_text(f"<!DOCTYPE html><title>none</title><body>{frame}{ask}")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
        "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
    ]  # fmt: skip
    dom = subprocess.run(
        [*command, measured.as_uri()], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    title = re.search(r"<title>([^<]*)</title>", dom)
    assert title is not None
    scrolled, inner, pictures = title[1].split()
    # Less a scroll bar at the side.
    assert int(scrolled) <= int(inner) == width
    assert pictures == "true"
    # As it is, with its policy.
    shot = subprocess.run(
        [*command, "--enable-logging=stderr", (tmp_path / "session.html").as_uri()],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in shot.stderr
    assert shot.stdout.count("<figure>") == len(page.pictures)


def test_an_empty_session_has_a_page_without_pictures(tmp_path: Path) -> None:
    page = intake_nwbzarr.page(write(tmp_path, empty_session()))
    assert page.pictures == ()
    assert page.left_out == ()
    check(page.html)


@pytest.mark.slow
def test_series_of_every_type_have_a_page(every_series_path: Path, every_type_path: Path) -> None:
    for path in (every_series_path, every_type_path):
        page = intake_nwbzarr.page(path)
        pictures = [each for each in page.left_out if each.kind != "object"]
        assert [each for each in pictures if "at most" not in each.reason] == []
        check(page.html)


@pytest.mark.slow
def test_very_many_series_make_a_page_of_ordinary_size(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number in range(400):
        nwbfile.add_acquisition(
            TimeSeries(
                name=f"series_{number:04}", data=np.arange(5.0), unit="V", rate=10.0,
                starting_time=float(number),
            )
        )  # fmt: skip
    page = intake_nwbzarr.page(write(tmp_path, nwbfile))
    assert kinds(page) == {"timeline", "traces"}
    (traces,) = [picture for picture in page.pictures if picture.kind == "traces"]
    assert "of 400 series" in traces.caption
    assert len(page.html) < 200_000
    assert "series_0000 … series_0399 (400)" in page.html


def test_the_html_of_a_dataset_reads_nothing(ecephys: Path) -> None:
    dataset = opened(ecephys)
    with intake_nwbzarr.track_requests() as log:
        html = dataset.nwb._repr_html_()
    assert log.requests == 0
    assert "ecephys corpus session" in html
    assert "ElectricalSeriesAP" in html
    assert "<svg" not in html


def test_a_dataset_shows_its_session_with_pictures(ecephys: Path, tmp_path: Path) -> None:
    page = opened(ecephys, "units").nwb.page(tmp_path / "a" / "session.html")
    assert kinds(page) == EXPECTED["ecephys"]
    assert "<svg" in page._repr_html_()
    assert "<html" not in page._repr_html_()
    assert (tmp_path / "a" / "session.html").read_text() == page.html


def test_what_is_no_session_or_no_path_is_an_error(tmp_path: Path, ecephys: Path) -> None:
    with pytest.raises(LocationNotFoundError):
        intake_nwbzarr.page(tmp_path / "missing.nwb.zarr")
    with pytest.raises(OptionError):
        intake_nwbzarr.page(ecephys, "s3://bucket/session.html")
    with pytest.raises(OptionError, match="storage option"):
        intake_nwbzarr.page(ecephys, anon=True)  # type: ignore[call-arg]
