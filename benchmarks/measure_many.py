"""Measurements of many sessions: scanning, searching, one table of all, and a function mapped over them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bench import LATENCY, Bench, Place
from benchmarks.measure import Contender, Result, again_and_again, check_same, once_each
from benchmarks.servers.nginx import Nginx
from benchmarks.session_files import make

type Results = dict[str, Result]

ONE, EIGHT, AGAIN = "1 thread", "8 threads", "again, unchanged"
SEARCH = "search and open one"
TABLE, LAZYNWB = "lab.table", "lazynwb get_df"
MAP, LOOP = "search and map, 8 threads", "loop over NWBZarrIO"
PLAIN, THREADS = "the work alone, 8 threads", "map, 8 threads"
CLIENT = "map on a cluster, client"
ONE_WORKER, TWO_WORKERS = "1 worker of 8 threads", "2 workers of 8 threads"
FAR = 100
SESSIONS = {"units-60": 60, "running-24": 24, "running-1000": 1000}


def scanning(bench: Bench) -> Results:
    """60 sessions in a bucket, scanned into new tables by one thread and by eight, and once more."""
    place = _collection(bench, "units-60")
    if place is None:
        return {}
    contenders = [
        Contender(ONE, "many:scan", {"threads": 1}, place.url, place.options),
        Contender(EIGHT, "many:scan", {"threads": 8}, place.url, place.options),
        Contender(AGAIN, "many:scan_again", {}, place.url, place.options),
    ]
    return again_and_again(contenders, bench.repeats, bench.server, LATENCY)


def searching(bench: Bench) -> Results:
    """Tables of 100,000 sessions with 2,000,000 objects, and a session that is opened."""
    script = Path(__file__).parents[1] / "tests" / "sessions" / "large_tables.py"
    place = bench.over_http("ophys-zarr3")
    with tempfile.TemporaryDirectory() as folder:
        tables = f"{folder}/large.parquet"
        command = [sys.executable, str(script), tables, "100000", "20", place.url]
        subprocess.run(command, check=True, env={"PYTHONPATH": str(script.parents[2])})  # noqa: S603 (ours)
        contender = Contender(SEARCH, "many:search_and_open", {"tables": tables}, place.url)
        return once_each([contender], bench.repeats, bench.server, LATENCY)


def one_table(bench: Bench, columns: list[str] | None) -> Results:
    """The units of 60 sessions, or a column of them, with lazynwb beside."""
    place = _collection(bench, "units-60")
    if place is None:
        return {}
    wanted = {"columns": columns}
    theirs = {"names": _names(bench, "units-60"), **wanted}
    contenders = [
        Contender(TABLE, "many:table", wanted, place.url, place.options),
        Contender(LAZYNWB, "many:lazynwb_table", theirs, place.url, place.options, "lazynwb"),
    ]
    found = again_and_again(contenders, bench.repeats, bench.server, LATENCY)
    check_same(found)
    return found


def question(bench: Bench) -> Results:
    """Firing rates by running speed in 24 sessions: searched and mapped, and in a loop over pynwb."""
    in_bucket = _collection(bench, "running-24")
    if in_bucket is None:
        return {}
    names = _names(bench, "running-24")
    over_http = f"{bench.server.url(LATENCY)}/running-24"
    ours = [Contender(MAP, "many:question", {}, in_bucket.url, in_bucket.options)]
    found = again_and_again(ours, bench.repeats, bench.server, LATENCY)
    loop = Contender(LOOP, "many:question_with_pynwb", {"names": names}, over_http)
    found |= once_each([loop], 1, bench.server, LATENCY)
    check_same(found)
    return found


def mapping(bench: Bench) -> Results:
    """1,000 small sessions: the work alone, mapped on threads, and on clusters of one worker and two."""
    place = _collection(bench, "running-1000")
    if place is None:
        return {}
    contenders = [
        Contender(PLAIN, "many:work_alone", {}, place.url, place.options),
        Contender(THREADS, "many:mapped", {}, place.url, place.options),
        *(
            Contender(name, "many:mapped", {"workers": workers}, place.url, place.options)
            for name, workers in ((ONE_WORKER, 1), (TWO_WORKERS, 2))
        ),
    ]
    # What nginx has not asked moto for yet, it asks in the first run.
    once_each(contenders[:1], 1, bench.server, LATENCY)
    return once_each(contenders, max(bench.repeats - 2, 1), bench.server, LATENCY)


def mapping_from_afar(bench: Bench) -> Results:
    """The same on one worker and on two with 100 ms a request, which leaves them time for more sessions."""
    place = _collection(bench, "running-1000", FAR)
    if place is None:
        return {}
    contenders = [
        Contender(name, "many:mapped", {"workers": workers}, place.url, place.options)
        for name, workers in ((ONE_WORKER, 1), (TWO_WORKERS, 2))
    ]
    return once_each(contenders, max(bench.repeats - 2, 1), bench.server, FAR)


def client_memory(bench: Bench) -> Results:
    """10,000 sessions that need no work, and how the memory of the client grows."""
    make("running-24", bench.cache)
    make("linked-10000", bench.cache)
    contender = Contender(
        CLIENT, "many:many_mapped", {"count": 10_000}, f"{bench.server.url(0)}/linked-10000"
    )
    return once_each([contender], 1, bench.server, 0)


def _collection(bench: Bench, name: str, latency: int = LATENCY) -> Place | None:
    folder = make(name, bench.cache)
    if bench.moto is None or not isinstance(bench.server, Nginx):
        return None
    return Place(bench.moto.load(folder), bench.moto.options(bench.server.s3_endpoint(latency)))


def _names(bench: Bench, name: str) -> list[str]:
    return sorted(path.name for path in make(name, bench.cache).iterdir())
