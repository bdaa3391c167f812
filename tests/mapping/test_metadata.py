"""Attributes: whatever is found becomes what netCDF and Zarr can store."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from hypothesis import given
from hypothesis import strategies as st

from intake_nwbzarr.hierarchy.hierarchy import Reference
from intake_nwbzarr.mapping.attributes import linked, storable
from tests.session_files import edit, empty_session, write

text = st.text("aé€\n", max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (True, 1),
        (np.float32(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        (b"text", "text"),
        (2**70, str(2**70)),
        ([1, 2.5], [1, 2.5]),
        ([True, False], [1, 0]),
        ([1, "a"], '[1, "a"]'),
        ([[1, 2], [3, 4]], "[[1, 2], [3, 4]]"),
        ([[["a"]], b"b"], '[[["a"]], "b"]'),
        ([{"link": {"_REFERENCE": {"source": ".", "path": "/a"}}}], '[{"link": "a"}]'),
        ({"low": 1}, '{"low": 1}'),
        ({"_REFERENCE": {"source": ".", "path": "/general/devices/probe"}}, "general/devices/probe"),
        ({"_REFERENCE": {"source": "../raw.nwb.zarr", "path": "/a"}}, "../raw.nwb.zarr/a"),
    ],
)
def test_each_kind_of_value_has_a_stored_form(value: Any, kept: Any) -> None:
    assert storable({"name": value}) == {"name": kept}


@pytest.mark.parametrize("value", [None, [], ()])
def test_what_says_nothing_is_omitted(value: Any) -> None:
    assert storable({"name": value}) == {}


def test_names_that_xarray_keeps_for_itself_are_prefixed() -> None:
    assert storable({"coordinates": "AP", "a/b": 1}) == {"nwb_coordinates": "AP", "a_b": 1}


@given(st.dictionaries(st.sampled_from(["units", "coordinates", "dtype", "note"]), values))
def test_what_is_storable_is_json_of_one_level(attributes: dict[str, Any]) -> None:
    for value in storable(attributes).values():
        json.dumps(value)
        assert isinstance(value, str | int | float | list)
        if isinstance(value, list):
            assert value
            assert all(isinstance(item, str | int | float) for item in value)


def test_a_dataset_with_them_is_written_and_read_back(tmp_path: Path) -> None:
    found = storable({"a": True, "b": [1.0, 2.0], "c": ["x", "y"], "d": {"e": None}, "coordinates": "RAS"})
    xr.Dataset({"v": ("x", [1.0], found)}, attrs=found).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "a.nc", engine="netcdf4") as back:
        assert back.attrs["d"] == '{"e": null}'
        assert list(back["v"].attrs["c"]) == ["x", "y"]
        assert back.attrs["nwb_coordinates"] == "RAS"


def test_a_link_is_the_path_it_leads_to_after_another_files_name() -> None:
    assert linked(Reference(".", "/a/b/")) == "a/b"
    assert linked(Reference("../raw.nwb.zarr", "/a")) == "../raw.nwb.zarr/a"


def test_a_files_own_attributes_never_say_where_a_variable_is_from(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_trial(start_time=0.0, stop_time=1.0)
    path = write(tmp_path, nwbfile)
    false = {"nwb_path": "units/spike_times", "ragged_values": "units"}
    edit(path, "intervals/trials/start_time", lambda document: document["attributes"].update(false))
    attributes = xr.open_dataset(path, engine="nwbzarr")["trials_start_time"].attrs
    assert attributes["nwb_path"] == "intervals/trials/start_time"
    assert "ragged_values" not in attributes
    assert attributes["stored_nwb_path"] == "units/spike_times"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.MappingWarning")
def test_attributes_are_plain_values_that_yaml_json_and_hdf5_can_store(
    every_type_path: Path, tmp_path: Path
) -> None:
    views = [
        xr.open_dataset(every_type_path, engine="nwbzarr"),
        xr.open_dataset(every_type_path, engine="nwbzarr", group=["acquisition/*", "units"], chunks={}),
        xr.open_dataset(
            every_type_path, engine="nwbzarr", decode_times=True, storage_options={"timeouts": {}}
        ),
        xr.open_dataset(every_type_path, engine="nwbzarr", mask_and_scale=False),
        *(node.to_dataset() for node in xr.open_datatree(every_type_path, engine="nwbzarr").subtree),
    ]
    holders = [
        dict(attributes)
        for view in views
        for attributes in (view.attrs, *(variable.attrs for variable in view.variables.values()))
    ]
    for attributes in holders:
        for name, value in attributes.items():
            items = value if isinstance(value, list) else [value]
            assert {type(item) for item in items} <= {str, int, float}, (name, value)
    different = {repr(attributes): attributes for attributes in holders}.values()
    assert len(different) > 200
    assert yaml.safe_load(yaml.safe_dump(list(different))) == list(different)
    stored = xr.Dataset({f"v{number}": ((), 0, attributes) for number, attributes in enumerate(different)})
    stored.to_netcdf(tmp_path / "attributes.nc", engine="h5netcdf")
