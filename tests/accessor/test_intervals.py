"""`ds.nwb.intervals`: those of IntervalSeries, compared with a walk through the changes, and of tables."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pynwb.misc import IntervalSeries

from intake_nwbzarr.accessor.dataframe import paired
from intake_nwbzarr.errors import MappingWarning, NodeNotFoundError, OptionError, SelectionError
from tests.session_files import empty_session, rewrite, write

changes = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 12)), max_size=25)


@settings(max_examples=200, deadline=None)
@given(changes=changes)
def test_starts_and_ends_are_paired_as_a_walk_through_time_does(changes: list[tuple[int, int]]) -> None:
    codes = np.array([code for code, _ in changes], np.int64)
    times = np.array([time for _, time in changes], np.float64)
    expected: list[list[int]] = []
    running: dict[int, list[int]] = {}
    for place in sorted(range(len(changes)), key=lambda place: changes[place][1]):
        code = changes[place][0]
        if code > 0:
            running[code] = [place, -1, code]
            expected.append(running[code])
        elif code < 0 and -code in running:
            running.pop(-code)[1] = place
        elif code < 0:
            expected.append([-1, place, -code])
    assert [
        list(each) for each in zip(*(part.tolist() for part in paired(codes, times)), strict=True)
    ] == expected


def rows(frame: Any) -> list[list[Any]]:
    return [[None if each != each else each for each in row] for row in frame.to_numpy().tolist()]


def test_kinds_of_intervals_may_overlap(dataset: xr.Dataset, path: Path) -> None:
    frame = dataset.nwb.intervals("on_off")
    assert frame.columns.tolist() == ["start_time", "stop_time", "code"]
    assert rows(frame) == [[1.0, 3.0, 1], [2.0, 4.0, 2], [5.0, None, 1]]
    alone = xr.open_dataset(path, engine="nwbzarr", group="acquisition/on_off")
    assert alone.nwb.intervals().equals(frame)


def test_intervals_that_a_selection_cuts_have_one_end(dataset: xr.Dataset) -> None:
    assert rows(dataset.nwb.restrict(1.5, 3.5).nwb.intervals("on_off")) == [[2.0, None, 2], [None, 3.0, 1]]


def test_a_table_gives_its_times_first_and_no_ragged_column(dataset: xr.Dataset) -> None:
    frame = dataset.nwb.intervals("trials")
    assert frame.columns.tolist() == ["start_time", "stop_time", "cue"]
    assert frame.index.tolist() == list(range(7))
    assert rows(frame)[4:6] == [[6.0, None, "a"], [None, 7.0, "b"]]


def test_decoded_times_are_datetimes(path: Path) -> None:
    decoded = xr.open_dataset(path, engine="nwbzarr", decode_times=True).nwb.intervals("on_off")
    start = np.datetime64("2024-05-01T12:00:00", "ns")
    assert ((decoded.start_time - start).dt.total_seconds()).tolist() == [1.0, 2.0, 5.0]
    assert decoded.stop_time.isna().tolist() == [False, False, True]


def test_others_and_several_are_refused_by_name(dataset: xr.Dataset) -> None:
    with pytest.raises(OptionError, match="Pass name=, one of 'on_off', 'trials'"):
        dataset.nwb.intervals()
    with pytest.raises(NodeNotFoundError, match=r"No 'trial' among the tables of intervals.*'trials'"):
        dataset.nwb.intervals("trial")
    with pytest.raises(NodeNotFoundError, match="No 'voltage' among the tables of intervals"):
        dataset.nwb.intervals("voltage")
    with pytest.raises(SelectionError, match="The times of 'acquisition/on_off' are not in this Dataset"):
        dataset.drop_indexes("on_off_time").drop_vars("on_off_time").nwb.intervals("on_off")


def on_off(folder: Path, codes: list[int]) -> Path:
    nwbfile = empty_session()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is deprecated")
        nwbfile.add_acquisition(
            IntervalSeries(name="s", data=np.array(codes, "int8"), timestamps=np.arange(len(codes)) / 2)
        )
    return write(folder, nwbfile)


def test_the_smallest_code_has_its_counterpart(tmp_path: Path) -> None:
    path = on_off(tmp_path, [127, -128, -127])
    frame = xr.open_dataset(path, engine="nwbzarr").nwb.intervals()
    assert rows(frame) == [[0.0, 1.0, 127], [None, 0.5, 128]]


def test_zeros_are_left_out_with_a_warning(tmp_path: Path) -> None:
    dataset = xr.open_dataset(on_off(tmp_path, [1, 0, -1]), engine="nwbzarr")
    with pytest.warns(MappingWarning, match="1 values of 'acquisition/s' are 0"):
        frame = dataset.nwb.intervals()
    assert rows(frame) == [[0.0, 1.0, 1]]


def test_an_empty_series_has_no_intervals(tmp_path: Path) -> None:
    frame = xr.open_dataset(on_off(tmp_path, []), engine="nwbzarr").nwb.intervals()
    assert frame.shape == (0, 3)


def test_changes_without_a_time_and_values_that_are_no_codes_are_errors(tmp_path: Path) -> None:
    path = on_off(tmp_path, [1, -1])
    rewrite(path, "acquisition/s/timestamps", np.array([0.0, np.nan]))
    with pytest.raises(SelectionError, match="Some changes of 'acquisition/s' have no time"):
        xr.open_dataset(path, engine="nwbzarr").nwb.intervals()
    rewrite(path, "acquisition/s/data", np.array([0.5, -1]))
    with pytest.raises(SelectionError, match="float64 values of 'acquisition/s' are not all integers"):
        xr.open_dataset(path, engine="nwbzarr").nwb.intervals()
