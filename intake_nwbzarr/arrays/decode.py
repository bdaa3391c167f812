"""Decode a chunk through its codecs, bounded by the size that the array's metadata declare."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any, Final, Literal, NamedTuple

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec
from zarr.buffer.cpu import Buffer as ZarrBuffer
from zarr.errors import UnknownCodecError
from zarr.registry import get_codec_class
from zarr.storage import MemoryStore, StorePath

from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, NWBZarrError
from intake_nwbzarr.hierarchy.decompress import CHECKSUMS, COMPRESSORS, OutputBuffer, undo_bytes
from intake_nwbzarr.hierarchy.nodes import parse_named_configuration
from intake_nwbzarr.hierarchy.zarr2.objects import CODEC_NAME as LEGACY_OBJECTS
from intake_nwbzarr.hierarchy.zarr2.objects import (
    VARIABLE_LENGTH,
    decode_items,
    decode_legacy_objects,
    text_limit,
)
from intake_nwbzarr.hierarchy.zarr2.types import ARRAY_FILTERS
from intake_nwbzarr.untrusted_input import LARGEST_OBJECT
from intake_nwbzarr.zarr_internals import bytes_spec

_NATIVE: Final = "<" if sys.byteorder == "little" else ">"

FILTERS: Final = frozenset(f"numcodecs.{name}" for name in ARRAY_FILTERS) | {"transpose"}
"""Array-to-array codecs decoded here."""

_KNOWN: Final = FILTERS | COMPRESSORS | CHECKSUMS.keys() | {"bytes", "numcodecs.shuffle"}

SERIALIZERS: Final = VARIABLE_LENGTH | {"bytes", "sharding_indexed"}
"""Array-to-bytes codecs known by name."""

REFUSED: Final = frozenset({"pickle"})
"""Codecs of numcodecs that are never used: they could run any code."""

CHUNK: Final = "nwbzarr.chunk"
TEXTS: Final = "nwbzarr.texts"
"""The codecs of `arrays.zarr_codec`, through which zarr decodes with this package."""

_DAMAGED: Final = "The chunk is damaged, or does not belong to this array; compare it with the original file."


class ChunkName(NamedTuple):
    """The name of a stored chunk in errors: its array, key and location."""

    path: str  # of the array
    key: str | None  # of the stored object, where known
    location: str

    def __str__(self) -> str:
        name = "A chunk" if self.key is None else f"The chunk {self.key!r}"
        return f"{name} of the array {self.path!r} in {self.location}"


class Stage(NamedTuple):
    """One codec of a chain, and the shape and dtype of the array that it encodes."""

    name: str
    configuration: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int  # an upper bound on the bytes that it encodes, so on the bytes that decoding may give


@dataclass(frozen=True)
class CodecChain:
    """The codecs of a chunk, as `codec_chain` returns them."""

    shape: tuple[int, ...]  # of the decoded chunk, as is dtype
    dtype: np.dtype[Any]
    stages: tuple[Stage, ...]  # in the order of encoding, without those that are left to zarr
    # array metadata with the codecs left to zarr, decoded after `stages`; None without any
    for_zarr: Mapping[str, Any] | None
    path: str  # of the array, for errors
    field: str | None = None  # the field of a compound dtype that is wanted

    @property
    def nbytes(self) -> int:
        """Return the decoded size in bytes; for Python objects that of the references to them."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_plain(self) -> bool:
        """Return whether decoding takes time in proportion to the decoded size."""
        names = {stage.name for stage in self.stages}
        return self.for_zarr is None and self.dtype.kind != "O" and _KNOWN.issuperset(names)

    @property
    def is_direct(self) -> bool:
        """Return whether the compressor's output is the chunk, byte for byte, in native byte order."""
        return (
            len(self.stages) == 2
            and self.for_zarr is None
            and self.stages[0].name == "bytes"
            and self.stages[1].name in COMPRESSORS
            and self.field is None
            and (self.dtype.itemsize == 1 or _byte_order(self.stages[0]) == _NATIVE)
        )


def codec_chain(
    document: Mapping[str, Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    path: str,
    field: str | None = None,
) -> CodecChain:
    """Return the codec chain of Zarr 3 array metadata, for chunks of `shape` and `dtype`."""
    try:
        stages = tuple(
            _stages([parse_named_configuration(entry) for entry in document["codecs"]], shape, dtype)
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise MetadataError(
            f"The array {path!r} has invalid codecs: {error}.",
            path=path,
            found=document.get("codecs"),
            next_step="The array's metadata are damaged; compare them with the original file.",
        ) from error
    result = CodecChain(shape, dtype, stages, None, path, field)
    if result.nbytes > LARGEST_OBJECT and not _is_legacy(result):
        raise LimitError(
            f"The array {path!r} has chunks of {result.nbytes} bytes; at most {LARGEST_OBJECT} are allowed.",
            path=path,
            found=result.nbytes,
            expected=LARGEST_OBJECT,
            next_step="Rewrite the array in smaller chunks, unless its metadata are damaged.",
        )
    known = _first_known(result)
    for_zarr = {**document, "codecs": document["codecs"][:known]} if known else None
    return replace(result, stages=stages[known:], for_zarr=for_zarr)


def _is_legacy(codecs: CodecChain) -> bool:
    # Their fixed width is added for zarr and not stored; their decoder has its own limits.
    return bool(codecs.stages) and codecs.stages[-1].name == LEGACY_OBJECTS


def _stages(
    codecs: Sequence[tuple[str, Mapping[str, Any]]], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> list[Stage]:
    stages: list[Stage] = []
    nbytes = prod(shape) * dtype.itemsize
    for name, configuration in codecs:
        nbytes = min(nbytes, LARGEST_OBJECT)
        stages.append(Stage(name, configuration, shape, dtype, nbytes))
        if name == "transpose":
            if sorted(configuration["order"]) != list(range(len(shape))):
                raise ValueError(f"{configuration['order']!r:.80} is not an order of {len(shape)} axes")
            shape = tuple(shape[axis] for axis in configuration["order"])
        elif name == "numcodecs.packbits":
            # Eight booleans a byte, after one byte with the number of unused bits.
            shape, dtype = (1 + ceil(prod(shape) / 8),), np.dtype(np.uint8)
            nbytes = shape[0]
        elif name in FILTERS:
            dtype = _filtered_dtype(name, configuration, dtype)
            nbytes = prod(shape) * dtype.itemsize
        elif name in VARIABLE_LENGTH:
            nbytes = text_limit(shape)  # known only from the data
        elif name in CHECKSUMS:
            nbytes += 4
        elif name in SERIALIZERS:
            pass
        elif name in COMPRESSORS:
            nbytes += nbytes // 8 + 4096  # more than any of them adds to incompressible data
        else:
            nbytes += nbytes // 8 + 2**20  # an unknown codec may add an index
    return stages


def _filtered_dtype(name: str, configuration: Mapping[str, Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    encoded = configuration.get("encode_dtype" if name == "numcodecs.astype" else "astype")
    if encoded is None:
        return dtype
    found: np.dtype[Any] = np.dtype(encoded)
    if found.kind not in "biufc":  # text of any width would allow chunks of any size
        raise ValueError(f"{name} encodes numbers as {encoded!r:.80}")
    return found


def _first_known(codecs: CodecChain) -> int:
    """Return the position of the first codec from which on all codecs are decoded by this package."""
    # Bytes-to-bytes codecs are always decoded here, also those that other packages register: the size of
    # what they give is checked. Array codecs are left to zarr unless all of them are known.
    names = [stage.name for stage in codecs.stages]
    if names in (["vlen-utf8", LEGACY_OBJECTS], ["bytes", LEGACY_OBJECTS]):
        # The codec itself decodes a whole compound, to the fixed-width fields that zarr needs.
        return 0 if codecs.dtype.names is None or codecs.field is not None else 2
    serializers = VARIABLE_LENGTH if codecs.dtype.kind == "O" else {"bytes"}
    position = next((at for at, name in enumerate(names) if name in serializers), None)
    if position is not None and FILTERS.issuperset(names[:position]):
        return 0
    return next((at + 1 for at, name in enumerate(names) if _makes_bytes(name)), len(names))


def _makes_bytes(name: str) -> bool:
    """Return whether a codec is an array-to-bytes codec."""
    if name in SERIALIZERS:
        return True
    try:
        return issubclass(get_codec_class(name), ArrayBytesCodec)
    except (KeyError, ValueError, ImportError, UnknownCodecError):
        return False


def decode(
    codecs: CodecChain, data: bytes | memoryview, where: ChunkName, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return one decoded chunk, possibly read-only and in the stored byte and memory order.

    Its memory is that of `out`, a contiguous array of the chunk's shape and dtype, where the codecs allow it.
    """
    try:
        chunk = _decode(codecs, data, where, out)
    except NWBZarrError as error:
        error.location, error.path = where.location, where.key or where.path
        raise
    except Exception as error:  # codec libraries raise errors of any class
        raise ChunkError(
            f"{where} cannot be decoded: {type(error).__name__}: {error}.",
            location=where.location,
            path=where.key or where.path,
            next_step=_DAMAGED,
        ) from error
    if chunk.shape != codecs.shape:
        raise ChunkError(
            f"{where} decodes to the shape {chunk.shape}; expected {codecs.shape}.",
            location=where.location,
            path=where.key or where.path,
            found=chunk.shape,
            expected=codecs.shape,
        )
    return chunk


def _decode(
    codecs: CodecChain, data: bytes | memoryview, where: ChunkName, out: NDArray[Any] | None
) -> NDArray[Any]:
    if _is_legacy(codecs):
        return _legacy(codecs, data, where)
    out_bytes = out.reshape(-1).view(np.uint8) if out is not None and codecs.is_direct else None
    content: Any = data
    for stage in reversed(codecs.stages):
        content = _undo(stage, content, where, out_bytes)
    chunk = (
        np.asarray(content)
        if codecs.for_zarr is None
        else _through_zarr(codecs, codecs.for_zarr, content, where)
    )
    return chunk if codecs.field is None else chunk[codecs.field]


def _legacy(codecs: CodecChain, data: bytes | memoryview, where: ChunkName) -> NDArray[Any]:
    """Decode strings, or one field of a compound, without the fixed width that zarr needs."""
    decoded = decode_legacy_objects(data, codecs.stages[-1].configuration, where=str(where))
    column = decoded[codecs.field] if isinstance(decoded, dict) and codecs.field is not None else decoded
    if isinstance(column, np.ndarray):
        return column.reshape(codecs.shape)
    items = np.empty(prod(codecs.shape), dtype=object)
    items[:] = column
    return items.reshape(codecs.shape)


def _undo(stage: Stage, content: Any, where: ChunkName, out_bytes: OutputBuffer) -> Any:
    name, configuration = stage.name, stage.configuration
    if name in COMPRESSORS or name in CHECKSUMS:
        codec = {"name": name, "configuration": configuration}
        return undo_bytes(codec, content, stage.nbytes, where=str(where), out=out_bytes)
    match name:
        case "bytes":
            return _from_bytes(stage, content, where)
        case "vlen-utf8" | "vlen-bytes":
            return _variable_length(stage, name, content, where)
        case "transpose":
            return content.transpose(np.argsort(configuration["order"]))
        case "numcodecs.shuffle":
            return _unshuffle(stage, content)
        case _ if name in FILTERS:
            return _unfilter(stage, content)
        case _:
            return _undo_registered(stage, content, where)


def _from_bytes(stage: Stage, content: Any, where: ChunkName) -> NDArray[Any]:
    found = memoryview(content).nbytes
    if found != stage.nbytes:
        raise ChunkError(
            f"{where} decodes to {found} bytes; expected {stage.nbytes}, for {stage.dtype} of shape "
            f"{stage.shape}.",
            found=found,
            expected=stage.nbytes,
            next_step=_DAMAGED,
        )
    return np.frombuffer(content, stage.dtype.newbyteorder(_byte_order(stage))).reshape(stage.shape)


def _byte_order(stage: Stage) -> Literal["<", ">"]:
    return ">" if stage.configuration.get("endian", "little") == "big" else "<"


def _variable_length(
    stage: Stage, name: Literal["vlen-utf8", "vlen-bytes"], content: Any, where: ChunkName
) -> NDArray[Any]:
    found, count, limit = memoryview(content).nbytes, prod(stage.shape), text_limit(stage.shape)
    if found > limit:
        raise LimitError(
            f"{where} has {found} bytes; at most {limit} are allowed for {count} strings.",
            found=found,
            expected=limit,
        )
    return decode_items(name, content, count).reshape(stage.shape)


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
    # numcodecs views the bytes as its own dtype, so they must already be in that byte order.
    given = (
        content.dtype.newbyteorder("=") if "dtype" not in configuration else np.dtype(configuration["dtype"])
    )
    stored = _filtered_dtype(stage.name, configuration, given)
    decoded = numcodecs.get_codec(configuration).decode(np.ascontiguousarray(content, stored))
    return np.asarray(decoded).reshape(stage.shape)


def _undo_registered(stage: Stage, content: Any, where: ChunkName) -> Any:
    """Decode with a codec that another package has registered with numcodecs or zarr."""
    name = stage.name.removeprefix("numcodecs.")
    if name in REFUSED:
        raise ChunkError(
            f"{where} was written with the codec {name!r}, which is not used: it could run any code.",
            found=name,
            next_step="Rewrite the array with another codec.",
        )
    try:
        if name != stage.name:
            codec = numcodecs.get_codec({**stage.configuration, "id": name})
        else:
            codec = get_codec_class(name).from_dict(
                {"name": name, "configuration": dict(stage.configuration)}
            )
    except (UnknownCodecError, numcodecs.errors.UnknownCodecError) as error:
        raise _not_installed(name, where) from error
    if isinstance(codec, numcodecs.Pickle):
        raise ChunkError(
            f"{where} was written with {stage.name!r}, a pickle codec, which is not used.", found=name
        )
    if isinstance(codec, BytesBytesCodec):
        spec = bytes_spec(stage.nbytes)
        buffer = spec.prototype.buffer.from_bytes(memoryview(content).cast("B"))
        (decoded_bytes,) = asyncio.run(codec.decode([(buffer, spec)]))
        decoded: Any = b"" if decoded_bytes is None else decoded_bytes.as_numpy_array()
    else:
        decoded = codec.decode(memoryview(content).cast("B"))
    view = (
        np.ascontiguousarray(decoded).reshape(-1).view(np.uint8)
        if isinstance(decoded, np.ndarray)
        else decoded
    )
    found = memoryview(view).nbytes
    if found > stage.nbytes:
        raise LimitError(
            f"{where} decodes to {found} bytes with {name!r}; at most {stage.nbytes} are allowed.",
            found=found,
            expected=stage.nbytes,
        )
    return memoryview(view).cast("B")


def _not_installed(name: str, where: ChunkName) -> ChunkError:
    return ChunkError(
        f"{where} cannot be decoded: the codec {name!r} is not installed.",
        found=name,
        next_step="Install and import the package that registers it with zarr, or with numcodecs for Zarr 2.",
    )


def _through_zarr(
    codecs: CodecChain, metadata: Mapping[str, Any], data: Any, where: ChunkName
) -> NDArray[Any]:
    """Decode with zarr the codecs not known here, as an array of one chunk in memory."""
    for name, _ in map(parse_named_configuration, metadata["codecs"]):
        try:
            get_codec_class(name)
        except UnknownCodecError as error:
            raise _not_installed(name, where) from error
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": metadata["data_type"],
        "fill_value": metadata.get("fill_value"),
        "codecs": [bounded_sharding(codec, metadata, codecs.path) for codec in metadata["codecs"]],
        "shape": codecs.shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": codecs.shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "dimension_names": None,
        "attributes": {},
    }
    key = "/".join(["c", *("0" for _ in codecs.shape)])
    store = MemoryStore({key: ZarrBuffer.from_bytes(bytes(data))})
    chunk = np.asarray(zarr.Array.from_dict(StorePath(store), document)[...])
    # zarr reads strings as NumPy's StringDType, which xarray cannot work with.
    return chunk.astype(object) if chunk.dtype.kind == "T" else chunk


def bounded_sharding(
    codec: Any, metadata: Mapping[str, Any], path: str, location: str = "memory"
) -> dict[str, Any]:
    """Return the codec ``sharding_indexed`` with chunks decoded by this package; other codecs unchanged."""
    name, configuration = parse_named_configuration(codec)
    if name != "sharding_indexed":
        return spelled_out(codec)
    inner = bounded_decoding(configuration["codecs"], metadata, path, location)
    index = [spelled_out(entry) for entry in configuration.get("index_codecs", ())]
    return {"name": name, "configuration": {**configuration, "codecs": [inner], "index_codecs": index}}


def bounded_decoding(codecs: Any, metadata: Mapping[str, Any], path: str, location: str) -> dict[str, Any]:
    """Return the codec document with which zarr decodes a chunk through this package."""
    described = {name: metadata.get(name) for name in ("data_type", "fill_value")}
    name = TEXTS if parse_named_configuration(metadata["data_type"])[0] == "string" else CHUNK
    return {
        "name": name,
        "configuration": {"array": path, "location": location, **described, "codecs": codecs},
    }


def spelled_out(entry: Any) -> dict[str, Any]:
    """Return a codec or encoding as a mapping, which zarr requires where Zarr 3 allows a name alone."""
    name, configuration = parse_named_configuration(entry)
    return {"name": name, "configuration": dict(configuration)} if configuration else {"name": name}
