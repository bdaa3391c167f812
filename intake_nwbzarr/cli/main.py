"""The `nwbzarr` command: options of all commands, and how errors and warnings end it."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from intake_nwbzarr import __version__
from intake_nwbzarr.cli.catalog import catalog
from intake_nwbzarr.cli.commands import app
from intake_nwbzarr.cli.locations import COULD_NOT_RUN
from intake_nwbzarr.cli.output import print_text, show_error, show_warning

app.add_typer(catalog, name="catalog")


INTERRUPTED: Final = 130
"""The exit status after Ctrl-C."""


@dataclass
class Settings:
    """Settings that all commands share."""

    debug: bool = False


def main() -> None:
    """Run the command; an error is one red line, with exit status 2."""
    settings = Settings()
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            app(_options_first(sys.argv[1:]), obj=settings)
        except SystemExit as ended:
            if ended.code == INTERRUPTED:
                # Typer ends silently.
                sys.stderr.write("Aborted.\n")
            raise
        except Exception as error:
            if settings.debug:
                raise
            show_error(error)
            raise SystemExit(COULD_NOT_RUN) from None


def _options_first(arguments: list[str]) -> list[str]:
    """Return the arguments with ``--debug``, an option of all commands, before the command."""
    return sorted(arguments, key=lambda argument: argument != "--debug")


def _show_version(show: bool) -> None:
    if show:
        print_text(f"intake-nwbzarr {__version__}")
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
