"""Pictures of extracellular recordings: probes with their channels, and a raster of the units."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import ShownObject, plain_columns, row_ids
from intake_nwbzarr.accessor.plot.axes import ACCENT, label_rows
from intake_nwbzarr.accessor.ragged import ragged
from intake_nwbzarr.accessor.spikes import spikes_of
from intake_nwbzarr.pages.budget import PICTURE_BYTES, PICTURE_CHUNKS, Cost, evenly
from intake_nwbzarr.pages.figures import COLORS, DATA
from intake_nwbzarr.pages.picture import NothingToDrawError, own_name
from intake_nwbzarr.pages.plans import Drawing, PageSession, Plan, seconds, short
from intake_nwbzarr.transport.request_log import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Columns of positions: a pair of axes is shown in which channels differ.
_POSITIONS = (("rel_x", "rel_y", "rel_z"), ("x", "y", "z"))

_MOST_CHANNELS = 20_000
_MOST_NAMED = 40
_MOST_GROUPS = len(COLORS)
_OTHERS = "#8a8f98"

_MOST_UNITS = 80
_MOST_SPIKES = 20_000
_SPIKES_OF_UNIT = 2_000
# Spikes of a unit, on average, which can be told apart.
_MOST_IN_ROW = 150
# Spikes that are drawn however few units there are.
_FEW_SPIKES = 1_200
# Starts of trials that are marked; more would hide the spikes.
_MOST_STARTS = 40
# Spikes above which they are drawn as pixels, to keep the page small.
_MANY_SPIKES = 6_000


def plan_probes(session: PageSession) -> Iterator[Plan]:
    """Plan a picture of the electrodes."""
    for table in session.shown:
        is_electrodes = table.kind == "table" and table.path.endswith("extracellular_ephys/electrodes")
        if is_electrodes and table.rows is not None and session.dataset.sizes[table.rows]:
            yield Plan("probes", "Probes and channels", (table.path,), partial(_probes, session, table))


def _probes(session: PageSession, table: ShownObject) -> Drawing:
    dataset, columns = session.dataset, plain_columns(session.dataset, table)
    number = dataset.sizes[table.rows]
    rows = evenly(number, _MOST_CHANNELS)
    wanted = [name for group in _POSITIONS for name in group if name in columns]
    wanted += [name for name in ("group_name", "group", "device", "location") if name in columns]
    names = {name: columns[name] for name in wanted}
    if "device" not in names:
        found = [each for each in table.variables if each.endswith("electrodes_device") or each == "device"]
        names |= dict(zip(["device"], found, strict=False))
    for name in names.values():
        session.budget.check(session.budget.cost(dataset.variables[name]), f"the column {name!r}")
    loaded = session.budget.load(dataset[list(names.values())].isel({table.rows: rows}).reset_coords())
    values = {name: loaded[each].to_numpy() for name, each in names.items()}
    groups = values.get("group_name", values.get("group", np.full(len(rows), "channels")))
    labels = [own_name(str(each)) for each in groups]
    kinds = list(dict.fromkeys(labels))
    pair, units = _chosen_axes(values)
    if pair is None:
        # Without positions: a column for each group, from its first channel down.
        order = {kind: number for number, kind in enumerate(kinds)}
        seen: dict[str, int] = {}
        x = np.array([order[each] for each in labels], np.float64)
        y = np.array([seen.setdefault(each, 0) or 0 for each in labels], np.float64)
        for position, each in enumerate(labels):
            y[position] = seen[each]
            seen[each] += 1
        what = ("group of channels", "channel of the group")
        note = "no positions are stored: channels are in the order of the table"
    else:
        x, y = (np.asarray(values[name], np.float64) for name in pair)
        what = (f"{pair[0]} [{units}]", f"{pair[1]} [{units}]")
        note = ""
        if _coincide(x, y, labels):
            step = 1.5 * float(np.ptp(x)) or max(float(np.ptp(y)) / 10, 1.0)
            x = x + step * np.array([kinds.index(each) for each in labels])
            note = "groups are beside one another, as their positions coincide"
    ids = row_ids(dataset, table)[rows]
    described = [_group_text(kind, labels, values) for kind in kinds[:_MOST_GROUPS]]
    more = f"; {counted(len(kinds) - _MOST_GROUPS, 'more group')}" if len(kinds) > _MOST_GROUPS else ""
    caption = "; ".join(described) + more + (f" ({note})" if note else "")
    return Drawing(
        lambda figure: _draw_probes(figure, x, y, labels, kinds, ids, what, pair is None), 3.1, caption
    )


def _coincide(x: NDArray[np.float64], y: NDArray[np.float64], labels: list[str]) -> bool:
    """Return whether channels of different groups have the same position."""
    first: dict[tuple[float, float], str] = {}
    places = zip(x.tolist(), y.tolist(), strict=True)
    return any(first.setdefault(place, each) != each for place, each in zip(places, labels, strict=True))


def _chosen_axes(values: dict[str, NDArray[Any]]) -> tuple[tuple[str, str] | None, str]:
    """Return the two columns of positions to draw, and their units; None where channels do not differ."""
    for names in _POSITIONS:
        spread = {}
        for name in names:
            if name in values and values[name].dtype.kind in "iuf":
                known = np.asarray(values[name], np.float64)
                known = known[np.isfinite(known)]
                if known.size == len(values[name]) and known.size > 1:
                    spread[name] = float(np.ptp(known))
        varying = [name for name in names if spread.get(name, 0.0) > 0]
        if varying:
            others = [name for name in names if name in spread and name not in varying]
            chosen = (
                sorted([*varying, *others][:2])
                if len(varying) < 3
                else sorted(sorted(varying, key=lambda name: -spread[name])[:2])
            )
            if len(chosen) == 2:
                return (chosen[0], chosen[1]), "µm"
    return None, ""


def _group_text(kind: str, labels: list[str], values: dict[str, NDArray[Any]]) -> str:
    mask = np.array([each == kind for each in labels])
    device = (
        {own_name(str(each)) for each in values.get("device", np.array([]))[mask]}
        if "device" in values
        else set()
    )
    places = {str(each) for each in values["location"][mask]} if "location" in values else set()
    text = f"{kind}: {counted(int(mask.sum()), 'channel')}"
    if device:
        text += f" of {short(', '.join(sorted(device)), 40)}"
    if places - {"", "unknown", "N/A"}:
        text += f" in {short(', '.join(sorted(places)), 60)}"
    return text


def _draw_probes(
    figure: Figure,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    labels: list[str],
    kinds: list[str],
    ids: NDArray[Any],
    what: tuple[str, str],
    schematic: bool,
) -> None:
    axes = figure.subplots()
    own = {kind: number for number, kind in enumerate(kinds[:_MOST_GROUPS])}
    numbers = np.array([own.get(each, _MOST_GROUPS) for each in labels])
    for number in np.unique(numbers):
        mask = numbers == number
        name, color = (kinds[number], COLORS[number]) if number < _MOST_GROUPS else ("others", _OTHERS)
        points = axes.scatter(
            x[mask], y[mask], s=26 if len(x) <= 64 else 8, marker="s",
            color=color, linewidth=0, label=short(name, 20),
        )  # fmt: skip
        points.set_rasterized(len(x) > 1000)
    if len(ids) <= _MOST_NAMED:
        placed: dict[tuple[float, float], list[str]] = {}
        for position, name in enumerate(ids.tolist()):
            placed.setdefault((float(x[position]), float(y[position])), []).append(str(name))
        for (left, top), names in placed.items():
            axes.annotate(
                short(", ".join(names), 14),
                (left, top),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axes.set(xlabel=what[0], ylabel=what[1])
    if schematic:
        axes.set_xticks(range(min(len(kinds), 12)), [short(kind, 10) for kind in kinds[:12]])
        axes.invert_yaxis()
        axes.margins(x=0.3)
    else:
        axes.margins(x=0.25)
        # Channels in a line have no extent across it.
        for values, limits, locate in (
            (x, axes.set_xlim, axes.set_xticks),
            (y, axes.set_ylim, axes.set_yticks),
        ):
            if np.ptp(values) == 0:
                limits(values[0] - 1, values[0] + 1)
                locate(values[:1])
    if len(kinds) > 1 and not schematic:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def plan_raster(session: PageSession) -> Iterator[Plan]:
    """Plan a raster of each table of units with spike times."""
    for table in session.shown:
        has_rows = table.kind == "table" and table.rows is not None and session.dataset.sizes[table.rows] > 0
        if has_rows and spikes_of(session.dataset, table) is not None:
            yield Plan("raster", f"Spikes of {table.name}", (table.path,), partial(_raster, session, table))


def _raster(session: PageSession, table: ShownObject) -> Drawing:
    dataset, budget = session.dataset, session.budget
    column = spikes_of(dataset, table)
    assert column is not None  # noqa: S101 - for the type checker; the plan checked this
    found = ragged(dataset, column.variable)
    number = dataset.sizes[table.rows]
    bounds = session.dataset.variables[column.bounds[0]["count"]]
    budget.check(budget.cost(bounds), f"which spikes are whose of {counted(number, 'unit')}")
    starts, counts = found.bounds()
    values = found.values
    rows, taken, positions, cost = _affordable(session, values, starts, counts)
    budget.check(cost, f"the spike times of {counted(len(rows), 'unit')}")
    read = np.asarray(values.isel({values.dims[0]: positions}).to_numpy(), np.float64)
    trains = [np.sort(each[np.isfinite(each)]) for each in np.split(read, np.cumsum(taken)[:-1])]
    lost = len(read) - sum(map(len, trains))
    if lost and lost == len(read):
        raise NothingToDrawError("none of the spike times read is finite")
    if not any(len(train) for train in trains):
        raise NothingToDrawError("no unit has spikes")
    first = min(float(train[0]) for train in trains if len(train))
    # Before the first of these times, every spike of every unit was read.
    ends = [
        float(t[-1])
        for t, held, had in zip(trains, taken, counts[rows], strict=True)
        if held < had and len(t)
    ]
    last = min(ends) if ends else max(float(train[-1]) for train in trains if len(train))
    trials, trial_starts = _starts(session)
    begin, end = _window(trains, first, last, trial_starts)
    trains = [train[(train >= begin) & (train <= end)] for train in trains]
    ids = row_ids(dataset, table)[rows]
    spikes = sum(map(len, trains))
    shown = (
        counted(number, "unit")
        if len(rows) == number
        else f"{'the first ' if rows[-1] == len(rows) - 1 else ''}{len(rows)} of {number:,} units"
    )
    whole = not ends and end >= last and begin <= first
    every = "all that have finite times" if lost else "all of them"
    caption = f"{shown}, {counted(spikes, 'spike')}, {every if whole else 'from ' + seconds(begin, end)}"
    if lost:
        caption += f"; {counted(lost, 'stored time')} not finite"
    events = trial_starts[(trial_starts >= begin) & (trial_starts <= end)]
    if 0 < len(events) <= _MOST_STARTS:
        caption += f"; lines where {trials} start"
    else:
        events = events[:0]
    return Drawing(
        lambda figure: _draw_raster(figure, trains, ids, table.name, begin, end, events),
        min(0.9 + 0.14 * len(trains), 3.6) if len(trains) > 4 else 1.5,
        caption,
    )


type _Affordable = tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.intp], Cost]


def _affordable(
    session: PageSession, values: xr.Variable, starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> _Affordable:
    """Return units to draw: spread over all if that is cheap, else the first ones, which share chunks."""
    number = len(starts)
    tried = [evenly(number, _MOST_UNITS)]
    tried += [np.arange(min(number, most)) for most in (_MOST_UNITS, 60, 40, 20, 10, 4)]
    for rows in tried:
        taken = np.minimum(counts[rows], _SPIKES_OF_UNIT)
        positions = _positions(starts[rows], taken)
        cost = session.budget.cost(values, {str(values.dims[0]): positions})
        if cost.bytes <= 2 * PICTURE_BYTES and cost.chunks <= PICTURE_CHUNKS:
            break
    return rows, taken, positions, cost


def _starts(session: PageSession) -> tuple[str, NDArray[np.float64]]:
    """Return the name of the first table of intervals, and when these start, ascending."""
    for table in session.intervals[:1]:
        known = session.column(plain_columns(session.dataset, table)["start_time"])
        if known is not None:
            return table.name, np.sort(known[np.isfinite(known)])
    return "", np.array([])


def _positions(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.intp]:
    return np.concatenate(
        [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
        or [np.array([], int)]
    ).astype(np.intp)


def _window(
    trains: list[NDArray[np.float64]], first: float, last: float, starts: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the times to draw: all that were read, or from the first trial on if these are too many."""
    most = min(_MOST_SPIKES, max(_MOST_IN_ROW * len(trains), _FEW_SPIKES))
    spikes = np.sort(np.concatenate(trains))
    spikes = spikes[spikes <= last]
    if len(spikes) <= most:
        return first, last
    # The first trial with spikes before the next one, which may start before the first spike.
    nexts = np.append(starts, np.inf)[1:]
    has_spikes = np.searchsorted(spikes, starts) < np.searchsorted(spikes, nexts)
    trials = starts[has_spikes & (starts <= spikes[-most])]
    begin = first
    if len(trials):
        trial = float(trials[0])
        after = float(spikes[np.searchsorted(spikes, trial) :][most // 10])
        begin = max(min(first, trial), 2 * trial - after)
    return begin, float(spikes[min(int(np.searchsorted(spikes, begin)) + most, len(spikes)) - 1])


def _draw_raster(
    figure: Figure,
    trains: list[NDArray[np.float64]],
    ids: NDArray[Any],
    name: str,
    begin: float,
    end: float,
    events: NDArray[np.float64],
) -> None:
    axes = figure.subplots()
    for event in events:
        axes.axvline(float(event), color=ACCENT, linewidth=0.7, alpha=0.7, zorder=0)
    many = sum(map(len, trains)) > _MANY_SPIKES
    for row, train in enumerate(trains):
        # One line with gaps takes a fifth of the bytes that a line for each spike takes.
        x, y = np.repeat(train, 3), np.tile([row - 0.4, row + 0.4, np.nan], len(train))
        axes.plot(x, y, color=DATA, linewidth=0.5 if many else 0.8, rasterized=many, solid_capstyle="butt")
    axes.set_ylim(len(trains) - 0.5, -0.5)
    span = (end - begin) or 1.0
    axes.set_xlim(begin - span * 0.01, end + span * 0.01)
    axes.spines["left"].set_visible(False)
    axes.set(xlabel="time [s]", ylabel=f"{short(name, 20)} (id)")
    label_rows(axes, range(len(ids)), ids.tolist())
