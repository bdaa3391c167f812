"""Zarr 2 metadata become what hdmf-zarr 0.14 writes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, StorePath

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode
from intake_nwbzarr.hierarchy.zarr2.metadata import translate_array, translate_attributes, translate_group
from tests.conftest import KINDS, RELEASES
from tests.hierarchy.zarr2 import Zarr2Array, objects

Corpus = Callable[[str, str], Path]
NUMBER: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [3],
    "chunks": [3],
    "dtype": "<i4",
    "compressor": None,
    "filters": None,
    "order": "C",
    "fill_value": 0,
}

# What is not a matter of the format: identities, times of writing, and what 0.14 alone writes.
OTHERWISE_DIFFERENT = {"object_id", "nwb_version", "_ARRAY_DIMENSIONS"}
WRITTEN_AT_THE_TIME = {"file_create_date"}

# pynwb 4 has a type of its own for the table of electrodes, and reworded some descriptions.
RENAMED_IN_NWB_2_9 = {"general/extracellular_ephys/electrodes": {"namespace", "neurodata_type", "colnames"}}
REWORDED = {"description"}


def documents(folder: Path) -> Iterator[tuple[str, GroupNode | ArrayNode]]:
    for found in sorted(folder.rglob(".z[ga]r*")):
        path = found.parent.relative_to(folder).as_posix().removeprefix(".")
        attributes = found.with_name(".zattrs")
        zattrs = json.loads(attributes.read_bytes()) if attributes.exists() else {}
        if found.name == ".zarray":
            yield path, translate_array(path, json.loads(found.read_bytes()), zattrs)
        else:
            yield path, translate_group(path, zattrs)


def newest(folder: Path) -> dict[str, Any]:
    root = json.loads((folder / "zarr.json").read_bytes())
    return {"": root, **root["consolidated_metadata"]["metadata"]}


def comparable(path: str, attributes: Any) -> dict[str, Any]:
    ignored = OTHERWISE_DIFFERENT | RENAMED_IN_NWB_2_9.get(path, set()) | REWORDED
    known = {key: value for key, value in attributes.items() if key not in ignored}
    # 0.13 and 0.14 call a column of Python's integers "int", the others "int64".
    return known | ({"_DTYPE": "int64"} if known.get("_DTYPE") == "int" else {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("release", RELEASES[:-1])
def test_every_legacy_file_of_the_corpus_becomes_the_newest_one(
    kind: str, release: str, corpus_dir: Corpus
) -> None:
    old_folder, new_folder = corpus_dir(kind, release), corpus_dir(kind, "0.14.0")
    old, new = dict(documents(old_folder)), newest(new_folder)
    schemas = "specifications/"
    assert {p for p in old if not p.startswith(schemas)} == {p for p in new if not p.startswith(schemas)}
    for path, node in old.items():
        if isinstance(node, GroupNode):
            if path in new:
                assert comparable(path, node.attributes) == comparable(path, new[path]["attributes"]), path
            continue
        stored = zarr.Array.from_dict(StorePath(LocalStore(old_folder), path), dict(node.metadata))
        if path.startswith(schemas):
            assert node.attributes == {}
            assert not path.endswith("/namespace") or json.loads(str(stored[...]))["namespaces"]
            continue
        assert comparable(path, node.attributes) == comparable(path, new[path]["attributes"]), path
        for key in ("shape", "data_type", "fill_value"):
            assert node.metadata[key] == new[path][key], (path, key)
        expected = zarr.Array.from_dict(StorePath(LocalStore(new_folder), path), new[path])[...]
        if path not in WRITTEN_AT_THE_TIME:
            np.testing.assert_array_equal(stored[...], expected, path)


def test_references_links_and_the_place_of_schemas_are_renamed():
    zattrs = {
        ".specloc": "specifications",
        "zarr_link": [{"name": "device", "path": "/general/devices/probe", "source": ".", "object_id": "x"}],
        "table": {
            "zarr_dtype": "object",
            "value": {"path": "/units", "source": ".", "object_id": None, "source_object_id": "y"},
        },
        "nested": {"a": [1, {"b": None}]},
        "_ARRAY_DIMENSIONS": ["time"],
    }
    assert translate_attributes(zattrs, "general") == {
        ".specloc": "specifications",
        "_LINKS": [{"source": ".", "path": "/general/devices/probe", "name": "device"}],
        "table": {"_REFERENCE": {"source": ".", "path": "/units"}},
        "nested": {"a": [1, {"b": None}]},
        "_ARRAY_DIMENSIONS": ["time"],
    }


@pytest.mark.parametrize("source", [".", "", "./", None])
def test_a_reference_within_the_file_has_one_form(source):
    value = {"zarr_dtype": "object", "value": {"source": source, "path": "/a"}}
    assert translate_attributes({"table": value}, "x")["table"] == {
        "_REFERENCE": {"source": ".", "path": "/a"}
    }


@pytest.mark.parametrize("source", ["../raw.nwb.zarr", "/absolute/raw.nwb.zarr", "raw.nwb.zarr"])
def test_a_reference_to_another_file_keeps_its_source(source):
    link = {"name": "data", "source": source, "path": "/acquisition/data"}
    assert translate_attributes({"zarr_link": [link]}, "x")["_LINKS"] == [link]


@pytest.mark.parametrize(
    "zattrs",
    [
        {"a": {"zarr_dtype": "region", "value": {"path": "/x"}}},
        {"a": {"zarr_dtype": "object", "value": {"source": "."}}},
        {"a": {"zarr_dtype": "object"}},
        {"zarr_link": [{"name": "a", "source": "."}]},
        {"zarr_link": [{"path": "/a", "source": "."}]},
        {"zarr_link": "/a"},
    ],
)
def test_a_reference_without_a_path_is_named(zattrs):
    with pytest.raises(MetadataError, match=r"The attribute '(a|zarr_link)' of 'units/x'"):
        translate_attributes(zattrs, "units/x")


@pytest.mark.parametrize(
    ("declared", "dtype", "expected"),
    [
        ("bool_", "|b1", "bool"),
        ("bool", "|b1", "bool"),
        ("float", "<f8", "float64"),
        ("float32", "<f4", "float32"),
        ("int", "<i8", "int64"),
        ("<i2", "<i2", "int16"),
        ("scalar", "<u2", "uint16"),
        (None, ">f4", "float32"),
        ("bytes", "|S4", "bytes"),
    ],
)
def test_the_type_is_named_as_the_newest_release_does(declared, dtype, expected):
    zattrs = {} if declared is None else {"zarr_dtype": declared}
    node = translate_array("x", NUMBER | {"dtype": dtype}, zattrs)
    assert node.attributes == {"_DTYPE": expected}


def test_metadata_are_what_zarr_3_says():
    compressor = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    zarray = NUMBER | {
        "shape": [4, 6],
        "chunks": [2, 3],
        "order": "F",
        "compressor": compressor,
        "dtype": ">i4",
    }
    node = translate_array("x", zarray | {"dimension_separator": "/"}, {"unit": "V"})
    assert node.metadata == {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4, 6],
        "data_type": "int32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "transpose", "configuration": {"order": [1, 0]}},
            {"name": "bytes", "configuration": {"endian": "big"}},
            {
                "name": "blosc",
                "configuration": {
                    "typesize": 4,
                    "cname": "lz4",
                    "clevel": 5,
                    "shuffle": "shuffle",
                    "blocksize": 0,
                },
            },
        ],
        "attributes": {"_DTYPE": "int32", "unit": "V"},
        "storage_transformers": [],
    }
    json.dumps(node.metadata)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "<q9"}, "data type '<q9'"),
        ({"dtype": "<f16"}, "data type '<f16'"),
        ({"dtype": 7}, "data type 7"),
        ({"dtype": [["a"]]}, "are damaged"),
        ({"dtype": [["a", "<i4", [2]]]}, r"a field 'a' that is itself an array of shape \[2\]"),
        ({"dtype": [["a", "<i4"], ["b", ">i4"]]}, "mixes little- and big-endian"),
        ({"dtype": "|O"}, "Python objects stored with None"),
        ({"dtype": "|O", "filters": [{"id": "msgpack2"}]}, "Python objects stored with 'msgpack2'"),
        (
            {"dtype": "|O", "filters": [{"id": "vlen-array", "dtype": "<i4"}]},
            "Python objects stored with 'vlen-array'",
        ),
        ({"compressor": {"level": 1}}, "without an 'id'"),
        (
            {"filters": [{"id": "zlib"}, {"id": "delta", "dtype": "<i4"}]},
            "filters of bytes before filters of numbers",
        ),
        ({"shape": [3, 3]}, r"the shape \[3, 3\] but chunks"),
        ({"shape": [-1]}, "-1 is not a length"),
        ({"shape": ["3"]}, "'3' is not a length"),
        ({"shape": None}, "are damaged"),
        ({"zarr_format": 3}, "of Zarr 3"),
    ],
)
def test_metadata_that_cannot_be_translated_are_named(changes, message):
    with pytest.raises(MetadataError, match=f"(?s)array 'units/x'.*{message}") as caught:
        translate_array("units/x", NUMBER | changes, {})
    assert caught.value.path == "units/x"


@pytest.mark.parametrize("missing", ["shape", "chunks", "dtype"])
def test_missing_metadata_are_named(missing):
    zarray = {key: value for key, value in NUMBER.items() if key != missing}
    with pytest.raises(MetadataError, match=f"the array 'x' are damaged: KeyError: '{missing}'"):
        translate_array("x", zarray, {})


PIXELS = np.dtype([("x", "<u4"), ("y", "<u4"), ("weight", "<f4")])
DECLARED = [
    {"name": name, "dtype": "float32" if name == "weight" else "uint32"} for name in PIXELS.names or ()
]


def repeated(rows: list[tuple[int, int, float]]) -> Any:
    """As hdmf-zarr up to 0.11 wrote them: each value in all three fields of a record of its own."""
    records = np.empty((len(rows), 3), PIXELS)
    for position, row in enumerate(rows):
        for column, value in enumerate(row):
            records[position, column] = (int(value), int(value), value)
    return records


@pytest.mark.parametrize("compressor", [None, numcodecs.Blosc()], ids=repr)
@pytest.mark.parametrize("chunks", [(4, 3), (2, 3), (3, 3)])
@pytest.mark.parametrize("separator", [".", "/"])
def test_rows_written_as_repeated_records_are_put_together(compressor, chunks, separator):
    rows = [(4, 7, 0.5), (3, 12, 1.0), (8, 4, 0.25), (1, 2, 2.5)]
    stored = Zarr2Array(
        repeated(rows),
        chunks=chunks,
        separator=separator,
        compressor=compressor,
        fill_value=None,
        attributes={"zarr_dtype": DECLARED},
    )
    assert stored.node.shape == (4,)
    assert stored.node.attributes == {}
    assert stored.read().tolist() == rows
    assert stored.read().dtype == PIXELS


def test_rows_divided_between_chunks_stay_as_they_are():
    stored = Zarr2Array(
        repeated([(1, 2, 3.0)]), chunks=(1, 2), fill_value=None, attributes={"zarr_dtype": DECLARED}
    )
    assert stored.node.shape == (1, 3)
    np.testing.assert_array_equal(stored.read(), repeated([(1, 2, 3.0)]))


def test_compounds_of_one_dimension_stay_as_they_are():
    rows = [(4, 7, 0.5), (3, 12, 1.0), (8, 4, 0.25)]
    stored = Zarr2Array(np.array(rows, PIXELS), fill_value=None, attributes={"zarr_dtype": DECLARED})
    assert stored.read().tolist() == rows


def test_a_scalar_of_text_has_no_dimension():
    stored = Zarr2Array(
        objects(["identifier"]), filters=(numcodecs.VLenUTF8(),), attributes={"zarr_dtype": "scalar"}
    )
    assert stored.node.shape == ()
    assert stored.read() == "identifier"
