"""Opening from a snapshot: the same objects, without a request, or with one that says if it is stale."""

from __future__ import annotations

import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from intake_nwbzarr import snapshot, track_requests
from intake_nwbzarr.copies.recording import record_session
from intake_nwbzarr.copies.snapshot import open_snapshots, write_snapshots
from intake_nwbzarr.errors import (
    LocationError,
    LocationNotFoundError,
    NotInSnapshotError,
    OptionError,
    SnapshotWarning,
    StaleSnapshotError,
    UnconsolidatedWarning,
)
from intake_nwbzarr.location.location import locate
from tests.conftest import CORPUS, KINDS
from tests.copies.conftest import ConditionalServer
from tests.servers.s3_server import S3Server
from tests.session_files import opened

Corpus = Callable[[str, str], Path]
RELEASES = ("0.2.0", "0.14.0")
unconsolidated = pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.UnconsolidatedWarning")


def _without_note(dataset: xr.Dataset) -> xr.Dataset:
    """A Dataset without the attribute that says it was not verified, which it must have."""
    attributes = dict(dataset.attrs)
    assert attributes.pop("nwb_snapshot").startswith("not verified: snapshot of 2")
    return dataset.drop_attrs(deep=False).assign_attrs(attributes)


@unconsolidated
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_view_opens_without_a_request_and_is_the_same(
    kind: str, release: str, corpus_dir: Corpus, saved: Path
) -> None:
    folder = corpus_dir(kind, release)
    snapshot(folder, path=saved)
    expected = xr.open_datatree(folder, engine="nwbzarr")
    with track_requests() as log:
        flat = opened(folder, snapshot=saved, verify=False)
        stored = opened(folder, snapshot=saved, verify=False, mask_and_scale=False)
        tree = xr.open_datatree(folder, engine="nwbzarr", snapshot=saved, verify=False)
        groups = {
            path: opened(folder, snapshot=saved, verify=False, group=path)
            for path in tree.groups
            if path != "/"
        }
        repr((flat, stored, tree, groups))
    assert log.requests == 0
    xr.testing.assert_identical(_without_note(flat).load(), opened(folder).load())
    xr.testing.assert_identical(_without_note(stored).load(), opened(folder, mask_and_scale=False).load())
    assert tree.groups == expected.groups
    for path, dataset in groups.items():
        assert tree[path].dataset.variables.keys() == expected[path].dataset.variables.keys()
        # Opening from the session takes long where it has to be listed.
        if release == "0.14.0" or path in {"/units", "/intervals/trials", "/acquisition"}:
            xr.testing.assert_identical(_without_note(dataset), opened(folder, group=path))


def test_verified_it_is_identical_and_took_one_conditional_request(
    server: ConditionalServer, session: str, saved: Path
) -> None:
    snapshot(session, path=saved)
    expected = opened(session)
    server.reset()
    with track_requests() as log:
        dataset = opened(session, snapshot=saved)
    assert [(seen.status, seen.path) for seen in server.requests] == [(304, "/a.nwb.zarr/.zmetadata")]
    assert (log.requests, log.bytes) == (1, 0)
    xr.testing.assert_identical(dataset.load(), expected.load())


def test_on_s3_signed_it_is_one_conditional_request(
    corpus_dir: Corpus, s3_server: S3Server, saved: Path
) -> None:
    options = s3_server.signed_options
    for release in ("0.8.0", "0.14.0"):
        folder = corpus_dir("ophys", release)
        url = s3_server.upload(s3_server.private_bucket, f"snapshots/{release}.nwb.zarr", folder)
        snapshot(url, options, path=saved)
        s3_server.reset()
        dataset = opened(url, storage_options=options, snapshot=saved)
        assert [seen.status for seen in s3_server.requests] == [304]
        xr.testing.assert_identical(dataset.load(), opened(url, storage_options=options).load())


def test_a_snapshot_of_an_earlier_release_is_opened_and_compared(
    corpus_dir: Corpus, s3_server: S3Server
) -> None:
    made_by_0_1 = Path(__file__).parents[1] / "data" / "written_by_0_1" / "icephys.snapshot.zip"
    folder = corpus_dir("icephys", "0.14.0")
    url = s3_server.upload(s3_server.public_bucket, "icephys.nwb.zarr", folder)
    options = s3_server.anonymous_options
    s3_server.reset()
    unverified = opened(url, storage_options=options, snapshot=made_by_0_1, verify=False)
    assert s3_server.count() == 0
    dataset = opened(url, storage_options=options, snapshot=made_by_0_1, verify="all")
    assert "nwb_snapshot" not in dataset.attrs
    xr.testing.assert_identical(dataset.load(), opened(url, storage_options=options).load())
    xr.testing.assert_identical(_without_note(unverified).load(), dataset)


def test_an_archive_and_a_folder_are_compared_with_what_was_kept(
    corpus_dir: Corpus, saved: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "b.nwb.zarr.zip"
    shutil.copy(CORPUS / "icephys_hdmf-zarr-0.14.0.nwb.zarr.zip", archive)
    folder = shutil.copytree(corpus_dir("icephys", "0.14.0"), tmp_path / "c.nwb.zarr")
    snapshot([archive, folder], path=saved)
    # Copied or touched, the same bytes are the same session.
    (folder / "zarr.json").touch()
    for place in (archive, folder):
        xr.testing.assert_identical(opened(place, snapshot=saved).load(), opened(place).load())
    shutil.copy(CORPUS / "icephys_hdmf-zarr-0.13.0.nwb.zarr.zip", archive)
    with pytest.raises(StaleSnapshotError, match=r"b\.nwb\.zarr\.zip"):
        opened(archive, snapshot=saved)


def test_a_stale_snapshot_is_an_error_that_says_how_to_make_it_again(
    server: ConditionalServer, session: str, saved: Path
) -> None:
    snapshot(session, path=saved)
    document = server.root / "a.nwb.zarr" / ".zmetadata"
    document.write_text(document.read_text().replace("experimental trials", "other trials"))
    opens: list[Callable[..., Any]] = [xr.open_dataset, xr.open_datatree, xr.open_groups]
    for open_it in opens:
        with pytest.raises(StaleSnapshotError) as raised:
            open_it(session, engine="nwbzarr", snapshot=saved)
        assert (raised.value.location, raised.value.path) == (session, ".zmetadata")
        assert f"nwbzarr snapshot {session} -o {saved}" in str(raised.value.next_step)
    assert "nwb_snapshot" in opened(session, snapshot=saved, verify=False).attrs
    snapshot(session, path=saved)
    opened(session, snapshot=saved)
    document.unlink()
    with pytest.raises(StaleSnapshotError, match="removed"):
        opened(session, snapshot=saved)


def test_a_changed_chunk_is_found_by_verifying_all(
    server: ConditionalServer, session: str, saved: Path
) -> None:
    made = snapshot(session, path=saved)
    opened(session, snapshot=saved, verify="all")
    objects = made.session(session).files[0].objects
    key = next(key for key, kept in objects.items() if kept.data and not key.startswith(".z"))
    assert all(kept.etag for kept in objects.values() if kept.data is not None)
    (server.root / "a.nwb.zarr" / key).write_bytes(b"something else")
    opened(session, snapshot=saved)
    with pytest.raises(StaleSnapshotError) as raised:
        opened(session, snapshot=saved, verify="all")
    assert (raised.value.location, raised.value.path) == (session, key)


def test_without_etags_documents_are_read_and_compared(
    server: ConditionalServer, session: str, saved: Path
) -> None:
    server.etags = False
    snapshot(session, path=saved)
    server.reset()
    assert "nwb_snapshot" not in opened(session, snapshot=saved).attrs
    assert [seen.status for seen in server.requests] == [200]
    document = server.root / "a.nwb.zarr" / ".zmetadata"
    document.write_text(document.read_text() + " ")
    with pytest.raises(StaleSnapshotError):
        opened(session, snapshot=saved)


@pytest.mark.slow
@unconsolidated
def test_without_consolidated_metadata_the_listing_tells(
    corpus_dir: Corpus, s3_server: S3Server, saved: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(corpus_dir("icephys", "0.2.0"), tmp_path / "a.nwb.zarr")
    url = s3_server.upload(s3_server.public_bucket, "snapshots/listed.nwb.zarr", folder)
    options = s3_server.anonymous_options
    snapshot(url, options, path=saved)
    s3_server.reset()
    dataset = opened(url, storage_options=options, snapshot=saved)
    assert "nwb_snapshot" not in dataset.attrs
    assert s3_server.count() == s3_server.count("list-type") > 0
    xr.testing.assert_equal(dataset.load(), opened(folder).load())
    attributes = folder / ".zattrs"
    attributes.write_text(attributes.read_text() + " ")
    s3_server.upload(s3_server.public_bucket, "snapshots/listed.nwb.zarr", folder)
    with pytest.raises(StaleSnapshotError, match="the listing of its metadata documents"):
        opened(url, storage_options=options, snapshot=saved)


@unconsolidated
def test_what_cannot_be_verified_says_so(corpus_dir: Corpus, saved: Path) -> None:
    import fsspec

    url = "memory://snapshots/a.nwb.zarr"
    folder = str(corpus_dir("icephys", "0.2.0"))
    fsspec.filesystem("memory").put(folder, "/snapshots/a.nwb.zarr", recursive=True)
    made = snapshot(url, path=saved)
    assert str(made.session(url)).endswith("unverifiable")
    with pytest.warns(SnapshotWarning, match=r"a\.nwb\.zarr cannot be compared") as told:
        dataset = xr.open_dataset(url, engine="nwbzarr", snapshot=saved)
    assert told[0].filename == __file__
    assert dataset.attrs["nwb_snapshot"] == f"unverifiable: snapshot of {made[url].made}"


def test_a_snapshot_of_an_unconsolidated_session_warns_when_it_is_made_and_not_when_it_is_used(
    corpus_dir: Corpus, saved: Path
) -> None:
    folder = corpus_dir("ophys", "0.3.0")
    with pytest.warns(UnconsolidatedWarning):
        snapshot(folder, path=saved)
    opened(folder, snapshot=saved)


def test_values_are_read_from_the_session_without_its_metadata_and_pickles_stay_small(
    server: ConditionalServer, session: str, saved: Path
) -> None:
    snapshot(session, path=saved)
    dataset = opened(session, snapshot=saved, verify=False, group="acquisition/ElectricalSeriesAP")
    sent = pickle.dumps(dataset)
    assert len(sent) <= len(pickle.dumps(opened(session, group="acquisition/ElectricalSeriesAP"))) + 200
    saved.unlink()
    server.reset()
    values = pickle.loads(sent).data[:10].values
    assert (values == dataset.data[:10].values).all()
    assert {seen.path for seen in server.requests} <= {
        f"/a.nwb.zarr/acquisition/ElectricalSeriesAP/{name}"
        for name in ("data/0.0", "data/0.1", "channel_conversion/0")
    }


def test_the_raw_object_and_dask_names_are_those_of_the_session(session: str, saved: Path) -> None:
    from intake_nwbzarr.catalog.chunking import open_dask

    snapshot(session, path=saved)
    dataset = open_dask(locate(session), None, {}, {"snapshot": saved})
    plain = open_dask(locate(session), None, {}, {})
    assert dataset.ElectricalSeriesAP.data.name == plain.ElectricalSeriesAP.data.name
    assert dataset.nwb.nwbfile.identifier == "corpus-ecephys"
    assert opened(session, chunks={}, snapshot=open_snapshots(saved)).ElectricalSeriesAP.chunks


def test_what_a_snapshot_says_is_not_remembered_as_the_session(
    server: ConditionalServer, session: str, saved: Path
) -> None:
    document = server.root / "a.nwb.zarr" / ".zmetadata"
    true = document.read_text()
    document.write_text(true.replace("experimental trials", "forged trials"))
    snapshot(session, path=saved)
    document.write_text(true)
    for _ in range(2):
        dataset = opened(session, snapshot=saved, verify=False, group="intervals/trials")
        assert dataset.attrs["description"] == "forged trials"
        assert opened(session, group="intervals/trials").attrs["description"] == "experimental trials"


def test_values_that_a_snapshot_gives_are_not_remembered_either(session: str, saved: Path) -> None:
    kept = record_session(locate(session))
    objects = kept.files[0].objects
    objects["identifier/0"] = objects["session_description/0"]
    write_snapshots(saved, [kept])
    for _ in range(2):
        forged = opened(session, snapshot=saved, verify=False)
        assert forged.attrs["identifier"] == forged.attrs["session_description"]
        assert opened(session).attrs["identifier"] == "corpus-ecephys"
    with pytest.raises(StaleSnapshotError) as raised:
        opened(session, snapshot=saved, verify="all")
    assert raised.value.path == "identifier/0"


def test_a_snapshot_of_another_session_is_an_error_that_names_what_it_holds(
    session: str, saved: Path, corpus_dir: Corpus
) -> None:
    snapshot(session, path=saved)
    other = corpus_dir("icephys", "0.8.0")
    with pytest.raises(NotInSnapshotError, match=f"it has '{session}'") as raised:
        opened(other, snapshot=saved)
    assert isinstance(raised.value, KeyError)
    assert (raised.value.location, raised.value.found) == (str(locate(other)), [session])
    assert f"nwbzarr snapshot {locate(other)} --add -o {saved}" in str(raised.value.next_step)


def test_keywords_that_are_not_valid_are_errors(session: str, saved: Path, tmp_path: Path) -> None:
    snapshot(session, path=saved)
    for verify in (True, 0, None, "everything", ["metadata"]):
        with pytest.raises(OptionError, match="verify must be one of"):
            opened(session, snapshot=saved, verify=verify)
    with pytest.raises(OptionError, match="verify is valid only with snapshot=") as raised:
        opened(session, verify=False)
    assert raised.value.found == "False"
    for elsewhere in ("https://example.org/a.snapshot.zip", "", 7):
        with pytest.raises(OptionError, match="The snapshot path must be a local path"):
            opened(session, snapshot=elsewhere)
    with pytest.raises(LocationNotFoundError) as missing:
        opened(session, snapshot=tmp_path / "nothing.zip")
    assert missing.value.location == str(tmp_path / "nothing.zip")
    with pytest.raises(OptionError, match="at least one location"):
        snapshot([], path=saved)
    with pytest.raises(OptionError, match="exclude each other"):
        opened(session, snapshot=saved, consolidated=False)


def test_an_open_store_has_no_address_to_find_a_snapshot_by(saved: Path) -> None:
    from zarr.storage import MemoryStore

    with pytest.raises(LocationError, match="is an open zarr Store") as raised:
        snapshot(MemoryStore(), path=saved)
    assert raised.value.next_step == "Pass its path or URL."


def test_threads_open_sessions_of_one_snapshot(corpus_dir: Corpus, saved: Path) -> None:
    folders = [corpus_dir(kind, "0.8.0") for kind in KINDS]
    snapshot(folders, path=saved)
    found: dict[Path, list[int]] = {folder: [] for folder in folders}

    def work(folder: Path) -> None:
        for _ in range(3):
            found[folder].append(len(opened(folder, snapshot=saved, verify=False).variables))

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    with track_requests() as log:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert log.requests == 0
    assert all(counts == [len(opened(folder).variables)] * 3 for folder, counts in found.items())
