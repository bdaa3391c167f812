"""The catalog of many sessions: what it gives, and what it reads."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
import yaml

from intake_nwbzarr import Find, track_requests
from intake_nwbzarr.catalog.source import NWBZarrSource
from intake_nwbzarr.copies.recording import record_session
from intake_nwbzarr.copies.snapshot import encode
from intake_nwbzarr.errors import (
    AccessError,
    LocationNotFoundError,
    OptionError,
    SessionNotFoundError,
    SnapshotError,
    StaleSnapshotError,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.tables.table_schema import table_of
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import copy_of, edit
from tests.sessions.conftest import OBJECTS, SESSIONS, UNITS, write_tables
from tests.test_invalid_arguments import foreign


def test_it_is_a_mapping_of_locations_to_sources(lab: SessionCatalog) -> None:
    assert len(lab) == 5
    assert list(lab) == [row["location"] for row in SESSIONS] == list(lab.keys())
    assert "s3://lab/1" in lab
    assert "s3://lab/9" not in lab
    source = lab["s3://lab/1"]
    assert isinstance(source, NWBZarrSource)
    assert source.location == locate("s3://lab/1")
    assert [key for key, _ in lab.items()] == list(lab)
    assert all(isinstance(each, NWBZarrSource) for each in lab.values())


@pytest.mark.parametrize("key", ["s3://lab/9", "", "units", 3, None, slice(0, 2), ["s3://lab/1"]])
def test_a_key_that_is_not_there_is_a_key_error(lab: SessionCatalog, key: Any) -> None:
    with pytest.raises(KeyError) as caught:
        lab[key]
    assert isinstance(caught.value, SessionNotFoundError)
    assert ("are locations, not" in str(caught.value)) is not isinstance(key, str)


def test_a_misspelled_key_names_the_closest(lab: SessionCatalog) -> None:
    with pytest.raises(SessionNotFoundError, match="Did you mean 's3://lab/"):
        lab["s3://lab/11"]
    with pytest.raises(SessionNotFoundError, match="not among the sessions that the search found"):
        lab.search(species="rat")["s3://lab/1"]


def test_every_result_is_of_the_same_class(lab: SessionCatalog) -> None:
    class Mine(SessionCatalog):
        pass

    mine = Mine(lab.urlpath)
    for result in (mine.search(species="mouse"), mine.filter(["s3://lab/1"]), mine.sample(2), mine()):
        assert type(result) is Mine


def test_the_sessions_are_a_frame_indexed_by_location(lab: SessionCatalog) -> None:
    frame = lab.search(species="mouse").df
    assert list(frame.index) == ["s3://lab/1", "s3://lab/2", "s3://lab/4"]
    assert frame.index.name == "location"
    assert frame.loc["s3://lab/1", "age_days"] == 70
    assert frame["species"].tolist() == ["Mus musculus", "House mouse", "mouse"]
    assert list(frame.loc["s3://lab/1", "keywords"]) == ["running", "V1"]
    assert frame["unit_count"].dtype == pd.Int64Dtype()
    assert "snapshot" not in frame


def test_the_objects_are_those_found_or_all(lab: SessionCatalog) -> None:
    assert len(lab.objects) == len(OBJECTS)
    assert len(lab.search(species="mouse").objects) == 5
    found = lab.search(units=Find("Units"), any=Find(path="processing/*")).objects
    assert found[["location", "find", "path"]].to_numpy().tolist() == [
        ["s3://lab/1", "any", "processing/behavior/running_speed"],
        ["s3://lab/1", "units", "units"],
        ["s3://lab/2", "any", "processing/behavior/position"],
        ["s3://lab/2", "units", "units"],
    ]


def test_unique_values_are_of_sessions_or_of_found_objects(lab: SessionCatalog) -> None:
    assert lab.unique("species") == ["House mouse", "Mus musculus", "mouse", "rat"]
    assert lab.unique("keywords") == ["V1", "running"]
    assert lab.unique("unit") == ["cm/s", "m", "m/s"]
    assert lab.search(speed=Find(name="*speed")).unique("unit") == ["cm/s", "m/s"]
    assert lab.search(species="rat").unique("type") == ["TimeSeries"]


def test_a_sample_is_random_and_the_same_for_a_seed(lab: SessionCatalog) -> None:
    assert list(lab.sample(2)) == list(lab.sample(2))
    assert len({tuple(lab.sample(2, seed)) for seed in range(20)}) > 3
    assert list(lab.sample(99)) == list(lab)
    assert len(lab.sample(0)) == 0
    for odd in (-1, 1.5, "2", None, True):
        with pytest.raises(OptionError):
            lab.sample(odd)  # type: ignore[arg-type]


def test_the_repr_shows_what_there_is(lab: SessionCatalog) -> None:
    text = repr(lab)
    assert text.startswith(f"<SessionCatalog {lab.tables.place}: 5 sessions>")
    assert "Mus musculus 3, Rattus norvegicus 1" in text
    assert "1 could not be scanned: search(error='*')" in text
    assert "2 sessions of 'lab', for which storage_options has no entry" in text
    found = lab.search(units=Find("Units"))
    assert "2 of 5 sessions" in repr(found)
    assert "2 objects  Find('Units')" in repr(found)
    html = found._repr_html_()
    assert "Find(&#x27;Units&#x27;)" in html
    assert "s3://lab/1" in html
    assert found._ipython_display_ is None


def test_the_repr_of_tables_that_are_not_there_says_so(tmp_path: Path) -> None:
    missing = SessionCatalog(str(tmp_path / "none.parquet"))
    assert "does not exist" in repr(missing)
    assert "does not exist" in missing._repr_html_()
    with pytest.raises(LocationNotFoundError):
        len(missing)


def test_a_table_is_data_for_html_as_well(tmp_path: Path) -> None:
    rows = [{"location": "s3://lab/1", "subject_id": "<script>alert(1)</script>"}]
    assert "<script>" not in SessionCatalog(str(write_tables(tmp_path / "t.parquet", rows, [])))._repr_html_()


def test_what_is_found_is_a_plain_catalog(real: SessionCatalog, tmp_path: Path, s3_server: S3Server) -> None:
    found = real.search(units=Find("Units"))
    text = found.to_yaml(tmp_path / "found.yaml")
    assert text == (tmp_path / "found.yaml").read_text() == found.serialize()
    assert s3_server.secret not in text
    assert s3_server.key not in text
    (entry,) = yaml.safe_load(text)["sources"].values()
    assert entry["args"]["group"] == "units"
    assert entry["args"]["storage_options"] == {"endpoint_url": s3_server.endpoint_url}


def test_a_plain_catalog_of_public_sessions_opens(
    http_server: StaticServer, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    for name in ("1.nwb.zarr", "a/session.nwb.zarr", "b/session.nwb.zarr"):
        (http_server.root / name).parent.mkdir(exist_ok=True)
        copy_of(corpus_dir("ecephys", "0.14.0"), http_server.root, name)
    rows = [
        {"location": f"{http_server.url}/{name}", "subject_id": "R6"}
        for name in ("1.nwb.zarr", "a/session.nwb.zarr", "b/session.nwb.zarr")
    ]
    lab = SessionCatalog(str(write_tables(tmp_path / "t.parquet", rows, [])))
    lab.to_yaml(tmp_path / "found.yaml")
    catalog = intake.open_catalog(str(tmp_path / "found.yaml"))
    assert list(catalog) == ["session_1", "session", "session_2"]
    assert catalog.session_2.read().attrs["identifier"] == "corpus-ecephys"
    assert catalog.session_2.metadata["subject_id"] == "R6"


def test_a_session_is_opened_with_the_options_of_its_storage(
    real: SessionCatalog, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = next(iter(real))
    dataset = real[key].read()
    assert dataset.attrs["identifier"] == "corpus-ecephys"
    with real[key].to_nwb() as nwbfile:
        assert nwbfile.identifier == "corpus-ecephys"
    assert "units" in real[key].to_datatree().children
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    with pytest.raises(AccessError):
        SessionCatalog(real.urlpath)[key].read()


def test_the_found_objects_of_a_session_are_opened_by_name(real: SessionCatalog) -> None:
    found = real.search(units=Find("Units"))
    (key,) = found
    opened = found.open(key)
    assert list(opened) == ["units"]
    assert opened["units"].nwb.to_dataframe().index.name == "id"
    assert found.open(key, "dataset").attrs["identifier"] == "corpus-ecephys"
    with pytest.raises(SessionNotFoundError):
        found.open(next(each for each in real if each != key))
    with pytest.raises(OptionError, match=r"units=Find\('Units'\), or pass give='dataset'"):
        real.open(key)
    assert real.open(key, "dataset").attrs["identifier"] == "corpus-ecephys"
    with pytest.raises(OptionError, match="give must be one of"):
        found.open(key, "all")  # type: ignore[arg-type]


def test_keywords_are_passed_to_the_sources(real: SessionCatalog) -> None:
    again = real(chunks=None)
    assert again[next(iter(real))].read().chunks == {}
    with pytest.raises(OptionError, match="storage option"):
        SessionCatalog(real.urlpath, anon=True)


class TestSnapshots:
    """A session whose snapshot stands in the table."""

    @pytest.fixture
    def kept(self, ecephys: Path, http_server: StaticServer, tmp_path: Path) -> SessionCatalog:
        session = copy_of(ecephys, http_server.root, "a.nwb.zarr")
        url = f"{http_server.url}/{session.name}"
        rows = [
            {"location": url, "snapshot": encode(record_session(locate(url)))},
            {"location": f"{http_server.url}/b.nwb.zarr"},
            {"location": f"{http_server.url}/c.nwb.zarr", "snapshot": b"damaged"},
        ]
        return SessionCatalog(str(write_tables(tmp_path / "t.parquet", rows, [])))

    def test_opens_it_with_one_conditional_request(
        self, kept: SessionCatalog, http_server: StaticServer
    ) -> None:
        key = next(iter(kept))
        http_server.requests.clear()
        with track_requests() as log:
            dataset = kept[key].read()
        assert log.requests == 1
        assert http_server.requests[-1].status == 304
        expected = xr.open_dataset(key, engine="nwbzarr")
        assert sorted(dataset.variables) == sorted(expected.variables)
        with track_requests() as log:
            kept(verify=False)[key].read()
        assert log.requests == 0

    def test_that_is_stale_is_refused(self, kept: SessionCatalog, http_server: StaticServer) -> None:
        edit(http_server.root / "a.nwb.zarr", "units", lambda content: content["attributes"].update(new=1))
        with pytest.raises(StaleSnapshotError, match="nwbzarr catalog scan --snapshots"):
            kept[next(iter(kept))].read()

    def test_that_is_damaged_is_refused(self, kept: SessionCatalog) -> None:
        key = list(kept)[2]
        for open_it in (lambda: kept[key].read(), lambda: kept.open(key, "dataset")):
            with pytest.raises(SnapshotError, match="not a session") as caught:
                open_it()
            assert f"The snapshot of {key} in the table is damaged" in str(caught.value)

    def test_is_in_neither_frames_nor_saved_entries(self, kept: SessionCatalog) -> None:
        source = kept[next(iter(kept))]
        assert "snapshot" not in source.yaml()
        assert len(source.yaml()) < 1000
        assert [each.snapshot is not None for each in kept.selected()] == [True, False, True]
        again = pickle.loads(pickle.dumps(source))
        assert again.read().attrs["identifier"] == "corpus-ecephys"

    def test_is_read_only_for_the_rows_that_need_it(self, http_server: StaticServer) -> None:
        rows = [
            {"location": f"s3://lab/{number}", "snapshot": bytes([number]) * 2**20} for number in range(32)
        ]
        place = http_server.root / "many.parquet"
        write_tables(place, rows, [])
        metadata = pq.ParquetFile(place).metadata
        assert metadata.num_row_groups == 8
        lab = SessionCatalog(f"{http_server.url}/many.parquet")
        assert [each.snapshot for each in lab.filter(["s3://lab/3", "s3://lab/20"]).selected()] == [
            bytes([number]) * 2**20 for number in (3, 20)
        ]


def test_only_the_columns_of_the_conditions_are_read(http_server: StaticServer) -> None:
    random = np.random.default_rng(0)
    rows = [
        {
            "location": f"s3://lab/{number}",
            "species": "mouse",
            "session_description": random.bytes(100).hex(),
        }
        for number in range(4000)
    ]
    write_tables(http_server.root / "t.parquet", rows, OBJECTS)
    size = (http_server.root / "t.parquet").stat().st_size
    with track_requests() as log:
        lab = SessionCatalog(f"{http_server.url}/t.parquet")
        assert log.requests == 0
        assert len(lab.search(species="mouse")) == 4000
    assert log.total.received < size / 2


def test_a_location_in_several_parts_is_one_session(tmp_path: Path) -> None:
    for part, offset in (("one", 0), ("two", 1)):
        sessions = [{"location": f"s3://lab/{number + offset}", "dandiset": part} for number in range(3)]
        objects = [
            {"location": row["location"], "path": path, "types": UNITS, "type": "Units"}
            for row in sessions
            for path in ("units", "more/units")
        ]
        tables = Tables(locate(tmp_path / "tables"))
        tables.write(part, "s3://lab", table_of("sessions", sessions), table_of("objects", objects))
    lab = SessionCatalog(str(tmp_path / "tables"))
    assert list(lab) == ["s3://lab/0", "s3://lab/1", "s3://lab/2", "s3://lab/3"]
    found = lab.search(units=Find("Units"))
    assert [each.paths["units"] for each in found.selected()] == [("more/units", "units")] * 4
    assert len(lab.objects) == 8


ODD_CALLS: dict[str, Callable[[SessionCatalog, Any], object]] = {
    "text": lambda lab, odd: lab.search(species=odd),
    "number": lambda lab, odd: lab.search(age_days=odd),
    "range": lambda lab, odd: lab.search(age_days=(odd, None)),
    "date": lambda lab, odd: lab.search(start=odd),
    "range of dates": lambda lab, odd: lab.search(start=(odd, odd)),
    "list": lambda lab, odd: lab.search(keywords=[odd]),
    "boolean": lambda lab, odd: lab.search(consolidated=odd),
    "name of a condition": lambda lab, odd: lab.search(**{f"{odd!r:.20}": odd}),
    "positional": lambda lab, odd: lab.search(odd),
    "type": lambda lab, odd: lab.search(units=Find(odd)),
    "rate": lambda lab, odd: lab.search(units=Find(rate=odd)),
    "shape": lambda lab, odd: lab.search(units=Find(shape=odd)),
    "multiple": lambda lab, odd: Find(multiple=odd),
    "plain find": lambda lab, odd: lab.search(units={"find": odd}),
    "filter": lambda lab, odd: None if callable(odd) else lab.filter(odd),
    "sample": lambda lab, odd: lab.sample(odd),
    "seed": lambda lab, odd: lab.sample(1, odd),
    "unique": lambda lab, odd: lab.unique(odd),
    "key": lambda lab, odd: lab[odd],
    "contains": lambda lab, odd: odd in lab,
    "open": lambda lab, odd: lab.open(odd),
    "give": lambda lab, odd: lab.open("s3://lab/1", odd),
    "table": lambda lab, odd: lab.table(odd),
    "columns": lambda lab, odd: lab.table("units", columns=["nothing"] if odd is None else odd),
    "where": lambda lab, odd: lab.table("units", ["nothing"], where=odd),
    "threads": lambda lab, odd: lab.table("units", ["nothing"], threads=odd),
    "path of a catalog": lambda lab, odd: lab.to_yaml(odd),
    "urlpath": lambda lab, odd: len(SessionCatalog(odd)),
    "storage_options": lambda lab, odd: len(SessionCatalog(lab.urlpath, odd)),
    "an entry": lambda lab, odd: list(SessionCatalog(lab.urlpath, {"lab": odd}).selected()),
    "a prefix": lambda lab, odd: list(SessionCatalog(lab.urlpath, {"lab": {"prefix": odd}}).selected()),
    "table_options": lambda lab, odd: len(SessionCatalog(lab.urlpath, None, odd)),
    "conditions": lambda lab, odd: len(SessionCatalog(lab.urlpath, search=odd)),
}


@pytest.mark.parametrize("name", ODD_CALLS)
def test_odd_arguments_end_well_or_in_an_error_of_ours(
    name: str, lab: SessionCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert foreign(lambda _, odd: ODD_CALLS[name](lab, odd), "") == []


def test_texts_of_tables_are_shown_escaped(tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\n<b>\u202e"
    rows = [{"location": f"s3://lab/{evil}", "subject_id": evil, "taxon": evil, "storage": evil}]
    lab = SessionCatalog(str(write_tables(tmp_path / "t.parquet", rows, [])))
    shown = repr(lab)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "\\x1b]0;title\\x07\\n<b>\\u202e" in shown
    missing = SessionCatalog(str(tmp_path / "<script>alert(1)</script>\x1b.parquet"))
    assert "<script>" not in missing._repr_html_()
    assert "\x1b" not in repr(missing)
