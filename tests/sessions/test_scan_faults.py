"""What a scan does when requests fail, sessions are hostile, disks are full, and processes are killed."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pyarrow.parquet as pq
import pytest

from intake_nwbzarr import scan
from intake_nwbzarr.errors import LocationNotFoundError, TableError, TransportError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.scan.scan_report import ScanReport
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.servers.s3_server import S3Server
from tests.session_files import copy_of
from tests.sessions.lab import write_small
from tests.transport.cached import little_room

pytestmark = pytest.mark.slow

QUICK = {"timeouts": {"backoff": 0.01, "attempts": 3, "stall": 0.5}}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sessions: read them only."""
    root = tmp_path_factory.mktemp("three") / "sessions"
    first = write_small(root / "sub-0")
    for number in (1, 2):
        shutil.copytree(first, root / f"sub-{number}" / first.name)
    return root


@pytest.fixture
def bucket(three: Path, s3_server: S3Server) -> str:
    """The three sessions in a private bucket."""
    return s3_server.upload(s3_server.private_bucket, "three", three)


def _scan(bucket: str, server: S3Server, output: Path, **options: Any) -> ScanReport:
    return scan(bucket, output=output, storage_options=server.signed_options | QUICK, **options)


def _rows(output: Path) -> dict[str, dict[str, Any]]:
    """The rows of the sessions, without what differs from scan to scan, by name of the folder."""
    rows = Tables(locate(output)).opened().read("sessions").to_pylist()
    for row in rows:
        del row["scanned"], row["requests"]
    return {row["location"].rstrip("/").split("/")[-2]: row for row in rows}


@pytest.mark.parametrize(
    "where",
    [
        "list-type",
        "sub-1/ses-1.nwb.zarr/zarr.json",
        "subject/species/c",
        "sub-1%2F",
    ],
)
@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 429, "code": "TooManyRequests"}),
        ("reset", {}),
        ("truncate", {}),
        ("stall", {}),
    ],
)
def test_what_fails_once_is_tried_again(
    where: str, kind: Any, details: dict[str, Any], bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    _scan(bucket, s3_server, tmp_path / "before.parquet")
    s3_server.fault(kind, where, **details)
    report = _scan(bucket, s3_server, tmp_path / "table.parquet")
    assert report.failures == ()
    assert _rows(tmp_path / "table.parquet") == _rows(tmp_path / "before.parquet")
    # The attempts are counted.
    assert report.requests >= 28


@pytest.mark.parametrize(
    ("kind", "details", "error", "transient"),
    [
        ("status", {"status": 503}, "TransportError", True),
        ("truncate", {}, "TransportError", True),
        ("status", {"status": 403, "code": "AccessDenied"}, "AccessError", False),
        ("expired", {}, "CredentialsError", False),
    ],
)
def test_what_fails_always_is_a_row_and_the_others_complete(
    kind: Any,
    details: dict[str, Any],
    error: str,
    transient: bool,
    bucket: str,
    s3_server: S3Server,
    tmp_path: Path,
) -> None:
    output = tmp_path / "table.parquet"
    s3_server.fault(kind, "sub-1/ses-1.nwb.zarr/zarr.json", math.inf, **details)
    report = _scan(bucket, s3_server, output)
    assert [(each.location, each.transient) for each in report.failures] == [
        (f"{bucket}/sub-1/ses-1.nwb.zarr", transient)
    ]
    assert report.failures[0].error_type == error
    assert {name for name, row in _rows(output).items() if row["error"]} == {"sub-1"}
    s3_server.reset()
    again = _scan(bucket, s3_server, output)
    assert (again.scanned, again.unchanged, again.failures) == (1, 2, ())


def test_a_folder_that_cannot_be_listed_is_a_row_and_its_sessions_stay(
    bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    output = tmp_path / "table.parquet"
    _scan(bucket, s3_server, output)
    s3_server.fault("status", "sub-1%2F", math.inf)
    report = _scan(bucket, s3_server, output)
    assert [each.location for each in report.failures] == [f"{bucket}/sub-1"]
    assert report.gone == 0
    assert len(Tables(locate(output)).opened().read("sessions")) == 4
    s3_server.reset()
    assert _scan(bucket, s3_server, output).unchanged == 3
    assert len(Tables(locate(output)).opened().read("sessions")) == 3


def test_wrong_keys_leave_the_rows_of_before(bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    output = tmp_path / "table.parquet"
    _scan(bucket, s3_server, output)
    wrong = {**s3_server.signed_options, "secret": "wrong"}
    report = scan(bucket, output=output, storage_options=wrong)
    assert [(each.location, each.error_type) for each in report.failures] == [(bucket, "CredentialsError")]
    assert report.gone == 0
    assert not any("Authorization" not in seen.headers for seen in s3_server.requests)
    assert _scan(bucket, s3_server, output).unchanged == 3


def test_a_session_that_changes_while_it_is_scanned_is_scanned_the_next_time(
    bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    output = tmp_path / "table.parquet"
    s3_server.fault("etag", "sub-1/ses-1.nwb.zarr/zarr.json", headers={"ETag": '"newer"'})
    assert _scan(bucket, s3_server, output).failures == ()
    assert _rows(output)["sub-1"]["etag"] == '"newer"'
    again = _scan(bucket, s3_server, output)
    assert (again.scanned, again.unchanged) == (1, 2)


def test_what_is_replaced_while_it_is_read_is_read_again_at_once(
    s3_server: S3Server, tmp_path: Path, three: Path
) -> None:
    archive = Path(
        shutil.make_archive(str(tmp_path / "ses-1.nwb.zarr"), "zip", three / "sub-0" / "ses-1.nwb.zarr")
    )
    (tmp_path / "zips").mkdir()
    archive.rename(tmp_path / "zips" / archive.name)
    url = s3_server.upload(s3_server.private_bucket, "scanned-zips", tmp_path / "zips")
    s3_server.fault("etag", ".zip", after=3)
    report = _scan(url, s3_server, tmp_path / "table.parquet")
    assert report.failures == ()
    assert s3_server.count(".zip") > 10


def test_a_bucket_in_another_region_is_found_once(bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    s3_server.regions[s3_server.private_bucket] = "eu-west-1"
    report = _scan(bucket, s3_server, tmp_path / "table.parquet")
    assert report.failures == ()
    assert sum(seen.status == 301 for seen in s3_server.requests) == 1
    assert report.requests <= 10 * report.sessions + 1


def test_names_that_would_lead_out_are_refused_and_the_others_complete(
    bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    client = botocore.session.get_session().create_client(
        "s3", "us-east-1", endpoint_url=s3_server.endpoint_url, aws_access_key_id=s3_server.key,
        aws_secret_access_key=s3_server.secret,
    )  # fmt: skip
    hostile = (
        "three/%2e%2e/zarr.json",
        "three//zarr.json",
        "three/sub-1/a\\..\\b/zarr.json",
        "three/sub-2/x%2fy",
    )
    try:
        for key in hostile:
            client.put_object(Bucket=s3_server.private_bucket, Key=key, Body=b"{}")
        report = _scan(bucket, s3_server, tmp_path / "table.parquet")
    finally:
        for key in hostile:
            client.delete_object(Bucket=s3_server.private_bucket, Key=key)
    assert {each.location: each.error_type for each in report.failures} == dict.fromkeys(
        (bucket, f"{bucket}/sub-1", f"{bucket}/sub-2"), "UnsafePathError"
    )
    assert report.scanned == 3


def test_a_full_disk_leaves_the_tables_of_before(three: Path, tmp_path: Path) -> None:
    copy, output = copy_of(three, tmp_path), tmp_path / "table.parquet"
    scan(copy, output=output)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.parquet")}
    # The objects fit, the sessions do not.
    sizes = {name: len(data) for name, data in before.items()}
    limit = min(sizes.values()) + (max(sizes.values()) - min(sizes.values())) // 2
    shutil.copytree(copy / "sub-0", copy / "sub-3")
    with little_room(limit), pytest.raises(TransportError, match="cannot be written"):
        scan(copy, output=output)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.parquet")} == before
    assert not list(tmp_path.glob(".*"))
    assert scan(copy, output=output).unchanged == 3


_COMMAND = """
import sys
from intake_nwbzarr.sessions.scan import part_rows
part_rows.CHECKPOINT = 0.2
from intake_nwbzarr.cli.main import main
sys.argv = ["nwbzarr", "catalog", "scan", *sys.argv[1:]]
main()
"""


def _row_count(output: Path) -> int:
    try:
        return Tables(locate(output)).opened().rows("sessions")
    except (LocationNotFoundError, TableError):
        # Not written yet, or written just now.
        return 0


def _wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.fixture
def slow_bucket(three: Path, tmp_path: Path, s3_server: S3Server) -> Iterator[str]:
    """Twelve sessions on a server that answers each request late."""
    root = tmp_path / "many"
    for number in range(12):
        shutil.copytree(three / "sub-0", root / f"sub-{number:02}")
    url = s3_server.upload(s3_server.public_bucket, tmp_path.name, root)
    s3_server.latency = 0.1
    yield url
    s3_server.reset()


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_scan_that_is_stopped_leaves_tables_and_goes_on_from_there(
    stop: signal.Signals, slow_bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    output = tmp_path / "table.parquet"
    arguments = [
        slow_bucket,
        "-o",
        str(output),
        "--threads",
        "1",
        "--anon",
        "--endpoint-url",
        s3_server.endpoint_url,
    ]
    command = [sys.executable, "-c", _COMMAND, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for(lambda: output.exists() and pq.read_metadata(output).num_rows >= 5)
        process.send_signal(stop)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (-signal.SIGKILL if stop == signal.SIGKILL else 130)
    reached = _rows(output)
    assert 3 <= len(reached) < 12
    assert not any(row["error"] for row in reached.values())
    s3_server.latency = 0.0
    report = scan(slow_bucket, output=output, storage_options=s3_server.anonymous_options)
    assert (report.unchanged, report.scanned) == (len(reached), 12 - len(reached))
    assert len(_rows(output)) == 12


def test_killed_between_its_two_files_the_next_scan_goes_on(three: Path, tmp_path: Path) -> None:
    copy, output = copy_of(three, tmp_path), tmp_path / "table.parquet"
    scan(copy / "sub-0", output=output)
    shutil.copytree(copy / "sub-0", copy / "sub-0" / "again")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom intake_nwbzarr import scan\n"
        "rename = Path.replace\n"
        "def once(self, target):\n"
        "    rename(self, target)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Path.replace = once\n"
        "scan(sys.argv[1], output=sys.argv[2])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, copy / "sub-0", output], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    report = scan(copy / "sub-0", output=output)
    assert (report.sessions, report.unchanged, report.scanned) == (2, 1, 1)
    assert len(Tables(locate(output)).opened().read("sessions")) == 2


def test_metadata_of_hundreds_of_megabytes_are_refused(three: Path, tmp_path: Path) -> None:
    copy = copy_of(three, tmp_path)
    document = copy / "sub-1" / "ses-1.nwb.zarr" / "zarr.json"
    os.truncate(document, 300 * 2**20)
    report = scan(copy, output=tmp_path / "table.parquet")
    assert [each.error_type for each in report.failures] == ["LimitError"]
    assert report.scanned == 3


def test_deep_metadata_are_refused(three: Path, tmp_path: Path) -> None:
    copy = copy_of(three, tmp_path)
    document = copy / "sub-1" / "ses-1.nwb.zarr" / "zarr.json"
    content = json.loads(document.read_text())
    document.write_text(
        json.dumps(content | {"attributes": 0}).replace(": 0", ": " + "[" * 10**6 + "]" * 10**6)
    )
    report = scan(copy, output=tmp_path / "table.parquet")
    assert [each.error_type for each in report.failures] == ["MetadataError"]
