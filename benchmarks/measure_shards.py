"""Measurements of sharded arrays: all of one, and selections that touch some of a shard's chunks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.bench import LATENCY, Bench
from benchmarks.measure import Contender, Result, again_and_again, check_same
from benchmarks.measure_reading import DASK, PLAIN, ZARR
from benchmarks.session_files import make
from benchmarks.write_reading import SERIES, SHARD_CHUNKS

type Results = dict[str, Result]

SESSION = "series-shards-zarr3"
DATA = f"{SERIES}/data"

PARTS: Mapping[str, slice] = {
    "24 chunks of one shard": slice(20, 44),
    "24 chunks of two shards": slice(SHARD_CHUNKS - 12, SHARD_CHUNKS + 12),
    "every 8th chunk": slice(None, None, 8),
}
"""Chunks that are touched, by what the selection is called."""


def whole(bench: Bench, latency: int) -> Results:
    """All of the series."""
    place = bench.over_http(SESSION, latency)
    contenders = [
        Contender(PLAIN, "ours:read_series", {"group": SERIES}, place.url),
        Contender(DASK, "ours:read_series", {"group": SERIES, "dask": True}, place.url),
        Contender(ZARR, "plain_zarr:read_array", {"path": DATA}, place.url),
    ]
    results = again_and_again(contenders, bench.repeats, bench.server, latency)
    check_same(results)
    return results


def parts(bench: Bench) -> Results:
    """Some chunks of it, with the bytes that they are stored in."""
    place = bench.over_http(SESSION)
    array = make(SESSION, bench.cache) / DATA
    found: Results = {}
    for part, chunks in PARTS.items():
        samples = samples_of(array, chunks)
        contenders = [
            Contender(f"{part}, {PLAIN}", "ours:read_rows", {"group": SERIES, **samples}, place.url),
            Contender(f"{part}, {ZARR}", "plain_zarr:read_rows", {"path": DATA, **samples}, place.url),
        ]
        results = again_and_again(contenders, bench.repeats, bench.server, LATENCY)
        check_same(results)
        needed = stored_bytes(array, chunks)
        for result in results.values():
            for run in result.runs:
                run.facts["needed"] = needed
        found |= results
    return found


def samples_of(array: Path, chunks: slice) -> dict[str, int | None]:
    """Samples that touch these chunks: from the middle of the first to that of the last, or one of each."""
    rows = _stored(array).chunks[0]
    if chunks.step is not None:
        return {"start": None, "stop": None, "step": chunks.step * rows}
    return {"start": chunks.start * rows + rows // 2, "stop": chunks.stop * rows - rows // 2, "step": None}


def stored_bytes(array: Path, chunks: slice) -> int:
    """Bytes that chunks of an array are stored in, as the shards' indexes say."""
    stored = _stored(array)
    total = -(-stored.shape[0] // stored.chunks[0])
    index_bytes = SHARD_CHUNKS * 16
    lengths = [
        # An offset and a length of each chunk, and a checksum of four bytes.
        np.frombuffer(shard.read_bytes()[-index_bytes - 4 : -4], "<u8").reshape(-1, 2)[:, 1]
        for shard in sorted((array / "c").glob("*/0"), key=lambda shard: int(shard.parent.name))
    ]
    return int(np.concatenate(lengths)[:total][chunks].sum())


def _stored(array: Path) -> zarr.Array[Any]:
    return zarr.open_array(array, mode="r")
