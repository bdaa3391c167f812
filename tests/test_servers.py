"""The test servers themselves: a server that refuses nothing would prove nothing."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server


@pytest.fixture
def stored(s3_server: S3Server, tmp_path: Path) -> S3Server:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "zarr.json").write_bytes(b"{}")
    for bucket in (s3_server.public_bucket, s3_server.unlisted_bucket, s3_server.private_bucket):
        s3_server.upload(bucket, "selftest", tmp_path / "store")
    return s3_server


def status(url: str, headers: dict[str, str] | None = None) -> int:
    try:
        with urlopen(Request(url, headers=headers or {}), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def signed(url: str, key: str, secret: str, region: str = "us-east-1") -> dict[str, str]:
    request: Any = AWSRequest("GET", url)
    S3SigV4Auth(Credentials(key, secret), "s3", region).add_auth(request)
    return dict(request.headers.items())


def test_a_right_key_reads_a_private_object(stored: S3Server) -> None:
    url = f"{stored.url}/{stored.private_bucket}/selftest/zarr.json"
    assert status(url, signed(url, stored.key, stored.secret)) == 200


def test_a_wrong_secret_is_refused(stored: S3Server) -> None:
    url = f"{stored.url}/{stored.private_bucket}/selftest/zarr.json"
    assert status(url, signed(url, stored.key, "wrong")) == 403


def test_an_unknown_key_is_refused_even_for_a_public_object(stored: S3Server) -> None:
    url = f"{stored.url}/{stored.public_bucket}/selftest/zarr.json"
    assert status(url, signed(url, "AKIAUNKNOWN", "wrong")) == 403


def test_an_anonymous_request_for_a_private_object_is_refused(stored: S3Server) -> None:
    assert status(f"{stored.url}/{stored.private_bucket}/selftest/zarr.json") == 403


@pytest.mark.parametrize(("bucket", "expected"), [("public", 200), ("unlisted", 403), ("private", 403)])
def test_anonymous_listing_is_for_the_public_bucket_only(
    stored: S3Server, bucket: str, expected: int
) -> None:
    assert status(f"{stored.url}/{bucket}-bucket?list-type=2&prefix=selftest") == expected


@pytest.mark.parametrize(("bucket", "expected"), [("public", 404), ("unlisted", 403), ("private", 403)])
def test_a_missing_key_is_hidden_where_listing_is_denied(
    stored: S3Server, bucket: str, expected: int
) -> None:
    assert status(f"{stored.url}/{bucket}-bucket/selftest/missing") == expected


def test_a_signature_for_another_region_is_sent_there(stored: S3Server) -> None:
    stored.regions[stored.private_bucket] = "eu-west-1"
    url = f"{stored.url}/{stored.private_bucket}/selftest/zarr.json"
    assert status(url, signed(url, stored.key, stored.secret)) == 301
    assert stored.requests[-1].status == 301


def test_faults_happen_as_often_as_asked(stored: S3Server) -> None:
    url = f"{stored.url}/{stored.public_bucket}/selftest/zarr.json"
    stored.fault("status", "zarr.json", times=2, status=429)
    assert [status(url) for _ in range(3)] == [429, 429, 200]
    assert stored.count("zarr.json") == 3


def test_the_static_server_gives_ranges_and_cannot_list(http_server: StaticServer) -> None:
    (http_server.root / "a b").write_bytes(b"0123456789")
    with urlopen(Request(f"{http_server.url}/a%20b", headers={"Range": "bytes=2-4"}), timeout=10) as answer:
        assert (answer.status, answer.read()) == (206, b"234")
        assert answer.headers["ETag"] == f'"{hashlib.md5(b"0123456789").hexdigest()}"'
    assert status(f"{http_server.url}/") == 404
