"""Links of converted sessions: within the file, and to others, which are reached from the new place."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from intake_nwbzarr import convert, open_hierarchy
from intake_nwbzarr.conversion.links import relative_source
from intake_nwbzarr.errors import ConversionWarning
from tests.conversion.sessions import Stored
from tests.hdf5.files import write as write_hdf5
from tests.hierarchy.stores import array, group, write_store
from tests.hierarchy.test_links import link


@pytest.mark.parametrize(
    ("target", "destination", "expected"),
    [
        ("file:///data/raw.nwb.zarr", "file:///data/b.nwb.zarr", "../raw.nwb.zarr"),
        ("file:///data/raw.nwb.zarr", "file:///lab/new/b.nwb.zarr", "../../../data/raw.nwb.zarr"),
        ("s3://bucket/raw.nwb.zarr", "s3://bucket/new/b.nwb.zarr", "../../raw.nwb.zarr"),
        ("s3://bucket/raw.nwb.zarr", "s3://other/b.nwb.zarr", "s3://bucket/raw.nwb.zarr"),
        ("https://example.org/raw.nwb.zarr", "s3://other/b.nwb.zarr", "https://example.org/raw.nwb.zarr"),
        ("file:///data/raw.nwb.zarr", "s3://other/b.nwb.zarr", "/data/raw.nwb.zarr"),
    ],
)
def test_the_source_of_a_link_is_relative_on_one_disk_or_in_one_bucket(
    target: str, destination: str, expected: str
) -> None:
    assert relative_source(target, destination) == expected


def _linked(folder: Path) -> Path:
    write_store(folder / "raw.nwb.zarr", {"acquisition": group(), "acquisition/data": array((7,))})
    attribute = {"_REFERENCE": {"source": "../raw.nwb.zarr", "path": "/acquisition"}}
    return write_store(
        folder / "a.nwb.zarr",
        {
            "a": group(
                _LINKS=[link("data", "/acquisition/data", "../raw.nwb.zarr"), link("own", "/a/data2")],
                target=attribute,
                several=[attribute],
            ),
            "a/data2": array((3,)),
        },
    )


def test_links_to_other_files_lead_to_them_from_the_new_place(tmp_path: Path) -> None:
    source = _linked(tmp_path)
    done = convert(source, tmp_path / "b.nwb.zarr")
    assert (done.links, done.problems) == ({}, {})
    found = open_hierarchy(tmp_path / "b.nwb.zarr")
    assert found.resolve("a/data").hierarchy.location.path == tmp_path / "raw.nwb.zarr"
    assert found.resolve("a/own").path == "a/data2"
    # In another folder the path is another one, and readers have to allow it.
    elsewhere = tmp_path / "new" / "b.nwb.zarr"
    with pytest.warns(ConversionWarning, match=r"'\.\./raw\.nwb\.zarr'.*allow_external"):
        done = convert(source, elsewhere)
    assert done.links == {"../raw.nwb.zarr": "../../raw.nwb.zarr"}
    found = open_hierarchy(elsewhere, {"allow_external": True})
    assert found.resolve("a/data").hierarchy.location.path == tmp_path / "raw.nwb.zarr"
    attributes = found["a"].attributes
    reference = {"_REFERENCE": {"source": "../../raw.nwb.zarr", "path": "/acquisition"}}
    assert (attributes["target"], attributes["several"]) == (reference, [reference])


def test_a_link_that_cannot_be_followed_from_the_destination_is_warned_of(
    bucket: Stored, tmp_path: Path
) -> None:
    with pytest.warns(ConversionWarning, match="is not reached from s3://"):
        done = convert(_linked(tmp_path), bucket.target, destination_options=bucket.options)
    assert done.problems is not None
    assert [*done.problems] == ["../raw.nwb.zarr"]


def test_a_link_to_nothing_is_kept_and_warned_of(tmp_path: Path) -> None:
    source = write_store(
        tmp_path / "a.nwb.zarr", {"a": group(_LINKS=[link("data", "/data", "../gone.nwb.zarr")])}
    )
    with pytest.warns(ConversionWarning, match=r"leads to file:///.*gone\.nwb\.zarr, which cannot be opened"):
        convert(source, tmp_path / "b.nwb.zarr")
    document = json.loads((tmp_path / "b.nwb.zarr" / "a" / "zarr.json").read_text())
    assert document["attributes"]["_LINKS"] == [link("data", "/data", "../gone.nwb.zarr")]


def test_a_file_that_was_renamed_links_to_itself(tmp_path: Path) -> None:
    source = write_store(
        tmp_path / "a.nwb.zarr",
        {"a": group(_LINKS=[link("x", "/a/data", "/elsewhere/a.nwb.zarr")]), "a/data": array((3,))},
    )
    assert convert(source, tmp_path / "b.nwb.zarr").links == {"/elsewhere/a.nwb.zarr": "."}
    assert open_hierarchy(tmp_path / "b.nwb.zarr").resolve("a/x").path == "a/data"


@pytest.mark.parametrize("name", ["raw 1.nwb", "../raw 1.nwb"])
def test_a_link_into_an_hdf5_file_which_other_readers_cannot_follow_is_warned_of(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "sessions"
    folder.mkdir()

    def fill(file: h5py.File) -> None:
        file["acquisition"] = h5py.ExternalLink(name, "/acquisition")

    source = write_hdf5(folder / "a.nwb", fill)
    write_hdf5(folder / name, lambda file: file.create_group("acquisition"))
    with pytest.warns(ConversionWarning, match="other than this package cannot follow a link from Zarr into"):
        done = convert(source, folder / "b.nwb.zarr", verify=False)
    (problem,) = (done.problems or {}).values()
    assert ("allow_external" in problem) == name.startswith("..")


def test_series_that_link_to_each_other_which_pynwb_cannot_read_are_warned_of(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["b/data"] = [1.0, 2.0]
        file["b/other"] = [1.0]
        # Of two names of a dataset the first becomes the dataset, and the second the link.
        file["a/data"] = file["b/data"]
        file["a/timestamps"] = h5py.SoftLink("/b/other")
        file["c/timestamps"] = h5py.SoftLink("/b/other")

    source = write_hdf5(tmp_path / "a.nwb", fill)
    with pytest.warns(ConversionWarning, match="pynwb cannot read objects that link to each other"):
        done = convert(source, tmp_path / "b.nwb.zarr", verify=False)
    assert set(done.problems or {}) == {"/b/other", "/a/data"}
