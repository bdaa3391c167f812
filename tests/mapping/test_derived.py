"""Lazy arrays derived from stored ones, against NumPy."""

import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intake_nwbzarr.arrays.computed import Elementwise, Lookup, RaggedBounds
from intake_nwbzarr.arrays.selection import Key, outer, select
from intake_nwbzarr.errors import ChunkError
from intake_nwbzarr.mapping.attributes import as_text, path_text, short_name, translated, valid_path


@dataclass(frozen=True, eq=False)
class Held:
    """Values in memory as a Readable that remembers how many elements were read of it."""

    values: NDArray[Any]
    reads: list[int] = field(default_factory=list, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        result = select_outer(self.values, key)
        self.reads.append(result.size)
        return result

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        return self.read(key)

    def __dask_tokenize__(self) -> tuple[str, bytes]:
        return "Held", pickle.dumps(self.values.tolist())


def select_outer(values: NDArray[Any], key: Key | tuple[Key, ...]) -> NDArray[Any]:
    """NumPy's answer to an outer key."""
    selection = select(key, values.shape)
    index = tuple(np.asarray(axis, np.intp) for axis in selection.axes)
    return values[outer(index, values.shape) if len(index) > 1 else index].reshape(selection.final_shape)


def keys(length: int) -> st.SearchStrategy[Key]:
    """What one axis may be indexed with."""
    lists = st.lists(st.integers(-length, length - 1), max_size=6) if length else st.just([])
    arrays = lists.map(lambda positions: np.array(positions, np.int64))
    masks = st.lists(st.booleans(), min_size=length, max_size=length).map(lambda mask: np.array(mask, bool))
    return st.one_of(
        st.slices(length), arrays, masks, *([st.integers(-length, length - 1)] if length else [])
    )


counts = st.lists(st.integers(0, 4), max_size=12)


@settings(max_examples=150, deadline=None)
@given(counts=counts, kind=st.sampled_from(["u1", "i4", "u8"]), data=st.data())
def test_bounds_of_any_selection_of_rows_are_those_of_numpy(
    counts: list[int], kind: str, data: st.DataObject
) -> None:
    ends = np.cumsum(counts, dtype=np.int64)
    index = Held(ends.astype(kind))
    key = data.draw(keys(len(counts)))
    for bound, expected in (("start", ends - counts), ("count", np.array(counts, np.int64))):
        array = RaggedBounds(index, bound, int(sum(counts)), "units/spike_times_index")
        got = array.read(key)
        assert got.dtype == array.dtype == np.int64
        np.testing.assert_array_equal(got, select_outer(expected.astype(np.int64), key))


@settings(max_examples=60, deadline=None)
@given(counts=counts.filter(bool), data=st.data())
def test_rows_cut_out_with_their_bounds_are_the_rows(counts: list[int], data: st.DataObject) -> None:
    values = np.arange(sum(counts)) * 10
    rows = np.split(values, np.cumsum(counts)[:-1])
    index = Held(np.cumsum(counts))
    picked = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=5))
    starts = RaggedBounds(index, "start", len(values), "i").read(np.array(picked, np.int64))
    lengths = RaggedBounds(index, "count", len(values), "i").read(np.array(picked, np.int64))
    for row, start, count in zip(picked, starts, lengths, strict=True):
        np.testing.assert_array_equal(values[start : start + count], rows[row])


def test_bounds_of_one_row_read_two_entries_of_the_index() -> None:
    index = Held(np.arange(1000))
    RaggedBounds(index, "count", 1000, "i").read(700)
    RaggedBounds(index, "count", 1000, "i").read(slice(0, 0))
    assert index.reads == [2]


@pytest.mark.parametrize("ends", [[3, 2, 5], [2, 4, 9], [-1, 2, 5]])
def test_an_index_that_runs_backwards_or_past_the_values_is_an_error(ends: list[int]) -> None:
    with pytest.raises(ChunkError, match="does not increase from 0 to at most 5") as raised:
        RaggedBounds(Held(np.array(ends)), "start", 5, "units/spike_times_index").read()
    assert (raised.value.path, raised.value.expected) == ("units/spike_times_index", 5)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), width=st.sampled_from([None, 2]), in_memory=st.booleans())
def test_a_look_up_is_indexing_as_in_numpy(data: st.DataObject, width: int | None, in_memory: bool) -> None:
    length = data.draw(st.integers(1, 8))
    values = np.arange(length * (width or 1)).reshape((length,) if width is None else (length, width))
    positions = np.array(data.draw(st.lists(st.integers(0, length - 1), max_size=8)), np.int64)
    lookup = Lookup(Held(values), positions if in_memory else Held(positions), "table")
    key = tuple(data.draw(keys(size)) for size in lookup.shape)
    assert lookup.shape == positions.shape + values.shape[1:]
    np.testing.assert_array_equal(lookup.read(key), select_outer(values[positions], key))


def test_a_look_up_reads_only_the_rows_it_needs() -> None:
    values = Held(np.arange(100_000))
    assert Lookup(values, np.array([5, 7, 5, 90_000]), "rows").read(slice(0, 3)).tolist() == [5, 7, 5]
    assert values.reads == [2]


@pytest.mark.parametrize("position", [-1, 3])
def test_a_position_outside_the_table_is_an_error(position: int) -> None:
    with pytest.raises(ChunkError, match="of a table of 3 rows") as raised:
        Lookup(Held(np.arange(3)), np.array([0, position]), "units/electrodes").read()
    assert (raised.value.path, raised.value.found) == ("units/electrodes", position)


def test_texts_of_fixed_width_become_python_strings() -> None:
    for values in (np.array(["a", "µm"]), np.array([b"a", "µm".encode()])):
        made = as_text(Held(values))
        assert made.dtype == object
        assert made.read().tolist() == ["a", "µm"]
    assert as_text(Held(np.array([], "U3"))).read().shape == (0,)


def test_references_become_paths_and_names() -> None:
    stored = Held(
        np.array(
            ["/general/devices/a", "", "general/b", '{"source": "../raw.nwb.zarr", "path": "/c/d"}'], object
        )
    )
    assert path_text(stored).read().tolist() == ["general/devices/a", "", "general/b", "../raw.nwb.zarr/c/d"]
    assert short_name(stored).read().tolist() == ["a", "", "b", "d"]
    assert path_text(stored).read(0).item() == "general/devices/a"
    assert translated(stored, (("general/b", "probe"),)).read().tolist() == ["", "", "probe", ""]


def test_references_to_no_samples_are_missing() -> None:
    path = valid_path(
        Held(np.array(["/a", "/b", "/c"], object)), Held(np.array([0, -1, 5])), Held(np.array([3, -1, 0]))
    )
    assert path.read().tolist() == ["a", "", "c"]
    assert path.read((1,)).item() == ""


def test_derived_arrays_are_picklable_and_their_tokens_tell_them_apart() -> None:
    ends, other = Held(np.array([1, 3])), Held(np.array([2, 3]))
    arrays: list[Any] = [
        RaggedBounds(ends, "start", 3, "i"),
        RaggedBounds(ends, "count", 3, "i"),
        RaggedBounds(other, "count", 3, "i"),
        Lookup(ends, np.array([1, 0]), "i"),
        Lookup(ends, np.array([0, 1]), "i"),
        Elementwise(np.add, (ends,), np.dtype("f8"), (1.0,)),
        Elementwise(np.add, (ends,), np.dtype("f8"), (2.0,)),
    ]
    tokens = {repr(array.__dask_tokenize__()) for array in arrays}
    assert len(tokens) == len(arrays)
    for array in arrays:
        again = pickle.loads(pickle.dumps(array))
        assert again.__dask_tokenize__() == array.__dask_tokenize__()
        np.testing.assert_array_equal(again.read(), array.read())
