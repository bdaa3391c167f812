"""What a session in HDF5 can do is what its Zarr form can: views, snapshots, downloads, tables, links."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import intake
import numpy as np
import pytest
import xarray as xr
from distributed import Client
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBHDF5IO, H5DataIO, NWBFile, TimeSeries
from pynwb.icephys import CurrentClampSeries, IZeroClampSeries, VoltageClampSeries
from pynwb.ophys import ImageSegmentation, OpticalChannel

import intake_nwbzarr
from intake_nwbzarr import (
    consolidate,
    download,
    open_hierarchy,
    open_nwb,
    scan,
    snapshot,
    track_requests,
    verify,
)
from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.catalog.reader import NWBZarrReader
from intake_nwbzarr.checks.chunks import count_chunks
from intake_nwbzarr.copies import download_file
from intake_nwbzarr.errors import (
    DownloadError,
    DownloadWarning,
    HDF5FileError,
    LinkError,
    StaleSnapshotError,
    TransportError,
    UnreadableWarning,
)
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.hdf5.conftest import Forms
from tests.hdf5.files import write
from tests.hdf5.test_everywhere import load
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import edit, empty_session

# Ranges by which a download looks what is there.
LOOKS = {"bytes=0-7", "bytes=0-0"}


@pytest.fixture
def served(forms: Forms, http_server: StaticServer) -> str:
    """The URL of the HDF5 file, without an extension, on a web server."""
    shutil.copyfile(forms.hdf5, http_server.root / "session")
    return f"{http_server.url}/session"


def without_location(tree: xr.DataTree) -> xr.DataTree:
    """Return a tree without the attributes that say where it is from."""
    for node in tree.subtree:
        for holder in (node, *node.variables.values()):
            for name in ("nwb_location", "nwb_storage_options"):
                holder.attrs.pop(name, None)
    return tree


def test_trees_and_single_objects_are_the_same(imaging_forms: Forms, forms: Forms) -> None:
    for each in (forms, imaging_forms):
        trees = [
            without_location(xr.open_datatree(path, engine="nwbzarr").load())
            for path in (each.zarr, each.hdf5)
        ]
        xr.testing.assert_identical(trees[1], trees[0])
    units = [xr.open_dataset(path, engine="nwbzarr", group="units") for path in (forms.zarr, forms.hdf5)]
    xr.testing.assert_equal(units[1], units[0])


def test_a_dataset_leads_back_to_its_file(served: str) -> None:
    dataset = xr.open_dataset(served, engine="nwbzarr", group="units")
    assert dataset.nwb.nwbfile.identifier == "demo-spiking"
    assert "demo-spiking" in str(dataset.nwb.nwbfile)
    copied = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copied["spike_times"], dataset["spike_times"])
    assert copied.nwb.nwbfile.identifier == "demo-spiking"


@pytest.mark.slow
def test_a_worker_reads_its_first_chunk_without_the_metadata(
    served: str, http_server: StaticServer, forms: Forms
) -> None:
    lazy = xr.open_dataset(served, engine="nwbzarr", group="units", chunks={})["spike_times"]
    expected = xr.open_dataset(forms.zarr, engine="nwbzarr", group="units")["spike_times"].load()
    with Client(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as client:
        xr.testing.assert_equal(client.compute(lazy).result(), expected)


def test_verify_compares_with_the_hdf5_library(imaging_forms: Forms, served: str) -> None:
    for place in (imaging_forms.hdf5, served):
        found = verify(place)
        assert found.equal
        assert (found.different, found.unshown) == ((), ())
        assert found.chunks is not None
        assert found.chunks.expected == found.chunks.stored > 0


def test_verify_finds_objects_without_ids_by_their_place(tmp_path: Path, imaging_forms: Forms) -> None:
    # As NWB 2.0 wrote them.
    path = tmp_path / "old.nwb"
    shutil.copyfile(imaging_forms.hdf5, path)

    def change(name: str, item: Any) -> None:
        if item.attrs.pop("object_id", None) is not None and not name.startswith("specifications"):
            item.attrs["help"] = "a text of the schema"

    with h5py.File(path, "a") as file:
        change("", file)
        file.visititems(change)
    found = verify(path)
    assert (found.different, found.unshown) == ((), ())
    assert len(found.equal) == len(verify(imaging_forms.hdf5).equal)


def test_verify_follows_links_to_other_files(tmp_path: Path) -> None:
    def session(name: str, data: Any) -> None:
        nwbfile = NWBFile(name, name, datetime(2024, 1, 1, tzinfo=UTC))
        nwbfile.add_acquisition(TimeSeries(name=name, data=data, unit="V", rate=10.0))
        with NWBHDF5IO(str(tmp_path / f"{name}.nwb"), "w") as io:
            io.write(nwbfile)

    session("own", np.arange(5.0))
    session("linked", np.arange(7.0))
    path = tmp_path / "own.nwb"
    with h5py.File(path, "a") as file:
        file["acquisition/linked"] = h5py.ExternalLink("linked.nwb", "/acquisition/linked")
    found = verify(path)
    assert (found.different, found.unshown) == ((), ())
    assert ("acquisition/linked", "data") in {(each.path, each.name) for each in found.equal}


def test_verify_compares_units_that_pynwb_replaces_with_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "clamp.nwb"
    nwbfile = NWBFile("Clamp", "clamp", datetime(2024, 1, 1, tzinfo=UTC))
    electrode = nwbfile.create_icephys_electrode(
        name="electrode", description="sharp", device=nwbfile.create_device("amplifier")
    )
    for kind in (CurrentClampSeries, VoltageClampSeries, IZeroClampSeries):
        own = {} if kind is IZeroClampSeries else {"stimulus_description": "step"}
        series = kind(name=kind.__name__, data=np.arange(5.0), electrode=electrode, gain=1.0, rate=1.0, **own)
        nwbfile.add_acquisition(series)
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)
    with h5py.File(path, "a") as file:
        for series in file["acquisition"].values():
            series["data"].attrs["unit"] = "mV"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = verify(path)
    assert (found.different, found.unshown) == ((), ())


def test_verify_compares_the_fields_of_pixel_masks(tmp_path: Path) -> None:
    path = tmp_path / "masks.nwb"
    nwbfile = NWBFile("Masks", "masks", datetime(2024, 1, 1, tzinfo=UTC))
    plane = nwbfile.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel(name="channel", description="green", emission_lambda=500.0),
        description="a plane",
        device=nwbfile.create_device("microscope"),
        excitation_lambda=600.0,
        indicator="GCaMP",
        location="V1",
    )
    segmentation = ImageSegmentation(name="segmentation")
    nwbfile.create_processing_module("ophys", "imaging").add(segmentation)
    masks = segmentation.create_plane_segmentation(name="rois", description="rois", imaging_plane=plane)
    for number in range(4):
        masks.add_roi(pixel_mask=[(x, number, 0.5) for x in range(number + 1)])
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)
    found = verify(path)
    assert (found.different, found.unshown) == ((), ())
    assert {"pixel_mask_x", "pixel_mask_y", "pixel_mask_weight"} <= {each.name for each in found.equal}


def test_chunks_are_counted_by_the_tables_of_the_file(tmp_path: Path, forms: Forms) -> None:
    path = tmp_path / "sub-1.nwb"
    shutil.copyfile(forms.hdf5, path)
    with h5py.File(path, "a") as file:
        data = file.create_dataset("acquisition/sparse", (100,), "f8", chunks=(10,))
        data[25:45] = 1.0
    counts = count_chunks(open_hierarchy(path))
    assert counts is not None
    assert {each.path: (each.expected, each.stored) for each in counts.incomplete} == {
        "acquisition/sparse": (10, 3)
    }


def test_consolidating_is_not_needed_and_says_so(forms: Forms) -> None:
    with pytest.raises(HDF5FileError, match="need not be consolidated"):
        consolidate(forms.hdf5)


def test_a_snapshot_opens_with_one_conditional_request_or_none_and_has_the_chunk_tables(
    served: str, http_server: StaticServer, tmp_path: Path
) -> None:
    saved = snapshot(served, path=tmp_path / "one.snapshot.zip")
    expected = load(served)
    http_server.reset()
    dataset = xr.open_dataset(served, engine="nwbzarr", snapshot=saved)
    assert [seen.status for seen in http_server.requests] == [304]
    assert xr.open_datatree(served, engine="nwbzarr", snapshot=saved, verify=False).groups
    assert http_server.count() == 1
    for name in expected.variables:
        np.testing.assert_array_equal(dataset[name], expected[name])
    # Ranges of chunks, and no metadata: nothing that begins the file.
    assert not [
        seen for seen in http_server.requests[1:] if seen.headers.get("Range", "").startswith("bytes=0-")
    ]


def test_a_snapshot_of_a_file_that_was_replaced_is_stale(
    served: str, http_server: StaticServer, imaging_forms: Forms, tmp_path: Path
) -> None:
    saved = snapshot(served, path=tmp_path / "one.snapshot.zip")
    shutil.copyfile(imaging_forms.hdf5, http_server.root / "session")
    with pytest.raises(StaleSnapshotError):
        xr.open_dataset(served, engine="nwbzarr", snapshot=saved)


def test_a_download_is_the_file_itself_and_is_only_fetched_when_it_has_changed(
    served: str, http_server: StaticServer, forms: Forms, imaging_forms: Forms, tmp_path: Path
) -> None:
    target = tmp_path / "copies" / "sub-1.nwb"
    done = download(served, target)
    assert target.read_bytes() == forms.hdf5.read_bytes()
    assert (done.objects, done.fetched, done.bytes) == (1, 1, forms.hdf5.stat().st_size)
    assert done.chunks is not None
    assert open_nwb(target).identifier == "demo-spiking"
    http_server.reset()
    assert download(served, target).fetched == 0
    assert all(seen.headers.get("Range") in LOOKS for seen in http_server.requests)
    shutil.copyfile(imaging_forms.hdf5, http_server.root / "session")
    assert download(served, target).fetched == 1
    assert target.read_bytes() == imaging_forms.hdf5.read_bytes()
    assert sorted(path.name for path in target.parent.iterdir()) == [
        ".sub-1.nwb.nwbzarr-download.jsonl",
        "sub-1.nwb",
    ]


def test_a_download_resumes_with_the_pieces_that_are_missing(
    served: str, http_server: StaticServer, forms: Forms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_file, "PIECE", 65_536)
    monkeypatch.setattr(download_file, "AT_ONCE", 1)
    target = tmp_path / "sub-1.nwb"
    options = {"timeouts": {"attempts": 1}}
    http_server.fault("status", "session", times=100, after=8, status=500)
    with pytest.raises(TransportError):
        download(served, target, options)
    assert not target.exists()
    assert (tmp_path / "sub-1.nwb.partial").exists()
    http_server.reset()
    download(served, target, options)
    assert target.read_bytes() == forms.hdf5.read_bytes()
    pieces = -(-forms.hdf5.stat().st_size // 65_536)
    fetched = [
        seen
        for seen in http_server.requests
        if seen.headers.get("Range", "") not in {"bytes=0-7", "bytes=0-0"}
    ]
    assert 0 < len(fetched) < pieces


def test_a_damaged_copy_is_fetched_again_and_other_files_are_not_replaced(
    served: str, forms: Forms, tmp_path: Path
) -> None:
    target = tmp_path / "sub-1.nwb"
    download(served, target)
    damaged = bytearray(target.read_bytes())
    damaged[-10] ^= 1
    target.write_bytes(damaged)
    assert download(served, target).fetched == 1
    assert target.read_bytes() == forms.hdf5.read_bytes()
    other = tmp_path / "mine.nwb"
    other.write_text("mine")
    with pytest.raises(DownloadError, match="not an earlier download"):
        download(served, other)
    with pytest.raises(DownloadError, match="is not a file"):
        download(served, tmp_path)
    assert other.read_text() == "mine"


def test_the_chunk_cache_keeps_what_was_read(served: str, http_server: StaticServer, tmp_path: Path) -> None:
    options = {"chunk_cache": str(tmp_path / "cache")}
    first = load(served, options)
    received = sum(seen.status == 206 for seen in http_server.requests)
    assert received
    http_server.reset()
    with track_requests() as log:
        xr.testing.assert_identical(load(served, options | {"revalidate": False}), first)
    assert log.bytes_cached > 0


def test_with_a_chunk_cache_the_file_is_asked_for_once_whether_it_has_changed(
    http_server: StaticServer, tmp_path: Path
) -> None:
    numbers = np.random.default_rng(0).random(200_000)
    write(
        http_server.root / "cached.nwb",
        lambda file: file.create_dataset("x", data=numbers, chunks=(10_000,), compression="gzip"),
    )
    options = {"chunk_cache": str(tmp_path / "cache")}

    def requests() -> int:
        http_server.reset()
        hierarchy = open_hierarchy(f"{http_server.url}/cached.nwb", options)
        np.testing.assert_array_equal(StoredArray(hierarchy.file, hierarchy["x"]).read(()), numbers)
        return http_server.count()

    assert requests() > 2
    assert requests() == requests() == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*compression may not be available:UserWarning")
@pytest.mark.parametrize("name", ["zstd", "bitshuffle"])
def test_verify_reads_what_plugins_compressed(name: str, tmp_path: Path) -> None:
    """In a process that has not imported hdf5plugin, as that of the command."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    compressor = {"zstd": hdf5plugin.Zstd, "bitshuffle": hdf5plugin.Bitshuffle}[name]()
    nwbfile = empty_session()
    data = H5DataIO(np.arange(1000.0), chunks=(100,), allow_plugin_filters=True, **compressor)
    nwbfile.add_acquisition(TimeSeries(name="one", data=data, unit="V", rate=1.0))
    path = tmp_path / "plugin.nwb"
    with NWBHDF5IO(path, "w") as io:
        io.write(nwbfile)
    command = [sys.executable, "-W", "ignore", "-m", "intake_nwbzarr", "verify", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert " 0 different, 0 not shown." in done.stdout


def test_only_what_is_opened_is_warned_of(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for name in ("good", "bad"):
            group = file.create_group(f"acquisition/{name}")
            group.attrs.update(neurodata_type="TimeSeries", namespace="core", object_id=name)
            group["data"] = np.arange(5.0)
            group["data"].attrs["unit"] = "V"
            group["timestamps"] = np.arange(5.0)
        file["acquisition/bad"].create_dataset("lists", (2,), h5py.vlen_dtype("i4"))

    path = write(tmp_path / "some.nwb", fill)
    options = {"engine": "nwbzarr"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.open_dataset(path, group="acquisition/good", **options)
    for group in ("acquisition/bad", None):
        with pytest.warns(UnreadableWarning, match="acquisition/bad/lists"):
            xr.open_dataset(path, group=group, **options)


def test_a_truncated_file_is_downloaded_with_a_warning(http_server: StaticServer, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.nwb", lambda file: file.create_dataset("x", data=np.arange(1000.0)))
    (http_server.root / "cut.nwb").write_bytes(whole.read_bytes()[:5000])
    with pytest.warns(DownloadWarning, match="cannot be opened.*truncated"):
        done = download(f"{http_server.url}/cut.nwb", tmp_path / "copy.nwb")
    assert (done.bytes, done.chunks) == (5000, None)


def test_catalog_entries_open_it(served: str, forms: Forms) -> None:
    entry = intake.open_nwbzarr(served)
    read = entry.read().load()
    np.testing.assert_array_equal(read["units_spike_times"], load(forms.zarr)["units_spike_times"])
    assert NWBZarrReader(served).read().sizes == read.sizes


# Tables of many sessions.


@pytest.fixture
def lab(forms: Forms, imaging_forms: Forms, tmp_path: Path) -> Path:
    """A folder of sessions in both forms, and of other files."""
    root = tmp_path / "lab"
    for number, form in enumerate((forms.hdf5, forms.zarr, imaging_forms.hdf5)):
        target = root / f"sub-{number}" / form.name
        target.parent.mkdir(parents=True)
        shutil.copytree(form, target) if form.is_dir() else shutil.copyfile(form, target)
    (root / "sub-0" / "copy.hdf5").write_bytes(forms.hdf5.read_bytes())
    with h5py.File(root / "sub-0" / "other.h5", "w") as file:
        file["x"] = np.arange(3)
    (root / "sub-0" / "text.nwb").write_text("a text that is longer than a signature")
    return root


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    rows = Tables(locate(output)).opened().read("sessions").to_pylist()
    return {"/".join(row["location"].split("/")[-2:]): row for row in rows}


def test_a_scan_has_a_row_for_sessions_in_hdf5_as_for_others(
    lab: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    options = s3_server.anonymous_options
    url = s3_server.upload(s3_server.public_bucket, "lab-of-both", lab)
    for prefix, storage_options in ((lab, None), (url, options)):
        output = tmp_path / f"{'s3' if storage_options else 'local'}.parquet"
        report = scan(prefix, output=output, storage_options=storage_options, storage="lab")
        rows = rows_of(output)
        assert (report.scanned, report.hdf5, report.not_nwb) == (5, 1, 0)
        assert [each.location.rpartition("/")[2] for each in report.failures] == ["text.nwb"]
        assert rows["sub-0/text.nwb"]["error_type"] == "NotZarrError"
        hdf5, zarr = rows["sub-0/sub-1.nwb"], rows["sub-1/sub-1.nwb.zarr"]
        assert (hdf5["format"], hdf5["zarr_format"], hdf5["consolidated"]) == ("hdf5", None, None)
        assert (zarr["format"], zarr["zarr_format"], zarr["consolidated"]) == ("zarr", 3, True)
        assert rows["sub-0/copy.hdf5"]["format"] == "hdf5"
        for column in (
            "identifier",
            "species",
            "unit_count",
            "trial_count",
            "object_count",
            "start",
        ):
            assert hdf5[column] == zarr[column], column
        assert hdf5["etag"]
        if storage_options:
            # Most columns are in the ranges that opening reads.
            assert hdf5["requests"] <= 10
            assert hdf5["not_read"] == []
        again = scan(prefix, output=output, storage_options=storage_options, storage="lab")
        assert (again.unchanged, again.scanned, again.hdf5) == (4, 1, 1)


def test_a_list_of_locations_is_scanned_and_asked_for_once_again(
    served: str, http_server: StaticServer, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(f"{served}\n")
    scan(tmp_path / "list.txt", output=tmp_path / "table.parquet")
    http_server.reset()
    report = scan(tmp_path / "list.txt", output=tmp_path / "table.parquet")
    assert (report.unchanged, report.requests) == (1, 1)
    assert [seen.status for seen in http_server.requests] == [304]


def test_tables_searches_and_maps_work_on_both_forms(lab: Path, tmp_path: Path) -> None:
    scan(lab, output=tmp_path / "table.parquet")
    sessions = intake.open_nwbzarr_sessions(str(tmp_path / "table.parquet"))
    found = sessions.search(units=intake_nwbzarr.Find("Units"))
    assert sorted(key.rpartition("/")[2] for key in found) == ["copy.hdf5", "sub-1.nwb", "sub-1.nwb.zarr"]
    frame = found.table("units")
    counts = frame.groupby(frame.index.get_level_values(0)).size()
    assert counts.nunique() == 1
    done = found.map(lambda units: int(units.sizes["unit"]))
    assert set(done.frame.iloc[:, -1]) == set(counts)
    assert not len(done.failures)


def test_snapshots_in_tables_open_hdf5_sessions(lab: Path, tmp_path: Path) -> None:
    scan(lab / "sub-0" / "sub-1.nwb", output=tmp_path / "table.parquet", snapshots=True)
    (row,) = rows_of(tmp_path / "table.parquet").values()
    assert row["snapshot"]


# Links.


def linked(path: Path, target: str, name: str = "linked") -> Path:
    """Write a file whose acquisition links to an object of another one."""
    with NWBHDF5IO(str(path), "w") as io:
        io.write(empty_session())
    with h5py.File(path, "a") as file:
        file["acquisition"][name] = h5py.ExternalLink(target, "/units")
    return path


@pytest.mark.parametrize("form", ["hdf5", "zarr"])
def test_an_external_link_leads_to_either_form(
    form: str, forms: Forms, tmp_path: Path, http_server: StaticServer
) -> None:
    source = getattr(forms, form)
    if source.is_dir():
        shutil.copytree(source, tmp_path / source.name)
    else:
        shutil.copyfile(source, tmp_path / source.name)
    path = linked(tmp_path / "linking.nwb", source.name)
    (http_server.root / "both").symlink_to(tmp_path)
    expected = xr.open_dataset(source, engine="nwbzarr", group="units")
    for place in (str(path), f"{http_server.url}/both/linking.nwb"):
        found = xr.open_dataset(place, engine="nwbzarr", group="acquisition/linked")
        np.testing.assert_array_equal(found["spike_times"], expected["spike_times"])
        target = open_hierarchy(place).resolve("acquisition/linked")
        assert target.hierarchy.location.is_hdf5 is (form == "hdf5")


def test_a_link_of_a_zarr_store_leads_to_an_hdf5_file(forms: Forms, tmp_path: Path) -> None:
    shutil.copyfile(forms.hdf5, tmp_path / "target.nwb")
    store = Path(shutil.copytree(forms.zarr, tmp_path / "linking.nwb.zarr"))
    entry = {"name": "linked", "source": "../target.nwb", "path": "/units"}
    edit(store, "acquisition", lambda each: each["attributes"].setdefault("_LINKS", []).append(entry))
    target = open_hierarchy(store).resolve("acquisition/linked")
    assert target.hierarchy.location.is_hdf5
    found = xr.open_dataset(store, engine="nwbzarr", group="acquisition/linked")
    expected = xr.open_dataset(forms.zarr, engine="nwbzarr", group="units")
    np.testing.assert_array_equal(found["spike_times"], expected["spike_times"])


def test_a_link_out_of_the_folder_is_not_followed(forms: Forms, tmp_path: Path) -> None:
    path = linked(tmp_path / "linking.nwb", str(forms.hdf5))
    with pytest.raises(LinkError, match="outside its parent folder"):
        open_hierarchy(path).resolve("acquisition/linked")
    assert open_hierarchy(path, {"allow_external": True}).resolve("acquisition/linked").path == "units"


def session_with_links() -> NWBFile:
    """A session whose second series has the timestamps of the first, by a link."""
    nwbfile = empty_session()
    first = TimeSeries(name="first", data=np.arange(5.0), unit="V", timestamps=np.arange(5.0) + 1)
    nwbfile.add_acquisition(first)
    nwbfile.add_acquisition(TimeSeries(name="second", data=np.arange(5.0), unit="V", timestamps=first))
    return nwbfile


@pytest.mark.parametrize("form", ["hdf5", "zarr"])
def test_links_of_a_linked_file_are_followed_in_that_file(form: str, tmp_path: Path) -> None:
    """hdmf-zarr 0.14 itself looks for them in the file that was opened."""
    write: Any = NWBHDF5IO if form == "hdf5" else NWBZarrIO
    name = "target.nwb" if form == "hdf5" else "target.nwb.zarr"
    with write(str(tmp_path / name), "w") as io:
        io.write(session_with_links())
    path = tmp_path / "linking.nwb"
    with NWBHDF5IO(str(path), "w") as io:
        io.write(empty_session())
    with h5py.File(path, "a") as file:
        file["acquisition/second"] = h5py.ExternalLink(name, "/acquisition/second")
    assert open_nwb(path).acquisition["second"].timestamps[:].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    found = xr.open_dataset(path, engine="nwbzarr", group="acquisition/second")
    assert found["time"].values.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
