"""The picture of a session's time line: trials, epochs, events, and when each kind of series was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import INTERVAL, ShownObject, plain_columns
from intake_nwbzarr.indexes import LazyTimeIndex
from intake_nwbzarr.pages.figures import COLORS, DATA
from intake_nwbzarr.pages.picture import own_name, parent
from intake_nwbzarr.pages.plans import Drawing, PageSession, Plan, is_numeric, short
from intake_nwbzarr.transport.request_log import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows of the picture, and bars or marks in one of them.
_MOST_ROWS = 16
_MOST_BARS = 2000

# Irregular series whose first and last timestamps are read.
_MOST_READ = 16

# Groups whose names say less than the types of what is in them.
_TOP = frozenset({"", "acquisition", "presentation", "stimulus", "templates", "analysis", "scratch"})

type Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Row:
    """A row of the time line: bars from start to stop, or marks where both are the same."""

    label: str
    what: str
    starts: Floats
    stops: Floats
    color: str = DATA


def plan_time_line(session: PageSession) -> Iterator[Plan]:
    """Plan the time line of a session with intervals, events or series."""
    tables = [*session.intervals, *_events(session), *_interval_series(session)]
    if tables or session.series:
        paths = tuple(each.path for each in tables)
        yield Plan("timeline", "Time line", paths, partial(_read, session))


def _events(session: PageSession) -> list[ShownObject]:
    """Return tables of events, and series of texts over time."""
    return [
        each
        for each in session.shown
        if (each.kind == "table" and "timestamp" in plain_columns(session.dataset, each))
        or (each.kind == "series" and each.is_a("AnnotationSeries"))
    ]


def _interval_series(session: PageSession) -> list[ShownObject]:
    """Return series whose values say that something begins or ends."""
    return [each for each in session.series if each.is_a("IntervalSeries")]


def _read(session: PageSession) -> Drawing:
    rows = [*_interval_rows(session), *_interval_series_rows(session), *_event_rows(session)]
    series = list(_series_rows(session))
    shown = [*rows, *series][:_MOST_ROWS]
    shown = [row for row in shown if row.starts.size]
    if not shown:
        raise ValueError("no time is known without reading all timestamps")
    left = len(rows) + len(series) - len(shown)
    caption = [row.what for row in shown[:6] if row.what]
    if series:
        caption.append("bars of series go from the first to the last sample, with any gaps between")
    if left > 0:
        caption.append(f"{counted(left, 'more row')} not shown")
    return Drawing(lambda figure: _draw(figure, shown), 0.55 + 0.24 * len(shown), "; ".join(caption))


def _interval_rows(session: PageSession) -> Iterator[_Row]:
    for table in session.intervals[:_MOST_ROWS]:
        columns = plain_columns(session.dataset, table)
        starts, stops = (session.column(columns[name]) for name in INTERVAL)
        if starts is None or stops is None:
            continue
        yield _row(
            table.name, f"{counted(len(starts), 'interval')} in {table.name}", starts, stops, COLORS[1]
        )


def _interval_series_rows(session: PageSession) -> Iterator[_Row]:
    """Yield bars from each beginning to the next end of the same kind, in series of few of them."""
    for each in _interval_series(session)[:_MOST_ROWS]:
        time, variable = session.time_of(each), session.timed.variables[str(each.main)]
        is_cheap = session.budget.cost(variable).is_cheap and variable.size <= _MOST_BARS * 10
        if time is None or variable.ndim != 1 or not is_cheap:
            continue
        times = session.timed[time.name].to_numpy().astype(np.float64)
        values = variable.to_numpy().astype(np.float64)
        starts, stops = [], []
        for kind in np.unique(np.abs(values[np.isfinite(values) & (values != 0)])):
            begins, ends = times[values == kind], np.append(times[values == -kind], np.inf)
            starts.append(begins)
            stops.append(ends[np.searchsorted(ends, begins, side="right").clip(max=len(ends) - 1)])
        if not starts:
            continue
        begins, ends = np.concatenate(starts), np.concatenate(stops)
        # What has not ended goes on until the last time.
        ends = np.where(np.isfinite(ends), ends, times[-1])
        what = f"{counted(len(begins), 'interval')} in {each.name}"
        yield _row(own_name(each.path), what, begins, ends, COLORS[2])


def _event_rows(session: PageSession) -> Iterator[_Row]:
    for found in _events(session)[:_MOST_ROWS]:
        if found.kind == "table":
            name = plain_columns(session.dataset, found)["timestamp"]
            found_times = session.column(name)
            if found_times is None:
                continue
            times = found_times
        else:
            time = session.time_of(found)
            if time is None or session.timed.sizes[time.dim] > _MOST_BARS * 10:
                continue
            times = session.timed[time.name].to_numpy().astype(np.float64)
        yield _row(found.name, f"{counted(len(times), 'event')} in {found.name}", times, times, COLORS[3])


def _row(label: str, what: str, starts: Floats, stops: Floats, color: str = DATA) -> _Row:
    known = np.isfinite(starts)
    starts, stops = starts[known], stops[known]
    stops = np.where(np.isfinite(stops) & (stops >= starts), stops, starts)
    if len(starts) > _MOST_BARS:
        kept = np.unique(np.linspace(0, len(starts) - 1, _MOST_BARS).astype(int))
        starts, stops = starts[kept], stops[kept]
    return _Row(short(label, 26), what, starts, stops, color)


def _series_rows(session: PageSession) -> Iterator[_Row]:
    """Yield a row for each kind of series in each group, with a bar for each series."""
    kinds: dict[tuple[str, str | None], list[ShownObject]] = {}
    for each in session.shown:
        if not is_numeric(session.dataset, each) or each.is_a("IntervalSeries"):
            continue
        kinds.setdefault((parent(each.path), each.neurodata_type), []).append(each)
    reads, used, labels = 0, set[str](), set[str]()
    for (_, kind), members in kinds.items():
        spans: dict[tuple[float, float], None] = {}
        for each in members:
            span = _span_of_attributes(session, each)
            if span is not None:
                spans[span] = None
                continue
            time = session.time_of(each) if session.timed is session.dataset else None
            if time is None or not isinstance(time.index, LazyTimeIndex) or not time.index.size:
                continue
            if not time.index.view.timestamps.computed:
                variable = session.timed.variables[time.name]
                ends = np.array([0, time.index.size - 1])
                if reads >= _MOST_READ or not session.budget.cost(variable, {time.dim: ends}).is_cheap:
                    continue
                reads += 1
            first, last = time.index.view.at([0, -1])
            spans[float(first), float(last)] = None
        group = own_name(parent(members[0].path))
        label = f"{kind if group in _TOP or group in used else group} ({len(members):,})"
        if len(members) == 1:
            label = own_name(members[0].path)
            label = group if label in labels and group not in _TOP else label
            labels.add(label)
        used.add(group)
        bounds = np.array([*spans], np.float64).reshape(-1, 2)
        what = "" if len(members) == 1 else f"{len(members):,} {kind} in {parent(members[0].path)}"
        yield _row(label, what, bounds[:, 0], bounds[:, 1])


def _span_of_attributes(session: PageSession, series: ShownObject) -> tuple[float, float] | None:
    """Return when a series was recorded that has no time coordinate, as among very many others."""
    variable = session.dataset.variables[str(series.main)]
    start, rate = (variable.attrs.get(name) for name in ("starting_time", "rate"))
    if not isinstance(start, float | int) or not isinstance(rate, float | int) or not rate > 0:
        return None
    return float(start), float(start) + (variable.shape[0] - 1) / float(rate)


def _draw(figure: Figure, rows: list[_Row]) -> None:
    axes = figure.subplots()
    first = min(float(row.starts.min()) for row in rows)
    last = max(float(row.stops.max()) for row in rows)
    span = (last - first) or 1.0
    for number, row in enumerate(rows):
        widths = row.stops - row.starts
        marks = widths <= 0
        color = row.color
        if not marks.all():
            bars = list(zip(row.starts[~marks], widths[~marks], strict=True))
            # A line around bars keeps short ones visible.
            drawn = axes.broken_barh(
                bars, (number - 0.32, 0.64), facecolor=color, edgecolor=color, linewidth=0.7
            )
            drawn.set_alpha(0.8 if len(bars) > 1 else 1.0)
            drawn.set_rasterized(len(bars) > 300)
        if marks.any():
            lines = axes.vlines(row.starts[marks], number - 0.36, number + 0.36, color=color, linewidth=0.8)
            lines.set_rasterized(int(marks.sum()) > 300)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(first - span * 0.01, last + span * 0.01)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("time [s]")
