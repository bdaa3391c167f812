"""The event loop: any thread, any other loop, forks, and a clean end."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.loop import await_all, gather, on_loop, run
from intake_nwbzarr.transport.open import fetch_many, open_transport
from tests.servers.http_server import StaticServer


async def where() -> str:
    return threading.current_thread().name


def test_everything_runs_on_one_thread() -> None:
    async def elsewhere() -> str:
        return await on_loop(where())

    assert run(where()) == asyncio.run(elsewhere()) == run(elsewhere()) == "nwbzarr-loop"


def test_waiting_for_itself_is_refused() -> None:
    async def outer() -> str:
        return run(where())

    with pytest.raises(RuntimeError, match="await instead"):
        run(outer())


def test_transports_work_from_many_threads_and_loops(http_server: StaticServer) -> None:
    for number in range(20):
        (http_server.root / str(number)).write_bytes(str(number).encode())
    transport = open_transport(locate(http_server.url))
    keys = [str(number) for number in range(20)]

    async def elsewhere() -> list[bytes | None]:
        found = await asyncio.gather(*(transport.get(key) for key in keys))
        return [fetched.data if fetched is not None else None for fetched in found]

    with ThreadPoolExecutor(8) as pool:
        sync = [pool.submit(fetch_many, transport, keys) for _ in range(8)]
        other = [pool.submit(asyncio.run, elsewhere()) for _ in range(8)]
        assert all(
            [int(fetched.data) for fetched in job.result() if fetched] == list(range(20)) for job in sync
        )
        assert all([int(data or b"-1") for data in job.result()] == list(range(20)) for job in other)


def test_a_gathering_keeps_order_and_ends_with_the_first_failure() -> None:
    async def value(number: int) -> int:
        await asyncio.sleep(0.001 * (7 - number % 7))
        if number == 500:
            raise KeyError(number)
        return number

    assert run(gather([lambda n=n: value(n) for n in range(400)])) == list(range(400))  # type: ignore[misc]
    assert run(gather([])) == []
    with pytest.raises(KeyError):
        run(gather([lambda n=n: value(n) for n in range(600)]))  # type: ignore[misc]


FORKED = """
import os, sys
from intake_nwbzarr.errors import ForkError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.open import open_transport, run
location = locate(sys.argv[1])
if sys.argv[2] == "used":
    run(open_transport(location).get("k"))
child = os.fork()
if child == 0:
    try:
        print(run(open_transport(location).get("k")).data.decode(), flush=True)
    except ForkError as error:
        print(error, error.found, error.expected, sep="|", flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(run(open_transport(location).get("k")).data.decode())
"""


def test_a_fork_after_use_is_an_error_that_names_the_remedy(http_server: StaticServer) -> None:
    (http_server.root / "k").write_text("value")

    def output(state: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, http_server.url, state],
            capture_output=True,
            timeout=60,
            text=True,
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    used = output("used")
    message, *fields = used[0].split("|")
    assert "'spawn' or 'forkserver'" in message
    assert fields == ["fork", "spawn or forkserver"]
    assert used[1] == "value"
    assert output("unused") == ["value", "value"]


def test_the_interpreter_ends_quietly_with_connections_open(
    http_server: StaticServer, tmp_path: Path
) -> None:
    (http_server.root / "k").write_text("value")
    code = f"""
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.open import open_transport, run
for url in ({http_server.url!r}, {str(http_server.root)!r}):
    assert run(open_transport(locate(url)).get("k")).data == b"value"
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=60, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


FORKED_AND_ENDED = """
import os, sys
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.open import open_transport, run
transport = open_transport(locate(sys.argv[1], {"timeouts": {"stall": 2, "attempts": 1}}))
run(transport.get("k"))
child = os.fork()
if child == 0:
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(run(transport.get("k")).data.decode())
"""


def test_a_forked_child_that_ends_leaves_kept_connections_to_its_parent(http_server: StaticServer) -> None:
    (http_server.root / "k").write_text("value")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED_AND_ENDED, http_server.url],
        capture_output=True,
        timeout=60,
        text=True,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("value\n", "", 0)


def test_nothing_goes_on_after_the_first_failure() -> None:
    """What is still on its way would else reach a server after the caller has given up."""
    ended: list[int] = []

    async def one(number: int) -> None:
        try:
            await asyncio.sleep(0 if number == 3 else 60)
            raise KeyError(number)
        finally:
            await asyncio.sleep(0.01)
            ended.append(number)

    with pytest.raises(KeyError, match="3"):
        run(await_all(one(number) for number in range(5)))
    assert sorted(ended) == [0, 1, 2, 3, 4]
