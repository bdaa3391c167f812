"""Counting chunks: what is stored, what may be, and how both are told."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from intake_nwbzarr import download, open_hierarchy, track_requests, verify
from intake_nwbzarr.checks.chunks import ChunkCount, ChunkCounts, count_chunks
from tests.hdf5.files import write
from tests.hierarchy.stores import NWB_ROOT, array, write_store
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

Corpus = Callable[[str, str], Path]
SPIKES = "units/spike_times"


@pytest.fixture(params=["0.8.0", "0.14.0"])
def session(request: pytest.FixtureRequest, corpus_dir: Corpus, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus_dir("ecephys", request.param), tmp_path / "a.nwb.zarr"))


def _lose(session: Path, path: str) -> int:
    """Remove all chunks of an array, as a broken upload does."""
    chunks = [file for file in (session / path).rglob("*") if file.is_file() and file.name[0] not in "z."]
    for chunk in chunks:
        chunk.unlink()
    return len(chunks)


def _of(counts: ChunkCounts | None, path: str) -> ChunkCount:
    assert counts is not None
    return next(array for array in counts.arrays if array.path == path)


def test_the_chunks_of_a_whole_session_are_counted(session: Path) -> None:
    counts = count_chunks(open_hierarchy(session))
    assert counts is not None
    assert _of(counts, "acquisition/ElectricalSeriesAP/data") == ChunkCount(
        "acquisition/ElectricalSeriesAP/data", 6, 6
    )
    assert _of(counts, SPIKES).absent == 0
    lost = _lose(session, SPIKES)
    counts = count_chunks(open_hierarchy(session))
    assert _of(counts, SPIKES) == ChunkCount(SPIKES, lost, 0)
    assert counts is not None
    assert SPIKES in {array.path for array in counts.incomplete}
    assert f"{SPIKES}: 0 of {lost} chunk" in str(counts)


def test_verify_and_download_tell_what_is_not_stored(session: Path, tmp_path: Path) -> None:
    _lose(session, SPIKES)
    found = verify(session)
    assert not found.different
    assert _of(found.chunks, SPIKES).stored == 0
    done = download(session, tmp_path / "copy.nwb.zarr")
    assert _of(done.chunks, SPIKES).stored == 0
    assert "not stored" in str(done)


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_names_of_chunks_are_understood_in_every_way_of_writing_them(
    zarr_format: int, separator: str, tmp_path: Path
) -> None:
    root = zarr.create_group(str(tmp_path), zarr_format=zarr_format, attributes=NWB_ROOT)
    encoding = {"name": "v2" if zarr_format == 2 else "default", "separator": separator}
    for name, shape, chunks in (("a", (10, 5), (3, 2)), ("s", (), ()), ("e", (0,), (4,))):
        made = root.create_array(
            name, shape=shape, chunks=chunks, dtype="i4", chunk_key_encoding=encoding, fill_value=0
        )
        made[...] = 1
    root["a"][3:6] = 0  # no chunk is written of these
    zarr.consolidate_metadata(str(tmp_path), zarr_format=zarr_format)
    for stray in ("a/c/9/9", "a/9.9", "a/c/00/1", "a/readme.txt", "a/x/0/0"):
        (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / stray).exists():
            (tmp_path / stray).write_bytes(b"x")
    counts = count_chunks(open_hierarchy(tmp_path))
    assert counts == ChunkCounts((ChunkCount("a", 12, 9), ChunkCount("s", 1, 1)))


def test_shards_are_counted_as_what_is_stored(tmp_path: Path) -> None:
    root = zarr.create_group(str(tmp_path), attributes=NWB_ROOT)
    made = root.create_array("a", shape=(100,), chunks=(5,), shards=(20,), dtype="i4", fill_value=0)
    made[:50] = 1
    zarr.consolidate_metadata(str(tmp_path))
    assert count_chunks(open_hierarchy(tmp_path)) == ChunkCounts((ChunkCount("a", 5, 3),))


def test_one_listing_counts_a_hundred_thousand_chunks_in_seconds(tmp_path: Path) -> None:
    node = array((100_000,)) | {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}}}
    hierarchy = open_hierarchy(write_store(tmp_path / "a.nwb.zarr", {"x": node}))
    keys = (f"x/c/{number}" for number in range(0, 100_000, 2))
    begun = time.process_time()
    assert count_chunks(hierarchy, keys=keys) == ChunkCounts((ChunkCount("x", 100_000, 50_000),))
    assert time.process_time() - begun < 5


def test_a_part_of_a_session_is_listed_alone(corpus_dir: Corpus, s3_server: S3Server) -> None:
    url = s3_server.upload(s3_server.public_bucket, "chunks/a.nwb.zarr", corpus_dir("ecephys", "0.14.0"))
    hierarchy = open_hierarchy(url, {"anon": True, "endpoint_url": s3_server.endpoint_url})
    with track_requests() as log:
        counts = count_chunks(hierarchy, "units")
    assert log.requests == 1
    assert counts is not None
    assert {array.path.partition("/")[0] for array in counts.arrays} == {"units"}


def test_a_server_that_cannot_be_listed_counts_nothing(session: Path, http_server: StaticServer) -> None:
    shutil.copytree(session, http_server.root / "a.nwb.zarr")
    assert count_chunks(open_hierarchy(f"{http_server.url}/a.nwb.zarr")) is None


def test_many_incomplete_arrays_are_told_in_a_few_lines() -> None:
    counts = ChunkCounts(tuple(ChunkCount(f"a{number:02}", 3, number % 3) for number in range(40)))
    lines = str(counts).splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("39 of 120 chunks stored; the 81 that are not stored")
    assert lines[1] == "  a00: 0 of 3 chunks stored; it reads as its fill value"
    assert lines[-1] == "  and 30 more arrays"


def test_the_chunks_of_an_hdf5_file_are_counted_whatever_their_size(tmp_path: Path) -> None:
    """Small arrays, texts and arrays in headers too; of a dataset never written, no chunk is stored."""

    def fill(file: h5py.File) -> None:
        file["small"] = np.arange(5)
        file["text"] = "in a file"
        file.create_dataset("texts", data=[b"a"] * 10, dtype=h5py.string_dtype(), chunks=(4,))
        file.create_dataset("never", (1000,), "i4")
        file.create_dataset("half", (1000,), "i4", chunks=(100,))[:500] = 1
        file.create_dataset("gzip", data=np.arange(30), chunks=(30,), compression="gzip")
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((3,)), compact)

    counts = count_chunks(open_hierarchy(write(tmp_path / "counted.nwb", fill)))
    assert counts is not None
    assert {each.path: (each.stored, each.expected) for each in counts.arrays} == {
        "small": (1, 1), "text": (1, 1), "texts": (3, 3), "never": (0, 1), "half": (5, 10), "gzip": (1, 1),
        "compact": (1, 1),
    }  # fmt: skip
    assert [each.path for each in counts.incomplete] == ["never", "half"]
