"""The Parquet tables of many sessions: written whole, read in part, refused if damaged."""

from __future__ import annotations

import json
import pickle
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intake_nwbzarr import Find, track_requests
from intake_nwbzarr.errors import LocationNotFoundError, OptionError, TableError
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.tables.table_schema import OBJECTS, SESSIONS, conformed, table_of
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

nothing_found = pytest.mark.filterwarnings(
    "ignore:The search found nothing:intake_nwbzarr.errors.SessionsWarning"
)


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
    monkeypatch.setattr("intake_nwbzarr.sessions.tables.tables._PAUSE", 0.0)
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


def test_what_belongs_to_tables_is_refused_with_the_place_of_the_tables(place: Location) -> None:
    Tables(place).write("lab", "s3://lab", _sessions(), _objects())
    single = place.url.endswith(".parquet")
    stem = place.url.removesuffix(".parquet")
    parts = ["objects/lab.parquet", "sessions/lab.parquet", "sessions", "objects"]
    for url in [f"{stem}.objects.parquet"] if single else [f"{stem}/{part}" for part in parts]:
        with pytest.raises((TableError, LocationNotFoundError)) as caught:
            Tables(replace(place, url=url)).opened()
        said = f"pass that of sessions, {place}" if single else f"pass the folder itself: {place}."
        assert said in str(caught.value.next_step)


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


def _rewritten(place: Path, change: Any, about: Any = None, kind: str = "sessions") -> SessionCatalog:
    """Write tables, of which another program has changed one."""
    Tables(locate(place)).write("", "s3://lab", _sessions(), _objects())
    paths = [place, place.with_name(f"{place.stem}.objects.parquet")]
    for path in paths:
        table = pq.read_table(path)
        known = json.loads(table.schema.metadata[b"nwbzarr"])
        if path == paths[kind == "objects"]:
            table = change(table)
        text = about if isinstance(about, str) else json.dumps(known | (about or {}))
        pq.write_table(table.replace_schema_metadata({b"nwbzarr": text}), path)
    return SessionCatalog(str(place))


def _with(name: str, values: Any) -> Any:
    """A change of a table: another column of that name, or none."""

    def change(table: pa.Table) -> pa.Table:
        table = table.drop_columns([name]) if name in table.column_names else table
        return table if values is None else table.append_column(name, values)

    return change


def _used(lab: SessionCatalog) -> None:
    """Use every column, in all ways."""
    for column in lab.columns:
        lab.search(**{column: None})
        lab.unique(column)
    lab.search(found=Find("TimeSeries"), taxon="Mus*").to_yaml()
    repr(lab)
    lab._repr_html_()
    lab.df  # noqa: B018
    lab.objects  # noqa: B018
    list(lab.selected())
    Tables(lab.tables.place).remains()


KEYS = [f"s3://lab/{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("location", pa.array(KEYS, pa.string_view())),
        ("location", pa.array(KEYS, pa.large_string())),
        ("location", pa.array(KEYS).dictionary_encode()),
        ("taxon", pa.array(["Mus musculus"] * 3, pa.string_view())),
        ("taxon", pa.nulls(3)),
        ("taxon", None),
        ("keywords", pa.array([["a"], [], None], pa.large_list(pa.large_string()))),
        ("keywords", pa.nulls(3)),
        ("unit_count", pa.array([1.0, None, 3.0])),
        ("unit_count", pa.nulls(3)),
        ("start", pa.nulls(3)),
        ("snapshot", None),
    ],
)
@nothing_found
def test_a_table_that_another_program_has_written_reads_the_same(
    name: str, values: Any, tmp_path: Path
) -> None:
    lab = _rewritten(tmp_path / "t.parquet", _with(name, values))
    assert list(lab) == KEYS
    _used(lab)


@pytest.mark.parametrize(
    ("kind", "name", "values", "said"),
    [
        ("sessions", "location", None, "It has no columns location"),
        ("sessions", "location", pa.array([1, 2, 3]), "location has the type int64, not string"),
        ("sessions", "location", pa.array(["a", None, "b"]), "Rows have no location"),
        ("sessions", "location", pa.nulls(3), "Rows have no location"),
        ("sessions", "taxon", pa.array([1, 2, 3]), "taxon has the type int64, not string"),
        ("sessions", "taxon", pa.array([{"a": 1}] * 3), "taxon has the type"),
        ("sessions", "unit_count", pa.array(["1", "2", "3"]), "unit_count has the type string, not int64"),
        ("sessions", "unit_count", pa.array([1.5, 2.5, 3.5]), "unit_count has the type double"),
        ("sessions", "keywords", pa.array(["a", "b", "c"]), "keywords has the type string"),
        ("sessions", "snapshot", pa.array(["a", "b", "c"]), "snapshot has the type string, not binary"),
        ("objects", "location", None, "It has no columns location"),
        ("objects", "path", pa.array(["a", None, "b"]), "Rows have no path"),
    ],
)
def test_a_table_of_other_types_is_one_clear_error(
    kind: str, name: str, values: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(TableError, match=said):
        _used(_rewritten(tmp_path / "t.parquet", _with(name, values), kind=kind))


@pytest.mark.parametrize(
    "about",
    [{"scan": 3}, {"scan": {}}, {"version": "\u00b2"}, {"version": "9" * 5000}, "[" * 100_000, "null"],
    ids=["scan", "scan dict", "superscript", "long", "deep", "null"],
)
def test_metadata_of_other_types_are_one_clear_error(about: Any, tmp_path: Path) -> None:
    with pytest.raises(TableError):
        _used(_rewritten(tmp_path / "t.parquet", lambda table: table, about))


@pytest.mark.parametrize(
    "values",
    [
        pa.nulls(3),
        pa.array([{"a": 1}] * 3),
        pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
        pa.array([[["a"]], None, []], pa.large_list(pa.list_(pa.string()))),
        pa.array(["a", "b", None], pa.string_view()),
        pa.array([1, 2, None], pa.date32()),
        pa.array([1, 2, None], pa.time32("s")),
        pa.array([1, 2, None], pa.decimal128(5)),
        pa.array([1, 2, None], pa.duration("s")),
        pa.array([b"a", b"b", None], pa.large_binary()),
        pa.array(["a", "b", "a"]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)
@nothing_found
def test_columns_of_ones_own_may_have_any_type(values: pa.Array, tmp_path: Path) -> None:
    lab = _rewritten(tmp_path / "t.parquet", _with("own", values))
    assert lab.df["own"].notna().sum() == 3 - values.null_count
    assert len(lab.search(own=None)) == values.null_count
    for ask in (
        lambda: lab.search(own="a"),
        lambda: lab.search(own="a*"),
        lambda: lab.search(own=3),
        lambda: lab.search(own=["2024", 3]),
        lambda: lab.search(own=(1, None)),
        lambda: lab.unique("own"),
    ):
        with suppress(OptionError):
            ask()


def test_parts_with_other_columns_are_read_together(tmp_path: Path) -> None:
    tables = Tables(locate(tmp_path / "tables"))
    for name in ("one", "two"):
        tables.write(name, f"s3://{name}", _sessions(), _objects())
    path = tmp_path / "tables/sessions/two.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["taxon", "lab"]), path)
    assert tables.opened().read("sessions", ["taxon"])["taxon"].null_count == 3
    pq.write_table(table.append_column("own", pa.array(["a", "b", "c"])), path)
    one = tmp_path / "tables/sessions/one.parquet"
    pq.write_table(pq.read_table(one).append_column("own", pa.array([{"a": 1}] * 3)), one)
    with pytest.raises(TableError):
        tables.opened().read("sessions", ["own"])
