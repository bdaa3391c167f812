"""Measurements of reading: 256 MB in chunks of two sizes, a window, one unit, a worker's first chunk."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import LATENCY, Bench, Place
from benchmarks.measure import Contender, Result, again_and_again, check_same, once_each
from benchmarks.write_reading import RATE, SERIES, UNITS

type Results = dict[str, Result]

PLAIN, DASK, SCALED = "plain", "through dask", "in volts (float64)"
LIMIT, LIMIT_DASK = "limit: obstore + numcodecs", "limit through dask"
ZARR, STOCK, TUNED = "zarr over fsspec", "dask.array.from_zarr, stock", "dask.array.from_zarr, tuned"
IO, IO_DASK = "NWBZarrV2IO", "NWBZarrV2IO, dask.array.from_array"
# Of Zarr, it reads what is on S3 alone.
LAZYNWB = "lazynwb, S3"
AT_LEAST = 15
"""Runs of what is judged by its best one."""

UNIT = 50
START, STOP = 100.0, 110.0


def over_http(bench: Bench, chunks: str, latency: int) -> Results:
    """The package and the limit."""
    place = bench.over_http(f"series-{chunks}-zarr2", latency)
    contenders = [
        *_ours(place),
        _named(LIMIT_DASK, "limit:read_with_dask", place, "obstore", path=f"{SERIES}/data"),
        _named(SCALED, "ours:read_series", place, group=SERIES, scaled=True),
    ]
    results = again_and_again(contenders, max(AT_LEAST, 2 * bench.repeats), bench.server, latency)
    check_same(results, apart=[SCALED])
    return results


def pinned_peers(bench: Bench, chunks: str) -> Results:
    """Peers in environments of their own."""
    place = bench.over_http(f"series-{chunks}-zarr2")
    in_bucket = bench.over_s3(f"series-{chunks}-zarr2") or place
    contenders = [
        _named("spikeinterface", "pinned:spikeinterface_read", place, "spikeinterface", path=SERIES),
        _named(LAZYNWB, "pinned:lazynwb_read", in_bucket, "lazynwb", path=SERIES),
    ]
    results = again_and_again(contenders, 1, bench.server, LATENCY)
    check_same(results)
    return results


def pinned_openings(bench: Bench) -> Results:
    """What they take to open one series of the same session as ours does here."""
    place = bench.over_http("series-265kB-zarr2")
    in_bucket = bench.over_s3("series-265kB-zarr2") or place
    contenders = [
        _named("one series", "ours:open_group", place, group=SERIES),
        _named("spikeinterface", "pinned:spikeinterface_open", place, "spikeinterface", path=SERIES),
        _named(LAZYNWB, "pinned:lazynwb_open", in_bucket, "lazynwb", path=SERIES),
        _named(IO, "hdmf:open_session", place, io=IO),
    ]
    return once_each(contenders, 1, bench.server, LATENCY)


def over_s3(bench: Bench, chunks: str) -> Results:
    """Everything that reads it, signed."""
    place = bench.over_s3(f"series-{chunks}-zarr2")
    if place is None:
        return {}
    path = f"{SERIES}/data"
    quick = [
        *_ours(place),
        _named(ZARR, "plain_zarr:read_array", place, path=path),
        _named(TUNED, "plain_zarr:read_with_dask", place, path=path, tuned=True),
        _named(IO, "hdmf:read_series", place, io=IO, name="ElectricalSeries"),
    ]
    results = again_and_again(quick, max(AT_LEAST, bench.repeats), bench.server, LATENCY)
    check_same(results)
    if chunks != "265kB":
        return results
    slow = [
        _named(STOCK, "plain_zarr:read_with_dask", place, path=path),
        _named(IO_DASK, "hdmf:read_series", place, io=IO, name="ElectricalSeries", with_dask=True),
    ]
    results |= once_each(slow, 1, bench.server, LATENCY)
    check_same(results)
    return results


def window(bench: Bench) -> Results:
    """Ten seconds of 384 channels out of an hour."""
    place = bench.over_http("hour-zarr3")
    rows = {"start": int(START * RATE), "stop": int(STOP * RATE) + 1}
    contenders = [
        _named(PLAIN, "ours:read_window", place, group=SERIES, start=START, stop=STOP),
        _named(ZARR, "plain_zarr:read_rows", place, path=f"{SERIES}/data", **rows),
        _named("NWBZarrIO", "hdmf:read_window", place, io="NWBZarrIO", name="ElectricalSeries", **rows),
    ]
    results = once_each(contenders, 1, bench.server, LATENCY)
    check_same(results)
    return results


def spikes(bench: Bench) -> Results:
    """One unit out of 200, which have 10 million spikes."""
    place = bench.over_http("hour-zarr3")
    assert UNIT < UNITS  # noqa: S101 (constants of two modules)
    contenders = [
        _named(PLAIN, "ours:read_spikes", place, unit=UNIT),
        _named("NWBZarrIO", "hdmf:read_spikes", place, io="NWBZarrIO", unit=UNIT),
    ]
    results = once_each(contenders, 1, bench.server, LATENCY)
    check_same(results)
    return results


def worker(bench: Bench) -> Results:
    """A dask array is pickled in one process, and its first chunk computed in another."""
    place = bench.over_http("hour-zarr3")
    file = str(bench.cache / "array.pickle")
    contenders = [
        _named("open with chunks, pickle", "ours:pickled_series", place, group=SERIES, file=file),
        _named("first chunk", "ours:first_chunk", place, file=file),
    ]
    return once_each(contenders, 1, bench.server, LATENCY)


def plan(bench: Bench) -> Results:
    """The graph of a mean over 93,650 chunks."""
    place = bench.over_http("ecephys-zarr2")
    return once_each(
        [_named("mean", "ours:plan_mean", place, group=SERIES)], bench.repeats, bench.server, LATENCY
    )


def memory(bench: Bench) -> Results:
    """Opening the hour."""
    place = bench.over_http("hour-zarr3")
    contenders = [
        _named("one series", "ours:open_group", place, group=SERIES),
        _named("irregular series", "ours:open_group", place, group="acquisition/licks"),
        _named("session, flat", "ours:open_flat", place),
        _named("session, tree", "ours:open_tree", place),
    ]
    return once_each(contenders, 1, bench.server, LATENCY)


def _ours(place: Place) -> list[Contender]:
    return [
        _named(PLAIN, "ours:read_series", place, group=SERIES),
        _named(DASK, "ours:read_series", place, group=SERIES, dask=True),
        _named(LIMIT, "limit:read_array", place, "obstore", path=f"{SERIES}/data"),
    ]


def _named(
    name: str, operation: str, place: Place, environment: str = "project", /, **arguments: Any
) -> Contender:
    return Contender(name, operation, arguments, place.url, place.options, environment)
