"""Entries of catalogs that open from a snapshot, in Intake 1 and 2."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pytest
import xarray as xr
import yaml

from intake_nwbzarr import snapshot, track_requests
from intake_nwbzarr.catalog.reader import NWBZarr, NWBZarrReader
from intake_nwbzarr.errors import OptionError, StaleSnapshotError
from tests.copies.conftest import ConditionalServer

SERIES = "ElectricalSeriesAP"


@pytest.fixture
def catalog(session: str, saved: Path, tmp_path: Path) -> Any:
    snapshot(session, path=saved)
    arguments = {"urlpath": session, "snapshot": f"{{{{ CATALOG_DIR }}}}/{saved.name}"}
    sources = {
        "verified": {"driver": "nwbzarr", "args": arguments},
        "unverified": {"driver": "nwbzarr", "args": arguments | {"verify": False}},
        "elsewhere": {"driver": "nwbzarr", "args": arguments | {"snapshot": "s3://bucket/a.snapshot.zip"}},
    }
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"sources": sources}))
    return intake.open_catalog(str(tmp_path / "catalog.yaml"))


def test_an_entry_opens_and_tells_what_it_is_without_a_request(
    catalog: Any, server: ConditionalServer
) -> None:
    server.reset()
    dataset = catalog.unverified.read()
    tree = catalog.unverified.to_datatree()
    found = catalog.unverified.discover()
    assert server.count() == 0
    assert dataset[SERIES].shape == found["shape"][SERIES] == tree[f"acquisition/{SERIES}/data"].shape
    for attributes in (dataset.attrs, found["attrs"], tree.attrs):
        assert attributes["nwb_snapshot"].startswith("not verified")


def test_an_entry_is_verified_by_one_request_unless_it_says_otherwise(
    catalog: Any, server: ConditionalServer, session: str
) -> None:
    server.reset()
    dataset = catalog.verified.read()
    assert [seen.status for seen in server.requests] == [304]
    expected = xr.open_dataset(session, engine="nwbzarr")
    np.testing.assert_array_equal(dataset[SERIES][:100], expected[SERIES][:100])
    # Tasks are named for what they read.
    assert dataset[SERIES].data.name == catalog.unverified.read()[SERIES].data.name
    document = server.root / "a.nwb.zarr" / ".zmetadata"
    document.write_text(document.read_text() + " ")
    with pytest.raises(StaleSnapshotError):
        catalog.verified.read()
    with pytest.raises(StaleSnapshotError):
        catalog.verified.discover()


def test_an_entry_whose_snapshot_is_elsewhere_says_so(catalog: Any) -> None:
    with pytest.raises(OptionError, match="The snapshot path must be a local path"):
        catalog.elsewhere.read()


def test_a_source_that_travels_takes_the_path_along(catalog: Any, server: ConditionalServer) -> None:
    source = pickle.loads(pickle.dumps(catalog.unverified))
    server.reset()
    assert SERIES in source.read()
    assert server.count() == 0
    assert "verify: false" in catalog.unverified.yaml()


def test_a_reader_of_intake_2_opens_from_a_snapshot(
    session: str, saved: Path, server: ConditionalServer
) -> None:
    snapshot(session, path=saved)
    reader = NWBZarrReader(NWBZarr(session), snapshot=str(saved), verify=False)
    server.reset()
    dataset = reader.read()
    with track_requests() as log:
        assert reader.discover()["shape"][SERIES] == dataset[SERIES].shape
        assert reader.to_datatree().attrs["nwb_snapshot"] == dataset.attrs["nwb_snapshot"]
    assert log.requests == server.count() == 0
