"""The raw object of files with damaged arrays, unknown codecs and codecs of other packages."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
from numcodecs.abc import Codec

from intake_nwbzarr import open_nwb
from intake_nwbzarr.errors import ChunkError, LimitError, MappingWarning, NWBZarrError

Corpus = Callable[[str, str], Path]


def _change(store: Path, path: str, changes: dict[str, Any]) -> None:
    """Change a document in the consolidated metadata, which are what is read."""
    document = json.loads((store / "zarr.json").read_text())
    document["consolidated_metadata"]["metadata"][path].update(changes)
    (store / "zarr.json").write_text(json.dumps(document))


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
DAMAGES: dict[str, dict[str, Any]] = {
    "unknown codec": {"codecs": [BYTES, {"name": "wavpack"}]},
    "unknown serializer": {"codecs": [{"name": "pcodec_of_another_package"}]},
    "pickle": {"codecs": [BYTES, {"name": "numcodecs.pickle"}]},
    "another format": {"zarr_format": 2},
    "storage transformers": {"storage_transformers": [{"name": "x"}]},
    "fill value": {"fill_value": "*"},
    "data type": {"data_type": "float80"},
    "text of no width": {"data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 0}}},
    "must be understood": {"foo": {"must_understand": True}},
    "byte order": {"codecs": [{"name": "bytes", "configuration": {"endian": "x"}}]},
    "dimension names": {"dimension_names": "ab"},
    "two serializers": {"codecs": [BYTES, BYTES]},
    "no serializer": {"codecs": [{"name": "gzip", "configuration": {"level": 1}}]},
    "shape": {"shape": "x"},
    "chunks": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0]}}},
    "keys": {"chunk_key_encoding": {"name": "x"}},
    "no shape": {"shape": None},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damaged_array_costs_only_itself(damage: str, corpus_dir: Corpus, tmp_path: Path) -> None:
    path = Path(shutil.copytree(corpus_dir("icephys", "0.14.0"), tmp_path / "damaged.nwb.zarr"))
    _change(path, "acquisition/response0/data", DAMAGES[damage])
    nwbfile = open_nwb(path)
    assert nwbfile.acquisition["response1"].data[:3].shape == (3,)
    if damage in ("another format", "dimension names", "byte order"):  # the array can be read nevertheless
        return
    with pytest.raises(NWBZarrError, match="acquisition/response0/data"):
        nwbfile.acquisition["response0"].data[:]


def test_a_node_below_an_array_and_a_group_that_nobody_understands_are_left_out(
    corpus_dir: Corpus, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(corpus_dir("icephys", "0.14.0"), tmp_path / "damaged.nwb.zarr"))
    document = json.loads((path / "zarr.json").read_text())
    nodes = document["consolidated_metadata"]["metadata"]
    nodes["acquisition/response0/data/x"] = nodes["acquisition/response0/data"]
    nodes["scratch"] = {"zarr_format": 3, "node_type": "group", "attributes": [1]}
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.warns(MappingWarning, match="'scratch' in .* is skipped"):
        assert open_nwb(path).acquisition["response0"].data[:].ndim == 1


class Inverted(Codec):  # type: ignore[misc]
    """Stands for WavPack and the like: a codec of another package."""

    codec_id = "inverted_for_tests"

    def encode(self, buf: Any) -> Any:
        return bytes(np.frombuffer(bytes(buf), "u1") ^ 0xFF)

    def decode(self, buf: Any, out: Any = None) -> Any:
        assert out is None
        return self.encode(buf) * (1000 if len(memoryview(buf)) == 7 else 1)


def test_a_zarr_2_codec_that_another_package_registered_is_used_within_limits(
    corpus_dir: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Path(shutil.copytree(corpus_dir("icephys", "0.8.0"), tmp_path / "a.nwb.zarr"))
    data = store / "acquisition/response0/data"
    expected = open_nwb(store).acquisition["response0"].data[:]
    document = json.loads((data / ".zarray").read_text())
    old = numcodecs.get_codec(document["compressor"])
    document["compressor"] = {"id": "inverted_for_tests"}
    whole = json.loads((store / ".zmetadata").read_text())
    whole["metadata"]["acquisition/response0/data/.zarray"] = document
    (store / ".zmetadata").write_text(json.dumps(whole))
    chunks = [chunk for chunk in data.iterdir() if not chunk.name.startswith(".")]
    for chunk in chunks:
        chunk.write_bytes(Inverted().encode(old.decode(chunk.read_bytes())))
    group = {"group": "acquisition/response0", "mask_and_scale": False, "engine": "nwbzarr"}
    with pytest.raises(ChunkError, match="codec 'inverted_for_tests' is not installed"):
        xr.open_dataset(store, **group).load()
    with pytest.raises(ChunkError, match="codec 'inverted_for_tests' is not installed"):
        open_nwb(store).acquisition["response0"].data[:]
    monkeypatch.setitem(numcodecs.registry.codec_registry, "inverted_for_tests", Inverted)
    np.testing.assert_array_equal(xr.open_dataset(store, **group)["data"], expected)
    np.testing.assert_array_equal(open_nwb(store).acquisition["response0"].data[:], expected)
    chunks[0].write_bytes(bytes(7))
    with pytest.raises((LimitError, ChunkError), match="response0"):
        xr.open_dataset(store, **group).load()


def test_a_region_that_declares_more_than_opening_may_read_is_refused(
    corpus_dir: Corpus, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "a.nwb.zarr"))
    grid = {"name": "regular", "configuration": {"chunk_shape": [10**8]}}
    _change(path, "units/electrodes", {"shape": [10**8], "chunk_grid": grid})
    with pytest.raises(LimitError, match=r"'units/electrodes' declares 100,000,000.*set_limits"):
        open_nwb(path)


def test_an_object_id_that_is_no_text_is_replaced(corpus_dir: Corpus, tmp_path: Path) -> None:
    path = Path(shutil.copytree(corpus_dir("icephys", "0.14.0"), tmp_path / "a.nwb.zarr"))
    document = json.loads((path / "zarr.json").read_text())
    nodes = document["consolidated_metadata"]["metadata"]
    nodes["acquisition/response0"]["attributes"]["object_id"] = {"name": "x"}
    (path / "zarr.json").write_text(json.dumps(document))
    nwbfile = open_nwb(path)
    assert nwbfile.objects[nwbfile.acquisition["response0"].object_id].name == "response0"
