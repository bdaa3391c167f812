"""HTTP and S3: addresses, signatures, redirects and refusals."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote, urljoin, urlsplit

from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    HostNotFoundError,
    ListingError,
    LocationNotFoundError,
    ObjectChangedError,
    ResponseError,
    TransportError,
)
from intake_nwbzarr.location.credentials import credentials_not_sent, s3_access
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.location.urls import access_point
from intake_nwbzarr.transport.answers import Failure, Fetched, Folder, Identity, Listed, Part, Unchanged
from intake_nwbzarr.transport.base import Transport, is_document, same_etag
from intake_nwbzarr.transport.hosts import proxy_of, reach
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
from intake_nwbzarr.transport.pool import check_certificates
from intake_nwbzarr.transport.signature import sign
from intake_nwbzarr.transport.wire import Answer, Request, exchange

MOST_REDIRECTS = 3
LARGEST_PAGE = 32 * 2**20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_WRONG_CREDENTIALS = frozenset(
    {
        "AuthFailure", "AuthorizationHeaderMalformed", "InvalidAccessKeyId", "InvalidSecurity",
        "InvalidToken", "InvalidClientTokenId", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
    }
)  # fmt: skip
# The region becomes part of a host's name.
_REGION = re.compile(r"[a-z0-9-]{1,40}")


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

    def _trust(self, verify: bool | str) -> None:
        self._verify = verify
        if verify is not True:
            check_certificates(verify, self.location)

    async def identity(self) -> Identity:
        """Told apart by the headers and the query that a caller gave."""
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
        return await self._ask(Request("GET", url, headers, (self.counted, "get"), part, limit))

    async def _list(self, prefix: str) -> list[Listed]:
        ask, root = self._listing(prefix)
        return await list_pages(ask, root, prefix, str(self.location))

    async def _list_folder(self, folder: str) -> Folder:
        ask, root = self._listing(folder)
        return await list_level(ask, root, folder, str(self.location))

    def _listing(self, prefix: str) -> tuple[Ask, str]:
        """What asks for a page of a listing, and the bucket's key that this location is."""
        bucket = None if self._signed else public_bucket(self.location.url)
        if bucket is None:
            raise ListingError(
                f"{self.location} cannot be listed: HTTP has no listing, so the file must have consolidated "
                "metadata. Ask whoever stores it to run `nwbzarr consolidate`, or use its s3:// location."
            )
        address, root = bucket

        async def page(query: Mapping[str, str]) -> PageOutcome:
            url = f"{address}?{page_query(query)}"
            answer = await self._ask(Request("GET", url, {}, (self.counted, "list"), limit=LARGEST_PAGE))
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
                    "the server answered with a web page instead of the object",
                    advice="Where it does so for what is missing, chunks that are left out cannot be told.",
                )
            self._found_by_redirect |= answer.redirected
            return Fetched(answer.body, answer.headers.get("ETag"), answer.size)
        if is_document(key) and answer.status == 410:
            return None
        if answer.status != 404 or error_code(answer) == "NoSuchBucket":
            return self._refusal(answer)
        if answer.redirected and not is_document(key) and not await self._finds_by_redirect():
            # Elsewhere than where it was said to be: nothing tells that it was never stored.
            return Failure(TransportError, "the server redirects to an address where it is not")
        return None

    async def _finds_by_redirect(self) -> bool:
        """Whether the server redirects for what it does have, too."""
        for document in ("zarr.json", ".zmetadata", ".zgroup"):
            if not self._found_by_redirect:
                await self._find(document, None)
        return self._found_by_redirect

    async def _ask(self, request: Request) -> Answer | Failure:
        """Exchange, following the redirects that may be followed."""
        request = replace(request, verify=self._verify)
        for number in range(MOST_REDIRECTS + 1):
            answer = await exchange(request, self.timeouts)
            if isinstance(answer, Failure):
                return answer
            if answer.status not in _REDIRECTS or self._is_final(answer):
                return replace(answer, redirected=number > 0)
            target = await self._redirected(request.url, answer)
            if isinstance(target, Failure):
                return target
            request = replace(request, url=target)
        return Failure(TransportError, f"more than {MOST_REDIRECTS} redirects in a row")

    def _is_final(self, answer: Answer) -> bool:  # noqa: ARG002
        """Whether a redirect is an answer to look at and not one to follow."""
        return False

    async def _redirected(self, url: str, answer: Answer) -> str | Failure:
        origin, host = urlsplit(url), ""
        try:
            target = urljoin(url, answer.headers.get("Location", ""))
            goal = urlsplit(target)
            # A port that is no number raises when it is asked for.
            host = (goal.hostname or "") if goal.port != 0 else ""
        except ValueError:
            host = ""
        if not host or goal.scheme not in {"http", "https"} or goal.username is not None:
            return Failure(
                ResponseError, f"the server answered {answer.status} without a usable address to go on"
            )
        shown = f"{goal.scheme}://{host}"
        if self._signed:
            return Failure(
                AccessError,
                f"the server redirects to {shown}, and a request with credentials is not sent on",
                advice="If that address is right, use it as the location.",
            )
        if origin.scheme == "https" and goal.scheme == "http":
            return Failure(
                AccessError, f"the server redirects from https to {shown}, which anyone may read along"
            )
        before, after = await reach(origin.hostname or ""), await reach(host)
        if after is None and proxy_of(target) is None:
            return Failure(
                HostNotFoundError, f"the server redirects to {shown}, a name that does not resolve"
            )
        if after is not None and after < (2 if before is None else before):
            return Failure(
                AccessError,
                f"the server redirects to {shown}, a private address that it has no business to name",
                advice="If that address is right, use it as the location.",
            )
        return target

    def _refusal(self, answer: Answer) -> Failure:
        """What a status means that is not what was hoped for."""
        status, code = answer.status, error_code(answer)
        said = f"the server answered {status}" + (f" ({code})" if code else "")
        if status == 404 and code == "NoSuchBucket":
            return Failure(LocationNotFoundError, "there is no such bucket", advice="Check the spelling.")
        if code in _EXPIRED:
            return Failure(CredentialsError, f"the credentials have expired: {said}", advice="Get new ones.")
        if code in _WRONG_CREDENTIALS or status == 401:
            return Failure(
                CredentialsError,
                said,
                advice="Check the credentials: they are unknown there, or not for this place.",
            )
        if status == 403:
            return Failure(AccessError, said, advice=self._forbidden())
        if status == 410:
            return Failure(TransportError, "it was removed for good: the server answered 410")
        if status == 412:
            return Failure(ObjectChangedError, "it was changed, or created, since it was read")
        if status in {408, 429} or status >= 500:
            wait = answer.headers.get("Retry-After", "")
            return Failure(
                TransportError,
                said,
                attempts=None,
                advice="Try again later.",
                wait=float(wait) if wait.isdecimal() else None,
                overload=status in {429, 503},
            )
        return Failure(ResponseError, said)

    def _forbidden(self) -> str:
        remedy = "" if self._signed else " It was asked anonymously: credentials may be needed."
        return (
            "A bucket that denies listing answers so for objects that do not exist as well: check the "
            f"spelling, and whether you may read there.{remedy}"
        )


class S3Transport(HttpTransport):
    """A prefix of an S3 bucket, on Amazon or any server that speaks its protocol."""

    writable = True

    def __init__(self, location: Location) -> None:
        Transport.__init__(self, location)
        access = s3_access(location.public, location.secrets, location.url)
        self._signer = access.signer
        self._signed = access.signer is not None
        self._found_by_redirect = False
        self._endpoint = access.endpoint_url
        self._trust(access.verify)
        self._bucket, _, self._root = location.url.removeprefix("s3://").partition("/")
        self._point = access_point(self._bucket)
        self._region = self._point.region if self._point else access.region or "us-east-1"
        if not _REGION.fullmatch(self._region):
            raise CredentialsError(f"The region for {location} is not an AWS region, such as us-west-2.")
        self._style = location.option("addressing_style") or "auto"
        self._extra = {"x-amz-request-payer": "requester"} if location.option("requester_pays") else {}

    async def identity(self) -> Identity:
        """Told apart by the pair of keys that requests are signed with."""
        keys = await self._signer.current() if self._signer is not None else None
        secret = None if keys is None else repr((keys.access_key, keys.secret_key))
        return Identity(self._endpoint or "", secret)

    async def _get_object(
        self, key: str, part: Part | None, limit: int, condition: Mapping[str, str]
    ) -> Answer | Failure:
        headers = {**condition} | ({"Range": part.header} if part is not None else {})
        return await self._send("GET", self._key(key), headers, "get", part=part, limit=limit)

    def _listing(self, prefix: str) -> tuple[Ask, str]:
        async def page(query: Mapping[str, str]) -> PageOutcome:
            answer = await self._send("GET", "", {}, "list", query=page_query(query), limit=LARGEST_PAGE)
            return answer if isinstance(answer, Failure) else self._page(answer)

        return lambda query: self._persist("list", prefix, lambda: page(query)), self._root

    async def _put(self, key: str, data: bytes, if_match: str | None, if_none_match: bool) -> str | None:
        condition = {"If-Match": if_match} if if_match is not None else {}
        condition |= {"If-None-Match": "*"} if if_none_match else {}
        tries = 0

        async def attempt() -> str | Failure | None:
            nonlocal tries
            tries += 1
            answer = await self._send("PUT", self._key(key), condition, "put", body=data)
            if isinstance(answer, Failure):
                return answer
            if answer.status == 412 and tries > 1:
                # An earlier attempt may have been carried out and its answer lost.
                stored = await self._get(key, None, len(data))
                if isinstance(stored, Fetched) and stored.data == data:
                    return stored.etag
            if answer.status == 409:
                return Failure(TransportError, "another write was under way (409)", attempts=None)
            return answer.headers.get("ETag") if answer.status == 200 else self._refusal(answer)

        return await self._persist("put", key, attempt)

    async def _send(
        self,
        method: str,
        key: str,
        headers: Mapping[str, str],
        counted: str,
        *,
        query: str = "",
        part: Part | None = None,
        limit: int = LARGEST_PAGE,
        body: bytes | None = None,
    ) -> Answer | Failure:
        """Sign and exchange; once more for the bucket's own region, and once with refreshed credentials."""
        refreshed = followed = False
        while True:
            region = self._region
            keys = await self._signer.current() if self._signer is not None else None
            url = self._address(key) + (f"?{query}" if query else "")
            signed = {**headers, **self._extra}
            if keys is not None:
                service = self._point.service if self._point else "s3"
                signed = sign(method, url, signed, body, keys, region, datetime.now(UTC), service)
            request = Request(method, url, signed, (self.counted, counted), part, limit, body)
            answer = await self._ask(request)
            if isinstance(answer, Failure):
                return answer
            if answer.status in {301, 307, 400} and not followed and self._follow_region(answer, region):
                followed = True
                continue
            if error_code(answer) in _EXPIRED and self._signer is not None and not refreshed:
                refreshed = True
                if await self._signer.refresh(keys):
                    continue
            return self._refusal(answer) if answer.status in _REDIRECTS else answer

    def _is_final(self, answer: Answer) -> bool:
        return self._signed or "x-amz-bucket-region" in answer.headers

    def _follow_region(self, answer: Answer, used: str) -> bool:
        """Whether it is worth asking again: the bucket named its region, or another request has learnt it."""
        if self._region != used:
            return True
        region = answer.headers.get("x-amz-bucket-region", "")
        if region == used or not _REGION.fullmatch(region):
            return False
        self._region = region
        return True

    def _refusal(self, answer: Answer) -> Failure:
        if answer.status not in _REDIRECTS:
            return super()._refusal(answer)
        region = answer.headers.get("x-amz-bucket-region", "")
        named = f" to the region {region}" if _REGION.fullmatch(region) else ""
        return Failure(
            AccessError,
            f"the server redirects{named} ({answer.status}), and a request with credentials is not sent on",
            advice="Give the bucket's region and endpoint_url in storage_options.",
        )

    def _key(self, key: str) -> str:
        return "/".join(part for part in (self._root, key) if part)

    def _address(self, key: str) -> str:
        path = quote(key, safe="/~")
        plain_http = self.location.option("use_ssl") is False
        if self._point is not None:
            scheme, _, host = (self._endpoint or f"https://{self._point.host}").partition("://")
            return f"{'http' if plain_http else scheme}://{self._point.prefix}.{host}/{path}"
        domain = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        endpoint = self._endpoint or f"http{'' if plain_http else 's'}://s3.{self._region}.{domain}"
        # A certificate for *.s3.amazonaws.com covers no name with further dots.
        plain = re.fullmatch(r"[a-z0-9][a-z0-9-]+", self._bucket) is not None
        if self._style == "virtual" or (self._style == "auto" and plain and self._endpoint is None):
            scheme, _, host = endpoint.partition("://")
            return f"{scheme}://{self._bucket}.{host}/{path}"
        return f"{endpoint}/{self._bucket}" + (f"/{path}" if path else "")


def _is_web_page(answer: Answer) -> bool:
    """Whether an answer both says that it is HTML and begins so: no chunk does that."""
    begins = (
        bytes(answer.body[:64]).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html"))
    )
    return begins and answer.headers.get("Content-Type", "").lower().startswith("text/html")


def error_code(answer: Answer) -> str:
    """The code in S3's error document; its message is not read, as it may quote credentials."""
    match = re.search(rb"<Code>([A-Za-z0-9.]{1,80})</Code>", answer.body) if answer.status >= 300 else None
    return match[1].decode() if match else ""
