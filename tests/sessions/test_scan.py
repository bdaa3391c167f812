"""Scans find sessions, read what has changed, and leave tables that tell what failed."""

from __future__ import annotations

import math
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import intake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr import open_hierarchy, scan
from intake_nwbzarr.errors import LocationNotFoundError, OptionError, TableError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.scan import find, part_rows
from intake_nwbzarr.sessions.scan.harvest import FoundSession
from intake_nwbzarr.sessions.scan.part_rows import ScanOptions
from intake_nwbzarr.sessions.scan.scan import part_name, scan_part
from intake_nwbzarr.sessions.scan.scan_report import ScanProgress, ScanReport
from intake_nwbzarr.sessions.tables.table_schema import table_of
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import copy_of, edit
from tests.sessions.lab import DAMAGED, WHOLE, names_of, write_lab, write_small

FAST = {"timeouts": {"backoff": 0.01, "attempts": 3, "stall": 0.5}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `write_lab`: read it only."""
    return write_lab(tmp_path_factory.mktemp("lab") / "sessions")


def _read(output: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    tables = Tables(locate(output)).opened()
    return tables.read("sessions").to_pylist(), tables.read("objects").to_pylist()


def _copies(root: Path, count: int) -> Path:
    """Write one session some times."""
    first = write_small(root / "sub-0")
    for number in range(1, count):
        shutil.copytree(first, root / f"sub-{number}" / first.name)
    return root


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sessions: read them only."""
    return _copies(tmp_path_factory.mktemp("three") / "sessions", 3)


def test_a_folder_is_scanned_to_tables_and_only_what_has_changed_is_scanned_again(
    lab: Path, tmp_path: Path
) -> None:
    copy, output = copy_of(lab, tmp_path), tmp_path / "table.parquet"
    report = scan(copy, output=output)
    assert (report.sessions, report.scanned, report.unchanged) == (7, 7, 0)
    assert (report.hdf5, report.not_nwb, report.unconsolidated) == (1, 1, 1)
    tables = Tables(locate(output)).opened()
    sessions = tables.read("sessions")
    assert names_of(sessions) == WHOLE | DAMAGED
    assert {each.location.removeprefix(f"{locate(copy)}/") for each in report.failures} == DAMAGED
    rows = {row["location"].removeprefix(f"{locate(copy)}/"): row for row in sessions.to_pylist()}
    assert {name for name, row in rows.items() if row["error"]} == DAMAGED
    assert rows["sub-4/cut.nwb.zarr"]["error_type"] == "MetadataError"
    counts = {row["location"]: row["object_count"] for row in sessions.to_pylist() if row["object_count"]}
    assert dict(tables.read("objects")["location"].to_pandas().value_counts()) == counts

    # Without consolidated metadata there is no ETag to compare; what failed is tried again.
    again = scan(copy, output=output)
    assert (again.sessions, again.scanned, again.unchanged, again.gone) == (7, 3, 4, 0)
    assert again.failures == report.failures

    edit(
        copy / "sub-1" / "ses-1.nwb.zarr", "acquisition/speed", lambda each: each["attributes"].update(new=1)
    )
    shutil.rmtree(copy / "sub-2")
    shutil.copytree(copy / "sub-1" / "ses-1.nwb.zarr", copy / "sub-4" / "cut.nwb.zarr", dirs_exist_ok=True)
    last = scan(copy, output=output)
    assert (last.sessions, last.scanned, last.unchanged, last.gone) == (5, 3, 2, 2)
    assert ": 5 sessions (2 unchanged, 3 scanned, of which 1 failed), " in str(last)
    assert "No longer found, and removed from the tables: 2 sessions\n" in str(last)
    sessions = Tables(locate(output)).opened().read("sessions")
    assert names_of(sessions) == (WHOLE | DAMAGED) - {"sub-2/ses-1.nwb.zarr", "deeper/old.nwb.zarr"}
    assert [row["location"] for row in sessions.to_pylist() if row["error"]] == [
        f"{locate(copy)}/sub-4/begun.nwb.zarr"
    ]


def test_tables_that_have_not_changed_are_not_written(three: Path, tmp_path: Path) -> None:
    scan(three, output=tmp_path / "tables")
    before = Tables(locate(tmp_path / "tables")).opened().digest
    scan(three, output=tmp_path / "tables")
    assert Tables(locate(tmp_path / "tables")).opened().digest == before


@pytest.mark.slow
def test_listing_stops_at_stores_and_an_unchanged_session_takes_no_other_request(
    lab: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    url = s3_server.upload(s3_server.public_bucket, "stops", lab)
    options = s3_server.anonymous_options
    first = scan(url, output=tmp_path / "table.parquet", storage_options=options, storage="public")
    assert first.requests == len(s3_server.requests)
    listed = [
        seen.path for seen in s3_server.requests if "list-type" in seen.path and "delimiter" in seen.path
    ]
    # Each folder once; of stores only the one without consolidated metadata.
    matches = (re.search(r"%2F([a-z0-9.-]+)\.(?:nwb|zarr)%2F\w", path) for path in listed)
    inside = {match[1] for match in matches if match}
    assert inside == {"old.nwb"}
    # Each folder once, except where a session is looked for or listed.
    assert len(listed) - len(set(listed)) <= 3
    assert names_of(Tables(locate(tmp_path / "table.parquet")).opened().read("sessions")) == WHOLE | DAMAGED
    rows, _ = _read(tmp_path / "table.parquet")
    assert {row["storage"] for row in rows} == {"public"}

    s3_server.requests.clear()
    again = scan(url, output=tmp_path / "table.parquet", storage_options=options, storage="public")
    assert (again.unchanged, again.scanned) == (4, 3)
    failed_or_listed = ("cut.nwb.zarr", "begun.nwb.zarr", "old.nwb.zarr", "part.zarr", "a.h5")
    others = [
        seen.path for seen in s3_server.requests if not any(name in seen.path for name in failed_or_listed)
    ]
    assert others
    assert all("list-type" in path for path in others)


def test_an_ordinary_session_takes_ten_requests_with_its_listing(
    three: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    url = s3_server.upload(s3_server.public_bucket, "three", three)
    report = scan(url, output=tmp_path / "table.parquet", storage_options=s3_server.anonymous_options)
    assert report.requests == len(s3_server.requests) <= 10 * report.sessions
    assert report.requests_for_all == 21
    assert report.incomplete == 3
    rows, _ = _read(tmp_path / "table.parquet")
    assert all(row["taxon"] == "Mus musculus" and row["session_id"] == "ses-1" for row in rows)
    assert all(set(row["not_read"]) >= {"genotype", "weight"} for row in rows)
    # Only these are scanned again, when they may take what they need.
    more = scan(
        url,
        output=tmp_path / "table.parquet",
        requests=report.requests_for_all,
        storage_options=s3_server.anonymous_options,
    )
    assert (more.scanned, more.unchanged, more.incomplete) == (3, 0, 0)
    assert (
        scan(url, output=tmp_path / "table.parquet", storage_options=s3_server.anonymous_options).unchanged
        == 3
    )


def test_other_prefixes_stay_in_a_file_and_in_a_folder(three: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "table.parquet", tmp_path / "tables"):
        scan(three / "sub-0", three / "sub-1", output=output)
        scan(three / "sub-2", output=output)
        rows, _ = _read(output)
        assert [row["source"] for row in rows] == [locate(three / f"sub-{number}").url for number in range(3)]
    names = {path.stem for path in (tmp_path / "tables" / "sessions").iterdir()}
    assert names == {part_name(locate(three / f"sub-{number}").url) for number in range(3)}
    # The key of the table is unique, whatever prefix it was found by.
    report = scan(three, output=tmp_path / "table.parquet")
    rows, objects = _read(tmp_path / "table.parquet")
    assert (report.unchanged, len(rows)) == (3, 3)
    assert {row["source"] for row in rows} == {locate(three).url}
    assert len({(each["location"], each["path"]) for each in objects}) == len(objects)


def test_prefixes_inside_one_another_are_refused(three: Path, tmp_path: Path) -> None:
    for prefixes in ((three, three / "sub-0"), (three, three)):
        with pytest.raises(OptionError, match="is inside"):
            scan(*prefixes, output=tmp_path / "table.parquet")
    scan(three / "sub-1", three / "sub-2", output=tmp_path / "table.parquet")
    scan(three / "sub-1", output=tmp_path / "tables")
    with pytest.raises(OptionError, match="is inside") as caught:
        scan(three, output=tmp_path / "tables")
    part = part_name(locate(three / "sub-1").url)
    assert f"Delete the part {part}" in str(caught.value)
    assert (tmp_path / "tables" / "sessions" / f"{part}.parquet").exists()


def test_a_prefix_owns_all_that_is_below_it(three: Path, tmp_path: Path) -> None:
    copy, output = copy_of(three, tmp_path), tmp_path / "table.parquet"
    places = tmp_path / "places.txt"
    places.write_text(f"{copy / 'sub-1' / 'ses-1.nwb.zarr'}\n")
    scan(copy / "sub-0", output=output)
    scan(places, output=output)
    shutil.rmtree(copy / "sub-0")
    shutil.rmtree(copy / "sub-1")
    assert scan(copy, output=output).gone == 2
    assert names_of(Tables(locate(output)).opened().read("sessions")) == {"sub-2/ses-1.nwb.zarr"}


def test_a_line_that_is_given_twice_is_one_row_and_counted(three: Path, tmp_path: Path) -> None:
    places = tmp_path / "places.txt"
    places.write_text(f"{three / 'sub-1' / 'ses-1.nwb.zarr'}\n" * 2)
    report = scan(places, output=tmp_path / "table.parquet")
    assert (report.sessions, report.duplicates) == (1, 1)
    assert "Left out: 1 session at the location of another one" in str(report)


@pytest.mark.parametrize("name", ["places.txt", "packed.zip", "a.nwb.zarr.zip"])
def test_a_folder_is_a_folder_whatever_its_name(name: str, three: Path, tmp_path: Path) -> None:
    shutil.copytree(three / "sub-0", tmp_path / name)
    shutil.copytree(three / "sub-0" / "ses-1.nwb.zarr", tmp_path / "in" / "b.nwb.zarr.zip")
    report = scan(tmp_path / name, tmp_path / "in", output=tmp_path / "table.parquet")
    assert (report.scanned, report.failures) == (2, ())
    again = scan(tmp_path / name, tmp_path / "in", output=tmp_path / "table.parquet")
    assert again.unchanged == 2


def test_an_empty_folder_has_no_sessions_and_removes_none(three: Path, tmp_path: Path) -> None:
    copy, output = copy_of(three, tmp_path), tmp_path / "table.parquet"
    scan(copy, output=output)
    shutil.rmtree(copy)
    copy.mkdir()
    report = scan(copy, output=output)
    assert (report.sessions, report.scanned, report.failures, report.gone) == (0, 0, (), 0)
    assert ": 0 sessions (0 unchanged, 0 scanned)" in str(report)
    assert len(_read(output)[0]) == 3


def test_columns_that_were_not_read_are_named(three: Path, s3_server: S3Server, tmp_path: Path) -> None:
    url = s3_server.upload(s3_server.public_bucket, "columns", three)
    arguments = {"output": tmp_path / "table.parquet", "storage_options": s3_server.anonymous_options}
    report = scan(url, **arguments, requests=18)
    assert report.not_read == ("institution", "date_of_birth", "weight")
    needed = report.requests_for_all
    names = ", ".join(report.not_read)
    assert f"Not read for 3 sessions: {names}; requests={needed} reads all" in str(report)
    report = scan(url, **arguments, requests=needed)
    assert "Not read" not in str(report)


def test_local_sessions_have_all_columns_whatever_that_takes(three: Path, tmp_path: Path) -> None:
    report = scan(three, output=tmp_path / "table.parquet", requests=1)
    assert (report.incomplete, report.not_read) == (0, ())
    rows, _ = _read(tmp_path / "table.parquet")
    assert all(row["session_description"] == "running" and row["not_read"] == [] for row in rows)
    assert scan(three, output=tmp_path / "table.parquet").unchanged == 3


def test_a_column_that_no_requests_would_fill_is_named_without_advice(three: Path, tmp_path: Path) -> None:
    copy = copy_of(three / "sub-0" / "ses-1.nwb.zarr", tmp_path)
    for chunk in (copy / "general" / "lab").rglob("c*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    report = scan(copy, output=tmp_path / "table.parquet")
    assert (report.not_read, report.requests_for_all) == (("lab",), 0)
    assert "Not read for 1 session: lab\n" in str(report)
    # It is tried again, since its chunk may have been repaired.
    assert scan(copy, output=tmp_path / "table.parquet").scanned == 1


def _opened(report: ScanReport, options: dict[str, Any] | None = None) -> SessionCatalog:
    """Run the call that a report shows, with somebody's options in place of `...`."""
    call = report.opened_with.replace("{...}", repr(options))
    catalog = eval(call, {"intake": intake})
    assert isinstance(catalog, SessionCatalog)
    return catalog


def test_the_report_tells_how_to_open_what_was_scanned(
    three: Path, tmp_path: Path, s3_server: S3Server
) -> None:
    copy = copy_of(three, tmp_path)
    report = scan(copy, output=tmp_path / "table.parquet")
    assert report.opened_with == f"intake.open_nwbzarr_sessions('{tmp_path / 'table.parquet'}')"
    assert str(report).endswith(f"Open the tables with: {report.opened_with}")
    places = tmp_path / "places.txt"
    places.write_text("\n".join(str(three / f"sub-{number}" / "ses-1.nwb.zarr") for number in range(2)))
    url = s3_server.upload(s3_server.private_bucket, tmp_path.name, three)
    outside = scan(places, output=tmp_path / "outside" / "table.parquet")
    assert f"'local': {{'prefix': '{three}'}}" in outside.opened_with
    both = scan(
        url,
        three,
        output=tmp_path / "both" / "tables",
        storage_options=s3_server.signed_options,
        storage="lab",
    )
    assert s3_server.key not in both.opened_with
    for each, count in ((report, 3), (outside, 2), (both, 6)):
        catalog = _opened(each, s3_server.signed_options)
        assert len(catalog) == count
        for key in catalog:
            assert catalog[key].read().sizes is not None


def test_a_list_of_locations_is_scanned_with_conditional_requests(
    three: Path, http_server: StaticServer, tmp_path: Path
) -> None:
    for name in ("sub-0", "sub-1"):
        shutil.copytree(three / name, http_server.root / name)
    places = tmp_path / "places.txt"
    places.write_text(
        f"\ufeff{http_server.url}/sub-0/ses-1.nwb.zarr\n\n# sessions\n"
        f"{http_server.url}/sub-1/ses-1.nwb.zarr/\n"
        f"{three / 'sub-2' / 'ses-1.nwb.zarr'}\nhttps://me:canary@127.0.0.1:1/a.nwb.zarr?sig=canary\n"
        f"{http_server.url}/missing.nwb.zarr\nnot a:b@c location\n"
    )
    report = scan(places, output=tmp_path / "table.parquet", storage="lab")
    rows, _ = _read(tmp_path / "table.parquet")
    errors = {row["location"]: row["error_type"] for row in rows if row["error"]}
    assert errors == {
        "https://127.0.0.1:1/a.nwb.zarr": "OptionError",
        f"{http_server.url}/missing.nwb.zarr": "LocationNotFoundError",
        # Its number in the file, with comments and empty lines.
        f"{locate(places)}#line-8": "LocationNotFoundError",
    }
    assert (report.sessions, report.scanned, len(rows), len(report.failures)) == (6, 6, 6, 3)
    assert {row["storage"] for row in rows} == {"lab"}
    http_server.requests.clear()
    again = scan(places, output=tmp_path / "table.parquet", storage="lab")
    assert (again.unchanged, again.scanned) == (3, 3)
    assert [seen.status for seen in http_server.requests if "sub-" in seen.path] == [304, 304]
    with pytest.raises(LocationNotFoundError, match="does not exist"):
        scan(tmp_path / "none.txt", output=tmp_path / "table.parquet")


def test_a_session_is_a_prefix_too(three: Path, http_server: StaticServer, tmp_path: Path) -> None:
    shutil.copytree(three / "sub-0", http_server.root / "sub-0")
    for prefix in (three / "sub-0" / "ses-1.nwb.zarr", f"{http_server.url}/sub-0/ses-1.nwb.zarr"):
        assert scan(prefix, output=tmp_path / "table.parquet").scanned == 1


def test_a_bucket_that_cannot_be_listed_is_a_failure_and_a_session_in_it_is_none(
    three: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    options = s3_server.anonymous_options
    url = s3_server.upload(s3_server.unlisted_bucket, "three", three)
    report = scan(url, output=tmp_path / "table.parquet", storage_options=options, storage="lab")
    assert [(each.location, each.error_type) for each in report.failures] == [(url, "AccessError")]
    assert (report.sessions, report.unlisted) == (0, 1)
    assert "0 sessions (0 unchanged, 0 scanned)" in str(report)
    assert "Not found, or not listed completely: 1 folder" in str(report)
    assert [row["storage"] for row in _read(tmp_path / "table.parquet")[0]] == ["lab"]
    report = scan(f"{url}/sub-0/ses-1.nwb.zarr", output=tmp_path / "one.parquet", storage_options=options)
    assert (report.scanned, report.failures) == (1, ())


def test_a_file_that_is_no_session_says_what_it_is(lab: Path, tmp_path: Path) -> None:
    for name, error in {"a.h5": "NotNWBError", "none.nwb": "LocationNotFoundError"}.items():
        report = scan(lab / "raw" / name, output=tmp_path / f"{name}.parquet")
        assert [each.error_type for each in report.failures] == [error]


def test_names_with_spaces_and_percent_signs_are_found_and_open(
    three: Path, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "odd"
    shutil.copytree(three / "sub-0", root / "sub 1 é%41" / "a+b")
    s3_server.upload(s3_server.public_bucket, "spaces", root)
    s3_server.as_amazon(monkeypatch)
    for prefix in (
        root,
        f"s3://{s3_server.public_bucket}/spaces",
        f"https://{s3_server.public_bucket}.s3.amazonaws.com/spaces",
    ):
        options = {"anon": True} if str(prefix).startswith("s3") else None
        report = scan(prefix, output=tmp_path / "table.parquet", storage_options=options)
        assert (report.scanned, report.failures) == (1, ())
        (row,) = [row for row in _read(tmp_path / "table.parquet")[0] if row["source"] == locate(prefix).url]
        # The key is the canonical form, and opens the session.
        assert locate(row["location"]).url == row["location"]
        assert open_hierarchy(row["location"], options).etag == row["etag"]


@pytest.mark.slow
def test_secrets_in_a_url_are_refused_and_found_nowhere(
    three: Path, s3_server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for url in (
        "https://me:canary@127.0.0.1:1/x",
        "https://127.0.0.1:1/x?X-Amz-Signature=canary",
        "s3://k:canary@bucket/x",
    ):
        with pytest.raises(OptionError) as caught:
            scan(url, output=tmp_path / "table.parquet")
        assert "canary" not in str(caught.value)
    wrong = {"key": "canary-key", "secret": "canary-secret", "token": "canary-token"}
    options = {**wrong, "endpoint_url": s3_server.endpoint_url}
    url = s3_server.upload(s3_server.private_bucket, "secret", three)
    report = scan(url, output=tmp_path / "table.parquet", storage_options=options)
    assert [each.error_type for each in report.failures] == ["CredentialsError"]
    url = s3_server.upload(s3_server.public_bucket, "secret", three)
    right = s3_server.signed_options
    seen = scan(url, output=tmp_path / "table.parquet", storage_options=right, snapshots=True, check=True)
    assert seen.scanned == 3
    texts = [str(report), repr(report), str(seen), repr(seen), caplog.text]
    texts += [str(_read(tmp_path / "table.parquet"))]
    texts += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*.parquet")]
    for secret in ("canary", right["secret"], right["key"], s3_server.endpoint_url):
        assert not any(secret in text for text in texts), secret


def test_snapshots_and_comparisons_are_made_when_asked_for(three: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.parquet"
    scan(three, output=output)
    assert scan(three, output=output, snapshots=True).scanned == 3
    rows, _ = _read(output)
    assert all(row["snapshot"] for row in rows)
    assert scan(three, output=output, snapshots=True).unchanged == 3
    report = scan(three, output=output, check=True)
    assert (report.scanned, report.stale) == (3, ())


def test_labels_of_the_finder_are_updated_without_scanning(three: Path, tmp_path: Path) -> None:
    tables, url = Tables(locate(tmp_path / "tables")), locate(three / "sub-0" / "ses-1.nwb.zarr")
    etag = find.find_sessions(three / "sub-0")[1].sessions[0].etag
    for version in ("draft", "0.1"):
        found = FoundSession(url, "public", etag, {"dandiset": "000001", "version": version})
        report = scan_part(tables, "one", "dandi:000001", find.Findings([found]), ScanOptions())
    assert (report.unchanged, report.scanned) == (1, 0)
    (row,) = tables.opened().read("sessions").to_pylist()
    assert (row["dandiset"], row["version"], row["storage"]) == ("000001", "0.1", "public")


def test_unknown_columns_of_unchanged_sessions_are_kept(three: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.parquet"
    scan(three, output=output)
    tables = Tables(locate(output)).opened()
    marked = tables.read("sessions").append_column(
        "quality", table_of("sessions", [{"age": "good"}] * 3)["age"]
    )
    tables.write("", "", marked, tables.read("objects"))
    copy = copy_of(three / "sub-0", tmp_path)
    scan(three, copy, output=output)
    rows, _ = _read(output)
    assert sorted(str(row["quality"]) for row in rows) == ["None", "good", "good", "good"]


def test_progress_is_reported_from_finding_to_the_end(three: Path, tmp_path: Path) -> None:
    seen: list[ScanProgress] = []
    scan(three, output=tmp_path / "table.parquet", progress=seen.append)
    assert [each.sessions for each in seen if each.total is None][-1] == 3
    assert [each.sessions for each in seen if each.total == 3] == [1, 2, 3]


def test_links_in_a_circle_end(three: Path, tmp_path: Path) -> None:
    copy = copy_of(three, tmp_path)
    (copy / "sub-0" / "up").symlink_to(copy)
    (copy / "sub-1" / "up").symlink_to(copy)
    assert scan(copy, output=tmp_path / "table.parquet").sessions == 3


def test_links_out_of_the_folder_are_not_followed(three: Path, tmp_path: Path) -> None:
    copy = copy_of(three / "sub-0", tmp_path)
    (copy / "out").symlink_to(three)
    report = scan(copy, output=tmp_path / "table.parquet")
    assert [(each.error_type, each.location) for each in report.failures] == [
        ("UnsafePathError", f"{locate(copy)}/out")
    ]
    assert report.scanned == 1


def test_depth_and_number_are_bounded(tmp_path: Path, three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep" / "/".join("abcdefghijklmnopqrst")).mkdir(parents=True)
    report = scan(tmp_path / "deep", output=tmp_path / "table.parquet")
    assert [each.error_type for each in report.failures] == ["LimitError"]
    monkeypatch.setattr(find, "MOST_SCANNED", 2)
    with pytest.raises(ValueError, match="more than 2 folders or sessions"):
        scan(three, output=tmp_path / "table.parquet")


@pytest.mark.parametrize("name", ["mine.parquet", "mine.objects.parquet"])
@pytest.mark.parametrize("kind", ["text", "parquet", "sessions of others"])
def test_what_is_no_table_is_not_overwritten(name: str, kind: str, three: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    if kind == "text":
        path.write_bytes(b"my own data")
    elif kind == "parquet":
        pq.write_table(pa.table({"mine": [1]}), path)
    else:
        scan(three / "sub-0", output=tmp_path / "other.parquet")
        shutil.copy(tmp_path / "other.parquet", path)
    before = path.read_bytes()
    with pytest.raises(TableError, match=re.escape(name) if kind != "sessions of others" else "objects"):
        scan(three, output=tmp_path / "mine.parquet")
    assert path.read_bytes() == before


def test_a_table_without_its_objects_is_an_error_that_leaves_its_rows(three: Path, tmp_path: Path) -> None:
    output, objects = tmp_path / "table.parquet", tmp_path / "table.objects.parquet"
    scan(three / "sub-0", three / "sub-1", output=output)
    before = output.read_bytes()
    objects.rename(tmp_path / "away.parquet")
    with pytest.raises(TableError, match="lacks its table of objects") as caught:
        scan(three / "sub-0", output=output)
    assert caught.value.location == str(locate(objects))
    assert (output.read_bytes(), objects.exists()) == (before, False)
    # Reading it does not advise to write over it, either.
    with pytest.raises(LocationNotFoundError, match="Restore it"):
        Tables(locate(output)).opened()
    (tmp_path / "away.parquet").rename(objects)
    assert scan(three / "sub-0", output=output).unchanged == 1


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("/dev/null", "not a folder"),
        ("/dev/null/x.parquet", "/dev/null is not a folder"),
        ("file.parquet/x.parquet", "file.parquet is not a folder"),
        ("folder.parquet", "it is a folder"),
        ("pipe.parquet", "not a regular file"),
        ("x.objects.parquet", "table of objects"),
    ],
)
def test_an_output_that_is_something_else_is_refused(
    output: str, found: str, three: Path, tmp_path: Path
) -> None:
    (tmp_path / "file.parquet").write_bytes(b"mine")
    (tmp_path / "folder.parquet").mkdir()
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(OptionError, match=found):
        scan(three, output=tmp_path / output)
    assert (tmp_path / "file.parquet").read_bytes() == b"mine"


def test_two_scans_of_one_output_do_not_lose_sessions(three: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "table.parquet", tmp_path / "tables"):
        refused: list[TableError] = []
        prefixes = [three / f"sub-{number}" for number in range(3)]

        def one(prefix: Path, output: Path = output, refused: list[TableError] = refused) -> None:
            while True:
                try:
                    scan(prefix, output=output)
                    break
                except TableError as error:
                    refused.append(error)

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(one, prefixes))
        rows, _ = _read(output)
        assert [row["source"] for row in rows] == [locate(prefix).url for prefix in prefixes]
        assert not list(tmp_path.rglob("*.lock"))
        # In a folder, each prefix has files of its own.
        assert output.suffix or not refused
        assert all(each.transient for each in refused)


def test_a_second_scan_of_one_output_is_an_error_that_names_the_lock(three: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.parquet"
    caught: list[TableError] = []

    def meanwhile(progress: ScanProgress) -> None:
        if progress.total is not None:
            with pytest.raises(TableError, match="Another scan") as error:
                scan(three / "sub-1", output=output)
            caught.append(error.value)

    scan(three / "sub-0", output=output, progress=meanwhile)
    assert [each.found for each in caught] == [str(tmp_path / ".table.parquet.lock")]
    assert len(_read(output)[0]) == 1


@pytest.mark.parametrize("existing", [True, False])
def test_a_second_scan_of_one_output_on_s3_is_not_written_over(
    existing: bool, three: Path, tmp_path: Path, s3_server: S3Server
) -> None:
    options = s3_server.signed_options
    output = f"s3://{s3_server.private_bucket}/{tmp_path.name}/table.parquet"
    if existing:
        scan(three / "sub-2", output=output, storage_options=options)

    def meanwhile(progress: ScanProgress) -> None:
        if progress.total is not None:
            scan(three / "sub-1", output=output, storage_options=options)

    with pytest.raises(TableError, match="written by another scan") as caught:
        scan(three / "sub-0", output=output, storage_options=options, progress=meanwhile)
    assert caught.value.transient
    assert len(Tables(locate(output, options)).opened().read("sessions")) == 1 + existing
    scan(three / "sub-0", output=output, storage_options=options)
    assert len(Tables(locate(output, options)).opened().read("sessions")) == 2 + existing


def test_a_scan_on_s3_writes_more_than_once(
    three: Path, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_rows, "CHECKPOINT", 0.0)
    monkeypatch.setattr(part_rows, "_SHARE", math.inf)
    output = f"s3://{s3_server.private_bucket}/{tmp_path.name}/table.parquet"
    scan(three, output=output, storage_options=s3_server.signed_options)
    assert sum(seen.method == "PUT" and "/table.parquet" in seen.path for seen in s3_server.requests) >= 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"threads": 0},
        {"threads": True},
        {"requests": "10"},
        {"snapshots": 1},
        {"check": None},
        {"storage": 3},
        {"progress": 5},
        {"storage_options": 5},
        {"output_options": 5},
    ],
)
def test_odd_arguments_are_refused(arguments: dict[str, Any], three: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=next(iter(arguments))):
        scan(three, output=tmp_path / "table.parquet", **arguments)


def test_tables_are_written_to_a_local_path_or_s3_only(three: Path, s3_server: S3Server) -> None:
    with pytest.raises(OptionError, match="cannot be written"):
        scan(three, output="https://127.0.0.1:1/table.parquet")
    with pytest.raises(OptionError, match="at least one prefix"):
        scan(output="table.parquet")
    output = f"s3://{s3_server.private_bucket}/scans/tables"
    scan(three, output=output, storage_options=s3_server.signed_options)
    assert len(Tables(locate(output, s3_server.signed_options)).opened().read("sessions")) == 3


def test_nothing_at_a_prefix_is_a_failure_and_removes_nothing(three: Path, tmp_path: Path) -> None:
    copy, output = copy_of(three, tmp_path), tmp_path / "table.parquet"
    scan(copy, output=output)
    copy.rename(tmp_path / "not-mounted")
    report = scan(copy, output=output)
    assert [each.error_type for each in report.failures] == ["LocationNotFoundError"]
    assert (report.sessions, report.scanned, report.unlisted, report.gone) == (0, 0, 1, 0)
    assert len(_read(output)[0]) == 4
    (tmp_path / "not-mounted").rename(copy)
    assert scan(copy, output=output).unchanged == 3
    assert len(_read(output)[0]) == 3


@settings(max_examples=25)
@given(words=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=5))
def test_names_of_parts_are_plain_and_tell_sources_apart(words: list[str]) -> None:
    source = "s3://lab/" + "/".join(words)
    name = part_name(source)
    assert name == name.strip("-.")
    assert all(character.isascii() and (character.isalnum() or character == "-") for character in name)
    assert part_name(source + "x") != name
