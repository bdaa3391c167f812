"""The sessions that are measured: what each is, and where it is kept once it has been made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import write_convert, write_hdf5, write_many, write_opening, write_reading

VERSION = 1
"""Raised when a writer changes: what an older one wrote is not used."""

SERIES = {100: 25, 400: 100, 1600: 400, 8000: 2000}
"""About how many nodes a file of so many sweeps has."""

SESSIONS: dict[str, Callable[[Path], None]] = {
    "ophys-zarr3": write_opening.write_ophys_zarr3,
    "ophys-zarr2": write_opening.write_ophys_zarr2,
    "ecephys-zarr2": write_opening.write_many_chunks,
    "icephys-1600-sweeps": partial(write_opening.write_sweeps, pairs=800),
    **{
        f"icephys-{nodes}-nodes": partial(write_opening.write_series, series=count)
        for nodes, count in SERIES.items()
    },
    "series-16MiB-zarr2": partial(write_reading.write_series, chunk_bytes=16 * 2**20),
    "series-265kB-zarr2": partial(write_reading.write_series, chunk_bytes=write_reading.SMALL_CHUNK),
    "series-shards-zarr3": write_reading.write_shards,
    "hour-zarr3": write_reading.write_hour,
    "recording-convert-zarr2": write_convert.write_recording,
    "texts-convert-zarr2": write_convert.write_texts,
}
"""By name, what writes them into a folder that does not exist yet."""

FILES: dict[str, Callable[[Path], None]] = {
    "hundred-hdf5": write_hdf5.write_hundred,
    "gzip-hdf5": write_hdf5.write_gzip,
    "table-hdf5": write_hdf5.write_table,
    **{
        f"series-{count}-hdf5": partial(write_hdf5.write_series, series=count)
        for count in (25, 100, 400, 2000)
    },
    **{
        f"chunks-{count}-hdf5": partial(write_hdf5.write_chunks, chunks=count)
        for count in (10**3, 10**4, 10**5, 10**6)
    },
}
"""By name, what writes HDF5 files."""

COLLECTIONS: dict[str, Callable[[Path], None]] = {
    "units-60": partial(write_many.write_units, count=60),
    "running-24": partial(write_many.write_running, count=24),
    "running-1000": partial(write_many.write_running, count=1000, different=8),
    "linked-10000": partial(write_many.link_running, count=10_000),
}
"""By name, what writes folders of many sessions."""


def default_cache() -> Path:
    """Where sessions are kept: outside of the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "intake-nwbzarr-benchmarks"


def make(name: str, cache: Path) -> Path:
    """The folder of a session or of a collection, or an HDF5 file, written now unless it has been before."""
    ending = "" if name in COLLECTIONS else ".nwb" if name in FILES else ".nwb.zarr"
    folder = cache / "sessions" / f"v{VERSION}" / f"{name}{ending}"
    if not folder.exists():
        aside = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        aside.unlink(missing_ok=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        (SESSIONS | FILES | COLLECTIONS)[name](aside)
        aside.rename(folder)
    return folder
