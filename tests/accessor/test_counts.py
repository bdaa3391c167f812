"""Spike counts in bins, against plain loops."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import NodeNotFoundError, OptionError, SelectionError
from intake_nwbzarr.indexes import RegularTimeIndex
from tests.accessor.peri_event_session import TRAINS, UNITS, units_in_memory

# Many of them on the edges of bins.
times = st.one_of(st.integers(-60, 400).map(lambda number: number / 20), st.floats(-3, 20), st.just(np.nan))


@settings(max_examples=100, deadline=None)
@given(
    trains=st.lists(st.lists(times, max_size=12), min_size=1, max_size=4),
    width=st.sampled_from([0.1, 0.25, 0.3, 1.0, 7.0]),
    start=st.sampled_from([None, -1.0, 0.35]),
    stop=st.sampled_from([None, 5.0, 9.99]),
    dask=st.booleans(),
)
def test_counts_are_those_of_a_plain_loop(
    trains: list[list[float]], width: float, start: float | None, stop: float | None, dask: bool
) -> None:
    if stop is None:
        # Ascending, as bin() then expects them; NaN anywhere is no spike.
        trains = [sorted(train, key=lambda spike: (np.isnan(spike), spike)) for train in trains]
    counted = units_in_memory(trains)
    counts = (counted.chunk(spike=3) if dask else counted).nwb.bin(width, start=start, stop=stop).spike_counts
    assert (counts.chunks is not None) == dask
    begin = 0.0 if start is None else start
    spikes = [spike for train in trains for spike in train if not np.isnan(spike)]
    last = max(spikes, default=begin) if stop is None else stop
    edges = [begin]
    while begin + len(edges) / (1 / width) <= last + 1e-9:
        edges.append(begin + len(edges) / (1 / width))
    expected = [
        [sum(low <= spike < high for spike in train) for low, high in pairwise(edges)] for train in trains
    ]
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts.values, np.reshape(expected, (len(trains), len(edges) - 1)))
    np.testing.assert_array_equal(counts.time.values, edges[:-1])


def test_bins_are_labelled_by_their_left_edges_with_a_regular_index(units: xr.Dataset) -> None:
    binned = units.nwb.bin(0.1, stop=10.05)
    assert list(binned.data_vars) == ["spike_counts"]
    assert binned.nwb.location == units.nwb.location
    counts = binned.spike_counts
    assert counts.dims == ("unit", "time")
    assert counts.sizes["time"] == 100
    assert isinstance(counts.xindexes["time"], RegularTimeIndex)
    assert counts.time.attrs == {
        "units": "s",
        "description": "left edge of each bin; a bin is [time, time + bin_width)",
        "bin_width": 0.1,
    }
    assert counts.sel(time=0.3).shape == (5,)
    assert units.nwb.bin(0.1, stop=0.3).sizes["time"] == 3  # 0.3 / 0.1 is a little less
    assert counts.unit.values.tolist() == UNITS
    assert counts.quality.values.tolist() == ["poor", "good", "poor", "good", "poor"]
    np.testing.assert_array_equal(counts.sum("time"), [np.sum(train < 10) for train in TRAINS])


def test_selected_units_are_counted_alone(units: xr.Dataset) -> None:
    counts = units.sel(unit=[40, 6]).nwb.bin(1.0, stop=20).spike_counts
    np.testing.assert_array_equal(counts.values, units.nwb.bin(1.0, stop=20).spike_counts.values[[4, 0]])
    np.testing.assert_array_equal(counts.isel(unit=0, time=slice(5, 9)), counts.values[0, 5:9])
    assert units.sel(unit=[7]).nwb.bin(1.0).sizes["time"] == int(TRAINS[3][-1])


def test_no_units_and_no_spikes_have_no_counts(units: xr.Dataset) -> None:
    assert units.isel(unit=[]).nwb.bin(1.0, stop=20).spike_counts.shape == (0, 20)
    assert units.isel(unit=[]).nwb.bin(1.0).spike_counts.values.shape == (0, 0)
    assert units.sel(unit=[191]).nwb.bin(1.0).spike_counts.values.shape == (1, 0)


def test_with_a_stop_nothing_is_read_until_counts_are_asked_for(units: xr.Dataset) -> None:
    counts = units.nwb.bin(1.0, stop=20)
    with track_requests() as log:
        again = units.nwb.bin(1.0, stop=20)
    assert log.requests == 0  # where each unit's spikes are was read before, and kept
    with track_requests() as log:
        values = again.spike_counts.values
    assert log.requests > 0
    np.testing.assert_array_equal(counts.spike_counts.values, values)


def test_the_flat_view_counts_too_and_dask_chunks_it(session: Path) -> None:
    flat = xr.open_dataset(session, engine="nwbzarr", chunks={})
    counts = flat.nwb.bin(0.5, stop=20)["units_spike_counts"]
    assert counts.dims == ("units", "time")
    expected = [np.histogram(train, np.arange(41) / 2)[0] for train in TRAINS]
    np.testing.assert_array_equal(counts.chunk(units=2).values, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be .* seconds, not 0"),
        ({"width": "1"}, "width must be .*, not '1'"),
        ({"width": np.nan}, "width must be .*, not nan"),
        ({"width": 1, "stop": -1}, "stop=-1 is before the start of the bins, 0.0 s"),
        ({"width": 1, "start": np.inf}, "start must be .*seconds or a datetime, not inf"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(units: xr.Dataset, arguments: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        units.nwb.bin(**arguments)


def test_datasets_without_units_or_with_one_as_a_scalar_say_so(units: xr.Dataset) -> None:
    with pytest.raises(NodeNotFoundError, match="'_start' and '_count' of spike times"):
        units[["quality"]].nwb.bin(1.0)
    with pytest.raises(SelectionError, match="Select a list of one row"):
        units.isel(unit=0).nwb.bin(1.0)
    with pytest.raises(SelectionError, match="Select rows instead"):
        units.isel(spike=slice(9)).nwb.bin(1.0)
