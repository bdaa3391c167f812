"""The same session as HDF5 from everywhere, with the lines that open its Zarr form."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr
from aiohttp import web

from intake_nwbzarr import open_hierarchy, open_nwb, track_requests
from intake_nwbzarr.errors import (
    AccessError,
    HDF5FileError,
    LocationNotFoundError,
    MetadataError,
    NotNWBError,
    NotZarrError,
    ResponseError,
    TransportError,
)
from intake_nwbzarr.hierarchy import recognize
from intake_nwbzarr.hierarchy.recognize import is_undecided
from intake_nwbzarr.location.location import locate
from tests.hdf5.conftest import Forms
from tests.servers.http_server import StaticServer
from tests.servers.loopback import Response
from tests.servers.s3_server import S3Server

BLOB = "blobs/0a1/b2c/0a1b2c3d-0000-4000-8000-000000000001"
ABOUT_THE_LOCATION = ("nwb_location", "nwb_storage_options")


def load(location: object, options: dict[str, Any] | None = None) -> xr.Dataset:
    """Return a session in memory, without the attributes that say where it is from."""
    dataset = xr.open_dataset(location, engine="nwbzarr", storage_options=options).load()
    for holder in (dataset, *dataset.variables.values()):
        for name in ABOUT_THE_LOCATION:
            holder.attrs.pop(name, None)
    return dataset


@pytest.fixture
def blob(forms: Forms, s3_server: S3Server, tmp_path: Path) -> str:
    """The S3 URL of the file where the archive would have it, without an extension."""
    target = tmp_path / BLOB
    target.parent.mkdir(parents=True)
    shutil.copyfile(forms.hdf5, target)
    return f"{s3_server.upload(s3_server.public_bucket, 'archive', tmp_path)}/{BLOB}"


@pytest.mark.slow
def test_a_session_is_the_same_dataset_in_both_forms_wherever_it_is(
    forms: Forms, blob: str, http_server: StaticServer, s3_server: S3Server, tmp_path: Path
) -> None:
    expected = load(forms.zarr)
    (http_server.root / "sub-1.nwb").symlink_to(forms.hdf5)
    (http_server.root / "no-name").symlink_to(forms.hdf5)
    (tmp_path / "local.data").symlink_to(forms.hdf5)
    public = s3_server.upload(s3_server.public_bucket, "both", forms.hdf5.parent)
    private = s3_server.upload(s3_server.private_bucket, "both", forms.hdf5.parent)
    with fsspec.open("memory://both/sub-1.nwb", "wb") as file:
        file.write(forms.hdf5.read_bytes())
    with zipfile.ZipFile(tmp_path / "sub-1.nwb.zip", "w") as archive:
        archive.write(forms.hdf5, "sub-1.nwb")
    (http_server.root / "sub-1.nwb.zip").symlink_to(tmp_path / "sub-1.nwb.zip")
    places: list[tuple[object, dict[str, Any] | None]] = [
        (forms.hdf5, None),
        (tmp_path / "local.data", None),
        (f"{http_server.url}/sub-1.nwb", None),
        (f"{http_server.url}/no-name", None),
        (f"{public}/sub-1.nwb", s3_server.anonymous_options),
        (f"{private}/sub-1.nwb", s3_server.signed_options),
        (blob, s3_server.anonymous_options),
        ("memory://both/sub-1.nwb", None),
        (
            f"simplecache::{http_server.url}/sub-1.nwb",
            {"simplecache": {"cache_storage": str(tmp_path / "c")}},
        ),
        (f"zip://sub-1.nwb::{http_server.url}/sub-1.nwb.zip", None),
        (tmp_path / "sub-1.nwb.zip", None),
        (f"{http_server.url}/sub-1.nwb.zip", None),
    ]
    for place, options in places:
        xr.testing.assert_identical(load(place, options), expected)
        assert open_nwb(place, options).identifier == "demo-spiking"


def requests_of(location: object, options: dict[str, Any] | None = None) -> int:
    """Return how many requests it takes to read the metadata."""
    with track_requests() as log:
        open_hierarchy(location, options)  # type: ignore[arg-type]
    return log.requests


def test_recognizing_takes_no_request_where_the_name_is_right_and_one_where_it_is_not(
    forms: Forms, blob: str, s3_server: S3Server
) -> None:
    options = s3_server.anonymous_options
    bucket = s3_server.public_bucket
    hdf5 = s3_server.upload(bucket, "named", forms.hdf5.parent)
    store = s3_server.upload(bucket, "stores/sub-1.nwb.zarr", forms.zarr)
    misnamed = s3_server.upload(bucket, "stores/sub-1.nwb", forms.zarr)
    copy = s3_server.upload(bucket, "told", forms.hdf5.parent)
    told = requests_of(f"{copy}/sub-1.nwb", options | {"hdf5": True})
    assert requests_of(f"{hdf5}/sub-1.nwb", options) == told
    assert requests_of(blob, options) <= told
    assert requests_of(store, options) == 2
    # Nothing is there as a file: its beginning and its end are asked for at once.
    assert requests_of(misnamed, options) <= 2 + 2
    # What was found once is known: one conditional request.
    for place in (f"{hdf5}/sub-1.nwb", blob, store, misnamed):
        assert requests_of(place, options) == 1


def test_a_file_without_an_extension_is_recognized_by_its_first_bytes(
    forms: Forms, http_server: StaticServer
) -> None:
    (http_server.root / "session").symlink_to(forms.hdf5)
    (http_server.root / "told").symlink_to(forms.hdf5)
    told = requests_of(f"{http_server.url}/told", {"hdf5": True})
    # Two documents of Zarr and the first bytes, at once, before; and known from then on.
    assert requests_of(f"{http_server.url}/session") == told + 3
    assert requests_of(f"{http_server.url}/session") == 1


def test_only_a_store_without_a_telling_name_takes_a_request_more(
    forms: Forms, http_server: StaticServer
) -> None:
    for name in ("session", "sub-1.nwb.zarr"):
        (http_server.root / name).symlink_to(forms.zarr)
    named = requests_of(f"{http_server.url}/sub-1.nwb.zarr")
    assert requests_of(f"{http_server.url}/session") <= named + 1
    assert requests_of(f"{http_server.url}/session") == 1


@pytest.mark.parametrize("content", [b"\x89HDF", b"short"])
@pytest.mark.parametrize("name", ["session", "sub-1.nwb"])
def test_a_file_of_a_few_bytes_is_no_session(
    content: bytes, name: str, tmp_path: Path, http_server: StaticServer
) -> None:
    for folder in (tmp_path, http_server.root):
        (folder / name).write_bytes(content)
    for place in (tmp_path / name, f"{http_server.url}/{name}"):
        with pytest.raises(NotZarrError, match="is a file, but neither HDF5 nor") as caught:
            open_hierarchy(place)
        assert caught.value.found == "a file"


def test_a_location_says_that_it_is_hdf5_and_pickles_say_so(forms: Forms, http_server: StaticServer) -> None:
    (http_server.root / "session").symlink_to(forms.hdf5)
    hierarchy = open_hierarchy(f"{http_server.url}/session")
    assert hierarchy.location.is_hdf5
    assert "HDF5" in repr(hierarchy)
    recognize.forms.clear()
    again = pickle.loads(pickle.dumps(hierarchy))
    with track_requests() as log:
        assert len(open_hierarchy(again.location)) == len(hierarchy)
    assert log.requests == 1


def test_a_store_in_the_place_of_a_file_and_the_other_way_round_are_recognized_anew(
    forms: Forms, http_server: StaticServer
) -> None:
    place, url = http_server.root / "sub-1.nwb", f"{http_server.url}/sub-1.nwb"
    for form in (forms.hdf5, forms.zarr, forms.hdf5):
        place.symlink_to(form)
        assert open_hierarchy(url).location.is_hdf5 is (form == forms.hdf5)
        place.unlink()


def test_a_local_file_that_is_replaced_is_read_again(
    forms: Forms, imaging_forms: Forms, tmp_path: Path
) -> None:
    for form, identifier in ((forms, "demo-spiking"), (imaging_forms, "demo-imaging")):
        shutil.copyfile(form.hdf5, tmp_path / "sub-1.nwb")
        assert open_nwb(tmp_path / "sub-1.nwb").identifier == identifier


def test_a_file_that_is_replaced_is_read_again(
    forms: Forms, imaging_forms: Forms, http_server: StaticServer
) -> None:
    place, url = http_server.root / "sub-1.nwb", f"{http_server.url}/sub-1.nwb"
    place.symlink_to(forms.hdf5)
    assert open_nwb(url).identifier == "demo-spiking"
    place.unlink()
    place.symlink_to(imaging_forms.hdf5)
    assert open_nwb(url).identifier == "demo-imaging"


@pytest.mark.parametrize("size", [512, 4096, 2**20])
@pytest.mark.parametrize("name", ["sub-1.nwb", "session"])
def test_a_user_block_is_passed_over(forms: Forms, http_server: StaticServer, size: int, name: str) -> None:
    file = http_server.root / name
    with h5py.File(forms.hdf5, "r") as source, h5py.File(file, "w", userblock_size=size) as target:
        for key in source:
            source.copy(source[key], target, key)
        # A reference would lead to an address of the other file.
        target.attrs.update({name: value for name, value in source.attrs.items() if name != ".specloc"})
    assert open_hierarchy(file).location.is_hdf5
    assert open_hierarchy(f"{http_server.url}/{name}").location.is_hdf5


def test_a_redirect_is_followed_once_while_the_signature_of_its_target_is_valid(
    forms: Forms, redirecting: RedirectingServer
) -> None:
    (redirecting.root / "blob").symlink_to(forms.hdf5)
    url = f"{redirecting.url}/api/assets/{ASSET}/download/"
    xr.testing.assert_identical(load(url), load(forms.zarr))
    # One for the URL without its last slash, and one for the target; all other requests are for the target.
    # The first two requests are sent at once, and both are redirected.
    assert redirecting.count("/download") <= 4
    assert redirecting.count("/blob") > 2


def test_a_target_that_is_valid_no_longer_is_asked_for_again(
    forms: Forms, redirecting: RedirectingServer
) -> None:
    (redirecting.root / "blob").symlink_to(forms.hdf5)
    dataset = xr.open_dataset(f"{redirecting.url}/api/assets/{ASSET}/download/", engine="nwbzarr")
    redirecting.signature = "second"
    np.testing.assert_array_equal(dataset.load()["units_spike_times"], load(forms.zarr)["units_spike_times"])
    assert 4 < redirecting.count("/download") <= 8


@pytest.mark.parametrize("expires", [0, None])
def test_a_redirect_that_is_not_said_to_be_valid_is_asked_for_every_time(
    forms: Forms, redirecting: RedirectingServer, expires: int | None
) -> None:
    (redirecting.root / "blob").symlink_to(forms.hdf5)
    redirecting.expires = expires
    load(f"{redirecting.url}/api/assets/{ASSET}/download/")
    assert redirecting.count("/download/") == redirecting.count("/blob") > 2


def test_errors_say_what_is_there(forms: Forms, http_server: StaticServer, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(10)
    (tmp_path / "notes.nwb").write_text("a text that is longer than a signature")
    (tmp_path / "cut.nwb").write_bytes(forms.hdf5.read_bytes()[:3000])
    (tmp_path / "empty.nwb").write_bytes(b"")
    (http_server.root / "things").symlink_to(tmp_path)
    for base in (str(tmp_path), f"{http_server.url}/things"):
        with pytest.raises(NotNWBError, match="is an HDF5 file, but not an NWB file"):
            open_hierarchy(f"{base}/other.h5")
        with pytest.raises(NotZarrError, match="neither HDF5 nor") as caught:
            open_hierarchy(f"{base}/notes.nwb")
        assert not isinstance(caught.value, HDF5FileError)
        with pytest.raises(MetadataError, match="cannot be read as HDF5"):
            open_hierarchy(f"{base}/cut.nwb")
        with pytest.raises(LocationNotFoundError):
            open_hierarchy(f"{base}/missing.nwb")


def test_a_server_without_ranges_is_named_as_the_cause(forms: Forms, http_server: StaticServer) -> None:
    (http_server.root / "sub-1.nwb").symlink_to(forms.hdf5)
    http_server.fault("ignore_range", "sub-1.nwb", times=100)
    with pytest.raises(ResponseError, match="Range"):
        open_hierarchy(f"{http_server.url}/sub-1.nwb")


def test_a_compressed_file_in_a_zip_file_is_refused_with_what_would_help(
    forms: Forms, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "sub-1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(forms.hdf5, "sub-1.nwb")
    with pytest.raises(ResponseError, match="compressed") as caught:
        open_hierarchy(tmp_path / "sub-1.zip")
    assert "zip -0" in str(caught.value.next_step)


def test_the_option_hdf5_decides(forms: Forms) -> None:
    assert open_hierarchy(forms.hdf5, {"hdf5": True}).location.is_hdf5
    with pytest.raises(HDF5FileError) as caught:
        open_hierarchy(forms.hdf5, {"hdf5": False})
    assert "hdf5=False" in str(caught.value.next_step)
    with pytest.raises(LocationNotFoundError, match="There is no file"):
        open_hierarchy(forms.zarr, {"hdf5": True})


def test_a_file_that_git_annex_has_not_fetched_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "sub-1.nwb").symlink_to(tmp_path / ".git/annex/objects/absent")
    with pytest.raises(TransportError) as caught:
        open_hierarchy(tmp_path / "sub-1.nwb")
    assert "datalad get" in str(caught.value.next_step)


ASSET = "0a1b2c3d-0000-4000-8000-000000000002"


class RedirectingServer(StaticServer):
    """A static server that also answers as the API of the archive: downloads are elsewhere, for a while."""

    # Of the target, and seconds that it is valid for; None for a target that is not signed.
    signature = "first"
    expires: int | None = 3600

    async def answer(self, request: web.Request) -> Response:
        path = request.path
        if path.endswith("/download"):
            return Response(301, b"", {"Location": f"{path}/"})
        if path.endswith("/download/"):
            signed = f"X-Amz-Date={datetime.now(UTC):%Y%m%dT%H%M%SZ}&X-Amz-Expires={self.expires}"
            query = f"?{signed}&X-Amz-Signature={self.signature}" if self.expires is not None else ""
            return Response(302, b"", {"Location": f"{self.url}/blob{query}"})
        if request.query.get("X-Amz-Signature", self.signature) != self.signature:
            return Response(403, b"<Error><Code>AccessDenied</Code></Error>")
        return await super().answer(request)


@pytest.fixture
def redirecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedirectingServer]:
    with RedirectingServer(tmp_path_factory.mktemp("redirected")) as server:
        yield server


@pytest.mark.parametrize(
    ("url", "undecided"),
    [
        ("https://example.org/session", True),
        ("s3://bucket/sub-1", True),
        ("https://example.org/sub-1.nwb", False),
        ("https://example.org/sub-1.nwb.zarr/", False),
        ("https://example.org/sub-1.nwb.zarr.zip", False),
        ("s3://dandiarchive/zarr/56d3ba83-0ed2-4d0a-9a0f-8d4e1d7f6b5c/", False),
        ("https://dandiarchive.s3.amazonaws.com/blobs/56d/3ba/56d3ba83-0ed2-4d0a-9a0f-8d4e1d7f6b5c", False),
        ("https://api.dandiarchive.org/api/assets/56d3ba83-0ed2-4d0a-9a0f-8d4e1d7f6b5c/download/", False),
    ],
)
def test_names_that_tell_what_is_stored(url: str, undecided: bool) -> None:
    assert is_undecided(locate(url, {"anon": True} if url.startswith("s3:") else None)) is undecided


def test_a_file_that_nobody_may_read_is_named_as_it_was_passed(s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "a.nwb").write_bytes(b"anything")
    url = s3_server.upload(s3_server.private_bucket, "refused-file/a.nwb", tmp_path / "a.nwb")
    with pytest.raises(AccessError) as error:
        open_hierarchy(url, s3_server.anonymous_options)
    assert "zarr.json" not in str(error.value)
    assert ".zmetadata" not in str(error.value)
