"""Columns of every kind, compared with what pynwb was given."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdmf.common import DynamicTable, EnumData, VectorData, VectorIndex
from pynwb import TimeSeries

from intake_nwbzarr.errors import MappingWarning
from intake_nwbzarr.mapping.model import ArrayPart
from tests.mapping.mapped_tables import by_name, dimension_names, mapped, values
from tests.session_files import START, consolidate, edit, empty_session, rewrite, write

CorpusDir = Callable[[str, str], Path]


def test_a_doubly_ragged_column_nests_bounds(tmp_path: Path) -> None:
    nwbfile = empty_session()
    rng = np.random.default_rng(0)
    given = [
        [rng.normal(size=(2, 5)), rng.normal(size=(2, 5)), rng.normal(size=(2, 5))],
        [rng.normal(size=(1, 5))],
    ]
    for events in given:
        nwbfile.add_unit(
            spike_times=np.arange(len(events)) * 0.1, waveforms=[event.tolist() for event in events]
        )
    parts = by_name(mapped(write(tmp_path, nwbfile), "units").parts)
    assert dimension_names(parts["waveforms_index_start"]) == ("unit",)
    assert dimension_names(parts["waveforms_start"]) == ("waveform_event",)
    assert dimension_names(parts["waveforms"]) == ("waveform", "sample")
    outer = values(parts["waveforms_index_start"]), values(parts["waveforms_index_count"])
    inner = values(parts["waveforms_start"]), values(parts["waveforms_count"])
    waveforms = values(parts["waveforms"])
    for unit, events in enumerate(given):
        assert outer[1][unit] == len(events)
        for number, event in enumerate(events, start=outer[0][unit]):
            np.testing.assert_array_equal(waveforms[inner[0][number] :][: inner[1][number]], event)


def test_waveforms_have_a_time_where_the_file_says_it(tmp_path: Path) -> None:
    nwbfile = empty_session(timestamps_reference_time=START)
    for _ in range(2):
        nwbfile.add_unit(spike_times=[1.0], waveform_mean=np.zeros(30))
    path = write(tmp_path, nwbfile)

    def describe(document: dict[str, Any]) -> None:
        document["attributes"] |= {"sampling_rate": 30000.0, "time_before_peak_in_ms": 0.5}

    edit(path, "units/waveform_mean", describe)
    parts = by_name(mapped(path, "units").parts)
    assert dimension_names(parts["waveform_mean"]) == ("unit", "sample")
    assert parts["waveform_time"].role == "coordinate"
    np.testing.assert_allclose(
        values(parts["waveform_time"]), np.arange(30) / 30000 - 0.0005, rtol=0, atol=1e-15
    )


@pytest.mark.filterwarnings("ignore:EnumData is experimental")
def test_enumerations_are_decoded_and_stored_as_numbers_on_request(tmp_path: Path) -> None:
    nwbfile = empty_session()
    table = DynamicTable(name="choices", description="choices", id=[0, 1, 2, 3])
    codes = np.array([0, 1, 1, 0], "u1")
    table.add_column(name="side", description="side", data=codes, enum=["left", "right"], col_cls=EnumData)
    table.add_column(name="plain", description="numbers", data=[1, 2, 3, 4])
    nwbfile.add_acquisition(table)
    path = write(tmp_path, nwbfile)
    parts = by_name(mapped(path, "acquisition/choices").parts)
    assert list(parts) == ["side", "plain"]
    assert values(parts["side"]).tolist() == ["left", "right", "right", "left"]
    assert parts["side"].array.read((slice(2, None, -2),)).tolist() == ["right", "left"]
    stored = by_name(mapped(path, "acquisition/choices", mask_and_scale=False).parts)
    assert values(stored["side"]).tolist() == [0, 1, 1, 0]
    assert stored["side"].attributes["elements"] == "acquisition/choices/side_elements"


def test_a_missing_column_is_left_out_with_a_warning(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_trial(start_time=0.0, stop_time=1.0)
    path = write(tmp_path, nwbfile)
    edit(path, "intervals/trials", lambda document: document["attributes"]["colnames"].append("ghost"))
    with pytest.warns(MappingWarning, match="'intervals/trials' .* column 'ghost' that is not in the file"):
        piece = mapped(path, "intervals/trials")
    assert [part.name for part in piece.parts] == ["start_time", "stop_time"]


def test_a_column_of_another_length_gets_a_dimension_of_its_own(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_unit_column("quality", "label")
    for _ in range(3):
        nwbfile.add_unit(spike_times=[0.5], quality="good")
    path = write(tmp_path, nwbfile)
    rewrite(path, "units/quality", np.arange(2))
    with pytest.warns(MappingWarning, match="'quality' of the table 'units' .* has 2 entries instead of 3"):
        parts = by_name(mapped(path, "units").parts)
    assert dimension_names(parts["quality"]) == ("quality_dim_0",)
    assert values(parts["quality"]).tolist() == [0, 1]
    assert dimension_names(parts["spike_times_count"]) == ("unit",)


def test_a_column_that_colnames_leaves_out_is_kept(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_trial_column("stim", "label")
    nwbfile.add_trial(start_time=0.0, stop_time=1.0, stim="a")
    path = write(tmp_path, nwbfile)
    edit(path, "intervals/trials", lambda document: document["attributes"]["colnames"].remove("stim"))
    assert [part.name for part in mapped(path, "intervals/trials").parts] == [
        "start_time",
        "stop_time",
        "stim",
    ]


def test_an_index_without_its_reference_is_found_by_name(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_unit(spike_times=[0.5, 0.7])
    nwbfile.add_unit(spike_times=[0.9])
    path = write(tmp_path, nwbfile)
    edit(path, "units/spike_times_index", lambda document: document["attributes"].pop("target"))
    assert values(by_name(mapped(path, "units").parts)["spike_times_count"]).tolist() == [2, 1]


def test_columns_may_have_further_axes_text_and_booleans(tmp_path: Path) -> None:
    nwbfile = empty_session()
    words = VectorData(name="words", description="ragged text", data=["a", "b", "c"])
    table = DynamicTable(
        name="mixed",
        description="mixed",
        columns=[
            VectorData(name="position", description="xyz", data=np.arange(6.0).reshape(2, 3)),
            VectorData(name="valid", description="flag", data=np.array([True, False])),
            VectorData(name="text", description="µ", data=["µ", "Ω"]),
            VectorIndex(name="words_index", data=np.array([1, 3]), target=words),
            words,
        ],
    )
    nwbfile.add_acquisition(table)
    piece = mapped(write(tmp_path, nwbfile), "acquisition/mixed")
    parts = by_name(piece.parts)
    assert dimension_names(parts["position"]) == ("row", "position_dim_1")
    assert values(parts["valid"]).tolist() == [True, False]
    assert values(parts["valid"]).dtype == bool
    assert values(parts["text"]).tolist() == ["µ", "Ω"]
    assert values(parts["text"]).dtype == object
    assert dimension_names(parts["words"]) == ("words_value",)
    assert piece.attributes["description"] == "mixed"


def test_masks_have_the_axes_of_the_schema_or_rows_first_on_request(corpus_dir: CorpusDir) -> None:
    path = corpus_dir("ophys", "0.14.0")
    masks = "processing/ophys/ImageSegmentation/ImageMasks"
    (mask,) = mapped(path, masks).parts
    assert dimension_names(mask) == ("roi", "x", "y")
    assert [dimension.flat_name for dimension in mask.dimensions] == [
        "ImageMasks",
        "ImageMasks_x",
        "ImageMasks_y",
    ]
    assert dimension_names(mapped(path, masks, image_axes="yx").parts[0]) == ("roi", "y", "x")
    pixels = mapped(path, "processing/ophys/ImageSegmentation/PixelMasks")
    assert pixels.attributes["imaging_plane"] == "general/optophysiology/plane"
    assert pixels.attributes["reference_images"] == ["acquisition/TwoPhotonSeries"]
    assert [(part.name, *dimension_names(part)) for part in pixels.parts] == [
        ("pixel_mask_start", "roi"),
        ("pixel_mask_count", "roi"),
        ("pixel_mask_x", "pixel"),
        ("pixel_mask_y", "pixel"),
        ("pixel_mask_weight", "pixel"),
    ]


def test_names_made_from_a_column_give_way_to_columns(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_trial_column("tags_count", "a column that is named like the bounds of another")
    nwbfile.add_trial(start_time=0.0, stop_time=1.0, tags=["a", "b"], tags_count=9)
    parts = by_name(mapped(write(tmp_path, nwbfile), "intervals/trials").parts)
    assert values(parts["tags_count"]).tolist() == [9]
    assert values(parts["tags_count_"]).tolist() == [2]


def test_a_region_without_its_table_is_row_numbers(tmp_path: Path, corpus_dir: CorpusDir) -> None:
    path = tmp_path / "copy.nwb.zarr"
    shutil.copytree(corpus_dir("ecephys", "0.14.0"), path)
    shutil.rmtree(path / "general/extracellular_ephys/electrodes")
    consolidate(path)
    with pytest.warns(MappingWarning, match="'electrodes' of the table 'units' .* mapped as row numbers"):
        names = [part.name for part in mapped(path, "units").parts]
    assert "electrodes" in names
    assert "electrodes_id" not in names


def test_ragged_references_to_samples_have_both_kinds_of_bounds(tmp_path: Path) -> None:
    nwbfile = empty_session()
    series = [TimeSeries(name=name, data=np.zeros(100), unit="V", rate=10.0) for name in "ab"]
    for each in series:
        nwbfile.add_acquisition(each)
    nwbfile.add_trial(start_time=0.0, stop_time=1.0, timeseries=series)
    nwbfile.add_trial(start_time=2.0, stop_time=3.0, timeseries=series[:1])
    parts: dict[str, ArrayPart] = by_name(mapped(write(tmp_path, nwbfile), "intervals/trials").parts)
    assert values(parts["timeseries_start"]).tolist() == [0, 2]
    assert values(parts["timeseries_count"]).tolist() == [2, 1]
    assert values(parts["timeseries_path"]).tolist() == ["acquisition/a", "acquisition/b", "acquisition/a"]
    assert values(parts["timeseries_sample_start"]).tolist() == [0, 0, 20]
    assert dimension_names(parts["timeseries_path"]) == ("timeseries_value",)
