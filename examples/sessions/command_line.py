"""The command line that the examples share: which session is opened, and where the picture goes.

As notebooks, the examples have no command line: the environment variable ``EXAMPLE_SESSIONS`` may name a
prefix, such as ``s3://bucket/examples``, that has the made-up sessions.
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from pynwb import NWBFile

from intake_nwbzarr.demo.running import write_running_sessions
from intake_nwbzarr.demo.sessions import write_zarr3

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A kernel's own command line is not for the example.
_NOTEBOOK = "ipykernel" in sys.modules


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
    if arguments.location:
        return str(arguments.location[0])
    if prefix := os.environ.get("EXAMPLE_SESSIONS"):
        return f"{prefix}/{make.__name__}.nwb.zarr"
    folder = _folder(arguments)
    session = folder / f"{make.__name__}.nwb.zarr"
    if not session.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Under its name only once it is whole, lest an interrupted run leave half a session to the next.
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            write_zarr3(make(), Path(unfinished) / session.name)
            (Path(unfinished) / session.name).rename(session)
    return str(session)


def chosen_sessions(count: int = 24) -> tuple[list[str], Path, dict[str, dict[str, str]]]:
    """Return where many sessions are, a folder for what is made of them, and the storage options for them.

    Parameters
    ----------
    count
        How many sessions of running animals are made up, unless the command line names prefixes.

    Returns
    -------
    prefixes : list of str
        Paths or URLs that have sessions below them.
    folder : Path
        That of ``--folder``, or a temporary one.
    storage_options : dict
        What tables of local sessions may name; empty for others.
    """
    arguments = _arguments()
    folder = _folder(arguments)
    prefixes = [str(location) for location in arguments.location]
    if not prefixes and (prefix := os.environ.get("EXAMPLE_SESSIONS")):
        prefixes = [f"{prefix}/running"]
    if not prefixes:
        prefixes = [str(folder / "sessions")]
        write_running_sessions(folder / "sessions", count)
    local = [prefix for prefix in prefixes if "://" not in prefix]
    return prefixes, folder, {"local": {"prefix": local}} if local else {}


def save_picture(figure: Figure) -> None:
    """Save a figure where ``--picture`` says, or as the example's name and ``.png``, and say so.

    A notebook shows the figure instead.
    """
    if _NOTEBOOK:
        return
    picture = _arguments().picture
    figure.savefig(picture, dpi=100)
    typer.echo(f"The picture is in {picture}")


def _folder(arguments: argparse.Namespace) -> Path:
    if arguments.folder is not None:
        return Path(arguments.folder)
    temporary = tempfile.TemporaryDirectory(prefix="nwbzarr-example-")
    atexit.register(temporary.cleanup)
    return Path(temporary.name)


def _arguments() -> argparse.Namespace:
    example = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(description=f"Draw {example}.png, of a made-up session or of your own.")
    parser.add_argument(
        "location", nargs="*", help="path or URL of a session, or of several; made-up ones unless given"
    )
    parser.add_argument("--folder", type=Path, help="where made-up sessions are kept; nowhere unless given")
    parser.add_argument(
        "--picture", type=Path, default=Path(f"{example}.png"), help="%(default)s unless given"
    )
    return parser.parse_args([] if _NOTEBOOK else None)
