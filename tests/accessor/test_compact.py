"""Compact Datasets: CF's contiguous ragged arrays, there and back."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from intake_nwbzarr.errors import SelectionError
from tests.accessor.peri_event_session import TAGS, TRAINS, waveforms


def assert_rows(dataset: xr.Dataset, rows: list[int]) -> None:
    spikes = list(dataset.nwb.ragged("spike_times"))
    assert len(spikes) == len(rows)
    for found, row in zip(spikes, rows, strict=True):
        np.testing.assert_array_equal(found, TRAINS[row])
    assert [list(tags) for tags in dataset.nwb.ragged("tags")] == [TAGS[row] for row in rows]
    for found, row in zip(dataset.nwb.ragged("waveforms"), rows, strict=True):
        for inner, expected in zip(found, waveforms()[row], strict=True):
            np.testing.assert_array_equal(inner, expected)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [2, 0], [4, 4, 1], [1], []])
def test_compact_rows_are_the_selected_ones_and_no_more(units: xr.Dataset, rows: list[int]) -> None:
    compact = units.isel(unit=rows).nwb.compact()
    assert_rows(compact, rows)
    assert compact.sizes["spike"] == sum(len(TRAINS[row]) for row in rows)
    np.testing.assert_array_equal(
        compact.spike_times.values, np.concatenate([np.empty(0), *(TRAINS[row] for row in rows)])
    )


def test_counts_name_the_dimension_they_divide(units: xr.Dataset) -> None:
    compact = units.nwb.compact()
    assert not [name for name in compact.variables if str(name).endswith("_start")]
    for count, divided in {
        "spike_times_count": "spike",
        "obs_intervals_count": "obs_interval",
        "tags_count": "tags_value",
        "waveforms_index_count": "waveform_event",
        "waveforms_count": "waveform",
    }.items():
        assert compact[count].attrs["sample_dimension"] == divided
        assert int(compact[count].sum()) == compact.sizes[divided]


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_a_compact_dataset_is_written_and_read_back(units: xr.Dataset, form: str, tmp_path: Path) -> None:
    compact = units.sel(unit=[40, 6, 191]).nwb.compact()
    if form == "netcdf":
        compact.to_netcdf(tmp_path / "saved.nc")
        saved = xr.open_dataset(tmp_path / "saved.nc")
    else:
        compact.to_zarr(tmp_path / "saved.zarr", zarr_format=2, consolidated=True)
        saved = xr.open_zarr(tmp_path / "saved.zarr")
    with saved:
        assert_rows(saved, [4, 0, 1])
        np.testing.assert_array_equal(saved.nwb.spike_times(6), TRAINS[0])
        assert_rows(saved.nwb.compact(), [4, 0, 1])
        assert int(saved.nwb.bin(1.0).spike_counts.sel(unit=40).sum()) == np.sum(
            TRAINS[4] < np.floor(TRAINS[0][-1])
        )


def test_the_flat_view_and_one_row_compact_too(session: Path) -> None:
    flat = xr.open_dataset(session, engine="nwbzarr").isel(units=[3], trials=[1, 0]).nwb.compact()
    np.testing.assert_array_equal(flat.units_spike_times.values, TRAINS[3])
    assert [len(notes) for notes in flat.nwb.ragged("notes")] == [3, 2]
    one = xr.open_dataset(session, engine="nwbzarr", group="units").isel(unit=2).nwb.compact()
    np.testing.assert_array_equal(one.spike_times.values, TRAINS[2])
    np.testing.assert_array_equal(one.nwb.spike_times(206), TRAINS[2])


def test_what_was_lazy_or_of_dask_stays_so(session: Path) -> None:
    compact = (
        xr.open_dataset(session, engine="nwbzarr", group="units", chunks={}).isel(unit=[2, 0]).nwb.compact()
    )
    assert compact.spike_times.chunks is not None
    assert_rows(compact, [2, 0])
    lazy = xr.open_dataset(session, engine="nwbzarr", group="units").isel(unit=[2, 0]).nwb.compact()
    assert "[500 values with dtype=float64]" in repr(lazy.spike_times)


def test_rows_selected_afterwards_are_detected(units: xr.Dataset) -> None:
    compact = units.nwb.compact()
    for changed in (
        compact.isel(unit=[2, 0]),
        compact.isel(unit=[1, 0, 2, 3, 4]),
        compact.sortby("unit"),
    ):
        with pytest.raises(SelectionError, match=r"Select rows first, then call ds\.nwb\.compact"):
            changed.nwb.ragged("spike_times")
    with pytest.raises(SelectionError, match=r"Select rows first"):
        compact.isel(unit=[1, 0, 2, 3, 4]).nwb.ragged("waveforms")


def test_a_dataset_without_ragged_columns_stays_as_it_is(units: xr.Dataset) -> None:
    plain = units[["quality"]]
    xr.testing.assert_identical(plain.nwb.compact(), plain)
    without_values = units[["spike_times_start", "spike_times_count"]]
    xr.testing.assert_identical(without_values.nwb.compact(), without_values)


def test_values_that_were_selected_are_detected(units: xr.Dataset) -> None:
    with pytest.raises(SelectionError, match="Select rows instead"):
        units.isel(spike=slice(3)).nwb.compact()
