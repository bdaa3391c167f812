"""Downloading: the whole session, verified, as it is now."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from intake_nwbzarr import open_nwb, track_requests
from intake_nwbzarr.copies.download import Progress, download
from intake_nwbzarr.copies.inventory import NAME
from intake_nwbzarr.errors import (
    DownloadError,
    LimitError,
    LocationNotFoundError,
    NotZarrError,
    UnsafePathError,
)
from intake_nwbzarr.untrusted_input import MOST_OBJECTS
from tests.copies.downloads import CHUNK, Bucket, contents, serve
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

type Corpus = Callable[[str, str], Path]


def test_a_session_in_a_bucket_is_downloaded_whole(bucket: Bucket, target: Path) -> None:
    with track_requests() as log:
        done = bucket.download(target)
    assert contents(target) == contents(bucket.source)
    assert (done.objects, done.fetched, done.removed, done.listed) == (len(contents(target)),) * 2 + (0, True)
    assert done.bytes == sum(map(len, contents(target).values()))
    assert done.folder == target
    assert str(target) in str(done)
    assert log.bytes_used == done.bytes
    # One listing, every object once, and one question at the end.
    assert bucket.server.count("list-type") == 1
    assert bucket.server.count() == 1 + done.objects + 1
    assert list(target.parent.iterdir()) == [target]


def test_a_downloaded_session_opens_as_it_did(s3_server: S3Server, corpus_dir: Corpus, target: Path) -> None:
    original = corpus_dir("ecephys", "0.14.0")
    url = s3_server.upload(s3_server.private_bucket, "download/ecephys.nwb.zarr", original)
    download(url, target, s3_server.signed_options)
    assert contents(target) == contents(original)
    with open_nwb(target) as nwbfile:
        assert nwbfile.identifier == "corpus-ecephys"
    one, other = (xr.open_dataset(folder, engine="nwbzarr").load() for folder in (target, original))
    xr.testing.assert_identical(one.drop_attrs(), other.drop_attrs())


def test_again_nothing_is_fetched(bucket: Bucket, target: Path) -> None:
    bucket.download(target)
    before = {path: path.stat().st_ino for path in target.rglob("*")}
    bucket.server.reset()
    again = bucket.download(target)
    assert (again.fetched, again.removed) == (0, 0)
    assert bucket.server.count() == 2  # the listing, and whether the metadata are still the same
    assert {path: path.stat().st_ino for path in target.rglob("*")} == before
    assert list(target.parent.iterdir()) == [target]


def test_again_what_has_changed_is_fetched_and_what_is_gone_is_removed(
    bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    (bucket.source / "extra").write_bytes(b"of an earlier state")
    bucket.upload()
    bucket.download(target)
    (bucket.source / CHUNK).write_bytes(b"changed")
    (bucket.source / "new").write_bytes(b"new")
    (bucket.source / "extra").unlink()
    # A prefix of its own, since uploading removes nothing.
    moved = Path(shutil.copytree(bucket.source, tmp_path / "moved" / "a.nwb.zarr"))
    _delete(bucket, "extra")
    bucket.upload()
    done = bucket.download(target)
    assert contents(target) == contents(moved)
    assert (done.fetched, done.removed) == (2, 1)
    assert list(target.parent.iterdir()) == [target]
    assert bucket.download(target).fetched == 0


@pytest.mark.parametrize("damage", ["changed", "shorter", "gone"])
def test_a_file_that_was_damaged_on_disk_is_fetched_anew(damage: str, bucket: Bucket, target: Path) -> None:
    bucket.download(target)
    data = (target / CHUNK).read_bytes()
    match damage:
        case "changed":
            (target / CHUNK).write_bytes(bytes([data[0] ^ 1]) + data[1:])
        case "shorter":
            (target / CHUNK).write_bytes(data[:-1])
        case "gone":
            (target / CHUNK).unlink()
    assert bucket.download(target).fetched == 1
    assert contents(target) == contents(bucket.source)


def _delete(bucket: Bucket, key: str) -> None:
    import botocore.session

    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=bucket.server.endpoint_url,
        aws_access_key_id=bucket.server.key,
        aws_secret_access_key=bucket.server.secret,
        region_name="us-east-1",
    )
    prefix = bucket.url.removeprefix(f"s3://{bucket.server.private_bucket}/")
    client.delete_object(Bucket=bucket.server.private_bucket, Key=f"{prefix}/{key}")
    client.close()


def test_what_is_no_session_is_an_error_and_nothing_is_written(
    http_server: StaticServer, target: Path, tmp_path: Path
) -> None:
    with pytest.raises(LocationNotFoundError):
        download(f"{http_server.url}/nothing.nwb.zarr", target)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("notes")
    with pytest.raises(NotZarrError):
        download(tmp_path / "folder", target)
    assert not target.parent.exists()


def test_more_chunks_than_can_be_counted_are_a_limit(
    http_server: StaticServer, source: Path, target: Path
) -> None:
    document = json.loads((source / "zarr.json").read_text())
    array = document["consolidated_metadata"]["metadata"]["acquisition/data"]
    array["shape"] = [10**12, 12]
    (source / "zarr.json").write_text(json.dumps(document))
    url = serve(http_server, source)
    with pytest.raises(LimitError) as raised:
        download(url, target)
    assert (raised.value.location, raised.value.expected) == (url, MOST_OBJECTS)
    assert not target.parent.exists()


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, source: Path, target: Path) -> None:
    import zipfile

    archive = tmp_path / "a.nwb.zarr.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(source / "zarr.json", "zarr.json")
        file.writestr("../../escaped", b"outside")
    with pytest.raises(UnsafePathError):
        download(archive, target)
    assert not list(tmp_path.rglob("escaped"))


def test_a_name_that_is_a_file_and_a_folder_is_an_error(tmp_path: Path, source: Path, target: Path) -> None:
    import zipfile

    archive = tmp_path / "a.nwb.zarr.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(source / "zarr.json", "zarr.json")
        file.writestr("a", b"a file")
        file.writestr("a/b", b"and a folder")
    with pytest.raises(DownloadError, match="cannot be written") as raised:
        download(archive, target)
    assert Path(raised.value.location or "").is_relative_to(target.with_name(f"{target.name}.partial"))
    assert not target.exists()


def test_a_session_cannot_bring_a_record_of_its_own(source: Path, target: Path) -> None:
    (source / NAME).write_text(
        '{"format": "intake-nwbzarr download", "version": 1, "location": "s3://x/y"}\n'
    )
    download(source, target)
    assert json.loads((target / NAME).read_text().splitlines()[0])["location"] == f"file://{source}"


def test_no_secret_is_in_what_is_written_nor_in_what_is_said(
    http_server: StaticServer, source: Path, target: Path
) -> None:
    url = serve(http_server, source)
    http_server.query = "signature=canary-0123456789"
    http_server.authorization = "Bearer canary-9876543210"
    told: list[Progress] = []
    done = download(
        f"{url}?{http_server.query}",
        target,
        {"headers": {"Authorization": http_server.authorization}},
        progress=told.append,
    )
    assert "canary" not in repr((done, str(done), told))
    for path in target.parent.rglob("*"):
        assert "canary" not in path.name
        assert not path.is_file() or b"canary" not in path.read_bytes()


def test_progress_counts_objects_and_bytes_and_ends_with_all(bucket: Bucket, target: Path) -> None:
    told: list[Progress] = []
    done = bucket.download(target, progress=told.append)
    fetching = [each for each in told if each.doing == "fetching"]
    assert [each.objects for each in fetching] == list(range(done.objects + 1))
    assert fetching[-1] == Progress("fetching", done.objects, done.objects, done.bytes, done.bytes)
    assert told[-1] == Progress("verifying", done.objects, done.objects, done.bytes, done.bytes)


def test_a_chunk_cache_is_neither_used_nor_filled(bucket: Bucket, target: Path, tmp_path: Path) -> None:
    options = bucket.options | {"chunk_cache": tmp_path / "cache", "revalidate": False}
    download(bucket.url, target, options)
    assert not (tmp_path / "cache").exists()


def test_files_are_made_as_the_user_wants_them(source: Path, target: Path) -> None:
    mask = os.umask(0o027)
    try:
        download(source, target)
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in target.rglob("*") if path.is_file()} == {0o640}
