"""Hosts: their addresses, how public they are, and the proxies on the way to them."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from time import monotonic
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from yarl import URL

type Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""As `socket.getaddrinfo` gives it."""

_REMEMBERED = 60.0
# Mapped, compatible, and NAT64: an IPv4 address in the last 32 bits.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96")))

# Elsewhere than on Linux the system's settings name proxies as well.
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")

_lookups: dict[str, tuple[float, asyncio.Task[list[Address]]]] = {}


async def addresses(host: str, port: int) -> list[Address]:
    """The addresses of a host, remembered for a minute: what was checked is what is connected to.

    To be awaited on the package's event loop.

    Raises
    ------
    OSError
        When the name does not resolve.
    """
    since, lookup = _lookups.get(host, (0.0, None))
    if lookup is None or monotonic() - since > _REMEMBERED or (lookup.done() and _failed(lookup)):
        lookup = asyncio.ensure_future(_look_up(host))
        _lookups[host] = monotonic(), lookup
    # Others wait for the same answer, whoever gives up.
    found = await asyncio.shield(lookup)
    return [(*entry[:4], (entry[4][0], port, *entry[4][2:])) for entry in found]


async def _look_up(host: str) -> list[Address]:
    loop = asyncio.get_running_loop()
    try:
        return await loop.getaddrinfo(host, 0, type=socket.SOCK_STREAM)  # type: ignore[return-value]
    except UnicodeError:
        # No name has such parts: empty or too long ones.
        raise socket.gaierror(socket.EAI_NONAME, "no host's name") from None


def _failed(lookup: asyncio.Task[list[Address]]) -> bool:
    return lookup.cancelled() or lookup.exception() is not None


def ascii_name(host: str) -> str:
    """A host's name as it is asked for, by the rules of IDNA 2008.

    Raises
    ------
    ValueError
        When these allow no such name.
    """
    return host if host.isascii() else URL.build(scheme="http", host=host).raw_host or ""


async def reach(host: str) -> int | None:
    """How public a host is: 2 public, 1 private or this machine, 0 link-local; None when it does not resolve.

    The least public of its addresses counts.
    """
    try:
        found = [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        try:
            entries = await addresses(ascii_name(host), 0)
        except (OSError, ValueError):
            return None
        found = [ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in entries]
    return min((_reach(address) for address in found), default=None)


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


def proxy_of(url: str) -> str | None:
    """The proxy that the environment wants requests to a URL to take; names resolve there, not here."""
    if sys.platform == "linux" and not any(name in os.environ for name in _PROXIES):
        return None
    parts = urlsplit(url)
    # `no_proxy` may name a port as well.
    if parts.hostname is None or any(map(proxy_bypass, (parts.hostname, parts.netloc.rpartition("@")[2]))):
        return None
    proxy = getproxies().get(parts.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
