"""Groups, links and attributes of HDF5 files, in every version of the format and way of storing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.errors import (
    LinkError,
    MetadataError,
    NodeNotFoundError,
    NotZarrError,
    NWBZarrError,
    UnreadableWarning,
)
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from tests.hdf5.files import VERSIONS, opened, read, write


def _has_the_same_objects(hierarchy: Hierarchy, path: Path) -> None:
    """Compare groups, datasets and attributes with those that h5py finds."""
    with h5py.File(path) as file:
        found: dict[str, Any] = {}
        file.visititems(found.__setitem__)
        assert set(hierarchy) - {""} == set(found)
        for name, item in found.items():
            attributes = {
                key: value.tolist() if hasattr(value, "tolist") else value
                for key, value in item.attrs.items()
            }
            own = {key: value for key, value in hierarchy[name].attributes.items() if key != "_DTYPE"}
            assert own == attributes, name


def _fill(file: h5py.File) -> None:
    for number in range(300):
        file[f"many/member {number}"] = number
    few = file.create_group("few/groups/inside/others")
    few["x"] = np.arange(5)
    for number in range(200):
        few.attrs[f"attribute {number}"] = f"text {number} é" if number % 3 else np.arange(number)
    for number in range(40):
        file[f"many/member {number}"].attrs["unit"] = "V"
    file.create_group("empty")


@pytest.mark.parametrize("libver", VERSIONS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"userblock_size": 512},
        {"userblock_size": 2**16},
        {"track_order": True},
        {"fs_strategy": "page", "fs_page_size": 4096},
    ],
    ids=["plain", "user block", "long user block", "in order", "paged"],
)
def test_groups_and_attributes_are_those_that_h5py_finds(
    options: dict[str, Any], libver: str, tmp_path: Path
) -> None:
    if libver in {"earliest", "v108"} and "fs_strategy" in options:
        # Only newer versions of the format have pages.
        libver = "latest"
    path = write(tmp_path / "file.nwb", _fill, libver=VERSIONS[libver], **options)
    hierarchy = opened(path)
    _has_the_same_objects(hierarchy, path)
    assert read(hierarchy, "many/member 123") == 123


@pytest.mark.parametrize("libver", ["v108", "latest"])
def test_attributes_that_do_not_fit_an_object_header(libver: str, tmp_path: Path) -> None:
    long = {f"long {number}": np.arange(30_000.0) + number for number in range(3)}

    def fill(file: h5py.File) -> None:
        group = file.create_group("g")
        for name, value in long.items():
            group.attrs[name] = value
        for number in range(50):
            group.attrs[f"medium {number}"] = "x" * 5000

    path = write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver])
    attributes = opened(path)["g"].attributes
    assert {name: attributes[name] for name in long} == {name: value.tolist() for name, value in long.items()}
    assert attributes["medium 7"] == "x" * 5000


def test_types_with_names_are_used_and_not_shown(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["kind"] = np.dtype("<i4")
        file["pair"] = np.dtype([("a", "<i4"), ("b", "<f4")])
        file.create_dataset("x", data=np.arange(3), dtype=file["kind"])
        file.create_dataset("y", data=np.zeros(3, file["pair"].dtype), dtype=file["pair"])
        file.attrs.create("attribute", 7, dtype=file["kind"])

    for libver in VERSIONS.values():
        hierarchy = opened(write(tmp_path / "file.nwb", fill, libver=libver))
        assert set(hierarchy) == {"", "x", "y"}
        assert read(hierarchy, "x").tolist() == [0, 1, 2]
        assert read(hierarchy, "y", field="a").tolist() == [0, 0, 0]
        assert hierarchy[""].attributes["attribute"] == 7


@pytest.mark.parametrize("libver", VERSIONS)
def test_links_lead_where_h5py_follows_them(libver: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["a/b/x"] = np.arange(3)
        file["a/hard"] = file["a/b/x"]
        file["a/loop"] = file["a"]
        file["a/soft"] = h5py.SoftLink("/a/b/x")
        file["a/relative"] = h5py.SoftLink("b/x")
        file["a/group"] = h5py.SoftLink("/a/b")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["circle"] = h5py.SoftLink("/other")
        file["other"] = h5py.SoftLink("/circle")
        file["outside"] = h5py.ExternalLink("other.nwb", "/y")
        file["missing file"] = h5py.ExternalLink("nothing.nwb", "/y")

    write(tmp_path / "other.nwb", lambda file: file.create_dataset("y", data=5), libver=VERSIONS[libver])
    hierarchy = opened(write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver]))
    for name in ("a/hard", "a/soft", "a/relative", "a/group/x", "a/loop/loop/b/x"):
        assert hierarchy.resolve(name).path == hierarchy.resolve("a/b/x").path
    outside = hierarchy.resolve("outside")
    assert read(outside.hierarchy, outside.path) == 5
    with pytest.raises(LinkError, match="does not exist"):
        hierarchy.resolve("dangling")
    with pytest.raises(LinkError, match="circle"):
        hierarchy.resolve("circle")
    with pytest.raises(NWBZarrError, match=r"nothing\.nwb"):
        hierarchy.resolve("missing file")
    with pytest.raises(NodeNotFoundError):
        hierarchy.resolve("nothing")


def test_names_that_could_lead_out_of_the_file_are_left_out_with_a_warning(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for name in ("..", "a\\b", "%2e%2e"):
            file.require_group("g").create_dataset(name, data=1)
        file["fine"] = 1

    path = write(tmp_path / "file.nwb", fill)
    with pytest.warns(UnreadableWarning, match="its name is not allowed"):
        hierarchy = open_hierarchy(path)
    assert set(hierarchy) == {"", "g", "fine"}


def test_groups_nested_too_deep_are_left_out_with_a_warning(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        group = file["/"]
        for _ in range(10_000):
            group = group.create_group("g")
        file["x"] = 1

    path = write(tmp_path / "file.nwb", fill, libver="latest")
    with pytest.warns(UnreadableWarning, match="too deep"):
        hierarchy = open_hierarchy(path)
    assert len(hierarchy) == 66
    assert read(hierarchy, "x") == 1


@pytest.mark.parametrize("size", [8, 9, 40, 100, 600])
def test_a_file_that_only_begins_as_hdf5_is_refused(size: int, tmp_path: Path) -> None:
    path = write(tmp_path / "whole.nwb", _fill, libver="latest")
    cut = tmp_path / "cut.nwb"
    cut.write_bytes(path.read_bytes()[:size])
    with pytest.raises((NotZarrError, MetadataError)) as caught:
        open_hierarchy(cut)
    assert "cut.nwb" in str(caught.value)


@pytest.mark.parametrize("libver", VERSIONS)
@pytest.mark.parametrize("block", [0, 1024])
def test_a_truncated_file_is_told_with_its_size(block: int, libver: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file.nwb", _fill, libver=VERSIONS[libver], userblock_size=block)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MetadataError, match="truncated") as caught:
        open_hierarchy(path)
    assert caught.value.found == len(content) // 2
    assert caught.value.expected == len(content)
    assert caught.value.next_step == "Copy or download it again."
