"""The table of public sessions that comes with the package: what it says, and the way from it to the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import intake
import numpy as np
import pytest

from intake_nwbzarr.location.location import locate
from intake_nwbzarr.mapping.schema import ancestry
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.conditions import Find
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.replica import ECEPHYS, IMAGING, layout
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

CATALOGS = Path(__file__).parents[2] / "catalogs"
LAYOUTS = {IMAGING: "dandi-000719-ophys", ECEPHYS: "dandi-ecephys"}


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> SessionCatalog:
    # Without it, Intake 2.0.9 looks for conda with a module that Python 3.12 does not have.
    monkeypatch.setenv("VIRTUAL_ENV", "/")
    found = intake.cat.nwbzarr.sessions
    assert isinstance(found, SessionCatalog)
    return found


def test_intake_has_the_public_sessions(public: SessionCatalog) -> None:
    assert list(public) == [f"s3://dandiarchive/{place}" for place in (IMAGING, ECEPHYS)]
    beside = intake.open_nwbzarr_sessions(str(CATALOGS / "public.parquet"))
    assert list(beside) == list(public)
    assert len(beside.objects) == len(public.objects)


def test_a_session_is_searched_and_read(
    public: SessionCatalog, s3_server: S3Server, archive: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (IMAGING, ECEPHYS):
        s3_server.upload(s3_server.dandi_bucket, place, archive.root / place)
    s3_server.as_amazon(monkeypatch)
    found = public.search(
        subject_id="R6", speed=Find("TimeSeries", name="speed"), cells=Find("PlaneSegmentation")
    )
    (session,) = found.selected()
    assert session.paths == {
        "speed": ("processing/behavior/BehavioralTimeSeries/speed",),
        "cells": ("processing/ophys/ImageSegmentation/PlaneSegmentation",),
    }
    source = found[session.key]
    speed = source(group=session.paths["speed"][0]).read()
    assert speed.data.dims == ("time",)
    assert np.isfinite(speed.data.values).all()
    assert source(group=session.paths["cells"][0]).read().sizes["roi"] == 6
    units = public.search(units=Find("Units"), trials=Find("DynamicTable", name="trials"))
    assert list(units) == [f"s3://dandiarchive/{ECEPHYS}"]
    assert units[next(iter(units))](group="units").read().sizes["unit"] == 2
    assert not any("Authorization" in seen.headers for seen in s3_server.requests)


def test_the_block_of_the_page_runs(public: SessionCatalog) -> None:
    section = (CATALOGS.parent / "docs" / "many-sessions.md").read_text()
    section = section.partition("### Public sessions that come with the package\n")[2]
    names: dict[str, Any] = {}
    exec(section.partition("```python\n")[2].partition("```")[0], names)
    assert list(names["spiking"]) == [f"s3://dandiarchive/{ECEPHYS}"]


@pytest.mark.parametrize("place", LAYOUTS)
def test_the_table_has_what_the_layout_of_the_asset_proves(place: str) -> None:
    tables = Tables(locate(CATALOGS / "public.parquet")).opened()
    arrays = layout(LAYOUTS[place])
    location = f"s3://dandiarchive/{place}"
    rows = [row for row in tables.read("objects").to_pylist() if row["location"] == location]
    paths = [row["path"] for row in rows]
    for row in rows:
        assert any(f"{array}/".startswith(f"{row['path']}/") for array in arrays), row["path"]
        assert row["types"] == list(ancestry(row["type"]))
    # What belongs to no object belongs to the file.
    outside = [
        stored.chunks
        for array, stored in arrays.items()
        if not any(f"{array}/".startswith(f"{path}/") for path in paths)
    ]
    assert sum(row["chunks"] for row in rows) + sum(outside) == sum(each.chunks for each in arrays.values())
    assert len(outside) < 12
    session = next(row for row in tables.read("sessions").to_pylist() if row["location"] == location)
    assert session["object_count"] == len(rows)
    facts = {name for name, value in session.items() if value is not None}
    assert facts.isdisjoint(session["not_read"])
    assert facts <= {
        "location", "storage", "dandiset", "subject_id", "roi_count", "object_count", "zarr_format",
        "consolidated", "not_read",
    }  # fmt: skip
