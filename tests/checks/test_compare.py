"""Whether two values, or two arrays, are the same: against plain NumPy."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from intake_nwbzarr.checks import compare
from intake_nwbzarr.checks.compare import blocks, same, shortened, unlike

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7)
TYPES = st.sampled_from(["int16", "uint8", "float32", "float64", "bool"])


class Chunked:
    """An array in chunks that counts how often each element is read."""

    def __init__(self, array: np.ndarray[Any, Any], chunks: tuple[int, ...]) -> None:
        self.array, self.chunks, self.shape, self.dtype = array, chunks, array.shape, array.dtype
        self.read = np.zeros(array.shape, int)

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        self.read[key] += 1
        return self.array[key]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=SHAPES, dtype=TYPES, block=st.integers(1, 40))
def test_an_array_differs_exactly_where_numpy_says_however_it_is_divided(
    data: st.DataObject, shape: tuple[int, ...], dtype: str, block: int
) -> None:
    array = data.draw(arrays.arrays(dtype, shape))
    chunks = tuple(data.draw(st.integers(1, max(side, 1))) for side in shape)
    other = array.copy()
    changed = data.draw(st.booleans()) and array.size > 0
    if changed:
        position = tuple(data.draw(st.integers(0, side - 1)) for side in shape)
        with np.errstate(over="ignore"):
            other[position] = not other[position] if dtype == "bool" else other[position] + 1
        changed = not np.array_equal(array, other, equal_nan=dtype.startswith("float"))
    chunked = Chunked(array, chunks)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compare, "BLOCK", block)
        found = unlike(chunked, xr.Variable([f"d{axis}" for axis in range(array.ndim)], other))
    assert (found is not None) == changed
    if found is None:
        assert (chunked.read == 1).all()
    elif array.ndim:
        assert found[0].endswith(f"at {list(position)}")


@given(shape=SHAPES, block=st.integers(1, 60), data=st.data())
def test_blocks_cover_every_element_once_and_divide_no_chunk(
    shape: tuple[int, ...], block: int, data: st.DataObject
) -> None:
    chunks = tuple(data.draw(st.integers(1, max(side, 1))) for side in shape)
    covered = np.zeros(shape, int)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compare, "BLOCK", block)
        found = list(blocks(shape, chunks))
    for place in found:
        covered[place] += 1
        for part, chunk, side in zip(place, chunks, shape, strict=True):
            assert part.start % chunk == 0
            assert part.stop % chunk == 0 or part.stop == side
    assert (covered == 1).all()


PLAIN = st.one_of(st.integers(-(2**40), 2**40), st.floats(), st.text())
NESTED = st.recursive(PLAIN, lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(value=NESTED)
def test_a_value_is_the_same_as_itself_as_numpy_has_it_and_as_json(value: Any) -> None:
    assert same(value, value)
    if isinstance(value, list):
        assert same(tuple(value), value)
        assert same(value, json.dumps(value))
    elif isinstance(value, str):
        assert same(value.encode("utf-8", "surrogatepass"), value) or not value.isprintable()
    else:
        assert same(np.asarray(value), value)


@given(one=PLAIN, other=PLAIN)
def test_plain_values_are_the_same_exactly_if_python_says_so(one: Any, other: Any) -> None:
    both_missing = all(isinstance(each, float) and np.isnan(each) for each in (one, other))
    assert same(one, other) == (one == other or both_missing)


@pytest.mark.parametrize(
    ("raw", "shown", "equal"),
    [
        (True, 1, True),
        (False, 1, False),
        (np.bool_(True), 1, True),
        (2**70, str(2**70), True),
        (2**70, str(2**70 + 1), False),
        ({"low": 1, "high": [2, 3]}, '{"low": 1, "high": [2, 3]}', True),
        ({"low": 1}, '{"low": 2}', False),
        ({"low": 1}, '{"high": 1}', False),
        ({"x": 1.5, "y": 2.5}, [1.5, 2.5], True),
        ({"x": 1.5, "y": 2.5}, [2.5, 1.5], False),
        (("one",), "one", True),
        (["one", "two"], "one", False),
        ([["a", "1"]], '[["a", "1"]]', True),
        ("5", 5, False),
        (dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC), "2024-05-01T12:00:00+00:00", True),
        (dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC), "2024-05-01T13:00:00+01:00", False),
        (dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC), "2024-05-01T12:00:01+00:00", False),
        (dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC), "yesterday", False),
        (dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC), 5, False),
        (dt.date(2024, 5, 1), "2024-05-01", True),
        (dt.date(2024, 5, 1), "2024-05-02", False),
    ],
)
def test_attributes_hold_what_they_can_store(raw: Any, shown: Any, equal: bool) -> None:
    assert same(raw, shown) is equal


@pytest.mark.parametrize(
    ("raw", "shown", "found"),
    [
        (np.array([1, 2], "int16"), np.array([1, 2], "int64"), ("int16", "int64")),
        (np.array([1.0, 2.0], "float32"), np.array([1.0, 2.0]), None),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0], "float32"), ("float64", "float32")),
        (np.array([1, 0], "uint8"), np.array([True, False]), ("uint8", "bool")),
        (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), None),
        (["a", "b"], np.array(["a", "b"], object), None),
        (np.array([b"a"]), np.array(["a"], object), None),
        (["a", "b"], np.array(["a", "c"], object), ("'b' at [1]", "'c' at [1]")),
        (["1"], np.array([1]), ("'1' at [0]", "np.int64(1) at [0]")),
        ([], np.array([1.0]), ("shape (0,)", "shape (1,)")),
    ],
)
def test_types_count_as_values_do(
    raw: Any, shown: np.ndarray[Any, Any], found: tuple[str, str] | None
) -> None:
    assert unlike(raw, xr.Variable("row", shown)) == found


def test_a_long_value_is_shortened_to_a_line() -> None:
    text = shortened("words\n" * 500)
    assert len(text) == 120
    assert text.endswith("…")
    assert shortened(np.zeros((3, 4))) == "array of float64, shape (3, 4)"
