"""A session of 10^8 samples opens, shows, copies and pickles as fast and as small as one of ten."""

import copy
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from pynwb import TimeSeries

from intake_nwbzarr import track_requests
from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex
from tests.session_files import consolidate, empty_session, opened, write

SIZE = 10**8
CHUNK = 10**6
SERIES = {"acquisition/regular": RegularTimeIndex, "acquisition/irregular": IrregularTimeIndex}
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("small"), session())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same session with arrays of 10^8 samples, of which one chunk of timestamps was written."""
    path = write(tmp_path_factory.mktemp("large"), session())
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name, shape in (
        ("acquisition/regular/data", (SIZE, 4)),
        ("acquisition/irregular/data", (SIZE,)),
        ("acquisition/irregular/timestamps", (SIZE,)),
    ):
        attributes = dict(root[name].attrs)
        array = root.create_array(
            name, shape=shape, chunks=(CHUNK, *shape[1:]), dtype=root[name].dtype, overwrite=True
        )
        array.attrs.update(attributes)
    timestamps = root["acquisition/irregular/timestamps"]
    assert isinstance(timestamps, zarr.Array)
    timestamps[:CHUNK] = np.arange(CHUNK) / 30_000.0
    consolidate(path)
    return path


def session() -> Any:
    nwbfile = empty_session()
    data = np.zeros((10, 4), dtype=np.int16)
    nwbfile.add_acquisition(
        TimeSeries(name="regular", data=data, unit="V", rate=30_000.0, starting_time=0.1, conversion=0.5)
    )
    nwbfile.add_acquisition(
        TimeSeries(name="irregular", data=data[:, 0], unit="V", timestamps=np.arange(10.0))
    )
    return nwbfile


def peak_of(action: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def shown_copied_and_pickled(dataset: xr.Dataset) -> None:
    for one in (dataset, dataset.data, dataset.time, dataset.xindexes["time"], dataset.coords):
        repr(one)
    dataset._repr_html_()
    dataset.time._repr_html_()
    copies = [
        pickle.loads(pickle.dumps(dataset)),
        dataset.copy(),
        dataset.copy(deep=True),
        copy.copy(dataset),
        copy.deepcopy(dataset),
    ]
    for one in copies:
        assert one.sizes["time"] == dataset.sizes["time"]
        assert one.xindexes["time"].equals(dataset.xindexes["time"])
    part = dataset.isel(time=slice(CHUNK, -CHUNK, 3)).isel(time=slice(None, None, -1))
    repr(part)
    pickle.loads(pickle.dumps(part))


@pytest.mark.parametrize("series", SERIES)
def test_opening_reads_what_opening_a_small_one_reads(small: Path, large: Path, series: str) -> None:
    with track_requests() as of_small:
        opened(small, series)
    with track_requests() as of_large:
        dataset = opened(large, series)
    assert dataset.sizes["time"] == SIZE
    assert isinstance(dataset.xindexes["time"], SERIES[series])
    assert of_large.requests == of_small.requests
    assert abs(of_large.bytes - of_small.bytes) < 1000


@pytest.mark.parametrize("series", SERIES)
def test_showing_copying_and_pickling_read_nothing(large: Path, series: str) -> None:
    dataset = opened(large, series)
    with track_requests() as log:
        shown_copied_and_pickled(dataset)
    assert log.requests == 0


@pytest.mark.parametrize("series", SERIES)
def test_opening_showing_copying_and_pickling_hold_under_a_megabyte(
    small: Path, large: Path, series: str
) -> None:
    shown_copied_and_pickled(opened(small, series))  # imports and caches of the first time
    usual = peak_of(lambda: shown_copied_and_pickled(opened(small, series)))
    assert peak_of(lambda: shown_copied_and_pickled(opened(large, series))) < usual + MEGABYTE


@pytest.mark.parametrize("series", SERIES)
def test_a_pickle_is_as_small_as_that_of_a_small_one(small: Path, large: Path, series: str) -> None:
    of_small, of_large = (len(pickle.dumps(opened(path, series))) for path in (small, large))
    assert of_large < of_small + 1000


def test_a_slice_of_regular_time_reads_nothing_and_one_of_stored_time_few_chunks(large: Path) -> None:
    dataset = opened(large, "acquisition/regular")
    with track_requests() as log:
        part = dataset.sel(time=slice(1000.0, 1001.0))
        nearest = dataset.sel(time=[7.0, 3000.0], method="nearest")
    assert log.requests == 0
    assert part.sizes["time"] == 30_001
    np.testing.assert_allclose(nearest.time, [7.0, 3000.0])
    with track_requests() as log:
        times = opened(large, "acquisition/irregular").isel(time=slice(30, 60, 10)).time.values
    np.testing.assert_array_equal(times, np.array([30, 40, 50]) / 30_000.0)
    assert log.bytes < 9 * CHUNK
