"""Connections to one server ramp up, so that one with a small backlog loses none."""

from __future__ import annotations

import asyncio
import functools
import http.server
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import TransportError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport import connect as module
from intake_nwbzarr.transport.connect import FEWEST, FIRST, Ramp
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import fetch_many, open_transport

CHUNKS = 300


class SmallServer(http.server.ThreadingHTTPServer):
    """As `python -m http.server` runs: five connections wait at most, and each serves one request."""

    request_queue_size = 5
    daemon_threads = True


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[SmallServer]:
    (tmp_path / "zarr.json").write_bytes(b"{}")
    for number in range(CHUNKS):
        (tmp_path / str(number)).write_bytes(bytes([number % 256]) * 2000)
    with SmallServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def test_a_server_with_a_backlog_of_five_is_read_without_waiting_for_tcp(small_server: SmallServer) -> None:
    transport = open_transport(locate(f"http://127.0.0.1:{small_server.server_port}"))
    began = time.monotonic()
    with track_requests() as log:
        found = fetch_many(transport, [str(number) for number in range(CHUNKS)])
    # Handshakes that TCP repeats after 1, 3 and 7 seconds made it ten and more.
    assert time.monotonic() - began < 6
    assert [fetched and fetched.data[:1] for fetched in found] == [bytes([n % 256]) for n in range(CHUNKS)]
    assert (log.requests, log.retries) == (CHUNKS, 0)


def test_a_server_that_has_stopped_is_an_error_soon(small_server: SmallServer) -> None:
    options = {"timeouts": {"attempts": 2, "backoff": 0.01}}
    transport = open_transport(locate(f"http://127.0.0.1:{small_server.server_port}", options))
    run(transport.get("0"))
    small_server.shutdown()
    small_server.server_close()
    with pytest.raises(TransportError, match="ECONNREFUSED"):
        run(transport.get("1"))


def on_a_loop(check: Callable[[Ramp], Awaitable[None]]) -> Callable[[], None]:
    def run_it() -> None:
        async def checked() -> None:
            await check(Ramp())

        asyncio.run(checked())

    run_it.__name__ = check.__name__
    return run_it


def enter_all(ramp: Ramp) -> int:
    """How many are let in."""
    entered = 0
    while ramp.enter():
        entered += 1
    return entered


def now() -> float:
    return asyncio.get_running_loop().time()


@on_a_loop
async def test_connections_double_as_they_succeed(ramp: Ramp) -> None:
    for expected in (FIRST, 2 * FIRST, 4 * FIRST):
        assert enter_all(ramp) == expected
        for _ in range(expected):
            ramp.connected(now())
        for _ in range(expected):
            ramp.leave()


@on_a_loop
async def test_losses_halve_them_once_for_those_that_began_together(ramp: Ramp) -> None:
    began = now()
    assert enter_all(ramp) == FIRST
    for _ in range(FIRST):
        ramp.lost(began)
    for _ in range(FIRST):
        ramp.leave()
    assert enter_all(ramp) == FIRST // 2
    assert ramp.is_careful
    for _ in range(10):
        await asyncio.sleep(0.001)
        ramp.lost(now())
    for _ in range(FIRST // 2):
        ramp.leave()
    assert enter_all(ramp) == FEWEST


@on_a_loop
async def test_after_losses_they_grow_slowly_and_by_use(ramp: Ramp) -> None:
    enter_all(ramp)
    ramp.lost(now())
    for _ in range(FIRST):
        ramp.connected(now())
        ramp.leave()
    assert enter_all(ramp) == FIRST // 2
    for _ in range(200):
        ramp.used()
    assert 2 <= enter_all(ramp) <= FIRST


@on_a_loop
async def test_who_waits_is_woken_in_turn_and_hands_it_on_when_cancelled(ramp: Ramp) -> None:
    enter_all(ramp)
    order: list[int] = []

    async def wait(number: int) -> None:
        while not ramp.enter():
            await ramp.turn()
        order.append(number)

    tasks = [asyncio.ensure_future(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    ramp.leave()
    # Woken and cancelled in one turn of the loop.
    tasks[0].cancel()
    await asyncio.sleep(0.01)
    assert order == [1]
    ramp.leave()
    await asyncio.sleep(0.01)
    assert order == [1, 2]
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_server_is_trusted_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECOVERED", 0.0)

    @on_a_loop
    async def check(ramp: Ramp) -> None:
        enter_all(ramp)
        ramp.lost(now())
        assert ramp.is_careful
        await asyncio.sleep(0.001)
        ramp.connected(now())
        assert not ramp.is_careful

    check()


@on_a_loop
async def test_a_handshake_is_waited_for_by_what_others_took(ramp: Ramp) -> None:
    assert ramp.patience(0) is None
    ramp.connected(now() - 0.03)
    first, second, third, fourth = (ramp.patience(losses) for losses in range(4))
    assert first == pytest.approx(0.24, abs=0.05)
    assert second == pytest.approx(0.48, abs=0.1)
    assert third == fourth is None
