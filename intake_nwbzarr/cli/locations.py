"""The options and arguments that commands share: locations, options of servers, and exit statuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from intake_nwbzarr.cli.output import one_line, print_json, print_text, show_error, show_warning

if TYPE_CHECKING:
    from intake_nwbzarr.errors import NWBZarrError
    from intake_nwbzarr.location.location import Location as SessionLocation

FINDINGS: Final = 1
"""The exit status of a command that found something wrong."""

COULD_NOT_RUN: Final = 2
"""The exit status of a command that could not do what it was asked for."""

Locations = Annotated[
    list[str],
    typer.Argument(
        help="Local paths or URLs (https, s3, ...) of sessions, or of tables of sessions.",
        metavar="LOCATION...",
    ),
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


def takes_server(command: Callable[..., None]) -> Callable[..., None]:
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
    given: Server = {
        "anon": anon or None,
        "profile": profile,
        "endpoint_url": endpoint_url,
        "requester_pays": requester_pays or None,
    }
    given |= parsed_options(storage_option or (), "--storage-option")
    return {name: value for name, value in given.items() if value is not None}


def parsed_options(texts: Sequence[str], option: str) -> Server:
    """Return storage options that were given as KEY=VALUE; `option` names what they were given to."""
    from intake_nwbzarr.location.options import is_public

    given: Server = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter("It must be KEY=VALUE.", param_hint=option)
        given[name] = value
        # Entries by name, for the sessions of tables, have options of their own.
        if not is_public(name) and not value.startswith("{"):
            show_warning(
                f"The value of the storage option {name} may be a secret, and others on this machine can see "
                "command lines. Use --profile, or environment variables such as AWS_SECRET_ACCESS_KEY."
            )
        elif value[:1] in {"{", "["} or value in {"true", "false", "null"} or value.isdecimal():
            try:
                given[name] = json.loads(value)
            except ValueError as error:
                raise typer.BadParameter(f"Its value is no JSON: {error}.", param_hint=option) from error
    return given


@dataclass(frozen=True)
class Session:
    """A session that a command was given, itself or in a table."""

    # As it was given, or as the table names it.
    name: str
    # What functions of the package accept.
    location: str | SessionLocation
    options: Server | None
    # Why the table must not name it.
    refused: NWBZarrError | None
    # Whether it is the only one, whose error is that of the command.
    is_alone: bool


type Work = Callable[[Session], tuple[object, str, int]]
"""Does something with a session, and returns a document, its text and an exit status."""


def for_each(locations: Sequence[str], server: Server, as_json: bool, work: Work) -> None:
    """Do something with each session, print what it returns, and exit; a table stands for its sessions."""
    finish(*each_of(sessions_of(locations, server), as_json, work), as_json)


def each_of(sessions: Sequence[Session], as_json: bool, work: Work) -> tuple[list[object], int]:
    """Do something with each session, and print the texts; return the documents, and the worst status.

    An error of one of several is shown, and the others go on.
    """
    from intake_nwbzarr.errors import NWBZarrError

    documents: list[object] = []
    worst = 0
    for session in sessions:
        try:
            if session.refused is not None:
                raise session.refused
            document, text, status = work(session)
        except NWBZarrError as error:
            if session.is_alone:
                raise
            show_error(error)
            document, text, status = {"location": session.name, "error": one_line(error)}, "", COULD_NOT_RUN
        if text and not as_json:
            print_text(f"\n{text}" if documents else text)
        documents.append(document)
        worst = max(worst, status)
    return documents, worst


def finish(documents: Sequence[object], status: int, as_json: bool) -> None:
    """Print the documents, if they were asked for, and exit."""
    if as_json:
        print_json(documents)
    if status:
        raise typer.Exit(status)


def sessions_of(locations: Sequence[str], server: Server) -> list[Session]:
    """Return the sessions at the locations, those in tables as well."""
    from intake_nwbzarr.location.options import applicable

    if len(locations) == 1 and not _are_tables(locations[0], server):
        return [Session(locations[0], locations[0], server, None, is_alone=True)]
    found: list[Session] = []
    for location in locations:
        if _are_tables(location, server):
            found += _in_tables(location, server)
        else:
            found.append(Session(location, location, applicable(server, location), None, is_alone=False))
    return found


def file_names(sessions: Sequence[Session]) -> dict[str, str]:
    """Return a file name for each session, by its name: as many last parts of it as tell them apart."""
    # A table of somebody else must not name files elsewhere.
    parts = {
        each.name: [part for part in re.split(r"[/\\]", _path_of(each.name)) if part.strip(".")]
        for each in sessions
    }
    longest = max(map(len, parts.values()), default=0)
    for length in range(1, longest + 1):
        names = {name: "-".join(each[-length:]) for name, each in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {name: str(number) for number, name in enumerate(parts)}


def _path_of(location: str) -> str:
    from intake_nwbzarr.location.urls import split_url

    return "/".join(split_url(location)[1]) if "://" in location else location


def _are_tables(location: str, server: Server) -> bool:
    """Return whether a location is that of tables: NAME.parquet, or a folder that has parts of tables."""
    from intake_nwbzarr.errors import NWBZarrError
    from intake_nwbzarr.location.urls import protocol_of, split_url

    if location.endswith(".parquet"):
        return True
    if protocol_of(location) is None:
        return any(Path(location, "sessions").glob("*.parquet"))
    last = split_url(location)[1][-1:]
    if not location.startswith("s3://") or not last or "." in last[0]:
        return False
    try:
        return bool(_in_tables(location, server))
    except NWBZarrError:
        return False


def _in_tables(tables: str, server: Server) -> list[Session]:
    from intake_nwbzarr.errors import NWBZarrError
    from intake_nwbzarr.location.options import applicable
    from intake_nwbzarr.location.urls import protocol_of
    from intake_nwbzarr.sessions.tables.storages import Storages, is_plain, table_location
    from intake_nwbzarr.sessions.tables.tables import Tables

    # Entries by the names in the column `storage` are passed as they are, as in Python.
    plain = is_plain(server)
    place = table_location(tables, None, applicable(server, tables) if plain else server)
    rows = Tables(place).opened().read("sessions", ["location", "storage", "source"])
    storages: dict[str | None, Storages] = {}
    found: list[Session] = []
    for key, storage, source in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        scheme = protocol_of(key)
        if scheme not in storages:
            storages[scheme] = Storages.of(place, applicable(server, key) if plain else server)
        try:
            location = storages[scheme].location(key, storage, source)
        except NWBZarrError as error:
            found.append(Session(key, key, None, error, is_alone=False))
        else:
            found.append(Session(key, location, None, None, is_alone=False))
    return found
