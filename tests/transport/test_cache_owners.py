"""For whom the chunk cache keeps, and in which folder it will."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import AccessError, CacheError, CredentialsError, TransportError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.disk_cache import CacheStore
from intake_nwbzarr.transport.open import fetch_many, open_transport
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.transport.cached import DATA, QUICK, STATE, cache_files, cached_transport, get_object, store_object

type Corpus = Callable[[str, str], Path]


def test_nothing_is_served_to_another_identity(s3_server: S3Server, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "0").write_bytes(DATA)
    url = s3_server.upload(s3_server.private_bucket, "cache", tmp_path / "up")
    common = {"chunk_cache": folder, "timeouts": QUICK, "revalidate": False}

    def get(options: dict[str, Any]) -> bytes | None:
        return get_object(open_transport(locate(url, {**common, **options})), "0")

    signed = s3_server.signed_options
    assert get(signed) == DATA
    with track_requests() as log:
        assert get(signed) == DATA
    assert log.requests == 0
    with pytest.raises(CredentialsError):
        get(signed | {"secret": "wrong"})
    with pytest.raises(AccessError):
        get(s3_server.anonymous_options)
    assert len(cache_files(folder)) == 1


def test_nothing_is_served_from_another_endpoint(s3_server: S3Server, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(DATA)
    s3_server.upload(s3_server.public_bucket, "cache/0", tmp_path / "0")
    url, common = f"s3://{s3_server.public_bucket}/cache", {"chunk_cache": folder, "anon": True}
    assert (
        get_object(open_transport(locate(url, {**common, "endpoint_url": s3_server.endpoint_url})), "0")
        == DATA
    )
    nobody = {"endpoint_url": "http://127.0.0.1:1", "timeouts": {"attempts": 1}, "revalidate": False}
    with pytest.raises(TransportError):
        get_object(open_transport(locate(url, {**common, **nobody})), "0")


def test_a_bucket_elsewhere_and_expired_keys_are_followed_through_the_cache(
    s3_server: S3Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0").write_bytes(DATA)
    s3_server.upload(s3_server.private_bucket, "cache/0", tmp_path / "0")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    options = {"chunk_cache": folder, "endpoint_url": s3_server.endpoint_url, "timeouts": QUICK}
    transport = open_transport(locate(f"s3://{s3_server.private_bucket}/cache", options)).at(STATE)
    s3_server.regions[s3_server.private_bucket] = "eu-central-1"
    assert get_object(transport, "0") == DATA
    with track_requests() as log:
        assert get_object(transport, "0") == DATA
    assert log.requests == 0
    s3_server.regions.clear()
    s3_server.fault("expired", times=math.inf)
    with pytest.raises(CredentialsError):
        get_object(transport.at("another"), "0")


def test_no_secret_is_in_the_cache_nor_in_names(web: StaticServer, folder: Path) -> None:
    web.authorization = "Bearer canary-0123456789"
    options = {"headers": {"Authorization": web.authorization}}
    assert get_object(cached_transport(web, folder, **options)) == DATA
    web.authorization, web.query = None, "signature=canary-0123456789"
    url = f"{web.url}?{web.query}"
    assert get_object(open_transport(locate(url, {"chunk_cache": folder})), "a/0") == DATA
    assert len(cache_files(folder)) == 2
    for path in folder.rglob("*"):
        assert "canary" not in path.name
        assert not path.is_file() or b"canary" not in path.read_bytes()


def test_many_readers_at_once_name_their_identity_once(
    web: StaticServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, calls = hashlib.scrypt, []

    def counted(*arguments: Any, **keywords: Any) -> bytes:
        calls.append(arguments)
        return slow(*arguments, **keywords)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    for number in range(50):
        store_object(web, f"a/{number}", b"x")
    transport = cached_transport(web, folder, headers={"Authorization": "Bearer many"})
    assert None not in fetch_many(transport, [f"a/{number}" for number in range(50)])
    assert len(calls) == 1


def test_the_folder_and_its_files_are_the_owners_alone(web: StaticServer, folder: Path) -> None:
    mask = os.umask(0)
    try:
        get_object(cached_transport(web, folder))
        get_object(cached_transport(web, folder), "a/0", start=0, stop=5)
    finally:
        os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def _refused(server: StaticServer, folder: Path, match: str) -> None:
    with pytest.raises(CacheError, match=match) as caught:
        get_object(cached_transport(server, folder))
    assert caught.value.location == str(folder)
    assert server.count() == 0


def test_a_symbolic_link_is_refused(web: StaticServer, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    _refused(web, folder, "symbolic link")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_folder_of_somebody_else_is_refused(web: StaticServer, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    _refused(web, folder, "another user")


def test_a_folder_that_others_may_exchange_is_refused(web: StaticServer, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    _refused(web, tmp_path / "open" / "cache", "everybody can write to")


def test_a_cache_that_was_opened_to_others_is_refused(web: StaticServer, folder: Path) -> None:
    CacheStore(folder, 10**6)
    folder.chmod(0o755)
    _refused(web, folder, "can be accessed by other users")


def test_a_folder_that_holds_other_things_is_refused(web: StaticServer, folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    _refused(web, folder, "other contents")
    (folder / "thesis.txt").unlink()
    assert get_object(cached_transport(web, folder)) == DATA


def test_a_file_is_refused_and_so_is_a_cache_of_another_version(web: StaticServer, folder: Path) -> None:
    folder.write_text("a file")
    _refused(web, folder, "cannot be created")
    folder.unlink()
    CacheStore(folder, 10**6)
    (folder / "nwbzarr-cache.json").write_text('{"format": "intake-nwbzarr chunk cache", "version": 99}')
    _refused(web, folder, "another version")
