"""Two thousand objects as a tree: what it costs, bounded widely for noisy machines."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from pynwb import TimeSeries

from tests.session_files import empty_session, write

MANY = 2000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nwbfile = empty_session()
    for number in range(MANY):
        nwbfile.add_acquisition(
            TimeSeries(
                name=f"s{number}",
                data=np.full(3, number),
                unit="V",
                rate=10.0,
                starting_time=float(number),
            )
        )
    return write(tmp_path_factory.mktemp("many"), nwbfile, "many.nwb.zarr")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("chunks", "seconds"), [(None, 2.5), ({}, 4.0)])
def test_a_tree_of_two_thousand_groups_opens_in_seconds(
    many: Path, chunks: dict[str, int] | None, seconds: float
) -> None:
    # What the first Dataset of a process costs is xarray's.
    xr.open_datatree(many, engine="nwbzarr", group="acquisition/s0", chunks={})
    before = time.process_time()
    tree = xr.open_datatree(many, engine="nwbzarr", chunks=chunks)
    took = time.process_time() - before
    print(f"{MANY} groups, chunks={chunks}: {took:.2f} s of CPU on {os.cpu_count()} cores")
    # Twice what it takes on a quiet machine: what grows with the square takes many times as much.
    assert took < 2 * seconds
    assert len(tree["acquisition"].children) == MANY
    assert tree["acquisition/s1999/data"].values.tolist() == [1999] * 3
    assert (tree["acquisition/s7/data"].chunks is None) == (chunks is None)
