"""Writes folders of many sessions: units in Zarr 2, and animals that run, of which many share their files."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from intake_nwbzarr.demo.running import running_session
from intake_nwbzarr.demo.sessions import spiking_session, write_zarr3
from intake_nwbzarr.demo.zarr2 import write_zarr2


def write_units(folder: Path, count: int) -> None:
    """Sessions with a table of units, in Zarr 2 as archives have them; all have the same contents."""
    with tempfile.TemporaryDirectory() as scratch:
        write_zarr3(spiking_session(), Path(scratch, "a"))
        write_zarr2(Path(scratch, "a"), Path(scratch, "b"))
        _multiply([Path(scratch, "b")], folder, count)


def write_running(folder: Path, count: int, different: int | None = None) -> None:
    """Sessions with units and a running speed, in Zarr 3; so many of them have different contents."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = [Path(scratch, str(number)) for number in range(different or count)]
        # Every one of them has units and a speed, and is of a mouse.
        numbers = (n for n in range(10 * count) if n % 5 != 4 and n % 7 != 6 and n % 9 != 8)
        for source, number in zip(sources, numbers, strict=False):
            write_zarr3(running_session(number), source)
        _multiply(sources, folder, count)


def link_running(folder: Path, count: int) -> None:
    """So many names of the first session of ``running-24``, for a server that follows links."""
    folder.mkdir()
    for number in range(count):
        (folder / f"sub-{number:05}.nwb.zarr").symlink_to("../running-24/sub-0000.nwb.zarr")


def _multiply(sources: list[Path], folder: Path, count: int) -> None:
    """Copy sessions until there are enough, without taking more room."""
    firsts: dict[Path, Path] = {}
    for number in range(count):
        source, target = sources[number % len(sources)], folder / f"sub-{number:04}.nwb.zarr"
        if source in firsts:
            shutil.copytree(firsts[source], target, copy_function=os.link)
        else:
            firsts[source] = shutil.copytree(source, target)
