"""Exchanges of ours with a server that plays a script."""

from __future__ import annotations

from typing import Any

from intake_nwbzarr.location.options import Timeouts
from intake_nwbzarr.transport.answers import Failure
from intake_nwbzarr.transport.engine import Answer, Request
from intake_nwbzarr.transport.web import exchange
from tests.servers.scripted import Link, Script, Scripted

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PATIENT = Timeouts(connect=10, stall=10)


def sized(body: bytes) -> bytes:
    """An answer that says how long it is."""
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


def answering(*segments: bytes, then: str = "wait") -> Script:
    """Answer a request and then wait for the client to close, or end or reset the connection."""

    async def script(link: Link) -> None:
        await link.request()
        await link.send(*segments)
        if then == "wait":
            await link.closed()
        elif then == "reset":
            link.reset()

    return script


async def ask(
    server: Scripted, path: str = "/x", *, method: str = "GET", timeouts: Timeouts = PATIENT, **details: Any
) -> Answer | Failure:
    """The answer to one request, of a megabyte at most."""
    details = {"headers": {}, "limit": 2**20} | details
    return await exchange(Request(method, server.url + path, counted=("here", "get"), **details), timeouts)


async def body_of(server: Scripted, path: str = "/x", **details: Any) -> bytes:
    """The body of an answer, which must be one."""
    answer = await ask(server, path, **details)
    assert isinstance(answer, Answer), answer
    return bytes(answer.body)
