"""Proxies, tunnels through them, and certificates."""

import ssl
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intake_nwbzarr.errors import LocationError, TransportError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.location.options import Timeouts
from intake_nwbzarr.transport.answers import Failure
from intake_nwbzarr.transport.engine import Answer, Request
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.web import exchange
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.servers.scripted import Link, Script, Scripted, scripted, until
from tests.servers.tunnel import certify
from tests.transport.connected import sized

PAIR = b64encode(b"me:p@ss w\xc3\xb6rd").decode()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1 and of some of Amazon's names; its key is next to it."""
    path = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    certify(path, path.with_name("key.pem"))
    return path


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return certificate


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


async def ask(url: str, **timeouts: float) -> Answer | Failure:
    request = Request("GET", url, {"Authorization": "for the server"}, (url, "get"))
    return await exchange(request, Timeouts(**({"connect": 10, "stall": 10} | timeouts)))  # type: ignore[arg-type]


async def cause_of(url: str, **timeouts: float) -> str:
    failure = await ask(url, **timeouts)
    assert isinstance(failure, Failure)
    assert issubclass(failure.error, TransportError)
    assert "p@ss" not in repr(failure)
    return failure.cause


async def echo(link: Link) -> None:
    while True:
        await link.request()
        await link.send(sized(b"hello"))


def tunnel(certificate: Path, established: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> Script:
    """A proxy that is the server behind it as well."""

    async def script(link: Link) -> None:
        await link.request()
        # At once: what the client says next is TLS.
        link.writer.write(established)
        await link.writer.start_tls(server_side(certificate))
        await echo(link)

    return script


def with_user(proxy: Scripted) -> str:
    return proxy.url.replace("//", "//me:p%40ss%20w%C3%B6rd@")


def header_of(request: bytes, name: bytes) -> bytes | None:
    found = [line for line in request.split(b"\r\n") if line.lower().startswith(name.lower() + b":")]
    return found[0].partition(b": ")[2] if found else None


def test_http_goes_to_the_proxy_and_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with scripted(echo) as proxy:
            monkeypatch.setenv("http_proxy", with_user(proxy))
            for path in ("/a%2Fb?c", ""):
                assert isinstance(await ask(f"http://example.org{path}"), Answer)
            assert [request.partition(b"\r\n")[0] for request in proxy.requests] == [
                b"GET http://example.org/a%2Fb?c HTTP/1.1",
                b"GET http://example.org/ HTTP/1.1",
            ]
            assert header_of(proxy.requests[0], b"Host") == b"example.org"
            assert header_of(proxy.requests[0], b"Proxy-Authorization") == f"Basic {PAIR}".encode()
            assert header_of(proxy.requests[0], b"Authorization") == b"for the server"
            # The connection to the proxy is kept.
            assert proxy.connections == 1

    run(scenario())


@pytest.mark.parametrize(
    "established",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-agent: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_https_goes_through_a_tunnel_that_tells_the_proxy_nothing(
    trusted: Path, established: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with scripted(tunnel(trusted, established)) as proxy:
            monkeypatch.setenv("https_proxy", with_user(proxy))
            for path in ("/one", "/two"):
                answer = await ask(f"https://bucket.s3.amazonaws.com{path}")
                assert isinstance(answer, Answer), answer
                assert answer.body == b"hello"
            connect, first, second = proxy.requests
            assert connect.startswith(b"CONNECT bucket.s3.amazonaws.com:443 HTTP/1.1\r\n")
            assert header_of(connect, b"Host") == b"bucket.s3.amazonaws.com"
            assert header_of(connect, b"Proxy-Authorization") == f"Basic {PAIR}".encode()
            assert header_of(connect, b"Authorization") is None
            for request, line in ((first, b"GET /one HTTP/1.1"), (second, b"GET /two HTTP/1.1")):
                assert request.startswith(line)
                assert header_of(request, b"Host") == b"bucket.s3.amazonaws.com"
                assert header_of(request, b"Proxy-Authorization") is None
            assert proxy.connections == 1

    run(scenario())


def test_a_tunnel_to_an_address_of_ipv6_has_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(link: Link) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    async def scenario() -> None:
        async with scripted(refuse) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            assert await cause_of("https://[2001:db8::1]:8443/x") == "the proxy responded with 502"
            assert proxy.requests[0].startswith(b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n")

    run(scenario())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_may_be_spoken_to_over_tls(
    trusted: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = echo if scheme == "http" else tunnel(trusted)

    async def scenario() -> None:
        async with scripted(script, ssl=server_side(trusted)) as proxy:
            proxy.scheme = "https"
            monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
            answer = await ask(f"{scheme}://bucket.s3.amazonaws.com/x")
            assert isinstance(answer, Answer), answer
            assert answer.body == b"hello"

    run(scenario())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_another_password_is_said(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(link: Link) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\nContent-Length: 900\r\n\r\nno")
        await link.closed()

    async def scenario() -> None:
        async with scripted(refuse) as proxy:
            monkeypatch.setenv(f"{scheme}_proxy", with_user(proxy))
            failure = await ask(f"{scheme}://example.org/x")
            assert isinstance(failure, Failure)
            assert failure.cause == "the proxy responded with 407"
            assert "user and password" in failure.advice
            await until(lambda: proxy.closed == [1])

    run(scenario())


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("http://me:p@ss@127.0.0.1:{closed}", "the proxy cannot be reached (ECONNREFUSED)"),
        ("http://me:p@ss@no-such-host.invalid:3128", "the proxy cannot be reached (gaierror)"),
        ("socks5://me:p@ss@127.0.0.1:1080", "the proxy has an address that is not http://host:port"),
        ("http://me:p@ss@127.0.0.1:high", "the proxy has an address that is not http://host:port"),
        ("me:p@ss@127.0.0.1:{closed}", "the proxy cannot be reached (ECONNREFUSED)"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_said_without_its_password(
    scheme: str, address: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with scripted(echo) as gone:
            pass
        monkeypatch.setenv(f"{scheme}_proxy", address.format(closed=gone.port))
        assert await cause_of(f"{scheme}://example.org/x") == cause

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "the proxy did not respond"),
        (b"HTTP/1.1 20", "the proxy did not respond"),
        (b"SSH-2.0-x\r\n", "the proxy did not respond"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no connection to example.org (ECONNRESET)"),
    ],
)
def test_a_proxy_that_breaks_off_is_said(answer: bytes, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(link: Link) -> None:
        await link.request()
        await link.send(answer)

    async def scenario() -> None:
        async with scripted(script) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            assert await cause_of("https://example.org/x") == cause

    run(scenario())


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["before", "in the handshake"])
def test_a_tunnel_that_is_not_made_in_time_is_closed(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(link: Link) -> None:
        await link.request()
        await link.send(answer)
        await link.closed()

    async def scenario() -> None:
        async with scripted(script) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            assert await cause_of("https://example.org/x", connect=0.2) == "no connection within 0.2 s"
            await until(lambda: proxy.closed == [1])

    run(scenario())


def test_no_proxy_names_hosts_that_are_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with scripted(echo) as proxy, scripted(echo) as server, scripted(echo) as other:
            monkeypatch.setenv("http_proxy", proxy.url)
            monkeypatch.setenv("no_proxy", f"example.org,127.0.0.1:{server.port}")
            assert isinstance(await ask(f"{server.url}/x"), Answer)
            assert (len(server.requests), len(proxy.requests)) == (1, 0)
            assert isinstance(await ask(f"{other.url}/x"), Answer)
            assert (len(other.requests), len(proxy.requests)) == (0, 1)
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert isinstance(await ask(f"{other.url}/x"), Answer)
            assert (len(other.requests), len(proxy.requests)) == (1, 1)

    run(scenario())


UNTRUSTED = "the TLS connection to {} cannot be trusted or made"


def test_a_certificate_is_trusted_when_it_is_named_and_the_host_is_in_it(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with scripted(echo, ssl=server_side(certificate)) as server:
            server.scheme = "https"
            assert await cause_of(f"{server.url}/x") == UNTRUSTED.format("127.0.0.1")
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            answer = await ask(f"{server.url}/x")
            assert isinstance(answer, Answer)
            assert answer.body == b"hello"
            localhost = server.url.replace("127.0.0.1", "localhost")
            assert await cause_of(f"{localhost}/x") == UNTRUSTED.format("localhost")
            # What was trusted once is not trusted by those who do not say so.
            monkeypatch.delenv("SSL_CERT_FILE")
            assert await cause_of(f"{server.url}/x") == UNTRUSTED.format("127.0.0.1")
            assert len(server.requests) == 1

    run(scenario())


def test_a_certificate_behind_a_tunnel_is_checked_as_well(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with scripted(tunnel(certificate)) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            url = "https://bucket.s3.amazonaws.com/x"
            assert await cause_of(url) == UNTRUSTED.format("bucket.s3.amazonaws.com")
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            assert await cause_of("https://example.org/x") == UNTRUSTED.format("example.org")
            assert isinstance(await ask(url), Answer)
            # Nothing but the wish for a tunnel was said to those that are not trusted.
            kinds = [request.split()[0] for request in proxy.requests]
            assert kinds == [b"CONNECT", b"CONNECT", b"CONNECT", b"GET"]

    run(scenario())


@pytest.fixture
def lab(certificate: Path, tmp_path: Path) -> Iterator[StaticServer]:
    """A web server whose certificate only those trust who say so."""
    (tmp_path / "zarr.json").write_bytes(b"{}")
    server = StaticServer(tmp_path)
    server.tls = server_side(certificate)
    with server:
        yield server


def fetched(url: str, options: dict[str, Any]) -> bytes:
    found = run(open_transport(locate(url, options)).get("zarr.json"))
    assert found is not None
    return bytes(found.data)


def test_an_authority_of_one_s_own_is_trusted_where_it_is_named(
    lab: StaticServer, certificate: Path, tmp_path: Path
) -> None:
    for options in (
        {"client_kwargs": {"verify": str(certificate)}},
        {"verify": certificate},
        {"ssl": False},
        {"client_kwargs": {"verify": False}},
        {"verify": "false"},
    ):
        assert fetched(lab.url, options) == b"{}"
    for options in ({}, {"verify": True}, {"ssl": None}, {"verify": str(tmp_path)}):
        with pytest.raises(TransportError, match=r"cannot be trusted.*SSL_CERT_FILE.*'verify'"):
            fetched(lab.url, options)
    # Nobody else trusts it because one location did.
    with pytest.raises(TransportError, match="cannot be trusted"):
        fetched(lab.url, {})
    # Whom one trusts is one thing, and who it is another.
    with pytest.raises(TransportError, match="cannot be trusted"):
        fetched(lab.url.replace("127.0.0.1", "localhost"), {"verify": str(certificate)})


def test_s3_takes_its_authority_from_options_or_from_where_aws_tools_take_it(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "zarr.json").write_bytes(b"{}")
    url = s3_server.upload(s3_server.private_bucket, "a.nwb.zarr", tmp_path)
    options = {"key": s3_server.key, "secret": s3_server.secret, "endpoint_url": s3_server.tls_endpoint_url}
    with pytest.raises(TransportError, match="cannot be trusted"):
        fetched(url, options)
    authority = str(s3_server.certificate)
    for client in ({"verify": authority}, {"verify": False}, {"verify": "False"}):
        assert fetched(url, options | {"client_kwargs": client}) == b"{}"
    monkeypatch.setenv("AWS_CA_BUNDLE", authority)
    assert fetched(url, options) == b"{}"
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(TransportError, match="cannot be trusted"):
        fetched(url, options)
    config = tmp_path / "config"
    config.write_text(f"[default]\nca_bundle = {authority}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert fetched(url, options) == b"{}"


def test_use_ssl_decides_where_no_endpoint_does(
    http_server: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", http_server.url)
    for given in ({"use_ssl": False}, {"client_kwargs": {"use_ssl": False}}):
        transport = open_transport(locate("s3://bucket/a", {"anon": True} | given))
        assert run(transport.get("zarr.json")) is None
    assert {seen.headers["Host"] for seen in http_server.requests} == {"bucket.s3.us-east-1.amazonaws.com"}
    assert locate("s3://bucket/a", {"use_ssl": True}) == locate("s3://bucket/a")


@pytest.mark.parametrize("content", [None, b"", b"canary"])
def test_certificates_that_cannot_be_read_are_an_error_at_once(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_bytes(content)
    for url in ("https://127.0.0.1:9/a", "s3://bucket/a"):
        with pytest.raises(LocationError, match="certificates") as raised:
            open_transport(locate(url, {"client_kwargs": {"verify": str(path)}}))
        assert raised.value.location == url
