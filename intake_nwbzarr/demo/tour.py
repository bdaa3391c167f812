"""The demo, step by step: what a user types, and what comes back."""

from __future__ import annotations

import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from intake_nwbzarr.demo.server import PRIVATE_BUCKET, PUBLIC_BUCKET, S3Server, s3_server

CATALOG = """\
# Written by `nwbzarr demo`, whose S3 server has stopped since.
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
    """Run the main job on this machine, telling the console; everything that is started is stopped.

    Parameters
    ----------
    console
        Where the steps are told.
    output
        The folder for the picture and the catalog.

    Returns
    -------
    pathlib.Path
        The picture.

    Raises
    ------
    DemoUnavailableError
        When moto is not installed.
    """
    started = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        tell = Teller(console)
        tell.heading("Two sessions go to an S3 server on this machine")
        with console.status("writing sessions, starting a server, uploading ..."):
            running = stack.enter_context(s3_server())
            server, lines = _publish(running)
        for line in lines:
            tell.result(line)
        path = output / "catalog.yaml"
        path.write_text(
            CATALOG.format(public=PUBLIC_BUCKET, private=PRIVATE_BUCKET, endpoint_url=server.endpoint_url)
        )
        picture = _use(tell, path, output / "nwbzarr-demo.png")
    tell.heading(f"Done in {time.perf_counter() - started:.0f} s; the server has stopped")
    console.print(f"The picture: [bold]{escape(str(picture.resolve()))}[/]", soft_wrap=True, highlight=False)
    return picture


class Teller:
    """Tells a demo's steps.

    Parameters
    ----------
    console
        Where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._step = 0

    def heading(self, text: str) -> None:
        """Begin a step."""
        self._step += 1
        self.console.print()
        self.console.rule(f"[bold cyan]{self._step}. {escape(text)}[/]", align="left", style="cyan")

    def code(self, text: str) -> None:
        """What a user types."""
        self.console.print(f"[green]>>>[/] [bold]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def result(self, value: object) -> None:
        """What comes back."""
        text = Text(textwrap.indent(str(value), "    "))
        self.console.print(text, highlight=False, no_wrap=True, overflow="ellipsis")


def _publish(running: Callable[[], S3Server]) -> tuple[S3Server, list[str]]:
    """Write both sessions while the server starts, and upload them."""
    from intake_nwbzarr.demo.imaging import imaging_session
    from intake_nwbzarr.demo.spiking import spiking_session
    from intake_nwbzarr.demo.stores import write_zarr2, write_zarr3

    with tempfile.TemporaryDirectory(prefix="nwbzarr-demo-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        current, imaging, spiking = (Path(scratch, name) for name in ("current", "imaging", "spiking"))
        write_zarr3(imaging_session(), current)
        write_zarr2(current, imaging)
        write_zarr3(spiking_session(), spiking)
        server = running()
        lines = []
        for folder, bucket, remark in (
            (imaging, PUBLIC_BUCKET, "Zarr 2, for everybody"),
            (spiking, PRIVATE_BUCKET, "Zarr 3, for whoever has the keys"),
        ):
            count = server.upload(folder, bucket, f"{folder.name}.nwb.zarr")
            lines.append(f"s3://{bucket}/{folder.name}.nwb.zarr, {remark}: {count} objects")
    return server, lines


def _use(tell: Teller, catalog_path: Path, picture: Path) -> Path:
    """What a user does with a catalog."""
    import dask.threaded
    import intake
    from dask.diagnostics import ProgressBar  # type: ignore[attr-defined]

    from intake_nwbzarr import track_requests
    from intake_nwbzarr.demo import analysis

    # To find out by itself which scheduler to use, dask imports distributed, which takes a second.
    with track_requests() as log, dask.config.set(scheduler=dask.threaded.get):
        tell.heading("A catalog names them")
        tell.code(f'catalog = intake.open_catalog("{catalog_path}")')
        catalog = intake.open_catalog(str(catalog_path))
        tell.code("list(catalog)")
        tell.result(list(catalog))

        tell.heading("An entry becomes a dask-backed xarray Dataset")
        tell.code("imaging = catalog.imaging.read()")
        imaging = catalog.imaging.read()
        tell.code("imaging")
        tell.result(imaging)

        tell.heading("Fluorescence minus neuropil, around licks")
        tell.code("fluorescence = imaging.RoiResponseSeries - 0.7 * imaging.Neuropil")
        tell.code('mean = fluorescence.mean("Fluorescence_time")')
        tell.code("with dask.diagnostics.ProgressBar(): dff = ((fluorescence - mean) / mean).compute()")
        with ProgressBar():  # type: ignore[no-untyped-call]
            dff = analysis.corrected_fluorescence(imaging).compute()
        bouts = analysis.lick_bouts(imaging)
        tell.code("imaging.assign(dff=dff)[['dff']].nwb.align(bouts, (-1.5, 3.0)).dff")
        aligned = analysis.around(imaging, dff, bouts)
        before, after = (float(aligned.sel(lag=window).mean()) for window in (slice(-1.5, 0), slice(0.25, 1)))
        tell.result(
            f"{bouts.size} bouts of licking: dF/F is {before:.1%} before and {after:.1%} after the first lick"
        )

        tell.heading("The private bucket, with credentials from the environment")
        tell.code("spiking = catalog.spiking.read()")
        spiking = catalog.spiking.read()
        tell.code("spiking")
        tell.result(spiking)
        spikes = analysis.spikes_around(spiking, analysis.TRIAL_WINDOW)
        unit = analysis.most_responsive_unit(spikes)
        raster = spikes[unit]
        count = sum(map(len, raster))
        tell.result(f"unit {unit} answers most: {count} spikes around {len(raster)} trials")

        tell.heading("The same entry as a pynwb NWBFile")
        tell.code("nwbfile = catalog.imaging.to_nwb()")
        with catalog.imaging.to_nwb() as nwbfile:
            for line in (
                "nwbfile.subject.subject_id",
                "nwbfile.subject.species",
                "nwbfile.session_start_time",
            ):
                tell.code(line)
            tell.result(
                f"{nwbfile.subject.subject_id}, {nwbfile.subject.species}, {nwbfile.session_start_time}"
            )

        tell.heading("A picture")
        from intake_nwbzarr.demo.picture import draw

        draw(aligned, raster, spiking["trials_contrast"].values, analysis.TRIAL_WINDOW, picture)
        tell.result(picture)

    tell.heading("What it took")
    tell.code("with intake_nwbzarr.track_requests() as log: ...")
    tell.result(log)
    return picture
