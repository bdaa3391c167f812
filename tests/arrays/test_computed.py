"""Arrays that are computed when they are read: any selection; scaled ones are pynwb's, bit for bit."""

import asyncio
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pynwb import TimeSeries
from pynwb.testing.mock.ecephys import mock_ElectricalSeries

from intake_nwbzarr.arrays import Computed, ScaledArray, lazy_variable, read_many, read_source, scaled
from intake_nwbzarr.transport.request_log import track_requests
from tests.arrays.stored_arrays import orthogonal, write

VALUES = np.random.default_rng(1).integers(-(2**15), 2**15, (200, 5), "int16")
FACTORS = np.array([1.1, 0.3, 1 / 3, 2.0, -7e-7])
CALLS = []
CONVERSION, OFFSET = 4.679999828338623e-06, 1e-3


@dataclass(frozen=True, eq=False)
class Shifted(Computed):
    """A source of any kind plus a number: the least that an array of this kind says."""

    source: Any
    by: int = 0

    @property
    def sources(self):
        return (self.source,)

    def read_axes(self, axes):
        CALLS.append(axes)
        return read_source(self.source, axes) + self.by


def _axis_key(length):
    return st.one_of(
        st.slices(length),
        st.integers(-length, length - 1),
        st.lists(st.integers(-length, length - 1), max_size=5).map(lambda some: np.array(some, int)),
        st.lists(st.booleans(), min_size=length, max_size=length).map(lambda mask: np.array(mask, bool)),
    )


@settings(max_examples=100, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["values", "variable", "dask", "computed"]))
def test_any_selection_is_that_of_numpy_whatever_the_source(data, kind):
    values = np.arange(24).reshape(2, 3, 4)
    variable = xr.Variable(("x", "y", "z"), values)
    sources = {"values": values, "variable": variable, "computed": Shifted(values)}
    array = Shifted(sources[kind] if kind in sources else variable.chunk(y=2), 5)
    key = tuple(data.draw(_axis_key(length)) for length in values.shape)
    expected = orthogonal(values + 5, key)
    for read in (array.read(key), asyncio.run(array.read_async(key))):
        assert (read.shape, read.dtype) == (expected.shape, array.dtype)
        np.testing.assert_array_equal(read, expected)


def test_an_empty_selection_computes_nothing():
    before = len(CALLS)
    assert Shifted(VALUES).read((slice(0), 3)).shape == (0,)
    assert Shifted(VALUES[:0]).read().shape == (0, 5)
    assert len(CALLS) == before


def test_shape_dtype_and_chunks_are_the_sources():
    array = lazy_variable(("x", "y"), Shifted(VALUES), encoding={"preferred_chunks": {"x": 50, "y": 9}})
    made = Shifted(array)
    assert (made.shape, made.dtype, made.chunks) == (VALUES.shape, VALUES.dtype, (50, 5))
    assert Shifted(made).chunks == (50, 5)
    assert Shifted(VALUES).chunks == VALUES.shape
    assert Shifted(xr.Variable("x", np.broadcast_to(0.0, 2**21))).chunks == (2**20,)


def test_tokens_are_of_the_fields_and_the_same_after_pickling():
    arrays = [Shifted(VALUES), Shifted(VALUES, 1), Shifted(VALUES[::-1]), Shifted(Shifted(VALUES))]
    tokens = [array.__dask_tokenize__() for array in arrays]
    assert len(set(tokens)) == len(tokens)
    assert [pickle.loads(pickle.dumps(array)).__dask_tokenize__() for array in arrays] == tokens


def _same_bits(read, expected):
    assert read.dtype == expected.dtype
    assert read.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "int32", "uint64", "float64", "bool"])
@pytest.mark.parametrize("offset", [0.0, OFFSET])
@pytest.mark.parametrize("conversion", [CONVERSION, -CONVERSION])
def test_scaled_values_are_pynwbs_bit_for_bit(tmp_path, dtype, offset, conversion):
    values = np.abs(VALUES).astype(dtype)
    values[:40] = 0  # zeros times a negative number are negative, until something is added
    series = TimeSeries(
        name="x", data=values, unit="V", conversion=conversion, offset=offset, rate=1.0, starting_time=0.0
    )
    array = scaled(write(tmp_path, values, chunks=(30, 2)), conversion, offset)
    _same_bits(array.read(), series.get_data_in_units())


def test_channel_factors_give_pynwbs_values_bit_for_bit(tmp_path):
    series = mock_ElectricalSeries(
        data=VALUES, conversion=CONVERSION, offset=OFFSET, channel_conversion=FACTORS, rate=30000.0
    )
    array = scaled(write(tmp_path, VALUES, chunks=(30, 2)), CONVERSION, OFFSET, FACTORS)
    _same_bits(array.read(), series.get_data_in_units())


@pytest.mark.parametrize(
    "key",
    [
        (),
        (slice(150, 3, -7), slice(None, None, 2)),
        (np.array([3, 199, 3]), np.array([4, 0])),
        (5,),
        (slice(0, 40), 3),
        (5, 3),
        (slice(0, 0),),
        (slice(None), np.array([False, True, False, False, True])),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_any_selection_is_scaled_by_its_own_channels(tmp_path, key, dtype):
    array = scaled(write(tmp_path, VALUES, chunks=(30, 2)), CONVERSION, OFFSET, FACTORS, 1, dtype)
    expected = VALUES * (CONVERSION * FACTORS) + OFFSET
    _same_bits(array.read(key), orthogonal(expected.astype(dtype), key))
    assert array.dtype == dtype


def test_the_channel_axis_may_be_any(tmp_path):
    values = VALUES[:60].reshape(5, 4, 15)
    array = scaled(write(tmp_path, values, chunks=(2, 2, 2)), 2.0, 0.0, FACTORS, 0)
    key = (np.array([4, 0]), 3, slice(None, None, -2))
    _same_bits(array.read(key), orthogonal(values * (2.0 * FACTORS)[:, None, None] + 0.0, key))


def test_stored_channel_factors_are_read_once_a_process(tmp_path):
    stored = write(tmp_path, VALUES, chunks=(200, 5))
    factors = write(tmp_path, FACTORS.astype("float32"), "channel_conversion")
    array = scaled(stored, CONVERSION, 0.0, factors)
    expected = VALUES[10:20] * (CONVERSION * FACTORS.astype("float32").astype("float64"))
    with track_requests() as log:
        _same_bits(array.read(slice(10, 20)), expected)
        array.read(0)
    assert log.requests == 3
    restored = pickle.loads(pickle.dumps(array))
    assert restored == array
    with track_requests() as log:
        _same_bits(asyncio.run(restored.read_async(slice(10, 20))), expected)
    assert log.requests == 2
    assert len(pickle.dumps(array)) < 4000


def test_nothing_to_scale_leaves_the_stored_array_and_its_dtype(tmp_path):
    stored = write(tmp_path, VALUES)
    assert scaled(stored, 1.0, 0.0) is stored
    assert isinstance(scaled(stored, 1.0, 0.5), ScaledArray)
    assert isinstance(scaled(stored, 1.0, 0.0, np.ones(5)), ScaledArray)


def test_a_scalar_a_missing_chunk_and_float32_samples_are_scaled_in_64_bits(tmp_path):
    scalar = scaled(write(tmp_path, np.float32(0.1), "scalar"), 0.1, 1.0)
    missing = scaled(write(tmp_path, np.full(4, 3, "int8"), "missing", chunks=(2,), fill_value=3), 0.1, 1.0)
    first, second = read_many([scalar, missing])
    _same_bits(first, np.float64(np.float32(0.1)) * 0.1 + 1.0)
    _same_bits(second, np.full(4, 3 * 0.1 + 1.0))
    assert (scalar.shape, scalar.dtype, missing.size, missing.ndim) == ((), np.float64, 4, 1)
