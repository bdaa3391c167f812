"""What this package does: opening, reading, and what follows from both."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

APART = 0.02
"""Seconds between a run and the requests after it, so that the server's log tells them apart."""

type Options = Mapping[str, Any] | None
type Facts = dict[str, Any]
type Run = Callable[[], Any]

# What the package imports when a session is first opened: "after importing the package" is after these.
PARTS = (
    "backend",
    "accessor.accessor",
    "hierarchy.hierarchy",
    "arrays.zarr_store",
    "arrays",
    "indexes",
    "mapping.views",
    "transport.s3",
    "transport.hdf5",
)


def ready(*more: str) -> None:
    """Import the package, and build one throwaway Dataset and DataTree."""
    for name in (*PARTS, *more):
        import_module(f"intake_nwbzarr.{name}")
    import numpy as np
    import xarray as xr

    throwaway = xr.Dataset({"data": ("time", np.zeros(3))}, {"time": np.arange(3.0)})
    xr.DataTree.from_dict({"/": throwaway}).sel(time=1.0)


def open_group(url: str, options: Options, group: str, *, cold: bool = False) -> Run:
    """One object, with plain names."""
    return _opening(url, options, cold, group=group)


def open_flat(url: str, options: Options, *, cold: bool = False) -> Run:
    """The whole session as one Dataset."""
    return _opening(url, options, cold)


def _opening(url: str, options: Options, cold: bool, **keywords: Any) -> Run:
    if not cold:
        ready()

    def run() -> Run:
        import xarray as xr

        dataset = xr.open_dataset(url, engine="nwbzarr", storage_options=options, **keywords)
        return lambda: {"variables": len(dataset.variables)}

    return run


def open_tree(url: str, options: Options, *, cold: bool = False) -> Run:
    """The whole session as a tree."""
    if not cold:
        ready()

    def run() -> Run:
        import xarray as xr

        tree = xr.open_datatree(url, engine="nwbzarr", storage_options=options)
        return lambda: {"groups": sum(1 for _ in tree.subtree)}

    return run


def open_raw(url: str, options: Options, *, cold: bool = False) -> Run:
    """The raw NWBFile."""
    if not cold:
        ready("raw")
        import_module("pynwb")
        import_module("hdmf_zarr")

    def run() -> Run:
        from intake_nwbzarr import open_nwb

        nwbfile = open_nwb(url, options)
        return lambda: {"objects": len(nwbfile.objects)}

    return run


def open_again(url: str, options: Options, group: str, *, revalidate: bool = True) -> Run:
    """A session that this process has opened before."""
    import xarray as xr

    ready()
    given = {**(options or {}), **({} if revalidate else {"revalidate": False})} or None
    xr.open_dataset(url, engine="nwbzarr", storage_options=given, group=group)

    def run() -> Run:
        dataset = xr.open_dataset(url, engine="nwbzarr", storage_options=given, group=group)
        return lambda: {"variables": len(dataset.variables)}

    return run


def read_series(
    url: str, options: Options, group: str, *, dask: bool = False, scaled: bool = False, anew: bool = False
) -> Run:
    """All of a series, plain or through dask; the opening is not part of it.

    With `anew`, each run reads a file of which only metadata are known: nothing is kept under another URL.
    """
    import xarray as xr

    ready()
    urls = (f"{url}?run={number}" if anew else url for number in count())

    def opened() -> Any:
        return xr.open_dataset(
            next(urls),
            engine="nwbzarr",
            storage_options=options,
            group=group,
            mask_and_scale=scaled,
            chunks={} if dask else None,
            cache=False,
        )["data"].variable

    data = opened()

    def run() -> Run:
        values = data.compute().values

        def facts() -> Facts:
            nonlocal data
            if anew:
                time.sleep(APART)
                data = opened()
            return checked(values)

        return facts

    return run


def read_series_on(url: str, options: Options, group: str, threads: int) -> Run:
    """All of a series, of which some threads decode the chunks."""
    import_module("intake_nwbzarr.limits").set_limits(decoding_threads=threads)
    return read_series(url, options, group)


def checked(values: Any) -> Facts:
    """By what alternatives are seen to have read the same."""
    import numpy as np

    values = np.asarray(values)
    return {"shape": list(values.shape), "sum": float(np.sum(values, dtype="f8").round(6))}


def read_window(url: str, options: Options, group: str, start: float, stop: float) -> Run:
    """All channels between two times."""
    import xarray as xr

    ready()
    data = xr.open_dataset(
        url, engine="nwbzarr", storage_options=options, group=group, mask_and_scale=False, cache=False
    )["data"]

    def run() -> Run:
        values = data.sel(time=slice(start, stop)).variable.values
        return lambda: checked(values)

    return run


def read_rows(
    url: str, options: Options, group: str, start: int | None, stop: int | None, step: int | None
) -> Run:
    """All channels of some samples."""
    import xarray as xr

    ready()
    data = xr.open_dataset(
        url, engine="nwbzarr", storage_options=options, group=group, mask_and_scale=False, cache=False
    )["data"]

    def run() -> Run:
        values = data[start:stop:step].variable.values
        return lambda: checked(values)

    return run


def read_spikes(url: str, options: Options, unit: int) -> Run:
    """The spike times of one unit."""
    import xarray as xr

    ready("accessor.spikes")
    units = xr.open_dataset(url, engine="nwbzarr", storage_options=options, group="units", cache=False)

    def run() -> Run:
        times = units.nwb.spike_times(unit)
        return lambda: checked(times)

    return run


def read_table(url: str, options: Options, path: str) -> Run:
    """Where all chunks of an HDF5 dataset are, after opening the file."""
    ready("hdf5.chunk_table")
    open_hierarchy = import_module("intake_nwbzarr").open_hierarchy
    fetch_many = import_module("intake_nwbzarr.transport.open").fetch_many
    unpack = import_module("intake_nwbzarr.hdf5.chunk_table").unpack
    transport = open_hierarchy(url, options).transport

    def run() -> Run:
        (packed,) = fetch_many(transport, [f"{path}/c/index"])
        return lambda: {"chunks": int((unpack(packed.data).sizes > 0).sum())}

    return run


def pickled_series(
    url: str, options: Options, group: str, file: str, chunks: Mapping[str, int] | None = None
) -> Run:
    """A series' dask array, pickled into a file as a graph is sent to workers."""
    import xarray as xr

    ready()

    def run() -> Run:
        opened = xr.open_dataset(
            url,
            engine="nwbzarr",
            storage_options=options,
            group=group,
            mask_and_scale=False,
            chunks=dict(chunks or {}),
        )
        sent = Path(file).write_bytes(pickle.dumps(opened["data"].data))
        return lambda: {"pickled_bytes": sent}

    return run


def first_chunk(url: str, options: Options, file: str) -> Run:  # noqa: ARG001 (the file knows the location)
    """What a worker does first: unpickle, and compute the first chunk."""
    ready()
    pickled = Path(file).read_bytes()

    def run() -> Run:
        array = pickle.loads(pickled)  # noqa: S301 (written by `pickled_series`)
        values = array.blocks[(0,) * array.ndim].compute()
        return lambda: checked(values)

    return run


def plan_mean(url: str, options: Options, group: str) -> Run:
    """Open with default chunks, and build and optimise the graphs of a mean, of all and over time."""
    import xarray as xr

    ready()
    xr.Dataset({"data": ("x", [1.0])}).chunk().mean()
    optimize = import_module("dask.base").optimize

    def run() -> Run:
        dataset = xr.open_dataset(url, engine="nwbzarr", storage_options=options, group=group, chunks={})
        begin = time.perf_counter()
        mean = dataset["data"].mean()
        built = time.perf_counter() - begin
        over_time = dataset["data"].mean("time")
        return lambda: {
            "graph_seconds": built,
            "tasks": len(dict(optimize(mean.data)[0].__dask_graph__())),
            "tasks_over_time": len(dict(optimize(over_time.data)[0].__dask_graph__())),
            "blocks": dataset["data"].data.npartitions,
            "decoded_bytes": dataset["data"].size * 2,
        }

    return run
