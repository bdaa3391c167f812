"""URLs: parsing, mistyped ones, pages of archives, access points, and redaction of secrets."""

import io
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import intake
import pytest
import xarray as xr

import intake_nwbzarr
from intake_nwbzarr.catalog.reader import NWBZarrReader
from intake_nwbzarr.errors import (
    LinkError,
    LocationError,
    LocationNotFoundError,
    MissingPackageError,
    NWBZarrError,
    OptionError,
)
from intake_nwbzarr.hierarchy.recognize import is_undecided
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.location.urls import access_point, canonical_bucket
from intake_nwbzarr.transport.open import open_transport
from tests.servers.http_server import StaticServer
from tests.test_credentials import everything_said

CANARY = "canary4f1d"

MISTYPED = [
    f"https:/me:{CANARY}@host/x.nwb.zarr",
    f"https:me:{CANARY}@host/x.nwb.zarr",
    f"https//me:{CANARY}@host/x.nwb.zarr",
    f"https;//me:{CANARY}@host/x.nwb.zarr",
    f"https:\\\\me:{CANARY}@host\\x.nwb.zarr",
    f"https:/{CANARY}@host/x.nwb.zarr",
    f"https:/host/x.nwb.zarr?X-Amz-Signature={CANARY}",
    f"host/x.nwb.zarr?X-Amz-Signature={CANARY}",
    f" https://me:{CANARY}@host/x.nwb.zarr",
    f"'https://me:{CANARY}@host/x.nwb.zarr'",
    f"https:///me:{CANARY}@host/x.nwb.zarr",
    f"https://https://me:{CANARY}@host/x.nwb.zarr",
    f"https://me:{CANARY}/1@host/x.nwb.zarr",
    f"https://me:1#{CANARY}@host/x.nwb.zarr",
    f"https://me:1?{CANARY}@host/x.nwb.zarr",
    f"htps://me:{CANARY}@host/x.nwb.zarr",
    f"htps://me:1/{CANARY}@host/x.nwb.zarr",
    f"htps://host/x.nwb.zarr?token={CANARY}",
    f"me:{CANARY}@host/x.nwb.zarr",
    f"//me:{CANARY}@host/x.nwb.zarr",
    f"s3:/AKIA:{CANARY}@bucket/x.nwb.zarr",
    f"s3:AKIA:{CANARY}@bucket/x.nwb.zarr",
    f"s3:///AKIA:{CANARY}@bucket/x.nwb.zarr",
    f"s3://AKIA:1/{CANARY}@bucket/x.nwb.zarr",
    f"s3://bucket/x.nwb.zarr?versionId=1&sig={CANARY}",
    f"s3n://AKIA:{CANARY}@bucket/x.nwb.zarr",
    f"simplecache::s3:/AKIA:{CANARY}@bucket/x.nwb.zarr",
    f"simplcache::s3://AKIA:{CANARY}@bucket/x.nwb.zarr",
    f"simplecache:s3://AKIA:{CANARY}@bucket/x.nwb.zarr",
    f"simplecache::htps://me:{CANARY}@bucket/x.nwb.zarr",
    f"file:/me:{CANARY}@host/x.nwb.zarr",
    f"file:///me:{CANARY}@host/x.nwb.zarr",
    f"file://me:{CANARY}@host/x.nwb.zarr",
    f"zarr://https://me:{CANARY}@host/x.nwb.zarr",
    f"dandi://me:{CANARY}@dandi/000719",
    f"https://me:{CANARY}@dandiarchive.org/dandiset/000719?token={CANARY}",
]


def attempts(url: str, tmp_path: Path) -> dict[str, Callable[[], object]]:
    """Every way to give a location."""
    return {
        "locate": lambda: locate(url),
        "open_dataset": lambda: xr.open_dataset(url, engine="nwbzarr"),
        "open_nwb": lambda: intake_nwbzarr.open_nwb(url),
        "snapshot": lambda: intake_nwbzarr.snapshot(url, path=tmp_path / "a.snapshot.zip"),
        "from a snapshot": lambda: xr.open_dataset(tmp_path / "a.nwb.zarr", engine="nwbzarr", snapshot=url),
        "download": lambda: intake_nwbzarr.download(url, tmp_path / "a.nwb.zarr"),
        "source": lambda: intake.open_nwbzarr(url).read(),
        "reader": lambda: NWBZarrReader(url).read(),
    }


@pytest.mark.parametrize("url", MISTYPED)
def test_a_mistyped_url_is_one_error_that_repeats_no_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    with caplog.at_level(logging.DEBUG):
        for name, attempt in attempts(url, tmp_path).items():
            with pytest.raises(NWBZarrError) as caught:
                attempt()
            assert isinstance(caught.value, LocationError | OptionError), name
            said.write(everything_said(caught.value))
        source, reader = intake.open_nwbzarr(url), NWBZarrReader(url)
        said.write(f"{source!r} {source.yaml()} {reader!r} {reader.data!r} {reader.to_entry()!r}")
    assert CANARY not in said.getvalue() + caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_looks_like_a_url_and_is_a_local_folder_opens(
    corpus_dir: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "me:1@lab.nwb.zarr",
        "rat::1.nwb.zarr",
        "zip::2.nwb.zarr",
        "s3:3.nwb.zarr",
        "what?a=1.nwb.zarr",
    ):
        shutil.copytree(corpus_dir("ecephys", "0.14.0"), name)
        url = f"file://{tmp_path / name}"
        for given in (name, tmp_path / name, Path(name), url):
            assert locate(given).url == url
            assert xr.open_dataset(given, engine="nwbzarr", group="units").sizes["unit"] > 0
        assert locate(name).path == tmp_path / name
        assert url in f"{intake.open_nwbzarr(url).yaml()}"
        # A session beside it is reached by a link, whatever their names.
        assert locate(tmp_path / "a.nwb.zarr").sibling(f"../{name}").url == url


@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]", "127.0.0.1"])
@pytest.mark.parametrize("name", ["a.nwb.zarr", "a::b.nwb.zarr", "a%3A%3Ab.nwb.zarr"])
@pytest.mark.parametrize("chain", ["", "simplecache::"])
def test_addresses_of_ipv6_and_names_with_colons_are_read(
    host: str, name: str, chain: str, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    if chain and "a.nwb" not in name:
        pytest.skip("fsspec takes :: for the end of a link")
    shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / name.replace("%3A", ":"))
    served = StaticServer(tmp_path)
    served.host = "::1" if "[" in host else "127.0.0.1"
    with served as server:
        url = f"{chain}http://{host}:{server.port}/{name}"
        assert xr.open_dataset(url, engine="nwbzarr", group="units").load().sizes["unit"] > 0


def test_a_link_beside_a_chain_begins_no_other_link() -> None:
    with pytest.raises(LocationError, match="Unknown URL scheme 'nosuch'"):
        locate("nosuch::memory://a/b")
    with pytest.raises(LinkError, match="not a valid target of an external link"):
        locate("memory://day/a.nwb.zarr").sibling("../x::s3://bucket")


@pytest.mark.parametrize(
    ("given", "scheme", "next_step"),
    [
        ("htps://host/x", "htps", "Did you mean 'https'?"),
        ("s3n://bucket/x", "s3n", "Did you mean 's3'?"),
        ("simplcache::s3://bucket/x", "simplcache", "Did you mean 'simplecache'?"),
        ("zarr3://https://host/x", "zarr3", "Pass only the URL after it."),
    ],
)
def test_an_unknown_scheme_is_an_error_with_the_closest(given: str, scheme: str, next_step: str) -> None:
    with pytest.raises(LocationError, match="Unknown URL scheme") as caught:
        locate(given)
    assert (caught.value.found, caught.value.next_step) == (scheme, next_step)


def is_installed(protocol: str) -> bool:
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError:
        return False
    return True


PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub",
            "sftp": "paramiko", "smb": "smbprotocol", "webdav": "webdav4", "oss": "ossfs",
            "root": "fsspec-xrootd", "hdfs": "pyarrow", "libarchive": "libarchive"}  # fmt: skip


@pytest.mark.parametrize("chain", ["", "simplecache::"])
def test_a_filesystem_without_its_package_says_what_to_install(chain: str) -> None:
    missing = [protocol for protocol in fsspec.available_protocols() if not is_installed(protocol)]
    assert missing
    for protocol in missing:
        with pytest.raises(MissingPackageError, match=PACKAGES.get(protocol, protocol)):
            open_transport(locate(f"{chain}{protocol}://container/a.nwb.zarr"))


@pytest.mark.parametrize(
    "page",
    [
        "https://dandiarchive.org/dandiset/000719",
        "https://www.dandiarchive.org/dandiset/000719/draft/files?location=sub-1",
        "https://gui.dandiarchive.org/#/dandiset/000719",
        "https://sandbox.dandiarchive.org/dandiset/1",
        "https://api.dandiarchive.org/api/assets/c8c6b848-fbc6-4f58-85ff-e3f2618ee983/",
        "https://api.dandiarchive.org/api/dandisets/000719/versions/draft/assets/x/",
        "dandi://dandi/000719/sub-1/sub-1.nwb.zarr",
        "DANDI:000719/sub-1.nwb.zarr",
    ],
)
def test_a_dandi_url_that_is_not_an_asset_says_how_to_find_its_url(page: str) -> None:
    with pytest.raises(LocationError) as caught:
        xr.open_dataset(page, engine="nwbzarr")
    advice = str(caught.value.next_step)
    assert "https://dandiarchive.s3.amazonaws.com/zarr/<zarr id>/, the contentUrl" in advice


@pytest.mark.parametrize("folder", ["", "dandisets/000126/versions/0.210813.0327/"])
def test_the_download_url_of_a_dandi_asset_is_a_file(folder: str) -> None:
    number = "c8c6b848-fbc6-4f58-85ff-e3f2618ee983"
    url = f"https://api.dandiarchive.org/api/{folder}assets/{number}/download/"
    assert locate(url).url in {url, url.rstrip("/")}
    assert not is_undecided(locate(url))


def test_the_zarr_id_in_a_dandi_url_is_part_of_the_advice() -> None:
    number = "c8c6b848-fbc6-4f58-85ff-e3f2618ee983"
    with pytest.raises(LocationError, match=f"amazonaws.com/zarr/{number}/"):
        locate(f"https://api.dandiarchive.org/api/zarr/{number}/files/")
    assert locate(f"https://dandiarchive.s3.amazonaws.com/zarr/{number}/").scheme == "https"


@pytest.mark.parametrize(
    "page", ["https://neurosift.app/nwb?url=x", "https://neuroglancer-demo.appspot.com/#!x"]
)
def test_the_page_of_a_viewer_is_not_a_session(page: str) -> None:
    with pytest.raises(LocationError, match="viewer"):
        locate(page)


@pytest.mark.parametrize(
    ("given", "bucket", "key"),
    [
        ("arn:aws:s3:us-west-2:123456789012:accesspoint/lab/day/a",
         "arn:aws:s3:us-west-2:123456789012:accesspoint:lab", "day/a"),
        ("arn:aws:s3:us-west-2:123456789012:accesspoint:lab",
         "arn:aws:s3:us-west-2:123456789012:accesspoint:lab", ""),
        ("arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-01/accesspoint/lab/a",
         "arn:aws:s3-outposts:us-west-2:123456789012:outpost:op-01:accesspoint:lab", "a"),
        ("bucket/a/b", "bucket", "a/b"),
    ],
)  # fmt: skip
def test_an_access_point_stands_for_a_bucket(given: str, bucket: str, key: str) -> None:
    assert canonical_bucket(given) == (bucket, key)
    location = locate(f"s3://{given}/")
    assert location.url == f"s3://{bucket}/{key}".rstrip("/")
    assert (access_point(bucket) is None) == (bucket == "bucket")


def test_a_session_links_to_its_neighbour_on_an_access_point_and_to_no_other_point() -> None:
    point = "s3://arn:aws:s3:us-west-2:123456789012:accesspoint:lab"
    location = locate(f"{point}/day/a.nwb.zarr", {"profile": "lab"})
    assert location.sibling("../raw.nwb.zarr").url == f"{point}/day/raw.nwb.zarr"
    with pytest.raises(LinkError) as caught:
        location.sibling(f"{point}-2/day/raw.nwb.zarr")
    assert "allow_external" in str(caught.value.next_step)


@pytest.mark.parametrize(
    "given",
    [
        "s3://arn:aws:s3::123456789012:accesspoint/abc.mrap/a",
        "s3://arn:aws:s3:::bucket/a",
        "s3://arn:aws:s3:us-west-2:123456789012:accesspoint",
        "s3://arn:aws:s3-outposts:us-west-2:123456789012:accesspoint/lab/a",
        "s3://arn:aws:iam::123456789012:user/me",
    ],
)
def test_other_arns_are_one_error(given: str) -> None:
    with pytest.raises(LocationError, match="ARN that cannot be opened"):
        locate(given)


@pytest.mark.parametrize(
    "given", ["a\ud800b.nwb.zarr", "https://host/\ud800", "s3://bucket/\ud800", "memory://\ud800"]
)
def test_a_lone_surrogate_is_an_error(given: str) -> None:
    with pytest.raises(LocationError, match="surrogate"):
        locate(given)


def test_a_local_name_may_be_any_bytes(corpus_dir: Callable[[str, str], Path], tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff.nwb.zarr")
    shutil.copytree(corpus_dir("ecephys", "0.14.0"), folder)
    assert intake_nwbzarr.open_hierarchy(folder)[""].neurodata_type == "NWBFile"
    with pytest.raises(LocationNotFoundError):
        intake_nwbzarr.open_hierarchy(os.fsencode(tmp_path / "absent.nwb.zarr").decode())


@pytest.mark.parametrize(
    "target",
    [
        "https://host/a",
        "s3:/bucket/a",
        "s3://bucket/a",
        "simplecache::s3://b/a",
        "",
        "a\0",
        "a\ud800",
        7,
        None,
    ],
)
def test_what_is_written_is_written_to_this_machine(
    target: object, corpus_dir: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session = corpus_dir("ecephys", "0.14.0")
    with pytest.raises(OptionError, match="The download folder must be a local path"):
        intake_nwbzarr.download(session, target)  # type: ignore[arg-type]
    if target is not None:
        with pytest.raises(OptionError, match="The snapshot path must be a local path"):
            intake_nwbzarr.snapshot(session, path=target)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
