"""Secrets: kept in their process, shown nowhere, and sent along only when asked."""

import contextlib
import gc
import io
import logging
import math
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.base
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from intake_nwbzarr.credentials import Secrets, Shipment, s3_access
from intake_nwbzarr.errors import CredentialsError, NWBZarrError
from intake_nwbzarr.location import Location, locate
from intake_nwbzarr.transport.requests import open_transport, run, track_requests
from intake_nwbzarr.transport.wire import Request
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

CANARY = "canary4f1d"


def given_every_way(s3: S3Server, http: StaticServer) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way to give a secret, as (location, storage options)."""
    quick = {"timeouts": {"backoff": 0.01, "stall": 0.2, "attempts": 2}}
    keys = {"key": f"AKIA{CANARY}", "secret": f"{CANARY}/secret", "token": f"{CANARY}-token"}
    endpoint = {"endpoint_url": s3.endpoint_url}
    bucket = f"s3://{s3.private_bucket}/a"
    yield bucket, keys | endpoint | quick
    botocores = {"aws_access_key_id": CANARY, "aws_secret_access_key": CANARY}
    yield bucket, {"client_kwargs": botocores | endpoint} | quick
    yield f"s3://{CANARY}:{CANARY}@{s3.private_bucket}/a", endpoint | quick
    host = http.url.removeprefix("http://")
    yield f"http://{CANARY}:{CANARY}@{host}/a", quick
    yield f"http://{host}/a?X-Amz-Signature={CANARY}&X-Amz-Credential={CANARY}", quick
    yield f"http://{host}/a", {"headers": {"Authorization": f"Bearer {CANARY}"}} | quick
    yield f"http://{host}/a.zip", {"client_kwargs": {"headers": {"X-Token": CANARY}}} | quick
    yield f"simplecache::http://{CANARY}:{CANARY}@{host}/a", {"http": {"headers": {"X": CANARY}}} | quick
    yield f"simplecache::http://{host}/a?sig={CANARY}", quick


def everything_said(error: BaseException) -> str:
    """An error with all it drags along: causes, contexts, arguments, attributes."""
    said = "".join(traceback.format_exception(error))
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        said += f"{one!r} {one.args!r} {vars(one)!r}"
        pending += [one.__cause__, one.__context__]
    return said


def failures_of(location: Location, said: io.StringIO) -> Iterator[NWBZarrError]:
    try:
        transport = open_transport(location)
    except NWBZarrError as error:
        yield error
        return
    said.write(f"{transport!r} {pickle.dumps(transport)!r}")
    for call in (transport.get("k", start=0, stop=9), transport.list(), transport.put("k", b"")):
        try:
            run(call)
        except NWBZarrError as error:
            yield error


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": 403, "code": "AccessDenied"}),
    ("status", {"status": 400, "code": "AuthorizationHeaderMalformed"}),
    ("status", {"status": 503}),
    ("status", {"status": 301, "code": "PermanentRedirect"}),
    ("expired", {}),
    ("redirect", {"status": 307, "to": f"http://{CANARY}@127.0.0.1/x?{CANARY}"}),
    ("reset", {}),
    ("truncate", {}),
    ("stall", {}),
    ("ignore_range", {}),
]


@pytest.mark.parametrize(("kind", "details"), FAULTS)
def test_no_failure_shows_a_secret(
    s3_server: S3Server,
    http_server: StaticServer,
    caplog: pytest.LogCaptureFixture,
    kind: Any,
    details: dict[str, Any],
) -> None:
    said = io.StringIO()
    with (
        caplog.at_level(logging.DEBUG, "intake_nwbzarr"),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        track_requests() as log,
    ):
        for url, options in given_every_way(s3_server, http_server):
            for server in (s3_server, http_server):
                server.reset()
                server.fault(kind, times=math.inf, **details)
            location = locate(url, options)
            said.write(
                f"{location!r} {location} {vars(location)} {location.secrets!r} {location.attributes()}"
            )
            said.write(f"{location.cache_key!r} {location.__dask_tokenize__()} {pickle.dumps(location)!r}")
            for error in failures_of(location, said):
                said.write(everything_said(error))
    text = said.getvalue() + caplog.text + str(log) + repr(log)
    where = text.find(CANARY)
    assert where < 0, text[max(0, where - 300) : where + 100]
    gc.collect()


def test_a_secret_is_used_all_the_same(http_server: StaticServer) -> None:
    (http_server.root / "k").write_bytes(b"x")
    http_server.authorization = "Basic bWU6cHc="
    assert run(open_transport(locate(http_server.url.replace("//", "//me:pw@"))).get("k")) is not None
    http_server.authorization = f"Bearer {CANARY}"
    options = {"headers": {"Authorization": f"Bearer {CANARY}"}}
    assert run(open_transport(locate(http_server.url, options)).get("k")) is not None
    http_server.authorization, http_server.query = None, "sig=a%2Fb&x=1"
    assert run(open_transport(locate(f"{http_server.url}/?sig=a%2Fb&x=1")).get("k")) is not None


WORKER = """
import pickle, sys
from intake_nwbzarr.errors import NWBZarrError
from intake_nwbzarr.transport.requests import open_transport, run
location = pickle.load(sys.stdin.buffer)
try:
    print(run(open_transport(location).get("k")).data.decode())
    from intake_nwbzarr.location import Location
    assert Location.from_attributes(location.attributes()) == location
except NWBZarrError as error:
    print(type(error).__name__, error)
"""


def in_another_process(location: Location) -> str:
    payload = pickle.dumps(location)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WORKER], input=payload, capture_output=True, timeout=60
    )
    assert done.stderr == b"", done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture
def private(s3_server: S3Server, tmp_path: Path) -> str:
    (tmp_path / "k").write_text("value")
    s3_server.upload(s3_server.private_bucket, "worker/k", tmp_path / "k")
    return f"s3://{s3_server.private_bucket}/worker"


def test_secrets_stay_behind_and_the_error_says_what_to_do(s3_server: S3Server, private: str) -> None:
    said = in_another_process(locate(private, s3_server.signed_options))
    assert said.startswith("CredentialsError")
    assert "ship_credentials" in said
    assert "AWS_ACCESS_KEY_ID" in said


def test_a_worker_has_credentials_of_its_own(
    s3_server: S3Server, private: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = locate(private, s3_server.signed_options)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    assert in_another_process(location).strip() == "value"


def test_secrets_are_shipped_when_asked(s3_server: S3Server, private: str) -> None:
    location = locate(private, s3_server.signed_options | {"ship_credentials": True})
    assert s3_server.secret.encode() in pickle.dumps(location)
    assert in_another_process(location).strip() == "value"
    plain = locate(private, s3_server.signed_options)
    assert dask.base.tokenize(location) == dask.base.tokenize(plain)


def test_a_shipment_is_masked() -> None:
    assert repr(Shipment({"secret": CANARY})) == "Shipment(****)"
    assert repr(Secrets.keep({"secret": CANARY})) == "Secrets(****)"


def test_equal_secrets_are_equal_and_others_are_not() -> None:
    assert Secrets.keep({"a": 1, "b": 2}) == Secrets.keep({"b": 2, "a": 1})
    assert Secrets.keep({"a": 1}) != Secrets.keep({"a": 2})


def test_half_a_pair_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CANARY)
    with pytest.raises(CredentialsError, match="incomplete") as caught:
        s3_access({}, None, "s3://bucket/a")
    assert CANARY not in everything_said(caught.value)


def test_a_damaged_configuration_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"aws_secret_access_key = {CANARY}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(CredentialsError, match="cannot be read") as caught:
        s3_access({}, None, "s3://bucket/a")
    assert CANARY not in everything_said(caught.value)


def test_the_machine_is_asked_for_a_role_only_on_request(
    http_server: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", http_server.url)
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    # Something AWS-like is set, so the full search runs.
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert s3_access({}, None, "s3://bucket/a").signer is None
    assert http_server.count() == 0
    with pytest.raises(CredentialsError, match="machine's role gives none"):
        s3_access({"instance_role": True}, None, "s3://bucket/a")
    assert http_server.count() > 0


def test_a_public_bucket_costs_no_import_of_botocore() -> None:
    code = (
        "import sys; from intake_nwbzarr.location import locate; "
        "from intake_nwbzarr.transport.requests import open_transport; "
        "open_transport(locate('s3://bucket/a', {'anon': True})); assert 'botocore' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_signing_is_not_logged_and_what_others_sign_is(
    s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {"key": CANARY, "secret": CANARY, "token": CANARY, "endpoint_url": s3_server.endpoint_url}
    transport = open_transport(locate(f"s3://{s3_server.private_bucket}/logged", keys))
    with caplog.at_level(logging.DEBUG):
        with contextlib.suppress(NWBZarrError):
            run(transport.get("k"))
        assert s3_server.count("logged") > 0
        assert CANARY not in caplog.text
        request = AWSRequest("GET", "http://host/", {})
        S3SigV4Auth(Credentials("other", "other", "others-token"), "s3", "us-east-1").add_auth(request)
    assert "others-token" in caplog.text


def test_a_request_shows_no_headers() -> None:
    assert CANARY not in repr(Request("GET", "http://host/", {"Authorization": CANARY}, ("", "get")))
