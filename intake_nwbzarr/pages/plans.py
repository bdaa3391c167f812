"""What pictures are planned from: the session of a page, plans of pictures, and what was read for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import INTERVAL, ShownObject, plain_columns, shown_objects
from intake_nwbzarr.accessor.plot.axes import with_units
from intake_nwbzarr.accessor.times import SessionTime, session_times
from intake_nwbzarr.indexes import LazyTimeIndex
from intake_nwbzarr.pages.budget import EVERYTHING, Budget, Chosen
from intake_nwbzarr.pages.figures import Draw
from intake_nwbzarr.pages.picture import parent
from intake_nwbzarr.untrusted_input import printable

type PictureKind = Literal[
    "timeline", "probes", "raster", "traces", "path", "pose", "sweeps", "rois", "images", "movie", "waveforms"
]


@dataclass(frozen=True)
class Drawing:
    """What was read for a picture, and how it is drawn."""

    draw: Draw
    height: float
    # What is to be seen, with the window and the channels that were read.
    caption: str
    # Objects of the plan that are not in the picture after all, by path, and why.
    without: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """A picture that a session has something for."""

    kind: PictureKind
    title: str
    # Of the neurodata objects that it shows.
    paths: tuple[str, ...]
    # Reads what it shows, within the budget.
    read: Callable[[], Drawing]


@dataclass(frozen=True)
class PageSession:
    """A session opened for its page."""

    # The whole session, flat; and the same, or some objects of each kind if they are too many to have times.
    dataset: xr.Dataset
    timed: xr.Dataset
    budget: Budget

    @cached_property
    def shown(self) -> list[ShownObject]:
        """Return the neurodata objects."""
        return shown_objects(self.dataset)

    @cached_property
    def series(self) -> list[ShownObject]:
        """Return the series with numbers over time, or of very many those that have times here."""
        known = self.shown if self.timed is self.dataset else shown_objects(self.timed)
        return [each for each in known if is_numeric(self.timed, each) and self.time_of(each) is not None]

    @cached_property
    def numbers(self) -> Counter[str]:
        """Return how many series with numbers each group has."""
        return Counter(parent(each.path) for each in self.shown if is_numeric(self.dataset, each))

    @cached_property
    def intervals(self) -> list[ShownObject]:
        """Return the tables of intervals, those of trials first."""
        found = [
            each
            for each in self.shown
            if each.kind == "table"
            and each.rows is not None
            and self.dataset.sizes[each.rows]
            and set(INTERVAL) <= plain_columns(self.dataset, each).keys()
        ]
        return sorted(found, key=lambda each: (each.name != "trials", each.name != "epochs"))

    @cached_property
    def _times(self) -> dict[str, SessionTime]:
        return {time.dim: time for time in session_times(self.timed)}

    def time_of(self, series: ShownObject) -> SessionTime | None:
        """Return the time along the first dimension that has one."""
        dims = () if series.main is None else self.timed.variables[series.main].dims
        return next((self._times[str(dim)] for dim in dims if str(dim) in self._times), None)

    @cached_property
    def first_event(self) -> float | None:
        """Return when the first trial starts, or the first interval of another table; None without one."""
        for table in self.intervals:
            name = plain_columns(self.dataset, table)["start_time"]
            starts = self.column(name)
            if starts is None:
                continue
            known = starts[np.isfinite(starts)]
            if known.size:
                return float(known.min())
        return None

    def column(self, name: str) -> NDArray[np.float64] | None:
        """Return a column of times, read once; None where that takes more than a picture may."""
        if name not in self._columns:
            variable = self.dataset.variables[name]
            cheap = self.budget.cost(variable).is_cheap
            self._columns[name] = np.asarray(variable.to_numpy(), np.float64) if cheap else None
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, NDArray[np.float64] | None]:
        return {}

    def window(self, series: ShownObject, samples: int, chosen: Mapping[str, Chosen] = EVERYTHING) -> slice:
        """Return which samples of a series a picture shows: at the first trial, as many as may be read."""
        assert series.main is not None  # noqa: S101 - for the type checker
        time = self.time_of(series)
        assert time is not None  # noqa: S101
        variable = self.timed.variables[series.main]
        start = self._first_sample(time, samples)
        length = self.budget.longest(variable, time.dim, start, samples, chosen)
        return slice(start, start + length)

    def _first_sample(self, time: SessionTime, samples: int) -> int:
        """Return the sample shortly before the first trial, in regular series; 0 in others."""
        index, event = time.index, self.first_event
        if event is None or not isinstance(index, LazyTimeIndex) or index.as_regular is None:
            return 0
        first, last = index.view.at([0, -1])
        size = index.size
        if last <= first or not first <= event <= last or size <= samples:
            return 0
        position = round((event - first) / (last - first) * (size - 1))
        return int(min(max(position - samples // 10, 0), size - samples))

    def unit_label(self, name: str, what: str) -> str:
        """Return a label with the units of a variable."""
        return with_units(what, self.timed.variables[name])


def is_numeric(dataset: xr.Dataset, shown: ShownObject) -> bool:
    """Return whether an object is a series that has numbers."""
    if shown.kind != "series" or shown.main is None:
        return False
    variable = dataset.variables[shown.main]
    return variable.dtype.kind in "biuf" and variable.size > 0


def container_name(path: str) -> str:
    """Return what people call the group that an object is in: its last two parts."""
    return "/".join(parent(path).split("/")[-2:]) or "/"


def short(text: str, most: int = 28) -> str:
    """Return a name as a figure shows it, cut in the middle if it is long."""
    plain = printable(str(text)[:200], keep="")
    half = most // 2
    return plain if len(plain) <= most else f"{plain[: half - 1]}…{plain[-half:]}"


def seconds(first: float, last: float) -> str:
    """Return a window of time as text."""
    digits = 3 if last - first < 10 else 1 if last - first < 1000 else 0
    return f"{first:,.{digits}f} to {last:,.{digits}f} s"
