"""Measurements of fetching: the stored chunks of 256 MB by each client, and nothing done with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.bench import LATENCY, Bench, Place
from benchmarks.measure import Contender, Result, again_and_again, check_same
from benchmarks.servers.small import SmallServer
from benchmarks.session_files import make
from benchmarks.write_reading import SERIES

type Results = dict[str, Result]

OBJECTS = 300
FIVE = "limit: obstore, five at once"
OWN, OBSTORE, AIOHTTP, FSSPEC, TUNED = "own transport", "obstore", "aiohttp", "fsspec", "fsspec, tuned"


def fetching(bench: Bench) -> Results:
    """In chunks of both sizes, over HTTP without and with latency, and over S3."""
    found: Results = {}
    for chunks in ("265kB", "16MiB"):
        name = f"series-{chunks}-zarr2"
        for latency in (0, LATENCY):
            label = f"{chunks}, {latency} ms"
            found |= _fetched(bench, name, label, bench.over_http(name, latency), latency)
        in_bucket = bench.over_s3(name)
        if in_bucket is not None:
            found |= _fetched(bench, name, f"{chunks}, S3", in_bucket, LATENCY)
    return found


def from_small_server(bench: Bench) -> Results:
    """Many small objects from a server with a backlog of five: at once, and five at a time."""
    with TemporaryDirectory() as folder:
        for number in range(OBJECTS):
            Path(folder, str(number)).write_bytes(bytes(2000))
        with SmallServer(Path(folder)) as server:
            keys = [str(number) for number in range(OBJECTS)]
            contenders = [
                Contender(OWN, "fetch:own_transport", {"keys": keys}, server.url()),
                Contender(FIVE, "fetch:five_at_once", {"keys": keys}, server.url(), None, "obstore"),
            ]
            results = again_and_again(contenders, bench.repeats, server, 0)
    check_same(results)
    return results


def _fetched(bench: Bench, name: str, label: str, place: Place, latency: int) -> Results:
    folder = make(name, bench.cache)
    keys = sorted(
        str(file.relative_to(folder)) for file in (folder / SERIES / "data").iterdir() if file.name[0] != "."
    )

    def client(who: str, operation: str, environment: str = "project", **arguments: Any) -> Contender:
        told: Mapping[str, Any] = {"keys": keys, **arguments}
        return Contender(f"{label}: {who}", f"fetch:{operation}", told, place.url, place.options, environment)

    contenders = [client(OWN, "own_transport"), client(OBSTORE, "obstore", "obstore")]
    if place.options is None:
        contenders += [client(AIOHTTP, "aiohttp"), client(FSSPEC, "fsspec")]
    else:
        contenders += [client(FSSPEC, "fsspec"), client(TUNED, "fsspec", tuned=True)]
    results = again_and_again(contenders, max(bench.repeats - 2, 1), bench.server, latency)
    check_same(results)
    return results
