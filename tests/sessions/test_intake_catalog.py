"""What Intake makes of a catalog of sessions: catalog files, arguments, YAML, pickles, Intake 2."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pytest
import yaml
from dask.base import tokenize
from intake.readers.datatypes import recommend
from intake.readers.entry import Catalog as Catalog2

from intake_nwbzarr import Find
from intake_nwbzarr.errors import (
    CredentialsError,
    NWBZarrError,
    OptionError,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.reader import NWBZarrSessions, NWBZarrSessionsReader
from tests.sessions.conftest import SESSIONS, UNITS, write_tables

# Intake 2.0.9 warns about shell commands whenever a parameter has a text for a default.
string_parameters = pytest.mark.filterwarnings("ignore:Shell command not executed:UserWarning")


CANARIES = {"key": "CANARYKEY", "secret": "CANARYSECRET"}


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
