"""What a table may name, and with which options it is opened: a table is data, and may come from others."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import intake_nwbzarr
from intake_nwbzarr import Find
from intake_nwbzarr.errors import (
    AccessError,
    HostNotFoundError,
    LocationError,
    LocationNotFoundError,
    NWBZarrError,
    OptionError,
    SessionsWarning,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.tables.storages import Storages, table_location
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import copy_of
from tests.sessions.conftest import UNITS, write_tables

REMOTE = locate("s3://public-tables/sessions.parquet", {"anon": True})
KEYS = {"key": "CANARYKEY", "secret": "CANARYSECRET"}
LAB = {"lab": {**KEYS, "endpoint_url": "https://s3.lab.example"}}
BEARER = {"headers": {"Authorization": "Bearer CANARYTOKEN"}}
BELOW_A = {"lab": {**BEARER, "prefix": "https://lab.example/a"}}


def storages(options: dict[str, Any] | None = None, tables: Any = REMOTE) -> Storages:
    return Storages.of(tables, options)


def test_a_storage_gives_a_session_its_options() -> None:
    location = storages(LAB).location("s3://lab/1.nwb.zarr", "lab")
    assert location == locate("s3://lab/1.nwb.zarr", LAB["lab"])
    assert location.option("endpoint_url") == "https://s3.lab.example"


@pytest.mark.parametrize("storage", [None, "other"])
def test_a_session_of_no_entry_is_opened_without_options(storage: str | None) -> None:
    assert storages(LAB).location("s3://lab/1.nwb.zarr", storage) == locate("s3://lab/1.nwb.zarr")


def test_a_url_chooses_no_endpoint() -> None:
    location = storages(LAB).location("s3://lab/1?endpoint_url=http://evil.example", "lab")
    assert location.option("endpoint_url") == "https://s3.lab.example"
    assert location.url == "s3://lab/1?endpoint_url=http://evil.example"


def test_plain_options_are_for_all_sessions() -> None:
    plain = storages(LAB["lab"])
    assert plain.location("s3://one/1", "lab") == locate("s3://one/1", LAB["lab"])
    assert plain.location("s3://two/1", None) == locate("s3://two/1", LAB["lab"])


@pytest.mark.parametrize(
    ("options", "url", "storage", "said"),
    [
        # Local files of a remote table.
        ({}, "file:///etc/passwd", None, "Local files"),
        ({}, "/etc/passwd", None, "Local files"),
        ({}, "etc/passwd", None, "Local files"),
        (LAB, "file:///etc/passwd", "lab", "Local files"),
        # Secrets elsewhere than they are for.
        (LAB, "https://evil.example/1.nwb.zarr", "lab", "without a prefix are for s3://"),
        ({"lab": BEARER}, "https://evil.example/1.nwb.zarr", "lab", "without a prefix are for s3://"),
        (KEYS, "https://evil.example/1.nwb.zarr", None, "without a prefix are for s3://"),
        ({"lab": {"profile": "lab"}}, "https://evil.example/1", "lab", "without a prefix are for s3://"),
        ({"lab": {**KEYS, "prefix": "s3://lab"}}, "s3://evil/1", "lab", "is for s3://lab only"),
        ({"lab": {**KEYS, "prefix": "s3://lab/a"}}, "s3://lab/ab/1", "lab", "is for s3://lab/a only"),
        ({"lab": {**KEYS, "prefix": "s3://lab/a"}}, "s3://lab/a/../b/1", "lab", "is for s3://lab/a only"),
        ({"lab": {**BEARER, "prefix": "https://lab.example"}}, "https://lab.example.evil/1", "lab", "only"),
        ({"lab": {**BEARER, "prefix": "https://lab.example"}}, "http://lab.example/1", "lab", "only"),
        (
            {"lab": {**BEARER, "prefix": "https://lab.example/a"}},
            "https://lab.example/a/%2e%2e/b",
            "lab",
            "only",
        ),
        (
            {"lab": {**BEARER, "prefix": "https://lab.example/a"}},
            "https://lab.example/a/..%2fb",
            "lab",
            "only",
        ),
        (
            {"lab": {**BEARER, "prefix": "https://lab.example/a"}},
            "https://lab.example/a/%252E./b",
            "lab",
            "only",
        ),
        # Schemes that lead to others, or to this machine.
        ({}, "simplecache::file:///etc/passwd", None, "are allowed below a prefix only"),
        ({}, "simplecache::s3://lab/1", None, "are allowed below a prefix only"),
        ({}, "memory://1", None, "are allowed below a prefix only"),
        ({}, "zip://1::https://evil.example/a.zip", None, "are allowed below a prefix only"),
        (LAB, "simplecache::s3://lab/1", "lab", "are allowed below a prefix only"),
        # Secrets and endpoints in the table.
        ({}, "https://user:CANARYPASSWORD@evil.example/1", None, "with a password or a query"),
        ({}, "s3://CANARYKEY:CANARYSECRET@lab/1", None, "with a password or a query"),
        ({}, "https://lab.example/1?X-Amz-Signature=CANARYSIGNATURE", None, "with a password or a query"),
        # Addresses that are not for tables of others.
        ({}, "http://169.254.169.254/latest/meta-data/iam", None, "link-local"),
        ({}, "http://[fe80::1]/1", None, "link-local"),
        ({}, "http://127.0.0.1:8080/admin", None, "private"),
        ({}, "http://localhost:8080/admin", None, "private"),
        ({}, "http://10.0.0.1/1", None, "private"),
        ({}, "http://[::ffff:127.0.0.1]/1", None, "private"),
    ],
)
def test_what_a_table_of_others_must_not_name(
    options: dict[str, Any], url: str, storage: str | None, said: str
) -> None:
    with pytest.raises(NWBZarrError) as caught:
        storages(options).location(url, storage)
    assert isinstance(caught.value, AccessError | LocationError)
    assert said in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("url", ["store://1", "nonsense://1", "https://", "s3://", "", "a\0b"])
def test_what_is_no_location_is_an_error(url: str) -> None:
    with pytest.raises(NWBZarrError):
        storages().location(url, None)


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ({**BEARER, "prefix": "https://lab.example"}, "https://lab.example/a/1.nwb.zarr"),
        ({**KEYS, "prefix": ["s3://other", "s3://lab/a"]}, "s3://lab/a/1.nwb.zarr"),
        ({"prefix": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080/1.nwb.zarr"),
        ({"anon": True}, "s3://lab/1.nwb.zarr"),
        ({"anon": True}, "https://lab.example/1.nwb.zarr"),
        ({"timeouts": {"connect": 3}}, "https://lab.example/1.nwb.zarr"),
    ],
)
def test_what_an_entry_is_for(entry: dict[str, Any], url: str) -> None:
    kept = {name: value for name, value in entry.items() if name != "prefix"}
    assert storages({"lab": entry}).location(url, "lab") == locate(url, kept)


def test_local_tables_name_files_below_their_folder_and_below_prefixes(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "out").symlink_to(tmp_path)
    for place in ("tables/sessions.parquet", "tables"):
        own = storages({}, locate(tmp_path / place))
        inside = f"file://{tmp_path}/tables/1.nwb.zarr"
        assert own.location(inside, None) == locate(inside)
        assert own.location("1.nwb.zarr", None) == locate(inside)
        for outside in (f"{tmp_path}/1.nwb.zarr", "../1.nwb.zarr", "out/1.nwb.zarr", "file:///etc/passwd"):
            with pytest.raises(AccessError, match="outside the folder of the tables") as caught:
                own.location(outside, None)
            assert "'prefix': " in str(caught.value)
        more = storages({"local": {"prefix": str(tmp_path)}}, locate(tmp_path / place))
        assert more.location(f"{tmp_path}/1.nwb.zarr", None) == locate(tmp_path / "1.nwb.zarr")
    remote = storages({"local": {"prefix": str(tmp_path)}})
    assert remote.location(f"{tmp_path}/1.nwb.zarr", None) == locate(tmp_path / "1.nwb.zarr")


def test_local_tables_name_private_addresses_but_no_link_local_ones(tmp_path: Path) -> None:
    own = storages({}, locate(tmp_path / "sessions.parquet"))
    assert own.location("http://127.0.0.1:1/1", None) == locate("http://127.0.0.1:1/1")
    with pytest.raises(AccessError, match="link-local"):
        own.location("http://169.254.169.254/1", None)


def test_tables_on_a_private_server_name_private_addresses() -> None:
    tables = locate("s3://tables/sessions.parquet", {"endpoint_url": "http://127.0.0.1:9000", "anon": True})
    assert storages({}, tables).location("http://127.0.0.1:1/1", None) == locate("http://127.0.0.1:1/1")


@pytest.mark.parametrize(
    "options",
    [
        {"lab": {"prefix": 3}},
        {"lab": {"prefix": ["s3://a", None]}},
        {"lab": {"anno": True}},
        {"lab": {"key": "only"}},
        {"anno": True},
        3,
        ["lab"],
    ],
)
def test_options_that_are_not_valid_are_one_clear_error(options: Any) -> None:
    with pytest.raises((OptionError, LocationError, AccessError)):
        storages(options)


def test_the_tables_are_opened_with_plain_options_or_those_of_their_prefix() -> None:
    url = "s3://lab/sessions"
    assert table_location(url, None, KEYS) == locate(url, KEYS)
    entry = {"lab": {**KEYS, "prefix": "s3://lab"}}
    assert table_location(url, None, entry) == locate(url, KEYS)
    assert table_location("s3://other/sessions", None, entry) == locate("s3://other/sessions")
    assert table_location(url, {"anon": True}, entry) == locate(url, {"anon": True})
    assert table_location("/data/sessions.parquet", None, KEYS) == locate("/data/sessions.parquet")


def test_secrets_of_storages_are_not_pickled() -> None:
    made = storages(
        {"lab": {**KEYS, "prefix": "s3://lab"}, "web": {**BEARER, "prefix": "https://lab.example"}}
    )
    made.location("s3://lab/1", "lab")
    for shown in (pickle.dumps(made), repr(made).encode()):
        assert b"CANARY" not in shown
    # In this process, the handle still leads to them.
    assert pickle.loads(pickle.dumps(made)).location("s3://lab/1", "lab") == locate("s3://lab/1", KEYS)
    shipped = storages({"lab": {**KEYS, "ship_credentials": True}})
    assert b"CANARY" in pickle.dumps(shipped)


def test_a_malicious_table_sends_no_secret_anywhere(
    s3_server: S3Server, http_server: StaticServer, tmp_path: Path
) -> None:
    rows = [
        {"location": "file:///etc", "storage": "lab"},
        {"location": f"{http_server.url}/1.nwb.zarr", "storage": "lab"},
        {"location": f"s3://lab/1?endpoint_url={http_server.url}", "storage": "lab"},
        {"location": f"simplecache::{http_server.url}/1.nwb.zarr", "storage": "lab"},
        {"location": "http://169.254.169.254/latest", "storage": "lab"},
        {"location": "s3://evil-bucket/1.nwb.zarr", "storage": "lab"},
    ]
    place = write_tables(tmp_path / "sessions.parquet", rows, [])
    entry = {**s3_server.signed_options, "prefix": f"s3://{s3_server.private_bucket}"}
    lab = SessionCatalog(str(place), {"lab": entry})
    for key in lab:
        with pytest.raises((AccessError, LocationError)):
            lab[key].read()
    assert [each.refused is not None for each in lab.selected()] == [True] * len(rows)
    assert http_server.requests == []
    assert s3_server.requests == []


def test_a_host_that_does_not_resolve_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([None, 1])

    async def reach(_host: str) -> int | None:
        return next(answers)

    monkeypatch.setattr("intake_nwbzarr.sessions.tables.storages.reach", reach)
    own = storages()
    url = "https://later-private.example/1"
    assert own.location(url, None) == locate(url)
    with pytest.raises(AccessError, match="private"):
        own.location(url, None)


def test_names_of_options_may_be_names_of_entries() -> None:
    both = storages({"anon": {"anon": True}, "lab": {"anon": True, "prefix": "s3://lab"}})
    assert sorted(both.storages) == ["anon", "lab"]
    assert storages({"headers": {"A": "b"}}).plain is not None
    assert storages({"anon": True, "client_kwargs": {}}).plain is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "pass storage_options={'local': {'prefix': '/etc'}}"),
        ({"lab": {"prefix": "s3://lab"}}, "add this entry to storage_options: {'local': {'prefix': '/etc'}}"),
        ({"anon": True}, "pass storage_options with entries by name: one with your options for each name"),
    ],
)
def test_what_is_advised_helps_and_restricts_nothing_else(options: dict[str, Any], said: str) -> None:
    with pytest.raises(AccessError) as caught:
        storages(options).location("/etc/passwd", "lab")
    assert said in str(caught.value)
    assert "'storage_options':" not in str(caught.value)


def test_an_entry_for_a_prefix_allows_sessions_of_others_there() -> None:
    own = storages({"lab": {"anon": True}, "trusted": {"prefix": "http://127.0.0.1:8080/a"}})
    for storage in (None, "other"):
        assert own.location("http://127.0.0.1:8080/a/1", storage) == locate("http://127.0.0.1:8080/a/1")
    with pytest.raises(AccessError, match="private"):
        own.location("http://127.0.0.1:8080/b/1", None)
    # Not with credentials that are not for it.
    keys = storages({"lab": KEYS, "trusted": {"prefix": "http://127.0.0.1:8080/a"}})
    with pytest.raises(AccessError, match="without a prefix are for s3://"):
        keys.location("http://127.0.0.1:8080/a/1", "lab")


def test_the_scanned_prefix_is_advised_where_it_is_above_the_session(tmp_path: Path) -> None:
    private = "http://127.0.0.1:8080/data"
    lab = {"lab": {**KEYS, "prefix": "s3://other"}}
    headers = {"lab": BEARER}
    web = "https://lab.example/data"
    for options, key, storage, source, advised in (
        ({}, "/data/older/sub-1/1.nwb.zarr", None, "file:///data/older", "/data/older"),
        ({}, "/data/older/sub-1/1.nwb.zarr", None, "file:///data/old", "/data/older/sub-1"),
        (
            {},
            "/data/older/sub-1/1.nwb.zarr",
            None,
            "file:///data/older/sub-1/1.nwb.zarr",
            "/data/older/sub-1",
        ),
        ({}, "/data/older/sub-1/1.nwb.zarr", None, "file:///lists/older.txt", "/data/older/sub-1"),
        ({}, "/data/older/sub-1/1.nwb.zarr", None, "DANDI:000719", "/data/older/sub-1"),
        # Nothing that a table of others could have all files of this computer allowed by.
        ({}, "/data/older/sub-1/1.nwb.zarr", None, "file:///", "/data/older/sub-1"),
        ({}, f"{Path.home()}/a/b/1.nwb.zarr", None, f"file://{Path.home()}", f"{Path.home()}/a/b"),
        ({}, f"{Path.home()}/a/b/1.nwb.zarr", None, f"file://{Path.home()}/a", f"{Path.home()}/a"),
        ({}, f"{private}/sub-1/1.nwb.zarr", None, private, private),
        (lab, "s3://lab/sessions/sub-1/1.nwb.zarr", "lab", "s3://lab/sessions", "s3://lab/sessions"),
        (headers, f"{web}/sub-1/1.nwb.zarr", "lab", web, web),
        (headers, f"{web}/sub-1/1.nwb.zarr", "lab", None, f"{web}/sub-1"),
    ):
        with pytest.raises(AccessError) as caught:
            storages(options).location(key, storage, source)
        assert repr(advised) in str(caught.value.next_step)


def test_what_is_advised_for_one_session_opens_all_of_the_scan(ecephys: Path, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / "data" / f"sub-{number}").mkdir(parents=True)
        copy_of(ecephys, tmp_path / "data" / f"sub-{number}", "1.nwb.zarr")
    (tmp_path / "tables").mkdir()
    place = tmp_path / "tables" / "sessions.parquet"
    intake_nwbzarr.scan(tmp_path / "data", output=place)
    lab = SessionCatalog(str(place))
    said = []
    for key in lab:
        with pytest.raises(AccessError) as caught:
            lab[key].read()
        said.append(str(caught.value.next_step))
    assert said[0] == said[1]
    (advised,) = re.findall(r"storage_options=(\{.*\})\.$", said[0])
    opened = SessionCatalog(str(place), ast.literal_eval(advised))
    assert [opened[key].read().attrs["identifier"] for key in opened] == ["corpus-ecephys"] * 2


class TestWithoutAnEntry:
    """A session whose storage has no entry in storage_options."""

    @pytest.fixture
    def place(
        self, s3_server: S3Server, ecephys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        s3_server.as_amazon(monkeypatch)
        rows = [
            {"location": s3_server.upload(bucket, "named/1.nwb.zarr", ecephys), "storage": "lab"}
            for bucket in (s3_server.private_bucket, s3_server.public_bucket)
        ]
        rows.append({"location": "s3://no-such-bucket-here/1.nwb.zarr", "storage": "lab"})
        objects = [
            {"location": row["location"], "path": "units", "name": "units", "type": "Units", "types": UNITS}
            for row in rows
        ]
        return write_tables(tmp_path / "sessions.parquet", rows, objects)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"public": {"anon": True}, "old": {"prefix": "/old"}}, "no entry (it has 'public', 'old')."),
            (None, "no entry."),
        ],
    )
    @pytest.mark.parametrize("which", [0, 2])
    def test_it_fails_with_the_name_of_the_entry(
        self, place: Path, options: dict[str, Any] | None, said: str, which: int
    ) -> None:
        found = SessionCatalog(str(place), options).search(units=Find("Units"))
        key = list(found)[which]
        only = found.filter([key])
        source = found[key]
        calls: list[Callable[[], object]] = [
            source.read, source.to_dask, source.to_datatree, source.to_nwb, source.discover,
            source(group="units").read, pickle.loads(pickle.dumps(source)).read, found[key].read,
            lambda: found.open(key), lambda: found.open(key, "nwb"), lambda: only.table("units"),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises((AccessError, LocationNotFoundError)) as caught:
                call()
            advice = str(caught.value.next_step)
            assert f"The table names the storage 'lab', for which storage_options has {said}" in advice
            assert "storage_options={'lab': {...}}" in advice
            assert advice.count("The table names") == 1
            assert caught.value.location == key
        done: Any = only.map(lambda units: 1)
        assert "has no entry" in done.failures.message[0]
        with pytest.warns(SessionsWarning, match="has no entry"):
            found.filter(list(found)[:2]).table("units", ["id"])

    def test_a_public_one_opens_all_the_same(self, place: Path) -> None:
        for options in (None, {"other": {"anon": True}}):
            lab = SessionCatalog(str(place), options)
            assert lab[list(lab)[1]].read().attrs["identifier"] == "corpus-ecephys"

    def test_a_host_that_does_not_resolve_names_it_as_well(self, tmp_path: Path) -> None:
        rows = [{"location": "https://lab.invalid/1.nwb.zarr", "storage": "lab"}]
        lab = SessionCatalog(str(write_tables(tmp_path / "sessions.parquet", rows, [])))
        with pytest.raises(HostNotFoundError, match="storage_options has no entry"):
            lab["https://lab.invalid/1.nwb.zarr"].read()

    def test_other_failures_do_not_name_it(self, place: Path, s3_server: S3Server) -> None:
        lab = SessionCatalog(str(place), {"lab": {"key": "wrong", "secret": "wrong"}})
        with pytest.raises(AccessError) as caught:
            lab[next(iter(lab))].read()
        assert "has no entry" not in str(caught.value)
        plain = SessionCatalog(str(place), {"anon": True})
        with pytest.raises(AccessError) as caught:
            plain[next(iter(plain))].read()
        assert "has no entry" not in str(caught.value)


def test_tables_that_no_entry_is_used_for_say_so(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.as_amazon(monkeypatch)
    place = write_tables(tmp_path / "sessions.parquet", [{"location": "s3://lab/1"}], [])
    for name in ("sessions.parquet", "sessions.objects.parquet"):
        s3_server.upload(s3_server.private_bucket, f"tables/{name}", place.with_name(name))
    url = f"s3://{s3_server.private_bucket}/tables/sessions.parquet"
    keys = {"key": s3_server.key, "secret": s3_server.secret}
    with pytest.raises(AccessError, match="tables themselves are opened without") as caught:
        len(SessionCatalog(url, {"lab": keys}))
    assert "pass table_options={...}, or add a 'prefix'" in str(caught.value.next_step)
    # As it says.
    assert len(SessionCatalog(url, {"lab": keys}, keys)) == 1
    assert len(SessionCatalog(url, {"lab": {**keys, "prefix": f"s3://{s3_server.private_bucket}"}})) == 1
    for options in (None, {"anon": True}):
        with pytest.raises(AccessError) as caught:
            len(SessionCatalog(url, options))
        assert "table_options" not in str(caught.value)
