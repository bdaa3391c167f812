"""Recordings of older files: series that share a sweep number and an electrode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

import numpy as np
import xarray as xr

from intake_nwbzarr.accessor.sweeps.recordings import ICEPHYS, RECORDING, Recordings
from intake_nwbzarr.accessor.sweeps.series import Extent, reference_to, target_of
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy, Reference, Target
from intake_nwbzarr.hierarchy.nodes import GroupNode
from intake_nwbzarr.mapping.model import Mapper, values_of
from intake_nwbzarr.mapping.schema import is_a
from intake_nwbzarr.mapping.table_layout import stored_at, table_layout

_WHERE_SERIES_ARE = ("acquisition", "stimulus/presentation")

_STIMULI = ("CurrentClampStimulusSeries", "VoltageClampStimulusSeries")


@dataclass(frozen=True)
class _Numbered:
    """A series and the sweep it belongs to."""

    sweep_number: int
    electrode: str
    path: str
    reference: Reference
    is_stimulus: bool


def sweep_table_path(hierarchy: Hierarchy) -> str | None:
    """Where the SweepTable is, which NWB 2.4 deprecated; None where there is none."""
    for name in hierarchy.children(ICEPHYS):
        path = f"{ICEPHYS}/{name}"
        node = hierarchy[path]
        if isinstance(node, GroupNode) and is_a(hierarchy, node, "SweepTable"):
            return path
    return None


def sweep_table_recordings(hierarchy: Hierarchy, path: str) -> Mapper[Recordings]:
    """The recordings of a SweepTable, whose rows are a sweep number and series.

    Returns
    -------
    Recordings
        As `numbered_recordings`.
    """
    columns = {column.name: column for column in table_layout(hierarchy, path).columns}
    series = columns.get("series")
    if series is None or "sweep_number" not in columns:
        return _paired([], hierarchy)
    wanted = [stored_at(each) for each in (columns["sweep_number"].values, series.values, *series.indexes)]
    numbers, references, *ends = yield from values_of(wanted)
    counts = np.diff(ends[0].astype(np.int64), prepend=0) if ends else np.ones(len(numbers), np.int64)
    of_series = np.repeat(numbers, np.maximum(counts, 0))
    found = []
    for number, value in zip(of_series, references, strict=False):
        reference = reference_to(value, hierarchy)
        target = target_of(hierarchy, reference, f"The series {reference.path!r}")
        if target is not None:
            found.append(_numbered(target, int(number), reference))
    return _paired(found, hierarchy)


def numbered_recordings(hierarchy: Hierarchy) -> Recordings:
    """The recordings of a file without tables, by the sweep numbers that its patch-clamp series have.

    Returns
    -------
    Recordings
        Numbered from 0, by sweep number and electrode, which are coordinates; empty where no series in
        ``acquisition`` and ``stimulus/presentation`` has a sweep number.

    Warns
    -----
    MappingWarning
        When some of the series have none: they are left out. When a sweep has several responses or stimuli of
        one electrode: the first of one is shown with the first of the other.
    """
    found, without = [], 0
    for target in _patch_clamp_series(hierarchy):
        number = target.node.attributes.get("sweep_number")
        if isinstance(number, int | float) and number >= 0:
            here = target.hierarchy is hierarchy
            reference = Reference("." if here else str(target.hierarchy.location), target.path)
            found.append(_numbered(target, int(number), reference))
        else:
            without += 1
    if found and without:
        warn_caller(
            f"{without} patch-clamp series in {hierarchy.location} have no sweep_number: they are left out "
            "of the sweeps."
        )
    return _paired(found, hierarchy)


def _patch_clamp_series(hierarchy: Hierarchy) -> Iterator[Target]:
    for group in _WHERE_SERIES_ARE:
        for name in hierarchy.children(group) if group in hierarchy else ():
            try:
                target = Target(hierarchy, f"{group}/{name}")
                if is_a(hierarchy, target.node, "PatchClampSeries"):
                    yield target
            except UNREACHABLE as error:
                warn_caller(f"{group}/{name} in {hierarchy.location} is left out of the sweeps: {error}")


def _numbered(target: Target, number: int, reference: Reference) -> _Numbered:
    link = target.hierarchy.links(target.path).get("electrode")
    return _Numbered(
        sweep_number=number,
        electrode="" if link is None else link.path.rstrip("/").rpartition("/")[2],
        path=target.path,
        reference=reference,
        is_stimulus=any(is_a(target.hierarchy, target.node, kind) for kind in _STIMULI)
        or target.path.startswith("stimulus/"),
    )


def _paired(series: Sequence[_Numbered], hierarchy: Hierarchy) -> Recordings:
    """One recording for each sweep and electrode, more where these have several responses or stimuli."""
    ordered = sorted(series, key=lambda each: (each.sweep_number, each.electrode, each.path))
    rows: list[tuple[_Numbered | None, _Numbered | None]] = []
    several = 0
    for _, sweep in groupby(ordered, key=lambda each: (each.sweep_number, each.electrode)):
        of_sweep = list(sweep)
        responses = [each for each in of_sweep if not each.is_stimulus]
        stimuli = [each for each in of_sweep if each.is_stimulus]
        several += len(responses) > 1 or len(stimuli) > 1
        rows.extend(zip_longest(responses, stimuli))
    if several:
        warn_caller(
            f"{several} sweeps in {hierarchy.location} have several responses or stimuli of one electrode: "
            "they are paired in the order of their names."
        )
    known = [response or stimulus for response, stimulus in rows]
    coordinates = {
        "sweep_number": _along([each.sweep_number for each in known if each], np.int64),
        "electrode": _along([each.electrode for each in known if each], object),
    }
    return Recordings(
        np.arange(len(rows)),
        [None if response is None else Extent(response.reference) for response, _ in rows],
        [None if stimulus is None else Extent(stimulus.reference) for _, stimulus in rows],
        coordinates,
        {"description": "number of the recording, by sweep number and electrode"},
    )


def _along(values: Sequence[Any], dtype: Any) -> xr.Variable:
    return xr.Variable(RECORDING, np.array(values, dtype))
