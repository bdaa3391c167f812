"""One connection: every answer that HTTP/1.1 allows, however it is cut into segments, and every other one."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr.transport.connection import (
    HEAD,
    Connection,
    CutShortError,
    DisconnectedError,
    ExchangeError,
)
from intake_nwbzarr.transport.loop import run
from tests.servers.scripted import Link, scripted, until
from tests.transport.connected import CHUNKED, OK, REQUEST, answering, connected, exchange, sized

FORGED = sized(b"forged")
LARGE = bytes(range(256)) * 2**12

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
            await link.request()
            await link.send(*cuts.pop())
            if not kept:
                return

    async def scenario() -> int:
        async with scripted(script) as server:
            connection = None
            while cuts:
                if connection is None or not connection.is_reusable:
                    loop = asyncio.get_running_loop()
                    _, connection = await loop.create_connection(Connection, "127.0.0.1", server.port)
                head, received = await exchange(connection)
                assert (head.status, received) == (status, body)
                assert connection.received == len(body)
                assert connection.is_reusable == kept
            assert connection is not None
            connection.close()
            return server.connections

    assert run(scenario()) == (1 if kept else len(answer))


@pytest.mark.parametrize("late", [False, True], ids=["read at once", "read after the end"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_and_the_end_of_the_connection_in_one_segment_is_whole(name: str, late: bool) -> None:
    answer, status, body, _ = ANSWERS[name]

    async def scenario() -> None:
        async with connected(answering(answer, then="end")) as (connection, _):
            head = await connection.ask(REQUEST, 10)
            if late:
                await until(lambda: connection.transport is None)
            assert (head.status, await connection.receive(2**24, 10)) == (status, body)
            await until(lambda: not connection.is_reusable)
            with pytest.raises(DisconnectedError):
                await connection.ask(REQUEST, 10)

    run(scenario())


NAMES = st.from_regex(r"X-[a-z]{1,8}", fullmatch=True)
VALUES = st.from_regex(r"[!-~é]{0,12}", fullmatch=True)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, int, list[tuple[str, str]], bytes, bool]:
    """An answer, its status, headers and body, and whether only the connection's end ends it."""
    status = draw(st.sampled_from([200, 206, 403, 404, 500, 503]))
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    body = draw(st.binary(max_size=300)) * draw(st.sampled_from([1, 99]))
    framing = draw(st.sampled_from(["sized", "chunked", "until the end"]))
    lines = [f"HTTP/1.1 {status} Because", *(f"{name}: {value}" for name, value in headers)]
    content = body
    if framing == "sized":
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        bounds = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=5))})
        pieces = [body[low:high] for low, high in pairwise(bounds)]
        content = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head + content, status, headers, body, framing == "until the end"


@given(answer=answers(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_answer_in_any_segments_arrives_as_it_was_sent(answer: Any, data: st.DataObject) -> None:
    sent, status, headers, body, until_end = answer
    cuts = sorted({0, len(sent), *data.draw(st.lists(st.integers(0, len(sent)), max_size=8))})
    segments = [sent[low:high] for low, high in pairwise(cuts)]

    async def scenario() -> None:
        script = answering(*segments, then="end" if until_end else "wait")
        async with connected(script) as (connection, _):
            head, received = await exchange(connection)
            assert (head.status, bytes(received)) == (status, body)
            assert [item for item in head.headers.items() if item[0].startswith("X-")] == headers
            assert connection.is_reusable is not until_end

    run(scenario())


def test_many_interim_answers_are_passed_over() -> None:
    async def scenario() -> Any:
        interim = b"HTTP/1.1 100\r\n\r\n" * (HEAD // 16 - 10)
        async with connected(answering(interim + sized(b"at last"))) as (connection, _):
            return (await exchange(connection))[1]

    assert run(scenario()) == b"at last"


NOT_HTTP = "not HTTP/1.1"
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
    "a folded header": (OK + b"A: b\r\n c\r\n\r\n", NOT_HTTP),
    "a zero byte": (OK + b"A: \0\r\n\r\n", NOT_HTTP),
    "a chunk's odd size": (CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n", NOT_HTTP),
    "a chunk's wrong size": (CHUNKED + b"3\r\nhello\r\n0\r\n\r\n", NOT_HTTP),
    "a head without end": (OK + b"A: " + b"x" * HEAD, "too long"),
}


@pytest.mark.parametrize("whole", [True, False], ids=["one segment", "byte by byte"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_an_answer_is_one_error_and_the_end_of_the_connection(name: str, whole: bool) -> None:
    answer, message = REFUSED[name]
    size = len(answer) if whole else 1 if len(answer) < 1000 else 1000

    async def scenario() -> None:
        segments = [answer[start : start + size] for start in range(0, len(answer), size)]
        async with connected(answering(*segments)) as (connection, server):
            with pytest.raises(ExchangeError, match=message) as caught:
                await exchange(connection)
            assert type(caught.value) is ExchangeError
            assert not connection.is_reusable
            await until(lambda: server.closed == [1])

    run(scenario())


CUT: dict[str, tuple[bytes, type[ExchangeError]]] = {
    "nothing": (b"", DisconnectedError),
    "half a line": (b"HTTP/1.1 2", CutShortError),
    "half a head": (OK + b"Content-Length: 5\r\n", CutShortError),
    "only hints": (b"HTTP/1.1 100 Continue\r\n\r\n", CutShortError),
    "only a head": (sized(LARGE)[: -len(LARGE)], CutShortError),
    "half a body": (sized(b"hello")[:-2], CutShortError),
    "most of a large body": (sized(LARGE)[:-1], CutShortError),
    "no chunk": (CHUNKED, CutShortError),
    "half a chunk": (CHUNKED + b"5\r\nhel", CutShortError),
    "no last chunk": (CHUNKED + b"5\r\nhello\r\n", CutShortError),
    "no trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", CutShortError),
}


@pytest.mark.parametrize("late", [False, True], ids=["read at once", "read after the end"])
@pytest.mark.parametrize("then", ["end", "reset"])
@pytest.mark.parametrize("name", [*CUT, "until the end"])
def test_an_answer_that_is_cut_short_is_an_error(name: str, then: str, late: bool) -> None:
    # Without a length, only a reset tells that there would have been more.
    until_end = OK + b"\r\nhello", CutShortError
    answer, error = CUT.get(name, until_end)

    async def scenario() -> Any:
        async with connected(answering(answer, then=then)) as (connection, _):
            head = await connection.ask(REQUEST, 10)
            if late and head.length != len(LARGE):
                await until(lambda: connection.transport is None)
            return await connection.receive(2**24, 10)

    if name == "until the end" and then == "end":
        assert run(scenario()) == b"hello"
        return
    with pytest.raises(ExchangeError) as caught:
        run(scenario())
    assert type(caught.value) is error


@pytest.mark.parametrize("extra", [FORGED, b"garbage", b"x"])
@pytest.mark.parametrize(
    "answer",
    [sized(b"hello"), sized(LARGE), CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n",
     OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
    ids=["sized", "large", "chunked", "none", "last"],
)  # fmt: skip
def test_bytes_after_an_answer_are_no_part_of_it_and_not_the_next_one(answer: bytes, extra: bytes) -> None:
    async def scenario() -> None:
        async with connected(answering(answer + extra)) as (connection, _):
            _, body = await exchange(connection)
            assert body in (b"hello", LARGE, b"")
            assert connection.received == len(body)
            assert not connection.is_reusable

    run(scenario())


def test_bytes_that_nobody_asked_for_close_a_connection() -> None:
    async def script(link: Link) -> None:
        await link.request()
        await link.send(sized(b"hello"), FORGED)
        await link.closed()

    async def scenario() -> None:
        async with connected(script) as (connection, server):
            await exchange(connection)
            assert connection.is_reusable
            await until(lambda: server.closed == [1])
            assert not connection.is_reusable

    run(scenario())
