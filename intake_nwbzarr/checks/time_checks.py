"""Check times: timestamps that are unsorted, NaN or regular, float32 times, and the session's time zone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.checks.checked import Checked, Selection, is_numeric
from intake_nwbzarr.checks.report import Finding
from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.mapping.schema import is_a
from intake_nwbzarr.mapping.time_coordinates import reference_time, warn_of_epoch
from intake_nwbzarr.transport.request_log import readable_size

FEWEST: Final = 100
"""Timestamps from which regular ones are reported."""

DEVIATION: Final = 1e-3
"""The part of an interval by which regular timestamps may deviate."""

COARSE: Final = 5e-4
"""Seconds that times of intervals and events may be apart in float32."""

COARSE_SPIKES: Final = 5e-5
"""Seconds that times of spikes may be apart in float32: two samples at 40 kHz."""


@dataclass(frozen=True)
class _Read:
    """Timestamps as far as they were read: blocks and the positions that these begin at."""

    node: ArrayNode
    starts: tuple[int, ...]
    blocks: tuple[NDArray[np.float64], ...]
    whole: bool

    @property
    def values(self) -> NDArray[np.float64]:
        return np.concatenate(self.blocks)

    @property
    def positions(self) -> NDArray[np.int64]:
        return np.concatenate(
            [
                np.arange(start, start + len(each))
                for start, each in zip(self.starts, self.blocks, strict=True)
            ]
        )

    @property
    def sampled(self) -> str:
        """Return a note where not all was read."""
        return "" if self.whole else f" ({len(self.values):,} of {self.node.size:,} were read)"


def time_findings(session: Checked) -> Iterator[Finding]:
    """Yield findings of timestamps, and of other times that are stored as float32."""
    for each in _timestamps(session):
        yield from _of_timestamps(session, each)
    yield from _of_starting_times(session)
    yield from _of_columns(session)


def note_time_zone(session: Checked) -> Iterator[Finding]:
    """Yield findings for a start and a zero of times that have no time zone, or are not a date."""
    hierarchy = session.hierarchy
    names = ("timestamps_reference_time", "session_start_time")
    chosen: list[Selection] = [
        (node, ()) for name in names if isinstance(node := session.nodes.get(name), ArrayNode)
    ]
    found = session.read(chosen)
    attributes = {
        node.path: str(value.ravel()[0])
        for (node, _), value in zip(chosen, found, strict=True)
        if value is not None and value.size == 1
    }
    if not attributes:
        return
    for name, text in attributes.items():
        if _has_no_zone(text):
            yield session.finding("no-time-zone", name, f"It is {text!r}.")
    try:
        # Its warning of the first of both has no path.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference_time(attributes, hierarchy.location)
    except MetadataError as error:
        yield session.finding("invalid-date", "session_start_time", f"It is {error.found!r}.")


def _has_no_zone(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is None
    except ValueError:
        return False


def _timestamps(session: Checked) -> Iterator[_Read]:
    """Read the timestamps of series: whole where they are few, otherwise some blocks of them."""
    hierarchy = session.hierarchy
    nodes = []
    for group in session.groups:
        node = session.nodes.get(f"{group.path}/timestamps")
        if not isinstance(node, ArrayNode) or node.ndim != 1 or not node.size:
            continue
        if is_numeric(node.dtype) and is_a(hierarchy, group, "TimeSeries"):
            nodes.append(node)
    selections: list[Selection] = []
    shares: list[tuple[ArrayNode, list[slice]]] = []
    for node in nodes:
        parts = session.parts(node)
        shares.append((node, parts))
        selections += [(node, (part,)) for part in parts]
    values = iter(session.read(selections))
    for node, parts in shares:
        read = [(part, next(values)) for part in parts]
        kept = [(part.start, block.astype(np.float64)) for part, block in read if block is not None]
        if kept:
            starts, blocks = zip(*kept, strict=True)
            whole = sum(len(each) for each in blocks) == node.size
            yield _Read(node, starts, blocks, whole)


def _of_timestamps(session: Checked, read: _Read) -> Iterator[Finding]:
    path, values = read.node.path, read.values
    finite = np.isfinite(values)
    if not finite.all():
        number = int(np.count_nonzero(~finite))
        first = int(read.positions[~finite][0])
        yield session.finding("nan-times", path, f"{number:,}, the first at {first:,}{read.sampled}.")
    times, positions = values[finite], read.positions[finite]
    if len(times):
        warn_of_epoch(float(times.min()), repr(path), path)
        session.last_time = max(float(times.max()), session.last_time or 0.0)
    if len(times) < 2:
        return
    # Within blocks and between them: positions increase, so that times must.
    steps = np.diff(times)
    back = np.flatnonzero(steps < 0)
    if len(back):
        at = int(positions[back[0] + 1])
        yield session.finding(
            "unsorted-times",
            path,
            f"{len(back):,} of {len(steps):,} steps go back, the first at {at:,}, from {times[back[0]]:.9g} "
            f"to {times[back[0] + 1]:.9g} s{read.sampled}.",
        )
        return
    length = positions[-1] - positions[0]
    interval = float((times[-1] - times[0]) / length)
    if not isfinite(interval) or interval <= 0:
        return
    session.rates[path] = 1 / interval
    if read.node.dtype == np.float32:
        yield from _coarse(session, path, float(np.abs(times).max()), 0.1 * interval)
    if finite.all() and read.node.size >= FEWEST:
        yield from _regular(session, read, times, positions, interval)


def _regular(
    session: Checked,
    read: _Read,
    times: NDArray[np.float64],
    positions: NDArray[np.int64],
    interval: float,
) -> Iterator[Finding]:
    expected = times[0] + (positions - positions[0]) * interval
    deviation = float(np.abs(times - expected).max())
    # As far as the stored type can tell times apart.
    rounding = float(np.spacing(read.node.dtype.type(np.abs(times).max()))) if _is_float(read.node) else 0.0
    if deviation > max(DEVIATION * interval, rounding):
        return
    count = session.counted.get(read.node.path)
    stored = read.node.size * read.node.dtype.itemsize if count is None else count.nbytes
    saved = f" {readable_size(stored)} would be saved." if stored else ""
    yield session.finding(
        "regular-timestamps",
        read.node.path,
        f"Rate {_rounded(1 / interval):.9g} Hz from {times[0]:.9g} s, within {deviation:.1g} s"
        f"{read.sampled}.{saved}",
    )


def _is_float(node: ArrayNode) -> bool:
    return node.dtype.kind == "f"


def _rounded(rate: float) -> float:
    """Return a rate without the noise of its computation."""
    nearest = round(rate, 6)
    return nearest if nearest and abs(rate / nearest - 1) < 1e-9 else rate


def _coarse(session: Checked, path: str, latest: float, allowed: float) -> Iterator[Finding]:
    apart = float(np.spacing(np.float32(latest)))
    if isfinite(apart) and apart > allowed:
        yield session.finding(
            "float32-times",
            path,
            f"At {latest:,.6g} s, values are {apart:.2g} s apart; needed: {allowed:.2g} s.",
        )


def _of_starting_times(session: Checked) -> Iterator[Finding]:
    chosen: list[Selection] = [
        (node, ())
        for node in session.arrays
        if node.name == "starting_time" and node.dtype == np.float32 and node.size == 1
    ]
    for (node, _), value in zip(chosen, session.read(chosen), strict=True):
        rate: Any = node.attributes.get("rate")
        if value is not None and isinstance(rate, int | float) and rate > 0:
            yield from _coarse(session, node.path, abs(float(value.ravel()[0])), 0.1 / rate)


def _of_columns(session: Checked) -> Iterator[Finding]:
    """Yield columns of times in tables that are too coarse at the last time of the table."""
    allowed = {
        "start_time": COARSE,
        "stop_time": COARSE,
        "timestamp": COARSE,
        "spike_times": COARSE_SPIKES,
    }
    chosen: list[Selection] = []
    for node in session.arrays:
        if node.name in allowed and node.dtype == np.float32 and node.ndim == 1 and node.size:
            chosen += [(node, (part,)) for part in session.parts(node)]
    latest: dict[str, float] = {}
    for (node, _), values in zip(chosen, session.read(chosen), strict=True):
        finite = _finite(values)
        if len(finite):
            latest[node.path] = max(latest.get(node.path, 0.0), float(np.abs(finite).max()))
    for path, last in latest.items():
        yield from _coarse(session, path, last, allowed[path.rpartition("/")[2]])


def _finite(values: NDArray[Any] | None) -> NDArray[Any]:
    return np.empty(0) if values is None else values[np.isfinite(values)]
