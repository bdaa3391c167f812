"""Metadata documents that are stray, damaged, or no documents at all."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
import zarr

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.errors import MappingWarning, MetadataError, NWBZarrError, UnconsolidatedWarning
from tests.hierarchy.stores import array, group, write_store
from tests.servers.http_server import StaticServer

Corpus = Callable[[str, str], Path]
PAGE = "\ufeff \n<!DOCTYPE html><html><body>Not here</body></html>"
STRAY = {
    "an empty group": '{"zarr_format": 3, "node_type": "group", "attributes": {}}',
    "a consolidated empty group": json.dumps(
        group() | {"consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": {}}}
    ),
    "an empty file": "",
    "half a document": '{"zarr_format": 3, "node_ty',
    "a list": "[1]",
    "a web page": PAGE,
}


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("stray", STRAY)
def test_a_zarr_3_document_beside_a_whole_zarr_2_session_does_not_hide_it(
    stray: str, consolidated: bool, corpus_dir: Corpus, tmp_path: Path
) -> None:
    expected = open_hierarchy(corpus_dir("icephys", "0.8.0"))
    store = Path(shutil.copytree(corpus_dir("icephys", "0.8.0"), tmp_path / "a.nwb.zarr"))
    (store / "zarr.json").write_text(STRAY[stray], encoding="utf-8")
    if not consolidated:
        (store / ".zmetadata").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconsolidatedWarning)
        found = open_hierarchy(store)
    assert set(expected) <= set(found)
    assert found.zarr_format == 2


def test_zarr_itself_leaves_such_a_document_when_it_opens_a_session_to_append(
    corpus_dir: Corpus, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(corpus_dir("icephys", "0.8.0"), tmp_path / "a.nwb.zarr"))
    zarr.open_group(str(store), mode="a", zarr_format=3)
    assert (store / "zarr.json").exists()
    assert len(open_hierarchy(store)) > 20


@pytest.mark.parametrize("release", ["0.8.0", "0.14.0"])
def test_a_server_that_answers_with_a_page_for_what_is_missing_is_read(
    release: str, corpus_dir: Corpus, http_server: StaticServer
) -> None:
    store = Path(shutil.copytree(corpus_dir("icephys", release), http_server.root / "a.nwb.zarr"))
    missing = "zarr.json" if release == "0.8.0" else ".zmetadata"
    (store / missing).write_text(PAGE, encoding="utf-8")
    assert len(open_hierarchy(f"{http_server.url}/a.nwb.zarr")) > 20


def test_a_server_of_pages_only_holds_no_session(http_server: StaticServer) -> None:
    folder = http_server.root / "a.nwb.zarr"
    folder.mkdir()
    for name in ("zarr.json", ".zmetadata", ".zgroup"):
        (folder / name).write_text(PAGE, encoding="utf-8")
    with pytest.raises(NWBZarrError, match="No session at"):
        open_hierarchy(f"{http_server.url}/a.nwb.zarr")


def test_a_damaged_zarr_3_document_alone_is_what_the_error_is_about(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_ty')
    with pytest.raises(MetadataError, match=r"'zarr\.json'"):
        open_hierarchy(tmp_path)


BARE_NAN = [
    (".zmetadata", '{"metadata": NaN}'),
    (".zmetadata", '{"metadata": [NaN]}'),
    (".zmetadata", '{"metadata": "x", "a": NaN}'),
    (".zmetadata", "[NaN]"),
    (".zmetadata", '{"metadata": {".zgroup": NaN, ".zattrs": [NaN]}}'),
    ("zarr.json", '{"zarr_format": 3, "node_type": "group", "a": NaN, "consolidated_metadata": "x"}'),
    ("zarr.json", '{"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"metadata": NaN}}'),
    ("zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": NaN}'),
    ("zarr.json", '{"zarr_format": NaN, "node_type": "group"}'),
    ("zarr.json", "NaN"),
]


@pytest.mark.parametrize(("name", "document"), BARE_NAN)
def test_bare_nan_where_something_else_belongs_is_a_metadata_error(
    name: str, document: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(document)
    with pytest.raises(NWBZarrError):
        open_hierarchy(tmp_path)


def test_one_damaged_document_of_a_listed_session_is_left_out(tmp_path: Path) -> None:
    nodes = {
        "acquisition": group(),
        "acquisition/broken": group(neurodata_type="ProcessingModule"),
        "acquisition/broken/t": group(neurodata_type="TimeSeries", namespace="core"),
        "acquisition/broken/t/data": array(unit="V"),
        "acquisition/t": group(neurodata_type="TimeSeries", namespace="core"),
        "acquisition/t/data": array(unit="V"),
    }
    store = write_store(tmp_path / "a.nwb.zarr", nodes, consolidated=False)
    (store / "acquisition/broken/zarr.json").write_text("{")
    with pytest.warns(UnconsolidatedWarning), pytest.warns(MappingWarning, match="acquisition/broken"):
        found = xr.open_dataset(store, engine="nwbzarr")
    assert found.attrs["nwb_unmapped"] == ["acquisition/broken"]
    assert "t" in found


def test_attributes_of_nothing_in_zarr_2_are_left_out(corpus_dir: Corpus, tmp_path: Path) -> None:
    store = Path(shutil.copytree(corpus_dir("icephys", "0.8.0"), tmp_path / "a.nwb.zarr"))
    whole = json.loads((store / ".zmetadata").read_text())
    whole["metadata"]["acquisition/ghost/.zattrs"] = {"neurodata_type": "TimeSeries"}
    (store / ".zmetadata").write_text(json.dumps(whole))
    with pytest.warns(MappingWarning, match="'acquisition/ghost'.*neither .zgroup nor .zarray"):
        found = xr.open_dataset(store, engine="nwbzarr")
    assert len(found) > 5
