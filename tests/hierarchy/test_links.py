"""Links and references: followed within the file, across files in bounds, and no further."""

from pathlib import Path

import pytest

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.errors import LinkError, NodeNotFoundError, UnsafePathError
from tests.hierarchy.stores import array, group, write_store


def link(name: str, path: str, source: str = ".") -> dict[str, str]:
    return {"name": name, "path": path, "source": source}


def test_a_link_leads_to_the_stored_object(tmp_path: Path) -> None:
    store = write_store(
        tmp_path / "a.nwb.zarr",
        {"one": group(), "one/data": array((3,)), "two": group(_LINKS=[link("data", "/one/data")])},
    )
    hierarchy = open_hierarchy(store)
    target = hierarchy.resolve("two/data")
    assert target.path == "one/data"
    assert target.hierarchy is hierarchy
    assert target.node.shape == (3,)
    assert hierarchy.members("two") == ("data",)
    assert hierarchy.children("two") == ()
    assert "two/data" not in hierarchy


def test_links_in_the_middle_of_a_path_and_links_to_links_are_followed(tmp_path: Path) -> None:
    store = write_store(
        tmp_path / "a.nwb.zarr",
        {
            "real": group(),
            "real/inner": group(),
            "real/inner/data": array(),
            "alias": group(_LINKS=[link("first", "/alias2/second")]),
            "alias2": group(_LINKS=[link("second", "/real")]),
        },
    )
    assert open_hierarchy(store).resolve("alias/first/inner/data").path == "real/inner/data"


def test_a_circle_of_links_is_an_error(tmp_path: Path) -> None:
    store = write_store(
        tmp_path / "a.nwb.zarr",
        {"a": group(_LINKS=[link("x", "/b/x")]), "b": group(_LINKS=[link("x", "/a/x")])},
    )
    with pytest.raises(LinkError, match="circle"):
        open_hierarchy(store).resolve("a/x")


def test_a_link_to_nothing_names_both_ends(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.nwb.zarr", {"a": group(_LINKS=[link("x", "/gone/data")])})
    with pytest.raises(LinkError, match=r"'a/x'.*'gone'"):
        open_hierarchy(store).resolve("a/x")


@pytest.mark.parametrize("path", ["/../secret", "/a/../../b", "/a//b", "/a\\b", "/%2e%2e/secret"])
def test_a_link_that_would_leave_the_file_is_refused(tmp_path: Path, path: str) -> None:
    store = write_store(tmp_path / "a.nwb.zarr", {"a": group(_LINKS=[link("x", path)])})
    with pytest.raises(UnsafePathError) as raised:
        open_hierarchy(store).resolve("a/x")
    assert (raised.value.location, raised.value.path) == (store.as_uri(), path)


def test_an_external_link_leads_into_the_other_file(tmp_path: Path) -> None:
    write_store(tmp_path / "raw.nwb.zarr", {"acquisition": group(), "acquisition/data": array((7,))})
    store = write_store(
        tmp_path / "processed.nwb.zarr",
        {"a": group(_LINKS=[link("data", "/acquisition/data", "../raw.nwb.zarr")])},
    )
    hierarchy = open_hierarchy(store)
    target = hierarchy.resolve("a/data")
    assert target.node.shape == (7,)
    assert str(target.hierarchy.location).endswith("raw.nwb.zarr")
    assert hierarchy.resolve("a/data").hierarchy is target.hierarchy


@pytest.mark.parametrize(
    "source", ["../../elsewhere/raw.nwb.zarr", "/etc", "https://example.org/x", "s3://bucket/k"]
)
def test_an_external_link_may_not_leave_the_parent_folder(tmp_path: Path, source: str) -> None:
    store = write_store(
        tmp_path / "folder" / "a.nwb.zarr", {"a": group(_LINKS=[link("data", "/acquisition/data", source)])}
    )
    with pytest.raises(LinkError, match="allow_external"):
        open_hierarchy(store).resolve("a/data")


def test_references_are_read_in_every_stored_form(tmp_path: Path) -> None:
    hierarchy = open_hierarchy(write_store(tmp_path / "a.nwb.zarr", {"a": group(), "a/data": array()}))
    for form in (
        "/a/data",
        '{"source": ".", "path": "/a/data"}',
        {"source": ".", "path": "/a/data"},
        {"_REFERENCE": {"source": ".", "path": "/a/data"}},
    ):
        assert hierarchy.reference(form).path == "a/data"
    assert hierarchy.reference("/").path == ""


def test_an_unknown_path_names_the_closest(tmp_path: Path) -> None:
    store = write_store(
        tmp_path / "a.nwb.zarr",
        {"processing": group(), "processing/ecephys": group(), "processing/ecephys/LFP": group()},
    )
    with pytest.raises(NodeNotFoundError) as caught:
        open_hierarchy(store)["acquisition/LFP"]
    assert isinstance(caught.value, KeyError)
    assert (caught.value.location, caught.value.path) == (f"file://{store}", "acquisition/LFP")
    assert caught.value.next_step == "Did you mean 'processing/ecephys/LFP'?"


@pytest.mark.parametrize("source", ["/home/somebody/data/a.nwb.zarr", "C:\\data\\a.nwb.zarr"])
def test_an_absolute_path_of_this_very_file_is_the_file_wherever_it_was_moved(
    tmp_path: Path, source: str
) -> None:
    store = write_store(
        tmp_path / "a.nwb.zarr", {"one": group(_LINKS=[link("x", "/two", source)]), "two": group()}
    )
    hierarchy = open_hierarchy(store)
    assert hierarchy.resolve("one/x").hierarchy is hierarchy
