"""Loading: every release's file becomes the same hierarchy."""

import json
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from intake_nwbzarr import open_hierarchy, track_requests
from intake_nwbzarr.arrays.zarr_store import HierarchyStore
from intake_nwbzarr.errors import (
    LimitError,
    LocationNotFoundError,
    MetadataError,
    NotNWBError,
    NotZarrError,
    UnconsolidatedWarning,
    UnsafePathError,
)
from intake_nwbzarr.hdf5.documents import UNREAD, UNREADABLE
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.conftest import KINDS, RELEASES
from tests.hierarchy.stores import group, write_store

Corpus = Callable[[str, str], Path]


def _open(path: Path) -> Hierarchy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconsolidatedWarning)
        return open_hierarchy(path)


# What the releases themselves wrote differently. pynwb 4 made the electrodes table a type of its own, put its
# columns in another order and reworded descriptions; all else is equal to the letter.
ELECTRODES = "general/extracellular_ephys/electrodes"
REWORDED = {
    f"{ELECTRODES}/{name}" for name in ("filtering", "group", "group_name", "location", "x", "y", "z")
}
REWORDED |= {"units/spike_times"}
DIFFERENT = {
    "": {".specloc", "nwb_version"},
    ELECTRODES: {"colnames", "namespace", "neurodata_type"},
    "units/electrodes": {"_DTYPE"},  # int, as hdmf 6 spells int64 here
    **{key: {"description"} for key in REWORDED},
}
WRITTEN_AT_THE_TIME = "file_create_date"


def _attributes(hierarchy: Hierarchy, path: str) -> dict[str, Any]:
    aside = {"object_id", "_ARRAY_DIMENSIONS"} | DIFFERENT.get(path, set())
    return {name: value for name, value in hierarchy[path].attributes.items() if name not in aside}


def _paths(hierarchy: Hierarchy) -> set[str]:
    # Cached namespaces are of other versions in every release.
    return {path for path in hierarchy if not path.startswith("specifications")}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_release_has_the_same_paths_types_shapes_attributes_and_values(
    kind: str, release: str, corpus_dir: Corpus
) -> None:
    old, new = _open(corpus_dir(kind, release)), _open(corpus_dir(kind, "0.14.0"))
    assert _paths(old) == _paths(new)
    old_values, new_values = (zarr.open_group(HierarchyStore(h), mode="r") for h in (old, new))
    for path in _paths(new):
        one, other = old[path], new[path]
        assert type(one) is type(other), path
        assert _attributes(old, path) == _attributes(new, path), path
        if isinstance(one, ArrayNode) and isinstance(other, ArrayNode):
            assert one.shape == other.shape, path
            assert one.dtype == other.dtype, path
            if path != WRITTEN_AT_THE_TIME:
                np.testing.assert_array_equal(old_values[path][...], new_values[path][...], path)


def test_consolidated_metadata_takes_two_requests_side_by_side(corpus_dir: Corpus) -> None:
    for release in ("0.8.0", "0.14.0"):
        with track_requests() as log:
            hierarchy = open_hierarchy(corpus_dir("ophys", release))
            dict(hierarchy)
        assert hierarchy.consolidated
        assert log.requests == 2


def test_without_consolidated_metadata_one_warning_names_the_repair(corpus_dir: Corpus) -> None:
    store = corpus_dir("icephys", "0.3.0")
    with pytest.warns(UnconsolidatedWarning, match=f"nwbzarr consolidate .*{store.name}") as caught:
        hierarchy = open_hierarchy(store)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert not hierarchy.consolidated
    assert hierarchy["acquisition/response0/data"].shape == (50,)


@pytest.mark.slow
@pytest.mark.parametrize("archived", [True, False])
def test_the_command_that_a_warning_names_works(archived: bool, corpus_dir: Corpus, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus_dir("icephys", "0.3.0"), tmp_path / "a session.nwb.zarr"))
    store = Path(shutil.make_archive(str(folder), "zip", folder)) if archived else folder
    with pytest.warns(UnconsolidatedWarning) as caught:
        open_hierarchy(store)
    command = shlex.split(str(caught[0].message).rpartition(": nwbzarr ")[2])
    assert command[0] == ("snapshot" if archived else "consolidate")
    ran = subprocess.run(
        [sys.executable, "-m", "intake_nwbzarr", *command], cwd=tmp_path, capture_output=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr


def test_a_zarr_3_file_without_consolidated_metadata_opens_too(corpus_dir: Corpus, tmp_path: Path) -> None:
    store = Path(shutil.copytree(corpus_dir("icephys", "0.14.0"), tmp_path / "copy.nwb.zarr"))
    document = json.loads((store / "zarr.json").read_text())
    expected = dict(open_hierarchy(store))
    del document["consolidated_metadata"]
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.warns(UnconsolidatedWarning):
        hierarchy = open_hierarchy(store)
    assert set(hierarchy) == set(expected)
    assert hierarchy["acquisition/response0/data"] == expected["acquisition/response0/data"]


def test_cached_schemas_are_found_behind_consolidated_metadata_that_leaves_them_out(
    corpus_dir: Corpus,
) -> None:
    hierarchy = open_hierarchy(corpus_dir("ecephys", "0.8.0"))
    assert "specifications" not in hierarchy
    assert hierarchy.load_specifications()
    assert hierarchy.children("specifications") == ("core", "hdmf-common", "hdmf-experimental")
    assert hierarchy[""].attributes[".specloc"] == "specifications"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(LocationNotFoundError, match=r"Nothing is stored at .*missing") as caught:
        open_hierarchy(tmp_path / "missing.nwb.zarr")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.location == f"file://{tmp_path}/missing.nwb.zarr"


def test_a_folder_that_is_no_zarr_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotZarrError, match=r"'notes\.txt'") as caught:
        open_hierarchy(tmp_path)
    assert caught.value.found == ("notes.txt",)


def test_a_file_that_is_no_zarr_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello, this is no Zarr")
    with pytest.raises(NotZarrError, match="is a file, but neither HDF5 nor"):
        open_hierarchy(tmp_path / "notes.txt")


def test_an_hdf5_file_that_is_no_nwb_file(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "session.nwb", "w") as file:
        file["x"] = 1
    with pytest.raises(NotNWBError, match="is an HDF5 file, but not an NWB file") as caught:
        open_hierarchy(tmp_path / "session.nwb")
    assert "h5py" in str(caught.value.next_step)


def test_a_zarr_store_that_is_no_nwb_file(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "a.zarr").create_array("x", data=np.arange(3))
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    with pytest.raises(NotNWBError, match="not an NWB file"):
        open_hierarchy(tmp_path / "a.zarr")


def test_a_damaged_document_names_itself(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "gr')
    with pytest.raises(MetadataError, match=r"'zarr\.json' of .* is damaged") as caught:
        open_hierarchy(tmp_path)
    assert (caught.value.location, caught.value.path) == (f"file://{tmp_path}", "zarr.json")


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "a//b", "%2e%2e/secret", "a\\b", "x/" * 65 + "y"]
)
def test_a_name_that_could_lead_out_of_the_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").mkdir()
    store = tmp_path / "a.nwb.zarr"
    write_store(store, {})
    document = json.loads((store / "zarr.json").read_text())
    document["consolidated_metadata"]["metadata"][name] = group()
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(UnsafePathError) as raised:
        open_hierarchy(store)
    assert (raised.value.location, raised.value.path) == (store.as_uri(), name)


def test_bare_nan_in_attributes_is_read(tmp_path: Path) -> None:
    """zarr-python 2 wrote NaN into JSON documents as such, which JSON does not have."""
    store = write_store(tmp_path / "a.nwb.zarr", {"x": group(resolution=float("nan"), limit=float("-inf"))})
    assert "NaN" in (store / "zarr.json").read_text()
    attributes = open_hierarchy(store)["x"].attributes
    assert np.isnan(attributes["resolution"])
    assert attributes["limit"] == float("-inf")


def test_more_nodes_than_allowed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intake_nwbzarr.hierarchy.documents.MOST_NODES", 3)
    store = write_store(tmp_path / "a.nwb.zarr", {f"g{number}": group() for number in range(5)})
    with pytest.raises(LimitError, match="limit"):
        open_hierarchy(store)


def test_a_document_larger_than_allowed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intake_nwbzarr.hierarchy.documents.LARGEST_DOCUMENT", 1000)
    store = write_store(tmp_path / "a.nwb.zarr", {f"g{number}": group() for number in range(50)})
    with pytest.raises(LimitError):
        open_hierarchy(store)


def test_two_hundred_missing_names_are_told_quickly_in_a_large_file(tmp_path: Path) -> None:
    nodes = {"many": group()} | {f"many/object{number}": group() for number in range(3000)}
    hierarchy = open_hierarchy(write_store(tmp_path / "a.nwb.zarr", nodes))
    assert hierarchy.not_found("other/object77").next_step == "Did you mean 'many/object77'?"
    assert "Did you mean 'many/object" in str(hierarchy.not_found("many/objekt1"))
    begin = time.perf_counter()
    for number in range(200):
        hierarchy.not_found(f"elsewhere/object{number}")
    assert time.perf_counter() - begin < 2


def test_a_zarr_store_cannot_claim_that_parts_of_it_were_not_read(ecephys: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ecephys, tmp_path / "a.nwb.zarr"))
    document = json.loads((folder / "zarr.json").read_bytes())
    document |= {UNREAD: {"": ["invented"]}, UNREADABLE: {"units": "invented"}}
    (folder / "zarr.json").write_text(json.dumps(document))
    hierarchy = open_hierarchy(folder)
    assert "invented" not in hierarchy.children("")
    assert hierarchy.unreadable == {}
