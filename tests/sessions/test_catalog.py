"""The catalog of many sessions: what it gives, what it reads, and what Intake makes of it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import duckdb
import intake
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import yaml
from dask.base import tokenize
from intake.readers.datatypes import recommend
from intake.readers.entry import Catalog as Catalog2

from intake_nwbzarr import Find, track_requests
from intake_nwbzarr.catalog.source import NWBZarrSource
from intake_nwbzarr.copies.recording import record_session
from intake_nwbzarr.copies.snapshot import encode
from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    LocationNotFoundError,
    NWBZarrError,
    OptionError,
    SessionNotFoundError,
    SnapshotError,
    StaleSnapshotError,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.reader import NWBZarrSessions, NWBZarrSessionsReader
from intake_nwbzarr.sessions.table_schema import table_of
from intake_nwbzarr.sessions.tables import Tables
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import copy_of, edit
from tests.sessions.conftest import OBJECTS, SESSIONS, UNITS, write_tables
from tests.test_invalid_arguments import foreign

# Intake 2.0.9 warns about shell commands whenever a parameter has a text for a default.
string_parameters = pytest.mark.filterwarnings("ignore:Shell command not executed:UserWarning")
CANARIES = {"key": "CANARYKEY", "secret": "CANARYSECRET"}


@pytest.fixture
def real(corpus_dir: Callable[[str, str], Path], s3_server: S3Server, tmp_path: Path) -> SessionCatalog:
    """Two real sessions in a private bucket."""
    rows = [
        {
            "location": s3_server.upload(
                s3_server.private_bucket, f"{kind}.nwb.zarr", corpus_dir(kind, "0.14.0")
            ),
            "storage": "lab",
            "subject_id": kind,
        }
        for kind in ("ecephys", "ophys")
    ]
    objects = [
        {"location": rows[0]["location"], "path": "units", "name": "units", "type": "Units", "types": UNITS}
    ]
    s3_server.requests.clear()
    place = write_tables(tmp_path / "real.parquet", rows, objects)
    return SessionCatalog(str(place), {"lab": s3_server.signed_options})


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


class TestInYaml:
    """Tables as an entry of a catalog file."""

    @pytest.fixture
    def catalog(self, lab: SessionCatalog, tmp_path: Path) -> Any:
        entry = {
            "driver": "nwbzarr_sessions",
            "description": "Mice that run.",
            "args": {
                "urlpath": "{{ CATALOG_DIR }}/sessions.parquet",
                "storage_options": {"lab": {"anon": True}},
                "search": {
                    "species": "{{ species }}",
                    "speed": {"find": {"type": "TimeSeries", "name": "*{{ what }}*"}},
                },
            },
            "parameters": {
                "species": {"type": "str", "description": "which", "default": "mouse"},
                "what": {"type": "str", "description": "what", "default": "speed"},
            },
        }
        plain = {"driver": "nwbzarr_sessions", "args": {"urlpath": "{{ CATALOG_DIR }}/sessions.parquet"}}
        (tmp_path / "catalog.yaml").write_text(
            yaml.safe_dump({"sources": {"mice": entry, "sessions": plain}})
        )
        return intake.open_catalog(str(tmp_path / "catalog.yaml"))

    @string_parameters
    def test_user_parameters_choose_what_is_searched(self, catalog: Any) -> None:
        assert list(catalog.mice) == ["s3://lab/1"]
        assert list(catalog.mice(species="rat")) == ["s3://lab/3"]
        assert list(catalog["mice"](what="position")) == ["s3://lab/2"]
        assert catalog.mice["s3://lab/1"].location == locate("s3://lab/1", {"anon": True})
        assert list(catalog.mice.search(age_days=(100, None))) == []

    @string_parameters
    def test_a_misspelled_parameter_is_an_error_that_names_them(self, catalog: Any) -> None:
        with pytest.raises(OptionError, match=r"no keyword 'specis'\. Did you mean 'species'\?$"):
            catalog.mice(specis="rat")
        with pytest.raises(OptionError, match="The parameters of this entry are species, what") as caught:
            catalog.mice(nope="rat")
        assert "chunks" in str(caught.value)
        with pytest.raises(OptionError, match="Did you mean 'chunks'"):
            catalog.sessions(chunk=None)

    @string_parameters
    def test_the_catalog_is_walked_and_searched(self, catalog: Any) -> None:
        assert list(catalog) == ["mice", "sessions"]
        walked = catalog.walk(depth=2)
        assert "sessions.s3://lab/1" in walked
        assert catalog["sessions", "s3://lab/1"].location == locate("s3://lab/1")
        assert catalog["sessions"]["s3://lab/1"].name == "s3://lab/1"
        assert list(catalog["sessions"].search(species="rat")) == ["s3://lab/3"]
        assert len(catalog.search("s3://lab/2")) == 2 - 1
        assert catalog.sessions.walk()["s3://lab/1"]().location == locate("s3://lab/1")
        assert catalog.sessions.discover()["shape"] == (5,)
        assert catalog.sessions.describe()["args"]["urlpath"]

    @string_parameters
    def test_secrets_are_masked(self, catalog: Any, tmp_path: Path) -> None:
        entry = {
            "driver": "nwbzarr_sessions",
            "args": {
                "urlpath": str(tmp_path / "sessions.parquet"),
                "storage_options": {"lab": CANARIES},
                "table_options": CANARIES,
            },
        }
        (tmp_path / "secret.yaml").write_text(yaml.safe_dump({"sources": {"sessions": entry}}))
        sessions = intake.open_catalog(str(tmp_path / "secret.yaml")).sessions
        assert "CANARY" not in sessions.yaml()
        sessions = sessions(table_options=None)
        found = sessions.search(species="mouse")
        shown = [each for one in (sessions, found) for each in (repr(one), one._repr_html_(), one.yaml())]
        shown += [str(sessions.describe()), found.to_yaml(), str(tokenize(found)), found["s3://lab/1"].yaml()]
        pickled = [pickle.dumps(each) for each in (sessions, found, found["s3://lab/1"], *found.selected())]
        assert "CANARY" not in "".join(shown)
        assert all(b"CANARY" not in each for each in pickled)

    def test_an_environment_variable_that_is_not_set_is_named(
        self, lab: SessionCatalog, tmp_path: Path
    ) -> None:
        options = {"lab": {"key": "{{ env(LAB_KEY) }}", "secret": "{{ env(LAB_SECRET) }}"}}
        entry = {
            "driver": "nwbzarr_sessions",
            "args": {"urlpath": str(tmp_path / "sessions.parquet"), "storage_options": options},
        }
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({"sources": {"sessions": entry}}))
        with pytest.raises(CredentialsError, match="LAB_KEY"):
            len(intake.open_catalog(str(tmp_path / "c.yaml")).sessions)

    @pytest.mark.parametrize("odd", ["mouse", 3, [3], {"specie": "mouse"}])
    def test_conditions_that_are_not_valid_are_one_clear_error(self, lab: SessionCatalog, odd: Any) -> None:
        with pytest.raises(OptionError):
            len(SessionCatalog(lab.urlpath, search=odd))


def test_pickles_open_the_same_sessions(real: SessionCatalog) -> None:
    found = real.search(units=Find("Units"))
    again = pickle.loads(pickle.dumps(found))
    assert list(again) == list(found)
    assert [each.paths for each in again.selected()] == [each.paths for each in found.selected()]
    assert again[next(iter(again))].read().attrs["identifier"] == "corpus-ecephys"
    assert tokenize(again) == tokenize(found) != tokenize(real)


def test_tables_that_were_written_again_are_opened_anew(lab: SessionCatalog, tmp_path: Path) -> None:
    assert len(lab) == 5
    write_tables(tmp_path / "sessions.parquet", SESSIONS[:2], [])
    with pytest.raises(NWBZarrError, match="Open them again"):
        lab.df  # noqa: B018
    lab.force_reload()
    assert len(lab) == len(lab.df) == 2


def test_intake_2_reads_tables_as_the_catalog(lab: SessionCatalog) -> None:
    data = NWBZarrSessions(str(lab.urlpath), storage_options={"lab": CANARIES})
    assert NWBZarrSessions in recommend(url=str(lab.urlpath))
    assert "CANARY" not in repr(data)
    assert b"CANARY" not in pickle.dumps(data)
    reader = data.to_reader("intake_nwbzarr")
    assert isinstance(reader, NWBZarrSessionsReader)
    assert isinstance(reader.read(), SessionCatalog)
    assert len(NWBZarrSessionsReader(str(lab.urlpath), search={"species": "mouse"}).read()) == 3
    catalog = Catalog2()
    catalog.give_name(catalog.add_entry(NWBZarrSessionsReader(str(lab.urlpath))), "sessions")
    assert len(catalog.sessions.read()) == 5


def test_the_driver_is_registered(lab: SessionCatalog) -> None:
    assert isinstance(intake.open_nwbzarr_sessions(lab.urlpath), SessionCatalog)


def test_importing_the_driver_imports_neither_pynwb_nor_zarr() -> None:
    code = (
        "import sys, intake_nwbzarr.sessions.catalog\n"
        "heavy = {'pynwb', 'hdmf', 'zarr', 'distributed', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


# Each would make the folder PWNED, show the variable CANARY, or change when it is rendered.
TEMPLATES = [
    '{{ cycler.__init__.__globals__.os.mkdir("PWNED") }}',
    "{% for x in [cycler.__init__.__globals__.os.mkdir('PWNED')] %}{% endfor %}",
    "{{ env('CANARY') }}",
    "{env(CANARY)}",
    "a{# comment #}b",
    "{% raw %}}}{{ CATALOG_DIR",
    '"{{\\"}}\n\r\n',
    "{{ é 🧠",
]


@pytest.mark.parametrize("name", TEMPLATES)
def test_names_in_a_table_are_no_templates_of_catalog_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "CANARYVALUE")
    monkeypatch.chdir(tmp_path)
    location = f"s3://lab/{name}/x"
    rows = [{"location": location, "subject_id": name, "session_description": name, "asset_path": name}]
    objects = [{"location": location, "path": f"{name}{number}", "types": UNITS} for number in range(2)]
    lab = SessionCatalog(str(write_tables(tmp_path / "t.parquet", rows, objects)), description=name)
    found = lab.search(units=Find(path="*0"), other=Find(path="*1"))
    # Also of what was opened, which is saved and opened again.
    found.to_yaml("0.yaml")
    for number in range(2):
        (source,) = [entry.get() for _, entry in intake.open_catalog(f"{number}.yaml")._get_entries().items()]
        assert source.location.url == location
        assert source.group == [f"{name}0", f"{name}1"]
        assert source.metadata["subject_id"] == name
        assert source.description == name
        source.name = "session"
        Path(f"{number + 1}.yaml").write_text(source.yaml())
    given = SessionCatalog(str(tmp_path / "t.parquet"), search={"subject_id": [name]}, description=name)
    Path("given.yaml").write_text(given.yaml())
    again = intake.open_catalog("given.yaml").sessions
    assert (again.description, list(again)) == (name, [location])
    assert not Path("PWNED").exists()


def test_a_searched_catalog_is_saved_with_its_search(lab: SessionCatalog, tmp_path: Path) -> None:
    found = lab.search(
        species=np.array(["mouse"]), start=None, speed=Find("*Series", rate=(30, None), multiple="first")
    ).search(session_id=["first", None], not_read=None, age_days=(np.float64(60), 200))
    (tmp_path / "found.yaml").write_text(found.yaml())
    again = intake.open_catalog(str(tmp_path / "found.yaml")).sessions
    assert list(again) == list(found) == ["s3://lab/1", "s3://lab/2"]
    assert [each.paths for each in again.selected()] == [each.paths for each in found.selected()]
    assert next(again.selected()).multiple == {"speed": "first"}
    for chosen in (found.sample(1), found.filter(["s3://lab/1"]), pickle.loads(pickle.dumps(found))):
        with pytest.raises(OptionError, match=r"to_yaml\(\)"):
            chosen.yaml()
        assert "s3://lab/1" in chosen.search().to_yaml() or len(chosen) == 1
    options = {"lab": CANARIES, "public": {"anon": True}}
    opened = SessionCatalog(lab.urlpath, options).search(species="rat")
    assert "anon: true" in opened.yaml()
    assert "CANARY" not in opened.yaml()


def test_arguments_of_a_searched_catalog_narrow_it_or_are_refused(lab: SessionCatalog) -> None:
    mice = lab.search(species="mouse")
    assert list(mice(search={"session_id": "first"})) == ["s3://lab/1"]
    assert list(mice(search=[{"session_id": "first"}, {"sex": "F"}], chunks=None)) == ["s3://lab/1"]
    for name in ("urlpath", "table_options"):
        with pytest.raises(OptionError, match=name):
            mice(**{name: None})


def test_keywords_that_sessions_do_not_take_are_refused(lab: SessionCatalog) -> None:
    with pytest.raises(OptionError, match="Did you mean 'chunks'"):
        intake.open_nwbzarr_sessions(lab.urlpath, chunk=1)
    with pytest.raises(OptionError, match="no keyword 'nope'"):
        intake.open_nwbzarr_sessions(lab.urlpath, nope=1)


def test_what_intake_catalogs_do_otherwise_is_said(lab: SessionCatalog) -> None:
    for catalog in (lab, lab.search(species="mouse")):
        for call in (lambda one: one.get("s3://lab/1"), lambda one: one("s3://lab/1")):
            with pytest.raises(OptionError, match=r"A session is catalog\[key\]"):
                call(catalog)
        with pytest.raises(OptionError, match="cannot be removed"):
            catalog.pop("s3://lab/1")
        with pytest.raises(OptionError, match="cannot be added"):
            catalog["s3://lab/9"] = catalog["s3://lab/1"]
        for method in ("read", "to_dask", "to_spark", "read_chunked"):
            with pytest.raises(OptionError, match=r"catalog\[key\]\.read\(\).*catalog\.table"):
                getattr(catalog, method)()
        with pytest.raises(OptionError, match="cannot be read as one object"):
            catalog.read_partition(0)
        with catalog as entered:
            assert entered is catalog
        assert catalog.describe()["args"] == {"urlpath": str(lab.urlpath)}


@string_parameters
def test_numbers_of_catalog_files_may_be_texts(lab: SessionCatalog, tmp_path: Path) -> None:
    search = {
        "age_days": {"range": ["{{ least }}", None]},
        "consolidated": [None, "{{ yes }}"],
        "speed": {"find": {"rate": ["{{ rate }}", 30]}},
    }
    parameters = {
        name: {"type": kind, "description": name, "default": value}
        for name, kind, value in (("least", "int", 65), ("yes", "bool", True), ("rate", "float", 60.0))
    }
    args = {"urlpath": str(lab.urlpath), "search": search}
    entry = {"driver": "nwbzarr_sessions", "args": args, "parameters": parameters}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"sources": {"found": entry}}))
    found = intake.open_catalog(str(tmp_path / "catalog.yaml")).found
    assert list(found) == ["s3://lab/1", "s3://lab/2"]
    assert list(found(least=90)) == ["s3://lab/2"]
    with pytest.raises(OptionError, match="of numbers"):
        len(SessionCatalog(lab.urlpath, search={"age_days": "old"}))
    with pytest.raises(OptionError, match="of numbers"):
        lab.search(age_days="65")


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
