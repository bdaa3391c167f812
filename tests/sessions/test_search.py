"""Searches of tables: sessions and objects that are found, and warnings where none are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from intake_nwbzarr import Find
from intake_nwbzarr.errors import OptionError, SessionsWarning
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.conditions import as_find
from tests.sessions.conftest import write_tables


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
