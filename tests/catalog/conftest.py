"""The archive, in small: a static server that answers for the paths of two DANDI assets and lists nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replica import write_replicas
from tests.servers.http_server import StaticServer

CATALOGS = Path(__file__).parents[2] / "catalogs"


@pytest.fixture(scope="package")
def archive_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaticServer]:
    root = tmp_path_factory.mktemp("archive")
    write_replicas(root)
    with StaticServer(root) as server:
        yield server


@pytest.fixture
def archive(archive_server: StaticServer) -> StaticServer:
    archive_server.reset()
    return archive_server
