"""`ds.nwb.restrict`, compared with plain numpy on the numbers that the session was made of."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import intake_nwbzarr
from intake_nwbzarr.errors import MappingWarning, OptionError, SelectionError
from intake_nwbzarr.indexes.index import LazyTimeIndex
from tests.accessor.timed_session import (
    EVENTS,
    LICK_TIMES,
    OBSERVED,
    RATE,
    SIZE,
    SPIKES,
    START,
    TRIALS,
)
from tests.session_files import copy_of, edit, rewrite

VOLTAGE_TIMES = START + np.arange(SIZE) / RATE
MARKS = [0.0, 1.0, 1.25, 4.0, *LICK_TIMES[::9], *VOLTAGE_TIMES[::50], *SPIKES[0][::7], *EVENTS[:2]]

times = st.one_of(
    st.sampled_from([float(mark) for mark in MARKS]),
    st.floats(-1, 11),
    st.sampled_from([-np.inf, np.inf]),
)


def spikes_of(dataset: xr.Dataset, column: str = "spike_times") -> list[np.ndarray]:
    """Each unit's values, by its bounds."""
    starts, counts = dataset[f"units_{column}_start"].values, dataset[f"units_{column}_count"].values
    values = dataset[f"units_{column}"].values
    return [values[start : start + count] for start, count in zip(starts, counts, strict=True)]


@settings(max_examples=50, deadline=None)
@given(a=times, b=times)
def test_series_spikes_and_rows_within_a_window_are_those_that_numpy_finds(
    dataset: xr.Dataset, a: float, b: float
) -> None:
    start, stop = min(a, b), max(a, b)
    if start == stop:
        return
    part = dataset.nwb.restrict(start, stop)
    for name, all_times in (("lick", LICK_TIMES), ("voltage", VOLTAGE_TIMES)):
        inside = (all_times >= start) & (all_times < stop)
        np.testing.assert_array_equal(part[f"{name}_time"].values, all_times[inside])
        np.testing.assert_array_equal(part[name].values, dataset[name].values[inside])
    for found, negative, spikes in zip(spikes_of(part), spikes_of(part, "amplitudes"), SPIKES, strict=True):
        inside = spikes[(spikes >= start) & (spikes < stop)]
        np.testing.assert_array_equal(found, inside)
        np.testing.assert_array_equal(negative, -inside)
    kept = [number for number, when in enumerate(EVENTS) if start <= when < stop]
    assert part.stimuli.values.tolist() == kept
    assert part.trials.values.tolist() == [
        number for number, trial in enumerate(TRIALS) if overlaps(trial, start, stop)
    ]


def overlaps(interval: tuple[float, float], start: float, stop: float) -> bool:
    begin, end = interval
    if not end > begin:
        return start <= begin < stop
    return begin < stop and end > start


@settings(max_examples=30, deadline=None)
@given(a=st.integers(-1, 11), b=st.integers(-1, 11))
def test_observed_intervals_are_those_that_overlap(dataset: xr.Dataset, a: int, b: int) -> None:
    start, stop = min(a, b), max(a, b) + 0.5
    part = dataset.nwb.restrict(start, stop)
    for found, intervals in zip(spikes_of(part, "obs_intervals"), OBSERVED, strict=True):
        assert found.tolist() == [list(each) for each in intervals if overlaps(each, start, stop)]


def test_waveforms_follow_their_spikes_and_other_columns_stay(dataset: xr.Dataset) -> None:
    part = dataset.nwb.restrict(2, 6)
    frame = part.nwb.to_dataframe("units")
    for unit, spikes in enumerate(SPIKES):
        inside = spikes[(spikes >= 2) & (spikes < 6)]
        assert [waveform.ravel()[0] for waveform in frame.waveforms.iloc[unit]] == inside.tolist()
    assert [each.tolist() for each in frame.electrodes] == [[10, 11], [11, 12], [12, 10], [10, 11]]
    assert part.units.values.tolist() == [100, 101, 102, 103]
    assert part.units_spike_times.sizes == dataset.units_spike_times.sizes


def test_a_column_with_other_counts_than_the_spikes_stays_whole(dataset: xr.Dataset) -> None:
    # Of this one unit, the column has as many values as there are electrodes, not spikes.
    part = dataset.isel(units=[0]).nwb.restrict(2, 6)
    assert part.units_electrodes_count.values.tolist() == [2]


def test_attributes_lead_back_and_times_stay_lazy(dataset: xr.Dataset) -> None:
    part = dataset.nwb.restrict(1, 3)
    assert part.nwb.location == dataset.nwb.location
    assert all(isinstance(part.xindexes[f"{name}_time"], LazyTimeIndex) for name in ("lick", "voltage"))
    assert part.units_spike_times_count.attrs == dataset.units_spike_times_count.attrs
    assert part.nwb.restrict(2, 2.5).lick.identical(dataset.nwb.restrict(2, 2.5).lick)


def test_data_of_series_are_not_read(path: Path) -> None:
    voltage = xr.open_dataset(path, engine="nwbzarr", group="acquisition/voltage")
    with intake_nwbzarr.track_requests() as log:
        part = voltage.nwb.restrict(1, 3)
        assert part.sizes["time"] == 100
    assert log.requests == 0


def test_one_object_is_restricted_with_its_plain_names(path: Path) -> None:
    units = xr.open_dataset(path, engine="nwbzarr", group="units").nwb.restrict(5, 6)
    inside = [np.sum((spikes >= 5) & (spikes < 6)) for spikes in SPIKES]
    assert units.spike_times_count.values.tolist() == inside
    trials = xr.open_dataset(path, engine="nwbzarr", group="intervals/trials").nwb.restrict(1, 2)
    assert trials.trial.values.tolist() == [1, 2]


def test_selected_and_reordered_units_are_restricted_alike(dataset: xr.Dataset) -> None:
    part = dataset.isel(units=[3, 0]).nwb.restrict(2, 6)
    for found, spikes in zip(spikes_of(part), (SPIKES[3], SPIKES[0]), strict=True):
        np.testing.assert_array_equal(found, spikes[(spikes >= 2) & (spikes < 6)])


def test_stimulus_templates_stay_whole(dataset: xr.Dataset) -> None:
    assert dataset.nwb.restrict(1.5, 1.6).sizes["chirp_time"] == 20


def test_decoded_times_are_restricted_by_the_same_seconds(path: Path, dataset: xr.Dataset) -> None:
    decoded = xr.open_dataset(path, engine="nwbzarr", decode_times=True)
    for start, stop in ((0.7, 3.3), (-np.inf, 2.0), (4.0, np.inf)):
        part, expected = decoded.nwb.restrict(start, stop), dataset.nwb.restrict(start, stop)
        assert part.sizes == expected.sizes
        np.testing.assert_array_equal(part.voltage.values, expected.voltage.values)
        for column in ("spike_times", "obs_intervals"):
            np.testing.assert_array_equal(
                part[f"units_{column}_start"], expected[f"units_{column}_start"], column
            )
            np.testing.assert_array_equal(
                part[f"units_{column}_count"], expected[f"units_{column}_count"], column
            )


def test_reversed_series_and_samples_out_of_order_are_restricted_too(dataset: xr.Dataset) -> None:
    forwards = dataset[["voltage"]].nwb.restrict(2, 3)
    backwards = dataset[["voltage"]].isel(voltage_time=slice(None, None, -1)).nwb.restrict(2, 3)
    np.testing.assert_array_equal(backwards.voltage.values, forwards.voltage.values[::-1])
    shuffled = dataset[["voltage"]].isel(voltage_time=[90, 3, 70, 66]).nwb.restrict(2, 3)
    np.testing.assert_array_equal(
        shuffled.voltage_time.values, [when for when in VOLTAGE_TIMES[[90, 3, 70, 66]] if 2 <= when < 3]
    )


def test_dask_arrays_stay_dask_arrays(path: Path, dataset: xr.Dataset) -> None:
    part = xr.open_dataset(path, engine="nwbzarr", chunks={}).nwb.restrict(2, 6)
    assert part.voltage.chunks is not None
    expected = dataset.nwb.restrict(2, 6)
    np.testing.assert_array_equal(part.voltage.values, expected.voltage.values)
    np.testing.assert_array_equal(part.units_spike_times_count, expected.units_spike_times_count)


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        (np.nan, 2, "start must be .*seconds or a datetime, not nan"),
        ("1", 2, "start must be .*seconds or a datetime, not '1'"),
        (0, True, "stop must be .*seconds or a datetime, not True"),
        (2, 2, "start=2 is not before stop=2"),
        (3, 2, "start=3 is not before stop=2"),
    ],
)
def test_what_is_no_window_is_refused(dataset: xr.Dataset, start: float, stop: float, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        dataset.nwb.restrict(start, stop)


def test_a_dataset_without_times_is_refused(path: Path) -> None:
    electrodes = xr.open_dataset(path, engine="nwbzarr", group="general/extracellular_ephys/electrodes")
    with pytest.raises(SelectionError, match="has no series, events, intervals or spikes with times"):
        electrodes.nwb.restrict(0, 1)


def test_times_and_columns_that_were_left_out_are_asked_for(dataset: xr.Dataset) -> None:
    with pytest.raises(SelectionError, match="'stop_time' of 'intervals/trials' is not in this Dataset"):
        dataset.drop_vars("trials_stop_time").nwb.restrict(0, 1)
    with pytest.raises(SelectionError, match="Keep the spike times together with their _start and _count"):
        dataset.drop_vars("units_spike_times_start").nwb.restrict(0, 1)
    with pytest.raises(SelectionError, match="10 of 66 values are left"):
        dataset.isel(units_spike=slice(10)).nwb.restrict(0, 1)
    with pytest.raises(SelectionError, match="Select a list of one row"):
        dataset.isel(units=1).nwb.restrict(0, 1)


def test_a_compact_dataset_is_refused(dataset: xr.Dataset) -> None:
    compact = dataset[
        ["units_spike_times", "units_spike_times_start", "units_spike_times_count"]
    ].nwb.compact()
    with pytest.raises(SelectionError, match=r"Restrict first, then call ds\.nwb\.compact\(\)"):
        compact.nwb.restrict(0, 1)


def test_a_series_whose_times_a_view_left_out_is_not_returned_whole(dataset: xr.Dataset) -> None:
    left_out = dataset.drop_indexes("voltage_time").drop_vars("voltage_time")
    left_out.voltage.attrs.update({"starting_time": START, "rate": RATE})
    with pytest.raises(SelectionError, match="times of 'acquisition/voltage' are not in this Dataset"):
        left_out.nwb.restrict(0, 1)
    del left_out.voltage.attrs["rate"]
    with pytest.warns(MappingWarning, match="returned 'acquisition/voltage' unchanged"):
        part = left_out.nwb.restrict(0, 1)
    assert part.sizes["voltage_time"] == SIZE


def test_timestamps_that_hold_nan_or_fall_are_an_error_that_names_them(path: Path, tmp_path: Path) -> None:
    path = copy_of(path, tmp_path)
    missing = LICK_TIMES.copy()
    missing[5] = np.nan
    rewrite(path, "acquisition/lick/timestamps", missing)
    with pytest.raises(SelectionError, match=r"lick/timestamps.*NaN.*ds\.drop_dims\('time'\)"):
        xr.open_dataset(path, engine="nwbzarr", group="acquisition/lick").nwb.restrict(0, 1)
    # One series does not stop the session.
    with pytest.warns(MappingWarning, match=r"lick/timestamps.*NaN.*samples without a time are dropped"):
        whole = xr.open_dataset(path, engine="nwbzarr").nwb.restrict(1, 2)
    assert whole.sizes["voltage_time"] == 50
    np.testing.assert_array_equal(whole.lick_time, missing[(missing >= 1) & (missing < 2)])
    rest = xr.open_dataset(path, engine="nwbzarr").drop_dims("lick_time").nwb.restrict(1, 2)
    assert rest.sizes["voltage_time"] == 50
    # The other remedy that the error names keeps the series.
    ordered = xr.open_dataset(path, engine="nwbzarr").sortby("lick_time").nwb.restrict(1, 2)
    np.testing.assert_array_equal(ordered.lick_time, missing[(missing >= 1) & (missing < 2)])
    rewrite(path, "acquisition/lick/timestamps", LICK_TIMES[::-1].copy())
    falling = xr.open_dataset(path, engine="nwbzarr")
    with pytest.raises(SelectionError, match=r"lick/timestamps.* do not ascend.*ds\.sortby\('time'\)"):
        xr.open_dataset(path, engine="nwbzarr", group="acquisition/lick").nwb.restrict(0, 1)
    with pytest.warns(MappingWarning, match=r"lick/timestamps.* do not ascend"):
        whole = falling.nwb.restrict(0, 1)
    assert sorted(whole.lick_time.values) == LICK_TIMES[LICK_TIMES < 1].tolist()
    ordered = falling.sortby("lick_time").nwb.restrict(0, 1)
    np.testing.assert_array_equal(ordered.lick_time, LICK_TIMES[LICK_TIMES < 1])


@pytest.mark.parametrize("spikes", [[3.0, 1.0], [np.nan, 1.0]])
def test_spike_times_without_an_order_name_their_unit(
    path: Path, tmp_path: Path, spikes: list[float]
) -> None:
    path = copy_of(path, tmp_path)
    stored = np.concatenate(SPIKES)
    stored[41:43] = spikes
    rewrite(path, "units/spike_times", stored)
    dataset = xr.open_dataset(path, engine="nwbzarr")
    with pytest.raises(
        SelectionError, match="'spike_times' of row 103 of 'units' do not ascend or contain NaN"
    ):
        dataset.nwb.restrict(0, 1)
    rest = dataset.isel(units=[0, 1, 2]).nwb.restrict(0, 1)
    np.testing.assert_array_equal(spikes_of(rest)[0], SPIKES[0][SPIKES[0] < 1])


@pytest.mark.filterwarnings("ignore:TimeSeries 'acquisition/voltage'.*:intake_nwbzarr.errors.MappingWarning")
@pytest.mark.parametrize(("starting_time", "rate"), [(np.nan, RATE), (START, 0.0), (START, "50")])
def test_a_series_that_the_file_gives_no_times_stays_whole_with_a_warning(
    path: Path, tmp_path: Path, starting_time: float, rate: float | str
) -> None:
    path = copy_of(path, tmp_path)
    rewrite(path, "acquisition/voltage/starting_time", np.array(starting_time))
    edit(path, "acquisition/voltage/starting_time", lambda node: node["attributes"].update(rate=rate))
    dataset = xr.open_dataset(path, engine="nwbzarr")
    with pytest.warns(MappingWarning, match="returned 'acquisition/voltage' unchanged"):
        part = dataset.nwb.restrict(0, 1)
    assert part.voltage.shape == (SIZE, 2)
    assert part.sizes["lick_time"] == np.sum(LICK_TIMES < 1)


def test_data_of_no_dimensions_stay_too(path: Path, tmp_path: Path) -> None:
    path = copy_of(path, tmp_path)
    rewrite(path, "acquisition/voltage/data", np.array(3.0))
    dataset = xr.open_dataset(path, engine="nwbzarr")
    with pytest.warns(MappingWarning, match="returned 'acquisition/voltage' unchanged"):
        assert dataset.nwb.restrict(0, 1).voltage.item() == 3


@pytest.mark.filterwarnings("ignore:The column 'spike_times':intake_nwbzarr.errors.MappingWarning")
def test_spikes_that_the_file_does_not_divide_among_units_are_named(path: Path, tmp_path: Path) -> None:
    path = copy_of(path, tmp_path)
    rewrite(path, "units/spike_times_index", np.array([40, 66], "uint8"))
    dataset = xr.open_dataset(path, engine="nwbzarr")
    with pytest.raises(
        SelectionError,
        match=r"has the dimensions \('units_spike_times_index_dim_0',\), not that of the rows",
    ) as told:
        dataset.nwb.restrict(0, 1)
    names = ["units_spike_times_start", "units_spike_times_count", "units_spike_times"]
    assert f"ds.drop_vars({names!r})" in str(told.value)
    assert dataset.drop_vars(names).nwb.restrict(0, 1).sizes["voltage_time"] == 15


@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.MappingWarning")
@pytest.mark.parametrize(
    ("column", "told"),
    [
        (np.array(["a"] * len(TRIALS)), "'trials_start_time' is of type object, such as"),
        (np.zeros((len(TRIALS), 2)), r"'trials_start_time' has the dimensions .*not one time per row"),
    ],
)
def test_columns_that_hold_no_times_are_named(
    path: Path, tmp_path: Path, column: np.ndarray, told: str
) -> None:
    path = copy_of(path, tmp_path)
    rewrite(path, "intervals/trials/start_time", column)
    dataset = xr.open_dataset(path, engine="nwbzarr")
    with pytest.raises(SelectionError, match=told) as error:
        dataset.nwb.restrict(0, 1)
    names = [str(name) for name in dataset.variables if str(name).startswith("trials")]
    assert f"ds.drop_vars({names!r})" in str(error.value)
    assert dataset.drop_vars(names).nwb.restrict(0, 1).sizes["voltage_time"] == 15
