"""What dask calls lazy objects: the same in every process, another for other values, and nothing is read."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize

from intake_nwbzarr.arrays import LazyArray
from intake_nwbzarr.xarray_internals import CopyOnWriteArray, LazilyIndexedArray, lazy_data
from tests.servers.http_server import StaticServer
from tests.session_files import opened

SERIES = "ElectricalSeriesAP"

ELSEWHERE = """
import pickle, sys
objects = pickle.load(sys.stdin.buffer)
from dask.base import tokenize
print(*map(tokenize, objects))
"""

FOREIGN = """
import sys
import numpy as np, pandas as pd, xarray as xr
from dask.base import tokenize
data = np.arange(6.0).reshape(2, 3)
dataset = xr.Dataset(
    {"a": (("x", "y"), data, {"units": "V"}), "b": ("x", ["p", "q"]), "c": ((), 3)},
    coords={"x": [4, 5], "when": ("y", pd.date_range("2024", periods=3))},
)
chunked = dataset.chunk({"x": 1})
dataset.to_netcdf(sys.argv[1], engine="scipy")
opened = xr.open_dataset(sys.argv[1], engine="scipy")
objects = [dataset, dataset.a, dataset.a.variable, dataset.x.variable, chunked.a, opened, opened.a[:1]]
alone = [tokenize(each) for each in objects]
assert "intake_nwbzarr.arrays.dask_tokens" not in sys.modules
import intake_nwbzarr.arrays, intake_nwbzarr.indexes
assert "intake_nwbzarr.arrays.dask_tokens" in sys.modules
assert [tokenize(each) for each in objects] == alone
"""


@pytest.fixture
def url(http_server: StaticServer, corpus_dir: Callable[[str, str], Path]) -> str:
    for kind, name in (("ecephys", "a"), ("ophys", "b")):
        (http_server.root / f"{name}.nwb.zarr").symlink_to(corpus_dir(kind, "0.14.0"))
    return f"{http_server.url}/a.nwb.zarr"


def lazy_objects(url: str) -> dict[str, Any]:
    """Everything that is sent to workers: whole sessions, parts of them, and what is made of them lazily."""
    whole = opened(url)
    series = opened(url, f"acquisition/{SERIES}")
    units, trials = opened(url, "units"), opened(url, "intervals/trials")
    sync = opened(url, "acquisition/sync")
    points = {"time": xr.Variable("point", [0, 5]), "channel": xr.Variable("point", [1, 2])}
    tree = xr.open_datatree(url, engine="nwbzarr")
    return {
        "whole": whole,
        "decoded": opened(url, decode_times=True),
        "stored values": opened(url, mask_and_scale=False),
        "float32": opened(url, dtype="float32"),
        "in blocks": opened(url, chunks={}),
        "tree": tree,
        "branch": tree["acquisition"],
        "other session": opened(url.replace("/a.", "/b.")),
        "series": series,
        "array": series.data.reset_coords(drop=True),
        "variable": series.data.variable,
        "time": series.time,
        "stored time": sync.time if sync.time.size else sync,
        "coordinates": series.coords,
        "index": series.xindexes["time"],
        "transposed": series.transpose(),
        "slice": series.isel(time=slice(10, 20)),
        "other slice": series.isel(time=slice(10, 21)),
        "strided": series.isel(time=slice(None, None, 2)),
        "picked": series.isel(time=[1, 2, 3]),
        "picked otherwise": series.isel(time=[1, 2, 4]),
        "one": series.isel(time=3),
        "points": series.isel(points),
        "labelled": series.sel(time=slice(1.51, 1.52)),
        "units": units,
        "spikes of rows": units.nwb.ragged("spike_times"),
        "counted": units.nwb.bin(0.5),
        "counted otherwise": units.nwb.bin(0.25),
        "aligned": series.nwb.align(trials, (-0.1, 0.1)),
        "aligned otherwise": series.nwb.align(trials, (-0.1, 0.2)),
        "aligned units": units.nwb.align(trials, (-0.1, 0.1), bin=0.05),
        "resampled": series.nwb.resample_like(sync, "nearest"),
        "resampled otherwise": series.nwb.resample_like(sync, "mean"),
        "restricted": series.nwb.restrict(1.53, 1.55),
        "restricted session": whole.nwb.restrict(1.53, 1.55),
    }


def test_a_token_reads_nothing_and_no_pickle_grows(url: str, http_server: StaticServer) -> None:
    objects = lazy_objects(url)
    sizes = {name: len(pickle.dumps(each)) for name, each in objects.items()}
    before = http_server.count()
    tokens = {name: tokenize(each) for name, each in objects.items()}
    assert http_server.count() == before
    for name, each in objects.items():
        assert len(pickle.dumps(each)) < sizes[name] + 500, name
    assert len(set(tokens.values())) == len(tokens)


@pytest.mark.slow
def test_the_same_opened_again_has_the_same_token_in_any_process(url: str) -> None:
    tokens = {name: tokenize(each) for name, each in lazy_objects(url).items()}
    again = lazy_objects(url)
    assert tokens == {name: tokenize(each) for name, each in again.items()}
    # Each in a process's first message, so that none registers the tokens for another.
    for alone in ("array", "time"):
        message = pickle.dumps([again[alone]])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ELSEWHERE], input=message, capture_output=True, check=True
        )
        assert done.stdout.decode().split() == [tokens[alone]]


def test_a_session_that_was_replaced_has_other_tokens(tmp_path: Path, corpus_dir: Any) -> None:
    place = tmp_path / "a.nwb.zarr"
    shutil.copytree(corpus_dir("ecephys", "0.14.0"), place)
    first = opened(str(place), "acquisition/sync")
    assert tokenize(first) == tokenize(opened(str(place), "acquisition/sync"))
    shutil.rmtree(place)
    shutil.copytree(corpus_dir("ecephys", "0.14.0"), place, copy_function=shutil.copyfile)
    assert tokenize(first) != tokenize(opened(str(place), "acquisition/sync"))


@pytest.mark.parametrize(
    "treated",
    [
        lambda series: series.data.variable.to_base_variable(),
        lambda series: series.data.copy(deep=True),
        lambda series: series.rename(time="t", data="values"),
        lambda series: series.swap_dims(time="sample").reset_coords(drop=True),
        lambda series: series.assign(twice=series.data),
        lambda series: series.drop_vars("time").data.expand_dims("session"),
        lambda series: series.data.variable.transpose()[:, 5:1:-1],
        lambda series: xr.Variable(
            ("time", "channel"), CopyOnWriteArray(LazilyIndexedArray(lazy_data(series.data.variable)))
        ),
    ],
)
def test_lazy_data_are_found_in_whatever_variable_holds_them(
    url: str, http_server: StaticServer, treated: Callable[[xr.Dataset], Any]
) -> None:
    first, second = (treated(opened(url, f"acquisition/{SERIES}")) for _ in range(2))
    before = http_server.count()
    assert tokenize(first) == tokenize(second)
    assert http_server.count() == before


def test_what_was_loaded_is_named_for_its_values(url: str) -> None:
    loaded = opened(url, f"acquisition/{SERIES}").data.variable[:5].load()
    changed = loaded.copy(deep=True)
    assert tokenize(loaded) == tokenize(changed)
    changed[0] = 12345
    assert tokenize(loaded) != tokenize(changed)


@pytest.mark.slow
def test_variables_of_others_keep_the_tokens_that_they_have_without_this_package(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FOREIGN, str(tmp_path / "a.nc")]
    subprocess.run(command, check=True)


def test_a_lazy_array_of_others_is_still_read(url: str) -> None:
    class Foreign(xr.backends.BackendArray):
        shape, dtype = (3,), np.dtype(np.float64)
        read = 0

        def __getitem__(self, key: Any) -> Any:
            type(self).read += 1
            return np.arange(3.0)[key.tuple]

    assert issubclass(LazyArray, xr.backends.BackendArray)
    tokenize(xr.Variable("x", LazilyIndexedArray(Foreign())))
    assert Foreign.read == 1
