"""A server that answers conditional requests, with a session on it, and snapshots of that."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.servers.http_server import StaticServer
from tests.servers.loopback import Response


class ConditionalServer(StaticServer):
    """Any document matches `*`, as the standard has it; `etags` takes ETags away."""

    etags = True

    async def answer(self, request: web.Request) -> Response:
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
