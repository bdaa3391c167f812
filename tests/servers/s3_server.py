"""An S3 server that refuses as S3 does: moto checking signatures, behind a proxy that knows who may what."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode
from urllib.request import urlopen

import aiohttp
import pytest
from aiohttp import web
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

from tests.servers.loopback import LoopbackServer, Response
from tests.servers.tunnel import Tunnel, open_tunnel

_SCOPE = re.compile(r"Credential=[^/]+/\d+/([^/]+)/s3/aws4_request")
# Hop by hop, or set anew.
_NOT_FORWARDED = {"connection", "content-length", "transfer-encoding", "date", "server", "keep-alive"}


class S3Server(LoopbackServer):
    """Reached at `endpoint_url`, path style.

    ================== ============== ==================== =========================
    bucket             anonymous get  anonymous list       missing key
    ================== ============== ==================== =========================
    `public_bucket`    yes            yes                  404
    `unlisted_bucket`  yes            403                  403, to signed ones also
    `private_bucket`   403            403                  404 to signed requests
    ================== ============== ==================== =========================

    `as_amazon` makes this process reach it as Amazon: ``https://<bucket>.s3.amazonaws.com/…`` over TLS.
    `regions` may move a bucket: signed requests for another region are answered 301. Buckets in
    `requester_pays` want their header. `others` answer for hosts of their own, over TLS as well.
    """

    public_bucket = "public-bucket"
    unlisted_bucket = "unlisted-bucket"
    private_bucket = "private-bucket"
    # A public one with the name of DANDI's, for URLs as they are published.
    dandi_bucket = "dandiarchive"
    # Those that the documentation's pages name.
    documented_public = ("lab-open", "lab-public", "bucket")
    documented_private = ("lab-private", "lab", "partner")

    def __init__(self) -> None:
        super().__init__()
        self.key = ""
        self.secret = ""
        self.regions: dict[str, str] = {}
        self.requester_pays: set[str] = set()
        self.others: dict[str, LoopbackServer] = {}
        self._moto: subprocess.Popen[str] | None = None
        self._backend = ""
        self._session: aiohttp.ClientSession | None = None
        self._tunnel: Tunnel | None = None

    @property
    def endpoint_url(self) -> str:
        return self.url

    @property
    def signed_options(self) -> dict[str, Any]:
        """Storage options of somebody who may do everything."""
        return {"key": self.key, "secret": self.secret, "endpoint_url": self.endpoint_url}

    @property
    def anonymous_options(self) -> dict[str, Any]:
        return {"anon": True, "endpoint_url": self.endpoint_url}

    @property
    def certificate(self) -> Path:
        """What must be trusted at `tls_endpoint_url`."""
        assert self._tunnel is not None
        return self._tunnel.certificate

    @property
    def tls_endpoint_url(self) -> str:
        """The same server over TLS."""
        assert self._runner is not None
        return f"https://127.0.0.1:{self._runner.addresses[-1][1]}"

    def as_amazon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process take the server for Amazon's, until the test is over."""
        assert self._tunnel is not None
        monkeypatch.setenv("HTTPS_PROXY", self._tunnel.url)
        monkeypatch.setenv("https_proxy", self._tunnel.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(self._tunnel.certificate))

    def upload(self, bucket: str, prefix: str, folder: Path) -> str:
        """Store a folder's files, or a file, under a prefix; the s3:// URL of it."""
        query = urlencode({"bucket": bucket, "prefix": prefix, "folder": str(folder.absolute())})
        with urlopen(f"{self._backend}/-load?{query}", timeout=60) as answer:
            answer.read()
        return f"s3://{bucket}/{prefix}"

    def reset(self) -> None:
        super().reset()
        self.regions.clear()
        self.requester_pays.clear()
        self.others.clear()

    def __enter__(self) -> Self:
        buckets = [self.public_bucket, self.unlisted_bucket, self.private_bucket, self.dandi_bucket]
        buckets += [*self.documented_public, *self.documented_private]
        script = Path(__file__).with_name("moto_process.py")
        self._moto = subprocess.Popen(
            [sys.executable, str(script), *buckets],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._moto.stdout is not None
        identity = json.loads(self._moto.stdout.readline())
        self._backend, self.key, self.secret = identity["endpoint"], identity["key"], identity["secret"]
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        assert self._moto is not None
        assert self._moto.stdin is not None
        assert self._moto.stdout is not None
        self._moto.stdin.close()
        self._moto.wait(timeout=30)
        self._moto.stdout.close()

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=16),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        await super()._start()
        assert self._runner is not None
        self._tunnel = await open_tunnel(self._runner)

    async def _stop(self) -> None:
        assert self._session is not None
        assert self._tunnel is not None
        await self._tunnel.close()
        await self._session.close()
        await super()._stop()

    async def answer(self, request: web.Request) -> Response:
        if request.host in self.others:
            return await self.others[request.host].answer(request)
        path, _, query = request.raw_path.partition("?")
        host, amazon, _ = request.host.partition(".s3.")
        bucket = host if amazon else path.strip("/").partition("/")[0]
        listing = "list-type" in query
        signature = request.headers.get("Authorization", "")
        if bucket in self.requester_pays and request.headers.get("x-amz-request-payer") != "requester":
            return _refuse(403, "AccessDenied")
        if signature:
            region = self.regions.get(bucket, "us-east-1")
            scope = _SCOPE.search(signature)
            if scope is None or scope[1] != region:
                return _refuse(301, "PermanentRedirect", {"x-amz-bucket-region": region})
            response = await self._forward(request, request.headers, await request.read())
        elif bucket in {self.public_bucket, self.dandi_bucket, *self.documented_public} or (
            bucket == self.unlisted_bucket and not listing
        ):
            if request.method != "GET":
                return _refuse(403, "AccessDenied")
            response = await self._forward(request, self._signed(request), b"")
        else:
            return _refuse(403, "AccessDenied")
        if response.status == 404 and bucket == self.unlisted_bucket and b"NoSuchBucket" not in response.body:
            return _refuse(403, "AccessDenied")
        return response

    async def whole(self, request: web.Request) -> Response:
        # Signatures cover the Range header, so the request cannot be passed on without it.
        return await self._forward(request, self._signed(request, ()), b"")

    def _signed(
        self, request: web.Request, names: tuple[str, ...] = ("Range", "If-None-Match")
    ) -> Mapping[str, str]:
        kept = {name: request.headers[name] for name in names if name in request.headers}
        signed = AWSRequest("GET", f"http://{request.host}{request.raw_path}", kept)
        S3SigV4Auth(Credentials(self.key, self.secret), "s3", "us-east-1").add_auth(signed)
        return {**dict(signed.headers.items()), "Host": request.host}

    async def _forward(self, request: web.Request, headers: Mapping[str, str], body: bytes) -> Response:
        assert self._session is not None
        url = URL(f"{self._backend}{request.raw_path}", encoded=True)
        kept = {name: value for name, value in headers.items() if name.lower() not in _NOT_FORWARDED}
        async with self._session.request(request.method, url, headers=kept, data=body or None) as answer:
            content = await answer.read()
            passed = {
                name: value for name, value in answer.headers.items() if name.lower() not in _NOT_FORWARDED
            }
            if request.method == "HEAD":
                # The length of what a GET would have answered.
                passed["Content-Length"] = answer.headers.get("Content-Length", "0")
            return Response(answer.status, content, passed)


def _refuse(status: int, code: str, headers: dict[str, str] | None = None) -> Response:
    body = f"<?xml version='1.0'?><Error><Code>{quote(code)}</Code><Message>no</Message></Error>".encode()
    return Response(status, body, {"Content-Type": "application/xml", **(headers or {})})
