"""One session becomes rows of both tables, with what pynwb reads, in few requests."""

from __future__ import annotations

import datetime as dt
import json
import random
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hdmf_zarr import NWBZarrIO
from pynwb.file import Subject

from intake_nwbzarr import errors, open_nwb
from intake_nwbzarr.copies.snapshot import decode
from intake_nwbzarr.hierarchy.consolidate import consolidate
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.scan.harvest import FoundSession, harvest
from intake_nwbzarr.sessions.tables.table_schema import OBJECTS, SESSIONS, table_of
from tests import fuzz
from tests.conftest import SESSIONS as CORPUS
from tests.mapping.extension_files import extension_files, without_schemas
from tests.servers.s3_server import S3Server
from tests.session_files import copy_of, edit
from tests.sessions.lab import write_small

# Of single sessions; a scan ignores them.
pytestmark = pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.NWBZarrWarning")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session of `small_session`: read it only."""
    return write_small(tmp_path_factory.mktemp("small"))


def _rows(path: Path, **options: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    row, objects = harvest(FoundSession(locate(path)), **options)
    # They are what the tables can have, and nothing else.
    assert row.keys() <= set(SESSIONS.names)
    assert all(each.keys() <= set(OBJECTS.names) for each in objects)
    table_of("sessions", [row])
    table_of("objects", objects)
    return row, {each["path"]: each for each in objects}


def test_every_column_is_filled(small: Path) -> None:
    row, objects = _rows(small, requests=100)
    assert row.pop("scanned").tzinfo is dt.UTC
    assert row.pop("nbytes") > 0
    assert row.pop("etag")
    assert row == {
        "location": locate(small).url, "storage": None, "identifier": "lab-1", "session_id": "ses-1",
        "session_description": "running", "start": dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC),
        "start_text": "2024-05-01T14:00:00+02:00", "subject_id": "R1",
        "species": "Mus musculus - House mouse", "taxon": "Mus musculus", "age": "P12W", "age_days": 84.0,
        "sex": "M", "sex_code": "M", "genotype": "wt", "strain": "C57BL/6J",
        "date_of_birth": "2024-01-01T00:00:00+00:00", "weight": "0.025 kg", "institution": "Institute",
        "lab": "Lab of Examples", "experimenter": ["Doe, Jane", "Roe, Richard"],
        "keywords": ["wheel", "dark"], "devices": ["probe"], "brain_regions": ["CA1"],
        "unit_count": 3, "electrode_count": 4,
        "roi_count": None, "trial_count": 3, "object_count": len(objects), "zarr_format": 3,
        "consolidated": True, "nwb_version": "2.11.0", "namespaces": [], "zip_etag": None, "not_read": [],
        "requests_for_all": None, "requests": 19, "format": "zarr",
    }  # fmt: skip
    speed = objects["acquisition/speed"]
    assert speed["types"] == ["TimeSeries", "NWBDataInterface", "NWBContainer", "Container"]
    assert (speed["unit"], speed["rate"], speed["duration"]) == ("cm/s", 10.0, 2.0)
    assert (speed["shape"], speed["dtype"], speed["namespace"]) == ([20], "float64", "core")
    assert speed["description"] == "of the wheel"
    units = objects["units"]
    assert (units["shape"], units["columns"], units["types"][:2]) == (
        [3],
        ["spike_times"],
        ["Units", "DynamicTable"],
    )
    assert "units/spike_times" not in objects


@pytest.mark.parametrize(("kind", "release"), CORPUS)
def test_rows_have_what_pynwb_reads(kind: str, release: str, corpus_dir: Callable[[str, str], Path]) -> None:
    row, objects = _rows(corpus_dir(kind, release), requests=100)
    assert row.get("error") is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nwbfile = open_nwb(corpus_dir(kind, release))
    subject = nwbfile.subject
    for column, value in {
        "identifier": nwbfile.identifier,
        "session_id": nwbfile.session_id,
        "start": nwbfile.session_start_time,
        "species": subject.species,
        "age": subject.age,
        "sex": subject.sex,
        "subject_id": subject.subject_id,
        "keywords": list(nwbfile.keywords[:]),
        "experimenter": list(nwbfile.experimenter[:]),
        "devices": sorted(nwbfile.devices),
        "unit_count": None if nwbfile.units is None else len(nwbfile.units),
        "trial_count": None if nwbfile.trials is None else len(nwbfile.trials),
        "electrode_count": None if nwbfile.electrodes is None else len(nwbfile.electrodes),
    }.items():
        assert row.get(column) == value, column
    columns = {"VectorData", "VectorIndex", "ElementIdentifiers", "DynamicTableRegion", "NWBFile"}
    columns.add("TimeSeriesReferenceVectorData")
    # Before NWB 2.8, electrodes were any DynamicTable.
    names = (
        type(each).__name__.replace("ElectrodesTable", "DynamicTable") for each in nwbfile.objects.values()
    )
    stored = (each["type"].replace("ElectrodesTable", "DynamicTable") for each in objects.values())
    assert Counter(stored) == Counter(name for name in names if name not in columns)


def test_an_ordinary_session_takes_ten_requests_of_which_two_rounds(small: Path, s3_server: S3Server) -> None:
    url = s3_server.upload(s3_server.public_bucket, "small", small)
    found = FoundSession(locate(url, s3_server.anonymous_options), document="zarr.json")
    row, _ = harvest(found)
    assert row["requests"] == len(s3_server.requests) == 10
    assert row["not_read"] == [
        "genotype", "strain", "keywords", "experimenter", "lab", "institution", "date_of_birth", "weight",
    ]  # fmt: skip
    assert row["requests_for_all"] == 18
    assert (row["taxon"], row["age_days"], row["brain_regions"]) == ("Mus musculus", 84.0, ["CA1"])
    assert (row["session_description"], row["identifier"]) == ("running", "lab-1")
    assert not any("list-type" in seen.path for seen in s3_server.requests)


def test_types_of_extensions_are_resolved_by_the_files_own_schema(tmp_path: Path) -> None:
    files = extension_files(tmp_path, "pose")
    row, objects = _rows(files["pose"])
    assert [each.partition(" ")[0] for each in row["namespaces"]] == ["ndx-pose"]
    series = [each for each in objects.values() if each["type"] == "PoseEstimationSeries"]
    assert series
    assert all(each["types"][1:3] == ["SpatialSeries", "TimeSeries"] for each in series)
    assert all(each["unit"] for each in series)
    # Without a schema, the contents tell.
    _, objects = _rows(without_schemas(files["pose"]))
    assert {"TimeSeries"} <= set(objects[series[0]["path"]]["types"])
    assert {"SpatialSeries"}.isdisjoint(objects[series[0]["path"]]["types"])


def test_external_links_are_not_followed(small: Path, s3_server: S3Server, tmp_path: Path) -> None:
    copy = copy_of(small, tmp_path)
    link = {
        "name": "elsewhere",
        "source": "../other.nwb.zarr",
        "path": "/acquisition/speed",
        "object_id": "x",
    }
    edit(copy, "acquisition", lambda document: document["attributes"].update(_LINKS=[link]))
    url = s3_server.upload(s3_server.public_bucket, "linked/a.nwb.zarr", copy)
    row, objects = harvest(FoundSession(locate(url, s3_server.anonymous_options)))
    assert row.get("error") is None
    assert s3_server.count("other.nwb.zarr") == 0
    assert not any(each["name"] == "elsewhere" for each in objects)


def test_a_snapshot_opens_the_session(small: Path) -> None:
    row, _ = _rows(small, snapshots=True)
    kept = decode(row["snapshot"])
    assert kept.url == row["location"]


def test_stale_metadata_are_recognised_by_a_comparison(small: Path, tmp_path: Path) -> None:
    copy = copy_of(small, tmp_path)
    assert _rows(copy, check=True)[0]["stale"] is False
    assert "stale" not in _rows(copy)[0]
    with NWBZarrIO(str(copy), "r+") as io:
        nwbfile = io.read()
        from pynwb import TimeSeries

        nwbfile.add_acquisition(TimeSeries(name="late", data=[1.0, 2.0], unit="V", rate=1.0))
        before = (copy / "zarr.json").read_bytes()
        io.write(nwbfile)
    (copy / "zarr.json").write_bytes(before)
    assert _rows(copy, check=True)[0]["stale"] is True
    consolidate(copy)
    assert _rows(copy, check=True)[0]["stale"] is False


def _damage(name: str, path: Path) -> None:
    document = path / "zarr.json"
    content = json.loads(document.read_text())
    nodes = content["consolidated_metadata"]["metadata"]
    match name:
        case "cut":
            document.write_bytes(document.read_bytes()[:4000])
            return
        case "path escapes":
            nodes["../../outside"] = nodes["acquisition"]
        case "deep":
            nodes["/".join("a" * 100)] = nodes["acquisition"]
        case "nested":
            deep: Any = "x"
            for _ in range(500):
                deep = [deep]
            content["attributes"]["deep"] = deep
        case "not nwb":
            content["attributes"].pop("neurodata_type")
        case "missing groups":
            nodes.update({f"g{number}/a": nodes["acquisition"] for number in range(1000)})
    document.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("cut", "MetadataError"),
        ("path escapes", "UnsafePathError"),
        ("deep", "UnsafePathError"),
        ("nested", "MetadataError"),
        ("not nwb", "NotNWBError"),
        ("missing groups", "MetadataError"),
    ],
)
def test_what_cannot_be_read_is_a_row_with_its_error(
    name: str, error: str, small: Path, tmp_path: Path
) -> None:
    copy = copy_of(small, tmp_path)
    _damage(name, copy)
    row, objects = _rows(copy)
    assert row["error_type"] == error
    assert row["error"]
    assert "\n" not in row["error"]
    assert row["transient"] is False
    assert (row["object_count"], objects) == (0, {})


def test_hostile_values_cost_their_column_or_are_cut(small: Path, tmp_path: Path) -> None:
    copy = copy_of(small, tmp_path)
    huge = 2**62

    def enlarge(document: dict[str, Any]) -> None:
        document["shape"] = [huge]
        document["chunk_grid"]["configuration"]["chunk_shape"] = [huge]

    edit(copy, "acquisition/speed/data", enlarge)
    edit(copy, "general/keywords", enlarge)
    edit(copy, "acquisition/speed", lambda each: each["attributes"].update(description="x" * 100_000))
    (copy / "general" / "subject" / "species" / "c").write_bytes(b"no vlen")
    row, objects = _rows(copy, requests=100)
    assert row.get("error") is None
    assert row["nbytes"] == 2**63 - 1
    assert objects["acquisition/speed"]["shape"] == [huge]
    assert len(objects["acquisition/speed"]["description"]) == 10_000
    assert set(row["not_read"]) == {"keywords", "species"}
    assert row["age"] == "P12W"


def test_a_gestational_age_is_no_age_in_days(tmp_path: Path) -> None:
    subject = Subject(subject_id="R1", age="P18D", age__reference="gestational")
    row, _ = _rows(write_small(tmp_path, subject=subject))
    assert (row["age"], row["age_days"]) == ("P18D", None)


def test_a_damaged_array_costs_itself(small: Path, tmp_path: Path) -> None:
    copy = copy_of(small, tmp_path)
    content = json.loads((copy / "zarr.json").read_text())
    nodes = content["consolidated_metadata"]["metadata"]
    nodes["acquisition/speed/data"]["data_type"] = "quaternion"
    (copy / "zarr.json").write_text(json.dumps(content))
    row, objects = _rows(copy)
    assert row.get("error") is None
    assert "shape" not in objects["acquisition/speed"]
    assert objects["acquisition/speed"]["rate"] == 10.0


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 3))])
def test_whatever_is_damaged_the_rows_fit_the_tables(part: int, tmp_path: Path) -> None:
    damageable = fuzz.sessions(tmp_path)
    for seed in range(part * 60, part * 60 + 60):
        source = random.Random(seed)
        session = source.choice(damageable)
        with session.damaged(source) as what:
            row, objects = harvest(
                FoundSession(locate(session.path), document=session.document.name),  # type: ignore[arg-type]
                requests=100,
            )
            table_of("sessions", [row])
            table_of("objects", objects)
            assert row.get("error_type") is None or hasattr(errors, row["error_type"]), (seed, what)


def test_the_requests_of_a_column_of_any_size_fit_the_table(small: Path, tmp_path: Path) -> None:
    copy = copy_of(small, tmp_path)

    def enlarge(document: dict[str, Any]) -> None:
        document["shape"] = [10**12]
        document["chunk_grid"]["configuration"]["chunk_shape"] = [1]

    edit(copy, "general/lab", enlarge)
    row, _ = _rows(copy, requests=100)
    assert row["not_read"] == ["lab"]
    assert row["requests_for_all"] == 2**31 - 1
