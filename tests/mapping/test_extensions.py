"""Types of extensions in every view: events without data, subjects with attributes, arrays without names.

The file is written by a process of its own (`python -m … FOLDER`), for loading an extension changes what
pynwb knows for the rest of a process.
"""

import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import intake_nwbzarr
from tests.session_files import consolidate, edit, empty_session, opened, write

LICKS = [1.0, 2.0, 3.5]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extension")
    subprocess.run([sys.executable, "-W", "ignore", "-m", __name__, str(folder)], check=True, timeout=120)
    return folder / "small.nwb.zarr"


@pytest.mark.parametrize(
    ("group", "options", "name"),
    [
        (None, {}, "licks_time"),
        (None, {"names": "path"}, "acquisition_licks_time"),
        (None, {"names": "safe"}, "licks_time"),
        (None, {"share_time": True}, "licks_time"),
        (None, {"drop_variables": ["wheel"]}, "licks_time"),
        ("acquisition/lick*", {}, "time"),
        (["acquisition/licks"], {}, "licks_time"),
        ("acquisition", {}, "licks_time"),
        ("acquisition/licks", {}, "time"),
    ],
)
def test_events_that_have_only_a_time_are_in_every_view(
    path: Path, group: Any, options: Mapping[str, Any], name: str
) -> None:
    dataset = opened(path, group, **options)
    name = name if name in dataset.coords else "licks_time"
    assert dataset[name].values.tolist() == LICKS
    assert dataset[name].attrs["nwb_path"] == "acquisition/licks/timestamps"
    assert "tongue touches" in dataset.attrs.values()


def test_events_of_equal_times_each_keep_theirs(path: Path) -> None:
    dataset = opened(path, share_time=True)
    assert dataset["sniffs_time"].values.tolist() == LICKS
    assert dataset["sniffs_time"].dims != dataset["licks_time"].dims


def test_events_are_a_node_of_the_tree_and_are_selected_by_time(path: Path) -> None:
    licks = xr.open_datatree(path, engine="nwbzarr")["acquisition/licks"]
    assert licks["time"].values.tolist() == LICKS
    assert opened(path).nwb.restrict(1.5, 3.0)["licks_time"].values.tolist() == [2.0]


def test_a_subject_of_an_extension_keeps_attributes_links_and_what_it_holds(path: Path) -> None:
    dataset = opened(path)
    assert dataset.attrs["subject_specimen_name"] == "Sst-1"
    assert dataset.attrs["subject_age_in_days"] == 90.0
    assert dataset.attrs["subject_housing"] == "single"
    assert dataset.attrs["subject_implant"] == "general/devices/wire"
    assert dataset.attrs["general.subject.tag.description"] == "in the ear"
    assert dataset["subject_weights"].shape == (2000,)
    root = xr.open_datatree(path, engine="nwbzarr").attrs
    assert root["subject_specimen_name"] == "Sst-1"


def test_verify_finds_all_of_an_extension_shown(path: Path) -> None:
    report = intake_nwbzarr.verify(path)
    assert not report.different
    assert not report.unshown


def test_arrays_whose_dimensions_hdmf_named_lie_along_time(path: Path) -> None:
    wheel = opened(path, "acquisition/wheel")
    assert wheel["quality"].dims == ("time",)
    assert wheel["pairs"].dims == ("time", "pairs_dim_1")
    assert wheel["either"].dims == ("time", "either_dim_1")
    # Of another length, and of a name of its own.
    assert wheel["corners"].dims == ("corners_dim_0",)
    assert wheel["segments"].dims == ("segments_dim_0",)
    assert opened(path).nwb.restrict(0.0, 0.5)["wheel_quality"].size == 5


def test_arrays_as_long_as_the_times_of_events_lie_along_them(path: Path) -> None:
    rewards = opened(path, "acquisition/rewards")
    assert rewards["volume"].dims == rewards["time"].dims
    assert rewards.sel(time=slice(1.5, None))["volume"].values.tolist() == [0.2, 0.3]


@pytest.mark.parametrize(("name", "axis"), [("fibers", "fiber"), ("unnamed", "photometry")])
def test_the_only_region_of_a_series_labels_the_axis_beside_time(path: Path, name: str, axis: str) -> None:
    fibers = opened(path, f"acquisition/{name}")
    assert fibers["data"].dims == ("time", axis)
    assert fibers["location"].dims == (axis,)
    assert fibers["location"].values.tolist() == ["VTA", "NAc", "DLS"]
    whole = opened(path)
    assert whole[name].dims[1:] == whole["photometry_location"].dims == ("photometry",)


def test_what_an_extension_adds_to_the_session_itself_is_kept(path: Path, tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.create_device(name="wire")
    own = write(tmp_path, nwbfile)
    root = zarr.open_group(str(own), mode="r+", use_consolidated=False)
    for group, name in ((root, "drift"), (root["general"], "noise")):
        group.create_array(name, data=np.arange(3000.0))
    root.create_group("general/rig", attributes={"colour": "grey"})
    consolidate(own)

    def extend(document: dict[str, Any]) -> None:
        document["attributes"] |= {"protocol": "B7", "neurodata_type": "LabFile"}
        document["attributes"]["_LINKS"] = [{"name": "main", "source": ".", "path": "/general/devices/wire"}]

    edit(own, "", extend)
    edit(own, "general", lambda document: document["attributes"].update(room="12"))
    dataset = opened(own)
    assert dataset.attrs["protocol"] == "B7"
    assert dataset.attrs["room"] == "12"
    assert dataset.attrs["main"] == "general/devices/wire"
    assert dataset.attrs["general.rig.colour"] == "grey"
    # A device that only has a name.
    assert dataset.attrs["general.devices.wire.neurodata_type"] == "Device"
    np.testing.assert_array_equal(dataset["drift"].values, np.arange(3000.0))
    np.testing.assert_array_equal(dataset["general_noise"].values, np.arange(3000.0))
    tree = xr.open_datatree(own, engine="nwbzarr")
    assert tree.attrs["protocol"] == "B7"
    assert tree["drift"].size == tree["general/noise"].size == 3000
    assert "nwb_group" not in tree.attrs


def _extension(folder: Path) -> Any:
    from pynwb import get_class, load_namespaces
    from pynwb.spec import (
        NWBAttributeSpec,
        NWBDatasetSpec,
        NWBGroupSpec,
        NWBLinkSpec,
        NWBNamespaceBuilder,
    )

    namespace = NWBNamespaceBuilder("types for tests", "ndx-views", version="0.1.0", author="test")
    for name in ("NWBDataInterface", "Subject", "TimeSeries", "Device", "NWBContainer"):
        namespace.include_type(name, namespace="core")
    namespace.include_type("DynamicTableRegion", namespace="hdmf-common")
    text, number = (
        NWBAttributeSpec(*each) for each in (("description", "d", "text"), ("age_in_days", "d", "float"))
    )

    def array(name: str, *shape: Any, **more: Any) -> Any:
        return NWBDatasetSpec("d", name=name, dtype="float", shape=shape, **more)

    def kind(name: str, parent: str, **more: Any) -> None:
        spec = NWBGroupSpec("d", neurodata_type_def=name, neurodata_type_inc=parent, **more)
        namespace.add_spec("ndx-views.extensions.yaml", spec)

    times = array("timestamps", None, dims=("num_events",))
    kind("Licks", "NWBDataInterface", attributes=[text], datasets=[times])
    kind("Rewards", "NWBDataInterface", attributes=[text], datasets=[times, array("volume", None)])
    kind("Tag", "NWBContainer", attributes=[text])
    kind(
        "Specimen",
        "Subject",
        attributes=[NWBAttributeSpec("specimen_name", "d", "text"), number],
        datasets=[NWBDatasetSpec("d", name="housing", dtype="text"), array("weights", None)],
        links=[NWBLinkSpec("d", target_type="Device", name="implant")],
        groups=[NWBGroupSpec("d", neurodata_type_inc="Tag", name="tag")],
    )
    kind(
        "Wheel",
        "TimeSeries",
        datasets=[
            array("quality", None),
            array("pairs", None, 2),
            array("either", [None], [None, None]),
            array("corners", None),
            array("segments", None, dims=("num_segments",)),
        ],
    )
    region = NWBDatasetSpec("d", name="photometry_table_region", neurodata_type_inc="DynamicTableRegion")
    named = array("data", [None], [None, None], dims=(("num_times",), ("num_times", "num_fibers")))
    kind("Fibers", "TimeSeries", datasets=[named, region])
    kind("Unnamed", "TimeSeries", datasets=[region])
    namespace.export("ndx-views.namespace.yaml", outdir=str(folder))
    load_namespaces(str(folder / "ndx-views.namespace.yaml"))
    return lambda own, **fields: get_class(own, "ndx-views")(**fields)


def _write(folder: Path) -> None:
    from hdmf.common import DynamicTable, DynamicTableRegion

    make = _extension(folder)
    nwbfile = empty_session()
    device = nwbfile.create_device(name="wire")
    nwbfile.subject = make(
        "Specimen",
        subject_id="m1",
        specimen_name="Sst-1",
        age_in_days=90.0,
        housing="single",
        weights=np.arange(2000.0),
        implant=device,
        tag=make("Tag", name="tag", description="in the ear"),
    )
    for name, description in (("licks", "tongue touches"), ("sniffs", "inhalations")):
        nwbfile.add_acquisition(make("Licks", name=name, description=description, timestamps=LICKS))
    nwbfile.add_acquisition(
        make("Rewards", name="rewards", description="water", timestamps=LICKS, volume=[0.1, 0.2, 0.3])
    )
    regular: dict[str, Any] = {"unit": "a.u.", "starting_time": 0.0, "rate": 10.0}
    arrays = {"pairs": np.ones((10, 2)), "either": np.ones((10, 3)), "corners": np.arange(4.0)}
    along = {"quality": np.arange(10.0), "segments": np.arange(10.0)}
    nwbfile.add_acquisition(make("Wheel", name="wheel", data=np.arange(10.0), **regular, **arrays, **along))
    table = DynamicTable(name="photometry", description="fibers")
    table.add_column("location", "where")
    for place in ("VTA", "NAc", "DLS"):
        table.add_row(location=place)
    nwbfile.add_acquisition(table)
    for name in ("Fibers", "Unnamed"):
        rows = DynamicTableRegion(
            name="photometry_table_region", description="all", data=[0, 1, 2], table=table
        )
        series = make(name, name=name.lower(), data=np.ones((10, 3)), photometry_table_region=rows, **regular)
        nwbfile.add_acquisition(series)
    write(folder, nwbfile)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _write(Path(sys.argv[1]))
