"""The commands `nwbzarr catalog scan` and `nwbzarr catalog dandi`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intake_nwbzarr.cli.locations import FINDINGS, AsJSON, Server, takes_server
from intake_nwbzarr.cli.output import messages, print_json, print_text, progress_bar, show_failure

if TYPE_CHECKING:
    from intake_nwbzarr.sessions.scan.scan_report import ScanProgress, ScanReport

catalog = typer.Typer(help="Tables of many sessions, which can be searched.", no_args_is_help=True)

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


@catalog.command("scan")
@takes_server
def scan_sessions(
    prefixes: Annotated[
        list[str],
        typer.Argument(
            help="Local folders, s3:// prefixes, sessions, or .txt files of locations.", metavar="PREFIX"
        ),
    ],
    output: Tables,
    server: Server,
    storage: StorageName = None,
    threads: Threads = 16,
    requests: Requests = 10,
    snapshots: WithSnapshots = False,
    check: Check = False,
    as_json: AsJSON = False,
) -> None:
    """Scan sessions into tables. Run the same command again to resume, or to update them."""
    from intake_nwbzarr import scan

    _scan(
        partial(scan, *prefixes, output=output, storage=storage),
        server,
        as_json,
        threads=threads, requests=requests, snapshots=snapshots, check=check,
    )  # fmt: skip


@catalog.command("dandi")
@takes_server
def scan_dandisets(
    dandisets: Annotated[
        list[str],
        typer.Argument(
            help="Dandisets, such as 000719, or 000719@0.240409.1542 for a version.", metavar="DANDISET"
        ),
    ],
    output: Tables,
    server: Server,
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
    as_json: AsJSON = False,
) -> None:
    """Scan the NWB Zarr assets of dandisets into tables. Run the same command again to update them."""
    from intake_nwbzarr import scan_dandi

    _scan(
        partial(scan_dandi, *dandisets, glob=glob, api_url=api_url, output=output, storage=storage),
        server,
        as_json,
        threads=threads, requests=requests, snapshots=snapshots, check=check,
    )  # fmt: skip


def _scan(scan: Callable[..., ScanReport], server: Server, as_json: bool, **options: Any) -> None:
    """Scan with a progress bar, and print the report."""
    with progress_bar(messages, "finding", scan_fields) as show:
        report = scan(
            # Without any of these, the sessions of dandisets are public.
            storage_options=server or None,
            # Nobody writes to a bucket anonymously.
            output_options={
                name: value for name, value in server.items() if name not in {"anon", "requester_pays"}
            },
            progress=show,
            **options,
        )
    for location in report.stale if not as_json else ():
        print_text(f"Stale: {location}")
    for failure in report.failures:
        show_failure(failure.location, failure.error)
    if as_json:
        print_json(report)
    else:
        print_text(report.summary("--requests {}"))
    if report.failures:
        show_failure("", "Some could not be read, as shown above; run the command again to try them again.")
        raise typer.Exit(FINDINGS)


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
