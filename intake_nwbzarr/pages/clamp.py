"""The picture of patch-clamp sweeps: responses over one another, and the stimuli below."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import ShownObject
from intake_nwbzarr.accessor.plot.axes import ticks_with_units, without_frame
from intake_nwbzarr.errors import NodeNotFoundError, NWBZarrError
from intake_nwbzarr.mapping.sweeps import open_sweeps
from intake_nwbzarr.pages.budget import PICTURE_BYTES, Cost, evenly
from intake_nwbzarr.pages.figures import DATA
from intake_nwbzarr.pages.lines import line
from intake_nwbzarr.pages.plans import Drawing, PageSession, Plan, short
from intake_nwbzarr.transport.request_log import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_SWEEPS = 12
_SAMPLES = 100_000
# Series up to which the tables of recordings are read, with the start of each.
_MOST_SERIES = 400


def plan_sweeps(session: PageSession) -> Iterator[Plan]:
    """Plan a picture of the sweeps, if there are patch-clamp series."""
    clamped = tuple(
        each.path for each in session.shown if each.kind == "series" and each.is_a("PatchClampSeries")
    )
    voltage = {each.path for each in session.shown if _is_voltage_clamp(each)}
    sides = {
        "Current-clamp sweeps": tuple(path for path in clamped if path not in voltage),
        "Voltage-clamp sweeps": tuple(path for path in clamped if path in voltage),
    }
    if all(sides.values()):
        for title, paths in sides.items():
            yield Plan("sweeps", title, paths, partial(_sweeps, session, frozenset(paths)))
    elif clamped:
        yield Plan("sweeps", "Patch-clamp sweeps", clamped, partial(_sweeps, session, frozenset(clamped)))


def _is_voltage_clamp(series: ShownObject) -> bool:
    return series.is_a("VoltageClampSeries") or series.is_a("VoltageClampStimulusSeries")


def _is_of(sweeps: xr.Dataset, paths: frozenset[str]) -> bool:
    """Return whether recordings are of some series: those of one group are of one kind."""
    names = [name for name in ("response_path", "stimulus_path") if name in sweeps.variables]
    return any(path in paths for name in names for path in sweeps[name].to_numpy().ravel().tolist())


def _sweeps(session: PageSession, paths: frozenset[str]) -> Drawing:
    if sum(each.is_a("PatchClampSeries") for each in session.shown) > _MOST_SERIES:
        # The tables of recordings need the start of every series.
        return _single_series(session, paths)
    try:
        opened = open_sweeps(session.budget.hierarchy)
    except NodeNotFoundError:
        return _single_series(session, paths)
    groups = [
        (name, each) for name, each in opened.items() if each.sizes.get("recording") and _is_of(each, paths)
    ]
    if not groups:
        return _single_series(session, paths)
    _, sweeps = max(groups, key=lambda each: (each[1].sizes["recording"], each[0]))
    total = sweeps.sizes["recording"]
    rows = evenly(total, _MOST_SWEEPS)
    while len(rows) > 1 and _cost(session, sweeps, rows).bytes > PICTURE_BYTES:
        rows = rows[::2]
    session.budget.check(_cost(session, sweeps, rows), "a sweep")
    shown = [each for each in ("response", "stimulus") if each in sweeps.data_vars]
    part = sweeps[shown].isel(recording=rows)
    if "time" in part.dims:
        part = part.isel(time=slice(0, _SAMPLES))
    if "stimulus_time" in part.dims:
        part = part.isel(stimulus_time=slice(0, _SAMPLES))
    values: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for each in shown:
        read = part[each].variable.transpose("recording", ...).to_numpy()
        dim = next((str(dim) for dim in part[each].dims if dim != "recording"), "time")
        times = part[dim].to_numpy() if dim in part.coords else np.arange(read.shape[1], dtype=np.float64)
        if np.isfinite(read).any():
            values[each] = np.broadcast_to(times, read.shape), read
    if not values:
        raise ValueError("the sweeps hold no numbers")
    units = {each: str(sweeps.variables[each].attrs.get("units", "")) for each in values}
    of_all = (
        counted(total, "recording") if len(rows) == total else f"{len(rows)} of {counted(total, 'recording')}"
    )
    more = f"; {counted(len(groups) - 1, 'other group')} of another rate or length" if len(groups) > 1 else ""
    return _pictured(values, units, f"{of_all}{_length(next(iter(values.values())))}{more}")


def _single_series(session: PageSession, paths: frozenset[str]) -> Drawing:
    """Read single series, where no table of recordings is used: what was recorded, and what was applied."""
    sides: dict[str, list[ShownObject]] = {"response": [], "stimulus": []}
    for each in session.series:
        if each.path in paths:
            sides["stimulus" if each.path.startswith("stimulus/") else "response"].append(each)
    values: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    units: dict[str, str] = {}
    for side, members in sides.items():
        alike = [each for each in members if _units(session, each) == _units(session, members[0])]
        if not alike:
            continue
        chosen = [alike[number] for number in evenly(len(alike), _MOST_SWEEPS // 2)]
        lines = [_samples(session, each) for each in chosen]
        longest = max(len(times) for times, _ in lines)
        padded = np.full((2, len(lines), longest), np.nan)
        for number, (times, samples) in enumerate(lines):
            padded[0, number, : len(times)], padded[1, number, : len(times)] = times, samples
        values[side], units[side] = (padded[0], padded[1]), _units(session, chosen[0])
    if not values:
        raise ValueError("no patch-clamp series can be read")
    words = {"response": "responses", "stimulus": "stimuli"}
    shown = (
        f"{len(sweeps)} of {len(sides[side]):,} {words[side]}{_length(values[side])}"
        for side, (_, sweeps) in values.items()
    )
    return _pictured(values, units, "; ".join(shown))


def _units(session: PageSession, series: ShownObject) -> str:
    return str(session.timed.variables[str(series.main)].attrs.get("units", ""))


def _samples(session: PageSession, series: ShownObject) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return times from the start of a series, and its values."""
    time = session.time_of(series)
    assert time is not None  # noqa: S101 - of `series`, all have one
    variable = session.timed.variables[str(series.main)]
    part = {time.dim: session.window(series, _SAMPLES)}
    session.budget.check(session.budget.cost(variable, part), repr(series.name))
    times = session.timed[time.name].isel(part).to_numpy()
    values = variable.isel(part).to_numpy().astype(np.float64).reshape(len(times), -1)[:, 0]
    return times - times[:1], values


def _pictured(
    values: dict[str, tuple[NDArray[Any], NDArray[Any]]], units: dict[str, str], caption: str
) -> Drawing:
    def draw(figure: Figure) -> None:
        """Draw the responses above and the stimuli below, the later the darker."""
        heights = [2 if each == "response" else 1 for each in values]
        panels: list[Axes] = list(
            np.atleast_1d(
                figure.subplots(len(values), 1, sharex=True, gridspec_kw={"height_ratios": heights})
            )
        )
        for axes, (each, (times, sweep)) in zip(panels, values.items(), strict=True):
            _draw(axes, times, sweep)
            has_units = ticks_with_units(axes.yaxis, units[each])
            axes.set_ylabel(each if has_units or not units[each] else f"{each}\n[{short(units[each])}]")
        panels[-1].set_xlabel("time in the sweep [s]")

    return Drawing(draw, 2.2 + (1.0 if len(values) > 1 else 0), caption)


def _length(sweeps: tuple[NDArray[Any], NDArray[Any]]) -> str:
    """Return how long the sweeps are, as the caption says it; shorter ones end in NaN."""
    known = [
        (along[held := np.flatnonzero(np.isfinite(along) & np.isfinite(values))], len(held))
        for along, values in zip(*sweeps, strict=True)
    ]
    spans = [float(along[-1] - along[0]) for along, _ in known if len(along) > 1]
    samples = [number for _, number in known if number > 1]
    if not spans:
        return ""
    if min(samples) < max(samples):
        return f" of {min(spans):.4g} to {max(spans):.4g} s, {min(samples):,} to {max(samples):,} samples"
    return f" of {spans[0]:.4g} s, {samples[0]:,} samples each"


def _draw(axes: Axes, times: NDArray[Any], sweeps: NDArray[Any]) -> None:
    for number, (along, values) in enumerate(zip(times, sweeps, strict=True)):
        if np.isfinite(values).any():
            line(axes, along, values)
            axes.lines[-1].set_alpha(0.35 + 0.65 * (number + 1) / len(sweeps))
            axes.lines[-1].set_color(DATA)
    axes.margins(x=0)
    without_frame(axes)


def _cost(session: PageSession, sweeps: xr.Dataset, rows: NDArray[np.intp]) -> Cost:
    """Return what the samples of some recordings take, by the series that they are in."""
    total = Cost(0, 0)
    for each in ("response", "stimulus"):
        names = [f"{each}_{part}" for part in ("path", "sample_start", "sample_count")]
        if not set(names) <= set(sweeps.variables):
            continue
        paths, starts, counts = (sweeps[name].to_numpy()[rows] for name in names)
        for path, start, count in zip(paths, starts, counts, strict=True):
            if isinstance(path, str) and path and np.isfinite(start) and count > 0:
                try:
                    total += session.budget.cost_at(f"{path}/data", slice(int(start), int(start + count)))
                except NWBZarrError:
                    continue
    return total
