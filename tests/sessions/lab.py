"""A laboratory's folder of sessions: of several writers, zipped, damaged, and things that are no sessions."""

from __future__ import annotations

import datetime as dt
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pynwb import NWBFile, TimeSeries
from pynwb.file import Subject

from intake_nwbzarr.demo.sessions import add_electrodes
from tests.session_files import write

CORPUS = Path(__file__).parents[1] / "data" / "corpus"

MOUSE = {
    "subject_id": "R1", "species": "Mus musculus - House mouse", "age": "P12W", "sex": "M", "genotype": "wt",
    "strain": "C57BL/6J", "weight": "0.025 kg", "date_of_birth": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
}  # fmt: skip


def small_session(**changes: Any) -> NWBFile:
    """A mouse with units, electrodes, trials, a running speed and everything that has a column."""
    arguments: dict[str, Any] = {
        "session_description": "running",
        "identifier": "lab-1",
        "session_start_time": dt.datetime(2024, 5, 1, 14, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        "session_id": "ses-1",
        "experimenter": ["Doe, Jane", "Roe, Richard"],
        "keywords": ["wheel", "dark"],
        "lab": "Lab of Examples",
        "institution": "Institute",
        "subject": Subject(**MOUSE),
    }
    nwbfile = NWBFile(**(arguments | changes))
    add_electrodes(nwbfile, 4, "CA1")
    for number in range(3):
        nwbfile.add_unit(spike_times=np.arange(number + 2.0))
    for start in (0.0, 1.0, 2.0):
        nwbfile.add_trial(start_time=start, stop_time=start + 0.5)
    speed = TimeSeries(name="speed", data=np.arange(20.0), unit="cm/s", rate=10.0, description="of the wheel")
    nwbfile.add_acquisition(speed)
    return nwbfile


def write_small(folder: Path, name: str = "ses-1.nwb.zarr", **changes: Any) -> Path:
    """Write `small_session`."""
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder, small_session(**changes), name)


def unpack(kind: str, release: str, target: Path) -> Path:
    """Unpack a session of the corpus."""
    with zipfile.ZipFile(CORPUS / f"{kind}_hdmf-zarr-{release}.nwb.zarr.zip") as archive:
        archive.extractall(target)
    return target


def write_lab(root: Path) -> Path:
    """Write seven sessions, of which two are damaged, and what is no session."""
    path = write_small(root / "sub-1")
    # Zarr 2 with and without consolidated metadata, and a folder whose name is that of an HDF5 file.
    unpack("ecephys", "0.8.0", root / "sub-2" / "ses-1.nwb.zarr")
    unpack("icephys", "0.3.0", root / "sub-2" / "deeper" / "old.nwb.zarr")
    unpack("ophys", "0.14.0", root / "sub-3" / "asset.nwb")
    shutil.copy(CORPUS / "ophys_hdmf-zarr-0.8.0.nwb.zarr.zip", root / "sub-3" / "zipped.nwb.zarr.zip")
    broken = root / "sub-4" / "cut.nwb.zarr"
    shutil.copytree(path, broken)
    document = broken / "zarr.json"
    document.write_bytes(document.read_bytes()[:5000])
    (root / "sub-4" / "begun.nwb.zarr" / "acquisition").mkdir(parents=True)
    (root / "sub-4" / "begun.nwb.zarr" / "acquisition" / "zarr.json").write_text('{"zarr_format": 3}')
    # What is not scanned.
    (root / "raw").mkdir()
    with h5py.File(root / "raw" / "a.h5", "w") as file:
        file["x"] = 1
    (root / "raw" / "notes.txt").write_text("no session")
    shutil.copytree(path / "acquisition", root / "raw" / "part.zarr")
    (root / "raw" / "array" / "0").mkdir(parents=True)
    (root / "raw" / "array" / ".zarray").write_text("{}")
    (root / ".git").mkdir()
    return root


def names_of(table: Any) -> set[str]:
    """The last two parts of each location in a table."""
    return {"/".join(location.split("/")[-2:]) for location in table["location"].to_pylist()}


WHOLE = {
    "sub-1/ses-1.nwb.zarr", "sub-2/ses-1.nwb.zarr", "deeper/old.nwb.zarr", "sub-3/asset.nwb",
    "sub-3/zipped.nwb.zarr.zip",
}  # fmt: skip
DAMAGED = {"sub-4/cut.nwb.zarr", "sub-4/begun.nwb.zarr"}
