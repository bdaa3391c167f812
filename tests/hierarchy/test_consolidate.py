"""Consolidating: one document put together, replaced in one step, and nothing else touched."""

import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import zarr

from intake_nwbzarr import consolidate, is_fresh, open_hierarchy, open_nwb, track_requests
from intake_nwbzarr.errors import LocationError, MetadataError, ObjectChangedError, UnconsolidatedWarning
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from tests.servers.s3_server import S3Server

Corpus = Callable[[str, str], Path]


@pytest.fixture
def copy_of(corpus_dir: Corpus, tmp_path: Path) -> Corpus:
    """A copy of a session that a test may write to."""

    def copy(kind: str, release: str) -> Path:
        source = corpus_dir(kind, release)
        return Path(shutil.copytree(source, tmp_path / source.name))

    return copy


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _without_consolidated(store: Path) -> None:
    """Strip a Zarr 3 file of its consolidated metadata."""
    document = json.loads((store / "zarr.json").read_text())
    del document["consolidated_metadata"]
    (store / "zarr.json").write_text(json.dumps(document))


def test_zmetadata_that_are_written_only_in_part_are_an_error_that_leads_to_their_repair(
    copy_of: Corpus,
) -> None:
    store = copy_of("ecephys", "0.8.0")
    consolidate(store)
    nodes = dict(open_hierarchy(store))
    document = store / ".zmetadata"
    document.write_bytes(document.read_bytes()[:-100])
    with pytest.raises(MetadataError) as caught:
        open_hierarchy(store)
    assert caught.value.path == ".zmetadata"
    assert "nwbzarr consolidate" in str(caught.value.next_step)
    assert consolidate(store).written
    assert dict(open_hierarchy(store)) == nodes


def test_a_damaged_root_of_zarr_3_is_not_replaced(copy_of: Corpus) -> None:
    store = copy_of("ecephys", "0.14.0")
    (store / "zarr.json").write_bytes((store / "zarr.json").read_bytes()[:-100])
    before = _contents(store)
    with pytest.raises(MetadataError):
        consolidate(store)
    assert _contents(store) == before


@pytest.mark.parametrize("kind", ["ecephys", "ophys"])
def test_a_zarr_2_file_opens_with_two_requests_afterwards(kind: str, copy_of: Corpus) -> None:
    store = copy_of(kind, "0.3.0")
    before = _contents(store)
    with pytest.warns(UnconsolidatedWarning, match=r"nwbzarr consolidate .*0\.3\.0"):
        nodes = dict(open_hierarchy(store))
    report = consolidate(store)
    assert report.written
    assert report.nodes == len(nodes)
    assert set(report.added) == set(nodes)
    with track_requests() as log:
        assert dict(open_hierarchy(store)) == nodes
    assert log.requests == 2
    after = _contents(store)
    assert after.pop(".zmetadata")
    assert after == before
    open_nwb(store)


def test_a_zarr_3_file_is_consolidated_as_zarr_does_it(copy_of: Corpus) -> None:
    store = copy_of("icephys", "0.14.0")
    original = json.loads((store / "zarr.json").read_text())
    _without_consolidated(store)
    before = _contents(store)
    report = consolidate(store)
    assert (report.document, report.zarr_format, report.written) == ("zarr.json", 3, True)
    after = _contents(store)
    assert {name for name in after if after[name] != before.get(name)} == {"zarr.json"}
    written = json.loads((store / "zarr.json").read_text())
    assert written["consolidated_metadata"] == original["consolidated_metadata"]
    assert zarr.open_consolidated(store, mode="r")["acquisition/response0/data"].shape == (50,)


def test_a_dry_run_says_what_would_change_and_changes_nothing(copy_of: Corpus) -> None:
    store = copy_of("icephys", "0.2.0")
    before = _contents(store)
    report = consolidate(store, dry_run=True)
    assert not report.written
    assert "acquisition/response0/data" in report.added
    assert "would be written" in str(report)
    assert _contents(store) == before


def test_a_stale_document_is_repaired(copy_of: Corpus) -> None:
    store = copy_of("icephys", "0.8.0")
    consolidate(store)  # as zarr-python 3 and 2 differ in form only, this settles it
    attributes = store / "acquisition/response1/.zattrs"
    attributes.write_text(json.dumps(json.loads(attributes.read_text()) | {"comments": "edited"}))
    shutil.rmtree(store / "acquisition/response0")
    report = consolidate(store)
    assert report.changed == ("acquisition/response1",)
    assert all(path.startswith("acquisition/response0") for path in report.removed)
    assert report.removed
    assert open_hierarchy(store)["acquisition/response1"].attributes["comments"] == "edited"


def test_an_up_to_date_document_is_left_alone(copy_of: Corpus) -> None:
    store = copy_of("ophys", "0.14.0")
    before = (store / "zarr.json").stat().st_mtime_ns
    report = consolidate(store)
    assert report.up_to_date
    assert not report.written
    assert "up to date" in str(report)
    assert (store / "zarr.json").stat().st_mtime_ns == before


def test_a_zip_file_cannot_be_written(corpus_dir: Corpus) -> None:
    from tests.conftest import CORPUS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconsolidatedWarning)
        with pytest.raises(LocationError, match="written"):
            consolidate(CORPUS / "icephys_hdmf-zarr-0.2.0.nwb.zarr.zip")


def test_a_bucket_is_consolidated_like_a_folder(corpus_dir: Corpus, s3_server: S3Server) -> None:
    folder = corpus_dir("icephys", "0.3.0")
    url = s3_server.upload(s3_server.private_bucket, "consolidate/a.nwb.zarr", folder)
    s3_server.reset()
    report = consolidate(url, s3_server.signed_options)
    assert report.written
    assert [seen.path.rpartition("/")[2] for seen in s3_server.requests if seen.method == "PUT"] == [
        ".zmetadata"
    ]
    with track_requests() as log:
        assert open_hierarchy(url, s3_server.signed_options).consolidated
    assert log.requests == 2


@pytest.mark.slow
@pytest.mark.parametrize("release", ["0.8.0", "0.14.0"])
def test_a_document_that_somebody_else_replaced_is_not_overwritten(
    release: str, copy_of: Corpus, s3_server: S3Server
) -> None:
    """Every PUT finds another ETag than the one that was read: one repetition, then an error."""
    folder = copy_of("icephys", release)
    attributes = folder / (
        "acquisition/response0/.zattrs" if release == "0.8.0" else "acquisition/response0/zarr.json"
    )
    attributes.write_text(attributes.read_text().replace("no comments", "edited"))
    url = s3_server.upload(s3_server.private_bucket, f"consolidate/{release}.nwb.zarr", folder)
    document = ".zmetadata" if release == "0.8.0" else "zarr.json"
    before = (folder / document).read_bytes()
    s3_server.reset()
    s3_server.fault("etag", f"{release}.nwb.zarr/{document}", times=math.inf, method="GET")
    with pytest.raises(ObjectChangedError):
        consolidate(url, s3_server.signed_options)
    assert s3_server.count(document, "PUT") == 2
    s3_server.reset()
    stored = run(open_transport(locate(url, s3_server.signed_options)).get(document))
    assert stored is not None
    assert stored.data == before


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b"\xff\xfe", b"3"])
@pytest.mark.parametrize("release", ["0.8.0", "0.14.0"])
def test_a_stored_document_that_is_damaged_is_an_error_that_names_it_and_nothing_is_written(
    release: str, document: bytes, copy_of: Corpus
) -> None:
    store = copy_of("ecephys", release)
    name = "units/id/.zarray" if release == "0.8.0" else "units/id/zarr.json"
    (store / name).write_bytes(document)
    before = _contents(store)
    for way in (consolidate, is_fresh):
        with pytest.raises(MetadataError) as caught:
            way(store)
        assert caught.value.path == name
    assert _contents(store) == before


@pytest.mark.parametrize("place", ["folder", "s3", "hdf5"])
def test_whether_a_session_is_fresh_is_told_wherever_it_can_be_listed(
    place: str, copy_of: Corpus, s3_server: S3Server
) -> None:
    if place == "hdf5":
        assert is_fresh(Path(__file__).parents[1] / "data" / "ecephys.nwb")
        return
    store = copy_of("ecephys", "0.14.0")

    def fresh() -> bool:
        if place == "folder":
            return is_fresh(store)
        url = s3_server.upload(s3_server.public_bucket, "fresh.nwb.zarr", store)
        return is_fresh(url, s3_server.anonymous_options)

    assert fresh()
    group = zarr.open_group(str(store / "units"), mode="r+", use_consolidated=False)
    group.attrs["description"] = "sorted again"
    assert not fresh()
    consolidate(store)
    assert fresh()


def test_other_spellings_of_the_same_metadata_are_no_changes(copy_of: Corpus) -> None:
    store = copy_of("ecephys", "0.14.0")
    document = store / "units/electrode_group/zarr.json"
    content = json.loads(document.read_text())
    assert content["codecs"][0] == {"name": "vlen-utf8", "configuration": {}}
    del content["codecs"][0]["configuration"]
    content.pop("storage_transformers", None)
    content["attributes"] = dict(reversed(content["attributes"].items()))
    document.write_text(json.dumps(content))
    assert is_fresh(store)
    content["codecs"][0]["configuration"] = {"level": 1}
    document.write_text(json.dumps(content))
    assert not is_fresh(store)
