"""`ds.nwb.to_dataframe`, compared with pynwb's own DataFrames, value by value."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hdmf.common import DynamicTable
from pynwb import TimeSeries
from pynwb.base import Images
from pynwb.ecephys import ElectricalSeries, EventDetection
from pynwb.image import GrayscaleImage

from intake_nwbzarr.demo.sessions import add_electrodes
from intake_nwbzarr.errors import MappingWarning, NodeNotFoundError, OptionError, SelectionError
from tests.accessor.timed_session import LICK_TIMES
from tests.conftest import KINDS
from tests.session_files import copy_of, empty_session, opened, rewrite, write

CorpusDir = Callable[[str, str], Path]


def tables_of(nwbfile: Any) -> dict[str, DynamicTable]:
    """Every table of a file, by path; the categories of an aligned table are part of it."""
    found = {}
    for each in nwbfile.objects.values():
        if isinstance(each, DynamicTable) and not isinstance(each.parent, DynamicTable):
            found[path_of(each)] = each
    return found


def path_of(table: DynamicTable) -> str:
    places = {"units": "units", "electrodes": "general/extracellular_ephys/electrodes"}
    parent = table.parent.name
    if table.name in places:
        return places[table.name]
    if parent == "ImageSegmentation":
        return f"processing/ophys/ImageSegmentation/{table.name}"
    if table.name in {"trials", "epochs"}:
        return f"intervals/{table.name}"
    return f"events/{table.name}" if table.name == "stimuli" else f"general/intracellular_ephys/{table.name}"


def plain(value: Any) -> Any:
    """A cell as lists and numbers, whichever library made it; of an object its name."""
    if isinstance(value, pd.DataFrame):
        return [int(each) for each in value.index]
    if isinstance(value, list | tuple | np.ndarray) and not hasattr(value, "timeseries"):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return "missing" if isinstance(value, float) and np.isnan(value) else value


def assert_equal_to_pynwb(frame: pd.DataFrame, theirs: pd.DataFrame, path: str) -> int:
    """Compare all columns that hold values in both; tell how many they are."""
    assert frame.index.name == "id"
    assert frame.index.tolist() == theirs.index.tolist()
    compared = 0
    for column in theirs.columns:
        cells = [plain(cell) for cell in theirs[column]]
        if column in frame and all(not hasattr(cell, "name") for cell in cells):
            assert [plain(cell) for cell in frame[column]] == cells, (path, column)
        elif column in frame:
            assert [cell.name for cell in cells] == frame[f"{column}_name"].tolist(), (path, column)
        elif f"{column}_path" in frame:
            parts = frame[[f"{column}_{part}" for part in ("sample_start", "sample_count", "path")]]
            for mine, cell in zip(parts.itertuples(index=False), theirs[column], strict=True):
                references = cell if isinstance(cell, list) else [cell]
                starts, counts, paths = (np.atleast_1d(part) for part in mine)
                assert starts.tolist() == [each.idx_start for each in references]
                assert counts.tolist() == [each.count for each in references]
                assert [each.rpartition("/")[2] for each in paths] == [
                    each.timeseries.name for each in references
                ]
        else:
            fields = [name for name in frame if name.startswith(f"{column}_")]
            mine = [[list(each) for each in zip(*cells, strict=True)] for cells in frame[fields].to_numpy()]
            assert plain(mine) == [[list(each) for each in cell] for cell in cells], (path, column)
        compared += 1
    return compared


# hdmf 6.2 makes the DataFrame of an aligned table in a way that pandas 3.1 would rather not have.
@pytest.mark.filterwarnings("ignore:The inplace keyword:pandas.errors.Pandas4Warning")
@pytest.mark.parametrize("kind", KINDS)
def test_every_table_of_the_corpus_is_as_pynwb_has_it(corpus_dir: CorpusDir, kind: str) -> None:
    dataset = opened(corpus_dir(kind, "0.14.0"))
    tables = tables_of(dataset.nwb.nwbfile)
    aligned = tables.pop("general/intracellular_ephys/intracellular_recordings", None)
    for path, table in tables.items():
        frame = dataset.nwb.to_dataframe(path)
        assert assert_equal_to_pynwb(frame, table.to_dataframe(), path) == len(table.colnames)
        alone = opened(dataset.nwb.location, path)
        pd.testing.assert_frame_equal(alone.nwb.to_dataframe(), frame)
    assert len(tables) == {"ecephys": 4, "ophys": 2, "icephys": 4}[kind]
    if aligned is not None:
        frame = dataset.nwb.to_dataframe("intracellular_recordings")
        for name, category in aligned.category_tables.items():
            assert frame[f"{name}_id"].tolist() == category.id[:].tolist()
            own = frame[[column for column in frame if column.startswith(f"{name}_")]]
            own.columns = own.columns.str.removeprefix(f"{name}_")
            own.index = pd.Index(own.pop("id"))
            assert assert_equal_to_pynwb(own, category.to_dataframe(), name) == len(category.colnames)


def test_ragged_and_doubly_ragged_columns_are_a_cell_for_each_row(dataset: xr.Dataset) -> None:
    tables = tables_of(dataset.nwb.nwbfile)
    assert sorted(tables) == [
        "events/stimuli",
        "general/extracellular_ephys/electrodes",
        "intervals/trials",
        "units",
    ]
    for path, table in tables.items():
        assert_equal_to_pynwb(dataset.nwb.to_dataframe(path), table.to_dataframe(), path)
    cell = dataset.nwb.to_dataframe("units").waveforms.iloc[0][2]
    assert isinstance(cell, np.ndarray)
    assert cell.shape == (1, 3)


def test_selected_rows_have_their_own_values_in_the_selections_order(dataset: xr.Dataset) -> None:
    whole = dataset.nwb.to_dataframe("units")
    part = dataset.isel(units=[3, 0]).nwb.to_dataframe("units")
    assert part.index.tolist() == [103, 100]
    for column in whole:
        assert [plain(cell) for cell in part[column]] == [plain(whole[column].iloc[row]) for row in (3, 0)]
    assert dataset.isel(trials=[]).nwb.to_dataframe("trials").shape == (0, 4)


def test_a_compact_dataset_has_the_same_rows(dataset: xr.Dataset) -> None:
    compact = dataset.nwb.compact()
    for table in ("units", "trials"):
        whole, same = dataset.nwb.to_dataframe(table), compact.nwb.to_dataframe(table)
        assert [[plain(cell) for cell in row] for row in same.to_numpy()] == [
            [plain(cell) for cell in row] for row in whole[same.columns].to_numpy()
        ]


def test_names_may_be_as_shown_paths_or_the_objects_own(path: Path) -> None:
    by_path = opened(path, names="path")
    frames = [by_path.nwb.to_dataframe(name) for name in ("intervals_trials", "intervals/trials", "trials")]
    for frame in frames:
        assert frame.columns.tolist() == ["start_time", "stop_time", "cue", "tags"]
    safe = opened(path, names="safe")
    assert safe.nwb.to_dataframe("probe_data").shape == (10, 3)


def test_columns_that_a_series_or_another_column_renames_keep_their_names(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for name in ("tags_count", "trials", "_odd"):
        nwbfile.add_trial_column(name, "a name that is needed elsewhere")
    nwbfile.add_trial(start_time=0.0, stop_time=1.0, tags=["a", "b"], tags_count=9, trials=3, _odd="x")
    dataset = opened(write(tmp_path, nwbfile))
    row = dataset.nwb.to_dataframe("trials").iloc[0]
    assert row.drop("tags").to_dict() == {
        "start_time": 0.0,
        "stop_time": 1.0,
        "tags_count": 9,
        "trials": 3,
        "_odd": "x",
    }
    assert row.tags.tolist() == ["a", "b"]


def test_series_are_samples_by_channels(dataset: xr.Dataset) -> None:
    voltage = dataset.nwb.to_dataframe("voltage")
    assert voltage.index.name == "voltage_time"
    np.testing.assert_array_equal(voltage, dataset.voltage)
    probe = dataset.nwb.to_dataframe("probe data")
    assert probe.columns.tolist() == [10, 11, 12]
    assert probe.columns.name == "electrodes"
    lick = dataset.sel(lick_time=slice(2, 3)).nwb.to_dataframe("lick")
    np.testing.assert_array_equal(lick.index, LICK_TIMES[(LICK_TIMES >= 2) & (LICK_TIMES <= 3)])
    assert lick.columns.tolist() == ["lick"]


def test_every_kind_of_series_is_a_frame_or_says_that_it_is_too_deep(every_series_path: Path) -> None:
    with pytest.warns(MappingWarning):
        dataset = opened(every_series_path)
    for path, row in dataset.nwb.describe().iterrows():
        if not str(path).startswith("acquisition/"):
            continue
        if len(row.dims) > 2:
            with pytest.raises(SelectionError, match="a DataFrame has at most two"):
                dataset.nwb.to_dataframe(path)
        elif len(row.dims):
            assert dataset.nwb.to_dataframe(path).size == np.prod(row["shape"])
    rois = dataset.nwb.to_dataframe("rois_first")
    assert rois.shape == (7, 3)
    features = dataset.nwb.to_dataframe("features")
    assert features.columns.tolist() == ["orientation", "frequency"]


def test_a_column_of_another_length_is_left_out_with_a_warning(path: Path, tmp_path: Path) -> None:
    path = copy_of(path, tmp_path)
    rewrite(path, "units/quality", np.arange(2))
    with pytest.warns(MappingWarning, match="'quality'"):
        dataset = opened(path)
    with pytest.warns(
        MappingWarning, match="'units_quality' of 'units' do not have the dimension of its rows"
    ):
        frame = dataset.nwb.to_dataframe("units")
    assert "quality" not in frame


def test_what_is_not_there_names_the_closest(dataset: xr.Dataset) -> None:
    with pytest.raises(NodeNotFoundError, match=r"No 'trails' among the tables and series.*'trials'"):
        dataset.nwb.to_dataframe("trails")
    with pytest.raises(OptionError, match=r"There are several tables and series.*'units'"):
        dataset.nwb.to_dataframe()
    with pytest.raises(OptionError, match=r"name must be .*, not 3"):
        dataset.nwb.to_dataframe(3)
    with pytest.raises(NodeNotFoundError, match="There are no tables and series in this view"):
        dataset.drop_vars(list(dataset.variables)).nwb.to_dataframe()
    with pytest.raises(SelectionError, match="One row of 'units' was selected as a scalar"):
        dataset.isel(units=0).nwb.to_dataframe("units")
    with pytest.raises(SelectionError, match="10 of 66 values are left"):
        dataset.isel(units_spike=slice(10)).nwb.to_dataframe("units")


def test_events_without_a_table_have_a_row_each(tmp_path: Path) -> None:
    nwbfile = empty_session()
    series = TimeSeries(name="raw", data=np.arange(20.0), unit="V", rate=10.0)
    nwbfile.add_acquisition(series)
    nwbfile.add_acquisition(Images(name="photos", images=[GrayscaleImage(name="dot", data=np.eye(2))]))
    module = nwbfile.create_processing_module("ecephys", "d")
    with warnings.catch_warnings(action="ignore"):
        module.add(
            EventDetection(
                name="detected",
                detection_method="by eye",
                source_electricalseries=_voltage(nwbfile),
                source_idx=[3, 5, 9],
                times=[0.3, 0.5, 0.9],
            )
        )
    path = write(tmp_path, nwbfile)
    whole = opened(path)
    alone = opened(path, "processing/ecephys/detected")
    node = xr.open_datatree(path, engine="nwbzarr")["processing/ecephys/detected"]
    for nwb, name in ((whole.nwb, "detected"), (alone.nwb, None), (node.nwb, None)):
        frame = nwb.to_dataframe(name)
        assert frame.to_dict("list") == {"timestamp": [0.3, 0.5, 0.9], "source_idx": [3, 5, 9]}
        assert nwb.to_pynapple(name or "detected").t.tolist() == [0.3, 0.5, 0.9]
    # An image has pixels, not rows.
    with pytest.raises(OptionError, match="'raw'") as error:
        whole.nwb.to_dataframe()
    assert "dot" not in str(error.value)


def _voltage(nwbfile: Any) -> ElectricalSeries:
    voltage = ElectricalSeries(
        name="voltage", data=np.zeros((9, 1)), electrodes=add_electrodes(nwbfile, 1), rate=10.0
    )
    nwbfile.add_acquisition(voltage)
    return voltage


def test_one_value_says_how_to_select_a_row(dataset: xr.Dataset) -> None:
    with pytest.raises(SelectionError, match=r"isel\(time=\[3\]\)"):
        dataset[["lick"]].isel(lick_time=3).nwb.to_dataframe("lick")
    assert dataset[["lick"]].isel(lick_time=[3]).nwb.to_dataframe("lick").shape == (1, 1)


def test_an_object_of_another_kind_is_said_to_be_one(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="raw", data=np.zeros((3, 2, 2)), unit="V", rate=10.0))
    nwbfile.add_acquisition(Images(name="photos", images=[GrayscaleImage(name="dot", data=np.eye(2))]))
    nwb = opened(write(tmp_path, nwbfile)).nwb
    with pytest.raises(
        NodeNotFoundError, match=r"No 'dot' among .*: it is a GrayscaleImage\. Pass one of 'raw'"
    ):
        nwb.to_dataframe("dot")
    with pytest.raises(SelectionError, match=r"isel\(\{'raw_dim_2': 0\}\)"):
        nwb.to_dataframe("raw")


def test_an_error_about_many_objects_names_some(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number in range(50):
        nwbfile.add_acquisition(TimeSeries(name=f"s{number}", data=[1.0], unit="V", rate=1.0))
    nwb = opened(write(tmp_path, nwbfile)).nwb
    with pytest.raises(OptionError, match=r"Pass name=, one of .*'s19' and 30 more"):
        nwb.to_dataframe()
