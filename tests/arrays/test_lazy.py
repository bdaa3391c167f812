"""Lazy variables: what xarray and dask do with them."""

import asyncio
import pickle
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import zarr
from dask.base import tokenize

from intake_nwbzarr.arrays import LazyArray, StoredArray, lazy_variable, scaled
from intake_nwbzarr.transport.open import StoredFile
from intake_nwbzarr.transport.request_log import track_requests
from tests.arrays.stored_arrays import stored_array, write

VALUES = np.arange(2000, dtype="int16").reshape(200, 10)


def _strings(folder, name="labels"):
    written = zarr.create_array(
        str(folder), name=name, shape=(4,), chunks=(2,), dtype=zarr.dtype.VariableLengthUTF8()
    )
    written[...] = np.array(["a", "Zürich", "", "ddd"], dtype=object)
    return stored_array(folder, name)


@pytest.fixture
def dataset(tmp_path):
    source = tmp_path / "source"
    data = scaled(write(source, VALUES, chunks=(20, 4)), 0.5, 1.0, np.arange(10.0))
    return xr.Dataset(
        {
            "data": lazy_variable(("time", "channel"), data, {"units": "V"}),
            "raw": lazy_variable(
                ("time", "channel"), write(source, VALUES, "raw", chunks=(20, 4), shards=(40, 8))
            ),
            "rate": lazy_variable((), write(source, np.float64(30000.0), "rate")),
        },
        coords={"label": lazy_variable(("sample",), _strings(source))},
    )


def _values(dataset):
    return {"data": VALUES * (0.5 * np.arange(10.0)) + 1.0, "raw": VALUES}


def test_making_a_variable_and_showing_it_reads_nothing(dataset):
    with track_requests() as log:
        assert "float64" in repr(dataset)
        part = dataset.isel(time=slice(3, 90, 2), channel=[3, 1]).transpose()
        pickle.loads(pickle.dumps(part))
        dataset.chunk()
    assert log.requests == 0


@pytest.mark.parametrize(
    "indexers",
    [
        {"time": 3, "channel": 4},
        {"time": slice(None, None, -3), "channel": np.array([3, 1, 3])},
        {"time": np.array([5, 199, 0]), "channel": np.array([True] * 5 + [False] * 5)},
        {"time": xr.DataArray([0, 5, 5], dims="event"), "channel": xr.DataArray([9, 0, 3], dims="event")},
        {"time": slice(0, 0)},
    ],
)
def test_every_kind_of_indexing_gives_numpys_values(dataset, indexers):
    for name, values in _values(dataset).items():
        expected = xr.Variable(("time", "channel"), values)
        selected = dataset[name].variable.isel(indexers)
        xr.testing.assert_equal(xr.Variable(selected.dims, selected), expected.isel(indexers))
        loaded = asyncio.run(dataset[name].variable.isel(indexers).load_async())
        xr.testing.assert_equal(xr.Variable(loaded.dims, loaded), expected.isel(indexers))


def test_a_whole_dataset_loads_asynchronously(dataset):
    loaded = asyncio.run(dataset.load_async())
    for name, values in _values(dataset).items():
        np.testing.assert_array_equal(loaded[name], values)
    assert loaded["rate"].item() == 30000.0
    assert loaded["label"].values.tolist() == ["a", "Zürich", "", "ddd"]


def test_dask_computes_what_numpy_computes(dataset):
    chunked = dataset.chunk({"time": 30, "channel": 3})
    for name, values in _values(dataset).items():
        np.testing.assert_allclose(chunked[name].mean("time").compute(), values.mean(axis=0))
    assert (chunked["label"] == "Zürich").values.tolist() == [False, True, False, False]


def test_a_dask_task_holds_the_location_and_the_node_alone(dataset):
    assert len(pickle.dumps(dataset["data"].variable)) < 4000
    with track_requests() as log:
        restored = pickle.loads(pickle.dumps(dataset["data"].variable))
        restored[30:35, 2].load()
    assert log.requests == 1


@pytest.mark.parametrize("chunks", [None, {}, {"time": 30}], ids=["lazy", "preferred", "chunked"])
def test_what_was_opened_can_be_written_to_zarr(dataset, tmp_path, chunks):
    part = dataset.isel(time=slice(7, 150))
    part = part if chunks is None else part.chunk(chunks)
    part.to_zarr(tmp_path / "out.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "out.zarr", consolidated=False) as written:
        xr.testing.assert_equal(written.load(), part.compute())
        assert written["label"].values.tolist() == ["a", "Zürich", "", "ddd"]


@pytest.mark.parametrize("chunks", [None, {}, {"time": 30}], ids=["lazy", "preferred", "chunked"])
def test_what_was_opened_can_be_written_to_netcdf(dataset, tmp_path, chunks):
    part = dataset.isel(time=slice(7, 150))
    part = part if chunks is None else part.chunk(chunks)
    part.to_netcdf(tmp_path / "out.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "out.nc", engine="netcdf4") as written:
        xr.testing.assert_equal(written.load(), part.compute())


def test_writing_dask_strings_does_not_load_them_to_find_their_type(dataset, tmp_path):
    labels = dataset.drop_vars(["data", "raw", "rate"]).chunk(sample=2)
    with track_requests() as log:
        labels.to_zarr(tmp_path / "out.zarr", consolidated=False)
    assert log.requests == 3  # xarray computes the first element, to see whether it is a date


def test_a_token_is_the_same_for_the_same_array_and_another_for_any_other(tmp_path):
    one = write(tmp_path, VALUES, "one", chunks=(20, 4))
    two = write(tmp_path, VALUES, "two", chunks=(20, 4))
    arrays = [
        one,
        two,
        StoredArray(StoredFile(one.location, "a"), one.node),
        StoredArray(StoredFile(one.location, "b"), one.node),
        scaled(one, 2.0),
        scaled(one, 3.0),
        scaled(one, 2.0, 1.0),
        scaled(one, 2.0, 0.0, np.arange(10.0)),
        scaled(one, 2.0, 0.0, np.arange(1.0, 11.0)),
        scaled(one, 2.0, 0.0, two),
        scaled(one, 2.0, dtype="float32"),
    ]
    names = [tokenize(LazyArray(array)) for array in arrays]
    assert len(set(names)) == len(arrays)
    assert names == [tokenize(LazyArray(pickle.loads(pickle.dumps(array)))) for array in arrays]
    chunked = [lazy_variable(("time", "channel"), array).chunk().data.name for array in arrays]
    assert len(set(chunked)) == len(arrays)


_NAMES = """
import sys
import xarray as xr
from pathlib import Path
from intake_nwbzarr.arrays import lazy_variable, scaled
from tests.arrays.stored_arrays import stored_array
array = scaled(stored_array(Path(sys.argv[1])), 0.5)
dataset = xr.Dataset({"data": lazy_variable(("time", "channel"), array, {"units": "V"})})
print(dataset.chunk(time=100)["data"].data.name)
"""


@pytest.mark.slow
def test_a_dask_name_is_the_same_in_another_process(tmp_path):
    write(tmp_path, VALUES, chunks=(20, 4), attributes={"unit": "V", "conversion": 0.5})
    other = subprocess.run(
        [sys.executable, "-c", _NAMES, str(tmp_path)], capture_output=True, text=True, check=True
    )
    array = scaled(stored_array(tmp_path), 0.5)
    dataset = xr.Dataset({"data": lazy_variable(("time", "channel"), array, {"units": "V"})})
    assert other.stdout.strip() == dataset.chunk(time=100)["data"].data.name
