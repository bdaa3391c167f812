"""`ds.nwb.resample_like`, compared with numpy."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import intake_nwbzarr
import intake_nwbzarr.accessor  # registers `ds.nwb`
from intake_nwbzarr.errors import OptionError, SelectionError
from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex
from tests.accessor.timed_session import LICK_TIMES, RATE, SIZE, START

VOLTAGE_TIMES = START + np.arange(SIZE) / RATE
METHODS = ["nearest", "ffill", "linear", "mean"]

instants = st.lists(st.integers(-40, 40).map(lambda number: number / 8), min_size=1, max_size=25)
ascending = st.lists(
    st.integers(-40, 40).map(lambda number: number / 8), min_size=1, max_size=25, unique=True
).map(sorted)


def series(times: list[float], name: str = "time") -> xr.Dataset:
    """A series with two channels, its channels first to make the axis matter."""
    index = IrregularTimeIndex.from_array(np.array(times), dim=name)
    values = np.arange(len(times)) ** 2.0
    return xr.Dataset(
        {"data": (("channel", name), np.stack([values, -3 * values]), {"units": "V"})},
        coords=index.coordinates(),
        attrs={"kept": 1},
    )


def like(times: list[float]) -> xr.DataArray:
    return xr.DataArray(np.zeros(len(times)), coords={"time": np.array(times)}, dims="time")


@settings(max_examples=60, deadline=None)
@given(times=ascending, wanted=instants)
def test_linear_is_numpys_interpolation_without_extrapolation(
    times: list[float], wanted: list[float]
) -> None:
    found = series(times).nwb.resample_like(like(wanted), "linear")
    values = np.arange(len(times)) ** 2.0
    expected = np.interp(wanted, times, values, left=np.nan, right=np.nan)
    np.testing.assert_allclose(found.data.values, np.stack([expected, -3 * expected]), rtol=1e-12)
    assert found.data.dims == ("channel", "time")
    assert found.data.attrs == {"units": "V"}
    assert found.attrs == {"kept": 1}


@settings(max_examples=60, deadline=None)
@given(times=ascending, wanted=instants, tolerance=st.none() | st.sampled_from([0.0, 0.25, 1.0]))
def test_nearest_and_ffill_are_what_a_look_at_all_samples_finds(
    times: list[float], wanted: list[float], tolerance: float | None
) -> None:
    all_times, values = np.array(times), np.arange(len(times)) ** 2.0
    limit = np.inf if tolerance is None else tolerance
    for method in ("nearest", "ffill"):
        expected = []
        for when in wanted:
            distances = np.abs(all_times - when)
            if method == "ffill":
                distances[all_times > when] = np.inf
            # Of two equally near samples the later.
            place = len(times) - 1 - int(np.argmin(distances[::-1]))
            inside = times[0] <= when <= times[-1] and distances[place] <= limit
            expected.append(values[place] if inside else np.nan)
        found = series(times).nwb.resample_like(like(wanted), method, tolerance=tolerance)
        np.testing.assert_array_equal(found.data.values[0], expected, method)


@settings(max_examples=60, deadline=None)
@given(times=ascending, wanted=ascending)
def test_mean_is_that_of_the_samples_of_each_half_open_interval(
    times: list[float], wanted: list[float]
) -> None:
    assume(times != wanted)
    all_times, values = np.array(times), np.arange(len(times)) ** 2.0
    expected = [
        values[inside].mean() if (inside := (all_times >= start) & (all_times < stop)).any() else np.nan
        for start, stop in zip(wanted, [*wanted[1:], -np.inf], strict=True)
    ]
    found = series(times).nwb.resample_like(like(wanted), "mean")
    np.testing.assert_allclose(found.data.values, np.stack([expected, np.multiply(-3, expected)]), rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(times=ascending, wanted=ascending, data=st.data())
def test_any_part_of_the_result_is_that_part_of_the_whole(
    times: list[float], wanted: list[float], data: st.DataObject
) -> None:
    positions = data.draw(st.lists(st.integers(0, len(wanted) - 1), max_size=6))
    step = data.draw(st.sampled_from([1, 2, -1, -3]))
    method = data.draw(st.sampled_from(METHODS))
    found = series(times).nwb.resample_like(like(wanted), method)
    whole = found.copy(deep=True).load().data.values
    np.testing.assert_array_equal(found.data.isel(time=positions).values, whole[:, positions])
    part = found.data.isel(time=slice(None, None, step), channel=[1])
    np.testing.assert_array_equal(part.values, whole[1:, ::step])
    np.testing.assert_array_equal(found.data.isel(time=-1, channel=0).values, whole[0, -1])


def test_the_last_interval_of_a_regular_time_is_a_sampling_interval_long() -> None:
    fine = RegularTimeIndex.from_rate(0.0, 8.0, 40)
    coarse = RegularTimeIndex.from_rate(1.0, 2.0, 3)
    dataset = xr.Dataset({"data": ("time", np.arange(40))}, coords=fine.coordinates())
    other = xr.Dataset(coords=coarse.coordinates())
    assert dataset.nwb.resample_like(other, "mean").data.values.tolist() == [9.5, 13.5, 17.5]
    every_other = other.isel(time=slice(None, None, 2))
    assert dataset.nwb.resample_like(every_other, "mean").data.values.tolist() == [11.5, 19.5]


def test_means_of_long_recordings_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intake_nwbzarr.accessor.resample._AT_ONCE", 4096)
    values = np.random.default_rng(0).normal(size=(20_000, 3)).astype("float32")
    fine, coarse = RegularTimeIndex.from_rate(0.0, 100.0, 20_000), RegularTimeIndex.from_rate(0.0, 1.0, 200)
    dataset = xr.Dataset({"data": (("time", "x"), values)}, coords=fine.coordinates())
    found = dataset.nwb.resample_like(xr.Dataset(coords=coarse.coordinates()), "mean").data
    assert found.dtype == "float32"
    np.testing.assert_allclose(found.values, values.reshape(200, 100, 3).mean(1, dtype=float), rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    times=ascending,
    event=st.integers(-40, 40).map(lambda number: number / 8),
    method=st.sampled_from(["nearest", "ffill", "linear"]),
    backwards=st.booleans(),
)
def test_align_takes_the_same_samples_at_the_same_times(
    times: list[float], event: float, method: str, backwards: bool
) -> None:
    # Evenly spaced times are a regular series, which has no gaps.
    assume(len(times) < 3 or len(set(np.diff(times))) > 1)
    dataset = series(times).isel(time=slice(None, None, -1 if backwards else 1))
    aligned = dataset.nwb.align([event], (-1, 1), rate=16, method=method, gap=1000.0)
    found = dataset.nwb.resample_like(event + aligned.lag.values, method)
    np.testing.assert_array_equal(found.data, aligned.data.isel(event=0).transpose())


def test_what_is_constant_stays_so_between_samples() -> None:
    dataset, wanted = series([0.0, 0.3, 1.0]), like(np.arange(0, 1, 1 / 64).tolist())
    for dtype in ("float32", "float64"):
        dataset["data"] = ("time", np.full(3, 0.1, dtype))
        found = dataset.nwb.resample_like(wanted, "linear").data
        assert found.dtype == dtype
        assert set(found.values.tolist()) == {float(np.dtype(dtype).type(0.1))}
    dataset["data"] = ("time", np.array([0, 1, 0], "float32"))
    found = dataset.nwb.resample_like(wanted, "linear").data
    np.testing.assert_allclose(found, np.interp(wanted.time, dataset.time, dataset.data), rtol=1e-7)


@pytest.mark.parametrize("method", ["nearest", "ffill", "linear"])
def test_a_missing_value_beside_a_sample_does_not_reach_its_very_time(method: str) -> None:
    dataset = series([0.0, 1.0, 2.0])
    dataset["data"] = ("time", [1.0, np.nan, 3.0])
    found = dataset.nwb.resample_like(like([0.0, 1.0, 2.0]), method)
    assert np.array_equal(found.data.values, [1.0, np.nan, 3.0], equal_nan=True)


@pytest.mark.parametrize("method", METHODS)
def test_a_reversed_series_gives_what_it_gave_forwards(method: str) -> None:
    forwards, wanted = series([0.0, 0.5, 1.5, 4.0, 4.5]), like([-1.0, 0.25, 0.5, 1.25, 4.0, 5.0])
    backwards = forwards.isel(time=slice(None, None, -1))
    expected = forwards.nwb.resample_like(wanted, method)
    np.testing.assert_array_equal(backwards.nwb.resample_like(wanted, method).data, expected.data)


def test_types_are_what_can_hold_nan() -> None:
    dataset = series([0.0, 1.0])
    for values, expected in (
        (np.array([1, 2], "int16"), "float64"),
        (np.array([True, False]), "float64"),
        (np.array([1, 2], "float32"), "float32"),
        (np.array(["a", "b"], object), "object"),
    ):
        dataset["data"] = ("time", values)
        found = dataset.nwb.resample_like(like([1.0, 9.0]), "nearest").data
        assert found.dtype == expected
        assert found.values[0] == values[1]
        assert found.values[1] != found.values[1]


def test_a_session_is_put_on_one_of_its_series_times(dataset: xr.Dataset) -> None:
    numeric = dataset[["voltage", "probe data", "units_quality", "chirp", "lick"]]
    found = numeric.nwb.resample_like(dataset["lick"], "linear")
    assert found.voltage.dims == ("lick_time", "voltage_dim_1")
    for channel in range(2):
        expected = np.interp(LICK_TIMES, VOLTAGE_TIMES, dataset.voltage[:, channel], np.nan, np.nan)
        np.testing.assert_allclose(found.voltage[:, channel], expected)
    assert found["probe data"].dims == ("lick_time", "electrodes")
    assert found["probe data"].electrodes.values.tolist() == [10, 11, 12]
    # What has no time, another zero of time, or this very time already, stays.
    assert found.units_quality.identical(dataset.units_quality)
    assert found.chirp.dims == ("chirp_time",)
    assert found.lick.identical(dataset.lick)
    assert "voltage_time" not in found.variables
    assert found.nwb.location == dataset.nwb.location


def test_nothing_is_read_before_the_result_is(path: Path) -> None:
    voltage = xr.open_dataset(path, engine="nwbzarr", group="acquisition/voltage")
    lick = xr.open_dataset(path, engine="nwbzarr", group="acquisition/lick")
    with intake_nwbzarr.track_requests() as log:
        found = voltage.nwb.resample_like(lick, "nearest")
        repr(found.data)
        assert log.requests == 0
        found.data[50:55].load()
        assert log.requests > 0
    assert np.array_equal(found.time.values, LICK_TIMES)


@pytest.mark.parametrize("method", METHODS)
def test_dask_arrays_stay_dask_arrays_of_the_same_values(
    path: Path, dataset: xr.Dataset, method: str
) -> None:
    chunked = xr.open_dataset(path, engine="nwbzarr", chunks={})[["voltage"]]
    found = chunked.nwb.resample_like(dataset["probe data"], method).voltage
    assert found.chunks is not None
    expected = dataset[["voltage"]].nwb.resample_like(dataset["probe data"], method).voltage
    np.testing.assert_array_equal(found.values, expected.values)
    again = chunked.nwb.resample_like(dataset["probe data"], method).voltage
    assert again.data.name == found.data.name


def test_samples_that_share_a_time_are_refused_where_it_matters(dataset: xr.Dataset) -> None:
    other = like([3.9, 4.0])
    with pytest.raises(SelectionError, match=r"2 samples share the time 4\.0 s"):
        dataset[["lick"]].nwb.resample_like(other, "nearest").load()


def test_timestamps_in_no_order_are_an_error() -> None:
    shuffled = series([0.0, 1.0, 2.0]).isel(time=[1, 0, 2])
    for method in METHODS:
        with pytest.raises(SelectionError, match="order"):
            shuffled.nwb.resample_like(like([0.0]), method).load()
        if method != "mean":
            with pytest.raises(SelectionError, match="order"):
                shuffled.nwb.align([-9.0], (0, 1), rate=2, method=method).load()


def test_an_empty_series_gives_nan_and_an_empty_time_nothing() -> None:
    for method in METHODS:
        empty = series([0.0, 1.0]).isel(time=slice(0))
        assert np.isnan(empty.nwb.resample_like(like([0.0, 1.0]), method).data.values).all()
        assert series([0.0]).nwb.resample_like(like([0.0])[:0], method).data.shape == (2, 0)


def test_what_means_nothing_is_refused(path: Path, dataset: xr.Dataset) -> None:
    voltage = dataset[["voltage"]]
    with pytest.raises(OptionError, match=r"method must be one of 'nearest'.*not 'cubic'"):
        voltage.nwb.resample_like(dataset["lick"], "cubic")
    with pytest.raises(OptionError, match="'linear' is not valid for 'notes'"):
        dataset[["notes"]].nwb.resample_like(dataset["lick"], "linear")
    with pytest.raises(OptionError, match=r"tolerance must be .* seconds, 0 or more, not -1"):
        voltage.nwb.resample_like(dataset["lick"], "nearest", tolerance=-1)
    with pytest.raises(OptionError, match="tolerance is not valid with method='mean'"):
        voltage.nwb.resample_like(dataset["lick"], "mean", tolerance=1)
    with pytest.raises(OptionError, match="other has several times"):
        voltage.nwb.resample_like(dataset, "nearest")
    with pytest.raises(OptionError, match="other has no time"):
        voltage.nwb.resample_like(dataset["electrodes_location"], "nearest")
    with pytest.raises(OptionError, match=r"has the shape \(\)"):
        voltage.nwb.resample_like(1.0, "nearest")
    with pytest.raises(SelectionError, match="has no series with times"):
        dataset[["units_quality"]].nwb.resample_like(dataset["lick"], "nearest")
    decoded = xr.open_dataset(path, engine="nwbzarr", decode_times=True)
    with pytest.raises(OptionError, match="without decode_times=True"):
        decoded[["voltage"]].nwb.resample_like(decoded["lick"], "nearest")


@pytest.mark.parametrize("method", METHODS)
def test_a_series_that_has_the_time_already_stays_as_it_is(method: str) -> None:
    dataset = series([0.0, 0.5, 2.0])
    assert dataset.nwb.resample_like(dataset, method).identical(dataset)
