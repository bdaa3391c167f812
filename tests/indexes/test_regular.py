"""Regular time: exact timestamps from a starting time and a rate, for sessions of any length."""

import copy
import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from intake_nwbzarr.errors import BoundsError, MetadataError, SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex
from intake_nwbzarr.indexes.timestamps import IN_MEMORY_LIMIT, RegularTimestamps, evenly_spaced
from tests.indexes.twins import RATES, STARTS, assert_same, irregular, regular_twins, with_index

HOUR = 108_000_000


def hour(starting_time: float = 1.6e9) -> xr.Dataset:
    index = RegularTimeIndex.from_rate(starting_time, 30_000.0, HOUR, attrs={"units": "s"})
    return xr.Dataset(coords=index.coordinates())


@given(st.sampled_from(STARTS) | st.floats(-1e9, 1e9), st.sampled_from(RATES), st.integers(0, 200))
def test_timestamps_equal_the_formula_of_nwb_bit_for_bit(
    starting_time: float, rate: float, size: int
) -> None:
    index = RegularTimeIndex.from_rate(starting_time, rate, size)
    expected = starting_time + np.arange(size) / rate
    np.testing.assert_array_equal(index.coordinates()["time"].values, expected)
    np.testing.assert_array_equal(index.to_pandas_index(), expected)


def test_a_single_precision_rate_counts_as_its_exact_value() -> None:
    index = RegularTimeIndex.from_rate(np.float32(0.1), np.float32(29.97), 1000)
    expected = float(np.float32(0.1)) + np.arange(1000) / np.float32(29.97)
    np.testing.assert_array_equal(index.coordinates()["time"].values, expected)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("starting_time", STARTS)
def test_every_timestamp_far_into_a_recording_finds_its_own_sample(starting_time: float, rate: float) -> None:
    index = RegularTimeIndex.from_rate(starting_time, rate, HOUR)
    samples = np.linspace(0, HOUR - 1, 1000).astype(int)
    found = index.sel({"time": starting_time + samples / rate}).dim_indexers["time"]
    np.testing.assert_array_equal(found, samples)


def test_opening_showing_copying_and_pickling_an_hour_at_30_khz_computes_nothing_large() -> None:
    hour(0.0)._repr_html_()  # imports of the first time
    tracemalloc.start()
    dataset = hour()
    assert "1.6e+09 1.6e+09 ... 1.6e+09" in repr(dataset)
    dataset._repr_html_()
    dataset.time.copy(deep=True)
    copy.deepcopy(dataset.coords)
    middle = dataset.sel(time=slice(1.6e9 + 10, 1.6e9 + 20)).isel(time=slice(None, None, 7))
    repr(middle)
    pickled = pickle.dumps(dataset.xindexes["time"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert middle.sizes["time"] == 42_858
    assert len(pickled) < 1000
    assert peak < 1_000_000


def test_a_pickled_coordinate_holds_its_rate_and_not_its_timestamps() -> None:
    coordinates = hour().sel(time=slice(1.6e9 + 1, None)).time.variable
    again = pickle.loads(pickle.dumps(coordinates))
    assert len(pickle.dumps(coordinates)) < 2000
    assert again[-1].item() == coordinates[-1].item()


def test_slices_of_positions_and_labels_stay_lazy() -> None:
    dataset = hour(0.0)
    for part in (
        dataset.isel(time=slice(5, None, 3)),
        dataset.isel(time=slice(None, None, -1)),
        dataset.sel(time=slice(10.0, 20.0)),
        dataset.sel(time=slice(20.0, 10.0, -2)),
    ):
        index = part.xindexes["time"]
        assert isinstance(index, RegularTimeIndex)
        np.testing.assert_array_equal(part.time[:3], np.array(index.samples[:3]) / 30_000.0)


def test_evenly_spaced_positions_stay_regular_and_others_come_into_memory() -> None:
    dataset = hour(0.0)
    for even in ([5, 7, 9], [9, 7, 5], [0, -1], [4], [], np.arange(HOUR - 3, HOUR)):
        picked = dataset.isel(time=np.array(even, dtype=np.int64))
        assert isinstance(picked.xindexes["time"], RegularTimeIndex)
        np.testing.assert_array_equal(picked.time, (np.array(even) % HOUR) / 30_000.0)
    for uneven in ([5, 7, 8], [5, 5], [9, 5, 7]):
        picked = dataset.isel(time=uneven)
        assert isinstance(picked.xindexes["time"], IrregularTimeIndex)
        np.testing.assert_array_equal(picked.time, np.array(uneven) / 30_000.0)


def test_one_position_becomes_a_scalar() -> None:
    dataset = hour(0.0)
    assert "time" not in dataset.isel(time=-1).xindexes
    assert dataset.isel(time=-1).time.item() == (HOUR - 1) / 30_000.0


def test_attributes_and_encoding_follow_the_coordinate() -> None:
    dataset = hour()
    dataset.time.attrs["long_name"] = "time of the recording"
    dataset.time.encoding["dtype"] = "float64"
    part = dataset.sel(time=slice(1.6e9, 1.6e9 + 1))
    assert part.time.attrs == {"units": "s", "long_name": "time of the recording"}
    assert part.time.encoding == {"dtype": "float64"}
    assert hour().time.attrs == {"units": "s"}


def test_pieces_of_one_recording_are_concatenated_lazily() -> None:
    dataset = hour(0.1)
    cuts = [0, 5, 5, 6, 1000, HOUR // 2, HOUR]
    pieces = [dataset.isel(time=slice(start, stop)) for start, stop in itertools.pairwise(cuts)]
    index = RegularTimeIndex.concat([piece.xindexes["time"] for piece in pieces], "time")
    assert isinstance(index, RegularTimeIndex)
    assert index.equals(dataset.xindexes["time"])


def test_strided_and_backward_pieces_are_concatenated_lazily() -> None:
    for stride in (3, -3):
        whole = regular_twins(0.1, 30.0, 100).lazy.isel(time=slice(None, None, stride))
        joined = xr.concat([whole.isel(time=slice(0, 11)), whole.isel(time=slice(11, None))], "time")
        assert isinstance(joined.xindexes["time"], RegularTimeIndex)
        xr.testing.assert_identical(joined, whole)


def test_pieces_with_a_gap_are_concatenated_in_memory() -> None:
    pair = regular_twins(0.1, 30.0, 100)
    parts = [slice(0, 10), slice(20, 30), slice(5, 8)]
    joined = assert_same(pair, lambda ds: xr.concat([ds.isel(time=part) for part in parts], "time"))
    assert isinstance(joined.xindexes["time"], IrregularTimeIndex)


def test_operations_that_need_all_timestamps_of_a_long_session_say_so() -> None:
    dataset = hour()
    index = dataset.xindexes["time"]
    with pytest.raises(SelectionError, match="108000000 timestamps of 'time'") as caught:
        index.to_pandas_index()
    assert (caught.value.found, caught.value.expected) == (HOUR, IN_MEMORY_LIMIT)
    with pytest.raises(SelectionError, match="216000000 timestamps in memory") as caught:
        RegularTimeIndex.concat([index, index], "time")
    assert caught.value.found == 2 * HOUR
    other = RegularTimeIndex.from_rate(0.0, 29_999.9, HOUR)
    with pytest.raises(SelectionError, match="Select a slice of time first"):
        index.join(other)
    with pytest.raises(SelectionError, match="Select a slice of time first"):
        index.join(RegularTimeIndex.from_rate(0.00001, 30_000.0, 3), how="outer")
    with pytest.raises(SelectionError):
        index.reindex_like(index)


def test_equality_is_exact_even_between_nearly_equal_rates() -> None:
    index = RegularTimeIndex.from_rate(0.0, 30_000.0, HOUR)
    assert index.equals(RegularTimeIndex.from_rate(0.0, 30_000.0, HOUR))
    assert not index.equals(RegularTimeIndex.from_rate(0.0, 29_999.9, HOUR))
    assert not index.equals(RegularTimeIndex.from_rate(0.0, float(np.nextafter(30_000.0, 0)), HOUR))
    assert not index.equals(RegularTimeIndex.from_rate(0.0, 30_000.0, HOUR - 1))
    assert not index.equals(RegularTimeIndex.from_rate(5e-324, 30_000.0, HOUR))


def test_equal_timestamps_from_other_numbers_are_equal() -> None:
    whole = RegularTimeIndex.from_rate(0.0, 4.0, 1000)
    late = whole.isel({"time": slice(4, None)})
    assert late.equals(RegularTimeIndex.from_rate(1.0, 4.0, 996))
    assert late.equals(RegularTimeIndex.from_rate(-1.0, 4.0, 1004).isel({"time": slice(8, None)}))


def test_a_regular_and_a_stored_time_that_agree_align() -> None:
    pair = regular_twins(0.5, 3.0, 30)
    stored = with_index(irregular(pair.times)[0], 30)
    xr.testing.assert_equal(pair.lazy + stored, pair.plain + pair.plain)
    part, late = xr.align(pair.lazy, stored.isel(time=slice(1, None)), join="inner")
    xr.testing.assert_equal(part, pair.plain.isel(time=slice(1, None)))
    xr.testing.assert_equal(late, part)


@pytest.mark.parametrize(("starting_time", "rate"), [(1.6e9, 1e9), (2.0**60, 1.0), (-1e12, 1e6)])
def test_samples_that_share_a_rounded_time_are_selected_together_or_refused(
    starting_time: float, rate: float
) -> None:
    pair = regular_twins(starting_time, rate, 3000)
    assert len(np.unique(pair.times)) < 3000
    for label in (pair.times[0], pair.times[1500], pair.times[-1]):
        assert_same(pair, lambda ds, label=label: ds.sel(time=label))
        assert_same(pair, lambda ds, label=label: ds.sel(time=slice(label, label)))
        with pytest.raises(SelectionError, match="share the time"):
            pair.lazy.sel(time=[label])
        with pytest.raises(SelectionError, match="share the time"):
            pair.lazy.sel(time=label, method="nearest")


@pytest.mark.parametrize(
    ("starting_time", "rate", "size"),
    [(0.0, 0.0, 5), (0.0, -1.0, 5), (0.0, np.nan, 5), (0.0, np.inf, 5), (np.nan, 1.0, 5), (0.0, 1.0, -1)],
)
def test_time_without_a_sensible_rate_is_refused(starting_time: float, rate: float, size: int) -> None:
    with pytest.raises(MetadataError):
        RegularTimeIndex.from_rate(starting_time, rate, size)


@given(
    st.sampled_from(STARTS) | st.floats(-1e5, 1e5),
    st.sampled_from(RATES) | st.floats(0.1, 40_000),
    st.integers(3, 300),
    st.sampled_from([1, 3, 10]),
)
def test_averaged_and_shifted_times_are_regular_at_their_own_rate(
    starting_time: float, rate: float, size: int, width: int
) -> None:
    times = starting_time + np.arange(size * width) / rate
    if abs(starting_time) > 1e5:
        return  # too coarse to tell, at some rates
    for moved in (times.reshape(-1, width).mean(axis=1), times[::width] - starting_time, times[::width]):
        found = evenly_spaced(moved)
        assert found is not None
        assert found.rate == pytest.approx(rate / width, rel=1e-9 / (moved[-1] - moved[0]))
        np.testing.assert_allclose(found.at(np.arange(size)), moved, rtol=1e-15, atol=0.7e-9)


@pytest.mark.parametrize("jitter", [2e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("rate", [1.0, 30.0, 1250.0, 30_000.0])
def test_times_with_the_jitter_of_a_real_clock_are_irregular(rate: float, jitter: float) -> None:
    times = np.arange(1000) / rate
    jittered = np.sort(times + jitter * np.random.default_rng(0).normal(size=1000))
    assert evenly_spaced(jittered) is None
    assert IrregularTimeIndex.from_array(jittered).as_regular is None
    gap = np.delete(times, 400)
    assert evenly_spaced(gap) is None


@pytest.mark.parametrize(
    "times", [[], [1.0], [1.0, 2.0], [1.0, 1.0, 1.0], [0.0, np.nan, 2.0], [0.0, 1.0, np.inf]]
)
def test_times_that_tell_no_rate_have_none(times: list[float]) -> None:
    assert evenly_spaced(np.array(times)) is None


def test_times_so_large_that_they_cannot_tell_are_irregular() -> None:
    assert evenly_spaced(1.7e9 + np.arange(1000) / 30_000) is None
    assert evenly_spaced(1.7e9 + np.arange(1000) / 30) == RegularTimestamps(1.7e9, 30.0)


def test_a_rate_is_not_guessed_from_timestamps() -> None:
    dataset = xr.Dataset(coords={"when": ("time", [0.0, 1.0])})
    with pytest.raises(MetadataError) as caught:
        dataset.set_xindex("when", RegularTimeIndex)
    assert "RegularTimeIndex.from_rate" in caught.value.next_step


def test_booleans_that_are_not_one_for_each_sample_are_refused() -> None:
    with pytest.raises(BoundsError, match="'time'") as caught:
        hour().isel(time=np.array([True, False]))
    assert isinstance(caught.value, IndexError)
    assert (caught.value.found, caught.value.expected) == (2, HOUR)


def test_the_coordinate_and_its_dimension_can_have_other_names() -> None:
    index = RegularTimeIndex.from_rate(0.0, 10.0, 20, dim="sample", name="when")
    dataset = xr.Dataset({"data": ("sample", np.arange(20))}, coords=index.coordinates())
    assert dataset.sel(when=slice(0.5, 0.7)).data.values.tolist() == [5, 6, 7]
    renamed = dataset.rename(when="seconds", sample="frame")
    assert renamed.sel(seconds=slice(0.5, 0.7)).sizes == {"frame": 3}
    assert dataset.isel(sample=[1, 2]).sel(when=0.2).data.item() == 2
