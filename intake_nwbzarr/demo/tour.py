"""The end-to-end demonstration: catalog, xarray, analysis, pynwb and a figure."""

from __future__ import annotations

import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from intake_nwbzarr.demo.server import PRIVATE_BUCKET, PUBLIC_BUCKET, S3Server, s3_server
from intake_nwbzarr.demo.sessions import NEUROPIL_SHARE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

type Floats = npt.NDArray[np.float64]

GREEN, GREY, INK = "#2a9d8f", "#8d99ae", "#22223b"
CONTRAST_COLORS = {0.0: "#adb5bd", 0.25: "#f4a261", 1.0: "#d1495b"}


def draw(
    aligned: xr.DataArray, spikes: list[Floats], contrasts: Floats, window: tuple[float, float], path: Path
) -> None:
    """Draw dF/F around licks (event, lag, cell) and one unit's spikes by trial, and save a PNG file."""
    layout = ConstrainedLayoutEngine(wspace=0.06)
    figure = Figure(figsize=(11, 4.6), dpi=150, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic([["licks", "raster"], ["licks", "rate"]], height_ratios=[2, 1])
    _draw_licks(axes["licks"], aligned)
    order = np.argsort(contrasts, kind="stable")
    _draw_raster(axes["raster"], [spikes[trial] for trial in order], contrasts[order])
    _draw_rate(axes["rate"], spikes, contrasts, window)
    axes["raster"].sharex(axes["rate"])
    axes["raster"].tick_params(labelbottom=False)
    for axis in axes.values():
        axis.spines[["top", "right"]].set_visible(False)
        axis.axvline(0.0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    figure.savefig(path)


def _draw_licks(axis: Axes, aligned: xr.DataArray) -> None:
    cells = 100.0 * aligned.mean(["event"])
    lags = aligned["lag"].values
    # The error is over bouts, which are the repetitions, of the mean over cells.
    bouts = 100.0 * aligned.mean([aligned.dims[-1]])
    mean = bouts.mean("event").values
    error = bouts.std("event", ddof=1).values / np.sqrt(aligned.sizes["event"])
    axis.plot(lags, cells.values, color=GREY, linewidth=0.6, alpha=0.45)
    axis.fill_between(lags, mean - error, mean + error, color=GREEN, alpha=0.3, linewidth=0)
    axis.plot(lags, mean, color=GREEN, linewidth=2.2, label="mean ± s.e.m. over bouts")
    axis.plot([], [], color=GREY, linewidth=0.8, label="each cell")
    axis.set(
        xlabel="Time from first lick (s)",
        ylabel="ΔF/F, neuropil subtracted (%)",
        title=f"{aligned.sizes['event']} lick bouts, {aligned.shape[-1]} cells",
        xlim=(lags[0], lags[-1]),
    )
    axis.legend(frameon=False, loc="upper right")


def _draw_raster(axis: Axes, spikes: list[Floats], contrasts: Floats) -> None:
    colors = [CONTRAST_COLORS[contrast] for contrast in contrasts.tolist()]
    axis.eventplot(spikes, colors=colors, linelengths=0.85, linewidths=1.1)
    axis.set(
        ylabel="Trial, by contrast", title=f"One unit, {len(spikes)} trials", ylim=(-0.7, len(spikes) - 0.3)
    )
    axis.set_yticks([])


def _draw_rate(axis: Axes, spikes: list[Floats], contrasts: Floats, window: tuple[float, float]) -> None:
    edges = np.arange(window[0], window[1] + 1e-9, 0.05)
    for contrast, color in CONTRAST_COLORS.items():
        trials = np.flatnonzero(contrasts == contrast)
        counts, _ = np.histogram(np.concatenate([spikes[trial] for trial in trials]), edges)
        rate = counts / (0.05 * trials.size)
        axis.stairs(rate, edges, color=color, linewidth=1.6, label=f"{contrast:.0%} contrast")
    axis.set(xlabel="Time from trial start (s)", ylabel="Rate (spikes/s)", xlim=window)
    axis.legend(frameon=False, fontsize="small", loc="upper right")


LICK_WINDOW = (-1.5, 3.0)
TRIAL_WINDOW = (-0.5, 1.0)


def corrected_fluorescence(session: xr.Dataset) -> xr.DataArray:
    """Return dF/F of neuropil-corrected fluorescence, (time, cell), as a dask array."""
    fluorescence = session["RoiResponseSeries"] - NEUROPIL_SHARE * session["Neuropil"]
    mean = fluorescence.mean([fluorescence.dims[0]])
    return (fluorescence - mean) / mean


def lick_bouts(session: xr.Dataset) -> Floats:
    """Return the times of licks that follow a pause of more than a second."""
    lick = session["lick"]
    times = lick[lick.dims[0]].values[lick.values > 0]
    return np.asarray(times[np.diff(times, prepend=-np.inf) > 1.0], dtype=np.float64)


def dff_around(session: xr.Dataset, dff: xr.DataArray, events: Floats) -> xr.DataArray:
    """Return dF/F around events whose whole window was recorded, (event, lag, cell)."""
    aligned: xr.Dataset = session.assign(dff=dff)[["dff"]].nwb.align(events, LICK_WINDOW, on_missing="drop")
    return aligned["dff"]


def spikes_around(session: xr.Dataset, window: tuple[float, float]) -> list[list[Floats]]:
    """Return spike times relative to each trial's start, by unit, then by trial."""
    starts = session["trials_start_time"].values
    return [
        [_between(train, start + window[0], start + window[1]) - start for start in starts]
        for train in session.nwb.ragged("units_spike_times")
    ]


def most_responsive_unit(spikes: list[list[Floats]]) -> int:
    """Return the position of the unit whose rate rises most in the 0.3 s after trial starts."""

    def rise(unit: int) -> int:
        lags = np.concatenate(spikes[unit])
        return int(_between(lags, 0.0, 0.3).size - _between(lags, -0.3, 0.0).size)

    return max(range(len(spikes)), key=rise)


def _between(times: Floats, begin: float, end: float) -> Floats:
    return times[(times >= begin) & (times < end)]


CATALOG = """\
# Written by `nwbzarr demo`; its S3 server is no longer running.
sources:
  imaging:
    description: Two-photon imaging of a licking mouse (Zarr 2, public bucket)
    driver: nwbzarr
    args:
      urlpath: s3://{public}/imaging.nwb.zarr
      storage_options: {{anon: true, endpoint_url: "{endpoint_url}"}}
  spiking:
    description: Units during trials (Zarr 3, private bucket, credentials from the environment)
    driver: nwbzarr
    args:
      urlpath: s3://{private}/spiking.nwb.zarr
      storage_options: {{endpoint_url: "{endpoint_url}"}}
"""


def run_demo(console: Console, output: Path) -> Path:
    """Run the demonstration, with output to a console; return the path of the figure."""
    started = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        report = Report(console)
        report.heading("Upload two sessions to an S3 server on this machine")
        with console.status("writing sessions, starting a server, uploading ..."):
            wait_for_server = stack.enter_context(s3_server())
            server, lines = _publish(wait_for_server)
        for line in lines:
            report.result(line)
        path = output / "catalog.yaml"
        path.write_text(
            CATALOG.format(public=PUBLIC_BUCKET, private=PRIVATE_BUCKET, endpoint_url=server.endpoint_url)
        )
        figure = _analyse(report, path, output / "nwbzarr-demo.png")
    report.heading(f"Done in {time.perf_counter() - started:.0f} s; the server has been stopped")
    console.print(f"Figure: [bold]{escape(str(figure.resolve()))}[/]", soft_wrap=True, highlight=False)
    return figure


class Report:
    """Prints the steps of the demonstration to a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._step = 0

    def heading(self, text: str) -> None:
        """Print the heading of the next step."""
        self._step += 1
        self.console.print()
        self.console.rule(f"[bold cyan]{self._step}. {escape(text)}[/]", align="left", style="cyan")

    def code(self, text: str) -> None:
        """Print a line of code."""
        self.console.print(f"[green]>>>[/] [bold]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def result(self, value: object) -> None:
        """Print the result of the code."""
        text = Text(textwrap.indent(str(value), "    "))
        self.console.print(text, highlight=False, no_wrap=True, overflow="ellipsis")


def _publish(wait_for_server: Callable[[], S3Server]) -> tuple[S3Server, list[str]]:
    """Write both sessions while the server starts, then upload them."""
    from intake_nwbzarr.demo.sessions import imaging_session, spiking_session, write_zarr3
    from intake_nwbzarr.demo.zarr2 import write_zarr2

    with tempfile.TemporaryDirectory(prefix="nwbzarr-demo-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        current, imaging, spiking = (Path(scratch, name) for name in ("current", "imaging", "spiking"))
        write_zarr3(imaging_session(), current)
        write_zarr2(current, imaging)
        write_zarr3(spiking_session(), spiking)
        server = wait_for_server()
        lines = []
        for folder, bucket, note in (
            (imaging, PUBLIC_BUCKET, "Zarr 2, public"),
            (spiking, PRIVATE_BUCKET, "Zarr 3, private"),
        ):
            count = server.upload(folder, bucket, f"{folder.name}.nwb.zarr")
            lines.append(f"s3://{bucket}/{folder.name}.nwb.zarr, {note}: {count} objects")
    return server, lines


def _analyse(report: Report, catalog_path: Path, figure: Path) -> Path:
    """Open the catalog's sessions, analyse them, and draw a figure."""
    import dask.threaded
    import intake
    from dask.diagnostics import ProgressBar  # type: ignore[attr-defined]

    from intake_nwbzarr import track_requests

    # Without an explicit scheduler, dask imports distributed, which takes a second.
    with track_requests() as log, dask.config.set(scheduler=dask.threaded.get):
        report.heading("Open a catalog of the sessions")
        report.code(f'catalog = intake.open_catalog("{catalog_path}")')
        catalog = intake.open_catalog(str(catalog_path))
        report.code("list(catalog)")
        report.result(list(catalog))

        report.heading("Open an entry as a dask-backed xarray Dataset")
        report.code("imaging = catalog.imaging.read()")
        imaging = catalog.imaging.read()
        report.code("imaging")
        report.result(imaging)

        report.heading("Align neuropil-corrected fluorescence to licks")
        report.code("fluorescence = imaging.RoiResponseSeries - 0.7 * imaging.Neuropil")
        report.code('mean = fluorescence.mean("Fluorescence_time")')
        report.code("with dask.diagnostics.ProgressBar(): dff = ((fluorescence - mean) / mean).compute()")
        with ProgressBar():  # type: ignore[no-untyped-call]
            dff = corrected_fluorescence(imaging).compute()
        bouts = lick_bouts(imaging)
        report.code("imaging.assign(dff=dff)[['dff']].nwb.align(bouts, (-1.5, 3.0)).dff")
        aligned = dff_around(imaging, dff, bouts)
        before, after = (float(aligned.sel(lag=window).mean()) for window in (slice(-1.5, 0), slice(0.25, 1)))
        report.result(
            f"{bouts.size} bouts of licking: dF/F is {before:.1%} before and {after:.1%} after the first lick"
        )

        report.heading("Read a private bucket with credentials from the environment")
        report.code("spiking = catalog.spiking.read()")
        spiking = catalog.spiking.read()
        report.code("spiking")
        report.result(spiking)
        spikes = spikes_around(spiking, TRIAL_WINDOW)
        unit = most_responsive_unit(spikes)
        raster = spikes[unit]
        count = sum(map(len, raster))
        report.result(f"unit {unit} responds most: {count} spikes around {len(raster)} trials")

        report.heading("Open the same entry as a pynwb NWBFile")
        report.code("nwbfile = catalog.imaging.to_nwb()")
        with catalog.imaging.to_nwb() as nwbfile:
            for line in (
                "nwbfile.subject.subject_id",
                "nwbfile.subject.species",
                "nwbfile.session_start_time",
            ):
                report.code(line)
            report.result(
                f"{nwbfile.subject.subject_id}, {nwbfile.subject.species}, {nwbfile.session_start_time}"
            )

        report.heading("Draw a figure")
        draw(aligned, raster, spiking["trials_contrast"].values, TRIAL_WINDOW, figure)
        report.result(figure)

    report.heading("Count the requests")
    report.code("with intake_nwbzarr.track_requests() as log: ...")
    report.result(log)
    return figure
