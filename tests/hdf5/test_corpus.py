"""Sessions of the corpus, written as HDF5 by pynwb, beside what hdmf-zarr makes of these files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBHDF5IO

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.conftest import SESSIONS

_SESSIONS = [
    pytest.param(each.values, marks=each.marks, id="-".join(map(str, each.values)))
    for each in SESSIONS
    if each.values[1] == "0.14.0"  # hdmf-zarr writes no others as HDF5: they are Zarr 2
]
ABOUT_THE_LOCATION = ("nwb_location", "nwb_storage_options")


@pytest.fixture
def both(corpus_dir: Callable[[str, str], Path], tmp_path: Path, request: Any) -> tuple[Path, Path]:
    """A session as HDF5, and what hdmf-zarr makes of that."""
    store = corpus_dir(*request.param)
    hdf5, zarr = tmp_path / "session.nwb", tmp_path / "session.nwb.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBZarrIO(str(store), "r") as source, NWBHDF5IO(str(hdf5), "w") as target:
            target.export(source, nwbfile=source.read(), write_args={"link_data": False})
        with NWBHDF5IO(str(hdf5), "r") as source, NWBZarrIO(str(zarr), "w") as target:
            target.export(source, write_args={"link_data": False})
    return hdf5, zarr


def _described(hierarchy: Hierarchy) -> dict[str, Any]:
    """Return all nodes but the cached schemas, without what only one of the two formats can have."""
    found: dict[str, Any] = {}
    for path, node in hierarchy.items():
        if path.startswith("specifications"):
            continue
        attributes = {**node.attributes}
        # hdmf-zarr's names of dimensions, which HDF5 has none of.
        attributes.pop("_ARRAY_DIMENSIONS", None)
        links = {link["name"]: (link["source"], link["path"]) for link in attributes.pop("_LINKS", [])}
        shape = (node.shape, node.metadata["data_type"]) if isinstance(node, ArrayNode) else None
        found[path] = shape, attributes, links
    return found


def _without_location(dataset: xr.Dataset) -> xr.Dataset:
    for holder in (dataset, *dataset.variables.values()):
        for name in ABOUT_THE_LOCATION:
            holder.attrs.pop(name, None)
    return dataset


@pytest.mark.parametrize("both", _SESSIONS, indirect=True)
def test_a_session_is_the_same_hierarchy_dataset_and_tree_in_both_formats(both: tuple[Path, Path]) -> None:
    hdf5, zarr = both
    assert _described(open_hierarchy(hdf5)) == _described(open_hierarchy(zarr))
    first, second = (
        _without_location(xr.open_dataset(path, engine="nwbzarr").load()) for path in (hdf5, zarr)
    )
    xr.testing.assert_identical(first, second)
    first_tree, second_tree = (xr.open_datatree(path, engine="nwbzarr").load() for path in (hdf5, zarr))
    assert set(first_tree.groups) == set(second_tree.groups)
    for group in first_tree.groups:
        xr.testing.assert_identical(
            _without_location(first_tree[group].to_dataset(inherit=False)),
            _without_location(second_tree[group].to_dataset(inherit=False)),
        )
