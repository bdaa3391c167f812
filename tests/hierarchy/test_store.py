"""The store: zarr-python reads any release's file through it, and writes nothing."""

import gzip
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from intake_nwbzarr import open_hierarchy, track_requests
from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.arrays.zarr_store import HierarchyStore
from intake_nwbzarr.errors import ChunkError, ClosedError, LimitError, MetadataError, NWBZarrError
from tests.hierarchy.stores import array, write_store

Corpus = Callable[[str, str], Path]


def test_zarr_opens_it_without_a_request(corpus_dir: Corpus) -> None:
    hierarchy = open_hierarchy(corpus_dir("ecephys", "0.8.0"))
    with track_requests() as log:
        group = zarr.open_consolidated(HierarchyStore(hierarchy), mode="r")
        assert group["acquisition/ElectricalSeriesAP/data"].shape == (3000, 8)
    assert log.requests == 0


def test_zarr_reads_a_legacy_array_as_the_current_one(corpus_dir: Corpus) -> None:
    old, new = (
        zarr.open_group(HierarchyStore(open_hierarchy(corpus_dir("ecephys", release))), mode="r")
        for release in ("0.8.0", "0.14.0")
    )
    for path in ("acquisition/ElectricalSeriesAP/data", "units/electrode_group", "units/quality"):
        np.testing.assert_array_equal(old[path][:], new[path][:])


def test_it_lists_groups_and_arrays(corpus_dir: Corpus) -> None:
    hierarchy = open_hierarchy(corpus_dir("icephys", "0.14.0"))
    group = zarr.open_group(HierarchyStore(hierarchy), mode="r", use_consolidated=False)
    assert set(group.keys()) == set(hierarchy.children(""))


def test_it_refuses_to_be_written(corpus_dir: Corpus) -> None:
    store = HierarchyStore(open_hierarchy(corpus_dir("icephys", "0.14.0")))
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(store, mode="r+").create_group("new")


def test_a_closed_store_says_so(corpus_dir: Corpus) -> None:
    store = HierarchyStore(open_hierarchy(corpus_dir("icephys", "0.14.0")))
    group = zarr.open_group(store, mode="r")
    store.close()
    with pytest.raises(ClosedError, match="was closed"):
        group["acquisition/response0/data"][:]


@pytest.mark.parametrize("release", ["0.8.0", "0.14.0"])
def test_a_chunk_that_was_cut_off_says_so(release: str, corpus_dir: Corpus, tmp_path: Path) -> None:
    store = Path(shutil.copytree(corpus_dir("ecephys", release), tmp_path / "half.nwb.zarr"))
    data = store / "acquisition/ElectricalSeriesAP/data"
    chunk = data / ("0.0" if release == "0.8.0" else "c/0/0")
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    group = zarr.open_group(HierarchyStore(open_hierarchy(store)), mode="r")
    with pytest.raises(ChunkError, match=r"ElectricalSeriesAP/data.*truncated"):
        group["acquisition/ElectricalSeriesAP/data"][:]


BOMBS = {
    "zstd": (numcodecs.Zstd(), {"level": 1, "checksum": False}),
    "gzip": (numcodecs.GZip(9), {"level": 1}),
    "blosc": (
        numcodecs.Blosc("lz4"),
        {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0, "typesize": 1},
    ),
}


@pytest.mark.parametrize("compressor", BOMBS)
def test_a_bomb_is_refused_before_zarr_decodes_it(compressor: str, tmp_path: Path) -> None:
    codec, configuration = BOMBS[compressor]
    node = array((10,))
    node["codecs"].append({"name": compressor, "configuration": configuration})
    store = write_store(tmp_path / "a.nwb.zarr", {"x": node})
    (store / "x/c").mkdir()
    (store / "x/c/0").write_bytes(codec.encode(np.zeros(100 * 2**20, "u1")))
    group = zarr.open_group(HierarchyStore(open_hierarchy(store)), mode="r")
    with pytest.raises(LimitError, match=r"'x/c/0' of the array 'x' in .* expands to"):
        group["x"][:]


GZIP = {"name": "gzip", "configuration": {"level": 9}}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}


def _crc(data: bytes) -> bytes:
    return bytes(numcodecs.CRC32C().encode(data))


def _shard(chunk: bytes, checksums: int) -> bytes:
    index = struct.pack("<QQ", 0, len(chunk))
    for _ in range(checksums):
        index = _crc(index)
    return chunk + index


def _sharding(*index_codecs: dict[str, Any]) -> list[dict[str, Any]]:
    configuration = {"chunk_shape": [10], "codecs": [BYTES, GZIP], "index_codecs": list(index_codecs)}
    return [{"name": "sharding_indexed", "configuration": configuration}]


PAYLOAD = gzip.compress(bytes(60 * 2**20), 9)
HIDDEN_BOMBS = {
    "behind a checksum": ([BYTES, GZIP, CRC], _crc(PAYLOAD)),
    "behind two checksums": ([BYTES, GZIP, CRC, CRC], _crc(_crc(PAYLOAD))),
    "behind another compressor": ([BYTES, GZIP, GZIP], gzip.compress(PAYLOAD, 9)),
    "behind a shuffle": ([BYTES, GZIP, {"name": "numcodecs.shuffle"}], PAYLOAD),
    "behind a codec of zarr alone": ([{"name": "scale_offset"}, BYTES, GZIP], PAYLOAD),
    "in a shard": (_sharding(BYTES, CRC), _shard(PAYLOAD, 1)),
    "in a shard without a checksum": (_sharding(BYTES), _shard(PAYLOAD, 0)),
    "in a shard with an odd index": (_sharding(BYTES, CRC, CRC), _shard(PAYLOAD, 2)),
    "in a compressed shard": ([*_sharding(BYTES, CRC), GZIP], gzip.compress(_shard(PAYLOAD, 1))),
}


@pytest.mark.parametrize("where", HIDDEN_BOMBS)
def test_a_bomb_is_refused_wherever_it_is_hidden_and_however_it_is_read(where: str, tmp_path: Path) -> None:
    codecs, chunk = HIDDEN_BOMBS[where]
    store = write_store(tmp_path / "a.nwb.zarr", {"x": array((10,)) | {"codecs": codecs}})
    (store / "x/c").mkdir()
    (store / "x/c/0").write_bytes(chunk)
    hierarchy = open_hierarchy(store)
    group = zarr.open_group(HierarchyStore(hierarchy), mode="r")
    for read in (lambda: group["x"][:], StoredArray(hierarchy.file, hierarchy["x"]).read):
        tracemalloc.start()
        try:
            with pytest.raises(NWBZarrError, match="'x"):
                read()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 20 * 2**20


def test_an_index_that_cannot_be_of_one_size_is_refused(tmp_path: Path) -> None:
    codecs = _sharding(BYTES, GZIP)
    store = write_store(tmp_path / "a.nwb.zarr", {"x": array((10,)) | {"codecs": codecs}})
    hierarchy = open_hierarchy(store)
    with pytest.raises(MetadataError, match="shard index with the codecs bytes, gzip") as caught:
        zarr.open_group(HierarchyStore(hierarchy), mode="r")["x"][:]
    assert (caught.value.path, caught.value.found) == ("x", ("bytes", "gzip"))


@pytest.mark.parametrize("part", [slice(None), slice(3, 7)])
def test_a_damaged_index_of_a_shard_is_an_error_of_ours(part: slice, tmp_path: Path) -> None:
    codecs = _sharding(BYTES, CRC)
    codecs[0]["configuration"]["chunk_shape"] = [2]
    store = write_store(tmp_path / "a.nwb.zarr", {"x": array((10,)) | {"codecs": codecs}})
    (store / "x/c").mkdir()
    (store / "x/c/0").write_bytes(bytes(500))
    group = zarr.open_group(HierarchyStore(open_hierarchy(store)), mode="r")
    with pytest.raises(ChunkError, match=r"index of a shard is damaged: .*'x/c/0'") as caught:
        group["x"][part]
    assert caught.value.path == "x/c/0"


def test_damaged_text_is_an_error_of_ours(tmp_path: Path) -> None:
    node = array((1,)) | {"data_type": "string", "fill_value": "", "codecs": ["vlen-utf8"]}
    store = write_store(tmp_path / "a.nwb.zarr", {"x": node})
    (store / "x/c").mkdir()
    (store / "x/c/0").write_bytes(struct.pack("<II", 1, 2) + b"\xff\xfe")
    group = zarr.open_group(HierarchyStore(open_hierarchy(store)), mode="r")
    with pytest.raises(ChunkError, match="'x/c/0' of the array 'x'"):
        group["x"][:]


STRINGS = {
    "plain": (struct.pack("<I", 2**31), [], ChunkError, "2147483648 elements, but 10"),
    "compressed": (
        numcodecs.GZip(1).encode(struct.pack("<I", 2**31)),
        [{"name": "gzip", "configuration": {"level": 1}}],
        ChunkError,
        "2147483648 elements, but 10",
    ),
    "long": (
        numcodecs.Zstd().encode(np.zeros(20 * 2**20, "u1")),
        [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
        LimitError,
        "expands to",
    ),
}


@pytest.mark.parametrize("case", STRINGS)
def test_strings_that_claim_too_much_are_refused_before_zarr_makes_room(case: str, tmp_path: Path) -> None:
    data, compressors, error, message = STRINGS[case]
    node = array((10,)) | {"data_type": "string", "fill_value": ""}
    node["codecs"] = [{"name": "vlen-utf8", "configuration": {}}, *compressors]
    store = write_store(tmp_path / "a.nwb.zarr", {"x": node})
    (store / "x/c").mkdir()
    (store / "x/c/0").write_bytes(data)
    hierarchy = open_hierarchy(store)
    group = zarr.open_group(HierarchyStore(hierarchy), mode="r")
    with pytest.raises(error, match=message):
        group["x"][:]
    with pytest.raises(error, match=message):
        StoredArray(hierarchy.file, hierarchy["x"]).read()
