"""What xarray promises of any file holds for every type: chunks, cache, decoding, loading and writing."""

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pynwb import TimeSeries

import intake_nwbzarr
from intake_nwbzarr.errors import MappingWarning
from tests.session_files import empty_session, opened, rewrite, write

START_OF_SMALL = np.datetime64("2024-05-01T12:00:00", "ns")
REFERENCE = np.datetime64("2024-05-01T20:00:00", "ns")  # 12:00 at -08:00


@pytest.fixture(autouse=True)
def departures_from_the_schema_are_expected() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore", category=MappingWarning):
        yield


@pytest.fixture(scope="module")
def flat(every_type_path: Path) -> xr.Dataset:
    with warnings.catch_warnings(action="ignore", category=MappingWarning):
        return opened(every_type_path).load()


def test_dask_arrays_hold_what_is_read_without_them(every_type_path: Path, flat: xr.Dataset) -> None:
    chunked = opened(every_type_path, chunks={})
    assert any(variable.chunks for variable in chunked.variables.values())
    xr.testing.assert_identical(chunked.compute(), flat)


def test_every_variable_is_loaded_concurrently(every_type_path: Path, flat: xr.Dataset) -> None:
    loaded = asyncio.run(opened(every_type_path).load_async())
    xr.testing.assert_identical(loaded, flat)


def test_what_is_read_once_is_kept_only_if_asked_to(every_type_path: Path) -> None:
    for cache, expected in ((True, 0), (False, 1)):
        dataset = opened(every_type_path, cache=cache)
        dataset["electrical"].values  # noqa: B018 - reads
        with intake_nwbzarr.track_requests() as log:
            dataset["electrical"].values  # noqa: B018
        assert min(log.requests, 1) == expected


def test_variables_that_are_dropped_are_not_there(every_type_path: Path, flat: xr.Dataset) -> None:
    dropped = ["electrical", "trials_start_time", "pictures_grey", "units"]
    fewer = opened(every_type_path, drop_variables=dropped)
    assert set(flat.variables) - set(fewer.variables) == set(dropped) & set(flat.variables)


def test_stored_values_and_what_converts_them_are_given_on_request(
    every_type_path: Path, flat: xr.Dataset
) -> None:
    stored = opened(every_type_path, mask_and_scale=False)
    compared = 0
    for name, variable in stored.data_vars.items():
        if "target_unit" not in variable.attrs or variable.dtype.kind not in "iuf":
            continue
        factors = stored.get(f"{name}_channel_conversion", xr.DataArray(1.0))
        made = variable * variable.attrs["conversion"] * factors + variable.attrs["offset"]
        if "units" in flat[name].attrs and flat[name].dtype == np.float64:
            np.testing.assert_allclose(made.values, flat[name].values, rtol=1e-12)
            assert variable.attrs["target_unit"] == flat[name].attrs["units"]
            compared += 1
    assert compared > 10


def test_every_time_is_decoded_on_request(every_type_path: Path, flat: xr.Dataset) -> None:
    decoded = opened(every_type_path, decode_times=True)
    compared = 0
    for name, variable in decoded.variables.items():
        if variable.dtype.kind != "M":
            # What is left in seconds is how long something took, or when in a stimulus.
            if variable.attrs.get("units") == "s" and variable.dtype.kind == "f":
                told = f"{name} {variable.attrs}"
                assert any(
                    word in told for word in ("waveform", "Duration", "sampling", "stimulus/templates/")
                ), told
            continue
        seconds = flat[name].values.astype(np.float64)
        expected = REFERENCE + np.rint(np.nan_to_num(seconds) * 1e9).astype("timedelta64[ns]")
        expected[np.isnan(seconds)] = np.datetime64("NaT", "ns")
        np.testing.assert_array_equal(variable.values, expected)
        assert variable.attrs["time_zone"] == "-08:00"
        compared += 1
    assert compared > 40


@pytest.mark.parametrize("form", ["netcdf", pytest.param("zarr", marks=pytest.mark.slow)])
def test_the_whole_session_is_written_and_read_back(every_type_path: Path, form: str, tmp_path: Path) -> None:
    # Names with spaces cannot be listed as coordinates in such files.
    flat = opened(every_type_path, names="safe")
    path = tmp_path / f"session.{form}"
    with warnings.catch_warnings():
        # zarr-python says of fixed-width text that it has no specification yet.
        warnings.filterwarnings("ignore", "The data type .* does not have a Zarr V3 specification")
        if form == "zarr":
            flat.to_zarr(path, consolidated=False)
            back = xr.open_dataset(path, engine="zarr", consolidated=False)
        else:
            flat.to_netcdf(path)
            back = xr.open_dataset(path)
    with back:
        assert set(back.variables) == set(flat.variables)
        for name, variable in flat.variables.items():
            np.testing.assert_array_equal(back[name].values, variable.values)
        assert set(back.attrs) == set(flat.attrs)


@pytest.mark.slow
def test_the_tree_is_written_and_read_back(every_type_path: Path, tmp_path: Path) -> None:
    tree = xr.open_datatree(every_type_path, engine="nwbzarr")
    tree.to_netcdf(tmp_path / "tree.nc")
    with xr.open_datatree(tmp_path / "tree.nc") as back:
        assert [node.path for node in back.subtree] == [node.path for node in tree.subtree]
        for node in tree.subtree:
            for name, variable in node.data_vars.items():
                np.testing.assert_array_equal(back[node.path][name].values, variable.values)


def test_nothing_that_is_shown_is_a_wall_of_text(every_type_path: Path, flat: xr.Dataset) -> None:
    tree = xr.open_datatree(every_type_path, engine="nwbzarr")
    views = [flat, *(node.to_dataset() for node in tree.subtree)]
    for view in views:
        for attributes in (view.attrs, *(variable.attrs for variable in view.variables.values())):
            for name, value in attributes.items():
                # What describes a column is the file's own text, or pynwb's.
                assert len(str(value)) < 400 or "description" in str(name), (name, value)
    for text in (repr(flat), repr(tree)):
        assert max(map(len, text.splitlines())) < 160
    assert "<html" not in flat._repr_html_()


def test_the_time_of_a_template_is_never_one_of_the_session(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_stimulus_template(TimeSeries(name="tone", data=[0.0, 1.0], unit="V", rate=10.0))
    nwbfile.add_acquisition(TimeSeries(name="answer", data=[0.0, 1.0], unit="V", rate=10.0))
    decoded = opened(write(tmp_path, nwbfile), decode_times=True)
    assert decoded["answer_time"].dtype.kind == "M"
    assert list(decoded["tone_time"].values) == [0.0, 0.1]


def test_a_segmentation_does_not_hold_the_movie_it_refers_to(corpus_dir: Any) -> None:
    found = opened(corpus_dir("ophys", "0.14.0"), group="processing/ophys/ImageSegmentation")
    assert "TwoPhotonSeries" not in found
    assert "PixelMasks_pixel_mask_x" in found


def test_times_that_datetimes_do_not_reach_are_told(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for start in (0.0, 1.6e12, -1e300):
        nwbfile.add_trial(start_time=start, stop_time=1.0)
    dataset = opened(write(tmp_path, nwbfile), group="intervals/trials", decode_times=True)
    with pytest.warns(MappingWarning, match=r"2 times are outside .*the first at 1600000000000.0 s"):
        starts = dataset["start_time"].values
    assert np.isnat(starts).tolist() == [False, True, True]


def test_whole_seconds_and_stored_values_are_decoded_too(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_trial(start_time=1.0, stop_time=2.0)
    path = write(tmp_path, nwbfile)
    rewrite(path, "intervals/trials/start_time", np.array([1]))
    for scaled in (True, False):
        dataset = opened(path, decode_times=True, mask_and_scale=scaled)
        for name, second in (("trials_start_time", 1), ("trials_stop_time", 2)):
            assert dataset[name].values == START_OF_SMALL + np.timedelta64(second, "s")


def test_one_decoded_time_is_read_by_itself(every_type_path: Path, flat: xr.Dataset) -> None:
    decoded = opened(every_type_path, decode_times=True)
    one = decoded["trials_start_time"][1].values
    assert one == decoded["trials_start_time"].values[1]
