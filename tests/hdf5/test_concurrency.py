"""Many readers of one HDF5 file at once: threads, event loops, cancellation, and requests that fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from aiohttp import web

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.arrays import StoredArray, read_many
from intake_nwbzarr.errors import AccessError, ChunkError, ObjectChangedError
from intake_nwbzarr.hdf5 import filters
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from tests.hdf5.files import opened, write
from tests.servers.http_server import NoETagServer, StaticServer
from tests.servers.loopback import Response

COUNT = 12


class GatedServer(StaticServer):
    """A server whose answers of parts of a file can be held back, or refused."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = threading.Event()
        self.gate.set()
        self.refusing = False

    async def answer(self, request: web.Request) -> Response:
        first = request.headers.get("Range", "bytes=0-").startswith("bytes=0-")
        if not first:
            await asyncio.to_thread(self.gate.wait, 30)
        if self.refusing and not first:
            return Response(403)
        return await super().answer(request)


def _fill(file: h5py.File) -> None:
    chance = np.random.default_rng(0)
    file["before"] = chance.random(150_000)  # the beginning and the end of a file are read with its metadata
    for number in range(COUNT):
        values = chance.integers(0, 1000, (2000, 4))
        if number % 3 == 0:
            file.create_dataset(f"x/{number}", data=values, chunks=(100, 4), compression="gzip")
        elif number % 3 == 1:
            file.create_dataset(f"x/{number}", data=values, dtype=">i2")
        else:
            texts = [f"text {value} é" for value in values[:, 0]]
            file.create_dataset(f"x/{number}", data=texts, dtype=h5py.string_dtype(), chunks=(500,))
    file["after"] = chance.random(150_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GatedServer]:
    root = tmp_path / "served"
    root.mkdir()
    write(root / "file.nwb", _fill, libver="latest")
    with GatedServer(root) as running:
        yield running


def _stored(hierarchy: Hierarchy) -> list[StoredArray]:
    return [StoredArray(hierarchy.file, hierarchy[f"x/{number}"]) for number in range(COUNT)]


def _wanted(path: Path) -> list[Any]:
    with h5py.File(path) as file:
        found = [np.asarray(file[f"x/{number}"]) for number in range(COUNT)]
    return [
        [text.decode() for text in values] if values.dtype.kind == "O" else values.tolist()
        for values in found
    ]


def test_many_arrays_are_read_at_once(server: GatedServer) -> None:
    hierarchy = open_hierarchy(f"{server.url}/file.nwb")
    found = [values.tolist() for values in read_many(_stored(hierarchy))]
    assert found == _wanted(server.root / "file.nwb")


def test_threads_read_and_open_the_same_file_at_once(server: GatedServer) -> None:
    wanted = _wanted(server.root / "file.nwb")

    def work(number: int) -> bool:
        hierarchy = open_hierarchy(f"{server.url}/file.nwb")
        return _stored(hierarchy)[number % COUNT].read().tolist() == wanted[number % COUNT]

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(2 * COUNT)))


@pytest.mark.slow
def test_event_loops_of_several_threads_share_a_file(server: GatedServer) -> None:
    stored = _stored(open_hierarchy(f"{server.url}/file.nwb"))
    wanted = _wanted(server.root / "file.nwb")

    async def read_all() -> list[Any]:
        return [values.tolist() for values in await asyncio.gather(*(each.read_async() for each in stored))]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: asyncio.run(read_all()), range(4)):
            assert found == wanted


@pytest.mark.parametrize("number", [0, 1, 2], ids=["chunks", "pieces", "texts"])
def test_a_read_that_is_cancelled_leaves_the_others_alone(number: int, server: GatedServer) -> None:
    stored = _stored(open_hierarchy(f"{server.url}/file.nwb"))[number]
    wanted = _wanted(server.root / "file.nwb")[number]

    async def work() -> list[Any]:
        server.gate.clear()
        tasks = [asyncio.create_task(stored.read_async()) for _ in range(6)]
        await asyncio.sleep(0.1)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.sleep(0.05)
        server.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(work())
    assert [isinstance(each, asyncio.CancelledError) for each in found] == [True, False] * 3
    assert all(each.tolist() == wanted for each in found[1::2])
    assert stored.read().tolist() == wanted


def test_all_readers_of_a_file_that_fails_get_the_error_and_the_next_read_works(server: GatedServer) -> None:
    stored = _stored(open_hierarchy(f"{server.url}/file.nwb"))
    server.refusing = True
    with ThreadPoolExecutor(8) as pool:
        failed = list(pool.map(_error_of, stored))
    assert all(isinstance(error, AccessError) for error in failed)
    server.refusing = False
    assert [values.tolist() for values in read_many(stored)] == _wanted(server.root / "file.nwb")


def _error_of(stored: StoredArray) -> Exception | None:
    try:
        stored.read()
    except Exception as error:
        return error
    return None


def test_all_who_open_a_file_that_fails_get_the_error_and_the_next_opening_works(server: GatedServer) -> None:
    def error_of_opening(_: int) -> Exception | None:
        try:
            open_hierarchy(f"{server.url}/file.nwb")
        except Exception as error:
            return error
        return None

    server.refusing = True
    with ThreadPoolExecutor(8) as pool:
        failed = list(pool.map(error_of_opening, range(8)))
    assert all(isinstance(error, AccessError) for error in failed)
    assert len({id(error) for error in failed}) == len(failed)
    server.refusing = False
    assert len(open_hierarchy(f"{server.url}/file.nwb")) > COUNT


def test_local_files_are_read_by_many_threads(tmp_path: Path) -> None:
    path = write(tmp_path / "file.nwb", _fill)
    stored, wanted = _stored(opened(path)), _wanted(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: each.read().tolist(), stored * 3))
    assert found == wanted * 3


def test_what_is_read_inside_visititems_is_an_error_and_no_deadlock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """h5py keeps its lock while it calls a function, which waits for a chunk that h5py must decode."""
    monkeypatch.setattr(filters, "PATIENCE", 0.5)
    numbers = np.arange(1000.0)
    path = write(
        tmp_path / "locked.nwb",
        lambda file: [
            file.create_dataset(name, data=numbers, chunks=(100,), compression=name)
            for name in ("lzf", "gzip")
        ],
    )
    hierarchy = open_hierarchy(path)
    arrays = {name: StoredArray(hierarchy.file, hierarchy[name]) for name in ("lzf", "gzip")}
    found: list[Any] = []

    def visit(name: str, _: object) -> None:
        found.append(arrays[name].read(()))

    with h5py.File(path) as file:
        with pytest.raises(ChunkError, match="while other code uses h5py") as error:
            file.visititems(visit)
        assert error.value.next_step is not None
        assert "isolate" in error.value.next_step
        # What needs no h5py is read there too, and everything once it has returned.
        np.testing.assert_array_equal(found[0], numbers)
        np.testing.assert_array_equal(arrays["lzf"].read(()), numbers)


@pytest.mark.parametrize("kind", [StaticServer, NoETagServer])
@pytest.mark.parametrize("length", [200_000, 400_000])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_file_of_another_size_is_an_error_with_and_without_etags(
    kind: type[StaticServer], length: int, compression: str | None, tmp_path: Path
) -> None:
    def fill(file: h5py.File, length: int, seed: int) -> None:
        # Longer than what is read with the metadata.
        file.create_dataset("x", data=np.random.default_rng(seed).random(length), compression=compression)

    path = tmp_path / "file.nwb"
    write(path, lambda file: fill(file, 300_000, 1))
    with kind(tmp_path) as server:
        hierarchy = open_hierarchy(f"{server.url}/file.nwb")
        array = StoredArray(hierarchy.file, hierarchy["x"])
        assert array.read((slice(0, 2),)).tolist() == np.random.default_rng(1).random(2).tolist()
        write(path, lambda file: fill(file, length, 2))
        with pytest.raises(ObjectChangedError, match="replaced"):
            array.read((slice(150_000, 150_003),))
