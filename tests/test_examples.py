"""The examples, run as a newcomer runs them: what they compute and draw, and the page that shows them."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jupytext
import matplotlib as mpl
import numpy as np
import pytest
from hdmf_zarr.nwb import NWBZarrIO
from matplotlib import pyplot as plt
from matplotlib.collections import EventCollection
from matplotlib.image import imread
from numpy.typing import NDArray
from pynwb import NWBFile

from intake_nwbzarr.errors import LocationNotFoundError
from tests.servers.s3_server import S3Server

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("psth", "lfp", "fluorescence", "sweeps", "tuning")

type Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the made-up sessions are kept."""
    return tmp_path_factory.mktemp("sessions")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sessions: Path) -> Iterator[Run]:
    """Runs an example in an empty folder and gives its variables; `sessions` keeps what it makes up."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)

    def run_example(name: str, *arguments: str) -> dict[str, Any]:
        script = str(EXAMPLES / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *(arguments or ("--folder", str(sessions)))])
        return runpy.run_path(script)

    with mpl.rc_context():
        mpl.use("Agg")
        yield run_example
        plt.close("all")


@pytest.fixture
def raw() -> Iterator[Callable[[str], NWBFile]]:
    """A function from a session's location to the object that pynwb and hdmf-zarr themselves read."""
    opened: list[NWBZarrIO] = []

    def read(location: str) -> NWBFile:
        opened.append(NWBZarrIO(location, mode="r", load_namespaces=False))
        return opened[-1].read()

    yield read
    for io in opened:
        io.close()


def is_drawn(picture: Path) -> bool:
    pixels = imread(picture)
    return pixels.shape[0] > 300 and len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50


def test_the_psth_is_the_mean_of_the_cued_and_observed_trials(
    run: Run, raw: Callable[[str], NWBFile], tmp_path: Path
) -> None:
    ran = run("psth")
    assert is_drawn(tmp_path / "psth.png")
    nwbfile = raw(ran["location"])
    trials, units = nwbfile.trials, nwbfile.units
    cues, types = np.asarray(trials["cue_start_time"][:]), np.asarray(trials["type"][:])
    (start, stop), width = ran["window"], ran["width"]
    edges = start + width * np.arange(round((stop - start) / width) + 1)
    assert np.isnan(cues).sum() == 9
    unseen = 0
    for row, unit in enumerate(units.id[:]):
        spikes, ((begin, end),) = np.asarray(units["spike_times"][row]), units["obs_intervals"][row]
        for kind in ("lick left", "lick right"):
            counts = [
                [
                    np.sum((spikes >= cue + a) & (spikes < cue + b))
                    if begin <= cue + a and cue + b <= end
                    else np.nan
                    for a, b in pairwise(edges)
                ]
                for cue in cues[(types == kind) & np.isfinite(cues)]
            ]
            unseen += int(np.isnan(counts).all(axis=1).sum())
            rate = ran["rate"].sel(unit=unit, type=kind)
            np.testing.assert_allclose(rate, np.nanmean(counts, axis=0) / width, rtol=1e-12)
    assert unseen > 20
    assert np.isnan(ran["counts"].values[:, np.isnan(cues)]).all()
    assert ran["unit"] == 40
    panels = plt.gcf().axes
    lines = [line for panel in panels[:2] for line in panel.collections if isinstance(line, EventCollection)]
    drawn = [len(line.get_positions()) for line in lines]
    assert len(drawn) == 72 - 9
    assert sum(drawn) == _spikes_around(units, 40, cues, start, stop)
    assert [panel.get_title() for panel in panels[:2]] == ["Unit 40, lick left", "Unit 40, lick right"]


def _spikes_around(units: Any, unit: int, cues: NDArray[np.float64], start: float, stop: float) -> int:
    spikes = np.asarray(units["spike_times"][list(units.id[:]).index(unit)])
    return sum(int(np.sum((spikes >= cue + start) & (spikes < cue + stop))) for cue in cues)


def test_the_evoked_lfp_is_the_mean_of_each_contrast(
    run: Run, raw: Callable[[str], NWBFile], tmp_path: Path
) -> None:
    ran = run("lfp")
    assert is_drawn(tmp_path / "lfp.png")
    nwbfile = raw(ran["location"])
    series = nwbfile.processing["ecephys"]["LFP"]["ElectricalSeries"]
    starts, contrasts = (np.asarray(nwbfile.trials[name][:]) for name in ("start_time", "contrast"))
    microvolts = 1e6 * series.conversion * series.data[:].astype(np.float64)
    times = np.arange(len(microvolts)) / series.rate
    pieces = []
    for start in starts:
        sample = int(abs(times - start).argmin())
        piece = microvolts[sample - 50 : sample + 200]
        pieces.append(piece - piece[:51].mean(axis=0))
    assert ran["evoked"].dims == ("contrast", "lag", "channel")
    assert ran["evoked"].contrast.values.tolist() == [0.1, 0.3, 1.0]
    for contrast in (0.1, 0.3, 1.0):
        expected = np.mean([p for p, each in zip(pieces, contrasts, strict=True) if each == contrast], axis=0)
        np.testing.assert_allclose(ran["evoked"].sel(contrast=contrast), expected, rtol=1e-9, atol=1e-9)
    assert ran["evoked"].rel_y.values.tolist() == list(np.asarray(nwbfile.electrodes["rel_y"][:]))
    strongest = abs(ran["evoked"].values).max(axis=(0, 1)).argmax()
    assert ran["channel"] == strongest


def test_the_fluorescence_is_without_its_neuropil(
    run: Run, raw: Callable[[str], NWBFile], tmp_path: Path
) -> None:
    ran = run("fluorescence")
    assert is_drawn(tmp_path / "fluorescence.png")
    nwbfile = raw(ran["location"])
    container = nwbfile.processing["ophys"]["Fluorescence"]
    traces = container["RoiResponseSeries"].data[:] - 0.7 * container["Neuropil"].data[:]
    times = np.arange(len(traces)) / container["Neuropil"].rate
    lick = nwbfile.processing["behavior"]["BehavioralTimeSeries"]["lick"]
    licks = [sample / lick.rate for sample in np.flatnonzero(lick.data[:] > 0)]
    bouts = [licks[0], *(b for a, b in pairwise(licks) if b - a > 1)]
    np.testing.assert_allclose(ran["bouts"], bouts, rtol=1e-12)
    lags = np.arange(-23, 47)
    np.testing.assert_allclose(ran["change"].lag, lags / 15.46, rtol=1e-12)
    nearest = np.array([abs(times - bout).argmin() for bout in bouts])
    around = traces[nearest[:, None] + lags]
    baseline = around[:, :24].mean(axis=(0, 1))
    expected = 100 * (around / baseline - 1)
    np.testing.assert_allclose(ran["change"].transpose("event", "lag", "roi"), expected, rtol=1e-3, atol=1e-2)
    late = expected[:, (lags >= 5) & (lags < 15)].mean(axis=(0, 1))
    # Two thirds of the made-up cells answer to licks.
    assert np.sort(late)[7] < 4 < np.sort(late)[8]


def test_the_sweeps_are_those_of_the_tables_with_the_currents_that_were_injected(
    run: Run, raw: Callable[[str], NWBFile], tmp_path: Path
) -> None:
    ran = run("sweeps")
    assert is_drawn(tmp_path / "sweeps.png")
    recordings = raw(ran["location"]).intracellular_recordings
    expected = {}
    for row in range(len(recordings)):
        stimulus = recordings["stimuli"]["stimulus"][row].timeseries
        response = recordings["responses"]["response"][row].timeseries
        volts = response.conversion * response.data[:].astype(np.float64)
        spikes = sum(1 for a, b in pairwise(volts) if a <= 0.02 < b)
        expected[round(1e12 * stimulus.conversion * int(stimulus.data[3000]))] = (volts, spikes)
    assert sorted(expected) == [-100, -50, 0, 50, 100, 150, 200, 250]
    assert ran["spikes"].current.values.tolist() == sorted(expected)
    for current, (volts, spikes) in expected.items():
        np.testing.assert_allclose(ran["sweeps"].response.sel(current=current), volts, rtol=1e-12)
        assert ran["spikes"].sel(current=current) == spikes
    counts = ran["spikes"].values
    assert (np.diff(counts) >= 0).all()
    assert counts[0] == 0
    assert counts[-1] > 10
    assert [len(panel.lines) for panel in plt.gcf().axes] == [8, 0, 8]


def test_a_session_that_is_named_is_opened_and_none_is_made_up(
    run: Run, sessions: Path, tmp_path: Path
) -> None:
    made_up = Path(run("sweeps")["location"])
    named = made_up.rename(tmp_path / "mine.nwb.zarr")
    try:
        ran = run("sweeps", str(named), "--picture", str(tmp_path / "mine.png"))
    finally:
        named.rename(made_up)
    assert ran["location"] == str(named)
    assert is_drawn(tmp_path / "mine.png")
    with pytest.raises(LocationNotFoundError, match=r"nowhere\.nwb\.zarr"):
        run("psth", str(tmp_path / "nowhere.nwb.zarr"))


def test_an_example_needs_nothing_and_leaves_nothing_but_its_picture(tmp_path: Path) -> None:
    temporary, folder = tmp_path / "temporary", tmp_path / "folder"
    temporary.mkdir()
    folder.mkdir()
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "sweeps.py"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"TMPDIR": str(temporary), "MPLBACKEND": "Agg"},
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "The picture is in sweeps.png\n", "")
    assert [path.name for path in folder.iterdir()] == ["sweeps.png"]
    assert list(temporary.glob("nwbzarr-example-*")) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_a_notebook_whose_picture_the_page_shows(name: str) -> None:
    page = (EXAMPLES / "README.md").read_text()
    first, *others = jupytext.read(EXAMPLES / f"{name}.py", fmt="py:percent").cells
    assert first.cell_type == "markdown"
    assert f"## [{first.source.splitlines()[0].removeprefix('# ')}]({name}.py)\n" in page
    assert len(others) >= 3
    assert {cell.cell_type for cell in others} == {"code"}
    assert others[-1].source.endswith("save_picture(figure)")
    assert f"]({name}.png)" in page
    assert is_drawn(EXAMPLES / f"{name}.png")
    assert (EXAMPLES / f"{name}.png").stat().st_size < 100_000


def test_the_page_shows_every_example_and_links_to_what_exists() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NAMES)
    assert page.count("\n## [") == len(NAMES)
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert link.startswith("https://") or (EXAMPLES / link).exists(), link


def test_sessions_of_a_bucket_are_opened_where_the_environment_names_one(
    run: Run, sessions: Path, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server, tmp_path: Path
) -> None:
    """As the site does, which runs the examples as notebooks."""
    made_up = Path(run("sweeps")["location"])
    prefix = s3_server.upload(s3_server.public_bucket, "examples", made_up.parent)
    monkeypatch.setenv("EXAMPLE_SESSIONS", prefix)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    (tmp_path / "sweeps.png").unlink()
    assert run("sweeps", "--picture", "sweeps.png")["location"] == f"{prefix}/{made_up.name}"
    assert is_drawn(tmp_path / "sweeps.png")
