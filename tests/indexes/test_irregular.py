"""Irregular time: stored timestamps that are read block by block, and only where they are needed."""

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr.errors import MetadataError, SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex
from tests.indexes.twins import RecordingArray, assert_same, irregular, irregular_twins, with_index


def long_recording(size: int = 5_000_000, chunk: int = 10_000) -> RecordingArray:
    """Timestamps of a camera: nearly even, with jitter and one long pause."""
    steps = np.random.default_rng(0).uniform(0.9, 1.1, size)
    steps[size // 3] = 5000.0
    return RecordingArray(np.cumsum(steps), (chunk,))


@pytest.fixture(scope="module")
def long_array() -> RecordingArray:
    return long_recording()


@pytest.fixture
def array(long_array: RecordingArray) -> RecordingArray:
    return RecordingArray(long_array.values, long_array.chunks)


def dataset_of(array: RecordingArray) -> xr.Dataset:
    index = IrregularTimeIndex.from_array(array, attrs={"units": "s"}, source="'times' in file:///a.nwb.zarr")
    data = xr.Variable("time", np.broadcast_to(np.int8(0), array.shape))
    return xr.Dataset({"data": data}, coords=index.coordinates())


def test_opening_showing_copying_pickling_and_slicing_by_position_read_nothing(array: RecordingArray) -> None:
    dataset = dataset_of(array)
    part = dataset.isel(time=slice(100, None, 7)).isel(time=slice(None, None, -1))
    for shown in (dataset, part, dataset.time, dataset.xindexes["time"], dataset.time.variable):
        repr(shown)
        if hasattr(shown, "_repr_html_"):
            shown._repr_html_()
    dataset.copy(deep=True)
    copy.deepcopy(dataset.xindexes["time"])
    dataset.rename(time="when").expand_dims("session")
    xr.concat([dataset.isel(time=slice(0, 10)), dataset.isel(time=slice(10, 20))], "time")
    assert dataset.xindexes["time"].equals(dataset_of(array).xindexes["time"])
    xr.align(dataset, dataset.copy(), join="exact")
    (dataset + dataset).chunk({"time": 1_000_000})
    assert array.reads == 0


def test_a_pickle_holds_nothing_that_was_read() -> None:
    index, array = irregular(np.arange(1000.0), chunk=10)
    with_index(index, 1000).sel(time=500.0)
    again = pickle.loads(pickle.dumps(index))
    assert len(pickle.dumps(index)) < len(pickle.dumps(array)) + 1000
    assert index.view.timestamps._blocks
    assert not again.view.timestamps._blocks
    assert again.equals(index)


@pytest.mark.parametrize("span", [(100.5, 200.5), (1.7e6, 3.3e6), (4_999_000, None), (None, 1.5), (-5, 1e9)])
def test_a_cold_slice_of_a_long_recording_reads_few_blocks(
    array: RecordingArray, span: tuple[float | None, float | None]
) -> None:
    part = dataset_of(array).sel(time=slice(*span))
    low, high = (-np.inf if span[0] is None else span[0], np.inf if span[1] is None else span[1])
    expected = array.values[(array.values >= low) & (array.values <= high)]
    assert part.sizes["time"] == len(expected)
    assert len(array.blocks) <= 6
    assert array.reads <= 4
    np.testing.assert_array_equal(part.time[[0, -1]], expected[[0, -1]])


def test_a_second_selection_nearby_reads_nothing_again(array: RecordingArray) -> None:
    dataset = dataset_of(array)
    dataset.sel(time=slice(1000.0, 1500.0))
    before = array.reads
    dataset.sel(time=slice(1100.0, 1200.0))
    dataset.isel(time=slice(5, None)).sel(time=1300.0, method="nearest")
    dataset.copy(deep=True).sel(time=[1300.0, 1301.0], method="nearest")
    assert array.reads == before


def test_timestamps_very_far_from_even_are_still_found_in_few_blocks() -> None:
    array = RecordingArray(np.exp(np.linspace(-300, 300, 2_000_000)), (4096,))
    dataset = dataset_of(array)
    for position in (3, 1_000_003, 1_999_990):
        array.blocks.clear()
        found = dataset.sel(time=array.values[position])
        assert found.time.item() == array.values[position]
        assert len(array.blocks) <= 3 * np.log2(2_000_000 / 4096)


def test_many_labels_are_found_in_few_rounds(array: RecordingArray) -> None:
    events = np.linspace(10.0, array.values[-10], 300)
    found = dataset_of(array).sel(time=events, method="nearest")
    after = np.searchsorted(array.values, events)
    nearest = np.where(events - array.values[after - 1] < array.values[after] - events, after - 1, after)
    np.testing.assert_array_equal(found.time, array.values[nearest])
    assert array.reads <= 12


def test_what_is_kept_in_memory_is_bounded(array: RecordingArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intake_nwbzarr.indexes.stored.CACHED_TIMESTAMPS", 50_000)
    dataset = dataset_of(array)
    events = np.linspace(10.0, array.values[-10], 300)
    found = dataset.sel(time=events, method="pad")
    np.testing.assert_array_equal(
        found.time, array.values[np.searchsorted(array.values, events, side="right") - 1]
    )
    assert len(dataset.xindexes["time"].view.timestamps._blocks) <= 5


def test_tiny_chunks_are_searched_several_at_a_time() -> None:
    array = RecordingArray(np.arange(100_000.0), (11,))
    assert dataset_of(array).sel(time=slice(10, 20)).sizes["time"] == 11
    assert array.reads <= 3


def test_threads_share_one_index(array: RecordingArray) -> None:
    dataset = dataset_of(array)
    positions = np.random.default_rng(1).integers(0, len(array.values), 64)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: dataset.sel(time=array.values[at]).time.item(), positions))
    np.testing.assert_array_equal(found, array.values[positions])


def test_single_positions_read_only_their_own_timestamps_and_once(array: RecordingArray) -> None:
    part = dataset_of(array).isel(time=[3, 4_000_000])
    assert array.blocks == {0, 400}
    assert isinstance(part.xindexes["time"], IrregularTimeIndex)
    np.testing.assert_array_equal(part.time, array.values[[3, 4_000_000]])
    assert part.sel(time=array.values[3]).time.item() == array.values[3]
    assert array.reads == 1


def test_the_coordinate_is_read_when_its_values_are_asked_for(array: RecordingArray) -> None:
    dataset = dataset_of(array)
    assert dataset.time.attrs == {"units": "s"}
    np.testing.assert_array_equal(dataset.time[50:60], array.values[50:60])
    assert array.blocks == {0}
    np.testing.assert_array_equal(dataset.time[::-100_000].values, array.values[::-100_000])
    assert (
        asyncio.run(dataset.isel(time=slice(7)).load_async()).time.values.tolist()
        == array.values[:7].tolist()
    )


@given(st.lists(st.floats(0, 1e4, width=32), unique=True, min_size=1, max_size=20))
@settings(deadline=None, max_examples=30)
def test_single_precision_timestamps_are_widened_exactly(times: list[float]) -> None:
    stored = np.sort(np.array(times, dtype=np.float32))
    pair = irregular_twins(stored)
    assert pair.lazy.time.dtype == np.float64
    np.testing.assert_array_equal(pair.lazy.time, stored.astype(np.float64))
    assert_same(pair, lambda ds: ds.sel(time=float(stored[0])))


def test_a_single_precision_timestamp_is_not_equal_to_the_decimal_it_was_rounded_from() -> None:
    pair = irregular_twins(np.array([0.1, 0.2, 0.7], dtype=np.float32))
    with pytest.raises(SelectionError) as caught:
        pair.lazy.sel(time=0.1)
    assert caught.value.next_step == "Add method='nearest', or select a slice."
    assert pair.lazy.sel(time=0.1, method="nearest")["count"].item() == 0


@pytest.mark.parametrize("dtype", ["i4", "u2", "i8", ">f8", "<f4"])
def test_timestamps_of_any_number_type_are_float64_seconds(dtype: str) -> None:
    pair = irregular_twins(np.array([1, 5, 9, 200, 1000], dtype=dtype), chunk=2)
    assert pair.lazy.time.dtype == np.dtype("=f8")
    assert_same(pair, lambda ds: ds.sel(time=slice(5, 300)))


def test_unsorted_timestamps_within_a_block_are_named(long_array: RecordingArray) -> None:
    times = long_array.values.copy()
    times[[1_000_000, 1_000_001]] = times[[1_000_001, 1_000_000]]
    dataset = dataset_of(RecordingArray(times, (10_000,)))
    with pytest.raises(SelectionError, match=r"'times' in file:///a.nwb.zarr do not ascend") as caught:
        dataset.sel(time=slice(times[999_000], times[1_002_000]))
    assert caught.value.found == (1_000_000, 1_000_001)
    assert (
        dataset.isel(time=slice(1_000_000, 1_000_002)).time.values.tolist()
        == times[1_000_000:1_000_002].tolist()
    )


def test_unsorted_timestamps_between_blocks_are_named() -> None:
    times = np.concatenate([np.arange(50.0, 100.0), np.arange(0.0, 50.0)])
    dataset = with_index(irregular(times, chunk=10)[0], 100)
    with pytest.raises(
        SelectionError, match=r"position 9 is at 59\.0 s and position 90 at 40\.0 s"
    ) as caught:
        dataset.sel(time=slice(3, 5))
    assert caught.value.found == (9, 90)
    assert "isel" in caught.value.next_step
    assert dataset.sortby("time").sel(time=slice(3, 5)).time.values.tolist() == [3, 4, 5]


def test_nan_timestamps_are_named_and_can_be_left_out() -> None:
    times = np.arange(30.0)
    times[17] = np.nan
    dataset = with_index(irregular(times, chunk=10)[0], 30)
    with pytest.raises(SelectionError, match="position 17 is NaN") as caught:
        dataset.sel(time=15.0)
    assert caught.value.found == 17
    assert "ds.isel(time=ds.time.notnull().values)" in caught.value.next_step
    kept = dataset.isel(time=dataset.time.notnull().values)
    assert kept.isel(time=slice(20)).sel(time=16.2, method="nearest").time.item() == 16
    assert kept.sel(time=slice(16, 18)).time.values.tolist() == [16, 18]


def test_blocks_that_were_not_met_are_not_judged() -> None:
    times = np.arange(1000.0)
    times[555] = np.nan
    dataset = with_index(irregular(times, chunk=10)[0], 1000)
    assert dataset.sel(time=slice(100, 105)).time.values.tolist() == [100, 101, 102, 103, 104, 105]


def test_repeated_times_are_selected_together_by_a_scalar_and_a_slice_and_refused_in_a_list() -> None:
    pair = irregular_twins([0.0, 1, 1, 1, 1, 2, 3, 3, 4])
    assert assert_same(pair, lambda ds: ds.sel(time=1.0)).sizes["time"] == 4
    assert assert_same(pair, lambda ds: ds.sel(time=slice(1, 3))).sizes["time"] == 7
    assert assert_same(pair, lambda ds: ds.isel(time=slice(None, None, -1)).sel(time=3)).sizes["time"] == 2
    assert pair.lazy.sel(time=[0, 2, 4])["count"].values.tolist() == [0, 5, 8]
    for options in ({}, {"method": "nearest"}, {"method": "pad"}, {"method": "bfill"}):
        with pytest.raises(SelectionError, match=r"4 samples share the time 1\.0 s") as caught:
            pair.lazy.sel(time=[1.0], **options)
        assert caught.value.found == 1.0
        assert "positions 1 to 4" in caught.value.next_step
    with pytest.raises(SelectionError, match="share the time"):
        pair.lazy.sel(time=1.4, method="pad")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
def test_recordings_of_few_samples_work(size: int) -> None:
    pair = irregular_twins(np.arange(size) * 1.5, chunk=2)
    assert_same(pair, lambda ds: ds.sel(time=slice(0, 10)))
    assert_same(pair, lambda ds: ds.sel(time=slice(0.1, 0.2)))
    assert_same(pair, lambda ds: ds.sel(time=[]))
    assert_same(pair, lambda ds: ds.sel(time=0.7, method="nearest"))
    assert_same(pair, lambda ds: ds.isel(time=slice(None, None, -1)))


def test_equality_reads_the_ends_first() -> None:
    times = np.arange(1000.0)
    (one, array), (other, _) = irregular(times, 10), irregular(times + 0.5, 10)
    assert not one.equals(other)
    assert array.blocks == {0, 99}
    shifted = times.copy()
    shifted[500] += 0.25
    assert one.equals(irregular(times.copy(), 10)[0])
    assert not one.equals(irregular(shifted, 10)[0])


def test_a_coordinate_in_memory_can_be_given_this_index() -> None:
    dataset = xr.Dataset(
        {"data": ("frame", [1, 2, 3])}, coords={"when": ("frame", [0.0, 0.5, 7.0], {"units": "s"})}
    )
    indexed = dataset.set_xindex("when", IrregularTimeIndex)
    assert indexed.sel(when=slice(0.5, 9)).data.values.tolist() == [2, 3]
    assert indexed.when.attrs == {"units": "s"}


@pytest.mark.parametrize("times", [np.zeros((2, 2)), np.array(["a", "b"]), np.array(0.0), np.array([True])])
def test_what_is_not_a_row_of_numbers_is_refused(times: np.ndarray) -> None:
    with pytest.raises(MetadataError) as caught:
        IrregularTimeIndex.from_array(times)
    assert caught.value.found == (times.dtype, times.shape)
