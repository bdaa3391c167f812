"""Small NWB Zarr sessions, written by pynwb for one test, changed on disk, and opened."""

import datetime as dt
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from pynwb import NWBFile

from intake_nwbzarr.demo.sessions import write_zarr3

START = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


def empty_session(**arguments: Any) -> NWBFile:
    """Return a session without contents."""
    return NWBFile(session_description="small", identifier="small", session_start_time=START, **arguments)


def write(folder: Path, nwbfile: NWBFile, name: str = "small.nwb.zarr") -> Path:
    """Write a session as NWB Zarr."""
    path = folder / name
    write_zarr3(nwbfile, path, schemas=True)
    return path


def opened(session: Any, group: Any = None, **options: Any) -> xr.Dataset:
    """Open a session, or objects of it, as a user does."""
    return xr.open_dataset(session, engine="nwbzarr", group=group, **options)


def copy_of(path: Path, folder: Path, name: str | None = None) -> Path:
    """Return a copy of a session that a test may change."""
    return Path(shutil.copytree(path, folder / (name or path.name)))


def edit(path: Path, array_or_group: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change one object's metadata document on disk and consolidate again."""
    document = path / array_or_group / "zarr.json"
    content = json.loads(document.read_text())
    change(content)
    document.write_text(json.dumps(content))
    consolidate(path)


def rewrite(path: Path, name: str, data: np.ndarray[Any, Any], **options: Any) -> None:
    """Replace an array's values, dtype and shape, and how it is stored."""
    group = zarr.open_group(str(path), mode="r+")
    attributes = dict(group[name].attrs)
    array = group.create_array(name, data=data, overwrite=True, **options)
    array.attrs.update(attributes)
    consolidate(path)


def consolidate(path: Path) -> None:
    """Write consolidated metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(path))
