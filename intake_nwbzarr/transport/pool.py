"""Connections: opened, directly or through a proxy, and kept for the next exchange with the same server."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from aiohappyeyeballs import start_connection
from yarl import URL

from intake_nwbzarr.errors import LocationError
from intake_nwbzarr.transport.connection import Connection, ExchangeError
from intake_nwbzarr.transport.hosts import Address, addresses, ascii_name, proxy_of
from intake_nwbzarr.transport.loop import when_closing
from intake_nwbzarr.transport.ramp import REFUSALS, Ramp

KEPT = 30.0
"""Seconds that a connection is kept without use."""

_SECOND_ADDRESS_AFTER = 0.25  # RFC 8305
_PORTS = {"http": 80, "https": 443}


class ConnectError(Exception):
    """No connection was made; the cause is the `OSError` it was raised from."""


class ProxyError(ConnectError):
    """The proxy could not be reached, or refuses: the message says what it does.

    Parameters
    ----------
    message
        What it does.
    transient
        Whether it may do something else later.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class Server(NamedTuple):
    """Whom a connection leads to, and how; connections to equal ones may be shared."""

    scheme: str
    host: str
    port: int
    proxy: str | None = None
    certificates: tuple[bool | str, str | None, str | None] = (True, None, None)
    """Of ``https``: whether, or by what path, they are checked; and where OpenSSL finds those it trusts."""

    @property
    def name(self) -> str:
        """The host as it stands in URLs."""
        return f"[{self.host}]" if ":" in self.host else self.host.rstrip(".")

    @property
    def authority(self) -> str:
        """The host, with its port unless that is the usual one."""
        return self.name if self.port == _PORTS[self.scheme] else f"{self.name}:{self.port}"

    def __repr__(self) -> str:
        # A proxy's URL may hold a password.
        return f"Server({self.scheme}://{self.host}:{self.port})"


def server_of(url: URL, verify: bool | str = True) -> Server:
    """Whom a URL leads to, by the proxies and certificates that the environment names now.

    Parameters
    ----------
    verify
        Whether the server's certificate is checked, or the path of those that are trusted.

    Raises
    ------
    ValueError
        When that is no host on the web.
    """
    server = directly(url)
    if server.scheme == "https" and verify is not True:
        server = server._replace(certificates=(verify, None, None))
    proxy = proxy_of(f"{server.scheme}://{server.name}:{server.port}")
    return server if proxy is None else server._replace(proxy=proxy)


def directly(url: URL) -> Server:
    """Whom a URL leads to without a proxy.

    Raises
    ------
    ValueError
        When that is no host on the web.
    """
    host, port = ascii_name(url.raw_host or ""), url.port
    if url.scheme not in _PORTS or not host or not port:
        raise ValueError("no web address")
    if url.scheme == "http":
        return Server(url.scheme, host, port)
    trusted = (True, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    return Server(url.scheme, host, port, certificates=trusted)


class Pool:
    """Connections that wait for their next exchange; used on the package's event loop only."""

    def __init__(self) -> None:
        self._idle: dict[Server, deque[tuple[float, Connection]]] = {}
        self._ramps: dict[Server, Ramp] = {}
        self._sweep: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def connection(self, server: Server, within: float, *, fresh: bool) -> AsyncIterator[Connection]:
        """A connection for one exchange: one that is kept, unless a `fresh` one is wanted.

        Raises
        ------
        TimeoutError
            When it is not made `within` so many seconds.
        ConnectError
            When it cannot be made.
        """
        ramp = self._ramps.setdefault(server, Ramp())
        kept = None if fresh else self._take(server)
        while kept is None and not ramp.enter():
            await ramp.turn()
            kept = None if fresh else self._take(server)
        counts = kept is None
        try:
            if kept is None:
                async with asyncio.timeout(within):
                    kept = await _open(server, ramp)
                if not ramp.is_careful:
                    counts = False
                    ramp.leave()
            yield kept
            ramp.used()
        finally:
            if kept is not None:
                self._put(server, kept)
            ramp.leave() if counts else ramp.wake()

    async def close(self) -> None:
        """Close them all."""
        for waiting in self._idle.values():
            for _, connection in waiting:
                connection.close()
        self._idle.clear()

    def _take(self, server: Server) -> Connection | None:
        waiting = self._idle.get(server)
        while waiting:
            _, connection = waiting.pop()
            if connection.is_reusable:
                connection.is_reused = True
                return connection
            connection.close()
        return None

    def _put(self, server: Server, connection: Connection) -> None:
        if not connection.is_reusable:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        self._idle.setdefault(server, deque()).append((loop.time(), connection))
        if self._sweep is None:
            self._sweep = loop.call_later(KEPT, self._close_old)

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        for server, waiting in list(self._idle.items()):
            while waiting and loop.time() - waiting[0][0] >= KEPT:
                waiting.popleft()[1].close()
            if not waiting:
                del self._idle[server]
        self._sweep = loop.call_later(KEPT / 2, self._close_old) if self._idle else None


_pool: Pool | None = None


def pool() -> Pool:
    """The one pool of this process."""
    global _pool
    if _pool is None:
        _pool = Pool()
        when_closing(_pool.close)
    return _pool


async def _open(server: Server, ramp: Ramp) -> Connection:
    if server.proxy is None:
        connection = await _connect(server.host, server.port, ramp)
    else:
        connection = await _through(server.proxy, server, ramp)
    if server.scheme == "https":
        try:
            await connection.start_tls(_tls(*server.certificates), server.host)
        except (OSError, ValueError) as error:
            raise ConnectError from error
    return connection


async def _connect(host: str, port: int, ramp: Ramp) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        found = await addresses(host, port)
        link = await _link(found, ramp)
        _, connection = await loop.create_connection(Connection, sock=link)
    except OSError as error:
        raise ConnectError from error
    return connection


async def _link(found: Sequence[Address], ramp: Ramp) -> socket.socket:
    """A socket that is connected to one of the addresses; what a full backlog loses is begun anew."""
    loop = asyncio.get_running_loop()
    losses = 0
    while True:
        began = loop.time()
        try:
            async with asyncio.timeout(ramp.patience(losses)):
                link = await start_connection(found, happy_eyeballs_delay=_SECOND_ADDRESS_AFTER, interleave=1)
            ramp.connected(began)
            return link
        except TimeoutError:
            ramp.lost(began)
        except ConnectionRefusedError:
            if not ramp.has_connected or losses >= REFUSALS:
                raise
            ramp.lost(began)
            await asyncio.sleep(0.05 * 2**losses)
        losses += 1


async def _through(proxy: str, server: Server, ramp: Ramp) -> Connection:
    """A connection to a proxy, and for ``https`` on to the server."""
    address = directly(_address(proxy))
    try:
        connection = await _open(address, ramp)
    except ConnectError as error:
        raise ProxyError("cannot be reached", transient=True) from error.__cause__
    if server.scheme == "http":
        return connection
    there = f"{server.name}:{server.port}"
    lines = [f"CONNECT {there} HTTP/1.1", f"Host: {there}"]
    lines += [f"{name}: {value}" for name, value in proxy_headers(proxy).items()]
    try:
        head = await connection.ask("\r\n".join([*lines, "", ""]).encode("latin-1"), stall=3600)
    except ExchangeError:
        raise ProxyError("gave no answer", transient=True) from None
    if head.status != 200:
        connection.close()
        raise ProxyError(f"answered {head.status}", transient=head.status >= 500)
    return connection


def proxy_headers(proxy: str) -> dict[str, str]:
    """What a proxy that wants a password is sent.

    Raises
    ------
    ProxyError
        When it has no address.
    """
    url = _address(proxy)
    if url.user is None:
        return {}
    pair = f"{url.user}:{url.password or ''}"
    return {"Proxy-Authorization": "Basic " + b64encode(pair.encode()).decode()}


def _address(proxy: str) -> URL:
    try:
        url = URL(proxy)
        directly(url)
    except ValueError:
        # Its message may hold the password.
        raise ProxyError("has an address that is not http://host:port", transient=False) from None
    return url


@lru_cache(maxsize=8)
def _tls(verify: bool | str, file: str | None, folder: str | None) -> ssl.SSLContext:  # noqa: ARG001 (the variables that OpenSSL reads)
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


def check_certificates(verify: bool | str, location: object) -> None:
    """Refuse a path that holds no certificates.

    Raises
    ------
    LocationError
        Which names the location.
    """
    problem = ""
    try:
        _tls(verify, None, None)
    except (OSError, ValueError) as error:
        problem = type(error).__name__
    if problem:
        raise LocationError(
            f"The certificates that verify (or AWS_CA_BUNDLE) names for {location} cannot be read "
            f"({problem}): give the path of a file of certificates in PEM form."
        )
