"""Ragged columns: each row's own values, after any selection of rows, and nothing else read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr import track_requests
from intake_nwbzarr.accessor.ragged import RaggedColumn, read_rows, run_positions
from intake_nwbzarr.errors import BoundsError, NodeNotFoundError, OptionError, SelectionError
from tests.accessor.peri_event_session import TAGS, TRAINS, UNITS, waveforms
from tests.session_files import empty_session, write


def test_each_row_has_its_own_values(units: xr.Dataset) -> None:
    column = units.nwb.ragged("spike_times")
    assert len(column) == len(UNITS)
    for row, train in zip(column, TRAINS, strict=True):
        np.testing.assert_array_equal(row, train)
    np.testing.assert_array_equal(column[-1], TRAINS[-1])
    assert [list(tags) for tags in units.nwb.ragged("tags")] == TAGS
    assert repr(column) == "<RaggedColumn 'spike_times' of 5 rows, float64>"


def test_a_part_of_the_rows_is_a_column_too(units: xr.Dataset) -> None:
    part = units.nwb.ragged("spike_times")[3::-2]
    assert [len(row) for row in part] == [len(TRAINS[3]), len(TRAINS[1])]


def test_a_row_outside_is_an_index_error(units: xr.Dataset) -> None:
    column = units.nwb.ragged("spike_times")
    for row in (5, -6):
        with pytest.raises(BoundsError, match=f"Row {row} is outside of the 5 rows of 'spike_times'"):
            column[row]


def test_doubly_ragged_rows_are_rows_of_rows(units: xr.Dataset) -> None:
    column = units.nwb.ragged("waveforms")
    for row, of_unit in zip(column, waveforms(), strict=True):
        assert isinstance(row, RaggedColumn)
        assert len(row) == len(of_unit)
        for inner, expected in zip(row, of_unit, strict=True):
            np.testing.assert_array_equal(inner, expected)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(0, 4), max_size=8))
def test_any_selection_of_rows_finds_its_values(rows: list[int], session: Path) -> None:
    selected = xr.open_dataset(session, engine="nwbzarr", group="units").isel(unit=rows)
    column = selected.nwb.ragged("spike_times")
    assert len(column) == len(rows)
    for values, row in zip(column, rows, strict=True):
        np.testing.assert_array_equal(values, TRAINS[row])
    for position, row in enumerate(rows):
        np.testing.assert_array_equal(column[position], TRAINS[row])
        found = [len(inner) for inner in selected.nwb.ragged("waveforms")[position]]
        assert found == [len(inner) for inner in waveforms()[row]]


def test_selections_by_label_mask_and_scalar_find_their_values(units: xr.Dataset) -> None:
    for selected, rows in (
        (units.sel(unit=[40, 6]), [4, 0]),
        (units.isel(unit=units.quality.values == "good"), [1, 3]),
        (units.isel(unit=2), [2]),
        (units.sortby("unit"), [0, 3, 4, 1, 2]),
        (units.chunk(), [0, 1, 2, 3, 4]),
    ):
        found = list(selected.nwb.ragged("spike_times"))
        for values, row in zip(found, rows, strict=True):
            np.testing.assert_array_equal(values, TRAINS[row])


def test_the_flat_view_finds_a_column_by_both_of_its_names(session: Path) -> None:
    flat = xr.open_dataset(session, engine="nwbzarr").isel(units=[2, 0])
    for name in ("units_spike_times", "spike_times"):
        np.testing.assert_array_equal(flat.nwb.ragged(name)[0], TRAINS[2])
    assert [len(notes) for notes in flat.nwb.ragged("notes")] == [2, 3, 4, 9, 15]
    np.testing.assert_array_equal(flat.nwb.spike_times(206), TRAINS[2])


def test_variables_of_one_column_are_told_apart(corpus_dir: Callable[[str, str], Path]) -> None:
    path = corpus_dir("ecephys", "0.14.0")
    flat = xr.open_dataset(path, engine="nwbzarr")
    assert flat.nwb.ragged("electrodes").name == "units_electrodes"
    assert flat.nwb.ragged("electrodes_id").name == "units_electrodes_id"
    assert len(flat.nwb.ragged("timeseries_path")) == 10
    trials = xr.open_dataset(path, engine="nwbzarr", group="intervals/trials")
    with pytest.raises(NodeNotFoundError, match=r"Pass one of 'timeseries_sample_start'"):
        trials.nwb.ragged("timeseries")


def test_a_unit_is_found_by_its_id(units: xr.Dataset) -> None:
    for unit, train in zip(UNITS, TRAINS, strict=True):
        np.testing.assert_array_equal(units.nwb.spike_times(unit), train)
    np.testing.assert_array_equal(units.sel(unit=206).nwb.spike_times(206), TRAINS[2])
    with pytest.raises(
        NodeNotFoundError, match="No unit 0 in this Dataset; the ids of its 5 units are 6, 191, 206, 7, 40"
    ):
        units.nwb.spike_times(0)
    with pytest.raises(SelectionError, match=r"2 units have the id 7, in the rows \[0, 1\]"):
        units.isel(unit=[3, 3]).nwb.spike_times(7)
    with pytest.raises(NodeNotFoundError, match="have no ids in this Dataset"):
        units.drop_vars("unit").nwb.spike_times(7)


def test_selecting_along_the_values_is_detected(units: xr.Dataset) -> None:
    with pytest.raises(SelectionError, match=r"50 of 555 values are left along 'spike'.*Select rows instead"):
        units.isel(spike=slice(50)).nwb.ragged("spike_times")
    with pytest.raises(SelectionError, match="1 of 555 values"):
        units.isel(spike=0).nwb.spike_times(6)
    with pytest.raises(SelectionError, match="along 'waveform_event'"):
        units.isel(waveform_event=slice(1, None)).nwb.ragged("waveforms")
    assert len(units.isel(spike=slice(50)).nwb.ragged("tags")) == 5  # others are not concerned


def test_rows_that_alignment_made_up_are_detected(units: xr.Dataset) -> None:
    with pytest.raises(SelectionError, match="1 of 2 rows have no 'spike_times_count'"):
        list(units.reindex(unit=[6, 7000]).nwb.ragged("spike_times"))


def test_bounds_of_other_values_are_detected(units: xr.Dataset) -> None:
    wrong = units.assign(spike_times_start=units.spike_times_start + 100)
    with pytest.raises(SelectionError, match="outside of the 555 values"):
        wrong.nwb.ragged("spike_times")[0]


def test_columns_that_are_not_there_or_not_ragged_say_which_are(units: xr.Dataset) -> None:
    with pytest.raises(
        NodeNotFoundError, match=r"No ragged column 'spikes'.*'obs_intervals', 'spike_times', 'tags'"
    ):
        units.nwb.ragged("spikes")
    with pytest.raises(NodeNotFoundError, match="'quality' is not a ragged column"):
        units.nwb.ragged("quality")
    with pytest.raises(NodeNotFoundError, match="'_start' and '_count' are not in this Dataset"):
        units[["spike_times"]].nwb.ragged("spike_times")
    with pytest.raises(NodeNotFoundError, match="of which the '_start' is not in this Dataset"):
        units.drop_vars("spike_times_start").nwb.ragged("spike_times")
    with pytest.raises(NodeNotFoundError, match="of which the '_count' is not in this Dataset"):
        units.drop_vars("spike_times_count").nwb.ragged("spike_times")


def test_one_row_reads_the_chunks_it_lies_in_and_no_others(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for unit in range(20):
        nwbfile.add_unit(spike_times=np.arange(100) + unit / 100)
    path = write(tmp_path, nwbfile)
    group = zarr.open_group(path, mode="r+", use_consolidated=False)["units"]
    assert isinstance(group, zarr.Group)
    data, attributes = group["spike_times"][...], dict(group["spike_times"].attrs)
    group.create_array(
        "spike_times", data=data, chunks=(100,), compressors=None, overwrite=True, attributes=attributes
    )
    zarr.consolidate_metadata(str(path))
    units = xr.open_dataset(path, engine="nwbzarr", group="units")
    column = units.isel(unit=[7, 3]).nwb.ragged("spike_times")
    column.bounds()
    with track_requests() as log:
        np.testing.assert_array_equal(column[1], np.arange(100) + 0.03)
    assert (log.requests, log.bytes) == (1, 800)
    with track_requests() as log:
        assert len(list(column)) == 2
    assert (log.requests, log.bytes) == (2, 1600)


@given(rows=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=8))
def test_runs_are_their_positions_one_after_the_other(rows: list[tuple[int, int]]) -> None:
    starts, counts = np.array(rows, int).reshape(-1, 2).T
    expected = [start + offset for start, count in rows for offset in range(count)]
    positions: Any = run_positions(starts, counts)
    assert np.arange(60)[positions].tolist() == expected


@pytest.mark.parametrize("name", [None, 3, ["spike_times"]])
def test_a_name_that_is_no_text_is_refused(units: xr.Dataset, name: Any) -> None:
    with pytest.raises(OptionError, match=r"name must be the name of a ragged column, not"):
        units.nwb.ragged(name)


@pytest.mark.parametrize("unit", [[6, 191], np.array([6]), None, True, {6}])
def test_what_is_no_id_of_one_unit_is_refused(units: xr.Dataset, unit: Any) -> None:
    with pytest.raises(OptionError, match=r"unit must be the id of one unit, not"):
        units.nwb.spike_times(unit)
    np.testing.assert_array_equal(units.nwb.spike_times(units.unit[0]), TRAINS[0])


@pytest.mark.parametrize("group", [None, "units"])
def test_values_of_all_rows_say_so_and_name_the_call_that_gives_one_row(
    session: Path, group: str | None
) -> None:
    dataset = xr.open_dataset(session, engine="nwbzarr", group=group)
    one = dataset.isel({"units" if group is None else "unit": [2]})
    ragged = {name: each.attrs["comment"] for name, each in one.variables.items() if "comment" in each.attrs}
    prefix = "units_" if group is None else ""
    assert {name for name in ragged if name.startswith(prefix)} == {
        f"{prefix}{column}" for column in ("spike_times", "obs_intervals", "waveforms", "tags")
    }
    assert "ds.nwb.spike_times(id) gives those of one unit" in ragged[f"{prefix}spike_times"]
    np.testing.assert_array_equal(one.nwb.spike_times(UNITS[2]), TRAINS[2])
    assert "ds.nwb.ragged('tags')[i] gives those of row i" in ragged[f"{prefix}tags"]
    assert one.nwb.ragged("tags")[0].tolist() == TAGS[2]
    assert "ds.nwb.to_dataframe('units') has a cell for each" in ragged[f"{prefix}tags"]
    assert one.nwb.to_dataframe("units").tags.tolist()[0].tolist() == TAGS[2]


@given(rows=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=8))
def test_rows_in_any_order_have_their_values(rows: list[tuple[int, int]]) -> None:
    starts, counts = np.array(rows, int).reshape(-1, 2).T
    values = xr.Variable(("value", "axis"), np.arange(120).reshape(60, 2))
    found = read_rows(values, starts, counts)
    assert len(found) == len(rows)
    for each, (start, count) in zip(found, rows, strict=True):
        np.testing.assert_array_equal(each, values.values[start : start + count])


def test_rows_are_read_in_the_order_of_storage(units: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intake_nwbzarr.accessor.ragged._BATCH", 8 * 100)  # a few rows at once
    chosen = [4, 0, 2, 1, 3]
    column = units.isel(unit=chosen).nwb.ragged("spike_times")
    read = list(column.read_each())
    starts, _ = column.bounds()
    assert sorted(position for position, _ in read) == [0, 1, 2, 3, 4]
    assert [starts[position] for position, _ in read] == sorted(starts)
    for position, values in read:
        np.testing.assert_array_equal(values, TRAINS[chosen[position]])
    for row, of_unit in zip(units.isel(unit=chosen).nwb.ragged("waveforms").read(), chosen, strict=True):
        for inner, expected in zip(row, waveforms()[of_unit], strict=True):
            np.testing.assert_array_equal(inner, expected)
