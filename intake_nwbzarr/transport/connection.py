"""One connection of HTTP/1.1: one exchange after the other, each body received straight to where it stays."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from typing import cast

import numpy as np
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict

from intake_nwbzarr.transport.answers import Bytes

HEAD = 16 * 2**10
"""What the head of an answer may take, and how much is received before its body has been given a place."""


class ExchangeError(Exception):
    """An exchange that did not go as HTTP says; nothing of it may be used."""


class DisconnectedError(ExchangeError):
    """The connection was closed before any of the answer had arrived."""


class CutShortError(ExchangeError):
    """The connection was closed in the middle of the answer."""


class StalledError(ExchangeError):
    """Nothing was received or sent for too long."""


@dataclass(frozen=True)
class Head:
    """The head of an answer.

    Parameters
    ----------
    length
        Of the body; None where only its end will tell.
    chunked
        Whether a body without a length says itself where it ends; otherwise the connection's end does.
    """

    status: int
    headers: CIMultiDict[str]
    length: int | None
    chunked: bool


class _State(Enum):
    IDLE = auto()  # nothing is expected
    HEAD = auto()
    PLACELESS = auto()  # a body has begun that nobody has given a place
    SIZED = auto()
    STREAM = auto()
    LOST = auto()


class Connection(asyncio.BufferedProtocol):
    """A connection to a server, or through a proxy to one; used by one exchange at a time.

    `httptools`, the parser of Node.js, reads heads and chunked bodies. A body of an announced length is
    received into an array of that length, with nothing in between: that is most of what reading costs.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.is_reused = False
        self.received = 0  # bytes of the last body
        self._loop = asyncio.get_running_loop()
        self._state = _State.IDLE
        self._keeps = True
        self._buffer = bytearray(HEAD)
        self._scratch = memoryview(self._buffer)
        self._begin = self._end = 0  # of what is in it of the body, or of the head so far
        self._body = memoryview(b"")
        self._blocks: list[bytes] = []
        self._limit = 0
        self._parser: HttpResponseParser
        self._headers: CIMultiDict[str]
        self._is_complete = False
        self._head: Head
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange may follow."""
        return self._state is _State.IDLE and self._keeps and self.transport is not None

    async def ask(self, message: bytes, stall: float) -> Head:
        """Send a request and wait for the head of its answer.

        Raises
        ------
        ExchangeError
            When none comes.
        """
        if self._state is not _State.IDLE or self.transport is None:
            raise DisconnectedError
        self._state = _State.HEAD
        self._begin = self._end = self.received = 0
        self._resume()
        self._expect_head()
        self.transport.write(message)
        await self._wait(stall)
        return self._head

    async def receive(self, limit: int, stall: float) -> Bytes:
        """The body of the answer, or its beginning of `limit` bytes; then the connection is of no more use.

        Returns
        -------
        bytes or memoryview
            A large body is a read-only view of the memory it was received into.

        Raises
        ------
        ExchangeError
            When the body does not come to its end.
        """
        head, early = self._head, self._scratch[self._begin : self._end]
        if head.length == 0:
            return b""
        if head.length is not None:
            return await self._receive_sized(head.length, limit, early, stall)
        self._limit, self._blocks = limit, []
        lost, self._state = self.transport is None, _State.STREAM
        self._feed(early)
        if self._state is _State.STREAM and lost:
            self._end_with_connection()
        if self._state is _State.STREAM:
            self._resume()
            await self._wait(stall)
        if self._state is _State.LOST and not self._is_complete:
            raise CutShortError
        blocks, self._blocks = self._blocks, []
        return b"".join(blocks)[:limit]

    def become_tunnel(self) -> None:
        """Begin anew: what follows is said to the server behind the proxy that has just answered."""
        self._state, self._keeps = _State.IDLE, True

    def close(self) -> None:
        """Close at once; what is under way fails."""
        self._keeps = False
        if self.transport is not None:
            self.transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (there is a better hint)
        """Where the next bytes go."""
        match self._state:
            case _State.SIZED:
                return self._body[self.received :]
            case _State.HEAD | _State.PLACELESS:
                return self._scratch[self._end :]
            case _:
                return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """So many have arrived there."""
        self._heard = self._loop.time()
        match self._state:
            case _State.SIZED:
                self.received += nbytes
                if self.received == len(self._body):
                    self._finish()
            case _State.STREAM:
                self._feed(self._scratch[:nbytes])
            case _State.HEAD:
                searched = max(self._end - 3, self._begin)
                self._end += nbytes
                self._look_for_head(searched)
            case _State.PLACELESS:
                self._end += nbytes
                self._pause_if_full()
            case _:
                # Nobody has asked for anything.
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever was under way."""
        self.transport = None
        match self._state:
            case _State.PLACELESS:
                # It may have arrived to its end all the same.
                return
            case _State.STREAM if exc is None:
                self._end_with_connection()
            case _State.HEAD if self._end == 0:
                self._fail(DisconnectedError())
            case _:
                self._fail(CutShortError())
        self._state = _State.LOST

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers of a chunked body are of no use."""
        if self._state is _State.HEAD:
            self._headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """Ask what is known only now."""
        self._keeps = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a chunked body."""
        self._blocks.append(body)
        self.received += len(body)

    def on_message_complete(self) -> None:
        """Note the end of an answer."""
        self._is_complete = True

    # The head.

    def _expect_head(self) -> None:
        self._parser = HttpResponseParser(self)
        self._headers = CIMultiDict()
        self._is_complete = False

    def _look_for_head(self, start: int) -> None:
        end = self._buffer.find(b"\r\n\r\n", start, self._end) + 4
        if end < 4:
            if self._end == HEAD:
                self._refuse("the head of the answer is too long")
            return
        if not self._parse(self._scratch[self._begin : end]):
            return
        self._begin = end
        status = self._parser.get_status_code()
        if status < 200:
            # "100 Continue" and its like come before the answer.
            self._expect_head()
            self._look_for_head(end)
            return
        chunked = "Transfer-Encoding" in self._headers
        announced = None if chunked else self._headers.get("Content-Length")
        length = 0 if self._is_complete else None if announced is None else int(announced)
        self._head = Head(status, self._headers, length, chunked)
        if self._is_complete:
            self._keeps = self._keeps and self._begin == self._end
            self._finish()
        else:
            self._state = _State.PLACELESS
            self._pause_if_full()
            self._succeed()

    # The body.

    async def _receive_sized(self, length: int, limit: int, early: memoryview, stall: float) -> Bytes:
        wanted = min(length, limit)
        self.received = min(len(early), wanted)
        self._keeps = self._keeps and wanted == length and len(early) <= length
        if self.received == wanted:
            self._finish()
            return bytes(early[:wanted])
        if self.transport is None:
            raise CutShortError
        body = self._body = memoryview(np.empty(wanted, np.uint8))
        body[: self.received] = early
        self._state = _State.SIZED
        self._resume()
        await self._wait(stall)
        return body.toreadonly()

    def _feed(self, data: memoryview) -> None:
        """Go on with a body that does not say how long it is."""
        if not self._head.chunked:
            self.on_body(bytes(data))
        elif data and not self._parse(data):
            return
        if self.received > self._limit:
            self._keeps = False
            self._finish()
        elif self._is_complete:
            self._finish()

    def _end_with_connection(self) -> None:
        if self._head.chunked:
            self._fail(CutShortError())
        else:
            self._is_complete = True
            self._finish()
        self._state = _State.LOST

    def _parse(self, data: memoryview) -> bool:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._refuse(f"the answer is not HTTP/1.1 ({type(error).__name__})")
            return False
        return True

    def _finish(self) -> None:
        self._state = _State.IDLE
        # A body belongs to whoever asked for it.
        self._body = memoryview(b"")
        self._succeed()

    def _refuse(self, why: str) -> None:
        self._fail(ExchangeError(why))
        self.close()

    def _pause_if_full(self) -> None:
        if self._end == HEAD and not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()

    # Who waits for it.

    async def _wait(self, stall: float) -> None:
        self._heard = self._loop.time()
        self._waiter = self._loop.create_future()
        self._timer = self._loop.call_later(stall, self._check, stall, self._unsent)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._timer.cancel()

    def _check(self, stall: float, unsent: int) -> None:
        """Give up if nothing has moved, and look again when that may be so otherwise."""
        if self._unsent < unsent:
            self._heard = self._loop.time()
        if self._loop.time() - self._heard >= stall:
            self._fail(StalledError())
            self.close()
        else:
            self._timer = self._loop.call_at(self._heard + stall, self._check, stall, self._unsent)

    @property
    def _unsent(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def _succeed(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: ExchangeError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
