"""Connections to servers: names and addresses, proxies, certificates, and concurrency."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import sys
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from intake_nwbzarr.errors import LocationError
from intake_nwbzarr.transport.request_log import record

KEPT: Final = 30.0
"""Seconds that a connection is kept without use."""

FIRST: Final = 8
"""Connections to one server that are opened at once before any has succeeded."""

FEWEST: Final = 2
"""Connections that are opened at once however many were lost."""

PATIENCE: Final = 0.2
"""Seconds without a handshake after which a connection counts as lost and is opened again, at least."""

REPEATED_BY_TCP: Final = 0.9
"""Seconds after which TCP itself repeats a handshake."""

REFUSALS: Final = 3
"""Refusals of one connection that are retried, where the server has accepted others."""

RECOVERED: Final = 30.0
"""Seconds without a loss after which connections double again."""

_ADDRESSES_REMEMBERED: Final = 60.0
_SECOND_ADDRESS_AFTER: Final = 0.25  # RFC 8305
_PORTS: Final = {"http": 80, "https": 443}
# Elsewhere than on Linux the system's settings name proxies as well.
_PROXIES: Final = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


class NotRepeatedError(Exception):
    """An error after which aiohttp would repeat the request, without counting it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Sending:
    """One attempt to send a request: an aiohttp middleware that prevents aiohttp's own repeats."""

    def __init__(self, connector: Connector, counted: tuple[str, str]) -> None:
        self.is_reused = False  # whether a kept connection was taken
        self.is_sent = False
        self.ramp: Ramp | None = None
        self.is_held = False  # whether its connection counts in the ramp
        self._connector = connector
        self._counted = counted

    async def __call__(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request once; aiohttp repeats GET and PUT alike, also after errors of new connections."""
        self._connector.sendings[request] = self
        try:
            response = await send(request)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise NotRepeatedError(error) from None
        finally:
            del self._connector.sendings[request]
        if self.ramp is not None:
            self.ramp.used()
        return response

    def connected(self) -> None:
        """Count the request, which is about to be sent."""
        self.is_sent = True
        record(*self._counted, requests=1)

    def leave(self) -> None:
        """Stop counting the connection in the ramp."""
        if self.is_held and self.ramp is not None:
            self.is_held = False
            self.ramp.leave()

    def end(self) -> None:
        """Let the next request that waits take a kept connection or open one."""
        if self.is_held:
            self.leave()
        elif self.ramp is not None:
            self.ramp.wake()


class _NoTurnError(Exception):
    """As many connections to the server are being opened as its ramp allows."""


class Connector(aiohttp.TCPConnector):
    """Opens connections as the ramp of their server allows, and reuses those without surplus bytes."""

    def __init__(self) -> None:
        super().__init__(
            limit=0,  # the budget bounds requests
            resolver=_Resolver(),
            use_dns_cache=False,
            keepalive_timeout=KEPT,
            happy_eyeballs_delay=_SECOND_ADDRESS_AFTER,
            interleave=1,
        )
        self.sendings: dict[aiohttp.ClientRequest, Sending] = {}
        self._ramps: dict[Any, Ramp] = {}
        self._process = os.getpid()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (aiohttp's)
    ) -> Connection:
        """Return a kept connection, or a new one once the ramp allows it."""
        sending = self.sendings[req]
        ramp = self._ramps.get(req.connection_key)
        if ramp is None:
            ramp = self._ramps[req.connection_key] = Ramp()
        sending.ramp = ramp
        while True:
            sending.is_reused = True
            try:
                connection = await super().connect(req, traces, timeout)
            except _NoTurnError:
                await ramp.turn()
                continue
            # aiohttp 3.14 reuses connections on which surplus bytes have arrived, and would take those for
            # the next answer.
            if connection.protocol is not None and not connection.protocol.should_close:
                sending.connected()
                return connection
            connection.close()

    # aiohttp documents this method for subclasses to override, but not all of its arguments.
    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109, ARG002 (aiohttp's, which holds it to the whole)
    ) -> ResponseHandler:
        """Open a connection; one that a full backlog loses is opened again."""
        sending = self.sendings[req]
        ramp = sending.ramp
        if ramp is None or not ramp.enter():
            raise _NoTurnError
        sending.is_held, sending.is_reused = True, False
        protocol = await self._connect_by_ramp(req, traces, ramp)
        if not ramp.is_careful:
            sending.leave()
        return protocol

    async def _connect_by_ramp(
        self, req: aiohttp.ClientRequest, traces: list[Trace], ramp: Ramp
    ) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        losses = 0
        while True:
            began = loop.time()
            # The time of a TLS handshake, which is part of it, says nothing of a backlog.
            patience = None if req.is_ssl() else ramp.patience(losses)
            try:
                protocol = await super()._create_connection(
                    req, traces, aiohttp.ClientTimeout(sock_connect=patience, ceil_threshold=inf)
                )
            except TimeoutError:
                ramp.lost(began)
            except aiohttp.ClientConnectorError as error:
                is_refused = error.os_error.errno == errno.ECONNREFUSED
                if not is_refused or not ramp.has_connected or losses >= REFUSALS:
                    raise
                ramp.lost(began)
                await asyncio.sleep(0.05 * 2**losses)
            else:
                ramp.connected(began)
                return protocol
            losses += 1

    @property
    def closed(self) -> bool:
        """Return whether it is closed, as it is in a forked child: connections are the parent's."""
        return super().closed or self._process != os.getpid()

    # Modules are gone when the interpreter ends: what it needs is an argument.
    def __del__(self, *arguments: Any, getpid: Callable[[], int] = os.getpid) -> None:
        if self._process == getpid():
            super().__del__(*arguments)


class Ramp:
    """Limits how many connections to one server are opened at once, for servers with a small backlog.

    A server that is slow to accept connections drops those beyond its backlog, and TCP repeats a lost
    handshake only after a second. So few connections are opened at first, and their number doubles as they
    succeed. After a loss it is halved, and each connection counts until the server has responded on it, which
    shows that it was accepted.
    """

    def __init__(self) -> None:
        self.has_connected = False
        self._window = float(FIRST)
        self._threshold = inf  # up to where the window doubles
        self._reduced = -inf
        self._round_trip = inf
        self._held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def enter(self) -> bool:
        """Return whether one more connection may be opened now; `leave` must follow."""
        if self._held >= int(self._window):
            return False
        self._held += 1
        return True

    async def turn(self) -> None:
        """Wait until a connection may be free, or another one may be opened."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.wake()
            raise

    def leave(self) -> None:
        """Stop counting a connection."""
        self._held -= 1
        self.wake()

    def wake(self) -> None:
        """Wake the first that waits."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    def connected(self, since: float) -> None:
        """Record a connection that was opened."""
        now = asyncio.get_running_loop().time()
        self.has_connected = True
        self._round_trip = now - since
        if self.is_careful and now - self._reduced > RECOVERED:
            self._threshold = inf
        if not self.is_careful:
            self._grow()

    def used(self) -> None:
        """Record a response, which shows that the server has accepted the connection."""
        if self.is_careful:
            self._grow()

    def lost(self, since: float) -> None:
        """Record a connection that was lost or refused; those that began together count as one."""
        if since > self._reduced:
            self._reduced = asyncio.get_running_loop().time()
            self._window = self._threshold = max(min(self._window, self._held) / 2, FEWEST)

    @property
    def is_careful(self) -> bool:
        """Return whether a connection counts until the server has responded on it."""
        return self._threshold < inf

    def patience(self, losses: int) -> float | None:
        """Return the seconds to wait for a connection after so many losses; None leaves that to TCP."""
        seconds: float = max(PATIENCE, 8 * self._round_trip) * 2**losses
        return seconds if seconds < REPEATED_BY_TCP else None

    def _grow(self) -> None:
        self._window += 1 if self._window < self._threshold else 0.25 / self._window
        self.wake()


# Addresses.

type Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""An address as `socket.getaddrinfo` returns it."""

_lookups: dict[str, tuple[float, asyncio.Task[list[Address]]]] = {}


class _Resolver(AbstractResolver):
    """Resolves names for aiohttp by `addresses`: what was checked is what is connected to."""

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 (all are tried)
    ) -> list[ResolveResult]:
        """Return the addresses of a host."""
        return [
            ResolveResult(
                hostname=host,
                host=entry[4][0],
                port=port,
                family=entry[0],
                proto=entry[2],
                flags=socket.AI_NUMERICHOST,
            )
            for entry in await addresses(host)
        ]

    async def close(self) -> None:
        """Release nothing."""


async def addresses(host: str) -> list[Address]:
    """Return the addresses of a host, remembered for a minute; on the package's event loop."""
    since, lookup = _lookups.get(host, (0.0, None))
    is_old = monotonic() - since > _ADDRESSES_REMEMBERED
    if lookup is None or is_old or (lookup.done() and _failed(lookup)):
        lookup = asyncio.ensure_future(_look_up(host))
        _lookups[host] = monotonic(), lookup
    # Concurrent callers share one look-up, even if one is cancelled.
    return await asyncio.shield(lookup)


async def _look_up(host: str) -> list[Address]:
    loop = asyncio.get_running_loop()
    try:
        return await loop.getaddrinfo(host, 0, type=socket.SOCK_STREAM)  # type: ignore[return-value]
    except UnicodeError:
        # No name has such parts: empty or too long ones.
        raise socket.gaierror(socket.EAI_NONAME, "no host's name") from None


def _failed(lookup: asyncio.Task[list[Address]]) -> bool:
    return lookup.cancelled() or lookup.exception() is not None


# Names, proxies and certificates.


class ProxyAddressError(Exception):
    """A proxy variable of the environment is not an address."""


def authority_of(url: URL) -> str:
    """Return the Host header of a URL: its host, and its port unless that is the default one."""
    host, port = ascii_name(url.raw_host or "").rstrip("."), url.port
    if url.scheme not in _PORTS or not host or not port:
        raise ValueError("no web address")
    name = f"[{host}]" if ":" in host else host
    return name if port == _PORTS[url.scheme] else f"{name}:{port}"


def ascii_name(host: str) -> str:
    """Return a host name in ASCII, by IDNA 2008."""
    return host if host.isascii() else URL.build(scheme="http", host=host).raw_host or ""


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for a URL; names resolve there, not here."""
    if sys.platform == "linux" and not any(name in os.environ for name in _PROXIES):
        return None
    parts = urlsplit(url)
    # `no_proxy` may name a port as well.
    if parts.hostname is None or any(map(proxy_bypass, (parts.hostname, parts.netloc.rpartition("@")[2]))):
        return None
    proxy = getproxies().get(parts.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def proxy_for(url: str) -> tuple[URL | None, dict[str, str]]:
    """Return the proxy for a URL, without its password, and the header that holds that."""
    named = proxy_of(url)
    if named is None:
        return None, {}
    try:
        proxy = URL(named)
        authority_of(proxy)
    except ValueError:
        # Its message may hold the password.
        raise ProxyAddressError from None
    if proxy.user is None:
        return proxy, {}
    pair = f"{proxy.user}:{proxy.password or ''}"
    basic = "Basic " + b64encode(pair.encode()).decode()
    return proxy.with_user(None), {"Proxy-Authorization": basic}


def check_certificates(verify: bool | str, location: object) -> None:
    """Check that the option `verify` names certificates."""
    problem = ""
    try:
        tls_context(verify)
    except (OSError, ValueError) as error:
        problem = type(error).__name__
    if problem:
        raise LocationError(
            f"The certificates for {location}, from verify or AWS_CA_BUNDLE, cannot be read ({problem}).",
            location=location,
            found=problem,
            next_step="Pass the path of a file of certificates in PEM format.",
        )


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """Return the TLS context for an option `verify`, the same each time: connections are kept by it."""
    if verify is not True:
        return _context(verify, None, None)
    return _context(True, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=8)
def _context(verify: bool | str, file: str | None, folder: str | None) -> ssl.SSLContext:  # noqa: ARG001 (the variables that OpenSSL reads)
    if isinstance(verify, str):
        is_folder = Path(verify).is_dir()
        return ssl.create_default_context(
            cafile=None if is_folder else verify, capath=verify if is_folder else None
        )
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
