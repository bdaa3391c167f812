"""HDF5 files that are parsed and decoded in a process of their own, which may end in any way."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import psutil
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from intake_nwbzarr import open_hierarchy, open_nwb, track_requests, verify
from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import (
    ChunkError,
    LocationError,
    NWBZarrError,
    OptionError,
    SessionCrashError,
    SessionMemoryError,
    SessionTimeoutError,
)
from intake_nwbzarr.hdf5 import filters
from intake_nwbzarr.hdf5.messages import Filter
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport import isolated
from tests.hdf5.conftest import Forms
from tests.hdf5.files import assert_same, read, write
from tests.hdf5.test_chunks import PIPELINES
from tests.hdf5.test_everywhere import load
from tests.servers.http_server import StaticServer

pytestmark = pytest.mark.slow

ISOLATED = {"isolate": True}


def processes(of: int | None = None) -> list[psutil.Process]:
    """Return the processes of HDF5 files that a process has started."""
    found = []
    for each in psutil.Process(of).children():
        with suppress(psutil.Error):  # it may have just ended
            found += [each] if isolated.MODULE in " ".join(each.cmdline()) else []
    return found


def only_process() -> psutil.Process:
    (process,) = processes()
    return process


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    """Start without processes, and leave none behind, running or not reaped."""
    isolated._end_all()
    yield
    isolated._end_all()
    assert processes() == []
    assert waited(lambda: not any(map(_is_zombie, psutil.Process().children())))


def _is_zombie(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return False


def opened(path: object, options: dict[str, Any] | None = None) -> Hierarchy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_hierarchy(path, options)


def waited(condition: Callable[[], object], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _fill_with_everything(file: h5py.File) -> None:
    values = np.arange(50 * 8).reshape(50, 8)
    for name, options in PIPELINES.items():
        for dtype in ("<i4", ">i4") if name not in {"szip", "scaleoffset"} else ("<i4",):
            dataset = file.create_dataset(f"{name} {dtype}", (50, 8), dtype, chunks=(16, 8), **options)
            dataset[:40] = values[:40]
    file.create_dataset("booleans", data=values[:, 0] % 2 == 0, chunks=(16,), compression="lzf")
    file.create_dataset("one", data=values, chunks=(50, 8), compression="gzip", shuffle=True)
    file["contiguous"] = np.arange(300_000, dtype=">f8")
    file["texts"] = np.array(["a", "é", "", "long " * 50] * 5, object)
    file["references"] = np.array([file.ref, file["texts"].ref, h5py.Reference()], h5py.ref_dtype)
    pair = np.dtype([("a", "<i4"), ("name", h5py.string_dtype()), ("to", h5py.ref_dtype)])
    file["compound"] = np.array([(1, "x", file.ref), (2, "y", file["texts"].ref)], pair)
    numbers = np.dtype([("a", "<i4"), ("b", ">f8")])
    table = np.array([(n, n / 2) for n in range(100)], numbers)
    file.create_dataset("numbers", data=table, chunks=(30,), compression="lzf", shuffle=True)
    file["scalar"] = 5


def _arrays(hierarchy: Hierarchy) -> dict[str, Any]:
    found = {}
    for name in hierarchy:
        node = hierarchy[name]
        if isinstance(node, ArrayNode):
            fields = node.dtype.names or (None,)
            found |= {f"{name}/{field}": read(hierarchy, name, (), field) for field in fields}
    return found


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_what_is_read_is_the_same(libver: str, http_server: StaticServer) -> None:
    write(http_server.root / "file.nwb", _fill_with_everything, libver=libver)
    url = f"{http_server.url}/file.nwb"
    with track_requests() as plain:
        wanted = _arrays(opened(url))
    assert processes() == []
    with track_requests() as alone:
        hierarchy = opened(url, ISOLATED)
        found = _arrays(hierarchy)
    assert only_process().is_running()
    assert len(found) > 30
    assert found.keys() == wanted.keys()
    for name, values in found.items():
        assert_same(values, wanted[name])
    assert set(hierarchy) == set(opened(url))
    assert (alone.requests, alone.bytes) == (plain.requests, plain.bytes)


@pytest.mark.parametrize("kind", ["forms", "imaging_forms"])
def test_sessions_are_the_same(kind: str, request: pytest.FixtureRequest) -> None:
    forms: Forms = request.getfixturevalue(kind)
    xr.testing.assert_identical(load(forms.hdf5, ISOLATED), load(forms.hdf5))
    groups = [
        xr.open_datatree(forms.hdf5, engine="nwbzarr", storage_options=options).groups
        for options in (ISOLATED, None)
    ]
    assert groups[0] == groups[1]
    assert len(processes()) == 1


def test_tables_and_raw_objects_are_the_same(forms: Forms) -> None:
    found, wanted = (
        xr.open_dataset(forms.hdf5, engine="nwbzarr", group="units", storage_options=options)
        for options in (ISOLATED, None)
    )
    assert found.nwb.to_dataframe().equals(wanted.nwb.to_dataframe())
    with open_nwb(forms.hdf5, ISOLATED) as alone, open_nwb(forms.hdf5) as plain:
        assert [*alone.units["spike_times"][1]] == [*plain.units["spike_times"][1]]
        assert alone.trials.to_dataframe().equals(plain.trials.to_dataframe())


def test_errors_are_the_same(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for name in ("gzip", "zstd"):
            dataset = file.create_dataset(name, (4,), "<i4", chunks=(4,), **PIPELINES[name])
            dataset.id.write_direct_chunk((0,), b"neither of them")
        file["texts"] = np.array(["a", "b"] * 100_000, object)

    path = write(tmp_path / "file.nwb", fill)

    def said(name: str, options: dict[str, Any] | None) -> tuple[Any, ...]:
        with pytest.raises(ChunkError) as caught:
            read(opened(path, options), name)
        error = caught.value
        return str(error), error.location, error.path, error.found, error.expected, error.next_step

    for name in ("gzip", "zstd"):
        assert said(name, ISOLATED) == said(name, None)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(NWBZarrError) as plain:
        _arrays(opened(path))
    with pytest.raises(type(plain.value)) as alone:
        _arrays(opened(path, ISOLATED))
    assert str(alone.value) == str(plain.value)


@pytest.mark.parametrize(
    ("filter_", "parameters", "message"),
    [
        (filters.SZIP, (4, 7), "not even"),
        (filters.SZIP, (4, 0), "0 pixels"),
        (filters.SZIP, (4,), "cannot be decoded"),
        (filters.SCALEOFFSET, (99, 0), "Invalid scale type"),
        (filters.SCALEOFFSET, (2, 2**32 - 1), "cannot be decoded"),
    ],
)
def test_parameters_of_filters_may_be_damaged(
    filter_: int, parameters: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    used, location = (Filter(filter_, parameters, ""),), locate(tmp_path / "file.nwb", ISOLATED)
    # Of szip, the size of the chunk comes first.
    data = (8 * 8 * 4 if filter_ == filters.SZIP else 0).to_bytes(4, "little") + bytes(100)
    for undo in (filters.undo, partial(isolated.undo, location)):
        with pytest.raises(ChunkError, match=message):
            undo(data, used, 0, (8, 8), np.dtype("i4"), "The chunk 'x'")


def write_hostile(path: Path) -> Path:
    """Write a dataset whose parameters of zfp, which the decoder follows, are none that it would write."""

    def fill(file: h5py.File) -> None:
        values = np.arange(64 * 64).reshape(64, 64)
        file.create_dataset("good", data=values, dtype="<i4", chunks=(16, 64), **hdf5plugin.Bitshuffle())
        file.create_dataset("hostile", data=values, dtype="<f4", chunks=(64, 64), **hdf5plugin.Zfp(rate=8))
        file["texts"] = np.array(["a", "b"] * 10, object)
        parameters.extend(file["hostile"].id.get_create_plist().get_filter(0)[2])

    parameters: list[int] = []
    data = write(path, fill).read_bytes()
    stored, hostile = (struct.pack("<3I", *parameters[:2], each) for each in (parameters[2], 1))
    assert data.count(stored) == 1
    path.write_bytes(data.replace(stored, hostile))
    return path


def test_a_hostile_chunk_ends_its_process_and_nothing_else(tmp_path: Path) -> None:
    path = write_hostile(tmp_path / "hostile.nwb")
    hierarchy = opened(path, ISOLATED)
    before = only_process().pid
    with pytest.raises(SessionCrashError, match=r"hostile\.nwb was ended by SIGSEGV") as caught:
        read(hierarchy, "hostile")
    assert (caught.value.location, caught.value.path) == (locate(path).url, "hostile")
    assert read(hierarchy, "good")[3, 5] == 3 * 64 + 5
    assert read(hierarchy, "texts").tolist() == ["a", "b"] * 10
    assert only_process().pid != before


def test_other_files_are_read_meanwhile(tmp_path: Path) -> None:
    hostile = opened(write_hostile(tmp_path / "hostile.nwb"), ISOLATED)
    others = [opened(write_hostile(tmp_path / f"{number}.nwb"), ISOLATED) for number in range(3)]
    stop = threading.Event()

    def work(hierarchy: Hierarchy) -> int:
        count = 0
        while not stop.is_set():
            assert read(hierarchy, "good")[3, 5] == 3 * 64 + 5
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        counts = [pool.submit(work, each) for each in others]
        try:
            for _ in range(3):
                with pytest.raises(SessionCrashError):
                    read(hostile, "hostile")
        finally:
            stop.set()
        assert all(each.result() > 0 for each in counts)


def _stopped_while(path: Path, options: dict[str, Any], then: Callable[[psutil.Process], Any]) -> Exception:
    """Return the error of reading from a process that is stopped, after something was done to it."""
    hierarchy = opened(path, options)
    process = only_process()
    process.suspend()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, hierarchy, "good")
        assert waited(lambda: any(each._calls for each in isolated._processes.values()))
        then(process)
        error = reading.exception(30)
    assert isinstance(error, Exception)
    assert read(hierarchy, "good")[3, 5] == 3 * 64 + 5
    assert only_process().pid != process.pid
    return error


@pytest.mark.parametrize("sent", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_process_that_dies_is_an_error_and_the_next_read_starts_another(
    sent: signal.Signals, tmp_path: Path
) -> None:
    def die(process: psutil.Process) -> None:
        process.send_signal(sent)
        # SIGKILL ends a process that is stopped too, which may be before this.
        with suppress(psutil.NoSuchProcess):
            process.resume()

    error = _stopped_while(write_hostile(tmp_path / "file.nwb"), ISOLATED, die)
    assert isinstance(error, SessionCrashError)
    assert f"file.nwb was ended by {sent.name}" in str(error)
    assert ("memory is short" in str(error)) == (sent == signal.SIGKILL)


def test_a_process_that_hangs_ends_on_the_deadline(tmp_path: Path) -> None:
    path = write_hostile(tmp_path / "file.nwb")
    error = _stopped_while(path, {"isolate": {"timeout": 1}}, lambda process: None)
    assert isinstance(error, SessionTimeoutError)
    assert "file.nwb took more than 1 s" in str(error)


def test_a_process_that_sends_nonsense_is_ended(tmp_path: Path) -> None:
    def speak(process: psutil.Process) -> None:
        with Path(f"/proc/{process.pid}/fd/{process.cmdline()[-2]}").open("wb", buffering=0) as pipe:
            pipe.write(b"\xff" * 64)

    error = _stopped_while(write_hostile(tmp_path / "file.nwb"), ISOLATED, speak)
    assert isinstance(error, SessionCrashError)


def test_a_process_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        zeros = bytes(500 * 2**20)
        large = file.create_dataset("large", (len(zeros),), "u1", chunks=(len(zeros),), compression="gzip")
        large.id.write_direct_chunk((0,), zlib.compress(zeros, 1))
        file.create_dataset("small", data=np.arange(50), chunks=(50,), compression="gzip")

    path = write(tmp_path / "file.nwb", fill)
    hierarchy = opened(path, {"isolate": {"memory_limit": "300 MB"}})
    assert read(hierarchy, "small").tolist() == list(range(50))
    before = psutil.Process().memory_info().rss
    with pytest.raises(SessionMemoryError, match=r"file\.nwb took .* 300,000,000 are allowed"):
        read(hierarchy, "large", slice(0, 10))
    assert psutil.Process().memory_info().rss - before < 100 * 2**20
    assert read(hierarchy, "small").tolist() == list(range(50))
    assert read(opened(path, ISOLATED), "large", slice(0, 10)).tolist() == [0] * 10


def test_what_happens_to_an_idle_process_nobody_notices(tmp_path: Path) -> None:
    hierarchy = opened(write_hostile(tmp_path / "file.nwb"), ISOLATED)
    for _ in range(3):
        only_process().kill()
        assert waited(lambda: not isolated._processes)
        assert read(hierarchy, "good")[3, 5] == 3 * 64 + 5


def test_a_process_that_cannot_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_hostile(tmp_path / "file.nwb")
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SessionCrashError, match="status 7 while it started, before it read the file"):
        opened(path, ISOLATED)


def test_processes_without_work_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_hostile(tmp_path / f"{number}.nwb") for number in range(4)]
    monkeypatch.setattr(isolated, "MOST_IDLE", 2)
    hierarchies = [opened(path, ISOLATED) for path in paths]
    assert waited(lambda: len(processes()) == 2)
    monkeypatch.setattr(isolated, "IDLE", 0.3)
    assert waited(lambda: processes() == [])
    assert [int(read(each, "good")[3, 5]) for each in hierarchies] == [3 * 64 + 5] * 4


def test_many_threads_share_one_process(tmp_path: Path) -> None:
    path = write(tmp_path / "file.nwb", _fill_with_everything)
    wanted = _arrays(opened(path))
    hierarchy = opened(path, ISOLATED)

    def work(name: str) -> bool:
        array, _, field = name.rpartition("/")
        found = read(hierarchy, array, (), None if field == "None" else field)
        assert_same(found, wanted[name])
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, [*wanted] * 3))
    assert len(processes()) == 1


SCRIPT = """
import os, sys, time
import psutil
from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.arrays import StoredArray

hierarchy = open_hierarchy(sys.argv[1], {"isolate": True})
StoredArray(hierarchy.file, hierarchy["good"]).read()
forked = os.fork() if sys.argv[2] == "fork" else None
if forked == 0:
    time.sleep(600)
print(*[each.pid for each in psutil.Process().children()], flush=True)
if sys.argv[2] != "exit":
    time.sleep(600)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["kill", "exit", "interrupt", "fork"])
def test_processes_end_with_the_interpreter(how: str, tmp_path: Path) -> None:
    path = write_hostile(tmp_path / "file.nwb")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", tmp_path / "script.py", path, how]
    pipe = subprocess.PIPE
    others: list[psutil.Process] = []
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as script:
        try:
            assert script.stdin is not None
            assert script.stdout is not None
            children = [psutil.Process(int(pid)) for pid in script.stdout.readline().split()]
            own = [each for each in children if isolated.MODULE in " ".join(each.cmdline())]
            others = [each for each in children if each not in own]
            assert (len(own), len(others)) == (1, 1 if how == "fork" else 0)
            if how == "exit":
                script.stdin.close()
            else:
                script.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
            script.wait(20)
            assert psutil.wait_procs(own, timeout=20)[1] == []
        finally:
            script.kill()
            for each in others:
                each.kill()
        errors = script.stderr.read() if script.stderr is not None else ""
    assert errors == "" or how == "interrupt"
    assert script.returncode == {"exit": 0, "interrupt": -signal.SIGINT}.get(how, -signal.SIGKILL)


def test_a_forked_child_leaves_the_process_to_its_parent(tmp_path: Path) -> None:
    hierarchy = opened(write_hostile(tmp_path / "file.nwb"), ISOLATED)
    process = only_process()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        forked = os.fork()
    if forked == 0:
        isolated._end_all()
        os._exit(len(isolated._processes))
    assert os.waitpid(forked, 0)[1] == 0
    assert read(hierarchy, "good")[3, 5] == 3 * 64 + 5
    assert only_process().pid == process.pid


def test_the_option_travels_to_the_workers_of_a_cluster(tmp_path: Path) -> None:
    path = write_hostile(tmp_path / "file.nwb")
    hierarchy = opened(path, ISOLATED)
    stored = StoredArray(hierarchy.file, hierarchy["good"])
    hostile = StoredArray(hierarchy.file, hierarchy["hostile"])
    assert pickle.loads(pickle.dumps(hierarchy.file)).location.option("isolate") == {}

    def sum_and_processes(sent: StoredArray) -> tuple[int, int, int]:
        total = int(sent.read().sum())
        own = [each for each in psutil.Process().children() if "isolated_process" in " ".join(each.cmdline())]
        return total, os.getpid(), len(own)

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        total, worker, count = client.submit(sum_and_processes, stored).result()
        assert (total, count) == (sum(range(64 * 64)), 1)
        assert worker != os.getpid()
        with pytest.raises(SessionCrashError, match="SIGSEGV"):
            client.submit(sum_and_processes, hostile).result()
        assert client.submit(sum_and_processes, stored, pure=False).result() == (total, worker, 1)
        left = processes(worker)
    assert psutil.wait_procs(left, timeout=20)[1] == []


def test_a_zarr_store_has_no_process(forms: Forms) -> None:
    xr.testing.assert_identical(load(forms.zarr, ISOLATED), load(forms.zarr))
    assert processes() == []


def test_false_is_the_default() -> None:
    for options in ({"isolate": False}, {"isolate": None}, {"isolate": "false"}):
        assert locate("/data/a.nwb", options) == locate("/data/a.nwb")
    assert locate("/data/a.nwb", {"isolate": "True"}) == locate("/data/a.nwb", ISOLATED)
    given = {"isolate": {"memory_limit": "2 GB", "timeout": 60}}
    assert locate("s3://bucket/a", given).option("isolate") == {"memory_limit": 2 * 10**9, "timeout": 60}


@pytest.mark.parametrize(
    "value",
    ["process", 1.5, {"timeout": 0}, {"timeout": "1"}, {"memory_limit": "10 MB"}, {"memory": 1}, [True]],
    ids=str,
)
def test_other_values_are_errors(value: Any) -> None:
    with pytest.raises(LocationError, match="isolate"):
        locate("/data/a.nwb", {"isolate": value})


def test_what_reads_with_the_hdf5_library_itself_refuses(forms: Forms) -> None:
    with pytest.raises(OptionError, match="isolate keeps the file"):
        verify(forms.hdf5, ISOLATED)
