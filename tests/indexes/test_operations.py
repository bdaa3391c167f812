"""Every operation of xarray gives what it gives with timestamps in memory, or raises one clear error."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize

from tests.indexes.twins import (
    Twins,
    assert_equal,
    assert_same,
    irregular_twins,
    regular_twins,
)

SIZE = 24
MAKERS = {
    "regular": lambda: regular_twins(0.1, 10.0, SIZE),
    "backwards": lambda: Twins(
        *(ds.isel(time=slice(None, None, -2)) for ds in vars(regular_twins(0.1, 10.0, 2 * SIZE)).values())
    ),
    "irregular": lambda: irregular_twins(np.cumsum(np.arange(SIZE)) / 8),
    "picked": lambda: Twins(
        *(ds.isel(time=np.cumsum([1, 1, 2] * 8)) for ds in vars(regular_twins(0.1, 29.97, 40)).values())
    ),
    "one sample": lambda: regular_twins(0.7, 1 / 3, 1),
    "no sample": lambda: irregular_twins(np.array([], dtype=np.float32)),
}

Operation = Callable[[xr.Dataset], Any]


def by_fives(ds: xr.Dataset) -> xr.DataArray:
    return (ds["count"] // 5).rename("part")


def by_remainder(ds: xr.Dataset) -> xr.DataArray:
    return (ds["count"] % 3).rename("part")


def first(ds: xr.Dataset) -> xr.Dataset:
    return ds.isel(time=slice(0, 14))


def last(ds: xr.Dataset) -> xr.Dataset:
    return ds.isel(time=slice(9, None))


OPERATIONS: dict[str, Operation] = {
    "load": lambda ds: ds.load(),
    "compute": lambda ds: ds.compute(),
    "chunk": lambda ds: ds.chunk({"time": 5}),
    "chunk and select": lambda ds: ds.chunk({"time": 5}).sel(time=slice(0.5, 1.5)).mean("time"),
    "copy": lambda ds: ds.copy(),
    "deep copy": lambda ds: ds.copy(deep=True),
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda ds: pickle.loads(pickle.dumps(ds)),
    "pickle of chunks": lambda ds: pickle.loads(pickle.dumps(ds.chunk({"time": 7}))),
    "arithmetic": lambda ds: ds * 2 + ds,
    "arithmetic with a copy": lambda ds: ds.data + copy.deepcopy(ds).data,
    "arithmetic of overlapping parts": lambda ds: first(ds) + last(ds),
    "arithmetic of three overlapping parts": lambda ds: first(ds).data + last(ds).data + ds.data,
    "arithmetic of strided and whole": lambda ds: ds.data - ds.data.isel(time=slice(None, None, 3)),
    "comparison with the coordinate": lambda ds: ds.where(ds.time > 0.7),
    "where, dropping": lambda ds: ds.where(ds.time > 0.7, drop=True),
    "where of a part": lambda ds: ds.data.where(ds["count"] > 3, -1),
    "reduction": lambda ds: ds.mean("time"),
    "reduction over channels": lambda ds: ds.data.sum("channel"),
    "position of the largest": lambda ds: ds["count"].idxmax(),
    "isel with a list": lambda ds: ds.isel(time=[3, 1, 1]),
    "isel with a mask": lambda ds: ds.isel(time=ds["count"].values % 5 == 0),
    "isel pointwise": lambda ds: ds.isel(
        time=xr.DataArray([1, 2], dims="event"), channel=xr.DataArray([0, 1], dims="event")
    ),
    "isel with an array of its own dimension": lambda ds: ds.isel(time=xr.DataArray([2, 4], dims="time")),
    "index with a boolean array": lambda ds: ds.data[ds["count"] > 5],
    "loc": lambda ds: ds.data.loc[0.5:1.5],
    "head": lambda ds: ds.head(time=3),
    "tail": lambda ds: ds.tail(time=3),
    "thin": lambda ds: ds.thin(time=4),
    "drop_isel": lambda ds: ds.drop_isel(time=[0, 5]),
    "drop_sel": lambda ds: ds.drop_sel(time=ds.time.values[:3]),
    "dropna": lambda ds: ds.where(ds["count"] != 3).dropna("time"),
    "sel with its own coordinate": lambda ds: ds.sel(time=ds.time[2:6]),
    "sel with another coordinate": lambda ds: ds.sel(time=last(ds).time, method="nearest"),
    "concat of neighbours": lambda ds: xr.concat(
        [ds.isel(time=slice(0, 9)), ds.isel(time=slice(9, None))], "time"
    ),
    "concat of parts apart": lambda ds: xr.concat(
        [ds.isel(time=slice(0, 4)), ds.isel(time=slice(9, None))], "time"
    ),
    "concat of parts in another order": lambda ds: xr.concat([last(ds), first(ds)], "time"),
    "concat with itself": lambda ds: xr.concat([ds, ds], "time"),
    "concat of a part in memory first": lambda ds: xr.concat([ds.isel(time=[1, 5]), last(ds)], "time"),
    "concat of a part in memory last": lambda ds: xr.concat([last(ds), ds.isel(time=[1, 5])], "time"),
    "concat of scalars": lambda ds: xr.concat([ds.isel(time=4), ds.isel(time=2)], "time"),
    "concat of empty parts": lambda ds: xr.concat(
        [ds.isel(time=slice(0, 0)), ds.isel(time=slice(0, 0)), ds], "time"
    ),
    "concat along another dimension": lambda ds: xr.concat([ds, ds], "session"),
    "concat of parts along another dimension": lambda ds: xr.concat(
        [first(ds), last(ds)], "session", join="outer"
    ),
    "combine_by_coords": lambda ds: xr.combine_by_coords(
        [ds.isel(time=slice(9, None)), ds.isel(time=slice(0, 9))]
    ),
    "align inner": lambda ds: xr.align(first(ds), last(ds), join="inner"),
    "align outer": lambda ds: xr.align(first(ds), last(ds), join="outer"),
    "align outer with a gap": lambda ds: xr.align(
        ds.isel(time=slice(0, 3)), ds.isel(time=slice(9, 12)), join="outer"
    ),
    "align left": lambda ds: xr.align(first(ds), last(ds), join="left"),
    "align right": lambda ds: xr.align(first(ds), last(ds), join="right"),
    "align three": lambda ds: xr.align(first(ds), last(ds), ds.isel(time=slice(2, 20, 3)), join="inner"),
    "align three outer": lambda ds: xr.align(
        first(ds), ds.isel(time=slice(2, 20, 3)), last(ds), join="outer"
    ),
    "align override": lambda ds: xr.align(ds, ds + 1, join="override"),
    "align exact": lambda ds: xr.align(ds, ds.copy(deep=True), join="exact"),
    "align exact of parts": lambda ds: xr.align(first(ds), last(ds), join="exact"),
    "align with strides": lambda ds: xr.align(
        ds.isel(time=slice(0, None, 2)), ds.isel(time=slice(1, None, 3)), join="inner"
    ),
    "align with an empty part": lambda ds: xr.align(ds, ds.isel(time=slice(0, 0)), join="outer"),
    "merge": lambda ds: xr.merge([ds[["data"]], ds[["count"]]]),
    "merge of parts": lambda ds: xr.merge([first(ds)[["data"]], last(ds)[["count"]]], join="outer"),
    "combine_first": lambda ds: first(ds).combine_first(last(ds)),
    "broadcast": lambda ds: xr.broadcast(ds.data, ds["count"]),
    "reindex_like": lambda ds: first(ds).reindex_like(last(ds)),
    "reindex_like with a method": lambda ds: ds.isel(time=slice(0, None, 2)).reindex_like(
        ds, method="nearest", tolerance=0.3
    ),
    "reindex_like with padding": lambda ds: ds.isel(time=slice(1, None, 3)).reindex_like(ds, method="ffill"),
    "reindex with its own times": lambda ds: ds.reindex(time=ds.time),
    "assignment": lambda ds: ds.assign(twice=ds["count"] * 2),
    "assignment of a part": lambda ds: ds.assign(part=first(ds)["count"]),
    "assign_coords": lambda ds: ds.assign_coords(time=ds.time + 1),
    "assign_coords beside": lambda ds: ds.assign_coords(minute=ds.time // 60),
    "rename": lambda ds: ds.rename(time="when"),
    "rename and select": lambda ds: ds.rename(time="when").sel(when=slice(0.5, 1.5)),
    "drop_vars": lambda ds: ds.drop_vars("time"),
    "drop_indexes": lambda ds: ds.drop_indexes("time"),
    "all in memory": lambda ds: (
        ds.drop_indexes("time").set_xindex("time").reindex(time=[0.5, 0.7], method="nearest")
    ),
    "reset_index": lambda ds: ds.reset_index("time"),
    "reset_coords": lambda ds: ds.drop_indexes("time").reset_coords(),
    "swap_dims": lambda ds: ds.assign_coords(sample=("time", np.arange(ds.sizes["time"]))).swap_dims(
        time="sample"
    ),
    "expand_dims": lambda ds: ds.expand_dims("session"),
    "squeeze": lambda ds: ds.isel(time=slice(3, 4)).squeeze(),
    "transpose": lambda ds: ds.transpose(),
    "stack": lambda ds: ds.stack(sample=("time", "channel")).reset_index("sample"),
    "stack and unstack": lambda ds: ds.stack(sample=("time", "channel")).unstack("sample"),
    "to_stacked_array": lambda ds: ds.to_stacked_array("feature", ["time"]).reset_index("feature"),
    "to_dataframe": lambda ds: ds.to_dataframe(),
    "to_series": lambda ds: ds["count"].to_series(),
    "to_pandas": lambda ds: ds.data.to_pandas(),
    "indexes": lambda ds: ds.indexes["time"],
    "get_index": lambda ds: ds.get_index("time"),
    "to_index": lambda ds: ds.time.to_index(),
    "groupby": lambda ds: ds.groupby(by_fives(ds)).mean(),
    "groupby and back": lambda ds: ds.groupby(by_remainder(ds)).map(lambda part: part - part.mean()),
    "groupby runs and back": lambda ds: ds.groupby(by_fives(ds)).map(lambda part: part - part.mean()),
    "groupby time": lambda ds: ds.groupby("time").sum(),
    "groupby_bins": lambda ds: ds.groupby_bins("time", [0, 1, 2, 3]).mean(),
    "groupby_bins and back": lambda ds: ds.groupby_bins("time", [0, 1, 20, 100]).map(lambda part: part + 1),
    "rolling": lambda ds: ds.rolling(time=3).mean(),
    "rolling construct": lambda ds: ds.data.rolling(time=3, center=True).construct("window"),
    "coarsen": lambda ds: ds.coarsen(time=5, boundary="trim").mean(),
    "coarsen construct": lambda ds: ds.coarsen(time=4).construct(time=("block", "sample")),
    "cumsum": lambda ds: ds.cumsum("time"),
    "diff": lambda ds: ds.diff("time"),
    "diff of the coordinate": lambda ds: ds.time.diff("time"),
    "interp": lambda ds: ds.interp(time=[0.33, 0.5, 1.1]),
    "interp_like": lambda ds: ds.isel(time=slice(0, None, 3)).interp_like(first(ds)),
    "plot": lambda ds: ds["count"].plot()[0].get_xdata(),
    "plot of several channels": lambda ds: ds.data.plot.line(x="time")[1].get_xdata(),
    "plot of an image": lambda ds: ds.data.plot.pcolormesh(x="time").get_coordinates(),
    "resample": lambda ds: ds.resample(time="1s").mean(),
    "resample by bins": lambda ds: ds.groupby_bins("time", np.arange(0.0, 4.0, 0.5), right=False).mean(),
    "onto other times": lambda ds: ds.sel(time=[0.2, 0.52, 1.0], method="nearest", tolerance=0.5),
    "interp, nearest": lambda ds: ds.interp(time=ds.time[1:3] + 0.01, method="nearest"),
    "weighted": lambda ds: ds.data.weighted(ds["count"] + 1).mean("time"),
    "cumulative integral": lambda ds: ds.data.cumulative_integrate("time"),
    "shift": lambda ds: ds.shift(time=2),
    "roll": lambda ds: ds.roll(time=3),
    "roll with coordinates": lambda ds: ds.roll(time=3, roll_coords=True),
    "pad": lambda ds: ds.pad(time=2),
    "sortby": lambda ds: ds.sortby("time"),
    "sortby, backwards": lambda ds: ds.sortby("time", ascending=False),
    "sortby values": lambda ds: ds.sortby(-ds["count"]),
    "differentiate": lambda ds: ds.differentiate("time"),
    "integrate": lambda ds: ds.integrate("time"),
    "polyfit": lambda ds: ds["count"].polyfit("time", 1) if ds.sizes["time"] > 1 else ds,
    "interpolate_na": lambda ds: ds.where(ds["count"] != 3).interpolate_na("time"),
    "ffill by hand": lambda ds: ds.where(ds["count"] % 2 == 0).fillna(0.0),
    "quantile": lambda ds: ds.quantile(0.5, "time"),
    "map_blocks": lambda ds: ds.chunk({"time": 6}).map_blocks(lambda block: block + 1),
    "apply_ufunc": lambda ds: xr.apply_ufunc(np.sqrt, ds),
    "dot": lambda ds: xr.dot(ds.data, ds["count"], dim="time"),
    "cov": lambda ds: xr.cov(ds.data, ds["count"], dim="time"),
    "equals": lambda ds: ds.equals(copy.deepcopy(ds)),
    "identical": lambda ds: ds.identical(pickle.loads(pickle.dumps(ds))),
    "identical to a part": lambda ds: ds.identical(first(ds)),
    "broadcast_equals": lambda ds: ds.broadcast_equals(ds.copy(deep=True)),
    "DataTree": lambda ds: (
        xr.DataTree.from_dict({"/": ds.drop_vars("data"), "/a": ds})
        .sel(time=slice(0.5, 1.5))["a"]
        .to_dataset()
    ),
    "unify_chunks": lambda ds: xr.unify_chunks(ds.chunk({"time": 4}), ds.chunk({"time": 5})),
    "set_coords": lambda ds: ds.set_coords("count").data.sel(time=slice(0.5, 1)),
    "argmin": lambda ds: ds.isel(ds["count"].argmin(...)),
    "persist": lambda ds: ds.chunk({"time": 5}).persist(scheduler="synchronous"),
    "stack of a coordinate": lambda ds: ds.time.expand_dims(session=2).stack(both=("session", "time")).values,
    "numpy functions": lambda ds: np.sin(ds.time) + np.asarray(ds.time),
}


# What numpy thinks of statistics of no sample, and matplotlib of one, is the same for both.
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:.*identical low and high")
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_what_it_gives_with_timestamps_in_memory(name: str, kind: str) -> None:
    assert_same(MAKERS[kind](), OPERATIONS[name])


@pytest.fixture(autouse=True)
def _no_windows() -> None:
    mpl.use("Agg")


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("chunks", [None, 5])
def test_writing_to_zarr_and_back_keeps_every_value(
    kind: str, chunks: dict[str, int] | None, tmp_path: Path
) -> None:
    pair = MAKERS[kind]()
    written = pair.lazy if chunks is None else pair.lazy.chunk(chunks)
    written.to_zarr(tmp_path / "out.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "out.zarr", consolidated=False) as again:
        xr.testing.assert_equal(again.load(), pair.plain)


@pytest.mark.parametrize("kind", MAKERS)
def test_writing_to_netcdf_and_back_keeps_every_value(kind: str, tmp_path: Path) -> None:
    pair = MAKERS[kind]()
    pair.lazy.to_netcdf(tmp_path / "out.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "out.nc", engine="netcdf4") as again:
        xr.testing.assert_equal(again.load(), pair.plain)


@pytest.mark.parametrize("kind", MAKERS)
def test_tokens_of_equal_coordinates_are_equal_and_of_others_are_not(kind: str) -> None:
    one, other = MAKERS[kind]().lazy.time.variable, MAKERS[kind]().lazy.time.variable
    assert tokenize(one) == tokenize(other)
    assert tokenize(one) == tokenize(pickle.loads(pickle.dumps(one)))
    part = MAKERS[kind]().lazy.isel(time=slice(1, None)).time.variable
    assert (tokenize(one) == tokenize(part)) == (len(one) == 0)


@pytest.mark.parametrize("kind", MAKERS)
def test_labels_of_another_class_of_index_are_refused_and_the_remedy_works(kind: str) -> None:
    pair = MAKERS[kind]()
    labels = [0.33, 0.9]
    with pytest.raises(xr.AlignmentError, match="conflicting indexes"):
        pair.lazy.reindex(time=labels, method="nearest")
    in_memory = pair.lazy.drop_indexes("time").set_xindex("time")
    expected = pair.plain.sortby("time").reindex(time=labels, method="nearest")
    assert_equal(in_memory.sortby("time").reindex(time=labels, method="nearest"), expected)
