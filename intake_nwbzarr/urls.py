"""URLs as text: schemes and chains, and which of their parts may be shown."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from intake_nwbzarr.errors import LocationError

# The whole of a bucket's name; what is none is not echoed, it may be half of a password.
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
CHAINED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://[^:\[]*)?::")
_USERINFO = re.compile(r"://[^/]*@")
# Up to the next link of a chain.
_QUERY = re.compile(r"[?#](?:(?!::[A-Za-z][A-Za-z0-9+.-]*(?:://|::)).)*", re.DOTALL)
# A host with a colon that no port follows: most likely a password with a slash in it.
ODD_HOST = re.compile(r"://[^/:\[]*:(?!\d+(?:/|::|$)|:|/)")
PATH_SAFE = "/%:@!$&'()*+,;=~-._"


def redact(url: str) -> str:
    """A URL without userinfo, query and fragment, in every link of a chain."""
    return _QUERY.sub("", _USERINFO.sub("://", url))


def canonical_http(url: str) -> tuple[str, dict[str, Any]]:
    """An http(s) URL as (canonical and without secrets, its secrets: ``userinfo`` and ``query``)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not host.isprintable() or "\\" in url:
        # Not echoed: what is no host may be half of a password.
        raise LocationError(
            "The location is not a URL: http:// or https:// needs a host, and a port is a number."
        )
    authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    path = quote(parts.path, safe=PATH_SAFE).rstrip("/")
    hidden: dict[str, Any] = {}
    if parts.username is not None or parts.password is not None:
        hidden["userinfo"] = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    if parts.query:
        hidden["query"] = parts.query
    scheme = parts.scheme.lower()
    return f"{scheme}://{authority}{path}", hidden


def split_url(url: str) -> tuple[str, list[str]]:
    """A URL as (scheme and authority, parts of its path)."""
    start, separator, rest = url.rpartition("://")
    authority, _, path = rest.partition("/")
    return f"{start}{separator}{authority}", [part for part in path.split("/") if part]


def normalise(parts: list[str]) -> list[str] | None:
    """Parts of a path without ``.`` and ``..``; None where it leads above its root."""
    result: list[str] = []
    for part in parts:
        if part == "..":
            if not result:
                return None
            result.pop()
        elif part not in {"", "."}:
            result.append(part)
    return result
