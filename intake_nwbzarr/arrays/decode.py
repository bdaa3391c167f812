"""Codec chains: from the stored bytes of one chunk to its array, never larger than the metadata declare."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Final, Literal, NamedTuple

import numcodecs
import numpy as np
import zarr
from numcodecs import VLenBytes, VLenUTF8
from numpy.typing import NDArray
from zarr.buffer.cpu import Buffer as ZarrBuffer
from zarr.storage import MemoryStore, StorePath

from intake_nwbzarr.errors import ChunkError, LimitError
from intake_nwbzarr.hierarchy.decompress import COMPRESSORS, decompress
from intake_nwbzarr.hierarchy.objects import CODEC_NAME as LEGACY_OBJECTS
from intake_nwbzarr.hierarchy.objects import decode_legacy_objects

CHUNK_LIMIT: Final = 2**31
"""The most bytes that a chunk may have, stored or decoded."""

CHECKSUMS: Final = {
    "crc32c": "crc32c",
    "numcodecs.crc32c": "crc32c",
    "numcodecs.crc32": "crc32",
    "numcodecs.adler32": "adler32",
    "numcodecs.fletcher32": "fletcher32",
    "numcodecs.jenkins_lookup3": "jenkins_lookup3",
}
"""Codecs that append or prepend four bytes, by what numcodecs calls them."""

FILTERS: Final = frozenset(
    f"numcodecs.{name}"
    for name in ("astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize")
) | {"transpose"}
"""Array-to-array codecs undone here."""


class Stage(NamedTuple):
    """One codec and what goes into it on writing."""

    name: str
    configuration: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    """An upper bound on what it is given when writing, so on what may come out when reading."""


@dataclass(frozen=True)
class Chain:
    """How a chunk is decoded; made by `chain`.

    Parameters
    ----------
    shape, dtype
        The decoded chunk's.
    stages
        The codecs in the order of writing; empty when zarr has to decode.
    document
        The array's metadata, as zarr is given them for a chunk that it has to decode.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stages: tuple[Stage, ...]
    document: Mapping[str, Any]
    path: str
    field: str | None = None

    @property
    def nbytes(self) -> int:
        """The decoded size; for Python objects that of the references to them."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_plain(self) -> bool:
        """Whether decoding takes time in proportion to the decoded size."""
        return bool(self.stages) and self.dtype.kind != "O" and not _is_legacy(self)


def chain(
    document: Mapping[str, Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    path: str,
    field: str | None = None,
) -> Chain:
    """Prepare to decode the chunks of an array.

    Parameters
    ----------
    document
        Zarr 3 array metadata; its ``codecs`` are those to undo.
    shape, dtype
        The chunk's, decoded.
    path
        The array's, for errors.
    field
        The one field of a compound that is wanted.
    """
    codecs = [
        (entry, {}) if isinstance(entry, str) else (entry["name"], entry.get("configuration") or {})
        for entry in document["codecs"]
    ]
    result = Chain(shape, dtype, tuple(_stages(codecs, shape, dtype)), document, path, field)
    if result.nbytes > CHUNK_LIMIT and not _is_legacy(result):
        raise LimitError(
            f"The array {path!r} has chunks of {result.nbytes} bytes; {CHUNK_LIMIT} are allowed. "
            "The metadata are damaged, or the array has to be rewritten in smaller chunks."
        )
    return result if _is_known(result) else Chain(shape, dtype, (), document, path, field)


def _is_legacy(made: Chain) -> bool:
    # Their fixed width is what zarr makes of them, not what is stored; the decoder has its own limits.
    return bool(made.stages) and made.stages[-1].name == LEGACY_OBJECTS


def _stages(
    codecs: Sequence[tuple[str, Mapping[str, Any]]], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> list[Stage]:
    stages = []
    nbytes = prod(shape) * dtype.itemsize
    for name, configuration in codecs:
        stages.append(Stage(name, configuration, shape, dtype, nbytes))
        if name == "transpose":
            shape = tuple(shape[axis] for axis in configuration["order"])
        elif (
            name == "numcodecs.packbits"
        ):  # eight booleans a byte, and a byte that says how many are left over
            shape, dtype = (1 + ceil(prod(shape) / 8),), np.dtype(np.uint8)
            nbytes = shape[0]
        elif name in FILTERS:
            dtype = _filtered_dtype(name, configuration, dtype)
            nbytes = prod(shape) * dtype.itemsize
        elif name in {"vlen-utf8", "vlen-bytes"}:
            nbytes = CHUNK_LIMIT  # known only from the data
        elif name in CHECKSUMS:
            nbytes += 4
        elif name in COMPRESSORS:
            nbytes += nbytes // 8 + 4096  # more than any of them adds to data that do not compress
    return stages


def _filtered_dtype(name: str, configuration: Mapping[str, Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    encoded = configuration.get("encode_dtype" if name == "numcodecs.astype" else "astype")
    return dtype if encoded is None else np.dtype(encoded)


def _is_known(made: Chain) -> bool:
    """Whether every codec is one that is undone here, in a place where it can be."""
    names = [stage.name for stage in made.stages]
    if names in (["vlen-utf8", LEGACY_OBJECTS], ["bytes", LEGACY_OBJECTS]):
        # A whole compound with fixed-width fields is what the codec itself makes, for zarr.
        return made.dtype.names is None or made.field is not None
    serializers = {"vlen-utf8", "vlen-bytes"} if made.dtype.kind == "O" else {"bytes"}
    position = next((at for at, name in enumerate(names) if name in serializers), None)
    return (
        position is not None
        and FILTERS.issuperset(names[:position])
        and (COMPRESSORS | CHECKSUMS.keys() | {"numcodecs.shuffle"}).issuperset(names[position + 1 :])
    )


def decode(made: Chain, data: bytes | memoryview, where: str) -> NDArray[Any]:
    """Decode one chunk.

    Returns
    -------
    numpy.ndarray
        Of the chain's shape, in whatever byte and memory order is stored, and possibly read-only.

    Raises
    ------
    ChunkError
        When the data are damaged, or not of the declared size. For pickled objects that hold anything but
        inert values, a `LegacyObjectError`.
    LimitError
        When they would expand beyond the declared size.
    """
    try:
        chunk = _decode(made, data, where)
    except (ChunkError, LimitError):
        raise
    except Exception as error:  # codec libraries raise whatever they like
        raise ChunkError(
            f"{where} cannot be decoded: {type(error).__name__}: {error}. The chunk is damaged, or does not "
            "belong to this array; compare it with the original file."
        ) from error
    if chunk.shape != made.shape:
        raise ChunkError(f"{where} decodes to the shape {chunk.shape}; {made.shape} was expected.")
    return chunk


def _decode(made: Chain, data: bytes | memoryview, where: str) -> NDArray[Any]:
    if not made.stages:
        chunk = _through_zarr(made, data)
        return chunk if made.field is None else chunk[made.field]
    if _is_legacy(made):
        return _legacy(made, data, where)
    content: Any = data
    for stage in reversed(made.stages):
        content = _undo(stage, content, where)
    chunk = np.asarray(content)
    return chunk if made.field is None else chunk[made.field]


def _legacy(made: Chain, data: bytes | memoryview, where: str) -> NDArray[Any]:
    """Strings, or one field of a compound, without the fixed width that zarr needs."""
    decoded = decode_legacy_objects(data, made.stages[-1].configuration, where=where)
    column = decoded[made.field] if isinstance(decoded, dict) and made.field is not None else decoded
    if isinstance(column, np.ndarray):
        return column.reshape(made.shape)
    items = np.empty(prod(made.shape), dtype=object)
    items[:] = column
    return items.reshape(made.shape)


def _undo(stage: Stage, content: Any, where: str) -> Any:
    name, configuration = stage.name, stage.configuration
    if name in COMPRESSORS:
        return decompress({"name": name, "configuration": configuration}, content, stage.nbytes, where=where)
    if name in CHECKSUMS:
        return memoryview(numcodecs.get_codec({**configuration, "id": CHECKSUMS[name]}).decode(content)).cast(
            "B"
        )
    match name:
        case "bytes":
            return _from_bytes(stage, content, where)
        case "vlen-utf8" | "vlen-bytes":
            return _variable_length(stage, content, where)
        case "transpose":
            return content.transpose(np.argsort(configuration["order"]))
        case "numcodecs.shuffle":
            return _unshuffle(stage, content)
        case _:
            return _unfilter(stage, content)


def _from_bytes(stage: Stage, content: Any, where: str) -> NDArray[Any]:
    orders: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
    order = orders.get(stage.configuration.get("endian", "little"), "<")
    found = memoryview(content).nbytes
    if found != stage.nbytes:
        raise ChunkError(
            f"{where} decodes to {found} bytes; {stage.nbytes} were expected for {stage.dtype} of shape "
            f"{stage.shape}. The chunk is damaged, or does not belong to this array."
        )
    return np.frombuffer(content, stage.dtype.newbyteorder(order)).reshape(stage.shape)


def _variable_length(stage: Stage, content: Any, where: str) -> NDArray[Any]:
    # The count is checked first: the library reserves a reference for each item the data claim to hold.
    count = struct.unpack_from("<I", content)[0]
    if count != prod(stage.shape):
        raise ChunkError(f"{where} holds {count} items; {prod(stage.shape)} were expected.")
    codec = VLenUTF8() if stage.name == "vlen-utf8" else VLenBytes()
    items: NDArray[Any] = codec.decode(content)
    return items.reshape(stage.shape)


def _unshuffle(stage: Stage, content: Any) -> Any:
    size = stage.configuration.get("elementsize") or stage.dtype.itemsize
    return numcodecs.Shuffle(size).decode(content)


def _unfilter(stage: Stage, content: NDArray[Any]) -> NDArray[Any]:
    configuration = dict(stage.configuration)
    configuration["id"] = stage.name.removeprefix("numcodecs.")
    if stage.name == "numcodecs.astype":
        configuration.setdefault("decode_dtype", stage.dtype.str)
    elif stage.name not in {"numcodecs.bitround", "numcodecs.packbits"}:
        configuration.setdefault("dtype", stage.dtype.str)
    # The library views the bytes as its own dtype, so the byte order must already be that one.
    given = (
        content.dtype.newbyteorder("=") if "dtype" not in configuration else np.dtype(configuration["dtype"])
    )
    stored = _filtered_dtype(stage.name, configuration, given)
    decoded = numcodecs.get_codec(configuration).decode(np.ascontiguousarray(content, stored))
    return np.asarray(decoded).reshape(stage.shape)


def _through_zarr(made: Chain, data: bytes | memoryview) -> NDArray[Any]:
    """Let zarr decode a chunk with codecs not known here, as an array of that one chunk in memory."""
    document = {
        **made.document,
        "shape": made.shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": made.shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "dimension_names": None,
        "attributes": {},
    }
    key = "/".join(["c", *("0" for _ in made.shape)])
    store = MemoryStore({key: ZarrBuffer.from_bytes(bytes(data))})
    chunk = np.asarray(zarr.Array.from_dict(StorePath(store), document)[...])
    # zarr reads strings as NumPy's StringDType, which xarray cannot work with.
    return chunk.astype(object) if chunk.dtype.kind == "T" else chunk
