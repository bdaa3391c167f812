"""The page on streaming from S3: its blocks, run in order against servers of the tests."""

from __future__ import annotations

import getpass
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from intake_nwbzarr.cli.main import main
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

PAGE = Path(__file__).parents[1] / "docs" / "streaming.md"
ASSET = "zarr/c8c6b848-fbc6-4f58-85ff-e3f2618ee983"


@pytest.fixture
def buckets(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, corpus_dir: Callable[[str, str], Path]
) -> S3Server:
    """The page's sessions in the buckets of a server that this process takes for Amazon's."""
    s3_server.upload(s3_server.dandi_bucket, ASSET, corpus_dir("ecephys", "0.8.0"))
    for bucket in (s3_server.public_bucket, s3_server.private_bucket):
        s3_server.upload(bucket, "sub-1.nwb.zarr", corpus_dir("ecephys", "0.14.0"))
    s3_server.upload(s3_server.private_bucket, "old.nwb.zarr", corpus_dir("ophys", "0.2.0"))
    s3_server.as_amazon(monkeypatch)
    return s3_server


@pytest.mark.slow
def test_every_block_of_the_page_runs(
    buckets: S3Server,
    http_server: StaticServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    typed = iter((buckets.key, buckets.secret))
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(typed))
    page = _with_what_is_here(PAGE.read_text(), buckets)
    names: dict[str, Any] = {}
    kinds = []
    for kind, text in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL):
        kinds.append(kind)
        if "instance_role" in text:
            _give_this_machine_a_role(buckets, http_server, monkeypatch)
        _RUN[kind](text, names, monkeypatch, tmp_path)
        monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", raising=False)
    assert {kind: kinds.count(kind) for kind in kinds} == {"python": 15, "console": 7, "ini": 1}
    assert isinstance(names["session"], xr.Dataset)
    assert names["report"].added == ()
    assert names["counts"].dims == ("unit", "trial", "lag")
    assert names["log"].requests > 0
    assert (tmp_path / "sub-1.nwb.zarr" / "zarr.json").exists()
    printed = capsys.readouterr().out
    assert "spike_times" in printed
    assert "would be written" in printed
    assert ", 0 different, 0 not shown." in printed


def test_the_page_is_found_from_the_readme() -> None:
    assert "(docs/streaming.md)" in (PAGE.parents[1] / "README.md").read_text()


def _with_what_is_here(page: str, server: S3Server) -> str:
    for shown, here in (
        ("lab-open", server.public_bucket),
        ("lab-private", server.private_bucket),
        ("AKIAEXAMPLE", server.key),
        ("EXAMPLESECRET", server.secret),
        ("https://minio.example.org:9000", server.endpoint_url),
    ):
        assert shown in page
        page = page.replace(shown, here)
    return page


def _give_this_machine_a_role(
    server: S3Server, metadata: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"AccessKeyId": server.key, "SecretAccessKey": server.secret, "Token": ""}
    (metadata.root / "role").write_text(json.dumps({**keys, "Expiration": "2099-01-01T00:00:00Z"}))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/role")


def _python(text: str, names: dict[str, Any], *_: Any) -> None:
    exec(compile(text, PAGE.name, "exec"), names)


def _console(text: str, _: dict[str, Any], monkeypatch: pytest.MonkeyPatch, __: Path) -> None:
    for line in text.splitlines():
        command, *arguments = line.removeprefix("$ ").split()
        match command:
            case "export":
                monkeypatch.setenv(*arguments[0].split("=", 1))
            case "unset":
                monkeypatch.delenv(arguments[0])
            case "nwbzarr":
                monkeypatch.setattr(sys, "argv", [command, *arguments])
                with pytest.raises(SystemExit) as ended:
                    main()
                assert not ended.value.code, line
            case _:
                raise AssertionError(line)


def _ini(text: str, _: dict[str, Any], __: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "credentials").write_text(text)


_RUN: dict[str, Callable[..., None]] = {"python": _python, "console": _console, "ini": _ini}
