"""Zarr 2 copies of Zarr 3 sessions, as hdmf-zarr 0.8 wrote them for public archives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from intake_nwbzarr.errors import MetadataError

COMPRESSOR = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}


def write_zarr2(source: Path, folder: Path) -> None:
    """Rewrite a Zarr 3 session of numbers and strings as Zarr 2, as hdmf-zarr 0.8 did for public archives."""
    # The installed zarr and hdmf-zarr cannot write Zarr 2, so the metadata documents are written here.
    root = zarr.open_group(source, mode="r")
    identity = root.attrs.get("object_id")
    documents: dict[str, Any] = {}
    for path, node in [("", root), *sorted(root.members(max_depth=None))]:
        prefix = f"{path}/" if path else ""
        attributes = dict(_attributes(node.attrs.asdict(), identity))
        if isinstance(node, zarr.Array):
            documents[f"{prefix}.zarray"] = _write_array(node, path, folder / path)
            attributes["zarr_dtype"] = "scalar" if node.ndim == 0 else attributes["zarr_dtype"]
        else:
            documents[f"{prefix}.zgroup"] = {"zarr_format": 2}
        if attributes:
            documents[f"{prefix}.zattrs"] = attributes
    for key, document in documents.items():
        _write(folder / key, json.dumps(document, indent=4).encode())
    consolidated = {"zarr_consolidated_format": 1, "metadata": documents}
    _write(folder / ".zmetadata", json.dumps(consolidated, indent=4).encode())


def _attributes(attributes: Mapping[str, Any], identity: object) -> Iterator[tuple[str, Any]]:
    """Return attributes with the names that hdmf-zarr used before 0.14."""
    for name, value in attributes.items():
        match name:
            case "_DTYPE":
                yield "zarr_dtype", value
            case "_LINKS":
                yield "zarr_link", value
            case "_ARRAY_DIMENSIONS" | ".specloc":
                pass
            case _ if isinstance(value, Mapping) and "_REFERENCE" in value:
                target = {**value["_REFERENCE"], "object_id": None, "source_object_id": identity}
                yield name, {"zarr_dtype": "object", "value": target}
            case _:
                yield name, value


def _write_array(array: zarr.Array[Any], path: str, folder: Path) -> dict[str, Any]:
    """Write the chunks of an array and return its ``.zarray`` document."""
    values = np.atleast_1d(np.asarray(array[...]))
    chunks = array.chunks or (1,)
    if values.dtype.kind in "OUT":
        values = values.astype(object)
        filters: list[dict[str, Any]] | None = [{"id": "vlen-utf8"}]
    elif values.dtype.kind in "biuf":
        filters = None
    else:
        raise MetadataError(
            f"Only numbers and strings can be rewritten as Zarr 2; {path!r} has dtype {values.dtype}.",
            path=path,
            found=str(values.dtype),
            expected="numbers or strings",
        )
    compressor = numcodecs.get_codec(COMPRESSOR)
    grid = [-(-length // step) for length, step in zip(values.shape, chunks, strict=True)]
    for index in product(*map(range, grid)):
        corner = tuple(slice(i * step, (i + 1) * step) for i, step in zip(index, chunks, strict=True))
        # Zarr 2 stores whole chunks, filled beyond the edge of the array.
        chunk = np.zeros(chunks, values.dtype)
        part = values[corner]
        chunk[tuple(slice(length) for length in part.shape)] = part
        encoded = chunk if filters is None else _encoded_strings(chunk)
        _write(folder / ".".join(map(str, index)), bytes(compressor.encode(encoded)))
    return {
        "zarr_format": 2,
        "shape": list(values.shape),
        "chunks": list(chunks),
        "dtype": values.dtype.str,
        "compressor": COMPRESSOR,
        "fill_value": False if values.dtype.kind == "b" else 0,
        "order": "C",
        "filters": filters,
        "dimension_separator": ".",
    }


def _encoded_strings(chunk: np.ndarray[Any, Any]) -> bytes:
    chunk[chunk == 0] = ""
    return bytes(numcodecs.VLenUTF8().encode(chunk))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
