"""Frames of any library, lists and masks choose sessions and objects of a catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intake_nwbzarr import Find
from intake_nwbzarr.catalog.source import NWBZarrSource
from intake_nwbzarr.errors import (
    NWBZarrError,
    OptionError,
)
from intake_nwbzarr.sessions.catalog import SessionCatalog
from tests.sessions.conftest import OBJECTS


def frames(lab: SessionCatalog) -> list[Any]:
    table = pa.table({"location": ["s3://lab/2", "s3://lab/1"], "other": [1, 2]})
    database = duckdb.connect()
    return [
        table,
        table.to_pandas(),
        lab.df.loc[["s3://lab/2", "s3://lab/1"]],
        lab.df.index[:2],
        pd.Series(["s3://lab/1", "s3://lab/2"]),
        pl.from_arrow(table),
        pl.from_arrow(table)["location"],
        database.from_arrow(table),
        ["s3://lab/1", "s3://lab/2"],
        {"s3://lab/1", "s3://lab/2"},
        (key for key in ("s3://lab/1", "s3://lab/2")),
        lambda entry: entry.name in {"s3://lab/1", "s3://lab/2"},
        lab.sample(5).filter(["s3://lab/1", "s3://lab/2"]),
    ]


@pytest.mark.parametrize("number", range(13))
def test_frames_of_any_library_and_lists_filter(lab: SessionCatalog, number: int) -> None:
    assert list(lab.filter(frames(lab)[number])) == ["s3://lab/1", "s3://lab/2"]


def test_a_frame_of_paths_names_objects(lab: SessionCatalog) -> None:
    frame = pd.DataFrame({"location": ["s3://lab/1", "s3://lab/3"], "path": ["units", "acquisition/lick"]})
    assert [dict(each.paths) for each in lab.filter(frame).selected()] == [
        {"found": ("units",)},
        {"found": ("acquisition/lick",)},
    ]
    searched = lab.search(units=Find("Units", multiple="first"), any=Find(path="processing/*"))
    objects = searched.objects
    back = searched.filter(objects[objects["location"] == "s3://lab/2"])
    assert [dict(each.paths) for each in back.selected()] == [
        {"units": ("units",), "any": ("processing/behavior/position",)}
    ]
    assert next(back.selected()).multiple == {"units": "first", "any": "error"}


@pytest.mark.parametrize(
    "odd",
    [
        None,
        3,
        [3],
        pd.DataFrame({"place": ["s3://lab/1"]}),
        pd.DataFrame({"location": ["s3://lab/9"]}),
        pd.DataFrame({"location": ["s3://lab/1"], "path": ["nothing"]}),
        ["s3://lab/9"],
        "s3://lab/9",
        b"x",
    ],
)
def test_what_names_no_session_is_one_clear_error(lab: SessionCatalog, odd: Any) -> None:
    with pytest.raises(NWBZarrError):
        lab.filter(odd)


def test_other_engines_search_and_come_back(lab: SessionCatalog, tmp_path: Path) -> None:
    sessions, objects = tmp_path / "sessions.parquet", tmp_path / "sessions.objects.parquet"
    rows = {len(pd.read_parquet(sessions)), pq.read_table(sessions).num_rows, len(pl.read_parquet(sessions))}
    assert rows == {5}
    rows = {len(pd.read_parquet(objects)), pq.read_table(objects).num_rows, len(pl.read_parquet(objects))}
    assert rows == {len(OBJECTS)}

    expected = lab.search(species="mouse", found=Find("TimeSeries", unit=["cm/s", "m/s"]))
    in_sql = duckdb.connect().sql(
        f"select location, path from '{objects}' as o join '{sessions}' as s using (location) "
        "where taxon = 'Mus musculus' and list_contains(types, 'TimeSeries') and unit in ('cm/s', 'm/s')"
    )
    in_polars = (
        pl.scan_parquet(objects)
        .filter(pl.col("types").list.contains("TimeSeries"), pl.col("unit").is_in(["cm/s", "m/s"]))
        .join(pl.scan_parquet(sessions).filter(pl.col("taxon") == "Mus musculus"), on="location")
        .select("location", "path")
        .collect()
    )
    for chosen in (in_sql, in_polars):
        back = lab.filter(chosen)
        assert [each.paths for each in back.selected()] == [each.paths for each in expected.selected()]


def test_rows_without_a_name_are_found_like_those_without_names(lab: SessionCatalog) -> None:
    frame = pd.DataFrame(
        {"location": ["s3://lab/1"] * 2, "path": ["units", "processing/behavior/running_speed"]}
    )
    found = lab.filter(frame.assign(find=["units", None]))
    assert [dict(each.paths) for each in found.selected()] == [
        {"units": ("units",), "found": ("processing/behavior/running_speed",)}
    ]


KEY = "s3://lab/1"


@pytest.mark.parametrize(
    "chosen",
    [
        pa.chunked_array([[KEY]]),
        pa.array([KEY], pa.string_view()),
        pa.table({"location": pa.array([KEY], pa.string_view())}),
        pl.DataFrame({"location": pl.Series([KEY], dtype=pl.Categorical)}),
        pd.DataFrame({"location": pd.Series([KEY], dtype="category")}),
        pd.DataFrame({"x": [1]}, pd.MultiIndex.from_tuples([(KEY, 3)], names=["session", "id"])),
        pd.DataFrame({"session_id": ["first"]}, pd.Index([KEY], name="session")),
        pd.Series([True, False], pd.Index([KEY, "s3://lab/2"], name="location")),
        pd.Series([True, None], pd.Index([KEY, "s3://lab/2"], name="location"), dtype="boolean"),
        pd.Series(
            [True, True, False],
            pd.MultiIndex.from_tuples([(KEY, 0), (KEY, 1), ("s3://lab/2", 0)], names=["session", "id"]),
        ),
    ],
)
def test_frames_of_any_type_filter(lab: SessionCatalog, chosen: Any) -> None:
    assert list(lab.filter(chosen)) == [KEY]


def test_a_boolean_series_of_the_frame_filters(lab: SessionCatalog) -> None:
    frame = lab.df
    assert list(lab.filter(frame["age_days"] > 80)) == ["s3://lab/2"]
    assert list(lab.filter(frame["unit_count"] > 80)) == []
    mask = (frame["species"] == "rat").to_numpy()
    assert list(lab.filter(frame[mask])) == ["s3://lab/3"]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (pa.table([[KEY], [KEY]], names=["location", "location"]), "2 columns 'location'"),
        (pd.DataFrame([[KEY, KEY]], columns=["location", "location"]), "several columns"),
        (pa.table({"location": [KEY], "path": [["units"]]}), "a path that is"),
        (pa.table({"location": [{"a": KEY}]}), "a location that is"),
        (pd.DataFrame({"location": [KEY], "path": [None]}), "a row without a path"),
        (pd.DataFrame({"location": [float("nan")]}), "a row without a location"),
        ([float("nan")], "a row without a location"),
        (pd.DataFrame({"location": [3]}), "a location that is 3"),
        (pd.DataFrame(), "a frame without columns"),
        (pd.DataFrame({"x": [1]}), "a frame with the columns x"),
        (pd.DataFrame, "type"),
        (np.array([True, False]), r"catalog\.filter\(catalog\.df\[mask\]\)"),
        ([True, False], r"catalog\.filter\(catalog\.df\[mask\]\)"),
        (pl.Series([True, False]), r"catalog\.filter\(catalog\.df\[mask\]\)"),
        (pd.Series([True, False]), r"catalog\.filter\(catalog\.df\[mask\]\)"),
        (pl.LazyFrame({"location": [KEY]}), r"Pass the result of its method collect\(\)"),
        (dask.array.array([KEY]), r"Pass the result of its method compute\(\)"),
        (dict, "type"),
        (np.array(3), "ndarray"),
        (NWBZarrSource(KEY), "NWBZarrSource"),
    ],
)
def test_frames_that_name_no_sessions_are_one_clear_error(
    lab: SessionCatalog, chosen: Any, said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        lab.filter(chosen)
