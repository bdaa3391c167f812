"""Signatures: those of botocore, byte for byte, and the examples that Amazon publishes."""

import re
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from urllib.parse import quote, urlsplit

import botocore.session
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr.location.credentials import Keys
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.listing import page_query
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.s3 import sign
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

SIGNATURE = ("Authorization", "X-Amz-Date", "X-Amz-Content-SHA256", "X-Amz-Security-Token")


def signed_by_botocore(
    method: str, url: str, headers: dict[str, str], body: bytes | None, keys: Keys, region: str, now: datetime
) -> dict[str, str]:
    request = AWSRequest(method, url, headers, body or b"")
    credentials = Credentials(keys.access_key, keys.secret_key, keys.token)
    with patch("botocore.auth.get_current_datetime", return_value=now):
        S3SigV4Auth(credentials, "s3", region).add_auth(request)
    return dict(request.headers.items())


PRINTABLE = st.characters(min_codepoint=33, max_codepoint=126)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ODD_TEXT = st.text(
    st.sampled_from("aZ0 +%~/=&?#:;,@!$'()*[]\\\"<>|^`{}._-é µ\u3000\U0001f9e0\t\n"), max_size=30
)
SCHEMES = st.sampled_from(["http", "https"])
HOSTS = st.sampled_from(
    ["127.0.0.1", "[::1]", "localhost", "minio.lab.example", "s3.eu-west-1.amazonaws.com",
     "a-bucket.s3.us-east-1.amazonaws.com", "a-bucket.s3.cn-north-1.amazonaws.com.cn"]
)  # fmt: skip
PORTS = st.sampled_from(["", ":80", ":443", ":9000"])
PATHS = st.builds("/{}".format, (ANY_TEXT | ODD_TEXT).map(lambda key: quote(key, safe="/~")))
LISTINGS = st.dictionaries(
    st.sampled_from(["prefix", "delimiter", "continuation-token", "start-after", "a", "a-", "max-keys"]),
    ANY_TEXT | ODD_TEXT | st.text(st.sampled_from("aZ09+/="), min_size=1),
).map(page_query)
# As other programs write them: unsorted, repeated, without a value.
QUERIES = st.lists(st.sampled_from(["b=", "b", "a=2", "a=1", "a-=0", "a=1=1", "lifecycle"])).map("&".join)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Range": st.builds("bytes={}-{}".format, st.integers(0, 2**40), st.integers(0, 2**40) | st.just("")),
        "If-Match": st.text(st.sampled_from('a-" \t\xa0')).map(" {} ".format),
        "If-None-Match": st.just("*") | st.text(PRINTABLE).map('W/"{}"'.format),
        "x-amz-request-payer": st.just("requester"),
    },
)
KEYS = st.builds(
    Keys,
    st.text(PRINTABLE, min_size=1),
    st.text(PRINTABLE | st.characters(exclude_categories=["Cs"]), min_size=1),
    st.none() | st.text(PRINTABLE, min_size=1, max_size=100),
)
REGIONS = st.sampled_from(["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1", "garage"])
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(deadline=None)
@given(
    method=st.sampled_from(["GET", "PUT"]),
    origin=st.builds("{}://{}{}".format, SCHEMES, HOSTS, PORTS),
    path=PATHS,
    query=st.just("") | LISTINGS | QUERIES,
    headers=HEADERS,
    body=st.none() | st.binary(),
    keys=KEYS,
    region=REGIONS,
    now=MOMENTS,
)
def test_a_signature_is_botocores(
    method: str,
    origin: str,
    path: str,
    query: str,
    headers: dict[str, str],
    body: bytes | None,
    keys: Keys,
    region: str,
    now: datetime,
) -> None:
    url = f"{origin}{path}" + (f"?{query}" if query else "")
    given_headers = dict(headers)
    signed = sign(method, url, headers, body, keys, region, now)
    assert signed == signed_by_botocore(method, url, headers, body, keys, region, now)
    assert headers == given_headers
    assert set(signed) - set(headers) == set(SIGNATURE) - (set() if keys.token else {"X-Amz-Security-Token"})


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, REGIONS, MOMENTS), min_size=2, max_size=4))
def test_what_is_remembered_belongs_to_one_secret_day_and_region(sets: list[Any]) -> None:
    for keys, _, _ in sets:
        for _, region, _ in sets:
            for _, _, now in sets:
                url = "https://bucket.s3.amazonaws.com/k"
                assert sign("GET", url, {}, None, keys, region, now) == signed_by_botocore(
                    "GET", url, {}, None, keys, region, now
                )


@pytest.mark.parametrize(
    ("method", "target", "headers", "body", "expected"),
    [
        ("GET", "/test.txt", {"Range": "bytes=0-9"}, None,
         "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("PUT", "/test%24file.text",
         {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
         b"Welcome to Amazon S3.",
         "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
        ("GET", "/?lifecycle", {}, None,
         "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("GET", "/?max-keys=2&prefix=J", {}, None,
         "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)  # fmt: skip
def test_amazons_examples(
    method: str, target: str, headers: dict[str, str], body: bytes | None, expected: str
) -> None:
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    url = f"https://examplebucket.s3.amazonaws.com{target}"
    signed = sign(method, url, headers, body, keys, "us-east-1", datetime(2013, 5, 24, tzinfo=UTC))
    assert signed["Authorization"].endswith(f", Signature={expected}")


def test_the_host_is_signed_as_it_is_sent(s3_server: S3Server) -> None:
    endpoint = f"http://LocalHost:{urlsplit(s3_server.endpoint_url).port}"
    options = s3_server.signed_options | {"endpoint_url": endpoint}
    transport = open_transport(locate(f"s3://{s3_server.private_bucket}/spelt", options))
    assert run(transport.get("nothing/.zattrs")) is None
    assert s3_server.requests[-1].status == 404


def test_an_international_name_is_signed_as_it_is_sent() -> None:
    moment, keys = datetime(2026, 1, 2, tzinfo=UTC), Keys("AKEXAMPLE", "secret")
    named, sent = (
        sign("GET", f"https://{host}/bucket/key", {}, None, keys, "us-east-1", moment)
        for host in ("b\u00fccher.example:9000", "xn--bcher-kva.example:9000")
    )
    assert named == sent


POINTS = [
    "arn:aws:s3:us-west-2:123456789012:accesspoint:lab",
    "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:lab",
    "arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint:lab",
    "arn:aws:s3-outposts:us-west-2:123456789012:outpost:op-01ac5d28a6a232904:accesspoint:lab",
]


class SentError(Exception):
    """Raised where botocore would send a request, with the request."""


def sent_by_botocore(arn: str, endpoint_url: str | None, keys: Keys, now: datetime) -> Any:
    """The request for an object of an access point, from a region that is another."""
    session = botocore.session.Session()
    client = session.create_client(
        "s3", "cn-northwest-1" if "aws-cn" in arn else "us-east-1", endpoint_url=endpoint_url,
        aws_access_key_id=keys.access_key, aws_secret_access_key=keys.secret_key,
    )  # fmt: skip

    def stop(request: Any, **_: Any) -> None:
        raise SentError(request)

    client.meta.events.register("before-send.s3", stop)
    with patch("botocore.auth.get_current_datetime", return_value=now), pytest.raises(SentError) as caught:
        client.get_object(Bucket=arn, Key="day/a.nwb.zarr/lick rate/+0")
    return caught.value.args[0]


@pytest.mark.parametrize("arn", POINTS)
@pytest.mark.parametrize("endpoint_url", [None, "http://s3.lab.example:9000"])
def test_a_request_to_an_access_point_is_the_one_that_botocore_sends(
    arn: str, endpoint_url: str | None, http_server: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", http_server.url)
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    options = {"key": keys.access_key, "secret": keys.secret_key, "region": "us-east-1"}
    # What goes over TLS is seen without it.
    more = {"use_ssl": False} if endpoint_url is None else {"endpoint_url": endpoint_url}
    transport = open_transport(locate(f"s3://{arn}/day/a.nwb.zarr", options | more))
    assert run(transport.fetch("lick rate/+0", None, 2**20)) is None
    (seen,) = http_server.requests
    now = datetime.strptime(seen.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    theirs = sent_by_botocore(arn, endpoint_url, keys, now)
    there = urlsplit(theirs.url)
    assert seen.headers["Host"] == there.netloc
    assert urlsplit(seen.path).path == there.path
    pattern = re.compile(r"Credential=[^,]*")
    found, expected = seen.headers["Authorization"], theirs.headers["Authorization"].decode()
    assert pattern.findall(found) == pattern.findall(expected)
    # botocore adds headers of its own, which it signs as well.
    request = AWSRequest("GET", f"http://{there.netloc}{there.path}", {}, b"")
    service = arn.split(":")[2]
    with patch("botocore.auth.get_current_datetime", return_value=now):
        S3SigV4Auth(Credentials(keys.access_key, keys.secret_key), service, arn.split(":")[3]).add_auth(
            request
        )
    assert found == request.headers["Authorization"]
