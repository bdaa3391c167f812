"""Codec chains: from the stored bytes of one chunk to its array, never larger than the metadata declare."""

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

from intake_nwbzarr.bounds import LARGEST_OBJECT
from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, NWBZarrError
from intake_nwbzarr.hierarchy.decompress import CHECKSUMS, COMPRESSORS, Room, undo_bytes
from intake_nwbzarr.hierarchy.nodes import named
from intake_nwbzarr.hierarchy.zarr2.objects import CODEC_NAME as LEGACY_OBJECTS
from intake_nwbzarr.hierarchy.zarr2.objects import (
    VARIABLE_LENGTH,
    decode_items,
    decode_legacy_objects,
    text_limit,
)
from intake_nwbzarr.hierarchy.zarr2.types import ARRAY_FILTERS
from intake_nwbzarr.zarr_internals import bytes_spec

CHUNK_LIMIT: Final = LARGEST_OBJECT
"""The most bytes that a chunk may have, stored or decoded."""

_NATIVE: Final = "<" if sys.byteorder == "little" else ">"

FILTERS: Final = frozenset(f"numcodecs.{name}" for name in ARRAY_FILTERS) | {"transpose"}
"""Array-to-array codecs undone here."""

_KNOWN: Final = FILTERS | COMPRESSORS | CHECKSUMS.keys() | {"bytes", "numcodecs.shuffle"}

SERIALIZERS: Final = VARIABLE_LENGTH | {"bytes", "sharding_indexed"}
"""Codecs that make bytes of an array, as far as they are known by name."""

REFUSED: Final = frozenset({"pickle"})
"""Codecs of numcodecs that are never used, whoever registered them."""

CHUNK: Final = "nwbzarr.chunk"
TEXTS: Final = "nwbzarr.texts"
"""The codecs of `arrays.zarr_codec`, through which zarr decodes as this package does."""


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
        The codecs in the order of writing, without those that zarr has to undo.
    for_zarr
        The array's metadata with the codecs that zarr has to undo, after `stages`; None where there are none.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stages: tuple[Stage, ...]
    for_zarr: Mapping[str, Any] | None
    path: str
    field: str | None = None

    @property
    def nbytes(self) -> int:
        """The decoded size; for Python objects that of the references to them."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_plain(self) -> bool:
        """Whether decoding takes time in proportion to the decoded size."""
        names = {stage.name for stage in self.stages}
        return self.for_zarr is None and self.dtype.kind != "O" and _KNOWN.issuperset(names)

    @property
    def is_direct(self) -> bool:
        """Whether what the compressor makes is the chunk, byte for byte, and in native order."""
        return (
            len(self.stages) == 2
            and self.for_zarr is None
            and self.stages[0].name == "bytes"
            and self.stages[1].name in COMPRESSORS
            and self.field is None
            and (self.dtype.itemsize == 1 or _byte_order(self.stages[0]) == _NATIVE)
        )


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
    try:
        stages = tuple(_stages([named(entry) for entry in document["codecs"]], shape, dtype))
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise MetadataError(
            f"The array {path!r} has codecs that cannot be understood: {error}. Its metadata are damaged."
        ) from error
    result = Chain(shape, dtype, stages, None, path, field)
    if result.nbytes > CHUNK_LIMIT and not _is_legacy(result):
        raise LimitError(
            f"The array {path!r} has chunks of {result.nbytes} bytes; {CHUNK_LIMIT} are allowed. "
            "The metadata are damaged, or the array has to be rewritten in smaller chunks."
        )
    known = _first_known(result)
    for_zarr = {**document, "codecs": document["codecs"][:known]} if known else None
    return replace(result, stages=stages[known:], for_zarr=for_zarr)


def _is_legacy(made: Chain) -> bool:
    # Their fixed width is what zarr makes of them, not what is stored; the decoder has its own limits.
    return bool(made.stages) and made.stages[-1].name == LEGACY_OBJECTS


def _stages(
    codecs: Sequence[tuple[str, Mapping[str, Any]]], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> list[Stage]:
    stages: list[Stage] = []
    nbytes = prod(shape) * dtype.itemsize
    for name, configuration in codecs:
        nbytes = min(nbytes, CHUNK_LIMIT)
        stages.append(Stage(name, configuration, shape, dtype, nbytes))
        if name == "transpose":
            if sorted(configuration["order"]) != list(range(len(shape))):
                raise ValueError(f"{configuration['order']!r:.80} is no order of {len(shape)} axes")
            shape = tuple(shape[axis] for axis in configuration["order"])
        elif (
            name == "numcodecs.packbits"
        ):  # eight booleans a byte, and a byte that says how many are left over
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
            nbytes += nbytes // 8 + 4096  # more than any of them adds to data that do not compress
        else:
            nbytes += nbytes // 8 + 2**20  # whatever it is: it stores data of that size, and an index perhaps
    return stages


def _filtered_dtype(name: str, configuration: Mapping[str, Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    encoded = configuration.get("encode_dtype" if name == "numcodecs.astype" else "astype")
    if encoded is None:
        return dtype
    found: np.dtype[Any] = np.dtype(encoded)
    if found.kind not in "biufc":  # text of any width would allow chunks of any size
        raise ValueError(f"{name} makes {encoded!r:.80} of numbers")
    return found


def _first_known(made: Chain) -> int:
    """The position of the first codec that is undone here, of those that end with the last one.

    What makes bytes of bytes always is, also by a codec that another package has registered: what comes out
    is compared with what may. Before that, numbers and what makes bytes of them are left to zarr, unless all
    of them are known.
    """
    names = [stage.name for stage in made.stages]
    if names in (["vlen-utf8", LEGACY_OBJECTS], ["bytes", LEGACY_OBJECTS]):
        # A whole compound with fixed-width fields is what the codec itself makes, for zarr.
        return 0 if made.dtype.names is None or made.field is not None else 2
    serializers = VARIABLE_LENGTH if made.dtype.kind == "O" else {"bytes"}
    position = next((at for at, name in enumerate(names) if name in serializers), None)
    if position is not None and FILTERS.issuperset(names[:position]):
        return 0
    return next((at + 1 for at, name in enumerate(names) if _makes_bytes(name)), len(names))


def _makes_bytes(name: str) -> bool:
    """Whether a codec is the one that makes bytes of an array."""
    if name in SERIALIZERS:
        return True
    try:
        return issubclass(get_codec_class(name), ArrayBytesCodec)
    except (KeyError, ValueError, ImportError, UnknownCodecError):
        return False


def decode(
    made: Chain, data: bytes | memoryview, where: str, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Decode one chunk.

    Parameters
    ----------
    made
        How.
    data
        As stored.
    where
        The chunk, for errors.
    out
        An array of the chain's shape and dtype, contiguous, that the chunk may be decoded into.

    Returns
    -------
    numpy.ndarray
        Of the chain's shape, in whatever byte and memory order is stored, and possibly read-only. Its memory
        is that of `out` where the codecs are such that this is possible.

    Raises
    ------
    ChunkError
        When the data are damaged, or not of the declared size. For pickled objects that hold anything but
        inert values, a `LegacyObjectError`.
    LimitError
        When they would expand beyond the declared size.
    """
    try:
        chunk = _decode(made, data, where, out)
    except NWBZarrError:
        raise
    except Exception as error:  # codec libraries raise whatever they like
        raise ChunkError(
            f"{where} cannot be decoded: {type(error).__name__}: {error}. The chunk is damaged, or does not "
            "belong to this array; compare it with the original file."
        ) from error
    if chunk.shape != made.shape:
        raise ChunkError(f"{where} decodes to the shape {chunk.shape}; {made.shape} was expected.")
    return chunk


def _decode(made: Chain, data: bytes | memoryview, where: str, out: NDArray[Any] | None) -> NDArray[Any]:
    if _is_legacy(made):
        return _legacy(made, data, where)
    room = out.reshape(-1).view(np.uint8) if out is not None and made.is_direct else None
    content: Any = data
    for stage in reversed(made.stages):
        content = _undo(stage, content, where, room)
    chunk = (
        np.asarray(content) if made.for_zarr is None else _through_zarr(made, made.for_zarr, content, where)
    )
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


def _undo(stage: Stage, content: Any, where: str, room: Room) -> Any:
    name, configuration = stage.name, stage.configuration
    if name in COMPRESSORS or name in CHECKSUMS:
        codec = {"name": name, "configuration": configuration}
        return undo_bytes(codec, content, stage.nbytes, where=where, out=room)
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


def _from_bytes(stage: Stage, content: Any, where: str) -> NDArray[Any]:
    found = memoryview(content).nbytes
    if found != stage.nbytes:
        raise ChunkError(
            f"{where} decodes to {found} bytes; {stage.nbytes} were expected for {stage.dtype} of shape "
            f"{stage.shape}. The chunk is damaged, or does not belong to this array."
        )
    return np.frombuffer(content, stage.dtype.newbyteorder(_byte_order(stage))).reshape(stage.shape)


def _byte_order(stage: Stage) -> Literal["<", ">"]:
    return ">" if stage.configuration.get("endian", "little") == "big" else "<"


def _variable_length(
    stage: Stage, name: Literal["vlen-utf8", "vlen-bytes"], content: Any, where: str
) -> NDArray[Any]:
    found, count, limit = memoryview(content).nbytes, prod(stage.shape), text_limit(stage.shape)
    if found > limit:
        raise LimitError(f"{where} holds {found} bytes; {limit} are allowed for {count} strings.")
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
    # The library views the bytes as its own dtype, so the byte order must already be that one.
    given = (
        content.dtype.newbyteorder("=") if "dtype" not in configuration else np.dtype(configuration["dtype"])
    )
    stored = _filtered_dtype(stage.name, configuration, given)
    decoded = numcodecs.get_codec(configuration).decode(np.ascontiguousarray(content, stored))
    return np.asarray(decoded).reshape(stage.shape)


def _undo_registered(stage: Stage, content: Any, where: str) -> Any:
    """Undo a codec that another package has registered, with numcodecs or with zarr."""
    name = stage.name.removeprefix("numcodecs.")
    if name in REFUSED:
        raise ChunkError(
            f"{where} is stored by the codec {name!r}, which could run anything on decoding and is not used. "
            "Rewrite the array."
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
        raise ChunkError(f"{where} is stored by {stage.name!r}, which is a pickle and is not used.")
    if isinstance(codec, BytesBytesCodec):
        spec = bytes_spec(stage.nbytes)
        buffer = spec.prototype.buffer.from_bytes(memoryview(content).cast("B"))
        (made,) = asyncio.run(codec.decode([(buffer, spec)]))
        decoded: Any = b"" if made is None else made.as_numpy_array()
    else:
        decoded = codec.decode(memoryview(content).cast("B"))
    view = (
        np.ascontiguousarray(decoded).reshape(-1).view(np.uint8)
        if isinstance(decoded, np.ndarray)
        else decoded
    )
    found = memoryview(view).nbytes
    if found > stage.nbytes:
        raise LimitError(f"{where} expands to {found} bytes by {name!r}; {stage.nbytes} are allowed.")
    return memoryview(view).cast("B")


def _not_installed(name: str, where: str) -> ChunkError:
    return ChunkError(
        f"{where} cannot be decoded: no codec {name!r} is installed. Install and import the Python package "
        "that registers it with zarr, or with numcodecs for Zarr 2."
    )


def _through_zarr(made: Chain, metadata: Mapping[str, Any], data: Any, where: str) -> NDArray[Any]:
    """Let zarr undo codecs not known here, on an array of that one chunk in memory."""
    for name, _ in map(named, metadata["codecs"]):
        try:
            get_codec_class(name)
        except UnknownCodecError as error:
            raise _not_installed(name, where) from error
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": metadata["data_type"],
        "fill_value": metadata.get("fill_value"),
        "codecs": [bounded_sharding(codec, metadata, made.path) for codec in metadata["codecs"]],
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


def bounded_sharding(
    codec: Any, metadata: Mapping[str, Any], path: str, location: str = "memory"
) -> dict[str, Any]:
    """The codec ``sharding_indexed`` with this package's decoding of its chunks; any other as it is."""
    name, configuration = named(codec)
    if name != "sharding_indexed":
        return spelled_out(codec)
    inner = bounded_decoding(configuration["codecs"], metadata, path, location)
    index = [spelled_out(entry) for entry in configuration.get("index_codecs", ())]
    return {"name": name, "configuration": {**configuration, "codecs": [inner], "index_codecs": index}}


def bounded_decoding(codecs: Any, metadata: Mapping[str, Any], path: str, location: str) -> dict[str, Any]:
    """Return the codec document by which zarr decodes a chunk with this package."""
    described = {name: metadata.get(name) for name in ("data_type", "fill_value")}
    name = TEXTS if named(metadata["data_type"])[0] == "string" else CHUNK
    return {
        "name": name,
        "configuration": {"array": path, "location": location, **described, "codecs": codecs},
    }


def spelled_out(entry: Any) -> dict[str, Any]:
    """What Zarr 3 allows to be a name alone, as zarr wants it."""
    name, configuration = named(entry)
    return {"name": name, "configuration": dict(configuration)} if configuration else {"name": name}
