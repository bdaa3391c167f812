"""What goes wrong on the wire: the outcome of each fault, and how many attempts it takes."""

import math
import pickle
import socket
import time
from typing import Any

import pytest

from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    HostNotFoundError,
    LimitError,
    ListingError,
    NWBZarrError,
    ObjectChangedError,
    ResponseError,
    TransportError,
)
from intake_nwbzarr.limits import set_limits
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.base import Transport, begin_session
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import fetch_many, open_transport
from intake_nwbzarr.transport.request_log import track_requests
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

DATA = bytes(range(256)) * 400
QUICK = {"connect": 2, "stall": 0.3, "backoff": 0.01, "attempts": 4}


@pytest.fixture(params=["http", "s3"])
def server(request: pytest.FixtureRequest, tmp_path: Any) -> StaticServer | S3Server:
    """Either server, with the object `chunk`."""
    found: StaticServer | S3Server = request.getfixturevalue(f"{request.param}_server")
    if isinstance(found, S3Server):
        (tmp_path / "faulty").mkdir()
        (tmp_path / "faulty" / "chunk").write_bytes(DATA)
        found.upload(found.private_bucket, "faulty", tmp_path / "faulty")
    else:
        (found.root / "chunk").write_bytes(DATA)
    return found


def source(server: StaticServer | S3Server, **timeouts: float) -> Transport:
    options: dict[str, Any] = {"timeouts": QUICK | timeouts}
    if isinstance(server, S3Server):
        return open_transport(locate(f"s3://{server.private_bucket}/faulty", options | server.signed_options))
    return open_transport(locate(server.url, options))


REPEATED: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": 503}),
    ("status", {"status": 500}),
    ("status", {"status": 429, "code": "TooManyRequests"}),
    ("status", {"status": 408, "code": "RequestTimeout"}),
    ("reset", {}),
    ("truncate", {}),
    ("stall", {}),
]


@pytest.mark.parametrize(("kind", "details"), REPEATED)
def test_a_passing_fault_is_repeated(
    server: StaticServer | S3Server, kind: Any, details: dict[str, Any]
) -> None:
    server.fault(kind, "chunk", **details)
    with track_requests() as log:
        fetched = run(source(server).get("chunk"))
    assert fetched is not None
    assert fetched.data == DATA
    assert log.requests == server.count("chunk") == 2
    assert log.retries == 1
    assert log.bytes_used == len(DATA) <= log.bytes


@pytest.mark.parametrize(("kind", "details"), REPEATED)
def test_a_lasting_fault_is_one_error_that_names_cause_and_attempts(
    server: StaticServer | S3Server, kind: Any, details: dict[str, Any]
) -> None:
    server.fault(kind, "chunk", times=math.inf, **details)
    with track_requests() as log, pytest.raises(TransportError, match=r"(after 4 attempts|closed)") as caught:
        run(source(server).get("chunk"))
    assert "/chunk: " in str(caught.value)
    assert log.requests == server.count("chunk") >= 4
    assert log.bytes_used == 0


@pytest.mark.parametrize("kind", ["short", "shifted"])
def test_a_range_that_was_not_asked_for_is_repeated_then_refused(
    server: StaticServer | S3Server, kind: Any
) -> None:
    server.fault(kind, "chunk")
    fetched = run(source(server).get("chunk", start=10, stop=20))
    assert fetched is not None
    assert fetched.data == DATA[10:20]
    server.fault(kind, "chunk", times=math.inf)
    with pytest.raises(ResponseError, match="instead of 10-19, after 4 attempts"):
        run(source(server).get("chunk", start=10, stop=20))


def test_an_ignored_range_is_an_error_at_once(server: StaticServer | S3Server) -> None:
    server.fault("ignore_range", "chunk", times=math.inf)
    with track_requests() as log, pytest.raises(ResponseError, match="ignored the Range header"):
        run(source(server).get("chunk", start=0, stop=10))
    assert log.requests == 1


def test_a_range_beyond_the_end_is_an_error_and_not_a_shorter_one(server: StaticServer | S3Server) -> None:
    with pytest.raises(ResponseError, match="the object ends at 102400 bytes"):
        run(source(server).get("chunk", start=len(DATA) - 5, stop=len(DATA) + 5))
    with pytest.raises(ResponseError):
        run(source(server).get("chunk", start=len(DATA), stop=len(DATA) + 5))
    whole = run(source(server).get("chunk", suffix=len(DATA) + 5))
    assert whole is not None
    assert whole.data == DATA


def test_a_changed_etag_is_an_error_and_not_a_mixture(server: StaticServer | S3Server) -> None:
    first = run(source(server).get("chunk", start=0, stop=10))
    assert first is not None
    server.fault("etag", "chunk")
    with pytest.raises(ObjectChangedError, match="replaced while it was being read"):
        run(source(server).get("chunk", start=10, stop=20, etag=first.etag))
    assert run(source(server).get("chunk", start=10, stop=20, etag=first.etag)) is not None


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "InvalidRequest", ResponseError),
        (401, "Unauthorized", CredentialsError),
        (403, "AccessDenied", AccessError),
        (403, "InvalidAccessKeyId", CredentialsError),
        (416, "InvalidRange", ResponseError),
    ],
)
def test_a_refusal_is_not_repeated(
    server: StaticServer | S3Server, status: int, code: str, error: type[NWBZarrError]
) -> None:
    server.fault("status", "chunk", times=math.inf, status=status, code=code)
    with pytest.raises(error, match=str(status)):
        run(source(server).get("chunk"))
    assert server.count() == 1


def test_a_missing_object_is_none_after_one_request(server: StaticServer | S3Server) -> None:
    assert run(source(server).get("no/such/.zattrs")) is None
    assert server.count() == 1


def test_more_bytes_than_allowed_are_not_received(server: StaticServer | S3Server) -> None:
    with track_requests() as log, pytest.raises(LimitError, match=r"102.4 kB, and 100 B are allowed"):
        run(source(server).get("chunk", limit=100))
    assert (log.requests, log.bytes_used) == (1, 0)


def test_a_request_ends_with_its_time(server: StaticServer | S3Server) -> None:
    server.fault("stall", "chunk", times=math.inf)
    began = time.monotonic()
    with pytest.raises(TransportError, match=r"within 0.5 s"):
        run(source(server, stall=30, total=0.5).get("chunk"))
    assert time.monotonic() - began < 5


def test_a_server_that_asks_for_patience_gets_it(server: StaticServer | S3Server) -> None:
    server.fault("status", "chunk", headers={"Retry-After": "1"})
    began = time.monotonic()
    assert run(source(server).get("chunk")) is not None
    assert time.monotonic() - began >= 1


def test_signed_requests_follow_no_redirect(s3_server: S3Server, http_server: StaticServer) -> None:
    s3_server.fault("redirect", times=math.inf, status=307, to=f"{http_server.url}/stolen?canary=1")
    location = locate(f"s3://{s3_server.private_bucket}/x", s3_server.signed_options)
    with pytest.raises(AccessError, match="credentials do not follow") as caught:
        run(open_transport(location).get("chunk"))
    assert http_server.count() == 0
    assert "canary" not in str(caught.value)
    for options in ({"headers": {"Authorization": "Bearer canary"}}, {}):
        http_server.fault("redirect", "chunk", status=302, to=f"http://localhost:{s3_server.port}/")
        url = http_server.url if options else http_server.url.replace("//", "//me:canary@")
        before = s3_server.count()
        with pytest.raises(AccessError, match="credentials do not follow"):
            run(open_transport(locate(url, options)).get("chunk"))
        assert s3_server.count() == before


def test_unsigned_requests_follow_three_redirects(http_server: StaticServer) -> None:
    (http_server.root / "chunk").write_bytes(DATA)
    http_server.fault("redirect", "/chunk", times=3, status=302, to="/chunk?again")
    fetched = run(source(http_server).get("chunk"))
    assert fetched is not None
    assert fetched.data == DATA
    http_server.fault("redirect", "/chunk", times=4, status=302, to="/chunk")
    with pytest.raises(TransportError, match="more than 3 redirects"):
        run(source(http_server).get("chunk"))


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/x"])
def test_no_redirect_leads_to_a_link_local_host(http_server: StaticServer, target: str) -> None:
    http_server.fault("redirect", status=302, to=target)
    with pytest.raises(AccessError, match="a private address"):
        run(source(http_server).get("chunk"))


def test_a_redirect_to_an_unknown_name_is_an_error(http_server: StaticServer) -> None:
    http_server.fault("redirect", status=302, to="http://no-such-host.invalid/x")
    with pytest.raises(HostNotFoundError, match=r"redirects to http://no-such-host\.invalid"):
        run(source(http_server).get("chunk"))


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://me:canary@127.0.0.1/",
        "",
        "http://[::1",
        "//[",
        "//[::1]x:80",
        "http://[v1.x]/",
        "http://a]b/",
        "http://[1.2.3.4]/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:0/",
        "http://a b/",
        "http://" + "a" * 300 + "/",
        "http://..../",
        "http://\u2100.example/",
    ],
)
def test_a_redirect_to_no_web_address_is_an_error(http_server: StaticServer, target: str) -> None:
    http_server.fault("redirect", times=9, status=302, to=target)
    with pytest.raises((ResponseError, TransportError)) as caught:
        run(source(http_server).get("chunk"))
    assert "canary" not in str(caught.value)


def test_an_unknown_host_is_said_quickly() -> None:
    began = time.monotonic()
    location = locate("https://no-such-host.invalid/a.nwb.zarr", {"timeouts": {"backoff": 0.01}})
    with (
        track_requests() as log,
        pytest.raises(HostNotFoundError, match=r"no-such-host\.invalid does not resolve"),
    ):
        run(open_transport(location).get("zarr.json"))
    assert time.monotonic() - began < 5
    assert log.requests == 0


def test_a_closed_port_is_an_error_after_three_attempts() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    location = locate(f"http://127.0.0.1:{port}/", {"timeouts": {"backoff": 0.01}})
    with pytest.raises(
        TransportError, match=r"no connection to 127.0.0.1 \(ECONNREFUSED\), after 3 attempts"
    ):
        run(open_transport(location).get("zarr.json"))


def test_http_cannot_be_listed_and_says_what_to_do(http_server: StaticServer) -> None:
    with pytest.raises(ListingError, match="nwbzarr consolidate"):
        run(source(http_server).list())
    assert http_server.count() == 0


def test_one_failure_among_many_ends_them_all(http_server: StaticServer) -> None:
    for number in range(300):
        (http_server.root / f"{number}").write_bytes(b"x")
    http_server.latency = 0.01
    http_server.fault("status", "/20", status=403, code="AccessDenied")
    with pytest.raises(AccessError):
        fetch_many(source(http_server), [str(number) for number in range(300)])
    assert http_server.count() < 200


def test_requests_in_flight_keep_to_the_budget(http_server: StaticServer) -> None:
    for number in range(200):
        (http_server.root / f"{number}").write_bytes(b"x")
    http_server.latency = 0.05
    before = set_limits()
    set_limits(requests=40)
    try:
        assert None not in fetch_many(source(http_server), [str(number) for number in range(200)])
    finally:
        set_limits(requests=before.requests)
    # Earlier overloads may have lowered it for this process.
    assert 4 <= http_server.most_at_once <= 40


@pytest.mark.parametrize(("kind", "details"), REPEATED)
def test_an_error_that_may_pass_says_so_also_after_pickling(
    server: StaticServer | S3Server, kind: Any, details: dict[str, Any]
) -> None:
    server.fault(kind, "chunk", times=math.inf, **details)
    with pytest.raises(TransportError) as caught:
        run(source(server, attempts=1).get("chunk"))
    assert caught.value.transient
    assert pickle.loads(pickle.dumps(caught.value)).transient


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 412, 416])
def test_an_error_that_lasts_says_so(server: StaticServer | S3Server, status: int) -> None:
    server.fault("status", times=math.inf, status=status, code="Other")
    with pytest.raises(NWBZarrError) as caught:
        run(source(server).get("chunk"))
    assert not caught.value.transient
    assert not pickle.loads(pickle.dumps(caught.value)).transient


def test_a_refused_connection_may_pass_and_an_unknown_name_does_not() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for host, transient in (
            (f"127.0.0.1:{unused.getsockname()[1]}", True),
            ("no-such-host.invalid", False),
        ):
            with pytest.raises(TransportError) as caught:
                run(open_transport(locate(f"http://{host}", {"timeouts": QUICK})).get("chunk"))
            assert caught.value.transient is transient or "EAI_AGAIN" in str(caught.value)


def test_all_reads_of_a_session_end_with_its_time(server: StaticServer | S3Server) -> None:
    server.fault("stall", times=math.inf)
    transport = source(server, stall=5, session=0.5)
    began = time.monotonic()
    for key in ("chunk", "chunk", "other"):
        with pytest.raises(TransportError, match=r"0\.5 s, timeouts=") as caught:
            run(transport.get(key))
        assert caught.value.transient
    assert time.monotonic() - began < 3
    assert server.count() <= 1
    server.reset()
    begin_session(transport.location)
    assert run(transport.get("chunk")) is not None


def test_a_pause_does_not_go_beyond_the_time_of_a_session(server: StaticServer | S3Server) -> None:
    server.fault("status", times=math.inf, status=503)
    began = time.monotonic()
    with pytest.raises(TransportError, match="timeout of 1 s"):
        run(source(server, attempts=50, backoff=0.2, session=1).get("chunk"))
    assert time.monotonic() - began < 3


def test_the_time_of_a_session_begins_anew_when_nothing_was_asked_for_as_long(
    http_server: StaticServer,
) -> None:
    (http_server.root / "chunk").write_bytes(b"1")
    transport = source(http_server, session=0.4)
    run(transport.get("chunk"))
    time.sleep(0.5)
    assert run(transport.get("chunk")) is not None
