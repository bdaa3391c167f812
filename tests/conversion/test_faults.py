"""What goes wrong while converting: an error, no store that looks complete, and the next run resumes."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from intake_nwbzarr import convert, open_hierarchy, track_requests
from intake_nwbzarr.errors import (
    AccessError,
    ChunkError,
    ConversionError,
    CredentialsError,
    LocationError,
    NotZarrError,
    NWBZarrError,
    ObjectChangedError,
    TransportError,
)
from intake_nwbzarr.hierarchy.documents import JOURNAL
from tests.conversion.sessions import SMALL, Stored, nodes, opened
from tests.session_files import edit
from tests.transport.cached import little_room

pytestmark = pytest.mark.slow

READ, WRITTEN = "a.nwb.zarr/acquisition/data/c/0/0", "b.nwb.zarr/acquisition/data/c/0/0"


@pytest.mark.parametrize(
    ("kind", "match", "method", "details"),
    [
        ("status", READ, "GET", {"status": 503}),
        ("reset", WRITTEN, "PUT", {}),
        ("truncate", WRITTEN, "GET", {}),
        ("status", READ, "GET", {"status": 429}),
        ("reset", READ, "GET", {}),
        ("truncate", READ, "GET", {}),
        ("status", WRITTEN, "PUT", {"status": 503}),
    ],
)
def test_what_passes_is_tried_again(
    kind: Any, match: str, method: str, details: dict[str, Any], bucket: Stored
) -> None:
    bucket.server.fault(kind, match, method=method, **details)
    with track_requests() as log:
        done = bucket.convert()
    assert log.retries >= 1
    assert done.written
    np.testing.assert_array_equal(bucket.read("acquisition/data"), opened(bucket.source, "acquisition/data"))
    assert "zarr.json" in bucket.stored()


@pytest.mark.parametrize(
    ("kind", "match", "details", "error"),
    [
        ("status", WRITTEN, {"status": 503}, TransportError),
        ("expired", READ, {}, CredentialsError),
        ("status", READ, {"status": 503}, TransportError),
        ("truncate", READ, {}, TransportError),
        ("status", READ, {"status": 403}, AccessError),
        ("status", WRITTEN, {"status": 403}, AccessError),
    ],
)
def test_what_lasts_is_an_error_and_the_next_run_resumes(
    kind: Any, match: str, details: dict[str, Any], error: type[NWBZarrError], bucket: Stored
) -> None:
    bucket.server.fault(kind, match, times=math.inf, **details)
    with pytest.raises(error, match=match) as raised:
        bucket.convert()
    assert raised.value.next_step or kind == "truncate"
    bucket.server.reset()
    assert "zarr.json" not in bucket.stored()
    assert JOURNAL in bucket.stored()
    with pytest.raises(NotZarrError, match="is an unfinished conversion"):
        open_hierarchy(bucket.target, bucket.options)
    done = bucket.convert()
    assert done.kept > 0
    np.testing.assert_array_equal(bucket.read("acquisition/data"), opened(bucket.source, "acquisition/data"))
    assert "zarr.json" in bucket.stored()


@pytest.mark.parametrize("options", [{"secret": "wrong"}, {"key": "AKIAWRONG"}])
def test_wrong_keys_are_an_error(options: dict[str, str], bucket: Stored, tmp_path: Path) -> None:
    with pytest.raises(CredentialsError):
        convert(bucket.url, tmp_path / "b.nwb.zarr", bucket.options | options)
    with pytest.raises(CredentialsError):
        convert(bucket.source, bucket.target, destination_options=bucket.options | options)
    assert bucket.stored() == set()
    assert not (tmp_path / "b.nwb.zarr").exists()


def test_a_chunk_that_is_absent_is_not_stored_and_one_that_is_denied_is_an_error(
    bucket: Stored, tmp_path: Path
) -> None:
    target = tmp_path / "b.nwb.zarr"
    done = bucket.convert(target)
    zeros = next(array for array in done.arrays if array.target.path == "acquisition/zeros")
    assert zeros.copied
    assert np.flatnonzero(opened(target, "acquisition/zeros")[...]).tolist() == [500]
    bucket.server.fault("status", "acquisition/zeros/c/1", times=math.inf, status=403, code="AccessDenied")
    with pytest.raises(AccessError):
        bucket.convert(tmp_path / "c.nwb.zarr")


def test_a_damaged_chunk_is_an_error_also_where_chunks_are_copied(source: Path, tmp_path: Path) -> None:
    chunk = source / "acquisition/data/c/3/1"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(ChunkError, match="acquisition/data"):
        convert(source, tmp_path / "b.nwb.zarr", **SMALL)
    assert not (tmp_path / "b.nwb.zarr" / "zarr.json").exists()


def test_a_source_that_changes_meanwhile_is_an_error_and_the_next_run_begins_anew(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "b.nwb.zarr"
    array = zarr.open_array(source / "acquisition/zeros", mode="r+")
    changed = False

    def change(progress: Any) -> None:
        nonlocal changed
        if progress.path == "acquisition/zeros" and not changed:
            changed = True
            array[1999] = 7

    with pytest.raises(ObjectChangedError, match=r"source\.nwb\.zarr was changed"):
        convert(source, target, progress=change, **SMALL)
    assert not (target / "zarr.json").exists()
    # What the first run has written of chunks that the source has no longer must not remain.
    assert (target / "acquisition/zeros/c/0").exists()
    array[...] = 0
    done = convert(source, target, **SMALL)
    assert done.kept == 0
    assert not (target / "acquisition/zeros/c/0").exists()
    assert not opened(target, "acquisition/zeros")[...].any()


def test_other_options_begin_anew(bucket: Stored) -> None:
    bucket.server.fault("status", WRITTEN, times=math.inf, status=403, code="AccessDenied")
    with pytest.raises(AccessError):
        bucket.convert()
    bucket.server.reset()
    done = bucket.convert(compressor="gzip")
    assert done.kept == 0
    assert bucket.stored() == _expected_keys(done.arrays) | {"zarr.json", "acquisition/zarr.json", JOURNAL}


def _expected_keys(arrays: Any) -> set[str]:
    stored = {f"{array.target.path}/zarr.json" for array in arrays}
    for array in arrays:
        keys = {array.layout.key(cell) for block in array.blocks(10**9) for cell in block}
        # One shard has all that is stored of the zeros.
        stored |= {key for key in keys if "zeros" not in key or key.endswith("c/0")}
    return stored


@pytest.mark.parametrize("content", ["zarr.json", "notes.txt"])
def test_a_destination_with_other_contents_is_refused(content: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.nwb.zarr"
    target.mkdir()
    (target / content).write_text("{}")
    with pytest.raises(ConversionError, match="already has") as raised:
        convert(source, target)
    assert raised.value.location == target.as_uri()
    assert [path.name for path in target.iterdir()] == [content]


def test_a_complete_conversion_is_not_written_again(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.nwb.zarr"
    convert(source, target, **SMALL, verify=False)
    before = nodes(target)
    again = convert(source, target, **SMALL, verify=False)
    assert (again.earlier, again.objects, again.verification) == (True, 0, None)
    assert "complete since an earlier run" in str(again)
    # Of other options, or of a source that has changed since, it is a store like any other.
    with pytest.raises(ConversionError, match="already has a Zarr store"):
        convert(source, target, **SMALL, compressor="gzip", verify=False)
    edit(source, "acquisition", lambda document: document["attributes"].update(comments="edited"))
    with pytest.raises(ConversionError, match="already has a Zarr store"):
        convert(source, target, **SMALL, verify=False)
    assert nodes(target) == before


def test_a_destination_must_be_writable_and_apart_from_the_source(source: Path, tmp_path: Path) -> None:
    for target in (source, source / "inside", tmp_path):
        with pytest.raises(ConversionError, match="in the other"):
            convert(source, target)
    with pytest.raises(LocationError, match="cannot be written"):
        convert(source, "https://example.org/a.nwb.zarr")
    with pytest.raises(NotZarrError):
        convert(tmp_path / "source.nwb.zarr" / "acquisition" / "data" / "c", tmp_path / "b.nwb.zarr")


def test_an_unfinished_conversion_of_another_session_is_refused(bucket: Stored, tmp_path: Path) -> None:
    target = tmp_path / "b.nwb.zarr"
    bucket.server.fault("status", READ, times=math.inf, status=403, code="AccessDenied")
    with pytest.raises(AccessError):
        bucket.convert(target)
    with pytest.raises(ConversionError, match="an unfinished conversion of") as raised:
        convert(bucket.source, target, **SMALL)
    assert raised.value.found == bucket.url
    (target / JOURNAL).write_text("{}")
    with pytest.raises(ConversionError, match="damaged"):
        convert(bucket.source, target, **SMALL)


def test_two_processes_do_not_write_to_one_destination(bucket: Stored, tmp_path: Path) -> None:
    target = tmp_path / "b.nwb.zarr"
    inside: list[NWBZarrError] = []

    def again(progress: Any) -> None:
        if not inside and progress.path:
            with pytest.raises(ConversionError, match="Another process is converting") as raised:
                _in_a_thread(bucket.source, target)
            inside.append(raised.value)

    convert(bucket.source, target, progress=again, **SMALL)
    assert inside[0].transient


def _in_a_thread(source: Path, target: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from intake_nwbzarr.conversion import convert as module
    from intake_nwbzarr.location.location import locate

    def lock() -> None:
        with module._lock(locate(target)):
            pass

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lock).result()


_KILLED = """
import json, sys
from intake_nwbzarr import convert
print("started", flush=True)
convert(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), chunk_mib=0.001, shard_mib=0.002)
"""


def test_a_killed_conversion_goes_on_where_it_stopped(bucket: Stored, tmp_path: Path) -> None:
    target = tmp_path / "b.nwb.zarr"
    bucket.server.latency = 0.3
    command = [sys.executable, "-c", _KILLED, bucket.url, str(target), json.dumps(bucket.options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    until = time.monotonic() + 60
    while time.monotonic() < until and _noted(target) < 5:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    process.stdout.close()
    assert not (target / "zarr.json").exists()
    # A file that it had not finished.
    (target / "acquisition" / ".data.0123456789ab.partial").write_bytes(b"half")
    bucket.server.reset()
    noted = _noted(target)
    done = convert(bucket.url, target, bucket.options, chunk_mib=0.001, shard_mib=0.002)
    assert done.kept >= noted >= 5
    assert nodes(target) == nodes(bucket.source)
    assert [path.name for path in target.rglob("*") if path.name.startswith(".")] == [JOURNAL]
    assert not target.with_name("b.nwb.zarr.lock").exists()


def _noted(target: Path) -> int:
    try:
        return len(json.loads((target / JOURNAL).read_text())["done"])
    except FileNotFoundError:
        return 0


def test_a_disk_that_takes_no_more_is_an_error_and_the_next_run_resumes(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.nwb.zarr"
    with little_room(3000), pytest.raises(TransportError, match="File too large"):
        convert(source, target, **SMALL)
    assert not (target / "zarr.json").exists()
    assert convert(source, target, **SMALL).written
    assert nodes(target) == nodes(source)
    assert [path.name for path in target.rglob("*") if path.name.startswith(".")] == [JOURNAL]


def test_what_is_read_again_otherwise_than_written_is_an_error(bucket: Stored) -> None:
    bucket.server.fault("status", WRITTEN, method="GET", times=math.inf, status=404, code="NoSuchKey")
    with pytest.raises(ConversionError, match="is not read as it was written") as raised:
        bucket.convert()
    assert raised.value.path is not None
    assert "acquisition/data/c/0/0" in raised.value.path
    bucket.server.reset()
    assert "zarr.json" not in bucket.stored()


# A shell's background job ignores Ctrl-C: here it is not.
_INTERRUPTED = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from intake_nwbzarr import convert
told = []
def interrupt(progress):
    told.append(progress)
    if len(told) == 9:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(1)
try:
    convert(sys.argv[1], sys.argv[2], chunk_mib=0.001, shard_mib=0.002, progress=interrupt)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_at_ctrl_c_what_is_done_is_noted(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.nwb.zarr"
    command = [sys.executable, "-c", _INTERRUPTED, source, target]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
    assert not (target / "zarr.json").exists()
    noted = _noted(target)
    assert convert(source, target, chunk_mib=0.001, shard_mib=0.002).kept >= noted >= 5
