"""What a Dataset shows: whose each variable is, whatever things are called."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hdmf.common import DynamicTable, VectorData
from pynwb import TimeSeries
from pynwb.epoch import TimeIntervals

from tests.mapping.extension_files import extension_files
from tests.session_files import empty_session, write

TRIALS, STARTS = [(0.0, 0.5), (1.0, 1.5)], [(0.0, 0.5), (1.0, 1.5), (2.0, 3.0)]


@pytest.fixture(scope="module")
def confusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Series called as their parts are, tables whose names and columns' names run into one another."""
    nwbfile = empty_session()
    for name in ("id", "times", "timestamps", "starting_time", "time"):
        nwbfile.add_acquisition(TimeSeries(name=name, data=np.arange(5.0), unit="V", rate=10.0))
    module = nwbfile.create_processing_module("a", "d")
    b_c = VectorData(name="b_c", description="d", data=[1, 2])
    c = [VectorData(name=name, description="d", data=data) for name, data in (("c", [3, 4]), ("c_", [5, 6]))]
    module.add(DynamicTable(name="a", description="d", columns=[b_c]))
    module.add(DynamicTable(name="a_b", description="d", columns=c))
    for name, rows in (("trial", TRIALS), ("trial_start", STARTS)):
        table = TimeIntervals(name=name, description="d")
        for start, stop in rows:
            table.add_interval(start_time=start, stop_time=stop)
        nwbfile.add_time_intervals(table)
    for spikes in ([1.0, 2.0], [3.0]):
        nwbfile.add_unit(spike_times=spikes)
    return write(tmp_path_factory.mktemp("contents"), nwbfile)


@pytest.mark.parametrize("names", ["short", "path", "safe"])
def test_objects_are_told_apart_whatever_they_are_called(confusing: Path, names: str) -> None:
    dataset = xr.open_dataset(confusing, engine="nwbzarr", names=names)
    frame = dataset.nwb.describe()
    for name in ("id", "times", "timestamps", "starting_time", "time"):
        row = frame.loc[f"acquisition/{name}"]
        assert (row.type, row["shape"], row.rate) == ("TimeSeries", (5,), 10.0)
        assert dataset.nwb.to_dataframe(f"acquisition/{name}").iloc[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert len(frame) == 10
    assert dataset.nwb.to_dataframe("processing/a/a").to_dict("list") == {"b_c": [1, 2]}
    assert dataset.nwb.to_dataframe("processing/a/a_b").to_dict("list") == {"c": [3, 4], "c_": [5, 6]}
    for name, rows in (("trial", TRIALS), ("trial_start", STARTS)):
        found = dataset.nwb.intervals(f"intervals/{name}")
        assert list(found.itertuples(index=False, name=None)) == rows


def test_renamed_variables_are_still_their_tables(confusing: Path) -> None:
    dataset = xr.open_dataset(confusing, engine="nwbzarr").rename(
        units_spike_times_start="first",
        units_spike_times_count="number",
        units_spike_times="spikes",
        units="cell",
        trial_start_time="on",
        trial_stop_time="off",
    )
    assert dataset.nwb.describe().loc["units", "dims"] == ("cell",)
    assert [spikes.tolist() for spikes in dataset.nwb.to_dataframe("units").spike_times] == [[1, 2], [3]]
    np.testing.assert_array_equal(dataset.nwb.spike_times(1), [3.0])
    assert dataset.nwb.intervals("intervals/trial").stop_time.tolist() == [0.5, 1.5]


def test_what_a_saved_and_merged_dataset_shows_is_the_same(confusing: Path, tmp_path: Path) -> None:
    dataset = xr.open_dataset(confusing, engine="nwbzarr", names="safe")
    expected = dataset.nwb.describe().drop(columns="rate")
    dataset.to_netcdf(tmp_path / "saved.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "saved.nc", engine="netcdf4") as saved:
        found = saved.nwb.describe()
    assert found.name.to_dict() == expected.name.to_dict()
    assert found.type.to_dict() == expected.type.to_dict()
    merged = xr.merge([dataset[list(dataset.data_vars)[half::2]] for half in (0, 1)], join="exact")
    assert merged.nwb.describe().name.to_dict() == expected.name.to_dict()


@pytest.mark.slow
def test_series_in_a_container_that_has_arrays_are_objects_of_their_own(tmp_path: Path) -> None:
    pose = extension_files(tmp_path, "pose")["pose"]
    container = "processing/behavior/PoseEstimation"
    for group in (None, container):
        dataset = xr.open_dataset(pose, engine="nwbzarr", group=group)
        frame = dataset.nwb.describe()
        for name in ("nose", "tail"):
            row = frame.loc[f"{container}/{name}"]
            assert (row.type, row["name"], row["shape"]) == ("PoseEstimationSeries", name, (3, 2))
            assert {name, f"{name}_confidence"} <= set(row.variables)
            assert dataset.nwb.to_dataframe(name).shape == (3, 2)
            assert dataset.nwb.to_pynapple(name).shape == (3, 2)
        assert "dimensions" in "".join(frame.loc[container, "variables"])
        with warnings.catch_warnings(action="error"):
            assert dataset.nwb.restrict(0.05, 0.2)[f"{name}_confidence"].values.tolist() == [0.5]


WRITTEN = ("nwb_object", "nwb_role", "nwb_column", "nwb_table", "nwb_core_type", "ragged_bound")


def test_every_variable_says_what_it_is_of_its_object(confusing: Path) -> None:
    flat = xr.open_dataset(confusing, engine="nwbzarr")
    said = {
        str(name): {key: variable.attrs.get(key) for key in WRITTEN if key in variable.attrs}
        for name, variable in flat.variables.items()
    }
    units = {"nwb_object": "units", "nwb_table": "units"}
    assert said["units"] == {**units, "nwb_column": "id"}
    for bound in ("start", "count"):
        column = {"nwb_column": f"spike_times_{bound}", "ragged_bound": bound}
        assert said[f"units_spike_times_{bound}"] == {**units, **column}
    assert said["units_spike_times"] == {"nwb_object": "units", "nwb_column": "spike_times"}
    assert said["times"] == {"nwb_role": "data"}
    assert said["acquisition_time"]["nwb_role"] == "time"
    assert said["trial_start_start_time"]["nwb_table"] == "trial_start"


def test_a_dataset_that_release_0_1_saved_still_has_its_rows_and_times(
    confusing: Path, tmp_path: Path
) -> None:
    flat = xr.open_dataset(confusing, engine="nwbzarr", names="safe")
    for variable in flat.variables.values():
        for name in WRITTEN:
            variable.attrs.pop(name, None)
    flat.to_netcdf(tmp_path / "saved.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "saved.nc", engine="netcdf4") as saved:
        assert [spikes.tolist() for spikes in saved.nwb.ragged("spike_times")] == [[1, 2], [3]]
        assert saved.nwb.spike_times(1).tolist() == [3]
        assert saved.nwb.bin(1.0, stop=4).units_spike_counts.values.tolist() == [[0, 1, 1, 0], [0, 0, 0, 1]]
        assert saved.isel(units=[1]).nwb.compact().units_spike_times.values.tolist() == [3]
        series = saved[["times"]]
        np.testing.assert_array_equal(series.nwb.align([0.2], (0, 0.2)).times, [[2, 3]])
        assert (series.nwb.start, series.nwb.stop) == (0, 0.5)


@pytest.mark.slow
def test_the_core_type_of_an_extension_is_known_wherever_the_dataset_goes(tmp_path: Path) -> None:
    pose = extension_files(tmp_path, "pose")["pose"]
    xr.open_dataset(pose, engine="nwbzarr", names="safe")[["nose"]].to_netcdf(tmp_path / "saved.nc")
    with xr.open_dataset(tmp_path / "saved.nc") as saved:
        assert saved.nose.attrs["nwb_core_type"] == "SpatialSeries"
        assert saved.nwb.to_dataframe("nose").shape == (3, 2)
        assert saved.nwb.restrict(0.05, 0.2, name="nose").sizes["nose_time"] == 1
