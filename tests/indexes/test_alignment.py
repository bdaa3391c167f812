"""Every pair of lazy times aligns: regular, stored and picked samples, of one recording or of two."""

from typing import Any, Literal

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex, LazyTimeIndex, RegularTimeIndex
from intake_nwbzarr.indexes.timestamps import IN_MEMORY_LIMIT
from tests.indexes.twins import (
    RecordingArray,
    Twins,
    any_irregular_twins,
    any_picked_twins,
    any_regular_twins,
    assert_equal,
    irregular,
    irregular_twins,
    regular_twins,
    slices,
    with_index,
)

QUICK = settings(max_examples=50, deadline=None)
JOINS: list[Literal["inner", "outer", "left", "right"]] = ["inner", "outer", "left", "right"]
COMMON_RATES = [1.0, 2.0, 4.0, 3.0]


@st.composite
def related(draw: st.DrawFn) -> tuple[Twins, Twins]:
    """Two twins that share times as a rule: parts of one recording, or recordings on a common grid."""

    def part(pair: Twins) -> Twins:
        size = len(pair.times)
        mask = st.lists(st.booleans(), min_size=size, max_size=size).map(
            lambda kept: np.array(kept, dtype=bool)
        )
        shuffled = st.permutations(range(size)).map(lambda order: np.array(order[: size // 2], dtype=int))
        chosen: Any = draw(slices(size) | mask | shuffled)
        return Twins(pair.lazy.isel(time=chosen), pair.plain.isel(time=chosen))

    def recording() -> Twins:
        start = draw(st.sampled_from([0.0, 0.5, 3.0]))
        if draw(st.booleans()):
            return regular_twins(start, draw(st.sampled_from(COMMON_RATES)), draw(st.integers(0, 20)))
        steps = draw(st.lists(st.sampled_from([0.25, 0.5, 1.0, 1 / 3]), max_size=20))
        return irregular_twins(start + np.cumsum(steps), draw(st.integers(1, 8)))

    one = recording()
    other = one if draw(st.booleans()) else recording()
    return part(one), part(other)


@QUICK
@given(related(), st.sampled_from(JOINS))
def test_two_times_align_as_they_do_in_memory(pairs: tuple[Twins, Twins], join: Any) -> None:
    one, other = pairs
    expected = xr.align(one.plain, other.plain, join=join)
    found = xr.align(one.lazy, other.lazy, join=join)
    assert_equal(found, expected)
    assert all(isinstance(part.xindexes["time"], LazyTimeIndex) for part in found)


@QUICK
@given(related(), related(), st.sampled_from(JOINS))
def test_three_times_align_as_they_do_in_memory(
    pairs: tuple[Twins, Twins], others: tuple[Twins, Twins], join: Any
) -> None:
    three = (*pairs, others[0])
    expected = xr.align(*(pair.plain for pair in three), join=join)
    assert_equal(xr.align(*(pair.lazy for pair in three), join=join), expected)


@QUICK
@given(related())
def test_arithmetic_and_equality_are_those_of_times_in_memory(pairs: tuple[Twins, Twins]) -> None:
    one, other = pairs
    assert_equal(one.lazy + other.lazy, one.plain + other.plain)
    assert one.lazy.equals(other.lazy) == one.plain.equals(other.plain)
    exact = np.array_equal(one.times, other.times)
    if exact:
        assert_equal(
            xr.align(one.lazy, other.lazy, join="exact"), xr.align(one.plain, other.plain, join="exact")
        )
    else:
        with pytest.raises(xr.AlignmentError):
            xr.align(one.lazy, other.lazy, join="exact")


@QUICK
@given(related(), st.sampled_from([None, "nearest", "pad", "bfill"]), st.sampled_from([None, 0, 0.3]))
def test_reindexing_on_another_time_is_that_of_times_in_memory(
    pairs: tuple[Twins, Twins], method: Any, tolerance: Any
) -> None:
    one, other = pairs
    tolerance = None if method is None else tolerance
    try:
        expected = one.plain.reindex_like(other.plain, method=method, tolerance=tolerance)
    except ValueError:  # a method needs an order
        with pytest.raises(SelectionError, match="order of time"):
            one.lazy.reindex_like(other.lazy, method=method, tolerance=tolerance)
        return
    assert_equal(one.lazy.reindex_like(other.lazy, method=method, tolerance=tolerance), expected)


@QUICK
@given(any_regular_twins() | any_irregular_twins(), st.data())
def test_picked_samples_align_with_the_whole_recording(whole: Twins, data: st.DataObject) -> None:
    size = len(whole.times)
    assume(size)
    assume(len(np.unique(whole.times)) == size)
    positions = data.draw(st.lists(st.integers(0, size - 1), unique=True))
    picked = whole.lazy.isel(time=np.array(positions, dtype=int))
    left, right = xr.align(whole.lazy, picked, join="right")
    assert_equal(left, whole.plain.isel(time=np.array(positions, dtype=int)))
    assert_equal(left, right)


def test_samples_of_one_recording_that_share_a_time_are_told_apart() -> None:
    whole = with_index(IrregularTimeIndex.from_array([0.0, 0.0, 1.0]), 3)
    first, _ = xr.align(whole.isel(time=slice(0, 1)), whole, join="outer")
    assert first.time.values.tolist() == [0.0, 0.0, 1.0]
    np.testing.assert_array_equal(first["count"].values, [0, np.nan, np.nan])


@QUICK
@given(any_picked_twins(), any_picked_twins(), st.sampled_from(JOINS))
def test_repeated_and_unordered_picks_align_or_are_refused(one: Twins, other: Twins, join: Any) -> None:
    try:
        expected = xr.align(one.plain, other.plain, join=join)
    except ValueError:
        # pandas refuses an index with any repeated time; samples that are alone at their time still align.
        try:
            found = xr.align(one.lazy, other.lazy, join=join)
        except SelectionError:
            return
        assert np.array_equal(found[0].time, found[1].time)
        for part, pair in zip(found, (one, other), strict=True):
            for position, time in enumerate(part.time.values):
                matching = pair.plain["count"].values[pair.times == time]
                value = part["count"].values[position]
                # Samples of one recording that share a time are told apart: a part may lack one of them.
                shared = max(np.count_nonzero(twins.times == time) for twins in (one, other)) > 1
                assert value in matching or (np.isnan(value) and (shared or not matching.size))
        return
    assert_equal(xr.align(one.lazy, other.lazy, join=join), expected)


def long_recording() -> xr.Dataset:
    index = RegularTimeIndex.from_rate(0.0, 30_000.0, IN_MEMORY_LIMIT + 1)
    data = xr.Variable("time", np.broadcast_to(np.int8(1), (index.size,)))
    return xr.Dataset({"data": data}, coords=index.coordinates())


def test_few_times_align_with_a_recording_that_may_not_be_in_memory() -> None:
    whole = long_recording()
    picked = whole.isel(time=[7, 30_000, 3])
    other = with_index(IrregularTimeIndex.from_array([0.5, 1.0, 1e6]), 3)
    assert (whole + picked).time.values.tolist() == [3 / 30_000, 7 / 30_000, 1.0]
    assert (picked + whole).time.values.tolist() == [7 / 30_000, 1.0, 3 / 30_000]
    assert (whole.data + other["count"]).values.tolist() == [1, 2]
    with pytest.raises(SelectionError, match="Select a slice of time first"):
        xr.align(whole, picked, join="left")
    joined = whole.xindexes["time"].join(picked.xindexes["time"], how="outer")
    assert joined.equals(whole.xindexes["time"])
    assert isinstance(joined, RegularTimeIndex)


def test_few_times_are_looked_for_in_few_blocks_of_stored_ones() -> None:
    array = RecordingArray(np.arange(1_000_000.0), (1000,))
    data = xr.Variable("time", np.broadcast_to(np.int8(1), array.shape))
    stored = xr.Dataset({"data": data}, coords=IrregularTimeIndex.from_array(array).coordinates())
    part = RegularTimeIndex.from_rate(500_000.0, 2.0, 20).coordinates()
    found = stored + xr.Dataset({"data": ("time", np.arange(20))}, coords=part)
    assert found.time.values.tolist() == list(range(500_000, 500_010))
    assert len(array.blocks) <= 20
    assert array.reads <= 4


def test_a_time_that_several_samples_share_is_refused_when_it_is_met() -> None:
    stored = with_index(irregular([0.0, 1.0, 1.0, 2.0])[0], 4)
    alone = with_index(IrregularTimeIndex.from_array([0.0, 2.0]), 2)
    assert (stored + alone)["count"].values.tolist() == [0, 4]
    with pytest.raises(SelectionError, match=r"2 samples share the time 1\.0 s"):
        stored + with_index(IrregularTimeIndex.from_array([0.0, 1.0]), 2)


@pytest.mark.parametrize("pair", [regular_twins(0.0, 10.0, 20), irregular_twins(np.arange(20) / 10)])
def test_labels_with_an_index_of_ours_serve_reindex(pair: Twins) -> None:
    labels = np.array([0.33, 0.9, 7.0])
    wanted = xr.Dataset(coords=IrregularTimeIndex.from_array(labels).coordinates())
    for options in ({}, {"method": "nearest", "tolerance": 0.05}):
        expected = pair.plain.reindex(time=labels, **options)
        assert_equal(pair.lazy.reindex_like(wanted, **options), expected)
        assert_equal(pair.lazy.reindex(wanted.xindexes, **options), expected)


@pytest.mark.parametrize("pair", [regular_twins(0.0, 10.0, 20), irregular_twins(np.arange(20) / 10)])
def test_a_pandas_index_of_equal_times_aligns_and_of_others_is_refused_by_xarray(pair: Twins) -> None:
    assert_equal(pair.lazy + pair.plain, pair.plain + pair.plain)
    with pytest.raises(xr.AlignmentError, match="TimeIndex"):
        pair.lazy + pair.plain.isel(time=slice(3, None))
