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
from intake_nwbzarr.sessions.map.combined_results import concatenate, rows_of
from intake_nwbzarr.sessions.map.results import decode, encode, restore

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


CUT = pd.cut([0.5, 1.5, 0.7], [0, 1, 2, 3])


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame({"x": [1.0, 2.0, 3.0], "bin": CUT}).groupby("bin", observed=False).mean(),
        pd.DataFrame({"x": pd.Categorical([3, 1], categories=[1, 2, 3], ordered=True)}),
        pd.DataFrame({"x": pd.Categorical(["b", None], categories=["c", "b", "a"], ordered=True)}),
        pd.DataFrame({"x": pd.array([2**53 + 1, None], "Int64"), "y": pd.array([True, None], "boolean")}),
        pd.DataFrame({"x": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin")}),
        pd.DataFrame({"x": np.array(["2020", "NaT"], "M8[s]"), "y": np.array([1, 2], "m8[s]")}),
        pd.DataFrame({"x": pd.arrays.SparseArray([0, 1]), "y": pd.period_range("2020", periods=2, freq="M")}),
        pd.DataFrame(np.eye(2), columns=pd.Index([0.5, 1.5], name="speed"), index=[1, 1]),
        pd.DataFrame({"row": [1], 0: [2]}, index=pd.Index([3], name=1)),
        pd.DataFrame({"a": pd.Series([], dtype="int32"), "b": pd.Series([], dtype="str")}),
    ],
    ids=["cut", "numbers", "texts", "nullable", "zone", "seconds", "sparse", "labels", "row", "empty"],
)
def test_a_frame_comes_back_with_its_dtypes_and_labels(value: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(there_and_back(value), value, check_index_type="equiv")
    assert len(rows(value, value)) == 2 * len(value)


@pytest.mark.parametrize("name", ["quality", "value", None, 3, ""])
def test_a_series_may_have_the_name_of_its_index(name: Any) -> None:
    index = pd.Index(["good", "mua"], name="value" if name is None else str(name))
    series = pd.Series([5, 6], index=index, name=name)
    pd.testing.assert_series_equal(there_and_back(series), series)
    assert rows(series).index.get_level_values(1).tolist() == ["good", "mua"]
    assert rows(series).iloc[:, -1].tolist() == [5, 6]


@pytest.mark.parametrize(
    "value",
    [
        xr.DataArray([4, 7], dims="unit", coords={"unit": [4, 7]}, name="unit"),
        xr.DataArray(2.5, coords={"t": 3}, name="x"),
        xr.DataArray(2.5),
        xr.DataArray(["a\0b", "c"], dims="unit"),
        xr.DataArray([1.0, 2.0], coords={"c": pd.CategoricalIndex(CUT[:2])}, dims="c"),
        xr.DataArray(
            [1.0, 2.0], coords={"t": pd.date_range("2020", periods=2, tz="Europe/Berlin")}, dims="t"
        ),
        xr.Dataset({"a": ("x", [1, 2])}, {"x": [1, 2]}, {"title": "rates", "count": 3}),
        xr.DataArray([1, 2, 3], dims="x").chunk(1),
    ],
    ids=["coordinate", "scalar", "bare", "NUL", "categories", "zone", "attributes", "dask"],
)
def test_an_array_comes_back_with_its_dtype_and_name(value: xr.DataArray | xr.Dataset) -> None:
    back = there_and_back(value)
    xr.testing.assert_identical(back, value.compute())
    if isinstance(value, xr.DataArray):
        assert back.dtype == value.dtype
    assert len(rows(value, value)) == 2 * value.squeeze().sizes.get(next(iter(value.dims), "none"), 1)


def test_coordinates_of_no_variable_are_left_out() -> None:
    back = there_and_back(xr.Dataset({"a": ("x", [1, 2]), 1: ("x", [3, 4])}, {"y": [1, 2, 3]}))
    assert dict(back.sizes) == {"x": 2}
    assert back["1"].values.tolist() == [3, 4]


@pytest.mark.parametrize(
    "value",
    [pd.NaT, pd.NA, np.datetime64("2020"), np.timedelta64(3, "s"), pd.Interval(0, 1), pd.Period("2020")],
    ids=lambda value: type(value).__name__,
)
def test_a_scalar_of_pandas_or_numpy_is_a_value(value: Any) -> None:
    back = there_and_back({"x": value})["x"]
    assert back is None if pd.isna(value) else back == value


def test_missing_numbers_leave_the_others_exact() -> None:
    frame = rows({"n": 2**53 + 1, "b": True}, {"n": None, "b": None})
    assert frame.n.tolist() == [2**53 + 1, pd.NA]
    assert frame.b.tolist() == [True, pd.NA]
    # A session without rows has no say in the type.
    assert rows(pd.Series([2**53 + 1]), pd.Series([], dtype=float)).value.tolist() == [2**53 + 1]


def test_other_engines_read_a_result(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(encode(binned(), "s3://lab/a", LABELS)[0])
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names[:4] == ["session", "subject_id", "species", "session_id"]
    assert table["unit"].to_pylist()[0] == 4
    assert pa.types.is_floating(table["rate"].type)


SHAPES = arrays.array_shapes(max_dims=3, min_side=0, max_side=3)


@given(
    data=arrays.arrays(st.sampled_from(["f8", "i4", "bool", "M8[ns]", "f4"]), SHAPES)
    # NumPy drops NUL at the end of a text.
    | arrays.arrays(
        "U3", SHAPES, elements=st.text(st.characters(codec="utf-8", min_codepoint=1), max_size=3)
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
        (2**63, "too large"),
        (pd.Series(["\udce9"], dtype=object), "surrogates not allowed"),
        (pd.Series([1], name="\udce9"), "surrogates not allowed"),
        (iter([1]), "list_iterator"),
        (pa.table({"a": [1]}), r"pyarrow\.Table"),
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
    with pytest.raises(ResultError, match="for s3://lab/1, "):
        rows(pd.DataFrame({"a": [1]}), pd.DataFrame())
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


def test_arrays_without_common_variables_are_refused_and_never_filled() -> None:
    for one, other in (({"a": 1, "b": 2}, {"a": 1}), (1, xr.DataArray([1], dims="x"))):
        with pytest.raises(ResultError, match="Variables differ between sessions") as caught:
            _combined(one, other)
        assert caught.value.location == "s1"
