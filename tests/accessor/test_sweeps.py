"""`sweeps()`: every value as pynwb has it, on (recording, time), read when it is asked for."""

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import intake_nwbzarr
from intake_nwbzarr.arrays import StoredArray, scaled
from intake_nwbzarr.demo.sessions import add_pipette
from intake_nwbzarr.errors import ChunkError, MappingWarning, NodeNotFoundError
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.mapping.sweeps import Segment, SweepArray, open_sweeps
from tests.accessor.sweep_files import clamp, samples, with_sweep_numbers, with_tables
from tests.session_files import edit, empty_session, rewrite, write

ICEPHYS = "general/intracellular_ephys"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def tree(session: Path) -> xr.DataTree:
    return sweeps(locate(session))


def sweeps(location: Location) -> xr.DataTree:
    return xr.DataTree.from_dict(open_sweeps(intake_nwbzarr.open_hierarchy(location)))


def by_recording(tree: xr.DataTree) -> dict[int, xr.Dataset]:
    """One Dataset for each recording, by its id."""
    datasets = [node.to_dataset() for node in tree.children.values()]
    return {
        int(dataset.recording[row]): dataset.isel(recording=row)
        for dataset in datasets
        for row in range(dataset.sizes["recording"])
    }


def in_units(reference: Any) -> NDArray[np.float64] | None:
    """What pynwb has at a reference to samples, in units."""
    # pynwb gives nothing for a reference of -1 and -1.
    if reference.timeseries is None:
        return None
    series = reference.timeseries
    part = series.data[reference.idx_start : reference.idx_start + reference.count]
    return part.astype(np.float64) * series.conversion + series.offset


def assert_padded(shown: NDArray[np.float64], expected: NDArray[np.float64] | None) -> None:
    length = 0 if expected is None else len(expected)
    np.testing.assert_array_equal(shown[:length], expected if expected is not None else [])
    assert np.isnan(shown[length:]).all()


def table_of(path: Path) -> Iterator[tuple[int, Any, Any]]:
    with intake_nwbzarr.open_nwb(path) as nwbfile:
        table = nwbfile.intracellular_recordings
        for row, label in enumerate(table.id[:]):
            yield int(label), table["responses"]["response"][row], table["stimuli"]["stimulus"][row]


@pytest.mark.parametrize("release", ["0.8.0", "0.14.0"])
def test_sweeps_of_any_release_are_what_pynwb_reads(
    corpus_dir: Callable[[str, str], Path], release: str
) -> None:
    path = corpus_dir("icephys", release)
    tree = xr.open_dataset(path, engine="nwbzarr").nwb.sweeps()
    (dataset,) = (node.to_dataset() for node in tree.children.values())
    assert dict(dataset.sizes) == {"recording": 4, "time": 50}
    recordings = by_recording(xr.DataTree.from_dict({"a": dataset}))
    for label, response, stimulus in table_of(path):
        np.testing.assert_array_equal(recordings[label].response, in_units(response))
        np.testing.assert_array_equal(recordings[label].stimulus, in_units(stimulus))
        assert recordings[label].starting_time == response.timeseries.starting_time
        assert recordings[label].response_bias_current == response.timeseries.bias_current
    assert (dataset.response.attrs["units"], dataset.stimulus.attrs["units"]) == ("volts", "amperes")
    assert set(dataset.stimulus_type.values) == {"square"}
    assert set(dataset.response_neurodata_type.values) == {"CurrentClampSeries"}


def test_partial_missing_and_longer_recordings_are_what_pynwb_reads(session: Path, tree: xr.DataTree) -> None:
    recordings = by_recording(tree)
    seen = 0
    for label, response, stimulus in table_of(session):
        dataset = recordings[label]
        assert_padded(dataset.response.values, in_units(response))
        assert_padded(dataset.stimulus.values, in_units(stimulus))
        first = response if response.timeseries else stimulus
        start = first.timeseries.starting_time + first.idx_start / first.timeseries.rate
        assert dataset.starting_time == start
        assert dataset.response_sample_count == (response.count or 0)
        seen += 1
    assert seen == len(recordings) == 8


def test_there_is_a_dataset_for_each_rate_length_and_unit(tree: xr.DataTree) -> None:
    assert {name: node.recording.values.tolist() for name, node in tree.children.items()} == {
        "rate_1000_length_20_volts": [100, 101, 102, 103, 104],
        "rate_1000_length_20_amperes": [106],
        "rate_2500.5_length_20": [105],
        "rate_1000_length_20_stimulus_rate_200_length_4": [107],
    }
    assert tree["rate_2500.5_length_20"].time.values[-1] == 19 / 2500.5
    apart = tree["rate_1000_length_20_stimulus_rate_200_length_4"].to_dataset()
    np.testing.assert_array_equal(apart.stimulus_time, np.arange(4) / 200)
    assert apart.stimulus.dims == ("recording", "stimulus_time")
    assert apart.attrs["rate"] == 1000


def test_columns_of_every_table_are_coordinates(tree: xr.DataTree) -> None:
    table = tree["rate_1000_length_20_volts"].to_dataset()
    assert table.quality.values.tolist() == ["q0", "q1", "q2", "q3", "q4"]
    assert table.electrodes_depth.values.tolist() == [0, 1, 2, 3, 4]
    assert table.responses_spikes.values.tolist() == [0, 1, 2, 3, 4]
    assert table.electrodes_electrode_name.values.tolist() == ["one", "two", "one", "one", "one"]
    assert table.simultaneous_recording.values.tolist() == [10, 10, 11, 12, 12]
    assert table.tag.values.tolist() == ["tag0", "tag0", "tag1", "tag2", "tag2"]
    assert table.sequential_recording.values.tolist() == [20, 20, 20, 21, 21]
    assert table.stimulus_type.values.tolist() == ["square"] * 3 + ["ramp"] * 2
    np.testing.assert_array_equal(table.repetition, [30, 30, 30, np.nan, np.nan])
    np.testing.assert_array_equal(table.repetition_quality, [0.5, 0.5, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(table.experimental_condition, [40, 40, 40, np.nan, np.nan])
    assert table.condition.values.tolist() == ["drug"] * 3 + [""] * 2
    alone = tree["rate_1000_length_20_stimulus_rate_200_length_4"]
    assert np.isnan(alone.simultaneous_recording.values).all()


def test_calling_reads_no_data(session: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(session, tmp_path / "spoilt.nwb.zarr"))
    chunks = [file for file in path.glob("*/**/data/c/*") if file.is_file()]
    assert len(chunks) == 13
    for chunk in chunks:
        chunk.write_bytes(b"no data")
    tree = sweeps(locate(path))
    assert len(tree.children) == 4
    with pytest.raises(ChunkError):
        tree["rate_2500.5_length_20"].response.load()


def test_a_selection_reads_its_own_chunks_only(tree: xr.DataTree) -> None:
    dataset = tree["rate_1000_length_20_volts"].to_dataset()
    with intake_nwbzarr.track_requests() as log:
        dataset.response.isel(recording=[2, 0]).load()
    assert log.requests == 2


def test_settings_are_lazy_and_in_their_units(tree: xr.DataTree) -> None:
    dataset = tree["rate_1000_length_20_volts"].to_dataset()
    with intake_nwbzarr.track_requests() as log:
        gain = dataset.response_gain.isel(recording=[0, 4]).values
    assert log.requests == 1
    np.testing.assert_array_equal(gain, [2, np.nan])
    np.testing.assert_array_equal(dataset.response_bias_current, [np.nan, np.nan, 1e-12, 0, np.nan])
    assert dataset.response_bias_current.attrs["units"] == "amperes"


@st.composite
def _segments(draw: st.DrawFn) -> list[tuple[int, int, int] | None]:
    """Which of the two series, from which sample, how many; or nothing."""
    segment = st.tuples(st.integers(0, 1), st.integers(0, 15), st.integers(0, 5))
    return draw(st.lists(st.none() | segment, min_size=1, max_size=5))


@st.composite
def _keys(draw: st.DrawFn, size: int) -> Any:
    positions = st.lists(st.integers(-size, size - 1), max_size=7).map(lambda values: np.array(values, int))
    return draw(st.integers(-size, size - 1) | st.slices(size) | positions)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), segments=_segments())
def test_any_selection_of_any_segments_is_numpys(session: Path, data: st.DataObject, segments: Any) -> None:
    hierarchy = intake_nwbzarr.open_hierarchy(session)
    stored = []
    for name in ("response0", "voltage"):
        node = hierarchy[f"acquisition/{name}/data"]
        assert isinstance(node, ArrayNode)
        stored.append(scaled(StoredArray(hierarchy.file, node), 0.5, 2.0))
    whole = np.full((len(segments), 7), np.nan)
    made = []
    for row, segment in enumerate(segments):
        if segment is not None:
            which, start, count = segment
            whole[row, :count] = stored[which].read()[start : start + count]
        made.append(None if segment is None else Segment(stored[segment[0]], *segment[1:]))
    rows, times = data.draw(_keys(len(segments))), data.draw(_keys(7))
    selected = SweepArray(tuple(made), 7).read((rows, times))
    np.testing.assert_array_equal(selected, whole[rows][..., times])


def test_dask_pickle_and_files_have_the_same_values(tree: xr.DataTree, tmp_path: Path) -> None:
    dataset = tree["rate_1000_length_20_volts"].to_dataset()
    chunked = dataset.chunk({})
    assert chunked.response.data.name == dataset.chunk({}).response.data.name
    again = pickle.loads(pickle.dumps(dataset))
    for other in (chunked, again):
        np.testing.assert_array_equal(other.response, dataset.response)
    dataset.to_netcdf(tmp_path / "sweeps.nc")
    with xr.open_dataset(tmp_path / "sweeps.nc") as stored:
        np.testing.assert_array_equal(stored.response, dataset.response)
    assert dataset.nwb.nwbfile.identifier == "small"


@pytest.mark.parametrize("sweep_table", [False, True])
def test_older_files_pair_series_by_sweep_number_and_electrode(tmp_path: Path, sweep_table: bool) -> None:
    path = with_sweep_numbers(tmp_path, sweep_table=sweep_table)
    (dataset,) = (node.to_dataset() for node in sweeps(locate(path)).children.values())
    assert dataset.sweep_number.values.tolist() == [1, 1, 2, 2, 7]
    assert dataset.electrode.values.tolist() == ["a", "b", "a", "b", "a"]
    assert dataset.recording.values.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(dataset.starting_time, [1, 1, 2, 2, 7])
    with intake_nwbzarr.open_nwb(path) as nwbfile:
        for row in range(5):
            name = f"{dataset.electrode.values[row]}{dataset.sweep_number.values[row]}"
            response = nwbfile.acquisition[f"response {name}"]
            np.testing.assert_array_equal(dataset.response[row], response.data[:] * response.conversion)
            if sweep_table:
                listed = nwbfile.sweep_table.get_series(int(dataset.sweep_number[row]))
                assert dataset.response_path.values[row].endswith(tuple(each.name for each in listed))
            if name == "b1":
                assert np.isnan(dataset.stimulus[row]).all()
                assert dataset.stimulus_path.values[row] == ""
            else:
                stimulus = nwbfile.stimulus[f"stimulus {name}"]
                np.testing.assert_array_equal(dataset.stimulus[row], stimulus.data[:] * stimulus.conversion)


def test_series_without_a_number_and_surplus_series_are_told_of(tmp_path: Path) -> None:
    nwbfile = empty_session()
    on = add_pipette(nwbfile, "a")
    from pynwb.icephys import CurrentClampSeries, CurrentClampStimulusSeries

    for name in ("first", "second"):
        nwbfile.add_acquisition(clamp(CurrentClampSeries, name, on, samples(5), sweep_number=np.uint64(1)))
    nwbfile.add_acquisition(clamp(CurrentClampSeries, "unnumbered", on, samples(5)))
    nwbfile.add_stimulus(clamp(CurrentClampStimulusSeries, "s", on, samples(5), sweep_number=np.uint64(1)))
    path = write(tmp_path, nwbfile)
    with pytest.warns(MappingWarning) as warned:
        (node,) = sweeps(locate(path)).children.values()
    assert [str(each.message).partition(" ")[0] for each in warned] == ["1", "1"]
    assert "1 patch-clamp series" in str(warned[0].message)
    assert "several responses or stimuli" in str(warned[1].message)
    assert node.response_path.values.tolist() == ["acquisition/first", "acquisition/second"]
    assert node.stimulus_path.values.tolist() == ["stimulus/presentation/s", ""]


def test_stored_timestamps_are_a_variable_where_there_is_no_rate(tmp_path: Path) -> None:
    nwbfile = empty_session()
    on = add_pipette(nwbfile, "a")
    from pynwb.icephys import CurrentClampSeries

    times = [1.0, 1.5, 1.75, 4.0]
    nwbfile.add_acquisition(
        CurrentClampSeries(
            name="a", data=samples(4), electrode=on, gain=1.0, timestamps=times, sweep_number=np.uint64(0)
        )
    )
    (name,) = (tree := sweeps(locate(write(tmp_path, nwbfile)))).children
    assert name == "irregular_length_4"
    np.testing.assert_array_equal(tree[name].timestamps, [times])
    assert "time" not in tree[name].coords
    assert "starting_time" not in tree[name].coords


def test_a_session_without_sweeps_says_so(corpus_dir: Callable[[str, str], Path]) -> None:
    with pytest.raises(NodeNotFoundError, match=r"ecephys.*no sweeps.*sweep_number.*group="):
        sweeps(locate(corpus_dir("ecephys", "0.14.0")))


def test_a_table_that_leads_nowhere_costs_its_recordings_only(session: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(session, tmp_path / "damaged.nwb.zarr"))

    def elsewhere(document: dict[str, Any]) -> None:
        for entry in document["attributes"]["_LINKS"]:
            entry["path"] = "/nowhere"

    # The electrode is not needed; the series' data become text, which is no sweep.
    edit(path, "acquisition/zero", elsewhere)
    rewrite(path, "acquisition/fast/data", np.zeros((20, 2)))
    with pytest.warns(MappingWarning) as warned:
        recordings = by_recording(sweeps(locate(path)))
    assert any(
        "'acquisition/fast'" in str(each.message) and "(20, 2)" in str(each.message) for each in warned
    )
    assert any("1 of 8 recordings" in str(each.message) for each in warned)
    assert sorted(recordings) == [100, 101, 102, 103, 104, 106, 107]


def test_a_damaged_index_is_named(session: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(session, tmp_path / "damaged.nwb.zarr"))
    rewrite(path, f"{ICEPHYS}/simultaneous_recordings/recordings_index", np.array([2, 3, 90], "uint8"))
    with pytest.raises(ChunkError, match=r"'recordings' of the table .*simultaneous_recordings.*damaged"):
        sweeps(locate(path))


def test_samples_beyond_the_end_of_a_series_are_cut_with_a_warning(session: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(session, tmp_path / "damaged.nwb.zarr"))
    rewrite(path, "acquisition/long/data", np.arange(40.0))
    with pytest.warns(MappingWarning, match=r"samples 30 to 50 of 'acquisition/long', which has 40"):
        recordings = by_recording(sweeps(locate(path)))
    assert recordings[102].response_sample_count == 10
    assert np.isnan(recordings[102].response.values[10:]).all()


@pytest.mark.parametrize(("conversion", "offset"), [(np.nan, 0.25), (np.inf, 0.0), (2.0, np.nan)])
def test_a_conversion_that_is_nan_or_infinite_is_applied_as_elsewhere(
    session: Path, tmp_path: Path, conversion: float, offset: float
) -> None:
    path = Path(shutil.copytree(session, tmp_path / session.name))
    attributes = {"conversion": conversion, "offset": offset}
    edit(path, "acquisition/response0/data", lambda node: node["attributes"].update(attributes))
    shown = by_recording(sweeps(locate(path)))[100].response.values
    group = xr.open_dataset(path, engine="nwbzarr", group="acquisition/response0")
    np.testing.assert_array_equal(shown, group.data.values)
    assert not np.isfinite(shown).any()


def test_a_conversion_that_is_no_number_is_told_of(session: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(session, tmp_path / session.name))
    edit(path, "acquisition/response0/data", lambda node: node["attributes"].update(conversion="1e-3"))
    with pytest.warns(
        MappingWarning, match=r"'acquisition/response0'.* has the conversion '1e-3'.* not a number"
    ):
        shown = by_recording(sweeps(locate(path)))[100].response.values
    stored = by_recording(sweeps(locate(session)))[100].response.values
    np.testing.assert_allclose(shown, (stored - 0.25) * 1000 + 0.25)
