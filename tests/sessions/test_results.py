"""What a function returns is stored as Parquet rows, and comes back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given

from intake_nwbzarr.errors import ResultError
from intake_nwbzarr.sessions.results import concatenate, decode, encode, restore, rows_of

LABELS: dict[str, str | None] = {"subject_id": "m1", "species": "Mus musculus", "session_id": None}


def there_and_back(value: object) -> Any:
    return restore(*decode(encode(value, "s3://lab/a", LABELS)[0]))


def rows(*values: object) -> pd.DataFrame:
    return rows_of(
        decode(encode(value, f"s3://lab/{number}", LABELS)[0]) for number, value in enumerate(values)
    )


def binned() -> xr.DataArray:
    """Return rates by unit and bins of speed, as the classic question gives them."""
    array = xr.DataArray(
        np.arange(24.0).reshape(3, 8),
        dims=("unit", "time"),
        coords={"unit": [4, 7, 9], "quality": ("unit", ["good", "mua", "good"])},
        name="rate",
        attrs={"units": "Hz", "nwb_path": "units"},
    )
    speed = xr.DataArray(np.arange(8.0), dims="time", name="speed")
    return array.groupby_bins(speed, np.arange(0, 9, 2)).mean("time", keep_attrs=True)


@pytest.mark.parametrize(
    "value",
    [3, 2.5, "text", True, np.float32(1.5), np.int64(3), float("nan"), np.bool_(False)],
    ids=lambda value: type(value).__name__,
)
def test_a_scalar_is_the_column_value(value: Any) -> None:
    frame = rows(value, value)
    assert list(frame.columns) == ["subject_id", "species", "session_id", "value"]
    assert list(frame.index) == ["s3://lab/0", "s3://lab/1"]
    assert frame.index.name == "session"
    back = there_and_back(value)
    assert back == value or (np.isnan(back) and np.isnan(value))


def test_a_dict_of_scalars_is_columns() -> None:
    value = {"n": 3, "mean": xr.DataArray(2.0), "when": pd.Timestamp("2024-05-01", tz="UTC"), "none": None}
    frame = rows(value, value | {"none": 2.5})
    assert frame.n.tolist() == [3, 3]
    assert frame["mean"].tolist() == [2.0, 2.0]
    assert frame.when.iloc[0] == value["when"]
    assert pd.isna(frame.none.iloc[0])
    assert frame.none.iloc[1] == 2.5
    assert there_and_back(value)["when"] == value["when"]


def test_a_series_and_a_frame_are_rows_with_their_index() -> None:
    series = pd.Series([1.0, 2.0], index=pd.Index(["a", "b"], name="region"), name="rate")
    assert rows(series).index.names == ["session", "region"]
    pd.testing.assert_series_equal(there_and_back(series), series)
    frame = pd.DataFrame({"x": [1, 2], "kind": pd.Categorical(["u", "v"])})
    assert rows(frame).index.names == ["session", "row"]
    back = there_and_back(frame)
    assert back.index.name is None
    pd.testing.assert_frame_equal(back, frame, check_index_type=False)
    several = frame.set_index(["x", "kind"], append=True).assign(y=[0.5, np.nan])
    assert rows(several).index.names == ["session", "row_0", "x", "kind"]
    pd.testing.assert_frame_equal(there_and_back(several), several, check_index_type=False)


def test_intervals_of_groupby_bins_survive() -> None:
    array = binned()
    frame = rows(array, array)
    assert frame.index.names == ["session", "unit", "speed_bins"]
    assert frame.index.get_level_values("speed_bins")[0] == pd.Interval(0, 2)
    assert frame.quality.iloc[-1] == "good"
    wanted = array.to_dataframe()
    np.testing.assert_array_equal(frame.loc["s3://lab/0"].rate, wanted.rate)
    back = there_and_back(array)
    xr.testing.assert_equal(back, array)
    assert isinstance(back.indexes["speed_bins"], pd.IntervalIndex)
    assert back.attrs == {"units": "Hz"}
    by_interval = pd.Series([1.0, 2.0], index=pd.IntervalIndex.from_breaks([0, 1, 2], name="bin"))
    pd.testing.assert_series_equal(there_and_back(by_interval), by_interval, check_names=False)


def test_other_engines_read_a_result(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(encode(binned(), "s3://lab/a", LABELS)[0])
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names[:4] == ["session", "subject_id", "species", "session_id"]
    assert table["unit"].to_pylist()[0] == 4
    assert pa.types.is_floating(table["rate"].type)


@given(
    data=arrays.arrays(
        st.sampled_from(["f8", "i4", "bool", "M8[ns]", "U3", "f4"]),
        arrays.array_shapes(max_dims=3, min_side=0, max_side=3),
        elements=None,
    ),
    with_coordinates=st.booleans(),
)
def test_arrays_come_back_as_they_were(data: np.ndarray[Any, Any], with_coordinates: bool) -> None:
    dims = [f"d{number}" for number in range(data.ndim)]
    coordinates = {dim: np.arange(size) * 2 for dim, size in zip(dims, data.shape, strict=True)}
    array = xr.DataArray(data, dims=dims, coords=coordinates if with_coordinates else None)
    back = there_and_back(array)
    assert back.dims == array.dims
    assert back.shape == array.shape
    np.testing.assert_array_equal(back.values.astype(data.dtype), data)
    if data.size:
        assert set(back.coords) == set(array.coords)
        for name in array.coords:
            np.testing.assert_array_equal(back[name], array[name])


def test_a_dataset_keeps_coordinates_of_several_dimensions() -> None:
    dataset = xr.Dataset(
        {"a": (("x", "y"), np.arange(6).reshape(2, 3)), "b": (("y", "x"), np.ones((3, 2)))},
        {"x": [1, 2], "area": (("y", "x"), np.arange(6.0).reshape(3, 2)), "scalar": 5},
    )
    back = there_and_back(dataset)
    xr.testing.assert_equal(back.a, dataset.a)
    xr.testing.assert_equal(back.b.transpose("y", "x"), dataset.b)
    xr.testing.assert_equal(back.area.transpose("y", "x"), dataset.area)
    assert rows(dataset).index.names == ["session", "x", "y"]


def test_a_stacked_dimension_becomes_its_levels() -> None:
    array = xr.DataArray(np.arange(4.0).reshape(2, 2), coords={"x": [1, 2], "y": [3, 4]}, name="v")
    frame = rows(array.stack(point=("x", "y")))
    assert frame.x.tolist() == [1, 1, 2, 2]
    assert frame.index.names == ["session", "point"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.arange(3), "ndarray"),
        ([1, 2], "list"),
        (object(), "object"),
        ({"x": [1, 2]}, "'x'"),
        (xr.Dataset(), "without variables"),
        (xr.Dataset({"a": ("x", [1]), "b": ("y", [1])}), "different dimensions: a \\(x\\), b \\(y\\)"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "several levels"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns"),
        (pd.DataFrame({"session": [1]}), "'session'"),
        ({"species": "mouse"}, "'species'"),
        (pd.Series([1, "x", object()], dtype=object), "cannot be stored as Parquet"),
        (1 + 2j, "cannot be stored as Parquet"),
        (xr.DataArray([1 + 2j], dims="x"), "cannot be stored as Parquet"),
    ],
)
def test_what_is_no_table_is_refused(value: object, message: str) -> None:
    with pytest.raises(ResultError, match=message):
        encode(value, "s3://lab/a", LABELS)


def test_results_without_a_common_form_are_refused_and_never_filled() -> None:
    with pytest.raises(ResultError, match="Columns differ between sessions") as caught:
        rows({"a": 1, "b": 2}, {"a": 1})
    assert "s3://lab/1" in str(caught.value)
    with pytest.raises(ResultError, match=r"\['a'\] by \['x'\]"):
        rows({"a": 1}, xr.DataArray([1], dims="x", name="a"))


def test_none_has_no_rows() -> None:
    assert len(rows(None, None)) == 0
    assert there_and_back(None) is None
    assert rows(None, 3, None).value.tolist() == [3]


def _combined(*values: object, dim: str = "session") -> xr.Dataset:
    return concatenate(
        (
            (f"s{number}", LABELS, *decode(encode(value, f"s{number}", LABELS)[0]))
            for number, value in enumerate(values)
        ),
        dim,
    )


def test_results_are_combined_along_a_new_dimension() -> None:
    array = binned()
    combined = _combined(array, None, array + 1)
    assert dict(combined.sizes) == {"session": 2, "unit": 3, "speed_bins": 4}
    assert combined.session.values.tolist() == ["s0", "s2"]
    assert combined.subject_id.dims == ("session",)
    xr.testing.assert_equal(combined.rate.sel(session="s2").drop_vars(["session", *LABELS]), array + 1)
    assert _combined({"n": 1}, {"n": 2}).n.values.tolist() == [1, 2]


def test_results_are_combined_along_a_dimension_that_they_have() -> None:
    array = binned()
    combined = _combined(array, array.isel(unit=[]), array.isel(unit=[0]), dim="unit")
    assert combined.unit.values.tolist() == [4, 7, 9, 4]
    assert combined.session.values.tolist() == ["s0", "s0", "s0", "s2"]
    assert combined.species.dims == ("unit",)
    np.testing.assert_array_equal(combined.rate[3], array[0])


def test_other_coordinates_must_be_equal() -> None:
    array = binned()
    with pytest.raises(ResultError, match="'unit'") as caught:
        _combined(array, array.isel(unit=[0, 1]))
    assert caught.value.location == "s1"
    with pytest.raises(ResultError, match="'speed_bins'"):
        _combined(array, array.isel(speed_bins=[0, 1]), dim="unit")
    with pytest.raises(ResultError, match="no dimension 'time'"):
        _combined(array, dim="time")
    with pytest.raises(ResultError, match=r"Use \.frame"):
        _combined(pd.Series([1]))
