"""Stale consolidated metadata: objects that they do not list are found, or the error says that both agree."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from intake_nwbzarr import consolidate, open_hierarchy, open_nwb, snapshot, track_requests
from intake_nwbzarr.catalog.source import NWBZarrSource
from intake_nwbzarr.errors import (
    LinkError,
    ListingError,
    MetadataError,
    NodeNotFoundError,
    OptionError,
    StaleMetadataWarning,
    UnconsolidatedWarning,
)
from tests.servers.http_server import StaticServer
from tests.session_files import opened

HIDDEN = "acquisition/ElectricalSeriesAP"
RELEASES = ("0.13.0", "0.14.0")


def hide(store: Path, *paths: str) -> None:
    """Make the consolidated metadata older than some objects."""
    document = store / (".zmetadata" if (store / ".zmetadata").exists() else "zarr.json")
    content = json.loads(document.read_text())
    nodes = content.get("consolidated_metadata", content)["metadata"]
    for key in list(nodes):
        if any(key == path or key.startswith(f"{path}/") for path in paths):
            del nodes[key]
    document.write_text(json.dumps(content))


@pytest.fixture(params=RELEASES)
def stale(request: pytest.FixtureRequest, corpus_dir: Callable[[str, str], Path], tmp_path: Path) -> Path:
    store = Path(shutil.copytree(corpus_dir("ecephys", request.param), tmp_path / "stale.nwb.zarr"))
    hide(store, HIDDEN)
    return store


@pytest.mark.parametrize("group", [HIDDEN, [HIDDEN, "units"]])
def test_a_hidden_object_is_found_with_what_is_in_it(stale: Path, group: Any, tmp_path: Path) -> None:
    with pytest.warns(StaleMetadataWarning, match=rf"{HIDDEN}.*nwbzarr consolidate"):
        found = opened(stale, group)
    whole = Path(shutil.copytree(stale, tmp_path / "whole.nwb.zarr"))
    consolidate(whole)
    expected = opened(whole, group)
    xr.testing.assert_equal(found.load(), expected.load())
    assert len(found)


def test_the_flat_view_without_consolidated_metadata_has_everything(stale: Path) -> None:
    assert "ElectricalSeriesAP" not in opened(stale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was asked for
        everything = opened(stale, consolidated=False)
        tree = xr.open_datatree(stale, engine="nwbzarr", consolidated=False)
        assert HIDDEN in xr.open_groups(stale, engine="nwbzarr", consolidated=False) or f"/{HIDDEN}" in list(
            tree.groups
        )
        assert "ElectricalSeriesAP" in everything.nwb.nwbfile.acquisition
    assert "ElectricalSeriesAP" in everything
    assert "ElectricalSeriesAP" not in open_nwb(stale).acquisition
    assert "ElectricalSeriesAP" in open_nwb(stale, consolidated=False).acquisition


def test_intake_takes_the_keyword(stale: Path) -> None:
    source = NWBZarrSource(str(stale), consolidated=False)
    assert "ElectricalSeriesAP" in source.read()
    assert "ElectricalSeriesAP" in source.to_nwb().acquisition


def test_a_hidden_array_in_a_hidden_group_is_found(stale: Path) -> None:
    hide(stale, "acquisition")
    hierarchy = open_hierarchy(stale)
    with pytest.warns(StaleMetadataWarning):
        assert hierarchy[f"{HIDDEN}/data"].shape == (3000, 8)
    assert hierarchy["acquisition"].path == "acquisition"


def test_what_a_link_leads_to_is_found(stale: Path) -> None:
    device = "general/devices/probe0"
    hide(stale, device)
    with pytest.warns(StaleMetadataWarning, match=device):
        target = open_hierarchy(stale).resolve("general/extracellular_ephys/shank0/device")
    assert target.path == device


@pytest.mark.parametrize("release", RELEASES)
def test_an_object_that_is_nowhere_takes_one_round_and_the_error_says_that_both_agree(
    release: str, corpus_dir: Callable[[str, str], Path], http_server: StaticServer
) -> None:
    shutil.copytree(corpus_dir("ecephys", release), http_server.root / "a.nwb.zarr")
    url = f"{http_server.url}/a.nwb.zarr"
    hierarchy = open_hierarchy(url)
    with (
        track_requests() as log,
        pytest.raises(NodeNotFoundError, match="neither stored nor in its consolidated metadata"),
    ):
        hierarchy.resolve("acquisition/nothing", look_up=True)
    assert log.requests == (2 if release == "0.13.0" else 1)
    with (
        track_requests() as log,
        pytest.raises(NodeNotFoundError, match="neither stored nor in its consolidated metadata"),
    ):
        hierarchy["acquisition/nothing"]
    assert log.requests == 0, "a path is asked for once"


def test_a_group_on_a_server_without_listing_says_what_to_do(stale: Path, http_server: StaticServer) -> None:
    shutil.copytree(stale, http_server.root / "a.nwb.zarr")
    with pytest.raises(ListingError, match=HIDDEN):
        opened(f"{http_server.url}/a.nwb.zarr", HIDDEN)
    with pytest.warns(StaleMetadataWarning):
        node = open_hierarchy(f"{http_server.url}/a.nwb.zarr")[f"{HIDDEN}/data"]
    assert node.shape == (3000, 8)


def test_a_link_to_nothing_is_still_an_error(stale: Path) -> None:
    hide(stale, "general/devices/probe0")
    shutil.rmtree(stale / "general/devices/probe0")
    with pytest.raises(LinkError, match="leads to 'general/devices/probe0'"):
        open_hierarchy(stale).resolve("general/extracellular_ephys/shank0/device")


def test_both_forms_are_remembered_apart(stale: Path, http_server: StaticServer) -> None:
    shutil.copytree(stale, http_server.root / "a.nwb.zarr")
    url = f"{http_server.url}/a.nwb.zarr"
    assert HIDDEN not in open_hierarchy(url)
    with pytest.raises(ListingError):
        open_hierarchy(url, consolidated=False)
    assert HIDDEN not in open_hierarchy(url)


def test_consolidated_true_requires_them(stale: Path) -> None:
    assert open_hierarchy(stale, consolidated=True).consolidated
    if (stale / ".zmetadata").exists():
        (stale / ".zmetadata").unlink()
    else:
        document = json.loads((stale / "zarr.json").read_text())
        del document["consolidated_metadata"]
        (stale / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(MetadataError, match="consolidated=True requires") as caught:
        open_hierarchy(stale, consolidated=True)
    assert "nwbzarr consolidate" in str(caught.value.next_step)
    with pytest.warns(UnconsolidatedWarning):
        assert HIDDEN in open_hierarchy(stale)


def test_odd_values_are_refused(stale: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="consolidated"):
        open_hierarchy(stale, consolidated="no")  # type: ignore[arg-type]
    saved = snapshot(stale, path=tmp_path / "a.snapshot.zip")
    with pytest.raises(OptionError, match="snapshot"):
        opened(stale, snapshot=saved, consolidated=False)
    assert "ElectricalSeriesAP" not in opened(stale, snapshot=saved)


def test_consolidating_mends_it(stale: Path) -> None:
    report = consolidate(stale, {"consolidated": False})
    assert HIDDEN in report.added
    assert len(report.added) < report.nodes
    assert "ElectricalSeriesAP" in opened(stale)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("group", ["acquisition", "units"])
def test_a_group_that_is_not_listed_hides_nothing_that_is(
    group: str, release: str, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    whole = corpus_dir("ecephys", release)
    expected = opened(whole)
    store = Path(shutil.copytree(whole, tmp_path / "a.nwb.zarr"))
    document = store / (".zmetadata" if release == "0.13.0" else "zarr.json")
    content = json.loads(document.read_text())
    nodes = content.get("consolidated_metadata", content)["metadata"]
    for key in (group, f"{group}/.zgroup", f"{group}/.zattrs"):
        nodes.pop(key, None)
    document.write_text(json.dumps(content))
    with pytest.warns(StaleMetadataWarning, match=f"The group '{group}' is not listed"):
        found = opened(store)
    assert set(found.variables) == set(expected.variables)
    with pytest.warns(StaleMetadataWarning):
        assert len(open_nwb(store).units.id) == len(expected["units"])
