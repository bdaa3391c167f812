"""Measurements of HDF5 files: opening and reading them, beside what reads them today, and their growth."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import LATENCY, Bench, Place
from benchmarks.measure import Contender, Result, again_and_again, check_same, once_each
from benchmarks.measure_opening import FLAT, ONE, TREE
from benchmarks.measure_reading import DASK, PLAIN
from benchmarks.session_files import make
from benchmarks.write_hdf5 import CHANNELS, SERIES, SMALL_CHUNK, series_name

type Results = dict[str, Result]

IO_REMFILE, IO_FSSPEC = "NWBHDF5IO over remfile", "NWBHDF5IO over fsspec"
H5PY_REMFILE, H5PY_FSSPEC, H5PY = "h5py over remfile", "h5py over fsspec", "h5py"
LIST_REMFILE, LIST_FSSPEC = "h5py over remfile, all objects", "h5py over fsspec, all objects"
ONE_THREAD, TWO_THREADS = "one thread", "two threads"
FIRST_CHUNK, FIRST_BLOCK = "first stored chunk", "first block"
ROWS = SMALL_CHUNK // (2 * CHANNELS)
WHOLE_TABLE = "table of all chunks"
LAZYNWB, KERCHUNK = "lazynwb, list of paths", "kerchunk"

HUNDRED, MANY, GZIP, TABLE = "hundred-hdf5", "series-2000-hdf5", "gzip-hdf5", "table-hdf5"
SERIES_COUNTS = (25, 100, 400, 2000)
CHUNK_COUNTS = (10**3, 10**4, 10**5, 10**6)


def opening(bench: Bench) -> Results:
    """A file of 42 MB with 100 objects, each way, and the ways of today."""
    place = bench.over_http(HUNDRED)
    contenders = [
        _named(ONE, "ours:open_group", place, group=SERIES),
        _named(FLAT, "ours:open_flat", place),
        _named(TREE, "ours:open_tree", place),
        _named(IO_REMFILE, "hdf5:open_session", place, "remfile", over="remfile"),
        _named(H5PY_REMFILE, "hdf5:open_one", place, "remfile", over="remfile", path=SERIES),
        _named(LIST_REMFILE, "hdf5:list_objects", place, "remfile", over="remfile"),
        _named(IO_FSSPEC, "hdf5:open_session", place, over="fsspec"),
        _named(LIST_FSSPEC, "hdf5:list_objects", place, over="fsspec"),
        _named(LAZYNWB, "hdf5:lazynwb_list", place, "lazynwb"),
        _named(KERCHUNK, "hdf5:kerchunk", place, "kerchunk"),
    ]
    return once_each(contenders, max(bench.repeats - 2, 1), bench.server, LATENCY)


def many_series(bench: Bench) -> Results:
    """2,000 series."""
    place = bench.over_http(MANY)
    contenders = [
        _named(ONE, "ours:open_group", place, group=f"acquisition/{series_name(1001)}"),
        _named(FLAT, "ours:open_flat", place),
        _named(TREE, "ours:open_tree", place),
    ]
    results = once_each(contenders, max(bench.repeats - 2, 1), bench.server, LATENCY)
    slow = [_named(LIST_REMFILE, "hdf5:list_objects", place, "remfile", over="remfile")]
    return results | once_each(slow, 1, bench.server, LATENCY)


def again(bench: Bench) -> Results:
    """A second opening in the same process."""
    place = bench.over_http(HUNDRED)
    contenders = [
        _named("again", "ours:open_again", place, group=SERIES),
        _named("again, revalidate=False", "ours:open_again", place, group=SERIES, revalidate=False),
    ]
    return once_each(contenders, 1, bench.server, LATENCY)


def reading(bench: Bench) -> Results:
    """100 MB of gzip and shuffle in chunks of 32 kB."""
    place = bench.over_http(GZIP)
    path = f"{SERIES}/data"
    contenders = [
        _named(PLAIN, "ours:read_series", place, group=SERIES, anew=True),
        _named(DASK, "ours:read_series", place, group=SERIES, dask=True, anew=True),
        _named(f"{H5PY_FSSPEC}, dask", "hdf5:read_array", place, over="fsspec", path=path, dask=True),
        _named(
            f"{H5PY_REMFILE}, dask", "hdf5:read_array", place, "remfile", over="remfile", path=path, dask=True
        ),
    ]
    results = again_and_again(contenders, bench.repeats, bench.server, LATENCY)
    check_same(results)
    return results


def from_disk(bench: Bench) -> Results:
    """The same from a local disk, with one thread that decodes and with two."""
    place = Place(str(make(GZIP, bench.cache)))
    path = f"{SERIES}/data"
    contenders = [
        _named(name, "ours:read_series_on", place, group=SERIES, threads=threads)
        for name, threads in ((ONE_THREAD, 1), (TWO_THREADS, 2))
    ]
    contenders += [_named(H5PY, "hdf5:read_array", place, over="disk", path=path)]
    results = again_and_again(contenders, bench.repeats, bench.server, 0)
    check_same(results)
    return results


def table(bench: Bench) -> Results:
    """The table of 12,000 chunks of about 9 kB."""
    place = bench.over_http(TABLE)
    contenders = [_named(WHOLE_TABLE, "ours:read_table", place, path=f"{SERIES}/data")]
    return once_each(contenders, max(bench.repeats - 2, 1), bench.server, LATENCY)


def worker(bench: Bench) -> Results:
    """A series is pickled in one process, and its first block read in another.

    A block of 64 MB is many ranges of the file, whose number says nothing of metadata. One of a single
    stored chunk is one range, and every other request is for metadata.
    """
    place = bench.over_http(GZIP)
    contenders = []
    for chunk, block, chunks in ((FIRST_CHUNK, "chunk", {"time": ROWS}), (FIRST_BLOCK, "block", {})):
        file = str(bench.cache / f"hdf5-{block}.pickle")
        contenders += [
            _named(
                f"pickle for {chunk}", "ours:pickled_series", place, group=SERIES, file=file, chunks=chunks
            ),
            _named(chunk, "ours:first_chunk", place, file=file),
        ]
    return once_each(contenders, 1, bench.server, LATENCY)


def growth_with_objects(bench: Bench) -> dict[str, Results]:
    """By the number of series, each of which has four objects."""
    found = {}
    for count in SERIES_COUNTS:
        place = bench.over_http(f"series-{count}-hdf5")
        contenders = [
            _named(ONE, "ours:open_group", place, group=f"acquisition/{series_name(count // 2)}"),
            _named(TREE, "ours:open_tree", place),
            _named(LIST_REMFILE, "hdf5:list_objects", place, "remfile", over="remfile"),
        ]
        found[str(3 * count)] = once_each(contenders, 1, bench.server, LATENCY)
    return found


def growth_with_chunks(bench: Bench) -> dict[str, Results]:
    """By the number of chunks of an array of which one sample is read, and of its table of chunks."""
    found = {}
    for count in CHUNK_COUNTS:
        place = bench.over_http(f"chunks-{count}-hdf5")
        rows = {"start": 10, "stop": 11, "step": None}
        contenders = [
            _named(PLAIN, "ours:read_rows", place, group=SERIES, **rows),
            _named(WHOLE_TABLE, "ours:read_table", place, path=f"{SERIES}/data"),
            _named(H5PY_REMFILE, "hdf5:read_rows", place, "remfile", over="remfile", path=f"{SERIES}/data"),
        ]
        found[str(count)] = once_each(contenders, 1, bench.server, LATENCY)
    return found


def _named(
    name: str, operation: str, place: Place, environment: str = "project", /, **arguments: Any
) -> Contender:
    return Contender(name, operation, arguments, place.url, place.options, environment)
