"""The chunks, shards and codecs that are chosen, and arrays of every kind as zarr-python reads them."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from intake_nwbzarr import convert, open_hierarchy
from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.conversion.layout import LayoutOptions, plan_array
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.conversion.sessions import Session, files, opened
from tests.hdf5.files import write as write_hdf5
from tests.hierarchy.zarr2 import PICKLE, Zarr2Array, objects

SMALL: dict[str, Any] = {"chunk_mib": 0.001, "shard_mib": 0.008}
"""A thousand bytes a chunk, and eight chunks a shard."""

MIB = 2**20


def _node(shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str = "int16") -> ArrayNode:
    document: dict[str, Any] = {
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}],
    }
    return ArrayNode("data", document)


@pytest.mark.parametrize(
    ("shape", "chunks", "chunk", "shard"),
    [
        # A recording in chunks that suit streaming keeps them.
        ((10**8, 384), (13653, 64), (13653, 64), (6 * 13653, 384)),
        # Chunks of 88 bytes or of one channel become ones of some channels, and long along time.
        ((10**8, 384), (44, 1), (44 * 744, 64), (44 * 744 * 2, 384)),
        # Chunks that are too large are divided.
        ((10**8, 384), (10**6, 384), (32768, 64), (2 * 32768, 384)),
        # Parts of a chunk that is larger than a shard, so that it is decoded once.
        ((10**9, 4), (10**8, 1), (2**21, 1), (2**25, 1)),
        # A movie: whole frames.
        ((10**5, 512, 512), (1, 512, 512), (1, 512, 512), (128, 512, 512)),
        ((10**5, 512, 512), (1, 16, 16), (8, 512, 512), (128, 512, 512)),
        # Small arrays are one chunk, in no shard.
        ((10**6,), (10**3,), (10**6,), (10**6,)),
        ((3, 0), (3, 1), (3, 1), (3, 1)),
        ((), (), (), ()),
    ],
)
def test_chunks_are_long_along_time_and_shards_have_whole_rows(
    shape: tuple[int, ...], chunks: tuple[int, ...], chunk: tuple[int, ...], shard: tuple[int, ...]
) -> None:
    plan = plan_array(_node(shape, chunks), LayoutOptions(), {})
    assert (plan.chunk_shape, plan.target.chunks) == (chunk, shard)
    assert prod(shard) * 2 <= 64 * MIB
    assert (plan.layout.sharding is None) == (chunk == shard)


def test_a_source_chunk_that_is_larger_than_a_shard_is_read_once() -> None:
    plan = plan_array(_node((10**9, 4), (10**8, 1)), LayoutOptions(), {})
    blocks = list(plan.blocks(64 * MIB))
    assert len(blocks) == 40
    assert sorted(cell for block in blocks for cell in block) == sorted(np.ndindex(*_grid(plan)))
    for block in blocks:
        rows, columns = plan.region(block)
        assert columns.stop - columns.start == 1
        # At most one further chunk, with whose beginning the last shard ends.
        assert rows.stop - rows.start <= 10**8 + plan.target.chunks[0]


def _grid(plan: Any) -> tuple[int, ...]:
    return tuple(-(-n // m) for n, m in zip(plan.target.shape, plan.target.chunks, strict=True))


@pytest.mark.parametrize(
    ("compressor", "codecs"),
    [
        ("keep", ["bytes", "zstd"]),
        ("zstd", ["bytes", "zstd"]),
        ("blosc-zstd", ["bytes", "blosc"]),
        ("blosc-lz4", ["bytes", "blosc"]),
        ("gzip", ["bytes", "gzip"]),
        ("none", ["bytes"]),
    ],
)
def test_every_compressor_is_written_so_that_zarr_reads_it(
    compressor: str, codecs: list[str], tmp_path: Path
) -> None:
    session = Session(tmp_path / "a.zarr")
    values = np.random.default_rng(0).integers(0, 99, (999, 5)).astype("i2")
    session.add("data", values, chunks=(100, 5))
    text = np.array([f"text {number}" for number in range(99)], dtype=object)
    session.add("text", text.astype(np.dtypes.StringDType()), chunks=(10,))
    target = tmp_path / "b.zarr"
    done = convert(session.consolidated(), target, compressor=compressor, **SMALL)
    by_path = {array.target.path: array for array in done.arrays}
    assert by_path["data"].document["codecs"] == codecs
    assert by_path["data"].copied == (compressor in {"keep", "zstd"})
    assert opened(target, "data").shards == (800, 5)
    np.testing.assert_array_equal(opened(target, "data")[...], values)
    assert opened(target, "text")[...].tolist() == text.tolist()


@pytest.mark.parametrize(
    "options",
    [{"compressor": "lzma"}, {"chunk_mib": 0}, {"chunk_mib": True}, {"shard_mib": 2**20}, {"shard_mib": 1}],
)
def test_odd_options_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        convert(tmp_path, tmp_path / "b", **options)


NUMBERS = np.random.default_rng(1).standard_normal((50, 20))
CHAINS: list[dict[str, Any]] = [
    {"chunks": (7, 20)},
    {"chunks": (7, 20), "compressors": []},
    {"chunks": (7, 3), "compressors": BloscCodec(cname="lz4", shuffle="shuffle", typesize=8)},
    {"chunks": (7, 20), "compressors": [GzipCodec(), Crc32cCodec()]},
    {"chunks": (7, 20), "filters": [TransposeCodec(order=(1, 0))]},
    {"chunks": (7, 20), "serializer": BytesCodec(endian="big"), "compressors": ZstdCodec()},
    {"chunks": (5, 20), "shards": (10, 20)},
    {"chunks": (5, 4), "shards": (25, 20)},
    {"chunks": (50, 1)},
    {"chunks": (1, 1)},
    {"chunks": (50, 20)},
    {"chunks": (7, 20), "fill_value": np.nan},
]


@pytest.mark.parametrize("options", CHAINS)
@pytest.mark.parametrize(
    "sizes",
    [
        SMALL,
        pytest.param({"chunk_mib": 0.001, "shard_mib": 0.001}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
    ],
)
def test_numbers_stored_in_any_way_are_the_same(
    options: dict[str, Any], sizes: dict[str, Any], tmp_path: Path
) -> None:
    session = Session(tmp_path / "a.zarr")
    values = NUMBERS.copy()
    values[14:28, :], values[0, 0], values[40] = options.get("fill_value", 0), -0.0, np.nan
    session.add("data", values, **options)
    target = tmp_path / "b.zarr"
    done = convert(session.consolidated(), target, **sizes)
    found = opened(target, "data")
    assert np.asarray(found[...]).tobytes() == values.tobytes()
    assert np.array_equal(found.fill_value, options.get("fill_value", 0.0), equal_nan=True)
    node = open_hierarchy(target)["data"]
    assert isinstance(node, ArrayNode)
    read = StoredArray(open_hierarchy(target).file, node).read()
    assert read.tobytes() == values.tobytes()
    (array,) = done.arrays
    if sizes == SMALL and options["chunks"] == (7, 20) and "serializer" not in options:
        assert array.copied


def test_chunks_are_copied_as_they_are_and_absent_ones_stay_absent(tmp_path: Path) -> None:
    session = Session(tmp_path / "a.zarr")
    values = NUMBERS.copy()
    values[20:] = 0
    session.add("data", values, chunks=(5, 20))
    before = files(opened(session.consolidated(), "data"), session.path)
    assert len(before) == 4
    target = tmp_path / "b.zarr"
    (array,) = convert(session.path, target, **SMALL).arrays
    assert array.copied
    after = files(opened(target, "data"), target)
    # Shards of ten chunks of which four are stored; another one would have none.
    assert [*after] == ["c/0/0"]
    assert all(data in after["c/0/0"] for data in before.values())
    assert len(after["c/0/0"]) == sum(map(len, before.values())) + 16 * 10 + 4
    again = tmp_path / "c.zarr"
    convert(target, again, chunk_mib=0.001, shard_mib=0.001)
    # Single chunks again, from the shards.
    assert [*files(opened(again, "data"), again).values()] == [*before.values()]


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_other_types_are_the_same(tmp_path: Path) -> None:
    session = Session(tmp_path / "a.zarr")
    random = np.random.default_rng(2)
    arrays: dict[str, Any] = {
        "bool": random.integers(0, 2, 3000).astype(bool),
        "bytes": np.array([b"ab", b"c"] * 500),
        "complex": random.standard_normal(300) + 1j,
        "times": np.arange(999).astype("M8[us]"),
        "fixed": np.array(["\N{GREEK SMALL LETTER MU}V", "s"] * 300),
        "compound": np.array([(1, 2.5)] * 400, dtype=[("a", "<i4"), ("b", "<f8")]),
        "scalar": np.float32(1.5),
        "empty": np.zeros((0, 3)),
    }
    for name, values in arrays.items():
        session.add(name, values, chunks=(100, 3)[: values.ndim] if values.ndim else "auto")
    target = tmp_path / "b.zarr"
    convert(session.consolidated(), target, compressor="blosc-lz4", **SMALL)
    for name, values in arrays.items():
        found = opened(target, name)
        assert np.asarray(found[...]).tobytes() == values.tobytes(), name
        assert found.dtype == values.dtype


FILTERED: list[dict[str, Any]] = [
    {"compressor": numcodecs.Zlib()},
    {"compressor": numcodecs.Blosc(), "filters": (numcodecs.Delta("i4"),)},
    {"compressor": numcodecs.LZ4(), "order": "F"},
    {"order": "F"},
    {"separator": "/", "compressor": numcodecs.Blosc()},
    {"compressor": numcodecs.Zstd(), "missing": ("1.0",)},
]


def _session_of_zarr2(folder: Path, name: str, array: Zarr2Array) -> Path:
    documents: dict[str, Any] = {
        ".zgroup": {"zarr_format": 2},
        ".zattrs": {"neurodata_type": "NWBFile", "namespace": "core", "nwb_version": "2.6.0"},
        f"{name}/.zarray": array.zarray,
        f"{name}/.zattrs": array.zattrs,
    }
    for key, document in documents.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_text(json.dumps(document))
    for key, data in array.stored.items():
        (folder / name / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / key).write_bytes(data)
    return folder


@pytest.mark.parametrize("options", FILTERED)
def test_zarr_2_in_any_encoding_is_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    values = np.arange(3000, dtype="i4").reshape(300, 10)
    source = Zarr2Array(values, chunks=(70, 10), **options)
    target = tmp_path / "b.zarr"
    (array,) = convert(_session_of_zarr2(tmp_path / "a", "data", source), target, **SMALL).arrays
    expected = values.copy()
    if "missing" in options:
        expected[70:140] = 0
    np.testing.assert_array_equal(opened(target, "data")[...], expected)
    names = {each["name"] for each in array.target.metadata["codecs"]}
    assert not any(name.startswith("numcodecs") for name in names)
    assert array.copied == (options.get("compressor", numcodecs.Zstd()).codec_id in {"zstd", "blosc"}) & (
        "filters" not in options
    )


def test_pickled_strings_become_utf8(tmp_path: Path) -> None:
    texts = objects([f"cell {number}" for number in range(3000)])
    array = Zarr2Array(texts, chunks=(3000,), filters=(PICKLE,), attributes={"zarr_dtype": "str"}, dtype="|O")
    target = tmp_path / "b.zarr"
    convert(_session_of_zarr2(tmp_path / "a", "text", array), target, **SMALL)
    found = opened(target, "text")
    assert found[...].tolist() == texts.tolist()
    assert found.attrs["_DTYPE"] == "str"
    assert found.metadata.to_dict()["data_type"] == "string"


def _fill_hdf5(file: h5py.File) -> None:
    values = np.arange(6000, dtype=">i2").reshape(600, 10)
    file.create_dataset("chunked", data=values, chunks=(60, 5), compression="gzip", shuffle=True)
    file.create_dataset("plain", data=values, chunks=(60, 10))
    file.create_dataset("contiguous", data=values)
    file.create_dataset("absent", (6000,), "f8", chunks=(100,), fillvalue=np.nan)[150] = 1
    file.create_dataset("text", data=[f"text {number}" for number in range(500)], chunks=(60,))
    file.create_dataset("bool", data=np.arange(500) % 2 == 0)
    table = np.dtype([("start", "i4"), ("name", h5py.string_dtype())])
    file.create_dataset("table", data=np.array([(n, f"n{n}") for n in range(30)], dtype=table))


@pytest.mark.parametrize("compressor", ["keep", "none"])
def test_hdf5_in_any_storage_is_the_same(compressor: str, tmp_path: Path) -> None:
    source, target = write_hdf5(tmp_path / "a.nwb", _fill_hdf5), tmp_path / "b.zarr"
    done = convert(source, target, compressor=compressor, **SMALL)
    assert done.copied == 0
    with h5py.File(source) as file:
        for name in ("chunked", "plain", "contiguous", "absent", "bool"):
            np.testing.assert_array_equal(opened(target, name)[...], file[name][...], err_msg=name)
        assert opened(target, "text")[...].tolist() == file["text"].asstr()[...].tolist()
    table = opened(target, "table")[...]
    assert [tuple(row) for row in table.tolist()] == [(n, f"n{n}") for n in range(30)]
    assert [*files(opened(target, "absent"), target)] == ["c/0"]
