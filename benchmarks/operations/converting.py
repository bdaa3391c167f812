"""Conversion of a local session, beside a plain copy of the same bytes and what hdmf-zarr does."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

type Options = Mapping[str, Any] | None
type Run = Callable[[], Any]

FILE = 45 * 2**20
"""Bytes of a file of the copy, about as many as a shard of the conversion has."""


def convert(url: str, options: Options, to: str, *, verify: bool = True) -> Run:
    """Convert to a folder, which is removed before each run."""
    from intake_nwbzarr import convert
    from intake_nwbzarr.checks import verify as _  # noqa: F401 - imported before it is timed

    _remove(to)

    def run() -> Run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = convert(url, to, options, verify=verify)

        def facts() -> dict[str, Any]:
            size = _size(Path(to))
            _remove(to)
            return {"objects": done.objects, "bytes": size, "decoded": done.bytes, "equal": done.is_equal}

        return facts

    return run


def copy(url: str, options: Options, to: str) -> Run:  # noqa: ARG001 - as all operations
    """Read all files of a session, and write their bytes to files of the size of a shard, each with fsync."""
    _remove(to)
    files = sorted(path for path in Path(url).rglob("*") if path.is_file())

    def run() -> Run:
        folder = Path(to)
        folder.mkdir(parents=True)
        waiting = iter(files)
        number, more = 0, True
        while more:
            with (folder / str(number)).open("wb") as target:
                more = False
                for path in waiting:
                    with path.open("rb") as source:
                        shutil.copyfileobj(source, target, 2**20)
                    if target.tell() >= FILE:
                        more = True
                        break
                target.flush()
                os.fsync(target.fileno())
            number += 1

        def facts() -> dict[str, Any]:
            size = _size(folder)
            _remove(to)
            return {"objects": number, "bytes": size}

        return facts

    return run


def export(url: str, options: Options, to: str) -> Run:
    """Export with hdmf-zarr what this package's `open_nwb` reads: NWBZarrIO does not read Zarr 2."""
    from hdmf_zarr.nwb import NWBZarrIO

    from intake_nwbzarr import open_nwb

    _remove(to)

    def run() -> Run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_nwb(url, options) as nwbfile, NWBZarrIO(to, "w") as io:
                io.export(nwbfile.read_io, nwbfile=nwbfile, write_args={"link_data": False})

        def facts() -> dict[str, Any]:
            size = _size(Path(to))
            _remove(to)
            return {"bytes": size}

        return facts

    return run


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    # So that no run waits for what another one wrote.
    os.sync()
