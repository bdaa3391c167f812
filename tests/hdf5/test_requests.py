"""Opening and reading HDF5 files takes few requests, round trips and bytes, which are counted."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
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
from intake_nwbzarr.arrays.lazy import lazy_variable
from intake_nwbzarr.arrays.stored import StoredArray
from intake_nwbzarr.transport.open import fetch_many
from tests.hdf5.files import write

SERIES = 100
SAMPLES = 40_000
CHUNK = 1000

MANY = 12_000
MANY_SAMPLES = 6000


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
    counted = count(file, open_all, (40, 5))
    assert counted.round_trips <= 5
    # Samples lie between the series: what lies between two of them is fetched where it is short.
    assert counted.requests <= 40
    assert counted.received <= file.stat().st_size


def test_one_series_takes_the_metadata_of_that_series_only(file: Path) -> None:
    counted = count(file, open_one, (8, 5))
    assert counted.round_trips <= 5
    assert counted.requests <= 8
    assert counted.received < 10**6


def write_many(path: Path, series: int, libver: str | None) -> Path:
    """Write a file of many short series, every second one compressed."""
    with h5py.File(path, "w", libver=libver) as file, NWBHDF5IO(file=file, mode="w") as io:
        io.write(NWBFile("many series", "id", datetime(2024, 1, 2, tzinfo=UTC)))
    with h5py.File(path, "a", libver=libver) as file:
        for number in range(series):
            group = file.create_group(f"acquisition/series{number:05d}")
            group.attrs.update(neurodata_type="TimeSeries", namespace="core", object_id=f"id {number}")
            group.attrs.update(description=str(number), comments="none")
            compression = "gzip" if number % 2 else None
            data = group.create_dataset("data", data=np.arange(200.0) + number, compression=compression)
            data.attrs.update(unit="V", conversion=1.0, offset=0.0, resolution=-1.0)
            start = group.create_dataset("starting_time", data=float(number))
            start.attrs.update(unit="seconds", rate=100.0)
    return path


@pytest.mark.parametrize("libver", [None, "latest"])
@pytest.mark.parametrize("series", [400, pytest.param(2000, marks=pytest.mark.slow)])
def test_one_of_many_series_is_looked_up(series: int, libver: str | None, tmp_path: Path) -> None:
    path = write_many(tmp_path / "many.nwb", series, libver)
    for number in (1, series // 2, series - 1):
        found: list[xr.Dataset] = []
        group = f"acquisition/series{number:05d}"
        open_it = partial(xr.open_dataset, engine="nwbzarr", group=group)
        counted = count(path, lambda url, open_it=open_it, found=found: found.append(open_it(url)), (7, 5))
        assert counted.requests <= 7
        assert counted.round_trips <= 5
        assert counted.received < 10**6
        assert found[-1]["data"].values.tolist() == (np.arange(200.0) + number).tolist()
        assert float(found[-1]["time"][0]) == number


@pytest.mark.parametrize("libver", [None, "latest"])
def test_all_of_many_series_take_as_many_round_trips_as_levels(libver: str | None, tmp_path: Path) -> None:
    path = write_many(tmp_path / "many.nwb", 400, libver)
    counted = count(path, open_hierarchy, (10, 4))
    assert counted.requests <= 10
    assert counted.round_trips <= 4
    # A small file is fetched from both ends, and nearly whole.
    assert counted.received < 1.02 * path.stat().st_size


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


@pytest.fixture(scope="module")
def many_chunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many chunks of 1 kB, larger than a dask block when decoded, and their index: read it only."""
    chance = np.random.default_rng(0)

    def fill(file: h5py.File) -> None:
        shape = (MANY, MANY_SAMPLES)
        dataset = file.create_dataset(
            "x", shape, "u1", chunks=(1, MANY_SAMPLES), maxshape=(None, MANY_SAMPLES), compression="gzip"
        )
        noise = chance.integers(0, 256, 1024, "u1").tobytes()
        samples = bytes(MANY_SAMPLES - len(noise))
        for row in range(MANY):
            start = row.to_bytes(4, "little")
            dataset.id.write_direct_chunk((row, 0), zlib.compress(start + noise[4:] + samples, 1))

    return write(tmp_path_factory.mktemp("chunks") / "many.nwb", fill)


class Rows:
    """Reads rows of many chunks one by one, and checks that they are what was written."""

    array: StoredArray

    def open(self, url: str) -> None:
        """Open the file; its array is not read."""
        hierarchy = open_hierarchy(url)
        self.array = StoredArray(hierarchy.file, hierarchy["x"])

    def read(self, *rows: int) -> None:
        """Read the beginnings of rows."""
        for row in rows:
            assert self.array.read((row, slice(0, 4))).tobytes() == row.to_bytes(4, "little")

    def count(self, file: Path, rows: Iterable[int], most: tuple[int, int], *before: int) -> Count:
        """Return what reading rows takes, after others."""

        def first(url: str) -> None:
            self.open(url)
            self.read(*before)

        return count(file, lambda _: self.read(*rows), most, first)


def test_one_chunk_of_many_takes_what_leads_to_it_only(many_chunks: Path) -> None:
    counted = Rows().count(many_chunks, [MANY // 2], (4, 4))
    # The levels of nodes, and the chunk.
    assert counted.requests <= 4
    assert counted.received < 3 * 4096 + 1200


def test_what_leads_to_a_chunk_is_fetched_once(many_chunks: Path) -> None:
    row = MANY // 2
    assert Rows().count(many_chunks, [row], (1, 1), row).requests == 1
    # The chunk beside it may be below the next leaf; that of another branch is below other nodes.
    assert Rows().count(many_chunks, [row + 1, row + 2], (3, 3), row).requests <= 3
    assert Rows().count(many_chunks, [MANY // 4], (3, 3), row).requests <= 3


@pytest.mark.slow
def test_reads_that_together_touch_much_turn_to_the_whole_table(many_chunks: Path) -> None:
    everywhere = range(1000, MANY - 1000, 250)
    rows, most = Rows(), (10**6, 10**6)

    def table(_: str) -> None:
        fetch_many(rows.array.file.transport, ["x/c/index"])

    whole = count(many_chunks, table, most, rows.open)
    parts = rows.count(many_chunks, everywhere, most)
    # At most four times what leads to one chunk, once what all of the table takes, and the chunks themselves.
    assert parts.requests <= 4 * 3 + whole.requests + len(everywhere)
    assert whole.requests > 100
    assert rows.count(many_chunks, everywhere, most, *everywhere).requests == len(everywhere)

    # After one selection of a third of the first half of the chunks, all are known.
    def third(url: str) -> None:
        rows.open(url)
        rows.array.read((slice(0, MANY // 2, 3), 0))

    assert count(many_chunks, lambda _: rows.read(*everywhere), most, third).requests == len(everywhere)


def test_many_readers_at_once_read_what_leads_to_their_chunks_once(many_chunks: Path) -> None:
    places = range(MANY // 2, MANY // 2 + 8)
    rows = Rows()

    def work(_: str) -> None:
        with ThreadPoolExecutor(len(places)) as threads:
            list(threads.map(rows.read, places))

    # One by one: three levels of nodes, another leaf, and the chunks.
    assert count(many_chunks, work, (len(places) + 4, 5), rows.open).requests <= len(places) + 4


@pytest.mark.slow
def test_a_dask_array_of_many_blocks_is_pickled_with_the_table_that_was_not_read_yet(
    many_chunks: Path, tmp_path: Path
) -> None:
    file = tmp_path / "array.pickle"

    def first(url: str) -> None:
        hierarchy = open_hierarchy(url)
        variable = lazy_variable(("row", "sample"), StoredArray(hierarchy.file, hierarchy["x"]))
        file.write_bytes(cloudpickle.dumps(variable.chunk({"row": 1}).data))

    def work(_url: str) -> None:
        script = (
            "import pickle, pathlib, sys\n"
            "array = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
            "print(array.blocks[7000, 0][0, :4].compute().tobytes().hex())"
        )
        command = [sys.executable, "-c", script, str(file)]
        printed.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    printed: list[str] = []
    # One range of the file, of the chunk: no metadata at all.
    assert count(many_chunks, work, (1, 1), first)[:2] == (1, 1)
    assert bytes.fromhex(printed[-1].strip()) == (7000).to_bytes(4, "little")


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
