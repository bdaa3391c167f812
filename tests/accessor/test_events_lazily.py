"""Peri-event alignment reads and computes what windows touch, and nothing before it is asked for."""

import tracemalloc
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from intake_nwbzarr import track_requests
from intake_nwbzarr.accessor.slices import Runs
from intake_nwbzarr.arrays import lazy_variable
from intake_nwbzarr.indexes import RegularTimeIndex
from tests.accessor.peri_event_session import (
    CHUNK,
    COUNTER,
    RATE,
    START,
    TRAINS,
    TRIALS,
    VOLTAGE,
    units_in_memory,
)
from tests.arrays.stored_arrays import write
from tests.session_files import opened


def chunks_touched(window: tuple[float, float]) -> int:
    """How many of the voltage's chunks hold any sample of a window around any trial."""
    touched = set()
    for time in TRIALS:
        lag_zero = round((time - START) * RATE)
        first, last = lag_zero + round(window[0] * RATE), lag_zero + round(window[1] * RATE) - 1
        touched |= set(range(max(0, first) // CHUNK, min(last, len(VOLTAGE) - 1) // CHUNK + 1))
    return len(touched)


@pytest.mark.parametrize("window", [(0.0, 0.01), (-0.2, 0.3)])
def test_only_the_chunks_that_windows_touch_are_read(session: Path, window: tuple[float, float]) -> None:
    voltage = opened(session, "acquisition/voltage")
    with track_requests() as log:
        aligned = voltage.nwb.align(TRIALS, window)
    assert log.requests == 0
    with track_requests() as log:
        values = aligned.data.values
    assert log.requests == chunks_touched(window)
    with track_requests() as log:
        aligned.data.values  # noqa: B018 - reads
    assert log.requests == 0  # what was read once is kept
    first = round((TRIALS[1] + window[0] - START) * RATE)
    np.testing.assert_allclose(values[1], VOLTAGE[first : first + values.shape[1]] * 1e-6)
    aligned = voltage.nwb.align(TRIALS, window)
    with track_requests() as log:
        assert aligned.data.variable.isel(event=1, lag=0).shape == (4,)
    assert log.requests == 0
    with track_requests() as log:
        one = aligned.data.variable.isel(event=1, lag=0).values
    np.testing.assert_array_equal(one, values[1, 0])
    assert log.requests == 1


def test_dask_reads_the_same_chunks_and_computes_no_others(session: Path) -> None:
    voltage = opened(session, "acquisition/voltage").chunk(time=CHUNK, channel=2)
    with track_requests() as log:
        aligned = voltage.nwb.align(TRIALS, (0.0, 0.01))
    assert log.requests == 0
    assert aligned.data.chunks == ((5,), (10,), (2, 2))
    (optimized,) = dask.optimize(aligned.data)
    assert len(dict(optimized.__dask_graph__())) < 60
    with track_requests() as log:
        values = aligned.data.values
    assert log.requests == 2 * chunks_touched((0.0, 0.01))  # of each half of the channels
    xr.testing.assert_equal(
        aligned.data.compute(),
        opened(session, "acquisition/voltage").nwb.align(TRIALS, (0.0, 0.01)).data.load(),
    )
    assert values.shape == (5, 10, 4)


def test_dask_computes_each_source_block_once_and_only_those_touched() -> None:
    computed: list[int] = []

    def block(values: Any, block_info: Any = None) -> Any:
        computed.append(block_info[None]["chunk-location"][0])
        return values + 1

    source = da.arange(100_000, chunks=1000).map_blocks(block, dtype=int, meta=np.empty(0, int))
    index = RegularTimeIndex.from_rate(0.0, 1000.0, 100_000)
    dataset = xr.Dataset({"data": ("time", source)}, coords=index.coordinates())
    times = np.arange(5.25, 95, 10)
    aligned = dataset.nwb.align(times, (-0.5, 0.5))
    assert computed == []
    values = aligned.data.compute()
    assert sorted(computed) == sorted(block for time in times for block in (int(time) - 1, int(time)))
    assert values[0, 0] == 5250 - 500 + 1


def test_many_events_of_many_chunks_make_a_graph_of_modest_size() -> None:
    source = da.zeros((3_600_000, 64), chunks=(10_000, 64))
    index = RegularTimeIndex.from_rate(0.0, 1000.0, len(source))
    dataset = xr.Dataset({"data": (("time", "channel"), source)}, coords=index.coordinates())
    aligned = dataset.nwb.align(np.arange(5.0, 3500, 10), (-0.5, 1.0))
    assert aligned.data.shape == (350, 1500, 64)
    assert len(dict(aligned.data.__dask_graph__())) < 10 * 350
    assert max(aligned.data.chunks[0]) * 1500 * 64 * 8 <= 64 * 2**20


def test_irregular_timestamps_are_read_when_values_are(session: Path) -> None:
    position = opened(session, "acquisition/position")
    with track_requests() as log:
        aligned = position.nwb.align(TRIALS, (-0.1, 0.1), rate=50, method="linear")
    assert log.requests == 0
    assert aligned.data.load().notnull().any()
    of_dask = opened(session, "acquisition/position", chunks={}).nwb.align(
        TRIALS, (-0.1, 0.1), rate=50, method="linear"
    )
    assert of_dask.data.chunks is not None
    np.testing.assert_array_equal(of_dask.data, aligned.data)


def test_spikes_are_read_when_counts_are_and_of_selected_units_only(session: Path) -> None:
    units = opened(session, "units")
    aligned = units.nwb.align(TRIALS, (-0.5, 0.5), bin=0.25)
    assert "values with dtype=float64" in repr(aligned.spike_counts)
    with track_requests() as log:
        assert np.nansum(aligned.spike_counts.variable.isel(unit=[1]).values) == 0
    assert log.requests == 0  # it has no spikes
    with track_requests() as log:
        assert np.nansum(aligned.spike_counts.variable.isel(unit=[0]).values) > 0
    assert log.requests == 1


def test_dask_counts_read_each_units_spikes_once() -> None:
    computed: list[int] = []

    def block(values: Any, block_info: Any = None) -> Any:
        computed.append(block_info[None]["chunk-location"][0])
        return values

    dataset = units_in_memory([train.tolist() for train in TRAINS])
    source = da.from_array(dataset.spike_times.values, chunks=100)
    dataset = dataset.assign(
        spike_times=(
            "spike",
            source.map_blocks(block, dtype=float, meta=np.empty(0)),
            dataset.spike_times.attrs,
        )
    )
    aligned = dataset.isel(unit=[0, 3]).nwb.align(TRIALS, (-0.5, 0.5), bin=0.25)
    assert computed == []
    counts = aligned.spike_counts.compute()
    # The first 300 spikes, and five after another unit's 200.
    assert sorted(computed) == [0, 1, 2, 5]
    np.testing.assert_array_equal(
        counts,
        units_in_memory([TRAINS[0].tolist(), TRAINS[3].tolist()])
        .nwb.align(TRIALS, (-0.5, 0.5), bin=0.25)
        .spike_counts,
    )


def test_lazy_results_can_be_chunked_and_have_stable_tokens(session: Path) -> None:
    def aligned() -> xr.Dataset:
        return opened(session, "acquisition/counter").nwb.align(TRIALS, (0, 0.1))

    one, other = (aligned().chunk(event=2) for _ in range(2))
    assert one.data.data.name == other.data.data.name
    np.testing.assert_array_equal(one.data[0], COUNTER[500:600])
    assert aligned().chunk({}).data.chunks == ((5,), (100,))


def test_a_series_with_time_last_is_read_in_its_own_order(tmp_path: Path) -> None:
    fluorescence = np.random.default_rng(5).random((6, 4000))
    stored = write(tmp_path, fluorescence, chunks=(3, 100), compressors=None)
    index = RegularTimeIndex.from_rate(0.0, 100.0, 4000)
    dataset = xr.Dataset({"data": lazy_variable(("roi", "time"), stored)}, coords=index.coordinates())
    aligned = dataset.nwb.align([5.25, 30.25], (0, 0.5))
    assert aligned.data.dims == ("event", "lag", "roi")
    assert aligned.data.encoding["preferred_chunks"]["roi"] == 6
    with track_requests() as log:
        values = aligned.data.isel(roi=[4, 1]).values
    assert log.requests == 4
    np.testing.assert_array_equal(values[1], fluorescence[[4, 1], 3025:3075].T)
    np.testing.assert_array_equal(aligned.data.isel(roi=2, event=0), fluorescence[2, 525:575])


def test_few_lags_of_a_long_window_take_few_samples_into_memory() -> None:
    index = RegularTimeIndex.from_rate(0.0, 1000.0, 10**9)
    zeros = np.broadcast_to(np.float64(7), 10**9)  # takes no memory, unless it is copied
    dataset = xr.Dataset({"data": ("time", zeros)}, coords=index.coordinates())
    tracemalloc.start()
    values = dataset.nwb.align([1.0], (0, 900_000), rate=0.001).data.values
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert values.tolist() == [[7.0] * 900]
    assert peak < 5e6


def test_infinities_that_have_no_weight_do_not_spread() -> None:
    index = RegularTimeIndex.from_rate(0.0, 1.0, 4)
    dataset = xr.Dataset({"data": ("time", [0.0, np.inf, 2.0, np.nan])}, coords=index.coordinates())
    aligned = dataset.nwb.align([0.0, 0.5], (0, 3), method="linear")
    np.testing.assert_array_equal(aligned.data, [[0, np.inf, 2], [np.inf, np.inf, np.nan]])


@given(intervals=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=8))
def test_runs_hold_every_position_of_their_intervals_once(intervals: list[tuple[int, int]]) -> None:
    starts, lengths = np.array(intervals, int).reshape(-1, 2).T
    runs = Runs.of(starts, starts + lengths)
    held = sorted({start + offset for start, length in intervals for offset in range(length)})
    assert np.arange(60)[runs.positions()].tolist() == held
    assert runs.places(np.array(held, int)).tolist() == list(range(len(held)))
    assert (runs.starts[1:] > (runs.starts + runs.lengths)[:-1]).all()
