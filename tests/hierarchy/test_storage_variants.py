import base64

import numcodecs
import numpy as np
import pytest

from intake_nwbzarr.errors import MetadataError
from tests.hierarchy.zarr2 import PICKLE, Zarr2Array, objects

INTEGERS = np.arange(-30, 30, dtype="<i4").reshape(10, 6)


@pytest.mark.parametrize(
    "compressor",
    [
        None,
        numcodecs.GZip(3),
        numcodecs.Zlib(3),
        numcodecs.BZ2(3),
        numcodecs.LZ4(),
        numcodecs.LZMA(),
        numcodecs.Zstd(3),
        numcodecs.Zstd(3, checksum=True),
        numcodecs.Blosc("lz4", 5, numcodecs.Blosc.NOSHUFFLE),
        numcodecs.Blosc("zstd", 5, numcodecs.Blosc.SHUFFLE),
        numcodecs.Blosc("zlib", 5, numcodecs.Blosc.BITSHUFFLE),
        numcodecs.Blosc("blosclz", 5, numcodecs.Blosc.AUTOSHUFFLE),
    ],
    ids=repr,
)
@pytest.mark.parametrize("values", [INTEGERS, INTEGERS.astype("u1"), INTEGERS / 7], ids=["i4", "u1", "f8"])
def test_every_compressor_is_read(compressor, values):
    stored = Zarr2Array(values, chunks=(4, 6), compressor=compressor)
    read = stored.read()
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(
    ("filters", "values"),
    [
        ([numcodecs.Delta("<i4")], INTEGERS),
        ([numcodecs.Delta("<i4", "<i2")], INTEGERS),
        ([numcodecs.Delta(">i4")], INTEGERS.astype(">i4")),
        ([numcodecs.Delta(">i4", "<i2")], INTEGERS.astype(">i4")),
        ([numcodecs.Delta("|i1")], INTEGERS.astype("i1")),
        ([numcodecs.FixedScaleOffset(-3, 10, "<f8", "<i2")], np.round(INTEGERS / 10, 1)),
        ([numcodecs.FixedScaleOffset(-3, 10, ">f8", ">i2")], np.round(INTEGERS / 10, 1).astype(">f8")),
        ([numcodecs.FixedScaleOffset(-3, 10, "<f8", "|i1")], np.round(INTEGERS / 20, 1)),
        (
            [numcodecs.FixedScaleOffset(-3, 10, "<f8", "<i2"), numcodecs.Delta("<i2")],
            np.round(INTEGERS / 10, 1),
        ),
        ([numcodecs.AsType("<f4", "<f8")], INTEGERS.astype("<f8")),
        ([numcodecs.AsType("<i2", ">i4")], INTEGERS.astype(">i4")),
        ([numcodecs.Quantize(3, "<f8")], np.round(INTEGERS / 8, 3)),
        ([numcodecs.Quantize(3, "<f8", "<f4")], np.round(INTEGERS / 8, 3)),
        ([numcodecs.BitRound(23)], (INTEGERS / 8).astype("<f4")),
        ([numcodecs.PackBits()], INTEGERS > 0),
        ([numcodecs.Shuffle(4)], INTEGERS),
        ([numcodecs.Delta("<i4"), numcodecs.Shuffle(4)], INTEGERS),
        ([numcodecs.Adler32()], INTEGERS),
        ([numcodecs.CRC32()], INTEGERS),
        ([numcodecs.Zlib(1)], INTEGERS),
    ],
    ids=str,
)
@pytest.mark.parametrize("compressor", [None, numcodecs.Blosc()], ids=repr)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_filter_is_undone(filters, values, compressor, order):
    stored = Zarr2Array(values, chunks=(5, 6), filters=tuple(filters), compressor=compressor, order=order)
    np.testing.assert_allclose(stored.read(), values, rtol=1e-6)
    assert stored.open().dtype == values.dtype.newbyteorder("=")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("separator", [".", "/", None])
@pytest.mark.parametrize("dtype", ["<i4", ">i4", ">f8", "<u2", ">c16", "|i1", "<f2"])
def test_orders_separators_and_byte_orders_are_read(order, separator, dtype):
    values = np.arange(2 * 5 * 7).reshape(2, 5, 7).astype(dtype)
    stored = Zarr2Array(
        values, chunks=(1, 3, 4), order=order, separator=separator, compressor=numcodecs.Zstd()
    )
    np.testing.assert_array_equal(stored.read(), values)
    assert stored.open().shape == (2, 5, 7)


@pytest.mark.parametrize(
    ("dtype", "fill_value", "expected"),
    [
        ("<f8", "NaN", np.nan),
        ("<f8", "Infinity", np.inf),
        ("<f4", "-Infinity", -np.inf),
        ("<f8", float("nan"), np.nan),
        ("<f8", None, 0.0),
        ("<f8", 0, 0.0),
        ("<f8", 1.5, 1.5),
        ("<i4", None, 0),
        (">i4", -7, -7),
        ("|b1", None, False),
        ("|b1", True, True),
        ("|b1", 0, False),
        ("<c8", ["NaN", 1.0], complex(np.nan, 1)),
        ("<c8", 0, 0j),
        ("<c8", None, 0j),
        ("|S3", base64.b64encode(b"abc").decode(), b"abc"),
        ("|S3", None, b""),
        ("|S3", 0, b""),
        ("<U3", "né", "né"),
        ("<U3", None, ""),
        ("<U3", 0, ""),
        ("|V3", base64.b64encode(b"abc").decode(), np.void(b"abc")),
        ("|V3", None, np.void(b"\0\0\0")),
        ("<M8[ns]", None, np.datetime64(0, "ns")),
        ("<M8[s]", 5, np.datetime64(5, "s")),
        ("<M8[s]", -(2**63), np.datetime64("NaT", "s")),
        ("<M8[s]", "NaT", np.datetime64("NaT", "s")),
        ("<m8[10us]", 3, np.timedelta64(3, "10us")),
    ],
)
def test_missing_chunks_hold_the_fill_value(dtype, fill_value, expected):
    values = np.zeros(4, dtype)
    read = Zarr2Array(values, chunks=(2,), fill_value=fill_value, missing=("1",)).read()
    assert read.dtype == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read[:2], values[:2])
    np.testing.assert_array_equal(read[2:], np.array([expected] * 2, dtype))


@pytest.mark.parametrize(
    ("dtype", "fill_value"),
    [
        ("<i4", "x"),
        ("<f8", "big"),
        ("|S3", "!"),
        ("|V3", 7),
        ("<i4", [1]),
        ("<c8", [1, 2, 3]),
        ("<i4", "NaN"),
    ],
)
def test_a_fill_value_of_another_type_is_named(dtype, fill_value):
    with pytest.raises(MetadataError, match="The array 'group/data' has the fill value"):
        _ = Zarr2Array(np.zeros(4, dtype), fill_value=fill_value).node


@pytest.mark.parametrize(
    "values",
    [
        np.array([True, False, True]),
        np.array([b"a", b"abc", b""], "S3"),
        np.array(["a", "æøå", ""], "<U3"),
        np.array(["a", "æøå", ""], ">U3"),
        np.array([b"abc", b"def"], "V3"),
        np.array(["2020-01-01", "NaT"], "<M8[D]"),
        np.array(["2020-01-01T10", "NaT"], ">M8[ns]"),
        np.array([5, 7], "<m8[ms]"),
        np.array([(1, 2.5, b"x"), (3, 4.5, b"yz")], [("a", "<i4"), ("b", "<f4"), ("c", "S2")]),
        np.array([(1, 2.5), (3, 4.5)], [("a", ">i4"), ("b", ">f4")]),
        np.array([(1, True), (3, False)], [("a", "|u1"), ("b", "|b1")]),
        np.array([(1, (2, "ab"))], [("a", "<i4"), ("b", [("c", "<i2"), ("d", "<U2")])]),
    ],
    ids=lambda values: str(values.dtype),
)
@pytest.mark.parametrize("compressor", [None, numcodecs.Blosc("zstd")], ids=repr)
def test_every_kind_of_element_is_read(values, compressor):
    read = Zarr2Array(values, compressor=compressor, fill_value=None).read()
    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype.newbyteorder("=")


def test_a_compounds_fill_value_is_read_field_by_field():
    values = np.array([(1, 2.5, b"x")] * 4, [("a", ">i4"), ("b", ">f4"), ("c", "S2")])
    fill = np.array((7, np.nan, b"z"), values.dtype)
    stored = Zarr2Array(
        values, chunks=(2,), missing=("0",), fill_value=base64.b64encode(fill.tobytes()).decode()
    )
    assert stored.node.metadata["fill_value"] == {"a": 7, "b": "NaN", "c": "eg=="}
    read = stored.read()
    assert read[0]["a"] == 7
    assert np.isnan(read[0]["b"])
    assert read[3].tolist() == (1, 2.5, b"x")


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("dtype", ["<f8", "|O"])
def test_arrays_without_elements_are_read(shape, dtype):
    filters = (numcodecs.VLenUTF8(),) if dtype == "|O" else ()
    for chunks in (shape, tuple(max(length, 1) for length in shape)):
        zarray = Zarr2Array(np.zeros((1,) * len(shape)), filters=()).zarray
        stored = Zarr2Array(np.zeros((1,) * len(shape)))
        stored.stored = {}
        stored.zarray = zarray | {
            "shape": [*shape],
            "chunks": [*chunks],
            "dtype": dtype,
            "filters": [codec.get_config() for codec in filters] or None,
        }
        assert stored.read().shape == shape


def test_an_array_without_dimensions_is_read():
    stored = Zarr2Array(np.array(2.5), compressor=numcodecs.Zlib())
    assert stored.open().shape == ()
    assert stored.read() == 2.5


def test_a_scalar_loses_its_dimension():
    stored = Zarr2Array(np.array([2.5]), attributes={"zarr_dtype": "scalar"})
    assert stored.node.shape == ()
    assert stored.node.attributes == {"_DTYPE": "float64"}
    assert stored.read() == 2.5


def test_a_column_of_one_row_keeps_its_dimension():
    stored = Zarr2Array(np.array([2.5]), attributes={"zarr_dtype": "float64"})
    assert stored.node.shape == (1,)
    np.testing.assert_array_equal(stored.read(), [2.5])


TEXTS = ["acquisition", "", "æøå 你好", "x" * 3000, "none", "last"]
OBJECT_CODECS = [
    PICKLE,
    numcodecs.Pickle(0),
    numcodecs.Pickle(1),
    numcodecs.Pickle(2),
    numcodecs.Pickle(3),
    numcodecs.Pickle(4),
    numcodecs.JSON(),
    numcodecs.VLenUTF8(),
]


@pytest.mark.parametrize("codec", OBJECT_CODECS, ids=repr)
@pytest.mark.parametrize("compressor", [None, numcodecs.Blosc(), numcodecs.LZ4()], ids=repr)
@pytest.mark.parametrize("chunks", [(6,), (4,), (7,)])
def test_text_is_read_however_it_was_stored(codec, compressor, chunks):
    stored = Zarr2Array(
        objects(TEXTS),
        chunks=chunks,
        filters=(codec,),
        compressor=compressor,
        attributes={"zarr_dtype": "str"},
    )
    assert stored.node.attributes == {"_DTYPE": "str"}
    assert stored.node.metadata["data_type"] == "string"
    assert stored.read().tolist() == TEXTS


@pytest.mark.parametrize(
    "codec", [PICKLE, numcodecs.JSON(), numcodecs.VLenUTF8(), numcodecs.VLenBytes()], ids=repr
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_text_of_two_dimensions_is_read_in_order(codec, order):
    if isinstance(codec, numcodecs.VLenBytes):
        values = objects([text.encode() for text in TEXTS], (2, 3))
    else:
        values = objects(TEXTS, (2, 3))
    stored = Zarr2Array(
        values,
        chunks=(2, 2),
        order=order,
        filters=(codec,),
        padding=b"" if codec.codec_id == "vlen-bytes" else "",
    )
    assert stored.read().tolist() == [TEXTS[:3], TEXTS[3:]]


def test_dates_stored_as_bytes_become_text():
    dates = [b"2020-01-01T10:00:00+01:00"]
    stored = Zarr2Array(
        objects(dates),
        filters=(numcodecs.VLenBytes(),),
        compressor=numcodecs.Blosc(),
        attributes={"zarr_dtype": "scalar"},
    )
    assert stored.node.shape == ()
    assert stored.node.attributes == {"_DTYPE": "str"}
    assert stored.read() == "2020-01-01T10:00:00+01:00"


def test_plain_text_needs_no_codec_of_ours():
    stored = Zarr2Array(objects(TEXTS), filters=(numcodecs.VLenUTF8(),), compressor=numcodecs.Zstd())
    names = [codec["name"] for codec in stored.node.metadata["codecs"]]
    assert names == ["vlen-utf8", "zstd"]


def test_further_filters_of_objects_are_undone():
    stored = Zarr2Array(objects(TEXTS), filters=(PICKLE, numcodecs.Zlib(), numcodecs.CRC32()))
    with pytest.raises(MetadataError, match=r"objects and the filter 'numcodecs\.crc32'"):
        _ = stored.node
    assert (
        Zarr2Array(objects(TEXTS), filters=(PICKLE, numcodecs.Zlib(), numcodecs.BZ2())).read().tolist()
        == TEXTS
    )


@pytest.mark.parametrize("fill_value", [0, None, ""])
@pytest.mark.parametrize("codec", [PICKLE, numcodecs.VLenUTF8()], ids=repr)
def test_missing_chunks_of_text_are_empty(fill_value, codec):
    stored = Zarr2Array(objects(TEXTS), chunks=(2,), filters=(codec,), fill_value=fill_value, missing=("1",))
    assert stored.read().tolist() == [*TEXTS[:2], "", "", *TEXTS[4:]]


def test_missing_chunks_of_text_hold_a_text_fill_value():
    stored = Zarr2Array(objects(TEXTS), chunks=(2,), filters=(PICKLE,), fill_value="?", missing=("1",))
    assert stored.read().tolist()[2:4] == ["?", "?"]


def test_reading_zarr_2_needs_no_change_of_global_settings():
    """A fresh process, warnings as errors, and the codec found by its entry point."""
    import subprocess
    import sys

    script = (
        "import numpy, zarr, numcodecs\n"
        "from tests.hierarchy.zarr2 import Zarr2Array, objects\n"
        "import warnings; filters = list(warnings.filters)\n"
        "values = numpy.arange(10)\n"
        "stored = Zarr2Array(values, compressor=numcodecs.Zlib(), filters=(numcodecs.Delta('<i8'),))\n"
        "assert (stored.read() == values).all()\n"
        "assert Zarr2Array(objects(['a']), filters=(numcodecs.Pickle(),)).read().tolist() == ['a']\n"
        "assert list(warnings.filters) == filters\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)
