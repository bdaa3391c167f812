"""Zarr 3 metadata: what is damaged is told by path and file, before anything relies on it."""

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.errors import MetadataError, NWBZarrError
from tests.hierarchy.stores import array, group, write_store


def _array(**changes: Any) -> dict[str, Any]:
    return array((2,)) | changes


def _grid(*chunks: Any) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(chunks)}}


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


DAMAGED = {
    "the attributes are": group() | {"attributes": [1]},
    "_LINKS is": group(_LINKS={"a": 1}),
    "nested deeper than 64": group(deep=_nested(70)),
    "the shape is \\[-1\\]": _array(shape=[-1]),
    "the shape is \\[True\\]": _array(shape=[True]),
    "the shape is \\[9223372036854775808\\]": _array(shape=[2**63]),
    "more elements than a 64-bit": _array(shape=[2**40, 2**40], chunk_grid=_grid(1, 1)),
    "beyond 32 dimensions": _array(shape=[1] * 33, chunk_grid=_grid(*[1] * 33)),
    "the shape is None": _array(shape=None),
    "the chunk grid is 'irregular'": _array(chunk_grid={"name": "irregular"}),
    "None has no name": _array(chunk_grid=None),
    "the shape of a chunk is \\[0\\]": _array(chunk_grid=_grid(0)),
    "do not fit the shape": _array(chunk_grid=_grid(1, 1)),
    "data type 'int17'": _array(data_type="int17"),
    "damaged": _array(data_type=[1]),
    "the codecs are \\[\\]": _array(codecs=[]),
    "5 has no name": _array(codecs=[5]),
    "the configuration of 'bytes'": _array(codecs=[{"name": "bytes", "configuration": 1}]),
    "shards inside shards": _array(
        codecs=[
            {
                "name": "sharding_indexed",
                "configuration": {"chunk_shape": [1], "codecs": ["bytes", "sharding_indexed"]},
            }
        ]
    ),
    "the chunk key encoding is 'x'": _array(chunk_key_encoding="x"),
    "separated by '!'": _array(chunk_key_encoding={"name": "default", "configuration": {"separator": "!"}}),
    "describe a 'tree'": {"zarr_format": 3, "node_type": "tree"},
}


@pytest.mark.parametrize("message", DAMAGED)
def test_damage_is_named_by_path_and_file(message: str, tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.nwb.zarr", {"x": DAMAGED[message]})
    with pytest.raises(MetadataError, match=f"'x' in file:.*a.nwb.zarr.*{message}"):
        open_hierarchy(store)["x"]


BAD = [None, 5, -1, "", [], {}, "x", [1], [[1]], {"a": 1}, 1e300, -0.5, True, 10**30, ["x", 5], "../../x"]


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value[:3]))
    return [found for key, item in inner for found in [(*place, key), *_places(item, (*place, key))]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ecephys", pytest.param("ophys", marks=pytest.mark.slow)])
def test_one_damaged_value_ends_in_an_error_of_this_package_or_in_none(
    corpus_dir: Callable[[str, str], Path], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "a.nwb.zarr"
    shutil.copytree(corpus_dir(kind, "0.14.0"), path)
    document = path / "zarr.json"
    original = document.read_text()
    nodes = json.loads(original)["consolidated_metadata"]["metadata"]
    places = [place for place in _places(nodes) if "specifications" not in place[0] and len(place) > 1]
    chosen = random.Random(1)
    opened, wrong = 0, []
    for _ in range(100):
        place, bad = chosen.choice(places), chosen.choice(BAD)
        changed = json.loads(original)
        inside = changed["consolidated_metadata"]["metadata"]
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = bad
        document.write_text(json.dumps(changed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                xr.open_dataset(path, engine="nwbzarr").close()
                opened += 1
            except NWBZarrError:
                pass
            except Exception as error:
                wrong.append((place, bad, error))
    assert not wrong
    assert opened > 50
