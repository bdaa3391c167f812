"""The command line interface, `nwbzarr`: its commands, error and warning lines, and progress bar."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from intake_nwbzarr import __version__

if TYPE_CHECKING:
    from intake_nwbzarr.check.chunks import ChunkCounts
    from intake_nwbzarr.copies.download import Progress
    from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
    from intake_nwbzarr.sessions.scan.scan_report import ScanProgress, ScanReport

app = typer.Typer(
    help="NWB Zarr sessions, local or in the cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


catalog = typer.Typer(help="Tables of many sessions, which can be searched.", no_args_is_help=True)
app.add_typer(catalog, name="catalog")


class _Output(Console):
    """Standard output or error that ignores a closed pipe: the command continues."""

    def on_broken_pipe(self) -> None:
        """Discard further output, so that a reader such as `head` does not change the exit status."""
        with open(os.devnull, "w") as null:  # noqa: PTH123 - replaces the pipe's descriptor
            os.dup2(null.fileno(), self.file.fileno())


_messages = _Output(stderr=True, soft_wrap=True)

Location = Annotated[str, typer.Argument(help="A local path or a URL (https, s3, ...).")]
Anonymous = Annotated[
    bool, typer.Option("--anon", help="Send unsigned (anonymous) requests, for public buckets.")
]
Profile = Annotated[str | None, typer.Option(help="Use this AWS profile, from ~/.aws.", metavar="NAME")]
Endpoint = Annotated[str | None, typer.Option(help="Use this S3-compatible server.", metavar="URL")]
RequesterPays = Annotated[
    bool, typer.Option("--requester-pays", help="Request from a requester-pays bucket.")
]
Tables = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        help="NAME.parquet, or a folder with a part for each prefix or dandiset.",
        metavar="PLACE",
    ),
]
StorageName = Annotated[
    str | None,
    typer.Option(
        help="The name under which readers of the tables pass their storage options.", metavar="NAME"
    ),
]
Threads = Annotated[int, typer.Option(help="Sessions that are scanned concurrently.")]
Requests = Annotated[int, typer.Option(help="Most requests that a session on a server takes.")]
WithSnapshots = Annotated[bool, typer.Option("--snapshots", help="Also store a snapshot of each session.")]
Check = Annotated[bool, typer.Option("--check", help="Compare consolidated metadata with the stored ones.")]


@dataclass
class Settings:
    """Settings that all commands share."""

    debug: bool = False
    error_status: int = 1


def main() -> None:
    """Run the command; an error is one red line, with exit status 1, or 2 for `verify`."""
    settings = Settings()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            app(_options_first(sys.argv[1:]), obj=settings)
        except Exception as error:
            if settings.debug:
                raise
            _show_error(error)
            raise SystemExit(settings.error_status) from None


def _options_first(arguments: list[str]) -> list[str]:
    """Return the arguments with ``--debug``, an option of all commands, before the command."""
    return sorted(arguments, key=lambda argument: argument != "--debug")


def _show_version(show: bool) -> None:
    if show:
        _print(f"intake-nwbzarr {__version__}")
        raise typer.Exit


@app.callback()
def _nwbzarr(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    context.obj.debug = debug


@app.command()
def demo(
    output: Annotated[Path | None, typer.Option(help="The folder for the figure and the catalog.")] = None,
) -> None:
    """Run an end-to-end demonstration on this machine: two sessions, an S3 server, a catalog and a figure."""
    from intake_nwbzarr.arguments import local_path
    from intake_nwbzarr.demo.tour import run_demo

    run_demo(_Output(), local_path(output or "nwbzarr-demo", "The demo folder"))


@app.command()
def info(
    location: Location,
    group: Annotated[str | None, typer.Option(help="The path of one object in the file.")] = None,
    consolidated: Annotated[
        bool, typer.Option(help="Use consolidated metadata, or list the store instead, if they are stale.")
    ] = True,
    chunks: Annotated[
        bool, typer.Option(help="Count the stored chunks by listing them, where the storage supports it.")
    ] = True,
    anon: Anonymous = False,
    profile: Profile = None,
    endpoint_url: Endpoint = None,
    requester_pays: RequesterPays = False,
) -> None:
    """Show a session's contents, and how many requests that took."""
    import xarray as xr

    from intake_nwbzarr import open_hierarchy, track_requests
    from intake_nwbzarr.check.chunks import count_chunks

    options = _storage_options(anon, profile, endpoint_url, requester_pays)
    use_consolidated = None if consolidated else False
    with track_requests() as log:
        dataset = xr.open_dataset(
            location, engine="nwbzarr", group=group, consolidated=use_consolidated, storage_options=options
        )
        _print(repr(dataset))
    _print(f"\n{log}")
    if chunks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # already shown when the Dataset was opened
            hierarchy = open_hierarchy(location, options, consolidated=use_consolidated)
            counts = count_chunks(hierarchy, _own_path(group, hierarchy))
        _show_chunks(counts)


def _own_path(group: str | None, hierarchy: Hierarchy) -> str:
    """Return an object's path in the session's own file; for a pattern, the root."""
    from intake_nwbzarr.errors import NWBZarrError

    try:
        target = hierarchy.resolve((group or "").strip("/"), look_up=True)
    except NWBZarrError:
        return ""
    return target.path if target.hierarchy is hierarchy else ""


def _show_chunks(counts: ChunkCounts | None) -> None:
    _print(f"\nChunks: {counts or 'not counted, because the storage cannot be listed.'}")


@app.command()
def consolidate(
    location: Location,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    anon: Anonymous = False,
    profile: Profile = None,
    endpoint_url: Endpoint = None,
    requester_pays: RequesterPays = False,
) -> None:
    """Write or repair a session's consolidated metadata, so that opening it takes two requests."""
    from intake_nwbzarr import consolidate

    options = _storage_options(anon, profile, endpoint_url, requester_pays)
    report = consolidate(location, options, dry_run=dry_run)
    _print(str(report))
    for sign, paths in (("+", report.added), ("-", report.removed), ("~", report.changed)):
        for path in paths:
            _print(f"  {sign} {path or '/'}")


@app.command()
def snapshot(
    locations: Annotated[
        list[str], typer.Argument(help="Local paths or URLs (https, s3, ...).", metavar="LOCATION")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The snapshot file; the default is NAME.snapshot.zip.", metavar="FILE"
        ),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Keep the other sessions in the file.")] = False,
    anon: Anonymous = False,
    profile: Profile = None,
    endpoint_url: Endpoint = None,
    requester_pays: RequesterPays = False,
) -> None:
    """Save the metadata needed to open sessions to one small file, so that they open without any requests."""
    from intake_nwbzarr.copies.recording import record_session, snapshot_path
    from intake_nwbzarr.copies.snapshot import write_snapshots
    from intake_nwbzarr.errors import NWBZarrError
    from intake_nwbzarr.location.location import locate

    options = _storage_options(anon, profile, endpoint_url, requester_pays)
    located = [locate(location, options) for location in locations]
    target = snapshot_path(located, output)
    sessions = []
    for location in located:
        try:
            sessions.append(record_session(location))
        except NWBZarrError as error:
            # If one of several sessions fails, the others are still saved.
            if len(located) == 1:
                raise
            _show_error(error)
        else:
            _print(str(sessions[-1]))
    if sessions:
        _print(f"\n{write_snapshots(target, sessions, add=add)}")
    if len(sessions) < len(located):
        raise typer.Exit(1)


@app.command()
def download(
    location: Location,
    folder: Annotated[Path, typer.Argument(help="The folder of the copy, such as a.nwb.zarr.")],
    anon: Anonymous = False,
    profile: Profile = None,
    endpoint_url: Endpoint = None,
    requester_pays: RequesterPays = False,
) -> None:
    """Download a whole session. Run the same command again to resume, or to update it."""
    from intake_nwbzarr import download

    options = _storage_options(anon, profile, endpoint_url, requester_pays)
    with progress_bar(_messages, "listing", download_fields) as show:
        done = download(location, folder, options, progress=show)
    _print(str(done))


@app.command()
def verify(
    context: typer.Context,
    location: Location,
    anon: Anonymous = False,
    profile: Profile = None,
    endpoint_url: Endpoint = None,
    requester_pays: RequesterPays = False,
    all_chunks: Annotated[
        bool,
        typer.Option("--all-chunks", help="Also exit with status 1 if a chunk of an array is not stored."),
    ] = False,
) -> None:
    """Check that xarray shows the same values as pynwb, field by field. Reads the whole session twice."""
    context.obj.error_status = 2
    from intake_nwbzarr import verify

    found = verify(location, _storage_options(anon, profile, endpoint_url, requester_pays))
    _print(f"{found}\n")
    counts = found.by_type()
    width = max(map(len, counts), default=4)
    _print(f"{'type':<{width}}  equal  different  not shown")
    for neurodata_type, (equal, different, unshown) in counts.items():
        _print(f"{neurodata_type:<{width}}{equal:>7}{different:>11}{unshown:>11}")
    for difference in found.different:
        where = _where(difference.path, difference.name)
        _print(f"\nDiffers: {where}\n  pynwb   {difference.raw}\n  xarray  {difference.shown}")
    for missing in found.unshown:
        _print(f"\nNot shown: {_where(missing.path, missing.name)}\n  pynwb   {missing.raw}")
    _show_chunks(found.chunks)
    if found.different or (all_chunks and (found.chunks is None or found.chunks.incomplete)):
        raise typer.Exit(1)


@catalog.command("scan")
def scan_sessions(
    prefixes: Annotated[
        list[str],
        typer.Argument(
            help="Local folders, s3:// prefixes, sessions, or .txt files of locations.", metavar="PREFIX"
        ),
    ],
    output: Tables,
    storage: StorageName = None,
    threads: Threads = 16,
    requests: Requests = 10,
    snapshots: WithSnapshots = False,
    check: Check = False,
    anon: Anonymous = False,
    profile: Profile = None,
    endpoint_url: Endpoint = None,
    requester_pays: RequesterPays = False,
) -> None:
    """Scan sessions into tables. Run the same command again to resume, or to update them."""
    from intake_nwbzarr import scan

    _scan(
        partial(scan, *prefixes, output=output, storage=storage),
        (anon, profile, endpoint_url, requester_pays),
        threads=threads, requests=requests, snapshots=snapshots, check=check,
    )  # fmt: skip


@catalog.command("dandi")
def scan_dandisets(
    dandisets: Annotated[
        list[str],
        typer.Argument(
            help="Dandisets, such as 000719, or 000719@0.240409.1542 for a version.", metavar="DANDISET"
        ),
    ],
    output: Tables,
    glob: Annotated[
        str | None, typer.Option(help="Only assets whose path matches this pattern, such as 'sub-1/*'.")
    ] = None,
    api_url: Annotated[
        str | None, typer.Option(help="The API of another archive than DANDI's own.", metavar="URL")
    ] = None,
    storage: StorageName = "dandi",
    threads: Threads = 16,
    requests: Requests = 10,
    snapshots: WithSnapshots = False,
    check: Check = False,
    anon: Anonymous = False,
    profile: Profile = None,
    endpoint_url: Endpoint = None,
    requester_pays: RequesterPays = False,
) -> None:
    """Scan the NWB Zarr assets of dandisets into tables. Run the same command again to update them."""
    from intake_nwbzarr import scan_dandi

    _scan(
        partial(scan_dandi, *dandisets, glob=glob, api_url=api_url, output=output, storage=storage),
        (anon, profile, endpoint_url, requester_pays),
        threads=threads, requests=requests, snapshots=snapshots, check=check,
    )  # fmt: skip


def _scan(
    scan: Callable[..., ScanReport], server: tuple[bool, str | None, str | None, bool], **options: Any
) -> None:
    """Scan with a progress bar, and print the report."""
    _, profile, endpoint_url, _ = server
    with progress_bar(_messages, "finding", scan_fields) as show:
        report = scan(
            # Without any of these, the sessions of dandisets are public.
            storage_options=_storage_options(*server) or None,
            # Nobody writes to a bucket anonymously.
            output_options=_storage_options(False, profile, endpoint_url, False),
            progress=show,
            **options,
        )
    for location in report.stale:
        _print(f"Stale: {location}")
    for failure in report.failures:
        _show_failure(failure.location, failure.error)
    _print(report.summary("--requests {}"))
    if report.failures:
        _show_failure("", "Some could not be read, as shown above; run the command again to try them again.")
        raise typer.Exit(1)


@contextmanager
def progress_bar[P](
    console: Console, begin: str, fields: Callable[[P], dict[str, Any]]
) -> Iterator[Callable[[P], None]]:
    """Yield a callback that shows progress in a bar, from any thread; nothing if not on a terminal.

    Parameters
    ----------
    console
        The terminal.
    begin
        What the command does until the first progress.
    fields
        Returns what the bar shows of a progress.
    """
    from intake_nwbzarr.sessions.progress import new_bar

    with new_bar(console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(begin, total=None, unit="", failed="")
        yield lambda progress: bar.update(task, **fields(progress))


def download_fields(progress: Progress) -> dict[str, Any]:
    """Return what the bar shows of a download: objects and bytes."""
    from intake_nwbzarr.transport.request_log import readable_size

    size = readable_size(progress.bytes)
    if progress.of_bytes is not None:
        size += f" of {readable_size(progress.of_bytes)}"
    return {
        "description": progress.doing,
        "completed": progress.objects,
        "total": progress.of_objects,
        "unit": f"objects {size}",
    }


def scan_fields(progress: ScanProgress) -> dict[str, Any]:
    """Return what the bar shows of a scan: sessions, and how many of them failed."""
    from intake_nwbzarr.sessions.progress import failed_text

    return {
        "description": "finding" if progress.total is None else "scanning",
        "completed": progress.sessions,
        "total": progress.total,
        "unit": "sessions",
        "failed": failed_text(progress.failed),
    }


def _storage_options(
    anon: bool, profile: str | None, endpoint_url: str | None, requester_pays: bool
) -> dict[str, Any]:
    given = {
        "anon": anon or None,
        "profile": profile,
        "endpoint_url": endpoint_url,
        "requester_pays": requester_pays or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _print(text: str) -> None:
    _Output(soft_wrap=True).print(text, markup=False, highlight=False, emoji=False)


def _where(path: str, name: str) -> str:
    return f"{path or '/'}: {name}" if name else path


def _one_line(error: Exception) -> str:
    from intake_nwbzarr.errors import NWBZarrError

    text = " ".join(str(error).split())
    return text if isinstance(error, NWBZarrError) else f"{type(error).__name__}: {text}"


def _show_error(error: Exception) -> None:
    _messages.print(f"[bold red]Error:[/] {escape(_one_line(error))}", style="red", highlight=False)


def _show_failure(location: str, error: str) -> None:
    text = error if location in error else f"{location}: {error}"
    _messages.print(f"[bold red]Error:[/] {escape(text)}", style="red", highlight=False)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _messages.print(f"[bold yellow]Warning:[/] {escape(str(message))}", style="yellow", highlight=False)
