"""Peri-event alignment against plain loops, whatever the series, the events and the window."""

from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex
from tests.accessor.peri_event_session import units_in_memory

# Half of all times are tenths of seconds: they lie on samples, and on the edges of bins and of intervals.
thousandths = st.one_of(st.integers(-3000, 9000), st.integers(-30, 90).map(lambda tenths: tenths * 100))
event_times = st.lists(st.one_of(thousandths.map(lambda number: number / 1000), st.just(np.nan)), max_size=6)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Fraction, Fraction]:
    """Two ends that a decimal number writes exactly."""
    unit = draw(st.sampled_from([10, 1000]))
    start = draw(st.integers(-2 * unit, 2 * unit))
    return Fraction(start, unit), Fraction(start + draw(st.integers(unit, 3 * unit)), unit)


def as_floats(window: tuple[Fraction, Fraction]) -> tuple[float, float]:
    return float(window[0]), float(window[1])


def lag_steps(window: tuple[Fraction, Fraction], rate: int) -> range:
    return range(ceil(window[0] * rate), ceil(window[1] * rate))


@st.composite
def regular_series(draw: st.DrawFn) -> tuple[xr.Dataset, int, NDArray[np.float64]]:
    rate, start = draw(st.sampled_from([1, 3, 8, 10, 100])), draw(thousandths) / 1000
    size = draw(st.integers(1, 60))
    index = RegularTimeIndex.from_rate(start, rate, size)
    values = np.arange(size * 2.0).reshape(2, size) if draw(st.booleans()) else np.arange(size)
    dims = ["channel", "time"][2 - values.ndim :]
    return xr.Dataset({"data": (dims, values)}, coords=index.coordinates()), rate, np.atleast_2d(values).T


@settings(max_examples=100, deadline=None)
@given(
    series=regular_series(),
    events=event_times,
    window=windows(),
    dask=st.booleans(),
    method=st.sampled_from(["nearest", "linear"]),
)
def test_regular_series(series: Any, events: list[float], window: Any, dask: bool, method: str) -> None:
    dataset, rate, values = series
    time, steps = dataset.time.values, lag_steps(window, rate)
    grid = {step: time[0] + step / rate for step in range(-3000, 3000)}
    # The index computes time from its start, as this does.
    expected = np.full((len(events), len(steps), values.shape[1]), np.nan)
    offsets = np.full(len(events), np.nan)
    for row, event in enumerate(events):
        if np.isnan(event):
            continue
        nearest = min(grid, key=lambda step: (abs(grid[step] - event), -step))
        before = max((step for step in grid if grid[step] <= event), default=0)
        share = (event - grid[before]) / (grid[before + 1] - grid[before])
        for column, step in enumerate(steps):
            if method == "nearest" and 0 <= nearest + step < len(values):
                expected[row, column] = values[nearest + step]
                offsets[row] = grid[nearest] - event
            elif method == "linear" and share == 0 and 0 <= before + step < len(values):
                expected[row, column] = values[before + step]
            elif method == "linear" and share > 0 and 0 <= before + step < len(values) - 1:
                low, high = values[before + step], values[before + step + 1]
                expected[row, column] = low * (1 - share) + high * share
    if dask:
        dataset = dataset.chunk(time=7)
    aligned = dataset.nwb.align(events, as_floats(window), method=method)
    assert (aligned.data.chunks is not None) == dask
    np.testing.assert_array_equal(aligned.data.values.reshape(expected.shape), expected)
    np.testing.assert_array_equal(aligned.lag, np.array(steps) / rate)
    if method == "nearest":
        np.testing.assert_array_equal(aligned.lag_offset, offsets)
    whole = ~np.isnan(expected).any(axis=(1, 2))
    dropped = dataset.nwb.align(events, as_floats(window), method=method, on_missing="drop")
    assert dropped.event.values.tolist() == np.flatnonzero(whole).tolist()
    np.testing.assert_array_equal(dropped.data.values.reshape(expected[whole].shape), expected[whole])


@st.composite
def irregular_series(draw: st.DrawFn) -> xr.Dataset:
    times = np.array(sorted(draw(st.sets(thousandths, min_size=1, max_size=30)))) / 1000
    # Evenly spaced times are regular, which takes no gap.
    assume(len(times) < 3 or np.ptp(np.diff(times)) > 1e-6)
    index = IrregularTimeIndex.from_array(times)
    return xr.Dataset({"data": ("time", np.arange(len(times)) ** 2)}, coords=index.coordinates())


@settings(max_examples=100, deadline=None)
@given(
    dataset=irregular_series(),
    events=event_times,
    window=windows(),
    rate=st.sampled_from([1, 4, 10]),
    method=st.sampled_from(["nearest", "ffill", "linear"]),
    gap=st.sampled_from([None, 0.7, 3.0]),
    dask=st.booleans(),
)
def test_irregular_series(
    dataset: xr.Dataset,
    events: list[float],
    window: Any,
    rate: int,
    method: str,
    gap: float | None,
    dask: bool,
) -> None:
    times, values, steps = dataset.time.values, dataset.data.values, lag_steps(window, rate)
    bridged = (2 / rate if gap is None else gap) * (1 + 1e-6)
    expected = np.full((len(events), len(steps)), np.nan)
    for row, event in enumerate(events):
        for column, step in enumerate(steps):
            wanted = event + step / rate
            if not times[0] <= wanted <= times[-1]:
                continue
            before = int(np.flatnonzero(times <= wanted)[-1])
            after = int(np.flatnonzero(times >= wanted)[0])
            if method == "linear" and times[after] - times[before] <= bridged:
                expected[row, column] = np.interp(wanted, times[[before, after]], values[[before, after]])
            elif method == "ffill" and wanted - times[before] <= bridged:
                expected[row, column] = values[before]
            elif method == "nearest":
                nearer = before if wanted - times[before] < times[after] - wanted else after
                if abs(times[nearer] - wanted) <= bridged / 2:
                    expected[row, column] = values[nearer]
    if dask:
        dataset = dataset.chunk(time=4)
    aligned = dataset.nwb.align(events, as_floats(window), rate=rate, method=method, gap=gap)
    assert (aligned.data.chunks is not None) == dask
    np.testing.assert_allclose(aligned.data, expected, rtol=1e-9)
    chosen = np.arange(len(events))[::-2]
    selected = aligned.data.isel(event=chosen, lag=[0])
    np.testing.assert_allclose(selected, expected[chosen][:, :1], rtol=1e-9)


intervals = st.lists(st.tuples(thousandths, st.sampled_from([0, 100, 700, 2000, 6000])), max_size=3)
trains = st.lists(
    st.one_of(thousandths.map(lambda number: number / 1000), st.floats(-3, 9), st.just(np.nan)), max_size=20
)


@settings(max_examples=100, deadline=None)
@given(
    spikes=st.lists(st.tuples(trains, intervals), min_size=1, max_size=4),
    events=event_times,
    window=windows(),
    width=st.sampled_from([Fraction(1, 10), Fraction(1, 4), Fraction(1, 2), Fraction(1, 1)]),
    with_intervals=st.booleans(),
    dask=st.booleans(),
)
def test_spike_counts(
    spikes: Any, events: list[float], window: Any, width: Fraction, with_intervals: bool, dask: bool
) -> None:
    bins = floor((window[1] - window[0]) / width)
    edges = [float(window[0] + number * width) for number in range(bins + 1)]
    observed = [[[start / 1000, (start + length) / 1000] for start, length in each] for _, each in spikes]
    expected = np.full((len(spikes), len(events), bins), np.nan)
    for unit, (train, _) in enumerate(spikes):
        for row, event in enumerate(events):
            for number in range(bins):
                low, high = event + edges[number], event + edges[number + 1]
                if not np.isnan(event) and (not with_intervals or covered(low, high, observed[unit])):
                    expected[unit, row, number] = sum(low <= spike < high for spike in train)
    dataset = units_in_memory([train for train, _ in spikes], observed if with_intervals else None)
    if dask:
        dataset = dataset.chunk(spike=5)
    aligned = dataset.nwb.align(events, as_floats(window), bin=float(width))
    assert (aligned.spike_counts.chunks is not None) == dask
    np.testing.assert_array_equal(aligned.spike_counts, expected)
    np.testing.assert_array_equal(aligned.lag, edges[:-1])
    kept = ~np.isnan(expected).any(axis=(0, 2))
    dropped = dataset.nwb.align(events, as_floats(window), bin=float(width), on_missing="drop")
    assert dropped.spike_counts.dtype == np.int64
    np.testing.assert_array_equal(dropped.spike_counts, expected[:, kept])
    chosen = np.arange(len(events))[::-1]
    selected = aligned.spike_counts.isel(unit=[-1, 0], event=chosen, lag=slice(1, None))
    np.testing.assert_array_equal(selected, expected[[-1, 0]][:, chosen, 1:])


def covered(low: float, high: float, observed: list[list[float]]) -> bool:
    """Whether intervals, any of which may overlap or touch, together hold a bin."""
    reached = low
    for start, stop in sorted(observed):
        if start <= reached:
            reached = max(reached, stop)
    return any(start <= low <= stop for start, stop in observed) and reached >= high
