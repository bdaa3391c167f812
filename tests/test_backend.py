"""The xarray engine: what it opens and guesses, how lazily, and what becomes of its Datasets."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from pynwb import TimeSeries

from intake_nwbzarr import open_nwb, verify
from intake_nwbzarr.backend import NWBZarrBackendEntrypoint
from intake_nwbzarr.errors import (
    ChunkError,
    MappingWarning,
    MetadataError,
    NodeNotFoundError,
    NotNWBError,
    OptionError,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.request_log import track_requests
from tests.session_files import consolidate, empty_session, opened, write


@pytest.mark.parametrize(
    ("name", "can"),
    [
        ("a.nwb.zarr", True),
        ("/data/a.nwb.zarr/", True),
        ("s3://bucket/a.nwb.zarr", True),
        ("https://host/a.nwb.zarr/?versionId=1", True),
        ("a.nwb.zarr.zip", True),
        (Path("a.nwb.zarr"), True),
        ("https://host/a.nwb?versionId=1", True),
        ("a.nwb", True),
        ("a.zarr", False),
        ("a.h5", False),
        ("a.nwb.zarr/acquisition", False),
        (b"\x89HDF", False),
        (3, False),
    ],
)
def test_only_names_of_nwb_zarr_files_are_guessed(name: Any, can: bool) -> None:
    assert NWBZarrBackendEntrypoint().guess_can_open(name) is can


def test_a_location_is_guessed_by_its_name(ecephys: Path) -> None:
    assert NWBZarrBackendEntrypoint().guess_can_open(locate(ecephys))


def test_the_engine_is_found_by_name_and_by_guess(ecephys: Path) -> None:
    assert "nwbzarr" in xr.backends.list_engines()
    assert xr.open_dataset(ecephys).attrs["identifier"] == "corpus-ecephys"


def test_importing_the_engine_imports_nothing_heavy() -> None:
    code = (
        "import sys, intake_nwbzarr.backend\n"
        "names = {'pynwb', 'hdmf', 'hdmf_zarr', 'intake', 'matplotlib', 'dask', 'distributed', 'zarr'}\n"
        "heavy = names & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_opening_without_chunks_gives_no_dask(ecephys: Path) -> None:
    dataset = opened(ecephys)
    assert not dataset.chunks
    assert dataset["ElectricalSeriesAP"].variable._in_memory is False
    assert opened(ecephys, chunks={})["ElectricalSeriesAP"].chunks is not None


def test_opening_and_printing_read_no_data(ecephys: Path, tmp_path: Path) -> None:
    path = tmp_path / "spoilt.nwb.zarr"
    shutil.copytree(ecephys, path)
    spoilt = 0
    for chunk in path.rglob("c/*"):
        values = chunk.parents[1] if chunk.parent.name == "c" else chunk.parents[2]
        if chunk.is_file() and values.name in {
            "data",
            "timestamps",
            "spike_times",
            "stim",
            "start_time",
            "x",
        }:
            chunk.write_bytes(b"spoilt")
            spoilt += 1
    assert spoilt > 5
    dataset = opened(path)
    repr(dataset)
    dataset._repr_html_()
    pickle.dumps(dataset)
    with pytest.raises(ChunkError):
        dataset["ElectricalSeriesAP"].load()


def test_one_series_takes_eleven_requests_at_most(ecephys: Path) -> None:
    # Two for metadata, three for its time and electrodes, six for whose it is and what its times count from.
    with track_requests() as log:
        opened(ecephys, group="acquisition/ElectricalSeriesAP")
    assert log.requests <= 11


def test_the_whole_session_takes_no_more_than_its_scalars_and_ids(ecephys: Path) -> None:
    with track_requests() as log:
        opened(ecephys)
    assert log.requests <= 45


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_group_may_have_a_leading_slash(ecephys: Path, slash: str) -> None:
    dataset = opened(ecephys, group=f"{slash}acquisition/ElectricalSeriesAP")
    assert dataset["data"].dims == ("time", "channel")
    assert dataset.attrs["nwb_group"] == "acquisition/ElectricalSeriesAP"


def test_the_root_as_a_group_is_the_whole_session(ecephys: Path) -> None:
    assert opened(ecephys, group="/").identical(opened(ecephys))


def test_an_unknown_group_names_the_closest(ecephys: Path) -> None:
    with pytest.raises(NodeNotFoundError, match="Did you mean 'processing/ecephys/LFP'"):
        opened(ecephys, group="acquisition/LFP")


def test_an_array_as_a_group_names_the_object_it_belongs_to(ecephys: Path) -> None:
    with pytest.raises(NodeNotFoundError, match="belongs to, 'acquisition/sync'"):
        opened(ecephys, group="acquisition/sync/data")


def test_a_container_of_one_time_has_plain_names(ophys: Path) -> None:
    dataset = opened(ophys, group="processing/ophys/Fluorescence")
    assert dataset["RoiResponseSeries"].dims == ("time", "roi")
    assert list(dataset["roi"].values) == [0, 1, 2, 3, 4]


def test_a_container_of_several_times_has_flat_names(ophys: Path) -> None:
    dataset = opened(ophys, group="acquisition")
    assert dataset["TwoPhotonSeries"].dims == (
        "TwoPhotonSeries_time",
        "TwoPhotonSeries_x",
        "TwoPhotonSeries_y",
    )
    assert dataset["snapshots_overlay"].dims == ("snapshots_x", "snapshots_y", "snapshots_color")
    assert "nwb_unmapped" not in dataset.attrs


def test_fluorescence_minus_neuropil_is_two_dimensional(ophys: Path) -> None:
    dataset = opened(ophys)
    fluorescence = dataset["Fluorescence_RoiResponseSeries"]
    neuropil = dataset["Neuropil_RoiResponseSeries"]
    assert (fluorescence - 0.7 * neuropil).dims == ("ophys_time", "PixelMasks")


def test_objects_of_one_name_are_all_qualified(ophys: Path) -> None:
    assert "RoiResponseSeries" not in opened(ophys)


@pytest.mark.parametrize(
    "wrong",
    [{"dtype": "int16"}, {"names": "Path"}, {"image_axes": "zz"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_keyword_that_means_nothing_is_an_error(ophys: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="one of"):
        opened(ophys, **wrong)


def test_path_names_are_whole_paths(ophys: Path) -> None:
    dataset = opened(ophys, names="path")
    assert "processing_behavior_BehavioralTimeSeries_lick" in dataset
    assert "processing_ophys_Fluorescence_RoiResponseSeries" in dataset


def test_drop_variables_leaves_out_what_it_names(ecephys: Path) -> None:
    dataset = opened(ecephys, drop_variables=["sync", "electrodes_x", "ElectricalSeriesAP_time"])
    assert not {"sync", "electrodes_x", "ElectricalSeriesAP_time"} & set(dataset.variables)
    assert opened(ecephys, drop_variables="sync").identical(opened(ecephys).drop_vars("sync"))


def test_decode_cf_false_gives_stored_values(ecephys: Path) -> None:
    data = opened(ecephys, group="acquisition/ElectricalSeriesAP", decode_cf=False)["data"]
    assert data.dtype == np.int16
    assert data.attrs["conversion"] == 2.34e-06


def test_xarrays_other_decoders_are_accepted(ecephys: Path) -> None:
    opened(ecephys, decode_coords="all", use_cftime=False, decode_timedelta=False, concat_characters=False)


def test_times_are_decoded_to_utc_on_request(ecephys: Path) -> None:
    seconds = opened(ecephys, group="acquisition/sync")["time"].values
    for group, first in (("acquisition/sync", seconds[0]), ("acquisition/ElectricalSeriesAP", 1.5)):
        time = opened(ecephys, group=group, decode_times=True)["time"]
        start = np.datetime64("2020-02-07T05:00:00", "ns")
        assert time.dtype == "datetime64[ns]"
        assert time.values[0] == start + np.timedelta64(round(first * 1e9), "ns")
        assert time.attrs["time_zone"] == "-08:00"


def test_a_session_of_more_times_than_xarray_can_index_leaves_them_out(tmp_path: Path) -> None:
    path = _many_series(tmp_path, 301)
    with pytest.warns(MappingWarning, match="301 distinct times") as caught:
        dataset = xr.open_dataset(path, engine="nwbzarr")
    assert [warning.filename for warning in caught] == [__file__]
    assert not dataset.coords
    assert dataset["sweep7"].attrs["starting_time"] == 2.0
    assert dataset["sweep7"].attrs["rate"] == 1007.0
    assert opened(path, group="acquisition/sweep7")["time"].values[1] == 2.0 + 1 / 1007.0


def _many_series(folder: Path, count: int) -> Path:
    """A session of many series of a rate each: copies of one written by pynwb, made in its metadata."""
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="sweep", data=[0.0, 1.0], unit="V", rate=1.0, starting_time=2.0))
    path = write(folder, nwbfile)
    root = json.loads((path / "zarr.json").read_text())
    nodes = root["consolidated_metadata"]["metadata"]
    members = {name: nodes.pop(name) for name in list(nodes) if name.startswith("acquisition/sweep")}
    for number in range(count):
        shutil.copytree(path / "acquisition/sweep", path / f"acquisition/sweep{number}")
        for name, node in copy.deepcopy(members).items():
            if name.endswith("starting_time"):
                node["attributes"]["rate"] = 1000.0 + number
            nodes[name.replace("sweep", f"sweep{number}")] = node
    (path / "zarr.json").write_text(json.dumps(root))
    return path


def test_names_that_netcdf_refuses_have_a_remedy(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="+lick rate", data=[0.0, 1.0], unit="V", rate=10.0))
    path = write(tmp_path, nwbfile)
    assert "+lick rate" in opened(path)
    dataset = opened(path, names="safe")
    assert dataset["_lick_rate"].dims == ("_lick_rate_time",)


@pytest.mark.parametrize("kind", ["ecephys", "icephys", "ophys"])
@pytest.mark.parametrize("chunks", [pytest.param(None, marks=pytest.mark.slow), {}])
@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_what_is_opened_can_be_written_and_read_back(
    kind: str, chunks: Any, form: str, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    dataset = opened(corpus_dir(kind, "0.14.0"), chunks=chunks)
    written = tmp_path / "copy"
    with warnings.catch_warnings():
        # zarr has no specification for strings yet and says so.
        warnings.filterwarnings("ignore", category=UserWarning, module="zarr")
        if form == "netcdf":
            dataset.to_netcdf(written, engine="netcdf4")
            back = xr.open_dataset(written, engine="netcdf4")
        else:
            dataset.to_zarr(written, consolidated=False)
            back = xr.open_dataset(written, engine="zarr", consolidated=False, chunks=None)
    assert set(back.variables) == set(dataset.variables)
    for name, variable in dataset.variables.items():
        np.testing.assert_array_equal(back[name].values.astype(variable.dtype), variable.values)
    assert back.attrs["identifier"] == dataset.attrs["identifier"]
    back.close()


def test_tokens_are_stable_across_reopening_and_distinct_by_group(ecephys: Path) -> None:
    token = tokenize(opened(ecephys, group="acquisition/sync"))
    assert token == tokenize(opened(ecephys, group="acquisition/sync"))
    assert token != tokenize(opened(ecephys, group="acquisition/ElectricalSeriesAP"))


def test_a_pickled_dataset_reads_without_metadata_requests(ecephys: Path) -> None:
    dataset = opened(ecephys, group="acquisition/ElectricalSeriesAP", mask_and_scale=False)
    again = pickle.loads(pickle.dumps(dataset))
    with track_requests() as log:
        values = again["data"][:100, :2].values
    assert log.requests == 1
    np.testing.assert_array_equal(values, dataset["data"].values[:100, :2])


def test_every_variable_says_what_it_is_and_where_it_is_from(ecephys: Path) -> None:
    for name, variable in opened(ecephys).variables.items():
        assert variable.attrs.get("nwb_path"), name
        assert variable.attrs.get("neurodata_type"), name


def test_the_source_is_kept_for_xarray(ecephys: Path) -> None:
    assert opened(ecephys).encoding["source"] == f"file://{ecephys}"


def test_session_and_subject_are_attributes_in_a_useful_order(ecephys: Path) -> None:
    attributes = opened(ecephys).attrs
    assert list(attributes)[:4] == [
        "session_description",
        "session_start_time",
        "timestamps_reference_time",
        "identifier",
    ]
    assert attributes["subject_id"] == "R6"
    assert attributes["subject_species"] == "Mus musculus"
    assert attributes["experimenter"] == ["Doe, Jane", "Roe, Richard"]


def test_a_damaged_reference_time_says_how_to_do_without(ecephys: Path, tmp_path: Path) -> None:
    path = tmp_path / "undated.nwb.zarr"
    shutil.copytree(ecephys, path)
    for name in ("timestamps_reference_time", "session_start_time"):
        shutil.rmtree(path / name)
    consolidate(path)
    with pytest.raises(MetadataError, match="without decode_times=True"):
        opened(path, decode_times=True)
    assert "session_start_time" not in opened(path).attrs


VIEWS = ("flat", "object", "container", "tree", "part", "compact", "nameless")


@pytest.mark.parametrize(
    ("view", "zarr_format", "consolidated"),
    [*((view, 3, True) for view in VIEWS), ("flat", 2, True), ("tree", 2, False), ("object", 3, False)],
)
def test_what_xarray_has_saved_is_no_session_and_says_how_to_open_it(
    ecephys: Path, tmp_path: Path, view: str, zarr_format: Any, consolidated: bool
) -> None:
    opened = {
        "flat": lambda: xr.open_dataset(ecephys, engine="nwbzarr")[["units_quality", "trials_stim"]],
        "object": lambda: xr.open_dataset(ecephys, engine="nwbzarr", group="intervals/trials"),
        "container": lambda: xr.open_dataset(ecephys, engine="nwbzarr", group="processing/ecephys"),
        "tree": lambda: xr.open_datatree(ecephys, engine="nwbzarr", group="intervals"),
        "part": lambda: xr.open_datatree(ecephys, engine="nwbzarr").filter(lambda node: not node.variables),
        "compact": lambda: xr.open_dataset(ecephys, engine="nwbzarr", group="units").nwb.compact(),
        "nameless": lambda: xr.open_dataset(ecephys, engine="nwbzarr", group="units")[["quality"]],
    }[view]()
    if view == "nameless":
        del opened.attrs["nwb_location"]
    saved = tmp_path / "saved.nwb.zarr"
    opened.to_zarr(saved, zarr_format=zarr_format, consolidated=consolidated)
    for attempt in (
        lambda: xr.open_dataset(saved, engine="nwbzarr"),
        lambda: xr.open_dataset(saved),
        lambda: xr.open_datatree(saved),
        lambda: xr.open_dataset(saved, engine="nwbzarr", group="units"),
        lambda: open_nwb(saved),
        lambda: verify(saved),
    ):
        with pytest.raises(NotNWBError, match='engine="zarr"'):
            attempt()
    again = xr.open_datatree(saved, engine="zarr", consolidated=consolidated)
    assert set(opened.variables) <= set(again.variables) | set(again.coords)


def test_a_session_of_a_type_derived_from_nwbfile_is_one(ecephys: Path, tmp_path: Path) -> None:
    session = tmp_path / "a.nwb.zarr"
    shutil.copytree(ecephys, session)
    document = json.loads((session / "zarr.json").read_text())
    document["attributes"] |= {"neurodata_type": "LabNWBFile", "namespace": "ndx-lab"}
    (session / "zarr.json").write_text(json.dumps(document))
    assert xr.open_dataset(session, engine="nwbzarr").attrs["identifier"] == "corpus-ecephys"
