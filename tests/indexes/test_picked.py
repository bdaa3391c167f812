"""Samples picked one by one, in memory, are selected as pandas selects them, in whatever order they are."""

import copy
import pickle

import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex, LazyTimeIndex, RegularTimeIndex
from tests.indexes.twins import (
    Twins,
    any_picked_twins,
    assert_same,
    irregular_twins,
    labels_near,
    sliced,
    slices,
    twins,
    with_index,
)

QUICK = settings(max_examples=50, deadline=None)


@QUICK
@given(any_picked_twins(ordered=True), st.data())
def test_picks_in_an_order_of_time_are_selected_by_label_and_method(pair: Twins, data: st.DataObject) -> None:
    label = data.draw(labels_near(pair.times))
    labels = data.draw(st.lists(labels_near(pair.times), max_size=4))
    method = data.draw(st.sampled_from([None, "nearest", "pad", "bfill"]))
    tolerance = None if method is None else data.draw(st.sampled_from([None, 0, 0.5]))
    ends = st.none() | labels_near(pair.times)
    span = data.draw(st.builds(slice, ends, ends, st.sampled_from([None, 2, -1])))
    assert_same(pair, lambda ds: ds.sel(time=label, method=method, tolerance=tolerance))
    assert_same(pair, lambda ds: ds.sel(time=labels, method=method, tolerance=tolerance))
    assert_same(pair, lambda ds: ds.sel(time=span))


@QUICK
@given(any_picked_twins(), st.data())
def test_picks_in_any_order_are_selected_as_pandas_does_or_refused(pair: Twins, data: st.DataObject) -> None:
    label = data.draw(labels_near(pair.times))
    ends = st.none() | labels_near(pair.times)
    span = data.draw(st.builds(slice, ends, ends))
    assert_same(pair, lambda ds: ds.sel(time=label))
    assert_same(pair, lambda ds: ds.sel(time=span))
    assert_same(pair, lambda ds: ds.sortby("time"))
    if len(np.unique(pair.times)) == len(pair.times):
        labels = data.draw(st.lists(labels_near(pair.times), max_size=4))
        assert_same(pair, lambda ds: ds.sel(time=labels))
        assert_same(pair, lambda ds: ds.sel(time=xr.DataArray(label)))
        assert_same(pair, lambda ds: ds.sel(time=labels, method="nearest"))


def test_one_time_shared_by_all_is_sliced_as_pandas_does() -> None:
    pair = irregular_twins([0.0, 0.0, 0.0])
    backwards = sliced(pair, slice(None, None, -1))
    for span in (slice(None, 0.5), slice(0.5, None), slice(-1, 1), slice(1, -1), slice(0.0, 0.0)):
        assert_same(backwards, lambda ds, span=span: ds.sel(time=span))


@QUICK
@given(any_picked_twins(), st.data())
def test_picks_are_picked_from_again(pair: Twins, data: st.DataObject) -> None:
    size = len(pair.times)
    chosen = data.draw(slices(size))
    assert_same(pair, lambda ds: ds.isel(time=chosen))
    assert_same(
        pair, lambda ds: ds.isel(time=chosen).isel(time=ds["count"].isel(time=chosen).values % 2 == 0)
    )
    assert_same(pair, lambda ds: xr.concat([ds.isel(time=chosen), ds], "time"))
    assert_same(pair, lambda ds: ds.roll(time=2, roll_coords=True))


@QUICK
@given(st.lists(st.floats(width=32) | st.floats(-10, 10), max_size=10))
def test_times_of_ones_own_are_indexed_whatever_they_are(times: list[float]) -> None:
    values = np.array(times, dtype=np.float64)
    pair = twins(IrregularTimeIndex.from_array(values), values)
    for label in [*times, 0.5]:
        if not np.isnan(label):
            assert_same(pair, lambda ds, label=label: ds.sel(time=label))
    assert_same(pair, lambda ds: ds.isel(time=slice(None, None, -1)))
    assert_same(pair, lambda ds: pickle.loads(pickle.dumps(ds)))
    assert_same(pair, copy.deepcopy)


def test_times_of_ones_own_do_not_follow_their_array() -> None:
    values = np.arange(5.0)
    dataset = with_index(IrregularTimeIndex.from_array(values), 5)
    values[0] = 99.0
    assert dataset.sel(time=0.0)["count"].item() == 0


@pytest.mark.parametrize("positions", [[3, 1, 2], [1, 1, 2], [5, 3, 3], [2, 9, 2]])
def test_a_method_along_picks_in_no_order_says_what_to_do(positions: list[int]) -> None:
    dataset = with_index(RegularTimeIndex.from_rate(0.0, 10.0, 20), 20).isel(time=positions)
    with pytest.raises(SelectionError, match=r"sortby|samples share the time"):
        dataset.sel(time=[positions[1] / 10], method="nearest")
    if len(set(positions)) == len(positions):
        assert dataset.sortby("time").sel(time=0.12, method="nearest")["count"].item() == 1


def test_nan_is_no_label_even_where_it_is_a_time() -> None:
    dataset = with_index(IrregularTimeIndex.from_array([0.0, np.nan, 2.0]), 3)
    for label in (np.nan, [np.nan]):
        with pytest.raises(SelectionError):
            dataset.sel(time=label)
    with pytest.raises(SelectionError, match="NaN"):
        dataset.sel(time=1.0, method="nearest")
    assert dataset.sel(time=2.0)["count"].item() == 2


def test_the_class_is_one_and_the_kinds_are_told_apart_by_isinstance() -> None:
    regular = RegularTimeIndex.from_rate(0.0, 10.0, 20)
    picked = regular.isel({"time": np.array([1, 2, 5])})
    assert type(regular) is type(picked) is LazyTimeIndex
    assert isinstance(regular, RegularTimeIndex)
    assert not isinstance(regular, IrregularTimeIndex)
    assert isinstance(picked, IrregularTimeIndex)
    assert not isinstance(picked, RegularTimeIndex)
    assert not isinstance("0.1", IrregularTimeIndex)
    assert (regular.rate, regular.starting_time) == (10.0, 0.0)
    assert (picked.rate, picked.starting_time) == (None, None)
    assert type(RegularTimeIndex(regular.view, "time", "time")) is LazyTimeIndex


@pytest.mark.parametrize("positions", [slice(None), [1, 2, 5]])
@pytest.mark.parametrize(
    "index", [RegularTimeIndex.from_rate(0.0, 10.0, 20), IrregularTimeIndex.from_array(np.arange(20) / 10)]
)
def test_a_coordinate_is_never_changed_behind_its_index(index: LazyTimeIndex, positions: object) -> None:
    dataset = with_index(index, 20).isel(time=positions)
    for one in (dataset, dataset.compute(), dataset.load(), dataset.copy(deep=True), copy.deepcopy(dataset)):
        with pytest.raises((TypeError, ValueError)):
            one.time[0] = 5.0
        with pytest.raises(ValueError, match="read-only"):
            one.time.values[0] = 5.0


def test_tokens_of_picks_follow_their_times() -> None:
    dataset = with_index(RegularTimeIndex.from_rate(0.0, 10.0, 20), 20)
    one, other = dataset.isel(time=[1, 2, 5]), dataset.isel(time=[1, 2, 6])
    assert tokenize(one.time.variable) == tokenize(dataset.isel(time=[1, 2, 5]).time.variable)
    assert tokenize(one.time.variable) != tokenize(other.time.variable)
