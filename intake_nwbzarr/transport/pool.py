"""Connections: opened, directly or through a proxy, and kept for the next exchange with the same server."""

from __future__ import annotations

import asyncio
import os
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from aiohappyeyeballs import start_connection
from yarl import URL

from intake_nwbzarr.transport.connection import Connection, ExchangeError
from intake_nwbzarr.transport.hosts import addresses, proxy_of
from intake_nwbzarr.transport.loop import when_closing

KEPT = 30.0
"""Seconds that a connection is kept without use."""

_SECOND_ADDRESS_AFTER = 0.25  # RFC 8305


class ConnectError(Exception):
    """No connection was made; the cause is the `OSError` it was raised from."""


class ProxyError(ConnectError):
    """The proxy could not be reached, or refuses."""


class Server(NamedTuple):
    """Whom a connection leads to, and how; connections to equal ones may be shared."""

    scheme: str
    host: str
    port: int
    proxy: str | None = None
    certificates: tuple[str | None, str | None] = (None, None)
    """Of ``https``: where OpenSSL is told to find those that are trusted."""

    def __repr__(self) -> str:
        # A proxy's URL may hold a password.
        return f"Server({self.scheme}://{self.host}:{self.port})"


def server_of(url: URL) -> Server:
    """Whom a URL leads to, by the proxies and certificates that the environment names now."""
    scheme, host, port = url.scheme, url.raw_host, url.port
    if scheme not in {"http", "https"} or not host or port is None:
        raise ValueError("no web address")
    trusted = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    certificates = trusted if scheme == "https" else (None, None)
    return Server(scheme, host, port, proxy_of(f"{scheme}://{url.raw_authority}"), certificates)


class Pool:
    """Connections that wait for their next exchange; used on the package's event loop only."""

    def __init__(self) -> None:
        self._idle: dict[Server, deque[tuple[float, Connection]]] = {}
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
        kept = None if fresh else self._take(server)
        if kept is None:
            async with asyncio.timeout(within):
                kept = await _open(server)
        try:
            yield kept
        finally:
            self._put(server, kept)

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


async def _open(server: Server) -> Connection:
    if server.proxy is None:
        return await _connect(server.scheme, server.host, server.port, server.certificates)
    proxy = URL(server.proxy if "://" in server.proxy else f"http://{server.proxy}")
    if proxy.host is None or proxy.port is None or proxy.scheme not in {"http", "https"}:
        raise ProxyError from ValueError("no proxy of HTTP")
    trusted = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    try:
        connection = await _connect(proxy.scheme, proxy.host, proxy.port, trusted)
    except ConnectError as error:
        raise ProxyError from error.__cause__
    if server.scheme == "https":
        await _tunnel(connection, server)
    return connection


async def _tunnel(connection: Connection, server: Server) -> None:
    """Have the proxy connect to the server, and speak TLS with it from then on."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    lines = [f"CONNECT {host}:{server.port} HTTP/1.1", f"Host: {host}:{server.port}"]
    lines += [f"{name}: {value}" for name, value in proxy_headers(server).items()]
    try:
        head = await connection.ask("\r\n".join([*lines, "", ""]).encode("latin-1"), stall=3600)
    except ExchangeError as error:
        raise ProxyError from error
    if head.status != 200 or connection.transport is None:
        connection.close()
        raise ProxyError from ConnectionError(f"the proxy answered {head.status}")
    connection.become_tunnel()
    loop = asyncio.get_running_loop()
    try:
        inner = await loop.start_tls(
            connection.transport, connection, _tls(*server.certificates), server_hostname=server.host
        )
    except OSError as error:
        raise ConnectError from error
    if inner is None:
        raise ConnectError from ConnectionResetError()
    connection.transport = inner


def proxy_headers(server: Server) -> dict[str, str]:
    """What a proxy that wants a password is sent."""
    user = URL(server.proxy) if server.proxy is not None and "://" in server.proxy else None
    if user is None or user.raw_user is None:
        return {}
    pair = f"{unquote(user.raw_user)}:{unquote(user.raw_password or '')}"
    return {"Proxy-Authorization": "Basic " + b64encode(pair.encode()).decode()}


async def _connect(
    scheme: str, host: str, port: int, certificates: tuple[str | None, str | None]
) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        found = await addresses(host, port)
        link = await start_connection(found, happy_eyeballs_delay=_SECOND_ADDRESS_AFTER, interleave=1)
        secure = scheme == "https"
        _, connection = await loop.create_connection(
            Connection,
            sock=link,
            ssl=_tls(*certificates) if secure else None,
            server_hostname=host if secure else None,
        )
    except OSError as error:
        raise ConnectError from error
    return connection


@lru_cache(maxsize=8)
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:  # noqa: ARG001 (the variables that OpenSSL reads)
    return ssl.create_default_context()
