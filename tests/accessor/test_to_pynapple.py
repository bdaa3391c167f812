"""`to_pynapple()`: pynapple's objects hold what the session holds, and say what they cannot."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pynapple
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pynwb import TimeSeries

import intake_nwbzarr
from intake_nwbzarr.accessor.pynapple import LazyValues, to_pynapple
from intake_nwbzarr.errors import (
    MappingWarning,
    MissingPackageError,
    NodeNotFoundError,
    SelectionError,
)
from tests.session_files import empty_session, opened, write


def test_a_session_lists_what_pynapple_has_something_for(ecephys: xr.Dataset) -> None:
    with intake_nwbzarr.track_requests() as log:
        found = to_pynapple(ecephys)
        text = repr(found)
    assert log.requests == 0
    names = {"ElectricalSeriesAP", "sync", "ElectricalSeriesLFP", "epochs", "trials", "units"}
    assert set(found) == names
    assert len(found) == len(names)
    assert "units: TsGroup" in text
    assert "ElectricalSeriesAP: TsdFrame" in text
    assert found["trials"] is found["trials"]
    assert "electrodes" not in found
    with pytest.raises(NodeNotFoundError, match="pynapple can represent"):
        found["electrodes"]


def test_series_are_frames_of_their_channels_with_their_columns(ecephys: xr.Dataset) -> None:
    frame = ecephys.nwb.to_pynapple("ElectricalSeriesLFP")
    assert isinstance(frame, pynapple.TsdFrame)
    np.testing.assert_array_equal(frame.t, ecephys.ElectricalSeriesLFP_time)
    np.testing.assert_array_equal(np.asarray(frame.values), ecephys.ElectricalSeriesLFP)
    assert frame.columns.tolist() == [1, 3, 5, 7]
    assert frame.get_info("label").tolist() == ["AP1", "AP3", "AP5", "AP7"]
    assert frame.get_info("x").tolist() == [1, 3, 5, 7]
    sync = to_pynapple(ecephys, "sync")
    assert isinstance(sync, pynapple.Tsd)
    np.testing.assert_array_equal(np.asarray(sync.values), ecephys.sync)


def test_movies_are_tensors_and_one_objects_dataset_is_that_object(
    ophys: xr.Dataset, corpus_dir: Callable[[str, str], Path]
) -> None:
    tensor = to_pynapple(ophys, "TwoPhotonSeries")
    assert isinstance(tensor, pynapple.TsdTensor)
    np.testing.assert_array_equal(np.asarray(tensor[3:5].values), ophys.TwoPhotonSeries[3:5])
    alone = xr.open_dataset(
        corpus_dir("ophys", "0.14.0"), engine="nwbzarr", group="acquisition/TwoPhotonSeries"
    )
    np.testing.assert_array_equal(np.asarray(to_pynapple(alone).values), np.asarray(tensor.values))


def test_only_the_frames_that_pynapple_selects_are_read(ophys: xr.Dataset) -> None:
    tensor = to_pynapple(ophys, "TwoPhotonSeries")
    with intake_nwbzarr.track_requests() as log:
        part = tensor.restrict(pynapple.IntervalSet(1.5, 2.0))
        np.testing.assert_array_equal(part.t, tensor.t[(tensor.t >= 1.5) & (tensor.t <= 2.0)])
        np.asarray(part.values)
    # One of the three chunks, which have twenty frames each.
    assert log.requests == 1


def test_units_are_keyed_by_id_with_their_columns(ecephys: xr.Dataset) -> None:
    group = to_pynapple(ecephys, "units")
    nwbfile = ecephys.nwb.nwbfile
    assert list(group.keys()) == nwbfile.units.id[:].tolist()
    for row, unit in enumerate(nwbfile.units.id[:]):
        np.testing.assert_array_equal(group[unit].t, nwbfile.units.get_unit_spike_times(row))
    assert group.get_info("quality").tolist() == nwbfile.units["quality"].data[:].tolist()
    spikes = nwbfile.units["spike_times"].target.data[:]
    np.testing.assert_array_equal(group.time_support.values, [[spikes.min(), spikes.max()]])


def test_selected_units_keep_their_own_spikes(ecephys: xr.Dataset) -> None:
    group = to_pynapple(ecephys.isel(units=[4, 1]), "units")
    assert list(group.keys()) == [1, 4]
    everything = to_pynapple(ecephys, "units")
    for unit in (1, 4):
        np.testing.assert_array_equal(group[unit].t, everything[unit].t)
    assert group.get_info("quality").tolist() == ["good", "mua"]
    with pytest.raises(SelectionError, match=r"of (its )?97 values"):
        to_pynapple(ecephys.isel(units_spike=slice(5)), "units")


def test_obs_intervals_are_the_time_support_and_lost_spikes_are_counted(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_unit(spike_times=[1.0, 2.0, 9.0], obs_intervals=[[0.0, 3.0], [5.0, 6.0]], id=7)
    nwbfile.add_unit(spike_times=[5.5], obs_intervals=[[5.0, 8.0]], id=3)
    dataset = opened(write(tmp_path, nwbfile))
    with pytest.warns(MappingWarning, match=r"1 spikes of 'units' are outside"):
        group = to_pynapple(dataset, "units")
    np.testing.assert_array_equal(group.time_support.values, [[0, 3], [5, 8]])
    assert list(group.keys()) == [3, 7]
    assert group[7].t.tolist() == [1, 2]
    np.testing.assert_array_equal(group[7].time_support.values, [[0, 3], [5, 6]])
    np.testing.assert_allclose(group.rates, [1 / 3, 2 / 4])


@pytest.mark.parametrize("trains", [[[]], [[2.5]], [[], [1.0, 4.0]]])
def test_units_with_few_spikes_or_none_are_units_all_the_same(tmp_path: Path, trains: Any) -> None:
    nwbfile = empty_session()
    for train in trains:
        nwbfile.add_unit(spike_times=np.array(train, float))
    group = to_pynapple(opened(write(tmp_path, nwbfile)), "units")
    assert [group[unit].t.tolist() for unit in group] == trains


def test_intervals_keep_columns_and_ids_and_leave_out_what_is_none(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_trial_column("stim", "d")
    nwbfile.add_trial_column("end", "a name that pynapple has itself")
    for number, (start, stop) in enumerate([(4.0, 5.0), (np.nan, 1.0), (0.0, 1.0), (2.0, 2.0), (2.5, 3.0)]):
        nwbfile.add_trial(start_time=start, stop_time=stop, stim=f"s{number}", end=number, id=10 + number)
    with pytest.warns(MappingWarning, match="2 of the 5 intervals"):
        trials = to_pynapple(opened(write(tmp_path, nwbfile)), "trials")
    np.testing.assert_array_equal(trials.values, [[0, 1], [2.5, 3], [4, 5]])
    assert trials.get_info("stim").tolist() == ["s2", "s4", "s0"]
    assert trials.get_info("id").tolist() == [12, 14, 10]
    assert trials.get_info("end_").tolist() == [2, 4, 0]


def test_what_pynapple_does_to_touching_and_overlapping_intervals_is_told(tmp_path: Path) -> None:
    for name, intervals, told, expected in (
        ("touching", [(0.0, 1.0), (1.0, 2.0)], "1 intervals .* microsecond", [[0, 1 - 1e-6], [1, 2]]),
        ("overlapping", [(0.0, 5.0), (1.0, 2.0), (4.0, 6.0), (7.0, 8.0)], "2 .*joins", [[0, 6], [7, 8]]),
    ):
        nwbfile = empty_session()
        for start, stop in intervals:
            nwbfile.add_trial(start_time=start, stop_time=stop)
        (tmp_path / name).mkdir()
        with pytest.warns(MappingWarning, match=told):
            trials = to_pynapple(opened(write(tmp_path / name, nwbfile)), "trials")
        np.testing.assert_array_equal(trials.values, expected)


def test_events_are_timestamps(tmp_path: Path) -> None:
    from pynwb.event import EventsTable

    events = EventsTable(name="licks", description="d")
    for time in (3.0, 1.0, 2.0):
        events.add_row(timestamp=time)
    nwbfile = empty_session()
    nwbfile.add_events_table(events)
    times = to_pynapple(opened(write(tmp_path, nwbfile)), "licks")
    assert isinstance(times, pynapple.Ts)
    assert times.t.tolist() == [1, 2, 3]


def test_texts_are_nothing_for_pynapple(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="notes", data=["a", "b"], unit="n/a", timestamps=[1.0, 2.0]))
    dataset = opened(write(tmp_path, nwbfile))
    assert list(to_pynapple(dataset)) == []
    with pytest.raises(NodeNotFoundError, match="pynapple"):
        to_pynapple(dataset, "notes")


def test_times_that_pynapple_would_mistake_are_refused(ecephys: xr.Dataset) -> None:
    with pytest.raises(SelectionError, match="'acquisition/sync' do not ascend") as caught:
        to_pynapple(ecephys.isel(sync_time=[3, 1, 2]), "sync")
    assert caught.value.path == "acquisition/sync"
    assert caught.value.next_step == "Sort them first: dataset.sortby('sync_time')."


def test_decoded_times_are_the_same_for_pynapple(ecephys: xr.Dataset) -> None:
    decoded = xr.open_dataset(ecephys.nwb.location, engine="nwbzarr", decode_times=True)
    # Of 30 kHz: what a sample's time is beyond the nanosecond, its datetime does not have.
    for name in ("ElectricalSeriesAP", "sync"):
        times, expected = to_pynapple(decoded, name).t, to_pynapple(ecephys, name).t
        np.testing.assert_allclose(times, expected, rtol=0, atol=5.001e-10)


def test_a_single_sample_keeps_its_value_and_brings_no_warning(tmp_path: Path) -> None:
    from pynwb.event import EventsTable

    nwbfile = empty_session()
    for name, timing in (
        ("regular", {"rate": 10.0, "starting_time": 0.5}),
        ("irregular", {"timestamps": [1.6e9]}),
    ):
        nwbfile.add_stimulus(TimeSeries(name=name, data=[[3.0, 4.0]], unit="V", **timing))
    nwbfile.add_acquisition(TimeSeries(name="twice", data=[1.0, 2.0], unit="V", timestamps=[2.0, 2.0]))
    events = EventsTable(name="licks", description="d")
    events.add_row(timestamp=3.0)
    nwbfile.add_events_table(events)
    dataset = opened(write(tmp_path, nwbfile))
    for name, time in (("regular", 0.5), ("irregular", 1.6e9)):
        frame = to_pynapple(dataset, name)
        assert frame.t.tolist() == [time]
        np.testing.assert_array_equal(np.asarray(frame.values), [[3, 4]])
        assert len(frame.time_support) == 1
    assert np.asarray(to_pynapple(dataset, "twice").values).tolist() == [1, 2]
    assert to_pynapple(dataset, "licks").t.tolist() == [3]


def test_a_missing_pynapple_says_what_to_install(
    ecephys: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynapple", None)
    with pytest.raises(MissingPackageError, match=r'pip install "intake-nwbzarr\[pynapple\]"'):
        to_pynapple(ecephys)


_index = (
    st.integers(-4, 3)
    | st.slices(4)
    | st.just(None)
    | st.lists(st.integers(-4, 3), max_size=5).map(lambda rows: np.array(rows, int))
    | st.just(Ellipsis)
    | st.lists(st.booleans(), min_size=4, max_size=4).map(np.array)
)


@settings(max_examples=100, deadline=None)
@given(key=st.lists(_index, max_size=3).map(tuple), order=st.permutations(["time", "x", "y"]))
def test_lazy_values_are_indexed_as_numpy_is(key: tuple[Any, ...], order: list[str]) -> None:
    stored = xr.Variable(order, np.arange(64).reshape(4, 4, 4))
    lazy = LazyValues(stored, "time")
    plain = stored.transpose("time", *(dim for dim in order if dim != "time")).to_numpy()
    assert lazy.shape == plain.shape
    try:
        expected = plain[key]
    except IndexError:
        with pytest.raises(IndexError):
            lazy[key]
        return
    np.testing.assert_array_equal(lazy[key], expected)
