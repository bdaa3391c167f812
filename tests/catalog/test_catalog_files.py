"""The catalogs that come with the project, opened as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pytest
import yaml

from intake_nwbzarr.errors import CredentialsError, LinkError, LocationError, MappingWarning
from tests.catalog.conftest import CATALOGS
from tests.replica import ECEPHYS, HDF5, IMAGING
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server


def open_dandi(generation: int, archive: StaticServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The catalog of Intake 1 or 2, with the archive's address replaced as a user of a mirror would."""
    if generation == 1:
        monkeypatch.setenv("DANDI_ARCHIVE_URL", archive.url)
        return intake.open_catalog(str(CATALOGS / "dandi.yaml"))
    return intake.open_catalog(str(CATALOGS / "dandi-v2.yaml"))(archive=archive.url)


both = pytest.mark.parametrize("generation", [1, 2])


@both
def test_the_public_session_reads_as_the_dataset_a_user_would_want(
    generation: int, archive: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_dandi(generation, archive, monkeypatch).session.read()
    assert session["TwoPhotonSeries"].shape == (240, 16, 16)
    assert session["RoiResponseSeries"].dims == session["Neuropil"].dims
    assert session["RoiResponseSeries"].dims[1] == "PlaneSegmentation"
    assert session["lick rate"].attrs["units"] == "Hz"
    assert session["lick"].sizes != session["lick rate"].sizes
    assert session.attrs["subject_id"] == "R6"
    assert session["RoiResponseSeries"].chunks is not None
    corrected = (session["RoiResponseSeries"] - 0.7 * session["Neuropil"]).mean().compute()
    assert 200 < float(corrected) < 500


@both
def test_the_public_session_opens_in_few_requests_and_without_data(
    generation: int, archive: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_dandi(generation, archive, monkeypatch).session.read()
    chunks = [seen.path for seen in archive.requests if not seen.path.endswith(("zarr.json", ".zmetadata"))]
    assert archive.count(".zmetadata") == 1
    assert not [path for path in chunks if "/data/" in path or "image_mask" in path]


@both
def test_the_ecephys_asset_reads_although_its_electrodes_are_missing(
    generation: int, archive: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = open_dandi(generation, archive, monkeypatch)
    with pytest.warns(MappingWarning, match="electrodes"):
        session = catalog.ecephys.read()
    assert session["ElectricalSeries"].shape == (400, 6)
    assert session["trials_visual_contrast"].values.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert session["units_spike_times"].shape == (80,)
    assert np.ptp(session["ElectricalSeries"].values) > 0


@both
def test_the_hdf5_file_of_the_archive_is_read_with_the_same_lines(
    generation: int, archive: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_dandi(generation, archive, monkeypatch).hdf5.read()
    assert session["TestData"].dims == ("TestData_time",)
    assert session["TestData"].values.tolist() == [1.0, 2.0, 3.0]
    assert session.chunks
    # It has no name that says so: its URL is that of the archive's files, and one range is all.
    assert archive.count() == archive.count("/blobs/")
    with open_dandi(generation, archive, monkeypatch).hdf5.to_nwb() as nwbfile:
        assert nwbfile.acquisition["TestData"].data[:].tolist() == [1.0, 2.0, 3.0]


@both
def test_a_catalog_lists_its_entries(
    generation: int, archive: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(open_dandi(generation, archive, monkeypatch)) == ["ecephys", "hdf5", "session"]


@both
def test_an_entry_gives_the_nwbfile(
    generation: int, archive: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_dandi(generation, archive, monkeypatch).session.to_nwb() as nwbfile:
        assert nwbfile.subject.subject_id == "R6"
        assert nwbfile.processing["ophys"]["Fluorescence"]["Neuropil"].data.shape == (240, 6)


@both
def test_the_nwbfile_of_the_asset_without_electrodes_is_one_error_that_says_what_works(
    generation: int, archive: StaticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LinkError, match=r"is incomplete: .*electrodes.*open_dataset"):
        open_dandi(generation, archive, monkeypatch).ecephys.to_nwb()


@pytest.mark.parametrize(("entry", "place"), [("session", IMAGING), ("ecephys", ECEPHYS), ("hdf5", HDF5)])
def test_without_an_override_the_entries_are_the_archive_s_own_addresses(
    entry: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DANDI_ARCHIVE_URL", raising=False)
    address = f"https://dandiarchive.s3.amazonaws.com/{place}"
    assert str(intake.open_catalog(str(CATALOGS / "dandi.yaml"))[entry].location) == address
    assert str(intake.open_catalog(str(CATALOGS / "dandi-v2.yaml"))[entry].data.location) == address


def test_both_catalogs_describe_the_same_entries() -> None:
    first = yaml.safe_load((CATALOGS / "dandi.yaml").read_text())["sources"]
    second = yaml.safe_load((CATALOGS / "dandi-v2.yaml").read_text())
    for name, source in first.items():
        entry = second["entries"][second["aliases"][name]]
        data = second["data"][re.fullmatch(r"\{data\((.+)\)\}", entry["kwargs"]["data"])[1]]  # type: ignore[index]
        assert entry["metadata"]["description"] == source["description"]
        assert data["metadata"] == source["metadata"]


class TestPrivate:
    """catalogs/private.yaml, against a server that refuses as S3 does."""

    @pytest.fixture(autouse=True)
    def bucket(self, s3_server: S3Server, archive: StaticServer, monkeypatch: pytest.MonkeyPatch) -> None:
        s3_server.upload(s3_server.private_bucket, "sub-1/session.nwb.zarr", archive.root / IMAGING)
        monkeypatch.setenv("LAB_BUCKET", s3_server.private_bucket)

    def open(self) -> Any:
        return intake.open_catalog(str(CATALOGS / "private.yaml"))

    def test_credentials_from_the_environment(
        self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
        assert "RoiResponseSeries" in self.open().from_environment.read()

    def test_credentials_from_a_profile(
        self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        configuration = tmp_path / "config"
        configuration.write_text(
            f"[profile lab]\nendpoint_url = {s3_server.endpoint_url}\n"
            f"aws_access_key_id = {s3_server.key}\naws_secret_access_key = {s3_server.secret}\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(configuration))
        monkeypatch.setenv("LAB_PROFILE", "lab")
        assert "RoiResponseSeries" in self.open().from_profile.read()

    def test_credentials_from_variables_of_one_s_own(
        self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LAB_S3_KEY", s3_server.key)
        monkeypatch.setenv("LAB_S3_SECRET", s3_server.secret)
        monkeypatch.setenv("LAB_S3_ENDPOINT", s3_server.endpoint_url)
        source = self.open().from_variables
        assert "RoiResponseSeries" in source.read()
        assert s3_server.key not in repr(source)
        assert s3_server.secret not in source.yaml()

    def test_a_variable_that_is_not_set_is_named(
        self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LAB_S3_KEY", s3_server.key)
        monkeypatch.setenv("LAB_S3_ENDPOINT", s3_server.endpoint_url)
        with pytest.raises(CredentialsError, match="environment variable LAB_S3_SECRET is not set"):
            self.open().from_variables.read()
        assert s3_server.count() == 0

    @pytest.mark.parametrize("entry", ["from_environment", "from_profile", "from_variables"])
    def test_a_bucket_that_is_not_set_is_named_too(
        self, entry: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("LAB_BUCKET")
        with pytest.raises(LocationError, match="LAB_BUCKET"):
            self.open()[entry].read()
        assert s3_server.count() == 0

    def test_the_catalog_lists_whatever_variables_are_set(self) -> None:
        catalog = self.open()
        assert [name for name, _ in catalog.items()] == list(catalog)
