"""Findings of how sessions are stored: their format, chunks and compression, and who can reach them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr
from pynwb import NWBHDF5IO, H5DataIO, NWBFile, TimeSeries
from pynwb.image import ImageSeries

from intake_nwbzarr import check, consolidate, is_fresh, track_requests
from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.checks.report import Report
from intake_nwbzarr.errors import LocationNotFoundError, OptionError
from intake_nwbzarr.hierarchy.hierarchy import open_hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.checks.checked_sessions import chunked, good_session, many_series
from tests.mapping.extension_files import extension_files, without_schemas
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import copy_of, edit, empty_session, write

Corpus = Callable[[str, str], Path]

SERIES = "acquisition/series/data"


def _codes(report: Report) -> dict[str, list[str]]:
    """Return the paths of findings by their code."""
    found: dict[str, list[str]] = {}
    for each in report.findings:
        found.setdefault(each.code, []).append(each.path)
    return found


def _hdf5(path: Path, nwbfile: NWBFile) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(path, "w") as io:
            io.write(nwbfile)
    return path


# Chunks


def test_many_small_chunks_are_a_finding_and_larger_ones_are_not(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=300_000)
    small = check(chunked(tmp_path, "small.nwb.zarr", data, (1000,)))
    assert _codes(small) == {"small-chunks": [SERIES]}
    assert "300 chunks of" in small.findings[0].found
    assert _codes(check(chunked(tmp_path, "larger.nwb.zarr", data, (100_000,)))) == {}
    # In shards, they are not requested one by one.
    sharded = check(chunked(tmp_path, "sharded.nwb.zarr", data, (1000,), shards=(100_000,)))
    assert _codes(sharded) == {}


def test_chunks_too_large_to_read_a_little_are_a_finding(tmp_path: Path) -> None:
    data = np.arange(9 * 2**20) % 1000
    report = check(chunked(tmp_path, "large.nwb.zarr", data, (9 * 2**20,)))
    assert _codes(report) == {"large-chunks": [SERIES]}
    shards = chunked(tmp_path, "sharded.nwb.zarr", data, (2**20,), shards=(9 * 2**20,))
    assert _codes(check(shards)) == {}


def test_a_large_array_without_compression_is_a_hint(tmp_path: Path) -> None:
    data = np.arange(2**21) % 1000
    report = check(chunked(tmp_path, "plain.nwb.zarr", data, (2**19,), compressors=None))
    assert _codes(report) == {"uncompressed": [SERIES]}
    assert report.ok
    assert _codes(check(chunked(tmp_path, "compressed.nwb.zarr", data, (2**19,)))) == {}


def test_chunks_that_are_gone_are_a_finding_by_what_the_format_means(
    corpus_dir: Corpus, tmp_path: Path
) -> None:
    data = np.arange(1, 10_001.0)
    path = chunked(tmp_path, "gone.nwb.zarr", data, (1000,))
    assert _codes(check(path)) == {}
    (path / SERIES / "c/3").unlink()
    report = check(path)
    assert _codes(report) == {"absent-chunks": [SERIES]}
    assert "1 of 10 chunks" in report.findings[0].found
    assert report.ok
    # What is stored of a sharded array, and may be gone, are shards.
    sharded = chunked(tmp_path, "shards.nwb.zarr", data, (1000,), shards=(5000,))
    (sharded / SERIES / "c/1").unlink()
    assert "1 of 2 shards not stored" in check(sharded).findings[0].found
    # Writers of Zarr 2 stored every chunk.
    older = copy_of(corpus_dir("ecephys", "0.8.0"), tmp_path)
    assert "missing-chunks" not in _codes(check(older))
    (older / "units/spike_times/0").unlink()
    report = check(older)
    assert _codes(report)["missing-chunks"] == ["units/spike_times"]
    assert not report.ok


# Formats


def test_zarr_2_pickles_and_schemas_that_are_not_listed_are_findings(
    corpus_dir: Corpus, tmp_path: Path
) -> None:
    path = copy_of(corpus_dir("ecephys", "0.8.0"), tmp_path)
    found = _codes(check(path))
    assert found.keys() == {"zarr-2", "pickled-objects", "schemas-not-consolidated", "regular-timestamps"}
    assert found["pickled-objects"] == [
        "general/extracellular_ephys/electrodes/group",
        "intervals/trials/timeseries",
        "units/electrode_group",
    ]
    assert not is_fresh(path)
    consolidate(path)
    assert is_fresh(path)
    assert "schemas-not-consolidated" not in _codes(check(path))


@pytest.mark.parametrize("kind", ["ecephys", "ophys"])
def test_a_session_of_the_newest_release_has_hints_at_most(kind: str, corpus_dir: Corpus) -> None:
    report = check(corpus_dir(kind, "0.14.0"))
    assert report.ok
    # Its timestamps are those of a rate.
    assert set(_codes(report)) <= {"regular-timestamps"}


def test_amperes_that_were_meant_as_others_are_found_in_a_session_of_the_corpus(corpus_dir: Corpus) -> None:
    # It has stimuli of two amperes.
    assert _codes(check(corpus_dir("icephys", "0.14.0"))) == {
        "implausible-values": [f"stimulus/presentation/stimulus{number}/data" for number in range(4)]
    }


def test_an_hdf5_file_is_a_hint_and_filters_that_are_plugins_are_findings(tmp_path: Path) -> None:
    good = _hdf5(tmp_path / "good.nwb", good_session())
    report = check(good)
    assert _codes(report) == {"hdf5-file": [""]}
    assert (report.format, report.consolidated, report.ok) == ("HDF5", None, True)
    assert f"nwbzarr convert {good} DESTINATION" in str(report)
    assert is_fresh(good)
    with h5py.File(good, "r+") as file:
        data = file["acquisition/raw/data"][()]
        attributes = dict(file["acquisition/raw/data"].attrs)
        del file["acquisition/raw/data"]
        dataset = file["acquisition/raw"].create_dataset(
            "data", data=data, chunks=(500, 4), **hdf5plugin.Zstd(3)
        )
        dataset.attrs.update(attributes)
    report = check(good)
    assert _codes(report) == {"hdf5-file": [""], "filter-plugin": ["acquisition/raw/data"]}
    assert "zstd" in next(each.found for each in report.findings if each.code == "filter-plugin")


def test_metadata_all_over_an_hdf5_file_are_a_finding(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number in range(120):
        # Data between the metadata of series.
        data = H5DataIO(np.arange(12_000.0) + number, chunks=(12_000,))
        nwbfile.add_acquisition(TimeSeries(name=f"aux{number}", data=data, unit="V", rate=10.0))
    report = check(_hdf5(tmp_path / "scattered.nwb", nwbfile))
    assert "scattered-metadata" in _codes(report)
    assert not report.ok


def test_parts_of_an_hdf5_file_that_cannot_be_read_are_findings(tmp_path: Path) -> None:
    path = _hdf5(tmp_path / "parts.nwb", good_session())
    with h5py.File(path, "r+") as file:
        file["acquisition/licks"].attrs["region"] = file["acquisition/licks/data"].regionref[:5]
    report = check(path)
    assert _codes(report) == {"hdf5-file": [""], "unreadable-part": [""]}


# Schemas, and what the mapping warns of


@pytest.mark.slow
def test_an_extension_without_its_schema_is_a_finding(tmp_path: Path) -> None:
    path = extension_files(tmp_path, "holder")["holder"]
    assert "no-schema" not in _codes(check(path))
    uncached = check(without_schemas(path))
    assert "no-schema" in _codes(uncached)
    schema = next((path / "specifications").glob("*holder*/*/*"), None) or next(
        each for each in (path / "specifications").glob("*/*/*") if "core" not in str(each)
    )
    damaged = copy_of(path, tmp_path / "damaged")
    for file in (damaged / "specifications").glob("*/*/*/c"):
        if (
            file.parts[-4] not in {"core", "hdmf-common", "hdmf-experimental"}
            and file.parts[-2] != "namespace"
        ):
            array = zarr.open_array(str(file.parent), mode="r+")
            array[...] = "{"
    assert schema.exists()
    assert "damaged-schema" in _codes(check(damaged))


def test_external_files_whose_frames_do_not_fit_are_a_finding(tmp_path: Path) -> None:
    nwbfile = empty_session()
    movie = ImageSeries(
        name="movie",
        external_file=["a.avi", "b.avi"],
        starting_frame=[0, 40],
        format="external",
        rate=10.0,
        dimension=[4, 4],
        num_samples=80,
        unit="n.a.",
    )
    nwbfile.add_acquisition(movie)
    path = write(tmp_path, nwbfile)
    assert _codes(check(path)) == {}
    edit(
        path,
        "acquisition/movie/external_file",
        lambda each: each["attributes"].update(starting_frame=[0]),
    )
    assert _codes(check(path)) == {"invalid-external-files": ["acquisition/movie"]}


@pytest.mark.slow
def test_more_times_than_xarray_indexes_are_a_hint(tmp_path: Path) -> None:
    report = check(write(tmp_path, many_series(301)))
    assert _codes(report) == {"many-times": [""]}
    assert report.ok


@pytest.mark.slow
def test_findings_of_many_series_are_one_line(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number in range(60):
        # 150 samples of a rate that timestamps repeat.
        times = number + np.arange(150) / 25
        nwbfile.add_acquisition(TimeSeries(name=f"s{number:02}", data=times, unit="s", timestamps=times))
    report = check(write(tmp_path, nwbfile))
    assert len(_codes(report)["regular-timestamps"]) == 60
    lines = [line for line in str(report).splitlines() if "Rate 25 Hz" in line]
    assert len(lines) == 1
    assert "acquisition/s00/timestamps … acquisition/s59/timestamps (60)" in lines[0]


def test_parts_of_series_that_do_not_exist_are_a_finding(corpus_dir: Corpus, tmp_path: Path) -> None:
    path = copy_of(corpus_dir("icephys", "0.14.0"), tmp_path)
    assert "region-out-of-range" not in _codes(check(path))
    column = "general/intracellular_ephys/intracellular_recordings/responses/response"
    array = zarr.open_group(str(path), mode="r+", use_consolidated=False)[column]
    rows = array[:]
    rows["idx_start"][1] = 100_000
    array[:] = rows
    (found,) = (each for each in check(path).findings if each.code == "region-out-of-range")
    assert found.path == column
    assert "1 of" in found.found
    assert "the first at 1" in found.found


# Servers


def test_a_session_that_needs_credentials_is_a_hint(s3_server: S3Server, tmp_path: Path) -> None:
    path = write(tmp_path, good_session())
    for bucket, is_public in ((s3_server.private_bucket, False), (s3_server.public_bucket, True)):
        url = s3_server.upload(bucket, "a.nwb.zarr", path)
        report = check(url, s3_server.signed_options)
        assert report.access.anonymous is is_public
        assert _codes(report) == ({} if is_public else {"not-public": [""]})
        assert report.access.s3 == url
        assert report.access.https == f"{s3_server.endpoint_url}/{bucket}/a.nwb.zarr"
        assert s3_server.secret not in str(report)
        assert s3_server.secret not in repr(report)


@pytest.mark.slow
def test_the_https_form_of_any_key_opens_the_session(s3_server: S3Server, tmp_path: Path) -> None:
    key = "d+1 #x/a%20b?.nwb.zarr"
    s3_server.upload(s3_server.public_bucket, key, write(tmp_path, good_session()))
    report = check(f"s3://{s3_server.public_bucket}/{key}", s3_server.signed_options)
    https = f"{s3_server.endpoint_url}/{s3_server.public_bucket}/d%2B1%20%23x/a%2520b%3F.nwb.zarr"
    assert report.access.https == https
    assert open_hierarchy(https)["acquisition"]


@pytest.mark.slow
def test_a_published_session_has_both_forms_of_its_url_and_a_region(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.as_amazon(monkeypatch)
    s3_server.upload(s3_server.dandi_bucket, "zarr/a", write(tmp_path, good_session()))
    by_https = check("https://dandiarchive.s3.us-east-1.amazonaws.com/zarr/a")
    assert by_https.access.anonymous
    assert by_https.access.s3 == "s3://dandiarchive/zarr/a"
    assert by_https.access.region == "us-east-1"
    by_s3 = check("s3://dandiarchive/zarr/a", {"anon": True})
    assert by_s3.access.https == "https://dandiarchive.s3.us-east-1.amazonaws.com/zarr/a"
    assert by_s3.access.region == "us-east-1"
    assert by_s3.findings == by_https.findings == ()


@pytest.mark.slow
def test_a_check_on_a_server_takes_a_bounded_number_of_requests(s3_server: S3Server, tmp_path: Path) -> None:
    path = write(tmp_path, good_session())
    nodes = len(open_hierarchy(path))
    url = s3_server.upload(s3_server.public_bucket, "bounded.nwb.zarr", path)
    with track_requests() as log:
        report = check(url, s3_server.anonymous_options)
    assert report.requests == log.requests
    # A metadata document for each group and array, one listing, and small arrays that opening reads as well.
    assert log.methods["list"].requests <= 4
    assert report.requests <= 2 * nodes
    assert report.received < 1_500_000


def test_chunks_that_a_bucket_denies_because_they_are_not_stored_are_findings(
    s3_server: S3Server, tmp_path: Path
) -> None:
    nwbfile = empty_session()
    # hdmf-zarr does not store a starting time of 0.
    nwbfile.add_acquisition(TimeSeries(name="series", data=np.ones(5), unit="V", rate=10.0))
    path = write(tmp_path, nwbfile)
    url = s3_server.upload(s3_server.unlisted_bucket, "denied.nwb.zarr", path)
    report = check(url, s3_server.anonymous_options)
    assert "denied-chunks" in _codes(report)
    assert not report.ok
    listed = s3_server.upload(s3_server.public_bucket, "denied.nwb.zarr", path)
    assert _codes(check(listed, s3_server.anonymous_options)) == {}


def test_what_cannot_be_listed_is_told(http_server: StaticServer, tmp_path: Path) -> None:
    write(http_server.root, good_session(), "a.nwb.zarr")
    report = check(f"{http_server.url}/a.nwb.zarr")
    assert report.findings == ()
    assert report.fresh is None
    assert "how many chunks are stored: the storage cannot be listed" in report.unchecked
    assert "whether consolidated metadata are up to date: the storage cannot be listed" in report.unchecked
    assert "not checked" in str(report)
    assert all(each.stored_bytes is None for each in report.costs)


def test_a_group_without_contents_is_no_finding_of_a_session(tmp_path: Path) -> None:
    # `empty-group` is of opening one group.
    assert _codes(check(write(tmp_path, empty_session()))) == {}


def test_a_zip_file_is_checked_as_its_store_is(corpus_dir: Corpus) -> None:
    from tests.conftest import CORPUS

    folder = check(corpus_dir("ecephys", "0.14.0"))
    zipped = check(CORPUS / "ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip")
    assert [each.code for each in zipped.findings] == [each.code for each in folder.findings]
    assert zipped.costs == folder.costs
    assert zipped.fresh


# Costs


@pytest.mark.parametrize("shards", [None, (40_000,)], ids=["chunks", "shards"])
def test_reading_takes_the_requests_and_bytes_that_are_told(
    shards: tuple[int, ...] | None, s3_server: S3Server, tmp_path: Path
) -> None:
    data = np.random.default_rng(0).normal(size=100_000)
    path = chunked(tmp_path, "cost.nwb.zarr", data, (4000,), shards=shards)
    url = s3_server.upload(s3_server.public_bucket, "cost.nwb.zarr", path)
    report = check(url, s3_server.anonymous_options, window=20)
    told = next(each for each in report.costs if each.path == SERIES)
    hierarchy = open_hierarchy(url, s3_server.anonymous_options)
    node = hierarchy[SERIES]
    assert isinstance(node, ArrayNode)
    for cost, key in ((told.whole, ()), (told.window, slice(0, 20_000))):
        assert cost is not None
        with track_requests() as log:
            StoredArray(hierarchy.file, node).read(key)
        assert cost.requests == log.requests
        assert cost.nbytes == pytest.approx(log.bytes, rel=0.06)


def test_costs_follow_what_is_assumed(tmp_path: Path) -> None:
    path = chunked(tmp_path, "cost.nwb.zarr", np.random.default_rng(0).normal(size=300_000), (1000,))
    slow, fast = (
        next(each for each in check(path, **own).costs if each.path == SERIES)
        for own in ({"latency": 0.2, "bandwidth": 1e6}, {"latency": 0.01, "bandwidth": 1e9})
    )
    assert slow.whole.requests == fast.whole.requests == 300
    assert slow.whole.seconds == pytest.approx(0.2 + slow.whole.nbytes / 1e6)
    assert fast.whole.seconds == pytest.approx(0.02, rel=0.2)
    assert slow.whole.money == fast.whole.money > 300 / 1000 * 0.0004
    assert slow.window is not None
    assert slow.window.requests == 10


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        check(tmp_path, latency=0)
    with pytest.raises(OptionError):
        check(tmp_path, inspect="yes")  # type: ignore[arg-type]
    with pytest.raises(LocationNotFoundError):
        check(tmp_path / "nothing.nwb.zarr")
