"""What users do today: NWBZarrIO, and NWBZarrV2IO for Zarr 2, with and without dask."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks.operations.ours import Options, Run, checked


def open_session(url: str, options: Options, io: str, *, cold: bool = False) -> Run:
    """The NWBFile: what reading anything of it begins with."""
    if not cold:
        _ready(url)

    def run() -> Run:
        nwbfile = _open(url, options, io)
        return lambda: {"objects": len(nwbfile.objects)}

    return run


def read_series(url: str, options: Options, io: str, name: str, *, with_dask: bool = False) -> Run:
    """All of a series; the opening is not part of it."""
    _ready(url)
    data = _open(url, options, io).acquisition[name].data

    def run() -> Run:
        if with_dask:
            values = import_module("dask.array").from_array(data, chunks=data.chunks).compute()
        else:
            values = data[...]
        return lambda: checked(values)

    return run


def read_window(url: str, options: Options, io: str, name: str, start: int, stop: int) -> Run:
    """All channels between two samples."""
    _ready(url)
    data = _open(url, options, io).acquisition[name].data

    def run() -> Run:
        values = data[start:stop]
        return lambda: checked(values)

    return run


def read_spikes(url: str, options: Options, io: str, unit: int) -> Run:
    """The spike times of one unit."""
    _ready(url)
    units = _open(url, options, io).units

    def run() -> Run:
        times = units["spike_times"][unit]
        return lambda: checked(times)

    return run


def _ready(url: str) -> None:
    for name in ("pynwb", "hdmf_zarr", "zarr", "xarray", "dask.array"):
        import_module(name)
    import_module("s3fs" if url.startswith("s3:") else "fsspec.implementations.http")


def _open(url: str, options: Mapping[str, Any] | None, io: str) -> Any:
    keywords: dict[str, Any] = {"storage_options": options}
    if io == "NWBZarrV2IO":
        # Without both, it refuses the references in every file of its own older releases.
        os.environ["NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE"] = "1"
        keywords["allow_pickle"] = True
    return getattr(import_module("hdmf_zarr"), io)(url, mode="r", **keywords).read()
