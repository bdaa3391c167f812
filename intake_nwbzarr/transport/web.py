"""HTTP: objects of a web server, with checks of every response and rules for redirects."""

from __future__ import annotations

import ipaddress
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote, urljoin, urlsplit

from intake_nwbzarr.errors import (
    AccessError,
    HostNotFoundError,
    ListingError,
    ResponseError,
    TransportError,
)
from intake_nwbzarr.location.credentials import credentials_not_sent
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.location.options import Timeouts
from intake_nwbzarr.transport.answers import (
    Failure,
    Fetched,
    Folder,
    Identity,
    Listed,
    Part,
    Unchanged,
    failure_of_status,
)
from intake_nwbzarr.transport.base import Transport, is_document, same_etag, too_large
from intake_nwbzarr.transport.connect import addresses, ascii_name, check_certificates, proxy_of
from intake_nwbzarr.transport.engine import Answer, Head, Request, engine
from intake_nwbzarr.transport.listing import (
    Ask,
    Page,
    PageOutcome,
    list_level,
    list_pages,
    page_query,
    parse_page,
    public_bucket,
)
from intake_nwbzarr.untrusted_input import LARGEST_ERROR, LARGEST_PAGE, MOST_REDIRECTS

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# How servers answer where a URL was valid once.
_EXPIRED = frozenset({400, 401, 403, 404, 410})
# Seconds that a signature must still be valid for, and that a permanent redirect is kept.
_MARGIN = 30
_PERMANENT = 600
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
# Mapped, compatible, and NAT64: an IPv4 address in the last 32 bits.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96")))


class HttpTransport(Transport):
    """A folder on any HTTP server; it cannot be listed, unless it is a public S3 bucket."""

    conditional = True

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        given = location.secrets.reveal() if location.secrets is not None else {}
        if given is None:
            raise credentials_not_sent(location.url)
        self._headers: dict[str, str] = dict(given.get("headers", {}))
        if "userinfo" in given:
            self._headers["Authorization"] = "Basic " + b64encode(given["userinfo"].encode()).decode()
        self._query = f"?{given['query']}" if "query" in given else ""
        self._trust(location.public.get("verify", True))
        self._signed = bool(given)
        self._found_by_redirect = False
        self._redirects: dict[str, KeptRedirect] = {}

    def _trust(self, verify: bool | str) -> None:
        self._verify = verify
        if verify is not True:
            check_certificates(verify, self.location)

    async def identity(self) -> Identity:
        """Return the headers and the query that requests are sent with."""
        secret = repr((sorted(self._headers.items()), self._query))
        return Identity(secret=secret if self._signed else None)

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        answer = await self._get_object(key, part, limit, {})
        return answer if isinstance(answer, Failure) else await self._fetched(answer, key)

    async def _get_unless(
        self, key: str, part: Part | None, limit: int, etag: str
    ) -> Fetched | Unchanged | Failure | None:
        answer = await self._get_object(key, part, limit, {"If-None-Match": etag})
        if isinstance(answer, Failure):
            return answer
        return Unchanged() if answer.status == 304 else await self._fetched(answer, key)

    async def _find(self, key: str, etag: str | None) -> Fetched | Unchanged | Failure | None:
        # Without a body: the connection of a document that has changed is closed instead of receiving it.
        answer = await self._get_object(key, None, 0, {} if etag is None else {"If-None-Match": etag})
        if isinstance(answer, Failure):
            return answer
        is_there = answer.status in {200, 304}
        self._found_by_redirect |= is_there and answer.redirected
        if answer.status == 304 or (is_there and same_etag(answer.headers.get("ETag"), etag)):
            return Unchanged()
        return await self._fetched(answer, key)

    async def _get_object(
        self, key: str, part: Part | None, limit: int, condition: Mapping[str, str]
    ) -> Answer | Failure:
        headers = {**self._headers, **condition} | ({"Range": part.header} if part is not None else {})
        path = f"/{quote(key, safe='/~')}" if key else ""
        url = f"{self.location.url}{path}{self._query}"
        counted = self.counted, "get"
        return await self._ask(Request("GET", url, headers, counted, part, limit, verify=self._verify))

    async def _list(self, prefix: str) -> list[Listed]:
        ask, root = self._listing(prefix)
        return await list_pages(ask, root, prefix, str(self.location))

    async def _list_folder(self, folder: str) -> Folder:
        ask, root = self._listing(folder)
        return await list_level(ask, root, folder, str(self.location))

    def _listing(self, prefix: str) -> tuple[Ask, str]:
        """Return the function that requests a page of a listing, and the bucket key of this location."""
        bucket = None if self._signed else public_bucket(self.location.url)
        if bucket is None:
            raise ListingError(
                f"{self.location} has no consolidated metadata and cannot be listed over HTTP.",
                location=self.location,
                next_step="Ask its owner to run `nwbzarr consolidate`, or open its s3:// location.",
            )
        address, root = bucket

        async def page(query: Mapping[str, str]) -> PageOutcome:
            url = f"{address}?{page_query(query)}"
            counted = self.counted, "list"
            asked = Request("GET", url, {}, counted, limit=LARGEST_PAGE, verify=self._verify)
            answer = await self._ask(asked)
            return answer if isinstance(answer, Failure) else self._page(answer)

        return lambda query: self._persist("list", prefix, lambda: page(query)), root

    def _page(self, answer: Answer) -> Page | Failure:
        return parse_page(bytes(answer.body)) if answer.status == 200 else self._refusal(answer)

    async def _fetched(self, answer: Answer, key: str) -> Fetched | Failure | None:
        if answer.status in {200, 206}:
            if not is_document(key) and _is_web_page(answer):
                # Nothing tells whether it is missing, moved, or behind a login.
                return Failure(
                    ResponseError,
                    "the server returned a web page instead of the object",
                    advice="If it does so for missing objects, missing chunks cannot be recognized.",
                )
            self._found_by_redirect |= answer.redirected
            return Fetched(answer.body, answer.headers.get("ETag"), answer.size)
        if is_document(key) and answer.status == 410:
            return None
        if answer.status != 404 or answer.error_code == "NoSuchBucket":
            return self._refusal(answer)
        if answer.redirected and not is_document(key) and not await self._finds_by_redirect():
            # Elsewhere than where it was said to be: nothing tells that it was never stored.
            return Failure(TransportError, "the server redirects to a URL where it does not exist")
        return None

    async def _finds_by_redirect(self) -> bool:
        """Return whether the server also redirects requests for objects that exist."""
        for document in ("zarr.json", ".zmetadata", ".zgroup"):
            if not self._found_by_redirect:
                await self._find(document, None)
        return self._found_by_redirect

    async def _ask(self, request: Request) -> Answer | Failure:
        """Send a request, and follow the redirects that may be followed."""
        answer, used_kept = await self._follow(request)
        failed = isinstance(answer, Failure) or answer.status in _EXPIRED
        if not (used_kept and failed):
            return answer
        # The target may have moved, or its signature has expired before its time.
        self._redirects.clear()
        return (await self._follow(request))[0]

    async def _follow(self, request: Request) -> tuple[Answer | Failure, bool]:
        """Return the answer after redirects, and whether one was followed that was received earlier."""
        used_kept = False
        for number in range(MOST_REDIRECTS + 1):
            kept = self._redirects.get(request.url)
            answer: Answer | Failure
            if kept is not None and kept.until <= time.time():
                kept = None
            if kept is not None:
                answer, used_kept = kept.answer, True
            else:
                answer = await exchange(request, self.timeouts)
            if isinstance(answer, Failure):
                return answer, used_kept
            if answer.status not in REDIRECTS or self._is_final(answer):
                return (replace(answer, redirected=True) if number else answer), used_kept
            # Also of a redirect that was kept: the target's name may resolve to another address by now.
            target = await self._redirected(request.url, answer)
            if isinstance(target, Failure):
                return target, used_kept
            # A file that is read in ranges takes many requests for the same URL, and others take one.
            if kept is None and request.part is not None:
                self._keep(request.url, answer, target)
            request = replace(request, url=target)
        return Failure(TransportError, f"more than {MOST_REDIRECTS} redirects in a row"), used_kept

    def _keep(self, url: str, answer: Answer, target: str) -> None:
        """Keep a redirect while it is valid."""
        until = _valid_until(answer, target)
        if until > time.time():
            self._redirects[url] = KeptRedirect(answer, until)
            if len(self._redirects) > MOST_REDIRECTS:
                del self._redirects[next(iter(self._redirects))]

    def _is_final(self, answer: Answer) -> bool:  # noqa: ARG002
        """Return whether a redirect is not to be followed, but explained."""
        return False

    async def _redirected(self, url: str, answer: Answer) -> str | Failure:
        origin, host = urlsplit(url), ""
        try:
            target = urljoin(url, answer.headers.get("Location", ""))
            goal = urlsplit(target)
            # Accessing a port that is not a number raises.
            host = (goal.hostname or "") if goal.port != 0 else ""
        except ValueError:
            host = ""
        if not host or goal.scheme not in {"http", "https"} or goal.username is not None:
            return Failure(
                ResponseError, f"the server responded with {answer.status} without a valid Location header"
            )
        shown = f"{goal.scheme}://{host}"
        if self._signed:
            return Failure(
                AccessError,
                f"the server redirects to {shown}, and requests with credentials do not follow redirects",
                advice="If that URL is right, use it as the location.",
            )
        if origin.scheme == "https" and goal.scheme == "http":
            return Failure(AccessError, f"the server redirects from https to {shown}, which is not encrypted")
        before, after = await reach(origin.hostname or ""), await reach(host)
        if after is None and proxy_of(target) is None:
            return Failure(
                HostNotFoundError, f"the server redirects to {shown}, a name that does not resolve"
            )
        if after is not None and after < (2 if before is None else before):
            return Failure(
                AccessError,
                f"the server redirects to {shown}, a private address",
                advice="If that URL is right, use it as the location.",
            )
        return target

    def _refusal(self, answer: Answer) -> Failure:
        return failure_of_status(
            answer.status, answer.error_code, answer.headers.get("Retry-After", ""), is_signed=self._signed
        )


@dataclass(frozen=True)
class KeptRedirect:
    """A redirect that was received, and until when it is valid, in seconds since 1970."""

    answer: Answer
    until: float


def _valid_until(answer: Answer, target: str) -> float:
    """Return until when a redirect is valid: by its Cache-Control, or the signature of its target."""
    # RFC 9110, 15.4: only 301 and 308 may be cached without a header that says so.
    caching = answer.headers.get("Cache-Control", "").lower()
    if "no-store" in caching:
        return 0.0
    query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(target).query).items()}
    limits = [time.time() + int(match[1]) for match in [re.search(r"\bmax-age=(\d{1,9})", caching)] if match]
    with suppress(KeyError, ValueError, OverflowError):
        signed = datetime.strptime(query["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        limits.append(signed.timestamp() + int(query["x-amz-expires"]) - _MARGIN)
    with suppress(KeyError, ValueError):
        limits.append(float(query["expires"]) - _MARGIN)
    if not limits and answer.status in {301, 308} and "no-cache" not in caching:
        return time.time() + _PERMANENT
    return min(limits, default=0.0)


def _is_web_page(answer: Answer) -> bool:
    """Return whether an answer is an HTML page by its type and by its first bytes."""
    begins = (
        bytes(answer.body[:64]).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html"))
    )
    return begins and answer.headers.get("Content-Type", "").lower().startswith("text/html")


# Checks.


async def exchange(request: Request, timeouts: Timeouts) -> Answer | Failure:
    """Send one request, follow no redirect, and check the answer."""
    answer = await engine().ask(request, timeouts, _admit)
    if isinstance(answer, Failure) or not _is_expected(request, answer.status) or request.limit == 0:
        return answer
    if len(answer.body) > request.limit:
        return too_large(None, request.limit)
    part = request.part
    if part is None:
        return replace(answer, size=len(answer.body))
    span = _span(answer.headers.get("Content-Range", ""), part)
    if isinstance(span, Failure):
        return span
    length, size = span
    if len(answer.body) != length:
        return _short(f"{len(answer.body)} bytes arrived of {length}")
    return replace(answer, size=size)


def _is_expected(request: Request, status: int) -> bool:
    return status == (200 if request.part is None else 206)


def _admit(request: Request, head: Head) -> int | Failure:
    """Return how many bytes of an answer to receive, by its status, length and range."""
    if not _is_expected(request, head.status):
        if head.status == 200 and request.method == "GET":
            is_page = head.headers.get("Content-Type", "").lower().startswith("text/html")
            return Failure(
                ResponseError,
                "the server returned a web page instead of a part of a file"
                if is_page
                else "the server ignored the Range header and returned the whole object",
                advice="Check the URL: it may need a login, or lead to a page about the file."
                if is_page
                else "This server does not support range requests. Copy the file, use another server, or put "
                "simplecache:: before the URL to fetch all of it first.",
            )
        if head.status == 206:
            return Failure(ResponseError, "the server returned a part of the object instead of all of it")
        return LARGEST_ERROR
    if request.limit == 0:
        return 0
    if request.method == "GET" and head.length is None and not head.is_chunked:
        return Failure(
            ResponseError, "the response has no Content-Length, so a truncated one would not be noticed"
        )
    length = head.length
    if request.part is not None:
        span = _span(head.headers.get("Content-Range", ""), request.part)
        if isinstance(span, Failure):
            return span
        length = span[0]
        if head.length not in {None, length}:
            return _short(
                f"the response's Content-Length is {head.length} bytes, but its Content-Range has {length}"
            )
    if length is not None and length > request.limit:
        return too_large(length, request.limit)
    # One byte more tells that there is more than is allowed.
    return request.limit + 1


def _span(header: str, part: Part) -> tuple[int, int | None] | Failure:
    """Return the length of a range and the object's size, from a Content-Range that matches the request."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        return Failure(
            ResponseError, "the response is a part of the object without a valid Content-Range header"
        )
    first, last = int(match[1]), int(match[2])
    size = None if match[3] == "*" else int(match[3])
    if size is not None:
        bounds = part.bounds(size)
        if bounds is None:
            return Failure(ResponseError, f"the object ends at {size} bytes, before the requested range")
        fits = (first, last + 1) == bounds
    elif part.suffix is not None:
        fits = last - first + 1 == part.suffix
    else:
        fits = first == part.start and (part.stop is None or last + 1 == part.stop)
    if not fits:
        return _short(
            f"the response is the range {first}-{last} instead of {part.header.removeprefix('bytes=')}"
        )
    return last - first + 1, size


def _short(cause: str) -> Failure:
    return Failure(ResponseError, cause, attempts=None)


# Private addresses.


async def reach(host: str) -> int | None:
    """Return how public the least public address of a host is, None when it does not resolve.

    2 is public, 1 private or this machine, and 0 link-local.
    """
    try:
        found = [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        try:
            entries = await addresses(ascii_name(host))
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
    """Return the IPv4 address that is embedded in an IPv6 address."""
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _EMBEDDING):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
