"""One exchange over HTTP: a request, and an answer that has been checked against it."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from multidict import CIMultiDict
from yarl import URL

from intake_nwbzarr.errors import HostNotFoundError, ResponseError, TransportError
from intake_nwbzarr.location.options import Timeouts
from intake_nwbzarr.transport.answers import Bytes, Failure, Part
from intake_nwbzarr.transport.base import too_large
from intake_nwbzarr.transport.connection import (
    Connection,
    CutShortError,
    DisconnectedError,
    ExchangeError,
    Head,
    StalledError,
)
from intake_nwbzarr.transport.loop import budget
from intake_nwbzarr.transport.pool import ConnectError, ProxyError, Server, pool, proxy_headers, server_of
from intake_nwbzarr.transport.request_log import record

# An error document is read this far, for the code in it.
LARGEST_ERROR = 64 * 2**10
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_BREAKS = re.compile(r"[\r\n\0]")
_BLANKS = re.compile(r"[\0-\x20\x7f]")
_ALWAYS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "intake-nwbzarr"}


@dataclass(frozen=True)
class Answer:
    """What a server answered: the status hoped for and the whole body, or another and its beginning."""

    status: int
    headers: Mapping[str, str]
    body: Bytes
    size: int | None = None
    redirected: bool = False


@dataclass(frozen=True)
class Request:
    """What is asked of a server.

    Parameters
    ----------
    counted
        The location's URL and method, for the counts.
    limit
        Bytes of the body at most; none of it is received where that is 0.
    verify
        Whether the server's certificate is checked, or the path of those that are trusted.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    counted: tuple[str, str]
    part: Part | None = None
    limit: int = LARGEST_ERROR
    body: bytes | None = field(default=None, repr=False)
    verify: bool | str = True


class _StaleError(Exception):
    """A connection that was kept is of no more use."""


async def exchange(request: Request, timeouts: Timeouts) -> Answer | Failure:
    """Send one request, follow nothing, and check the answer."""
    host = "the host"
    try:
        url = URL(request.url, encoded=True)
        server = server_of(url, request.verify)
        host = server.name
        message = _message(request, url, server)
        try:
            return await _exchange(request, server, message, timeouts, fresh=False)
        except _StaleError:
            # A server may close a connection that it has kept just when it is used again.
            record(*request.counted, retries=1)
            return await _exchange(request, server, message, timeouts, fresh=True)
    except (ExchangeError, ConnectError, OSError, ValueError) as error:
        # Their messages may hold the whole URL and the headers: they go no further.
        failure = _failure(error, host, timeouts)
    return failure


async def _exchange(
    request: Request, server: Server, message: bytes, timeouts: Timeouts, *, fresh: bool
) -> Answer | Failure:
    async with pool().connection(server, timeouts.connect, fresh=fresh) as connection:
        record(*request.counted, requests=1)
        try:
            head = await connection.ask(message, timeouts.stall)
            return await _checked(connection, head, request, timeouts.stall)
        except DisconnectedError:
            if connection.is_reused and request.method == "GET":
                raise _StaleError from None
            raise
        finally:
            record(*request.counted, received=connection.received)


def _message(request: Request, url: URL, server: Server) -> bytes:
    """A request as it is sent."""
    target = url.raw_path_qs
    headers = CIMultiDict({"Host": server.authority, **_ALWAYS})
    headers.update(request.headers)
    if server.proxy is not None and server.scheme == "http":
        headers.update(proxy_headers(server.proxy))
        target = f"http://{server.authority}{target}"
    if request.body is not None:
        headers["Content-Length"] = str(len(request.body))
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if _BLANKS.search(request.url) or any(map(_BREAKS.search, lines)):
        raise ValueError("a request that would end too early")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (request.body or b"")


async def _checked(connection: Connection, head: Head, request: Request, stall: float) -> Answer | Failure:
    if head.status == 407:
        raise ProxyError("answered 407", transient=False)
    expected = 206 if request.part is not None else 200
    if head.status != expected:
        if head.status == 200 and request.method == "GET":
            return Failure(
                ResponseError,
                "the server ignored the Range header and answered with the whole object",
                advice="This server cannot give parts of objects; copy the file, or use another server.",
            )
        if head.status == 206:
            return Failure(
                ResponseError, "the server answered with a part of the object, and none was asked for"
            )
        beginning = await connection.receive(LARGEST_ERROR, stall)
        return Answer(head.status, head.headers, beginning)
    if request.limit == 0:
        return Answer(head.status, head.headers, b"")
    if request.method == "GET" and head.length is None and not head.chunked:
        return Failure(
            ResponseError, "the server does not say how long its answer is, so its end cannot be told"
        )
    length, size = head.length, head.length
    if request.part is not None:
        span = _span(head.headers.get("Content-Range", ""), request.part)
        if isinstance(span, Failure):
            return span
        length, size = span
        if head.length not in {None, length}:
            return _short(f"the answer is announced with {head.length} bytes and {length} are its range")
    if length is not None and length > request.limit:
        return too_large(length, request.limit)
    async with budget.body(length or 0):
        body = await connection.receive(request.limit, stall)
    if connection.received > request.limit:
        return too_large(None, request.limit)
    if length is not None and len(body) != length:
        return _short(f"{len(body)} bytes arrived of {length}")
    return Answer(head.status, head.headers, body, len(body) if request.part is None else size)


def _span(header: str, part: Part) -> tuple[int, int | None] | Failure:
    """The length and the whole object's size, from a Content-Range that fits the request."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        return Failure(
            ResponseError, "the answer is a part of the object and does not say which (Content-Range)"
        )
    first, last = int(match[1]), int(match[2])
    size = None if match[3] == "*" else int(match[3])
    if size is not None:
        bounds = part.bounds(size)
        if bounds is None:
            return Failure(
                ResponseError, f"the object ends at {size} bytes, before the part that was asked for"
            )
        fits = (first, last + 1) == bounds
    elif part.suffix is not None:
        fits = last - first + 1 == part.suffix
    else:
        fits = first == part.start and (part.stop is None or last + 1 == part.stop)
    if not fits:
        return _short(
            f"the answer is the range {first}-{last}, and {part.header.removeprefix('bytes=')} was asked for"
        )
    return last - first + 1, size


def _short(cause: str) -> Failure:
    return Failure(ResponseError, cause, attempts=None)


def _failure(error: Exception, host: str, timeouts: Timeouts) -> Failure:
    """What an exception on the way means."""
    cause = error.__cause__ if isinstance(error, ConnectError) else error
    match error, cause:
        case ProxyError(), _:
            detail = "" if cause is None else f" ({_os_error(cause)})"
            return Failure(
                TransportError,
                f"the proxy {error}{detail}",
                attempts=2,
                advice="Check http_proxy, https_proxy and no_proxy, and the user and password in them.",
                transient=error.transient,
            )
        case ConnectError(), socket.gaierror():
            return Failure(
                HostNotFoundError,
                f"the name {host} does not resolve",
                attempts=2,
                advice="Check the spelling, and this machine's connection.",
                transient=getattr(cause, "errno", None) == socket.EAI_AGAIN,
            )
        case ConnectError(), ssl.SSLError():
            return Failure(
                TransportError,
                f"the TLS connection to {host} cannot be trusted or made",
                advice="Check this machine's clock and certificates; SSL_CERT_FILE, or storage_options="
                "{'client_kwargs': {'verify': path}}, names those of an authority of your own.",
            )
        case ConnectError(), _:
            return Failure(TransportError, f"no connection to {host} ({_os_error(cause)})", attempts=3)
        case TimeoutError(), _:
            return Failure(TransportError, f"no connection within {timeouts.connect:g} s", attempts=None)
        case StalledError(), _:
            return Failure(TransportError, f"the connection stalled for {timeouts.stall:g} s", attempts=None)
        case CutShortError(), _:
            return Failure(TransportError, "the answer was cut short", attempts=None)
        case DisconnectedError(), _:
            return Failure(TransportError, "the connection was closed", attempts=None)
        case ExchangeError(), _:
            return Failure(TransportError, str(error), attempts=3)
        case OSError(), _:
            return Failure(TransportError, f"the connection was closed ({_os_error(error)})", attempts=None)
        case _:
            return Failure(
                TransportError,
                "its address, or a header given for it, is none that HTTP can send",
                advice="Characters other than ASCII, blanks and line breaks must be encoded.",
            )


def _os_error(error: BaseException | None) -> str:
    # OpenSSL has numbers of its own.
    number = None if isinstance(error, ssl.SSLError) else getattr(error, "errno", None)
    return errno.errorcode.get(number, type(error).__name__) if number else type(error).__name__
