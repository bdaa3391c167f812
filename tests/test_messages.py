"""The messages that users meet most, word for word, as tests/data/messages.txt holds them.

Each block of that file is the name of a test, the class of its error and the error's text.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import intake
import pytest

import intake_nwbzarr
from intake_nwbzarr import errors
from intake_nwbzarr.location.location import Location, locate

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
    return f"{type(caught.value).__name__}: {caught.value}"


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
