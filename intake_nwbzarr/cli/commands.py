"""The commands for sessions, such as `nwbzarr info`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intake_nwbzarr.cli.locations import (
    FINDINGS,
    AsJSON,
    Locations,
    Server,
    Session,
    each_of,
    file_names,
    finish,
    for_each,
    parsed_options,
    sessions_of,
    takes_server,
)
from intake_nwbzarr.cli.output import Output, messages, one_line, print_text, progress_bar, waiting

if TYPE_CHECKING:
    from intake_nwbzarr.checks.check import CheckProgress
    from intake_nwbzarr.checks.verify import VerifyProgress
    from intake_nwbzarr.conversion.report import ConvertProgress
    from intake_nwbzarr.copies.download import Progress
    from intake_nwbzarr.pages.picture import PageProgress

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
    from intake_nwbzarr.demo import check_packages

    check_packages()
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

    def work(session: Session) -> tuple[object, str, int]:
        use_consolidated = None if consolidated else False
        with waiting("reading metadata"):
            found = session_info(
                session.location,
                session.options,
                group=group,
                consolidated=use_consolidated,
                chunks=chunks,
            )
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

    def work(session: Session) -> tuple[object, str, int]:
        with waiting("reading metadata"):
            report = consolidate(session.location, session.options, dry_run=dry_run)
        signs = (("+", report.added), ("-", report.removed), ("~", report.changed))
        lines = [f"  {sign} {path or '/'}" for sign, paths in signs for path in paths]
        return report, "\n".join([str(report), *lines]), 0

    for_each(locations, server, as_json, work)


@app.command()
@takes_server
def convert(
    locations: Locations,
    destination: Annotated[
        str,
        typer.Argument(
            help="A local folder or an s3:// URL with nothing in it; of several sessions, the folder above."
        ),
    ],
    server: Server,
    chunk_mib: Annotated[float, typer.Option(help="MiB of a chunk in memory, where that is chosen.")] = 4,
    shard_mib: Annotated[float, typer.Option(help="MiB of a shard in memory.")] = 64,
    compressor: Annotated[
        str, typer.Option(help="keep, zstd, blosc-zstd, blosc-lz4, gzip or none.", metavar="NAME")
    ] = "keep",
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out parts that cannot be read.")
    ] = False,
    verify: Annotated[
        bool, typer.Option(help="Read again and compare what is written, and run verify at the end.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show how arrays would be stored.")] = False,
    destination_option: Annotated[
        list[str] | None,
        typer.Option(help="A storage option of the destination only; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Convert sessions to consolidated, sharded Zarr 3. Run the same command again to resume."""
    from intake_nwbzarr import convert
    from intake_nwbzarr.location.options import applicable

    for_destination = applicable(server, destination)
    only_for_destination = parsed_options(destination_option or (), "--destination-option")

    def work(session: Session) -> tuple[object, str, int]:
        target, options = destination, session.options
        if session.is_alone:
            # Both get the options that they can have; one that neither can have is a mistake.
            of_source = applicable(server, session.name)
            mistaken = server.keys() - of_source.keys() - for_destination.keys()
            options = of_source | {name: server[name] for name in mistaken}
        else:
            name = re.sub(r"(\.nwb)?(\.zarr|\.h5|\.hdf5)?(\.zip)?$", "", names[session.name])
            target = f"{destination.rstrip('/')}/{name}.nwb.zarr"
        with progress_bar(messages, "opening", convert_fields) as show:
            done = convert(
                session.location,
                target,
                options,
                destination_options=for_destination | only_for_destination,
                chunk_mib=chunk_mib,
                shard_mib=shard_mib,
                compressor=compressor,
                skip_unreadable=skip_unreadable,
                verify=verify,
                dry_run=dry_run,
                progress=show,
            )
        # A session that pynwb cannot read is a finding, although each chunk is equal.
        is_fine = done.is_equal and done.unverified is None
        return done.document, str(done), 0 if is_fine else FINDINGS

    sessions = sessions_of(locations, server)
    names = file_names(sessions)
    finish(*each_of(sessions, as_json, work), as_json)


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
    as_json: AsJSON = False,
) -> None:
    """Save the metadata needed to open sessions to one small file, so that they open without any requests."""
    from intake_nwbzarr.copies.recording import record_session, snapshot_path
    from intake_nwbzarr.copies.snapshot import write_snapshots
    from intake_nwbzarr.location.location import locate
    from intake_nwbzarr.location.options import applicable

    target = snapshot_path([locate(each, applicable(server, each)) for each in locations], output)
    sessions = []

    def work(session: Session) -> tuple[object, str, int]:
        with waiting("opening"):
            sessions.append(record_session(locate(session.location, session.options)))
        return {**sessions[-1].document, "file": target}, str(sessions[-1]), 0

    documents, status = each_of(sessions_of(locations, server), as_json, work)
    # If one of several sessions fails, the others are still saved.
    saved = write_snapshots(target, sessions, add=add) if sessions else None
    if saved is not None and not as_json:
        print_text(f"\n{saved}")
    finish(documents, status, as_json)


@app.command()
@takes_server
def download(
    locations: Locations,
    server: Server,
    folder: Annotated[
        Path,
        typer.Argument(help="The copy, such as a.nwb.zarr; of several sessions, the folder of their copies."),
    ],
    as_json: AsJSON = False,
) -> None:
    """Download whole sessions. Run the same command again to resume, or to update them."""
    from intake_nwbzarr import download

    def work(session: Session) -> tuple[object, str, int]:
        # Copies of several sessions have the names of `file_names`, which are unique.
        target = folder if session.is_alone else folder / names[session.name]
        with progress_bar(messages, "listing", download_fields) as show:
            done = download(session.location, target, session.options, progress=show)
        return done, str(done), 0

    sessions = sessions_of(locations, server)
    names = file_names(sessions)
    finish(*each_of(sessions, as_json, work), as_json)


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

    def work(session: Session) -> tuple[object, str, int]:
        with progress_bar(messages, "opening", verify_fields) as show:
            found = verify(session.location, session.options, progress=show)
        incomplete = all_chunks and (found.chunks is None or found.chunks.incomplete)
        return found.document, found.report, FINDINGS if found.different or incomplete else 0

    for_each(locations, server, as_json, work)


@app.command()
@takes_server
def page(
    locations: Locations,
    server: Server,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The HTML file, or of several sessions the folder.",
            metavar="PLACE",
        ),
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Draw pictures, which read some of the data.")] = True,
    as_json: AsJSON = False,
) -> None:
    """Show a session as one HTML file with pictures; of several sessions, one file each and an index."""
    from intake_nwbzarr import page
    from intake_nwbzarr.arguments import local_path
    from intake_nwbzarr.errors import NWBZarrError
    from intake_nwbzarr.location.urls import redact
    from intake_nwbzarr.pages.index import INDEX, IndexedPage, file_name, finished_index, indexed

    sessions = sessions_of(locations, server)
    is_one = len(sessions) == 1 and sessions[0].is_alone
    folder = Path() if is_one else local_path(output or "nwbzarr-pages", "The folder of the pages")
    taken = {INDEX}
    pages: list[IndexedPage] = []
    failures: dict[str, str] = {}

    def work(session: Session) -> tuple[object, str, int]:
        name = file_name(session.name, taken)
        target = output or Path(name) if is_one else folder / name
        try:
            with progress_bar(messages, "opening", page_fields) as show:
                made = page(session.location, target, session.options, pictures=pictures, progress=show)
        except NWBZarrError as error:
            failures[redact(session.name)] = one_line(error)
            raise
        pages.append(indexed(made, name))
        return made.document, str(made), 0

    failures |= {redact(each.name): one_line(each.refused) for each in sessions if each.refused is not None}
    documents, status = each_of(sessions, as_json, work)
    if not is_one:
        finished_index(folder, pages, failures)
    finish(documents, status, as_json)


def page_fields(progress: PageProgress) -> dict[str, Any]:
    """Return what the bar shows of a page: pictures, and which one is read."""
    return {
        "description": "drawing",
        "completed": progress.done,
        "total": progress.total,
        "unit": f"pictures {progress.title:.40}",
    }


@app.command()
@takes_server
def check(
    locations: Locations,
    server: Server,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Also show the findings of nwbinspector, if it is installed.")
    ] = False,
    latency: Annotated[
        float, typer.Option(help="The latency that costs assume, in milliseconds.", metavar="MS")
    ] = 50.0,
    bandwidth: Annotated[
        float, typer.Option(help="The bandwidth that costs assume, in Mbit/s.", metavar="MBIT")
    ] = 100.0,
    window: Annotated[
        float, typer.Option(help="Seconds of a recording whose costs are shown.", metavar="SECONDS")
    ] = 10.0,
    as_json: AsJSON = False,
) -> None:
    """Check what somebody who streams sessions will meet, and how to mend it."""
    from intake_nwbzarr import check

    def work(session: Session) -> tuple[object, str, int]:
        with progress_bar(messages, "opening", check_fields) as show:
            report = check(
                session.location,
                session.options,
                latency=latency / 1000,
                bandwidth=bandwidth * 1e6 / 8,
                window=window,
                inspect=inspect,
                progress=show,
            )
        return report.document, str(report), 0 if report.ok else FINDINGS

    for_each(locations, server, as_json, work)


def _explained(incomplete: str) -> list[str]:
    """Return what a shell completes."""
    from intake_nwbzarr.checks.codes import explained

    return [name for name in explained() if name.startswith(incomplete)]


@app.command()
def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            help="The code of a finding, or the class of an error; all without it.",
            metavar="CODE",
            autocompletion=_explained,
        ),
    ] = None,
) -> None:
    """Explain a code of `nwbzarr check`, or an error: what it means, why it matters, and what mends it."""
    from intake_nwbzarr.checks.codes import explain, explain_all

    print_text(explain_all() if name is None else explain(name))


def check_fields(progress: CheckProgress) -> dict[str, Any]:
    """Return what the bar shows of a check: steps, and what is checked."""
    return {
        "description": "checking",
        "completed": progress.steps,
        "total": progress.of_steps,
        "unit": progress.step,
    }


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


def convert_fields(progress: ConvertProgress) -> dict[str, Any]:
    """Return what the bar shows of a conversion: bytes of arrays, or fields that are compared."""
    from intake_nwbzarr.transport.request_log import readable_size

    if progress.doing == "verifying":
        unit = f"fields {progress.path}"
    else:
        unit = f"bytes ({readable_size(progress.done)}) {progress.path}"
    return {
        "description": progress.doing,
        "completed": progress.done,
        "total": progress.total,
        "unit": unit,
    }


def verify_fields(progress: VerifyProgress) -> dict[str, Any]:
    """Return what the bar shows of a verification: fields, and the object that is compared."""
    return {
        "description": "comparing",
        "completed": progress.fields,
        "total": progress.of_fields,
        "unit": f"fields {progress.path}",
    }
