"""Snapshot files: many sessions, readable by others, and what a damaged or malicious one can do."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import intake_nwbzarr
from intake_nwbzarr import snapshot, track_requests
from intake_nwbzarr.copies.recording import record_session
from intake_nwbzarr.copies.snapshot import (
    KeptFolder,
    KeptObject,
    KeptSession,
    Snapshots,
    open_snapshots,
    write_snapshots,
)
from intake_nwbzarr.errors import (
    LimitError,
    NWBZarrError,
    OptionError,
    SnapshotError,
    StaleSnapshotError,
    TransportError,
    UnsafePathError,
)
from intake_nwbzarr.location.location import locate
from tests.copies.conftest import ConditionalServer
from tests.session_files import opened

Corpus = Callable[[str, str], Path]
DOCUMENTATION = Path(intake_nwbzarr.__file__).parents[1] / "docs" / "snapshots.md"


def _as(session: KeptSession, url: str) -> KeptSession:
    """What is kept of a session, as that of another one."""
    return msgspec.structs.replace(
        session, url=url, files=[msgspec.structs.replace(session.files[0], url=url)]
    )


@pytest.fixture(scope="module")
def recorded(corpus_dir: Corpus) -> KeptSession:
    return record_session(locate(corpus_dir("ecephys", "0.14.0")))


def test_one_of_a_thousand_sessions_is_read_by_itself(recorded: KeptSession, saved: Path) -> None:
    urls = [f"https://example.org/{number}.nwb.zarr" for number in range(1000)]
    write_snapshots(saved, [_as(recorded, url) for url in urls])
    # All other sessions damaged: they are not looked at.
    with zipfile.ZipFile(saved) as archive:
        index = json.loads(archive.read("index.json"))
        members = {name: archive.getinfo(name) for name in archive.namelist()}
    data = bytearray(saved.read_bytes())
    for url in urls[1:]:
        member = members[index["sessions"][url]["member"]]
        data[member.header_offset + 100] ^= 255
    saved.write_bytes(data)
    begin = time.perf_counter()
    with track_requests() as log:
        dataset = opened(urls[0], snapshot=saved, verify=False, group="units")
    assert log.requests == 0
    assert "spike_times" in dataset
    assert time.perf_counter() - begin < 2
    with pytest.raises(SnapshotError, match="is damaged"):
        opened(urls[1], snapshot=saved, verify=False)


def test_a_thousand_sessions_open_in_seconds_without_a_request(recorded: KeptSession, saved: Path) -> None:
    urls = [f"s3://bucket/{number}.nwb.zarr" for number in range(200)]
    write_snapshots(saved, [_as(recorded, url) for url in urls])
    begin = time.process_time()
    with track_requests() as log:
        for url in urls:
            opened(url, storage_options={"anon": True}, snapshot=saved, verify=False, group="units")
    assert log.requests == 0
    # A fifth of them.
    assert time.process_time() - begin < 5


def test_what_the_documentation_says_reads_a_snapshot_without_the_package(
    corpus_dir: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = corpus_dir("ecephys", "0.14.0")
    made = snapshot(folder, path=tmp_path / "lab.snapshot.zip")
    *_, example = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    script = example.replace("s3://bucket/sub-1.nwb.zarr", str(locate(folder)))
    # Of the msgpack package's functions msgspec has this one, which knows nothing of our types.
    msgpack = SimpleNamespace(unpackb=msgspec.msgpack.decode)
    monkeypatch.setitem(sys.modules, "msgpack", msgpack)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(script, found)
    assert found["metadata"] == json.loads((folder / "zarr.json").read_text())
    assert found["entry"]["made"] == made[str(locate(folder))].made
    stored = {key: kept for key, kept in found["objects"].items() if kept["data"] is not None}
    assert len(stored) > 20
    for key, kept in stored.items():
        assert kept["data"] == (folder / key).read_bytes()
    assert found["objects"][".zmetadata"] == {"data": None, "etag": None}


def test_sessions_are_added_and_replaced(corpus_dir: Corpus, saved: Path) -> None:
    first, second = corpus_dir("icephys", "0.8.0"), corpus_dir("ophys", "0.8.0")
    snapshot(first, path=saved)
    assert set(snapshot(second, path=saved, add=True)) == {str(locate(first)), str(locate(second))}
    assert len(snapshot([first, second, first], path=saved, add=True)) == 2
    assert set(snapshot(second, path=saved)) == {str(locate(second))}


def test_nothing_but_a_snapshot_is_replaced(corpus_dir: Corpus, tmp_path: Path) -> None:
    precious = tmp_path / "results.zip"
    with zipfile.ZipFile(precious, "w") as archive:
        archive.writestr("results.csv", "1,2,3")
    before = precious.read_bytes()
    for target in (precious, tmp_path):
        with pytest.raises(OptionError, match="not a snapshot"), track_requests() as log:
            snapshot(corpus_dir("icephys", "0.8.0"), path=target)
        assert log.requests == 0
    assert precious.read_bytes() == before


def test_the_folder_of_a_snapshot_is_created(corpus_dir: Corpus, tmp_path: Path) -> None:
    target = tmp_path / "new" / "deeper" / "saved.snapshot.zip"
    made = snapshot(corpus_dir("icephys", "0.8.0"), path=target)
    assert list(target.parent.iterdir()) == [target]
    assert len(made) == 1


def test_a_full_disk_leaves_the_old_snapshot_intact(
    corpus_dir: Corpus, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = snapshot(corpus_dir("icephys", "0.8.0"), path=saved)
    before = saved.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TransportError, match=r"saved\.snapshot\.zip cannot be written: No space left"):
        write_snapshots(saved, [made.session(url) for url in made])
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.slow
def test_killed_while_writing_it_leaves_the_old_snapshot_intact(corpus_dir: Corpus, saved: Path) -> None:
    session = corpus_dir("icephys", "0.8.0")
    snapshot(session, path=saved)
    before = saved.read_bytes()
    script = (
        "import os, signal, sys; from intake_nwbzarr import snapshot\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "snapshot(sys.argv[1], path=sys.argv[2])"
    )
    ended = subprocess.run([sys.executable, "-c", script, session, saved], check=False, timeout=120)
    assert ended.returncode == -9
    assert saved.read_bytes() == before
    snapshot(session, path=saved)


def test_an_opened_snapshot_travels_by_its_path(corpus_dir: Corpus, saved: Path) -> None:
    made = snapshot(corpus_dir("icephys", "0.8.0"), path=saved)
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert hash(again) == hash(made)
    assert open_snapshots(f"file://{saved}") is open_snapshots(str(saved))
    assert str(made).startswith(f"{saved}: 1 session, ")
    # Another file of that name is another one.
    assert snapshot(corpus_dir("ophys", "0.8.0"), path=saved) != made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_damaged_the_session_is_the_same_or_there_is_one_error(
    data: st.DataObject, recorded: KeptSession, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.snapshot.zip"
    path.unlink(missing_ok=True)
    write_snapshots(path, [recorded])
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "flip":
        content[place] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[place:]
    else:
        content[place:place] = data.draw(st.binary(min_size=1, max_size=20))
    path.write_bytes(content)
    found: KeptSession | NWBZarrError
    try:
        found = open_snapshots(path).session(recorded.url)
    except NWBZarrError as error:
        found = error
    assert found == recorded or str(path) in str(found)


def _rewritten(path: Path, **members: bytes) -> None:
    """Replace members of a snapshot: ``index`` and ``session``, whose checksum is made right."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    index = json.loads(contents["index.json"])
    if "session" in members:
        (entry,) = index["sessions"].values()
        contents[entry["member"]] = members["session"]
        entry["sha256"] = hashlib.sha256(members["session"]).hexdigest()
        contents["index.json"] = json.dumps(index).encode()
    contents["index.json"] = members.get("index", contents["index.json"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


INDEXES = {
    "no JSON": (b"no JSON", "not the index"),
    "another format": (b'{"format": "zarr", "version": 1, "sessions": {}}', "has the format 'zarr'"),
    "a later version": (b'{"format": "nwbzarr-snapshot", "version": 2}', "version 2; this release reads"),
    "no sessions": (b'{"format": "nwbzarr-snapshot", "version": 1, "sessions": [1]}', "not the index"),
    "nested": (
        b'{"format": "nwbzarr-snapshot", "version": 1, "sessions": ' + b"[" * 100_000,
        "not the index",
    ),
    "a path": (
        b'{"format": "nwbzarr-snapshot", "version": 1, "sessions": {"https://example.org/a": '
        b'{"member": "../../etc/passwd", "sha256": "", "made": ""}}}',
        "has no member '../../etc/passwd'",
    ),
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_is_none_is_one_error(name: str, recorded: KeptSession, saved: Path) -> None:
    content, message = INDEXES[name]
    write_snapshots(saved, [_as(recorded, "https://example.org/a")])
    _rewritten(saved, index=content)
    with pytest.raises(SnapshotError, match=message):
        opened("https://example.org/a", snapshot=saved, verify=False)


SESSIONS = {
    "nothing": b"",
    "no msgpack": b"\xc1" * 10,
    "another type": msgspec.msgpack.encode({"url": 1, "made": "", "files": []}),
    "no files": msgspec.msgpack.encode(KeptSession("https://example.org/a", "", [])),
    "a length that is a lie": b"\xdf\xff\xff\xff\xff",
    "nested": b"\x91" * 1_000_000,
    "nested under an unknown key": b"\x81\xa1x" + b"\x91" * 1_000_000,
    "a date that is none": msgspec.msgpack.encode({"url": "", "made": "\x1b[31m", "files": []}),
    "a pickle": pickle.dumps({"url": "https://example.org/a"}),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_that_is_none_is_one_error(name: str, recorded: KeptSession, saved: Path) -> None:
    write_snapshots(saved, [_as(recorded, "https://example.org/a")])
    _rewritten(saved, session=SESSIONS[name])
    with pytest.raises(SnapshotError, match="is damaged"):
        opened("https://example.org/a", snapshot=saved, verify=False)


def test_a_session_under_anothers_name_is_refused(recorded: KeptSession, saved: Path) -> None:
    write_snapshots(saved, [_as(recorded, "https://example.org/a")])
    _rewritten(saved, session=msgspec.msgpack.encode(_as(recorded, "https://example.org/b")))
    with pytest.raises(SnapshotError, match="is not the session"):
        opened("https://example.org/a", snapshot=saved, verify=False)


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    recorded: KeptSession, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_snapshots(saved, [_as(recorded, "https://example.org/a")])
    _rewritten(saved, session=bytes(100 * 2**20))
    assert saved.stat().st_size < 2**20
    with pytest.raises(LimitError) as raised:
        opened("https://example.org/a", snapshot=saved, verify=False)
    assert (raised.value.location, raised.value.found) == (str(saved), 100 * 2**20)
    monkeypatch.setattr("intake_nwbzarr.copies.snapshot.LARGEST_SNAPSHOT_INDEX", 100)
    saved.touch()
    with pytest.raises(LimitError) as raised:
        Snapshots(saved, (0, 0, 0))
    assert (raised.value.path, raised.value.expected) == ("index.json", 100)


def test_a_session_too_large_to_be_read_again_is_not_written(
    recorded: KeptSession, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intake_nwbzarr.copies.snapshot.LARGEST_SNAPSHOT_SESSION", 10_000)
    with pytest.raises(LimitError) as raised:
        write_snapshots(saved, [recorded])
    assert (raised.value.location, raised.value.expected) == (recorded.url, 10_000)
    assert not saved.exists()


def _changed(recorded: KeptSession, url: str, **objects: KeptObject) -> KeptSession:
    session = _as(recorded, url)
    session.files[0].objects = {**session.files[0].objects, **objects}
    return session


def test_names_in_a_snapshot_follow_the_rules_of_names_in_a_file(recorded: KeptSession, saved: Path) -> None:
    url = "https://example.org/a.nwb.zarr"
    document = json.loads(recorded.files[0].objects["zarr.json"].data or b"")
    nodes = document["consolidated_metadata"]["metadata"]
    nodes["../../secret"] = nodes["units"]
    malicious = KeptObject(json.dumps(document).encode())
    write_snapshots(saved, [_changed(recorded, url, **{"zarr.json": malicious})])
    with pytest.raises(UnsafePathError) as raised:
        opened(url, snapshot=saved, verify=False)
    assert (raised.value.location, raised.value.path) == (url, "../../secret")
    del document["consolidated_metadata"]
    listed = _changed(recorded, url, **{"zarr.json": KeptObject(json.dumps(document).encode())})
    listed.files[0].folders = {"": KeptFolder(["zarr.json"], [".."])}
    write_snapshots(saved, [listed])
    with pytest.raises(UnsafePathError) as raised:
        opened(url, snapshot=saved, verify=False)
    assert (raised.value.location, raised.value.path) == (url, "..")


@pytest.mark.parametrize("etag", ["*", '"a", "b"', '"\r\nAuthorization: x"', "plain", '"é"'])
def test_an_etag_that_is_none_goes_into_no_request(
    etag: str, server: ConditionalServer, session: str, saved: Path
) -> None:
    kept = record_session(locate(session))
    objects = kept.files[0].objects
    objects[".zmetadata"] = KeptObject(objects[".zmetadata"].data, etag)
    write_snapshots(saved, [kept])
    server.reset()
    # The document is read and compared instead.
    opened(session, snapshot=saved)
    (seen,) = server.requests
    assert seen.status == 200
    assert "If-None-Match" not in seen.headers
    objects[".zmetadata"] = KeptObject((objects[".zmetadata"].data or b"") + b" ", etag)
    write_snapshots(saved, [kept])
    with pytest.raises(StaleSnapshotError):
        opened(session, snapshot=saved)


def test_another_etag_of_the_same_document_is_no_change(
    server: ConditionalServer, session: str, saved: Path
) -> None:
    kept = record_session(locate(session))
    objects = kept.files[0].objects
    objects[".zmetadata"] = KeptObject(objects[".zmetadata"].data, '"another"')
    write_snapshots(saved, [kept])
    server.reset()
    opened(session, snapshot=saved)
    (seen,) = server.requests
    assert (seen.status, seen.headers["If-None-Match"]) == (200, '"another"')
