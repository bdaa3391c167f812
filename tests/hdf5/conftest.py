"""The same session in both forms, as pynwb writes them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBHDF5IO

from intake_nwbzarr.demo.sessions import imaging_session, spiking_session, write_zarr3
from tests.conftest import written_once


@dataclass(frozen=True)
class Forms:
    """The paths of one session as a Zarr store and as an HDF5 file."""

    zarr: Path
    hdf5: Path


@pytest.fixture(scope="session")
def forms(shared_folder: Path) -> Forms:
    """A session with units, trials and a table, in both forms: read it only."""

    def write(folder: Path) -> Path:
        write_zarr3(spiking_session(), folder / "sub-1.nwb.zarr", schemas=True)
        export(folder / "sub-1.nwb.zarr", folder / "sub-1.nwb")
        return folder

    folder = written_once(shared_folder / "both_forms", write)
    return Forms(folder / "sub-1.nwb.zarr", folder / "sub-1.nwb")


@pytest.fixture(scope="session")
def imaging_forms(shared_folder: Path) -> Forms:
    """An imaging session in both forms: read it only."""

    def write(folder: Path) -> Path:
        write_zarr3(imaging_session(frames=240, rois=6, pixels=16), folder / "sub-2.nwb.zarr", schemas=True)
        export(folder / "sub-2.nwb.zarr", folder / "sub-2.nwb")
        return folder

    folder = written_once(shared_folder / "both_imaging_forms", write)
    return Forms(folder / "sub-2.nwb.zarr", folder / "sub-2.nwb")


def export(store: Path, file: Path) -> None:
    """Write a session of a Zarr store as HDF5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBZarrIO(str(store), "r") as source, NWBHDF5IO(str(file), "w") as target:
            target.export(source, nwbfile=source.read(), write_args={"link_data": False})
