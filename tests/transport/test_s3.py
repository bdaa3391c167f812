"""S3: identities, regions, refusals, listing and writing, against a server that checks signatures."""

import hashlib
import logging
import pwd
from pathlib import Path
from typing import Any, NoReturn

import pytest

from intake_nwbzarr.errors import (
    AccessError,
    CacheError,
    CredentialsError,
    LocationNotFoundError,
    ObjectChangedError,
    UnsafePathError,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.answers import Folder
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import fetch_many, open_transport
from intake_nwbzarr.transport.request_log import track_requests
from tests.servers.s3_server import S3Server

KEYS = {
    "zarr.json": b'{"zarr_format": 3}',
    "processing/behavior/lick rate/data/c/0": b"spaces",
    "acquisition/+x/-0/é µ%41&=?#;,'()*!~@:$": b"signs",
    "big": bytes(range(256)) * 1000,
    "empty": b"",
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    for key, data in KEYS.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def urls(s3_server: S3Server, store: Path) -> dict[str, str]:
    """The same store in each bucket."""
    buckets = (s3_server.public_bucket, s3_server.unlisted_bucket, s3_server.private_bucket)
    return {bucket: s3_server.upload(bucket, "lab files/+sub-1.nwb.zarr", store) for bucket in buckets}


def transport(url: str, **options: Any) -> Transport:
    return open_transport(locate(url, {"timeouts": {"backoff": 0.01}} | options))


def test_every_key_arrives_signed_and_anonymously(s3_server: S3Server, urls: dict[str, str]) -> None:
    signed = transport(urls["private-bucket"], **s3_server.signed_options)
    public = transport(urls["public-bucket"], **s3_server.anonymous_options)
    for source in (signed, public):
        found = fetch_many(source, list(KEYS))
        assert [fetched.data for fetched in found if fetched is not None] == list(KEYS.values())
        assert [entry.key for entry in run(source.list())] == sorted(KEYS)
        assert {entry.key: entry.size for entry in run(source.list())}["big"] == 256_000


def test_a_user_without_a_home_reads_as_anybody_else(
    s3_server: S3Server, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    # A container may run as a user that its passwd does not list.
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    public = transport(urls["public-bucket"], **s3_server.anonymous_options)
    signed = transport(urls["private-bucket"], **s3_server.signed_options)
    for source in (public, signed):
        found = run(source.get("big"))
        assert found is not None
        assert found.data == KEYS["big"]
    with pytest.raises(AccessError, match="anonymous"):
        run(transport(urls["private-bucket"], endpoint_url=s3_server.endpoint_url).get("big"))
    with pytest.raises(CacheError, match="XDG_CACHE_HOME"):
        transport(urls["public-bucket"], chunk_cache=True, **s3_server.anonymous_options)


def test_parts_are_what_was_asked_for(s3_server: S3Server, urls: dict[str, str]) -> None:
    source = transport(urls["private-bucket"], **s3_server.signed_options)
    part = run(source.get("big", start=5, stop=300))
    assert part is not None
    assert part.data == KEYS["big"][5:300]
    assert part.size == 256_000
    tail = run(source.get("big", suffix=7))
    assert tail is not None
    assert tail.data == KEYS["big"][-7:]
    assert tail.etag == part.etag == f'"{hashlib.md5(KEYS["big"]).hexdigest()}"'


def test_a_missing_object_is_none_where_listing_is_allowed(s3_server: S3Server, urls: dict[str, str]) -> None:
    assert run(transport(urls["public-bucket"], **s3_server.anonymous_options).get("nothing")) is None
    assert run(transport(urls["private-bucket"], **s3_server.signed_options).get("nothing")) is None


def test_a_missing_object_where_listing_is_denied_is_an_error_that_says_so(
    s3_server: S3Server, urls: dict[str, str]
) -> None:
    source = transport(urls["unlisted-bucket"], **s3_server.anonymous_options)
    assert run(source.get("zarr.json")) is not None
    with pytest.raises(AccessError, match="deny listing also return 403 for objects that do not exist"):
        run(source.get("nothing"))


def test_a_missing_bucket_is_not_found(s3_server: S3Server) -> None:
    with pytest.raises(LocationNotFoundError, match="bucket does not exist"):
        run(transport("s3://no-bucket-of-that-name/x", **s3_server.signed_options).get("zarr.json"))


def test_a_wrong_secret_is_one_request_and_no_anonymous_one(
    s3_server: S3Server, urls: dict[str, str]
) -> None:
    options = s3_server.signed_options | {"secret": "canary-wrong-secret"}
    source = transport(urls["public-bucket"], **options)
    with pytest.raises(CredentialsError, match="SignatureDoesNotMatch") as caught:
        run(source.get("zarr.json"))
    assert s3_server.count() == 1
    assert "Authorization" in s3_server.requests[0].headers
    assert "canary" not in str(caught.value)


def test_nothing_asked_and_nothing_found_is_anonymous_and_said(
    s3_server: S3Server, urls: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "intake_nwbzarr"):
        source = transport(urls["public-bucket"], endpoint_url=s3_server.endpoint_url)
        assert run(source.get("zarr.json")) is not None
    assert "are anonymous" in caplog.text
    with pytest.raises(AccessError, match="credentials may be needed"):
        run(transport(urls["private-bucket"], endpoint_url=s3_server.endpoint_url).get("zarr.json"))


def test_the_environment_signs(
    s3_server: S3Server, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    assert run(transport(urls["private-bucket"]).get("zarr.json")) is not None


def test_an_explicit_pair_is_not_joined_by_the_session_token_of_the_environment(
    s3_server: S3Server, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-another-set")
    assert run(transport(urls["private-bucket"], **s3_server.signed_options).get("zarr.json")) is not None
    assert "X-Amz-Security-Token" not in s3_server.requests[-1].headers


def test_a_profile_gives_keys_endpoint_and_region(
    s3_server: S3Server, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = eu-central-1\nendpoint_url = {s3_server.endpoint_url}\n"
        f"[profile by-service]\nservices = here\nregion = eu-central-1\n"
        f"[services here]\ns3 =\n  endpoint_url = {s3_server.endpoint_url}\n"
    )
    pair = f"aws_access_key_id = {s3_server.key}\naws_secret_access_key = {s3_server.secret}\n"
    (tmp_path / "credentials").write_text(f"[lab]\n{pair}[by-service]\n{pair}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    s3_server.regions["private-bucket"] = "eu-central-1"
    for profile in ("lab", "by-service"):
        assert run(transport(urls["private-bucket"], profile=profile).get("zarr.json")) is not None
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert run(transport(urls["private-bucket"]).get("zarr.json")) is not None
    assert s3_server.count() == 3
    with pytest.raises(CredentialsError, match=r"No AWS profile 'labb'.*Did you mean 'lab'\?"):
        transport(urls["private-bucket"], profile="labb")


def test_a_changed_environment_is_another_identity(
    s3_server: S3Server, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    location = locate(urls["private-bucket"], {"endpoint_url": s3_server.endpoint_url})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    mine = location.cache_key
    assert run(open_transport(location).get("zarr.json")) is not None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "somebody else's")
    assert location.cache_key != mine
    with pytest.raises(CredentialsError):
        run(open_transport(location).get("zarr.json"))


def test_a_bucket_in_another_region_is_followed_once(s3_server: S3Server, urls: dict[str, str]) -> None:
    s3_server.regions["private-bucket"] = "eu-west-1"
    source = transport(urls["private-bucket"], **s3_server.signed_options)
    assert run(source.get("zarr.json")) is not None
    assert [seen.status for seen in s3_server.requests] == [301, 200]
    assert run(source.get("big")) is not None
    assert s3_server.count() == 3
    s3_server.regions["private-bucket"] = "eu-central-1"
    assert run(source.get("big")) is not None
    assert s3_server.count() == 5


def test_many_requests_at_once_learn_the_region_together(s3_server: S3Server, urls: dict[str, str]) -> None:
    s3_server.regions["private-bucket"] = "eu-west-1"
    source = transport(urls["private-bucket"], **s3_server.signed_options)
    assert None not in fetch_many(source, list(KEYS) * 4)


@pytest.mark.parametrize("region", ["evil.example/", "us-east-1"])
def test_a_region_that_makes_no_sense_ends_it(s3_server: S3Server, urls: dict[str, str], region: str) -> None:
    s3_server.fault(
        "status", times=9, status=301, code="PermanentRedirect", headers={"x-amz-bucket-region": region}
    )
    with pytest.raises(AccessError, match="redirects"):
        run(transport("s3://private-bucket/moved", **s3_server.signed_options).get("zarr.json"))
    assert s3_server.count() == 1


def test_a_region_that_is_none_is_refused_before_any_request(s3_server: S3Server) -> None:
    location = locate("s3://private-bucket/a", {**s3_server.signed_options, "region": "evil.example/"})
    with pytest.raises(CredentialsError, match="not an AWS region") as raised:
        open_transport(location)
    assert (raised.value.location, raised.value.expected) == (str(location), "an AWS region")
    assert "storage_options={'region': ...}" in raised.value.next_step
    assert s3_server.count() == 0


def test_requester_pays_is_said_in_every_request(s3_server: S3Server, urls: dict[str, str]) -> None:
    s3_server.requester_pays.add("private-bucket")
    with pytest.raises(AccessError):
        run(transport(urls["private-bucket"], **s3_server.signed_options).get("zarr.json"))
    paying = transport(urls["private-bucket"], requester_pays=True, **s3_server.signed_options)
    assert run(paying.get("zarr.json")) is not None
    assert len(run(paying.list())) == len(KEYS)


def test_an_expired_token_that_cannot_be_refreshed_is_one_error(
    s3_server: S3Server, urls: dict[str, str]
) -> None:
    s3_server.fault("expired", times=5)
    with pytest.raises(CredentialsError, match="have expired"):
        run(transport(urls["private-bucket"], **s3_server.signed_options).get("zarr.json"))
    assert s3_server.count() == 1


def test_an_expired_token_is_refreshed_once_where_its_source_has_a_new_one(
    s3_server: S3Server, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    credentials.write_text("[default]\naws_access_key_id = AKIAOLD\naws_secret_access_key = old\n")
    source = transport(urls["private-bucket"], endpoint_url=s3_server.endpoint_url)
    s3_server.fault("expired")
    credentials.write_text(
        f"[default]\naws_access_key_id = {s3_server.key}\naws_secret_access_key = {s3_server.secret}\n"
    )
    assert run(source.get("zarr.json")) is not None
    assert [seen.status for seen in s3_server.requests] == [400, 200]


def test_writing_is_conditional_on_the_etag(s3_server: S3Server, urls: dict[str, str]) -> None:
    source = transport(urls["private-bucket"], **s3_server.signed_options)
    key = "written/zarr +1.json"
    first = run(source.put(key, b"one", if_none_match=True))
    with pytest.raises(ObjectChangedError):
        run(source.put(key, b"again", if_none_match=True))
    second = run(source.put(key, b"two", if_match=first))
    with pytest.raises(ObjectChangedError):
        run(source.put(key, b"three", if_match=first))
    stored = run(source.get(key))
    assert stored is not None
    assert (stored.data, stored.etag) == (b"two", second)
    with pytest.raises(AccessError, match="Cannot write") as raised:
        run(transport(urls["public-bucket"], **s3_server.anonymous_options).put("x", b""))
    assert (raised.value.location, raised.value.path) == (urls["public-bucket"], "x")
    assert not raised.value.transient


def test_a_write_whose_answer_was_lost_is_not_taken_for_somebody_elses(
    s3_server: S3Server, urls: dict[str, str]
) -> None:
    source = transport(urls["private-bucket"], **s3_server.signed_options)
    s3_server.fault("reset", method="PUT", times=2)
    assert run(source.put("lost", b"mine", if_none_match=True)) is not None


def test_a_long_listing_is_complete(s3_server: S3Server, tmp_path: Path) -> None:
    names = [f"{group}/c/{number}" for group in ("a b", "c+d", "e") for number in range(700)] + ["zarr.json"]
    for name in names:
        path = tmp_path / "long" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    url = s3_server.upload(s3_server.public_bucket, "long", tmp_path / "long")
    source = transport(url, **s3_server.anonymous_options)
    with track_requests() as log:
        assert [entry.key for entry in run(source.list())] == sorted(names)
    assert log.methods["list"].requests == s3_server.count() <= 6
    assert [entry.key for entry in run(source.list("a b"))] == sorted(
        name for name in names if name[0] == "a"
    )


def test_a_folder_is_one_request_and_a_zarr_2_array_one_page(s3_server: S3Server, tmp_path: Path) -> None:
    folder = tmp_path / "group" / "array"
    folder.mkdir(parents=True)
    for name in [".zarray", ".zattrs", *map(str, range(2500))]:
        (folder / name).touch()
    (tmp_path / "group" / ".zgroup").touch()
    (tmp_path / "group" / "lick rate").mkdir()
    (tmp_path / "group" / "lick rate" / ".zgroup").touch()
    url = s3_server.upload(s3_server.public_bucket, "levels", tmp_path / "group")
    source = transport(url, **s3_server.anonymous_options)
    assert run(source.list_folder("")) == Folder((".zgroup",), ("array", "lick rate"))
    assert ".zarray" in run(source.list_folder("array")).names
    assert s3_server.count() == 2
    (tmp_path / "group" / "array" / ".zarray").unlink()
    bare = s3_server.upload(s3_server.public_bucket, "bare", folder)
    assert len(run(transport(bare, **s3_server.anonymous_options).list_folder("")).names) == 2501


def test_a_folder_without_a_name_is_refused(s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "k").touch()
    s3_server.upload(s3_server.public_bucket, "odd//k", tmp_path / "k")
    source = transport("s3://public-bucket/odd", **s3_server.anonymous_options)
    for call, listed in ((source.list_folder(""), ""), (source.list(), "/k")):
        with pytest.raises(UnsafePathError, match="not valid in Zarr") as raised:
            run(call)
        assert raised.value.path == listed
        assert "Rename or delete it" in raised.value.next_step


def test_a_listing_that_is_refused_is_an_error(s3_server: S3Server, urls: dict[str, str]) -> None:
    with pytest.raises(AccessError):
        run(transport(urls["unlisted-bucket"], **s3_server.anonymous_options).list())
