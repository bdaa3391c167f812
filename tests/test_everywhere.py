"""The same session from everywhere: folder, zip, http, s3 with and without credentials; and its refusals."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from intake_nwbzarr import open_hierarchy, open_nwb, track_requests
from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    HostNotFoundError,
    ListingError,
    LocationNotFoundError,
    NotNWBError,
    NotZarrError,
    NWBZarrError,
    UnconsolidatedWarning,
)
from tests.conftest import CORPUS, SESSIONS
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

Corpus = Callable[[str, str], Path]

ABOUT_THE_LOCATION = ("nwb_location", "nwb_storage_options")
# Their files are not consolidated, and a plain web server cannot be listed.
NEED_LISTING = ("0.2.0", "0.3.0")


@pytest.fixture
def quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconsolidatedWarning)
        yield


def _load(location: object, storage_options: dict[str, Any] | None = None) -> xr.Dataset:
    with xr.open_dataset(location, engine="nwbzarr", storage_options=storage_options) as dataset:
        loaded = dataset.load()
    for holder in (loaded, *loaded.variables.values()):
        for name in ABOUT_THE_LOCATION:
            holder.attrs.pop(name, None)
    return loaded


@pytest.mark.usefixtures("quietly")
@pytest.mark.parametrize(("kind", "release"), SESSIONS)
def test_a_session_is_the_same_from_everywhere(
    kind: str, release: str, corpus_dir: Corpus, s3_server: S3Server, http_server: StaticServer
) -> None:
    folder = corpus_dir(kind, release)
    expected = _load(folder)
    (http_server.root / folder.name).symlink_to(folder)
    public = s3_server.upload(s3_server.public_bucket, f"everywhere/{folder.name}", folder)
    private = s3_server.upload(s3_server.private_bucket, f"everywhere/{folder.name}", folder)
    places: list[tuple[object, dict[str, Any] | None]] = [
        (f"{folder}/", None),
        (CORPUS / f"{folder.name}.zip", None),
        (public, s3_server.anonymous_options),
        (private, s3_server.signed_options),
    ]
    if release not in NEED_LISTING:
        places.append((f"{http_server.url}/{folder.name}/", None))
    for place, options in places:
        xr.testing.assert_identical(_load(place, options), expected)
    assert open_nwb(private, s3_server.signed_options).identifier == f"corpus-{kind}"


@pytest.mark.parametrize("release", NEED_LISTING)
def test_a_web_server_that_cannot_list_says_what_would_help(
    release: str, corpus_dir: Corpus, http_server: StaticServer
) -> None:
    folder = corpus_dir("icephys", release)
    (http_server.root / folder.name).symlink_to(folder)
    with pytest.raises(ListingError, match="nwbzarr consolidate"):
        open_hierarchy(f"{http_server.url}/{folder.name}")


def _refusal(location: object, storage_options: dict[str, Any] | None = None) -> NWBZarrError:
    """The error of opening, which names the location, in a few requests, raw or not."""
    errors = []
    for opened in (
        lambda: xr.open_dataset(location, engine="nwbzarr", storage_options=storage_options),
        lambda: open_nwb(location, storage_options),
    ):
        with track_requests() as log, pytest.raises(NWBZarrError) as caught:
            opened()
        assert log.requests <= 6
        assert str(location).rpartition("/")[2] in str(caught.value)
        errors.append(caught.value)
    assert type(errors[0]) is type(errors[1])
    return errors[0]


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_nothing_there(scheme: str, http_server: StaticServer, s3_server: S3Server) -> None:
    if scheme == "http":
        error = _refusal(f"{http_server.url}/missing.nwb.zarr")
    else:
        error = _refusal(f"s3://{s3_server.public_bucket}/missing.nwb.zarr", s3_server.anonymous_options)
    assert type(error) is LocationNotFoundError


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_something_else_there(
    scheme: str, http_server: StaticServer, s3_server: S3Server, tmp_path: Path
) -> None:
    import h5py
    import zarr

    with h5py.File(tmp_path / "session.nwb", "w") as file:
        file["x"] = range(10)
    (tmp_path / "notes.txt").write_text("a text that is longer than a signature")
    zarr.create_group(tmp_path / "other.zarr").create_array("x", shape=(1,), dtype="i2")
    zarr.consolidate_metadata(tmp_path / "other.zarr")
    if scheme == "http":
        base: str = f"{http_server.url}/things"
        options: dict[str, Any] | None = None
        (http_server.root / "things").symlink_to(tmp_path)
    else:
        base = s3_server.upload(s3_server.public_bucket, "things", tmp_path)
        options = s3_server.anonymous_options
    for name, expected in (
        ("session.nwb", NotNWBError),
        ("notes.txt", NotZarrError),
        ("other.zarr", NotNWBError),
    ):
        assert type(_refusal(f"{base}/{name}", options)) is expected


def test_a_private_bucket_refuses_strangers_and_is_not_asked_twice(
    corpus_dir: Corpus, s3_server: S3Server
) -> None:
    folder = corpus_dir("icephys", "0.8.0")
    url = s3_server.upload(s3_server.private_bucket, "refused/a.nwb.zarr", folder)
    error = _refusal(url, s3_server.anonymous_options)
    assert isinstance(error, AccessError)
    wrong = s3_server.signed_options | {"secret": "CanarySecretOfNobody"}
    s3_server.reset()
    error = _refusal(url, wrong)
    assert isinstance(error, (AccessError, CredentialsError))
    assert "Canary" not in str(error)
    assert all("Authorization" in seen.headers for seen in s3_server.requests)


def test_a_host_that_does_not_exist() -> None:
    assert type(_refusal("https://no-such-host.invalid/a.nwb.zarr")) is HostNotFoundError


def test_a_bucket_that_may_not_be_listed_is_read_all_the_same(
    corpus_dir: Corpus, s3_server: S3Server
) -> None:
    """It answers 403 for the one of the two metadata documents that is not there."""
    folder = corpus_dir("icephys", "0.8.0")
    url = s3_server.upload(s3_server.unlisted_bucket, "a.nwb.zarr", folder)
    for options in (s3_server.anonymous_options, s3_server.signed_options):
        xr.testing.assert_identical(_load(url, options), _load(folder))
        assert open_nwb(url, options).identifier == "corpus-icephys"
    error = _refusal(f"s3://{s3_server.unlisted_bucket}/missing.nwb.zarr", s3_server.anonymous_options)
    assert isinstance(error, AccessError)
    assert "deny listing" in str(error.next_step)


def test_a_chunk_that_such_a_bucket_does_not_have_is_an_error_for_it_may_be_hidden(
    corpus_dir: Corpus, s3_server: S3Server
) -> None:
    """zarr-python 3 writes no chunks of nothing but zeros; 404 would say so, 403 does not."""
    folder = corpus_dir("icephys", "0.14.0")
    assert not (folder / "acquisition/response0/starting_time/c").exists()
    url = s3_server.upload(s3_server.unlisted_bucket, "zeros.nwb.zarr", folder)
    options = s3_server.anonymous_options
    assert len(open_hierarchy(url, options)) == len(open_hierarchy(folder))
    with pytest.raises(AccessError, match=r"response0/starting_time.*deny listing"):
        xr.open_dataset(url, engine="nwbzarr", storage_options=options, group="acquisition/response0")
