"""Opening and reading HDF5 files takes few requests, round trips and bytes, which are counted."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import h5py
import numpy as np
import pytest
import xarray as xr
from pynwb import NWBHDF5IO, H5DataIO, NWBFile, TimeSeries

from benchmarks.servers.in_python import PythonServer
from benchmarks.short import PATIENCE
from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.arrays.stored import StoredArray

SERIES = 100
SAMPLES = 40_000
CHUNK = 1000


class Count(NamedTuple):
    requests: int
    round_trips: int
    received: int


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 100 series with about 10 MB of samples between their metadata: read it only."""
    session = NWBFile("many series", "id", datetime(2024, 1, 2, tzinfo=UTC))
    values = np.random.default_rng(0).integers(0, 2**15, SAMPLES)
    for number in range(SERIES):
        data = H5DataIO(values, compression="gzip", shuffle=True, chunks=(CHUNK,))
        session.add_acquisition(
            TimeSeries(name=f"series{number}", data=data, unit="V", rate=100.0, description="of many")
        )
    path = tmp_path_factory.mktemp("series") / "series.nwb"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(path, "w") as io:
            io.write(session)
    return path


def count(file: Path, work: Callable[[str], Any], most: tuple[int, int], first: Any = None) -> Count:
    """Return what `work` takes with the URL of a file, after `first`; a busy machine gets more patience."""
    for quiet in PATIENCE:
        with PythonServer(file.parent, quiet=quiet) as server:
            url = f"{server.url()}/{file.name}"
            if first is not None:
                first(url)
                server.forget()
            work(url)
            seen = server.exchanges()
            counted = Count(len(seen), server.rounds, sum(exchange.size for exchange in seen))
        if (counted.requests, counted.round_trips) <= most and counted.round_trips <= most[1]:
            break
    return counted


def open_one(url: str) -> xr.Dataset:
    return xr.open_dataset(
        url, engine="nwbzarr", group="acquisition/series50", storage_options={"hdf5": True}
    )


def open_all(url: str) -> xr.Dataset:
    return xr.open_dataset(url, engine="nwbzarr", storage_options={"hdf5": True})


def test_a_session_is_opened_in_few_round_trips(file: Path) -> None:
    counted = count(file, open_all, (75, 6))
    assert counted.round_trips <= 6
    # Samples lie between the series, so that each of these takes a request.
    assert counted.requests <= 75


def test_one_series_takes_the_metadata_of_that_series_only(file: Path) -> None:
    counted = count(file, open_one, (14, 7))
    assert counted.round_trips <= 7
    assert counted.requests <= 14
    assert counted.received < 10**6


def test_opening_again_takes_one_request(file: Path) -> None:
    assert count(file, open_one, (1, 1), first=open_one)[:2] == (1, 1)
    assert count(file, open_all, (1, 1), first=open_all)[:2] == (1, 1)
    # All metadata include those of one series.
    assert count(file, open_one, (1, 1), first=open_all)[:2] == (1, 1)


def test_the_table_of_chunks_is_read_once(file: Path) -> None:
    arrays: list[StoredArray] = []

    def first(url: str) -> None:
        hierarchy = open_hierarchy(url)
        arrays[:] = [StoredArray(hierarchy.file, hierarchy["acquisition/series50/data"])]
        arrays[0].read(slice(0, 10))

    # No request at all if the chunk was received along with metadata beside it.
    counted = count(file, lambda _: arrays[0].read(slice(20_000, 20_010)), (1, 1), first)
    assert counted.requests <= 1
    assert counted.received < 2 * CHUNK * 8


def test_a_pickle_carries_the_table_so_that_another_process_requests_chunks_only(
    file: Path, tmp_path: Path
) -> None:
    def first(url: str) -> None:
        hierarchy = open_hierarchy(url)
        data = StoredArray(hierarchy.file, hierarchy["acquisition/series50/data"])
        data.read(slice(0, 10))
        (tmp_path / "array.pickle").write_bytes(cloudpickle.dumps(data))

    def work(_url: str) -> None:
        script = (
            "import pickle, pathlib, sys\n"
            "array = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
            "print(array.read(slice(30_000, 30_010)).tolist())"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "array.pickle")]
        printed.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    printed: list[str] = []
    assert count(file, work, (1, 1), first)[:2] == (1, 1)
    with h5py.File(file) as opened:
        assert printed[-1].strip() == str(opened["acquisition/series50/data"][30_000:30_010].tolist())


def test_one_object_opens_the_same_with_its_own_metadata_as_with_all(file: Path) -> None:
    alone = open_one(str(file))
    open_hierarchy(str(file))
    xr.testing.assert_identical(alone, open_one(str(file)))


def test_what_the_metadata_of_one_object_leave_out_is_read_when_it_is_asked_for(file: Path) -> None:
    dataset = open_one(str(file))
    assert dataset.nwb.nwbfile.acquisition["series99"].description == "of many"
