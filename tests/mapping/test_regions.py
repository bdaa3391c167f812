"""Regions of tables as dimensions: ids, joined columns, devices, and what files get wrong about them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBFile
from pynwb.ecephys import ElectricalSeries
from pynwb.ophys import ImageSegmentation, PlaneSegmentation, RoiResponseSeries

from intake_nwbzarr.demo.sessions import add_imaging_plane
from intake_nwbzarr.errors import MappingWarning
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, open_hierarchy
from intake_nwbzarr.mapping.model import Region, run_mappers
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.regions import map_region
from intake_nwbzarr.transport.request_log import track_requests
from tests.mapping.mapped_tables import by_name, dimension_names, mapped, values
from tests.session_files import consolidate, edit, empty_session, rewrite, write

TABLE = "general/extracellular_ephys/electrodes"
WHOLE = "acquisition/ElectricalSeriesAP"
PART = "processing/ecephys/LFP/ElectricalSeriesLFP"

CorpusDir = Callable[[str, str], Path]


def region(file: Path | Hierarchy, series: str, name: str = "channel", dataset: str = "electrodes") -> Region:
    hierarchy = file if isinstance(file, Hierarchy) else open_hierarchy(file)
    mapper = map_region(hierarchy, f"{series}/{dataset}", MappingOptions(), name=name, owner=series)
    return run_mappers([mapper])[0]


def test_a_region_of_the_whole_table_is_its_row_dimension(corpus_dir: CorpusDir) -> None:
    hierarchy = open_hierarchy(corpus_dir("ecephys", "0.14.0"))
    found = region(hierarchy, WHOLE)
    assert (found.dimension.name, found.dimension.flat_name, found.dimension.size) == (
        "channel",
        "electrodes",
        8,
    )
    assert found.dimension.identity == mapped(hierarchy, TABLE).parts[0].dimensions[0].identity
    assert found.dimension.owner == TABLE
    assert found.labels is not None
    assert found.labels.values.tolist() == list(range(8))


def test_equal_parts_of_a_table_share_a_dimension_of_their_own(corpus_dir: CorpusDir) -> None:
    hierarchy = open_hierarchy(corpus_dir("ecephys", "0.14.0"))
    found, again = region(hierarchy, PART), region(hierarchy, PART)
    assert (found.dimension.name, found.dimension.flat_name) == ("channel", "ElectricalSeriesLFP_channel")
    assert found.dimension.identity == again.dimension.identity
    assert found.dimension.identity != region(hierarchy, WHOLE).dimension.identity
    assert found.labels is not None
    assert found.labels.values.tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize("series", [WHOLE, PART])
def test_the_joined_columns_are_rows_of_the_table(series: str, corpus_dir: CorpusDir) -> None:
    path = corpus_dir("ecephys", "0.14.0")
    parts = by_name(region(path, series).parts)
    with NWBZarrIO(str(path), mode="r") as io:
        nwbfile = io.read()
        owner = next(thing for thing in nwbfile.objects.values() if thing.name == series.rpartition("/")[2])
        expected = owner.electrodes.to_dataframe()
        assert set(parts) == {*expected.columns, "device"}
        for name in set(expected.columns) - {"group"}:
            np.testing.assert_array_equal(values(parts[name]), expected[name].to_numpy())
        groups = [f"general/extracellular_ephys/{group.name}" for group in expected["group"]]
    assert values(parts["group"]).tolist() == groups
    assert values(parts["device"]).tolist() == ["probe0"] * len(groups)
    assert {part.role for part in parts.values()} == {"coordinate"}
    assert {dimension_names(part) for part in parts.values()} == {("channel",)}
    assert parts["x"].attributes["nwb_path"] == f"{TABLE}/x"


@pytest.mark.parametrize("release", ["0.2.0", "0.6.0", "0.11.0", "0.13.0"])
@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.UnconsolidatedWarning")
def test_regions_of_every_release_equal_those_of_the_newest(release: str, corpus_dir: CorpusDir) -> None:
    for series in (WHOLE, PART):
        theirs = region(corpus_dir("ecephys", release), series)
        ours = region(corpus_dir("ecephys", "0.14.0"), series)
        assert theirs.dimension.flat_name == ours.dimension.flat_name
        expected = by_name(ours.parts)
        assert set(by_name(theirs.parts)) == set(expected)
        for part in theirs.parts:
            np.testing.assert_array_equal(values(part), values(expected[part.name]))


def test_a_region_takes_two_small_reads(corpus_dir: CorpusDir) -> None:
    hierarchy = open_hierarchy(corpus_dir("ecephys", "0.14.0"))
    with track_requests() as log:
        found = region(hierarchy, PART)
    assert log.requests == 2
    with track_requests() as log:
        assert by_name(found.parts)["x"].array.read((slice(1, 3),)).tolist() == [3.0, 5.0]
    assert log.requests == 1


def with_electrodes(rows: list[int], ids: list[int] | None = None, **columns: list[Any]) -> NWBFile:
    nwbfile = empty_session()
    group = nwbfile.create_electrode_group(
        name="shank", description="d", location="CA1", device=nwbfile.create_device(name="probe")
    )
    for name in columns:
        nwbfile.add_electrode_column(name, f"the {name}")
    for number in range(4):
        row = {name: given[number] for name, given in columns.items()}
        nwbfile.add_electrode(id=None if ids is None else ids[number], group=group, location="CA1", **row)
    series = ElectricalSeries(
        name="series",
        data=np.zeros((10, len(rows))),
        rate=1.0,
        electrodes=nwbfile.create_electrode_table_region(rows, "some"),
    )
    nwbfile.add_acquisition(series)
    return nwbfile


def test_labels_are_ids_not_row_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, with_electrodes([2, 0], ids=[10, 20, 30, 40], depth=[1.0, 2.0, 3.0, 4.0]))
    found = region(path, "acquisition/series")
    assert found.labels is not None
    assert found.labels.values.tolist() == [30, 10]
    assert values(by_name(found.parts)["depth"]).tolist() == [3.0, 1.0]


def test_columns_named_like_what_a_series_has_are_prefixed(tmp_path: Path) -> None:
    path = write(
        tmp_path, with_electrodes([3, 1], time=[0, 1, 2, 3], channel=[5, 6, 7, 8], pair=[[1, 2]] * 4)
    )
    parts = by_name(region(path, "acquisition/series").parts)
    assert {"electrode_time", "electrode_channel", "pair"} <= set(parts)
    assert values(parts["electrode_channel"]).tolist() == [8, 6]
    assert dimension_names(parts["pair"]) == ("channel", "pair_dim_1")


def test_a_region_whose_table_is_missing_is_row_numbers(tmp_path: Path, corpus_dir: CorpusDir) -> None:
    path = tmp_path / "copy.nwb.zarr"
    shutil.copytree(corpus_dir("ecephys", "0.14.0"), path)
    shutil.rmtree(path / TABLE)
    consolidate(path)
    with pytest.warns(MappingWarning, match=f"'{PART}/electrodes' .* a table that is not in the file"):
        found = region(path, PART)
    assert found.dimension.flat_name == "ElectricalSeriesLFP_channel"
    assert found.labels is not None
    assert found.labels.values.tolist() == [1, 3, 5, 7]
    assert found.parts == ()


def test_a_region_beyond_its_table_is_row_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, with_electrodes([0, 1, 2, 3]))

    def shorten(document: dict[str, Any]) -> None:
        document["shape"] = [3]

    edit(path, f"{TABLE}/id", shorten)
    with pytest.warns(MappingWarning, match="a table that has only 3 rows"):
        found = region(path, "acquisition/series")
    assert found.labels is not None
    assert found.labels.values.tolist() == [0, 1, 2, 3]


def test_rois_are_labelled_without_their_masks(tmp_path: Path) -> None:
    nwbfile = empty_session()
    plane = add_imaging_plane(nwbfile, imaging_rate=15.0)
    cells = PlaneSegmentation(name="cells", description="cells", imaging_plane=plane)
    for number in range(3):
        cells.add_roi(id=100 + number, image_mask=np.full((8, 9), number, "f4"))
    cells.add_column(name="RoiCentroid", description="centre", data=np.arange(6.0).reshape(3, 2))
    cells.add_column(name="Accepted", description="kept", data=[True, False, True])
    module = nwbfile.create_processing_module("ophys", "d")
    module.add(ImageSegmentation(plane_segmentations=[cells]))
    module.add(
        RoiResponseSeries(
            name="responses",
            data=np.zeros((5, 2)),
            rois=cells.create_roi_table_region("two", region=[0, 2]),
            unit="lumens",
            rate=15.0,
        )
    )
    path = write(tmp_path, nwbfile)
    found = region(path, "processing/ophys/responses", name="roi", dataset="rois")
    parts = by_name(found.parts)
    assert found.labels is not None
    assert found.labels.values.tolist() == [100, 102]
    assert {name: dimension_names(part) for name, part in parts.items()} == {
        "RoiCentroid": ("roi", "RoiCentroid_dim_1"),
        "Accepted": ("roi",),
    }
    assert values(parts["RoiCentroid"]).tolist() == [[0.0, 1.0], [4.0, 5.0]]
    assert parts["RoiCentroid"].array.read((1, slice(None, None, -1))).tolist() == [5.0, 4.0]


def test_a_region_of_two_dimensions_costs_its_labels_and_nothing_else(
    corpus_dir: CorpusDir, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "square.nwb.zarr"))
    rewrite(path, f"{WHOLE}/electrodes", np.arange(8).reshape(2, 4))
    with pytest.warns(MappingWarning, match=r"has the shape \(2, 4\) instead of one dimension"):
        dataset = xr.open_dataset(path, engine="nwbzarr")
    assert dataset["ElectricalSeriesAP"].shape == (3000, 8)
    assert dataset["ElectricalSeriesAP_electrodes"].values.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([0.0, 1.0, np.nan, 3.0, 4.0, 5.0, 6.0, 7.0], r"contains float64 \(0.0, 1.0, nan, ...\)"),
        ([0, 1, 2, 3, 4, 5, 6, -1], "has no row -1"),
        ([0, 1, 2, 3, 4, 5, 6, 8], "has only 8 rows"),
    ],
)
def test_rows_that_are_none_are_told_for_what_they_are(
    rows: list[float], told: str, corpus_dir: CorpusDir, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "rows.nwb.zarr"))
    rewrite(path, f"{WHOLE}/electrodes", np.array(rows))
    with pytest.warns(MappingWarning, match=told):
        dataset = xr.open_dataset(path, engine="nwbzarr", group=WHOLE)
    assert "location" not in dataset
    np.testing.assert_array_equal(dataset["channel"].values, rows)
