"""When the wire fails while a snapshot is verified; whose credentials are used; links into other files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import TimeSeries

from intake_nwbzarr import snapshot, track_requests
from intake_nwbzarr.copies.recording import record_session
from intake_nwbzarr.copies.snapshot import KeptFile, KeptObject, open_snapshots, write_snapshots
from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    StaleSnapshotError,
    TransportError,
)
from intake_nwbzarr.location.location import locate
from tests.copies.conftest import ConditionalServer
from tests.hierarchy.stores import NWB_ROOT, array, group, write_store
from tests.servers.s3_server import S3Server
from tests.session_files import empty_session, opened, write

pytestmark = pytest.mark.slow

Corpus = Callable[[str, str], Path]
QUICK_TO_GIVE_UP = {"timeouts": {"stall": 0.5, "total": 5, "attempts": 3, "backoff": 0.01}}
PASSING = [("status", {"status": 503}), ("status", {"status": 429}), ("reset", {})]
PASSING_IN_A_BODY = [("truncate", {}), ("stall", {})]


@pytest.fixture(scope="module")
def url(corpus_dir: Corpus, running_s3_server: S3Server) -> str:
    folder = corpus_dir("icephys", "0.14.0")
    return running_s3_server.upload(running_s3_server.private_bucket, "snapshots/faults.nwb.zarr", folder)


@pytest.fixture(scope="module")
def made(url: str, running_s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "faults.snapshot.zip"
    return snapshot(url, running_s3_server.signed_options, path=path).path


@pytest.fixture(scope="module")
def without_etags(url: str, made: Path) -> Path:
    """The same as of a store without ETags: the document is read, an answer that has a body."""
    session = open_snapshots(made).session(url)
    objects = session.files[0].objects
    objects["zarr.json"] = KeptObject(objects["zarr.json"].data)
    return write_snapshots(made.with_name("without.snapshot.zip"), [session]).path


@pytest.mark.parametrize(("kind", "details"), PASSING + PASSING_IN_A_BODY)
def test_what_passes_is_tried_again(
    kind: Any, details: dict[str, Any], url: str, made: Path, without_etags: Path, s3_server: S3Server
) -> None:
    options = s3_server.signed_options | QUICK_TO_GIVE_UP
    s3_server.fault(kind, "zarr.json", **details)
    with track_requests() as log:
        used = without_etags if kind in {"truncate", "stall"} else made
        dataset = opened(url, storage_options=options, snapshot=used)
    assert dataset.attrs["identifier"] == "corpus-icephys"
    assert (log.requests, log.retries) == (2, 1)


@pytest.mark.parametrize(("kind", "details"), PASSING)
def test_what_does_not_pass_is_one_error_that_counts_the_attempts(
    kind: Any, details: dict[str, Any], url: str, made: Path, s3_server: S3Server
) -> None:
    options = s3_server.signed_options | QUICK_TO_GIVE_UP
    s3_server.fault(kind, "zarr.json", times=math.inf, **details)
    with pytest.raises(TransportError, match=r"faults\.nwb\.zarr/zarr\.json.*after 3 attempts"):
        opened(url, storage_options=options, snapshot=made)


def test_a_replaced_document_is_a_stale_snapshot(
    s3_server: S3Server, corpus_dir: Corpus, tmp_path: Path
) -> None:
    place = s3_server.private_bucket, "snapshots/b.nwb.zarr"
    url = s3_server.upload(*place, corpus_dir("icephys", "0.14.0"))
    path = snapshot(url, s3_server.signed_options, path=tmp_path / "b.snapshot.zip").path
    opened(url, storage_options=s3_server.signed_options, snapshot=path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "zarr.json").write_bytes((corpus_dir("ophys", "0.14.0") / "zarr.json").read_bytes())
    s3_server.upload(*place, tmp_path / "b")
    with pytest.raises(StaleSnapshotError, match=r"b\.nwb\.zarr"):
        opened(url, storage_options=s3_server.signed_options, snapshot=path)


def test_wrong_credentials_are_an_error_and_never_an_anonymous_attempt(
    url: str, made: Path, s3_server: S3Server
) -> None:
    wrong = s3_server.signed_options | {"secret": "wrong" * 8}
    with pytest.raises(CredentialsError, match=r"faults\.nwb\.zarr"):
        opened(url, storage_options=wrong, snapshot=made)
    assert [seen.status for seen in s3_server.requests] == [403]
    assert "Authorization" in s3_server.requests[0].headers
    with pytest.raises(AccessError):
        opened(url, storage_options=s3_server.anonymous_options, snapshot=made)


def test_another_region_is_followed_and_an_expired_token_is_an_error(
    url: str, made: Path, s3_server: S3Server
) -> None:
    s3_server.regions[s3_server.private_bucket] = "eu-west-3"
    s3_server.fault("expired", "zarr.json", after=2)
    options = s3_server.signed_options | QUICK_TO_GIVE_UP
    assert opened(url, storage_options=options, snapshot=made).attrs["identifier"] == "corpus-icephys"
    with pytest.raises(CredentialsError, match="expired"):
        opened(url, storage_options=s3_server.signed_options | QUICK_TO_GIVE_UP, snapshot=made)


def test_unverified_it_opens_without_anybody_to_ask_and_without_credentials(url: str, made: Path) -> None:
    nobody = {"endpoint_url": "http://127.0.0.1:9", "profile": "not-here"} | QUICK_TO_GIVE_UP
    dataset = opened(url, storage_options=nobody, snapshot=made, verify=False)
    assert dataset.attrs["identifier"] == "corpus-icephys"
    # Who reads data has to be somebody.
    with pytest.raises(CredentialsError, match="not-here"):
        dataset["response0"].load()


def test_a_bucket_that_may_not_be_listed(corpus_dir: Corpus, s3_server: S3Server, tmp_path: Path) -> None:
    """It answers 403 for the one of both documents that is not there."""
    options = s3_server.anonymous_options
    bucket = s3_server.unlisted_bucket
    url = s3_server.upload(bucket, "snapshots/a.nwb.zarr", corpus_dir("icephys", "0.8.0"))
    path = snapshot(url, options, path=tmp_path / "a.snapshot.zip").path
    s3_server.reset()
    for verify in ("metadata", "all"):
        xr.testing.assert_equal(
            opened(url, storage_options=options, snapshot=path, verify=verify).load(),
            opened(corpus_dir("icephys", "0.8.0")).load(),
        )
    assert s3_server.count(".zmetadata") == 2


def test_no_secret_is_in_a_snapshot(
    server: ConditionalServer, session: str, saved: Path, corpus_dir: Corpus
) -> None:
    server.query = "signature=CANARYQUERY"
    snapshot(f"{session}?signature=CANARYQUERY", {"headers": {"X-Token": "CANARYHEADER"}}, path=saved)
    held = repr(snapshot(f"{session}?signature=CANARYQUERY", path=saved).session(session))
    assert "corpus" in held
    assert "CANARY" not in held
    assert b"CANARY" not in saved.read_bytes()


def _linked(folder: Path) -> Path:
    """A session whose series has its timestamps in another file beside it."""
    other = empty_session()
    other.add_acquisition(TimeSeries(name="raw", data=[1.0, 2.0, 3.0], unit="V", timestamps=[0.0, 0.1, 0.3]))
    write(folder, other, "raw.nwb.zarr")
    links = [{"name": "elsewhere", "path": "/acquisition/raw", "source": "../raw.nwb.zarr"}]
    return write_store(folder / "a.nwb.zarr", {"": group(**NWB_ROOT), "acquisition": group(_LINKS=links)})


def test_linked_files_are_kept_and_verified_as_well(server: ConditionalServer, saved: Path) -> None:
    _linked(server.root)
    url = f"{server.url}/a.nwb.zarr"
    assert [file.url for file in snapshot(url, path=saved).session(url).files] == [
        url,
        f"{server.url}/raw.nwb.zarr",
    ]
    server.reset()
    unverified = opened(url, snapshot=saved, verify=False)
    assert server.count() == 0
    verified = opened(url, snapshot=saved)
    assert [seen.status for seen in server.requests] == [304, 304]
    xr.testing.assert_identical(verified.load(), opened(url).load())
    xr.testing.assert_equal(unverified.load(), verified)
    document = server.root / "raw.nwb.zarr" / "zarr.json"
    document.write_text(document.read_text().replace('"unit": "V"', '"unit": "A"') + " ")
    with pytest.raises(StaleSnapshotError) as raised:
        opened(url, snapshot=saved)
    assert (raised.value.location, raised.value.path) == (f"{server.url}/raw.nwb.zarr", "zarr.json")


def test_a_linked_file_that_is_not_there_is_asked_for_each_time(
    server: ConditionalServer, saved: Path
) -> None:
    links = [{"name": "elsewhere", "path": "/acquisition/raw", "source": "../raw.nwb.zarr"}]
    write_store(server.root / "a.nwb.zarr", {"acquisition": group(_LINKS=links)})
    url = f"{server.url}/a.nwb.zarr"
    assert len(snapshot(url, path=saved).session(url).files) == 1
    assert opened(url, snapshot=saved).attrs["nwb_unmapped"] == ["acquisition/elsewhere"]
    _linked(server.root.joinpath("more"))
    (server.root / "more" / "raw.nwb.zarr").rename(server.root / "raw.nwb.zarr")
    assert "raw" in opened(url, snapshot=saved).variables


def test_a_snapshot_leads_to_no_other_file_than_the_session_does(
    server: ConditionalServer, saved: Path
) -> None:
    """Of the URLs in it none is asked: files are those that the session's own links lead to."""
    write_store(server.root / "a.nwb.zarr", {"acquisition": group(), "acquisition/data": array()})
    url = f"{server.url}/a.nwb.zarr"
    kept = record_session(locate(url))
    kept.files.append(KeptFile("http://169.254.169.254/latest", objects=kept.files[0].objects))
    kept.files.append(KeptFile(f"{server.url}/secret", objects=kept.files[0].objects))
    write_snapshots(saved, [kept])
    server.reset()
    opened(url, snapshot=saved)
    assert [seen.path for seen in server.requests] == ["/a.nwb.zarr/zarr.json"]


def test_several_writers_of_one_session_agree(corpus_dir: Corpus, saved: Path) -> None:
    """What is kept does not depend on the order in which it arrives."""
    folder = corpus_dir("ophys", "0.14.0")
    url = str(locate(folder))
    first, second = (snapshot(folder, path=saved).session(url) for _ in range(2))
    assert first.files == second.files


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sharded_arrays_are_kept_whole(tmp_path: Path, saved: Path) -> None:
    import numpy as np
    import zarr

    from tests.session_files import consolidate

    nwbfile = empty_session()
    for number in range(8):
        nwbfile.add_trial(start_time=float(number), stop_time=number + 0.5)
    path = write(tmp_path, nwbfile)
    store = zarr.open_group(str(path), mode="r+")
    attributes = dict(store["intervals/trials/id"].attrs)
    ids = store.create_array(
        "intervals/trials/id", data=np.arange(8) * 10, chunks=(2,), shards=(4,), overwrite=True
    )
    ids.attrs.update(attributes)
    consolidate(path)
    snapshot(path, path=saved)
    with track_requests() as log:
        dataset = opened(path, snapshot=saved, verify=False, group="intervals/trials")
    assert log.requests == 0
    assert dataset.trial.values.tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    with NWBZarrIO(str(path), mode="r") as io:
        assert list(io.read().trials.id[:]) == dataset.trial.values.tolist()
