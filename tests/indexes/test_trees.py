"""A DataTree of lazy times does what one of times in memory does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from intake_nwbzarr.indexes import LazyTimeIndex
from tests.indexes.twins import Twins, assert_equal, irregular_twins, regular_twins

FAST = regular_twins(0.1, 29.97, 60)
SLOW = irregular_twins(np.cumsum(np.arange(20)) / 80)
PICKED = Twins(*(ds.isel(time=[1, 2, 5, 11]) for ds in vars(FAST).values()))


def trees() -> tuple[xr.DataTree, xr.DataTree]:
    def tree(which: str) -> xr.DataTree:
        fast, slow, picked = (getattr(pair, which) for pair in (FAST, SLOW, PICKED))
        nodes = {"fast": fast, "fast/parts": fast.drop_vars("data"), "slow": slow, "picked": picked}
        return xr.DataTree.from_dict(nodes)

    return tree("lazy"), tree("plain")


def assert_trees_equal(found: xr.DataTree, expected: xr.DataTree) -> None:
    nodes, others = ({node.path: node for node in tree.subtree} for tree in (found, expected))
    assert set(nodes) == set(others)
    for path, other in others.items():
        assert_equal(nodes[path].to_dataset(), other.to_dataset())


OPERATIONS: dict[str, Callable[[xr.DataTree], xr.DataTree]] = {
    "built": lambda tree: tree,
    "sel with a slice": lambda tree: tree.sel(time=slice(0.2, 1.5)),
    "sel with a method": lambda tree: tree.sel(time=[0.2, 0.9], method="nearest"),
    "isel with a slice": lambda tree: tree.isel(time=slice(1, 3)),
    "isel with positions": lambda tree: tree.isel(time=[3, 0, 1]),
    "map_over_datasets": lambda tree: tree.map_over_datasets(
        lambda ds: ds.isel(time=slice(1, None)) if ds else ds
    ),
    "mean": lambda tree: tree.map_over_datasets(lambda ds: ds.mean("time") if ds else ds),
    "arithmetic": lambda tree: tree + tree,
    "copy": lambda tree: tree.copy(deep=True),
    "chunk": lambda tree: tree.chunk({"time": 7}),
    "load": lambda tree: tree.load(),
    "filter": lambda tree: tree.filter(lambda node: "data" in node),
    "a child of the same time": lambda tree: tree.assign(
        {"more": xr.DataTree(tree["fast"].to_dataset().isel(time=slice(3)))}
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_on_a_tree_is_that_of_times_in_memory(name: str) -> None:
    lazy, plain = trees()
    assert_trees_equal(OPERATIONS[name](lazy), OPERATIONS[name](plain))


def test_children_inherit_a_lazy_time_of_their_parent() -> None:
    lazy, plain = trees()
    for found, expected in ((lazy, plain), (lazy.isel(time=slice(2)), plain.isel(time=slice(2)))):
        child = found["fast/parts"]
        assert_equal(child.to_dataset(), expected["fast/parts"].to_dataset())
        assert isinstance(child.xindexes["time"], LazyTimeIndex)


def test_a_child_of_another_time_than_its_parents_is_refused() -> None:
    for pair in (FAST, SLOW, PICKED):
        for which in ("lazy", "plain"):
            parent, other = getattr(FAST, which), getattr(pair, which).isel(time=slice(1, 4))
            with pytest.raises(ValueError, match="not aligned with its parents"):
                xr.DataTree.from_dict({"/": parent, "/child": other})


@pytest.mark.parametrize("chunks", [None, {"time": 5}])
def test_a_tree_is_written_to_zarr_and_read_again(tmp_path: Path, chunks: Any) -> None:
    lazy, plain = trees()
    written = lazy if chunks is None else lazy.chunk(chunks)
    written.to_zarr(tmp_path / "tree.zarr", consolidated=False)
    with xr.open_datatree(tmp_path / "tree.zarr", engine="zarr", consolidated=False) as again:
        assert_trees_equal(again.load(), plain)


def test_a_tree_is_written_to_netcdf_and_read_again(tmp_path: Path) -> None:
    lazy, plain = trees()
    lazy.to_netcdf(tmp_path / "tree.nc", engine="netcdf4")
    with xr.open_datatree(tmp_path / "tree.nc", engine="netcdf4") as again:
        assert_trees_equal(again.load(), plain)
