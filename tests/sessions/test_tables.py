"""The Parquet tables of many sessions: written whole, read in part, refused if damaged."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import LocationNotFoundError, TableError
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.sessions.tables import OBJECTS, SESSIONS, Tables, conformed, table_of
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server


def _sessions(count: int = 3, **columns: object) -> pa.Table:
    return table_of(
        "sessions",
        [{"location": f"s3://lab/{number}", "taxon": "Mus musculus", **columns} for number in range(count)],
    )


def _objects(count: int = 3) -> pa.Table:
    types = ["SpatialSeries", "TimeSeries", "NWBDataInterface"]
    return table_of(
        "objects",
        [
            {"location": f"s3://lab/{number}", "path": "acquisition/speed", "types": types}
            for number in range(count)
        ],
    )


@pytest.fixture(params=["file", "folder", "s3 file", "s3 folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server) -> Location:
    """Where tables may be: a pair of files or a folder of parts, local or in a bucket."""
    name = "table" if "folder" in request.param else "table.parquet"
    if "s3" not in request.param:
        return locate(tmp_path / name)
    return locate(f"s3://{s3_server.private_bucket}/{tmp_path.name}/{name}", s3_server.signed_options)


def test_what_is_written_is_read(place: Location) -> None:
    Tables(place).write("lab", "s3://lab", _sessions(), _objects())
    tables = Tables(place).opened()
    (part,) = tables.parts
    assert (part.source, part.rows) == ("s3://lab", 3)
    assert conformed("sessions", tables.read("sessions")).equals(_sessions())
    assert conformed("objects", tables.read("objects")).equals(_objects())
    assert tables.read("sessions", ["taxon"]).to_pydict() == {"taxon": ["Mus musculus"] * 3}


def test_a_folder_has_a_part_for_each_prefix_which_is_replaced_whole(tmp_path: Path) -> None:
    writer = Tables(locate(tmp_path / "tables"))
    writer.write("one", "s3://one", _sessions(3), _objects(3))
    writer.write("two", "s3://two", _sessions(2), _objects(2))
    before = writer.opened()
    writer.write("one", "s3://one", _sessions(5), _objects(5))
    after = writer.opened()
    assert [part.rows for part in after.parts] == [5, 2]
    assert before.digest != after.digest
    assert len(after.read("objects")) == 7
    assert not list(tmp_path.rglob("*.partial"))


def test_other_engines_read_the_files_alone(tmp_path: Path) -> None:
    Tables(locate(tmp_path / "tables")).write("one", "s3://one", _sessions(), _objects())
    schema = pq.read_schema(tmp_path / "tables/objects/one.parquet")
    assert [(each.name, each.type) for each in schema] == [(each.name, each.type) for each in OBJECTS]
    assert pq.read_table(tmp_path / "tables/sessions").num_rows == 3


def test_tables_that_were_rewritten_are_not_mixed_with_what_was_read_before(place: Location) -> None:
    writer = Tables(place)
    writer.write("lab", "s3://lab", _sessions(), _objects())
    opened = pickle.loads(pickle.dumps(writer.opened())) if place.secrets is None else writer.opened()
    writer.write("lab", "s3://lab", _sessions(4), _objects(4))
    with pytest.raises(TableError) as caught:
        opened.read("objects")
    assert caught.value.transient
    assert len(writer.opened().read("objects")) == 4


def test_whoever_opens_tables_while_they_are_written_sees_one_scan(tmp_path: Path) -> None:
    writer = Tables(locate(tmp_path / "table.parquet"))
    writer.write("", "s3://lab", _sessions(1), _objects(1))
    stop = threading.Event()

    def write() -> None:
        count = 1
        while not stop.wait(0.05):
            count = count % 50 + 1
            writer.write("", "s3://lab", _sessions(count), _objects(count))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(40):
            opened = writer.opened()
            assert len(opened.parts) == 1
    finally:
        stop.set()
        thread.join()


def test_files_of_two_scans_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intake_nwbzarr.sessions.tables._PAUSE", 0.0)
    writer = Tables(locate(tmp_path / "table.parquet"))
    writer.write("", "s3://lab", _sessions(), _objects())
    objects = (tmp_path / "table.objects.parquet").read_bytes()
    writer.write("", "s3://lab", _sessions(), _objects())
    (tmp_path / "table.objects.parquet").write_bytes(objects)
    with pytest.raises(TableError, match="two different scans"):
        writer.opened()


def test_unknown_columns_are_kept_and_missing_ones_are_null(tmp_path: Path) -> None:
    more = _sessions().append_column("quality", pa.array([1, 2, 3])).drop_columns(["strain"])
    writer = Tables(locate(tmp_path / "table.parquet"))
    writer.write("", "s3://lab", more, _objects())
    read = writer.opened().read("sessions")
    assert read.column_names == [*SESSIONS.names, "quality"]
    assert read["quality"].to_pylist() == [1, 2, 3]
    assert read["strain"].null_count == 3


@pytest.mark.parametrize(("version", "refused"), [("1.7", False), ("2.0", True), ("", True)])
def test_a_newer_major_version_is_refused(version: str, refused: bool, tmp_path: Path) -> None:
    writer = Tables(locate(tmp_path / "table.parquet"))
    writer.write("", "s3://lab", _sessions(), _objects())
    for name in ("table.parquet", "table.objects.parquet"):
        table = pq.read_table(tmp_path / name)
        about = json.loads(table.schema.metadata[b"nwbzarr"]) | {"version": version}
        pq.write_table(table.replace_schema_metadata({b"nwbzarr": json.dumps(about)}), tmp_path / name)
    if not refused:
        assert len(writer.opened().read("sessions")) == 3
        return
    with pytest.raises(TableError) as caught:
        writer.opened()
    assert caught.value.expected == "1.x"


def test_what_is_no_table_of_sessions_is_one_clear_error(tmp_path: Path) -> None:
    tables = Tables(locate(tmp_path / "table.parquet"))
    with pytest.raises(LocationNotFoundError, match="does not exist"):
        tables.opened()
    (tmp_path / "table.parquet").write_bytes(b"PAR1 this is not one PAR1")
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        tables.opened()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "table.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "table.objects.parquet")
    with pytest.raises(TableError, match="not a table of sessions"):
        tables.opened()
    (tmp_path / "empty").mkdir()
    with pytest.raises(LocationNotFoundError, match="no tables of sessions"):
        Tables(locate(tmp_path / "empty")).opened()


def test_a_table_over_http_is_read_in_ranges(http_server: StaticServer) -> None:
    writer = Tables(locate(http_server.root / "table.parquet"))
    description = [
        {"location": f"s3://lab/{number}", "session_description": f"{number:0200}"} for number in range(5000)
    ]
    many = [
        {"location": f"s3://lab/{number}", "error": f"{hash(str(number)):x}" * 40} for number in range(5000)
    ]
    rows = [first | second for first, second in zip(description, many, strict=True)]
    writer.write("", "s3://lab", table_of("sessions", rows), _objects())
    size = (http_server.root / "table.parquet").stat().st_size
    tables = Tables(locate(f"{http_server.url}/table.parquet")).opened()
    with track_requests() as log:
        assert len(tables.read("sessions", ["location"])) == 5000
    assert log.total.received < size
