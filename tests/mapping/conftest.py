"""The session that holds one of every type, written once a run: read it only."""

from pathlib import Path

import pytest

from tests.mapping.every_type import every_type


@pytest.fixture(scope="session")
def every_type_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return every_type(tmp_path_factory.mktemp("every_type"))
