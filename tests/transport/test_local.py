"""Local folders: what is read, what is refused, and how a file is replaced."""

import os
import socket
from pathlib import Path

import pytest

from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    LocationError,
    ObjectChangedError,
    ResponseError,
    TransportError,
    UnsafePathError,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.answers import Folder
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "a.nwb.zarr"
    for key in ("zarr.json", "processing/lick rate/data/c/0", "-0/+x"):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(key.encode())
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def transport(root: Path) -> Transport:
    return open_transport(locate(root))


def test_files_and_parts_of_them_are_read(transport: Transport) -> None:
    whole = run(transport.get("processing/lick rate/data/c/0"))
    assert whole is not None
    assert whole.data == b"processing/lick rate/data/c/0"
    assert whole.size == len(whole.data)
    parts = [
        run(transport.get("zarr.json", **part))
        for part in ({"start": 1, "stop": 4}, {"start": 5}, {"suffix": 4})
    ]
    assert [part.data for part in parts if part is not None] == [b"arr", b"json", b"json"]
    assert len({part.etag for part in parts if part is not None}) == 1
    with pytest.raises(ResponseError, match="ends at 9 bytes"):
        run(transport.get("zarr.json", start=5, stop=10))
    with pytest.raises(LimitError):
        run(transport.get("zarr.json", limit=8))


def test_several_files_are_read_as_each_alone(root: Path, transport: Transport) -> None:
    (root / "link").symlink_to(root / "zarr.json")
    keys = ["zarr.json", "missing/zarr.json", "processing/lick rate/data/c/0", "-0", "link", "-0/+x"]
    with track_requests() as alone:
        expected = [run(transport.get(key)) for key in keys]
    with track_requests() as together:
        found = run(transport.get_all(keys))
    assert found == expected
    assert [each and each.data for each in found] == [
        b"zarr.json", None, b"processing/lick rate/data/c/0", None, b"zarr.json", b"-0/+x",
    ]  # fmt: skip
    assert (together.bytes, together.bytes_used) == (alone.bytes, alone.bytes_used) == (52, 52)
    (root / "out").symlink_to(root.parent)
    with pytest.raises(UnsafePathError):
        run(transport.get_all(["zarr.json", "out/secret.txt"]))
    (root / "chunk").symlink_to(root / "annexed")
    with pytest.raises(TransportError, match="git annex get"):
        run(transport.get_all(["zarr.json", "chunk"]))


@pytest.mark.parametrize("key", ["missing", "processing", "zarr.json/x"])
def test_what_is_no_file_is_none(transport: Transport, key: str) -> None:
    assert run(transport.get(key)) is None


@pytest.mark.parametrize(
    "key", ["../secret.txt", "a/../../secret.txt", "a//b", "./zarr.json", "a\\b", "%2e%2e/x", "a\0"]
)
def test_keys_that_lead_out_are_refused(transport: Transport, key: str) -> None:
    for call in (transport.get(key), transport.list(key), transport.put(key, b"")):
        with pytest.raises(UnsafePathError):
            run(call)


def test_symbolic_links_are_followed_inside_and_refused_outside(root: Path, transport: Transport) -> None:
    (root / "inside").symlink_to(root / "zarr.json")
    (root / "loop").symlink_to(root)
    assert run(transport.get("inside")) is not None
    assert {"inside", "zarr.json"} <= {entry.key for entry in run(transport.list())}
    assert not any(entry.key.startswith("loop/") for entry in run(transport.list()))
    (root / "file").symlink_to(root.parent / "secret.txt")
    (root / "folder").symlink_to(root.parent)
    for key in ("file", "folder/secret.txt"):
        for call in (transport.get(key), transport.put(key, b"x")):
            with pytest.raises(UnsafePathError, match="symbolic link that leads out"):
                run(call)
    with pytest.raises(UnsafePathError):
        run(transport.list())
    assert (root.parent / "secret.txt").read_text() == "secret"


def test_a_link_to_content_that_was_not_fetched_is_an_error_and_not_a_fill_value(
    root: Path, transport: Transport
) -> None:
    (root / "chunk").symlink_to(root / ".git" / "annex" / "objects" / "x")
    with pytest.raises(TransportError, match="git annex get"):
        run(transport.get("chunk"))
    assert "chunk" in {entry.key for entry in run(transport.list())}


def test_a_link_to_the_whole_folder_is_fine(root: Path) -> None:
    link = root.parent / "link.nwb.zarr"
    link.symlink_to(root)
    assert run(open_transport(locate(link)).get("zarr.json")) is not None


def test_a_listing_names_every_file(transport: Transport) -> None:
    assert [entry.key for entry in run(transport.list())] == [
        "-0/+x",
        "processing/lick rate/data/c/0",
        "zarr.json",
    ]
    assert [entry.key for entry in run(transport.list("processing"))] == ["processing/lick rate/data/c/0"]
    assert run(transport.list("missing")) == []
    assert run(transport.list_folder("")) == Folder(("zarr.json",), ("-0", "processing"))
    assert run(transport.list_folder("-0")) == Folder(("+x",), ())
    assert run(transport.list_folder("missing")) == Folder((), ())
    assert run(open_transport(locate("/no/such/folder")).list()) == []


def test_a_file_is_replaced_whole_and_keeps_its_mode(root: Path, transport: Transport) -> None:
    (root / "zarr.json").chmod(0o640)
    before = run(transport.get("zarr.json"))
    assert before is not None
    tag = run(transport.put("zarr.json", b"new", if_match=before.etag))
    after = run(transport.get("zarr.json"))
    assert after is not None
    assert (after.data, after.etag) == (b"new", tag)
    assert (root / "zarr.json").stat().st_mode & 0o777 == 0o640
    with pytest.raises(ObjectChangedError, match="changed, or removed"):
        run(transport.put("zarr.json", b"newer", if_match=before.etag))
    with pytest.raises(ObjectChangedError):
        run(transport.put("zarr.json", b"newer", if_none_match=True))
    assert run(transport.put("new/folder/x", b"1", if_none_match=True)) is not None
    assert sorted(path.name for path in root.rglob("*partial*")) == []


def test_a_changed_file_is_noticed(root: Path, transport: Transport) -> None:
    first = run(transport.get("zarr.json"))
    assert first is not None
    (root / "zarr.json").write_bytes(b"other")
    with pytest.raises(ObjectChangedError):
        run(transport.get("zarr.json", etag=first.etag))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_an_error(root: Path, transport: Transport) -> None:
    (root / "zarr.json").chmod(0)
    with pytest.raises(AccessError, match="Permission denied"):
        run(transport.get("zarr.json"))


def test_a_write_that_the_system_refuses_is_an_error() -> None:
    with pytest.raises(TransportError, match="Cannot write"):
        run(open_transport(locate("/proc/self")).put("new-file", b"x"))


def test_parts_without_bytes_make_no_sense(transport: Transport) -> None:
    for part in ({"start": 3, "stop": 3}, {"start": -1}, {"suffix": 0}, {"suffix": 1, "start": 0}):
        with pytest.raises(ValueError, match="bytes"):
            run(transport.get("zarr.json", **part))


def test_other_places_cannot_be_written() -> None:
    with pytest.raises(LocationError, match="cannot be written"):
        run(open_transport(locate("memory://a")).put("x", b""))


def test_chunks_of_a_folder_that_was_moved_away_are_no_fill_values(root: Path, transport: Transport) -> None:
    assert run(transport.get("-0/missing")) is None
    moved = root.rename(root.parent / "moved")
    assert run(transport.get("zarr.json")) is None
    for _ in range(2):
        with pytest.raises(TransportError, match="no longer exists, or is not mounted"):
            run(transport.get("processing/lick rate/data/c/0"))
        # As the folder that a disk was mounted on.
        root.mkdir(exist_ok=True)
    root.rmdir()
    moved.rename(root)
    assert run(transport.get("processing/lick rate/data/c/0")) is not None


def test_a_folder_that_is_a_link_to_nothing_is_an_error(root: Path, transport: Transport) -> None:
    (root / "annexed").symlink_to(root / "nowhere")
    for call in (transport.get("annexed/c/0"), transport.get("annexed/zarr.json")):
        with pytest.raises(TransportError, match="git annex get"):
            run(call)
    with pytest.raises(TransportError, match="git annex get"):
        run(transport.list_folder("annexed"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("key", ["zarr.json", "x/c/0"])
def test_a_named_pipe_or_a_socket_is_an_error_and_not_waited_for(tmp_path: Path, key: str) -> None:
    path = tmp_path / key
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(TransportError, match="not a file"):
        run(open_transport(locate(tmp_path)).get(key))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        with pytest.raises(TransportError, match="Cannot read"):
            run(open_transport(locate(tmp_path)).get(key))
