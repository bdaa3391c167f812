"""What users of HDF5 files do today: h5py and NWBHDF5IO over remfile or fsspec, lazynwb, and kerchunk."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any, Literal

from benchmarks.operations.ours import APART, Facts, Options, Run, checked

type Over = Literal["remfile", "fsspec", "disk"]


def open_session(url: str, options: Options, over: Over) -> Run:  # noqa: ARG001 (files need none)
    """The NWBFile, as pynwb reads it."""
    _ready()

    def run() -> Run:
        io = import_module("pynwb").NWBHDF5IO(file=_file(url, over), mode="r", load_namespaces=True)
        nwbfile = io.read()
        return lambda: {"objects": len(nwbfile.objects)}

    return run


def list_objects(url: str, options: Options, over: Over) -> Run:  # noqa: ARG001
    """Every object of the file and its attributes, through h5py alone."""
    _ready()

    def run() -> Run:
        names: list[str] = []

        def visit(name: str, item: Any) -> None:
            names.append(name)
            dict(item.attrs)

        _file(url, over).visititems(visit)
        return lambda: {"objects": len(names)}

    return run


def open_one(url: str, options: Options, over: Over, path: str) -> Run:  # noqa: ARG001
    """One series through h5py alone: its shape and attributes."""
    _ready()

    def run() -> Run:
        data = _file(url, over)[path]["data"]
        shape = data.shape
        dict(data.attrs)
        return lambda: {"shape": list(shape)}

    return run


def read_array(url: str, options: Options, over: Over, path: str, *, dask: bool = False) -> Run:  # noqa: ARG001
    """All of an array through h5py; the opening, anew for each run over HTTP, is not part of it."""
    _ready()
    data = _file(url, over)[path]

    def run() -> Run:
        if dask:
            values = import_module("dask.array").from_array(data, chunks="auto").compute(num_workers=2)
        else:
            values = data[...]

        def facts() -> Facts:
            nonlocal data
            if over != "disk":
                # A file keeps what it has read.
                time.sleep(APART)
                data = _file(url, over)[path]
            return checked(values)

        return facts

    return run


def read_rows(url: str, options: Options, over: Over, path: str) -> Run:  # noqa: ARG001
    """One sample of all channels, after opening the array."""
    _ready()
    data = _file(url, over)[path]

    def run() -> Run:
        values = data[10:11]
        return lambda: checked(values)

    return run


def lazynwb_list(url: str, options: Options) -> Run:  # noqa: ARG001
    """The paths of the file's objects, as lazynwb lists them."""
    lazynwb = import_module("lazynwb")
    import_module("aiohttp")

    def run() -> Run:
        paths = lazynwb.get_internal_paths(url)
        return lambda: {"objects": len(paths)}

    return run


def kerchunk(url: str, options: Options) -> Run:  # noqa: ARG001
    """The references to all chunks, from which the file is opened as Zarr."""
    translate = import_module("kerchunk.hdf").SingleHdf5ToZarr

    def run() -> Run:
        found = translate(url).translate()
        return lambda: {"references": len(found["refs"])}

    return run


def _ready() -> None:
    for name in ("h5py", "pynwb", "fsspec.implementations.http", "dask.array"):
        import_module(name)


def _file(url: str, over: Over) -> Any:
    match over:
        case "remfile":
            opened: Any = import_module("remfile").File(url)
        case "fsspec":
            opened = import_module("fsspec").filesystem("http").open(url, "rb")
        case "disk":
            opened = url
    return import_module("h5py").File(opened, "r")
