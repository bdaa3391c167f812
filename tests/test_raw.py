"""The raw object: what NWBZarrIO gives for any release equals what it gives for the current one."""

import json
import pickle
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBFile, TimeSeries
from pynwb.ecephys import ElectrodesTable
from pynwb.misc import Units
from pynwb.testing import TestCase

from intake_nwbzarr import open_hierarchy, open_nwb, track_requests
from intake_nwbzarr.errors import (
    ClosedError,
    LinkError,
    MetadataError,
    StaleMetadataWarning,
    UnconsolidatedWarning,
)
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.raw import closing
from tests.conftest import SESSIONS
from tests.servers.http_server import StaticServer
from tests.session_files import edit, empty_session, write

Corpus = Callable[[str, str], Path]


@pytest.fixture
def assert_equal() -> Callable[[NWBFile, NWBFile], None]:
    """pynwb's own comparison, field by field and value by value; object ids and names of files aside."""
    case = TestCase()
    case.maxDiff = None

    def compare(one: NWBFile, other: NWBFile) -> None:
        case.assertContainerEqual(one, other, ignore_name=True, ignore_hdmf_attrs=True)

    return compare


def _open(path: Path) -> NWBFile:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconsolidatedWarning)
        return open_nwb(path)


def _set_aside_what_was_written_differently(found: NWBFile, expected: NWBFile) -> None:
    """The moment of writing, and the order and descriptions that pynwb gave its own columns over time."""
    found.fields["file_create_date"] = expected.fields["file_create_date"]
    reworded = {column["name"] for cls in (ElectrodesTable, Units) for column in cls.__columns__}
    for one, other in ((found.electrodes, expected.electrodes), (found.units, expected.units)):
        if one is not None:
            columns = {column.name: column for column in one.columns}
            one.fields["columns"] = tuple(columns[column.name] for column in other.columns)
            one.fields["colnames"] = other.colnames
            for column in other.columns:
                if column.name in reworded:
                    columns[column.name].fields["description"] = column.description


@pytest.mark.parametrize(("kind", "release"), SESSIONS)
def test_every_release_gives_what_the_current_one_gives(
    kind: str, release: str, corpus_dir: Corpus, assert_equal: Callable[[NWBFile, NWBFile], None]
) -> None:
    with NWBZarrIO(str(corpus_dir(kind, "0.14.0")), mode="r") as io:
        expected = io.read()
        expected.__class__ = closing(NWBFile)
        found = _open(corpus_dir(kind, release))
        _set_aside_what_was_written_differently(found, expected)
        assert_equal(found, expected)


def test_it_reads_no_more_than_it_must(corpus_dir: Corpus) -> None:
    store = corpus_dir("ecephys", "0.8.0")
    nodes = open_hierarchy(store).items()
    scalars = [path for path, node in nodes if isinstance(node, ArrayNode) and node.shape == ()]
    ids_and_regions = [
        path for path, node in nodes if node.neurodata_type in {"ElementIdentifiers", "DynamicTableRegion"}
    ]
    lists = ["file_create_date", "general/experimenter", "general/keywords"]
    with track_requests() as log:
        nwbfile = open_nwb(store)
    assert log.requests == 2 + len(scalars) + len(ids_and_regions) + len(lists)
    # What was read is kept; the rest is read when it is asked for.
    with track_requests() as log:
        assert list(nwbfile.units.id[:]) == [0, 1, 2, 3, 4, 5]
    assert log.requests == 0


def test_what_pynwb_reads_one_by_one_is_read_side_by_side(
    corpus_dir: Corpus, http_server: StaticServer
) -> None:
    """Behind a wire, a scalar a round trip would be most of the time it takes."""
    shutil.copytree(corpus_dir("icephys", "0.8.0"), http_server.root / "session.nwb.zarr")
    http_server.latency = 0.2
    began = time.monotonic()
    open_nwb(f"{http_server.url}/session.nwb.zarr").read_io.close()
    assert time.monotonic() - began < 8  # where 59 of them would take 12


def test_arrays_are_lazy(corpus_dir: Corpus) -> None:
    nwbfile = open_nwb(corpus_dir("ecephys", "0.8.0"))
    with track_requests() as log:
        data = nwbfile.acquisition["ElectricalSeriesAP"].data[:10, :2]
    assert data.shape == (10, 2)
    assert log.requests == 1


def test_after_the_with_block_reading_raises(corpus_dir: Corpus) -> None:
    with open_nwb(corpus_dir("ophys", "0.14.0")) as nwbfile:
        assert isinstance(nwbfile, NWBFile)
        series = nwbfile.acquisition["TwoPhotonSeries"]
        assert series.data[0].shape == (16, 16)
    with pytest.raises(ClosedError, match="was closed"):
        series.data[0]


def test_a_link_into_another_file_is_followed(tmp_path: Path) -> None:
    """Written by hdmf-zarr itself: a processed file that links to the raw one's data."""
    raw, derived = empty_session(), empty_session()
    raw.add_acquisition(TimeSeries(name="signal", data=np.arange(20.0), unit="V", rate=10.0))
    write(tmp_path, raw, "raw.nwb.zarr")
    with NWBZarrIO(str(tmp_path / "raw.nwb.zarr"), mode="r") as source:
        original = source.read().acquisition["signal"]
        derived.add_acquisition(TimeSeries(name="copy", data=original.data, unit="V", rate=10.0))
        derived.add_acquisition(original)
        with NWBZarrIO(str(tmp_path / "derived.nwb.zarr"), manager=source.manager, mode="w") as io:
            io.write(derived, link_data=True)
    nwbfile = open_nwb(tmp_path / "derived.nwb.zarr")
    np.testing.assert_array_equal(nwbfile.acquisition["signal"].data[:], np.arange(20.0))
    np.testing.assert_array_equal(nwbfile.acquisition["copy"].data[:], np.arange(20.0))


@pytest.fixture(scope="module")
def file_with_an_extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by another process, so that this one knows nothing of the extension."""
    folder = tmp_path_factory.mktemp("extension")
    subprocess.run([sys.executable, "-W", "ignore", "-m", "tests.extension", str(folder)], check=True)
    return folder / "colours.nwb.zarr"


def _leave_the_schemas_out(store: Path) -> None:
    """Consolidate as hdmf-zarr before 0.14: the schemas are stored, but the document does not say so."""
    document = json.loads((store / "zarr.json").read_text())
    nodes = document["consolidated_metadata"]["metadata"]
    for path in [path for path in nodes if path.startswith("specifications")]:
        del nodes[path]
    del document["attributes"][".specloc"]
    (store / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize("consolidated", ["schemas too", "without the schemas"])
def test_the_schemas_cached_in_a_file_give_extensions_their_types(
    consolidated: str, file_with_an_extension: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(file_with_an_extension, tmp_path / "colours.nwb.zarr"))
    if consolidated == "without the schemas":
        _leave_the_schemas_out(store)
    series = open_nwb(store).acquisition["light"]
    assert type(series).__name__ == "ColourSeries"
    assert series.colour == "green"


def test_an_extension_without_its_schema_says_what_to_do(
    file_with_an_extension: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(file_with_an_extension, tmp_path / "colours.nwb.zarr"))
    _leave_the_schemas_out(store)
    shutil.rmtree(store / "specifications")
    with pytest.raises(MetadataError, match=r"ndx-colour.*Import the Python package") as raised:
        open_nwb(store)
    assert (raised.value.location, raised.value.found) == (f"file://{store}", ["ndx-colour"])


def test_it_travels_to_another_process_as_its_location(corpus_dir: Corpus) -> None:
    nwbfile = open_nwb(corpus_dir("icephys", "0.14.0"))
    again = pickle.loads(pickle.dumps(nwbfile))
    assert again is not nwbfile
    np.testing.assert_array_equal(
        again.acquisition["response0"].data[:], nwbfile.acquisition["response0"].data[:]
    )
    assert repr(type(nwbfile)) == repr(NWBFile)


def test_a_reference_to_what_is_not_stored_says_so(corpus_dir: Corpus, tmp_path: Path) -> None:
    store = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "incomplete.nwb.zarr"))
    document = json.loads((store / "zarr.json").read_text())
    nodes = document["consolidated_metadata"]["metadata"]
    for path in [path for path in nodes if path.startswith("general/extracellular_ephys/electrodes")]:
        del nodes[path]
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.warns(StaleMetadataWarning, match="electrodes"):
        found = open_nwb(store)
    assert len(found.acquisition["ElectricalSeriesAP"].electrodes.table) == 8
    shutil.rmtree(store / "general/extracellular_ephys/electrodes")
    with pytest.raises(LinkError, match="is incomplete") as raised:
        open_nwb(store)
    assert raised.value.location == store.as_uri()
    assert str(raised.value.path).endswith("electrodes")
    assert "open_dataset" in str(raised.value.next_step)


def test_a_file_that_pynwb_refuses_is_one_line_that_says_why(
    corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "refused.nwb.zarr"))
    edit(path, "acquisition/sync/data", lambda document: document["attributes"].update(conversion="1e-6"))
    with pytest.raises(MetadataError, match=r"pynwb cannot read .*refused.*conversion.*xarray") as told:
        open_nwb(path)
    assert len(str(told.value)) < 800
    assert "\n" not in str(told.value)
