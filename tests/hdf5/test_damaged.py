"""HDF5 files that are damaged or malicious end in errors of this package, in bounded time and memory."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hdmf_zarr.nwb import NWBZarrIO
from numcodecs.checksum32 import JenkinsLookup3
from pynwb import NWBHDF5IO

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.errors import (
    ChunkError,
    LimitError,
    LinkError,
    MappingWarning,
    MetadataError,
    NWBZarrError,
    NWBZarrWarning,
    ObjectChangedError,
)
from intake_nwbzarr.hdf5.objects import Group, Objects
from intake_nwbzarr.hdf5.source import Source
from tests.hdf5.files import opened, read, write

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def _run(folder: Path, first: int, last: int, timeout: float) -> None:
    command = [sys.executable, "-m", "tests.hdf5.damage", str(folder), str(first), str(last)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-8000:]


@pytest.mark.parametrize("first", [0, 20])
def test_a_damaged_file_is_an_error_of_ours_or_what_h5py_reads(first: int, tmp_path: Path) -> None:
    _run(tmp_path / "files", first, first + 20, 250)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(10_000, 12_000, 500))
def test_many_damaged_files_are_errors_of_ours_or_what_h5py_reads(first: int, tmp_path: Path) -> None:
    _run(tmp_path / "files", first, first + 500, 1700)


def _patched(path: Path, change: Callable[[bytearray], Any]) -> Path:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def _replaced(path: Path, old: bytes, new: bytes) -> Path:
    def change(content: bytearray) -> None:
        assert content.count(old) == 1
        at = content.index(old)
        content[at : at + len(old)] = new

    return _patched(path, change)


def _is_whole(error: NWBZarrError, path: str) -> None:
    """Check what every error of an array has."""
    assert error.location is not None
    assert error.path == path
    assert error.next_step


def test_a_chunk_of_more_elements_than_memory_is_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("x", (2468, 1134), "u1", chunks=(1234, 567))[...] = 1
        file["fine"] = 1

    path = write(tmp_path / "file.nwb", fill)
    _replaced(path, struct.pack("<III", 1234, 567, 1), struct.pack("<III", 2**20, 2**20, 1))
    hierarchy = opened(path)
    with pytest.raises(LimitError, match="'x' has chunks of 1099511627776 bytes"):
        read(hierarchy, "x")
    assert read(hierarchy, "fine") == 1


def test_a_shape_of_more_elements_than_stored_is_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["x"] = np.arange(1234.0)

    path = _replaced(
        write(tmp_path / "file.nwb", fill),
        struct.pack("<QQ", 1234, 1234),
        struct.pack("<QQ", 2**20, 2**20),
    )
    with pytest.raises(MetadataError, match="1048576") as caught:
        read(opened(path), "x", 5)
    _is_whole(caught.value, "x")


def test_a_chunk_that_expands_far_more_than_it_should_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(2**28))

    def fill(file: h5py.File) -> None:
        dataset = file.create_dataset("x", (100_000,), "<i4", chunks=(100_000,), compression="gzip")
        dataset.id.write_direct_chunk((0,), bomb)

    with pytest.raises(ChunkError, match="does not expand to") as caught:
        read(opened(write(tmp_path / "file.nwb", fill)), "x")
    _is_whole(caught.value, "x")


def test_attributes_that_one_stored_text_stands_for_are_bounded(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        group = file.create_group("g")
        texts = np.array(["x" * 2**20] + ["y"] * 2000, object)
        group.attrs.create("texts", texts, dtype=h5py.string_dtype())
        file["fine"] = 1

    path = write(tmp_path / "file.nwb", fill)
    assert opened(path)["g"].attributes["texts"][0] == "x" * 2**20

    def change(content: bytearray) -> None:
        first = struct.pack("<I", 2**20)
        at = content.index(first)
        while struct.unpack_from("<I", content, at + 16)[0] != 1:
            at = content.index(first, at + 1)
        content[at : at + 16 * 2001] = content[at : at + 16] * 2001

    hierarchy = opened(_patched(path, change))
    with pytest.raises(MetadataError, match="longer than allowed") as caught:
        hierarchy["g"]
    _is_whole(caught.value, "g")
    assert read(hierarchy, "fine") == 1


def _nodes(content: bytearray, kind: int, level: int) -> list[int]:
    """Return where the nodes of B-trees of version 1 begin."""
    start = b"TREE" + bytes([kind, level])
    places, at = [], content.find(start)
    while at >= 0:
        places.append(at)
        at = content.find(start, at + 1)
    return places


@pytest.mark.parametrize("loop", ["itself", "twice"])
def test_a_tree_of_chunks_with_a_loop_is_refused(loop: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("x", (1000,), "<i4", chunks=(1,))[...] = 1

    path = write(tmp_path / "file.nwb", fill)

    def change(content: bytearray) -> None:
        (root,) = _nodes(content, 1, 1)
        first = root + 24 + 24  # after the head and the first key
        target = root if loop == "itself" else struct.unpack_from("<Q", content, first)[0]
        struct.pack_into("<Q", content, first + 32, target)

    with pytest.raises(MetadataError, match="twice") as caught:
        read(opened(_patched(path, change)), "x")
    _is_whole(caught.value, "x")


@pytest.mark.parametrize("loop", ["itself", "twice"])
def test_a_tree_of_a_group_with_a_loop_is_refused(loop: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for number in range(1000):
            file[f"g/{number}"] = number
        file["fine"] = 1

    path = write(tmp_path / "file.nwb", fill)

    def change(content: bytearray) -> None:
        root = _nodes(content, 0, 1)[-1]
        first = root + 24 + 8
        target = root if loop == "itself" else struct.unpack_from("<Q", content, first)[0]
        struct.pack_into("<Q", content, first + 16, target)

    hierarchy = opened(_patched(path, change))
    with pytest.raises(MetadataError, match="twice") as caught:
        hierarchy["g"]
    _is_whole(caught.value, "g")
    assert read(hierarchy, "fine") == 1


def test_an_object_header_that_continues_in_itself_is_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        group = file.create_group("g")
        for number in range(20):
            group.attrs[f"attribute {number}"] = "x" * 100
        file["fine"] = 1

    path = write(tmp_path / "file.nwb", fill)
    with h5py.File(path) as file:
        header = h5py.h5o.get_info(file["g"].id).addr

    def change(content: bytearray) -> None:
        message = content.index(b"\x10\x00\x10\x00", header)
        address, size = struct.unpack_from("<QQ", content, message + 8)
        # The block ends with a message that continues in it again.
        content[address : address + 24] = b"\x10\x00\x10\x00" + bytes(4) + struct.pack("<QQ", address, size)

    hierarchy = opened(_patched(path, change))
    with pytest.raises(MetadataError, match="twice") as caught:
        hierarchy["g"]
    _is_whole(caught.value, "g")
    assert read(hierarchy, "fine") == 1


def _sealed(data: bytes) -> bytes:
    return bytes(JenkinsLookup3().encode(data))


def _read_object(content: bytes, address: int) -> Any:
    """Read one object of a file without a superblock."""
    source, found = Source(len(content)), []
    source.put(0, content)

    async def work() -> None:
        found.append(await Objects(source).read(address))

    source.start(work())
    assert source.step() == []
    return found[0]


def test_a_new_object_header_that_continues_in_itself_is_refused() -> None:
    def content(address: int) -> bytes:
        message = b"\x10\x10\x00\x00" + struct.pack("<QQ", 64, 28)
        head = _sealed(b"OHDR\x02\x00" + bytes([len(message)]) + message)
        again = b"\x10\x10\x00\x00" + struct.pack("<QQ", address, 28)
        return head.ljust(64, b"\0") + _sealed(b"OCHK" + again)

    with pytest.raises(MetadataError, match="twice"):
        _read_object(content(64), 0)
    assert isinstance(_read_object(_sealed(b"OHDR\x02\x00\x00"), 0), Group)


def test_a_changed_bit_of_a_new_object_header_does_not_have_its_checksum(tmp_path: Path) -> None:
    path = write(tmp_path / "file.nwb", lambda file: file.create_dataset("x", data=1), libver="latest")
    with h5py.File(path) as file:
        header = h5py.h5o.get_info(file["x"].id).addr
    content = path.read_bytes()
    for bit in range(6 * 8, 40 * 8):
        changed = bytearray(content)
        changed[header + bit // 8] ^= 1 << bit % 8
        # A name of its own: files that are written at the same time with the same size look unchanged.
        path = tmp_path / f"bit {bit}.nwb"
        path.write_bytes(changed)
        with pytest.raises(MetadataError):
            opened(path)["x"]


def test_ten_thousand_links_in_a_row_are_not_followed(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["x"] = 1
        file["link 0"] = h5py.SoftLink("/x")
        for number in range(1, 10_000):
            file[f"link {number}"] = h5py.SoftLink(f"/link {number - 1}")

    hierarchy = opened(write(tmp_path / "file.nwb", fill))
    assert hierarchy.resolve("link 3").path == "x"
    with pytest.raises(LinkError, match="more than"):
        hierarchy.resolve("link 9999")


def test_types_nested_too_deep_are_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for name, depth in {"deep": 20, "too deep": 100}.items():
            kind = h5py.h5t.STD_I32LE
            for _ in range(depth):
                kind = h5py.h5t.vlen_create(kind)
            file.create_group(name)
            h5py.h5a.create(file[name].id, b"nested", kind, h5py.h5s.create(h5py.h5s.SCALAR))

    hierarchy = opened(write(tmp_path / "file.nwb", fill))
    assert hierarchy["deep"].attributes == {"nested": []}
    with pytest.raises(MetadataError, match="nested deeper") as caught:
        hierarchy["too deep"]
    _is_whole(caught.value, "too deep")


@pytest.mark.parametrize("name", ["numbers", "texts", "pieces"])
def test_a_file_that_is_replaced_while_it_is_read_is_told(name: str, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("numbers", data=np.random.default_rng(0).random(10**6), chunks=(1000,))
        file["pieces"] = np.random.default_rng(0).random(10**6)
        file["texts"] = np.array([f"{number} é" * 9 for number in range(50_000)], object)

    path = write(tmp_path / "file.nwb", fill)
    hierarchy = opened(path)
    assert read(hierarchy, name, slice(0, 2)).shape == (2,)
    other = write(tmp_path / "other.nwb", lambda file: (file.create_group("before"), fill(file)))
    other.replace(path)
    with pytest.raises(ObjectChangedError) as caught:
        read(hierarchy, name, slice(20_000, None))
    assert str(caught.value.next_step).endswith("again.")
    assert read(opened(path), name, slice(20_000, None)).shape[0] > 0


@pytest.fixture
def session(ecephys: Path, tmp_path: Path) -> Path:
    """A session of pynwb as HDF5."""
    path = tmp_path / "session.nwb"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBZarrIO(str(ecephys), "r") as source, NWBHDF5IO(str(path), "w") as target:
            target.export(source, nwbfile=source.read(), write_args={"link_data": False})
    return path


def _damage_header(path: Path, name: str) -> None:
    with h5py.File(path) as file:
        header = h5py.h5o.get_info(file[name].id).addr

    def change(content: bytearray) -> None:
        content[header] ^= 0x40

    _patched(path, change)


@pytest.mark.parametrize("name", ["acquisition/ElectricalSeriesAP", "acquisition/ElectricalSeriesAP/data"])
def test_a_damaged_object_is_skipped_with_a_warning_and_the_rest_opens(name: str, session: Path) -> None:
    whole = xr.open_dataset(session, engine="nwbzarr")
    shutil.copyfile(session, session.with_name("whole.nwb"))
    _damage_header(session, name)
    hierarchy = open_hierarchy(session)
    with pytest.raises(MetadataError, match=f"'{name}' in .* cannot be read as HDF5. No object") as caught:
        hierarchy[name]
    _is_whole(caught.value, name)
    with pytest.warns(MappingWarning, match="ElectricalSeriesAP"):
        damaged = xr.open_dataset(session, engine="nwbzarr")
    lost = set(whole.variables) - set(damaged.variables)
    assert any("ElectricalSeriesAP" in str(each) for each in lost)
    assert any("spike_times" in str(each) for each in damaged.variables)
    with pytest.warns(NWBZarrWarning, match="ElectricalSeriesAP"):
        tree = xr.open_datatree(session, engine="nwbzarr")
    assert "units" in tree


def test_a_damaged_root_is_an_error_that_names_the_file(session: Path) -> None:
    _damage_header(session, "/")
    with pytest.raises(MetadataError, match=r"session\.nwb cannot be read as HDF5") as caught:
        open_hierarchy(session)
    assert caught.value.next_step
