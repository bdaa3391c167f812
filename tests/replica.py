"""Small replicas of three public DANDI assets: their names, types and chunking, made-up data.

`tests/data/*.layout.tsv` list every array of the real assets with its chunks. The replicas hold the same
arrays, in Zarr 2 as the archive has them, and several chunks where the asset has several.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import pickle
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
from hdmf_zarr.utils import ZarrDataIO
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.file import Subject

from intake_nwbzarr.demo.sessions import add_electrodes, imaging_session, write_zarr3
from intake_nwbzarr.demo.zarr2 import write_zarr2

LAYOUTS = Path(__file__).parent / "data"
IMAGING = "zarr/c8c6b848-fbc6-4f58-85ff-e3f2618ee983"
ECEPHYS = "zarr/ef6b21c6-4617-453f-b1e2-d046df7b8c9a"
HDF5 = "blobs/11e/c89/11ec8933-1456-4942-922b-94e5878bb991"


@dataclass(frozen=True)
class Stored:
    """An array of the real asset: how many chunks it has, and the name of the last one."""

    chunks: int
    last_key: str

    @property
    def grid(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(int(index) + 1 for index in self.last_key.replace("/", ".").split("."))


def layout(name: str) -> dict[str, Stored]:
    """The arrays of a real asset, by path."""
    with (LAYOUTS / f"{name}.layout.tsv").open(newline="") as file:
        rows = csv.reader((line for line in file if not line.startswith("#")), delimiter="\t")
        return {path: Stored(int(chunks), last) for path, chunks, _, _, last in rows}


def write_replicas(root: Path) -> None:
    """Write the assets under the paths that the archive serves them at."""
    with tempfile.TemporaryDirectory() as scratch:
        imaging, ecephys = Path(scratch, "imaging"), Path(scratch, "ecephys")
        write_zarr3(imaging_session(frames=240, rois=6, pixels=16), imaging)
        write_zarr2(imaging, root / IMAGING)
        write_zarr3(_ecephys_session(), ecephys)
        write_zarr2(ecephys, root / ECEPHYS)
    store_as_before(root / ECEPHYS)
    _drop(root / ECEPHYS, "general/extracellular_ephys", "general/devices")
    (root / HDF5).parent.mkdir(parents=True)
    with NWBHDF5IO(str(root / "test.nwb"), "w") as io:
        io.write(_test_session())
    (root / "test.nwb").rename(root / HDF5)


def _test_session() -> NWBFile:
    """The HDF5 file: its series has three samples."""
    nwbfile = NWBFile(
        session_description="test",
        identifier="replica-hdf5",
        session_start_time=dt.datetime(2021, 1, 1, tzinfo=dt.UTC),
    )
    nwbfile.add_acquisition(TimeSeries(name="TestData", data=[1.0, 2.0, 3.0], unit="m", rate=1.0))
    return nwbfile


def _ecephys_session() -> NWBFile:
    """Two units and five trials of a recording whose electrodes' table will be dropped."""
    random = np.random.default_rng(23)
    nwbfile = NWBFile(
        session_description="behavior and ecephys",
        identifier="replica-ecephys",
        session_start_time=dt.datetime(2022, 3, 4, 10, 0, tzinfo=dt.UTC),
        experiment_description="visual task",
        institution="Institute of Examples",
        lab="Demonstration Lab",
        subject=Subject(subject_id="mouse-1", species="Mus musculus"),
    )
    nwbfile.add_acquisition(
        ElectricalSeries(
            name="ElectricalSeries",
            data=ZarrDataIO(random.integers(-500, 500, (400, 6), dtype="i2"), chunks=(100, 2)),
            electrodes=add_electrodes(nwbfile, 6, "V1", shank="probe"),
            starting_time=0.0,
            rate=30000.0,
            conversion=1e-6,
        )
    )
    for name in ("reward", "running_wheel_gain", "visual_contrast"):
        nwbfile.add_trial_column(name, name.replace("_", " "))
    for trial in range(5):
        nwbfile.add_trial(
            start_time=2.0 * trial,
            stop_time=2.0 * trial + 1.5,
            reward=trial % 2,
            running_wheel_gain=1.0,
            visual_contrast=trial / 4,
        )
    for _ in range(2):
        nwbfile.add_unit(spike_times=np.sort(random.uniform(0, 10, 40)))
    spike_times = nwbfile.units["spike_times"].target
    spike_times.set_data_io(ZarrDataIO, {"chunks": (20,)})
    return nwbfile


def store_as_before(folder: Path) -> None:
    """Change what `write_zarr2` wrote to what older releases did: nested chunk keys, and pickled strings."""
    consolidated = json.loads((folder / ".zmetadata").read_text())
    for key, document in consolidated["metadata"].items():
        if not key.endswith(".zarray"):
            continue
        array = (folder / key).parent
        for chunk in [path for path in array.iterdir() if not path.name.startswith(".")]:
            data = chunk.read_bytes()
            chunk.unlink()
            if document["filters"]:
                data = _pickled(data, document)
            nested = array.joinpath(*chunk.name.split("."))
            nested.parent.mkdir(parents=True, exist_ok=True)
            nested.write_bytes(data)
        document["dimension_separator"] = "/"
        if document["filters"]:
            document["filters"] = [{"id": "pickle", "protocol": 5}]
        (folder / key).write_text(json.dumps(document))
    (folder / ".zmetadata").write_text(json.dumps(consolidated))


def _pickled(data: bytes, document: dict[str, Any]) -> bytes:
    """A chunk of strings, encoded as vlen-utf8, encoded as a pickle instead."""
    compressor = numcodecs.get_codec(document["compressor"])
    strings = numcodecs.VLenUTF8().decode(compressor.decode(data))
    pickled = pickle.dumps(strings.reshape(document["chunks"]), protocol=5)
    return bytes(compressor.encode(pickled))


def _drop(folder: Path, *paths: str) -> None:
    """Take groups out of a store and its consolidated metadata, as if they had never been written."""
    document = json.loads((folder / ".zmetadata").read_text())
    for path in paths:
        shutil.rmtree(folder / path)
        document["metadata"] = {
            key: value for key, value in document["metadata"].items() if not key.startswith(f"{path}/")
        }
    (folder / ".zmetadata").write_text(json.dumps(document))
