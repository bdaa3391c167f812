"""Names and addresses: looked up once, each tried in turn; names that are none; proxies."""

import asyncio
import socket
from typing import Any

import pytest

from intake_nwbzarr.errors import HostNotFoundError, TransportError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.location.options import Timeouts
from intake_nwbzarr.transport import connect
from intake_nwbzarr.transport.answers import Failure
from intake_nwbzarr.transport.connect import addresses, ascii_name, proxy_of
from intake_nwbzarr.transport.engine import Answer, Request
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.web import exchange, reach
from tests.servers.http_server import StaticServer
from tests.servers.scripted import Link, scripted
from tests.transport.connected import sized


class Resolver:
    """The system's resolver, which also knows `names`; `asked` is what it was asked for."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self._system = socket.getaddrinfo

    def __call__(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked.append(host)
        found = self.names.get(host, [host])
        return [entry for address in found for entry in self._system(address, port, *args, **kwargs)]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr(connect, "_lookups", {})
    return resolver


async def greet(link: Link) -> None:
    await link.request()
    await link.send(sized(b"hello"))


async def ask(url: str) -> Answer | Failure:
    return await exchange(Request("GET", url, {}, (url, "get")), Timeouts())


@pytest.mark.parametrize("first", [["::1"], ["127.0.0.2"], ["::1", "127.0.0.2"], []])
def test_a_server_is_found_at_whichever_of_its_addresses_it_listens(
    resolver: Resolver, first: list[str]
) -> None:
    resolver.names["localhost"] = [*first, "127.0.0.1"]

    async def scenario() -> None:
        async with scripted(greet) as server:
            answer = await ask(f"http://localhost:{server.port}/x")
            assert isinstance(answer, Answer), answer
            assert server.connections == 1

    run(scenario())


def test_a_server_that_listens_at_none_of_its_addresses_is_one_error(resolver: Resolver) -> None:
    resolver.names["localhost"] = ["127.0.0.1", "127.0.0.1"]

    async def scenario() -> None:
        async with scripted(greet) as gone:
            pass
        failure = await ask(f"http://localhost:{gone.port}/x")
        assert isinstance(failure, Failure)
        assert (failure.error, failure.attempts) == (TransportError, 3)
        assert failure.cause.startswith("no connection to localhost (ECONNREFUSED)")

    run(scenario())


def test_many_at_once_look_a_name_up_once(resolver: Resolver) -> None:
    resolver.names["server.example"] = ["127.0.0.1", "::1"]

    async def scenario() -> None:
        found = await asyncio.gather(*(addresses("server.example") for _ in range(20)))
        assert [{entry[4][0] for entry in entries} for entries in found] == [{"127.0.0.1", "::1"}] * 20
        assert await reach("server.example") == 1

    run(scenario())
    assert resolver.asked.count("server.example") == 1


def test_a_name_is_looked_up_again_when_its_addresses_are_old(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver.names["server.example"] = ["127.0.0.1"]

    async def where() -> str:
        return (await addresses("server.example"))[0][4][0]

    assert run(where()) == "127.0.0.1"
    resolver.names["server.example"] = ["127.0.0.2"]
    # What was checked is what is connected to.
    assert run(where()) == "127.0.0.1"
    monkeypatch.setattr(connect, "_ADDRESSES_REMEMBERED", 0.0)
    assert run(where()) == "127.0.0.2"


def test_a_failed_lookup_is_not_remembered(resolver: Resolver) -> None:
    resolver.names["server.example"] = ["no-such-host.invalid"]
    with pytest.raises(socket.gaierror):
        run(addresses("server.example"))
    resolver.names["server.example"] = ["127.0.0.1"]
    assert len(run(addresses("server.example"))) == 1
    assert resolver.asked.count("server.example") == 2


def test_one_who_gives_up_leaves_the_lookup_to_the_others(resolver: Resolver) -> None:
    resolver.names["server.example"] = ["127.0.0.1"]

    async def scenario() -> None:
        hasty, patient = (asyncio.ensure_future(addresses("server.example")) for _ in range(2))
        await asyncio.sleep(0)
        hasty.cancel()
        assert len(await patient) == 1
        assert hasty.cancelled()

    run(scenario())
    assert resolver.asked.count("server.example") == 1


NO_NAMES = [
    "a..b",
    f"{'a' * 64}.example",
    f"{'a.' * 200}b",
    ".example",
    "ü..example",
    "\N{WAVY DASH}.example",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_reached_by_nobody(name: str) -> None:
    assert run(reach(name)) is None
    failure = run(ask(f"http://{name}/x"))
    assert isinstance(failure, Failure)
    assert issubclass(failure.error, TransportError)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_redirect_to_what_is_no_name_is_one_error(name: str, http_server: StaticServer) -> None:
    http_server.fault("redirect", times=9, status=302, to=f"http://{name}/x")
    with pytest.raises(HostNotFoundError, match="a name that does not resolve"):
        run(open_transport(locate(http_server.url)).get("chunk"))
    assert http_server.count() == 1


def test_the_name_that_is_checked_is_the_one_that_is_connected_to(resolver: Resolver) -> None:
    # By the rules of 2003 it would be fass.example, whoever that is.
    name = "xn--fa-hia.example"
    resolver.names[name] = ["127.0.0.1"]

    async def scenario() -> None:
        async with scripted(greet) as server:
            assert await reach("faß.example") == 1
            assert isinstance(await ask(f"http://faß.example:{server.port}/x"), Answer)

    run(scenario())
    assert {asked for asked in resolver.asked if asked.endswith(".example")} == {name}
    assert ascii_name("faß.example") == name
    assert ascii_name("Plain.example") == "Plain.example"


@pytest.mark.parametrize(
    ("settings", "url", "expected"),
    [
        ({}, "http://example.org", None),
        ({"http_proxy": "http://proxy:3128"}, "http://example.org", "http://proxy:3128"),
        ({"http_proxy": "http://proxy:3128"}, "https://example.org", None),
        ({"HTTPS_PROXY": "http://me:secret@proxy:3128"}, "https://example.org", "http://me:secret@proxy:3128"),
        ({"http_proxy": "proxy:3128"}, "http://example.org", "http://proxy:3128"),
        ({"http_proxy": "me:secret@proxy:3128"}, "http://example.org", "http://me:secret@proxy:3128"),
        ({"http_proxy": ""}, "http://example.org", None),
        ({"http_proxy": "proxy:1", "no_proxy": "example.org"}, "http://data.example.org:80", None),
        ({"http_proxy": "proxy:1", "no_proxy": ".example.org"}, "http://data.example.org", None),
        ({"http_proxy": "proxy:1", "no_proxy": "example.org"}, "http://example.com", "http://proxy:1"),
        ({"http_proxy": "proxy:1", "no_proxy": "x, data.example.org:81"}, "http://data.example.org:81", None),
        ({"http_proxy": "proxy:1", "no_proxy": "data.example.org:81"}, "http://data.example.org:80",
         "http://proxy:1"),
        ({"http_proxy": "proxy:1", "no_proxy": "*"}, "http://example.org", None),
        ({"http_proxy": "proxy:1", "no_proxy": "::1"}, "http://[::1]:80", None),
        ({"http_proxy": "proxy:1"}, "no address", None),
    ],
)  # fmt: skip
def test_proxies_are_those_that_the_environment_names(
    settings: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == expected
