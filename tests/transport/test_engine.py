"""Exchanges over kept connections: which are used again, what is repeated, and what is counted."""

import asyncio
from typing import Any

import pytest

from intake_nwbzarr.errors import LimitError, ResponseError, TransportError
from intake_nwbzarr.limits import limits
from intake_nwbzarr.location.options import Timeouts
from intake_nwbzarr.transport import connect, engine
from intake_nwbzarr.transport.answers import Failure
from intake_nwbzarr.transport.engine import Answer
from intake_nwbzarr.transport.loop import budget, run
from intake_nwbzarr.transport.request_log import track_requests
from intake_nwbzarr.untrusted_input import LARGEST_ERROR
from tests.servers.scripted import Link, Script, scripted, settle, until
from tests.transport.connected import CHUNKED, OK, answering, ask, body_of, sized


async def echo(link: Link) -> None:
    """Answer each request with its path."""
    while True:
        request = await link.request()
        await link.send(sized(request.split()[1]))


def test_one_connection_serves_one_request_after_the_other() -> None:
    async def scenario() -> None:
        async with scripted(echo) as server, scripted(echo) as other:
            for number in range(20):
                assert await body_of(server, f"/{number}") == b"/%d" % number
                assert await body_of(other, "/other") == b"/other"
            assert server.connections == other.connections == 1

    with track_requests() as log:
        run(scenario())
    assert (log.requests, log.retries, log.bytes) == (40, 0, 10 * 2 + 10 * 3 + 20 * 6)


def test_requests_at_once_have_a_connection_each_and_leave_them_to_the_next_ones() -> None:
    async def scenario() -> None:
        async with scripted(echo) as server:
            for _ in range(3):
                paths = [f"/{number}" for number in range(5)]
                bodies = await asyncio.gather(*(body_of(server, path) for path in paths))
                assert bodies == [path.encode() for path in paths]
            assert (server.connections, len(server.requests)) == (5, 15)

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        sized(b"h" * 10**6) + OK + b"Content-Length: 6\r\n\r\nforged",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + sized(b"forged"),
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["a large one and more", "two answers", "closed", "HTTP/1.0"],
)
def test_a_connection_that_says_more_or_its_last_is_not_used_again(answer: bytes) -> None:
    async def scenario() -> None:
        async with scripted(answering(answer)) as server:
            for number in range(1, 4):
                assert await body_of(server) in {b"hello", b"h" * 10**6}
                assert server.connections == number
            await until(lambda: set(server.closed) >= {1, 2})

    run(scenario())


def test_an_answer_that_is_not_received_to_its_end_ends_its_connection() -> None:
    async def scenario() -> None:
        body = b"x" * 5_000_000
        async with scripted(answering(sized(body))) as server:
            too_large = await ask(server, limit=len(body) - 1)
            assert isinstance(too_large, Failure)
            assert too_large.error is LimitError
            assert "5.0 MB" in too_large.cause
            await until(lambda: server.closed == [1])
            assert await body_of(server, limit=len(body)) == body
            assert server.connections == 2

    with track_requests() as log:
        run(scenario())
    # Nothing was taken of what is too large.
    assert log.bytes == 5_000_000


@pytest.mark.parametrize("then", ["end", "wait"])
def test_an_error_document_is_read_to_the_end_of_the_connection_or_a_limit(then: str) -> None:
    document = b"<Code>No</Code>" if then == "end" else b"x" * (LARGEST_ERROR + 1)

    async def scenario() -> None:
        async with scripted(answering(b"HTTP/1.1 403 No\r\n\r\n" + document, then=then)) as server:
            answer = await ask(server)
            assert isinstance(answer, Answer)
            assert (answer.status, answer.body) == (403, document[:LARGEST_ERROR])

    run(scenario())


def once_kept(end: str, times: float = 1) -> Script:
    """Answer, and close the connection in its idle time or at its next request, on so many connections."""

    async def script(link: Link) -> None:
        await link.request()
        await link.send(sized(b"first"))
        if link.number > times:
            await echo(link)
        if end == "at the next request":
            await link.request()
        elif end == "in the middle of the next answer":
            await link.request()
            await link.send(OK)
        elif end == "with a reset":
            await link.request()
            link.reset()

    return script


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_connection_that_was_closed_while_idle_is_not_used_again(method: str) -> None:
    async def scenario() -> None:
        async with scripted(once_kept("while idle")) as server:
            assert await body_of(server) == b"first"
            await asyncio.sleep(0.1)
            assert await body_of(server, method=method, body=b"data") == b"first"
            assert (server.connections, len(server.requests)) == (2, 2)

    with track_requests() as log:
        run(scenario())
    assert (log.requests, log.retries) == (2, 0)


@pytest.mark.parametrize("end", ["at the next request", "with a reset"])
def test_a_kept_connection_that_breaks_when_it_is_used_is_replaced_once_and_that_is_counted(end: str) -> None:
    async def scenario() -> None:
        async with scripted(once_kept(end)) as server:
            assert await body_of(server, "/1") == b"first"
            assert await body_of(server, "/2") == b"first"
            assert [text.split()[1] for text in server.requests] == [b"/1", b"/2", b"/2"]
            assert await body_of(server, "/3") == b"/3"
            assert server.connections == 2

    with track_requests() as log:
        run(scenario())
    assert (log.requests, log.retries) == (4, 1)


def test_a_new_connection_that_breaks_is_an_error() -> None:
    async def breaking(link: Link) -> None:
        await link.request()
        if link.number == 1:
            await link.send(sized(b"first"))
            await link.request()

    async def scenario() -> None:
        async with scripted(breaking) as server:
            assert await body_of(server) == b"first"
            failure = await ask(server)
            assert isinstance(failure, Failure)
            assert (failure.error, failure.cause) == (TransportError, "the connection was closed")
            # How often that is worth another request is for the transport to say.
            assert (failure.attempts, server.connections, len(server.requests)) == (None, 2, 3)

    run(scenario())


@pytest.mark.parametrize(
    ("method", "end", "cause"),
    [
        ("PUT", "at the next request", "the connection was closed"),
        ("PUT", "with a reset", "the connection was closed"),
        ("GET", "in the middle of the next answer", "the response was truncated"),
    ],
)
def test_what_may_have_been_done_is_not_repeated(method: str, end: str, cause: str) -> None:
    async def scenario() -> None:
        async with scripted(once_kept(end)) as server:
            assert await body_of(server) == b"first"
            failure = await ask(server, method=method, body=b"data")
            assert isinstance(failure, Failure)
            assert failure.cause == cause
            assert (server.connections, len(server.requests)) == (1, 2)

    with track_requests() as log:
        run(scenario())
    assert (log.requests, log.retries) == (2, 0)


def test_a_connection_is_closed_when_it_has_long_been_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "KEPT", 0.2)

    async def until_closed(link: Link) -> None:
        try:
            await echo(link)
        finally:
            link.server.closed.append(link.number)

    async def scenario() -> None:
        own = engine.AiohttpEngine()
        monkeypatch.setattr(engine, "_engine", own)
        async with scripted(until_closed) as server:
            for _ in range(3):
                assert await body_of(server) == b"/x"
            assert (server.connections, server.closed) == (1, [])
            await until(lambda: bool(server.closed))
            assert await body_of(server) == b"/x"
            assert server.connections == 2
            await own.close()
            await until(lambda: len(server.closed) > 2)

    run(scenario())


def test_an_exchange_that_is_cancelled_closes_its_connection() -> None:
    async def script(link: Link) -> None:
        await link.request()
        await link.send(sized(b"x" * 5000)[:4000] if link.number == 1 else sized(b"whole"))
        await link.closed()

    async def scenario() -> None:
        async with scripted(script) as server:
            task = asyncio.ensure_future(ask(server))
            await until(lambda: len(server.requests) == 1)
            await settle()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: server.closed == [1])
            assert await body_of(server) == b"whole"

    run(scenario())


def test_waiting_for_other_bodies_is_no_stall() -> None:
    hasty = Timeouts(connect=10, stall=0.2)

    async def scenario() -> None:
        async with scripted(echo) as server:
            async with budget.body(limits().bytes_in_flight):
                task = asyncio.ensure_future(ask(server, timeouts=hasty))
                await until(lambda: len(server.requests) == 1)
                await asyncio.sleep(0.5)
                assert not task.done()
                # An answer without a body, or with an error for one, need not wait.
                assert isinstance(await ask(server, limit=1), Failure)
            answer = await task
            assert isinstance(answer, Answer)
            assert answer.body == b"/x"

    run(scenario())


def test_a_connection_that_breaks_while_its_answer_waits_for_others_is_an_error() -> None:
    async def scenario() -> None:
        async with scripted(answering(sized(b"x" * 500)[:-1], then="end")) as server:
            async with budget.body(limits().bytes_in_flight):
                task = asyncio.ensure_future(ask(server))
                await until(lambda: len(server.requests) == 1)
                await asyncio.sleep(0.05)
                assert not task.done()
            failure = await task
            assert isinstance(failure, Failure)
            assert failure.cause == "the response was truncated"

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "the connection stalled for 0.1 s"),
        (sized(b"hello")[:-1], "the connection stalled for 0.1 s"),
        (b"220 mail.example ESMTP\r\n", "the response is not HTTP/1.1"),
        (OK + b"A: " + b"x" * 2**14, "the response headers are too long"),
        (OK + b"\r\nhello", "the response has no Content-Length, so a truncated one would not be noticed"),
    ],
)
def test_an_answer_that_is_none_is_one_clear_failure(answer: bytes, cause: str) -> None:
    async def scenario() -> Any:
        async with scripted(answering(answer)) as server:
            return await ask(server, timeouts=Timeouts(connect=10, stall=0.1))

    failure = run(scenario())
    assert isinstance(failure, Failure)
    assert failure.cause == cause
    assert failure.error in {TransportError, ResponseError}


def test_a_host_that_takes_connections_and_no_more_is_given_up_in_time() -> None:
    async def silent(link: Link) -> None:
        await link.closed()

    async def scenario() -> None:
        async with scripted(silent) as server:
            # It is said hello to, and does not answer.
            server.scheme = "https"
            failure = await ask(server, timeouts=Timeouts(connect=0.2))
            assert isinstance(failure, Failure)
            assert failure.cause == "no connection within 0.2 s"
            await until(lambda: server.closed == [1])

    run(scenario())
