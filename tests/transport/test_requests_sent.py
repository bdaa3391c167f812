"""Requests as they are sent, and what cannot be sent."""

import asyncio
from typing import Any

import pytest

from intake_nwbzarr.errors import TransportError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.location.options import Timeouts
from intake_nwbzarr.transport.answers import Failure
from intake_nwbzarr.transport.engine import Answer, Request
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import track_requests
from intake_nwbzarr.transport.web import exchange
from tests.servers.scripted import Link, scripted
from tests.transport.connected import sized


def lines_of(request: bytes) -> tuple[str, dict[str, str]]:
    """A request's first line, and its headers."""
    first, *headers = request.decode().partition("\r\n\r\n")[0].split("\r\n")
    return first, dict(line.split(": ", 1) for line in headers)


async def echo(link: Link) -> None:
    while True:
        await link.request()
        await link.send(sized(b"hello"))


async def ask(url: str, **details: Any) -> Answer | Failure:
    details = {"method": "GET", "headers": {}} | details
    return await exchange(Request(url=url, counted=(url, "get"), **details), Timeouts())


@pytest.mark.parametrize(
    ("path", "target"),
    [("", "/"), ("/", "/"), ("?a=b", "/?a=b"), ("/a%2Fb/%C3%BC?x=1&y=%20", "/a%2Fb/%C3%BC?x=1&y=%20"),
     ("/a/../b//c", "/a/../b//c"), ("/a#fragment", "/a"), ("/é", "/é")],
)  # fmt: skip
def test_a_path_is_sent_as_it_stands(path: str, target: str) -> None:
    async def scenario() -> None:
        async with scripted(echo) as server:
            assert isinstance(await ask(server.url + path), Answer)
            first, headers = lines_of(server.requests[0])
            assert first == f"GET {target} HTTP/1.1"
            assert headers["Host"] == f"127.0.0.1:{server.port}"
            assert headers["Accept-Encoding"] == "identity"

    run(scenario())


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://example.org/x", "example.org"),
        ("http://example.org:80/x", "example.org"),
        ("http://example.org:8080/x", "example.org:8080"),
        ("http://example.org./x", "example.org"),
        ("http://[2001:db8::1]/x", "[2001:db8::1]"),
        ("http://[2001:db8::1]:8080/x", "[2001:db8::1]:8080"),
        ("http://me:canary@example.org/x", "example.org"),
        ("http://bücher.example/x", "xn--bcher-kva.example"),
        ("http://faß.example:81/x", "xn--fa-hia.example:81"),
    ],
)
def test_a_host_is_named_as_http_wants_it(url: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with scripted(echo) as proxy:
            # A proxy takes requests for hosts that there are not.
            monkeypatch.setenv("http_proxy", proxy.url)
            assert isinstance(await ask(url), Answer)
            first, headers = lines_of(proxy.requests[0])
            assert (first, headers["Host"]) == (f"GET http://{host}/x HTTP/1.1", host)

    run(scenario())


def test_headers_of_the_caller_replace_ours_and_a_body_has_its_length() -> None:
    async def scenario() -> None:
        async with scripted(echo) as server:
            headers = {"user-agent": "mine", "X-Name": "é"}
            assert isinstance(await ask(server.url, method="PUT", headers=headers, body=b"data"), Answer)
            first, seen = lines_of(server.requests[0])
            assert first == "PUT / HTTP/1.1"
            assert {name.lower(): value for name, value in seen.items()} == {
                "host": f"127.0.0.1:{server.port}", "accept": "*/*", "accept-encoding": "identity",
                "user-agent": "mine", "x-name": "é", "content-length": "4",
            }  # fmt: skip
            assert server.requests[0].endswith(b"\r\n\r\ndata")

    run(scenario())


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/a b", {}),
        ("/a\tb", {}),
        ("/a HTTP/1.1\r\nHost: evil", {}),
        ("/\udcff", {}),
        ("/x", {"X-Name": "a\r\nX-Other: b"}),
        ("/x", {"X-Name\nX-Other": "a"}),
        ("/x", {"X-Name": "a\0"}),
        ("/x", {"X-Name": "\udcff"}),
    ],
)
def test_what_would_be_another_request_is_not_sent(path: str, headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with scripted(echo) as server:
            failure = await ask(server.url + path, headers=headers)
            assert isinstance(failure, Failure)
            assert (failure.error, failure.attempts) == (TransportError, 1)
            assert "is not valid in HTTP" in failure.cause
            assert server.connections == 0

    with track_requests() as log:
        run(scenario())
    assert log.requests == 0


@pytest.mark.parametrize(
    "url", ["http://h:99999/", "http://h:0/", "ftp://h/", "http://[::1/", "http:///x", "h"]
)
def test_what_is_no_address_is_one_clear_failure(url: str) -> None:
    failure = run(ask(url))
    assert isinstance(failure, Failure)
    assert "is not valid in HTTP" in failure.cause


def test_a_request_shows_no_secrets() -> None:
    request = Request("PUT", "http://h/?canary=1", {"A": "canary"}, ("http://h", "put"), body=b"canary")
    assert "canary" not in repr(request)
    assert "http://h" in repr(request)


def test_no_error_shows_headers_or_queries() -> None:
    async def broken(link: Link) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 200 canary\r\ncanary")

    async def serve(done: asyncio.Event, port: asyncio.Future[int]) -> None:
        async with scripted(broken) as server:
            port.set_result(server.port)
            await done.wait()

    async def scenario() -> BaseException:
        done, port = asyncio.Event(), asyncio.get_running_loop().create_future()
        serving = asyncio.ensure_future(serve(done, port))
        options = {"headers": {"Authorization": "canary"}, "timeouts": {"backoff": 0.01, "attempts": 2}}
        location = locate(f"http://127.0.0.1:{await port}/x?token=canary", options)
        (error,) = await asyncio.gather(open_transport(location).get("zarr.json"), return_exceptions=True)
        done.set()
        await serving
        assert isinstance(error, BaseException)
        return error

    error: BaseException | None = run(scenario())
    assert isinstance(error, TransportError)
    assert "the response was truncated, after 2 attempts" in str(error)
    while error is not None:
        assert "canary" not in repr(error)
        error = error.__cause__ or error.__context__
