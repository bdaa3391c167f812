"""A session without a fault, which pynwb writes, and copies of it with one fault each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pynwb import NWBFile, TimeSeries
from pynwb.behavior import Position, SpatialSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.ophys import RoiResponseSeries

from intake_nwbzarr.demo.sessions import add_electrodes, add_imaging_plane
from tests.session_files import consolidate, edit, empty_session, rewrite, write

RAW = "acquisition/raw"
LICKS = "acquisition/licks"
ROIS = "processing/ophys/ImageSegmentation/rois"
ELECTRODES = "general/extracellular_ephys/electrodes"


def good_session() -> NWBFile:
    """Return a session of series, tables, regions, references and links, of which nothing is to be said."""
    random = np.random.default_rng(0)
    nwbfile = empty_session()
    region = add_electrodes(nwbfile, 4)
    raw = ElectricalSeries(
        name="raw",
        data=random.normal(0, 90, (4000, 4)).astype(np.int16),
        electrodes=region,
        rate=1000.0,
        starting_time=0.5,
        conversion=1e-6,
        channel_conversion=[1.0, 1.0, 1.1, 0.9],
        description="raw",
    )
    nwbfile.add_acquisition(raw)
    times = np.sort(random.uniform(0, 4, 200))
    nwbfile.add_acquisition(TimeSeries(name="licks", data=np.ones(200), unit="n/a", timestamps=times))
    nwbfile.add_acquisition(
        TimeSeries(name="speed", data=times, unit="cm/s", timestamps=nwbfile.acquisition["licks"])
    )
    nwbfile.add_trial_column("stim", "stimulus")
    for trial in range(4):
        nwbfile.add_trial(start_time=float(trial), stop_time=trial + 0.5, stim="lr"[trial % 2])
    for _ in range(3):
        nwbfile.add_unit(
            spike_times=np.sort(random.uniform(0, 4, 30)),
            waveform_mean=random.normal(0, 1e-4, 40),
            electrodes=[0, 1],
        )
    segmentation = _segmentation(nwbfile)
    rois = segmentation.create_roi_table_region(region=[0, 1, 2], description="all")
    traces = random.normal(100, 5, (60, 3)).astype(np.float32)
    nwbfile.processing["ophys"].add(
        RoiResponseSeries(name="traces", data=traces, rois=rois, unit="a.u.", rate=20.0)
    )
    place = SpatialSeries(
        name="place", data=random.uniform(0, 1, (50, 2)), reference_frame="corner", rate=20.0, unit="meters"
    )
    nwbfile.create_processing_module("behavior", "behavior").add(Position(spatial_series=place))
    return nwbfile


def _segmentation(nwbfile: NWBFile) -> Any:
    from pynwb.ophys import ImageSegmentation

    plane = add_imaging_plane(
        nwbfile, grid_spacing=[1.0, 1.0], grid_spacing_unit="micrometers", origin_coords=[0.0, 0.0],
        origin_coords_unit="micrometers",
    )  # fmt: skip
    found = ImageSegmentation()
    nwbfile.create_processing_module("ophys", "ophys").add(found)
    segmentation = found.create_plane_segmentation(name="rois", description="cells", imaging_plane=plane)
    for row in range(3):
        mask = np.zeros((8, 8))
        mask[row] = 1
        segmentation.add_roi(image_mask=mask)
    return segmentation


type Damage = Callable[[Path], object]


def attribute(array_or_group: str, name: str, value: Any) -> Damage:
    """Return what gives an object an attribute."""
    return lambda path: edit(path, array_or_group, lambda each: each["attributes"].update({name: value}))


def values(name: str, data: Any) -> Damage:
    """Return what replaces the values of an array."""
    return lambda path: rewrite(path, name, np.asarray(data))


def texts(name: str, data: str | list[str]) -> Damage:
    """Return what replaces the values of an array of texts or references."""

    def replace(path: Path) -> None:
        group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
        attributes = dict(group[name].attrs)
        stored = np.array(data, np.dtypes.StringDType())
        array = group.create_array(name, shape=stored.shape, dtype="string", overwrite=True)
        array[...] = stored
        array.attrs.update(attributes)
        consolidate(path)

    return replace


def without(*names: str) -> Damage:
    """Return what removes objects, as an incomplete upload does."""

    def remove(path: Path) -> None:
        for name in names:
            shutil.rmtree(path / name)
        consolidate(path)

    return remove


def link(group: str, name: str, target: str, source: str = ".") -> Damage:
    """Return what adds a link to a group."""

    def add(document: dict[str, Any]) -> None:
        links = document["attributes"].setdefault("_LINKS", [])
        links.append({"name": name, "source": source, "path": target})

    return lambda path: edit(path, group, add)


def unconsolidated(path: Path) -> None:
    """Strip a session of its consolidated metadata."""
    document = json.loads((path / "zarr.json").read_text())
    del document["consolidated_metadata"]
    (path / "zarr.json").write_text(json.dumps(document))


def added_without_consolidating(path: Path) -> None:
    """Add a trial's column with zarr."""
    group = zarr.open_group(str(path / "intervals/trials"), mode="r+", use_consolidated=False)
    array = group.create_array("score", data=np.arange(4.0))
    array.attrs.update(dict(group["start_time"].attrs) | {"neurodata_type": "VectorData"})


def damaged_chunk(path: Path) -> None:
    """Replace a chunk by other bytes."""
    (path / LICKS / "timestamps/c/0").write_bytes(b"not a chunk")


def edit_documents(path: Path, array: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change an array's document and its consolidated copy to what zarr refuses."""
    document = json.loads((path / array / "zarr.json").read_text())
    change(document)
    (path / array / "zarr.json").write_text(json.dumps(document))
    root = json.loads((path / "zarr.json").read_text())
    change(root["consolidated_metadata"]["metadata"][array])
    (path / "zarr.json").write_text(json.dumps(root))


def damaged_document(path: Path) -> None:
    """Give an array a shape that is none."""
    edit_documents(path, "intervals/trials/stim", lambda document: document.update(shape="four"))


def many_series(count: int, **own: Any) -> NWBFile:
    """Return a session of many series that are alike but for their starts."""
    nwbfile = empty_session()
    for number in range(count):
        start = number / 7 if "timestamps" not in own else None
        given = {"rate": 10.0, "starting_time": start} if start is not None else {}
        nwbfile.add_acquisition(
            TimeSeries(name=f"aux{number:04}", data=np.arange(5.0), unit="V", **given, **own)
        )
    return nwbfile


def chunked(folder: Path, name: str, data: np.ndarray[Any, Any], chunks: tuple[int, ...], **own: Any) -> Path:
    """Write a session with one series, whose array is written again with these chunks."""
    nwbfile = empty_session()
    nwbfile.add_acquisition(TimeSeries(name="series", data=data[:2], unit="V", rate=1000.0))
    path = write(folder, nwbfile, name)
    group = zarr.open_group(str(path / "acquisition/series"), mode="r+", use_consolidated=False)
    attributes = dict(group["data"].attrs)
    array = group.create_array("data", data=data, chunks=chunks, overwrite=True, **own)
    array.attrs.update(attributes)
    consolidate(path)
    return path
