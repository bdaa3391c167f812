"""Tables as Datasets: selections of rows keep their values, graphs are stable, files can be written."""

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize

from intake_nwbzarr.hierarchy.hierarchy import open_hierarchy
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.views import open_group

CorpusDir = Callable[[str, str], Path]
TABLES = [
    ("ecephys", "units"),
    ("ecephys", "intervals/trials"),
    ("ecephys", "general/extracellular_ephys/electrodes"),
    ("ophys", "processing/ophys/ImageSegmentation/PixelMasks"),
    ("icephys", "general/intracellular_ephys/intracellular_recordings"),
]


def opened(path: Path, group: str) -> xr.Dataset:
    return open_group(open_hierarchy(path), group, MappingOptions())


def test_any_selection_of_units_keeps_their_spikes(corpus_dir: CorpusDir) -> None:
    units = opened(corpus_dir("ecephys", "0.14.0"), "units")
    good = (units.quality == "good").to_numpy()
    for selected in (units.isel(unit=[5, 1, 1]), units.sel(unit=[4, 0]), units.isel(unit=good)):
        assert selected.sizes["unit"] > 1
        for row in range(selected.sizes["unit"]):
            one = selected.isel(unit=row)
            np.testing.assert_array_equal(spikes(one), spikes(units.sel(unit=int(one.unit))))


def spikes(unit: xr.Dataset) -> np.ndarray[Any, Any]:
    start, count = int(unit.spike_times_start), int(unit.spike_times_count)
    return unit.spike_times.isel(spike=slice(start, start + count)).to_numpy()


@pytest.mark.parametrize(("kind", "table"), TABLES)
def test_tables_compute_on_dask_with_stable_names(kind: str, table: str, corpus_dir: CorpusDir) -> None:
    path = corpus_dir(kind, "0.14.0")
    first, second = opened(path, table).chunk(), opened(path, table).chunk()
    assert tokenize(first) == tokenize(second)
    xr.testing.assert_identical(pickle.loads(pickle.dumps(first)).compute(), opened(path, table).load())
    xr.testing.assert_identical(asyncio.run(opened(path, table).load_async()), opened(path, table).load())


@pytest.mark.parametrize(("kind", "table"), TABLES)
def test_tables_can_be_written_and_read_again(
    kind: str, table: str, corpus_dir: CorpusDir, tmp_path: Path
) -> None:
    dataset = opened(corpus_dir(kind, "0.14.0"), table).load()
    dataset.to_netcdf(tmp_path / "table.nc")
    with xr.open_dataset(tmp_path / "table.nc", engine="netcdf4") as again:
        assert set(again.variables) == set(dataset.variables)
        for name, variable in dataset.variables.items():
            np.testing.assert_array_equal(again[name].to_numpy(), variable.to_numpy())
