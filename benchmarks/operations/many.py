"""Many sessions: scanning, searching, reading one table of all, and mapping a function over them."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.operations.ours import Options, Run, ready

BINS = range(0, 31, 5)


def scan(url: str, options: Options, threads: int) -> Run:
    """All sessions below a prefix, into new tables."""
    from intake_nwbzarr import scan

    ready("sessions.scan")

    def run() -> Run:
        with tempfile.TemporaryDirectory() as folder:
            report = scan(url, output=f"{folder}/sessions.parquet", storage_options=options, threads=threads)
        return lambda: {"sessions": report.sessions, "failed": len(report.failures)}

    return run


def scan_again(url: str, options: Options) -> Run:
    """The same once more, when nothing has changed."""
    from intake_nwbzarr import scan

    ready("sessions.scan")
    output = f"{tempfile.mkdtemp()}/sessions.parquet"
    scan(url, output=output, storage_options=options)

    def run() -> Run:
        report = scan(url, output=output, storage_options=options)
        return lambda: {"sessions": report.sessions, "unchanged": report.unchanged}

    return run


def search_and_open(url: str, options: Options, tables: str) -> Run:
    """Open tables, search them for objects of a type, name and unit, and open one session that was found."""
    import intake

    from intake_nwbzarr import Find

    ready("sessions.catalog", "catalog.source")

    def run() -> Run:
        catalog = intake.open_nwbzarr_sessions(tables, storage_options=options)
        speed = Find("TimeSeries", name="*speed*", unit=["cm/s", "m/s"])
        found = catalog.search(species="mouse", units=Find("Units"), speed=speed)
        dataset = found[url].read()
        return lambda: {"sessions": len(found), "variables": len(dataset.variables)}

    return run


def table(url: str, options: Options, columns: Sequence[str] | None) -> Run:
    """The table of units of all sessions, or some of its columns."""
    catalog = _scanned(url, options)

    def run() -> Run:
        frame = catalog.table("units", columns=columns)
        return lambda: _rows(frame)

    return run


def lazynwb_table(url: str, options: Options, names: Sequence[str], columns: Sequence[str] | None) -> Run:
    """Read the same with lazynwb, given the list of sessions."""
    lazynwb = import_module("lazynwb")
    pinned = import_module("benchmarks.operations.pinned")
    pinned._import_engines()
    pinned._configure(options)
    urls = [f"{url}/{name}" for name in names]
    wanted = None if columns is None else ["id", *columns]

    def run() -> Run:
        frame = lazynwb.get_df(
            urls,
            "/units",
            exact_path=True,
            include_column_names=wanted,
            exclude_array_columns=False,
            disable_progress=True,
            as_polars=False,
        )
        return lambda: _rows(frame)

    return run


def _rows(frame: Any) -> dict[str, Any]:
    spikes = sum(len(times) for times in frame["spike_times"]) if "spike_times" in frame else 0
    return {"shape": [len(frame), spikes], "sum": int((frame["quality"] == "good").sum())}


def tuning(units: Any, speed: Any) -> Any:
    """Return the firing rate of each unit by running speed: (unit, speed)."""
    counts = units.nwb.bin(0.1, stop=speed.nwb.stop).spike_counts
    factor = {"cm/s": 1.0, "m/s": 100.0}[speed.data.attrs["units"]]
    running = (speed.nwb.resample_like(counts, "mean").data * factor).rename("speed")
    return (counts / 0.1).groupby_bins(running, list(BINS)).mean("time").rename("rate")


def question(url: str, options: Options, threads: int = 8) -> Run:
    """The firing rate by running speed of every mouse, by searching and mapping on threads."""
    catalog = _scanned(url, options)
    ready("sessions.map")

    def run() -> Run:
        done = _mice(catalog).map(tuning, threads=threads, name="tuning")
        return lambda: _facts(done.frame["rate"].to_numpy(), len(done.failures))

    return run


def work_alone(url: str, options: Options) -> Run:
    """The mean speed and the number of spikes of each session, with eight threads and no map."""
    from concurrent.futures import ThreadPoolExecutor

    import xarray as xr

    mice = _mice(_scanned(url, options))
    paths = [(each.location, each.paths) for each in mice.selected()]

    def one(location: Any, paths: Any) -> None:
        names = {name: path for name, (path,) in paths.items()}
        small(
            **{name: xr.open_dataset(location, engine="nwbzarr", group=path) for name, path in names.items()}
        )

    def run() -> Run:
        with ThreadPoolExecutor(8) as threads:
            done = len(list(threads.map(lambda each: one(*each), paths)))
        return lambda: {"done": done}

    return run


def small(units: Any, speed: Any) -> dict[str, float]:
    """Return two numbers of a session."""
    return {"spikes": float(units.spike_times_count.sum()), "speed": float(speed.data.mean())}


def mapped(url: str, options: Options, workers: int | None = None) -> Run:
    """The same through map, on eight threads or on the workers of a cluster with eight threads each."""
    mice = _mice(_scanned(url, {**(options or {}), "ship_credentials": True}))
    ready("sessions.map")
    client = None if workers is None else _client(workers)
    # Workers import the package, and connect, before they are timed.
    mice.sample(100).map(small, client=client, name="first", progress=False)

    def run() -> Run:
        with tempfile.TemporaryDirectory() as folder:
            done = mice.map(small, client=client, name="small", folder=folder, progress=False)
        return lambda: {"done": len(done.ended), "failed": len(done.failures)}

    return run


def many_mapped(url: str, options: Options, count: int) -> Run:
    """A function that reads nothing, over many sessions on a cluster: what the client holds of them."""
    import intake

    from intake_nwbzarr import Find
    from intake_nwbzarr.location.location import locate
    from intake_nwbzarr.sessions.tables.table_schema import table_of
    from intake_nwbzarr.sessions.tables.tables import Tables

    places = [f"{url}/sub-{number:05}.nwb.zarr" for number in range(count)]
    sessions = table_of("sessions", ({"location": place} for place in places))
    units = {"path": "units", "name": "units", "type": "Units", "types": ["Units"]}
    objects = table_of("objects", ({"location": place, **units} for place in places))
    tables = Path(tempfile.mkdtemp()) / "sessions.parquet"
    Tables(locate(tables)).write("", url, sessions, objects)
    catalog = intake.open_nwbzarr_sessions(str(tables), storage_options=options).search(units=Find("Units"))
    client = _client(2)
    catalog.sample(500).map(nothing, client=client, name="first", progress=False)

    def run() -> Run:
        with tempfile.TemporaryDirectory() as folder:
            done = catalog.map(nothing, client=client, folder=folder, progress=False)
        return lambda: {"done": len(done.ended), "failed": len(done.failures)}

    return run


def nothing(units: Any) -> float:
    """Return a number without reading anything."""
    return float(units.sizes["unit"])


def _client(workers: int) -> Any:
    import atexit

    from distributed import Client, LocalCluster

    make_cluster: Any = LocalCluster
    cluster = make_cluster(
        n_workers=workers, threads_per_worker=8, dashboard_address=":0", memory_limit=0, silence_logs=50
    )
    atexit.register(cluster.close)
    connect: Any = Client
    return connect(cluster)


def _mice(catalog: Any) -> Any:
    from intake_nwbzarr import Find

    speed = Find("TimeSeries", name="*speed*", unit=["cm/s", "m/s"])
    return catalog.search(species="mouse", units=Find("Units"), speed=speed)


def question_with_pynwb(url: str, options: Options, names: Sequence[str]) -> Run:
    """The same in a loop over NWBZarrIO: the speed is looked for in every module, rates by hand."""
    del options
    import numpy as np
    import pandas as pd
    from hdmf_zarr.nwb import NWBZarrIO
    from pynwb import TimeSeries

    import_module("aiohttp")

    def rates(location: str) -> list[float]:
        with NWBZarrIO(location, mode="r", load_namespaces=False) as io:
            nwbfile = io.read()
            speed = next(
                each
                for each in nwbfile.objects.values()
                if isinstance(each, TimeSeries) and "speed" in each.name and each.unit in {"cm/s", "m/s"}
            )
            values = speed.data[:] * {"cm/s": 1.0, "m/s": 100.0}[speed.unit]
            stop = len(values) / speed.rate
            count = int(np.floor(stop / 0.1 + 1e-9))
            edges = np.arange(count + 1) * 0.1
            place = np.floor(np.arange(len(values)) / speed.rate / 0.1 + 1e-9).astype(int)
            mean = pd.Series(values).groupby(place).mean().reindex(range(count))
            bins = pd.cut(mean, list(BINS))
            found: list[float] = []
            for row in range(len(nwbfile.units)):
                counts = np.histogram(nwbfile.units["spike_times"][row], edges)[0]
                by_speed = pd.Series(counts / 0.1).groupby(bins, observed=False).mean()
                found += by_speed.tolist()
            return found

    def run() -> Run:
        found = list(itertools.chain.from_iterable(rates(f"{url}/{name}") for name in names))
        return lambda: _facts(np.asarray(found), 0)

    return run


def _facts(rates: Any, failed: int) -> dict[str, Any]:
    import numpy as np

    values = np.asarray(rates, np.float64)
    return {
        "shape": [len(values)],
        "sum": round(float(np.nansum(values)), 3),
        "missing": int(np.isnan(values).sum()),
        "failed": failed,
    }


def _scanned(url: str, options: Options) -> Any:
    """Return the catalog of what is below a prefix, or of the locations in a text file beside it."""
    import intake

    from intake_nwbzarr import scan

    ready("sessions.scan", "sessions.catalog")
    tables = Path(tempfile.mkdtemp()) / "sessions.parquet"
    scan(url, output=tables, storage_options=options)
    return intake.open_nwbzarr_sessions(str(tables), storage_options=options)
