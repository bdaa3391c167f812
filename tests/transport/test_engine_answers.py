"""Answers of the engine: all that HTTP/1.1 allows, however it is cut into segments, and what it does not."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr.location.options import Timeouts
from intake_nwbzarr.transport.answers import Failure
from intake_nwbzarr.transport.engine import Answer
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.untrusted_input import LONGEST_HEADER
from tests.servers.scripted import Link, scripted, settle, until
from tests.transport.connected import CHUNKED, OK, answering, ask, body_of, sized

FORGED = sized(b"forged")
LARGE = bytes(range(256)) * 2**17
CUT_SHORT, NOT_HTTP = "the response was truncated", "the response is not HTTP/1.1"

# By name: the answer, its status and body, and whether another may follow on the same connection.
ANSWERS: dict[str, tuple[bytes, int, bytes, bool]] = {
    "sized": (sized(b"hello"), 200, b"hello", True),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "early hints": (
        b"HTTP/1.1 103 Early\r\nLink: <x>\r\n\r\nHTTP/1.1 100\r\n\r\n" + sized(b"hi"), 200, b"hi", True
    ),
    "chunked": (CHUNKED + b"5\r\nhello\r\n0A;x=1\r\n, chunked!\r\n0\r\n\r\n", 200, b"hello, chunked!", True),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nEmpty:\r\nChecksum: 9\r\n\r\n", 200, b"hi", True),
    "last words": (OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nbye", 200, b"bye", False),
    "until the end": (b"HTTP/1.1 403 No\r\nServer:\r\n\r\n<Error/>", 403, b"<Error/>", False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", 200, b"old", False),
    "1.0, kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold", 200, b"old", True
    ),
    "1.0 until the end": (b"HTTP/1.0 500\r\n\r\nold", 500, b"old", False),
    "no content": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b"", True),
    "not modified": (b"HTTP/1.1 304 Same\r\nETag: a\r\nTransfer-Encoding: chunked\r\n\r\n", 304, b"", True),
    "encoded": (
        OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\nhello",
        200, b"hello", True
    ),
    "upgrade offered": (
        OK + b"Upgrade: h2\r\nConnection: Upgrade, Keep-Alive\r\nContent-Length: 2\r\n\r\nno",
        200, b"no", True
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_in_any_two_segments_or_byte_by_byte_arrives_as_it_was_sent(name: str) -> None:
    answer, status, body, kept = ANSWERS[name]
    splits = [(answer[:at], answer[at:]) for at in range(1, len(answer))]
    cuts = [*splits, tuple(bytes([byte]) for byte in answer)]

    async def script(link: Link) -> None:
        while cuts:
            assert b"cookie" not in (await link.request()).lower()
            await link.send(*cuts.pop())
            if not kept:
                return

    async def scenario() -> int:
        async with scripted(script) as server:
            while cuts:
                found = await ask(server)
                assert isinstance(found, Answer), found
                assert (found.status, found.body) == (status, body)
            return server.connections

    assert run(scenario()) == (1 if kept else len(answer))


NAMES = st.from_regex(r"X-[a-z]{1,8}", fullmatch=True)
VALUES = st.from_regex(r"[!-~é]{0,12}", fullmatch=True)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, int, list[tuple[str, str]], bytes, bool]:
    """An answer, its status, headers and body, and whether only the connection's end ends it."""
    status = draw(st.sampled_from([200, 403, 404, 500, 503]))
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    body = draw(st.binary(max_size=300)) * draw(st.sampled_from([1, 99]))
    framing = draw(st.sampled_from(["sized", "chunked", *(["until the end"] if status != 200 else [])]))
    lines = [f"HTTP/1.1 {status} Because", *(f"{name}: {value}" for name, value in headers)]
    content = body
    if framing == "sized":
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        bounds = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=5))})
        pieces = [body[low:high] for low, high in pairwise(bounds)]
        content = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = "\r\n".join([*lines, "", ""]).encode()
    return head + content, status, headers, body, framing == "until the end"


@given(answer=answers(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_answer_in_any_segments_arrives_as_it_was_sent(answer: Any, data: st.DataObject) -> None:
    sent, status, headers, body, until_end = answer
    cuts = sorted({0, len(sent), *data.draw(st.lists(st.integers(0, len(sent)), max_size=8))})
    segments = [sent[low:high] for low, high in pairwise(cuts)]

    async def scenario() -> None:
        async with scripted(answering(*segments, then="end" if until_end else "wait")) as server:
            found = await ask(server)
            assert isinstance(found, Answer), found
            assert (found.status, bytes(found.body)) == (status, body)
            assert [item for item in found.headers.items() if item[0].startswith("X-")] == headers

    run(scenario())


def test_headers_that_are_no_text_are_text_that_can_be_kept() -> None:
    async def scenario() -> None:
        async with scripted(answering(OK + b'ETag: "\xff"\r\nContent-Length: 0\r\n\r\n')) as server:
            found = await ask(server)
            assert isinstance(found, Answer), found
            assert found.headers["ETag"].encode() == b'"\\xff"'

    run(scenario())


REFUSED: dict[str, tuple[bytes, str]] = {
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", NOT_HTTP),
    "one length twice": (OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", NOT_HTTP),
    "length and chunks": (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", NOT_HTTP),
    "chunks and length": (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", NOT_HTTP),
    "compressed chunks": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
    "compressed": (OK + b"Transfer-Encoding: gzip\r\n\r\nhello", "Transfer-Encoding"),
    "negative length": (OK + b"Content-Length: -5\r\n\r\nhello", NOT_HTTP),
    "endless length": (OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello", NOT_HTTP),
    "a banner": (b"SSH-2.0-OpenSSH_9.6\r\n", NOT_HTTP),
    "a TLS alert": (b"\x15\x03\x03\x00\x02\x02\x46", NOT_HTTP),
    "HTTP/2": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", NOT_HTTP),
    "another protocol": (b"HTTP/1.1 101 Gone\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", NOT_HTTP),
    "no colon": (OK + b"Content-Length 5\r\n\r\n", NOT_HTTP),
    "a zero byte": (OK + b"A: \0\r\n\r\n", NOT_HTTP),
    "a byte more": (sized(b"hello") + b"x", NOT_HTTP),
    "a chunk's odd size": (CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n", NOT_HTTP),
    "a head without end": (OK + b"A: " + b"x" * (LONGEST_HEADER + 1), "too long"),
    "endless heads": (OK + b"A: b\r\n" * 1000, NOT_HTTP),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_an_answer_is_one_error_and_the_end_of_the_connection(name: str) -> None:
    answer, message = REFUSED[name]

    async def scenario() -> None:
        async with scripted(answering(answer)) as server:
            failure = await ask(server)
            assert isinstance(failure, Failure)
            assert message in failure.cause
            # What was an answer all the same leaves its connection to the next one.
            await until(lambda: server.closed == [1] or name == "compressed chunks")

    run(scenario())


def test_chunks_that_stop_being_chunks_end_the_answer_soon() -> None:
    async def scenario() -> None:
        segments = CHUNKED + b"5\r\nhello\r\n", b"xyz\r\nhello\r\n0\r\n\r\n"
        async with scripted(answering(*segments)) as server, asyncio.timeout(5):
            failure = await ask(server)
            assert isinstance(failure, Failure)
            assert failure.cause == CUT_SHORT
            await until(lambda: server.closed == [1])

    run(scenario())


CUT: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the connection was closed"),
    "half a line": (b"HTTP/1.1 2", CUT_SHORT),
    "half a head": (OK + b"Content-Length: 5\r\n", CUT_SHORT),
    "only a head": (sized(LARGE)[: -len(LARGE)], CUT_SHORT),
    "half a body": (sized(b"hello")[:-2], CUT_SHORT),
    "most of a large body": (sized(LARGE)[:-1], CUT_SHORT),
    "no chunk": (CHUNKED, CUT_SHORT),
    "half a chunk": (CHUNKED + b"5\r\nhel", CUT_SHORT),
    "no last chunk": (CHUNKED + b"5\r\nhello\r\n", CUT_SHORT),
    "no trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", CUT_SHORT),
}


@pytest.mark.parametrize("then", ["end", "reset"])
@pytest.mark.parametrize("name", CUT)
def test_an_answer_that_is_cut_short_is_an_error(name: str, then: str) -> None:
    answer, cause = CUT[name]

    async def scenario() -> None:
        async with scripted(answering(answer, then=then)) as server:
            failure = await ask(server, limit=2**26)
            assert isinstance(failure, Failure)
            # A reset says nothing of the beginning of an answer that had arrived.
            assert failure.cause in ({cause, "the connection was closed"} if then == "reset" else {cause})

    run(scenario())


@pytest.mark.parametrize("late", [False, True], ids=["in its segment", "while it is kept"])
@pytest.mark.parametrize(
    "answer",
    [sized(b"hello"), sized(b"h" * 10**6), CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n"],
    ids=["sized", "large", "chunked", "none"],
)
def test_a_surplus_answer_is_never_the_answer_to_the_next_request(answer: bytes, late: bool) -> None:
    received = asyncio.Event()

    async def script(link: Link) -> None:
        path = (await link.request()).split()[1]
        if path == b"/first":
            await link.send(*((answer,) if late else (answer + FORGED,)))
            await received.wait()
            await link.send(*((FORGED,) if late else ()))
            path = (await link.request()).split()[1]
        await link.send(sized(path))
        await link.closed()

    async def scenario() -> None:
        async with scripted(script) as server:
            first = await ask(server, "/first")
            assert isinstance(first, Answer), first
            received.set()
            await asyncio.sleep(0.05)
            assert await body_of(server, "/second") == b"/second"
            assert server.connections == 2

    run(scenario())


BEGUN = {
    "nothing": b"",
    "head": b"HTTP/1.1 200",
    "sized": sized(LARGE)[:-1],
    "chunked": CHUNKED + b"5\r\nhel",
    "until the end": b"HTTP/1.1 403 No\r\n\r\nhello",
}


@pytest.mark.parametrize("state", BEGUN)
def test_a_server_that_falls_silent_is_given_up(state: str) -> None:
    async def scenario() -> None:
        async with scripted(answering(BEGUN[state])) as server:
            failure = await ask(server, limit=2**26, timeouts=Timeouts(stall=0.2))
            assert isinstance(failure, Failure)
            assert failure.cause == "the connection stalled for 0.2 s"
            await until(lambda: server.closed == [1])

    run(scenario())


STEPS, STEP = 12, 0.15  # longer in all than may pass without a byte


async def _trickle(answer: bytes) -> bytes:
    async def script(link: Link) -> None:
        await link.request()
        size = -(-len(answer) // STEPS)
        for start in range(0, len(answer), size):
            await asyncio.sleep(STEP)
            await link.send(answer[start : start + size])

    async with scripted(script) as server:
        return await body_of(server, timeouts=Timeouts(stall=1.0))


async def _upload() -> bytes:
    body = bytes(12_000_000)

    async def script(link: Link) -> None:
        received = 0
        while received < len(body):
            received += len(await link.reader.read(400_000))
            await asyncio.sleep(STEP / 3)
        await link.send(sized(b"stored"))
        await link.closed()

    with socket.socket() as listening:
        # A small buffer shows that progress is what the server takes, and not what the kernel does.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
        listening.bind(("127.0.0.1", 0))
        async with scripted(script, host=None, port=None, sock=listening, limit=2**18) as server:
            return await body_of(server, method="PUT", body=body, timeouts=Timeouts(stall=1.0))


def test_what_is_slow_and_moves_is_no_stall() -> None:
    body = bytes(range(200))
    chunks = b"".join(b"14\r\n%s\r\n" % body[at : at + 20] for at in range(0, 200, 20)) + b"0\r\n\r\n"

    async def scenario() -> None:
        found = await asyncio.gather(
            _trickle(sized(body)),
            _trickle(OK + b"X-Long: " + b"x" * 500 + b"\r\nContent-Length: 0\r\n\r\n"),
            _trickle(CHUNKED + chunks),
            _trickle(b"HTTP/1.1 500 No\r\n\r\n" + body),
            _upload(),
        )
        assert found == [body, b"", body, body, b"stored"]

    run(scenario())


def test_an_upload_that_is_not_taken_stalls() -> None:
    async def script(link: Link) -> None:
        await asyncio.sleep(60)

    async def scenario() -> None:
        async with scripted(script) as server, asyncio.timeout(10):
            failure = await ask(server, method="PUT", body=bytes(2**25), timeouts=Timeouts(stall=0.2))
            assert isinstance(failure, Failure)
            assert failure.cause == "the connection stalled for 0.2 s"

    run(scenario())


def test_an_early_answer_to_an_upload_arrives() -> None:
    async def script(link: Link) -> None:
        await link.reader.readuntil(b"\r\n\r\n")
        await link.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await link.closed()

    async def scenario() -> None:
        async with scripted(script) as server:
            found = await ask(server, method="PUT", body=bytes(2**25))
            assert isinstance(found, Answer), found
            assert (found.status, found.body) == (403, b"no")
            await ask(server, method="PUT", body=bytes(2**25))
            # Most of the request was still to be sent.
            assert server.connections == 2

    run(scenario())


def test_a_large_body_is_a_read_only_view_of_one_array_and_its_connection_is_kept() -> None:
    async def script(link: Link) -> None:
        while True:
            await link.request()
            await link.send(sized(LARGE))

    async def scenario() -> None:
        async with scripted(script) as server:
            for _ in range(3):
                found = await ask(server, limit=2**26)
                assert isinstance(found, Answer), found
                assert isinstance(found.body, memoryview)
                assert found.body.readonly
                assert (found.body.nbytes, found.body.format, found.body) == (len(LARGE), "B", LARGE)
            assert server.connections == 1

    run(scenario())


@contextmanager
def _little_memory_after(peak: int) -> Iterator[None]:
    """Fail when more than so much was held at once, or 16 MiB afterwards, without any garbage collection."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
        held, most = tracemalloc.get_traced_memory()
        assert held < 2**24
        assert most < peak
    finally:
        tracemalloc.stop()
        gc.enable()


WHOLE = {"sized": sized(LARGE), "chunked": CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(LARGE), LARGE)}


@pytest.mark.parametrize("framing", WHOLE)
@pytest.mark.parametrize("limit", [len(LARGE) - 1000, len(LARGE)])
def test_a_body_is_held_by_whoever_asked_for_it_only(framing: str, limit: int) -> None:
    # A body without a length is put together from its pieces at its end.
    copies = 1 if framing == "sized" else 2

    async def scenario() -> None:
        async with scripted(answering(WHOLE[framing])) as server:
            with _little_memory_after(peak=copies * len(LARGE) + 2**23):
                found = await ask(server, limit=limit)
                assert isinstance(found, Answer if limit == len(LARGE) else Failure)
                del found
                await settle()

    run(scenario())


@pytest.mark.parametrize("framing", WHOLE)
@pytest.mark.parametrize("end", ["cut short", "stalled", "given up"])
def test_half_a_body_is_held_by_nobody(framing: str, end: str) -> None:
    script = answering(WHOLE[framing][:-7], then="end" if end == "cut short" else "wait")

    async def scenario() -> None:
        async with scripted(script) as server:
            with _little_memory_after(peak=2 * len(LARGE) + 2**23):
                stall = Timeouts(stall=0.3 if end == "stalled" else 10)
                task = asyncio.ensure_future(ask(server, limit=2**26, timeouts=stall))
                await asyncio.wait([task], timeout=0.4 if end == "given up" else 30)
                task.cancel()
                (found,) = await asyncio.gather(task, return_exceptions=True)
                assert isinstance(found, asyncio.CancelledError if end == "given up" else Failure)
                del found, task
                await settle()
            await until(lambda: server.closed == [1] or end == "cut short")

    run(scenario())


@pytest.mark.parametrize("chunked", [False, True])
def test_no_more_than_the_limit_is_taken(chunked: bool) -> None:
    async def script(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED if chunked else b"HTTP/1.1 500 No\r\nContent-Length: 999999999999\r\n\r\n")
        while True:
            await link.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")

    async def scenario() -> None:
        async with scripted(script) as server:
            found = await ask(server, limit=100_000)
            if chunked:
                assert isinstance(found, Failure)
                assert "100.0 kB are allowed" in found.cause
            else:
                assert isinstance(found, Answer)
                assert len(found.body) == 2**16
            # The rest is not received either.
            await until(lambda: server.closed == [1])

    run(scenario())
