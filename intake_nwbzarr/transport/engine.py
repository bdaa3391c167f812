"""The HTTP engine, `ask(request) -> answer`: aiohttp, with every request counted."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from io import BytesIO
from math import inf
from typing import Final, Protocol

import aiohttp
import numpy as np
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict
from yarl import URL

from intake_nwbzarr.errors import HostNotFoundError, TransportError
from intake_nwbzarr.location.options import Timeouts
from intake_nwbzarr.transport.answers import Bytes, Failure, Part
from intake_nwbzarr.transport.connect import (
    Connector,
    NotRepeatedError,
    ProxyAddressError,
    Sending,
    authority_of,
    proxy_for,
    tls_context,
)
from intake_nwbzarr.transport.loop import budget, when_closing
from intake_nwbzarr.transport.request_log import record
from intake_nwbzarr.untrusted_input import LARGEST_ERROR, LONGEST_HEADER

# Of a body, what aiohttp receives before its limit is known, and at a time after that.
_BUFFERED: Final = 64 * 2**10
_AT_A_TIME: Final = 2**20
# Seconds after which a body that does not go on is looked at.
_LOOK: Final = 1.0
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "intake-nwbzarr"}
_BREAKS: Final = re.compile(r"[\r\n\0]")
_BLANKS: Final = re.compile(r"[\0-\x20\x7f]")


@dataclass(frozen=True)
class Request:
    """An HTTP request; redirects are not followed."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    counted: tuple[str, str]  # the location's URL and the method, for the counts
    part: Part | None = None
    limit: int = LARGEST_ERROR  # bytes of the object at most; 0 receives none of it
    body: bytes | None = field(default=None, repr=False)
    verify: bool | str = True  # whether certificates are checked, or the path of those that are trusted


@dataclass(frozen=True)
class Head:
    """The head of a response; `length` is that of its body, None if it ends with the connection."""

    status: int
    headers: Mapping[str, str]
    length: int | None
    is_chunked: bool


@dataclass(frozen=True)
class Answer:
    """A response whose body has been received up to the limit."""

    status: int
    headers: Mapping[str, str]
    body: Bytes
    size: int | None = None  # of the whole object, where it is known
    redirected: bool = False

    @property
    def error_code(self) -> str:
        """Return the code in S3's error document; its message, which may quote credentials, is not read."""
        match = re.search(rb"<Code>([A-Za-z0-9.]{1,80})</Code>", self.body) if self.status >= 300 else None
        return match[1].decode() if match else ""


type Admit = Callable[[Request, Head], int | Failure]
"""Return how many bytes of a body to receive at most, or a failure."""


class Engine(Protocol):
    """Sends requests once, or again if a reused connection turns out to be closed."""

    async def ask(self, request: Request, timeouts: Timeouts, admit: Admit) -> Answer | Failure:
        """Return the answer to a request, or a failure."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


_engine: Engine | None = None


def engine() -> Engine:
    """Return the engine of this process; to be called on the package's event loop."""
    global _engine
    if _engine is None:
        _engine = AiohttpEngine()
        when_closing(_engine.close)
    return _engine


class AiohttpEngine:
    """An aiohttp session without cookies, redirects, decompression and settings of the environment."""

    def __init__(self) -> None:
        self._connector = Connector()
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Content-Type",),
            read_bufsize=_BUFFERED,
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
        )

    async def ask(self, request: Request, timeouts: Timeouts, admit: Admit) -> Answer | Failure:
        """Return the answer to a request, or a failure."""
        try:
            prepared = _prepare(request)
        except ProxyAddressError:
            return _proxy_failure("has an address that is not http://host:port", transient=False)
        except (ValueError, OSError):
            return _not_sendable()
        while True:
            sending = Sending(self._connector, request.counted)
            try:
                return await self._exchange(request, prepared, timeouts, admit, sending)
            except NotRepeatedError as error:
                if not (sending.is_reused and request.method == "GET" and _is_disconnected(error.error)):
                    return _failure(error.error, prepared, timeouts, sending)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                return _failure(error, prepared, timeouts, sending)
            finally:
                sending.end()
            # A server may close a connection that it has kept just when it is used again.
            record(*request.counted, retries=1)

    async def close(self) -> None:
        """Close all connections; uploads that do not end within a second are aborted."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._session.close()

    async def _exchange(
        self, request: Request, prepared: _Prepared, timeouts: Timeouts, admit: Admit, sending: Sending
    ) -> Answer | Failure:
        uploaded = None if request.body is None else aiohttp.UploadTracker()
        async with _upload_in_time(sending, uploaded, len(request.body or b""), timeouts.stall):
            response = await self._session.request(
                request.method,
                prepared.url,
                headers=prepared.headers,
                data=None if request.body is None else BytesIO(request.body),
                allow_redirects=False,
                proxy=prepared.proxy,
                proxy_headers=prepared.proxy_headers,
                ssl=prepared.tls,
                timeout=aiohttp.ClientTimeout(
                    connect=timeouts.connect, sock_read=timeouts.stall, ceil_threshold=inf
                ),
                middlewares=(sending,),
                upload_tracker=uploaded,
            )
        try:
            return await _receive(response, request, admit, proxied=prepared.proxy is not None)
        finally:
            # A connection whose answer has been received whole is kept by now.
            response.close()


# Receiving.


async def _receive(
    response: aiohttp.ClientResponse, request: Request, admit: Admit, *, proxied: bool
) -> Answer | Failure:
    codings = [coding.lower() for coding in response.headers.getall("Transfer-Encoding", ())]
    if response.status == 101 or response.version not in {aiohttp.HttpVersion10, aiohttp.HttpVersion11}:
        return _not_http()
    if codings not in ([], ["chunked"]):
        return _not_http("the response has a Transfer-Encoding that was not requested")
    if proxied and response.status == 407:
        return _proxy_failure("responded with 407", transient=False)
    announced = None if codings else response.headers.get("Content-Length")
    head = Head(
        response.status,
        _text(response.headers),
        None if announced is None else int(announced),
        is_chunked=bool(codings),
    )
    admitted = admit(request, head)
    if isinstance(admitted, Failure):
        return admitted
    body: Bytes = b""
    if admitted and not response.content.at_eof():
        # Error documents are small, and need not wait for others.
        async with budget.body(min(head.length or 0, admitted)) if head.status < 300 else nullcontext():
            body = await _receive_body(response, head.length, admitted, request.counted)
    return Answer(head.status, head.headers, body)


async def _receive_body(
    response: aiohttp.ClientResponse, length: int | None, most: int, counted: tuple[str, str]
) -> Bytes:
    """Receive a body up to a limit, with one copy into the memory that it is decoded from."""
    content = response.content
    wanted = most if length is None else min(length, most)
    received = 0
    memory: memoryview | None = None
    pieces: list[bytes] = []
    content.set_read_chunk_size(min(wanted, _AT_A_TIME))
    try:
        with nullcontext() if content.is_eof() else _noticing_the_end(response):
            while received < wanted and not content.at_eof():
                # Nothing, where a chunk ends.
                piece, _ = await content.readchunk()
                piece = piece[: wanted - received]
                if length is None or len(piece) == wanted:
                    pieces.append(piece)
                else:
                    memory = memoryview(np.empty(wanted, np.uint8)) if memory is None else memory
                    memory[received : received + len(piece)] = piece
                received += len(piece)
    except BaseException:
        # aiohttp's exceptions hold on to this frame until garbage is collected.
        memory = None
        pieces.clear()
        raise
    finally:
        record(*counted, received=received)
    if length is not None and received < wanted:
        raise aiohttp.ClientPayloadError
    # One piece is not copied by this.
    return b"".join(pieces) if memory is None else memory.toreadonly()


@contextmanager
def _noticing_the_end(response: aiohttp.ClientResponse) -> Iterator[None]:
    """End a body that stops being HTTP: aiohttp 3.14 closes the connection without an error."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        if response.connection is not None and response.connection.closed:
            response.content.set_exception(aiohttp.ClientPayloadError())
        timer = loop.call_later(_LOOK, look)

    timer = loop.call_later(_LOOK, look)
    try:
        yield
    finally:
        timer.cancel()


def _text(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers without surrogates, which stand for bytes that are not UTF-8."""
    if all(value.isascii() for value in headers.values()):
        return headers
    clean = ((name, value.encode(errors="surrogateescape")) for name, value in headers.items())
    return CIMultiDict((name, value.decode(errors="backslashreplace")) for name, value in clean)


# Sending.


@asynccontextmanager
async def _upload_in_time(
    sending: Sending, uploaded: aiohttp.UploadTracker | None, size: int, stall: float
) -> AsyncIterator[None]:
    """Raise TimeoutError when a server reads nothing of a body for so long; aiohttp has no such timeout."""
    if uploaded is None:
        yield
        return
    tracker = uploaded
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle
    async with asyncio.timeout(None) as limit:

        def look(before: int) -> None:
            nonlocal timer
            now = tracker.bytes_written
            if sending.is_sent and now == before:
                limit.reschedule(loop.time())
            elif now < size:
                timer = loop.call_later(stall, look, now if sending.is_sent else -1)

        timer = loop.call_later(stall, look, -1)
        try:
            yield
        finally:
            timer.cancel()


@dataclass(frozen=True)
class _Prepared:
    """The arguments of aiohttp for a request."""

    host: str
    url: URL
    headers: CIMultiDict[str]
    tls: ssl.SSLContext | bool
    proxy: URL | None
    proxy_headers: dict[str, str] | None


def _prepare(request: Request) -> _Prepared:
    """Return a request in aiohttp's terms: the URL unchanged, and all headers."""
    url = URL(request.url, encoded=True)
    authority, target = authority_of(url), url.raw_path_qs
    headers = CIMultiDict({"Host": authority, **_HEADERS})
    headers.update(request.headers)
    sent = "".join([request.url, *headers.keys(), *headers.values()])
    if _BLANKS.search(request.url) or _BREAKS.search(sent):
        raise ValueError("a request that would end too early")
    sent.encode()
    if request.body is not None:
        headers["Content-Length"] = str(len(request.body))
    address = f"{url.scheme}://{authority}{target}"
    whole = url if address == request.url else URL(address, encoded=True)
    host = whole.host_subcomponent or ""
    proxy, proxy_headers = proxy_for(f"{url.scheme}://{host}:{url.port}")
    if url.scheme == "http":
        headers.update(proxy_headers)
    is_tls = url.scheme == "https" or (proxy is not None and proxy.scheme == "https")
    tls = tls_context(request.verify) if is_tls else True
    return _Prepared(
        host, whole, headers, tls, proxy, proxy_headers if proxy and url.scheme == "https" else None
    )


# Failures.


def _is_disconnected(error: Exception) -> bool:
    """Return whether a connection was closed before any of the answer had arrived."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        # Otherwise its message is the beginning of an answer.
        return isinstance(error.message, str)
    return isinstance(error, aiohttp.ClientOSError | aiohttp.ClientConnectionResetError) and not isinstance(
        error, aiohttp.ClientConnectorError
    )


def _proxy_failure(what: str, *, transient: bool) -> Failure:
    return Failure(
        TransportError,
        f"the proxy {what}",
        attempts=2,
        advice="Check http_proxy, https_proxy and no_proxy, and the user and password in them.",
        transient=transient,
    )


def _not_http(cause: str = "the response is not HTTP/1.1") -> Failure:
    return Failure(TransportError, cause, attempts=3)


def _failure(error: Exception, prepared: _Prepared, timeouts: Timeouts, sending: Sending) -> Failure:
    """Return the failure that an exception means, without its message: that may hold the URL and headers."""
    host = prepared.host
    if prepared.proxy is not None and not sending.is_sent:
        match error:
            case aiohttp.ClientHttpProxyError():
                return _proxy_failure(f"responded with {error.status}", transient=error.status >= 500)
            case aiohttp.ClientProxyConnectionError() | aiohttp.ClientConnectorDNSError():
                return _proxy_failure(f"cannot be reached ({_os_error(error.os_error)})", transient=True)
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientResponseError():
                return _proxy_failure("did not respond", transient=True)
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Failure(
                HostNotFoundError,
                f"the name {host} does not resolve",
                attempts=2,
                advice="Check the spelling, and this machine's connection.",
                transient=error.os_error.errno == socket.EAI_AGAIN,
            )
        case aiohttp.ClientSSLError():
            return Failure(
                TransportError,
                f"the TLS connection to {host} cannot be trusted or made",
                advice="Check this machine's clock and certificates; SSL_CERT_FILE, or storage_options="
                "{'client_kwargs': {'verify': path}}, names those of an authority of your own.",
            )
        case aiohttp.ClientConnectorError():
            cause = f"no connection to {host} ({_os_error(error.os_error)})"
            return Failure(TransportError, cause, attempts=3)
        case aiohttp.ConnectionTimeoutError():
            return Failure(TransportError, f"no connection within {timeouts.connect:g} s", attempts=None)
        case TimeoutError():
            return Failure(TransportError, f"the connection stalled for {timeouts.stall:g} s", attempts=None)
        case aiohttp.InvalidURL():
            pass
        case aiohttp.ClientResponseError():
            if _is_too_long(error):
                return _not_http("the response headers are too long")
            return _not_http()
        case _ if _is_disconnected(error):
            return Failure(TransportError, "the connection was closed", attempts=None)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return Failure(TransportError, "the response was truncated", attempts=None)
        case OSError():
            cause = f"the connection was closed ({_os_error(error)})"
            return Failure(TransportError, cause, attempts=None)
        case aiohttp.ClientError():
            return _not_http()
    return _not_sendable()


def _not_sendable() -> Failure:
    return Failure(
        TransportError,
        "its URL, or a header passed for it, is not valid in HTTP",
        advice="Encode spaces, line breaks and characters other than ASCII.",
    )


def _is_too_long(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, LineTooLong):
        cause = cause.__cause__
    return cause is not None


def _os_error(error: BaseException | None) -> str:
    # OpenSSL has numbers of its own.
    number = None if isinstance(error, ssl.SSLError) else getattr(error, "errno", None)
    return errno.errorcode.get(number, type(error).__name__) if number else type(error).__name__
