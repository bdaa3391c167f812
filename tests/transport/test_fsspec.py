"""Filesystems of fsspec and open zarr Stores."""

import asyncio
import math
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
import zarr.buffer
import zarr.storage
from botocore.exceptions import ClientError
from fsspec.implementations.memory import MemoryFileSystem

from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    ListingError,
    LocationError,
    NWBZarrError,
    ResponseError,
    TransportError,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.answers import Folder
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import track_requests
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

DATA = bytes(range(200))
QUICK = {"timeouts": {"backoff": 0.01, "attempts": 3}}


@pytest.fixture
def memory() -> Any:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/store/group/lick rate/c/0", DATA)
    filesystem.pipe("/store/zarr.json", b"{}")
    yield filesystem
    filesystem.rm("/store", recursive=True)


def check(transport: Transport) -> None:
    with track_requests() as log:
        whole = run(transport.get("group/lick rate/c/0"))
        assert whole is not None
        assert whole.data == DATA
        for part, expected in (
            ({"start": 3, "stop": 9}, DATA[3:9]),
            ({"start": 190}, DATA[190:]),
            ({"suffix": 5}, DATA[-5:]),
            ({"suffix": 500}, DATA),
        ):
            fetched = run(transport.get("group/lick rate/c/0", **part))
            assert fetched is not None
            assert fetched.data == expected
        assert run(transport.get("missing")) is None
        assert [entry.key for entry in run(transport.list())] == ["group/lick rate/c/0", "zarr.json"]
        assert [entry.key for entry in run(transport.list("group"))] == ["group/lick rate/c/0"]
        assert run(transport.list("missing")) == []
        assert run(transport.list_folder("")) == Folder(("zarr.json",), ("group",))
        assert run(transport.list_folder("group/lick rate/c")) == Folder(("0",), ())
        assert run(transport.list_folder("missing")) == Folder((), ())
        with pytest.raises(ResponseError):
            run(transport.get("group/lick rate/c/0", start=190, stop=210))
        with pytest.raises(LimitError):
            run(transport.get("group/lick rate/c/0", limit=10))
    assert log.bytes_used == 200 + 6 + 10 + 5 + 200


def test_memory_and_chained_filesystems(memory: Any, tmp_path: Path) -> None:
    check(open_transport(locate("memory://store/")))
    cache = {"simplecache": {"cache_storage": str(tmp_path)}}
    chained = locate("simplecache::memory://store", cache)
    assert chained.secrets is None
    check(open_transport(chained))


def test_a_chain_over_s3_uses_its_options(s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "store" / "group" / "lick rate" / "c").mkdir(parents=True)
    (tmp_path / "store" / "group" / "lick rate" / "c" / "0").write_bytes(DATA)
    (tmp_path / "store" / "zarr.json").write_bytes(b"{}")
    url = s3_server.upload(s3_server.private_bucket, "chained", tmp_path / "store")
    location = locate(
        f"simplecache::{url}",
        {"s3": s3_server.signed_options, "simplecache": {"cache_storage": str(tmp_path / "cache")}},
    )
    assert s3_server.secret not in repr(location) + str(vars(location))
    check(open_transport(location))


@pytest.mark.parametrize("kind", ["memory", "fsspec", "local"])
def test_open_stores(kind: str, memory: Any, tmp_path: Path) -> None:
    store: Any
    if kind == "memory":
        store = zarr.storage.MemoryStore()
        buffer = zarr.buffer.default_buffer_prototype().buffer
        asyncio.run(store.set("group/lick rate/c/0", buffer.from_bytes(DATA)))
        asyncio.run(store.set("zarr.json", buffer.from_bytes(b"{}")))
    elif kind == "fsspec":
        store = zarr.storage.FsspecStore.from_url("memory://store")
    else:
        memory.get("/store", str(tmp_path / "copy"), recursive=True)
        store = zarr.storage.LocalStore(tmp_path / "copy")
    check(open_transport(locate(store)))


def test_a_remote_open_store_works_beside_zarr_itself(http_server: StaticServer) -> None:
    group = zarr.create_group(http_server.root / "a.zarr")
    group.create_array("x", data=np.array([1, 2, 3]))
    zarr.consolidate_metadata(group.store)
    store = zarr.storage.FsspecStore.from_url(f"{http_server.url}/a.zarr")
    transport = open_transport(locate(store))
    assert run(transport.get("zarr.json")) is not None
    assert zarr.open_group(store, mode="r")["x"][:].tolist() == [1, 2, 3]  # type: ignore[index,union-attr]
    assert run(transport.get("x/zarr.json")) is not None


@pytest.mark.parametrize(
    ("cache", "kind", "status"),
    [("simplecache", "http", 503), ("filecache", "http", 403), ("simplecache", "s3", 403)],
)
def test_what_a_cache_calls_not_found_is_asked_for_again(
    http_server: StaticServer, s3_server: S3Server, tmp_path: Path, cache: str, kind: str, status: int
) -> None:
    (http_server.root / "group").mkdir()
    (http_server.root / "group" / "0").write_bytes(DATA)
    (http_server.root / ".zgroup").write_bytes(b"{}")
    server: StaticServer | S3Server = http_server if kind == "http" else s3_server
    url = http_server.url
    if kind == "s3":
        url = s3_server.upload(s3_server.private_bucket, "cached", http_server.root)
    options = {cache: {"cache_storage": str(tmp_path / "cache")}, "s3": s3_server.signed_options} | QUICK
    transport = open_transport(locate(f"{cache}::{url}", options))
    assert run(transport.get("group/1")) is None
    server.fault("status", "group/0", times=math.inf, status=status)
    with pytest.raises((TransportError, AccessError), match="Cannot read"):
        run(transport.get("group/0"))
    server.reset()
    fetched = run(transport.get("group/0"))
    assert fetched is not None
    assert fetched.data == DATA


class FailingFileSystem(MemoryFileSystem):
    """Fails as often as told."""

    protocol = "failing"
    cachable = False
    failures: list[Exception]
    short = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("failing://", "memory://"))
        return stripped

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if type(self).failures:
            raise type(self).failures.pop(0)
        data: bytes = super().cat_file(path, start=start, end=end)
        return data[:-1] if type(self).short else data


@pytest.fixture
def failing(memory: Any) -> type[FailingFileSystem]:
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
    FailingFileSystem.failures, FailingFileSystem.short = [], False
    return FailingFileSystem


def test_a_filesystem_that_fails_in_passing_is_asked_again(failing: type[FailingFileSystem]) -> None:
    failing.failures = [OSError("canary"), TimeoutError("canary")]
    with track_requests() as log:
        assert run(open_transport(locate("failing://store", QUICK)).get("zarr.json")) is not None
    assert (log.requests, log.retries) == (3, 2)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (OSError("canary"), TransportError),
        (PermissionError("canary"), AccessError),
        (ValueError("canary"), TransportError),
    ],
)
def test_a_filesystem_that_fails_is_an_error_without_its_message(
    failing: type[FailingFileSystem], failure: Exception, error: type[NWBZarrError]
) -> None:
    failing.failures = [failure] * 9
    with pytest.raises(error) as caught:
        run(open_transport(locate("failing://store", QUICK)).get("zarr.json"))
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


def caused(cause: Exception) -> FileNotFoundError:
    error = FileNotFoundError("canary")
    error.__cause__ = cause
    return error


def test_not_found_for_another_reason_is_an_error(failing: type[FailingFileSystem]) -> None:
    transport = open_transport(locate("failing://store", QUICK))
    for status in (404, 500):
        answer = ClientError({"ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")
        failing.failures = [caused(answer)] * 3
        if status == 404:
            assert run(transport.get("zarr.json")) is None
            continue
        with pytest.raises(TransportError, match="ClientError"):
            run(transport.get("zarr.json"))
    failing.failures = [caused(KeyError("x"))]
    assert run(transport.get("zarr.json")) is None
    failing.failures = [caused(TimeoutError("x"))]
    assert run(transport.get("zarr.json")) is not None


def test_a_filesystem_that_gives_too_little_is_noticed(failing: type[FailingFileSystem]) -> None:
    failing.short = True
    with pytest.raises(ResponseError, match="5 bytes arrived of 6"):
        run(open_transport(locate("failing://store", QUICK)).get("group/lick rate/c/0", start=0, stop=6))


def test_a_query_that_belongs_to_one_object_is_refused_for_a_folder() -> None:
    with pytest.raises(LocationError, match="a query belongs to one object") as caught:
        open_transport(locate("simplecache::https://host/a?canary=1"))
    assert "canary" not in str(caught.value)


def test_an_unknown_scheme_is_an_error() -> None:
    with pytest.raises(LocationError, match="Unknown URL scheme"):
        open_transport(locate("no-such-scheme://x/y"))


def test_a_store_that_cannot_list_says_so(http_server: StaticServer) -> None:
    class Unlisted(zarr.storage.MemoryStore):
        supports_listing = False

    with pytest.raises(ListingError) as raised:
        run(open_transport(locate(Unlisted())).list())
    assert raised.value.found == "Unlisted"
