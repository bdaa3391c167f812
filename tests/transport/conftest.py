"""Fixtures of the tests of the chunk cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.http_server import StaticServer
from tests.transport.cached import DATA, store_object


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def web(http_server: StaticServer) -> StaticServer:
    """A server with one object, `a/0`, and a metadata document."""
    store_object(http_server, "a/0", DATA)
    store_object(http_server, "zarr.json", b"{}")
    return http_server
