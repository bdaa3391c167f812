"""The targets: what each row of the table asks, and what of it the measurements show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, isnan, nan

from benchmarks import measure_convert as converting
from benchmarks import measure_fetching as fetching
from benchmarks import measure_hdf5 as hdf5
from benchmarks import measure_many as many
from benchmarks import measure_opening as opening
from benchmarks import measure_reading as reading
from benchmarks.layouts import ECEPHYS, layout
from benchmarks.measure import Result, best_ratio, ratio

type Measured = Mapping[str, Mapping[str, Result]]

TIMES = "\N{MULTIPLICATION SIGN}"

BLOCK = 64 * 2**20
"""Decoded bytes that a dask chunk of an array of less than 100 GB aims at."""

# The 384 channels are six chunks wide, and eleven chunks of a second hold ten seconds and the last sample.
WINDOW_CHUNKS = 66


@dataclass(frozen=True)
class Target:
    """One figure, and the bound it is held against.

    Parameters
    ----------
    row
        Of the table of targets.
    what
        Is measured.
    value
        As measured, NaN where it could not be.
    bound
        What it should reach, or stay below.
    at_least
        Whether the bound is a lower one.
    unit
        Of both, `TIMES` for ratios.
    middle
        The median of what is judged by its best run, NaN for what is judged by its median.
    """

    row: str
    what: str
    value: float
    bound: float
    at_least: bool = False
    unit: str = ""
    middle: float = nan

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def verdict(self) -> str:
        """For the table."""
        return "not measured" if isnan(self.value) else "met" if self.met else "**missed**"


def targets(measured: Measured) -> list[Target]:
    """All of them, in the order of the table."""
    return [
        target
        for about in (
            _one_series,
            _session,
            _many,
            _raw,
            _reading,
            _parts,
            _costs,
            _sessions,
            _hdf5,
            _convert,
        )
        for target in about(measured)
    ]


def _one_series(measured: Measured) -> list[Target]:
    found = []
    for name, io, bound in (("Zarr 3", "NWBZarrIO", 10), ("Zarr 2", "NWBZarrV2IO", 75)):
        runs = measured.get(f"open {name}", {})
        one = _of(runs, opening.ONE)
        found += [
            Target("1", f"one series, {name}: round trips", one.middle("round_trips"), 2),
            Target("1", f"one series, {name}: requests", one.middle("requests"), 10),
            Target("1", f"one series, {name}: metadata documents that are not there", _missing(one), 1),
            _faster("1", f"one series, {name}: faster than {io}", ratio(_of(runs, io), one), bound),
        ]
    return found


def _missing(result: Result) -> float:
    """How many metadata documents were asked for in vain: chunks of zeros are not stored in Zarr 3."""
    # One document is found.
    return result.middle("metadata_requests") - 1


def _session(measured: Measured) -> list[Target]:
    found = []
    for name, io, bound in (("Zarr 3", "NWBZarrIO", 8), ("Zarr 2", "NWBZarrV2IO", 50)):
        runs = measured.get(f"open {name}", {})
        for way in (opening.FLAT, opening.TREE):
            whole = _of(runs, way)
            found += [
                Target("2", f"{way}, {name}: round trips", whole.middle("round_trips"), 3),
                _faster("2", f"{way}, {name}: faster than {io}", ratio(_of(runs, io), whole), bound),
            ]
    return found


def _many(measured: Measured) -> list[Target]:
    runs = measured.get("open 8,000 nodes", {})
    one, tree, theirs = (_of(runs, name) for name in (opening.ONE, opening.TREE, "NWBZarrIO"))
    return [
        _faster("3", "one series of 2,000: faster than NWBZarrIO", _over(theirs, one), 400),
        Target("3", "one series of 2,000: processor time", one.middle("cpu"), 0.15, unit="s"),
        _faster("4", "tree of 2,000 series: faster than NWBZarrIO", _over(theirs, tree), 20),
    ]


def _raw(measured: Measured) -> list[Target]:
    found = []
    for name, io, bound in (("Zarr 3", "NWBZarrIO", 2), ("Zarr 2", "NWBZarrV2IO", 10)):
        runs = measured.get(f"open {name}", {})
        raw = _of(runs, opening.RAW)
        found += [
            Target("5", f"open_nwb, {name}: round trips", raw.middle("round_trips"), 6),
            _faster("5", f"open_nwb, {name}: faster than {io}", ratio(_of(runs, io), raw), bound),
        ]
    runs = measured.get("open 8,000 nodes", {})
    many = _over(_of(runs, "NWBZarrIO"), _of(runs, opening.RAW))
    return [*found, _faster("5", "open_nwb, 8,000 nodes: faster than NWBZarrIO", many, 8)]


def _reading(measured: Measured) -> list[Target]:
    found = []
    for chunks, bound in (("16MiB", 0.75), ("265kB", 0.6)):
        for latency in (0, 30):
            runs = measured.get(f"read {chunks}, {latency} ms", {})
            limit, plain, dask = (_of(runs, name) for name in (reading.LIMIT, reading.PLAIN, reading.DASK))
            found += [
                _at_best(f"{chunks}, {latency} ms, plain: of the limit", limit, plain, bound),
                _at_best(f"{chunks}, {latency} ms, through dask: of plain", plain, dask, 0.8),
            ]
    runs = measured.get("read 265kB, S3", {})
    plain = _of(runs, reading.PLAIN)
    small = measured.get("fetch from a small server", {})
    return [
        *found,
        _at_best("265kB, S3, 30 ms: faster than zarr over s3fs", _of(runs, reading.ZARR), plain, 8, TIMES),
        _at_best("265kB, S3, 30 ms: faster than dask, tuned", _of(runs, reading.TUNED), plain, 3, TIMES),
        _at_best(
            f"{fetching.OBJECTS} objects, backlog of 5: of the limit",
            _of(small, fetching.FIVE),
            _of(small, fetching.OWN),
            0.2,
        ),
    ]


def _at_best(what: str, slower: Result, faster: Result, bound: float, unit: str = "") -> Target:
    """A ratio of row 6: the same read takes several times as long where memory has to be fetched anew."""
    return Target(
        "6", what, best_ratio(slower, faster), bound, at_least=True, unit=unit, middle=ratio(slower, faster)
    )


def _parts(measured: Measured) -> list[Target]:
    window = _of(measured.get("window", {}), reading.PLAIN)
    spikes = _of(measured.get("spikes", {}), reading.PLAIN)
    first = _of(measured.get("worker", {}), "first chunk")
    return [
        Target(
            "7", "10 s of 384 channels: requests (chunks touched)", window.middle("requests"), WINDOW_CHUNKS
        ),
        Target("7", "10 s of 384 channels: round trips", window.middle("round_trips"), 1),
        Target("8", "one unit's spikes: round trips beyond opening", spikes.middle("round_trips"), 1),
        Target("8", "one unit's spikes: chunks of spike times read (they lie in 1)", _chunks(spikes), 1),
        Target("9", "a worker's first chunk: metadata requests", first.middle("metadata_requests"), 0),
    ]


def _costs(measured: Measured) -> list[Target]:
    plan = _of(measured.get("plan", {}), "mean")
    stored = layout(ECEPHYS)["acquisition/ElectricalSeries/data"]
    decoded = plan.runs[0].facts["decoded_bytes"] if plan.runs else 2 * stored.chunks * stored.chunk_bytes
    tasks = 1.4 * ceil(decoded / BLOCK) + 10
    imports = measured.get("imports", {})
    extra = _of(imports, "import intake").middle("seconds") - _of(
        imports, "import intake, package hidden"
    ).middle("seconds")
    again = measured.get("again", {})
    memory = measured.get("memory", {})
    return [
        Target("10", "mean of 93,650 chunks: tasks", _fact(plan, "tasks"), tasks),
        Target("10", "mean of 93,650 chunks over time: tasks", _fact(plan, "tasks_over_time"), tasks),
        Target("10", "mean of 93,650 chunks: graph", 1000 * _fact(plan, "graph_seconds"), 30, unit="ms"),
        Target(
            "11",
            "importing the backend",
            1000 * _of(imports, "backend module").middle("seconds"),
            60,
            unit="ms",
        ),
        Target("11", "import intake, more with us installed", 1000 * extra, 10, unit="ms"),
        Target("12", "opening again: requests", _of(again, "again").middle("requests"), 1),
        Target(
            "12",
            "opening again, revalidate=False: requests",
            _of(again, "again, revalidate=False").middle("requests"),
            0,
        ),
        *(
            Target("13", f"an hour, {name}: memory", result.middle("memory") / 1e6, 20, unit="MB")
            for name, result in memory.items()
        ),
    ]


def _sessions(measured: Measured) -> list[Target]:
    """Many sessions: scanned, searched, one table of all, and mapped."""
    scanned = measured.get("scan 60 sessions", {})
    one, eight = (_of(scanned, name) for name in (many.ONE, many.EIGHT))
    count = many.SESSIONS["units-60"]
    searched = _of(measured.get("search 100,000 sessions", {}), many.SEARCH)
    question = measured.get("a question to 24 sessions", {})
    tables = measured.get("units of 60 sessions", {})
    column = measured.get("a column of the units of 60 sessions", {})
    workers = many.ONE_WORKER, many.TWO_WORKERS
    mapped = measured.get("map 1,000 sessions", {})
    from_afar = measured.get("map 1,000 sessions, 100 ms", {})
    return [
        Target("14", "scan: requests per session", one.middle("requests") / count, 10),
        Target("14", "scan: processor time per session", 1000 * eight.middle("cpu") / count, 10, unit="ms"),
        _faster("14", "scan: 8 threads, of one", ratio(one, eight), 4),
        Target("15", "search 2,000,000 objects, open one", searched.middle("seconds"), 0.5, unit="s"),
        Target("15", "search 2,000,000 objects: memory", searched.middle("memory") / 1e6, 500, unit="MB"),
        Target("16", "map: overhead per session, threads", _overhead(mapped), 5, unit="ms"),
        *(
            _faster("16", f"map: 2 workers, of one{far}", _over(*(_of(runs, name) for name in workers)), 1.8)
            for far, runs in (("", mapped), (", 100 ms", from_afar))
        ),
        Target(
            "16",
            "map of 10,000: memory of the client",
            _of(measured.get("map 10,000 sessions", {}), many.CLIENT).middle("memory") / 1e6,
            50,
            unit="MB",
        ),
        _faster(
            "17",
            "firing rates by speed of 24 sessions: faster than a loop over NWBZarrIO",
            _over(_of(question, many.LOOP), _of(question, many.MAP)),
            20,
        ),
        _faster(
            "18",
            "the units of 60 sessions: faster than lazynwb",
            ratio(_of(tables, many.LAZYNWB), _of(tables, many.TABLE)),
            5,
        ),
        _faster(
            "18",
            "a column of the units of 60 sessions: faster than lazynwb",
            ratio(_of(column, many.LAZYNWB), _of(column, many.TABLE)),
            5,
        ),
    ]


def _hdf5(measured: Measured) -> list[Target]:
    """HDF5 files: opened, opened again, and read."""
    runs = measured.get("open HDF5", {})
    flat, one = _of(runs, opening.FLAT), _of(runs, opening.ONE)
    many_runs = measured.get("open HDF5 of 2,000 series", {})
    many_flat, many_one = (_of(many_runs, name) for name in (opening.FLAT, opening.ONE))
    peers = ((hdf5.IO_REMFILE, 3), (hdf5.LAZYNWB, 4), (hdf5.IO_FSSPEC, 8))
    again = measured.get("again, HDF5", {})
    return [
        Target("19", "HDF5, flat: round trips", flat.middle("round_trips"), 8),
        Target("19", "HDF5, flat: requests", flat.middle("requests"), 25),
        *(
            _faster("19", f"HDF5, flat: faster than {name}", ratio(_of(runs, name), flat), bound)
            for name, bound in peers
        ),
        Target("20", "HDF5, 2,000 series: round trips", many_flat.middle("round_trips"), 12),
        Target("20", "HDF5, 2,000 series", many_flat.middle("seconds"), 3, unit="s"),
        *(
            target
            for name, result in (("one series", one), ("one of 2,000 series", many_one))
            for target in (
                Target("21", f"HDF5, {name}: round trips", result.middle("round_trips"), 5),
                Target("21", f"HDF5, {name}: received", result.middle("received") / 1e6, 1, unit="MB"),
            )
        ),
        Target("22", "HDF5, again: requests", _of(again, "again").middle("requests"), 1),
        Target(
            "22",
            "HDF5, again, revalidate=False: requests",
            _of(again, "again, revalidate=False").middle("requests"),
            0,
        ),
        *_reading_hdf5(measured),
    ]


def _reading_hdf5(measured: Measured) -> list[Target]:
    read, disk = measured.get("read HDF5, 30 ms", {}), measured.get("read HDF5, local", {})
    dask, own = _of(read, reading.DASK), _of(disk, hdf5.H5PY)
    peers = ((f"{hdf5.H5PY_FSSPEC}, dask", 2), (f"{hdf5.H5PY_REMFILE}, dask", 3))
    threads = ((hdf5.ONE_THREAD, 0.9), (hdf5.TWO_THREADS, 1))
    first = _of(measured.get("worker, HDF5", {}), hdf5.FIRST_CHUNK)
    table = _of(measured.get("table of 12,000 chunks, HDF5", {}), hdf5.WHOLE_TABLE)
    return [
        *(
            _faster("23", f"100 MB in 32 kB chunks: faster than {name}", ratio(_of(read, name), dask), bound)
            for name, bound in peers
        ),
        *(
            _faster("24", f"the same from a disk, {name}: of h5py's rate", ratio(own, _of(disk, name)), bound)
            for name, bound in threads
        ),
        Target("25", "HDF5, a worker's first chunk, of one range: requests", first.middle("requests"), 1),
        Target("26", "HDF5, table of 12,000 chunks: round trips", table.middle("round_trips"), 5),
        Target("26", "HDF5, table of 12,000 chunks: received", table.middle("received") / 1e6, 1, unit="MB"),
    ]


def _convert(measured: Measured) -> list[Target]:
    """Sessions that are converted, on one disk."""
    numbers = measured.get("convert 1 GB of numbers, local", {})
    texts = _of(measured.get("convert 763,000 rows of texts", {}), converting.VERIFIED)
    plain, copied = _of(numbers, converting.COPY), _of(numbers, converting.COPIED)
    memory = _of(numbers, converting.VERIFIED).middle("memory") / 1e6
    return [
        _faster("27", "convert, chunks copied: of the rate of a plain copy", ratio(plain, copied), 0.7),
        Target("27", "convert, verified: memory beyond imports", memory, 1000, unit="MB"),
        Target("28", "convert 763,000 rows of texts, verified", texts.middle("seconds"), 60, unit="s"),
    ]


def _overhead(mapped: Mapping[str, Result]) -> float:
    """Milliseconds that map adds to each session's own work."""
    count = many.SESSIONS["running-1000"]
    own, whole = (_of(mapped, name).middle("seconds") for name in (many.PLAIN, many.THREADS))
    return 1000 * (whole - own) / count


def _chunks(result: Result) -> float:
    if not result.runs:
        return float("nan")
    return sum("/spike_times/" in path for path in result.runs[0].paths)


def _of(results: Mapping[str, Result], name: str) -> Result:
    return results.get(name, Result(name))


def _faster(row: str, what: str, times: float, bound: float) -> Target:
    return Target(row, what, times, bound, at_least=True, unit=TIMES)


def _over(slower: Result, faster: Result) -> float:
    """Of medians, where the slower one was run once only."""
    return slower.middle("seconds") / faster.middle("seconds")


def _fact(result: Result, name: str) -> float:
    values = sorted(run.facts[name] for run in result.runs)
    return float(values[len(values) // 2]) if values else float("nan")
