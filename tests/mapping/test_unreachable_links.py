"""Links into files that are refused or out of reach cost what they lead to, not the session."""

import math
from typing import Any

import pytest
import xarray as xr

from intake_nwbzarr.errors import MappingWarning
from tests.hierarchy.stores import NWB_ROOT, array, group, write_store
from tests.servers.http_server import StaticServer

SERIES = {"neurodata_type": "TimeSeries", "namespace": "core", "description": "d", "comments": "c"}
DATA = {"unit": "V", "conversion": 1.0, "offset": 0.0, "resolution": -1.0}


def _link(name: str, path: str) -> dict[str, str]:
    return {"name": name, "path": path, "source": "../raw.nwb.zarr"}


@pytest.mark.parametrize(
    ("kind", "details", "reason"), [("status", {"status": 403}, "403"), ("status", {"status": 400}, "400")]
)
def test_a_link_that_cannot_be_followed_is_listed_and_its_reason_told(
    http_server: StaticServer, kind: Any, details: dict[str, Any], reason: str
) -> None:
    nodes = {
        "acquisition": group(_LINKS=[_link("elsewhere", "/acquisition/other")]),
        "acquisition/s": group(**SERIES, _LINKS=[_link("timestamps", "/acquisition/other/timestamps")]),
        "acquisition/s/data": array((2,), **DATA),
    }
    write_store(http_server.root / "a.nwb.zarr", {"": group(**NWB_ROOT), **nodes})
    http_server.fault(kind, "raw.nwb.zarr", math.inf, **details)
    with pytest.warns(MappingWarning) as told:
        opened = xr.open_dataset(f"{http_server.url}/a.nwb.zarr", engine="nwbzarr")
    assert opened.attrs["nwb_unmapped"] == ["acquisition/elsewhere"]
    assert opened["s"].shape == (2,)
    messages = [str(warning.message) for warning in told]
    assert any("elsewhere' in" in message and reason in message for message in messages), messages
    assert any("without its 'timestamps'" in message and reason in message for message in messages), messages
