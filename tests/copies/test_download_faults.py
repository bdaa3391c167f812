"""What goes wrong while downloading: an error, what was there intact, and the next run goes on."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intake_nwbzarr import track_requests
from intake_nwbzarr.copies import download as objects
from intake_nwbzarr.copies.download import Progress, download
from intake_nwbzarr.copies.inventory import NAME
from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    DownloadError,
    NWBZarrError,
    ObjectChangedError,
    TransportError,
)
from tests.copies.downloads import CHUNK, Bucket, contents
from tests.transport.cached import little_room

pytestmark = pytest.mark.slow

type Corpus = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 429}),
        ("reset", {}),
        ("truncate", {}),
        ("stall", {}),
    ],
)
def test_what_passes_is_tried_again(kind: Any, details: dict[str, Any], bucket: Bucket, target: Path) -> None:
    bucket.server.fault(kind, CHUNK, **details)
    with track_requests() as log:
        bucket.download(target)
    assert log.retries == 1
    assert contents(target) == contents(bucket.source)


@pytest.mark.parametrize(
    ("kind", "details", "error"),
    [
        ("status", {"status": 503}, TransportError),
        ("truncate", {}, TransportError),
        ("reset", {}, TransportError),
        ("status", {"status": 403, "code": "AccessDenied"}, AccessError),
        ("expired", {}, CredentialsError),
    ],
)
def test_what_lasts_is_an_error_and_the_next_run_goes_on(
    kind: Any, details: dict[str, Any], error: type[NWBZarrError], bucket: Bucket, target: Path
) -> None:
    bucket.server.fault(kind, CHUNK, times=math.inf, **details)
    with pytest.raises(error, match=CHUNK):
        bucket.download(target)
    assert not target.exists()
    bucket.server.reset()
    done = bucket.download(target)
    assert contents(target) == contents(bucket.source)
    # What fails at once leaves the others no time.
    assert done.fetched < done.objects or error in {AccessError, CredentialsError}
    assert list(target.parent.iterdir()) == [target]


def test_an_earlier_download_is_intact_while_a_later_one_fails(bucket: Bucket, target: Path) -> None:
    bucket.download(target)
    before = contents(target)
    (bucket.source / CHUNK).write_bytes(b"changed")
    (bucket.source / "new").write_bytes(b"new")
    bucket.upload()
    bucket.server.fault("status", "/new", times=math.inf, status=403, code="AccessDenied")
    with pytest.raises(AccessError):
        bucket.download(target)
    assert contents(target) == before
    bucket.server.reset()
    assert bucket.download(target).fetched <= 2
    assert contents(target) == contents(bucket.source)


@pytest.mark.parametrize("options", [{"secret": "wrong"}, {"key": "AKIAWRONG"}])
def test_wrong_keys_are_an_error_and_not_followed_by_anonymous_requests(
    options: dict[str, str], bucket: Bucket, target: Path
) -> None:
    with pytest.raises(CredentialsError):
        download(bucket.url, target, bucket.options | options)
    assert all("Authorization" in seen.headers for seen in bucket.server.requests)
    assert not target.parent.exists()


def test_a_bucket_elsewhere_is_followed_to_its_region(bucket: Bucket, target: Path) -> None:
    bucket.server.regions[bucket.server.private_bucket] = "eu-central-1"
    bucket.download(target)
    assert contents(target) == contents(bucket.source)


def test_an_object_that_changes_while_it_is_fetched_is_begun_anew(
    bucket: Bucket, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (bucket.source / CHUNK).stat().st_size
    monkeypatch.setattr(objects, "PIECE", size // 4)
    # Of the second piece: bytes of another version follow those of the first.
    bucket.server.fault("etag", CHUNK, after=1)
    told: list[Progress] = []
    done = bucket.download(target, progress=told.append)
    assert contents(target) == contents(bucket.source)
    assert told[-1].bytes == told[-1].of_bytes == done.bytes
    bucket.server.reset()
    shutil.rmtree(target)
    for number in range(20):
        bucket.server.fault("etag", CHUNK, headers={"ETag": f'"{number}"'})
    with pytest.raises(ObjectChangedError, match=CHUNK):
        bucket.download(target)
    assert not target.exists()


def test_metadata_that_change_meanwhile_are_an_error_and_the_next_run_fetches_them(
    bucket: Bucket, target: Path
) -> None:
    # As they are fetched; asked about at the end, they have another ETag.
    bucket.server.fault("etag", "a.nwb.zarr/zarr.json")
    with pytest.raises(ObjectChangedError) as raised:
        bucket.download(target)
    assert (raised.value.location, raised.value.path) == (bucket.url, "zarr.json")
    assert raised.value.found != raised.value.expected
    assert not target.exists()
    bucket.server.reset()
    assert bucket.download(target).fetched == 1
    assert contents(target) == contents(bucket.source)


_KILLED = """
import json, sys
from intake_nwbzarr import download
print("started", flush=True)
download(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
"""


def test_a_killed_download_goes_on_where_it_stopped(bucket: Bucket, target: Path) -> None:
    for number in range(150):
        (bucket.source / f"{number}").write_bytes(b"one of many")
    bucket.upload()
    bucket.server.latency = 0.1
    command = [sys.executable, "-c", _KILLED, bucket.url, str(target), json.dumps(bucket.options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    record = target.with_name("a.nwb.zarr.partial") / NAME
    until = time.monotonic() + 60
    while time.monotonic() < until and (not record.exists() or record.read_bytes().count(b"\n") < 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    process.stdout.close()
    assert not target.exists()
    # And a file that it had not finished, and a line of its record that it had not.
    (record.parent / ".0123456789ab.partial").write_bytes(b"half")
    with record.open("ab") as file:
        file.write(b'{"key": "zarr.js')
    bucket.server.reset()
    done = bucket.download(target)
    assert contents(target) == contents(bucket.source)
    assert done.fetched <= done.objects - 19
    assert list(target.parent.iterdir()) == [target]


def test_killed_between_the_two_renames_nothing_is_lost(bucket: Bucket, target: Path) -> None:
    bucket.download(target)
    target.rename(target.with_name("a.nwb.zarr.replaced"))
    assert bucket.download(target).fetched == 0
    assert contents(target) == contents(bucket.source)
    # Or while what was replaced was being removed.
    shutil.copytree(target, target.with_name("a.nwb.zarr.replaced"))
    (target.with_name("a.nwb.zarr.replaced") / "zarr.json").unlink()
    bucket.download(target)
    assert list(target.parent.iterdir()) == [target]


def test_a_disk_that_takes_no_more_is_an_error_and_what_was_there_is_intact(
    bucket: Bucket, target: Path
) -> None:
    bucket.download(target)
    before = contents(target)
    (bucket.source / CHUNK).write_bytes(bytes(300_000))
    bucket.upload()
    with little_room(100_000), pytest.raises(DownloadError, match="cannot be written") as raised:
        bucket.download(target)
    assert raised.value.found == os.strerror(errno.EFBIG)
    assert contents(target) == before
    assert bucket.download(target).fetched == 1
    assert contents(target) == contents(bucket.source)


def test_a_disk_without_enough_room_is_said_before_anything_is_fetched(
    bucket: Bucket, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the operating system would say of a disk that is almost full.
    usage = shutil.disk_usage(target.parent.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DownloadError, match=r"needs \d+\.\d kB more") as raised:
        bucket.download(target)
    assert isinstance(raised.value.expected, int)
    assert raised.value.found == 1000 < raised.value.expected
    assert bucket.server.count() == 1
    assert not target.exists()
