"""A found session is opened once for all its objects, as scanned, and each object as by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.copies.recording import record_session
from intake_nwbzarr.copies.snapshot import encode
from intake_nwbzarr.errors import (
    NodeNotFoundError,
    OptionError,
    SnapshotError,
    StaleTableError,
    TransportError,
)
from intake_nwbzarr.hierarchy import documents
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.selected import Selected, forget, open_selected
from intake_nwbzarr.transport import base, memory_cache
from tests.servers.http_server import StaticServer
from tests.session_files import copy_of, edit

OBJECTS = {
    "units": ("units",),
    "trials": ("intervals/trials",),
    "raw": ("acquisition/ElectricalSeriesAP",),
    "everything": ("acquisition",),
}


@pytest.fixture
def session(http_server: StaticServer, ecephys: Path) -> Selected:
    copy_of(ecephys, http_server.root, "a.nwb.zarr")
    return _selected(f"{http_server.url}/a.nwb.zarr")


def _selected(url: str, **fields: Any) -> Selected:
    location = locate(url)
    known = {"etag": open_hierarchy(location).etag, "paths": OBJECTS} | fields
    selected = Selected(str(location), location, **known)
    forget(selected)
    return selected


def test_each_object_is_as_open_dataset_gives_it(session: Selected) -> None:
    opened = open_selected(session)
    assert list(opened) == list(OBJECTS)
    for name, (path,) in OBJECTS.items():
        alone = xr.open_dataset(session.location, engine="nwbzarr", group=path)  # type: ignore[arg-type]
        xr.testing.assert_identical(opened[name].load(), alone.load())
        assert opened[name].encoding["source"] == alone.encoding["source"]
    assert opened["units"].nwb.nwbfile.identifier == "corpus-ecephys"


def test_all_objects_take_two_round_trips(session: Selected, http_server: StaticServer) -> None:
    http_server.reset()
    http_server.latency = 0.3
    open_selected(session)
    # zarr.json and .zmetadata, then everything else; nothing is asked for twice.
    assert {seen.path.rpartition("/")[2] for seen in http_server.requests[:2]} == {"zarr.json", ".zmetadata"}
    rest = [seen.path for seen in http_server.requests[2:]]
    assert len(rest) == len(set(rest)) == http_server.most_at_once


def test_a_variable_is_read_once_and_without_dask(session: Selected, http_server: StaticServer) -> None:
    units = open_selected(session)["units"]
    assert units.chunks == {}
    units.spike_times.values  # noqa: B018
    before = http_server.count()
    units.spike_times.values  # noqa: B018
    assert http_server.count() == before


def test_a_session_that_has_changed_since_the_scan_is_not_opened(
    session: Selected, http_server: StaticServer
) -> None:
    edit(http_server.root / "a.nwb.zarr", "units", lambda document: document["attributes"].update(x=1))
    with pytest.raises(StaleTableError, match="Scan it again") as caught:
        open_selected(session)
    assert not caught.value.transient
    assert caught.value.expected == session.etag


def test_a_session_whose_metadata_are_no_longer_consolidated_has_changed(
    session: Selected, http_server: StaticServer
) -> None:
    session = Selected(session.key, session.location, '"another"', {"units": ("units",)})
    with pytest.raises(StaleTableError):
        open_selected(session)


def test_an_object_that_is_gone_from_a_session_without_an_etag_is_a_change(session: Selected) -> None:
    gone = Selected(session.key, session.location, None, {"units": ("processing/units",)})
    with pytest.raises(StaleTableError) as caught:
        open_selected(gone)
    assert isinstance(caught.value.__cause__, NodeNotFoundError)


def test_several_objects_of_one_condition(session: Selected) -> None:
    paths = {"tables": ("intervals/trials", "units")}
    with pytest.raises(OptionError, match="multiple='first'") as caught:
        open_selected(Selected(session.key, session.location, None, paths))
    assert caught.value.found == ["intervals/trials", "units"]
    first = open_selected(Selected(session.key, session.location, None, paths, {"tables": "first"}))
    assert first["tables"].attrs["nwb_path"] == "intervals/trials"
    every = open_selected(Selected(session.key, session.location, None, paths, {"tables": "all"}))
    assert list(every["tables"]) == ["intervals/trials", "units"]


def test_the_whole_session_in_three_forms(session: Selected) -> None:
    place: Any = session.location
    flat = open_selected(session, "dataset")
    xr.testing.assert_identical(flat, xr.open_dataset(place, engine="nwbzarr"))
    tree = open_selected(session, "datatree")
    xr.testing.assert_identical(tree, xr.open_datatree(place, engine="nwbzarr"))
    with open_selected(session, "nwb") as nwbfile:
        assert nwbfile.identifier == "corpus-ecephys"


def test_a_snapshot_in_the_table_spares_all_requests_but_one(
    session: Selected, http_server: StaticServer
) -> None:
    snapshot = encode(record_session(session.location))
    session = Selected(session.key, session.location, session.etag, OBJECTS, snapshot=snapshot)
    http_server.reset()
    opened = open_selected(session)
    assert [seen.status for seen in http_server.requests] == [304]
    url, trusted = str(session.location), {"revalidate": False}
    trusting = Selected(session.key, locate(url, trusted), session.etag, OBJECTS, snapshot=snapshot)
    http_server.reset()
    xr.testing.assert_equal(open_selected(trusting)["trials"].load(), opened["trials"].load())
    assert all("/trials/" in seen.path for seen in http_server.requests)
    edit(http_server.root / "a.nwb.zarr", "units", lambda document: document["attributes"].update(x=1))
    with pytest.raises(StaleTableError):
        open_selected(session)
    damaged = Selected(session.key, session.location, session.etag, OBJECTS, snapshot=snapshot[:-10])
    with pytest.raises(SnapshotError):
        open_selected(damaged)


def test_all_requests_of_a_session_have_one_deadline(session: Selected, http_server: StaticServer) -> None:
    http_server.fault("stall", "units", times=100)
    with pytest.raises(TransportError, match=r"timeout of 0\.5 s") as caught:
        open_selected(session, timeout=0.5)
    assert caught.value.transient


def test_nothing_is_remembered_of_a_session_that_is_forgotten(session: Selected) -> None:
    before = len(base._sessions)
    open_selected(session, timeout=50)["units"].load()
    forget(session, 50)
    assert documents.memory.total == memory_cache.memory.total == 0
    assert len(base._sessions) == before
