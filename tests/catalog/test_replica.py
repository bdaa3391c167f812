"""The replicas that other tests read: laid out as the assets they stand for."""

from __future__ import annotations

import json

import pytest

from tests.replica import ECEPHYS, IMAGING, layout
from tests.servers.http_server import StaticServer


@pytest.mark.parametrize(("place", "name"), [(IMAGING, "dandi-000719-ophys"), (ECEPHYS, "dandi-ecephys")])
def test_a_replica_has_the_arrays_and_the_chunking_of_its_asset(
    place: str, name: str, archive: StaticServer
) -> None:
    documents = json.loads((archive.root / place / ".zmetadata").read_text())["metadata"]
    arrays = {
        key.removesuffix("/.zarray"): value for key, value in documents.items() if key.endswith(".zarray")
    }
    asset = layout(name)
    assert set(arrays) == set(asset)
    for path, array in arrays.items():
        grid = [-(-length // step) for length, step in zip(array["shape"], array["chunks"], strict=True)]
        assert [count > 1 for count in grid] == [count > 1 for count in asset[path].grid], path
        separator = array["dimension_separator"]
        last = separator.join(str(count - 1) for count in grid)
        assert (archive.root / place / path / last).is_file()
