"""Verifying: what pynwb and xarray give of a session of everything is the same, and what is not is found."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hdmf.common import DynamicTable, VectorData
from hdmf.container import AbstractContainer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynwb import NWBFile, TimeSeries

from intake_nwbzarr import open_hierarchy, open_nwb, verify
from intake_nwbzarr.errors import LocationNotFoundError, MetadataError
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.prepare.verify import Difference, Equal, Unshown, Verification, compare
from intake_nwbzarr.prepare.verify.session import compare_container
from intake_nwbzarr.prepare.verify.sides import Sides
from tests.conftest import KINDS, RELEASES
from tests.neurodata.core_schema import PARENTS
from tests.neurodata.event_waveform import NAME as EVENT_WAVEFORM
from tests.neurodata.event_waveform import TIMES, event_waveform
from tests.neurodata.every_type import every_type
from tests.neurodata.extension_files import extension_files, without_schemas
from tests.neurodata.small_files import edit, empty_session, write

# Both libraries warn of the oddities that are in these files on purpose.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.NWBZarrWarning"),
]

# Types that no file holds by themselves, and one that pynwb cannot read.
NOT_IN_THE_FILE = {
    "BaseImage": "an abstract type",
    "Container": "an abstract type",
    "NWBContainer": "an abstract type",
    "NWBData": "an abstract type",
    "NWBDataInterface": "an abstract type",
    "CSRMatrix": "nothing in the core schema holds one: it is in the file of an extension",
    "SimpleMultiContainer": "nothing in the core schema holds one: it is in the file of an extension",
    "EventWaveform": "pynwb 4.2 cannot read a file that holds one: it has a file of its own",
}

# What xarray shows of its own making, beside what the file holds: nothing to compare it with.
OWN_VARIABLES = ("_name", "device", "axis", "color", "waveform_time", "external_file_time", "image")
OWN_ATTRIBUTES = ("nwb_location", "nwb_group", "nwb_axis_order", "time_offset", "units")


@dataclass(frozen=True)
class Opened:
    """Both sides of one file."""

    nwbfile: NWBFile
    hierarchy: Hierarchy
    tree: xr.DataTree
    as_stored: xr.DataTree

    def compare(self, tree: xr.DataTree | None = None) -> Verification:
        shown = self.tree if tree is None else tree
        return compare(self.nwbfile, shown, self.hierarchy, as_stored=self.as_stored)


def open_both(path: Path, raw: Path | None = None) -> Opened:
    """A file; `raw` is a copy of it that pynwb is to read instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Opened(
            open_nwb(raw or path),
            open_hierarchy(path),
            xr.open_datatree(path, engine="nwbzarr"),
            xr.open_datatree(path, engine="nwbzarr", mask_and_scale=False),
        )


def assert_all_equal(found: Verification) -> None:
    assert found.different == ()
    assert found.unshown == ()
    assert found.equal


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = every_type(tmp_path_factory.mktemp("everything"))
    return open_both(path)


@pytest.fixture(scope="module")
def extensions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return extension_files(tmp_path_factory.mktemp("extensions"))


def test_the_session_holds_an_object_of_every_type_of_the_schema(everything: Opened) -> None:
    nodes = [everything.hierarchy[path] for path in everything.hierarchy]
    there = {node.neurodata_type for node in nodes if not node.path.startswith("specifications")}
    assert set(PARENTS) - there == set(NOT_IN_THE_FILE)


def test_pynwb_reads_every_object_of_the_session(everything: Opened) -> None:
    identifiers = {
        node.attributes["object_id"]
        for node in map(everything.hierarchy.__getitem__, everything.hierarchy)
        if node.neurodata_type is not None
    }
    assert identifiers == set(everything.nwbfile.objects)


def test_all_of_the_session_of_every_type_is_shown_as_it_is(everything: Opened) -> None:
    found = everything.compare()
    assert_all_equal(found)
    counts = found.by_type()
    assert set(counts) >= {name for name in PARENTS if name not in NOT_IN_THE_FILE} - PARTS
    assert sum(equal for equal, _, _ in counts.values()) == len(found.equal)
    assert str(found).endswith(f"{len(found.equal)} fields equal, 0 different, 0 not shown.")


# Arrays that are compared with the table or the object they are in, and counted there.
PARTS = {"Data", "ElementIdentifiers", "VectorIndex", "ImageReferences"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "release",
    [
        release if release in {"0.3.0", "0.8.0", "0.14.0"} else pytest.param(release, marks=pytest.mark.slow)
        for release in RELEASES
    ],
)
def test_all_of_a_file_of_any_release_is_shown_as_it_is(
    kind: str, release: str, corpus_dir: Callable[[str, str], Path]
) -> None:
    assert_all_equal(verify(corpus_dir(kind, release)))


@pytest.mark.parametrize("name", ["pose", "events", "holder"])
def test_all_of_an_extensions_file_is_shown_as_it_is(name: str, extensions: dict[str, Path]) -> None:
    found = verify(extensions[name])
    assert_all_equal(found)
    added = {"pose": "PoseEstimationSeries", "events": "CategoricalVectorData", "holder": "CSRMatrix"}
    assert added[name] in found.by_type()


def test_objects_of_an_unknown_schema_are_mapped_by_their_shape(extensions: dict[str, Path]) -> None:
    path = without_schemas(extensions["holder"])
    with pytest.raises(MetadataError, match="ndx-holder"):
        verify(path)
    # pynwb has to know the schema, so it reads the file that still holds it.
    assert_all_equal(open_both(path, raw=extensions["holder"]).compare())


def test_a_file_that_pynwb_cannot_read_is_one_clear_error_and_xarray_opens_it(tmp_path: Path) -> None:
    path = event_waveform(tmp_path)
    with pytest.raises(
        MetadataError, match=r"pynwb cannot read .*event_waveform.*departs from the schema; xarray"
    ):
        verify(path)
    snippets = xr.open_datatree(path, engine="nwbzarr")[f"{EVENT_WAVEFORM}/snippets"].to_dataset()
    assert snippets.data.dims == ("event", "channel", "sample")
    np.testing.assert_array_equal(snippets.data, np.arange(36).reshape(3, 2, 6))
    np.testing.assert_array_equal(snippets.time, TIMES)


def test_a_column_called_data_does_not_stand_for_its_table(tmp_path: Path) -> None:
    nwbfile = empty_session()
    data = VectorData(name="data", description="of the column", data=[1.0, 2.0])
    table = DynamicTable(name="t", description="of the table", columns=[data])
    nwbfile.create_processing_module("behavior", "d").add(table)
    found = verify(write(tmp_path, nwbfile))
    assert not found.different
    assert not found.unshown


def test_what_links_to_another_file_is_compared_too(tmp_path: Path) -> None:
    raw = empty_session()
    raw.add_acquisition(TimeSeries(name="raw", data=[1.0, 2.0], unit="m", rate=10.0))
    write(tmp_path, raw, "raw.nwb.zarr")
    path = write(tmp_path, empty_session(), "processed.nwb.zarr")
    links = [{"name": "linked", "source": "../raw.nwb.zarr", "path": "/acquisition/raw"}]
    edit(path, "acquisition", lambda document: document["attributes"].update(_LINKS=links))
    found = verify(path)
    assert not found.different
    assert not found.unshown
    assert {each.name for each in found.equal if each.path == "acquisition/linked"} >= {"data"}


def test_a_location_without_a_file_is_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(LocationNotFoundError):
        verify(tmp_path / "nothing.nwb.zarr")


# From here on: what is altered is found.


def containers_at(opened: Opened, path: str) -> Iterator[AbstractContainer]:
    """The objects that a node shows: its own, the bands of a series, and at the root the subject."""
    sides = Sides(opened.nwbfile, opened.tree, opened.hierarchy)
    for container in opened.nwbfile.objects.values():
        place = sides.path(container)
        own = place == path or (place == f"{path}/bands" and sides.node(place) is None)
        if own or (path == "" and container is opened.nwbfile.subject):
            yield container


def findings_of_altered(opened: Opened, path: str, dataset: xr.Dataset) -> list[Any]:
    """What comparing the objects of one node finds when the node is another Dataset, equal fields aside."""
    # A tree of that node alone, since only that one is looked at.
    altered = xr.DataTree.from_dict({place_of(opened, path): dataset})
    sides = Sides(opened.nwbfile, altered, opened.hierarchy, opened.as_stored)
    found = [
        each for container in containers_at(opened, path) for each in compare_container(container, sides)
    ]
    return [each for each in found if not isinstance(each, Equal)]


def place_of(opened: Opened, path: str) -> str:
    """Where in the tree the object of a path is: there, unless a variable has its name."""
    return f"/{path}" if f"/{path}" in opened.tree.groups else f"/{path}_"


def shown_at(opened: Opened, path: str) -> xr.Dataset:
    """A node's Dataset, whose attributes may be altered."""
    dataset = opened.tree[place_of(opened, path)].to_dataset(inherit=False).copy()
    dataset.attrs = dict(dataset.attrs)
    return dataset


def path_of(node: xr.DataTree) -> str:
    return str(node.attrs.get("nwb_path", node.path.strip("/")))


def without_indexes(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.drop_indexes(list(dataset.xindexes))


def is_own(variable: str, dataset: xr.Dataset) -> bool:
    """Whether a variable is of the mapping's own making."""
    labels_of_pixels = variable in {"x", "y", "z"} and dataset[variable].dims == (variable,)
    # Features are labels and an attribute as well.
    return variable.endswith(OWN_VARIABLES) or labels_of_pixels or variable in {"feature", "feature_units"}


@pytest.fixture(scope="module")
def variables(everything: Opened) -> list[tuple[str, str]]:
    """Every variable with values that the file holds, by the path of its object."""
    found = []
    for node in everything.tree.subtree:
        dataset = node.to_dataset(inherit=False)
        for name, variable in dataset.variables.items():
            if variable.size and not is_own(str(name), dataset):
                found.append((path_of(node), str(name)))
    return found


def another(value: Any) -> Any:
    """A value that is not this one, of the same type."""
    match value:
        case str():
            return f"{value}?"
        case bool() | np.bool_():
            return not value
        case float() | np.floating():
            return type(value)(0.5) if np.isnan(value) else type(value)(value * 1.001 + 1)
        case list():
            return [*value, "more"]
    return type(value)(value + 1)


def altered_variable(dataset: xr.Dataset, name: str, position: int) -> xr.Dataset:
    """One value of a variable is another."""
    variable = dataset.variables[name]
    values = np.array(variable.values)
    if values.dtype.kind in "SU":
        values = values.astype(object)
    flat = values.reshape(-1)
    flat[position % flat.size] = another(flat[position % flat.size])
    changed = (variable.dims, flat.reshape(values.shape), variable.attrs)
    plain = without_indexes(dataset)
    return plain.assign_coords({name: changed}) if name in plain.coords else plain.assign({name: changed})


many = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@many
@given(data=st.data())
def test_one_altered_value_is_found(
    everything: Opened, variables: list[tuple[str, str]], data: st.DataObject
) -> None:
    path, name = data.draw(st.sampled_from(variables))
    dataset = shown_at(everything, path)
    position = data.draw(st.integers(0, dataset[name].size - 1))
    if name.endswith("_start") and f"{name[:-6]}_count" in dataset.variables:
        # Where an empty row begins says nothing.
        filled = np.flatnonzero(dataset[f"{name[:-6]}_count"].values)
        if not filled.size:
            return
        position = int(filled[position % filled.size])
    found = findings_of_altered(everything, path, altered_variable(dataset, name, position))
    assert any(isinstance(each, Difference) for each in found), (path, name, position)


@many
@given(data=st.data())
def test_a_variable_that_is_missing_is_found(
    everything: Opened, variables: list[tuple[str, str]], data: st.DataObject
) -> None:
    path, name = data.draw(st.sampled_from(variables))
    missing = without_indexes(shown_at(everything, path)).drop_vars(name)
    found = findings_of_altered(everything, path, missing)
    assert found, (path, name)


@many
@given(data=st.data())
def test_an_altered_or_missing_attribute_is_found(everything: Opened, data: st.DataObject) -> None:
    nodes = [node for node in everything.tree.subtree if set(node.attrs) - set(OWN_ATTRIBUTES)]
    node = data.draw(st.sampled_from(nodes))
    path = path_of(node)
    dataset = shown_at(everything, path)
    name = data.draw(st.sampled_from(sorted(set(dataset.attrs) - set(OWN_ATTRIBUTES))))
    if path and name in everything.tree.attrs:
        return  # whose session it is: repeated from the root
    dataset.attrs[name] = another(dataset.attrs[name])
    assert findings_of_altered(everything, path, dataset), (path, name)


@many
@given(data=st.data())
def test_an_altered_attribute_of_data_is_found(everything: Opened, data: st.DataObject) -> None:
    series = [node for node in everything.tree.subtree if "data" in node.variables]
    node = data.draw(st.sampled_from(series))
    path = path_of(node)
    dataset = without_indexes(shown_at(everything, path))
    attributes = dataset["data"].attrs
    # `features` are the labels of a dimension, too; those are compared. Roles are not in the file.
    others = {"nwb_axis_order", "nwb_role", "nwb_core_type", "features"}
    name = data.draw(st.sampled_from(sorted(set(attributes) - others)))
    altered = dataset["data"].variable.copy(deep=False)
    altered.attrs = {**attributes, name: another(attributes[name])}
    dataset["data"] = altered
    assert findings_of_altered(everything, path, dataset), (path, name)


def test_missing_nodes_are_found(everything: Opened) -> None:
    missing = {
        "acquisition/electrical",
        "units",
        "general/devices/probe",
        "stimulus/templates/shapes",
        "processing/ophys/retinotopy",
        "general/external_resources",
        "scratch/an array",
    }
    kept = {
        node.path: node.to_dataset(inherit=False)
        for node in everything.tree.subtree
        if node.path.strip("/") not in missing
    }
    found = everything.compare(xr.DataTree.from_dict(kept))
    assert {(each.path, each.name) for each in found.unshown} == {(path, "") for path in missing}
    assert found.different == ()


@pytest.mark.parametrize(
    ("alter", "path"),
    [
        (lambda data: data * (1 + 1e-9), "acquisition/electrical"),
        (lambda data: data.astype("float32"), "acquisition/electrical"),
        (lambda data: data.astype("int32"), "acquisition/waveforms"),
        (lambda data: data[::-1], "acquisition/waveforms"),
        (lambda data: data[1:], "acquisition/waveforms"),
    ],
    ids=["nearly the same", "less precise", "another type", "another order", "too short"],
)
def test_data_that_are_nearly_right_are_found(
    alter: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], path: str, everything: Opened
) -> None:
    dataset = without_indexes(shown_at(everything, path)).drop_vars("time")
    variable = dataset.variables["data"]
    values = alter(np.array(variable.values))
    dims = ("other", *variable.dims[1:])
    changed = dataset.drop_vars("data").assign({"data": (dims, values, variable.attrs)})
    found = findings_of_altered(everything, path, changed)
    assert "data" in {each.name for each in found if isinstance(each, Difference)}


def test_channel_conversion_lies_along_the_channels_and_not_along_the_samples(everything: Opened) -> None:
    path = "acquisition/snippets by channel"
    series = everything.nwbfile.acquisition["snippets by channel"]
    dataset = shown_at(everything, path)
    stored, factors = series.data[:], np.array(series.channel_conversion[:])
    np.testing.assert_allclose(dataset.data, stored * 1e-3 * factors[:, np.newaxis])
    wrong = without_indexes(dataset).assign(
        data=(dataset.data.dims, stored * 1e-3 * factors[:, np.newaxis, np.newaxis], dataset.data.attrs)
    )
    found = findings_of_altered(everything, path, wrong)
    assert [(each.path, each.name) for each in found] == [(path, "data")]


def test_what_changes_in_the_store_between_the_two_readings_is_found(
    corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    before = corpus_dir("ecephys", "0.14.0")
    after = tmp_path / before.name
    shutil.copytree(before, after)
    data: Any = zarr.open_group(after, mode="r+", use_consolidated=False)[
        "acquisition/ElectricalSeriesAP/data"
    ]
    data[17, 3] = data[17, 3] + 1
    found = open_both(after, raw=before).compare()
    assert {(each.path, each.name) for each in found.different} == {
        ("acquisition/ElectricalSeriesAP", "data"),
        ("acquisition/ElectricalSeriesAP", "data as stored"),
    }
    (stored,) = (each for each in found.different if each.name == "data as stored")
    assert stored.raw.endswith("at [17, 3]")
    assert found.unshown == ()


def test_the_tree_of_another_file_is_not_taken_for_this_one(corpus_dir: Callable[[str, str], Path]) -> None:
    ecephys, ophys = (open_both(corpus_dir(kind, "0.14.0")) for kind in ("ecephys", "ophys"))
    found = compare(ecephys.nwbfile, ophys.tree, ecephys.hierarchy)
    different = {(each.path, each.name): each for each in found.different}
    assert different["", "identifier"].raw == "'corpus-ecephys'"
    assert different["", "identifier"].shown == "'corpus-ophys'"
    assert Unshown("units", "", "Units", "the whole object") in found.unshown


def test_a_series_in_seconds_is_no_difference(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number, unit in enumerate(("s", "seconds", "ms", "days since 2000-01-01")):
        series = TimeSeries(name=f"a{number}", data=np.arange(5.0), unit=unit, rate=10.0)
        nwbfile.add_acquisition(series)
    report = verify(write(tmp_path, nwbfile))
    assert report.different == report.unshown == ()


def test_another_zero_of_time_is_a_difference(tmp_path: Path) -> None:
    path = write(tmp_path, empty_session())
    with open_nwb(path) as nwbfile:
        tree = xr.open_datatree(path, engine="nwbzarr")
        tree.attrs["timestamps_reference_time"] = "2024-05-01T12:00:00+02:00"
        report = compare(nwbfile, tree, open_hierarchy(path))
    assert "zero of decoded times" in {each.name for each in report.different}
