"""Pictures of series over time: channels stacked, single traces of a group under one another, and paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import ShownObject
from intake_nwbzarr.accessor.plot.axes import ticks_with_units, without_frame
from intake_nwbzarr.indexes import LazyTimeIndex
from intake_nwbzarr.pages.budget import evenly
from intake_nwbzarr.pages.figures import COLORS, recoloured
from intake_nwbzarr.pages.lines import SAMPLES, check_values, draw_series
from intake_nwbzarr.pages.picture import NothingToDrawError, own_name, parent
from intake_nwbzarr.pages.plans import Drawing, PageSession, Plan, container_name, seconds, short
from intake_nwbzarr.transport.request_log import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CHANNELS = 12
MOST_PANELS = 8
MOST_OF_KIND = 3
_MOST_STACKS = 10
_MOST_GROUPS = 6
_MOST_PARTS = 12

# Hz from which samples are those of spikes, and seconds of these.
_FAST = 5_000
_SHORT = 0.25

# Their pictures are others: sweeps, frames of movies, and events.
_OTHERS = (
    "PatchClampSeries",
    "ImageSeries",
    "IndexSeries",
    "IntervalSeries",
    "AnnotationSeries",
    "SpikeEventSeries",
    "EventDetection",
)

_NO_UNITS = frozenset({"", "n/a", "n.a.", "na", "unknown", "no unit", "see 'feature_units'"})

_POSE = "PoseEstimationSeries"


def plan_traces(session: PageSession) -> Iterator[Plan]:
    """Plan pictures of each kind of series: of those with channels one each, of the others one a group."""
    kinds: Counter[tuple[Any, ...]] = Counter()
    single: dict[str, list[ShownObject]] = {}
    stacks = 0
    for each in session.series:
        assert each.main is not None  # noqa: S101 - for the type checker; of `series`, all have one
        variable = session.timed.variables[each.main]
        if any(each.is_a(kind) for kind in _OTHERS) or _is_path(session, each) or variable.ndim > 2:
            continue
        kind = each.neurodata_type, str(variable.attrs.get("units")), variable.ndim, parent(each.path)
        kinds[kind] += 1
        if variable.ndim == 1 or variable.size == session.timed.sizes[_time_dim(session, each)]:
            single.setdefault(parent(each.path), []).append(each)
        elif kinds[kind] <= MOST_OF_KIND and stacks < _MOST_STACKS:
            stacks += 1
            yield Plan("traces", each.name, (each.path,), partial(_stack, session, each))
    for group, members in _groups_of(session, single):
        chosen = _panels_of(session, members)
        title = own_name(chosen[0].path) if len(members) == 1 else "/".join(group.split("/")[-2:]) or "/"
        # Of very many series, those with times are a few.
        total = len(members) if session.timed is session.dataset else session.numbers[group]
        paths = tuple(each.path for each in chosen)
        yield Plan("traces", title, paths, partial(_panels, session, group, chosen, total))


def _groups_of(
    session: PageSession, single: dict[str, list[ShownObject]]
) -> list[tuple[str, list[ShownObject]]]:
    """Return the groups that are drawn, those first whose types and units no other has.

    Containers of one or two series each are drawn together, by the module that they are in.
    """
    groups: dict[str, list[ShownObject]] = {}
    for group, members in single.items():
        is_small = group.count("/") >= 2 and len(members) <= 2 and session.timed is session.dataset
        groups.setdefault(parent(group) if is_small else group, []).extend(members)
    chosen: list[str] = []
    seen: set[tuple[Any, ...]] = set()
    while len(chosen) < min(len(groups), _MOST_GROUPS):
        left = [group for group in groups if group not in chosen]
        best = max(left, key=lambda group: len({_kind(session, each) for each in groups[group]} - seen))
        chosen.append(best)
        seen |= {_kind(session, each) for each in groups[best]}
    return [(group, groups[group]) for group in groups if group in chosen]


def _kind(session: PageSession, series: ShownObject) -> tuple[str | None, str]:
    """Return the neurodata type and the unit of a series."""
    return series.neurodata_type, str(session.timed.variables[str(series.main)].attrs.get("units"))


def _time_dim(session: PageSession, series: ShownObject) -> str:
    time = session.time_of(series)
    assert time is not None  # noqa: S101 - of `series`, all have one
    return time.dim


def _panels_of(session: PageSession, members: list[ShownObject]) -> list[ShownObject]:
    """Return the series of a group that are drawn: of each kind and unit first one, then the others."""
    seen: Counter[tuple[Any, ...]] = Counter()
    ranked = []
    for number, each in enumerate(members):
        kind = _kind(session, each)
        ranked.append((seen[kind], number))
        seen[kind] += 1
    # Of thousands that are alike, three tell as much.
    most = MOST_PANELS if len(members) <= 4 * MOST_PANELS else MOST_OF_KIND * len(seen)
    chosen = sorted(number for _, number in sorted(ranked)[: min(most, MOST_PANELS)])
    return [members[number] for number in chosen]


def _stack(session: PageSession, series: ShownObject) -> Drawing:
    dataset, budget, name = session.timed, session.budget, str(series.main)
    variable = dataset.variables[name]
    time = session.time_of(series)
    assert time is not None  # noqa: S101 - of `series`, all have one
    (across,) = (str(dim) for dim in variable.dims if dim != time.dim)
    total = variable.sizes[across]
    # Spread over all channels where that is cheap, else the first ones, which share a chunk.
    rows = evenly(total, _MOST_CHANNELS)
    most = _samples(session, series)
    window = session.window(series, most, {across: rows})
    cost = budget.cost(variable, {time.dim: window, across: rows})
    first = np.arange(min(total, _MOST_CHANNELS))
    if not cost.is_cheap or window.stop - window.start < min(most, dataset.sizes[time.dim]) // 4:
        others = session.window(series, most, {across: first})
        if others.stop - others.start > window.stop - window.start or not cost.is_cheap:
            rows, window = first, others
            cost = budget.cost(variable, {time.dim: window, across: rows})
    budget.check(cost, repr(series.name))
    coordinates = [each for each in (time.name, across) if each in dataset.coords]
    part = dataset[[name, *coordinates]].isel({time.dim: window, across: rows})
    part = part.drop_vars([each for each in part.coords if each not in coordinates])
    loaded = budget.load(part)
    check_values(loaded[name].to_numpy())
    times = loaded[time.name].to_numpy()
    name_of_one = _singular(across)
    channels = counted(total, name_of_one)
    if len(rows) < total:
        channels = f"{'the first ' if rows is first else ''}{len(rows)} of {total:,} {name_of_one}s"
    caption = f"{channels}, {_window_text(session, series, times)}"

    def draw(figure: Figure) -> None:
        """Draw the channels under one another, as `ds.nwb.plot.traces` does."""
        axes = figure.subplots()
        with recoloured(axes):
            loaded.nwb.plot.traces(name, ax=axes)
        axes.set_title("")
        axes.set_ylabel(_singular(across))
        for text in axes.texts:
            number, _, units = text.get_text().partition(" ")
            # Beside a bar there is room for a word.
            text.set_text(number if units.lower() in _NO_UNITS else short(text.get_text(), 16))

    return Drawing(draw, 0.9 + 0.19 * len(rows), caption)


def _samples(session: PageSession, series: ShownObject) -> int:
    """Return how many samples are drawn: of fast recordings those of a quarter of a second."""
    time = session.time_of(series)
    rate = time.index.rate if time is not None and isinstance(time.index, LazyTimeIndex) else None
    return SAMPLES if rate is None or rate < _FAST else max(int(rate * _SHORT), 1)


def _singular(dim: str) -> str:
    last = dim.rpartition("_")[2]
    if last in {"electrodes", "channel"}:
        return "channel"
    if last.isdecimal():
        return "column"
    return (
        last.removesuffix("s")
        if last.islower() and len(last) > 1
        else "ROI"
        if "ask" in dim or "egment" in dim
        else short(dim, 16)
    )


def _window_text(session: PageSession, series: ShownObject, times: NDArray[Any]) -> str:
    """Return which samples were read, as captions say it."""
    if not len(times):
        return "no samples"
    shown = seconds(float(times[0]), float(times[-1]))
    total = session.timed.sizes[_time_dim(session, series)]
    return (
        f"all {counted(total, 'sample')}, {shown}"
        if len(times) == total
        else f"{shown} of {counted(total, 'sample')}"
    )


def _panels(session: PageSession, group: str, chosen: list[ShownObject], total: int) -> Drawing:
    traces = []
    without: dict[str, str] = {}
    for each, (times, values) in _read_singles(session, chosen):
        try:
            if not len(times):
                raise NothingToDrawError("it has no samples")
            check_values(values)
            if not np.isfinite(times).any():
                raise NothingToDrawError("its times are not finite")
        except NothingToDrawError as error:
            without[each.path] = str(error)
        else:
            known = np.isfinite(times)
            traces.append((each, times[known], values[known]))
    if not traces:
        reasons = (f"{own_name(path)}: {reason}" for path, reason in without.items())
        raise NothingToDrawError("; ".join(reasons))
    span = min(float(times[0]) for _, times, _ in traces), max(float(times[-1]) for _, times, _ in traces)
    shown = counted(total, "series")
    if len(traces) < total:
        shown = f"{len(traces)} of {shown}"
    caption = f"{shown} in {group or '/'}, {seconds(*span)}"

    def draw(figure: Figure) -> None:
        """Draw each series under the one before, along one time."""
        panels = np.atleast_1d(figure.subplots(len(traces), 1, sharex=True))
        for axes, (each, times, values) in zip(panels, traces, strict=True):
            has_scale = draw_series(axes, times, values, _is_regular(session, each))
            name = short(own_name(each.path), 20)
            units = session.timed.variables[each.main].attrs.get("units")
            if not has_scale:
                axes.set_yticks([])
            elif not ticks_with_units(axes.yaxis, str(units)):
                name = session.unit_label(str(each.main), name).replace(" [", "\n[")
            axes.set_ylabel(name, rotation=0, ha="right", va="center")
            axes.margins(x=0)
            without_frame(axes, *([] if has_scale else ["left"]))
            if has_scale:
                axes.locator_params(axis="y", nbins=3)
        panels[-1].set_xlabel("time [s]")

    return Drawing(draw, 0.6 + 0.62 * len(traces), caption, without)


def _is_regular(session: PageSession, series: ShownObject) -> bool:
    """Return whether a series has a rate instead of timestamps."""
    time = session.time_of(series)
    return time is not None and isinstance(time.index, LazyTimeIndex) and time.index.rate is not None


def _read_singles(
    session: PageSession, chosen: list[ShownObject]
) -> Iterator[tuple[ShownObject, tuple[NDArray[Any], NDArray[Any]]]]:
    """Read single series, concurrently; those whose chunks are too large for what is left are an error."""
    from concurrent.futures import ThreadPoolExecutor

    windows = {}
    for each in chosen:
        variable = session.timed.variables[each.main]
        window = session.window(each, SAMPLES)
        session.budget.check(
            session.budget.cost(variable, {_time_dim(session, each): window}), repr(each.name)
        )
        windows[each.path] = window

    def read(each: ShownObject) -> tuple[NDArray[Any], NDArray[Any]]:
        """Read the times and values of one."""
        time = session.time_of(each)
        assert time is not None  # noqa: S101 - of `series`, all have one
        part = session.timed[[str(each.main), time.name]].isel({time.dim: windows[each.path]})
        values = part[str(each.main)].variable.to_numpy().reshape(-1)
        return part[time.name].to_numpy(), values.astype(np.float64)

    with ThreadPoolExecutor(max(len(chosen), 1)) as pool:
        yield from zip(chosen, pool.map(read, chosen), strict=True)


def _is_path(session: PageSession, series: ShownObject) -> bool:
    """Return whether a series is of positions in two or three dimensions."""
    variable = session.timed.variables[str(series.main)]
    across = [dim for dim in variable.dims if str(dim) != _time_dim(session, series)]
    is_position = series.is_a("SpatialSeries") or series.neurodata_type == _POSE
    return is_position and len(across) == 1 and variable.sizes[across[0]] in {2, 3}


def plan_paths(session: PageSession) -> Iterator[Plan]:
    """Plan pictures of positions: body parts of one pose together, other paths one each."""
    poses: dict[str, list[ShownObject]] = {}
    paths = []
    for each in session.series:
        if _is_path(session, each):
            if each.neurodata_type == _POSE:
                poses.setdefault(parent(each.path), []).append(each)
            else:
                paths.append(each)
    for group, members in list(poses.items())[:_MOST_GROUPS]:
        chosen = [members[number] for number in evenly(len(members), _MOST_PARTS)]
        title = f"Pose in {container_name(chosen[0].path)}"
        listed = tuple(each.path for each in chosen)
        yield Plan("pose", title, listed, partial(_path_picture, session, chosen, len(members), group))
    for each in paths[:_MOST_GROUPS]:
        yield Plan(
            "path", f"Path of {each.name}", (each.path,), partial(_path_picture, session, [each], 1, "")
        )


def _path_picture(session: PageSession, chosen: list[ShownObject], total: int, group: str) -> Drawing:
    tracks = []
    span: list[NDArray[Any]] = []
    for each in chosen:
        time = session.time_of(each)
        assert time is not None  # noqa: S101 - of `series`, all have one
        variable = session.timed.variables[str(each.main)]
        window = session.window(each, SAMPLES)
        session.budget.check(session.budget.cost(variable, {time.dim: window}), repr(each.name))
        part = session.timed[[str(each.main), time.name]].isel({time.dim: window})
        part = session.budget.load(part.drop_vars([name for name in part.coords if name != time.name]))
        values = part[str(each.main)].transpose(time.dim, ...).to_numpy().astype(np.float64)
        check_values(values)
        tracks.append((own_name(each.path), values))
        span.append(part[time.name].to_numpy())
    names = ("x", "y")
    labels = [session.unit_label(str(chosen[0].main), name) for name in names]
    is_pose = bool(group)
    if is_pose:
        what = (
            counted(total, "body part") if len(tracks) == total else f"{len(tracks)} of {total:,} body parts"
        )
    else:
        what = "seen from above" if tracks[0][1].shape[1] > 2 else "x and y"
    caption = f"{what}, {_window_text(session, chosen[0], span[0])}"

    def draw(figure: Figure) -> None:
        """Draw each path, with a mark where it begins; poses with y downwards, as in their video."""
        axes = figure.subplots()
        for number, (name, values) in enumerate(tracks):
            kept = values[:: max(len(values) // 3000, 1)]
            color = COLORS[number % len(COLORS)]
            style = "-" if number < len(COLORS) else "--"
            axes.plot(kept[:, 0], kept[:, 1], style, color=color, linewidth=0.8, label=short(name, 20))
            known = kept[np.isfinite(kept).all(axis=1)]
            if len(known):
                axes.plot(*known[0, :2], "o", color=color, markersize=4)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.set_aspect("equal", adjustable="datalim")
        if is_pose:
            axes.invert_yaxis()
        if len(tracks) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    return Drawing(draw, 3.4, caption + ("; a dot marks the beginning" if span[0].size else ""))
