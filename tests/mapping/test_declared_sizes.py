"""Declared sizes: what opening a file may take is bounded, whatever its metadata declare."""

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from intake_nwbzarr import set_limits
from intake_nwbzarr.errors import LimitError, MappingWarning
from tests.hierarchy.stores import array, group, write_store

TABLE = {"neurodata_type": "DynamicTable", "namespace": "hdmf-common", "description": "d"}
COLUMN = {"neurodata_type": "VectorData", "namespace": "hdmf-common", "description": "d"}
IDS = {"neurodata_type": "ElementIdentifiers", "namespace": "hdmf-common"}


def _array(shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, **attributes: Any) -> dict[str, Any]:
    grid = {"name": "regular", "configuration": {"chunk_shape": list(chunks)}}
    return array(shape, **attributes) | {"data_type": dtype, "chunk_grid": grid}


def _write_ids(folder: Path, dtype: str) -> None:
    (folder / "c").mkdir()
    (folder / "c/0").write_bytes(np.arange(2, dtype=dtype).tobytes())


def test_more_chunks_than_opening_may_read_are_refused(tmp_path: Path) -> None:
    nodes = {
        "acquisition": group(),
        "acquisition/t": group(**TABLE, colnames=[]),
        "acquisition/t/id": _array((10**9,), (1,), "int8", **IDS),
    }
    store = write_store(tmp_path / "a.nwb.zarr", nodes)
    with pytest.raises(LimitError, match="1,000,000,000 chunks") as caught:
        xr.open_dataset(store, engine="nwbzarr")
    assert (caught.value.location, caught.value.path) == (f"file://{store}", "acquisition/t/id")


def test_what_many_arrays_take_together_is_bounded(tmp_path: Path) -> None:
    nodes: dict[str, dict[str, Any]] = {"acquisition": group()}
    for number in range(6):
        nodes[f"acquisition/t{number}"] = group(**TABLE, colnames=[])
        nodes[f"acquisition/t{number}/id"] = _array((5 * 10**7,), (5 * 10**7,), "int64", **IDS)
    store = write_store(tmp_path / "a.nwb.zarr", nodes)
    with pytest.raises(LimitError) as caught:
        xr.open_dataset(store, engine="nwbzarr")
    assert caught.value.found == (2_400_000_000, 6)


def test_what_opening_may_read_can_be_set(tmp_path: Path) -> None:
    nodes: dict[str, dict[str, Any]] = {
        "acquisition": group(),
        "acquisition/t": group(**TABLE, colnames=[]),
        "acquisition/t/id": _array((10**6,), (10**6,), "int64", **IDS),
    }
    store = write_store(tmp_path / "a.nwb.zarr", nodes)
    before = set_limits()
    set_limits(bytes_at_open="2 MB")
    try:
        with pytest.raises(LimitError, match=r"set_limits\(bytes_at_open"):
            xr.open_dataset(store, engine="nwbzarr")
        set_limits(bytes_at_open="20 MB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # all ids are 0
            assert 10**6 in xr.open_dataset(store, engine="nwbzarr", group="acquisition/t").sizes.values()
    finally:
        set_limits(bytes_at_open=before.bytes_at_open)


def test_waveforms_of_an_absurd_length_get_no_times(tmp_path: Path) -> None:
    units = TABLE | {"neurodata_type": "Units", "namespace": "core", "colnames": ["waveform_mean"]}
    column = COLUMN | {"sampling_rate": 30000.0, "time_before_peak_in_ms": 1.0}
    nodes = {
        "units": group(**units),
        "units/id": _array((2,), (2,), "int64", **IDS),
        "units/waveform_mean": _array((2, 10**12), (1, 1000), "float32", **column),
    }
    store = write_store(tmp_path / "a.nwb.zarr", nodes)
    _write_ids(store / "units/id", "int64")
    with pytest.warns(MappingWarning, match="waveforms of 1,000,000,000,000 samples, which have no times"):
        opened = xr.open_dataset(store, engine="nwbzarr", group="units")
    assert opened["waveform_mean"].shape == (2, 10**12)
    assert "waveform_time" not in opened.coords


def test_a_damaged_array_costs_its_object_alone(tmp_path: Path) -> None:
    nodes = {
        "acquisition": group(),
        "acquisition/bad": array() | {"shape": "x"},
        "acquisition/t": group(**TABLE, colnames=["v"]),
        "acquisition/t/id": array((2,), **IDS),
        "acquisition/t/v": array((2,), **COLUMN),
    }
    store = write_store(tmp_path / "a.nwb.zarr", nodes)
    _write_ids(store / "acquisition/t/id", "int16")
    with pytest.warns(MappingWarning, match="'acquisition/bad' in .* is skipped. The metadata of"):
        opened = xr.open_dataset(store, engine="nwbzarr")
    assert "t_v" in opened
    assert opened.attrs["nwb_unmapped"] == ["acquisition/bad"]


UNREADABLE: dict[str, dict[str, Any]] = {
    "axes": {"codecs": [{"name": "transpose", "configuration": {"order": [5]}}, "bytes"]},
    "codec": {"codecs": ["bytes", {"name": "of_nobody"}]},
    "huge chunks": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**40]}}},
    "index": {
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {"chunk_shape": [1], "codecs": ["bytes"], "index_codecs": ["bytes", "gzip"]},
            }
        ]
    },
}


@pytest.mark.parametrize("way", UNREADABLE)
def test_an_array_that_is_stored_in_no_known_way_costs_its_object_alone(way: str, tmp_path: Path) -> None:
    nodes = {
        "identifier": array() | UNREADABLE[way],
        "acquisition": group(),
        "acquisition/bad": group(**TABLE, colnames=[]),
        "acquisition/bad/id": array(**IDS) | UNREADABLE[way],
        "acquisition/t": group(**TABLE, colnames=["v"]),
        "acquisition/t/id": array((2,), **IDS),
        "acquisition/t/v": array((2,), **COLUMN),
    }
    store = write_store(tmp_path / "a.nwb.zarr", nodes)
    for path in ("identifier", "acquisition/bad/id", "acquisition/t/id"):
        _write_ids(store / path, "int16")
    with pytest.warns(MappingWarning) as told:
        opened = xr.open_dataset(store, engine="nwbzarr")
    messages = [str(warning.message) for warning in told]
    for path in ("identifier", "acquisition/bad"):
        assert any(f"'{path}" in message for message in messages), messages
    assert "t_v" in opened


SCHEMAS = {
    "no JSON": b"{",
    "another thing": b'"groups"',
    "deep": b"[" * 5000,
    "odd": b'{"groups": [{"neurodata_type_def": 7, "neurodata_type_inc": []}], "datasets": 3}',
}


@pytest.mark.parametrize("content", SCHEMAS)
def test_a_damaged_schema_costs_no_more_than_its_types(content: str, tmp_path: Path) -> None:
    node = array(()) | {"data_type": "string", "fill_value": "", "codecs": ["vlen-utf8"]}
    nodes = {
        "acquisition": group(),
        "acquisition/t": group(neurodata_type="Strange", namespace="ndx-strange"),
        "acquisition/t/data": array((2,), unit="V"),
        "specifications": group(),
        "specifications/ndx-strange": group(),
        "specifications/ndx-strange/1": group(),
        "specifications/ndx-strange/1/strange": node,
    }
    store = write_store(tmp_path / "a.nwb.zarr", nodes)
    text = SCHEMAS[content]
    chunk = struct.pack("<II", 1, len(text)) + text
    (store / "specifications/ndx-strange/1/strange/c").write_bytes(chunk)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MappingWarning)
        opened = xr.open_dataset(store, engine="nwbzarr")
    assert [name for name in opened.variables if "t" in str(name)]
