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
    """Yield findings of spike times, and of intervals. Columns too large to be read whole are left out."""
    for group in session.groups:
        if is_a(session.hierarchy, group, "Units"):
            yield from _spikes(session, group.path)
        elif is_a(session.hierarchy, group, "TimeIntervals"):
            yield from _intervals(session, group.path)


def _spikes(session: Checked, path: str) -> Iterator[Finding]:
    read = _columns(session, f"{path}/spike_times", f"{path}/spike_times_index")
    if read is None:
        return
    times, ends = read
    column = f"{path}/spike_times"
    finite = times[np.isfinite(times)]
    if len(finite):
        warn_of_epoch(float(finite.min()), repr(column), column)
    unsorted, first = _unsorted_units(times, ends)
    if unsorted:
        found = f"Within {unsorted:,} of {len(ends):,} units, the first in row {first:,}."
        yield session.finding("unsorted-times", column, found)
    yield from _in_samples(session, column, finite)


def _unsorted_units(times: NDArray[Any], ends: NDArray[Any]) -> tuple[int, int]:
    """Return in how many units times go back, and the row of the first of them."""
    ends = ends.astype(np.int64)
    # Of indexes that do not fit, there is another finding.
    if not len(ends) or ends[0] < 0 or (ends[1:] < ends[:-1]).any() or ends[-1] > len(times):
        return 0, 0
    # A step is that to the spike after it: those from one unit to the next say nothing.
    back = np.flatnonzero(times[1 : ends[-1]] < times[: max(ends[-1] - 1, 0)]) + 1
    rows = np.unique(np.searchsorted(ends, back[~np.isin(back, ends)], side="right"))
    return len(rows), int(rows[0]) if len(rows) else 0


def _in_samples(session: Checked, column: str, times: NDArray[Any]) -> Iterator[Finding]:
    if len(times) < FEWEST or not (times == np.floor(times)).all():
        return
    last = float(times.max())
    known = _last_time(session)
    # Seconds since 1970 have a finding of their own.
    if last < 5e8 and last > (LONGEST if known is None else MARGIN * max(known, 1.0)):
        beside = "" if known is None else f", and the series of the session end at {known:,.6g} s"
        yield session.finding(
            "times-in-samples", column, f"All are whole numbers, up to {last:,.12g}{beside}."
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
    read = _columns(session, f"{path}/start_time", f"{path}/stop_time")
    if read is None or read[0].shape != read[1].shape:
        return
    start, stop = read
    before = np.flatnonzero(stop < start)
    if len(before):
        row = int(before[0])
        yield session.finding(
            "stop-before-start",
            f"{path}/stop_time",
            f"{len(before):,} of {len(start):,}, the first in row {row:,}: from {start[row]:.9g} to "
            f"{stop[row]:.9g} s.",
        )


def _columns(session: Checked, *paths: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the values of two columns of numbers; None where they are not there, or too large."""
    chosen: list[Selection] = []
    for path in paths:
        node = session.nodes.get(path)
        if not isinstance(node, ArrayNode) or node.ndim != 1 or not is_numeric(node.dtype):
            return None
        if not node.size or not session.may_read_whole(node):
            return None
        chosen.append((node, ()))
    first, second = session.read(chosen)
    return None if first is None or second is None else (first, second)
