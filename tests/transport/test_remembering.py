"""Opening a session again in a process: one conditional request for all of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import AccessError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.memory_cache import LARGEST, keeping_in_memory, memory
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

type Corpus = Callable[[str, str], Path]


@pytest.fixture(params=["0.8.0", "0.14.0"])
def session(request: pytest.FixtureRequest, http_server: StaticServer, corpus_dir: Corpus) -> Path:
    return Path(shutil.copytree(corpus_dir("ecephys", request.param), http_server.root / "a.nwb.zarr"))


def _open(server: StaticServer, **options: Any) -> xr.Dataset:
    return xr.open_dataset(f"{server.url}/a.nwb.zarr", engine="nwbzarr", storage_options=options)


def _with_dates(server: StaticServer) -> xr.Dataset:
    url = f"{server.url}/a.nwb.zarr"
    return xr.open_dataset(url, engine="nwbzarr", decode_times=True, share_time=True)


def _tree(server: StaticServer) -> xr.DataTree:
    return xr.open_datatree(f"{server.url}/a.nwb.zarr", engine="nwbzarr")


@pytest.mark.parametrize("opened", [_open, _with_dates, _tree])
def test_opening_again_is_one_conditional_request(
    opened: Callable[[StaticServer], Any], session: Path, http_server: StaticServer
) -> None:
    first = opened(http_server)
    assert http_server.count() > 5
    http_server.reset()
    with track_requests() as log:
        second = opened(http_server)
    # Of both, what opening has read; chunks that are not stored are asked for every time.
    assert [seen.status for seen in http_server.requests if seen.status != 404] == [304]
    assert log.bytes_used == 0
    xr.testing.assert_identical(second.load(), first.load())


def test_without_revalidation_it_is_none(session: Path, http_server: StaticServer) -> None:
    first = _open(http_server, revalidate=False)
    http_server.reset()
    second = _open(http_server, revalidate=False)
    assert {seen.status for seen in http_server.requests} <= {404}
    xr.testing.assert_identical(second.load(), first.load())


def test_with_revalidation_of_everything_it_is_all_of_them(session: Path, http_server: StaticServer) -> None:
    _open(http_server, revalidate=True)
    first = http_server.count()
    http_server.reset()
    _open(http_server, revalidate=True)
    # One document is asked for instead of two.
    assert http_server.count() == first - 1


def test_in_another_state_of_the_session_everything_is_read_anew(
    session: Path, http_server: StaticServer
) -> None:
    before = _open(http_server).attrs["identifier"]
    document = next(session / name for name in (".zmetadata", "zarr.json") if (session / name).exists())
    other = next(path for path in (session / "session_description").rglob("*") if path.name in {"0", "c"})
    own = session / "identifier" / other.name
    assert own.is_file()
    own.write_bytes(other.read_bytes())
    # Without a change of the metadata it goes unnoticed.
    assert _open(http_server).attrs["identifier"] == before
    document.write_text(document.read_text() + " ")
    assert _open(http_server).attrs["identifier"] != before


def test_what_is_read_later_is_not_remembered(session: Path, http_server: StaticServer) -> None:
    _open(http_server).ElectricalSeriesAP.load()
    held = memory.total
    http_server.reset()
    with track_requests() as log:
        _open(http_server).ElectricalSeriesAP.load()
    assert log.requests > 1
    assert memory.total == held


def test_another_identity_asks_for_itself(s3_server: S3Server, corpus_dir: Corpus) -> None:
    url = s3_server.upload(
        s3_server.private_bucket, "remembering/a.nwb.zarr", corpus_dir("ecephys", "0.14.0")
    )
    options = {**s3_server.signed_options, "revalidate": False}
    xr.open_dataset(url, engine="nwbzarr", storage_options=options)
    assert memory.total > 0
    with pytest.raises(AccessError):
        xr.open_dataset(url, engine="nwbzarr", storage_options={**options, "secret": "wrong"})
    transport = keeping_in_memory()(locate(url, {**options, "secret": "wrong"}))
    with pytest.raises(AccessError):
        run(transport.at("any").get("identifier/c"))


def test_small_whole_objects_of_a_known_state_are_remembered_and_nothing_else(
    http_server: StaticServer,
) -> None:
    (http_server.root / "small").write_bytes(b"0123456789")
    (http_server.root / "large").write_bytes(bytes(LARGEST + 1))
    (http_server.root / "zarr.json").write_bytes(b"{}")
    transport = keeping_in_memory()(locate(http_server.url))
    known = transport.at('"state"')
    run(known.get("zarr.json"))
    assert known == transport.at('"state"') != transport.at('"another"')
    for expected, ask in (
        (1, lambda: known.get("small")),
        (2, lambda: known.get("large")),
        (2, lambda: known.get("zarr.json")),
        (2, lambda: known.get("absent")),
        (2, lambda: known.get("small", start=1, stop=3)),
        (2, lambda: transport.get("small")),
    ):
        http_server.reset()
        found = [run(ask()), run(ask())]
        assert [each and each.data for each in found] == [found[0] and found[0].data] * 2
        assert http_server.count() == expected


def test_local_files_are_read_every_time(corpus_dir: Corpus) -> None:
    for _ in range(2):
        with track_requests() as log:
            xr.open_dataset(corpus_dir("ecephys", "0.14.0"), engine="nwbzarr")
        assert log.requests > 5
    assert memory.total == 0
