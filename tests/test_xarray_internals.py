"""What this package expects of the private parts of xarray it imports."""

import ast
import asyncio
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from xarray.backends import BackendArray

import intake_nwbzarr
from intake_nwbzarr.xarray_internals import (
    BasicIndexer,
    ExplicitIndexer,
    IndexSelResult,
    LazilyIndexedArray,
    MemoryCachedArray,
    OuterIndexer,
    VectorizedIndexer,
    is_lazy,
    outer_indexed,
    outer_indexed_async,
)

VALUES = np.arange(60.0).reshape(6, 10)


class RecordingArray(BackendArray):
    """An array that remembers with which keys it was read."""

    def __init__(self) -> None:
        self.shape = VALUES.shape
        self.dtype = VALUES.dtype
        self.keys: list[tuple[Any, ...]] = []

    def __getitem__(self, key: ExplicitIndexer) -> np.ndarray:
        return outer_indexed(key, self.shape, self.read)

    async def async_getitem(self, key: ExplicitIndexer) -> np.ndarray:
        async def read(raw: tuple[Any, ...]) -> np.ndarray:
            return self.read(raw)

        return await outer_indexed_async(key, self.shape, read)

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        self.keys.append(key)
        result = VALUES
        # Outer indexing, one axis after the other, from the last so that dropped axes shift none.
        for axis in reversed(range(VALUES.ndim)):
            result = result[(slice(None),) * axis + (key[axis],)]
        return result


@pytest.fixture
def array() -> RecordingArray:
    return RecordingArray()


@pytest.fixture
def variable(array: RecordingArray) -> xr.Variable:
    return xr.Variable(("time", "channel"), LazilyIndexedArray(array))


def test_a_lazy_variable_is_selected_and_shown_without_reading(array, variable):
    selected = variable[2:5].isel(channel=[1, 4])
    repr(selected)
    selected._repr_html_()
    assert selected.shape == (3, 2)
    assert array.keys == []


def test_selections_of_a_lazy_variable_are_composed_into_one_read(array, variable):
    selected = variable[1:][::2].isel(channel=[1, 4])
    np.testing.assert_array_equal(selected.values, VALUES[1::2][:, [1, 4]])
    assert len(array.keys) == 1


@pytest.mark.parametrize(
    "key",
    [
        {"time": 3},
        {"time": -1, "channel": 2},
        {"time": slice(None, None, -1)},
        {"time": slice(4, 1, -2), "channel": slice(2, None)},
        {"time": [5, 0, 0]},
        {"time": np.array([True, False, True, False, False, True])},
        {"time": [], "channel": [3, 1]},
    ],
)
def test_every_kind_of_outer_selection_reaches_the_reader_as_integers_slices_and_arrays(array, variable, key):
    expected = xr.Variable(("time", "channel"), VALUES).isel(key)
    np.testing.assert_array_equal(variable.isel(key).values, expected.values)
    for part in array.keys[0]:
        assert isinstance(part, int | np.integer | slice | np.ndarray)


def test_pointwise_selection_reads_an_outer_selection_and_picks_from_it(array, variable):
    times = xr.Variable("point", [0, 5, 2])
    channels = xr.Variable("point", [9, 0, 1])
    selected = variable.isel(time=times, channel=channels)
    np.testing.assert_array_equal(selected.values, VALUES[[0, 5, 2], [9, 0, 1]])
    assert len(array.keys) == 1


def test_asynchronous_loading_awaits_the_reader(array, variable):
    loaded = asyncio.run(variable[2:4].load_async())
    np.testing.assert_array_equal(loaded.values, VALUES[2:4])
    assert len(array.keys) == 1


def test_chunking_a_lazy_variable_reads_nothing_until_computed(array, variable):
    chunked = variable.chunk({"time": 2})
    assert array.keys == []
    np.testing.assert_array_equal(chunked.compute().values, VALUES)
    assert len(array.keys) == 3


def test_a_lazy_variable_pickles_and_copies_without_reading(array, variable):
    copies = [pickle.loads(pickle.dumps(variable)), variable.copy(deep=True)]
    assert array.keys == []
    for copy in copies:
        assert isinstance(copy._data, LazilyIndexedArray)
        np.testing.assert_array_equal(copy.values, VALUES)


def test_indexers_hold_their_key_as_a_tuple():
    assert BasicIndexer((1, slice(2, 4))).tuple == (1, slice(2, 4))
    (positions,) = OuterIndexer((np.array([1, 2]),)).tuple
    np.testing.assert_array_equal(positions, [1, 2])
    assert len(VectorizedIndexer((np.array([1]), np.array([2]))).tuple) == 2


def test_the_answer_of_an_index_is_a_mapping_of_dimensions_to_positions():
    class FixedIndex(xr.indexes.Index):
        @classmethod
        def from_variables(cls, variables, *, options):
            return cls()

        def sel(self, labels):
            return IndexSelResult({"time": slice(1, 3)})

    dataset = xr.Dataset({"data": ("time", [1, 2, 3, 4])}, coords={"when": ("time", [5, 6, 7, 8])})
    selected = dataset.set_xindex("when", FixedIndex).sel(when=0)
    np.testing.assert_array_equal(selected.data, [2, 3])


def test_no_other_module_imports_private_parts_of_xarray():
    root = Path(intake_nwbzarr.__file__).parent
    offenders = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            if any(name.startswith(("xarray.core", "xarray.namedarray")) for name in names):
                offenders.append(path.relative_to(root).as_posix())
    assert set(offenders) <= {"xarray_internals.py"}


def test_a_cached_array_is_read_whole_once_and_in_parts_each_time(array: RecordingArray) -> None:
    variable = xr.Variable(("a", "b"), MemoryCachedArray(LazilyIndexedArray(array)))
    np.testing.assert_array_equal(variable[1:3].values, VALUES[1:3])
    assert len(array.keys) == 1
    for _ in range(2):
        np.testing.assert_array_equal(variable.values, VALUES)
    assert len(array.keys) == 2
    np.testing.assert_array_equal(variable[1:3].values, VALUES[1:3])
    assert len(array.keys) == 2


def test_a_variable_tells_whether_it_is_still_to_be_read(array: RecordingArray) -> None:
    lazy = xr.Variable(("x", "y"), MemoryCachedArray(LazilyIndexedArray(array)))
    assert is_lazy(lazy)
    assert is_lazy(lazy[1:])
    assert not is_lazy(lazy.chunk(x=2))
    assert array.keys == []
    assert not is_lazy(lazy.load())
    assert not is_lazy(xr.Variable("x", np.arange(4.0)))


@pytest.mark.parametrize("empty", [slice(3, 3, -1), slice(None, -1, -1), slice(0, 5, -2)])
def test_an_empty_slice_that_runs_backwards_is_empty(array: RecordingArray, empty: slice) -> None:
    variable = xr.Variable(("x", "y"), LazilyIndexedArray(array))
    assert variable.isel(y=empty).values.shape == (6, 0)
    assert variable.isel(x=empty, y=slice(None, None, -1)).values.shape == (0, 10)
    assert asyncio.run(variable.isel(y=empty).load_async()).shape == (6, 0)
