"""Verifying: what pynwb and xarray give of a session of everything is the same, and what is not is found."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from hdmf.common import DynamicTable, VectorData
from hdmf_zarr import ZarrDataIO
from pynwb import NWBHDF5IO, H5DataIO, NWBFile, TimeSeries

from intake_nwbzarr import open_hierarchy, open_nwb, verify
from intake_nwbzarr.checks.compare import Difference, Unshown, Verification
from intake_nwbzarr.checks.verify import VerifyProgress, compare
from intake_nwbzarr.errors import LocationNotFoundError, MetadataError
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from tests.conftest import KINDS, RELEASES
from tests.mapping.core_schema import ABSTRACT, PARENTS
from tests.mapping.event_waveform import NAME as EVENT_WAVEFORM
from tests.mapping.event_waveform import TIMES, event_waveform
from tests.mapping.extension_files import extension_files, without_schemas
from tests.session_files import edit, empty_session, write

# Both libraries warn of the oddities that are in these files on purpose.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.NWBZarrWarning"),
]

# Types that no file holds by themselves, and one that pynwb cannot read.
NOT_IN_THE_FILE = {
    **dict.fromkeys(ABSTRACT, "an abstract type"),
    "CSRMatrix": "nothing in the core schema holds one: it is in the file of an extension",
    "SimpleMultiContainer": "nothing in the core schema holds one: it is in the file of an extension",
    "EventWaveform": "pynwb 4.2 cannot read a file that holds one: it has a file of its own",
}

# What is made of arrays (`nwb_derived`) and compared: ids and names of what is referred to, row numbers.
COMPARED = {"id", "name", "row"}
# Attributes that the file does not hold, beside `nwb_path` and what tells variables of one array apart.
OWN_ATTRIBUTES = {
    *("nwb_location", "nwb_group", "nwb_axis_order", "nwb_object", "nwb_role", "nwb_core_type"),
    *("nwb_column", "nwb_table", "nwb_derived"),
    *("time_offset", "comment"),
}


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
def everything(every_type_path: Path) -> Opened:
    return open_both(every_type_path)


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


@pytest.mark.parametrize(
    "name", ["events", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pose", "holder"))]
)
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
    with pytest.raises(MetadataError, match="departs from the schema") as raised:
        verify(path)
    assert raised.value.location == path.as_uri()
    assert "xarray.open_dataset" in str(raised.value.next_step)
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


# From here on: what is altered is found. All nodes of a tree are altered at once, each in one place.


def altered(opened: Opened, alter: Callable[[str, xr.Dataset], xr.Dataset]) -> tuple[set[str], set[str]]:
    """The objects whose Datasets are altered, and those that then have differences or are not shown."""
    trees: dict[str, xr.Dataset] = {}
    paths = set()
    for node in opened.tree.subtree:
        dataset = node.to_dataset(inherit=False)
        # Indexes cannot be altered in place.
        plain = dataset.drop_indexes(list(dataset.xindexes)).copy()
        plain.attrs = dict(plain.attrs)
        trees[node.path] = changed = alter(path_of(node), plain)
        if not changed.identical(plain) or changed.attrs != plain.attrs:
            paths.add(path_of(node))
    found = opened.compare(xr.DataTree.from_dict(trees))
    return paths, {each.path for each in (*found.different, *found.unshown)}


def unfound(opened: Opened, alter: Callable[[str, xr.Dataset], xr.Dataset]) -> set[str]:
    """Objects whose Datasets are altered and neither they nor a part of them has a finding."""
    paths, found = altered(opened, alter)
    assert paths
    # The subject's attributes are among the session's.
    found |= {""} & {path.removeprefix("general/subject") for path in found}
    return {path for path in paths if not any(f"{each}/".startswith(f"{path}/") for each in found)}


def path_of(node: xr.DataTree) -> str:
    return str(node.attrs.get("nwb_path", node.path.strip("/")))


def is_compared(variable: xr.Variable) -> bool:
    return variable.attrs.get("nwb_derived") in {None, *COMPARED}


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


def with_variable(dataset: xr.Dataset, name: str, variable: xr.Variable) -> xr.Dataset:
    assigned = {name: (variable.dims, variable.values, variable.attrs)}
    return dataset.assign_coords(assigned) if name in dataset.coords else dataset.assign(assigned)


def with_another_value(dataset: xr.Dataset, choose: np.random.Generator) -> xr.Dataset:
    """A Dataset of which one value of one variable is another."""
    names = [str(name) for name, each in dataset.variables.items() if each.size and is_compared(each)]
    if not names:
        return dataset
    name = str(choose.choice(names))
    variable = dataset.variables[name]
    values = np.array(variable.values)
    if values.dtype.kind in "SU":
        values = values.astype(object)
    flat = values.reshape(-1)
    positions = np.arange(flat.size)
    if variable.attrs.get("ragged_bound") == "start":
        # Where an empty row begins says nothing.
        positions = np.flatnonzero(dataset[f"{name.removesuffix('_start')}_count"].values)
    if positions.size:
        position = int(choose.choice(positions))
        flat[position] = another(flat[position])
    return with_variable(dataset, name, xr.Variable(variable.dims, values, variable.attrs))


def without_a_variable(dataset: xr.Dataset, choose: np.random.Generator) -> xr.Dataset:
    # Features are in the attributes of data as well.
    names = [
        str(name)
        for name, each in dataset.variables.items()
        if each.attrs.get("nwb_derived") in {None, "id"} and name not in {"feature", "feature_units"}
    ]
    return dataset.drop_vars(str(choose.choice(names))) if names else dataset


def with_another_attribute(dataset: xr.Dataset, choose: np.random.Generator) -> xr.Dataset:
    names = sorted(set(dataset.attrs) - OWN_ATTRIBUTES)
    if not names:
        return dataset
    name = str(choose.choice(names))
    return dataset.assign_attrs({name: another(dataset.attrs[name])})


def with_another_attribute_of_a_variable(dataset: xr.Dataset, choose: np.random.Generator) -> xr.Dataset:
    """A Dataset of which one attribute of one variable, such as its unit, is another."""
    pairs = [
        (str(name), str(key))
        for name, each in dataset.variables.items()
        for key in set(each.attrs) - OWN_ATTRIBUTES
        if not ("nwb_derived" in each.attrs or ("ragged_bound" in each.attrs and key == "description"))
    ]
    if not pairs:
        return dataset
    name, key = pairs[int(choose.integers(len(pairs)))]
    variable = dataset.variables[name]
    attributes = {**variable.attrs, key: another(variable.attrs[key])}
    return with_variable(dataset, name, xr.Variable(variable.dims, variable.values, attributes))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize(
    "alter",
    [
        with_another_value,
        pytest.param(without_a_variable, marks=pytest.mark.slow),
        with_another_attribute,
        pytest.param(with_another_attribute_of_a_variable, marks=pytest.mark.slow),
    ],
)
def test_what_is_altered_in_any_node_is_found(
    alter: Callable[[xr.Dataset, np.random.Generator], xr.Dataset], seed: int, everything: Opened
) -> None:
    choose = np.random.default_rng(seed)
    assert unfound(everything, lambda _, dataset: alter(dataset, choose)) == set()


def findings_of_altered(opened: Opened, path: str, dataset: xr.Dataset) -> list[Any]:
    """What comparing finds of an object when its Dataset is another one."""
    trees = {node.path: node.to_dataset(inherit=False) for node in opened.tree.subtree}
    found = opened.compare(xr.DataTree.from_dict(trees | {f"/{path}": dataset}))
    return [each for each in (*found.different, *found.unshown) if f"{each.path}/".startswith(f"{path}/")]


def shown_at(opened: Opened, path: str) -> xr.Dataset:
    """The Dataset of an object, whose indexes and attributes may be altered."""
    dataset = opened.tree[path].to_dataset(inherit=False)
    dataset = dataset.drop_indexes(list(dataset.xindexes)).copy()
    dataset.attrs = dict(dataset.attrs)
    return dataset


@pytest.mark.slow
def test_what_only_xarray_shows_is_a_difference(everything: Opened) -> None:
    path = "intervals/trials"
    dataset = shown_at(everything, path).assign(more=("trial", np.zeros(3)))
    dataset.attrs["weather"] = "fine"
    dataset["stop_time"].attrs["colour"] = "red"
    found = findings_of_altered(everything, path, dataset)
    assert {each.name for each in found} == {"identity of more", "weather", "stop_time.colour"}
    trees = {node.path: node.to_dataset(inherit=False) for node in everything.tree.subtree}
    invented = xr.Dataset(attrs={"neurodata_type": "Device", "nwb_path": "general/devices/invented"})
    whole = everything.compare(xr.DataTree.from_dict(trees | {"/general/devices/invented": invented}))
    assert {(each.path, each.name) for each in whole.different} == {("general/devices/invented", "")}


def test_a_damaged_chunk_is_a_difference_and_the_rest_is_compared(
    corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "a.nwb.zarr"))
    whole = verify(path)
    next(
        each for each in (path / "acquisition/ElectricalSeriesAP/data/c").rglob("*") if each.is_file()
    ).write_bytes(b"damaged")
    found = verify(path)
    names = {(each.path, each.name) for each in found.different}
    assert names == {("acquisition/ElectricalSeriesAP", name) for name in ("data", "data as stored")}
    assert all("cannot be read: The chunk" in each.raw for each in found.different)
    assert found.unshown == ()
    lost = {(each.path, each.name) for each in {*whole.equal} - {*found.equal}}
    assert lost <= {("acquisition/ElectricalSeriesAP", name) for name in ("data", "data as stored")}


@pytest.mark.parametrize("form", ["zarr", "hdf5"])
def test_all_damaged_chunks_of_an_array_are_listed_and_the_others_compared(form: str, tmp_path: Path) -> None:
    nwbfile = empty_session()
    data = np.arange(1000.0)
    if form == "zarr":
        stored: Any = ZarrDataIO(data, chunks=(100,))
    else:
        stored = H5DataIO(data, chunks=(100,), compression="gzip")
    nwbfile.add_acquisition(TimeSeries(name="one", data=stored, unit="V", rate=1.0))
    if form == "zarr":
        path = write(tmp_path, nwbfile)
        for number in (2, 3, 7):
            (path / f"acquisition/one/data/c/{number}").write_bytes(b"damaged")
    else:
        path = tmp_path / "one.nwb"
        with NWBHDF5IO(path, "w") as io:
            io.write(nwbfile)
        with h5py.File(path) as file:
            chunks = file["acquisition/one/data"].id
            places = [chunks.get_chunk_info(number).byte_offset for number in (2, 3, 7)]
        with path.open("r+b") as raw:
            for place in places:
                raw.seek(place)
                raw.write(b"damaged")
    seen: list[VerifyProgress] = []
    found = verify(path, progress=seen.append)
    difference = found.different[0]
    assert {(each.path, each.name) for each in found.different} <= {
        ("acquisition/one", "data"),
        ("acquisition/one", "data as stored"),
    }
    assert "3 chunks are damaged, at [200], [300], [700]." in difference.shown
    assert [each.fields for each in seen] == list(range(seen[0].of_fields))
    assert "acquisition/one" in {each.path for each in seen}


def test_links_into_another_file_are_compared_as_they_are_shown(tmp_path: Path) -> None:
    other = empty_session()
    other.create_device(name="probe", description="in another file")
    write(tmp_path, other, "raw.nwb.zarr")
    nwbfile = empty_session()
    device = nwbfile.create_device(name="probe")
    nwbfile.create_electrode_group(name="shank", description="d", location="CA1", device=device)
    path = write(tmp_path, nwbfile, "processed.nwb.zarr")
    links = [{"name": "device", "source": "../raw.nwb.zarr", "path": "/general/devices/probe"}]
    edit(
        path,
        "general/extracellular_ephys/shank",
        lambda document: document["attributes"].update(_LINKS=links),
    )
    assert_all_equal(verify(path))


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alter", "path"),
    [
        pytest.param(alter, path, id=name, marks=[] if name == "nearly the same" else [pytest.mark.slow])
        for name, alter, path in (
            ("nearly the same", lambda data: data * (1 + 1e-9), "acquisition/electrical"),
            ("less precise", lambda data: data.astype("float32"), "acquisition/electrical"),
            ("another type", lambda data: data.astype("int32"), "acquisition/waveforms"),
            ("another order", lambda data: data[::-1], "acquisition/waveforms"),
            ("too short", lambda data: data[1:], "acquisition/waveforms"),
        )
    ],
)
def test_data_that_are_nearly_right_are_found(
    alter: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], path: str, everything: Opened
) -> None:
    dataset = shown_at(everything, path).drop_vars("time")
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
    wrong = dataset.assign(
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
