"""The page on many sessions: its tables are those of the schemas, and its blocks run."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pyarrow as pa
import pytest
from pynwb import TimeSeries
from pynwb.file import Subject

import intake_nwbzarr
from intake_nwbzarr.sessions.tables.table_schema import SCHEMAS, Kind
from tests.servers.s3_server import S3Server
from tests.session_files import empty_session, write

PAGE = Path(__file__).parents[1] / "docs" / "many-sessions.md"


@pytest.mark.parametrize("kind", ["sessions", "objects"])
def test_the_tables_of_columns_are_those_of_the_schemas(kind: Kind) -> None:
    # To write them into the page: python -m tests.test_many_sessions
    assert _columns(kind) in PAGE.read_text()


@pytest.fixture
def sessions(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's sessions, in a bucket that this process takes for Amazon's and in a folder."""
    for name, species, unit in (("new", "House mouse", "cm/s"), ("old", "mouse", "m/s")):
        subject = Subject(subject_id=name, species=species, age="P90D", sex="F")
        nwbfile = empty_session(subject=subject, keywords=["running"])
        nwbfile.add_unit_column("quality", "of the sorting")
        for unit_id in range(4):
            nwbfile.add_unit(spike_times=[0.1 * unit_id, 5.0, 9.0], quality="good" if unit_id else "noise")
        speed = TimeSeries(name="running_speed", data=np.arange(600.0), unit=unit, rate=60.0)
        nwbfile.create_processing_module("behavior", "running").add(speed)
        write(tmp_path / "written" / name, nwbfile)
    s3_server.upload(s3_server.private_bucket, "sessions/1.nwb.zarr", tmp_path / "written/new/small.nwb.zarr")
    keys = f"aws_access_key_id = {s3_server.key}\naws_secret_access_key = {s3_server.secret}\n"
    profiles = "\n".join(f"[{name}]\n{keys}" for name in ("lab", "partner", "default"))
    (tmp_path / "credentials").write_text(profiles)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    s3_server.as_amazon(monkeypatch)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "written" / "old"


def test_every_block_on_scanning_and_searching_runs(sessions: Path, s3_server: S3Server) -> None:
    page = PAGE.read_text()
    s3_server.upload(s3_server.dandi_bucket, "data/2.nwb.zarr", sessions / "small.nwb.zarr")
    for shown, here in (
        ("s3://lab/", f"s3://{s3_server.private_bucket}/"),
        ("s3://partner/", f"s3://{s3_server.dandi_bucket}/"),
        ("/data/older", str(sessions)),
    ):
        assert shown in page
        page = page.replace(shown, here)
    names: dict[str, Any] = {"intake_nwbzarr": intake_nwbzarr}
    kinds = []
    for heading in ("Scan", "Search", "Read a table from all sessions"):
        section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        for kind, text in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
            kinds.append(kind)
            if kind == "python":
                exec(compile(text, PAGE.name, "exec"), names)
            elif kind == "yaml":
                Path("catalog.yaml").write_text(text)
    assert {kind: kinds.count(kind) for kind in kinds} == {"python": 6, "yaml": 1}
    assert [source.location.option("profile") for source in names["both"].values()] == ["partner", "lab"]
    assert all(source.read().attrs["identifier"] for source in names["both"].values())
    assert len(names["lab"]) == len(names["mice"]) == 2
    assert set(names["rate"].dims) == {"unit", "time"}
    assert len(names["lab"].filter(names["in_sql"])) == 2
    assert len(names["frame"]) == 6
    with warnings.catch_warnings():
        # Intake 2.0.9 warns about shell commands whenever a parameter has a text for a default.
        warnings.simplefilter("ignore", UserWarning)
        catalog = intake.open_catalog("catalog.yaml")
        assert len(catalog.running_mice) == 2
        assert len(catalog.running_mice(species="rat")) == 0


def _columns(kind: Kind) -> str:
    rows = [
        f"| `{field.name}` | {_type(field.type)} | {field.metadata[b'description'].decode()} |"
        for field in SCHEMAS[kind]
    ]
    head = ["| column | type | content |", "|---|---|---|"]
    return "\n".join([f"<!-- {kind}: begin -->", *head, *rows, f"<!-- {kind}: end -->"])


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    return "timestamp (UTC)" if pa.types.is_timestamp(kind) else str(kind).replace("double", "float64")


def _write() -> None:
    text = PAGE.read_text()
    for kind in SCHEMAS:
        pattern = rf"<!-- {kind}: begin -->.*?<!-- {kind}: end -->"
        text = re.sub(pattern, lambda _, kind=kind: _columns(kind), text, flags=re.DOTALL)  # type: ignore[misc]
    PAGE.write_text(text)


if __name__ == "__main__":
    _write()
