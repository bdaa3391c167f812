"""Sessions of the corpus, written as HDF5 by pynwb, beside what was stored and what hdmf-zarr makes of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBHDF5IO

from intake_nwbzarr import open_hierarchy, open_nwb
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.conftest import SESSIONS

_SESSIONS = [
    pytest.param(each.values, marks=each.marks, id="-".join(map(str, each.values))) for each in SESSIONS
]
ABOUT_THE_LOCATION = ("nwb_location", "nwb_storage_options")


@dataclass(frozen=True)
class Forms:
    """The paths of a session as it was stored, as HDF5, and as what hdmf-zarr makes of that."""

    original: Path
    hdf5: Path
    zarr: Path


@pytest.fixture
def forms(corpus_dir: Callable[[str, str], Path], tmp_path: Path, request: Any) -> Forms:
    """A session of a release of hdmf-zarr, which pynwb writes as HDF5: all of them can be."""
    store = corpus_dir(*request.param)
    hdf5, zarr = tmp_path / "session.nwb", tmp_path / "session.nwb.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_nwb(store) as nwbfile, NWBHDF5IO(str(hdf5), "w") as target:
            target.export(nwbfile.read_io, nwbfile=nwbfile, write_args={"link_data": False})
        with NWBHDF5IO(str(hdf5), "r") as source, NWBZarrIO(str(zarr), "w") as target:
            target.export(source, write_args={"link_data": False})
    return Forms(store, hdf5, zarr)


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


def _as_written_now(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with what pynwb writes in its own version, whatever it read."""
    dataset.attrs.pop("nwb_version", None)
    # The type of the table of electrodes since NWB 2.9.
    for name, value in dataset.attrs.items():
        if str(name).endswith("neurodata_type") and value == "ElectrodesTable":
            dataset.attrs[name] = "DynamicTable"
    return dataset


@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.UnconsolidatedWarning")
@pytest.mark.parametrize("forms", _SESSIONS, indirect=True)
def test_a_session_is_the_same_hierarchy_dataset_and_tree_in_both_formats(forms: Forms) -> None:
    assert _described(open_hierarchy(forms.hdf5)) == _described(open_hierarchy(forms.zarr))

    def dataset(path: Path) -> xr.Dataset:
        return _without_location(xr.open_dataset(path, engine="nwbzarr").load())

    def tree(path: Path) -> dict[str, xr.Dataset]:
        opened = xr.open_datatree(path, engine="nwbzarr").load()
        return {name: _without_location(opened[name].to_dataset(inherit=False)) for name in opened.groups}

    hdf5, whole = dataset(forms.hdf5), tree(forms.hdf5)
    xr.testing.assert_identical(hdf5, dataset(forms.zarr))
    xr.testing.assert_identical(_as_written_now(hdf5), _as_written_now(dataset(forms.original)))
    again, original = tree(forms.zarr), tree(forms.original)
    assert whole.keys() == again.keys() == original.keys()
    for name, each in whole.items():
        xr.testing.assert_identical(each, again[name])
        xr.testing.assert_identical(_as_written_now(each), _as_written_now(original[name]))
