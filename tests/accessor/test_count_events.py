"""Counts of events of any kind, in bins and around other events, and the forms that events are given in."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pynapple
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import intake_nwbzarr.accessor  # noqa: F401 - registers ds.nwb
from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import NodeNotFoundError, OptionError, SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex
from tests.accessor.timed_session import (
    EVENTS,
    LICK_TIMES,
    NOTES,
    RATE,
    SIZE,
    SPIKES,
    START,
    TRIALS,
)
from tests.session_files import opened

KINDS = list("abcde")
STARTS = [start for start, _ in TRIALS]


def column(table: str, name: str) -> dict[str, str]:
    """The attributes of a table's column."""
    return {"nwb_path": f"{table}/{name}", "nwb_object": table, "nwb_column": name}


def counted(times: Any, edges: Any) -> list[int]:
    return [sum(low <= time < high for time in times) for low, high in pairwise(edges)]


times = st.one_of(st.integers(-20, 60).map(lambda number: number / 20), st.floats(-2, 6), st.just(np.nan))


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(st.tuples(times, st.sampled_from(["lick", "reward", "ttl", None])), max_size=15),
    around=st.lists(times, max_size=4),
    stop=st.sampled_from([None, 4.0]),
    decoded=st.booleans(),
)
def test_counts_of_events_are_those_of_plain_loops(
    events: Any, around: list[float], stop: float | None, decoded: bool
) -> None:
    when, kinds = [time for time, _ in events], np.array([kind for _, kind in events], object)
    attributes = {"timestamps_reference_time": "2024-01-01T00:00:00+00:00", "nwb_path": "events/marks"}
    stored: Any = np.array(when, float)
    if decoded:
        stored = np.datetime64("2024-01-01", "ns") + (np.round(stored, 9) * 1e9).astype("m8[ns]")
        when = np.round(np.array(when, float), 9).tolist()
    table = xr.Dataset(
        {
            "timestamp": ("event", stored, column("events/marks", "timestamp")),
            "kind": ("event", kinds, column("events/marks", "kind")),
        },
        {"event": ("event", np.arange(len(when)), column("events/marks", "id"))},
        attributes,
    )
    latest = max((time for time in when if not np.isnan(time)), default=0.0) if stop is None else stop
    edges = [number / (1 / 0.5) for number in range(int(max(latest, 0) / 0.5 + 1e-6) + 1)]
    if stop is None and latest < 0:
        edges = [0.0]
    binned = table.nwb.bin(0.5, stop=stop)
    assert binned.event_counts.dims == ("time",)
    assert binned.event_counts.dtype == np.int64
    assert binned.event_counts.values.tolist() == counted(when, edges)
    apart = table.nwb.bin(0.5, stop=stop, by="kind").event_counts
    assert apart.kind.values.tolist() == sorted({kind for kind in kinds if kind is not None})
    for kind in apart.kind.values:
        own = [time for time, other in zip(when, kinds, strict=True) if other == kind]
        assert apart.sel(kind=kind).values.tolist() == counted(own, edges)
    marks = xr.DataArray(around, dims="mark")
    aligned = table.nwb.align(marks, (-0.5, 1.0), bin=0.5).event_counts
    assert aligned.dims == ("mark", "lag")
    for row, mark in enumerate(around):
        if np.isnan(mark):
            assert np.isnan(aligned[row]).all()
        else:
            assert aligned[row].values.tolist() == counted(when, [mark + lag for lag in (-0.5, 0, 0.5, 1)])
    each = table.nwb.align(marks, (-0.5, 1.0), bin=0.5, by="kind", on_missing="drop").event_counts
    assert each.dims == ("kind", "mark", "lag")
    assert each.dtype == np.int64
    known = [kind is not None for kind in kinds]
    some = [time for time, kept in zip(when, known, strict=True) if kept]
    for row, mark in enumerate(mark for mark in around if not np.isnan(mark)):
        expected = counted(some, [mark + lag for lag in (-0.5, 0, 0.5, 1)])
        assert each.sum("kind")[row].values.tolist() == expected


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("acquisition/lick", LICK_TIMES),
        ("acquisition/notes", NOTES),
        ("events/stimuli", EVENTS),
        ("intervals/trials", STARTS),
    ],
)
def test_events_intervals_and_timestamps_are_counted(path: Path, group: str, expected: Any) -> None:
    dataset = opened(path, group)
    binned = dataset.nwb.bin(0.25, stop=10)
    assert binned.event_counts.values.tolist() == counted(expected, np.arange(41) / 4)
    assert binned.event_counts.attrs["counted"].startswith(group)
    assert binned.nwb.location == dataset.nwb.location
    trials = opened(path, "intervals/trials").drop_vars("cue" if "trials" in group else [])
    around = dataset.rename(trial="row", cue="kind").nwb if "trials" in group else dataset.nwb
    aligned = around.align(trials.isel(trial=[0, 2, 4]), (-0.5, 0.5), bin=0.25).event_counts
    for row, trial in enumerate((0, 2, 4)):
        edges = STARTS[trial] + np.array([-0.5, -0.25, 0, 0.25, 0.5])
        assert aligned.values[row].tolist() == counted(expected, edges)


def test_what_is_counted_is_named_in_a_dataset_of_many(dataset: xr.Dataset) -> None:
    names = {
        "lick": LICK_TIMES,
        "acquisition/notes": NOTES,
        "stimuli": EVENTS,
        "trials": STARTS,
        "trials_stop_time": [stop for _, stop in TRIALS],
    }
    for name, expected in names.items():
        (counts,) = dataset.nwb.bin(1.0, stop=10, name=name).data_vars.values()
        assert counts.values.tolist() == counted(expected, range(11)), name
        assert str(counts.name).endswith("_event_counts")
    units = dataset.nwb.bin(1.0, stop=10)
    xr.testing.assert_identical(units.load(), dataset.nwb.bin(1.0, stop=10, name="units").load())
    assert [counts.tolist() for counts in units["units_spike_counts"].values] == [
        counted(spikes, range(11)) for spikes in SPIKES
    ]
    aligned = dataset.nwb.align("stimuli", (0, 1), bin=0.5, name="lick")["lick_event_counts"]
    assert aligned.dims == ("stimuli", "lag")
    assert aligned.stimuli_kind.values.tolist() == KINDS
    assert dataset.nwb.align("trials_stop_time", (0, 1), name="voltage").voltage.dims[:2] == ("trials", "lag")
    series = dataset.nwb.align("trials", (0, 0.1), name="voltage")
    assert set(series.data_vars) == {"voltage"}
    expected = dataset[["voltage"]].nwb.align(dataset, (0, 0.1))
    xr.testing.assert_identical(series.voltage.load(), expected.voltage.load())
    by = dataset.nwb.bin(5.0, stop=10, name="stimuli", by="kind")["stimuli_event_counts"]
    assert by.kind.values.tolist() == KINDS
    assert by.values.tolist() == [[0, 1], [1, 0], [0, 0], [0, 1], [1, 0]]
    notes = dataset.nwb.bin(5.0, stop=10, name="notes", by="notes")["notes_event_counts"]
    assert (notes.notes.values.tolist(), notes.values.tolist()) == (["a", "b", "c"], [[1, 0], [1, 0], [0, 1]])


def test_without_a_stop_only_the_ends_of_rows_are_read(path: Path) -> None:
    units = opened(path, "units")
    binned = units.nwb.bin(0.5)
    last = max(spikes[-1] for spikes in SPIKES if len(spikes))
    assert binned.sizes["time"] == int(last / 0.5)
    with track_requests() as log:
        again = units.nwb.bin(0.5, stop=9)
    assert log.requests == 0
    np.testing.assert_array_equal(binned.spike_counts[:, :18], again.spike_counts)
    assert opened(path, "acquisition/lick").nwb.bin(0.5).sizes["time"] == int(LICK_TIMES[-1] / 0.5)
    assert opened(path, "events/stimuli").nwb.bin(0.5).sizes["time"] == int(9 / 0.5)


def test_spikes_that_do_not_ascend_are_never_lost_without_a_word(path: Path) -> None:
    units = opened(path, "units").load()
    units.spike_times.values[[3, 39]] = units.spike_times.values[[39, 3]]
    binned = units.isel(unit=[0]).nwb.bin(0.5)
    with pytest.raises(SelectionError, match=r"do not ascend.*Pass stop="):
        binned.load()
    assert units.isel(unit=[0]).nwb.bin(0.5, stop=10).spike_counts.sum() == len(SPIKES[0])


def test_counts_are_divided_grouped_restricted_and_labelled_like_what_was_opened(path: Path) -> None:
    units, voltage = opened(path, "units"), opened(path, "acquisition/voltage")
    binned = units.nwb.bin(0.1, stop=voltage.nwb.stop)
    assert binned.sizes["time"] == 87
    rates = binned / 0.1
    assert rates.nwb.location == units.nwb.location
    mean = voltage.nwb.resample_like(binned, "mean").data[:, 0]
    grouped = rates.groupby_bins(mean, [0, 200, 400, 800]).mean()
    low, high = np.nan_to_num(mean.values) > 0, mean.values <= 200
    expected = binned.spike_counts.values[:, low & high].mean(axis=1) / 0.1
    np.testing.assert_allclose(grouped.spike_counts.isel(data_bins=0), expected)
    assert rates.nwb.restrict(1, 3).sizes["time"] == 20
    labelled = binned.nwb.label([[1.0, 2.0], [4.0, 6.0]])
    per_epoch = labelled.spike_counts.groupby("epoch").sum()
    assert per_epoch.sel(epoch=0).values.tolist() == [sum((s >= 1) & (s < 2)) for s in SPIKES]
    assert binned.nwb.align([3.0], (-1, 1)).spike_counts.dims == ("event", "lag", "unit")


def test_the_span_of_a_dataset_takes_no_values(path: Path, dataset: xr.Dataset) -> None:
    voltage, lick = opened(path, "acquisition/voltage"), opened(path, "acquisition/lick")
    with track_requests() as log:
        span = voltage.nwb.start, voltage.nwb.stop
    assert log.requests == 0
    assert span == (START, START + SIZE / RATE)
    assert voltage.nwb.restrict(*span).sizes == voltage.sizes
    backwards = voltage.isel(time=slice(None, None, -1))
    assert (backwards.nwb.start, backwards.nwb.stop) == span
    assert (lick.nwb.start, lick.nwb.stop) == (LICK_TIMES[0], LICK_TIMES[-1])
    assert dataset[["lick", "voltage"]].nwb.start == min(START, LICK_TIMES[0])
    assert (opened(path, "events/stimuli").nwb.start, opened(path, "events/stimuli").nwb.stop) == (0.25, 9.0)
    trials = opened(path, "intervals/trials")
    assert (trials.nwb.start, trials.nwb.stop) == (0.0, 9.0)
    units = opened(path, "units")
    spikes = np.concatenate(SPIKES)
    assert (units.nwb.start, units.nwb.stop) == (spikes.min(), spikes.max())
    with pytest.raises(SelectionError, match="has no start and no stop"):
        opened(path, "general/extracellular_ephys/electrodes").nwb.stop  # noqa: B018 - reads


@pytest.mark.filterwarnings("ignore:.*intervals of .* have no start:intake_nwbzarr.errors.MappingWarning")
@pytest.mark.filterwarnings("ignore:.*events of .* have no time:intake_nwbzarr.errors.MappingWarning")
@pytest.mark.filterwarnings("ignore:.*intervals of .* start before:intake_nwbzarr.errors.MappingWarning")
def test_events_are_taken_as_nodes_dataframes_and_of_pynapple(path: Path) -> None:
    units = opened(path, "units").drop_vars("obs_intervals")
    trials, stimuli, lick = (
        opened(path, f"{each}") for each in ("intervals/trials", "events/stimuli", "acquisition/lick")
    )
    tree = xr.open_datatree(path, engine="nwbzarr")
    known = np.isfinite(EVENTS)
    some = trials.isel(trial=[0, 2, 4])
    forms: list[tuple[Any, Any]] = [
        (tree["intervals/trials"], STARTS),
        (trials.nwb.to_dataframe(), STARTS),
        (trials.nwb.intervals(), STARTS),
        (stimuli.nwb.to_dataframe(), EVENTS),
        (stimuli.nwb.to_pynapple(), np.sort(np.array(EVENTS)[known])),
        (lick, LICK_TIMES),
        (lick.nwb.to_dataframe(), LICK_TIMES),
        (lick.nwb.to_pynapple(), LICK_TIMES),
        (tree["acquisition/lick"], LICK_TIMES),
        (pynapple.Ts(np.array([1.0, 2.0])), [1.0, 2.0]),
        (pynapple.Tsd(np.array([1.0, 2.0]), np.array([5, 6])), [1.0, 2.0]),
        (
            pynapple.TsGroup({3: pynapple.Ts(np.array([1.0, 4.0])), 9: pynapple.Ts(np.array([2.0, 5.0]))}),
            [1, 2, 4, 5],
        ),
        (pynapple.IntervalSet([1.0, 3.0], [2.0, 4.0], metadata={"stim": ["l", "r"]}), [1.0, 3.0]),
        (some.nwb.to_dataframe().start_time, some.start_time),
    ]
    for events, expected in forms:
        aligned = units.nwb.align(events, (-0.5, 0.5), bin=0.25)
        wanted = units.nwb.align(np.asarray(expected), (-0.5, 0.5), bin=0.25)
        np.testing.assert_array_equal(aligned.spike_counts, wanted.spike_counts, str(type(events)))
    frame = units.nwb.align(trials.nwb.to_dataframe(), (0, 1), bin=0.5)
    assert frame.cue.values.tolist() == [*"abababa"]
    assert frame.spike_counts.groupby("cue").mean().sizes["cue"] == 2
    assert "tags" not in frame.variables  # ragged
    assert units.nwb.align(forms[-2][0], (0, 1), bin=0.5).stim.values.tolist() == ["l", "r"]
    assert units.nwb.align(forms[10][0], (0, 1), bin=0.5).value.values.tolist() == [5, 6]
    assert units.nwb.align(lick, (0, 1), bin=0.5).data.dims == ("event",)
    decoded = opened(path, "intervals/trials", decode_times=True).nwb.to_dataframe()
    np.testing.assert_array_equal(units.nwb.align(decoded, (0, 1), bin=0.5).spike_counts, frame.spike_counts)


def test_times_of_every_form_are_what_a_series_is_resampled_like(path: Path) -> None:
    voltage, lick = opened(path, "acquisition/voltage"), opened(path, "acquisition/lick")
    lick = lick.isel(time=np.unique(LICK_TIMES, return_index=True)[1])
    expected = voltage.nwb.resample_like(lick, "linear").data
    when = lick.time.values
    tree = xr.open_datatree(path, engine="nwbzarr")
    for other in (when, when.tolist(), lick.nwb.to_pynapple(), pynapple.Ts(when), lick.nwb.to_dataframe()):
        found = voltage.nwb.resample_like(other, "linear")
        assert found.data.dims == expected.dims
        np.testing.assert_array_equal(found.data, expected)
        np.testing.assert_array_equal(found.time, when)
    np.testing.assert_array_equal(
        lick.nwb.resample_like(tree["acquisition/voltage"], "nearest").data,
        lick.nwb.resample_like(voltage, "nearest").data,
    )


def test_what_cannot_be_counted_says_why(path: Path, dataset: xr.Dataset) -> None:
    with pytest.raises(OptionError, match=r"'(data|voltage)' is a series without timestamps"):
        opened(path, "acquisition/voltage").nwb.bin(1)
    with pytest.raises(OptionError, match="'voltage' is a series without timestamps"):
        dataset.nwb.bin(1, name="voltage")
    with pytest.raises(NodeNotFoundError, match="No 'licks' among the spikes, events"):
        dataset.nwb.bin(1, name="licks")
    without_units = dataset[["lick", "notes", "trials_start_time"]]
    with pytest.raises(OptionError, match=r"Pass name=, one of .*'lick'"):
        without_units.nwb.bin(1)
    with pytest.raises(OptionError, match="'stimuli' has no column by='colour' with one value per event"):
        dataset.nwb.bin(1, name="stimuli", by="colour")
    with pytest.raises(OptionError, match="by='quality' is not valid for units"):
        dataset.nwb.bin(1, by="quality")
    with pytest.raises(NodeNotFoundError, match="no spikes, events, intervals and timestamps"):
        opened(path, "general/extracellular_ephys/electrodes").nwb.bin(1)


def test_kinds_of_events_in_ragged_rows_are_counted_row_by_row() -> None:
    # As the AnnotatedEventsTable of the ndx-events extension has them.
    path = "processing/events/annotated"
    bounds = column(path, "event_times") | {
        "nwb_path": f"{path}/event_times_index",
        "ragged_values": f"{path}/event_times",
        "ragged_length": 5,
    }
    dataset = xr.Dataset(
        {
            "event_times_start": ("row", [0, 3], bounds | {"nwb_column": "event_times_start"}),
            "event_times_count": ("row", [3, 2], bounds | {"nwb_column": "event_times_count"}),
            "event_times": ("event_times_value", [0.1, 0.2, 1.5, 0.9, 1.0], column(path, "event_times")),
            "label": ("row", ["lick", "reward"], column(path, "label")),
        },
        {"row": ("row", [0, 1], column(path, "id"))},
        {"nwb_path": path},
    )
    binned = dataset.nwb.bin(1.0, stop=2)
    assert binned.event_counts.values.tolist() == [[2, 1], [1, 1]]
    assert binned.label.values.tolist() == ["lick", "reward"]
    around = dataset.nwb.align([1.0], (-0.5, 0.5), bin=0.5).event_counts
    assert around.values.tolist() == [[[0, 0]], [[1, 1]]]
    for part, expected in (
        (dataset.nwb.restrict(0.15, 1.0), [[0.2], [0.9]]),
        (dataset.nwb.restrict([[0, 0.15], [0.95, 2]]), [[0.1, 1.5], [1.0]]),
    ):
        assert [row.tolist() for row in part.nwb.ragged("event_times")] == expected
    assert dataset.nwb.label([[0.15, 0.95]]).epoch.fillna(-1).values.tolist() == [-1, 0, -1, 0, -1]
    assert (dataset.nwb.start, dataset.nwb.stop) == (0.1, 1.5)


def test_a_series_of_times_alone_is_counted_restricted_and_aligned_to() -> None:
    # As ndx-events' Events: timestamps, and nothing beside them; `event` is then a dimension already.
    attributes = {"nwb_path": "acquisition/licks/timestamps", "nwb_object": "acquisition/licks"}
    times = [0.5, 1.25, 1.5]
    alone = xr.Dataset(
        coords=IrregularTimeIndex.from_array(times, "event", "time", attributes).coordinates(),
        attrs={"nwb_path": "acquisition/licks"},
    )
    voltage = RegularTimeIndex.from_rate(0.0, 4.0, 12, "voltage_time")
    own = {"nwb_path": "acquisition/voltage", "neurodata_type": "TimeSeries"}
    flat = xr.Dataset({"voltage": ("voltage_time", np.arange(12), own)})
    flat = flat.assign_coords(voltage.coordinates()).assign_coords(
        IrregularTimeIndex.from_array(times, "licks_event", "licks_time", attributes).coordinates()
    )
    for dataset, name, prefix in ((alone, None, ""), (flat, "licks", "licks_")):
        counts = dataset.nwb.bin(1.0, stop=2, name=name)[f"{prefix}event_counts"]
        assert counts.values.tolist() == [1, 2]
        aligned = dataset.nwb.align([1.0], (-0.5, 0.5), bin=0.5, name=name)[f"{prefix}event_counts"]
        assert aligned.values.tolist() == [[1, 1]]
        assert dataset.nwb.restrict(1, 2, name=name)[f"{prefix}time"].values.tolist() == [1.25, 1.5]
    expected = flat.nwb.align(times, (0, 0.5), name="voltage").voltage.values
    for events in (alone, "licks"):
        around = flat.nwb.align(events, (0, 0.5), name="voltage").voltage
        assert around.dims == ("event", "lag")
        np.testing.assert_array_equal(around.values, expected)
