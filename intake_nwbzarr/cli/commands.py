"""The commands for sessions, such as `nwbzarr info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intake_nwbzarr.cli.locations import (
    COULD_NOT_RUN,
    FINDINGS,
    AsJSON,
    Location,
    Locations,
    Server,
    for_each,
    takes_server,
)
from intake_nwbzarr.cli.output import Output, messages, print_json, print_text, progress_bar, show_error

if TYPE_CHECKING:
    from intake_nwbzarr.check.verify import VerifyProgress
    from intake_nwbzarr.copies.download import Progress

app = typer.Typer(
    help="NWB sessions, local or in the cloud.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.command()
def demo(
    output: Annotated[Path | None, typer.Option(help="The folder for the figure and the catalog.")] = None,
) -> None:
    """Run an end-to-end demonstration on this machine: two sessions, an S3 server, a catalog and a figure."""
    from intake_nwbzarr.arguments import local_path
    from intake_nwbzarr.demo.tour import run_demo

    run_demo(Output(), local_path(output or "nwbzarr-demo", "The demo folder"))


@app.command()
@takes_server
def info(
    locations: Locations,
    server: Server,
    group: Annotated[
        str | None, typer.Option(help="The path of one object in the file.", metavar="PATH")
    ] = None,
    consolidated: Annotated[
        bool, typer.Option(help="Use consolidated metadata, or list the store instead, if they are stale.")
    ] = True,
    chunks: Annotated[
        bool, typer.Option(help="Count the stored chunks by listing them, where the storage supports it.")
    ] = True,
    as_json: AsJSON = False,
) -> None:
    """Show what sessions contain, how it is stored, and how many requests that took."""
    from intake_nwbzarr import session_info

    def work(location: str, options: Server) -> tuple[object, str, int]:
        use_consolidated = None if consolidated else False
        found = session_info(location, options, group=group, consolidated=use_consolidated, chunks=chunks)
        return found.document, str(found), 0

    for_each(locations, server, as_json, work)


@app.command()
@takes_server
def consolidate(
    locations: Locations,
    server: Server,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Write or repair the consolidated metadata of sessions, so that opening them takes two requests."""
    from intake_nwbzarr import consolidate

    def work(location: str, options: Server) -> tuple[object, str, int]:
        report = consolidate(location, options, dry_run=dry_run)
        signs = (("+", report.added), ("-", report.removed), ("~", report.changed))
        lines = [f"  {sign} {path or '/'}" for sign, paths in signs for path in paths]
        return report, "\n".join([str(report), *lines]), 0

    for_each(locations, server, as_json, work)


@app.command()
@takes_server
def snapshot(
    locations: Locations,
    server: Server,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The snapshot file; the default is NAME.snapshot.zip.", metavar="FILE"
        ),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Keep the other sessions in the file.")] = False,
) -> None:
    """Save the metadata needed to open sessions to one small file, so that they open without any requests."""
    from intake_nwbzarr.copies.recording import record_session, snapshot_path
    from intake_nwbzarr.copies.snapshot import write_snapshots
    from intake_nwbzarr.errors import NWBZarrError
    from intake_nwbzarr.location.location import locate
    from intake_nwbzarr.location.options import applicable

    several = len(locations) > 1
    located = [locate(each, applicable(server, each) if several else server) for each in locations]
    target = snapshot_path(located, output)
    sessions = []
    for location in located:
        try:
            sessions.append(record_session(location))
        except NWBZarrError as error:
            # If one of several sessions fails, the others are still saved.
            if len(located) == 1:
                raise
            show_error(error)
        else:
            print_text(str(sessions[-1]))
    if sessions:
        print_text(f"\n{write_snapshots(target, sessions, add=add)}")
    if len(sessions) < len(located):
        raise typer.Exit(COULD_NOT_RUN)


@app.command()
@takes_server
def download(
    location: Location,
    server: Server,
    folder: Annotated[Path, typer.Argument(help="The folder of the copy, such as a.nwb.zarr.")],
    as_json: AsJSON = False,
) -> None:
    """Download a whole session. Run the same command again to resume, or to update it."""
    from intake_nwbzarr import download

    with progress_bar(messages, "listing", download_fields) as show:
        done = download(location, folder, server, progress=show)
    if as_json:
        print_json(done)
    else:
        print_text(str(done))


@app.command()
@takes_server
def verify(
    locations: Locations,
    server: Server,
    all_chunks: Annotated[
        bool,
        typer.Option("--all-chunks", help="Also exit with status 1 if a chunk of an array is not stored."),
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Check that xarray shows the same values as pynwb, field by field. Reads the whole session twice."""
    from intake_nwbzarr import verify

    def work(location: str, options: Server) -> tuple[object, str, int]:
        with progress_bar(messages, "opening", verify_fields) as show:
            found = verify(location, options, progress=show)
        incomplete = all_chunks and (found.chunks is None or found.chunks.incomplete)
        return found.document, found.report, FINDINGS if found.different or incomplete else 0

    for_each(locations, server, as_json, work)


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


def verify_fields(progress: VerifyProgress) -> dict[str, Any]:
    """Return what the bar shows of a verification: fields, and the object that is compared."""
    return {
        "description": "comparing",
        "completed": progress.fields,
        "total": progress.of_fields,
        "unit": f"fields {progress.path}",
    }
