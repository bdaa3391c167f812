"""What the documentation's pages name, served on this machine: buckets, an archive, files."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

from intake_nwbzarr import set_limits
from tests.conftest import CORPUS, written_once
from tests.documentation.blocks import ROOT, Block, Reader, run_command
from tests.documentation.session import documented_session, write_both
from tests.servers.dandi_server import Asset, DandiServer, Dandiset
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import write

ZARR_ID = "ef6b21c6-4617-453f-b1e2-d046df7b8c9a"
BLOB = "blobs/11e/c89/11ec8933-1456-4942-922b-94e5878bb991"


@pytest.fixture(scope="session")
def written(shared_folder: Path) -> Path:
    """A folder with the session that the pages open in both formats, and another session of a mouse."""

    def write_all(folder: Path) -> Path:
        write_both(folder)
        write(folder, documented_session("sub-2", "House mouse", "m/s"), "sub-2.nwb.zarr")
        return folder

    return written_once(shared_folder / "documented", write_all)


@pytest.fixture(scope="package")
def running_s3_server() -> Iterator[S3Server]:
    """A server of the pages' own, as they store other sessions under published names than other tests do."""
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def uploaded(running_s3_server: S3Server, written: Path) -> S3Server:
    """An S3 server with the sessions in the buckets that the pages name."""
    server = running_s3_server
    for bucket in ("lab-open", "lab-private", "bucket"):
        for name in ("sub-1.nwb.zarr", "sub-2.nwb.zarr", "sub-1.nwb"):
            server.upload(bucket, name, written / name)
    server.upload("lab", "sessions/sub-1.nwb.zarr", written / "sub-1.nwb.zarr")
    server.upload("partner", "data/sub-2.nwb.zarr", written / "sub-2.nwb.zarr")
    server.upload("dandiarchive", f"zarr/{ZARR_ID}", _published(written))
    server.upload("dandiarchive", BLOB, written / "sub-1.nwb")
    return server


def _published(written: Path) -> Path:
    """The session with the name that the published one has for its recording."""
    published = written / "published.nwb.zarr"
    if not published.exists():
        shutil.copytree(written / "sub-1.nwb.zarr", published)
        recording = published / "acquisition" / "ElectricalSeriesAP"
        recording.rename(recording.with_name("ElectricalSeries"))
        document = published / "zarr.json"
        document.write_text(document.read_text().replace("/ElectricalSeriesAP", "/ElectricalSeries"))
    return published


@pytest.fixture
def internet(
    uploaded: S3Server,
    s3_server: S3Server,
    corpus_dir: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[S3Server]:
    """The servers, taken for Amazon's and DANDI's; the profiles of a user; an empty folder."""
    for bucket in ("lab-private", "bucket"):
        # Unconsolidated, which a page changes.
        s3_server.upload(bucket, "old.nwb.zarr", corpus_dir("ophys", "0.2.0"))
    s3_server.as_amazon(monkeypatch)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(s3_server.certificate))
    keys = f"aws_access_key_id = {s3_server.key}\naws_secret_access_key = {s3_server.secret}\n"
    (tmp_path / "profiles").write_text(
        "\n".join(f"[{name}]\n{keys}" for name in ("lab", "partner", "default"))
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "profiles"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("LAB_BUCKET", "lab-private")
    monkeypatch.setenv("LAB_KEY", s3_server.key)
    monkeypatch.setenv("LAB_SECRET", s3_server.secret)
    typed = iter((s3_server.key, s3_server.secret))
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(typed))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with DandiServer() as dandi:
        asset = Asset("sub-1/sub-1_ses-1.nwb.zarr", f"https://dandiarchive.s3.amazonaws.com/zarr/{ZARR_ID}/")
        dandi.dandisets["000719"] = Dandiset("Sessions", {"draft": [asset], "0.240409.1542": [asset]})
        dandi.dandisets["001084"] = Dandiset("Others", {"draft": [asset]})
        s3_server.others["api.dandiarchive.org"] = dandi
        yield s3_server


@pytest.fixture
def reader(
    internet: S3Server,
    http_server: StaticServer,
    written: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Callable[..., Reader]]:
    """A function that returns a reader, in a folder with the named files of the repository or sessions."""
    before, limits = dict(os.environ), set_limits()
    older = tmp_path / "older"
    shutil.copytree(written / "sub-1.nwb.zarr", older / "sub-3.nwb.zarr")
    # It keeps the proxies of its first use.
    monkeypatch.setattr(urllib.request, "_opener", None)
    typed = {
        "AKIAEXAMPLE": internet.key,
        "EXAMPLESECRET": internet.secret,
        "https://minio.example.org:9000": internet.endpoint_url,
        "/data/older": str(older),
    }
    role = {"AccessKeyId": internet.key, "SecretAccessKey": internet.secret, "Token": ""}
    (http_server.root / "role").write_text(json.dumps({**role, "Expiration": "2099-01-01T00:00:00Z"}))

    def prepare(block: Block) -> None:
        os.environ.pop("AWS_CONTAINER_CREDENTIALS_FULL_URI", None)
        if "instance_role" in block.text:
            os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{http_server.url}/role"

    def start(*files: str, **names: Any) -> Reader:
        for name in files:
            source = next(folder / name for folder in (written, CORPUS, ROOT) if (folder / name).exists())
            if source.is_relative_to(ROOT) and source.is_dir():
                Path(name).symlink_to(source)
            else:
                (shutil.copytree if source.is_dir() else shutil.copy)(source, Path(name))
        return Reader(names, run_command, typed, prepare)

    with dask.config.set({}):
        yield start
    os.environ.clear()
    os.environ.update(before)
    set_limits(
        requests=limits.requests,
        bytes_in_flight=limits.bytes_in_flight,
        decoding_threads=limits.decoding_threads,
        block_bytes=limits.block_bytes,
        bytes_at_open=limits.bytes_at_open,
    )
