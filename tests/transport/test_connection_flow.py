"""One connection over time: stalls, uploads, exchanges that are given up, and the memory of bodies."""

import asyncio
import gc
import socket
import ssl
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from intake_nwbzarr.transport.connection import (
    HEAD,
    Connection,
    CutShortError,
    DisconnectedError,
    StalledError,
)
from intake_nwbzarr.transport.loop import run
from tests.servers.scripted import Link, scripted, settle, until
from tests.servers.tunnel import certify
from tests.transport.connected import CHUNKED, OK, REQUEST, answering, connected, exchange, sized

LARGE = bytes(range(256)) * 2**17
# Beginnings of answers, by the state that they leave a connection in.
BEGUN = {
    "head": b"HTTP/1.1 200",
    "sized": sized(LARGE)[:-1],
    "chunked": CHUNKED + b"5\r\nhel",
    "until the end": OK + b"\r\nhello",
}


@pytest.mark.parametrize("state", ["nothing", *BEGUN])
def test_a_server_that_falls_silent_is_given_up(state: str) -> None:
    async def scenario() -> None:
        async with connected(answering(BEGUN.get(state, b""))) as (connection, server):
            with pytest.raises(StalledError):
                await exchange(connection, limit=2**26, stall=0.1)
            assert not connection.is_reusable
            await until(lambda: server.closed == [1])

    run(scenario())


SECOND = 1.0  # A machine that is busy takes no such pause between two steps.
STEPS, STEP = 12, 0.15


async def _trickle(answer: bytes) -> bytes:
    """Let an answer take longer than may pass without a byte of it."""

    async def script(link: Link) -> None:
        await link.request()
        size = -(-len(answer) // STEPS)
        for start in range(0, len(answer), size):
            await asyncio.sleep(STEP)
            await link.send(answer[start : start + size])

    async with connected(script) as (connection, _):
        return bytes((await exchange(connection, stall=SECOND))[1])


async def _upload(context: tuple[ssl.SSLContext, ssl.SSLContext] | None) -> int:
    """Let a server take longer to read a request than may pass without it reading anything."""
    body = bytes(1_500_000)

    async def script(link: Link) -> None:
        received = 0
        while received < len(body):
            received += len(await link.reader.read(50_000))
            await asyncio.sleep(STEP / 3)
        await link.send(sized(b"stored"))
        await link.closed()

    with socket.socket() as listening, socket.socket() as link:
        # Small buffers show that progress is what the server takes, and not what the kernel does.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**14)
        listening.bind(("127.0.0.1", 0))
        where = {"host": None, "port": None, "sock": listening, "ssl": context and context[0]}
        async with scripted(script, **where) as server:
            link.connect(("127.0.0.1", server.port))
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, sock=link)
            if context is not None:
                await connection.start_tls(context[1], "127.0.0.1")
            await connection.ask(REQUEST + body, SECOND)
            assert await connection.receive(10, SECOND) == b"stored"
            connection.close()
            await settle()
            return server.connections


def test_what_is_slow_and_moves_is_no_stall(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certify(certificate, key)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate, key)
    context = ours, ssl.create_default_context(cafile=certificate)
    body = bytes(range(200))
    chunks = b"".join(b"14\r\n%s\r\n" % body[at : at + 20] for at in range(0, 200, 20)) + b"0\r\n\r\n"

    async def scenario() -> None:
        answers = await asyncio.gather(
            _trickle(sized(body)),
            _trickle(OK + b"X-Long: " + b"x" * 500 + b"\r\nContent-Length: 0\r\n\r\n"),
            _trickle(CHUNKED + chunks),
            _trickle(b"HTTP/1.1 500 No\r\n\r\n" + body),
            _upload(None),
            _upload(context),
        )
        assert answers == [body, b"", body, body, 1, 1]

    run(scenario())


def test_an_upload_that_is_not_taken_stalls() -> None:
    async def script(link: Link) -> None:
        await asyncio.sleep(60)

    async def scenario() -> None:
        async with connected(script) as (connection, _):
            with pytest.raises(StalledError):
                await connection.ask(REQUEST + bytes(2**25), 0.2)
            assert not connection.is_reusable

    run(scenario())


def test_an_early_answer_to_an_upload_arrives() -> None:
    async def script(link: Link) -> None:
        await link.reader.readuntil(b"\r\n\r\n")
        await link.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.sleep(60)

    async def scenario() -> None:
        async with connected(script) as (connection, _):
            head = await connection.ask(REQUEST + bytes(2**25), 10)
            assert (head.status, await connection.receive(10, 10)) == (403, b"no")
            # Most of the request is still to be sent.
            assert not connection.is_reusable

    run(scenario())


def test_a_body_waits_for_its_place_in_the_server() -> None:
    sent = []

    async def script(link: Link) -> None:
        await link.request()
        await link.send(sized(LARGE))
        sent.append(True)

    async def scenario() -> None:
        async with connected(script) as (connection, _):
            head = await connection.ask(REQUEST, 0.1)
            # Longer than a stall: it is not the server's fault that nobody receives.
            await asyncio.sleep(0.3)
            assert (head.length, sent) == (len(LARGE), [])
            body = await connection.receive(2**26, 10)
            assert isinstance(body, memoryview)
            assert body.readonly
            assert (body.nbytes, body.format, body) == (len(LARGE), "B", LARGE)
            await until(lambda: sent == [True])
            # The server has closed it.
            await until(lambda: not connection.is_reusable)

    run(scenario())


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_end_is_seen_after_a_body_that_filled_what_is_received_in_advance(beyond: int) -> None:
    start = len(sized(b"x" * 9999)) - 9999 + 1
    body = b"x" * (HEAD - start + beyond)

    async def scenario() -> None:
        async with connected(answering(sized(body), then="end")) as (connection, _):
            assert len(sized(body)) == HEAD + beyond
            assert (await exchange(connection))[1] == body
            await until(lambda: connection.transport is None)

    run(scenario())


@pytest.mark.parametrize("chunked", [False, True])
def test_no_more_than_the_limit_is_taken(chunked: bool) -> None:
    async def script(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED if chunked else OK + b"Content-Length: 999999999999\r\n\r\n")
        while True:
            await link.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")

    async def scenario() -> None:
        async with connected(script) as (connection, server):
            _, body = await exchange(connection, limit=100_000)
            assert len(body) == 100_000
            assert connection.received == 100_000 or (chunked and 100_000 < connection.received < 120_000)
            assert not connection.is_reusable
            # The rest is not received either.
            await until(lambda: server.closed == [1])

    run(scenario())


@pytest.mark.parametrize("state", ["nothing", *BEGUN])
def test_an_exchange_that_is_given_up_closes_its_connection(state: str) -> None:
    async def scenario() -> None:
        for give_up in (asyncio.Task.cancel, lambda task: connection.close()):
            async with connected(answering(BEGUN.get(state, b""))) as (connection, server):
                task = asyncio.ensure_future(exchange(connection, limit=2**26))
                await until(lambda server=server: bool(server.requests))
                await asyncio.sleep(0.02)
                assert not task.done()
                give_up(task)
                (error,) = await asyncio.gather(task, return_exceptions=True)
                assert type(error) is (asyncio.CancelledError if task.cancelled() else CutShortError)
                await until(lambda server=server: server.closed == [1])
                with pytest.raises(DisconnectedError):
                    await connection.ask(REQUEST, 10)

    run(scenario())


@contextmanager
def _little_memory_after() -> Iterator[None]:
    """Fail when more than 16 MiB are held afterwards, without the help of the garbage collector."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[0] < 2**24
    finally:
        tracemalloc.stop()
        gc.enable()


WHOLE = {"sized": sized(LARGE), "chunked": CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(LARGE), LARGE)}


@pytest.mark.parametrize("framing", WHOLE)
@pytest.mark.parametrize("limit", [len(LARGE) - 1000, len(LARGE)])
def test_a_body_is_held_by_whoever_asked_for_it_only(framing: str, limit: int) -> None:
    async def scenario() -> None:
        async with connected(answering(WHOLE[framing])) as (connection, _):
            with _little_memory_after():
                _, body = await exchange(connection, limit)
                assert body == LARGE[:limit]
                del body
                await settle()
            assert connection.is_reusable is (limit == len(LARGE))

    run(scenario())


@pytest.mark.parametrize("framing", WHOLE)
@pytest.mark.parametrize("error", [CutShortError, StalledError, TimeoutError])
def test_half_a_body_is_held_by_nobody(framing: str, error: type[Exception]) -> None:
    script = answering(WHOLE[framing][:-7], then="end" if error is CutShortError else "wait")
    stall = 0.3 if error is StalledError else 10

    async def scenario() -> None:
        async with connected(script) as (connection, _):
            with _little_memory_after():
                with pytest.raises(error):
                    async with asyncio.timeout(0.4 if error is TimeoutError else 30):
                        await exchange(connection, 2**26, stall)
                await settle()

    run(scenario())
