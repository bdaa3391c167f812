"""A function is mapped over sessions on a cluster of processes, which die, hang and run out of memory."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import intake_nwbzarr.sessions.map.map as mapping
from intake_nwbzarr import __version__, set_limits
from intake_nwbzarr.errors import (
    ClusterError,
    CredentialsError,
    MapError,
    MapWarning,
    OptionError,
    SessionFailedError,
)
from intake_nwbzarr.sessions.map import pools
from intake_nwbzarr.sessions.map.map import map_sessions
from intake_nwbzarr.sessions.map.map_result import MapResult
from intake_nwbzarr.sessions.selected import Selected
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import edit
from tests.sessions.mapped_sessions import COUNT, counts, select, serially, write_session

pytestmark = pytest.mark.slow


def cluster(**options: Any) -> LocalCluster:
    given = {"n_workers": 2, "threads_per_worker": 2, "memory_limit": 0} | options
    return LocalCluster(processes=True, dashboard_address=":0", **given)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with cluster() as running, Client(running) as client:
        yield client


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "BACKOFF", 0.05)
    monkeypatch.setattr(pools, "PATIENCE", 3.0)
    monkeypatch.setattr(pools, "_LOOK", 0.2)


def expected(found: list[Selected]) -> np.ndarray[Any, Any]:
    return pd.DataFrame(serially(found, counts)).T.to_numpy()


def values(done: MapResult) -> np.ndarray[Any, Any]:
    return done.frame[["units", "last", "trials"]].to_numpy()


@pytest.mark.parametrize("kept", [True, False])
def test_results_equal_a_serial_loop(
    client: Client, found: list[Selected], tmp_path: Path, kept: bool
) -> None:
    done = map_sessions(found, counts, client=client, folder=tmp_path if kept else None, name="same")
    np.testing.assert_array_equal(values(done), expected(found))
    assert list(done.frame.index) == [each.key for each in found]
    assert done.provenance.workers == "distributed"
    if kept:
        np.testing.assert_array_equal(values(MapResult.load(tmp_path)), expected(found))


def test_functions_of_a_notebook_with_large_values_are_sent(client: Client, found: list[Selected]) -> None:
    large = np.arange(50_000.0)

    def total(units: xr.Dataset, trials: xr.Dataset) -> float:
        return float(large.sum())

    done = map_sessions(found, total, client=client)
    assert done.frame.value.tolist() == [large.sum()] * COUNT


def test_sessions_that_take_a_moment_share_tasks(client: Client, found: list[Selected]) -> None:
    many = [
        Selected(f"{each.key}?{number}", each.location, each.etag, each.paths)
        for number in range(20)
        for each in found
    ]
    done = map_sessions(many, counts, client=client, name="shared")
    assert len(done.sessions) == len(many)
    assert [key.partition("?")[0] for key in done.frame.index] == [
        each.key.partition("?")[0] for each in many
    ]
    tasks = client.run_on_scheduler(
        lambda dask_scheduler: len(
            {each[0] for each in dask_scheduler.transition_log if str(each[0]).startswith("shared-")}
        )
    )
    # How many share one depends on how long they take, on a busy machine as well.
    assert tasks < len(many)


def test_only_names_come_back_and_nothing_stays_on_the_cluster(
    client: Client, found: list[Selected], tmp_path: Path
) -> None:
    def wide(units: xr.Dataset, trials: xr.Dataset) -> pd.Series:
        return pd.Series(np.random.default_rng(0).random(200_000))

    done = map_sessions(found, wide, client=client, folder=tmp_path)
    assert sum(each.rows for each in done.ended) == COUNT * 200_000
    assert done.files == {}
    assert len(pickle.dumps(done.table)) < 10_000
    time.sleep(0.2)
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0
    assert registered(client) == []

    def loaded() -> int:
        from intake_nwbzarr.sessions.map.tasks import job_of

        return job_of.cache_info().currsize

    assert set(client.run(loaded).values()) == {0}


def test_a_session_that_takes_all_memory_of_a_worker(found: list[Selected], tmp_path: Path) -> None:
    def greedy(units: xr.Dataset, trials: xr.Dataset) -> int:
        if units.attrs["session_id"] == "ses-2":
            taken = [bytearray(os.urandom(1)) * 10**7 for _ in range(300) if time.sleep(0.01) is None]
            return len(taken)
        return 1

    with cluster(memory_limit="1 GB") as running, Client(running) as client:
        done = map_sessions(found, greedy, client=client, folder=tmp_path)
    assert done.failures.session.tolist() == [found[2].key]
    assert len(done.sessions) == COUNT - 1


def test_what_fails_always_twice_and_never(client: Client, served: StaticServer, tmp_path: Path) -> None:
    hasty = {"timeouts": {"attempts": 1, "stall": 0.5}}
    urls = [f"{served.url}/s{number}.nwb.zarr" for number in range(COUNT)]
    stale, half = write_session(served.root, 20), write_session(served.root, 21)
    found = [select(url, number, hasty) for number, url in enumerate(urls)]
    found += [select(f"{served.url}/{each.name}", 9, hasty) for each in (stale, half)]
    edit(stale, "units", lambda document: document["attributes"].update(x=1))
    (half / "zarr.json").unlink()
    served.fault("status", "s1.nwb.zarr/units/id/", times=2)
    served.fault("status", "s2.nwb.zarr/units/id/", times=10**6)
    served.fault("stall", "s3.nwb.zarr/units/id/", times=10**6)

    def picky(units: xr.Dataset, trials: xr.Dataset) -> dict[str, float]:
        from tests.sessions.mapped_sessions import counts

        if units.attrs["session_id"] == "ses-4":
            raise IndexError("always")
        return counts(units, trials)

    done = map_sessions(found, picky, client=client, folder=tmp_path, timeout=5)
    failures = done.failures.set_index("session")
    assert failures.error.to_dict() == {
        found[2].key: "TransportError",
        found[3].key: "TransportError",
        found[4].key: "IndexError",
        found[6].key: "StaleTableError",
        found[7].key: "LocationNotFoundError",
    }
    assert failures.attempts.tolist() == [3, 3, 1, 1, 1]
    assert failures.transient.tolist() == [True, True, False, False, False]
    assert next(each.attempts for each in done.ended if each.session == found[1].key) == 3
    np.testing.assert_array_equal(values(done), expected([found[n] for n in (0, 1, 5)]))
    # The same call resumes with those that failed.
    served.reset()
    again = map_sessions(found, picky, client=client, folder=tmp_path, timeout=5)
    assert again.provenance.counts["kept"] == 3
    assert set(again.failures.session) == {found[number].key for number in (4, 6, 7)}


def registered(client: Client) -> list[str]:
    """Return the plugins that maps have on the cluster."""
    names = client.run_on_scheduler(
        lambda dask_scheduler: [*dask_scheduler.plugins, *dask_scheduler.worker_plugins]
    )
    return [name for name in names if name.startswith("nwbzarr-map")]


def test_whatever_a_function_raises_is_a_failure_of_its_session(
    client: Client, found: list[Selected]
) -> None:
    def raising(units: xr.Dataset, trials: xr.Dataset) -> int:
        match units.attrs["session_id"]:
            case "ses-1":
                raise KeyboardInterrupt
            case "ses-2":
                raise GeneratorExit
            case "ses-3":

                class MuteError(Exception):
                    def __str__(self) -> str:
                        raise RuntimeError

                raise MuteError
        return 1

    done = map_sessions(found, raising, client=client)
    assert done.failures.error.tolist() == ["KeyboardInterrupt", "GeneratorExit", "MuteError"]


def test_what_cannot_be_sent_is_refused_and_leaves_nothing_on_the_cluster(
    client: Client, found: list[Selected]
) -> None:
    lock = threading.Lock()
    with pytest.raises(OptionError, match="cannot be sent to another process"):
        map_sessions(found, lambda units, trials: lock.locked(), client=client)
    assert registered(client) == []


def test_workers_of_another_version_are_one_error(client: Client, found: list[Selected]) -> None:
    def install(version: str) -> None:
        from intake_nwbzarr.sessions.map import pools

        pools.__version__ = version  # type: ignore[attr-defined]

    client.run(install, "0.0.1")
    try:
        with pytest.raises(MapError, match=r"A worker has intake-nwbzarr 0\.0\.1"):
            map_sessions(found, counts, client=client)
    finally:
        client.run(install, __version__)


def test_a_client_that_leaves_takes_its_map_with_it(client: Client, found: list[Selected]) -> None:
    def limit() -> int:
        from intake_nwbzarr.limits import limits

        return limits().requests

    many = [
        Selected(f"{each.key}?{number}", each.location, each.etag, each.paths)
        for number in range(10)
        for each in found
    ]
    before = client.run(limit)
    own = Client(client.scheduler.address, set_as_default=False)
    closing = threading.Timer(1.5, own.close)
    closing.start()
    with pytest.raises(ClusterError):
        map_sessions(many, slowly, client=own)
    closing.join()
    until = time.monotonic() + 20
    while registered(client) and time.monotonic() < until:
        time.sleep(0.1)
    assert registered(client) == []
    assert client.run(limit) == before


def test_on_error_raise_cancels_the_rest(client: Client, found: list[Selected]) -> None:
    def wrong(units: xr.Dataset, trials: xr.Dataset) -> int:
        raise RuntimeError("all wrong")

    with pytest.raises(SessionFailedError, match="all wrong"):
        map_sessions(found, wrong, client=client, on_error="raise")
    time.sleep(0.5)
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0


def test_cancelled_sessions_are_not_failed(client: Client, found: list[Selected], tmp_path: Path) -> None:
    def slow(units: xr.Dataset, trials: xr.Dataset) -> int:
        time.sleep(0.5)
        return 1

    def cancel() -> None:
        time.sleep(0.7)
        keys = [key for key in list(client.futures) if str(key).startswith("slow-")]
        client.cancel([client_future(client, key) for key in keys])

    threading.Thread(target=cancel).start()
    done = map_sessions(found, slow, client=client, folder=tmp_path)
    assert done.cancelled
    assert len(done.failures) == 0
    assert len(done.cancelled) + len(done.sessions) == COUNT
    again = map_sessions(found, slow, client=client, folder=tmp_path)
    assert len(again.sessions) == COUNT


def client_future(client: Client, key: Any) -> Any:
    from distributed import Future

    return Future(key, client)


def test_requests_are_shared_among_workers(
    client: Client, found: list[Selected], served: StaticServer
) -> None:
    client.wait_for_workers(2, timeout=60)

    def limit() -> int:
        from intake_nwbzarr.limits import limits

        return limits().requests

    before = set_limits()
    there = client.run(limit)
    set_limits(requests=6)
    try:
        served.reset()
        served.latency = 0.05
        done = map_sessions(found, lambda units, trials: limit(), client=client)
    finally:
        set_limits(requests=before.requests)
    assert done.frame.value.tolist() == [3] * COUNT
    assert 3 < served.most_at_once <= 6
    assert client.run(limit) == there


def test_explicit_keys_are_sent_only_where_that_was_asked_for(
    client: Client, s3_server: S3Server, folder: Path, tmp_path: Path
) -> None:
    place = s3_server.upload(s3_server.private_bucket, "map/s0.nwb.zarr", folder / "s0.nwb.zarr")
    kept = select(place, 0, s3_server.signed_options)
    done = map_sessions([kept], counts, client=client)
    assert done.failures.error.tolist() == ["CredentialsError"]
    results = f"s3://{s3_server.private_bucket}/{tmp_path.name}"
    with pytest.raises(CredentialsError, match="ship_credentials"):
        map_sessions([kept], counts, client=client, folder=results, storage_options=s3_server.signed_options)
    options = {**s3_server.signed_options, "ship_credentials": True}
    sent = select(place, 0, options)
    done = map_sessions([sent], counts, client=client, folder=results, storage_options=options)
    assert len(done.frame) == 1
    assert len(MapResult.load(results, options).frame) == 1


def test_secrets_are_in_no_log_graph_key_traceback_or_file(
    s3_server: S3Server, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = s3_server.upload(s3_server.private_bucket, "map/s0.nwb.zarr", folder / "s0.nwb.zarr")
    options = {**s3_server.signed_options, "ship_credentials": True}
    found = [select(place, number, options, labels={"session_id": str(number)}) for number in range(1)]
    found += [
        Selected(f"{place}?{number}", found[0].location, found[0].etag, found[0].paths) for number in range(3)
    ]

    def leaky(units: xr.Dataset, trials: xr.Dataset) -> int:
        from intake_nwbzarr.location import credentials

        known = [dict(each) for each in credentials._GIVEN.values()]
        print("in", units.attrs["nwb_location"], units.encoding, trials)
        raise ValueError(f"{known} {units.attrs}")

    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    logging.getLogger("distributed").addHandler(handler)
    try:
        with cluster(n_workers=1) as running, Client(running) as client:
            done = map_sessions(found, leaky, client=client, folder=tmp_path)
            seen = repr(client.run_on_scheduler(lambda dask_scheduler: repr(dask_scheduler.transition_log)))
            seen += repr(client.get_events())
            seen += repr(client.get_worker_logs()) + repr(client.get_scheduler_logs())
    finally:
        logging.getLogger("distributed").removeHandler(handler)
    out, err = capfd.readouterr()
    seen += logged.getvalue() + out + err + repr(done) + done.failures.to_csv()
    assert done.failures.error.tolist() == ["ValueError"] * 4
    assert "****" in done.failures.message[0]
    assert "leaky" in seen
    assert s3_server.secret not in seen
    files = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())
    assert s3_server.secret.encode() not in files


def test_a_module_that_workers_lack_is_one_error(
    client: Client, found: list[Selected], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def one(units, trials):\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # type: ignore[import-not-found]

    with pytest.raises(MapError, match="No module named 'only_here'"):
        map_sessions(found, only_here.one, client=client)


def test_a_folder_that_workers_do_not_share_is_one_error(
    client: Client, found: list[Selected], tmp_path: Path
) -> None:
    # A folder that is only there for whoever calls map, as on another machine: here, moved away.
    root = tmp_path / "mine"

    def moving() -> Iterator[Selected]:
        for each in found:
            yield each
            if root.exists():
                root.rename(tmp_path / f"elsewhere-{time.monotonic_ns()}")

    with pytest.raises(MapError, match="all workers share"):
        map_sessions(moving(), counts, client=client, folder=root)


def test_what_is_no_running_client_is_refused(found: list[Selected], client: Client) -> None:
    with pytest.raises(OptionError, match=r"distributed\.Client"):
        map_sessions(found, counts, client=client.cluster)
    other = Client(client.scheduler.address, set_as_default=False)
    other.close()
    with pytest.raises(ClusterError, match="closed"):
        map_sessions(found, counts, client=other)


# Nannies may give up on a worker of a machine that is very busy: what needs both of them stands above.


def test_a_worker_that_a_session_kills_is_blamed_on_that_session_alone(
    client: Client, found: list[Selected], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a busy machine, on which a worker starts again for long.
    monkeypatch.setattr(pools, "PATIENCE", 60.0)

    def deadly(units: xr.Dataset, trials: xr.Dataset) -> dict[str, float]:
        from tests.sessions.mapped_sessions import counts

        if units.attrs["session_id"] == "ses-3":
            os._exit(3)
        return counts(units, trials)

    done = map_sessions(found, deadly, client=client, folder=tmp_path)
    assert done.failures.session.tolist() == [found[3].key]
    # Twice with others, and once alone: it has not killed as many workers as dask allows.
    assert done.failures.attempts.tolist() == [3]
    assert done.failures.error.tolist() == ["SessionCrashError"]
    others = [each for each in found if each is not found[3]]
    np.testing.assert_array_equal(values(done), expected(others))


def test_a_worker_killed_from_outside_loses_nothing(
    client: Client, found: list[Selected], tmp_path: Path
) -> None:
    client.wait_for_workers(1, timeout=60)
    process = next(iter(client.run(os.getpid).values()))
    threading.Timer(0.3, os.kill, (process, signal.SIGKILL)).start()

    def slow(units: xr.Dataset, trials: xr.Dataset) -> dict[str, float]:
        from tests.sessions.mapped_sessions import counts

        time.sleep(0.4)
        return counts(units, trials)

    done = map_sessions(found, slow, client=client, folder=tmp_path)
    assert len(done.failures) == 0
    np.testing.assert_array_equal(values(done), expected(found))
    assert len(list((tmp_path / "slow/results").iterdir())) == COUNT


def test_a_worker_that_was_restarted_has_its_share_too(found: list[Selected], served: StaticServer) -> None:
    def limit(units: xr.Dataset, trials: xr.Dataset) -> int:
        from intake_nwbzarr.limits import limits

        marker = Path(served_root) / "killed"
        with contextlib.suppress(FileExistsError):
            marker.touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        return limits().requests

    served_root = str(served.root)
    with cluster() as running, Client(running, set_as_default=False) as own:
        own.wait_for_workers(2)
        done = map_sessions(found, limit, client=own)
    assert done.frame.value.tolist() == [128] * COUNT


def slowly(units: xr.Dataset, trials: xr.Dataset) -> dict[str, float]:
    from tests.sessions.mapped_sessions import counts

    time.sleep(0.5)
    return counts(units, trials)


@pytest.mark.parametrize("end", ["scheduler", "client", "workers"])
def test_a_cluster_that_is_closed_is_one_error_and_the_folder_resumes(
    found: list[Selected], tmp_path: Path, end: str, client: Client
) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
        running = cluster(n_workers=1, threads_per_worker=1)
        own = Client(running, set_as_default=False)
    actions: dict[str, Callable[[], object]] = {
        "scheduler": running.close,
        "client": own.close,
        "workers": lambda: running.scale(0),
    }

    def close() -> None:
        """End it once there are results."""
        deadline = time.monotonic() + 20
        while not any(tmp_path.rglob("results/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.05)
        actions[end]()

    closing = threading.Thread(target=close)
    closing.start()
    began = time.monotonic()
    try:
        with pytest.raises(ClusterError, match="resumes") as caught:
            map_sessions(found, slowly, client=own, folder=tmp_path)
    finally:
        closing.join()
        own.close()
        running.close()
    assert caught.value.transient
    assert time.monotonic() - began < 30
    partly = MapResult.load(tmp_path)
    assert partly.provenance.status == "interrupted"
    done = map_sessions(found, slowly, client=client, folder=tmp_path)
    assert done.provenance.counts["kept"] >= 1
    np.testing.assert_array_equal(values(done), expected(found))


def test_workers_without_nannies_that_die_are_one_error(found: list[Selected], tmp_path: Path) -> None:
    import sys
    from subprocess import DEVNULL, Popen

    with LocalCluster(n_workers=0, dashboard_address=":0") as running, Client(running) as own:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", running.scheduler_address]
        worker = Popen([*command, "--no-nanny", "--no-dashboard"], stdout=DEVNULL, stderr=DEVNULL)

        def deadly(units: xr.Dataset, trials: xr.Dataset) -> int:
            if units.attrs["session_id"] == "ses-3":
                os.kill(os.getpid(), signal.SIGKILL)
            return 1

        with pytest.raises(ClusterError, match="isolate='process'") as caught:
            map_sessions(found, deadly, client=own, folder=tmp_path)
        worker.wait()
    partly = MapResult.load(tmp_path)
    assert partly.provenance.status == "interrupted"
    assert caught.value.result.sessions == partly.sessions


def test_a_cluster_without_workers_is_waited_for_with_a_limit(
    found: list[Selected], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "FIRST_PATIENCE", 0.5)
    monkeypatch.setattr(pools, "_WAITING", 0.2)
    with (
        cluster(n_workers=0) as running,
        Client(running, set_as_default=False) as own,
        pytest.warns(MapWarning, match="waits for them"),
        pytest.raises(ClusterError, match="wait_for_workers"),
    ):
        map_sessions(found, counts, client=own)
