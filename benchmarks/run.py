"""The one command: ``uv run benchmarks/run.py`` makes the data, starts the servers, measures and reports."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import measure_convert as converting  # noqa: E402
from benchmarks import measure_fetching as fetching  # noqa: E402 (the folder above is on the path since the last line)
from benchmarks import measure_hdf5 as hdf5  # noqa: E402
from benchmarks import measure_many as many  # noqa: E402
from benchmarks import measure_opening as opening  # noqa: E402
from benchmarks import measure_reading as reading  # noqa: E402
from benchmarks import measure_shards as shards  # noqa: E402
from benchmarks import report  # noqa: E402
from benchmarks.bench import Bench, running  # noqa: E402
from benchmarks.measure import Result  # noqa: E402
from benchmarks.pictures import draw  # noqa: E402
from benchmarks.results import (  # noqa: E402
    Measurement,
    ResultsError,
    Several,
    about_all,
    check_one_run,
    load_all,
)
from benchmarks.session_files import FILES, SESSIONS, default_cache, make  # noqa: E402

README = ROOT / "README.md"
PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "pictures"


def _one(
    name: str, measure: Callable[..., Mapping[str, Result]], *arguments: object
) -> Callable[[Bench], Several]:
    return lambda bench: {name: measure(bench, *arguments)}


MEASUREMENTS: Mapping[str, Callable[[Bench], Several]] = {
    "open-zarr3": _one("open Zarr 3", opening.ophys, "ophys-zarr3", "NWBZarrIO"),
    "open-zarr2": _one("open Zarr 2", opening.ophys, "ophys-zarr2", "NWBZarrV2IO"),
    "cold-zarr3": _one("open Zarr 3, true cold", opening.ophys_cold, "ophys-zarr3", "NWBZarrIO"),
    "cold-zarr2": _one("open Zarr 2, true cold", opening.ophys_cold, "ophys-zarr2", "NWBZarrV2IO"),
    "s3-zarr3": _one("open Zarr 3, S3", opening.ophys_s3, "ophys-zarr3"),
    "s3-zarr2": _one("open Zarr 2, S3", opening.ophys_s3, "ophys-zarr2"),
    "open-peers": _one("open one series, Zarr 2, peers", reading.pinned_openings),
    "open-many": _one("open 8,000 nodes", opening.many_nodes),
    "open-sweeps": _one("open 1,600 sweeps", opening.sweeps),
    "read-265kB-0": _one("read 265kB, 0 ms", reading.over_http, "265kB", 0),
    "read-265kB-30": _one("read 265kB, 30 ms", reading.over_http, "265kB", 30),
    "read-265kB-s3": _one("read 265kB, S3", reading.over_s3, "265kB"),
    "read-265kB-peers": _one("read 265kB, 30 ms, peers", reading.pinned_peers, "265kB"),
    "read-16MiB-0": _one("read 16MiB, 0 ms", reading.over_http, "16MiB", 0),
    "read-16MiB-30": _one("read 16MiB, 30 ms", reading.over_http, "16MiB", 30),
    "read-16MiB-s3": _one("read 16MiB, S3", reading.over_s3, "16MiB"),
    "shards-0": _one("read shards, 0 ms", shards.whole, 0),
    "shards-30": _one("read shards, 30 ms", shards.whole, 30),
    "shards-parts": _one("parts of shards", shards.parts),
    "fetch": _one("fetch stored bytes", fetching.fetching),
    "fetch-small": _one("fetch from a small server", fetching.from_small_server),
    "window": _one("window", reading.window),
    "spikes": _one("spikes", reading.spikes),
    "worker": _one("worker", reading.worker),
    "plan": _one("plan", reading.plan),
    "imports": _one("imports", opening.imports),
    "again": _one("again", opening.again),
    "memory": _one("memory", reading.memory),
    "many-scan": _one("scan 60 sessions", many.scanning),
    "many-search": _one("search 100,000 sessions", many.searching),
    "many-table": _one("units of 60 sessions", many.one_table, None),
    "many-column": _one("a column of the units of 60 sessions", many.one_table, ["quality"]),
    "many-question": _one("a question to 24 sessions", many.question),
    "many-map": _one("map 1,000 sessions", many.mapping),
    "many-map-100": _one("map 1,000 sessions, 100 ms", many.mapping_from_afar),
    "many-client": _one("map 10,000 sessions", many.client_memory),
    "hdf5-open": _one("open HDF5", hdf5.opening),
    "hdf5-many": _one("open HDF5 of 2,000 series", hdf5.many_series),
    "hdf5-again": _one("again, HDF5", hdf5.again),
    "hdf5-read": _one("read HDF5, 30 ms", hdf5.reading),
    "hdf5-disk": _one("read HDF5, local", hdf5.from_disk),
    "hdf5-table": _one("table of 12,000 chunks, HDF5", hdf5.table),
    "hdf5-worker": _one("worker, HDF5", hdf5.worker),
    "hdf5-growth": lambda bench: {
        f"objects: {name}": found for name, found in hdf5.growth_with_objects(bench).items()
    },
    "hdf5-chunks": lambda bench: {
        f"chunks: {name}": found for name, found in hdf5.growth_with_chunks(bench).items()
    },
    "convert-numbers": _one("convert 1 GB of numbers, local", converting.numbers),
    "convert-texts": _one("convert 763,000 rows of texts", converting.texts),
    "growth": lambda bench: {f"nodes: {name}": found for name, found in opening.growth(bench).items()},
    "latency": lambda bench: {f"latency: {name}": found for name, found in opening.latency(bench).items()},
}
"""By the name that ``--only`` takes, in the order of running."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for.

    Returns
    -------
    int
        1 when the short form finds more requests than there were, 2 when results cannot be read or may not be
        published.
    """
    options = _options(arguments)
    if options.short:
        from benchmarks.short import main as short

        return short()
    folder = options.cache / "results"
    if not options.report:
        _measure(options, folder)
    try:
        _report(options, folder)
    except ResultsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _measure(options: argparse.Namespace, folder: Path) -> None:
    begin = time.monotonic()
    # Installed packages have bytecode; without it, the first import of every process would compile.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in (*SESSIONS, *FILES):
        if not (options.only and options.resume):
            _say(f"data: {make(name, options.cache)}")
    folder.mkdir(parents=True, exist_ok=True)
    with running(options.cache, options.repeats) as bench:
        about = report.machine(bench.server.kind)
        for name in options.only or MEASUREMENTS:
            file = folder / f"{name}.json"
            if not (options.resume and file.exists()):
                _say(f"{time.monotonic() - begin:5.0f} s  {name}")
                Measurement(about, MEASUREMENTS[name](bench)).save(file)
    _say(f"{time.monotonic() - begin:5.0f} s  all measured")


def _report(options: argparse.Namespace, folder: Path) -> None:
    measurements = load_all(folder, MEASUREMENTS)
    measured = {key: found for each in measurements.values() for key, found in each.results.items()}
    about = about_all(measurements)
    text = report.markdown(measured, about)
    options.cache.joinpath("report.md").write_text(text)
    options.cache.joinpath("report.json").write_text(report.to_json(measured, about))
    drawn = draw(measured, options.cache)
    _say(text)
    _say(f"{options.cache}/report.md, report.json and pictures")
    if options.publish:
        if not options.as_is:
            check_one_run(measurements, MEASUREMENTS)
        _publish(text, report.overview(measured, about), drawn)


def _publish(text: str, overview: str, drawn: Sequence[Path]) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    shown = [Path(shutil.copy(file, PICTURES)).relative_to(PAGE.parent) for file in drawn]
    report.publish(PAGE, "\n".join([*(f"![{file.stem}]({file})" for file in shown), "", text]))
    report.publish(README, overview)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="only count requests and round trips; under a minute"
    )
    parser.add_argument(
        "--only", action="append", choices=MEASUREMENTS, help="a measurement; may be repeated"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep measurements that an earlier run has taken"
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs of what is quick (default 5)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of data and results")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing, report what earlier runs have measured"
    )
    parser.add_argument(
        "--publish", action="store_true", help="put the report into docs/performance.md and README.md"
    )
    parser.add_argument(
        "--as-is", action="store_true", help="publish also what is not all from one run, or not complete"
    )
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
