"""The options and arguments that commands share: locations, options of servers, and exit statuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Final

import typer

from intake_nwbzarr.cli.output import one_line, print_json, print_text, show_error, show_warning

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
            show_warning(
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


def for_each(
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
            show_error(error)
            document, text, status = {"location": location, "error": one_line(error)}, "", COULD_NOT_RUN
        documents.append(document)
        worst = max(worst, status)
        if text and not as_json:
            print_text(f"\n{text}" if number else text)
    if as_json:
        print_json(documents)
    if worst:
        raise typer.Exit(worst)
