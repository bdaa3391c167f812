"""The command line that the examples share: which session is opened, and where the picture goes."""

from __future__ import annotations

import argparse
import atexit
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from pynwb import NWBFile

from intake_nwbzarr.demo.sessions import write_zarr3

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def chosen_session(make: Callable[[], NWBFile]) -> str:
    """Where the session is: what the command line names, or a made-up one, written for the occasion.

    Parameters
    ----------
    make
        Makes one up.

    Returns
    -------
    str
        A path or URL. With ``--folder``, a made-up session is written there once, and used again.
        Otherwise it is written to a temporary folder, which goes when the program ends.
    """
    arguments = _arguments()
    if arguments.location is not None:
        return str(arguments.location)
    folder = arguments.folder
    if folder is None:
        temporary = tempfile.TemporaryDirectory(prefix="nwbzarr-example-")
        atexit.register(temporary.cleanup)
        folder = Path(temporary.name)
    session = folder / f"{make.__name__}.nwb.zarr"
    if not session.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Under its name only once it is whole, lest an interrupted run leave half a session to the next.
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            write_zarr3(make(), Path(unfinished) / session.name)
            (Path(unfinished) / session.name).rename(session)
    return str(session)


def save_picture(figure: Figure) -> None:
    """Save a figure where ``--picture`` says, or as the example's name and ``.png``, and say so."""
    picture = _arguments().picture
    figure.savefig(picture, dpi=100)
    typer.echo(f"The picture is in {picture}")


def _arguments() -> argparse.Namespace:
    example = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(description=f"Draw {example}.png, of a made-up session or of your own.")
    parser.add_argument("location", nargs="?", help="path or URL of a session; a made-up one unless given")
    parser.add_argument("--folder", type=Path, help="where made-up sessions are kept; nowhere unless given")
    parser.add_argument(
        "--picture", type=Path, default=Path(f"{example}.png"), help="%(default)s unless given"
    )
    return parser.parse_args()
