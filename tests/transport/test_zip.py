"""Zip files of a store, local and remote, and malicious ones."""

import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from intake_nwbzarr.errors import (
    LimitError,
    NotZarrError,
    ObjectChangedError,
    ResponseError,
    TransportError,
    UnsafePathError,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.answers import Folder
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import fetch_many, open_transport
from intake_nwbzarr.transport.request_log import track_requests
from tests.servers.http_server import NoETagServer, StaticServer
from tests.servers.s3_server import S3Server

FILES = {"zarr.json": b"{}", "processing/lick rate/c/0": bytes(range(256)) * 50, "empty": b""}


def pack(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.comment = comment
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def check(transport: Transport) -> None:
    assert [entry.key for entry in run(transport.list())] == sorted(FILES)
    assert [fetched.data for fetched in fetch_many(transport, list(FILES)) if fetched] == list(FILES.values())
    assert run(transport.list_folder("")) == Folder(("empty", "zarr.json"), ("processing",))
    assert run(transport.list_folder("processing/lick rate")) == Folder((), ("c",))
    assert run(transport.list_folder("missing")) == Folder((), ())
    part = run(transport.get("processing/lick rate/c/0", start=10, stop=20))
    assert part is not None
    assert part.data == FILES["processing/lick rate/c/0"][10:20]
    assert run(transport.get("missing")) is None


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "a.nwb.zarr/"])
def test_a_store_is_read_from_the_root_or_a_single_folder(tmp_path: Path, method: int, top: str) -> None:
    files = {f"{top}{name}": data for name, data in FILES.items()} | {"__MACOSX/x": b"junk"}
    check(open_transport(locate(pack(tmp_path / "a.nwb.zarr.zip", files, method))))


def test_remote_archives_are_read_by_ranges(
    tmp_path: Path, http_server: StaticServer, s3_server: S3Server
) -> None:
    path = pack(tmp_path / "lick rate+.nwb.zarr.zip", FILES)
    (http_server.root / path.name).write_bytes(path.read_bytes())
    with track_requests() as log:
        check(open_transport(locate(f"{http_server.url}/lick%20rate%2B.nwb.zarr.zip")))
    assert list(log.locations) == [f"{http_server.url}/lick%20rate%2B.nwb.zarr.zip"]
    assert log.requests == http_server.count()
    s3_server.upload(s3_server.private_bucket, f"zips/{path.name}", path)
    check(open_transport(locate(f"s3://private-bucket/zips/{path.name}", s3_server.signed_options)))
    fsspec.filesystem("memory").pipe(f"/zips/{path.name}", path.read_bytes())
    check(open_transport(locate(f"memory://zips/{path.name}")))
    check(open_transport(locate(f"memory://zips/{path.name}")))
    fsspec.filesystem("memory").pipe(f"/{path.name}", path.read_bytes())
    check(open_transport(locate(f"memory://{path.name}")))


def test_secrets_of_a_remote_archive_are_used(tmp_path: Path, http_server: StaticServer) -> None:
    pack(http_server.root / "a.zip", FILES)
    http_server.query = "sig=1"
    check(open_transport(locate(f"{http_server.url}/a.zip?sig=1")))
    check(open_transport(locate(f"zip::{http_server.url}/a.zip?sig=1")))


def test_a_long_directory_takes_a_second_request(http_server: StaticServer) -> None:
    files = {f"a/{'x' * 60}/{number}": b"1" for number in range(3000)}
    pack(http_server.root / "a.zip", files, comment=b"c" * 1000)
    with track_requests() as log:
        assert len(run(open_transport(locate(f"{http_server.url}/a.zip")).list())) == 3000
    assert log.requests == 2


def test_a_missing_archive_holds_nothing(tmp_path: Path) -> None:
    transport = open_transport(locate(tmp_path / "a.zip"))
    assert run(transport.get("zarr.json")) is None
    assert run(transport.list()) == []
    with pytest.raises(TransportError, match=r"a\.zip no longer exists"):
        run(transport.get("x/c/0"))
    pack(tmp_path / "a.zip", FILES)
    check(transport)


@pytest.mark.parametrize("content", [b"", b"not a zip at all", b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_archive_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(NotZarrError) as raised:
        run(open_transport(locate(tmp_path / "a.zip")).get("zarr.json"))
    assert raised.value.location == (tmp_path / "a.zip").as_uri()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"bomb": bytes(70 * 2**20), "zeros": bytes(2**20)}, zipfile.ZIP_DEFLATED)
    transport = open_transport(locate(path))
    with pytest.raises(LimitError, match="malicious"):
        run(transport.get("bomb"))
    with pytest.raises(LimitError):
        run(transport.get("zeros", limit=1000))
    zeros = run(transport.get("zeros"))
    assert zeros is not None
    assert zeros.size == 2**20


def test_a_member_that_lies_about_its_length_is_an_error(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"x": bytes(10_000)}, zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    path.write_bytes(data.replace((10_000).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(ResponseError, match="length and checksum"):
        run(open_transport(locate(path)).get("x"))


def test_a_damaged_member_is_an_error(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"x": b"0123456789"})
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    with pytest.raises(ResponseError, match="checksum"):
        run(open_transport(locate(path)).get("x"))


def test_names_that_lead_out_are_refused(tmp_path: Path) -> None:
    transport: Any = open_transport(locate(pack(tmp_path / "a.zip", {"../x": b"1", "y": b"2"})))
    with pytest.raises(UnsafePathError):
        run(transport.list())


def test_an_archive_that_is_replaced_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", FILES)
    transport = open_transport(locate(path))
    run(transport.get("zarr.json"))
    pack(path, {"zarr.json": b"other"})
    with pytest.raises(ObjectChangedError, match="replaced"):
        run(transport.get("zarr.json"))
    fetched = run(transport.get("zarr.json"))
    assert fetched is not None
    assert fetched.data == b"other"
    run(transport.get("zarr.json"))
    path.unlink()
    with pytest.raises(ObjectChangedError, match="removed"):
        run(transport.get("zarr.json"))
    with pytest.raises(TransportError, match="no longer exists"):
        run(transport.get("c/0"))


def test_an_archive_of_another_size_is_an_error_without_an_etag_too(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", FILES)
    with NoETagServer(tmp_path) as server:
        transport = open_transport(locate(f"{server.url}/a.zip"))
        run(transport.get("zarr.json"))
        pack(path, FILES | {"more": b"more" * 100})
        with pytest.raises(ObjectChangedError, match="replaced"):
            run(transport.get("zarr.json"))


def test_an_archive_that_became_shorter_is_read_anew(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", FILES)
    transport = open_transport(locate(path))
    run(transport.get("empty"))
    pack(path, {"empty": b""})
    with pytest.raises(ResponseError):
        run(transport.get("empty"))
    assert run(transport.get("empty")) is not None
