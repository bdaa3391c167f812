"""Sessions through the chunk cache: streamed twice, pickled, archived, sharded, malicious."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr

from intake_nwbzarr import open_hierarchy, track_requests
from intake_nwbzarr.errors import NWBZarrError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.cache import CachedRange, etag_digest
from intake_nwbzarr.transport.disk_cache import parse_range_name, range_name
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import StoredFile, open_transport
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.transport.cached import DATA, STATE, cached_transport, get_object, store_object

type Corpus = Callable[[str, str], Path]


def _session(server: StaticServer, corpus_dir: Corpus, release: str = "0.14.0") -> str:
    shutil.copytree(corpus_dir("ecephys", release), server.root / "a.nwb.zarr")
    return f"{server.url}/a.nwb.zarr"


@pytest.mark.parametrize("release", ["0.8.0", "0.14.0"])
def test_streaming_a_session_twice_costs_one_conditional_request(
    release: str, http_server: StaticServer, corpus_dir: Corpus, folder: Path
) -> None:
    url = _session(http_server, corpus_dir, release)
    options = {"chunk_cache": folder}
    plain = xr.open_dataset(url, engine="nwbzarr").load()
    first = xr.open_dataset(url, engine="nwbzarr", storage_options=options).load()
    xr.testing.assert_identical(first.drop_attrs(), plain.drop_attrs())
    http_server.reset()
    with track_requests() as log:
        second = xr.open_dataset(url, engine="nwbzarr", storage_options=options).load()
    xr.testing.assert_identical(second, first)
    # Chunks that are not stored, and answered 404, are asked for every time.
    assert {seen.status for seen in http_server.requests} <= {304, 404}
    assert sum(seen.status == 304 for seen in http_server.requests) == 1
    assert log.bytes_used == 0
    assert log.bytes_cached > 0


@pytest.mark.slow
def test_another_process_reads_a_pickled_variable_from_the_cache_without_a_request(
    http_server: StaticServer, corpus_dir: Corpus, folder: Path, tmp_path: Path
) -> None:
    url = _session(http_server, corpus_dir)
    group = "acquisition/ElectricalSeriesAP"
    options = {"chunk_cache": folder}
    dataset = xr.open_dataset(url, engine="nwbzarr", group=group, storage_options=options)
    (tmp_path / "pickle").write_bytes(pickle.dumps(dataset.data))
    expected = dataset.data.mean().item()
    http_server.reset()
    code = (
        "import pickle, sys; from intake_nwbzarr import track_requests\n"
        "data = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "with track_requests() as log: mean = data.mean().item()\n"
        "print(mean, log.requests, log.bytes_cached > 0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "pickle")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert [float(printed[0]), *printed[1:]] == [expected, "0", "True"]
    assert http_server.count() == 0


def test_a_variable_of_an_older_state_reads_that_state_and_a_new_opening_the_new_one(
    http_server: StaticServer, corpus_dir: Corpus, folder: Path
) -> None:
    url = _session(http_server, corpus_dir)
    options: dict[str, Any] = {"chunk_cache": folder, "group": "acquisition/ElectricalSeriesAP/data"}
    del options["group"]
    hierarchy = open_hierarchy(url, options)
    chunk = "acquisition/ElectricalSeriesAP/data/c/0/0"
    old = get_object(hierarchy.transport, chunk)
    document = http_server.root / "a.nwb.zarr" / "zarr.json"
    document.write_text(document.read_text() + " ")
    store_object(http_server, f"a.nwb.zarr/{chunk}", b"of the new state")
    assert get_object(hierarchy.transport, chunk) == old
    again = open_hierarchy(url, options)
    assert again.etag != hierarchy.etag
    assert get_object(again.transport, chunk) == b"of the new state"


def test_an_archive_is_cached_in_parts(
    http_server: StaticServer, corpus_dir: Corpus, folder: Path, tmp_path: Path
) -> None:
    source = corpus_dir("ecephys", "0.14.0")
    shutil.make_archive(str(http_server.root / "a.nwb.zarr"), "zip", source)
    url = f"{http_server.url}/a.nwb.zarr.zip"
    options = {"chunk_cache": folder}
    group = "acquisition/ElectricalSeriesAP"
    first = xr.open_dataset(url, engine="nwbzarr", group=group, storage_options=options).load()
    with track_requests() as log:
        second = xr.open_dataset(url, engine="nwbzarr", group=group, storage_options=options).load()
    xr.testing.assert_identical(first, second)
    assert (log.requests, log.bytes_cached > 0) == (0, True)
    assert list(log.locations) == [url]


def test_a_sharded_array_is_cached_in_parts(http_server: StaticServer, folder: Path) -> None:
    from intake_nwbzarr.arrays.stored import StoredArray
    from intake_nwbzarr.hierarchy.nodes import ArrayNode

    values = np.random.default_rng(0).integers(0, 2**40, (64, 4096))
    array = zarr.create_array(
        http_server.root / "a", shape=values.shape, chunks=(4, 4096), shards=(64, 4096), dtype="i8"
    )
    array[:] = values
    node = ArrayNode("a", json.loads((http_server.root / "a" / "zarr.json").read_text()))
    location = locate(http_server.url, {"chunk_cache": folder})
    stored = StoredArray(StoredFile(location, STATE), node)
    np.testing.assert_array_equal(stored.read(slice(0, 16)), values[:16])
    with track_requests() as log:
        np.testing.assert_array_equal(stored.read(slice(8, 24)), values[8:24])
    # The index is kept, and so is half of the window.
    assert log.requests == 1
    assert log.bytes < 0.7 * values[8:24].nbytes
    with track_requests() as log:
        np.testing.assert_array_equal(stored.read(slice(0, 24)), values[:24])
    assert log.requests == 0


def test_consolidating_looks_past_the_cache(
    s3_server: S3Server, corpus_dir: Corpus, folder: Path, tmp_path: Path
) -> None:
    from intake_nwbzarr import consolidate

    store = Path(shutil.copytree(corpus_dir("icephys", "0.14.0"), tmp_path / "a.nwb.zarr"))
    document = json.loads((store / "zarr.json").read_text())
    url = s3_server.upload(s3_server.private_bucket, "cache/a.nwb.zarr", store)
    options = {**s3_server.signed_options, "chunk_cache": folder, "revalidate": False}
    open_hierarchy(url, options)
    del document["consolidated_metadata"]
    (store / "zarr.json").write_text(json.dumps(document))
    s3_server.upload(s3_server.private_bucket, "cache/a.nwb.zarr", store)
    assert consolidate(url, options).written


def test_what_is_written_through_the_cache_ends_its_copy(s3_server: S3Server, folder: Path) -> None:
    options = {**s3_server.signed_options, "chunk_cache": folder, "revalidate": False}
    transport = open_transport(locate(f"s3://{s3_server.private_bucket}/cache/put", options))
    run(transport.put("a/0", b"one"))
    assert get_object(transport) == b"one"
    run(transport.put("a/0", b"two"))
    assert get_object(transport) == b"two"


def test_names_of_parts_are_read_as_they_are_written() -> None:
    name = CachedRange(1, 2, 3, etag_digest('"etag"'))
    assert parse_range_name(range_name(name)) == name
    for text in ("1-2-3", "2-1-3-a", "1-4-3-a", "x-2-3-a", "a.partial"):
        assert parse_range_name(text) is None


@pytest.mark.parametrize("status", [503, 429, 500])
def test_an_overload_that_passes_is_tried_again_through_the_cache(
    status: int, web: StaticServer, folder: Path
) -> None:
    web.fault("status", status=status)
    with track_requests() as log:
        assert get_object(cached_transport(web, folder)) == DATA
    assert (log.requests, log.retries) == (2, 1)
    web.fault("status", status=status)
    assert get_object(cached_transport(web, folder, "another")) == DATA
    assert [seen.status for seen in web.requests] == [status, 200, status, 304]


def test_a_malicious_chunk_is_an_error_from_the_wire_and_from_the_cache(
    http_server: StaticServer, folder: Path
) -> None:
    from intake_nwbzarr.arrays.stored import StoredArray
    from intake_nwbzarr.hierarchy.nodes import ArrayNode

    array = zarr.create_array(http_server.root / "a", shape=(10,), chunks=(10,), dtype="i8")
    array[:] = 7
    bomb = numcodecs.Zstd().encode(bytes(10**8))
    store_object(http_server, "a/c/0", bytes(bomb))
    node = ArrayNode("a", json.loads((http_server.root / "a" / "zarr.json").read_text()))
    stored = StoredArray(StoredFile(locate(http_server.url, {"chunk_cache": folder}), STATE), node)
    said = []
    for _ in range(2):
        with pytest.raises(NWBZarrError) as caught:
            stored.read()
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert http_server.count() == 1
