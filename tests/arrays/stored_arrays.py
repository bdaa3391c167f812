"""Arrays written with zarr, and the same arrays as this package reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.open import StoredFile


def stored_array(folder: Path, name: str = "data") -> StoredArray:
    """The array of that name in a Zarr 3 store."""
    return StoredArray(
        StoredFile(locate(folder)), ArrayNode(name, json.loads((folder / name / "zarr.json").read_text()))
    )


def write(folder: Path, values: Any, name: str = "data", **options: Any) -> StoredArray:
    """Write an array with zarr, in chunks as small as asked for."""
    options.setdefault("chunks", "auto")
    zarr.create_array(str(folder), name=name, data=np.asarray(values), **options)
    return stored_array(folder, name)


def write_raw(
    folder: Path, document: dict[str, Any], chunks: dict[str, bytes], name: str = "data"
) -> StoredArray:
    """Write an array's metadata and chunks as they are given."""
    defaults = {
        "zarr_format": 3,
        "node_type": "array",
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "fill_value": 0,
        "attributes": {},
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": document["shape"]}},
    }
    for key, data in chunks.items():
        (folder / name / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / key).write_bytes(data)
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "zarr.json").write_text(json.dumps({**defaults, **document}))
    return stored_array(folder, name)


def orthogonal(values: np.ndarray, key: tuple[Any, ...]) -> np.ndarray:
    """NumPy's own answer to an outer key, axis by axis from the last."""
    for axis in reversed(range(len(key))):
        values = values[(slice(None),) * axis + (key[axis],)]
    return values
