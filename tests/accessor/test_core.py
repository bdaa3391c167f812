"""`ds.nwb`: from a Dataset, however it was treated, back to the file."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import zarr.storage

from intake_nwbzarr.accessor import NWBAccessor
from intake_nwbzarr.errors import AccessorError, LocationError, NodeNotFoundError, SelectionError
from intake_nwbzarr.location.location import locate

ELSEWHERE = """
import pickle, sys
for dataset in pickle.load(sys.stdin.buffer):
    print(dataset.nwb.nwbfile.identifier)
"""


@pytest.fixture
def path(corpus_dir: Callable[[str, str], Path]) -> Path:
    return corpus_dir("ecephys", "0.14.0")


@pytest.fixture
def dataset(path: Path) -> xr.Dataset:
    return xr.open_dataset(path, engine="nwbzarr")


def test_the_raw_object_and_the_location_are_at_hand(dataset: xr.Dataset, path: Path) -> None:
    assert dataset.nwb.nwbfile.identifier == "corpus-ecephys"
    assert dataset.nwb.location == locate(path)
    assert repr(dataset.nwb).startswith(f"<ds.nwb of file://{path}>\n")


def test_a_node_of_a_tree_has_the_accessor_of_its_dataset(path: Path) -> None:
    tree = xr.open_datatree(path, engine="nwbzarr")
    assert tree["units"].nwb.spike_times(0).tolist() == tree["units"].to_dataset().nwb.spike_times(0).tolist()
    assert tree.nwb.nwbfile.identifier == "corpus-ecephys"
    for held in ("general/devices", "processing/ecephys", "general/subject"):
        node = next(iter(tree[held].children.values()), tree[held])
        assert node.nwb.location == locate(path)


def test_the_raw_object_is_opened_once(dataset: xr.Dataset) -> None:
    assert dataset.nwb.nwbfile is dataset.nwb.nwbfile


def test_selections_lead_back_to_the_same_file(dataset: xr.Dataset, path: Path) -> None:
    selected = dataset.isel(trials=slice(2)).sel(ElectricalSeriesAP_time=slice(1.5, 1.51))[["trials_stim"]]
    assert selected.nwb.location == locate(path)
    assert selected.nwb.nwbfile.identifier == "corpus-ecephys"


def test_one_objects_dataset_leads_to_the_whole_file(path: Path) -> None:
    group = xr.open_dataset(path, engine="nwbzarr", group="acquisition/ElectricalSeriesAP")
    assert group.nwb.nwbfile.identifier == "corpus-ecephys"


def test_arithmetic_that_keeps_attributes_keeps_the_way_back(path: Path) -> None:
    group = xr.open_dataset(path, engine="nwbzarr", group="acquisition/ElectricalSeriesAP")
    with xr.set_options(keep_attrs=True):
        assert (group * 2).mean("time").nwb.location == locate(path)


def test_dropped_attributes_are_said_to_be_how_to_keep_them(dataset: xr.Dataset) -> None:
    stripped = dataset.drop_attrs()
    with pytest.raises(AccessorError, match=r"keep_attrs=True.*ds\.attrs\.update"):
        _ = stripped.nwb.nwbfile
    with pytest.raises(AccessorError, match=r"keep_attrs=True.*ds\.attrs\.update"):
        _ = stripped.nwb.location
    stripped.attrs.update(dataset.attrs)
    assert stripped.nwb.nwbfile.identifier == "corpus-ecephys"


def test_the_location_travels_beside_attributes_that_are_plain_text(path: Path) -> None:
    sync = xr.open_dataset(path, engine="nwbzarr", group="acquisition/sync")
    trials = xr.open_dataset(path, engine="nwbzarr", group="intervals/trials")
    assert {type(value) for value in sync.attrs.values()} == {str}
    with xr.set_options(keep_attrs=True):
        made = [
            sync.load(),
            sync.load().isel(time=slice(3)).copy(deep=True),
            trials.load().sortby("start_time"),
            trials[["start_time"]].load() * 2,
            sync.load().data.to_dataset(name="x").assign_attrs(sync.attrs),
        ]
    code = "import pickle, sys\nfor each in pickle.load(sys.stdin.buffer): print(each.nwb.location)"
    for each in made:
        assert b"intake_nwbzarr" in pickle.dumps(each)
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(made), capture_output=True, check=True
    )
    assert done.stdout.decode().split() == [f"file://{path}"] * len(made)


def test_what_a_pickle_takes_along_holds_no_secret_and_names_only_what_was_opened(path: Path) -> None:
    sync = xr.open_dataset(path, engine="nwbzarr", group="acquisition/sync").load()
    forged = sync.assign_attrs(nwb_location="file:///etc")
    with pytest.raises(LocationError, match="not opened in this process"):
        _ = pickle.loads(pickle.dumps(forged)).nwb.location


def test_an_objects_dataset_leads_to_its_own_raw_object(path: Path, dataset: xr.Dataset) -> None:
    for group, name in (
        ("units", "units"),
        ("intervals/trials", "trials"),
        ("processing/ecephys", "ecephys"),
        ("processing/ecephys/LFP/ElectricalSeriesLFP", "ElectricalSeriesLFP"),
        ("general/subject", "subject"),
        ("general/devices/probe0", "probe0"),
    ):
        opened = xr.open_dataset(path, engine="nwbzarr", group=group)
        assert opened.nwb.object.name == name
        assert opened.nwb.object is opened.nwb.nwbfile.objects[opened.nwb.object.object_id]
    tree = xr.open_datatree(path, engine="nwbzarr")
    assert tree["acquisition/sync"].nwb.object.name == "sync"
    assert dataset["ElectricalSeriesAP"].nwb.object.data.shape == (3000, 8)
    assert dataset["ElectricalSeriesAP_time"].nwb.object.name == "ElectricalSeriesAP"
    assert dataset["units_spike_times"].nwb.object.name == "spike_times"


def test_views_of_several_objects_have_no_raw_object_of_their_own(path: Path, dataset: xr.Dataset) -> None:
    several = xr.open_dataset(path, engine="nwbzarr", group="acquisition/*")
    for view in (dataset, several):
        with pytest.raises(AccessorError, match=r"nwbfile.*group="):
            _ = view.nwb.object
    with pytest.raises(NodeNotFoundError) as caught:
        _ = xr.open_dataset(path, engine="nwbzarr", group="acquisition").nwb.object
    assert (caught.value.location, caught.value.path) == (f"file://{path}", "acquisition")
    assert "nwbfile.acquisition" in caught.value.next_step


def test_a_variable_does_alone_what_its_dataset_does(path: Path, dataset: xr.Dataset) -> None:
    array = dataset["ElectricalSeriesAP"]
    assert array.nwb.location == locate(path)
    assert array.nwb.nwbfile is array.nwb.nwbfile
    assert (array * 2).isel(electrodes=0).nwb.location == locate(path)
    assert "ElectricalSeriesAP" in repr(array.nwb)
    alone, sync = dataset[["ElectricalSeriesAP"]], dataset["sync"]
    trials = xr.open_dataset(path, engine="nwbzarr", group="intervals/trials")
    for made, expected in (
        (array.nwb.align(trials, (0, 0.001)), alone.nwb.align(trials, (0, 0.001))),
        (array.nwb.restrict(1.51, 1.52), alone.nwb.restrict(1.51, 1.52)),
        (array.nwb.restrict(trials), alone.nwb.restrict(trials)),
        (array.nwb.label(trials, "stim"), alone.nwb.label(trials, "stim")),
        (
            array.nwb.resample_like(sync, "nearest"),
            alone.nwb.resample_like(sync, "nearest"),
        ),
    ):
        xr.testing.assert_identical(made, expected["ElectricalSeriesAP"])
    assert array.nwb.to_dataframe().shape == (3000, 8)
    assert type(array.nwb.to_pynapple()).__name__ == "TsdFrame"
    assert array.nwb.plot.traces(start=1.51, stop=1.52).lines
    assert array.rename(None).nwb.restrict(1.51, 1.52).name is None
    assert array.nwb.restrict(1.51, 1.52).equals(pickle.loads(pickle.dumps(array)).nwb.restrict(1.51, 1.52))
    decoded = xr.open_dataset(path, engine="nwbzarr", decode_times=True)["ElectricalSeriesAP"]
    assert decoded.nwb.restrict(1.51, 1.52).shape == array.nwb.restrict(1.51, 1.52).shape


def test_a_variable_that_cannot_stand_alone_says_what_it_needs(dataset: xr.Dataset) -> None:
    with pytest.raises(SelectionError, match="_start and _count"):
        dataset["units_spike_times"].nwb.restrict(0, 1)
    with pytest.raises(AccessorError, match="nwb_location"):
        _ = xr.DataArray([1, 2]).nwb.location


def test_a_dataset_from_elsewhere_prints_and_fails_clearly() -> None:
    other = xr.Dataset({"a": 1})
    assert isinstance(other.nwb, NWBAccessor)
    assert "attribute nwb_location is missing" in repr(other.nwb)
    with pytest.raises(AccessorError, match='engine="nwbzarr"'):
        _ = other.nwb.nwbfile


def test_a_dataset_whose_raw_object_is_open_still_pickles_and_copies(dataset: xr.Dataset) -> None:
    assert dataset.nwb.nwbfile.identifier == "corpus-ecephys"
    for other in (pickle.loads(pickle.dumps(dataset)), dataset.copy(deep=True)):
        assert other.nwb.nwbfile.identifier == "corpus-ecephys"


@pytest.mark.slow
def test_another_process_that_imported_nothing_can_use_it(path: Path) -> None:
    groups = [None, "intervals/trials", "acquisition/sync"]
    lazy = [xr.open_dataset(path, engine="nwbzarr", group=group) for group in groups]
    loaded = [dataset.load() for dataset in pickle.loads(pickle.dumps(lazy))]
    # Each in a message of its own, so that none registers the accessor for another.
    for datasets in (lazy, loaded[1:2]):
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE], input=pickle.dumps(datasets), capture_output=True, check=True
        )
        assert done.stdout.split() == [b"corpus-ecephys"] * len(datasets)


def test_a_raw_object_that_was_closed_is_opened_again(corpus_dir: Callable[[str, str], Path]) -> None:
    dataset = xr.open_dataset(corpus_dir("ecephys", "0.14.0"), engine="nwbzarr")
    with dataset.nwb.nwbfile as nwbfile:
        nwbfile.acquisition["sync"].data[:2]
    assert len(dataset.nwb.nwbfile.acquisition["sync"].data[:2]) == 2


@pytest.mark.slow
def test_a_dataset_from_a_file_leads_back_only_where_its_session_was_opened(
    dataset: xr.Dataset, tmp_path: Path, path: Path
) -> None:
    dataset[["trials_stim"]].to_netcdf(tmp_path / "saved.nc")
    with xr.open_dataset(tmp_path / "saved.nc") as saved:
        assert saved.nwb.location == locate(path)
    code = (
        "import sys, xarray, intake_nwbzarr\n"
        "try: print(xarray.open_dataset(sys.argv[1]).nwb.nwbfile)\n"
        "except intake_nwbzarr.errors.LocationError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "saved.nc"], capture_output=True, check=True, text=True
    )
    assert f"intake_nwbzarr.open_nwb('file://{path}')" in done.stdout


def test_a_dataset_of_an_open_store_still_pickles_once_it_is_loaded(path: Path) -> None:
    store: Any = zarr.storage.WrapperStore(zarr.storage.LocalStore(path))
    loaded = xr.open_dataset(store, engine="nwbzarr", group="acquisition/sync").load()
    assert loaded.nwb.location.store is store
    again = pickle.loads(pickle.dumps(loaded.drop_vars(loaded.coords)))
    assert again.attrs["nwb_location"] == loaded.attrs["nwb_location"]
