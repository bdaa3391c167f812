"""Of every type: tables, columns of every kind, behaviour, intervals, events and scratch data."""

import numpy as np
import pandas as pd
from hdmf.common import (
    AlignedDynamicTable,
    DynamicTable,
    DynamicTableRegion,
    MeaningsTable,
    VectorData,
    VectorIndex,
)
from pynwb import NWBFile, TimeSeries
from pynwb.behavior import (
    BehavioralEpochs,
    BehavioralEvents,
    BehavioralTimeSeries,
    CompassDirection,
    EyeTracking,
    Position,
    PupilTracking,
    SpatialSeries,
)
from pynwb.epoch import TimeIntervals
from pynwb.misc import IntervalSeries

_random = np.random.default_rng(4)
_TIMES = np.array([0.0, 0.5, 0.75, 2.0])


def add_tables(nwbfile: NWBFile) -> None:
    """Add behaviour, intervals of every kind, events, and tables with every kind of column."""
    _behavior(nwbfile)
    _intervals(nwbfile)
    _events(nwbfile)
    _columns(nwbfile)
    _scratch(nwbfile)


def _behavior(nwbfile: NWBFile) -> None:
    module = nwbfile.create_processing_module(name="behavior", description="what the animal did")
    place = SpatialSeries(
        name="place", data=_random.random((4, 2)), timestamps=_TIMES, reference_frame="corner", unit="meters"
    )
    head = SpatialSeries(
        name="head", data=_random.random(4), timestamps=place, reference_frame="north", unit="radians"
    )
    eye = SpatialSeries(name="eye", data=_random.random((4, 2)), rate=60.0, reference_frame="screen")
    running = TimeSeries(
        name="running", data=_random.random(4), unit="m/s", rate=10.0, continuity="continuous"
    )
    licks = TimeSeries(name="licks", data=np.ones(4, "int8"), unit="n.a.", timestamps=_TIMES)
    pupil = TimeSeries(name="diameter", data=_random.random(4), unit="mm", timestamps=_TIMES)
    sleep = IntervalSeries(name="sleep", data=np.array([1, -1, 2, -2], "int8"), timestamps=_TIMES)
    for interface in (
        Position(spatial_series=place),
        CompassDirection(spatial_series=head),
        EyeTracking(spatial_series=eye),
        PupilTracking(time_series=pupil),
        BehavioralTimeSeries(time_series=running),
        BehavioralEvents(time_series=licks),
        BehavioralEpochs(interval_series=sleep),
    ):
        module.add(interface)


def _intervals(nwbfile: NWBFile) -> None:
    series = [nwbfile.acquisition["owner"], nwbfile.acquisition["regular"]]
    nwbfile.add_trial_column(name="correct", description="whether it went well")
    nwbfile.add_trial_column(name="cue_start_time", description="missing where there was none")
    nwbfile.add_trial_column(name="choices", description="in order", index=True)
    for number in range(3):
        nwbfile.add_trial(
            start_time=number + 0.1,
            stop_time=number + 0.6,
            tags=[["a", "b"], [], ["c"]][number],
            timeseries=series[min(number, 1) :],
            correct=number != 1,
            cue_start_time=np.nan if number == 1 else number + 0.2,
            choices=list(range(number)),
        )
    nwbfile.add_epoch(start_time=0.0, stop_time=1.0, tags=["baseline"], timeseries=[series[0]])
    nwbfile.add_epoch(start_time=1.0, stop_time=1.5, tags=["task", "late"], timeseries=series)
    nwbfile.add_invalid_time_interval(start_time=0.2, stop_time=0.3, tags=["artefact"])
    ripples = TimeIntervals(name="sleep_ripples", description="by threshold")
    ripples.add_column(name="peak", description="in microvolts")
    for start in (0.25, 0.5):
        ripples.add_interval(start_time=start, stop_time=start + 0.05, peak=start * 100)
    nwbfile.add_time_intervals(ripples)
    nwbfile.add_time_intervals(TimeIntervals(name="none", description="without rows"))


def _events(nwbfile: NWBFile) -> None:
    stimuli = nwbfile.create_events_table(
        name="stimuli", description="onsets, not in order", source_description="photodiode"
    )
    stimuli.add_column(name="stimulus", description="its number")
    for timestamp, duration, note, stimulus in (
        (2.0, 0.5, "long", 1),
        (1.0, np.nan, "", 0),
        (3.0, 0.25, "short", 1),
    ):
        stimuli.add_event(timestamp=timestamp, duration=duration, annotation=note, stimulus=stimulus)
    stimuli["timestamp"].resolution = 1e-4
    stimuli["duration"].resolution = 1e-3
    meanings = MeaningsTable(target=stimuli["stimulus"], description="what the numbers mean")
    meanings.add_column(name="frequency", description="in Hz")
    meanings.add_row(value=0, meaning="low tone", frequency=400.0)
    meanings.add_row(value=1, meaning="high tone", frequency=4000.0)
    stimuli.add_meanings_table(meanings)


def _columns(nwbfile: NWBFile) -> None:
    """One table with every kind of column, and one of aligned categories."""
    rows = 3
    table = DynamicTable(
        name="columns",
        description="of every kind",
        columns=[
            VectorData(name="number", description="a number", data=np.arange(rows, dtype="int8")),
            VectorData(name="text", description="a text", data=["x", "", "z"]),
            VectorData(name="flag", description="true or false", data=[True, False, True]),
            VectorData(name="vector", description="two numbers", data=_random.random((rows, 2))),
            VectorData(name="cube", description="more axes", data=_random.random((rows, 2, 3))),
            VectorData(name="when", description="times as text", data=["2024-05-01T12:00:00+00:00"] * rows),
        ],
    )
    table.add_column(name="kind", description="one of a few", data=[0, 1, 0], enum=["wake", "sleep"])
    table.add_column(
        name="trial",
        description="rows of trials",
        table=nwbfile.trials,
        data=[2, 0, 1],
    )
    table.add_column(
        name="some units", description="rows of units", table=nwbfile.units, index=[1, 1, 3], data=[0, 1, 2]
    )
    table.add_column(
        name="owner",
        description="objects",
        data=[nwbfile.devices["probe"], nwbfile.devices["camera"], nwbfile.acquisition["owner"]],
    )
    nwbfile.add_analysis(table)
    _aligned(nwbfile)
    nested = DynamicTable(name="nested", description="ragged in ragged in ragged")
    nested.add_column(name="deep", description="two levels", index=2)
    nested.add_column(name="deepest", description="three levels", index=3)
    nested.add_row(deep=[[1.0, 2.0], [], [3.0]], deepest=[[[1], [2, 3]], [[4]]])
    nested.add_row(deep=[], deepest=[[[5, 6, 7]]])
    nested.add_row(deep=[[4.0]], deepest=[[[], [8]], [[9]]])
    nwbfile.add_analysis(nested)
    shared = VectorData(name="values", description="their own", data=[1.0, 2.0, 3.0])
    index = VectorIndex(name="values_index", target=shared, data=np.array([2, 3], "uint8"))
    nwbfile.add_analysis(
        DynamicTable(name="ready-made", description="columns given", columns=[index, shared], id=[7, 5])
    )


def _aligned(nwbfile: NWBFile) -> None:
    left = DynamicTable(name="left", description="a category", id=[0, 1])
    left.add_column(name="count", description="of things", data=[1, 2])
    left.add_column(name="names", description="ragged", data=["a", "b", "c"], index=[2, 3])
    right = DynamicTable(name="right side", description="another", id=[8, 9])
    right.add_column(name="count", description="of other things", data=[3.0, 4.0])
    right.add_column(name="trial", description="rows", data=[0, 2], table=nwbfile.trials)
    aligned = AlignedDynamicTable(
        name="aligned", description="two categories", category_tables=[left, right], id=[4, 3]
    )
    aligned.add_column(name="main", description="of no category", data=[5, 6])
    nwbfile.add_analysis(aligned)


def _scratch(nwbfile: NWBFile) -> None:
    nwbfile.add_scratch(_random.random((3, 4)), name="an array", description="of numbers")
    nwbfile.add_scratch("just a text", name="a text", description="a note")
    nwbfile.add_scratch(42, name="a number", description="a scalar")
    nwbfile.add_scratch(["a", "b", "c"], name="texts", description="a list")
    nwbfile.add_scratch(
        pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), name="a table", description="from pandas"
    )
    nwbfile.add_scratch(TimeSeries(name="a series", data=_random.random(4), unit="V", rate=5.0))
    region = DynamicTable(name="regions", description="a region alone", id=[0, 1])
    region.add_column(
        name="row",
        description="of the electrodes",
        data=[3, 3],
        col_cls=DynamicTableRegion,
        table=nwbfile.electrodes,
    )
    nwbfile.add_scratch(region)
