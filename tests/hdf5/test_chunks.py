"""Chunks of HDF5 datasets: every index, filter, mask and way of storing, against h5py."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError
from intake_nwbzarr.hdf5.chunk_table import ChunkTable, contiguous_table, pack, unpack
from intake_nwbzarr.hdf5.filters import fletcher32
from tests.hdf5.files import (
    VERSIONS,
    assert_same,
    create,
    expected,
    opened,
    read,
    without_filters_at_edges,
    write,
)

# Shape, chunks and largest shape of datasets that libver latest stores with each kind of index.
GRIDS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int | None, ...] | None]] = {
    "single": ((5, 7), (5, 7), None),
    "fixed": ((23, 31), (5, 7), None),
    "fixed in pages": ((5000,), (2,), None),
    "extensible": ((60,), (5,), (None,)),
    "extensible along the last axis": ((7, 900), (7, 3), (7, None)),
    "extensible with super blocks": ((6000, 4), (1, 4), (None, 8)),
    "tree 2": ((40, 30), (3, 5), (None, None)),
    "three axes": ((12, 10, 9), (5, 3, 4), (None, 10, None)),
}
PIPELINES: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip": {"compression": "gzip"},
    "gzip, shuffle, fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "fletcher32": {"fletcher32": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "szip": {"compression": "szip", "compression_opts": ("nn", 8)},
    "scaleoffset": {"scaleoffset": 0},
    "blosc": dict(hdf5plugin.Blosc("lz4", 5, 1)),
    "blosc2": dict(hdf5plugin.Blosc2()),
    "zstd": dict(hdf5plugin.Zstd(3)),
    "lz4": dict(hdf5plugin.LZ4()),
    "bitshuffle": dict(hdf5plugin.Bitshuffle()),
}


def _cells(dataset: h5py.Dataset) -> Iterator[tuple[slice, ...]]:
    axes = (range(0, n, width) for n, width in zip(dataset.shape, dataset.chunks, strict=True))
    for starts in itertools.product(*axes):
        yield tuple(
            slice(start, min(start + width, length))
            for start, width, length in zip(starts, dataset.chunks, dataset.shape, strict=True)
        )


def _fill(dataset: h5py.Dataset, part: float) -> None:
    """Write random values to some of the chunks."""
    chance = np.random.default_rng(len(dataset.name))
    cells = list(_cells(dataset))
    for cell in cells:
        if len(cells) == 1 or chance.random() < part:
            shape = tuple(each.stop - each.start for each in cell)
            dataset[cell] = chance.integers(0, 1000, shape).astype(dataset.dtype)


def _selections(shape: tuple[int, ...], count: int = 4) -> Iterator[tuple[Any, ...]]:
    """Yield selections of all kinds: an integer, a range, every n-th, or places in order, for each axis."""
    chance = np.random.default_rng(sum(shape))
    yield ()
    for _ in range(count):
        key: list[Any] = []
        for length in shape:
            first = int(chance.integers(0, length))
            last = int(chance.integers(first, length)) + 1
            # h5py takes places along one axis only.
            several = sorted({first, last - 1, length // 2})
            choices = [first, slice(first, last), slice(first, None, 3), several]
            key.append(choices[chance.integers(0, 4 if not any(isinstance(k, list) for k in key) else 3)])
        yield tuple(key)


@pytest.mark.parametrize("libver", VERSIONS)
def test_every_index_is_read_as_h5py_reads_it(libver: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for (name, (shape, chunks, largest)), (kind, options) in itertools.product(
            GRIDS.items(), [("none", {}), ("gzip", PIPELINES["gzip"])]
        ):
            dataset = file.create_dataset(
                f"{name}, {kind}", shape, "i2", chunks=chunks, maxshape=largest, fillvalue=-3, **options
            )
            _fill(dataset, 0.05 if np.prod(shape) > 2000 else 0.5)

    path = write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver])
    hierarchy = opened(path)
    with h5py.File(path) as file:
        for name in file:
            for key in _selections(file[name].shape):
                assert_same(read(hierarchy, name, key), expected(file[name], key))


@pytest.mark.parametrize("kind", PIPELINES)
def test_every_filter_is_undone(kind: str, tmp_path: Path) -> None:
    options = PIPELINES[kind]

    def fill(file: h5py.File) -> None:
        # scaleoffset and szip have no chunks of other numbers.
        dtypes = ["<i4", "<u2"] if kind in {"scaleoffset", "szip"} else ["<i2", ">i4", "<f8", ">f4", "u1"]
        for dtype in dtypes:
            dataset = file.create_dataset(dtype, (50, 8), dtype, chunks=(16, 8), **options)
            _fill(dataset, 0.8)

    for libver in ("earliest", "latest"):
        path = write(tmp_path / f"{libver}.nwb", fill, libver=libver)
        hierarchy = opened(path)
        with h5py.File(path) as file:
            for name in file:
                for key in _selections(file[name].shape, 2):
                    assert_same(read(hierarchy, name, key), expected(file[name], key))


def _encoded(values: NDArray[Any], mask: int) -> bytes:
    """Return a chunk after shuffle, gzip and fletcher32, of which a mask skips some."""
    data = values.tobytes()
    if not mask & 1:
        data = np.frombuffer(data, np.uint8).reshape(-1, values.itemsize).T.tobytes()
    if not mask & 2:
        data = zlib.compress(data)
    if not mask & 4:
        data += fletcher32(data).to_bytes(4, "little")
    return data


@pytest.mark.parametrize("libver", VERSIONS)
def test_every_mask_of_filters_is_honoured(libver: str, tmp_path: Path) -> None:
    values = np.arange(8 * 30, dtype="<i4").reshape(8, 30)
    options = PIPELINES["gzip, shuffle, fletcher32"]

    def fill(file: h5py.File) -> None:
        for name, largest in {"fixed": None, "extensible": (None, 30), "tree 2": (None, None)}.items():
            dataset = file.create_dataset(
                name,
                (8, 30),
                "<i4",
                chunks=(1, 30),
                maxshape=largest,
                **PIPELINES["gzip, shuffle, fletcher32"],
            )
            for mask in range(8):
                dataset.id.write_direct_chunk((mask, 0), _encoded(values[mask], mask), mask)
        single = file.create_dataset("single", (1, 30), "<i4", chunks=(1, 30), **options)
        single.id.write_direct_chunk((0, 0), _encoded(values[5], 5), 5)

    hierarchy = opened(write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver]))
    for name in ("fixed", "extensible", "tree 2"):
        assert_same(read(hierarchy, name), values)
    assert_same(read(hierarchy, "single"), values[5:6])


@pytest.mark.parametrize("largest", [None, (None, 11), (None, None)])
def test_chunks_at_the_edges_may_have_no_filters(largest: Any, tmp_path: Path) -> None:
    values = np.arange(13 * 11, dtype="<i4").reshape(13, 11)

    def change(creation: Any) -> None:
        creation.set_deflate(4)
        creation.set_fletcher32()
        without_filters_at_edges(creation)

    def fill(file: h5py.File) -> None:
        create(file, "partial", values, chunks=(5, 4), largest=largest, change=change)[...] = values
        create(file, "unwritten", values, chunks=(5, 4), largest=largest, change=change)[:5] = values[:5]
        create(file, "whole", values, chunks=(13, 11), largest=largest, change=change)[...] = values
        create(file, "one", values, chunks=(20, 20), largest=(None, None), change=change)[...] = values
        if largest is not None:
            shrunk = create(file, "shrunk", values, chunks=(5, 4), largest=largest, change=change)
            shrunk[...] = values
            shrunk.resize((8, 11))
            grown = create(file, "grown", values, chunks=(5, 4), largest=largest, change=change)
            grown[...] = values
            grown.resize((17, 11))
            grown[13:] = 7

    path = write(tmp_path / "file.nwb", fill, libver="latest")
    hierarchy = opened(path)
    with h5py.File(path) as file:
        sizes: list[int] = []
        file["partial"].id.chunk_iter(lambda chunk: sizes.append(chunk.size))
        assert 5 * 4 * 4 in sizes  # of a chunk without filters
        for name in file:
            assert_same(read(hierarchy, name), expected(file[name]))


@pytest.mark.parametrize("libver", VERSIONS)
def test_a_dataset_that_was_shrunk_or_grown_is_read_as_it_is_now(libver: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for largest in [(None, 40), (None, None), (90, 60)]:
            for options in ({}, PIPELINES["gzip"]):
                name = f"{largest} {options}".replace("/", "")
                dataset = file.create_dataset(
                    name,
                    data=np.ones((50, 40), "i2"),
                    chunks=(5, 7),
                    maxshape=largest,
                    fillvalue=9,
                    **options,
                )
                dataset.resize((17, 33))
                file.copy(dataset, f"again {name}")
                file[f"again {name}"].resize((40, 35))

    path = write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver])
    hierarchy = opened(path)
    with h5py.File(path) as file:
        for name in file:
            assert_same(read(hierarchy, name), expected(file[name]))


@pytest.mark.parametrize("libver", VERSIONS)
def test_chunks_that_were_allocated_early_are_found_by_their_number(libver: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        def early(creation: Any) -> None:
            creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)

        values = np.arange(33 * 44, dtype="<i2").reshape(33, 44)
        create(file, "fixed", values, chunks=(5, 5), change=early)[...] = values
        create(file, "may grow", values, chunks=(5, 5), largest=(55, 66), change=early)[...] = values
        create(file, "not written", values, chunks=(5, 5), change=early)

    path = write(tmp_path / "file.nwb", fill, libver=VERSIONS[libver])
    hierarchy = opened(path)
    with h5py.File(path) as file:
        for name in file:
            for key in _selections(file[name].shape):
                assert_same(read(hierarchy, name, key), expected(file[name], key))


def test_contiguous_and_compact_numbers_are_read_in_pieces(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 5, 300, 1000), "u1")

    def fill(file: h5py.File) -> None:
        file["in pieces"] = values
        file["big-endian"] = values[0].astype(">u2")
        file["long rows"] = values.reshape(2, -1)
        file.create_dataset("never written", (1000, 3000), "f4", fillvalue=2.5)
        file.create_dataset("written in part", (1000, 3000), "f4", fillvalue=2.5)[5] = 3
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        for dtype in ("<i2", ">f8"):
            space = h5py.h5s.create_simple((4, 5))
            kind = h5py.h5t.py_create(np.dtype(dtype))
            dataset = h5py.Dataset(
                h5py.h5d.create(file.id, f"compact {dtype}".encode(), kind, space, compact)
            )
            dataset[...] = np.arange(20).reshape(4, 5)

    path = write(tmp_path / "file.nwb", fill)
    hierarchy = opened(path)
    with h5py.File(path) as file:
        for name in file:
            for key in _selections(file[name].shape):
                assert_same(read(hierarchy, name, key), expected(file[name], key))


def test_an_array_of_nothing_has_its_shape(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["contiguous"] = np.empty((0, 4), "f4")
        file["in the middle"] = np.empty((3, 0, 2), "i2")
        file.create_dataset("chunked", (0, 4), "i2", chunks=(5, 4), maxshape=(None, 4))
        file.create_dataset("texts", (0,), h5py.string_dtype())
        file["null"] = h5py.Empty("f4")

    path = write(tmp_path / "file.nwb", fill)
    hierarchy = opened(path)
    with h5py.File(path) as file:
        for name in ("contiguous", "in the middle", "chunked"):
            assert_same(read(hierarchy, name), expected(file[name]))
    assert read(hierarchy, "texts").tolist() == []
    assert read(hierarchy, "null").shape == (0,)


def test_chunks_are_found_where_groups_are_called_c(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["c/c"] = 5
        file["c/x/c"] = np.arange(3)
        file["c/x/d"] = 6

    hierarchy = opened(write(tmp_path / "file.nwb", fill))
    assert read(hierarchy, "c/c") == 5
    assert read(hierarchy, "c/x/d") == 6
    assert read(hierarchy, "c/x/c").tolist() == [0, 1, 2]


def test_a_filter_that_nobody_has_is_named(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((4,))
        creation.set_deflate(1)
        space = h5py.h5s.create_simple((8,))
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I32LE, space, creation))
        dataset[...] = np.arange(8)

    path = write(tmp_path / "file.nwb", fill)
    # The filter's number and its length without a name, in the message of the filters.
    content = path.read_bytes()
    name = b"\x01\x00\x08\x00\x01\x00\x01\x00deflate\x00"
    assert content.count(name) == 1
    path.write_bytes(content.replace(name, b"\x2a\x7f" + name[2:]))
    hierarchy = opened(path)
    with pytest.raises(ChunkError, match="filter 32554") as caught:
        read(hierarchy, "x")
    assert caught.value.found == 32554


@st.composite
def _tables(draw: st.DrawFn) -> ChunkTable:
    counts = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    total = int(np.prod(counts, dtype=int))
    sizes = draw(arrays(np.uint64, total, elements=st.integers(0, 2**32)))
    offsets = draw(arrays(np.uint64, total, elements=st.integers(1, 2**48)))
    if draw(st.booleans()):
        # As files mostly are: one chunk after the other.
        offsets = np.uint64(512) + np.cumsum(sizes, dtype=np.uint64) - sizes
    numbers = st.integers(0, max(total - 1, 0))
    masks = draw(st.dictionaries(numbers, st.integers(1, 2**32 - 1))) if total else {}
    return ChunkTable(counts, np.where(sizes > 0, offsets, 0).astype(np.uint64), sizes, masks)


@given(_tables())
def test_a_table_of_chunks_survives_being_packed(table: ChunkTable) -> None:
    found = unpack(pack(table))
    assert found.counts == table.counts
    assert found.masks == table.masks
    assert np.array_equal(found.sizes, table.sizes)
    assert np.array_equal(found.offsets, table.offsets)


@given(_tables(), st.data())
def test_a_packed_table_that_is_damaged_is_an_error_or_a_table(
    table: ChunkTable, data: st.DataObject
) -> None:
    packed = bytearray(pack(table))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = unpack(bytes(packed))
    except MetadataError:
        return
    assert len(found.sizes) == len(found.offsets) == int(np.prod(found.counts, dtype=int))


def test_more_chunks_than_anyone_has_are_refused() -> None:
    with pytest.raises(LimitError, match="chunks"):
        contiguous_table((2**40,), (1,), 1, 0, 2**40)
    with pytest.raises(LimitError, match="chunks"):
        contiguous_table((2**60,), (2**20,), 4, None, 0)
