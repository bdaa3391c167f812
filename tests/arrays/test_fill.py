"""Fill values: the JSON forms of Zarr 3, as zarr writes and reads them."""

import warnings

import numpy as np
import pytest
import zarr
from zarr.dtype import parse_dtype

from intake_nwbzarr.arrays.layout import fill_value
from intake_nwbzarr.errors import MetadataError

SCALARS = [
    *(np.dtype(name).type(5) for name in ("int8", "uint64", "int32", "float16", "float32", "float64")),
    *(np.float64(value) for value in (np.nan, np.inf, -np.inf, 0.1, -0.0)),
    np.float32(0.1),
    np.complex128(complex(np.nan, -np.inf)),
    np.complex64(1.5 + 2j),
    np.bool_(True),
    np.str_("Zürich"),
    np.bytes_(b"ab\xff"),
    np.datetime64("NaT", "ns"),
    np.datetime64("2026-01-01", "D"),
    np.timedelta64(10, "s"),
    np.void(b"abc"),
    np.array((1, 2.5, "x"), dtype=[("a", "i4"), ("b", "f8"), ("c", "U3")])[()],
]


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_what_zarr_writes_as_a_fill_value_is_read_as_the_same_bits(scalar):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
        document = parse_dtype(scalar.dtype, zarr_format=3).to_json_scalar(scalar, zarr_format=3)
    filled = fill_value(document, scalar.dtype, "data")
    assert filled.dtype == scalar.dtype
    assert filled.tobytes() == scalar.tobytes()


@pytest.mark.parametrize(
    ("document", "dtype", "expected"),
    [
        (None, "float64", 0.0),
        (None, object, ""),
        ("text", object, "text"),
        (0, object, ""),
        (0, "U3", ""),
        ("0x7fc00000", "float32", np.nan),
        ("0x3ff0000000000000", "float64", 1.0),
        ([1, 2, 3], "V3", np.void(b"\1\2\3")),
        (
            {"a": 1, "b": "-Infinity"},
            [("a", "i4"), ("b", "f4")],
            np.array((1, -np.inf), [("a", "i4"), ("b", "f4")]),
        ),
    ],
)
def test_other_forms_are_understood(document, dtype, expected):
    np.testing.assert_array_equal(fill_value(document, np.dtype(dtype), "data"), expected)


@pytest.mark.parametrize(
    ("document", "dtype"),
    [
        ("x", "float64"),
        (-1, "uint8"),
        ("gAVLAC4=", "V7"),
        ([1], "complex64"),
        ("!", "S3"),
        ({}, "int8"),
        ("0xzz", "f4"),
    ],
)
def test_what_is_no_value_of_the_type_is_a_metadata_error(document, dtype):
    with pytest.raises(MetadataError, match="data") as caught:
        fill_value(document, np.dtype(dtype), "data")
    assert (caught.value.path, caught.value.found) == ("data", document)
    assert caught.value.expected == np.dtype(dtype)
