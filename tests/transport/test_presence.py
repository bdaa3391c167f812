"""Absent chunks are fill values of a session that is there, and an error of one that is not."""

from __future__ import annotations

import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr

from intake_nwbzarr import open_nwb
from intake_nwbzarr.errors import LocationNotFoundError, ObjectChangedError, ResponseError, TransportError
from intake_nwbzarr.transport import base as presence
from intake_nwbzarr.transport.base import Transport
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

SERIES = "acquisition/ElectricalSeriesAP"
QUICK = {"attempts": 2, "backoff": 0.01}

type Corpus = Callable[[str, str], Path]


@pytest.fixture(params=["0.11.0", "0.14.0"])
def session(request: pytest.FixtureRequest, http_server: StaticServer, corpus_dir: Corpus) -> Path:
    """A session on a server, in Zarr 2 and Zarr 3."""
    return Path(shutil.copytree(corpus_dir("ecephys", request.param), http_server.root / "a.nwb.zarr"))


def chunks(session: Path, path: str = f"{SERIES}/data") -> list[Path]:
    """The files of an array's chunks."""
    folder = session / path
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and file.name not in {"zarr.json", ".zarray", ".zattrs"}
    ]


def opened(url: str, group: str = SERIES, **options: Any) -> xr.Dataset:
    return xr.open_dataset(url, engine="nwbzarr", group=group, storage_options={"timeouts": QUICK} | options)


def _by_xarray(url: str, folder: Path) -> Callable[[], Any]:
    dataset = opened(url)
    return lambda: dataset["data"].values


def _by_pynwb(url: str, folder: Path) -> Callable[[], Any]:
    nwbfile = open_nwb(url)
    return lambda: nwbfile.acquisition["ElectricalSeriesAP"].data[:]


def _by_a_worker(url: str, folder: Path) -> Callable[[], Any]:
    sent = pickle.dumps(opened(url))
    return lambda: pickle.loads(sent)["data"].values


def _by_a_cache(url: str, folder: Path) -> Callable[[], Any]:
    dataset = opened(url, chunk_cache={"folder": str(folder / "cache"), "size": 10**7})
    return lambda: dataset["data"].values


def _by_fsspec(url: str, folder: Path) -> Callable[[], Any]:
    options = {"simplecache": {"cache_storage": str(folder / "copies")}}
    dataset = opened(f"simplecache::{url}", **options)
    return lambda: dataset["data"].values


WAYS = [_by_xarray, _by_pynwb, _by_a_worker, _by_a_cache, _by_fsspec]


@pytest.mark.parametrize("way", WAYS)
def test_a_session_that_is_removed_while_it_is_open_is_an_error(
    way: Callable[[str, Path], Callable[[], Any]], session: Path, http_server: StaticServer, tmp_path: Path
) -> None:
    read = way(f"{http_server.url}/a.nwb.zarr", tmp_path)
    shutil.rmtree(session)
    with pytest.raises(TransportError, match="no longer exists"):
        read()


@pytest.mark.parametrize("way", WAYS)
def test_an_absent_chunk_of_a_session_that_is_there_is_fill(
    way: Callable[[str, Path], Callable[[], Any]], session: Path, http_server: StaticServer, tmp_path: Path
) -> None:
    for chunk in chunks(session):
        chunk.unlink()
    assert not np.any(way(f"{http_server.url}/a.nwb.zarr", tmp_path)())


def test_many_absent_chunks_of_two_arrays_cost_one_conditional_request(
    session: Path, http_server: StaticServer
) -> None:
    url = f"{http_server.url}/a.nwb.zarr"
    datasets = [opened(url), opened(url, "acquisition/sync")]
    for path in (SERIES, "acquisition/sync"):
        for chunk in chunks(session, f"{path}/data"):
            chunk.unlink()
    http_server.reset()
    assert not any(np.any(dataset["data"].values) for dataset in datasets)
    asked = [
        seen for seen in http_server.requests if seen.path.endswith(("/zarr.json", ".zmetadata", ".zgroup"))
    ]
    assert [seen.status for seen in asked] == [304]
    assert http_server.count("/data/") > 1


def test_an_absent_chunk_of_a_session_that_was_replaced_is_an_error(
    session: Path, http_server: StaticServer
) -> None:
    dataset = opened(f"{http_server.url}/a.nwb.zarr")
    for chunk in chunks(session):
        chunk.unlink()
    for document in (session / "zarr.json", session / ".zmetadata"):
        if document.exists():
            document.write_bytes(document.read_bytes() + b"\n")
    with pytest.raises(ObjectChangedError, match="Open it again"):
        dataset["data"].load()


def test_whether_it_is_there_is_asked_again_after_a_while(
    session: Path, http_server: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transport, "presence_lasts", 0.0)
    for chunk in chunks(session):
        chunk.unlink()
    first, second = (opened(f"{http_server.url}/a.nwb.zarr") for _ in range(2))
    assert not np.any(first["data"].values)
    shutil.rmtree(session)
    with pytest.raises(TransportError, match="no longer exists"):
        second["data"].load()


@pytest.mark.slow
def test_a_session_without_consolidated_metadata_is_looked_for_as_well(
    corpus_dir: Corpus, s3_server: S3Server, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(corpus_dir("ecephys", "0.11.0"), tmp_path / "a.nwb.zarr"))
    (folder / ".zmetadata").unlink()
    for chunk in chunks(folder):
        chunk.unlink()
    url = s3_server.upload(s3_server.private_bucket, "unconsolidated", folder)
    with pytest.warns(UserWarning, match="consolidate"):
        first, second = (opened(url, **s3_server.signed_options) for _ in range(2))
    assert not np.any(first["data"].values)
    presence.looks.clear()
    s3_server.fault("status", ".zgroup", times=math.inf, status=404, code="NoSuchKey")
    with pytest.raises(TransportError, match="no longer exists"):
        second["data"].load()


def test_a_local_session_that_is_removed_or_replaced_is_an_error(corpus_dir: Corpus, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "a.nwb.zarr"))
    dataset = opened(str(folder))
    for chunk in chunks(folder):
        chunk.unlink()
    document = folder / "zarr.json"
    document.write_bytes(document.read_bytes() + b"\n")
    with pytest.raises(ObjectChangedError, match="Open it again"):
        dataset["data"].load()
    document.unlink()
    # Another chunk's check of the first reading may still be under way, and would be shared.
    presence.looks.clear()
    with pytest.raises(TransportError, match="no longer exists"):
        dataset["data"].load()


def test_a_session_of_a_filesystem_of_fsspec_that_is_removed_is_an_error(corpus_dir: Corpus) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(corpus_dir("ecephys", "0.14.0")), "/gone.nwb.zarr", recursive=True)
    dataset = opened("memory://gone.nwb.zarr")
    memory.rm("/gone.nwb.zarr", recursive=True)
    with pytest.raises(TransportError, match="no longer exists"):
        dataset["data"].load()


def test_a_chunk_that_was_removed_for_good_is_an_error_and_a_location_is_not_found(
    session: Path, http_server: StaticServer
) -> None:
    dataset = opened(f"{http_server.url}/a.nwb.zarr")
    http_server.fault("status", times=math.inf, status=410)
    with pytest.raises(TransportError, match="410"):
        dataset["data"].load()
    with pytest.raises(LocationNotFoundError):
        opened(f"{http_server.url}/a.nwb.zarr")


def test_a_redirect_to_nothing_is_an_error_unless_the_session_is_found_by_redirects(
    session: Path, http_server: StaticServer, corpus_dir: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for chunk in chunks(session):
        chunk.unlink()
    dataset = opened(f"{http_server.url}/a.nwb.zarr")
    http_server.fault("redirect", "ElectricalSeriesAP/data", times=math.inf, status=302, to="/nowhere")
    with pytest.raises(TransportError, match="redirects"):
        dataset["data"].load()
    with StaticServer(tmp_path_factory.mktemp("front")) as front:
        # Every object is somewhere else, as storage behind a portal is.
        front.forward_to = http_server.url
        http_server.reset()
        assert not np.any(opened(f"{front.url}/a.nwb.zarr")["data"].values)


def test_a_server_without_etags_says_only_whether_a_session_is_there(
    session: Path, http_server: StaticServer
) -> None:
    http_server.etags = False
    for chunk in chunks(session):
        chunk.unlink()
    first, second = (opened(f"{http_server.url}/a.nwb.zarr") for _ in range(2))
    assert not np.any(first["data"].values)
    presence.looks.clear()
    shutil.rmtree(session)
    with pytest.raises(TransportError, match="no longer exists"):
        second["data"].load()


def test_a_web_page_instead_of_a_chunk_is_an_error_that_says_so(
    session: Path, http_server: StaticServer
) -> None:
    dataset = opened(f"{http_server.url}/a.nwb.zarr")
    for chunk in chunks(session):
        chunk.write_bytes(b"<!DOCTYPE html><title>Not found</title>")
    http_server.content_type = "text/html; charset=utf-8"
    with pytest.raises(ResponseError, match="a web page"):
        dataset["data"].load()
