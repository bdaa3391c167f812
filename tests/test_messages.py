"""The messages that users meet most, word for word, as tests/data/messages.txt holds them.

Each block of that file is the name of a test, the class of its error and the error's text.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import intake
import pytest

import intake_nwbzarr
from intake_nwbzarr import errors, open_hierarchy
from intake_nwbzarr.location.location import Location, locate
from tests.hierarchy.stores import array, group, write_store

GOLDEN = Path(__file__).parent / "data" / "messages.txt"


def blocks() -> dict[str, str]:
    parts = (block.partition("\n") for block in GOLDEN.read_text().strip().split("\n\n"))
    return {name: text for name, _, text in parts}


def test_the_blocks_are_sorted_and_each_is_provoked_by_a_test() -> None:
    names = list(blocks())
    assert names == sorted(name for name in globals() if name.startswith("test_message_"))


def message_of(call: Callable[[], object]) -> str:
    """Return the class and text of the error of a call, as a block of the golden file holds them."""
    with pytest.raises(errors.NWBZarrError) as caught:
        call()
    return f"{type(caught.value).__name__}: {caught.value}".replace(str(Path.cwd()), "/here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, which messages show as /here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def expected(request: pytest.FixtureRequest) -> str:
    return blocks()[request.node.originalname or request.node.name]


def test_message_limit_not_a_number(expected: str) -> None:
    assert message_of(lambda: intake_nwbzarr.set_limits(requests=0)) == expected


def test_message_limit_too_small(expected: str) -> None:
    assert message_of(lambda: intake_nwbzarr.set_limits(bytes_in_flight="1 kB")) == expected


def test_message_keyword_is_a_storage_option(expected: str) -> None:
    call = intake_nwbzarr.open_nwb
    assert message_of(lambda: call("s3://bucket/a.nwb.zarr", anon=True)) == expected  # type: ignore[call-arg]


def test_message_location_credentials_incomplete(expected: str) -> None:
    assert message_of(lambda: locate("s3://bucket/a.nwb.zarr", {"key": "k"})) == expected


def test_message_location_dandi_page(expected: str) -> None:
    assert message_of(lambda: locate("https://dandiarchive.org/dandiset/000719")) == expected


def test_message_location_link_outside(expected: str) -> None:
    location = locate("s3://bucket/day/a.nwb.zarr")
    assert message_of(lambda: location.sibling("s3://other/raw.nwb.zarr")) == expected


def test_message_location_looks_like_a_url(expected: str) -> None:
    assert message_of(lambda: locate("https:/me:pw@host/a.nwb.zarr")) == expected


def test_message_location_not_opened_here(expected: str) -> None:
    attributes = {"nwb_location": "s3://bucket/unknown.nwb.zarr"}
    assert message_of(lambda: Location.from_attributes(attributes)) == expected


def test_message_location_of_a_wrong_type(expected: str) -> None:
    location: Any = 17
    assert message_of(lambda: locate(location)) == expected


def test_message_location_scheme_unknown(expected: str) -> None:
    assert message_of(lambda: locate("s3n://bucket/a.nwb.zarr")) == expected


def test_message_storage_option_not_for_s3(expected: str) -> None:
    assert message_of(lambda: locate("s3://bucket/a.nwb.zarr", {"anno": True})) == expected


def test_message_storage_option_not_true_or_false(expected: str) -> None:
    assert message_of(lambda: locate("s3://bucket/a.nwb.zarr", {"anon": "perhaps"})) == expected


def test_message_storage_options_not_a_dictionary(expected: str) -> None:
    options: Any = "anon"
    assert message_of(lambda: locate("s3://bucket/a.nwb.zarr", options)) == expected


def test_message_catalog_chunks(expected: str) -> None:
    assert message_of(lambda: intake.open_nwbzarr("s3://bucket/a.nwb.zarr", chunks=0).read()) == expected


def test_message_catalog_credential_empty(expected: str) -> None:
    options = {"key": "None", "secret": "None"}
    source = intake.open_nwbzarr("s3://bucket/a.nwb.zarr", storage_options=options)
    assert message_of(source.read) == expected


def test_message_catalog_credential_masked(expected: str) -> None:
    options = {"key": "****", "secret": "****"}
    source = intake.open_nwbzarr("s3://bucket/a.nwb.zarr", storage_options=options)
    assert message_of(source.read) == expected


def test_message_catalog_variable_not_set(expected: str) -> None:
    assert message_of(intake.open_nwbzarr("s3://None/a.nwb.zarr").read) == expected


def test_message_open_consolidated_required(expected: str, here: Path) -> None:
    write_store(here / "a.nwb.zarr", {}, consolidated=False)
    assert message_of(lambda: open_hierarchy("a.nwb.zarr", consolidated=True)) == expected


def test_message_open_damaged_array(expected: str, here: Path) -> None:
    write_store(here / "a.nwb.zarr", {"x": array() | {"data_type": "int17"}})
    assert message_of(lambda: open_hierarchy("a.nwb.zarr")["x"]) == expected


def test_message_open_damaged_document(expected: str, here: Path) -> None:
    (here / "zarr.json").write_text('{"zarr_format": 3, "node_type": "gr')
    assert message_of(lambda: open_hierarchy(here)) == expected


def test_message_open_file_that_is_not_zarr(expected: str, here: Path) -> None:
    (here / "notes.txt").write_text("This is not a Zarr store.")
    assert message_of(lambda: open_hierarchy("notes.txt")) == expected


def test_message_open_folder_that_is_not_zarr(expected: str, here: Path) -> None:
    (here / "notes.txt").write_text("This is not a Zarr store.")
    assert message_of(lambda: open_hierarchy(here)) == expected


def test_message_open_hdf5_file(expected: str, here: Path) -> None:
    (here / "a.nwb").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert message_of(lambda: open_hierarchy("a.nwb")) == expected


def test_message_open_link_in_a_circle(expected: str, here: Path) -> None:
    links = [{"name": "x", "source": ".", "path": "/a/x"}]
    write_store(here / "a.nwb.zarr", {"a": group(_LINKS=links)})
    assert message_of(lambda: open_hierarchy("a.nwb.zarr").resolve("a/x")) == expected


def test_message_open_node_not_found(expected: str, here: Path) -> None:
    write_store(here / "a.nwb.zarr", {"processing": group(), "processing/units": group()})
    assert message_of(lambda: open_hierarchy("a.nwb.zarr")["units"]) == expected


def test_message_open_nothing_stored(expected: str, here: Path) -> None:
    assert message_of(lambda: open_hierarchy("missing.nwb.zarr")) == expected


def test_message_open_zarr_that_is_not_nwb(expected: str, here: Path) -> None:
    write_store(here / "a.zarr", {"": group(), "x": array()})
    assert message_of(lambda: open_hierarchy("a.zarr")) == expected
