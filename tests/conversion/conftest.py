"""Fixtures: a session in a private bucket, and where it is converted to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conversion.sessions import Session, Stored
from tests.servers.s3_server import S3Server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small session, of which a test may change a copy."""
    session = Session(tmp_path / "source.nwb.zarr")
    data = np.random.default_rng(0).integers(0, 2**15, (600, 12)).astype("i2")
    session.add("acquisition/data", data, chunks=(60, 4))
    session.add("acquisition/legacy", data[:80], chunks=(2, 12))
    zeros = session.root.create_array("acquisition/zeros", shape=(2000,), chunks=(400,), dtype="i2")
    zeros[500] = 1
    return session.consolidated()


@pytest.fixture
def bucket(s3_server: S3Server, source: Path) -> Iterator[Stored]:
    """The session in a private bucket, and a place in it to convert to."""
    yield Stored(s3_server, source)
    s3_server.reset()
