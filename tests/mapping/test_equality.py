"""Every series and table of every release's file, beside what pynwb gives."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hdmf.common import DynamicTable
from hdmf.common.table import VectorIndex
from hdmf.container import AbstractContainer, Data
from pynwb import NWBFile, TimeSeries

from intake_nwbzarr.errors import UnconsolidatedWarning
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, open_hierarchy
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.views import open_group, open_session, open_tree
from intake_nwbzarr.raw import open_nwb
from tests.conftest import KINDS, RELEASES
from tests.mapping.test_timeseries import in_units


@dataclass
class Session:
    hierarchy: Hierarchy
    nwbfile: NWBFile
    flat: xr.Dataset

    def objects(self, kind: type | tuple[type, ...]) -> Iterator[tuple[str, Any]]:
        """The raw objects of a kind and where they are stored, told by their ids."""
        for path in self.hierarchy:
            number = self.hierarchy[path].attributes.get("object_id")
            found = self.nwbfile.objects.get(number)
            if isinstance(found, kind) and path:
                yield path, found

    def alone(self, group: str) -> xr.Dataset:
        return open_group(self.hierarchy, group, MappingOptions())


@pytest.fixture(scope="module", params=[f"{kind}-{release}" for kind in KINDS for release in RELEASES])
def session(request: pytest.FixtureRequest, corpus_dir: Callable[[str, str], Path]) -> Iterator[Session]:
    kind, _, release = request.param.partition("-")
    path = corpus_dir(kind, release)
    # The two oldest releases consolidate nothing, which opening warns of.
    with warnings.catch_warnings(action="ignore", category=UnconsolidatedWarning), open_nwb(path) as nwbfile:
        hierarchy = open_hierarchy(path)
        yield Session(hierarchy, nwbfile, open_session(hierarchy, MappingOptions()))


def times_of(series: TimeSeries) -> np.ndarray[Any, Any]:
    if series.timestamps is not None:
        return np.asarray(series.timestamps)
    return series.starting_time + np.arange(len(series.data)) / series.rate


def test_each_series_alone_and_in_the_whole_session(session: Session) -> None:
    flat = session.flat
    paths = {
        variable.attrs.get("nwb_path"): name
        for name, variable in flat.data_vars.items()
        if variable.attrs.get("nwb_path") in session.hierarchy
    }
    found = dict(session.objects(TimeSeries))
    assert found
    for path, series in found.items():
        alone, flat_name = session.alone(path), paths[path]
        for data in (alone["data"], flat[flat_name]):
            np.testing.assert_array_equal(data.values, in_units(series))
            assert data.attrs["units"] == series.unit
            assert data.attrs["neurodata_type"] == series.neurodata_type
        np.testing.assert_array_equal(alone["time"].values, times_of(series))
        if series.data.shape[0] > 0:
            time = flat[flat_name].dims[0]
            np.testing.assert_array_equal(flat[time].values, times_of(series))


def test_each_table_alone_and_in_the_whole_session(session: Session) -> None:
    flat = session.flat
    for path, table in session.objects(DynamicTable):
        # The categories of an aligned table are part of it.
        if isinstance(table.parent, DynamicTable):
            continue
        alone = session.alone(path)
        row = next(dimension for dimension in alone.dims if dimension in alone.indexes)
        assert list(alone[row].values) == list(table.id[:])
        assert list(flat[table.name].values) == list(table.id[:])
        for column in table.columns:
            if isinstance(column, VectorIndex):
                continue
            check_column(alone, table, column, column.name)
            check_column(flat, table, column, f"{table.name}_{column.name}")


def check_column(dataset: xr.Dataset, table: DynamicTable, column: Any, name: str) -> None:
    stored = np.asarray(column.data)
    if stored.dtype.names is not None or (
        stored.dtype == object and not all(isinstance(v, str) for v in stored)
    ):
        return  # compounds and references have tests of their own
    np.testing.assert_array_equal(dataset[name].values, stored)
    if f"{name}_start" in dataset:
        starts, counts = dataset[f"{name}_start"].values, dataset[f"{name}_count"].values
        (index,) = (each for each in table.columns if getattr(each, "target", None) is column)
        np.testing.assert_array_equal(starts + counts, np.asarray(index.data))


def test_every_object_is_in_the_tree(session: Session) -> None:
    tree = xr.DataTree.from_dict(open_tree(session.hierarchy, MappingOptions()))
    assert "nwb_unmapped" not in tree.attrs
    shown = {node.attrs.get("nwb_path"): node.attrs.get("neurodata_type") for node in tree.subtree}
    for path, found in session.objects(AbstractContainer):
        # Columns, images and regions are variables; the categories of an aligned table are part of it.
        if isinstance(found, Data) or isinstance(found.parent, DynamicTable):
            continue
        assert shown[path] == session.hierarchy[path].neurodata_type
