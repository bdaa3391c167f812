"""Elements of HDF5 datasets and attributes: numbers, texts, references and compounds, against h5py."""

from __future__ import annotations

import ctypes
import string
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.errors import ChunkError, NWBZarrError, UnreadableWarning
from tests.hdf5.files import VERSIONS, assert_same, create, expected, library, opened, read, write

TEXTS = ["", "plain", "é Ω 日本", "with spaces  ", " ", "a" * 5000]
NUMBERS = [
    *("i1", "u1", "<i2", ">i2", "<u2", ">u4", "<i8", ">u8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"),
    *("<c8", ">c8", "<c16", ">c16", "?"),
]


def _is_same_everywhere(path: Path) -> None:
    hierarchy = opened(path)
    with h5py.File(path) as file:
        for name in file:
            assert_same(read(hierarchy, name), expected(file[name]))


@pytest.mark.parametrize("libver", VERSIONS)
def test_numbers_of_every_kind(libver: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)

    def fill(file: h5py.File) -> None:
        for dtype in NUMBERS:
            values = chance.integers(0, 100, (6, 5)).astype(dtype)
            file[f"contiguous {dtype}"] = values
            file[f"scalar {dtype}"] = values[3, 2]
            file.create_dataset(f"chunked {dtype}", data=values, chunks=(4, 3), compression="gzip")
            file.create_dataset(f"fill {dtype}", (6,), dtype, chunks=(4,), fillvalue=values[0, 0])[:2] = 1

    _is_same_everywhere(write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver]))


def test_enumerations_are_numbers_and_booleans_are_booleans(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for base in ("i1", "<u2", ">i4"):
            kind = h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLUE": 42}, basetype=base)
            file.create_dataset(f"colour {base}", data=np.array([0, 42, 1]), dtype=kind)
        file["booleans"] = np.array([True, False, True])
        file.create_dataset("many booleans", data=np.arange(100) % 3 == 0, chunks=(7,), compression="gzip")
        file["a boolean"] = True
        file.attrs["flag"] = True
        file.attrs["flags"] = np.array([True, False])

    path = write(tmp_path / "file.nwb", fill)
    _is_same_everywhere(path)
    attributes = opened(path)[""].attributes
    assert attributes["flag"] is True
    assert attributes["flags"] == [True, False]


@pytest.mark.parametrize("libver", VERSIONS)
def test_texts_of_every_kind(libver: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("variable", data=TEXTS, dtype=h5py.string_dtype())
        file.create_dataset("one", data="é", dtype=h5py.string_dtype())
        file.create_dataset(
            "chunked", data=TEXTS * 9, dtype=h5py.string_dtype(), chunks=(7,), compression="gzip"
        )
        file.create_dataset("grid", data=np.array(TEXTS, object).reshape(2, 3), dtype=h5py.string_dtype())
        file.create_dataset("written in part", (20,), h5py.string_dtype(), chunks=(4,))[5:9] = "x"
        file.create_dataset("ascii", data=[b"a", b"b\xe9"], dtype=h5py.string_dtype("ascii"))
        fixed = np.array(["", "plain", "é Ω", "inner\0nul"], object)
        encoded = np.array([text.encode() for text in fixed], "S12")
        file["fixed"] = encoded
        file["Latin-1"] = np.array(["é".encode("latin-1"), b"\xff\xfe"], "S4")
        file.create_dataset("UTF-8", data=encoded.astype(h5py.string_dtype("utf-8", 12)))
        file.create_dataset("fixed, in part", (20,), "S5", chunks=(4,), fillvalue=b"none")[5:9] = b"x"
        for padding in (h5py.h5t.STR_NULLTERM, h5py.h5t.STR_NULLPAD, h5py.h5t.STR_SPACEPAD):
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(8)
            kind.set_strpad(padding)
            dataset = h5py.h5d.create(
                file.id, f"padding {padding}".encode(), kind, h5py.h5s.create_simple((4,))
            )
            stored = np.array([b"a  ", b"\0b", b"c\0d", b"eeeeeee "], "S8")
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, stored, mtype=kind)

    _is_same_everywhere(write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver]))


def test_what_is_not_written_of_texts_is_their_fill_value(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        kind = h5py.string_dtype()
        file.create_dataset("variable", (9,), kind, chunks=(4,), fillvalue="nothing")[:4] = "x"
        file.create_dataset("fixed", (9,), "S9", chunks=(4,), fillvalue=b"nothing")[:4] = b"x"
        file.create_dataset("never", (9,), "S9", fillvalue=b"nothing")

    hierarchy = opened(write(tmp_path / "file.nwb", fill))
    assert read(hierarchy, "variable").tolist() == ["x"] * 4 + ["nothing"] * 5
    assert read(hierarchy, "fixed").tolist() == ["x"] * 4 + ["nothing"] * 5
    assert read(hierarchy, "never").tolist() == ["nothing"] * 9


def test_references_are_paths_and_null_ones_are_empty(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["g/x"] = np.arange(3)
        file["other/twice"] = file["g/x"]
        kind = h5py.ref_dtype
        references = np.array([file.ref, file["g"].ref, file["g/x"].ref, h5py.Reference()], kind)
        file.create_dataset("references", data=references, dtype=kind)
        file.create_dataset("chunked", data=np.tile(references, 5), dtype=kind, chunks=(3,))
        file.create_dataset("never", (3,), kind)
        file["gone/y"] = 1
        file.create_dataset("dangling", data=np.array([file["gone/y"].ref], kind), dtype=kind)
        file.attrs["reference"] = file["g/x"].ref
        file.attrs["null"] = h5py.Reference()
        file.attrs["several"] = references[1:]
        file.attrs["dangling"] = file["gone"].ref
        del file["gone"]

    path = write(tmp_path / "file.nwb", fill)
    with pytest.warns(UnreadableWarning, match=r"'@dangling': the attribute refers to an object that is not"):
        hierarchy = open_hierarchy(path)
    assert read(hierarchy, "references").tolist() == ["/", "/g", "/g/x", ""]
    assert read(hierarchy, "chunked").tolist() == ["/", "/g", "/g/x", ""] * 5
    assert read(hierarchy, "never").tolist() == ["", "", ""]
    assert read(hierarchy, "dangling").tolist() == [""]
    attributes = hierarchy[""].attributes
    assert attributes["reference"] == {"_REFERENCE": {"source": ".", "path": "/g/x"}}
    assert attributes["null"] == {"_REFERENCE": {"source": ".", "path": ""}}
    assert "dangling" not in attributes
    # An object with two names has one path; the other name is a link to it.
    assert hierarchy.resolve("g/x").path == hierarchy.resolve("other/twice").path


COMPOUNDS: dict[str, list[Any]] = {
    "numbers": [("a", "<i4"), ("b", "<f8"), ("c", "u1")],
    "big-endian": [("a", ">i4"), ("b", ">f8")],
    "both orders": [("a", "<i4"), ("b", ">f8")],
    "booleans": [("a", "?"), ("b", "<f4")],
}


@pytest.mark.parametrize("libver", VERSIONS)
@pytest.mark.parametrize("kind", COMPOUNDS)
def test_compounds_of_numbers(kind: str, libver: str, tmp_path: Path) -> None:
    values = np.zeros(11, COMPOUNDS[kind])
    for number, name in enumerate(values.dtype.names or ()):
        values[name] = np.arange(11) % (2 if values.dtype[name].kind == "b" else 9) * (number + 1)
    values[3]["b"] = np.nan

    def fill(file: h5py.File) -> None:
        file["contiguous"] = values
        file["scalar"] = values[2]
        file.create_dataset("chunked", data=values, chunks=(4,), compression="gzip")
        file.create_dataset("in part", (11,), values.dtype, chunks=(4,))[4:8] = values[4:8]
        aligned = np.zeros(3, np.dtype([("a", "u1"), ("b", "<f8")], align=True))
        aligned["b"] = [1, 2, np.inf]
        file["aligned"] = aligned

    path = write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver])
    hierarchy = opened(path)
    with h5py.File(path) as file:
        for name in file:
            for field in file[name].dtype.names:
                assert_same(read(hierarchy, name, field=field), expected(file[name], field=field))


def test_compounds_with_texts_and_references(tmp_path: Path) -> None:
    kind = np.dtype(
        [("id", "<i4"), ("name", h5py.string_dtype()), ("fixed", "S6"), ("to", h5py.ref_dtype), ("x", ">f4")]
    )

    def fill(file: h5py.File) -> None:
        file["g/x"] = 1
        rows = [(1, "é", b"abc", file["g"].ref, 0.5), (2, "", b"", h5py.Reference(), np.nan)] * 5
        values = np.array(rows, kind)
        file.create_dataset("rows", data=values)
        file.create_dataset("chunked", data=values, chunks=(4,), compression="gzip")
        file.create_dataset("one", data=values[0])

    path = write(tmp_path / "file.nwb", fill)
    hierarchy = opened(path)
    with h5py.File(path) as file:
        for name in ("rows", "chunked", "one"):
            for field in ("id", "x"):
                assert_same(read(hierarchy, name, field=field), expected(file[name], field=field))
    assert read(hierarchy, "rows", field="name").tolist() == ["é", ""] * 5
    assert read(hierarchy, "chunked", field="fixed").tolist() == ["abc", ""] * 5
    assert read(hierarchy, "chunked", field="to").tolist() == ["/g", ""] * 5


def test_attributes_of_every_kind(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "integer": np.int16(-5),
        "float": 2.5,
        "NaN": np.nan,
        "numbers": np.arange(6.0).reshape(2, 3),
        "none of them": np.zeros(0),
        "text": "é",
        "fixed": np.bytes_(b"abc"),
        "texts": np.array(["a", "é"], object),
        "fixed texts": np.array([b"a", b"bc"], "S4"),
        "null": h5py.Empty("f4"),
        "no text": h5py.Empty(h5py.string_dtype()),
        "complex": 1 + 2j,
        "opaque": np.void(b"\1\2\3"),
    }

    def fill(file: h5py.File) -> None:
        for name, value in values.items():
            file.attrs[name] = value
        sequences = np.empty(2, object)
        sequences[:] = [np.arange(3), np.arange(1)]
        file.attrs.create("sequences", sequences, dtype=h5py.vlen_dtype("<i4"))
        time = np.array("2024-05-01T12:00:00", "<M8[s]")
        file.attrs.create("time", time, dtype=h5py.opaque_dtype(time.dtype))
        file.attrs["compound"] = np.array((1, 2.5), [("a", "<i4"), ("b", "<f8")])
        kind = h5py.h5t.array_create(h5py.h5t.STD_I32LE, (6,))
        arrays_of_six = h5py.h5a.create(file.id, b"arrays", kind, h5py.h5s.create_simple((1,)))
        arrays_of_six.write(np.arange(6, dtype="<i4").reshape(1, 6), kind)

    attributes = opened(write(tmp_path / "file.nwb", fill))[""].attributes
    assert np.isnan(attributes["NaN"])
    found = {
        name: attributes.get(name)
        for name in [*values, "sequences", "compound", "arrays", "time"]
        if name != "NaN"
    }
    assert found == {
        "integer": -5,
        "float": 2.5,
        "numbers": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "none of them": [],
        "text": "é",
        "fixed": "abc",
        "texts": ["a", "é"],
        "fixed texts": ["a", "bc"],
        "null": None,
        "no text": "",
        "complex": [1.0, 2.0],
        "opaque": "AQID",
        "time": "2024-05-01T12:00:00",
        "sequences": [[0, 1, 2], [0]],
        "compound": [1, 2.5],
        "arrays": [[0, 1, 2, 3, 4, 5]],
    }


def test_what_is_not_read_is_named_at_opening_and_where_it_is_read(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["numbers"] = np.arange(6)
        region = h5py.regionref_dtype
        regions = file.create_dataset("regions", (2,), region)
        regions[0] = file["numbers"].regionref[1:3]
        file.attrs["region"] = file["numbers"].regionref[1:3]
        file.create_dataset("sequences", (2,), h5py.vlen_dtype("<i4"))[0] = [1, 2]
        file.create_dataset("arrays", (2,), np.dtype(("<i4", (3,))))
        nested = np.dtype([("a", [("b", "<i4"), ("c", "<i4")])])
        file.create_dataset("nested", (2,), nested)
        layout = h5py.VirtualLayout((6,), "<i8")
        layout[:] = h5py.VirtualSource(file["numbers"])
        file.create_virtual_dataset("virtual", layout)
        outside = [(str(tmp_path / "outside.bin"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("external", (6,), "<i8", external=outside)
        twelve = h5py.h5t.STD_I16LE.copy()
        library().H5Tset_precision.argtypes = [ctypes.c_int64, ctypes.c_size_t]
        assert library().H5Tset_precision(twelve.id, 12) >= 0
        h5py.h5d.create(file.id, b"twelve bits", twelve, h5py.h5s.create_simple((4,)))

    reasons = {
        "@region": "region references",
        "regions": "region references",
        "sequences": "sequences of variable length",
        "arrays": "its elements are arrays",
        "nested": "compound",
        "virtual": "virtual dataset",
        "external": "external files",
        "twelve bits": "12 of 16 bits",
    }
    path = write(tmp_path / "file.nwb", fill)
    with pytest.warns(UnreadableWarning, match="cannot be read") as caught:
        hierarchy = open_hierarchy(path)
    (warning,) = caught
    assert "and 3 more" in str(warning.message)
    assert hierarchy.unreadable.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in hierarchy.unreadable[name]
        if name.startswith("@"):
            continue
        with pytest.raises(ChunkError, match=reason) as error:
            read(hierarchy, name)
        assert error.value.path == name
        assert error.value.next_step
    assert read(hierarchy, "numbers").tolist() == [0, 1, 2, 3, 4, 5]


_DTYPES = st.sampled_from([each for each in NUMBERS if each != "?"])


@st.composite
def _datasets(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    shape = draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
    texts = st.text(string.printable + "éΩ日", max_size=6).map(lambda text: text.replace("\0", ""))
    values: np.ndarray[Any, Any]
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        values = draw(arrays(np.dtype(draw(_DTYPES)), shape))
    else:
        values = draw(arrays(object, shape, elements=texts, fill=st.nothing()))
        options["dtype"] = h5py.string_dtype()
    if shape and 0 not in shape and draw(st.booleans()):
        options["chunks"] = tuple(draw(st.integers(1, length)) for length in shape)
        options["maxshape"] = tuple(draw(st.sampled_from([None, length, length + 3])) for length in shape)
        if draw(st.booleans()):
            options |= {
                "compression": "gzip",
                "shuffle": draw(st.booleans()),
                # HDF5 refuses checksums of texts of variable length.
                "fletcher32": values.dtype != object and draw(st.booleans()),
            }
    return values, options


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    datasets=st.lists(_datasets(), min_size=1, max_size=4),
    libver=st.sampled_from(list(VERSIONS)),
    block=st.sampled_from([0, 512, 1024]),
)
def test_any_dataset_is_read_as_h5py_reads_it(
    datasets: list[tuple[np.ndarray[Any, Any], dict[str, Any]]], libver: str, block: int, tmp_path: Path
) -> None:
    def fill(file: h5py.File) -> None:
        for number, (values, options) in enumerate(datasets):
            file.create_dataset(str(number), data=values, **options)

    path = tmp_path / "any.nwb"
    path.unlink(missing_ok=True)
    write(path, fill, libver=VERSIONS[libver], userblock_size=block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _is_same_everywhere(path)


def test_texts_that_one_stored_text_stands_for_are_bounded(tmp_path: Path) -> None:
    long = "x" * 2**20

    def fill(file: h5py.File) -> None:
        file.create_dataset("texts", data=[long] + [""] * 4095, dtype=h5py.string_dtype())

    path = write(tmp_path / "file.nwb", fill)
    assert read(opened(path), "texts")[0] == long
    # All texts are the first one: 4 GB.
    content = path.read_bytes()
    with h5py.File(path) as file:
        start = file["texts"].id.get_offset()
    path.write_bytes(content[:start] + content[start : start + 16] * 4096 + content[start + 65536 :])
    with pytest.raises(NWBZarrError, match="longer than allowed") as caught:
        read(opened(path), "texts")
    assert caught.value.path == "texts"


def test_an_unusual_creation_order_and_times_do_not_matter(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        group = file.create_group("ordered", track_order=True)
        for name in "zyx":
            group[name] = name
            group.attrs[name] = name
        create(
            file,
            "timed",
            np.arange(4),
            chunks=(4,),
            change=lambda creation: creation.set_obj_track_times(True),
        )

    hierarchy = opened(write(tmp_path / "file.nwb", fill, libver="latest"))
    assert hierarchy.children("ordered") == ("x", "y", "z")
    assert hierarchy["ordered"].attributes == {"z": "z", "y": "y", "x": "x"}
