"""Answers of every kind, right and wrong: bytes, nothing, or one error of this package, and soon."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any

import pytest

from intake_nwbzarr.errors import NWBZarrError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.answers import Fetched, Folder, Unchanged
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.open import open_transport
from tests.servers.scripted import Link, scripted

QUICK = {"connect": 5, "stall": 2, "total": 10, "attempts": 2, "backoff": 0.001}

STATUSES = (
    "200 OK",
    "204 No Content",
    "206 Partial Content",
    "226 IM Used",
    "301 Moved",
    "302 Found",
    "304 Not Modified",
    "307 Temporary",
    "308",
    "400 Bad",
    "401 No",
    "404 Not Found",
    "407 Proxy",
    "410 Gone",
    "412 Failed",
    "416 Range",
    "418 Teapot",
    "429 Slow",
    "500 Error",
    "503 SlowDown",
    "599 Odd",
    "999 Odd",
    "000 Odd",
    "-1 Odd",
    "20O OK",
    "",
)
HEADERS = (
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: -5",
    "Content-Length: 99999999999999999999",
    "Content-Length: five",
    "Content-Length: 5\r\nContent-Length: 6",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Content-Encoding: gzip",
    "Content-Range: bytes 0-4/5",
    "Content-Range: bytes 4-0/5",
    "Content-Range: bytes 0-4/*",
    "Content-Range: bytes */5",
    "Content-Range: x",
    "Content-Range: bytes 0-99999999999999999999/99999999999999999999",
    "Location: /again",
    "Location: http://[",
    "Location: //",
    "Location: \xff\xfe",
    "Location: http://127.0.0.1:1/",
    "Location: http://u:p@127.0.0.1/",
    "Location: x" + "y" * 9000,
    'ETag: "a"',
    'ETag: W/"a"',
    "ETag: \xff",
    "ETag:",
    "Retry-After: 99999",
    "Retry-After: -1",
    "Retry-After: \xb2",
    "Content-Type: text/html",
    "Connection: close",
    "Connection: upgrade",
    "Upgrade: h2c",
    "X: " + "y" * 20000,
    "x-amz-bucket-region: eu-west-1",
    "x-amz-bucket-region: ../\xff",
    ": none",
)
BODIES = (
    b"",
    b"hello",
    b"hello, and more than was said",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhel",
    b"zz\r\nhello\r\n",
    b"ffffffffffffffffff\r\nhello",
    b"<html><body>404</body></html>",
    b"<Error><Code>NoSuchKey</Code></Error>",
    b"<Error><Code>ExpiredToken</Code></Error>",
    b"<ListBucketResult></ListBucketResult>",
    b"\xff" * 100,
    b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
    b"{}",
    b"[" * 5000,
)
LINES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"",
    b"\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"SSH-2.0-x\r\n",
    b"\0" * 50,
    b"\x16\x03\x01",
)


def answers(count: int, seed: int) -> list[bytes]:
    chosen = random.Random(seed)
    found = list(LINES)
    while len(found) < count:
        headers = "\r\n".join(chosen.sample(HEADERS, chosen.randrange(0, 4)))
        head = f"HTTP/1.1 {chosen.choice(STATUSES)}\r\n{headers}{chr(13) + chr(10) if headers else ''}\r\n"
        found.append(head.encode("latin-1") + chosen.choice(BODIES))
    return found


def always(answer: bytes) -> Callable[[Link], Awaitable[None]]:
    async def script(link: Link) -> None:
        while True:
            await link.request()
            await link.send(answer)
            if b"Content-Length: 5\r\n" not in answer:
                return

    return script


ASKED: dict[str, Callable[[Transport], Awaitable[Any]]] = {
    "chunk": lambda transport: transport.get("a/c/0"),
    "part": lambda transport: transport.get("a/c/0", start=0, stop=5),
    "end": lambda transport: transport.get("a/c/0", suffix=5),
    "document": lambda transport: transport.get("zarr.json"),
    "condition": lambda transport: transport.get_unless("zarr.json", '"a"'),
    "presence": lambda transport: transport.at('"a"').find("zarr.json"),
    "list": lambda transport: transport.list(),
    "folder": lambda transport: transport.list_folder(""),
}


async def _asked_of(answer: bytes, place: str, ask: Callable[[Transport], Awaitable[Any]]) -> Any:
    async with scripted(always(answer)) as server:
        options: dict[str, Any] = {"timeouts": QUICK}
        if place == "s3":
            transport = open_transport(
                locate("s3://bucket/a", options | {"endpoint_url": server.url, "anon": True})
            )
        else:
            transport = open_transport(locate(f"{server.url}/a", options))
        async with asyncio.timeout(20):
            try:
                return await ask(transport)
            except NWBZarrError as error:
                return error
            finally:
                # Connections that the client has given up have begun to be served by then.
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("place", ["http", "s3"])
def test_any_answer_is_understood_or_an_error_of_this_package(place: str) -> None:
    calls = [
        (answer, asked)
        for number, (answer, asked) in enumerate(product(answers(100, seed=9), ASKED))
        if number % 3 == 0 or number < len(ASKED)
    ]

    async def everything() -> list[Any]:
        async def one(answer: bytes, asked: str) -> Any:
            try:
                return await _asked_of(answer, place, ASKED[asked])
            except Exception as error:
                return AssertionError(f"{asked} of {answer[:300]!r}: {type(error).__name__}: {error}")

        return await gather([lambda call=call: one(*call) for call in calls])  # type: ignore[misc]

    found = run(everything())
    wrong = [error for error in found if isinstance(error, AssertionError)]
    assert not wrong, wrong[:3]
    kinds = (NWBZarrError, Fetched, Unchanged, Folder, list, type(None))
    assert all(isinstance(result, kinds) for result in found)
    assert any(isinstance(result, Fetched) for result in found)
