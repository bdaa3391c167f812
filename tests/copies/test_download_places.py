"""Where downloads may go, and where they may come from."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr.copies.download import download
from intake_nwbzarr.copies.inventory import NAME, Journal, chunk_keys
from intake_nwbzarr.errors import AccessError, DownloadError, DownloadWarning
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.copies.downloads import CHUNK, QUICK, Bucket, contents, serve
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

type Corpus = Callable[[str, str], Path]


def test_a_folder_with_other_things_is_refused_and_untouched(bucket: Bucket, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "thesis.txt").write_text("years")
    with pytest.raises(DownloadError, match="not an earlier download of"):
        bucket.download(target)
    assert contents(target) == {"thesis.txt": b"years"}
    (target / "thesis.txt").unlink()
    bucket.download(target)


def test_a_download_of_something_else_is_refused(bucket: Bucket, source: Path, target: Path) -> None:
    download(source, target)
    before = contents(target)
    with pytest.raises(DownloadError) as raised:
        bucket.download(target)
    assert (raised.value.location, raised.value.found) == (bucket.url, source.as_uri())
    assert contents(target) == before


def test_a_file_or_a_link_in_its_place_is_refused(source: Path, target: Path, tmp_path: Path) -> None:
    target.parent.mkdir()
    target.write_text("a file")
    with pytest.raises(DownloadError) as raised:
        download(source, target)
    assert (raised.value.location, raised.value.found) == (source.as_uri(), str(target))
    target.unlink()
    (tmp_path / "elsewhere").mkdir()
    for name in ("a.nwb.zarr", "a.nwb.zarr.partial"):
        link = target.with_name(name)
        link.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(DownloadError) as raised:
            download(source, target)
        assert raised.value.found == str(link)
        link.unlink()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nothing_is_written_through_a_link_in_what_an_earlier_attempt_left(
    source: Path, target: Path, tmp_path: Path
) -> None:
    partial = target.with_name("a.nwb.zarr.partial")
    download(source, partial)
    shutil.rmtree(partial / "acquisition")
    (tmp_path / "elsewhere").mkdir()
    (partial / "acquisition").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DownloadError, match="symbolic link") as raised:
        download(source, target)
    assert raised.value.found == str(partial / "acquisition")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_damaged_record_is_an_error(source: Path, target: Path) -> None:
    download(source, target)
    (target / NAME).write_text('{"format": "something else"}\n')
    with pytest.raises(DownloadError) as raised:
        download(source, target)
    assert raised.value.location == str(target / NAME)
    assert str(target) in str(raised.value.next_step)


def test_a_session_is_not_downloaded_into_itself(source: Path) -> None:
    for folder in (source, source / "copy"):
        with pytest.raises(DownloadError, match="is the session itself") as raised:
            download(source, folder)
        assert (raised.value.location, raised.value.found) == (source.as_uri(), str(folder))


def test_two_downloads_to_one_folder_do_not_meet(bucket: Bucket, target: Path) -> None:
    partial = target.with_name("a.nwb.zarr.partial")
    partial.mkdir(parents=True)
    # Locks are of open files, so this is what a download in another process holds.
    with (
        Journal(partial, bucket.url),
        pytest.raises(DownloadError, match="Another process is downloading to") as raised,
    ):
        bucket.download(target)
    assert raised.value.transient
    bucket.download(target)
    assert contents(target) == contents(bucket.source)


@pytest.mark.parametrize("release", ["0.2.0", "0.8.0", "0.14.0"])
def test_folders_and_archives_are_copied(
    release: str, corpus_dir: Corpus, target: Path, tmp_path: Path
) -> None:
    source = corpus_dir("ophys", release)
    download(source, target)
    assert contents(target) == contents(source)
    archive = shutil.make_archive(str(tmp_path / "a.nwb.zarr"), "zip", source)
    unpacked = tmp_path / "unpacked.nwb.zarr"
    download(archive, unpacked)
    assert contents(unpacked) == contents(source)
    assert download(archive, unpacked).fetched == 0


def test_an_open_store_and_memory_are_copied(corpus_dir: Corpus, target: Path, tmp_path: Path) -> None:
    source = corpus_dir("icephys", "0.14.0")
    store = zarr.storage.MemoryStore(
        {key: zarr.buffer.cpu.Buffer.from_bytes(data) for key, data in contents(source).items()}
    )
    download(store, target)
    assert contents(target) == contents(source)


@pytest.mark.parametrize(
    ("kind", "release"), [("ecephys", "0.6.0"), ("icephys", "0.8.0"), ("ophys", "0.8.0"), ("ophys", "0.13.0")]
)
def test_a_server_that_cannot_be_listed_gives_all_that_its_metadata_name(
    kind: str, release: str, http_server: StaticServer, corpus_dir: Corpus, target: Path
) -> None:
    url = serve(http_server, corpus_dir(kind, release))
    specifications = corpus_dir(kind, release) / "specifications"
    consolidated = json.loads((corpus_dir(kind, release) / ".zmetadata").read_text())["metadata"]
    expected = contents(corpus_dir(kind, release))
    if specifications.exists() and not any(key.startswith("specifications/") for key in consolidated):
        expected = {key: data for key, data in expected.items() if not key.startswith("specifications/")}
        with pytest.warns(DownloadWarning, match="'specifications'"):
            done = download(url, target)
    else:
        done = download(url, target)
    assert contents(target) == expected
    assert not done.listed


def test_a_server_that_cannot_be_listed_gives_all_of_a_zarr_3_session(
    http_server: StaticServer, source: Path, target: Path
) -> None:
    url = serve(http_server, source)
    done = download(url, target)
    assert contents(target) == contents(source)
    assert (done.listed, done.objects) == (False, len(contents(source)))
    # Every object is asked about, and none is sent.
    (http_server.root / "a.nwb.zarr" / CHUNK).write_bytes(b"changed")
    http_server.reset()
    again = download(url, target)
    assert again.fetched == 1
    assert (target / CHUNK).read_bytes() == b"changed"
    assert (
        sum(seen.status == 200 for seen in http_server.requests) == 2 + 1
    )  # the metadata, to find out what there is


def test_a_chunk_that_is_not_there_is_skipped_and_one_that_is_refused_is_an_error(
    http_server: StaticServer, source: Path, target: Path
) -> None:
    (source / CHUNK).unlink()
    url = serve(http_server, source)
    download(url, target)
    assert contents(target) == contents(source)
    for name in ("data", "zeros"):
        np.testing.assert_array_equal(
            *(zarr.open(folder)[f"acquisition/{name}"][:] for folder in (source, target))
        )
    http_server.fault("status", CHUNK, times=math.inf, status=403)
    with pytest.raises(AccessError, match=CHUNK):
        download(url, target.with_name("b.nwb.zarr"))


def test_a_bucket_that_denies_listing_gives_all_that_its_metadata_name_or_an_error(
    s3_server: S3Server, source: Path, target: Path
) -> None:
    s3_server.upload(s3_server.unlisted_bucket, "download/a.nwb.zarr", source)
    s3_server.reset()
    url = f"s3://{s3_server.unlisted_bucket}/download/a.nwb.zarr"
    with pytest.raises(AccessError, match=r"acquisition/zeros/c/\d.*deny listing"):
        download(url, target, s3_server.anonymous_options | QUICK)
    # With every chunk stored there is none that could be hidden.
    array = zarr.open(source)["acquisition/zeros"]
    array[:] = 7
    s3_server.upload(s3_server.unlisted_bucket, "download/a.nwb.zarr", source)
    done = download(url, target, s3_server.anonymous_options | QUICK)
    assert not done.listed
    assert contents(target) == contents(source)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=3),
    chunk=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    zarr_format=st.sampled_from([2, 3]),
    separator=st.sampled_from([".", "/"]),
)
def test_the_keys_of_chunks_are_those_that_zarr_writes(
    shape: list[int], chunk: list[int], zarr_format: Any, separator: Any
) -> None:
    from intake_nwbzarr.hierarchy.zarr2.metadata import translate_array

    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store,
        name="a",
        shape=shape,
        chunks=chunk[: len(shape)] if shape else "auto",
        dtype="i4",
        zarr_format=zarr_format,
        chunk_key_encoding={"name": "v2" if zarr_format == 2 else "default", "separator": separator},
    )
    array[...] = np.ones(shape, "i4")
    written = {
        key
        for key in store._store_dict
        if key.startswith("a/") and key.rpartition("/")[2] not in {"zarr.json", ".zarray", ".zattrs"}
    }
    document = json.loads(store._store_dict["a/zarr.json" if zarr_format == 3 else "a/.zarray"].to_bytes())
    node = ArrayNode("a", document) if zarr_format == 3 else translate_array("a", document, {})
    assert set(chunk_keys(node)) == written


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_what_has_no_strong_etag_is_fetched_every_time(
    etag: str | None, http_server: StaticServer, source: Path, target: Path
) -> None:
    url = serve(http_server, source)
    http_server.fault("etag", times=math.inf, headers={"ETag": etag or ""})
    first = download(url, target)
    again = download(url, target)
    assert first.fetched == again.fetched == first.objects
    assert contents(target) == contents(source)
