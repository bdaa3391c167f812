"""Groups by pattern and by list, as one flat Dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pynwb import TimeSeries

from intake_nwbzarr.errors import NodeNotFoundError, OptionError
from tests.session_files import edit, empty_session, opened, write


def test_a_star_stands_for_one_name(ecephys: Path) -> None:
    found = opened(ecephys, "acquisition/*")
    assert set(found.data_vars) == {"ElectricalSeriesAP", "sync"}
    assert found.attrs["nwb_group"] == ["acquisition/*"]


def test_two_stars_stand_for_any_number_of_names(ecephys: Path) -> None:
    assert set(opened(ecephys, "**/*SeriesLFP").data_vars) == {"ElectricalSeriesLFP"}
    assert set(opened(ecephys, "**/sync").data_vars) == {"sync"}


def test_what_is_in_a_container_that_matches_is_taken(ecephys: Path) -> None:
    found = opened(ecephys, "process*")
    assert found.data_vars
    assert all(variable.attrs["nwb_path"].startswith("processing/") for variable in found.data_vars.values())


def test_a_list_takes_what_its_paths_and_patterns_name(ecephys: Path) -> None:
    found = opened(ecephys, ["units", "acquisition/sy*"])
    assert "units_spike_times" in found
    assert "sync" in found
    assert "ElectricalSeriesAP" not in found
    # One that two patterns name is there once.
    assert list(opened(ecephys, ["acquisition/sync", "acquisition/sy*"]).data_vars) == ["sync"]


def test_a_pattern_of_one_object_still_has_flat_names(ecephys: Path) -> None:
    """So that what a pattern gives does not depend on how many objects a session happens to have."""
    assert "sync" in opened(ecephys, "acquisition/sync*")


def test_a_name_that_holds_a_star_is_a_name(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for name in ("a*", "ab"):
        nwbfile.add_acquisition(TimeSeries(name=name, data=[1.0], unit="V", rate=1.0))
    found = opened(write(tmp_path, nwbfile), "acquisition/a*")
    assert list(found.data_vars) == ["data"]


def test_a_misspelt_path_in_a_list_names_the_closest(ecephys: Path) -> None:
    with pytest.raises(NodeNotFoundError, match="Did you mean 'acquisition/sync'"):
        opened(ecephys, ["units", "acquisition/synk"])


@pytest.mark.parametrize("group", [[], [1], ["units", None], 7])
def test_what_is_no_path_is_refused(ecephys: Path, group: Any) -> None:
    with pytest.raises(OptionError, match=r"^group"):
        opened(ecephys, group)


def test_patterns_over_sessions_go_together_with_open_mfdataset(
    corpus_dir: Callable[[str, str], Path],
) -> None:
    paths = [corpus_dir("ecephys", release) for release in ("0.8.0", "0.14.0")]

    def first_seconds(dataset: xr.Dataset) -> xr.Dataset:
        return dataset[["data"]].isel(time=slice(0, 100)).drop_vars("time").load()

    sessions = xr.open_mfdataset(
        paths,
        engine="nwbzarr",
        group="acquisition/ElectricalSeriesAP",
        preprocess=first_seconds,
        combine="nested",
        concat_dim="session",
    )
    assert dict(sessions["data"].sizes) == {"session": 2, "time": 100, "channel": 8}
    expected = opened(paths[1], "acquisition/ElectricalSeriesAP")["data"][:100].values
    np.testing.assert_array_equal(sessions["data"][1].values, expected)


def test_links_are_followed_by_lists_and_patterns_as_by_a_path(tmp_path: Path) -> None:
    raw = empty_session()
    raw.add_acquisition(TimeSeries(name="raw", data=[1.0, 2.0], unit="m", rate=10.0))
    write(tmp_path, raw, "raw.nwb.zarr")
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="own", data=[3.0], unit="m", rate=10.0))
    nwbfile.create_processing_module("behavior", "d")
    path = write(tmp_path, nwbfile, "processed.nwb.zarr")
    links = [
        {"name": "outside", "source": "../raw.nwb.zarr", "path": "/acquisition/raw"},
        {"name": "inside", "source": ".", "path": "/acquisition/own"},
        {"name": "nowhere", "source": ".", "path": "/acquisition/gone"},
    ]
    edit(path, "processing/behavior", lambda document: document["attributes"].update(_LINKS=links))
    assert list(opened(path, ["processing/behavior/outside"])["raw"].values) == [1.0, 2.0]
    assert list(opened(path, ["processing/behavior/inside"])["own"].values) == [3.0]
    some = opened(path, "processing/behavior/*")
    assert set(some.data_vars) == {"raw", "own"}
    assert some.attrs["nwb_unmapped"] == ["processing/behavior/nowhere"]
    # An object that is found under two paths is there once.
    assert list(opened(path, ["acquisition/own", "processing/*/inside"]).data_vars) == ["own"]
