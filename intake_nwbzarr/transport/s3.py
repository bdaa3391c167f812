"""S3: signed requests, redirects to regions, and conditional writes."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote

from yarl import URL

from intake_nwbzarr.errors import AccessError, CredentialsError, TransportError
from intake_nwbzarr.location.credentials import Keys, s3_access
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.location.options import canonical
from intake_nwbzarr.location.urls import access_point
from intake_nwbzarr.transport.answers import EXPIRED, Failure, Fetched, Identity, Part
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.connect import authority_of
from intake_nwbzarr.transport.engine import Answer, Request
from intake_nwbzarr.transport.listing import Ask, PageOutcome, page_query
from intake_nwbzarr.transport.web import REDIRECTS, HttpTransport, KeptRedirect
from intake_nwbzarr.untrusted_input import LARGEST_PAGE

_ALGORITHM = "AWS4-HMAC-SHA256"
# The region becomes part of a host's name.
_REGION = re.compile(r"[a-z0-9-]{1,40}")


class S3Transport(HttpTransport):
    """A prefix of an S3 bucket, on Amazon or any server with the same protocol."""

    writable = True

    def __init__(self, location: Location) -> None:
        Transport.__init__(self, location)
        access = s3_access(location.public, location.secrets, location.url)
        self._signer = access.signer
        self._signed = access.signer is not None
        self._found_by_redirect = False
        self._redirects: dict[str, KeptRedirect] = {}
        self._endpoint = access.endpoint_url
        self._trust(access.verify)
        self._bucket, _, self._root = location.url.removeprefix("s3://").partition("/")
        self._point = access_point(self._bucket)
        self._region = self._point.region if self._point else access.region or "us-east-1"
        self._first_region = self._region
        if not _REGION.fullmatch(self._region):
            raise CredentialsError(
                f"The region for {location} is not an AWS region.",
                location=location,
                expected="an AWS region",
                next_step="Pass storage_options={'region': ...}, such as 'us-west-2'.",
            )
        self._style = location.option("addressing_style") or "auto"
        self._extra = {"x-amz-request-payer": "requester"} if location.option("requester_pays") else {}

    async def identity(self) -> Identity:
        """Return the keys that requests are signed with."""
        keys = await self._signer.current() if self._signer is not None else None
        secret = None if keys is None else repr((keys.access_key, keys.secret_key))
        return Identity(self._endpoint or "", secret)

    @property
    def region(self) -> str | None:
        """Return the region of the bucket; None on servers that are not Amazon's, where it means little."""
        return self._region if self._endpoint is None else None

    def settled(self, location: Location) -> Location:
        """Return another location in the bucket with its region, which each would else ask for anew."""
        if self._region == self._first_region:
            return location
        return replace(location, options=canonical(location.public | {"region": self._region}))

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

    async def _delete(self, key: str) -> None:
        async def attempt() -> Failure | None:
            answer = await self._send("DELETE", self._key(key), {}, "delete")
            if isinstance(answer, Failure) or answer.status in {200, 204, 404}:
                return answer if isinstance(answer, Failure) else None
            return self._refusal(answer)

        await self._persist("delete", key, attempt)

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
        """Send a signed request, again for the bucket's own region and with refreshed credentials."""
        refreshed = followed = False
        while True:
            region = self._region
            keys = await self._signer.current() if self._signer is not None else None
            url = self._address(key) + (f"?{query}" if query else "")
            signed = {**headers, **self._extra}
            if keys is not None:
                service = self._point.service if self._point else "s3"
                signed = sign(method, url, signed, body, keys, region, datetime.now(UTC), service)
            request = Request(method, url, signed, (self.counted, counted), part, limit, body, self._verify)
            answer = await self._ask(request)
            if isinstance(answer, Failure):
                return answer
            if answer.status in {301, 307, 400} and not followed and self._follow_region(answer, region):
                followed = True
                continue
            if answer.error_code in EXPIRED and self._signer is not None and not refreshed:
                refreshed = True
                if await self._signer.refresh(keys):
                    continue
            return self._refusal(answer) if answer.status in REDIRECTS else answer

    def _is_final(self, answer: Answer) -> bool:
        return self._signed or "x-amz-bucket-region" in answer.headers

    def _follow_region(self, answer: Answer, used: str) -> bool:
        """Return whether to ask again: the bucket named its region, or another request has learnt it."""
        if self._region != used:
            return True
        region = answer.headers.get("x-amz-bucket-region", "")
        if region == used or not _REGION.fullmatch(region):
            return False
        self._region = region
        return True

    def _refusal(self, answer: Answer) -> Failure:
        if answer.status not in REDIRECTS:
            return super()._refusal(answer)
        region = answer.headers.get("x-amz-bucket-region", "")
        named = f" to the region {region}" if _REGION.fullmatch(region) else ""
        return Failure(
            AccessError,
            f"the server redirects{named} ({answer.status}), and requests with credentials do not follow "
            "redirects",
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


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    keys: Keys,
    region: str,
    now: datetime,
    service: str = "s3",
) -> dict[str, str]:
    """Return the headers with the signature of botocore's ``S3SigV4Auth``, at a small part of its cost.

    The path, the query and the host are signed as they are sent, and so is every header: Amazon S3 API
    Reference, "Signature Calculations for the Authorization Header".
    """
    address = URL(url, encoded=True)
    # strftime is slow.
    moment = now.isoformat(timespec="seconds")[:19].replace("-", "").replace(":", "") + "Z"
    day = moment[:8]
    digest = sha256(body or b"").hexdigest()
    signed = {**headers, "X-Amz-Date": moment, "X-Amz-Content-SHA256": digest}
    if keys.token:
        signed["X-Amz-Security-Token"] = keys.token
    lines = {name.lower(): " ".join(value.split()) for name, value in signed.items()}
    lines["host"] = authority_of(address)
    names = sorted(lines)
    listed = ";".join(names)
    request = "\n".join(
        [
            method,
            address.raw_path,
            _canonical_query(address.raw_query_string),
            *(f"{name}:{lines[name]}" for name in names),
            "",
            listed,
            digest,
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    signature = _signer(keys.secret_key, day, region, service).copy()
    signature.update(f"{_ALGORITHM}\n{moment}\n{scope}\n{sha256(request.encode()).hexdigest()}".encode())
    signed["Authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={listed}, "
        f"Signature={signature.hexdigest()}"
    )
    return signed


def _canonical_query(query: str) -> str:
    """Return a query with an equals sign after every name, sorted."""
    pairs = sorted(pair.partition("=") for pair in query.split("&")) if query else []
    return "&".join(f"{name}={value}" for name, _, value in pairs)


# A copy of an HMAC signs without letting go of the interpreter's lock, as hmac.digest does: to get it back
# takes milliseconds where other threads decode.
@lru_cache(maxsize=32)
def _signer(secret: str, day: str, region: str, service: str) -> hmac.HMAC:
    """Return the HMAC with the signing key of a day."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, digestmod="sha256")
