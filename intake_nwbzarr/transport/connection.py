"""One connection of HTTP/1.1: one exchange after the other, each body received straight to where it stays."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from enum import Enum, auto
from typing import cast

import numpy as np
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict

from intake_nwbzarr.transport.answers import Bytes

HEAD = 16 * 2**10
"""What the head of an answer may take, and how much is received before its body has been given a place."""

_NOTHING = memoryview(b"")


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
        self._link: asyncio.Transport | None = None  # what TLS, if any, goes through
        self._loop = asyncio.get_running_loop()
        self._state = _State.IDLE
        self._keeps = True
        self._was_reset = False
        self._buffer = bytearray(HEAD)
        self._scratch = memoryview(self._buffer)
        self._begin = self._end = 0  # of what is in it of the body, or of the head so far
        self._body = _NOTHING
        self._blocks: list[bytes] = []
        self._limit = 0
        self._parser: HttpResponseParser
        self._headers: CIMultiDict[str]
        self._is_complete = False
        self._head: Head
        self._waiter: asyncio.Future[Bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange may follow."""
        is_open = self.transport is not None and not self.transport.is_closing()
        return is_open and self._keeps and self._state is _State.IDLE

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on, and begin anew: an answer before it was a proxy's.

        Raises
        ------
        OSError, ValueError
            When the host is not who it should be, or has no name that a certificate could hold.
        """
        self._state, self._keeps = _State.IDLE, True
        secure = self.transport and await self._loop.start_tls(
            self.transport, self, context, server_hostname=host.rstrip(".")
        )
        if secure is None:
            raise ConnectionResetError
        self.transport = secure

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
        self.transport.write(message)
        await self._wait(self._loop.create_future(), stall)
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
        length, early = self._head.length, self._scratch[self._begin : self._end]
        if length == 0:
            return b""
        if self._state is not _State.PLACELESS:
            raise CutShortError
        if self.transport is not None:
            self.transport.resume_reading()
        if length is not None:
            return await self._receive_sized(length, limit, early, stall)
        return await self._receive_stream(limit, early, stall)

    def close(self) -> None:
        """Close at once; what is under way fails."""
        self._fail(CutShortError())

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = self._link = cast("asyncio.Transport", transport)

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
                self._fill(nbytes)
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
        self.transport = self._link = None
        match self._state:
            case _State.PLACELESS:
                # It may have arrived to its end all the same.
                self._was_reset = exc is not None
            case _State.STREAM if exc is None:
                self._end_with_connection()
            case _State.HEAD if self._end == 0:
                self._fail(DisconnectedError())
            case _:
                self._fail(CutShortError())

    # What httptools calls.

    def on_message_begin(self) -> None:
        """Take nothing that follows an answer for a part of it."""
        if self._is_complete:
            raise ExchangeError

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

    def _look_for_head(self, searched: int) -> None:
        status = 0
        # "100 Continue" and its like come before the answer.
        while status < 200:
            if not b"HTTP/1.".startswith(self._scratch[self._begin : min(self._begin + 7, self._end)]):
                self._fail(ExchangeError("the answer is not HTTP/1.1"))
                return
            end = self._buffer.find(b"\r\n\r\n", searched, self._end) + 4
            if end < 4:
                if self._end == HEAD:
                    self._fail(ExchangeError("the head of the answer is too long"))
                return
            self._parser = HttpResponseParser(self)
            self._headers = CIMultiDict()
            self._is_complete = False
            if not self._parse(self._scratch[self._begin : end]):
                return
            status = self._parser.get_status_code()
            self._begin = searched = end
        self._take_head(status)

    def _take_head(self, status: int) -> None:
        if self._unsent:
            # The rest of the request is still on its way.
            self._keeps = False
        if self._is_complete:
            self._head = Head(status, self._headers, 0, chunked=False)
            self._keeps = self._keeps and self._begin == self._end
            self._finish(b"")
            return
        codings = self._headers.getall("Transfer-Encoding", None)
        if codings is not None and [coding.lower() for coding in codings] != ["chunked"]:
            self._fail(ExchangeError("the answer has a Transfer-Encoding that was not asked for"))
            return
        announced = self._headers.get("Content-Length")
        length = None if announced is None else int(announced)
        self._head = Head(status, self._headers, length, chunked=codings is not None)
        self._state = _State.PLACELESS
        self._pause_if_full()
        self._succeed(b"")

    # The body.

    async def _receive_sized(self, length: int, limit: int, early: memoryview, stall: float) -> Bytes:
        wanted = min(length, limit)
        self.received = min(len(early), wanted)
        self._keeps = self._keeps and wanted == length and len(early) <= length
        if self.received == wanted:
            self._finish(b"")
            return bytes(early[:wanted])
        if self.transport is None:
            raise CutShortError
        # Room for one byte more shows what follows a body before it is taken for the next answer.
        self._body = memoryview(np.empty(wanted + 1, np.uint8))
        self._body[: self.received] = early
        self._state = _State.SIZED
        return await self._wait(self._loop.create_future(), stall)

    def _fill(self, nbytes: int) -> None:
        wanted = len(self._body) - 1
        self.received += nbytes
        if self.received > wanted:
            self.received, self._keeps = wanted, False
        if self.received == wanted:
            self._finish(self._body[:wanted].toreadonly())

    async def _receive_stream(self, limit: int, early: memoryview, stall: float) -> Bytes:
        self._limit, self._blocks = limit, []
        self._state = _State.STREAM
        waiter = self._waiter = self._loop.create_future()
        self._feed(early)
        if self.transport is None and self._state is _State.STREAM:
            self._end_with_connection()
        return await self._wait(waiter, stall)

    def _feed(self, data: memoryview) -> None:
        """Go on with a body that does not say how long it is."""
        if not self._head.chunked:
            self.on_body(bytes(data))
        elif data and not self._parse(data):
            return
        if self.received > self._limit:
            self._keeps = False
        if self.received > self._limit or self._is_complete:
            self._finish(b"".join(self._blocks)[: self._limit])

    def _end_with_connection(self) -> None:
        if self._head.chunked or self._was_reset:
            self._fail(CutShortError())
        else:
            self._finish(b"".join(self._blocks))

    def _parse(self, data: memoryview) -> bool:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if self._state is not _State.STREAM or not self._is_complete:
                reason = str(error) if isinstance(error, HttpParserError) else "Upgrade"
                self._fail(ExchangeError(f"the answer is not HTTP/1.1 ({reason})"))
                return False
            # All of the answer has arrived, and more.
            self._keeps = False
        return True

    def _pause_if_full(self) -> None:
        if self._end == HEAD and self.transport is not None:
            self.transport.pause_reading()

    # Who waits for it.

    async def _wait(self, waiter: asyncio.Future[Bytes], stall: float) -> Bytes:
        self._waiter = waiter
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(stall, self._check, stall, self._unsent)
        try:
            return await waiter
        except BaseException:
            # An exchange that was given up cannot be taken up again.
            self.close()
            raise
        finally:
            self._waiter = None
            self._timer.cancel()

    def _check(self, stall: float, unsent: int) -> None:
        """Give up if nothing has moved, and look again when that may be so otherwise."""
        if self._unsent != unsent:
            self._heard = self._loop.time()
        if self._loop.time() - self._heard >= stall:
            self._fail(StalledError())
        else:
            self._timer = self._loop.call_at(self._heard + stall, self._check, stall, self._unsent)

    @property
    def _unsent(self) -> int:
        if self.transport is None or self._link is None:
            return 0
        unsent = self._link.get_write_buffer_size()
        # What TLS has not encrypted yet waits above it.
        return unsent if self.transport is self._link else unsent + self.transport.get_write_buffer_size()

    def _finish(self, body: Bytes) -> None:
        self._state = _State.IDLE
        self._drop()
        self._succeed(body)

    def _fail(self, error: ExchangeError) -> None:
        self._state = _State.LOST
        self._drop()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def _succeed(self, body: Bytes) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(body)

    def _drop(self) -> None:
        """Leave a body to whoever asked for it."""
        self._body, self._blocks = _NOTHING, []
