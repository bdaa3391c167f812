"""Zarr 2 arrays written by hand as zarr-python 2 writes them: chunks by numcodecs, metadata as given."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.buffer.cpu import Buffer
from zarr.storage import MemoryStore, StorePath

from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.hierarchy.zarr2.metadata import translate_array

PATH = "group/data"


class Zarr2Array:
    """One array: its documents, its stored chunks, and what is read of it once translated."""

    def __init__(
        self,
        values: Any,
        *,
        chunks: tuple[int, ...] | None = None,
        compressor: Any = None,
        filters: tuple[Any, ...] = (),
        order: str = "C",
        separator: str | None = None,
        fill_value: Any = 0,
        dtype: Any = None,
        attributes: Mapping[str, Any] | None = None,
        missing: tuple[str, ...] = (),
        padding: Any = 0,
    ) -> None:
        values = np.asarray(values)
        self.zarray: dict[str, Any] = {
            "zarr_format": 2,
            "shape": list(values.shape),
            "chunks": list(values.shape if chunks is None else chunks),
            "dtype": dtype or _dtype(values.dtype),
            "compressor": None if compressor is None else compressor.get_config(),
            "filters": [codec.get_config() for codec in filters] or None,
            "order": order,
            "fill_value": fill_value,
        }
        if separator is not None:
            self.zarray["dimension_separator"] = separator
        self.zarray = json.loads(json.dumps(self.zarray))
        self.zattrs = dict(attributes or {})
        self.stored: dict[str, bytes] = {}
        shape = tuple(self.zarray["chunks"])
        grid = [range(-(-length // width)) for length, width in zip(values.shape, shape, strict=True)]
        for coordinates in itertools.product(*grid):
            chunk = np.full(shape, padding, values.dtype, order=order)  # type: ignore[call-overload]
            part = values[tuple(slice(i * n, (i + 1) * n) for i, n in zip(coordinates, shape, strict=True))]
            chunk[tuple(slice(0, length) for length in part.shape)] = part
            key = (separator or ".").join(map(str, coordinates)) or "0"
            if key not in missing:
                self.stored[key] = _encode(chunk, filters, compressor)

    @property
    def node(self) -> ArrayNode:
        return translate_array(PATH, self.zarray, self.zattrs)

    def open(self) -> zarr.Array:
        chunks = {f"{PATH}/{key}": Buffer.from_bytes(data) for key, data in self.stored.items()}
        return zarr.Array.from_dict(StorePath(MemoryStore(chunks), PATH), dict(self.node.metadata))

    def read(self) -> Any:
        return self.open()[...]


def _encode(chunk: Any, filters: tuple[Any, ...], compressor: Any) -> bytes:
    for codec in filters:
        chunk = codec.encode(chunk)
    if compressor is not None:
        chunk = compressor.encode(chunk)
    return chunk.tobytes("A") if isinstance(chunk, np.ndarray) else bytes(chunk)


def _dtype(dtype: np.dtype[Any]) -> Any:
    return dtype.str if dtype.names is None else [[name, _dtype(dtype[name])] for name in dtype.names]


def objects(values: list[Any], shape: tuple[int, ...] | None = None) -> Any:
    """An object array of exactly these elements."""
    array = np.empty(len(values), object)
    for position, value in enumerate(values):
        array[position] = value
    return array if shape is None else array.reshape(shape)


PICKLE = numcodecs.Pickle()
