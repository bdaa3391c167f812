"""Amazon's own addresses: virtual hosts over TLS, published https URLs, proxies."""

import math
from pathlib import Path

import pytest

from intake_nwbzarr.errors import AccessError, TransportError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.answers import Folder
from intake_nwbzarr.transport.listing import public_bucket
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.web import reach
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server


@pytest.fixture
def amazon(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    folder = tmp_path / "asset"
    (folder / "lick rate").mkdir(parents=True)
    (folder / "zarr.json").write_bytes(b"{}")
    (folder / "lick rate" / "+0").write_bytes(b"chunk")
    for bucket in (s3_server.dandi_bucket, s3_server.private_bucket):
        s3_server.upload(bucket, "zarr/c8c6 b848", folder)
    s3_server.as_amazon(monkeypatch)
    return s3_server


def test_a_published_https_url_is_read_and_listed_anonymously(amazon: S3Server) -> None:
    transport = open_transport(locate("https://dandiarchive.s3.amazonaws.com/zarr/c8c6%20b848/"))
    fetched = run(transport.get("lick rate/+0"))
    assert fetched is not None
    assert fetched.data == b"chunk"
    assert run(transport.get("nothing")) is None
    assert [entry.key for entry in run(transport.list())] == ["lick rate/+0", "zarr.json"]
    assert run(transport.list_folder("")) == Folder(("zarr.json",), ("lick rate",))
    assert all("Authorization" not in seen.headers for seen in amazon.requests)
    assert amazon.requests[0].headers["Host"] == "dandiarchive.s3.amazonaws.com"


def test_an_s3_location_without_endpoint_is_a_virtual_host(amazon: S3Server) -> None:
    options = {"key": amazon.key, "secret": amazon.secret}
    transport = open_transport(locate(f"s3://{amazon.private_bucket}/zarr/c8c6 b848", options))
    assert run(transport.get("lick rate/+0")) is not None
    assert amazon.requests[0].headers["Host"] == "private-bucket.s3.us-east-1.amazonaws.com"
    assert amazon.requests[0].path == "/zarr/c8c6%20b848/lick%20rate/%2B0"


def test_another_region_is_another_host(amazon: S3Server) -> None:
    amazon.regions[amazon.private_bucket] = "eu-west-1"
    options = {"key": amazon.key, "secret": amazon.secret}
    transport = open_transport(locate(f"s3://{amazon.private_bucket}/zarr/c8c6 b848", options))
    assert run(transport.get("zarr.json")) is not None
    assert [seen.headers["Host"].split(".")[2] for seen in amazon.requests] == ["us-east-1", "eu-west-1"]


def test_no_redirect_leads_from_https_to_http(amazon: S3Server, http_server: StaticServer) -> None:
    amazon.fault("redirect", times=math.inf, status=302, to=f"{http_server.url}/x")
    transport = open_transport(locate("https://dandiarchive.s3.amazonaws.com/zarr"))
    with pytest.raises(AccessError, match=r"redirects from https to http://127\.0\.0\.1"):
        run(transport.get("zarr.json"))
    assert http_server.count() == 0


def test_no_redirect_leads_from_a_public_host_to_this_machine(
    http_server: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server is the proxy, so it answers for the public address too.
    monkeypatch.setenv("http_proxy", http_server.url)
    http_server.fault(
        "redirect", times=math.inf, status=302, to=f"http://127.0.0.1:{http_server.port}/secret"
    )
    with pytest.raises(AccessError, match=r"redirects to .*, a private address"):
        run(open_transport(locate("http://93.184.216.34/a.nwb.zarr")).get("zarr.json"))
    assert http_server.count("secret") == 0
    assert http_server.count("93.184.216.34") == 1


def test_a_certificate_that_is_not_trusted_is_an_error_at_once(
    amazon: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(TransportError, match="cannot be trusted"):
        run(open_transport(locate("https://dandiarchive.s3.amazonaws.com/a")).get("zarr.json"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("8.8.8.8", 2), ("2001:4860:4860::8888", 2), ("10.1.2.3", 1), ("127.0.0.1", 1), ("localhost", 1),
     ("::1", 1), ("::ffff:10.0.0.1", 1), ("100.64.0.1", 1), ("0.0.0.0", 1), ("169.254.169.254", 0),
     ("::ffff:169.254.169.254", 0), ("fe80::1", 0), ("64:ff9b::10.0.0.1", 1),
     ("64:ff9b::169.254.169.254", 0), ("64:ff9b::8.8.8.8", 2), ("2002:a00:1::", 1), ("2002:808:808::", 2),
     ("::7f00:1", 1), ("::8.8.8.8", 2), ("fec0::1", 1), ("no-such-host.invalid", None)],
)  # fmt: skip
def test_hosts_are_told_apart_by_their_least_public_address(host: str, expected: int | None) -> None:
    assert run(reach(host)) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://bkt.s3.amazonaws.com/k/x%20y", ("https://bkt.s3.amazonaws.com/", "k/x y")),
        ("https://bkt.s3.eu-west-1.amazonaws.com/k", ("https://bkt.s3.eu-west-1.amazonaws.com/", "k")),
        ("https://a.b.s3.dualstack.us-east-2.amazonaws.com/k",
         ("https://a.b.s3.dualstack.us-east-2.amazonaws.com/", "k")),
        ("https://s3-us-west-2.amazonaws.com/b/k/l", ("https://s3-us-west-2.amazonaws.com/b", "k/l")),
        ("https://s3.amazonaws.com/b", ("https://s3.amazonaws.com/b", "")),
        ("https://s3.amazonaws.com", None),
        ("https://bkt.s3.amazonaws.com.evil.example/k", None),
        ("https://example.org/s3.amazonaws.com/k", None),
    ],
)  # fmt: skip
def test_https_urls_of_s3_are_recognised(url: str, expected: tuple[str, str] | None) -> None:
    assert public_bucket(url) == expected
