"""Spikes between two times: the bounds of each unit's row drawn in, while no value moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents.columns import Pair, ShownColumn
from intake_nwbzarr.accessor.contents.kinds import ShownObject
from intake_nwbzarr.accessor.contents.seconds import in_seconds
from intake_nwbzarr.accessor.ragged.rows import bounds_of_rows, each_row
from intake_nwbzarr.accessor.time.window import Window
from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.neurodata.types import ancestry

SPIKES, OBSERVED = "spike_times", "obs_intervals"


@dataclass(frozen=True)
class _Drawn:
    """How far the bounds of every row are drawn in.

    Parameters
    ----------
    skipped
        Values left out at the start of each row, (row,).
    kept
        Values that are left, (row,).
    """

    skipped: NDArray[np.int64]
    kept: NDArray[np.int64]


def restricted_bounds(
    dataset: xr.Dataset, table: ShownObject, columns: list[ShownColumn], window: Window
) -> dict[str, xr.Variable]:
    """Draw in the bounds of a table's spikes, of what runs parallel to them, and of observed intervals.

    Parameters
    ----------
    dataset
        Holds the table.
    table, columns
        The table, of units as a rule, and its columns.
    window
        In seconds; spikes at its start are kept, those at its stop are not.

    Returns
    -------
    dict
        The new bounds by name: empty for a table without spike times.

    Raises
    ------
    SelectionError
        When the spike times of a row do not ascend or hold NaN, or are in the Dataset without their bounds
        or the other way round.
    """
    ragged = {column.column: column for column in columns if column.bounds}
    _check_spikes(dataset, table, ragged)
    changed: dict[str, xr.Variable] = {}
    if SPIKES in ragged:
        spikes = ragged[SPIKES]
        starts, counts = bounds_of_rows(dataset, spikes.bounds[0], spikes.variable)
        drawn = _drawn(dataset, table, spikes, starts, counts, window, _between)
        changed |= _bounds(dataset, spikes.bounds[0], drawn)
        for pair in _parallel(dataset, columns, counts):
            changed |= _bounds(dataset, pair, drawn)
    if OBSERVED in ragged:
        observed = ragged[OBSERVED]
        starts, counts = bounds_of_rows(dataset, observed.bounds[0], observed.variable)
        drawn = _drawn(dataset, table, observed, starts, counts, window, _reaching)
        changed |= _bounds(dataset, observed.bounds[0], drawn)
    return changed


def _check_spikes(dataset: xr.Dataset, table: ShownObject, ragged: dict[str, ShownColumn]) -> None:
    path = f"{table.path}/{SPIKES}"
    present = [
        name
        for name in table.variables
        if path in {dataset.variables[name].attrs.get(key) for key in ("nwb_path", "ragged_values")}
    ]
    if present and table.rows is None:
        raise SelectionError(
            f"One row of {table.path!r} was selected as a scalar, which leaves no bounds to draw in: "
            "restrict first, or select a list of one row."
        )
    if present and SPIKES not in ragged:
        raise _undivided(dataset, table, path, present)
    for name in (SPIKES, OBSERVED):
        if name in ragged and ragged[name].bounds[0][0] is None:
            raise SelectionError(
                f"{ragged[name].variable!r} is compact: its rows follow one another without gaps, as those "
                "of a part of a session do not. Restrict first, then call ds.nwb.compact()."
            )


def _undivided(dataset: xr.Dataset, table: ShownObject, path: str, present: list[str]) -> SelectionError:
    counts = [
        dataset.variables[name] for name in present if dataset.variables[name].attrs.get("ragged_values")
    ]
    apart = next((each.dims for each in counts if each.dims != (table.rows,)), None)
    if apart is not None:
        return SelectionError(
            f"What divides {path!r} into rows lies along {apart}, not along the rows {table.rows!r}: in the "
            f"file it does not fit the table, so that nothing tells whose spikes are whose. Leave them out, "
            f"with ds.drop_vars({present!r})."
        )
    return SelectionError(
        f"Of {path!r}, only {', '.join(map(repr, present))} is in this Dataset. To restrict spikes, keep the "
        f"spike times together with their _start and _count; where the file has none, leave all of them out, "
        f"with ds.drop_vars({present!r})."
    )


def _between(times: NDArray[Any], window: Window) -> tuple[int, int]:
    first, end = np.searchsorted(times, np.array([window.start, window.stop]), side="left")
    return int(first), int(end)


def _reaching(intervals: NDArray[Any], window: Window) -> tuple[int, int]:
    """Of intervals in order of time, those that reach into the window."""
    first = int(np.searchsorted(intervals[:, 1], window.start, side="right"))
    end = int(np.searchsorted(intervals[:, 0], window.stop, side="left"))
    return first, max(first, end)


def _drawn(
    dataset: xr.Dataset,
    table: ShownObject,
    column: ShownColumn,
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    window: Window,
    positions: Callable[[NDArray[Any], Window], tuple[int, int]],
) -> _Drawn:
    """Look at every row's values, piece by piece."""
    skipped, kept = np.zeros_like(starts), np.zeros_like(counts)
    for row, values in each_row(dataset.variables[column.variable], starts, counts):
        times = in_seconds(values, dataset.attrs, repr(column.variable))
        # Searching presumes order, in both columns of intervals.
        if np.isnan(times).any() or np.any(times[1:] < times[:-1]):
            unit = dataset.coords[table.rows].values[row] if table.rows in dataset.coords else row
            raise SelectionError(
                f"The {column.column!r} of row {unit} of {table.path!r} do not ascend or hold NaN, so they "
                f"cannot be restricted. Leave this row out, with ds.isel({table.rows}=...) without position "
                f"{row}."
            )
        first, end = positions(times, window)
        skipped[row], kept[row] = first, end - first
    return _Drawn(skipped, kept)


def _parallel(dataset: xr.Dataset, columns: list[ShownColumn], counts: NDArray[np.int64]) -> list[Pair]:
    """The outer bounds of other columns that have one value for each spike of every row.

    Regions, references and observed intervals never run along spikes, however many they are.
    """
    pairs: dict[Pair, None] = {}
    for column in columns:
        kinds = ancestry(str(dataset.variables[column.variable].attrs.get("neurodata_type")))
        apart = {"DynamicTableRegion", "TimeSeriesReferenceVectorData"} & set(kinds)
        if column.bounds and not apart and column.column not in {SPIKES, OBSERVED}:
            own = np.asarray(dataset.variables[column.bounds[0][1]].values, np.int64)
            if np.array_equal(own, counts):
                pairs[column.bounds[0]] = None
    return list(pairs)


def _bounds(dataset: xr.Dataset, pair: Pair, drawn: _Drawn) -> dict[str, xr.Variable]:
    changed: dict[str, xr.Variable] = {}
    if pair[0] is not None:
        start = dataset.variables[pair[0]]
        starts = np.asarray(start.values, np.int64) + drawn.skipped
        changed[pair[0]] = xr.Variable(start.dims, starts, start.attrs)
    count = dataset.variables[pair[1]]
    return changed | {pair[1]: xr.Variable(count.dims, drawn.kept, count.attrs)}
