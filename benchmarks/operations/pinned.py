"""Peers that pin zarr below 3, run in environments of their own: spikeinterface and lazynwb."""

from __future__ import annotations

import os
from importlib import import_module

from benchmarks.operations.ours import Options, Run, checked


def spikeinterface_open(url: str, options: Options, path: str) -> Run:
    """A recording object of one ElectricalSeries."""
    read_nwb_recording = import_module("spikeinterface.extractors").read_nwb_recording
    _import_engines()

    def run() -> Run:
        recording = read_nwb_recording(
            url, electrical_series_path=path, stream_mode="zarr", storage_options=options
        )
        return lambda: {"channels": recording.get_num_channels()}

    return run


def spikeinterface_read(url: str, options: Options, path: str) -> Run:
    """All of its samples."""
    read_nwb_recording = import_module("spikeinterface.extractors").read_nwb_recording
    recording = read_nwb_recording(
        url, electrical_series_path=path, stream_mode="zarr", storage_options=options
    )

    def run() -> Run:
        values = recording.get_traces()
        return lambda: checked(values)

    return run


def lazynwb_open(url: str, options: Options, path: str) -> Run:
    """A lazy object of one series."""
    lazynwb = import_module("lazynwb")
    _import_engines()
    _configure(options)

    def run() -> Run:
        series = lazynwb.get_timeseries(url, path, exact_path=True)
        shape = series.data.shape
        return lambda: {"shape": list(shape)}

    return run


def lazynwb_read(url: str, options: Options, path: str) -> Run:
    """All of its samples."""
    lazynwb = import_module("lazynwb")
    _configure(options)
    data = lazynwb.get_timeseries(url, path, exact_path=True).data

    def run() -> Run:
        values = data[...]
        return lambda: checked(values)

    return run


def _configure(options: Options) -> None:
    """Credentials, which it takes from the environment; over HTTP it opens no Zarr at all (lazynwb 1.0)."""
    if options is None:
        return
    # It hands the same options to s3fs and to obstore, which call keys by different names.
    client = options["client_kwargs"]
    import_module("lazynwb").config.fsspec_storage_options = {"endpoint_url": client["endpoint_url"]}
    os.environ["AWS_ACCESS_KEY_ID"] = options["key"]
    os.environ["AWS_SECRET_ACCESS_KEY"] = options["secret"]
    os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = client["region_name"]
    os.environ["AWS_ALLOW_HTTP"] = "true"


def _import_engines() -> None:
    for name in ("zarr", "aiohttp", "s3fs", "fsspec.implementations.http"):
        import_module(name)
