"""Without NWB: the array itself through zarr or dask over fsspec, as installed and tuned."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks.operations.ours import Options, Run, checked

# No HEAD before each GET, connections for all that are asked at once, and threads to ask from.
TUNED = {"max_concurrency": 1, "config_kwargs": {"max_pool_connections": 128}}
TUNED_THREADS = 32


def read_array(url: str, options: Options, path: str) -> Run:
    """All of an array through zarr."""
    array = _array(url, options, path)

    def run() -> Run:
        values = array[...]
        return lambda: checked(values)

    return run


def read_rows(
    url: str, options: Options, path: str, start: int | None, stop: int | None, step: int | None = None
) -> Run:
    """Some rows of it."""
    array = _array(url, options, path)

    def run() -> Run:
        values = array[start:stop:step]
        return lambda: checked(values)

    return run


def read_with_dask(url: str, options: Options, path: str, *, tuned: bool = False) -> Run:
    """All of an array through ``dask.array.from_zarr``."""
    _ready(url)
    given: dict[str, Any] = {**(options or {}), **(TUNED if tuned else {})}
    array = import_module("dask.array").from_zarr(f"{url}/{path}", storage_options=given or None)
    threads: Mapping[str, Any] = {"num_workers": TUNED_THREADS} if tuned else {}

    def run() -> Run:
        values = array.compute(**threads)
        return lambda: checked(values)

    return run


def _array(url: str, options: Options, path: str) -> Any:
    _ready(url)
    return import_module("zarr").open_array(f"{url}/{path}", mode="r", storage_options=options)


def _ready(url: str) -> None:
    for name in ("zarr", "numcodecs", "dask.array"):
        import_module(name)
    import_module("s3fs" if url.startswith("s3:") else "fsspec.implementations.http")
