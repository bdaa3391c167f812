"""Peri-event alignment of series and units: what comes out, and what is said where it cannot."""

import datetime as dt
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from intake_nwbzarr.errors import LimitError, MappingWarning, NodeNotFoundError, OptionError, SelectionError
from intake_nwbzarr.indexes import RegularTimeIndex
from tests.accessor.peri_event_session import (
    COUNTER,
    CUES,
    OBSERVED,
    POSITION,
    POSITION_TIMES,
    RATE,
    START,
    STIMULI,
    TRAINS,
    TRIALS,
    UNITS,
    VOLTAGE,
    units_in_memory,
)
from tests.session_files import opened


@pytest.fixture
def trials(session: Path) -> xr.Dataset:
    return opened(session, "intervals/trials")


@pytest.fixture
def voltage(session: Path) -> xr.Dataset:
    return opened(session, "acquisition/voltage")


def test_a_regular_series_is_aligned_by_its_nearest_samples(voltage: xr.Dataset, trials: xr.Dataset) -> None:
    aligned = voltage.nwb.align(trials, (-0.1, 0.2))
    assert aligned.data.dims == ("trial", "lag", "channel")
    np.testing.assert_array_equal(aligned.lag.values, np.arange(-100, 200) / 1000)
    for trial, time in enumerate(TRIALS):
        first = round((time - START) * RATE)
        np.testing.assert_allclose(aligned.data[trial], VOLTAGE[first - 100 : first + 200] * 1e-6)
        assert aligned.lag_offset[trial] == START + first / RATE - time
    assert aligned.lag_offset.values[2] == pytest.approx(-0.0004)
    assert aligned.data.attrs == voltage.data.attrs
    assert aligned.lag.attrs == {
        "units": "s",
        "long_name": "time from the event",
        "description": "time from the event",
        "rate": 1000.0,
    }
    assert aligned.attrs == voltage.attrs


def test_windows_are_half_open_and_whole_numbers_of_samples() -> None:
    index = RegularTimeIndex.from_rate(0.0, 30_000.0, 90_000)
    dataset = xr.Dataset({"data": ("time", np.arange(90_000.0))}, coords=index.coordinates())
    assert dataset.nwb.align([1.0], (-0.5, 1.0)).sizes["lag"] == 45_000
    for rate in (3.0, 7.0, 29_999.95, 1250.0):
        index = RegularTimeIndex.from_rate(0.0, rate, 10)
        dataset = xr.Dataset({"data": ("time", np.arange(10.0))}, coords=index.coordinates())
        lags = dataset.nwb.align([0.0], (-5 / rate, 5 / rate)).lag.values
        np.testing.assert_array_equal(lags, np.arange(-5, 5) / rate)
    index = RegularTimeIndex.from_rate(0.0, 100.0, 200)
    dataset = xr.Dataset({"data": ("time", np.arange(200.0))}, coords=index.coordinates())
    # 0.07 * 100 and 1.1 * 100 are a little more than 7 and 110.
    np.testing.assert_array_equal(dataset.nwb.align([0.0], (0.07, 1.1)).data[0], np.arange(7, 110))


def test_windows_are_whole_numbers_of_bins(units: xr.Dataset) -> None:
    for window, lags in (
        ((0, 0.3), [0, 0.1, 0.2]),
        ((-0.3, 0.39), [-0.3, -0.2, -0.1, 0, 0.1, 0.2]),
        ((0.05, 0.2), [0.05]),
    ):
        assert units.nwb.align([2.0], window, bin=0.1).lag.values.tolist() == lags


def test_a_spike_on_an_edge_is_in_the_bin_that_begins_there() -> None:
    units = units_in_memory([[1.5, 2.0, 2.25, 2.25, 2.5], [2.75]])
    counts = units.nwb.align([2.0], (-0.5, 0.75), bin=0.25).spike_counts
    assert counts.values.tolist() == [[[1, 0, 1, 2, 1]], [[0, 0, 0, 0, 0]]]


def test_events_keep_their_id_and_their_columns(voltage: xr.Dataset, trials: xr.Dataset) -> None:
    aligned = voltage.nwb.align(trials.isel(trial=[4, 1, 2]), (0, 0.1))
    assert aligned.trial.values.tolist() == [4, 1, 2]
    assert aligned.stim.values.tolist() == ["left", "right", "left"]
    assert aligned.start_time.values.tolist() == [15.0, 3.25, 4.0004]
    assert "notes" not in aligned.variables  # ragged
    mean = aligned.data.groupby("stim").mean()
    np.testing.assert_allclose(mean.sel(stim="right"), aligned.data[1])
    np.testing.assert_allclose(mean.sel(stim="left"), (aligned.data[0] + aligned.data[2]) / 2)
    assert aligned.channel.size == 4
    assert aligned.location.values.tolist() == ["CA1"] * 4


def test_events_without_a_time_and_edges_are_nan_and_never_zero(session: Path, trials: xr.Dataset) -> None:
    counter = opened(session, "acquisition/counter")
    aligned = counter.nwb.align(trials, (-1, 1), on="cue_start_time").load()
    assert aligned.data.dtype == np.float64
    assert np.isnan(aligned.data[[1, 4]]).all()
    assert np.isnan(aligned.lag_offset[[1, 4]]).all()
    # The recording starts at 1.5 s, 0.6 s before the first cue.
    assert np.isnan(aligned.data[0, :400]).all()
    np.testing.assert_array_equal(aligned.data[0, 400:], COUNTER[:1600])
    assert not np.isnan(aligned.data[2]).any()
    far = counter.nwb.align([-1e300, 1e300, np.inf, START + 20.5], (-1, 1)).load()
    assert np.isnan(far.data[:3]).all()
    assert np.isnan(far.lag_offset[:3]).all()
    assert int(far.data[3].count()) == 500


def test_incomplete_events_are_dropped_or_raised(session: Path, trials: xr.Dataset) -> None:
    counter = opened(session, "acquisition/counter")
    aligned = counter.nwb.align(trials, (-1, 1), on="cue_start_time", on_missing="drop")
    assert aligned.trial.values.tolist() == [2, 3]
    assert aligned.data.dtype == np.int32
    np.testing.assert_array_equal(aligned.data[0], COUNTER[1600:3600])
    with pytest.raises(
        SelectionError, match=r"3 of 5 events lack .* the first is event 0 \(trial 0\) at 2.1 s"
    ):
        counter.nwb.align(trials, (-1, 1), on="cue_start_time", on_missing="raise")
    whole = counter.nwb.align(trials, (0, 1), on_missing="raise")
    assert whole.trial.size == 5
    assert counter.nwb.align([np.nan], (0, 1), on_missing="drop").data.shape == (0, 1000)


def test_interpolation_is_to_the_events_own_lags(session: Path) -> None:
    counter = opened(session, "acquisition/counter")
    times = np.array([3.0, 3.00025, 3.0009, START - 0.0005, START + 19.9985])
    aligned = counter.nwb.align(times, (-0.002, 0.003), method="linear").load()
    wanted = (times[:, np.newaxis] + aligned.lag.values - START) * RATE
    expected = np.where((wanted > -1e-9) & (wanted < len(COUNTER) - 1 + 1e-9), wanted, np.nan)
    np.testing.assert_allclose(aligned.data, expected, atol=1e-6)
    assert aligned.lag_offset.values.tolist() == [0.0] * 5
    before = counter.nwb.align(times[:3], (0, 0.003), method="ffill")
    np.testing.assert_array_equal(before.data, 1500 + np.tile(np.arange(3), (3, 1)))
    np.testing.assert_allclose(before.lag_offset, [0, -0.00025, -0.0009], atol=1e-12)


def test_a_regular_series_can_be_taken_at_another_rate(session: Path) -> None:
    counter = opened(session, "acquisition/counter")
    aligned = counter.nwb.align([2.0], (-0.3, 0.3), rate=10)
    np.testing.assert_array_equal(aligned.data[0], [200, 300, 400, 500, 600, 700])
    assert "lag_offset" not in aligned.coords
    assert counter.nwb.align([2.0], (-0.3, 0.3), rate=RATE).sizes["lag"] == 600


def test_slices_strides_and_reversals_of_a_series_are_aligned_alike(session: Path) -> None:
    counter = opened(session, "acquisition/counter")
    part = counter.sel(time=slice(3, 5)).nwb.align([3.0, 4.0], (-0.1, 0.1)).load()
    assert int(part.data[0].count()) == 100
    np.testing.assert_array_equal(part.data[1], COUNTER[2400:2600])
    strided = counter.isel(time=slice(0, None, 10)).nwb.align([4.0], (-0.1, 0.1))
    np.testing.assert_array_equal(strided.data[0], COUNTER[2400:2600:10])
    reverse = counter.isel(time=slice(None, None, -1)).nwb.align([4.0, 1.5], (-0.1, 0.1))
    xr.testing.assert_equal(reverse.data, counter.nwb.align([4.0, 1.5], (-0.1, 0.1)).data)


def test_an_irregular_series_is_looked_up(session: Path, trials: xr.Dataset) -> None:
    position = opened(session, "acquisition/position")
    for method in ("nearest", "ffill", "linear"):
        aligned = position.nwb.align(trials, (-0.2, 0.4), rate=50, method=method).load()
        wanted = np.array(TRIALS)[:, np.newaxis] + np.arange(-10, 20) / 50
        if method == "linear":
            expected = np.stack([np.interp(wanted, POSITION_TIMES, axis) for axis in POSITION.T], axis=-1)
        else:
            found = pd.Index(POSITION_TIMES).get_indexer(wanted.ravel(), method=method).reshape(wanted.shape)
            expected = POSITION[found]
        np.testing.assert_allclose(
            aligned.data, np.where(wanted[..., np.newaxis] <= POSITION_TIMES[-1], expected, np.nan)
        )
        assert "lag_offset" not in aligned.coords
        backwards = position.isel(time=slice(None, None, -1)).nwb.align(
            trials, (-0.2, 0.4), rate=50, method=method
        )
        np.testing.assert_array_equal(backwards.data, aligned.data)


def test_gaps_are_missing() -> None:
    times = np.concatenate([np.arange(0, 2, 0.1), np.arange(4, 6, 0.1)])
    dataset = xr.Dataset(
        {"data": ("time", np.arange(40.0))}, {"time": ("time", times, {"nwb_path": "a/timestamps"})}
    )
    present = {}
    for method in ("nearest", "ffill", "linear"):
        aligned = dataset.nwb.align([1.9], (0, 2.5), rate=10, method=method)
        present[method] = np.flatnonzero(~np.isnan(aligned.data[0])).tolist()
        bridged = dataset.nwb.align([1.9], (0, 2.5), rate=10, method=method, gap=5)
        assert not np.isnan(bridged.data).any()
    assert present["nearest"] == [0, 1, *range(20, 25)]
    assert present["ffill"] == [0, 1, 2, *range(21, 25)]
    assert present["linear"] == [0, *range(21, 25)]


def test_timestamps_that_are_no_more_evenly_spaced_are_irregular(session: Path) -> None:
    counter = opened(session, "acquisition/counter")
    masked = counter.isel(time=(counter.time.values < 3) & (counter.time.values != 2.5))
    jittered = counter.assign_coords(time=counter.time + 2e-9 * np.sin(np.arange(counter.sizes["time"])))
    for irregular in (masked, masked.drop_indexes("time").set_xindex("time"), jittered):
        with pytest.raises(OptionError, match="irregular"):
            irregular.nwb.align([2.0], (0, 0.1))
        aligned = irregular.nwb.align([2.0], (0, 0.1), rate=100, method="nearest")
        np.testing.assert_array_equal(aligned.data[0], np.arange(500, 600, 10))


@pytest.mark.parametrize("decode_times", [False, True])
def test_evenly_spaced_times_are_regular_whatever_made_them(session: Path, decode_times: bool) -> None:
    counter = opened(session, "acquisition/counter")
    averaged = counter.coarsen(time=8).mean()
    expected = COUNTER.reshape(-1, 8).mean(axis=1)
    moved = [averaged, averaged[["data"]].isel(time=slice(None, None, -1))]
    shift = 0.0
    if decode_times:
        decoded = opened(session, "acquisition/counter", decode_times=True)
        # Labelled by where each interval begins.
        moved, shift = [decoded.resample(time="8ms", origin="start").mean()], -3.5 / RATE
    else:
        moved.append(averaged.assign_coords(time=averaged.time.values))
    for regular in moved:
        assert regular.nwb.describe()["rate"].tolist() in ([125.0], [np.nan])
        first = START + 3.5 / RATE + shift
        aligned = regular.nwb.align([first + 100 * 0.008, first + 10.2 * 0.008], (-0.04, 0.04))
        assert aligned.lag.attrs["rate"] == 125.0
        np.testing.assert_allclose(aligned.data[0], expected[95:105])
        np.testing.assert_allclose(aligned.data[1], expected[5:15])
        np.testing.assert_allclose(aligned.lag_offset, [0, -0.2 * 0.008], atol=1e-9)


def test_datetimes_are_events_in_utc_or_in_their_own_zone(session: Path) -> None:
    counter = opened(session, "acquisition/counter")
    expected = counter.nwb.align([2.0], (0, 0.1)).data
    for instant in (
        np.array(["2024-05-01T12:00:02"], "datetime64[ns]"),
        [np.datetime64("2024-05-01T12:00:02")],
        [dt.datetime(2024, 5, 1, 12, 0, 2)],  # noqa: DTZ001 - without a zone, which is then UTC
        [pd.Timestamp("2024-05-01T12:00:02")],
        [pd.Timestamp("2024-05-01T14:00:02", tz="Europe/Paris")],
        pd.DatetimeIndex(["2024-05-01T14:00:02"], tz="Europe/Paris"),
    ):
        np.testing.assert_array_equal(counter.nwb.align(instant, (0, 0.1)).data, expected)
    assert np.isnan(counter.nwb.align([pd.NaT, pd.Timestamp("2024-05-01T12:00:02")], (0, 0.1)).data[0]).all()
    with pytest.raises(SelectionError, match=r"too far from 2024-05-01 .* for nanoseconds"):
        counter.nwb.align(np.array(["9999-01-01"], "datetime64[s]"), (0, 0.1))
    with pytest.raises(SelectionError, match="the array of events is of type object, such as"):
        counter.nwb.align(np.array([pd.Timestamp("2024-05-01"), 2.0], object), (0, 0.1))


def test_text_and_truth_are_aligned_too(session: Path) -> None:
    words = opened(session, "acquisition/words")
    aligned = words.nwb.align([2.0, 3.0, np.nan], (0, 2), rate=1, method="ffill").load()
    assert aligned.data.values.tolist()[:2] == [["a", "b"], ["b", "c"]]
    assert all(value != value for value in aligned.data.values[2])
    with pytest.raises(OptionError, match="method='linear' cannot interpolate values of object"):
        words.nwb.align([2.0], (0, 2), rate=1, method="linear")
    index = RegularTimeIndex.from_rate(0.0, 1.0, 3)
    truth = xr.Dataset({"data": ("time", np.array([True, False, True]))}, coords=index.coordinates())
    np.testing.assert_array_equal(truth.nwb.align([1.0], (-1, 3)).data[0], [1, 0, 1, np.nan])
    assert truth.nwb.align([1.0], (-1, 2), on_missing="raise").data.dtype == bool


def test_units_are_counted_around_events(units: xr.Dataset, trials: xr.Dataset) -> None:
    aligned = units.drop_vars(["obs_intervals"]).nwb.align(trials, (-0.5, 1.0), bin=0.1)
    counts = aligned.spike_counts
    assert counts.dims == ("unit", "trial", "lag")
    np.testing.assert_array_equal(aligned.lag, np.arange(-5, 10) / 10)
    edges = np.round(np.arange(-5, 11) * 0.1, 10)
    for unit, train in enumerate(TRAINS):
        for trial, time in enumerate(TRIALS):
            np.testing.assert_array_equal(counts[unit, trial], np.histogram(train, time + edges)[0])
    assert counts.dtype == np.float64
    assert aligned.lag.attrs["bin_width"] == 0.1
    assert "left edge" in aligned.lag.attrs["description"]
    assert counts.attrs["counted"] == "units/spike_times"
    assert aligned.unit.values.tolist() == UNITS
    assert aligned.quality.values[1] == "good"
    assert counts.groupby("stim").mean().sizes["stim"] == 2


def test_units_are_missing_where_they_were_not_observed(units: xr.Dataset, trials: xr.Dataset) -> None:
    counts = units.nwb.align(trials, (-0.5, 0.5), bin=0.25).spike_counts
    known = np.zeros(counts.shape, bool)
    for unit, intervals in enumerate(OBSERVED):
        for trial, time in enumerate(TRIALS):
            for lag, begin in enumerate((-0.5, -0.25, 0.0, 0.25)):
                # Nothing lies across 5.0 s, where two intervals of the second unit touch.
                known[unit, trial, lag] = any(
                    low <= time + begin and time + begin + 0.25 <= high for low, high in intervals
                )
    np.testing.assert_array_equal(~np.isnan(counts), known)
    assert not known[3].any()  # has no interval
    kept = units.isel(unit=[0, 4]).nwb.align(trials, (-0.5, 0.5), bin=0.25, on_missing="drop")
    assert kept.trial.values.tolist() == [0, 1, 3, 4]
    assert kept.spike_counts.dtype == np.int64
    with pytest.raises(
        SelectionError, match=r"1 of 5 events lack .*the first is event 2 \(trial 2\) at 4.0004 s"
    ):
        units.isel(unit=[0, 4]).nwb.align(trials, (-0.5, 0.5), bin=0.25, on_missing="raise")


def test_intervals_that_touch_are_one() -> None:
    units = units_in_memory([[4.9, 5.1]], [[[5.0, 9.0], [0.0, 5.0], [6.0, 7.0]]])
    counts = units.nwb.align([5.0, 8.5, 8.6], (-0.5, 0.5), bin=1.0).spike_counts
    np.testing.assert_array_equal(counts, [[[2], [0], [np.nan]]])


def test_flat_views_name_everything_for_its_table(session: Path) -> None:
    flat = opened(session, None)
    one = flat[["voltage"]].nwb.align(flat, (0, 0.1), on="cue_start_time")
    assert one.voltage.dims[:2] == ("trials", "lag")
    assert one.trials_stim.values.tolist() == STIMULI
    np.testing.assert_array_equal(one.trials_cue_start_time, CUES)
    tables = flat[[name for name in flat.data_vars if str(name).startswith("units_")]]
    counts = tables.nwb.align(flat, (0, 1), bin=0.5)
    assert counts.units_spike_counts.dims == ("units", "trials", "lag")


def test_every_variable_along_the_one_time_is_aligned_and_what_has_none_is_left_out(
    voltage: xr.Dataset,
) -> None:
    more = voltage.assign(mean=voltage.data.mean("channel"), gain=("channel", [1.0, 2.0, 3.0, 4.0]))
    aligned = more.assign_coords(valid=("time", np.arange(len(VOLTAGE)) % 2 == 0)).nwb.align(
        TRIALS, (0, 0.01)
    )
    assert set(aligned.data_vars) == {"data", "mean"}
    np.testing.assert_allclose(aligned["mean"], aligned.data.mean("channel"))
    assert "valid" in aligned.coords
    np.testing.assert_array_equal(aligned.valid[0], np.arange(10) % 2 == 0)


def test_arrays_and_columns_are_events_too(voltage: xr.Dataset, trials: xr.Dataset) -> None:
    expected = voltage.nwb.align(trials, (0, 0.01)).data.values
    for events in (TRIALS, np.array(TRIALS), pd.Series(TRIALS), tuple(TRIALS)):
        aligned = voltage.nwb.align(events, (0, 0.01))
        np.testing.assert_array_equal(aligned.data, expected)
        assert aligned.event.values.tolist() == [0, 1, 2, 3, 4]
        assert aligned.event_time.values.tolist() == TRIALS
    column = voltage.nwb.align(trials.set_coords("stim").start_time, (0, 0.01))
    np.testing.assert_array_equal(column.data, expected)
    assert column.start_time.values.tolist() == TRIALS
    assert column.stim.values.tolist() == STIMULI
    unnamed = voltage.nwb.align(xr.DataArray(TRIALS, dims="cue"), (0, 0.01))
    assert (unnamed.cue.values.tolist(), unnamed.event_time.values.tolist()) == ([0, 1, 2, 3, 4], TRIALS)
    assert voltage.nwb.align([], (0, 0.01)).load().data.shape == (0, 10, 4)


def test_columns_and_coordinates_of_one_name_are_told_apart(voltage: xr.Dataset, trials: xr.Dataset) -> None:
    renamed = trials.rename(stim="location").assign(
        data=("trial", np.arange(5)), extra=(("trial", "channel"), np.ones((5, 3)))
    )
    aligned = voltage.nwb.align(renamed, (0, 0.01))
    assert aligned.location.dims == ("channel",)
    assert aligned.trial_location.values.tolist() == STIMULI
    assert aligned.trial_data.values.tolist() == [0, 1, 2, 3, 4]
    assert aligned.extra.dims == ("trial", "trial_channel")


def test_dimensions_of_one_name_are_refused(units: xr.Dataset, voltage: xr.Dataset) -> None:
    events = xr.Dataset({"start_time": ("unit", [1.0, 2.0])})
    with pytest.raises(OptionError, match=r"have the dimension 'unit'.*rename\(\{'unit': 'unit_'\}\)"):
        units.nwb.align(events, (0, 1), bin=0.5)
    with pytest.raises(OptionError, match="have the dimension 'channel'"):
        voltage.nwb.align(xr.DataArray([2.0], dims="channel"), (0, 1))
    with pytest.raises(OptionError, match="have the dimension 'lag'"):
        voltage.rename(channel="lag").nwb.align([2.0], (0, 1))


@pytest.mark.parametrize(
    ("group", "arguments", "message"),
    [
        ("acquisition/counter", {"window": (1, 0)}, r"window must be .*, not \(1, 0\)"),
        ("acquisition/counter", {"window": (0, 1, 2)}, "window must be two numbers of seconds"),
        ("acquisition/counter", {"window": 1}, "window must be .*, not 1"),
        ("acquisition/counter", {"window": (0, np.nan)}, "window must be two numbers of seconds"),
        ("acquisition/counter", {"window": (0.0001, 0.0002)}, "contains no sample at 1000 Hz"),
        (
            "acquisition/counter",
            {"bin": 0.1},
            "series without timestamps.*call align\\(\\) without bin=",
        ),
        ("acquisition/counter", {"method": "cubic"}, "method must be one of .* not 'cubic'"),
        ("acquisition/counter", {"rate": -1}, "rate must be .*, not -1"),
        ("acquisition/counter", {"gap": 1}, "gap=1.0 is not valid for a series at a regular rate"),
        ("acquisition/counter", {"on_missing": "skip"}, "on_missing must be one of .* not 'skip'"),
        ("acquisition/counter", {"on": "start_time"}, "on='start_time' names a column of a table"),
        ("acquisition/counter", {"events": 2.0}, r"has the shape \(\)"),
        ("acquisition/counter", {"events": [[2.0]]}, r"has the shape \(1, 1\)"),
        ("acquisition/counter", {"events": [[2.0], [3.0, 4.0]]}, "the list cannot be converted to an array"),
        ("acquisition/counter", {"window": "01"}, "window must be .*, not '01'"),
        (
            "acquisition/counter",
            {"window": (np.timedelta64(0, "ns"), 1)},
            "window must be two numbers of seconds",
        ),
        ("units", {"bin": np.timedelta64(1, "ns")}, "bin must be a positive number of seconds, not"),
        ("acquisition/position", {}, "irregularly spaced. Pass rate="),
        ("acquisition/position", {"rate": 10}, "irregularly spaced. Pass rate="),
        ("acquisition/position", {"rate": 10, "method": "linear", "gap": -1}, "gap must be .*, not -1"),
        ("units", {}, "Pass the width of a bin in seconds, such as bin=0.01"),
        ("units", {"bin": 0}, "bin must be .*, not 0"),
        ("units", {"bin": 3.0}, r"bin=3.0 s is wider than the window"),
        ("units", {"bin": 0.1, "rate": 10}, "rate=10 is not valid with bin="),
        ("units", {"bin": 0.1, "method": "linear"}, "method='linear' is not valid with bin="),
        ("acquisition/counter", {"by": "data"}, "by='data' is not valid without bin="),
        ("units", {"bin": 0.1, "by": "quality"}, "by='quality' is not valid for units"),
        ("acquisition/counter", {"name": 3}, "name must be .*, not 3"),
    ],
)
def test_keywords_that_mean_nothing_are_refused(
    session: Path, group: str, arguments: dict[str, Any], message: str
) -> None:
    given = {"events": [2.0], "window": (0.0, 1.0)} | arguments
    with pytest.raises(OptionError, match=message):
        opened(session, group).nwb.align(given.pop("events"), given.pop("window"), **given)


def test_windows_without_end_are_refused(session: Path) -> None:
    with pytest.raises(LimitError, match="1,000,000,000,000 lags"):
        opened(session, "acquisition/counter").nwb.align([2.0], (0, 1e9))
    with pytest.raises(LimitError, match="lags around each event"):
        opened(session, "units").nwb.align([2.0], (0, 1e9), bin=1e-3)


def test_columns_of_events_that_are_not_there_or_not_times_are_named(
    session: Path, trials: xr.Dataset
) -> None:
    counter = opened(session, "acquisition/counter")
    with pytest.raises(NodeNotFoundError, match=r"no column 'cue'.*'start_time', .*, 'cue_start_time'"):
        counter.nwb.align(trials, (0, 1), on="cue")
    with pytest.raises(NodeNotFoundError, match="no column 'start_time' or 'timestamp'"):
        counter.nwb.align(opened(session, "units"), (0, 1))
    with pytest.raises(SelectionError, match="the column 'stim' is of type object"):
        counter.nwb.align(trials, (0, 1), on="stim")
    with pytest.raises(OptionError, match=r"the column 'waveforms' has the dimensions"):
        counter.nwb.align(opened(session, "units"), (0, 1), on="waveforms")
    two = xr.Dataset({name: ("row", [2.0], {"nwb_path": f"{name}/start_time"}) for name in ("one", "other")})
    with pytest.raises(SelectionError, match=r"columns 'start_time': 'one', 'other'\. Pass one of them"):
        counter.nwb.align(two, (0, 1))
    assert counter.nwb.align(two, (0, 1), on="other").sizes["row"] == 1


def test_datasets_with_nothing_or_too_much_to_align_say_so(session: Path, trials: xr.Dataset) -> None:
    flat = opened(session, None)
    with pytest.raises(OptionError, match=r"Pass name=, one of 'counter', 'position', 'voltage', 'words'"):
        flat.nwb.align(trials, (0, 1))
    assert flat.nwb.align(trials, (0, 1), bin=0.1)["units_spike_counts"].ndim == 3
    parts = flat[["units_spike_times_start", "units_spike_times_count", "units_spike_times"]]
    assert parts.nwb.align(trials, (0, 1), bin=0.1)["units_spike_counts"].ndim == 3
    for dataset in (
        trials,
        opened(session, "units")[["quality"]],
        opened(session, "acquisition/counter").drop_vars("time"),
    ):
        with pytest.raises(SelectionError, match="nothing to align"):
            dataset.nwb.align(trials, (0, 1))


def test_selections_of_units_and_their_values_are_minded(units: xr.Dataset) -> None:
    whole = units.nwb.align([3.0], (-1, 1), bin=0.5).spike_counts
    np.testing.assert_array_equal(
        units.isel(unit=[4, 0]).nwb.align([3.0], (-1, 1), bin=0.5).spike_counts, whole[[4, 0]]
    )
    np.testing.assert_array_equal(
        units.isel(unit=[4, 0]).nwb.compact().nwb.align([3.0], (-1, 1), bin=0.5).spike_counts, whole[[4, 0]]
    )
    with pytest.raises(SelectionError, match="Select rows instead"):
        units.isel(spike=slice(9)).nwb.align([3.0], (-1, 1), bin=0.5)
    with pytest.raises(SelectionError, match="Select rows instead"):
        units.isel(obs_interval=slice(1)).nwb.align([3.0], (-1, 1), bin=0.5)


def test_results_pickle_write_and_lead_back_to_the_file(
    voltage: xr.Dataset, units: xr.Dataset, trials: xr.Dataset, tmp_path: Path
) -> None:
    for aligned in (voltage.nwb.align(trials, (0, 0.01)), units.nwb.align(trials, (0, 1), bin=0.5)):
        again = pickle.loads(pickle.dumps(aligned))
        xr.testing.assert_identical(again.load(), aligned.load())
        assert again.nwb.nwbfile.identifier == "small"
        aligned.to_netcdf(tmp_path / "aligned.nc")
        with xr.open_dataset(tmp_path / "aligned.nc") as saved:
            xr.testing.assert_equal(saved.load(), aligned)
        (tmp_path / "aligned.nc").unlink()


def test_times_picked_from_a_series_are_events_and_no_time(session: Path) -> None:
    counter = opened(session, "acquisition/counter")
    times = counter.time.isel(time=[3, 8, 12])
    aligned = counter.nwb.align(times, (0.0, 0.002))
    assert aligned["data"].dims[:2] == ("event", "lag")
    np.testing.assert_array_equal(aligned["event_time"].values, times.values)
    expected = counter.nwb.align(times.values, (0.0, 0.002))
    np.testing.assert_array_equal(aligned["data"].values, expected["data"].values)


def test_events_of_another_session_are_told(session: Path, trials: xr.Dataset) -> None:
    counter = opened(session, "acquisition/counter")
    others = trials.assign_attrs(timestamps_reference_time="1999-01-01T00:00:00+00:00")
    with pytest.warns(MappingWarning, match="count from 1999-01-01.*from different sessions"):
        counter.nwb.align(others, (0, 0.001))
