"""Encode chunks, and assemble shards of encoded chunks.

zarr-python encodes shards of arrays only: it cannot take chunks that are already encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Final

import numcodecs
import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.decode import CodecChain
from intake_nwbzarr.arrays.layout import Layout
from intake_nwbzarr.errors import LimitError
from intake_nwbzarr.transport.answers import Bytes
from intake_nwbzarr.untrusted_input import LARGEST_OBJECT

_SHUFFLES: Final = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def encode_chunk(chain: CodecChain, values: NDArray[Any], fill: NDArray[Any]) -> bytes | None:
    """Return the encoded bytes of a chunk, None for one of fill values only, which is not stored.

    `values` may be smaller than the chunk, at the edges of its array.
    """
    if _is_fill(values, fill):
        return None
    chunk = values
    if values.shape != chain.shape:
        chunk = np.full(chain.shape, fill, chain.dtype)
        inside: list[Any] = [*map(slice, values.shape), ...]
        chunk[tuple(inside)] = values
    encoded = _serialized(chain, chunk)
    for stage in chain.stages[1:]:
        encoded = bytes(_compressor(stage.name, stage.configuration).encode(encoded))
    return bytes(encoded)


def _is_fill(values: NDArray[Any], fill: NDArray[Any]) -> bool:
    if values.dtype.kind == "O":
        return all(value == fill[()] for value in values.flat)
    # By their bytes: NaN equals NaN, and -0.0 does not equal 0.0. Most chunks differ at once.
    first = values[(0,) * values.ndim]
    if np.asarray(first, values.dtype).tobytes() != fill.astype(values.dtype).tobytes():
        return False
    rows = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(values.size, -1)
    return bool((rows == rows[0]).all())


def _serialized(chain: CodecChain, chunk: NDArray[Any]) -> Any:
    stage = chain.stages[0]
    match stage.name:
        case "vlen-utf8":
            return numcodecs.VLenUTF8().encode(np.ascontiguousarray(chunk).reshape(-1))
        case "vlen-bytes":
            return numcodecs.VLenBytes().encode(np.ascontiguousarray(chunk).reshape(-1))
    little = chunk.dtype.newbyteorder("<")
    return np.ascontiguousarray(chunk, little).reshape(-1).view(np.uint8)


def _compressor(name: str, configuration: Mapping[str, Any]) -> Any:
    match name:
        case "zstd":
            return numcodecs.Zstd(configuration["level"], checksum=configuration["checksum"])
        case "gzip":
            return numcodecs.GZip(configuration["level"])
        case "blosc":
            return numcodecs.Blosc(
                cname=configuration["cname"],
                clevel=configuration["clevel"],
                shuffle=_SHUFFLES[configuration["shuffle"]],
                blocksize=configuration["blocksize"],
                typesize=configuration["typesize"],
            )
    raise ValueError(f"Chunks are not encoded with {name!r}.")


def stored_object(layout: Layout, chunks: Mapping[int, Bytes]) -> list[Bytes]:
    """Return the pieces of a stored object of encoded chunks by their number in it; none without chunks.

    A shard is its chunks, one after the other, and their index: Zarr 3 specification, codec
    ``sharding_indexed``.
    """
    if not chunks or layout.sharding is None:
        return [*chunks.values()]
    index = np.full((prod(layout.sharding.counts), 2), 2**64 - 1, "<u8")
    at = 0
    for number, data in sorted(chunks.items()):
        index[number] = at, len(data)
        at += len(data)
    if at > LARGEST_OBJECT:
        raise LimitError(
            f"A shard of the array {layout.path!r} would have {at:,} bytes; {LARGEST_OBJECT:,} are allowed.",
            path=layout.path,
            found=at,
            expected=LARGEST_OBJECT,
            next_step="Convert it with smaller shards.",
        )
    checked = numcodecs.get_codec({"id": "crc32c"}).encode(index.tobytes())
    return [data for _, data in sorted(chunks.items())] + [bytes(checked)]
