"""One table over all sessions, compared with reading each session by itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hdmf.common import DynamicTable, VectorData
from pynwb.file import Subject

import intake_nwbzarr
from intake_nwbzarr import Find, track_requests
from intake_nwbzarr.errors import (
    AccessError,
    LocationNotFoundError,
    NodeNotFoundError,
    OptionError,
    SessionsWarning,
)
from intake_nwbzarr.sessions.catalog import SessionCatalog
from tests.session_files import empty_session, write

UNITS = (3, 5, 4)


def _session(folder: Path, number: int) -> Path:
    random = np.random.default_rng(number)
    subject = Subject(subject_id=f"m{number}", species="mouse", sex="F", age="P90D")
    nwbfile = empty_session(subject=subject, session_id=f"day {number}")
    nwbfile.add_unit_column("quality", "good or noise")
    nwbfile.add_unit_column("depth", "in microns")
    if number != 2:
        nwbfile.add_unit_column("snr", "signal to noise")
    for unit in range(UNITS[number]):
        more = {} if number == 2 else {"snr": float(number * 10 + unit)}
        nwbfile.add_unit(
            id=unit + 10 * number,
            spike_times=np.sort(random.uniform(0, 10, 50 + unit)),
            quality="good" if unit % 2 else "noise",
            depth=100.0 * unit,
            **more,
        )
    nwbfile.add_trial_column("outcome", "hit or miss")
    for trial in range(4):
        nwbfile.add_trial(
            start_time=float(trial), stop_time=trial + 0.5, outcome="hit" if trial % 2 else "miss"
        )
    return write(folder, nwbfile, f"{number}.nwb.zarr")


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    for number in range(3):
        _session(folder, number)
    write(folder, empty_session(), "empty.nwb.zarr")
    intake_nwbzarr.scan(folder, output=folder / "sessions.parquet")
    return folder


@pytest.fixture
def lab(scanned: Path) -> SessionCatalog:
    return SessionCatalog(str(scanned / "sessions.parquet"))


def one(lab: SessionCatalog, key: str, path: str = "units") -> pd.DataFrame:
    frame: pd.DataFrame = xr.open_dataset(key, engine="nwbzarr", group=path).nwb.to_dataframe()
    return frame


def assert_cells(found: pd.Series[Any], expected: pd.Series[Any]) -> None:
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_rows_are_those_of_each_session(lab: SessionCatalog) -> None:
    found = lab.search(session_id="day [01]")
    frame = found.table("units")
    assert frame.index.names == ["session", "id"]
    assert list(frame.columns[:3]) == ["subject_id", "species", "session_id"]
    assert len(frame) == sum(UNITS[:2])
    for key in found:
        expected = one(lab, key)
        rows = frame.loc[key]
        assert list(rows.index) == list(expected.index)
        for name in expected.columns:
            assert_cells(rows[name], expected[name])
    assert frame["subject_id"].tolist() == ["m0"] * 3 + ["m1"] * 5
    assert frame["species"].unique().tolist() == ["Mus musculus"]
    assert frame.attrs == {"failures": [], "missing": {}}


def test_a_table_is_named_by_a_find_or_by_its_path_or_name(lab: SessionCatalog) -> None:
    by_path = lab.table("intervals/trials")
    pd.testing.assert_frame_equal(by_path, lab.table("trials"))
    pd.testing.assert_frame_equal(by_path, lab.table("/intervals/trials"))
    pd.testing.assert_frame_equal(by_path, lab.search(when=Find("TimeIntervals")).table("when"))
    assert len(by_path) == 12
    # A table that no Find has found.
    pd.testing.assert_frame_equal(by_path, lab.search(units=Find("Units")).table("intervals/trials"))
    # Sessions without units are searched by another condition.
    assert len(lab.search(when=Find("TimeIntervals")).table("units", ["quality"])) == sum(UNITS)


def test_only_the_chunks_of_the_columns_are_read(lab: SessionCatalog) -> None:
    found = lab.search(session_id="day 0")
    with track_requests() as log:
        frame = found.table("units", columns=["depth", "quality"])
    assert list(frame.columns[3:]) == ["depth", "quality"]
    # Two for metadata, one of which is not there; ids; and one for each column.
    assert log.requests == 5
    with track_requests() as log:
        found.table("units", columns=["spike_times"])
    # Metadata are in memory now; the ids, the index and the values.
    assert log.requests <= 2 + 3


def test_conditions_choose_rows_and_the_rest_is_read_for_those(lab: SessionCatalog) -> None:
    everything = lab.table("units", ["spike_times", "quality", "depth"])
    where = {"quality": "good", "depth": (200, None)}
    chosen = lab.table("units", columns=["spike_times"], where=where)
    expected = everything[(everything["quality"] == "good") & (everything["depth"] >= 200)]
    assert list(chosen.columns[3:]) == ["spike_times"]
    assert chosen.index.tolist() == expected.index.tolist()
    assert_cells(chosen["spike_times"], expected["spike_times"])
    whole = lab.table("units", ["spike_times", "quality", "depth"], where=where)
    assert whole["quality"].tolist() == ["good"] * len(expected)
    with pytest.warns(
        SessionsWarning, match="No row has quality='mua'. Values are 'good', 'noise'"
    ) as warned:
        none = lab.table("units", columns=["spike_times"], where={"quality": "mua"})
    assert [each.filename for each in warned] == [__file__]
    assert len(none) == 0
    assert none.index.names == ["session", "id"]


def test_conditions_that_rows_meet_in_some_session_or_not_together_do_not_warn(lab: SessionCatalog) -> None:
    assert len(lab.table("units", ["depth"], {"quality": "good", "depth": (1e6, None)})) == 0
    assert len(lab.table("units", ["depth"], {"quality": "mu*"})) == 0
    assert len(lab.table("units", ["depth"], {"quality": ["mua", "good"]})) > 0


def test_values_of_rows_that_no_condition_holds_of_are_not_read(lab: SessionCatalog) -> None:
    with track_requests() as log:
        lab.search(session_id="day 0").table("units", ["spike_times"], where={"depth": (1e6, None)})
    # Metadata, ids, the index of the spike times, and the condition's column; no spike times.
    assert log.requests == 5


def test_ragged_columns_have_conditions_on_their_elements(lab: SessionCatalog) -> None:
    chosen = lab.table("units", ["depth"], where={"spike_times": (9.9, None)})
    everything = lab.table("units", ["spike_times"])
    expected = [index for index, times in everything["spike_times"].items() if (times >= 9.9).any()]
    assert chosen.index.tolist() == expected
    assert 0 < len(expected) < len(everything)


def test_a_column_that_some_sessions_lack_is_told(lab: SessionCatalog) -> None:
    with pytest.warns(SessionsWarning, match=r"'snr' in 1 of 3\. Their values are missing there"):
        frame = lab.table("units", ["snr", "depth"])
    (key,) = frame.attrs["missing"]["snr"]
    assert key.endswith("/2.nwb.zarr")
    assert frame.loc[key, "snr"].isna().all()
    assert frame["snr"].notna().sum() == sum(UNITS[:2])
    with pytest.warns(SessionsWarning, match="no rows of sessions without 'snr'"):
        chosen = lab.table("units", ["depth"], where={"snr": (1, None)})
    assert key not in chosen.index.get_level_values("session")
    with pytest.warns(SessionsWarning, match="'snr' in 1"):
        assert len(lab.table("units")) == sum(UNITS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"columns": ["dpeth"]}, "Did you mean 'depth'?"),
        ({"where": {"dpeth": 3}}, "Did you mean 'depth'?"),
        ({"columns": ["depth"], "where": {"quality": 3}}, "must be a value"),
        ({"columns": 3}, "columns must be"),
        ({"where": ["depth"]}, "where must be"),
        ({"threads": 0}, "threads must be"),
    ],
)
def test_what_is_not_valid_is_one_clear_error(
    lab: SessionCatalog, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError) as caught:
        lab.table("units", **arguments)
    assert said in str(caught.value)


def test_what_is_no_table_is_one_clear_error(lab: SessionCatalog, every_series_path: Path) -> None:
    with pytest.raises(NodeNotFoundError, match="Did you mean 'units'"):
        lab.table("unit")
    for odd in (None, 3, ""):
        with pytest.raises(OptionError, match="table must be"):
            lab.table(odd)  # type: ignore[arg-type]
    intake_nwbzarr.scan(every_series_path, output=every_series_path.parent / "sessions.parquet")
    series = SessionCatalog(str(every_series_path.parent / "sessions.parquet"))
    path = series.search(it=Find("TimeSeries")).unique("path")[0]
    with pytest.raises(OptionError, match=r"table\(\) reads tables"):
        series.table(path)


def test_several_tables_of_a_session_are_refused_unless_the_find_says_which(lab: SessionCatalog) -> None:
    with pytest.raises(OptionError, match="matches 2 objects"):
        lab.search(any=Find("DynamicTable")).table("any")
    first = lab.search(any=Find("DynamicTable", multiple="first")).table("any")
    assert "start_time" in first
    both = lab.search(any=Find("DynamicTable", multiple="all")).table
    with pytest.warns(SessionsWarning):
        frame = both("any", ["depth", "outcome"])
    assert frame["path"].value_counts().to_dict() == {"units": sum(UNITS), "intervals/trials": 12}


def test_sessions_that_cannot_be_read_are_told(scanned: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scanned, tmp_path / "copy"))
    intake_nwbzarr.scan(folder, output=folder / "copied.parquet")
    shutil.rmtree(folder / "1.nwb.zarr")
    lab = SessionCatalog(str(folder / "copied.parquet"))
    with pytest.warns(SessionsWarning, match="1 of 3 sessions could not be read") as warned:
        frame = lab.table("units", ["depth"])
    assert warned[0].filename == __file__
    (failure,) = frame.attrs["failures"]
    assert failure["session"].endswith("1.nwb.zarr")
    assert failure["error"] == "LocationNotFoundError"
    assert failure["transient"] is False
    assert len(frame) == UNITS[0] + UNITS[2]
    for number in (0, 2):
        shutil.rmtree(folder / f"{number}.nwb.zarr")
    with pytest.raises(LocationNotFoundError):
        lab.table("units")


def test_what_tables_must_not_name_is_a_failure(scanned: Path, tmp_path: Path) -> None:
    for name in ("sessions.parquet", "sessions.objects.parquet"):
        shutil.copy(scanned / name, tmp_path / name)
    with pytest.raises(AccessError, match="outside the folder of the tables"):
        SessionCatalog(str(tmp_path / "sessions.parquet")).table("units")
    allowed = SessionCatalog(str(tmp_path / "sessions.parquet"), {"data": {"prefix": str(scanned)}})
    assert len(allowed.table("units", ["depth"])) == sum(UNITS)


def test_snapshots_in_the_table_are_used(scanned: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scanned, tmp_path / "copy"))
    intake_nwbzarr.scan(folder, output=folder / "kept.parquet", snapshots=True)
    lab = SessionCatalog(str(folder / "kept.parquet")).search(session_id="day 0")
    with track_requests() as log:
        frame = lab.table("units", ["depth"])
    assert len(frame) == UNITS[0]
    assert log.requests <= 2


def test_no_sessions_have_no_rows(lab: SessionCatalog) -> None:
    with pytest.warns(SessionsWarning, match="No session has species='rat'"):
        rats = lab.search(species="rat", units=Find("Units"))
    frame = rats.table("units", ["depth"], {"quality": "good"})
    assert len(frame) == 0
    assert list(frame.columns) == ["subject_id", "species", "session_id", "depth"]
    assert frame.index.names == ["session", "id"]


def test_ids_have_conditions(lab: SessionCatalog) -> None:
    found = lab.search(session_id="day [01]")
    for columns in (["depth"], [], ["spike_times"]):
        frame = found.table("units", columns, where={"id": [2, 10]})
        assert [each[1] for each in frame.index] == [2, 10]
    frame = found.table("units", ["depth"], where={"id": (0, 12), "depth": (100, None)})
    assert [each[1] for each in frame.index] == [1, 2, 11, 12]
    assert list(found.filter(frame)) == list(found)


@pytest.fixture
def odd(tmp_path: Path) -> SessionCatalog:
    """Two sessions with columns of unusual types, and two tables of one name."""
    for number in range(2):
        nwbfile = empty_session(session_id=f"day {number}")
        table = DynamicTable(
            name="odd",
            description="odd",
            columns=[
                VectorData(name="large", description="large", data=np.array([1, 2**63 + 5], np.uint64)),
                VectorData(name="images", description="images", data=np.zeros((2, 3, 4))),
                VectorData(name="path", description="path", data=["a", "b"]),
                VectorData(name="mixed", description="mixed", data=[1.0, 2.0] if number else ["x", "y"]),
            ],
        )
        nwbfile.add_acquisition(table)
        again = DynamicTable(
            name="odd", description="again", columns=[VectorData(name="path", description="p", data=["c"])]
        )
        nwbfile.create_processing_module("one", "one").add(again)
        write(tmp_path, nwbfile, f"{number}.nwb.zarr")
    intake_nwbzarr.scan(tmp_path, output=tmp_path / "sessions.parquet")
    return SessionCatalog(str(tmp_path / "sessions.parquet"))


def test_columns_of_any_type_have_conditions_or_say_why_not(odd: SessionCatalog) -> None:
    assert len(odd.table("acquisition/odd", ["path"], where={"large": 2**63 + 5})) == 2
    assert len(odd.table("acquisition/odd", ["path"], where={"large": 2**63 + 4})) == 0
    with pytest.raises(OptionError, match="'images' of 'acquisition/odd' has several values in a row"):
        odd.table("acquisition/odd", ["path"], where={"images": 3})
    with pytest.warns(SessionsWarning, match="1 of 2 sessions could not be read or compared"):
        frame = odd.table("acquisition/odd", ["path"], where={"mixed": (1, None)})
    assert len(frame) == 2


def test_a_column_named_path_is_the_tables(odd: SessionCatalog) -> None:
    found = odd.search(all=Find("DynamicTable", name="odd", multiple="all"))
    assert found.table("all", ["path"])["path"].tolist() == ["a", "b", "c"] * 2


def test_a_name_of_several_tables_asks_for_the_path(odd: SessionCatalog) -> None:
    with pytest.raises(OptionError) as caught:
        odd.table("odd")
    assert "2 objects named 'odd': acquisition/odd, processing/one/odd" in str(caught.value)
    assert "Pass the path of one" in str(caught.value)
    assert "'table'" not in str(caught.value)
    assert len(odd.table("processing/one/odd")) == 2
