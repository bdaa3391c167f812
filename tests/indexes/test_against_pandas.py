"""Selection along both lazy indexes gives what a pandas index of the same timestamps gives."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr.errors import SelectionError
from tests.indexes.twins import (
    Twins,
    any_irregular_twins,
    any_regular_twins,
    assert_same,
    irregular_twins,
    labels_near,
    regular_twins,
    slices,
)

ANY_TWINS = any_regular_twins() | any_irregular_twins()
QUICK = settings(max_examples=40, deadline=None)
METHODS = [None, "nearest", "pad", "ffill", "backfill", "bfill"]


@QUICK
@given(st.data())
def test_a_scalar_label_selects_what_pandas_selects(data: st.DataObject) -> None:
    pair = data.draw(ANY_TWINS)
    label = data.draw(labels_near(pair.times))
    method = data.draw(st.sampled_from(METHODS))
    tolerance = None if method is None else data.draw(st.none() | st.sampled_from([0, 1e-5, 0.5, 2.0]))
    assert_same(pair, lambda ds: ds.sel(time=label, method=method, tolerance=tolerance))


@QUICK
@given(st.data())
def test_a_list_of_labels_selects_what_pandas_selects(data: st.DataObject) -> None:
    pair = data.draw(ANY_TWINS)
    labels = data.draw(st.lists(labels_near(pair.times), max_size=6))
    method = data.draw(st.sampled_from(METHODS))
    each = st.lists(st.sampled_from([0, 1e-5, 0.5, 2.0]), min_size=len(labels), max_size=len(labels))
    tolerance = None if method is None else data.draw(st.none() | st.sampled_from([0, 0.5]) | each)
    assert_same(pair, lambda ds: ds.sel(time=labels, method=method, tolerance=tolerance))


@QUICK
@given(st.data())
def test_every_timestamp_selects_its_own_sample(data: st.DataObject) -> None:
    pair = data.draw(ANY_TWINS)
    assert_same(pair, lambda ds: ds.sel(time=pair.times))
    for position in range(min(len(pair.times), 5)):
        assert int(pair.lazy.sel(time=pair.times[position])["count"]) == int(pair.plain["count"][position])


@QUICK
@given(st.data())
def test_a_slice_of_labels_includes_both_ends_as_in_pandas(data: st.DataObject) -> None:
    pair = data.draw(ANY_TWINS | any_irregular_twins(repeated=True))
    ends = st.none() | labels_near(pair.times)
    step = st.sampled_from([None, 1, 2, 3, -1, -2])
    selected = data.draw(st.builds(slice, ends, ends, step))
    assert_same(pair, lambda ds: ds.sel(time=selected))


@QUICK
@given(st.data())
def test_selection_by_position_gives_the_same_coordinate(data: st.DataObject) -> None:
    pair = data.draw(ANY_TWINS | any_irregular_twins(repeated=True))
    size = len(pair.times)
    choices: list[st.SearchStrategy[Any]] = [
        slices(size),
        st.lists(st.booleans(), min_size=size, max_size=size).map(lambda mask: np.array(mask, dtype=bool)),
    ]
    if size:
        choices.append(st.integers(-size, size - 1))
        choices.append(st.lists(st.integers(-size, size - 1), max_size=5))
        choices.append(
            st.lists(st.integers(-size, size - 1), max_size=5).map(lambda at: xr.DataArray(at, dims="event"))
        )
    first, then = data.draw(st.one_of(choices)), data.draw(slices(size))
    assert_same(pair, lambda ds: ds.isel(time=first))
    assert_same(pair, lambda ds: ds.isel(time=then).time.isel(time=slice(1, None, 2)))


@QUICK
@given(st.data())
def test_a_selection_can_be_selected_from_again(data: st.DataObject) -> None:
    pair = data.draw(ANY_TWINS)
    first, second = (data.draw(st.builds(slice, labels_near(pair.times), st.none())) for _ in range(2))
    label = data.draw(labels_near(pair.times))
    assert_same(pair, lambda ds: ds.sel(time=first).isel(time=slice(None, None, -1)).sel(time=second))
    assert_same(
        pair, lambda ds: ds.sel(time=first).isel(time=slice(None, None, 2)).sel(time=label, method="nearest")
    )


@QUICK
@given(st.data())
def test_a_repeated_time_selects_all_its_samples_or_refuses(data: st.DataObject) -> None:
    pair = data.draw(any_irregular_twins(repeated=True))
    label = data.draw(labels_near(pair.times))
    assert_same(pair, lambda ds: ds.sel(time=label))
    try:
        found = pair.lazy.sel(time=[label], method="nearest")
    except SelectionError:
        return
    # pandas refuses the whole index when any time repeats; a sample alone at its time is still well defined.
    nearest = pair.times[np.argmin(np.abs(pair.times - label))]
    assert abs(found.time.values[0] - label) == abs(nearest - label)
    assert np.count_nonzero(pair.times == found.time.values[0]) == 1


@QUICK
@given(st.data())
def test_labels_of_any_shape_keep_their_dimensions_and_coordinates(data: st.DataObject) -> None:
    pair = data.draw(ANY_TWINS.filter(lambda pair: len(pair.times) > 1))
    labels = np.array(data.draw(st.lists(labels_near(pair.times), min_size=4, max_size=4))).reshape(2, 2)
    events = xr.DataArray(labels, dims=("trial", "event"), coords={"trial": [10, 11]})
    assert_same(pair, lambda ds: ds.sel(time=events, method="nearest"))
    assert_same(pair, lambda ds: ds.sel(time=events.variable, method="pad"))
    assert_same(pair, lambda ds: ds.sel(time=events[0, 0].variable, method="bfill"))


SAMPLES = [regular_twins(0.0, 10.0, 20), irregular_twins(np.arange(20) ** 2 / 10)]
EITHER = pytest.mark.parametrize("pair", SAMPLES, ids=["regular", "irregular"])


@EITHER
@pytest.mark.parametrize(
    "label",
    [
        "0.5",
        np.datetime64("2026-01-01"),
        None,
        True,
        [0.1, None],
        float("nan"),
        [float("nan")],
        slice(float("nan"), 5),
        slice("a", "b"),
        slice([0.1], 5),
        slice(0.1, 5, 0),
        slice(0.1, 5, 0.5),
        {"a": 1},
    ],
)
def test_a_label_that_is_not_a_time_is_refused(pair: Twins, label: Any) -> None:
    with pytest.raises(SelectionError):
        pair.lazy.sel(time=label)


@EITHER
def test_a_label_that_is_not_there_says_how_to_find_the_nearest(pair: Twins) -> None:
    with pytest.raises(SelectionError, match=r"exactly 0\.123 s") as caught:
        pair.lazy.sel(time=0.123)
    assert caught.value.next_step == "Add method='nearest', or select a slice."
    with pytest.raises(KeyError, match=r"for 99\.0 s within 0\.5 s"):
        pair.lazy.sel(time=[99.0], method="nearest", tolerance=0.5)


@EITHER
@pytest.mark.parametrize(
    "options", [{"method": "cubic"}, {"tolerance": 1}, {"method": "pad", "tolerance": "x"}]
)
def test_a_wrong_method_or_tolerance_is_refused(pair: Twins, options: dict[str, Any]) -> None:
    with pytest.raises(SelectionError):
        pair.lazy.sel(time=[0.0], **options)


@EITHER
def test_a_slice_takes_no_method(pair: Twins) -> None:
    with pytest.raises(SelectionError, match="neither method nor tolerance") as caught:
        pair.lazy.sel(time=slice(0, 1), method="nearest")
    assert caught.value.found == ("nearest", None)


@EITHER
def test_a_mask_selects_by_position(pair: Twins) -> None:
    mask = np.arange(20) % 3 == 0
    assert_same(pair, lambda ds: ds.sel(time=mask))
    assert_same(pair, lambda ds: ds.sel(time=xr.DataArray(mask, dims="time")))


@EITHER
def test_integer_labels_are_times_and_not_positions(pair: Twins) -> None:
    assert_same(pair, lambda ds: ds.sel(time=1))
    assert_same(pair, lambda ds: ds.sel(time=[0, 1], method="nearest"))
    assert_same(pair, lambda ds: ds.sel(time=slice(1, np.int16(3))))


@EITHER
def test_infinite_labels_lie_outside_of_every_recording(pair: Twins) -> None:
    assert_same(pair, lambda ds: ds.sel(time=slice(-np.inf, np.inf)))
    assert_same(pair, lambda ds: ds.sel(time=slice(np.inf, None)))
    assert_same(pair, lambda ds: ds.sel(time=np.inf, method="pad"))
    assert_same(pair, lambda ds: ds.sel(time=np.inf, method="bfill"))
    assert_same(pair, lambda ds: ds.sel(time=[-np.inf], method="nearest", tolerance=1e9))
