"""One exchange over HTTP: a request, and an answer that has been checked against it."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from time import monotonic
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDictProxy
from yarl import URL

from intake_nwbzarr.errors import HostNotFoundError, ResponseError, TransportError
from intake_nwbzarr.storage_options import Timeouts
from intake_nwbzarr.transport.budget import budget
from intake_nwbzarr.transport.contract import Failure, Part, too_large
from intake_nwbzarr.transport.log import record
from intake_nwbzarr.transport.loop import when_closing

# An error document is read this far, for the code in it.
LARGEST_ERROR = 64 * 2**10
_HOST_REMEMBERED = 60.0
# Mapped, compatible, and NAT64: an IPv4 address in the last 32 bits.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96")))
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Answer:
    """What a server answered: the status hoped for and the whole body, or another and its beginning."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    size: int | None = None


@dataclass(frozen=True)
class Request:
    """What is asked of a server.

    Parameters
    ----------
    counted
        The location's URL and method, for the counts.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    counted: tuple[str, str]
    part: Part | None = None
    limit: int = LARGEST_ERROR
    body: bytes | None = None


async def exchange(request: Request, timeouts: Timeouts) -> Answer | Failure:
    """Send one request, follow nothing, and check the answer."""
    sent = _Sent(request.counted)
    timeout = aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_read=timeouts.stall)
    try:
        async with _session().request(
            request.method,
            URL(request.url, encoded=True),
            headers={"Accept-Encoding": "identity", "User-Agent": "intake-nwbzarr", **request.headers},
            data=request.body,
            allow_redirects=False,
            timeout=timeout,
            proxy=proxy_of(request.url),
            ssl=_tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
            if request.url.startswith("https:")
            else True,
            trace_request_ctx=sent,
        ) as response:
            return await _checked(response, request)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Their messages and their attributes hold the whole URL and the headers: they go no further.
        failure = _failure(error, timeouts)
    return failure


async def _checked(response: aiohttp.ClientResponse, request: Request) -> Answer | Failure:
    expected = 206 if request.part is not None else 200
    if response.status != expected:
        if response.status == 200 and request.method == "GET":
            response.close()
            return Failure(
                ResponseError,
                "the server ignored the Range header and answered with the whole object",
                advice="This server cannot give parts of objects; copy the file, or use another server.",
            )
        if response.status == 206:
            response.close()
            return Failure(
                ResponseError, "the server answered with a part of the object, and none was asked for"
            )
        beginning = await _receive(response, request, LARGEST_ERROR, cut=True)
        return (
            beginning
            if isinstance(beginning, Failure)
            else Answer(response.status, response.headers, beginning)
        )
    announced = response.content_length
    if (
        request.method == "GET"
        and announced is None
        and response.headers.get("Transfer-Encoding", "").lower() != "chunked"
    ):
        response.close()
        return Failure(
            ResponseError, "the server does not say how long its answer is, so its end cannot be told"
        )
    length, size = announced, announced
    if request.part is not None:
        span = _span(response.headers.get("Content-Range", ""), request.part)
        if isinstance(span, Failure):
            response.close()
            return span
        length, size = span
        if announced not in {None, length}:
            response.close()
            return _short(f"the answer is announced with {announced} bytes and {length} are its range")
    if length is not None and length > request.limit:
        response.close()
        return too_large(length, request.limit)
    async with budget.body(length or 0):
        body = await _receive(response, request, request.limit)
    if isinstance(body, Failure):
        return body
    if length is not None and len(body) != length:
        return _short(f"{len(body)} bytes arrived of {length}")
    return Answer(response.status, response.headers, body, len(body) if request.part is None else size)


async def _receive(
    response: aiohttp.ClientResponse, request: Request, limit: int, *, cut: bool = False
) -> bytes | Failure:
    blocks: list[bytes] = []
    received = 0
    try:
        async for block in response.content.iter_any():
            blocks.append(block)
            received += len(block)
            if received > limit:
                response.close()
                if cut:
                    break
                return too_large(None, limit)
    finally:
        record(*request.counted, received=received)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


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


def _failure(error: Exception, timeouts: Timeouts) -> Failure:
    """What an exception of aiohttp or of the operating system means."""
    host = getattr(error, "host", None) or "the host"
    cause = _os_error(error)
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Failure(
                HostNotFoundError,
                f"the name {host} does not resolve",
                attempts=2,
                advice="Check the spelling, and this machine's connection.",
            )
        case aiohttp.ConnectionTimeoutError():
            return Failure(TransportError, f"no connection within {timeouts.connect:g} s", attempts=None)
        case aiohttp.SocketTimeoutError() | TimeoutError():
            return Failure(TransportError, f"the connection stalled for {timeouts.stall:g} s", attempts=None)
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Failure(
                TransportError,
                f"the TLS connection to {host} cannot be trusted or made",
                advice="Check the clock and the certificates of this machine (SSL_CERT_FILE).",
            )
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return Failure(TransportError, "the proxy cannot be reached or refuses", attempts=2)
        case aiohttp.ClientConnectorError():
            return Failure(TransportError, f"no connection to {host} ({cause})", attempts=3)
        case aiohttp.ClientPayloadError():
            return Failure(TransportError, "the answer was cut short", attempts=None)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return Failure(TransportError, f"the connection was closed ({cause})", attempts=None)
        case _:
            return Failure(TransportError, f"the exchange failed ({type(error).__name__})")


def _os_error(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return errno.errorcode.get(number, type(error).__name__) if number else type(error).__name__


class _Sent:
    """Counts a request each time its headers leave, so aiohttp's own repetitions as well."""

    __slots__ = ("_counted", "_times")

    def __init__(self, counted: tuple[str, str]) -> None:
        self._counted = counted
        self._times = 0

    def note(self) -> None:
        self._times += 1
        record(*self._counted, requests=1, retries=int(self._times > 1))


class Resolver(AbstractResolver):
    """Names to addresses, remembered for a minute: what was checked is what is connected to."""

    def __init__(self) -> None:
        self._remembered: dict[str, tuple[float, list[ResolveResult]]] = {}
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host."""
        since, found = self._remembered.get(host, (0.0, []))
        if not found or monotonic() - since > _HOST_REMEMBERED:
            found = await self._inner.resolve(host, 0, socket.AF_UNSPEC)
            self._remembered[host] = (monotonic(), found)
        return [
            ResolveResult({**entry, "port": port})
            for entry in found
            if family in {socket.AF_UNSPEC, entry["family"]}
        ]

    async def close(self) -> None:
        """Nothing is held open."""


_open_session: aiohttp.ClientSession | None = None
_resolver: Resolver | None = None


def _session() -> aiohttp.ClientSession:
    """The one session of this process, made on the package's event loop."""
    global _open_session, _resolver
    if _open_session is None:
        _resolver = Resolver()
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_note)
        _open_session = aiohttp.ClientSession(
            # The budget limits requests, so the pool need not; names are remembered by the resolver.
            connector=aiohttp.TCPConnector(
                limit=0, use_dns_cache=False, resolver=_resolver, keepalive_timeout=30
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=2**20,
            trace_configs=[trace],
        )
        when_closing(_open_session.close)
    return _open_session


async def _note(session: object, context: object, parameters: object) -> None:  # noqa: ARG001
    sent = getattr(context, "trace_request_ctx", None)
    if isinstance(sent, _Sent):
        sent.note()


@lru_cache(maxsize=8)
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:  # noqa: ARG001 (the variables that OpenSSL reads)
    # aiohttp's own is made when it is imported, and so knows only the certificates of that time.
    return ssl.create_default_context()


def proxy_of(url: str) -> str | None:
    """The proxy that the environment wants requests to a URL to take; names resolve there, not here."""
    # Not aiohttp's trust_env, which would also send passwords from ~/.netrc.
    if sys.platform == "linux" and not _names_a_proxy(frozenset(os.environ)):
        return None
    parts = urlsplit(url)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


@lru_cache(maxsize=1)
def _names_a_proxy(variables: frozenset[str]) -> bool:
    return any(name.lower().endswith("_proxy") for name in variables)


async def reach(host: str) -> int | None:
    """How public a host is: 2 public, 1 private or this machine, 0 link-local; None when it does not resolve.

    The least public of its addresses counts.
    """
    try:
        addresses = [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        _session()
        assert _resolver is not None  # noqa: S101 (made with the session)
        try:
            found = await _resolver.resolve(host)
        except OSError:
            return None
        addresses = [ipaddress.ip_address(entry["host"].partition("%")[0]) for entry in found]
    return min((_reach(address) for address in addresses), default=None)


def _reach(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    if isinstance(address, ipaddress.IPv6Address):
        if (inner := _embedded(address)) is not None:
            return _reach(inner)
        if address.is_site_local:
            return 1
    if address.is_link_local:
        return 0
    return 2 if address.is_global else 1


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to an IPv6 address end up at."""
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _EMBEDDING):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
