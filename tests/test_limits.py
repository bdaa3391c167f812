"""Limits: set at run time or by the environment, held on the wire, refused when they mean nothing."""

import json
import math
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from numpy.typing import NDArray

import intake_nwbzarr
from intake_nwbzarr import limits as module
from intake_nwbzarr import set_limits
from intake_nwbzarr.arguments import describe_value
from intake_nwbzarr.arrays.gather import copy, gather
from intake_nwbzarr.arrays.selection import Index
from intake_nwbzarr.errors import OptionError, TransportError
from intake_nwbzarr.limits import Limits, limits
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.loop import budget, run
from intake_nwbzarr.transport.open import fetch_many, open_transport
from tests.arrays.stored_arrays import write
from tests.servers.http_server import StaticServer

VARIABLES = tuple(
    f"NWBZARR_{name}"
    for name in ("REQUESTS", "BYTES_IN_FLIGHT", "DECODING_THREADS", "BLOCK_BYTES", "BYTES_AT_OPEN")
)


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits as in a process that has not asked for them yet, no overload so far, and all that undone."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "_limits", None)
    monkeypatch.setattr(budget, "_share", 1.0)


def test_what_holds_unless_set() -> None:
    assert set_limits() == limits() == Limits(256, 512 * 2**20, limits().decoding_threads)
    assert 2 <= limits().decoding_threads <= 8


def test_only_what_is_named_is_set_and_what_holds_is_given_back() -> None:
    assert set_limits(requests=64).requests == 64
    assert set_limits(bytes_in_flight="256 MB", decoding_threads=3) == limits() == Limits(64, 256_000_000, 3)
    assert set_limits(decoding_threads=np.int64(2)) == Limits(64, 256_000_000, 2)


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("1 MiB", 2**20),
        ("1.5 GB", 1_500_000_000),
        (1e9, 10**9),
        (np.int64(2**30), 2**30),
        ("5000000", 5 * 10**6),
    ],
)
def test_bytes_are_numbers_or_texts(given: Any, understood: int) -> None:
    assert set_limits(bytes_in_flight=given).bytes_in_flight == understood


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *(("requests", given) for given in (0, -1, 1.5, "many", True, [64], float("nan"))),
        *(("bytes_in_flight", given) for given in (0, 256, "lots", "", "-2 GB", True, b"1 GB", "1e400 MB")),
        *(("bytes_in_flight", given) for given in (float("nan"), float("inf"), 10**400, "12 parsecs")),
        *(("block_bytes", given) for given in (0, "64", "lots", True, float("inf"))),
        *(("decoding_threads", given) for given in (0, "", 2.0, False)),
    ],
)
def test_an_invalid_limit_is_an_error_and_changes_nothing(name: str, given: Any) -> None:
    before = set_limits(requests=10)
    wanted = "at least 1 MB, as a number of bytes" if "bytes" in name else "a whole number of at least 1"
    others: dict[str, Any] = {"requests": 11, "bytes_in_flight": 10**7, "decoding_threads": 5}
    with pytest.raises(OptionError, match=f"^{name} must be {wanted}.*, not ") as caught:
        set_limits(**{**others, name: given})
    assert caught.value.found == describe_value(given)
    assert limits() == before


def test_the_environment_is_read_when_limits_are_first_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("32", "128 MiB", " 3 ", "32 MiB", "1 GB")
    for name, value in zip(VARIABLES, given, strict=True):
        monkeypatch.setenv(name, value)
    assert limits() == Limits(32, 2**27, 3, 2**25, 10**9)
    assert set_limits(requests=5) == Limits(5, 2**27, 3, 2**25, 10**9)
    monkeypatch.setenv("NWBZARR_REQUESTS", "7")
    assert limits().requests == 5


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NWBZARR_REQUESTS", "")
    assert limits().requests == 256


_OPEN = """
import sys, warnings
import xarray as xr
try:
    xr.open_dataset(sys.argv[1], engine="nwbzarr")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_an_invalid_environment_variable_is_one_error_that_names_it(
    http_server: StaticServer, corpus_dir: Callable[[str, str], Path]
) -> None:
    (http_server.root / "a.nwb.zarr").symlink_to(corpus_dir("ecephys", "0.14.0"))
    found = subprocess.run(
        [sys.executable, "-c", _OPEN, f"{http_server.url}/a.nwb.zarr"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NWBZARR_REQUESTS": "a few"},
    )
    assert found.stdout == (
        "OptionError The environment variable NWBZARR_REQUESTS must be a whole number of at least 1, "
        "not 'a few'.\n"
    )
    assert http_server.count() == 0


def _fetch(server: StaticServer, number: int) -> int:
    """Fetch so many objects, and tell how many requests were in flight at most."""
    server.most_at_once = 0
    transport = open_transport(locate(server.url))
    assert None not in fetch_many(transport, [str(number) for number in range(number)])
    return server.most_at_once


def test_requests_keep_to_what_is_set_also_over_connections_that_are_there(http_server: StaticServer) -> None:
    for number in range(80):
        (http_server.root / f"{number}").write_bytes(b"x" * 1000)
    http_server.latency = 0.02
    set_limits(requests=10)
    assert _fetch(http_server, 80) == 10
    set_limits(requests=30)
    assert _fetch(http_server, 80) == 30
    set_limits(requests=3)
    assert _fetch(http_server, 30) == 3


def test_an_overload_halves_what_is_set(http_server: StaticServer) -> None:
    for number in range(80):
        (http_server.root / f"{number}").write_bytes(b"x")
    set_limits(requests=40)
    http_server.fault("status", "/7", status=503)
    transport = open_transport(locate(http_server.url, {"timeouts": {"backoff": 0.01}}))
    assert fetch_many(transport, ["7"])[0] is not None
    assert budget.limit == 20
    http_server.latency = 0.02
    # Answers win it back one by one.
    assert 20 <= _fetch(http_server, 80) <= 24


def test_answers_keep_to_the_bytes_that_are_set(
    http_server: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 4_000_000
    (http_server.root / "a").write_bytes(bytes(size))
    held, most = 0, 0
    body = budget.body

    @asynccontextmanager
    async def noted(announced: int) -> AsyncIterator[None]:
        nonlocal held, most
        async with body(announced):
            held += announced
            most = max(most, held)
            try:
                yield
            finally:
                held -= announced

    monkeypatch.setattr(budget, "body", noted)
    # Answers that stop half way hold their bytes until they are given up.
    http_server.fault("stall", times=math.inf)
    transport = open_transport(locate(http_server.url, {"timeouts": {"stall": 0.5, "attempts": 1}}))
    found = []
    for allowed in ("1 MB", "13 MB", "1 GB"):
        set_limits(bytes_in_flight=allowed)
        most = 0
        with pytest.raises(TransportError):
            fetch_many(transport, ["a"] * 10)
        found.append(most / size)
    assert found == [1, 3, 10]
    assert held == 0


def test_chunks_are_decoded_on_as_many_threads_as_are_set(tmp_path: Path) -> None:
    values = np.arange(200_000, dtype="int32")
    array = write(tmp_path, values, chunks=(10_000,))
    for count in (3, 1, 5):
        set_limits(decoding_threads=count)
        threads = set()

        def place(
            out: NDArray[Any], outside: tuple[Index, ...], part: NDArray[Any], seen: set[int] = threads
        ) -> None:
            seen.add(threading.get_ident())
            time.sleep(0.02)
            copy(out, outside, part)

        (read,) = run(gather([array.reading((), place=place)]))
        np.testing.assert_array_equal(read, values)
        assert len(threads) == count


_READ = """
import json, sys
import xarray as xr
from intake_nwbzarr import set_limits
dataset = xr.open_dataset(sys.argv[1], engine="nwbzarr")
dataset.load()
print(json.dumps(set_limits().requests))
"""


@pytest.mark.slow
def test_a_process_keeps_to_its_environment(
    http_server: StaticServer, corpus_dir: Callable[[str, str], Path]
) -> None:
    (http_server.root / "a.nwb.zarr").symlink_to(corpus_dir("ecephys", "0.14.0"))
    http_server.latency = 0.01
    most = []
    for requests in ("2", "256"):
        http_server.most_at_once = 0
        found = subprocess.run(
            [sys.executable, "-W", "error", "-c", _READ, f"{http_server.url}/a.nwb.zarr"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "NWBZARR_REQUESTS": requests},
        )
        assert json.loads(found.stdout) == int(requests)
        most.append(http_server.most_at_once)
    assert most[0] == 2 < most[1]


def test_workers_take_theirs_from_their_environment_or_from_a_call() -> None:
    with (
        dask.config.set({"distributed.nanny.environ.NWBZARR_REQUESTS": 16}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        assert [found.requests for found in client.run(set_limits).values()] == [16]
        assert [found.requests for found in client.run(set_limits, requests=8).values()] == [8]
        assert client.submit(limits, pure=False).result().requests == 8
    assert limits().requests == 256


def test_it_is_a_name_of_the_package() -> None:
    assert intake_nwbzarr.set_limits is set_limits
    assert "set_limits" in dir(intake_nwbzarr)
    assert pickle.loads(pickle.dumps(set_limits)) is set_limits
