"""Parts of large chunk indexes: a few chunks of many are what h5py reads, or an error."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr.errors import MetadataError, NWBZarrError, ObjectChangedError
from intake_nwbzarr.hdf5.chunk_nodes import SMALL
from tests.hdf5.files import VERSIONS, assert_same, expected, opened, read, write

type Key = tuple[int | slice, ...]


class Stored(NamedTuple):
    """A dataset of many chunks, and what is done to it before it is read."""

    libver: str
    chunks: tuple[int, ...]
    counts: tuple[int, ...]
    # None: no larger than it is; 0 for an unlimited axis.
    largest: tuple[int, ...] | None
    filters: dict[str, Any]
    # Parts of the first axis that are written, in this order.
    written: list[int]
    # By how many tenths an axis is shortened or lengthened, and whether it is written to the end then.
    resized: list[tuple[int, int, bool]]


@st.composite
def _stored(draw: st.DrawFn) -> Stored:
    rank = draw(st.integers(1, 3))
    chunks = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    others = tuple(draw(st.integers(1, 90 if rank == 2 else 9)) for _ in range(rank - 1))
    counts = (draw(st.integers(SMALL, 2 * SMALL)) // int(np.prod(others, dtype=int)) + 1, *others)
    order = draw(st.permutations(range(rank)))
    largest = draw(st.none() | st.tuples(*[st.sampled_from([0, 1, 2])] * rank))
    return Stored(
        draw(st.sampled_from(["earliest", "earliest", "v110", "latest"])),
        tuple(chunks[axis] for axis in order),
        tuple(counts[axis] for axis in order),
        largest,
        draw(st.sampled_from([{}, {"compression": "gzip", "shuffle": True}, {"fletcher32": True}])),
        draw(st.lists(st.integers(0, 9), max_size=8)),
        draw(st.lists(st.tuples(st.integers(0, rank - 1), st.integers(3, 13), st.booleans()), max_size=3)),
    )


def _fill(file: h5py.File, stored: Stored) -> None:
    shape = tuple(count * width for count, width in zip(stored.counts, stored.chunks, strict=True))
    largest = stored.largest and tuple(
        times * length or None for times, length in zip(stored.largest, shape, strict=True)
    )
    dataset = file.create_dataset(
        "x", shape, "u1", chunks=stored.chunks, maxshape=largest, fillvalue=7, **stored.filters
    )
    chance = np.random.default_rng(0)
    for tenth in stored.written:
        part = slice(shape[0] * tenth // 10, shape[0] * (tenth + 1) // 10)
        if part.start < part.stop:
            dataset[part] = chance.integers(0, 200, (part.stop - part.start, *shape[1:]))
    for axis, tenths, is_written in stored.resized if largest is not None else []:
        length = max(1, dataset.shape[axis] * tenths // 10)
        most = dataset.maxshape[axis]
        dataset.resize(length if most is None else min(length, most), axis)
        if is_written:
            last = [slice(None)] * dataset.ndim
            last[axis] = slice(dataset.shape[axis] - 1, None)
            dataset[tuple(last)] = 9


def _selection(data: st.DataObject, shape: tuple[int, ...]) -> Key:
    """Draw a selection of one or a few chunks, for each axis a place or a short range."""
    key: list[int | slice] = []
    for length in shape:
        first = data.draw(st.integers(0, length - 1))
        key.append(data.draw(st.sampled_from([first, slice(first, first + 9), slice(first, None, length)])))
    return tuple(key)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(_stored(), st.data())
def test_a_few_chunks_of_many_are_those_that_h5py_reads(stored: Stored, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = write(
            Path(folder) / "file.nwb", lambda file: _fill(file, stored), libver=VERSIONS[stored.libver]
        )
        hierarchy = opened(path)
        with h5py.File(path) as file:
            for _ in range(8):
                key = _selection(data, file["x"].shape)
                assert_same(read(hierarchy, "x", key), expected(file["x"], key))
            assert_same(read(hierarchy, "x"), expected(file["x"]))


CHUNKS = 20_000
WIDTH = 4


def _write(path: Path, chunks: int = CHUNKS, first: int = 0, libver: str = "earliest") -> Path:
    """Write numbers from the first on, four a chunk, apart from the ends of the file, which opening reads."""

    def fill(file: h5py.File) -> None:
        file["before"] = np.zeros(300_000, "u1")
        numbers = np.arange(first, first + chunks * WIDTH, dtype="<u4")
        file.create_dataset("x", data=numbers, chunks=(WIDTH,))
        file["after"] = np.zeros(300_000, "u1")

    return write(path, fill, libver=VERSIONS[libver])


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A file of many chunks of four numbers each, whose index is a B-tree of version 1 of three levels."""
    return _write(tmp_path / "many.nwb")


def _nodes(content: bytes, level: int) -> list[int]:
    """Return where the nodes of the B-tree begin that are so far above the leaves."""
    start = b"TREE" + bytes([1, level])
    places, at = [], content.find(start)
    while at >= 0:
        places.append(at)
        at = content.find(start, at + 1)
    return places


def _leaf_of(content: bytes, chunk: int) -> int:
    """Return where the leaf begins that has a chunk."""
    for node in _nodes(content, 0):
        (used,) = struct.unpack_from("<H", content, node + 6)
        # A key is a size, a mask, a place and zero; the address of the chunk follows.
        (first,) = struct.unpack_from("<Q", content, node + 24 + 8)
        if first <= chunk * WIDTH < first + used * WIDTH:
            return node
    raise LookupError(chunk)


def _chunk(path: Path, chunk: int) -> list[int]:
    values: list[int] = read(opened(path), "x", slice(chunk * WIDTH, (chunk + 1) * WIDTH)).tolist()
    return values


@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_the_chunks_at_the_ends_of_nodes_and_pages_are_found(libver: str, tmp_path: Path) -> None:
    content = _write(tmp_path / "file.nwb", libver=libver).read_bytes()
    for chunk in (0, 1023, 1024, 2047, CHUNKS - 2, CHUNKS - 1):
        # Of each file, one part of the index is read.
        path = tmp_path / f"{chunk}.nwb"
        path.write_bytes(content)
        assert _chunk(path, chunk) == list(range(chunk * WIDTH, (chunk + 1) * WIDTH))


def test_damage_to_the_part_of_an_index_that_is_read_is_an_error(many: Path) -> None:
    content = bytearray(many.read_bytes())
    leaf = _leaf_of(content, 10_000)
    content[leaf : leaf + 4] = b"free"
    many.write_bytes(content)
    for _ in range(2):
        with pytest.raises(MetadataError, match="instead of b'TREE'") as caught:
            _chunk(many, 10_000)
        assert (caught.value.path, bool(caught.value.next_step)) == ("x", True)
    # As for h5py, what does not lead to a chunk is not read.
    assert _chunk(many, 5_000) == list(range(20_000, 20_004))


def test_chunks_are_found_if_the_keys_of_nodes_above_them_are_damaged(many: Path) -> None:
    original = many.read_bytes()
    (root,) = _nodes(original, 2)
    for number, node in enumerate([root, *_nodes(original, 1)[:3]]):
        for place in (1, 3):
            at = node + 24 + place * 32 + 8
            (key,) = struct.unpack_from("<Q", original, at)
            for changed in (0, key - WIDTH, key + WIDTH, key + 1, 2**63):
                path = many.with_name(f"{number} {place} {changed}.nwb")
                path.write_bytes(original[:at] + struct.pack("<Q", changed) + original[at + 8 :])
                for chunk in (key // WIDTH - 1, key // WIDTH):
                    assert _chunk(path, chunk) == list(range(chunk * WIDTH, (chunk + 1) * WIDTH))


@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_every_changed_byte_of_what_leads_to_a_chunk_is_an_error_or_of_no_consequence(
    libver: str, tmp_path: Path
) -> None:
    path = _write(tmp_path / "file.nwb", libver=libver)
    original = path.read_bytes()
    chance = np.random.default_rng(0)
    signatures = (b"TREE\1\1", b"TREE\1\2", b"FAHD", b"FADB")
    starts = [at for each in signatures if (at := original.find(each)) >= 0]
    for at in [start + int(offset) for start in starts for offset in chance.integers(0, 100, 30)]:
        content = bytearray(original)
        content[at] ^= 1 << int(chance.integers(0, 8))
        changed = tmp_path / f"{at} {content[at]}.nwb"
        changed.write_bytes(content)
        try:
            found = _chunk(changed, 10_000)
        except NWBZarrError:
            continue
        assert found == list(range(40_000, 40_004))


def test_a_file_that_was_replaced_after_a_part_of_its_index_was_read_is_told_each_time(many: Path) -> None:
    hierarchy = opened(many)
    assert read(hierarchy, "x", 5) == 5
    for chunks in (CHUNKS, 1):
        _write(many.with_name("other.nwb"), chunks, first=1).replace(many)
        for place in (5, 50_000, 70_000):
            with pytest.raises(ObjectChangedError, match="replaced") as caught:
                read(hierarchy, "x", place)
            assert str(caught.value.next_step).endswith("again.")
    assert read(opened(many), "x", slice(0, 2)).tolist() == [1, 2]
