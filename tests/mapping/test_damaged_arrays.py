"""Damaged arrays: what is damaged is left out with a warning, all else equals what pynwb reads."""

import datetime as dt
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hdmf_zarr.nwb import NWBZarrIO
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynwb import NWBFile, TimeSeries
from pynwb.ecephys import ElectricalSeries

from intake_nwbzarr.demo.sessions import add_electrodes
from intake_nwbzarr.errors import MappingWarning, NWBZarrError, NWBZarrWarning
from tests.session_files import edit, empty_session, opened, rewrite, write

ELECTRODES = "general/extracellular_ephys/electrodes"
GROUP = "general/extracellular_ephys/shank"
SERIES = ("acquisition/raw", "acquisition/lick", "acquisition/wheel")
TABLES = ("units", "intervals/trials", ELECTRODES)
TEXT = np.dtypes.StringDType()


def recording() -> NWBFile:
    nwbfile = empty_session()
    region = add_electrodes(nwbfile, 4, x=np.arange(4.0))
    nwbfile.add_acquisition(
        ElectricalSeries(
            name="raw",
            data=np.arange(40, dtype="i2").reshape(10, 4),
            electrodes=region,
            rate=10.0,
            conversion=1e-6,
        )
    )
    nwbfile.add_acquisition(TimeSeries(name="lick", data=np.ones(5), unit="n/a", timestamps=np.arange(5.0)))
    nwbfile.add_acquisition(
        TimeSeries(
            name="wheel", data=np.arange(8.0), unit="m", rate=4.0, control=[1] * 8, control_description=["a"]
        )
    )
    nwbfile.add_trial_column("stim", "side")
    for start in range(4):
        nwbfile.add_trial(start_time=float(start), stop_time=start + 0.5, stim="lr"[start % 2])
    nwbfile.add_unit_column("quality", "q")
    for unit in range(3):
        nwbfile.add_unit(
            spike_times=np.arange(unit + 2.0), electrodes=[unit], waveform_mean=np.ones(6), quality=unit / 2
        )
    return nwbfile


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole"), recording())


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "damaged.nwb.zarr"))


@pytest.mark.parametrize("name", ["spike_times_index", "electrodes_index"])
@pytest.mark.parametrize(
    "index",
    [np.array([[1], [2], [3]]), np.array(3), np.array([1.0, np.nan, 2.0]), np.array(["1", "2", "3"], TEXT)],
    ids=["rank 2", "rank 0", "floats", "texts"],
)
def test_a_column_whose_index_divides_nothing_is_left_out_of_its_table(
    path: Path, name: str, index: Any
) -> None:
    column = name.removesuffix("_index")
    rewrite(path, f"units/{name}", index)
    with pytest.warns(MappingWarning, match=rf"'units/{column}' in .* is skipped.*'units/{name}'"):
        units = opened(path, "units")
    assert units.attrs["nwb_unmapped"] == [f"units/{column}"]
    assert not [each for each in units.variables if str(each).startswith(column)]
    assert units["quality"].values.tolist() == [0.0, 0.5, 1.0]
    assert units["unit"].values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("ids", [np.array([[0], [1], [2]]), np.array(0), np.array([1j, 2j, 3j])])
def test_ids_that_name_no_rows_are_left_out(path: Path, ids: Any) -> None:
    rewrite(path, "units/id", ids)
    with pytest.warns(MappingWarning, match="'units/id' in .* is skipped.*one id for each row"):
        units = opened(path, "units")
    assert units["quality"].dims == ("unit",)
    assert "unit" not in units.coords


def test_rows_of_a_table_without_ids_are_shown_as_numbers(path: Path) -> None:
    rewrite(path, f"{ELECTRODES}/id", np.zeros((4, 2), "i8"))
    with pytest.warns(MappingWarning, match="'electrodes' of the table 'units' .* has no ids"):
        units = opened(path, "units")
    assert units["electrodes"].values.tolist() == [0, 1, 2]
    assert "electrodes_id" not in units


@pytest.mark.parametrize(
    "rows", [np.array(["a"] * 4, TEXT), np.array([True, False, True, True]), np.array([1j] * 4)]
)
def test_a_region_that_holds_no_rows_joins_nothing(path: Path, rows: Any) -> None:
    rewrite(path, "acquisition/raw/electrodes", rows)
    with pytest.warns(MappingWarning, match="instead of row numbers; no columns are joined"):
        raw = opened(path, "acquisition/raw")
    assert raw["data"].shape == (10, 4)
    assert "location" not in raw.coords


def test_a_column_of_rows_that_holds_nan_is_an_error_where_it_is_read(path: Path) -> None:
    rewrite(path, "units/electrodes", np.array([0.0, np.nan, 2.0]))
    units = opened(path, "units")
    with pytest.raises(
        NWBZarrError, match="'units/electrodes' is damaged: it has values of float64 that are not row numbers"
    ):
        units["electrodes_id"].load()


def test_the_groups_of_other_electrodes_give_no_devices(path: Path) -> None:
    edit(path, f"{ELECTRODES}/group", lambda document: document.update(shape=[3]))
    with pytest.warns(MappingWarning, match="'group' of the table .* has 3 entries instead of 4"):
        session = opened(path)
    assert "electrodes_device" not in session.coords
    assert session["electrodes_location"].values.tolist() == ["CA1"] * 4


@pytest.mark.parametrize("source", [".", "gone.nwb.zarr"])
def test_a_device_that_is_not_there_is_no_label(path: Path, source: str) -> None:
    link = [{"name": "device", "source": source, "path": "/general/devices/nowhere"}]
    edit(path, GROUP, lambda document: document["attributes"].update(_LINKS=link))
    with pytest.warns(MappingWarning, match=rf"electrodes of '{GROUP}' in .* have no device"):
        raw = opened(path, "acquisition/raw")
    assert "nowhere" not in raw.get("device", xr.DataArray([])).values


@pytest.mark.parametrize("value", [np.array(["1.0"], TEXT), np.array(1j), np.array([1.0, 2.0])])
def test_a_starting_time_that_is_no_number_gives_no_times(path: Path, value: Any) -> None:
    rewrite(path, "acquisition/wheel/starting_time", value)
    with pytest.warns(MappingWarning, match="starting_time of .* instead of one number"):
        wheel = opened(path, "acquisition/wheel")
    assert wheel["data"].shape == (8,)
    assert "time" not in wheel.coords
    assert "starting_time" in {*wheel.variables, *wheel["data"].attrs}


def test_scalars_stored_along_a_dimension_are_scalars(path: Path) -> None:
    rewrite(path, "acquisition/wheel/starting_time", np.array([0.0]))
    edit(path, "acquisition/wheel/starting_time", lambda node: node["attributes"].update(rate=[4.0]))
    edit(path, "acquisition/wheel/data", lambda node: node["attributes"].update(unit=["m"], conversion=[2.0]))
    rewrite(path, "session_description", np.array(["small"], TEXT))
    rewrite(path, "identifier", np.array(["small"], TEXT))
    rewrite(path, "timestamps_reference_time", np.array(["2024-05-01T12:00:00+00:00"], TEXT))
    dataset = opened(path, decode_times=True)
    assert dataset.attrs["session_description"] == dataset.attrs["identifier"] == "small"
    assert isinstance(dataset.attrs["file_create_date"], list)
    assert dataset["wheel"].attrs["units"] == "m"
    assert dataset["wheel"].values.tolist() == (np.arange(8.0) * 2).tolist()
    assert str(dataset["wheel_time"].values[1]) == "2024-05-01T12:00:00.250000000"


def test_an_identifier_that_is_a_list_is_taken_as_a_text(path: Path) -> None:
    rewrite(path, "identifier", np.array([1, 2]))
    session = opened(path)
    assert list(session.attrs["identifier"]) == [1, 2]
    assert session.nwb.restrict(0.0, 1.0).sizes["wheel_time"] == 4


def test_names_that_are_padded_to_one_length_are_trimmed(path: Path) -> None:
    order = ["quality\0\0\0", "spike_times ", "electrodes\0 ", "waveform_mean\0"]
    edit(path, "units", lambda node: node["attributes"].update(colnames=order, neurodata_type="Units\0\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        units = opened(path, "units")
    assert units["quality"].dims == ("unit",)
    assert [name for name in units.data_vars if name in {each.rstrip(" \0") for each in order}] == [
        "quality",
        "spike_times",
        "electrodes",
        "waveform_mean",
    ]
    assert units.attrs["neurodata_type"] == "Units"


def test_an_object_shows_its_whole_datasets_where_one_is_damaged(path: Path) -> None:
    for chunk in (path / "acquisition/raw/electrodes/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no such codec")
    with pytest.warns(MappingWarning, match="'acquisition/raw/electrodes' in .* is skipped"):
        raw = opened(path, "acquisition/raw")
    assert raw.attrs["nwb_unmapped"] == ["acquisition/raw/electrodes"]
    np.testing.assert_allclose(raw["data"].values, np.arange(40).reshape(10, 4) * 1e-6)


def test_one_object_says_whose_it_is(tmp_path: Path) -> None:
    from pynwb.file import Subject

    nwbfile = recording()
    nwbfile.session_id = "day 3"
    nwbfile.subject = Subject(subject_id="m1", species="Mus musculus", age="P90D")
    path = write(tmp_path, nwbfile)
    expected = {"subject_id": "m1", "subject_species": "Mus musculus", "session_id": "day 3"}
    for group in ("acquisition/raw", "acquisition", "units", "acquisition/*"):
        attributes = opened(path, group).attrs
        assert {name: attributes[name] for name in expected} == expected
        assert "subject_age" not in attributes


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_times_without_a_zone_are_local_as_in_pynwb(
    path: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = pytest.importorskip("time")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for name in ("session_start_time", "timestamps_reference_time"):
            rewrite(path, name, np.array("2024-05-01T12:00:00", TEXT))
        with warnings.catch_warnings(action="ignore"), NWBZarrIO(str(path), "r") as io:
            expected = io.read().timestamps_reference_time.astimezone(dt.UTC).replace(tzinfo=None)
        with pytest.warns(
            MappingWarning, match=r"without a time zone. It is taken as local time .*\(UTC[+-]0"
        ):
            dataset = opened(path, decode_times=True)
        assert dataset["lick_time"].values[0] == np.datetime64(expected)
        # Counted from the same instant wherever the Dataset is sent.
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()
        window = [np.datetime64(expected) + np.timedelta64(second, "s") for second in (1, 3)]
        assert dataset.nwb.restrict(*window).sizes["lick_time"] == 2
        assert opened(path).attrs["session_start_time"] == "2024-05-01T12:00:00"
    finally:
        monkeypatch.undo()
        time.tzset()


ARRAYS = st.sampled_from(
    [
        "units/id",
        "units/spike_times",
        "units/spike_times_index",
        "units/electrodes",
        "units/electrodes_index",
        "units/waveform_mean",
        "units/quality",
        "intervals/trials/id",
        "intervals/trials/start_time",
        "intervals/trials/stim",
        f"{ELECTRODES}/id",
        f"{ELECTRODES}/x",
        f"{ELECTRODES}/group",
        f"{ELECTRODES}/location",
        "acquisition/raw/data",
        "acquisition/raw/electrodes",
        "acquisition/raw/starting_time",
        "acquisition/lick/timestamps",
        "acquisition/lick/data",
        "acquisition/wheel/control",
        "acquisition/wheel/control_description",
        "acquisition/wheel/starting_time",
        "session_start_time",
        "identifier",
    ]
)
SHAPES = st.sampled_from([(), (0,), (1,), (2,), (3,), (4,), (5,), (9,), (3, 1), (1, 3), (0, 2), (2, 2, 2)])
KINDS = st.sampled_from(["i1", "u8", "i8", "f4", "f8", "c16", "?", "S3", "U2", "T", "M8[s]"])
NUMBERS = st.sampled_from([-2, -1, 0, 1, 2, 3, 7, 100])


@st.composite
def damaged_values(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Values of any rank, length and kind: indexes that fall or lead beyond the end, NaN, texts."""
    shape, kind = draw(SHAPES), draw(KINDS)
    size = int(np.prod(shape))
    numbers = np.array(draw(st.lists(NUMBERS, min_size=size, max_size=size)), "i8").reshape(shape)
    if kind == "T":
        return numbers.astype("U").astype(TEXT)
    values = numbers.astype(kind) if kind[0] != "u" else np.abs(numbers).astype(kind)
    if kind[0] in "fc" and size and draw(st.booleans()):
        values.flat[0] = np.nan
    return values


def _views(path: Path) -> Iterator[xr.Dataset]:
    calls: list[Callable[[], Any]] = [
        lambda: opened(path),
        lambda: opened(path, decode_times=True),
        lambda: opened(path, mask_and_scale=False),
        *(lambda group=group: opened(path, group) for group in (*SERIES, *TABLES, "acquisition")),
        lambda: list(xr.open_datatree(path, engine="nwbzarr").subtree),
    ]
    for call in calls:
        try:
            found = call()
        except NWBZarrError:
            continue
        for each in found if isinstance(found, list) else [found]:
            yield each.to_dataset() if isinstance(each, xr.DataTree) else each


def _opens_or_says_why(whole: Path, folder: Path, array: str, values: np.ndarray[Any, Any]) -> None:
    """Every view opens and every variable loads, or one of our errors says why; what is whole is right."""
    path = folder / "fuzzed.nwb.zarr"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole, path)
    # zarr warns that other libraries may not read some of these types.
    with warnings.catch_warnings(action="ignore"):
        rewrite(path, array, values)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for view in _views(path):
            for variable in view.variables.values():
                try:
                    variable.load()
                except NWBZarrError:
                    continue
            repr(view)
        flat = opened(path)
    # Warnings of NumPy's and xarray's would be about what we made of it.
    assert not [each for each in told if not issubclass(each.category, NWBZarrWarning | UserWarning)]
    with warnings.catch_warnings(action="ignore"), NWBZarrIO(str(whole), "r") as io:
        expected = _expected(io.read())
        for place, (name, raw) in expected.items():
            if not array.startswith(place):
                np.testing.assert_array_equal(flat[name].values, raw)


def _expected(nwbfile: NWBFile) -> dict[str, tuple[str, Any]]:
    """What pynwb reads, by what it depends on, and the variable that shows it."""
    lick, wheel = nwbfile.acquisition["lick"], nwbfile.acquisition["wheel"]
    return {
        "acquisition/raw/data": ("raw", nwbfile.acquisition["raw"].data[:] * 1e-6),
        "acquisition/lick/data": ("lick", lick.data[:]),
        "acquisition/lick": ("lick_time", lick.timestamps[:]),
        "acquisition/wheel/data": ("wheel", wheel.data[:]),
        "acquisition/wheel": ("wheel_time", np.arange(8) / 4.0),
        "intervals": ("trials_start_time", nwbfile.trials["start_time"][:]),
        "units/spike_times": ("units_spike_times", nwbfile.units["spike_times"].target.data[:]),
        "units/quality": ("units_quality", nwbfile.units["quality"][:]),
        f"{ELECTRODES}/x": ("electrodes_x", nwbfile.electrodes["x"][:]),
    }


FUZZ = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "derandomize": True,
}


@given(array=ARRAYS, values=damaged_values())
@settings(max_examples=4, **FUZZ)
def test_whatever_an_array_holds_the_rest_of_the_session_is_right(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, array: str, values: np.ndarray[Any, Any]
) -> None:
    _opens_or_says_why(whole, tmp_path_factory.getbasetemp(), array, values)


@pytest.mark.slow
@pytest.mark.timeout(900)
@given(array=ARRAYS, values=damaged_values())
@settings(max_examples=100, **FUZZ)
def test_whatever_an_array_holds_the_rest_of_the_session_is_right_at_length(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, array: str, values: np.ndarray[Any, Any]
) -> None:
    _opens_or_says_why(whole, tmp_path_factory.getbasetemp(), array, values)
