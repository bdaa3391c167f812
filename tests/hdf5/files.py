"""HDF5 files that h5py writes for one test, and what h5py and this package read from them."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode

VERSIONS: Mapping[str, Any] = {
    "earliest": "earliest",
    "v108": ("v108", "v108"),
    "v110": ("v110", "v110"),
    "latest": "latest",
}
"""Versions of the format, by their names in h5py."""


def write(path: Path, fill: Callable[[h5py.File], Any], **options: Any) -> Path:
    """Write a file with the attributes of a session, which a function fills."""
    with h5py.File(path, "w", **options) as file:
        _fill_session(file, fill)
    return path


def _fill_session(file: h5py.File, fill: Callable[[h5py.File], Any]) -> None:
    file.attrs["neurodata_type"] = "NWBFile"
    file.attrs["namespace"] = "core"
    file.attrs["nwb_version"] = "2.8.0"
    fill(file)


def opened(path: Path) -> Hierarchy:
    """Open a file, without the warnings about what cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_hierarchy(path)


def read(hierarchy: Hierarchy, name: str, key: Any = (), field: str | None = None) -> NDArray[Any]:
    """Read an array, or a field of one, through the engine."""
    node = hierarchy[name]
    assert isinstance(node, ArrayNode)
    stored = StoredArray(hierarchy.file, node)
    return (stored if field is None else stored.field(field)).read(key)


def expected(dataset: h5py.Dataset, key: Any = (), field: str | None = None) -> NDArray[Any]:
    """Return what h5py reads, with texts as strings, and references as paths."""
    values = np.asarray(dataset[key] if field is None else dataset[key][field])
    if values.dtype.kind not in "OSV" or (values.dtype.kind == "V" and values.dtype.names is None):
        return values
    if values.dtype.names is not None:
        return values
    flat = np.empty(values.size, object)
    for at, value in enumerate(values.reshape(-1)):
        if isinstance(value, h5py.Reference):
            flat[at] = dataset.file[value].name if value else ""
        else:
            flat[at] = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return flat.reshape(values.shape)


def assert_same(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Compare values, shape and kind of dtype; NaN equals NaN."""
    assert found.shape == wanted.shape
    if found.dtype.names is not None:
        for name in found.dtype.names:
            assert_same(found[name], wanted[name])
        return
    if found.dtype.kind == "O" or wanted.dtype.kind == "O":
        assert found.tolist() == wanted.tolist()
        return
    assert found.dtype == wanted.dtype.newbyteorder("=")
    assert np.array_equal(found, wanted, equal_nan=found.dtype.kind in "fc")


@cache
def library() -> ctypes.CDLL:
    """Return the HDF5 library of h5py, for what h5py has no function for."""
    folder = Path(h5py.__file__).parent.parent / "h5py.libs"
    (path,) = folder.glob("libhdf5-*")
    return ctypes.CDLL(str(path))


def call(name: str, properties: Any, *numbers: int) -> None:
    """Call a function of the HDF5 library on a property list that h5py has no function for."""
    function = getattr(library(), name)
    function.argtypes = [ctypes.c_int64, *[ctypes.c_uint] * len(numbers)]
    assert function(properties.id, *numbers) >= 0


def write_shared(
    path: Path,
    fill: Callable[[h5py.File], Any],
    indexes: Iterable[tuple[int, int]] = ((0x182A, 1),),
    cutoffs: tuple[int, int] = (50, 40),
    *,
    libver: str = "latest",
    block: int = 0,
) -> Path:
    """Write a file in which objects share equal messages, by the kinds and least sizes of each index.

    The kinds are bits: dataspaces 2, datatypes 8, fill values 0x20, filters 0x800, attributes 0x1000.
    """
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_userblock(block)
    call("H5Pset_shared_mesg_nindexes", creation, len(tuple(indexes)))
    for number, (kinds, least) in enumerate(indexes):
        call("H5Pset_shared_mesg_index", creation, number, kinds, least)
    call("H5Pset_shared_mesg_phase_change", creation, *cutoffs)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    if libver == "latest":
        access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    with h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, creation, access)) as file:
        _fill_session(file, fill)
    return path


def compressed_group(parent: h5py.Group, name: str, *filters: str) -> h5py.Group:
    """Create a group whose links are in a heap with filters, of gzip and fletcher32."""
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    call("H5Pset_link_phase_change", creation, 0, 0)
    for each in filters:
        if each == "gzip":
            call("H5Pset_deflate", creation, 6)
        else:
            call("H5Pset_fletcher32", creation)
    return h5py.Group(h5py.h5g.create(parent.id, name.encode(), gcpl=creation))


def without_filters_at_edges(creation: Any) -> None:
    """Have chunks that extend beyond the shape stored without filters."""
    call("H5Pset_chunk_opts", creation, 2)


def create(
    parent: h5py.Group,
    name: str,
    values: NDArray[Any],
    *,
    chunks: tuple[int, ...],
    largest: tuple[int | None, ...] | None = None,
    change: Callable[[Any], Any] | None = None,
) -> h5py.Dataset:
    """Create a dataset with properties that a function changes."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(chunks)
    if change is not None:
        change(creation)
    unlimited = h5py.h5s.UNLIMITED
    most = None if largest is None else tuple(unlimited if each is None else each for each in largest)
    space = h5py.h5s.create_simple(values.shape, most)
    created = h5py.h5d.create(
        parent.id, name.encode(), h5py.h5t.py_create(values.dtype, logical=True), space, creation
    )
    return h5py.Dataset(created)
