"""Time series of every type: dimensions, time, values, labels, and what is odd in real files."""

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBFile, TimeSeries

from intake_nwbzarr.errors import MappingWarning
from tests.mapping.every_series import TIMES
from tests.session_files import consolidate, copy_of, edit, empty_session, rewrite, write

# Series whose shape departs from the schema, and opening says so.
DEPARTING = {"rois_first", "frame"}

DIMENSIONS = {
    "owner": ("time",),
    "linked": ("time", "dim_1"),
    "regular": ("time",),
    "text": ("time",),
    "empty": ("time", "dim_1"),
    "controlled": ("time",),
    "position": ("time", "axis"),
    "notes": ("time",),
    "on_off": ("time",),
    "features": ("time", "feature"),
    "electrical": ("time", "channel"),
    "waveforms": ("time", "channel", "sample"),
    "single": ("time",),
    "spikes": ("event", "channel", "sample"),
    "decomposition": ("time", "channel", "band"),
    "fluorescence": ("time", "roi"),
    "rois_first": ("roi", "time"),
    "two_photon": ("time", "x", "y"),
    "one_photon": ("time", "x", "y", "z"),
    "laser": ("time",),
    "movie": ("time", "x", "y"),
    "external": ("frame", "x", "y"),
    "frame": ("time", "x", "y"),
    "colours": ("time", "x", "y", "color"),
    "shown": ("time",),
    "current_clamp": ("time",),
    "zero_clamp": ("time",),
    "current_stimulus": ("time",),
    "voltage_clamp": ("time",),
    "voltage_stimulus": ("time",),
}


@pytest.fixture(scope="module")
def session(every_series_path: Path) -> Path:
    return every_series_path


@pytest.fixture(scope="module")
def raw(session: Path) -> Iterator[NWBFile]:
    with NWBZarrIO(str(session), mode="r") as io, warnings.catch_warnings():
        # Of the oddities that are written on purpose.
        warnings.simplefilter("ignore")
        nwbfile = io.read()
        warnings.simplefilter("error")
        yield nwbfile


def opened(path: Path, name: str, **arguments: Any) -> xr.Dataset:
    """One series of `acquisition`, its known departures not complained about."""
    with warnings.catch_warnings():
        if name in DEPARTING:
            warnings.simplefilter("ignore", MappingWarning)
        return xr.open_dataset(path, engine="nwbzarr", group=f"acquisition/{name}", **arguments)


def in_units(series: TimeSeries) -> np.ndarray[Any, Any]:
    """The schema's formula, in float64."""
    data = np.asarray(series.data)
    never = type(series).__name__ in {"IndexSeries", "AnnotationSeries", "IntervalSeries"}
    factors = getattr(series, "channel_conversion", None)
    plain = series.conversion == 1 and series.offset == 0 and factors is None
    if never or plain or data.dtype.kind not in "biuf":
        return data
    conversion: Any = series.conversion
    if factors is not None:
        conversion = (conversion * np.asarray(factors)).reshape(1, -1, *[1] * (data.ndim - 2))
    return data * np.asarray(conversion, np.float64) + series.offset


@pytest.mark.parametrize("name", DIMENSIONS)
def test_every_type_has_its_dimensions_values_and_times(name: str, session: Path, raw: NWBFile) -> None:
    dataset, series = opened(session, name), raw.acquisition[name]
    assert dataset["data"].dims == DIMENSIONS[name]
    expected = in_units(series)
    assert dataset["data"].dtype == (object if expected.dtype.kind in "OUT" else expected.dtype)
    np.testing.assert_array_equal(dataset["data"].values, expected)
    assert dataset["data"].attrs["neurodata_type"] == type(series).__name__
    assert dataset["data"].attrs["nwb_path"] == f"acquisition/{name}"
    assert dataset["data"].attrs["units"] == series.unit
    if name in DEPARTING:
        return
    if series.timestamps is not None:
        np.testing.assert_array_equal(dataset["time"].values, np.asarray(series.timestamps))
    else:
        times = series.starting_time + np.arange(dataset["data"].sizes["time"]) / series.rate
        np.testing.assert_array_equal(dataset["time"].values, times)


def test_the_whole_session_holds_the_same_values(session: Path, raw: NWBFile) -> None:
    with pytest.warns(MappingWarning):
        dataset = xr.open_dataset(session, engine="nwbzarr")
    for name in DIMENSIONS:
        np.testing.assert_array_equal(dataset[name].values, in_units(raw.acquisition[name]))


def test_linked_timestamps_share_their_owners_dimension(session: Path) -> None:
    with pytest.warns(MappingWarning):
        dataset = xr.open_dataset(session, engine="nwbzarr")
    assert dataset["linked"].dims == ("owner_time", "linked_dim_1")
    assert dataset["owner"].dims == ("owner_time",)


def test_equal_regular_times_of_one_container_are_one_dimension(session: Path) -> None:
    with pytest.warns(MappingWarning):
        dataset = xr.open_dataset(session, engine="nwbzarr")
    assert dataset["regular"].dims == dataset["regular too"].dims == ("regular_time",)
    assert (dataset["regular"] - dataset["regular too"]).ndim == 1


def test_stored_values_come_with_what_scales_them(session: Path, raw: NWBFile) -> None:
    dataset = opened(session, "electrical", mask_and_scale=False)
    series = raw.acquisition["electrical"]
    np.testing.assert_array_equal(dataset["data"].values, np.asarray(series.data))
    assert dataset["data"].dtype == np.int16
    attributes = dataset["data"].attrs
    assert (attributes["conversion"], attributes["offset"], attributes["target_unit"]) == (
        1e-6,
        0.25,
        "volts",
    )
    assert "units" not in attributes
    np.testing.assert_array_equal(dataset["channel_conversion"].values, [1.0, 2.0, 3.0, 4.0])
    assert dataset["channel_conversion"].dims == ("channel",)


def test_scaled_values_carry_no_scale_to_apply_again(session: Path) -> None:
    dataset = opened(session, "electrical")
    assert not {"conversion", "offset", "scale_factor", "add_offset"} & set(dataset["data"].attrs)
    assert "channel_conversion" not in dataset


def test_float32_on_request(session: Path, raw: NWBFile) -> None:
    dataset = opened(session, "electrical", dtype="float32")
    expected = in_units(raw.acquisition["electrical"]).astype("float32")
    assert dataset["data"].dtype == np.float32
    np.testing.assert_array_equal(dataset["data"].values, expected)


def test_codes_are_never_scaled(session: Path) -> None:
    dataset = opened(session, "shown")
    assert dataset["data"].dtype == np.uint32
    assert dataset["data"].attrs["indexed_images"] == "stimulus/templates/templates"


def test_electrodes_label_the_channels(session: Path) -> None:
    dataset = opened(session, "waveforms")
    assert list(dataset["channel"].values) == [3, 1]
    assert list(dataset["x"].values) == [3.0, 1.0]
    assert dataset["x"].dims == ("channel",)


def test_a_region_of_several_electrodes_stays_with_data_of_one_dimension(session: Path) -> None:
    dataset = opened(session, "single")
    assert list(dataset["electrode"].values) == [3, 1]
    assert dataset["x"].dims == ("electrode",)


def test_labels_that_the_schema_or_a_short_list_gives_are_coordinates(session: Path) -> None:
    assert list(opened(session, "position")["axis"].values) == ["x", "y", "z"]
    assert list(opened(session, "colours")["color"].values) == ["r", "g", "b"]
    features = opened(session, "features")
    assert list(features["feature"].values) == ["orientation", "frequency"]
    assert list(features["feature_units"].values) == ["degrees", "Hz"]
    bands = opened(session, "decomposition")
    assert list(bands["band"].values) == ["theta", "gamma"]
    np.testing.assert_array_equal(bands["band_limits"].values, [[4.0, 8.0], [30.0, 90.0]])


def test_control_lies_along_time_and_its_meaning_beside_it(session: Path) -> None:
    dataset = opened(session, "controlled")
    assert dataset["control"].dims == ("time",)
    assert list(dataset["control"].values) == [0, 1, 1, 0, 1]
    assert dataset["data"].attrs["control_description"] == ["off", "on"]


def test_amplifier_settings_are_attributes(session: Path) -> None:
    attributes = opened(session, "current_clamp")["data"].attrs
    assert attributes["gain"] == 2.0
    assert attributes["bias_current"] == 1e-12
    assert attributes["sweep_number"] == 3
    assert attributes["electrode"] == "general/intracellular_ephys/elec0"
    assert opened(session, "voltage_clamp")["data"].attrs["capacitance_fast_unit"] == "farads"


def test_rois_that_come_first_are_labelled_so_and_not_moved(session: Path) -> None:
    with pytest.warns(MappingWarning, match="labelled so, and not transposed") as caught:
        dataset = xr.open_dataset(session, engine="nwbzarr", group="acquisition/rois_first")
    assert caught[0].filename == __file__
    assert dataset["data"].attrs["nwb_axis_order"] == "time,roi"
    assert dataset["time"].size == 7
    assert list(dataset["roi"].values) == [0, 1, 2]


def test_one_frame_with_ten_timestamps_opens(session: Path) -> None:
    with pytest.warns(MappingWarning, match="10 timestamps for data of shape"):
        dataset = xr.open_dataset(session, engine="nwbzarr", group="acquisition/frame")
    assert dataset.sizes["time"] == 1
    assert dataset["timestamps"].size == 10


def test_an_external_movie_has_the_times_of_its_frames(session: Path) -> None:
    dataset = opened(session, "external")
    np.testing.assert_array_equal(dataset["time"].values, TIMES)
    assert dataset["external_file"].dims == ("file",)
    assert list(dataset["external_file"].values) == ["a.avi", "b.avi"]
    assert list(dataset["starting_frame"].values) == [0, 2]
    np.testing.assert_array_equal(dataset["external_file_time"].values, TIMES[[0, 2]])


def test_events_have_times_by_which_they_are_selected(session: Path) -> None:
    dataset = opened(session, "spikes")
    assert dataset["time"].dims == ("event",)
    assert dataset.sel(time=slice(0.1, 0.7)).sizes["event"] == 3


def test_rows_first_on_request(session: Path) -> None:
    dataset = opened(session, "two_photon", image_axes="yx")
    assert dataset["data"].dims == ("time", "y", "x")


def test_resolution_of_minus_one_says_nothing(session: Path) -> None:
    assert "resolution" not in opened(session, "owner")["data"].attrs


def test_a_series_without_a_time_base_opens(session: Path, tmp_path: Path) -> None:
    path = copy_of(session, tmp_path)
    shutil.rmtree(path / "acquisition" / "regular" / "starting_time")
    consolidate(path)
    dataset = opened(path, "regular")
    assert dataset["data"].dims == ("time",)
    assert "time" not in dataset.coords


def test_a_starting_time_without_rate_is_an_attribute(session: Path, tmp_path: Path) -> None:
    path = copy_of(session, tmp_path)
    edit(path, "acquisition/regular/starting_time", lambda document: document["attributes"].pop("rate"))
    with pytest.warns(MappingWarning, match="the rate None, so that its 5 samples have no times"):
        dataset = xr.open_dataset(path, engine="nwbzarr", group="acquisition/regular")
    assert "time" not in dataset.coords
    assert dataset["data"].attrs["starting_time"] == 0.5


@pytest.mark.parametrize("rate", [0.0, -5.0, "30000", float("nan")])
def test_a_rate_that_is_none_is_told(session: Path, tmp_path: Path, rate: Any) -> None:
    path = copy_of(session, tmp_path)
    edit(path, "acquisition/regular/starting_time", lambda document: document["attributes"].update(rate=rate))
    with pytest.warns(MappingWarning, match="so that its 5 samples have no times"):
        dataset = xr.open_dataset(path, engine="nwbzarr", group="acquisition/regular")
    np.testing.assert_equal(dataset["data"].attrs["rate"], rate)


def test_one_sample_has_its_time_at_any_rate(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="one", data=[7.0], unit="V", rate=0.0, starting_time=2.5))
    dataset = xr.open_dataset(write(tmp_path, nwbfile), engine="nwbzarr", group="acquisition/one")
    assert list(dataset["time"].values) == [2.5]
    assert dataset.sel(time=2.5)["data"].item() == 7.0


def test_a_conversion_of_nan_makes_nan_and_one_that_is_no_number_is_told(tmp_path: Path) -> None:
    nwbfile = empty_session()
    series = TimeSeries(name="x", data=[1, 0], unit="V", rate=1.0, conversion=float("nan"), offset=3.0)
    nwbfile.add_acquisition(series)
    path = write(tmp_path, nwbfile)
    dataset = opened(path, "x")
    assert np.isnan(dataset["data"].values).all()
    # NaN is no null: pynwb reads the file as well.
    assert np.isnan(dataset.nwb.nwbfile.acquisition["x"].conversion)
    assert np.isnan(opened(path, "x", mask_and_scale=False)["data"].attrs["conversion"])
    edit(path, "acquisition/x/data", lambda document: document["attributes"].update(conversion="1e-6"))
    with pytest.warns(MappingWarning, match="conversion '1e-6', which is not a number"):
        xr.open_dataset(path, engine="nwbzarr", group="acquisition/x")


def test_timestamps_that_are_no_numbers_are_told(session: Path, tmp_path: Path) -> None:
    path = copy_of(session, tmp_path)
    rewrite(path, "acquisition/owner/timestamps", np.array([True] * 5))
    with pytest.warns(MappingWarning, match="timestamps of bool"):
        dataset = xr.open_dataset(path, engine="nwbzarr", group="acquisition/owner")
    assert "time" not in dataset.coords


def test_a_region_longer_than_any_axis_is_shown_beside_the_data(session: Path, tmp_path: Path) -> None:
    path = copy_of(session, tmp_path)
    here = path / "acquisition" / "electrical"
    shutil.rmtree(here / "electrodes")
    shutil.copytree(path / "acquisition" / "waveforms" / "electrodes", here / "electrodes")
    consolidate(path)
    with pytest.warns(MappingWarning, match="no axis of its data"):
        dataset = xr.open_dataset(path, engine="nwbzarr", group="acquisition/electrical")
    assert dataset["data"].dims == ("time", "channel")
    assert list(dataset["electrode"].values) == [3, 1]


def test_a_link_that_leads_nowhere_costs_only_what_it_led_to(session: Path, tmp_path: Path) -> None:
    path = copy_of(session, tmp_path)

    def break_link(document: dict[str, Any]) -> None:
        for link in document["attributes"]["_LINKS"]:
            link["path"] = "/acquisition/nowhere"

    edit(path, "acquisition/linked", break_link)
    with pytest.warns(MappingWarning, match="without its 'timestamps'"):
        dataset = xr.open_dataset(path, engine="nwbzarr", group="acquisition/linked")
    assert dataset["data"].attrs["timestamps"] == "acquisition/nowhere"


def test_times_that_count_from_1970_are_shown_as_stored_with_a_warning(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="unix", data=[1.0], unit="V", rate=1.0, starting_time=1.6e9))
    path = write(tmp_path, nwbfile)
    with pytest.warns(MappingWarning, match="seconds since 1970"):
        dataset = xr.open_dataset(path, engine="nwbzarr", group="acquisition/unix")
    assert dataset["time"].item() == 1.6e9


def test_stored_times_that_count_from_1970_are_met_when_they_are_decoded(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="unix", data=[1.0], unit="V", timestamps=[1.6e9]))
    path = write(tmp_path, nwbfile)
    with pytest.warns(MappingWarning, match="seconds since 1970"):
        xr.open_dataset(path, engine="nwbzarr", group="acquisition/unix", decode_times=True)


def test_a_type_that_pynwb_no_longer_makes_is_known_by_the_schema(session: Path, tmp_path: Path) -> None:
    path = copy_of(session, tmp_path)
    edit(
        path,
        "acquisition/movie",
        lambda document: document["attributes"].update(neurodata_type="ImageMaskSeries"),
    )
    assert opened(path, "movie")["data"].dims == ("time", "x", "y")


def test_a_type_that_no_schema_knows_is_judged_by_its_shape(session: Path, tmp_path: Path) -> None:
    path = copy_of(session, tmp_path)
    edit(
        path, "acquisition/regular", lambda document: document["attributes"].update(neurodata_type="Novelty")
    )
    dataset = opened(path, "regular")
    assert dataset["data"].dims == ("time",)
    assert dataset["data"].attrs["neurodata_type"] == "Novelty"


def test_an_extension_is_known_by_the_schema_cached_in_the_file(session: Path, tmp_path: Path) -> None:
    path = copy_of(session, tmp_path)
    _cache_schema(path)
    series = path / "acquisition" / "linked"
    for name in ("confidence", "weights"):
        shutil.copytree(path / "acquisition" / "owner" / "data", series / name)
    edit(
        path,
        "acquisition/linked",
        lambda document: document["attributes"].update(neurodata_type="PoseSeries"),
    )
    dataset = opened(path, "linked")
    assert dataset["data"].dims == ("time", "axis")
    assert list(dataset["axis"].values) == ["x", "y"]
    assert dataset["confidence"].dims == ("time",)
    # As long as time, but the schema says that it is not along it.
    assert dataset["weights"].dims == ("weights_dim_0",)


def _cache_schema(path: Path) -> None:
    schema = {
        "groups": [
            {
                "neurodata_type_def": "PoseSeries",
                "neurodata_type_inc": "SpatialSeries",
                "datasets": [
                    {"name": "data", "dims": [["num_frames", "x,y"], ["num_frames", "x,y,z"]]},
                    {"name": "confidence", "dims": ["num_frames"]},
                    {"name": "weights", "dims": ["num_weights"]},
                ],
            }
        ]
    }
    import zarr

    group = zarr.open_group(path, mode="r+", use_consolidated=False)["specifications"]
    assert isinstance(group, zarr.Group)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = group.create_array("ndx-pose/0.1.0/ndx-pose.extensions", shape=(), dtype="string")
        array[...] = json.dumps(schema)
