"""Opening a session again in a process: what is asked, and what is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intake_nwbzarr import open_hierarchy, track_requests
from intake_nwbzarr.errors import AccessError, LocationNotFoundError, NWBZarrError
from intake_nwbzarr.hierarchy.documents import memory
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

type Corpus = Callable[[str, str], Path]
DOCUMENT = {"0.8.0": ".zmetadata", "0.14.0": "zarr.json"}


@pytest.fixture(params=["0.8.0", "0.14.0"])
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(http_server: StaticServer, corpus_dir: Corpus, release: str) -> Path:
    return Path(shutil.copytree(corpus_dir("icephys", release), http_server.root / "a.nwb.zarr"))


def _url(server: StaticServer) -> str:
    return f"{server.url}/a.nwb.zarr"


def test_opening_again_is_one_conditional_request_without_a_body(
    session: Path, http_server: StaticServer, release: str
) -> None:
    first = dict(open_hierarchy(_url(http_server)))
    http_server.reset()
    with track_requests() as log:
        again = open_hierarchy(_url(http_server))
    assert dict(again) == first
    assert (log.requests, log.bytes) == (1, 0)
    (seen,) = http_server.requests
    assert seen.path.endswith(DOCUMENT[release])
    assert seen.status == 304
    assert seen.headers["If-None-Match"] == again.etag


def test_without_revalidation_it_is_no_request(session: Path, http_server: StaticServer) -> None:
    options = {"revalidate": False}
    first = dict(open_hierarchy(_url(http_server), options))
    assert http_server.count() == 2
    with track_requests() as log:
        assert dict(open_hierarchy(_url(http_server), options)) == first
    assert log.requests == 0
    # What others were given without asking is asked about here.
    with track_requests() as log:
        open_hierarchy(_url(http_server))
    assert log.requests == 1


def test_a_session_that_has_changed_is_read_anew(
    session: Path, http_server: StaticServer, release: str
) -> None:
    before = open_hierarchy(_url(http_server))
    assert before["general"].attributes.get("edited") is None
    text = json.loads((session / DOCUMENT[release]).read_text())
    if release == "0.8.0":
        text["metadata"].setdefault("general/.zattrs", {})["edited"] = "yes"
    else:
        text["consolidated_metadata"]["metadata"]["general"]["attributes"]["edited"] = "yes"
    (session / DOCUMENT[release]).write_text(json.dumps(text))
    with track_requests() as log:
        after = open_hierarchy(_url(http_server))
    assert after["general"].attributes["edited"] == "yes"
    assert log.requests == 1
    assert after.etag != before.etag
    # And the new state is what is remembered.
    with track_requests() as log:
        assert open_hierarchy(_url(http_server)).etag == after.etag
    assert (log.requests, log.bytes) == (1, 0)


def test_a_session_that_is_gone_is_an_error(session: Path, http_server: StaticServer) -> None:
    open_hierarchy(_url(http_server))
    shutil.rmtree(session)
    with pytest.raises(LocationNotFoundError):
        open_hierarchy(_url(http_server))


def test_a_session_that_was_written_in_another_format_is_read_anew(
    http_server: StaticServer, corpus_dir: Corpus
) -> None:
    folder = http_server.root / "a.nwb.zarr"
    for release in ("0.8.0", "0.14.0", "0.8.0"):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(corpus_dir("icephys", release), folder)
        assert open_hierarchy(_url(http_server)).zarr_format == (2 if release == "0.8.0" else 3)


def test_another_identity_asks_for_itself(s3_server: S3Server, corpus_dir: Corpus) -> None:
    url = s3_server.upload(s3_server.private_bucket, "remembered/a.nwb.zarr", corpus_dir("icephys", "0.14.0"))
    options: dict[str, Any] = {**s3_server.signed_options, "revalidate": False}
    open_hierarchy(url, options)
    with track_requests() as log:
        open_hierarchy(url, options)
    assert log.requests == 0
    for others in (
        {"anon": True, "endpoint_url": s3_server.endpoint_url, "revalidate": False},
        {**options, "secret": "wrong"},
    ):
        with track_requests() as log, pytest.raises(AccessError):
            open_hierarchy(url, others)
        assert log.requests >= 1


def test_a_failure_is_an_error_and_not_what_is_remembered(session: Path, http_server: StaticServer) -> None:
    options = {"timeouts": {"attempts": 2, "backoff": 0.01}}
    open_hierarchy(_url(http_server), options)
    http_server.fault("status", times=2, status=503)
    with pytest.raises(NWBZarrError, match="503"):
        open_hierarchy(_url(http_server), options)
    http_server.fault("status", status=503)
    with track_requests() as log:
        open_hierarchy(_url(http_server), options)
    assert (log.requests, log.retries) == (2, 1)


def test_what_has_no_strong_etag_is_not_remembered(session: Path, http_server: StaticServer) -> None:
    http_server.fault("etag", times=9, headers={"ETag": 'W/"weak"'})
    for _ in range(2):
        with track_requests() as log:
            open_hierarchy(_url(http_server))
        assert log.requests == 2


def test_local_files_are_read_every_time(corpus_dir: Corpus) -> None:
    for _ in range(2):
        with track_requests() as log:
            open_hierarchy(corpus_dir("icephys", "0.14.0"))
        assert log.requests == 2
    assert memory.total == 0
