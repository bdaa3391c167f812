"""Conditions on columns of the tables, and on objects."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake_nwbzarr import Find
from intake_nwbzarr.errors import OptionError, SessionsWarning
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.conditions import as_find, matches
from tests.sessions.conftest import write_tables

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


def column(*values: Any, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    """A column of two chunks, of which the second is empty."""
    array = pa.array(values, kind)
    return pa.chunked_array([array, array.slice(0, 0)])


TEXTS = column("Mus musculus", "mouse", None, "a[1]", "Speed", "running_speed")
NUMBERS = column(1.0, 2.5, None, 60.0)
DATES = column(NOON, NOON + dt.timedelta(days=1), None, dt.datetime(2024, 6, 30, 23, 59, 59, tzinfo=dt.UTC))
LISTS = column(["V1", "CA1"], [], None, ["v1"])


@pytest.mark.parametrize(
    ("values", "condition", "found"),
    [
        (TEXTS, "mouse", [1]),
        (TEXTS, "Mouse", []),
        (TEXTS, "m*", [0, 1]),
        (TEXTS, "*SPEED*", [4, 5]),
        (TEXTS, "?ouse", [1]),
        (TEXTS, "[sr]*", [4, 5]),
        (TEXTS, "a[1]", [3]),
        (TEXTS, ["mouse", "*speed"], [1, 4, 5]),
        (TEXTS, {"mouse"}, [1]),
        (TEXTS, pd.Series(["mouse", "rat"]), [1]),
        (TEXTS, np.array(["mouse", "rat"]), [1]),
        (TEXTS, [], []),
        (TEXTS, None, [2]),
        (TEXTS, ["mouse", None], [1, 2]),
        (NUMBERS, 1, [0]),
        (NUMBERS, [1, 60], [0, 3]),
        (NUMBERS, (2, None), [1, 3]),
        (NUMBERS, (None, 2.5), [0, 1]),
        (NUMBERS, (2.5, 60), [1, 3]),
        (NUMBERS, {"range": [2, None]}, [1, 3]),
        (NUMBERS, [(0, 1), 60], [0, 3]),
        (NUMBERS, None, [2]),
        (NUMBERS, np.float32(2.5), [1]),
        (NUMBERS, np.array(60), [3]),
        (NUMBERS, (60, float("inf")), [3]),
        (column(2**63 + 4, 2**63 + 5, 3, None, kind=pa.uint64()), 2**63 + 5, [1]),
        (column(2**63 + 4, 2**63 + 5, 3, None, kind=pa.uint64()), (2**63 + 5, None), [1]),
        (column(1, 2, None, kind=pa.decimal128(5)), (2, None), [1]),
        (column(None, None), 3, []),
        (column(None, None), None, [0, 1]),
        (column(1, 2**40, None), 2**40, [1]),
        (column(True, False, None), True, [0]),
        (column(True, False, None), False, [1]),
        (DATES, "2024-05-01", [0]),
        (DATES, "2024-05", [0, 1]),
        (DATES, "2024", [0, 1, 3]),
        (DATES, dt.date(2024, 5, 2), [1]),
        (DATES, NOON, [0]),
        (DATES, NOON.astimezone(dt.timezone(dt.timedelta(hours=5))), [0]),
        (DATES, np.datetime64("2024-05-01T12:00"), [0]),
        (DATES, np.datetime64("2024-05"), [0, 1]),
        (DATES, np.array(["2024-05-02", "2024-06-30"], "M8[D]"), [1, 3]),
        (DATES, (np.datetime64("2024-05-02"), np.datetime64("2024-06")), [1, 3]),
        (DATES, pd.Series([NOON]), [0]),
        (column(dt.date(2024, 5, 1), dt.date(2024, 6, 1), None), "2024-05", [0]),
        (DATES, "2024-05-01T14:00+02:00", [0]),
        (DATES, ("2024-05-02", None), [1, 3]),
        (DATES, ("2024-05", "2024-06"), [0, 1, 3]),
        (DATES, (None, "2024-05-01"), [0]),
        (LISTS, "V1", [0]),
        (LISTS, "v*", [0, 3]),
        (LISTS, ["CA1", "v1"], [0, 3]),
        (LISTS, None, [2]),
        (column([3, 4], [], None, [5]), (4, None), [0, 3]),
    ],
)
def test_a_condition_holds_of_the_values_that_it_names(
    values: pa.ChunkedArray, condition: Any, found: list[int]
) -> None:
    assert np.flatnonzero(matches(values, condition, "column")).tolist() == found


@pytest.mark.parametrize("values", [TEXTS, LISTS])
@pytest.mark.parametrize("condition", ["V1", "m*", ["mouse", "CA1"], None])
def test_dictionaries_give_what_plain_columns_give(values: pa.ChunkedArray, condition: Any) -> None:
    encoded = pa.dictionary(pa.int32(), pa.string())
    if pa.types.is_list(values.type):
        flat = values.combine_chunks()
        inner = flat.values.dictionary_encode()
        lists = pa.ListArray.from_arrays(flat.offsets, inner, mask=flat.is_null())
        other = pa.chunked_array([lists])
    else:
        other = values.cast(encoded)
    assert matches(other, condition, "column").tolist() == matches(values, condition, "column").tolist()


@given(
    st.lists(st.none() | st.lists(st.sampled_from(["a", "b", "ab", ""]) | st.none(), max_size=4), max_size=8),
    st.sampled_from(["a", "a*", ["a", "b"], "*b"]),
    st.integers(0, 8),
)
def test_lists_are_found_by_any_of_their_elements(
    lists: list[list[str | None] | None], condition: Any, cut: int
) -> None:
    array = pa.array(lists, pa.list_(pa.string()))
    values = pa.chunked_array([array.slice(0, cut), array.slice(cut)])
    tests = {
        "a": lambda text: text == "a",
        "a*": lambda text: text.startswith("a"),
        "*b": lambda text: text.endswith("b"),
    }
    test = tests.get(condition, lambda text: text in {"a", "b"}) if isinstance(condition, str) else None
    test = test or (lambda text: text in {"a", "b"})
    expected = [any(text is not None and test(text) for text in each or []) for each in lists]
    assert matches(values, condition, "column").tolist() == expected


@pytest.mark.parametrize(
    ("values", "condition", "said"),
    [
        (NUMBERS, "60", "numbers"),
        (NUMBERS, True, "numbers"),
        (NUMBERS, float("nan"), "numbers"),
        (NUMBERS, (math.nan, None), "numbers"),
        (NUMBERS, 10**400, "numbers"),
        (NUMBERS, (90, 60), "first bound is above its second"),
        (DATES, ("2024-06", "2024-05"), "first bound is above its second"),
        (DATES, "09:00", "dates"),
        (DATES, "January", "dates"),
        (DATES, np.datetime64("NaT", "D"), "dates"),
        (TEXTS, ("N", "s"), "Pass a list"),
        (column({"a": 1}), "x", "only condition is None"),
        (column([("a", 1)], kind=pa.map_(pa.string(), pa.int64())), "x", "only condition is None"),
        (column(b"x"), "x*", "only condition is None"),
        (column(dt.time(9)), "09:00", "only condition is None"),
        (NUMBERS, (1, "2"), "numbers"),
        (NUMBERS, (1, 2, 3), "a range"),
        (TEXTS, 3, "texts"),
        (TEXTS, object(), "texts"),
        (TEXTS, [3], "texts"),
        (column(True), "yes", "True or False"),
        (DATES, "yesterday", "dates"),
        (DATES, 3, "dates"),
        (LISTS, 3, "texts"),
        (TEXTS, {"range": 3}, "texts"),
        (TEXTS, {"rnge": [1, 2]}, "texts"),
    ],
)
def test_a_condition_that_is_not_valid_for_its_column_is_one_clear_error(
    values: pa.ChunkedArray, condition: Any, said: str
) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        matches(values, condition, "that_column")
    assert "that_column" in str(caught.value)


def test_species_and_sex_are_found_in_all_spellings(lab: SessionCatalog) -> None:
    assert [each[-1] for each in lab.search(species="mouse")] == ["1", "2", "4"]
    assert [each[-1] for each in lab.search(species="Mus musculus")] == ["1", "2", "4"]
    assert [each[-1] for each in lab.search(species=["rat", "mouse"])] == ["1", "2", "3", "4"]
    assert [each[-1] for each in lab.search(species="house*")] == ["2"]
    assert [each[-1] for each in lab.search(sex="female")] == ["1", "3"]
    assert [each[-1] for each in lab.search(species=None)] == []


def test_all_conditions_of_a_find_hold_of_one_object(lab: SessionCatalog) -> None:
    # Session 1 has a speed in cm/s; session 3 a speed in m/s, and another series in cm/s.
    found = lab.search(speed=Find("TimeSeries", name="*speed*", unit="cm/s"))
    assert [each[-1] for each in found] == ["1"]
    apart = lab.search(speed=Find("TimeSeries", name="*speed*"), other=Find("TimeSeries", unit="cm/s"))
    assert [each[-1] for each in apart] == ["1", "3"]
    paths = {each.key[-1]: each.paths for each in apart.selected()}
    assert paths["3"]["speed"] == ("processing/behavior/Speed",)
    assert paths["3"]["other"] == ("acquisition/lick",)


def test_types_are_found_by_inheritance(lab: SessionCatalog) -> None:
    assert len(lab.search(tables=Find("DynamicTable"))) == 3
    assert len(lab.search(units=Find("Units"))) == 2
    assert len(lab.search(both=Find(["Units", "TimeIntervals"]))) == 3
    assert len(lab.search(some=Find("*Series"))) == 3
    assert [each[-1] for each in lab.search(some=Find("TimeSeries", types="SpatialSeries"))] == ["2"]


def test_a_find_in_plain_form_is_that_find(lab: SessionCatalog) -> None:
    plain = {"find": {"type": "TimeSeries", "name": "*speed*", "rate": {"range": [50, None]}}}
    assert as_find(plain) == Find("TimeSeries", name="*speed*", rate={"range": [50, None]})
    assert list(lab.search(speed=plain)) == list(lab.search(speed=Find(name="*speed*", rate=(50, None))))
    assert as_find({"find": "Units"}) == Find("Units")
    assert list(lab.search(units={"find": "Units"})) == list(lab.search(units=Find("Units")))
    with pytest.raises(OptionError, match="find must be a type or a dictionary"):
        lab.search(speed={"find": 3})


def test_searches_chain(lab: SessionCatalog) -> None:
    chained = lab.search(species="mouse").search(units=Find("Units")).search(age_days=(60, 90))
    at_once = lab.search(species="mouse", units=Find("Units"), age_days=(60, 90))
    assert list(chained) == list(at_once) == ["s3://lab/1"]
    assert [each.paths for each in chained.selected()] == [{"units": ("units",)}]
    with pytest.raises(OptionError, match="earlier search"):
        chained.search(units=Find("Units"))


def test_sessions_that_were_not_scanned_are_found_only_when_asked_for(lab: SessionCatalog) -> None:
    assert len(lab) == 5
    assert len(lab.search()) == 4
    assert list(lab.search(error="*")) == ["s3://lab/5"]
    assert len(lab.search(error=["*", None])) == 5


@pytest.mark.parametrize(
    ("search", "found", "advice"),
    [
        (lambda lab: lab.search(specie="mouse"), "specie", "Did you mean 'species'?"),
        (lambda lab: lab.search(rate=3), "rate", "Find(rate=...)"),
        (lambda lab: lab.search(speed=Find(nmae="speed")), "nmae", "Did you mean 'name'?"),
        (lambda lab: lab.search(speed=Find("timeseries")), "timeseries", "Did you mean 'TimeSeries'?"),
        (lambda lab: lab.search(speed=Find("SpatialSerie")), "SpatialSerie", "'SpatialSeries'?"),
        (lambda lab: lab.unique("spcies"), "spcies", "Did you mean 'species'?"),
        (lambda lab: lab.search(units="Units"), "units", "Did you mean units=Find('Units')?"),
        (lambda lab: lab.search(rois="PlaneSegmentation"), "rois", "rois=Find('PlaneSegmentation')?"),
        (lambda lab: lab.search(sujbect_id="Units"), "sujbect_id", "Did you mean"),
    ],
)
def test_a_misspelled_name_is_an_error_that_suggests_another(
    lab: SessionCatalog, search: Any, found: str, advice: str
) -> None:
    with pytest.raises(OptionError) as caught:
        search(lab)
    assert caught.value.found == found
    assert advice in str(caught.value)


def test_a_type_that_no_object_has_is_a_warning_if_it_may_exist(lab: SessionCatalog) -> None:
    for kind in ("TwoPhotonSeries", "PoseEstimation", ["TwoPhotonSeries", "PoseEstimation"]):
        with pytest.warns(SessionsWarning, match="There is no object of the type") as warned:
            assert len(lab.search(images=Find(kind, unit="n.a."))) == 0
        assert [each.filename for each in warned] == [__file__]


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"species": "mouze"}, "No session has species='mouze'. Did you mean 'mouse'?"),
        ({"species": "Mus musculos"}, "Did you mean 'Mus musculus'?"),
        ({"species": "laboratory rta"}, "Did you mean 'laboratory rat'?"),
        ({"species": ["mouze", "horse"]}, "No session has species=['mouze', 'horse']. Did you mean 'mouse'?"),
        ({"species": np.array(["mouze"])}, "No session has species=['mouze']. Did you mean 'mouse'?"),
        ({"sex": "hermaphrodite"}, "No session has sex='hermaphrodite'. Values are 'F', 'female'."),
        ({"subject_id": "A"}, "No session has subject_id='A'. Did you mean 'a'? Values are 'a', 'b'."),
        ({"keywords": "runing", "species": "mouse"}, "keywords='runing'. Did you mean 'running'?"),
        ({"devices": "Neuropixels"}, "No session has a value in the column 'devices'."),
        ({"unit_count": (10, None)}, "No session has a value in the column 'unit_count'."),
        (
            {"speed": Find("TimeSeries", unit="cm/sec")},
            "No object of the type 'TimeSeries' has unit='cm/sec'. Did you mean 'cm/s'? Values are 'cm/s', "
            "'m', 'm/s'.",
        ),
        (
            {"speed": Find(name="runing_speed")},
            "No object has name='runing_speed'. Did you mean 'running_speed'?",
        ),
        (
            {"it": Find("Units", unit="volts")},
            "No object of the type 'Units' has a value in the column 'unit'.",
        ),
        (
            {"it": {"find": {"type": "Units", "columns": "spikes"}}},
            "has columns='spikes'. Did you mean 'spike_times'?",
        ),
    ],
)
def test_a_search_that_finds_nothing_warns_of_values_that_nothing_has(
    lab: SessionCatalog, conditions: dict[str, Any], said: str
) -> None:
    with pytest.warns(SessionsWarning) as warned:
        assert len(lab.search(**conditions)) == 0
    (warning,) = warned
    assert said in str(warning.message)
    assert warning.filename == __file__


def test_all_that_nothing_meets_is_one_warning(lab: SessionCatalog) -> None:
    with pytest.warns(SessionsWarning) as warned:
        lab.search(species="mouze", sex="x", it=Find("Units", name="unit"), other=Find(unit="cm/sec"))
    (warning,) = warned
    for text in ("species='mouze'", "sex='x'", "name='unit'. Did you mean 'units'?", "unit='cm/sec'"):
        assert text in str(warning.message)


@pytest.mark.parametrize(
    "conditions",
    [
        # Each is met by a session, but not both.
        {"species": "rat", "session_id": "first"},
        {"species": "rat", "units": Find("Units")},
        {"age_days": (600, None)},
        {"species": "*mouze*"},
        {"species": ["mouze", "horse*"]},
        {"species": []},
        {"species": None, "error": None},
        {"error": "nothing"},
        {"transient": True},
        {"not_read": "species"},
        {"session_id": "first", "speed": Find("TimeSeries", unit="m/s")},
        {"speed": Find(name="lick", unit="m/s")},
    ],
)
def test_other_searches_that_find_nothing_do_not_warn(
    lab: SessionCatalog, conditions: dict[str, Any]
) -> None:
    assert len(lab.search(**conditions)) == 0


def test_a_search_of_what_an_earlier_one_left_out_does_not_warn(lab: SessionCatalog) -> None:
    assert len(lab.search(species="rat").search(session_id="first")) == 0
    # Nor does a search that finds something.
    assert len(lab.search(species=["mouse", "mouze"])) == 3


def test_columns_that_were_not_read_are_said_to_be(tmp_path: Path) -> None:
    rows = [
        {"location": f"s3://lab/{number}", "not_read": ["species", "age"], "requests_for_all": 14 + number}
        for number in range(2)
    ]
    place = write_tables(tmp_path / "t.parquet", [*rows, {"location": "s3://lab/2"}], [])
    lab = SessionCatalog(str(place))
    for conditions in ({"species": "mouse"}, {"age_days": (60, None)}, {"taxon": "Mus musculus"}):
        with pytest.warns(SessionsWarning, match=r"not read for 2 sessions: scan again with requests=20"):
            assert len(lab.search(**conditions)) == 0
    one = [{"location": "s3://lab/1", "not_read": ["lab"]}, {"location": "s3://lab/2", "lab": "Doe"}]
    lab = SessionCatalog(str(write_tables(tmp_path / "one.parquet", one, [])))
    with pytest.warns(SessionsWarning, match=r"not read for 1 session: scan again with a larger requests="):
        assert len(lab.search(lab="Roe")) == 0


def test_tables_without_sessions_are_searched_without_a_warning(tmp_path: Path) -> None:
    lab = SessionCatalog(str(write_tables(tmp_path / "t.parquet", [], [])))
    assert len(lab.search(species="mouse")) == 0


def test_a_find_is_shown_as_it_is_written() -> None:
    shown = "Find('TimeSeries', name='*speed*', rate=(1, None), multiple='first')"
    assert repr(Find("TimeSeries", name="*speed*", rate=(1, None), multiple="first")) == shown
    assert eval(shown) == Find("TimeSeries", name="*speed*", rate=(1, None), multiple="first")
    with pytest.raises(OptionError, match="multiple must be one of"):
        Find(multiple="some")  # type: ignore[arg-type]


def test_all_spellings_are_found_for_arrays_as_well(lab: SessionCatalog) -> None:
    for kind in (np.array, pd.Series, pd.Index, pa.array, set, list):
        assert [each[-1] for each in lab.search(species=kind(["rat", "mouse"]))] == ["1", "2", "3", "4"]
    assert [each[-1] for each in lab.search(sex=np.array("female"))] == ["1", "3"]


def test_any_word_may_be_a_name(lab: SessionCatalog) -> None:
    assert len(lab.search(self=Find("Units")).search(columns=Find("DynamicTable"))) == 2
    for find in (Find(self=1), {"find": {"self": 1}}):
        with pytest.raises(OptionError, match="no column 'self'"):
            lab.search(it=find)


def test_several_types_are_a_list(lab: SessionCatalog) -> None:
    with pytest.raises(OptionError, match=r"not valid for type.* Pass a list"):
        lab.search(both=Find(("Units", "TimeIntervals")))
    with pytest.raises(OptionError, match=r"not valid for species.* Pass a list"):
        lab.search(species=("mouse", "rat"))


def test_names_that_are_not_close_are_not_suggested(lab: SessionCatalog) -> None:
    with pytest.raises(OptionError) as caught:
        lab.search(nope=1)
    assert "Did you mean" not in str(caught.value)
