"""Fixtures: a store to download, and a server of a session that has snapshots."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from aiohttp.web import Request

from tests.copies.downloads import Bucket
from tests.servers.http_server import StaticServer
from tests.servers.loopback import Response
from tests.servers.s3_server import S3Server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small store that a test may change: what is in its arrays makes no difference here."""
    folder = tmp_path / "source.nwb.zarr"
    root = zarr.create_group(folder, attributes={"neurodata_type": "NWBFile", ".specloc": "specifications"})
    root.create_group("specifications")
    data = np.random.default_rng(0).integers(0, 2**15, (300, 12))
    root.create_array("acquisition/data", data=data, chunks=(100, 4))
    root.create_array("acquisition/starting_time", data=np.float64(1.5))
    # Chunks of nothing but fill values are not stored.
    root.create_array("acquisition/zeros", shape=(100,), chunks=(20,), dtype="i2")[:] = 0
    root["acquisition/zeros"][30] = 1
    zarr.consolidate_metadata(folder)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "a.nwb.zarr"


@pytest.fixture
def bucket(s3_server: S3Server, source: Path) -> Iterator[Bucket]:
    yield Bucket(s3_server, source)
    s3_server.reset()


class ConditionalServer(StaticServer):
    """Any document matches `*`, as the standard has it; `etags` takes ETags away."""

    etags = True

    async def answer(self, request: Request) -> Response:
        response = await super().answer(request)
        if not self.etags:
            response.headers.pop("ETag", None)
        elif request.headers.get("If-None-Match") == "*" and response.status == 200:
            return Response(304, b"", {"ETag": response.headers["ETag"]})
        return response


@pytest.fixture(scope="package")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConditionalServer]:
    """The one of all these tests; they take `server`."""
    with ConditionalServer(tmp_path_factory.mktemp("nothing")) as server:
        yield server


@pytest.fixture
def server(running_server: ConditionalServer, tmp_path: Path) -> ConditionalServer:
    """A server of an empty folder, `server.root`."""
    running_server.reset()
    running_server.root = tmp_path / "served"
    running_server.root.mkdir()
    running_server.etags, running_server.query = True, None
    return running_server


@pytest.fixture
def session(server: ConditionalServer, corpus_dir: Callable[[str, str], Path]) -> str:
    """A session on the server, in a folder that may be changed."""
    shutil.copytree(corpus_dir("ecephys", "0.8.0"), server.root / "a.nwb.zarr")
    return f"{server.url}/a.nwb.zarr"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Where snapshots are written to."""
    return tmp_path / "saved.snapshot.zip"
