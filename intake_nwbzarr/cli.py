"""The command line interface, `nwbzarr`: its commands, error and warning lines, and progress bar."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

from intake_nwbzarr import __version__

if TYPE_CHECKING:
    from intake_nwbzarr.check.verify import VerifyProgress
    from intake_nwbzarr.copies.download import Progress
    from intake_nwbzarr.sessions.scan.scan_report import ScanProgress, ScanReport

app = typer.Typer(
    help="NWB sessions, local or in the cloud.",
    no_args_is_help=True,
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

FINDINGS: Final = 1
"""The exit status of a command that found something wrong."""

COULD_NOT_RUN: Final = 2
"""The exit status of a command that could not do what it was asked for."""

Location = Annotated[str, typer.Argument(help="A local path or a URL (https, s3, ...).")]
Locations = Annotated[
    list[str], typer.Argument(help="Local paths or URLs (https, s3, ...).", metavar="LOCATION...")
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
type Server = dict[str, Any]

# The options of servers, by the argument of `_storage_options`.
_SERVER: Final[Mapping[str, tuple[Any, Any]]] = {
    "anon": (
        Annotated[
            bool, typer.Option("--anon", help="Send unsigned (anonymous) requests, for public buckets.")
        ],
        False,
    ),
    "profile": (
        Annotated[str | None, typer.Option(help="Use this AWS profile, from ~/.aws.", metavar="NAME")],
        None,
    ),
    "endpoint_url": (
        Annotated[str | None, typer.Option(help="Use this S3-compatible server.", metavar="URL")],
        None,
    ),
    "requester_pays": (
        Annotated[bool, typer.Option("--requester-pays", help="Request from a requester-pays bucket.")],
        False,
    ),
    "storage_option": (
        Annotated[
            list[str] | None,
            typer.Option(help="Any other storage option; may be repeated.", metavar="KEY=VALUE"),
        ],
        None,
    ),
}


def _takes_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of servers, which it gets as storage options, its argument `server`."""
    parameters = signature(command, eval_str=True).parameters
    own = [each for name, each in parameters.items() if name != "server"]
    added = [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, (kind, default) in _SERVER.items()
    ]

    @wraps(command)
    def run(**options: Any) -> None:
        given = {name: options.pop(name) for name in _SERVER}
        command(**options, server=_storage_options(**given))

    run.__signature__ = Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    return run


def _storage_options(
    anon: bool,
    profile: str | None,
    endpoint_url: str | None,
    requester_pays: bool,
    storage_option: Sequence[str] | None,
) -> Server:
    from intake_nwbzarr.location.options import is_public

    given: Server = {
        "anon": anon or None,
        "profile": profile,
        "endpoint_url": endpoint_url,
        "requester_pays": requester_pays or None,
    }
    for text in storage_option or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter("It must be KEY=VALUE.", param_hint="--storage-option")
        given[name] = value
        if not is_public(name):
            _show_warning(
                f"The value of the storage option {name} may be a secret, and others on this machine can see "
                "command lines. Use --profile, or environment variables such as AWS_SECRET_ACCESS_KEY."
            )
        elif value[:1] in {"{", "["} or value in {"true", "false", "null"} or value.isdecimal():
            try:
                given[name] = json.loads(value)
            except ValueError as error:
                raise typer.BadParameter(
                    f"Its value is no JSON: {error}.", param_hint="--storage-option"
                ) from error
    return {name: value for name, value in given.items() if value is not None}


def _for_each(
    locations: Sequence[str],
    server: Server,
    as_json: bool,
    work: Callable[[str, Server], tuple[object, str, int]],
) -> None:
    """Do something with each location, and print what it returns: a document, its text and an exit status.

    An error of one of several is shown, and the others go on.
    """
    from intake_nwbzarr.errors import NWBZarrError
    from intake_nwbzarr.location.options import applicable

    documents: list[object] = []
    worst = 0
    for number, location in enumerate(locations):
        try:
            options = applicable(server, location) if locations[1:] else server
            document, text, status = work(location, options)
        except NWBZarrError as error:
            if not locations[1:]:
                raise
            _show_error(error)
            document, text, status = {"location": location, "error": _one_line(error)}, "", COULD_NOT_RUN
        documents.append(document)
        worst = max(worst, status)
        if text and not as_json:
            _print(f"\n{text}" if number else text)
    if as_json:
        _print_json(documents)
    if worst:
        raise typer.Exit(worst)


def _print_json(document: object) -> None:
    import msgspec

    _print(msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=2).decode())


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


def main() -> None:
    """Run the command; an error is one red line, with exit status 2."""
    settings = Settings()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            app(_options_first(sys.argv[1:]), obj=settings)
        except Exception as error:
            if settings.debug:
                raise
            _show_error(error)
            raise SystemExit(COULD_NOT_RUN) from None


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
@_takes_server
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

    _for_each(locations, server, as_json, work)


@app.command()
@_takes_server
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

    _for_each(locations, server, as_json, work)


@app.command()
@_takes_server
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
            _show_error(error)
        else:
            _print(str(sessions[-1]))
    if sessions:
        _print(f"\n{write_snapshots(target, sessions, add=add)}")
    if len(sessions) < len(located):
        raise typer.Exit(COULD_NOT_RUN)


@app.command()
@_takes_server
def download(
    location: Location,
    server: Server,
    folder: Annotated[Path, typer.Argument(help="The folder of the copy, such as a.nwb.zarr.")],
    as_json: AsJSON = False,
) -> None:
    """Download a whole session. Run the same command again to resume, or to update it."""
    from intake_nwbzarr import download

    with progress_bar(_messages, "listing", download_fields) as show:
        done = download(location, folder, server, progress=show)
    if as_json:
        _print_json(done)
    else:
        _print(str(done))


@app.command()
@_takes_server
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
        with progress_bar(_messages, "opening", verify_fields) as show:
            found = verify(location, options, progress=show)
        incomplete = all_chunks and (found.chunks is None or found.chunks.incomplete)
        return found.document, found.report, FINDINGS if found.different or incomplete else 0

    _for_each(locations, server, as_json, work)


@catalog.command("scan")
@_takes_server
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
) -> None:
    """Scan sessions into tables. Run the same command again to resume, or to update them."""
    from intake_nwbzarr import scan

    _scan(
        partial(scan, *prefixes, output=output, storage=storage),
        server,
        threads=threads, requests=requests, snapshots=snapshots, check=check,
    )  # fmt: skip


@catalog.command("dandi")
@_takes_server
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
) -> None:
    """Scan the NWB Zarr assets of dandisets into tables. Run the same command again to update them."""
    from intake_nwbzarr import scan_dandi

    _scan(
        partial(scan_dandi, *dandisets, glob=glob, api_url=api_url, output=output, storage=storage),
        server,
        threads=threads, requests=requests, snapshots=snapshots, check=check,
    )  # fmt: skip


def _scan(scan: Callable[..., ScanReport], server: Server, **options: Any) -> None:
    """Scan with a progress bar, and print the report."""
    with progress_bar(_messages, "finding", scan_fields) as show:
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
    for location in report.stale:
        _print(f"Stale: {location}")
    for failure in report.failures:
        _show_failure(failure.location, failure.error)
    _print(report.summary("--requests {}"))
    if report.failures:
        _show_failure("", "Some could not be read, as shown above; run the command again to try them again.")
        raise typer.Exit(FINDINGS)


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


def verify_fields(progress: VerifyProgress) -> dict[str, Any]:
    """Return what the bar shows of a verification: fields, and the object that is compared."""
    return {
        "description": "comparing",
        "completed": progress.fields,
        "total": progress.of_fields,
        "unit": f"fields {progress.path}",
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


def _print(text: str) -> None:
    _Output(soft_wrap=True).print(text, markup=False, highlight=False, emoji=False)


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
