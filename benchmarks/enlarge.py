"""Arrays whose metadata say what a real asset's say, and whose chunks are left out or are all the same one.

Opening, and planning what to read, depend on metadata alone: an array of 83 GB need not be stored for them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TEMPLATE = "chunk"
"""The file in an array's folder that a benchmark's server gives for every chunk of it that is not stored."""


def enlarge(
    store: Path,
    path: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...] | None = None,
    *,
    repeat: bool = False,
) -> None:
    """Change the shape of a stored array, in its own metadata and in the consolidated ones.

    Parameters
    ----------
    store
        A consolidated session, Zarr 2 or 3.
    path
        The array's.
    shape
        The new one.
    chunks
        The new shape of a chunk; those that are stored are removed then. None leaves it.
    repeat
        Keep the first chunk as what a server gives for all of them.
    """
    folder = store / path
    first = next((file for file in sorted(folder.rglob("*")) if _is_chunk(file)), None)
    template = first.read_bytes() if first is not None and repeat else None
    for child in list(folder.iterdir()):
        if child.is_dir():
            shutil.rmtree(child)
        elif _is_chunk(child):
            child.unlink()
    if template is not None:
        (folder / TEMPLATE).write_bytes(template)
    newer = (store / "zarr.json").exists()
    own = folder / ("zarr.json" if newer else ".zarray")
    document = json.loads(own.read_text())
    _resize(document, shape, chunks)
    own.write_text(json.dumps(document))
    whole = store / ("zarr.json" if newer else ".zmetadata")
    consolidated = json.loads(whole.read_text())
    if newer:
        _resize(consolidated["consolidated_metadata"]["metadata"][path], shape, chunks)
    else:
        _resize(consolidated["metadata"][f"{path}/.zarray"], shape, chunks)
    whole.write_text(json.dumps(consolidated))


def _is_chunk(file: Path) -> bool:
    return file.is_file() and file.name not in {"zarr.json", ".zarray", ".zattrs"}


def _resize(document: dict[str, Any], shape: tuple[int, ...], chunks: tuple[int, ...] | None) -> None:
    document["shape"] = list(shape)
    if chunks is None:
        return
    if "chunk_grid" in document:
        document["chunk_grid"]["configuration"]["chunk_shape"] = list(chunks)
    else:
        document["chunks"] = list(chunks)
