"""Tables of five sessions of two species, written by hand; and small sessions on a server, to map over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.selected import Selected
from intake_nwbzarr.sessions.tables.table_schema import table_of
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.sessions.mapped_sessions import COUNT, select, write_session

SERIES = ["TimeSeries", "NWBDataInterface", "NWBContainer", "Container"]
SPATIAL = ["SpatialSeries", *SERIES]
UNITS = ["Units", "DynamicTable", "Container"]
TRIALS = ["TimeIntervals", "DynamicTable", "Container"]

SESSIONS: list[dict[str, Any]] = [
    {
        "location": "s3://lab/1",
        "storage": "lab",
        "species": "Mus musculus",
        "taxon": "Mus musculus",
        "sex": "F",
        "sex_code": "F",
        "age_days": 70.0,
        "subject_id": "a",
        "session_id": "first",
        "keywords": ["running", "V1"],
        "etag": '"1"',
    },
    {
        "location": "s3://lab/2",
        "storage": "lab",
        "species": "House mouse",
        "taxon": "Mus musculus",
        "age_days": 100.0,
        "subject_id": "b",
        "keywords": [],
    },
    {
        "location": "s3://lab/3",
        "species": "rat",
        "taxon": "Rattus norvegicus",
        "sex": "female",
        "sex_code": "F",
    },
    {"location": "s3://lab/4", "species": "mouse", "taxon": "Mus musculus", "subject_id": "a"},
    {"location": "s3://lab/5", "error": "It is damaged.", "error_type": "MetadataError", "transient": False},
]


def _object(session: int, path: str, types: list[str], **columns: Any) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    return {
        "location": f"s3://lab/{session}",
        "path": path,
        "name": name,
        "type": types[0],
        "types": types,
        **columns,
    }


OBJECTS: list[dict[str, Any]] = [
    _object(1, "units", UNITS, shape=[12], columns=["id", "spike_times"]),
    _object(1, "processing/behavior/running_speed", SERIES, unit="cm/s", rate=60.0),
    _object(2, "units", UNITS),
    _object(2, "processing/behavior/position", SPATIAL, unit="m", rate=30.0),
    _object(3, "processing/behavior/Speed", SERIES, unit="m/s", rate=25.0),
    _object(3, "acquisition/lick", SERIES, unit="cm/s"),
    _object(4, "intervals/trials", TRIALS),
]


def write_tables(place: Path, sessions: list[dict[str, Any]], objects: list[dict[str, Any]]) -> Path:
    """Write tables of rows, as one pair of files or one part of a folder."""
    Tables(locate(place)).write(
        "lab", "s3://lab", table_of("sessions", sessions), table_of("objects", objects)
    )
    return place


@pytest.fixture
def lab(tmp_path: Path) -> SessionCatalog:
    """The catalog of the five sessions."""
    return SessionCatalog(str(write_tables(tmp_path / "sessions.parquet", SESSIONS, OBJECTS)))


@pytest.fixture
def real(corpus_dir: Callable[[str, str], Path], s3_server: S3Server, tmp_path: Path) -> SessionCatalog:
    """Two real sessions in a private bucket."""
    rows = [
        {
            "location": s3_server.upload(
                s3_server.private_bucket, f"{kind}.nwb.zarr", corpus_dir(kind, "0.14.0")
            ),
            "storage": "lab",
            "subject_id": kind,
        }
        for kind in ("ecephys", "ophys")
    ]
    objects = [
        {"location": rows[0]["location"], "path": "units", "name": "units", "type": "Units", "types": UNITS}
    ]
    s3_server.requests.clear()
    place = write_tables(tmp_path / "real.parquet", rows, objects)
    return SessionCatalog(str(place), {"lab": s3_server.signed_options})


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sessions: read them only."""
    folder = tmp_path_factory.mktemp("mapped")
    for number in range(COUNT):
        write_session(folder, number)
    return folder


@pytest.fixture
def served(folder: Path, http_server: StaticServer) -> StaticServer:
    """A server of these."""
    for each in folder.iterdir():
        (http_server.root / each.name).symlink_to(each)
    return http_server


@pytest.fixture
def found(served: StaticServer) -> list[Selected]:
    """The six sessions, as a search finds them."""
    return [select(f"{served.url}/s{number}.nwb.zarr", number) for number in range(COUNT)]
