"""`ds.nwb.describe`: what is known of every object, without reading."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pynwb import TimeSeries
from pynwb.base import Images
from pynwb.ecephys import FeatureExtraction
from pynwb.image import GrayscaleImage

import intake_nwbzarr
from intake_nwbzarr.accessor.contents import shown_objects
from intake_nwbzarr.demo.sessions import add_electrodes
from intake_nwbzarr.errors import MappingWarning
from intake_nwbzarr.hierarchy.hierarchy import open_hierarchy
from tests.accessor.timed_session import LICK_TIMES, RATE, START
from tests.conftest import KINDS
from tests.session_files import empty_session, opened, write

CorpusDir = Callable[[str, str], Path]


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_of_the_corpus_is_described_as_the_file_has_it(corpus_dir: CorpusDir, kind: str) -> None:
    dataset = opened(corpus_dir(kind, "0.14.0"))
    with intake_nwbzarr.track_requests() as log:
        frame = dataset.nwb.describe()
    assert log.requests == 0
    hierarchy = open_hierarchy(dataset.nwb.location)
    for path, row in frame.iterrows():
        assert row.type == hierarchy[str(path)].neurodata_type
        assert set(row.variables) <= set(dataset.variables)
    shown = {name for names in frame.variables for name in names}
    # Beside these there are columns joined to a series' own channels, and labels of axes.
    assert set(dataset.data_vars) <= shown


def test_a_series_row_says_what_it_is(dataset: xr.Dataset) -> None:
    frame = dataset.nwb.describe()
    assert frame.index.name == "path"
    voltage = frame.loc["acquisition/voltage"]
    assert voltage[["type", "name", "units", "rate", "timestamps", "start"]].tolist() == [
        "TimeSeries",
        "voltage",
        "V",
        50.0,
        400,
        0.7,
    ]
    assert voltage.duration == pytest.approx(399 / 50)
    assert (voltage.dims, voltage["shape"]) == (("voltage_time", "voltage_dim_1"), (400, 2))
    assert voltage["dtype"] == np.float64
    lick = frame.loc["acquisition/lick"]
    assert lick.timestamps == 100
    assert lick[["rate", "start", "duration"]].isna().all()
    units = frame.loc["units"]
    assert (units.type, units.dims, units["shape"]) == ("Units", ("units",), (4,))
    assert units[["rate", "timestamps", "dtype"]].isna().all()
    assert frame.loc["intervals/trials"].description == "experimental trials"


def test_selections_are_described_as_they_are(dataset: xr.Dataset) -> None:
    part = dataset.isel(voltage_time=slice(10, 20, 2), units=[1], lick_time=[3, 7])
    frame = part.nwb.describe()
    voltage = frame.loc["acquisition/voltage"]
    assert (voltage.rate, voltage.timestamps, voltage.start) == (25.0, 5, START + 10 / RATE)
    assert frame.loc["units", "shape"] == (1,)
    # These times were read by the selection, so they are known.
    assert frame.loc["acquisition/lick", "start"] == LICK_TIMES[3]
    assert frame.loc["acquisition/lick", "duration"] == LICK_TIMES[7] - LICK_TIMES[3]
    assert dataset.isel(units=2).nwb.describe().loc["units", "shape"] == ()
    assert list(dataset[["lick"]].nwb.describe().index) == ["acquisition/lick"]
    assert dataset[[]].nwb.describe().empty


def test_one_object_is_one_row(path: Path) -> None:
    for group, kind in (
        ("units", "Units"),
        ("acquisition/probe data", "ElectricalSeries"),
        ("general/extracellular_ephys/electrodes", "ElectrodesTable"),
    ):
        frame = opened(path, group).nwb.describe()
        assert frame.index.tolist() == [group]
        assert frame.type.tolist() == [kind]
        assert frame.name.tolist() == [group.rpartition("/")[2]]


def test_decoded_times_start_at_a_datetime(path: Path) -> None:
    frame = opened(path, decode_times=True).nwb.describe()
    assert frame.loc["acquisition/voltage", "start"] == pd.Timestamp("2024-05-01T12:00:00.7")
    assert frame.loc["acquisition/voltage", "duration"] == pytest.approx(399 / 50)


def test_objects_that_are_neither_series_nor_tables_are_rows_too(tmp_path: Path) -> None:
    nwbfile = empty_session()
    module = nwbfile.create_processing_module("ecephys", "d")
    features = FeatureExtraction(
        name="features",
        electrodes=add_electrodes(nwbfile, 1),
        description=["height", "width"],
        times=[0.1, 0.2, 0.3],
        features=np.zeros((3, 1, 2)),
    )
    module.add(features)
    nwbfile.add_acquisition(Images(name="pictures", images=[GrayscaleImage(name="dot", data=np.eye(2))]))
    session = write(tmp_path, nwbfile)
    frame = opened(session).nwb.describe()
    dot, found = frame.loc["acquisition/pictures/dot"], frame.loc["processing/ecephys/features"]
    assert (dot.type, dot["shape"], dot["dtype"]) == ("GrayscaleImage", (2, 2), np.float64)
    assert (found.type, found.timestamps) == ("FeatureExtraction", 3)
    assert sorted(found["shape"]) == [1, 2, 3]
    alone = opened(session, "processing/ecephys/features")
    assert alone.nwb.describe().index.tolist() == ["processing/ecephys/features"]


def test_what_lies_on_a_grid_is_one_object_with_its_grid(corpus_dir: CorpusDir) -> None:
    dataset = opened(corpus_dir("ophys", "0.14.0"))
    frame = dataset.nwb.describe()
    assert not frame.type.isin(["None", "nan"]).any()
    hierarchy = open_hierarchy(dataset.nwb.location)
    assert all(hierarchy[str(path)].neurodata_type for path in frame.index)


@pytest.mark.parametrize("names", ["short", "path", "safe"])
def test_every_kind_of_series_is_an_object_of_its_own(every_series_path: Path, names: str) -> None:
    with pytest.warns(MappingWarning):
        dataset = opened(every_series_path, names=names)
    frame = dataset.nwb.describe()
    assert frame.index.is_unique
    hierarchy = open_hierarchy(every_series_path)
    for name in hierarchy.children("acquisition"):
        row = frame.loc[f"acquisition/{name}"]
        assert row.type == hierarchy[f"acquisition/{name}"].neurodata_type
        assert dataset[row["name"]].attrs["nwb_path"] == f"acquisition/{name}"
    tables = [each for each in shown_objects(dataset) if each.kind == "table"]
    assert {each.path.rpartition("/")[2] for each in tables} == {"electrodes", "cells"}


def test_ds_nwb_shows_the_objects_without_reading(path: Path, dataset: xr.Dataset) -> None:
    tree = xr.open_datatree(path, engine="nwbzarr")
    one = opened(path, "acquisition/voltage")
    with intake_nwbzarr.track_requests() as log:
        whole, node, alone = repr(dataset.nwb), repr(tree["acquisition/voltage"].nwb), repr(one.nwb)
        html = dataset.nwb._repr_html_()
    assert log.requests == 0
    assert whole.startswith(f"<ds.nwb of {dataset.attrs['nwb_location']}>")
    for row in dataset.nwb.describe().itertuples():
        line = next(line for line in whole.splitlines() if line.startswith(f"  {row.name} "))
        assert row.type in line
        assert f"<td>{row.name}</td>" in html
    assert "50 Hz, 7.98 s" in whole
    for text in (node, alone):
        assert "group 'acquisition/voltage'" in text
        assert "voltage  TimeSeries  (time: 400" in text


def test_ds_nwb_of_a_computed_dataset_says_that_it_is_of_no_session(dataset: xr.Dataset) -> None:
    computed = (dataset[["voltage"]] * 2).drop_attrs()
    for text in (repr(computed.nwb), computed.nwb._repr_html_()):
        assert "no session (attribute nwb_location is missing)" in text
        assert "no neurodata objects" in text
    assert "acquisition/voltage" in dataset[["voltage"]].mean().nwb.describe().index


def test_ds_nwb_of_many_objects_is_short_and_names_are_escaped(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number in range(60):
        nwbfile.add_acquisition(TimeSeries(name=f"<b>&'{number}", data=[1.0, 2.0], unit="V", rate=10.0))
    dataset = opened(write(tmp_path, nwbfile))
    text, html = repr(dataset.nwb), dataset.nwb._repr_html_()
    assert "60 objects: 60 TimeSeries" in text
    assert len(text.splitlines()) < 30
    assert "and 36 more; ds.nwb.describe() lists all" in text
    assert "<b>&" not in html
    assert "&lt;b&gt;&amp;&#x27;0" in html
