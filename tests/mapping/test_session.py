"""Sessions and containers: what is found, shared, linked from other files, and never lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pynwb import NWBFile, TimeSeries
from pynwb.behavior import Position, SpatialSeries
from pynwb.ophys import Fluorescence

from intake_nwbzarr.errors import ChunkError, LimitError, MappingWarning, MetadataError
from tests.session_files import edit, empty_session, opened, write


def positions(*shifts: float) -> NWBFile:
    """A Position of series with timestamps of their own, equal where their shifts are."""
    nwbfile = empty_session()
    module = nwbfile.create_processing_module("behavior", "d")
    module.add(
        Position(
            spatial_series=[
                SpatialSeries(
                    name=f"led{number}",
                    data=np.full((4, 2), number),
                    timestamps=np.arange(4.0) + shift,
                    reference_frame="corner",
                )
                for number, shift in enumerate(shifts)
            ]
        )
    )
    return nwbfile


def test_equal_timestamps_that_nothing_links_stay_apart_by_default(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, positions(0.0, 0.0)), group="processing/behavior/Position")
    assert dataset["led0"].dims == ("led0_time", "led0_axis")
    assert dataset["led1"].dims == ("led1_time", "led1_axis")


def test_equal_timestamps_share_on_request(tmp_path: Path) -> None:
    path = write(tmp_path, positions(0.0, 0.0, 0.5))
    dataset = opened(path, group="processing/behavior/Position", share_time=True)
    assert dataset["led1"].dims[0] == dataset["led0"].dims[0] == "led0_time"
    assert dataset["led2"].dims[0] == "led2_time"
    np.testing.assert_array_equal(dataset["led2_time"].values, [0.5, 1.5, 2.5, 3.5])


def test_a_container_whose_timestamps_turn_out_equal_has_plain_time(tmp_path: Path) -> None:
    path = write(tmp_path, positions(0.0, 0.0))
    dataset = opened(path, group="processing/behavior/Position", share_time=True)
    assert dataset["led0"].dims[0] == dataset["led1"].dims[0] == "time"


def test_a_time_shared_in_a_container_is_named_for_it(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for name in ("dz", "speed"):
        nwbfile.add_acquisition(TimeSeries(name=name, data=[1.0, 2.0], unit="m", rate=10.0))
    for name in ("late", "later"):
        nwbfile.add_stimulus(TimeSeries(name=name, data=[1.0, 2.0], unit="m", rate=10.0, starting_time=9.0))
    dataset = opened(write(tmp_path, nwbfile))
    assert dataset["dz"].dims == dataset["speed"].dims == ("acquisition_time",)
    assert dataset["late"].dims == dataset["later"].dims == ("presentation_time",)


def test_equal_times_of_different_containers_stay_apart(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="one", data=[1.0, 2.0], unit="m", rate=10.0))
    nwbfile.add_stimulus(TimeSeries(name="other", data=[1.0, 2.0], unit="m", rate=10.0))
    dataset = opened(write(tmp_path, nwbfile))
    assert dataset["one"].dims != dataset["other"].dims


def test_a_variable_never_takes_the_name_of_a_dimension(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="time", data=[1.0, 2.0], unit="m", rate=10.0))
    nwbfile.add_acquisition(TimeSeries(name="a", data=[1.0, 2.0], unit="m", rate=5.0))
    nwbfile.add_acquisition(TimeSeries(name="a_time", data=[1.0, 2.0], unit="m", rate=2.0))
    path = write(tmp_path, nwbfile)
    for dataset in (opened(path), opened(path, group="acquisition")):
        assert not set(dataset.data_vars) & set(dataset.dims)
        assert len(dataset.data_vars) == 3


def test_a_container_gives_what_it_holds_by_link(tmp_path: Path) -> None:
    path = write(tmp_path, positions(0.0))
    links = [{"name": "led0", "source": ".", "path": "/processing/behavior/Position/led0"}]
    edit(path, "stimulus/presentation", lambda document: document["attributes"].update(_LINKS=links))
    linked = opened(path, group="stimulus/presentation")
    assert linked["led0"].attrs["nwb_path"] == "processing/behavior/Position/led0"
    assert opened(path, group="stimulus/presentation/led0")["data"].dims == ("time", "axis")
    # In the whole session it is there once.
    assert list(opened(path).data_vars) == ["led0"]


def test_series_of_another_file_are_part_of_the_session(tmp_path: Path) -> None:
    raw = empty_session()
    raw.add_acquisition(TimeSeries(name="raw", data=[1.0, 2.0], unit="m", rate=10.0))
    write(tmp_path, raw, "raw.nwb.zarr")
    path = write(tmp_path, empty_session(), "processed.nwb.zarr")
    links = [{"name": "raw", "source": "../raw.nwb.zarr", "path": "/acquisition/raw"}]
    edit(path, "acquisition", lambda document: document["attributes"].update(_LINKS=links))
    dataset = opened(path)
    np.testing.assert_array_equal(dataset["raw"].values, [1.0, 2.0])
    np.testing.assert_array_equal(opened(path, group="acquisition/raw")["data"].values, [1.0, 2.0])
    shutil.rmtree(tmp_path / "raw.nwb.zarr")
    assert opened(path).attrs["nwb_unmapped"] == ["acquisition/raw"]


def test_an_object_of_a_type_nobody_knows_is_shown_and_breaks_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, positions(0.0))
    strange = {"neurodata_type": "Strange", "namespace": "ndx-none", "object_id": "0"}
    edit(path, "stimulus/presentation", lambda document: document["attributes"].update(strange))
    assert "nwb_unmapped" not in opened(path).attrs
    tree = xr.open_datatree(path, engine="nwbzarr")
    assert tree["stimulus/presentation"].attrs["neurodata_type"] == "Strange"


def test_an_empty_container_is_not_missing_anything(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.create_processing_module("ophys", "d").add(Fluorescence())
    dataset = opened(write(tmp_path, nwbfile))
    assert not dataset.variables
    assert "nwb_unmapped" not in dataset.attrs


def test_a_file_with_next_to_nothing_opens(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, empty_session()))
    assert dataset.attrs["identifier"] == "small"


def test_damaged_metadata_cost_their_object_and_not_the_session(tmp_path: Path) -> None:
    path = write(tmp_path, positions(0.0, 0.5))
    damaged = "processing/behavior/Position/led0"
    root = json.loads((path / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"][f"{damaged}/data"]["data_type"] = "quaternion"
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.warns(MappingWarning, match="led0' in .* is skipped"):
        dataset = opened(path)
    assert dataset.attrs["nwb_unmapped"] == [damaged]
    assert "led1" in dataset
    with pytest.raises(MetadataError, match="quaternion"):
        opened(path, group=damaged)


def test_numbered_objects_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number in (10, 2, 1):
        series = TimeSeries(
            name=f"sweep {number}", data=[1.0], unit="V", rate=10.0, starting_time=float(number)
        )
        nwbfile.add_acquisition(series)
    assert list(opened(write(tmp_path, nwbfile)).data_vars) == ["sweep 1", "sweep 2", "sweep 10"]


def test_a_table_that_declares_an_absurd_number_of_rows_is_refused(corpus_dir: Any, tmp_path: Path) -> None:
    store = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "absurd.nwb.zarr"))
    document = json.loads((store / "zarr.json").read_text())
    document["consolidated_metadata"]["metadata"]["units/id"]["shape"] = [10**12]
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(LimitError, match=r"'units/id'.*1,000,000,000,000 elements"):
        opened(store, "units")


@pytest.mark.parametrize("damaged", ["units/id", "acquisition/sync/timestamps", "session_description"])
def test_a_damaged_chunk_is_left_out_of_its_object(corpus_dir: Any, tmp_path: Path, damaged: str) -> None:
    path = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "damaged.nwb.zarr"))
    for chunk in (path / damaged / "c", *(path / damaged / "c").rglob("*")):
        if chunk.is_file():
            chunk.write_bytes(b"no such codec")
    if damaged == "acquisition/sync/timestamps":
        # Times are read when they are used, not at open.
        dataset = opened(path)
        with pytest.raises(ChunkError):
            dataset["sync_time"].load()
        return
    for open_it in (xr.open_dataset, xr.open_datatree):
        with pytest.warns(MappingWarning, match=f"'{damaged}' in .* is skipped"):
            view = open_it(path, engine="nwbzarr")
    assert damaged == "session_description" or view.attrs["nwb_unmapped"] == ["units/id"]
    assert "session_description" not in view.attrs or damaged != "session_description"
    assert view["acquisition/ElectricalSeriesAP/data"].shape == (3000, 8)
    if damaged == "units/id":
        with pytest.warns(MappingWarning, match="'units/id' in .* is skipped"):
            units = opened(path, group="units")
        assert units.attrs["nwb_unmapped"] == ["units/id"]
        # Without ids, rows are found by position.
        assert "unit" not in units.coords
        assert units["spike_times"].size > 0
    else:
        assert opened(path, group="acquisition/sync")["data"].size == 20


def test_a_damaged_chunk_of_one_series_among_many_is_told_once(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number in range(1, 6):
        nwbfile.add_acquisition(
            TimeSeries(name=f"s{number}", data=[1.0], unit="V", rate=1.0, starting_time=float(number))
        )
    path = write(tmp_path, nwbfile)
    (path / "acquisition/s3/starting_time/c").write_bytes(b"no such codec")
    with pytest.warns(MappingWarning, match="'acquisition/s3/starting_time' in .* is skipped") as told:
        dataset = opened(path)
    assert len([each for each in told if "is skipped" in str(each.message)]) == 1
    assert list(dataset.data_vars) == ["s1", "s2", "s3", "s4", "s5"]
    assert "s3_time" not in dataset.coords
    assert [float(dataset[f"s{number}_time"][0]) for number in (1, 2, 4, 5)] == [1.0, 2.0, 4.0, 5.0]
