"""A server on 127.0.0.1 that plays a script: exact bytes in exact segments, connections counted."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Link:
    """The server's end of one connection; `number` counts them from 1."""

    number: int
    server: Scripted
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """The next request, head and body; it is noted."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        whole = head + await self.reader.readexactly(int(length[1]) if length else 0)
        self.server.requests.append(whole)
        return whole

    async def send(self, *segments: bytes) -> None:
        """Send each segment so that a client on the same event loop receives it by itself."""
        for segment in segments:
            self.writer.write(segment)
            await self.writer.drain()
            await settle()

    def reset(self) -> None:
        """Break the connection: the client's end sees a reset instead of an end."""
        # A zero linger makes the kernel answer with RST.
        link = self.writer.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def closed(self) -> None:
        """Wait until the client has closed its end."""
        await self.reader.read()
        self.server.closed.append(self.number)


type Script = Callable[[Link], Awaitable[None]]


@dataclass
class Scripted:
    """Where the server is, and what it has seen."""

    port: int = 0
    scheme: str = "http"
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@asynccontextmanager
async def scripted(script: Script, **options: object) -> AsyncIterator[Scripted]:
    """Run the script for each connection, which is closed when it ends; `options` are `start_server`'s."""
    seen, tasks = Scripted(), set[asyncio.Task[None]]()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        seen.connections += 1
        number = seen.connections
        try:
            await script(Link(number, seen, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            # The client has seen enough.
            seen.closed.append(number)
        except asyncio.CancelledError:
            # The test is over.
            pass
        finally:
            writer.close()

    where = {"host": "127.0.0.1", "port": 0} | options
    server = await asyncio.start_server(play, **where)  # type: ignore[arg-type]
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        # Connections that were just accepted have a task that must begin before it can end.
        await settle()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


async def settle() -> None:
    """Let whoever shares this event loop take what is there for it."""
    for _ in range(4):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes soon."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (conditions of any kind)
            await asyncio.sleep(0.005)
