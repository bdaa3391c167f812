"""Spikes within windows: of one, the bounds of each unit's row drawn in, while no value moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.accessor.contents import Pair, ShownColumn, ShownObject
from intake_nwbzarr.accessor.peri_event.runs import Runs
from intake_nwbzarr.accessor.ragged import bounds_of_rows, each_row
from intake_nwbzarr.accessor.ragged_bounds import divided_by
from intake_nwbzarr.accessor.runs import pieces_along
from intake_nwbzarr.accessor.time.window import Windows
from intake_nwbzarr.accessor.times import in_seconds
from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.mapping.schema import ancestry

SPIKES, OBSERVED = "spike_times", "obs_intervals"

# Those of units, and of kinds of events.
TIMES = (SPIKES, "event_times")


@dataclass(frozen=True)
class _Kept:
    """Which values of every row are kept.

    Parameters
    ----------
    skipped, counts
        Values left out at the start of each row, and how many are kept, (row,).
    positions
        Of the values that are kept, counted from the start of each row, where they may have gaps; None where
        they have none.
    """

    skipped: NDArray[np.int64]
    counts: NDArray[np.int64]
    positions: tuple[NDArray[np.int64], ...] | None


def restricted_rows(
    dataset: xr.Dataset, table: ShownObject, columns: list[ShownColumn], windows: Windows
) -> xr.Dataset:
    """Keep a table's spikes, what runs parallel to them, and observed intervals, within windows.

    Of one window, bounds are drawn in and no value moves. Between several, values are left out.

    Parameters
    ----------
    dataset
        Holds the table.
    table, columns
        The table, of units as a rule, and its columns.
    windows
        Spikes at the start of one are kept, those at its stop are not.

    Returns
    -------
    xarray.Dataset
        The same where the table has no spike times.

    Raises
    ------
    SelectionError
        When the spike times of a row do not ascend or hold NaN, or are in the Dataset without their bounds
        or the other way round.
    """
    ragged = {column.column: column for column in columns if column.bounds}
    _check_spikes(dataset, table, ragged)
    restricted = dataset
    for spikes in (ragged[name] for name in TIMES if name in ragged):
        starts, counts = bounds_of_rows(dataset, spikes.bounds[0], spikes.variable)
        kept = _kept(dataset, table, spikes, starts, counts, windows)
        for pair in (spikes.bounds[0], *_parallel(dataset, columns, counts)):
            restricted = _restricted_column(restricted, pair, kept)
    if OBSERVED in ragged:
        observed = ragged[OBSERVED]
        starts, counts = bounds_of_rows(dataset, observed.bounds[0], observed.variable)
        kept = _kept(dataset, table, observed, starts, counts, windows)
        restricted = _restricted_column(restricted, observed.bounds[0], kept)
    return restricted


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
    for name in (*TIMES, OBSERVED):
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


def _kept(
    dataset: xr.Dataset,
    table: ShownObject,
    column: ShownColumn,
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    windows: Windows,
) -> _Kept:
    """Look at every row's values, piece by piece."""
    found: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(starts)
    skipped = np.zeros_like(starts)
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
        found[row] = np.flatnonzero(windows.holds(times) if times.ndim == 1 else windows.overlaps(*times.T))
        if found[row].size:
            skipped[row] = found[row][0]
    lengths = np.array([len(each) for each in found], np.int64)
    gaps = any(each.size and each[-1] - each[0] + 1 != each.size for each in found)
    return _Kept(skipped, lengths, tuple(found) if gaps else None)


def _parallel(dataset: xr.Dataset, columns: list[ShownColumn], counts: NDArray[np.int64]) -> list[Pair]:
    """The outer bounds of other columns that have one value for each spike of every row.

    Regions, references and observed intervals never run along spikes, however many they are.
    """
    pairs: dict[Pair, None] = {}
    for column in columns:
        kinds = ancestry(str(dataset.variables[column.variable].attrs.get("neurodata_type")))
        apart = {"DynamicTableRegion", "TimeSeriesReferenceVectorData"} & set(kinds)
        if column.bounds and not apart and column.column not in {*TIMES, OBSERVED}:
            own = np.asarray(dataset.variables[column.bounds[0][1]].values, np.int64)
            if np.array_equal(own, counts):
                pairs[column.bounds[0]] = None
    return list(pairs)


def _restricted_column(dataset: xr.Dataset, pair: Pair, kept: _Kept) -> xr.Dataset:
    """Draw in the bounds of a column; where values between are left out, the others follow one another."""
    assert pair[0] is not None  # noqa: S101 - for the type checker: compact ones were refused
    start, count = dataset.variables[pair[0]], dataset.variables[pair[1]]
    begins = np.asarray(start.values, np.int64) + kept.skipped
    divided, changed = divided_by(dataset, str(count.attrs.get("ragged_values"))), {}
    if kept.positions is not None and divided is not None:
        runs = _runs(np.asarray(start.values, np.int64), kept.positions)
        dataset = pieces_along(dataset, dataset.variables[divided].dims[0], runs)
        begins = np.where(kept.counts > 0, runs.count_before(begins), 0)
        changed = {"ragged_length": runs.size}
    bounds = {pair[0]: (start, begins), pair[1]: (count, kept.counts)}
    return dataset.assign(
        {
            name: xr.Variable(bound.dims, values, {**bound.attrs, **changed})
            for name, (bound, values) in bounds.items()
        }
    )


def _runs(starts: NDArray[np.int64], positions: tuple[NDArray[np.int64], ...]) -> Runs:
    """The values that are kept of all rows, where they are stored."""
    begins, ends = [], []
    for start, each in zip(starts, positions, strict=True):
        breaks = np.flatnonzero(np.diff(each) > 1)
        begins.append(start + each[np.concatenate([[0], breaks + 1])] if each.size else each)
        ends.append(start + each[np.concatenate([breaks, [-1]])] + 1 if each.size else each)
    return Runs.of(np.concatenate(begins), np.concatenate(ends))
