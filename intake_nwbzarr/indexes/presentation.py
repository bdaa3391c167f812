"""How a time index is shown: what is known of it without reading timestamps."""

from __future__ import annotations

from html import escape

from intake_nwbzarr.indexes.in_memory import is_in_memory
from intake_nwbzarr.indexes.regular_timestamps import RegularTimestamps
from intake_nwbzarr.indexes.stored import StoredTimestamps
from intake_nwbzarr.indexes.timestamps import TimestampView


def kind(view: TimestampView) -> str:
    """Name the constructor that makes such an index."""
    return "RegularTimeIndex" if isinstance(view.timestamps, RegularTimestamps) else "IrregularTimeIndex"


def in_brief(view: TimestampView) -> str:
    """Describe a view in few words, for a line of xarray's repr."""
    if isinstance(view.timestamps, RegularTimestamps):
        step = "" if view.samples.step == 1 else f", step {view.samples.step}"
        return f"{kind(view)} ({view.timestamps.rate:g} Hz{step})"
    return f"{kind(view)} ({'in memory' if is_in_memory(view) else 'stored'})"


def in_full(view: TimestampView, dim: str) -> str:
    """Describe a view in one line."""
    known = [f"size={len(view)}", f"dim={dim!r}"]
    if isinstance(view.timestamps, RegularTimestamps):
        stride = [] if view.samples.step == 1 else [f"stride={view.samples.step}"]
        first = [f"first={view.samples.start}"] if view.samples.start else []
        times = view.timestamps
        known = [f"starting_time={times.starting_time!r}", f"rate={times.rate!r}", *first, *stride, *known]
    elif isinstance(view.timestamps, StoredTimestamps):
        known.append(f"source={view.timestamps.source!r}")
    return f"{kind(view)}({', '.join(known)})"


def as_html(view: TimestampView, dim: str) -> str:
    """Describe a view as a small table, for notebooks."""
    rows = {"samples": f"{len(view):,} along {dim}"}
    if isinstance(view.timestamps, RegularTimestamps):
        rows["rate"] = f"{view.timestamps.rate!r} Hz"
    if view.samples.step != 1:
        rows["stride"] = f"every {view.samples.step} samples of the recording"
    if isinstance(view.timestamps, StoredTimestamps):
        rows["timestamps"] = f"of {view.timestamps.source}, read when they are needed"
    elif len(view):
        first, last = (float(time) for time in view.at([0, -1]))
        rows["span"] = f"{first!r} s to {last!r} s"
    cells = "".join(f"<tr><td>{escape(row)}</td><td>{escape(value)}</td></tr>" for row, value in rows.items())
    return f"<table><tbody><tr><th colspan='2'>{kind(view)}</th></tr>{cells}</tbody></table>"
