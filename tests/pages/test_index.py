"""Indexes of many sessions: of a lab's tables, and of several locations on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import intake
import pytest

from intake_nwbzarr.pages.index import INDEX, file_name, finished_index
from tests.conftest import CORPUS
from tests.pages.test_page import check
from tests.sessions.lab import write_small
from tests.test_cli import Command, nwbzarr

__all__ = ["nwbzarr"]

SESSIONS = [CORPUS / f"{kind}_hdmf-zarr-0.14.0.nwb.zarr.zip" for kind in ("ecephys", "icephys")]


def test_a_lab_has_an_index_with_the_page_of_each_session_and_those_that_failed(tmp_path: Path) -> None:
    for path in SESSIONS:
        (tmp_path / "data" / path.name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    from intake_nwbzarr import scan

    scan(str(tmp_path / "data"), output=str(tmp_path / "tables.parquet"), progress=None)
    lab = intake.open_nwbzarr_sessions(str(tmp_path / "tables.parquet"))
    (tmp_path / "data" / SESSIONS[1].name).write_bytes(b"not a session any more")
    index = lab.page(tmp_path / "pages", progress=False)
    html = Path(index.output).read_text()
    found = check(html.replace('href="', 'data-was="'))
    (page,) = index.pages
    assert f'href="{page.file}"' in html
    assert page.thumbnail.startswith("data:image/png;base64,")
    assert page.thumbnail in html
    check((tmp_path / "pages" / page.file).read_text())
    (failure,) = index.failures
    assert SESSIONS[1].name in failure
    text = "".join(found.texts)
    assert "ecephys corpus session" in text
    assert "1 failed" in text
    assert index.failures[failure] in text
    assert "1 failed" in str(index)


def test_the_command_writes_a_page_and_says_what_it_took(nwbzarr: Command, tmp_path: Path) -> None:
    result = nwbzarr("page", SESSIONS[0], "-o", tmp_path / "session.html")
    assert result.status == 0
    assert "7 pictures" in result.out
    assert "received" in result.out
    check((tmp_path / "session.html").read_text())


def test_without_a_name_the_page_is_named_after_the_session(
    nwbzarr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = nwbzarr("page", SESSIONS[1], "--no-pictures", "--json")
    (document,) = json.loads(result.out)
    assert document["document"] == "nwbzarr-page 1.0"
    assert document["pictures"] == []
    assert document["output"] == str(tmp_path / "icephys_hdmf-zarr-0.14.0.html")
    assert document["bytes"] == (tmp_path / "icephys_hdmf-zarr-0.14.0.html").stat().st_size


def test_several_sessions_have_a_page_each_and_an_index_although_one_fails(
    nwbzarr: Command, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.nwb.zarr"
    result = nwbzarr("page", SESSIONS[1], missing, "-o", tmp_path / "pages", "--json")
    assert result.status == 2
    done, failed = json.loads(result.out)
    assert {picture["kind"] for picture in done["pictures"]} == {"sweeps", "timeline"}
    assert "missing.nwb.zarr" in failed["error"]
    html = (tmp_path / "pages" / INDEX).read_text()
    assert "1 failed" in html
    assert 'href="icephys_hdmf-zarr-0.14.0.html"' in html


def test_file_names_are_safe_and_each_its_own() -> None:
    taken = {INDEX}
    assert file_name("https://a.org/x/sub-1.nwb.zarr?token=secret#f", taken) == "sub-1.html"
    assert file_name("s3://b/y/SUB-1.nwb.zarr/", taken) == "SUB-1-2.html"
    assert file_name("/data/../..", taken) == "session.html"
    assert file_name("/data/index.nwb", taken) == "index-2.html"
    assert file_name('/data/<img src="x">.nwb', taken) == "img_src_x_.html"
    assert len(file_name("/" + "a" * 500, taken)) < 100


def test_an_index_of_failures_alone_says_so(tmp_path: Path) -> None:
    index = finished_index(tmp_path, [], {"s3://bucket/<b>.nwb": "access was denied"})
    html = Path(index.output).read_text()
    assert "No session has a page." in html
    assert "&lt;b&gt;" in html
    check(html)


def test_nothing_but_an_earlier_page_is_replaced(nwbzarr: Command, tmp_path: Path) -> None:
    session, other = write_small(tmp_path / "lab"), write_small(tmp_path / "lab", "b.nwb.zarr")
    precious, page = tmp_path / "precious.nwb", tmp_path / "a.html"
    precious.write_bytes(b"recorded once")
    for target in (precious, other):
        done = nwbzarr("page", session, "-o", target, "--no-pictures")
        assert (done.status, done.out) == (2, "")
        assert "already exists and is not a page" in done.err
    inside = nwbzarr("page", session, other, "-o", other, "--no-pictures")
    assert inside.status == 2
    assert "is a Zarr store" in inside.err
    assert precious.read_bytes() == b"recorded once"
    assert sorted(other.glob("*.html")) == []
    for _ in range(2):
        assert nwbzarr("page", session, "-o", page, "--no-pictures").status == 0
