"""Dandisets, listed with the real client from a server that answers as the archive does, and scanned."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from dandi.dandiapi import DandiAPIClient
from dandischema.models import Asset as AssetModel
from keyring.backend import KeyringBackend
from pynwb import NWBHDF5IO
from typer.testing import CliRunner

from intake_nwbzarr.cli.main import Settings, app
from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    HostNotFoundError,
    LocationError,
    LocationNotFoundError,
    MissingPackageError,
    NWBZarrError,
    OptionError,
    ResponseError,
    TransportError,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.scan.dandi import Listed, list_dandiset, scan_dandi
from intake_nwbzarr.sessions.scan.dandi_client import connect
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.servers.dandi_server import Asset, DandiServer, Dandiset, participant
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.sessions.lab import small_session

CANARY = "Canary4f1dToken"


def stored(bucket: str = "dandiarchive", kind: str = "zarr") -> str:
    """The URL of a new Zarr store or blob, as the archive writes it."""
    return f"https://{bucket}.s3.amazonaws.com/{kind}/{uuid.uuid4()}/"


def assets_of(count: int) -> list[Asset]:
    return [Asset(f"sub-{number:03}/sub-{number:03}_ecephys.nwb.zarr", stored()) for number in range(count)]


def mixed_assets() -> list[Asset]:
    """Return Zarr stores named in all ways, and an HDF5 file."""
    return [
        Asset("sub-1/sub-1_ses-1_ecephys.nwb.zarr", stored()),
        Asset("sub-1/sub-1_ses-2_ecephys.nwb", stored()),
        Asset("sub-2/sub-2_ophys.zarr", stored()),
        Asset("sub-2/sub-2_image.ome.zarr", stored()),
        Asset("sub-2/sub-2_ecephys.nwb", stored(kind="blobs").rstrip("/"), is_zarr=False),
    ]


@pytest.fixture
def archive() -> Iterator[DandiServer]:
    """An archive with a public dandiset, one of many assets, and an embargoed one."""
    with DandiServer() as server:
        draft = mixed_assets()
        server.dandisets = {
            "000719": Dandiset("Two photon imaging", {"draft": draft, "0.240409.1542": draft[:2]}),
            "000720": Dandiset("Many", {"draft": assets_of(230)}),
            "000721": Dandiset("Secret", {"draft": mixed_assets()}, embargoed=True, owners=(CANARY,)),
        }
        server.tokens = {CANARY, "another"}
        yield server


class Keyring(KeyringBackend):
    """A keyring in memory."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


@pytest.fixture(autouse=True)
def own_keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyring]:
    """An empty keyring in place of that of whoever runs the tests, whose tokens are hidden as well."""
    for name in [name for name in os.environ if name.endswith("_API_KEY") or name.startswith("DANDI_")]:
        monkeypatch.delenv(name)
    before, own = keyring.get_keyring(), Keyring()
    keyring.set_keyring(own)
    yield own
    keyring.set_keyring(before)


def listed(archive: DandiServer, wanted: str, *, token: str | None = None, **options: Any) -> Listed:
    with connect(archive.api_url, token) as connected:
        return list_dandiset(connected, wanted, **options)


def paths(found: Listed) -> list[str]:
    return [session.known["asset_path"] for session in found.sessions]


def test_the_server_answers_as_the_client_and_the_schema_of_the_archive_expect(
    archive: DandiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANDI_NO_ET", "1")
    archive.dandisets["000719"].versions["draft"][0].metadata = {"wasAttributedTo": [participant("R6")]}
    with DandiAPIClient(archive.api_url) as client:
        assert str(next(client.get_dandisets())).endswith("000719/0.240409.1542")
        dandiset = client.get_dandiset("000719", "draft", lazy=False)
        assert [str(version) for version in dandiset.get_versions()] == ["draft", "0.240409.1542"]
        for asset in dandiset.get_assets(order="path"):
            metadata = asset.get_raw_metadata()
            AssetModel.model_validate(metadata)
            assert dandiset.get_asset(asset.identifier).get_raw_metadata() == metadata
        assert [asset.path for asset in dandiset.get_assets_by_glob("SUB-1*")] == [
            "sub-1/sub-1_ses-1_ecephys.nwb.zarr",
            "sub-1/sub-1_ses-2_ecephys.nwb",
        ]


def test_every_asset_that_may_be_nwb_is_found(archive: DandiServer) -> None:
    found = listed(archive, "000719@draft")
    assert (found.identifier, found.version, found.title) == ("000719", "draft", "Two photon imaging")
    assert [(path, session.guessed) for path, session in zip(paths(found), found.sessions, strict=True)] == [
        ("sub-1/sub-1_ses-1_ecephys.nwb.zarr", False),
        # An NWB file by its name, which may be HDF5; the archive says that it is Zarr.
        ("sub-1/sub-1_ses-2_ecephys.nwb", False),
        # HDF5, which the archive stores as a blob.
        ("sub-2/sub-2_ecephys.nwb", False),
        ("sub-2/sub-2_ophys.zarr", True),
    ]
    assert (found.images, found.others) == (1, 0)
    assert [session.location.is_hdf5 for session in found.sessions] == [False, False, True, False]
    first = archive.dandisets["000719"].versions["draft"][0]
    assert found.sessions[0].known == {
        "dandiset": "000719",
        "version": "draft",
        "asset_path": first.path,
        "asset_id": first.asset_id,
        "title": "Two photon imaging",
    }
    assert found.sessions[0].location.url == f"s3://dandiarchive/zarr/{first.stored_id}"
    assert found.sessions[0].location.public == {"anon": True}
    assert found.sessions[0].storage == "dandi"


def test_the_last_published_version_is_the_default(archive: DandiServer) -> None:
    assert listed(archive, "000719").version == "0.240409.1542"
    assert len(listed(archive, "000719@0.240409.1542").sessions) == 2
    assert listed(archive, "000720").version == "draft"


def test_a_glob_chooses_assets_by_path(archive: DandiServer) -> None:
    found = listed(archive, "000719@draft", glob="sub-2/*")
    assert paths(found) == ["sub-2/sub-2_ecephys.nwb", "sub-2/sub-2_ophys.zarr"]
    assert (found.images, found.others) == (1, 0)
    assert listed(archive, "000719", glob="nothing*").sessions == ()


def test_many_assets_take_a_request_for_each_hundred(archive: DandiServer) -> None:
    found = listed(archive, "000720")
    assert paths(found) == [asset.path for asset in archive.dandisets["000720"].versions["draft"]]
    # Three pages of Zarr stores, one of files, and how many assets there are in all.
    assert archive.count("/assets/") == 5


def test_a_server_without_the_filters_is_asked_for_each_asset(archive: DandiServer) -> None:
    expected = listed(archive, "000719@draft")
    archive.knows_filters = False
    assert listed(archive, "000719@draft") == expected


def test_a_server_with_smaller_pages_gives_the_same(archive: DandiServer) -> None:
    archive.page_size = 7
    assert len(listed(archive, "000720").sessions) == 230


@pytest.mark.slow
def test_a_moment_of_weakness_changes_nothing(archive: DandiServer) -> None:
    expected = listed(archive, "000720")
    archive.fault("status", "/info/", 1, status=503)
    archive.fault("status", "page=2", 1, status=429, headers={"Retry-After": "1"})
    archive.fault("reset", "page=3", 1)
    archive.requests.clear()
    assert listed(archive, "000720") == expected
    assert [seen.status for seen in archive.requests if seen.status not in {200, "reset"}] == [503, 429]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client try twice only, which it does twelve times within a minute."""
    monkeypatch.setattr("dandi.dandiapi.REQUEST_RETRIES", 2)
    monkeypatch.setattr("intake_nwbzarr.sessions.scan.dandi_client._TIMEOUTS", (1, 1))


@pytest.mark.parametrize(
    "fault", ["status", *(pytest.param(each, marks=pytest.mark.slow) for each in ("reset", "stall"))]
)
@pytest.mark.usefixtures("impatient")
def test_an_archive_that_is_down_is_a_transient_error(archive: DandiServer, fault: Any) -> None:
    archive.fault(fault, "/assets/", math.inf, status=502)
    with pytest.raises(TransportError) as error:
        listed(archive, "000719")
    assert error.value.transient
    assert error.value.location == archive.api_url
    assert archive.count("/assets/") >= 2


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_pause_of_an_hour_is_not_waited_for(archive: DandiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intake_nwbzarr.sessions.scan.dandi_client._LONGEST_PAUSE", 1)
    archive.fault("status", "/info/", 1, status=429, headers={"Retry-After": "3600"})
    later = {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}
    archive.fault("status", "/assets/", 1, status=503, headers=later)
    assert len(listed(archive, "000719").sessions) == 2


def test_a_url_without_an_archive_is_said_to_be_so(http_server: StaticServer) -> None:
    with pytest.raises(ResponseError) as error, connect(http_server.url, None):
        pass
    assert error.value.found == 404
    assert "https://api.dandiarchive.org/api" in str(error.value)


def test_a_host_that_does_not_exist_is_asked_for_once() -> None:
    with pytest.raises(HostNotFoundError) as error, connect("https://dandi.invalid/api", None):
        pass
    assert error.value.found == "dandi.invalid"


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_not_there_is_a_transient_error() -> None:
    with pytest.raises(TransportError) as error, connect("http://127.0.0.1:9/api", None):
        pass
    assert error.value.transient


def test_a_page_in_place_of_an_api_is_said_to_be_so(archive: DandiServer) -> None:
    archive.fault("redirect", "/info/", 1, status=302, to=f"{archive.api_url}/dandisets/")
    with pytest.raises(ResponseError) as error:
        listed(archive, "000719")
    assert "did not answer as a DANDI API does" in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.dandiarchive.org",
        "ftp://api.dandiarchive.org",
        "https://me:x@host/api",
        "https://host/api?a=b",
        "https://host:x/api",
        "https:///api",
        3,
        b"https://host",
        "https://host/\n",
    ],
)
def test_what_is_no_url_of_an_api_is_refused(url: Any) -> None:
    with pytest.raises(LocationError) as error, connect(url, None):
        pass
    assert "api_url must be" in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "advice"),
    [
        ("719", "Did you mean '000719'?"),
        ("DANDI:000719/draft", "Did you mean '000719'?"),
        ("", None),
        ("000719@latest", "Did you mean '000719'?"),
        (None, None),
        ("0007190", None),
        (719, None),
    ],
)
def test_what_is_no_dandiset_is_refused_before_a_request(
    archive: DandiServer, wanted: Any, advice: str
) -> None:
    with pytest.raises(OptionError) as error:
        listed(archive, wanted)
    assert error.value.next_step == advice
    assert archive.count("/dandisets/") == 0


def test_a_dandiset_or_version_that_does_not_exist_is_said_to_be_so(archive: DandiServer) -> None:
    with pytest.raises(LocationNotFoundError) as error:
        listed(archive, "000917")
    assert error.value.found == "000917"
    with pytest.raises(LocationNotFoundError) as error:
        listed(archive, "000719@0.240409.1543")
    assert error.value.next_step == "Did you mean '0.240409.1542'?"
    with pytest.raises(LocationNotFoundError) as error:
        listed(archive, "000720@9.9.9")
    assert error.value.next_step == "Its versions are draft."


def test_an_embargoed_dandiset_is_shown_to_its_owners(
    archive: DandiServer, own_keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CredentialsError) as error:
        listed(archive, "000721")
    assert "embargoed" in str(error.value)
    with pytest.raises(AccessError) as refused:
        listed(archive, "000721", token="another")
    assert refused.value.found == 403
    assert len(listed(archive, "000721", token=CANARY).sessions) == 4
    variable = f"DANDI_127_0_0_1_{archive.port}_API_KEY"
    monkeypatch.setenv(variable, CANARY)
    assert len(listed(archive, "000721").sessions) == 4
    monkeypatch.delenv(variable)
    own_keyring.set_password(f"dandi-api-127.0.0.1:{archive.port}", "key", CANARY)
    assert len(listed(archive, "000721").sessions) == 4
    # The keyring is not opened for what is public.
    archive.requests.clear()
    listed(archive, "000719")
    assert archive.count("/auth/token") == 0


@pytest.mark.parametrize("where", ["argument", "environment", "keyring"])
def test_a_token_that_is_not_accepted_is_not_shown(
    archive: DandiServer, where: str, own_keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.tokens.clear()
    if where == "environment":
        monkeypatch.setenv(f"DANDI_127_0_0_1_{archive.port}_API_KEY", CANARY)
    own_keyring.set_password(f"dandi-api-127.0.0.1:{archive.port}", "key", CANARY)
    with pytest.raises(CredentialsError) as error:
        listed(archive, "000721", token=CANARY if where == "argument" else None)
    assert "does not accept the token" in str(error.value)
    assert {"argument": "token=", "environment": "_API_KEY", "keyring": "keyring"}[where] in str(error.value)
    assert CANARY not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "\ud800", "é", 3, b"token"])
def test_what_is_no_token_is_refused_unseen(archive: DandiServer, token: Any) -> None:
    with pytest.raises(OptionError) as error:
        listed(archive, "000719", token=token)
    assert "is not an API key" in str(error.value)
    assert archive.count("/auth/token") == 0


def test_the_public_archives_token_is_sent_to_no_other_archive(
    archive: DandiServer, own_keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANDI_API_KEY", CANARY)
    own_keyring.set_password("dandi-api-dandi", "key", CANARY)
    with pytest.raises(CredentialsError):
        listed(archive, "000721")
    assert not any("Authorization" in seen.headers for seen in archive.requests)


@pytest.mark.parametrize("how", ["next page", "redirect"])
def test_no_other_server_is_asked_whatever_the_archive_says(
    archive: DandiServer, http_server: StaticServer, how: str
) -> None:
    if how == "redirect":
        archive.fault("redirect", "/assets/", math.inf, status=302, to=f"{http_server.url}/elsewhere")
    else:
        archive.pages_at = http_server.url
    with pytest.raises(ResponseError) as error:
        listed(archive, "000720", token=CANARY)
    assert "another server" in str(error.value)
    assert http_server.requests == []


def test_an_asset_on_an_unknown_server_is_refused(archive: DandiServer, http_server: StaticServer) -> None:
    number = uuid.uuid4()
    asset = Asset("a.nwb.zarr", f"{http_server.url}/bucket/zarr/{number}/")
    archive.dandisets["000719"].versions["draft"] = [asset]
    with pytest.raises(ResponseError) as error:
        listed(archive, "000719@draft")
    assert error.value.path == "a.nwb.zarr"
    assert "endpoint_url" in str(error.value)
    options = {"anon": True, "endpoint_url": http_server.url}
    found = listed(archive, "000719@draft", storage_options=options)
    assert found.sessions[0].location.url == f"s3://bucket/zarr/{number}"
    assert found.sessions[0].location.public == options
    assert http_server.requests == []


def test_a_client_that_is_too_old_is_said_to_be_so(archive: DandiServer) -> None:
    archive.oldest_client = "99.0.0"
    with pytest.raises(MissingPackageError) as error:
        listed(archive, "000719")
    assert error.value.expected == ">=99.0.0"


def test_without_the_client_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dandi.dandiapi", None)
    with pytest.raises(MissingPackageError) as error, connect(None, None):
        pass
    assert "pip install" in str(error.value)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_the_client_writes_and_logs_nothing(
    archive: DandiServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    archive.fault("status", "/info/", 1, status=503)
    listed(archive, "000721", token=CANARY)
    archive.fault("reset", "/assets/", math.inf)
    with pytest.raises(NWBZarrError) as error:
        listed(archive, "000721", token=CANARY)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("dandi")] == []
    assert CANARY not in caplog.text + "".join(traceback.format_exception(error.value))


@pytest.fixture
def amazon(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, which this process takes for Amazon's."""
    s3_server.as_amazon(monkeypatch)
    return s3_server


@pytest.fixture
def sessions(
    archive: DandiServer, amazon: S3Server, ecephys: Path, ophys: Path, tmp_path: Path
) -> list[Asset]:
    """Assets of 000719: two Zarr sessions, a store that is none, one without objects, an HDF5 file."""
    first, second, other, _, file = archive.dandisets["000719"].versions["draft"]
    with NWBHDF5IO(str(tmp_path / "session.nwb"), "w") as io:
        io.write(small_session())
    amazon.upload(amazon.dandi_bucket, f"blobs/{file.stored_id}", tmp_path / "session.nwb")
    amazon.upload(amazon.dandi_bucket, f"zarr/{first.stored_id}", ecephys)
    amazon.upload(amazon.dandi_bucket, f"zarr/{second.stored_id}", ophys)
    amazon.upload(amazon.dandi_bucket, f"zarr/{other.stored_id}", ophys / "general" / "subject")
    lost = Asset("sub-3/sub-3.nwb.zarr", stored())
    archive.dandisets["000719"].versions["draft"].append(lost)
    return [first, second, other, lost, file]


def test_a_dandiset_is_scanned_into_a_part_of_the_tables(
    archive: DandiServer, sessions: list[Asset], tmp_path: Path
) -> None:
    folder = tmp_path / "tables"
    report = scan_dandi("000719@draft", output=folder, api_url=archive.api_url)
    assert (report.sessions, report.scanned, report.not_nwb, report.other_assets) == (4, 4, 2, 0)
    assert [failure.error_type for failure in report.failures] == ["LocationNotFoundError"]
    assert "Skipped: 2 Zarr stores without NWB data\n" in str(report)
    tables = Tables(locate(folder)).opened()
    assert [part.name for part in tables.parts] == ["dandi-000719"]
    assert tables.parts[0].source == f"{archive.api_url}/dandisets/000719"
    rows = {row["asset_path"]: row for row in tables.read("sessions").to_pylist()}
    first, second, _, lost, file = sessions
    assert rows.keys() == {first.path, second.path, lost.path, file.path}
    assert rows[file.path]["location"] == f"s3://dandiarchive/blobs/{file.stored_id}"
    assert rows[file.path]["format"] == "hdf5"
    assert rows[file.path]["requests"] <= 2
    assert (rows[file.path]["taxon"], rows[file.path]["trial_count"]) == ("Mus musculus", 3)
    row = rows[first.path]
    assert row["location"] == f"s3://dandiarchive/zarr/{first.stored_id}"
    assert (row["storage"], row["dandiset"], row["version"]) == ("dandi", "000719", "draft")
    assert (row["asset_id"], row["title"]) == (first.asset_id, "Two photon imaging")
    assert row["unit_count"] == 6
    assert row["error"] is None
    assert rows[lost.path]["error_type"] == "LocationNotFoundError"
    types = set(tables.read("objects")["type"].to_pylist())
    assert {"Units", "TwoPhotonSeries"} <= types


def test_two_assets_with_one_zarr_store_are_one_row_of_the_first_and_counted(
    archive: DandiServer, sessions: list[Asset], tmp_path: Path
) -> None:
    archive.dandisets["000719"].versions["draft"].append(Asset("zz/copy.nwb.zarr", sessions[0].s3_url))
    report = scan_dandi("000719@draft", output=tmp_path / "dandi.parquet", api_url=archive.api_url)
    assert (report.sessions, report.duplicates) == (4, 1)
    assert "Left out: 1 session at the location of another one" in str(report)
    assert report.opened_with == f"intake.open_nwbzarr_sessions('{tmp_path / 'dandi.parquet'}')"
    rows = Tables(locate(tmp_path / "dandi.parquet")).opened().read("sessions").to_pylist()
    assert sessions[0].path in {row["asset_path"] for row in rows}
    assert "zz/copy.nwb.zarr" not in {row["asset_path"] for row in rows}


def test_only_what_has_changed_is_scanned_again(
    archive: DandiServer, sessions: list[Asset], amazon: S3Server, ecephys: Path, tmp_path: Path
) -> None:
    output = tmp_path / "dandi.parquet"
    scan_dandi("000719@draft", "000721", output=output, api_url=archive.api_url, token=CANARY)
    assets = archive.dandisets["000719"].versions["draft"]
    archive.dandisets["000719"].name = "A better title"
    amazon.upload(amazon.dandi_bucket, f"zarr/{assets[-1].stored_id}", ecephys)
    del assets[0]
    amazon.requests.clear()
    report = scan_dandi("000719@draft", output=output, api_url=archive.api_url)
    assert (report.scanned, report.unchanged, report.gone, report.failures) == (1, 2, 1, ())
    assert amazon.count(f"zarr/{assets[0].stored_id}") == 1
    rows = Tables(locate(output)).opened().read("sessions").to_pylist()
    assert [row["title"] for row in rows if row["dandiset"] == "000719"] == ["A better title"] * 3
    # The other dandiset, which this scan was not about.
    assert {row["dandiset"] for row in rows} == {"000719", "000721"}


def test_an_embargoed_session_is_a_row_with_its_error(
    archive: DandiServer, amazon: S3Server, tmp_path: Path
) -> None:
    output = tmp_path / "dandi.parquet"
    amazon.requests.clear()
    report = scan_dandi("000721", output=output, api_url=archive.api_url, token=CANARY, glob="*.zarr")
    assert {failure.error_type for failure in report.failures} == {"AccessError"}
    assert not report.failures[0].transient
    assert amazon.requests == []
    rows = Tables(locate(output)).opened().read("sessions").to_pylist()
    assert sorted(row["asset_path"] for row in rows) == [
        "sub-1/sub-1_ses-1_ecephys.nwb.zarr",
        "sub-2/sub-2_ophys.zarr",
    ]
    assert all("is embargoed" in row["error"] for row in rows)


def test_with_credentials_an_embargoed_session_is_read(
    archive: DandiServer, s3_server: S3Server, ecephys: Path, tmp_path: Path
) -> None:
    number = uuid.uuid4()
    s3_server.upload(s3_server.private_bucket, f"zarr/{number}", ecephys)
    url = f"{s3_server.endpoint_url}/{s3_server.private_bucket}/zarr/{number}/"
    archive.dandisets["000721"].versions["draft"] = [Asset("a.nwb.zarr", url)]
    arguments: dict[str, Any] = {
        "output": tmp_path / "a.parquet",
        "api_url": archive.api_url,
        "token": CANARY,
    }
    report = scan_dandi("000721", storage_options=s3_server.signed_options, storage="mine", **arguments)
    assert report.failures == ()
    rows = Tables(locate(tmp_path / "a.parquet")).opened().read("sessions").to_pylist()
    assert rows[0]["location"] == f"s3://{s3_server.private_bucket}/zarr/{number}"
    assert rows[0]["storage"] == "mine"
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert not any(each.encode() in content for each in (CANARY, s3_server.key, s3_server.secret))


def test_nothing_is_written_if_one_of_the_dandisets_cannot_be_listed(
    archive: DandiServer, tmp_path: Path
) -> None:
    with pytest.raises(LocationNotFoundError):
        scan_dandi("000720", "000917", output=tmp_path / "a.parquet", api_url=archive.api_url)
    assert list(tmp_path.iterdir()) == []


def test_odd_arguments_of_a_scan_are_refused(archive: DandiServer, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"output": tmp_path / "a.parquet", "api_url": archive.api_url}
    for dandisets in ((), ("719",), ("000719", "000719@draft"), ("0\uff1000719"[:6],), ("\u0660" * 6,)):
        with pytest.raises(OptionError):
            scan_dandi(*dandisets, **arguments)
    for odd in (
        {"glob": 3},
        {"progress": 5},
        {"storage_options": 5},
        {"threads": 0},
        {"requests": True},
        {"storage": 1},
        {"check": "yes"},
    ):
        with pytest.raises(OptionError):
            scan_dandi("000719", **arguments | odd)
    with pytest.raises(OptionError, match="storage_options="):
        scan_dandi("000719", **arguments, anon=True)
    assert archive.requests == []


_WATCHED = """
import sys
seen = set()
def watch(event, arguments):
    if event == "socket.getaddrinfo":
        seen.add(f"name {arguments[0]}")
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        seen.add(f"connection {arguments[1][0]}")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.add(f"file {arguments[0]}")
sys.addaudithook(watch)
from intake_nwbzarr.cli.main import main
try:
    main()
finally:
    print(*sorted(seen), sep="\\n", file=open(sys.argv[-1] + ".seen", "w"))
"""


@pytest.mark.slow
def test_the_command_asks_nobody_else_and_writes_nothing_else(
    archive: DandiServer, sessions: list[Asset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, output = tmp_path / "home", tmp_path / "dandi.parquet"
    home.mkdir()
    archive.dandisets["000719"].versions["draft"].remove(sessions[3])
    archive.tokens.add(CANARY)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv(f"DANDI_127_0_0_1_{archive.port}_API_KEY", CANARY)
    command = ["catalog", "dandi", "000719@draft", "--glob", "sub-1/*", "--api-url", archive.api_url]
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, *command, "-o", str(output)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "2 sessions (0 unchanged, 2 scanned)" in done.stdout
    assert done.stderr == ""
    seen = Path(f"{output}.seen").read_text().splitlines()
    assert {each.partition(" ")[2] for each in seen if not each.startswith("file ")} == {"127.0.0.1"}
    written = [Path(each.removeprefix("file ")) for each in seen if each.startswith("file ")]
    assert all(path.parent == tmp_path or path == Path(os.devnull) for path in written)
    assert list(home.iterdir()) == []
    assert any(seen.headers.get("Authorization") == f"token {CANARY}" for seen in archive.requests)
    for file in tmp_path.iterdir():
        assert file.is_dir() or CANARY.encode() not in file.read_bytes()
    assert CANARY not in done.stdout


def test_the_command_says_what_failed(
    archive: DandiServer, sessions: list[Asset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    arguments = ["catalog", "dandi", "000719@draft", "-o", str(tmp_path / "a"), "--api-url", archive.api_url]
    done = runner.invoke(app, arguments, obj=Settings())
    assert done.exit_code == 1
    assert f"Error: Nothing is stored at s3://dandiarchive/zarr/{sessions[3].stored_id}." in done.stderr
    assert "Skipped: 2 Zarr stores without NWB data" in done.stdout
    assert (tmp_path / "a" / "sessions" / "dandi-000719.parquet").exists()


def test_tables_on_s3_are_written_with_options_of_their_own(
    archive: DandiServer, sessions: list[Asset], amazon: S3Server
) -> None:
    output = f"s3://{amazon.private_bucket}/dandi/tables"
    scan_dandi("000719", output=output, api_url=archive.api_url, output_options=amazon.signed_options)
    tables = Tables(locate(output, amazon.signed_options)).opened()
    assert tables.read("sessions")["storage"].to_pylist() == ["dandi", "dandi"]
    read = [seen for seen in amazon.requests if "/zarr/" in seen.path]
    assert read
    assert not any("Authorization" in seen.headers for seen in read)
