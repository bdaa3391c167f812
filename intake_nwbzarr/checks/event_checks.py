"""Check times of spikes and intervals: unsorted, in samples or since 1970, and stops before starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.checks.checked import Checked, Selection, is_numeric
from intake_nwbzarr.checks.report import Finding
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.mapping.schema import is_a
from intake_nwbzarr.mapping.time_coordinates import warn_of_epoch

FEWEST: Final = 20
"""Spikes from which whole numbers are called numbers of samples."""

LONGEST: Final = 1e6
"""Seconds, eleven days, beyond which whole numbers are hardly times of a session."""

# Series of which the starting time is read.
_MOST_SERIES: Final = 100

MARGIN: Final = 10.0
"""How many times the session's last known time whole numbers must reach, to be called numbers of samples."""


def event_findings(session: Checked) -> Iterator[Finding]:
    """Yield findings of spike times, and of intervals; columns too large to be read whole are noted."""
    for group in session.groups:
        if is_a(session.hierarchy, group, "Units"):
            yield from _spikes(session, group.path)
        elif is_a(session.hierarchy, group, "TimeIntervals"):
            yield from _intervals(session, group.path)


def _spikes(session: Checked, path: str) -> Iterator[Finding]:
    column, node = f"{path}/spike_times", _numbers(session, f"{path}/spike_times")
    index = _numbers(session, f"{path}/spike_times_index")
    if node is None or index is None or not _is_small(session, index):
        return
    parts = session.parts(node)
    ends, *blocks = session.read([(index, ()), *((node, (part,)) for part in parts)])
    read = [(part.start, block) for part, block in zip(parts, blocks, strict=True) if block is not None]
    if ends is None or not read:
        return
    times = np.concatenate([block for _, block in read])
    sampled = "" if len(times) == node.size else f" ({len(times):,} of {node.size:,} spikes were read)"
    finite = times[np.isfinite(times)]
    if len(finite):
        warn_of_epoch(float(finite.min()), repr(column), column)
    unsorted = sorted(
        {row for start, block in read for row in _unsorted_units(block, start, ends, node.size)}
    )
    if unsorted:
        found = f"Within {len(unsorted):,} of {len(ends):,} units, the first in row {unsorted[0]:,}{sampled}."
        yield session.finding("unsorted-times", column, found)
    yield from _in_samples(session, column, finite, sampled)


def _unsorted_units(times: NDArray[Any], start: int, ends: NDArray[Any], size: int) -> list[int]:
    """Return the rows of units of which times go back, in the block that begins at a position."""
    ends = ends.astype(np.int64)
    # Of indexes that do not fit, there is another finding.
    if not len(ends) or ends[0] < 0 or (ends[1:] < ends[:-1]).any() or ends[-1] > size:
        return []
    # A step is that to the spike after it: those from one unit to the next say nothing.
    back = np.flatnonzero(times[1:] < times[:-1]) + 1 + start
    within = back[(back < ends[-1]) & ~np.isin(back, ends)]
    return [int(row) for row in np.unique(np.searchsorted(ends, within, side="right"))]


def _in_samples(session: Checked, column: str, times: NDArray[Any], sampled: str) -> Iterator[Finding]:
    if len(times) < FEWEST or not (times == np.floor(times)).all():
        return
    last = float(times.max())
    known = _last_time(session)
    # Seconds since 1970 have a finding of their own.
    if last < 5e8 and last > (LONGEST if known is None else MARGIN * max(known, 1.0)):
        beside = "" if known is None else f", and the series of the session end at {known:,.6g} s"
        yield session.finding(
            "times-in-samples", column, f"All are whole numbers, up to {last:,.12g}{beside}{sampled}."
        )


def _last_time(session: Checked) -> float | None:
    """Return the last time of any series; None if there is none."""
    chosen: list[Selection] = []
    lasting: list[float] = []
    for node in session.arrays:
        rate = node.attributes.get("rate")
        data = session.nodes.get(f"{node.path.rpartition('/')[0]}/data")
        if node.name != "starting_time" or node.size != 1 or not is_numeric(node.dtype):
            continue
        if isinstance(data, ArrayNode) and data.ndim and isinstance(rate, int | float) and rate > 0:
            chosen.append((node, ()))
            lasting.append(data.shape[0] / rate)
    ends = [
        float(value.ravel()[0]) + seconds
        for value, seconds in zip(session.read(chosen[:_MOST_SERIES]), lasting, strict=False)
        if value is not None
    ]
    ends += lasting[_MOST_SERIES:]
    if session.last_time is not None:
        ends.append(session.last_time)
    return max((end for end in ends if np.isfinite(end)), default=None)


def _intervals(session: Checked, path: str) -> Iterator[Finding]:
    columns = [_numbers(session, f"{path}/{name}") for name in ("start_time", "stop_time")]
    chosen = [(node, ()) for node in columns if node is not None and _is_small(session, node)]
    if len(chosen) < len(columns):
        return
    start, stop = session.read(chosen)
    if start is None or stop is None or start.shape != stop.shape:
        return
    before = np.flatnonzero(stop < start)
    if len(before):
        row = int(before[0])
        yield session.finding(
            "stop-before-start",
            f"{path}/stop_time",
            f"{len(before):,} of {len(start):,}, the first in row {row:,}: from {start[row]:.9g} to "
            f"{stop[row]:.9g} s.",
        )


def _numbers(session: Checked, path: str) -> ArrayNode | None:
    """Return a column of numbers; None where there is none, or nothing in it."""
    node = session.nodes.get(path)
    if not isinstance(node, ArrayNode) or node.ndim != 1 or not node.size or not is_numeric(node.dtype):
        return None
    return node


def _is_small(session: Checked, node: ArrayNode) -> bool:
    """Return whether a column may be read whole; note it otherwise."""
    small = session.may_read_whole(node)
    if not small:
        session.unchecked.append(f"values of {node.path}: they are too many to be read whole")
    return small
