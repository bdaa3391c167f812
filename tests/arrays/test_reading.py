"""Reading selections: the right values, from the chunks that are touched and no others, in one gather."""

import asyncio
import pickle
from math import prod

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intake_nwbzarr.arrays import StoredArray, read_many
from intake_nwbzarr.errors import BoundsError, ChunkError, LimitError, MetadataError
from intake_nwbzarr.transport.open import StoredFile
from intake_nwbzarr.transport.request_log import track_requests
from tests.arrays.stored_arrays import orthogonal, stored_array, write, write_raw
from tests.arrays.test_selection import axis_keys

COMPRESSORS = {
    "none": None,
    "blosc": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle"),
    "zstd": zarr.codecs.ZstdCodec(checksum=True),
    "gzip": zarr.codecs.GzipCodec(),
}


@st.composite
def stored_and_key(draw):
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    chunks = tuple(draw(st.integers(1, 5)) for _ in shape)
    shards = draw(st.sampled_from([None, 1, 2, 3]))
    return {
        "shape": shape,
        "chunks": chunks,
        "shards": None if shards is None or not shape else tuple(chunk * shards for chunk in chunks),
        "dtype": draw(st.sampled_from(["int16", "float64", ">u4", "complex64", "bool"])),
        "compressor": draw(st.sampled_from(sorted(COMPRESSORS))),
        "order": draw(st.permutations(range(len(shape)))) if shards is None else None,
        "separator": draw(st.sampled_from("./")),
        "encoding": draw(st.sampled_from(["default", "v2"])),
        "key": tuple(draw(axis_keys(length)) for length in shape[: draw(st.integers(0, len(shape)))]),
        "empty": draw(st.booleans()),
    }


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=stored_and_key())
def test_any_selection_of_any_array_equals_numpys(case, tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    values = np.arange(prod(case["shape"])).reshape(case["shape"]).astype(case["dtype"])
    written = zarr.create_array(
        str(folder),
        name="data",
        shape=case["shape"],
        dtype=values.dtype,
        chunks=case["chunks"],
        shards=case["shards"],
        filters=[zarr.codecs.TransposeCodec(order=tuple(case["order"]))] if case["order"] else None,
        compressors=COMPRESSORS[case["compressor"]],
        chunk_key_encoding={"name": case["encoding"], "separator": case["separator"]},
        fill_value=1,
    )
    expected = np.ones_like(values)
    if not case["empty"]:
        written[...] = expected = values
    elif values.ndim:
        written[:3] = values[:3]
        expected[:3] = values[:3]
    read = stored_array(folder).read(case["key"])
    expected = orthogonal(expected, case["key"])
    np.testing.assert_array_equal(read, expected)
    assert read.dtype == values.dtype.newbyteorder("=")
    assert read.dtype.isnative
    assert read.shape == expected.shape


@pytest.mark.parametrize(
    ("key", "touched"),
    [
        ((), 40),
        ((slice(0, 100), slice(0, 5)), 1),
        ((slice(99, 101),), 8),
        ((slice(None, None, 250), 7), 4),
        ((np.array([999, 0, 999]), np.array([-1, 0])), 4),
        ((slice(5, 5),), 0),
        ((3, 4), 1),
    ],
)
def test_exactly_the_chunks_that_a_selection_touches_are_fetched(tmp_path, key, touched):
    values = np.arange(20_000).reshape(1000, 20)
    stored = write(tmp_path, values, chunks=(100, 5))
    with track_requests() as log:
        read = stored.read(key)
    assert log.requests == touched
    np.testing.assert_array_equal(read, orthogonal(values, key))


def test_a_chunk_that_two_requests_touch_is_fetched_once(tmp_path):
    first = write(tmp_path, np.arange(100), "first", chunks=(10,))
    second = write(tmp_path, np.float32(2.5), "second")
    with track_requests() as log:
        whole, part, scalar, nothing = read_many([first, (first, slice(5, 25)), second, (first, slice(0, 0))])
    assert log.requests == 11
    np.testing.assert_array_equal(whole, np.arange(100))
    np.testing.assert_array_equal(part, np.arange(5, 25))
    assert scalar.shape == ()
    assert scalar == np.float32(2.5)
    assert nothing.shape == (0,)


def test_reading_works_on_the_callers_own_event_loop(tmp_path):
    stored = write(tmp_path, np.arange(100), chunks=(10,))

    async def both():
        return await asyncio.gather(stored.read_async(3), stored.read_async(slice(0, 30)))

    one, some = asyncio.run(both())
    assert one == 3
    np.testing.assert_array_equal(some, np.arange(30))


def test_a_missing_chunk_holds_the_fill_value(tmp_path):
    stored = write(tmp_path, np.arange(10.0), chunks=(5,), fill_value=np.nan)
    (tmp_path / "data" / "c" / "1").unlink()
    np.testing.assert_array_equal(stored.read(), [0, 1, 2, 3, 4, *[np.nan] * 5])


def test_a_damaged_chunk_is_an_error_that_names_location_array_and_chunk(tmp_path):
    stored = write(tmp_path, np.arange(10), chunks=(5,), name="acquisition/data")
    (tmp_path / "acquisition/data/c/1").write_bytes(b"damaged")
    with pytest.raises(ChunkError) as caught:
        stored.read()
    for part in (f"file://{tmp_path}", "acquisition/data", "c/1"):
        assert part in str(caught.value)
    assert stored.read(slice(0, 5)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("found", [b"", b"\0" * 39, b"\0" * 41])
def test_a_chunk_of_another_size_is_an_error(tmp_path, found):
    stored = write_raw(tmp_path, {"shape": [5], "data_type": "int64"}, {"c/0": found})
    with pytest.raises(ChunkError) as caught:
        stored.read()
    assert (caught.value.path, caught.value.found, caught.value.expected) == ("data/c/0", len(found), 40)


def test_declared_chunks_beyond_the_limit_are_refused_unread(tmp_path):
    stored = write_raw(tmp_path, {"shape": [2**40], "data_type": "int64"}, {"c/0": b""})
    with track_requests() as log, pytest.raises(LimitError) as caught:
        stored.read(slice(0, 1))
    assert log.requests == 0
    assert (caught.value.path, caught.value.found) == ("data", 2**43)
    assert "smaller chunks" in caught.value.next_step


def test_unknown_grids_and_key_encodings_are_metadata_errors(tmp_path):
    for change in (
        {"chunk_grid": {"name": "rectilinear", "configuration": {"chunk_shape": [5]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0]}}},
        {"chunk_key_encoding": {"name": "hashed"}},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/../"}}},
    ):
        stored = write_raw(tmp_path, {"shape": [5], "data_type": "int8", **change}, {})
        with pytest.raises(MetadataError, match="data") as caught:
            stored.read()
        assert caught.value.path == "data"


def test_a_position_outside_is_an_index_error(tmp_path):
    stored = write(tmp_path, np.arange(10))
    with pytest.raises(BoundsError, match="axis 0 of length 10") as caught:
        stored.read(10)
    assert (caught.value.found, caught.value.expected) == (10, range(-10, 10))


def test_a_stored_array_pickles_small_and_equal(tmp_path):
    stored = write(
        tmp_path, np.zeros((1000, 20)), chunks=(100, 5), attributes={"unit": "V", "x": float("inf")}
    )
    stored.read(0)
    pickled = pickle.dumps(stored)
    assert len(pickled) < 4000
    restored = pickle.loads(pickled)
    assert restored == stored
    assert hash(restored) == hash(stored)
    assert pickle.dumps(restored) == pickled
    assert len({stored, restored, StoredArray(StoredFile(stored.location, "b"), stored.node)}) == 2
    np.testing.assert_array_equal(restored.read(), np.zeros((1000, 20)))


def test_a_repr_is_one_short_line(tmp_path):
    stored = write(tmp_path, np.zeros((1000, 20)))
    assert repr(stored) == f"<StoredArray data float64 (1000, 20) in file://{tmp_path}>"
