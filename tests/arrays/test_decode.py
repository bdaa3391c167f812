"""Codec chains: every codec that zarr and numcodecs write is undone, and damage is told."""

import tracemalloc
import warnings
import zlib

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import numcodecs as wrapped

from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, NodeNotFoundError
from tests.arrays.stored_arrays import stored_array, write, write_raw

NUMBERS = np.arange(60, dtype="int32").reshape(12, 5)

BYTES_TO_BYTES = [
    wrapped.BZ2(),
    wrapped.LZ4(),
    wrapped.LZMA(),
    wrapped.Zlib(level=1),
    wrapped.GZip(),
    wrapped.Zstd(),
    wrapped.Blosc(),
    wrapped.CRC32(),
    wrapped.CRC32C(),
    wrapped.Adler32(),
    wrapped.Fletcher32(),
    wrapped.JenkinsLookup3(),
    wrapped.Shuffle(elementsize=4),
    zarr.codecs.Crc32cCodec(),
    *(
        zarr.codecs.BloscCodec(cname=cname, shuffle=shuffle)
        for cname in ("lz4", "blosclz", "zlib")
        for shuffle in ("noshuffle", "shuffle", "bitshuffle")
    ),
]

FILTERS = [
    wrapped.Delta(dtype="<i4"),
    wrapped.Delta(dtype="<i4", astype="<i2"),
    wrapped.FixedScaleOffset(offset=0, scale=2, dtype="<i4", astype="<i8"),
    wrapped.Quantize(digits=2, dtype="<f8"),
    wrapped.BitRound(keepbits=20),
    wrapped.AsType(encode_dtype="<i8", decode_dtype="<i4"),
    zarr.codecs.TransposeCodec(order=(1, 0)),
]


@pytest.fixture(autouse=True)
def _no_unstable_warnings():
    """Zarr warns of codecs and data types that its specification does not have, when they are written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
        yield


@pytest.mark.parametrize("codec", BYTES_TO_BYTES, ids=lambda codec: str(codec.to_dict())[:60])
@pytest.mark.parametrize("chunks", [(5, 3), (4, 5)], ids=["in pieces", "in one piece"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_every_compressor_and_checksum_is_undone(tmp_path, codec, chunks, endian):
    serializer = zarr.codecs.BytesCodec(endian=endian)
    stored = write(tmp_path, NUMBERS, chunks=chunks, compressors=[codec], serializer=serializer)
    np.testing.assert_array_equal(stored.read(), NUMBERS)
    np.testing.assert_array_equal(stored.read((slice(1, 11),)), NUMBERS[1:11])
    np.testing.assert_array_equal(stored.read((slice(None, None, -1),)), NUMBERS[::-1])


@pytest.mark.parametrize("codec", [wrapped.LZ4(), wrapped.Zstd(), wrapped.Blosc(), zarr.codecs.BloscCodec()])
def test_whole_chunks_are_decoded_where_they_belong(tmp_path, codec):
    values = np.zeros((8, 2**20), "int16")
    stored = write(tmp_path, values, chunks=(1, 2**20), compressors=[codec])
    stored.read((slice(0, 1),))
    tracemalloc.start()
    try:
        result = stored.read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A chunk has 2 MiB, and several would be under way at once.
    assert peak < result.nbytes + 2**20


@pytest.mark.parametrize("codec", FILTERS, ids=lambda codec: str(codec.to_dict())[:60])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_every_filter_is_undone(tmp_path, codec, endian):
    values = (
        NUMBERS.astype("f8")
        if "quantize" in str(codec)
        else NUMBERS.astype("f4")
        if "round" in str(codec)
        else NUMBERS
    )
    serializer = zarr.codecs.BytesCodec(endian=endian)
    stored = write(tmp_path, values, chunks=(5, 3), filters=[codec], serializer=serializer)
    np.testing.assert_array_equal(stored.read(), values)
    assert stored.read().dtype == values.dtype


def test_packed_booleans_are_unpacked(tmp_path):
    # zarr's own wrapper refuses to write them, but Zarr 2 files have them.
    values = np.arange(11) % 3 == 0
    codecs = [{"name": "numcodecs.packbits"}, {"name": "bytes"}]
    chunk = numcodecs.PackBits().encode(values).tobytes()
    stored = write_raw(tmp_path, {"shape": [11], "data_type": "bool", "codecs": codecs}, {"c/0": chunk})
    np.testing.assert_array_equal(stored.read(), values)


def test_a_chain_of_several_codecs_is_undone_in_the_right_order(tmp_path):
    stored = write(
        tmp_path,
        np.arange(24, dtype="int16").reshape(2, 3, 4),
        chunks=(2, 2, 4),
        filters=[zarr.codecs.TransposeCodec(order=(2, 0, 1)), wrapped.Delta(dtype="<i2")],
        compressors=[wrapped.Shuffle(elementsize=2), zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec()],
    )
    np.testing.assert_array_equal(stored.read(), np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    "values",
    [
        np.array(["a", "Zürich", ""], dtype=object),
        np.array([["x" * 100, "y"]], dtype=object),
        np.array(["ab", "c"], dtype="U5"),
        np.array([b"ab", b"c"], dtype="S5"),
        np.array([True, False]),
        np.array(["2026-01-01", "NaT"], dtype="M8[ns]"),
        np.array([1, 2], dtype="m8[10s]"),
        np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([1 + 2j, 0]),
        np.array(7, dtype="uint8"),
    ],
    ids=lambda values: str(values.dtype),
)
def test_every_type_is_read_as_it_is(tmp_path, values):
    dtype = zarr.dtype.VariableLengthUTF8() if values.dtype == object else values.dtype
    written = zarr.create_array(
        str(tmp_path), name="data", shape=values.shape, dtype=dtype, chunks=values.shape
    )
    written[...] = values
    stored = stored_array(tmp_path)
    np.testing.assert_array_equal(stored.read(), values)
    assert stored.read().dtype == values.dtype


def test_one_field_of_a_compound_is_read_alone_and_its_text_as_strings(tmp_path):
    values = np.array([(1, "/a/b"), (3, "/c")], dtype=[("index", "i4"), ("target", "U512")])
    stored = write(tmp_path, values, chunks=(1,), serializer=zarr.codecs.BytesCodec(endian="big"))
    target = stored.field("target")
    assert target.dtype == object
    assert target.read().tolist() == ["/a/b", "/c"]
    assert stored.field("index").read(slice(None, None, -1)).tolist() == [3, 1]
    assert stored.field("index").dtype == np.dtype("i4")
    with pytest.raises(NodeNotFoundError) as caught:
        stored.field("Target")
    assert isinstance(caught.value, KeyError)
    assert (caught.value.path, caught.value.found) == ("data", "Target")
    assert caught.value.expected == ("index", "target")


def test_codecs_not_known_here_are_left_to_zarr(tmp_path):
    stored = write(
        tmp_path, NUMBERS.astype("f8"), chunks=(5, 3), filters=[zarr.codecs.ScaleOffset(offset=1, scale=2)]
    )
    np.testing.assert_array_equal(stored.read((slice(1, 7), 2)), NUMBERS[1:7, 2])


def test_a_checksum_that_does_not_fit_is_an_error(tmp_path):
    stored = write(tmp_path, NUMBERS, chunks=(12, 5), compressors=[zarr.codecs.Crc32cCodec()])
    chunk = tmp_path / "data/c/0/0"
    chunk.write_bytes(b"\1" + chunk.read_bytes()[1:])
    with pytest.raises(ChunkError, match="c/0/0") as caught:
        stored.read()
    assert (caught.value.location, caught.value.path) == (f"file://{tmp_path}", "data/c/0/0")


def _bomb(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


@pytest.mark.parametrize("name", ["numcodecs.zlib", "zstd"])
def test_a_chunk_that_would_expand_beyond_its_size_is_refused_before_it_does(tmp_path, name):
    encoded = _bomb(2**26) if name == "numcodecs.zlib" else bytes(numcodecs.Zstd().encode(bytes(2**26)))
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": name}]
    stored = write_raw(tmp_path, {"shape": [10], "data_type": "int8", "codecs": codecs}, {"c/0": encoded})
    tracemalloc.start()
    try:
        with pytest.raises(LimitError, match="data/c/0") as caught:
            stored.read()
        assert caught.value.path == "data/c/0"
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"\2\0\0\0\3\0\0\0ab",
        b"\xff\xff\xff\x7f\3\0\0\0abc",
        b"\1\0\0\0\3\0\0\0abc",
        b"\2\0\0\0\xff\xff\xff\xffabc",
        b"\2\0\0\0\1\0\0\0\xff\0\0\0\0",
    ],
)
def test_damaged_strings_are_an_error(tmp_path, chunk):
    stored = write_raw(
        tmp_path,
        {"shape": [2], "data_type": "string", "codecs": [{"name": "vlen-utf8"}], "fill_value": ""},
        {"c/0": chunk},
    )
    with pytest.raises(ChunkError, match="data/c/0") as caught:
        stored.read()
    assert caught.value.path == "data/c/0"


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ({"name": "transpose", "configuration": {"order": [0, 0]}}, "not an order of 2 axes"),
        ({"name": "transpose", "configuration": {}}, "order"),
        (
            {"name": "numcodecs.astype", "configuration": {"encode_dtype": "S1000000000"}},
            "encodes numbers as",
        ),
    ],
)
def test_invalid_filters_are_reported_with_the_array(tmp_path, codec, message):
    document = {"shape": [2, 2], "data_type": "int32", "codecs": [codec, "bytes"]}
    with pytest.raises(MetadataError, match=f"'data' has invalid codecs: .*{message}") as caught:
        write_raw(tmp_path, document, {"c/0/0": b""}).read()
    assert caught.value.path == "data"
    assert caught.value.found == [codec, "bytes"]


def test_a_selection_of_too_many_chunks_is_refused_before_they_are_listed(tmp_path):
    document = {
        "shape": [10**9],
        "data_type": "int8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
    }
    stored = write_raw(tmp_path, document, {})
    (tmp_path / "zarr.json").touch()  # the session is there, and its chunks are not
    with pytest.raises(LimitError, match="1,000,000,000 chunks") as caught:
        stored.read()
    assert (caught.value.location, caught.value.path) == (f"file://{tmp_path}", "data")
    assert caught.value.found == 10**9
    assert stored.read(slice(0, 10**9, 10**8)).shape == (10,)
    assert stored.read(np.array([10**9 - 1, 0])).shape == (2,)
