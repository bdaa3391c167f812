"""Trees and groups: the file's hierarchy, each object's Dataset as when it is opened alone."""

import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from pynwb import TimeSeries
from pynwb.ophys import ImageSegmentation, TwoPhotonSeries

import intake_nwbzarr
from intake_nwbzarr.demo.sessions import add_imaging_plane
from intake_nwbzarr.errors import MappingWarning, NodeNotFoundError, OptionError
from tests.session_files import consolidate, edit, empty_session, write


def tree_of(path: Path, **arguments: Any) -> xr.DataTree:
    return xr.open_datatree(path, engine="nwbzarr", **arguments)


def test_every_node_is_what_opening_it_alone_gives(every_type_path: Path) -> None:
    compared = 0
    # Some of its series depart from the schema, and opening says so.
    with warnings.catch_warnings(action="ignore", category=MappingWarning):
        tree = tree_of(every_type_path)
        for node in tree.subtree:
            if not node.data_vars or any(parent.data_vars for parent in node.parents):
                continue
            alone = xr.open_dataset(every_type_path, engine="nwbzarr", group=node.attrs["nwb_group"])
            # What tells sessions apart is with the root.
            for name in set(alone.attrs) & set(tree.attrs) - set(node.attrs):
                assert alone.attrs.pop(name) == tree.attrs[name]
            # What it holds are nodes of their own.
            for name in [
                name for name in alone.attrs if name.startswith(node.path.strip("/").replace("/", "."))
            ]:
                del alone.attrs[name]
            xr.testing.assert_identical(node.to_dataset(inherit=False).load(), alone.load())
            compared += 1
    assert compared > 80


def test_containers_hold_attributes_and_no_coordinates(ophys: Path) -> None:
    tree = tree_of(ophys)
    assert tree["processing/ophys"].attrs["description"] == "derived"
    assert not tree["processing/ophys/Fluorescence"].coords
    assert tree.attrs["subject_species"] == "Mus musculus"


def test_dask_tells_groups_apart_that_have_equal_names(ophys: Path) -> None:
    """xarray gives the `data` of all groups one name (2026.9), and dask computes one for the other."""
    places = [
        "/processing/ophys/Fluorescence/RoiResponseSeries",
        "/processing/ophys/Neuropil/RoiResponseSeries",
    ]
    plain = xr.open_groups(ophys, engine="nwbzarr")
    chunked = xr.open_groups(ophys, engine="nwbzarr", chunks={})
    tree = tree_of(ophys, chunks={})
    for view in (chunked, tree):
        computed = dask.compute(*(view[place]["data"] for place in places))
        for place, values in zip(places, computed, strict=True):
            np.testing.assert_array_equal(values, plain[place]["data"].values)
            np.testing.assert_array_equal(view[place]["time"].values, plain[place]["time"].values)
    assert not np.array_equal(*(values for values in computed))


def test_names_in_graphs_are_those_of_the_file_as_it_is(ophys: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(ophys, tmp_path / "copy.nwb.zarr"))
    name = "processing/ophys/Fluorescence/RoiResponseSeries"

    def key() -> str:
        dataset = xr.open_dataset(path, engine="nwbzarr", group=name, chunks={})
        return str(dataset["data"].data.name)

    before = key()
    assert key() == before
    edit(path, f"{name}/data", lambda document: document["attributes"].update(comments="changed"))
    assert key() != before


def test_times_stay_lazy_coordinates_among_chunks(ophys: Path) -> None:
    dataset = xr.open_dataset(
        ophys, engine="nwbzarr", group="acquisition/TwoPhotonSeries", chunks={"time": -1}
    )
    assert dataset["data"].chunks is not None
    assert dataset["time"].chunks is None
    assert dataset.chunk({"time": 5})["time"].chunks is None


def test_a_path_is_the_root_of_its_tree(ophys: Path) -> None:
    tree = tree_of(ophys, group="processing/ophys")
    assert {node.path for node in tree.leaves} >= {
        "/Fluorescence/RoiResponseSeries",
        "/Neuropil/RoiResponseSeries",
    }
    assert tree.attrs["description"] == "derived"
    one = tree_of(ophys, group="processing/ophys/Fluorescence/RoiResponseSeries")
    assert one["data"].dims == ("time", "roi")


def test_patterns_choose_among_the_objects(ophys: Path) -> None:
    tree = tree_of(ophys, group="**/RoiResponseSeries")
    assert [node.path for node in tree.leaves] == [
        "/processing/ophys/Fluorescence/RoiResponseSeries",
        "/processing/ophys/Neuropil/RoiResponseSeries",
    ]
    several = tree_of(ophys, group=["acquisition/snapshots", "processing/*/Neuropil"])
    assert [node.path for node in several.leaves] == [
        "/acquisition/snapshots",
        "/processing/ophys/Neuropil/RoiResponseSeries",
    ]


def test_a_node_leads_back_to_the_file(ophys: Path) -> None:
    dataset = tree_of(ophys)["processing/ophys/Fluorescence/RoiResponseSeries"].to_dataset()
    assert dataset.nwb.nwbfile.identifier == "corpus-ophys"
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again["data"].values, dataset["data"].values)


def test_a_tree_takes_no_more_rounds_than_the_whole_session(ophys: Path) -> None:
    with intake_nwbzarr.track_requests() as flat:
        xr.open_dataset(ophys, engine="nwbzarr")
    with intake_nwbzarr.track_requests() as tree:
        tree_of(ophys)
    assert tree.requests == flat.requests


def test_a_child_named_like_a_variable_is_renamed(tmp_path: Path) -> None:
    nwbfile = empty_session()
    inner = TimeSeries(name="inner", data=[1.0, 2.0], unit="V", rate=1.0)
    nwbfile.add_acquisition(inner)
    nwbfile.add_trial(start_time=0.0, stop_time=1.0, timeseries=[inner])
    path = write(tmp_path, nwbfile)
    # A series in a table, named as the paths of the table's references are.
    shutil.copytree(path / "acquisition/inner", path / "intervals/trials/timeseries_path")
    consolidate(path)
    tree = tree_of(path)
    assert list(tree["intervals/trials"]["timeseries_path"].values) == ["acquisition/inner"]
    child = tree["intervals/trials/timeseries_path_"]
    assert child.attrs["nwb_path"] == "intervals/trials/timeseries_path"
    np.testing.assert_array_equal(child["data"].values, [1.0, 2.0])


def test_what_an_object_holds_has_dimensions_of_its_own(tmp_path: Path) -> None:
    nwbfile = empty_session()
    plane = add_imaging_plane(nwbfile)
    reference = TwoPhotonSeries(
        name="reference", imaging_plane=plane, data=np.ones((2, 6, 7)), unit="n.a.", rate=1.0
    )
    segmentation = ImageSegmentation()
    nwbfile.create_processing_module("ophys", "d").add(segmentation)
    cells = segmentation.create_plane_segmentation(
        name="cells", description="d", imaging_plane=plane, reference_images=[reference]
    )
    cells.add_roi(image_mask=np.ones((3, 4)))
    tree = tree_of(write(tmp_path, nwbfile))
    node = tree["processing/ophys/ImageSegmentation/cells"]
    assert node["image_mask"].dims == ("roi", "x", "y")
    inner = node["reference_images/reference"]
    assert inner["data"].dims == ("time", "reference_x", "reference_y")
    assert inner["data"].shape == (2, 6, 7)


def test_a_tree_is_written_and_read_back(ophys: Path, tmp_path: Path) -> None:
    tree = tree_of(ophys)
    tree.to_zarr(tmp_path / "tree.zarr", consolidated=False)
    back = xr.open_datatree(tmp_path / "tree.zarr", engine="zarr", consolidated=False)
    place = "processing/ophys/Fluorescence/RoiResponseSeries"
    np.testing.assert_array_equal(back[place]["data"].values, tree[place]["data"].values)
    np.testing.assert_array_equal(back[place]["time"].values, tree[place]["time"].values)
    tree.to_netcdf(tmp_path / "tree.nc")
    with xr.open_datatree(tmp_path / "tree.nc") as written:
        assert {node.path for node in written.subtree} == {node.path for node in tree.subtree}
        np.testing.assert_array_equal(written[place]["data"].values, tree[place]["data"].values)


def test_groups_have_safe_names_on_request(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for name in ("lick rate", "lick-rate"):
        nwbfile.add_acquisition(TimeSeries(name=name, data=[1.0], unit="Hz", rate=1.0))
    tree = tree_of(write(tmp_path, nwbfile), names="safe")
    assert sorted(tree["acquisition"].children) == ["lick_rate", "lick_rate_"]
    tree.to_netcdf(tmp_path / "safe.nc")


@pytest.mark.parametrize("group", [3, b"units", {"units"}, [1]])
def test_a_group_that_is_no_path_is_refused_by_every_view(ophys: Path, group: Any) -> None:
    for open_it in (xr.open_datatree, xr.open_dataset, xr.open_groups):
        with pytest.raises(OptionError, match="group must be"):
            open_it(ophys, engine="nwbzarr", group=group)


@pytest.mark.parametrize("wrong", [{"drop_variables": 3}, {"share_time": "a"}])
def test_a_keyword_of_the_wrong_kind_is_refused(ophys: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="must be"):
        xr.open_dataset(ophys, engine="nwbzarr", **wrong)


@pytest.mark.parametrize("group", ["processing/nothing", ["acquisition", "nothing"], "**/nothing*"])
def test_a_group_that_is_not_there_is_an_error(ophys: Path, group: Any) -> None:
    for open_it in (xr.open_datatree, xr.open_dataset, xr.open_groups):
        with pytest.raises(NodeNotFoundError, match="nothing"):
            open_it(ophys, engine="nwbzarr", group=group)


def test_a_keyword_that_is_not_known_is_named(ophys: Path) -> None:
    with pytest.raises(OptionError, match=r"no keyword 'storage_option'\. Did you mean 'storage_options'"):
        tree_of(ophys, storage_option={})
