"""Each session in a process of its own, which a deadline, a limit of memory, or a crash ends alone."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from intake_nwbzarr.sessions.map import isolation
from intake_nwbzarr.sessions.map.map import map_sessions
from intake_nwbzarr.sessions.map.map_result import MapResult
from intake_nwbzarr.sessions.selected import Selected
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.sessions.mapped_sessions import counts, select, serially

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    isolation.end_processes("")
    assert [each for each in psutil.Process().children() if "isolation" in " ".join(each.cmdline())] == []


def troubled(units: xr.Dataset, trials: xr.Dataset) -> dict[str, float]:
    """Crash, take memory, exit: whatever a function may do to its process."""
    match units.attrs["session_id"]:
        case "ses-1":
            ctypes.string_at(0)
        case "ses-3":
            taken = []
            while True:
                taken.append(np.ones(10**6))
                time.sleep(0.005)
        case "ses-4":
            os.kill(os.getpid(), signal.SIGKILL)
    print("noise on stdout")
    return counts(units, trials)


EXPECTED = {
    1: ("SessionCrashError", "SIGSEGV"),
    3: ("SessionMemoryError", "600,000,000 are allowed"),
    4: ("SessionCrashError", "SIGKILL, which is how the system ends"),
}


def check(done: Any, found: list[Selected]) -> None:
    failures = done.failures
    assert failures.session.tolist() == [found[number].key for number in EXPECTED]
    assert failures.error.tolist() == [error for error, _ in EXPECTED.values()]
    for message, (_, wanted) in zip(failures.message, EXPECTED.values(), strict=True):
        assert wanted in message
    assert not failures.transient.any()
    others = [found[0], found[2], found[5]]
    wanted_rows = pd.DataFrame(serially(others, counts)).T
    np.testing.assert_array_equal(done.frame[["units", "last", "trials"]].to_numpy(), wanted_rows.to_numpy())


def test_what_happens_to_one_process_happens_to_one_session(found: list[Selected], tmp_path: Path) -> None:
    done = map_sessions(
        found, troubled, folder=tmp_path, isolate="process", timeout=120, memory_limit="600 MB", threads=3
    )
    check(done, found)


def test_a_session_that_hangs_ends_on_the_deadline(found: list[Selected]) -> None:
    def hanging(units: xr.Dataset, trials: xr.Dataset) -> int:
        time.sleep(600)
        return 1

    began = time.monotonic()
    done = map_sessions(found[:1], hanging, isolate="process", timeout=2, threads=1)
    assert done.failures.error.tolist() == ["SessionTimeoutError"]
    assert "within 2 s" in done.failures.message[0]
    assert not done.failures.transient.any()
    assert time.monotonic() - began < 60


def test_the_same_on_the_workers_of_a_cluster(found: list[Selected], tmp_path: Path) -> None:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        worker = next(iter(client.run(os.getpid).values()))
        done = map_sessions(
            found, troubled, client=client, folder=tmp_path, isolate="process", timeout=120, memory_limit=6e8
        )
        assert next(iter(client.run(os.getpid).values())) == worker
        assert psutil.Process(worker).children() == []
    check(done, found)


SCRIPT = """
import sys, time
from tests.sessions.mapped_sessions import select
from intake_nwbzarr.sessions.map.map import map_sessions

def hanging(units, trials):
    print("working\\n", end="", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    found = [select(f"{sys.argv[1]}/s{number}.nwb.zarr", number) for number in range(2)]
    map_sessions(found, hanging, folder=sys.argv[2], isolate=sys.argv[3] or None, threads=2)
"""


@pytest.mark.parametrize("isolate", ["process", ""])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_a_script_and_what_it_has_started(
    served: StaticServer, tmp_path: Path, isolate: str, sent: signal.Signals
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", served.url, tmp_path / "out", isolate]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as script:
        try:
            assert script.stdout is not None
            assert [script.stdout.readline() for _ in range(2)] == [b"working\n"] * 2
            children = psutil.Process(script.pid).children()
            assert len(children) == (2 if isolate else 0)
            script.send_signal(sent)
            # Not only when the functions have ended.
            assert script.wait(20) == -sent
        finally:
            script.kill()
    assert psutil.wait_procs(children, timeout=20)[1] == []
    if sent == signal.SIGINT:
        assert MapResult.load(tmp_path / "out").provenance.status == "interrupted"


def forking(units: xr.Dataset, trials: xr.Dataset) -> int:
    """Leave a process of one's own behind, which holds all pipes open."""
    if units.attrs["session_id"] != "ses-2":
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
    match units.attrs["session_id"]:
        case "ses-0":
            os.kill(os.getpid(), signal.SIGKILL)
        case "ses-1":
            time.sleep(600)
    return 1


def test_processes_that_a_function_has_started_end_with_it(found: list[Selected]) -> None:
    before = set(psutil.Process().children(recursive=True))
    done = map_sessions(found[:3], forking, isolate="process", timeout=3, threads=1)
    assert done.failures.error.tolist() == ["SessionCrashError", "SessionTimeoutError"]
    assert done.sessions == [found[2].key]
    assert set(psutil.Process().children(recursive=True)) == before


def test_a_process_that_cannot_start_is_not_the_fault_of_a_session(
    found: list[Selected], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = map_sessions(found[:1], counts, isolate="process", threads=1)
    assert done.failures.error.tolist() == ["SessionCrashError"]
    assert "status 7 while it started, before it opened the session" in done.failures.message[0]


class SlowToLoad:
    """A function whose modules take a while to load, such as on a busy machine."""

    def __call__(self, units: xr.Dataset, trials: xr.Dataset) -> int:
        return 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_slowly, ()


def _load_slowly() -> SlowToLoad:
    time.sleep(4)
    return SlowToLoad()


def test_no_session_pays_for_the_start_of_its_process(found: list[Selected]) -> None:
    done = map_sessions(found[:1], SlowToLoad(), isolate="process", timeout=1, threads=1)
    assert len(done.failures) == 0
    assert done.ended[0].seconds < 4


def test_a_first_session_that_is_late_is_tried_once_more(found: list[Selected], tmp_path: Path) -> None:
    def cold(units: xr.Dataset, trials: xr.Dataset) -> int:
        if not (marker := tmp_path / "warm").exists():
            marker.touch()
            time.sleep(600)
        return 1

    done = map_sessions(found[:1], cold, isolate="process", timeout=1, threads=1)
    assert len(done.failures) == 0


def test_a_process_serves_many_sessions_and_what_it_returns_is_the_same(found: list[Selected]) -> None:
    def process(units: xr.Dataset, trials: xr.Dataset) -> int:
        return os.getpid()

    done = map_sessions(found, process, isolate="process", threads=1)
    assert len(set(done.frame.value)) == 1
    assert done.frame.value.iloc[0] != os.getpid()

    def wrong(units: xr.Dataset, trials: xr.Dataset) -> int:
        raise LookupError("not here")

    done = map_sessions(found, wrong, isolate="process", threads=1)
    assert set(done.failures.error) == {"LookupError"}


def test_explicit_keys_reach_the_process(s3_server: S3Server, folder: Path, tmp_path: Path) -> None:
    place = s3_server.upload(s3_server.private_bucket, "isolated/s0.nwb.zarr", folder / "s0.nwb.zarr")
    session = select(place, 0, s3_server.signed_options)
    results = f"s3://{s3_server.private_bucket}/{tmp_path.name}"
    done = map_sessions(
        [session],
        counts,
        isolate="process",
        folder=results,
        storage_options=s3_server.signed_options,
        threads=1,
    )
    assert len(done.failures) == 0
    assert len(done.frame) == 1
