"""The replicas that other tests read: laid out as the assets they stand for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xarray as xr

from intake_nwbzarr.demo.sessions import imaging_session, write_zarr3
from intake_nwbzarr.demo.zarr2 import write_zarr2
from tests.replica import ECEPHYS, IMAGING, layout, store_as_before
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


def test_what_older_releases_stored_is_the_same_dataset(tmp_path: Path) -> None:
    folders = [tmp_path / f"{name}.nwb.zarr" for name in ("current", "legacy", "older")]
    write_zarr3(imaging_session(frames=60, rois=3, pixels=8), folders[0])
    for folder in folders[1:]:
        write_zarr2(folders[0], folder)
    store_as_before(folders[2])
    metadata = json.loads((folders[2] / ".zmetadata").read_text())["metadata"]
    assert metadata["general/institution/.zarray"]["filters"] == [{"id": "pickle", "protocol": 5}]
    datasets = [xr.open_dataset(folder, engine="nwbzarr").load() for folder in folders]
    for dataset in datasets[1:]:
        xr.testing.assert_equal(dataset, datasets[0])
        assert dataset.attrs["institution"] == datasets[0].attrs["institution"] == "Institute of Examples"
