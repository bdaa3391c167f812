"""Heaps of HDF5 files: messages that objects share, and links in heaps with filters, against h5py."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hdf5 import heaps
from tests.hdf5.files import assert_same, compressed_group, expected, opened, read, write, write_shared

# Kinds of messages (see write_shared) and the least size of those that are shared, for each index.
INDEXES = {
    "all in one": ((0x182A, 1),),
    "each in its own": ((2, 1), (8, 1), (0x20, 1), (0x800, 1), (0x1000, 1)),
    "long ones": ((0x1000, 40), (0xA, 4)),
}


def _fill(file: h5py.File) -> None:
    kind = np.dtype([("a", "<i4"), ("b", "<f8")])
    file["kind"] = kind
    file.create_dataset("committed", data=np.zeros(3, kind), dtype=file["kind"])
    for number in range(60):
        values = np.arange(40).reshape(8, 5) + number
        data = file.create_dataset(
            f"data/{number}", data=values, chunks=(2, 5), compression="gzip", shuffle=True, fillvalue=7
        )
        data.attrs["unit"] = "volts, and more of the text"
        data.attrs["list"] = np.arange(10)
        data.attrs.create("committed", 5, dtype="<i4")
        file.create_dataset(f"texts/{number}", data=["a", "é"], dtype=h5py.string_dtype())
    for number in range(20):
        group = file.create_group(f"many attributes/{number}")
        for attribute in range(30):
            group.attrs[f"attribute {attribute}"] = f"value of {attribute}"


@pytest.mark.parametrize("libver", [pytest.param("earliest", marks=pytest.mark.slow), "latest"])
# Indexes are lists up to a number of messages, and B-trees from then on.
@pytest.mark.parametrize("cutoffs", [(50, 40), (0, 0), (5, 3)], ids=["lists", "trees", "both"])
@pytest.mark.parametrize("indexes", INDEXES)
def test_messages_that_objects_share_are_read(
    indexes: str, cutoffs: tuple[int, int], libver: str, tmp_path: Path
) -> None:
    block = 1024 if libver == "latest" else 0
    path = write_shared(tmp_path / "file.nwb", _fill, INDEXES[indexes], cutoffs, libver=libver, block=block)
    assert b"SMTB" in path.read_bytes()
    hierarchy = opened(path)
    assert not hierarchy.unreadable
    with h5py.File(path) as file:
        found: dict[str, h5py.HLObject] = {}
        file.visititems(found.__setitem__)
        del found["kind"]
        assert set(hierarchy) - {""} == set(found)
        for name, item in found.items():
            wanted = {
                key: value.tolist() if hasattr(value, "tolist") else value
                for key, value in item.attrs.items()
            }
            own = {key: value for key, value in hierarchy[name].attributes.items() if key != "_DTYPE"}
            assert own == wanted, name
            if name == "committed":
                assert_same(read(hierarchy, name, field="b"), expected(item, field="b"))
            elif isinstance(item, h5py.Dataset):
                assert_same(read(hierarchy, name), expected(item))


@pytest.mark.parametrize("filters", [("gzip",), ("fletcher32",), ("gzip", "fletcher32")], ids=" ".join)
# One block, a few, and blocks below others.
@pytest.mark.parametrize("count", [1, 100, pytest.param(30_000, marks=pytest.mark.slow)])
def test_links_of_a_compressed_group_are_read(count: int, filters: tuple[str, ...], tmp_path: Path) -> None:
    chance = np.random.default_rng(0)

    def fill(file: h5py.File) -> None:
        file["x"] = 5
        group = compressed_group(file, "g", *filters)
        for number in range(count):
            group[f"member {number}"] = h5py.SoftLink("/x")
        # Longer than a block: these are objects of their own.
        for number in range(3):
            group[f"long {number}"] = h5py.SoftLink("/" + "".join(chance.choice([*"abcdefgh"], 20_000)))
        inner = compressed_group(group, "inner", *filters)
        for number in range(30):
            inner[str(number)] = number

    path = write(tmp_path / "file.nwb", fill, libver="latest")
    hierarchy = opened(path)
    assert set(hierarchy) == {"", "x", "g", "g/inner", *(f"g/inner/{number}" for number in range(30))}
    assert read(hierarchy, "g/inner/17") == 17
    links = {link["name"]: link["path"] for link in hierarchy["g"].attributes["_LINKS"]}
    with h5py.File(path) as file:
        assert links == {
            name: file["g"].get(name, getlink=True).path for name in file["g"] if name != "inner"
        }


def test_a_compressed_heap_that_expands_too_far_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(file: h5py.File) -> None:
        group = compressed_group(file, "g", "gzip")
        for number in range(10_000):
            group[f"member {number}"] = h5py.SoftLink("/x")
        file["fine"] = 1

    assert "g" in opened(write(tmp_path / "file.nwb", fill, libver="latest"))
    path = write(tmp_path / "other.nwb", fill, libver="latest")
    monkeypatch.setattr(heaps, "MOST_DECODED", 2**16)
    hierarchy = open_hierarchy(path)
    with pytest.raises(MetadataError, match="longer than allowed"):
        hierarchy["g"]
    assert read(hierarchy, "fine") == 1
