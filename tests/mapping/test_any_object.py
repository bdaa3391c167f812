"""Objects that are neither series nor tables: what is an attribute, what a variable, on what dimensions."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from pynwb import NWBFile
from pynwb.ecephys import ElectricalSeries, EventDetection, FeatureExtraction

from intake_nwbzarr.errors import MappingWarning
from tests.session_files import consolidate, edit, empty_session, opened, write


def recording() -> NWBFile:
    nwbfile = empty_session()
    device = nwbfile.create_device(name="probe", description="a probe", serial_number="7")
    group = nwbfile.create_electrode_group(
        name="shank", description="d", location="CA1", device=device, position=(1.0, 2.0, 3.0)
    )
    for _ in range(4):
        nwbfile.add_electrode(group=group, location="CA1")
    series = ElectricalSeries(
        name="raw",
        data=np.zeros((9, 4)),
        rate=10.0,
        electrodes=nwbfile.create_electrode_table_region([0, 1, 2, 3], "all"),
    )
    nwbfile.add_acquisition(series)
    module = nwbfile.create_processing_module("ecephys", "derived")
    module.add(
        EventDetection(
            detection_method="threshold",
            source_electricalseries=series,
            source_idx=np.array([1, 4, 5], "int32"),
            times=[0.1, 0.4, 0.5],
        )
    )
    module.add(
        FeatureExtraction(
            electrodes=nwbfile.create_electrode_table_region([0, 3], "two"),
            description=["PC1", "PC2", "energy"],
            times=[0.1, 0.2, 0.3, 0.4],
            features=np.arange(24.0).reshape(4, 2, 3),
        )
    )
    return nwbfile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # The times of events are deprecated, and in many files.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return write(tmp_path, recording())


def test_a_device_is_its_attributes(path: Path) -> None:
    dataset = opened(path, group="general/devices/probe")
    assert not dataset.variables
    assert dataset.attrs["description"] == "a probe"
    assert dataset.attrs["serial_number"] == "7"


def test_links_are_paths_and_compound_scalars_lists(path: Path) -> None:
    dataset = opened(path, group="general/extracellular_ephys/shank")
    assert dataset.attrs["device"] == "general/devices/probe"
    assert list(dataset.attrs["position"]) == [1.0, 2.0, 3.0]


def test_events_have_a_time_by_which_they_are_selected(path: Path) -> None:
    dataset = opened(path, group="processing/ecephys/EventDetection")
    assert dataset["source_idx"].dims == ("event",)
    assert list(dataset.sel(time=slice(0.3, None))["source_idx"].values) == [4, 5]
    assert dataset.attrs["detection_method"] == "threshold"
    assert dataset.attrs["source_electricalseries"] == "acquisition/raw"


def test_features_lie_on_events_channels_and_features(path: Path) -> None:
    dataset = opened(path, group="processing/ecephys/FeatureExtraction")
    assert dataset["features"].dims == ("event", "channel", "feature")
    assert dataset["description"].dims == ("feature",)
    second = np.arange(24.0).reshape(4, 2, 3)[:, 1]
    np.testing.assert_array_equal(dataset["features"].sel(channel=3).values, second)
    assert list(dataset["location"].values) == ["CA1", "CA1"]
    np.testing.assert_array_equal(dataset["time"].values, [0.1, 0.2, 0.3, 0.4])


def test_in_the_whole_session_they_are_named_for_their_object(path: Path) -> None:
    dataset = opened(path)
    assert dataset["FeatureExtraction_features"].dims == (
        "FeatureExtraction_event",
        "FeatureExtraction_channel",
        "FeatureExtraction_feature",
    )
    assert dataset.attrs["processing.ecephys.EventDetection.detection_method"] == "threshold"
    assert dataset.attrs["general.devices.probe.neurodata_type"] == "Device"
    assert dataset.attrs["general.devices.probe.serial_number"] == "7"
    # A series carries its own metadata.
    assert not [name for name in dataset.attrs if name.startswith("acquisition.raw")]


def test_an_object_without_the_source_it_links_to_is_shown_without(path: Path) -> None:
    links = [{"name": "source_electricalseries", "source": ".", "path": "/acquisition/gone"}]
    edit(
        path,
        "processing/ecephys/EventDetection",
        lambda document: document["attributes"].update(_LINKS=links),
    )
    dataset = opened(path, group="processing/ecephys/EventDetection")
    assert dataset.attrs["source_electricalseries"] == "acquisition/gone"
    assert dataset.sizes["event"] == 3


def test_an_object_that_links_to_a_file_that_is_gone_says_so(path: Path) -> None:
    links = [{"name": "source_electricalseries", "source": "../gone.nwb.zarr", "path": "/acquisition/raw"}]
    edit(
        path,
        "processing/ecephys/EventDetection",
        lambda document: document["attributes"].update(_LINKS=links),
    )
    with pytest.warns(MappingWarning, match="mapped without its 'source_electricalseries'"):
        dataset = opened(path, group="processing/ecephys/EventDetection")
    assert dataset.attrs["source_electricalseries"] == "../gone.nwb.zarr/acquisition/raw"


def test_arrays_of_a_group_without_a_type_are_shown(path: Path) -> None:
    # As some converters leave them beside what the schema knows.
    group = zarr.open_group(str(path), mode="r+", use_consolidated=False).create_group("analysis/own")
    group.create_array("matrix", data=np.arange(6.0).reshape(2, 3))
    group.create_array("threshold", data=np.array(0.5))
    consolidate(path)
    dataset = opened(path, group="analysis/own")
    assert dataset["matrix"].dims == ("matrix_dim_0", "matrix_dim_1")
    assert dataset.attrs["threshold"] == 0.5
    np.testing.assert_array_equal(opened(path)["own_matrix"].values, np.arange(6.0).reshape(2, 3))


def test_a_type_that_nobody_knows_is_mapped_by_its_shape(path: Path) -> None:
    strange = {"neurodata_type": "Pulses", "namespace": "ndx-none", "object_id": "0"}
    root = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    group = root.create_group("processing/ecephys/pulses", attributes=strange)
    group.create_array("timestamps", data=np.array([0.5, 1.5, 2.5]), attributes={"unit": "seconds"})
    group.create_array("label", data=np.array([1, 0, 1]))
    group.create_array("matrix", data=np.ones((2, 2)))
    consolidate(path)
    dataset = opened(path, group="processing/ecephys/pulses")
    assert dataset["label"].dims == ("event",)
    assert dataset["matrix"].dims == ("matrix_dim_0", "matrix_dim_1")
    assert list(dataset.sel(time=slice(1, 3))["label"].values) == [0, 1]


def test_maps_of_retinotopy_have_rows_before_columns(every_type_path: Path) -> None:
    with warnings.catch_warnings(action="ignore", category=MappingWarning):
        tree = xr.open_datatree(every_type_path, engine="nwbzarr")
    (maps,) = (node for node in tree.subtree if node.attrs.get("neurodata_type") == "ImagingRetinotopy")
    assert maps["axis_1_phase_map"].dims[-2:] in {("y", "x"), ("axis_1_phase_map_y", "axis_1_phase_map_x")}
    assert list(maps.attrs["axis_descriptions"]) == ["altitude", "azimuth"]


def test_tables_of_external_resources_are_not_mixed_up(every_type_path: Path) -> None:
    dataset = opened(every_type_path, group="general/external_resources")
    assert dataset["entities_entity_id"].dims == ("entities_row",)
    assert dataset["keys_key"].dims == ("keys_row",)
    assert set(dataset["keys_key"].values) == {"Mus musculus", "CA1"}


def test_a_container_lends_its_name_to_nothing_it_holds(every_type_path: Path) -> None:
    plane = opened(every_type_path, group="general/optophysiology/described plane")
    assert list(plane.attrs["grid_spacing"]) == [0.5, 0.25, 1.0]
    assert plane.attrs["general.optophysiology.described plane.green.emission_lambda"] == 510.0
