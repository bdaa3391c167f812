"""Fixtures of the tests of downloading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.prepare.downloads import Bucket
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
