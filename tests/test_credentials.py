"""Secrets: kept in their process, shown nowhere, and sent along only when asked."""

import contextlib
import gc
import io
import json
import logging
import math
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dask.base
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given, settings
from hypothesis import strategies as st

from intake_nwbzarr.errors import CredentialsError, NWBZarrError
from intake_nwbzarr.location.credentials import Keys, Secrets, Shipment, mask_secrets, s3_access, unlogged
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.transport.engine import Request
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import track_requests
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
    with pytest.raises(TypeError) as refused:
        pickle.dumps(transport)
    said.write(f"{transport!r} {refused.value}")
    for call in (transport.get("k", start=0, stop=9), transport.list(), transport.put("k", b"")):
        try:
            run(call)
        except NWBZarrError as error:
            yield error


FAULTS: list[Any] = [
    ("status", {"status": 403, "code": "AccessDenied"}),
    ("status", {"status": 400, "code": "AuthorizationHeaderMalformed"}),
    ("status", {"status": 503}),
    ("status", {"status": 301, "code": "PermanentRedirect"}),
    ("expired", {}),
    ("redirect", {"status": 307, "to": f"http://{CANARY}@127.0.0.1/x?{CANARY}"}),
    ("reset", {}),
    ("truncate", {}),
    pytest.param("stall", {}, marks=pytest.mark.slow),
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
        caplog.at_level(logging.DEBUG),
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
from intake_nwbzarr.transport.open import open_transport, run
location = pickle.load(sys.stdin.buffer)
try:
    print(run(open_transport(location).get("k")).data.decode())
    from intake_nwbzarr.location.location import Location
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


@pytest.mark.slow
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


def test_the_instance_metadata_service_is_asked_only_with_instance_role(
    http_server: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", http_server.url)
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    # Something AWS-like is set, so the full search runs.
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert s3_access({}, None, "s3://bucket/a").signer is None
    assert http_server.count() == 0
    with pytest.raises(CredentialsError, match="instance role provides none"):
        s3_access({"instance_role": True}, None, "s3://bucket/a")
    assert http_server.count() > 0


WITHOUT_BOTOCORE = """
import json, sys
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.open import open_transport, run
url, options = sys.argv[1], json.loads(sys.argv[2])
assert run(open_transport(locate(url, options)).get("k")).data == b"value"
assert "botocore" not in sys.modules
"""


@pytest.mark.parametrize("identity", ["anonymous", "given", "environment"])
def test_keys_that_are_given_or_in_the_environment_cost_no_import_of_botocore(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str
) -> None:
    (tmp_path / "k").write_text("value")
    bucket = s3_server.public_bucket if identity == "anonymous" else s3_server.private_bucket
    url = s3_server.upload(bucket, "light", tmp_path)
    options = {"anonymous": s3_server.anonymous_options, "given": s3_server.signed_options}.get(identity, {})
    if identity == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    subprocess.run([sys.executable, "-c", WITHOUT_BOTOCORE, url, json.dumps(options)], check=True, timeout=60)


def access_or_error(environment: dict[str, str], public: dict[str, Any], secrets: Secrets | None) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            access = s3_access(public, secrets, "s3://bucket/a")
        except CredentialsError as error:
            return str(error)
        keys = run(access.signer.current()) if access.signer is not None else None
    return access.endpoint_url, access.region or None, keys


EVERYTHING = {
    "AWS_ACCESS_KEY_ID": "AKIA",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SECURITY_TOKEN": "older",
    "AWS_SESSION_TOKEN": "newer",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "us-west-2",
    "AWS_ENDPOINT_URL": "https://lab.example",
    "AWS_ENDPOINT_URL_S3": "https://s3.lab.example",
}


@settings(deadline=None)
@given(
    environment=st.fixed_dictionaries(
        {},
        optional={
            "AWS_ACCESS_KEY_ID": st.sampled_from(["", "AKIA"]),
            "AWS_SECRET_ACCESS_KEY": st.sampled_from(["", "secret"]),
            "AWS_SECURITY_TOKEN": st.sampled_from(["", "older"]),
            "AWS_SESSION_TOKEN": st.sampled_from(["", "newer"]),
            "AWS_CREDENTIAL_EXPIRATION": st.sampled_from(["", "2100-01-01T00:00:00Z"]),
            "AWS_PROFILE": st.sampled_from(["", "default", "unknown"]),
            "AWS_REGION": st.sampled_from(["", "eu-west-1"]),
            "AWS_DEFAULT_REGION": st.sampled_from(["", "us-west-2"]),
            "AWS_ENDPOINT_URL": st.sampled_from(["", "https://lab.example/"]),
            "AWS_ENDPOINT_URL_S3": st.sampled_from(["", "https://s3.lab.example"]),
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": st.sampled_from(["", "false", "True"]),
        },
    ),
    public=st.fixed_dictionaries(
        {}, optional={"region": st.just("eu-west-3"), "endpoint_url": st.just("https://given.example")}
    ),
    identity=st.sampled_from(["given", "anon", "ambient"]),
)
@example(environment=EVERYTHING, public={}, identity="ambient")
def test_the_environment_says_the_same_without_botocore(
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
    public: dict[str, Any],
    identity: str,
) -> None:
    # A file, even an empty one, is left to botocore.
    empty = tmp_path_factory.getbasetemp() / "empty"
    empty.touch()
    secrets = Secrets.keep({"key": "k", "secret": "s"}) if identity == "given" else None
    public = public | ({"anon": True} if identity == "anon" else {})
    read = access_or_error(environment | {"AWS_CONFIG_FILE": str(empty)}, public, secrets)
    assert access_or_error(environment, public, secrets) == read


def test_expired_credentials_that_cannot_be_refreshed_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.setenv(f"AWS_{name}", CANARY)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z")
    with pytest.raises(
        CredentialsError, match="s3://bucket/a have expired and cannot be refreshed"
    ) as caught:
        run(open_transport(locate("s3://bucket/a")).get("k"))
    assert CANARY not in everything_said(caught.value)


def test_what_is_more_particular_comes_first_in_the_environment() -> None:
    keys = Keys("AKIA", "secret", "older")
    assert access_or_error(EVERYTHING, {}, None) == ("https://s3.lab.example", "eu-west-1", keys)


@pytest.mark.parametrize("place", ["{folder}/config", "$A_FOLDER/config"])
def test_the_configuration_says_where_keys_that_are_given_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "config").write_text("[default]\nregion = eu-west-3\nendpoint_url = https://lab.example/\n")
    monkeypatch.setenv("A_FOLDER", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", place.format(folder=tmp_path))
    access = s3_access({}, Secrets.keep({"key": "k", "secret": "s"}), "s3://bucket/a")
    assert (access.endpoint_url, access.region) == ("https://lab.example", "eu-west-3")


@pytest.mark.parametrize(
    "odd",
    [{"key": f"{CANARY} "}, {"token": f"{CANARY}\n"}, {"key": f"{CANARY}é"}, {"secret": f"{CANARY}\udcff"}],
)
@pytest.mark.parametrize("source", ["given", "environment"])
def test_invalid_characters_in_credentials_are_an_error(
    monkeypatch: pytest.MonkeyPatch, source: str, odd: dict[str, str]
) -> None:
    values = {"key": "key", "secret": "secret", "token": "token"} | odd
    if source == "environment":
        for name, value in zip(
            ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"), values.values(), strict=True
        ):
            monkeypatch.setenv(f"AWS_{name}", value)
    secrets = Secrets.keep(values) if source == "given" else None
    with pytest.raises(CredentialsError, match="contain an invalid character") as caught:
        s3_access({}, secrets, "s3://bucket/a")
    assert caught.value.location == "s3://bucket/a"
    assert CANARY not in everything_said(caught.value)


def test_they_are_an_error_in_a_file_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials"
    path.write_text(f"[default]\naws_access_key_id = {CANARY}é\naws_secret_access_key = s\n", "utf-8")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    with pytest.raises(CredentialsError, match="contain an invalid character") as caught:
        run(open_transport(locate("s3://bucket/a")).get("k"))
    assert CANARY not in everything_said(caught.value)


def test_keys_show_nothing() -> None:
    assert repr(Keys(CANARY, CANARY, CANARY)) == "Keys()"


def test_botocore_logs_nothing_while_it_works_for_us(caplog: pytest.LogCaptureFixture) -> None:
    request = AWSRequest("GET", "http://host/", {})
    with caplog.at_level(logging.DEBUG), unlogged():
        S3SigV4Auth(Credentials("key", "secret", CANARY), "s3", "us-east-1").add_auth(request)
    assert CANARY not in caplog.text


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


def test_secrets_in_a_message_are_masked_and_short_ones_if_they_are_of_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{CANARY}-of-the-environment")
    other = Secrets.keep({"headers": [{"X": f"{CANARY}-of-another"}], "password": "pw"})
    own = Secrets.keep({"password": "short"})
    message = f"{CANARY}-of-the-environment, {CANARY}-of-another, pw, short"
    assert mask_secrets(message, own) == "****, ****, pw, ****"
    assert mask_secrets("short pw", other) == "short ****"


def test_secrets_are_masked_as_urls_and_the_repr_of_a_string_have_them() -> None:
    secret = "wJalr/XUtn+FEMI'K7\"MDENG"
    kept = Secrets.keep({"secret": secret})
    for form in (secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1]):
        assert mask_secrets(f"a {form} b") == "a **** b"
    assert kept.reveal() == {"secret": secret}


def test_a_secret_that_no_url_can_have_is_masked_and_masking_never_fails() -> None:
    kept = Secrets.keep({"secret": "\ud800 not Unicode"})
    assert mask_secrets("a \ud800 not Unicode b") == "a **** b"
    assert mask_secrets("another text") == "another text"
    assert kept.reveal() is not None
