"""Files as lazy arrays read them: the transport is looked up once, and stays in its process."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.errors import CredentialsError
from intake_nwbzarr.hierarchy.hierarchy import load_hierarchy
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.open import StoredFile, open_transport
from tests.hierarchy.stores import NWB_ROOT, group, write_store
from tests.servers.s3_server import S3Server

type Corpus = Callable[[str, str], Path]


@pytest.fixture
def url(s3_server: S3Server, corpus_dir: Corpus) -> str:
    return s3_server.upload(s3_server.private_bucket, "files/a.nwb.zarr", corpus_dir("icephys", "0.14.0"))


def test_the_transport_of_a_file_is_looked_up_once_and_stays_in_its_process(
    url: str, s3_server: S3Server
) -> None:
    file = StoredFile(locate(url, s3_server.signed_options), '"state"')
    assert file.transport is file.transport
    again = pickle.loads(pickle.dumps(file))
    assert again == file
    assert again.transport == file.transport
    assert s3_server.secret.encode() not in pickle.dumps(file)
    for transport in (file.transport, open_transport(file.location)):
        with pytest.raises(TypeError, match="contains secrets"):
            pickle.dumps(transport)


def test_after_a_refusal_a_dataset_reads_with_the_credentials_that_were_set_since(
    url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    options = {"endpoint_url": s3_server.endpoint_url}
    dataset = xr.open_dataset(url, engine="nwbzarr", storage_options=options)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of somebody else")
    with pytest.raises(CredentialsError):
        pickle.loads(pickle.dumps(dataset))["response0"].load()
    other = pickle.loads(pickle.dumps(dataset))["response0"]
    with pytest.raises(CredentialsError):
        other.load()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    xr.testing.assert_identical(other.load(), dataset["response0"].load())


def test_files_that_a_hierarchy_links_to_are_opened_as_it_was(tmp_path: Path) -> None:
    write_store(tmp_path / "b.nwb.zarr", {"": group(**NWB_ROOT), "acquisition": group()})
    links = [{"name": "elsewhere", "path": "/acquisition", "source": "../b.nwb.zarr"}]
    write_store(tmp_path / "a.nwb.zarr", {"": group(**NWB_ROOT), "acquisition": group(_LINKS=links)})
    opened: list[str] = []

    def opener(location: Location) -> Transport:
        opened.append(location.url.rpartition("/")[2])
        return open_transport(location)

    hierarchy = load_hierarchy(locate(tmp_path / "a.nwb.zarr"), opener)
    assert hierarchy.resolve("acquisition/elsewhere").path == "acquisition"
    assert opened == ["a.nwb.zarr", "b.nwb.zarr"]


def test_a_pickled_hierarchy_opens_its_location_elsewhere(url: str, s3_server: S3Server) -> None:
    hierarchy = open_hierarchy(url, s3_server.signed_options)
    pickled = pickle.dumps(hierarchy)
    assert s3_server.secret.encode() not in pickled
    again = pickle.loads(pickled)
    assert list(again) == list(hierarchy)
    assert again.transport == hierarchy.transport
    assert again.etag == hierarchy.etag
