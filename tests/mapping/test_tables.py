"""Dynamic tables of every kind, compared with what pynwb reads or was given."""

import datetime as dt
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdmf.common import DynamicTable, DynamicTableRegion, MeaningsTable, VectorData, VectorIndex
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBFile
from pynwb.base import TimeSeriesReferenceVectorData
from pynwb.event import DurationVectorData, EventsTable, TimestampVectorData
from pynwb.icephys import CurrentClampSeries

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.demo.sessions import add_pipette
from intake_nwbzarr.errors import MappingWarning
from intake_nwbzarr.hierarchy.hierarchy import open_hierarchy
from intake_nwbzarr.mapping.model import MappedObject
from intake_nwbzarr.transport.request_log import track_requests
from tests.conftest import KINDS, RELEASES
from tests.mapping.mapped_tables import by_name, dimension_names, mapped, values
from tests.session_files import START, consolidate, edit, empty_session, rewrite, write

TABLES = {
    "ecephys": ("general/extracellular_ephys/electrodes", "intervals/epochs", "intervals/trials", "units"),
    "ophys": (
        "processing/ophys/ImageSegmentation/ImageMasks",
        "processing/ophys/ImageSegmentation/PixelMasks",
    ),
    "icephys": tuple(
        f"general/intracellular_ephys/{name}"
        for name in (
            "intracellular_recordings",
            "simultaneous_recordings",
            "sequential_recordings",
            "repetitions",
            "experimental_conditions",
        )
    ),
}

CorpusDir = Callable[[str, str], Path]


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_holds_what_pynwb_reads(kind: str, corpus_dir: CorpusDir) -> None:
    path = corpus_dir(kind, "0.14.0")
    hierarchy = open_hierarchy(path)
    with reading(path) as nwbfile:
        tables = [thing for thing in nwbfile.objects.values() if isinstance(thing, DynamicTable)]
        compared = [
            assert_holds(mapped(hierarchy, object_path(table)), table)
            for table in tables
            if not hasattr(table, "category_tables")
        ]
    assert sum(compared) >= len(compared) > 0


def reading(path: Path) -> Any:
    """The session as pynwb reads it, in a context."""

    class Reading:
        def __enter__(self) -> NWBFile:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.io = NWBZarrIO(str(path), mode="r")
                return self.io.read()

        def __exit__(self, *_: object) -> None:
            self.io.close()

    return Reading()


def object_path(thing: Any) -> str:
    """Where pynwb's object is stored, found from its data."""
    return str(thing.id.data.path).removesuffix("/id")


def assert_holds(piece: MappedObject, table: DynamicTable) -> int:
    parts = by_name(piece.parts)
    np.testing.assert_array_equal(piece.indexes[0].values, table.id[:])
    names = list(parts)
    for column in table.columns:
        if isinstance(column, VectorIndex):
            ends = np.asarray(column.data[:], np.int64)
            target = column.target.name
            np.testing.assert_array_equal(
                values(parts[f"{target}_start"]), np.concatenate([[0], ends[:-1]]) if len(ends) else ends
            )
            np.testing.assert_array_equal(values(parts[f"{target}_count"]), np.diff(ends, prepend=0))
        elif isinstance(column, TimeSeriesReferenceVectorData):
            for row, reference in enumerate(column[i] for i in range(len(column))):
                assert values(parts[f"{column.name}_sample_start"])[row] == reference.idx_start
                assert values(parts[f"{column.name}_sample_count"])[row] == reference.count
                assert values(parts[f"{column.name}_path"])[row].endswith(reference.timeseries.name)
        elif column.name == "pixel_mask":
            for field in ("x", "y", "weight"):
                np.testing.assert_array_equal(values(parts[f"pixel_mask_{field}"]), column.data[:][field])
        elif len(column.data) and hasattr(column.data[0], "object_id"):
            assert [path.rpartition("/")[2] for path in values(parts[column.name])] == [
                target.name for target in column.data[:]
            ]
        elif isinstance(column, DynamicTableRegion):
            rows = np.asarray(column.data[:])
            np.testing.assert_array_equal(values(parts[column.name]), rows)
            np.testing.assert_array_equal(values(parts[f"{column.name}_id"]), column.table.id[:][rows])
        else:
            np.testing.assert_array_equal(values(parts[column.name]), np.asarray(column.data[:]))
            assert parts[column.name].attributes["description"] == column.description
        assert any(name.startswith(column.name.removesuffix("_index")) for name in names)
    return len(table.columns)


@pytest.mark.parametrize("release", RELEASES[:-1])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.UnconsolidatedWarning")
def test_tables_of_every_release_equal_those_of_the_newest(
    kind: str, release: str, corpus_dir: CorpusDir
) -> None:
    old, new = open_hierarchy(corpus_dir(kind, release)), open_hierarchy(corpus_dir(kind, "0.14.0"))
    for path in TABLES[kind]:
        theirs, ours = mapped(old, path), mapped(new, path)
        # ElectrodesTable, and the order of an electrode's columns, came with later schemas.
        assert sorted(shapes(theirs)) == sorted(shapes(ours))
        expected = by_name(ours.parts)
        for part in theirs.parts:
            np.testing.assert_array_equal(
                values(part), values(expected[part.name]), err_msg=f"{path} {part.name}"
            )


def shapes(piece: MappedObject) -> Iterator[tuple[Any, ...]]:
    for part in piece.parts:
        yield part.name, dimension_names(part), tuple(dimension.flat_name for dimension in part.dimensions)


def test_the_units_table_has_the_names_users_expect(corpus_dir: CorpusDir) -> None:
    piece = mapped(corpus_dir("ecephys", "0.14.0"), "units")
    assert {part.name: dimension_names(part) for part in piece.parts} == {
        "quality": ("unit",),
        "spike_times_start": ("unit",),
        "spike_times_count": ("unit",),
        "spike_times": ("spike",),
        "electrodes_start": ("unit",),
        "electrodes_count": ("unit",),
        "electrodes": ("electrodes_value",),
        "electrodes_id": ("electrodes_value",),
        "electrode_group": ("unit",),
        "electrode_group_name": ("unit",),
        "waveform_mean": ("unit", "sample", "electrode"),
    }
    parts = by_name(piece.parts)
    assert [dimension.flat_name for dimension in parts["waveform_mean"].dimensions] == [
        "units",
        "units_sample",
        "units_electrode",
    ]
    assert parts["spike_times"].attributes == {
        "comment": "spike times of all units, one unit after the other, whichever units are selected: "
        "ds.nwb.spike_times(id) gives those of one unit, ds.nwb.to_dataframe('units') has a cell for each",
        "neurodata_type": "VectorData",
        "nwb_path": "units/spike_times",
        "description": "the spike times for each unit in seconds",
        "units": "s",
    }
    assert parts["electrodes"].attributes["table"] == "general/extracellular_ephys/electrodes"
    assert parts["spike_times_start"].attributes["ragged_values"] == "units/spike_times"
    assert parts["spike_times_start"].attributes["ragged_length"] == 97
    assert values(parts["spike_times_count"]).dtype == np.int64
    assert piece.indexes[0].dimension is piece.parts[0].dimensions[0]
    assert all(part.attributes["nwb_path"] and part.attributes["neurodata_type"] for part in piece.parts)


def test_only_ids_and_short_indexes_are_read_at_open(corpus_dir: CorpusDir) -> None:
    hierarchy = open_hierarchy(corpus_dir("ecephys", "0.14.0"))
    with track_requests() as log:
        units = by_name(mapped(hierarchy, "units").parts)
    assert log.requests == 3  # id, spike_times_index, electrodes_index
    with track_requests() as log:
        starts, counts = values(units["spike_times_start"]), values(units["spike_times_count"])
    assert log.requests == 0
    ends = open_hierarchy(corpus_dir("ecephys", "0.14.0"))["units/spike_times_index"]
    np.testing.assert_array_equal(starts + counts, StoredArray(hierarchy.file, ends).read())


def test_a_long_index_stays_where_it_is(corpus_dir: CorpusDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intake_nwbzarr.mapping.tables._SHORT_INDEX", 2)
    hierarchy = open_hierarchy(corpus_dir("ecephys", "0.14.0"))
    with track_requests() as log:
        units = by_name(mapped(hierarchy, "units").parts)
    assert log.requests == 1
    with track_requests() as log:
        values(units["spike_times_start"])
    assert log.requests == 1


def test_a_row_number_column_does_not_take_the_rows_dimension(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_trial_column("trial", "number of the trial")
    nwbfile.add_trial(start_time=0.0, stop_time=1.0, trial=7)
    piece = mapped(write(tmp_path, nwbfile), "intervals/trials")
    assert dimension_names(by_name(piece.parts)["trial"]) == ("row",)
    assert piece.indexes[0].dimension.flat_name == "trials"


def test_ids_need_not_be_positions_and_repeated_ones_warn(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number in (6, 191, 6):
        nwbfile.add_unit(id=number, spike_times=[0.5])
    path = write(tmp_path, nwbfile)
    with pytest.warns(MappingWarning, match="'units' .* rows of the same id"):
        piece = mapped(path, "units")
    assert piece.indexes[0].values.tolist() == [6, 191, 6]


def test_intervals_of_single_precision_are_widened(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_trial_column("score", "a number", col_cls=VectorData)
    nwbfile.add_trial(start_time=0.1, stop_time=0.2, score=0.5)
    path = write(tmp_path, nwbfile)
    rewrite(path, "intervals/trials/start_time", np.array([7200.1], "f4"))
    part = by_name(mapped(path, "intervals/trials").parts)["start_time"]
    assert values(part).dtype == np.float64
    assert values(part)[0] == np.float32(7200.1)
    stored = by_name(mapped(path, "intervals/trials", mask_and_scale=False).parts)["start_time"]
    assert values(stored).dtype == np.float32


def test_empty_tables_and_units_without_spikes_open(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_unit(spike_times=np.array([], "f8"))
    empty = VectorData(name="a", description="empty", data=np.array([], "f8"))
    nwbfile.add_acquisition(DynamicTable(name="nothing", description="no rows", columns=[empty]))
    nwbfile.add_acquisition(DynamicTable(name="bare", description="no columns"))
    path = write(tmp_path, nwbfile)
    units = by_name(mapped(path, "units").parts)
    assert values(units["spike_times_count"]).tolist() == [0]
    assert values(units["spike_times"]).shape == (0,)
    assert values(by_name(mapped(path, "acquisition/nothing").parts)["a"]).shape == (0,)
    assert mapped(path, "acquisition/bare").parts == ()


def test_an_aligned_table_is_one_piece_with_its_categories(tmp_path: Path) -> None:
    nwbfile = empty_session()
    electrode = add_pipette(nwbfile)
    shared: dict[str, Any] = {"electrode": electrode, "gain": 0.02, "rate": 1000.0}
    for sweep in range(2):
        response = CurrentClampSeries(name=f"response{sweep}", data=np.zeros(20), **shared)
        nwbfile.add_acquisition(response)
        nwbfile.add_intracellular_recording(
            electrode=electrode, response=response, response_start_index=2, response_index_count=5
        )
    nwbfile.intracellular_recordings.add_column(
        name="note", description="of the table itself", data=["a", "b"]
    )
    path = write(tmp_path, nwbfile)
    table = "general/intracellular_ephys/intracellular_recordings"
    piece = mapped(path, table)
    parts = by_name(piece.parts)
    assert {dimension_names(part) for part in piece.parts} == {("recording",)}
    assert values(parts["note"]).tolist() == ["a", "b"]
    assert values(parts["responses_id"]).tolist() == [0, 1]
    assert values(parts["responses_response_sample_count"]).tolist() == [5, 5]
    assert values(parts["responses_response_path"]).tolist() == [
        "acquisition/response0",
        "acquisition/response1",
    ]
    assert values(parts["electrodes_electrode_name"]).tolist() == ["electrode", "electrode"]
    # Nothing was presented: start and count are -1, and pynwb puts the response in the stimulus's place.
    assert values(parts["stimuli_stimulus_sample_start"]).tolist() == [-1, -1]
    assert values(parts["stimuli_stimulus_path"]).tolist() == ["", ""]
    stored = by_name(mapped(path, table, mask_and_scale=False).parts)
    assert values(stored["stimuli_stimulus_path"])[0] == "acquisition/response0"


def test_a_category_of_another_length_stays_apart(tmp_path: Path, corpus_dir: CorpusDir) -> None:
    path = tmp_path / "copy.nwb.zarr"
    shutil.copytree(corpus_dir("icephys", "0.14.0"), path)
    table = "general/intracellular_ephys/intracellular_recordings"
    rewrite(path, f"{table}/electrodes/id", np.arange(3))
    edit(path, table, lambda document: document["attributes"]["categories"].append("ghosts"))
    with pytest.warns(MappingWarning) as caught:
        parts = by_name(mapped(path, table).parts)
    messages = " ".join(str(warning.message) for warning in caught)
    assert "category 'electrodes'" in messages
    assert "category 'ghosts' that is not in the file" in messages
    assert dimension_names(parts["electrodes_id"]) == ("electrodes_row",)
    assert dimension_names(parts["stimuli_id"]) == ("recording",)


def test_events_count_from_the_zero_of_time(tmp_path: Path) -> None:
    nwbfile = empty_session(timestamps_reference_time=START - dt.timedelta(seconds=100.5))
    table = EventsTable(
        name="licks",
        description="licks",
        columns=[
            TimestampVectorData(name="timestamp", description="when", data=np.array([3.25, 1.0], "f4")),
            DurationVectorData(name="duration", description="how long", data=np.array([np.nan, 0.5])),
        ],
    )
    nwbfile.add_acquisition(table)
    path = write(tmp_path, nwbfile)
    piece = mapped(path, "acquisition/licks")
    parts = by_name(piece.parts)
    assert values(parts["timestamp"]).tolist() == [103.75, 101.5]
    assert parts["timestamp"].attributes["time_offset"] == 100.5
    assert parts["timestamp"].attributes["units"] == parts["duration"].attributes["units"] == "s"
    assert dimension_names(parts["timestamp"]) == ("event",)
    np.testing.assert_array_equal(values(parts["duration"]), [np.nan, 0.5])
    stored = by_name(mapped(path, "acquisition/licks", mask_and_scale=False).parts)
    assert values(stored["timestamp"]).tolist() == [3.25, 1.0]
    rewrite(path, "session_start_time", np.array("yesterday", np.dtypes.StringDType()))
    with pytest.warns(MappingWarning, match="is not a date: they are not shifted"):
        unshifted = by_name(mapped(path, "acquisition/licks").parts)
    assert values(unshifted["timestamp"]).tolist() == [3.25, 1.0]


def test_meanings_are_a_plain_table(tmp_path: Path) -> None:
    nwbfile = empty_session()
    table = DynamicTable(name="choices", description="d", id=[0, 1])
    table.add_column(name="side", description="side", data=["l", "r"])
    meanings = MeaningsTable(target=table["side"], description="what sides mean")
    meanings.add_row(value="l", meaning="left")
    meanings.add_row(value="r", meaning="right")
    table.add_meanings_table(meanings)
    nwbfile.add_acquisition(table)
    path = write(tmp_path, nwbfile)
    hierarchy = open_hierarchy(path)
    (found,) = (name for name in hierarchy if hierarchy[name].neurodata_type == "MeaningsTable")
    piece = mapped(hierarchy, found)
    assert {part.name: values(part).tolist() for part in piece.parts} == {
        "value": ["l", "r"],
        "meaning": ["left", "right"],
    }
    assert piece.attributes["target"] == "acquisition/choices/side"


def test_the_series_of_a_sweep_table_are_paths_and_names(tmp_path: Path) -> None:
    nwbfile = empty_session()
    electrode = add_pipette(nwbfile)
    series = [
        CurrentClampSeries(name=f"sweep{n}", data=np.zeros(3), electrode=electrode, gain=1.0, rate=1.0)
        for n in range(4)
    ]
    for each in series:
        nwbfile.add_acquisition(each)
    # pynwb no longer makes a SweepTable: a plain table with its columns is given its type afterwards.
    references = VectorData(name="series", description="the series", data=series)
    columns = [
        VectorData(name="sweep_number", description="which sweep", data=np.array([0, 0, 1, 1], "u4")),
        VectorIndex(name="series_index", data=np.arange(1, 5), target=references),
        references,
    ]
    nwbfile.add_acquisition(DynamicTable(name="sweep_table", description="sweeps", columns=columns))
    path = write(tmp_path, nwbfile)
    edit(
        path,
        "acquisition/sweep_table",
        lambda document: document["attributes"].update(neurodata_type="SweepTable"),
    )
    piece = mapped(path, "acquisition/sweep_table")
    parts = by_name(piece.parts)
    assert piece.neurodata_type == "SweepTable"
    assert values(parts["series"]).tolist() == [f"acquisition/sweep{number}" for number in range(4)]
    assert values(parts["series_name"]).tolist() == [f"sweep{number}" for number in range(4)]
    assert values(parts["series_count"]).tolist() == [1, 1, 1, 1]
    assert values(parts["sweep_number"]).tolist() == [0, 0, 1, 1]


def test_a_table_without_ids_has_rows_without_labels(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_unit(spike_times=[0.5, 0.7])
    nwbfile.add_unit(spike_times=[0.9])
    path = write(tmp_path, nwbfile)
    shutil.rmtree(path / "units" / "id")
    consolidate(path)
    piece = mapped(path, "units")
    assert piece.indexes == ()
    assert values(by_name(piece.parts)["spike_times_count"]).tolist() == [2, 1]
