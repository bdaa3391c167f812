"""Measurements of `nwbzarr convert`: numbers beside a plain copy, and a table of many texts."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench
from benchmarks.measure import Contender, Result, again_and_again, once_each
from benchmarks.session_files import make

type Results = dict[str, Result]

RECORDING, TEXTS = "recording-convert-zarr2", "texts-convert-zarr2"
COPY, COPIED, VERIFIED = (
    "plain copy, fsync",
    "convert --no-verify",
    "convert",
)


def numbers(bench: Bench) -> Results:
    """1 GB in chunks of 265 kB that are copied as they are, on one disk."""
    contenders = [
        _named(bench, RECORDING, COPY, "copy"),
        _named(bench, RECORDING, COPIED, "convert", verify=False),
    ]
    verified = [_named(bench, RECORDING, VERIFIED, "convert")]
    results = again_and_again(contenders, bench.repeats, bench.server, 0)
    # Reads all of it twice with pynwb and xarray.
    return results | once_each(verified, 1, bench.server, 0)


def texts(bench: Bench) -> Results:
    """A table of 763,000 rows with four columns of pickled texts."""
    contenders = [
        _named(bench, TEXTS, COPIED, "convert", verify=False),
        _named(bench, TEXTS, VERIFIED, "convert"),
    ]
    return once_each(contenders, max(bench.repeats - 2, 1), bench.server, 0)


def _named(bench: Bench, session: str, name: str, operation: str, **arguments: Any) -> Contender:
    to = str(bench.cache / f"converted-{operation}")
    return Contender(
        name, f"converting:{operation}", {"to": to, **arguments}, str(make(session, bench.cache))
    )
