"""Sessions within several epochs, and samples labelled with the epoch they lie in, against plain loops."""

import pickle
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pynapple
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import intake_nwbzarr
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.arrays.selection import select
from intake_nwbzarr.errors import MappingWarning, NodeNotFoundError, OptionError, SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex
from intake_nwbzarr.indexes.index import LazyTimeIndex
from tests.accessor.peri_event_session import units_in_memory
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

VOLTAGE_TIMES = START + np.arange(SIZE) / RATE
EPOCHS = np.array([[0.5, 1.5], [2.0, 2.75], [2.75, 3.0], [6.0, 7.5]])


def in_any(times: Any, epochs: Any) -> list[bool]:
    return [any(low <= time < high for low, high in epochs) for time in times]


def overlaps_any(interval: tuple[float, float], epochs: Any) -> bool:
    start, stop = interval
    if not stop > start:
        return in_any([start], epochs)[0]
    return any(start < high and stop > low for low, high in epochs)


marks = st.sampled_from(
    [float(mark) for mark in (*LICK_TIMES[::9], *VOLTAGE_TIMES[::50], *SPIKES[0][::7], *EVENTS[:2], 1.0, 4.0)]
)
one_epoch = st.tuples(st.one_of(marks, st.floats(-1, 11)), st.one_of(marks, st.floats(-1, 11)))
some_epochs = st.lists(
    one_epoch.map(lambda ends: (min(ends), max(ends))).filter(lambda ends: ends[0] < ends[1]),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(epochs=some_epochs)
def test_what_lies_in_any_epoch_is_kept_once(dataset: xr.Dataset, epochs: list[tuple[float, float]]) -> None:
    part = dataset.nwb.restrict(np.array(epochs))
    for name, all_times in (("lick", LICK_TIMES), ("voltage", VOLTAGE_TIMES)):
        inside = np.array(in_any(all_times, epochs))
        np.testing.assert_array_equal(part[f"{name}_time"].values, all_times[inside])
        np.testing.assert_array_equal(part[name].values, dataset[name].values[inside])
    for found, negative, spikes in zip(
        part.nwb.ragged("units_spike_times"), part.nwb.ragged("units_amplitudes"), SPIKES, strict=True
    ):
        inside = np.array(in_any(spikes, epochs), bool)
        np.testing.assert_array_equal(found, spikes[inside])
        np.testing.assert_array_equal(negative, -spikes[inside])
    for observed, intervals in zip(part.nwb.ragged("units_obs_intervals"), OBSERVED, strict=True):
        assert observed.tolist() == [list(each) for each in intervals if overlaps_any(each, epochs)]
    frame = part.nwb.to_dataframe("units")
    for unit, spikes in enumerate(SPIKES):
        first = [waveform.ravel()[0] for waveform in frame.waveforms.iloc[unit]]
        assert first == spikes[in_any(spikes, epochs)].tolist()
    assert [each.tolist() for each in frame.electrodes] == [[10, 11], [11, 12], [12, 10], [10, 11]]
    assert part.stimuli.values.tolist() == np.flatnonzero(in_any(EVENTS, epochs)).tolist()
    assert part.trials.values.tolist() == [
        number for number, trial in enumerate(TRIALS) if overlaps_any(trial, epochs)
    ]


def forms(dataset: xr.Dataset) -> list[Any]:
    """The same epochs in each of the forms that they are taken in."""
    table = xr.Dataset(
        {"start_time": ("row", EPOCHS[:, 0]), "stop_time": ("row", EPOCHS[:, 1])}, {"row": [3, 1, 4, 5]}
    )
    shifted = EPOCHS.copy()
    shifted[1, 1] -= 1e-6  # pynapple has no epochs that touch
    return [
        EPOCHS,
        EPOCHS.tolist(),
        EPOCHS[::-1],
        table,
        table.to_dataframe(),
        xr.DataTree.from_dict({"/epochs": table})["epochs"],
        pynapple.IntervalSet(*shifted.T),
    ]


def test_epochs_are_taken_in_every_form(dataset: xr.Dataset) -> None:
    expected = np.flatnonzero(in_any(VOLTAGE_TIMES, EPOCHS))
    for epochs in forms(dataset):
        part = dataset[["voltage"]].nwb.restrict(epochs)
        np.testing.assert_array_equal(part.voltage_time, VOLTAGE_TIMES[expected], str(type(epochs)))
    one = dataset[["voltage"]].nwb.restrict((1.0, 2.0))
    xr.testing.assert_identical(one, dataset[["voltage"]].nwb.restrict(1.0, 2.0))


@pytest.mark.filterwarnings("ignore:.* epochs have no start:intake_nwbzarr.errors.MappingWarning")
def test_a_table_of_the_dataset_itself_is_named(path: Path, dataset: xr.Dataset) -> None:
    named = dataset.nwb.restrict("trials", name="lick")
    trials = xr.open_dataset(path, engine="nwbzarr", group="intervals/trials")
    valid = [each for each in TRIALS if each[1] > each[0]]
    np.testing.assert_array_equal(named.lick_time, LICK_TIMES[in_any(LICK_TIMES, valid)])
    assert set(named.data_vars) == {"lick"}
    lick = xr.open_dataset(path, engine="nwbzarr", group="acquisition/lick")
    np.testing.assert_array_equal(lick.nwb.restrict(trials).data, named.lick)
    np.testing.assert_array_equal(lick.nwb.restrict(trials.nwb.to_dataframe()).data, named.lick)
    tree = xr.open_datatree(path, engine="nwbzarr")
    np.testing.assert_array_equal(lick.nwb.restrict(tree["intervals/trials"]).data, named.lick)
    assert set(dataset.nwb.restrict(1, 2, name="trials").dims) == {"trials", "trials_tags_value"}


def test_epochs_that_hold_no_time_are_left_out_with_a_warning(dataset: xr.Dataset) -> None:
    epochs = np.array([[1.0, 2.0], [np.nan, 3.0], [4.0, np.nan], [5.0, 5.0], [7.0, 6.0]])
    with pytest.warns(MappingWarning, match="4 of 5 epochs have no start, no stop, or do not stop"):
        part = dataset[["voltage"]].nwb.restrict(epochs)
    xr.testing.assert_identical(part, dataset[["voltage"]].nwb.restrict(1, 2))
    with pytest.warns(MappingWarning, match="1 of 1 epochs"):
        assert dataset[["voltage"]].nwb.restrict(epochs[1:2]).sizes["voltage_time"] == 0


def test_the_time_of_pieces_is_found_read_and_selected_as_any(path: Path) -> None:
    for name, times in (("voltage", VOLTAGE_TIMES), ("lick", LICK_TIMES)):
        series = xr.open_dataset(path, engine="nwbzarr", group=f"acquisition/{name}")
        kept = np.flatnonzero(in_any(times, EPOCHS))
        part = series.nwb.restrict(EPOCHS)
        index = part.xindexes["time"]
        assert isinstance(index, LazyTimeIndex)
        assert index.rate is None
        for low, high in ((0.9, 2.9), (-5, 50), (1.5, 2.0), (2.74, 2.76)):
            expected = times[kept][(times[kept] >= low) & (times[kept] <= high)]
            np.testing.assert_array_equal(part.sel(time=slice(low, high)).time, expected)
        wanted = times[kept][[0, 5, -1]]
        np.testing.assert_array_equal(part.sel(time=wanted, method="nearest").data, part.data[[0, 5, -1]])
        np.testing.assert_array_equal(part.isel(time=slice(None, None, -3)).time, times[kept][::-3])
        again = pickle.loads(pickle.dumps(part))
        xr.testing.assert_identical(again.load(), part.load())
        inner = part.nwb.restrict([[0.75, 1.0], [2.5, 2.8], [6.5, 9]])
        both = [each for each in kept if in_any([times[each]], [[0.75, 1.0], [2.5, 2.8], [6.5, 9]])[0]]
        np.testing.assert_array_equal(inner.time, times[both])
        np.testing.assert_array_equal(inner.data, series.data.values[both])


class Counter:
    """An array of three thousand million values, each of which is its position."""

    shape = (3_000_000_000,)
    dtype = np.dtype(np.float64)
    chunks = (10**6,)

    def read(self, key: Any = ()) -> np.ndarray:
        selection = select(key, self.shape)
        return np.asarray(selection.axes[0], float).reshape(selection.final_shape)


def test_of_a_long_recording_neither_samples_nor_positions_are_held() -> None:
    index = RegularTimeIndex.from_rate(0.0, 30_000.0, Counter.shape[0])
    dataset = xr.Dataset({"data": lazy_variable(("time",), Counter())}, index.coordinates())
    epochs = np.stack([np.arange(0, 90_000, 10.0), np.arange(5, 90_005, 10.0)], axis=1)
    part = dataset.nwb.restrict(epochs)
    assert part.sizes["time"] == 9000 * 5 * 30_000
    assert len(pickle.dumps(part)) < 10**6
    assert part.time[150_000].item() == 10.0
    assert part.data[-1].item() == 89_995 * 30_000 - 1
    labelled = dataset.nwb.label(epochs)
    assert labelled.epoch[[0, 149_999, 300_000]].values.tolist() == [0.0, 0.0, 1.0]
    assert np.isnan(labelled.epoch[150_000])


def test_nothing_of_a_series_is_read_before_it_is_asked_for(path: Path) -> None:
    voltage = xr.open_dataset(path, engine="nwbzarr", group="acquisition/voltage")
    with intake_nwbzarr.track_requests() as log:
        part = voltage.nwb.restrict(EPOCHS)
        labelled = voltage.nwb.label(EPOCHS)
        repr((part, labelled))
        again = voltage.nwb.restrict(EPOCHS)
        assert dask.base.tokenize(part) == dask.base.tokenize(again)
        assert dask.base.tokenize(part) != dask.base.tokenize(voltage.nwb.restrict(EPOCHS[1:]))
    assert log.requests == 0
    assert part.data.values.shape == (sum(in_any(VOLTAGE_TIMES, EPOCHS)), 2)


def test_dask_arrays_stay_dask_arrays(path: Path) -> None:
    part = xr.open_dataset(path, engine="nwbzarr", chunks={}).nwb.restrict(EPOCHS)
    assert part.voltage.chunks is not None
    np.testing.assert_array_equal(part.voltage_time, VOLTAGE_TIMES[in_any(VOLTAGE_TIMES, EPOCHS)])
    np.testing.assert_array_equal(part.voltage[:, 0], 2 * np.flatnonzero(in_any(VOLTAGE_TIMES, EPOCHS)))
    for found, spikes in zip(part.nwb.ragged("spike_times"), SPIKES, strict=True):
        np.testing.assert_array_equal(found, spikes[in_any(spikes, EPOCHS)])


def test_reordered_units_and_reversed_series_keep_their_order(dataset: xr.Dataset) -> None:
    part = dataset.isel(units=[3, 0], voltage_time=slice(None, None, -1)).nwb.restrict(EPOCHS)
    for found, spikes in zip(part.nwb.ragged("spike_times"), (SPIKES[3], SPIKES[0]), strict=True):
        np.testing.assert_array_equal(found, spikes[in_any(spikes, EPOCHS)])
    expected = VOLTAGE_TIMES[::-1][in_any(VOLTAGE_TIMES[::-1], EPOCHS)]
    np.testing.assert_array_equal(part.voltage_time, expected)
    shuffled = dataset[["voltage"]].isel(voltage_time=[90, 3, 70, 66]).nwb.restrict(EPOCHS)
    times = VOLTAGE_TIMES[[90, 3, 70, 66]]
    np.testing.assert_array_equal(shuffled.voltage_time, times[in_any(times, EPOCHS)])


@pytest.mark.parametrize(
    ("epochs", "error", "message"),
    [
        (3.0, OptionError, r"restrict\(3.0\) has a start and no stop"),
        (
            [1.0, 2.0, 3.0],
            OptionError,
            r"pairs of times of shape \(epoch, 2\), not .* list of shape \(3,\)",
        ),
        ([[1.0], [2.0, 3.0]], OptionError, "pairs of times"),
        (["a", "b"], OptionError, "Epochs must be a table|holds"),
        (None, OptionError, "Epochs must be a table"),
        ("nothing", NodeNotFoundError, "No 'nothing' among the tables of intervals"),
        (xr.Dataset({"x": ("row", [1.0])}), NodeNotFoundError, "no column 'start_time'"),
        (pynapple.Ts(np.array([1.0, 2.0])), NodeNotFoundError, "no column 'start_time'"),
    ],
)
def test_what_are_no_epochs_is_refused(dataset: xr.Dataset, epochs: Any, error: type, message: str) -> None:
    for call in (dataset.nwb.restrict, dataset.nwb.label):
        if epochs == 3.0 and call == dataset.nwb.label:
            continue
        with pytest.raises(error, match=message):
            call(epochs)


def test_several_tables_of_intervals_are_told_apart(dataset: xr.Dataset) -> None:
    two = xr.Dataset(
        {
            f"{table}_{end}_time": (table, [number], {"nwb_path": f"intervals/{table}/{end}_time"})
            for table in ("trials", "epochs")
            for end, number in (("start", 1.0), ("stop", 2.0))
        }
    )
    with pytest.raises(OptionError, match=r"several tables of intervals, with 'trials_start_time', 'epochs_"):
        dataset.nwb.restrict(two)


times = st.one_of(st.integers(-10, 60).map(lambda tenths: tenths / 10), st.floats(-1, 6))
apart = st.lists(times, max_size=8, unique=True).map(
    lambda ends: [tuple(sorted(ends)[at : at + 2]) for at in range(0, len(ends) - 1, 2)]
)


@settings(max_examples=100, deadline=None)
@given(
    epochs=apart,
    samples=st.lists(times, max_size=20),
    spikes=st.lists(times, max_size=20),
    order=st.randoms(),
)
def test_labels_are_those_of_a_plain_loop(epochs: Any, samples: Any, spikes: Any, order: Any) -> None:
    kinds = ["left", "right", "left", "right"][: len(epochs)]
    rows = list(range(len(epochs)))
    order.shuffle(rows)
    table = xr.Dataset(
        {
            "start_time": ("trial", [epochs[row][0] for row in rows]),
            "stop_time": ("trial", [epochs[row][1] for row in rows]),
            "stim": ("trial", np.array([kinds[row] for row in rows], object)),
        },
        {"trial": [row * 10 for row in rows]},
    )

    def expected(when: Any, values: Any, missing: Any) -> list[Any]:
        found = ([v for v, (low, high) in zip(values, epochs, strict=True) if low <= t < high] for t in when)
        return [each[0] if each else missing for each in found]

    index = IrregularTimeIndex.from_array(sorted(samples))
    series = xr.Dataset({"data": ("time", np.arange(len(samples)))}, index.coordinates())
    labelled = series.nwb.label(table)
    assert labelled.trial.dims == ("time",)
    ids = expected(sorted(samples), [row * 10 for row in range(len(epochs))], np.nan)
    np.testing.assert_array_equal(labelled.trial.values, np.array(ids, float))
    stim = series.nwb.label(table, "stim").stim.values
    assert [None if each != each else each for each in stim] == expected(sorted(samples), kinds, None)
    np.testing.assert_array_equal(labelled.trial[::-2].values, np.array(ids, float)[::-2])
    units = units_in_memory([spikes, spikes[::-1]]).nwb.label(table)
    assert units.trial.dims == ("spike",)
    ids = expected([*spikes, *spikes[::-1]], [row * 10 for row in range(len(epochs))], np.nan)
    np.testing.assert_array_equal(units.trial.values, np.array(ids, float))


def test_labels_group_and_each_time_has_its_own(dataset: xr.Dataset) -> None:
    epochs = xr.Dataset(
        {"start_time": ("epoch", EPOCHS[:, 0]), "stop_time": ("epoch", EPOCHS[:, 1])},
        {"kind": ("epoch", ["rest", "run", "rest", "run"])},
    )
    labelled = dataset.nwb.label(epochs, "kind")
    assert labelled.voltage_kind.dims == ("voltage_time",)
    assert labelled.lick_kind.dims == ("lick_time",)
    assert labelled.units_spike_kind.dims == ("units_spike",)
    assert labelled.stimuli_kind_.dims == ("stimuli",)  # which has a column of that name
    assert labelled.trials_kind.dims == ("trials",)
    assert "chirp_kind" not in labelled.variables  # a template's time is not the session's
    mean = labelled.voltage.groupby("voltage_kind").mean()
    for kind, rows in (("rest", [0, 2]), ("run", [1, 3])):
        inside = in_any(VOLTAGE_TIMES, EPOCHS[rows])
        np.testing.assert_allclose(mean.sel(voltage_kind=kind), dataset.voltage.values[inside].mean(axis=0))
    one = dataset.nwb.label(epochs, "kind", name="voltage")
    assert set(one.data_vars) == {"voltage"}
    assert one.kind.dims == ("voltage_time",)
    assert dataset[["voltage"]].nwb.label(EPOCHS).epoch.dims == ("voltage_time",)


def test_what_cannot_be_labelled_says_why(dataset: xr.Dataset) -> None:
    with pytest.raises(
        SelectionError, match=r"1 epochs start before another .*the first two are 0 \(1.0 to 3.0 s\) and 1"
    ):
        dataset.nwb.label([[1.0, 3.0], [2.0, 4.0], [5.0, 6.0]])
    with pytest.raises(
        NodeNotFoundError, match="no column 'stim' with one value per epoch; their columns are 'start_time'"
    ):
        dataset.nwb.label(xr.Dataset({"start_time": ("row", [1.0]), "stop_time": ("row", [2.0])}), "stim")
    with pytest.raises(SelectionError, match="has no series, events, intervals or spikes with times"):
        dataset[["units_quality"]].nwb.label(EPOCHS)
