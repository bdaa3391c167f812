"""Small Zarr stores written document by document, for what no writer would write."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NWB_ROOT = {"neurodata_type": "NWBFile", "namespace": "core", "nwb_version": "2.8.0"}


def group(**attributes: Any) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def array(shape: tuple[int, ...] = (2,), **attributes: Any) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "int16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": attributes,
    }


def write_store(folder: Path, nodes: Mapping[str, dict[str, Any]], *, consolidated: bool = True) -> Path:
    """A Zarr 3 store; the root is an NWBFile unless given."""
    documents = {"": group(**NWB_ROOT), **nodes}
    for path, document in documents.items():
        (folder / path).mkdir(parents=True, exist_ok=True)
        if path or not consolidated:
            (folder / path / "zarr.json").write_text(json.dumps(document))
    if consolidated:
        below = {path: document for path, document in documents.items() if path}
        root = documents[""] | {
            "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": below}
        }
        (folder / "zarr.json").write_text(json.dumps(root))
    return folder
