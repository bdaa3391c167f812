"""Sharded arrays: the index, then the ranges of the chunks that are wanted."""

import numpy as np
import pytest
import zarr

from intake_nwbzarr.arrays.shards import GAP, RANGE, byte_ranges
from intake_nwbzarr.errors import ChunkError, MetadataError
from intake_nwbzarr.transport.request_log import track_requests
from tests.arrays.stored_arrays import stored_array

VALUES = np.random.default_rng(0).integers(0, 2**60, (400, 2000))


def _write(folder, location="end", index_codecs=None, **options):
    """Two shards of 3.2 MB, each of 200 chunks of 16 kB that do not compress."""
    codec = zarr.codecs.ShardingCodec(
        chunk_shape=(1, 2000),
        codecs=[zarr.codecs.BytesCodec(), zarr.codecs.ZstdCodec()],
        index_location=location,
        **({} if index_codecs is None else {"index_codecs": index_codecs}),
    )
    written = zarr.create_array(
        str(folder),
        name="data",
        shape=VALUES.shape,
        dtype="int64",
        chunks=(200, 2000),
        serializer=codec,
        compressors=None,
        **options,
    )
    written[...] = VALUES
    return stored_array(folder)


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize(
    "index_codecs",
    [
        None,
        [zarr.codecs.BytesCodec(endian="big")],
        # No index that is read here; zarr gets the whole shard.
        [zarr.codecs.TransposeCodec(order=(2, 1, 0)), zarr.codecs.BytesCodec()],
    ],
    ids=["checked", "big-endian", "transposed"],
)
def test_a_shard_is_read_whatever_its_index_is_like(tmp_path, location, index_codecs):
    stored = _write(tmp_path, location, index_codecs)
    np.testing.assert_array_equal(stored.read((slice(199, 202), 5)), VALUES[199:202, 5])
    np.testing.assert_array_equal(stored.read(), VALUES)


def test_shards_of_shards_are_refused(tmp_path):
    inner = zarr.codecs.ShardingCodec(chunk_shape=(2, 5))
    outer = zarr.codecs.ShardingCodec(chunk_shape=(4, 10), codecs=[inner])
    zarr.create_array(
        str(tmp_path),
        name="data",
        shape=(9, 20),
        dtype="int64",
        chunks=(8, 20),
        serializer=outer,
        compressors=None,
    )
    with pytest.raises(MetadataError, match="shards inside shards") as caught:
        stored_array(tmp_path).read()
    assert caught.value.path == "data"


def test_one_chunk_of_a_shard_takes_the_index_and_its_own_range(tmp_path):
    stored = _write(tmp_path)
    with track_requests() as log:
        np.testing.assert_array_equal(stored.read(7), VALUES[7])
    assert log.requests == 2
    assert log.bytes < 25_000


def test_neighbouring_chunks_are_one_range_and_distant_ones_two(tmp_path):
    stored = _write(tmp_path)
    with track_requests() as log:
        stored.read(slice(10, 20))
    assert log.requests == 2
    with track_requests() as log:
        stored.read(np.array([0, 100]))
    assert log.requests == 3


def test_most_of_a_shard_is_fetched_in_one_request(tmp_path):
    stored = _write(tmp_path)
    with track_requests() as log:
        np.testing.assert_array_equal(stored.read(slice(0, 150)), VALUES[:150])
    assert log.requests == 1


def test_a_shard_at_the_edge_is_whole_when_all_that_the_array_has_of_it_is_wanted(tmp_path):
    values = np.random.default_rng(2).integers(0, 2**60, (110, 40_000))
    zarr.create_array(str(tmp_path), name="data", data=values, chunks=(10, 40_000), shards=(100, 40_000))
    stored = stored_array(tmp_path)
    with track_requests() as log:
        np.testing.assert_array_equal(stored.read(slice(100, None)), values[100:])
    assert log.requests == 1


def test_chunks_and_shards_that_are_not_stored_hold_the_fill_value(tmp_path):
    written = zarr.create_array(
        str(tmp_path), name="data", shape=(40,), dtype="int16", chunks=(5,), shards=(20,), fill_value=-3
    )
    written[5:10] = np.arange(5)
    expected = [-3] * 5 + [0, 1, 2, 3, 4] + [-3] * 30
    np.testing.assert_array_equal(stored_array(tmp_path).read(), expected)


@pytest.mark.parametrize("key", [7, slice(None)], ids=["part", "whole"])
def test_a_damaged_or_truncated_shard_is_an_error(tmp_path, key):
    stored = _write(tmp_path)
    shard = tmp_path / "data/c/0/0"
    content = shard.read_bytes()
    for damaged in (
        content[:-1],
        content[:100],
        b"",
        content[:-50] + bytes([content[-50] ^ 1]) + content[-49:],
    ):
        shard.write_bytes(damaged)
        with pytest.raises(ChunkError, match="data/c/0/0") as caught:
            stored.read(key)
        assert (caught.value.location, caught.value.path) == (f"file://{tmp_path}", "data/c/0/0")


def test_an_index_that_leads_out_of_the_shard_is_an_error(tmp_path):
    stored = _write(tmp_path, index_codecs=[zarr.codecs.BytesCodec()])
    shard = tmp_path / "data/c/0/0"
    content = shard.read_bytes()
    index = np.frombuffer(content[-3200:], "<u8").copy()
    index[0] = 2**62
    shard.write_bytes(content[:-3200] + index.tobytes())
    with pytest.raises(ChunkError) as caught:
        stored.read()
    assert caught.value.path == "data/c/0/0"
    assert caught.value.found[0] == 2**62
    np.testing.assert_array_equal(stored.read(1), VALUES[1])


def test_ranges_are_joined_over_small_gaps_up_to_a_size():
    near = {0: (0, 10), 1: (10 + GAP, 20 + GAP), 2: (21 + 2 * GAP, 22 + 2 * GAP)}
    assert [(part.start, part.stop) for part in byte_ranges(near)] == [
        (0, 20 + GAP),
        (21 + 2 * GAP, 22 + 2 * GAP),
    ]
    long = {index: (index * RANGE // 2, (index + 1) * RANGE // 2) for index in range(4)}
    assert [sorted(part.chunks) for part in byte_ranges(long)] == [[0, 1], [2, 3]]
    assert byte_ranges({}) == []
