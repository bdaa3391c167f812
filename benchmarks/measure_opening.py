"""Measurements of opening: of sessions small and large, again, cold, and as nodes and latency grow."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import LATENCIES, LATENCY, Bench, Place
from benchmarks.measure import Contender, Result, once_each
from benchmarks.session_files import SERIES

type Results = dict[str, Result]

# What the contenders are called in tables.
ONE, FLAT, TREE, RAW = "one series", "session, flat", "session, tree", "open_nwb"
COLD = ", true cold"

LICK = "processing/behavior/BehavioralTimeSeries/lick"


def ophys(bench: Bench, name: str, io: str) -> Results:
    """Dandiset 000719's session of about 100 nodes, each way, and the way of today."""
    place = bench.over_http(name)
    contenders = [
        _ours(ONE, "open_group", place, group=LICK),
        _ours(FLAT, "open_flat", place),
        _ours(TREE, "open_tree", place),
        _ours(RAW, "open_raw", place),
        _theirs(io, place),
    ]
    # The way of today takes ten times as long for Zarr 2.
    repeats = bench.repeats if io == "NWBZarrIO" else max(bench.repeats - 2, 1)
    return once_each(contenders, repeats, bench.server, LATENCY)


def ophys_cold(bench: Bench, name: str, io: str) -> Results:
    """The same, imports and all, as the first thing that a process does."""
    place = bench.over_http(name)
    contenders = [
        _ours(ONE + COLD, "open_group", place, group=LICK, cold=True),
        _ours(FLAT + COLD, "open_flat", place, cold=True),
        _ours(RAW + COLD, "open_raw", place, cold=True),
        Contender(io + COLD, "hdmf:open_session", {"io": io, "cold": True}, place.url, place.options),
    ]
    return once_each(contenders, 1, bench.server, LATENCY)


def ophys_s3(bench: Bench, name: str) -> Results:
    """The same session from S3, with signed requests."""
    place = bench.over_s3(name)
    if place is None:
        return {}
    contenders = [_ours(ONE, "open_group", place, group=LICK), _ours(FLAT, "open_flat", place)]
    # moto answers the first time, the server in front of it from then on.
    once_each(contenders, 1, bench.server, LATENCY)
    return once_each(contenders, max(bench.repeats - 2, 1), bench.server, LATENCY)


def many_nodes(bench: Bench) -> Results:
    """2,000 series, 8,000 nodes: ours a few times, the way of today once, for it takes minutes."""
    place = bench.over_http("icephys-8000-nodes")
    ours = [
        _ours(ONE, "open_group", place, group="acquisition/data_01000_DA0"),
        _ours(TREE, "open_tree", place),
        _ours(FLAT, "open_flat", place),
    ]
    results = once_each(ours, max(bench.repeats - 2, 1), bench.server, LATENCY)
    slow = [_ours(RAW, "open_raw", place), _theirs("NWBZarrIO", place)]
    return results | once_each(slow, 1, bench.server, LATENCY)


def sweeps(bench: Bench) -> Results:
    """1,600 series of stimulus and response, as dandiset 000719's icephys session has them."""
    place = bench.over_http("icephys-1600-sweeps")
    ours = [
        _ours(ONE, "open_group", place, group="acquisition/data_00400_AD0"),
        _ours(TREE, "open_tree", place),
        _ours(FLAT, "open_flat", place),
    ]
    return once_each(ours, 1, bench.server, LATENCY)


def again(bench: Bench) -> Results:
    """A second opening in the same process."""
    place = bench.over_http("ophys-zarr2")
    contenders = [
        _ours("again", "open_again", place, group=LICK),
        _ours("again, revalidate=False", "open_again", place, group=LICK, revalidate=False),
    ]
    return once_each(contenders, 1, bench.server, LATENCY)


def imports(bench: Bench) -> Results:
    """Of modules, from processes that have imported the rest."""
    contenders = [
        Contender("backend module", "imports:backend", {}, ""),
        Contender("import intake", "imports:intake", {"installed": True}, ""),
        Contender("import intake, package hidden", "imports:intake", {"installed": False}, ""),
    ]
    return once_each(contenders, bench.repeats, bench.server, LATENCY)


def growth(bench: Bench) -> dict[str, Results]:
    """By the number of nodes; the largest is measured by `many_nodes`."""
    found = {}
    for nodes, series in SERIES.items():
        if nodes < max(SERIES):
            place = bench.over_http(f"icephys-{nodes}-nodes")
            contenders = [
                _ours(ONE, "open_group", place, group=f"acquisition/data_{series // 2:05d}_DA0"),
                _ours(TREE, "open_tree", place),
                _theirs("NWBZarrIO", place),
            ]
            found[str(nodes)] = once_each(contenders, 1, bench.server, LATENCY)
    return found


def latency(bench: Bench) -> dict[str, Results]:
    """By the latency of each answer."""
    found = {}
    for milliseconds in LATENCIES:
        place = bench.over_http("ophys-zarr3", milliseconds)
        contenders = [
            _ours(ONE, "open_group", place, group=LICK),
            _ours(FLAT, "open_flat", place),
            _theirs("NWBZarrIO", place),
        ]
        found[str(milliseconds)] = once_each(contenders, 1, bench.server, milliseconds)
    return found


def _ours(name: str, function: str, place: Place, /, **arguments: Any) -> Contender:
    return Contender(name, f"ours:{function}", arguments, place.url, place.options)


def _theirs(io: str, place: Place) -> Contender:
    return Contender(io, "hdmf:open_session", {"io": io}, place.url, place.options)
