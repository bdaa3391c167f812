"""Unusual HDF5 files: every object and attribute is what h5py reads, or named among what cannot be read."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.errors import LinkError, MetadataError
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.hdf5.files import assert_same, expected, opened, read, write

VERSIONS: dict[str, Any] = {
    "earliest": "earliest",
    "v108": ("v108", "v108"),
    "v110": ("v110", "v110"),
    "v112": ("v112", "v112"),
    "v114": ("v114", "v114"),
    "latest": "latest",
}


def _objects(group: h5py.Group, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield objects by the first of their paths, as far as hard links lead."""
    for name in group:
        child = f"{path}/{name}" if path else name
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen or isinstance(item, h5py.Datatype):
            continue
        seen.add(address)
        yield child, item
        if isinstance(item, h5py.Group):
            yield from _objects(item, child, seen)


def _plain(value: Any) -> Any:
    """Return the value of an attribute as JSON has it."""
    match value:
        case np.generic() | np.ndarray():
            return _plain(value.tolist())
        case list() | tuple():
            return [_plain(each) for each in value]
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case complex():
            return [value.real, value.imag]
        case h5py.Empty():
            return "" if value.dtype.kind in "OS" else None
    return value


def _check(path: Path) -> dict[str, str]:
    """Compare a file with what h5py reads, and return what cannot be read with the reasons."""
    hierarchy = opened(path)
    with h5py.File(path) as file:
        for name, item in [("", file), *_objects(file, "", {h5py.h5o.get_info(file.id).addr})]:
            if name in hierarchy.unreadable:
                continue
            node = hierarchy.resolve(name).node
            assert isinstance(node, ArrayNode) == isinstance(item, h5py.Dataset), name
            _check_attributes(hierarchy, name, item)
            if isinstance(item, h5py.Dataset) and item.shape is not None:
                for field in item.dtype.names or [None]:
                    wanted = expected(item, field=field)
                    if field is not None and wanted.dtype.kind in "OS":
                        wanted = np.vectorize(_plain, otypes=[object])(wanted)
                    assert_same(read(hierarchy, name, field=field), wanted)
    return dict(hierarchy.unreadable)


def _check_attributes(hierarchy: Hierarchy, name: str, item: Any) -> None:
    attributes = hierarchy.resolve(name).node.attributes
    for key in item.attrs:
        if f"{hierarchy.resolve(name).path}@{key}" in hierarchy.unreadable:
            continue
        value = item.attrs[key]
        if isinstance(value, h5py.Reference):
            target = f"/{hierarchy.resolve(item.file[value].name).path}"
            assert attributes[key] == {"_REFERENCE": {"source": ".", "path": target}}
        elif isinstance(value, h5py.Empty) and value.dtype.kind not in "OS":
            assert key not in attributes  # it has no value
        else:
            assert np.array_equal(attributes[key], _plain(value)), (name, key)


NAMES = [
    *("a b", "a.b", ".a", "a.", "%41", "100%", "😀", "ü", "e\u0301", "-", "a:b", "a*b?", "~", "\n", "tab\t"),
    *("c", "zarr.json", ".zattrs", "@", "a#b", "a&b=c", " before", "after ", "'", '"', "$", "\x01", "\x7f"),
    *("x" * 900, "con", "__proto__", "C:", "None"),
]


def _names(file: h5py.File) -> None:
    for number, name in enumerate(NAMES):
        file[f"g/{name}"] = number
        file[f"h/{name}/x"] = number
        file["g"].attrs[name] = number
    # Bytes that are not UTF-8 are shown as escapes.
    h5py.h5g.create(file.id, b"caf\xe9")
    kind, space = h5py.h5t.STD_I32LE, h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.h5d.create(file["g"].id, b"\xff\xfe", kind, space)
    h5py.h5a.create(file.id, b"\xe9", kind, space)


@pytest.mark.parametrize("libver", VERSIONS)
def test_names_of_all_kinds(libver: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file.nwb", _names, libver=VERSIONS[libver])
    hierarchy = opened(path)
    for number, name in enumerate(NAMES):
        assert read(hierarchy, f"g/{name}") == number
        assert read(hierarchy, f"h/{name}/x") == number
        assert hierarchy["g"].attributes[name] == number
    assert set(hierarchy.children("g")) == set(hierarchy.children("h")) == set(NAMES)
    # A backslash could lead out of a file.
    assert hierarchy.unreadable.keys() == {r"caf\xe9", r"g/\xff\xfe"}
    assert hierarchy[""].attributes[r"\xe9"] == 0


def _links(file: h5py.File) -> None:
    file["a/x"] = np.arange(3)
    for number in range(30):
        file[f"chain {number}"] = h5py.SoftLink(f"/chain {number - 1}" if number else "/a/x")
    file["a/root"] = file["/"]
    file["a/itself"] = file["a"]
    file.create_group("b/c")
    file["b/c/parent"] = file["b"]
    file["soft itself"] = h5py.SoftLink("soft itself")
    file["dot"] = h5py.SoftLink(".")
    file["a/relative"] = h5py.SoftLink("./x")
    file["double"] = h5py.SoftLink("//a//x")
    file["soft root"] = h5py.SoftLink("/")
    file["a"].attrs["root"] = file.ref
    file["a"].attrs["own"] = file["a"].ref


@pytest.mark.parametrize("libver", VERSIONS)
def test_links_that_lead_around_in_circles(libver: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file.nwb", _links, libver=VERSIONS[libver])
    assert not _check(path)
    hierarchy = opened(path)
    for name in ("chain 29", "a/relative", "double", "soft root/a/x", "dot/a/x", "a/root/a/itself/x"):
        assert hierarchy.resolve(name).path == "a/x", name
    assert hierarchy.resolve("b/c/parent/c/parent").path == "b"
    assert hierarchy.resolve("a/root").path == ""
    with pytest.raises(LinkError, match="circle"):
        hierarchy.resolve("soft itself")


def _shapes(file: h5py.File) -> None:
    file["none"] = np.empty((0,))
    file["none in the middle"] = np.empty((3, 0, 2))
    file.create_dataset("none in chunks", (0, 5), "f4", chunks=(2, 5), maxshape=(None, 5))
    file.create_dataset("no texts", (0, 3), h5py.string_dtype())
    file.create_dataset("no rows", (0,), np.dtype([("a", "i4"), ("b", h5py.string_dtype())]))
    many = np.arange(4).reshape((2, 2) + (1,) * 30)
    file["32 dimensions"] = many
    file.create_dataset("32 dimensions in chunks", data=many, chunks=(1,) * 32, compression="gzip")
    file["null"] = h5py.Empty("f4")
    file["null text"] = h5py.Empty(h5py.string_dtype())
    file["long text"] = "x" * 5_000_000
    file.create_dataset("long texts", data=["é" * 300_000] * 3, dtype=h5py.string_dtype())
    file["long fixed texts"] = np.array([b"z" * 60_000, b"q"])


def _types(file: h5py.File) -> None:
    colours = h5py.enum_dtype({"A": 1, "B": -2}, basetype="i2")
    file.create_dataset("enumeration", data=np.array([1, -2], "i2"), dtype=colours)
    long = h5py.enum_dtype({"A": 1, "B": 2**40}, basetype="i8")
    file.create_dataset("long enumeration", data=np.array([1, 2**40]), dtype=long)
    swapped = h5py.enum_dtype({"TRUE": 0, "FALSE": 1}, basetype="i1")
    file.create_dataset("no booleans", data=np.array([0, 1], "i1"), dtype=swapped)
    file["opaque"] = np.frombuffer(b"abc\0\1\2", "V3")
    times = np.array(["2020-01-01", "2021-02-03"], "M8[ms]")
    file.create_dataset("times", data=times.astype(h5py.opaque_dtype(times.dtype)))
    for dtype in ("<c8", ">c16", "<f2", ">f2"):
        file[dtype] = np.array([1.5, np.nan], dtype)
    file["named"] = np.dtype("f4")
    file["named"].attrs["x"] = 1
    file.create_dataset("of a named type", data=[1.0], dtype=file["named"])
    rows = np.dtype([("a", colours), ("b", ">i4"), ("c", "S3")])
    file.create_dataset("rows", data=np.array([(1, 2, b"x")], rows))
    file.create_dataset("bits", data=np.array([1, 255], "u1"), dtype="u1")
    h5py.h5d.create(file.id, b"bit field", h5py.h5t.STD_B16BE, h5py.h5s.create_simple((2,)))
    # What follows is refused by its name.
    file["long double"] = np.array([1.5], np.longdouble)
    file["nested"] = np.zeros(3, [("a", [("b", "i4"), ("c", [("d", "f8")])]), ("e", "u1")])
    file["with arrays"] = np.zeros(3, [("a", "f4", (2, 3)), ("b", "i4")])
    file["with complex"] = np.zeros(3, [("a", "c8"), ("b", "i4")])
    file.create_dataset("sequences", (2,), h5py.vlen_dtype("i4"))[0] = [1, 2]
    file.create_dataset("arrays", (2,), np.dtype(("i4", (3,))))
    regions = file.create_dataset("regions", (1,), h5py.regionref_dtype)
    regions[0] = file["opaque"].regionref[:1]


REFUSED = {
    *("long double", "nested", "with arrays", "with complex", "sequences", "arrays", "regions"),
}


def _attributes(file: h5py.File) -> None:
    group = file.create_group("g")
    for number in range(500):
        group.attrs[f"attribute {number:04}"] = "v" * (number % 50)
    ordered = file.create_group("ordered", track_order=True)
    for name in "zyx":
        ordered[name] = 1
    for number in range(50):
        ordered.attrs[f"{50 - number}"] = np.arange(number)
    data = file.create_dataset("data", data=1, track_order=True)
    for number in range(20):
        data.attrs[f"{20 - number}"] = number
    values: dict[str, Any] = {
        "empty": "", "nothing": np.array([], "f4"), "null": h5py.Empty("f4"), "most": np.uint64(2**64 - 1),
        "least": np.int64(-(2**63)), "infinite": np.inf, "complex": np.array([1 + 2j]),
        "half": np.float16(1.5), "big-endian": np.array([1, 2], ">i4"),
        "flags": np.array([True, False]), "matrix": np.eye(3),
    }  # fmt: skip
    for name, value in values.items():
        group.attrs[name] = value
    if file.libver[0] != "earliest":
        large = file.create_group("large")
        large.attrs["numbers"] = np.arange(100_000)
        large.attrs["text"] = "é" * 200_000
        large.attrs.create("texts", ["a" * 1000] * 200, dtype=h5py.string_dtype())


@pytest.mark.parametrize("libver", VERSIONS)
@pytest.mark.parametrize(
    ("fill", "refused"), [(_shapes, set()), (_types, REFUSED), (_attributes, set())], ids=lambda each: ""
)
def test_shapes_types_and_attributes(
    fill: Callable[[h5py.File], None], refused: set[str], libver: str, tmp_path: Path
) -> None:
    assert _check(write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver])).keys() == refused


OPTIONS: dict[str, dict[str, Any]] = {
    **{f"user block of {size}": {"userblock_size": size} for size in (512, 2048, 2**19, 2**20)},
    **{
        f"{strategy}{' that is kept' if persist else ''}": {"fs_strategy": strategy, "fs_persist": persist}
        for strategy in ("page", "fsm", "aggregate", "none")
        for persist in (False, True)
    },
    "small pages": {"fs_strategy": "page", "fs_page_size": 512},
    "large pages and a user block": {"fs_strategy": "page", "fs_page_size": 2**19, "userblock_size": 2**20},
}


@pytest.mark.parametrize("libver", ["earliest", pytest.param("latest", marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", OPTIONS)
def test_user_blocks_and_ways_of_using_space(options: str, libver: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        _links(file)
        _types(file)
        _attributes(file)
        # Space that is free again.
        del file["a/x"]
        file["a/x"] = np.arange(1000)
        del file["rows"]

    path = write(tmp_path / "file.nwb", fill, libver=libver, **OPTIONS[options])
    assert _check(path).keys() == REFUSED


def test_a_file_that_swmr_writes_is_read_and_any_other_that_is_open_for_writing_is_refused(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "file.nwb", lambda file: None, libver="latest")
    with h5py.File(path, "r+", libver="latest") as file:
        data = file.create_dataset("x", (0,), "i4", chunks=(10,), maxshape=(None,), compression="gzip")
        file.swmr_mode = True
        for number in range(5):
            data.resize((100 * (number + 1),))
            data[100 * number :] = number
            data.flush()
            copy = tmp_path / f"copy {number}.nwb"
            shutil.copyfile(path, copy)
            assert read(opened(copy), "x").tolist() == np.repeat(np.arange(number + 1), 100).tolist()
    assert read(opened(path), "x").shape == (500,)
    with h5py.File(path, "r+", libver="latest") as file:
        file["y"] = 1
        file.flush()
        shutil.copyfile(path, tmp_path / "left open.nwb")
    with pytest.raises(MetadataError, match="open for writing, or was not closed") as caught:
        open_hierarchy(tmp_path / "left open.nwb")
    assert "h5clear" in str(caught.value.next_step)
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(tmp_path / "left open.nwb")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(open_hierarchy(path), "y") == 1
