"""One connection of ours to a server that plays a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from intake_nwbzarr.transport.connection import Connection, Head
from tests.servers.scripted import Link, Script, Scripted, scripted, settle

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


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


@asynccontextmanager
async def connected(script: Script) -> AsyncIterator[tuple[Connection, Scripted]]:
    """A connection to a server that plays the script."""
    async with scripted(script) as server:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", server.port)
        try:
            yield connection, server
        finally:
            connection.close()
            await settle()


async def exchange(connection: Connection, limit: int = 2**24, stall: float = 10) -> tuple[Head, Any]:
    """A request's answer: its head and body."""
    head = await connection.ask(REQUEST, stall)
    return head, await connection.receive(limit, stall)
